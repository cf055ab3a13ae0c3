//! Durable records: who used how many tokens, what budgets have left, which rights were taken away, which API keys there
//! are. Never a prompt, never a token or key in the clear. A leaf: knows names and numbers, no gate and no engine.
//!
//! [`place`] says where it is and who may touch it, [`schema`] what is in it. One thread writes ([`writer`]): requests
//! leave what they know on a [`desk`] and go on at once. Everybody reads with a connection of their own.

mod desk;
mod error;
mod place;
mod records;
mod requests;
mod retention;
mod rights;
mod schema;
mod sheet;
mod usage;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

pub use desk::LedgerStats;
pub use error::LedgerError;
pub use records::{
    ApiKeyRecord, BudgetRecord, RequestEnd, RequestRecord, RevocationRecord, RevokedName,
};
pub use requests::OpenRequest;
pub use sheet::{Sheet, Tally};
pub use usage::{Dimension, UsageQuery, UsageRow};

use crate::clock::Clock;
use desk::Desk;
use place::Place;
use requests::Entry;
use writer::Writer;

/// The ledger; cloned freely. The last clone to go writes down what is left.
pub struct Ledger {
    books: Arc<Books>,
    /// How many changes of rights this clone has told of.
    told: AtomicU64,
}

struct Books {
    place: Place,
    desk: Arc<Desk>,
    clock: Clock,
    writer: Option<JoinHandle<()>>,
}

impl Ledger {
    /// A ledger in memory, which ends with the process: for tests and trials.
    pub fn in_memory() -> Self {
        Self::at(Place::fresh_memory(), Clock::system())
            .expect("memory can be written, and nobody else knows the name. This is a bug.")
    }

    /// The ledger in the file `path`, which is made if there is none. Requests that were under way when their process
    /// died are marked as interrupted.
    ///
    /// # Errors
    /// If the file or its folder cannot be written, or others may write to them; if it is no ledger, a newer
    /// program's, or locked for seconds.
    pub fn open(path: &Path, clock: Clock) -> Result<Self, LedgerError> {
        Self::at(Place::File(path.to_owned()), clock)
    }

    fn at(place: Place, clock: Clock) -> Result<Self, LedgerError> {
        let desk = Arc::new(Desk::new());
        let writer = Writer::open(place.clone(), desk.clone(), clock.clone())?;
        let thread = Builder::new().name("mixgate-ledger".to_owned());
        let thread = thread.spawn(move || writer.run());
        let writer = thread.map_err(|source| LedgerError::File {
            place: place.to_string(),
            source,
        })?;
        Ok(Self {
            books: Arc::new(Books {
                place,
                desk,
                clock,
                writer: Some(writer),
            }),
            told: AtomicU64::new(0),
        })
    }

    /// Reads the ledger in the file `path` without ever writing to it.
    ///
    /// # Errors
    /// If there is none, or one that this program does not know.
    pub fn read_usage(path: &Path, query: &UsageQuery) -> Result<Vec<UsageRow>, LedgerError> {
        Place::File(path.to_owned()).usage(query)
    }

    /// From now on, deletes rows of requests that are older than `time`.
    pub fn keep_for(&self, time: Duration) {
        self.books
            .desk
            .ask(Box::new(move |writer| writer.keep_for(time)));
    }

    /// From now on, asks `source` for changed budgets before each write, and at a [`Self::flush`]: as
    /// [`Self::put_budgets`]. It runs on the writer's thread and must not use the ledger.
    pub fn budgets_from(&self, source: impl FnMut() -> Vec<BudgetRecord> + Send + 'static) {
        let source = Box::new(source);
        self.books
            .desk
            .ask(Box::new(|writer| writer.budgets_from(source)));
    }

    /// Writes one row for a request, now and whenever `sheet` has changed, until the result has heard how the request
    /// ended and the sheet is closed. Never waits: the row is there within a second.
    pub fn begin(&self, request: RequestRecord, sheet: Arc<Sheet>) -> OpenRequest {
        let entry = Arc::new(Entry::new(request, sheet));
        self.books.desk.arrived(entry.clone());
        OpenRequest::new(entry, self.books.clock.clone())
    }

