//! Decisions in words.

use serde_json::json;

use super::super::{EXAMPLE, Question, reference, schema};
use super::*;
use crate::auth::Access;

const TEXT: &str = r#"
[[rules]]
name = "gone"
when = { subject = ["eve", "mallory*"] }
deny = true

[[rules]]
name = "acme"
when = { tenant = "acme", addresses = "10.0.0.0/8" }
max_tokens = 4096
limits = [{ tokens_per_minute = { claim = "tpm", at_most = 60, otherwise = 10 }, tokens_per_day = "unlimited" }]

[[rules]]
name = "all"
models = ["seedling"]
limits = [{ tokens_per_day = 9, requests_per_minute = 5 }]
"#;

fn question() -> Question {
    Question {
        address: here(),
        model: None,
        route: None,
        max_tokens: None,
    }
}

#[test]
fn an_explanation_says_which_rule_gave_what() {
    let ann = identity(json!({"tenant": "acme", "tpm": 90}));
    let explanation = policy(TEXT).explain(&ann, &question());
    assert!(explanation.refusal().is_none());
    let expected = "\
caller
  subject ann of https://idp.example/, tenant acme, no client, scopes chat models, by token, from 10.1.2.3
rules
  gone  does not match: it wants subject eve or mallory*
  acme  matches
  all   matches
rights
  models               seedling   by all
  routes               all        by default
  scopes               all        by default
  max_tokens           4096       by acme
  max_context          unlimited  by default
  max_n                unlimited  by default
  max_request_seconds  unlimited  by default
  tools                true       by default
  public_prefixes      true       by default
  denied_fields        none       by default
  priority             normal     by default
  weight               1          by default
  response_headers     none       by default
  on_expiry            finish     by default
  when_short           clamp      by default
limits
  tokens_per_minute per subject    60 (claim tpm, at most 60, otherwise 10)  by acme
  tokens_per_day per subject       unlimited                                 by acme
  requests_per_minute per subject  5                                         by all
verdict
  allowed
";
    assert_eq!(explanation.text(), expected);
}

#[test]
fn an_explanation_says_what_refused() {
    let verdict = |claims, question: &Question| {
        let explanation = policy(TEXT).explain(&identity(claims), question);
        assert!(explanation.refusal().is_some());
        let text = explanation.text();
        text[text.find("verdict").unwrap()..].to_owned()
    };
    assert_eq!(
        verdict(json!({"sub": "mallory2"}), &question()),
        "verdict\n  refused: 403 access_denied: This server's policy does not let you in.\n  \
         because the policy's rule `gone` refuses the caller\n"
    );
    let model = Question {
        model: Some("mixtral".to_owned()),
        ..question()
    };
    assert_eq!(
        verdict(anybody(), &model),
        "verdict\n  refused: 403 model_not_allowed: You may not use this model.\n  \
         because the model is `mixtral`, allowed is `seedling`\n"
    );
    let long = Question {
        max_tokens: Some(5000),
        ..question()
    };
    assert_eq!(
        verdict(json!({"tenant": "acme"}), &long),
        "verdict\n  refused: 400 parameter_not_allowed: 'max_tokens' may be at most 4096 for you.\n  \
         because `max_tokens` is 5000\n"
    );
    let route = Question {
        route: Some(("metrics".to_owned(), Access::Scope("metrics"))),
        ..question()
    };
    assert!(verdict(anybody(), &route).contains("403 insufficient_scope"));
}

#[test]
fn without_a_file_the_explanation_says_so() {
    let explanation = Policy::default().explain(&identity(anybody()), &question());
    assert!(explanation.text().contains("\n  there is no policy file: "));
    assert!(explanation.refusal().is_none());
}

#[test]
fn the_example_of_the_documentation_is_a_good_policy() {
    let vocabulary = Vocabulary {
        fields: vec!["logit_bias".to_owned(), "seed".to_owned()],
        ..vocabulary()
    };
    let policy = Policy::parse(EXAMPLE, &vocabulary).unwrap();
    let names: Vec<&str> = policy.rule_names().collect();
    assert_eq!(
        names,
        [
            "left the company",
            "batch jobs",
            "gardeners",
            "visitors from the lab",
            "everybody"
        ]
    );
}

#[test]
fn the_schema_and_the_page_name_every_key() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    let page = reference();
    let text = schema.to_string();
    assert!(!text.contains("\"null\""), "TOML has no null");
    for key in [
        "addresses",
        "allow",
        "rules",
        "name",
        "when",
        "issuer",
        "claims",
        "deny",
        "models",
        "routes",
        "scopes",
        "max_tokens",
        "on_expiry",
        "limits",
        "per",
        "tokens_per_month",
        "at_most",
        "otherwise",
    ] {
        assert!(text.contains(&format!("\"{key}\":")), "{key}");
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
    }
    assert!(!page.contains("| any |  "), "{page}");
}
