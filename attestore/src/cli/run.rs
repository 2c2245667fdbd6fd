//! Each verb: from arguments to the library's call, and what the result means for the exit status.

use attestore::chain::{self, ChainOptions};
use attestore::input::Input;
use attestore::{Context, Error, doctor, keys};
use audit_chain::report::{ChainReport, Verdict};
use clap::CommandFactory as _;

use super::args::{self, Verb};
use super::output::Output;
use super::{Outcome, progress, text};

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
            clap_complete::generate(shell, &mut args::Cli::command(), "attestore", &mut std::io::stdout());
            Ok(Outcome::Good)
        }
        Verb::Chain(args::Chain::Verify(arguments)) => {
            chain_verify(&arguments, out, &progress::context(quiet)?)
        }
        Verb::Chain(args::Chain::Checkpoint(arguments)) => {
            chain_checkpoint(&arguments, out, &progress::context(quiet)?)
        }
        _ => Err(Error::new(attestore::ErrorKind::Unsupported, "not yet")),
    }
}

/// Says how a chain's verdict ends the run.
fn outcome_of(report: &ChainReport) -> Outcome {
    match report.verdict {
        Verdict::Intact => Outcome::Good,
        Verdict::Findings => Outcome::Found,
        Verdict::CannotVerify => Outcome::NoKey,
    }
}

/// Reads what every verb on chains takes.
fn chain_options(arguments: &args::ChainInput) -> Result<(Input, ChainOptions), Error> {
    let options = ChainOptions {
        format: arguments.format.clone(),
        table: arguments.table.clone(),
        keys: keys::key_ring(&arguments.secrets, &arguments.public_keys, &arguments.trust_anchors)?,
        checkpoint: None,
        threads: arguments.jobs.map_or(0, |jobs| jobs as usize),
    };
    // An unknown format is said before the input is looked at.
    chain::format(&options.format)?;
    Ok((Input::parse(&arguments.input)?, options))
}

fn chain_verify(arguments: &args::ChainVerify, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let (input, mut options) = chain_options(&arguments.input)?;
    let trusted = keys::public_keys(&arguments.checkpoint_key)?;
    options.checkpoint =
        arguments.checkpoint.as_deref().map(|path| chain::read_checkpoint(path, &trusted)).transpose()?;
    let report = chain::verify_chain(&input, &options, ctx)?;
    out.show(&report, text::chain_report)?;
    Ok(outcome_of(&report))
}

fn chain_checkpoint(arguments: &args::ChainCheckpoint, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let (input, options) = chain_options(&arguments.input)?;
    let key = keys::signing_key(arguments.sign_with.as_deref())?;
    let made = chain::checkpoint_chain(&input, &options, key.as_ref(), ctx)?;
    out.show(&made, |made| made.note.clone())?;
    Ok(outcome_of(&made.report))
}
