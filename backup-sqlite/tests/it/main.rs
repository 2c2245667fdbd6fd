//! The integration tests of backup-sqlite: one module per verb, one binary.

// clippy.toml allows these in `#[test]` functions only; here the helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod chains;
mod child;
mod conformance;
mod crash;
mod into;
mod ledger;
mod ledger_erase;
mod ledger_writer;
mod live;
mod receipts;
mod restore;
mod rows;
mod snapshot;
mod support;

/// What a child process does besides the roles of [`child`].
fn roles(role: &str) {
    match role {
        "into" => into::role(),
        "into-once" => into::role_once(),
        "ledger" => ledger_writer::role(),
        "rewrite" => live::role(),
        "restore" => crash::role(),
        "restore-told" => restore::role(),
        "snapshot-told" => snapshot::role(),
        other => panic!("no role {other:?}"),
    }
}
