//! Both doors, walked row by row.

use std::net::SocketAddr;

use mixgate::auth::Access;
use mixgate::server::{Doors, OpenRoutes, Route, ServerConfig, routes};
use tokio::net::TcpStream;

use super::common::error_of;
use super::harness::{House, Plan};
use super::tls::{Papers, secure};
use super::wire::{Authority, Line, tls};

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FROB",
];

/// Ways to spell a path that some server somewhere takes for the same. Only the first two are the path itself.
fn spellings(path: &str) -> Vec<String> {
    let (first, rest) = path[1..].split_at(1);
    let encoded = format!("/%{:02x}{rest}", first.as_bytes()[0]);
    let encoded_slash = format!("/{}", path[1..].replace('/', "%2f"));
    let mut spellings = vec![
        path.to_owned(),
        format!("{path}?access_token=x"),
        format!("{path}/"),
        path.to_uppercase(),
        encoded,
        format!("/{path}"),
        format!("/.{path}"),
        format!("/x/..{path}"),
        format!("/livez/..{path}"),
        format!("/livez/..;{path}"),
        format!("{path}/."),
        format!("{path};x=y"),
        format!("{path}%20"),
        format!("{path}%00"),
        format!("{path}.json"),
        format!("/v1{path}"),
    ];
    if encoded_slash != path {
        spellings.push(encoded_slash);
    }
    spellings
}

fn is_open(row: &Route, method: &str, door_opens: bool) -> bool {
    let is_read = row.method == "GET" && ["GET", "HEAD"].contains(&method);
    let public = row.access == Access::Public && (!door_opens || row.doors != Doors::Public);
    is_read && (public || door_opens && row.doors == Doors::OpenInside)
}

/// Sends every method to every spelling of every row, without a token; only what must be open may not be a 401.
async fn walk(line: &mut Line, absolute: Option<&str>, door_opens: bool) {
    for row in routes() {
        let path = row.path.replace("{*id}", "x");
        for (at, spelling) in spellings(&path).iter().enumerate() {
            for method in METHODS {
                let uri = format!("{}{spelling}", absolute.unwrap_or_default());
                let (status, headers, text) = line.ask(method, &uri, &[]).await;
                let literal = at < 2 && !row.path.contains('{');
                // The spelling of one row may be another row: `/v1/health` is none, but who knows.
                if literal && is_open(row, method, door_opens) {
                    assert_eq!(status, 200, "{method} {uri}");
                    continue;
                }
                assert_eq!(status, 401, "{method} {uri}");
                assert_eq!(
                    headers["www-authenticate"], r#"Bearer realm="llm""#,
                    "{method} {uri}"
                );
                if method != "HEAD" {
                    let code = error_of(&serde_json::from_str(&text).unwrap()).0;
                    assert_eq!(code, "missing_credentials", "{method} {uri}");
                }
            }
        }
    }
}

