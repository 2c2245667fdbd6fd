//! Rows: the readers of NDJSON, CSV and JSON, and every format over whatever they give.

use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use audit_chain::canonical::RowForm;
use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::csv_rows::{CsvOptions, CsvSource, NullRule};
use audit_chain::format::{ChainFormat, Companions};
use audit_chain::formats;
use audit_chain::formats::agledger;
use audit_chain::json_rows::{JsonSource, NdjsonSource};
use audit_chain::keys::KeyRing;
use audit_chain::profile::Profile;
use audit_chain::source::RowSource;
use audit_chain::verify::{VerifyOptions, verify};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// Reads all rows of a source and commits to each.
fn read(source: &dyn RowSource) -> Option<Vec<[u8; 32]>> {
    let mut form = RowForm::new(source.columns());
    let mut leaves = Vec::new();
    let mut reader = source.reader().ok()?;
    loop {
        let mut each = |row: &audit_chain::value::Row<'_>| {
            leaves.push(form.leaf(row));
            Ok(())
        };
        match reader.read_chunk(&mut each) {
            Ok(Some(_)) => {}
            Ok(None) => return Some(leaves),
            Err(_) => return None,
        }
    }
}

/// NDJSON: never a panic, and blank lines and CRLF say nothing.
pub(crate) fn ndjson(data: &[u8]) {
    let Ok(source) = NdjsonSource::once("t", data) else { return };
    let Some(leaves) = read(&source) else { return };
    let spaced: Vec<u8> = data.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"\r\n\n"[..]);
    let again = NdjsonSource::once("t", &spaced[..]).ok().and_then(|source| read(&source));
    assert_eq!(again, Some(leaves), "line ends are no part of a row");
}

/// CSV in any dialect.
pub(crate) fn csv(data: &[u8]) {
    let Some((dialect, text)) = data.split_first() else { return };
    let options = CsvOptions {
        delimiter: *[b',', b';', b'\t', b'|'].get(usize::from(dialect & 3)).unwrap_or(&b','),
        null: match dialect >> 2 & 3 {
            0 => NullRule::Never,
            1 => NullRule::Unquoted("\\N".into()),
            _ => NullRule::UnquotedEmpty,
        },
        columns: (dialect & 16 != 0).then(|| vec!["a".into(), "b".into()]),
        integers: vec!["a".into()],
        ..CsvOptions::default()
    };
    if let Ok(source) = CsvSource::once("t", options, text) {
        read(&source);
    }
}

/// One JSON document, from memory and as a stream.
pub(crate) fn json(data: &[u8]) {
    let whole = JsonSource::parse("t", data).ok().and_then(|source| read(&source));
    let stream = JsonSource::once("t", Cursor::new(data.to_vec())).ok().and_then(|source| read(&source));
    assert_eq!(whole, stream);
    if let Some(leaves) = whole {
        // What is read is JSON in the eyes of any other reader too.
        let document: Value = serde_json::from_slice(data).unwrap();
        let array = match &document {
            Value::Array(records) => Some(records.len()),
            _ => None,
        };
        assert!(array.is_none_or(|count| count == leaves.len()));
    }
}

/// The built-in formats and the shipped profiles.
pub(crate) fn all_formats() -> &'static [Arc<dyn ChainFormat>] {
    static ALL: OnceLock<Vec<Arc<dyn ChainFormat>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all: Vec<Arc<dyn ChainFormat>> =
            formats::NAMES.iter().map(|name| formats::by_name(name).unwrap()).collect();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/chains/profiles");
        let mut paths: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        all.extend(paths.iter().map(|path| Arc::new(Profile::load(path).unwrap()) as Arc<dyn ChainFormat>));
        all
    })
}

fn keys() -> &'static KeyRing {
    static KEYS: OnceLock<KeyRing> = OnceLock::new();
    KEYS.get_or_init(|| {
        let mut keys = KeyRing::new();
        let hmac = "a1a1a1a100112233445566778899aabbccddeeff0123456789abcdef01234567";
        for (name, value) in [
            ("AUDIT_HMAC_KEY", hmac),
            ("Z4J_SECRET", "test-master-secret-0123456789abcdef-A"),
            ("Z4J_AUDIT_CHAIN_SECRET", "test-audit-chain-secret-0123456789-K1"),
            ("CHAIN", "00000000000000000000000000000001"),
        ] {
            keys.add_secret(name, value.as_bytes().to_vec());
        }
        keys
    })
}

