//! A proof that one record is in a chain: a small JSON file that stands alone, for an auditor.
//!
//! [`prove`] makes it in one pass over the rows, in constant memory; [`RecordProof::verify`] needs the file and a public
//! key, nothing else. What it shows: when the checkpoint was signed, this row, byte for byte, stood at this place.
//!
//! ```text
//! type         "attestore.dev/inclusion-proof/v1"
//! format       the chain format          chain   the chain's id, as in the checkpoint
//! index        place of the row in its chain, from 0          size   how many rows the chain had
//! row          the whole row in canonical form, as text       path   RFC 6962 inclusion path, base64, leaf first
//! checkpoint   the text of the chain checkpoint, signed (docs/format/checkpoint.md)
//! ```
//!
//! The checkpoint names every chain of its table. Where that is too much for the auditor's eyes, prove against a
//! checkpoint of the one chain. The row's meaning, and its own hash or signature, are not judged here.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::canonical::RowForm;
use crate::checkpoint::{ChainCheckpoint, ParsedCheckpoint};
use crate::error::{Error, Result};
use crate::format::{ChainFormat, Companions, Setup};
use crate::keys::KeyRing;
use crate::merkle::{Hash, ProofBuilder, leaf_hash, verify_inclusion};
use crate::note::{NoteVerifier, TrustedKey};
use crate::source::RowSource;
use crate::tlog::parse_root;

/// What the member `type` of a proof says.
pub const TYPE: &str = "attestore.dev/inclusion-proof/v1";

/// The proof of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordProof {
    /// The chain format's name.
    pub format: String,
    /// The chain's id.
    pub chain: String,
    /// The row's place in its chain, from 0.
    pub index: u64,
    /// How many rows the chain had at the checkpoint.
    pub size: u64,
    /// The whole row in canonical form.
    pub row: String,
    /// The RFC 6962 inclusion path, from the leaf's sibling up.
    pub path: Vec<Hash>,
    /// The text of the checkpoint.
    pub checkpoint: String,
}

/// The file's members, in the order in which they are written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    r#type: String,
    format: String,
    chain: String,
    index: u64,
    size: u64,
    row: String,
    path: Vec<String>,
    checkpoint: String,
}

