//! Reads a table by one connection in one transaction and shares its rows among several workers.
//!
//! A thread of its own owns the connection and the running statement and copies rows into batches; a worker that
//! asks for a chunk takes the next batch. For live databases, tables without row ids and orders of their own.
//! At most [`AHEAD`] batches wait, so memory does not grow with the table. Every pass runs in the same
//! transaction: what others commit meanwhile is not seen.

use std::fmt;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use audit_chain::error::{Error, Result};
use audit_chain::source::ChunkReader;
use audit_chain::value::{Row, Value};
use backup_core::context::Context;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, InterruptHandle};

use crate::table::{Place, recycle, row_error, text_of};

/// How many batches may wait for a worker.
const AHEAD: usize = 2;
/// A batch ends when it holds this many bytes of text and blobs, however few its rows.
const BATCH_BYTES: usize = 1 << 20;
/// How often a waiting worker looks at the caller's flag.
const TICK: Duration = Duration::from_millis(50);

type Delivery = Result<Batch>;

/// One value without its bytes, which lie in [`Batch::bytes`].
#[derive(Debug, Clone, Copy)]
enum Cell {
    Null,
    Int(i64),
    Real(f64),
    Text(usize, usize),
    Blob(usize, usize),
}

/// Rows, copied.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    cells: Vec<Cell>,
    width: usize,
}

impl Batch {
    fn keep(&mut self, bytes: &[u8]) -> (usize, usize) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        (start, self.bytes.len())
    }

    fn push(&mut self, value: ValueRef<'_>) {
        let cell = match value {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(value) => Cell::Int(value),
            ValueRef::Real(value) => Cell::Real(value),
            ValueRef::Text(bytes) => {
                let (start, end) = self.keep(bytes);
                Cell::Text(start, end)
            }
            ValueRef::Blob(bytes) => {
                let (start, end) = self.keep(bytes);
                Cell::Blob(start, end)
            }
        };
        self.cells.push(cell);
    }

    fn value(&self, cell: Cell) -> Value<'_> {
        let slice = |start, end| self.bytes.get(start..end).unwrap_or_default();
        match cell {
            Cell::Null => Value::Null,
            Cell::Int(value) => Value::Int(value),
            Cell::Real(value) => Value::Real(value),
            Cell::Text(start, end) => text_of(slice(start, end)),
            Cell::Blob(start, end) => Value::Bytes(slice(start, end)),
        }
    }
}

/// A table read by one connection.
pub(crate) struct Ordered {
    place: Place,
    pass: Mutex<Pass>,
    interrupt: InterruptHandle,
    thread: Option<JoinHandle<()>>,
    ctx: Context,
}

impl fmt::Debug for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ordered").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The pass that is under way.
struct Pass {
    /// Asks the thread for another pass; gone when the table is closed.
    asks: Option<Sender<SyncSender<Delivery>>>,
    batches: Option<Receiver<Delivery>>,
    next: u64,
}

