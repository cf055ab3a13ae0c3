//! What `--device` may name.

use std::fmt;

use super::value::{Value, quoted};

/// Where the model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceName {
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU, counted from 0 as its driver does.
    Cuda(usize),
}

impl DeviceName {
    /// The one that `text` names, as in the setting `device`.
    pub fn named(text: &str) -> Option<Self> {
        Value::parse(text)
    }
}

impl Value for DeviceName {
    const WANTED: &'static str = "\"cpu\" or cuda:N";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            text => text.strip_prefix("cuda:")?.parse().ok().map(Self::Cuda),
        }
    }

    fn toml(&self) -> String {
        quoted(&self.to_string())
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}
