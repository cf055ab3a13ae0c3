//! From the name of a model to something that carries out plans: one function per kind of model.

use std::io::ErrorKind;

use super::memory::FreeMemory;
use super::room::{Candidate, Place, cache, room};
use super::{Failure, gpu};
use crate::bench::floor::Floor;
use crate::config::{Config, DeviceName, KvCache, Model, ModelSettings};
use crate::engine::null::{Card, NullModel, NullName, RealPace};
use crate::engine::{Capacity, Executor, ModelRunner, PagedMixtral, TokenId};
use crate::model::Storage;
use crate::model::{
    self, Backend, Cpu, Footprint, Limits, LoadOptions, Mixtral, MixtralConfig, ModelError,
    ModelFiles, ModelSource,
};
use crate::server::SamplingDefaults;
use crate::text::{TextFiles, TextModel};

/// A model, ready for the engine to take.
pub(super) struct Loaded {
    /// Carries out the engine's plans.
    pub executor: Box<dyn Executor>,
    /// Its tokenizer and its way to lay out a chat.
    pub text: TextModel,
    /// Tokens that end a sequence; never empty.
    pub eos: Vec<TokenId>,
    /// What it proposes for sampling.
    pub sampling: SamplingDefaults,
    /// What there is to tell of it.
    pub facts: ModelFacts,
}

/// What the start-up screen tells of the model, which the engine owns by then.
pub(super) struct ModelFacts {
    /// Weights; of a null model, those that it stands for.
    pub parameters: u64,
    /// How they are stored.
    pub dtype: &'static str,
    /// Where it runs.
    pub device: String,
    /// Size of the KV cache.
    pub kv_cache_tokens: usize,
    /// Size of the KV cache; of a null model, what it would be.
    pub kv_cache_bytes: usize,
    /// What a reader must know before believing an answer or a number.
    pub caution: Option<String>,
    /// What its steps cannot do without; `None` of a model without weights.
    pub floor: Option<Floor>,
}

/// Loads the model that the configuration names.
///
/// # Errors
/// What is missing, broken or too large.
pub(super) fn load(config: &Config) -> Result<Loaded, Failure> {
    for ignored in ignored(&config.model) {
        tracing::warn!("{ignored}");
    }
    match &config.model.source {
        Model::Real(source) => real(config, source),
        Model::Null(name) => null(&config.model, *name),
    }
}

/// A checkpoint, the model in the binary, or one made up.
fn real(config: &Config, source: &ModelSource) -> Result<Loaded, Failure> {
    match config.model.device {
        DeviceName::Cpu => {
            let settings = &config.model;
            let text = text(settings, source)?;
            let options = load_options(config);
            let kv_cache = cache_in_memory(settings, source, options, FreeMemory::now())?;
            let cpu = |shape: &_, limits| Ok(Cpu::new(shape, limits)?.storing(dtype(settings)));
            let model =
                Mixtral::load_on(source, options, cpu).map_err(|error| unloadable(&error))?;
            ready(
                settings,
                text,
                model,
                kv_cache,
                |model, [blocks, size, context]| {
                    Ok(ModelRunner::new(PagedMixtral::new(
                        model, blocks, size, context,
                    )?))
                },
            )
        }
        DeviceName::Cuda(ordinal) => gpu::load(config, source, ordinal),
    }
}

/// What was asked for and has no effect.
fn ignored(settings: &ModelSettings) -> Vec<String> {
    let mut all = Vec::new();
    let on_gpu = match (&settings.source, settings.device) {
        (Model::Null(_), DeviceName::Cuda(_)) => {
            let device = settings.device;
            all.push(format!(
                "--device {device} is ignored: a null model computes nothing; its name says whose pace it keeps"
            ));
            false
        }
        (_, device) => device != DeviceName::Cpu,
    };
    if settings.cublaslt && !on_gpu {
        all.push("--cublaslt is ignored: it multiplies on a GPU, see --device".to_owned());
    }
    all
}

