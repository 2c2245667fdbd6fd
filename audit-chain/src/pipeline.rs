//! Reads a source on all cores and hands its records over in order, in constant memory.
//!
//! Each worker thread owns a reader and a rule: rows are hashed where they are read. A chunk's records
//! travel as one [`Batch`] of fixed-size entries (or whatever another [`Reading`] makes of them); the calling thread
//! takes the batches in the order of their numbers. A worker that is more than [`WINDOW`] chunks ahead waits, so memory does not grow with the chain.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::format::{ChainFormat, Fault, Link, OrderKey, Record, RecordRule, Remark, Seal, Setup};
use crate::formats;
use crate::merkle::Hash;
use crate::source::RowSource;
use crate::value::Row;

/// How many chunks a worker may be ahead of the one that is waited for.
const WINDOW: u64 = 8;

/// One record without its row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Index into [`Batch::chains`].
    pub(crate) chain: u32,
    /// Where the id starts in [`Batch::ids`].
    id_start: u32,
    /// Where the id ends.
    id_end: u32,
    pub(crate) seal: Seal,
    pub(crate) number: Option<i64>,
    pub(crate) time: Option<i64>,
    pub(crate) order: Option<OrderKey>,
    pub(crate) prev: Link,
    pub(crate) link: Link,
    pub(crate) leaf: Hash,
}

/// The records of one chunk.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Which worker made it: key indices in seals are that worker's.
    pub(crate) worker: usize,
    /// The chains in it, by their order of appearance.
    pub(crate) chains: Vec<String>,
    pub(crate) entries: Vec<Entry>,
    /// What is wrong with single records: index into `entries`, fault.
    pub(crate) faults: Vec<(u32, Fault)>,
    /// The second value that a successor may name: index into `entries`, value.
    pub(crate) also: Vec<(u32, Link)>,
    /// Index into `entries`, and where its bytes in the chain's own digest start and end in `snapshots`.
    snapshot_spans: Vec<(u32, u32, u32)>,
    snapshots: Vec<u8>,
    /// What the rule marked: index into `entries`, text.
    pub(crate) marks: Vec<(u32, Box<str>)>,
    /// What is worth saying of single records: index into `entries` in `record`.
    pub(crate) remarks: Vec<Remark>,
    /// Names of the keys that this worker has met since its last batch.
    pub(crate) new_labels: Vec<String>,
    ids: String,
    known: HashMap<String, u32>,
    last_chain: u32,
}

impl Batch {
    /// Appends a record.
    pub(crate) fn push(&mut self, record: Record<'_>) -> Result<()> {
        let chain = match self.chains.get(self.last_chain as usize) {
            Some(name) if name == record.chain => self.last_chain,
            _ => self.intern(record.chain)?,
        };
        self.last_chain = chain;
        let id_start = index(self.ids.len())?;
        self.ids.push_str(record.id);
        let at = index(self.entries.len())?;
        self.faults.extend(record.faults.into_iter().map(|fault| (at, fault)));
        self.also.extend(record.also.map(|link| (at, link)));
        self.marks.extend(record.mark.map(|mark| (at, mark)));
        if !record.snapshot.is_empty() {
            let start = index(self.snapshots.len())?;
            self.snapshots.extend_from_slice(record.snapshot);
            self.snapshot_spans.push((at, start, index(self.snapshots.len())?));
        }
        self.entries.push(Entry {
            chain,
            id_start,
            id_end: index(self.ids.len())?,
            seal: record.seal,
            number: record.number,
            time: record.time,
            order: record.order,
            prev: record.prev,
            link: record.link,
            leaf: record.leaf,
        });
        Ok(())
    }

    fn intern(&mut self, chain: &str) -> Result<u32> {
        if let Some(at) = self.known.get(chain) {
            return Ok(*at);
        }
        let at = index(self.chains.len())?;
        self.chains.push(chain.to_owned());
        self.known.insert(chain.to_owned(), at);
        Ok(at)
    }

    /// Returns the bytes for the chains' own digests, in order: index into `entries`, bytes.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.snapshot_spans.iter().map(|(at, start, end)| {
            (*at, self.snapshots.get(*start as usize..*end as usize).unwrap_or_default())
        })
    }

    /// Returns the id of an entry.
    pub(crate) fn id(&self, entry: &Entry) -> &str {
        self.ids.get(entry.id_start as usize..entry.id_end as usize).unwrap_or("")
    }
}

/// Narrows a place inside a chunk.
fn index(at: usize) -> Result<u32> {
    u32::try_from(at)
        .map_err(|_| Error::InvalidInput("a chunk of a source holds more than 4 GiB of ids".into()))
}

/// What one worker makes of the rows that it reads.
pub(crate) trait Reading {
    /// What is made of one chunk.
    type Batch: Send;

    /// Begins a chunk.
    fn begin(&mut self) -> Self::Batch;

    /// Takes the next row of the chunk.
    ///
    /// # Errors
    /// What ends the pass.
    fn row(&mut self, row: &Row<'_>, batch: &mut Self::Batch) -> Result<()>;

    /// Ends a chunk.
    fn end(&mut self, _batch: &mut Self::Batch) {}
}

/// Makes records of the rows by a format's rule.
struct ByRule {
    worker: usize,
    rule: Box<dyn RecordRule>,
    labels_told: usize,
}

impl Reading for ByRule {
    type Batch = Batch;

    fn begin(&mut self) -> Batch {
        Batch { worker: self.worker, ..Batch::default() }
    }

    fn row(&mut self, row: &Row<'_>, batch: &mut Batch) -> Result<()> {
        self.rule.record(row, &mut |record| batch.push(record))
    }

