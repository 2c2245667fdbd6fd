//! Profiles: the built-in formats' simple chains expressed as profiles say what the built-in formats say; profiles that
//! cannot be right are refused with their line; the worked example of the documents is true.

use std::path::{Path, PathBuf};

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::csv_rows::{CsvOptions, CsvSource};
use audit_chain::error::Error;
use audit_chain::format::ChainFormat;
use audit_chain::formats;
use audit_chain::json_rows::NdjsonSource;
use audit_chain::keys::KeyRing;
use audit_chain::native::{NativeAppender, NativeHead, NativeKey};
use audit_chain::profile::Profile;
use audit_chain::report::{ChainReport, FindingKind, NoteKind, Verdict};
use audit_chain::verify::{VerifyOptions, verify};
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

type Row = Map<String, Value>;

/// What is done to the rows, by its name.
type Tamper<'a> = (&'a str, &'a dyn Fn(&mut Vec<Row>));

fn profiles() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/chains/profiles")
}

fn load(name: &str) -> Profile {
    Profile::load(&profiles().join(name)).unwrap()
}

fn rows(text: &str) -> Vec<Row> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ndjson(rows: &[Row]) -> String {
    rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect()
}

fn check(
    format: &dyn ChainFormat,
    text: &str,
    keys: &KeyRing,
    checkpoint: Option<&ChainCheckpoint>,
) -> ChainReport {
    let open = || Ok(Some(Box::new(std::io::Cursor::new(text.as_bytes().to_vec())) as _));
    let source = NdjsonSource::new("rows.ndjson", open).unwrap();
    verify(&source, format, keys, &VerifyOptions { checkpoint, threads: 2, ..Default::default() }).unwrap()
}

fn kinds(report: &ChainReport) -> Vec<String> {
    let place = |finding: &audit_chain::report::Finding| match (finding.position, finding.last) {
        (Some(from), Some(to)) => format!("@{from}-{to}"),
        (Some(from), None) => format!("@{from}"),
        (None, _) => String::new(),
    };
    report.findings.iter().map(|found| format!("{} {}{}", found.chain, found.kind, place(found))).collect()
}

