//! What a run has shown, by the definitions of `vllm bench serve`.

use std::collections::BTreeMap;

use super::{Outcome, Record};
use crate::bench::Distribution;

/// What a request must keep to count as good; milliseconds. What is `None` is not asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Goals {
    /// Time to first token.
    pub ttft: Option<f64>,
    /// Time per output token; answers of one token keep it.
    pub tpot: Option<f64>,
    /// End-to-end latency.
    pub e2el: Option<f64>,
}

impl Goals {
    /// Whether any goal was set.
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }

    fn are_met(&self, record: &Record) -> bool {
        let kept = |goal: Option<f64>, seconds: f64| goal.is_none_or(|goal| seconds * MS <= goal);
        kept(self.ttft, record.ttft)
            && kept(self.tpot, record.tpot().unwrap_or(0.0))
            && kept(self.e2el, record.latency)
    }
}

/// What a run has shown. Distributions are in milliseconds, of the requests that did not fail.
#[derive(Debug)]
pub struct Results {
    /// Every request that ended, in the order of conversations and turns.
    pub records: Vec<Record>,
    /// Seconds from start to end.
    pub duration: f64,
    /// Requests that ended well.
    pub completed: usize,
    /// Requests that failed.
    pub failed: usize,
    /// Requests that were under way when the run was stopped.
    pub in_flight: usize,
    /// Requests that were never sent.
    pub unsent: usize,
    /// Somebody stopped the run.
    pub is_interrupted: bool,
    /// Tokens of the prompts of completed requests.
    pub total_input: u64,
    /// Those of them that the server had cached; `None` if it never says.
    pub total_cached: Option<u64>,
    /// Tokens of the answers of completed requests.
    pub total_output: u64,
    /// Completed requests whose tokens the server did not count.
    pub num_uncounted: usize,
    /// Completed requests that met every goal; `None` without goals.
    pub num_good: Option<usize>,
    /// Time to first token.
    pub ttft: Distribution,
    /// Time per output token after the first, per request.
    pub tpot: Distribution,
    /// Latency over all output tokens, the first included, per request: what some tools call TPOT.
    pub tpot_incl_first: Distribution,
    /// Gaps between chunks, of all requests together.
    pub itl: Distribution,
    /// End-to-end latency.
    pub e2el: Distribution,
    /// From a request's arrival to its sending: the wait for `max_concurrency`.
    pub queue_time: Distribution,
    /// How late the client turned to a request, of all that were sent.
    pub lag: Distribution,
    /// Output tokens in each second from the first request's start.
    pub tokens_per_second: Vec<f64>,
    /// (second, requests under way from then on), ascending, of completed requests.
    pub concurrency: Vec<(f64, usize)>,
    /// Kind of failure → how many, and the words of the first.
    pub failures: BTreeMap<String, (usize, String)>,
    /// Processor time that the client took.
    pub cpu_seconds: f64,
    /// Tokens that a prompt has without its text, and tokens per word, as measured.
    pub calibration: Option<super::Calibration>,
}

impl Results {
    /// Computes what `outcome` shows.
    pub fn of(outcome: Outcome, goals: &Goals) -> Self {
        let mut records = outcome.records;
        records.sort_unstable_by_key(|record| (record.conversation, record.turn));
        let good: Vec<&Record> = records
            .iter()
            .filter(|record| record.failure.is_none())
            .collect();
        let mut failures: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for failure in records.iter().filter_map(|record| record.failure.as_ref()) {
            let entry = failures
                .entry(failure.kind())
                .or_insert_with(|| (0, failure.to_string()));
            entry.0 += 1;
        }
        let cached: Vec<u64> = good
            .iter()
            .filter_map(|record| record.cached_tokens)
            .collect();
        let per_request = |value: fn(&Record) -> Option<f64>| {
            Distribution::of(
                good.iter()
                    .filter_map(|record| Some(value(record)? * MS))
                    .collect(),
            )
        };
        Self {
            duration: outcome.duration,
            completed: good.len(),
            failed: records.len() - good.len(),
            in_flight: outcome.in_flight,
            unsent: outcome.unsent,
            is_interrupted: outcome.is_interrupted,
            total_input: good.iter().map(|record| record.prompt_tokens).sum(),
            total_cached: (!cached.is_empty()).then(|| cached.iter().sum()),
            total_output: good.iter().map(|record| record.output_tokens).sum(),
            num_uncounted: good.iter().filter(|record| !record.has_usage).count(),
            num_good: goals
                .is_set()
                .then(|| good.iter().filter(|record| goals.are_met(record)).count()),
            ttft: per_request(|record| Some(record.ttft)),
            tpot: per_request(Record::tpot),
            tpot_incl_first: per_request(|record| {
                (record.output_tokens > 0).then(|| record.latency / record.output_tokens as f64)
            }),
            itl: Distribution::of(
                good.iter()
                    .flat_map(|record| record.itls.iter().map(|gap| gap * MS))
                    .collect(),
            ),
            e2el: per_request(|record| Some(record.latency)),
            queue_time: per_request(|record| Some(record.queue_time())),
            lag: Distribution::of(records.iter().map(|record| record.lag() * MS).collect()),
            tokens_per_second: tokens_per_second(&good),
            concurrency: concurrency(&good),
            failures,
            cpu_seconds: outcome.cpu_seconds,
            calibration: outcome.calibration,
            records,
        }
    }

