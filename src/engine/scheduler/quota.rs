//! How many blocks the running sequences of each tenant hold, where that is limited.

use std::collections::HashMap;

use crate::auth::IdentityKey;

/// Counts only where there is a limit. A block that two sequences share counts for both.
#[derive(Debug, Clone)]
pub(super) struct Quota {
    limit: Option<usize>,
    held: HashMap<IdentityKey, usize>,
}

impl Quota {
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self {
            limit,
            held: HashMap::new(),
        }
    }

    /// The same limit, nothing held.
    pub(super) fn emptied(&self) -> Self {
        Self::new(self.limit)
    }

    pub(super) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Whether the tenant may take `more` blocks. Who holds none may always start one sequence.
    pub(super) fn allows(&self, tenant: &IdentityKey, more: usize) -> bool {
        let Some(limit) = self.limit else {
            return true;
        };
        let held = self.held(tenant);
        held == 0 || held + more <= limit
    }

    /// Whether a tenant that runs several sequences may hold `blocks`.
    pub(super) fn covers(&self, blocks: usize) -> bool {
        self.limit.is_none_or(|limit| blocks <= limit)
    }

    pub(super) fn held(&self, tenant: &IdentityKey) -> usize {
        self.held.get(tenant).copied().unwrap_or(0)
    }

    pub(super) fn take(&mut self, tenant: IdentityKey, blocks: usize) {
        if self.limit.is_some() && blocks > 0 {
            *self.held.entry(tenant).or_default() += blocks;
        }
    }

    pub(super) fn give_back(&mut self, tenant: &IdentityKey, blocks: usize) {
        if let Some(held) = self.held.get_mut(tenant) {
            *held -= blocks;
            if *held == 0 {
                self.held.remove(tenant);
            }
        }
    }

    /// Tenants that hold blocks, with their number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&IdentityKey, usize)> {
        self.held.iter().map(|(tenant, &held)| (tenant, held))
    }
}