/// Compares a profile with a built-in format on rows and on each way to tamper with them, with and without a checkpoint.
fn agree(profile: &Profile, format: &str, honest: &[Row], keys: &KeyRing, tampers: &[Tamper<'_>]) {
    let format = formats::by_name(format).unwrap();
    let checkpoint = |format: &dyn ChainFormat| {
        ChainCheckpoint::from_report(&check(format, &ndjson(honest), keys, None)).unwrap()
    };
    let (ours, theirs) = (checkpoint(profile), checkpoint(format.as_ref()));
    let nothing: &dyn Fn(&mut Vec<Row>) = &|_| {};
    for (name, tamper) in [("nothing", nothing)].iter().chain(tampers) {
        let mut rows = honest.to_vec();
        tamper(&mut rows);
        let text = ndjson(&rows);
        for against in [false, true] {
            let ours = check(profile, &text, keys, against.then_some(&ours));
            let theirs = check(format.as_ref(), &text, keys, against.then_some(&theirs));
            assert_eq!(kinds(&ours), kinds(&theirs), "{}: {name}: {ours:#?}", profile.name());
            assert_eq!(ours.verdict, theirs.verdict, "{name}");
            assert_eq!(ours.findings.is_empty(), *name == "nothing", "{name}: {ours:#?}");
            let chains = |report: &ChainReport| -> Vec<_> {
                let chain = report.chains.iter();
                chain
                    .map(|chain| {
                        (
                            chain.id.clone(),
                            chain.head.clone(),
                            chain.root.clone(),
                            chain.links.clone(),
                            chain.verified_by.clone(),
                        )
                    })
                    .collect()
            };
            assert_eq!(chains(&ours), chains(&theirs), "{name}");
        }
    }
}

#[test]
fn caracal_as_a_profile_says_what_caracal_says() {
    let honest = rows(include_str!("../vectors/caracal/valid.ndjson"));
    let mut keys = KeyRing::new();
    keys.add_secret(
        "AUDIT_HMAC_KEY",
        b"a1a1a1a100112233445566778899aabbccddeeff0123456789abcdef01234567".to_vec(),
    );
    let profile = load("caracal.toml");
    agree(
        &profile,
        "caracal",
        &honest,
        &keys,
        &[
            ("edited", &|rows| rows[12]["decision"] = "x".into()),
            ("edited JSON", &|rows| rows[1]["metadata_json"] = "{}".into()),
            ("edited time", &|rows| rows[1]["occurred_at"] = "2026-11-03 08:00:37.123458+00".into()),
            ("missing", &|rows| drop(rows.remove(14))),
            ("missing head", &|rows| drop(rows.drain(..5))),
            ("renumbered", &|rows| rows[29]["chain_seq"] = 35.into()),
            ("unsigned", &|rows| rows[12]["chain_hmac"] = "".into()),
            ("forged HMAC", &|rows| rows[12]["chain_hmac"] = "00".repeat(32).into()),
            ("no hash", &|rows| rows[12]["content_sha256"] = "00".into()),
            ("no time", &|rows| rows[12]["occurred_at"] = "x".into()),
        ],
    );
    // Without the key, and with another.
    assert!(check(&profile, &ndjson(&honest), &KeyRing::new(), None).ok);
    let mut other = KeyRing::new();
    other.add_secret("AUDIT_HMAC_KEY", "ab".repeat(32).into_bytes());
    let report = check(&profile, &ndjson(&honest), &other, None);
    assert_eq!((report.verdict, report.findings.len()), (Verdict::CannotVerify, 2), "{report:#?}");
}

#[test]
fn native_as_a_profile_says_what_native_says() {
    let mut keys = KeyRing::new();
    keys.add_secret("CHAIN", vec![2; 32]);
    keys.add_secret("CHAIN", vec![1; 32]);
    let mut plain = NativeAppender::new(NativeHead::genesis("plain"), None);
    let mut keyed =
        NativeAppender::new(NativeHead::genesis("keyed"), Some(NativeKey::new(&[1; 32]).unwrap()));
    let mut text = String::new();
    for at in 0..8 {
        let time = 1_780_401_600_000_000 + at;
        text += &(plain.append(time, format!("{{\"n\":{at}}}")).unwrap().line() + "\n");
        let body =
            if at == 4 { keyed.rotate(NativeKey::new(&[2; 32]).unwrap()) } else { format!("é\n{at}") };
        text += &(keyed.append(time, body).unwrap().line() + "\n");
    }
    let honest = rows(&text);
    agree(
        &load("native.toml"),
        "native",
        &honest,
        &keys,
        &[
            ("edited plain", &|rows| rows[2]["body"] = "x".into()),
            ("edited keyed", &|rows| rows[3]["body"] = "x".into()),
            ("unknown key", &|rows| rows[15]["key_id"] = "0123456789abcdef".into()),
            ("keyed and plain again", &|rows| {
                let mut row = rows[15].clone();
                row["key_id"] = Value::Null;
                rows[15] = row;
            }),
            ("missing", &|rows| drop(rows.remove(5))),
            ("duplicate", &|rows| rows.insert(5, rows[4].clone())),
        ],
    );
}

/// Hashes a receipt by formats/aegisagent.md.
fn receipt(row: &mut Row, members: &[&str], column: &str) {
    let hashed: Map<String, Value> = members
        .iter()
        .map(|name| {
            let column = if *name == "event_id" { "id" } else { name };
            ((*name).to_owned(), row.get(column).cloned().unwrap_or(Value::Null))
        })
        .collect();
    row.insert(column.into(), hex::encode(Sha256::digest(serde_json::to_string(&hashed).unwrap())).into());
}

#[test]
fn receipts_and_policies_as_profiles_say_what_aegisagent_says() {
    let members = [
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
    let key = |seed: u8| SigningKey::from_bytes(&[seed; 32]);
    let mut receipts: Vec<Row> = Vec::new();
    for at in 0..20 {
        let prev = receipts.last().map_or_else(|| "".into(), |row| row["receipt_hash"].clone());
        let Value::Object(mut row) = json!({
            "id": format!("r-{at}"), "tenant_id": "t", "ts": "x", "agent_id": "é\n\u{1}", "user_id": null, "run_id": null, "trace_id": null,
            "tool": "\u{2028}", "action": "read", "resource": null, "source_trust": "trusted", "decision": "allow", "approver": null,
            "action_hash": null, "prev_receipt_hash": prev, "created_at": format!("2026-06-02 12:{at:02}:00"),
            "signature": null, "signer_public_key": null, "signer_key_id": null,
        }) else {
            unreachable!()
        };
        receipt(&mut row, &members, "receipt_hash");
        if at % 5 != 4 {
            let key = key(if at < 10 { 1 } else { 2 });
            let signature = key.sign(row["receipt_hash"].as_str().unwrap().as_bytes());
            row.insert("signature".into(), hex::encode(signature.to_bytes()).into());
            row.insert("signer_public_key".into(), hex::encode(key.verifying_key().as_bytes()).into());
            row.insert("signer_key_id".into(), format!("v{}", if at < 10 { 1 } else { 2 }).into());
        }
        receipts.push(row);
    }
    let mut one = KeyRing::new();
    one.add_public_key(key(1).verifying_key());
    let profile = load("aegisagent.toml");
    let tampers: &[Tamper<'_>] = &[
        ("edited", &|rows| rows[3]["decision"] = "deny".into()),
        ("missing", &|rows| drop(rows.remove(7))),
        ("reordered", &|rows| rows.swap(5, 6)),
        ("a bad signature", &|rows| rows[1]["signature"] = "00".repeat(64).into()),
        ("a signer that is no key", &|rows| rows[1]["signer_public_key"] = "00".repeat(32).into()),
        ("no hash", &|rows| rows[2]["receipt_hash"] = "zz".into()),
    ];
    agree(&profile, "aegisagent", &receipts, &KeyRing::new(), tampers);
    let report = check(&profile, &ndjson(&receipts), &one, None);
    let theirs = check(formats::by_name("aegisagent").unwrap().as_ref(), &ndjson(&receipts), &one, None);
    assert_eq!(kinds(&report), kinds(&theirs));
    assert!(report.has(FindingKind::UnknownKey));

    let members = [
        "action",
        "body_hash",
        "changed_by",
        "diff_summary",
        "id",
        "policy_id",
        "policy_key",
        "prev_hash",
        "tenant_id",
    ];
    let mut log: Vec<Row> = Vec::new();
    for at in 0..6 {
        let prev = log.last().map_or_else(|| "".into(), |row| row["entry_hash"].clone());
        let Value::Object(mut row) = json!({
            "id": format!("p-{at}"), "tenant_id": "t", "policy_id": "p", "policy_key": "k", "action": "update", "changed_by": null,
            "body_hash": "b", "diff_summary": "d", "prev_hash": prev, "created_at": "2026-06-02 12:00:00",
        }) else {
            unreachable!()
        };
        receipt(&mut row, &members, "entry_hash");
        log.push(row);
    }
    agree(
        &load("aegisagent-policy.toml"),
        "aegisagent-policy",
        &log,
        &KeyRing::new(),
        &[("edited", &|rows| rows[3]["changed_by"] = "x".into()), ("missing", &|rows| drop(rows.remove(2)))],
    );
}

#[test]
fn z4j_of_era_b_as_a_profile_verifies_the_vectors() {
    let test = "z4j_of_era_b_as_a_profile_verifies_the_vectors";
    let Some(folder) = crate::vectors::vectors(test, "z4j") else { return };
    let profile = load("z4j-b.toml");
    for (case, secrets, expected) in [
        ("v1-valid", &["A"][..], &[][..]),
        ("v1-accepted-json-text", &["A"], &[]),
        ("v1-rotated", &["B", "A"], &[]),
        ("v1-rotated", &["B"], &[" unknown-key@1-50"]),
        ("v1-wrong-secret", &["B"], &[" wrong-key@1-50"]),
        ("v1-deleted-middle", &["A"], &[" missing"]),
        ("v1-edited-metadata", &["A"], &[" edited"]),
        ("v1-truncated-front", &["A"], &[" missing-head@1"]),
        ("v1-truncated-tail", &["A"], &[]),
    ] {
        let text = std::fs::read_to_string(folder.join(case).join("rows.jsonl")).unwrap();
        let mut keys = KeyRing::new();
        for secret in secrets {
            keys.add_secret(
                "Z4J_SECRET",
                format!("test-master-secret-0123456789abcdef-{secret}").into_bytes(),
            );
        }
        let report = check(&profile, &text, &keys, None);
        let found = kinds(&report);
        assert!(
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected)),
            "{case}: expected {expected:?}: {report:#?}"
        );
        // The same verdict as the built-in format, and at the same records.
        let theirs = check(formats::by_name("z4j").unwrap().as_ref(), &text, &keys, None);
        assert_eq!(report.verdict, theirs.verdict, "{case}: {theirs:#?}");
        let places = |report: &ChainReport| -> Vec<_> {
            report.findings.iter().map(|finding| (finding.kind, finding.position)).collect()
        };
        if !expected.iter().any(|kind| kind.contains("key")) {
            assert_eq!(places(&report), places(&theirs), "{case}");
        }
    }
}

