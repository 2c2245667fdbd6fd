//! Sorts any number of small items in bounded memory.
//!
//! A [`Sorter`] takes items (a key and a body, both bytes) in any order; [`Sorter::finish`] gives them back by key,
//! equal keys in the order of their arrival. Up to [`RUN_BYTES`] stay in memory; beyond that, sorted runs go to one
//! unnamed file in the scratch folder, which the system removes when the process ends however it ends. Items that
//! come in order already make one run, so a sorted input costs one copy. For formats that put rows of
//! many chains in order, or join tables.
//!
//! ```text
//! run    = item*                 keys do not decrease
//! item   = key length (u32 LE) | body length (u32 LE) | key | body
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// How much is held in memory before a run is written, in bytes (8 MiB).
const RUN_BYTES: usize = 8 << 20;

/// How much memory the readers of all runs share, in bytes (4 MiB).
const MERGE_BYTES: usize = 4 << 20;

/// The least that a run's reader buffers, in bytes.
const MIN_BUFFER: usize = 4 << 10;

/// The two lengths before an item.
const HEAD: usize = 8;

/// Takes items in any order.
#[derive(Debug)]
pub(crate) struct Sorter {
    scratch: Option<PathBuf>,
    run_bytes: usize,
    arena: Vec<u8>,
    /// Where the items start in `arena`.
    starts: Vec<usize>,
    file: Option<File>,
    /// Where the runs start and end in the file.
    runs: Vec<(u64, u64)>,
    /// The last key of the last run.
    last_key: Vec<u8>,
}

impl Sorter {
    /// Makes an empty sorter that spills to `scratch`, or to the system's folder for temporary files.
    pub(crate) fn new(scratch: Option<&Path>) -> Self {
        Self::with_run_bytes(scratch, RUN_BYTES)
    }

    fn with_run_bytes(scratch: Option<&Path>, run_bytes: usize) -> Self {
        Self {
            scratch: scratch.map(Path::to_owned),
            run_bytes,
            arena: Vec::new(),
            starts: Vec::new(),
            file: None,
            runs: Vec::new(),
            last_key: Vec::new(),
        }
    }

    /// Takes one item.
    ///
    /// # Errors
    /// [`Error::Io`] when a run cannot be written; [`Error::InvalidInput`] for an item of 4 GiB and more.
    pub(crate) fn push(&mut self, key: &[u8], body: &[u8]) -> Result<()> {
        let length = |bytes: &[u8]| {
            u32::try_from(bytes.len()).map_err(|_| Error::InvalidInput("one item of 4 GiB or more".into()))
        };
        if !self.arena.is_empty() && self.arena.len() + HEAD + key.len() + body.len() > self.run_bytes {
            self.spill()?;
        }
        self.starts.push(self.arena.len());
        self.arena.extend_from_slice(&length(key)?.to_le_bytes());
        self.arena.extend_from_slice(&length(body)?.to_le_bytes());
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(body);
        Ok(())
    }

    /// Sorts what is in memory. Stable, and one pass over what is in order already.
    fn sort(&mut self) {
        let arena = &self.arena;
        self.starts.sort_by(|left, right| key_at(arena, *left).cmp(key_at(arena, *right)));
    }

    /// Writes what is in memory as a run.
    fn spill(&mut self) -> Result<()> {
        self.sort();
        let folder = self.scratch.clone().unwrap_or_else(|| PathBuf::from("the folder for temporary files"));
        let failed = |source| Error::Io { action: "write", path: folder.clone(), source };
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(
                match &self.scratch {
                    Some(folder) => tempfile::tempfile_in(folder),
                    None => tempfile::tempfile(),
                }
                .map_err(failed)?,
            ),
        };
        let mut sorted = Vec::with_capacity(self.arena.len());
        for start in &self.starts {
            sorted.extend_from_slice(item_at(&self.arena, *start));
        }
        file.write_all(&sorted).map_err(failed)?;
        let bytes = sorted.len() as u64;
        let first = self.starts.first().map_or(&[][..], |start| key_at(&self.arena, *start));
        let end = self.runs.last().map_or(0, |(_, end)| *end);
        match self.runs.last_mut() {
            Some(last) if self.last_key.as_slice() <= first => last.1 = end + bytes,
            _ => self.runs.push((end, end + bytes)),
        }
        self.last_key =
            self.starts.last().map_or_else(Vec::new, |start| key_at(&self.arena, *start).to_vec());
        self.arena.clear();
        self.starts.clear();
        Ok(())
    }

    /// Ends the taking.
    ///
    /// # Errors
    /// [`Error::Io`] when a run cannot be written or read.
    pub(crate) fn finish(mut self) -> Result<Sorted> {
        if self.file.is_none() {
            self.sort();
            return Ok(Sorted {
                from: From::Memory { arena: self.arena, starts: self.starts, next: 0 },
                item: Vec::new(),
            });
        }
        if !self.starts.is_empty() {
            self.spill()?;
        }
        drop((self.arena, self.starts));
        let buffer = (MERGE_BYTES / self.runs.len().max(1)).clamp(MIN_BUFFER, 1 << 20);
        let mut merge = Merge {
            file: self.file,
            runs: Vec::with_capacity(self.runs.len()),
            heap: BinaryHeap::new(),
            folder: self.scratch,
        };
        for (at, (start, end)) in self.runs.into_iter().enumerate() {
            merge.runs.push(Run { at: start, end, buffer: Vec::new(), read: 0, capacity: buffer });
            merge.refill(at)?;
        }
        Ok(Sorted { from: From::Runs(merge), item: Vec::new() })
    }
}

