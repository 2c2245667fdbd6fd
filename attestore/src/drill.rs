//! Drills: a restore into a scratch place, checked, timed, reported, thrown away.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use audit_chain::report::ChainReport;
use backup_core::context::Context;
use backup_core::durable::Durable;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::Digest;
use backup_core::repository::{DrillEvent, Event, ReadOptions};
use backup_core::traits::{BackupObjects as _, Check, Restore as _};
use backup_sqlite::{RestoreOptions, SqliteRestore};
use jiff::Timestamp;
use serde::Serialize;

use crate::backup::open_repository;
use crate::contents::{Contents, databases, is_about_contents};
use crate::keys;
use crate::repository::refuse_inside;
use crate::restore::{check_secrets, sql_check};
use crate::words::age;

/// How a drill is made.
#[derive(Debug, Clone, Default)]
pub struct DrillOptions {
    /// The folder for the scratch databases; `None` takes the system's temporary folder.
    pub scratch: Option<PathBuf>,
    /// Questions that the restored databases must answer with something but NULL, 0 or nothing.
    pub checks: Vec<String>,
    /// Where the report goes: `FILE.md` or `FILE.json`.
    pub report: Option<PathBuf>,
    /// The file of the age identity that opens the objects.
    pub identity: Option<PathBuf>,
    /// Public keys of which one must have signed: files or text.
    pub public_keys: Vec<String>,
    /// Secrets as `NAME=REF`.
    pub secrets: Vec<String>,
    /// The file of the key that signs the log's entry.
    pub sign_with: Option<PathBuf>,
}

/// What a drill showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DrillReport {
    /// Whether every check held.
    pub ok: bool,
    /// The backup.
    pub backup: String,
    /// When the backup was made.
    pub created_at: Timestamp,
    /// When the drill began.
    pub started_at: Timestamp,
    /// How old the backup was then, in seconds: what a disaster at that moment would have lost.
    pub age_seconds: i64,
    /// How long it took until everything was restored and proven, in seconds.
    pub restore_seconds: f64,
    /// The key that signed the backup, where it was checked.
    pub signed_by: Option<String>,
    /// The databases that were restored.
    pub databases: Vec<String>,
    /// The checks.
    pub checks: Vec<Check>,
    /// The chains.
    pub chains: Vec<ChainReport>,
    /// What the backup does not hold.
    pub not_included: Vec<String>,
    /// What is worth saying.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Makes a drill of one backup; `id` may be `latest`.
///
/// # Errors
/// When the repository, a key or the scratch folder cannot be used. What is wrong with the backup is in the report.
pub fn drill(repository: &str, id: &str, options: &DrillOptions, ctx: &Context) -> Result<DrillReport> {
    let repository = open_repository(repository)?;
    if let Some(path) = &options.report {
        refuse_report(path)?;
        refuse_inside(&repository, path)?;
    }
    let key = keys::signing_key(options.sign_with.as_deref())?;
    let (started_at, start) = (Timestamp::now(), Instant::now());
    let read = ReadOptions {
        identities: keys::identities(options.identity.as_deref())?,
        public_keys: keys::public_keys(&options.public_keys)?,
    };
    let backup = repository.objects(id, &read, ctx)?;
    let manifest = backup.manifest();
    check_secrets(manifest, &options.secrets)?;
    let contents =
        Contents { scratch: options.scratch.clone(), keys: keys::key_ring(&options.secrets, &[], &[])? };
    let (mut checks, mut chains) = (Vec::new(), Vec::new());
    for object in databases(manifest) {
        let scratch = contents.scratch()?;
        let restore = SqliteRestore::with_options(
            scratch.path().join("drill.db"),
            RestoreOptions {
                object: Some(object.clone()),
                checks: options.checks.iter().map(|sql| sql_check(sql)).collect(),
                keys: contents.keys.clone(),
                ..RestoreOptions::default()
            },
        );
        match restore.plan(&backup, ctx).and_then(|plan| restore.execute(&plan, &backup, ctx)) {
            Ok(done) => {
                checks.push(Check {
                    name: format!("{object} restored"),
                    ok: true,
                    detail: "into scratch".into(),
                });
                checks.extend(done.checks);
                chains.extend(done.chains);
            }
            // What is wrong with the backup, or what it does not answer; what stops this machine is no result.
            Err(error) if is_about_contents(&error) || error.kind() == ErrorKind::InvalidInput => {
                checks.push(Check {
                    name: format!("{object} restored"),
                    ok: false,
                    detail: error.full_text(),
                });
            }
            Err(error) => return Err(error),
        }
    }
    if checks.is_empty() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("backup {} holds no database to drill with", manifest.id),
        ));
    }
    let mut report = DrillReport {
        ok: checks.iter().all(|check| check.ok),
        backup: manifest.id.clone(),
        created_at: manifest.created_at,
        started_at,
        age_seconds: started_at.as_second() - manifest.created_at.as_second(),
        restore_seconds: seconds(start.elapsed()),
        signed_by: backup.signed_by().map(ToString::to_string),
        databases: databases(manifest),
        checks,
        chains,
        not_included: manifest.not_included.clone(),
        notes: Vec::new(),
    };
    let report_sha256 = options.report.as_deref().map(|path| write_report(path, &report)).transpose()?;
    let event = DrillEvent {
        backup: report.backup.clone(),
        ok: report.ok,
        report_sha256,
        details: Default::default(),
    };
    if let Err(error) = repository.record(Event::Drill(event), key.as_ref(), ctx) {
        report.notes.push(format!("this drill is not in the repository's log: {error}"));
    }
    Ok(report)
}