    /// What requests have used, in sums: rows in the order of bucket, values and issuer. Up to a second old.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageRow>, LedgerError> {
        self.books.place.usage(query)
    }

    /// The budgets of these periods.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn budgets(&self, periods: &[&str]) -> Result<Vec<BudgetRecord>, LedgerError> {
        self.books.place.read(|it| rights::budgets(it, periods))
    }

    /// Writes down what budgets have used. Returns at once; durable within a second.
    pub fn put_budgets(&self, records: Vec<BudgetRecord>) {
        self.books.desk.budgets(records);
    }

    /// All revocations that still mean something at Unix second `now`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn revocations(&self, now: u64) -> Result<Vec<RevocationRecord>, LedgerError> {
        self.books.place.read(|it| rights::revocations(it, now))
    }

    /// Writes down a revocation; durable when it returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn revoke(&self, record: &RevocationRecord) -> Result<(), LedgerError> {
        let record = record.clone();
        self.ask(move |writer| writer.change_rights(|it| rights::revoke(it, &record)))?
    }

    /// Takes a revocation back: every record of this name. Returns how many there were.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn unrevoke(&self, what: &RevokedName, issuer: &str) -> Result<usize, LedgerError> {
        let (what, issuer) = (what.clone(), issuer.to_owned());
        self.ask(move |writer| writer.change_rights(|it| rights::unrevoke(it, &what, &issuer)))?
    }

    /// All API keys, revoked and expired ones included.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn api_keys(&self) -> Result<Vec<ApiKeyRecord>, LedgerError> {
        self.books.place.read(rights::api_keys)
    }

    /// Writes down an API key, instead of one with the same id; durable when it returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put_api_key(&self, record: &ApiKeyRecord) -> Result<(), LedgerError> {
        let record = record.clone();
        self.ask(move |writer| writer.change_rights(|it| rights::put_api_key(it, &record)))?
    }

    /// Notes that a key was used on this UTC day. Returns at once.
    pub fn touch_api_key(&self, id: &str, day: &str) {
        self.books.desk.touch(id, day);
    }

    /// Completes when revocations or API keys may have changed since the last call, by this process or another. Each
    /// clone counts its own calls, from when it was cloned.
    pub async fn changed(&self) {
        let mut changes = self.books.desk.rights();
        let told = self.told.load(Ordering::Relaxed);
        // The desk outlives this call, so that the sender cannot be gone.
        if let Ok(now) = changes.wait_for(|now| *now != told).await {
            self.told.store(*now, Ordering::Relaxed);
        }
    }

    /// Returns once all that was told before is durable, or could not be written.
    pub fn flush(&self) {
        // A writer that has stopped has nothing left to write.
        let _ = self.ask(Writer::tick);
    }

    /// What it has done and has yet to do.
    pub fn stats(&self) -> LedgerStats {
        self.books.desk.stats()
    }

    /// Runs `job` on the writer's thread and waits for it.
    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> T + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = mpsc::channel();
        self.books.desk.ask(Box::new(move |writer| {
            // Whoever has gone meanwhile needs no answer.
            let _ = reply.send(job(writer));
        }));
        answer.recv().map_err(|_| LedgerError::Stopped)
    }
}

/// The UTC day of a Unix second: `2026-11-24`. Its first seven characters are the month.
pub fn day(unix_seconds: u64) -> String {
    let date = i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let month = u8::from(date.month());
    format!("{:04}-{month:02}-{:02}", date.year(), date.day())
}

impl Clone for Ledger {
    fn clone(&self) -> Self {
        Self {
            books: self.books.clone(),
            told: AtomicU64::new(self.told.load(Ordering::Relaxed)),
        }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::in_memory()
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ledger").field(&self.books.place).finish()
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        self.desk.stop();
        if let Some(writer) = self.writer.take() {
            // A writer that has panicked has said so already.
            let _ = writer.join();
        }
    }
}

impl Place {
    fn read<T>(
        &self,
        read: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        read(&self.reader()?).map_err(|error| LedgerError::of(self, error))
    }

    fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageRow>, LedgerError> {
        self.read(|it| usage::usage(it, query))
    }
}
