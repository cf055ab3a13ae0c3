//! Clients that send nothing, send slowly, do not read, or are too many.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::BodyExt;
use mixgate::server::ServerConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::harness::{House, Plan, chat_body, within};
use super::wire::Line;

/// A house where a stream runs for long and fast, and nobody waits long for a client that does not read.
async fn torrent() -> House {
    let server = ServerConfig {
        write_timeout: Duration::from_millis(300),
        header_timeout: Duration::from_secs(10),
        ..Plan::default().server
    };
    House::with(Plan {
        server,
        max_model_len: 200_000,
        ..Plan::default()
    })
    .await
}

/// A socket that takes little before it must be read.
async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn a_client_that_stops_reading_frees_its_blocks() {
    let house = torrent().await;
    let body = chat_body(json!({"stream": true, "ignore_eos": true})).to_string();
    let head = house.raw_head(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let mut socket = narrow(house.address).await;
    socket.write_all(head.as_bytes()).await.unwrap();
    house
        .eventually("a running request", || house.engine.stats().running == 1)
        .await;
    house.idle().await;
    assert_eq!(
        house.engine.stats().finished_total,
        [0, 0, 1, 0, 0, 0, 0],
        "it was cancelled"
    );
    // The connection is gone too: what was on its way can be read, and then it ends.
    let mut rest = Vec::new();
    let _ = within(socket.read_to_end(&mut rest)).await;
    assert!(!String::from_utf8_lossy(&rest).contains("[DONE]"));
}

#[tokio::test]
async fn an_http2_stream_that_is_left_lying_frees_its_blocks_and_spares_its_neighbours() {
    let house = torrent().await;
    let socket = TcpStream::connect(house.address).await.unwrap();
    let mut line = Line::http2(socket).await;
    let request = hyper::Request::post("http://x/v1/chat/completions")
        .header("authorization", format!("Bearer {}", house.token()))
        .body(
            chat_body(json!({"stream": true, "ignore_eos": true}))
                .to_string()
                .into_bytes()
                .into(),
        )
        .unwrap();
    let response = line.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(house.engine.stats().running, 1);
    house.idle().await;
    assert_eq!(
        house.engine.stats().finished_total,
        [0, 0, 1, 0, 0, 0, 0],
        "it was cancelled"
    );
    let (status, ..) = line.ask("GET", "http://x/livez", &[]).await;
    assert_eq!(status, 200, "the connection goes on");
    let end = within(response.into_body().collect()).await;
    assert!(end.is_err(), "the stream must not look complete");
}

#[tokio::test]
async fn an_address_has_its_share_of_connections() {
    let server = ServerConfig {
        max_connections_per_address: 2,
        header_timeout: Duration::from_secs(10),
        internal: Some("127.0.0.1:0".parse().unwrap()),
        ..Plan::default().server
    };
    let house = House::with(Plan {
        server,
        ..Plan::default()
    })
    .await;
    let mut lines = Vec::new();
    for _ in 0..2 {
        let mut line = Line::http1(TcpStream::connect(house.address).await.unwrap()).await;
        assert_eq!(line.ask("GET", "/livez", &[]).await.0, 200);
        lines.push(line);
    }
    let mut third = TcpStream::connect(house.address).await.unwrap();
    let _ = third
        .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let mut answer = Vec::new();
    let _ = within(third.read_to_end(&mut answer)).await;
    assert_eq!(answer, b"", "it is closed without a word");
    // The internal door counts for itself.
    let inside = TcpStream::connect(house.internal.unwrap()).await.unwrap();
    let (_, _, said) = Line::http1(inside).await.ask("GET", "/metrics", &[]).await;
    assert!(
        said.contains("mixgate_connections_turned_away_total 1\n"),
        "{said}"
    );
    assert!(
        said.contains("mixgate_connections{door=\"public\"} 2\n"),
        "{said}"
    );

    lines.pop();
    let again = async {
        loop {
            let mut socket = TcpStream::connect(house.address).await.unwrap();
            let request = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            let _ = socket.write_all(request).await;
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer).await;
            if answer.starts_with(b"HTTP/1.1 200 ") {
                return;
            }
        }
    };
    within(again).await;
}

#[tokio::test]
async fn trusted_proxies_are_not_counted() {
    let server = ServerConfig {
        max_connections_per_address: 1,
        header_timeout: Duration::from_secs(10),
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..Plan::default().server
    };
    let house = House::with(Plan {
        server,
        ..Plan::default()
    })
    .await;
    let mut lines = Vec::new();
    for _ in 0..5 {
        let mut line = Line::http1(TcpStream::connect(house.address).await.unwrap()).await;
        assert_eq!(line.ask("GET", "/livez", &[]).await.0, 200);
        lines.push(line);
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_cut_off_in_time() {
    let house = House::open().await;
    let mut socket = TcpStream::connect(house.address).await.unwrap();
    let began = std::time::Instant::now();
    // Each byte is progress, and none of it helps.
    let dripping = async {
        for byte in b"GET /livez HTTP/1.1\r\nx-slow: "
            .iter()
            .chain(std::iter::repeat(&b'a'))
        {
            if socket.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(dripping).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn who_is_refused_while_still_sending_megabytes_sees_the_refusal() {
    let house = House::open().await;
    let body = vec![b'x'; 8 << 20];
    let request = house.client.post(house.url("/v1/chat/completions"));
    let response = within(request.body(body).send()).await.unwrap();
    assert_eq!(response.status(), 401);
}

#[tokio::test]
async fn an_http2_client_that_opens_and_resets_without_end_is_cut_off() {
    let house = House::open().await;
    let mut socket = TcpStream::connect(house.address).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    for at in 0..2000u32 {
        let id = (2 * at + 1).to_be_bytes();
        // GET http / with an empty authority, from HPACK's static table; then a reset.
        bytes.extend([0, 0, 3, 1, 5, id[0], id[1], id[2], id[3], 0x82, 0x86, 0x84]);
        bytes.extend([0, 0, 4, 3, 0, id[0], id[1], id[2], id[3], 0, 0, 0, 8]);
    }
    let _ = socket.write_all(&bytes).await;
    let mut answer = Vec::new();
    let _ = within(socket.read_to_end(&mut answer)).await;
    // GOAWAY (type 7) with ENHANCE_YOUR_CALM (11) as its last four bytes.
    let calm = answer
        .windows(17)
        .any(|frame| frame[..4] == [0, 0, 8, 7] || frame[3] == 7 && frame[13..17] == [0, 0, 0, 11]);
    assert!(calm, "{answer:?}");
}
