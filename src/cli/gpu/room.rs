//! What fits on a GPU, worked out before anything is loaded.

use crate::cli::Failure;
use crate::model::Footprint;
use crate::model::Storage;

/// What is about to be loaded, for messages.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Candidate<'a> {
    /// Such as `cuda:0`.
    pub device: &'a str,
    /// Such as `mixtral-8x7b-instruct`.
    pub model: &'a str,
    /// Weights.
    pub parameters: u64,
    /// How its linear layers are to be stored.
    pub storage: Storage,
}

/// Tokens of KV cache that fit beside the weights into `free` bytes; `footprint` tells what each storage takes.
///
/// # Errors
/// If the weights alone do not fit, with what would.
pub(in crate::cli) fn room(
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
             caused by: weights 22.6 GiB, buffers 0.1 GiB, driver 1.0 GiB, 1024 tokens of KV cache 0.1 GiB\n\
             hint: use a GPU with at least 24 GiB"
        );
        assert!(on(79 * GIB, Storage::W4a16).unwrap() > 400_000);
    }
}
