//! Snapshots of PostgreSQL databases with their evidence, and restores that never harm what is live.
//!
//! - [`connect`]: where a database is ([`Address`]) and sessions on it ([`Connection`]); URLs, `key=value`, services,
//!   password files, sockets, TLS
//! - [`session`]: one instant shared by several connections and by `pg_dump`
//! - [`tools`]: PostgreSQL's own programs, found, compared with the server's version, run and watched
//! - [`cluster`]: a throwaway server for drills and tests
//!
//! The environment is handed in ([`Environment`]): this crate reads none.

pub mod cluster;
pub mod connect;
pub mod conninfo;
pub mod environment;
pub mod error;
pub mod session;
mod tls;
pub mod tools;
mod users;
pub mod version;

pub use connect::{Address, Connection, SessionOptions};
pub use environment::Environment;
pub use error::{Error, Result};
pub use session::SnapshotSession;
pub use tls::SslMode;
