//! A backup by its plan: hooks, sources with their chains, secrets, retention, and the checkpoint kept elsewhere.
//!
//! `attestore backup --plan` calls [`backup()`]. Order: the plan's keys, secrets and files are looked at; the hooks before run; the
//! backup is made; the hooks after run, also when it failed; the checkpoint is brought up to date. When the process dies, what holds
//! is what holds for a backup (`backup_core::repository`); a hook's undoing (thawing what it froze) is then the hook's own matter.

use backup_core::context::Context;
use backup_core::durable::{Durable, PRIVATE_FILE};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::repository::Repository;
use serde::Serialize;

use crate::backup::{self, Backup, BackupOptions, SourceChain, open_repository};
use crate::hooks::{self, HookReport, Job};
use crate::keys;
use crate::plan::Plan;
use crate::plan::schema::Hook;
use crate::repository::refuse_inside;
use crate::status::kept_checkpoint;

/// How many sources are read at once where the plan does not say.
pub const PARALLEL_SOURCES: usize = 2;

/// What may be said beside the plan.
#[derive(Debug, Clone, Default)]
pub struct PlannedOptions {
    /// The backup's name instead of a UTC time stamp.
    pub name: Option<String>,
    /// Threads that compress; `None` lets the machine decide.
    pub jobs: Option<u32>,
    /// How long to wait for another backup to end.
    pub wait: std::time::Duration,
}

/// A backup that was made by its plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedBackup {
    /// The backup.
    #[serde(flatten)]
    pub backup: Backup,
    /// The commands before and after, with what they printed.
    pub hooks: Vec<HookReport>,
    /// What went wrong after the backup was committed, one sentence each.
    pub problems: Vec<String>,
}

/// Makes a backup by a plan.
///
/// # Errors
/// What the plan names and is not there; `Unavailable` when a hook before fails: nothing is then backed up; what stops a backup.
pub fn backup(plan: &Plan, options: &PlannedOptions, ctx: &Context) -> Result<PlannedBackup> {
    let repository = open_repository(&plan.repository())?;
    if let Some(path) = &plan.file.repository.checkpoint {
        refuse_inside(&repository, &plan.resolve(path))?;
    }
    let made = backup_options(plan, options)?;
    // Before a hook stops a service, everything that can be known to be missing is.
    keys::signing_key(made.sign_with.as_deref())?;
    keys::public_keys(&plan.public_keys())?;
    for file in &plan.file.files {
        let path = plan.resolve(&file.path);
        path.symlink_metadata().map_err(|error| {
            let name = file.name.get_ref();
            match error.kind() {
                std::io::ErrorKind::NotFound => Error::new(
                    ErrorKind::NotFound,
                    format!("the files asset {name}: there is no {}", path.display()),
                ),
                _ => Error::io("read", &path, error),
            }
        })?;
    }
    let mut reports = Vec::new();
    for hook in &plan.file.hooks.before {
        let report = run_hook(plan, hook, vec![("ATTESTORE_PHASE".into(), "before".into())], ctx)?;
        if !report.ok {
            // What earlier hooks did is undone by those after; their outcome no longer matters.
            run_after(plan, None, &mut Vec::new());
            return Err(hook_failure("the hook before", &report));
        }
        reports.push(report);
    }
    let result = backup::backup(&plan.repository(), &made, ctx);
    let id = result.as_ref().ok().map(|backup| backup.id.clone());
    let failed = run_after(plan, id.as_deref(), &mut reports);
    let backup = result?;
    let mut problems = failed;
    if let Err(error) = keep_checkpoint(plan, &repository) {
        problems.push(format!("the checkpoint kept elsewhere is not up to date: {}", error.full_text()));
    }
    Ok(PlannedBackup { backup, hooks: reports, problems })
}

/// Runs the hooks after a backup, all of them, whatever became of it. Not cancelled: they undo what the hooks before did.
fn run_after(plan: &Plan, id: Option<&str>, reports: &mut Vec<HookReport>) -> Vec<String> {
    let mut problems = Vec::new();
    for hook in &plan.file.hooks.after {
        let mut environment = vec![
            ("ATTESTORE_PHASE".into(), "after".into()),
            ("ATTESTORE_OUTCOME".into(), if id.is_some() { "ok" } else { "failed" }.into()),
        ];
        environment.extend(id.map(|id| ("ATTESTORE_BACKUP".into(), id.to_owned())));
        match run_hook(plan, hook, environment, &Context::new()) {
            Ok(report) => {
                if !report.ok {
                    problems.push(hook_failure("the hook after", &report).to_string());
                }
                reports.push(report);
            }
            Err(error) => {
                problems.push(format!("the hook after {}: {}", hook.name.get_ref(), error.full_text()));
            }
        }
    }
    problems
}

