//! What the value of a setting may be and how it is written.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::engine::SchedulingPolicy;
use crate::server::{PublicUrl, SubjectNames};

mod network;
#[cfg(test)]
mod tests;
mod units;

pub(super) use network::{ClientAuth, List, parse_network};
pub(super) use units::{ByteSize, Period};
pub use units::{parse_duration, parse_size};

/// A type that a setting can have. The text form is the same in a flag, a variable and a TOML string.
pub(super) trait Value: Sized {
    /// What to write, as words that follow "wanted".
    const WANTED: &'static str;
    /// How it may stand in TOML.
    const KINDS: &'static [TomlKind] = &[TomlKind::Text];
    /// Whether the flag alone means `true`.
    const IS_SWITCH: bool = false;
    /// Whether a relative value in a file is meant from that file's folder.
    const IS_PATH: bool = false;

    /// The value that `text` says.
    fn parse(text: &str) -> Option<Self>;

    /// What to do about `text`, which is no value, where more can be said than [`Value::WANTED`] does.
    fn hint(_text: &str) -> Option<String> {
        None
    }

    /// The value in TOML's notation.
    fn toml(&self) -> String;

    /// The value when there is no text at all.
    fn unset() -> Option<Self> {
        None
    }
}

/// How a value stands in TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TomlKind {
    Text,
    Integer,
    Boolean,
    /// An array of strings; their text has a comma between each two.
    List,
}

/// A part of a whole, 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Percent(pub u8);

/// A number of things, 1 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub u32);

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// Which log lines are written: levels and `target=level` pairs, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter as `tracing_subscriber::EnvFilter` reads it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for PathBuf {
    const WANTED: &'static str = "a path";
    const IS_PATH: bool = true;

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }

    fn toml(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Value for String {
    const WANTED: &'static str = "a word or more";

    fn parse(text: &str) -> Option<Self> {
        (!text.trim().is_empty()).then(|| text.to_owned())
    }

    fn toml(&self) -> String {
        quoted(self)
    }
}

impl Value for NonZeroUsize {
    const WANTED: &'static str = "a whole number from 1";
    const KINDS: &'static [TomlKind] = &[TomlKind::Integer];

    fn parse(text: &str) -> Option<Self> {
        digits(text)?.parse().ok()
    }

    fn toml(&self) -> String {
        self.to_string()
    }
}

impl Value for u16 {
    const WANTED: &'static str = "a port from 0 to 65535";
    const KINDS: &'static [TomlKind] = &[TomlKind::Integer];

    fn parse(text: &str) -> Option<Self> {
        digits(text)?.parse().ok()
    }

    fn toml(&self) -> String {
        self.to_string()
    }
}

impl Value for bool {
    const WANTED: &'static str = "true or false";
    const KINDS: &'static [TomlKind] = &[TomlKind::Boolean];
    const IS_SWITCH: bool = true;

    fn parse(text: &str) -> Option<Self> {
        match text {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    }

    fn toml(&self) -> String {
        self.to_string()
    }
}

impl Value for IpAddr {
    const WANTED: &'static str = "an IP address such as 127.0.0.1, or localhost";

    fn parse(text: &str) -> Option<Self> {
        if text == "localhost" {
            return Some(Self::V4(Ipv4Addr::LOCALHOST));
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        bare.parse().ok()
    }

    fn toml(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Value for Percent {
    const WANTED: &'static str = "a whole number from 1 to 100";
    const KINDS: &'static [TomlKind] = &[TomlKind::Integer];

    fn parse(text: &str) -> Option<Self> {
        let percent = digits(text)?.parse().ok()?;
        (1..=100).contains(&percent).then_some(Self(percent))
    }

    fn toml(&self) -> String {
        self.0.to_string()
    }
}

impl Value for Count {
    const WANTED: &'static str = "a whole number from 1";
    const KINDS: &'static [TomlKind] = &[TomlKind::Integer];

    fn parse(text: &str) -> Option<Self> {
        let count = digits(text)?.parse().ok()?;
        (count > 0).then_some(Self(count))
    }

    fn toml(&self) -> String {
        self.0.to_string()
    }
}

impl Value for PublicUrl {
    const WANTED: &'static str = "an origin such as https://llm.example.com, without a path";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn toml(&self) -> String {
        quoted(self.as_str())
    }
}

impl Value for SubjectNames {
    const WANTED: &'static str = "hash or clear";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "hash" => Some(Self::Hash),
            "clear" => Some(Self::Clear),
            _ => None,
        }
    }

    fn toml(&self) -> String {
        quoted(match self {
            Self::Hash => "hash",
            Self::Clear => "clear",
        })
    }
}

impl Value for SchedulingPolicy {
    const WANTED: &'static str = "fair or fcfs";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "fair" => Some(Self::Fair),
            "fcfs" => Some(Self::FirstCome),
            _ => None,
        }
    }

    fn toml(&self) -> String {
        quoted(match self {
            Self::Fair => "fair",
            Self::FirstCome => "fcfs",
        })
    }
}

impl Value for LogFormat {
    const WANTED: &'static str = "auto, pretty or json";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "pretty" => Some(Self::Pretty),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn toml(&self) -> String {
        quoted(match self {
            Self::Auto => "auto",
            Self::Pretty => "pretty",
            Self::Json => "json",
        })
    }
}

impl Value for LogFilter {
    const WANTED: &'static str =
        "error, warn, info, debug, trace, off, or pairs such as mixgate=debug";

    /// A lone word must be a level: tracing itself would take `inof` for the name of a module and log all of it.
    fn parse(text: &str) -> Option<Self> {
        let is_known = |part: &str| part.contains('=') || LEVELS.contains(&part);
        let known = !text.is_empty() && text.split(',').all(|part| is_known(part.trim()));
        let valid = known && tracing_subscriber::EnvFilter::try_new(text).is_ok();
        valid.then(|| Self(text.to_owned()))
    }

    fn toml(&self) -> String {
        quoted(&self.0)
    }
}

impl<T: Value> Value for Option<T> {
    const WANTED: &'static str = T::WANTED;
    const KINDS: &'static [TomlKind] = T::KINDS;
    const IS_PATH: bool = T::IS_PATH;

    fn parse(text: &str) -> Option<Self> {
        T::parse(text).map(Some)
    }

    fn toml(&self) -> String {
        self.as_ref().map(T::toml).unwrap_or_default()
    }

    fn unset() -> Option<Self> {
        Some(None)
    }
}

/// Digits alone: `+8000`, which Rust would parse, is a slip.
fn digits(text: &str) -> Option<&str> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(text)
}

/// A TOML basic string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
