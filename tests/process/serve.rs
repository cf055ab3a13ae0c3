use serde_json::{Value, json};

use super::common::within;
use super::harness::{Home, Mixgate, QUESTION, START, events, said};

#[tokio::test]
async fn it_is_ready_in_two_seconds_and_stays_small() {
    let server = Mixgate::serve(&[]);
    let (status, _) = server.readiness().await;
    let taken = server.started.elapsed();
    assert_eq!(status, 200);
    println!("ready after {taken:?}, a token minted in between");
    assert!(taken < START, "ready after {taken:?}");

    assert_eq!(server.ready["event"], "ready");
    assert_eq!(server.ready["model"], "seedling");
    assert_eq!(server.ready["max_model_len"], 2048);
    assert_eq!(server.ready["issuers"][0]["algorithms"], json!(["EdDSA"]));

    for stream in [false, true, true] {
        let fields = json!({"stream": stream, "n": 2, "max_tokens": 40, "ignore_eos": true});
        let response = server.chat(&fields).await;
        assert_eq!(response.status(), 200);
        within(response.bytes()).await.unwrap();
    }
    let resident = server.resident_mib();
    println!("{resident} MiB resident");
    assert!(resident < 300, "{resident} MiB resident");
}

#[tokio::test]
async fn the_first_question_is_refused_then_answered_token_by_token() {
    let server = Mixgate::serve(&[]);
    let body = json!({
        "model": "seedling", "stream": true, "temperature": 0,
        "messages": [{"role": "user", "content": QUESTION}],
    });
    let request = server.client.post(server.url("/v1/chat/completions"));
    let refused = within(request.json(&body).send()).await.unwrap();
    assert_eq!(refused.status(), 401);
    let challenge = refused.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.starts_with("Bearer "), "{challenge}");
    let refusal: Value = within(refused.json()).await.unwrap();
    assert_eq!(
        refusal,
        json!({"error": {
            "message": "This server asks who you are: send a token as `Authorization: Bearer <token>`.",
            "type": "invalid_request_error", "param": null, "code": "missing_credentials",
        }})
    );

    let request = server.client.post(server.url("/v1/chat/completions"));
    let request = request.bearer_auth(server.home.token("chat")).json(&body);
    let response = within(request.send()).await.unwrap();
    assert_eq!(response.status(), 200);
    let events = events(&within(response.text()).await.unwrap());
    let [chunks @ .., last, done] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(done, "[DONE]");
    assert!(chunks.len() >= 8, "{events:?}");
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert!(
        chunks[0]["choices"][0]["delta"]["content"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    assert!(
        chunks[1..]
            .iter()
            .all(|chunk| chunk["choices"][0]["delta"].get("role").is_none())
    );
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    let answer = said(&events);
    assert!(answer.to_lowercase().contains("carrot"), "{answer}");
}

#[tokio::test]
async fn a_seed_gives_the_same_answer_again() {
    let server = Mixgate::serve(&[]);
    let mut answers = Vec::new();
    for seed in [7, 7, 8] {
        let fields =
            json!({"seed": seed, "temperature": 1.5, "max_tokens": 40, "ignore_eos": true});
        let body: Value = within(server.chat(&fields).await.json()).await.unwrap();
        answers.push(body["choices"][0]["message"]["content"].clone());
    }
    assert_eq!(answers[0], answers[1]);
    assert_ne!(answers[0], answers[2]);
}

#[tokio::test]
async fn sigterm_lets_a_stream_finish_and_ends_with_0() {
    let server = Mixgate::serve(&[]);
    let long = json!({"stream": true, "ignore_eos": true, "max_tokens": 1500});
    let mut stream = server.chat(&long).await;
    let first = within(stream.chunk()).await.unwrap().unwrap();

    server.terminate();
    let draining = async {
        loop {
            if let (503, body) = server.readiness().await {
                return body;
            }
        }
    };
    assert_eq!(within(draining).await, json!({"status": "draining"}));
    let late = server.chat(&json!({})).await;
    assert_eq!(late.status(), 503);
    assert_eq!(
        super::common::refusal(late).await,
        (503, "shutting_down".to_owned(), None)
    );

    let rest = within(stream.text()).await.unwrap();
    let events = events(&(String::from_utf8(first.to_vec()).unwrap() + &rest));
    let [.., last, done] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(done, "[DONE]");
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    let said = server.ended().await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(said.stdout, "", "one line is all that programs get");
}

#[tokio::test]
async fn a_taken_port_is_one_error_with_a_hint() {
    let server = Mixgate::serve(&[]);
    let port = server.address().port().to_string();
    let home = Home::new();
    let state_dir = home.state_dir();
    let words = ["serve", "--port", &port, "--state-dir"];
    let said = home.run(&[&words[..], &[state_dir.to_str().unwrap()]].concat());
    assert_eq!(said.code, Some(1));
    assert_eq!(said.stdout, "");
    let expected = format!(
        "error: cannot listen on 127.0.0.1:{port}\n  caused by: Address already in use (os error 98)\n\
         hint: another program has this port; choose one with --port, or 0 for any\n"
    );
    assert!(said.stderr.ends_with(&expected), "{}", said.stderr);
}
