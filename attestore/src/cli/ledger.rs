//! `chain append` and `chain erase`: their arguments, their running, their text.

use attestore::ledger::{self, AppendOptions, Appended, EraseOutcome, EraseRequest};
use attestore::{Context, Error};
use clap::{Args, ValueEnum, ValueHint};

use super::Outcome;
use super::output::{Output, Text};
use super::text::line;

/// Formats that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Written {
    /// The native chain
    Native,
}

/// Arguments of `chain append`.
#[derive(Debug, Args)]
pub(crate) struct Append {
    /// The SQLite file, or sqlite:PATH
    #[arg(value_name = "SOURCE", value_hint = ValueHint::FilePath)]
    source: String,
    /// The chain's id
    #[arg(long, value_name = "ID")]
    chain: String,
    /// The chain's format: only `native` is written
    #[arg(long, value_enum, default_value_t = Written::Native)]
    format: Written,
    /// The table, where it is not the format's own
    #[arg(long, value_name = "T")]
    table: Option<String>,
    /// The secret that keys the chain; where it is new, the old one after it
    #[arg(long = "secret", value_name = "NAME=REF")]
    secrets: Vec<String>,
    /// A JSON pointer to a value that records only commit to, so that it can be erased
    #[arg(long, value_name = "POINTER")]
    personal: Vec<String>,
    /// Make the database where there is none
    #[arg(long)]
    create: bool,
    /// Make the tables without the triggers that forbid changes
    #[arg(long)]
    unguarded: bool,
    /// Go on with another secret than that of the last record
    #[arg(long)]
    rotate: bool,
}

/// Arguments of `chain erase`.
#[derive(Debug, Args)]
pub(crate) struct Erase {
    /// The SQLite file, or sqlite:PATH
    #[arg(value_name = "SOURCE", value_hint = ValueHint::FilePath)]
    source: String,
    /// The chain's id, where the table has several
    #[arg(long, value_name = "ID")]
    chain: Option<String>,
    /// The chain's format: only `native` is written
    #[arg(long, value_enum, default_value_t = Written::Native)]
    format: Written,
    /// The table, where it is not the format's own
    #[arg(long, value_name = "T")]
    table: Option<String>,
    /// The number of a record
    #[arg(long = "record", value_name = "SEQ", required = true)]
    records: Vec<u64>,
    /// A JSON pointer to a value (default: all that the records commit to)
    #[arg(long = "field", value_name = "POINTER")]
    fields: Vec<String>,
    /// Who erases
    #[arg(long, value_name = "WHO")]
    by: String,
    /// Why
    #[arg(long, value_name = "WHY")]
    reason: String,
    /// The secret that keys the chain
    #[arg(long = "secret", value_name = "NAME=REF")]
    secrets: Vec<String>,
    /// List the backups of this repository that still hold the values
    #[arg(long, value_name = "REPO", value_hint = ValueHint::DirPath)]
    repo: Option<String>,
}

/// Runs `chain append`.
pub(super) fn append(arguments: Append, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let Written::Native = arguments.format;
    let options = AppendOptions {
        table: arguments.table,
        chain: arguments.chain,
        secrets: arguments.secrets,
        personal: arguments.personal,
        create: arguments.create,
        unguarded: arguments.unguarded,
        rotate: arguments.rotate,
    };
    out.show(&ledger::append_stdin(&arguments.source, &options, ctx)?, appended)?;
    Ok(Outcome::Good)
}

/// Runs `chain erase`.
pub(super) fn erase(arguments: Erase, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let Written::Native = arguments.format;
    let request = EraseRequest {
        table: arguments.table,
        chain: arguments.chain,
        records: arguments.records,
        fields: arguments.fields,
        by: arguments.by,
        reason: arguments.reason,
        secrets: arguments.secrets,
        repository: arguments.repo,
    };
    let done = ledger::erase(&arguments.source, &request, ctx)?;
    out.show(&done, erased)?;
    Ok(if done.scrubbed { Outcome::Good } else { Outcome::Told(attestore::ErrorKind::Locked) })
}

fn appended(done: &Appended) -> Text {
    let mut text = Text::default();
    if let Some(rotated) = &done.rotated {
        line!(text, "record {} of {}: another key from here on", rotated.seq, done.chain);
    }
    match (&done.first, &done.last) {
        (Some(first), Some(last)) => {
            line!(text, "APPENDED  {} to {}: {} to {}", done.records, done.chain, first.seq, last.seq);
            line!(text, "head {}", last.hash);
        }
        _ => line!(text, "APPENDED  nothing: no line on standard input"),
    }
    text
}

fn erased(done: &EraseOutcome) -> Text {
    let mut text = Text::default();
    line!(text, "ERASED  {} values of {}", done.erased.len(), done.chain);
    for field in &done.erased {
        line!(text, "  record {}: {}", field.seq, field.pointer);
    }
    for record in &done.records {
        line!(text, "on record as number {}", record.seq);
    }
    for id in done.backups.iter().flatten() {
        line!(text, "backup {id} still holds them until it is pruned");
    }
    for note in &done.notes {
        line!(text, "note: {note}");
    }
    text
}
