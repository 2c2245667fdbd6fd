//! One line of the repository's log: a record of audit-chain's `native` format.
//!
//! `log` writes lines, `logread` reads them; nothing else knows their form. The chain's id is the log's origin,
//! the body is the entry in canonical JSON, the record's own time is the entry's. A line is the record's
//! canonical row, so that the log's RFC 6962 tree over its lines is the tree that `attestore chain verify
//! --format native` builds over the same file.

use audit_chain::native::{NativeHead, NativeRecord, parse_time};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::{Event, LogEntry};
use crate::error::{Error, ErrorKind, Result};

/// The body of a record: an entry without its time.
#[derive(Serialize, Deserialize)]
struct Body {
    by: String,
    #[serde(flatten)]
    event: Event,
}

/// Makes the record of an entry behind `head`.
pub(super) fn encode(head: &NativeHead, entry: LogEntry) -> Result<NativeRecord> {
    let body = Body { by: entry.by, event: entry.event };
    let body = serde_json_canonicalizer::to_string(&body).map_err(|error| {
        Error::new(ErrorKind::Internal, "a log entry cannot be written").with_source(error)
    })?;
    Ok(head.next(entry.time.as_microsecond(), body, None)?)
}

/// Reads a line and checks that it is the record behind `head`, spelt as it was written.
pub(super) fn decode(head: &NativeHead, line: &[u8]) -> Result<NativeRecord> {
    let sequence = head.seq();
    let bad = |what: String| Error::new(ErrorKind::Tampered, format!("log entry {sequence} {what}"));
    let text = std::str::from_utf8(line).map_err(|_| bad("is not UTF-8".into()))?;
    let record = NativeRecord::parse(text).map_err(|error| bad(format!("is no record: {error}")))?;
    if record.line() != text {
        return Err(bad("is not spelt as it was written".into()));
    }
    if record.key_id.is_some() || hex::encode(record.digest(None)) != record.hash {
        return Err(bad("is not what its hash says: it was edited".into()));
    }
    if record.chain != head.chain() {
        return Err(bad(format!("is of another log, {:?}", record.chain)));
    }
    if record.seq != sequence + 1 {
        return Err(bad(format!("has the number {}: entries were added, removed or moved", record.seq)));
    }
    if record.prev != head.hash() {
        return Err(bad("does not continue the entry before it".into()));
    }
    Ok(record)
}

/// Reads what a record says.
pub(super) fn entry(record: &NativeRecord) -> Result<LogEntry> {
    let bad = |what: String| {
        Error::new(ErrorKind::Malformed, format!("log entry {}: {what}", record.seq.saturating_sub(1)))
    };
    let time = parse_time(&record.at)
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .ok_or_else(|| bad(format!("its time is {:?}", record.at)))?;
    let Body { by, event } = serde_json::from_str(&record.body).map_err(|error| bad(error.to_string()))?;
    Ok(LogEntry { time, by, event })
}

/// Returns the head of a chain whose last record has this number and hash.
pub(super) fn head(chain: &str, seq: u64, hash: &str) -> NativeHead {
    if seq == 0 {
        return NativeHead::genesis(chain);
    }
    NativeHead::from(&NativeRecord {
        chain: chain.to_owned(),
        seq,
        at: String::new(),
        body: String::new(),
        v: audit_chain::native::VERSION,
        key_id: None,
        prev: String::new(),
        hash: hash.to_owned(),
    })
}

/// Returns the hash that a line says it has, whether or not the line is sound.
pub(super) fn stated_hash(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Stated {
        hash: String,
    }
    serde_json::from_slice::<Stated>(line).ok().map(|stated| stated.hash)
}
