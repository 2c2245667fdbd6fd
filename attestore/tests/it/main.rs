//! The command line as scripts and people use it: the built program, real files, real signals. One module per verb.

// clippy.toml allows these in `#[test]` functions only; here the helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod backup;
mod bad_input;
mod diagnosis;
mod drill;
mod earlier;
mod faults;
mod keygen;
mod kinds;
mod ledger;
mod list;
mod plan;
mod postgres;
mod profiles;
mod prove;
mod requirements;
mod restore;
mod runbook;
mod sealed;
mod signals;
mod status;
mod support;
mod systems;
mod usage;
mod vectors;
mod verify;
