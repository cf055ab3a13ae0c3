//! What good streams feel of a flood of bad tokens: inter-token latency with and without one.
//!
//! `cargo bench --bench flood`. Starts the real server on the null model at the pace of an A100, keeps sixteen streams
//! running, and sends it forged tokens (good header, good claims, bad signature: the dearest kind to refuse) at a
//! steady rate, each a request of its own on kept connections. Prints one JSON object.
//!
//! Client and server share the machine: what the flood's own client costs is in the numbers too.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a measurement that fails should stop

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::{interval, sleep};

/// Good streams at the same time.
const STREAMS: usize = 16;
/// Bad requests per second.
const RATE: u64 = 5_000;
/// Connections of the flood.
const CONNECTIONS: u64 = 50;
/// Of each phase.
const LENGTH: Duration = Duration::from_secs(20);

fn main() {
    // `cargo test --benches` passes `--test`: then there is nothing to measure.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let server = Server::start();
    let report = runtime.block_on(async {
        let quiet = phase(&server, 0).await;
        let flooded = phase(&server, RATE).await;
        json!({"streams": STREAMS, "seconds": LENGTH.as_secs(), "quiet": quiet, "flooded": flooded})
    });
    println!("{report:#}");
}

/// Runs the streams for a while beside `rate` bad requests a second.
async fn phase(server: &Server, rate: u64) -> Value {
    let over = Arc::new(AtomicBool::new(false));
    let refused = Arc::new(AtomicU64::new(0));
    let cpu = server.cpu_seconds();
    let mut flood = Vec::new();
    for _ in 0..CONNECTIONS.min(rate) {
        let (address, forged) = (server.address, server.forged.clone());
        let pause = Duration::from_secs(1) * CONNECTIONS as u32 / rate as u32;
        let task = knock(address, forged, pause, over.clone(), refused.clone());
        flood.push(tokio::spawn(task));
    }
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| tokio::spawn(listen(server.address, server.token.clone(), over.clone())))
        .collect();
    sleep(LENGTH).await;
    over.store(true, Ordering::Relaxed);
    let mut gaps = Vec::new();
    for stream in streams {
        gaps.extend(stream.await.unwrap());
    }
    for task in flood {
        task.await.unwrap();
    }
    gaps.sort_unstable();
    let at = |percent: usize| {
        let index = (gaps.len() * percent / 100).min(gaps.len() - 1);
        (gaps[index].as_secs_f64() * 1e6).round() / 1e3
    };
    json!({
        "itl_ms": {"p50": at(50), "p90": at(90), "p99": at(99), "max": at(100)},
        "tokens": gaps.len(),
        "refused_per_second": refused.load(Ordering::Relaxed) as f64 / LENGTH.as_secs_f64(),
        "server_cpu_seconds_per_second": ((server.cpu_seconds() - cpu) / LENGTH.as_secs_f64() * 1e3).round() / 1e3,
    })
}

/// Sends one forged token after another on one connection, at a pace.
async fn knock(
    address: SocketAddr,
    forged: String,
    pause: Duration,
    over: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
) {
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {forged}\r\n\r\n"
    );
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.set_nodelay(true).unwrap();
    let mut pace = interval(pause);
    let mut answer = vec![0; 16 << 10];
    while !over.load(Ordering::Relaxed) {
        pace.tick().await;
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut read = 0;
        loop {
            let more = connection.read(&mut answer[read..]).await.unwrap();
            assert!(more > 0, "the server has closed the connection");
            read += more;
            if is_whole(&answer[..read]) {
                break;
            }
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 401") || answer.starts_with(b"HTTP/1.1 429"),
            "{}",
            String::from_utf8_lossy(&answer[..read])
        );
        refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether the head and as many bytes as it announces are there.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.parse::<usize>().ok())
        .unwrap();
    body.len() >= length
}

/// Reads one stream after another; the times between the chunks of each.
async fn listen(address: SocketAddr, token: String, over: Arc<AtomicBool>) -> Vec<Duration> {
    let body = json!({
        "model": "null",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 512,
        "ignore_eos": true,
        "stream": true,
    });
    let client = reqwest::Client::new();
    let mut gaps = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let request = client
            .post(format!("http://{address}/v1/chat/completions"))
            .bearer_auth(&token)
            .header("content-type", "application/json")
            .body(body.to_string());
        let mut response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        let mut latest: Option<Instant> = None;
        while let Some(chunk) = response.chunk().await.unwrap() {
            let now = Instant::now();
            // A write may carry several events; the first of them was waited for.
            let events = chunk.windows(6).filter(|six| six == b"data: ").count();
            if let Some(latest) = latest {
                gaps.push(now - latest);
                gaps.extend(std::iter::repeat_n(
                    Duration::ZERO,
                    events.saturating_sub(1),
                ));
            }
            latest = Some(now);
            if over.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    gaps
}

/// A running `mixgate serve` and a token for it.
struct Server {
    address: SocketAddr,
    token: String,
    forged: String,
    child: Child,
    _state: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().to_str().unwrap();
        let program = env!("CARGO_BIN_EXE_mixgate");
        let mut child = Command::new(program)
            .args(["serve", "--model", "null:mixtral-8x7b@a100-w4a16"])
            .args([
                "--served-model-name",
                "null",
                "--port",
                "0",
                "--state-dir",
                folder,
                "--log-level",
                "warn",
            ])
            .current_dir(state.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
        let ready: Value = serde_json::from_str(&line).unwrap();
        let url = ready["url"].as_str().unwrap();
        let minted = Command::new(program)
            .args(["token", "mint", "--sub", "bench", "--state-dir", folder])
            .output()
            .unwrap();
        let token = String::from_utf8(minted.stdout).unwrap().trim().to_owned();
        let (signed, _) = token.rsplit_once('.').unwrap();
        Self {
            address: url.strip_prefix("http://").unwrap().parse().unwrap(),
            // 64 bytes of an Ed25519 signature, as base64url writes zeroes.
            forged: format!("{signed}.{}", "A".repeat(86)),
            token,
            child,
            _state: state,
        }
    }

    /// User and system time of the process so far, from `/proc` (100 ticks a second).
    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, after) = stat.rsplit_once(')').unwrap();
        let field = |n: usize| -> f64 { after.split_whitespace().nth(n).unwrap().parse().unwrap() };
        (field(11) + field(12)) / 100.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
