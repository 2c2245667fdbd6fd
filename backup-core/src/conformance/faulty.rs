//! A backup whose objects cannot be read as they should, and sinks that take everything: what a backend meets
//! when nobody else watches.
//!
//! `checks` hands [`Faulty`] to restores, which must then leave the live data alone, and [`Discard`] to
//! snapshots, which must notice by themselves that they were cancelled.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Manifest;
use crate::traits::{BackupObjects, ObjectSink, Sinks};

/// What is wrong with every object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It cannot be opened.
    Unopenable,
    /// Reading fails in the middle.
    Breaks,
    /// It ends in the middle as if that were its end.
    Short,
    /// All bytes come, then the digest is found to be wrong.
    WrongDigest,
}

impl Fault {
    pub(super) const ALL: [Self; 4] = [Self::Unopenable, Self::Breaks, Self::Short, Self::WrongDigest];
}

/// A backup with a fault in every object.
pub(super) struct Faulty<'a> {
    pub(super) inner: &'a dyn BackupObjects,
    pub(super) fault: Fault,
}

impl BackupObjects for Faulty<'_> {
    fn manifest(&self) -> &Manifest {
        self.inner.manifest()
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send + '_>> {
        if self.fault == Fault::Unopenable {
            return Err(fault(name));
        }
        let size = self.manifest().object(name).map_or(0, |object| object.size_bytes);
        let input = self.inner.open(name)?;
        Ok(Box::new(FaultyReader {
            input,
            fault: self.fault,
            name: name.to_owned(),
            at: 0,
            middle: size / 2,
        }))
    }
}

fn fault(name: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{name}: damaged by the conformance suite"))
}

struct FaultyReader<'a> {
    input: Box<dyn Read + Send + 'a>,
    fault: Fault,
    name: String,
    at: u64,
    middle: u64,
}

impl Read for FaultyReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.middle.saturating_sub(self.at)).unwrap_or(usize::MAX);
        match self.fault {
            Fault::Breaks if left == 0 => return Err(fault(&self.name).into()),
            Fault::Short if left == 0 => return Ok(0),
            _ => {}
        }
        let limit = match self.fault {
            Fault::Breaks | Fault::Short => buf.len().min(left),
            _ => buf.len(),
        };
        let got = self.input.read(buf.get_mut(..limit).unwrap_or_default())?;
        self.at += got as u64;
        if self.fault == Fault::WrongDigest && got == 0 && !buf.is_empty() {
            return Err(fault(&self.name).into());
        }
        Ok(got)
    }
}

/// Takes objects and throws them away; looks at no flag.
pub(super) struct Discard {
    pub(super) scratch: PathBuf,
    pub(super) finished: AtomicU64,
}

impl Sinks for Discard {
    fn object(&self, _: &str, _: Option<u64>) -> Result<Box<dyn ObjectSink + '_>> {
        Ok(Box::new(Discarded(&self.finished)))
    }

    fn scratch(&self) -> &std::path::Path {
        &self.scratch
    }
}

struct Discarded<'a>(&'a AtomicU64);

impl Write for Discarded<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ObjectSink for Discarded<'_> {
    fn finish(self: Box<Self>) -> Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
