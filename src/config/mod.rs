//! What was typed, and what is true: [`Args`] become a [`Config`].
//!
//! A setting has one name in three spellings: `max_num_seqs` in the file, `MIXGATE_MAX_NUM_SEQS` in the environment,
//! `--max-num-seqs` on the command line. A flag wins over the environment, the environment over the file, the file over
//! the default. [`settings`] is the one table behind all of them: adding a setting is adding an entry there and giving
//! the value to the module that uses it in [`Config::load`].
//!
//! This is the only module that reads the environment, and it does so once ([`Env::system`]).

mod device;
mod env;
mod error;
mod exposure;
mod file;
mod layers;
mod ledger;
mod model;
mod server;
mod settings;
mod show;
mod value;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use crate::auth::AuthConfig;
use crate::engine::EngineConfig;
use crate::model::Storage;
use crate::server::ServerConfig;

pub use device::DeviceName;
pub use env::{BENCH_TOKEN, Env};
pub use error::ConfigError;
pub use exposure::check_exposure;
pub use layers::{Args, Origin};
pub use model::Model;
pub use settings::{DefaultValue, Group, Setting, TABLE};
pub use show::template;
pub use value::{LogFilter, LogFormat, parse_duration, parse_size};

use layers::Layers;
use ledger::LedgerPlace;
use settings::Settings;

/// What is true: every setting, checked, and handed out in the parts that the modules take.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which model, and how much memory its cache takes.
    pub model: ModelSettings,
    /// What the engine may use. Its public prefixes are still to be made of [`Config::public_prefixes`].
    pub engine: EngineConfig,
    /// System prompts whose computed beginning all tenants share.
    pub public_prefixes: Vec<String>,
    /// Where to listen and how long to wait for whom.
    pub server: ServerConfig,
    /// Who is let in.
    pub auth: AuthSettings,
    /// Where usage is written down.
    pub ledger: LedgerSettings,
    /// How to log.
    pub log: LogSettings,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    layers: Layers,
}

/// Which model to serve and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSettings {
    /// Where the weights come from, if there are any.
    pub source: Model,
    /// Where it computes.
    pub device: DeviceName,
    /// Whether decoding on a GPU is recorded as CUDA graphs.
    pub cuda_graphs: bool,
    /// Whether dense products of many rows are left to cuBLASLt.
    pub cublaslt: bool,
    /// Whether warpgroups multiply steps of many rows, where a GPU has them.
    pub wgmma: bool,
    /// How the weights of linear layers are stored; `None`: as the checkpoint has them.
    pub dtype: Option<Storage>,
    /// The name that clients ask for.
    pub served_model_name: String,
    /// A chat template that replaces the model's own.
    pub chat_template: Option<PathBuf>,
    /// Longest sequence in tokens; `None`: the model's context, or what the cache holds if that is less.
    pub max_model_len: Option<usize>,
    /// How large the KV cache is.
    pub kv_cache: KvCache,
    /// Tokens of one KV block.
    pub block_size: usize,
}

/// How large the KV cache is; [`KvCache::blocks`] turns it into a number of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvCache {
    /// As much as suits the model.
    Auto,
    /// This many tokens, rounded down to whole blocks.
    Tokens(usize),
    /// This many bytes, rounded down to whole blocks.
    Bytes(usize),
}

impl KvCache {
    /// Blocks of `block_size` tokens, at least one, for a model with `bytes_per_token` of keys and values and a context
    /// of `context` tokens.
    ///
    /// `Auto` holds sixteen full contexts if they fit 128 MiB, and one full context in any case.
    pub fn blocks(self, bytes_per_token: usize, context: usize, block_size: usize) -> usize {
        let tokens = match self {
            Self::Tokens(tokens) => tokens,
            Self::Bytes(bytes) => bytes / bytes_per_token.max(1),
            Self::Auto => {
                let full = context.div_ceil(block_size) * block_size;
                full.saturating_mul(AUTO_CONTEXTS)
                    .min(AUTO_BYTES / bytes_per_token.max(1))
                    .max(full)
            }
        };
        (tokens / block_size).max(1)
    }
}

const AUTO_CONTEXTS: usize = 16;
const AUTO_BYTES: usize = 128 << 20;

/// Who is let in, and where the built-in issuer keeps its key.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// The `[auth]` table of the file: the issuers that are believed.
    pub gate: AuthConfig,
    /// Folder of the built-in issuer's key.
    pub state_dir: PathBuf,
    /// Whether the built-in issuer may serve a public address.
    pub allow_public_builtin_issuer: bool,
    /// Who may do what, and how much.
    pub policy_file: Option<PathBuf>,
}

/// Where usage, budgets, revocations and API keys are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerSettings {
    /// The file; `None`: in memory, until the process ends.
    pub path: Option<PathBuf>,
    /// How long rows of requests are kept.
    pub retention: Duration,
}

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// The shape of a line.
    pub format: LogFormat,
    /// What is logged.
    pub filter: LogFilter,
    /// Whether colours may be used (`NO_COLOR` is not set).
    pub colour: bool,
}

