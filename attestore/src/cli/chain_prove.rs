//! `chain prove`, `chain check-proof` and `chain registry` on the command line: arguments, runs, texts.

use std::path::PathBuf;

use attestore::input::Input;
use attestore::prove::{self, ProofOutcome, ProveOptions, Record};
use attestore::registry::{self, RegistryOutcome};
use attestore::{Context, Error, chain, keys};
use clap::{Args, ValueHint};

use super::Outcome;
use super::args::ChainInput;
use super::chain_more::{ChainMore, options};
use super::output::{Output, Text};
use super::text::count;

/// Arguments of `chain prove`.
#[derive(Debug, Args)]
pub(crate) struct ChainProve {
    #[command(flatten)]
    pub(crate) input: ChainInput,
    #[command(flatten)]
    pub(crate) more: ChainMore,
    /// The record's own id
    #[arg(long, value_name = "ID", required_unless_present = "position", conflicts_with = "position")]
    pub(crate) record: Option<String>,
    /// The record's place in its chain, from 1
    #[arg(long, value_name = "N")]
    pub(crate) position: Option<std::num::NonZeroU64>,
    /// The chain that the record is in (tenant, zone …), where several could have it
    #[arg(long, value_name = "CHAIN")]
    pub(crate) chain: Option<String>,
    /// The checkpoint that the proof leads to (default: one that is made now)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "sign_with")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Sign the checkpoint that is made with this key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) sign_with: Option<PathBuf>,
}

/// Arguments of `chain check-proof`.
#[derive(Debug, Args)]
pub(crate) struct CheckProof {
    /// The proof
    #[arg(value_name = "PROOF", value_hint = ValueHint::FilePath)]
    pub(crate) proof: PathBuf,
    /// The public key that must have signed the proof's checkpoint (file or text)
    #[arg(long, value_name = "FILE|KEY")]
    pub(crate) public_key: Vec<String>,
    /// A checkpoint that you kept; the proof must lead to it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) checkpoint: Option<PathBuf>,
    /// The public key that must have signed that checkpoint (file or text)
    #[arg(long, value_name = "FILE|KEY", requires = "checkpoint")]
    pub(crate) checkpoint_key: Vec<String>,
}

/// Arguments of `chain registry`.
#[derive(Debug, Args)]
pub(crate) struct ChainRegistry {
    /// A dump directory of AGLedger, a registry as CSV, NDJSON or JSON, or a SQLite file with the table
    #[arg(value_name = "INPUT")]
    pub(crate) input: String,
    /// The registry that it should be, as after a restore: vault-public-keys.csv, or a dump
    #[arg(long, value_name = "INPUT")]
    pub(crate) compare: Option<String>,
}

/// Runs `chain prove`.
///
/// # Errors
/// What the library says.
pub(crate) fn prove(arguments: ChainProve, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let (input, chain) = options(&arguments.input, &arguments.more)?;
    let key = keys::signing_key(arguments.sign_with.as_deref())?;
    let record = match (arguments.record, arguments.position) {
        (Some(id), _) => Record::Id(id),
        (None, position) => Record::Place(position.map_or(1, std::num::NonZeroU64::get)),
    };
    let checkpoint = match &arguments.checkpoint {
        Some(path) => Some(chain::read_checkpoint_text(path)?),
        None => None,
    };
    let options = ProveOptions { chain, of: arguments.chain, record, checkpoint, key: key.as_ref() };
    let proof = prove::prove_record(&input, &options, ctx)?;
    let text = proof.to_json().map_err(Error::Chain)?;
    // The proof is a document of its own, the same with --json.
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
        Error::new(attestore::ErrorKind::Internal, format!("the proof is no JSON: {error}"))
    })?;
    out.show_exact(&value, |_| text)?;
    Ok(Outcome::Good)
}

/// Runs `chain check-proof`.
///
/// # Errors
/// What the library says.
pub(crate) fn check(arguments: &CheckProof, out: Output) -> Result<Outcome, Error> {
    let trusted = keys::public_keys(&arguments.public_key)?;
    let of_checkpoint = keys::public_keys(&arguments.checkpoint_key)?;
    let kept = arguments
        .checkpoint
        .as_deref()
        .map(|path| chain::read_checkpoint(path, &of_checkpoint))
        .transpose()?;
    let shown = prove::check_proof(&arguments.proof, &trusted, kept.as_ref())?;
    out.show(&shown, proven)?;
    Ok(Outcome::Good)
}

/// Runs `chain registry`.
///
/// # Errors
/// What the library says.
pub(crate) fn registry(arguments: &ChainRegistry, out: Output, ctx: &Context) -> Result<Outcome, Error> {
    let input = Input::parse(&arguments.input)?;
    let expected = arguments.compare.as_deref().map(Input::parse).transpose()?;
    let found = registry::registry(&input, expected.as_ref(), ctx)?;
    if expected.is_some() {
        out.show(&found, compared)?;
    } else {
        out.show_exact(&found, |found| found.csv.clone())?;
    }
    Ok(if found.ok { Outcome::Good } else { Outcome::Found })
}

/// Prints what a proof shows.
fn proven(shown: &ProofOutcome) -> Text {
    let mut text = Text::default();
    let of = if shown.chain.is_empty() { String::new() } else { format!(" of chain {}", shown.chain) };
    text.line(format_args!(
        "PROVEN  the row below is record {} of {}{of} ({})",
        shown.position,
        count(shown.records, "record", "records"),
        shown.format
    ));
    for key in &shown.signed_by {
        text.line(format_args!("the checkpoint is signed by {key}"));
    }
    text.blank();
    text.line(format_args!("{}", shown.row));
    text
}

/// Prints how a registry differs.
fn compared(found: &RegistryOutcome) -> Text {
    let mut text = Text::default();
    if found.ok {
        text.line(format_args!("SAME  {}, each as it should be", count(found.keys, "key", "keys")));
        return text;
    }
    text.line(format_args!(
        "DIFFERS  {}",
        count(found.differences.len() as u64, "difference", "differences")
    ));
    for difference in &found.differences {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        let what = match difference.column {
            Some(column) => format!(
                "{column}: expected {}, found {}",
                value(&difference.expected),
                value(&difference.found)
            ),
            None if difference.found.is_none() => "is gone".to_owned(),
            None => "was not there".to_owned(),
        };
        text.line(format_args!("  key {}  {what}", difference.key_id));
    }
    text
}
