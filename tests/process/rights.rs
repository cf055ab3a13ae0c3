//! Keys and revocations from the command line, and what a server that runs meanwhile makes of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::common::{error_of, refusal, within};
use super::harness::{Home, Mixgate, Said, events};

const MODEL: &str = "null:mixtral-8x7b@h200-w4a16";
const NAME: &str = "mixtral-8x7b@h200-w4a16";

/// `mixgate … --state-dir X`
fn run(home: &Home, words: &[&str]) -> Said {
    let state_dir = home.state_dir();
    home.run(&[words, &["--state-dir", state_dir.to_str().unwrap()]].concat())
}

fn ok(home: &Home, words: &[&str]) -> String {
    let said = run(home, words);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said.stdout
}

/// A new key and its id.
fn new_key(home: &Home, more: &[&str]) -> (String, String) {
    let key = ok(home, &[&["key", "create", "--sub", "robot"], more].concat());
    let key = key.trim_end().to_owned();
    let id = key[3..11].to_owned();
    (key, id)
}

/// A stream that would run for a minute.
async fn stream(server: &Mixgate, credential: &str) -> reqwest::Response {
    let request = server.client.post(server.url("/v1/chat/completions"));
    let body = json!({
        "model": NAME, "stream": true, "ignore_eos": true, "messages": [{"role": "user", "content": "Go on."}],
    });
    let request = request.bearer_auth(credential).json(&body);
    let mut response = within(request.send()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(within(response.chunk()).await.unwrap().is_some());
    response
}

/// What the end of a stream says, and how long after `since` it came.
async fn end_of(stream: reqwest::Response, since: Instant) -> (String, Duration) {
    let text = within(stream.text()).await.unwrap();
    let taken = since.elapsed();
    let last: Value = events(&text).pop().unwrap();
    (error_of(&last).0, taken)
}

async fn models(server: &Mixgate, credential: &str) -> reqwest::Response {
    let request = server.client.get(server.url("/v1/models"));
    within(request.bearer_auth(credential).send())
        .await
        .unwrap()
}

/// Waits until a running server has taken up what a command has written.
async fn status_becomes(server: &Mixgate, credential: &str, status: u16) {
    within(async {
        while models(server, credential).await.status().as_u16() != status {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A server looks at the ledger at least four times a second; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_running_server_takes_keys_up_and_ends_what_runs_under_a_revoked_one() {
    let server = Mixgate::serve(&["--model", MODEL]);
    let (key, id) = new_key(&server.home, &["--scope", "chat models"]);
    status_becomes(&server, &key, 200).await;
    let running = stream(&server, &key).await;
    let since = Instant::now();
    let said = ok(&server.home, &["key", "revoke", &id]);
    assert_eq!(said, format!("revoked: key {id} of robot\n"));
    let (code, taken) = end_of(running, since).await;
    assert_eq!(code, "access_revoked");
    assert!(taken < SOON, "{taken:?}");
    let refused = refusal(models(&server, &key).await).await;
    assert_eq!(refused, (401, "invalid_api_key".to_owned(), None));
    let list = ok(&server.home, &["key", "list"]);
    assert!(list.contains(&id) && list.contains("revoked"), "{list}");
    assert!(!list.contains(&key[12..]), "{list}");
}

#[tokio::test]
async fn a_revocation_typed_elsewhere_ends_a_stream_and_can_be_taken_back() {
    let server = Mixgate::serve(&["--model", MODEL]);
    let (token, bob) = (
        server.token.clone(),
        server.home.token_of("bob", "chat models"),
    );
    let running = stream(&server, &token).await;
    let since = Instant::now();
    let said = ok(&server.home, &["revoke", "subject", "you"]);
    let expected = "revoked: subject you of mixgate:local, as far as issued until now\n";
    assert_eq!(said, expected);
    let (code, taken) = end_of(running, since).await;
    assert_eq!(code, "access_revoked");
    assert!(taken < SOON, "{taken:?}");
    let refused = refusal(models(&server, &token).await).await;
    assert_eq!(refused, (401, "token_revoked".to_owned(), None));
    assert_eq!(models(&server, &bob).await.status(), 200);
    let list = ok(&server.home, &["revoke", "list"]);
    assert!(list.contains("subject  you   mixgate:local"), "{list}");
    ok(&server.home, &["revoke", "subject", "you", "--undo"]);
    status_becomes(&server, &token, 200).await;
    ok(&server.home, &["revoke", "token", "--token", &token]);
    status_becomes(&server, &token, 401).await;
}

#[tokio::test]
async fn what_was_revoked_before_the_start_is_refused_from_the_first_request_on() {
    let home = Home::new();
    let (key, _) = new_key(&home, &["--expires", "90d"]);
    let (gone, id) = new_key(&home, &[]);
    ok(&home, &["key", "revoke", &id]);
    let token = home.token("chat models");
    ok(&home, &["revoke", "issuer", "mixgate:local", "--for", "1h"]);
    let server = Mixgate::serve_in(home, &["--model", MODEL]);
    let refused = refusal(models(&server, &token).await).await;
    assert_eq!(refused, (401, "token_revoked".to_owned(), None));
    assert_eq!(models(&server, &key).await.status(), 200);
    let refused = refusal(models(&server, &gone).await).await;
    assert_eq!(refused, (401, "invalid_api_key".to_owned(), None));
}

#[test]
fn a_key_stands_alone_on_stdout_and_what_one_wants_to_know_on_stderr() {
    let home = Home::new();
    let said = run(
        &home,
        &["key", "create", "--sub", "ann", "--tenant", "acme"],
    );
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let key = said.stdout.strip_suffix('\n').unwrap();
    assert_eq!((key.len(), key.lines().count()), (62, 1));
    let expected = format!(
        "made: key {} of ann of acme, scopes chat models, expires never\n\
         keep it now: it is not shown again\n",
        &key[3..11]
    );
    assert_eq!(said.stderr, expected);
    // Nothing on the disk tells it.
    for file in std::fs::read_dir(home.state_dir()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let secret = &key.as_bytes()[12..55];
        assert!(!bytes.windows(secret.len()).any(|part| part == secret));
    }
}

#[test]
fn what_is_typed_amiss_says_what_to_type() {
    let home = Home::new();
    for (words, code, expected) in [
        (
            &["key", "create", "--sub", "a", "--expires", "90"][..],
            2,
            "error: `90` is not a length of time\nhint: write a number and a unit: 90s, 15m, 1h, 12h or 7d\n",
        ),
        (
            &["key", "revoke", "abcdefgh"],
            1,
            "error: there is no key abcdefgh\nhint: mixgate key list shows all\n",
        ),
        (
            &["revoke", "token", "t", "--undo"],
            1,
            "error: no revocation names token t of mixgate:local\nhint: mixgate revoke list shows all\n",
        ),
        (
            &["key", "list", "--ledger", "off"],
            1,
            "error: the ledger is off, so that nothing can be kept in it\n\
             hint: name a file: --ledger PATH, here and for the server\n",
        ),
    ] {
        let said = run(&home, words);
        assert_eq!(
            (said.code, &*said.stderr),
            (Some(code), expected),
            "{words:?}"
        );
        assert_eq!(said.stdout, "");
    }
    // Which token is meant must be said once.
    assert_eq!(run(&home, &["revoke", "token"]).code, Some(2));
    assert_eq!(
        run(&home, &["revoke", "token", "t", "--token", "u"]).code,
        Some(2)
    );
}
