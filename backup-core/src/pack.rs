//! Packs named objects into one file, `.tar.gz` or `.tar.zst`, for handing a backup over.
//!
//! `attestore export` calls it; stock `tar -xf` unpacks what it makes. The entries stand in the order in which
//! they were added, GNU tar format, mode 0644, owner 0, one time for all, so that the same objects give the
//! same bytes. `.tar.zst` is one zstd frame with checksum as every object has (docs/format/objects.md).
//!
//! The file is written as `.NAME.<16 hex>.partial` beside its place, synced, renamed to a name that must be
//! free, and the directory is synced. When the process dies before that, the name does not exist. A packer
//! that is dropped unfinished removes its file.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use tar::EntryType;

use crate::context::{Context, Progress};
use crate::durable::{self, Durable, DurableFile};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{Attributes, write_header, write_padding};
use crate::manifest::Digest;
use crate::names;
use crate::seal::{SealOptions, SealWriter};
use crate::tally::Stored;

/// Bytes handled at once.
const BUFFER: usize = 256 * 1024;
const PROGRESS_STEP: u64 = 4 << 20;

/// The form of a packed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PackFormat {
    /// gzip: read everywhere, one core.
    TarGz,
    /// zstd: smaller and many times faster.
    TarZst,
}

impl PackFormat {
    /// Takes the form from a file's name: `.tar.gz`, `.tgz`, `.tar.zst`, `.tzst`.
    ///
    /// # Errors
    /// `InvalidInput` for another ending.
    pub fn of(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let ends = |ends: [&str; 2]| ends.iter().any(|end| name.len() > end.len() && name.ends_with(end));
        if ends([".tar.gz", ".tgz"]) {
            Ok(Self::TarGz)
        } else if ends([".tar.zst", ".tzst"]) {
            Ok(Self::TarZst)
        } else {
            let message = format!("{}: expected a name that ends in .tar.gz or .tar.zst", path.display());
            Err(Error::new(ErrorKind::InvalidInput, message))
        }
    }
}

/// How a file is packed.
#[derive(Debug, Clone, Default)]
pub struct PackOptions {
    /// The form; by default as the file's name ends.
    pub format: Option<PackFormat>,
    /// The time of modification of every entry, in seconds since 1970.
    pub seconds: u64,
    /// The file's mode; 0600 by default, because what is handed over may be plain text.
    pub mode: Option<u32>,
}

/// A finished pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Its digest.
    pub sha256: Digest,
    /// How many objects are in it.
    pub objects: u64,
}

/// What compresses.
enum Encoder {
    Gz(Box<GzEncoder<Stored<DurableFile>>>),
    Zst(Box<SealWriter<DurableFile>>),
}

