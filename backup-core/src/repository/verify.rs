//! Verifying a repository, in levels, on all cores.
//!
//! `attestore verify` calls [`Repository::verify`]; it reads the log (`logread`) and the manifests (`read`), hands
//! the objects to `objects`, and asks a backend about the contents ([`ContentCheck`]). It writes nothing, takes no lock that
//! stops a writer, and never stops at the first thing that is wrong.
//!
//! | level | what it adds |
//! |---|---|
//! | `present` | log; manifest against log; signature; every file there with its size and no other |
//! | `digests` | SHA-256 of every stored file |
//! | `decoded` | age, zstd and its checksum, SHA-256 of the plain bytes |
//! | `contents` | what the backend says: integrity, chains |
//!
//! What cannot be verified for want of an identity makes the verdict `cannot-verify`, when it was asked for.

use std::collections::BTreeSet;

use audit_chain::report::{ChainReport, Verdict};

use super::entry::BackupRecord;
use super::finding::{
    BackupReport, Level, LogReport, RepositoryFinding as Finding, RepositoryFindingKind as Kind, VerifyReport,
};
use super::logread::{LogRead, extends};
use super::objects::{Work, check_contents, list_files, verify_objects};
use super::read::{ReadOptions, StoredBackup};
use super::{LATEST, Repository, parse_root};
use crate::context::Context;
use crate::encrypt::Identities;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::LogPosition;
use crate::signing::PublicKey;
use crate::traits::{BackupObjects, Check};

/// How many backups are open at once.
const BATCH: usize = 64;

/// Asks a backend whether the contents of a backup are sound.
pub trait ContentCheck: Sync {
    /// Checks the contents: a database's own integrity check, its chains against the manifest.
    ///
    /// # Errors
    /// When the contents cannot be checked at all; what is wrong with them is in the report.
    fn check(&self, backup: &dyn BackupObjects, ctx: &Context) -> Result<ContentReport>;
}

/// What a backend says of the contents of a backup.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContentReport {
    /// The checks, one line each.
    pub checks: Vec<Check>,
    /// The reports on the chains.
    pub chains: Vec<ChainReport>,
}

/// Which backups to verify. The log is verified in any case, and whether every backup that it names is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// None.
    Log,
    /// One, by id or [`LATEST`](super::LATEST).
    One(&'a str),
    /// All of them.
    All,
}

/// How to verify.
#[derive(Default)]
pub struct VerifyOptions<'a> {
    /// How far to go; by default as far as the identities and the content check at hand allow.
    pub level: Option<Level>,
    /// What opens encrypted objects.
    pub identities: Identities,
    /// The keys of which one must have signed every backup.
    pub public_keys: Vec<PublicKey>,
    /// A checkpoint of this repository's log that was kept elsewhere (the text of a signed note).
    pub checkpoint: Option<String>,
    /// What checks the contents.
    pub contents: Option<&'a dyn ContentCheck>,
    /// How many objects to verify at once; 0 means one per core.
    pub jobs: usize,
}

impl std::fmt::Debug for VerifyOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyOptions")
            .field("level", &self.level)
            .field("public_keys", &self.public_keys)
            .field("checkpoint", &self.checkpoint.is_some())
            .field("contents", &self.contents.is_some())
            .finish_non_exhaustive()
    }
}

/// A backup as verification finds it.
enum Opened {
    /// Its manifest holds: its objects are next.
    Work(Box<Work>),
    /// It cannot be opened.
    Closed(Box<BackupReport>),
    /// A prune is taking it away.
    Leaving,
}

