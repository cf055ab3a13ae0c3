use serde_json::{Value, json};

use super::harness::{House, MODEL, REPLY, refusal, within};

async fn answer(house: &House, fields: Value) -> Value {
    let response = house.chat(fields).await;
    assert_eq!(response.status(), 200);
    within(response.json()).await.unwrap()
}

#[tokio::test]
async fn an_answer_has_openais_shape_and_exact_usage() {
    let house = House::open().await;
    let body = answer(&house, json!({})).await;
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], MODEL);
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(body["created"].as_u64().unwrap() > 1_600_000_000);
    let message = json!({"role": "assistant", "content": REPLY, "refusal": null});
    assert_eq!(
        body["choices"],
        json!([{"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"}])
    );
    let (usage, completion) = (&body["usage"], REPLY.len() + 1);
    assert_eq!(
        usage["completion_tokens"], completion,
        "the end of sequence counts"
    );
    let prompt = usage["prompt_tokens"].as_u64().unwrap();
    assert!(prompt > 20, "{usage}");
    assert_eq!(
        usage["total_tokens"].as_u64().unwrap(),
        prompt + completion as u64
    );
    house.idle().await;
}

#[tokio::test]
async fn max_tokens_cuts_and_says_length_under_either_name() {
    let house = House::open().await;
    for name in ["max_tokens", "max_completion_tokens"] {
        let body = answer(&house, json!({name: 3})).await;
        assert_eq!(body["choices"][0]["message"]["content"], "Sow");
        assert_eq!(body["choices"][0]["finish_reason"], "length");
        assert_eq!(body["usage"]["completion_tokens"], 3);
    }
}

#[tokio::test]
async fn a_stop_string_is_not_shown_and_nothing_after_it_is_counted() {
    let house = House::open().await;
    for stop in [json!("carrots"), json!(["zzz", "carrots"])] {
        let body = answer(&house, json!({"stop": stop})).await;
        assert_eq!(body["choices"][0]["message"]["content"], "Sow ");
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
        assert_eq!(body["usage"]["completion_tokens"], "Sow carrots".len());
    }
    house.idle().await;
}

#[tokio::test]
async fn n_gives_that_many_choices_and_counts_the_prompt_once() {
    let house = House::open().await;
    let one = answer(&house, json!({"max_tokens": 3})).await;
    let three = answer(&house, json!({"max_tokens": 3, "n": 3})).await;
    let choices = three["choices"].as_array().unwrap();
    assert_eq!(
        choices
            .iter()
            .map(|choice| choice["index"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert!(
        choices
            .iter()
            .all(|choice| choice["message"]["content"] == "Sow")
    );
    assert_eq!(three["usage"]["completion_tokens"], 9);
    assert_eq!(
        three["usage"]["prompt_tokens"],
        one["usage"]["prompt_tokens"]
    );
    house.idle().await;
}

#[tokio::test]
async fn ignore_eos_and_min_tokens_reach_the_engine() {
    let house = House::open().await;
    let long = REPLY.len() + 5;
    let body = answer(&house, json!({"ignore_eos": true, "max_tokens": long})).await;
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["usage"]["completion_tokens"], long);
    let body = answer(&house, json!({"min_tokens": long, "max_tokens": long + 1})).await;
    assert!(
        body["usage"]["completion_tokens"].as_u64().unwrap() >= long as u64,
        "{body}"
    );
}

#[tokio::test]
async fn models_are_listed_and_found_by_name() {
    let house = House::open().await;
    let list: Value = within(house.get("/v1/models").await.json()).await.unwrap();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], MODEL);
    assert_eq!(list["data"][0]["max_model_len"], 512);
    let one: Value = within(house.get(&format!("/v1/models/{MODEL}")).await.json())
        .await
        .unwrap();
    assert_eq!(one, list["data"][0]);
}

#[tokio::test]
async fn an_unknown_model_is_404_wherever_it_is_named() {
    let house = House::open().await;
    for path in [
        "/v1/models/gpt-4",
        "/v1/models/org/name",
        "/v1/models/org%2Fname",
        "/v1/models/%FF",
    ] {
        let (status, code, _) = refusal(house.get(path).await).await;
        assert_eq!((status, &*code), (404, "model_not_found"), "{path}");
    }
    let response = house.chat(json!({"model": "gpt-4"})).await;
    assert_eq!(
        refusal(response).await,
        (404, "model_not_found".to_owned(), Some("model".to_owned()))
    );
}

#[tokio::test]
async fn the_version_is_told_to_whoever_is_known() {
    let house = House::open().await;
    let version: Value = within(house.get("/version").await.json()).await.unwrap();
    assert_eq!(version, json!({"version": env!("CARGO_PKG_VERSION")}));
}
