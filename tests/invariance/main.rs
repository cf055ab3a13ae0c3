//! The seedling's tokens are those of transformers, and the same alone, batched, chunked, preempted and in blocks of any size.
//!
//! The real model, runner, scheduler and sampler; no text and no HTTP around them.

#![cfg(feature = "seedling")]
#![allow(clippy::unwrap_used)] // Outside of test functions clippy does not know that this is all test.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use mixgate::auth::{AuthConfig, BuiltinIssuer, Gate, MintRequest, Permit};
use mixgate::clock::Clock;
use mixgate::engine::{
    Engine, EngineConfig, Event, FinishReason, ModelRunner, PagedMixtral, Request, SamplingParams,
    Stats, StopConditions, TokenId, Usage,
};
use mixgate::model::{LoadOptions, Mixtral, ModelFiles, ModelSource};
use mixgate::text::{Role, TextFiles, TextModel, Turn};
use serde_json::Value;

/// What came of one sequence.
type Outcome = (Vec<TokenId>, FinishReason, Usage);

/// How an engine serves.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// Tokens per step.
    budget: usize,
    block_size: usize,
    /// Tokens that the cache holds, at least.
    cache: usize,
}

const ROOMY: Way = Way {
    budget: 512,
    block_size: 16,
    cache: 16_384,
};

#[tokio::test]
async fn tokens_do_not_depend_on_who_shares_a_step() {
    let stats = same_as_alone(ROOMY).await;
    let tokens: u64 = stats.generation_tokens_total;
    assert!(
        stats.steps_total < tokens / 8,
        "they hardly shared: {stats:?}"
    );
    assert_eq!(stats.preemptions_total, 0);
}

#[tokio::test]
async fn tokens_do_not_depend_on_the_chunks_that_prompts_are_cut_into() {
    for budget in [5, 17] {
        let stats = same_as_alone(Way { budget, ..ROOMY }).await;
        let computed = stats.prompt_tokens_total as usize;
        assert!(
            stats.steps_total as usize >= computed / budget,
            "whole prompts fitted: {stats:?}"
        );
    }
}

#[tokio::test]
async fn tokens_do_not_depend_on_the_size_of_blocks() {
    for block_size in [1, 32] {
        same_as_alone(Way {
            block_size,
            ..ROOMY
        })
        .await;
    }
}

#[tokio::test]
async fn tokens_do_not_depend_on_preemptions() {
    for (budget, block_size) in [(512, 1), (512, 16), (13, 4)] {
        // Room for the longest and a little more: whoever grows soon meets another's block.
        let way = Way {
            budget,
            block_size,
            cache: longest() + 2 * block_size,
        };
        let stats = same_as_alone(way).await;
        assert!(stats.preemptions_total > 10, "{way:?}: {stats:?}");
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
    let engine = engine(ROOMY);
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
        let (ours, reason, usage) = outcomes(engine.clone(), request).await.remove(0);
        // The token that ends an answer is counted, not announced.
        let stopped = talk["finish"] == "stop";
        assert_eq!(ours, theirs[..theirs.len() - usize::from(stopped)]);
        assert_eq!(reason == FinishReason::Stop, stopped);
        assert_eq!(usage.completion_tokens, theirs.len());
    }
    engine.shutdown();
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
            .any(|request| request.len() == 2 && request[0].0 != request[1].0)
    );
}

/// Serves all requests at once and compares each with what it gave when it was alone.
async fn same_as_alone(way: Way) -> Stats {
    let alone = alone().await;
    let engine = engine(way);
    let running: Vec<_> = requests()
        .into_iter()
        .map(|request| tokio::spawn(outcomes(engine.clone(), request)))
        .collect();
    for (index, (together, alone)) in running.into_iter().zip(&alone).enumerate() {
        assert_eq!(&together.await.unwrap(), alone, "request {index}, {way:?}");
    }
    let stats = engine.stats();
    assert_eq!(
        (stats.kv_blocks_used, stats.running, stats.waiting),
        (0, 0, 0),
        "{way:?}"
    );
    engine.shutdown();
    stats
}

/// Each request's sequences, with nobody beside it and whole prompts; computed once.
async fn alone() -> Vec<Vec<Outcome>> {
    static ALONE: tokio::sync::OnceCell<Vec<Vec<Outcome>>> = tokio::sync::OnceCell::const_new();
    let compute = || async {
        let engine = engine(ROOMY);
        let mut all = Vec::new();
        for request in requests() {
            all.push(outcomes(engine.clone(), request).await);
        }
        assert_eq!(engine.stats().kv_blocks_used, 0);
        engine.shutdown();
        all
    };
    ALONE.get_or_init(compute).await.clone()
}

/// Runs `request` to its end.
async fn outcomes(engine: Engine, request: Request) -> Vec<Outcome> {
    let mut ids = vec![Vec::new(); request.n as usize];
    let mut ends = vec![None; request.n as usize];
    let mut generation = engine.submit(permit(), request).unwrap();
    while let Some(event) = generation.next().await {
        match event {
            Event::Token { index, id } => ids[index as usize].push(id),
            Event::Finished {
                index,
                reason,
                usage,
            } => ends[index as usize] = Some((reason, usage)),
            Event::Failed(error) => panic!("{error}"),
        }
    }
    ids.into_iter()
        .zip(ends)
        .map(|(ids, end)| {
            let (reason, usage) = end.unwrap();
            (ids, reason, usage)
        })
        .collect()
}