impl Write for Encoder {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gz(out) => out.write(buf),
            Self::Zst(out) => out.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes objects one after the other.
#[must_use = "the file gets its name only by `finish`"]
pub struct Packer {
    target: PathBuf,
    tar: tar::Builder<Encoder>,
    names: BTreeSet<String>,
    seconds: u64,
    done: u64,
    told: u64,
    failed: bool,
    ctx: Context,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Packer {
    /// Starts a file that must not exist.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken; `InvalidInput` when its ending names no form; what the system says.
    pub fn create(
        target: impl AsRef<Path>,
        options: &PackOptions,
        durable: &Durable,
        ctx: &Context,
    ) -> Result<Self> {
        let target = target.as_ref();
        let format = options.format.map_or_else(|| PackFormat::of(target), Ok)?;
        if target.symlink_metadata().is_ok() {
            let message = format!("{} exists; it is not overwritten", target.display());
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        ctx.check()?;
        let staging = durable::staging_name(target, "partial")?;
        let file = durable.create_new(&staging, options.mode.unwrap_or(durable::PRIVATE_FILE))?;
        let encoder = match format {
            // Without name and time, so that the same objects give the same bytes.
            PackFormat::TarGz => {
                Encoder::Gz(Box::new(GzBuilder::new().write(Stored::new(file), Compression::default())))
            }
            PackFormat::TarZst => {
                let name = target.display().to_string();
                Encoder::Zst(Box::new(SealWriter::new(&name, file, &SealOptions::default(), ctx)?))
            }
        };
        Ok(Self {
            target: target.to_owned(),
            tar: tar::Builder::new(encoder),
            names: BTreeSet::new(),
            seconds: options.seconds,
            done: 0,
            told: 0,
            failed: false,
            ctx: ctx.clone(),
        })
    }

    /// Adds an object of exactly `size` bytes under a relative name. The reader is read to its end, so that one
    /// that checks digests has checked them.
    ///
    /// # Errors
    /// `InvalidName` for a name that could leave its folder or stands twice; `Mismatch` when the reader gives
    /// another number of bytes; what reader and file say. The packer takes nothing more after an error.
    pub fn add(&mut self, name: &str, size: u64, mut reader: impl Read) -> Result<()> {
        self.ready()?;
        if name.len() > names::MAX_OBJECT_NAME_BYTES {
            let message = format!("an object name of {} bytes is too long to be packed", name.len());
            return Err(Error::new(ErrorKind::InvalidName, message));
        }
        name.split('/').try_for_each(names::validate_name)?;
        if !self.names.insert(name.to_owned()) {
            let message = format!("{name:?} stands twice in {}", self.target.display());
            return Err(Error::new(ErrorKind::InvalidName, message));
        }
        self.failed = true;
        let attributes = Attributes { mode: 0o644, seconds: self.seconds, owner: 0, group: 0 };
        let target = self.target.clone();
        let unwritten = |error| Error::io("write", &target, error);
        let tar = self.tar.get_mut();
        write_header(tar, EntryType::Regular, name.as_bytes(), &attributes, b"", size).map_err(unwritten)?;
        let mut buffer = vec![0; BUFFER];
        let mut found = 0_u64;
        loop {
            self.ctx.check()?;
            let got = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("read", name, error)),
            };
            found += got as u64;
            if found > size {
                return Err(differs(name, size, &format!("at least {found}")));
            }
            tar.write_all(&buffer[..got]).map_err(unwritten)?;
            self.done += got as u64;
            if self.done >= self.told + PROGRESS_STEP {
                self.told = self.done;
                let done = self.done;
                self.ctx.progress(Progress {
                    stage: "export",
                    object: name,
                    done,
                    total: None,
                    unit: "bytes",
                });
            }
        }
        if found != size {
            return Err(differs(name, size, &found.to_string()));
        }
        write_padding(tar, size).map_err(unwritten)?;
        self.failed = false;
        Ok(())
    }

    /// Ends the file, syncs it and gives it its name.
    ///
    /// # Errors
    /// `AlreadyExists` when the name was taken meanwhile; what the system says. The file is gone then.
    pub fn finish(self) -> Result<Packed> {
        self.ready()?;
        let unwritten = |error| Error::io("write", &self.target, error);
        let (file, size_bytes, sha256) = match self.tar.into_inner().map_err(unwritten)? {
            Encoder::Gz(gz) => {
                let stored = gz.finish().map_err(unwritten)?;
                let (size, digest) = stored.tally.finish();
                (stored.out, size, digest)
            }
            Encoder::Zst(zst) => {
                let (sealed, file) = zst.finish()?;
                (file, sealed.stored_size_bytes, sealed.stored_sha256)
            }
        };
        file.finish_renamed(&self.target)?;
        Ok(Packed { path: self.target, size_bytes, sha256, objects: self.names.len() as u64 })
    }

    fn ready(&self) -> Result<()> {
        if self.failed {
            let message = format!("{}: not packed: an object before failed", self.target.display());
            return Err(Error::new(ErrorKind::Io, message));
        }
        Ok(())
    }
}

fn differs(name: &str, size: u64, found: &str) -> Error {
    Error::new(ErrorKind::Mismatch, format!("{name}: expected {size} bytes, found {found}"))
}
