//! What callers are promised, on the roofline of an A100. `cargo test scenarios -- --nocapture` shows the numbers.

use std::time::Duration;

use super::simulation::{Answer, Ask, Run, percentile, run};
use crate::auth::Priority;
use crate::engine::fairness::AGEING;
use crate::engine::{EngineConfig, SchedulingPolicy};

#[test]
fn a_light_caller_hardly_notices_a_heavy_one_and_throughput_stays() {
    // 50 requests of 2,000 + 500 tokens wait; somebody else asks for 100 + 20 tokens now and then.
    let heavy = (0..50).map(|text| Ask::new(Duration::ZERO, ALICE, 1000 + text, 2000, 500));
    let light = (0..30).map(|text| {
        let at = Duration::from_millis(500 + 1_131 * u64::from(text));
        Ask::new(at, CAROL, text, 100, 20)
    });
    for max_num_seqs in [8, 16, 64] {
        let fair = EngineConfig {
            max_num_seqs,
            ..EngineConfig::default()
        };
        let first_come = EngineConfig {
            scheduling_policy: SchedulingPolicy::FirstCome,
            ..fair.clone()
        };
        let both: Vec<Ask> = heavy.clone().chain(light.clone()).collect();
        let solo = run(&fair, light.clone().collect(), FOREVER);
        let mixed = run(&fair, both.clone(), FOREVER);
        let reference = run(&first_come, both, FOREVER);
        // Compared while there is enough to do: near the end one of the two has nothing left.
        let until = mixed.answers[..50]
            .iter()
            .map(|answer| answer.tokens[499])
            .max();
        let until = until.unwrap().mul_f64(0.8);
        let [fair, unfair] = [&mixed, &reference].map(|run| served_by(run, until));
        let loss = 1.0 - fair as f64 / unfair as f64;
        let [alone, beside, first_come] =
            [&solo, &mixed, &reference].map(|run| percentile(ttfts(run, CAROL), 95));
        println!(
            "{max_num_seqs} places: light p95 TTFT alone {alone:.1?}, beside the heavy one {beside:.1?} (first come: \
             {first_come:.1?}); longest step {:.1?}; {fair} tokens served in {until:.2?}, {unfair} by first come \
             ({:.1} % lost); {} preemptions",
            mixed.longest_step,
            loss * 100.0,
            mixed.preemptions,
        );
        assert!(beside <= alone.mul_f64(1.5) + mixed.longest_step);
        assert!(loss < 0.05);
    }
}

#[test]
fn a_long_prompt_delays_other_streams_by_no_more_than_a_chunk_per_token() {
    for chunk in [128, 256, 512] {
        let config = EngineConfig {
            max_prefill_tokens: chunk,
            max_num_batched_tokens: 1024,
            ..EngineConfig::default()
        };
        let streams = (0..16).map(|text| Ask::new(Duration::ZERO, ALICE, 1000 + text, 500, 600));
        let arrives = Duration::from_secs(3);
        let long = Ask::new(arrives, CAROL, 1, 8192, 1);
        let quiet = run(&config, streams.clone().collect(), FOREVER);
        let disturbed = run(&config, streams.chain([long.clone()]).collect(), FOREVER);
        // The longest is the last one, which looks back at all the others.
        let in_chunks = EngineConfig {
            max_num_batched_tokens: chunk,
            ..config.clone()
        };
        let cost = run(&in_chunks, vec![long], FOREVER).longest_step;
        let first = disturbed.answers.iter().find(|answer| answer.who == CAROL);
        let until = first.unwrap().tokens[0];
        let itl = |run: &Run| {
            let of_streams = run.answers.iter().filter(|answer| answer.who == ALICE);
            let gaps = of_streams.flat_map(Answer::gaps);
            let meanwhile = gaps.filter(|(at, _)| (arrives..=until).contains(at));
            percentile(meanwhile.map(|(_, gap)| gap), 99)
        };
        let (before, after) = (itl(&quiet), itl(&disturbed));
        println!(
            "chunks of {chunk}: p99 ITL {before:.1?} → {after:.1?}; a chunk costs {cost:.1?}; its prompt took {:.0?}",
            until - arrives
        );
        assert!(until > arrives + Duration::from_millis(500));
        assert!(after <= before + cost);
    }
}

