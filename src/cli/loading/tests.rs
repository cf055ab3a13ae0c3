use super::*;
use crate::config::{Args, Env};

fn config<const N: usize>(flags: [(&'static str, &str); N]) -> Config {
    let typed = flags.map(|(name, value)| (name, value.to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let args = Args {
        typed: typed.into_iter().collect(),
        config: None,
        env: Env::from([]),
        folder: folder.path().to_owned(),
    };
    Config::load(&args).unwrap()
}

/// The cache of a model where so many MiB are free.
fn cache_in<const N: usize>(
    mebibytes: u64,
    is_limited: bool,
    flags: [(&'static str, &str); N],
) -> Result<KvCache, String> {
    let config = config(flags);
    let Model::Real(source) = &config.model.source else {
        panic!("a null model has no cache");
    };
    let free = FreeMemory {
        bytes: mebibytes << 20,
        is_limited,
    };
    let options = load_options(&config);
    cache_in_memory(&config.model, source, options, Some(free)).map_err(|it| it.to_string())
}

const MIXTRAL: (&str, &str) = ("model", "synthetic:mixtral-8x7b");
const STEP: (&str, &str) = ("max_num_batched_tokens", "512");

#[test]
fn a_model_that_memory_cannot_hold_is_refused_before_it_loads() {
    assert_eq!(
        cache_in(23 << 10, false, [MIXTRAL, STEP]).unwrap_err(),
        "error: weights need 87.0 GiB, the machine has 23.0 GiB free\n  \
         caused by: mixtral-8x7b is 46.7 B parameters × 2 bytes (bf16)\n\
         hint: use a machine with at least 88 GiB free"
    );
    assert_eq!(
        cache_in(40 << 10, true, [MIXTRAL, STEP, ("dtype", "q8_0")]).unwrap_err(),
        "error: weights need 46.3 GiB, the container has 40.0 GiB free\n  \
         caused by: mixtral-8x7b is 46.7 B parameters × 8.5 bits (q8_0)\n\
         hint: load it as w4a16 (--dtype), or raise the container's memory limit by 7 GiB"
    );
}

#[test]
fn what_weights_leave_bounds_the_cache() {
    let four_bits = ("dtype", "w4a16");
    // A whole context of 256 KiB a token is 8 GiB.
    assert_eq!(
        cache_in(40 << 10, false, [MIXTRAL, STEP, four_bits]).unwrap(),
        KvCache::Tokens(32_768)
    );
    let Ok(KvCache::Tokens(tokens)) = cache_in(25 << 10, false, [MIXTRAL, STEP, four_bits]) else {
        panic!("it fits");
    };
    assert!((8000..10_000).contains(&tokens), "{tokens}");
    let asked = ("kv_cache_tokens", "40960");
    let refused = cache_in(25 << 10, false, [MIXTRAL, STEP, four_bits, asked]).unwrap_err();
    assert_eq!(
        refused,
        format!(
            "error: the KV cache is to hold 40960 tokens, {tokens} fit beside the weights\n\
             hint: leave its size out: it then takes what there is"
        )
    );
}

#[test]
fn the_seedling_has_room_in_a_small_container() {
    assert_eq!(
        cache_in(256, true, []).unwrap(),
        KvCache::Tokens(32_768),
        "sixteen contexts, as ever"
    );
}

#[test]
fn memory_that_nobody_knows_refuses_nothing() {
    let config = config([MIXTRAL]);
    let source = ModelSource::Synthetic(model::Synthetic::parse("mixtral-8x7b").unwrap());
    let options = load_options(&config);
    let cache = cache_in_memory(&config.model, &source, options, None);
    assert_eq!(cache.unwrap(), KvCache::Auto);
}

#[test]
fn what_has_no_effect_is_said_once_for_each() {
    let said = |flags: &[(&'static str, &str)]| {
        let [mut model, mut device, mut library] = [
            ("model", "seedling"),
            ("device", "cpu"),
            ("cublaslt", "false"),
        ];
        for flag in flags {
            match flag.0 {
                "model" => model = *flag,
                "device" => device = *flag,
                _ => library = *flag,
            }
        }
        ignored(&config([model, device, library]).model)
    };
    let null = ("model", "null:mixtral-8x7b");
    let on_null = "--device cuda:1 is ignored: a null model computes nothing; its name says whose pace it keeps";
    let on_cpu = "--cublaslt is ignored: it multiplies on a GPU, see --device";
    assert_eq!(said(&[]), Vec::<String>::new());
    assert_eq!(said(&[null]), Vec::<String>::new());
    assert_eq!(said(&[null, ("device", "cuda:1")]), [on_null]);
    assert_eq!(said(&[("cublaslt", "true")]), [on_cpu]);
    let both = [null, ("device", "cuda:1"), ("cublaslt", "true")];
    assert_eq!(said(&both), [on_null, on_cpu]);
    let used = [("device", "cuda:0"), ("cublaslt", "true")];
    assert_eq!(said(&used), Vec::<String>::new());
}
