use std::time::Duration;

use tokio::time::timeout;

use super::kit::{NOON, Shelf};
use crate::ledger::{ApiKeyRecord, BudgetRecord, Ledger, RevocationRecord, RevokedName};

fn revocation(what: RevokedName) -> RevocationRecord {
    RevocationRecord {
        what,
        issuer: "https://login.example/".to_owned(),
        at: NOON,
        until: Some(NOON + 60),
    }
}

fn key(id: &str) -> ApiKeyRecord {
    ApiKeyRecord {
        id: id.to_owned(),
        hash: [7; 32],
        subject: "ann".to_owned(),
        tenant: Some("acme".to_owned()),
        scopes: "chat models".to_owned(),
        note: Some("for the notebook".to_owned()),
        created: NOON,
        expires: Some(NOON + 1),
        revoked: None,
        last_used: None,
    }
}

fn budget(key: u8, period: &str, tokens: u64) -> BudgetRecord {
    BudgetRecord {
        key: [key; 32],
        period: period.to_owned(),
        tokens,
    }
}

/// Whether [`Ledger::changed`] completes without waiting for anything.
async fn has_changed(ledger: &Ledger) -> bool {
    timeout(Duration::ZERO, ledger.changed()).await.is_ok()
}

#[test]
fn revocations_of_every_kind_come_back_as_they_were_until_they_mean_nothing() {
    let shelf = Shelf::new();
    let ledger = shelf.open();
    let name = || "x".to_owned();
    let mut all: Vec<_> = [
        RevokedName::Token(name()),
        RevokedName::Subject(name()),
        RevokedName::Client(name()),
        RevokedName::Key(name()),
        RevokedName::Issuer,
    ]
    .map(revocation)
    .into();
    all[4].until = None;
    all.iter().for_each(|record| ledger.revoke(record).unwrap());
    drop(ledger);
    let ledger = shelf.open();
    assert_eq!(ledger.revocations(NOON + 59).unwrap(), all);
    assert_eq!(ledger.revocations(NOON + 60).unwrap(), all[4..]);
}

#[test]
fn a_revocation_is_taken_back_by_name_kind_and_issuer() {
    let ledger = Ledger::in_memory();
    let (token, subject) = (
        RevokedName::Token("x".to_owned()),
        RevokedName::Subject("x".to_owned()),
    );
    for what in [&token, &token, &subject] {
        ledger.revoke(&revocation(what.clone())).unwrap();
    }
    let issuer = "https://login.example/";
    assert_eq!(ledger.unrevoke(&token, "another").unwrap(), 0);
    assert_eq!(ledger.unrevoke(&token, issuer).unwrap(), 2);
    assert_eq!(ledger.revocations(NOON).unwrap(), [revocation(subject)]);
}

#[test]
fn an_api_key_is_replaced_by_its_id_and_touched_without_a_word_of_change() {
    let shelf = Shelf::new();
    let ledger = shelf.open();
    ledger.put_api_key(&key("a")).unwrap();
    ledger.put_api_key(&key("b")).unwrap();
    let revoked = ApiKeyRecord {
        revoked: Some(NOON + 2),
        expires: None,
        note: None,
        ..key("a")
    };
    ledger.put_api_key(&revoked).unwrap();
    ledger.touch_api_key("b", "2026-11-24");
    ledger.touch_api_key("unknown", "2026-11-24");
    ledger.flush();
    let used = ApiKeyRecord {
        last_used: Some("2026-11-24".to_owned()),
        ..key("b")
    };
    assert_eq!(ledger.api_keys().unwrap(), [revoked, used]);
}

#[test]
fn budgets_come_back_by_period_each_with_its_last_count() {
    let shelf = Shelf::new();
    let ledger = shelf.open();
    ledger.put_budgets(vec![
        budget(1, "2026-11-24", 10),
        budget(2, "2026-11-24", 20),
    ]);
    ledger.put_budgets(vec![budget(1, "2026-11-24", 15), budget(1, "2026-11", 99)]);
    drop(ledger);
    let ledger = shelf.open();
    let read = |periods: &[&str]| ledger.budgets(periods).unwrap();
    assert_eq!(
        read(&["2026-11-24"]),
        [budget(1, "2026-11-24", 15), budget(2, "2026-11-24", 20)]
    );
    assert_eq!(read(&["2026-11", "2026-12"]), [budget(1, "2026-11", 99)]);
    assert_eq!(read(&[]), []);
}

#[test]
fn a_source_of_budgets_is_asked_at_each_flush() {
    let ledger = Ledger::in_memory();
    let mut tokens = 0;
    ledger.budgets_from(move || {
        tokens += 1;
        vec![budget(1, "2026-11", tokens)]
    });
    ledger.flush();
    let first = ledger.budgets(&["2026-11"]).unwrap()[0].tokens;
    ledger.flush();
    assert!(ledger.budgets(&["2026-11"]).unwrap()[0].tokens > first);
}

#[tokio::test]
async fn a_change_is_told_once_to_each_clone_and_keeps_for_who_asks_later() {
    let ledger = Ledger::in_memory();
    let clone = ledger.clone();
    assert!(!has_changed(&ledger).await);
    ledger.put_api_key(&key("a")).unwrap();
    assert!(has_changed(&ledger).await && has_changed(&clone).await);
    assert!(!has_changed(&ledger).await && !has_changed(&clone).await);
    ledger.touch_api_key("a", "2026-11-24");
    ledger.put_budgets(vec![budget(1, "2026-11", 1)]);
    ledger.flush();
    assert!(!has_changed(&ledger).await, "no right has changed");
    ledger.unrevoke(&RevokedName::Issuer, "x").unwrap();
    assert!(has_changed(&ledger).await);
}

#[tokio::test]
async fn another_process_s_revocation_is_heard_of() {
    let shelf = Shelf::new();
    let (ours, theirs) = (shelf.open(), shelf.open());
    theirs.put_budgets(vec![budget(1, "2026-11", 1)]);
    theirs.flush();
    let record = revocation(RevokedName::Subject("ann".to_owned()));
    theirs.revoke(&record).unwrap();
    timeout(Duration::from_secs(10), ours.changed())
        .await
        .expect("a change by another connection is seen");
    assert_eq!(ours.revocations(NOON).unwrap(), [record]);
    assert!(!has_changed(&ours).await);
}

/// Two who change a key both read it first: a rotation that has read it before must not undo a revocation.
#[test]
fn a_key_once_revoked_stays_revoked_whoever_writes_an_earlier_reading_of_it() {
    let ledger = Ledger::in_memory();
    let earlier = key("abcdefgh");
    ledger.put_api_key(&earlier).unwrap();
    let revoked = ApiKeyRecord {
        revoked: Some(NOON + 5),
        ..earlier.clone()
    };
    ledger.put_api_key(&revoked).unwrap();
    let rotated = ApiKeyRecord {
        expires: Some(NOON + 9),
        ..earlier
    };
    ledger.put_api_key(&rotated).unwrap();
    let expected = ApiKeyRecord {
        expires: Some(NOON + 9),
        ..revoked
    };
    assert_eq!(ledger.api_keys().unwrap(), [expected]);
}
