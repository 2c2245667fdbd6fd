//! Proves a backup, or a whole repository with its log.

use std::path::{Path, PathBuf};

use audit_chain::checkpoint::ORIGIN_PREFIX;
use audit_chain::report::Verdict;
use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::repository::{
    LOG_ORIGIN_PREFIX, Level, Repository, RepositoryFindingKind as Kind, VerifyOptions as CoreOptions,
    VerifyReport, Which,
};
use zeroize::Zeroizing;

use crate::backup::open_repository;
use crate::chain::read_document;
use crate::contents::Contents;
use crate::keys;

/// What to verify and with what.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// A backup's id or `latest`; ignored where `all` is set.
    pub id: Option<String>,
    /// Every backup.
    pub all: bool,
    /// Public keys of which one must have signed: files or text.
    pub public_keys: Vec<String>,
    /// The file of the age identity that opens the objects.
    pub identity: Option<PathBuf>,
    /// A checkpoint of the log that was kept elsewhere.
    pub checkpoint: Option<PathBuf>,
    /// Secrets as `NAME=REF`.
    pub secrets: Vec<String>,
    /// How deep; by default [`Level::Contents`] for one backup and [`Level::Decoded`] for all, as far as keys allow.
    pub level: Option<Level>,
    /// The file of the key that signs the log's entry.
    pub sign_with: Option<PathBuf>,
    /// Where scratch folders are made; `None` takes the system's temporary folder.
    pub scratch: Option<PathBuf>,
    /// Whether the log gets no entry about it.
    pub unrecorded: bool,
}

/// Verifies, and writes an entry about it into the log where that can be written.
///
/// # Errors
/// When the repository, a key or the checkpoint cannot be read. What is wrong with the backups is in the report.
pub fn verify(repository: &str, options: &VerifyOptions, ctx: &Context) -> Result<VerifyReport> {
    let repository = open_repository(repository)?;
    let public_keys = keys::public_keys(&options.public_keys)?;
    let key = keys::signing_key(options.sign_with.as_deref())?;
    let contents =
        Contents { scratch: options.scratch.clone(), keys: keys::key_ring(&options.secrets, &[], &[])? };
    let secrets = keys::read_secrets(&options.secrets)?;
    // Without a level it goes as far as keys allow; into the contents of all backups only when that is asked for.
    let shallow = options.all && options.level.is_none();
    let core = CoreOptions {
        level: options.level,
        identities: keys::identities(options.identity.as_deref())?,
        public_keys,
        checkpoint: options.checkpoint.as_deref().map(log_checkpoint).transpose()?,
        contents: if shallow { None } else { Some(&contents) },
        ..CoreOptions::default()
    };
    let id = options.id.as_deref().unwrap_or(backup_core::repository::LATEST);
    let which = if options.all { Which::All } else { Which::One(id) };
    let mut report = repository.verify(which, &core, ctx)?;
    if !secrets.is_empty() {
        compare_secrets(&repository, &secrets, &mut report)?;
    }
    if !options.unrecorded
        && let Err(error) = repository.record(report.to_event(), key.as_ref(), ctx)
    {
        report.notes.push(format!("this verification is not in the repository's log: {error}"));
    }
    Ok(report)
}

/// Compares the secrets at hand with the fingerprints of each backup that was verified (B5).
fn compare_secrets(
    repository: &Repository,
    secrets: &[(String, Zeroizing<Vec<u8>>)],
    report: &mut VerifyReport,
) -> Result<()> {
    for backup in &mut report.backups {
        // A manifest that cannot be read is a finding already.
        let Ok(shown) = repository.show(&backup.id) else { continue };
        for entry in keys::unfitting(&shown.manifest, secrets)? {
            backup.not_verified.push(keys::does_not_fit(&shown.manifest, entry));
            backup.ok = false;
            if backup.verdict == Verdict::Intact {
                backup.verdict = Verdict::CannotVerify;
            }
        }
        if backup.verdict == Verdict::CannotVerify && report.verdict == Verdict::Intact {
            (report.ok, report.verdict) = (false, Verdict::CannotVerify);
        }
    }
    Ok(())
}

/// Reads a checkpoint of a repository's log.
fn log_checkpoint(path: &Path) -> Result<String> {
    let malformed = |what: &str| {
        Error::new(ErrorKind::Malformed, format!("{}: {what}", path.display()))
            .with_hint("a checkpoint of a repository is what `attestore checkpoint REPO` printed")
    };
    let text = String::from_utf8(read_document(path)?)
        .map_err(|_| malformed("a checkpoint is UTF-8 text, this is not"))?;
    if text.starts_with(ORIGIN_PREFIX) {
        return Err(malformed("this is a checkpoint of a chain, for `attestore chain verify`"));
    }
    if !text.starts_with(LOG_ORIGIN_PREFIX) {
        return Err(malformed(&format!(
            "expected a note that begins with {LOG_ORIGIN_PREFIX}, found another text"
        )));
    }
    Ok(text)
}

/// Returns the kind of error that a report stands for, for exit statuses; `None` when nothing is wrong, or what is
/// wrong is not about single bytes, signatures or keys.
#[must_use]
pub fn kind_of(report: &VerifyReport) -> Option<ErrorKind> {
    let any = |kinds: &[Kind]| report.findings.iter().any(|finding| kinds.contains(&finding.kind));
    if any(&[Kind::ObjectMissing, Kind::ObjectAltered, Kind::ObjectUndecodable]) {
        Some(ErrorKind::Corrupt)
    } else if any(&[
        Kind::ManifestMissing,
        Kind::ManifestAltered,
        Kind::ManifestMalformed,
        Kind::SignatureInvalid,
        Kind::HeaderAltered,
        Kind::LogEdited,
    ]) {
        Some(ErrorKind::Tampered)
    } else if any(&[Kind::Unsigned]) {
        Some(ErrorKind::Unsigned)
    } else if any(&[Kind::UnknownKey]) {
        // With another key than the operator's the log's checkpoint does not fit either.
        Some(ErrorKind::KeyRejected)
    } else if any(&[Kind::LogCheckpointMismatch]) {
        Some(ErrorKind::Tampered)
    } else {
        None
    }
}