/// A small table whose form, algorithm and encoding vary; its rows are hashed here by hand.
fn shop(form: &str, hash: &str, rest: &str, mut seal: impl FnMut(&mut Row, &[u8])) -> (String, String) {
    let profile = format!(
        "profile = 1\nname = \"shop\"\nchain = [\"shop\"]\nnumber = \"seq\"\nid = \"seq\"\n[form]\n{form}\n[hash]\n{hash}\n[link]\ncolumn = \"prev\"\n{rest}\n"
    );
    let mut rows: Vec<Row> = Vec::new();
    for seq in 1..=5 {
        let prev = rows.last().map_or(Value::Null, |row| row["hash"].clone());
        let Value::Object(mut row) = json!({
            "shop": "s", "seq": seq, "who": "zoé", "what": if seq == 3 { Value::Null } else { "a,b".into() }, "at": "2026-06-02 12:00:00.5+00",
            "ok": true, "prev": prev, "hash": null, "sig": null,
        }) else {
            unreachable!()
        };
        let prev = row["prev"].as_str().unwrap_or("").to_owned();
        seal(&mut row, prev.as_bytes());
        rows.push(row);
    }
    (profile, ndjson(&rows))
}

fn verify_shop(profile: &str, text: &str, keys: &KeyRing) -> ChainReport {
    let profile = Profile::parse("shop.toml", profile).unwrap_or_else(|error| panic!("{error}\n{profile}"));
    check(&profile, text, keys, None)
}

