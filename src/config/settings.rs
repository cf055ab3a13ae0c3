//! The table of settings: one entry is a flag, a variable, a key of the file, a default and a line of help.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::device::DeviceName;
use super::layers::Layers;
use super::ledger::LedgerPlace;
use super::model::{Dtype, Model};
use super::value::{
    ByteSize, ClientAuth, Count, List, LogFilter, LogFormat, Percent, Period, TomlKind, Value,
};
use crate::engine::SchedulingPolicy;
use crate::server::{PublicUrl, SubjectNames, WebOrigin};

mod default;
mod group;

pub use default::DefaultValue;
use default::state_dir;
pub use group::Group;

/// What is known about a setting before anybody gave it a value.
#[derive(Debug)]
pub struct Setting {
    /// Its name as a key of the file, such as `max_num_seqs`.
    pub name: &'static str,
    /// First line: what it is. Further lines: what else to know.
    help: &'static str,
    /// What stands for its value in help, such as `PORT`.
    pub value_name: &'static str,
    /// Its value if nobody gave one.
    pub default: DefaultValue,
    /// Under which heading of the help it stands.
    pub group: Group,
    /// Whether `-h` shows it, or only `--help`.
    pub in_short_help: bool,
    /// Whether it is a switch: the flag alone means `true`.
    pub is_switch: bool,
    /// Whether a relative value in a file is meant from that file's folder.
    pub(super) is_path: bool,
    /// Words for what a value must be, such as `a port from 0 to 65535`.
    pub wanted: &'static str,
    /// How the value may be written in TOML.
    pub(super) kinds: &'static [TomlKind],
    /// The value in TOML's notation, if the text is one.
    pub(super) check: fn(&str) -> Option<String>,
    /// What to do about a text that is no value.
    pub(super) hint: fn(&str) -> Option<String>,
}

