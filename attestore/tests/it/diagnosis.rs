//! One sentence on what most likely happened, for every format in which it can happen: each told from the others.

use std::path::Path;

use audit_chain::native::{NativeAppender, NativeHead, NativeKey};
use serde_json::{Map, Value, json};

use crate::support::{World, receipt_hash, receipts};

type Row = Map<String, Value>;

/// What a sentence begins with, and what no other sentence does.
const SENTENCES: [(&str, &str); 9] = [
    ("intact", "intact: "),
    ("rotation", "intact: "),
    ("retention", "intact: "),
    ("edited rows", "edited rows: "),
    ("rows missing", "rows missing: "),
    ("partial restore", "partial restore: "),
    ("rewritten history", "rewritten history: "),
    ("wrong key", "cannot verify (wrong key): "),
    ("retired key", "wrong key: "),
];

/// A history of a format with what it takes to verify it.
struct History {
    format: String,
    rows: Vec<Row>,
    /// `NAME=file:…` of the right secret, and of a wrong one.
    right: Vec<String>,
    wrong: Vec<String>,
    /// A column that is hashed.
    hashed: &'static str,
    /// The column that tells chains apart, where there are several.
    chain: Option<&'static str>,
}

fn vector(path: &str) -> Vec<Row> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../audit-chain/tests/vectors");
    let text = std::fs::read_to_string(root.join(path)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn natives(first: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for chain in ["one", "two"] {
        let key = NativeKey::new(&[b'k'; 32]).unwrap();
        let mut log = NativeAppender::new(NativeHead::genesis(chain), Some(key));
        for at in 0..6 {
            let body = if at == 0 { first.to_owned() } else { format!("event {at}") };
            rows.push(serde_json::from_str(&log.append(at, body).unwrap().line()).unwrap());
        }
    }
    rows
}

fn receipt_rows(world: &World) -> Vec<Row> {
    receipts(&world.path("receipts.db"), &[("alpha", 6), ("beta", 6)], None);
    let connection = world.open("receipts.db");
    let mut statement = connection.prepare("SELECT * FROM action_receipts ORDER BY rowid").unwrap();
    let names: Vec<String> = statement.column_names().iter().map(|name| (*name).to_owned()).collect();
    let rows = statement.query_map([], |row| {
        let value =
            |(at, name): (usize, &String)| Ok((name.clone(), json!(row.get::<_, Option<String>>(at)?)));
        names.iter().enumerate().map(value).collect()
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn histories(world: &World) -> Vec<History> {
    let secret = |file: &str, name: &str, value: &str| {
        world.write(file, value);
        vec!["--secret".to_owned(), format!("{name}=file:{file}")]
    };
    let hmac = "AUDIT_HMAC_KEY";
    let caracal = secret("caracal", hmac, "a1a1a1a100112233445566778899aabbccddeeff0123456789abcdef01234567");
    let other_caracal = secret("caracal-wrong", hmac, &"ab".repeat(32));
    let master = secret("master", "Z4J_SECRET", "test-master-secret-0123456789abcdef-A");
    let other_master = secret("master-wrong", "Z4J_SECRET", "test-master-secret-0123456789abcdef-X");
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/chains/profiles/caracal.toml");
    let history = |format: &str, rows, right: &[String], wrong: &[String], hashed, chain| History {
        format: format.to_owned(),
        rows,
        right: right.to_vec(),
        wrong: wrong.to_vec(),
        hashed,
        chain,
    };
    vec![
        history("aegisagent", receipt_rows(world), &[], &[], "decision", Some("tenant_id")),
        history(
            "caracal",
            vector("caracal/valid.ndjson"),
            &caracal,
            &other_caracal,
            "decision",
            Some("zone_id"),
        ),
        history(
            profile.to_str().unwrap(),
            vector("caracal/valid.ndjson"),
            &caracal,
            &other_caracal,
            "decision",
            Some("zone_id"),
        ),
        history(
            "caracal-admin",
            vector("caracal/admin-valid.ndjson"),
            &caracal,
            &other_caracal,
            "method",
            Some("zone_id"),
        ),
        history("z4j", vector("z4j/v3-valid/rows.jsonl"), &master, &other_master, "action", None),
        history("z4j", vector("z4j/v1-valid/rows.jsonl"), &master, &other_master, "action", None),
        history(
            "z4j",
            vector("z4j/v2-valid/rows.jsonl"),
            &secret("chain", "Z4J_AUDIT_CHAIN_SECRET", "test-audit-chain-secret-0123456789-K1"),
            &secret("chain-wrong", "Z4J_AUDIT_CHAIN_SECRET", "test-audit-chain-secret-0123456789-X"),
            "action",
            None,
        ),
        history(
            "native",
            natives("event 0"),
            &secret("native", "CHAIN", &"k".repeat(32)),
            &secret("native-wrong", "CHAIN", &"x".repeat(32)),
            "body",
            Some("chain"),
        ),
    ]
}

/// Verifies rows and compares the sentence with all that it may not be.
#[track_caller]
fn says(world: &World, history: &History, rows: &[Row], secrets: &[String], checkpoint: bool, what: &str) {
    let text: String = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
    world.write("rows.ndjson", text);
    let mut arguments = vec!["chain", "verify", "rows.ndjson", "--format", &history.format, "--json"];
    arguments.extend(secrets.iter().map(String::as_str));
    if checkpoint {
        arguments.extend(["--checkpoint", "checkpoint"]);
    }
    let report = world.run(&arguments).json();
    let sentence = report["diagnosis"].as_str().unwrap();
    let (_, begins) = SENTENCES.iter().find(|(name, _)| *name == what).unwrap();
    assert!(sentence.starts_with(begins), "{}: {what}: {report:#}", history.format);
    for (name, other) in SENTENCES {
        assert!(other == *begins || !sentence.starts_with(other), "{name} is not {what}: {sentence}");
    }
    match what {
        "rotation" => assert!(sentence.contains("the key was rotated"), "{sentence}"),
        "retention" => assert!(sentence.contains("retention removed older ones"), "{sentence}"),
        "intact" => assert!(!sentence.contains(';'), "{sentence}"),
        _ => assert!(!report["findings"].as_array().unwrap().is_empty(), "the evidence: {report:#}"),
    }
    // For people the same sentence stands in the first line.
    let text = world.run(arguments.iter().copied().filter(|argument| *argument != "--json")).out;
    let said = sentence.split_once(": ").map_or(sentence, |(_, said)| said);
    assert!(text.lines().next().unwrap().contains(said), "{text}");
}

#[test]
fn what_most_likely_happened_is_told_from_everything_else_in_every_format() {
    let world = World::new();
    for history in histories(&world) {
        let rows = &history.rows;
        let text: String = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
        world.write("honest.ndjson", text);
        let note = world.run(["chain", "checkpoint", "honest.ndjson", "--format", &history.format]);
        world.write("checkpoint", note.out);
        let right = &history.right;
        for checkpoint in [false, true] {
            says(&world, &history, rows, right, checkpoint, "intact");
            let mut edited = rows.clone();
            edited[3][history.hashed] = "edited".into();
            says(&world, &history, &edited, right, checkpoint, "edited rows");
            // A row out of the middle of the first row's chain, and that chain's head.
            let chain = |row: &Row| history.chain.map(|column| row[column].clone());
            let mine: Vec<usize> =
                (0..rows.len()).filter(|at| chain(&rows[*at]) == chain(&rows[0])).collect();
            for gone in [mine[2], mine[0]] {
                // What stood before the first row of era C that is here, only z4j's state row tells; without it that is a note.
                if gone == mine[0] && history.format == "z4j" && rows[0].contains_key("chain_generation") {
                    continue;
                }
                let mut fewer = rows.clone();
                fewer.remove(gone);
                says(&world, &history, &fewer, right, checkpoint, "rows missing");
            }
        }
        if !history.wrong.is_empty() {
            says(&world, &history, rows, &history.wrong, false, "wrong key");
        }
        // The newest record of one chain is gone.
        let last = |rows: &[Row], id: &Option<Value>| {
            rows.iter().rposition(|row| history.chain.map(|column| row[column].clone()) == *id).unwrap()
        };
        let mut ids: Vec<Option<Value>> = Vec::new();
        for row in rows {
            let id = history.chain.map(|column| row[column].clone());
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let mut cut = rows.clone();
        cut.remove(last(&cut, &ids[0]));
        says(&world, &history, &cut, right, true, "rows missing");
        if ids.len() > 1 {
            // All of them end earlier: an older copy. Or one is not there at all.
            for id in &ids[1..] {
                cut.remove(last(&cut, id));
            }
            says(&world, &history, &cut, right, true, "partial restore");
            let mut without = rows.clone();
            without.retain(|row| history.chain.map(|column| row[column].clone()) != ids[0]);
            says(&world, &history, &without, right, true, "partial restore");
        }
    }
}

#[test]
fn a_rewritten_history_a_rotation_and_retention_have_their_own_sentence() {
    let world = World::new();
    let all = histories(&world);
    let checkpoint = |history: &History, rows: &[Row], secrets: &[String]| {
        let text: String = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
        world.write("honest.ndjson", text);
        let mut arguments = vec!["chain", "checkpoint", "honest.ndjson", "--format", &history.format];
        arguments.extend(secrets.iter().map(String::as_str));
        world.write("checkpoint", world.run(&arguments).good().out);
    };
    let of = |format: &str| all.iter().find(|history| history.format == format).unwrap();

    // Somebody with the key, or where there is none, writes another history.
    let native = of("native");
    checkpoint(native, &native.rows, &native.right);
    says(&world, native, &natives("event zero"), &native.right, true, "rewritten history");
    let aegis = of("aegisagent");
    checkpoint(aegis, &aegis.rows, &[]);
    let mut rows = aegis.rows.clone();
    rows[0]["decision"] = "other".into();
    let mut prev = json!("");
    for row in rows.iter_mut().take(6) {
        row["prev_receipt_hash"] = prev;
        row["receipt_hash"] = receipt_hash(row).into();
        prev = row["receipt_hash"].clone();
    }
    says(&world, aegis, &rows, &[], true, "rewritten history");

    // Both keys at hand, one, none of them.
    world.write("B", "test-master-secret-0123456789abcdef-B");
    world.write("K2", "test-audit-chain-secret-0123456789-K2");
    let flags = |texts: &[&str]| -> Vec<String> {
        texts.iter().flat_map(|text| ["--secret".to_owned(), (*text).to_owned()]).collect()
    };
    let z4j = of("z4j");
    for (case, new, old, wrong) in [
        ("v1-rotated", "Z4J_SECRET=file:B", "Z4J_SECRET=file:master", "Z4J_SECRET=file:master-wrong"),
        (
            "v2-rotated",
            "Z4J_AUDIT_CHAIN_SECRET=file:K2",
            "Z4J_AUDIT_CHAIN_SECRET=file:chain",
            "Z4J_AUDIT_CHAIN_SECRET=file:chain-wrong",
        ),
    ] {
        let rows = vector(&format!("z4j/{case}/rows.jsonl"));
        says(&world, z4j, &rows, &flags(&[new, old]), false, "rotation");
        says(&world, z4j, &rows, &flags(&[new]), false, "retired key");
        says(&world, z4j, &rows, &flags(&[wrong]), false, "wrong key");
    }

    // Months that Caracal's retention dropped, against the checkpoint before.
    let caracal = of("caracal");
    let rows = vector("caracal/retention-before.ndjson");
    checkpoint(caracal, &rows, &caracal.right);
    let oldest = rows.iter().map(|row| row["occurred_at"].as_str().unwrap()[..7].to_owned()).min().unwrap();
    let mut kept = rows.clone();
    kept.retain(|row| !row["occurred_at"].as_str().unwrap().starts_with(&oldest));
    assert!(kept.len() < rows.len());
    says(&world, caracal, &kept, &caracal.right, true, "retention");
    // The same number of rows deleted by hand is not.
    let mut deleted = rows.clone();
    deleted.drain(10..10 + rows.len() - kept.len());
    says(&world, caracal, &deleted, &caracal.right, true, "rows missing");
}

#[test]
fn a_dump_of_agledger_is_diagnosed_by_the_same_words() {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../audit-chain/tests/vectors/agledger/valid-small");
    let world = World::new();
    let check = |change: &dyn Fn(&mut Vec<Row>), checkpoint: bool| {
        let _ = std::fs::create_dir(world.path("dump"));
        for file in std::fs::read_dir(&root).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), world.path("dump").join(file.file_name())).unwrap();
        }
        let mut rows = vector("agledger/valid-small/audit_vault.ndjson");
        change(&mut rows);
        world.write(
            "dump/audit_vault.ndjson",
            rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect::<String>(),
        );
        let mut arguments = vec!["chain", "verify", "dump", "--format", "agledger", "--json"];
        if checkpoint {
            arguments.extend(["--checkpoint", "checkpoint"]);
        }
        world.run(&arguments).json()
    };
    assert!(check(&|_| {}, false)["diagnosis"].as_str().unwrap().starts_with("intact: "));
    world.write("checkpoint", world.run(["chain", "checkpoint", "dump", "--format", "agledger"]).good().out);
    for checkpoint in [false, true] {
        let report = check(&|rows| rows[3]["payload"] = json!({"edited": true}), checkpoint);
        assert!(report["diagnosis"].as_str().unwrap().starts_with("edited rows: "), "{report:#}");
        let report = check(&|rows| drop(rows.remove(3)), checkpoint);
        assert!(report["diagnosis"].as_str().unwrap().contains("rows missing: "), "{report:#}");
    }
    // Its newest record gone, and a whole chain of which no checkpoint of its own speaks.
    let report = check(&|rows| drop(rows.pop()), true);
    assert!(report["diagnosis"].as_str().unwrap().contains("rows missing: "), "{report:#}");
}