impl RecordProof {
    /// Reads a proof from its JSON.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is no proof of this version.
    pub fn parse(json: &str) -> Result<Self> {
        let malformed = |place: String, what| Error::Malformed { input: "proof".into(), place, what };
        let kind: Kind = serde_json::from_str(json).map_err(|error| {
            malformed(format!("line {}", error.line()), format!("not a proof in JSON: {error}"))
        })?;
        if kind.r#type != TYPE {
            return Err(malformed("type".into(), format!("expected {TYPE:?}, found {:?}", kind.r#type)));
        }
        let file: File = serde_json::from_str(json).map_err(|error| {
            malformed(format!("line {}", error.line()), format!("not a proof in JSON: {error}"))
        })?;
        let path = file.path.iter().enumerate().map(|(at, hash)| {
            parse_root(hash).map_err(|why| malformed(format!("path, hash {}", at + 1), why))
        });
        Ok(Self {
            path: path.collect::<Result<_>>()?,
            format: file.format,
            chain: file.chain,
            index: file.index,
            size: file.size,
            row: file.row,
            checkpoint: file.checkpoint,
        })
    }

    /// Writes the proof as indented JSON with a last newline.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] never for a proof that was made or read here.
    pub fn to_json(&self) -> Result<String> {
        let file = File {
            r#type: TYPE.into(),
            format: self.format.clone(),
            chain: self.chain.clone(),
            index: self.index,
            size: self.size,
            row: self.row.clone(),
            path: self.path.iter().map(|hash| STANDARD.encode(hash)).collect(),
            checkpoint: self.checkpoint.clone(),
        };
        let json = serde_json::to_string_pretty(&file)
            .map_err(|error| Error::InvalidInput(format!("proof cannot be written: {error}")))?;
        Ok(json + "\n")
    }

    /// Verifies the proof against its own checkpoint, signed by one of the keys; returns the keys that signed.
    ///
    /// # Errors
    /// [`Error::Unsigned`] or [`Error::Unverified`] for the checkpoint, [`Error::Unverified`] when the row is not in it,
    /// [`Error::Malformed`] when the checkpoint is none.
    pub fn verify(&self, trusted: &[TrustedKey]) -> Result<Vec<NoteVerifier>> {
        let parsed = ChainCheckpoint::parse(&self.checkpoint)?;
        let signed_by = parsed.verify(trusted)?;
        self.verify_against(&parsed.checkpoint)?;
        Ok(signed_by)
    }

    /// Verifies the proof against a checkpoint that the caller trusts; the proof's own is not looked at.
    ///
    /// # Errors
    /// [`Error::Unverified`] when the row is not in it.
    pub fn verify_against(&self, checkpoint: &ChainCheckpoint) -> Result<()> {
        let fail = |why: String| Err(Error::Unverified { what: "proof".into(), why });
        if checkpoint.format != self.format {
            return fail(format!(
                "it is of format {:?}, the checkpoint of {:?}",
                self.format, checkpoint.format
            ));
        }
        let Some(point) = checkpoint.chain(&self.chain) else {
            return fail(format!("the checkpoint names no chain {:?}", self.chain));
        };
        if point.records != self.size {
            return fail(format!(
                "it is of a chain of {} records, the checkpoint's has {}",
                self.size, point.records
            ));
        }
        verify_inclusion(&leaf_hash(self.row.as_bytes()), self.index, self.size, &self.path, &point.root)
    }
}

/// Tells the type before anything else, so that a later version is named as such.
#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

/// What is to be proven.
#[derive(Clone, Copy)]
pub struct ProofRequest<'a> {
    /// The text of the checkpoint that the proof leads to; signed, or the auditor must trust it from elsewhere.
    pub checkpoint: &'a str,
    /// The chain's id.
    pub chain: &'a str,
    /// The row's place in its chain, from 0.
    pub index: u64,
    /// A flag that stops the work.
    pub cancel: Option<&'a AtomicBool>,
}

impl fmt::Debug for ProofRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProofRequest")
            .field("chain", &self.chain)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// Makes the proof of one record in one pass over a source that is at its beginning.
///
/// The chain may have grown since the checkpoint. The proof is verified before it is returned.
///
/// # Errors
/// [`Error::InvalidInput`] when the checkpoint has no such record; [`Error::Unverified`] when the rows are not those of
/// the checkpoint; whatever the source or the checkpoint's text says.
pub fn prove(
    source: &dyn RowSource,
    format: &dyn ChainFormat,
    request: &ProofRequest<'_>,
) -> Result<RecordProof> {
    let ParsedCheckpoint { checkpoint, .. } = ChainCheckpoint::parse(request.checkpoint)?;
    if checkpoint.format != format.name() {
        return Err(Error::InvalidInput(format!(
            "the checkpoint is of format {:?}, the rows are read as {:?}",
            checkpoint.format,
            format.name()
        )));
    }
    let point =
        checkpoint.chain(request.chain).filter(|point| request.index < point.records).ok_or_else(|| {
            Error::InvalidInput(format!(
                "the checkpoint has no record {} (from 0) of a chain {:?}",
                request.index, request.chain
            ))
        })?;

    let mut builder = ProofBuilder::inclusion(request.index);
    let mut size = 0;
    let mut line = None;
    let (keys, companions) = (KeyRing::new(), Companions::new());
    let mut rule = format.bind(source.columns(), &Setup { keys: &keys, companions: &companions })?;
    let mut form = RowForm::new(source.columns());
    let mut reader = source.reader()?;
    while size < point.records {
        if request.cancel.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(Error::Cancelled);
        }
        let chunk = reader.read_chunk(&mut |row| {
            let mut wanted = false;
            rule.record(row, &mut |record| {
                if record.chain == request.chain && size < point.records {
                    wanted = size == request.index;
                    builder.push(record.leaf);
                    size += 1;
                }
                Ok(())
            })?;
            if wanted {
                line = Some(String::from_utf8_lossy(form.line(row)).into_owned());
            }
            Ok(())
        })?;
        if chunk.is_none() {
            break;
        }
    }
    let changed = |why: String| Error::Unverified { what: format!("chain {:?}", request.chain), why };
    let Some(row) = line.filter(|_| size == point.records) else {
        return Err(changed(format!(
            "expected the {} records of the checkpoint, found {size}",
            point.records
        )));
    };
    let proof = builder.finish()?;
    if proof.root != point.root {
        return Err(changed("its rows are not those of the checkpoint".into()));
    }
    let proof = RecordProof {
        format: checkpoint.format.clone(),
        chain: request.chain.to_owned(),
        index: request.index,
        size,
        row,
        path: proof.path,
        checkpoint: request.checkpoint.to_owned(),
    };
    proof.verify_against(&checkpoint)?;
    Ok(proof)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::ChainPoint;
    use crate::json_rows::NdjsonSource;
    use crate::merkle::root;
    use crate::native::{NativeAppender, NativeHead, NativeRecord};
    use crate::note::NoteSigner;

