//! Point-in-time snapshots and safe file-level restores of SQLite databases.

mod aside;
pub mod checks;
mod copy;
mod facts;
mod fault;
mod in_use;
mod into_folder;
pub mod migrations;
mod open;
mod ordered;
mod prove;
mod ranges;
mod restore;
mod schema;
mod source;
mod staging;
mod swap;
pub mod table;
mod watch;

pub use aside::{SetAside, archive_set_aside, remove_set_aside, set_aside};
pub use checks::{Integrity, SqlCheck};
pub use copy::Method;
pub use into_folder::{BackupFile, BackupIntoOptions, Live, backup_into};
pub use migrations::{Known, SchemaState, SchemaVerdict};
pub use restore::{RestoreOptions, SqliteRestore, recover};
pub use source::{SourceOptions, SqliteSource};
pub use swap::Recovery;

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
