//! Point-in-time snapshots and safe file-level restores of SQLite databases.
//!
//! - [`backup_into`]: one plain file in a folder, for a service that embeds it
//! - [`SqliteSource`]: a database as a source of a repository ([`Snapshot`](backup_core::traits::Snapshot),
//!   [`ChainVerify`](backup_core::traits::ChainVerify)), its chains verified in the very copy that is stored
//! - [`SqliteRestore`]: a database put back, proven first, the old one kept ([`Restore`](backup_core::traits::Restore)),
//!   with [`recover`], [`set_aside()`], [`remove_set_aside`] and [`archive_set_aside`]
//! - [`table::ChainTable`]: a table's rows for all cores, from a copy or from a live database
//! - [`migrations`]: what the database has applied and the program knows
//!
//! A live database is only ever opened through SQLite, never by plain file calls, and by the one SQLite that the program
//! links (docs/sqlite.md says why).

mod aside;
pub mod cells;
pub mod checks;
mod copy;
mod facts;
mod fault;
mod in_use;
mod into_folder;
pub mod ledger;
pub mod lineage;
pub mod migrations;
mod open;
mod ordered;
mod preflight;
mod prove;
mod pump;
mod ranges;
mod restore;
mod schema;
mod source;
mod staging;
mod swap;
pub mod table;
mod together;
mod watch;

pub use aside::{SetAside, archive_set_aside, remove_set_aside, set_aside};
pub use checks::{Integrity, SqlCheck};
pub use copy::Method;
pub use fault::explain;
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

/// The examples of the page for authors of services, so that they compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/sqlite.md")]
struct ServicePage;
