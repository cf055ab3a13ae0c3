//! Streams that end because a right was taken away.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

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
