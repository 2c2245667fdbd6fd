//! Reads a table by ranges of row ids, several connections at once: of a private copy, or of one snapshot of a live
//! database ([`crate::together`]).
//!
//! Under one lock a worker finds where its chunk ends by stepping through the b-tree (`… ORDER BY rowid LIMIT 1
//! OFFSET n`), so chunks have the same number of rows however the ids are spread, and none is empty (but the only
//! one of an empty table). It then reads the chunk without the lock, from pages that its own cache now holds. Connections are
//! lent chunk by chunk, so any number of workers may share them and every pass reads the same snapshot.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use audit_chain::error::Result;
use audit_chain::source::ChunkReader;
use audit_chain::value::{Row, Value};
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension as _};
use std::path::Path;

use crate::open::open_immutable;
use crate::schema::quote;
use crate::table::{Place, recycle, row_error, source_error, value_of};

/// The shared state of a table's readers.
#[derive(Debug)]
pub(crate) struct Ranges {
    place: Place,
    pool: Pool,
    /// Finds the first row id after `?2` rows from `?1` on.
    boundary: String,
    /// Reads from `?1` up to, not including, `?2`.
    bounded: String,
    /// Reads from `?1` on.
    open_ended: String,
    chunk_rows: u32,
    next: Mutex<Next>,
}

/// What is claimed next.
#[derive(Debug, Clone, Copy)]
struct Next {
    from: i64,
    number: u64,
    done: bool,
}

/// The connections that no reader has.
#[derive(Debug)]
struct Pool {
    idle: Mutex<Vec<Connection>>,
    returned: Condvar,
    /// Whether another connection can be opened: of a copy, not of a snapshot.
    grows: bool,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const FIRST: Next = Next { from: i64::MIN, number: 0, done: false };

/// One chunk: its number, its first row id, the first row id after it.
#[derive(Debug, Clone, Copy)]
struct Claim {
    number: u64,
    from: i64,
    to: Option<i64>,
}

impl Ranges {
    /// Prepares the statements for a private copy; connections are opened as readers ask for them.
    pub(crate) fn of_copy(name: &str, path: &Path, table: &str, rowid: &str, chunk_rows: u32) -> Self {
        Self::new(name, path, table, rowid, chunk_rows, Vec::new())
    }

    /// Prepares the statements for connections, one at least, that have the same snapshot; they are used as they are.
    pub(crate) fn of_snapshot(
        name: &str,
        path: &Path,
        table: &str,
        rowid: &str,
        chunk_rows: u32,
        connections: Vec<Connection>,
    ) -> Self {
        Self::new(name, path, table, rowid, chunk_rows, connections)
    }

    fn new(
        name: &str,
        path: &Path,
        table: &str,
        rowid: &str,
        chunk_rows: u32,
        connections: Vec<Connection>,
    ) -> Self {
        let (table, rowid) = (quote(table), quote(rowid));
        Self {
            place: Place { name: name.to_owned(), path: path.to_owned() },
            pool: Pool {
                grows: connections.is_empty(),
                idle: Mutex::new(connections),
                returned: Condvar::new(),
            },
            boundary: format!(
                "SELECT {rowid} FROM {table} WHERE {rowid} >= ?1 ORDER BY {rowid} LIMIT 1 OFFSET ?2"
            ),
            bounded: format!("SELECT * FROM {table} WHERE {rowid} >= ?1 AND {rowid} < ?2 ORDER BY {rowid}"),
            open_ended: format!("SELECT * FROM {table} WHERE {rowid} >= ?1 ORDER BY {rowid}"),
            chunk_rows,
            next: Mutex::new(FIRST),
        }
    }

    /// Makes one worker's reader.
    pub(crate) fn reader(&self) -> Box<dyn ChunkReader + '_> {
        Box::new(RangeReader { ranges: self })
    }

    /// Lends a connection for one chunk.
    fn lend(&self) -> Result<Lent<'_>> {
        let mut idle = self.pool.lock();
        loop {
            if let Some(connection) = idle.pop() {
                return Ok(Lent { pool: &self.pool, connection: Some(connection) });
            }
            if self.pool.grows {
                drop(idle);
                let connection = open_immutable(&self.place.path)
                    .map_err(|error| source_error(&self.place.name, error))?;
                return Ok(Lent { pool: &self.pool, connection: Some(connection) });
            }
            idle = self.pool.returned.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Starts again at the first row.
    pub(crate) fn rewind(&self) {
        *self.lock() = FIRST;
    }

    fn lock(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self, connection: &Connection) -> rusqlite::Result<Option<Claim>> {
        let mut next = self.lock();
        if next.done {
            return Ok(None);
        }
        let to: Option<i64> = connection
            .query_row(&self.boundary, (next.from, self.chunk_rows), |row| row.get(0))
            .optional()?;
        let claim = Claim { number: next.number, from: next.from, to };
        next.number += 1;
        match to {
            Some(to) => next.from = to,
            None => next.done = true,
        }
        Ok(Some(claim))
    }
}

/// A connection that is given back when this goes.
struct Lent<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.pool.lock().extend(self.connection.take());
        self.pool.returned.notify_one();
    }
}

/// One worker.
struct RangeReader<'a> {
    ranges: &'a Ranges,
}

impl ChunkReader for RangeReader<'_> {
    fn read_chunk(&mut self, each: &mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<Option<u64>> {
        let Place { name, path } = &self.ranges.place;
        let failed = |error| row_error(name, path, error);
        let lent = self.ranges.lend()?;
        // It is there until the loan ends.
        let Some(connection) = &lent.connection else { return Ok(None) };
        let Some(claim) = self.ranges.claim(connection).map_err(failed)? else { return Ok(None) };
        let (sql, bounds): (&str, &[&dyn ToSql]) = match &claim.to {
            Some(to) => (&self.ranges.bounded, &[&claim.from, to]),
            None => (&self.ranges.open_ended, &[&claim.from]),
        };
        let mut statement = connection.prepare(sql).map_err(failed)?;
        let width = statement.column_count();
        let mut rows = statement.query(bounds).map_err(failed)?;
        let mut spare: Vec<Value<'static>> = Vec::with_capacity(width);
        while let Some(row) = rows.next().map_err(failed)? {
            let mut values = recycle(spare);
            for at in 0..width {
                values.push(value_of(row.get_ref(at).map_err(failed)?));
            }
            each(&Row::new(&values))?;
            spare = recycle(values);
        }
        Ok(Some(claim.number))
    }
}
