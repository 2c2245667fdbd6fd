//! Status: is everything that the plan promises so, now? For cron, Nagios, Prometheus and people.
//!
//! `attestore status --plan` calls [`status`]. It reads the repository's log, the folder and the newest manifest; no object is opened
//! and nothing is written, so that it can run every minute. Each problem is one line with what to do about it.
//!
//! Each secret at hand costs one Argon2id (64 MiB, about a tenth of a second): that is what a fingerprint is.
//!
//! Clocks: the newest backup is the newest in the log's order. One that is dated after this machine's clock is a problem of its own,
//! because its age says nothing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use audit_chain::report::Verdict;
use backup_core::context::Context;
use backup_core::durable::{self, Durable};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::Manifest;
use backup_core::repository::{BackupSummary, LOG_ORIGIN_PREFIX, Overview, Repository};
use jiff::Timestamp;
use serde::Serialize;

use crate::backup::open_repository;
use crate::hooks::{self, Job};
use crate::keys;
use crate::plan::Plan;
use crate::repository::refuse_inside;
use crate::words::{age, bytes};

/// How far a clock may be ahead of this machine's before that is a problem, in seconds.
const CLOCK_SLACK: i64 = 300;
/// How many backups the growth is read from.
const GROWTH_OVER: usize = 30;
/// Fewer days of growth left than this are a problem.
const DAYS_LEFT: u64 = 14;
/// The largest checkpoint that is read, in bytes.
const MAX_CHECKPOINT_BYTES: u64 = 1 << 16;

/// How a status is taken.
#[derive(Debug, Clone, Default)]
pub struct StatusOptions {
    /// The instant that ages are counted to, instead of the clock's.
    pub now: Option<Timestamp>,
    /// Whether the commands run that check what others back up.
    pub run_checks: bool,
    /// The file for Prometheus' textfile collector, replaced in one step.
    pub prometheus: Option<PathBuf>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Its name, stable: `backup-age`, `drill`, `verification`, `continuity` …
    pub check: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}

/// Figures, for graphs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// How many backups.
    pub backups: u64,
    /// The newest backup.
    pub newest: Option<String>,
    /// When it was made.
    pub newest_at: Option<Timestamp>,
    /// How old it is, in seconds.
    pub newest_age_seconds: Option<i64>,
    /// Its stored size, in bytes.
    pub newest_bytes: Option<u64>,
    /// The stored size of all backups, in bytes.
    pub stored_bytes: u64,
    /// Bytes free on the repository's file system.
    pub free_bytes: u64,
    /// Stored bytes that are added a day, over the newest backups.
    pub growth_bytes_per_day: Option<u64>,
    /// When the newest good drill was made.
    pub drilled_at: Option<Timestamp>,
    /// How long its restore took, in seconds.
    pub drill_seconds: Option<f64>,
    /// When the newest good verification was made.
    pub verified_at: Option<Timestamp>,
    /// How many entries the log has.
    pub log_entries: u64,
    /// How many of them the checkpoint kept elsewhere covers.
    pub checkpoint_entries: Option<u64>,
}

/// The whole status. Not to be ignored: [`Status::ok`] says whether all is well.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[must_use]
pub struct Status {
    /// Whether nothing is wrong or overdue.
    pub ok: bool,
    /// The plan's name.
    pub plan: String,
    /// The repository.
    pub repository: String,
    /// The instant that ages are counted to.
    pub checked_at: Timestamp,
    /// Everything that was looked at.
    pub items: Vec<Item>,
    /// Figures.
    pub figures: Figures,
    /// What is worth saying.
    pub notes: Vec<String>,
}

impl Status {
    /// Returns what is wrong or overdue.
    pub fn problems(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| !item.ok)
    }
}

