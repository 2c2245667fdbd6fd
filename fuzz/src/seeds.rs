//! Seeds: small honest inputs of each target, made from tests/vectors and by the writers when the fuzzer starts.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::formats;
use audit_chain::json_rows::NdjsonSource;
use audit_chain::keys::KeyRing;
use audit_chain::native::{NativeAppender, NativeHead};
use audit_chain::note::NoteSigner;
use audit_chain::verify::{VerifyOptions, verify};
use backup_core::encrypt::Identities;
use backup_core::manifest::Manifest;
use backup_core::seal::{SealOptions, SealWriter};
use backup_core::signing::SigningKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::records::all_formats;

/// How many rows of a vector make a seed.
const ROWS: usize = 3;

fn vector(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../audit-chain/tests/vectors");
    fs::read_to_string(root.join(path)).unwrap()
}

fn lines(path: &str) -> String {
    vector(path).lines().take(ROWS).map(|line| format!("{line}\n")).collect()
}

fn natives() -> String {
    let mut chain = NativeAppender::new(NativeHead::genesis("c"), None);
    (0..3).map(|at| chain.append(at, format!("{{\"n\":{at}}}")).unwrap().line() + "\n").collect()
}

/// A policy log whose hashes nobody checks here: a fuzzer needs the columns.
fn receipts(policy: bool) -> String {
    let columns: &[&str] = if policy {
        &[
            "id",
            "tenant_id",
            "policy_id",
            "policy_key",
            "action",
            "changed_by",
            "body_hash",
            "diff_summary",
            "prev_hash",
            "entry_hash",
            "created_at",
        ]
    } else {
        &[
            "id",
            "tenant_id",
            "ts",
            "agent_id",
            "user_id",
            "run_id",
            "trace_id",
            "tool",
            "action",
            "resource",
            "source_trust",
            "decision",
            "approver",
            "action_hash",
            "prev_receipt_hash",
            "receipt_hash",
            "signature",
            "signer_public_key",
            "signer_key_id",
            "created_at",
        ]
    };
    let row: Map<String, Value> = columns.iter().map(|name| ((*name).to_owned(), "".into())).collect();
    format!("{}\n", serde_json::to_string(&row).unwrap())
}

/// The honest rows that a format is tried on.
fn honest(format: &str) -> String {
    match format {
        "aegisagent" | "receipts-by-profile" => receipts(false),
        "aegisagent-policy" | "policy-by-profile" => receipts(true),
        "caracal" | "caracal-by-profile" => lines("caracal/valid.ndjson"),
        "caracal-admin" => lines("caracal/admin-valid.ndjson"),
        "z4j-a-by-profile" => lines("z4j/v3-valid/rows.jsonl"),
        "z4j-b-by-profile" => lines("z4j/v1-valid/rows.jsonl"),
        "z4j" | "z4j-c-by-profile" => lines("z4j/v2-valid/rows.jsonl"),
        "agledger" | "agledger-by-profile" => lines("agledger/valid-small/audit_vault.ndjson"),
        _ => natives(),
    }
}

