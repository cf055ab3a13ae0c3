//! The right to generate now, as a value that the engine consumes.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Identity;

/// The admitted right to generate now. Not `Clone`: what it will hold one day (a concurrency slot, a reservation) goes
/// back when it drops.
#[derive(Debug)]
pub struct Permit {
    identity: Arc<Identity>,
    share: Share,
    revocation: Revocation,
    meter: Option<Arc<dyn Meter>>,
}

impl Permit {
    /// Only the gate admits.
    pub(super) fn new(
        identity: Arc<Identity>,
        share: Share,
        meter: Option<Arc<dyn Meter>>,
    ) -> Self {
        Self {
            identity,
            share,
            revocation: Revocation::default(),
            meter,
        }
    }

    /// Whose right it is.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// What part of the machine it stands for.
    pub fn share(&self) -> Share {
        self.share
    }

    /// The handle that ends whatever runs under this permit.
    pub fn revocation(&self) -> Revocation {
        self.revocation.clone()
    }

    /// Whether it has been revoked since it was given.
    pub fn is_revoked(&self) -> bool {
        self.revocation.is_revoked()
    }

    /// Told of each generated token, which is where a budget will be charged. There are no budgets yet.
    pub fn charge(&self, tokens: usize) {
        let _ = tokens;
    }

    /// Told once for each sequence, when it ends, however it ends: what it used.
    pub fn settle(&self, used: TokensUsed) {
        if let Some(meter) = &self.meter {
            meter.used(&self.identity, used);
        }
    }

    /// A permit for tests of the engine, which has no gate.
    #[cfg(test)]
    pub(crate) fn for_tests(subject: &str) -> Self {
        Self::with_share(subject, Share::default())
    }

    /// The same, with a share.
    #[cfg(test)]
    pub(crate) fn with_share(subject: &str, share: Share) -> Self {
        Self::new(Arc::new(Identity::for_tests(subject)), share, None)
    }

    /// The same, of a member of a tenant, metered.
    #[cfg(test)]
    pub(crate) fn metered(subject: &str, tenant: &str, meter: Arc<dyn Meter>) -> Self {
        let identity = Identity::of_tenant_for_tests(subject, tenant);
        Self::new(Arc::new(identity), Share::default(), Some(meter))
    }

    /// The same, with another share.
    #[cfg(test)]
    pub(crate) fn sharing(self, share: Share) -> Self {
        Self { share, ..self }
    }
}

/// How much of the machine a caller may have when others want it too, as the operator's configuration says. Nothing
/// that the caller sends changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Tokens that it gets for each token of a caller of weight 1, while both have work waiting.
    pub weight: NonZeroU32,
    /// Which requests go first.
    pub priority: Priority,
    /// Longest time from a request's arrival to its end; what runs longer is ended. `None`: no limit.
    pub deadline: Option<Duration>,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            weight: NonZeroU32::MIN,
            priority: Priority::Normal,
            deadline: None,
        }
    }
}

/// A class of requests. A higher class is admitted before a lower one; who waits long enough rises.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// After everything else: batch work.
    Low,
    /// The usual one.
    #[default]
    Normal,
    /// Before everything else.
    High,
}

/// Ends what runs under a permit, within one step. Cloned freely.
#[derive(Debug, Clone, Default)]
pub struct Revocation(Arc<AtomicBool>);

impl Revocation {
    /// Takes the right away. There is no way back.
    pub fn revoke(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the right was taken away.
    pub fn is_revoked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Tokens that a sequence used. The numbers of all sequences of a request add up to the request's: the prompt counts
/// once, with the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokensUsed {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Those of them that came from the prefix cache.
    pub cached: usize,
    /// Tokens generated.
    pub completion: usize,
}

/// Where usage is told: exactly once for each sequence that the engine accepted, aborted ones included.
pub trait Meter: fmt::Debug + Send + Sync {
    /// `identity` was admitted. Whoever counts may end what it runs: the revocation is of this permit alone.
    fn admitted(&self, identity: &Identity, revocation: Revocation) {
        let _ = (identity, revocation);
    }

    /// `identity` has used these tokens. Called on the engine thread: it must not block.
    fn used(&self, identity: &Identity, tokens: TokensUsed);
}
