use mixgate::auth::Access;
use mixgate::server::{PublicUrl, ServerConfig, routes};
use serde_json::{Value, json};

use super::harness::{House, Plan, raw_json, refusal, within};

const RESOURCE: &str = "/.well-known/oauth-protected-resource";
const JWKS: &str = "/.well-known/jwks.json";

async fn named_house() -> House {
    let plan = Plan::default();
    let server = ServerConfig {
        public_url: PublicUrl::parse("https://llm.example.com/"),
        ..plan.server
    };
    House::with(Plan { server, ..plan }).await
}

async fn open(house: &House, path: &str) -> reqwest::Response {
    within(house.client.get(house.url(path)).send())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_challenge_points_to_the_metadata_once_the_server_knows_its_name() {
    let house = named_house().await;
    let pointer =
        r#", resource_metadata="https://llm.example.com/.well-known/oauth-protected-resource""#;
    let challenge = |response: &reqwest::Response| {
        let value = response.headers()["www-authenticate"].to_str().unwrap();
        value.to_owned()
    };
    let response = open(&house, "/v1/models").await;
    assert_eq!(
        challenge(&response),
        format!(r#"Bearer realm="llm"{pointer}"#)
    );
    let request = house.client.get(house.url("/v1/models"));
    let response = within(request.bearer_auth("x").send()).await.unwrap();
    assert_eq!(
        challenge(&response),
        format!(
            r#"Bearer realm="llm", error="invalid_token", error_description="the access token is invalid"{pointer}"#
        )
    );
    // The row's own refusal, which the router makes.
    let token = house.token_with("something else");
    let request = house.client.get(house.url("/v1/models"));
    let response = within(request.bearer_auth(token).send()).await.unwrap();
    assert_eq!(
        challenge(&response),
        format!(r#"Bearer realm="llm", error="insufficient_scope", scope="models"{pointer}"#)
    );
}

#[tokio::test]
async fn the_metadata_names_the_resource_its_scopes_and_the_keys() {
    let house = named_house().await;
    let response = open(&house, RESOURCE).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "public, max-age=3600");
    let mut scopes: Vec<&str> = Vec::new();
    for row in routes() {
        match row.access {
            Access::Scope(scope) if !scopes.contains(&scope) => scopes.push(scope),
            _ => {}
        }
    }
    assert!(scopes.contains(&"chat"), "{scopes:?}");
    assert_eq!(
        within(response.json::<Value>()).await.unwrap(),
        json!({
            "resource": "https://llm.example.com",
            "resource_name": "Mixgate",
            "bearer_methods_supported": ["header"],
            "scopes_supported": scopes,
            "jwks_uri": "https://llm.example.com/.well-known/jwks.json",
        })
    );
}

#[tokio::test]
async fn without_a_name_the_metadata_repeats_a_plain_host_and_nothing_else() {
    let house = House::open().await;
    let get = |host: &str| {
        let request = format!("GET {RESOURCE} HTTP/1.1\r\n{host}connection: close\r\n\r\n");
        let house = &house;
        async move { house.raw(request.as_bytes()).await }
    };
    let answer = get("host: localhost:8000\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("cache-control: no-store"),
        "{answer}"
    );
    assert_eq!(raw_json(&answer)["resource"], "http://localhost:8000");
    for host in [
        "host: a\"b\r\n",
        "host: user@localhost\r\n",
        "host: localhost/evil\r\n",
        "host: <script>\r\n",
        "host: \r\n",
        "host: a\r\nhost: b\r\n",
    ] {
        let answer = get(host).await;
        // Not a page of this server: like any unknown path, it asks for a token first. hyper refuses some by itself.
        assert!(
            answer.starts_with("HTTP/1.1 401 ") || answer.starts_with("HTTP/1.1 400 "),
            "{host}: {answer}"
        );
        for part in ["a\"b", "user@", "evil", "script"] {
            assert!(!answer.contains(part), "{host}: {answer}");
        }
    }
}

#[tokio::test]
async fn the_key_set_verifies_what_was_minted_here_and_holds_no_secret() {
    let house = House::open().await;
    let response = open(&house, JWKS).await;
    assert_eq!(
        response.headers()["content-type"],
        "application/jwk-set+json"
    );
    assert_eq!(response.headers()["cache-control"], "public, max-age=60");
    let set: Value = within(response.json()).await.unwrap();
    let [key] = &set["keys"].as_array().unwrap()[..] else {
        panic!("{set}")
    };
    assert_eq!(key.as_object().unwrap().get("d"), None);

    // As another service would do it.
    let parsed: jsonwebtoken::jwk::JwkSet = serde_json::from_value(set.clone()).unwrap();
    let token = house.token();
    let header = jsonwebtoken::decode_header(&token).unwrap();
    let jwk = parsed.find(&header.kid.unwrap()).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(jwk).unwrap();
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    rules.set_audience(&["mixgate"]);
    rules.set_issuer(&["mixgate:local"]);
    let claims = jsonwebtoken::decode::<Value>(&token, &key, &rules)
        .unwrap()
        .claims;
    assert_eq!(claims["sub"], "ann");
}

/// A house that believes two issuers, one of which has a name that is no URL.
async fn house_of_others() -> House {
    let issuer = |name: &str| {
        let entry = json!({
            "issuer": name,
            "audiences": ["a"],
            "keys": [{"pem": include_str!("../../fuzz/keys/ed.pem")}],
        });
        serde_json::from_value(entry).unwrap()
    };
    House::with(Plan {
        issuers: vec![issuer("https://idp.example/"), issuer("internal")],
        ..Plan::default()
    })
    .await
}

#[tokio::test]
async fn where_others_make_the_tokens_they_are_named_and_there_are_no_keys() {
    let house = house_of_others().await;
    let about: Value = within(open(&house, RESOURCE).await.json()).await.unwrap();
    assert_eq!(
        about["authorization_servers"],
        json!(["https://idp.example/"])
    );
    assert_eq!(about.get("jwks_uri"), None);
    // Not a page of this server: like any unknown path, it asks for a token first.
    let response = open(&house, JWKS).await;
    assert_eq!(refusal(response).await.0, 401);
}
