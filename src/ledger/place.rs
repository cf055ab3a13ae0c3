//! Where the ledger is, who may touch it there, and connections to it.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{LedgerError, schema};

/// A file, or a name in this process's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    File(PathBuf),
    /// All connections of this process that use the name see the same database; it ends with the last of them.
    Memory(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Memory(_) => f.write_str("in memory"),
        }
    }
}

impl Place {
    /// A place in memory that nobody has used before.
    pub(super) fn fresh_memory() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::Memory(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// A connection that may write, to a ledger that is made or brought up to date first.
    ///
    /// # Errors
    /// Whatever keeps it from being written, or makes it unsafe to.
    pub(super) fn writer(&self) -> Result<Connection, LedgerError> {
        if let Self::File(path) = self {
            prepare(path)?;
        }
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        if matches!(self, Self::Memory(_)) {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let mut connection = self.connect(flags)?;
        schema::prepare(&mut connection, self)?;
        Ok(connection)
    }

    /// A connection that may only read.
    ///
    /// # Errors
    /// If there is no ledger, or one that this program does not know.
    pub(super) fn reader(&self) -> Result<Connection, LedgerError> {
        if let Self::File(path) = self
            && !path.exists()
        {
            return Err(LedgerError::Missing {
                place: self.to_string(),
            });
        }
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        schema::check(&connection, self)?;
        Ok(connection)
    }

    /// A lock that all who record requests share, `None` in memory: where nobody holds it, no request is under way.
    pub(super) fn recording(&self) -> Option<io::Result<File>> {
        let Self::File(path) = self else { return None };
        let mut name = path.clone().into_os_string();
        name.push("-recording");
        let options = |options: &mut OpenOptions| options.mode(0o600).open(&name);
        Some(options(
            OpenOptions::new().write(true).create(true).truncate(false),
        ))
    }

    fn connect(&self, mode: OpenFlags) -> Result<Connection, LedgerError> {
        let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let connection = match self {
            Self::File(path) => Connection::open_with_flags(path, flags),
            Self::Memory(number) => {
                let uri = format!("file:/mixgate-{number}?vfs=memdb");
                Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
            }
        };
        let connection = connection.map_err(|error| LedgerError::of(self, error))?;
        connection
            .busy_timeout(PATIENCE)
            .map_err(|error| LedgerError::of(self, error))?;
        Ok(connection)
    }
}

/// Makes the folder and an empty file that only their owner may touch, and refuses what others may write to: who can
/// change the ledger can make API keys and undo revocations. SQLite gives its other files the mode of this one.
fn prepare(path: &Path) -> Result<(), LedgerError> {
    let place = path.display().to_string();
    let failed = |source| LedgerError::File {
        place: place.clone(),
        source,
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut make = DirBuilder::new();
    make.recursive(true).mode(0o700);
    make.create(folder).map_err(failed)?;
    closed(folder)?;
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => drop(made.map_err(failed)?),
    }
    closed(path)
}

fn closed(path: &Path) -> Result<(), LedgerError> {
    let place = path.display().to_string();
    match fs::metadata(path) {
        Err(source) => Err(LedgerError::File { place, source }),
        Ok(found) => match found.permissions().mode() & 0o777 {
            mode if mode & 0o022 != 0 => Err(LedgerError::Exposed { place, mode }),
            _ => Ok(()),
        },
    }
}

/// How long to wait for another process that writes. Its transactions take milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
