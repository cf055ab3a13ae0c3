//! What the value of a setting may be and how it is written.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::SchedulingPolicy;
use crate::server::{PublicUrl, SubjectNames};

mod network;
#[cfg(test)]
mod tests;

pub(super) use network::{ClientAuth, List, parse_network};

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

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteSize(pub usize);

/// A length of time above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period(pub Duration);

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

impl Value for ByteSize {
    const WANTED: &'static str = "a size such as 512KiB, 4MiB or 2GiB";
    const KINDS: &'static [TomlKind] = &[TomlKind::Text, TomlKind::Integer];

    fn parse(text: &str) -> Option<Self> {
        parse_size(text).filter(|&bytes| bytes > 0).map(Self)
    }

    fn toml(&self) -> String {
        let (unit, factor) = SIZE_UNITS
            .into_iter()
            .filter(|(unit, factor)| unit.ends_with("iB") && self.0.is_multiple_of(*factor))
            .max_by_key(|(_, factor)| *factor)
            .unwrap_or(("B", 1));
        quoted(&format!("{}{unit}", self.0 / factor))
    }
}

impl Value for Duration {
    const WANTED: &'static str = "a time such as 500ms, 30s, 5m or 1h30m";

    fn parse(text: &str) -> Option<Self> {
        parse_duration(text)
    }

    fn toml(&self) -> String {
        quoted(&duration_text(*self))
    }
}

impl Value for Period {
    const WANTED: &'static str = "a time above zero such as 500ms, 30s or 5m";

    fn parse(text: &str) -> Option<Self> {
        parse_duration(text)
            .filter(|time| !time.is_zero())
            .map(Self)
    }

    fn toml(&self) -> String {
        self.0.toml()
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

/// Bytes of `4MiB`, `4 MiB`, `4MB` (decimal) or `4194304`; `None` if it is no size or does not fit.
pub fn parse_size(text: &str) -> Option<usize> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim_start();
    let factor = match unit {
        "" => 1,
        unit => {
            SIZE_UNITS
                .into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))?
                .1
        }
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

/// The length of `500ms`, `30s`, `5m`, `1h30m`, `7d`; a number needs its unit. `None` if it is none or does not fit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = None::<Duration>;
    let mut previous_unit = u64::MAX;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit())?;
        let unit_end = rest[number_end..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |at| number_end + at);
        let unit = rest[number_end..unit_end].trim();
        let (_, millis) = TIME_UNITS.into_iter().find(|(name, _)| *name == unit)?;
        // Largest first and each once: `1m1h` is more likely a slip than a meaning.
        if millis >= previous_unit {
            return None;
        }
        previous_unit = millis;
        let part = Duration::from_millis(
            rest[..number_end]
                .parse::<u64>()
                .ok()?
                .checked_mul(millis)?,
        );
        total = Some(total.unwrap_or_default().checked_add(part)?);
        rest = &rest[unit_end..];
    }
    total
}

/// `90s` for 90 seconds, `1500ms` for one and a half: one number in the largest unit that is exact.
fn duration_text(time: Duration) -> String {
    let millis = time.as_millis() as u64;
    let (unit, factor) = TIME_UNITS
        .into_iter()
        .find(|(_, factor)| millis.is_multiple_of(*factor) && millis > 0)
        .unwrap_or(("s", 1000));
    format!("{}{unit}", millis / factor)
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

const SIZE_UNITS: [(&str, usize); 9] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Largest first; milliseconds.
const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];
