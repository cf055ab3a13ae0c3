//! One file per command.

pub mod token;

use std::process::ExitCode;

/// Parses the command line and runs one command.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
