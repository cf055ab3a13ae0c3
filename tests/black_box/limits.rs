//! What limits look like from outside: refusals, headers, answers cut short, and that no budget is overshot.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mixgate::auth::{Identity, Limit, Measure, Meter, Per, Rights, TokensUsed, WhenShort};
use mixgate::engine::EngineConfig;
use reqwest::Response;
use serde_json::{Value, json};

use super::harness::{House, Plan, refusal, within};
use super::streaming::events;

/// Adds up what it hears.
#[derive(Debug, Default)]
struct Sum(Mutex<TokensUsed>);

impl Meter for Sum {
    fn used(&self, _: &Identity, tokens: TokensUsed) {
        let mut sum = self.0.lock().unwrap();
        sum.prompt += tokens.prompt;
        sum.completion += tokens.completion;
    }
}

impl Sum {
    fn all(&self) -> u64 {
        let sum = self.0.lock().unwrap();
        (sum.prompt + sum.completion) as u64
    }
}

fn limited(limits: &[(Measure, u64)]) -> Rights {
    let limit = |&(measure, most)| Limit {
        measure,
        per: Per::Subject,
        most,
    };
    Rights {
        limits: limits.iter().map(limit).collect(),
        ..Rights::default()
    }
}

fn plan(limits: &[(Measure, u64)]) -> (Plan, Arc<Sum>) {
    let sum = Arc::<Sum>::default();
    let plan = Plan {
        meter: Some(sum.clone()),
        rights: Some(limited(limits)),
        max_model_len: 4096,
        ..Plan::default()
    };
    (plan, sum)
}

async fn house(limits: &[(Measure, u64)]) -> (House, Arc<Sum>) {
    let (plan, sum) = plan(limits);
    (House::with(plan).await, sum)
}

/// Tokens of the prompt that [`House::chat`] sends.
async fn prompt_tokens() -> u64 {
    let answer = House::open().await.chat(json!({"max_tokens": 1})).await;
    let answer: Value = within(answer.json()).await.unwrap();
    answer["usage"]["prompt_tokens"].as_u64().unwrap()
}

/// All that the ledger would write down of budgets.
fn spent(house: &House) -> u64 {
    let changed = house.limits.changed_budgets();
    changed.iter().map(|record| record.tokens).sum()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let value = response.headers().get(name)?;
    Some(value.to_str().unwrap())
}

fn remaining_tokens(response: &Response) -> u64 {
    let remaining = header(response, "x-ratelimit-remaining-tokens");
    remaining.unwrap().parse().unwrap()
}

async fn body(response: Response) -> Value {
    within(response.json()).await.unwrap()
}

