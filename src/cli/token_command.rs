//! What can be typed after `mixgate token`, and what is printed.

use std::io::Write;

use super::Failure;
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

/// Runs `mixgate token …`.
pub(super) fn run(command: &TokenCommand, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let config = Config::load(args)?;
    let _ = (command, config, out);
    Err(Failure::new("this build has no issuer"))
}

const MINT_EXAMPLES: &str = "\
Examples:
  export TOKEN=$(mixgate token mint --sub you)
  mixgate token mint --sub bench --ttl 2h --scope \"chat models metrics\" --claim tenant=acme";

const VERIFY_EXAMPLES: &str = "\
Examples:
  mixgate token verify <<< \"$TOKEN\"
  mixgate token verify --config /etc/mixgate/config.toml < token.txt";
