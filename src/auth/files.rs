//! Reads key files, and tells who else may read them.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::FileError;

/// A small file in memory, with the mode it had when it was read.
pub(crate) struct KeyFile {
    path: PathBuf,
    pub bytes: Vec<u8>,
    mode: u32,
    /// Unix second of its last change, where the file system knows it.
    pub changed: Option<u64>,
}

impl KeyFile {
    /// Reads `path` whole.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let failed = |source| FileError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        // Asked of the open file, so that nobody can swap it between question and reading.
        let about = file.metadata().map_err(failed)?;
        let mode = about.permissions().mode();
        let changed = about.modified().ok().and_then(unix_seconds);
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(FileError::TooLarge {
                path: path.to_owned(),
                limit: MAX_BYTES,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            bytes,
            mode,
            changed,
        })
    }

    /// Refuses a file that anyone but its owner may read or write: what it holds must be taken as known to others.
    pub fn secret(self) -> Result<Self, FileError> {
        match self.mode & 0o077 {
            0 => Ok(self),
            _ => Err(FileError::Exposed {
                path: self.path,
                mode: self.mode & 0o777,
            }),
        }
    }
}

fn unix_seconds(time: SystemTime) -> Option<u64> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_secs())
}

/// 64 KiB; an 8192-bit RSA key has 1.4 KiB.
const MAX_BYTES: u64 = 64 * 1024;