    fn end(&mut self, batch: &mut Batch) {
        batch.remarks = self.rule.remarks();
        batch.new_labels = self.rule.key_labels().split_off(self.labels_told);
        self.labels_told += batch.new_labels.len();
    }
}

/// What the threads share.
struct Shared<B> {
    state: Mutex<State<B>>,
    changed: Condvar,
    stop: AtomicBool,
}

struct State<B> {
    /// The number of the chunk that is taken next.
    next: u64,
    ready: BTreeMap<u64, B>,
    running: usize,
    failed: Option<Error>,
}

impl<B> Shared<B> {
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, State<B>>) -> MutexGuard<'a, State<B>> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a worker's part however it ends, so that nobody waits for it.
struct Leaving<'a, B>(&'a Shared<B>);

impl<B> Drop for Leaving<'_, B> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running -= 1;
        if std::thread::panicking() && state.failed.is_none() {
            state.failed = Some(Error::InvalidInput("a verification thread failed; this is a defect".into()));
        }
        self.0.changed.notify_all();
    }
}

/// Reads one pass of `source` by a format's rule and hands its batches to `consume` in order.
///
/// # Errors
/// The first error of a reader, a rule or `consume`; [`Error::Cancelled`] when `cancel` is set.
pub(crate) fn run(
    source: &dyn RowSource,
    format: &dyn ChainFormat,
    setup: &Setup<'_>,
    threads: usize,
    cancel: Option<&AtomicBool>,
    consume: &mut dyn FnMut(Batch) -> Result<()>,
) -> Result<()> {
    let start = |worker| {
        let rule = format.bind(source.columns(), setup).map_err(|error| name_input(error, source))?;
        Ok(ByRule { worker, rule, labels_told: 0 })
    };
    read(source, threads, cancel, &start, consume)
}

/// Reads one pass of `source` on `threads` threads, each with the [`Reading`] that `start` makes for it, and hands
/// the batches to `consume` in the order of the chunks.
///
/// # Errors
/// As [`run`].
pub(crate) fn read<R: Reading>(
    source: &dyn RowSource,
    threads: usize,
    cancel: Option<&AtomicBool>,
    start: &(dyn Fn(usize) -> Result<R> + Sync),
    consume: &mut dyn FnMut(R::Batch) -> Result<()>,
) -> Result<()> {
    let shared = Shared {
        state: Mutex::new(State { next: 0, ready: BTreeMap::new(), running: threads, failed: None }),
        changed: Condvar::new(),
        stop: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        for worker in 0..threads {
            let shared = &shared;
            scope.spawn(move || {
                let _leaving = Leaving(shared);
                if let Err(error) = start(worker).and_then(|reading| work(source, reading, cancel, shared)) {
                    let mut state = shared.lock();
                    state.failed.get_or_insert(error);
                    shared.stop.store(true, Ordering::Relaxed);
                }
            });
        }
        let result = collect(&shared, consume);
        shared.stop.store(true, Ordering::Relaxed);
        shared.changed.notify_all();
        result
    })
}

/// Takes the batches in order until all workers have left.
fn collect<B>(shared: &Shared<B>, consume: &mut dyn FnMut(B) -> Result<()>) -> Result<()> {
    let mut state = shared.lock();
    loop {
        if let Some(error) = state.failed.take() {
            shared.stop.store(true, Ordering::Relaxed);
            shared.changed.notify_all();
            return Err(error);
        }
        let next = state.next;
        if let Some(batch) = state.ready.remove(&next) {
            state.next += 1;
            drop(state);
            shared.changed.notify_all();
            let consumed = consume(batch);
            if consumed.is_err() {
                shared.stop.store(true, Ordering::Relaxed);
                // Taken under the lock, so that a worker about to wait sees the flag first.
                drop(shared.lock());
                shared.changed.notify_all();
            }
            consumed?;
            state = shared.lock();
        } else if state.running == 0 {
            return Ok(());
        } else {
            state = shared.wait(state);
        }
    }
}

/// Names the input in a format's refusal, and the format that its columns look like.
pub(crate) fn name_input(error: Error, source: &dyn RowSource) -> Error {
    match error {
        Error::NotThisFormat { format, what, .. } => {
            let like = formats::recognise(source.columns());
            let what = if like.is_empty() || like.contains(&format.as_str()) {
                what
            } else {
                format!("{what}; it looks like {}", like.join(" or "))
            };
            Error::NotThisFormat { input: source.name(), format, what }
        }
        other => other,
    }
}

/// One worker: reads chunks, hashes their rows, hands the batches over.
fn work<R: Reading>(
    source: &dyn RowSource,
    mut reading: R,
    cancel: Option<&AtomicBool>,
    shared: &Shared<R::Batch>,
) -> Result<()> {
    let mut reader = source.reader()?;
    loop {
        if cancel.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(Error::Cancelled);
        }
        let mut batch = reading.begin();
        let chunk = reader.read_chunk(&mut |row| {
            if shared.stop.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            reading.row(row, &mut batch)
        });
        let number = match chunk {
            Ok(Some(number)) => number,
            Ok(None) => return Ok(()),
            // Another thread stopped the pass; its error is the one to report.
            Err(Error::Cancelled) if shared.stop.load(Ordering::Relaxed) => return Ok(()),
            Err(error) => return Err(error),
        };
        reading.end(&mut batch);
        let mut state = shared.lock();
        while number >= state.next + WINDOW && !shared.stop.load(Ordering::Relaxed) {
            state = shared.wait(state);
        }
        if shared.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        state.ready.insert(number, batch);
        shared.changed.notify_all();
    }
}
