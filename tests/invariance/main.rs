//! The seedling's tokens are those of transformers, and the same alone, batched, chunked, preempted, in blocks of any
//! size, and from blocks that another sequence or an earlier request has computed.
//!
//! The real model, runner, scheduler and sampler; no text and no HTTP around them.

#![cfg(feature = "seedling")]
#![allow(clippy::unwrap_used)] // Outside of test functions clippy does not know that this is all test.

mod kit;
mod prefixes;

use std::collections::HashSet;

use kit::{ROOMY, Server, Way, alone, gardener, longest, permit, requests, without_hits};
use mixgate::engine::{FinishReason, Request, SamplingParams, Stats, StopConditions, TokenId};
use serde_json::Value;

#[tokio::test]
async fn tokens_do_not_depend_on_who_shares_a_step() {
    for prefix_caching in [true, false] {
        let way = Way {
            prefix_caching,
            ..ROOMY
        };
        let (stats, _) = same_as_alone(way).await;
        let tokens: u64 = stats.generation_tokens_total;
        assert!(
            stats.steps_total < tokens / 8,
            "they hardly shared: {stats:?}"
        );
        assert_eq!(stats.preemptions_total, 0);
    }
}

#[tokio::test]
async fn tokens_do_not_depend_on_the_chunks_that_prompts_are_cut_into() {
    for (budget, prefix_caching) in [(5, true), (17, false)] {
        let way = Way {
            budget,
            prefix_caching,
            ..ROOMY
        };
        let (_, server) = same_as_alone(way).await;
        assert_eq!(server.largest_step(), budget);
    }
}

#[tokio::test]
async fn tokens_do_not_depend_on_the_size_of_blocks() {
    for (block_size, prefix_caching) in [(1, true), (7, true), (32, false)] {
        same_as_alone(Way {
            block_size,
            prefix_caching,
            ..ROOMY
        })
        .await;
    }
}

#[tokio::test]
async fn tokens_do_not_depend_on_preemptions_and_evictions() {
    for (budget, block_size, prefix_caching) in [
        (512, 1, true),
        (512, 16, true),
        (512, 16, false),
        (13, 4, true),
        (13, 4, false),
    ] {
        // Room for the longest and a little more: whoever grows soon meets another's block.
        let way = Way {
            budget,
            block_size,
            cache: longest() + 2 * block_size,
            prefix_caching,
            ..ROOMY
        };
        let (stats, _) = same_as_alone(way).await;
        assert!(stats.preemptions_total > 10, "{way:?}: {stats:?}");
        let (hits, evictions) = (stats.prefix_hits_total, stats.prefix_evictions_total);
        match prefix_caching {
            true => assert!(hits > 0 && evictions > 10, "{way:?}: {stats:?}"),
            false => assert_eq!((hits, evictions), (0, 0), "{way:?}"),
        }
    }
}

#[tokio::test]
async fn greedy_answers_are_those_of_transformers_token_for_token() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/models/goldens/seedling/greedy.json"
    );
    let talks: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(talks.len() >= 6);
    let server = Server::start(ROOMY);
    for talk in talks {
        let ids = |name: &str| serde_json::from_value::<Vec<TokenId>>(talk[name].clone()).unwrap();
        let theirs = ids("greedy_ids");
        let request = Request {
            prompt: ids("prompt_ids").into(),
            n: 1,
            sampling: SamplingParams {
                temperature: 0.0,
                ..SamplingParams::default()
            },
            until: StopConditions {
                max_tokens: 80,
                min_tokens: 0,
                stop_token_ids: Vec::new(),
                ignore_eos: false,
            },
            cache_salt: None,
        };
        let (ours, reason, usage) = server.answer(gardener(), request).await.remove(0);
        // The token that ends an answer is counted, not announced.
        let stopped = talk["finish"] == "stop";
        assert_eq!(ours, theirs[..theirs.len() - usize::from(stopped)]);
        assert_eq!(reason == FinishReason::Stop, stopped);
        assert_eq!(usage.completion_tokens, theirs.len());
    }
    server.stop();
}

#[tokio::test]
async fn the_requests_of_these_tests_are_worth_comparing() {
    let alone = alone().await;
    let texts: HashSet<&[TokenId]> = alone.iter().flatten().map(|(ids, ..)| &**ids).collect();
    let sequences = alone.iter().flatten().count();
    assert!(
        texts.len() * 2 > sequences,
        "{} different of {sequences}",
        texts.len()
    );
    let ended_with = |wanted| {
        let reasons = alone.iter().flatten().map(|(_, reason, _)| *reason);
        reasons.filter(|reason| *reason == wanted).count()
    };
    assert!(ended_with(FinishReason::Stop) > 0 && ended_with(FinishReason::Length) > 0);
    // The completions of one seeded request differ from each other.
    assert!(
        alone
            .iter()
            .any(|request| request.len() > 1 && request[0].0 != request[1].0)
    );
}

/// Serves all requests at once, of subjects within and across tenants, and compares each with what it gave when it was
/// alone.
async fn same_as_alone(way: Way) -> (Stats, Server) {
    let alone = alone().await;
    let server = Server::start(way);
    let callers = [("ann", "garden"), ("ben", "garden"), ("cyd", "field")];
    let answer = |(index, request): (usize, Request)| {
        let (subject, tenant) = callers[index % callers.len()];
        let server = server.clone();
        tokio::spawn(async move { server.answer(permit(subject, Some(tenant)), request).await })
    };
    let running: Vec<_> = requests().into_iter().enumerate().map(answer).collect();
    for (index, (together, alone)) in running.into_iter().zip(&alone).enumerate() {
        let together = without_hits(together.await.unwrap());
        assert_eq!(&together, alone, "request {index}, {way:?}");
    }
    (server.stop(), server)
}