    fn records(count: i64) -> Vec<NativeRecord> {
        let mut one = NativeAppender::new(NativeHead::genesis("one"), None);
        let mut two = NativeAppender::new(NativeHead::genesis("two"), None);
        (0..count)
            .flat_map(|at| [one.append(at, format!("{at}\n\"é\"")).unwrap(), two.append(at, "").unwrap()])
            .collect()
    }

    fn checkpoint(records: &[NativeRecord]) -> ChainCheckpoint {
        let point = |id: &str| {
            let leaves: Vec<Hash> =
                records.iter().filter(|row| row.chain == id).map(NativeRecord::leaf).collect();
            ChainPoint {
                id: id.into(),
                records: leaves.len() as u64,
                root: root(&leaves),
                head: String::new(),
                signed: 0,
                ..ChainPoint::default()
            }
        };
        ChainCheckpoint { format: "native".into(), chains: vec![point("one"), point("two")] }
    }

    fn signer() -> NoteSigner {
        NoteSigner::new("attestore.dev/test", &[5; 32]).unwrap()
    }

    fn trusted() -> [TrustedKey; 1] {
        [signer().verifier().clone().into()]
    }

    fn make(records: &[NativeRecord], checkpoint: &str, chain: &str, index: u64) -> Result<RecordProof> {
        let text: String = records.iter().map(|row| row.line() + "\n").collect();
        let source = NdjsonSource::once("rows", std::io::Cursor::new(text.into_bytes()))?;
        prove(
            &source,
            &crate::formats::native::Native,
            &ProofRequest { checkpoint, chain, index, cancel: None },
        )
    }

    #[test]
    fn every_record_is_proven_though_the_chain_has_grown_since() {
        let rows = records(9);
        let signed = checkpoint(&rows[..14]).sign(None, &signer()).unwrap();
        for (chain, index) in [("one", 0), ("one", 6), ("two", 3)] {
            let proof = make(&rows, &signed, chain, index).unwrap();
            assert_eq!(proof.size, 7);
            assert_eq!(NativeRecord::parse(&proof.row).unwrap().seq, index + 1);
            let read = RecordProof::parse(&proof.to_json().unwrap()).unwrap();
            assert_eq!(read, proof);
            assert_eq!(read.verify(&trusted()).unwrap(), [signer().verifier().clone()]);
        }
    }

    #[test]
    fn records_that_the_checkpoint_does_not_have_are_not_proven() {
        let rows = records(9);
        let signed = checkpoint(&rows[..14]).sign(None, &signer()).unwrap();
        for (chain, index) in [("one", 7), ("three", 0)] {
            assert!(
                matches!(make(&rows, &signed, chain, index), Err(Error::InvalidInput(_))),
                "{chain} {index}"
            );
        }
        assert!(matches!(make(&rows[..12], &signed, "one", 0), Err(Error::Unverified { .. })));
        let mut edited = rows.clone();
        edited[2].body.push('x');
        assert!(matches!(make(&edited, &signed, "one", 0), Err(Error::Unverified { .. })));
        let error = make(&rows, &signed.replace("chain/native", "chain/other"), "one", 0).unwrap_err();
        assert!(matches!(error, Error::InvalidInput(_)), "{error}");
    }

