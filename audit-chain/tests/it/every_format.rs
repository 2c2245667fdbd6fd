//! What holds for every format alike, by tables: any changed byte is found against a checkpoint, columns that are gone or of
//! another type are told, hashes in another spelling are not taken for hashes, rows of one format are not taken for another's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::error::Error;
use audit_chain::format::{ChainFormat, Companions};
use audit_chain::formats;
use audit_chain::formats::agledger::AgledgerDump;
use audit_chain::json_rows::NdjsonSource;
use audit_chain::keys::KeyRing;
use audit_chain::native::{NativeAppender, NativeHead, NativeKey};
use audit_chain::profile::Profile;
use audit_chain::report::{ChainReport, Verdict};
use audit_chain::verify::{VerifyOptions, verify};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

type Row = Map<String, Value>;

/// An honest history of a format, small enough to be verified a thousand times.
#[derive(Clone)]
struct Sample {
    name: String,
    format: Arc<dyn ChainFormat>,
    rows: Vec<Row>,
    keys: KeyRing,
    companions: Companions,
    /// Columns with a hash, an HMAC or a link.
    hashes: &'static [&'static str],
    /// The other files of a dump.
    dump: Option<PathBuf>,
}

fn rows(text: &str) -> Vec<Row> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ndjson(rows: &[Row]) -> String {
    rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect()
}

fn ring(secrets: &[(&str, &str)]) -> KeyRing {
    let mut keys = KeyRing::new();
    secrets.iter().for_each(|(name, value)| keys.add_secret(name, value.as_bytes().to_vec()));
    keys
}

const CARACAL: (&str, &str) =
    ("AUDIT_HMAC_KEY", "a1a1a1a100112233445566778899aabbccddeeff0123456789abcdef01234567");
const MASTER: (&str, &str) = ("Z4J_SECRET", "test-master-secret-0123456789abcdef-A");
const CHAIN: (&str, &str) = ("Z4J_AUDIT_CHAIN_SECRET", "test-audit-chain-secret-0123456789-K1");

/// The first rows of a vector.
fn some(text: &str, count: usize) -> Vec<Row> {
    let mut rows = rows(text);
    rows.truncate(count);
    rows
}

fn policies() -> Vec<Row> {
    const MEMBERS: [&str; 9] = [
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
            "body_hash": "b", "diff_summary": "d\u{e9}", "prev_hash": prev, "created_at": "2026-06-02 12:00:00",
        }) else {
            unreachable!()
        };
        let hashed: Row = MEMBERS.iter().map(|name| ((*name).to_owned(), row[*name].clone())).collect();
        let hash = hex::encode(Sha256::digest(serde_json::to_string(&hashed).unwrap()));
        row.insert("entry_hash".into(), hash.into());
        log.push(row);
    }
    log
}

fn natives() -> Vec<Row> {
    let mut plain = NativeAppender::new(NativeHead::genesis("plain"), None);
    let mut keyed =
        NativeAppender::new(NativeHead::genesis("keyed"), Some(NativeKey::new(&[1; 32]).unwrap()));
    let mut text = String::new();
    for at in 0..4 {
        text += &(plain.append(at, format!("{{\"n\":{at}}}")).unwrap().line() + "\n");
        text += &(keyed.append(at, format!("\u{e9}\n{at}")).unwrap().line() + "\n");
    }
    rows(&text)
}

