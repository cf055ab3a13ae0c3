use std::path::PathBuf;

use crate::ops::{OpError, QuantiseError};

/// Why a model could not be loaded or a step could not run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file was read and is not what it should be, or describes a model that is not supported.
    #[error("{file}: {problem}")]
    File {
        /// Name of the file within its folder.
        file: String,
        /// One clause: what is wrong, what would be right.
        problem: String,
    },
    /// A tensor is missing or not what the configuration says.
    #[error("{file}: tensor `{tensor}` {problem}")]
    Tensor {
        /// Name of the file within its folder.
        file: String,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor cannot be stored as it was asked for.
    #[error("{file}: tensor `{tensor}` {source}")]
    Quantise {
        /// Name of the file within its folder.
        file: String,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        source: QuantiseError,
    },
    /// The binary was built without the embedded model.
    #[error(
        "no model is embedded in this binary\nhint: name a Hugging Face checkpoint folder, or build with the `seedling` feature"
    )]
    NoSeedling,
    /// The kernels of a device have no variant for such a model.
    #[error("the model has {0}")]
    Unsupported(String),
    /// The arrays of a step contradict each other, the model or the cache.
    #[error("step batch: {0}")]
    Batch(String),
    /// A cache of this size cannot be made.
    #[error("KV cache: {0}")]
    Cache(String),
    /// The device ran out of memory or failed.
    #[error("device: {0}")]
    Device(#[from] candle_core::Error),
    /// An operation refused its arguments.
    #[error(transparent)]
    Op(#[from] OpError),
}

impl ModelError {
    pub(super) fn file(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::File {
            file: file.into(),
            problem: problem.into(),
        }
    }

    pub(super) fn tensor(file: &str, tensor: &str, problem: impl Into<String>) -> Self {
        Self::Tensor {
            file: file.to_string(),
            tensor: tensor.to_string(),
            problem: problem.into(),
        }
    }
}
