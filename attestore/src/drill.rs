//! Drills: a restore into a scratch place, checked, timed, reported, thrown away.
//!
//! `attestore drill` calls [`drill`]. Order: the report's place is tried; the backup is opened; every database is restored into a private
//! scratch folder and proven (structure, references, rows, migrations, questions, chains against the manifest); files are read to their end;
//! every chain is compared with the backup before; sealed columns are tried; smoke tests run against the restored databases; the scratch
//! folder goes; the report is written and its digest recorded in the repository's log.
//!
//! When the process dies, the scratch folder stays and the next drill or verification removes it ([`crate::scratch`]). Nothing live is touched.

mod facts;
mod html;
mod markdown;
mod server;
mod write;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use audit_chain::report::ChainReport;
use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::{LogPosition, Manifest};
use backup_core::repository::{DrillEvent, Event, Overview, ReadOptions, Repository, StoredBackup};
use backup_core::traits::{BackupObjects, ChainRequest, ChainVerify as _, Check, Restore as _};
use backup_sqlite::cells::Reading;
use backup_sqlite::{Known, RestoreOptions, SqlCheck, SqliteRestore, SqliteSource};
use jiff::Timestamp;
use serde::Serialize;

pub use self::facts::{Continuity, PastBackup, PastDrill, PlanFacts, Point, SecretFact, StepFact};
pub use self::html::page as html;
pub use self::markdown::markdown;
pub use self::write::Written;
use crate::backup::open_repository;
use crate::contents::{Contents, databases, is_about_contents};
use crate::hooks::{self, HookReport, Job};
use crate::keys;
use crate::plan::Plan;
use crate::planned::run_hook;
use crate::postgres::Server;
use crate::restore::{check_secrets, sql_check};
use crate::scratch::Scratch;
use crate::sealed::{self, ColumnGap};
use crate::words::age;

/// How a drill is made.
#[derive(Debug, Clone, Default)]
pub struct DrillOptions {
    /// The folder for the scratch databases; `None` takes the system's temporary folder.
    pub scratch: Option<PathBuf>,
    /// The server on which databases of PostgreSQL are drilled; `None` starts a throwaway one.
    pub server: Option<Server>,
    /// Questions that the restored databases must answer with something but NULL, 0 or nothing.
    pub checks: Vec<String>,
    /// Where the report goes: `FILE.html`, `FILE.md` or `FILE.json`.
    pub report: Option<PathBuf>,
    /// The file of the age identity that opens the objects.
    pub identity: Option<PathBuf>,
    /// Public keys of which one must have signed: files or text.
    pub public_keys: Vec<String>,
    /// Secrets as `NAME=REF`.
    pub secrets: Vec<String>,
    /// The file of the key that signs the log's entry and the report.
    pub sign_with: Option<PathBuf>,
    /// The plan whose checks, smoke tests, sealed columns and objectives apply.
    pub plan: Option<Plan>,
}

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything holds.
    Good,
    /// Everything holds, and an objective of the plan was missed.
    Late,
    /// Something does not hold.
    Failed,
}

