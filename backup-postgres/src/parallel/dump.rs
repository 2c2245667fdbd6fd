//! Runs a parallel dump: locks, the schema beside the data, chains first, then the rest from one queue.
//!
//! Called by the source's snapshot. When anything fails, the others stop at their next row and the caller throws
//! the whole backup away.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use audit_chain::report::ChainReport;
use backup_core::context::{Context, Progress};
use backup_core::error::Error as CoreError;
use backup_core::traits::Sinks;

use super::catalog::{self, Catalog, Sequence, Table};
use super::chain::{self, Streamed};
use super::lane::{Done, FILE_BYTES, Lane, Store};
use super::large_objects::{self, Queue};
use super::lock;
use super::pieces::{Cut, Pages};
use super::script;
use super::toc::{FORMAT, FORMAT_VERSION, TableEntry, Toc};
use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::session::SnapshotSession;
use crate::tools::{Running, Tool};

/// How much of a table's heap one connection reads at a time, in bytes.
const PIECE_BYTES: u64 = 32 << 20;
/// The most connections.
pub const MAX_JOBS: usize = 64;
/// How much of `pg_dump`'s output is read at once, in bytes.
const BUFFER: usize = 256 << 10;
/// How many sequences one query reads.
const SEQUENCES: usize = 64;

/// What to dump, and how.
pub struct DumpRequest<'a> {
    /// The snapshot.
    pub session: &'a mut SnapshotSession,
    /// The program that writes the schema.
    pub pg_dump: &'a Tool,
    /// The name in the backup: objects are stored under `database/<name>/`.
    pub name: &'a str,
    /// Further options of `pg_dump`.
    pub pg_dump_options: &'a [String],
    /// The chains to verify from the rows that are stored, where that can be.
    pub(crate) chains: &'a [Streamed<'a>],
    /// How the work is divided.
    pub options: ParallelOptions,
}

/// How a parallel dump is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParallelOptions {
    /// How many connections read, up to [`MAX_JOBS`]; 1 is one `pg_dump` and no parallel dump at all.
    pub jobs: usize,
    /// After how many bytes a data file is ended.
    pub file_bytes: u64,
    /// How much of a table's heap a connection reads at a time, in bytes; of a chain's an eighth of it.
    pub piece_bytes: u64,
}

impl Default for ParallelOptions {
    fn default() -> Self {
        Self { jobs: 1, file_bytes: FILE_BYTES, piece_bytes: PIECE_BYTES }
    }
}

impl<'a> DumpRequest<'a> {
    /// Asks for a dump that verifies no chain.
    #[must_use]
    pub const fn new(
        session: &'a mut SnapshotSession,
        pg_dump: &'a Tool,
        name: &'a str,
        options: ParallelOptions,
    ) -> Self {
        Self { session, pg_dump, name, pg_dump_options: &[], chains: &[], options }
    }
}

impl std::fmt::Debug for DumpRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DumpRequest")
            .field("name", &self.name)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What was dumped.
#[derive(Debug)]
pub struct Dumped {
    /// Rows per table, by its OID.
    pub rows: BTreeMap<u32, u64>,
    /// The reports of the chains asked for, in their order; `None` where the table had to be left to another reading.
    pub chains: Vec<Option<ChainReport>>,
    /// How many tables were read a second time because their rows lie in another order than their chain.
    pub second_reads: usize,
    /// What is not in the dump, one sentence each.
    pub not_included: Vec<String>,
    /// The table of contents, as stored.
    pub toc: Toc,
}

/// Dumps a database into `sinks`.
///
/// # Errors
/// `Permission` when the role may not read something, before a byte is written; `Locked` when a table's lock is held by another
/// session; whatever the server, `pg_dump` or a sink says; `Cancelled`.
pub fn dump(request: &mut DumpRequest<'_>, sinks: &dyn Sinks, ctx: &Context) -> Result<Dumped> {
    let standby = request.session.is_standby();
    let timeout = request.session.joiner().options().lock_timeout;
    let mut catalog = catalog::read(request.session.connection(), standby, ctx)?;
    lock::lock(request.session.connection(), &catalog.tables, timeout, ctx)?;
    catalog::measure(request.session.connection(), &mut catalog, ctx)?;
    let jobs = request.options.jobs.clamp(1, MAX_JOBS);
    let folder = format!("database/{}/", request.name);
    let store = Store::new(sinks, &folder, &catalog.encoding, request.options.file_bytes);
    // A failure anywhere ends the others: they see this flag where they would see the caller's.
    let stop = Stop { store: &store, first: Mutex::new(None) };
    let joiner = request.session.joiner().clone();
    let id = request.session.id().to_owned();
    let (chains, piece_bytes) = (request.chains, request.options.piece_bytes.max(1));
    let result = std::thread::scope(|scope| {
        let (request, stop) = (&*request, &stop);
        let schema = {
            let command = schema_command(request, &id, timeout);
            let folder = folder.as_str();
            scope.spawn(move || stop.end(schema(command, folder, sinks, ctx)))
        };
        let data = stop.end((|| {
            let mut lanes = Vec::with_capacity(jobs);
            for _ in 0..jobs {
                lanes.push(Lane::new(joiner.join(ctx)?, &store, ctx)?);
            }
            let work = Work { catalog: &catalog, store: &store, piece_bytes, stop, ctx };
            work.run(lanes, chains, &folder, sinks)
        })());
        let schema = schema.join().unwrap_or_else(|_| Err(panicked()));
        schema.and(data)
    });
    let (reports, second_reads, objects) = result.map_err(|error| stop.cause(error))?;
    let sequences = sequences(request.session.connection(), &catalog.sequences, &folder, sinks, ctx)?;
    let definitions = large_objects::definitions(request.session.connection(), ctx)?;
    write(sinks, &format!("{folder}large-objects.sql"), definitions.as_bytes())?;
    let done = store.finish();
    let rows = rows(&catalog, &done);
    let toc = toc(request, &catalog, done, sequences, &objects);
    write(sinks, &format!("{folder}toc.json"), &toc.to_json()?)?;
    write(sinks, &format!("{folder}restore.sh"), script::RESTORE.as_bytes())?;
    Ok(Dumped { rows, chains: reports, second_reads, not_included: catalog.not_included, toc })
}

