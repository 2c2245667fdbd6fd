//! Puts in order what a process that died has left, before the next one writes.
//!
//! `commit` and `retention` call it while they hold the repository's lock. What can lie there, by the order in
//! which a commit and a prune write:
//!
//! | found | the process died | now |
//! |---|---|---|
//! | `staging/backup-*`, no entry | before the entry | removed: the backup never was |
//! | `staging/backup-*`, whole, its manifest's digest in the log | between entry and rename | renamed into place |
//! | `staging/prune-*.json`, no entry | before the entry | removed: nothing was pruned |
//! | `staging/prune-*.json`, its entry in the log | while removing | the removal is finished |
//! | `staging/gone-*` | while removing | removed |
//! | `.*.tmp` beside the log's files | while replacing one | removed |
//!
//! What was finished is written to the log as one `recover` entry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::entry::{Event, LogState, PrunedBackup, RecoverEvent};
use super::layout::{Layout, MANIFEST, read_limited};
use super::{Repository, lock, log, staging};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, MAX_BYTES, Manifest};

/// What the names of prune journals begin with.
const PRUNE_PREFIX: &str = "prune-";
/// What the names of folders that are being removed begin with.
const GONE_PREFIX: &str = "gone-";

/// `staging/prune-<16 hex>.json`: written before the log's entry, removed after the bytes are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PruneJournal {
    /// What goes.
    pub(super) backups: Vec<PrunedBackup>,
}

impl PruneJournal {
    /// Writes the journal and returns its path.
    pub(super) fn write(&self, repository: &Repository) -> Result<PathBuf> {
        let name = format!("{PRUNE_PREFIX}{}.json", super::random_hex::<8>()?);
        let path = repository.layout.staging().join(name);
        let bytes = serde_json_canonicalizer::to_vec(self).map_err(|error| {
            Error::new(ErrorKind::Internal, "a prune journal cannot be written").with_source(error)
        })?;
        repository.durable.write_new(&path, &bytes, crate::durable::PRIVATE_FILE)?;
        Ok(path)
    }
}

/// What waits to be finished, for readers: it is not yet wrong.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Whole backups in staging: manifest digest → the folder.
    commits: BTreeMap<(String, Digest), PathBuf>,
    /// Journals with what they name.
    prunes: Vec<(PathBuf, PruneJournal)>,
}

impl Pending {
    /// Reads what lies in staging. What cannot be read there waits for nothing.
    pub(super) fn read(layout: &Layout) -> Result<Self> {
        let mut pending = Self::default();
        for name in super::folder_names(&layout.staging())? {
            let path = layout.staging().join(&name);
            if name.starts_with(staging::PREFIX) {
                let folder = path.join(staging::BACKUP);
                let Ok(bytes) = read_limited(&folder.join(MANIFEST), MAX_BYTES) else { continue };
                let Ok(manifest) = Manifest::from_json(&bytes) else { continue };
                if is_whole(&manifest, &folder) {
                    pending.commits.insert((manifest.id, Digest::of(&bytes)), folder);
                }
            } else if name.starts_with(PRUNE_PREFIX)
                && let Ok(bytes) = read_limited(&path, MAX_BYTES)
                && let Ok(journal) = serde_json::from_slice(&bytes)
            {
                pending.prunes.push((path, journal));
            }
        }
        Ok(pending)
    }

    /// Reports whether a backup waits to be put in place.
    pub(super) fn commits(&self, id: &str, manifest: &Digest) -> bool {
        self.commits.contains_key(&(id.to_owned(), *manifest))
    }

    /// Reports whether a backup waits to be removed.
    pub(super) fn prunes(&self, id: &str, manifest: &Digest) -> bool {
        let named = |backup: &PrunedBackup| backup.id == id && backup.manifest_sha256 == *manifest;
        self.prunes.iter().any(|(_, journal)| journal.backups.iter().any(named))
    }
}

/// Reports whether every object is there with its size.
fn is_whole(manifest: &Manifest, folder: &Path) -> bool {
    manifest.objects.iter().all(|object| {
        let there = folder.join(&object.name).symlink_metadata();
        there.is_ok_and(|there| there.is_file() && there.len() == object.stored_size_bytes)
    })
}

