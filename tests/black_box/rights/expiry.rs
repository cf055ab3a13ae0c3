//! Credentials that expire while their requests wait or run.

use mixgate::engine::EngineConfig;

use super::*;

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
    assert_eq!((ended[2], ended[7]), (1, 1));
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

/// A stream of two sequences that has begun, under a policy that says this of expiry.
async fn begun(on_expiry: &str) -> (House, Time, Response) {
    let policy = format!("[[rules]]\nname = \"all\"\non_expiry = {on_expiry}\n");
    let (house, time) = slow_house(|plan| plan.policy = policy).await;
    let fields = json!({"stream": true, "ignore_eos": true, "n": 2});
    let mut stream = house.chat(fields).await;
    assert_eq!(stream.status(), 200);
    assert!(within(stream.chunk()).await.unwrap().is_some());
    (house, time, stream)
}

/// Waits for a step that began after this call, so that the engine has looked at the time.
async fn runs_on(house: &House) {
    let tokens = || house.engine.stats().generation_tokens_total;
    let now = tokens();
    house
        .eventually("more tokens", || tokens() >= now + 6)
        .await;
    assert_eq!(house.engine.stats().running, 2);
}

async fn ends_expired(house: &House, stream: Response) {
    let last = events(stream).await.pop().unwrap();
    assert_eq!(error_of(&last), ("token_expired".to_owned(), None));
    house.idle().await;
    // Both sequences, and as expired ones.
    assert_eq!(house.engine.stats().finished_total[7], 2);
}

#[tokio::test]
async fn a_policy_that_cuts_ends_a_stream_when_its_token_expires_and_not_before() {
    let (house, time, stream) = begun("\"cut\"").await;
    time.pass(604);
    runs_on(&house).await;
    time.pass(1);
    ends_expired(&house, stream).await;
}

#[tokio::test]
async fn a_policy_with_grace_lets_a_stream_go_on_for_that_long() {
    let (house, time, stream) = begun("{ grace = \"30s\" }").await;
    time.pass(605 + 29);
    runs_on(&house).await;
    time.pass(1);
    ends_expired(&house, stream).await;
}

#[tokio::test]
async fn a_policy_that_lets_finish_never_ends_a_stream_for_its_token() {
    let (house, time, stream) = begun("\"finish\"").await;
    time.pass(1_000_000);
    runs_on(&house).await;
    drop(stream);
    house.idle().await;
    assert_eq!(house.engine.stats().finished_total[7], 0);
}

#[tokio::test]
async fn an_answer_that_is_cut_before_it_was_sent_is_401_and_may_be_asked_for_again() {
    let policy = "[[rules]]\nname = \"all\"\non_expiry = \"cut\"\n".to_owned();
    let (house, time) = slow_house(|plan| plan.policy = policy).await;
    let whole = tokio::spawn(house.chat_request(json!({"ignore_eos": true})).send());
    house
        .eventually("a running request", || house.engine.stats().running == 1)
        .await;
    time.pass(605);
    let response = within(whole).await.unwrap().unwrap();
    assert_eq!(response.headers()["x-should-retry"], "true");
    let refused = refusal(response).await;
    assert_eq!(refused, (401, "token_expired".to_owned(), None));
}
