//! What every black-box test needs: patience with an end, and the shape of an error.

use std::fs::OpenOptions;
use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

/// Nothing here takes long; whoever waits this long waits for ever.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Fails the test rather than hanging it.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .expect("this should have been over long ago")
}

/// Checks that a response is an error in OpenAI's shape and returns (status, code, param).
pub async fn refusal(response: reqwest::Response) -> (u16, String, Option<String>) {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(headers.contains_key("x-request-id"));
    let body: Value = within(response.json()).await.unwrap();
    said_by_a_server(&body.to_string());
    let (code, param) = error_of(&body);
    (status, code, param)
}

/// Checks an error object's shape and returns its code and param.
pub fn error_of(body: &Value) -> (String, Option<String>) {
    let error = body["error"]
        .as_object()
        .unwrap_or_else(|| panic!("no error object in {body}"));
    assert_eq!(
        error.keys().collect::<Vec<_>>(),
        ["message", "type", "param", "code"],
        "{body}"
    );
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty()),
        "{body}"
    );
    assert!(error["type"].is_string(), "{body}");
    (
        error["code"].as_str().unwrap().to_owned(),
        error["param"].as_str().map(str::to_owned),
    )
}

/// Passes a secret on, and writes it down for `scripts/leak-check`, which then looks for it in all that servers said.
pub fn secret(secret: String) -> String {
    note("secrets", &secret);
    secret
}

/// `token` with its signature backwards: nobody has signed this, and it is as secret.
pub fn forged(token: &str) -> String {
    let (head, signature) = token.rsplit_once('.').unwrap();
    secret(format!(
        "{head}.{}",
        signature.chars().rev().collect::<String>()
    ))
}

/// Writes down what a server or a command said, for `scripts/leak-check`.
pub fn said_by_a_server(text: &str) {
    note("said", text);
}

/// Whether `scripts/leak-check` runs these tests: then servers say all that they can.
pub fn is_leak_check() -> bool {
    std::env::var_os(LEAK_CHECK).is_some()
}

/// Adds a line to a file of the folder that the check has named, if it has.
fn note(file: &str, line: &str) {
    let Some(folder) = std::env::var_os(LEAK_CHECK) else {
        return;
    };
    let path = Path::new(&folder).join(format!("{file}.{}", std::process::id()));
    let file = OpenOptions::new().create(true).append(true).open(path);
    // One write for each, so that threads do not mix their lines.
    file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
        .unwrap();
}

/// The JSON body of a raw HTTP answer.
pub fn raw_json(answer: &str) -> Value {
    let body = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no body in {answer:?}"))
        .1;
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {answer:?}"))
}

/// The folder in which `scripts/leak-check` gathers secrets and what servers said.
pub const LEAK_CHECK: &str = "MIXGATE_LEAK_CHECK";