/// Returns the name in staging of the work folder that holds a backup's folder.
fn work_name(folder: &Path) -> String {
    let work = folder.parent().and_then(Path::file_name).unwrap_or_default();
    work.to_string_lossy().into_owned()
}

impl Repository {
    /// Finishes or removes what an earlier process left; the repository's lock is held.
    ///
    /// # Errors
    /// [`ErrorKind::Tampered`] when the log is not whole; what the system says.
    pub(super) fn recover(&self, ctx: &Context) -> Result<LogState> {
        self.remove_temporaries(ctx)?;
        let state = self.log().state()?;
        let mut names = super::folder_names(&self.layout.staging())?;
        if names.is_empty() {
            return Ok(state);
        }
        let mut actions = Vec::new();
        let pending = Pending::read(&self.layout)?;
        for ((id, digest), folder) in &pending.commits {
            if state.live(id).is_none_or(|record| record.event.manifest_sha256 != *digest) {
                continue;
            }
            if self.finish_commit(id, folder)? {
                actions.push(format!("the backup {id} was put in place"));
            } else {
                // Something else took its place: the bytes stay for whoever looks into it.
                tracing::warn!(backup = %id, folder = %folder.display(), "a backup cannot be put in place");
                names.remove(&work_name(folder));
            }
        }
        for (_, journal) in &pending.prunes {
            for backup in &journal.backups {
                let logged = state.record(&backup.id).is_some_and(|record| {
                    record.pruned.is_some() && record.event.manifest_sha256 == backup.manifest_sha256
                });
                if logged && self.remove_backup(backup)? {
                    actions.push(format!("the pruned backup {} was removed", backup.id));
                }
            }
        }
        for name in names {
            let path = self.layout.staging().join(&name);
            if name.starts_with(staging::PREFIX) || name.starts_with(GONE_PREFIX) {
                self.durable.remove_tree(&path)?;
            } else if name.starts_with(PRUNE_PREFIX) {
                self.durable.remove_file(&path)?;
            }
        }
        if actions.is_empty() {
            return Ok(state);
        }
        self.log().append(None, ctx, |_| Ok(Event::Recover(RecoverEvent { actions })))?;
        self.log().state()
    }

    /// Puts a whole backup that the log names in place; `false` when the place is taken.
    fn finish_commit(&self, id: &str, folder: &Path) -> Result<bool> {
        self.durable.sync_dirs(folder)?;
        match self.durable.rename_noreplace(folder, self.layout.backup(id)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Removes a backup that a prune entry names; `false` when it is gone, or when another one is in its place.
    pub(super) fn remove_backup(&self, backup: &PrunedBackup) -> Result<bool> {
        let folder = self.layout.backup(&backup.id);
        let found = match read_limited(&folder.join(MANIFEST), MAX_BYTES) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            bytes => Digest::of(&bytes?),
        };
        if found != backup.manifest_sha256 {
            return Ok(false);
        }
        let name = format!("{GONE_PREFIX}{}", super::random_hex::<8>()?);
        let gone = self.layout.staging().join(name);
        self.durable.rename_noreplace(&folder, &gone)?;
        self.durable.remove_tree(&gone)?;
        Ok(true)
    }

    /// Removes what a process that died while replacing one of the log's files left beside it.
    fn remove_temporaries(&self, ctx: &Context) -> Result<()> {
        let temporary = |name: &String| name.starts_with('.') && name.ends_with(".tmp");
        for folder in [self.layout.log(), self.layout.log_entries()] {
            if !super::folder_names(&folder)?.iter().any(temporary) {
                continue;
            }
            // An append that is going on has one too.
            let _lock = lock::Lock::acquire(&self.layout.log_lock(), "recover", log::APPEND_WAIT, ctx)?;
            for name in super::folder_names(&folder)?.iter().filter(|name| temporary(name)) {
                self.durable.remove_file(folder.join(name))?;
            }
        }
        Ok(())
    }
}
