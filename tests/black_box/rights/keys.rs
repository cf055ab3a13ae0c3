//! What an API key is good for, and what its bearer hears when it is not.

use super::*;

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
    for key in [revoked, expired, other, secret(typo), "mg_".to_owned()] {
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

#[tokio::test]
async fn a_revoked_key_ends_all_sequences_under_a_policy_and_is_charged_what_they_used() {
    let policy = r#"
        [[rules]]
        name = "keys"
        when = { credential = "api_key", tenant = "acme", issuer = "mixgate:keys" }
        on_expiry = "finish"
        limits = [{ per = "tenant", tokens_per_day = 1000000, concurrent_sequences = 2 }]

        [[rules]]
        name = "operators"
        when = { scope = "admin" }
    "#;
    let (house, _time) = slow_house(|plan| plan.policy = policy.to_owned()).await;
    let fields = json!({"sub": "robot", "tenant": "acme", "scope": "chat models"});
    let (key, made) = new_key(&house, fields.clone()).await;
    let (sibling, _) = new_key(&house, fields).await;
    let long = json!({"stream": true, "ignore_eos": true, "n": 2});
    let stream = house.chat_request_as(&key, long).send();
    let mut stream = within(stream).await.unwrap();
    assert!(within(stream.chunk()).await.unwrap().is_some());
    // The limits are the tenant's, whichever key its robots use.
    let second = house.chat_request_as(&sibling, json!({})).send();
    let refused = refusal(within(second).await.unwrap()).await;
    assert_eq!(
        refused,
        (429, "concurrency_limit_exceeded".to_owned(), None)
    );
    let path = format!("/admin/keys/{}", made["id"].as_str().unwrap());
    ok(admin(&house, "DELETE", &path, None).await).await;
    let last = events(stream).await.pop().unwrap();
    assert_eq!(error_of(&last), ("access_revoked".to_owned(), None));
    house.idle().await;
    let stats = house.engine.stats();
    assert_eq!(stats.finished_total[5], 2);
    let used = stats.prompt_tokens_total + stats.generation_tokens_total;
    let budgets = house.limits.changed_budgets();
    assert_eq!((budgets.len(), budgets[0].tokens), (1, used));
    let again = house.chat_request_as(&key, json!({})).send();
    let refused = refusal(within(again).await.unwrap()).await;
    assert_eq!(refused, (401, "invalid_api_key".to_owned(), None));
    let other = house
        .chat_request_as(&sibling, json!({"max_tokens": 1}))
        .send();
    assert_eq!(within(other).await.unwrap().status(), 200);
}
