//! Single changes are found: by the dump itself where it binds what was changed, else by an earlier checkpoint.

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::formats::agledger::AgledgerDump;
use audit_chain::keys::KeyRing;
use audit_chain::verify::VerifyOptions;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::writer::{Dump, Key, uuid};
use super::{assert_names, small, verify};

/// Returns the place of a row of the vault.
fn row(dump: &Dump, record: u64, position: u64) -> usize {
    let chain = uuid(1, record);
    dump.vault.iter().position(|row| row["chain_key"] == *chain && row["chain_position"] == position).unwrap()
}

#[test]
fn every_bound_column_is_found_under_its_name() {
    let key = Key::ed25519(1);
    let honest = small(true, &key);
    let at = row(&honest, 2, 3);
    for (column, value, name) in [
        ("entry_type", json!("OTHER"), "CHAIN_PAYLOAD_BINDING_MISMATCH"),
        ("record_id", json!(uuid(1, 8)), "CHAIN_PAYLOAD_BINDING_MISMATCH"),
        ("record_id", Value::Null, "CHAIN_PAYLOAD_BINDING_MISMATCH"),
        ("payload", json!({"oidc": true, "n": 9_007_199_254_740_992_i64}), "CHAIN_PAYLOAD_BINDING_MISMATCH"),
        ("payload", json!([]), "CHAIN_PAYLOAD_BINDING_MISMATCH"),
        ("actor_key_id", json!(uuid(0x0c, 9)), "CHAIN_ACTOR_ATTRIBUTION_MISMATCH"),
        ("actor_role", json!("admin"), "CHAIN_ACTOR_ATTRIBUTION_MISMATCH"),
        ("actor_owner_id", Value::Null, "CHAIN_ACTOR_ATTRIBUTION_MISMATCH"),
        ("actor_oidc_iss", json!("https://evil.example"), "CHAIN_OIDC_ACTOR_MISMATCH"),
        ("actor_oidc_sub", Value::Null, "CHAIN_OIDC_ACTOR_MISMATCH"),
        ("actor_oidc_synthesized", json!(false), "CHAIN_OIDC_ACTOR_MISMATCH"),
        ("actor_oidc_synthesized", json!("yes"), "CHAIN_OIDC_ACTOR_MISMATCH"),
        ("signing_key_id", Value::Null, "CHAIN_SIGNING_KEY_DRIFT"),
        ("signing_key_id", json!("ffffffffffffffff"), "CHAIN_SIGNING_KEY_DRIFT"),
        ("created_at", json!("2020-01-01T00:00:00Z"), "CHAIN_KEY_NOT_YET_ACTIVE"),
        ("created_at", json!("yesterday"), "CHAIN_MALFORMED_ENTRY"),
        ("cose_sign1", json!("!"), "CHAIN_HASH_MISMATCH"),
        ("cose_sign1", json!(5), "CHAIN_MALFORMED_ENTRY"),
        ("cose_sign1", Value::Null, "UNSUPPORTED_FORMAT"),
        ("previous_hash", Value::Null, "CHAIN_LINK_BROKEN"),
    ] {
        let mut dump = honest.clone();
        dump.vault[at].insert(column.into(), value.clone());
        let report = assert_names(&format!("{column} = {value}"), &dump, &KeyRing::new(), &[name]);
        let finding = &report.findings[0];
        assert_eq!((finding.chain.as_str(), finding.position), (uuid(1, 2).as_str(), Some(3)));
        assert_eq!(finding.record.as_deref(), honest.vault[at]["id"].as_str());
    }
}

#[test]
fn an_oidc_flag_of_null_asks_for_no_check() {
    let mut dump = small(true, &Key::ed25519(1));
    let at = row(&dump, 2, 3);
    dump.vault[at].insert("actor_oidc_synthesized".into(), Value::Null);
    dump.vault[at].insert("actor_oidc_iss".into(), Value::Null);
    assert_names("null", &dump, &KeyRing::new(), &[]);
}

#[test]
fn gaps_doubles_forks_and_missing_beginnings_are_told_apart() {
    let key = Key::ed25519(1);
    let honest = small(true, &key);
    let kinds = |dump: &Dump| -> Vec<(&str, Option<u64>)> {
        let report = verify(dump, &KeyRing::new()).unwrap();
        let gaps =
            report.findings.iter().filter(|finding| finding.explains.starts_with("CHAIN_POSITION_GAP"));
        gaps.map(|finding| (finding.kind.name(), finding.position)).collect()
    };
    let mut missing = honest.clone();
    missing.vault.remove(row(&honest, 1, 2));
    assert_eq!(kinds(&missing), [("missing", Some(3))]);
    let mut head = honest.clone();
    head.vault.remove(row(&honest, 1, 1));
    assert_eq!(kinds(&head), [("missing-head", Some(2))]);
    let mut twice = honest.clone();
    twice.vault.push(honest.vault[row(&honest, 1, 2)].clone());
    assert_eq!(kinds(&twice), [("duplicate", Some(2))]);
    let mut forked = honest;
    let other = forked.entry(&uuid(1, 1), "NOTE", &json!({"evil": true}), Some(&key));
    forked.vault[other].insert("chain_position".into(), json!(2));
    assert_eq!(kinds(&forked), [("forked", Some(2))]);
}

