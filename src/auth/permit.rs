//! The right to generate now, as a value that the engine consumes.

use std::sync::Arc;

use super::Identity;

/// The admitted right to generate now. Not `Clone`: what it will hold one day (a concurrency slot, a reservation) goes
/// back when it drops.
#[derive(Debug)]
pub struct Permit {
    identity: Arc<Identity>,
}

impl Permit {
    /// Only the gate admits.
    pub(super) fn new(identity: Arc<Identity>) -> Self {
        Self { identity }
    }

    /// Whose right it is.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Told of each generated token, which is where a budget will be charged. There are no budgets yet.
    pub fn charge(&self, tokens: usize) {
        let _ = tokens;
    }

    /// A permit for tests of the engine, which has no gate.
    #[cfg(test)]
    pub(crate) fn for_tests(subject: &str) -> Self {
        Self::new(Arc::new(Identity::for_tests(subject)))
    }
}
