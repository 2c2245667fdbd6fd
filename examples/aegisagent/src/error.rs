//! What can go wrong in the service, and which HTTP status says so.

use std::path::PathBuf;

use backup_core::error::ErrorKind;

/// A failure of the service or of the loader.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database failed.
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The database was made by a newer program.
    #[error("{}: schema version {found} is newer than {known}, the newest this program knows", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// The file to be made is there already.
    #[error("{} exists already and is not overwritten", .0.display())]
    Exists(PathBuf),
    /// A request that cannot be meant.
    #[error("{0}")]
    Invalid(String),
    /// The backup failed.
    #[error(transparent)]
    Backup(#[from] backup_core::error::Error),
    /// The operating system failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
}

/// The result of this crate's fallible calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Returns the coarse kind, from the one table that all of Attestore shares.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sqlite(_) => ErrorKind::Unavailable,
            Self::Newer { .. } => ErrorKind::Newer,
            Self::Exists(_) => ErrorKind::AlreadyExists,
            Self::Invalid(_) => ErrorKind::InvalidInput,
            Self::Backup(error) => error.kind(),
            Self::Io { source, .. } => ErrorKind::of_io(source),
        }
    }

    /// Returns the HTTP status: 400 for a bad name or body, 409 for a name that exists, 507 for a
    /// full disk, 503 for what may work later, else 500: not the caller's doing.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match (self, self.kind()) {
            (Self::Invalid(_), _) | (_, ErrorKind::InvalidName) => 400,
            (_, ErrorKind::AlreadyExists) => 409,
            (_, ErrorKind::NoSpace) => 507,
            (_, ErrorKind::Locked | ErrorKind::InUse | ErrorKind::Unavailable) => 503,
            _ => 500,
        }
    }
}