    #[test]
    fn the_work_can_be_cancelled() {
        let rows = records(2);
        let text = checkpoint(&rows).to_note_text(None).unwrap();
        let lines: String = rows.iter().map(|row| row.line() + "\n").collect();
        let source = NdjsonSource::once("rows", std::io::Cursor::new(lines.into_bytes())).unwrap();
        let request =
            ProofRequest { checkpoint: &text, chain: "one", index: 0, cancel: Some(&AtomicBool::new(true)) };
        assert!(matches!(prove(&source, &crate::formats::native::Native, &request), Err(Error::Cancelled)));
    }

    #[test]
    fn a_proof_is_worth_what_its_signature_is() {
        let rows = records(3);
        let unsigned = make(&rows, &checkpoint(&rows).to_note_text(None).unwrap(), "one", 1).unwrap();
        assert!(matches!(unsigned.verify(&trusted()), Err(Error::Unsigned { .. })));
        unsigned.verify_against(&checkpoint(&rows)).unwrap();
        let signed = make(&rows, &checkpoint(&rows).sign(None, &signer()).unwrap(), "one", 1).unwrap();
        let stranger = NoteSigner::new("attestore.dev/test", &[6; 32]).unwrap();
        assert!(matches!(
            signed.verify(&[stranger.verifier().clone().into()]),
            Err(Error::Unverified { .. })
        ));
        assert!(matches!(signed.verify(&[]), Err(Error::Unverified { .. })));
    }

    #[test]
    fn a_proof_does_not_pass_for_another_chain_place_or_row() {
        let rows = records(8);
        let good = make(&rows, &checkpoint(&rows).sign(None, &signer()).unwrap(), "one", 2).unwrap();
        let cases: [RecordProof; 6] = [
            RecordProof { chain: "two".into(), ..good.clone() },
            RecordProof { format: "caracal".into(), ..good.clone() },
            RecordProof { index: 3, ..good.clone() },
            RecordProof { size: 7, ..good.clone() },
            RecordProof { row: good.row.replace("\\\"é", "\\\"e"), ..good.clone() },
            RecordProof { path: good.path[1..].to_vec(), ..good.clone() },
        ];
        for case in cases {
            assert!(matches!(case.verify(&trusted()), Err(Error::Unverified { .. })), "{case:?}");
        }
    }

    #[test]
    fn files_that_are_no_proof_are_refused() {
        let rows = records(2);
        let json =
            make(&rows, &checkpoint(&rows).to_note_text(None).unwrap(), "one", 0).unwrap().to_json().unwrap();
        for (what, text) in [
            ("empty", String::new()),
            ("another object", "{}".into()),
            ("a later version", json.replace("proof/v1", "proof/v2")),
            ("an unknown member", json.replacen('{', "{\"more\":1,", 1)),
            ("a negative place", json.replace("\"index\": 0", "\"index\": -1")),
            ("a short hash", json.replacen("=\"", "\"", 1)),
        ] {
            assert_ne!(text, json, "{what}");
            assert!(matches!(RecordProof::parse(&text), Err(Error::Malformed { .. })), "{what}");
        }
    }

    proptest! {
        #[test]
        fn any_flipped_bit_of_a_proof_file_changes_nothing_or_is_noticed(count in 1_i64..9, place: prop::sample::Index, at: prop::sample::Index) {
            let rows = records(count);
            let proof = make(&rows, &checkpoint(&rows).sign(None, &signer()).unwrap(), "one", place.index(count as usize) as u64).unwrap();
            let mut bytes = proof.to_json().unwrap().into_bytes();
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(text) = String::from_utf8(bytes)
                && let Ok(read) = RecordProof::parse(&text)
                && read.verify(&trusted()).is_ok()
            {
                // White space between members, or the case of a digit in an escape.
                prop_assert_eq!(read, proof);
            }
        }
    }
}