fn length_at(bytes: &[u8], at: usize) -> usize {
    let mut length = [0; 4];
    if let Some(found) = bytes.get(at..at + 4) {
        length.copy_from_slice(found);
    }
    u32::from_le_bytes(length) as usize
}

/// Returns the whole item that starts at `start`.
fn item_at(arena: &[u8], start: usize) -> &[u8] {
    let end = start + HEAD + length_at(arena, start) + length_at(arena, start + 4);
    arena.get(start..end).unwrap_or(&[])
}

/// Returns the key of the item that starts at `start`.
fn key_at(arena: &[u8], start: usize) -> &[u8] {
    arena.get(start + HEAD..start + HEAD + length_at(arena, start)).unwrap_or(&[])
}

/// Gives the items back in order.
#[derive(Debug)]
pub(crate) struct Sorted {
    from: From,
    item: Vec<u8>,
}

#[derive(Debug)]
enum From {
    Memory { arena: Vec<u8>, starts: Vec<usize>, next: usize },
    Runs(Merge),
}

impl Sorted {
    /// Returns the next item: key, body.
    ///
    /// # Errors
    /// [`Error::Io`] when a run cannot be read back.
    pub(crate) fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        let item = match &mut self.from {
            From::Memory { arena, starts, next } => {
                let Some(start) = starts.get(*next) else { return Ok(None) };
                *next += 1;
                item_at(arena, *start)
            }
            From::Runs(merge) => {
                if !merge.next(&mut self.item)? {
                    return Ok(None);
                }
                &self.item
            }
        };
        let key = length_at(item, 0);
        Ok(Some((item.get(HEAD..HEAD + key).unwrap_or(&[]), item.get(HEAD + key..).unwrap_or(&[]))))
    }
}

/// Merges the runs of a file.
#[derive(Debug)]
struct Merge {
    file: Option<File>,
    runs: Vec<Run>,
    /// The next key of each run; of equal keys the earlier run goes first.
    heap: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
    folder: Option<PathBuf>,
}

/// One run and what is read of it.
#[derive(Debug)]
struct Run {
    /// Where the file is read next.
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    /// How much of the buffer is used up.
    read: usize,
    capacity: usize,
}

impl Merge {
    /// Moves the least item into `item`.
    fn next(&mut self, item: &mut Vec<u8>) -> Result<bool> {
        let Some(Reverse((_, at))) = self.heap.pop() else { return Ok(false) };
        item.clear();
        if let Some(run) = self.runs.get_mut(at) {
            let found = item_at(&run.buffer, run.read);
            item.extend_from_slice(found);
            run.read += found.len();
        }
        self.refill(at)?;
        Ok(true)
    }

    /// Makes the run's next item whole in its buffer and puts its key on the heap.
    fn refill(&mut self, at: usize) -> Result<()> {
        let (Some(run), Some(file)) = (self.runs.get_mut(at), &mut self.file) else { return Ok(()) };
        loop {
            let left = run.buffer.len() - run.read;
            let wanted = if left < HEAD {
                HEAD
            } else {
                HEAD + length_at(&run.buffer, run.read) + length_at(&run.buffer, run.read + 4)
            };
            if left >= wanted {
                self.heap.push(Reverse((key_at(&run.buffer, run.read).to_vec(), at)));
                return Ok(());
            }
            let unread = run.end - run.at;
            if unread == 0 {
                return Ok(());
            }
            run.buffer.drain(..run.read);
            run.read = 0;
            let more = (run.capacity.max(wanted) as u64).min(unread);
            let folder =
                || self.folder.clone().unwrap_or_else(|| PathBuf::from("the folder for temporary files"));
            let failed = |source| Error::Io { action: "read", path: folder(), source };
            file.seek(SeekFrom::Start(run.at)).map_err(failed)?;
            let before = run.buffer.len();
            file.take(more).read_to_end(&mut run.buffer).map_err(failed)?;
            let found = (run.buffer.len() - before) as u64;
            if found < more {
                return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
            }
            run.at += found;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Items = Vec<(Vec<u8>, Vec<u8>)>;

    fn sorted(items: &Items, run_bytes: usize) -> (Items, usize) {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::with_run_bytes(Some(folder.path()), run_bytes);
        for (key, body) in items {
            sorter.push(key, body).unwrap();
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
        let mut sorted = sorter.finish().unwrap();
        let runs = match &sorted.from {
            From::Memory { .. } => 0,
            From::Runs(merge) => merge.runs.len(),
        };
        let mut found = Vec::new();
        while let Some((key, body)) = sorted.next().unwrap() {
            found.push((key.to_vec(), body.to_vec()));
        }
        (found, runs)
    }

    #[test]
    fn what_comes_in_order_is_one_run() {
        let items: Items = (0..5_000_u32).map(|at| (at.to_be_bytes().to_vec(), vec![7; 90])).collect();
        let (found, runs) = sorted(&items, 4_096);
        assert_eq!((found == items, runs), (true, 1));
        let (found, runs) = sorted(&items.iter().rev().cloned().collect(), 4_096);
        assert!(found == items && runs > 50, "{runs}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let mut sorter = Sorter::with_run_bytes(Some(Path::new("/no/such/folder")), 16);
        sorter.push(b"a", b"0123456789").unwrap();
        let error = sorter.push(b"b", b"0123456789").unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if path == Path::new("/no/such/folder")), "{error}");
    }

    proptest! {
        #[test]
        fn items_come_back_by_key_and_equal_keys_in_the_order_of_arrival(
            items: Vec<(Vec<u8>, Vec<u8>)>,
            run_bytes in 1_usize..400,
        ) {
            let mut expected = items.clone();
            expected.sort_by(|left, right| left.0.cmp(&right.0));
            prop_assert_eq!(sorted(&items, run_bytes).0, expected);
        }
    }
}
