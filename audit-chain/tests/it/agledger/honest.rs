//! Honest dumps verify: both APIs, both algorithms, any order of rows, unsigned beginnings, retired keys.

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::formats::agledger::AgledgerDump;
use audit_chain::keys::KeyRing;
use audit_chain::report::{NoteKind, Trust};
use audit_chain::verify::VerifyOptions;
use proptest::prelude::*;
use serde_json::json;

use super::writer::{Dump, Key, uuid};
use super::{anchored, assert_names, small, verify};

#[test]
fn dumps_of_both_apis_and_both_algorithms_verify() {
    for key in [Key::ed25519(7), Key::p256(7)] {
        for two in [true, false] {
            let dump = small(two, &key);
            let report = assert_names("no anchor", &dump, &KeyRing::new(), &[]);
            assert_eq!(report.trust, Some(Trust::Unanchored));
            assert_eq!((report.chains_total, report.records), (5, 13));
            assert!(report.chains.iter().all(|chain| chain.signed == chain.records));
            assert!(
                report.chains.iter().all(|chain| chain.verified_by.iter().all(|span| span.key == key.id()))
            );
            let report = assert_names("anchor", &dump, &anchored(&[&key]), &[]);
            assert_eq!(report.trust, Some(Trust::Trusted));
        }
    }
}

#[test]
fn an_unsigned_installation_verifies_and_says_so() {
    let mut dump = Dump::new(true);
    let record = uuid(1, 1);
    for _ in 0..3 {
        dump.entry(&record, "NOTE", &json!({"a": 1}), None);
    }
    dump.checkpoint(&record, None);
    dump.read(&uuid(0x0a, 1), &record, None);
    dump.head(&uuid(0x0a, 1), None);
    let report = assert_names("unsigned", &dump, &KeyRing::new(), &[]);
    assert!(report.notes.iter().any(|note| note.kind == NoteKind::UnsignedSpan), "{:?}", report.notes);
}

#[test]
fn a_listing_is_cut_at_the_limit_and_a_checkpoint_needs_all_of_it() {
    let key = Key::ed25519(1);
    let dump = small(true, &key);
    let folder = tempfile::tempdir().unwrap();
    dump.write(folder.path());
    let opened = AgledgerDump::open(folder.path()).unwrap();
    let report =
        opened.verify(&KeyRing::new(), &VerifyOptions { max_chains: 2, ..Default::default() }).unwrap();
    assert_eq!((report.chains.len(), report.chains_total, report.records, report.ok), (2, 5, 13, true));
    assert!(ChainCheckpoint::from_report(&report).is_err());
}

#[test]
fn a_grown_dump_extends_its_checkpoint_and_a_cut_one_does_not() {
    let key = Key::ed25519(1);
    let mut dump = small(true, &key);
    let before = ChainCheckpoint::from_report(&verify(&dump, &KeyRing::new()).unwrap()).unwrap();
    let check = |dump: &Dump| {
        let folder = tempfile::tempdir().unwrap();
        dump.write(folder.path());
        let options = VerifyOptions { checkpoint: Some(&before), ..Default::default() };
        AgledgerDump::open(folder.path()).unwrap().verify(&KeyRing::new(), &options).unwrap()
    };
    assert!(check(&dump).ok);
    // Nothing of the system's own shows a chain that is gone with its checkpoints.
    let mut gone = dump.clone();
    let last = uuid(1, 3);
    gone.vault.retain(|row| row["chain_key"] != *last);
    gone.checkpoints.retain(|row| row["chain_key"] != *last);
    assert!(verify(&gone, &KeyRing::new()).unwrap().ok);
    assert_eq!(check(&gone).findings[0].kind.name(), "missing-chain");
    let mut cut = dump.clone();
    cut.reads.pop();
    cut.heads.clear();
    assert!(verify(&cut, &KeyRing::new()).unwrap().ok);
    assert_eq!(check(&cut).findings[0].kind.name(), "truncated");
    dump.entry(&uuid(1, 1), "NOTE", &json!({}), Some(&key));
    dump.entry(&uuid(1, 9), "NOTE", &json!({}), Some(&key));
    dump.read(&uuid(0x0a, 1), &uuid(1, 9), Some(&key));
    assert!(check(&dump).ok);
}

#[test]
fn rows_without_a_registry_cannot_be_verified_and_are_not_called_tampered() {
    let key = Key::ed25519(1);
    let folder = tempfile::tempdir().unwrap();
    small(true, &key).write(folder.path());
    let source =
        audit_chain::json_rows::NdjsonSource::open(&folder.path().join("audit_vault.ndjson")).unwrap();
    let format = audit_chain::formats::by_name("agledger").unwrap();
    let report =
        audit_chain::verify::verify(&source, format.as_ref(), &KeyRing::new(), &VerifyOptions::default())
            .unwrap();
    assert_eq!(report.verdict, audit_chain::report::Verdict::CannotVerify, "{:?}", report.findings);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_honest_history_in_any_order_of_rows_verifies(
        two: bool,
        steps in prop::collection::vec((0..6_u8, 1..5_u64, any::<i32>()), 1..40),
        order in any::<prop::sample::Index>(),
    ) {
        let mut keys = vec![Key::ed25519(1)];
        let mut dump = Dump::new(two);
        if two {
            dump.genesis(&keys[0]);
        } else {
            dump.register(&keys[0]);
        }
        let org = |at: u64| uuid(0x0a, at % 2);
        dump.entry(&uuid(1, 0), "KEY_ROTATED", &json!({}), Some(&keys[0]));
        for (what, at, value) in steps {
            let key = keys.last().unwrap().clone();
            let record = uuid(1, at);
            let known = dump.vault.iter().any(|row| row["chain_key"] == *record);
            match what {
                0 | 1 => { dump.entry(&record, "NOTE", &json!({"v": value, "f": f64::from(value) / 3.0}), Some(&key)); }
                2 if known => dump.checkpoint(&record, Some(&key)),
                3 => dump.read(&org(at), &record, Some(&key)),
                4 => dump.head(&org(at), Some(&key)),
                5 if keys.len() < 5 => {
                    let next = if value % 2 == 0 { Key::p256(keys.len() as u8 + 1) } else { Key::ed25519(keys.len() as u8 + 1) };
                    if two {
                        dump.succession(&key, &next);
                        dump.closure(&next, &key, false);
                    } else {
                        dump.register(&next);
                        dump.retire(&key);
                    }
                    keys.push(next);
                }
                _ => {}
            }
        }
        let at = order.index(dump.vault.len());
        dump.vault.rotate_left(at);
        let folder = tempfile::tempdir().unwrap();
        dump.write_as_is(folder.path(), &dump.vault);
        let ring = if two { anchored(&[&keys[0]]) } else { KeyRing::new() };
        let options = VerifyOptions { threads: 2, ..Default::default() };
        let report = AgledgerDump::open(folder.path()).unwrap().verify(&ring, &options).unwrap();
        prop_assert!(report.ok, "{:#?}", report.findings);
        prop_assert_eq!(report.trust == Some(Trust::Trusted), two);
    }
}
