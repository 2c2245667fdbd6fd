//! PostgreSQL behind `postgres://…`: sources of backups, chains in live databases. Behind the feature `postgres`.
//!
//! The one place where the process's environment (`PGHOST`, `PGPASSFILE`, `PGSERVICE` …) is handed to the backend.
//! Built without the feature, everything here says so.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "postgres")]
use audit_chain::format::ChainFormat;
use backup_core::context::Context;
use backup_core::error::Result;
#[cfg(not(feature = "postgres"))]
use backup_core::error::{Error, ErrorKind};
use backup_core::traits::{ChainRequest, Snapshot};
#[cfg(feature = "postgres")]
use backup_postgres::{Address, Environment, PostgresSource, SourceOptions, tools::ToolOptions};

use crate::backup::BackupOptions;

/// A connection string. `Debug` shows its scheme only: it may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Server(String);

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server(postgres:…)")
    }
}

impl Server {
    /// Takes a text that [`is_server`] says is a connection string.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_server(text).then(|| Self(text.to_owned()))
    }
}

/// How servers are reached and what is asked of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PostgresOptions {
    /// The folder that holds `pg_dump` and the others; where it is named, no other is looked at.
    pub bin: Option<PathBuf>,
    /// Settings of the sessions, each `NAME=VALUE`.
    pub settings: Vec<String>,
    /// How long a lock of another session is waited for; `None` for [the backend's default](backup_postgres::connect::DEFAULT_LOCK_TIMEOUT).
    pub lock_timeout: Option<Duration>,
}

/// Reports whether a text names a database on a PostgreSQL server: a URL, `postgres:key=value …`, or `key=value` pairs with a `dbname`.
#[must_use]
pub fn is_server(text: &str) -> bool {
    #[cfg(feature = "postgres")]
    return backup_postgres::conninfo::is_conninfo(text);
    #[cfg(not(feature = "postgres"))]
    return text.starts_with("postgres:") || text.starts_with("postgresql:");
}

/// A source of a backup on a server, and its name in the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSource {
    /// The name; where `None` it is the backup's only database.
    pub name: Option<String>,
    /// Where it is.
    pub server: Server,
}

impl ServerSource {
    /// Reads a SOURCE: a connection string, or `NAME=` before one; `None` when it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((name, rest)) = text.split_once('=')
            && (rest.starts_with("postgres:") || rest.starts_with("postgresql:"))
            && !name.is_empty()
            && !name.contains([':', '/', '?', ' '])
        {
            return Some(Self { name: Some(name.to_owned()), server: Server(rest.to_owned()) });
        }
        Some(Self { name: None, server: Server::parse(text)? })
    }
}

/// Returns what the process's environment says about connections.
#[cfg(feature = "postgres")]
#[must_use]
pub fn environment() -> Environment {
    Environment::of(std::env::vars_os())
}

/// Reads a connection string under the process's environment.
///
/// # Errors
/// `InvalidInput` for what cannot be meant or honoured; `NotFound` for a service that is in no file.
#[cfg(feature = "postgres")]
pub fn address(server: &Server) -> Result<Address> {
    Ok(Address::parse(&server.0, &environment())?)
}

/// Returns where programs of PostgreSQL are looked for.
#[cfg(feature = "postgres")]
#[must_use]
pub fn tools(options: &PostgresOptions) -> ToolOptions {
    ToolOptions { folder: options.bin.clone(), path: environment().path }
}

/// Reads the settings of sessions. Caracal's policies hide every row from a session that does not name its zone, so for its
/// formats `caracal.zone_id=*` goes before them.
#[cfg(feature = "postgres")]
pub(crate) fn settings(options: &PostgresOptions, formats: &[&str]) -> Result<Vec<(String, String)>> {
    use backup_core::error::{Error, ErrorKind};
    let mut made = Vec::new();
    if formats.iter().any(|format| format.starts_with("caracal")) {
        made.push(("caracal.zone_id".to_owned(), "*".to_owned()));
    }
    for text in &options.settings {
        let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, format!("a setting is given as NAME=VALUE; found {text:?}"))
        })?;
        made.retain(|(known, _)| known != name);
        made.push((name.to_owned(), value.to_owned()));
    }
    Ok(made)
}