fn panicked() -> Error {
    Error::new(ErrorKind::Internal, "a thread of the dump panicked")
}

/// Ends all parts of a dump when one fails, and keeps the first failure.
struct Stop<'a, 's> {
    store: &'a Store<'s>,
    first: Mutex<Option<Error>>,
}

impl Stop<'_, '_> {
    /// Takes the outcome of a part.
    fn end<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            self.store.stop();
            self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            Error::Core(CoreError::Cancelled)
        })
    }

    /// Returns the first failure.
    fn cause(&self, error: Error) -> Error {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(error)
    }
}

/// The reading of rows and large objects.
struct Work<'a, 's> {
    catalog: &'a Catalog,
    store: &'a Store<'s>,
    piece_bytes: u64,
    stop: &'a Stop<'a, 's>,
    ctx: &'a Context,
}

type Data = (Vec<Option<ChainReport>>, usize, large_objects::Read);

impl<'s> Work<'_, 's> {
    fn cut(&self, table: &Table, piece_bytes: u64) -> Cut {
        table.cut(self.catalog.server, self.catalog.page_bytes, piece_bytes)
    }

    fn run(
        &self,
        lanes: Vec<Lane<'s>>,
        chains: &[Streamed<'_>],
        folder: &str,
        sinks: &dyn Sinks,
    ) -> Result<Data> {
        let piece_bytes = self.piece_bytes;
        let ctx = self.ctx;
        let mut pool = lanes;
        let mut reports = Vec::with_capacity(chains.len());
        let mut second_reads = 0;
        let mut read = vec![false; self.catalog.tables.len()];
        for chain in chains {
            let at = chain::find(&self.catalog.tables, chain);
            let at = at.filter(|at| read.get_mut(*at).is_some_and(|read| !std::mem::replace(read, true)));
            let Some((at, table)) = at.and_then(|at| Some((at, self.catalog.tables.get(at)?))) else {
                reports.push(None);
                continue;
            };
            let cut = self.cut(table, (piece_bytes / 8).max(1));
            let (report, lanes, again) =
                chain::verify(pool, self.store, &self.catalog.tables, at, cut, chain, sinks.scratch(), ctx)?;
            pool = lanes;
            second_reads += usize::from(again);
            reports.push(report);
        }
        // The largest first, so that no connection is left with one at the end.
        let mut order: Vec<usize> =
            (0..self.catalog.tables.len()).filter(|at| read.get(*at) == Some(&false)).collect();
        order
            .sort_by_key(|at| std::cmp::Reverse(self.catalog.tables.get(*at).map_or(0, |table| table.bytes)));
        let jobs: Vec<(usize, Pages)> = order
            .iter()
            .filter_map(|at| Some((*at, self.cut(self.catalog.tables.get(*at)?, piece_bytes))))
            .flat_map(|(at, cut)| (0..cut.count()).map(move |piece| (at, cut.get(piece))))
            .collect();
        let (next, objects) = (AtomicUsize::new(0), Queue::new(&self.catalog.large_objects));
        let total = Mutex::new(large_objects::Read::default());
        std::thread::scope(|scope| {
            let mut threads = Vec::with_capacity(pool.len());
            for mut lane in pool {
                let (jobs, next, objects, total) = (&jobs, &next, &objects, &total);
                threads.push(scope.spawn(move || {
                    self.stop.end((|| {
                        while let Some((at, pages)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                            if self.store.is_over() {
                                return Err(CoreError::Cancelled.into());
                            }
                            let Some(table) = self.catalog.tables.get(*at) else { continue };
                            lane.piece(Some(self.store), *at, table, *pages, &mut |_| Ok(()), ctx)??;
                        }
                        let read = large_objects::store(lane.connection(), objects, folder, sinks, ctx)?;
                        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                        total.bytes += read.bytes;
                        total.sum.merge(&read.sum);
                        lane.finish(self.store)
                    })())
                }));
            }
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(panicked())))
                .collect::<Result<Vec<()>>>()
        })?;
        let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((reports, second_reads, total))
    }
}

