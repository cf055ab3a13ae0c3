//! What administrators may send, and who is one.

use super::*;

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
    let secret = format!("/admin/keys/mg_abcdefgh_{}", "x".repeat(50));
    let (status, unknown) = error(admin(&house, "DELETE", &secret, None).await).await;
    assert_eq!(
        (status, &unknown["message"]),
        (404, &json!("There is no API key `…`."))
    );
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

#[tokio::test]
async fn what_administrators_do_is_logged_without_anybodys_name() {
    let house = House::open().await;
    let token = house.mint_with("operator-jane-doe", "admin", serde_json::Map::new());
    for (path, body) in [
        ("keys", json!({"sub": "customer-john-doe"})),
        (
            "revocations",
            json!({"what": "subject", "value": "customer-john-doe"}),
        ),
    ] {
        let request = house.client.post(house.url(&format!("/admin/{path}")));
        let request = request.bearer_auth(&token).json(&body);
        ok(within(request.send()).await.unwrap()).await;
    }
    let logs = String::from_utf8(logs().lock().unwrap().clone()).unwrap();
    assert!(logs.contains("an API key is made") && logs.contains("a right is taken away"));
    assert!(!logs.contains("jane-doe") && !logs.contains("john-doe"));
}
