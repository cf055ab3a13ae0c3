//! `mixgate revoke …`: takes rights away by writing to the ledger, which a running server follows.

#[cfg(test)]
mod tests;

use std::io::{self, BufRead, Read, Write};

use super::Failure;
use super::key::{table, time, when};
use super::rooms::{self, of_ledger};
use crate::auth::{
    BuiltinIssuer, CERTIFICATES_ISSUER, Gate, KEYS_ISSUER, revocation, revoked_name, revoked_words,
};
use crate::clock::{Clock, utc_minute};
use crate::config::{Args, Config};
use crate::ledger::{Ledger, RevocationRecord, RevokedName};

/// What to revoke.
#[derive(Debug, clap::Subcommand)]
pub(super) enum RevokeCommand {
    /// One token, by its `jti` or by itself
    #[command(after_long_help = TOKEN_EXAMPLES)]
    Token(Token),
    /// All that a subject has been given so far
    Subject(Named),
    /// All that a client application has been given so far
    Client(Named),
    /// All that a key has signed, by its `kid`
    Key(Named),
    /// All that an issuer has given to anybody so far
    Issuer(Issuer),
    /// List what is revoked
    List,
}

/// Which token.
#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, multiple = false, args = ["id", "token"])]
pub(super) struct Token {
    /// Its `jti`, which `mixgate token verify` shows
    #[arg(value_name = "JTI")]
    pub id: Option<String>,
    /// The token itself, which names its id and issuer; `-` reads it from stdin
    #[arg(long, value_name = "TOKEN", conflicts_with = "issuer")]
    pub token: Option<String>,
    #[command(flatten)]
    pub whose: Whose,
    #[command(flatten)]
    pub how: How,
}

/// Which one of an issuer's.
#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// Which one
    #[arg(value_name = "NAME")]
    pub name: String,
    #[command(flatten)]
    pub whose: Whose,
    #[command(flatten)]
    pub how: How,
}

/// Which issuer.
#[derive(Debug, clap::Args)]
pub(super) struct Issuer {
    /// Exactly the tokens' `iss`
    #[arg(value_name = "ISSUER")]
    pub issuer: String,
    #[command(flatten)]
    pub how: How,
}

/// By whom the name is meant.
#[derive(Debug, clap::Args)]
pub(super) struct Whose {
    /// Exactly the tokens' `iss`; `mixgate:keys` for API keys, `mixgate:mtls` for certificates. Default: the only one
    #[arg(long, value_name = "ISSUER")]
    pub issuer: Option<String>,
}

/// For how long.
#[derive(Debug, Default, clap::Args)]
pub(super) struct How {
    /// How long it holds, such as 30d. Without it: for ever
    #[arg(long = "for", value_name = "TIME", conflicts_with = "undo")]
    pub lasts: Option<String>,
    /// Take the revocation back
    #[arg(long)]
    pub undo: bool,
}

/// Runs `mixgate revoke …`.
pub(super) fn run(command: RevokeCommand, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let config = Config::load(args)?;
    let clock = Clock::system();
    let ledger = rooms::ledger_file(&config, clock.clone())?;
    let now = clock.unix_seconds();
    if matches!(command, RevokeCommand::List) {
        return Ok(out.write_all(list(&ledger, now)?.as_bytes())?);
    }
    let known = issuers(&config);
    let gate = rooms::try_gate(&config, clock)?;
    let wish = wish(command, &known, &gate, now)?;
    if !known.contains(&wish.issuer) && ![KEYS_ISSUER, CERTIFICATES_ISSUER].contains(&&*wish.issuer)
    {
        // An issuer with a template stands for many, so that an unknown name may be right.
        let _ = writeln!(
            io::stderr(),
            "note: no configured issuer is exactly `{}`; a trailing slash counts",
            wish.issuer
        );
    }
    let said = carry_out(&wish, &ledger, now)?;
    Ok(writeln!(out, "{said}")?)
}

/// What was asked for, all defaults filled in.
#[derive(Debug, PartialEq)]
struct Wish {
    what: RevokedName,
    issuer: String,
    /// Seconds.
    lasts: Option<u64>,
    undo: bool,
}

/// Understands what was typed, where `known` are the issuers that the configuration names.
fn wish(command: RevokeCommand, known: &[String], gate: &Gate, now: u64) -> Result<Wish, Failure> {
    let (kind, value, issuer, how) = match command {
        RevokeCommand::Token(Token {
            token: Some(token),
            how,
            ..
        }) => return of_token(&token, &how, gate, now),
        RevokeCommand::Token(typed) => ("token", typed.id, typed.whose.issuer, typed.how),
        RevokeCommand::Subject(typed) => {
            ("subject", Some(typed.name), typed.whose.issuer, typed.how)
        }
        RevokeCommand::Client(typed) => ("client", Some(typed.name), typed.whose.issuer, typed.how),
        RevokeCommand::Key(typed) => ("key", Some(typed.name), typed.whose.issuer, typed.how),
        RevokeCommand::Issuer(typed) => ("issuer", None, Some(typed.issuer), typed.how),
        RevokeCommand::List => return Err(Failure::new("nothing is to be revoked")),
    };
    let what = revoked_name(kind, value.as_deref()).map_err(|error| Failure::of(&error).usage())?;
    let issuer = match (issuer, known) {
        (Some(issuer), _) => issuer,
        (None, [only]) => only.clone(),
        (None, several) => {
            let failure = Failure::new(format!("by which issuer is the {kind} meant?")).usage();
            return Err(failure.hint(format!("--issuer takes one of: {}", several.join(", "))));
        }
    };
    let lasts = how.lasts.as_deref().map(time).transpose()?;
    Ok(Wish {
        what,
        issuer,
        lasts: lasts.map(|lasts| lasts.as_secs()),
        undo: how.undo,
    })
}

