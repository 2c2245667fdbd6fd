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
