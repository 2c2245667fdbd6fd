//! What a verification of a repository finds: typed, serializable, stable.
//!
//! `logread` and `verify` make findings; callers print them. A finding is something wrong; a note is worth
//! saying; what could not be checked for want of a key is neither, but the verdict `cannot-verify`.

use audit_chain::report::{ChainReport, Verdict};
use serde::{Deserialize, Serialize};

use super::entry::{Event, VerifyEvent};
use crate::manifest::LogPosition;
use crate::traits::Check;

/// How far a verification goes; each level holds the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The manifest is the logged one, its signature holds, every object is there with its size, nothing else is.
    Present,
    /// Every stored object has its digest.
    Digests,
    /// Every object decrypts and decompresses to bytes with their digest.
    Decoded,
    /// A backend finds the contents sound.
    Contents,
}

impl Level {
    /// Returns the level's name as it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Digests => "digests",
            Self::Decoded => "decoded",
            Self::Contents => "contents",
        }
    }
}

/// The kinds of findings about a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RepositoryFindingKind {
    /// `repository.json` is not the one that the log began with.
    HeaderAltered,
    /// An entry of the log is not what was written, or does not continue the one before.
    LogEdited,
    /// The log's checkpoint is damaged, not signed by the log's key, or does not fit the entries.
    LogCheckpointMismatch,
    /// The log is shorter than a checkpoint or manifest says: entries were cut off or an old copy was put back.
    LogTruncated,
    /// The log has entries that no checkpoint covers.
    LogAhead,
    /// The log does not extend an earlier checkpoint: its history was written anew.
    LogRewritten,
    /// The entries say what this program never writes (a prune of what was not there …).
    LogImpossible,
    /// A backup that the log names is gone without a prune entry.
    BackupMissing,
    /// A backup is there that the log does not name.
    BackupUnlogged,
    /// A backup that was pruned is there again.
    BackupReadded,
    /// A backup has no manifest.
    ManifestMissing,
    /// The manifest is not the one that was logged: the backup was replaced or rolled back.
    ManifestAltered,
    /// The manifest cannot be read.
    ManifestMalformed,
    /// A signature is asked for, or was there by the manifest, and there is none.
    Unsigned,
    /// The signature does not verify.
    SignatureInvalid,
    /// It is signed by a key that is not trusted.
    UnknownKey,
    /// An object is gone.
    ObjectMissing,
    /// An object's stored bytes are not the recorded ones.
    ObjectAltered,
    /// An object does not decrypt or decompress, or not to the recorded bytes.
    ObjectUndecodable,
    /// A file that the manifest does not list.
    ExtraFile,
    /// A check of the contents failed.
    ContentsWrong,
}

impl RepositoryFindingKind {
    /// Returns the kind's name as it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HeaderAltered => "header-altered",
            Self::LogEdited => "log-edited",
            Self::LogCheckpointMismatch => "log-checkpoint-mismatch",
            Self::LogTruncated => "log-truncated",
            Self::LogAhead => "log-ahead",
            Self::LogRewritten => "log-rewritten",
            Self::LogImpossible => "log-impossible",
            Self::BackupMissing => "backup-missing",
            Self::BackupUnlogged => "backup-unlogged",
            Self::BackupReadded => "backup-readded",
            Self::ManifestMissing => "manifest-missing",
            Self::ManifestAltered => "manifest-altered",
            Self::ManifestMalformed => "manifest-malformed",
            Self::Unsigned => "unsigned",
            Self::SignatureInvalid => "signature-invalid",
            Self::UnknownKey => "unknown-key",
            Self::ObjectMissing => "object-missing",
            Self::ObjectAltered => "object-altered",
            Self::ObjectUndecodable => "object-undecodable",
            Self::ExtraFile => "extra-file",
            Self::ContentsWrong => "contents-wrong",
        }
    }
}