/// Rounds to milliseconds.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000.0).round() / 1_000.0
}

/// Refuses a report that could not be written, before the drill.
fn refuse_report(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("{} exists", path.display())));
    }
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("md" | "json") => Ok(()),
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{}: expected a report named FILE.md or FILE.json", path.display()),
        )),
    }
}

/// Writes the report and returns the digest of its bytes.
fn write_report(path: &Path, report: &DrillReport) -> Result<Digest> {
    let text = if path.extension().is_some_and(|ending| ending == "json") {
        serde_json::to_string_pretty(report)
            .map_err(|error| Error::new(ErrorKind::Internal, format!("cannot write the report: {error}")))?
            + "\n"
    } else {
        markdown(report)
    };
    Durable::default().write_new(path, text.as_bytes(), 0o644)?;
    Ok(Digest::of(text.as_bytes()))
}

/// Writes the report as Markdown: verdict first.
#[must_use]
pub fn markdown(report: &DrillReport) -> String {
    let verdict = if report.ok { "restored and proven" } else { "FAILED" };
    let mut text = format!(
        "# Restore drill: {verdict}\n\nBackup `{}` of {:.0}, restored on {:.0} in {:.3} s. At that moment it was {} old.\n\n",
        report.backup,
        report.created_at,
        report.started_at,
        report.restore_seconds,
        age(report.age_seconds)
    );
    let signer = report.signed_by.as_deref().unwrap_or("nobody that was checked");
    let _ = writeln!(text, "Signed by {signer}.\n\n| check | holds | detail |\n|---|---|---|");
    for check in &report.checks {
        let holds = if check.ok { "yes" } else { "**no**" };
        let _ = writeln!(text, "| {} | {holds} | {} |", cell(&check.name), cell(&check.detail));
    }
    if !report.chains.is_empty() {
        text.push_str("\n| chain | records | verdict | diagnosis |\n|---|---|---|---|\n");
        for chain in &report.chains {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                cell(&chain.format),
                chain.records,
                chain.verdict.name(),
                cell(&chain.diagnosis)
            );
        }
    }
    text.push_str("\nNot in the backup:\n\n");
    for line in &report.not_included {
        let _ = writeln!(text, "- {}", cell(line));
    }
    text
}

/// Keeps a value inside its cell, and from being taken for markup or obeyed by a terminal.
fn cell(text: &str) -> String {
    let blank = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(blank).collect::<String>().replace('|', "\\|").replace('<', "&lt;")
}
