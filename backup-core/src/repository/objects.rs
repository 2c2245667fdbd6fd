//! Verifying what lies in backups' folders: files, stored bytes, plain bytes, contents.
//!
//! `verify` calls it for the backups whose manifests hold; the objects of all of them are one queue, the
//! largest first, which every core takes from. Each object is read once: digests of stored and plain bytes are
//! taken in the same pass.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use audit_chain::report::Verdict;

use super::finding::{BackupReport, Level, RepositoryFinding as Finding, RepositoryFindingKind as Kind};
use super::layout::{MANIFEST, SIGNATURE};
use super::read::{StoredBackup, recorded};
use super::verify::VerifyOptions;
use crate::context::{Context, Progress};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Encryption, Manifest, ObjectEntry};
use crate::seal;
use crate::traits::BackupObjects as _;

/// One backup while it is verified.
pub(super) struct Work {
    pub(super) stored: StoredBackup,
    pub(super) report: BackupReport,
}

/// What came of one object.
struct Outcome<'a> {
    /// The place of its backup among the works.
    at: usize,
    object: &'a ObjectEntry,
    result: Result<Level>,
}

/// Finds files that the manifest does not list.
pub(super) fn list_files(folder: &Path, manifest: &Manifest, findings: &mut Vec<Finding>) -> Result<()> {
    let mut known: BTreeSet<String> = manifest.objects.iter().map(|object| object.name.clone()).collect();
    known.extend([MANIFEST.to_owned(), SIGNATURE.to_owned()]);
    let mut folders = vec![String::new()];
    while let Some(inside) = folders.pop() {
        let path = folder.join(&inside);
        for name in super::folder_names(&path)? {
            let name = if inside.is_empty() { name } else { format!("{inside}/{name}") };
            let path = folder.join(&name);
            let kind = path.symlink_metadata().map_err(|error| Error::io("read", &path, error))?;
            let parent = format!("{name}/");
            if kind.is_dir() && known.iter().any(|known| known.starts_with(&parent)) {
                folders.push(name);
            } else if !kind.is_file() || !known.contains(&name) {
                let what = format!("{name} is in the backup's folder and the manifest does not list it");
                findings.push(Finding::new(Kind::ExtraFile, what).backup(&manifest.id).object(&name));
            }
        }
    }
    Ok(())
}

/// Verifies the objects of all backups on as many threads as asked for, and writes into their reports how far.
pub(super) fn verify_objects(
    works: &mut [Work],
    options: &VerifyOptions<'_>,
    findings: &mut Vec<Finding>,
    ctx: &Context,
) -> Result<()> {
    let wanted = options.level.unwrap_or(Level::Decoded).min(Level::Decoded);
    let manifests: Vec<Manifest> = works.iter().map(|work| work.stored.manifest().clone()).collect();
    let outcomes = run_queue(works, &manifests, options, ctx);
    for work in works.iter_mut() {
        work.report.verdict = Verdict::Intact;
        work.report.level = wanted;
    }
    for Outcome { at, object, result } in outcomes {
        let Some(report) = works.get_mut(at).map(|work| &mut work.report) else { continue };
        report.objects += 1;
        report.bytes += object.stored_size_bytes;
        match result {
            Ok(level) if level < wanted => {
                report.level = report.level.min(level);
                report.not_verified.push(format!(
                    "{} is encrypted and no identity is given: only its stored bytes were verified",
                    object.name
                ));
                if options.level.is_some() {
                    report.verdict = Verdict::CannotVerify;
                }
            }
            Ok(_) => {}
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            // Its stored bytes are the recorded ones: the wrong identity is no damage.
            Err(error) if error.kind() == ErrorKind::KeyRejected => {
                report.level = report.level.min(Level::Digests);
                report.not_verified.push(format!("{error}: only its stored bytes were verified"));
                report.verdict = Verdict::CannotVerify;
            }
            Err(error) => findings.push(object_finding(&error).backup(&report.id).object(&object.name)),
        }
    }
    Ok(())
}

