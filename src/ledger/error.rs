//! Why the ledger could not be opened, read or written.

use std::io;

use rusqlite::ErrorCode;

/// Why the ledger could not be opened, read or written. Never holds what was to be written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The folder or the file cannot be made or read.
    #[error("cannot use the ledger {place}: {source}")]
    File {
        /// Which file or folder.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// There is nothing to read.
    #[error("there is no ledger at {place}")]
    Missing {
        /// Where it was looked for.
        place: String,
    },
    /// A file or folder that others may write to.
    #[error("{place} has mode {mode:04o}: others could change the ledger")]
    Exposed {
        /// Which file or folder.
        place: String,
        /// Its permission bits.
        mode: u32,
    },
    /// A file that is no database, or that of another program.
    #[error("{place} is not a ledger of Mixgate")]
    Foreign {
        /// Which file.
        place: String,
    },
    /// A file that a newer version has written.
    #[error("the ledger {place} has version {found}, this program knows up to {known}")]
    Newer {
        /// Which file.
        place: String,
        /// Its version.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// Another process keeps it for too long.
    #[error("the ledger {place} is locked by another process")]
    Busy {
        /// Which file.
        place: String,
    },
    /// No room is left.
    #[error("no room is left for the ledger {place}")]
    Full {
        /// Which file.
        place: String,
    },
    /// It may be read only.
    #[error("the ledger {place} may not be written")]
    ReadOnly {
        /// Which file.
        place: String,
    },
    /// Anything else that SQLite says.
    #[error("the ledger {place} does not work: {source}")]
    Sqlite {
        /// Which file.
        place: String,
        /// Why.
        source: rusqlite::Error,
    },
    /// The thread that writes has ended.
    #[error("the ledger's writer has stopped")]
    Stopped,
}

impl LedgerError {
    /// What `source` means for the ledger at `place`.
    pub(super) fn of(place: &dyn ToString, source: rusqlite::Error) -> Self {
        let place = place.to_string();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign { place },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { place },
            Some(ErrorCode::DiskFull) => Self::Full { place },
            Some(ErrorCode::ReadOnly) => Self::ReadOnly { place },
            _ => Self::Sqlite { place, source },
        }
    }

    /// The next step, for the last line of the message.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::File { .. } | Self::ReadOnly { .. } => {
                "choose a file in a folder that you may write to (--ledger), or \"off\""
            }
            Self::Missing { .. } => {
                "`mixgate serve` makes it; name the server's with --state-dir or --ledger"
            }
            Self::Exposed { .. } => "chmod go-w it, or choose another place (--ledger)",
            Self::Foreign { .. } => "move the file away, or choose another (--ledger)",
            Self::Newer { .. } => "use the newer program, or another file (--ledger)",
            Self::Busy { .. } => "end the other program, or wait until it is done",
            Self::Full { .. } => "free some room on the disk, or choose another (--ledger)",
            Self::Sqlite { .. } | Self::Stopped => return None,
        })
    }
}