#[test]
fn another_tenants_cached_prompt_is_as_slow_as_a_cold_one_to_the_nanosecond() {
    let ttft = |public: bool, before: &[usize], who: usize| {
        let prompt = |at, who| Ask::new(Duration::from_secs(at), who, 5, 4096, 10);
        let prefix = prompt(0, ALICE).prompt[..2048].into();
        let config = EngineConfig {
            public_prefixes: if public { vec![prefix] } else { Vec::new() },
            ..EngineConfig::default()
        };
        let earlier = before.iter().map(|&who| prompt(0, who));
        let run = run(&config, earlier.chain([prompt(60, who)]).collect(), FOREVER);
        let last = run.answers.last().unwrap();
        (last.ttft(), last.usage.unwrap().cached_tokens)
    };
    let cold = ttft(false, &[], CAROL);
    let others = ttft(false, &[ALICE], CAROL);
    let own = ttft(false, &[ALICE], ALICE);
    let colleagues = ttft(false, &[ALICE], BOB);
    let public = ttft(true, &[ALICE], CAROL);
    println!(
        "TTFT and cached tokens of a 4k prompt: cold {cold:?}, cached for another tenant {others:?}, own {own:?}, \
         half of it public {public:?}"
    );
    assert_eq!((others, others.1), (cold, 0));
    assert_eq!(own, colleagues);
    assert!(own.0 < cold.0 / 10 && own.1 == 4080);
    assert!(public.0 < cold.0.mul_f64(0.6) && public.1 == 2048);
}

#[test]
fn weights_of_one_and_three_share_the_tokens_one_to_three() {
    let config = EngineConfig {
        max_num_seqs: 8,
        ..EngineConfig::default()
    };
    let ask = |text: u32| {
        let who = if text.is_multiple_of(2) { ALICE } else { CAROL };
        let ask = Ask::new(Duration::ZERO, who, text, 300, 100);
        Ask {
            weight: if who == CAROL { 3 } else { 1 },
            ..ask
        }
    };
    let lasts = Duration::from_secs(120);
    let run = run(&config, (0..2000).map(ask).collect(), lasts);
    let [one, three] = [ALICE, CAROL].map(|who| {
        let answers = run.answers.iter().filter(|answer| answer.who == who);
        answers.map(|answer| answer.tokens.len()).sum::<usize>()
    });
    let ratio = three as f64 / one as f64;
    println!("weights 1 and 3 got {one} and {three} tokens, 1 : {ratio:.2}");
    assert!((2.85..=3.15).contains(&ratio));
}

#[test]
fn whoever_waits_is_served_within_the_ageing_bound_while_more_and_more_arrive() {
    let classes = [Priority::Low, Priority::Normal, Priority::High];
    for (priority, places, weight) in classes.into_iter().flat_map(|priority| {
        [(1, 1), (1, 3), (8, 1), (8, 3)].map(|(places, weight)| (priority, places, weight))
    }) {
        let config = EngineConfig {
            max_num_seqs: places,
            ..EngineConfig::default()
        };
        // Twice what can be served, of the highest class, from two other subjects.
        let flood = (0..2500_u32).map(|text| Ask {
            priority: Priority::High,
            weight,
            ..Ask::new(
                Duration::from_millis(20 * u64::from(text)),
                if text.is_multiple_of(2) { ALICE } else { CAROL },
                text,
                500,
                100,
            )
        });
        let sent = Duration::from_secs(5);
        let single = Ask {
            priority,
            ..Ask::new(sent, ERIN, 9999, 500, 100)
        };
        let one = run(&config, vec![single.clone()], FOREVER);
        let run = run(
            &config,
            flood.chain([single]).collect(),
            Duration::from_secs(50),
        );
        let waiting = run.answers.iter().filter(|answer| answer.tokens.is_empty());
        assert!(waiting.count() > 500, "it was no flood");
        let waited = ttfts(&run, ERIN).next().unwrap();
        println!("{priority:?}, {places} places, others of weight {weight}: {waited:.2?}");
        // It rises class by class and then was served least. If there is a single place, who has it keeps it to its
        // end; otherwise somebody gives way. Its prompt takes a step, and it came in the middle of another.
        let classes = Priority::High as u32 - priority as u32;
        let taken = if places == 1 {
            one.lasted - sent
        } else {
            Duration::ZERO
        };
        assert!(waited >= classes * AGEING);
        assert!(waited <= classes * AGEING + taken + 4 * run.longest_step);
    }
}

/// Tokens that were computed for requests by then: their prompts, once they were through, and what they generated.
fn served_by(run: &Run, until: Duration) -> usize {
    let of = |answer: &Answer| {
        let generated = answer.tokens.iter().filter(|&&at| at <= until).count();
        let prompt = if answer.who == ALICE { 2000 } else { 100 };
        generated + if generated > 0 { prompt } else { 0 }
    };
    run.answers.iter().map(of).sum()
}

fn ttfts(run: &Run, who: usize) -> impl Iterator<Item = Duration> {
    let answers = run.answers.iter().filter(move |answer| answer.who == who);
    answers.map(Answer::ttft)
}

const ALICE: usize = 0;
const BOB: usize = 1;
const CAROL: usize = 2;
const ERIN: usize = 4;
const FOREVER: Duration = Duration::MAX;
