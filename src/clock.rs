//! Time as a value, so that no test waits and no module asks the system by itself: [`Clock`] tells the wall-clock time,
//! [`Uptime`] the time since a start, which never jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// Tells the wall-clock time; cloned freely, shared by reference.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The operating system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still at `unix_seconds` until its handle moves it.
    pub fn manual(unix_seconds: u64) -> (Self, ManualClock) {
        let millis = Arc::new(AtomicU64::new(unix_seconds * 1000));
        (Self(Source::Manual(millis.clone())), ManualClock(millis))
    }

    /// Time since the Unix epoch; zero if the system clock stands before it.
    pub fn since_epoch(&self) -> Duration {
        match &self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            Source::Manual(millis) => Duration::from_millis(millis.load(Ordering::Relaxed)),
        }
    }

    /// Whole seconds since the Unix epoch.
    pub fn unix_seconds(&self) -> u64 {
        self.since_epoch().as_secs()
    }
}

/// Moves a [`Clock::manual`] forward.
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Adds `by` to the time that every clone of the clock tells.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}

/// Tells how long something has been running; cloned freely.
#[derive(Debug, Clone)]
pub struct Uptime(Since);

#[derive(Debug, Clone)]
enum Since {
    Start(Instant),
    Manual(Arc<AtomicU64>),
}

impl Uptime {
    /// From now on, by the operating system's monotonic clock.
    pub fn start() -> Self {
        Self(Since::Start(Instant::now()))
    }

    /// Zero until its handle moves it.
    pub fn manual() -> (Self, ManualUptime) {
        let nanos = Arc::new(AtomicU64::new(0));
        (Self(Since::Manual(nanos.clone())), ManualUptime(nanos))
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        match &self.0 {
            Since::Start(start) => start.elapsed(),
            Since::Manual(nanos) => Duration::from_nanos(nanos.load(Ordering::Relaxed)),
        }
    }
}

/// Moves an [`Uptime::manual`] forward.
#[derive(Debug, Clone)]
pub struct ManualUptime(Arc<AtomicU64>);

impl ManualUptime {
    /// Adds `by` to the time that every clone of the uptime tells.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// The UTC minute of a Unix second, for people: `2026-11-24 03:10`.
pub fn utc_minute(unix_seconds: u64) -> String {
    let date = utc(unix_seconds);
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let (hour, minute) = (date.hour(), date.minute());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
}

/// The epoch, for a second beyond the year 9999: whoever needs such a date has no use for it.
fn utc(unix_seconds: u64) -> OffsetDateTime {
    let seconds = i64::try_from(unix_seconds).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_second_has_its_utc_minute() {
        assert_eq!(utc_minute(0), "1970-01-01 00:00");
        assert_eq!(utc_minute(951_782_399), "2000-02-28 23:59");
        assert_eq!(utc_minute(951_782_400), "2000-02-29 00:00");
        assert_eq!(utc_minute(u64::MAX), "1970-01-01 00:00");
    }
}
