//! Rights that were taken away, and the running requests that must hear of it.

use std::sync::Arc;

use super::{Denied, Identity, Revocation, Rights};
use crate::ledger::RevocationRecord;

/// The revocations in force and the live requests.
#[derive(Debug, Default)]
pub struct Revoked {}

impl Revoked {
    /// Whether `identity` is still good.
    ///
    /// # Errors
    /// 401 `token_revoked`.
    pub fn check(&self, identity: &Identity) -> Result<(), Denied> {
        let _ = identity;
        Ok(())
    }

    /// Puts these revocations in force, instead of all earlier ones, and ends what runs under them.
    pub fn replace(&self, records: Vec<RevocationRecord>) {
        let _ = records;
    }

    /// Ends `revocation`'s request when `identity` is revoked, or when its credential has expired and `rights` do not
    /// let it finish; for as long as the result lives.
    pub fn watch(
        self: &Arc<Self>,
        identity: &Arc<Identity>,
        rights: &Arc<Rights>,
        revocation: Revocation,
    ) -> Watched {
        let _ = (identity, rights, revocation);
        Watched {}
    }
}

/// A live request that will hear of its revocation. Dropping it forgets the request.
#[derive(Debug, Default)]
pub struct Watched {}