#[test]
fn a_fork_of_tree_heads_is_found() {
    let mut dump = small(true, &Key::ed25519(1));
    let mut other = dump.heads[0].clone();
    other.insert("root_hash".into(), json!("ab".repeat(32)));
    dump.heads.push(other);
    assert_names(
        "fork",
        &dump,
        &KeyRing::new(),
        &["TENANT_CHECKPOINT_FORK", "TENANT_CHECKPOINT_ROOT_MISMATCH"],
    );
}

#[test]
fn what_is_signed_says_what_it_is_signed_for() {
    let key = Key::ed25519(1);
    let honest = small(true, &key);
    // A checkpoint of one chain, put on another that is as long.
    let mut dump = honest.clone();
    let envelope = honest.checkpoints[0]["cose_sign1"].clone();
    dump.checkpoints[1].insert("cose_sign1".into(), envelope.clone());
    assert_names("checkpoint", &dump, &KeyRing::new(), &["CHECKPOINT_CLAIM_MISMATCH"]);
    // API 1.x does not compare it; the signature alone would pass.
    let mut one = small(false, &key);
    let envelope = one.checkpoints[0]["cose_sign1"].clone();
    one.checkpoints[1].insert("cose_sign1".into(), envelope);
    assert_names("checkpoint of 1.x", &one, &KeyRing::new(), &["CHECKPOINT_CLAIM_MISMATCH"]);
    let mut dump = honest;
    dump.reads[1].insert("record_id".into(), json!(uuid(1, 9)));
    assert_names("leaf", &dump, &KeyRing::new(), &["TENANT_READ_CLAIM_MISMATCH"]);
}

/// Flips one bit of an envelope and stamps the new hash on the row, as somebody with the database could.
fn flip(dump: &mut Dump, at: usize, bit: prop::sample::Index) {
    let mut bytes = STANDARD.decode(dump.vault[at]["cose_sign1"].as_str().unwrap()).unwrap();
    let bit = bit.index(bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    dump.restamp(at, &bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_flipped_bit_of_an_envelope_is_found_even_when_its_hash_is_stamped_anew(bit: prop::sample::Index, p256: bool) {
        let key = if p256 { Key::p256(1) } else { Key::ed25519(1) };
        let mut dump = small(true, &key);
        // No checkpoint and no later row speaks for this one.
        dump.checkpoints.clear();
        let at = row(&dump, 3, 3);
        flip(&mut dump, at, bit);
        prop_assert!(!verify(&dump, &KeyRing::new()).unwrap().ok);
    }

    #[test]
    fn any_changed_byte_of_a_row_is_found_against_an_earlier_checkpoint(
        reads: bool, at: prop::sample::Index, byte in 0x20..0x7f_u8,
    ) {
        let folder = tempfile::tempdir().unwrap();
        small(true, &Key::ed25519(1)).write(folder.path());
        let options = VerifyOptions { threads: 1, ..Default::default() };
        let honest = AgledgerDump::open(folder.path()).unwrap().verify(&KeyRing::new(), &options).unwrap();
        let checkpoint = ChainCheckpoint::from_report(&honest).unwrap();
        let file = folder.path().join(if reads { "org_admin_reads.ndjson" } else { "audit_vault.ndjson" });
        let before = std::fs::read(&file).unwrap();
        let mut after = before.clone();
        let at = at.index(after.len());
        prop_assume!(after[at] != b'\n');
        after[at] = byte;
        let rows = |text: &[u8]| -> Vec<Result<Value, String>> {
            text.split(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).map_err(|e| e.to_string())).collect()
        };
        prop_assume!(rows(&before) != rows(&after));
        std::fs::write(&file, &after).unwrap();
        let options = VerifyOptions { threads: 1, checkpoint: Some(&checkpoint), ..Default::default() };
        let found = AgledgerDump::open(folder.path()).and_then(|dump| dump.verify(&KeyRing::new(), &options));
        prop_assert!(found.is_err() || !found.unwrap().ok);
    }
}
