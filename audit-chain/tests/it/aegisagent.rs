//! AegisAgent's chains: each way to tamper is found under its own name, honest oddities are not.

use audit_chain::canonical::{RowForm, push_string};
use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::error::Error;
use audit_chain::formats;
use audit_chain::json_rows::{JsonSource, NdjsonSource};
use audit_chain::keys::KeyRing;
use audit_chain::report::{ChainReport, FindingKind, NoteKind, Verdict};
use audit_chain::source::RowSource;
use audit_chain::verify::{VerifyOptions, verify};
use base64::Engine as _;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

type Row = Map<String, Value>;

const MEMBERS: [&str; 14] = [
    "action",
    "action_hash",
    "agent_id",
    "approver",
    "decision",
    "event_id",
    "prev_receipt_hash",
    "resource",
    "run_id",
    "source_trust",
    "tool",
    "trace_id",
    "ts",
    "user_id",
];

/// Hashes a receipt by the rule of formats/aegisagent.md, with serde_json instead of the library's writer.
fn rehash(row: &mut Row) {
    let hashed: Map<String, Value> = MEMBERS
        .iter()
        .map(|name| {
            let column = if *name == "event_id" { "id" } else { name };
            ((*name).to_owned(), row.get(column).cloned().unwrap_or(Value::Null))
        })
        .collect();
    // A map of serde_json is sorted by name.
    let digest = Sha256::digest(serde_json::to_string(&hashed).unwrap());
    row.insert("receipt_hash".into(), hex::encode(digest).into());
}

