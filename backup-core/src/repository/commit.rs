//! Making a backup: snapshots into staging, manifest, signature, entry in the log, one rename.
//!
//! `attestore` calls [`Repository::backup`]; it drives the backends' [`Snapshot`]s and holds the repository's
//! lock from the first byte to the rename, so that two backups at once are one refusal (PITFALLS 20).
//!
//! When the process dies: before the log's entry the backup never was, after it the next holder of the lock
//! puts it in place (`recover`). At no moment is a part of a backup under `backups/` (PITFALLS 5, 21).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::report::{ChainReport, FindingKind, Verdict};
use jiff::Timestamp;
use serde::Serialize;

use super::entry::{BackupEvent, Event, LogState};
use super::layout::{MANIFEST, SIGNATURE, make_id};
use super::lock::Lock;
use super::staging::Staging;
use super::{Repository, RetentionPolicy};
use crate::context::{Context, Progress};
use crate::encrypt::Recipients;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{ChainEntry, Digest, Extends, Manifest, PreviousBackup, SecretEntry};
use crate::names;
use crate::seal::{DEFAULT_LEVEL, SealOptions};
use crate::signing::SigningKey;
use crate::traits::{ChainRequest, Snapshot, SnapshotOutcome, SourceFacts};

/// How many earlier backups are looked through for the last one with a chain.
const CONTINUITY_DEPTH: usize = 64;

/// What to do when a chain has findings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFindings {
    /// Make the backup and record them: a backup of tampered data is evidence.
    #[default]
    Record,
    /// Refuse the backup; nothing is left of it.
    Refuse,
}

/// One source of a backup with the chains to verify in it.
pub struct SourceRequest<'a> {
    /// The source.
    pub snapshot: &'a dyn Snapshot,
    /// Its chains. One without a checkpoint is verified against the backup before (B3).
    pub chains: Vec<ChainRequest>,
}

impl std::fmt::Debug for SourceRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let about = self.snapshot.describe();
        f.debug_struct("SourceRequest").field("snapshot", &about).field("chains", &self.chains).finish()
    }
}

/// What to back up and how.
#[derive(Debug)]
pub struct BackupRequest<'a> {
    /// The sources, at least one.
    pub sources: Vec<SourceRequest<'a>>,
    /// The backup's name; without one it is named by its time (`20261120T153000Z`).
    pub name: Option<String>,
    /// Whom to encrypt to; `None` stores plain zstd.
    pub recipients: Option<Recipients>,
    /// The key that signs the manifest and, beside the log's own, its checkpoint.
    pub signing_key: Option<&'a SigningKey>,
    /// Fingerprints of the secrets that the data needs.
    pub secrets: Vec<SecretEntry>,
    /// What the backup does not hold, besides what the sources say.
    pub not_included: Vec<String>,
    /// The zstd level, 1 to 19.
    pub level: i32,
    /// Compression threads per object; `None` lets the machine decide.
    pub jobs: Option<u32>,
    /// How many sources are read at once; 1 by default.
    pub parallel: usize,
    /// What to do when a chain has findings.
    pub on_findings: OnFindings,
    /// Whether chains are compared with the backup before.
    pub continuity: bool,
    /// How long to wait for another backup to end. By default not at all.
    pub lock_wait: Duration,
    /// What to keep once the backup is committed; `None` prunes nothing.
    pub retention: Option<RetentionPolicy>,
    /// The time that the backup is given instead of the clock's.
    pub now: Option<Timestamp>,
}

impl Default for BackupRequest<'_> {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            name: None,
            recipients: None,
            signing_key: None,
            secrets: Vec::new(),
            not_included: Vec::new(),
            level: DEFAULT_LEVEL,
            jobs: None,
            parallel: 1,
            on_findings: OnFindings::default(),
            continuity: true,
            lock_wait: Duration::ZERO,
            retention: None,
            now: None,
        }
    }
}

/// The reports on one source's chains.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceReport {
    /// The source's name.
    pub source: String,
    /// The reports, in the order of the requests.
    pub chains: Vec<ChainReport>,
}