/// Makes the command that writes the schema.
fn schema_command(request: &DumpRequest<'_>, id: &str, timeout: Duration) -> std::process::Command {
    let mut command = request.pg_dump.command(request.session.first());
    command
        .args([
            "--format=custom",
            "--compress=0",
            "--section=pre-data",
            "--section=post-data",
            "--no-password",
            "-B",
        ])
        .arg(format!("--snapshot={id}"))
        .arg(format!("--lock-wait-timeout={}", timeout.as_millis()))
        .args(request.pg_dump_options)
        .stdout(Stdio::piped());
    command
}

/// Streams the schema into its object; it counts only when the program ended well.
fn schema(command: std::process::Command, folder: &str, sinks: &dyn Sinks, ctx: &Context) -> Result<()> {
    let object = format!("{folder}schema.dump");
    let mut running = Running::start("pg_dump", command, ctx)?;
    let mut output = running
        .output()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "pg_dump was started without a pipe"))?;
    let mut sink = sinks.object(&object, Some(0))?;
    let mut buffer = vec![0; BUFFER];
    let mut done = 0;
    loop {
        let read = output.read(&mut buffer).map_err(|error| CoreError::io("read", "pg_dump", error))?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        sink.write_all(part).map_err(|error| CoreError::io("store", &object, error))?;
        done += part.len() as u64;
        ctx.progress(Progress { stage: "snapshot", object: &object, done, total: None, unit: "bytes" });
    }
    running.finish()?;
    Ok(sink.finish()?)
}

/// Stores what the sequences stand at; returns how many.
fn sequences(
    connection: &mut Connection,
    sequences: &[Sequence],
    folder: &str,
    sinks: &dyn Sinks,
    ctx: &Context,
) -> Result<u64> {
    let mut text = script::prologue("UTF8");
    for batch in sequences.chunks(SEQUENCES) {
        let selects = batch.iter().enumerate().map(|(at, sequence)| {
            format!("SELECT {at}::int8, last_value::int8, is_called FROM {}", sequence.quoted)
        });
        let sql = selects.collect::<Vec<_>>().join(" UNION ALL ");
        let names = batch.first().map_or("", |sequence| sequence.full_name.as_str());
        let rows = connection
            .run(&format!("read the sequences from {names} on of"), ctx, |client| client.query(&sql, &[]))?;
        for row in rows {
            let at = usize::try_from(row.get::<_, i64>(0)).unwrap_or(usize::MAX);
            if let Some(sequence) = batch.get(at) {
                text.push_str(&script::set_sequence(sequence, row.get(1), row.get(2)));
            }
        }
    }
    write(sinks, &format!("{folder}sequences.sql"), text.as_bytes())?;
    Ok(sequences.len() as u64)
}

fn write(sinks: &dyn Sinks, object: &str, bytes: &[u8]) -> Result<()> {
    let mut sink = sinks.object(object, Some(bytes.len() as u64))?;
    sink.write_all(bytes).map_err(|error| CoreError::io("store", object, error))?;
    Ok(sink.finish()?)
}

fn rows(catalog: &Catalog, done: &Done) -> BTreeMap<u32, u64> {
    let count = |at: usize| done.sums.get(&at).map_or(0, super::digest::RowSum::rows);
    catalog.tables.iter().enumerate().map(|(at, table)| (table.oid, count(at))).collect()
}

fn toc(
    request: &DumpRequest<'_>,
    catalog: &Catalog,
    done: Done,
    sequences: u64,
    objects: &large_objects::Read,
) -> Toc {
    let mut sums = BTreeMap::new();
    for (at, table) in catalog.tables.iter().enumerate() {
        let (sum, _) = sums.entry(table.target.clone()).or_insert((super::digest::RowSum::default(), table));
        sum.merge(&done.sums.get(&at).copied().unwrap_or_default());
    }
    let tables = sums.into_iter().map(|(name, (sum, table))| {
        let entry = TableEntry {
            rows: sum.rows(),
            sum: sum.to_string(),
            select: script::select(table),
            copy: script::copy_in(table),
        };
        (name, entry)
    });
    Toc {
        format: FORMAT.into(),
        format_version: FORMAT_VERSION,
        database: request.session.joiner().database().to_owned(),
        server: catalog.server,
        encoding: catalog.encoding.clone(),
        sequences,
        large_objects: catalog.large_objects.len() as u64,
        large_object_bytes: objects.bytes,
        large_object_sum: objects.sum.to_string(),
        data: done.files,
        tables: tables.collect(),
    }
}