/// The same as rows, read once.
pub(crate) fn honest_rows(format: &str) -> Vec<Map<String, Value>> {
    static ROWS: OnceLock<Vec<(String, Vec<Map<String, Value>>)>> = OnceLock::new();
    let all = ROWS.get_or_init(|| {
        let read = |name: &str| {
            let rows = honest(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            (name.to_owned(), rows)
        };
        all_formats().iter().map(|format| read(format.name())).collect()
    });
    all.iter().find(|(name, _)| name == format).map(|(_, rows)| rows.clone()).unwrap_or_default()
}

/// The identity that opens the seed of the target `age`.
pub(crate) fn identity() -> Identities {
    static IDENTITY: OnceLock<Identities> = OnceLock::new();
    IDENTITY.get_or_init(Identities::generate).clone()
}

fn checkpoint() -> ChainCheckpoint {
    let text = vector("caracal/valid.ndjson");
    let source = NdjsonSource::once("t", text.as_bytes()).unwrap();
    let format = formats::by_name("caracal").unwrap();
    let report = verify(&source, format.as_ref(), &KeyRing::new(), &VerifyOptions::default()).unwrap();
    ChainCheckpoint::from_report(&report).unwrap()
}

fn sealed(options: &SealOptions) -> Vec<u8> {
    let mut writer = SealWriter::new("t", Vec::new(), options, &attestore::Context::default()).unwrap();
    writer.write_all(b"what is stored, what is stored").unwrap();
    writer.finish().unwrap().1
}

/// Writes the seeds of a target.
pub(crate) fn write(target: &str, folder: &Path) {
    let signer = NoteSigner::new("attestore.dev/fuzz", &[7; 32]).unwrap();
    let texts: Vec<Vec<u8>> = match target {
        "ndjson" => formats::NAMES.iter().map(|name| honest(name).into_bytes()).collect(),
        "json" => {
            let array = |name: &&str| format!("[{}]", honest(name).trim().replace('\n', ",")).into_bytes();
            let mut texts: Vec<_> = formats::NAMES.iter().map(array).collect();
            texts.push(b"{\"receipts\":[{\"a\":1}],\"next\":null}".to_vec());
            texts
        }
        "csv" => [&b"\x0ca,b\n1,\"x\"\"y\"\n2,\n"[..], b"\x05a;b\r\n1;\\N\r\n", b"\x1c1,\"\n\"\n"].map(<[u8]>::to_vec).into(),
        "rows" => {
            let all = all_formats().iter().enumerate();
            all.map(|(at, format)| [&[at as u8], honest(format.name()).as_bytes()].concat()).collect()
        }
        "cells" => {
            let values = ["null", "7", "1e308", "\"2026-06-02 12:00:00.5+00\"", "{\"a\":[1.50,\"\\u00e9\"]}", "[]"];
            let all = (0..all_formats().len()).flat_map(|at| values.map(|value| (at, value)));
            all.map(|(at, value)| [&[at as u8, 1, 3], value.as_bytes()].concat()).collect()
        }
        "cose" => {
            let vault = vector("agledger/valid-small/audit_vault.ndjson");
            let rows = vault.lines().take(6).map(|line| serde_json::from_str::<Value>(line).unwrap());
            rows.map(|row| STANDARD.decode(row["cose_sign1"].as_str().unwrap()).unwrap()).collect()
        }
        "key_statement" => {
            let rows = vector("agledger/valid-small/vault_key_statements.ndjson");
            let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            rows.map(|row| STANDARD.decode(row["statement"][0].as_str().unwrap()).unwrap()).collect()
        }
        "registry_csv" => vec![
            b"key_id,public_key,algorithm,status,activated_at,retired_at\n15042c89eb3bcf9a,AAAA,Ed25519,active,2026-05-26 01:24:53+00,\n".to_vec(),
        ],
        "profile" => {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/chains/profiles");
            let profile = |name: &str, format: &str| {
                let profile = fs::read_to_string(folder.join(name)).unwrap();
                [profile.as_bytes(), b"\0", honest(format).as_bytes()].concat()
            };
            vec![
                profile("caracal.toml", "caracal"),
                profile("native.toml", "native"),
                profile("aegisagent.toml", "aegisagent"),
                profile("z4j-b.toml", "z4j-b-by-profile"),
                profile("agledger.toml", "agledger"),
                b"profile = 1\nname = \"x\"\n[form]\nkind = \"template\"\ntemplate = \"{a:jsonb}{b:unix-nanos}{{{c}}}\"\n[hash]\nalgorithm = \"sha512\"\n[link]\ncolumn = \"p\"\n\0{\"a\":\"{}\",\"b\":\"2026-06-02\",\"c\":1,\"p\":null}\n".to_vec(),
            ]
        }
        "note" | "tlog_checkpoint" | "chain_checkpoint" => {
            let checkpoint = checkpoint();
            vec![
                checkpoint.sign(None, &signer).unwrap().into_bytes(),
                checkpoint.to_note_text(None).unwrap().into_bytes(),
                serde_json::to_vec(&checkpoint).unwrap(),
                b"attestore.dev/log\n2\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n".to_vec(),
            ]
        }
        "proof" => vec![proof(&signer)],
        "native_record" => natives().lines().map(|line| line.as_bytes().to_vec()).collect(),
        "timestamp" => [
            "2026-06-02T12:00:00.123456789Z",
            "2026-06-02 12:00:00.5+05:30",
            "2026-06-02 12:00:00+00",
            "2026-06-02",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into(),
        "key" => {
            let key = SigningKey::from_seed(&[7; 32]).public_key();
            vec![key.to_hex().into_bytes(), format!("sha256:{}@2026-01-01T00:00:00Z", key.to_hex()).into_bytes()]
        }
        "manifest" => vec![
            Manifest::new("one", "repository", jiff_time()).to_canonical_json().unwrap(),
        ],
        "log_entry" => vec![
            b"{\"time\":\"2026-11-20T12:00:00Z\",\"by\":\"host\",\"kind\":\"other-kind\"}\n".to_vec(),
            b"{\"time\":\"2026-11-20T12:00:00Z\",\"by\":\"host\",\"kind\":\"hold\",\"backup\":\"one\",\"on\":true,\"reason\":\"r\"}\n".to_vec(),
            b"{\"time\":\"2026-11-20T12:00:00Z\",\"by\":\"host\",\"kind\":\"prune\",\"policy\":\"p\",\"backups\":[],\"removed\":[]}\n".to_vec(),
        ],
        "minisign" => {
            let key = SigningKey::from_seed(&[7; 32]);
            vec![
                key.sign_detached(b"what is signed", "by a test").unwrap().into_bytes(),
                key.to_file_text().as_bytes().to_vec(),
                key.public_key().to_file_text().into_bytes(),
            ]
        }
        "age" => {
            let options = SealOptions { recipients: Some(identity().recipients().unwrap()), ..Default::default() };
            vec![sealed(&options), identity().to_file_text().as_bytes().to_vec()]
        }
        "sealed_object" => vec![sealed(&SealOptions::default())],
        "archive" => vec![tar(b'0', "a/b", b"hello"), tar(b'5', "a/", b""), tar(b'2', "a", b""), tar(b'x', "a", b"11 path=b\n")],
        _ => ["env:X", "file:/x", "eu=sqlite:a.db", "30d", "1y2mo", "x.toml:table", "a/b.zst"]
            .map(|text| text.as_bytes().to_vec())
            .into(),
    };
    for (at, text) in texts.iter().enumerate() {
        fs::write(folder.join(format!("seed-{at}")), text).unwrap();
    }
}

fn jiff_time() -> jiff::Timestamp {
    jiff::Timestamp::UNIX_EPOCH
}

/// A proof of the first record.
fn proof(signer: &NoteSigner) -> Vec<u8> {
    use audit_chain::proof::{ProofRequest, prove};
    use audit_chain::source::RowSource as _;
    let text = natives();
    let bytes = text.clone().into_bytes();
    let source =
        NdjsonSource::new("t", move || Ok(Some(Box::new(std::io::Cursor::new(bytes.clone())) as _))).unwrap();
    let format = formats::by_name("native").unwrap();
    let report = verify(&source, format.as_ref(), &KeyRing::new(), &VerifyOptions::default()).unwrap();
    let checkpoint = ChainCheckpoint::from_report(&report).unwrap().sign(None, signer).unwrap();
    assert!(source.rewind().unwrap());
    let request = ProofRequest { checkpoint: &checkpoint, chain: "c", index: 1, cancel: None };
    let proof = prove(&source, format.as_ref(), &request).unwrap();
    proof.to_json().unwrap().into_bytes()
}

/// A tar archive of one entry.
fn tar(kind: u8, name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", bytes.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(bytes);
    archive.resize(archive.len().div_ceil(512) * 512 + 1024, 0);
    archive
}
