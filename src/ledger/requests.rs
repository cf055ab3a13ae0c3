//! Requests under way and their rows.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rusqlite::{Connection, params};

use super::rights::number;
use super::{RequestEnd, RequestRecord, Sheet, Tally};
use crate::clock::Clock;

/// A request whose row is not final yet.
pub struct OpenRequest {
    entry: Arc<Entry>,
    clock: Clock,
}

impl OpenRequest {
    pub(super) fn new(entry: Arc<Entry>, clock: Clock) -> Self {
        Self { entry, clock }
    }

    /// How it ended, as its client saw it. Dropping it without a word means that the client has gone.
    pub fn ended(self, end: RequestEnd) {
        // Nobody else sets it before the drop does.
        let _ = self.entry.end.set(end);
    }
}

impl fmt::Debug for OpenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenRequest")
            .field(&self.entry.record.id)
            .finish()
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.entry.end.get_or_init(|| {
            let now = self.clock.since_epoch().as_millis() as u64;
            RequestEnd {
                reason: "client_gone",
                status: 499,
                ttft_ms: None,
                total_ms: now.saturating_sub(self.entry.record.started_ms),
            }
        });
    }
}

/// What the writer and the request's own code share: the one looks here for what the other has put.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: RequestRecord,
    pub(super) sheet: Arc<Sheet>,
    end: OnceLock<RequestEnd>,
}

impl Entry {
    pub(super) fn new(record: RequestRecord, sheet: Arc<Sheet>) -> Self {
        Self {
            record,
            sheet,
            end: OnceLock::new(),
        }
    }
}

/// A request as its writer knows it.
#[derive(Debug)]
pub(super) struct Open {
    entry: Arc<Entry>,
    /// Its row, and the counts in it.
    written: Option<(i64, Tally)>,
    pub(super) is_final: bool,
}

impl Open {
    pub(super) fn new(entry: Arc<Entry>) -> Self {
        Self {
            entry,
            written: None,
            is_final: false,
        }
    }

    /// Whether it is over and merely not written down yet.
    pub(super) fn is_over(&self) -> bool {
        self.entry.end.get().is_some() && self.entry.sheet.is_closed()
    }

    /// Writes its row if there is something new to write. What this returns is to be given to [`Self::wrote`] once
    /// the transaction is through.
    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<Option<Written>> {
        // In this order: once the sheet is closed its tally is final.
        let end = self
            .entry
            .end
            .get()
            .filter(|_| self.entry.sheet.is_closed());
        let tally = self.entry.sheet.tally(self.entry.record.prompt);
        let row = match (self.written, end) {
            (Some((_, written)), None) if written == tally => return Ok(None),
            (Some((row, _)), _) => {
                update(connection, row, tally, end, &self.entry.record)?;
                row
            }
            (None, _) => insert(connection, tally, end, &self.entry.record)?,
        };
        Ok(Some(Written {
            row,
            tally,
            is_final: end.is_some(),
        }))
    }

    pub(super) fn wrote(&mut self, written: Written) {
        self.written = Some((written.row, written.tally));
        self.is_final = written.is_final;
    }
}

/// A row that will be there once the transaction is through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    row: i64,
    tally: Tally,
    is_final: bool,
}

fn insert(
    connection: &Connection,
    tally: Tally,
    end: Option<&RequestEnd>,
    record: &RequestRecord,
) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO requests
             (request_id, issuer, subject, tenant, client, credential, api_key, model, prompt, cached, completion,
              reason, status, started_ms, ended_ms, ttft_ms, total_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
    )?;
    statement.insert(params![
        record.id,
        record.issuer,
        record.subject,
        record.tenant,
        record.client,
        record.credential,
        record.api_key,
        record.model,
        number(tally.prompt),
        number(tally.cached),
        number(tally.completion),
        end.map_or(RUNNING, |end| end.reason),
        end.map(|end| end.status),
        number(record.started_ms),
        end.map(|end| number(record.started_ms.saturating_add(end.total_ms))),
        end.and_then(|end| end.ttft_ms).map(number),
        end.map(|end| number(end.total_ms)),
    ])
}

fn update(
    connection: &Connection,
    row: i64,
    tally: Tally,
    end: Option<&RequestEnd>,
    record: &RequestRecord,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE requests SET prompt = ?2, cached = ?3, completion = ?4, reason = ?5, status = ?6, ended_ms = ?7,
             ttft_ms = ?8, total_ms = ?9
         WHERE id = ?1",
    )?;
    statement.execute(params![
        row,
        number(tally.prompt),
        number(tally.cached),
        number(tally.completion),
        end.map_or(RUNNING, |end| end.reason),
        end.map(|end| end.status),
        end.map(|end| number(record.started_ms.saturating_add(end.total_ms))),
        end.and_then(|end| end.ttft_ms).map(number),
        end.map(|end| number(end.total_ms)),
    ])?;
    Ok(())
}

/// Marks what was under way when its process died. Returns how many rows there were.
pub(super) fn mark_interrupted(connection: &Connection) -> rusqlite::Result<usize> {
    let sql = "UPDATE requests SET reason = 'interrupted' WHERE reason = 'running'";
    connection.execute(sql, [])
}

const RUNNING: &str = "running";
