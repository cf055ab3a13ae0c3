//! Results for a terminal.

use std::fmt::Write;

use super::{About, MEASURES, PERCENTILES, count, number};
use crate::bench::load::Results;

/// What a run has shown, in lines of at most 80 characters where names are short.
pub fn table(results: &Results, about: &About) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    line(format!(
        "{} at {}{}: {}",
        about.model,
        about.server,
        about.endpoint,
        about.load_in_words()
    ));
    line(String::new());
    line(row("completed", &count(results.completed as u64)));
    if results.failed > 0 {
        line(row("failed", &count(results.failed as u64)));
    }
    if results.is_interrupted {
        line(row("stopped in flight", &count(results.in_flight as u64)));
    }
    if results.unsent > 0 {
        line(row("never sent", &count(results.unsent as u64)));
    }
    line(row("duration", &format!("{} s", number(results.duration))));
    line(row("prompt tokens", &prompt_tokens(results)));
    line(row("output tokens", &count(results.total_output)));
    line(String::new());
    line(row("requests/s", &number(results.request_throughput())));
    if let Some(goodput) = results.request_goodput() {
        line(row("good requests/s", &number(goodput)));
    }
    line(row("output tokens/s", &number(results.output_throughput())));
    line(row("  most in a second", &number(results.peak_output())));
    line(row("all tokens/s", &number(results.total_throughput())));
    line(row(
        "most at once",
        &count(results.peak_concurrency() as u64),
    ));
    line(String::new());
    let mut head = format!("{:<6}{:>10}", "ms", "mean");
    for percent in PERCENTILES {
        let _ = write!(head, "{:>10}", format!("p{percent}"));
    }
    line(head + "       max       std");
    for (key, name, _) in MEASURES {
        let of = results.measure(key);
        let mut words = format!("{name:<6}{:>10}", number(of.mean));
        for percent in PERCENTILES {
            let _ = write!(words, "{:>10}", number(of.percentile(percent)));
        }
        let _ = write!(words, "{:>10}{:>10}", number(of.max()), number(of.std));
        line(words);
    }
    if !results.failures.is_empty() {
        line(String::new());
        for (kind, (times, first)) in &results.failures {
            line(format!("failed {times}×: {kind}"));
            if let Some(words) = first.strip_prefix(kind.as_str()).filter(|w| !w.is_empty()) {
                line(format!("  the first said{words}"));
            }
        }
    }
    line(String::new());
    line(client(results, about));
    text
}

fn prompt_tokens(results: &Results) -> String {
    let all = count(results.total_input);
    match results.total_cached {
        Some(cached) if results.total_input > 0 => {
            let share = 100.0 * cached as f64 / results.total_input as f64;
            format!("{all}, of which {} cached ({share:.1} %)", count(cached))
        }
        _ => all,
    }
}

/// What the measuring itself cost, and whether it can be trusted.
fn client(results: &Results, about: &About) -> String {
    let busy = if results.duration > 0.0 {
        100.0 * results.cpu_seconds / results.duration
    } else {
        0.0
    };
    let mut words = format!("client: {busy:.0} % of a core");
    if let Some(limit) = about.max_lag_ms {
        let _ = write!(
            words,
            ", sent late by {} ms (p50) and {} ms (p99, limit {limit})",
            number(results.lag.median()),
            number(results.lag.percentile(99.0))
        );
    }
    if results.num_uncounted > 0 {
        let _ = write!(
            words,
            "\nthe server did not count the tokens of {} answers; their chunks were counted instead",
            results.num_uncounted
        );
    }
    words
}

fn row(name: &str, value: &str) -> String {
    format!("{name:<20}{value}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{about, results};
    use super::*;

    #[test]
    fn the_table_says_what_matters() {
        let text = table(&results(), &about());
        for words in [
            "seedling at http://127.0.0.1:8000/v1/chat/completions: 2.5 requests/s, Poisson",
            "completed           2",
            "failed              1",
            "good requests/s     0.25",
            "TTFT       375.0     375.0     475.0     487.5     497.5     500.0     125.0",
            "failed 1×: HTTP 503 <full>",
            "the first said: come back later",
            "client: 12 % of a core, sent late by 0.00 ms (p50) and 0.00 ms (p99, limit 5)",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
        assert!(!text.contains("never sent"), "{text}");
    }

    #[test]
    fn cached_tokens_are_shown_if_the_server_tells_them() {
        let mut results = results();
        assert_eq!(prompt_tokens(&results), "20");
        results.total_cached = Some(15);
        assert_eq!(prompt_tokens(&results), "20, of which 15 cached (75.0 %)");
    }
}
