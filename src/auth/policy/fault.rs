//! What is wrong with a policy file, all of it, and what to do about each.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a policy was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The system's reason.
    #[error("cannot read the policy {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was read and says something wrong.
    #[error("{}", list(path, faults))]
    Faults {
        /// Which file.
        path: PathBuf,
        /// Everything that is wrong with it, from top to bottom; never empty.
        faults: Vec<PolicyFault>,
    },
}

impl PolicyError {
    /// The next step, for the last line of the message. Faults bring their own, each on its line.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unreadable { .. } => Some(
                "without `policy_file`, everybody whose token is good may do what its scopes say",
            ),
            Self::Faults { .. } => None,
        }
    }

    /// The faults, if the file could be read.
    pub fn faults(&self) -> &[PolicyFault] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Faults { faults, .. } => faults,
        }
    }
}

/// One thing that is wrong with a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFault {
    /// Line of the file, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
    /// What to do about it, if that is known.
    pub hint: Option<String>,
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

fn list(path: &std::path::Path, faults: &[PolicyFault]) -> String {
    let shown: Vec<String> = faults
        .iter()
        .map(|fault| format!("{}:{fault}", path.display()))
        .collect();
    match &*shown {
        [only] => only.clone(),
        _ => format!(
            "the policy has {} faults\n{}",
            shown.len(),
            shown.join("\n")
        ),
    }
}

/// Collects faults by where they stand in a text.
#[derive(Debug)]
pub(super) struct Faults<'a> {
    text: &'a str,
    found: Vec<(usize, PolicyFault)>,
}

impl<'a> Faults<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self {
            text,
            found: Vec::new(),
        }
    }

    /// At byte `offset`: a fact, and the next step if there is one to name.
    pub(super) fn add(&mut self, offset: usize, message: impl Into<String>, hint: Option<String>) {
        let fault = PolicyFault {
            line: self.line(offset),
            message: message.into(),
            hint,
        };
        self.found.push((offset, fault));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn line(&self, offset: usize) -> usize {
        let before = self.text.bytes().take(offset);
        before.filter(|&byte| byte == b'\n').count() + 1
    }

    /// From top to bottom.
    pub(super) fn into_list(mut self) -> Vec<PolicyFault> {
        self.found.sort_by_key(|(offset, _)| *offset);
        self.found.into_iter().map(|(_, fault)| fault).collect()
    }
}

/// A hint at the candidate that `given` most likely was meant to be: at most one slip in three letters.
pub(super) fn did_you_mean<'a>(
    given: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let near = |name: &'a str| (strsim::damerau_levenshtein(given, name), name);
    let (distance, name) = candidates.into_iter().map(near).min()?;
    (distance <= given.len().div_ceil(3)).then(|| format!("did you mean `{name}`?"))
}
