//! A chain's table as a [`RowSource`]: many readers on a private copy, and on a live database where they see one instant.
//!
//! A private copy never changes, so every worker gets a connection of its own and claims the next range of row
//! ids (`ranges.rs`). So it is on a live database whose connections could be given one snapshot (`together.rs`). Else one
//! connection reads in one read transaction (`ordered.rs`), as it does where a table has no row ids or an order of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use audit_chain::canonical::RowForm;
use audit_chain::erasure::{ERASED_COLUMN, VALUES_COLUMN};
use audit_chain::error::Result as ChainResult;
use audit_chain::format::{ChainFormat, Companions};
use audit_chain::source::{ChunkReader, RowSource};
use audit_chain::value::{Columns, Row, Value};
use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::open::{absolute, open_immutable};
use crate::ordered::Ordered;
use crate::ranges::Ranges;
use crate::schema::{Table, quote};
use crate::together::open_together;

/// How many rows a chunk has, at most.
pub const DEFAULT_CHUNK_ROWS: u32 = 4_096;
/// How many rows a table besides the chain may have: it is held in memory.
pub const MAX_COMPANION_ROWS: usize = 100_000;
/// How long a lock of another connection is waited for by default.
pub const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The columns of the table of values that a chain's records commit to.
const VALUE_COLUMNS: [&str; 6] = ["chain", "seq", "pointer", "salt", "value", "erased_by"];
/// How many connections read a live database at once, at most: every one of them is one more that must find the same snapshot.
pub const MAX_CONNECTIONS: usize = 16;

/// How a chain's table is read.
#[derive(Debug, Clone)]
pub struct TableOptions {
    /// The `ORDER BY` terms of the chain (a column, optionally `ASC` or `DESC`); empty means the order of the row ids.
    pub order: Vec<String>,
    /// The columns that the chain's format reads, to say which table fits when the one named is not there.
    pub wanted: Vec<String>,
    /// Small tables that the format reads besides the chain; those that are not there are left out.
    pub companions: Vec<String>,
    /// The table of the values that records only commit to; they come as two columns behind the chain's own
    /// ([`audit_chain::erasure`]), empty where there is no such table.
    pub values: Option<String>,
    /// How many rows a chunk has, at most.
    pub chunk_rows: u32,
    /// How long a lock of another connection is waited for, on a live database.
    pub busy_timeout: Duration,
    /// How many connections may read a live database at once; 0 means one per core, at most [`MAX_CONNECTIONS`].
    pub connections: usize,
    /// The database that a private copy is of: messages name it and not the copy.
    pub copy_of: Option<PathBuf>,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            order: Vec::new(),
            wanted: Vec::new(),
            companions: Vec::new(),
            values: None,
            chunk_rows: DEFAULT_CHUNK_ROWS,
            busy_timeout: DEFAULT_BUSY_TIMEOUT,
            connections: 0,
            copy_of: None,
        }
    }
}

impl TableOptions {
    /// How a table of a format is read to be verified: in the chain's order, with the small tables and the values that
    /// belong to it.
    #[must_use]
    pub fn of_format(format: &dyn ChainFormat, table: &str) -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            order: owned(format.order()),
            wanted: owned(format.columns()),
            companions: owned(format.companions()),
            values: format.values_table(table),
            ..Self::default()
        }
    }
}

/// Rows of a table in chain order, all columns in the order of their declaration.
#[derive(Debug)]
pub struct ChainTable {
    name: String,
    table: String,
    columns: Columns,
    companions: Companions,
    rows: Rows,
}

/// Which connections there are besides the first.
enum Others {
    /// As many as are asked for.
    Copy,
    /// These, with the snapshot of the first.
    Snapshot(Vec<Connection>),
}

#[derive(Debug)]
enum Rows {
    Ranges(Ranges),
    Ordered(Ordered),
}

impl ChainTable {
    /// Opens a table of a private copy that nobody writes; its readers share the work.
    ///
    /// # Errors
    /// `NotFound` when there is no such table, with those that look like a chain; `Unsupported` for a view;
    /// `InvalidInput` for an order that is not made of columns; whatever SQLite says.
    pub fn open_copy(path: &Path, table: &str, options: &TableOptions, ctx: &Context) -> Result<Self> {
        let path = absolute(path)?;
        Self::new(open_immutable(&path)?, Others::Copy, &path, table, options, ctx)
    }