/// One step of a drill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// What was done.
    pub name: String,
    /// When it began, in seconds from the drill's beginning.
    pub start_seconds: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Whether it went well.
    pub ok: bool,
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
    /// How old the newest change in the backup was then, in seconds: what a disaster at that moment would have lost.
    pub age_seconds: i64,
    /// How long it took until everything was restored and proven, in seconds.
    pub restore_seconds: f64,
    /// How long the whole drill took, in seconds.
    pub total_seconds: f64,
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
    /// What this drill does not show.
    pub not_covered: Vec<String>,
    /// What was done when.
    pub timeline: Vec<Stage>,
    /// The plan's promises.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanFacts>,
    /// Where the chains stood in the backups up to this one.
    pub continuity: Vec<Continuity>,
    /// The newest backups, oldest first.
    pub past_backups: Vec<PastBackup>,
    /// The drills before this one, oldest first.
    pub past_drills: Vec<PastDrill>,
    /// Smoke tests, and checks of what others back up.
    pub hooks: Vec<HookReport>,
    /// The secrets that the backup needs.
    pub secrets: Vec<SecretFact>,
    /// What the secrets at hand open.
    pub gaps: Vec<ColumnGap>,
    /// The size of what was restored, in bytes.
    pub size_bytes: u64,
    /// The size of the stored objects, in bytes.
    pub stored_bytes: u64,
    /// The repository's id.
    pub repository: String,
    /// Where its log stood before this drill's entry.
    pub log: LogPosition,
    /// The version of the program.
    pub attestore: String,
    /// The machine that the drill was made on.
    pub machine: String,
    /// What is worth saying.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl DrillReport {
    /// Returns how it ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let missed = self.plan.as_ref().is_some_and(|plan| !plan.rpo_met || plan.rto_met == Some(false));
        match (self.ok, missed) {
            (false, _) => Outcome::Failed,
            (true, true) => Outcome::Late,
            (true, false) => Outcome::Good,
        }
    }

    /// Returns the verdict in a few words.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self.outcome() {
            Outcome::Good => "restored and proven",
            Outcome::Late => "restored and proven, an objective was missed",
            Outcome::Failed => "FAILED",
        }
    }

    /// Lists why it is not simply good: failed checks, commands, gaps, missed objectives.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self
            .checks
            .iter()
            .filter(|check| !check.ok)
            .map(|check| format!("{}: {}", check.name, check.detail))
            .collect();
        reasons.extend(
            self.hooks.iter().filter(|hook| !hook.ok).map(|hook| format!("{} {}", hook.name, hook.ended)),
        );
        if let Some(plan) = &self.plan {
            if !plan.rpo_met {
                reasons.push(format!(
                    "recovery point: what is in the backup is {} old, the objective is {}",
                    age(self.age_seconds),
                    plan.rpo
                ));
            }
            if plan.rto_met == Some(false) {
                reasons.push(format!(
                    "recovery time: it took {} s, the objective is {} s",
                    self.restore_seconds,
                    plan.rto_seconds.unwrap_or(0.0)
                ));
            }
        }
        for gap in self.gaps.iter().filter(|gap| gap.hurts()) {
            reasons.push(format!("credential gap: {}.{}: {}", gap.table, gap.column, gap.diagnosis));
        }
        reasons
    }
}

/// A drill and the files that were written about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drilled {
    /// The report.
    #[serde(flatten)]
    pub report: DrillReport,
    /// The files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Written>,
}

/// A database that was restored into scratch.
struct Restored {
    /// The name of its source.
    name: String,
    path: PathBuf,
}

