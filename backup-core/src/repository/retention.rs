//! Removing backups: a plan that can be printed, then its execution.
//!
//! `attestore prune` and a backup with `--keep-last` call it; `policy` decides what goes.
//!
//! Order of a removal: a journal under `staging/`, the log's entry, then each folder is renamed into
//! `staging/` and deleted, last the journal. When the process dies before the entry nothing was removed; after
//! it the next holder of the lock finishes (`recover`). So every removal that is not on record is a finding.
//!
//! A backup that someone reads (a restore holds a shared lock on its manifest) is not removed: the prune is
//! refused before its entry.

use std::fs::TryLockError;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::{BackupRecord, Event, LogState, PruneEvent, PrunedBackup};
use super::layout::MANIFEST;
use super::lock::{Lock, Unlocking};
use super::policy::{Candidate, decide};
use super::read::check_signature;
use super::recover::PruneJournal;
use super::{Repository, RetentionPolicy};
use crate::context::{Context, Progress};
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, LogPosition};
use crate::signing::{PublicKey, SigningKey};

/// How many backups a thread looks at before another one pays.
const LOOK_SHARE: usize = 64;

/// What is seen of a backup on record.
enum Seen {
    /// It is not there.
    Gone,
    /// It is there; why it does not count.
    There(Option<String>),
}

/// How many backups one entry of the log removes at most.
pub const PRUNE_BATCH: usize = 256;

/// How backups are pruned.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// What to keep.
    pub policy: RetentionPolicy,
    /// The keys of which one must have signed a backup for it to count. Without any, its own signature must hold.
    pub public_keys: Vec<PublicKey>,
    /// How long to wait for a backup that is being made. By default not at all.
    pub lock_wait: Duration,
}

/// A backup that a plan keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptBackup {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Why it is kept.
    pub reasons: Vec<String>,
}

/// A backup that a plan removes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedBackup {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The size of its stored objects, in bytes.
    pub size_bytes: u64,
    /// The digest of its manifest.
    pub manifest_sha256: Digest,
}

/// What a prune would do, for people and for JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunePlan {
    /// The repository's id.
    pub repository: String,
    /// Where the log stood when the plan was made.
    pub log: LogPosition,
    /// The rules.
    pub policy: RetentionPolicy,
    /// What stays, oldest first by the order of the log.
    pub keep: Vec<KeptBackup>,
    /// What goes, oldest first.
    pub remove: Vec<RemovedBackup>,
    /// How many bytes that frees.
    pub frees_bytes: u64,
    /// What a person should know before saying yes.
    pub warnings: Vec<String>,
}

/// What a prune did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneOutcome {
    /// What was removed.
    pub removed: Vec<RemovedBackup>,
    /// How many bytes that freed.
    pub freed_bytes: u64,
    /// The log's entries, one per [`PRUNE_BATCH`] backups; none when there was nothing to remove.
    pub entries: Vec<u64>,
}

impl Repository {
    /// Says what a policy would keep and remove. Changes nothing and takes no lock.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the policy keeps nothing; [`ErrorKind::Tampered`] when the log is not whole.
    pub fn prune_plan(&self, options: &PruneOptions, ctx: &Context) -> Result<PrunePlan> {
        options.policy.check()?;
        self.plan(&self.log().state()?, &options.policy, &options.public_keys, ctx)
    }

    /// Names the backups that a policy would remove if all of them verify: what the log says, without reading a manifest.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the policy keeps nothing.
    pub fn past_retention(&self, seen: &super::Overview, policy: &RetentionPolicy) -> Result<Vec<String>> {
        policy.check()?;
        let present: std::collections::HashSet<&str> =
            seen.backups.iter().map(|backup| backup.id.as_str()).collect();
        let candidates: Vec<Candidate<'_>> = seen
            .state
            .live_records()
            .filter(|record| present.contains(record.event.id.as_str()))
            .map(|record| Candidate { record, fault: None })
            .collect();
        let decisions = decide(&candidates, policy)?;
        Ok(candidates
            .iter()
            .zip(decisions)
            .filter(|(_, decision)| decision.reasons.is_empty())
            .map(|(candidate, _)| candidate.record.event.id.clone())
            .collect())
    }

