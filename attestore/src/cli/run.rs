//! Each verb: from arguments to the library's call, and what the result means for the exit status.

use std::time::Duration;

use attestore::backup::{self, BackupOptions};
use attestore::chain;
use attestore::drill::{self, DrillOptions};
use attestore::input::{self, Input};
use attestore::repository::{self, PruneOptions};
use attestore::restore::{self, RestoreOptions};
use attestore::verify::{self, VerifyOptions};
use attestore::{Context, Error, aside, doctor, keys, lineage};
use audit_chain::report::{ChainReport, Verdict};
use backup_core::repository::{Level, RetentionPolicy};
use backup_sqlite::Method;
use clap::CommandFactory as _;

use super::args::{self, Verb};
use super::ledger;
use super::output::{self, Output};
use super::{Outcome, chain_export, progress, text};

/// Runs one verb.
///
/// # Errors
/// What the library says.
pub(crate) fn run(verb: Verb, out: Output, quiet: bool) -> Result<Outcome, Error> {
    match verb {
        Verb::Doctor => {
            let search = std::env::var_os("PATH").unwrap_or_default();
            let found = doctor::doctor(&search);
            out.show(&found, text::doctor)?;
            Ok(if found.ok { Outcome::Good } else { Outcome::Found })
        }
        Verb::Completions(args::Completions { shell }) => {
            // Into memory: the generator panics when what it writes to fails.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut args::Cli::command(), "attestore", &mut script);
            output::print(&script)?;
            Ok(Outcome::Good)
        }
        Verb::Chain(args::Chain::Verify(arguments)) => {
            chain_verify(&arguments, out, &progress::context(quiet)?)
        }
        Verb::Chain(args::Chain::Checkpoint(arguments)) => {
            chain_checkpoint(&arguments, out, &progress::context(quiet)?)
        }
        Verb::Chain(args::Chain::Prove(arguments)) => {
            super::chain_prove::prove(arguments, out, &progress::context(quiet)?)
        }
        Verb::Chain(args::Chain::CheckProof(arguments)) => super::chain_prove::check(&arguments, out),
        Verb::Chain(args::Chain::Registry(arguments)) => {
            super::chain_prove::registry(&arguments, out, &progress::context(quiet)?)
        }
        Verb::Chain(args::Chain::Append(arguments)) => {
            ledger::append(arguments, out, &progress::context(quiet)?)
        }
        Verb::Chain(args::Chain::Erase(arguments)) => {
            ledger::erase(arguments, out, &progress::context(quiet)?)
        }
        Verb::Chain(args::Chain::Export(arguments)) => {
            chain_export::run(arguments, out, &progress::context(quiet)?)
        }
        Verb::Keygen(arguments) => {
            out.show(&repository::keygen(&arguments.out)?, text::keygen)?;
            Ok(Outcome::Good)
        }
        Verb::Init(arguments) => {
            out.show(&repository::init(&arguments.repo)?, text::init)?;
            Ok(Outcome::Good)
        }
        Verb::Backup(arguments) if arguments.plan.is_some() => {
            super::plan::backup(arguments, out, &progress::context(quiet)?)
        }
        Verb::Drill(arguments) if arguments.plan.is_some() => {
            super::plan::drill(&arguments, out, &progress::context(quiet)?)
        }
        Verb::Gaps(arguments) => super::plan::gaps(&arguments, out, &progress::context(quiet)?),
        Verb::Runbook(arguments) => super::plan::runbook(&arguments, out),
        Verb::Status(arguments) => super::plan::status(&arguments, out, &progress::context(quiet)?),
        Verb::Backup(arguments) => make_backup(arguments, out, &progress::context(quiet)?),
        Verb::List(arguments) => {
            let listing = repository::list(&arguments.repo)?;
            out.show(&listing, text::list)?;
            Ok(if listing.findings.is_empty() { Outcome::Good } else { Outcome::Found })
        }
        Verb::Show(arguments) => {
            out.show(&repository::show(&arguments.repo, &arguments.id)?, text::backup)?;
            Ok(Outcome::Good)
        }
        Verb::Verify(arguments) => verify_repository(arguments, out, &progress::context(quiet)?),
        Verb::Restore(arguments) => restore_backup(arguments, out, &progress::context(quiet)?),
        Verb::Drill(arguments) => make_drill(arguments, out, &progress::context(quiet)?),
        Verb::Prune(arguments) => prune(arguments, out, &progress::context(quiet)?),
        Verb::Hold(arguments) => {
            let ctx = progress::context(quiet)?;
            let held = repository::hold(
                &arguments.repo,
                &arguments.id,
                !arguments.release,
                &arguments.reason,
                &ctx,
            )?;
            out.show(&held, text::hold)?;
            Ok(Outcome::Good)
        }
        Verb::Export(arguments) => {
            let ctx = progress::context(quiet)?;
            let key = arguments.sign_with.as_deref();
            out.show(
                &repository::export(&arguments.repo, &arguments.id, &arguments.out, key, &ctx)?,
                text::export,
            )?;
            Ok(Outcome::Good)
        }
        Verb::Checkpoint(arguments) => {
            let note = repository::checkpoint(&arguments.repo)?;
            out.show_exact(&serde_json::json!({"checkpoint": note}), |_| note.clone())?;
            Ok(Outcome::Good)
        }
        Verb::SetAside(arguments) => set_aside(&arguments, out, &progress::context(quiet)?),
    }
}