/// An honest history of every format, the shipped profiles among them.
fn samples() -> Vec<Sample> {
    const Z4J: &[&str] = &["row_hmac", "prev_row_hmac"];
    const CARACAL_HASHES: &[&str] = &["content_sha256", "prev_content_sha256", "chain_hmac"];
    let plain = |format: &str, rows: Vec<Row>, keys: KeyRing, hashes| Sample {
        name: format.to_owned(),
        format: formats::by_name(format).unwrap(),
        rows,
        keys,
        companions: Companions::new(),
        hashes,
        dump: None,
    };
    let vectors = |path: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(path))
            .unwrap()
    };
    let mut native_keys = KeyRing::new();
    native_keys.add_secret("CHAIN", vec![1; 32]);
    let dump = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/agledger/valid-small");
    let mut samples = vec![
        plain(
            "aegisagent",
            crate::aegisagent::history(6),
            KeyRing::new(),
            &["receipt_hash", "prev_receipt_hash", "signature"],
        ),
        plain("aegisagent-policy", policies(), KeyRing::new(), &["entry_hash", "prev_hash"]),
        plain("caracal", some(&vectors("caracal/valid.ndjson"), 8), ring(&[CARACAL]), CARACAL_HASHES),
        plain(
            "caracal-admin",
            some(&vectors("caracal/admin-valid.ndjson"), 8),
            ring(&[CARACAL]),
            CARACAL_HASHES,
        ),
        Sample {
            name: "z4j, era A".into(),
            ..plain("z4j", some(&vectors("z4j/v3-valid/rows.jsonl"), 8), ring(&[MASTER]), Z4J)
        },
        Sample {
            name: "z4j, era B".into(),
            ..plain("z4j", some(&vectors("z4j/v1-valid/rows.jsonl"), 8), ring(&[MASTER]), Z4J)
        },
        Sample {
            name: "z4j, era C".into(),
            companions: serde_json::from_str(&vectors("z4j/v2-valid/state.json")).unwrap(),
            ..plain("z4j", rows(&vectors("z4j/v2-valid/rows.jsonl")), ring(&[CHAIN]), Z4J)
        },
        plain("native", natives(), native_keys, &["hash", "prev"]),
        Sample {
            dump: Some(dump),
            ..plain(
                "agledger",
                rows(&vectors("agledger/valid-small/audit_vault.ndjson")),
                KeyRing::new(),
                &["payload_hash", "previous_hash"],
            )
        },
    ];
    for (like, profile) in [
        ("aegisagent", "aegisagent"),
        ("aegisagent-policy", "aegisagent-policy"),
        ("caracal", "caracal"),
        ("z4j, era A", "z4j-a"),
        ("z4j, era B", "z4j-b"),
        ("z4j, era C", "z4j-c"),
        ("native", "native"),
        ("agledger", "agledger"),
    ] {
        let path = format!("../docs/chains/profiles/{profile}.toml");
        let profile = Profile::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let mut sample = samples.iter().find(|sample| sample.name == like).unwrap().clone();
        // What the profile knows nothing of.
        sample.companions.clear();
        sample.dump = None;
        sample.name = profile.name().to_owned();
        sample.format = Arc::new(profile);
        samples.push(sample);
    }
    samples
}

impl Sample {
    fn check(&self, text: &str, checkpoint: Option<&ChainCheckpoint>) -> Result<ChainReport, Error> {
        let options = VerifyOptions {
            threads: 1,
            checkpoint,
            companions: Some(&self.companions),
            ..Default::default()
        };
        if let Some(dump) = &self.dump {
            let folder = tempfile::tempdir().unwrap();
            for file in std::fs::read_dir(dump).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
            }
            std::fs::write(folder.path().join("audit_vault.ndjson"), text).unwrap();
            return AgledgerDump::open(folder.path())?.verify(&self.keys, &options);
        }
        let bytes: Arc<[u8]> = text.as_bytes().into();
        let source = NdjsonSource::new("rows.ndjson", move || {
            Ok(Some(Box::new(std::io::Cursor::new(Arc::clone(&bytes)))))
        })?;
        verify(&source, self.format.as_ref(), &self.keys, &options)
    }

    fn honest(&self) -> (String, ChainCheckpoint) {
        let text = ndjson(&self.rows);
        let report = self.check(&text, None).unwrap();
        assert!(report.ok, "{}: {report:#?}", self.name);
        let checkpoint = ChainCheckpoint::from_report(&report).unwrap();
        (text, checkpoint)
    }

    /// The columns that the format needs, as far as the sample has them.
    fn columns(&self) -> Vec<&str> {
        self.format.columns().iter().copied().filter(|name| self.rows[0].contains_key(*name)).collect()
    }
}

