//! Backups that carry their own evidence: the traits of a backend, the repository, the manifest,
//! sealing, retention and the repository's own log.

pub mod conformance;
pub mod context;
pub mod durable;
pub mod encrypt;
pub mod error;
pub mod extract;
pub mod files;
pub mod manifest;
pub mod names;
pub mod pack;
pub mod paths;
pub mod repository;
pub mod seal;
pub mod secret;
pub mod signing;
mod tally;
pub mod traits;