/// Makes the error of a hook that failed.
pub(crate) fn hook_failure(what: &str, report: &HookReport) -> Error {
    hooks::failure(what, report)
}

/// Runs one hook of a plan.
pub(crate) fn run_hook(
    plan: &Plan,
    hook: &Hook,
    mut environment: Vec<(String, String)>,
    ctx: &Context,
) -> Result<HookReport> {
    environment.push(("ATTESTORE_PLAN".into(), plan.path.display().to_string()));
    environment.push(("ATTESTORE_REPOSITORY".into(), plan.repository()));
    let job = Job {
        name: hook.name.get_ref().as_str(),
        run: &hook.run,
        timeout: hook.timeout.get(),
        folder: plan.folder(),
        environment,
    };
    hooks::run(&job, ctx)
}

/// Makes the options of a backup.
fn backup_options(plan: &Plan, options: &PlannedOptions) -> Result<BackupOptions> {
    let file = &plan.file;
    let mut made = BackupOptions {
        name: options.name.clone(),
        secrets: readable_secrets(plan)?,
        public_keys: plan.chain_keys(),
        encrypt_to: file.repository.encrypt_to.iter().map(|one| one.as_str().to_owned()).collect(),
        sign_with: plan.sign_with(),
        jobs: options.jobs,
        wait: options.wait,
        retention: file.retention.as_ref().map(|retention| retention.policy()),
        not_included: plan.not_included(),
        parallel: file.repository.parallel_sources.unwrap_or(PARALLEL_SOURCES),
        ..BackupOptions::default()
    };
    for source in &file.sources {
        let name = source.name.get_ref();
        let location =
            source.database.resolve(plan.folder()).map_err(|error| about("source", name.as_str(), error))?;
        made.sources.push(format!("{name}={location}"));
        let chain = |chain: &crate::plan::schema::Chain| {
            let format = plan.resolve(&chain.format);
            let format = if format.is_file() { format.display().to_string() } else { chain.format.clone() };
            let text =
                chain.table.as_ref().map_or_else(|| format.clone(), |table| format!("{format}:{table}"));
            SourceChain { chain: text, copy: chain.copy }
        };
        made.source_chains.push(source.chains.iter().map(chain).collect());
    }
    for files in &file.files {
        made.files.push(format!("{}={}", files.name.get_ref(), plan.resolve(&files.path).display()));
    }
    Ok(made)
}

/// Reads every secret of the plan once, so that one that is unset or empty is said by its name.
fn readable_secrets(plan: &Plan) -> Result<Vec<String>> {
    for secret in &plan.file.secrets {
        for reference in secret.reference.iter().chain(&secret.previous) {
            reference
                .within(plan.folder())
                .read()
                .map_err(|error| about("secret", secret.name.get_ref().as_str(), error))?;
        }
    }
    Ok(plan.secrets())
}

/// Says what an error is about, keeping its kind.
fn about(what: &str, name: &str, error: Error) -> Error {
    let hint = error.hint();
    let fault = Error::new(error.kind(), format!("the {what} {name}: {error}"));
    match hint {
        Some(hint) => fault.with_hint(hint),
        None => fault,
    }
}

/// Brings the checkpoint that is kept elsewhere up to date, if the log extends it.
///
/// # Errors
/// `Tampered` when the log does not extend it: it is then left as it is.
fn keep_checkpoint(plan: &Plan, repository: &Repository) -> Result<()> {
    let Some(path) = &plan.file.repository.checkpoint else { return Ok(()) };
    let path = plan.resolve(path);
    let kept = kept_checkpoint(&path)?;
    let seen = repository.overview(kept.as_deref())?;
    if let Some(finding) = seen.not_extending {
        return Err(Error::new(ErrorKind::Tampered, format!("{}: {}", path.display(), finding.explains))
            .with_hint("find out who changed the repository before that checkpoint is replaced"));
    }
    let note = repository.log_checkpoint()?;
    Durable::default().replace(&path, note.as_bytes(), PRIVATE_FILE)
}
