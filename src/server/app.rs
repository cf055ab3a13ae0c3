//! What the handlers share.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::Semaphore;

use crate::auth::Gate;
use crate::clock::{Clock, Uptime};
use crate::engine::Engine;
use crate::ledger::Ledger;
use crate::text::TextModel;

use super::audit::{SubjectNames, Throttles};
use super::cors::WebOrigin;
use super::failures::Failures;
use super::in_flight::InFlight;
use super::listener::TlsConfig;
use super::metadata::PublicUrl;
use super::metrics::Metrics;
use super::open::OpenRoutes;

/// The parts that a server stands on.
pub struct App {
    /// Runs requests.
    pub engine: Engine,
    /// Says who may ask.
    pub gate: Gate,
    /// Text ↔ token ids, of the model that the engine runs.
    pub text: Arc<TextModel>,
    /// What is served, as clients see it.
    pub model: ModelCard,
    /// Where usage is written down.
    pub ledger: Ledger,
    /// Stamps responses.
    pub clock: Clock,
}

/// The served model as clients see it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCard {
    /// The name that requests must carry in `model`.
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// Who is named as its owner in `/v1/models`.
    pub owned_by: String,
    /// Longest prompt and completion together, in tokens: [`Engine::max_model_len`].
    pub max_model_len: usize,
    /// Rows of the output matrix: every token id is below it.
    pub vocab_size: usize,
    /// Used where a request names no value.
    pub sampling: SamplingDefaults,
}

/// What a model's `generation_config.json` says about sampling; `None` is OpenAI's default, which changes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SamplingDefaults {
    /// Otherwise 1.
    pub temperature: Option<f32>,
    /// Otherwise 1.
    pub top_p: Option<f32>,
    /// Otherwise all tokens.
    pub top_k: Option<u32>,
    /// Otherwise 0.
    pub min_p: Option<f32>,
    /// Otherwise 1.
    pub repetition_penalty: Option<f32>,
}

/// Where and how to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Address to bind.
    pub host: IpAddr,
    /// 0 picks a free one; [`super::Server::address`] tells which.
    pub port: u16,
    /// Largest request body that is read.
    pub max_body_bytes: usize,
    /// From the end of the headers to the end of the body.
    pub body_timeout: Duration,
    /// From the connection, or the previous response, to the end of the headers.
    pub header_timeout: Duration,
    /// How long running requests may go on once shutdown was asked for.
    pub shutdown_timeout: Duration,
    /// A stream that is silent for this long gets a comment line, so that proxies and clients keep it open.
    pub ping_interval: Duration,
    /// How long a client may take nothing of what it is sent.
    pub write_timeout: Duration,
    /// Connections served at the same time; more wait in the operating system's backlog.
    pub max_connections: usize,
    /// The origin by which callers reach it, for challenges and metadata.
    pub public_url: Option<PublicUrl>,
    /// How logs name a subject.
    pub audit_subjects: SubjectNames,
    /// Denials that are written to the audit in one second, of known and of unknown callers each.
    pub audit_denials_per_second: u32,
    /// Bad credentials of one address, at once and in a minute, before it hears 429 for the next one.
    pub max_failures_per_minute: u32,
    /// Of these, from one address that is no trusted proxy; more are closed at once.
    pub max_connections_per_address: usize,
    /// `None`: the public door speaks plain text.
    pub tls: Option<TlsConfig>,
    /// Where the operator's own machines find probes and metrics without a token, and the admin routes; port 0 picks a
    /// free one. `None`: nowhere.
    pub internal: Option<SocketAddr>,
    /// Whether the admin routes are on the public door too.
    pub admin_on_public: bool,
    /// Rows that some addresses may ask for without a token on the public door.
    pub open: OpenRoutes,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Web pages that may call; empty: none.
    pub cors_origins: Vec<WebOrigin>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8000,
            // A 32 768-token prompt is about 128 KiB of text; 4 MiB leaves room for verbose JSON.
            max_body_bytes: 4 << 20,
            body_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(15),
            write_timeout: Duration::from_secs(60),
            max_connections: 1024,
            public_url: None,
            audit_subjects: SubjectNames::Hash,
            audit_denials_per_second: 20,
            max_failures_per_minute: 120,
            max_connections_per_address: 768,
            tls: None,
            internal: None,
            admin_on_public: false,
            open: OpenRoutes::default(),
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
        }
    }
}

/// The state of a running server.
pub(super) struct Shared {
    pub(super) app: App,
    pub(super) config: ServerConfig,
    pub(super) metrics: Metrics,
    pub(super) failures: Failures,
    pub(super) throttles: Throttles,
    pub(super) in_flight: InFlight,
    /// Prompts tokenised at the same time: one per core. Each may take a second and hundreds of megabytes.
    pub(super) tokenising: Arc<Semaphore>,
    /// Questions to the ledger answered at the same time: each may read many rows.
    pub(super) adding_up: Arc<Semaphore>,
    /// Bodies of refused requests that are read only to be thrown away.
    pub(super) lingering: Arc<Semaphore>,
}

const QUERIES: usize = 2;

impl Shared {
    pub(super) fn new(config: ServerConfig, app: App) -> Self {
        let metrics = Metrics::new(
            &app.model,
            app.engine.clone(),
            app.ledger.clone(),
            app.gate.monitor(),
        );
        let uptime = Uptime::start();
        Self {
            failures: Failures::new(config.max_failures_per_minute, uptime.clone()),
            throttles: Throttles::new(config.audit_denials_per_second, &uptime),
            app,
            config,
            metrics,
            in_flight: InFlight::default(),
            adding_up: Arc::new(Semaphore::new(QUERIES)),
            tokenising: Arc::new(Semaphore::new(
                std::thread::available_parallelism().map_or(1, usize::from),
            )),
            lingering: Arc::new(Semaphore::new(MAX_LINGERING)),
        }
    }
}

/// Each may take two seconds; who comes on top of them may see a reset instead of the refusal.
const MAX_LINGERING: usize = 64;
