//! Web pages.

use mixgate::server::{ServerConfig, WebOrigin};
use tokio::net::TcpStream;

use super::harness::{House, Plan};
use super::wire::Line;

const PAGE: &str = "https://app.example";

async fn house(origins: &[&str]) -> (House, Line) {
    let server = ServerConfig {
        cors_origins: origins
            .iter()
            .map(|origin| WebOrigin::parse(origin).unwrap())
            .collect(),
        header_timeout: std::time::Duration::from_secs(10),
        ..Plan::default().server
    };
    let house = House::with(Plan {
        server,
        ..Plan::default()
    })
    .await;
    let line = Line::http1(TcpStream::connect(house.address).await.unwrap()).await;
    (house, line)
}

#[tokio::test]
async fn pages_are_answered_from_the_list() {
    let (house, mut line) = house(&[PAGE]).await;
    let bearer = format!("Bearer {}", house.token());
    let token = ("authorization", &*bearer);
    let asks = ("access-control-request-method", "POST");
    let evil = "https://app.example.evil.example";
    let chat = "/v1/chat/completions";
    for (method, path, headers, status, allowed) in [
        ("OPTIONS", chat, &[("origin", PAGE), asks][..], 204, true),
        ("OPTIONS", "/nowhere", &[("origin", PAGE), asks], 204, true),
        ("OPTIONS", chat, &[("origin", evil), asks], 401, false),
        ("OPTIONS", chat, &[("origin", "null"), asks], 401, false),
        ("OPTIONS", chat, &[asks], 401, false),
        ("OPTIONS", chat, &[("origin", PAGE)], 401, true),
        ("GET", "/v1/models", &[("origin", PAGE), token], 200, true),
        ("GET", "/v1/models", &[("origin", PAGE)], 401, true),
        ("POST", chat, &[("origin", PAGE), asks], 401, true),
        ("GET", "/nothing", &[("origin", PAGE), token], 404, true),
        ("GET", "/v1/models", &[("origin", evil), token], 200, false),
        ("GET", "/v1/models", &[token], 200, false),
        ("GET", "/livez", &[("origin", PAGE)], 200, true),
    ] {
        let (got, answer, _) = line.ask(method, path, headers).await;
        let case = format!("{method} {path} {headers:?}");
        assert_eq!(got, status, "{case}");
        let origin = answer.get("access-control-allow-origin");
        let wanted = allowed.then_some(PAGE);
        assert_eq!(origin.map(|it| it.to_str().unwrap()), wanted, "{case}");
        assert_eq!(answer["vary"], "origin", "{case}");
        assert!(
            !answer.contains_key("access-control-allow-credentials"),
            "{case}"
        );
        assert!(answer.contains_key("x-request-id"), "{case}");
    }
}

#[tokio::test]
async fn by_default_no_page_may_do_anything() {
    let (house, mut line) = house(&[]).await;
    let bearer = format!("Bearer {}", house.token());
    for headers in [
        &[("origin", PAGE), ("access-control-request-method", "POST")][..],
        &[("origin", PAGE), ("authorization", &*bearer)],
    ] {
        for method in ["OPTIONS", "GET"] {
            let (_, answer, _) = line.ask(method, "/v1/models", headers).await;
            let names: Vec<&str> = answer.keys().map(|name| name.as_str()).collect();
            let told = |name: &&str| name.starts_with("access-control-") || *name == "vary";
            assert!(!names.iter().any(told), "{names:?}");
        }
    }
}
