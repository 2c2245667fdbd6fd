//! What is no chain: every kind of bad input on the command line, with its exit status, its place and what to do.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{ErrorKind, Run, World, receipts};

/// The rows of `app.db` as NDJSON: one receipt a line, in the order of the table.
fn rows(world: &World) -> Vec<String> {
    let connection = world.open("app.db");
    let mut statement = connection.prepare("SELECT * FROM action_receipts ORDER BY rowid").unwrap();
    let names: Vec<String> = statement.column_names().iter().map(|name| (*name).to_owned()).collect();
    let rows = statement.query_map([], |row| {
        let mut object = serde_json::Map::new();
        for (at, name) in names.iter().enumerate() {
            object.insert(name.clone(), json!(row.get::<_, Option<String>>(at)?));
        }
        Ok(Value::Object(object).to_string())
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn ready() -> (World, Vec<String>) {
    let world = World::new();
    receipts(&world.path("app.db"), &[("alpha", 6)], None);
    let rows = rows(&world);
    world.write("rows.ndjson", rows.join("\n"));
    world.run(["chain", "verify", "rows.ndjson", "--format", "aegisagent"]).good();
    (world, rows)
}

fn packed(tool: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new(tool).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    Some(child.wait_with_output().unwrap().stdout)
}

#[test]
fn text_that_cannot_be_read_is_named_by_file_and_line() {
    let (world, rows) = ready();
    let long = format!("{{\"id\":\"{}", "x".repeat(70 << 20));
    let with = |bad: &[u8]| [rows[0].as_bytes(), b"\n", rows[1].as_bytes(), b"\n", bad, b"\n"].concat();
    for (file, bytes, said) in [
        ("bad.ndjson", with(b"{\"id\":"), "line 3: column 6: EOF while parsing"),
        ("bad.ndjson", with(&rows[2].as_bytes()[..rows[2].len() / 2]), "line 3: column"),
        ("bad.ndjson", with(b"{\"id\":NaN}"), "line 3: column 7: expected value"),
        ("bad.ndjson", with(b"{\"id\":-Infinity}"), "line 3: column"),
        ("bad.ndjson", with(b"{'id':1}"), "line 3: column"),
        ("bad.ndjson", with(b"[1]"), "line 3: column 0: invalid type: sequence, expected a JSON object"),
        ("bad.ndjson", with(b"null"), "expected a JSON object"),
        ("bad.ndjson", with(b"{\"id\":\"\xc3\x28\"}"), "line 3: not UTF-8 at byte 8"),
        ("bad.ndjson", with("\u{feff}{}".as_bytes()), "line 3: a byte order mark"),
        ("bad.ndjson", [b"\xef\xbb\xbf", rows.join("\n").as_bytes()].concat(), "line 1: a byte order mark"),
        ("bad.ndjson", with(long.as_bytes()), "line 3: over 67108864 bytes without a line end"),
        ("bad.json", b"[{\"a\":1},".to_vec(), "bad.json: record"),
        ("bad.json", b"[{\"a\":1}] x".to_vec(), "trailing characters"),
        ("bad.json", b"\xef\xbb\xbf[{\"a\":1}]".to_vec(), "byte order mark"),
        ("bad.json", b"".to_vec(), "an empty document"),
        ("bad.json", b"{\"a\":[{}],\"b\":[{}]}".to_vec(), "found an object with 2"),
        ("bad.json", format!("[{},{}]", rows[0], "{\"id\":}").into_bytes(), "bad.json: record 2"),
        ("bad.csv", b"\xef\xbb\xbfid,b\n1,2\n".to_vec(), "bad.csv: line 1: a byte order mark"),
        ("bad.csv", b"id,b\n1,2\n1,2,3\n".to_vec(), "line 3: expected 2 fields as in the header, found 3"),
        ("bad.csv", b"id,b\n1,\"2\n".to_vec(), "a quote is never closed"),
        ("bad.csv", b"id,b\n1,\xff\n".to_vec(), "line 2: not UTF-8 in field 2"),
        ("bad.csv", b"id,id\n1,2\n".to_vec(), "\"id\" stands twice"),
    ] {
        world.write(file, &bytes);
        // The CSV cases are judged before the columns are: any format will do, so take one that reads them.
        world.write(
            "any.toml",
            "profile = 1\nname = \"any\"\n[form]\nkind = \"joined\"\nseparator = \"\"\nfields = [\"id\"]\n[hash]\nalgorithm = \"sha256\"\n[link]\ncolumn = \"b\"\n",
        );
        let format = if file == "bad.csv" { "any.toml" } else { "aegisagent" };
        let found = world.fails(ErrorKind::Malformed, ["chain", "verify", file, "--format", format]);
        assert!(found.contains(said) && found.contains(file), "{said}: {found}");
        if file == "bad.ndjson" && bytes.len() < 1 << 20 {
            // The same on standard input.
            let mut command = world.command(["chain", "verify", "-", "--format", format]);
            command.stdin(Stdio::from(std::fs::File::open(world.path(file)).unwrap()));
            let run = Run::from(command.output().unwrap()).ends(2);
            assert!(run.err.starts_with("attestore: -: ") && run.err.contains(said), "{said}: {}", run.err);
        }
    }
}

#[test]
fn what_other_programs_add_to_a_file_changes_nothing() {
    let (world, rows) = ready();
    let checkpoint = world.run(["chain", "checkpoint", "rows.ndjson", "--format", "aegisagent"]).good().out;
    world.write("checkpoint", checkpoint);
    let doubled: Vec<String> = rows.iter().map(|row| row.replacen('{', "{\"tool\":\"other\",", 1)).collect();
    for text in [
        rows.join("\r\n") + "\r\n",
        format!("\n\n  \t\r\n{}\n\n\n", rows.join("\n\n")),
        rows.join("\n"),
        // Of two members with one name the last counts.
        doubled.join("\n"),
    ] {
        world.write("other.ndjson", text);
        let arguments =
            ["chain", "verify", "other.ndjson", "--format", "aegisagent", "--checkpoint", "checkpoint"];
        world.run(arguments).good();
    }
    // A nested value as deep as a line is long costs no stack.
    let deep = format!("{{\"deep\":{}{},", "[".repeat(1 << 20), "]".repeat(1 << 20));
    world.write("deep.ndjson", rows.join("\n").replacen('{', &deep, 1));
    world.run(["chain", "verify", "deep.ndjson", "--format", "aegisagent"]).good();
}

#[test]
fn a_file_that_is_another_kind_is_told_what_it_is() {
    let (world, rows) = ready();
    let ndjson = rows.join("\n").into_bytes();
    let array = format!("[{}]", rows.join(",")).into_bytes();
    let csv = b"seq,who,prev\n1,ann,\n".to_vec();
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(ndjson.iter().flat_map(|byte| [*byte, 0])).collect();
    let database = world.read("app.db");
    let mut cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "a.ndjson",
            array.clone(),
            "this looks like one JSON document, not NDJSON: give it the ending .json",
        ),
        ("a.ndjson", csv.clone(), "this looks like CSV, not NDJSON: give it the ending .csv"),
        ("a.ndjson", database.clone(), "this is a SQLite database, not NDJSON: give it as sqlite:PATH"),
        ("a.ndjson", utf16.clone(), "this is UTF-16 text, not NDJSON"),
        ("a.ndjson", b"PGDMP\x01\x0e".to_vec(), "this is a PostgreSQL dump in the custom format"),
        (
            "a.json",
            ndjson.clone(),
            "this looks like NDJSON, not one JSON document: give it the ending .ndjson",
        ),
        ("a.json", csv.clone(), "this looks like CSV"),
        ("a.json", database.clone(), "this is a SQLite database"),
        ("a.csv", ndjson.clone(), "this looks like NDJSON, not CSV: give it the ending .ndjson"),
        ("a.csv", array.clone(), "this looks like one JSON document, not CSV"),
        ("a.csv", database, "this is a SQLite database"),
        ("a.db", ndjson.clone(), "this looks like NDJSON, not a SQLite database: give it the ending .ndjson"),
        ("a.db", array, "this looks like one JSON document, not a SQLite database"),
        ("a.sql", b"--\n-- PostgreSQL database dump\n--\n".to_vec(), "this is a PostgreSQL dump in SQL"),
        ("a.db", b"PAR1\x15\x04".to_vec(), "this is a Parquet file"),
    ];
    for (tool, name) in [("gzip", "a gzip file"), ("zstd", "a zstd file")] {
        let Some(bytes) = packed(tool, &ndjson) else {
            crate::support::left_out("a_file_that_is_another_kind_is_told_what_it_is", tool);
            continue;
        };
        for file in ["a.ndjson", "a.json", "a.csv", "a.db"] {
            cases.push((file, bytes.clone(), name));
        }
    }
    for (file, bytes, said) in cases {
        world.write(file, bytes);
        for verb in ["verify", "checkpoint"] {
            let found = world.fails(ErrorKind::Malformed, ["chain", verb, file, "--format", "aegisagent"]);
            assert!(found.contains(said) && found.starts_with(file), "{file}: {found}");
        }
    }
    // Standard input is told by its beginning, and read as what it is.
    for bytes in [format!("[{}]", rows.join(",\n")), rows.join("\n")] {
        world.write("input", bytes);
        let mut command = world.command(["chain", "verify", "-", "--format", "aegisagent"]);
        command.stdin(Stdio::from(std::fs::File::open(world.path("input")).unwrap()));
        Run::from(command.output().unwrap()).good();
    }
}

#[test]
fn rows_of_another_system_are_told_whose_they_look_like() {
    let world = World::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../audit-chain/tests/vectors");
    for (file, like) in [
        ("caracal/valid.ndjson", "caracal"),
        ("caracal/admin-valid.ndjson", "caracal-admin"),
        ("z4j/v1-valid/rows.jsonl", "z4j"),
        ("z4j/v2-valid/rows.jsonl", "z4j"),
        ("agledger/valid-small/audit_vault.ndjson", "agledger"),
    ] {
        for format in
            ["aegisagent", "aegisagent-policy", "agledger", "caracal", "caracal-admin", "native", "z4j"]
        {
            if format == like {
                continue;
            }
            let path = root.join(file);
            let found = world
                .fails(ErrorKind::Malformed, ["chain", "verify", path.to_str().unwrap(), "--format", format]);
            assert!(found.contains(&format!("it looks like {like}")), "{file} as {format}: {found}");
            assert!(found.contains("--format"), "{found}");
        }
    }
}

#[test]
fn a_row_that_cannot_be_read_is_a_finding_at_its_place() {
    let (world, rows) = ready();
    let change = |column: &str, value: Value| {
        let mut all: Vec<Value> = rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
        all[3][column] = value;
        all.iter().map(|row| row.to_string() + "\n").collect::<String>()
    };
    for (column, value) in [
        ("receipt_hash", json!("zz")),
        ("receipt_hash", json!(7)),
        ("receipt_hash", Value::Null),
        ("receipt_hash", json!("AB".repeat(32))),
        ("receipt_hash", json!("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=")),
        ("tool", json!(1e300)),
        ("tool", json!([[[]]])),
        ("ts", json!(12_345_678_901_234_567_890_u64)),
        ("prev_receipt_hash", json!(true)),
    ] {
        world.write("changed.ndjson", change(column, value.clone()));
        let report = world.json(1, ["chain", "verify", "changed.ndjson", "--format", "aegisagent"]);
        let finding = &report["findings"][0];
        assert_eq!(finding["position"], 4, "{column} {value}: {report:#}");
        assert!(finding["explains"].as_str().is_some_and(|said| !said.is_empty()), "{report:#}");
    }
    // Small-order and other weak points, and keys that are not on the curve, never verify anything (RFC 8032, strict).
    for key in [
        "00".repeat(32),
        format!("01{}", "00".repeat(31)),
        "ff".repeat(32),
        format!("ecffffff{}7f", "ff".repeat(27)),
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a".to_owned(),
        "abc".to_owned(),
    ] {
        let mut all: Vec<Value> = rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
        all[3]["signer_public_key"] = key.clone().into();
        // With a small-order key this signature holds for every message under rules that are not strict.
        all[3]["signature"] = format!("01{}", "00".repeat(63)).into();
        world.write("weak.ndjson", all.iter().map(|row| row.to_string() + "\n").collect::<String>());
        let report = world.json(1, ["chain", "verify", "weak.ndjson", "--format", "aegisagent"]);
        assert_eq!(report["findings"][0]["kind"], "signature-invalid", "{key}: {report:#}");
        assert_eq!(report["findings"][0]["position"], 4, "{key}");
        if key.len() == 64 {
            let arguments =
                ["chain", "verify", "rows.ndjson", "--format", "aegisagent", "--public-key", &key];
            world.fails(ErrorKind::KeyRejected, arguments);
        }
    }
}

#[test]
fn records_of_a_version_that_is_not_known_are_neither_good_nor_bad() {
    let world = World::new();
    let body = |version: u32| {
        format!(
            "{{\"v\":{version},\"chain\":\"c\",\"seq\":1,\"at\":0,\"key_id\":null,\"prev\":null,\"body\":\"x\",\"hash\":\"{}\"}}\n",
            "ab".repeat(32)
        )
    };
    world.write("new.ndjson", body(9));
    let report = world.json(6, ["chain", "verify", "new.ndjson", "--format", "native"]);
    assert_eq!(
        (&report["verdict"], &report["findings"][0]["kind"]),
        (&"cannot-verify".into(), &"unknown-version".into())
    );
    // A vault from before its envelopes is told so, and a row of z4j with a version that nobody wrote is not good.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../audit-chain/tests/vectors");
    let vault = std::fs::read_to_string(root.join("agledger/valid-small/audit_vault.ndjson")).unwrap();
    std::fs::create_dir(world.path("dump")).unwrap();
    for file in std::fs::read_dir(root.join("agledger/valid-small")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), world.path("dump").join(file.file_name())).unwrap();
    }
    world.run(["chain", "verify", "dump", "--format", "agledger"]).good();
    let old =
        vault.replace("\"cose_sign1\":", "\"canonical_payload\":\"{}\",\"hash_alg\":\"sha256\",\"was\":");
    world.write("dump/audit_vault.ndjson", old);
    let run = world.run(["chain", "verify", "dump", "--format", "agledger"]);
    assert!([1, 2].contains(&run.status), "{run:?}");
    assert!(format!("{}{}", run.out, run.err).contains("UNSUPPORTED_FORMAT"), "{run:?}");
    let rows = std::fs::read_to_string(root.join("z4j/v2-valid/rows.jsonl")).unwrap();
    world.write("z4j.ndjson", rows.replacen("\"hmac_version\": 2", "\"hmac_version\": 3", 1));
    world.write("k", "test-audit-chain-secret-0123456789-K1");
    let report = world.json(
        1,
        ["chain", "verify", "z4j.ndjson", "--format", "z4j", "--secret", "Z4J_AUDIT_CHAIN_SECRET=file:k"],
    );
    assert_eq!(report["findings"][0]["position"], 1, "{report:#}");
}