async fn plain(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Connections live for hundreds of requests here.
fn patient() -> ServerConfig {
    ServerConfig {
        header_timeout: std::time::Duration::from_secs(10),
        ..Plan::default().server
    }
}

async fn house(server: ServerConfig) -> House {
    House::with(Plan {
        server,
        ..Plan::default()
    })
    .await
}

#[tokio::test]
async fn without_a_token_every_way_to_spell_every_row_is_401_over_http1() {
    let house = house(patient()).await;
    let mut line = Line::http1(plain(house.address).await).await;
    walk(&mut line, None, false).await;
}

#[tokio::test]
async fn without_a_token_absolute_targets_are_401_too() {
    let house = house(patient()).await;
    let mut line = Line::http1(plain(house.address).await).await;
    walk(&mut line, Some("http://llm.example.com"), false).await;
}

#[tokio::test]
async fn without_a_token_every_way_to_spell_every_row_is_401_over_http2() {
    let house = house(patient()).await;
    let mut line = Line::http2(plain(house.address).await).await;
    walk(&mut line, Some("http://llm.example.com"), false).await;
}

#[tokio::test]
async fn without_a_token_every_way_to_spell_every_row_is_401_over_tls() {
    let root = Authority::new();
    let papers = Papers::new(&root);
    let house = house(secure(&papers, patient())).await;
    for alpn in ["h2", "http/1.1"] {
        let stream = tls(house.address, &root.client(alpn, None)).await.unwrap();
        let spoken = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(spoken.as_deref(), Some(alpn.as_bytes()));
        if alpn == "h2" {
            let mut line = Line::http2(stream).await;
            walk(&mut line, Some("https://llm.example.com"), false).await;
        } else {
            let mut line = Line::http1(stream).await;
            walk(&mut line, None, false).await;
        }
    }
}

#[tokio::test]
async fn at_the_internal_door_only_probes_and_metrics_are_open() {
    let house = house(inside(patient())).await;
    let address = house.internal.unwrap();
    let mut line = Line::http1(plain(address).await).await;
    walk(&mut line, None, true).await;
    let mut line = Line::http2(plain(address).await).await;
    walk(&mut line, Some("http://llm.example.com"), true).await;
    let mut line = Line::http1(plain(address).await).await;
    let (_, _, metrics) = line.ask("GET", "/metrics", &[]).await;
    assert!(metrics.contains("mixgate_connections{door=\"internal\"} "));
    let (_, _, models) = line.ask("GET", "/v1/models", &[]).await;
    assert!(models.contains("\"id\":\"parrot\""), "{models}");
}

/// With a second listener.
fn inside(server: ServerConfig) -> ServerConfig {
    ServerConfig {
        internal: Some("127.0.0.1:0".parse().unwrap()),
        ..server
    }
}

#[tokio::test]
async fn nothing_is_generated_at_the_internal_door() {
    let house = house(inside(patient())).await;
    let mut line = Line::http1(plain(house.internal.unwrap()).await).await;
    let bearer = format!("Bearer {}", house.token());
    let token = [("authorization", &*bearer)];
    let (status, _, text) = line.ask("POST", "/v1/chat/completions", &token).await;
    let code = error_of(&serde_json::from_str(&text).unwrap()).0;
    assert_eq!((status, &*code), (404, "unknown_url"));
}

#[tokio::test]
async fn admin_rows_are_at_the_internal_door_and_outside_only_where_told() {
    for admin_on_public in [false, true] {
        let server = ServerConfig {
            admin_on_public,
            ..inside(patient())
        };
        let house = house(server).await;
        // With every scope but theirs: a row that is there says 403, one that is not 404.
        let bearer = format!("Bearer {}", house.token());
        let token = [("authorization", &*bearer)];
        for row in routes().iter().filter(|row| row.doors == Doors::Admin) {
            let path = row.path.replace("{id}", "x");
            let mut outside = Line::http1(plain(house.address).await).await;
            let (status, ..) = outside.ask(row.method, &path, &token).await;
            let wanted = if admin_on_public { 403 } else { 404 };
            assert_eq!(status, wanted, "{} {path}", row.method);
            let mut within = Line::http1(plain(house.internal.unwrap()).await).await;
            let (status, ..) = within.ask(row.method, &path, &token).await;
            assert_eq!(status, 403, "{} {path}", row.method);
        }
    }
}

#[tokio::test]
async fn listed_rows_are_open_to_listed_addresses_on_the_public_port() {
    let routes = ["/health", "/version", "/v1/models", "/metrics"].map(str::to_owned);
    let from = ["127.0.0.1/32", "10.0.0.0/24"].map(|net| net.parse().unwrap());
    let server = ServerConfig {
        open: OpenRoutes::new(&routes, from.to_vec()).unwrap(),
        trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
        ..patient()
    };
    let house = house(server).await;
    let mut line = Line::http1(plain(house.address).await).await;
    for path in &routes {
        let (status, ..) = line.ask("GET", path, &[]).await;
        assert_eq!(status, 200, "{path}");
        for (forwarded, wanted) in [
            ("10.0.0.7", 200),
            ("203.0.113.9", 401),
            // What the caller wrote itself stands to the left of what the proxy saw.
            ("10.0.0.7, 203.0.113.9", 401),
            ("127.0.0.1, 203.0.113.9", 401),
            ("203.0.113.9, 10.0.0.7", 200),
        ] {
            let (status, ..) = line
                .ask("GET", path, &[("x-forwarded-for", forwarded)])
                .await;
            let wanted = if path == "/health" { 200 } else { wanted };
            assert_eq!(status, wanted, "{path} for {forwarded}");
        }
    }
    for (method, path) in [
        ("POST", "/metrics"),
        ("GET", "/metrics/"),
        ("GET", "//metrics"),
        ("GET", "/v1/models/parrot"),
        ("POST", "/v1/chat/completions"),
    ] {
        let (status, ..) = line.ask(method, path, &[]).await;
        assert_eq!(status, 401, "{method} {path}");
    }
}

#[tokio::test]
async fn who_is_not_listed_cannot_claim_to_be() {
    let server = ServerConfig {
        open: OpenRoutes::new(
            &["/metrics".to_owned()],
            vec!["10.0.0.0/24".parse().unwrap()],
        )
        .unwrap(),
        ..patient()
    };
    let house = house(server).await;
    let mut line = Line::http1(plain(house.address).await).await;
    for header in ["x-forwarded-for", "forwarded", "x-real-ip", "x-client-ip"] {
        let (status, ..) = line.ask("GET", "/metrics", &[(header, "10.0.0.7")]).await;
        assert_eq!(status, 401, "{header}");
    }
}

#[tokio::test]
async fn an_address_that_the_policy_keeps_out_hears_nothing_else() {
    let server = ServerConfig {
        trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
        ..inside(patient())
    };
    let house = House::with(Plan {
        server,
        policy: "[addresses]\ndeny = [\"203.0.113.0/24\"]\n[[rules]]\nname = \"all\"\n".to_owned(),
        ..Plan::default()
    })
    .await;
    let bearer = format!("Bearer {}", house.token());
    let mut line = Line::http1(plain(house.address).await).await;
    for (forwarded, path, token, wanted) in [
        ("203.0.113.9", "/livez", None, 403),
        ("203.0.113.9", "/v1/models", None, 403),
        ("203.0.113.9", "/v1/models", Some(&*bearer), 403),
        ("198.51.100.1", "/livez", None, 200),
        ("198.51.100.1", "/v1/models", None, 401),
        ("198.51.100.1", "/v1/models", Some(&*bearer), 200),
        // What the caller wrote itself is neither believed nor held against it.
        ("203.0.113.9, 198.51.100.1", "/livez", None, 200),
        ("198.51.100.1, 203.0.113.9", "/livez", None, 403),
        // Nothing to go by but the proxy.
        ("nonsense", "/livez", None, 200),
    ] {
        let mut headers = vec![("x-forwarded-for", forwarded)];
        headers.extend(token.map(|token| ("authorization", token)));
        let (status, _, text) = line.ask("GET", path, &headers).await;
        assert_eq!(status, wanted, "{path} for {forwarded}");
        if wanted == 403 {
            let code = error_of(&serde_json::from_str(&text).unwrap()).0;
            assert_eq!(code, "ip_not_allowed");
        }
    }
    let mut within = Line::http1(plain(house.internal.unwrap()).await).await;
    let denied = [("x-forwarded-for", "203.0.113.9")];
    assert_eq!(within.ask("GET", "/livez", &denied).await.0, 200);
}
