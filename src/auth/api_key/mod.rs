//! API keys: made here, shown once, known by their hash alone. A key's bearer has the same policy, limits and
//! revocation as a token's.
//!
//! Whatever is wrong with a key (a typo, unknown, revoked, expired), its bearer hears the same words.

mod form;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde_json::{Map, Value};

use super::denied::{Denied, Reason};
use super::identity::{Claimed, Credential, Identity};
use super::token::claims::is_plain;
use crate::ledger::{ApiKeyRecord, Ledger, day};
use crate::telemetry::Secret;

pub(super) use form::PREFIX;

/// The issuer of the identities that API keys stand for.
pub const KEYS_ISSUER: &str = "mixgate:keys";

/// The keys that are known, as of the last look at the ledger.
#[derive(Default)]
pub(super) struct ApiKeys {
    known: RwLock<Arc<HashMap<Box<str>, Known>>>,
    /// Where it is written on which day a key was last used.
    ledger: OnceLock<Ledger>,
}

struct Known {
    hash: [u8; 32],
    identity: Identity,
    revoked: bool,
    /// The last day, counted from the epoch, of which the ledger has heard that the key was used.
    used_on: AtomicU64,
}

impl ApiKeys {
    /// Whose key this is, at Unix second `now`.
    ///
    /// # Errors
    /// 401 `invalid_api_key`, for whatever reason.
    pub fn identity(&self, key: &[u8], now: u64) -> Result<Identity, Denied> {
        let Some(parsed) = form::parse(key) else {
            return Err(invalid("the API key is mistyped or cut"));
        };
        let known = self.known();
        let found = known.get(parsed.id);
        // An id that nobody has costs the same hash and the same comparison as a wrong secret.
        let expected = found.map_or(&NOBODYS, |found| &found.hash);
        let matches = verify_slices_are_equal(&form::hash(key), expected).is_ok();
        let Some(found) = found.filter(|_| matches) else {
            return Err(invalid(format!("no API key like `{}` is known", parsed.id)));
        };
        if found.revoked {
            return Err(invalid(format!("the API key `{}` was revoked", parsed.id)));
        }
        if found.identity.expires().is_some_and(|end| now >= end) {
            return Err(invalid(format!("the API key `{}` has expired", parsed.id)));
        }
        self.note_use(parsed.id, found, now);
        Ok(found.identity.clone())
    }

    /// Puts these keys in force, instead of all earlier ones.
    pub fn replace(&self, records: &[ApiKeyRecord], now: u64) {
        let earlier = self.known();
        let mut known = HashMap::with_capacity(records.len());
        for record in records {
            let Some(identity) = identity(record) else {
                // Nothing here writes such a record; it must not let anybody in.
                tracing::error!(
                    id = record.id,
                    "an API key in the ledger is damaged; it is not taken"
                );
                continue;
            };
            let today = record.last_used.as_deref() == Some(&day(now));
            let told = earlier.get(&*record.id).map_or(0, Known::told);
            let entry = Known {
                hash: record.hash,
                identity,
                revoked: record.revoked.is_some(),
                used_on: AtomicU64::new(told.max(if today { now / DAY } else { 0 })),
            };
            known.insert(record.id.as_str().into(), entry);
        }
        let known = Arc::new(known);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Tells `ledger` on which days keys are used.
    pub fn write_to(&self, ledger: &Ledger) {
        // A second ledger would be a second gate's.
        let _ = self.ledger.set(ledger.clone());
    }

    /// Once a day for each key: the ledger must not be written for every request.
    fn note_use(&self, id: &str, found: &Known, now: u64) {
        let Some(ledger) = self.ledger.get() else {
            return;
        };
        let today = now / DAY;
        if found.told() < today && found.used_on.fetch_max(today, Ordering::Relaxed) < today {
            ledger.touch_api_key(id, &day(now));
        }
    }

    fn known(&self) -> Arc<HashMap<Box<str>, Known>> {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys")
            .field("count", &self.known().len())
            .finish_non_exhaustive()
    }
}

impl Known {
    fn told(&self) -> u64 {
        self.used_on.load(Ordering::Relaxed)
    }
}

/// A key that does not exist yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewApiKey {
    /// Whom it shall stand for.
    pub subject: String,
    /// The subject's tenant; without one it is its own.
    pub tenant: Option<String>,
    /// Scopes, separated by spaces; empty for none.
    pub scopes: String,
    /// Unix second from which it is not good any more.
    pub expires: Option<u64>,
    /// What it is for.
    pub note: Option<String>,
}

