//! API keys, rights that are taken away, credentials that expire: over HTTP, while requests wait and run.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mixgate::clock::{Clock, ManualClock, ManualUptime, Uptime};
use mixgate::engine::EngineConfig;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::harness::{House, Plan, error_of, logs, refusal, within};
use super::streaming::events;

const NOW: u64 = 1_800_000_000;

/// A house where a request that ignores the end of sequence runs for a minute, and time stands still.
async fn slow_house(change: impl FnOnce(&mut Plan)) -> (House, Time) {
    let ((clock, manual_clock), (uptime, manual_uptime)) = (Clock::manual(NOW), Uptime::manual());
    let mut plan = Plan {
        pace: Duration::from_millis(1),
        max_model_len: 60_000,
        time: (clock, uptime),
        ..Plan::default()
    };
    change(&mut plan);
    let time = Time(manual_clock, manual_uptime);
    (House::with(plan).await, time)
}

struct Time(ManualClock, ManualUptime);

impl Time {
    fn pass(&self, seconds: u64) {
        self.0.advance(Duration::from_secs(seconds));
        self.1.advance(Duration::from_secs(seconds));
    }
}

/// Sends as an administrator.
async fn admin(house: &House, method: &str, path: &str, body: Option<Value>) -> Response {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = house
        .client
        .request(method, house.url(path))
        .bearer_auth(house.admin());
    if let Some(body) = body {
        request = request.json(&body);
    }
    within(request.send()).await.unwrap()
}

async fn ok(response: Response) -> Value {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["cache-control"], "no-store");
    within(response.json()).await.unwrap()
}

/// The whole error object.
async fn error(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body: Value = within(response.json()).await.unwrap();
    (status, body["error"].clone())
}

fn invalid(param: Option<&str>, code: &str, message: &str) -> (u16, Value) {
    let kind = "invalid_request_error";
    (
        400,
        json!({"message": message, "type": kind, "param": param, "code": code}),
    )
}

async fn new_key(house: &House, fields: Value) -> (String, Value) {
    let made = ok(admin(house, "POST", "/admin/keys", Some(fields)).await).await;
    (made["key"].as_str().unwrap().to_owned(), made)
}

fn chatty() -> Value {
    json!({"sub": "robot", "scope": "chat models"})
}