fn make_backup(arguments: args::Backup, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    // clap has seen to it that one of --to and --plan is there.
    let repository = arguments.to.unwrap_or_default();
    let options = BackupOptions {
        sources: arguments.sources,
        name: arguments.name,
        chains: arguments.chains,
        secrets: arguments.secrets,
        public_keys: arguments.public_keys,
        files: arguments.files,
        encrypt_to: arguments.encrypt_to,
        sign_with: arguments.sign_with,
        keep_last: arguments.keep_last,
        jobs: arguments.jobs,
        method: match arguments.method {
            args::SqliteMethod::VacuumInto => Method::VacuumInto,
            args::SqliteMethod::Online => Method::OnlineBackup,
        },
        chain_copy: arguments.chain_copy,
        refuse_findings: arguments.refuse_findings,
        wait: Duration::from_secs(arguments.wait),
        postgres: arguments.postgres.options(),
        ..BackupOptions::default()
    };
    let made = backup::backup(&repository, &options, ctx)?;
    out.show(&made, text::backup)?;
    Ok(if made.chains_intact() && made.prune_error.is_none() { Outcome::Good } else { Outcome::Found })
}

fn verify_repository(arguments: args::Verify, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let options = VerifyOptions {
        id: arguments.id,
        all: arguments.all,
        public_keys: arguments.public_key,
        identity: arguments.identity,
        checkpoint: arguments.checkpoint,
        secrets: arguments.secrets,
        level: arguments.level.map(|level| match level {
            args::Level::Present => Level::Present,
            args::Level::Digests => Level::Digests,
            args::Level::Decoded => Level::Decoded,
            args::Level::Contents => Level::Contents,
        }),
        sign_with: arguments.sign_with,
        scratch: arguments.scratch,
        unrecorded: arguments.no_record,
    };
    let report = verify::verify(&arguments.repo, &options, ctx)?;
    out.show(&report, text::verify)?;
    Ok(match (verify::kind_of(&report), report.verdict) {
        (Some(kind), _) => Outcome::Told(kind),
        (None, Verdict::Intact) => Outcome::Good,
        (None, Verdict::CannotVerify) => Outcome::NoKey,
        (None, Verdict::Findings) => Outcome::Found,
    })
}

fn restore_backup(arguments: args::Restore, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let options = RestoreOptions {
        object: arguments.object,
        plan_only: arguments.plan,
        secrets: arguments.secrets,
        identity: arguments.identity,
        public_keys: arguments.public_key,
        checks: arguments.checks,
        migrations: arguments.migrations,
        schema_version: arguments.schema_version,
        allow_newer: arguments.allow_newer,
        allow_changed: arguments.allow_changed,
        allow_dirty: arguments.allow_dirty,
        postgres: arguments.postgres.options(),
        end_sessions: arguments.end_sessions,
        sign_with: arguments.sign_with,
        by: arguments.by,
        stood_at: arguments.stood_at,
    };
    let restored = restore::restore(&arguments.repo, &arguments.id, &arguments.to, &options, ctx)?;
    out.show(&restored, text::restored)?;
    Ok(Outcome::Good)
}