impl Ordered {
    /// Takes the connection, with its transaction, into a thread of its own.
    pub(crate) fn new(
        connection: Connection,
        name: &str,
        path: &Path,
        sql: String,
        chunk_rows: u32,
        ctx: &Context,
    ) -> backup_core::error::Result<Self> {
        let place = Place { name: name.to_owned(), path: path.to_owned() };
        let interrupt = connection.get_interrupt_handle();
        let (asks, passes) = mpsc::channel();
        let read = {
            let place = place.clone();
            move || serve(&connection, &place, &sql, chunk_rows, &passes)
        };
        let thread = std::thread::Builder::new()
            .name("attestore-rows".into())
            .spawn(read)
            .map_err(|error| backup_core::error::Error::io("start a thread to read", &place.path, error))?;
        let pass = Mutex::new(Pass { asks: Some(asks), batches: None, next: 0 });
        Ok(Self { place, pass, interrupt, thread: Some(thread), ctx: ctx.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Pass> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reader(&self) -> Box<dyn ChunkReader + '_> {
        Box::new(BatchReader { table: self })
    }

    /// Starts another pass at the first row, in the same transaction.
    pub(crate) fn rewind(&self) {
        let mut pass = self.lock();
        pass.batches = None;
        pass.next = 0;
    }

    /// Takes the next batch with its number.
    fn take(&self) -> Result<Option<(u64, Batch)>> {
        let gone = || Error::Source {
            input: self.place.name.clone(),
            kind: audit_chain::error::ErrorKind::Internal,
            source: "the thread that reads the table has ended".into(),
        };
        let mut pass = self.lock();
        let pass = &mut *pass;
        let batches = match &mut pass.batches {
            Some(batches) => batches,
            none => {
                let (deliver, batches) = mpsc::sync_channel(AHEAD);
                pass.asks.as_ref().ok_or_else(gone)?.send(deliver).map_err(|_| gone())?;
                none.insert(batches)
            }
        };
        loop {
            if self.ctx.cancel().is_cancelled() {
                return Err(Error::Cancelled);
            }
            match batches.recv_timeout(TICK) {
                Ok(batch) => {
                    let number = pass.next;
                    pass.next += 1;
                    return Ok(Some((number, batch?)));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }
}

impl Drop for Ordered {
    fn drop(&mut self) {
        {
            let mut pass = self.lock();
            pass.batches = None;
            pass.asks = None;
        }
        // A sort that has not given its first row notices the closed channel only through this.
        self.interrupt.interrupt();
        if let Some(thread) = self.thread.take() {
            // The connection, its transaction and its files are gone when this returns.
            let _ = thread.join();
        }
    }
}

/// Serves passes until nobody asks any more.
fn serve(
    connection: &Connection,
    place: &Place,
    sql: &str,
    chunk_rows: u32,
    passes: &Receiver<SyncSender<Delivery>>,
) {
    while let Ok(deliver) = passes.recv() {
        if let Err(error) = read_all(connection, sql, chunk_rows, &deliver) {
            // Where nobody listens any more, nobody needs to know.
            let _ = deliver.send(Err(row_error(&place.name, &place.path, error)));
        }
    }
}

/// Reads the table once; stops early when nobody takes the batches.
fn read_all(
    connection: &Connection,
    sql: &str,
    chunk_rows: u32,
    deliver: &SyncSender<Delivery>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let width = statement.column_count();
    let full = width.saturating_mul(usize::try_from(chunk_rows).unwrap_or(usize::MAX));
    let empty = || Batch { width, ..Batch::default() };
    let mut batch = empty();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for at in 0..width {
            batch.push(row.get_ref(at)?);
        }
        if batch.cells.len() >= full || batch.bytes.len() >= BATCH_BYTES {
            let next = Batch {
                bytes: Vec::with_capacity(batch.bytes.len()),
                cells: Vec::with_capacity(batch.cells.len()),
                width,
            };
            if deliver.send(Ok(std::mem::replace(&mut batch, next))).is_err() {
                return Ok(());
            }
        }
    }
    if !batch.cells.is_empty() {
        // Nobody listening is no failure of the source.
        let _ = deliver.send(Ok(batch));
    }
    Ok(())
}

/// One worker.
struct BatchReader<'a> {
    table: &'a Ordered,
}

impl ChunkReader for BatchReader<'_> {
    fn read_chunk(&mut self, each: &mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<Option<u64>> {
        let Some((number, batch)) = self.table.take()? else { return Ok(None) };
        let mut spare: Vec<Value<'static>> = Vec::with_capacity(batch.width);
        for cells in batch.cells.chunks_exact(batch.width.max(1)) {
            let mut values = recycle(spare);
            values.extend(cells.iter().map(|cell| batch.value(*cell)));
            each(&Row::new(&values))?;
            spare = recycle(values);
        }
        Ok(Some(number))
    }
}
