//! Reads single columns of a database: for checks of values that no chain covers.
//!
//! The facade's credential-gap report calls [`read_columns`] on a restored copy or on a live database, which it opens through SQLite
//! as everything here does; one statement reads one snapshot. Rows go by one at a time; nothing is kept.

use std::path::Path;

use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use rusqlite::types::ValueRef;

use crate::fault::explain;
use crate::open::{open_immutable, open_live};
use crate::schema::{quote, user_tables};
use crate::table::DEFAULT_BUSY_TIMEOUT;

/// How many rows go by before the caller's flag is looked at.
const LOOK_EVERY: u64 = 1_024;

/// Whether others may have the database open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// A copy that nobody writes.
    Copy,
    /// A database that others may be using.
    Live,
}

/// One value of a row, borrowed while the row goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'a> {
    /// NULL.
    Null,
    /// Text, or a number as SQLite spells it.
    Text(&'a [u8]),
    /// A BLOB.
    Blob(&'a [u8]),
    /// A number that is no text.
    Number,
}

impl<'a> Cell<'a> {
    /// Returns the bytes, where there are any.
    #[must_use]
    pub const fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Text(bytes) | Self::Blob(bytes) => Some(bytes),
            Self::Null | Self::Number => None,
        }
    }
}

/// Reads columns of a table, row by row. `id` names a record in text: a column, or the row's number where it is `None`; `each` gets it
/// with the values in the order of `columns`.
///
/// # Errors
/// `NotFound` when there is no such table or column, naming what there is; what SQLite and `each` say.
pub fn read_columns(
    path: &Path,
    reading: Reading,
    table: &str,
    id: Option<&str>,
    columns: &[&str],
    ctx: &Context,
    each: &mut dyn FnMut(&str, &[Cell<'_>]) -> Result<()>,
) -> Result<()> {
    let connection = match reading {
        Reading::Copy => open_immutable(path)?,
        Reading::Live => open_live(path, DEFAULT_BUSY_TIMEOUT, ctx)?,
    };
    let told = |error| explain(error, "read", path);
    let missing = |what: String| Error::new(ErrorKind::NotFound, what);
    let tables = user_tables(&connection).map_err(told)?;
    if !tables.iter().any(|name| name.eq_ignore_ascii_case(table)) {
        return Err(missing(format!("there is no table {table:?}; there are {}", tables.join(", "))));
    }
    let mut has = Vec::new();
    {
        let mut statement =
            connection.prepare(&format!("PRAGMA table_info({})", quote(table))).map_err(told)?;
        let mut rows = statement.query([]).map_err(told)?;
        while let Some(row) = rows.next().map_err(told)? {
            has.push(row.get::<_, String>(1).map_err(told)?);
        }
    }
    // SQLite takes a quoted name of no column for a text.
    for name in columns.iter().copied().chain(id) {
        if !has.iter().any(|column| column.eq_ignore_ascii_case(name)) {
            return Err(missing(format!(
                "the table {table:?} has no column {name:?}; it has {}",
                has.join(", ")
            )));
        }
    }
    let list: Vec<String> = columns.iter().map(|column| quote(column)).collect();
    let named = id.map_or_else(|| "rowid".to_owned(), quote);
    let sql = format!("SELECT CAST({named} AS TEXT), {} FROM {}", list.join(", "), quote(table));
    let mut statement = connection.prepare(&sql).map_err(told)?;
    let mut rows = statement.query([]).map_err(told)?;
    let mut seen = 0_u64;
    while let Some(row) = rows.next().map_err(told)? {
        if seen.is_multiple_of(LOOK_EVERY) {
            ctx.check()?;
        }
        seen += 1;
        let name = match row.get_ref(0).map_err(told)? {
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        };
        let mut cells = Vec::with_capacity(columns.len());
        for at in 0..columns.len() {
            cells.push(match row.get_ref(at + 1).map_err(told)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Text(text) => Cell::Text(text),
                ValueRef::Blob(blob) => Cell::Blob(blob),
                ValueRef::Integer(_) | ValueRef::Real(_) => Cell::Number,
            });
        }
        each(&name, &cells)?;
    }
    Ok(())
}
