//! `chain prune` on the command line: its arguments, its run, its text.

use std::path::PathBuf;

use attestore::chain_prune::{ChainPruneOptions, ChainPruned, prune_chain, refusal};
use attestore::input::Input;
use attestore::{Context, Error, chain, keys};
use clap::{Args, ValueHint};

use super::Outcome;
use super::output::{Output, Text, bytes};
use super::text::count;

/// Arguments of `chain prune`.
#[derive(Debug, Args)]
pub(crate) struct ChainPrune {
    /// The SQLite file, or sqlite:PATH
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// The chain's format
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: String,
    /// The table, where it is not the format's own
    #[arg(long, value_name = "T")]
    pub(crate) table: Option<String>,
    /// Records older than AGE leave (36h, 30d, 8w, 6mo, 2y): of each chain a run from its first record on
    #[arg(long, value_name = "AGE")]
    pub(crate) older_than: String,
    /// The file that they go to (FILE.json is put beside it); as CSV where it is named so
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) archive: PathBuf,
    /// A secret that keys the chain: verifies it, and makes the record of the prune (repeat a NAME for a rotation)
    #[arg(long = "secret", value_name = "NAME=REF")]
    pub(crate) secrets: Vec<String>,
    /// Only this chain; may be repeated
    #[arg(long = "chain", value_name = "ID")]
    pub(crate) chains: Vec<String>,
    /// Do it; otherwise the plan is printed and nothing is changed
    #[arg(long)]
    pub(crate) apply: bool,
}

/// Runs `chain prune`.
///
/// # Errors
/// What the library says.
pub(crate) fn run(arguments: ChainPrune, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let format = chain::format(&arguments.format)?;
    let older_than = arguments.older_than.parse()?;
    if let Some(refused) = refusal(format.as_ref()) {
        return Err(refused);
    }
    let options = ChainPruneOptions {
        format: arguments.format,
        table: arguments.table,
        older_than,
        archive: arguments.archive,
        secrets: keys::read_secrets(&arguments.secrets)?,
        chains: arguments.chains,
        apply: arguments.apply,
    };
    out.show(&prune_chain(&Input::parse(&arguments.source)?, &options, ctx)?, text)?;
    Ok(Outcome::Good)
}

/// Prints a prune or its plan.
fn text(pruned: &ChainPruned) -> Text {
    let mut text = Text::default();
    let rows: Vec<Vec<String>> = pruned
        .chains
        .iter()
        .map(|cut| {
            let id = if cut.chain.is_empty() { "(one chain)".to_owned() } else { cut.chain.clone() };
            vec![id, format!("{} to {}", cut.from, cut.to), cut.count.to_string(), cut.root.clone()]
        })
        .collect();
    if !rows.is_empty() {
        text.table(&["chain", "numbers", "records", "Merkle root over whole rows"], &rows);
    }
    let records = count(pruned.rows, "record", "records");
    if pruned.applied {
        text.line(format_args!("PRUNED  {records} older than {}", pruned.cutoff));
        text.line(format_args!(
            "archive {}  {}  SHA-256 {}",
            pruned.archive.display(),
            bytes(pruned.archive_size_bytes.unwrap_or_default()),
            pruned.archive_sha256.as_deref().unwrap_or_default()
        ));
        for record in &pruned.records {
            let key = record.key_id.as_ref().map_or_else(|| "a plain hash".into(), |id| format!("key {id}"));
            text.line(format_args!(
                "on record in chain {:?}: number {}, {} ({key})",
                record.chain, record.seq, record.hash
            ));
        }
    } else {
        text.line(format_args!(
            "PLAN  would remove {records} older than {} after archiving them in {} (nothing was changed; --apply does it)",
            pruned.cutoff,
            pruned.archive.display()
        ));
    }
    for note in &pruned.notes {
        text.line(format_args!("note: {note}"));
    }
    text
}
