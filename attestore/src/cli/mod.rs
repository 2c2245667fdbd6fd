//! The command line: arguments in [`args`], each verb in [`run`], text for people in [`text`].

use std::process::ExitCode;

use attestore::{Error, ErrorKind};
use clap::Parser as _;
use clap::error::ErrorKind as Usage;

mod args;
mod chain_export;
mod chain_more;
mod chain_prove;
mod guard;
mod ledger;
mod output;
mod plan;
mod postgres;
mod progress;
mod run;
mod text;

/// How a run ended when nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done and good.
    Good,
    /// Verification found something.
    Found,
    /// No key at hand fits.
    NoKey,
    /// A kind of error that is already told in the result.
    Told(ErrorKind),
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Good => Self::SUCCESS,
            Outcome::Found => Self::from(1),
            Outcome::NoKey => Self::from(ErrorKind::KeyRejected.exit_status()),
            Outcome::Told(kind) => Self::from(kind.exit_status()),
        }
    }
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let out = output::Output { json: cli.json };
    match guard::guarded(|| run::run(cli.verb, out, cli.quiet)) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            out.error(&error);
            ExitCode::from(error.kind().exit_status())
        }
    }
}

/// Prints help, the version, or what is wrong with the arguments: as JSON where that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), Usage::DisplayHelp | Usage::DisplayVersion);
    let json = std::env::args_os().any(|argument| argument == "--json");
    if json && !asked {
        output::Output { json }.error(&usage_error(error));
    } else if let Err(error) = error.print()
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        return ExitCode::from(ErrorKind::Io.exit_status());
    }
    ExitCode::from(if asked { 0 } else { ErrorKind::InvalidInput.exit_status() })
}

/// Takes what is wrong, the tip and the usage line out of the text that clap writes for people.
fn usage_error(error: &clap::Error) -> Error {
    if matches!(error.kind(), Usage::DisplayHelpOnMissingArgumentOrSubcommand | Usage::MissingSubcommand) {
        return Error::new(ErrorKind::InvalidInput, "no verb is given").with_hint("see `attestore --help`");
    }
    let text = error.render().to_string();
    let (mut what, mut hint) = (Vec::new(), Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(usage) = line.strip_prefix("Usage: ") {
            hint.push(format!("usage: {usage}"));
        } else if let Some(tip) = line.strip_prefix("tip: ") {
            hint.push(tip.to_owned());
        } else if !line.starts_with("For more information") && hint.is_empty() {
            what.push(line.trim_start_matches("error: ").to_owned());
        }
    }
    if hint.is_empty() {
        hint.push("see `attestore --help`".into());
    }
    Error::new(ErrorKind::InvalidInput, what.join(" ")).with_hint(hint.join("; "))
}
