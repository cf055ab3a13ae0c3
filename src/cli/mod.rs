//! One file per command. [`main`] parses, runs one command and prints one error well.
//!
//! stdout carries what was asked for, stderr everything else. `args` is what can be typed, `rooms` is where the parts
//! of the server are put together.

mod args;
mod bench;
mod certificates;
mod configuration;
mod demo;
mod drain;
mod failure;
mod gpu;
mod http;
mod key;
mod loading;
mod memory;
mod policy;
mod public_prefixes;
mod reload;
mod revoke;
mod room;
mod rooms;
mod routes;
mod serve;
mod startup;
pub mod token;
mod token_command;
mod usage;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

pub use failure::Failure;

use crate::config::Env;
use args::Command;

/// Parses the command line and runs one command.
pub fn main() -> ExitCode {
    let typed: Vec<OsString> = std::env::args_os().collect();
    let (command, args) = match args::parse(typed, Env::system()) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and the version are errors to clap too; whether they could be written changes nothing.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let out = &mut io::stdout().lock();
    let result = match command {
        Command::Serve => serve::run(&args, out),
        Command::Demo => demo::run(&args, out),
        Command::Routes => routes::run(out),
        Command::ConfigShow { origins } => configuration::show(&args, origins, out),
        Command::ConfigCheck => configuration::check(&args, out),
        Command::ConfigInit => configuration::init(out),
        Command::Bench(command) => bench::run(&command, &args, out),
        Command::Key(command) => key::run(command, &args, out),
        Command::Revoke(command) => revoke::run(command, &args, out),
        Command::Usage(typed) => usage::run(&typed, &args, out),
        Command::Policy(command) => policy::run(&command, &args, out),
        Command::Token(command) => token_command::run(&command, &args, out),
    };
    match result.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                let _ = writeln!(io::stderr(), "{failure}");
            }
            failure.code()
        }
    }
}
