use super::kit::{NOON, closed, end, request};
use crate::ledger::{Dimension, Ledger, RequestRecord, UsageQuery, UsageRow};

const DAY: u64 = 86_400;
/// The start of the day of [`NOON`].
const MIDNIGHT: u64 = NOON - DAY / 2;

/// Seconds after noon, subject, tenant, model; 10 prompt tokens, 4 cached, and completions 1, 2, 4 …
fn ledger() -> Ledger {
    let ledger = Ledger::in_memory();
    let rows = [
        (0, "ann", Some("acme"), "small"),
        (1, "bob", Some("acme"), "large"),
        (DAY, "ann", Some("acme"), "large"),
        (DAY + 1, "eve", None, "small"),
    ];
    for (at, (after, subject, tenant, model)) in rows.into_iter().enumerate() {
        let record = RequestRecord {
            subject: subject.to_owned(),
            tenant: tenant.map(str::to_owned),
            model: model.to_owned(),
            started_ms: (NOON + after) * 1000,
            ..request("x")
        };
        let open = ledger.begin(record, closed(10, 4, 1 << at));
        open.ended(end("stop", 200));
    }
    ledger.flush();
    ledger
}

fn all() -> UsageQuery {
    UsageQuery {
        until: u64::MAX,
        ..UsageQuery::default()
    }
}

/// `bucket values: requests completion`
fn asked(query: &UsageQuery) -> Vec<String> {
    let line = |row: UsageRow| {
        assert_eq!(
            (row.prompt, row.cached),
            (row.requests * 10, row.requests * 4)
        );
        let bucket = row.bucket.map_or(String::new(), |at| format!("{at} "));
        let values: Vec<_> = row
            .values
            .iter()
            .map(|value| value.as_deref().unwrap_or("-"))
            .collect();
        let (requests, completion) = (row.requests, row.completion);
        format!("{bucket}{}: {requests} {completion}", values.join(","))
    };
    ledger()
        .usage(query)
        .unwrap()
        .into_iter()
        .map(line)
        .collect()
}

#[test]
fn without_groups_all_is_one_row() {
    assert_eq!(asked(&all()), [": 4 15"]);
}

#[test]
fn each_dimension_tells_its_values_apart() {
    let by = |dimension| {
        asked(&UsageQuery {
            by: vec![dimension],
            ..all()
        })
    };
    assert_eq!(by(Dimension::Subject), ["ann: 2 5", "bob: 1 2", "eve: 1 8"]);
    assert_eq!(by(Dimension::Tenant), ["-: 1 8", "acme: 3 7"]);
    assert_eq!(by(Dimension::Model), ["large: 2 6", "small: 2 9"]);
    assert_eq!(by(Dimension::Client), ["-: 4 15"]);
    assert_eq!(by(Dimension::ApiKey), ["-: 4 15"]);
}

#[test]
fn the_start_counts_and_the_end_does_not() {
    let between = |from, until| {
        asked(&UsageQuery {
            from,
            until,
            ..UsageQuery::default()
        })
    };
    assert_eq!(between(NOON, NOON + 1), [": 1 1"]);
    assert_eq!(between(NOON + 1, NOON + DAY + 1), [": 2 6"]);
    assert_eq!(between(NOON + DAY + 2, u64::MAX), Vec::<String>::new());
    assert_eq!(between(NOON + 5, NOON), Vec::<String>::new());
}

#[test]
fn buckets_start_at_multiples_of_their_width() {
    let query = UsageQuery {
        bucket: Some(DAY),
        by: vec![Dimension::Model, Dimension::Subject],
        ..all()
    };
    let (first, second) = (MIDNIGHT, MIDNIGHT + DAY);
    let wanted = [
        format!("{first} large,bob: 1 2"),
        format!("{first} small,ann: 1 1"),
        format!("{second} large,ann: 1 4"),
        format!("{second} small,eve: 1 8"),
    ];
    assert_eq!(asked(&query), wanted);
    let two = UsageQuery {
        most: Some(2),
        ..query
    };
    assert_eq!(asked(&two), wanted[..2]);
}

#[test]
fn filters_are_values_and_never_sql() {
    let only = |dimension, values: &[&str]| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        asked(&UsageQuery {
            only: vec![(dimension, values)],
            ..all()
        })
    };
    assert_eq!(only(Dimension::Subject, &["ann", "eve"]), [": 3 13"]);
    assert_eq!(only(Dimension::Model, &["large", "none"]), [": 2 6"]);
    let none = Vec::<String>::new();
    assert_eq!(only(Dimension::Subject, &["') OR 1=1 --"]), none);
    assert_eq!(only(Dimension::Subject, &[]), none);
}

#[test]
fn a_subject_of_another_issuer_is_somebody_else() {
    let ledger = ledger();
    let theirs = RequestRecord {
        issuer: "https://other.example/".to_owned(),
        ..request("x")
    };
    drop(ledger.begin(theirs, closed(1, 0, 1000)));
    ledger.flush();
    let completions = |query: &UsageQuery| -> Vec<u64> {
        let rows = ledger.usage(query).unwrap();
        rows.iter().map(|row| row.completion).collect()
    };
    let whose = Some(("https://other.example/".to_owned(), "ann".to_owned()));
    assert_eq!(completions(&UsageQuery { whose, ..all() }), [1000]);
    let by = vec![Dimension::Subject];
    assert_eq!(completions(&UsageQuery { by, ..all() }), [5, 1000, 2, 8]);
}