impl Config {
    /// Reads the file and the environment, and lays what was typed over them.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong: the file, an unknown name, a value of the wrong kind.
    pub fn load(args: &Args) -> Result<Self, ConfigError> {
        let layers = Layers::resolve(args)?;
        let settings = Settings::from_layers(&layers);
        let kv_cache = match layers.stronger("kv_cache_tokens", "kv_cache_bytes")? {
            None => KvCache::Auto,
            Some("kv_cache_tokens") => settings
                .kv_cache_tokens
                .map_or(KvCache::Auto, |n| KvCache::Tokens(n.get())),
            Some(_) => settings
                .kv_cache_bytes
                .map_or(KvCache::Auto, |size| KvCache::Bytes(size.0)),
        };
        let server = server::config(&settings, &layers)?;
        Ok(Self {
            engine: engine(&settings)?,
            public_prefixes: layers.public_prefixes()?,
            model: ModelSettings {
                served_model_name: settings
                    .served_model_name
                    .unwrap_or_else(|| settings.model.name()),
                source: settings.model,
                device: settings.device,
                cuda_graphs: settings.cuda_graphs,
                cublaslt: settings.cublaslt,
                wgmma: settings.wgmma,
                dtype: settings.dtype.0,
                chat_template: settings.chat_template,
                max_model_len: settings.max_model_len.map(usize::from),
                kv_cache,
                block_size: settings.block_size.get(),
            },
            ledger: LedgerSettings {
                path: match settings.ledger {
                    Some(LedgerPlace::Off) => None,
                    Some(LedgerPlace::File(path)) => Some(path),
                    None => Some(settings.state_dir.join(ledger::FILE)),
                },
                retention: settings.ledger_retention.0,
            },
            server,
            auth: AuthSettings {
                gate: layers.auth()?,
                state_dir: settings.state_dir,
                allow_public_builtin_issuer: settings.allow_public_builtin_issuer,
                policy_file: settings.policy_file,
            },
            log: LogSettings {
                format: settings.log_format,
                filter: settings.log_level,
                colour: args.env.var("NO_COLOR").is_none(),
            },
            file: layers.file_path().map(PathBuf::from),
            layers,
        })
    }

    /// Checks that the address may be served with the issuers that are configured.
    ///
    /// # Errors
    /// [`ConfigError::PublicAddress`].
    pub fn check_exposure(&self) -> Result<(), ConfigError> {
        check_exposure(
            self.server.host,
            self.has_issuers(),
            self.auth.allow_public_builtin_issuer,
        )
    }

    /// Whether tokens and prompts can be read on their way from other machines. Something in front may speak TLS for
    /// this server, so that it is no error.
    pub fn is_plaintext_in_public(&self) -> bool {
        self.server.tls.is_none() && !self.server.host.to_canonical().is_loopback()
    }

    /// Whether other machines may reach the listener that asks for no token.
    pub fn is_internal_in_public(&self) -> bool {
        let internal = self.server.internal;
        internal.is_some_and(|address| !address.ip().to_canonical().is_loopback())
    }

    /// Whether tokens come from configured issuers; otherwise the built-in one makes them.
    pub fn has_issuers(&self) -> bool {
        !self.auth.gate.uses_builtin()
    }

    /// Where the value of a setting comes from.
    pub fn origin(&self, name: &str) -> &Origin {
        self.layers.origin(name)
    }
}

/// The engine's part. Prefixes are words until a tokenizer is at hand.
///
/// # Errors
/// [`ConfigError::Budget`].
fn engine(settings: &Settings) -> Result<EngineConfig, ConfigError> {
    let max_num_seqs = settings.max_num_seqs.get();
    // With less than a token for each, sequences would sit out; twice as many leave half of a step for prompts.
    let max_num_batched_tokens = settings.max_num_batched_tokens.map_or_else(
        || max_num_seqs.saturating_mul(2).max(LEAST_BUDGET),
        usize::from,
    );
    // Running sequences come first: a full house would leave nothing for whoever may displace one of them.
    if max_num_batched_tokens <= max_num_seqs {
        return Err(ConfigError::Budget {
            tokens: max_num_batched_tokens,
            seqs: max_num_seqs,
        });
    }
    let max_waiting = settings.max_waiting.get();
    Ok(EngineConfig {
        max_num_batched_tokens,
        max_prefill_tokens: settings
            .max_prefill_tokens
            .map_or(max_num_batched_tokens, usize::from),
        max_num_seqs,
        max_waiting,
        max_waiting_tokens: settings.max_waiting_tokens.map_or(usize::MAX, usize::from),
        max_waiting_per_subject: settings
            .max_waiting_per_subject
            .map_or_else(|| three_quarters(max_waiting), usize::from),
        scheduling_policy: settings.scheduling_policy,
        prefix_caching: settings.prefix_caching,
        max_tenant_blocks_percent: settings.max_tenant_kv_percent.map(|percent| percent.0),
        public_prefixes: Vec::new(),
    })
}

/// Tokens of a step: enough for a short prompt at once.
const LEAST_BUDGET: usize = 512;

/// At least 1.
fn three_quarters(n: usize) -> usize {
    n - n / 4
}
