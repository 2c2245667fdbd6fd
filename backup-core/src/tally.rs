//! Counts and hashes a stream: in the thread that reads or writes it, or on a thread beside it.
//!
//! `seal` and `pack` use it. SHA-256 costs about a fifth of what zstd level 3 does and as much as decompressing
//! does, so the plain bytes of large objects are hashed beside the codec. Handing over costs one copy; at most
//! [`QUEUE`] + 2 buffers are in flight.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Digest;

/// Bytes that are handed over at once.
const BUFFER: usize = 256 * 1024;
/// Buffers that may wait for the hashing thread.
const QUEUE: usize = 4;
/// Up to this many bytes a thread does not pay.
const START: u64 = 2 << 20;

/// Counts and hashes where it is called.
#[derive(Default, Clone)]
pub(crate) struct Tally {
    size: u64,
    hash: Sha256,
}

impl Tally {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.hash.update(bytes);
    }

    pub(crate) fn finish(self) -> (u64, Digest) {
        (self.size, Digest(self.hash.finalize().into()))
    }
}

/// Digests what passes on its way to an output.
pub(crate) struct Stored<W> {
    pub(crate) out: W,
    pub(crate) tally: Tally,
}

impl<W> Stored<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, tally: Tally::default() }
    }
}

impl<W: Write> Write for Stored<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.out.write(buf)?;
        self.tally.update(&buf[..written.min(buf.len())]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Counts where it is called and hashes, from [`START`] bytes on, on a thread of its own.
pub(crate) struct TallyBeside {
    size: u64,
    hash: Option<Sha256>,
    beside: Option<Beside>,
    gathered: Vec<u8>,
    threaded: bool,
}

struct Beside {
    filled: SyncSender<Vec<u8>>,
    emptied: Receiver<Vec<u8>>,
    thread: JoinHandle<Sha256>,
}

impl TallyBeside {
    /// Makes one that starts a thread where there are at least this many cores.
    pub(crate) fn new(cores: usize) -> Self {
        let threaded = std::thread::available_parallelism().map_or(1, NonZeroUsize::get) >= cores;
        Self { size: 0, hash: Some(Sha256::new()), beside: None, gathered: Vec::new(), threaded }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
            if self.threaded && self.size > START {
                self.start();
            }
            return;
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER - self.gathered.len()));
            self.gathered.extend_from_slice(now);
            bytes = later;
            if self.gathered.len() == BUFFER {
                self.hand_over();
            }
        }
    }

    /// Moves the hash to a thread; where none can be started, it stays here.
    fn start(&mut self) {
        let Some(mut hash) = self.hash.clone() else { return };
        let (filled, incoming) = sync_channel::<Vec<u8>>(QUEUE);
        let (outgoing, emptied) = sync_channel::<Vec<u8>>(QUEUE + 2);
        let spawned = std::thread::Builder::new().name("sha256".into()).spawn(move || {
            for mut bytes in incoming {
                hash.update(&bytes);
                bytes.clear();
                // The other side takes an empty buffer when it wants one.
                let _ = outgoing.try_send(bytes);
            }
            hash
        });
        match spawned {
            Ok(thread) => {
                (self.beside, self.hash) = (Some(Beside { filled, emptied, thread }), None);
                self.gathered = Vec::with_capacity(BUFFER);
            }
            Err(_) => self.threaded = false,
        }
    }

    fn hand_over(&mut self) {
        let Some(beside) = &self.beside else { return };
        let next = beside.emptied.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER));
        let full = std::mem::replace(&mut self.gathered, next);
        // A thread that is gone is found by `finish`: it cannot give its hash.
        if beside.filled.send(full).is_err() {
            self.gathered.clear();
        }
    }

    /// Returns size and digest.
    ///
    /// # Errors
    /// `Internal` when the thread died; there is then no digest.
    pub(crate) fn finish(mut self) -> Result<(u64, Digest)> {
        if self.beside.is_some() && !self.gathered.is_empty() {
            self.hand_over();
        }
        let hash = match (self.hash.take(), self.beside.take()) {
            (Some(hash), _) => Some(hash),
            (None, Some(Beside { filled, emptied: _, thread })) => {
                drop(filled);
                thread.join().ok()
            }
            (None, None) => None,
        };
        let hash = hash.ok_or_else(|| Error::new(ErrorKind::Internal, "the hashing thread ended early"))?;
        Ok((self.size, Digest(hash.finalize().into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_beside_gives_the_same_digest_for_every_size_and_step() {
        let bytes: Vec<u8> = (0..6 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let start = usize::try_from(START).unwrap();
        for size in [0, 1, start, start + 1, start + BUFFER, start + BUFFER + 1, bytes.len()] {
            for step in [8192, BUFFER, BUFFER + 1, 1 << 22] {
                for cores in [1, usize::MAX] {
                    let mut tally = TallyBeside::new(cores);
                    bytes[..size].chunks(step).for_each(|piece| tally.update(piece));
                    assert_eq!(tally.beside.is_some(), cores == 1 && size > start, "{size} {step}");
                    assert_eq!(tally.finish().unwrap(), (size as u64, Digest::of(&bytes[..size])));
                }
            }
        }
    }

    #[test]
    fn a_dropped_tally_ends_its_thread() {
        let mut tally = TallyBeside::new(1);
        tally.update(&vec![0; 4 << 20]);
        let thread = tally.beside.take().unwrap();
        drop(tally);
        drop(thread.filled);
        thread.thread.join().unwrap();
    }
}
