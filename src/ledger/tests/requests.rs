use std::sync::Arc;
use std::time::Duration;

use super::kit::{NOON, Shelf, closed, end, request};
use crate::ledger::{Ledger, LedgerError, RevokedName, Sheet, UsageQuery};

#[test]
fn a_finished_request_is_one_row_with_its_end() {
    let shelf = Shelf::new();
    let ledger = shelf.open();
    let open = ledger.begin(request("a"), closed(40, 16, 7));
    open.ended(end("stop", 200));
    ledger.flush();
    assert_eq!(shelf.rows(), ["a stop 200 40/16/7 80"]);
    assert_eq!(ledger.stats().queued, 0);
    assert_eq!(ledger.stats().rows_written, 1);
}

#[test]
fn an_open_request_is_written_whenever_it_has_grown_and_only_then() {
    let shelf = Shelf::new();
    let ledger = shelf.open();
    let sheet = Arc::<Sheet>::default();
    let open = ledger.begin(request("a"), sheet.clone());
    ledger.flush();
    assert_eq!(shelf.rows(), ["a running - 0/0/0 -"]);
    sheet.completion(3);
    ledger.flush();
    assert_eq!(shelf.rows(), ["a running - 40/0/3 -"]);
    ledger.flush();
    assert_eq!(ledger.stats().rows_written, 2);

    sheet.completion(1);
    open.ended(end("length", 200));
    ledger.flush();
    // What the client has seen is no end while the engine may still count.
    assert_eq!(shelf.rows(), ["a running - 40/0/4 -"]);
    sheet.settle(40, 32, 4);
    sheet.close();
    ledger.flush();
    assert_eq!(shelf.rows(), ["a length 200 40/32/4 80"]);
    assert_eq!(ledger.stats().queued, 0);
}

#[test]
fn a_request_that_is_dropped_without_a_word_has_lost_its_client() {
    let shelf = Shelf::new();
    let ledger = shelf.open();
    let open = ledger.begin(request("a"), closed(40, 0, 2));
    shelf.hand.advance(Duration::from_millis(1500));
    drop(open);
    ledger.flush();
    assert_eq!(shelf.rows(), ["a client_gone 499 40/0/2 1500"]);
}

#[test]
fn an_id_that_comes_twice_makes_two_rows() {
    let shelf = Shelf::new();
    let ledger = shelf.open();
    for completion in [1, 2] {
        let open = ledger.begin(request("same"), closed(40, 0, completion));
        open.ended(end("stop", 200));
    }
    ledger.flush();
    let rows = ["same stop 200 40/0/1 80", "same stop 200 40/0/2 80"];
    assert_eq!(shelf.rows(), rows);
}

#[test]
fn what_was_running_when_its_process_ended_is_interrupted_at_the_next_open() {
    let shelf = Shelf::new();
    let ledger = shelf.open();
    let sheet = Arc::<Sheet>::default();
    sheet.completion(9);
    let open = ledger.begin(request("a"), sheet);
    let done = ledger.begin(request("b"), closed(40, 0, 1));
    done.ended(end("stop", 200));
    ledger.flush();
    let live = shelf.open();
    assert_eq!(
        shelf.rows()[0],
        "a running - 40/0/9 -",
        "its process is there"
    );
    drop((live, ledger));
    let _next = shelf.open();
    let rows = ["a interrupted - 40/0/9 -", "b stop 200 40/0/1 80"];
    assert_eq!(shelf.rows(), rows);
    drop(open);
}

#[test]
fn the_last_clone_writes_what_is_left() {
    let shelf = Shelf::new();
    let ledger = shelf.open();
    let clone = ledger.clone();
    drop(ledger);
    clone
        .begin(request("a"), closed(40, 0, 1))
        .ended(end("stop", 200));
    drop(clone);
    assert_eq!(shelf.rows(), ["a stop 200 40/0/1 80"]);
}

#[test]
fn a_full_disk_loses_nothing_and_is_said_once_it_has_room_all_is_written() {
    let shelf = Shelf::new();
    let ledger = shelf.open();
    let full = |ledger: &Ledger, pages: i64| {
        ledger
            .ask(move |writer| {
                let connection = writer.connection();
                connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            })
            .unwrap()
            .unwrap();
    };
    full(&ledger, 1);
    for id in 0..500 {
        let open = ledger.begin(request(&format!("r{id}")), closed(40, 0, 1));
        open.ended(end("stop", 200));
    }
    ledger.flush();
    let stats = ledger.stats();
    assert!(stats.failed_writes >= 1, "{stats:?}");
    assert_eq!((stats.queued, stats.lost, shelf.rows().len()), (500, 0, 0));
    full(&ledger, 1 << 30);
    ledger.flush();
    assert_eq!((ledger.stats().queued, shelf.rows().len()), (0, 500));
}

#[test]
fn a_disk_that_never_has_room_costs_bounded_memory() {
    let ledger = Shelf::new().open();
    let broken = ledger.ask(|writer| writer.connection().execute_batch("DROP TABLE requests"));
    broken.unwrap().unwrap();
    let sheet = closed(1, 0, 1);
    for _ in 0..3 {
        for _ in 0..50_000 {
            drop(ledger.begin(request("a"), sheet.clone()));
        }
        ledger.flush();
    }
    let stats = ledger.stats();
    assert_eq!((stats.queued, stats.lost), (100_000, 50_000));
}

#[test]
fn rows_older_than_the_retention_go_and_their_room_is_given_back() {
    let shelf = Shelf::new();
    let ledger = shelf.open();
    for id in 0..2500 {
        drop(ledger.begin(request(&format!("r{id}")), closed(40, 0, 1)));
    }
    ledger.flush();
    let pages: i64 = shelf.ask("PRAGMA page_count");
    ledger.keep_for(Duration::from_secs(3600));
    ledger.flush();
    assert_eq!(shelf.rows().len(), 2500, "none is old enough");

    shelf.hand.advance(Duration::from_secs(3601));
    let mut new = request("new");
    new.started_ms = (NOON + 3601) * 1000;
    drop(ledger.begin(new, closed(40, 0, 1)));
    for _ in 0..4 {
        ledger.flush();
    }
    assert_eq!(shelf.rows(), ["new client_gone 499 40/0/1 0"]);
    assert!(shelf.ask::<i64>("PRAGMA page_count") < pages / 2);
}

#[test]
fn a_ledger_in_memory_answers_like_one_on_disk() {
    let ledger = Ledger::in_memory();
    let other = Ledger::in_memory();
    let open = ledger.begin(request("a"), closed(40, 16, 7));
    open.ended(end("stop", 200));
    ledger.flush();
    let query = UsageQuery {
        until: NOON + 1,
        ..UsageQuery::default()
    };
    let sums = |ledger: &Ledger| {
        let rows = ledger.usage(&query).unwrap();
        rows.iter().map(|row| row.completion).collect::<Vec<_>>()
    };
    assert_eq!((sums(&ledger), sums(&other)), (vec![7], vec![]));
}

#[test]
fn a_writer_that_has_died_is_an_error_and_nobody_waits_for_it() {
    let ledger = Shelf::new().open();
    let died = ledger.ask(|_| panic!("the test asked for this"));
    assert!(matches!(died, Err::<(), _>(LedgerError::Stopped)));
    let unrevoked = ledger.unrevoke(&RevokedName::Issuer, "x");
    let told = unrevoked.unwrap_err().to_string();
    assert_eq!(told, "the ledger's writer has stopped");
    ledger.flush();
    drop(ledger.begin(request("a"), closed(1, 0, 1)));
}