    /// Does what a plan says, if it would still be made.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] when the plan would no longer be made: nothing is removed;
    /// [`ErrorKind::Locked`]; [`ErrorKind::InUse`] when a backup that should go is being read.
    pub fn prune_apply(
        &self,
        plan: &PrunePlan,
        options: &PruneOptions,
        key: Option<&SigningKey>,
        ctx: &Context,
    ) -> Result<PruneOutcome> {
        let _lock = Lock::acquire(&self.layout.lock(), "prune", options.lock_wait, ctx)?;
        let state = self.recover(ctx)?;
        let fresh = self.plan(&state, &plan.policy, &options.public_keys, ctx)?;
        let stale = plan.repository != fresh.repository
            || plan.policy != options.policy
            || plan.remove.iter().any(|removed| !fresh.remove.contains(removed));
        if stale {
            return Err(Error::new(
                ErrorKind::Mismatch,
                "the repository changed since the plan was made: some of what it removes would now be kept",
            )
            .with_hint("make the plan again"));
        }
        self.remove(&plan.remove, &plan.policy, key, ctx)
    }

    /// Plans and prunes at once; the repository's lock is held.
    pub(super) fn prune_locked(
        &self,
        policy: &RetentionPolicy,
        key: Option<&SigningKey>,
        ctx: &Context,
    ) -> Result<PruneOutcome> {
        let plan = self.plan(&self.log().state()?, policy, &[], ctx)?;
        self.remove(&plan.remove, policy, key, ctx)
    }

    fn plan(
        &self,
        state: &LogState,
        policy: &RetentionPolicy,
        keys: &[PublicKey],
        ctx: &Context,
    ) -> Result<PrunePlan> {
        let mut warnings = Vec::new();
        let mut candidates = Vec::new();
        let records: Vec<&BackupRecord> = state.live_records().collect();
        for (record, seen) in records.iter().zip(self.look_at(&records, keys, ctx)?) {
            let id = &record.event.id;
            match seen {
                Seen::Gone => {
                    warnings.push(format!("the backup {id} is on record and not there; it is not counted"));
                }
                Seen::There(fault) => {
                    if let Some(fault) = &fault {
                        warnings.push(format!("the backup {id} is not counted and not removed: {fault}"));
                    }
                    candidates.push(Candidate { record, fault });
                }
            }
        }
        let decisions = decide(&candidates, policy)?;
        let (mut keep, mut remove) = (Vec::new(), Vec::new());
        for (candidate, decision) in candidates.iter().zip(decisions) {
            let event = &candidate.record.event;
            if decision.reasons.is_empty() {
                remove.push(RemovedBackup {
                    id: event.id.clone(),
                    created_at: event.created_at,
                    size_bytes: event.size_bytes,
                    manifest_sha256: event.manifest_sha256,
                });
            } else {
                let (id, created_at) = (event.id.clone(), event.created_at);
                keep.push(KeptBackup { id, created_at, reasons: decision.reasons });
            }
        }
        Ok(PrunePlan {
            repository: self.header.id.clone(),
            log: self.log().read(&[])?.position,
            policy: policy.clone(),
            frees_bytes: remove.iter().map(|removed| removed.size_bytes).sum(),
            keep,
            remove,
            warnings,
        })
    }