impl NewApiKey {
    /// Makes the key at Unix second `now`: the key itself, which nobody can ever tell again, and what is to be stored.
    ///
    /// # Errors
    /// [`ApiKeyError`] naming the field at fault.
    pub fn make(self, now: u64) -> Result<(Secret<String>, ApiKeyRecord), ApiKeyError> {
        let Self {
            subject,
            tenant,
            scopes,
            expires,
            note,
        } = self;
        let names = [
            ("subject", Some(&subject)),
            ("tenant", tenant.as_ref()),
            ("note", note.as_ref()),
        ];
        if let Some((field, _)) = names
            .into_iter()
            .find(|(_, name)| name.is_some_and(|name| !is_plain(name)))
        {
            return Err(ApiKeyError::NotPlain { field });
        }
        let scopes: Vec<&str> = scopes
            .split(' ')
            .filter(|scope| !scope.is_empty())
            .collect();
        if scopes.len() > MAX_SCOPES || !scopes.iter().all(|scope| is_plain(scope)) {
            return Err(ApiKeyError::Scopes { limit: MAX_SCOPES });
        }
        if let Some(expires) = expires.filter(|&expires| expires <= now) {
            return Err(ApiKeyError::Expired { expires, now });
        }
        let (key, id) = form::random().ok_or(ApiKeyError::NoRandomness)?;
        let record = ApiKeyRecord {
            id,
            hash: form::hash(key.expose().as_bytes()),
            subject,
            tenant,
            scopes: scopes.join(" "),
            note,
            created: now,
            expires,
            revoked: None,
            last_used: None,
        };
        Ok((key, record))
    }
}

/// Whether a stored key lets anybody in at Unix second `now`, in a word: `active`, `revoked` or `expired`.
pub fn api_key_state(record: &ApiKeyRecord, now: u64) -> &'static str {
    if record.revoked.is_some() {
        "revoked"
    } else if record.expires.is_some_and(|end| now >= end) {
        "expired"
    } else {
        "active"
    }
}

/// Whether `text` may be an API key's id.
pub fn is_api_key_id(text: &str) -> bool {
    form::is_id(text)
}

/// Why no key was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// A name that could not stand in a log.
    #[error("the {field} must have 1 to 256 bytes and no control characters")]
    NotPlain {
        /// Which one.
        field: &'static str,
    },
    /// Unusable scopes.
    #[error("there may be {limit} scopes of 1 to 256 bytes each, without control characters")]
    Scopes {
        /// Most scopes.
        limit: usize,
    },
    /// An end that is not in the future.
    #[error("the key would expire at Unix second {expires}, now it is {now}")]
    Expired {
        /// As asked for.
        expires: u64,
        /// Unix seconds.
        now: u64,
    },
    /// The system's random source.
    #[error("the system gave no random bytes")]
    NoRandomness,
}

/// Whom a record stands for. `None` if its names could not come from [`NewApiKey::make`].
fn identity(record: &ApiKeyRecord) -> Option<Identity> {
    let tenant = record.tenant.as_deref();
    let names = [Some(&*record.id), Some(&*record.subject), tenant];
    if !names.into_iter().flatten().all(is_plain) {
        return None;
    }
    let scopes: Vec<Box<str>> = record.scopes.split_whitespace().map(Box::from).collect();
    let mut claims: Map<String, Value> = Map::new();
    claims.insert("iss".into(), KEYS_ISSUER.into());
    claims.insert("sub".into(), record.subject.as_str().into());
    if let Some(tenant) = tenant {
        claims.insert("tenant".into(), tenant.into());
    }
    claims.insert("scope".into(), record.scopes.as_str().into());
    claims.insert("key_id".into(), record.id.as_str().into());
    Some(Identity::new(Claimed {
        issuer: KEYS_ISSUER.into(),
        subject: record.subject.as_str().into(),
        tenant: tenant.map(Arc::from),
        client: None,
        token_id: None,
        scopes,
        expires: record.expires,
        issued: Some(record.created),
        credential: Credential::ApiKey,
        key_id: Some(record.id.as_str().into()),
        claims,
    }))
}

fn invalid(detail: impl Into<String>) -> Denied {
    Denied::new(Reason::InvalidApiKey, detail)
}

/// Compared with where there is no key. No key has this hash: nobody can find one for it.
const NOBODYS: [u8; 32] = [0; 32];

/// As many as a token may carry.
const MAX_SCOPES: usize = 256;

/// Seconds.
const DAY: u64 = 24 * 3600;
