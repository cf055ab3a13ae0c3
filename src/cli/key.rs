//! `mixgate key …`: API keys in the ledger. A running server takes them up at once.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use super::Failure;
use super::rooms::{self, of_ledger};
use super::token::parse_ttl;
use crate::auth::{ApiKeyError, NewApiKey, api_key_state, is_api_key_id};
use crate::clock::{Clock, utc_minute};
use crate::config::{Args, Config};
use crate::ledger::{ApiKeyRecord, Ledger};
use crate::telemetry::Secret;

/// What to do with API keys.
#[derive(Debug, clap::Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key and print it, alone on stdout. It is never shown again
    #[command(after_long_help = EXAMPLES)]
    Create(Create),
    /// List all keys; a key itself is nowhere to be read
    List,
    /// Revoke a key, and end what runs under it
    Revoke(Revoke),
    /// Print a new key in place of an old one, which stays good for a while
    Rotate(Rotate),
}

/// What a key shall say.
#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// Whom the key is for
    #[arg(long, value_name = "SUBJECT")]
    pub sub: String,
    /// The subject's tenant
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// What it allows, separated by spaces
    #[arg(long, value_name = "SCOPES", default_value = "chat models")]
    pub scope: String,
    /// How long it is good, such as 90d. Without it: until it is revoked
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// What it is for, to be found in lists
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
}

/// Which key.
#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// Its id: the eight characters after `mg_`
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Which key, and what happens to it.
#[derive(Debug, clap::Args)]
pub(super) struct Rotate {
    /// Its id: the eight characters after `mg_`
    #[arg(value_name = "ID")]
    pub id: String,
    /// How long the old key stays good
    #[arg(long, value_name = "TIME", default_value = "1d")]
    pub keep: String,
}

/// Runs `mixgate key …`.
pub(super) fn run(command: KeyCommand, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let config = Config::load(args)?;
    let clock = Clock::system();
    let ledger = rooms::ledger_file(&config, clock.clone())?;
    let now = clock.unix_seconds();
    match command {
        KeyCommand::Create(typed) => {
            let (key, record) = create(typed, &ledger, now)?;
            hand_over(&key, &record, out)
        }
        KeyCommand::List => Ok(out.write_all(list(&ledger, now)?.as_bytes())?),
        KeyCommand::Revoke(typed) => {
            let record = revoke(&typed.id, &ledger, now)?;
            Ok(writeln!(out, "revoked: {}", whose(&record))?)
        }
        KeyCommand::Rotate(typed) => {
            let (key, record) = rotate(&typed, &ledger, now)?;
            hand_over(&key, &record, out)
        }
    }
}

/// The key on stdout, for `KEY=$(mixgate key create …)`; what a person wants to know of it on stderr.
fn hand_over(
    key: &Secret<String>,
    record: &ApiKeyRecord,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    writeln!(out, "{}", key.expose())?;
    // Whoever does not read it has the key all the same.
    let _ = writeln!(
        io::stderr(),
        "made: {}, scopes {}, expires {}\nkeep it now: it is not shown again",
        whose(record),
        or_dash(&record.scopes),
        when(record.expires, "never")
    );
    Ok(())
}

/// Makes a key and writes it down.
fn create(
    typed: Create,
    ledger: &Ledger,
    now: u64,
) -> Result<(Secret<String>, ApiKeyRecord), Failure> {
    let lasts = typed.expires.as_deref().map(time).transpose()?;
    let new = NewApiKey {
        subject: typed.sub,
        tenant: typed.tenant,
        scopes: typed.scope,
        expires: lasts.map(|lasts| now.saturating_add(lasts.as_secs())),
        note: typed.note,
    };
    make(new, ledger, now)
}

fn make(
    new: NewApiKey,
    ledger: &Ledger,
    now: u64,
) -> Result<(Secret<String>, ApiKeyRecord), Failure> {
    let (key, record) = new.make(now).map_err(|error| match error {
        ApiKeyError::Expired { .. } => Failure::new("the key would expire at once").hint(TIMES),
        _ => Failure::of(&error),
    })?;
    ledger.put_api_key(&record).map_err(of_ledger)?;
    Ok((key, record))
}