    /// Looks at every backup, on all cores: most of a plan's time is manifests and signatures. The order is the records'.
    fn look_at(&self, records: &[&BackupRecord], keys: &[PublicKey], ctx: &Context) -> Result<Vec<Seen>> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = records.len().div_ceil(LOOK_SHARE).clamp(1, cores);
        let share = records.len().div_ceil(threads).max(1);
        let look = |part: &[&BackupRecord]| -> Result<Vec<Seen>> {
            part.iter()
                .map(|record| {
                    ctx.check()?;
                    if self.layout.backup(&record.event.id).symlink_metadata().is_err() {
                        return Ok(Seen::Gone);
                    }
                    self.fault(record, keys).map(Seen::There)
                })
                .collect()
        };
        let look = &look;
        let parts: Vec<Result<Vec<Seen>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = records.chunks(share).map(|part| scope.spawn(move || look(part))).collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|_| {
                        Err(Error::new(ErrorKind::Internal, "looking at backups ended in a defect"))
                    })
                })
                .collect()
        });
        let mut seen = Vec::with_capacity(records.len());
        for part in parts {
            seen.extend(part?);
        }
        Ok(seen)
    }

    /// Says why a backup does not count: its manifest, its signature or an object's size is wrong.
    fn fault(&self, record: &BackupRecord, keys: &[PublicKey]) -> Result<Option<String>> {
        let folder = self.layout.backup(&record.event.id);
        let checked = self.read_manifest(record).and_then(|(manifest, bytes)| {
            check_signature(&folder, &manifest, &bytes, keys)?;
            for object in &manifest.objects {
                let path = folder.join(&object.name);
                let there = path.symlink_metadata().map_err(|error| Error::io("read", &path, error))?;
                if !there.is_file() || there.len() != object.stored_size_bytes {
                    let message = format!(
                        "{}: expected {} bytes, found {}",
                        object.name,
                        object.stored_size_bytes,
                        there.len()
                    );
                    return Err(Error::new(ErrorKind::Corrupt, message));
                }
            }
            Ok(())
        });
        match checked {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    fn remove(
        &self,
        removed: &[RemovedBackup],
        policy: &RetentionPolicy,
        key: Option<&SigningKey>,
        ctx: &Context,
    ) -> Result<PruneOutcome> {
        // Refused as a whole before anything goes, as far as that is known now.
        for backup in removed {
            ctx.check()?;
            self.lock_unread(&backup.id)?;
        }
        let mut outcome = PruneOutcome { removed: Vec::new(), freed_bytes: 0, entries: Vec::new() };
        for batch in removed.chunks(PRUNE_BATCH) {
            let (done, total) = (outcome.removed.len() as u64, Some(removed.len() as u64));
            ctx.progress(Progress { stage: "prune", object: &batch[0].id, done, total, unit: "objects" });
            outcome.entries.push(self.remove_batch(batch, policy, key)?);
            outcome.removed.extend_from_slice(batch);
            outcome.freed_bytes += batch.iter().map(|backup| backup.size_bytes).sum::<u64>();
        }
        Ok(outcome)
    }

    /// Removes some backups: journal, entry, bytes, journal.
    fn remove_batch(
        &self,
        batch: &[RemovedBackup],
        policy: &RetentionPolicy,
        key: Option<&SigningKey>,
    ) -> Result<u64> {
        let _unread = batch.iter().map(|backup| self.lock_unread(&backup.id)).collect::<Result<Vec<_>>>()?;
        let backups: Vec<PrunedBackup> = batch
            .iter()
            .map(|backup| PrunedBackup { id: backup.id.clone(), manifest_sha256: backup.manifest_sha256 })
            .collect();
        let event = PruneEvent { policy: policy.describe(), backups };
        let cosigner = self.cosigner(key)?;
        let journal = PruneJournal { backups: event.backups.clone() }.write(self)?;
        let appended = self.log().append(cosigner.as_ref(), &Context::new(), |state| {
            // A hold needs no repository lock: it may have come since the plan.
            let state = state()?;
            let held =
                |backup: &&PrunedBackup| state.live(&backup.id).is_none_or(|record| record.held.is_some());
            match event.backups.iter().find(held) {
                None => Ok(Event::Prune(event.clone())),
                Some(backup) => {
                    let message = format!("the backup {} was put under a hold meanwhile", backup.id);
                    Err(Error::new(ErrorKind::Mismatch, message).with_hint("make the plan again"))
                }
            }
        });
        let entry = match appended {
            Ok(entry) => entry,
            Err(error) => {
                // Left to `recover` when the entry may have been written before the failure.
                let unwritten =
                    |state: LogState| event.backups.iter().all(|backup| state.live(&backup.id).is_some());
                if self.log().state().is_ok_and(unwritten) {
                    self.durable.remove_file(&journal)?;
                }
                return Err(error);
            }
        };
        for backup in &event.backups {
            self.remove_backup(backup)?;
        }
        self.durable.remove_file(&journal)?;
        Ok(entry)
    }

    /// Locks a backup's manifest against readers.
    fn lock_unread(&self, id: &str) -> Result<Unlocking> {
        let file = Unlocking(durable::open_read(self.layout.backup(id).join(MANIFEST))?);
        match file.0.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let message = format!("the backup {id} is being read and cannot be pruned");
                Err(Error::new(ErrorKind::InUse, message).with_hint("wait for the restore or drill to end"))
            }
            Err(TryLockError::Error(error)) => {
                tracing::debug!(%error, "no lock on the manifest");
                Ok(file)
            }
            Ok(()) => Ok(file),
        }
    }
}
