//! One instant of a database, shared by several connections and PostgreSQL's own programs.
//!
//! The first connection begins `REPEATABLE READ, READ ONLY` and exports its snapshot (`pg_export_snapshot`); others join it
//! (`SET TRANSACTION SNAPSHOT`), and `pg_dump --snapshot` too. What any of them reads is as of that instant, whatever is
//! written meanwhile. The snapshot lives as long as the first connection's transaction, which [`SnapshotSession`] holds open.

use backup_core::context::Context;
use jiff::Timestamp;

use crate::connect::{Address, Connection, SessionOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::version::ServerVersion;

/// A snapshot that is held open.
#[derive(Debug)]
pub struct SnapshotSession {
    connection: Connection,
    joiner: Joiner,
    instant: Timestamp,
    standby: bool,
}

/// Opens further connections in a snapshot; clones share it. It works as long as the [`SnapshotSession`] lives.
#[derive(Debug, Clone)]
pub struct Joiner {
    address: Address,
    options: SessionOptions,
    id: String,
    major: i32,
}

impl SnapshotSession {
    /// Connects, begins the transaction and exports its snapshot.
    ///
    /// # Errors
    /// As [`Connection::open`]; `Unsupported` for a server older than PostgreSQL 10.
    pub fn open(address: &Address, options: &SessionOptions, ctx: &Context) -> Result<Self> {
        let mut connection = Connection::open(address, options, ctx)?;
        if connection.version().major() < 10 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the server is PostgreSQL {}: expected 10 or newer", connection.version().short()),
            ));
        }
        let (id, micros, standby) = connection.run("take a snapshot of", ctx, |client| {
            client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
            let row = client.query_one(
                "SELECT pg_export_snapshot(), (extract(epoch FROM clock_timestamp()) * 1000000)::int8, pg_is_in_recovery()",
                &[],
            )?;
            Ok((row.get::<_, String>(0), row.get::<_, i64>(1), row.get::<_, bool>(2)))
        })?;
        let instant = Timestamp::from_microsecond(micros).map_err(|error| {
            Error::new(ErrorKind::Malformed, format!("the server's clock cannot be read: {error}"))
        })?;
        let joiner = Joiner {
            address: connection.pinned(),
            options: options.clone(),
            id,
            major: connection.version().major(),
        };
        Ok(Self { connection, joiner, instant, standby })
    }

    /// Returns what opens further connections in this snapshot.
    #[must_use]
    pub const fn joiner(&self) -> &Joiner {
        &self.joiner
    }

    /// Returns the snapshot's id, for `pg_dump --snapshot`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.joiner.id
    }

    /// Returns the server's time when the snapshot was taken.
    #[must_use]
    pub const fn instant(&self) -> Timestamp {
        self.instant
    }

    /// Reports whether the server is a standby.
    #[must_use]
    pub const fn is_standby(&self) -> bool {
        self.standby
    }

    /// Returns the server's version.
    #[must_use]
    pub const fn version(&self) -> &ServerVersion {
        self.connection.version()
    }

    /// Returns the first connection, in its transaction.
    pub const fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Returns the first connection.
    #[must_use]
    pub const fn first(&self) -> &Connection {
        &self.connection
    }
}

impl Joiner {
    /// Opens another connection that sees the very same instant, in a transaction of its own.
    ///
    /// # Errors
    /// As [`Connection::open`]; what the server says when the snapshot is gone.
    pub fn join(&self, ctx: &Context) -> Result<Connection> {
        self.join_with(&self.options, ctx)
    }

    /// The same with other options of the session.
    ///
    /// # Errors
    /// As [`Joiner::join`].
    pub fn join_with(&self, options: &SessionOptions, ctx: &Context) -> Result<Connection> {
        let mut connection = Connection::open(&self.address, options, ctx)?;
        // The id is the server's: digits, letters and dashes. It is quoted all the same.
        let sql = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{}'",
            self.id.replace('\'', "''")
        );
        let joined = connection.run("join the snapshot of", ctx, |client| client.batch_execute(&sql));
        joined.map_err(|error| match error.sqlstate() {
            // It ended with the session that held it.
            Some("22023" | "42704" | "58P01") => {
                Error::new(ErrorKind::Unavailable, format!("the snapshot is gone: {error}"))
                    .with_hint("see the server's log, and try again")
            }
            _ => error,
        })?;
        Ok(connection)
    }

    /// Returns how sessions are set up.
    #[must_use]
    pub const fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Returns the server's major version.
    #[must_use]
    pub const fn major(&self) -> i32 {
        self.major
    }

    /// Returns the database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        self.address.database()
    }
}