/// Makes a drill of one backup; `id` may be `latest`.
///
/// # Errors
/// When the repository, a key, the scratch folder or the report's place cannot be used. What is wrong with the backup is in the report.
pub fn drill(repository: &str, id: &str, options: &DrillOptions, ctx: &Context) -> Result<Drilled> {
    let repository = open_repository(repository)?;
    let plan = options.plan.as_ref();
    let folder = plan.and_then(|plan| plan.file.drill.reports.as_ref().map(|folder| plan.resolve(folder)));
    if let Some(path) = &options.report {
        write::refuse_file(path, &repository)?;
    }
    if let Some(folder) = &folder {
        write::refuse_folder(folder, &repository)?;
    }
    let key = keys::signing_key(options.sign_with.as_deref())?;
    let mut clock = Clock { started_at: Timestamp::now(), start: Instant::now(), timeline: Vec::new() };
    let read = ReadOptions {
        identities: keys::identities(options.identity.as_deref())?,
        public_keys: keys::public_keys(&options.public_keys)?,
    };
    let seen = repository.overview(None)?;
    let begun = Instant::now();
    let backup = repository.objects(id, &read, ctx)?;
    let manifest = backup.manifest();
    if plan.is_none() {
        check_secrets(manifest, &options.secrets)?;
    }
    let at_hand = readable(options);
    let secrets = facts::secrets(manifest, plan, &at_hand)?;
    clock.stage("open the backup, check its signature and the secrets", begun, true);
    let chain_keys = plan.map(Plan::chain_keys).unwrap_or_default();
    let mut ring = keys::key_ring(&[], &chain_keys, &[])?;
    for (name, value) in &at_hand {
        ring.add_secret(name, value.to_vec());
    }
    let contents = Contents { scratch: options.scratch.clone(), keys: ring };
    let scratch = contents.scratch()?;
    let mut work = Work {
        options,
        contents: &contents,
        scratch: &scratch,
        checks: Vec::new(),
        chains: Vec::new(),
        restored: Vec::new(),
    };
    if manifest.sources.is_empty() || manifest.objects.is_empty() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("backup {} holds nothing to drill with", manifest.id),
        ));
    }
    for object in databases(manifest) {
        let begun = Instant::now();
        let ok = work.restore(&object, &backup, ctx)?;
        clock.stage(&format!("restore and prove {object}"), begun, ok);
    }
    for source in manifest.sources.iter().filter(|source| server::is_server(source)) {
        let begun = Instant::now();
        let ok = work.restore_server(source, &backup, ctx)?;
        clock.stage(&format!("restore and prove {}", source.name), begun, ok);
    }
    for object in manifest.objects.iter().filter(|object| !object.plain_name().starts_with("database/")) {
        let begun = Instant::now();
        let ok = work.read_whole(object.plain_name(), &backup, ctx)?;
        clock.stage(&format!("read {} to its end", object.plain_name()), begun, ok);
    }
    work.refuse_unknown(manifest);
    let restore_seconds = seconds(clock.start.elapsed());
    let begun = Instant::now();
    let before = work.checks.len();
    work.previous(&repository, manifest, ctx)?;
    if work.checks.len() > before {
        let ok = work.checks.iter().skip(before).all(|check| check.ok);
        clock.stage("compare every chain with the backup before", begun, ok);
    }
    let begun = Instant::now();
    let gaps = work.gaps(plan, &at_hand, ctx)?;
    if !gaps.is_empty() {
        clock.stage("try the secrets on sealed columns", begun, !gaps.iter().any(ColumnGap::hurts));
    }
    let mut commands = Vec::new();
    if let Some(plan) = plan {
        for hook in &plan.file.drill.smoke {
            let begun = Instant::now();
            let report = run_hook(plan, hook, work.environment(), ctx)?;
            clock.stage(&format!("smoke test {}", report.name), begun, report.ok);
            commands.push(report);
        }
        for other in &plan.file.elsewhere {
            let Some(check) = &other.check else { continue };
            let begun = Instant::now();
            let job = Job {
                name: other.name.get_ref().as_str(),
                run: &check.run,
                timeout: check.timeout.get(),
                folder: plan.folder(),
                environment: Vec::new(),
            };
            let report = hooks::run(&job, ctx)?;
            clock.stage(&format!("check {}", report.name), begun, report.ok);
            commands.push(report);
        }
    }
    let Work { checks, chains, .. } = work;
    let begun = Instant::now();
    drop(scratch);
    clock.stage("throw the restored data away", begun, true);
    let instant = manifest.sources.iter().map(|source| source.instant).min().unwrap_or(manifest.created_at);
    let age_seconds = clock.started_at.as_second() - instant.as_second();
    let unfit = secrets.iter().any(|secret| secret.state == "does-not-fit");
    let mut report = DrillReport {
        ok: checks.iter().all(|check| check.ok)
            && commands.iter().all(|command| command.ok)
            && gaps.iter().all(|gap| !gap.hurts())
            && !unfit,
        backup: manifest.id.clone(),
        created_at: manifest.created_at,
        started_at: clock.started_at,
        age_seconds,
        restore_seconds,
        total_seconds: seconds(clock.start.elapsed()),
        signed_by: backup.signed_by().map(ToString::to_string),
        databases: databases(manifest)
            .into_iter()
            .chain(
                manifest
                    .sources
                    .iter()
                    .filter(|source| server::is_server(source))
                    .map(|source| source.name.clone()),
            )
            .collect(),
        not_included: manifest.not_included.clone(),
        not_covered: not_covered(options, manifest, &secrets),
        plan: plan.map(|plan| promises(plan, &clock, instant, restore_seconds)),
        continuity: facts::continuity(&repository, &seen, manifest),
        past_backups: facts::past_backups(&seen),
        past_drills: facts::past_drills(&seen),
        hooks: commands,
        secrets,
        gaps,
        size_bytes: manifest.plain_bytes(),
        stored_bytes: manifest.stored_bytes(),
        repository: repository.id().to_owned(),
        log: seen.position.clone(),
        attestore: env!("CARGO_PKG_VERSION").to_owned(),
        machine: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        checks,
        chains,
        timeline: clock.timeline,
        notes: notes(&seen, unfit),
    };
    let written = write::write(&report, options.report.as_deref(), folder.as_deref(), key.as_ref())?;
    let mut details = std::collections::BTreeMap::new();
    details.insert("restore_seconds".to_owned(), report.restore_seconds.into());
    details.insert("age_seconds".to_owned(), report.age_seconds.into());
    details.insert("checks".to_owned(), report.checks.len().into());
    details.insert("size_bytes".to_owned(), report.size_bytes.into());
    let event = DrillEvent {
        backup: report.backup.clone(),
        ok: report.ok,
        report_sha256: written.first().map(|written| written.sha256),
        details,
    };
    if let Err(error) = repository.record(Event::Drill(event), key.as_ref(), ctx) {
        report.notes.push(format!("this drill is not in the repository's log: {error}"));
    }
    Ok(Drilled { report, written })
}

