//! Snapshots of PostgreSQL databases with their evidence, and restores that never harm what is live.
//!
//! - [`connect`]: where a database is ([`Address`]) and sessions on it ([`Connection`]); URLs, `key=value`, services,
//!   password files, sockets, TLS
//! - [`session`]: one instant shared by several connections and by `pg_dump`
//! - [`parallel`]: a dump that many connections read at once, in which chains are verified from the rows that are stored
//! - [`tools`]: PostgreSQL's own programs, found, compared with the server's version, run and watched
//! - [`source`]: a database as a source of backups and of chains to verify ([`PostgresSource`])
//! - [`table`]: rows of a table or query by `COPY`, in one snapshot
//! - [`catalog`], [`facts`], [`migrations`]: what a database holds, and what a backup says of it
//! - [`drill`]: a restore that is checked, timed and thrown away
//! - [`restore`]: a database put back beside the live one, proven, renamed ([`PostgresRestore`])
//! - [`cluster`]: a throwaway server for drills and tests
//!
//! The environment is handed in ([`Environment`]): this crate reads none.

pub mod catalog;
pub mod cluster;
pub mod connect;
pub mod conninfo;
mod copytext;
pub mod drill;
mod dump;
pub mod environment;
pub mod error;
pub mod facts;
pub mod migrations;
pub mod parallel;
pub mod restore;
pub mod session;
pub mod source;
pub mod table;
mod tls;
pub mod tools;
mod users;
pub mod version;

pub use connect::{Address, Connection, SessionOptions};
pub use environment::Environment;
pub use error::{Error, Result};
pub use restore::{PostgresRestore, RestoreOptions};
pub use session::SnapshotSession;
pub use source::{PostgresSource, SourceOptions};
pub use tls::SslMode;
