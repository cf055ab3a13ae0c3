//! Prompts whose beginning is in the cache already: from an earlier request, an earlier turn, or a sequence of the same
//! request.

use super::kit::{
    ALONE, Outcome, PROMPTS, ROOMY, Server, Way, alone, cached, gardener, longest, permit,
    requests, salted, without_hits,
};
use mixgate::engine::{Request, SamplingParams};

#[tokio::test]
async fn a_prompt_seen_before_gives_the_same_tokens_and_costs_its_last_block() {
    for block_size in [1, 5, 16] {
        let server = Server::start(Way {
            block_size,
            ..ROOMY
        });
        for (request, alone) in salted().into_iter().zip(alone().await) {
            let len = request.prompt.len();
            let (first, cold) = server.cost(gardener(), request.clone()).await;
            let (second, warm) = server.cost(gardener(), request).await;
            // The last token is always computed: its logits are wanted.
            let whole_blocks = (len - 1) / block_size * block_size;
            assert_eq!((cached(&first), cached(&second)), (0, whole_blocks));
            assert_eq!(warm, cold - whole_blocks);
            let prompts = |(.., usage): &Outcome| usage.prompt_tokens;
            assert_eq!(first.iter().map(prompts).sum::<usize>(), len);
            assert_eq!(without_hits(first), alone);
            assert_eq!(without_hits(second), alone);
        }
        let stats = server.stop();
        assert_eq!(stats.prefix_evictions_total, 0);
        assert!(
            stats.prefix_hits_total > 0 && stats.prefix_hits_total < stats.prefix_queries_total
        );
    }
}

#[tokio::test]
async fn without_a_prefix_cache_a_prompt_costs_the_same_each_time() {
    let server = Server::start(Way {
        prefix_caching: false,
        ..ROOMY
    });
    for (request, alone) in requests().into_iter().zip(alone().await) {
        let (first, cold) = server.cost(gardener(), request.clone()).await;
        let (second, warm) = server.cost(gardener(), request).await;
        assert_eq!(warm, cold);
        assert_eq!((&first, &second), (&alone, &alone));
    }
    assert_eq!(server.stop().prefix_queries_total, 0);
}

#[tokio::test]
async fn a_second_turn_gives_the_tokens_of_its_whole_prompt_and_finds_the_first_with_its_answer() {
    for block_size in [1, 5, 16] {
        let server = Server::start(Way {
            block_size,
            ..ROOMY
        });
        let reference = Server::start(Way {
            block_size,
            ..ALONE
        });
        for request in salted() {
            let request = Request { n: 1, ..request };
            let first = server.answer(gardener(), request.clone()).await.remove(0);
            let (answer, _, usage) = first;
            let turns = [&*request.prompt, &answer, &PROMPTS[1]].concat();
            let second = Request {
                prompt: turns.into(),
                ..request
            };
            // A sequence's last token is generated, not computed.
            let known = usage.prompt_tokens + usage.completion_tokens - 1;
            let outcomes = server.answer(gardener(), second.clone()).await;
            assert_eq!(cached(&outcomes), known / block_size * block_size);
            assert_eq!(
                without_hits(outcomes),
                reference.answer(gardener(), second).await
            );
        }
        server.stop();
        assert_eq!(reference.stop().prefix_hits_total, 0);
    }
}

#[tokio::test]
async fn an_evicted_prompt_is_computed_again_to_the_same_tokens() {
    for block_size in [1, 16] {
        let server = Server::start(Way {
            block_size,
            cache: longest() + block_size,
            ..ROOMY
        });
        for round in 0..2 {
            let evicted = server.engine.stats().prefix_evictions_total;
            let mut lost = 0;
            for (request, alone) in requests().into_iter().zip(alone().await) {
                let whole_blocks = (request.prompt.len() - 1) / block_size * block_size;
                let outcomes = server.answer(gardener(), request).await;
                lost += whole_blocks - cached(&outcomes);
                assert_eq!(without_hits(outcomes), alone);
            }
            let stats = server.engine.stats();
            assert!(stats.prefix_evictions_total > evicted + 10, "{stats:?}");
            // In the second round every prompt has been here before.
            assert!(lost > 100, "{lost} tokens in round {round}");
        }
        // A request finds at least what the one right before it has left.
        let stats = server.stop();
        assert!(stats.prefix_hits_total > 0, "{stats:?}");
    }
}

