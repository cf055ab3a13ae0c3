//! What fits into a device's memory, worked out before anything is loaded.

use super::Failure;
use super::memory::FreeMemory;
use crate::config::KvCache;
use crate::model::Footprint;
use crate::model::Storage;

/// What is about to be loaded, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    /// Where to.
    pub place: Place<'a>,
    /// Such as `mixtral-8x7b-instruct`.
    pub model: &'a str,
    /// Weights.
    pub parameters: u64,
    /// How its linear layers are to be stored.
    pub storage: Storage,
}

/// Whose memory it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// A GPU's, such as `cuda:0`.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))] // spoken of in tests alone
    Gpu(&'a str),
    /// The machine's.
    Machine,
    /// What a control group allows.
    Container,
}

impl Place<'_> {
    /// Where a model on the CPU goes.
    pub fn of(free: FreeMemory) -> Self {
        match free.is_limited {
            true => Self::Container,
            false => Self::Machine,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Gpu(name) => name.to_owned(),
            Self::Machine => "the machine".to_owned(),
            Self::Container => "the container".to_owned(),
        }
    }

    /// Who needs what is kept free.
    fn others(self) -> &'static str {
        match self {
            Self::Gpu(_) => "driver",
            Self::Machine | Self::Container => "other",
        }
    }

    /// What would have room.
    fn larger(self, gibibytes: u64) -> String {
        match self {
            Self::Gpu(_) => format!("use a GPU with at least {gibibytes} GiB"),
            Self::Machine => format!("use a machine with at least {gibibytes} GiB free"),
            Self::Container => format!("raise the container's memory limit by {gibibytes} GiB"),
        }
    }
}

/// Tokens of KV cache that fit beside the weights into `free` bytes; `footprint` tells what each storage takes.
///
/// # Errors
/// If the weights alone do not fit, with what would.
pub(super) fn room(
    candidate: Candidate<'_>,
    footprint: impl Fn(Storage) -> Footprint,
    free: u64,
) -> Result<u64, Failure> {
    let Candidate {
        place,
        model,
        parameters,
        storage,
    } = candidate;
    let (needs, device) = (footprint(storage), place.name());
    if let Some(tokens) = needs.tokens_in(free)
        && tokens >= LEAST_TOKENS
    {
        return Ok(tokens);
    }
    let all = needs.weights + needs.workspace + needs.reserve + LEAST_TOKENS * needs.per_token;
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
                "weights {}, buffers {}, {} {}, {LEAST_TOKENS} tokens of KV cache {}",
                gibibytes(needs.weights),
                gibibytes(needs.workspace),
                place.others(),
                gibibytes(needs.reserve),
                gibibytes(LEAST_TOKENS * needs.per_token)
            ),
        )
    };
    let fits = |other: &Storage| {
        footprint(*other)
            .tokens_in(free)
            .is_some_and(|n| n >= LEAST_TOKENS)
    };
    let smaller: Vec<&str> = [Storage::Bf16, Storage::Q8_0, Storage::Fp8, Storage::W4a16]
        .iter()
        .filter(|other| other.row_bytes(256) < storage.row_bytes(256) && fits(other))
        .map(|other| other.name())
        .collect();
    let larger = place.larger(match place {
        Place::Container => (all.saturating_sub(free) >> 30) + 1,
        Place::Gpu(_) | Place::Machine => (all >> 30) + 1,
    });
    let hint = match smaller.is_empty() {
        true => larger,
        false => format!("load it as {} (--dtype), or {larger}", smaller.join(" or ")),
    };
    Err(Failure::new(message).caused_by(&Cause(cause)).hint(hint))
}

