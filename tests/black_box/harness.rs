//! Opens a house: a server with everything in it, and a caller who may use it.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use mixgate::auth::{
    AuthConfig, BuiltinIssuer, Gate, IssuerConfig, Limits, Meter, MintRequest, Policy, Rights,
    Vocabulary,
};
use mixgate::clock::{Clock, Uptime};
use mixgate::engine::executor::Capacity;
use mixgate::engine::{Engine, EngineConfig};
use mixgate::ledger::Ledger;
use mixgate::server::{
    App, Certificates, ModelCard, SamplingDefaults, Server, ServerConfig, vocabulary,
};
use mixgate::text::{TextFiles, TextModel};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use super::common::{PATIENCE, error_of, raw_json, refusal, within};
use super::common::{is_leak_check, said_by_a_server, secret};
use super::parrot::{Brake, Parrot};

/// What the parrot says; one token per byte.
pub const REPLY: &str = "Sow carrots after the last frost.";
pub const MODEL: &str = "parrot";
pub const ALL_SCOPES: &str = "chat models metrics usage";
pub const ADMIN: &str = "admin";

/// How a house differs from the usual one.
pub struct Plan {
    pub reply: &'static str,
    pub server: ServerConfig,
    pub engine: EngineConfig,
    pub max_model_len: usize,
    pub pace: Duration,
    /// None: the built-in one, whose tokens [`House::token`] mints.
    pub issuers: Vec<IssuerConfig>,
    /// The text of a policy file; empty: none.
    pub policy: String,
    /// Whether API keys may come in headers of their own.
    pub api_key_headers: bool,
    /// By which the gate judges and the issuer stamps.
    pub time: (Clock, Uptime),
    pub meter: Option<Arc<dyn Meter>>,
    /// Everybody's.
    pub rights: Option<Rights>,
}

impl Default for Plan {
    fn default() -> Self {
        let server = ServerConfig {
            port: 0,
            // Short where a test has to see the end of it, long where it must not.
            header_timeout: Duration::from_millis(200),
            body_timeout: Duration::from_millis(200),
            // One door to knock at; `doors` has the tests of which rows are behind which.
            admin_on_public: true,
            ..ServerConfig::default()
        };
        let engine = EngineConfig {
            max_num_batched_tokens: 64,
            max_num_seqs: 8,
            max_waiting: 8,
            ..EngineConfig::default()
        };
        Self {
            reply: REPLY,
            server,
            engine,
            max_model_len: 512,
            pace: Duration::ZERO,
            issuers: Vec::new(),
            policy: String::new(),
            api_key_headers: false,
            time: (Clock::system(), Uptime::start()),
            meter: None,
            rights: None,
        }
    }
}

/// A running server and the keys to it.
pub struct House {
    pub address: SocketAddr,
    pub internal: Option<SocketAddr>,
    pub certificates: Certificates,
    pub client: reqwest::Client,
    pub engine: Engine,
    pub brake: Arc<Brake>,
    pub ledger: Ledger,
    pub limits: Arc<Limits>,
    issuer: BuiltinIssuer,
    clock: Clock,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
}

impl House {
    pub async fn open() -> Self {
        Self::with(Plan::default()).await
    }

