//! Rows of revocations, API keys and budgets.

use rusqlite::{Connection, Row, ToSql, params};

use super::{ApiKeyRecord, BudgetRecord, RevocationRecord, RevokedName};

pub(super) fn revocations(
    connection: &Connection,
    now: u64,
) -> rusqlite::Result<Vec<RevocationRecord>> {
    let mut statement = connection.prepare(
        "SELECT kind, name, issuer, at, until FROM revocations WHERE until IS NULL OR until > ?1 ORDER BY id",
    )?;
    let rows = statement.query_map([number(now)], |row| {
        let (kind, name): (String, String) = (row.get(0)?, row.get(1)?);
        let what = match &*kind {
            "token" => RevokedName::Token(name),
            "subject" => RevokedName::Subject(name),
            "client" => RevokedName::Client(name),
            "key" => RevokedName::Key(name),
            _ => RevokedName::Issuer,
        };
        Ok(RevocationRecord {
            what,
            issuer: row.get(2)?,
            at: unsigned(row, 3)?,
            until: maybe(row, 4)?,
        })
    })?;
    rows.collect()
}

pub(super) fn revoke(connection: &Connection, record: &RevocationRecord) -> rusqlite::Result<()> {
    let (kind, name) = words(&record.what);
    connection.execute(
        "INSERT INTO revocations (kind, name, issuer, at, until) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            kind,
            name,
            record.issuer,
            number(record.at),
            record.until.map(number)
        ],
    )?;
    Ok(())
}

pub(super) fn unrevoke(
    connection: &Connection,
    what: &RevokedName,
    issuer: &str,
) -> rusqlite::Result<usize> {
    let (kind, name) = words(what);
    connection.execute(
        "DELETE FROM revocations WHERE issuer = ?1 AND kind = ?2 AND name = ?3",
        params![issuer, kind, name],
    )
}

pub(super) fn api_keys(connection: &Connection) -> rusqlite::Result<Vec<ApiKeyRecord>> {
    let mut statement = connection.prepare(
        "SELECT id, hash, subject, tenant, scopes, note, created, expires, revoked, last_used FROM api_keys
         ORDER BY created, id",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(ApiKeyRecord {
            id: row.get(0)?,
            hash: row.get(1)?,
            subject: row.get(2)?,
            tenant: row.get(3)?,
            scopes: row.get(4)?,
            note: row.get(5)?,
            created: unsigned(row, 6)?,
            expires: maybe(row, 7)?,
            revoked: maybe(row, 8)?,
            last_used: row.get(9)?,
        })
    })?;
    rows.collect()
}

pub(super) fn put_api_key(connection: &Connection, key: &ApiKeyRecord) -> rusqlite::Result<()> {
    connection.execute(
        // Whoever writes has read before, and others may have written meanwhile: a revocation is never undone.
        "INSERT INTO api_keys
             (id, hash, subject, tenant, scopes, note, created, expires, revoked, last_used)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (id) DO UPDATE SET
             hash = excluded.hash, subject = excluded.subject, tenant = excluded.tenant,
             scopes = excluded.scopes, note = excluded.note, created = excluded.created,
             expires = excluded.expires, revoked = coalesce(revoked, excluded.revoked),
             last_used = excluded.last_used",
        params![
            key.id,
            key.hash,
            key.subject,
            key.tenant,
            key.scopes,
            key.note,
            number(key.created),
            key.expires.map(number),
            key.revoked.map(number),
            key.last_used,
        ],
    )?;
    Ok(())
}

pub(super) fn touch_api_key(connection: &Connection, id: &str, day: &str) -> rusqlite::Result<()> {
    let sql = "UPDATE api_keys SET last_used = ?2 WHERE id = ?1 AND last_used IS NOT ?2";
    connection.prepare_cached(sql)?.execute([id, day])?;
    Ok(())
}

pub(super) fn budgets(
    connection: &Connection,
    periods: &[&str],
) -> rusqlite::Result<Vec<BudgetRecord>> {
    let marks = vec!["?"; periods.len()].join(", ");
    let sql = format!("SELECT key, period, tokens FROM budgets WHERE period IN ({marks})");
    let mut statement = connection.prepare(&sql)?;
    let periods = periods.iter().map(|period| period as &dyn ToSql);
    let rows = statement.query_map(rusqlite::params_from_iter(periods), |row| {
        Ok(BudgetRecord {
            key: row.get(0)?,
            period: row.get(1)?,
            tokens: unsigned(row, 2)?,
        })
    })?;
    rows.collect()
}

pub(super) fn put_budget(
    connection: &Connection,
    key: &[u8; 32],
    period: &str,
    tokens: u64,
    now_ms: u64,
) -> rusqlite::Result<()> {
    let sql =
        "INSERT OR REPLACE INTO budgets (key, period, tokens, changed_ms) VALUES (?1, ?2, ?3, ?4)";
    let row = params![key, period, number(tokens), number(now_ms)];
    connection.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

/// Tells other processes that revocations or keys have changed. Returns how often they have.
pub(super) fn count_change(connection: &Connection) -> rusqlite::Result<i64> {
    connection.execute("UPDATE rights SET changes = changes + 1", [])?;
    changes(connection)
}

/// How often revocations or keys have changed.
pub(super) fn changes(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_one("SELECT changes FROM rights", [], |row| row.get(0))
}

fn words(what: &RevokedName) -> (&'static str, &str) {
    match what {
        RevokedName::Token(name) => ("token", name),
        RevokedName::Subject(name) => ("subject", name),
        RevokedName::Client(name) => ("client", name),
        RevokedName::Key(name) => ("key", name),
        RevokedName::Issuer => ("issuer", ""),
    }
}

/// SQLite's numbers are signed. What does not fit is as good as the largest that does.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(index)?).unwrap_or(0))
}

fn maybe(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<u64>> {
    let value: Option<i64> = row.get(index)?;
    Ok(value.map(|value| u64::try_from(value).unwrap_or(0)))
}