/// Verifies; an intact chain is intact against its own checkpoint too.
fn judge(format: &dyn ChainFormat, source: &dyn RowSource, companions: &Companions) {
    let options = VerifyOptions { threads: 1, companions: Some(companions), ..Default::default() };
    let Ok(report) = verify(source, format, keys(), &options) else { return };
    assert_eq!(report.ok, report.findings_total == 0 && report.ok);
    assert!(!report.diagnosis.is_empty());
    let Ok(checkpoint) = ChainCheckpoint::from_report(&report) else { return };
    let text = checkpoint.to_note_text(None);
    if let Ok(text) = &text {
        assert_eq!(ChainCheckpoint::parse(text).unwrap().checkpoint, checkpoint);
    }
    if report.ok && source.rewind().unwrap_or(false) {
        let options = VerifyOptions { checkpoint: Some(&checkpoint), ..options };
        let again = verify(source, format, keys(), &options).unwrap();
        assert!(again.ok, "{again:#?}");
    }
}

fn reopened(text: &[u8]) -> audit_chain::error::Result<NdjsonSource<'static>> {
    let text: Arc<[u8]> = text.into();
    NdjsonSource::new("t", move || Ok(Some(Box::new(Cursor::new(Arc::clone(&text))) as _)))
}

/// Any format over any lines; the first byte says which.
pub(crate) fn rows(data: &[u8]) {
    let Some((which, text)) = data.split_first() else { return };
    let all = all_formats();
    let format = &all[usize::from(*which) % all.len()];
    if let Ok(source) = reopened(text) {
        judge(format.as_ref(), &source, &Companions::new());
    }
}

/// Any format over honest rows in which one cell is replaced, so that every column meets every value.
pub(crate) fn cells(data: &[u8]) {
    let [which, row, column, value @ ..] = data else { return };
    let all = all_formats();
    let format = &all[usize::from(*which) % all.len()];
    let mut rows = crate::seeds::honest_rows(format.name());
    let count = rows.len();
    let Some(row) = rows.get_mut(usize::from(*row) % count.max(1)) else { return };
    let names: Vec<String> = row.keys().cloned().collect();
    let name = &names[usize::from(*column) % names.len()];
    let text = String::from_utf8_lossy(value);
    let value = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()));
    row.insert(name.clone(), value);
    let text: String = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
    if let Ok(source) = reopened(text.as_bytes()) {
        judge(format.as_ref(), &source, &Companions::new());
    }
}

/// The first entry of a dump and its registry.
fn vault() -> &'static (Map<String, Value>, Companions) {
    static VAULT: OnceLock<(Map<String, Value>, Companions)> = OnceLock::new();
    VAULT.get_or_init(|| {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../audit-chain/tests/vectors/agledger/valid-small");
        let mut companions = Companions::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let rows = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            companions.insert(path.file_stem().unwrap().to_str().unwrap().to_owned(), rows);
        }
        let mut vault = companions.remove("audit_vault").unwrap();
        companions.remove("vault_checkpoints");
        (vault.swap_remove(0), companions)
    })
}

/// Any bytes as the envelope of a vault entry: CBOR, COSE, claims, binding, signature.
pub(crate) fn cose(data: &[u8]) {
    let (row, companions) = vault();
    let mut row = row.clone();
    row.insert("cose_sign1".into(), STANDARD.encode(data).into());
    row.insert("payload_hash".into(), hex::encode(Sha256::digest(data)).into());
    let source = reopened(serde_json::to_string(&row).unwrap().as_bytes()).unwrap();
    judge(&agledger::Agledger, &source, companions);
}

/// Any bytes as a signed key statement of the registry.
pub(crate) fn key_statement(data: &[u8]) {
    let (row, companions) = vault();
    let mut companions = companions.clone();
    let statements = companions.get_mut("vault_key_statements").unwrap();
    if let Some(statement) = statements.first_mut() {
        statement.insert("statement".into(), json!([STANDARD.encode(data)]));
    }
    let source = reopened(serde_json::to_string(row).unwrap().as_bytes()).unwrap();
    let mut anchored = keys().clone();
    let spki = companions["vault_signing_keys"][0]["public_key"].as_str().unwrap();
    let digest = hex::encode(Sha256::digest(STANDARD.decode(spki).unwrap()));
    anchored.add_trust_anchor(&format!("sha256:{digest}")).unwrap();
    let options = VerifyOptions { threads: 1, companions: Some(&companions), ..Default::default() };
    let _ = verify(&source, &agledger::Agledger, &anchored, &options);
}

/// The registry that AGLedger's backup writes: what is written is read back the same.
pub(crate) fn registry_csv(data: &[u8]) {
    let open = |text: &[u8]| CsvSource::once("t", CsvOptions::default(), Cursor::new(text.to_vec()));
    let Ok(text) = open(data).and_then(|source| agledger::registry_csv(&source)) else { return };
    let again = open(text.as_bytes()).and_then(|source| agledger::registry_csv(&source)).unwrap();
    assert_eq!(again, text);
}
