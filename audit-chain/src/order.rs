//! Puts records in chain order that come in another: an export newest first, a table without an index.
//!
//! [`crate::verify`] calls this only when the walk has met a record that stands behind one it belongs before, or when the
//! source can be read only once. Records travel without their rows, as in [`crate::pipeline`]; up to [`MEMORY_BYTES`] of
//! them are held, then sorted and written out as one *run*; [`FAN_IN`] runs are merged into one of the
//! next level, so that at most a few hundred files are open however long the chain is. The merge can be replayed.
//!
//! A run is an unnamed temporary file of frames, integers little-endian: length of the payload (u32), order key
//! (32 bytes), place in the input (u64), payload. Nothing of it outlives the process, and nobody else reads it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io::{BufReader, BufWriter, Error as IoError, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::{Fault, Link, OrderKey, Record, Remark, Seal};
use crate::pipeline::{Batch, Entry};

/// How much is held before a run is written, in bytes (16 MiB).
const MEMORY_BYTES: usize = 16 << 20;

/// How many runs of one level become one of the next.
const FAN_IN: usize = 64;

/// How much of a run is read or written at a time, in bytes (32 KiB).
const BUFFER_BYTES: usize = 32 << 10;

/// How many records a replayed batch holds.
const BATCH_RECORDS: usize = 1_024;

/// What a record is sorted by: its key, then its place in the input.
type Place = (OrderKey, u64);

/// A record that waits to be sorted: its place, and where its payload is in the arena.
type Waiting = (Place, usize, usize);

/// Takes records in any order.
#[derive(Debug)]
pub(crate) struct Sorter {
    folder: PathBuf,
    memory: usize,
    waiting: Vec<Waiting>,
    arena: Vec<u8>,
    /// Runs by level.
    levels: Vec<Vec<Run>>,
    names: Names,
    /// The last key of each chain, for records that have none.
    last: HashMap<u32, OrderKey>,
    records: u64,
}

/// What payloads refer to by number.
#[derive(Debug, Default)]
struct Names {
    chains: Vec<String>,
    by_chain: HashMap<String, u32>,
    labels: Vec<String>,
    by_worker: HashMap<usize, Vec<u16>>,
    /// Remarks, each once; their `record` is 0.
    remarks: Vec<Remark>,
}

/// Records in chain order, as often as wanted.
#[derive(Debug)]
pub(crate) struct Sorted {
    folder: PathBuf,
    runs: Vec<Run>,
    waiting: Vec<Waiting>,
    arena: Vec<u8>,
    names: Names,
}

impl Sorter {
    /// Makes an empty one that writes its runs into `folder`, by default the system's folder for temporary files.
    pub(crate) fn new(folder: Option<&Path>) -> Self {
        Self::with_memory(folder, MEMORY_BYTES)
    }

    fn with_memory(folder: Option<&Path>, memory: usize) -> Self {
        Self {
            folder: folder.map_or_else(std::env::temp_dir, Path::to_path_buf),
            memory,
            waiting: Vec::new(),
            arena: Vec::new(),
            levels: Vec::new(),
            names: Names::default(),
            last: HashMap::new(),
            records: 0,
        }
    }

