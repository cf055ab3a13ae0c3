//! What steps say about a run, and a run.

use super::*;
use crate::engine::EngineConfig;
use crate::engine::null::{NullModel, NullName, RealPace};

fn step(idle: u64, ended: u64, sequences: usize, is_decode: bool) -> Step {
    Step {
        idle: Duration::from_micros(idle),
        ended: Duration::from_micros(ended),
        sequences,
        tokens: sequences,
        is_decode,
    }
}

#[test]
fn decode_rate_counts_full_steps_and_the_host_time_before_them() {
    let steps = [
        step(5000, 6000, 2, false),
        step(100, 7000, 2, true),
        step(100, 8000, 4, true),
        step(300, 9000, 4, true),
        step(50, 9900, 1, true),
    ];
    let (decode, host) = judge(&steps);
    assert_eq!((decode.sequences, decode.steps), (4, 2));
    // 8 tokens from 7,000 µs to 9,000 µs.
    assert!((decode.tokens_per_second - 4000.0).abs() < 1e-6);
    assert!((decode.step_ms.mean - 1.0).abs() < 1e-9);
    assert!((decode.host_us.mean - 200.0).abs() < 1e-6);
    assert!((decode.host_us.max - 300.0).abs() < 1e-6);
    // The wait before the first step is nobody's work.
    assert!((host.mean - (100.0 + 100.0 + 300.0 + 50.0) / 4.0).abs() < 1e-6);
}

#[test]
fn a_run_without_decode_has_no_rate() {
    for steps in [&[][..], &[step(0, 9, 3, false)]] {
        let (decode, host) = judge(steps);
        assert_eq!((decode.sequences, decode.steps), (0, 0));
        assert_eq!((decode.tokens_per_second, host.p99), (0.0, 0.0));
    }
}

#[test]
fn prompts_have_their_length_and_no_two_are_alike() {
    let workload = |batch| Workload {
        batch,
        prompt_len: 12,
        output_len: 1,
        seed: 0,
    };
    let words: Vec<TokenId> = (10..500).collect();
    let prompts: std::collections::HashSet<_> = [8, 32]
        .into_iter()
        .flat_map(|batch| (0..batch).map(move |number| (number, workload(batch))))
        .map(|(number, workload)| prompt(number, workload, 1, &words))
        .collect();
    assert_eq!(prompts.len(), 40);
    assert!(
        prompts
            .iter()
            .all(|prompt| prompt.len() == 12 && prompt[0] == 1)
    );
}

#[tokio::test]
async fn a_run_gives_every_token_of_every_request() {
    let capacity = Capacity {
        vocab_size: 100,
        max_model_len: 1000,
        num_blocks: 60,
        block_size: 4,
    };
    let name = NullName::parse("mixtral-8x7b").unwrap();
    let words: Vec<TokenId> = (10..90).collect();
    let model = NullModel::new(name, capacity, words.clone(), RealPace::default());
    let (timed, log) = Timed::new(model);
    let config = EngineConfig {
        max_num_batched_tokens: 64,
        max_num_seqs: 8,
        max_waiting: 8,
        ..EngineConfig::default()
    };
    let engine = Engine::start(timed, config, vec![2]);
    let admission = Admission::new().unwrap();
    let workload = Workload {
        batch: 8,
        prompt_len: 20,
        output_len: 15,
        seed: 1,
    };
    let run = measure(&engine, &log, &admission, (1, &words), workload);
    let row = run.await.unwrap();
    assert_eq!(row.batch, 8);
    assert!(row.steps >= 15 && row.decode.steps > 0, "{row:?}");
    assert!(row.ttft_ms.p50 > 0.0 && row.output_tokens_per_second > 0.0);
    let too_long = Workload {
        output_len: 2000,
        ..workload
    };
    let error = measure(&engine, &log, &admission, (1, &words), too_long).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "the request needs 2020 tokens of context, at most 240 fit"
    );
}
