//! Forgets what is too old, a little at a time, so that no request's row waits for it.

use std::time::Duration;

use rusqlite::Connection;

use super::place::Place;
use super::rights::number;
use super::writer::immediate;

/// What is to be forgotten, and when that was last looked at.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// How long rows of requests are kept; `None`: nothing is deleted.
    keep: Option<Duration>,
    /// Unix seconds of the next look.
    next: u64,
}

impl Sweep {
    pub(super) fn after(keep: Duration) -> Self {
        Self {
            keep: Some(keep),
            next: 0,
        }
    }

    /// Deletes one batch if it is time to. `now` in Unix seconds.
    ///
    /// # Errors
    /// SQLite's; the next look is as if this one had found nothing.
    pub(super) fn step(
        &mut self,
        now: u64,
        place: &Place,
        connection: &mut Connection,
    ) -> rusqlite::Result<()> {
        let Some(keep) = self.keep else {
            return Ok(());
        };
        if now < self.next {
            return Ok(());
        }
        self.next = now + pause(place);
        let transaction = immediate(connection)?;
        let before = now.saturating_sub(keep.as_secs()).saturating_mul(1000);
        let sql = "DELETE FROM requests WHERE id IN
                       (SELECT id FROM requests WHERE started_ms < ?1 ORDER BY started_ms LIMIT ?2)";
        let mut deleted = transaction.execute(sql, [number(before), BATCH])?;
        if matches!(place, Place::Memory(_)) {
            let sql = "DELETE FROM requests WHERE id <= (SELECT max(id) FROM requests) - ?1 AND reason <> 'running'";
            deleted += transaction.execute(sql, [MOST_IN_MEMORY])?;
        }
        let day = 86_400;
        let budgets = now.saturating_sub(BUDGET_DAYS * day).saturating_mul(1000);
        let sql = "DELETE FROM budgets WHERE changed_ms < ?1";
        deleted += transaction.execute(sql, [number(budgets)])?;
        let sql = "DELETE FROM revocations WHERE until < ?1";
        deleted += transaction.execute(sql, [number(now.saturating_sub(day))])?;
        transaction.commit()?;
        if deleted > 0 {
            // The rest of a large heap comes with the next ticks.
            self.next = now;
            let mut vacuum = connection.prepare(VACUUM)?;
            let mut steps = vacuum.raw_query();
            while steps.next()?.is_some() {}
        }
        Ok(())
    }
}

/// Seconds between looks that found nothing. Memory is scarcer than a disk.
fn pause(place: &Place) -> u64 {
    match place {
        Place::File(_) => 600,
        Place::Memory(_) => 10,
    }
}

/// Rows deleted at a time: some milliseconds.
const BATCH: i64 = 1000;
/// Rows that a ledger in memory keeps: 30 MB.
const MOST_IN_MEMORY: i64 = 100_000;
/// Longer than any period of a budget.
const BUDGET_DAYS: u64 = 62;
/// Gives pages back to the disk, at most 1 MiB at a time.
const VACUUM: &str = "PRAGMA incremental_vacuum(256)";