/// Takes the status of a plan.
///
/// # Errors
/// When the plan's repository or keys cannot be read; what is wrong or overdue is in the result. Where a Prometheus file is asked
/// for, it is written in either case.
pub fn status(plan: &Plan, options: &StatusOptions, ctx: &Context) -> Result<Status> {
    let taken = take(plan, options, ctx);
    if let Some(path) = &options.prometheus {
        if let Ok(repository) = open_repository(&plan.repository()) {
            refuse_inside(&repository, path)?;
        }
        let text = prometheus(&plan.file.plan.name, taken.as_ref().ok());
        Durable::default().replace(path, text.as_bytes(), 0o644)?;
    }
    taken
}

fn take(plan: &Plan, options: &StatusOptions, ctx: &Context) -> Result<Status> {
    let repository = open_repository(&plan.repository())?;
    let mut looker = Looker {
        plan,
        now: options.now.unwrap_or_else(Timestamp::now),
        items: Vec::new(),
        notes: Vec::new(),
        figures: Figures::default(),
    };
    let seen = looker.log(&repository)?;
    let newest = seen.backups.last();
    let manifest = looker.newest(&repository, newest);
    looker.age(newest);
    looker.drill(&seen);
    looker.verification(&seen);
    looker.continuity(newest, manifest.as_ref());
    looker.signature(newest)?;
    looker.assets(newest, manifest.as_ref());
    looker.retention(&repository, &seen);
    looker.secrets(manifest.as_ref())?;
    looker.growth(&repository, &seen)?;
    if options.run_checks {
        looker.elsewhere(ctx)?;
    }
    Ok(Status {
        ok: looker.items.iter().all(|item| item.ok),
        plan: plan.file.plan.name.clone(),
        repository: plan.repository(),
        checked_at: looker.now,
        items: looker.items,
        figures: looker.figures,
        notes: looker.notes,
    })
}

/// Reads a checkpoint that is kept elsewhere; `None` when there is none yet.
pub(crate) fn kept_checkpoint(path: &Path) -> Result<Option<String>> {
    use std::io::Read as _;
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| Error::io("open", path, error))?,
    };
    let mut text = String::new();
    file.take(MAX_CHECKPOINT_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| Error::io("read", path, error))?;
    if !text.starts_with(LOG_ORIGIN_PREFIX) {
        let message =
            format!("{}: expected a checkpoint of a repository, found another text", path.display());
        return Err(Error::new(ErrorKind::Malformed, message)
            .with_hint("a checkpoint of a repository is what `attestore checkpoint REPO` printed"));
    }
    Ok(Some(text))
}

/// Looks at one thing after the other.
struct Looker<'a> {
    plan: &'a Plan,
    now: Timestamp,
    items: Vec<Item>,
    notes: Vec<String>,
    figures: Figures,
}

