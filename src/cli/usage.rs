//! `mixgate usage`: who used how many tokens, read from the ledger's file; the server may run meanwhile.

mod table;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;

use clap::ValueEnum;

use super::Failure;
use crate::clock::Clock;
use crate::config::{Args, Config, parse_duration};
use crate::ledger::{Dimension, Ledger, UsageQuery, day};
use table::Line;

/// What to add up, and how to print it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Usage {
    /// What to tell apart
    #[arg(long, value_enum, default_value_t = By::Subject)]
    pub by: By,
    /// From when: a time ago such as 7d or 12h, or a UTC day such as 2026-11-01
    #[arg(long, value_name = "TIME|DAY", default_value = "7d")]
    pub since: String,
    /// Until when, written alike; the day itself does not count [default: now]
    #[arg(long, value_name = "TIME|DAY")]
    pub until: Option<String>,
    /// Only this subject
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// What to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// By tenant
    Tenant,
    /// By subject
    Subject,
    /// By client application
    Client,
    /// By model
    Model,
    /// By UTC day
    Day,
}

impl By {
    fn dimension(self) -> Option<Dimension> {
        match self {
            Self::Tenant => Some(Dimension::Tenant),
            Self::Subject => Some(Dimension::Subject),
            Self::Client => Some(Dimension::Client),
            Self::Model => Some(Dimension::Model),
            Self::Day => None,
        }
    }

    /// Names of the columns before the numbers.
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Tenant => &["tenant", "issuer"],
            Self::Subject => &["subject", "issuer"],
            Self::Client => &["client", "issuer"],
            Self::Model => &["model"],
            Self::Day => &["day"],
        }
    }
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people, with a sum
    Table,
    /// With a header; an absent name is empty
    Csv,
    /// An array of objects; an absent name is null
    Json,
}

/// Prints what the ledger's file says.
pub(super) fn run(typed: &Usage, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let config = Config::load(args)?;
    let path: PathBuf = config.ledger.path.ok_or_else(|| {
        Failure::new("the ledger is off: usage ends with the server")
            .hint("name a file with --ledger, for the server too")
    })?;
    let query = query(typed, &Clock::system())?;
    let rows = Ledger::read_usage(&path, &query)
        .map_err(|error| Failure::of(&error).hint_if(error.hint()))?;
    let mut lines: Vec<Line> = rows
        .into_iter()
        .map(|row| Line {
            names: match typed.by {
                By::Day => vec![row.bucket.map(day)],
                By::Model => row.values,
                _ => row.values.into_iter().chain([row.issuer]).collect(),
            },
            numbers: [
                row.requests,
                row.prompt,
                row.cached,
                row.completion,
                row.prompt + row.completion,
            ],
        })
        .collect();
    // Days in their order; whoever used most comes first.
    if typed.by != By::Day {
        lines.sort_by(|one, other| {
            let total = |line: &Line| line.numbers[4];
            total(other)
                .cmp(&total(one))
                .then_with(|| one.names.cmp(&other.names))
        });
    }
    let text = match typed.format {
        Format::Table => table::table(typed.by.columns(), &lines),
        Format::Csv => table::csv(typed.by.columns(), &lines),
        Format::Json => table::json(typed.by.columns(), &lines),
    };
    Ok(out.write_all(text.as_bytes())?)
}

fn query(typed: &Usage, clock: &Clock) -> Result<UsageQuery, Failure> {
    let now = clock.unix_seconds();
    let from = moment("--since", &typed.since, now)?;
    let until = match &typed.until {
        Some(text) => moment("--until", text, now)?,
        // What has begun in this second counts.
        None => now + 1,
    };
    if until <= from {
        return Err(Failure::new("--until is not later than --since").usage());
    }
    let subject = typed.subject.iter().cloned().collect::<Vec<_>>();
    Ok(UsageQuery {
        from,
        until,
        bucket: (typed.by == By::Day).then_some(SECONDS_OF_A_DAY),
        by: typed.by.dimension().into_iter().collect(),
        only: match subject.is_empty() {
            true => Vec::new(),
            false => vec![(Dimension::Subject, subject)],
        },
        ..UsageQuery::default()
    })
}

/// Unix seconds of `7d` (ago) or `2026-11-01` (its first).
fn moment(flag: &str, text: &str, now: u64) -> Result<u64, Failure> {
    let ago = parse_duration(text).map(|time| now.saturating_sub(time.as_secs()));
    ago.or_else(|| first_second(text)).ok_or_else(|| {
        Failure::new(format!(
            "{flag} is {text:?}, wanted a time such as 7d or 12h, or a day such as 2026-11-01"
        ))
        .usage()
    })
}

fn first_second(text: &str) -> Option<u64> {
    let mut parts = text.split('-');
    let mut number = |digits: usize| {
        let part = parts.next()?;
        let is_number = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse::<u16>().ok()).flatten()
    };
    let (year, month, of_month) = (number(4)?, number(2)?, number(2)?);
    if parts.next().is_some() {
        return None;
    }
    let month = time::Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = time::Date::from_calendar_date(year.into(), month, u8::try_from(of_month).ok()?);
    u64::try_from(date.ok()?.midnight().assume_utc().unix_timestamp()).ok()
}

const SECONDS_OF_A_DAY: u64 = 86_400;

const EXAMPLES: &str = "\
Examples:
  mixgate usage                                        the last week, by subject
  mixgate usage --by tenant --since 30d
  mixgate usage --by day --since 2026-11-01 --until 2026-12-01 --format csv
  mixgate usage --by model --subject ann --format json";
