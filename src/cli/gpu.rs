//! A model on a GPU: what fits is worked out first, then it is loaded.

use super::Failure;
use crate::model::Footprint;
use crate::ops::Storage;

/// What is about to be loaded, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    /// Such as `cuda:0`.
    pub device: &'a str,
    /// Such as `mixtral-8x7b-instruct`.
    pub model: &'a str,
    /// Weights.
    pub parameters: u64,
    /// How its linear layers are to be stored.
    pub storage: Storage,
}

/// Tokens of KV cache that fit beside the weights into `free` bytes; `fits` tells the footprint in another storage.
///
/// # Errors
/// If the weights alone do not fit, with what would.
pub(super) fn room(
    candidate: Candidate<'_>,
    footprint: impl Fn(Storage) -> Footprint,
    free: u64,
) -> Result<u64, Failure> {
    let Candidate {
        device,
        model,
        parameters,
        storage,
    } = candidate;
    let needs = footprint(storage);
    if let Some(tokens) = needs.tokens_in(free)
        && tokens >= LEAST_TOKENS
    {
        return Ok(tokens);
    }
    let all = needs.weights + needs.workspace + RESERVE + LEAST_TOKENS * needs.per_token;
    let (message, cause) = if needs.weights > free {
        (
            format!(
                "weights need {}, {device} has {} free",
                gibibytes(needs.weights),
                gibibytes(free)
            ),
            format!(
                "{model} is {:.1} B parameters × {} ({storage})",
                parameters as f64 / 1e9,
                width(storage)
            ),
        )
    } else {
        (
            format!(
                "the model needs {} with a small KV cache, {device} has {} free",
                gibibytes(all),
                gibibytes(free)
            ),
            format!(
                "weights {}, buffers {}, driver {}, {LEAST_TOKENS} tokens of KV cache {}",
                gibibytes(needs.weights),
                gibibytes(needs.workspace),
                gibibytes(RESERVE),
                gibibytes(LEAST_TOKENS * needs.per_token)
            ),
        )
    };
    let fits = |other: &Storage| {
        footprint(*other)
            .tokens_in(free)
            .is_some_and(|n| n >= LEAST_TOKENS)
    };
    let smaller: Vec<&str> = [Storage::Q8_0, Storage::Fp8, Storage::W4a16]
        .iter()
        .filter(|other| other.row_bytes(256) < storage.row_bytes(256) && fits(other))
        .map(|other| other.name())
        .collect();
    let gpu = format!("use a GPU with at least {} GiB", (all >> 30) + 1);
    let hint = match smaller.is_empty() {
        true => gpu,
        false => format!("load it as {} (--dtype), or {gpu}", smaller.join(" or ")),
    };
    Err(Failure::new(message).caused_by(&Cause(cause)).hint(hint))
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Cause(String);

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

/// Such as `2 bytes` or `4.5 bits`.
fn width(storage: Storage) -> String {
    let columns = storage.block_columns();
    let bits = 8.0 * storage.block_bytes() as f64 / columns as f64;
    match columns {
        1 => format!("{} bytes", bits / 8.0),
        _ => format!("{bits} bits"),
    }
}

#[cfg(feature = "cuda")]
pub(super) use loading::load;

#[cfg(feature = "cuda")]
mod loading {
    use super::super::loading::{Loaded, context, dtype, load_options, ready, text, unloadable};
    use super::{Candidate, room};
    use crate::cli::Failure;
    use crate::config::{Config, DeviceName, KvCache};
    use crate::engine::DeviceRunner;
    use crate::model::{Footprint, Limits, Mixtral, MixtralConfig, ModelSource, OnDevice};
    use crate::ops::{Cuda, Storage};

    /// Loads a model onto GPU number `ordinal`.
    pub fn load(config: &Config, source: &ModelSource, ordinal: usize) -> Result<Loaded, Failure> {
        let settings = &config.model;
        let text = text(settings, source)?;
        let shape = MixtralConfig::of(source).map_err(|error| unloadable(&error))?;
        let options = load_options(config);
        let device = Cuda::open(ordinal).map_err(|error| {
            Failure::of(&error)
                .hint("`--device cpu` runs without a GPU; `nvidia-smi` tells what the driver sees")
        })?;
        let (free, _) = device.memory_bytes().map_err(|error| Failure::of(&error))?;
        let name = DeviceName::Cuda(ordinal).to_string();
        let storage = dtype(settings).unwrap_or(Storage::Bf16);
        let candidate = Candidate {
            device: &name,
            model: &settings.served_model_name,
            parameters: shape.num_parameters(),
            storage,
        };
        let limits = Limits::of(options);
        let footprint = |storage| Footprint::on_device(&shape, storage, limits);
        let fits = room(candidate, footprint, free)? as usize;
        let context = context(settings, shape.max_position_embeddings)?;
        let kv_cache = match settings.kv_cache {
            // More than all sequences at their longest would never be used.
            KvCache::Auto => {
                KvCache::Tokens(fits.min(context.saturating_mul(options.max_logit_rows)))
            }
            given => given,
        };
        let backend = |config: &_, limits| {
            OnDevice::new(device, config, limits, settings.cuda_graphs)?.storing(storage)
        };
        let model =
            Mixtral::load_on(source, options, backend).map_err(|error| unloadable(&error))?;
        let rows = options.max_logit_rows;
        ready(
            settings,
            text,
            model,
            kv_cache,
            |model, [blocks, size, context]| DeviceRunner::new(model, blocks, size, context, rows),
        )
    }
}

#[cfg(not(feature = "cuda"))]
pub(super) fn load(
    _config: &crate::config::Config,
    _source: &crate::model::ModelSource,
    ordinal: usize,
) -> Result<super::loading::Loaded, Failure> {
    Err(Failure::new(format!(
        "cuda:{ordinal} was asked for, but this binary was built for the CPU alone"
    ))
    .hint("build it with `cargo build --release --features cuda`, or leave --device out"))
}

/// Kept free of weights and cache.
const RESERVE: u64 = crate::model::RESERVE;

/// A cache smaller than this serves nobody.
const LEAST_TOKENS: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Limits, MixtralConfig, ModelSource, Synthetic};

    fn on(free: u64, storage: Storage) -> Result<u64, String> {
        let source = ModelSource::Synthetic(Synthetic::parse("mixtral-8x7b").unwrap());
        let shape = MixtralConfig::of(&source).unwrap();
        let limits = Limits {
            tokens: 512,
            logit_rows: 64,
        };
        let candidate = Candidate {
            device: "cuda:0",
            model: "mixtral-8x7b-instruct",
            parameters: shape.num_parameters(),
            storage,
        };
        let footprint = |storage| Footprint::on_device(&shape, storage, limits);
        room(candidate, footprint, free).map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        const GIB: u64 = 1 << 30;
        assert_eq!(
            on(79 * GIB, Storage::Bf16).unwrap_err(),
            "error: weights need 87.0 GiB, cuda:0 has 79.0 GiB free\n  \
             caused by: mixtral-8x7b-instruct is 46.7 B parameters × 2 bytes (bf16)\n\
             hint: load it as q8_0 or fp8 or w4a16 (--dtype), or use a GPU with at least 89 GiB"
        );
        assert_eq!(
            on(23 * GIB, Storage::W4a16).unwrap_err(),
            "error: the model needs 23.9 GiB with a small KV cache, cuda:0 has 23.0 GiB free\n  \
             caused by: weights 22.6 GiB, buffers 0.2 GiB, driver 1.0 GiB, 1024 tokens of KV cache 0.1 GiB\n\
             hint: use a GPU with at least 24 GiB"
        );
        assert!(on(79 * GIB, Storage::W4a16).unwrap() > 400_000);
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_binary_for_the_cpu_says_so() {
        let config = crate::config::Config::load(&crate::config::Args::default()).unwrap();
        let Err(failure) = load(&config, &ModelSource::Seedling, 1) else {
            panic!("it was loaded");
        };
        assert_eq!(
            failure.to_string(),
            "error: cuda:1 was asked for, but this binary was built for the CPU alone\n\
             hint: build it with `cargo build --release --features cuda`, or leave --device out"
        );
    }
}