/// The KV cache of a model on the CPU, once it is known that all of it fits into what memory is `free`.
///
/// # Errors
/// If it does not fit.
fn cache_in_memory(
    settings: &ModelSettings,
    source: &ModelSource,
    options: LoadOptions,
    free: Option<FreeMemory>,
) -> Result<KvCache, Failure> {
    let Some(free) = free else {
        return Ok(settings.kv_cache);
    };
    let shape = MixtralConfig::of(source).map_err(|error| unloadable(&error))?;
    let context = context(settings, shape.max_position_embeddings)?;
    let [tables, linear] =
        model::stored_types(source, &shape).map_err(|error| unloadable(&error))?;
    let storage = dtype(settings).unwrap_or(linear);
    let limits = Limits::of(options);
    let footprint = |storage| Footprint::on_cpu(&shape, storage, tables, limits);
    let candidate = Candidate {
        place: Place::of(free),
        model: &settings.served_model_name,
        parameters: shape.num_parameters(),
        storage,
    };
    let fits = room(candidate, footprint, free.bytes)?;
    let per_token = model::KvCache::<Cpu>::bytes_per_token(&shape);
    let block_size = settings.block_size;
    let auto = KvCache::Auto.blocks(per_token, context, block_size) * block_size;
    cache(settings.kv_cache, auto, fits, footprint(storage))
}

/// How weights are to be stored: as the operator says, or the name of a synthetic model.
pub(super) fn dtype(settings: &ModelSettings) -> Option<Storage> {
    let named = match &settings.source {
        Model::Real(ModelSource::Synthetic(model)) => model.storage,
        _ => None,
    };
    settings.dtype.or(named)
}

/// How large a step may be.
pub(super) fn load_options(config: &Config) -> LoadOptions {
    LoadOptions {
        max_num_batched_tokens: config.engine.max_num_batched_tokens,
        max_logit_rows: config.engine.max_num_seqs,
    }
}

/// Gives a loaded model its cache.
///
/// `execute` makes of the model, its blocks, their size and the context what carries out plans.
pub(super) fn ready<B: Backend, E: Executor + 'static>(
    settings: &ModelSettings,
    text: TextModel,
    model: Mixtral<B>,
    kv_cache: KvCache,
    execute: impl FnOnce(Mixtral<B>, [usize; 3]) -> Result<E, ModelError>,
) -> Result<Loaded, Failure> {
    let shape = model.config();
    if text.vocab_size() > shape.vocab_size {
        return Err(Failure::new(format!(
            "the tokenizer has {} tokens, the model {}",
            text.vocab_size(),
            shape.vocab_size
        ))
        .hint("tokenizer.json and config.json must come from the same checkpoint"));
    }
    let context = context(settings, shape.max_position_embeddings)?;
    let bytes_per_token = model::KvCache::<B>::bytes_per_token(shape);
    let block_size = settings.block_size;
    let num_blocks = kv_cache.blocks(bytes_per_token, context, block_size);
    let facts = ModelFacts {
        parameters: shape.num_parameters(),
        dtype: model.dtype(),
        device: model.device(),
        kv_cache_tokens: num_blocks * block_size,
        kv_cache_bytes: num_blocks * block_size * bytes_per_token,
        caution: None,
        floor: Storage::named(model.dtype()).map(|storage| Floor::of(shape, storage)),
    };
    let generation = model.generation().clone();
    let executor = execute(model, [num_blocks, block_size, context])
        .map_err(|error| failure("cannot make room for the KV cache", &error))?;
    let mut eos = generation.eos_token_ids;
    if eos.is_empty() {
        eos.push(text.eos());
    }
    Ok(Loaded {
        executor: Box::new(executor),
        text,
        eos,
        sampling: SamplingDefaults {
            temperature: generation.temperature,
            top_p: generation.top_p,
            top_k: generation.top_k,
            ..SamplingDefaults::default()
        },
        facts,
    })
}

/// A model that computes nothing. It reads and speaks the seedling's tokens.
fn null(settings: &ModelSettings, name: NullName) -> Result<Loaded, Failure> {
    if cfg!(not(feature = "seedling")) {
        return Err(Failure::new(
            "a null model speaks the seedling's tokens, which this binary does not have",
        )
        .hint("build it with the `seedling` feature"));
    }
    if let Some(dtype) = settings.dtype {
        return Err(Failure::new(format!("dtype is {dtype}, a null model has no weights")).hint(
            "leave it out, or name the device and its precision, such as null:mixtral-8x7b@a100-w4a16",
        ));
    }
    let fits = null_cache(name)?;
    let text = text(settings, &ModelSource::Seedling)?;
    let sizes = name.shape.sizes();
    let context = context(settings, name.shape.context())?;
    let bytes_per_token = sizes.kv_bytes_per_token() as usize;
    let kv_cache = match settings.kv_cache {
        KvCache::Auto => {
            KvCache::Tokens(fits.unwrap_or_else(|| context.saturating_mul(NULL_CONTEXTS)))
        }
        given => given,
    };
    let block_size = settings.block_size;
    let num_blocks = kv_cache.blocks(bytes_per_token, context, block_size);
    let capacity = Capacity {
        vocab_size: text.vocab_size(),
        max_model_len: context,
        num_blocks,
        block_size,
    };
    let executor = NullModel::new(name, capacity, plain_words(&text), RealPace::default());
    Ok(Loaded {
        executor: Box::new(executor),
        eos: vec![text.eos()],
        text,
        sampling: SamplingDefaults::default(),
        facts: ModelFacts {
            parameters: sizes.num_parameters(),
            dtype: name
                .on
                .map_or("no weights", |(_, precision)| precision.name()),
            device: "no device".to_owned(),
            kv_cache_tokens: num_blocks * block_size,
            kv_cache_bytes: num_blocks * block_size * bytes_per_token,
            caution: Some(caution(name)),
            floor: name
                .on
                .map(|(_, precision)| Floor::of_null(sizes, precision)),
        },
    })
}