/// A backup that was committed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackupOutcome {
    /// Its id.
    pub id: String,
    /// Its folder.
    pub path: PathBuf,
    /// The size of its stored objects, in bytes.
    pub size_bytes: u64,
    /// Its manifest.
    pub manifest: Manifest,
    /// The digest of the manifest's bytes.
    pub manifest_sha256: Digest,
    /// The reports on its chains, by source.
    pub reports: Vec<SourceReport>,
    /// What retention removed, when it was asked for.
    pub pruned: Option<super::PruneOutcome>,
    /// Why retention did not run, when it was asked for and failed: the backup is committed all the same.
    pub prune_error: Option<String>,
}

impl Repository {
    /// Makes a backup.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when the name is taken; [`ErrorKind::InvalidName`];
    /// [`ErrorKind::Locked`], naming the holder; [`ErrorKind::Tampered`] when the log is not whole, or chains
    /// have findings and `on_findings` refuses them; what the sources say. After any error nothing is listed.
    pub fn backup(&self, request: &BackupRequest<'_>, ctx: &Context) -> Result<BackupOutcome> {
        check_request(request)?;
        let span = ctx.span();
        let _entered = span.enter();
        let _lock = Lock::acquire(&self.layout.lock(), "backup", request.lock_wait, ctx)?;
        let state = self.recover(ctx)?;
        let created_at = request.now.unwrap_or_else(Timestamp::now);
        let id = self.new_id(request.name.as_deref(), created_at, &state)?;
        for source in &request.sources {
            ctx.check()?;
            source.snapshot.preflight(ctx)?;
        }

        let options = SealOptions {
            level: request.level,
            workers: request.jobs,
            recipients: request.recipients.clone(),
            ..SealOptions::default()
        };
        let staging = Staging::new(&self.layout, &self.durable, options, ctx)?;
        let mut manifest = Manifest::new(&id, &self.header.id, created_at);
        let taken = self.take_all(request, &id, &state, &staging, ctx)?;
        let mut reports = Vec::new();
        for taken in taken {
            reports.push(note(taken, request, &mut manifest)?);
        }
        self.complete(&mut manifest, request, &state, &staging)?;
        let (manifest_sha256, path) = self.commit(&manifest, request, staging, ctx)?;
        tracing::info!(backup = %id, objects = manifest.objects.len(), "backup committed");

        let mut outcome = BackupOutcome {
            id,
            path,
            size_bytes: manifest.stored_bytes(),
            manifest,
            manifest_sha256,
            reports,
            pruned: None,
            prune_error: None,
        };
        if let Some(policy) = &request.retention {
            match self.prune_locked(policy, request.signing_key, ctx) {
                Ok(pruned) => outcome.pruned = Some(pruned),
                Err(error) => outcome.prune_error = Some(error.to_string()),
            }
        }
        Ok(outcome)
    }

    fn new_id(&self, name: Option<&str>, time: Timestamp, state: &LogState) -> Result<String> {
        let taken = |id: &str| state.live(id).is_some() || self.layout.backup(id).symlink_metadata().is_ok();
        match name {
            None => Ok(make_id(time, |id| state.record(id).is_some() || taken(id))),
            Some(name) => {
                names::validate_name(name)?;
                if taken(name) {
                    let message = format!("a backup named {name:?} exists already");
                    return Err(Error::new(ErrorKind::AlreadyExists, message)
                        .with_hint("a backup is never overwritten: choose another name, or none"));
                }
                Ok(name.to_owned())
            }
        }
    }