/// Makes a source of a connection string.
///
/// # Errors
/// As [`address`]; `InvalidInput` for a setting that is none.
#[cfg(feature = "postgres")]
pub fn source(
    source: &ServerSource,
    options: &PostgresOptions,
    chains: &[ChainRequest],
    alone: bool,
) -> Result<PostgresSource> {
    let address = address(&source.server)?;
    let made = SourceOptions {
        tools: tools(options),
        settings: settings(options, &chains.iter().map(|chain| chain.format.name()).collect::<Vec<_>>())?,
        chains_by_name: !alone,
        ..SourceOptions::default()
    };
    let mut made = PostgresSource::with_options(address, made);
    if let Some(timeout) = options.lock_timeout {
        made.options.lock_timeout = timeout;
    }
    made.options.name = match (&source.name, alone) {
        (Some(name), _) => Some(name.clone()),
        (None, true) => None,
        (None, false) => Some(backup_postgres::catalog::object_stem(made.address.database())),
    };
    Ok(made)
}

/// A source of a backup with the chains that are verified in it.
type Held = (Box<dyn Snapshot>, Vec<ChainRequest>);

/// Makes a source of a backup with its chains: `own` where they are said, else those of `chains` whose tables it has.
///
/// # Errors
/// As [`source`]; where there are several sources, what the server says when it is asked for its tables.
#[cfg(feature = "postgres")]
pub(crate) fn snapshot(
    server: &ServerSource,
    options: &BackupOptions,
    chains: &[ChainRequest],
    own: Option<&[ChainRequest]>,
    alone: bool,
    ctx: &Context,
) -> Result<Held> {
    let mut source = source(server, &options.postgres, own.unwrap_or(chains), alone)?;
    source.options.parallel.jobs = options.jobs.map_or(1, |jobs| jobs as usize);
    let held = match own {
        Some(own) => own.to_vec(),
        None if alone || chains.is_empty() => chains.to_vec(),
        None => {
            let tables = source.tables(ctx)?;
            let has = |chain: &&ChainRequest| {
                let table = chain.table.as_deref().unwrap_or_else(|| chain.format.table());
                tables.iter().any(|name| name == table)
            };
            chains.iter().filter(has).cloned().collect()
        }
    };
    Ok((Box::new(source), held))
}

/// Says that this build cannot.
#[cfg(not(feature = "postgres"))]
pub(crate) fn snapshot(
    _: &ServerSource,
    _: &BackupOptions,
    _: &[ChainRequest],
    _: Option<&[ChainRequest]>,
    _: bool,
    _: &Context,
) -> Result<Held> {
    Err(absent())
}

/// Verifies one chain of a live database in one snapshot.
///
/// # Errors
/// As [`source`]; what the server says.
#[cfg(feature = "postgres")]
pub(crate) fn verify_chain(
    server: &Server,
    options: &PostgresOptions,
    request: &ChainRequest,
    ctx: &Context,
) -> Result<audit_chain::report::ChainReport> {
    use backup_core::traits::ChainVerify as _;
    let named = ServerSource { name: None, server: server.clone() };
    source(&named, options, std::slice::from_ref(request), true)?.verify_chain(request, ctx)
}

/// Opens a chain's table in one snapshot, for an export.
///
/// # Errors
/// As [`source`]; what the server says.
#[cfg(feature = "postgres")]
pub(crate) fn open_chain(
    server: &Server,
    options: &PostgresOptions,
    format: &dyn ChainFormat,
    table: Option<&str>,
    ctx: &Context,
) -> Result<backup_postgres::source::OpenedTable> {
    let mut opened = SourceOptions {
        tools: tools(options),
        settings: settings(options, &[format.name()])?,
        ..SourceOptions::default()
    };
    if let Some(timeout) = options.lock_timeout {
        opened.lock_timeout = timeout;
    }
    let source = PostgresSource::with_options(address(server)?, opened);
    Ok(source.open_table(format, table, ctx)?)
}

#[cfg(not(feature = "postgres"))]
pub(crate) fn absent() -> Error {
    Error::new(ErrorKind::Unsupported, "postgres: this build has no PostgreSQL backend")
        .with_hint("build with the feature `postgres`, or dump the chain table as NDJSON and verify that")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_from_files_and_names() {
        for text in ["postgres://", "postgres://u:hunter2@h/d", "postgresql:///d", "postgres:service=app"] {
            let source = ServerSource::parse(text).unwrap();
            assert_eq!(source.name, None, "{text}");
            assert!(!format!("{source:?}").contains("hunter2"));
        }
        assert_eq!(ServerSource::parse("eu=postgres://h/d").unwrap().name.as_deref(), Some("eu"));
        for text in ["app.db", "eu=/var/app.db", "sqlite:postgres", "mysql://h/d", ""] {
            assert_eq!(ServerSource::parse(text), None, "{text}");
        }
    }
}