/// Tokens of cache that a null model's card has room for.
///
/// # Errors
/// If the card cannot run it.
pub(super) fn null_cache(name: NullName) -> Result<Option<usize>, Failure> {
    name.kv_cache_tokens()
        .map_err(|error| Failure::of(&error).hint(error.hint()))
}

fn caution(name: NullName) -> String {
    let pace = match name.on {
        None => "at once".to_owned(),
        Some((card, _)) => format!("in the least time of {}", pace_of(card)),
    };
    format!("computes nothing: arbitrary words, {pace}")
}

fn pace_of(card: Card) -> String {
    let source = match card.measured() {
        None => "datasheet",
        Some(_) => "measured",
    };
    let terabytes = card.rates().bytes_per_second / 1e12;
    format!("{} ({terabytes} TB/s, {source})", card.title())
}

/// Tokens that are a space and small letters: each is text by itself, none is a control token.
pub(super) fn plain_words(text: &TextModel) -> Vec<TokenId> {
    let is_word = |id: &TokenId| {
        let letters = text.token_bytes(*id).strip_prefix(b" ");
        letters.is_some_and(|word| {
            word.iter().all(u8::is_ascii_lowercase) && (2..).contains(&word.len())
        })
    };
    let size = TokenId::try_from(text.vocab_size()).unwrap_or(TokenId::MAX);
    (0..size).filter(is_word).collect()
}

/// The tokenizer and the way to lay out a chat.
pub(super) fn text(settings: &ModelSettings, source: &ModelSource) -> Result<TextModel, Failure> {
    let files = ModelFiles::open(source).map_err(|error| unloadable(&error))?;
    let operators = match &settings.chat_template {
        None => None,
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!("cannot read the chat template {}", path.display()))
                .caused_by(&error)
        })?),
    };
    let files = TextFiles {
        tokenizer: &files.tokenizer,
        tokenizer_config: files.tokenizer_config.as_deref(),
        chat_template: operators.as_deref().or(files.chat_template.as_deref()),
    };
    TextModel::new(&files).map_err(|error| failure("cannot use the model's tokenizer", &error))
}

fn failure(message: &str, error: &dyn std::error::Error) -> Failure {
    Failure::new(message).caused_by(error)
}

pub(super) fn unloadable(error: &ModelError) -> Failure {
    let failed = failure("cannot load the model", error);
    match error {
        ModelError::Read { source, .. } if source.kind() == ErrorKind::NotFound => failed.hint(
            "the model in the binary is called seedling; --model takes that or a checkpoint folder",
        ),
        ModelError::Quantise { source, .. } => failed.hint(match source.divides() {
            Some(names) => {
                format!("choose a --dtype that fits: {names}; auto keeps weights as they are")
            }
            None => "--dtype auto keeps weights as they are".to_owned(),
        }),
        _ => failed,
    }
}

/// Longest sequence that the operator wants and the model can do.
pub(super) fn context(settings: &ModelSettings, limit: usize) -> Result<usize, Failure> {
    match settings.max_model_len {
        Some(given) if given > limit => Err(Failure::new(format!(
            "max_model_len is {given}, the model's context is {limit}"
        ))
        .hint(format!("leave it out, or give at most {limit}"))),
        given => Ok(given.unwrap_or(limit)),
    }
}

/// Full contexts that a null model holds which no card limits: 2 M tokens of Mixtral 8x7B.
const NULL_CONTEXTS: usize = 64;

#[cfg(test)]
mod tests;
