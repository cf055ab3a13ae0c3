use std::time::Duration;

use mixgate::server::{Server, ServerConfig};
use serde_json::{Value, json};

use super::harness::{House, Plan, app, chat_body, error_of, logs, refusal, within};
use super::parrot::PANIC_SEED;
use super::streaming::events;

async fn ready(house: &House) -> (u16, String) {
    let response = within(house.client.get(house.url("/readyz")).send())
        .await
        .unwrap();
    let status = response.status().as_u16();
    let body: Value = within(response.json()).await.unwrap();
    (status, body["status"].as_str().unwrap().to_owned())
}

/// A house where a request that ignores the end of sequence would run for a minute.
async fn slow_house(server: ServerConfig) -> House {
    let pace = Duration::from_millis(1);
    House::with(Plan {
        server,
        pace,
        max_model_len: 60_000,
        ..Plan::default()
    })
    .await
}

#[tokio::test]
async fn a_client_that_vanishes_mid_stream_frees_its_blocks() {
    let house = slow_house(Plan::default().server).await;
    let mut response = house
        .chat(json!({"stream": true, "ignore_eos": true}))
        .await;
    assert!(within(response.chunk()).await.unwrap().is_some());
    assert!(house.engine.stats().kv_blocks_used > 0);
    drop(response);
    house.idle().await;
    assert_eq!(
        house.engine.stats().finished_total,
        [0, 0, 1, 0, 0, 0, 0],
        "it was cancelled"
    );
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_its_single_body_frees_its_blocks() {
    let house = slow_house(Plan::default().server).await;
    let body = chat_body(json!({"ignore_eos": true})).to_string();
    let request = house.raw_head(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let mut socket = tokio::net::TcpStream::connect(house.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes())
        .await
        .unwrap();
    house
        .eventually("a running request", || house.engine.stats().running == 1)
        .await;
    drop(socket);
    house.idle().await;
    assert_eq!(
        house.engine.stats().finished_total,
        [0, 0, 1, 0, 0, 0, 0],
        "it was cancelled"
    );
}

#[tokio::test]
async fn a_panic_in_a_step_fails_every_request_in_flight_and_readiness() {
    let house = House::open().await;
    house.brake.allow(0);
    let heads: Vec<_> = (0..3)
        .map(|_| house.chat_request(json!({"stream": true, "ignore_eos": true})))
        .map(|request| tokio::spawn(request.send()))
        .collect();
    let all = || house.engine.stats().waiting + house.engine.stats().running;
    house.eventually("three streams", || all() == 3).await;
    house.brake.allow(16);
    let mut started = Vec::new();
    for head in heads {
        started.push(within(head).await.unwrap().unwrap());
    }
    for stream in &mut started {
        assert!(within(stream.chunk()).await.unwrap().is_some());
    }
    house
        .eventually("all steps allowed are taken", || house.brake.is_down())
        .await;

    let silent: Vec<_> = [
        json!({"seed": PANIC_SEED, "stream": true}),
        json!({}),
        json!({"n": 2}),
    ]
    .into_iter()
    .map(|fields| tokio::spawn(house.chat_request(fields).send()))
    .collect();
    house.eventually("four more sequences", || all() == 7).await;
    house.brake.release();

    for answer in silent {
        let answer = within(answer).await.unwrap().unwrap();
        assert_eq!(
            refusal(answer).await,
            (503, "engine_failed".to_owned(), None)
        );
    }
    for stream in started {
        let events = events(stream).await;
        assert_eq!(error_of(events.last().unwrap()).0, "engine_failed");
        let ends = |event: &Value| event["choices"][0]["finish_reason"].is_string();
        assert!(!events.iter().any(ends), "a failed stream has no other end");
    }
    assert_eq!(ready(&house).await, (503, "failed".to_owned()));
    for fields in [json!({}), json!({"stream": true})] {
        let refused = refusal(house.chat(fields).await).await;
        assert_eq!(refused, (503, "engine_failed".to_owned(), None));
    }
    let live = within(house.client.get(house.url("/livez")).send());
    assert_eq!(live.await.unwrap().status(), 200);
    let log = String::from_utf8(logs().lock().unwrap().clone()).unwrap();
    let line = log.lines().find(|line| line.contains("a step panicked"));
    assert!(line.unwrap().contains("ERROR"), "{line:?}");
    let stats = house.engine.stats();
    assert_eq!(
        (stats.running, stats.waiting, stats.kv_blocks_used),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn shutdown_lets_a_stream_finish_and_takes_nothing_new() {
    let mut house = House::open().await;
    assert_eq!(ready(&house).await, (200, "ready".to_owned()));
    house.brake.allow(4);
    let mut stream = house.chat(json!({"stream": true})).await;
    assert!(within(stream.chunk()).await.unwrap().is_some());

    house.ask_to_stop();
    house
        .eventually("draining", || {
            house.engine.status() == mixgate::engine::Status::Draining
        })
        .await;
    assert_eq!(ready(&house).await, (503, "draining".to_owned()));
    assert_eq!(
        refusal(house.chat(json!({})).await).await.1,
        "shutting_down"
    );

    house.brake.release();
    assert_eq!(events(stream).await.last().unwrap(), "[DONE]");
    house.stopped().await;
    assert!(
        house.client.get(house.url("/livez")).send().await.is_err(),
        "it must have stopped listening"
    );
}

#[tokio::test]
async fn shutdown_ends_what_still_runs_at_the_deadline() {
    let server = ServerConfig {
        shutdown_timeout: Duration::from_millis(50),
        ..Plan::default().server
    };
    let mut house = slow_house(server).await;
    let mut stream = house
        .chat(json!({"stream": true, "ignore_eos": true}))
        .await;
    assert!(within(stream.chunk()).await.unwrap().is_some());
    house.ask_to_stop();
    let events = events(stream).await;
    assert_eq!(error_of(events.last().unwrap()).0, "shutting_down");
    house.stopped().await;
}

#[tokio::test]
async fn an_idle_server_stops_at_once() {
    let mut house = House::open().await;
    house.ask_to_stop();
    house.stopped().await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_with_a_hint() {
    let house = House::open().await;
    let taken = ServerConfig {
        port: house.address.port(),
        ..Plan::default().server
    };
    let error = Server::bind(taken, app(&Plan::default()).0)
        .await
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        format!("cannot listen on {}", house.address)
    );
    assert!(error.hint().unwrap().contains("--port"));
}
