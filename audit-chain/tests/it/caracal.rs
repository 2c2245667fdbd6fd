//! Caracal's chains: the vectors, each way to tamper with and without an earlier checkpoint, honest oddities, properties.

use std::collections::BTreeMap;

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::csv_rows::{CsvOptions, CsvSource};
use audit_chain::error::Error;
use audit_chain::format::Companions;
use audit_chain::formats;
use audit_chain::json_rows::NdjsonSource;
use audit_chain::keys::KeyRing;
use audit_chain::report::{ChainReport, FindingKind, NoteKind, Verdict};
use audit_chain::verify::{VerifyOptions, verify};
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::caracal_writer::{KEY, Row, VALID, content, history, seal, text};

const OTHER_KEY: &str = "b2b2b2b2ffeeddccbbaa99887766554433221100fedcba9876543210fedcba98";
const RETENTION: &str = include_str!("../vectors/caracal/retention-before.ndjson");
const ADMIN: &str = include_str!("../vectors/caracal/admin-valid.ndjson");
const A: &str = "0198a000-0000-7000-8000-00000000000a";

fn rows(text: &str) -> Vec<Row> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ndjson(rows: &[Row]) -> String {
    rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect()
}

fn keys(values: &[&str]) -> KeyRing {
    let mut ring = KeyRing::new();
    for value in values {
        ring.add_secret("AUDIT_HMAC_KEY", value.as_bytes().to_vec());
    }
    ring
}

/// What a check is given besides rows and keys.
#[derive(Default)]
struct Given<'a> {
    checkpoint: Option<&'a ChainCheckpoint>,
    companions: Option<&'a Companions>,
}

fn check_text(format: &str, text: &str, ring: &KeyRing, given: &Given<'_>) -> Result<ChainReport, Error> {
    let open = || Ok(Some(Box::new(std::io::Cursor::new(text.as_bytes().to_vec())) as _));
    let source = NdjsonSource::new("rows.ndjson", open)?;
    let options = VerifyOptions {
        checkpoint: given.checkpoint,
        companions: given.companions,
        threads: 2,
        ..Default::default()
    };
    verify(&source, formats::by_name(format)?.as_ref(), ring, &options)
}

fn check(rows: &[Row], values: &[&str]) -> ChainReport {
    check_text("caracal", &ndjson(rows), &keys(values), &Given::default()).unwrap()
}

fn check_against(rows: &[Row], values: &[&str], checkpoint: &ChainCheckpoint) -> ChainReport {
    let given = Given { checkpoint: Some(checkpoint), ..Default::default() };
    check_text("caracal", &ndjson(rows), &keys(values), &given).unwrap()
}

fn checkpoint_of(report: &ChainReport) -> ChainCheckpoint {
    let checkpoint = ChainCheckpoint::from_report(report).unwrap();
    // As it is kept: as text.
    ChainCheckpoint::parse(&checkpoint.to_note_text(None).unwrap()).unwrap().checkpoint
}

/// What was found, as `zone kind@position-last`, zones by their last letter.
fn kinds(report: &ChainReport) -> Vec<String> {
    let zone = |id: &str| id.chars().last().map_or_else(|| "-".to_owned(), |last| last.to_string());
    report
        .findings
        .iter()
        .map(|finding| match (finding.position, finding.last) {
            (Some(from), Some(to)) => format!("{} {}@{from}-{to}", zone(&finding.chain), finding.kind),
            (Some(from), None) => format!("{} {}@{from}", zone(&finding.chain), finding.kind),
            (None, _) => format!("{} {}", zone(&finding.chain), finding.kind),
        })
        .collect()
}

