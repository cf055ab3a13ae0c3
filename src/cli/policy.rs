//! `mixgate policy`: whether a policy would be taken, and what it gives to whom.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value};

use super::token_command::from_stdin;
use super::{Failure, rooms, serve};
use crate::auth::policy::{Explanation, Question, reference, schema};
use crate::auth::{Access, Caller, Denied, Gate};
use crate::clock::Clock;
use crate::config::{Args, Config};
use crate::server::routes;

/// What to do with a policy.
#[derive(Debug, clap::Subcommand)]
pub(super) enum PolicyCommand {
    /// Say whether `serve` would take a policy, or everything that is wrong with it
    Check(Check),
    /// Say which rule gives or refuses what to a caller
    #[command(after_long_help = EXPLAIN_EXAMPLES)]
    Explain(Explain),
    /// Print the JSON schema of the policy file
    Schema,
    /// Print every key of the policy file, as Markdown
    Reference,
}

/// Which policy to check.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The file; without it, the one that policy_file names
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Whom to explain the policy for, and which request.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("who").required(true))]
pub(super) struct Explain {
    /// The caller's token; - reads it from stdin, which keeps it out of the list of processes
    #[arg(long, value_name = "TOKEN", group = "who")]
    pub token: Option<String>,
    /// A JSON file with the claims of a token that nobody need have signed
    #[arg(long, value_name = "FILE", group = "who")]
    pub claims: Option<PathBuf>,
    /// The model that it asks for
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// The route that it uses, such as chat
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// Its max_tokens
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// Where it calls from
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub address: IpAddr,
}

/// Runs `mixgate policy …`.
pub(super) fn run(
    command: &PolicyCommand,
    args: &Args,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match command {
        PolicyCommand::Check(typed) => check(typed, args, out),
        PolicyCommand::Explain(typed) => explain(typed, args, out),
        PolicyCommand::Schema => Ok(out.write_all(schema().as_bytes())?),
        PolicyCommand::Reference => Ok(out.write_all(reference().as_bytes())?),
    }
}

fn check(typed: &Check, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let mut config = Config::load(args)?;
    if let Some(file) = &typed.file {
        config.auth.policy_file = Some(args.folder.join(file));
    }
    let path = policy_file(&config)?.to_owned();
    let gate = rooms::try_gate(&config, Clock::system())?;
    let policy = gate.policy().current();
    writeln!(out, "ok ({})", path.display())?;
    let names: Vec<&str> = policy.rule_names().collect();
    writeln!(out, "{} rules: {}", names.len(), names.join(", "))?;
    match policy.address_counts() {
        (None, 0) => Ok(()),
        (None, denied) => Ok(writeln!(out, "addresses: all but {denied} networks")?),
        (Some(allowed), denied) => Ok(writeln!(
            out,
            "addresses: {allowed} networks, less {denied}"
        )?),
    }
}

fn explain(typed: &Explain, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let config = Config::load(args)?;
    let question = Question {
        address: typed.address.to_canonical(),
        model: typed.model.clone(),
        route: typed.route.as_deref().map(route).transpose()?,
        max_tokens: typed.max_tokens,
    };
    let explanation = match &typed.claims {
        Some(path) => {
            let claims = claims(path)?;
            let gate = rooms::try_gate(&config, Clock::system())?;
            gate.explain_claims(claims, &question)
        }
        None => {
            let token = match typed.token.as_deref() {
                Some("-") | None => from_stdin()?,
                Some(token) => token.to_owned(),
            };
            let gate = rooms::gate(&config, Clock::system())?;
            explain_token(&gate, token.trim(), &question)?
        }
    };
    let explanation = explanation.map_err(|denied| {
        Failure::new(denied.to_string()).hint("the credential is refused before any policy")
    })?;
    out.write_all(explanation.text().as_bytes())?;
    match explanation.refusal() {
        None => Ok(()),
        Some(denied) => Err(Failure::new(format!(
            "the request would be refused ({} {})",
            denied.status(),
            denied.code()
        ))),
    }
}

fn explain_token(
    gate: &Gate,
    token: &str,
    question: &Question,
) -> Result<Result<Explanation, Denied>, Failure> {
    let mut headers = HeaderMap::new();
    let bearer = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Failure::new("the token has characters that no token has"))?;
    headers.insert(AUTHORIZATION, bearer);
    let caller = Caller {
        address: question.address,
        ..Caller::local(&headers)
    };
    let known = serve::runtime()?.block_on(gate.authenticate(caller));
    let policy = gate.policy().current();
    Ok(known.map(|identity| policy.explain(&identity, question)))
}

/// A route's name, and what its row asks for.
fn route(name: &str) -> Result<(String, Access), Failure> {
    let row = routes().iter().find(|row| row.name() == name);
    match row {
        Some(row) => Ok((name.to_owned(), row.access)),
        None => Err(Failure::new(format!("there is no route {name:?}"))
            .hint("`mixgate routes` lists them")
            .usage()),
    }
}

fn claims(path: &Path) -> Result<Map<String, Value>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("cannot read {}", path.display())).caused_by(&error)
    })?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::new(format!("{} is no JSON object", path.display())).caused_by(&error)
    })
}

fn policy_file(config: &Config) -> Result<&Path, Failure> {
    config.auth.policy_file.as_deref().ok_or_else(|| {
        Failure::new("no policy is configured")
            .hint("name one: mixgate policy check FILE, or policy_file in mixgate.toml")
            .usage()
    })
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  mixgate policy explain --token - <<< \"$TOKEN\"
  mixgate policy explain --claims ann.json --model mixtral-8x7b --route chat --max-tokens 4096";
