//! How a command fails: one error, its causes, and what to do next.

use std::error::Error;
use std::fmt::{self, Write};
use std::io;
use std::process::ExitCode;

use crate::config::ConfigError;

/// What went wrong, for a person. Never holds a token, a key or a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// A failure that nothing else caused.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            code: FAILED,
        }
    }

    /// The failure that `error` and its sources tell.
    pub fn of(error: &dyn Error) -> Self {
        let mut failure = Self::new(error.to_string());
        failure.add_sources(error);
        failure
    }

    /// Adds `error` and its sources as what caused this.
    pub fn caused_by(mut self, error: &dyn Error) -> Self {
        self.causes.push(error.to_string());
        self.add_sources(error);
        self
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what to do next, if that is known.
    pub fn hint_if(self, hint: Option<&str>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Says that the command line itself is at fault.
    pub fn usage(mut self) -> Self {
        self.code = USAGE;
        self
    }

    /// 1; 2 if the command line is at fault; 0 if the reader of our output has merely seen enough.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    /// Whether there is anything to tell.
    pub fn is_silent(&self) -> bool {
        self.code == 0
    }

    fn add_sources(&mut self, error: &dyn Error) {
        let mut source = error.source();
        while let Some(cause) = source {
            // Some errors tell their source themselves.
            let text = cause.to_string();
            let told =
                self.message.contains(&text) || self.causes.iter().any(|told| told.contains(&text));
            if !told {
                self.causes.push(text);
            }
            source = cause.source();
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for cause in &self.causes {
            write!(f, "\n  caused by: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            f.write_char('\n')?;
            write!(f, "hint: {hint}")?;
        }
        Ok(())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let mut failure = Self::of(&error);
        failure.hint = error.hint();
        if error.is_usage() {
            failure.usage()
        } else {
            failure
        }
    }
}

/// Failures to write to stdout: all other I/O says itself what it was about.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let mut failure = Self::new("cannot write to stdout").caused_by(&error);
        // `mixgate config show | head -1` is no failure.
        if error.kind() == io::ErrorKind::BrokenPipe {
            failure.code = 0;
        }
        failure
    }
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read weights")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_failure_tells_the_error_its_causes_and_a_hint() {
        let error = Outer(io::Error::other("disk on fire"));
        let failure = Failure::of(&error).hint("call the fire brigade");
        assert_eq!(
            failure.to_string(),
            "error: cannot read weights\n  caused by: disk on fire\nhint: call the fire brigade"
        );
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read weights: {0}")]
    struct Telling(#[source] io::Error);

    #[test]
    fn a_cause_is_told_once() {
        let failure = Failure::of(&Telling(io::Error::other("disk on fire")));
        assert_eq!(
            failure.to_string(),
            "error: cannot read weights: disk on fire"
        );
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        assert!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).is_silent());
        assert!(!Failure::from(io::Error::from(io::ErrorKind::StorageFull)).is_silent());
    }
}
