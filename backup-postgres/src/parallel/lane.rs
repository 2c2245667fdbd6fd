//! One of the N ways from the server into the backup: a connection in the snapshot and the data file that it fills.
//!
//! [`Lane::piece`] reads a range of a table with COPY and passes every row on as it comes: into the file (hash, zstd, age are
//! the sink's), into the table's digest, and to whoever verifies the chain. Nothing is held but the row at hand.
//!
//! Wire: the server sends one CopyData message per row, ended by a line feed (PostgreSQL manual §55.2.6).
//! File: `COPY t (…) FROM stdin;` rows `\.`, as `pg_dump` writes them; pieces of one table that follow each other share a block.
//!
//! When the process dies, the files are in the repository's staging, which is thrown away.

use std::collections::HashMap;
use std::io::{BufRead as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use backup_core::context::{Context, Progress};
use backup_core::error::Error as CoreError;
use backup_core::traits::{ObjectSink, Sinks};

use super::catalog::Table;
use super::digest::RowSum;
use super::pieces::Pages;
use super::script;
use super::toc::{Block, DataFile};
use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};

/// After how many bytes a data file is ended and the next begun.
pub(crate) const FILE_BYTES: u64 = 256 << 20;
/// After how many rows the caller's flag is looked at.
const CHECK_ROWS: u64 = 512;
/// After how many bytes progress is told.
const PROGRESS_BYTES: u64 = 4 << 20;

/// What all lanes share.
pub(crate) struct Store<'a> {
    sinks: &'a dyn Sinks,
    /// `database/<name>/`.
    folder: &'a str,
    /// The database's encoding.
    encoding: &'a str,
    file_bytes: u64,
    /// Set when some part of the dump has failed: the others need not go on.
    over: AtomicBool,
    next: AtomicU32,
    done_bytes: AtomicU64,
    done: Mutex<Done>,
}

/// What the lanes have stored.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) files: Vec<DataFile>,
    /// By the table's place in the catalog.
    pub(crate) sums: HashMap<usize, RowSum>,
}

impl<'a> Store<'a> {
    pub(crate) fn new(sinks: &'a dyn Sinks, folder: &'a str, encoding: &'a str, file_bytes: u64) -> Self {
        Self {
            sinks,
            folder,
            encoding,
            file_bytes,
            over: AtomicBool::new(false),
            next: AtomicU32::new(1),
            done_bytes: AtomicU64::new(0),
            done: Mutex::default(),
        }
    }

    /// Tells the lanes that the dump has failed.
    pub(crate) fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Reports whether the dump has failed.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what was stored, after all lanes have finished; files in the order of their names.
    pub(crate) fn finish(self) -> Done {
        let mut done = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.files.sort_by(|one, other| one.name.cmp(&other.name));
        done
    }
}

/// A data file that is being filled.
struct OpenFile<'a> {
    sink: Box<dyn ObjectSink + 'a>,
    object: String,
    entry: DataFile,
    at: u64,
    /// The table whose block is open, and its block.
    open: Option<(usize, Block)>,
}

impl OpenFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.write_all(bytes).map_err(|error| CoreError::io("store", &self.object, error))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Ends the open block.
    fn close_block(&mut self) -> Result<()> {
        if let Some((_, block)) = self.open.take() {
            self.write(script::END_OF_ROWS)?;
            self.entry.blocks.push(block);
        }
        Ok(())
    }

    /// Makes sure that the open block is the table's.
    fn block_of(&mut self, at: usize, table: &Table) -> Result<()> {
        if self.open.as_ref().is_some_and(|(of, _)| *of == at) {
            return Ok(());
        }
        self.close_block()?;
        self.write(script::copy_in(table).as_bytes())?;
        self.write(b";\n")?;
        let block = Block { table: table.target.clone(), offset: self.at, bytes: 0, rows: 0 };
        self.open = Some((at, block));
        Ok(())
    }
}

/// One way.
pub(crate) struct Lane<'a> {
    connection: Connection,
    file: Option<OpenFile<'a>>,
    sums: HashMap<usize, RowSum>,
}

/// Takes each row's COPY text with its line end.
pub(crate) type RowFn<'f> = dyn FnMut(&[u8]) -> Result<()> + 'f;

impl<'a> Lane<'a> {
    pub(crate) fn new(mut connection: Connection, store: &Store<'a>, ctx: &Context) -> Result<Self> {
        // Plans that would not keep to the range, or give its rows to several processes, are not wanted.
        let mut settings = String::from(
            "SET search_path = ''; SET max_parallel_workers_per_gather = 0; SET jit = off; SET enable_tidscan = on; SET enable_seqscan = on",
        );
        if store.encoding == script::SQL_ASCII {
            settings.push_str("; SET client_encoding = 'SQL_ASCII'");
        }
        connection.run("set up a session in", ctx, |client| client.batch_execute(&settings))?;
        Ok(Self { connection, file: None, sums: HashMap::new() })
    }