fn str_of<'a>(row: &'a Row, name: &str) -> &'a str {
    row[name].as_str().unwrap_or("")
}

#[test]
fn every_form_algorithm_and_encoding_verifies_what_was_hashed_by_hand() {
    use base64::Engine as _;
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    type Make<'a> = Box<dyn Fn(&Row, &str) -> String + 'a>;
    let cases: Vec<(&str, &str, Make<'_>)> = vec![
        (
            "kind = \"joined\"\nseparator = \"|\"\nfields = [\"prev\", \"seq\", \"who\", \"what\", \"ok\"]",
            "column = \"hash\"\nalgorithm = \"sha384\"\nencoding = \"base64\"",
            Box::new(|row, prev| {
                base64(&Sha384::digest(format!("{prev}|{}|zoé|{}|true", row["seq"], str_of(row, "what"))))
            }),
        ),
        (
            "kind = \"joined\"\nseparator = \"\\n\"\ntrailing = true\nomit_null = true\nfields = [\"seq\", \"what\", { column = \"prev\", null = \"-\" }]",
            "column = \"hash\"\nalgorithm = \"sha512\"\nencoding = \"hex-upper\"",
            Box::new(|row, prev| {
                let what = row["what"].as_str().map_or_else(String::new, |what| format!("{what}\n"));
                let prev = if prev.is_empty() { "-" } else { prev };
                hex::encode_upper(Sha512::digest(format!("{}\n{what}{prev}\n", row["seq"])))
            }),
        ),
        (
            "kind = \"json\"\nspaces = true\nascii = true\nfields = [\"who\", \"what\", \"seq\", { column = \"prev\", null = \"\", name = \"a\" }, { value = \"v1\", name = \"kind\" }]",
            "column = \"hash\"\nalgorithm = \"sha256\"\ntext_prefix = \"sha256:\"",
            Box::new(|row, prev| {
                let what =
                    row["what"].as_str().map_or_else(|| "null".to_owned(), |what| format!("\"{what}\""));
                let json = format!(
                    "{{\"a\": \"{prev}\", \"kind\": \"v1\", \"seq\": {}, \"what\": {what}, \"who\": \"zo\\u00e9\"}}",
                    row["seq"]
                );
                format!("sha256:{}", hex::encode(Sha256::digest(json)))
            }),
        ),
        (
            "kind = \"json\"\nmembers = \"rfc8785\"\nomit_null = true\nfields = [\"ok\", \"what\", \"prev\", { column = \"at\", as = \"unix-millis\" }]",
            "column = \"hash\"\nalgorithm = \"sha256\"\nencoding = \"base64url\"",
            Box::new(|row, prev| {
                let prev = if prev.is_empty() { String::new() } else { format!(",\"prev\":\"{prev}\"") };
                let what =
                    row["what"].as_str().map_or_else(String::new, |what| format!(",\"what\":\"{what}\""));
                let json = format!("{{\"at\":1780401600500,\"ok\":true{prev}{what}}}");
                base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(json))
            }),
        ),
        (
            "kind = \"length-prefixed\"\nlength = \"u16be\"\nprefix = \"shop\\u0000\"\nfields = [{ column = \"seq\", as = \"u32le\" }, \"who\", \"what\", \"prev\"]",
            "column = \"hash\"\nalgorithm = \"sha256\"",
            Box::new(|row, prev| {
                let mut input = b"shop\0".to_vec();
                input.extend(u32::try_from(row["seq"].as_u64().unwrap()).unwrap().to_le_bytes());
                for text in ["zoé", str_of(row, "what"), prev] {
                    input.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
                    input.extend(text.as_bytes());
                }
                hex::encode(Sha256::digest(input))
            }),
        ),
        (
            "kind = \"template\"\ntemplate = \"{{{seq}}} {who} at {at:rfc3339-millis} <{prev}>\"\nsuffix = \"!\"",
            "column = \"hash\"\nalgorithm = \"sha256\"",
            Box::new(|row, prev| {
                hex::encode(Sha256::digest(format!(
                    "{{{}}} zoé at 2026-06-02T12:00:00.500Z <{prev}>!",
                    row["seq"]
                )))
            }),
        ),
    ];
    for (form, hash, make) in &cases {
        let (profile, text) = shop(form, hash, "", |row, prev| {
            let made = make(row, std::str::from_utf8(prev).unwrap());
            row["hash"] = made.into();
        });
        let report = verify_shop(&profile, &text, &KeyRing::new());
        assert!(report.ok, "{form}: {report:#?}");
        assert!(report.notes.is_empty(), "{form}: {report:#?}");
        let mut tampered = rows(&text);
        tampered[3]["what"] = "x".into();
        tampered[3]["who"] = "x".into();
        assert!(
            kinds(&verify_shop(&profile, &ndjson(&tampered), &KeyRing::new()))
                .contains(&"s edited@4".to_owned())
                || form.contains("\"at\""),
            "{form}"
        );
        let mut tampered = rows(&text);
        tampered.remove(2);
        assert_eq!(
            kinds(&verify_shop(&profile, &ndjson(&tampered), &KeyRing::new())),
            ["s missing@4"],
            "{form}"
        );
    }
}

