//! Small documents of audit-chain: profiles, notes, checkpoints, proofs, records, times, keys. What is parsed and written again
//! is parsed the same.

use std::io::Cursor;
use std::sync::Arc;

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::export::series::Watermark;
use audit_chain::export::sidecar::Sidecar;
use audit_chain::export::text::RowShape;
use audit_chain::json_rows::NdjsonSource;
use audit_chain::keys::KeyRing;
use audit_chain::native::{NativeRecord, parse_time};
use audit_chain::note::{Note, NoteSigner, NoteVerifier, TrustedKey};
use audit_chain::profile::Profile;
use audit_chain::proof::RecordProof;
use audit_chain::signature;
use audit_chain::sniff;
use audit_chain::timestamp::Instant;
use audit_chain::tlog::LogCheckpoint;
use audit_chain::verify::{VerifyOptions, verify};

fn text(data: &[u8]) -> &str {
    std::str::from_utf8(data).unwrap_or_default()
}

/// A profile, and behind a NUL the rows that it is tried on.
pub(crate) fn profile(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (profile, rows) = data.split_at(at);
    let Ok(profile) = Profile::parse("t", text(profile)) else { return };
    let rows: Arc<[u8]> = rows.get(1..).unwrap_or_default().into();
    let open = move || Ok(Some(Box::new(Cursor::new(Arc::clone(&rows))) as _));
    let Ok(source) = NdjsonSource::new("t", open) else { return };
    let mut keys = KeyRing::new();
    keys.add_secret("K", b"00000000000000000000000000000001".to_vec());
    let _ = verify(&source, &profile, &keys, &VerifyOptions { threads: 1, ..Default::default() });
}

/// A signed note.
pub(crate) fn note(data: &[u8]) {
    let Ok(note) = Note::parse(text(data)) else { return };
    let again = Note::parse(&note.to_string()).unwrap();
    assert_eq!(again.text(), note.text());
    assert_eq!(again.signatures().len(), note.signatures().len());
    let signer = NoteSigner::new("attestore.dev/fuzz", &[7; 32]).unwrap();
    let mut signed = note;
    signed.sign(&signer);
    let _ = LogCheckpoint::parse(signed.text());
}

/// The text of a tlog checkpoint.
pub(crate) fn tlog_checkpoint(data: &[u8]) {
    let Ok(checkpoint) = LogCheckpoint::parse(text(data)) else { return };
    assert_eq!(LogCheckpoint::parse(&checkpoint.to_string()).unwrap(), checkpoint);
}

/// Where chains stand: a note or JSON.
pub(crate) fn chain_checkpoint(data: &[u8]) {
    let Ok(parsed) = ChainCheckpoint::parse(text(data)) else { return };
    let json = serde_json::to_string(&parsed.checkpoint).unwrap();
    assert_eq!(ChainCheckpoint::parse(&json).unwrap().checkpoint, parsed.checkpoint);
    if let Ok(note) = parsed.checkpoint.to_note_text(None) {
        assert_eq!(ChainCheckpoint::parse(&note).unwrap().checkpoint, parsed.checkpoint);
    }
}

/// The proof of one record.
pub(crate) fn proof(data: &[u8]) {
    let Ok(proof) = RecordProof::parse(text(data)) else { return };
    let _ = proof.verify(&[]);
    if let Ok(json) = proof.to_json() {
        RecordProof::parse(&json).unwrap();
    }
}

/// The document beside an export, and the watermark of an incremental one.
pub(crate) fn sidecar(data: &[u8]) {
    if let Ok(Some(sidecar)) = Sidecar::parse("t", data) {
        let _ = sidecar.starts();
    }
    let _ = Watermark::parse("t", data, "caracal", RowShape::Ndjson);
}

/// A line of a native chain.
pub(crate) fn native_record(data: &[u8]) {
    let Ok(record) = NativeRecord::parse(text(data)) else { return };
    let line = record.line();
    let again = NativeRecord::parse(&line).unwrap();
    assert_eq!(again.line(), line);
    assert_eq!(again.digest(None), record.digest(None));
}

/// Dates and times.
pub(crate) fn timestamp(data: &[u8]) {
    let text = text(data);
    if let Some(instant) = Instant::parse(text) {
        let mut spelt = Vec::new();
        instant.push(&mut spelt, b'T', 9);
        spelt.push(b'Z');
        let spelt = String::from_utf8(spelt).unwrap();
        assert_eq!(Instant::parse(&spelt), Some(instant), "{text} as {spelt}");
        let _ = instant.micros();
    }
    let _ = parse_time(text);
}

/// Keys as they are given, and what a file is by how it begins.
pub(crate) fn key(data: &[u8]) {
    let _ = sniff::other_than("NDJSON", data);
    let text = text(data);
    let _ = (NoteVerifier::parse(text), NoteSigner::parse(text), TrustedKey::parse(text));
    let mut ring = KeyRing::new();
    let _ = (ring.add_trust_anchor(text), ring.add_distrusted_key(text));
    if let Ok(key) = signature::public_key(data.get(..32).unwrap_or_default()) {
        let _ = signature::verify(&key, b"", data.get(32..).unwrap_or_default());
    }
}