impl Looker<'_> {
    fn good(&mut self, check: &'static str, detail: impl Into<String>) {
        self.items.push(Item { check, ok: true, detail: detail.into(), action: None });
    }

    fn problem(&mut self, check: &'static str, detail: impl Into<String>, action: impl Into<String>) {
        self.items.push(Item { check, ok: false, detail: detail.into(), action: Some(action.into()) });
    }

    fn plan_path(&self) -> String {
        self.plan.path.display().to_string()
    }

    fn seconds_since(&self, time: Timestamp) -> i64 {
        self.now.as_second() - time.as_second()
    }

    /// The log: whole, and an extension of the checkpoint kept elsewhere.
    fn log(&mut self, repository: &Repository) -> Result<Overview> {
        let path = self.plan.file.repository.checkpoint.as_ref().map(|path| self.plan.resolve(path));
        let (mut kept, mut unusable) = (None, None);
        if let Some(path) = &path {
            match kept_checkpoint(path) {
                Ok(found) => kept = found,
                Err(error) => unusable = Some(error),
            }
        }
        let seen = match repository.overview(kept.as_deref()) {
            Err(error)
                if kept.is_some() && matches!(error.kind(), ErrorKind::Malformed | ErrorKind::Mismatch) =>
            {
                unusable = Some(error);
                kept = None;
                repository.overview(None)?
            }
            seen => seen?,
        };
        self.figures.log_entries = seen.position.size;
        self.figures.checkpoint_entries = seen.checkpoint_size;
        self.figures.backups = seen.backups.len() as u64;
        self.figures.stored_bytes = seen.backups.iter().map(|backup| backup.size_bytes).sum();
        let verify = format!("attestore verify {} --all", self.plan.repository());
        if seen.findings.is_empty() {
            self.good(
                "log",
                format!("{} entries, whole; every backup on record is there", seen.position.size),
            );
        }
        for finding in &seen.findings {
            self.problem(
                "log",
                format!("{}: {}", finding.kind, finding.explains),
                format!("see all of it: {verify}"),
            );
        }
        match (&path, &seen.not_extending, unusable) {
            (Some(path), _, Some(error)) => {
                let action = format!("keep a checkpoint of this repository: attestore checkpoint {} > {}", self.plan.repository(), path.display());
                self.problem("checkpoint", error.to_string(), action);
            }
            (Some(path), Some(finding), None) => self.problem(
                "checkpoint",
                format!("{}: {}", path.display(), finding.explains),
                "the repository was cut back or written anew: keep both, and find out who did it before another backup",
            ),
            (Some(path), None, None) if kept.is_some() => {
                let behind = seen.position.size.saturating_sub(seen.checkpoint_size.unwrap_or(0));
                let age_of = std::fs::metadata(path)
                    .and_then(|found| found.modified())
                    .ok()
                    .and_then(|time| Timestamp::try_from(time).ok())
                    .map(|time| format!(", kept {} ago", age(self.seconds_since(time).max(0))))
                    .unwrap_or_default();
                self.good("checkpoint", format!("the log extends the checkpoint kept elsewhere{age_of}; {behind} entries since"));
            }
            (Some(path), None, None) => self.problem(
                "checkpoint",
                format!("there is no checkpoint {}", path.display()),
                format!("attestore checkpoint {} > {}", self.plan.repository(), path.display()),
            ),
            (None, ..) => self.notes.push(
                "the plan names no checkpoint kept elsewhere: backups cut off the end would not be noticed".into(),
            ),
        }
        Ok(seen)
    }

    /// Reads the newest manifest.
    fn newest(&mut self, repository: &Repository, newest: Option<&BackupSummary>) -> Option<Manifest> {
        let newest = newest?;
        match repository.show(&newest.id) {
            Ok(shown) => Some(shown.manifest),
            Err(error) => {
                let action = format!("attestore verify {} {}", self.plan.repository(), newest.id);
                self.problem("newest-backup", error.to_string(), action);
                None
            }
        }
    }

    fn age(&mut self, newest: Option<&BackupSummary>) {
        let make = format!("make one: attestore backup --plan {}", self.plan_path());
        let Some(newest) = newest else {
            return self.problem("backup-age", "there is no backup", make);
        };
        let seconds = self.seconds_since(newest.created_at);
        self.figures.newest = Some(newest.id.clone());
        self.figures.newest_at = Some(newest.created_at);
        self.figures.newest_age_seconds = Some(seconds);
        self.figures.newest_bytes = Some(newest.size_bytes);
        let rpo = self.plan.file.objectives.rpo;
        if seconds < -CLOCK_SLACK {
            let detail = format!(
                "the newest backup {} is dated {}: a clock jumped, its age says nothing",
                newest.id,
                age(seconds)
            );
            self.problem(
                "clock",
                detail,
                "set the clock of the machine that makes backups (and this one's), then make a backup",
            );
        } else if newest.created_at < rpo.before(self.now) {
            let detail = format!(
                "the newest backup {} is {} old, the recovery point objective is {rpo}",
                newest.id,
                age(seconds)
            );
            self.problem("backup-age", detail, format!("{make}; then see why the schedule did not"));
        } else {
            self.good(
                "backup-age",
                format!("the newest backup {} is {} old (at most {rpo})", newest.id, age(seconds.max(0))),
            );
        }
    }

    fn drill(&mut self, seen: &Overview) {
        let every = self.plan.file.objectives.drill_every;
        let make = format!("attestore drill --plan {}", self.plan_path());
        let drills = seen.state.drills();
        let good = drills.iter().rev().find(|drill| drill.event.ok);
        self.figures.drilled_at = good.map(|drill| drill.time);
        self.figures.drill_seconds = good
            .and_then(|drill| drill.event.details.get("restore_seconds"))
            .and_then(serde_json::Value::as_f64);
        if let Some(last) = drills.last().filter(|drill| !drill.event.ok) {
            let detail = format!(
                "the newest drill, of backup {} {} ago, failed",
                last.event.backup,
                age(self.seconds_since(last.time).max(0))
            );
            self.problem("drill", detail, format!("read its report, mend what it says, then: {make}"));
        }
        match good {
            None => self.problem("drill", format!("no drill ever succeeded; one is due every {every}"), make),
            Some(drill) if self.seconds_since(drill.time) < -CLOCK_SLACK => self.problem(
                "clock",
                format!(
                    "the newest good drill is dated {}: a clock jumped",
                    age(self.seconds_since(drill.time))
                ),
                "set the clocks, then make a drill",
            ),
            Some(drill) if drill.time < every.before(self.now) => {
                let detail = format!(
                    "the newest good drill is {} old, one is due every {every}",
                    age(self.seconds_since(drill.time))
                );
                self.problem("drill", detail, make);
            }
            Some(drill) => {
                let detail = format!(
                    "the newest good drill is {} old (every {every})",
                    age(self.seconds_since(drill.time).max(0))
                );
                self.good("drill", detail);
            }
        }
        if let (Some(rto), Some(took)) = (self.plan.file.objectives.rto, self.figures.drill_seconds)
            && took > rto.get().as_secs_f64()
        {
            let detail = format!("the newest good drill took {took} s, the recovery time objective is {rto}");
            self.problem(
                "rto",
                detail,
                "a faster disk or a smaller database is needed, or a longer objective",
            );
        }
    }

    fn verification(&mut self, seen: &Overview) {
        let last = seen.state.verified();
        self.figures.verified_at = last.map(|last| last.time);
        let Some(every) = self.plan.file.objectives.verify_every else { return };
        let make = format!("attestore verify {} --all", self.plan.repository());
        match last {
            None => {
                self.problem("verification", format!("nothing was ever verified; due every {every}"), make);
            }
            Some(last) if last.time < every.before(self.now) => {
                let detail = format!(
                    "the newest good verification is {} old, one is due every {every}",
                    age(self.seconds_since(last.time))
                );
                self.problem("verification", detail, make);
            }
            Some(last) => {
                let detail = format!(
                    "the newest good verification ({}) is {} old (every {every})",
                    last.event.level.name(),
                    age(self.seconds_since(last.time).max(0))
                );
                self.good("verification", detail);
            }
        }
    }

    fn continuity(&mut self, newest: Option<&BackupSummary>, manifest: Option<&Manifest>) {
        let planned = self.plan.file.sources.iter().any(|source| !source.chains.is_empty());
        let (Some(newest), Some(manifest)) = (newest, manifest) else { return };
        if manifest.chains.is_empty() && !planned {
            return;
        }
        let mut good = 0;
        for chain in &manifest.chains {
            let name = format!("{} in {}.{}", chain.format, chain.source, chain.table);
            if let Some(extends) = chain.extends.as_ref().filter(|extends| !extends.ok) {
                let detail = format!(
                    "the chain {name} of {} does not extend the one in {}: {}",
                    newest.id, extends.backup, chain.diagnosis
                );
                self.problem(
                    "continuity",
                    detail,
                    format!(
                        "keep both backups (attestore hold) and look at the findings: attestore verify {} {}",
                        self.plan.repository(),
                        newest.id
                    ),
                );
            } else {
                match chain.verdict {
                    Verdict::Intact => good += 1,
                    Verdict::Findings => {
                        let detail = format!("the chain {name} of {}: {}", newest.id, chain.diagnosis);
                        self.problem(
                            "continuity",
                            detail,
                            format!("attestore verify {} {}", self.plan.repository(), newest.id),
                        );
                    }
                    Verdict::CannotVerify => {
                        let detail = format!(
                            "the chain {name} of {} could not be verified: {}",
                            newest.id, chain.diagnosis
                        );
                        self.problem(
                            "continuity",
                            detail,
                            "give the plan the secret or public key that it needs",
                        );
                    }
                }
            }
        }
        for source in &self.plan.file.sources {
            for chain in &source.chains {
                let held = manifest.chains.iter().any(|entry| {
                    entry.source == source.name.get_ref().as_str()
                        && (chain.table.as_ref().is_some_and(|table| *table == entry.table)
                            || entry.format == chain.format)
                });
                // A profile's name is in the profile: only formats by name are compared.
                if !held && !chain.format.ends_with(".toml") {
                    let detail = format!(
                        "the chain {} of {} was not verified in {}",
                        chain.format,
                        source.name.get_ref(),
                        newest.id
                    );
                    self.problem(
                        "continuity",
                        detail,
                        format!("attestore backup --plan {}", self.plan_path()),
                    );
                }
            }
        }
        if good == manifest.chains.len() && good > 0 {
            self.good(
                "continuity",
                format!("{good} chains of {} intact, each extending the backup before", newest.id),
            );
        }
    }

    fn signature(&mut self, newest: Option<&BackupSummary>) -> Result<()> {
        let trusted = keys::public_keys(&self.plan.public_keys())?;
        let signs = self.plan.file.repository.sign_with.is_some();
        let Some(newest) = newest.filter(|_| signs || !trusted.is_empty()) else { return Ok(()) };
        match &newest.signed_by {
            None => self.problem(
                "signature",
                format!("the newest backup {} is not signed", newest.id),
                format!("back up by the plan: attestore backup --plan {}", self.plan_path()),
            ),
            Some(key) if !trusted.is_empty() && trusted.iter().all(|one| one.to_minisign() != *key) => {
                let detail = format!(
                    "the newest backup {} is signed by {key}, which the plan does not trust",
                    newest.id
                );
                self.problem(
                    "signature",
                    detail,
                    "find out who made it; if the key was changed on purpose, add it to public_keys",
                );
            }
            Some(_) => self.good(
                "signature",
                format!("the newest backup {} names a signer that the plan expects", newest.id),
            ),
        }
        Ok(())
    }

    /// Assets of the plan that the newest backup does not hold.
    fn assets(&mut self, newest: Option<&BackupSummary>, manifest: Option<&Manifest>) {
        let Some(newest) = newest else { return };
        let holds = |name: &str, files: bool| {
            newest.sources.iter().any(|source| {
                source.split_once(':').is_some_and(|(kind, held)| held == name && (kind == "files") == files)
            })
        };
        let sources = self.plan.file.sources.iter().map(|one| (one.name.get_ref().as_str(), false));
        let files = self.plan.file.files.iter().map(|one| (one.name.get_ref().as_str(), true));
        let missing: Vec<&str> =
            sources.chain(files).filter(|(name, files)| !holds(name, *files)).map(|(name, _)| name).collect();
        let total = self.plan.file.sources.len() + self.plan.file.files.len();
        let make = format!("attestore backup --plan {}", self.plan_path());
        for name in &missing {
            self.problem(
                "assets",
                format!("{name} is in the plan and not in the newest backup {}", newest.id),
                make.clone(),
            );
        }
        if missing.is_empty() {
            self.good("assets", format!("all {total} assets of the plan are in {}", newest.id));
        }
        let encrypts = !self.plan.file.repository.encrypt_to.is_empty();
        if encrypts && manifest.is_some_and(|manifest| manifest.encrypted_to.is_empty()) {
            self.problem(
                "encryption",
                format!("the newest backup {} is not encrypted and the plan says it should be", newest.id),
                make,
            );
        }
    }

    fn retention(&mut self, repository: &Repository, seen: &Overview) {
        let Some(retention) = &self.plan.file.retention else { return };
        let policy = retention.policy();
        match repository.past_retention(seen, &policy) {
            Ok(past) if past.is_empty() => {
                self.good(
                    "retention",
                    format!("{} backups, none past {}", seen.backups.len(), policy.describe()),
                );
            }
            Ok(past) => {
                let first = past.first().map_or("", String::as_str);
                let detail =
                    format!("{} backups are past {}, the oldest {first}", past.len(), policy.describe());
                let rules = policy
                    .describe()
                    .split(", ")
                    .map(|rule| format!("--{rule}"))
                    .collect::<Vec<_>>()
                    .join(" ");
                self.problem(
                    "retention",
                    detail,
                    format!("attestore prune {} {rules} --apply", self.plan.repository()),
                );
            }
            Err(error) => self.problem("retention", error.to_string(), "mend [retention] in the plan"),
        }
    }

    /// Secrets at hand that are not those that the newest backup was made with.
    fn secrets(&mut self, manifest: Option<&Manifest>) -> Result<()> {
        let mut good = 0;
        for secret in &self.plan.file.secrets {
            let name = secret.name.get_ref().as_str();
            let Some(reference) = &secret.reference else { continue };
            let value = match reference.within(self.plan.folder()).read() {
                Ok(value) => value,
                Err(error) => {
                    let action = format!(
                        "get it from {}; if it is lost, {}",
                        secret.escrow,
                        secret.if_lost.describe()
                    );
                    self.problem("secrets", format!("the secret {name}: {error}"), action);
                    continue;
                }
            };
            let Some(manifest) = manifest else { continue };
            match manifest.secrets.iter().find(|entry| entry.name == name) {
                None => self.problem(
                    "secrets",
                    format!("the newest backup {} has no fingerprint of the secret {name}", manifest.id),
                    format!("attestore backup --plan {}", self.plan_path()),
                ),
                Some(entry) if backup_core::secret::matches(&entry.fingerprint, &value)? => good += 1,
                Some(entry) => self.problem(
                    "secrets",
                    keys::does_not_fit(manifest, entry),
                    format!("if it was rotated on purpose, make a backup and keep the old one (previous = […]); else get it from {}", secret.escrow),
                ),
            }
        }
        if good > 0 {
            self.good("secrets", format!("{good} secrets at hand are those of the newest backup"));
        }
        Ok(())
    }

    fn growth(&mut self, repository: &Repository, seen: &Overview) -> Result<()> {
        let free = durable::free_space(repository.path())?;
        self.figures.free_bytes = free;
        let recent: Vec<&BackupSummary> = seen.backups.iter().rev().take(GROWTH_OVER).collect();
        if let (Some(last), Some(first)) = (recent.first(), recent.last()) {
            let span = last.created_at.as_second() - first.created_at.as_second();
            if span >= 3_600 {
                let added: u64 = recent.iter().rev().skip(1).map(|backup| backup.size_bytes).sum();
                let day = u128::from(added) * 86_400 / u128::from(span.unsigned_abs());
                self.figures.growth_bytes_per_day = Some(u64::try_from(day).unwrap_or(u64::MAX));
            }
        }
        let newest = self.figures.newest_bytes.unwrap_or(0);
        let least = self.plan.file.repository.min_free_bytes.unwrap_or(0).max(newest.saturating_mul(2));
        let action = "free room, move the repository, or shorten [retention]";
        if free < least {
            self.problem(
                "disk",
                format!("{} free, at least {} is wanted", bytes(free), bytes(least)),
                action,
            );
            return Ok(());
        }
        let growth = self.figures.growth_bytes_per_day.unwrap_or(0);
        // Retention takes away what is added; without it the disk fills.
        let fills = self.plan.file.retention.is_none() && growth > 0 && free / growth < DAYS_LEFT;
        if fills {
            self.problem(
                "disk",
                format!(
                    "{} free, {} are added a day and nothing is pruned: {} days are left",
                    bytes(free),
                    bytes(growth),
                    free / growth
                ),
                action,
            );
        } else {
            self.good(
                "disk",
                format!(
                    "{} free, {} stored, {} added a day",
                    bytes(free),
                    bytes(self.figures.stored_bytes),
                    bytes(growth)
                ),
            );
        }
        Ok(())
    }

    /// Runs the commands that check what others back up.
    fn elsewhere(&mut self, ctx: &Context) -> Result<()> {
        for other in &self.plan.file.elsewhere {
            let Some(check) = &other.check else { continue };
            let job = Job {
                name: other.name.get_ref().as_str(),
                run: &check.run,
                timeout: check.timeout.get(),
                folder: self.plan.folder(),
                environment: Vec::new(),
            };
            let report = hooks::run(&job, ctx)?;
            if report.ok {
                self.good("elsewhere", format!("{}: its check {}", report.name, report.ended));
            } else {
                let detail = hooks::failure("the check of", &report);
                self.problem("elsewhere", detail.to_string(), other.how_to_check.clone());
            }
        }
        Ok(())
    }
}

