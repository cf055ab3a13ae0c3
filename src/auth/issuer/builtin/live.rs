//! The built-in issuer of a running server: follows its files, so that a rotation needs no restart.
//!
//! Nothing watches. Whoever verifies a token looks whether the files have changed, at most once a second, or at once for
//! a key id that is not known, within bounds. A look is two questions to the file system, some microseconds.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use serde_json::{Value, json};

use super::{BuiltinIssuer, IssuerKey, rotation};
use crate::auth::issuer::Issuer;
use crate::clock::{Clock, Uptime};

/// The keys in force, replaced whole.
pub(in crate::auth) struct Live {
    in_force: RwLock<Arc<InForce>>,
    /// When the files were last looked at.
    looked: Mutex<Option<Duration>>,
    clock: Clock,
    uptime: Uptime,
}

/// What one reading of the files gave, less what has retired since.
pub(in crate::auth) struct InForce {
    /// Verifies with exactly these keys.
    pub issuer: Issuer,
    builtin: BuiltinIssuer,
    keys: Vec<IssuerKey>,
    seen: Seen,
}

/// Inode, length and time of change of the key and of the list: different after each rename.
type Seen = [Option<(u64, u64, i64, i64)>; 2];

impl Live {
    pub fn new(builtin: BuiltinIssuer, clock: Clock, uptime: Uptime) -> Self {
        // Not what is there now: the first look reads again what may have changed since `builtin` was read.
        let in_force = InForce::new(builtin, Seen::default(), clock.unix_seconds());
        Self {
            in_force: RwLock::new(Arc::new(in_force)),
            looked: Mutex::new(None),
            clock,
            uptime,
        }
    }

    /// The keys in force for a token that names the key `key_id`.
    pub fn for_key(&self, key_id: Option<&str>) -> Arc<InForce> {
        let in_force = self.current();
        let known = key_id.is_none_or(|id| in_force.keys.iter().any(|key| key.key_id() == id));
        if self.may_look(if known { EVERY } else { EVERY_UNKNOWN }) {
            self.reload();
            return self.current();
        }
        in_force
    }

    /// The public halves of the keys in force, as a JWK set.
    pub fn jwks(&self) -> Value {
        let in_force = self.for_key(None);
        let keys: Vec<Value> = in_force.keys.iter().map(IssuerKey::jwk).collect();
        json!({"keys": keys})
    }

    /// Reads the files again if they have changed. A bad file leaves the keys in force and says so.
    pub fn reload(&self) {
        let old = self.current();
        let Some(folder) = &old.builtin.folder else {
            return;
        };
        let seen = seen(folder);
        if seen == old.seen {
            return;
        }
        let builtin = match BuiltinIssuer::load(folder) {
            Ok(builtin) => builtin,
            Err(error) => {
                tracing::error!(%error, "the built-in issuer's keys stay as they were");
                old.builtin.clone()
            }
        };
        let new = InForce::new(builtin, seen, self.clock.unix_seconds());
        if new.builtin.key_id() != old.builtin.key_id() {
            let (key_id, keys) = (new.builtin.key_id(), new.keys.len());
            tracing::info!(key_id, keys, "the built-in issuer has a new key");
        }
        self.replace(new);
    }

    /// The keys in force, without those that have retired meanwhile.
    fn current(&self) -> Arc<InForce> {
        let in_force = {
            let held = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
            held.clone()
        };
        let now = self.clock.unix_seconds();
        if in_force.keys.iter().all(|key| key.verifies(now)) {
            return in_force;
        }
        self.replace(InForce::new(in_force.builtin.clone(), in_force.seen, now))
    }

    fn replace(&self, new: InForce) -> Arc<InForce> {
        let new = Arc::new(new);
        *self
            .in_force
            .write()
            .unwrap_or_else(PoisonError::into_inner) = new.clone();
        new
    }

    /// Whether the last look is `every` ago; the next one is then counted from now.
    fn may_look(&self, every: Duration) -> bool {
        // Whoever finds it taken goes on with the keys in force: the other one looks.
        let Ok(mut looked) = self.looked.try_lock() else {
            return false;
        };
        let now = self.uptime.now();
        let due = looked.is_none_or(|at| now.saturating_sub(at) >= every);
        if due {
            *looked = Some(now);
        }
        due
    }
}

impl InForce {
    fn new(builtin: BuiltinIssuer, seen: Seen, now: u64) -> Self {
        let keys: Vec<_> = builtin
            .keys()
            .filter(|key| key.verifies(now))
            .cloned()
            .collect();
        Self {
            issuer: Issuer::of_builtin_keys(&keys),
            builtin,
            keys,
            seen,
        }
    }
}

fn seen(folder: &Path) -> Seen {
    [
        BuiltinIssuer::key_file(folder),
        rotation::earlier_file(folder),
    ]
    .map(|path| {
        let about = fs::metadata(path).ok()?;
        Some((about.ino(), about.len(), about.mtime(), about.mtime_nsec()))
    })
}

const EVERY: Duration = Duration::from_secs(1);
/// A token minted right after a rotation waits for nobody; a flood of made-up key ids costs twenty looks a second.
const EVERY_UNKNOWN: Duration = Duration::from_millis(50);
