//! The manifest: canonical bytes, round trips, versions, hostile names.

use audit_chain::checkpoint::{ChainCheckpoint, ChainPoint};
use audit_chain::error::ErrorKind;
use audit_chain::report::Verdict;
use backup_core::manifest::{
    ChainEntry, Compression, Digest, Encryption, Extends, FORMAT_VERSION, LogPosition, Manifest, ObjectEntry,
    PreviousBackup, SecretEntry,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::vectors;

fn object(name: &str, encryption: Encryption) -> ObjectEntry {
    ObjectEntry {
        name: ObjectEntry::stored_name(name, Compression::Zstd, encryption),
        size_bytes: 4096,
        sha256: Digest::of(name.as_bytes()),
        stored_size_bytes: 512,
        stored_sha256: Digest::of(b"stored"),
        compression: Compression::Zstd,
        encryption,
    }
}

fn whole() -> Manifest {
    let mut manifest = Manifest::new("20261120T153000Z", "5b5f1c0e", "2026-11-20T15:30:00Z".parse().unwrap());
    manifest.objects =
        vec![object("chain/receipts.ndjson", Encryption::Age), object("database/app.db", Encryption::Age)];
    manifest.encrypted_to = vec!["age1example".into()];
    manifest.chains = vec![ChainEntry {
        source: "app".into(),
        table: "receipts".into(),
        format: "native".into(),
        profile: Some("profile = 1\n".into()),
        records: 3,
        verdict: Verdict::Intact,
        findings: 0,
        finding_kinds: [("edited".to_owned(), 1)].into(),
        diagnosis: "every record is intact".into(),
        points: ChainCheckpoint {
            format: "native".into(),
            chains: vec![ChainPoint {
                id: "t".into(),
                records: 3,
                root: [7; 32],
                head: "ab".repeat(32),
                signed: 0,
                ..ChainPoint::default()
            }],
        },
        extends: Some(Extends { backup: "20261119T153000Z".into(), ok: true }),
    }];
    manifest.secrets = vec![SecretEntry { name: "APP_KEY".into(), fingerprint: "$argon2id$v=19$…".into() }];
    manifest.not_included = vec!["roles and grants".into()];
    manifest.log = LogPosition { size: 4, root: "AAAA".into() };
    manifest.previous =
        Some(PreviousBackup { id: "20261119T153000Z".into(), manifest_sha256: Digest::of(b"") });
    manifest.signed_by = Some("RWQexample".into());
    manifest
}

fn value() -> Value {
    serde_json::from_slice(&whole().to_canonical_json().unwrap()).unwrap()
}

fn read(value: &Value) -> backup_core::error::Result<Manifest> {
    Manifest::from_json(&serde_json::to_vec(value).unwrap())
}

#[test]
fn canonical_json_gives_the_published_bytes_of_rfc8785() {
    let Some(folder) = vectors("canonical_json_gives_the_published_bytes_of_rfc8785") else { return };
    let folder = folder.join("standards/rfc8785");
    let mut cases = 0;
    for entry in std::fs::read_dir(folder.join("input")).unwrap() {
        let path = entry.unwrap().path();
        let input: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let expected = std::fs::read(folder.join("output").join(path.file_name().unwrap())).unwrap();
        let found = serde_json_canonicalizer::to_vec(&input).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&found),
            String::from_utf8_lossy(&expected).trim_end_matches('\n'),
            "{}",
            path.display()
        );
        cases += 1;
    }
    assert!(cases >= 6, "{cases} cases");
}

#[test]
fn a_manifest_reads_back_as_it_was_and_writes_the_same_bytes() {
    let manifest = whole();
    let bytes = manifest.to_canonical_json().unwrap();
    let again = Manifest::from_json(&bytes).unwrap();
    assert_eq!(again, manifest);
    assert_eq!(again.to_canonical_json().unwrap(), bytes);
    assert!(!bytes.contains(&b'\n'));
}

#[test]
fn the_members_of_the_interface_are_there() {
    let value = value();
    for name in ["id", "created_at", "sources", "objects", "chains", "signed_by", "not_included"] {
        assert!(value.get(name).is_some(), "{name}");
    }
    for name in ["name", "size_bytes", "sha256", "stored_size_bytes", "stored_sha256"] {
        assert!(value["objects"][0].get(name).is_some(), "{name}");
    }
}

#[test]
fn members_of_a_newer_minor_version_are_kept() {
    let mut value = value();
    value["assets"] = json!([{"name": "runbook", "tier": "A"}]);
    value["objects"][0]["mode"] = json!("0600");
    let manifest = read(&value).unwrap();
    assert_eq!(manifest.extra["assets"][0]["tier"], "A");
    let again: Value = serde_json::from_slice(&manifest.to_canonical_json().unwrap()).unwrap();
    assert_eq!(again["assets"], value["assets"]);
}

#[test]
fn a_manifest_of_a_newer_format_version_is_refused_as_newer() {
    let value = json!({"format": "attestore-backup", "format_version": FORMAT_VERSION + 1, "objects": 7});
    let error = read(&value).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Newer);
    assert!(error.to_string().contains("format version 2"), "{error}");
}

#[test]
fn something_else_is_malformed() {
    for bytes in [&b""[..], b"{}", b"[]", b"null", br#"{"format":"other","format_version":1}"#, b"\xff"] {
        assert_eq!(Manifest::from_json(bytes).unwrap_err().kind(), ErrorKind::Malformed);
    }
    let twice = String::from_utf8(whole().to_canonical_json().unwrap()).unwrap().replacen(
        "{\"attestore\"",
        "{\"id\":\"x\",\"attestore\"",
        1,
    );
    assert_eq!(Manifest::from_json(twice.as_bytes()).unwrap_err().kind(), ErrorKind::Malformed);
}

#[test]
fn names_that_leave_the_backup_are_refused() {
    for name in ["../../etc/passwd.zst.age", "/etc/passwd.zst.age", "a\\..\\b.zst.age", "manifest.json"] {
        let mut value = value();
        value["objects"][0]["name"] = json!(name);
        assert_eq!(read(&value).unwrap_err().kind(), ErrorKind::Malformed, "{name}");
    }
    let mut bad = value();
    bad["id"] = json!("..");
    assert_eq!(read(&bad).unwrap_err().kind(), ErrorKind::Malformed);
}

#[test]
fn an_object_that_stands_twice_or_whose_suffix_lies_is_refused() {
    let mut manifest = whole();
    manifest.objects[1] = manifest.objects[0].clone();
    assert_eq!(manifest.to_canonical_json().unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut manifest = whole();
    manifest.objects[0].encryption = Encryption::None;
    assert_eq!(manifest.to_canonical_json().unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut manifest = whole();
    manifest.encrypted_to.clear();
    assert_eq!(manifest.to_canonical_json().unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut manifest = whole();
    manifest.objects[0].size_bytes = 1 << 53;
    assert_eq!(manifest.to_canonical_json().unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn objects_are_found_by_plain_and_by_stored_name() {
    let manifest = whole();
    assert_eq!(manifest.object("database/app.db").unwrap().name, "database/app.db.zst.age");
    assert_eq!(manifest.object("database/app.db.zst.age").unwrap().plain_name(), "database/app.db");
    assert!(manifest.object("database/app.db.zst").is_none());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Manifest::from_json(&bytes);
    }
}