/// Asks for the models with these headers.
async fn models(house: &House, headers: &[(&str, &str)]) -> Response {
    let mut request = house.client.get(house.url("/v1/models"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    within(request.send()).await.unwrap()
}

#[tokio::test]
async fn an_api_key_is_told_once_and_does_what_its_scopes_say() {
    let house = House::open().await;
    let fields = json!({"sub": "robot", "tenant": "acme", "scope": "chat models", "note": "cron"});
    let (key, made) = new_key(&house, fields).await;
    let id = made["id"].as_str().unwrap();
    assert!(key.starts_with(&format!("mg_{id}_")));
    let expected = json!({
        "object": "api_key", "id": id, "sub": "robot", "tenant": "acme", "scope": "chat models", "note": "cron",
        "created": made["created"], "expires": null, "revoked": null, "last_used": null, "state": "active", "key": key
    });
    assert_eq!(made, expected);
    let answer = house.chat_request_as(&key, json!({})).send();
    assert_eq!(within(answer).await.unwrap().status(), 200);
    let metrics = house.client.get(house.url("/metrics")).bearer_auth(&key);
    let refused = refusal(within(metrics.send()).await.unwrap()).await;
    assert_eq!(refused, (403, "insufficient_scope".to_owned(), None));
    house.ledger.flush();
    let listed = ok(admin(&house, "GET", "/admin/keys", None).await).await;
    let text = listed.to_string();
    assert!(
        !text.contains(&key[12..]) && !text.contains("hash"),
        "{text}"
    );
    assert_eq!(listed["data"][0]["sub"], "robot");
    assert!(listed["data"][0]["last_used"].is_string());
    let logs = String::from_utf8(logs().lock().unwrap().clone()).unwrap();
    assert!(!logs.contains(&key[12..55]));
}

#[tokio::test]
async fn whatever_is_wrong_with_a_key_its_bearer_hears_the_same() {
    let (house, time) = slow_house(|_| {}).await;
    let (revoked, made) = new_key(&house, chatty()).await;
    let path = format!("/admin/keys/{}", made["id"].as_str().unwrap());
    let gone = ok(admin(&house, "DELETE", &path, None).await).await;
    assert_eq!(
        (&gone["state"], &gone["revoked"]),
        (&json!("revoked"), &json!(NOW))
    );
    let fields = json!({"sub": "robot", "scope": "models", "expires_in_seconds": 60});
    let (expired, made) = new_key(&house, fields).await;
    assert_eq!(made["expires"], NOW + 60);
    let (other, _) = new_key(&House::open().await, chatty()).await;
    let typo = format!(
        "{}{}",
        &expired[..61],
        if expired.ends_with('x') { 'y' } else { 'x' }
    );
    time.pass(60);
    let mut answers = Vec::new();
    for key in [revoked, expired, other, typo, "mg_".to_owned()] {
        let response = models(&house, &[("authorization", &format!("Bearer {key}"))]).await;
        let headers = response.headers().clone();
        assert!(!headers.contains_key("x-should-retry"));
        answers.push((headers["www-authenticate"].clone(), error(response).await));
    }
    let message = "The API key is invalid.";
    let (_, mut expected) = invalid(None, "invalid_api_key", message);
    expected["type"] = "invalid_request_error".into();
    assert_eq!(answers[0].1, (401, expected));
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
}

#[tokio::test]
async fn an_api_key_s_own_header_counts_where_it_was_asked_for() {
    let closed = House::open().await;
    let (key, _) = new_key(&closed, chatty()).await;
    let refused = refusal(models(&closed, &[("x-api-key", &key)]).await).await;
    assert_eq!(refused, (401, "missing_credentials".to_owned(), None));
    let open = House::with(Plan {
        api_key_headers: true,
        ..Plan::default()
    })
    .await;
    let (key, _) = new_key(&open, chatty()).await;
    for name in ["api-key", "x-api-key", "X-API-Key"] {
        assert_eq!(models(&open, &[(name, &key)]).await.status(), 200, "{name}");
    }
    let bearer = format!("Bearer {}", open.token());
    for pair in [
        [("authorization", &*bearer), ("x-api-key", &*key)],
        [("api-key", &key), ("x-api-key", &key)],
        [("api-key", &key), ("api-key", &key)],
    ] {
        let refused = refusal(models(&open, &pair).await).await;
        assert_eq!(refused, (400, "multiple_credentials".to_owned(), None));
    }
}

#[tokio::test]
async fn a_credential_in_the_query_is_none_and_is_not_logged() {
    let house = House::open().await;
    let (key, _) = new_key(&house, chatty()).await;
    for query in [
        format!("access_token={}", house.token()),
        format!("api_key={key}"),
        format!("api-key={key}&key={key}"),
    ] {
        let request = house.client.get(house.url(&format!("/v1/models?{query}")));
        let refused = refusal(within(request.send()).await.unwrap()).await;
        assert_eq!(refused, (401, "missing_credentials".to_owned(), None));
    }
    let with_token = house
        .client
        .get(house.url(&format!("/nothing?api_key={key}")));
    let response = within(with_token.bearer_auth(house.token()).send())
        .await
        .unwrap();
    let (status, answer) = error(response).await;
    assert_eq!(status, 404);
    let logs = String::from_utf8(logs().lock().unwrap().clone()).unwrap();
    assert!(!logs.contains(&key[3..]) && !answer.to_string().contains(&key[3..]));
}

/// Starts a stream with `token`, revokes by `revocation` once it runs, and tells how it ends.
async fn cut_by(house: &House, token: &str, revocation: Value) -> Value {
    let fields = json!({"stream": true, "ignore_eos": true});
    let request = house.chat_request_as(token, fields).send();
    let mut stream = within(request).await.unwrap();
    assert_eq!(stream.status(), 200);
    assert!(within(stream.chunk()).await.unwrap().is_some());
    ok(admin(house, "POST", "/admin/revocations", Some(revocation)).await).await;
    events(stream).await.pop().unwrap()
}

/// A claim of a token that was minted here.
fn claim(token: &str, name: &str) -> Value {
    let payload = URL_SAFE_NO_PAD
        .decode(token.split('.').nth(1).unwrap())
        .unwrap();
    serde_json::from_slice::<Value>(&payload).unwrap()[name].clone()
}

#[tokio::test]
async fn a_stream_ends_with_each_kind_of_revocation_and_no_other_stream_does() {
    let (house, time) = slow_house(|_| {}).await;
    let survivor = house.token_of("bob", None);
    let fields = json!({"stream": true, "ignore_eos": true});
    let request = house.chat_request_as(&survivor, fields).send();
    let mut other = within(request).await.unwrap();
    for what in ["token", "subject", "client"] {
        let claims = json!({"client_id": "app"}).as_object().unwrap().clone();
        let token = house.mint_with("ann", "chat models", claims);
        let value = match what {
            "token" => claim(&token, "jti"),
            "subject" => json!("ann"),
            _ => json!("app"),
        };
        let last = cut_by(&house, &token, json!({"what": what, "value": value})).await;
        assert_eq!(
            error_of(&last),
            ("access_revoked".to_owned(), None),
            "{what}"
        );
        let again = house.chat_request_as(&token, json!({})).send();
        let refused = refusal(within(again).await.unwrap()).await;
        assert_eq!(refused, (401, "token_revoked".to_owned(), None));
        // What is issued later is another matter.
        time.pass(1);
        let claims = json!({"client_id": "app"}).as_object().unwrap().clone();
        let fresh = house.mint_with("ann", "chat models", claims);
        let answer = house
            .chat_request_as(&fresh, json!({"max_tokens": 1}))
            .send();
        assert_eq!(within(answer).await.unwrap().status(), 200, "{what}");
    }
    assert!(within(other.chunk()).await.unwrap().is_some());
    drop(other);
    house.idle().await;
    assert_eq!(house.engine.stats().finished_total[5], 3);
}

#[tokio::test]
async fn a_revoked_issuer_or_signing_key_ends_all_that_they_vouched_for() {
    for revocation in [
        |_: &House| json!({"what": "issuer"}),
        |house: &House| json!({"what": "key", "value": house.key_id(), "issuer": "mixgate:local"}),
    ] {
        let (house, _time) = slow_house(|_| {}).await;
        let token = house.token();
        let last = cut_by(&house, &token, revocation(&house)).await;
        assert_eq!(error_of(&last).0, "access_revoked");
        // The administrator's own token is gone as well.
        let refused = refusal(admin(&house, "GET", "/admin/revocations", None).await).await;
        assert_eq!(refused, (401, "token_revoked".to_owned(), None));
    }
}

#[tokio::test]
async fn a_stream_of_an_api_key_ends_when_the_key_is_revoked() {
    let (house, _time) = slow_house(|_| {}).await;
    let (key, made) = new_key(&house, chatty()).await;
    let fields = json!({"stream": true, "ignore_eos": true});
    let mut stream = within(house.chat_request_as(&key, fields).send())
        .await
        .unwrap();
    assert!(within(stream.chunk()).await.unwrap().is_some());
    let path = format!("/admin/keys/{}", made["id"].as_str().unwrap());
    ok(admin(&house, "DELETE", &path, None).await).await;
    let last = events(stream).await.pop().unwrap();
    assert_eq!(error_of(&last).0, "access_revoked");
    house.idle().await;
}

fn one_at_a_time(plan: &mut Plan) {
    plan.engine = EngineConfig {
        max_num_seqs: 1,
        ..plan.engine.clone()
    };
}

#[tokio::test]
async fn who_still_waits_when_its_token_expires_is_401_and_may_come_again_at_once() {
    let (house, time) = slow_house(one_at_a_time).await;
    let long = json!({"stream": true, "ignore_eos": true});
    let request = house.chat_request_as(&house.token_of("bob", None), long);
    let mut running = within(request.send()).await.unwrap();
    assert!(within(running.chunk()).await.unwrap().is_some());
    let waiting = tokio::spawn(house.chat_request(json!({})).send());
    house
        .eventually("a waiting request", || house.engine.stats().waiting == 1)
        .await;
    // Ten minutes, and the five seconds that the built-in issuer's clock may differ.
    time.pass(605);
    let response = within(waiting).await.unwrap().unwrap();
    assert_eq!(response.headers()["x-should-retry"], "true");
    assert_eq!(response.headers()["retry-after-ms"], "10");
    let challenge = response.headers()["www-authenticate"].to_str().unwrap();
    assert!(
        challenge.contains("the access token expired"),
        "{challenge}"
    );
    let refused = refusal(response).await;
    assert_eq!(refused, (401, "token_expired".to_owned(), None));
    // The one that runs was good when it was let in: by default it may end in peace.
    assert!(within(running.chunk()).await.unwrap().is_some());
    drop(running);
    house.idle().await;
    let ended = house.engine.stats().finished_total;
    assert_eq!((ended[2], ended[6]), (1, 1));
    // What an SDK with a callable key does next.
    assert_eq!(house.chat(json!({"max_tokens": 1})).await.status(), 200);
}

#[tokio::test]
async fn a_client_with_a_callable_key_heals_itself_after_expiry() {
    let (house, time) = slow_house(|_| {}).await;
    let stale = house.token();
    time.pass(605);
    let mut tokens = [stale, house.token()].into_iter();
    // What the OpenAI clients do: ask for the key before each try, try again where they are told to.
    let answer = loop {
        let token = tokens.next().expect("no third try is needed");
        let request = house.chat_request_as(&token, json!({"max_tokens": 1}));
        let response = within(request.send()).await.unwrap();
        let asked = |name: &str| response.headers().get(name).cloned();
        if asked("x-should-retry").is_none_or(|should| should != "true") {
            break response;
        }
        assert_eq!(asked("retry-after-ms").unwrap(), "10");
        assert_eq!(
            refusal(response).await,
            (401, "token_expired".to_owned(), None)
        );
    };
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_revocation_is_listed_and_can_be_taken_back() {
    let (house, _time) = slow_house(|_| {}).await;
    let token = house.token();
    let wish = json!({"what": "subject", "value": "ann", "expires_in_seconds": 3600});
    let made = ok(admin(&house, "POST", "/admin/revocations", Some(wish)).await).await;
    let id = made["id"].as_str().unwrap();
    assert_eq!(id.len(), 32);
    let expected = json!({
        "object": "revocation", "id": id, "what": "subject", "value": "ann", "issuer": "mixgate:local",
        "at": NOW + 1, "until": NOW + 3600
    });
    assert_eq!(made, expected);
    let listed = ok(admin(&house, "GET", "/admin/revocations", None).await).await;
    assert_eq!(listed, json!({"object": "list", "data": [expected]}));
    let bearer = format!("Bearer {token}");
    assert_eq!(
        models(&house, &[("authorization", &bearer)]).await.status(),
        401
    );
    let path = format!("/admin/revocations/{id}");
    let undone = ok(admin(&house, "DELETE", &path, None).await).await;
    assert_eq!(
        undone,
        json!({"object": "revocation.deleted", "id": id, "deleted": true})
    );
    assert_eq!(
        models(&house, &[("authorization", &bearer)]).await.status(),
        200
    );
    let (status, again) = error(admin(&house, "DELETE", &path, None).await).await;
    assert_eq!((status, &again["code"]), (404, &json!("not_found")));
    assert_eq!(again["message"], format!("There is no revocation `{id}`."));
}

#[tokio::test]
async fn what_an_administrator_sends_amiss_is_400_and_changes_nothing() {
    let house = House::open().await;
    let plain =
        |field: &str| format!("'{field}' must have 1 to 256 bytes and no control characters.");
    let long = "x".repeat(257);
    for (path, body, expected) in [
        (
            "revocations",
            json!([]),
            invalid(
                None,
                "invalid_type",
                "The request body must be a JSON object, not an array.",
            ),
        ),
        (
            "revocations",
            json!({}),
            invalid(
                Some("what"),
                "missing_required_parameter",
                "'what' is required.",
            ),
        ),
        (
            "revocations",
            json!({"what": "tokens"}),
            invalid(
                Some("what"),
                "invalid_value",
                "'what' must be token, subject, client, key or issuer.",
            ),
        ),
        (
            "revocations",
            json!({"what": "token"}),
            invalid(
                Some("value"),
                "missing_required_parameter",
                "'value' is required.",
            ),
        ),
        (
            "revocations",
            json!({"what": "token", "value": 7}),
            invalid(
                Some("value"),
                "invalid_type",
                "'value' must be a string, not a number.",
            ),
        ),
        (
            "revocations",
            json!({"what": "token", "value": ""}),
            invalid(Some("value"), "invalid_value", &plain("value")),
        ),
        (
            "revocations",
            json!({"what": "token", "value": "a\u{0}"}),
            invalid(Some("value"), "invalid_value", &plain("value")),
        ),
        (
            "revocations",
            json!({"what": "issuer", "value": "x"}),
            invalid(
                Some("value"),
                "invalid_value",
                "'value' must be left out: 'issuer' says which issuer.",
            ),
        ),
        (
            "revocations",
            json!({"what": "issuer", "issuer": long}),
            invalid(Some("issuer"), "invalid_value", &plain("issuer")),
        ),
        (
            "revocations",
            json!({"what": "issuer", "expires_in_seconds": 0}),
            invalid(
                Some("expires_in_seconds"),
                "invalid_value",
                "'expires_in_seconds' must be between 1 and 3162240000, not 0.",
            ),
        ),
        (
            "revocations",
            json!({"what": "issuer", "untl": 1}),
            invalid(
                Some("untl"),
                "unknown_parameter",
                "Unknown parameter: 'untl'.",
            ),
        ),
        (
            "keys",
            json!({}),
            invalid(
                Some("sub"),
                "missing_required_parameter",
                "'sub' is required.",
            ),
        ),
        (
            "keys",
            json!({"sub": ""}),
            invalid(Some("sub"), "invalid_value", &plain("sub")),
        ),
        (
            "keys",
            json!({"sub": "a", "tenant": "\n"}),
            invalid(Some("tenant"), "invalid_value", &plain("tenant")),
        ),
        (
            "keys",
            json!({"sub": "a", "note": long}),
            invalid(Some("note"), "invalid_value", &plain("note")),
        ),
        (
            "keys",
            json!({"sub": "a", "scope": "\t"}),
            invalid(
                Some("scope"),
                "invalid_value",
                "'scope' must be at most 256 scopes of 1 to 256 bytes, separated by spaces.",
            ),
        ),
        (
            "keys",
            json!({"sub": "a", "scopes": "chat"}),
            invalid(
                Some("scopes"),
                "unknown_parameter",
                "Unknown parameter: 'scopes'. Did you mean 'scope'?",
            ),
        ),
        (
            "keys",
            json!({"sub": "a", "expires_in_seconds": -1}),
            invalid(
                Some("expires_in_seconds"),
                "invalid_value",
                "'expires_in_seconds' must be between 1 and 3162240000, not -1.",
            ),
        ),
    ] {
        let response = admin(
            &house,
            "POST",
            &format!("/admin/{path}"),
            Some(body.clone()),
        )
        .await;
        assert_eq!(error(response).await, expected, "{body}");
    }
    assert!(house.ledger.api_keys().unwrap().is_empty());
    assert!(house.ledger.revocations(0).unwrap().is_empty());
}

#[tokio::test]
async fn only_the_scope_admin_reaches_the_admin_routes() {
    let house = House::open().await;
    for (method, path) in [
        ("GET", "/admin/keys"),
        ("POST", "/admin/keys"),
        ("DELETE", "/admin/keys/abcdefgh"),
        ("GET", "/admin/revocations"),
        ("POST", "/admin/revocations"),
        ("DELETE", "/admin/revocations/abc"),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = house.client.request(method.clone(), house.url(path));
        // Without a body: who may not come in is not asked for one.
        let response = within(request.bearer_auth(house.token()).send())
            .await
            .unwrap();
        let refused = refusal(response).await;
        assert_eq!(
            refused,
            (403, "insufficient_scope".to_owned(), None),
            "{method} {path}"
        );
    }
    let missing = admin(&house, "DELETE", "/admin/keys/abcdefgh", None).await;
    assert_eq!(refusal(missing).await, (404, "not_found".to_owned(), None));
}