fn make_drill(arguments: args::Drill, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    // clap has seen to it that one of REPO and --plan is there.
    let repository = arguments.repo.unwrap_or_default();
    let id = arguments.id.as_deref().unwrap_or(backup_core::repository::LATEST);
    let server = arguments.scratch.as_deref().and_then(attestore::postgres::Server::parse);
    let folder = arguments.scratch.as_deref().filter(|_| server.is_none());
    let options = DrillOptions {
        scratch: folder.map(input::database).transpose()?,
        server,
        checks: arguments.checks,
        report: arguments.report,
        identity: arguments.identity,
        public_keys: arguments.public_key,
        secrets: arguments.secrets,
        sign_with: arguments.sign_with,
        plan: None,
    };
    let drilled = drill::drill(&repository, id, &options, ctx)?;
    out.show_exact(&drilled, |drilled| drill::markdown(&drilled.report))?;
    Ok(if drilled.report.ok { Outcome::Good } else { Outcome::Found })
}

fn prune(arguments: args::Prune, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let policy = RetentionPolicy {
        keep_last: arguments.keep_last,
        keep_daily: arguments.keep_daily,
        keep_weekly: arguments.keep_weekly,
        keep_monthly: arguments.keep_monthly,
        keep_yearly: arguments.keep_yearly,
        keep_within: arguments.keep_within.as_deref().map(str::parse).transpose()?,
    };
    let options = PruneOptions {
        policy,
        apply: arguments.apply,
        public_keys: arguments.public_key,
        sign_with: arguments.sign_with,
        wait: Duration::ZERO,
    };
    out.show(&repository::prune(&arguments.repo, &options, ctx)?, text::prune)?;
    Ok(Outcome::Good)
}

fn set_aside(arguments: &args::SetAside, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let done = aside::set_aside(&arguments.target, arguments.remove, arguments.archive.as_deref(), ctx)?;
    out.show(&done, text::set_aside)?;
    Ok(Outcome::Good)
}

/// Says how a chain's verdict ends the run.
fn outcome_of(report: &ChainReport) -> Outcome {
    match report.verdict {
        Verdict::Intact => Outcome::Good,
        Verdict::Findings => Outcome::Found,
        Verdict::CannotVerify => Outcome::NoKey,
    }
}

fn chain_verify(arguments: &args::ChainVerify, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let (input, mut options) = super::chain_more::options(&arguments.input, &arguments.more)?;
    options.earlier = arguments.earlier.as_deref().map(Input::parse).transpose()?;
    options.max_chains = arguments.max_chains.map_or(0, |max| max.get() as usize);
    let trusted = keys::public_keys(&arguments.checkpoint_key)?;
    options.checkpoint =
        arguments.checkpoint.as_deref().map(|path| chain::read_checkpoint(path, &trusted)).transpose()?;
    for key in trusted.into_iter().chain(keys::public_keys(&arguments.lineage_key)?) {
        options.keys.add_restore_key(*key.verifying_key());
    }
    for path in &arguments.lineage {
        lineage::read_file(path)?.into_iter().for_each(|record| options.keys.add_restore(record));
    }
    if let (Input::Sqlite(path), true) = (&input, arguments.lineage.is_empty()) {
        lineage::add_beside(&mut options.keys, path)?;
    }
    let report = chain::verify_chain(&input, &options, ctx)?;
    out.show(&report, text::chain_report)?;
    Ok(outcome_of(&report))
}

fn chain_checkpoint(arguments: &args::ChainCheckpoint, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let (input, options) = super::chain_more::options(&arguments.input, &arguments.more)?;
    let key = keys::signing_key(arguments.sign_with.as_deref())?;
    let made = chain::checkpoint_chain(&input, &options, key.as_ref(), ctx)?;
    out.show_exact(&made, |made| made.note.clone())?;
    Ok(outcome_of(&made.report))
}
