//! Keys and signatures against stock minisign.

use std::process::Command;

use backup_core::durable::Durable;
use backup_core::error::ErrorKind;
use backup_core::signing::{self, PublicKey, SigningKey};

use crate::support::{run, tools};

#[test]
fn stock_minisign_verifies_what_we_sign_and_signs_with_our_keys() {
    if !tools("stock_minisign_verifies_what_we_sign_and_signs_with_our_keys", &["minisign"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let key = SigningKey::keygen(at("key"), &Durable::new()).unwrap();
    std::fs::write(at("manifest.json"), b"{\"id\":\"1\"}").unwrap();

    let ours = key.sign_detached(b"{\"id\":\"1\"}", "attestore backup 1").unwrap();
    std::fs::write(at("manifest.json.minisig"), ours).unwrap();
    let said = run("minisign", &["-V", "-p", &at("key.pub"), "-m", &at("manifest.json")]);
    assert!(said.contains("Trusted comment: attestore backup 1"), "{said}");
    run("minisign", &["-V", "-P", &key.public_key().to_string(), "-m", &at("manifest.json")]);

    std::fs::remove_file(at("manifest.json.minisig")).unwrap();
    run("minisign", &["-S", "-s", &at("key"), "-m", &at("manifest.json"), "-t", "by hand"]);
    let theirs = std::fs::read_to_string(at("manifest.json.minisig")).unwrap();
    let trusted = [PublicKey::load(at("key.pub")).unwrap()];
    let verified = signing::verify_detached("manifest.json", b"{\"id\":\"1\"}", &theirs, &trusted).unwrap();
    assert_eq!(verified.trusted_comment, "by hand");

    std::fs::write(at("manifest.json"), b"{\"id\":\"2\"}").unwrap();
    let refused = Command::new("minisign")
        .args(["-V", "-p", &at("key.pub"), "-m", &at("manifest.json")])
        .output()
        .unwrap();
    assert!(!refused.status.success());
}

#[test]
fn keys_and_signatures_of_stock_minisign_are_read_here() {
    if !tools("keys_and_signatures_of_stock_minisign_are_read_here", &["minisign"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    run("minisign", &["-G", "-W", "-p", &at("k.pub"), "-s", &at("k")]);
    let key = SigningKey::load(at("k")).unwrap();
    let public = PublicKey::load(at("k.pub")).unwrap();
    assert_eq!(key.public_key(), public);

    std::fs::write(at("f"), b"bytes").unwrap();
    run("minisign", &["-S", "-s", &at("k"), "-m", &at("f")]);
    let text = std::fs::read_to_string(at("f.minisig")).unwrap();
    signing::verify_detached("f", b"bytes", &text, &[public]).unwrap();
    let hex = PublicKey::parse(&public.to_hex()).unwrap();
    signing::verify_detached("f", b"bytes", &text, &[hex]).unwrap();

    std::fs::write(at("f.minisig"), key.sign_detached(b"bytes", "ours").unwrap()).unwrap();
    run("minisign", &["-V", "-p", &at("k.pub"), "-m", &at("f")]);

    run("minisign", &["-S", "-l", "-s", &at("k"), "-m", &at("f")]);
    let legacy = std::fs::read_to_string(at("f.minisig")).unwrap();
    let error = signing::verify_detached("f", b"bytes", &legacy, &[public]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