#[test]
fn keyed_hashes_and_seals_are_judged_by_their_keys() {
    let mac = |key: &[u8], message: &[u8]| {
        hex::encode(
            Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(message).finalize().into_bytes(),
        )
    };
    let form = "kind = \"joined\"\nseparator = \"|\"\nfields = [\"seq\", \"what\", \"prev\"]";
    let message = |row: &Row, prev: &[u8]| {
        [format!("{}|{}|", row["seq"], str_of(row, "what")).as_bytes(), prev].concat()
    };
    let ring = |of: &[(&str, &[u8])]| {
        let mut ring = KeyRing::new();
        of.iter().for_each(|(name, value)| ring.add_secret(name, value.to_vec()));
        ring
    };
    // Tried one after the other; base64 of the secret.
    let hash = "column = \"hash\"\nalgorithm = \"hmac-sha256\"\nsecret = \"K\"\nsecret_encoding = \"base64\"";
    let (profile, text) = shop(form, hash, "", |row, prev| {
        let key: &[u8] = if row["seq"].as_i64() > Some(3) { b"new" } else { b"old" };
        row["hash"] = mac(key, &message(row, prev)).into();
    });
    let report = verify_shop(&profile, &text, &ring(&[("K", b"bmV3"), ("K", b"b2xk")]));
    assert!(report.ok && report.notes[0].kind == NoteKind::Rotated, "{report:#?}");
    let report = verify_shop(&profile, &text, &ring(&[("K", b"bmV3")]));
    assert_eq!(kinds(&report), ["s unknown-key@1-3"]);
    let report = verify_shop(&profile, &text, &ring(&[("other", b"bmV3")]));
    assert_eq!((kinds(&report), report.verdict), (vec!["s wrong-key@1-5".to_owned()], Verdict::CannotVerify));
    let mut edited = rows(&text);
    edited[1]["what"] = "x".into();
    let report = verify_shop(&profile, &ndjson(&edited), &ring(&[("K", b"bmV3"), ("K", b"b2xk")]));
    assert_eq!(kinds(&report), ["s edited@2"]);
    let profile = Profile::parse("shop.toml", &profile).unwrap();
    let open = NdjsonSource::once("t", text.as_bytes()).unwrap();
    let error = verify(&open, &profile, &ring(&[("K", b"***")]), &VerifyOptions::default()).unwrap_err();
    assert!(
        matches!(&error, Error::BadKey { what, .. } if what == "K#1") && !error.to_string().contains("***"),
        "{error}"
    );

    // Found by the name of the secret, and by a digest of it.
    for (lookup, id) in [
        ("name", "K2".to_owned()),
        ("sha256\"\nkey_digits = 12\n#\"", hex::encode(Sha256::digest(b"new"))[..12].to_owned()),
    ] {
        let hash = format!(
            "column = \"hash\"\nalgorithm = \"hmac-sha256\"\nkey_id = \"who\"\nkey_lookup = \"{lookup}\""
        );
        let (profile, text) = shop(form, &hash, "", |row, prev| {
            row["who"] = id.clone().into();
            row["hash"] = mac(b"new", &message(row, prev)).into();
        });
        assert!(verify_shop(&profile, &text, &ring(&[("K1", b"old"), ("K2", b"new")])).ok, "{lookup}");
        let report = verify_shop(&profile, &text, &ring(&[("K1", b"old")]));
        assert_eq!(
            (kinds(&report), report.verdict),
            (vec!["s unknown-key@1-5".to_owned()], Verdict::CannotVerify)
        );
        let mut edited = rows(&text);
        edited[1]["what"] = "x".into();
        assert_eq!(kinds(&verify_shop(&profile, &ndjson(&edited), &ring(&[("K2", b"new")]))), ["s edited@2"]);
    }

    // A signature over the bytes of the hash, by a key that no row names; every record must have one.
    let key = SigningKey::from_bytes(&[7; 32]);
    let hash = "column = \"hash\"\nalgorithm = \"sha256\"";
    let seal = "[seal]\nkind = \"ed25519\"\ncolumn = \"sig\"\nencoding = \"base64\"\nover = \"hash\"\nrequired = true";
    let (profile, text) = shop(form, hash, seal, |row, prev| {
        use base64::Engine as _;
        let digest = Sha256::digest(message(row, prev));
        row["hash"] = hex::encode(digest).into();
        row["sig"] = base64::engine::general_purpose::STANDARD.encode(key.sign(&digest).to_bytes()).into();
    });
    let mut trusted = KeyRing::new();
    trusted.add_public_key(key.verifying_key());
    let report = verify_shop(&profile, &text, &trusted);
    assert!(report.ok, "{report:#?}");
    assert_eq!(report.chains[0].verified_by[0].key, hex::encode(key.verifying_key().as_bytes()));
    let note = &verify_shop(&profile, &text, &KeyRing::new()).notes[0];
    assert_eq!(note.kind, NoteKind::NotChecked);
    assert!(
        note.explains.starts_with("the signatures of 5 records were not checked: no public key was given"),
        "{note:?}"
    );
    let mut stripped = rows(&text);
    stripped[2]["sig"] = Value::Null;
    assert_eq!(kinds(&verify_shop(&profile, &ndjson(&stripped), &trusted)), ["s unsigned@3"]);
    let mut swapped = rows(&text);
    swapped[2]["sig"] = swapped[1]["sig"].clone();
    assert_eq!(kinds(&verify_shop(&profile, &ndjson(&swapped), &trusted)), ["s signature-invalid@3"]);
}

