//! What a backup says of its database: versions, sizes, rows, settings, and what it does not hold.
//!
//! Read from the copy, which shows one instant, except the journal mode, which only the live database knows.

use std::collections::BTreeMap;
use std::path::Path;

use backup_core::context::Context;
use backup_core::error::Result;
use backup_core::traits::SourceFacts;
use jiff::Timestamp;
use rusqlite::Connection;

use crate::checks;
use crate::copy::Method;
use crate::fault::explain;
use crate::migrations::{DETAIL_SCHEMA_META, DETAIL_USER_VERSION, Recorded};

/// The kind of these sources in facts and names.
pub(crate) const KIND: &str = "sqlite";

/// What is known before the copy is looked at.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) instant: Timestamp,
    pub(crate) size_bytes: u64,
    pub(crate) journal_mode: String,
    pub(crate) method: Method,
    pub(crate) mode: u32,
}

/// Reads the facts of a copy.
///
/// # Errors
/// `Cancelled`; whatever SQLite says.
pub(crate) fn facts(
    connection: &Connection,
    path: &Path,
    seen: Seen,
    count: bool,
    ctx: &Context,
) -> Result<SourceFacts> {
    let tables = if count { checks::count_rows(connection, path, ctx)? } else { BTreeMap::new() };
    let recorded = Recorded::read(connection, path)?;
    let mut details = settings(connection).map_err(|error| explain(error, "read the settings of", path))?;
    details.insert("journal_mode".into(), seen.journal_mode.clone());
    details.insert("method".into(), seen.method.name().into());
    details.insert("file_mode".into(), format!("{:04o}", seen.mode));
    if let Some(version) = recorded.user_version {
        details.insert(DETAIL_USER_VERSION.into(), version.to_string());
    }
    if let Some(version) = recorded.schema_meta {
        details.insert(DETAIL_SCHEMA_META.into(), version.to_string());
    }
    Ok(SourceFacts {
        kind: KIND.into(),
        not_included: not_included(&seen),
        name: seen.name,
        location: seen.location,
        engine: format!("SQLite {}", rusqlite::version()),
        instant: seen.instant,
        size_bytes: seen.size_bytes,
        tables,
        migrations: recorded.migrations,
        details,
    })
}

fn settings(connection: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for name in ["page_size", "encoding", "application_id", "auto_vacuum", "schema_version"] {
        let value: rusqlite::types::Value =
            connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?;
        let text = match value {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            _ => continue,
        };
        found.insert(name.to_owned(), text);
    }
    Ok(found)
}

/// Says what a copy of one database file cannot hold (S1.7).
fn not_included(seen: &Seen) -> Vec<String> {
    let mut missing = vec![
        format!("what was committed after {}", seen.instant),
        "settings of connections that SQLite does not store in the file (foreign_keys, busy_timeout, synchronous)"
            .to_owned(),
        "databases that the service attaches, and its temporary tables: each file is a source of its own".to_owned(),
        "functions, collations and extensions that the service loads".to_owned(),
    ];
    if seen.journal_mode == "wal" {
        missing.push(
            "WAL mode: the copy is in rollback-journal mode until the service sets WAL again".to_owned(),
        );
    }
    missing
}
