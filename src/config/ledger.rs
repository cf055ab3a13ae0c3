//! Where usage is written down.

use std::path::PathBuf;

use super::value::{Value, quoted};

/// What `--ledger` may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LedgerPlace {
    /// Nowhere: in memory, until the process ends.
    Off,
    /// In this file.
    File(PathBuf),
}

impl LedgerPlace {
    /// Whether `text` is a word rather than a path.
    pub(super) fn is_word(text: &str) -> bool {
        text == OFF
    }
}

impl Value for LedgerPlace {
    const WANTED: &'static str = "a path, or \"off\"";
    const IS_PATH: bool = true;

    fn parse(text: &str) -> Option<Self> {
        match text {
            "" => None,
            OFF => Some(Self::Off),
            path => Some(Self::File(PathBuf::from(path))),
        }
    }

    fn toml(&self) -> String {
        match self {
            Self::Off => quoted(OFF),
            Self::File(path) => quoted(&path.to_string_lossy()),
        }
    }
}

/// A file of that name is reached as `./off`.
const OFF: &str = "off";
/// The file's name in the state folder.
pub(super) const FILE: &str = "ledger.sqlite3";
