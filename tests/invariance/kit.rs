//! The seedling behind the real engine, who asks it and what for.

use std::net::Ipv4Addr;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use mixgate::auth::{AuthConfig, BuiltinIssuer, Gate, MintRequest, Permit};
use mixgate::clock::Clock;
use mixgate::engine::{
    Capacity, Engine, EngineConfig, Event, ExecuteError, FinishReason, Forward, ModelRunner,
    PagedMixtral, Request, SamplingParams, Stats, StopConditions, TokenId, Usage,
};
use mixgate::model::{LoadOptions, Mixtral, ModelFiles, ModelSource, StepBatch};
use mixgate::text::{Role, TextFiles, TextModel, Turn};

/// What came of one sequence.
pub type Outcome = (Vec<TokenId>, FinishReason, Usage);

/// How an engine serves.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Tokens per step.
    pub budget: usize,
    pub block_size: usize,
    /// Tokens that the cache holds, at least.
    pub cache: usize,
    /// Sequences that run at the same time.
    pub max_num_seqs: usize,
    pub prefix_caching: bool,
}

pub const ROOMY: Way = Way {
    budget: 512,
    block_size: 16,
    cache: 16_384,
    max_num_seqs: 64,
    prefix_caching: true,
};

/// One sequence at a time, whole prompts, nothing taken over from anybody: not even by a sequence of the same request.
pub const ALONE: Way = Way {
    max_num_seqs: 1,
    prefix_caching: false,
    ..ROOMY
};

/// An engine on the seedling, and the work that its model did.
#[derive(Clone)]
pub struct Server {
    pub engine: Engine,
    work: Arc<Work>,
}

#[derive(Default)]
struct Work {
    tokens: AtomicUsize,
    copies: AtomicUsize,
    largest_step: AtomicUsize,
}

/// The model, counting.
struct Counted {
    model: PagedMixtral,
    work: Arc<Work>,
}

impl Forward for Counted {
    fn capacity(&self) -> Capacity {
        self.model.capacity()
    }

    fn forward(&mut self, batch: &StepBatch) -> Result<impl Deref<Target = [f32]>, ExecuteError> {
        let (tokens, copies) = (batch.input_ids.len(), batch.block_copies.len() / 2);
        self.work.tokens.fetch_add(tokens, Ordering::Relaxed);
        self.work.copies.fetch_add(copies, Ordering::Relaxed);
        self.work.largest_step.fetch_max(tokens, Ordering::Relaxed);
        self.model.forward(batch)
    }
}

impl Server {
    pub fn start(way: Way) -> Self {
        let options = LoadOptions {
            max_num_batched_tokens: way.budget,
            max_logit_rows: way.max_num_seqs,
        };
        let model = Mixtral::load(&ModelSource::Seedling, options).unwrap();
        let eos = model.generation().eos_token_ids.clone();
        let num_blocks = way.cache.div_ceil(way.block_size);
        let model = PagedMixtral::new(model, num_blocks, way.block_size, 2048).unwrap();
        let config = EngineConfig {
            max_num_batched_tokens: way.budget,
            max_num_seqs: way.max_num_seqs,
            prefix_caching: way.prefix_caching,
            ..EngineConfig::default()
        };
        let work = Arc::<Work>::default();
        let counted = Counted {
            model,
            work: Arc::clone(&work),
        };
        let engine = Engine::start(ModelRunner::new(counted), config, eos);
        Self { engine, work }
    }

    /// Tokens computed so far.
    pub fn computed(&self) -> usize {
        self.work.tokens.load(Ordering::Relaxed)
    }

    /// Blocks copied so far.
    pub fn copied(&self) -> usize {
        self.work.copies.load(Ordering::Relaxed)
    }

    /// Tokens of the largest step so far.
    pub fn largest_step(&self) -> usize {
        self.work.largest_step.load(Ordering::Relaxed)
    }

