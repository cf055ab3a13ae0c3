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
