//! Integration tests: one module per verb or standard.

// The crate's lints spare `#[test]` functions; here their helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod aegisagent;
mod agledger;
mod caracal;
mod caracal_writer;
mod documents;
mod every_format;
mod iter_rows;
mod lineage;
mod merkle;
mod native;
mod note;
mod order;
mod profile;
mod signature;
mod vectors;
mod z4j;
mod z4j_history;
mod z4j_writer;