#[tokio::test]
async fn every_answer_says_where_its_caller_stands() {
    let limits = [
        (Measure::RequestsPerMinute, 2),
        (Measure::TokensPerMinute, 6000),
    ];
    let (house, sum) = house(&limits).await;
    let first = house.chat(json!({"max_tokens": 5})).await;
    assert_eq!(first.status(), 200);
    assert_eq!(header(&first, "x-ratelimit-limit-requests"), Some("2"));
    assert_eq!(header(&first, "x-ratelimit-remaining-requests"), Some("1"));
    assert_eq!(header(&first, "x-ratelimit-reset-requests"), Some("30s"));
    assert_eq!(header(&first, "x-ratelimit-limit-tokens"), Some("6000"));
    let left = remaining_tokens(&first);
    assert!(left >= 6000 - sum.all() && left < 6000, "{left}");
    let reset = header(&first, "x-ratelimit-reset-tokens").unwrap();
    assert!(reset.ends_with("ms"), "{reset}");
    // What cannot be read was a request too.
    let second = house.chat(json!({"temperature": "hot"})).await;
    assert_eq!(header(&second, "x-ratelimit-remaining-requests"), Some("0"));
    assert_eq!(second.status(), 400);

    let third = house.chat(json!({})).await;
    let wait: u64 = header(&third, "retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert!(header(&third, "retry-after-ms").is_some());
    assert_eq!(header(&third, "x-should-retry"), None);
    assert_eq!(header(&third, "x-ratelimit-limit-requests"), Some("2"));
    assert_eq!(header(&third, "x-ratelimit-remaining-requests"), Some("0"));
    assert_eq!(third.status(), 429);
    let said = json!({"error": {
        "message": "You are over your limit of 2 requests per minute.", "type": "rate_limit_error", "param": null,
        "code": "rate_limit_exceeded"
    }});
    assert_eq!(body(third).await, said);
    // Others are not concerned, and unlimited routes say nothing.
    let bob = house.token_of("bob", None);
    let bobs = house.chat_request_as(&bob, json!({"max_tokens": 1}));
    assert_eq!(within(bobs.send()).await.unwrap().status(), 200);
    assert_eq!(
        header(&house.get("/v1/models").await, "x-ratelimit-limit-requests"),
        None
    );
}

#[tokio::test]
async fn who_is_not_limited_hears_nothing_of_limits() {
    let response = House::open().await.chat(json!({"max_tokens": 1})).await;
    let names = response.headers().keys();
    let about_limits = names.filter(|name| name.as_str().starts_with("x-ratelimit"));
    assert_eq!(about_limits.count(), 0);
}

#[tokio::test]
async fn a_stream_whose_budget_runs_out_ends_with_an_error_and_exact_usage() {
    let prompt = prompt_tokens().await;
    let (house, sum) = house(&[(Measure::TokensPerDay, prompt + 20)]).await;
    // Asked for no usage, it hears it all the same.
    let fields = json!({"stream": true, "ignore_eos": true});
    let events = events(house.chat(fields).await).await;
    let [chunks @ .., end, usage, error] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(chunks.len(), 20);
    assert_eq!(end["choices"][0]["finish_reason"], "length");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["prompt_tokens"], prompt);
    assert_eq!(usage["usage"]["completion_tokens"], 20);
    let said = json!({"error": {
        "message": "Your token budget was spent while the request was running; its answer was cut short.",
        "type": "insufficient_quota", "param": null, "code": "insufficient_quota"
    }});
    assert_eq!(*error, said);
    house.idle().await;
    assert_eq!((spent(&house), sum.all()), (prompt + 20, prompt + 20));
    assert_eq!(
        house.engine.stats().finished_total,
        [0, 0, 0, 0, 0, 0, 1, 0]
    );

    let refused = house.chat(json!({"max_tokens": 1})).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(header(&refused, "x-should-retry"), Some("false"));
    assert_eq!(header(&refused, "retry-after"), None);
    assert_eq!(header(&refused, "retry-after-ms"), None);
    assert_eq!(remaining_tokens(&refused), 0);
    let message = format!(
        "Your budget of {} tokens per day does not cover this request.",
        prompt + 20
    );
    let said = json!({"error": {
        "message": message, "type": "insufficient_quota", "param": null, "code": "insufficient_quota"
    }});
    assert_eq!(body(refused).await, said);
}

#[tokio::test]
async fn a_single_body_delivers_what_the_budget_paid_for() {
    let prompt = prompt_tokens().await;
    let (house, sum) = house(&[(Measure::TokensPerMonth, prompt + 7)]).await;
    let fields = json!({"ignore_eos": true, "max_tokens": 500});
    let response = house.chat(fields).await;
    assert_eq!(response.status(), 200);
    assert_eq!(remaining_tokens(&response), 0);
    let body = body(response).await;
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["choices"][0]["message"]["content"], "Sow car");
    assert_eq!(body["usage"]["completion_tokens"], 7);
    house.idle().await;
    assert_eq!((spent(&house), sum.all()), (prompt + 7, prompt + 7));
}

#[tokio::test]
async fn a_budget_that_covers_the_answer_exactly_does_not_cut_it() {
    let prompt = prompt_tokens().await;
    let (house, _) = house(&[(Measure::TokensPerDay, prompt + 12)]).await;
    let fields = json!({"stream": true, "ignore_eos": true, "max_tokens": 12});
    let events = events(house.chat(fields).await).await;
    assert_eq!(events.last().unwrap(), "[DONE]");
    house.idle().await;
    assert_eq!(spent(&house), prompt + 12);
}