    pub async fn with(plan: Plan) -> Self {
        logs();
        let (app, brake, issuer) = app(&plan);
        let limits = app.gate.limits().clone();
        let (engine, clock) = (app.engine.clone(), app.clock.clone());
        let ledger = app.ledger.clone();
        let server = Server::bind(plan.server, app).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        Self {
            address: server.address(),
            internal: server.internal_address(),
            certificates: server.certificates(),
            // Connections are not kept, so that none outlives its test's timeouts.
            client: reqwest::Client::builder()
                .pool_max_idle_per_host(0)
                .build()
                .unwrap(),
            engine,
            brake,
            ledger,
            limits,
            issuer,
            clock,
            stop: Some(stop),
            running: Some(tokio::spawn(server.run(async {
                let _ = stopped.await;
            }))),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn token(&self) -> String {
        self.token_with(ALL_SCOPES)
    }

    pub fn token_with(&self, scopes: &str) -> String {
        self.mint("ann", None, scopes)
    }

    /// A token of another subject, who may be a member of a tenant.
    pub fn token_of(&self, subject: &str, tenant: Option<&str>) -> String {
        self.mint(subject, tenant, ALL_SCOPES)
    }

    /// A token that may do what administrators may.
    pub fn admin(&self) -> String {
        self.mint("root", None, ADMIN)
    }

    /// The id of the key that signs tokens.
    pub fn key_id(&self) -> &str {
        self.issuer.key_id()
    }

    fn mint(&self, subject: &str, tenant: Option<&str>, scopes: &str) -> String {
        let tenant = tenant.map(|tenant| ("tenant".to_owned(), json!(tenant)));
        self.mint_with(subject, scopes, tenant.into_iter().collect())
    }

    /// A token for ten minutes with further claims.
    pub fn mint_with(&self, subject: &str, scopes: &str, claims: Map<String, Value>) -> String {
        let request = MintRequest {
            subject: subject.to_owned(),
            ttl: Duration::from_secs(600),
            scopes: scopes.to_owned(),
            claims,
        };
        let token = self.issuer.mint(&request, self.clock.unix_seconds());
        secret(token.unwrap())
    }

    /// What time the server has.
    pub fn clock_seconds(&self) -> u64 {
        self.clock.unix_seconds()
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        within(
            self.client
                .get(self.url(path))
                .bearer_auth(self.token())
                .send(),
        )
        .await
        .unwrap()
    }

    /// A chat request; `fields` are added to a minimal one.
    pub fn chat_request(&self, fields: Value) -> reqwest::RequestBuilder {
        self.chat_request_as(&self.token(), fields)
    }

    /// The same, of whoever has this token.
    pub fn chat_request_as(&self, token: &str, fields: Value) -> reqwest::RequestBuilder {
        let request = self
            .client
            .post(self.url("/v1/chat/completions"))
            .bearer_auth(token);
        request.json(&chat_body(fields))
    }

    /// Sends a [`Self::chat_request`] and waits for the head of the answer.
    pub async fn chat(&self, fields: Value) -> reqwest::Response {
        within(self.chat_request(fields).send()).await.unwrap()
    }

    pub async fn post(&self, body: Vec<u8>) -> reqwest::Response {
        let request = self
            .client
            .post(self.url("/v1/chat/completions"))
            .bearer_auth(self.token());
        within(
            request
                .header("content-type", "application/json")
                .body(body)
                .send(),
        )
        .await
        .unwrap()
    }

    /// Sends bytes as they are and reads until the server closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good as a close.
        let _ = within(socket.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The head of a chat request with a good token, up to and without the empty line.
    pub fn raw_head(&self, more: &str) -> String {
        let token = self.token();
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\n{more}"
        )
    }

    /// Waits until no sequence runs or waits and every KV block is free.
    pub async fn idle(&self) {
        self.eventually("idle engine", || {
            let stats = self.engine.stats();
            stats.running == 0 && stats.waiting == 0 && stats.kv_blocks_used == 0
        })
        .await;
    }

    pub async fn eventually(&self, what: &str, holds: impl Fn() -> bool) {
        let polled = timeout(PATIENCE, async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(
            polled.await.is_ok(),
            "never came: {what}; {:?}",
            self.engine.stats()
        );
    }

    /// Asks the server to stop, as SIGTERM does.
    pub fn ask_to_stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits until [`Server::run`] has returned.
    pub async fn stopped(&mut self) {
        within(self.running.take().unwrap()).await.unwrap();
    }
}

impl Drop for House {
    /// A device that waits for its test would keep the engine's thread alive.
    fn drop(&mut self) {
        self.brake.release();
    }
}

/// The parts of a server, the device's brake and whoever signs tokens.
pub fn app(plan: &Plan) -> (App, Arc<Brake>, BuiltinIssuer) {
    let tokenizer = serde_json::to_vec(&byte_tokenizer()).unwrap();
    let files = TextFiles {
        tokenizer: &tokenizer,
        tokenizer_config: None,
        chat_template: None,
    };
    let text = Arc::new(TextModel::new(&files).unwrap());
    let eos = text.eos();
    let brake = Arc::<Brake>::default();
    let capacity = Capacity {
        vocab_size: text.vocab_size(),
        max_model_len: plan.max_model_len,
        num_blocks: plan.max_model_len.div_ceil(16) * 4,
        block_size: 16,
    };
    let reply = plan
        .reply
        .bytes()
        .map(|byte| u32::from(byte) + FIRST_BYTE)
        .collect();
    let parrot = Parrot {
        chosen: Vec::new(),
        capacity,
        reply,
        eos,
        brake: brake.clone(),
        pace: plan.pace,
    };
    let engine = Engine::start(parrot, plan.engine.clone(), vec![eos]);
    let (clock, uptime) = plan.time.clone();
    let issuer = BuiltinIssuer::ephemeral().unwrap();
    let config = AuthConfig {
        issuers: plan.issuers.clone(),
        api_key_headers: plan.api_key_headers,
        ..AuthConfig::default()
    };
    let builtin = config.uses_builtin().then(|| issuer.clone());
    let gate = Gate::new(&config, builtin, clock.clone()).unwrap();
    let mut gate = gate.with_uptime(uptime);
    if !plan.policy.is_empty() {
        let issuers = gate.issuers().into_iter().map(|issuer| issuer.issuer);
        let vocabulary = Vocabulary {
            issuers: issuers.collect(),
            ..vocabulary()
        };
        gate = gate.with_policy(Policy::parse(&plan.policy, &vocabulary).unwrap());
    }
    if let Some(meter) = &plan.meter {
        gate = gate.with_meter(meter.clone());
    }
    if let Some(rights) = &plan.rights {
        gate = gate.with_policy(Policy::constant(rights.clone()));
    }
    let model = ModelCard {
        id: MODEL.to_owned(),
        created: 1,
        owned_by: "tests".to_owned(),
        max_model_len: engine.max_model_len(),
        vocab_size: text.vocab_size(),
        sampling: SamplingDefaults::default(),
    };
    (
        App {
            engine,
            gate,
            text,
            model,
            ledger: Ledger::in_memory(),
            clock,
        },
        brake,
        issuer,
    )
}

pub fn chat_body(fields: Value) -> Value {
    let question = "When do I sow carrots?";
    let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": question}]});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    // What is asked is as secret as who asks.
    for message in body["messages"].as_array().into_iter().flatten() {
        message["content"].as_str().map(str::to_owned).map(secret);
    }
    body
}

/// Everything logged at the default level by all tests of this binary.
pub fn logs() -> &'static Mutex<Vec<u8>> {
    static LOGS: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    LOGS.get_or_init(|| {
        let level = if is_leak_check() {
            tracing::Level::DEBUG
        } else {
            tracing::Level::INFO
        };
        tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(|| Log)
            .init();
        Mutex::default()
    })
}

/// The line that the request of this id has left when it was over; the audit's is another.
pub async fn log_line(house: &House, id: &str) -> String {
    let found = || {
        let text = String::from_utf8(logs().lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| line.contains(id));
        let lines: Vec<_> = lines
            .filter(|line| !line.contains("mixgate::audit"))
            .map(str::to_owned)
            .collect();
        lines
    };
    house
        .eventually("the log line", || !found().is_empty())
        .await;
    let mut lines = found();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        said_by_a_server(&String::from_utf8_lossy(bytes));
        Write::write(&mut *logs().lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `<unk>`, `<s>`, `</s>`, then the 256 bytes.
const FIRST_BYTE: u32 = 3;

/// A tokenizer in Mixtral's shape that has learnt no merges: one token per byte.
fn byte_tokenizer() -> Value {
    let specials = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    // Some templates spell the instruction marks with pieces of their own; single characters serve any.
    let characters = (b'!'..=b'~')
        .map(|byte| char::from(byte).to_string())
        .chain(["▁".to_owned()]);
    let vocab: Map<String, Value> = specials
        .into_iter()
        .chain(bytes)
        .chain(characters)
        .enumerate()
        .map(|(id, token)| (token, json!(id)))
        .collect();
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true
        })
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        ]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": []
        }
    })
}