/// Times the stages.
struct Clock {
    started_at: Timestamp,
    start: Instant,
    timeline: Vec<Stage>,
}

impl Clock {
    fn stage(&mut self, name: &str, begun: Instant, ok: bool) {
        self.timeline.push(Stage {
            name: name.to_owned(),
            start_seconds: seconds(begun.duration_since(self.start)),
            seconds: seconds(begun.elapsed()),
            ok,
        });
    }
}

/// What a drill gathers while it goes.
struct Work<'a> {
    options: &'a DrillOptions,
    contents: &'a Contents,
    scratch: &'a Scratch,
    checks: Vec<Check>,
    chains: Vec<ChainReport>,
    restored: Vec<Restored>,
}

impl Work<'_> {
    /// Restores one database and proves it.
    fn restore(&mut self, object: &str, backup: &StoredBackup, ctx: &Context) -> Result<bool> {
        let name = object.trim_start_matches("database/").trim_end_matches(".db").to_owned();
        let folder = self.scratch.path().join(self.restored.len().to_string());
        std::fs::create_dir(&folder).map_err(|error| Error::io("create", &folder, error))?;
        let path = folder.join("drill.db");
        let plan = self.options.plan.as_ref();
        let source = plan
            .and_then(|plan| plan.file.sources.iter().find(|source| source.name.get_ref().as_str() == name));
        let mut known = Vec::new();
        if let (Some(plan), Some(folder)) = (plan, source.and_then(|source| source.migrations.as_ref())) {
            known.push(Known::sqlx_folder(&plan.resolve(folder))?);
        }
        let mut checks: Vec<SqlCheck> = self.options.checks.iter().map(|sql| sql_check(sql)).collect();
        for check in plan.iter().flat_map(|plan| &plan.file.drill.checks) {
            if check.source.as_ref().is_none_or(|of| of.get_ref().as_str() == name) {
                checks.push(SqlCheck {
                    name: check.name.get_ref().to_string(),
                    sql: check.sql.clone(),
                    expected: check.expected.clone(),
                });
            }
        }
        let restore = SqliteRestore::with_options(
            &path,
            RestoreOptions {
                object: Some(object.to_owned()),
                checks,
                known,
                keys: self.contents.keys.clone(),
                ..RestoreOptions::default()
            },
        );
        let done = restore.plan(backup, ctx).and_then(|plan| restore.execute(&plan, backup, ctx));
        let (ok, detail) = match done {
            Ok(done) => {
                self.checks.push(Check {
                    name: format!("{object} restored"),
                    ok: true,
                    detail: "into scratch".into(),
                });
                self.checks.extend(done.checks);
                self.chains.extend(done.chains);
                self.restored.push(Restored { name, path });
                return Ok(true);
            }
            // What is wrong with the backup, or what it does not answer; what stops this machine is no result.
            Err(error)
                if is_about_contents(&error)
                    || matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Newer) =>
            {
                (false, error.full_text())
            }
            Err(error) => return Err(error),
        };
        self.checks.push(Check { name: format!("{object} restored"), ok, detail });
        Ok(ok)
    }

    /// Reads an object to its end, which checks its digests.
    fn read_whole(&mut self, object: &str, backup: &StoredBackup, ctx: &Context) -> Result<bool> {
        ctx.check()?;
        let read = backup.open(object).and_then(|mut reader| {
            std::io::copy(&mut reader, &mut std::io::sink()).map_err(|error| Error::io("read", object, error))
        });
        let (ok, detail) = match read {
            Ok(bytes) => (true, format!("{bytes} bytes, digests as in the manifest")),
            Err(error) if is_about_contents(&error) => (false, error.full_text()),
            Err(error) => return Err(error),
        };
        self.checks.push(Check { name: format!("{object} reads to its end"), ok, detail });
        Ok(ok)
    }

    /// A database that this build cannot restore into scratch is not proven, and a drill does not pass over it.
    fn refuse_unknown(&mut self, manifest: &Manifest) {
        for source in manifest.sources.iter().filter(|source| {
            !matches!(source.kind.as_str(), "sqlite" | "files") && !server::is_server(source)
        }) {
            self.checks.push(Check {
                name: format!("{} restored", source.name),
                ok: false,
                detail: format!("a drill of a {} source is not in this build: its objects were read to their end, no more", source.kind),
            });
        }
    }

    /// Verifies every chain of the restored databases against where it stood in the backup before.
    fn previous(&mut self, repository: &Repository, manifest: &Manifest, ctx: &Context) -> Result<()> {
        for chain in &manifest.chains {
            let Some(extends) = &chain.extends else { continue };
            let Some(restored) = self.restored.iter().find(|restored| restored.name == chain.source) else {
                continue;
            };
            let name = format!("chain {} extends backup {}", chain.table, extends.backup);
            let earlier = match repository.show(&extends.backup) {
                Ok(shown) => shown.manifest,
                // Pruned since: what the manifest says of it is all that is left.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let detail = format!("as proven when it was made: {}", error.full_text());
                    self.checks.push(Check { name, ok: extends.ok, detail });
                    continue;
                }
                Err(error) => {
                    self.checks.push(Check { name, ok: false, detail: error.full_text() });
                    continue;
                }
            };
            let points = earlier.chains.into_iter().find(|one| {
                one.source == chain.source && one.table == chain.table && one.format == chain.format
            });
            let (Some(points), Ok(format)) = (points, crate::chain::format(&chain.format)) else { continue };
            let request = ChainRequest {
                format,
                table: Some(chain.table.clone()),
                keys: self.contents.keys.clone(),
                checkpoint: Some(points.points),
                copy: false,
            };
            let found = SqliteSource::new(&restored.path).verify_chain(&request, ctx)?;
            let (ok, detail) = if found.findings_total == 0 {
                (true, format!("{} records, of which {} were there before", found.records, points.records))
            } else {
                // What was wrong in the backup already is in the chains' own check; here only continuity counts.
                let broken = found.findings.iter().any(|finding| !extends.ok || is_continuity(finding.kind));
                (!broken, found.diagnosis.clone())
            };
            self.checks.push(Check { name, ok, detail });
        }
        Ok(())
    }

    /// Tries the secrets at hand on every sealed column of the plan.
    fn gaps(
        &self,
        plan: Option<&Plan>,
        at_hand: &[(String, zeroize::Zeroizing<Vec<u8>>)],
        ctx: &Context,
    ) -> Result<Vec<ColumnGap>> {
        let mut gaps = Vec::new();
        for source in plan.iter().flat_map(|plan| &plan.file.sources) {
            let name = source.name.get_ref().as_str();
            let Some(restored) = self.restored.iter().find(|restored| restored.name == name) else {
                continue;
            };
            for column in &source.sealed {
                let secret = column.secret.get_ref().as_str();
                let values: Vec<_> = at_hand
                    .iter()
                    .filter(|(name, _)| name == secret)
                    .map(|(_, value)| value.clone())
                    .collect();
                gaps.push(sealed::gaps(&restored.path, Reading::Copy, name, column, &values, ctx)?);
            }
        }
        Ok(gaps)
    }

    /// Makes the variables of a smoke test: where the restored databases are.
    fn environment(&self) -> Vec<(String, String)> {
        let mut variables = Vec::new();
        for (at, restored) in self.restored.iter().enumerate() {
            let path = restored.path.display().to_string();
            if at == 0 {
                variables.push(("ATTESTORE_DATABASE".to_owned(), path.clone()));
            }
            let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
            let name: String = restored.name.chars().map(letter).collect();
            variables.push((format!("ATTESTORE_DATABASE_{name}"), path));
        }
        variables
    }
}

