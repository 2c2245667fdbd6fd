//! AGLedger dumps: every vector case, honest dumps of our own writer, single changes, key statements.

mod changes;
mod honest;
mod keys;
mod vectors;
mod writer;

use std::collections::BTreeSet;

use audit_chain::error::Error;
use audit_chain::formats::agledger::AgledgerDump;
use audit_chain::keys::KeyRing;
use audit_chain::report::ChainReport;
use audit_chain::verify::VerifyOptions;

use writer::{Dump, Key, uuid};

/// Verifies the dump of a writer.
fn verify(dump: &Dump, keys: &KeyRing) -> Result<ChainReport, Error> {
    let folder = tempfile::tempdir().unwrap();
    dump.write(folder.path());
    AgledgerDump::open(folder.path())?.verify(keys, &VerifyOptions { threads: 2, ..Default::default() })
}

/// Makes a ring of trust anchors.
fn anchored(anchors: &[&Key]) -> KeyRing {
    let mut ring = KeyRing::new();
    anchors.iter().for_each(|key| ring.add_trust_anchor(&key.anchor()).unwrap());
    ring
}

/// Asserts the product's names in the report of a dump.
fn assert_names(what: &str, dump: &Dump, keys: &KeyRing, expected: &[&str]) -> ChainReport {
    let report = verify(dump, keys).unwrap();
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(vectors::names(&report), expected, "{what}: {:#?}", report.findings);
    assert_eq!(report.ok, expected.is_empty(), "{what}");
    report
}

/// Writes a small honest dump of either API, signed by one key.
fn small(two: bool, key: &Key) -> Dump {
    let mut dump = Dump::new(two);
    if two {
        dump.genesis(key);
    } else {
        dump.register(key);
    }
    let org = uuid(0x0a, 1);
    for record in 1..=3 {
        let record = uuid(0x01, record);
        dump.entry(
            &record,
            "RECORD_CREATED",
            &serde_json::json!({"orgId": org, "amount": 12.5, "tags": ["a", "ä"]}),
            Some(key),
        );
        dump.entry(
            &record,
            "RECORD_STATE_CHANGE",
            &serde_json::json!({"from": "A", "to": "B", "traces": {"span": "s"}}),
            Some(key),
        );
        dump.entry(
            &record,
            "NOTE",
            &serde_json::json!({"oidc": true, "n": 9_007_199_254_740_993_i64}),
            Some(key),
        );
        dump.checkpoint(&record, Some(key));
        dump.read(&org, &record, Some(key));
    }
    dump.head(&org, Some(key));
    dump.entry(
        &format!("schema:{org}"),
        "SCHEMA_REGISTERED",
        &serde_json::json!({"orgId": org, "type": "invoice", "version": 1, "manifestDigest": "sha256:ab"}),
        Some(key),
    );
    dump
}
