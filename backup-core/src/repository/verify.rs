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

use std::collections::BTreeMap;

use audit_chain::report::{ChainReport, Verdict};

use super::entry::BackupRecord;
use super::finding::{
    BackupReport, Level, LogReport, RepositoryFinding as Finding, RepositoryFindingKind as Kind, VerifyReport,
};
use super::logread::{LogRead, extends};
use super::objects::{Work, check_contents, list_files, verify_objects};
use super::read::{ReadOptions, StoredBackup};
use super::{Repository, parse_root};
use crate::context::Context;
use crate::encrypt::Identities;
use crate::error::{Error, ErrorKind, Result};
use crate::signing::PublicKey;
use crate::traits::{BackupObjects, Check};

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

/// Which backups to verify. The log is verified in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// None: the log, and whether every backup is there.
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

impl Repository {
    /// Verifies the log and the backups that are asked for.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the backup asked for is not there; [`ErrorKind::Malformed`] and
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
        let read = self.log().read(&sizes)?;
        let mut findings = read.findings.clone();
        let mut extended = None;
        if let Some(outside) = &outside {
            let wrong = outside.check(&read, self.log().verifier()?);
            extended = Some(wrong.is_none());
            findings.extend(wrong);
        }
        let (present, missing) = self.presence(&read)?;
        let records: Vec<&BackupRecord> = match which {
            Which::Log => Vec::new(),
            Which::All => {
                read.state.live_records().filter(|record| present.contains(&record.event.id)).collect()
            }
            Which::One(id) => vec![self.find(&read.state, id)?],
        };
        let about = |finding: &Finding| match which {
            Which::One(_) => records.iter().any(|record| finding.backup.as_ref() == Some(&record.event.id)),
            _ => true,
        };
        findings.extend(missing.into_iter().filter(about));

        let mut works = Vec::new();
        let mut backups = Vec::new();
        for record in &records {
            ctx.check()?;
            let (work, report, found) = self.open_for_verify(record, &read, options, ctx)?;
            findings.extend(found);
            works.extend(work);
            backups.extend(report);
        }
        self.check_positions(&works, &mut findings)?;
        verify_objects(&mut works, options, &mut findings, ctx)?;
        for work in &mut works {
            check_contents(work, options, &mut findings, ctx)?;
        }
        backups.extend(works.into_iter().map(|work| work.report));
        let order: BTreeMap<&str, u64> =
            records.iter().map(|record| (record.event.id.as_str(), record.sequence)).collect();
        backups.sort_by_key(|backup| order.get(backup.id.as_str()).copied());
        Ok(self.conclude(&read, extended, backups, findings, options))
    }

    /// Opens a backup and checks what needs no object: a report alone means that it cannot be opened.
    #[allow(clippy::type_complexity)]
    fn open_for_verify(
        &self,
        record: &BackupRecord,
        read: &LogRead,
        options: &VerifyOptions<'_>,
        ctx: &Context,
    ) -> Result<(Option<Work>, Option<BackupReport>, Vec<Finding>)> {
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
        let mut findings = Vec::new();
        let opened = self.open_record(record, &keys(&options.public_keys), ctx).or_else(|error| {
            // An unfit signature is a finding; the rest is verified all the same where it can be.
            match error.kind() {
                ErrorKind::Unsigned | ErrorKind::KeyRejected => {
                    findings.push(manifest_finding(&error).backup(id));
                    self.open_record(record, &keys(&[]), ctx)
                }
                _ => Err(error),
            }
        });
        let stored = match opened {
            Ok(stored) => stored,
            Err(error) if matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::InUse) => {
                return Err(error);
            }
            Err(error) if error.kind() == ErrorKind::Newer => {
                report.verdict = Verdict::CannotVerify;
                report.not_verified.push(error.to_string());
                return Ok((None, Some(report), findings));
            }
            Err(error) => {
                let finding = manifest_finding(&error).backup(id).entry(record.sequence);
                if findings.iter().all(|found| found.kind != finding.kind) {
                    findings.push(finding);
                }
                return Ok((None, Some(report), findings));
            }
        };
        report.signed_by = stored.signed_by().map(PublicKey::to_minisign);
        report.signer_trusted = stored
            .signed_by()
            .is_some_and(|key| options.public_keys.iter().any(|trusted| trusted.key() == key.key()));
        self.check_manifest(&stored, read, record, &mut findings);
        list_files(stored.folder(), stored.manifest(), &mut findings)?;
        Ok((Some(Work { stored, report }), None, findings))
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
    fn check_positions(&self, works: &[Work], findings: &mut Vec<Finding>) -> Result<()> {
        let positions = works.iter().map(|work| (work, &work.stored.manifest().log));
        let sizes: Vec<u64> = positions.clone().map(|(_, log)| log.size).collect();
        if sizes.is_empty() {
            return Ok(());
        }
        let read = self.log().read(&sizes)?;
        for (work, log) in positions {
            let id = &work.stored.manifest().id;
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
