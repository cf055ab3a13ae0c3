//! A ledger in a folder of its own, requests to write into it, and its rows as text.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::clock::{Clock, ManualClock};
use crate::ledger::{Ledger, RequestEnd, RequestRecord, Sheet, UsageQuery, UsageRow};

/// 2026-11-24, noon UTC.
pub(super) const NOON: u64 = 1_795_521_600;

pub(super) struct Shelf {
    folder: TempDir,
    clock: Clock,
    pub(super) hand: ManualClock,
}

impl Shelf {
    pub(super) fn new() -> Self {
        let (clock, hand) = Clock::manual(NOON);
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock,
            hand,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("state/ledger.sqlite3")
    }

    pub(super) fn open(&self) -> Ledger {
        Ledger::open(&self.path(), self.clock.clone()).unwrap()
    }

    /// The answer to a question of one row and column.
    pub(super) fn ask<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        let connection = Connection::open(self.path()).unwrap();
        connection.query_one(sql, [], |row| row.get(0)).unwrap()
    }

    /// `request_id reason status prompt/cached/completion ended`, a row each, in the order of their writing.
    pub(super) fn rows(&self) -> Vec<String> {
        let connection = Connection::open(self.path()).unwrap();
        let sql = "SELECT request_id || ' ' || reason || ' ' || coalesce(status, '-') || ' ' || prompt || '/' || cached
                       || '/' || completion || ' ' || coalesce(ended_ms - started_ms, '-')
                   FROM requests ORDER BY id";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }
}

pub(super) fn request(id: &str) -> RequestRecord {
    RequestRecord {
        id: id.to_owned(),
        issuer: "https://login.example/".to_owned(),
        subject: "ann".to_owned(),
        tenant: Some("acme".to_owned()),
        client: None,
        credential: "token",
        api_key: None,
        model: "seedling".to_owned(),
        prompt: 40,
        started_ms: NOON * 1000,
    }
}

pub(super) fn end(reason: &'static str, status: u16) -> RequestEnd {
    RequestEnd {
        reason,
        status,
        ttft_ms: Some(5),
        total_ms: 80,
    }
}

/// A sheet on which one sequence has settled and nothing more will come.
pub(super) fn closed(prompt: usize, cached: usize, completion: usize) -> Arc<Sheet> {
    let sheet = Arc::<Sheet>::default();
    sheet.completion(completion as u64);
    sheet.settle(prompt, cached, completion);
    sheet.close();
    sheet
}

/// Everything that there ever was, in one row.
pub(super) fn sum(ledger: &Ledger) -> UsageRow {
    let query = UsageQuery {
        until: u64::MAX,
        ..UsageQuery::default()
    };
    ledger.usage(&query).unwrap().pop().unwrap_or_default()
}