    /// Returns the connection, between pieces.
    pub(crate) const fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Reads one piece of a table and stores it where a store is given.
    ///
    /// When `each` fails, the piece is stored to its end all the same, and that failure is returned as the inner result.
    ///
    /// # Errors
    /// What the server says, with the table's name; what the sink says; `Cancelled`.
    pub(crate) fn piece(
        &mut self,
        store: Option<&Store<'a>>,
        at: usize,
        table: &Table,
        pages: Pages,
        each: &mut RowFn<'_>,
        ctx: &Context,
    ) -> Result<Result<()>> {
        ctx.check()?;
        if let Some(store) = store {
            self.roll(store)?;
            if self.file.is_none() {
                self.file = Some(begin(store)?);
            }
            if let Some(file) = &mut self.file {
                file.block_of(at, table)?;
            }
        }
        let sum = self.sums.entry(at).or_default();
        let mut file = if store.is_some() { self.file.as_mut() } else { None };
        let sql = script::copy_out(table, pages);
        let step = format!("read table {} of", table.full_name());
        let mut failed: Option<Error> = None;
        let mut verified = Ok(());
        self.connection.run(&step, ctx, |client| {
            let mut reader = client.copy_out(&sql)?;
            let mut rows = 0_u64;
            let mut told = 0_u64;
            loop {
                let message = match reader.fill_buf() {
                    Ok(message) => message,
                    Err(error) => match error.downcast::<postgres::Error>() {
                        Ok(error) => return Err(error),
                        Err(error) => {
                            failed = Some(CoreError::io("read", &step, error).into());
                            return Ok(());
                        }
                    },
                };
                if message.is_empty() {
                    break;
                }
                let result = match message.split_last() {
                    Some((b'\n', row)) => {
                        if verified.is_ok() {
                            verified = each(message);
                        }
                        if store.is_some() {
                            sum.add(row);
                        }
                        file.as_mut().map_or(Ok(()), |file| file.row(message))
                    }
                    _ => Err(Error::new(
                        ErrorKind::Malformed,
                        format!("table {}: the server sent a row without its end", table.full_name()),
                    )),
                };
                if let Err(error) = result {
                    failed = Some(error);
                    return Ok(());
                }
                let length = message.len();
                reader.consume(length);
                rows += 1;
                told += length as u64;
                if rows.is_multiple_of(CHECK_ROWS) {
                    if ctx.cancel().is_cancelled() || store.is_some_and(Store::is_over) {
                        failed = Some(CoreError::Cancelled.into());
                        return Ok(());
                    }
                    if told > PROGRESS_BYTES {
                        tell(store, table, &mut told, ctx);
                    }
                }
            }
            tell(store, table, &mut told, ctx);
            Ok(())
        })?;
        failed.map_or(Ok(verified), Err)
    }

    /// Ends a data file that is long enough.
    fn roll(&mut self, store: &Store<'a>) -> Result<()> {
        if self.file.as_ref().is_some_and(|file| file.at >= store.file_bytes) {
            self.end_file(store)?;
        }
        Ok(())
    }

    fn end_file(&mut self, store: &Store<'a>) -> Result<()> {
        if let Some(mut file) = self.file.take() {
            file.close_block()?;
            file.sink.finish()?;
            store.done().files.push(file.entry);
        }
        Ok(())
    }

    /// Ends the lane's file and hands in what it has read.
    ///
    /// # Errors
    /// What the sink says.
    pub(crate) fn finish(mut self, store: &Store<'a>) -> Result<()> {
        self.end_file(store)?;
        let mut done = store.done();
        for (at, sum) in self.sums {
            done.sums.entry(at).or_default().merge(&sum);
        }
        Ok(())
    }
}

impl OpenFile<'_> {
    fn row(&mut self, line: &[u8]) -> Result<()> {
        self.write(line)?;
        if let Some((_, block)) = &mut self.open {
            block.bytes += line.len() as u64;
            block.rows += 1;
        }
        Ok(())
    }
}

/// Begins the next data file.
fn begin<'a>(store: &Store<'a>) -> Result<OpenFile<'a>> {
    let number = store.next.fetch_add(1, Ordering::Relaxed);
    let name = format!("data/{number:05}.sql");
    let object = format!("{}{name}", store.folder);
    // A hint of nothing: one lane per core compresses, so threads of the compressor's own would only take turns.
    let sink = store.sinks.object(&object, Some(0))?;
    let mut file = OpenFile { sink, object, entry: DataFile { name, blocks: Vec::new() }, at: 0, open: None };
    file.write(script::prologue(store.encoding).as_bytes())?;
    Ok(file)
}

/// Tells how much was read in all.
fn tell(store: Option<&Store<'_>>, table: &Table, told: &mut u64, ctx: &Context) {
    let Some(store) = store else { return };
    let done = store.done_bytes.fetch_add(*told, Ordering::Relaxed) + *told;
    *told = 0;
    ctx.progress(Progress { stage: "snapshot", object: &table.name, done, total: None, unit: "bytes" });
}