fn sign(row: &mut Row, key: &SigningKey, id: &str) {
    let signature = key.sign(row["receipt_hash"].as_str().unwrap().as_bytes());
    row.insert("signature".into(), hex::encode(signature.to_bytes()).into());
    row.insert("signer_public_key".into(), hex::encode(key.verifying_key().as_bytes()).into());
    row.insert("signer_key_id".into(), id.into());
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// Makes `count` receipts of tenant `a`, each third also one of tenant `b`; those of `a` signed.
pub(crate) fn history(count: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for at in 0..count {
        for tenant in if at % 3 == 0 { vec!["a", "b"] } else { vec!["a"] } {
            let prev = rows.iter().rev().find(|row| row["tenant_id"] == tenant);
            let prev = prev.map_or("".into(), |row| row["receipt_hash"].clone());
            let Value::Object(mut row) = json!({
                "id": format!("{tenant}-{at}"), "tenant_id": tenant, "decision_id": format!("d-{at}"),
                "ts": format!("2026-06-02T12:00:{:02}.123456789+00:00", at % 60), "agent_id": "agent\n\"ü\"", "user_id": null,
                "run_id": null, "trace_id": null, "tool": "t\u{2028}", "action": "read", "resource": null,
                "source_trust": "trusted", "decision": "allow", "approver": null, "action_hash": null,
                "prev_receipt_hash": prev, "canon_version": "aegis-jcs-1", "signature": null, "signer_public_key": null,
                "created_at": format!("2026-06-02 12:{:02}:00", at % 60), "signer_key_id": null,
            }) else {
                unreachable!()
            };
            rehash(&mut row);
            if tenant == "a" {
                sign(
                    &mut row,
                    &key(if at < count / 2 { 1 } else { 2 }),
                    if at < count / 2 { "v1" } else { "v2" },
                );
            }
            rows.push(row);
        }
    }
    rows
}

fn ndjson(rows: &[Row]) -> String {
    rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect()
}

fn check(rows: &[Row], keys: &KeyRing, checkpoint: Option<&ChainCheckpoint>) -> ChainReport {
    let text = ndjson(rows);
    let name = "rows.ndjson";
    let source = NdjsonSource::new(name, || Ok(Some(Box::new(std::io::Cursor::new(text.clone()))))).unwrap();
    let format = formats::by_name("aegisagent").unwrap();
    verify(&source, format.as_ref(), keys, &VerifyOptions { checkpoint, threads: 3, ..Default::default() })
        .unwrap()
}

fn checkpoint_of(report: &ChainReport) -> ChainCheckpoint {
    ChainCheckpoint::from_report(report).unwrap()
}

/// What was found, as `kind@position` (or `kind` where it is about the whole chain).
fn kinds(report: &ChainReport) -> Vec<String> {
    report
        .findings
        .iter()
        .map(|finding| match (finding.position, finding.last) {
            (Some(from), Some(to)) => format!("{} {}@{from}-{to}", finding.chain, finding.kind),
            (Some(from), None) => format!("{} {}@{from}", finding.chain, finding.kind),
            (None, _) => format!("{} {}", finding.chain, finding.kind),
        })
        .collect()
}

fn of(rows: &[Row], tenant: &str, position: usize) -> usize {
    rows.iter().enumerate().filter(|(_, row)| row["tenant_id"] == tenant).nth(position - 1).unwrap().0
}

/// Relinks and rehashes a tenant's rows from a position on, as somebody would who knows the scheme.
fn relink(rows: &mut [Row], tenant: &str, from: usize) {
    let mut prev: Option<Value> = None;
    let mut position = 0;
    for row in rows.iter_mut().filter(|row| row["tenant_id"] == tenant) {
        position += 1;
        if position >= from {
            row.insert("prev_receipt_hash".into(), prev.clone().unwrap_or_else(|| "".into()));
            rehash(row);
        }
        prev = Some(row["receipt_hash"].clone());
    }
}

#[test]
fn an_honest_history_is_intact_and_its_keys_and_spans_are_named() {
    let report = check(&history(40), &KeyRing::new(), None);
    assert_eq!((report.ok, report.verdict, report.records), (true, Verdict::Intact, 54), "{report:#?}");
    let chain = report.chain("a").unwrap();
    assert_eq!((chain.records, chain.signed), (40, 40));
    let spans: Vec<_> = chain.verified_by.iter().map(|by| (&by.key[..2], by.from, by.to)).collect();
    assert_eq!(spans, [("v1", 1, 20), ("v2", 21, 40)]);
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    assert_eq!((report.notes[0].kind, report.notes[0].chain.as_str()), (NoteKind::UnsignedSpan, "b"));
}

#[test]
fn the_root_is_that_of_the_canonical_lines() {
    let rows = history(9);
    let report = check(&rows, &KeyRing::new(), None);
    let leaves: Vec<_> = rows
        .iter()
        .filter(|row| row["tenant_id"] == "b")
        .map(|row| {
            let mut line = vec![];
            line.push(b'{');
            for (at, (name, value)) in row.iter().enumerate() {
                if at > 0 {
                    line.push(b',');
                }
                push_string(&mut line, name);
                line.push(b':');
                line.extend(serde_json::to_vec(value).unwrap());
            }
            line.push(b'}');
            audit_chain::merkle::leaf_hash(&line)
        })
        .collect();
    let root = base64::engine::general_purpose::STANDARD.encode(audit_chain::merkle::root(&leaves));
    assert_eq!(report.chain("b").unwrap().root, root);
    assert_eq!(leaves.len(), 3);
    let _ = RowForm::new(NdjsonSource::once("x", &b""[..]).unwrap().columns());
}

#[test]
fn each_way_to_tamper_has_its_name_with_and_without_an_earlier_checkpoint() {
    type Tamper = fn(&mut Vec<Row>);
    let cases: &[(&str, Tamper, &[&str], &[&str])] = &[
        (
            "edited",
            |rows| {
                let at = of(rows, "a", 13);
                rows[at]["decision"] = "deny".into();
            },
            &["a edited@13"],
            &["a edited@13"],
        ),
        (
            "missing middle",
            |rows| {
                let at = of(rows, "a", 15);
                rows.remove(at);
            },
            &["a missing@15"],
            &["a missing@15"],
        ),
        (
            "missing head",
            |rows| {
                let at = of(rows, "a", 1);
                rows.remove(at);
            },
            &["a missing-head@1"],
            &["a missing-head@1"],
        ),
        (
            "truncated",
            |rows| {
                for _ in 0..5 {
                    let at = rows.iter().rposition(|row| row["tenant_id"] == "a").unwrap();
                    rows.remove(at);
                }
            },
            &[],
            &["a truncated"],
        ),
        ("missing tenant", |rows| rows.retain(|row| row["tenant_id"] != "b"), &[], &["b missing-chain"]),
        ("all rows", |rows| rows.clear(), &[], &["a missing-chain", "b missing-chain"]),
        (
            "relabelled",
            |rows| {
                for row in rows.iter_mut() {
                    if row["tenant_id"] == "b" {
                        row["tenant_id"] = "c".into();
                    }
                }
            },
            &[],
            &["b missing-chain"],
        ),
        (
            "reordered",
            |rows| {
                let (one, two) = (of(rows, "a", 5), of(rows, "a", 6));
                rows.swap(one, two);
            },
            &["a reordered@5", "a reordered@7"],
            &["a reordered@5", "a reordered@7"],
        ),
        (
            "duplicate",
            |rows| {
                let at = of(rows, "a", 8);
                let row = rows[at].clone();
                rows.insert(at + 1, row);
            },
            &["a duplicate@9"],
            &["a duplicate@9"],
        ),
        (
            "forked",
            |rows| {
                let at = of(rows, "a", 8);
                let mut row = rows[at].clone();
                row["id"] = "other".into();
                rehash(&mut row);
                sign(&mut row, &key(1), "v1");
                rows.insert(at + 1, row);
            },
            &["a forked@9"],
            &["a forked@9"],
        ),
        (
            "put in",
            |rows| {
                let at = of(rows, "b", 3);
                let mut row = rows[at].clone();
                row["prev_receipt_hash"] = "ab".repeat(32).into();
                rehash(&mut row);
                rows.insert(at, row);
            },
            &["b link-broken@3"],
            &["b link-broken@3"],
        ),
        (
            "columns that are not hashed",
            |rows| {
                let at = of(rows, "a", 3);
                rows[at]["decision_id"] = "x".into();
            },
            &[],
            &["a unhashed-edited"],
        ),
        (
            "rechained",
            |rows| {
                let at = of(rows, "b", 3);
                rows[at]["decision"] = "deny".into();
                relink(rows, "b", 3);
            },
            &[],
            &["b rewritten"],
        ),
        (
            "rechained without the signing key",
            |rows| {
                let at = of(rows, "a", 39);
                rows[at]["decision"] = "deny".into();
                relink(rows, "a", 39);
            },
            &["a signature-invalid@39", "a signature-invalid@40"],
            &["a rewritten", "a signature-invalid@39", "a signature-invalid@40"],
        ),
        (
            "a bad signature",
            |rows| {
                let at = of(rows, "a", 21);
                let text = rows[at]["signature"].as_str().unwrap().replace('0', "1");
                rows[at]["signature"] = text.into();
            },
            &["a signature-invalid@21"],
            &["a signature-invalid@21"],
        ),
        (
            "a signer that is no key",
            |rows| {
                let at = of(rows, "a", 21);
                rows[at]["signer_public_key"] = "00".repeat(32).into();
            },
            &["a signature-invalid@21"],
            &["a signature-invalid@21"],
        ),
        (
            "stripped",
            |rows| {
                for at in [20, 21] {
                    let at = of(rows, "a", at);
                    for name in ["signature", "signer_public_key", "signer_key_id"] {
                        rows[at][name] = Value::Null;
                    }
                }
            },
            &[],
            &["a stripped"],
        ),
        (
            "a hash that is none",
            |rows| {
                let at = of(rows, "b", 14);
                rows[at]["receipt_hash"] = "zz".into();
            },
            &["b malformed@14"],
            &["b rewritten", "b malformed@14"],
        ),
    ];
    let honest = history(40);
    let earlier = checkpoint_of(&check(&honest, &KeyRing::new(), None));
    for (name, tamper, alone, against) in cases {
        let mut rows = honest.clone();
        tamper(&mut rows);
        let report = check(&rows, &KeyRing::new(), None);
        assert_eq!(kinds(&report), *alone, "{name}: {report:#?}");
        assert_eq!(report.ok, alone.is_empty(), "{name}");
        let report = check(&rows, &KeyRing::new(), Some(&earlier));
        assert_eq!(kinds(&report), *against, "{name}, against the checkpoint: {report:#?}");
        assert_eq!(report.verdict, Verdict::Findings, "{name}");
        assert!(
            !report.diagnosis.is_empty() && !report.diagnosis.starts_with("intact"),
            "{name}: {}",
            report.diagnosis
        );
    }
}

#[test]
fn a_grown_history_extends_the_checkpoint_and_a_rollback_does_not() {
    let whole = history(60);
    let earlier: Vec<Row> = whole[..whole.len() / 2].to_vec();
    let earlier = checkpoint_of(&check(&earlier, &KeyRing::new(), None));
    assert!(check(&whole, &KeyRing::new(), Some(&earlier)).ok);
    let later = checkpoint_of(&check(&whole, &KeyRing::new(), None));
    let report = check(&whole[..whole.len() / 2], &KeyRing::new(), Some(&later));
    assert_eq!(kinds(&report), ["a truncated", "b truncated"]);
}

#[test]
fn a_signer_that_is_not_trusted_is_one_finding_with_its_span() {
    let mut keys = KeyRing::new();
    keys.add_public_key(key(1).verifying_key());
    let report = check(&history(40), &keys, None);
    assert_eq!(kinds(&report), ["a unknown-key@21-40"]);
    assert_eq!(
        report.findings[0].found.as_deref(),
        Some(hex::encode(key(2).verifying_key().as_bytes()).as_str())
    );
    keys.add_public_key(key(2).verifying_key());
    assert!(check(&history(40), &keys, None).ok);
}

#[test]
fn only_keys_that_nobody_trusts_is_cannot_verify_and_not_tampering() {
    let mut keys = KeyRing::new();
    keys.add_public_key(key(9).verifying_key());
    let report = check(&history(40), &keys, None);
    assert_eq!((report.ok, report.verdict), (false, Verdict::CannotVerify));
    assert!(report.diagnosis.contains("nothing about tampering"), "{}", report.diagnosis);
}

#[test]
fn a_clock_that_steps_back_is_a_note_and_no_finding() {
    let mut rows = history(40);
    let at = of(&rows, "a", 26);
    rows[at]["created_at"] = "2026-06-02 11:00:00".into();
    let report = check(&rows, &KeyRing::new(), None);
    assert!(report.ok);
    let note = report.notes.iter().find(|note| note.kind == NoteKind::ClockStepBack).unwrap();
    assert_eq!((note.chain.as_str(), note.position), ("a", Some(26)));
}

#[test]
fn rows_of_another_format_are_refused_with_what_is_missing() {
    let source = NdjsonSource::once("x.ndjson", &b"{\"a\":1}\n"[..]).unwrap();
    let format = formats::by_name("aegisagent").unwrap();
    let error = verify(&source, format.as_ref(), &KeyRing::new(), &VerifyOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NotThisFormat { .. }), "{error}");
    assert!(error.to_string().contains("receipt_hash"), "{error}");
}

