//! TLS, certificates that change, and certificates of clients.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mixgate::server::{
    CertificateSource, ClientCertificates, Server, ServerConfig, ServerError, TlsConfig,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::{House, Plan, app, chat_body, within};
use super::wire::{Authority, Line, NAME, Pair, shown, tls};

/// A server's files.
pub struct Papers {
    folder: TempDir,
    pub pair: Pair,
}

impl Papers {
    pub fn new(root: &Authority) -> Self {
        let papers = Self {
            folder: tempfile::tempdir().unwrap(),
            pair: root.issue(NAME, 2050),
        };
        papers.put(&papers.pair);
        papers
    }

    pub fn put(&self, pair: &Pair) {
        self.write("cert.pem", &pair.certificate);
        self.write("key.pem", &pair.key);
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn config(&self) -> TlsConfig {
        TlsConfig {
            certificate: CertificateSource::Files {
                certificate: self.folder.path().join("cert.pem"),
                key: self.folder.path().join("key.pem"),
            },
            clients: ClientCertificates::Off,
        }
    }
}

/// The same server, over TLS.
pub fn secure(papers: &Papers, server: ServerConfig) -> ServerConfig {
    ServerConfig {
        tls: Some(papers.config()),
        ..server
    }
}

async fn house(papers: &Papers) -> House {
    house_with(papers.config()).await
}

async fn house_with(tls: TlsConfig) -> House {
    let server = ServerConfig {
        tls: Some(tls),
        header_timeout: std::time::Duration::from_secs(10),
        internal: Some("127.0.0.1:0".parse().unwrap()),
        ..Plan::default().server
    };
    House::with(Plan {
        server,
        ..Plan::default()
    })
    .await
}

/// The metrics, from the internal door.
async fn metrics(house: &House) -> String {
    let url = format!("http://{}/metrics", house.internal.unwrap());
    let response = within(house.client.get(url).send()).await.unwrap();
    within(response.text()).await.unwrap()
}

async fn chats(house: &House, line: &mut Line) {
    let request = hyper::Request::post(format!("https://{NAME}/v1/chat/completions"))
        .header("host", NAME)
        .header("authorization", format!("Bearer {}", house.token()))
        .body(chat_body(json!({})).to_string().into_bytes().into())
        .unwrap();
    let response = line.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn chat_works_over_tls_with_both_versions_of_http() {
    let root = Authority::new();
    let house = house(&Papers::new(&root)).await;
    let client = root.client("http/1.1", None);
    let mut line = Line::http1(tls(house.address, &client).await.unwrap()).await;
    chats(&house, &mut line).await;
    let client = root.client("h2", None);
    let mut line = Line::http2(tls(house.address, &client).await.unwrap()).await;
    chats(&house, &mut line).await;
}

#[tokio::test]
async fn plain_text_gets_no_answer_on_a_port_that_speaks_tls() {
    let root = Authority::new();
    let house = house(&Papers::new(&root)).await;
    let answer = house.raw(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    let failed = "mixgate_tls_handshakes_failed_total 1\n";
    assert!(metrics(&house).await.contains(failed));
}

#[tokio::test]
async fn a_client_that_does_not_know_the_authority_does_not_connect() {
    let house = house(&Papers::new(&Authority::new())).await;
    let stranger = Authority::new().client("h2", None);
    assert!(tls(house.address, &stranger).await.is_err());
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_client_and_open_connections_go_on() {
    let root = Authority::new();
    let papers = Papers::new(&root);
    let house = house(&papers).await;
    let client = root.client("http/1.1", None);
    let first = tls(house.address, &client).await.unwrap();
    let before = shown(&first);
    let mut first = Line::http1(first).await;
    chats(&house, &mut first).await;

    let renewed = root.issue(NAME, 2051);
    papers.put(&renewed);
    house.certificates.reload().await;
    let second = tls(house.address, &client).await.unwrap();
    let after = shown(&second);
    assert_ne!(before, after);
    chats(&house, &mut first).await;
    let said = metrics(&house).await;
    // The first of January 2051.
    let expiry = "mixgate_tls_certificate_expiry_timestamp_seconds{door=\"public\"} 2556144000\n";
    assert!(said.contains(expiry), "{said}");
    assert!(said.contains("mixgate_tls_reloads_total{result=\"ok\"} 1\n"));

    // Files that do not belong together, and one that has expired.
    papers.write("key.pem", &papers.pair.key);
    house.certificates.reload().await;
    papers.put(&root.issue(NAME, 2021));
    house.certificates.reload().await;
    let third = tls(house.address, &client).await.unwrap();
    assert_eq!(shown(&third), after);
    let said = metrics(&house).await;
    assert!(said.contains("mixgate_tls_reloads_total{result=\"failed\"} 2\n"));
    assert!(said.contains(expiry), "{said}");
    chats(&house, &mut first).await;
}

/// Status of `/livez` for a client that shows `own`; `None` if it gets none.
async fn reaches(house: &House, root: &Authority, own: Option<&Pair>) -> Option<u16> {
    // With TLS 1.3 a client hears of a refusal only with the first answer.
    let mut stream = tls(house.address, &root.client("http/1.1", own))
        .await
        .ok()?;
    let request = format!("GET /livez HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.ok()?;
    let answer = String::from_utf8(answer).unwrap();
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

#[tokio::test]
async fn clients_show_certificates_where_they_must_and_only_good_ones() {
    let (root, vouching, other) = (Authority::new(), Authority::new(), Authority::new());
    let papers = Papers::new(&root);
    papers.write("ca.pem", &vouching.pem());
    let authorities = papers.folder.path().join("ca.pem");
    let good = vouching.issue("client.example", 2050);
    let expired = vouching.issue("client.example", 2021);
    let foreign = other.issue("client.example", 2050);
    for (clients, without) in [
        (
            ClientCertificates::Optional {
                authorities: authorities.clone(),
            },
            Some(200),
        ),
        (ClientCertificates::Required { authorities }, None),
    ] {
        let house = house_with(TlsConfig {
            clients: clients.clone(),
            ..papers.config()
        })
        .await;
        assert_eq!(reaches(&house, &root, None).await, without, "{clients:?}");
        assert_eq!(reaches(&house, &root, Some(&good)).await, Some(200));
        assert_eq!(reaches(&house, &root, Some(&expired)).await, None);
        assert_eq!(reaches(&house, &root, Some(&foreign)).await, None);
    }
}

#[tokio::test]
async fn a_certificate_of_no_use_is_an_error_before_anything_listens() {
    let root = Authority::new();
    let papers = Papers::new(&root);
    papers.put(&root.issue(NAME, 2021));
    let server = secure(&papers, Plan::default().server);
    let error = Server::bind(server, app(&Plan::default()).0)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ServerError::Tls(_)));
    let said = error.to_string();
    assert!(
        said.ends_with("cert.pem expired on Jan  1 00:00:00 2021 +00:00"),
        "{said}"
    );
    assert!(error.hint().unwrap().starts_with("renew it"));
}
