use mixgate::auth::Access;
use mixgate::server::routes;
use reqwest::{Method, StatusCode};

use super::common::forged;
use super::harness::{House, error_of, raw_json, refusal, within};

async fn send(house: &House, method: &str, path: &str, token: Option<&str>) -> reqwest::Response {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = house.client.request(method, house.url(path));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    within(request.send()).await.unwrap()
}

#[tokio::test]
async fn every_row_that_is_not_public_is_401_without_a_token() {
    let house = House::open().await;
    for row in routes() {
        let response = send(&house, row.method, &row.path.replace("{*id}", "x"), None).await;
        if row.access == Access::Public {
            assert_eq!(response.status(), 200, "{}", row.path);
            continue;
        }
        assert_eq!(
            response.headers()["www-authenticate"],
            r#"Bearer realm="llm""#,
            "{}",
            row.path
        );
        assert_eq!(
            refusal(response).await,
            (401, "missing_credentials".to_owned(), None),
            "{}",
            row.path
        );
    }
}

#[tokio::test]
async fn what_is_not_in_the_table_is_401_too_without_a_token() {
    let house = House::open().await;
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("GET", "/livez/"),
        ("GET", "//readyz"),
        ("POST", "/livez"),
        ("OPTIONS", "/v1/chat/completions"),
        ("GET", "/v1/chat/completions"),
        ("DELETE", "/v1/models/x"),
        ("GET", "/.well-known/x"),
        ("POST", "/.well-known/jwks.json"),
        ("GET", "/.well-known/jwks.json/"),
        ("GET", "/.well-known/oauth-protected-resource/v1"),
        ("POST", "/tokenize"),
        ("POST", "/invocations"),
        ("FROB", "/metrics"),
    ] {
        let response = send(&house, method, path, None).await;
        assert_eq!(refusal(response).await.0, 401, "{method} {path}");
    }
}

#[tokio::test]
async fn a_token_without_the_rows_scope_is_403() {
    let house = House::open().await;
    let token = house.token_with("something else");
    for row in routes() {
        let Access::Scope(scope) = row.access else {
            continue;
        };
        let response = send(
            &house,
            row.method,
            &row.path.replace("{*id}", "x"),
            Some(&token),
        )
        .await;
        let challenge = response.headers()["www-authenticate"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            challenge.contains(&format!("scope=\"{scope}\"")),
            "{challenge}"
        );
        assert_eq!(
            refusal(response).await,
            (403, "insufficient_scope".to_owned(), None),
            "{}",
            row.path
        );
    }
    assert_eq!(
        send(&house, "GET", "/version", Some(&token)).await.status(),
        200
    );
}

#[tokio::test]
async fn a_bad_token_is_401_with_its_challenge() {
    let house = House::open().await;
    let token = house.token();
    let forged = forged(&token);
    let response = send(&house, "GET", "/v1/models", Some(&forged)).await;
    assert!(
        response.headers()["www-authenticate"]
            .to_str()
            .unwrap()
            .contains("error=\"invalid_token\"")
    );
    assert_eq!(
        refusal(response).await,
        (401, "invalid_token".to_owned(), None)
    );
}

#[tokio::test]
async fn a_caller_without_a_token_is_refused_before_a_byte_of_the_body_is_asked_for() {
    let house = House::open().await;
    let answer = house
        .raw(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\nexpect: 100-continue\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[tokio::test]
async fn with_a_token_an_unknown_path_is_404() {
    let house = House::open().await;
    for path in [
        "/",
        "/v1/embeddings",
        "/v1/models/",
        "/livez/",
        "/v1/chat/completions/",
    ] {
        let response = send(&house, "GET", path, Some(&house.token())).await;
        assert_eq!(
            refusal(response).await,
            (404, "unknown_url".to_owned(), None),
            "{path}"
        );
    }
}

#[tokio::test]
async fn with_a_token_a_wrong_method_is_405_and_says_which_are_right() {
    let house = House::open().await;
    for (method, path, allow) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
        ("POST", "/v1/models", "GET,HEAD"),
        ("DELETE", "/v1/models/x", "GET,HEAD"),
        ("POST", "/livez", "GET,HEAD"),
    ] {
        let response = send(&house, method, path, Some(&house.token())).await;
        assert_eq!(response.headers()["allow"], allow, "{method} {path}");
        assert_eq!(
            refusal(response).await,
            (405, "method_not_allowed".to_owned(), None),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn head_answers_as_get_without_a_body() {
    let house = House::open().await;
    assert_eq!(send(&house, "HEAD", "/livez", None).await.status(), 200);
    let response = send(&house, "HEAD", "/v1/models", Some(&house.token())).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(within(response.bytes()).await.unwrap().len(), 0);
}

#[tokio::test]
async fn two_credentials_are_refused() {
    let house = House::open().await;
    let token = house.token();
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    let answer = house.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(error_of(&raw_json(&answer)).0, "multiple_credentials");
}
