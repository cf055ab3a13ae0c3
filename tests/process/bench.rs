//! `mixgate bench serve` against a server that plays a script, and against the real one.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::common::{said_by_a_server, secret, within};
use super::harness::{Home, Mixgate, Said};

/// What the server does with one request.
#[derive(Clone, Copy)]
enum Act {
    /// Role, two chunks with text, an end, usage, `[DONE]`.
    Good,
    /// The same, cut into single bytes, with comments and carriage returns.
    Shredded,
    /// The second chunk comes late.
    Slow,
    /// An error object after the first chunk.
    InStream,
    /// The connection ends after the first chunk.
    Broken,
    /// The stream ends after the first chunk, in good order.
    Unfinished,
    /// No answer before anything else.
    Refuse(u16, &'static str),
    /// A first chunk, and then nothing for ever.
    Hang,
}

const ROLE: &str = r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
const FIRST: &str = r#"data: {"choices":[{"index":0,"delta":{"content":"Sow"}}],"usage":null}"#;
const SECOND: &str = r#"data: {"choices":[{"index":0,"delta":{"content":" now."}}]}"#;
const FINISH: &str = r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#;
const USAGE: &str = r#"data: {"choices":[],"usage":{"prompt_tokens":40,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":8}}}"#;
const DONE: &str = "data: [DONE]";
const IN_STREAM: &str = r#"data: {"error":{"message":"the engine failed","code":"engine_dead"}}"#;

struct Stage {
    script: Vec<Act>,
    next: AtomicUsize,
    /// Each request's authorization and body.
    heard: Mutex<Vec<(String, Value)>>,
    hangs: Notify,
}

/// A server that answers the n-th request with the n-th act.
async fn perform(script: Vec<Act>) -> (SocketAddr, Arc<Stage>) {
    let stage = Arc::new(Stage {
        script,
        next: AtomicUsize::new(0),
        heard: Mutex::default(),
        hangs: Notify::new(),
    });
    let app = Router::new()
        .route("/v1/chat/completions", post(answer))
        .route(
            "/v1/models",
            get(|| async { axum::Json(json!({"data": [{"id": "played"}]})) }),
        )
        .with_state(stage.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, stage)
}

async fn answer(State(stage): State<Arc<Stage>>, headers: HeaderMap, body: Bytes) -> Response {
    let authorization = headers
        .get("authorization")
        .map(|value| value.to_str().unwrap().to_owned());
    stage.heard.lock().unwrap().push((
        authorization.unwrap_or_default(),
        serde_json::from_slice(&body).unwrap(),
    ));
    let place = stage.next.fetch_add(1, Ordering::Relaxed);
    let whole = |lines: &[&str]| {
        let text: String = lines.iter().map(|line| format!("{line}\n\n")).collect();
        Body::from(text)
    };
    let body = match stage.script[place] {
        Act::Good => whole(&[ROLE, FIRST, SECOND, FINISH, USAGE, DONE]),
        Act::Shredded => {
            let text =
                [": ping", ROLE, FIRST, ": ping", SECOND, FINISH, USAGE, DONE].join("\r\n\r\n");
            let bytes: Vec<Bytes> = text.bytes().map(|byte| vec![byte].into()).collect();
            Body::from_stream(stream::iter(bytes).map(Ok::<_, Infallible>))
        }
        Act::Slow => {
            let later = stream::once(async {
                sleep(SLOW).await;
                Ok::<_, Infallible>(format!("{SECOND}\n\n{FINISH}\n\n{USAGE}\n\n{DONE}\n\n"))
            });
            let first = stream::iter([Ok(format!("{ROLE}\n\n{FIRST}\n\n"))]);
            Body::from_stream(first.chain(later))
        }
        Act::InStream => whole(&[ROLE, FIRST, IN_STREAM, DONE]),
        Act::Unfinished => whole(&[ROLE, FIRST]),
        Act::Broken => Body::from_stream(stream::iter([
            Ok(format!("{ROLE}\n\n{FIRST}\n\n")),
            Err(io::Error::other("the script says so")),
        ])),
        Act::Refuse(status, code) => {
            let body =
                json!({"error": {"message": "not you", "type": "t", "param": null, "code": code}});
            let status = axum::http::StatusCode::from_u16(status).unwrap();
            return (status, axum::Json(body)).into_response();
        }
        Act::Hang => {
            stage.hangs.notify_one();
            let first = stream::iter([Ok::<_, Infallible>(format!("{ROLE}\n\n{FIRST}\n\n"))]);
            Body::from_stream(first.chain(stream::pending()))
        }
    };
    ([("content-type", "text/event-stream")], body).into_response()
}

const SLOW: Duration = Duration::from_millis(60);
const TOKEN: &str = "ey.secret.token";

fn start(home: &Home, address: SocketAddr, more: &[&str]) -> Child {
    let url = format!("http://{address}");
    let words = ["bench", "serve", "--url", &url, "--tokens-per-word", "1"];
    home.mixgate(&[&words[..], more].concat())
        .env("MIXGATE_BENCH_TOKEN", secret(TOKEN.to_owned()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn bench(home: &Home, address: SocketAddr, more: &[&str]) -> Said {
    finish(start(home, address, more)).await
}

async fn finish(child: Child) -> Said {
    let ended = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap());
    Said::from(within(ended).await.unwrap())
}

fn json_in(home: &Home, name: &str) -> Value {
    let text = std::fs::read_to_string(home.path().join(name)).unwrap();
    said_by_a_server(&text);
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn every_way_to_answer_or_fail_is_counted_as_what_it_is() {
    let script = vec![
        Act::Good, // is it there?
        Act::Good,
        Act::Slow,
        Act::InStream,
        Act::Refuse(401, "invalid_token"),
        Act::Refuse(503, "server_is_overloaded"),
        Act::Broken,
        Act::Unfinished,
        Act::Shredded,
    ];
    let (address, stage) = perform(script).await;
    let home = Home::new();
    let said = bench(
        &home,
        address,
        &[
            "--num-prompts=8",
            "--max-concurrency=1",
            "--input-len=32",
            "--output-len=4",
            "--ignore-eos",
            "--goodput",
            "e2el:30",
            "--json=run.json",
            "--html=run.html",
            "--csv=run.csv",
            "--metadata",
            "machine=small",
        ],
    )
    .await;
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert_eq!(said.stderr, "", "no progress where nobody looks");
    for words in [
        "played at http://127.0.0.1",
        "completed           3",
        "failed              5",
        "failed 1×: HTTP 503 server_is_overloaded\n  the first said: not you",
    ] {
        assert!(said.stdout.contains(words), "{words:?} in {}", said.stdout);
    }

    let run = json_in(&home, "run.json");
    assert_eq!(run["completed"], 3);
    assert_eq!(run["failed"], 5);
    assert_eq!(
        run["failures"],
        json!({
            "HTTP 401 invalid_token": 1,
            "HTTP 503 server_is_overloaded": 1,
            "broken connection": 1,
            "error in the stream: engine_dead": 1,
            "unfinished stream": 1,
        })
    );
    assert_eq!(run["output_lens"], json!([4, 4, 0, 0, 0, 0, 0, 4]));
    assert_eq!(run["total_input_tokens"], 120);
    assert_eq!(run["total_output_tokens"], 12);
    assert_eq!(run["total_cached_tokens"], 24);
    assert_eq!(run["total_chunks"], 6);
    assert_eq!(run["machine"], "small");
    assert_eq!(run["max_concurrent_requests"], 1);
    let itls = run["itls"].as_array().unwrap();
    assert_eq!(itls[0].as_array().unwrap().len(), 1);
    assert_eq!(itls[7].as_array().unwrap().len(), 1);
    let slow = itls[1][0].as_f64().unwrap();
    assert!(slow >= 0.9 * SLOW.as_secs_f64(), "{slow}");
    // The slow one misses its goal, whatever the machine does.
    let good = run["request_goodput"].as_f64().unwrap() * run["duration"].as_f64().unwrap();
    assert!(good < 2.5, "{good}");
    let latency = run["latencies"][1].as_f64().unwrap();
    assert!(latency >= run["ttfts"][1].as_f64().unwrap() + slow - 1e-6);

    let page = std::fs::read_to_string(home.path().join("run.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 5);
    let rows = std::fs::read_to_string(home.path().join("run.csv")).unwrap();
    assert_eq!(rows.lines().count(), 9);

    let heard = stage.heard.lock().unwrap();
    assert_eq!(heard.len(), 9);
    let mut prompts = Vec::new();
    for (authorization, body) in heard.iter() {
        assert_eq!(authorization, &format!("Bearer {TOKEN}"));
        assert_eq!(body["model"], "played");
        assert_eq!(body["stream_options"], json!({"include_usage": true}));
        assert_eq!(body["ignore_eos"], true);
        prompts.push(body["messages"][0]["content"].as_str().unwrap().to_owned());
    }
    assert!(
        prompts[1..]
            .iter()
            .all(|text| text.split(' ').count() == 32)
    );
    prompts.sort();
    prompts.dedup();
    assert_eq!(prompts.len(), 9, "all prompts are different");
    for text in [said.stdout, said.stderr, run.to_string(), page, rows] {
        assert!(!text.contains(TOKEN));
    }
}

#[tokio::test]
async fn a_conversation_sends_what_was_really_answered() {
    let (address, stage) = perform(vec![Act::Good; 3]).await;
    let home = Home::new();
    let more = [
        "--workload=multi-turn",
        "--turns=2",
        "--num-prompts=1",
        "--max-concurrency=1",
    ];
    let said = bench(&home, address, &more).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let heard = stage.heard.lock().unwrap();
    let messages = heard[2].1["messages"].as_array().unwrap();
    let roles: Vec<_> = messages
        .iter()
        .map(|one| one["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
    assert_eq!(messages[0], heard[1].1["messages"][0]);
    assert_eq!(messages[1]["content"], "Sow now.");
}

#[tokio::test]
async fn a_refused_token_ends_the_run_before_it_begins_and_is_traced() {
    let (address, _) = perform(vec![Act::Refuse(401, "invalid_token")]).await;
    let home = Home::new();
    std::fs::write(home.path().join("token.txt"), "ey.other.token\n").unwrap();
    let said = bench(&home, address, &["--model=m", "--token-file=token.txt"]).await;
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("HTTP 401 invalid_token: not you"),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr
            .contains("hint: the token from token.txt was refused"),
        "{}",
        said.stderr
    );
    assert!(!said.stderr.contains("ey."), "{}", said.stderr);
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_said_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let said = bench(&Home::new(), address, &["--model=m"]).await;
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("connection refused"),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("is the server running?"),
        "{}",
        said.stderr
    );
}

#[tokio::test]
async fn a_client_that_lags_fails_the_run_and_still_tells_the_numbers() {
    let (address, _) = perform(vec![Act::Good; 6]).await;
    let home = Home::new();
    // No client turns to a request within a picosecond.
    let more = [
        "--model=m",
        "--num-prompts=5",
        "--request-rate=100",
        "--max-send-lag=0.000000001",
        "--json=run.json",
    ];
    let said = bench(&home, address, &more).await;
    assert_eq!(said.code, Some(1), "{}", said.stdout);
    assert!(
        said.stderr.contains("the client could not keep up"),
        "{}",
        said.stderr
    );
    let run = json_in(&home, "run.json");
    assert_eq!(run["completed"], 5);
    assert_eq!(run["is_client_bound"], true);
    assert!(run["p99_send_lag_ms"].as_f64().unwrap() > 0.0);
    // The last is due at 5 / 100 seconds.
    assert!(run["start_times"][4].as_f64().unwrap() >= 0.05);
}

#[tokio::test]
async fn ctrl_c_ends_a_run_with_the_results_so_far() {
    let (address, stage) = perform(vec![Act::Good, Act::Good, Act::Good, Act::Hang]).await;
    let home = Home::new();
    let more = [
        "--model=m",
        "--num-prompts=9",
        "--max-concurrency=1",
        "--json=run.json",
    ];
    let child = start(&home, address, &more);
    within(stage.hangs.notified()).await;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let said = finish(child).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let run = json_in(&home, "run.json");
    assert_eq!(run["completed"], 2);
    assert_eq!(run["failed"], 0);
    assert_eq!(run["in_flight_at_end"], 1);
    assert_eq!(run["unsent"], 6);
    assert_eq!(run["is_interrupted"], true);
}

#[tokio::test]
async fn flags_that_have_no_meaning_together_are_refused() {
    let home = Home::new();
    for (words, reason) in [
        (&["--turns=2"][..], "--workload multi-turn"),
        (&["--prefix-len=9"][..], "--workload shared-prefix"),
        (&["--lengths=uniform"][..], "--range-ratio"),
        (&["--endpoint=/v1/embeddings"][..], "completions"),
        (&["--goodput", "itl:3"][..], "ttft, tpot and e2el"),
        (&["--request-rate=0"][..], "above 0"),
        (&["--ramp-up=linear:0:1"][..], "linear:1:20"),
    ] {
        let said = home.run(&[&["bench", "serve"], words].concat());
        assert_eq!(said.code, Some(2), "{words:?}: {}", said.stderr);
        assert!(said.stderr.contains(reason), "{words:?}: {}", said.stderr);
    }
}

#[tokio::test]
async fn the_real_server_is_measured_with_prompts_of_the_wanted_length() {
    let server = Mixgate::serve(&[]);
    std::fs::write(server.home.path().join("token"), &server.token).unwrap();
    let url = server.url("");
    let words = [
        "bench",
        "serve",
        "--url",
        &url,
        "--token-file=token",
        "--num-prompts=12",
        "--max-concurrency=4",
        "--input-len=200",
        "--output-len=8",
        "--ignore-eos",
        "--json=run.json",
    ];
    let child = server
        .home
        .mixgate(&words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = finish(child).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let run = json_in(&server.home, "run.json");
    assert_eq!(run["completed"], 12, "{}", said.stdout);
    assert_eq!(run["total_output_tokens"], 96);
    assert_eq!(run["max_concurrent_requests"], 4);
    let mean = run["total_input_tokens"].as_f64().unwrap() / 12.0;
    assert!((mean / 200.0 - 1.0).abs() < 0.05, "{mean}");
}