    /// Takes the next batch of the input.
    ///
    /// # Errors
    /// [`Error::Io`] when a run cannot be written.
    pub(crate) fn push(&mut self, batch: &Batch) -> Result<()> {
        self.names.learn_labels(batch);
        let chains: Vec<u32> =
            batch.chains.iter().map(|chain| self.names.chain(chain)).collect::<Result<_>>()?;
        let mut faults = batch.faults.iter().peekable();
        let mut also = batch.also.iter().peekable();
        let mut snapshots = batch.snapshots().peekable();
        let mut remarks = batch.remarks.iter().peekable();
        let mut marks = batch.marks.iter().peekable();
        let (mut own_faults, mut own_remarks) = (Vec::new(), Vec::new());
        for (at, entry) in batch.entries.iter().enumerate() {
            own_faults.clear();
            while let Some((_, fault)) = faults.next_if(|(of, _)| *of as usize == at) {
                own_faults.push(fault);
            }
            own_remarks.clear();
            while let Some(remark) = remarks.next_if(|remark| remark.record as usize == at) {
                own_remarks.push(self.names.remark(remark)?);
            }
            let chain = chains[entry.chain as usize];
            let key = match entry.order {
                Some(key) => key,
                None => self.last.get(&chain).copied().unwrap_or(OrderKey::of_number(i64::MIN)),
            };
            self.last.insert(chain, key);
            let start = self.arena.len();
            let seal = self.names.seal(batch.worker, entry.seal);
            let rare = Rare {
                also: also.next_if(|(of, _)| *of as usize == at).map(|(_, link)| *link),
                faults: &own_faults,
                remarks: &own_remarks,
                snapshot: snapshots.next_if(|(of, _)| *of as usize == at).map_or(&[], |(_, bytes)| bytes),
                mark: marks.next_if(|(of, _)| *of as usize == at).map(|(_, mark)| &**mark),
            };
            encode(&mut self.arena, chain, entry, seal, batch.id(entry), &rare)
                .map_err(|error| failed(&self.folder, error))?;
            self.waiting.push(((key, self.records), start, self.arena.len()));
            self.records += 1;
            if self.arena.len() + self.waiting.len() * size_of::<Waiting>() >= self.memory {
                self.spill()?;
            }
        }
        Ok(())
    }

    /// Ends the input.
    ///
    /// # Errors
    /// As [`Sorter::push`].
    pub(crate) fn finish(mut self) -> Result<Sorted> {
        if self.levels.is_empty() {
            self.waiting.sort_unstable();
        } else {
            self.spill()?;
            self.waiting = Vec::new();
            self.arena = Vec::new();
        }
        Ok(Sorted {
            folder: self.folder,
            runs: self.levels.into_iter().flatten().collect(),
            waiting: self.waiting,
            arena: self.arena,
            names: self.names,
        })
    }

    /// Writes what is held as one run.
    fn spill(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.waiting.sort_unstable();
        let mut run = RunWriter::new(&self.folder)?;
        for (place, start, end) in &self.waiting {
            run.push(*place, &self.arena[*start..*end])?;
        }
        let mut run = run.finish()?;
        self.waiting.clear();
        self.arena.clear();
        let mut level = 0;
        loop {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(run);
            if self.levels[level].len() < FAN_IN {
                return Ok(());
            }
            let runs = std::mem::take(&mut self.levels[level]);
            let mut merged = RunWriter::new(&self.folder)?;
            merge(&self.folder, &runs, &mut |place, payload| merged.push(place, payload))?;
            run = merged.finish()?;
            level += 1;
        }
    }
}

impl Sorted {
    /// Hands the records over in chain order.
    ///
    /// # Errors
    /// What `consume` returns; [`Error::Io`] when a run cannot be read back.
    pub(crate) fn replay(&mut self, consume: &mut dyn FnMut(Batch) -> Result<()>) -> Result<()> {
        let Self { folder, runs, waiting, arena, names } = self;
        let mut batch = Batch::default();
        batch.new_labels.clone_from(&names.labels);
        let mut take =
            |payload: &[u8]| -> Result<()> {
                let (record, remarks) = Fields(payload).record(&names.chains).map_err(|source| {
                    Error::Io { action: "read a temporary file in", path: folder.clone(), source }
                })?;
                let at = u32::try_from(batch.entries.len()).unwrap_or(u32::MAX);
                batch.push(record)?;
                for remark in remarks {
                    let known = names.remarks.get(usize::from(remark)).copied();
                    batch.remarks.extend(known.map(|remark| Remark { record: at, ..remark }));
                }
                if batch.entries.len() >= BATCH_RECORDS {
                    consume(std::mem::take(&mut batch))?;
                }
                Ok(())
            };
        if runs.is_empty() {
            for (_, start, end) in waiting.iter() {
                take(&arena[*start..*end])?;
            }
        } else {
            merge(folder, runs, &mut |_, payload| take(payload))?;
        }
        consume(batch)
    }
}

