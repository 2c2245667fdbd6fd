//! Key statements under trust anchors: who is reached, what a closure voids, what distrust leaves.

use audit_chain::error::Error;
use audit_chain::keys::KeyRing;
use audit_chain::report::{NoteKind, Trust};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::writer::{Cbor, Dump, Key, payload, uuid};
use super::{anchored, assert_names, small, verify};

/// A rotation: A admits B, B closes A; both sign an entry.
fn rotation(forced: bool) -> (Dump, Key, Key) {
    let (a, b) = (Key::ed25519(1), Key::p256(2));
    let mut dump = Dump::new(true);
    dump.genesis(&a);
    dump.entry(&uuid(1, 1), "NOTE", &json!({"n": 1}), Some(&a));
    dump.succession(&a, &b);
    dump.closure(&b, &a, forced);
    dump.entry(&uuid(1, 1), "NOTE", &json!({"n": 2}), Some(&b));
    (dump, a, b)
}

#[test]
fn trust_goes_along_a_succession_both_ways() {
    let (dump, a, b) = rotation(false);
    for anchor in [&a, &b] {
        let report = assert_names("rotation", &dump, &anchored(&[anchor]), &[]);
        assert_eq!(report.trust, Some(Trust::Trusted));
        assert_eq!(report.chains[0].verified_by.len(), 2);
    }
}

#[test]
fn a_forced_closure_voids_what_the_key_passed_on() {
    let (dump, a, b) = rotation(true);
    assert_names(
        "anchored on the closed key",
        &dump,
        &anchored(&[&a]),
        &["CHAIN_SIGNING_KEY_UNANCHORED", "KEY_STATEMENT_INVALID"],
    );
    assert_names("anchored on its heir", &dump, &anchored(&[&b]), &[]);
}

#[test]
fn a_key_that_is_closed_can_admit_nobody_afterwards() {
    let (mut dump, a, b) = rotation(false);
    let evil = Key::ed25519(9);
    dump.succession(&a, &evil);
    assert_names("admitted too late", &dump, &anchored(&[&b]), &["KEY_STATEMENT_INVALID"]);
    dump.entry(&uuid(1, 2), "NOTE", &json!({}), Some(&evil));
    assert_names(
        "and signs",
        &dump,
        &anchored(&[&b]),
        &["CHAIN_SIGNING_KEY_UNANCHORED", "KEY_STATEMENT_INVALID"],
    );
}

#[test]
fn a_retired_key_verifies_what_it_signed_before_and_nothing_after() {
    let (mut dump, a, b) = rotation(false);
    dump.entry(&uuid(1, 3), "NOTE", &json!({}), Some(&a));
    for ring in [KeyRing::new(), anchored(&[&b])] {
        assert_names("after", &dump, &ring, &["CHAIN_KEY_EXPIRED"]);
    }
}

#[test]
fn the_registry_must_say_what_the_statements_sign() {
    let (honest, _, b) = rotation(false);
    for (column, value) in [
        ("activated_at", json!("2026-08-01T00:00:00.000Z")),
        ("retired_at", json!("2026-09-02T00:00:00.000Z")),
        ("status", json!("active")),
    ] {
        let mut dump = honest.clone();
        dump.keys[0].insert(column.into(), value);
        assert_names(column, &dump, &anchored(&[&b]), &["CHAIN_KEY_WINDOW_DRIFT"]);
        assert_names(column, &dump, &KeyRing::new(), &[]);
    }
    let mut dump = honest;
    dump.keys[0].insert("activated_at".into(), json!("soon"));
    assert!(
        verify(&dump, &KeyRing::new())
            .unwrap()
            .findings
            .iter()
            .any(|f| f.explains.starts_with("REGISTRY_ROW_MALFORMED"))
    );
}

#[test]
fn statements_that_break_a_rule_are_invalid() {
    let (a, b) = (Key::ed25519(1), Key::ed25519(2));
    let at = 1_500;
    let good = payload("genesis", &b, at, None, None, None);
    let with = |name: &str, value: Cbor| match good.clone() {
        Cbor::Map(mut members) => {
            members.retain(|(key, _)| !matches!(key, Cbor::Text(text) if text == name));
            members.push((Cbor::text(name), value));
            Cbor::Map(members)
        }
        other => panic!("{other:?}"),
    };
    let succession = payload("succession", &b, at, None, Some(&a), None);
    let own = payload("succession", &b, at, None, Some(&b), None);
    let closure = |retired, forced| payload("closure", &b, at, retired, Some(&a), forced);
    for (what, kind, payload, endorser, signers) in [
        ("unknown member", "genesis", with("more", Cbor::Int(1)), None, vec![&b]),
        ("no issuer", "genesis", with("iss", Cbor::Int(1)), None, vec![&b]),
        ("other type", "genesis", with("typ", Cbor::text("closure")), None, vec![&b]),
        ("signed by another", "genesis", good.clone(), None, vec![&a]),
        ("signed twice", "genesis", good.clone(), None, vec![&b, &b]),
        ("not signed", "genesis", good.clone(), None, vec![]),
        ("signatures swapped", "succession", succession.clone(), Some(&a), vec![&b, &a]),
        ("one signature", "succession", succession.clone(), Some(&a), vec![&a]),
        ("own endorser", "succession", own, Some(&b), vec![&b, &b]),
        ("closure without retirement", "closure", closure(None, Some(false)), Some(&a), vec![&a]),
        ("closure without forced", "closure", closure(Some(at), None), Some(&a), vec![&a]),
        ("genesis with endorser", "genesis", succession, Some(&a), vec![&b]),
    ] {
        let mut dump = small(true, &a);
        dump.state(kind, &payload, &b, endorser, &signers);
        assert_names(what, &dump, &anchored(&[&a]), &["KEY_STATEMENT_INVALID"]);
    }
}