    /// Takes every source into staging, at most `request.parallel` of them at once. After a failure no further one is begun.
    fn take_all(
        &self,
        request: &BackupRequest<'_>,
        id: &str,
        state: &LogState,
        staging: &Staging,
        ctx: &Context,
    ) -> Result<Vec<Taken>> {
        let total = request.sources.len();
        let (next, done, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        let results: Mutex<Vec<Option<Result<Taken>>>> = Mutex::new((0..total).map(|_| None).collect());
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(source) = request.sources.get(at) else { return };
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let count = done.load(Ordering::Relaxed) as u64;
                ctx.progress(Progress {
                    stage: "snapshot",
                    object: id,
                    done: count,
                    total: Some(total as u64),
                    unit: "objects",
                });
                let taken = self.take(source, at, request, state, staging, ctx);
                stop.fetch_or(taken.is_err(), Ordering::Relaxed);
                done.fetch_add(1, Ordering::Relaxed);
                if let Some(place) = results.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at) {
                    *place = Some(taken);
                }
            }
        };
        let threads = request.parallel.clamp(1, total.max(1));
        if threads == 1 {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(work);
                }
            });
        }
        // What was not begun has none; the error of the one that failed stands before it or after it.
        results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
    }

    /// Takes one source into staging.
    fn take(
        &self,
        source: &SourceRequest<'_>,
        number: usize,
        request: &BackupRequest<'_>,
        state: &LogState,
        staging: &Staging,
        ctx: &Context,
    ) -> Result<Taken> {
        let name = source.snapshot.describe().name;
        let mut chains = source.chains.clone();
        let mut earlier: Vec<Option<String>> = vec![None; chains.len()];
        if request.continuity {
            for (chain, earlier) in chains.iter_mut().zip(&mut earlier) {
                if chain.checkpoint.is_none()
                    && let Some((id, points)) = self.last_points(state, &name, chain)
                {
                    chain.checkpoint = Some(points);
                    *earlier = Some(id);
                }
            }
        }
        let sinks = staging.of_source(number)?;
        let SnapshotOutcome { facts, chains: found } = source.snapshot.snapshot(&chains, &sinks, ctx)?;
        if sinks.finished() == 0 {
            let message = format!("the source {name:?} wrote no object: that is no backup of it");
            return Err(Error::new(ErrorKind::Internal, message));
        }
        if found.len() != chains.len() {
            let message = format!("the source {name:?} reports {} of {} chains", found.len(), chains.len());
            return Err(Error::new(ErrorKind::Internal, message));
        }
        Ok(Taken { name, facts, found, chains, earlier })
    }

    /// Returns where a chain stood in the newest earlier backup that has it and is what the log says.
    fn last_points(
        &self,
        state: &LogState,
        source: &str,
        chain: &ChainRequest,
    ) -> Option<(String, ChainCheckpoint)> {
        let table = table_of(chain);
        for record in state.live_records().rev().take(CONTINUITY_DEPTH) {
            let Ok((manifest, _)) = self.read_manifest(record) else { continue };
            let same = |entry: &ChainEntry| {
                entry.source == source && entry.table == table && entry.format == chain.format.name()
            };
            if let Some(entry) = manifest.chains.into_iter().find(|entry| same(entry)) {
                return Some((manifest.id, entry.points));
            }
        }
        None
    }

    /// Fills in what the manifest says beside the sources.
    fn complete(
        &self,
        manifest: &mut Manifest,
        request: &BackupRequest<'_>,
        state: &LogState,
        staging: &Staging,
    ) -> Result<()> {
        staging.check()?;
        manifest.objects = staging.objects();
        manifest.secrets.clone_from(&request.secrets);
        manifest.encrypted_to = request.recipients.as_ref().map(Recipients::to_strings).unwrap_or_default();
        for sentence in &request.not_included {
            if !manifest.not_included.contains(sentence) {
                manifest.not_included.push(sentence.clone());
            }
        }
        manifest.log = self.log().position(&Context::new())?;
        manifest.previous = state.live_records().next_back().map(|record| PreviousBackup {
            id: record.event.id.clone(),
            manifest_sha256: record.event.manifest_sha256,
        });
        manifest.signed_by = request.signing_key.map(|key| key.public_key().to_minisign());
        Ok(())
    }

    /// Writes manifest and signature, then the log's entry, then renames.
    fn commit(
        &self,
        manifest: &Manifest,
        request: &BackupRequest<'_>,
        mut staging: Staging,
        ctx: &Context,
    ) -> Result<(Digest, PathBuf)> {
        let bytes = manifest.to_canonical_json()?;
        let manifest_sha256 = Digest::of(&bytes);
        if let Some(key) = request.signing_key {
            let comment = format!("attestore backup {} of repository {}", manifest.id, self.header.id);
            staging.add(SIGNATURE, key.sign_detached(&bytes, &comment)?.as_bytes())?;
        }
        staging.add(MANIFEST, &bytes)?;
        staging.seal()?;
        ctx.check()?;
        let event = Event::Backup(BackupEvent {
            id: manifest.id.clone(),
            manifest_sha256,
            created_at: manifest.created_at,
            size_bytes: manifest.stored_bytes(),
            objects: manifest.objects.len() as u64,
            sources: manifest
                .sources
                .iter()
                .map(|source| format!("{}:{}", source.kind, source.name))
                .collect(),
            signed_by: manifest.signed_by.clone(),
            chains: worst(manifest),
        });
        let cosigner = self.cosigner(request.signing_key)?;
        // From here on the backup is decided: cancelling no longer stops it, and dying only delays it.
        staging.keep();
        if let Err(error) = self.log().append(cosigner.as_ref(), &Context::new(), |_| Ok(event)) {
            let logged = |state: &LogState| {
                state.live(&manifest.id).is_some_and(|record| record.event.manifest_sha256 == manifest_sha256)
            };
            if self.log().read(&[]).is_ok_and(|read| !logged(&read.state)) {
                staging.release();
            }
            return Err(error);
        }
        let path = self.layout.backup(&manifest.id);
        staging.publish(&path)?;
        Ok((manifest_sha256, path))
    }
}