    /// Completed requests per second.
    pub fn request_throughput(&self) -> f64 {
        self.per_second(self.completed as f64)
    }

    /// Good requests per second; `None` without goals.
    pub fn request_goodput(&self) -> Option<f64> {
        self.num_good.map(|good| self.per_second(good as f64))
    }

    /// Output tokens per second.
    pub fn output_throughput(&self) -> f64 {
        self.per_second(self.total_output as f64)
    }

    /// Prompt and output tokens per second.
    pub fn total_throughput(&self) -> f64 {
        self.per_second((self.total_input + self.total_output) as f64)
    }

    /// Most output tokens in one second.
    pub fn peak_output(&self) -> f64 {
        self.tokens_per_second.iter().copied().fold(0.0, f64::max)
    }

    /// Most requests under way at one moment.
    pub fn peak_concurrency(&self) -> usize {
        let counts = self.concurrency.iter().map(|(_, count)| *count);
        counts.max().unwrap_or(0)
    }

    /// Chunks with text, of completed requests.
    pub fn num_chunks(&self) -> usize {
        self.itl.count + self.completed
    }

    fn per_second(&self, count: f64) -> f64 {
        if self.duration > 0.0 {
            count / self.duration
        } else {
            0.0
        }
    }
}

/// Output tokens in each second from the first start. A chunk counts for as many tokens as its answer's chunks had on
/// average: one each where the server sends one token per chunk, which is vLLM's definition.
fn tokens_per_second(good: &[&Record]) -> Vec<f64> {
    let Some((first, last)) = span(good) else {
        return Vec::new();
    };
    let mut buckets = vec![0.0; (last - first).ceil() as usize + 1];
    let end = buckets.len() - 1;
    for record in good {
        let tokens = record.tokens_per_chunk();
        for time in record.chunk_times() {
            buckets[((time - first).max(0.0) as usize).min(end)] += tokens;
        }
    }
    buckets
}

/// Requests under way over time. One that ends at the moment at which another starts is not under way with it.
fn concurrency(good: &[&Record]) -> Vec<(f64, usize)> {
    let mut changes: Vec<(f64, bool)> = good
        .iter()
        .flat_map(|record| [(record.start, true), (record.end(), false)])
        .collect();
    changes.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut count = 0_usize;
    changes
        .into_iter()
        .map(|(time, is_start)| {
            count = if is_start {
                count + 1
            } else {
                count.saturating_sub(1)
            };
            (time, count)
        })
        .collect()
}

fn span(good: &[&Record]) -> Option<(f64, f64)> {
    let first = good
        .iter()
        .map(|record| record.start)
        .min_by(f64::total_cmp)?;
    let last = good
        .iter()
        .map(|record| record.end())
        .max_by(f64::total_cmp)?;
    Some((first, last))
}

