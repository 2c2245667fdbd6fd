//! The verbs that act on a plan: `backup --plan`, `status`, `drill --plan`, `runbook`.

use std::path::PathBuf;
use std::time::Duration;

use attestore::drill;
use attestore::plan::Plan;
use attestore::planned::{self, PlannedBackup, PlannedOptions};
use attestore::runbook;
use attestore::sealed::{self, Gaps};
use attestore::status::{self, Status, StatusOptions};
use attestore::{Context, Error, ErrorKind};
use clap::{Args, ValueHint};

use super::output::{Output, Text};
use super::{Outcome, args, text};

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The plan
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) plan: PathBuf,
    /// Also write the figures for Prometheus' textfile collector, replaced in one step
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) prometheus: Option<PathBuf>,
    /// Also run the commands that check what others back up
    #[arg(long)]
    pub(crate) run_checks: bool,
    /// Also list what is as it should be
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// Arguments of `gaps`.
#[derive(Debug, Args)]
pub(crate) struct GapsArgs {
    /// The plan
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) plan: PathBuf,
    /// A source that lies elsewhere than the plan says
    #[arg(value_name = "NAME=PATH")]
    pub(crate) places: Vec<String>,
}

/// Says which stored credentials open.
///
/// # Errors
/// What the library says.
pub(crate) fn gaps(arguments: &GapsArgs, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let plan = Plan::load(&arguments.plan)?;
    let found = sealed::planned_gaps(&plan, &arguments.places, ctx)?;
    out.show(&found, gaps_text)?;
    Ok(if found.ok { Outcome::Good } else { Outcome::Found })
}

fn gaps_text(found: &Gaps) -> Text {
    let mut shown = Text::default();
    let rows: Vec<Vec<String>> = found
        .gaps
        .iter()
        .map(|gap| {
            vec![
                format!("{}.{}.{}", gap.source, gap.table, gap.column),
                gap.values.to_string(),
                gap.opens.to_string(),
                (gap.values - gap.opens).to_string(),
                if gap.ok { "nothing".to_owned() } else { gap.if_lost.describe().to_owned() },
            ]
        })
        .collect();
    shown.table(&["column", "values", "open", "do not", "what is done"], &rows);
    for gap in found.gaps.iter().filter(|gap| !gap.ok) {
        shown.line(format_args!("{}.{}: {}", gap.table, gap.column, gap.diagnosis));
        for record in &gap.records {
            shown.line(format_args!("  {record}"));
        }
    }
    for secret in &found.not_at_hand {
        shown.line(format_args!("not at hand: {secret}"));
    }
    shown
}

/// Arguments of `runbook`.
#[derive(Debug, Args)]
pub(crate) struct RunbookArgs {
    /// The plan
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) plan: PathBuf,
    /// One self-contained HTML page instead of Markdown
    #[arg(long)]
    pub(crate) html: bool,
}

/// Prints the runbook of a plan.
///
/// # Errors
/// What the library says.
pub(crate) fn runbook(arguments: &RunbookArgs, out: Output) -> Result<Outcome, Error> {
    let plan = Plan::load(&arguments.plan)?;
    let made = runbook::runbook(&plan, jiff::Timestamp::now())?;
    let text = if arguments.html { runbook::html } else { runbook::markdown };
    out.show_exact(&made, text)?;
    Ok(Outcome::Good)
}

/// Makes a drill by a plan.
///
/// # Errors
/// What the library says.
pub(crate) fn drill(arguments: &args::Drill, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let plan = Plan::load(arguments.plan.as_deref().unwrap_or(std::path::Path::new("attestore.toml")))?;
    let id = arguments.repo.as_deref().unwrap_or(backup_core::repository::LATEST);
    let drilled = drill::drill_by_plan(&plan, id, arguments.report.as_deref(), ctx)?;
    out.show_exact(&drilled, |drilled| drill::markdown(&drilled.report))?;
    Ok(if drilled.report.ok { Outcome::Good } else { Outcome::Found })
}

/// Makes a backup by a plan.
///
/// # Errors
/// What the library says.
pub(crate) fn backup(arguments: args::Backup, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let plan = Plan::load(arguments.plan.as_deref().unwrap_or(std::path::Path::new("attestore.toml")))?;
    let options = PlannedOptions {
        name: arguments.name,
        jobs: arguments.jobs,
        wait: Duration::from_secs(arguments.wait),
    };
    let made = planned::backup(&plan, &options, ctx)?;
    out.show(&made, planned_text)?;
    Ok(if !made.problems.is_empty() {
        Outcome::Told(ErrorKind::Unavailable)
    } else if made.backup.chains_intact() && made.backup.prune_error.is_none() {
        Outcome::Good
    } else {
        Outcome::Found
    })
}

fn planned_text(made: &PlannedBackup) -> Text {
    let mut shown = text::backup(&made.backup);
    for hook in &made.hooks {
        shown.line(format_args!("hook {} {} after {} s", hook.name, hook.ended, hook.seconds));
        for line in hook.output.lines() {
            shown.line(format_args!("  {line}"));
        }
    }
    for problem in &made.problems {
        shown.line(format_args!("PROBLEM: {problem}"));
    }
    shown
}

/// Takes the status of a plan.
///
/// # Errors
/// What the library says.
pub(crate) fn status(arguments: &StatusArgs, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let plan = Plan::load(&arguments.plan)?;
    let options = StatusOptions {
        now: None,
        run_checks: arguments.run_checks,
        prometheus: arguments.prometheus.clone(),
    };
    let taken = status::status(&plan, &options, ctx)?;
    out.show(&taken, |taken| status_text(taken, arguments.verbose))?;
    Ok(if taken.ok { Outcome::Good } else { Outcome::Found })
}

/// Prints a status: the verdict with figures as Nagios reads them, then one line a problem.
fn status_text(taken: &Status, verbose: bool) -> Text {
    let mut shown = Text::default();
    let figures = &taken.figures;
    let count = taken.problems().count();
    let verdict = match count {
        0 => "ATTESTORE OK".to_owned(),
        1 => "ATTESTORE PROBLEM: 1 problem".to_owned(),
        count => format!("ATTESTORE PROBLEM: {count} problems"),
    };
    let newest = figures.newest_age_seconds.map_or_else(
        || "no backup".to_owned(),
        |seconds| format!("newest backup {} old", attestore::words::age(seconds)),
    );
    shown.line(format_args!(
        "{verdict} - {}, {newest}, {} backups | backup_age={}s backups={} stored={}B free={}B problems={count}",
        taken.plan,
        figures.backups,
        figures.newest_age_seconds.unwrap_or(0),
        figures.backups,
        figures.stored_bytes,
        figures.free_bytes,
    ));
    for item in taken.items.iter().filter(|item| verbose || !item.ok) {
        match &item.action {
            Some(action) => shown.line(format_args!("{}: {} -> {action}", item.check, item.detail)),
            None => shown.line(format_args!("{}: ok: {}", item.check, item.detail)),
        }
    }
    for note in taken.notes.iter().filter(|_| verbose) {
        shown.line(format_args!("note: {note}"));
    }
    shown
}
