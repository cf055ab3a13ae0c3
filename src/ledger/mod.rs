//! Durable records: who used how many tokens, what budgets have left, which rights were taken away, which API keys there
//! are. Never a prompt, never a token or key in the clear. A leaf: knows names and numbers, no gate and no engine.

mod sheet;

use std::sync::{Arc, Mutex};

pub use sheet::{Sheet, Tally};

/// What an end of a period has used of a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetRecord {
    /// Stands for the limit and its bearer.
    pub key: [u8; 32],
    /// The UTC day or month: `2026-11-24` or `2026-11`.
    pub period: String,
    /// Tokens used, not those reserved.
    pub tokens: u64,
}

/// A right that was taken away.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RevocationRecord {
    /// What is revoked.
    pub what: RevokedName,
    /// The issuer by which the name is meant.
    pub issuer: String,
    /// Unix seconds at which it was revoked.
    pub at: u64,
    /// Unix seconds after which the record may be forgotten, because nothing that it names can be valid any more.
    pub until: Option<u64>,
}

/// What a revocation names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RevokedName {
    /// One token, by its `jti`.
    Token(String),
    /// All tokens of a subject that were issued before `at`.
    Subject(String),
    /// All tokens of a client that were issued before `at`.
    Client(String),
    /// All tokens that a key has signed, by its `kid`.
    Key(String),
    /// All tokens of the issuer that were issued before `at`.
    Issuer,
}

/// An API key as it is stored. The secret itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// The public half of the key: how it is found.
    pub id: String,
    /// A hash of the whole key.
    pub hash: [u8; 32],
    /// Whom it stands for.
    pub subject: String,
    /// The subject's tenant.
    pub tenant: Option<String>,
    /// Scopes, separated by spaces.
    pub scopes: String,
    /// What it is for, in its maker's words.
    pub note: Option<String>,
    /// Unix seconds.
    pub created: u64,
    /// Unix seconds.
    pub expires: Option<u64>,
    /// Unix seconds.
    pub revoked: Option<u64>,
    /// The UTC day on which it was last used: `2026-11-24`.
    pub last_used: Option<String>,
}

/// What is known of a request when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// The `x-request-id`.
    pub id: String,
    /// Whose it is.
    pub issuer: String,
    /// Its subject.
    pub subject: String,
    /// Its tenant.
    pub tenant: Option<String>,
    /// Its client application.
    pub client: Option<String>,
    /// `token`, `api_key` or `certificate`.
    pub credential: &'static str,
    /// The served model.
    pub model: String,
    /// Unix milliseconds of its arrival.
    pub started_ms: u64,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestEnd {
    /// `stop`, `length`, `client_gone` or an error's code.
    pub reason: &'static str,
    /// The HTTP status; 499 for a client that went away.
    pub status: u16,
    /// Until the first token.
    pub ttft_ms: Option<u64>,
    /// From arrival to end.
    pub total_ms: u64,
}

/// Why the ledger could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {}

/// The ledger; cloned freely.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Books>>);

#[derive(Debug, Default)]
struct Books {
    budgets: Vec<BudgetRecord>,
    revocations: Vec<RevocationRecord>,
    keys: Vec<ApiKeyRecord>,
}

impl Ledger {
    /// A ledger in memory, which ends with the process: for tests and trials.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Writes one row for a request, now and whenever `sheet` has changed, until the result has heard how the request
    /// ended and the sheet is closed.
    pub fn begin(&self, request: RequestRecord, sheet: Arc<Sheet>) -> OpenRequest {
        let _ = (request, sheet);
        OpenRequest {}
    }

    /// The budgets of these periods.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn budgets(&self, periods: &[&str]) -> Result<Vec<BudgetRecord>, LedgerError> {
        let mut budgets = self.books().budgets.clone();
        budgets.retain(|budget| periods.contains(&budget.period.as_str()));
        Ok(budgets)
    }

    /// Writes down what budgets have used. Returns at once; durable within a second.
    pub fn put_budgets(&self, records: Vec<BudgetRecord>) {
        let mut books = self.books();
        for record in records {
            books
                .budgets
                .retain(|known| (known.key, &known.period) != (record.key, &record.period));
            books.budgets.push(record);
        }
    }

    /// All revocations that still mean something at Unix second `now`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn revocations(&self, now: u64) -> Result<Vec<RevocationRecord>, LedgerError> {
        let mut revocations = self.books().revocations.clone();
        revocations.retain(|record| record.until.is_none_or(|until| now < until));
        Ok(revocations)
    }

    /// Writes down a revocation; durable when it returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn revoke(&self, record: &RevocationRecord) -> Result<(), LedgerError> {
        self.books().revocations.push(record.clone());
        Ok(())
    }

    /// Takes a revocation back: every record of this name. Returns how many there were.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn unrevoke(&self, what: &RevokedName, issuer: &str) -> Result<usize, LedgerError> {
        let mut books = self.books();
        let before = books.revocations.len();
        books
            .revocations
            .retain(|record| (&record.what, record.issuer.as_str()) != (what, issuer));
        Ok(before - books.revocations.len())
    }

    /// All API keys, revoked and expired ones included.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn api_keys(&self) -> Result<Vec<ApiKeyRecord>, LedgerError> {
        Ok(self.books().keys.clone())
    }

    /// Writes down an API key, instead of one with the same id; durable when it returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put_api_key(&self, record: &ApiKeyRecord) -> Result<(), LedgerError> {
        let mut books = self.books();
        books.keys.retain(|known| known.id != record.id);
        books.keys.push(record.clone());
        Ok(())
    }

    /// Notes that a key was used on this UTC day. Returns at once.
    pub fn touch_api_key(&self, id: &str, day: &str) {
        if let Some(key) = self.books().keys.iter_mut().find(|key| key.id == id) {
            key.last_used = Some(day.to_owned());
        }
    }

    /// Completes when revocations or API keys may have changed since the last call, by this process or another.
    pub async fn changed(&self) {
        std::future::pending().await
    }

    /// Returns once all that was told before is durable.
    pub fn flush(&self) {}

    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A request whose row is not final yet.
#[derive(Debug)]
pub struct OpenRequest {}

impl OpenRequest {
    /// How it ended, as its client saw it. Dropping it without a word means that the client has gone.
    pub fn ended(self, end: RequestEnd) {
        let _ = end;
    }
}
