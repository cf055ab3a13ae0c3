//! Logs, and the type that keeps secrets out of them.
//!
//! Log lines go to stderr: stdout belongs to what a command was asked for.

use std::any::Any;
use std::fmt;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Starts logging for the whole process. A second call changes nothing, so that a test may start two servers.
///
/// From then on panics are log lines too, without the words that a panic may have formatted: slicing a text badly
/// quotes the text, which may be a prompt.
pub fn init(settings: &LogSettings) {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(
            place = place.unwrap_or_default(),
            thread = thread.name().unwrap_or_default(),
            said = harmless(panic.payload()),
            "a thread panicked. This is a bug."
        );
    }));
    let is_terminal = io::stderr().is_terminal();
    let filter = EnvFilter::new(settings.filter.as_str());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let _already_started = if is_pretty(settings.format, is_terminal) {
        let colour = settings.colour && is_terminal;
        builder.with_target(false).with_ansi(colour).try_init()
    } else {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init()
    };
}

/// What a panic said, if the words stand in the program's source.
fn harmless(payload: &(dyn Any + Send)) -> &str {
    match payload.downcast_ref::<&'static str>() {
        Some(literal) => literal,
        None => "[not shown: it may quote data]",
    }
}

/// Whether lines are meant for people.
fn is_pretty(format: LogFormat, is_terminal: bool) -> bool {
    match format {
        LogFormat::Auto => is_terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    }
}

/// A value that never appears in text: tokens, keys, prompts. Showing it takes [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_itself_to_nobody() {
        let secret = Secret::new("eyJhbGciOi".to_owned());
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)),
            "[redacted] [redacted] Some([redacted])"
        );
        assert_eq!(secret.expose(), "eyJhbGciOi");
    }

    #[test]
    fn a_panic_shows_only_words_of_the_source() {
        let says = |payload: &(dyn Any + Send)| harmless(payload).to_owned();
        assert_eq!(says(&"one token per sequence"), "one token per sequence");
        let quoting = format!("byte index 1 is not a char boundary of `{}`", "my diary");
        assert_eq!(says(&quoting), "[not shown: it may quote data]");
    }

    #[test]
    fn auto_is_pretty_on_a_terminal_and_json_elsewhere() {
        let pretty = |format| [is_pretty(format, true), is_pretty(format, false)];
        assert_eq!(pretty(LogFormat::Auto), [true, false]);
        assert_eq!(pretty(LogFormat::Pretty), [true, true]);
        assert_eq!(pretty(LogFormat::Json), [false, false]);
    }
}
