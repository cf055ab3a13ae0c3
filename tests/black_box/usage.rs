//! That the ledger has what callers were told, and who may see it.

use std::time::Duration;

use mixgate::ledger::{UsageQuery, UsageRow};
use serde_json::{Value, json};

use super::harness::{House, Plan, refusal, within};
use super::streaming::events;

/// Everything that is written down, once nothing is under way any more.
async fn written(house: &House) -> UsageRow {
    house.idle().await;
    house
        .eventually("every row is final", || {
            house.ledger.flush();
            house.ledger.stats().queued == 0
        })
        .await;
    let query = UsageQuery {
        until: u64::MAX,
        ..UsageQuery::default()
    };
    let mut rows = house.ledger.usage(&query).unwrap();
    rows.pop().unwrap_or_default()
}

/// Prompt, cached and completion tokens of a `usage` object.
fn tokens(usage: &Value) -> [u64; 3] {
    let of = |value: &Value| value.as_u64().unwrap();
    [
        of(&usage["prompt_tokens"]),
        of(&usage["prompt_tokens_details"]["cached_tokens"]),
        of(&usage["completion_tokens"]),
    ]
}

async fn completions(house: &House, token: &str, query: &str) -> reqwest::Response {
    let url = house.url(&format!("/v1/organization/usage/completions?{query}"));
    within(house.client.get(url).bearer_auth(token).send())
        .await
        .unwrap()
}

/// `user model requests input output` of each result of a good answer.
async fn results(house: &House, token: &str, query: &str) -> Vec<String> {
    let response = completions(house, token, query).await;
    assert_eq!(response.status(), 200);
    let page: Value = within(response.json()).await.unwrap();
    assert_eq!(
        (&page["object"], &page["has_more"]),
        (&json!("page"), &json!(false))
    );
    let buckets = page["data"].as_array().unwrap().iter();
    let all = buckets.flat_map(|bucket| bucket["results"].as_array().unwrap());
    all.map(|result| {
        let text = |name: &str| result[name].as_str().unwrap_or("-").to_owned();
        let (input, output) = (&result["input_tokens"], &result["output_tokens"]);
        let requests = &result["num_model_requests"];
        let (user, model) = (text("user_id"), text("model"));
        format!("{user} {model} {requests} {input} {output}")
    })
    .collect()
}

#[tokio::test]
async fn the_ledger_has_what_callers_were_told() {
    let house = House::open().await;
    let mut told = [0; 3];
    let mut add = |usage: &Value| {
        for (sum, part) in told.iter_mut().zip(tokens(usage)) {
            *sum += part;
        }
    };
    for fields in [
        json!({}),
        json!({"max_tokens": 5}),
        json!({"n": 3, "max_tokens": 4}),
    ] {
        let whole: Value = within(house.chat(fields.clone()).await.json())
            .await
            .unwrap();
        add(&whole["usage"]);
        let mut streamed = fields;
        streamed["stream"] = json!(true);
        streamed["stream_options"] = json!({"include_usage": true});
        let events = events(house.chat(streamed).await).await;
        add(&events[events.len() - 2]["usage"]);
    }
    let row = written(&house).await;
    assert_eq!(row.requests, 6);
    assert_eq!([row.prompt, row.cached, row.completion], told);
    assert!(row.cached > 0, "the second finds the first one's prompt");
}

#[tokio::test]
async fn what_a_client_that_left_has_used_is_written_down() {
    let house = House::with(Plan {
        pace: Duration::from_millis(1),
        max_model_len: 60_000,
        ..Plan::default()
    })
    .await;
    let request = house.chat_request(json!({"stream": true, "ignore_eos": true, "n": 2}));
    let mut response = within(request.send()).await.unwrap();
    for _ in 0..5 {
        within(response.chunk()).await.unwrap().unwrap();
    }
    drop(response);
    let row = written(&house).await;
    let stats = house.engine.stats();
    assert_eq!(row.requests, 1);
    assert_eq!(row.completion, stats.generation_tokens_total);
    assert_eq!(row.prompt, stats.prompt_tokens_total);
    assert!(row.completion >= 4, "{row:?}");
}

