//! The one thread that writes. It wakes a few times a second, and at once for whoever waits for it.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::desk::{Desk, Work};
use super::place::Place;
use super::requests::{self, Open, Written};
use super::{BudgetRecord, LedgerError, retention, rights};
use crate::clock::Clock;

/// Where the budgets that have changed come from.
pub(super) type BudgetSource = Box<dyn FnMut() -> Vec<BudgetRecord> + Send>;

/// Everything that the thread owns.
pub(super) struct Writer {
    connection: Connection,
    place: Place,
    desk: Arc<Desk>,
    clock: Clock,
    open: Vec<Open>,
    /// Not written yet, by key and period.
    budgets: HashMap<([u8; 32], String), u64>,
    /// Not written yet: the day of each key's last use.
    touches: HashMap<String, String>,
    source: Option<BudgetSource>,
    /// Held by all who have requests under way.
    recording: Option<File>,
    /// As the file said when it was last asked.
    changes: i64,
    data_version: i64,
    sweep: retention::Sweep,
    is_failing: bool,
}

impl Writer {
    /// Opens the ledger for writing and marks what a process that died has left open.
    ///
    /// # Errors
    /// Whatever keeps it from being written.
    pub(super) fn open(place: Place, desk: Arc<Desk>, clock: Clock) -> Result<Self, LedgerError> {
        let connection = place.writer()?;
        let failed = |error| LedgerError::of(&place, error);
        recover(&connection, &place)?;
        let changes = rights::changes(&connection).map_err(failed)?;
        let data_version = data_version(&connection).map_err(failed)?;
        Ok(Self {
            connection,
            place,
            desk,
            clock,
            open: Vec::new(),
            budgets: HashMap::new(),
            touches: HashMap::new(),
            source: None,
            recording: None,
            changes,
            data_version,
            sweep: retention::Sweep::default(),
            is_failing: false,
        })
    }

    /// Writes until nobody can tell it anything any more, and then what is left.
    pub(super) fn run(mut self) {
        let mut due = Instant::now() + TICK;
        loop {
            let wake = due.min(Instant::now() + LOOK);
            let Work { jobs, stopped } = self.take(wake);
            for job in jobs {
                job(&mut self);
            }
            if stopped || Instant::now() >= due {
                self.tick();
                due = Instant::now() + TICK;
            }
            if stopped {
                return;
            }
            self.look();
        }
    }

    fn take(&mut self, wake: Instant) -> Work {
        let is_shared = matches!(self.place, Place::File(_));
        // In memory nobody else writes: there is nothing to look for.
        let (told, work) = self.desk.wait(if is_shared { wake } else { wake + LOOK });
        self.open.extend(told.arrivals.into_iter().map(Open::new));
        self.keep_budgets(told.budgets);
        self.touches.extend(told.touches);
        work
    }

    fn keep_budgets(&mut self, budgets: Vec<BudgetRecord>) {
        for record in budgets {
            self.budgets
                .insert((record.key, record.period), record.tokens);
        }
    }

    /// Asks `source` for changed budgets at each tick.
    pub(super) fn budgets_from(&mut self, source: BudgetSource) {
        self.source = Some(source);
    }

    /// Forgets rows of requests that are older than this.
    pub(super) fn keep_for(&mut self, time: Duration) {
        self.sweep = retention::Sweep::after(time);
    }