/// Verifies every object; the outcomes are sorted by backup and name.
fn run_queue<'a>(
    works: &[Work],
    manifests: &'a [Manifest],
    options: &VerifyOptions<'_>,
    ctx: &Context,
) -> Vec<Outcome<'a>> {
    let mut queue: Vec<(usize, &Work, &ObjectEntry)> = Vec::new();
    for (at, (work, manifest)) in works.iter().zip(manifests).enumerate() {
        queue.extend(manifest.objects.iter().map(|object| (at, work, object)));
    }
    queue.sort_by_key(|(_, _, object)| std::cmp::Reverse(object.stored_size_bytes));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if options.jobs == 0 { cores } else { options.jobs }.min(queue.len());
    let next = AtomicUsize::new(0);
    let total = Some(queue.len() as u64);
    let outcomes: Mutex<Vec<Outcome<'a>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&(at, work, object)) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = verify_object(&work.stored, object, options, ctx);
                    let done = {
                        let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                        outcomes.push(Outcome { at, object, result });
                        outcomes.len() as u64
                    };
                    ctx.progress(Progress {
                        stage: "verify",
                        object: &object.name,
                        done,
                        total,
                        unit: "objects",
                    });
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by(|one, other| (one.at, &one.object.name).cmp(&(other.at, &other.object.name)));
    outcomes
}

/// Verifies one object as far as asked for and possible.
fn verify_object(
    stored: &StoredBackup,
    object: &ObjectEntry,
    options: &VerifyOptions<'_>,
    ctx: &Context,
) -> Result<Level> {
    ctx.check()?;
    let level = options.level.unwrap_or(Level::Decoded).min(Level::Decoded);
    let file = stored.open_stored(object)?;
    if level == Level::Present {
        return Ok(Level::Present);
    }
    let sealed = object.encryption == Encryption::Age && options.identities.is_empty();
    if level == Level::Digests || sealed {
        seal::check_stored(&object.name, file, &recorded(object), ctx)?;
        return Ok(Level::Digests);
    }
    match stored.open_object(object).and_then(seal::OpenReader::finish) {
        Ok(_) => Ok(Level::Decoded),
        // Damage outside the frame, or a header that no identity opens: the stored bytes decide which it is.
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::KeyRejected) => {
            seal::check_stored(&object.name, file, &recorded(object), ctx)?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Makes a finding of why an object does not verify.
fn object_finding(error: &Error) -> Finding {
    let text = error.to_string();
    match error {
        Error::Digest { what, expected, found, .. } if what.contains("stored") => {
            Finding::new(Kind::ObjectAltered, text).differs(expected, found)
        }
        Error::Digest { expected, found, .. } => {
            Finding::new(Kind::ObjectUndecodable, text).differs(expected, found)
        }
        _ if text.ends_with("is missing") => Finding::new(Kind::ObjectMissing, text),
        _ => Finding::new(Kind::ObjectUndecodable, text),
    }
}

/// Asks the backend about the contents, where that is asked for or possible.
pub(super) fn check_contents(
    work: &mut Work,
    options: &VerifyOptions<'_>,
    findings: &mut Vec<Finding>,
    ctx: &Context,
) -> Result<()> {
    let wanted = options.level.is_none_or(|level| level == Level::Contents);
    let sound = work.report.level == Level::Decoded
        && !findings.iter().any(|finding| finding.backup.as_ref() == Some(&work.report.id));
    let Some(check) = options.contents.filter(|_| wanted && sound) else { return Ok(()) };
    ctx.check()?;
    let id = work.report.id.clone();
    let wrong = |what: String| Finding::new(Kind::ContentsWrong, what).backup(&id);
    match check.check(&work.stored, ctx) {
        Ok(report) => {
            for failed in report.checks.iter().filter(|check| !check.ok) {
                findings.push(wrong(format!("{}: {}", failed.name, failed.detail)));
            }
            work.report.checks = report.checks;
            work.report.chains = report.chains;
            work.report.level = Level::Contents;
        }
        Err(error) => match error.kind() {
            ErrorKind::Corrupt | ErrorKind::Tampered | ErrorKind::Mismatch | ErrorKind::Malformed => {
                findings.push(wrong(error.full_text()));
            }
            ErrorKind::Unsupported => work.report.not_verified.push(error.full_text()),
            ErrorKind::KeyRejected => {
                work.report.not_verified.push(error.full_text());
                work.report.verdict = Verdict::CannotVerify;
            }
            // No room for scratch files, an interruption: that says nothing about the backup.
            _ => return Err(error),
        },
    }
    Ok(())
}
