//! Public prefixes and the policy, from the files to the answer.

use serde_json::{Value, json};

use super::common::{refusal, within};
use super::harness::{Home, Mixgate};

const SYSTEM: &str = "You are a helpful gardener. Answer in two short sentences. Never mention the weather, and name \
                      one vegetable in each of your answers, whatever you are asked.";

/// Cached tokens of the answer to a question under a system prompt.
async fn cached(server: &Mixgate, subject: &str, system: &str, question: &str) -> u64 {
    let messages =
        json!([{"role": "system", "content": system}, {"role": "user", "content": question}]);
    let body = json!({"model": "seedling", "messages": messages, "max_tokens": 1});
    let token = server.home.token_of(subject, "chat");
    let request = server.client.post(server.url("/v1/chat/completions"));
    let response = within(request.bearer_auth(token).json(&body).send()).await;
    let body: Value = within(response.unwrap().json()).await.unwrap();
    body["usage"]["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap_or_else(|| panic!("{body}"))
}

#[tokio::test]
async fn a_public_system_prompt_is_shared_by_all_and_the_rest_by_nobody() {
    let server = Mixgate::serve_with(&format!("public_prefixes = [\"Hi.\", {SYSTEM:?}]\n"));
    let question = "When do I sow carrots in a cold climate, and how deep, and how far apart do I put the rows?";
    assert_eq!(cached(&server, "ann", SYSTEM, question).await, 0);
    let own = cached(&server, "ann", SYSTEM, question).await;
    let others = cached(&server, "bob", SYSTEM, question).await;
    assert!(0 < others && others < own, "{others} of {own}");
    let private = "You are Ann's own gardener, and what she has told you about her garden is hers alone to know.";
    cached(&server, "ann", private, question).await;
    assert_eq!(cached(&server, "bob", private, question).await, 0);

    server.terminate();
    let said = server.ended().await;
    let warning = "an entry of public_prefixes fills no block";
    let warnings = said.stderr.lines().filter(|line| line.contains(warning));
    assert_eq!(warnings.count(), 1, "{}", said.stderr);
    assert!(!said.stderr.contains("gardener"), "{}", said.stderr);
}

#[tokio::test]
async fn whom_the_policy_keeps_from_public_prefixes_shares_nothing() {
    let policy = "[[rules]]\nname = \"bob\"\nwhen = { subject = \"bob\" }\npublic_prefixes = false\n\
                  [[rules]]\nname = \"others\"\n";
    let file = format!("public_prefixes = [{SYSTEM:?}]\n");
    let server = Mixgate::serve_under(policy, &file);
    let question = "When do I sow carrots in a cold climate, and how deep, and how far apart do I put the rows?";
    assert_eq!(cached(&server, "ann", SYSTEM, question).await, 0);
    assert!(cached(&server, "eve", SYSTEM, question).await > 0);
    assert_eq!(cached(&server, "bob", SYSTEM, question).await, 0);
    assert!(
        cached(&server, "bob", SYSTEM, question).await > 0,
        "his own are his"
    );
}

#[tokio::test]
async fn a_rule_s_limit_of_time_ends_a_request() {
    let policy =
        "[[rules]]\nname = \"you\"\nwhen = { subject = \"you\" }\nmax_request_seconds = 1\n";
    let server = Mixgate::serve_under(policy, "");
    let endless = json!({"ignore_eos": true, "n": 16});
    let refused = refusal(server.chat(&endless).await).await;
    assert_eq!(refused, (504, "deadline_exceeded".to_owned(), None));
    server.idle().await;
}

#[test]
fn a_policy_that_is_wrong_is_found_before_anything_starts() {
    let home = Home::new();
    home.write("mixgate.toml", "policy_file = \"policy.toml\"\n");
    home.write("policy.toml", "[[rules]]\nname = \"a\"\nwieght = 2\n");
    let state_dir = home.state_dir();
    let flag = ["--state-dir", state_dir.to_str().unwrap()];
    for command in [&["config", "check"][..], &["policy", "check"], &["serve"]] {
        let said = home.run(&[command, &flag].concat());
        assert_eq!(said.code, Some(1), "{said:?}");
        let fault = "policy.toml:3: unknown key `wieght`\n  hint: did you mean `weight`?\n";
        assert_eq!(said.stderr, format!("error: {fault}"));
    }
}