    /// Runs `request` to its end.
    pub async fn answer(&self, permit: Permit, request: Request) -> Vec<Outcome> {
        let mut ids = vec![Vec::new(); request.n as usize];
        let mut ends = vec![None; request.n as usize];
        let mut generation = self.engine.submit(permit, request).unwrap();
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

    /// The same, with what it cost: tokens computed while nobody else is served.
    pub async fn cost(&self, permit: Permit, request: Request) -> (Vec<Outcome>, usize) {
        let before = self.computed();
        let outcomes = self.answer(permit, request).await;
        (outcomes, self.computed() - before)
    }

    /// Stops the engine, which must hold nothing any more, and returns its counters.
    pub fn stop(&self) -> Stats {
        let stats = self.engine.stats();
        assert_eq!(
            (stats.kv_blocks_used, stats.running, stats.waiting),
            (0, 0, 0)
        );
        self.engine.shutdown();
        stats
    }
}

/// The outcomes as they would be without a prefix cache: what came from it is the one thing that may differ.
pub fn without_hits(mut outcomes: Vec<Outcome>) -> Vec<Outcome> {
    for (_, _, usage) in &mut outcomes {
        usage.cached_tokens = 0;
    }
    outcomes
}

/// Prompt tokens that came from the prefix cache, as the request's usage says it: with its first sequence.
pub fn cached(outcomes: &[Outcome]) -> usize {
    let cached: usize = outcomes.iter().map(|(.., usage)| usage.cached_tokens).sum();
    assert_eq!(cached, outcomes[0].2.cached_tokens);
    cached
}

/// What each of [`requests`] gives in the way [`ALONE`]; computed once.
pub async fn alone() -> Vec<Vec<Outcome>> {
    static OUTCOMES: tokio::sync::OnceCell<Vec<Vec<Outcome>>> = tokio::sync::OnceCell::const_new();
    let compute = || async {
        let server = Server::start(ALONE);
        let mut all = Vec::new();
        for request in requests() {
            all.push(server.answer(gardener(), request).await);
        }
        let stats = server.stop();
        assert_eq!((stats.prefix_hits_total, server.copied()), (0, 0));
        all
    };
    OUTCOMES.get_or_init(compute).await.clone()
}

/// Each prompt once greedy and once seeded, some completions at a time, with everything that bends a distribution.
pub fn requests() -> Vec<Request> {
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
            temperature: if index % 3 == 1 { 1.8 } else { 1.5 },
            ..bent.clone()
        };
        let several = if index % 2 == 0 { 4 } else { 2 };
        // Half of them end where the model wants to, half in the middle of their words.
        [(1, greedy.clone()), (several, seeded)].map(|(n, sampling)| Request {
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

/// The same, each in a circle of its own that shares nothing with the others.
pub fn salted() -> Vec<Request> {
    let salt = |(index, request): (usize, Request)| Request {
        cache_salt: Some(index.to_string().into()),
        ..request
    };
    requests().into_iter().enumerate().map(salt).collect()
}

/// Tokens of the longest sequence that [`requests`] can grow to.
pub fn longest() -> usize {
    PROMPTS.iter().map(|prompt| prompt.len()).max().unwrap() + MOST
}

/// Whom most tests serve.
pub fn gardener() -> Permit {
    permit("ann", Some("garden"))
}

/// A permit as the server gets it: by a token, through the gate.
pub fn permit(subject: &str, tenant: Option<&str>) -> Permit {
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
    let tenant = tenant.map(|tenant| ("tenant".to_owned(), tenant.into()));
    let request = MintRequest {
        subject: subject.to_owned(),
        ttl: Duration::from_secs(600),
        scopes: "chat".to_owned(),
        claims: tenant.into_iter().collect(),
    };
    let token = issuer.mint(&request, gate.clock().unix_seconds()).unwrap();
    let identity = gate.verify(token.as_bytes()).unwrap();
    let rights = gate.rights(&identity, Ipv4Addr::LOCALHOST.into()).unwrap();
    gate.admit(Arc::new(identity), rights).unwrap()
}

pub static PROMPTS: LazyLock<Vec<Arc<[TokenId]>>> = LazyLock::new(|| {
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
