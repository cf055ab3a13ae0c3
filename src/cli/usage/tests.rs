use super::table::{Line, csv, json, table};
use super::*;

fn lines() -> Vec<Line> {
    vec![
        Line {
            names: vec![Some("acme, \"inc\"".to_owned()), Some("x".to_owned())],
            numbers: [2, 1000, 64, 30, 1030],
        },
        Line {
            names: vec![None, Some("x".to_owned())],
            numbers: [1, 7, 0, 3, 10],
        },
    ]
}

#[test]
fn a_table_has_aligned_columns_and_a_sum() {
    assert_eq!(
        table(&["tenant", "issuer"], &lines()),
        "tenant       issuer  requests  prompt  cached  completion  total\n\
         acme, \"inc\"  x              2    1000      64          30   1030\n\
         -            x              1       7       0           3     10\n\
         total                       3    1007      64          33   1040\n"
    );
    assert_eq!(table(&["day"], &[]), "no requests in this time\n");
}

#[test]
fn csv_quotes_what_needs_it_and_leaves_absent_names_empty() {
    assert_eq!(
        csv(&["tenant", "issuer"], &lines()),
        "tenant,issuer,requests,prompt_tokens,cached_tokens,completion_tokens,total_tokens\n\
         \"acme, \"\"inc\"\"\",x,2,1000,64,30,1030\n,x,1,7,0,3,10\n"
    );
}

#[test]
fn json_is_an_array_with_null_for_absent_names() {
    let text = json(&["tenant", "issuer"], &lines());
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        value[1],
        serde_json::json!({
            "tenant": null, "issuer": "x", "requests": 1, "prompt_tokens": 7, "cached_tokens": 0,
            "completion_tokens": 3, "total_tokens": 10
        })
    );
    assert_eq!(json(&["day"], &[]), "[]\n");
}

fn typed(since: &str, until: Option<&str>) -> Usage {
    Usage {
        by: By::Day,
        since: since.to_owned(),
        until: until.map(str::to_owned),
        subject: None,
        format: Format::Table,
    }
}

#[test]
fn times_are_ages_or_utc_days() {
    // 2026-11-24, noon.
    let (clock, _) = Clock::manual(1_795_521_600);
    let between = |since, until| {
        let query = query(&typed(since, until), &clock).unwrap();
        (day(query.from), query.until - query.from)
    };
    assert_eq!(between("1d", None), ("2026-11-23".to_owned(), 86_401));
    let month = between("2024-02-01", Some("2024-03-01"));
    assert_eq!(month, ("2024-02-01".to_owned(), 29 * 86_400));
    assert_eq!(between("2d", Some("12h")).1, 36 * 3600);
}

#[test]
fn a_time_that_is_none_is_named() {
    let (clock, _) = Clock::manual(1_795_521_600);
    let said = |since, until| query(&typed(since, until), &clock).unwrap_err().to_string();
    for bad in [
        "",
        "7",
        "yesterday",
        "2026-02-30",
        "2026-1-1",
        "2026-01-01-01",
    ] {
        assert_eq!(
            said(bad, None),
            format!(
                "error: --since is {bad:?}, wanted a time such as 7d or 12h, or a day such as 2026-11-01"
            )
        );
    }
    assert_eq!(
        said("1d", Some("2d")),
        "error: --until is not later than --since"
    );
}
