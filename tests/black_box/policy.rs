//! What a policy does to requests, as clients see it.

use serde_json::{Value, json};

use super::harness::{House, Plan, REPLY, error_of, refusal, within};

/// A house whose policy has one rule for everybody.
async fn house_of(rights: &str) -> House {
    ruled(&format!("[[rules]]\nname = \"all\"\n{rights}\n")).await
}

async fn ruled(policy: &str) -> House {
    House::with(Plan {
        policy: policy.to_owned(),
        ..Plan::default()
    })
    .await
}

type Refusal = (u16, String, Option<String>);

fn refused(status: u16, code: &str, param: Option<&str>) -> Refusal {
    (status, code.to_owned(), param.map(str::to_owned))
}

/// Status, code, param and message of a refused chat.
async fn refusal_of(house: &House, fields: Value) -> (Refusal, String) {
    let response = house.chat(fields).await;
    let status = response.status().as_u16();
    let body: Value = within(response.json()).await.unwrap();
    let (code, param) = error_of(&body);
    let message = body["error"]["message"].as_str().unwrap().to_owned();
    ((status, code, param), message)
}

async fn answer(house: &House, fields: Value) -> Value {
    let response = house.chat(fields).await;
    assert_eq!(response.status(), 200);
    within(response.json()).await.unwrap()
}

#[tokio::test]
async fn a_caller_whom_no_rule_matches_is_refused_on_every_route_but_the_probes() {
    let house = ruled("[[rules]]\nname = \"bob\"\nwhen = { subject = \"bob\" }\n").await;
    for path in ["/v1/models", "/version", "/metrics", "/nothing"] {
        let denied = refusal(house.get(path).await).await;
        assert_eq!(denied, refused(403, "access_denied", None), "{path}");
    }
    let denied = refusal(house.chat(json!({})).await).await;
    assert_eq!(denied, refused(403, "access_denied", None));
    assert_eq!(house.get("/livez").await.status(), 200);
    let bob = house.token_of("bob", None);
    let bobs = within(house.chat_request_as(&bob, json!({})).send()).await;
    assert_eq!(bobs.unwrap().status(), 200);
}

#[tokio::test]
async fn a_model_is_refused_by_name_before_it_is_looked_for() {
    let house = house_of("models = [\"other*\"]").await;
    for model in ["parrot", "nothing"] {
        let (denied, message) = refusal_of(&house, json!({"model": model})).await;
        assert_eq!(denied, refused(403, "model_not_allowed", Some("model")));
        assert_eq!(message, "You may not use this model.", "the same for both");
        let one = refusal(house.get(&format!("/v1/models/{model}")).await).await;
        assert_eq!(one, refused(403, "model_not_allowed", Some("model")));
    }
    let absent = refusal_of(&house, json!({"model": "other-1"})).await.0;
    assert_eq!(absent, refused(404, "model_not_found", Some("model")));
    let one = refusal(house.get("/v1/models/other-1").await).await;
    assert_eq!(one, refused(404, "model_not_found", Some("model")));
    let list: Value = within(house.get("/v1/models").await.json()).await.unwrap();
    assert_eq!(list, json!({"object": "list", "data": []}));
}

#[tokio::test]
async fn models_that_may_be_named_are_listed_and_answer() {
    let house = house_of("models = [\"par*\"]\nmax_context = 100").await;
    answer(&house, json!({})).await;
    let list: Value = within(house.get("/v1/models").await.json()).await.unwrap();
    assert_eq!(list["data"][0]["id"], "parrot");
    let context = &list["data"][0]["max_model_len"];
    assert_eq!(*context, 100, "as long as this caller may have it");
    assert_eq!(house.get("/v1/models/parrot").await.status(), 200);
}

#[tokio::test]
async fn too_many_tokens_are_refused_and_no_number_is_cut() {
    let house = house_of("max_tokens = 5").await;
    for field in ["max_tokens", "max_completion_tokens"] {
        let (denied, message) = refusal_of(&house, json!({field: 6})).await;
        assert_eq!(denied, refused(400, "parameter_not_allowed", Some(field)));
        assert_eq!(message, format!("'{field}' may be at most 5 for you."));
        let within = answer(&house, json!({field: 4})).await;
        assert_eq!(within["usage"]["completion_tokens"], 4);
    }
    let least = refusal_of(&house, json!({"min_tokens": 6})).await.0;
    assert_eq!(
        least,
        refused(400, "parameter_not_allowed", Some("min_tokens"))
    );
    let cut = answer(&house, json!({})).await;
    assert_eq!(cut["usage"]["completion_tokens"], 5);
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert_eq!(cut["choices"][0]["message"]["content"], REPLY[..5]);
}