#[tokio::test]
async fn a_refused_request_has_no_row() {
    let house = House::open().await;
    for fields in [
        json!({"temperature": 9}),
        json!({"model": "other"}),
        json!({"max_tokens": 100_000}),
    ] {
        assert!(house.chat(fields).await.status().is_client_error());
    }
    let nobody = house.client.post(house.url("/v1/chat/completions"));
    assert_eq!(within(nobody.send()).await.unwrap().status(), 401);
    assert_eq!(written(&house).await, UsageRow::default());
}

#[tokio::test]
async fn a_subject_sees_its_own_usage_and_an_admin_all() {
    let house = House::open().await;
    let bob = house.token_of("bob", Some("acme"));
    within(house.chat(json!({"max_tokens": 5})).await.bytes())
        .await
        .unwrap();
    let theirs = house.chat_request_as(&bob, json!({"max_tokens": 7}));
    within(theirs.send()).await.unwrap();
    let row = written(&house).await;
    let prompt = row.prompt / 2;

    let query = "start_time=1&group_by[]=user_id&group_by[]=model";
    // Days since 1970 fill many pages; the rows are today's.
    let today = house.clock_seconds() / 86_400 * 86_400;
    let query = query.replace("start_time=1", &format!("start_time={today}"));
    let (anns, bobs) = (
        format!("ann parrot 1 {prompt} 5"),
        format!("bob parrot 1 {prompt} 7"),
    );
    assert_eq!(results(&house, &bob, &query).await, [&*bobs]);
    assert_eq!(results(&house, &house.token(), &query).await, [&*anns]);
    let none: [&str; 0] = [];
    let others = format!("{query}&user_ids[]=bob");
    assert_eq!(results(&house, &house.token(), &others).await, none);

    let admin = house.token_with("usage admin");
    assert_eq!(results(&house, &admin, &query).await, [&*anns, &*bobs]);
    assert_eq!(results(&house, &admin, &others).await, [&*bobs]);
    let ungrouped = format!("start_time={today}");
    let sum = format!("- - 2 {} 12", 2 * prompt);
    assert_eq!(results(&house, &admin, &ungrouped).await, [&*sum]);
    let batches = format!("start_time={today}&batch=true");
    assert_eq!(results(&house, &admin, &batches).await, none);

    let lacking = completions(&house, &house.token_with("chat admin"), &query).await;
    assert_eq!(
        refusal(lacking).await,
        (403, "insufficient_scope".to_owned(), None)
    );
    let wrong = completions(&house, &admin, "start_time=soon").await;
    let param = Some("start_time".to_owned());
    assert_eq!(
        refusal(wrong).await,
        (400, "invalid_value".to_owned(), param)
    );
    let broken = completions(&house, &admin, "start_time=%ff").await;
    assert_eq!(broken.status(), 400);
}

#[tokio::test]
async fn metrics_say_what_the_ledger_does() {
    let house = House::open().await;
    within(house.chat(json!({"max_tokens": 5})).await.bytes())
        .await
        .unwrap();
    written(&house).await;
    let text = within(house.get("/metrics").await.text()).await.unwrap();
    for line in [
        "mixgate_ledger_failed_writes_total 0",
        "mixgate_ledger_lost_requests_total 0",
        "mixgate_ledger_open_requests 0",
    ] {
        assert!(text.lines().any(|given| given == line), "{line}\n{text}");
    }
    assert!(text.contains("mixgate_ledger_rows_written_total "));
    assert!(text.contains("mixgate_ledger_last_write_age_seconds "));
}

#[tokio::test]
async fn a_scope_that_the_policy_does_not_let_count_shows_nobody_elses_usage() {
    let house = House::with(Plan {
        policy: "[[rules]]\nname = \"all\"\nscopes = [\"chat\", \"usage\"]\n".to_owned(),
        ..Plan::default()
    })
    .await;
    let bob = house.token_of("bob", None);
    let answer = house.chat_request_as(&bob, json!({"max_tokens": 1})).send();
    assert_eq!(within(answer).await.unwrap().status(), 200);
    assert_eq!(written(&house).await.requests, 1);
    let today = house.clock_seconds() / 86_400 * 86_400;
    let query = &*format!("start_time={today}&group_by[]=user_id");
    assert_eq!(results(&house, &bob, query).await.len(), 1);
    // Ann's token says that she administers, and the policy says that this does not count.
    let ann = house.token_with("usage admin");
    assert_eq!(results(&house, &ann, query).await, Vec::<String>::new());
}
