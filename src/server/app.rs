//! What the handlers share.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::auth::Gate;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::ledger::Ledger;
use crate::text::TextModel;

use super::in_flight::InFlight;
use super::metrics::Metrics;

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
    /// Connections served at the same time; more wait in the operating system's backlog.
    pub max_connections: usize,
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
            max_connections: 1024,
        }
    }
}

/// The state of a running server.
pub(super) struct Shared {
    pub(super) app: App,
    pub(super) config: ServerConfig,
    pub(super) metrics: Metrics,
    pub(super) in_flight: InFlight,
    /// Prompts tokenised at the same time: one per core. Each may take a second and hundreds of megabytes.
    pub(super) tokenising: Arc<Semaphore>,
    /// Questions to the ledger answered at the same time: each may read many rows.
    pub(super) adding_up: Arc<Semaphore>,
}

const QUERIES: usize = 2;

impl Shared {
    pub(super) fn new(config: ServerConfig, app: App) -> Self {
        let metrics = Metrics::new(&app.model, app.engine.clone(), app.ledger.clone());
        Self {
            app,
            config,
            metrics,
            in_flight: InFlight::default(),
            adding_up: Arc::new(Semaphore::new(QUERIES)),
            tokenising: Arc::new(Semaphore::new(
                std::thread::available_parallelism().map_or(1, usize::from),
            )),
        }
    }
}