/// Revokes a key. The first time counts.
fn revoke(id: &str, ledger: &Ledger, now: u64) -> Result<ApiKeyRecord, Failure> {
    let mut record = find(id, ledger)?;
    if record.revoked.is_none() {
        record.revoked = Some(now);
        ledger.put_api_key(&record).map_err(of_ledger)?;
    }
    Ok(record)
}

/// Makes a key that says what the old one says and lives as long from now on, and gives the old one an end.
fn rotate(
    typed: &Rotate,
    ledger: &Ledger,
    now: u64,
) -> Result<(Secret<String>, ApiKeyRecord), Failure> {
    let keep = time(&typed.keep)?;
    let mut old = find(&typed.id, ledger)?;
    let state = api_key_state(&old, now);
    if state != "active" {
        return Err(Failure::new(format!(
            "the key {} is {state}: there is nothing to carry over",
            old.id
        ))
        .hint("make a new one: mixgate key create"));
    }
    let life = old.expires.map(|end| end.saturating_sub(old.created));
    let new = NewApiKey {
        subject: old.subject.clone(),
        tenant: old.tenant.clone(),
        scopes: old.scopes.clone(),
        expires: life.map(|life| now.saturating_add(life)),
        note: old.note.clone(),
    };
    // The new one first: should the second fail, there are two keys and not none.
    let made = make(new, ledger, now)?;
    let end = now.saturating_add(keep.as_secs());
    old.expires = Some(old.expires.map_or(end, |earlier| earlier.min(end)));
    ledger.put_api_key(&old).map_err(of_ledger)?;
    Ok(made)
}

fn find(id: &str, ledger: &Ledger) -> Result<ApiKeyRecord, Failure> {
    if !is_api_key_id(id) {
        // It may be a whole key: it must not be shown.
        return Err(Failure::new("that is no key's id")
            .hint("an id is the eight characters after `mg_`: mixgate key list shows all"));
    }
    let known = ledger.api_keys().map_err(of_ledger)?;
    let found = known.into_iter().find(|key| key.id == id);
    found.ok_or_else(|| {
        Failure::new(format!("there is no key {id}")).hint("mixgate key list shows all")
    })
}

/// All keys, the latest last.
fn list(ledger: &Ledger, now: u64) -> Result<String, Failure> {
    let mut keys = ledger.api_keys().map_err(of_ledger)?;
    keys.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
    let header = [
        "ID",
        "SUBJECT",
        "TENANT",
        "SCOPES",
        "CREATED",
        "EXPIRES",
        "LAST USED",
        "STATE",
        "NOTE",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(keys.iter().map(|key| {
        let text = |text: &Option<String>| or_dash(text.as_deref().unwrap_or_default()).to_owned();
        [
            key.id.clone(),
            key.subject.clone(),
            text(&key.tenant),
            or_dash(&key.scopes).to_owned(),
            utc_minute(key.created),
            when(key.expires, "never"),
            key.last_used.clone().unwrap_or_else(|| "never".to_owned()),
            api_key_state(key, now).to_owned(),
            text(&key.note),
        ]
    }));
    Ok(table(&rows))
}

/// Rows as aligned columns, two spaces apart.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(line, "{cell:<0$}  ", width(column));
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn whose(record: &ApiKeyRecord) -> String {
    let tenant = record.tenant.as_deref();
    let of_tenant = tenant.map_or_else(String::new, |tenant| format!(" of {tenant}"));
    format!("key {} of {}{of_tenant}", record.id, record.subject)
}

pub(super) fn when(second: Option<u64>, otherwise: &str) -> String {
    second.map_or_else(|| otherwise.to_owned(), utc_minute)
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// A length of time as typed.
pub(super) fn time(typed: &str) -> Result<Duration, Failure> {
    parse_ttl(typed).map_err(|error| Failure::of(&error).hint_if(error.hint()).usage())
}

const TIMES: &str = "write a number and a unit: 12h, 30d or 90d";

const EXAMPLES: &str = "\
Examples:
  KEY=$(mixgate key create --sub nightly-report --tenant acme --expires 90d)
  mixgate key create --sub dashboard --scope metrics --note \"Grafana\"";