/// Milliseconds in a second.
const MS: f64 = 1e3;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::load::RequestFailure;

    /// A request that starts at `start`, with chunks after `ttft` and each of `itls`.
    pub(in crate::bench::load) fn record(start: f64, ttft: f64, itls: &[f64]) -> Record {
        Record {
            conversation: (start * 1000.0) as usize,
            turn: 0,
            scheduled: start,
            arrival: start,
            start,
            ttft,
            latency: ttft + itls.iter().sum::<f64>(),
            itls: itls.to_vec(),
            prompt_tokens: 10,
            cached_tokens: None,
            output_tokens: itls.len() as u64 + 1,
            has_usage: true,
            failure: None,
        }
    }

    fn results(records: Vec<Record>, goals: Goals) -> Results {
        let outcome = Outcome {
            records,
            duration: 4.0,
            ..Outcome::default()
        };
        Results::of(outcome, &goals)
    }

    fn close(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    #[test]
    fn the_measures_follow_their_definitions() {
        // Three tokens in three chunks; four tokens in two chunks; one token.
        let mut packed = record(1.0, 0.2, &[0.6]);
        packed.output_tokens = 4;
        let results = results(
            vec![record(0.0, 0.1, &[0.2, 0.4]), packed, record(2.0, 0.3, &[])],
            Goals::default(),
        );
        assert_eq!((results.completed, results.failed), (3, 0));
        assert!(close(results.ttft.mean, 200.0));
        // (700 − 100) / 2 and (800 − 200) / 3; the answer of one token has none.
        assert_eq!(results.tpot.count, 2);
        assert!(close(results.tpot.mean, 250.0));
        // 200, 400 and 600 together.
        assert!(close(results.itl.mean, 400.0));
        assert!(close(results.e2el.max(), 800.0));
        assert!(close(results.tpot_incl_first.max(), 300.0));
        assert_eq!((results.total_input, results.total_output), (30, 8));
        assert!(close(results.request_throughput(), 0.75));
        assert!(close(results.output_throughput(), 2.0));
        assert!(close(results.total_throughput(), 9.5));
        assert_eq!(results.num_chunks(), 6);
    }

    #[test]
    fn failed_requests_count_as_such_and_nowhere_else() {
        let mut failed = record(0.5, 9.0, &[9.0]);
        failed.failure = Some(RequestFailure::Unfinished);
        let mut also = record(0.6, 9.0, &[]);
        also.failure = Some(RequestFailure::Unfinished);
        let results = results(vec![failed, record(0.0, 0.1, &[]), also], Goals::default());
        assert_eq!((results.completed, results.failed), (1, 2));
        assert!(close(results.e2el.max(), 100.0));
        assert_eq!(results.failures["unfinished stream"].0, 2);
        assert_eq!(results.peak_concurrency(), 1);
    }

    #[test]
    fn goodput_asks_for_every_goal_and_lets_single_tokens_keep_tpot() {
        let records = || {
            vec![
                record(0.0, 0.1, &[0.05, 0.05]),
                record(1.0, 0.3, &[0.05]),
                record(2.0, 0.1, &[0.2]),
                record(3.0, 0.1, &[]),
            ]
        };
        let goals = Goals {
            ttft: Some(200.0),
            tpot: Some(60.0),
            e2el: None,
        };
        assert_eq!(results(records(), goals).num_good, Some(2));
        assert_eq!(results(records(), goals).request_goodput(), Some(0.5));
        let goals = Goals {
            e2el: Some(0.0),
            ..Goals::default()
        };
        assert_eq!(results(records(), goals).num_good, Some(0));
        assert_eq!(results(records(), Goals::default()).request_goodput(), None);
    }

    #[test]
    fn seconds_are_counted_from_the_first_start() {
        let mut packed = record(11.5, 0.4, &[0.2]);
        packed.output_tokens = 6;
        let results = results(
            vec![record(10.0, 0.5, &[0.1, 1.0]), packed],
            Goals::default(),
        );
        // 10.5, 10.6, 11.6; 11.9 and 12.1 with three tokens each.
        assert_eq!(results.tokens_per_second, [2.0, 4.0, 3.0, 0.0]);
        assert!(close(results.peak_output(), 4.0));
    }

    #[test]
    fn a_request_that_ends_as_another_starts_is_not_concurrent() {
        let touching = vec![record(0.0, 1.0, &[]), record(1.0, 1.0, &[])];
        assert_eq!(results(touching, Goals::default()).peak_concurrency(), 1);
        let overlapping = vec![
            record(0.0, 1.0, &[]),
            record(0.5, 1.0, &[]),
            record(0.9, 1.0, &[]),
        ];
        let results = results(overlapping, Goals::default());
        assert_eq!(results.peak_concurrency(), 3);
        assert_eq!(results.concurrency.last().unwrap().1, 0);
    }

    #[test]
    fn lag_is_measured_on_failed_requests_too_and_never_negative() {
        let mut late = record(1.0, 0.1, &[]);
        late.scheduled = 0.99;
        late.failure = Some(RequestFailure::Unfinished);
        let mut early = record(0.0, 0.1, &[]);
        early.scheduled = 0.5;
        let results = results(vec![early, late], Goals::default());
        assert!(close(results.lag.max(), 10.0));
        assert!(close(results.lag.percentile(0.0), 0.0));
    }

    #[test]
    fn cached_tokens_are_unknown_if_the_server_never_says() {
        let mut told = record(1.0, 0.1, &[]);
        told.cached_tokens = Some(7);
        let none = results(vec![record(0.0, 0.1, &[])], Goals::default());
        assert_eq!(none.total_cached, None);
        let some = results(vec![record(0.0, 0.1, &[]), told], Goals::default());
        assert_eq!(some.total_cached, Some(7));
    }

    #[test]
    fn a_run_without_results_is_all_zeros() {
        let results = Results::of(Outcome::default(), &Goals::default());
        assert_eq!(results.output_throughput(), 0.0);
        assert_eq!(results.ttft.percentile(99.0), 0.0);
        assert_eq!(results.peak_output(), 0.0);
    }
}