/// The cache that was asked for, if it fits; `Auto` takes `auto` tokens or as many as fit.
///
/// # Errors
/// If more was asked for than fits.
pub(super) fn cache(
    asked: KvCache,
    auto: usize,
    fits: u64,
    footprint: Footprint,
) -> Result<KvCache, Failure> {
    let fits = usize::try_from(fits).unwrap_or(usize::MAX);
    let per_token = usize::try_from(footprint.per_token.max(1)).unwrap_or(usize::MAX);
    let tokens = match asked {
        KvCache::Auto => return Ok(KvCache::Tokens(auto.min(fits))),
        KvCache::Tokens(tokens) => tokens,
        KvCache::Bytes(bytes) => bytes / per_token,
    };
    if tokens <= fits {
        return Ok(KvCache::Tokens(tokens));
    }
    Err(Failure::new(format!(
        "the KV cache is to hold {tokens} tokens, {fits} fit beside the weights"
    ))
    .hint("leave its size out: it then takes what there is"))
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

/// A cache smaller than this serves nobody.
const LEAST_TOKENS: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Limits, MixtralConfig, ModelSource, Synthetic};

    const GIB: u64 = 1 << 30;
    const LIMITS: Limits = Limits {
        tokens: 512,
        logit_rows: 64,
    };

    fn shape() -> MixtralConfig {
        let model = Synthetic::parse("mixtral-8x7b").unwrap();
        MixtralConfig::of(&ModelSource::Synthetic(model)).unwrap()
    }

    fn on(place: Place<'_>, free: u64, storage: Storage) -> Result<u64, String> {
        let shape = shape();
        let candidate = Candidate {
            place,
            model: "mixtral-8x7b-instruct",
            parameters: shape.num_parameters(),
            storage,
        };
        let footprint = |storage| match place {
            Place::Gpu(_) => Footprint::on_device(&shape, storage, LIMITS),
            _ => Footprint::on_cpu(&shape, storage, Storage::Bf16, LIMITS),
        };
        room(candidate, footprint, free).map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_does_not_fit_on_a_gpu_is_refused_with_what_would() {
        let gpu = Place::Gpu("cuda:0");
        assert_eq!(
            on(gpu, 79 * GIB, Storage::Bf16).unwrap_err(),
            "error: weights need 87.0 GiB, cuda:0 has 79.0 GiB free\n  \
             caused by: mixtral-8x7b-instruct is 46.7 B parameters × 2 bytes (bf16)\n\
             hint: load it as q8_0 or fp8 or w4a16 (--dtype), or use a GPU with at least 89 GiB"
        );
        assert_eq!(
            on(gpu, 23 * GIB, Storage::W4a16).unwrap_err(),
            "error: the model needs 23.9 GiB with a small KV cache, cuda:0 has 23.0 GiB free\n  \
             caused by: weights 22.6 GiB, buffers 0.1 GiB, driver 1.0 GiB, 1024 tokens of KV cache 0.1 GiB\n\
             hint: use a GPU with at least 24 GiB"
        );
        assert!(on(gpu, 79 * GIB, Storage::W4a16).unwrap() > 400_000);
    }

    #[test]
    fn what_does_not_fit_in_memory_is_refused_with_what_would() {
        assert_eq!(
            on(Place::Machine, 62 * GIB, Storage::Bf16).unwrap_err(),
            "error: weights need 87.0 GiB, the machine has 62.0 GiB free\n  \
             caused by: mixtral-8x7b-instruct is 46.7 B parameters × 2 bytes (bf16)\n\
             hint: load it as q8_0 or fp8 or w4a16 (--dtype), or use a machine with at least 88 GiB free"
        );
        assert_eq!(
            on(Place::Machine, 22 * GIB, Storage::W4a16).unwrap_err(),
            "error: weights need 22.6 GiB, the machine has 22.0 GiB free\n  \
             caused by: mixtral-8x7b-instruct is 46.7 B parameters × 4.125 bits (w4a16)\n\
             hint: use a machine with at least 24 GiB free"
        );
        assert_eq!(
            on(Place::Container, 46 * GIB + GIB / 2, Storage::Q8_0).unwrap_err(),
            "error: the model needs 46.9 GiB with a small KV cache, the container has 46.5 GiB free\n  \
             caused by: weights 46.3 GiB, buffers 0.2 GiB, other 0.1 GiB, 1024 tokens of KV cache 0.2 GiB\n\
             hint: load it as fp8 or w4a16 (--dtype), or raise the container's memory limit by 1 GiB"
        );
        assert_eq!(
            on(Place::Machine, 187 * GIB / 2, Storage::F32).unwrap_err(),
            "error: weights need 173.8 GiB, the machine has 93.5 GiB free\n  \
             caused by: mixtral-8x7b-instruct is 46.7 B parameters × 4 bytes (f32)\n\
             hint: load it as bf16 or q8_0 or fp8 or w4a16 (--dtype), or use a machine with at least 175 GiB free"
        );
        // 64 GiB less 22.6 of weights, at 256 KiB a token.
        let fits = on(Place::Machine, 64 * GIB, Storage::W4a16).unwrap();
        assert!((166_000..170_000).contains(&fits), "{fits}");
    }

    #[test]
    fn a_cache_is_as_large_as_asked_or_as_what_is_left() {
        let footprint = Footprint::on_cpu(&shape(), Storage::W4a16, Storage::Bf16, LIMITS);
        let tokens = |asked| cache(asked, 32_768, 40_000, footprint);
        assert_eq!(tokens(KvCache::Auto).unwrap(), KvCache::Tokens(32_768));
        assert_eq!(
            cache(KvCache::Auto, 32_768, 9000, footprint).unwrap(),
            KvCache::Tokens(9000)
        );
        assert_eq!(
            tokens(KvCache::Bytes(1 << 30)).unwrap(),
            KvCache::Tokens(4096)
        );
        for asked in [KvCache::Tokens(40_960), KvCache::Bytes(10 << 30)] {
            assert_eq!(
                tokens(asked).unwrap_err().to_string(),
                "error: the KV cache is to hold 40960 tokens, 40000 fit beside the weights\n\
                 hint: leave its size out: it then takes what there is"
            );
        }
    }
}
