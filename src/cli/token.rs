//! `mixgate token`: make a token with this machine's own key, or say why a token fails.

use std::io::Write;

use super::Failure;
use crate::config::{Args, Config};

/// What to do with tokens.
#[derive(Debug, clap::Subcommand)]
pub(super) enum TokenCommand {
    /// Print a token of the built-in issuer, alone on stdout
    Mint(MintArgs),
    /// Say who a token is for, or why it fails
    Verify(VerifyArgs),
}

/// What a token shall say.
#[derive(Debug, clap::Args)]
pub(super) struct MintArgs {
    /// Whom the token is for
    #[arg(long, value_name = "SUBJECT")]
    pub sub: String,
    /// How long it is good
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub ttl: String,
    /// What it allows, separated by spaces
    #[arg(long, value_name = "SCOPES")]
    pub scope: Option<String>,
    /// A further claim; may be given again
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    pub claims: Vec<String>,
}

/// Which token to check.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// The token; without it, it is read from stdin, which keeps it out of the list of processes
    #[arg(value_name = "TOKEN")]
    pub token: Option<String>,
}

/// Runs `mixgate token …`.
pub(super) fn run(command: &TokenCommand, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let config = Config::load(args)?;
    let _ = (command, config, out);
    Err(Failure::new("no tokens can be minted or checked yet"))
}
