//! The command line: arguments in [`args`], each verb in [`run`], text for people in [`text`].

use std::process::ExitCode;

use attestore::{Error, ErrorKind};
use clap::Parser as _;
use clap::error::ErrorKind as Usage;

mod args;
mod output;
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
    match run::run(cli.verb, out, cli.quiet) {
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
        let text = error.render().to_string();
        let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        output::Output { json }
            .error(&Error::new(ErrorKind::InvalidInput, what).with_hint("see `attestore --help`"));
    } else if error.print().is_err() {
        return ExitCode::FAILURE;
    }
    ExitCode::from(if asked { 0 } else { ErrorKind::InvalidInput.exit_status() })
}