#[test]
fn an_honest_history_of_every_format_extends_its_own_checkpoint() {
    let samples = samples();
    let built_in: BTreeSet<&str> = samples.iter().map(|sample| sample.format.name()).collect();
    assert!(formats::NAMES.iter().all(|name| built_in.contains(name)), "every format has a sample");
    for sample in samples {
        let (text, checkpoint) = sample.honest();
        let report = sample.check(&text, Some(&checkpoint)).unwrap();
        assert!(report.ok, "{}: {report:#?}", sample.name);
        assert_eq!(report.verdict, Verdict::Intact);
        // Line ends and blank lines are no part of a row.
        let spaced = format!("\r\n{}\n", text.replace('\n', "\r\n\n"));
        assert!(sample.check(&spaced, Some(&checkpoint)).unwrap().ok, "{}", sample.name);
        // Of a member that stands twice the last counts, as everywhere.
        let name = sample.columns()[0];
        let doubled = text.replace(&format!("\"{name}\":"), &format!("\"{name}\":[{{}}],\"{name}\":"));
        assert!(sample.check(&doubled, Some(&checkpoint)).unwrap().ok, "{}: {name}", sample.name);
    }
}

#[test]
fn a_column_that_is_gone_is_named_or_found() {
    for sample in samples() {
        let (_, checkpoint) = sample.honest();
        for column in sample.columns() {
            let mut all = sample.rows.clone();
            all.iter_mut().for_each(|row| drop(row.remove(column)));
            let mut one = sample.rows.clone();
            one[1].remove(column);
            for (rows, everywhere) in [(all, true), (one, false)] {
                // A column of NULLs says the same when it is not there.
                let was_null = rows
                    .iter()
                    .zip(&sample.rows)
                    .all(|(row, before)| row.len() == before.len() || before[column].is_null());
                match sample.check(&ndjson(&rows), Some(&checkpoint)) {
                    Ok(report) => {
                        assert!(
                            !report.ok || was_null,
                            "{}: {column} {everywhere}: {report:#?}",
                            sample.name
                        );
                    }
                    Err(Error::NotThisFormat { what, .. }) => {
                        assert!(everywhere && what.contains(column), "{}: {column}: {what}", sample.name);
                    }
                    Err(Error::Malformed { .. }) => {}
                    Err(other) => panic!("{}: {column}: {other}", sample.name),
                }
            }
        }
        // Nothing of what it needs: told by its name, and not taken for tampering.
        let Err(error) = sample.check("{\"hello\":\"world\"}\n", None) else { panic!("{}", sample.name) };
        assert!(matches!(error, Error::NotThisFormat { .. }), "{}: {error}", sample.name);
        assert!(error.to_string().contains("hello"), "{error}");
    }
}

