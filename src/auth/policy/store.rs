//! Holds the policy in force and replaces it whole, or not at all.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::fault::PolicyError;
use super::judge::Vocabulary;
use super::{Policy, PolicyFault};

/// Holds the policy in force and replaces it whole.
#[derive(Debug, Default)]
pub struct PolicyStore {
    in_force: RwLock<InForce>,
    source: Option<Source>,
    applied: AtomicU64,
    unchanged: AtomicU64,
    refused: AtomicU64,
    last_failed: AtomicBool,
}

#[derive(Debug, Default)]
struct InForce {
    policy: Arc<Policy>,
    /// What the file said.
    text: String,
    /// 1 for the policy of the start.
    generation: u64,
}

/// Where the policy comes from.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    vocabulary: Vocabulary,
}

impl Source {
    fn read(&self) -> Result<String, PolicyError> {
        std::fs::read_to_string(&self.path).map_err(|source| PolicyError::Unreadable {
            path: self.path.clone(),
            source,
        })
    }

    fn judge(&self, text: &str) -> Result<Policy, PolicyError> {
        let judged = Policy::parse(text, &self.vocabulary);
        judged.map_err(|faults: Vec<PolicyFault>| PolicyError::Faults {
            path: self.path.clone(),
            faults,
        })
    }
}

/// What a reload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The file's policy is in force now; this is how many there have been, the first included.
    Applied(u64),
    /// The file says what it said.
    Unchanged,
    /// There is no policy file.
    NoFile,
}

/// What became of the policy so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PolicyStatus {
    /// How many policies have been in force, the one of the start included; 0 without a file.
    pub generation: u64,
    /// Reloads that put a policy in force.
    pub applied: u64,
    /// Reloads that found what was in force.
    pub unchanged: u64,
    /// Reloads of a file that was refused.
    pub refused: u64,
    /// Whether the last reload, or the start, found a good file.
    pub last_succeeded: bool,
}

impl PolicyStore {
    /// Holds `policy` for good.
    pub fn new(policy: Policy) -> Self {
        Self {
            in_force: RwLock::new(InForce {
                policy: Arc::new(policy),
                ..InForce::default()
            }),
            ..Self::default()
        }
    }

    /// Holds what the file at `path` says.
    ///
    /// # Errors
    /// If it cannot be read, or with everything that is wrong with it.
    pub fn open(path: &Path, vocabulary: Vocabulary) -> Result<Self, PolicyError> {
        let source = Source {
            path: path.to_owned(),
            vocabulary,
        };
        let text = source.read()?;
        let policy = Arc::new(source.judge(&text)?);
        Ok(Self {
            in_force: RwLock::new(InForce {
                policy,
                text,
                generation: 1,
            }),
            source: Some(source),
            ..Self::default()
        })
    }

    /// The policy in force.
    pub fn current(&self) -> Arc<Policy> {
        let in_force = self.in_force.read();
        in_force
            .unwrap_or_else(PoisonError::into_inner)
            .policy
            .clone()
    }

    /// Reads the file anew. Requests under way keep the rights that they came with.
    ///
    /// # Errors
    /// As [`PolicyStore::open`]; the old policy stays in force then.
    pub fn reload(&self) -> Result<Reloaded, PolicyError> {
        let Some(source) = &self.source else {
            return Ok(Reloaded::NoFile);
        };
        let outcome = self.replace(source);
        let (count, failed) = match &outcome {
            Ok(Reloaded::Applied(_)) => (&self.applied, false),
            Ok(_) => (&self.unchanged, false),
            Err(_) => (&self.refused, true),
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.last_failed.store(failed, Ordering::Relaxed);
        outcome
    }

    fn replace(&self, source: &Source) -> Result<Reloaded, PolicyError> {
        let text = source.read()?;
        let is_same = |in_force: &InForce| in_force.text == text;
        if is_same(&self.in_force.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(Reloaded::Unchanged);
        }
        let policy = Arc::new(source.judge(&text)?);
        let in_force = self.in_force.write();
        let mut in_force = in_force.unwrap_or_else(PoisonError::into_inner);
        let generation = in_force.generation + 1;
        *in_force = InForce {
            policy,
            text,
            generation,
        };
        Ok(Reloaded::Applied(generation))
    }

    /// What became of the policy so far, for metrics.
    pub fn status(&self) -> PolicyStatus {
        let in_force = self.in_force.read();
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        PolicyStatus {
            generation: in_force.unwrap_or_else(PoisonError::into_inner).generation,
            applied: count(&self.applied),
            unchanged: count(&self.unchanged),
            refused: count(&self.refused),
            last_succeeded: !self.last_failed.load(Ordering::Relaxed),
        }
    }
}
