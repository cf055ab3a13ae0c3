//! What the ledger has written and what it has not, asked at each scrape.

use super::engine::{Families, Family};
use crate::ledger::LedgerStats;

pub(super) fn ledger_families(stats: &LedgerStats) -> Families {
    vec![
        Family::counter(
            "mixgate_ledger_rows_written_total",
            "Rows of requests written, each time that one was.",
            stats.rows_written,
        ),
        Family::counter(
            "mixgate_ledger_failed_writes_total",
            "Writes that failed and were tried again.",
            stats.failed_writes,
        ),
        Family::counter(
            "mixgate_ledger_lost_requests_total",
            "Requests given up because too many could not be written.",
            stats.lost,
        ),
        Family::gauge(
            "mixgate_ledger_open_requests",
            "Requests whose final row is not written yet.",
            stats.queued as f64,
        ),
        Family::gauge(
            "mixgate_ledger_last_write_age_seconds",
            "Since all that there was had been written.",
            stats.since_last_write.as_secs_f64(),
        ),
    ]
}