/// Writes the figures as Prometheus reads them from a text file; without a status only that there is none.
#[must_use]
pub fn prometheus(plan: &str, status: Option<&Status>) -> String {
    let label = plan.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: Option<String>| {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP attestore_{name} {help}\n# TYPE attestore_{name} gauge\nattestore_{name}{{plan=\"{label}\"}} {value}"
            );
        }
    };
    let ok = status.is_some_and(|status| status.ok);
    gauge("status_ok", "1 when nothing is wrong or overdue.", Some(u8::from(ok).to_string()));
    gauge(
        "status_readable",
        "1 when the repository could be read.",
        Some(u8::from(status.is_some()).to_string()),
    );
    let Some(status) = status else { return text };
    let figures = &status.figures;
    let time = |time: Option<Timestamp>| time.map(|time| time.as_second().to_string());
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    gauge("status_checked_timestamp_seconds", "When the status was taken.", time(Some(status.checked_at)));
    gauge("problems", "How many things are wrong or overdue.", Some(status.problems().count().to_string()));
    gauge("backups", "How many backups there are.", Some(figures.backups.to_string()));
    gauge("backup_newest_timestamp_seconds", "When the newest backup was made.", time(figures.newest_at));
    gauge("backup_newest_bytes", "Stored bytes of the newest backup.", number(figures.newest_bytes));
    gauge("stored_bytes", "Stored bytes of all backups.", Some(figures.stored_bytes.to_string()));
    gauge("free_bytes", "Bytes free on the repository's file system.", Some(figures.free_bytes.to_string()));
    gauge("growth_bytes_per_day", "Stored bytes added a day.", number(figures.growth_bytes_per_day));
    gauge("drill_good_timestamp_seconds", "When the newest good drill was made.", time(figures.drilled_at));
    gauge(
        "drill_restore_seconds",
        "How long its restore took.",
        figures.drill_seconds.map(|time| time.to_string()),
    );
    gauge(
        "verify_good_timestamp_seconds",
        "When the newest good verification was made.",
        time(figures.verified_at),
    );
    gauge("log_entries", "Entries of the repository's log.", Some(figures.log_entries.to_string()));
    gauge(
        "checkpoint_entries",
        "Entries that the checkpoint kept elsewhere covers.",
        number(figures.checkpoint_entries),
    );
    let mut checks: std::collections::BTreeMap<&str, bool> = std::collections::BTreeMap::new();
    for item in &status.items {
        *checks.entry(item.check).or_insert(true) &= item.ok;
    }
    text.push_str("# HELP attestore_check_ok 1 when a check is good.\n# TYPE attestore_check_ok gauge\n");
    for (check, ok) in checks {
        let _ = writeln!(text, "attestore_check_ok{{plan=\"{label}\",check=\"{check}\"}} {}", u8::from(ok));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_labels_are_escaped_and_an_unreadable_repository_is_said() {
        let text = prometheus("a\"b\\c\nd", None);
        assert!(text.contains("attestore_status_ok{plan=\"a\\\"b\\\\c\\nd\"} 0\n"), "{text}");
        assert!(text.contains("attestore_status_readable{plan=\"a\\\"b\\\\c\\nd\"} 0\n"));
        assert!(!text.contains("attestore_backups"));
    }
}