#[tokio::test]
async fn of_several_completions_the_others_go_on_and_the_error_comes_last() {
    let prompt = prompt_tokens().await;
    let (house, sum) = house(&[(Measure::TokensPerDay, prompt + 21)]).await;
    // Each says 33 characters and an end.
    let fields = json!({"stream": true, "n": 2, "max_tokens": 15});
    let events = events(house.chat(fields).await).await;
    let [chunks @ .., usage, error] = &events[..] else {
        panic!("{events:?}")
    };
    let ends = chunks
        .iter()
        .filter(|chunk| chunk["choices"][0]["finish_reason"] == "length");
    let ended: Vec<_> = ends.map(|end| &end["choices"][0]["index"]).collect();
    assert_eq!(ended.len(), 2);
    assert_ne!(ended[0], ended[1]);
    assert_eq!(usage["usage"]["completion_tokens"], 21);
    assert_eq!(error["error"]["code"], "insufficient_quota");
    house.idle().await;
    assert_eq!((spent(&house), sum.all()), (prompt + 21, prompt + 21));
}

#[tokio::test]
async fn an_abandoned_stream_gives_the_rest_back() {
    let (plan, sum) = plan(&[
        (Measure::TokensPerDay, 3000),
        (Measure::ConcurrentSequences, 4),
    ]);
    let house = House::with(Plan {
        pace: Duration::from_millis(1),
        ..plan
    })
    .await;
    let fields = json!({"stream": true, "ignore_eos": true, "n": 2, "max_tokens": 1400});
    let mut stream = house.chat(fields.clone()).await;
    assert_eq!(stream.status(), 200);
    assert!(remaining_tokens(&stream) < 200);
    assert!(within(stream.chunk()).await.unwrap().is_some());
    let large = json!({"n": 2, "messages": [{"role": "user", "content": "x".repeat(200)}]});
    let refused = house.chat(large.clone()).await;
    assert_eq!(header(&refused, "retry-after"), Some("1"));
    assert_eq!(header(&refused, "x-should-retry"), None);
    let message = "What is left of your budget of 3000 tokens per day is reserved by requests of yours that are \
                   running. Try again when they have ended.";
    let said = json!({"error": {
        "message": message, "type": "rate_limit_error", "param": null, "code": "rate_limit_exceeded"
    }});
    assert_eq!(
        (refused.status().as_u16(), body(refused).await),
        (429, said)
    );
    drop(stream);
    house.idle().await;
    let first = sum.all();
    assert_eq!(spent(&house), first);
    let response = house.chat(large).await;
    assert_eq!(response.status(), 200);
    assert_eq!(remaining_tokens(&response), 3000 - sum.all());
}

#[tokio::test]
async fn a_request_that_leaves_the_queue_pays_nothing() {
    let (plan, sum) = plan(&[(Measure::TokensPerDay, 100_000)]);
    let engine = EngineConfig {
        max_num_seqs: 1,
        ..plan.engine.clone()
    };
    let house = House::with(Plan {
        engine,
        pace: Duration::from_millis(1),
        ..plan
    })
    .await;
    let fields = json!({"stream": true, "ignore_eos": true});
    let mut running = house.chat(fields.clone()).await;
    assert!(within(running.chunk()).await.unwrap().is_some());
    let waiting = tokio::spawn(house.chat_request(fields).send());
    house
        .eventually("a waiting request", || house.engine.stats().waiting == 1)
        .await;
    waiting.abort();
    house
        .eventually("an empty queue", || house.engine.stats().waiting == 0)
        .await;
    drop(running);
    house.idle().await;
    let stats = house.engine.stats();
    let worked = stats.prompt_tokens_total + stats.generation_tokens_total;
    assert_eq!((spent(&house), sum.all()), (worked, worked));
    assert_eq!(stats.prompt_tokens_total, prompt_tokens().await);
}

