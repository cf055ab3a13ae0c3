//! Reads key files, and tells who else may read them.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::FileError;

/// A small file in memory, with the mode it had when it was read.
pub(crate) struct KeyFile {
    path: PathBuf,
    pub bytes: Vec<u8>,
    mode: u32,
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
        let mode = file.metadata().map_err(failed)?.permissions().mode();
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

/// 64 KiB; an 8192-bit RSA key has 1.4 KiB.
const MAX_BYTES: u64 = 64 * 1024;