fn engine(way: Way) -> Engine {
    let max_num_seqs = 64;
    let options = LoadOptions {
        max_num_batched_tokens: way.budget,
        max_logit_rows: max_num_seqs,
    };
    let model = Mixtral::load(&ModelSource::Seedling, options).unwrap();
    let eos = model.generation().eos_token_ids.clone();
    let num_blocks = way.cache.div_ceil(way.block_size);
    let paged = PagedMixtral::new(model, num_blocks, way.block_size, 2048).unwrap();
    let config = EngineConfig {
        max_num_batched_tokens: way.budget,
        max_num_seqs,
        max_waiting: 64,
        ..EngineConfig::default()
    };
    Engine::start(ModelRunner::new(paged), config, eos)
}

/// Each prompt once greedy and once seeded, two completions at a time, with everything that bends a distribution.
fn requests() -> Vec<Request> {
    let bent = SamplingParams {
        top_p: 0.95,
        repetition_penalty: 1.1,
        frequency_penalty: 0.3,
        presence_penalty: 0.2,
        ..SamplingParams::default()
    };
    let greedy = SamplingParams {
        temperature: 0.0,
        ..SamplingParams::default()
    };
    let request = |(index, prompt): (usize, &Arc<[TokenId]>)| {
        let seeded = SamplingParams {
            seed: Some(index as u64),
            // A trained model is sure of most of its words; heat makes it choose.
            temperature: if index % 3 == 1 { 1.8 } else { 0.9 },
            ..bent.clone()
        };
        // Half of them end where the model wants to, half in the middle of their words.
        [(1, greedy.clone()), (2, seeded)].map(|(n, sampling)| Request {
            prompt: prompt.clone(),
            n,
            sampling,
            cache_salt: None,
            until: StopConditions {
                max_tokens: if index % 2 == 0 { MOST } else { 20 },
                min_tokens: 0,
                stop_token_ids: Vec::new(),
                ignore_eos: index % 4 == 1,
            },
        })
    };
    PROMPTS.iter().enumerate().flat_map(request).collect()
}

/// Tokens of the longest sequence that [`requests`] can grow to.
fn longest() -> usize {
    PROMPTS.iter().map(|prompt| prompt.len()).max().unwrap() + MOST
}

/// A permit as the server gets it: by a token, through the gate.
fn permit() -> Permit {
    static GATE: LazyLock<(Gate, BuiltinIssuer)> = LazyLock::new(|| {
        let issuer = BuiltinIssuer::ephemeral().unwrap();
        let gate = Gate::new(
            &AuthConfig::default(),
            Some(issuer.clone()),
            Clock::system(),
        );
        (gate.unwrap(), issuer)
    });
    let (gate, issuer) = &*GATE;
    let request = MintRequest {
        subject: "ann".to_owned(),
        ttl: Duration::from_secs(600),
        scopes: "chat".to_owned(),
        claims: serde_json::Map::new(),
    };
    let token = issuer.mint(&request, gate.clock().unix_seconds()).unwrap();
    let identity = gate.verify(token.as_bytes()).unwrap();
    gate.admit(Arc::new(identity)).unwrap()
}

static PROMPTS: LazyLock<Vec<Arc<[TokenId]>>> = LazyLock::new(|| {
    let files = ModelFiles::open(&ModelSource::Seedling).unwrap();
    let text = TextModel::new(&TextFiles {
        tokenizer: &files.tokenizer,
        tokenizer_config: files.tokenizer_config.as_deref(),
        chat_template: files.chat_template.as_deref(),
    })
    .unwrap();
    let prompt = |(index, question): (usize, &&str)| {
        // Every third asks after a short talk, so that prompts are of many lengths.
        let mut turns = Vec::new();
        if index % 3 == 2 {
            turns.push((Role::User, QUESTIONS[0]));
            turns.push((
                Role::Assistant,
                "Sow carrots outdoors from April, two weeks before the last frost.",
            ));
        }
        turns.push((Role::User, question));
        let turns: Vec<Turn> = turns
            .into_iter()
            .map(|(role, text)| Turn {
                role,
                text: text.to_owned(),
            })
            .collect();
        text.chat_prompt(&turns).unwrap().into()
    };
    QUESTIONS.iter().enumerate().map(prompt).collect()
});

const QUESTIONS: [&str; 12] = [
    "When do I sow carrots in a cold climate?",
    "How deep do I plant garlic?",
    "And tomatoes?",
    "Why are the leaves of my beans yellow, although I water them every evening and the soil is loose and dark?",
    "Hi",
    "Which vegetables grow well in the shade of a north wall?",
    "What is the capital of France?",
    "How often do I water potatoes in July, when it is hot and has not rained for three weeks?",
    "Can I grow lettuce on a balcony?",
    "Tell me about onions, please; I have clay soil, little time and many slugs.",
    "0123456789 -- ??? \u{1F955}",
    "Is it too late to sow peas in June?",
];

/// Most tokens of a completion.
const MOST: usize = 48;
