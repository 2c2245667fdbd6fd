//! A small service that keeps receipts of what agents did, in a hash chain per tenant over SQLite,
//! and backs its database up while it writes.
//!
//! [`Store`] is the database, [`api`] the HTTP face over it, [`generate()`] makes databases of any size for the
//! demo, the tests and the benches. What a service has to write to be backed up is in `api.rs`: one call of
//! `backup_sqlite`, and a table from error kinds to HTTP statuses.

mod error;
pub mod generate;
mod policy;
mod receipt;
mod store;

pub mod api;

pub use error::{Error, Result};
pub use generate::{Options, Summary, generate};
pub use policy::PolicyChange;
pub use receipt::{Action, CANON_VERSION, Receipt, ReceiptSigner, Signature};
pub use store::{BUSY_TIMEOUT, ChainHead, MAX_RECEIPT_BYTES, SCHEMA_VERSION, Store};

/// The code in the project's README, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