    /// Opens a table of a database that others may be writing. One read transaction begins here and lasts as
    /// long as the value: every pass sees the same instant. Where several connections can be given that instant, readers share the work.
    ///
    /// # Errors
    /// As [`ChainTable::open_copy`]; `NotFound` when there is no such file; `Locked` after the busy timeout.
    pub fn open_live(path: &Path, table: &str, options: &TableOptions, ctx: &Context) -> Result<Self> {
        let path = absolute(path)?;
        let count = match options.connections {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MAX_CONNECTIONS),
            some => some.min(MAX_CONNECTIONS),
        };
        // The transactions end when the connections close.
        let (connection, others) = open_together(&path, options.busy_timeout, count, ctx)?;
        Self::new(connection, Others::Snapshot(others), &path, table, options, ctx)
    }

    /// Reads a table through a connection that is in a transaction.
    pub(crate) fn of_connection(
        connection: Connection,
        path: &Path,
        table: &str,
        options: &TableOptions,
        ctx: &Context,
    ) -> Result<Self> {
        Self::new(connection, Others::Snapshot(Vec::new()), path, table, options, ctx)
    }

    fn new(
        connection: Connection,
        others: Others,
        path: &Path,
        table: &str,
        options: &TableOptions,
        ctx: &Context,
    ) -> Result<Self> {
        let shown = options.copy_of.as_deref().unwrap_or(path);
        let table = Table::find(&connection, shown, table, &options.wanted)?;
        if options.chunk_rows == 0 {
            return Err(Error::new(ErrorKind::InvalidInput, "a chunk of 0 rows: expected at least 1"));
        }
        let order = table.order_by(&options.order)?;
        let companions = read_companions(&connection, shown, &options.companions)?;
        let file = shown.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{file}:{}", table.name);
        let mut names = table.columns.clone();
        let mut select = format!("SELECT t.* FROM {} AS t", quote(&table.name));
        // Where the chain has no such columns its format will say so.
        if let Some(values) = &options.values
            && ["chain", "seq"].iter().all(|wanted| names.iter().any(|name| name == wanted))
        {
            select = with_values(&connection, shown, &table.name, values)?;
            names.extend([VALUES_COLUMN, ERASED_COLUMN].map(str::to_owned));
        }
        let columns = Columns::new(names);
        let plain = columns.names().len() == table.columns.len();
        let rows = match (&order, &table.rowid, others) {
            (None, Some(rowid), Others::Copy) if plain => {
                Rows::Ranges(Ranges::of_copy(&name, path, &table.name, rowid, options.chunk_rows))
            }
            (None, Some(rowid), Others::Snapshot(mut connections)) if plain && !connections.is_empty() => {
                connections.push(connection);
                Rows::Ranges(Ranges::of_snapshot(
                    &name,
                    path,
                    &table.name,
                    rowid,
                    options.chunk_rows,
                    connections,
                ))
            }
            _ => {
                let order = order.or_else(|| table.rowid.as_deref().map(quote));
                let by = order.map(|terms| format!(" ORDER BY {terms}")).unwrap_or_default();
                let sql = format!("{select}{by}");
                Rows::Ordered(Ordered::new(connection, &name, path, sql, options.chunk_rows, ctx)?)
            }
        };
        Ok(Self { name, table: table.name, columns, companions, rows })
    }

    /// Returns the table's name, spelt as in the schema.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Returns the small tables besides the chain, as of the same instant as its rows.
    #[must_use]
    pub const fn companions(&self) -> &Companions {
        &self.companions
    }

    /// Reports whether several readers share the work, so that more threads read faster.
    #[must_use]
    pub const fn is_parallel(&self) -> bool {
        matches!(self.rows, Rows::Ranges(_))
    }
}

/// Spells the query that brings along what is kept outside the chain of each record, and what each erased.
fn with_values(connection: &Connection, path: &Path, table: &str, values: &str) -> Result<String> {
    let table = quote(table);
    let values = match Table::find(connection, path, values, &[]) {
        // Another table of that name is the service's own.
        Ok(found) if VALUE_COLUMNS.iter().all(|name| found.columns.iter().any(|has| has == name)) => {
            Some(quote(&found.name))
        }
        Ok(_) => None,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) => None,
        Err(error) => return Err(error),
    };
    let Some(values) = values else {
        return Ok(format!("SELECT t.*, '[]' AS {VALUES_COLUMN}, '[]' AS {ERASED_COLUMN} FROM {table} AS t"));
    };
    let there =
        format!("EXISTS (SELECT 1 FROM {table} AS r WHERE r.chain = s.chain AND r.seq = s.erased_by)");
    Ok(format!(
        "SELECT t.*, \
(SELECT json_group_array(json_array(s.pointer, CASE WHEN s.salt IS NOT NULL THEN lower(hex(s.salt)) END, s.value, s.erased_by, {there})) \
FROM {values} AS s WHERE s.chain = t.chain AND s.seq = t.seq) AS {VALUES_COLUMN}, \
(SELECT json_group_array(json_array(s.seq, s.pointer)) FROM {values} AS s \
WHERE s.chain = t.chain AND s.erased_by = t.seq AND s.erased_by IS NOT NULL) AS {ERASED_COLUMN} FROM {table} AS t"
    ))
}