#[tokio::test]
async fn completions_that_share_a_prompt_are_those_that_each_gives_alone() {
    // One at a time, each computes the prompt by itself.
    let reference = Server::start(ALONE);
    let mut expected = Vec::new();
    for request in salted() {
        let request = Request { n: 4, ..request };
        let len = request.prompt.len();
        let (apart, cost) = reference.cost(gardener(), request.clone()).await;
        assert_eq!(cost, 4 * (len - 1) + generated(&apart));
        // The first is that of a request for one; the greedy ones are all the same.
        let single = Request {
            n: 1,
            ..request.clone()
        };
        assert_eq!(reference.answer(gardener(), single).await[..], apart[..1]);
        if request.sampling.temperature == 0.0 {
            assert!(apart.iter().all(|(ids, ..)| ids == &apart[0].0));
        }
        expected.push((request, apart));
    }
    reference.stop();
    for prefix_caching in [true, false] {
        for block_size in [1, 5, 16] {
            let way = Way {
                block_size,
                prefix_caching,
                ..ROOMY
            };
            let server = Server::start(way);
            let mut copied = 0;
            for (request, apart) in &expected {
                let shared = request.prompt.len() - 1;
                let (together, cost) = server.cost(gardener(), request.clone()).await;
                assert_eq!(&without_hits(together), apart, "{way:?}");
                assert_eq!(cost, shared + generated(apart), "{way:?}");
                if !shared.is_multiple_of(block_size) {
                    copied += 3;
                }
                assert_eq!(server.copied(), copied);
            }
            assert!(block_size == 1 || copied > 0);
            server.stop();
        }
    }
}

#[tokio::test]
async fn another_tenants_prompt_costs_the_same_as_one_that_nobody_sent() {
    let server = Server::start(ROOMY);
    let unseen = Server::start(ROOMY);
    // Prompts of 16 tokens and fewer have no block to share.
    let long = |(request, _): &(Request, _)| request.prompt.len() > 16;
    let pairs = salted().into_iter().zip(alone().await).filter(long);
    let mut compared = 0;
    for (request, alone) in pairs {
        let (_, cold) = unseen.cost(gardener(), request.clone()).await;
        let ask = async |subject, tenant| {
            let (outcomes, cost) = server.cost(permit(subject, tenant), request.clone()).await;
            let cached = cached(&outcomes);
            assert_eq!(without_hits(outcomes), alone);
            assert_eq!(cost, cold - cached, "{subject}");
            cached
        };
        assert_eq!(ask("ann", Some("garden")).await, 0);
        assert!(ask("ben", Some("garden")).await > 0);
        assert_eq!(ask("cyd", Some("field")).await, 0);
        // Who has no tenant shares with nobody, not even with a tenant of the same name or its own namesake in one.
        assert_eq!(ask("ann", None).await, 0);
        assert_eq!(ask("garden", None).await, 0);
        assert!(ask("ann", None).await > 0);
        compared += 1;
    }
    assert!(compared > 12);
    server.stop();
    unseen.stop();
}

#[tokio::test]
async fn a_salt_keeps_prompts_apart_within_a_tenant() {
    let server = Server::start(ROOMY);
    let prompt = PROMPTS.iter().max_by_key(|prompt| prompt.len()).unwrap();
    let request = requests().swap_remove(0);
    let ask = async |salt: Option<&str>| {
        let request = Request {
            prompt: prompt.clone(),
            cache_salt: salt.map(Into::into),
            sampling: SamplingParams {
                temperature: 0.0,
                ..SamplingParams::default()
            },
            ..request.clone()
        };
        cached(&server.answer(gardener(), request).await)
    };
    for salt in [None, Some(""), Some("a"), Some("b")] {
        assert_eq!(ask(salt).await, 0, "{salt:?}");
        assert!(ask(salt).await > 0, "{salt:?}");
    }
    server.stop();
}

fn generated(outcomes: &[Outcome]) -> usize {
    outcomes
        .iter()
        .map(|(.., usage)| usage.completion_tokens)
        .sum()
}