#[test]
fn a_chain_without_its_own_hash_and_one_with_a_written_genesis_verify() {
    let hash_of = |row: &Row| hex::encode(Sha256::digest(format!("{}|{}", row["seq"], str_of(row, "prev"))));
    let genesis = "0".repeat(64);
    let mut prev = genesis.clone();
    let mut table = Vec::new();
    for seq in 1..=4 {
        let Value::Object(row) = json!({ "seq": seq, "prev": prev }) else { unreachable!() };
        prev = hash_of(&row);
        table.push(row);
    }
    let profile = "profile = 1\nname = \"bare\"\nnumber = \"seq\"\n[form]\nkind = \"joined\"\nseparator = \"|\"\nfields = [\"seq\", \"prev\"]\n[hash]\nalgorithm = \"sha256\"\n[link]\ncolumn = \"prev\"\ngenesis = \"0000000000000000000000000000000000000000000000000000000000000000\"\n";
    assert!(verify_shop(profile, &ndjson(&table), &KeyRing::new()).ok);
    let mut edited = table.clone();
    edited[1]["prev"] = "ab".repeat(32).into();
    let report = verify_shop(profile, &ndjson(&edited), &KeyRing::new());
    assert_eq!(kinds(&report), [" link-broken@2", " link-broken@3"], "{report:#?}");
    let mut null = table;
    null[0]["prev"] = Value::Null;
    assert!(!verify_shop(profile, &ndjson(&null), &KeyRing::new()).ok);
}