/// Reports whether a finding says that a chain does not extend what it was.
const fn is_continuity(kind: audit_chain::report::FindingKind) -> bool {
    use audit_chain::report::FindingKind as Kind;
    matches!(
        kind,
        Kind::Truncated
            | Kind::MissingChain
            | Kind::Rewritten
            | Kind::UnhashedEdited
            | Kind::Stripped
            | Kind::CheckpointMismatch
    )
}

/// Reads the secrets that can be read. Without a plan every one was given on purpose and must be readable, which was checked before.
fn readable(options: &DrillOptions) -> Vec<(String, zeroize::Zeroizing<Vec<u8>>)> {
    let texts = options.secrets.iter().chain([]).cloned();
    let planned = options.plan.iter().flat_map(Plan::secrets);
    texts.chain(planned).filter_map(|text| keys::read_secrets(&[text]).ok()).flatten().collect()
}

/// Says what the plan promises and whether it is kept.
fn promises(plan: &Plan, clock: &Clock, instant: Timestamp, restore_seconds: f64) -> PlanFacts {
    let file = &plan.file;
    let rto = file.objectives.rto.map(|rto| rto.get().as_secs_f64());
    PlanFacts {
        name: file.plan.name.clone(),
        owner: file.plan.owner.clone(),
        contact: file.plan.contact.clone(),
        sha256: plan.sha256.to_string(),
        rpo: file.objectives.rpo.to_string(),
        rpo_met: instant >= file.objectives.rpo.before(clock.started_at),
        rto_seconds: rto,
        rto_met: rto.map(|rto| restore_seconds <= rto),
        drill_every: file.objectives.drill_every.to_string(),
        steps: file
            .drill
            .steps
            .iter()
            .map(|step| StepFact {
                what: step.what.clone(),
                owner: plan.owner(step.owner.as_ref()).to_owned(),
            })
            .collect(),
    }
}

