//! Point-in-time snapshots and safe file-level restores of SQLite databases.

pub mod checks;
mod copy;
mod facts;
mod fault;
mod into_folder;
pub mod migrations;
mod open;
mod ordered;
mod ranges;
mod schema;
mod source;
mod staging;
pub mod table;
mod watch;

pub use checks::{Integrity, SqlCheck};
pub use copy::Method;
pub use into_folder::{BackupFile, BackupIntoOptions, Live, backup_into};
pub use source::{SourceOptions, SqliteSource};

/// Returns the version of the SQLite that is linked in (`3.51.3`).
#[must_use]
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// Returns that version as a number: 3 051 003 for 3.51.3.
#[must_use]
pub fn sqlite_version_number() -> i32 {
    rusqlite::version_number()
}