impl Names {
    fn chain(&mut self, chain: &str) -> Result<u32> {
        if let Some(at) = self.by_chain.get(chain) {
            return Ok(*at);
        }
        let at = u32::try_from(self.chains.len())
            .map_err(|_| Error::InvalidInput("the input holds more than 4,294,967,295 chains".into()))?;
        self.chains.push(chain.to_owned());
        self.by_chain.insert(chain.to_owned(), at);
        Ok(at)
    }

    /// Gives the keys of a worker their common numbers.
    fn learn_labels(&mut self, batch: &Batch) {
        for label in &batch.new_labels {
            let at = self.labels.iter().position(|known| known == label).unwrap_or_else(|| {
                self.labels.push(label.clone());
                self.labels.len() - 1
            });
            let at = u16::try_from(at).unwrap_or(u16::MAX);
            self.by_worker.entry(batch.worker).or_default().push(at);
        }
    }

    /// Returns the number of a remark.
    fn remark(&mut self, remark: &Remark) -> Result<u16> {
        let equal = |known: &Remark| known.kind == remark.kind && known.explains == remark.explains;
        let at = self.remarks.iter().position(equal).unwrap_or_else(|| {
            self.remarks.push(Remark { record: 0, ..*remark });
            self.remarks.len() - 1
        });
        u16::try_from(at)
            .map_err(|_| Error::InvalidInput("a format makes more than 65,535 kinds of remarks".into()))
    }

    /// Renames the key of a worker's seal.
    fn seal(&self, worker: usize, seal: Seal) -> Seal {
        let common = |at: u16| {
            let known = self.by_worker.get(&worker).and_then(|known| known.get(usize::from(at)));
            known.copied().unwrap_or(u16::MAX)
        };
        seal.with_key(common)
    }
}

/// A sorted file.
#[derive(Debug)]
struct Run(File);

/// Writes a run.
struct RunWriter<'a> {
    folder: &'a Path,
    file: BufWriter<File>,
}

impl<'a> RunWriter<'a> {
    fn new(folder: &'a Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(|source| Error::Io {
            action: "write a temporary file in",
            path: folder.to_owned(),
            source,
        })?;
        Ok(Self { folder, file: BufWriter::with_capacity(BUFFER_BYTES, file) })
    }

    fn push(&mut self, place: Place, payload: &[u8]) -> Result<()> {
        let mut frame = || {
            self.file.write_all(&length(payload.len())?.to_le_bytes())?;
            self.file.write_all(place.0.bytes())?;
            self.file.write_all(&place.1.to_le_bytes())?;
            self.file.write_all(payload)
        };
        frame().map_err(|source| failed(self.folder, source))
    }

    fn finish(self) -> Result<Run> {
        let folder = self.folder;
        let file = self.file.into_inner().map_err(|error| failed(folder, error.into_error()))?;
        Ok(Run(file))
    }
}

fn failed(folder: &Path, source: IoError) -> Error {
    Error::Io { action: "write a temporary file in", path: folder.to_owned(), source }
}

/// Reads a run.
struct RunReader<'a> {
    file: BufReader<&'a File>,
    payload: Vec<u8>,
}

impl<'a> RunReader<'a> {
    fn new(run: &'a Run) -> std::io::Result<Self> {
        let mut file = &run.0;
        file.seek(SeekFrom::Start(0))?;
        Ok(Self { file: BufReader::with_capacity(BUFFER_BYTES, file), payload: Vec::new() })
    }

    /// Reads the next record; its payload is valid until the next call.
    fn next(&mut self) -> std::io::Result<Option<Place>> {
        let mut size = [0; 4];
        let first = self.file.read(&mut size[..1])?;
        if first == 0 {
            return Ok(None);
        }
        self.file.read_exact(&mut size[1..])?;
        let (mut key, mut place) = ([0; OrderKey::LEN], [0; 8]);
        self.file.read_exact(&mut key)?;
        self.file.read_exact(&mut place)?;
        self.payload.resize(u32::from_le_bytes(size) as usize, 0);
        self.file.read_exact(&mut self.payload)?;
        Ok(Some((OrderKey::of_bytes(key), u64::from_le_bytes(place))))
    }
}

