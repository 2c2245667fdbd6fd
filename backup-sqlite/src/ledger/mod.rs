//! Writes native chains in SQLite: for services that have no audit chain of their own.
//!
//! [`Ledger::append`] adds a record in the caller's own transaction, so that the record and what it is about are
//! stored together or not at all. [`Writer`] takes records from many threads and commits many in one
//! transaction. [`layout`] holds the tables; `audit_chain::native` makes the records, and verifies them.
//!
//! When the process dies the last committed record is the head: SQLite rolls the rest back. Two processes that append
//! at once wait for each other's lock; a fork is impossible by two unique indexes.

mod append;
mod erase;
pub mod layout;
mod writer;

pub use append::{Draft, Ledger, Receipt};
pub use erase::{EraseOptions, Erased, scrub};
pub use layout::Layout;
pub use writer::{DEFAULT_BUSY_TIMEOUT, DEFAULT_GROUP, DEFAULT_QUEUE, Pending, Writer, WriterOptions};

use std::path::Path;

use backup_core::error::Error;
use rusqlite::Connection;

/// Explains what SQLite said of a database that a caller handed over.
fn fault(step: &str, connection: &Connection, error: rusqlite::Error) -> Error {
    let path = connection.path().filter(|path| !path.is_empty()).unwrap_or("the database in memory");
    crate::fault::explain(error, step, Path::new(path))
}