impl Repository {
    /// Verifies the log and the backups that are asked for.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the backup asked for is not there, and should not be; [`ErrorKind::Malformed`] and
    /// [`ErrorKind::Mismatch`] for a checkpoint that is not one of this repository;
    /// [`ErrorKind::InvalidInput`] when contents are asked for without a check; [`ErrorKind::Cancelled`]; when
    /// something cannot be read at all. What is wrong is in the report: see [`VerifyReport::ok`].
    pub fn verify(
        &self,
        which: Which<'_>,
        options: &VerifyOptions<'_>,
        ctx: &Context,
    ) -> Result<VerifyReport> {
        if options.level == Some(Level::Contents) && options.contents.is_none() {
            let message = "contents can only be verified by the backend that made them";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let outside = options.checkpoint.as_deref().map(|text| self.log().outside(text)).transpose()?;
        let sizes: Vec<u64> = outside.iter().map(|outside| outside.size).collect();
        let (read, present, missing) = self.settled(&sizes)?;
        let mut findings = read.findings.clone();
        findings.extend(self.foreign_signature(&read, &options.public_keys));
        let mut extended = None;
        if let Some(outside) = &outside {
            let wrong = outside.check(&read, self.log().verifier()?);
            extended = Some(wrong.is_none());
            findings.extend(wrong);
        }
        findings.extend(missing);
        let records = self.chosen(which, &read, &present)?;
        let mut backups = Vec::new();
        let mut positions = Vec::new();
        for batch in records.chunks(BATCH) {
            self.verify_batch(batch, &read, options, &mut backups, &mut positions, &mut findings, ctx)?;
        }
        self.check_positions(&positions, &mut findings)?;
        let mut report = self.conclude(&read, extended, backups, findings, options);
        report.all = which == Which::All;
        Ok(report)
    }

    /// Finds the records of the backups that are asked for and there; what is missing is a finding already.
    fn chosen<'a>(
        &self,
        which: Which<'_>,
        read: &'a LogRead,
        present: &BTreeSet<String>,
    ) -> Result<Vec<&'a BackupRecord>> {
        let there = |record: &&BackupRecord| present.contains(&record.event.id);
        let missing = read.state.live_records().any(|record| !there(&record));
        match which {
            Which::Log => Ok(Vec::new()),
            Which::All => Ok(read.state.live_records().filter(there).collect()),
            Which::One(LATEST) if missing => {
                Ok(read.state.live_records().rev().find(there).into_iter().collect())
            }
            Which::One(id) if read.state.live(id).is_some_and(|record| !there(&record)) => Ok(Vec::new()),
            Which::One(id) => Ok(vec![self.find(&read.state, id)?]),
        }
    }

    /// Verifies some backups, in the order of the log.
    #[allow(clippy::too_many_arguments)] // One pass over the batches with what they add to.
    fn verify_batch(
        &self,
        records: &[&BackupRecord],
        read: &LogRead,
        options: &VerifyOptions<'_>,
        backups: &mut Vec<BackupReport>,
        positions: &mut Vec<(String, LogPosition)>,
        findings: &mut Vec<Finding>,
        ctx: &Context,
    ) -> Result<()> {
        let mut works = Vec::new();
        let mut closed = Vec::new();
        for record in records {
            ctx.check()?;
            match self.open_for_verify(record, read, options, findings, ctx)? {
                Opened::Work(work) => works.push(*work),
                Opened::Closed(report) => closed.push(*report),
                Opened::Leaving => {}
            }
        }
        verify_objects(&mut works, options, findings, ctx)?;
        for work in &mut works {
            check_contents(work, options, findings, ctx)?;
            let manifest = work.stored.manifest();
            positions.push((manifest.id.clone(), manifest.log.clone()));
        }
        closed.extend(works.into_iter().map(|work| work.report));
        let place = |id: &str| records.iter().position(|record| record.event.id == id);
        closed.sort_by_key(|report| place(&report.id));
        backups.append(&mut closed);
        Ok(())
    }

    /// Opens a backup and checks what needs no object.
    fn open_for_verify(
        &self,
        record: &BackupRecord,
        read: &LogRead,
        options: &VerifyOptions<'_>,
        findings: &mut Vec<Finding>,
        ctx: &Context,
    ) -> Result<Opened> {
        let id = &record.event.id;
        let mut report = BackupReport {
            id: id.clone(),
            ok: false,
            verdict: Verdict::Findings,
            level: Level::Present,
            signed_by: None,
            signer_trusted: false,
            objects: 0,
            bytes: 0,
            checks: Vec::new(),
            chains: Vec::new(),
            not_verified: Vec::new(),
        };
        let keys = |public_keys: &[PublicKey]| ReadOptions {
            identities: options.identities.clone(),
            public_keys: public_keys.to_vec(),
        };
        let mut unfit = None;
        let opened = self.open_record(record, &keys(&options.public_keys), ctx).or_else(|error| {
            // An unfit signature is a finding; the rest is verified all the same where it can be.
            match error.kind() {
                ErrorKind::Unsigned | ErrorKind::KeyRejected => {
                    unfit = Some(manifest_finding(&error).backup(id));
                    self.open_record(record, &keys(&[]), ctx)
                }
                _ => Err(error),
            }
        });
        let stored = match opened {
            Ok(stored) => stored,
            // What this machine lacks says nothing of the backup.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Cancelled
                        | ErrorKind::Permission
                        | ErrorKind::NoSpace
                        | ErrorKind::Unavailable
                ) =>
            {
                return Err(error);
            }
            Err(error) if error.kind() == ErrorKind::InUse => return Ok(Opened::Leaving),
            Err(error) if error.kind() == ErrorKind::NotFound && self.is_pruned(id)? => {
                return Ok(Opened::Leaving);
            }
            Err(error) if error.kind() == ErrorKind::Newer => {
                report.verdict = Verdict::CannotVerify;
                report.not_verified.push(error.to_string());
                return Ok(Opened::Closed(Box::new(report)));
            }
            Err(error) => {
                findings.push(manifest_finding(&error).backup(id).entry(record.sequence));
                return Ok(Opened::Closed(Box::new(report)));
            }
        };
        findings.extend(unfit);
        report.signed_by = stored.signed_by().map(PublicKey::to_minisign);
        report.signer_trusted = stored
            .signed_by()
            .is_some_and(|key| options.public_keys.iter().any(|trusted| trusted.key() == key.key()));
        self.check_manifest(&stored, read, record, findings);
        list_files(stored.folder(), stored.manifest(), findings)?;
        Ok(Opened::Work(Box::new(Work { stored, report })))
    }

    /// Reports whether a prune of this backup is on record by now.
    fn is_pruned(&self, id: &str) -> Result<bool> {
        Ok(self.log().read(&[])?.state.live(id).is_none())
    }

    /// With keys given, what signs the log's checkpoint beside the log's own key must be one of them.
    fn foreign_signature(&self, read: &LogRead, trusted: &[PublicKey]) -> Option<Finding> {
        let note = read.note.as_ref().filter(|_| !trusted.is_empty())?;
        let foreign = note.signatures().iter().filter(|line| line.name != self.header.log_origin).count();
        if foreign == 0 {
            return None;
        }
        let name = self.cosigner_name();
        let verifiers: Vec<_> = trusted.iter().filter_map(|key| key.note_verifier(&name).ok()).collect();
        let why = match note.verify(&verifiers) {
            Ok(signed_by) if signed_by.len() >= foreign => return None,
            Ok(_) => "one of its signatures is of none of the keys given".to_owned(),
            Err(error) => error.to_string(),
        };
        let what = format!("the log's checkpoint is not signed as the keys given would sign it: {why}");
        Some(Finding::new(Kind::LogCheckpointMismatch, what))
    }

    /// Checks what a manifest says against the log.
    fn check_manifest(
        &self,
        stored: &StoredBackup,
        read: &LogRead,
        record: &BackupRecord,
        findings: &mut Vec<Finding>,
    ) {
        let manifest = stored.manifest();
        let mut differs = |what: &str, expected: String, found: String| {
            if expected != found {
                let explains = format!("the manifest and the log differ in {what}");
                let finding = Finding::new(Kind::ManifestAltered, explains).differs(expected, found);
                findings.push(finding.backup(&manifest.id).entry(record.sequence));
            }
        };
        differs("the repository's id", self.header.id.clone(), manifest.repository.clone());
        differs("the time", record.event.created_at.to_string(), manifest.created_at.to_string());
        differs("the stored size", record.event.size_bytes.to_string(), manifest.stored_bytes().to_string());
        differs(
            "the signer",
            record.event.signed_by.clone().unwrap_or_default(),
            manifest.signed_by.clone().unwrap_or_default(),
        );
        if let Some(previous) = &manifest.previous {
            let logged = read.state.records().iter().any(|earlier| {
                earlier.sequence < record.sequence
                    && earlier.event.id == previous.id
                    && earlier.event.manifest_sha256 == previous.manifest_sha256
            });
            if !logged {
                let explains = format!("the log does not have the backup before it, {}", previous.id);
                findings.push(Finding::new(Kind::LogRewritten, explains).backup(&manifest.id));
            }
        }
    }

    /// Every manifest holds the log's position when it was written: the log must extend each of them.
    fn check_positions(
        &self,
        positions: &[(String, LogPosition)],
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        if positions.is_empty() {
            return Ok(());
        }
        let sizes: Vec<u64> = positions.iter().map(|(_, log)| log.size).collect();
        let read = self.log().read(&sizes)?;
        for (id, log) in positions {
            let what = format!("what the manifest of {id} says");
            let finding = match parse_root(&log.root) {
                Some(root) => extends(&read, log.size, &root, &what),
                None => {
                    Some(Finding::new(Kind::ManifestMalformed, "the log's root is not base64 of 32 bytes"))
                }
            };
            findings.extend(finding.map(|finding| finding.backup(id)));
        }
        Ok(())
    }

    fn conclude(
        &self,
        read: &LogRead,
        extends: Option<bool>,
        mut backups: Vec<BackupReport>,
        findings: Vec<Finding>,
        options: &VerifyOptions<'_>,
    ) -> VerifyReport {
        for backup in &mut backups {
            let wrong = findings.iter().any(|finding| finding.backup.as_ref() == Some(&backup.id));
            if wrong {
                backup.verdict = Verdict::Findings;
            }
            backup.ok = backup.verdict == Verdict::Intact;
        }
        let verdict =
            if !findings.is_empty() || backups.iter().any(|backup| backup.verdict == Verdict::Findings) {
                Verdict::Findings
            } else if backups.iter().any(|backup| backup.verdict == Verdict::CannotVerify) {
                Verdict::CannotVerify
            } else {
                Verdict::Intact
            };
        let cosigned_by = read.note.as_ref().and_then(|note| {
            options.public_keys.iter().find_map(|key| {
                let verifier = key.note_verifier(&self.cosigner_name()).ok()?;
                note.verify(&[verifier]).ok().map(|_| key.to_minisign())
            })
        });
        VerifyReport {
            ok: verdict == Verdict::Intact,
            verdict,
            repository: self.header.id.clone(),
            all: false,
            log: LogReport { position: read.position.clone(), extends, cosigned_by },
            backups,
            findings,
            notes: read.notes.clone(),
        }
    }
}

/// Makes a finding of why a backup cannot be opened.
fn manifest_finding(error: &Error) -> Finding {
    let kind = match error.kind() {
        ErrorKind::Unsigned => Kind::Unsigned,
        ErrorKind::KeyRejected => Kind::UnknownKey,
        ErrorKind::NotFound => Kind::ManifestMissing,
        ErrorKind::Malformed => Kind::ManifestMalformed,
        ErrorKind::Tampered if error.to_string().contains("repository's log") => Kind::ManifestAltered,
        ErrorKind::Tampered => Kind::SignatureInvalid,
        _ => Kind::ManifestMalformed,
    };
    Finding::new(kind, error.to_string())
}