/// A source that was taken.
struct Taken {
    name: String,
    facts: SourceFacts,
    found: Vec<ChainReport>,
    chains: Vec<ChainRequest>,
    /// The backup that each chain was compared with.
    earlier: Vec<Option<String>>,
}

/// Notes what a source says in the manifest.
fn note(taken: Taken, request: &BackupRequest<'_>, manifest: &mut Manifest) -> Result<SourceReport> {
    let Taken { name, facts, found, chains, earlier } = taken;
    for ((chain, report), earlier) in chains.iter().zip(&found).zip(earlier) {
        let entry = chain_entry(&name, chain, report, earlier)?;
        if request.on_findings == OnFindings::Refuse && entry.verdict != Verdict::Intact {
            let message = format!("the chain {} of {name:?}: {}", entry.table, entry.diagnosis);
            return Err(Error::new(ErrorKind::Tampered, message)
                .with_hint("verify the chain to see the findings; nothing was backed up"));
        }
        manifest.chains.push(entry);
    }
    for sentence in &facts.not_included {
        if !manifest.not_included.contains(sentence) {
            manifest.not_included.push(sentence.clone());
        }
    }
    manifest.sources.push(facts);
    Ok(SourceReport { source: name, chains: found })
}

fn check_request(request: &BackupRequest<'_>) -> Result<()> {
    if request.sources.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "a backup needs at least one source"));
    }
    if let Some(name) = &request.name {
        names::validate_name(name)?;
    }
    if let Some(policy) = &request.retention {
        policy.check()?;
    }
    let mut seen = BTreeSet::new();
    for source in &request.sources {
        let about = source.snapshot.describe();
        if !seen.insert((about.kind.clone(), about.name.clone())) {
            let message = format!("two sources are called {}:{}", about.kind, about.name);
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .with_hint("give one of them another name: NAME=PATH"));
        }
    }
    Ok(())
}

fn table_of(chain: &ChainRequest) -> &str {
    chain.table.as_deref().unwrap_or_else(|| chain.format.table())
}

/// Reports whether a finding says that a chain does not extend what it was.
const fn breaks_continuity(kind: FindingKind) -> bool {
    matches!(
        kind,
        FindingKind::Truncated
            | FindingKind::MissingChain
            | FindingKind::Rewritten
            | FindingKind::UnhashedEdited
            | FindingKind::Stripped
            | FindingKind::CheckpointMismatch
    )
}

fn chain_entry(
    source: &str,
    chain: &ChainRequest,
    report: &ChainReport,
    earlier: Option<String>,
) -> Result<ChainEntry> {
    let mut finding_kinds = BTreeMap::new();
    for finding in &report.findings {
        *finding_kinds.entry(finding.kind.name().to_owned()).or_insert(0) += 1;
    }
    let unbroken = !report.findings.iter().any(|finding| breaks_continuity(finding.kind));
    Ok(ChainEntry {
        source: source.to_owned(),
        table: table_of(chain).to_owned(),
        format: report.format.clone(),
        profile: chain.format.definition().map(str::to_owned),
        records: report.records,
        verdict: report.verdict,
        findings: report.findings_total,
        finding_kinds,
        diagnosis: report.diagnosis.clone(),
        points: ChainCheckpoint::from_report(report)?,
        extends: earlier.map(|backup| Extends { backup, ok: unbroken }),
    })
}

/// Returns the worst verdict on a backup's chains.
fn worst(manifest: &Manifest) -> Option<Verdict> {
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Intact => 0,
        Verdict::CannotVerify => 1,
        Verdict::Findings => 2,
    };
    manifest.chains.iter().map(|chain| chain.verdict).max_by_key(rank)
}
