//! One line of the repository's log.
//!
//! `log` writes lines, `logread` reads them; nothing else knows their form.

use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// What a record is known by to its successor.
pub(super) type Link = [u8; 32];

/// The link before the first record.
pub(super) const GENESIS: Link = [0; 32];

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// The link that it leaves to its successor, as stored.
    pub(super) link: Link,
    /// The entry, JSON.
    pub(super) payload: String,
}

/// Writes the record at `sequence` (from 0) behind `before`; returns its line, without a newline, and its link.
pub(super) fn encode(sequence: u64, before: &Link, payload: &[u8]) -> Result<(Vec<u8>, Link)> {
    let link: Link = Sha256::new().chain_update(before).chain_update(payload).finalize().into();
    let line = serde_json::json!({
        "body": String::from_utf8_lossy(payload), "hash": hex::encode(link), "prev": hex::encode(before), "seq": sequence,
    });
    Ok((
        serde_json_canonicalizer::to_vec(&line)
            .map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))?,
        link,
    ))
}

/// Reads the record at `sequence` and checks that it continues `before`.
pub(super) fn decode(sequence: u64, before: &Link, line: &[u8]) -> Result<Record> {
    let bad = |what: &str| Error::new(ErrorKind::Tampered, format!("log entry {sequence}: {what}"));
    let value: serde_json::Value = serde_json::from_slice(line).map_err(|_| bad("not JSON"))?;
    let payload = value["body"].as_str().ok_or_else(|| bad("no body"))?;
    let (again, link) = encode(sequence, before, payload.as_bytes())?;
    if again != line {
        return Err(bad("altered"));
    }
    Ok(Record { link, payload: payload.to_owned() })
}

/// Returns the link that a line says it leaves, whether or not the line is sound.
pub(super) fn stated_link(line: &[u8]) -> Option<Link> {
    let value: serde_json::Value = serde_json::from_slice(line).ok()?;
    let mut link = GENESIS;
    hex::decode_to_slice(value["hash"].as_str()?, &mut link).ok()?;
    Some(link)
}
