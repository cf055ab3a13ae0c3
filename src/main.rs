//! Parses the command line, runs one command, prints one error well.

use std::process::ExitCode;

fn main() -> ExitCode {
    mixgate::cli::main()
}
