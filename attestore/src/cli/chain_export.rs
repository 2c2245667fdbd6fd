//! `chain export` on the command line: its arguments, its run, its text.

use std::path::PathBuf;

use attestore::chain_export::{ExportOptions, ExportOutcome, export_chain};
use attestore::input::Input;
use attestore::{Context, Error, chain, keys};
use audit_chain::export::text::RowShape;
use clap::{Args, ValueEnum, ValueHint};

use super::Outcome;
use super::args::ChainInput;
use super::output::{Output, Text, bytes};
use super::text::count;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// One JSON object a line
    Ndjson,
    /// Comma-separated values with a header; an empty field is NULL, "" is empty text
    Csv,
}

/// Arguments of `chain export`.
#[derive(Debug, Args)]
pub(crate) struct ChainExport {
    #[command(flatten)]
    pub(crate) input: ChainInput,
    /// The file to make (FILE.json is put beside it); with --watermark, and for agledger, a folder
    #[arg(long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    pub(crate) out: PathBuf,
    /// How rows are written (default: csv for a FILE.csv, else ndjson)
    #[arg(long = "as", value_enum, value_name = "ndjson|csv")]
    pub(crate) shape: Option<Shape>,
    /// Only rows whose own time is T or later: RFC 3339 (2026-11-20T12:00:00Z), or a date (its midnight in UTC)
    #[arg(long, value_name = "T")]
    pub(crate) from: Option<String>,
    /// Only rows whose own time is before T; a row of exactly T is not exported
    #[arg(long, value_name = "T")]
    pub(crate) to: Option<String>,
    /// Only this chain (tenant, zone …); may be repeated
    #[arg(long = "chain", value_name = "ID")]
    pub(crate) chains: Vec<String>,
    /// Export only what is new since the last run with this FILE, as the next segment in the folder --out
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) watermark: Option<PathBuf>,
}

/// Runs `chain export`.
///
/// # Errors
/// What the library says.
pub(crate) fn run(arguments: ChainExport, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let input = arguments.input;
    let options = ExportOptions {
        keys: keys::key_ring(&input.secrets, &input.public_keys, &input.trust_anchors)?,
        format: input.format,
        table: input.table,
        shape: arguments.shape.map(|shape| match shape {
            Shape::Ndjson => RowShape::Ndjson,
            Shape::Csv => RowShape::Csv,
        }),
        from: arguments.from,
        to: arguments.to,
        chains: arguments.chains,
        watermark: arguments.watermark,
        threads: input.jobs.map_or(0, |jobs| jobs as usize),
        postgres: input.postgres.options(),
    };
    // An unknown format is said before the input is looked at.
    chain::format(&options.format)?;
    let made = export_chain(&Input::parse(&input.input)?, &arguments.out, &options, ctx)?;
    out.show(&made, text)?;
    Ok(if made.findings.is_empty() { Outcome::Good } else { Outcome::Found })
}

/// Prints an export.
fn text(made: &ExportOutcome) -> Text {
    let mut text = Text::default();
    let path = made.segment.as_ref().unwrap_or(&made.path);
    if !made.findings.is_empty() {
        text.line(format_args!("REFUSED  nothing was exported to {}", made.path.display()));
        for finding in &made.findings {
            text.line(format_args!("  {} in chain {:?}: {}", finding.kind, finding.chain, finding.explains));
        }
        return text;
    }
    if made.watermark.is_some() && made.segment.is_none() {
        text.line(format_args!("nothing is new since the last run"));
    } else {
        let chains = count(made.chains.len() as u64, "chain", "chains");
        let rows = count(made.rows, "row", "rows");
        text.line(format_args!("{}  {rows} of {chains}, {}", path.display(), bytes(made.size_bytes)));
    }
    if let Some(sha256) = &made.sha256 {
        text.line(format_args!("SHA-256 {sha256}"));
    }
    for (table, rows) in &made.counts {
        text.line(format_args!("  {table}: {}", count(*rows, "row", "rows")));
    }
    if made.left_out > 0 {
        text.line(format_args!("left out by the filters: {}", count(made.left_out, "row", "rows")));
    }
    if let Some(sidecar) = &made.sidecar {
        text.line(format_args!("what it holds: {}", sidecar.display()));
    }
    if let Some(watermark) = &made.watermark {
        text.line(format_args!("watermark: {}", watermark.display()));
    }
    if let Some(diagnosis) = &made.diagnosis {
        text.line(format_args!("read back: {diagnosis}"));
    }
    for note in &made.notes {
        text.line(format_args!("note: {note}"));
    }
    text
}
