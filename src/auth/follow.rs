//! Keeps what the gate knows of API keys and revocations as the ledger has it, whoever writes there: the admin routes
//! of this process, or a command in another one.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::Revoked;
use super::api_key::{ApiKeys, KEYS_ISSUER};
use crate::clock::{Clock, Uptime};
use crate::ledger::{Ledger, LedgerError, RevocationRecord, RevokedName};

/// What follows the ledger.
#[derive(Debug)]
pub(super) struct Followed {
    pub api_keys: ApiKeys,
    pub revoked: Arc<Revoked>,
    clock: Clock,
    /// Held from reading to replacing, so that nobody replaces a newer reading by an older one.
    turn: Mutex<()>,
}

impl Followed {
    /// Nothing known yet.
    pub fn new(clock: Clock, uptime: Uptime) -> Self {
        Self {
            api_keys: ApiKeys::default(),
            revoked: Arc::new(Revoked::new(clock.clone(), uptime)),
            clock,
            turn: Mutex::default(),
        }
    }

    /// Puts in force what `ledger` says now. Blocks while it reads.
    ///
    /// # Errors
    /// If it cannot be read; what was in force stays so.
    pub fn reload(&self, ledger: &Ledger) -> Result<(), LedgerError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.unix_seconds();
        let keys = ledger.api_keys()?;
        let mut revocations = ledger.revocations(now)?;
        // What runs under a key ends with it, as what runs under a token does.
        revocations.extend(keys.iter().filter_map(|key| {
            Some(RevocationRecord {
                what: RevokedName::Key(key.id.clone()),
                issuer: KEYS_ISSUER.to_owned(),
                at: key.revoked?,
                until: None,
            })
        }));
        self.api_keys.write_to(ledger);
        self.api_keys.replace(&keys, now);
        self.revoked.replace(revocations);
        Ok(())
    }

    /// Reloads whenever the ledger has changed, for ever.
    pub async fn follow(self: Arc<Self>, ledger: Ledger) {
        loop {
            let (followed, read) = (self.clone(), ledger.clone());
            let reload = tokio::task::spawn_blocking(move || followed.reload(&read));
            match reload.await {
                Ok(Ok(())) => ledger.changed().await,
                failed => {
                    let error = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => "the reading thread has failed".to_owned(),
                    };
                    tracing::error!(
                        error,
                        "API keys and revocations could not be read; the earlier ones stay in force"
                    );
                    // The change that could not be read will not be told again.
                    sleep(RETRY).await;
                }
            }
        }
    }
}

/// How long a change may go unread when the ledger cannot be read.
const RETRY: Duration = Duration::from_secs(1);