fn notes(report: &ChainReport) -> Vec<NoteKind> {
    let mut kinds: Vec<_> = report.notes.iter().map(|note| note.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// The place of a row of zone A by its number.
fn at(rows: &[Row], number: u64) -> usize {
    rows.iter().position(|row| text(row, "zone_id") == A && row["chain_seq"] == number).unwrap()
}

/// Hashes, links and seals the rows of zone A anew from a number on; `key` empty leaves the HMACs alone.
fn rehash(rows: &mut [Row], from: u64, key: &str) {
    let mut prev = Value::Null;
    for row in rows.iter_mut().filter(|row| text(row, "zone_id") == A) {
        if row["chain_seq"].as_u64() >= Some(from) {
            row["content_sha256"] = content(row).into();
            row["prev_content_sha256"] = prev;
            if !key.is_empty() {
                row["chain_hmac"] = seal(row, key).into();
            }
        }
        prev = row["content_sha256"].clone();
    }
}

fn sort(rows: &mut [Row]) {
    rows.sort_by_key(|row| (text(row, "zone_id").to_owned(), row["chain_seq"].as_i64()));
}

/// Inserts a row of zone A after its last one, with the number 31.
fn append(rows: &mut Vec<Row>, hmac: &dyn Fn(&Row) -> String) {
    let last = at(rows, 30);
    let mut row = rows[last].clone();
    row["id"] = "forged".into();
    row["prev_content_sha256"] = row["content_sha256"].clone();
    row["chain_seq"] = 31.into();
    row["content_sha256"] = content(&row).into();
    row["chain_hmac"] = hmac(&row).into();
    rows.insert(last + 1, row);
}

#[test]
fn the_worked_example_of_the_format_text_is_recomputed() {
    let rows = rows(VALID);
    assert_eq!(content(&rows[0]), "6ebf1d122cbaa8c3116616d52b5b00d43f2b7bcfd7c8aa11794ca3bd520a8dc7");
    assert_eq!(seal(&rows[0], KEY), "f76b7af085f2c533df25eb49e196d3394024c0d110944b1b5dd99bea8b9058af");
    assert_eq!(seal(&rows[1], KEY), "0959f85a885480e14131410a408fdfaa039bf8882f3f1678d5e398a76ef55d7c");
    assert_eq!(text(&rows[1], "prev_content_sha256"), content(&rows[0]));
    // The very bytes that the text spells out.
    let mut input = String::new();
    for field in ["0198f0c0-0000-7000-8000-000000000001", A, "token_exchange", "", "allow", "ps-0", "psv-0"] {
        input += &format!("{field}\u{1f}");
    }
    input += &format!(
        "{}\u{1f}complete\u{1f}null\u{1f}null\u{1f}{{\"a\": 2, \"b\": 1, \"aa\": 3}}\u{1f}",
        "0".repeat(64)
    );
    input += "1793692800000000000";
    assert_eq!(hex::encode(Sha256::digest(input)), content(&rows[0]));
}

#[test]
fn histories_of_any_length_are_honest() {
    let rows: Vec<Row> = history(10, 700).chain(history(11, 30)).collect();
    let report = check(&rows, &[KEY]);
    assert_eq!((report.verdict, report.records, report.notes.len()), (Verdict::Intact, 730, 0), "{report:?}");
}

#[test]
fn every_vector_gets_its_verdict_its_kinds_and_its_places() {
    let test = "every_vector_gets_its_verdict_its_kinds_and_its_places";
    let Some(folder) = crate::vectors::vectors(test, "caracal") else { return };
    // What is expected alone, and against the checkpoint of `valid` (or of the case's own base). Cases that are
    // not in this table are judged by their EXPECTED.json below.
    let expected: BTreeMap<&str, (&[&str], &[NoteKind])> = BTreeMap::from([
        ("valid", (&[][..], &[][..])),
        ("valid-nokey", (&[], &[NoteKind::NotChecked])),
        ("edited-row", (&["a edited@13"], &[])),
        ("edited-rehashed-row", (&["a signature-invalid@13", "a link-broken@14"], &[])),
        ("edited-rehashed-relinked", (&["a signature-invalid@13", "a signature-invalid@14"], &[])),
        ("edited-unhashed-columns", (&[], &[])),
        ("key-enabled-later", (&["a unsigned@1-12", "b unsigned@1-8"], &[])),
        ("lossy-json-reserialised", (&[], &[NoteKind::SerialisationDrift])),
        ("missing-head", (&["a missing-head@6"], &[])),
        ("missing-middle", (&["a missing@16"], &[])),
        ("rehash-marker-lost", (&[], &[])),
        ("reordered", (&["a reordered@10-12"], &[])),
        ("retention-before", (&[], &[])),
        ("truncated-tail", (&[], &[])),
        ("unsigned-rows-nokey", (&[], &[NoteKind::UnsignedSpan])),
        ("wrong-key", (&["a wrong-key@1-30", "b wrong-key@1-20"], &[])),
        ("admin-valid", (&[], &[])),
        ("admin-edited-row", (&["a edited@5"], &[])),
        ("admin-truncated-tail", (&[], &[])),
        ("admin-wrong-key", (&["- wrong-key@1-6", "a wrong-key@1-18"], &[])),
    ]);
    let mut seen = 0;
    let mut cases: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    for case in cases {
        let Ok(lines) = std::fs::read_to_string(case.join("rows.ndjson")) else { continue };
        let name = case.file_name().unwrap().to_str().unwrap();
        let facts: Value =
            serde_json::from_str(&std::fs::read_to_string(case.join("EXPECTED.json")).unwrap()).unwrap();
        let format = if name.starts_with("admin-") { "caracal-admin" } else { "caracal" };
        let ring = facts["hmac_key_hex_used"].as_str().map_or_else(KeyRing::new, |key| keys(&[key]));
        let report = check_text(format, &lines, &ring, &Given::default()).unwrap();
        assert_eq!(report.records, lines.lines().count() as u64, "{name}");
        if let Some((findings, noted)) = expected.get(name) {
            assert_eq!(kinds(&report), *findings, "{name}: {report:#?}");
            assert_eq!(notes(&report), *noted, "{name}: {report:#?}");
            seen += 1;
        }
        let verdict = match name {
            "wrong-key" | "admin-wrong-key" => Verdict::CannotVerify,
            _ if report.findings.is_empty() => Verdict::Intact,
            _ => Verdict::Findings,
        };
        assert_eq!(report.verdict, verdict, "{name}: {}", report.diagnosis);
        judged_like_the_systems_own(name, &facts, &report);
    }
    assert_eq!(seen, expected.len());
}

/// Compares a report with what the independent checker found: each of its findings is covered by one of ours.
fn judged_like_the_systems_own(name: &str, facts: &Value, report: &ChainReport) {
    // JSON and times that only lost their spelling are no tampering; heads are compared against a checkpoint.
    let spelling = name.starts_with("lossy-");
    for strict in facts["strict_findings"].as_array().into_iter().flatten() {
        let kind = strict["kind"].as_str().unwrap();
        if spelling || kind.starts_with("strict:head") || kind.starts_with("strict:missing_zone") {
            continue;
        }
        let (zone, seq) = (strict["zone"].as_str().unwrap_or(""), strict["seq"].as_u64().unwrap());
        let covered = report.findings.iter().any(|finding| {
            let from = finding.position.unwrap_or(0);
            finding.chain == zone && from <= seq && seq <= finding.last.unwrap_or(from)
        });
        assert!(covered, "{name}: nothing found at {zone} {seq} ({kind}): {report:#?}");
    }
    if facts["caracal_sweeper_says_ok"] == false && !spelling {
        assert!(!report.ok, "{name}: the system's own verifier finds something");
    }
    for (zone, head) in facts["heads"].as_object().into_iter().flatten() {
        let chain = report.chain(zone).unwrap();
        assert_eq!(
            (chain.last, chain.head.as_str()),
            (head["seq"].as_u64().unwrap(), head["content_sha256"].as_str().unwrap()),
            "{name}"
        );
    }
}

#[test]
fn an_honest_history_is_intact_and_its_key_and_spans_are_named() {
    let report = check(&rows(VALID), &[OTHER_KEY, KEY]);
    assert_eq!((report.ok, report.records), (true, 50), "{report:#?}");
    let spans: Vec<_> =
        report.chains[0].verified_by.iter().map(|by| (by.key.as_str(), by.from, by.to)).collect();
    assert_eq!(spans, [("AUDIT_HMAC_KEY#2", 1, 30)]);
    assert_eq!(report.chains[0].head, "6416a1d2a1d51fd2a283c89629fdbd7acb4f50e13d041270e0cbf36076102eb0");
    assert_eq!(report.notes, []);
}

/// What is found alone with the key, alone without it, and without it against the earlier checkpoint.
type Case = (
    &'static str,
    fn(&mut Vec<Row>),
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

const CASES: &[Case] = &[
    (
        "edited row",
        |rows| {
            let at = at(rows, 13);
            rows[at]["decision"] = "x".into();
        },
        &["a edited@13"],
        &["a edited@13"],
        &["a edited@13"],
    ),
    (
        "edited JSON",
        |rows| {
            let at = at(rows, 2);
            rows[at]["metadata_json"] = text(&rows[at], "metadata_json").replace("1000", "1001").into();
        },
        &["a edited@2"],
        &["a edited@2"],
        &["a edited@2"],
    ),
    (
        "edited time",
        |rows| {
            let at = at(rows, 2);
            rows[at]["occurred_at"] = text(&rows[at], "occurred_at").replace("37.123457", "37.123458").into();
        },
        &["a edited@2"],
        &["a edited@2"],
        &["a edited@2"],
    ),
    (
        "columns that are not hashed",
        |rows| {
            let at = at(rows, 13);
            rows[at]["ingest_signature"] = "00".into();
        },
        &[],
        &[],
        &["a unhashed-edited"],
    ),
    (
        "NULL for empty text",
        |rows| {
            let at = at(rows, 1);
            rows[at]["request_id"] = Value::Null;
        },
        &[],
        &[],
        &["a unhashed-edited"],
    ),
    (
        "edited and hashed anew",
        |rows| {
            let at = at(rows, 13);
            rows[at]["decision"] = "x".into();
            rows[at]["content_sha256"] = content(&rows[at]).into();
        },
        &["a signature-invalid@13", "a link-broken@14"],
        &["a link-broken@14"],
        &["a link-broken@14"],
    ),
    (
        "edited, hashed and linked anew",
        |rows| {
            let at = at(rows, 13);
            rows[at]["decision"] = "x".into();
            rehash(rows, 13, "");
        },
        &["a signature-invalid@13", "a signature-invalid@14"],
        &[],
        &["a rewritten"],
    ),
    (
        "edited and everything made anew with the key",
        |rows| {
            let at = at(rows, 13);
            rows[at]["decision"] = "x".into();
            rehash(rows, 1, KEY);
        },
        &[],
        &[],
        &["a rewritten"],
    ),
    (
        "the last row edited, hashed and linked anew",
        |rows| {
            let at = at(rows, 30);
            rows[at]["decision"] = "x".into();
            rehash(rows, 30, "");
        },
        &["a signature-invalid@30"],
        &[],
        &["a rewritten"],
    ),
    (
        "missing middle",
        |rows| {
            let at = at(rows, 15);
            rows.remove(at);
        },
        &["a missing@16"],
        &["a missing@16"],
        &["a missing@16"],
    ),
    (
        "missing middle, linked and numbered anew",
        |rows| {
            let gone = at(rows, 15);
            rows.remove(gone);
            for row in rows.iter_mut().filter(|row| text(row, "zone_id") == A) {
                let number = row["chain_seq"].as_u64().unwrap();
                row["chain_seq"] = (number - u64::from(number > 15)).into();
            }
            rehash(rows, 15, "");
        },
        &["a signature-invalid@15"],
        &[],
        &["a rewritten"],
    ),
    (
        "missing head",
        |rows| {
            let (from, to) = (at(rows, 1), at(rows, 6));
            rows.drain(from..to);
        },
        &["a missing-head@6"],
        &["a missing-head@6"],
        &["a missing-head@6"],
    ),
    (
        "truncated tail",
        |rows| {
            let (from, to) = (at(rows, 26), at(rows, 30));
            rows.drain(from..=to);
        },
        &[],
        &[],
        &["a truncated"],
    ),
    ("missing zone", |rows| rows.retain(|row| text(row, "zone_id") == A), &[], &[], &["b missing-chain"]),
    (
        "two rows change places",
        |rows| {
            let (ten, eleven) = (at(rows, 10), at(rows, 11));
            rows[ten]["chain_seq"] = 11.into();
            rows[eleven]["chain_seq"] = 10.into();
            sort(rows);
        },
        &["a reordered@10-12"],
        &["a reordered@10-12"],
        &["a reordered@10-12"],
    ),
    (
        "renumbered with a gap",
        |rows| {
            for row in rows.iter_mut().filter(|row| text(row, "zone_id") == A) {
                let number = row["chain_seq"].as_u64().unwrap();
                row["chain_seq"] = (number + 5 * u64::from(number >= 20)).into();
            }
        },
        &["a unhashed-edited@25"],
        &["a unhashed-edited@25"],
        &["a unhashed-edited@25"],
    ),
    (
        "renumbered from the beginning",
        |rows| {
            for row in rows.iter_mut().filter(|row| text(row, "zone_id") == A) {
                row["chain_seq"] = (row["chain_seq"].as_u64().unwrap() + 100).into();
            }
        },
        &["a unhashed-edited@101"],
        &["a unhashed-edited@101"],
        &["a unhashed-edited@101"],
    ),
    (
        "one number given twice",
        |rows| {
            let at = at(rows, 13);
            rows[at]["chain_seq"] = 12.into();
        },
        &["a duplicate@12", "a unhashed-edited@14"],
        &["a duplicate@12", "a unhashed-edited@14"],
        &["a duplicate@12", "a unhashed-edited@14"],
    ),
    (
        "a second row with a number",
        |rows| {
            let at = at(rows, 12);
            let mut row = rows[at].clone();
            row["id"] = "other".into();
            row["content_sha256"] = content(&row).into();
            rows.insert(at + 1, row);
        },
        &["a forked@12", "a signature-invalid@12"],
        &["a forked@12"],
        &["a forked@12"],
    ),
    (
        "the same row twice",
        |rows| {
            let at = at(rows, 12);
            let row = rows[at].clone();
            rows.insert(at + 1, row);
        },
        &["a duplicate@12"],
        &["a duplicate@12"],
        &["a duplicate@12"],
    ),
    (
        "HMACs taken away in the middle",
        |rows| {
            for number in 13..=14 {
                let at = at(rows, number);
                rows[at]["chain_hmac"] = "".into();
            }
        },
        &["a unsigned@13-14"],
        &["a unsigned@13-14"],
        &["a stripped", "a unsigned@13-14"],
    ),
    (
        "edited, made anew and the HMACs up to there taken away",
        |rows| {
            let at_5 = at(rows, 5);
            rows[at_5]["decision"] = "x".into();
            rehash(rows, 5, "");
            for number in 1..=6 {
                let at = at(rows, number);
                rows[at]["chain_hmac"] = "".into();
            }
        },
        &["a unsigned@1-6"],
        &[],
        &["a stripped", "a rewritten"],
    ),
    (
        "no HMAC anywhere",
        |rows| rows.iter_mut().for_each(|row| row["chain_hmac"] = "".into()),
        &["a unsigned@1-30", "b unsigned@1-20"],
        &[],
        &["a stripped", "b stripped"],
    ),
    (
        "an HMAC that is none",
        |rows| {
            let at = at(rows, 13);
            rows[at]["chain_hmac"] = text(&rows[at], "chain_hmac").to_uppercase().into();
        },
        &["a signature-invalid@13"],
        &["a signature-invalid@13"],
        &["a signature-invalid@13"],
    ),
    (
        "appended without HMAC",
        |rows| append(rows, &|_| String::new()),
        &["a unsigned@31"],
        &["a unsigned@31"],
        &["a unsigned@31"],
    ),
    (
        "appended with another key",
        |rows| append(rows, &|row| seal(row, OTHER_KEY)),
        &["a signature-invalid@31"],
        &[],
        &[],
    ),
    (
        "a hash that is none",
        |rows| {
            let at = at(rows, 13);
            rows[at]["content_sha256"] = Value::Null;
        },
        &["a signature-invalid@13", "a malformed@13", "a link-broken@14"],
        &["a malformed@13", "a link-broken@14"],
        &["a malformed@13", "a link-broken@14"],
    ),
    (
        "a number that is none",
        |rows| {
            let at = at(rows, 13);
            rows[at]["chain_seq"] = "13a".into();
        },
        &["a malformed@13"],
        &["a malformed@13"],
        &["a malformed@13"],
    ),
    (
        "a time that is none",
        |rows| {
            let at = at(rows, 13);
            rows[at]["occurred_at"] = "yesterday".into();
        },
        &["a malformed@13"],
        &["a malformed@13"],
        &["a malformed@13"],
    ),
];

#[test]
fn each_way_to_tamper_has_its_name_with_and_without_key_and_checkpoint() {
    let honest = rows(VALID);
    let earlier = checkpoint_of(&check(&honest, &[]));
    let mut wrong = Vec::new();
    for (name, tamper, keyed, keyless, against) in CASES {
        let mut rows = honest.clone();
        tamper(&mut rows);
        for (how, report, expected) in [
            ("with the key", check(&rows, &[KEY]), keyed),
            ("without", check(&rows, &[]), keyless),
            ("without, against the checkpoint", check_against(&rows, &[], &earlier), against),
        ] {
            if kinds(&report) != **expected || report.ok != expected.is_empty() {
                wrong.push(format!(
                    "{name}, {how}: expected {expected:?}, found {:?}: {}",
                    kinds(&report),
                    report.diagnosis
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn retired_keys_are_told_from_wrong_keys_and_forgeries() {
    let mut rotated = rows(VALID);
    for row in &mut rotated {
        let old = row["chain_seq"].as_u64() <= Some(if text(row, "zone_id") == A { 15 } else { 10 });
        row["chain_hmac"] = seal(row, if old { OTHER_KEY } else { KEY }).into();
    }
    let report = check(&rotated, &[KEY, OTHER_KEY]);
    assert!(report.ok, "{report:#?}");
    assert_eq!(notes(&report), [NoteKind::Rotated]);
    let spans: Vec<_> =
        report.chains[0].verified_by.iter().map(|by| (by.key.as_str(), by.from, by.to)).collect();
    assert_eq!(spans, [("AUDIT_HMAC_KEY#2", 1, 15), ("AUDIT_HMAC_KEY#1", 16, 30)]);
    // Only the new one, only the old one, neither.
    assert_eq!(kinds(&check(&rotated, &[KEY])), ["a unknown-key@1-15", "b unknown-key@1-10"]);
    assert_eq!(kinds(&check(&rotated, &[OTHER_KEY])), ["a unknown-key@16-30", "b unknown-key@11-20"]);
    let report = check(&rotated, &[&"cc".repeat(32)]);
    assert_eq!(kinds(&report), ["a wrong-key@1-30", "b wrong-key@1-20"]);
    assert_eq!(report.verdict, Verdict::CannotVerify);
    assert!(report.diagnosis.contains("nothing about tampering"), "{}", report.diagnosis);
    // A forgery between rows of one key is one whatever the keys.
    let at = at(&rotated, 20);
    rotated[at]["chain_hmac"] = seal(&rotated[at], &"cc".repeat(32)).into();
    assert_eq!(kinds(&check(&rotated, &[KEY, OTHER_KEY])), ["a signature-invalid@20"]);
    // With a wrong key an edited row is still found, and it alone is tampering.
    let mut edited = rows(VALID);
    edited[3]["decision"] = "x".into();
    let report = check(&edited, &[OTHER_KEY]);
    assert_eq!(kinds(&report), ["a wrong-key@1-30", "a edited@4", "b wrong-key@1-20"]);
    assert_eq!(report.verdict, Verdict::Findings);
}

#[test]
fn rows_without_hmac_that_a_checkpoint_knows_are_a_note() {
    let mut later = rows(VALID);
    for row in later.iter_mut().filter(|row| row["chain_seq"].as_u64() <= Some(8)) {
        row["chain_hmac"] = "".into();
    }
    let report = check(&later, &[KEY]);
    assert_eq!(kinds(&report), ["a unsigned@1-8", "b unsigned@1-8"]);
    let report = check_against(&later, &[KEY], &checkpoint_of(&report));
    assert!(report.ok, "{report:#?}");
    assert_eq!(notes(&report), [NoteKind::UnsignedSpan]);
}

#[test]
fn keys_that_are_no_keys_are_refused_and_never_shown() {
    for bad in ["zz".repeat(32), "ab".repeat(31), "a".repeat(63), String::new()] {
        let error = check_text("caracal", VALID, &keys(&[&bad]), &Given::default()).unwrap_err();
        assert!(matches!(error, Error::BadKey { .. }), "{error}");
        assert!(error.to_string().starts_with("AUDIT_HMAC_KEY#1: expected"), "{error}");
        assert!(bad.is_empty() || !error.to_string().contains(&bad), "{error}");
    }
    assert!(check_text("caracal", VALID, &keys(&[&format!(" {KEY}\n")]), &Given::default()).unwrap().ok);
}

/// Spells the rows otherwise, column by column.
fn respelt(change: impl Fn(&mut Row)) -> Vec<Row> {
    let mut rows = rows(VALID);
    rows.iter_mut().for_each(change);
    rows
}

#[test]
fn values_that_are_only_spelt_otherwise_are_drift_and_not_tampering() {
    // JSON as objects and without spaces, in another order of members.
    let objects = respelt(|row| {
        for name in ["determining_policies_json", "diagnostics_json", "metadata_json"] {
            if let Some(json) =
                row[name].as_str().filter(|json| !json.contains("123456789012345678901234567890"))
            {
                row[name] = json.parse().unwrap();
            }
        }
    });
    let report = check(&objects, &[KEY]);
    assert!(report.ok, "{report:#?}");
    assert_eq!(notes(&report), [NoteKind::SerialisationDrift]);
    // Times cut to milliseconds, or rounded; the vector calls 45 of 50 rows broken.
    for round in [false, true] {
        let cut = respelt(|row| {
            let at: jiff::Timestamp = (text(row, "occurred_at").replace(' ', "T") + ":00").parse().unwrap();
            let micros = at.as_microsecond() + if round { 500 } else { 0 };
            let at = jiff::Timestamp::from_millisecond(micros.div_euclid(1_000)).unwrap();
            row["occurred_at"] = at.to_string().into();
        });
        let report = check(&cut, &[KEY]);
        assert!(report.ok, "{report:#?}");
        assert_eq!(notes(&report), [NoteKind::SerialisationDrift]);
        let drifted: u64 = report
            .notes
            .iter()
            .map(|note| note.explains.split(' ').next().unwrap().parse::<u64>().unwrap())
            .sum();
        assert_eq!(drifted, 45);
        // An edit is found all the same.
        let mut edited = cut;
        edited[7]["decision"] = "x".into();
        assert_eq!(kinds(&check(&edited, &[KEY])), ["a edited@8"]);
    }
    // Other spellings of the same time are not even drift.
    let zoned =
        respelt(|row| row["occurred_at"] = (text(row, "occurred_at").replace(' ', "T") + ":00").into());
    let report = check(&zoned, &[KEY]);
    assert!(report.ok && report.notes.is_empty(), "{report:#?}");
}

#[test]
fn times_without_fraction_are_found_again_or_said_to_be_unrecoverable() {
    let cut = respelt(|row| {
        let at = text(row, "occurred_at").to_owned();
        row["occurred_at"] = (at[..19].to_owned() + "+00").into();
    });
    let report = check(&cut, &[KEY]);
    assert!(report.findings.is_empty(), "{report:#?}");
    let kinds = notes(&report);
    assert!(kinds.contains(&NoteKind::SerialisationDrift), "{report:#?}");
    // Neither good nor bad: what was not sought is not vouched for.
    let sought = !kinds.contains(&NoteKind::UnrecoverableCanonicalForm);
    assert_eq!(
        report.verdict,
        if sought { Verdict::Intact } else { Verdict::CannotVerify },
        "{}",
        report.diagnosis
    );
}

fn companions(of: &[(&str, &[Value])]) -> Companions {
    of.iter()
        .map(|(name, rows)| {
            ((*name).to_owned(), rows.iter().map(|row| row.as_object().unwrap().clone()).collect())
        })
        .collect()
}

#[test]
fn a_lost_rehash_marker_is_a_finding_where_its_table_is_at_hand() {
    let marker = json!({"id": 1, "completed_at": "2026-07-01 00:00:00+00"});
    for (tables, expected) in [
        (companions(&[("audit_chain_rehash", &[marker])]), &[][..]),
        (companions(&[("audit_chain_rehash", &[])]), &["- state-mismatch"]),
        (companions(&[]), &[]),
    ] {
        let given = Given { companions: Some(&tables), ..Default::default() };
        let report = check_text("caracal", VALID, &keys(&[KEY]), &given).unwrap();
        assert_eq!(kinds(&report), expected, "{report:#?}");
    }
}

/// What retention leaves of the vector: August is dropped, with the late event 21.
fn after_drop() -> Vec<Row> {
    let mut rows = rows(RETENTION);
    rows.retain(|row| !text(row, "occurred_at").starts_with("2026-08"));
    assert_eq!(rows.len(), 17);
    rows
}

#[test]
fn rows_that_retention_dropped_are_told_from_rows_that_were_deleted() {
    let before = rows(RETENTION);
    let after = after_drop();
    assert_eq!(kinds(&check(&after, &[KEY])), ["a missing-head@7", "a missing@22"]);
    // With the retention at hand the missing head is explained; a hole in the middle needs more.
    let settings = json!({"singleton": true, "retention_days": 60, "updated_at": "2026-11-01 00:00:00+00"});
    let tables = companions(&[("audit_retention", &[settings])]);
    let given = Given { companions: Some(&tables), ..Default::default() };
    let report = check_text("caracal", &ndjson(&after), &keys(&[KEY]), &given).unwrap();
    assert_eq!(kinds(&report), ["a missing@22"]);
    assert_eq!(notes(&report), [NoteKind::RetentionGap]);
    // A retention that keeps them explains nothing.
    let settings = json!({"singleton": true, "retention_days": 300});
    let tables = companions(&[("audit_retention", &[settings])]);
    let given = Given { companions: Some(&tables), ..Default::default() };
    let report = check_text("caracal", &ndjson(&after), &keys(&[KEY]), &given).unwrap();
    assert_eq!(kinds(&report), ["a missing-head@7", "a missing@22"]);
    // Against the checkpoint of before, all of it is August and nothing but August.
    let earlier = checkpoint_of(&check(&before, &[KEY]));
    let report = check_against(&after, &[KEY], &earlier);
    assert!(report.ok, "{report:#?}");
    assert_eq!(notes(&report), [NoteKind::RetentionGap]);
    assert!(report.notes[0].explains.contains("1-6,21"), "{report:#?}");
    assert!(report.diagnosis.contains("retention"), "{}", report.diagnosis);
    // The night after, and with new rows.
    let tonight = checkpoint_of(&report);
    let report = check_against(&after, &[KEY], &tonight);
    assert!(report.ok, "{report:#?}");
    // Whatever else is gone or altered is a finding, then and later.
    for checkpoint in [&earlier, &tonight] {
        for number in [7, 8, 15, 22, 23] {
            let mut rows = after.clone();
            let gone = at(&rows, number);
            rows.remove(gone);
            assert!(!check_against(&rows, &[KEY], checkpoint).ok, "{number}");
        }
        for name in ["ingested_at", "decision", "chain_hmac", "prev_content_sha256"] {
            let mut rows = after.clone();
            rows[4][name] = "2026".into();
            assert!(!check_against(&rows, &[KEY], checkpoint).ok, "{name}");
        }
        let mut cut = after.clone();
        cut.pop();
        assert!(!check_against(&cut, &[KEY], checkpoint).ok);
    }
    // September dropped too is retention; September dropped and August kept is not.
    let mut later = after.clone();
    later.retain(|row| !text(row, "occurred_at").starts_with("2026-09"));
    assert!(check_against(&later, &[KEY], &tonight).ok);
    let mut hole = before;
    hole.retain(|row| !text(row, "occurred_at").starts_with("2026-09"));
    assert_eq!(kinds(&check_against(&hole, &[KEY], &earlier)), ["a missing@13"]);
}

#[test]
fn a_zone_that_retention_emptied_is_no_missing_zone_but_a_deleted_one_is() {
    let mut before = rows(RETENTION);
    let mut idle: Vec<Row> = before[..3].to_vec();
    for row in &mut idle {
        row["zone_id"] = "idle".into();
        row["id"] = format!("{}-idle", text(row, "id")).into();
    }
    let mut prev = Value::Null;
    for row in &mut idle {
        row["content_sha256"] = content(row).into();
        row["prev_content_sha256"] = prev;
        row["chain_hmac"] = seal(row, KEY).into();
        prev = row["content_sha256"].clone();
    }
    before.extend(idle);
    let report = check(&before, &[KEY]);
    assert!(report.ok, "{report:#?}");
    let earlier = checkpoint_of(&report);
    let report = check_against(&after_drop(), &[KEY], &earlier);
    assert!(report.ok, "{report:#?}");
    let report = check_against(&before[..24], &[KEY], &earlier);
    assert_eq!(kinds(&report), ["e missing-chain"]);
}

fn check_admin(rows: &[Row], values: &[&str]) -> ChainReport {
    check_text("caracal-admin", &ndjson(rows), &keys(values), &Given::default()).unwrap()
}

/// Hashes and seals an administrative row whose payload is spelt `payload`.
fn seal_admin(row: &mut Row, payload: &str) {
    let mut input = Vec::new();
    for name in [
        "id",
        "request_id",
        "actor_id",
        "actor_name",
        "actor_scope",
        "action",
        "method",
        "path",
        "zone_id",
        "entity_type",
        "entity_id",
    ] {
        input.extend(text(row, name).as_bytes());
        input.push(0x1f);
    }
    input.extend(row["status_code"].to_string().as_bytes());
    input.push(0x1f);
    input.extend(payload.as_bytes());
    input.push(0x1f);
    let at: jiff::Timestamp = (text(row, "occurred_at").replace(' ', "T") + ":00").parse().unwrap();
    input.extend(at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string().into_bytes());
    input.push(0x1f);
    row["content_sha256"] = hex::encode(Sha256::digest(input)).into();
    row["chain_hmac"] = seal(row, KEY).into();
}

/// Writes rows as PostgreSQL's `COPY … TO … (FORMAT csv, HEADER)` does.
fn csv(rows: &[Row]) -> String {
    // The columns of the table in its order; a map of serde_json has its own.
    let names: Vec<&String> = rows[0].keys().collect();
    let mut text = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(",") + "\n";
    for row in rows {
        let fields = names.iter().map(|name| match &row[name.as_str()] {
            Value::Null => String::new(),
            Value::String(text) if text.is_empty() || text.contains(['"', ',', '\n', '\r']) => {
                format!("\"{}\"", text.replace('"', "\"\""))
            }
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        text += &(fields.collect::<Vec<_>>().join(",") + "\n");
    }
    text
}

#[test]
fn csv_says_the_same_as_ndjson_to_the_last_byte_of_the_root() {
    for (name, rows) in [("caracal", rows(VALID)), ("caracal-admin", rows(ADMIN))] {
        let format = formats::by_name(name).unwrap();
        let options = CsvOptions {
            integers: format.integers().iter().map(|name| (*name).to_owned()).collect(),
            ..CsvOptions::default()
        };
        let text = csv(&rows);
        let source = CsvSource::once("rows.csv", options, text.as_bytes()).unwrap();
        let report = verify(&source, format.as_ref(), &keys(&[KEY]), &VerifyOptions::default()).unwrap();
        assert!(report.ok, "{report:#?}");
        assert_eq!(report, check_text(name, &ndjson(&rows), &keys(&[KEY]), &Given::default()).unwrap());
    }
}

#[test]
fn the_order_of_a_payload_is_put_back_found_or_said_to_be_lost() {
    let mut admin = rows(ADMIN);
    assert!(check_admin(&admin, &[KEY]).ok);
    assert!(check_admin(&admin, &[]).ok);
    let last = admin.iter().rposition(|row| text(row, "zone_id") == A).unwrap();
    let place = format!("a edited@{}", admin[last]["chain_seq"]);
    // An order that is not documented, with members that are and members that are not.
    for (members, kind) in [
        (r#"{"rls_mode": "x", "b": 1, "a": 2.5, "zone": null}"#, NoteKind::SerialisationDrift),
        (r#"{"rls_mode": "y", "rls_zone_guc": "z", "operator": "x"}"#, NoteKind::SerialisationDrift),
        (
            r#"{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"j":10,"k":11,"l":12}"#,
            NoteKind::UnrecoverableCanonicalForm,
        ),
    ] {
        let tree: Value = members.parse().unwrap();
        admin[last]["payload_json"] = serde_json::to_string(&tree).unwrap().into();
        // The first two change places, so that neither the list nor jsonb has it.
        let mut spelt: Vec<String> =
            tree.as_object().unwrap().iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        spelt.swap(0, 1);
        seal_admin(&mut admin[last], &format!("{{{}}}", spelt.join(",")));
        let report = check_admin(&admin, &[KEY]);
        assert!(report.findings.is_empty(), "{members}: {report:#?}");
        assert_eq!(notes(&report), [kind], "{members}: {report:#?}");
        let verdict =
            if kind == NoteKind::SerialisationDrift { Verdict::Intact } else { Verdict::CannotVerify };
        assert_eq!(report.verdict, verdict, "{}", report.diagnosis);
        // Where every order was tried, an edit is an edit.
        admin[last]["actor_name"] = "mallory".into();
        let report = check_admin(&admin, &[KEY]);
        if kind == NoteKind::SerialisationDrift {
            assert_eq!(kinds(&report), [place.as_str()], "{members}");
        }
        assert!(!report.ok);
        admin[last]["actor_name"] = "ops".into();
    }
    // A checkpoint vouches for what could not be had back.
    let report = check_admin(&admin, &[KEY]);
    assert_eq!(report.verdict, Verdict::CannotVerify);
    let checkpoint = checkpoint_of(&report);
    let given = Given { checkpoint: Some(&checkpoint), ..Default::default() };
    let report = check_text("caracal-admin", &ndjson(&admin), &keys(&[KEY]), &given).unwrap();
    assert!(report.ok, "{report:#?}");
}

#[test]
fn rows_of_another_format_are_refused_with_the_format_they_look_like() {
    let error = check_text("caracal", ADMIN, &KeyRing::new(), &Given::default()).unwrap_err();
    assert!(
        error.to_string().contains("event_type") && error.to_string().contains("caracal-admin"),
        "{error}"
    );
}

/// The columns that the content hash or the HMAC covers.
const COVERED: [&str; 16] = [
    "id",
    "zone_id",
    "event_type",
    "request_id",
    "decision",
    "policy_set_id",
    "policy_set_version_id",
    "manifest_sha",
    "evaluation_status",
    "determining_policies_json",
    "diagnostics_json",
    "metadata_json",
    "occurred_at",
    "content_sha256",
    "prev_content_sha256",
    "chain_hmac",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("ATTESTORE_LONG").is_some() { 512 } else { 24 }))]

    #[test]
    fn any_change_to_a_hashed_value_is_found(row in 0_usize..50, column in 0_usize..16, insert in "[ -~é]{1,3}", place in any::<prop::sample::Index>()) {
        let mut changed = rows(VALID);
        let name = COVERED[column];
        let mut value = text(&changed[row], name).to_owned();
        let at = (0..=value.len()).filter(|at| value.is_char_boundary(*at)).collect::<Vec<_>>();
        value.insert_str(at[place.index(at.len())], &insert);
        // JSON that only gained white space, and times that say the same, are the same value.
        let same = name.ends_with("_json") && value.parse::<Value>().ok() == changed[row][name].as_str().and_then(|json| json.parse::<Value>().ok())
            || name == "occurred_at";
        changed[row][name] = value.into();
        let report = check(&changed, &[KEY]);
        prop_assert!(same || !report.ok, "{name}: {report:#?}");
    }

    #[test]
    fn any_byte_of_any_row_is_found_given_the_checkpoint(place in any::<prop::sample::Index>(), bit in 0_u8..7) {
        let earlier = checkpoint_of(&check(&rows(VALID), &[]));
        let mut bytes = VALID.as_bytes().to_vec();
        let at = place.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let Ok(changed) = String::from_utf8(bytes) else { return Ok(()) };
        let parse = |text: &str| text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>().ok();
        let given = Given { checkpoint: Some(&earlier), ..Default::default() };
        let same = parse(&changed) == parse(VALID);
        match check_text("caracal", &changed, &keys(&[]), &given) {
            Ok(report) => prop_assert_eq!(report.ok, same, "byte {}: {:#?}", at, report),
            Err(Error::Malformed { .. } | Error::NotThisFormat { .. }) => prop_assert!(!same),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn any_honest_history_verifies(lengths in proptest::collection::vec(0_usize..12, 1..4), metadata in proptest::collection::vec(proptest::option::of("[a-zé\"\\\\\u{1}]{0,4}"), 4), micros in 0_i64..4_000_000_000_000_000, keyed_from in 0_usize..12, rotated_from in 0_usize..12) {
        let mut written = Vec::new();
        for (zone, length) in lengths.iter().enumerate() {
            let mut prev = Value::Null;
            for number in 0..*length {
                let micros = micros + i64::try_from(number * 37_123_457 + zone).unwrap();
                let at = jiff::Timestamp::from_microsecond(micros).unwrap().strftime("%Y-%m-%d %H:%M:%S%.f+00").to_string();
                let json = metadata[number % 4].as_ref().map(|text| json!({ "a": text, "n": number }).to_string().replace("\":", "\": ").replace(",\"n", ", \"n"));
                let Value::Object(mut row) = json!({
                    "id": format!("{zone}-{number}"), "zone_id": format!("z{zone}"), "event_type": "t", "request_id": null, "decision": "allow",
                    "policy_set_id": "", "policy_set_version_id": "\u{1f}", "manifest_sha": "é", "evaluation_status": "\n",
                    "determining_policies_json": null, "diagnostics_json": "[]", "metadata_json": json, "occurred_at": at,
                    "ingested_at": "2026-11-20 14:02:37.618934+00", "content_sha256": null, "prev_content_sha256": prev, "chain_hmac": "",
                    "chain_seq": number + 1, "ingest_signature": "",
                }) else { unreachable!() };
                row["content_sha256"] = content(&row).into();
                if number >= keyed_from {
                    row["chain_hmac"] = seal(&row, if number >= rotated_from { KEY } else { OTHER_KEY }).into();
                }
                prev = row["content_sha256"].clone();
                written.push(row);
            }
        }
        let report = check(&written, &[]);
        prop_assert!(report.ok, "{report:#?}");
        let report = check_against(&written, &[KEY, OTHER_KEY], &checkpoint_of(&report));
        prop_assert!(report.ok, "{report:#?}");
    }
}

#[test]
fn finding_kinds_of_the_table_are_all_listed() {
    // The table above shows each kind that the chain itself can show.
    for kind in [
        FindingKind::Edited,
        FindingKind::Missing,
        FindingKind::Forked,
        FindingKind::Duplicate,
        FindingKind::Unsigned,
    ] {
        assert!(CASES.iter().any(|case| case.2.iter().any(|found| found.contains(kind.name()))), "{kind}");
    }
}
