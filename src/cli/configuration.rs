//! `mixgate config`: what is in force, and whether it could be.

use std::io::Write;

use super::loading::null_cache;
use super::{Failure, rooms};
use crate::clock::Clock;
use crate::config::{Args, Config, Model, template};

/// Prints the configuration in force.
pub(super) fn show(args: &Args, origins: bool, out: &mut dyn Write) -> Result<(), Failure> {
    Ok(out.write_all(Config::load(args)?.show(origins).as_bytes())?)
}

/// Says whether `serve` would accept the configuration.
pub(super) fn check(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let config = Config::load(args)?;
    config.check_exposure()?;
    rooms::try_gate(&config, Clock::system())?;
    if let Some(tls) = &config.server.tls {
        let checked = tls.check(&Clock::system());
        checked.map_err(|error| Failure::of(&error).hint_if(error.hint()))?;
    }
    if let Model::Null(name) = config.model.source {
        null_cache(name)?;
    }
    let read = config
        .file
        .as_ref()
        .map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
    Ok(writeln!(out, "ok ({read})")?)
}

/// Prints a file with every setting in it, each explained and commented out.
pub(super) fn init(out: &mut dyn Write) -> Result<(), Failure> {
    Ok(out.write_all(template().as_bytes())?)
}