#[test]
fn a_value_of_another_type_is_found_and_never_a_crash() {
    let strange = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(7),
        json!(1.5),
        json!(9_223_372_036_854_775_807_i64),
        json!(""),
        json!("x"),
        json!("\u{0}\u{1f}\u{2028}\u{10ffff}"),
        json!([]),
        json!({}),
        serde_json::from_str("123456789012345678901234567890").unwrap(),
        serde_json::from_str("1e308").unwrap(),
        json!("2026-13-45 99:99:99"),
        json!("[".repeat(5_000)),
        json!("x".repeat(70_000)),
    ];
    for sample in samples() {
        let (_, checkpoint) = sample.honest();
        for column in sample.columns() {
            for value in &strange {
                let mut rows = sample.rows.clone();
                if rows[1][column] == *value {
                    continue;
                }
                rows[1][column] = value.clone();
                match sample.check(&ndjson(&rows), Some(&checkpoint)) {
                    Ok(report) => {
                        assert_eq!(
                            report.verdict,
                            Verdict::Findings,
                            "{}: {column} {value}: {report:#?}",
                            sample.name
                        );
                    }
                    Err(Error::Malformed { .. }) => {}
                    Err(other) => panic!("{}: {column} {value}: {other}", sample.name),
                }
                // Without a checkpoint too it is no crash.
                if sample.rows.len() < 20 {
                    sample.check(&ndjson(&rows), None).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_number_that_no_json_has_and_broken_text_are_named_by_their_line() {
    for sample in samples() {
        let (text, _) = sample.honest();
        let lines: Vec<&str> = text.lines().collect();
        let name = sample.columns()[0];
        for (bad, said) in [
            (format!("{{\"{name}\":NaN}}"), "expected value"),
            (format!("{{\"{name}\":Infinity}}"), "expected value"),
            (format!("{{\"{name}\":01}}"), "invalid number"),
            (format!("{{\"{name}\":\"\\ud800\"}}"), "hex escape"),
            (format!("{{\"{name}\":\"a\tb\"}}"), "control character"),
            (format!("{{\"{name}\":"), "EOF"),
            (format!("{{\"{name}\":1}} x"), "trailing"),
            ("[]".to_owned(), "expected a JSON object"),
            ("null".to_owned(), "expected a JSON object"),
            ("\u{feff}{}".to_owned(), "byte order mark"),
        ] {
            let mut changed = lines.clone();
            changed.insert(3, &bad);
            let Err(Error::Malformed { input, place, what }) = sample.check(&changed.join("\n"), None) else {
                panic!("{}: {bad}", sample.name)
            };
            assert!(input.ends_with("ndjson") && place == "line 4", "{}: {input} {place}", sample.name);
            assert!(what.contains(said), "{}: {bad}: {what}", sample.name);
        }
    }
}

#[test]
fn a_hash_in_another_spelling_is_no_hash() {
    for sample in samples() {
        let (_, checkpoint) = sample.honest();
        for column in sample.hashes.iter().filter(|name| sample.rows[2].contains_key(**name)) {
            let Some(hash) = sample.rows[2][*column].as_str().filter(|hash| hash.len() >= 64) else {
                continue;
            };
            let raw = hex::decode(hash).unwrap();
            use base64::Engine as _;
            for spelt in [
                hash.to_uppercase(),
                format!("0x{hash}"),
                format!("\\x{hash}"),
                format!(" {hash}"),
                format!("{hash}\n"),
                hash[1..].to_owned(),
                format!("{hash}00"),
                format!("{}g", &hash[..hash.len() - 1]),
                format!("{}\u{ff10}", &hash[..hash.len() - 1]),
                base64::engine::general_purpose::STANDARD.encode(raw),
            ] {
                let mut rows = sample.rows.clone();
                rows[2][*column] = spelt.clone().into();
                // AegisAgent reads a signature in capital letters too; only the whole row shows those.
                let capitals = *column == "signature" && spelt == hash.to_uppercase();
                for checkpoint in [None, Some(&checkpoint)].into_iter().skip(usize::from(capitals)) {
                    let report = sample.check(&ndjson(&rows), checkpoint).unwrap();
                    assert!(!report.ok, "{}: {column} {spelt}: {report:#?}", sample.name);
                }
            }
        }
    }
}

#[test]
fn rows_of_one_format_are_told_from_those_of_every_other() {
    let samples = samples();
    for one in samples.iter().filter(|sample| sample.dump.is_none()) {
        for other in samples.iter().filter(|sample| formats::NAMES.contains(&sample.format.name())) {
            let same = one.rows[0].keys().collect::<BTreeSet<_>>() == other.rows[0].keys().collect();
            if same || one.format.name().starts_with("agledger") && other.dump.is_some() {
                continue;
            }
            // Era A is what rows of z4j are without the columns of later eras.
            if one.hashes == other.hashes && one.hashes.contains(&"row_hmac") {
                continue;
            }
            let text = ndjson(&other.rows);
            let Err(Error::NotThisFormat { what, .. }) = one.check(&text, None) else {
                panic!("{} takes the rows of {}", one.name, other.name)
            };
            let named = what.ends_with(&format!("it looks like {}", other.format.name()));
            assert!(named, "{} given {}: {what}", one.name, other.name);
        }
    }
}

fn cases(quick: u32) -> u32 {
    if std::env::var_os("ATTESTORE_LONG").is_some() { quick * 40 } else { quick }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(80)))]

    /// With the checkpoint, any byte of any row of any format that says something else is a finding or an error.
    #[test]
    fn any_changed_byte_of_any_row_of_any_format_is_found_given_the_checkpoint(
        which: prop::sample::Index, at: prop::sample::Index, byte in prop_oneof![3 => 0x20..0x7f_u8, 1 => any::<u8>()],
    ) {
        let samples = all();
        let (sample, text, checkpoint) = &samples[which.index(samples.len())];
        let mut bytes = text.clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let Ok(changed) = String::from_utf8(bytes) else { return Ok(()) };
        let parse = |text: &str| text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>().ok();
        let same = parse(&changed) == parse(text);
        match sample.check(&changed, Some(checkpoint)) {
            Ok(report) => prop_assert_eq!(report.ok, same, "{}, byte {}: {:#?}", sample.name, at, report),
            Err(Error::Malformed { .. } | Error::NotThisFormat { .. }) => prop_assert!(!same),
            Err(other) => prop_assert!(false, "{}: {}", sample.name, other),
        }
    }

    /// Rows taken out, put in twice or moved are found given the checkpoint.
    #[test]
    fn any_row_gone_doubled_or_moved_is_found_given_the_checkpoint(
        which: prop::sample::Index, from: prop::sample::Index, to: prop::sample::Index, how in 0..3_u8,
    ) {
        let samples = all();
        let (sample, text, checkpoint) = &samples[which.index(samples.len())];
        let mut lines: Vec<&str> = text.lines().collect();
        let (from, to) = (from.index(lines.len()), to.index(lines.len()));
        match how {
            0 => drop(lines.remove(from)),
            1 => lines.insert(to, lines[from]),
            // Formats with an order of their own do not go by the place in the file.
            _ if !sample.format.order().is_empty() || sample.dump.is_some() => return Ok(()),
            _ => {
                let line = lines.remove(from);
                lines.insert(to, line);
            }
        }
        let chains = |lines: &[&str]| -> Vec<(String, String)> {
            let mut rows: Vec<_> = lines.iter().map(|line| {
                let row: Row = serde_json::from_str(line).unwrap();
                let chain = row.get("tenant_id").and_then(Value::as_str).unwrap_or("").to_owned();
                (chain, (*line).to_owned())
            }).collect();
            rows.sort_by(|left, right| left.0.cmp(&right.0));
            rows
        };
        // Rows of two chains may stand in any order.
        let same = chains(&lines) == chains(&text.lines().collect::<Vec<_>>());
        let report = sample.check(&lines.join("\n"), Some(checkpoint)).unwrap();
        prop_assert_eq!(report.ok, same, "{}: {} {} {}: {:#?}", sample.name, how, from, to, report);
    }
}

/// The samples with their honest text and checkpoint, made once.
fn all() -> &'static [(Sample, String, ChainCheckpoint)] {
    static ALL: std::sync::OnceLock<Vec<(Sample, String, ChainCheckpoint)>> = std::sync::OnceLock::new();
    ALL.get_or_init(|| {
        let with = |sample: Sample| {
            let (text, checkpoint) = sample.honest();
            (sample, text, checkpoint)
        };
        samples().into_iter().map(with).collect()
    })
}
