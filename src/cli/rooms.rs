//! Where the parts of a server are put together: gate, model, engine, listener, in this order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Failure;
use super::loading::{ModelFacts, load};
use super::public_prefixes;
use super::startup::{Facts, mint_command};
use super::token::{self, MintArgs};
use crate::auth::{BuiltinIssuer, Gate, IssuerSummary};
use crate::clock::Clock;
use crate::config::{Args, Config, Origin};
use crate::engine::{Capacity, Engine, EngineConfig, Executor};
use crate::ledger::{Ledger, LedgerError, day};
use crate::server::{App, Certificates, ModelCard, Server};
use crate::telemetry::Secret;

/// The rooms behind the door: a gate, a loaded model, a running engine.
pub(super) struct Rooms {
    app: App,
    model: ModelFacts,
}

impl Rooms {
    /// Opens the gate, loads the model and starts the engine. Cheap checks come first.
    ///
    /// # Errors
    /// Whatever part could not start.
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        config.check_exposure()?;
        let clock = Clock::system();
        let gate = gate(config, clock.clone())?;
        let ledger = ledger(config, &gate, clock.clone())?;
        let loaded = load(config)?;
        let Capacity {
            vocab_size,
            block_size,
            ..
        } = loaded.executor.capacity();
        let public_prefixes =
            public_prefixes::tokens(&config.public_prefixes, &loaded.text, block_size)?;
        let settings = EngineConfig {
            public_prefixes,
            ..config.engine.clone()
        };
        let engine = Engine::start(loaded.executor, settings, loaded.eos);

        let model = ModelCard {
            id: config.model.served_model_name.clone(),
            created: clock.unix_seconds(),
            owned_by: "mixgate".to_owned(),
            max_model_len: engine.max_model_len(),
            vocab_size,
            sampling: loaded.sampling,
        };
        Ok(Self {
            app: App {
                engine,
                gate,
                text: Arc::new(loaded.text),
                model,
                ledger,
                clock,
            },
            model: loaded.facts,
        })
    }

    /// Binds the address.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub(super) async fn listen(self, config: &Config) -> Result<Listening, Failure> {
        let ledger = self.app.ledger.clone();
        let issuers = self.app.gate.issuers();
        let max_model_len = self.app.model.max_model_len;
        let server = Server::bind(config.server.clone(), self.app)
            .await
            .map_err(|error| Failure::of(&error).hint_if(error.hint()))?;
        Ok(Listening {
            server,
            model: self.model,
            ledger,
            issuers,
            max_model_len,
        })
    }
}

/// A server that listens and does not answer yet.
pub(super) struct Listening {
    server: Server,
    model: ModelFacts,
    ledger: Ledger,
    issuers: Vec<IssuerSummary>,
    max_model_len: usize,
}

impl Listening {
    /// Where it listens; the port is the real one.
    pub(super) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where usage is written down.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What the start-up screen tells.
    pub(super) fn facts(&self, config: &Config, args: &Args, load: Duration) -> Facts {
        Facts {
            version: env!("CARGO_PKG_VERSION"),
            model: config.model.served_model_name.clone(),
            parameters: self.model.parameters,
            dtype: self.model.dtype,
            device: self.model.device.clone(),
            issuers: self.issuers.clone(),
            mint: minting(config, args),
            kv_cache_tokens: self.model.kv_cache_tokens,
            kv_cache_bytes: self.model.kv_cache_bytes,
            caution: self.model.caution.clone(),
            max_model_len: self.max_model_len,
            load,
            address: self.address(),
            tls: self.server.is_tls(),
            internal: self.server.internal_address(),
        }
    }

    /// A means to have the certificates read anew.
    pub(super) fn certificates(&self) -> Certificates {
        self.server.certificates()
    }

    /// Answers. Once `draining` completes, running streams may finish until `shutdown_timeout`, then it returns.
    pub(super) async fn serve(self, draining: oneshot::Receiver<()>) {
        let asked = async {
            // A sender that is gone means the same: nobody is left who could ask.
            let _ = draining.await;
        };
        self.server.run(asked).await;
    }
}