#[test]
fn a_statement_in_another_form_of_cbor_is_invalid_and_a_repeated_one_is_not_counted() {
    let a = Key::ed25519(1);
    let mut dump = small(true, &a);
    let again = dump.statements.as_ref().unwrap()[0].clone();
    dump.statements.as_mut().unwrap().push(again);
    assert_names("repeated", &dump, &anchored(&[&a]), &[]);
    let statement = &mut dump.statements.as_mut().unwrap()[0];
    let text = statement["statement"][0].as_str().unwrap();
    let bytes = STANDARD.decode(text).unwrap();
    // The same map with one integer in a longer form, signed or not, is refused before its signature.
    let at = bytes.windows(5).position(|window| window == b"cissv").unwrap();
    let mut longer = bytes[..at].to_vec();
    longer.extend(b"\x78\x03iss");
    longer.extend(&bytes[at + 4..]);
    statement.insert("statement".into(), json!([STANDARD.encode(longer)]));
    let found = verify(&dump, &anchored(&[&a])).unwrap();
    assert!(found.findings.iter().any(|finding| finding.explains.starts_with("KEY_STATEMENT_INVALID")));
}

#[test]
fn distrust_needs_an_anchor_and_leaves_what_a_trusted_key_accounted_for() {
    let (dump, a, b) = rotation(false);
    let ring = |distrusted: &str, anchors: &[&Key]| {
        let mut ring = anchored(anchors);
        ring.add_distrusted_key(distrusted).unwrap();
        ring
    };
    assert!(matches!(verify(&dump, &ring(&a.anchor(), &[])), Err(Error::InvalidInput(_))));
    assert!(matches!(verify(&dump, &ring(&b.anchor(), &[&b])), Err(Error::InvalidInput(_))));
    let report = verify(&dump, &ring(&a.anchor(), &[&b])).unwrap();
    let accounted = report.notes.iter().any(|note| {
        note.kind == NoteKind::Rotated && note.explains.starts_with("CHAIN_SIGNED_BY_DISTRUSTED_KEY")
    });
    assert!(accounted, "{:#?}", report.notes);
    assert_eq!((report.ok, report.trust), (true, Some(Trust::Trusted)), "{:#?}", report.findings);
    // From before it signed anything, nothing of it counts.
    let early = format!("{}@2026-08-01T00:00:00Z", a.anchor());
    let report = verify(&dump, &ring(&early, &[&b])).unwrap();
    assert!(
        report.findings.iter().any(|finding| finding.explains.starts_with("CHAIN_SIGNED_BY_DISTRUSTED_KEY"))
    );
}

#[test]
fn a_key_that_the_registry_lacks_can_be_given_by_the_caller() {
    let key = Key::ed25519(1);
    let mut dump = small(true, &key);
    dump.keys.clear();
    assert_names("lacks", &dump, &KeyRing::new(), &["CHAIN_SIGNATURE_MISSING_KEY"]);
    let mut ring = KeyRing::new();
    ring.add_public_key(audit_chain::signature::parse_public_key(&STANDARD.encode(key.spki())).unwrap());
    assert_names("given", &dump, &ring, &[]);
}

#[test]
fn a_weak_key_in_the_registry_verifies_nothing() {
    let key = Key::ed25519(1);
    let mut dump = small(true, &key);
    let weak = [hex::decode("302a300506032b6570032100").unwrap(), vec![0; 32]].concat();
    dump.keys[0].insert("public_key".into(), Value::String(STANDARD.encode(weak)));
    assert_names(
        "weak",
        &dump,
        &KeyRing::new(),
        &["CHAIN_SIGNATURE_INVALID", "CHECKPOINT_SIGNATURE_INVALID", "TENANT_READ_SIGNATURE_INVALID"],
    );
}