    /// Writes down all that has changed. What cannot be written is kept and tried again, within bounds.
    pub(super) fn tick(&mut self) {
        if let Some(source) = &mut self.source {
            let changed = source();
            self.keep_budgets(changed);
        }
        let written = self.write();
        let stats = &self.desk.stats;
        match written {
            Ok(rows) => {
                stats.rows_written.fetch_add(rows as u64, Ordering::Relaxed);
                stats.wrote_now();
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!(ledger = %self.place, "the ledger is written again");
                }
                self.sweep();
            }
            Err(error) => {
                stats.failed_writes.fetch_add(1, Ordering::Relaxed);
                // Twice a second would fill whatever disk is left.
                if !std::mem::replace(&mut self.is_failing, true) {
                    let error = LedgerError::of(&self.place, error);
                    tracing::error!(%error, hint = error.hint(), "usage cannot be written down; it is kept and tried again");
                }
                self.shed();
            }
        }
        let stats = &self.desk.stats;
        stats.open.store(self.open.len(), Ordering::Relaxed);
    }

    /// One transaction for all: rows written, once they are durable.
    fn write(&mut self) -> rusqlite::Result<usize> {
        if self.open.is_empty() && self.budgets.is_empty() && self.touches.is_empty() {
            return Ok(0);
        }
        if !self.open.is_empty() && self.recording.is_none() {
            self.recording = record(&self.place);
        }
        let transaction = immediate(&mut self.connection)?;
        let written: Vec<Option<Written>> = self
            .open
            .iter()
            .map(|open| open.write(&transaction))
            .collect::<Result<_, _>>()?;
        let now_ms = self.clock.since_epoch().as_millis() as u64;
        for ((key, period), tokens) in &self.budgets {
            rights::put_budget(&transaction, key, period, *tokens, now_ms)?;
        }
        for (id, day) in &self.touches {
            rights::touch_api_key(&transaction, id, day)?;
        }
        transaction.commit()?;
        let mut rows = 0;
        for (open, written) in self.open.iter_mut().zip(written) {
            if let Some(written) = written {
                open.wrote(written);
                rows += 1;
            }
        }
        self.open.retain(|open| !open.is_final);
        self.budgets.clear();
        self.touches.clear();
        Ok(rows)
    }

    /// Gives up the oldest requests that are over, if too many wait for a disk that takes nothing.
    fn shed(&mut self) {
        let over = self.open.iter().filter(|open| open.is_over()).count();
        let mut surplus = over.saturating_sub(MOST_WAITING);
        if surplus > 0 {
            self.desk
                .stats
                .lost
                .fetch_add(surplus as u64, Ordering::Relaxed);
            self.open.retain(|open| {
                let gone = surplus > 0 && open.is_over();
                surplus -= usize::from(gone);
                !gone
            });
        }
    }

    fn sweep(&mut self) {
        let now = self.clock.unix_seconds();
        let swept = self.sweep.step(now, &self.place, &mut self.connection);
        if let Err(error) = swept {
            let error = LedgerError::of(&self.place, error);
            tracing::warn!(%error, "old rows of the ledger could not be deleted");
        }
    }

    /// Changes revocations or keys and tells everybody; durable when it returns.
    ///
    /// # Errors
    /// SQLite's; nothing has changed then.
    pub(super) fn change_rights<T>(
        &mut self,
        change: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let place = self.place.clone();
        let changed = || {
            let transaction = immediate(&mut self.connection)?;
            let result = change(&transaction)?;
            let changes = rights::count_change(&transaction)?;
            transaction.commit()?;
            Ok((result, changes))
        };
        let (result, changes) = changed().map_err(|error| LedgerError::of(&place, error))?;
        self.changes = changes;
        self.desk.rights_changed();
        Ok(result)
    }

    /// Notices what other processes have changed.
    fn look(&mut self) {
        if matches!(self.place, Place::Memory(_)) {
            return;
        }
        // Moves when somebody else has committed, never for our own commits; costs no read of a table.
        let Ok(version) = data_version(&self.connection) else {
            return;
        };
        if version == self.data_version {
            return;
        }
        // Left as it was on an error, so that the next look asks again.
        let Ok(changes) = rights::changes(&self.connection) else {
            return;
        };
        self.data_version = version;
        if changes != self.changes {
            self.changes = changes;
            self.desk.rights_changed();
        }
    }

    /// The connection, for tests that break it.
    #[cfg(test)]
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Drop for Writer {
    /// At the end, or when it panics.
    fn drop(&mut self) {
        self.desk.close();
    }
}

/// Marks rows that nobody works on any more. If another process has requests under way, a row may be its own: then
/// the next who opens the ledger alone does it.
fn recover(connection: &Connection, place: &Place) -> Result<(), LedgerError> {
    let Some(lock) = place.recording() else {
        return Ok(());
    };
    let lock = lock.map_err(|source| LedgerError::File {
        place: place.to_string(),
        source,
    })?;
    if lock.try_lock().is_err() {
        return Ok(());
    }
    // The lock ends with the file.
    let marked = requests::mark_interrupted(connection);
    match marked.map_err(|error| LedgerError::of(place, error))? {
        0 => {}
        rows => tracing::warn!(
            rows,
            "the last server ended without a word: its open requests are marked as interrupted"
        ),
    }
    Ok(())
}

/// Says to other processes that requests are under way here. Waits for no longer than one of them marks rows.
fn record(place: &Place) -> Option<File> {
    let lock = place.recording()?;
    match lock.and_then(|file| file.lock_shared().map(|()| file)) {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::warn!(%error, "the ledger's lock cannot be had; rows may be marked as interrupted too early");
            None
        }
    }
}

pub(super) fn immediate(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

/// How often what has changed is written: twice within the second that a crash may cost.
const TICK: Duration = Duration::from_millis(500);
/// How often other processes' changes are looked for.
const LOOK: Duration = Duration::from_millis(200);
/// Ended requests that wait to be written, some 500 bytes each, before the oldest are given up: 50 MB, half an hour
/// at 50 requests a second.
const MOST_WAITING: usize = 100_000;