/// What a token says of itself is enough to revoke it: the worst that a forged one does is to revoke nothing.
fn of_token(token: &str, how: &How, gate: &Gate, now: u64) -> Result<Wish, Failure> {
    let token = match token {
        "-" => from_stdin()?,
        token => token.to_owned(),
    };
    let said = gate.peek(&token).map_err(|denied| {
        Failure::new(format!(
            "that is no token of a known issuer: {}",
            denied.detail()
        ))
        .hint("an API key is revoked by its id: mixgate key revoke")
    })?;
    let Some(id) = said.id else {
        return Err(
            Failure::new("the token has no id (`jti`), so that nothing names it")
                .hint("revoke its subject (mixgate revoke subject), or its key"),
        );
    };
    // Once it has expired by any clock, nothing needs to be remembered of it.
    let left = said
        .expires
        .map(|end| end.saturating_sub(now).saturating_add(MOST_SKEW));
    let lasts = match how.lasts.as_deref().map(time).transpose()? {
        Some(lasts) => Some(lasts.as_secs()),
        None => left,
    };
    Ok(Wish {
        what: RevokedName::Token(id),
        issuer: said.issuer,
        lasts,
        undo: how.undo,
    })
}

/// Writes it down, and says what was done.
fn carry_out(wish: &Wish, ledger: &Ledger, now: u64) -> Result<String, Failure> {
    let Wish {
        what,
        issuer,
        lasts,
        undo,
    } = wish;
    let named = in_words(what, issuer);
    if *undo {
        return match ledger.unrevoke(what, issuer).map_err(of_ledger)? {
            0 => Err(Failure::new(format!("no revocation names {named}"))
                .hint("mixgate revoke list shows all")),
            _ => Ok(format!("given back: {named}")),
        };
    }
    let lasts = lasts.map(std::time::Duration::from_secs);
    let record = revocation(what.clone(), issuer, lasts, now)
        .map_err(|error| Failure::of(&error).usage())?;
    ledger.revoke(&record).map_err(of_ledger)?;
    let before = match what {
        RevokedName::Token(_) | RevokedName::Key(_) => "",
        _ => ", as far as issued until now",
    };
    let until = record.until.map_or_else(String::new, |until| {
        format!(", until {} UTC", utc_minute(until))
    });
    Ok(format!("revoked: {named}{before}{until}"))
}

/// What is revoked now.
fn list(ledger: &Ledger, now: u64) -> Result<String, Failure> {
    let mut records = ledger.revocations(now).map_err(of_ledger)?;
    records.sort_by_key(|record| record.at);
    let header = ["WHAT", "NAME", "ISSUER", "SINCE", "UNTIL"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(records.iter().map(|record: &RevocationRecord| {
        let (kind, value) = revoked_words(&record.what);
        [
            kind.to_owned(),
            value.unwrap_or("-").to_owned(),
            record.issuer.clone(),
            utc_minute(record.at),
            when(record.until, "for ever"),
        ]
    }));
    Ok(table(&rows))
}

fn in_words(what: &RevokedName, issuer: &str) -> String {
    match revoked_words(what) {
        (kind, Some(value)) => format!("{kind} {value} of {issuer}"),
        (kind, None) => format!("{kind} {issuer}"),
    }
}

/// The issuers whose tokens the server believes.
fn issuers(config: &Config) -> Vec<String> {
    if config.has_issuers() {
        let issuers = config.auth.gate.issuers.iter();
        issuers.map(|entry| entry.issuer.clone()).collect()
    } else {
        vec![BuiltinIssuer::ISSUER.to_owned()]
    }
}

fn from_stdin() -> Result<String, Failure> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .take(MOST_READ)
        .read_line(&mut line)
        .map_err(|error| Failure::new("cannot read a token from stdin").caused_by(&error))?;
    Ok(line)
}

/// The longest token that the gate looks at, and what people paste around it.
const MOST_READ: u64 = 17 << 10;

/// Seconds by which an issuer's clock may differ at most.
const MOST_SKEW: u64 = 300;

const TOKEN_EXAMPLES: &str = "\
Examples:
  mixgate revoke token 3q2-7wSmTuGzOw
  mixgate revoke token --token - <<< \"$TOKEN\"
  mixgate revoke token 3q2-7wSmTuGzOw --undo";
