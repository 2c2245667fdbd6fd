//! The crate against real servers. Each test makes databases of its own on one throwaway server, which is gone when
//! the tests have ended, however they end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod chains_in_dump;
mod cluster;
mod compare;
mod connect;
mod drill;
mod faults;
mod parallel;
mod pitfalls;
mod restore;
mod snapshot;
mod support;
mod tls;
mod torture;
mod vectors;
mod versions;
