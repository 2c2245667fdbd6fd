//! Point-in-time snapshots and safe file-level restores of SQLite databases.

mod copy;
mod fault;
mod open;
mod ordered;
mod ranges;
mod schema;
pub mod table;
mod watch;
