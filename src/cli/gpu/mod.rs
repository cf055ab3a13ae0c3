//! A model on a GPU: what fits is worked out first, then it is loaded.

#[cfg(feature = "cuda")]
mod load;

#[cfg(feature = "cuda")]
pub(super) use load::{load, open};

#[cfg(not(feature = "cuda"))]
use super::Failure;

/// Refuses: this binary has no kernels.
#[cfg(not(feature = "cuda"))]
pub(super) fn load(
    _config: &crate::config::Config,
    _source: &crate::model::ModelSource,
    ordinal: usize,
) -> Result<super::loading::Loaded, Failure> {
    Err(built_for_the_cpu(ordinal)
        .hint("build it with `cargo build --release --features cuda`, or leave --device out"))
}

/// Why a binary without kernels does nothing with a GPU.
#[cfg(not(feature = "cuda"))]
pub(super) fn built_for_the_cpu(ordinal: usize) -> Failure {
    Failure::new(format!(
        "cuda:{ordinal} was asked for, but this binary was built for the CPU alone"
    ))
    .hint("build it with `cargo build --release --features cuda`")
}

#[cfg(all(test, not(feature = "cuda")))]
mod tests {
    use super::*;
    use crate::model::ModelSource;

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