/// Reads small tables whole, each row a JSON object of the stored values in the canonical form of whole rows.
fn read_companions(connection: &Connection, path: &Path, names: &[String]) -> Result<Companions> {
    let mut companions = Companions::new();
    for name in names {
        let table = match Table::find(connection, path, name, &[]) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            other => other?,
        };
        let failed = |error| crate::fault::explain(error, "read rows of", path);
        let broken = |error: serde_json::Error| {
            Error::new(ErrorKind::Internal, format!("table {name:?} does not read back as JSON"))
                .with_source(error)
        };
        let mut form = RowForm::new(&Columns::new(table.columns.iter().cloned()));
        let mut found = Vec::new();
        let order =
            table.rowid.as_deref().map(|rowid| format!(" ORDER BY {}", quote(rowid))).unwrap_or_default();
        let mut statement =
            connection.prepare(&format!("SELECT * FROM {}{order}", quote(&table.name))).map_err(failed)?;
        let width = statement.column_count();
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            if found.len() >= MAX_COMPANION_ROWS {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "{}: table {name:?} has more than {MAX_COMPANION_ROWS} rows; it is read whole beside the chain",
                        path.display()
                    ),
                ));
            }
            let mut values = Vec::with_capacity(width);
            for at in 0..width {
                values.push(value_of(row.get_ref(at).map_err(failed)?));
            }
            found.push(serde_json::from_slice(form.line(&Row::new(&values))).map_err(broken)?);
        }
        companions.insert(name.clone(), found);
    }
    Ok(companions)
}

impl RowSource for ChainTable {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn columns(&self) -> &Columns {
        &self.columns
    }

    fn reader(&self) -> ChainResult<Box<dyn ChunkReader + '_>> {
        match &self.rows {
            Rows::Ranges(ranges) => Ok(ranges.reader()),
            Rows::Ordered(ordered) => Ok(ordered.reader()),
        }
    }

    fn rewind(&self) -> ChainResult<bool> {
        match &self.rows {
            Rows::Ranges(ranges) => ranges.rewind(),
            Rows::Ordered(ordered) => ordered.rewind(),
        }
        Ok(true)
    }
}

/// Wraps a failure to read rows for the crate that verifies them.
pub(crate) fn row_error(input: &str, path: &Path, error: rusqlite::Error) -> audit_chain::error::Error {
    let error = crate::fault::explain(error, "read rows of", path);
    source_error(input, error)
}

/// Wraps this crate's failure for the crate that verifies rows.
pub(crate) fn source_error(input: &str, error: Error) -> audit_chain::error::Error {
    match error.kind() {
        ErrorKind::Cancelled => audit_chain::error::Error::Cancelled,
        kind => audit_chain::error::Error::Source { input: input.to_owned(), kind, source: Box::new(error) },
    }
}

/// Hands SQLite's value over as it is stored. Text that is not UTF-8 is bytes.
#[inline]
pub(crate) fn value_of(value: ValueRef<'_>) -> Value<'_> {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Int(value),
        ValueRef::Real(value) => Value::Real(value),
        ValueRef::Text(bytes) => text_of(bytes),
        ValueRef::Blob(bytes) => Value::Bytes(bytes),
    }
}

/// Takes bytes of a TEXT value for text where they are UTF-8.
#[inline]
pub(crate) fn text_of(bytes: &[u8]) -> Value<'_> {
    std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text)
}

/// Returns the empty buffer of one row as a buffer for the next, whose values live elsewhere; the allocation stays.
#[inline]
#[allow(clippy::unnecessary_filter_map)] // `filter` cannot change the lifetime in the type
pub(crate) fn recycle<'to>(values: Vec<Value<'_>>) -> Vec<Value<'to>> {
    values.into_iter().filter_map(|_| None).collect()
}

/// Keeps the path beside the SQL of one table, for its readers.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_buffer_is_empty_and_keeps_its_allocation() {
        let text = String::from("x");
        let mut values = Vec::with_capacity(32);
        values.push(Value::Text(&text));
        let place = values.as_ptr().cast::<u8>();
        let next: Vec<Value<'static>> = recycle(values);
        assert!(next.is_empty());
        assert_eq!((next.capacity(), next.as_ptr().cast::<u8>()), (32, place));
    }

    #[test]
    fn text_that_is_not_utf8_is_bytes() {
        assert_eq!(text_of(b"a\xffb"), Value::Bytes(b"a\xffb"));
        assert_eq!(text_of("größe\0".as_bytes()), Value::Text("größe\0"));
    }
}
