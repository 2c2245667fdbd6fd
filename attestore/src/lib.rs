//! One facade for all of Attestore, shared by the command line and the bindings.
//!
//! Each verb is a function with an options struct; results serialize to the JSON that the command line prints.
//! A Rust service that needs only one backend can use `backup-core` and that backend's crate directly.

pub mod aside;
pub mod backup;
pub mod chain;
pub mod chain_export;
pub mod chain_input;
mod chain_pages;
pub mod companions;
pub mod contents;
pub mod doctor;
pub mod drill;
pub mod earlier;
pub mod hooks;
pub mod input;
pub mod keys;
pub mod ledger;
pub mod lineage;
pub mod page;
pub mod plan;
pub mod planned;
pub mod postgres;
#[cfg(feature = "postgres")]
mod postgres_restore;
pub mod prove;
pub mod registry;
pub mod repository;
pub mod restore;
pub mod runbook;
pub mod scratch;
pub mod sealed;
pub mod status;
pub mod verify;
pub mod words;

pub use backup_core::context::{Cancel, Context, Progress};
pub use backup_core::error::{Error, ErrorKind, Result};
