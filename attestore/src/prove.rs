//! The proof that one record is in a chain, for an auditor: made from an input, and checked from the file alone.

use std::path::Path;

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::format::{ChainFormat, Companions, Setup};
use audit_chain::keys::KeyRing;
use audit_chain::note::TrustedKey;
use audit_chain::proof::{ProofRequest, RecordProof, prove};
use audit_chain::report::Verdict;
use audit_chain::source::RowSource;
use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::signing::{PublicKey, SigningKey};
use serde::Serialize;

use crate::chain::{ChainOptions, chain_error, checkpoint_chain, format, open_chain, read_document};
use crate::input::Input;

/// Which record is to be proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// By its own id.
    Id(String),
    /// By its place in its chain, from 1.
    Place(u64),
}

/// How a proof is made.
#[derive(Debug)]
pub struct ProveOptions<'a> {
    /// How the input is read.
    pub chain: ChainOptions,
    /// The chain that the record is in; needed where several chains could have it.
    pub of: Option<String>,
    /// Which record.
    pub record: Record,
    /// The text of the checkpoint that the proof leads to; where `None`, one is made of the input as it is now.
    pub checkpoint: Option<String>,
    /// The key that signs a checkpoint that is made.
    pub key: Option<&'a SigningKey>,
}

/// Makes the proof of one record.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no such record; [`ErrorKind::InvalidInput`] when several could be meant, or the
/// checkpoint does not have it; [`ErrorKind::Tampered`] when the rows are not those of the checkpoint, or the chains have findings.
pub fn prove_record(input: &Input, options: &ProveOptions<'_>, ctx: &Context) -> Result<RecordProof> {
    if *input == Input::Stdin {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "a proof takes several passes, and standard input can be read once only",
        )
        .with_hint("write it to a file first"));
    }
    let format = format(&options.chain.format)?;
    let checkpoint = match &options.checkpoint {
        Some(text) => text.clone(),
        None => {
            let made = checkpoint_chain(input, &options.chain, options.key, ctx)?;
            if made.report.verdict == Verdict::Findings {
                return Err(Error::new(
                    ErrorKind::Tampered,
                    format!("nothing is proven of chains with findings: {}", made.report.diagnosis),
                )
                .with_hint(
                    "see `attestore chain verify`; or prove against an earlier checkpoint with --checkpoint",
                ));
            }
            made.note
        }
    };
    let rows = open_chain(input, format.as_ref(), &options.chain, ctx)?;
    let (chain, index) = find(rows.rows.as_ref(), format.as_ref(), options, ctx)?;
    rows.rows.rewind().map_err(chain_error)?;
    let request =
        ProofRequest { checkpoint: &checkpoint, chain: &chain, index, cancel: Some(ctx.cancel().flag()) };
    prove(rows.rows.as_ref(), format.as_ref(), &request).map_err(chain_error)
}

/// Finds a record: its chain, and its place from 0.
fn find(
    source: &dyn RowSource,
    format: &dyn ChainFormat,
    options: &ProveOptions<'_>,
    ctx: &Context,
) -> Result<(String, u64)> {
    let (keys, companions) = (KeyRing::new(), Companions::new());
    let mut rule = format.bind(source.columns(), &Setup { keys: &keys, companions: &companions })?;
    let mut reader = source.reader().map_err(chain_error)?;
    let mut places: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    let mut found: Vec<(String, u64)> = Vec::new();
    loop {
        ctx.check()?;
        let chunk = reader
            .read_chunk(&mut |row| {
                rule.record(row, &mut |record| {
                    if !places.contains_key(record.chain) {
                        places.insert(record.chain.to_owned(), 0);
                    }
                    let Some(place) = places.get_mut(record.chain) else { return Ok(()) };
                    let here = match &options.record {
                        Record::Id(id) => record.id == id,
                        Record::Place(wanted) => *place + 1 == *wanted,
                    };
                    if here && options.of.as_ref().is_none_or(|of| of == record.chain) && found.len() < 3 {
                        found.push((record.chain.to_owned(), *place));
                    }
                    *place += 1;
                    Ok(())
                })
            })
            .map_err(chain_error)?;
        if chunk.is_none() {
            break;
        }
    }
    let wanted = match &options.record {
        Record::Id(id) => format!("record {id:?}"),
        Record::Place(place) => format!("record at place {place}"),
    };
    let of = options.of.as_ref().map(|of| format!(" in chain {of:?}")).unwrap_or_default();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::new(ErrorKind::NotFound, format!("{} has no {wanted}{of}", source.name()))
            .with_hint("a place is counted from 1 in its chain; `attestore chain verify` lists the chains")),
        [first, second, ..] => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{wanted} is there several times: in chain {:?} and in chain {:?}", first.0, second.0),
        )
        .with_hint("name one with --chain")),
    }
}

/// What a proof shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProofOutcome {
    /// Always true: a proof that shows nothing is an error.
    pub ok: bool,
    /// The chain format.
    pub format: String,
    /// The chain.
    pub chain: String,
    /// The record's place in its chain, from 1.
    pub position: u64,
    /// How many records the chain had.
    pub records: u64,
    /// The whole row.
    pub row: serde_json::Value,
    /// Who signed the checkpoint; empty where the caller's own was taken.
    pub signed_by: Vec<String>,
}

/// Checks a proof by the file alone: against its own checkpoint, which one of the keys must have signed, or against a
/// checkpoint that the caller trusts.
///
/// # Errors
/// [`ErrorKind::Tampered`] when the row is not in it, or another key signed; [`ErrorKind::Unsigned`]; [`ErrorKind::Malformed`] for
/// what is no proof; [`ErrorKind::InvalidInput`] when there is nothing to trust.
pub fn check_proof(
    path: &Path,
    trusted: &[PublicKey],
    checkpoint: Option<&ChainCheckpoint>,
) -> Result<ProofOutcome> {
    let named = |error: audit_chain::error::Error| {
        let hint = error.hint();
        let named = Error::new(error.kind(), format!("{}: {error}", path.display()));
        match hint {
            Some(hint) => named.with_hint(hint),
            None => named,
        }
    };
    let text = String::from_utf8(read_document(path)?).map_err(|_| {
        Error::new(ErrorKind::Malformed, format!("{}: a proof is UTF-8 text", path.display()))
    })?;
    let proof = RecordProof::parse(&text).map_err(named)?;
    let mut signed_by = Vec::new();
    if !trusted.is_empty() {
        let keys: Vec<_> = trusted.iter().map(|key| TrustedKey::Bare(*key.verifying_key())).collect();
        signed_by = proof.verify(&keys).map_err(named)?.iter().map(ToString::to_string).collect();
    }
    if let Some(checkpoint) = checkpoint {
        proof.verify_against(checkpoint).map_err(named)?;
    } else if trusted.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{}: a proof is as good as its checkpoint, and nothing vouches for that", path.display()),
        )
        .with_hint("give the key that signs checkpoints (--public-key), or a checkpoint that you kept (--checkpoint)"));
    }
    let row = serde_json::from_str(&proof.row).unwrap_or(serde_json::Value::String(proof.row.clone()));
    Ok(ProofOutcome {
        ok: true,
        format: proof.format,
        chain: proof.chain,
        position: proof.index + 1,
        records: proof.size,
        row,
        signed_by,
    })
}
