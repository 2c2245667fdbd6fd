//! Point-in-time snapshots and safe file-level restores of SQLite databases.

pub mod checks;
mod copy;
mod facts;
mod fault;
pub mod migrations;
mod open;
mod ordered;
mod ranges;
mod schema;
mod source;
pub mod table;
mod watch;

pub use checks::{Integrity, SqlCheck};
pub use copy::Method;
pub use source::{SourceOptions, SqliteSource};

/// Returns the version of the SQLite that is linked in (`3.51.3`).
#[must_use]
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// Returns the same as a number: 3.51.3 is 3051003.
#[must_use]
pub fn sqlite_version_number() -> i32 {
    rusqlite::version_number()
}
