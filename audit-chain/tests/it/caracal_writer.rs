//! Writes Caracal's audit events by the format's text alone: the hash and the HMAC of a row, and honest histories of any length.
//!
//! The benchmarks use it too.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

pub(crate) type Row = Map<String, Value>;

/// The test key of the vectors.
pub(crate) const KEY: &str = "a1a1a1a100112233445566778899aabbccddeeff0123456789abcdef01234567";

/// Fifty real rows of two zones.
pub(crate) const VALID: &str = include_str!("../vectors/caracal/valid.ndjson");

pub(crate) fn text<'a>(row: &'a Row, name: &str) -> &'a str {
    row[name].as_str().unwrap_or("")
}

/// Hashes a row by formats/caracal.md, with jiff for the time.
pub(crate) fn content(row: &Row) -> String {
    let mut input = Vec::new();
    for name in [
        "id",
        "zone_id",
        "event_type",
        "request_id",
        "decision",
        "policy_set_id",
        "policy_set_version_id",
        "manifest_sha",
        "evaluation_status",
    ] {
        input.extend(text(row, name).as_bytes());
        input.push(0x1f);
    }
    for name in ["determining_policies_json", "diagnostics_json", "metadata_json"] {
        input.extend(row[name].as_str().unwrap_or("null").as_bytes());
        input.push(0x1f);
    }
    let at: jiff::Timestamp = (text(row, "occurred_at").replace(' ', "T") + ":00").parse().unwrap();
    input.extend(at.as_nanosecond().to_string().into_bytes());
    hex::encode(Sha256::digest(input))
}

pub(crate) fn seal(row: &Row, key: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(&hex::decode(key).unwrap()).unwrap();
    let message = format!("{}|{}", text(row, "content_sha256"), text(row, "prev_content_sha256"));
    hex::encode(mac.chain_update(message).finalize().into_bytes())
}

/// Makes the honest history of one zone: rows shaped as those of the vectors, a fraction of a second apart, sealed with [`KEY`].
pub(crate) fn history(zone: u8, count: u64) -> impl Iterator<Item = Row> {
    let shapes: Vec<Row> = VALID.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut prev = Value::Null;
    (1..=count).map(move |seq| {
        let mut row = shapes[(seq % shapes.len() as u64) as usize].clone();
        let at =
            jiff::Timestamp::from_microsecond(1_793_692_800_000_007 + i64::try_from(seq).unwrap() * 654_320)
                .unwrap();
        row["id"] = format!("0198f0c0-{zone:04x}-7000-8000-{seq:012x}").into();
        row["zone_id"] = format!("0198a000-0000-7000-8000-{zone:012x}").into();
        row["occurred_at"] = at.strftime("%Y-%m-%d %H:%M:%S.%6f+00").to_string().into();
        row["chain_seq"] = seq.into();
        row["prev_content_sha256"] = prev.clone();
        row["content_sha256"] = content(&row).into();
        row["chain_hmac"] = seal(&row, KEY).into();
        prev = row["content_sha256"].clone();
        row
    })
}
