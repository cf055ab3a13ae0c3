//! Results as a table, as JSON, as CSV and as one page.
//!
//! Pure: results in, text out. Prompts and tokens are not in what these are given.

mod csv;
mod html;
mod json;
mod plot;
mod table;

pub use csv::csv;
pub use html::html;
pub use json::json;
pub use table::table;

use time::OffsetDateTime;

use super::{Arrivals, Load, RampUp};

/// What a run was: everything that is needed to make it again.
#[derive(Debug, Clone)]
pub struct About {
    /// Seconds since the Unix epoch at its start.
    pub unix_seconds: u64,
    /// A name for it.
    pub label: Option<String>,
    /// Scheme, host and port.
    pub server: String,
    /// The path that was asked.
    pub endpoint: String,
    /// The model's name.
    pub model: String,
    /// Requests; conversations where there are several turns.
    pub num_prompts: usize,
    /// When requests were sent.
    pub load: Load,
    /// For prompts, lengths and arrivals.
    pub seed: u64,
    /// Further settings: names as they are typed, without dashes.
    pub settings: Vec<(&'static str, String)>,
    /// Whatever the caller wants to say about it.
    pub metadata: Vec<(String, String)>,
    /// Most milliseconds that the 99th percentile of the send lag may be; `None` where requests were not paced.
    pub max_lag_ms: Option<f64>,
}

impl About {
    /// Such as `20261123-235500`, in UTC.
    fn date(&self) -> String {
        let seconds = i64::try_from(self.unix_seconds).unwrap_or(i64::MAX);
        // A clock beyond the year 9999 is shown as the epoch: the date is for people.
        let date =
            OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        format!(
            "{:04}{:02}{:02}-{:02}{:02}{:02}",
            date.year(),
            u8::from(date.month()),
            date.day(),
            date.hour(),
            date.minute(),
            date.second(),
        )
    }

    /// How requests were sent, for people.
    fn load_in_words(&self) -> String {
        let Load {
            arrivals,
            max_concurrency,
        } = self.load;
        let Arrivals {
            rate,
            burstiness,
            ramp_up,
        } = arrivals;
        let process = if burstiness == 1.0 {
            "Poisson".to_owned()
        } else {
            format!("burstiness {burstiness}")
        };
        let open = match ramp_up {
            Some(RampUp { from, to, .. }) => Some(format!("{from} to {to} requests/s, {process}")),
            None if rate.is_finite() => Some(format!("{rate} requests/s, {process}")),
            None => None,
        };
        match (open, max_concurrency) {
            (Some(open), None) => open,
            (Some(open), Some(most)) => format!("{open}, at most {most} at once"),
            (None, Some(most)) => format!("{most} at once"),
            (None, None) => "all at once".to_owned(),
        }
    }
}

/// For people: thousands apart, and no more places than the number deserves.
fn number(value: f64) -> String {
    let text = match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    grouped(whole) + rest
}

/// Digits with a comma between thousands.
fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        let left = digits.len() - place;
        if place > 0 && left.is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count for people.
fn count(value: impl TryInto<u64>) -> String {
    let value = value.try_into().unwrap_or(u64::MAX);
    grouped(&value.to_string())
}

/// The measures that every report shows: key in JSON, short name, long name.
const MEASURES: [(&str, &str, &str); 4] = [
    ("ttft", "TTFT", "time to first token"),
    ("tpot", "TPOT", "time per output token, without the first"),
    ("itl", "ITL", "gaps between chunks"),
    ("e2el", "E2EL", "end-to-end latency"),
];

/// The percentiles that every report shows.
const PERCENTILES: [f64; 4] = [50.0, 90.0, 95.0, 99.0];

impl super::Results {
    fn measure(&self, key: &str) -> &crate::bench::Distribution {
        match key {
            "ttft" => &self.ttft,
            "tpot" => &self.tpot,
            "itl" => &self.itl,
            _ => &self.e2el,
        }
    }

    /// Whether the client itself was too slow to send what `about` asked for, so that the results say nothing about
    /// the server.
    pub fn is_client_bound(&self, about: &About) -> bool {
        let lag = self.lag.percentile(99.0);
        about.max_lag_ms.is_some_and(|limit| lag > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::results::tests::record;
    use crate::bench::load::{Goals, Outcome, RequestFailure, Results};

    pub(super) fn about() -> About {
        About {
            // 2026-11-23 23:55:01
            unix_seconds: 1_795_478_101,
            label: Some("<b>first</b>".to_owned()),
            server: "http://127.0.0.1:8000".to_owned(),
            endpoint: "/v1/chat/completions".to_owned(),
            model: "seedling".to_owned(),
            num_prompts: 3,
            load: Load {
                arrivals: Arrivals {
                    rate: 2.5,
                    burstiness: 1.0,
                    ramp_up: None,
                },
                max_concurrency: None,
            },
            seed: 7,
            settings: vec![("workload", "random".to_owned())],
            metadata: vec![
                ("gpu".to_owned(), "none & nothing".to_owned()),
                ("failed".to_owned(), "99".to_owned()),
            ],
            max_lag_ms: Some(5.0),
        }
    }

    pub(super) fn results() -> Results {
        let mut failed = record(1.0, 0.0, &[]);
        failed.failure = Some(RequestFailure::Status {
            status: 503,
            code: "<full>".to_owned(),
            message: "come back later".to_owned(),
        });
        let outcome = Outcome {
            records: vec![
                record(0.0, 0.25, &[0.5, 0.25]),
                failed,
                record(2.0, 0.5, &[1.0]),
            ],
            duration: 4.0,
            cpu_seconds: 0.5,
            ..Outcome::default()
        };
        let goals = Goals {
            ttft: Some(300.0),
            ..Goals::default()
        };
        Results::of(outcome, &goals)
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(about().date(), "20261123-235501");
    }

    #[test]
    fn numbers_are_readable() {
        for (value, wanted) in [
            (0.0, "0.00"),
            (12.345, "12.35"),
            (123.45, "123.5"),
            (1234.5, "1,234"),
            (1_234_567.0, "1,234,567"),
            (-123_456.0, "-123,456"),
        ] {
            assert_eq!(number(value), wanted);
        }
    }

    #[test]
    fn counts_have_no_fraction() {
        for (value, wanted) in [
            (0_u64, "0"),
            (7, "7"),
            (10, "10"),
            (100, "100"),
            (12_000, "12,000"),
        ] {
            assert_eq!(count(value), wanted);
        }
    }

    #[test]
    fn a_client_that_lags_is_told_from_one_that_may() {
        let mut about = about();
        let mut late = record(0.0, 0.1, &[]);
        late.arrival = 0.006;
        let outcome = Outcome {
            records: vec![late],
            duration: 1.0,
            ..Outcome::default()
        };
        let results = Results::of(outcome, &Goals::default());
        assert!(results.is_client_bound(&about));
        about.max_lag_ms = Some(7.0);
        assert!(!results.is_client_bound(&about));
        about.max_lag_ms = None;
        assert!(!results.is_client_bound(&about));
    }
}
