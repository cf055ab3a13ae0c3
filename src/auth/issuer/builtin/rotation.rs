//! Replaces the built-in issuer's key and keeps the public halves of earlier ones until they retire.
//!
//! Each file is replaced whole, by a rename. Writers take turns by a lock on the folder; readers need none.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{BuiltinError, BuiltinIssuer, IssuerKey, new_key, write_draft};
use crate::auth::FileError;
use crate::auth::files::KeyFile;

/// One line of the list.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The public key, base64url.
    x: String,
    /// Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<u64>,
    /// Unix seconds.
    retires: u64,
}

impl BuiltinIssuer {
    /// Puts a new key in the place of the one in `state_dir`, at Unix second `now`.
    ///
    /// The replaced key goes on verifying for `keep`, and those replaced before until they retire. Without `keep`, all of
    /// them end at once: every token minted so far is worthless.
    ///
    /// Any number of processes may do so at once: each makes a key, and none of them is lost.
    ///
    /// # Errors
    /// [`BuiltinError`] if the files cannot be read or written, `keep` is zero or longer than
    /// [`BuiltinIssuer::MAX_TTL`], or too many keys still verify. Then the key in use is still in use.
    pub fn rotate(
        state_dir: &Path,
        keep: Option<Duration>,
        now: u64,
    ) -> Result<Self, BuiltinError> {
        if let Some(keep) = keep
            && (keep < Duration::from_secs(1) || keep > Self::MAX_TTL)
        {
            return Err(BuiltinError::Keep {
                given: keep.as_secs(),
                limit: Self::MAX_TTL.as_secs(),
            });
        }
        // Judges the folder, and makes the first key if there is none.
        Self::load_or_create(state_dir)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| BuiltinError::Write { path, source }
        };
        // Given back when it is closed, also by a process that dies.
        let folder = File::open(state_dir).map_err(failed(state_dir))?;
        folder.lock().map_err(failed(state_dir))?;

        let old = Self::load(state_dir)?;
        let kept = keep.map_or_else(Vec::new, |keep| old.kept(now, now + keep.as_secs()));
        if kept.len() > MOST_EARLIER {
            return Err(BuiltinError::TooManyKeys {
                given: kept.len(),
                limit: MOST_EARLIER,
            });
        }
        let list = earlier_file(state_dir);
        let json = serde_json::to_vec_pretty(&kept)
            .expect("numbers and text can be written as JSON. This is a bug.");
        // The list first: a crash between the two writes then leaves a key in both places, which harms nothing, and
        // never a key in neither.
        replace(state_dir, &list, &json).map_err(failed(&list))?;
        let key = Self::key_file(state_dir);
        new_key()
            .and_then(|pem| replace(state_dir, &key, &pem))
            .and_then(|()| folder.sync_all())
            .map_err(failed(&key))?;
        Self::load(state_dir)
    }

    /// What the list holds once the key in use is replaced: it too, until `retires`.
    fn kept(&self, now: u64, retires: u64) -> Vec<Entry> {
        let entry = |key: &IssuerKey, retires| Entry {
            x: URL_SAFE_NO_PAD.encode(key.public),
            created: key.created,
            retires,
        };
        let mut kept: Vec<_> = self
            .keys()
            .filter_map(|key| Some((key, key.retires()?)))
            .filter(|(key, _)| key.verifies(now))
            .map(|(key, retires)| entry(key, retires))
            .collect();
        kept.reverse();
        kept.push(entry(&self.current, retires));
        kept
    }
}

/// The earlier keys in `state_dir`, oldest first. No list: none.
pub(super) fn earlier(state_dir: &Path) -> Result<Vec<IssuerKey>, BuiltinError> {
    let path = earlier_file(state_dir);
    let file = match KeyFile::read(&path) {
        Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        // Nothing in it is secret, but whoever writes to it adds a key of his own.
        file => file?.secret()?,
    };
    let broken = || BuiltinError::BrokenList { path: path.clone() };
    let entries: Vec<Entry> = serde_json::from_slice(&file.bytes).map_err(|_| broken())?;
    entries
        .into_iter()
        .map(|entry| {
            let x = URL_SAFE_NO_PAD.decode(&entry.x).map_err(|_| broken())?;
            let public = x.try_into().map_err(|_| broken())?;
            Ok(IssuerKey::new(public, entry.created, Some(entry.retires)))
        })
        .collect()
}

/// Where the earlier keys are listed.
pub(super) fn earlier_file(state_dir: &Path) -> PathBuf {
    state_dir.join("issuer.earlier.json")
}

fn replace(state_dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = write_draft(state_dir, bytes)?;
    fs::rename(&draft, path).inspect_err(|_| {
        let _ = fs::remove_file(&draft);
    })
}

/// A rotation each day for a month, three times over; the file stays far below what is read of it.
const MOST_EARLIER: usize = 100;