impl std::fmt::Display for RepositoryFindingKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that is wrong with a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryFinding {
    /// What kind of wrong.
    pub kind: RepositoryFindingKind,
    /// The backup it is about.
    pub backup: Option<String>,
    /// The object or file it is about.
    pub object: Option<String>,
    /// The log's entry it is about, from 0.
    pub entry: Option<u64>,
    /// What the evidence says.
    pub expected: Option<String>,
    /// What is there.
    pub found: Option<String>,
    /// One sentence.
    pub explains: String,
}

impl RepositoryFinding {
    /// Makes a finding with its sentence.
    pub(super) fn new(kind: RepositoryFindingKind, explains: impl Into<String>) -> Self {
        Self {
            kind,
            backup: None,
            object: None,
            entry: None,
            expected: None,
            found: None,
            explains: explains.into(),
        }
    }

    pub(super) fn backup(mut self, id: &str) -> Self {
        self.backup = Some(id.to_owned());
        self
    }

    pub(super) fn object(mut self, name: &str) -> Self {
        self.object = Some(name.to_owned());
        self
    }

    pub(super) fn entry(mut self, sequence: u64) -> Self {
        self.entry = Some(sequence);
        self
    }

    pub(super) fn differs(mut self, expected: impl ToString, found: impl ToString) -> Self {
        self.expected = Some(expected.to_string());
        self.found = Some(found.to_string());
        self
    }
}

/// What was seen of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogReport {
    /// How many entries, and the root over them.
    #[serde(flatten)]
    pub position: LogPosition,
    /// Whether the log was shown to extend the earlier checkpoint; absent when none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extends: Option<bool>,
    /// The trusted key that signed the newest checkpoint beside the log's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosigned_by: Option<String>,
}

/// What was seen of one backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupReport {
    /// The backup's id.
    pub id: String,
    /// Whether the verdict is [`Verdict::Intact`].
    pub ok: bool,
    /// The verdict.
    pub verdict: Verdict,
    /// How far it was verified.
    pub level: Level,
    /// The public key under which the manifest's signature was verified.
    pub signed_by: Option<String>,
    /// Whether the caller trusts that key; otherwise only the manifest vouches for it.
    pub signer_trusted: bool,
    /// How many objects were verified.
    pub objects: u64,
    /// How many stored bytes they have.
    pub bytes: u64,
    /// What was checked of the contents.
    pub checks: Vec<Check>,
    /// The reports on the chains in the contents.
    pub chains: Vec<ChainReport>,
    /// What could not be verified, one sentence each.
    pub not_verified: Vec<String>,
}

/// The whole result of a verification. Not to be ignored: [`VerifyReport::ok`] says whether all is well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[must_use]
pub struct VerifyReport {
    /// Whether the verdict is [`Verdict::Intact`].
    pub ok: bool,
    /// The verdict.
    pub verdict: Verdict,
    /// The repository's id.
    pub repository: String,
    /// Whether all backups were asked for.
    pub all: bool,
    /// The log.
    pub log: LogReport,
    /// The backups, in the order of the log.
    pub backups: Vec<BackupReport>,
    /// What is wrong.
    pub findings: Vec<RepositoryFinding>,
    /// What is worth saying, one sentence each.
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// Returns the log's entry about this verification, for [`Repository::record`](super::Repository::record).
    #[must_use]
    pub fn to_event(&self) -> Event {
        Event::Verify(VerifyEvent {
            backups: match self.all {
                true => Vec::new(),
                false => self.backups.iter().map(|backup| backup.id.clone()).collect(),
            },
            all_before: self.all.then_some(self.log.position.size),
            level: self.backups.iter().map(|backup| backup.level).min().unwrap_or(Level::Present),
            verdict: self.verdict,
            findings: self.findings.len() as u64,
        })
    }

    /// Reports whether a finding of this kind is listed.
    #[must_use]
    pub fn has(&self, kind: RepositoryFindingKind) -> bool {
        self.findings.iter().any(|finding| finding.kind == kind)
    }
}
