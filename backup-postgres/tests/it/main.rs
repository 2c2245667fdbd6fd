//! The crate against real servers. Each test makes databases of its own on one throwaway server, which is gone when
//! the tests have ended, however they end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod cluster;
mod connect;
mod support;