#[tokio::test]
async fn too_many_completions_are_refused() {
    let house = house_of("max_n = 2").await;
    let (denied, message) = refusal_of(&house, json!({"n": 3})).await;
    assert_eq!(denied, refused(400, "parameter_not_allowed", Some("n")));
    assert_eq!(message, "'n' may be at most 2 for you.");
    let two = answer(&house, json!({"n": 2})).await;
    assert_eq!(two["choices"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_context_above_the_callers_is_as_good_as_above_the_models() {
    let house = house_of("max_context = 60").await;
    let whole = answer(&house, json!({"ignore_eos": true})).await;
    assert_eq!(whole["usage"]["total_tokens"], 60);
    let prompt = whole["usage"]["prompt_tokens"].as_u64().unwrap();
    let room = 60 - prompt;
    answer(&house, json!({"max_tokens": room})).await;
    let (denied, message) = refusal_of(&house, json!({"max_tokens": room + 1})).await;
    assert_eq!(
        denied,
        refused(400, "context_length_exceeded", Some("messages"))
    );
    assert!(
        message.starts_with("This model's maximum context length is 60 tokens."),
        "{message}"
    );
    let long = json!([{"role": "user", "content": "x".repeat(100)}]);
    let denied = refusal_of(&house, json!({"messages": long})).await.0;
    assert_eq!(
        denied,
        refused(400, "context_length_exceeded", Some("messages"))
    );
}

#[tokio::test]
async fn fields_that_are_denied_are_refused_if_they_ask_for_something() {
    let house = house_of("denied_fields = [\"seed\", \"logprobs\"]\ntools = false").await;
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    for (field, value) in [
        ("seed", json!(7)),
        ("logprobs", json!(true)),
        ("tools", tool.clone()),
        ("functions", tool),
        ("tool_choice", json!("required")),
    ] {
        let (denied, message) = refusal_of(&house, json!({field: value})).await;
        assert_eq!(denied, refused(400, "parameter_not_allowed", Some(field)));
        assert_eq!(message, format!("You may not use '{field}'."));
    }
    for fields in [
        json!({"seed": null, "logprobs": false, "tools": [], "tool_choice": "none"}),
        json!({"temperature": 0}),
    ] {
        answer(&house, fields).await;
    }
    let absent = refusal_of(&house, json!({"model": "nothing", "seed": 7})).await;
    assert_eq!(absent.0.1, "model_not_found", "the model comes first");
    let house = house_of("denied_fields = [\"max_tokens\"]").await;
    for name in ["max_tokens", "max_completion_tokens"] {
        let (denied, message) = refusal_of(&house, json!({name: 1})).await;
        assert_eq!(denied, refused(400, "parameter_not_allowed", Some(name)));
        assert_eq!(message, format!("You may not use '{name}'."));
    }
}

#[tokio::test]
async fn scopes_and_routes_narrow_what_a_token_allows() {
    let policy = "[[rules]]\nname = \"ann\"\nwhen = { subject = \"ann\" }\nscopes = [\"models\"]\n\
                  [[rules]]\nname = \"bob\"\nwhen = { subject = \"bob\" }\nroutes = [\"chat\"]\n";
    let house = ruled(policy).await;
    let denied = refusal(house.chat(json!({})).await).await;
    assert_eq!(denied, refused(403, "access_denied", None));
    assert_eq!(house.get("/v1/models").await.status(), 200);
    assert_eq!(house.get("/metrics").await.status(), 403);
    let bob = house.token_of("bob", None);
    let bobs = within(house.chat_request_as(&bob, json!({})).send()).await;
    assert_eq!(bobs.unwrap().status(), 200);
    let models = house.client.get(house.url("/v1/models")).bearer_auth(&bob);
    let denied = refusal(within(models.send()).await.unwrap()).await;
    assert_eq!(denied, refused(403, "access_denied", None));
    let lacking = house.token_with("chat");
    let models = house
        .client
        .get(house.url("/v1/models"))
        .bearer_auth(&lacking);
    let denied = refusal(within(models.send()).await.unwrap()).await;
    assert_eq!(denied, refused(403, "insufficient_scope", None));
}

#[tokio::test]
async fn headers_of_the_policy_are_on_every_response_to_that_caller() {
    let policy = "[[rules]]\nname = \"ann\"\nwhen = { subject = \"ann\" }\n\
                  response_headers = { X-Acme-Plan = \"gold\", server = \"acme\" }\n\
                  [[rules]]\nname = \"others\"\n";
    let house = ruled(policy).await;
    let plain = house.chat(json!({})).await;
    let streamed = house.chat(json!({"stream": true})).await;
    let wrong = house.chat(json!({"n": 0})).await;
    let unknown = house.get("/nothing").await;
    for response in [plain, streamed, wrong, unknown] {
        let headers = response.headers();
        assert_eq!(headers["x-acme-plan"], "gold", "{}", response.status());
        assert_eq!(headers["server"], "acme");
    }
    let bob = house.token_of("bob", None);
    let bobs = within(house.chat_request_as(&bob, json!({})).send()).await;
    assert!(!bobs.unwrap().headers().contains_key("x-acme-plan"));
    let nobody = within(house.client.get(house.url("/v1/models")).send()).await;
    assert!(!nobody.unwrap().headers().contains_key("x-acme-plan"));
}

#[tokio::test]
async fn no_field_of_a_request_widens_what_a_policy_gives() {
    let house = house_of("max_tokens = 5\npriority = \"low\"").await;
    for fields in [
        json!({"max_tokens": 6, "max_completion_tokens": 6}),
        json!({"max_tokens": null, "max_completion_tokens": 6}),
        json!({"max_tokens": 4_000_000_000_u64}),
    ] {
        let denied = refusal_of(&house, fields).await.0;
        assert_eq!((denied.0, &*denied.1), (400, "parameter_not_allowed"));
    }
    let huge = refusal_of(&house, json!({"max_tokens": 1e300})).await.0;
    assert_eq!(huge.0, 400);
}

#[tokio::test]
async fn refusals_of_the_policy_are_counted_by_code() {
    let policy = "[[rules]]\nname = \"all\"\nmax_n = 1\nmodels = [\"parrot\"]\n";
    let house = ruled(policy).await;
    refusal_of(&house, json!({"n": 2})).await;
    refusal_of(&house, json!({"model": "x"})).await;
    let text = within(house.get("/metrics").await.text()).await.unwrap();
    for line in [
        r#"mixgate_denied_total{code="model_not_allowed"} 1"#,
        r#"mixgate_denied_total{code="parameter_not_allowed"} 1"#,
        r#"mixgate_policy_reloads_total{outcome="applied"} 0"#,
        "mixgate_policy_last_reload_success 1",
        "mixgate_policy_generation 0",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
    }
}
