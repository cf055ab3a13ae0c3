//! Sizes and times, which are numbers with a unit.

use std::time::Duration;

use super::{TomlKind, Value, quoted};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub usize);

/// A length of time above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period(pub Duration);

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
