//! What steps say about a run, and a run.

use super::steps::{Begun, Step};
use super::*;
use crate::engine::Capacity;
use crate::engine::null::{NullModel, NullName, RealPace};

/// All of `sequences` see ten tokens.
fn step(idle: u64, ended: u64, sequences: usize, is_decode: bool) -> Step {
    Step {
        idle: Duration::from_micros(idle),
        ended: Duration::from_micros(ended),
        tokens: sequences,
        begun: Begun {
            sequences,
            context: 10 * sequences,
            is_decode,
            ..Begun::default()
        },
    }
}

#[test]
fn decode_rate_counts_full_steps_and_the_host_time_before_them() {
    let steps = [
        step(5000, 6000, 2, false),
        step(100, 7000, 2, true),
        step(100, 8000, 4, true),
        step(300, 9000, 4, true),
        step(300, 9500, 4, false),
        step(50, 9900, 1, true),
    ];
    let (decode, host) = judge(&steps, 4);
    let decode = decode.unwrap();
    assert_eq!((decode.sequences, decode.steps), (4, 2));
    // 8 tokens from 7,000 µs to 9,000 µs.
    assert!((decode.tokens_per_second - 4000.0).abs() < 1e-6);
    assert!((decode.step_ms.mean - 1.0).abs() < 1e-9);
    assert!((decode.host_us.mean - 200.0).abs() < 1e-6);
    assert!((decode.host_us.max - 300.0).abs() < 1e-6);
    assert!((decode.context - 10.0).abs() < 1e-9);
    // The wait before the first step is nobody's work.
    assert!((host.mean - (100.0 + 100.0 + 300.0 + 300.0 + 50.0) / 5.0).abs() < 1e-6);
}

#[test]
fn decoding_of_fewer_sequences_is_no_rate_of_the_batch() {
    let steps = [step(0, 9, 3, false), step(1, 19, 3, true)];
    assert_eq!(judge(&steps, 4).0, None);
    assert_eq!(judge(&steps, 3).0.unwrap().steps, 1);
    for steps in [&[][..], &steps[..1]] {
        let (decode, host) = judge(steps, 3);
        assert_eq!((decode, host.p99), (None, 0.0));
    }
}

fn workload(batch: usize) -> Workload {
    Workload {
        batch,
        width: batch,
        prompt_len: 12,
        output_len: 1,
        seed: 0,
    }
}

#[test]
fn prompts_have_their_length_and_those_of_runs_with_seeds_of_their_own_are_all_different() {
    let words: Vec<TokenId> = (10..500).collect();
    let prompts = |run: usize, batch: usize| -> Vec<_> {
        let workload = Workload {
            seed: Workload::own_seed(0, run),
            ..workload(batch)
        };
        let its = (0..batch).map(|number| prompt(number, workload, 1, &words));
        its.collect()
    };
    let all: std::collections::HashSet<_> = [prompts(0, 8), prompts(1, 32), prompts(2, 8)]
        .concat()
        .into_iter()
        .collect();
    assert_eq!(all.len(), 48);
    assert!(all.iter().all(|it| it.len() == 12 && it[0] == 1));
    // With one seed, a larger batch begins with the smaller one's.
    assert_eq!(prompts(1, 32)[..8], prompts(1, 8));
}

#[test]
fn decode_steps_are_asked_for_as_far_as_the_output_allows() {
    let least = |output_len| {
        let workload = Workload {
            output_len,
            ..workload(1)
        };
        workload.least_decode_steps()
    };
    assert_eq!([1, 2, 3, 6, 48].map(least), [0, 0, 1, 2, 8]);
}

struct Bench {
    engine: Engine,
    log: StepLog,
    admission: Admission,
    words: Vec<TokenId>,
    config: EngineConfig,
}

