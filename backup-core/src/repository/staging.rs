//! The folder in which a backup is written before it is committed, and the [`Sinks`] that backends write to.
//!
//! `commit` makes one per backup, hands it to the snapshots and commits its folder.
//!
//! ```text
//! staging/backup-<16 hex>/backup/     becomes backups/<id>/
//! staging/backup-<16 hex>/scratch/    private to the backends
//! ```
//!
//! Every file is created exclusively and synced when its object is finished; the folders are synced once, by
//! [`Staging::seal`]. When the process dies the folder stays and the next holder of the lock removes it
//! (`recover`); on an error it is removed here. An object that is dropped unfinished leaves no file.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::layout::Layout;
use crate::context::Context;
use crate::durable::{Durable, DurableFile, PRIVATE_DIR, PRIVATE_FILE};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Compression, Encryption, ObjectEntry};
use crate::names;
use crate::seal::{SealOptions, SealWriter};
use crate::traits::{ObjectSink, Sinks};

/// What the names of work folders begin with.
pub(super) const PREFIX: &str = "backup-";
/// The folder in a work folder that becomes the backup.
pub(super) const BACKUP: &str = "backup";
/// Under this many expected bytes an object is compressed in the writing thread.
const SMALL: u64 = 1 << 20;

/// A backup that is being written.
#[derive(Debug)]
pub(super) struct Staging {
    work: PathBuf,
    backup: PathBuf,
    scratch: PathBuf,
    durable: Durable,
    options: SealOptions,
    objects: Mutex<Vec<ObjectEntry>>,
    ctx: Context,
    /// Whether the work folder is left to `recover` because the log already names the backup.
    keep: bool,
}

impl Staging {
    /// Makes the folders.
    pub(super) fn new(
        layout: &Layout,
        durable: &Durable,
        options: SealOptions,
        ctx: &Context,
    ) -> Result<Self> {
        let work = layout.staging().join(format!("{PREFIX}{}", super::random_hex::<8>()?));
        durable.create_dir(&work, PRIVATE_DIR)?;
        let staging = Self {
            backup: work.join(BACKUP),
            scratch: work.join("scratch"),
            work,
            durable: durable.clone(),
            options,
            objects: Mutex::default(),
            ctx: ctx.clone(),
            keep: false,
        };
        durable.create_dir(&staging.backup, PRIVATE_DIR)?;
        durable.create_dir(&staging.scratch, PRIVATE_DIR)?;
        Ok(staging)
    }

    /// Returns the finished objects, sorted by name.
    pub(super) fn objects(&self) -> Vec<ObjectEntry> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner).clone();
        objects.sort_by(|one, other| one.name.cmp(&other.name));
        objects
    }

    /// Checks that what lies in the folder is what was finished, and nothing else (PITFALLS 18).
    pub(super) fn check(&self) -> Result<()> {
        for object in self.objects() {
            let path = self.backup.join(&object.name);
            let size = path.symlink_metadata().map_err(|error| Error::io("read", &path, error))?.len();
            if size != object.stored_size_bytes {
                return Err(Error::Digest {
                    object: object.name,
                    what: "size of the stored bytes",
                    expected: object.stored_size_bytes.to_string(),
                    found: size.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Adds a file that is no object (the manifest, its signature) and syncs it.
    pub(super) fn add(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.durable.write_new(self.backup.join(name), bytes, PRIVATE_FILE)
    }

    /// Syncs every folder, so that the backup survives a power cut from here on.
    pub(super) fn seal(&self) -> Result<()> {
        self.durable.sync_dirs(&self.backup)?;
        self.durable.sync_dir(&self.work)
    }

    /// Leaves the folder to `recover` should the rename not come about: the log names the backup.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }

    /// Takes [`Staging::keep`] back: the log does not name the backup after all.
    pub(super) fn release(&mut self) {
        self.keep = false;
    }

    /// Moves the folder to its place.
    pub(super) fn publish(mut self, to: &Path) -> Result<()> {
        self.durable.rename_noreplace(&self.backup, to)?;
        self.keep = false;
        Ok(())
    }

    /// Creates the folders of an object's name.
    fn create_parents(&self, name: &str) -> Result<()> {
        let mut folder = self.backup.clone();
        let Some((parents, _)) = name.rsplit_once('/') else { return Ok(()) };
        for part in parents.split('/') {
            folder.push(part);
            match self.durable.create_dir(&folder, PRIVATE_DIR) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                result => result?,
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed now is removed by the next holder of the lock.
            if let Err(error) = self.durable.remove_tree(&self.work) {
                tracing::warn!(%error, "a staging folder is left for the next run");
            }
        }
    }
}

impl Staging {
    /// Returns what one source writes to: the same folder, a scratch folder of its own, so that sources can be read at once.
    pub(super) fn of_source(&self, number: usize) -> Result<SourceSinks<'_>> {
        let scratch = self.scratch.join(number.to_string());
        self.durable.create_dir(&scratch, PRIVATE_DIR)?;
        Ok(SourceSinks { staging: self, scratch, finished: AtomicUsize::new(0) })
    }
}

/// What one source writes to.
#[derive(Debug)]
pub(super) struct SourceSinks<'a> {
    staging: &'a Staging,
    scratch: PathBuf,
    finished: AtomicUsize,
}

impl SourceSinks<'_> {
    /// Returns how many objects the source finished.
    pub(super) fn finished(&self) -> usize {
        self.finished.load(Ordering::Relaxed)
    }
}

impl Sinks for SourceSinks<'_> {
    fn object(&self, name: &str, size_hint: Option<u64>) -> Result<Box<dyn ObjectSink + '_>> {
        let staging = self.staging;
        names::validate_object_name(name)?;
        let encryption =
            if staging.options.recipients.is_some() { Encryption::Age } else { Encryption::None };
        let stored = ObjectEntry::stored_name(name, Compression::Zstd, encryption);
        names::validate_object_name(&stored)?;
        staging.create_parents(&stored)?;
        let file = staging.durable.create_new(staging.backup.join(&stored), PRIVATE_FILE)?;
        let mut options = staging.options.clone();
        if size_hint.is_some_and(|size| size < SMALL) {
            // Threads do not pay. The hint is no pledge: the source may grow while it is read.
            options.workers = Some(0);
        }
        let writer = SealWriter::new(name, file, &options, &staging.ctx)?;
        Ok(Box::new(StagedObject { staging, finished: &self.finished, stored, encryption, writer }))
    }

    fn scratch(&self) -> &Path {
        &self.scratch
    }
}

/// One object on its way.
struct StagedObject<'a> {
    staging: &'a Staging,
    finished: &'a AtomicUsize,
    stored: String,
    encryption: Encryption,
    writer: SealWriter<DurableFile>,
}

impl Write for StagedObject<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writer.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl ObjectSink for StagedObject<'_> {
    fn finish(self: Box<Self>) -> Result<()> {
        let (sealed, file) = self.writer.finish()?;
        file.finish()?;
        self.staging.objects.lock().unwrap_or_else(PoisonError::into_inner).push(ObjectEntry {
            name: self.stored,
            size_bytes: sealed.size_bytes,
            sha256: sealed.sha256,
            stored_size_bytes: sealed.stored_size_bytes,
            stored_sha256: sealed.stored_sha256,
            compression: Compression::Zstd,
            encryption: self.encryption,
        });
        self.finished.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
