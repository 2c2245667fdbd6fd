//! The worked examples of docs/format: every number in them is computed here, and their script is run.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use audit_chain::checkpoint::{ChainCheckpoint, ChainPoint};
use audit_chain::formats::native::Native;
use audit_chain::json_rows::NdjsonSource;
use audit_chain::merkle::{Hash, root};
use audit_chain::native::{NativeAppender, NativeHead, NativeKey, NativeRecord};
use audit_chain::note::NoteSigner;
use audit_chain::proof::{ProofRequest, prove};

/// 2026-06-02T12:00:00.123456Z.
const NOON: i64 = 1_780_401_600_123_456;

fn document(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/format").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The secret of the example: the bytes 0 to 31.
fn key() -> NativeKey {
    let secret: Vec<u8> = (0..32).collect();
    NativeKey::new(&secret).unwrap()
}

/// A plain record, the rotation to a key, a keyed record.
fn records() -> Vec<NativeRecord> {
    let mut log = NativeAppender::new(NativeHead::genesis("orders"), None);
    let first = log.append(NOON, r#"{"event":"paid","order":7}"#).unwrap();
    let rotation = log.rotate(key());
    let second = log.append(NOON + 1_000_000, rotation).unwrap();
    let third = log.append(NOON + 2_000_000, r#"{"event":"sent","order":7}"#).unwrap();
    vec![first, second, third]
}

fn checkpoint() -> ChainCheckpoint {
    let records = records();
    let leaves: Vec<Hash> = records.iter().map(NativeRecord::leaf).collect();
    let point = ChainPoint {
        id: "orders".into(),
        records: 3,
        root: root(&leaves),
        head: records[2].hash.clone(),
        signed: 2,
        ..ChainPoint::default()
    };
    ChainCheckpoint { format: "native".into(), chains: vec![point] }
}

fn signed_checkpoint() -> (NoteSigner, String) {
    let signer = NoteSigner::new("attestore.dev/example", &[42; 32]).unwrap();
    let text = checkpoint().sign(None, &signer).unwrap();
    (signer, text)
}

/// The first code block of the language after a heading.
fn block<'a>(document: &'a str, language: &str) -> &'a str {
    let fence = format!("\n```{language}\n");
    let start = document.find(&fence).unwrap_or_else(|| panic!("no block of {language}")) + fence.len();
    let length = document[start..].find("\n```").unwrap();
    &document[start..=start + length]
}

/// The part of the document from a heading on.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    &document[document.find(heading).unwrap_or_else(|| panic!("no heading {heading}"))..]
}

#[test]
fn the_native_example_holds_to_the_last_digit() {
    let document = document("native-chain.md");
    let example = section(&document, "## Worked example");
    let lines: String = records().iter().map(|record| record.line() + "\n").collect();
    assert_eq!(block(example, "json"), lines);
    assert!(example.contains(&format!("key id `{}`", key().id())), "key id {}", key().id());
    let first = &records()[0];
    let mut input = b"attestore/chain/native/v1\n".to_vec();
    for number in [1_u64, 1] {
        input.extend(number.to_be_bytes());
    }
    for text in [&first.chain, &first.at, "", &first.prev, &first.body] {
        input.extend((text.len() as u64).to_be_bytes());
        input.extend(text.as_bytes());
    }
    let dump: String = input.chunks(32).map(|chunk| hex::encode(chunk) + "\n").collect();
    assert_eq!(block(example, "hex"), dump);
    for (record, what) in records().iter().zip(["first", "second", "third"]) {
        let leaf = hex::encode(record.leaf());
        assert!(example.contains(&leaf), "leaf of the {what} record: {leaf}");
    }
}

#[test]
fn the_script_of_the_native_page_verifies_the_example_and_refuses_an_edit() {
    let document = document("native-chain.md");
    let script = block(section(&document, "## With stock tools"), "python");
    let lines = block(section(&document, "## Worked example"), "json");
    let run = |input: &str| {
        let mut child = Command::new("python3")
            .args(["-c", script, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Some((output.status.success(), String::from_utf8(output.stdout).unwrap()))
    };
    let Some(good) = run(lines) else {
        eprintln!("left out: the script of native-chain.md (there is no python3)");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "the script may not be left out in CI");
        return;
    };
    let (_, root) = (good.0, checkpoint().chains[0].root);
    use base64::Engine as _;
    let root = base64::engine::general_purpose::STANDARD.encode(root);
    assert_eq!(good, (true, format!("3 records, root {root}\n")));
    assert!(!run(&lines.replace("\\\"sent\\\"", "\\\"lost\\\"")).unwrap().0);
}

#[test]
fn the_checkpoint_example_holds_to_the_last_digit() {
    let document = document("checkpoint.md");
    let example = section(&document, "## Worked example");
    let (signer, text) = signed_checkpoint();
    assert_eq!(block(example, "text"), text);
    assert!(example.contains(&signer.verifier().to_string()), "verifier {}", signer.verifier());
    ChainCheckpoint::verify(block(example, "text"), &[signer.verifier().clone().into()]).unwrap();
}

#[test]
fn the_proof_example_holds_to_the_last_digit() {
    let document = document("checkpoint.md");
    let lines: String = records().iter().map(|record| record.line() + "\n").collect();
    let source = NdjsonSource::once("rows", std::io::Cursor::new(lines.into_bytes())).unwrap();
    let (signer, checkpoint) = signed_checkpoint();
    let request = ProofRequest { checkpoint: &checkpoint, chain: "orders", index: 1, cancel: None };
    let proof = prove(&source, &Native, &request).unwrap();
    assert_eq!(block(section(&document, "## Proof of one record"), "json"), proof.to_json().unwrap());
    proof.verify(&[signer.verifier().clone().into()]).unwrap();
}