/// The ledger that the configuration asks for. It tells the gate what budgets have left and hears of them from then on.
///
/// # Errors
/// What is wrong with its file.
fn ledger(config: &Config, gate: &Gate, clock: Clock) -> Result<Ledger, Failure> {
    let told = |error: LedgerError| Failure::of(&error).hint_if(error.hint());
    let today = day(clock.unix_seconds());
    let ledger = match &config.ledger.path {
        Some(path) => Ledger::open(path, clock).map_err(told)?,
        None => {
            tracing::warn!(
                "the ledger is off: usage, budgets and revocations end with this process"
            );
            Ledger::in_memory()
        }
    };
    ledger.keep_for(config.ledger.retention);
    let limits = gate.limits().clone();
    limits.restore(&ledger.budgets(&[&today, &today[..7]]).map_err(told)?);
    ledger.budgets_from(move || limits.changed_budgets());
    Ok(ledger)
}

/// The gate that the configuration asks for. Makes the built-in issuer's key if there is none yet.
///
/// # Errors
/// What is wrong with an issuer or a key.
pub(super) fn gate(config: &Config, clock: Clock) -> Result<Gate, Failure> {
    let builtin = match config.has_issuers() {
        true => None,
        false => Some(builtin(config)?),
    };
    gate_with(config, builtin, clock)
}

/// The same, to see whether it would come up: with a key that nobody keeps in the built-in issuer's place.
///
/// # Errors
/// As [`gate`], but for the built-in issuer's key.
pub(super) fn try_gate(config: &Config, clock: Clock) -> Result<Gate, Failure> {
    let builtin = match config.has_issuers() {
        true => None,
        false => {
            let issuer = BuiltinIssuer::ephemeral();
            Some(issuer.map_err(|error| Failure::of(&error).hint_if(error.hint()))?)
        }
    };
    gate_with(config, builtin, clock)
}

fn gate_with(
    config: &Config,
    builtin: Option<BuiltinIssuer>,
    clock: Clock,
) -> Result<Gate, Failure> {
    Gate::new(&config.auth.gate, builtin, clock)
        .map_err(|error| Failure::of(&error).hint_if(error.hint()))
}

/// The built-in issuer with its key in the state folder.
///
/// # Errors
/// If the key cannot be read or made, or others could have it.
pub(super) fn builtin(config: &Config) -> Result<BuiltinIssuer, Failure> {
    BuiltinIssuer::load_or_create(&config.auth.state_dir)
        .map_err(|error| Failure::of(&error).hint_if(error.hint()))
}

/// A token of the built-in issuer for the chat routes.
///
/// # Errors
/// If its key cannot be read, or the token would be refused.
pub(super) fn mint(config: &Config, subject: &str, ttl: &str) -> Result<Secret<String>, Failure> {
    let args = MintArgs {
        subject: subject.to_owned(),
        ttl: ttl.to_owned(),
        scopes: token::DEFAULT_SCOPES.to_owned(),
        claims: Vec::new(),
    };
    let token = token::mint(&args, &builtin(config)?, &Clock::system());
    token
        .map(Secret::new)
        .map_err(|error| Failure::of(&error).hint_if(error.hint()))
}

/// The command that mints a token for this server, if it has the built-in issuer.
fn minting(config: &Config, args: &Args) -> Option<String> {
    if config.has_issuers() {
        return None;
    }
    // Another terminal of the same user finds the same folder only if it follows from the user's home.
    let follows = matches!(
        config.origin("state_dir"),
        Origin::System("HOME" | "XDG_STATE_HOME")
    );
    let folder = (!follows).then_some(config.auth.state_dir.as_path());
    let program = std::env::current_exe().unwrap_or_else(|_| "mixgate".into());
    Some(mint_command(&program, &args.env, folder))
}