#[tokio::test]
async fn places_are_free_again_when_their_sequences_have_ended() {
    let (plan, _) = plan(&[(Measure::ConcurrentSequences, 2)]);
    let house = House::with(Plan {
        pace: Duration::from_millis(1),
        ..plan
    })
    .await;
    let fields = json!({"stream": true, "ignore_eos": true, "n": 2});
    let mut stream = house.chat(fields).await;
    assert!(within(stream.chunk()).await.unwrap().is_some());
    let refused = house.chat(json!({})).await;
    assert_eq!(header(&refused, "retry-after"), Some("1"));
    let refused = refusal(refused).await;
    assert_eq!(
        refused,
        (429, "concurrency_limit_exceeded".to_owned(), None)
    );
    drop(stream);
    house.idle().await;
    assert_eq!(house.chat(json!({})).await.status(), 200);
    let never = refusal(house.chat(json!({"n": 3})).await).await;
    let parameter = (
        400,
        "parameter_not_allowed".to_owned(),
        Some("n".to_owned()),
    );
    assert_eq!(never, parameter);
    // What was refused holds nothing.
    assert_eq!(house.chat(json!({"n": 2})).await.status(), 200);
}

#[tokio::test]
async fn strict_rights_refuse_what_a_budget_covers_in_part() {
    let (mut plan, sum) = plan(&[(Measure::TokensPerDay, 400)]);
    plan.rights.as_mut().unwrap().when_short = WhenShort::Refuse;
    let house = House::with(plan).await;
    let refused = house.chat(json!({"max_tokens": 400})).await;
    assert_eq!(remaining_tokens(&refused), 400);
    let refused = refusal(refused).await;
    assert_eq!(refused, (429, "insufficient_quota".to_owned(), None));
    assert_eq!(house.chat(json!({"max_tokens": 4})).await.status(), 200);
    house.idle().await;
    assert_eq!(spent(&house), sum.all());
}

#[tokio::test]
async fn two_hundred_requests_at_once_overshoot_a_budget_by_zero_tokens() {
    const BUDGET: u64 = 9000;
    let (plan, sum) = plan(&[(Measure::TokensPerDay, BUDGET)]);
    let engine = EngineConfig {
        max_num_seqs: 64,
        max_waiting: 1024,
        max_waiting_per_subject: 1024,
        max_num_batched_tokens: 256,
        ..plan.engine.clone()
    };
    let house = House::with(Plan {
        engine,
        max_model_len: 512,
        ..plan
    })
    .await;
    let ask = |at: u64| {
        let mut fields = json!({"n": 1 + at % 3});
        if at.is_multiple_of(2) {
            fields["max_tokens"] = json!(20 + at);
        }
        if !at.is_multiple_of(5) {
            fields["ignore_eos"] = json!(true);
        }
        if at.is_multiple_of(4) {
            fields["stream"] = json!(true);
            fields["stream_options"] = json!({"include_usage": true});
        }
        house.chat_request(fields).send()
    };
    let (mut told, mut answers, mut refusals) = (0, 0, 0);
    let mut hear = async |response: Response| {
        let status = response.status().as_u16();
        if status != 200 {
            assert_eq!(status, 429);
            let (_, code, _) = refusal(response).await;
            refusals += 1;
            return code == "insufficient_quota";
        }
        answers += 1;
        let is_stream = header(&response, "content-type") != Some("application/json");
        let usage = match is_stream {
            false => body(response).await["usage"].clone(),
            true => {
                let events = events(response).await;
                events[events.len() - 2]["usage"].clone()
            }
        };
        told += usage["total_tokens"].as_u64().unwrap();
        false
    };
    let crowd: Vec<_> = (0..200).map(|at| tokio::spawn(ask(at))).collect();
    for request in crowd {
        hear(within(request).await.unwrap().unwrap()).await;
    }
    // What is left goes to whoever comes, down to what no request can use.
    for at in 0.. {
        if hear(within(ask(3 * at)).await.unwrap()).await {
            break;
        }
    }
    // How many share the budget depends on how fast they come; that it is shared does not.
    assert!(answers > 10 && refusals > 20, "{answers} {refusals}");
    house.idle().await;
    let (spent, worked) = (spent(&house), sum.all());
    assert_eq!((told, spent), (spent, worked));
    let least = BUDGET - prompt_tokens().await;
    assert!((least..=BUDGET).contains(&spent), "{spent}");
}
