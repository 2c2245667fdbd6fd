//! Verifies chains with an older copy of their rows at hand: which rows differ, and that what is left is unchanged.
//!
//! Called by [`crate::chain::verify_chain`]. The older copy is first held against the caller's checkpoint; then both are
//! compared row by row ([`audit_chain::earlier`]), and today's chains are verified against where the older copy stood, with
//! what became of each row. An honest removal of the oldest rows is then a note.

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::earlier::{EarlierOptions, compare_rows};
use audit_chain::report::{ChainReport, Finding, FindingKind};
use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::chain::{ChainOptions, chain_error, format, open_chain, verify_rows};
use crate::input::Input;

/// What a comparison with a checkpoint finds.
const AGAINST_CHECKPOINT: [FindingKind; 6] = [
    FindingKind::Rewritten,
    FindingKind::UnhashedEdited,
    FindingKind::Truncated,
    FindingKind::MissingChain,
    FindingKind::Stripped,
    FindingKind::CheckpointMismatch,
];

/// What says nothing of the rows themselves.
const KEYS: [FindingKind; 4] =
    [FindingKind::WrongKey, FindingKind::UnknownKey, FindingKind::UnknownVersion, FindingKind::KeyExpired];

/// Verifies an input against an older copy of its rows, and that against the checkpoint of the options.
pub(crate) fn verify_with_earlier(
    input: &Input,
    earlier: &Input,
    options: &ChainOptions,
    ctx: &Context,
) -> Result<ChainReport> {
    let format = format(&options.format)?;
    if matches!((input, earlier), (Input::Stdin, _) | (_, Input::Stdin)) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "rows are compared in several passes, and standard input can be read once only",
        )
        .with_hint("write it to a file first"));
    }
    if format.name() == "agledger" {
        return Err(Error::new(ErrorKind::Unsupported, "dumps of AGLedger are not compared row by row")
            .with_hint("give the older dump's checkpoint with --checkpoint (`attestore chain checkpoint`)"));
    }
    // The older copy brings its own small tables, and lists all its chains.
    let alone =
        ChainOptions { companions: Vec::new(), earlier: None, max_chains: usize::MAX, ..options.clone() };
    let older = open_chain(earlier, format.as_ref(), &alone, ctx)?;
    let before = verify_rows(&older, format.as_ref(), &alone, options.checkpoint.as_ref(), None, ctx)?;
    if let Some(checkpoint) = &options.checkpoint
        && let Some((chain, why)) = differs_from(checkpoint, &before)
    {
        return not_of_the_checkpoint(input, chain, &why, options, ctx);
    }
    let point = ChainCheckpoint::from_report(&before)?;
    let today = open_chain(input, format.as_ref(), options, ctx)?;
    older.rows.rewind().map_err(chain_error)?;
    let compare = EarlierOptions {
        threads: options.threads,
        earlier_companions: Some(&older.companions),
        companions: Some(&today.companions),
        scratch: None,
        cancel: Some(ctx.cancel().flag()),
    };
    let differences =
        compare_rows(older.rows.as_ref(), today.rows.as_ref(), format.as_ref(), &options.keys, &compare)
            .map_err(chain_error)?;
    drop(older);
    today.rows.rewind().map_err(chain_error)?;
    verify_rows(&today, format.as_ref(), options, Some(&point), Some(&differences), ctx)
}

/// Says in which chain, and why, an older copy does not begin with the rows of a checkpoint.
fn differs_from(checkpoint: &ChainCheckpoint, before: &ChainReport) -> Option<(String, String)> {
    let told = |finding: &Finding| (finding.chain.clone(), format!("{}: {}", finding.kind, finding.explains));
    if let Some(finding) = before.findings.iter().find(|finding| AGAINST_CHECKPOINT.contains(&finding.kind)) {
        return Some(told(finding));
    }
    for point in &checkpoint.chains {
        let Some(chain) = before.chain(&point.id) else { continue };
        if chain.records == point.records {
            if STANDARD.decode(&chain.root).is_ok_and(|root| root != point.root) {
                return Some((point.id.clone(), "its Merkle root over whole rows is another".to_owned()));
            }
            continue;
        }
        // It has grown since: a fault among the rows of the checkpoint leaves its root in doubt.
        let among = |finding: &&Finding| {
            finding.chain == point.id
                && !KEYS.contains(&finding.kind)
                && finding.position.is_none_or(|position| position <= point.records)
        };
        if let Some(finding) = before.findings.iter().find(among) {
            return Some(told(finding));
        }
    }
    None
}

/// Says that the older copy is not what the checkpoint stands for; today's rows are then judged by the checkpoint alone.
fn not_of_the_checkpoint(
    input: &Input,
    chain: String,
    why: &str,
    options: &ChainOptions,
    ctx: &Context,
) -> Result<ChainReport> {
    let alone = ChainOptions { earlier: None, ..options.clone() };
    let mut report = crate::chain::verify_chain(input, &alone, ctx)?;
    report.add_findings(vec![Finding {
        kind: FindingKind::CheckpointMismatch,
        chain,
        position: None,
        last: None,
        record: None,
        expected: None,
        found: None,
        explains: format!(
            "the earlier copy is not the one of the checkpoint ({why}), so no rows are compared with it"
        ),
    }]);
    Ok(report)
}
