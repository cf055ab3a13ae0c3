//! What can be typed after `mixgate token`, and what is printed.

use std::io::{self, BufRead, Read, Write};

use super::serve::runtime;
use super::token::{self, MintArgs, TokenError};
use super::{Failure, rooms};
use crate::auth::BuiltinIssuer;
use crate::clock::Clock;
use crate::config::{Args, Config};

/// What to do with tokens.
#[derive(Debug, clap::Subcommand)]
pub(super) enum TokenCommand {
    /// Print a token of this machine's own issuer, alone on stdout
    #[command(after_long_help = MINT_EXAMPLES)]
    Mint(Mint),
    /// Say who a token is for, or why it fails
    #[command(after_long_help = VERIFY_EXAMPLES)]
    Verify(Verify),
    /// Put a new signing key in place; the old one goes on verifying
    #[command(after_long_help = ROTATE_EXAMPLES)]
    Rotate(Rotate),
    /// List the keys of this machine's own issuer
    Keys,
}

/// What a token shall say.
#[derive(Debug, clap::Args)]
pub(super) struct Mint {
    /// Whom the token is for
    #[arg(long, value_name = "SUBJECT")]
    pub sub: String,
    /// How long it is good, such as 15m or 12h
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub ttl: String,
    /// What it allows, separated by spaces
    #[arg(long, value_name = "SCOPES", default_value = "chat models")]
    pub scope: String,
    /// A further claim: name=text, or name:=json. May be given again
    #[arg(long = "claim", value_name = "NAME=TEXT")]
    pub claims: Vec<String>,
}

/// Which token to check.
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The token; without it, it is read from stdin, which keeps it out of the list of processes
    #[arg(value_name = "TOKEN")]
    pub token: Option<String>,
}

/// What becomes of the key in use.
#[derive(Debug, clap::Args)]
pub(super) struct Rotate {
    /// How long tokens of the old key are still taken
    #[arg(long, value_name = "TIME", default_value = "30d")]
    pub keep: String,
    /// End all earlier keys now: every token minted so far is refused from then on
    #[arg(long, conflicts_with = "keep")]
    pub retire_now: bool,
}

/// Runs `mixgate token …`.
pub(super) fn run(command: &TokenCommand, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let config = Config::load(args)?;
    let clock = Clock::system();
    let said = match command {
        TokenCommand::Mint(typed) => mint(typed, &config, &clock)?,
        TokenCommand::Verify(typed) => {
            let token = match &typed.token {
                Some(token) => token.clone(),
                None => from_stdin()?,
            };
            let gate = rooms::gate(&config, clock)?;
            runtime()?.block_on(gate.fetch_for(token::bare(&token).as_bytes()));
            token::verify(&token, &gate).map_err(refused)?
        }
        TokenCommand::Rotate(typed) => rotate(typed, &config, &clock)?,
        TokenCommand::Keys => {
            has_own_issuer(&config)?;
            token::keys(&rooms::builtin(&config)?, clock.unix_seconds())
        }
    };
    Ok(writeln!(out, "{said}")?)
}

fn mint(typed: &Mint, config: &Config, clock: &Clock) -> Result<String, Failure> {
    has_own_issuer(config)?;
    let args = MintArgs {
        subject: typed.sub.clone(),
        ttl: typed.ttl.clone(),
        scopes: typed.scope.clone(),
        claims: typed.claims.clone(),
    };
    token::mint(&args, &rooms::builtin(config)?, clock).map_err(refused)
}

fn rotate(typed: &Rotate, config: &Config, clock: &Clock) -> Result<String, Failure> {
    has_own_issuer(config)?;
    let keep = match typed.retire_now {
        true => None,
        false => Some(token::parse_ttl(&typed.keep).map_err(refused)?),
    };
    let now = clock.unix_seconds();
    let issuer = BuiltinIssuer::rotate(&config.auth.state_dir, keep, now)
        .map_err(|error| Failure::of(&error).hint_if(error.hint()))?;
    Ok(token::keys(&issuer, now))
}

fn has_own_issuer(config: &Config) -> Result<(), Failure> {
    if config.has_issuers() {
        return Err(Failure::new(
            "the server believes configured issuers, so its own tokens are worthless",
        )
        .hint("ask your identity provider for a token"));
    }
    Ok(())
}

fn refused(error: TokenError) -> Failure {
    Failure::of(&error).hint_if(error.hint())
}

/// The first line that is typed or piped.
fn from_stdin() -> Result<String, Failure> {
    let mut line = String::new();
    // A token is at most 16 KiB; whoever pipes a disk here by mistake hears so at once.
    io::stdin()
        .lock()
        .take(MOST_READ)
        .read_line(&mut line)
        .map_err(|error| Failure::new("cannot read a token from stdin").caused_by(&error))?;
    Ok(line)
}

/// The longest token that the gate looks at, and what people paste around it.
const MOST_READ: u64 = 17 << 10;

const MINT_EXAMPLES: &str = "\
Examples:
  export TOKEN=$(mixgate token mint --sub you)
  mixgate token mint --sub bench --ttl 2h --scope \"chat models metrics\" --claim tenant=acme";

const VERIFY_EXAMPLES: &str = "\
Examples:
  mixgate token verify <<< \"$TOKEN\"
  mixgate token verify --config /etc/mixgate/config.toml < token.txt";

const ROTATE_EXAMPLES: &str = "\
A running server takes up the new key by itself, within a second.

Examples:
  mixgate token rotate                       tokens of the old key are taken until they expire
  mixgate token rotate --keep 1d
  mixgate token rotate --retire-now          a key has leaked: no token minted so far is good any more";