/// Says what the drill does not show.
fn not_covered(options: &DrillOptions, manifest: &Manifest, secrets: &[SecretFact]) -> Vec<String> {
    let mut lines = Vec::new();
    let plan = options.plan.as_ref();
    for secret in secrets.iter().filter(|secret| secret.state == "not-at-hand") {
        lines.push(format!("whether {} is the right secret: it was not at hand", secret.name));
    }
    for secret in secrets.iter().filter(|secret| secret.state == "no-fingerprint") {
        lines.push(format!(
            "whether {} is the right secret: the backup has no fingerprint of it",
            secret.name
        ));
    }
    if !secrets.is_empty()
        && plan.is_none_or(|plan| plan.file.sources.iter().all(|source| source.sealed.is_empty()))
    {
        lines.push("whether stored ciphertext opens: no sealed columns are described".into());
    }
    if manifest.chains.is_empty() {
        lines.push("an audit chain: the backup has none".into());
    }
    if plan.is_none_or(|plan| plan.file.drill.smoke.is_empty()) {
        lines.push("whether the service starts on the restored data: no smoke test is named".into());
    }
    if options.checks.is_empty() && plan.is_none_or(|plan| plan.file.drill.checks.is_empty()) {
        lines.push("whether the data is what its people expect: no questions are named".into());
    }
    if options.public_keys.is_empty() {
        lines.push("who made the backup: no public key was given".into());
    }
    for other in plan.iter().flat_map(|plan| &plan.file.elsewhere) {
        if other.check.is_none() {
            lines.push(format!(
                "{}, which {} backs up: {}",
                other.name.get_ref(),
                other.by,
                other.how_to_check
            ));
        }
    }
    lines.push("the way back of a whole machine: network, accounts, names, certificates".into());
    lines
}

fn notes(seen: &Overview, unfit: bool) -> Vec<String> {
    let mut notes: Vec<String> = seen
        .findings
        .iter()
        .map(|finding| format!("the repository: {}: {}", finding.kind, finding.explains))
        .collect();
    if unfit {
        notes.push("a secret at hand is not the one that this backup was made with".into());
    }
    notes
}

/// Rounds to milliseconds.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000.0).round() / 1_000.0
}

/// Makes a drill by a plan; `id` may be `latest`.
///
/// # Errors
/// As [`drill`].
pub fn drill_by_plan(plan: &Plan, id: &str, report: Option<&Path>, ctx: &Context) -> Result<Drilled> {
    let options = DrillOptions {
        scratch: plan.file.drill.scratch.as_ref().map(|folder| plan.resolve(folder)),
        report: report.map(Path::to_owned),
        identity: plan.identity(),
        public_keys: plan.public_keys(),
        sign_with: plan.sign_with(),
        plan: Some(plan.clone()),
        ..DrillOptions::default()
    };
    drill(&plan.repository(), id, &options, ctx)
}