const WHOLE: &str = r#"profile = 1
name = "shop"
chain = ["shop"]
number = "seq"
[form]
kind = "joined"
separator = "|"
fields = ["prev", "seq", { column = "at", as = "unix-nanos" }]
[hash]
column = "hash"
algorithm = "hmac-sha256"
secret = "K"
[link]
column = "prev"
"#;

#[test]
fn a_profile_that_cannot_be_right_is_refused_with_its_line_and_the_reason() {
    Profile::parse("p.toml", WHOLE).unwrap();
    for (from, to, line, what) in [
        ("profile = 1", "profile = 2", 1, "this program reads version 1"),
        ("profile = 1\n", "", 1, "expected profile = 1"),
        ("name = \"shop\"", "nmae = \"shop\"", 2, "unknown key nmae: did you mean name?"),
        ("name = \"shop\"", "name = \"caracal\"", 2, "built-in"),
        ("name = \"shop\"", "name = \"a b\"", 2, "space"),
        ("name = \"shop\"", "name = 7", 2, "expected text, found integer"),
        ("name = \"shop\"\n", "", 1, "no name"),
        ("chain = [\"shop\"]", "chain = [\"shop\", \"shop\"]", 3, "stands twice"),
        ("chain = [\"shop\"]", "chain = \"shop\"", 3, "a list of columns"),
        ("number = \"seq\"", "first_number = 0", 4, "there is no number"),
        ("number = \"seq\"", "number = \"seq\"\nintegers = [\"nothing\"]", 5, "nothing is no column"),
        ("kind = \"joined\"", "kind = \"jioned\"", 6, "is none of joined, json, length-prefixed, template"),
        (
            "separator = \"|\"",
            "separater = \"|\"",
            7,
            "unknown key separater in [form]: did you mean separator?",
        ),
        ("separator = \"|\"\n", "", 6, "no separator"),
        (
            "separator = \"|\"",
            "separator = \"|\"\nlength = \"u8\"",
            8,
            "only a form of kind length-prefixed has it",
        ),
        ("\"unix-nanos\"", "\"unix-nano\"", 8, "as in a field: \"unix-nano\" is none of"),
        ("{ column = \"at\"", "{ colum = \"at\"", 8, "did you mean column?"),
        ("as = \"unix-nanos\"", "name = \"x\"", 8, "only the members of JSON have names"),
        ("fields = [\"prev\", ", "fields = [\"hash\", ", 8, "no hash covers itself"),
        (
            "fields = [\"prev\", \"seq\", { column = \"at\", as = \"unix-nanos\" }]",
            "fields = []",
            8,
            "nothing would be hashed",
        ),
        ("fields = [\"prev\", ", "fields = [7, ", 8, "found integer"),
        ("algorithm = \"hmac-sha256\"", "algorithm = \"md5\"", 11, "\"md5\" is none of sha256"),
        ("algorithm = \"hmac-sha256\"", "algorithm = \"sha256\"", 12, "the algorithm has no key"),
        ("secret = \"K\"\n", "", 11, "no secret"),
        ("secret = \"K\"", "secret = \"K\"\nkeyless = true", 13, "nothing tells a plain hash"),
        ("secret = \"K\"", "key_lookup = \"name\"", 12, "no key_id"),
        ("secret = \"K\"", "key_id = \"k\"\nkey_lookup = \"hmac\"", 9, "no key_label"),
        ("secret = \"K\"", "key_id = \"k\"\nkey_lookup = \"sha256\"\nkey_digits = 2", 14, "expected 8 to 64"),
        ("column = \"hash\"\nalgorithm", "algorithm", 10, "a keyed hash needs its column"),
        ("[link]\ncolumn = \"prev\"\n", "", 1, "no [link]"),
        ("[link]\ncolumn = \"prev\"", "[link]\ncolumn = \"hash\"", 14, "the record's own hash"),
        (
            "[link]",
            "[seal]\nkind = \"ed25519\"\ncolumn = \"s\"\nover = \"hash\"\n[link]",
            14,
            "beside a keyed hash",
        ),
        ("[link]", "[lnik]", 13, "did you mean link?"),
        ("[link]", "[somewhere]", 13, "unknown key somewhere: known are profile"),
        ("separator = \"|\"", "separator = |", 7, "no TOML"),
    ] {
        assert!(WHOLE.contains(from), "{from}");
        let text = WHOLE.replacen(from, to, 1);
        let Err(Error::Malformed { input, place, what: said }) = Profile::parse("p.toml", &text) else {
            panic!("accepted: {to}")
        };
        assert_eq!(
            (input.as_str(), place.as_str()),
            ("p.toml", format!("line {line}").as_str()),
            "{to}: {said}"
        );
        assert!(said.contains(what), "{to}: {said}");
    }
    let template = |text: &str| {
        let profile = format!(
            "profile = 1\nname = \"x\"\n[form]\nkind = \"template\"\ntemplate = {text:?}\n[hash]\nalgorithm = \"sha256\"\n[link]\ncolumn = \"prev\"\n"
        );
        Profile::parse("p", &profile).map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(template("{a}{b:unix-nanos}{{}}").is_ok());
    for (text, what) in [
        ("no columns", "the same hash"),
        ("{a", "not closed"),
        ("a}", "not closed, or not opened"),
        ("{}", "names no column"),
        ("{a:b}", "is none of plain"),
    ] {
        let error = template(text).unwrap_err();
        assert!(error.contains(what) && error.contains("line 5"), "{text}: {error}");
    }
}

#[test]
fn columns_that_the_profile_names_and_the_table_lacks_are_named() {
    let profile = Profile::parse("p.toml", WHOLE).unwrap();
    let source = NdjsonSource::once("t", &b"{\"seq\":1,\"prev\":null}\n"[..]).unwrap();
    let error = verify(&source, &profile, &KeyRing::new(), &VerifyOptions::default()).unwrap_err();
    assert!(error.to_string().contains("no column shop, at, hash"), "{error}");
    assert!(matches!(Profile::load(Path::new("no-such.toml")), Err(Error::Io { .. })));
}

proptest! {
    #[test]
    fn no_text_makes_a_profile_panic(text in prop_oneof!["\\PC{0,80}", "(profile = 1\nname = \"x\"\n)?(\\[(form|hash|link|seal)\\]\n)?((kind|fields|column|template|as) = (1|\"[a-z{}:]{0,6}\"|\\[\\]|\\[\"a\"\\])\n){0,4}"]) {
        let _ = Profile::parse("p", &text);
    }
}

/// The blocks of a kind in a document, in order.
fn blocks<'t>(document: &'t str, kind: &str) -> Vec<&'t str> {
    let open = format!("\n```{kind}\n");
    document.split(&open).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

#[test]
fn the_worked_example_of_bring_your_own_is_true() {
    let document = include_str!("../../../docs/chains/bring-your-own.md");
    let profile = Profile::parse("doors.toml", blocks(document, "toml")[0]).unwrap();
    let csv = blocks(document, "csv")[0];
    let judge = |csv: &str| {
        let integers = profile.integers().iter().map(|name| (*name).to_owned()).collect();
        let options = CsvOptions { integers, ..CsvOptions::default() };
        let source = CsvSource::once("doors.csv", options, csv.as_bytes()).unwrap();
        verify(&source, &profile, &KeyRing::new(), &VerifyOptions::default()).unwrap()
    };
    let report = judge(csv);
    assert!(report.ok && report.records > 3, "{report:#?}");
    // What the page says of the tampered table.
    let tampered = csv.replacen("bob,opened", "eve,opened", 1);
    assert_ne!(tampered, csv);
    let report = judge(&tampered);
    let said = blocks(document, "text").into_iter().find(|text| text.contains("edited")).unwrap();
    assert_eq!(kinds(&report).len(), 1);
    assert!(said.contains(&report.diagnosis), "{said}\n{}", report.diagnosis);
}
