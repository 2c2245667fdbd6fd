//! The arguments that say how a PostgreSQL server is reached and what is asked of it.

use std::path::PathBuf;
use std::time::Duration;

use attestore::postgres::PostgresOptions;
use clap::{Args, ValueHint};

/// Arguments for `postgres://…`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PostgresArguments {
    /// The folder of pg_dump and the others (default: the newest on this machine that fits the server)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pg_bin: Option<PathBuf>,
    /// A setting of the PostgreSQL sessions, for policies that ask for one
    #[arg(long = "pg-setting", value_name = "NAME=VALUE")]
    pg_settings: Vec<String>,
    /// Wait this many seconds for a lock of another PostgreSQL session (default: 30)
    #[arg(long, value_name = "SECONDS")]
    lock_timeout: Option<u64>,
}

impl PostgresArguments {
    /// Makes the options of the library.
    pub(crate) fn options(&self) -> PostgresOptions {
        PostgresOptions {
            bin: self.pg_bin.clone(),
            settings: self.pg_settings.clone(),
            lock_timeout: self.lock_timeout.map(Duration::from_secs),
        }
    }
}
