//! The integration tests of backup-core: one module per verb, one binary.

// clippy.toml allows these in `#[test]` functions only; here the helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod conformance;
mod files;
mod manifest;
mod memory;
mod pack;
mod repository;
mod seal;
mod signing;
mod support;
mod vault;
