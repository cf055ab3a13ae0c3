//! An identity provider on loopback: discovery, keys, tokens, and every kind of bad day.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, Uri};
use axum::serve::Listener;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mixgate::auth::IssuerConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, pki_types};
use tokio_rustls::server::TlsStream;

use self::pki_types::pem::PemObject as _;
use self::pki_types::{CertificateDer, PrivateKeyDer};

use super::common::secret;

pub const AUDIENCE: &str = "https://api.example/v1";

/// How the provider feels, which is how it answers.
#[derive(Debug, Clone)]
pub enum Mood {
    /// It answers as it should.
    Well,
    /// 503 to everything.
    Down,
    /// It takes this long to answer well.
    Slow(Duration),
    /// It takes the request and never answers.
    Silent,
    /// It sends the first half of an answer and then nothing.
    Stuck,
    /// Everything has moved to `/elsewhere`.
    Moved(u16),
    /// Its keys are this body.
    Keys(String),
    /// Its keys are good, and encoded in this way.
    Encoded(&'static str),
    /// Its discovery document is this body.
    Document(String),
}

/// A running provider. Ends when dropped.
pub struct Idp {
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    base: String,
    mood: Mutex<Mood>,
    keys: Mutex<Vec<Arc<Signer>>>,
    key_fetches: AtomicUsize,
    discoveries: AtomicUsize,
    strays: Mutex<Vec<String>>,
}

impl Idp {
    /// One key, `a`, and good health.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        Self::serve(base, listener)
    }

    /// The same at `https://localhost`, with this certificate and key as PEM, whoever they are of.
    pub async fn start_secure(certificate: &str, key: &str) -> Self {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::serve(base, Secure { listener, acceptor })
    }

    fn serve<L>(base: String, listener: L) -> Self
    where
        L: Listener,
        L::Addr: std::fmt::Debug,
    {
        let shared = Arc::new(Shared {
            base,
            mood: Mutex::new(Mood::Well),
            keys: Mutex::new(vec![Arc::new(Signer::new("a"))]),
            key_fetches: AtomicUsize::new(0),
            discoveries: AtomicUsize::new(0),
            strays: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { shared, serving }
    }

    /// The `iss` of its tokens.
    pub fn issuer(&self) -> String {
        self.url("/")
    }

    /// An issuer entry that finds this provider by discovery, with `fields` added.
    pub fn config(&self, fields: Value) -> IssuerConfig {
        let mut entry =
            json!({"issuer": self.issuer(), "audiences": [AUDIENCE], "allow_http_loopback": true});
        if fields["jwks_url"].is_null() && fields["keys"].is_null() {
            entry["discovery"] = json!(true);
        }
        entry
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        serde_json::from_value(entry).unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.shared.base)
    }

    pub fn feel(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }

    /// Publishes these keys and no others from now on.
    pub fn publish(&self, keys: &[&Arc<Signer>]) {
        *self.shared.keys.lock().unwrap() = keys.iter().map(|&key| key.clone()).collect();
    }

    /// The first key that is published.
    pub fn key(&self) -> Arc<Signer> {
        self.shared.keys.lock().unwrap()[0].clone()
    }

    /// How often keys were asked for.
    pub fn key_fetches(&self) -> usize {
        self.shared.key_fetches.load(Ordering::SeqCst)
    }

    pub fn discoveries(&self) -> usize {
        self.shared.discoveries.load(Ordering::SeqCst)
    }

    /// Paths that nobody should have asked for.
    pub fn strays(&self) -> Vec<String> {
        self.shared.strays.lock().unwrap().clone()
    }

    /// Claims of a good token.
    pub fn claims(&self) -> Value {
        let now = mixgate::clock::Clock::system().unix_seconds();
        json!({"iss": self.issuer(), "sub": "ann", "aud": AUDIENCE, "iat": now, "exp": now + 600,
            "scope": "chat models metrics"})
    }

    /// A good token of the first published key.
    pub fn token(&self) -> String {
        self.key().token(&self.claims())
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Takes those connections alone whose handshake succeeds.
struct Secure {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (socket, address) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(socket).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A key pair with a name.
pub struct Signer {
    pub kid: String,
    pair: Ed25519KeyPair,
}

impl Signer {
    pub fn new(kid: &str) -> Self {
        Self {
            kid: kid.to_owned(),
            pair: Ed25519KeyPair::generate().unwrap(),
        }
    }

    pub fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.kid,
            "x": URL_SAFE_NO_PAD.encode(self.pair.public_key())})
    }

    /// A token of these claims, named after this key.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(
            json!({"alg": "EdDSA", "typ": "JWT", "kid": self.kid}),
            claims,
        )
    }

    /// A token of exactly this header.
    pub fn token_with(&self, header: Value, claims: &Value) -> String {
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let input = format!("{}.{}", encode(&header), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(input.as_bytes()));
        secret(format!("{input}.{signature}"))
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri) -> Response<Body> {
    let mood = shared.mood.lock().unwrap().clone();
    let document =
        json!({"issuer": format!("{}/", shared.base), "jwks_uri": format!("{}/keys", shared.base)});
    let keys: Vec<Value> = shared
        .keys
        .lock()
        .unwrap()
        .iter()
        .map(|key| key.jwk())
        .collect();
    let good = match uri.path() {
        "/.well-known/openid-configuration" => {
            shared.discoveries.fetch_add(1, Ordering::SeqCst);
            match &mood {
                Mood::Document(body) => body.clone(),
                _ => document.to_string(),
            }
        }
        "/keys" => {
            shared.key_fetches.fetch_add(1, Ordering::SeqCst);
            match &mood {
                Mood::Keys(body) => body.clone(),
                _ => json!({"keys": keys}).to_string(),
            }
        }
        other => {
            shared.strays.lock().unwrap().push(other.to_owned());
            return Response::builder().status(404).body(Body::empty()).unwrap();
        }
    };
    let reply = Response::builder();
    match mood {
        Mood::Down => reply.status(503).body(Body::from("down")),
        Mood::Silent => std::future::pending().await,
        Mood::Slow(delay) => {
            tokio::time::sleep(delay).await;
            reply.body(Body::from(good))
        }
        Mood::Stuck => {
            let half = good[..good.len() / 2].to_owned();
            let start = futures_util::stream::once(async { Ok::<_, std::io::Error>(half) });
            let rest = futures_util::stream::pending();
            reply.body(Body::from_stream(futures_util::StreamExt::chain(
                start, rest,
            )))
        }
        Mood::Moved(status) => reply
            .status(status)
            .header("location", format!("{}/elsewhere", shared.base))
            .body(Body::from(good)),
        Mood::Encoded(encoding) => reply
            .header("content-encoding", encoding)
            .body(Body::from(good)),
        Mood::Well | Mood::Keys(_) | Mood::Document(_) => reply
            .header("content-type", "application/json")
            .header("cache-control", "public, max-age=60")
            .body(Body::from(good)),
    }
    .unwrap()
}
