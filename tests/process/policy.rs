//! The policy's commands, and its reload in a running server.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use super::common::refusal;
use super::harness::{Home, Mixgate, Said};

const TEN: &str = "[[rules]]\nname = \"all\"\nmax_tokens = 10\n";
const TWENTY: &str = "[[rules]]\nname = \"all\"\nmax_tokens = 20\n";
const WRONG: &str = "[[rules]]\nname = \"all\"\nmax_tokens = 0\n";

/// Status of a chat that asks for this many tokens.
async fn asking(server: &Mixgate, max_tokens: u32) -> u16 {
    let response = server.chat(&json!({"max_tokens": max_tokens})).await;
    response.status().as_u16()
}

#[tokio::test]
async fn a_policy_is_in_force_as_soon_as_its_file_changes_and_a_wrong_one_never() {
    let server = Mixgate::serve_under(TEN, "");
    server.tells("mixgate_policy_generation 1").await;
    let refused = refusal(server.chat(&json!({"max_tokens": 11})).await).await;
    let not_allowed = (
        400,
        "parameter_not_allowed".to_owned(),
        Some("max_tokens".to_owned()),
    );
    assert_eq!(refused, not_allowed);
    assert_eq!(asking(&server, 10).await, 200);

    server.home.write("policy.toml", TWENTY);
    server.tells("mixgate_policy_generation 2").await;
    assert_eq!(asking(&server, 20).await, 200);

    server.home.write("policy.toml", WRONG);
    server.tells("mixgate_policy_last_reload_success 0").await;
    server
        .tells("mixgate_policy_reloads_total{outcome=\"refused\"} 1")
        .await;
    assert_eq!(asking(&server, 20).await, 200, "the old one stays");
    assert_eq!(asking(&server, 21).await, 400, "the old one stays");

    server.home.write("policy.toml", TEN);
    server.tells("mixgate_policy_last_reload_success 1").await;
    server.tells("mixgate_policy_generation 3").await;
    assert_eq!(asking(&server, 11).await, 400);

    server.terminate();
    let said = server.ended().await;
    let line = said.stderr.lines().find(|line| line.contains("stays"));
    let line = line.unwrap_or_else(|| panic!("{}", said.stderr));
    assert!(
        line.contains("policy.toml:3: `max_tokens` is 0, it must be 1 to 4294967295"),
        "{line}"
    );
    assert!(said.stderr.contains("a new policy is in force"));
    let is_of_rule =
        |line: &&str| line.contains("mixgate::audit") && line.contains(r#""rule":"all""#);
    assert!(said.stderr.lines().any(|line| is_of_rule(&line)));
}

#[tokio::test]
async fn sighup_reads_the_policy_anew_and_ends_nothing() {
    let server = Mixgate::serve_under(TEN, "");
    server.signal("HUP");
    server
        .tells("mixgate_policy_reloads_total{outcome=\"unchanged\"} 1")
        .await;
    server.tells("mixgate_policy_generation 1").await;
    assert_eq!(asking(&server, 10).await, 200);
}

#[tokio::test]
async fn sighup_without_a_policy_is_no_end() {
    let server = Mixgate::serve(&[]);
    server.signal("HUP");
    assert_eq!(asking(&server, 1).await, 200);
    server.terminate();
    let said = server.ended().await;
    assert_eq!(said.code, Some(0));
    assert!(
        said.stderr.contains("there is no policy file to read anew"),
        "{}",
        said.stderr
    );
}

#[tokio::test]
async fn a_running_stream_keeps_the_rights_that_it_came_with() {
    let server = Mixgate::serve_under(TWENTY, "");
    let fields = json!({"stream": true, "max_tokens": 20, "ignore_eos": true});
    let stream = server.chat(&fields).await;
    server.home.write("policy.toml", TEN);
    server.tells("mixgate_policy_generation 2").await;
    let text = stream.text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(asking(&server, 20).await, 400);
}

fn home_under(policy: &str) -> Home {
    let home = Home::new();
    home.write("mixgate.toml", "policy_file = \"policy.toml\"\n");
    home.write("policy.toml", policy);
    home
}

fn run(home: &Home, words: &[&str]) -> Said {
    let state_dir = home.state_dir();
    home.run(&[words, &["--state-dir", state_dir.to_str().unwrap()]].concat())
}

#[test]
fn check_sums_up_a_good_policy_and_lists_every_fault_of_a_bad_one() {
    let home = home_under(&format!("[addresses]\ndeny = [\"10.0.0.1\"]\n{TEN}"));
    let said = run(&home, &["policy", "check"]);
    assert_eq!(
        (said.code, &*said.stdout),
        (
            Some(0),
            "ok (policy.toml)\n1 rules: all\naddresses: all but 1 networks\n"
        )
    );
    home.write(
        "other.toml",
        "[[rules]]\nweight = 0\ntools = 1\nmodel = []\n",
    );
    let said = run(&home, &["policy", "check", "other.toml"]);
    assert_eq!(said.code, Some(1));
    assert_eq!(
        said.stderr,
        "error: the policy has 3 faults\n\
         other.toml:2: `weight` is 0, it must be 1 to 1000\n\
         other.toml:3: `tools`: invalid type: integer `1`, expected a boolean\n\
         other.toml:4: unknown key `model`\n  hint: did you mean `models`?\n"
    );
    let none = Home::new();
    let said = run(&none, &["policy", "check"]);
    assert_eq!(said.code, Some(2));
    assert_eq!(
        said.stderr,
        "error: no policy is configured\n\
         hint: name one: mixgate policy check FILE, or policy_file in mixgate.toml\n"
    );
}

#[test]
fn explain_answers_for_a_token_from_stdin_without_showing_it() {
    let home = home_under(TEN);
    let token = home.token("chat models");
    let state_dir = home.state_dir();
    let words = ["policy", "explain", "--token", "-", "--max-tokens", "11"];
    let words = [&words[..], &["--state-dir", state_dir.to_str().unwrap()]].concat();
    let mut child = home
        .mixgate(&words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{token}").unwrap();
    let said = Said::from(child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.starts_with("caller\n  subject you of "));
    assert!(
        said.stdout.contains(
            "refused: 400 parameter_not_allowed: 'max_tokens' may be at most 10 for you."
        ),
        "{}",
        said.stdout
    );
    assert_eq!(
        said.stderr,
        "error: the request would be refused (400 parameter_not_allowed)\n"
    );
    assert!(!said.stdout.contains(&token));
}

#[test]
fn explain_answers_for_claims_that_nobody_has_signed() {
    let gold = "[[rules]]\nname = \"gold\"\nwhen = { claims = { plan = \"gold\" } }\nmodels = [\"seedling\"]\n";
    let home = home_under(gold);
    home.write(
        "gold.json",
        r#"{"sub": "ann", "scope": "chat", "plan": "gold"}"#,
    );
    home.write("none.json", r#"{"scope": "chat"}"#);
    let explain = |file: &str, more: &[&str]| {
        run(
            &home,
            &[&["policy", "explain", "--claims", file], more].concat(),
        )
    };
    let said = explain("gold.json", &["--model", "seedling", "--route", "chat"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("subject ann of mixgate"), "{said:?}");
    assert!(said.stdout.ends_with("verdict\n  allowed\n"), "{said:?}");
    let said = explain("gold.json", &["--route", "models"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("403 insufficient_scope"), "{said:?}");
    let said = explain("none.json", &[]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stdout
            .contains("gold  does not match: it wants claim plan gold"),
        "{said:?}"
    );
    assert!(said.stderr.contains("403 access_denied"), "{said:?}");
    let said = explain("gold.json", &["--route", "chatt"]);
    assert_eq!(said.code, Some(2));
    assert_eq!(
        said.stderr,
        "error: there is no route \"chatt\"\nhint: `mixgate routes` lists them\n"
    );
}