/// Merges sorted runs.
fn merge(folder: &Path, runs: &[Run], each: &mut dyn FnMut(Place, &[u8]) -> Result<()>) -> Result<()> {
    let failed = |source| Error::Io { action: "read a temporary file in", path: folder.to_owned(), source };
    let mut readers: Vec<RunReader<'_>> =
        runs.iter().map(RunReader::new).collect::<std::io::Result<_>>().map_err(failed)?;
    let mut heads = BinaryHeap::with_capacity(readers.len());
    for (at, reader) in readers.iter_mut().enumerate() {
        heads.extend(reader.next().map_err(failed)?.map(|place| Reverse((place, at))));
    }
    while let Some(mut head) = heads.peek_mut() {
        let Reverse((place, at)) = *head;
        each(place, &readers[at].payload)?;
        match readers[at].next().map_err(failed)? {
            Some(next) => *head = Reverse((next, at)),
            None => {
                std::collections::binary_heap::PeekMut::pop(head);
            }
        }
    }
    Ok(())
}

/// What few records have.
struct Rare<'a> {
    also: Option<Link>,
    faults: &'a [&'a Fault],
    remarks: &'a [u16],
    snapshot: &'a [u8],
    mark: Option<&'a str>,
}

fn length(bytes: usize) -> std::io::Result<u32> {
    u32::try_from(bytes).map_err(|_| IoError::new(ErrorKind::InvalidData, "a record of over 4 GiB"))
}

/// Appends a record's payload.
fn encode(
    out: &mut Vec<u8>,
    chain: u32,
    entry: &Entry,
    seal: Seal,
    id: &str,
    rare: &Rare<'_>,
) -> std::io::Result<()> {
    let number = |out: &mut Vec<u8>, value: Option<i64>| {
        out.push(u8::from(value.is_some()));
        out.extend(value.unwrap_or(0).to_le_bytes());
    };
    out.extend(chain.to_le_bytes());
    let (tag, key) = seal.parts();
    out.push(tag);
    out.extend(key.to_le_bytes());
    number(out, entry.number);
    number(out, entry.time);
    out.push(u8::from(entry.order.is_some()));
    out.extend(entry.order.map_or([0; OrderKey::LEN], |key| *key.bytes()));
    for link in [Some(entry.prev), Some(entry.link), rare.also] {
        let (tag, digest) = match link {
            None => (0, [0; 32]),
            Some(Link::Genesis) => (1, [0; 32]),
            Some(Link::Unstated) => (2, [0; 32]),
            Some(Link::Digest(digest)) => (3, digest),
            Some(Link::Other(digest)) => (4, digest),
        };
        out.push(tag);
        out.extend(digest);
    }
    out.extend(entry.leaf);
    out.extend(length(id.len())?.to_le_bytes());
    out.extend(id.as_bytes());
    out.extend(length(rare.snapshot.len())?.to_le_bytes());
    out.extend(rare.snapshot);
    out.extend(length(rare.remarks.len() * 2)?.to_le_bytes());
    rare.remarks.iter().for_each(|remark| out.extend(remark.to_le_bytes()));
    out.push(u8::from(rare.mark.is_some()));
    let mark = rare.mark.unwrap_or("");
    out.extend(length(mark.len())?.to_le_bytes());
    out.extend(mark.as_bytes());
    if !rare.faults.is_empty() {
        serde_json::to_writer(out, rare.faults)?;
    }
    Ok(())
}

