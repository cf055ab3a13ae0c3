//! UTC days and months, by number.

use std::time::Duration;

use time::{Date, Month, OffsetDateTime};

/// How long a budget lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    Day,
    Month,
}

impl Span {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// The day and the month of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Today {
    /// Days since the Unix epoch.
    day: u64,
    /// Months since the year 0.
    month: u64,
}

impl Today {
    /// The day of a Unix second.
    pub(super) fn at(unix_seconds: u64) -> Self {
        let date = date(unix_seconds);
        Self {
            day: unix_seconds / DAY,
            month: date.year().unsigned_abs() as u64 * 12 + u64::from(u8::from(date.month())) - 1,
        }
    }

    /// Goes on to the day of a Unix second; `false` if it is the same day.
    ///
    /// A clock that is set back by less than a day keeps the later one, so that a correction around midnight does not
    /// give a budget twice. One that is set back further was wrong before.
    pub(super) fn turn(&mut self, unix_seconds: u64) -> bool {
        let day = unix_seconds / DAY;
        if day == self.day || day + 1 == self.day {
            return false;
        }
        *self = Self::at(unix_seconds);
        true
    }

    /// The number of the current period.
    pub(super) fn number(self, span: Span) -> u64 {
        match span {
            Span::Day => self.day,
            Span::Month => self.month,
        }
    }
}

/// A period as records have it: `2026-11-24` or `2026-11`.
pub(super) fn name(span: Span, number: u64) -> String {
    match span {
        Span::Day => {
            let date = date(number.saturating_mul(DAY));
            let month = u8::from(date.month());
            format!("{:04}-{month:02}-{:02}", date.year(), date.day())
        }
        Span::Month => format!("{:04}-{:02}", number / 12, number % 12 + 1),
    }
}

/// From a time since the Unix epoch to the end of its period.
pub(super) fn rest(span: Span, since_epoch: Duration) -> Duration {
    let end = match span {
        Span::Day => (since_epoch.as_secs() / DAY + 1) * DAY,
        Span::Month => {
            let date = date(since_epoch.as_secs());
            let year = date.year() + i32::from(date.month() == Month::December);
            let next = Date::from_calendar_date(year, date.month().next(), 1);
            let end = next.map_or(0, |next| next.midnight().assume_utc().unix_timestamp());
            end.try_into().unwrap_or(0)
        }
    };
    Duration::from_secs(end).saturating_sub(since_epoch)
}

/// The epoch's, for a second that no calendar has.
fn date(unix_seconds: u64) -> Date {
    let seconds = i64::try_from(unix_seconds).unwrap_or(0);
    let moment = OffsetDateTime::from_unix_timestamp(seconds);
    moment.unwrap_or(OffsetDateTime::UNIX_EPOCH).date()
}

/// Seconds.
const DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_are_those_of_the_calendar() {
        for (second, day, month) in [
            (0, "1970-01-01", "1970-01"),
            (951_782_400, "2000-02-29", "2000-02"),
            (1_798_761_599, "2026-12-31", "2026-12"),
            (1_798_761_600, "2027-01-01", "2027-01"),
        ] {
            let today = Today::at(second);
            assert_eq!(name(Span::Day, today.number(Span::Day)), day);
            assert_eq!(name(Span::Month, today.number(Span::Month)), month);
        }
    }

    #[test]
    fn a_period_ends_at_midnight() {
        let rest = |span, second| rest(span, Duration::from_millis(second)).as_millis();
        assert_eq!(rest(Span::Day, 1_798_761_599_250), 750);
        assert_eq!(rest(Span::Month, 1_798_761_599_250), 750);
        assert_eq!(rest(Span::Month, 1_798_761_600_000), 31 * 86_400_000);
        assert_eq!(rest(Span::Day, 1_798_761_600_000), 86_400_000);
    }

    #[test]
    fn a_clock_set_back_by_hours_does_not_give_yesterday_again() {
        let mut today = Today::at(10 * DAY + 5);
        assert!(!today.turn(10 * DAY - 5));
        assert_eq!(today, Today::at(10 * DAY));
        assert!(today.turn(11 * DAY));
        // This one was wrong by years and was put right.
        assert!(today.turn(3 * DAY));
        assert_eq!(today, Today::at(3 * DAY));
    }
}
