//! What is left of usage when a server ends well, or is killed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mixgate::clock::Clock;
use mixgate::ledger::Ledger;
use rusqlite::Connection;
use rusqlite::types::FromSql;
use serde_json::{Value, json};

use super::common::within;
use super::harness::{Home, Mixgate};

const MODEL: &str = "null:mixtral-8x7b@h200-w4a16";
const NAME: &str = "mixtral-8x7b@h200-w4a16";

fn file(home: &Home) -> PathBuf {
    home.state_dir().join("ledger.sqlite3")
}

fn ask<T: FromSql>(home: &Home, sql: &str) -> T {
    let connection = Connection::open(file(home)).unwrap();
    connection.query_one(sql, [], |row| row.get(0)).unwrap()
}

/// The one line of `mixgate usage --format json …`, of a server that runs or not.
fn usage(home: &Home, more: &[&str]) -> Vec<Value> {
    let state_dir = home.state_dir();
    let words = ["usage", "--format=json", "--state-dir"];
    let said = home.run(&[&words[..], &[state_dir.to_str().unwrap()], more].concat());
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    serde_json::from_str(&said.stdout).unwrap()
}

#[tokio::test]
async fn sigkill_costs_at_most_a_second_of_usage_and_breaks_nothing() {
    let mut server = Mixgate::serve(&["--model", MODEL]);
    let fields =
        json!({"model": NAME, "stream": true, "ignore_eos": true, "max_tokens": 30_000, "n": 2});
    let mut response = server.chat(&fields).await;
    // Each token is a chunk of its own; when each came.
    let mut came = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        let bytes = within(response.chunk()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let tokens =
            text.matches("\"content\":\"").count() - text.matches("\"content\":\"\"").count();
        came.extend(std::iter::repeat_n(Instant::now(), tokens));
    }
    server.kill();
    let killed = Instant::now();

    let home = &server.home;
    assert_eq!(ask::<String>(home, "PRAGMA integrity_check"), "ok");
    assert_eq!(
        ask::<String>(home, "SELECT reason FROM requests"),
        "running"
    );
    let written: i64 = ask(home, "SELECT completion FROM requests");
    let a_second_ago = killed - Duration::from_secs(1);
    let owed = came.iter().filter(|at| **at < a_second_ago).count() as i64;
    let all = came.len();
    println!("{all} tokens came, {written} are written, {owed} had to be");
    assert!(owed > 100 && written >= owed, "{written} of {owed}");
    assert_eq!(usage(home, &[])[0]["completion_tokens"], written);

    drop(Ledger::open(&file(home), Clock::system()).unwrap());
    let rows = "SELECT count(*) FROM requests WHERE reason = 'interrupted' AND prompt > 0";
    assert_eq!(ask::<i64>(home, rows), 1);
    assert_eq!(usage(home, &[])[0]["completion_tokens"], written);
}

#[tokio::test]
async fn a_running_server_s_usage_is_printed_and_its_last_row_outlives_it() {
    let home = Home::new();
    let path = home.path().join("usage.db");
    let place = ["--ledger", path.to_str().unwrap()];
    let server = Mixgate::serve(&[&["--model", MODEL][..], &place].concat());
    let fields = json!({"model": NAME, "max_tokens": 20, "ignore_eos": true});
    let answer: Value = within(server.chat(&fields).await.json()).await.unwrap();
    let told = &answer["usage"];
    let printed = |more: &[&str]| usage(&home, &[&place, more].concat());
    // Written within a second; this waits for no longer than that takes.
    within(async {
        while printed(&[]).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let answer = within(server.chat(&fields).await.text()).await.unwrap();
    assert!(answer.contains("usage"), "{answer}");
    server.terminate();
    assert_eq!(server.ended().await.code, Some(0));
    for by in ["tenant", "subject", "client", "model", "day"] {
        let lines = printed(&["--by", by]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["requests"], 2);
        for name in ["completion_tokens", "prompt_tokens"] {
            let each = told[name].as_u64().unwrap();
            assert_eq!(lines[0][name], 2 * each, "{name}");
        }
    }
    assert_eq!(printed(&["--subject", "you"])[0]["subject"], "you");
    assert!(printed(&["--subject", "me"]).is_empty());
    let connection = Connection::open(&path).unwrap();
    let open = "SELECT count(*) FROM requests WHERE reason <> 'length'";
    let open: i64 = connection.query_one(open, [], |row| row.get(0)).unwrap();
    assert_eq!(open, 0);
}

#[test]
fn a_ledger_that_is_not_there_or_off_is_one_error_with_a_hint() {
    let home = Home::new();
    let said = home.run(&["usage", "--ledger", "none.db"]);
    assert_eq!((said.code, &*said.stdout), (Some(1), ""));
    assert_eq!(
        said.stderr,
        "error: there is no ledger at none.db\n\
         hint: `mixgate serve` makes it; name the server's with --state-dir or --ledger\n"
    );
    let said = home.run(&["usage", "--ledger=off"]);
    assert_eq!(
        said.stderr,
        "error: the ledger is off: usage ends with the server\n\
         hint: name a file with --ledger, for the server too\n"
    );
    let said = home.run(&["usage", "--since", "yesterday"]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
}