/// The fields of a payload that are not read yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> std::io::Result<&'a [u8]> {
        let (head, tail) =
            self.0.split_at_checked(count).ok_or_else(|| IoError::from(ErrorKind::UnexpectedEof))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> std::io::Result<[u8; N]> {
        let bytes = self.bytes(N)?;
        bytes.try_into().map_err(|_| IoError::from(ErrorKind::UnexpectedEof))
    }

    fn number(&mut self) -> std::io::Result<Option<i64>> {
        let [there] = self.array()?;
        let value = i64::from_le_bytes(self.array()?);
        Ok((there == 1).then_some(value))
    }

    fn sized(&mut self) -> std::io::Result<&'a [u8]> {
        let count = u32::from_le_bytes(self.array()?);
        self.bytes(count as usize)
    }

    fn link(&mut self) -> std::io::Result<Option<Link>> {
        let [tag] = self.array()?;
        let digest = self.array()?;
        Ok(match tag {
            1 => Some(Link::Genesis),
            2 => Some(Link::Unstated),
            3 => Some(Link::Digest(digest)),
            4 => Some(Link::Other(digest)),
            _ => None,
        })
    }

    /// Reads a record and the numbers of its remarks.
    fn record(&mut self, chains: &'a [String]) -> std::io::Result<(Record<'a>, Vec<u16>)> {
        let chain = u32::from_le_bytes(self.array()?) as usize;
        let [seal] = self.array()?;
        let key = u16::from_le_bytes(self.array()?);
        let number = self.number()?;
        let time = self.number()?;
        let [ordered] = self.array()?;
        let order = OrderKey::of_bytes(self.array()?);
        let prev = self.link()?.unwrap_or(Link::Unstated);
        let link = self.link()?.unwrap_or(Link::Unstated);
        let also = self.link()?;
        let leaf = self.array()?;
        let id = std::str::from_utf8(self.sized()?)
            .map_err(|error| IoError::new(ErrorKind::InvalidData, error))?;
        let snapshot = self.sized()?;
        let remarks = self.sized()?.chunks_exact(2).map(|at| u16::from_le_bytes([at[0], at[1]])).collect();
        let [marked] = self.array()?;
        let mark = std::str::from_utf8(self.sized()?)
            .map_err(|error| IoError::new(ErrorKind::InvalidData, error))?;
        let faults = if self.0.is_empty() { Vec::new() } else { serde_json::from_slice(self.0)? };
        let record = Record {
            chain: chains.get(chain).map_or("", String::as_str),
            id,
            number,
            prev,
            link,
            also,
            leaf,
            time,
            order: (ordered == 1).then_some(order),
            seal: Seal::of_parts(seal, key),
            faults,
            snapshot,
            mark: (marked == 1).then(|| mark.into()),
        };
        Ok((record, remarks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{FindingKind, NoteKind};

    /// Makes a record with everything that can be said of one.
    fn record(chain: &'static str, at: i64) -> Record<'static> {
        let digest = [u8::try_from(at % 251).unwrap(); 32];
        let fault = Fault {
            kind: FindingKind::Edited,
            expected: Some("é\n".into()),
            found: None,
            explains: "x".into(),
        };
        Record {
            chain,
            id: "some-id",
            number: (at % 2 == 0).then_some(-at),
            prev: [Link::Genesis, Link::Unstated, Link::Digest(digest), Link::Other(digest)]
                [usize::try_from(at % 4).unwrap()],
            link: Link::Digest(digest),
            also: (at % 5 == 0).then_some(Link::Other(digest)),
            leaf: digest,
            time: Some(at),
            order: Some(OrderKey::of_parts(at, b"tie")),
            seal: [
                Seal::None,
                Seal::Verified(0),
                Seal::SelfVouched(0),
                Seal::Unchecked(0),
                Seal::Unasked,
                Seal::Bad,
            ][usize::try_from(at % 6).unwrap()],
            faults: if at % 3 == 0 { vec![fault.clone(), fault] } else { Vec::new() },
            snapshot: if at % 7 == 0 { b"snapshot" } else { b"" },
            mark: (at % 13 == 0).then(|| format!("mark {at}").into()),
        }
    }

    /// Sorts batches of seven records and returns what comes out, as text.
    fn sorted(order: &[i64], memory: usize) -> Vec<String> {
        let mut sorter = Sorter::with_memory(None, memory);
        for part in order.chunks(7) {
            let mut batch = Batch::default();
            batch.new_labels.push("key".into());
            for at in part {
                let record_at = u32::try_from(batch.entries.len()).unwrap();
                batch.push(record(if at % 2 == 0 { "even" } else { "odd" }, *at)).unwrap();
                let explains = ["odd", "even"][usize::from(at % 2 == 0)];
                if at % 11 == 0 {
                    batch.remarks.push(Remark { record: record_at, kind: NoteKind::Rotated, explains });
                }
            }
            sorter.push(&batch).unwrap();
        }
        let mut sorted = sorter.finish().unwrap();
        let mut once = Vec::new();
        for _ in 0..2 {
            let mut seen = Vec::new();
            sorted
                .replay(&mut |batch| {
                    let faults: Vec<_> = batch.faults.iter().map(|(at, _)| *at).collect();
                    let snapshots: Vec<_> = batch.snapshots().map(|(at, _)| at).collect();
                    for (at, entry) in batch.entries.iter().enumerate() {
                        let at = u32::try_from(at).unwrap();
                        seen.push(format!(
                            "{} {} {:?} {:?} {:?} {:?} {:?} {:?} {} {:?} {:?} {:?}",
                            batch.chains[entry.chain as usize],
                            batch.id(entry),
                            (entry.number, entry.time, entry.order),
                            entry.prev,
                            entry.link,
                            batch.also.iter().find(|(of, _)| *of == at).map(|(_, link)| link),
                            entry.leaf,
                            entry.seal,
                            faults.iter().filter(|of| **of == at).count(),
                            snapshots.contains(&at),
                            batch.remarks.iter().find(|of| of.record == at).map(|of| (of.kind, of.explains)),
                            batch.marks.iter().find(|(of, _)| *of == at).map(|(_, mark)| mark),
                        ));
                    }
                    Ok(())
                })
                .unwrap();
            assert!(once.is_empty() || once == seen, "a second replay differs");
            once = seen;
        }
        once
    }

    #[test]
    fn records_come_out_in_order_and_whole_from_memory_and_from_any_number_of_runs() {
        let straight: Vec<i64> = (0..3_000).collect();
        let expected = sorted(&straight, usize::MAX);
        assert_eq!(expected.len(), 3_000);
        assert!(expected[6].starts_with("even some-id (Some(-6), Some(6)"), "{}", expected[6]);
        let mut shuffled = straight.clone();
        shuffled.sort_by_key(|at| at.wrapping_mul(2_654_435_761) % 3_001);
        let reversed: Vec<i64> = straight.iter().rev().copied().collect();
        for memory in [usize::MAX, 100_000, 2_000, 1] {
            assert!(sorted(&reversed, memory) == expected, "{memory}");
            assert!(sorted(&shuffled, memory) == expected, "{memory}");
        }
    }

    #[test]
    fn records_without_a_key_stay_behind_the_one_before_them_in_their_chain() {
        let mut batch = Batch::default();
        for (id, order) in [("c", Some(3)), ("c2", None), ("a", Some(1)), ("a2", None), ("b", Some(2))] {
            let order = order.map(OrderKey::of_number);
            batch.push(Record { id, order, ..Record::default() }).unwrap();
        }
        let mut sorter = Sorter::new(None);
        sorter.push(&batch).unwrap();
        let mut seen = String::new();
        sorter
            .finish()
            .unwrap()
            .replay(&mut |batch| {
                batch.entries.iter().for_each(|entry| seen.push_str(batch.id(entry)));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, "aa2bcc2");
    }

    #[test]
    fn keys_order_as_their_numbers_and_then_their_bytes_do() {
        let keys = [
            OrderKey::of_number(i64::MIN),
            OrderKey::of_number(-1),
            OrderKey::of_number(0),
            OrderKey::of_parts(0, b"a"),
            OrderKey::of_parts(0, b"ab"),
            OrderKey::of_parts(1, b""),
            OrderKey::of_number(i64::MAX),
        ];
        assert!(keys.is_sorted_by(|left, right| left < right));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let mut sorter = Sorter::with_memory(Some(Path::new("/nonexistent/folder")), 1);
        let mut batch = Batch::default();
        batch.push(record("even", 0)).unwrap();
        let error = sorter.push(&batch).unwrap_err();
        assert_eq!(error.to_string(), "cannot write a temporary file in /nonexistent/folder");
    }
}