#[test]
fn the_lists_of_the_systems_own_command_line_are_judged_row_by_row() {
    let test = "the_lists_of_the_systems_own_command_line_are_judged_row_by_row";
    let Some(vectors) = crate::vectors::vectors(test, "aegisagent/cli-json") else { return };
    let judge = |name: &str| -> Result<ChainReport, Error> {
        let text = std::fs::read(vectors.join(name).with_extension("json")).unwrap();
        let source = JsonSource::parse(name, &text)?;
        let format = formats::by_name("aegisagent")?;
        verify(&source, format.as_ref(), &KeyRing::new(), &VerifyOptions::default())
    };
    for (name, expected) in [
        ("proj", &[][..]),
        ("rev", &[]),
        ("trunc", &[]),
        ("empty", &[]),
        ("ten", &[]),
        ("miss", &[" missing@8"]),
        ("mid", &[" missing-head@1"]),
        ("edit", &[" edited@4"]),
    ] {
        let report = judge(name).unwrap();
        assert_eq!(kinds(&report), expected, "{name}: {report:#?}");
    }
    // Newest first, as the list API answers: every row is whole, the order is not.
    let raw = judge("raw").unwrap();
    assert!(raw.findings.iter().all(|finding| finding.kind != FindingKind::Edited), "{raw:#?}");
    assert!(!raw.ok);
    assert!(judge("nohash").unwrap_err().to_string().contains("no column"));
    assert!(judge("nonobj").unwrap_err().to_string().contains("record 1"));
}