impl Bench {
    /// A model that answers at once, with room for so many tokens.
    fn new(cache_tokens: usize, max_num_batched_tokens: usize, max_num_seqs: usize) -> Self {
        let capacity = Capacity {
            vocab_size: 100,
            max_model_len: 4096,
            num_blocks: cache_tokens / 4,
            block_size: 4,
        };
        let name = NullName::parse("mixtral-8x7b").unwrap();
        let words: Vec<TokenId> = (10..90).collect();
        let model = NullModel::new(name, capacity, words.clone(), RealPace::default());
        let (timed, log) = Timed::new(model);
        let config = EngineConfig {
            max_num_batched_tokens,
            max_prefill_tokens: max_num_batched_tokens,
            max_num_seqs,
            ..EngineConfig::default()
        };
        Self {
            engine: Engine::start(timed, config.clone(), vec![2]),
            log,
            admission: Admission::new().unwrap(),
            words,
            config,
        }
    }

    async fn run(&self, workload: Workload) -> Result<Row, EngineBenchError> {
        let prompts = (1, &self.words[..]);
        measure(&self.engine, &self.log, &self.admission, prompts, workload).await
    }
}

#[tokio::test]
async fn a_run_gives_every_token_of_every_request() {
    let bench = Bench::new(240, 64, 8);
    let workload = Workload {
        batch: 8,
        width: 8,
        prompt_len: 10,
        output_len: 15,
        seed: 1,
    };
    let row = bench.run(workload).await.unwrap();
    assert_eq!((row.batch, row.preemptions), (8, 0));
    // Two steps for prompts, of which the first may have had only the first request's; the last token is not computed.
    assert!((16..=17).contains(&row.steps), "{row:?}");
    assert_eq!(row.computed_tokens, 8 * (10 + 14));
    assert!((12..=13).contains(&row.decode_steps()), "{row:?}");
    assert!(row.ttft_ms.p50 > 0.0 && row.output_tokens_per_second > 0.0);
    let too_long = Workload {
        output_len: 2000,
        ..workload
    };
    assert_eq!(
        bench.run(too_long).await.unwrap_err().to_string(),
        "the request needs 2010 tokens of context, at most 240 fit"
    );
}

/// 256 prompts of 1,024 tokens at 4,096 tokens a step take some 66 steps: with an output of 48, the first sequences have ended
/// when the last begin.
#[tokio::test]
async fn a_batch_decodes_together_for_as_many_steps_as_are_asked_for() {
    let bench = Bench::new(400_000, 4096, 256);
    let mut workload = Workload {
        batch: 256,
        width: 256,
        prompt_len: 1024,
        output_len: 48,
        seed: 1,
    };
    assert_eq!(bench.run(workload).await.unwrap().decode, None);
    workload.seed = 2;
    workload.output_len = Workload::output_len_for(16, 256, 1024, &bench.config);
    let decode = bench.run(workload).await.unwrap().decode.unwrap();
    assert!(decode.sequences == 256 && decode.steps >= 16, "{decode:?}");
    // Not far longer than needed, and a context of a prompt and what came since.
    assert!(decode.steps <= 48, "{decode:?}");
    assert!(
        (1024.0..1024.0 + 110.0).contains(&decode.context),
        "{decode:?}"
    );
}

#[tokio::test]
async fn prompts_that_come_again_are_not_computed_again_and_are_still_seen() {
    let bench = Bench::new(10_000, 512, 16);
    let run = |batch| {
        bench.run(Workload {
            batch,
            width: batch,
            prompt_len: 100,
            output_len: 20,
            seed: 3,
        })
    };
    let first = run(4).await.unwrap();
    assert_eq!(first.computed_tokens, 4 * 119);
    let second = run(8).await.unwrap();
    // Of four prompts, at most the last block of 4.
    let computed = second.computed_tokens - 4 * 119;
    assert!((4 * 20..=4 * 23).contains(&computed), "{second:?}");
    assert!(second.decode.unwrap().context > 100.0);
}