impl Setting {
    /// The setting called `name` in a file.
    pub fn named(name: &str) -> Option<&'static Self> {
        TABLE.iter().find(|setting| setting.name == name)
    }

    /// Its flag, without the dashes: `max-num-seqs`.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Its variable: `MIXGATE_MAX_NUM_SEQS`.
    pub fn variable(&self) -> String {
        format!("{}{}", super::env::PREFIX, self.name.to_uppercase())
    }

    /// One line: what it is.
    pub fn summary(&self) -> &'static str {
        self.help.lines().next().unwrap_or_default().trim()
    }

    /// What else to know; may be empty.
    pub fn details(&self) -> String {
        self.help
            .lines()
            .skip(1)
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Makes the typed struct and the table from one list, so that neither can lack an entry.
macro_rules! settings {
    ($(
        $(#[doc = $help:literal])+
        $name:ident : $type:ty {
            group: $group:ident, value: $value:literal, default: $default:expr, short: $short:literal
        }
    )+) => {
        /// Every setting with its type. [`super::Config::load`] hands them out.
        pub(super) struct Settings {
            $(pub(super) $name: $type,)+
        }

        impl Settings {
            pub(super) fn from_layers(layers: &Layers) -> Self {
                Self { $($name: layers.typed::<$type>(stringify!($name)),)+ }
            }
        }

        /// Every setting, in the order of the help.
        pub const TABLE: &[Setting] = &[$(Setting {
            name: stringify!($name),
            help: concat!($($help, "\n",)+),
            value_name: $value,
            default: $default,
            group: Group::$group,
            in_short_help: $short,
            is_switch: <$type as Value>::IS_SWITCH,
            is_path: <$type as Value>::IS_PATH,
            wanted: <$type as Value>::WANTED,
            kinds: <$type as Value>::KINDS,
            check: |text| <$type as Value>::parse(text).map(|value| value.toml()),
            hint: <$type as Value>::hint,
        },)+];
    };
}

settings! {
    /// Name or checkpoint folder
    /// "seedling" is the model inside the binary. A folder is laid out as on Hugging Face.
    /// synthetic:mixtral-8x7b has random weights; ,dtype=w4a16 stores them so, ,layers=4 makes a slice, ,seed=1 another.
    /// null:mixtral-8x7b answers at once and computes nothing; null:mixtral-8x7b@a100-w4a16 takes the time that such a
    /// device would need.
    model: Model { group: Model, value: "NAME|DIR", default: DefaultValue::Is("seedling"), short: true }

    /// Where it computes: cpu, or cuda:N
    /// A GPU needs a binary built with the `cuda` feature and an NVIDIA driver.
    device: DeviceName { group: Model, value: "DEVICE", default: DefaultValue::Is("cpu"), short: true }

    /// Record steps that only decode as CUDA graphs; =false turns it off
    cuda_graphs: bool { group: Model, value: "true|false", default: DefaultValue::Is("true"), short: false }

    /// Multiply bf16 layers of 64 rows and more by cuBLASLt, if it is installed
    /// Then a row's last bits depend on how many share its step. Experts and quantised layers have kernels of their own.
    cublaslt: bool { group: Model, value: "true|false", default: DefaultValue::Is("false"), short: false }

    /// Multiply steps of many rows by Hopper's warpgroups, where the GPU has them; =false turns it off
    /// The bits are those of single warps; that is tried at the start.
    wgmma: bool { group: Model, value: "true|false", default: DefaultValue::Is("true"), short: false }

    /// How weights are stored: auto, w4a16, q8_0, q4_k, fp8, bf16 or f32
    /// auto keeps them as the checkpoint has them; on a GPU, f32 and f16 become bf16. The others are made of those while they
    /// load: w4a16 and q4_k take about a quarter of bf16's bytes, q8_0 and fp8 half, at some loss. Embeddings, norms and gates
    /// stay as they are.
    dtype: Dtype { group: Model, value: "TYPE", default: DefaultValue::Is("auto"), short: false }

    /// Name that clients ask for
    served_model_name: Option<String> {
        group: Model, value: "NAME", default: DefaultValue::Unset("the folder's name"), short: false
    }

    /// Jinja file that replaces the model's chat template
    chat_template: Option<PathBuf> {
        group: Model, value: "FILE", default: DefaultValue::Unset("the model's own"), short: false
    }

    /// Longest prompt and completion, in tokens
    max_model_len: Option<NonZeroUsize> {
        group: Model, value: "TOKENS", default: DefaultValue::Unset("the model's context, or what the cache holds"),
        short: true
    }

    /// Size of the KV cache in tokens
    /// Give this or --kv-cache-bytes. Without either, the cache holds sixteen full contexts if they fit 128 MiB,
    /// and one in any case, as far as memory goes; on a GPU, all that fits beside the weights.
    kv_cache_tokens: Option<NonZeroUsize> {
        group: Model, value: "TOKENS", default: DefaultValue::Unset("fits the model"), short: false
    }

    /// Size of the KV cache in bytes, such as 512MiB
    kv_cache_bytes: Option<ByteSize> {
        group: Model, value: "SIZE", default: DefaultValue::Unset("fits the model"), short: false
    }

    /// Tokens of one KV block
    block_size: NonZeroUsize { group: Model, value: "TOKENS", default: DefaultValue::Is("16"), short: false }

    /// Most tokens computed in one step
    /// A larger budget finishes long prompts sooner; a smaller one keeps running streams smoother meanwhile.
    max_num_batched_tokens: Option<NonZeroUsize> {
        group: Engine, value: "TOKENS", default: DefaultValue::Unset("512, or twice max_num_seqs if that is more"),
        short: false
    }

    /// Most sequences at the same time
    max_num_seqs: NonZeroUsize { group: Engine, value: "N", default: DefaultValue::Is("64"), short: true }

    /// Most prompt tokens in a step in which streams run
    /// It bounds by how much a long prompt slows them down.
    max_prefill_tokens: Option<NonZeroUsize> {
        group: Engine, value: "TOKENS", default: DefaultValue::Unset("max_num_batched_tokens"), short: false
    }

    /// Most sequences that wait; beyond it requests are refused with 503
    max_waiting: NonZeroUsize { group: Engine, value: "N", default: DefaultValue::Is("1024"), short: false }

    /// Most tokens that waiting requests reserve; beyond it they are refused with 503
    /// A request reserves its prompt and its longest completions. One alone may reserve more.
    max_waiting_tokens: Option<NonZeroUsize> {
        group: Engine, value: "TOKENS", default: DefaultValue::Unset("no bound"), short: false
    }

    /// Most waiting sequences of one subject; beyond it its requests are refused with 429
    max_waiting_per_subject: Option<NonZeroUsize> {
        group: Engine, value: "N", default: DefaultValue::Unset("three quarters of max_waiting"), short: false
    }

    /// Who goes first: fair between subjects, or first come, first served
    scheduling_policy: SchedulingPolicy {
        group: Engine, value: "fair|fcfs", default: DefaultValue::Is("fair"), short: false
    }

    /// Reuse the computed beginnings of prompts, within a tenant; =false turns it off
    prefix_caching: bool { group: Engine, value: "true|false", default: DefaultValue::Is("true"), short: false }

    /// Most of the KV cache that one tenant's running sequences hold, in percent
    /// A tenant may always run one sequence.
    max_tenant_kv_percent: Option<Percent> {
        group: Engine, value: "1-100", default: DefaultValue::Unset("no limit"), short: false
    }

    /// Address to listen on
    /// An address that others can reach needs [[auth.issuers]] in the file, or --allow-public-builtin-issuer.
    host: IpAddr { group: Server, value: "ADDR", default: DefaultValue::Is("127.0.0.1"), short: true }

    /// Port; 0 picks a free one
    port: u16 { group: Server, value: "PORT", default: DefaultValue::Is("8000"), short: true }

    /// Longest request body; a longer one is a 413
    max_body_bytes: ByteSize { group: Server, value: "SIZE", default: DefaultValue::Is("4MiB"), short: false }

    /// Longest time for a request's body to arrive
    body_timeout: Period { group: Server, value: "TIME", default: DefaultValue::Is("30s"), short: false }

    /// Longest time for a request's headers to arrive
    header_timeout: Period { group: Server, value: "TIME", default: DefaultValue::Is("10s"), short: false }

    /// How long running streams may finish after SIGTERM
    shutdown_timeout: Duration { group: Server, value: "TIME", default: DefaultValue::Is("30s"), short: false }

    /// Silence on a stream after which a comment keeps it open
    ping_interval: Period { group: Server, value: "TIME", default: DefaultValue::Is("15s"), short: false }

    /// Most connections open at the same time
    max_connections: NonZeroUsize { group: Server, value: "N", default: DefaultValue::Is("1024"), short: false }

    /// Origin by which callers reach this server, such as https://llm.example.com
    /// Challenges and /.well-known/oauth-protected-resource name it. Without it, the metadata repeats a plain Host.
    public_url: Option<PublicUrl> {
        group: Server, value: "URL", default: DefaultValue::Unset("none"), short: false
    }

    /// Most of them from one address; beyond it new ones are closed at once
    /// Addresses in trusted_proxies are not counted.
    max_connections_per_address: Option<NonZeroUsize> {
        group: Server, value: "N", default: DefaultValue::Unset("three quarters of max_connections"), short: false
    }

    /// Longest time that a client may take nothing of what it is sent
    write_timeout: Period { group: Server, value: "TIME", default: DefaultValue::Is("60s"), short: false }

    /// Port for the operator's own machines: probes, metrics and models without a token; 0 picks a free one
    /// The admin routes are here too, with a token of their scope. It speaks plain text.
    internal_port: Option<u16> {
        group: Server, value: "PORT", default: DefaultValue::Unset("no second listener"), short: false
    }

    /// Address that internal_port is on
    internal_host: IpAddr { group: Server, value: "ADDR", default: DefaultValue::Is("127.0.0.1"), short: false }

    /// Serve the admin routes on the public port too
    admin_on_public: bool { group: Server, value: "true|false", default: DefaultValue::Is("false"), short: false }

    /// Proxies whose X-Forwarded-For is believed, such as 10.0.0.0/8
    trusted_proxies: List<IpNet> {
        group: Server, value: "NET,…", default: DefaultValue::Unset("none"), short: false
    }

    /// Web pages that may call, such as https://app.example
    cors_origins: List<WebOrigin> {
        group: Server, value: "ORIGIN,…", default: DefaultValue::Unset("none"), short: false
    }

    /// PEM file of the server's certificate, followed by its chain; with it the public port speaks TLS
    /// Read anew when it changes and on SIGHUP.
    tls_cert_file: Option<PathBuf> {
        group: Tls, value: "FILE", default: DefaultValue::Unset("plain text"), short: false
    }

    /// PEM file of its key; readable by its owner alone
    tls_key_file: Option<PathBuf> {
        group: Tls, value: "FILE", default: DefaultValue::Unset("none"), short: false
    }

    /// Whether clients show certificates
    tls_client_auth: ClientAuth {
        group: Tls, value: "off|optional|required", default: DefaultValue::Is("off"), short: false
    }

    /// PEM file of the authorities that may vouch for clients
    tls_client_ca_file: Option<PathBuf> {
        group: Tls, value: "FILE", default: DefaultValue::Unset("none"), short: false
    }

    /// Names for which an ACME authority is asked for certificates, in builds with the feature acme
    /// It asks back on port 443 of each name, which must lead to this server's port.
    acme_domains: List<String> {
        group: Tls, value: "NAME,…", default: DefaultValue::Unset("none"), short: false
    }

    /// Who hears of trouble with them, such as mailto:ops@example.com
    acme_contact: Option<String> {
        group: Tls, value: "URL", default: DefaultValue::Unset("nobody"), short: false
    }

    /// Directory of the ACME authority
    acme_directory: String {
        group: Tls, value: "URL", default: DefaultValue::Is("https://acme-v02.api.letsencrypt.org/directory"),
        short: false
    }

    /// PEM file of the roots that vouch for the ACME directory itself
    acme_directory_ca_file: Option<PathBuf> {
        group: Tls, value: "FILE", default: DefaultValue::Unset("the system's"), short: false
    }

    /// Folder of the built-in issuer's keys and of the ledger
    state_dir: PathBuf {
        group: Auth, value: "DIR", default: DefaultValue::Found("~/.local/state/mixgate", state_dir), short: true
    }

    /// Let the built-in issuer serve a public address
    allow_public_builtin_issuer: bool {
        group: Auth, value: "true|false", default: DefaultValue::Is("false"), short: false
    }

    /// File that says who may do what, and how much
    /// It is read anew when it changes and at SIGHUP; docs/policy.md has its keys.
    policy_file: Option<PathBuf> {
        group: Auth, value: "FILE", default: DefaultValue::Unset("everybody may do what its scopes say"), short: false
    }

    /// Bad credentials of one address in a minute; beyond it they hear 429
    /// Good credentials from the same address are never refused for it. IPv6 addresses count by /64.
    max_failures_per_minute: Count { group: Auth, value: "N", default: DefaultValue::Is("120"), short: false }

    /// File in which usage, budgets, revocations and API keys are written down
    /// off keeps them in memory, until the server ends.
    ledger: Option<LedgerPlace> {
        group: Ledger, value: "FILE|off", default: DefaultValue::Unset("ledger.sqlite3 in the state_dir"), short: false
    }

    /// How long the rows of requests are kept in the ledger
    ledger_retention: Period { group: Ledger, value: "TIME", default: DefaultValue::Is("400d"), short: false }

    /// How logs name a caller: a hash of issuer and subject, or the subject as it is
    audit_subjects: SubjectNames {
        group: Logging, value: "hash|clear", default: DefaultValue::Is("hash"), short: false
    }

    /// Most denials logged in one second; the rest are counted
    audit_denials_per_second: Count { group: Logging, value: "N", default: DefaultValue::Is("20"), short: false }

    /// Shape of log lines: auto is pretty on a terminal, json otherwise
    log_format: LogFormat { group: Logging, value: "auto|pretty|json", default: DefaultValue::Is("auto"), short: false }

    /// error, warn, info, debug, trace, off, or target=level pairs
    log_level: LogFilter { group: Logging, value: "LEVEL", default: DefaultValue::Is("info"), short: false }
}
