//! The tables, and how a file becomes one that has them.

use rusqlite::{Connection, TransactionBehavior};

use super::LedgerError;
use super::place::Place;

/// Makes or brings up to date the tables of a ledger that is open for writing.
///
/// # Errors
/// If it is another program's database, a newer version's, or cannot be written.
pub(super) fn prepare(connection: &mut Connection, place: &Place) -> Result<(), LedgerError> {
    let failed = |error| LedgerError::of(place, error);
    check(connection, place)?;
    // Counts only before the first table; otherwise it changes nothing.
    pragma(connection, "auto_vacuum", "INCREMENTAL").map_err(failed)?;
    pragma(connection, "journal_mode", "WAL").map_err(failed)?;
    // Each commit reaches the disk: there are two a second at most, on a thread of their own, and a revocation that
    // was answered must survive the loss of power.
    pragma(connection, "synchronous", "FULL").map_err(failed)?;
    pragma(connection, "journal_size_limit", "16777216").map_err(failed)?;
    pragma(connection, "trusted_schema", "OFF").map_err(failed)?;
    migrate(connection).map_err(failed)
}

/// Says whether this program can work with the file.
///
/// # Errors
/// If it is another program's database or a newer version's.
pub(super) fn check(connection: &Connection, place: &Place) -> Result<(), LedgerError> {
    let failed = |error| LedgerError::of(place, error);
    // One statement sees one state, whatever another process does meanwhile.
    let (application, tables, found): (i64, i64, i64) = connection
        .query_one(
            "SELECT (SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_schema),
                 (SELECT user_version FROM pragma_user_version)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .map_err(failed)?;
    if application != APPLICATION && (application, tables) != (0, 0) {
        return Err(LedgerError::Foreign {
            place: place.to_string(),
        });
    }
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(LedgerError::Newer {
            place: place.to_string(),
            found,
            known,
        });
    }
    Ok(())
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    if version(connection)? == MIGRATIONS.len() as i64 {
        return Ok(());
    }
    // Whoever waits here for another process finds its work done.
    let migration = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = usize::try_from(version(&migration)?).unwrap_or(usize::MAX);
    for step in MIGRATIONS.iter().skip(done) {
        migration.execute_batch(step)?;
    }
    migration.pragma_update(None, "application_id", APPLICATION)?;
    migration.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    migration.commit()
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Some pragmas answer with a row, some do not; nobody wants to know.
fn pragma(connection: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    connection
        .pragma_update_and_check(None, name, value, |_| Ok(()))
        .or_else(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => Ok(()),
            error => Err(error),
        })
}

/// "Mixg", so that no other database is taken for a ledger.
const APPLICATION: i64 = 0x4d69_7867;

/// Each brings the file from the version that is its index to the next. What was published is never changed.
const MIGRATIONS: [&str; 1] = ["
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    tenant TEXT,
    client TEXT,
    credential TEXT NOT NULL,
    api_key TEXT,
    model TEXT NOT NULL,
    prompt INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    completion INTEGER NOT NULL,
    reason TEXT NOT NULL,
    status INTEGER,
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    ttft_ms INTEGER,
    total_ms INTEGER
) STRICT;
CREATE INDEX requests_started ON requests (started_ms);
CREATE INDEX requests_subject ON requests (subject, started_ms);
CREATE INDEX requests_running ON requests (id) WHERE reason = 'running';

CREATE TABLE budgets (
    key BLOB NOT NULL,
    period TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL,
    PRIMARY KEY (period, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE revocations (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    issuer TEXT NOT NULL,
    at INTEGER NOT NULL,
    until INTEGER
) STRICT;
CREATE INDEX revocations_name ON revocations (issuer, kind, name);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    hash BLOB NOT NULL,
    subject TEXT NOT NULL,
    tenant TEXT,
    scopes TEXT NOT NULL,
    note TEXT,
    created INTEGER NOT NULL,
    expires INTEGER,
    revoked INTEGER,
    last_used TEXT
) STRICT, WITHOUT ROWID;

-- Counts the changes of revocations and keys, so that other processes hear of them.
CREATE TABLE rights (one INTEGER PRIMARY KEY CHECK (one = 1), changes INTEGER NOT NULL) STRICT;
INSERT INTO rights VALUES (1, 0);
"];
