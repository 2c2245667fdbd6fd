//! The audit logs of AGLedger, z4j and Caracal as an acceptance check would hand them over: every case of the vectors, in
//! every shape of file, with and without a checkpoint of its honest sibling. What is expected is what EXPECTED.json and the
//! formats say; where their own verifier is wrong, the better verdict stands here by name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Map, Value};

use crate::support::{ErrorKind, World, vectors};

type Row = Map<String, Value>;

/// Returns the cases of a system by name.
fn cases(folder: &Path) -> Vec<(String, PathBuf, Value)> {
    let mut cases: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("EXPECTED.json").exists())
        .map(|path| {
            let expected = std::fs::read(path.join("EXPECTED.json")).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, path, serde_json::from_slice(&expected).unwrap())
        })
        .collect();
    cases.sort_by(|left, right| left.0.cmp(&right.0));
    cases
}

/// Verifies; the exit status fits the verdict.
fn verify(world: &World, input: &Path, format: &str, more: &[String]) -> Value {
    let mut command = world.command(["chain", "verify"]);
    command.arg(input).args(["--format", format, "--json"]).args(more);
    let run = crate::support::Run::from(command.output().unwrap());
    let report = run.json();
    let status = match report["verdict"].as_str().unwrap() {
        "intact" => 0,
        "findings" => 1,
        _ => 6,
    };
    assert_eq!(run.status, status, "{}: {report:#}", input.display());
    assert!(!report["diagnosis"].as_str().unwrap().is_empty());
    report
}

/// What was found: `kind@position`, `kind@from-to`, with the last four of the chain's name.
fn found(report: &Value) -> Vec<String> {
    report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            let chain = finding["chain"].as_str().unwrap();
            let short =
                if chain.is_empty() { String::new() } else { format!("{} ", &chain[chain.len() - 4..]) };
            let place = match (finding["position"].as_u64(), finding["last"].as_u64()) {
                (Some(from), Some(to)) => format!("@{from}-{to}"),
                (Some(from), None) => format!("@{from}"),
                (None, _) => String::new(),
            };
            format!("{short}{}{place}", finding["kind"].as_str().unwrap())
        })
        .collect()
}

fn notes(report: &Value) -> BTreeSet<&str> {
    report["notes"].as_array().unwrap().iter().map(|note| note["kind"].as_str().unwrap()).collect()
}

/// Writes rows as CSV as PostgreSQL does: NULL is an empty field, empty text is in quotes.
fn csv(rows: &[Row]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let field = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
        other => other.to_string(),
    };
    let line = |fields: Vec<String>| fields.join(",") + "\n";
    let header = line(first.keys().cloned().collect());
    header + &rows.iter().map(|row| line(row.values().map(field).collect())).collect::<String>()
}

/// Writes rows as a table.
fn table(path: &Path, name: &str, rows: &[Row]) {
    let connection = Connection::open(path).unwrap();
    let Some(first) = rows.first() else { return };
    let names: Vec<_> = first.keys().map(|name| format!("\"{name}\"")).collect();
    connection.execute_batch(&format!("CREATE TABLE {name}({})", names.join(","))).unwrap();
    let places = vec!["?"; names.len()].join(",");
    let mut insert = connection.prepare(&format!("INSERT INTO {name} VALUES({places})")).unwrap();
    for row in rows {
        let values = row.values().map(|value| match value {
            Value::Null => rusqlite::types::Value::Null,
            Value::Number(number) => rusqlite::types::Value::Integer(number.as_i64().unwrap()),
            Value::String(text) => rusqlite::types::Value::Text(text.clone()),
            other => panic!("{other}"),
        });
        insert.execute(rusqlite::params_from_iter(values)).unwrap();
    }
}

fn read_rows(path: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A case, and what is found in it alone, against the checkpoint of the valid case, and with its rows at hand.
type Expected = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

const CARACAL: &[Expected] = &[
    ("admin-edited-row", &["000a edited@5"], &["000a edited@5"], &["000a edited@5"]),
    ("admin-truncated-tail", &[], &["truncated"], &["truncated@5-6"]),
    ("admin-valid", &[], &[], &[]),
    (
        "admin-wrong-key",
        &["wrong-key@1-6", "000a wrong-key@1-18"],
        &["wrong-key@1-6", "000a wrong-key@1-18"],
        &["wrong-key@1-6", "000a wrong-key@1-18"],
    ),
    (
        "edited-rehashed-relinked",
        &["000a signature-invalid@13", "000a signature-invalid@14"],
        &["000a rewritten", "000a signature-invalid@13", "000a signature-invalid@14"],
        &[
            "000a signature-invalid@13",
            "000a rewritten@13",
            "000a signature-invalid@14",
            "000a unhashed-edited@14",
        ],
    ),
    (
        "edited-rehashed-row",
        &["000a signature-invalid@13", "000a link-broken@14"],
        &["000a signature-invalid@13", "000a link-broken@14"],
        &["000a signature-invalid@13", "000a rewritten@13", "000a link-broken@14"],
    ),
    ("edited-row", &["000a edited@13"], &["000a edited@13"], &["000a edited@13"]),
    ("edited-unhashed-columns", &[], &["000a unhashed-edited"], &["000a unhashed-edited@9"]),
    (
        "key-enabled-later",
        &["000a unsigned@1-12", "000b unsigned@1-8"],
        &["000a stripped", "000a unsigned@1-12", "000b stripped", "000b unsigned@1-8"],
        &[],
    ),
    ("lossy-json-reserialised", &[], &["000a unhashed-edited", "000b unhashed-edited"], &[]),
    ("missing-head", &["000a missing-head@6"], &["000a missing-head@6"], &["000a missing-head@6"]),
    ("missing-middle", &["000a missing@16"], &["000a missing@16"], &["000a missing@16"]),
    ("rehash-marker-lost", &[], &["000a rewritten"], &["000a rewritten@13", "000a unhashed-edited@14"]),
    ("reordered", &["000a reordered@10-12"], &["000a reordered@10-12"], &["000a reordered@10-12"]),
    ("retention-before", &[], &[], &[]),
    ("truncated-tail", &[], &["000a truncated"], &["000a truncated@26-30"]),
    ("unsigned-rows-nokey", &[], &["000a stripped", "000b stripped"], &[]),
    ("valid", &[], &[], &[]),
    ("valid-nokey", &[], &[], &[]),
    (
        "wrong-key",
        &["000a wrong-key@1-30", "000b wrong-key@1-20"],
        &["000a wrong-key@1-30", "000b wrong-key@1-20"],
        &["000a wrong-key@1-30", "000b wrong-key@1-20"],
    ),
];

#[test]
fn every_case_of_caracal_is_judged_alike_in_every_shape_of_file() {
    let test = "every_case_of_caracal_is_judged_alike_in_every_shape_of_file";
    let Some(folder) = vectors(test, "caracal") else { return };
    let world = World::new();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let cases = cases(&folder);
    let key_of = |facts: &Value| -> Vec<String> {
        facts["hmac_key_hex_used"].as_str().map_or_else(Vec::new, |key| {
            world.write(format!("{key}.key"), key);
            vec!["--secret".into(), format!("AUDIT_HMAC_KEY=file:{key}.key")]
        })
    };
    for (name, path, facts) in &cases {
        if !path.join("rows.ndjson").exists() {
            continue;
        }
        seen.insert(name.as_str());
        let (format, chain) = if name.starts_with("admin") {
            ("caracal-admin", "admin_audit_events")
        } else {
            ("caracal", "audit_events")
        };
        let rows = read_rows(&path.join("rows.ndjson"));
        world.write("rows.ndjson", std::fs::read(path.join("rows.ndjson")).unwrap());
        world.write("rows.csv", csv(&rows));
        world.write("rows.json", serde_json::to_string(&rows).unwrap());
        let _ = std::fs::remove_file(world.path("rows.db"));
        table(&world.path("rows.db"), chain, &rows);
        let more = key_of(facts);
        let report = verify(&world, &path.join("rows.ndjson"), format, &more);
        for shape in ["rows.ndjson", "rows.csv", "rows.json", "rows.db"] {
            let same = verify(&world, &world.path(shape), format, &more);
            for member in ["verdict", "chains", "findings", "notes", "diagnosis", "records"] {
                assert_eq!(same[member], report[member], "{name} as {shape}: {member}");
            }
        }
        let base = match (format, more.is_empty()) {
            ("caracal-admin", _) => "admin-valid",
            _ if name == "retention-before" => "retention-before",
            (_, true) => "valid-nokey",
            _ => "valid",
        };
        let (_, base, base_facts) = cases.iter().find(|(known, ..)| known == base).unwrap();
        let mut checkpoint = world.command(["chain", "checkpoint"]);
        checkpoint.arg(base.join("rows.ndjson")).args(["--format", format]).args(key_of(base_facts));
        let note = crate::support::Run::from(checkpoint.output().unwrap()).good().out;
        world.write("checkpoint", note);
        let checkpoint: Vec<String> =
            more.iter().cloned().chain(["--checkpoint".into(), "checkpoint".into()]).collect();
        let against = verify(&world, &world.path("rows.csv"), format, &checkpoint);
        let base = base.join("rows.ndjson").to_str().unwrap().to_owned();
        let earlier: Vec<String> = checkpoint.iter().cloned().chain(["--earlier".into(), base]).collect();
        let by_row = verify(&world, &world.path("rows.db"), format, &earlier);
        let Some((_, alone, then, rows)) = CARACAL.iter().find(|(known, ..)| known == name) else {
            panic!("{name}: a case that is not expected: {:?} {:?}", found(&report), found(&against));
        };
        for (what, report, expected) in
            [("alone", &report, alone), ("checkpoint", &against, then), ("rows", &by_row, rows)]
        {
            // Rows of another spelling or another writing differ one by one; that they do is all that is asked here.
            let many = what == "rows" && expected.is_empty() && !then.is_empty();
            if many {
                assert_eq!(report["verdict"], "findings", "{name}");
            } else if found(report) != *expected {
                wrong.push(format!("{name} {what}: expected {expected:?}, found {:?}", found(report)));
            }
        }
        // What their own sweeper finds is found here, but for keys that do not fit, which is no tampering.
        let theirs = facts["caracal_sweeper_says_ok"].as_bool();
        if theirs == Some(false) && !name.starts_with("lossy") {
            assert_ne!(report["verdict"], "intact", "{name}");
        }
        assert_eq!(
            name == "lossy-json-reserialised",
            notes(&report).contains("serialisation-drift"),
            "{name}"
        );
        assert_eq!(name.ends_with("wrong-key"), report["verdict"] == "cannot-verify", "{name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(seen.len(), CARACAL.len());
}

/// z4j: what is found in the database, and in its rows with the state beside them.
const Z4J: &[(&str, &[&str])] = &[
    ("v1-deleted-middle", &["missing@26"]),
    ("v1-edited-metadata", &["edited@2"]),
    ("v1-truncated-front", &["missing-head@1"]),
    ("v1-wrong-secret", &["wrong-key@1-50"]),
    ("v2-all-rows-deleted", &["beee truncated"]),
    ("v2-deleted-middle", &["beee missing@26"]),
    ("v2-edited-action", &["beee edited@4"]),
    ("v2-edited-metadata", &["beee edited@4"]),
    ("v2-edited-result", &["beee edited@4"]),
    ("v2-edited-rowhmac", &["beee edited@5"]),
    ("v2-edited-tail-rowhmac", &["beee edited@58"]),
    ("v2-edited-user", &["beee edited@53"]),
    ("v2-hmac-version-3", &["beee edited@5"]),
    ("v2-metadata-array", &["beee malformed@4"]),
    ("v2-metadata-notjson", &["beee malformed@4"]),
    ("v2-metadata-surrogate", &["beee malformed@4"]),
    ("v2-pruned-boundary-row-restored", &["beee link-broken@1"]),
    ("v2-reordered", &["beee edited@31", "beee reordered@31", "beee edited@32", "beee reordered@33"]),
    ("v2-rowhmac-null", &["beee unsigned@5"]),
    ("v2-state-head-edited", &["beee state-mismatch"]),
    ("v2-state-missing", &["state-mismatch"]),
    ("v2-truncated-tail", &["beee truncated"]),
    ("v2-upgraded-frozen-deleted", &["ozen missing@6"]),
    ("v2-upgraded-frozen-ip-text", &["ozen edited@4"]),
    ("v2-upgraded-frozen-unfrozen", &["219e edited@1", "219e link-broken@2", "ozen missing-head@1"]),
    ("v2-wrong-secret", &["beee unknown-key", "beee unknown-key@1-58"]),
    ("v3-deleted-middle", &["missing@26"]),
    ("v3-ip-text-edited", &["edited@4"]),
    ("v3-truncated-front", &["missing-head@1"]),
    ("v3-unsigned-row", &["unsigned@11"]),
    ("v3-wrong-secret", &["wrong-key@1-50"]),
];

/// Where z4j's own verifier is wrong: it calls these tampered, or these whole.
const BETTER: &[(&str, &str)] = &[
    ("v2-ipv4mapped-signed-on-py313", "intact"),
    ("v3-deleted-middle", "findings"),
    ("v3-truncated-front", "findings"),
    ("pg-v1-honest-false-positives", "intact"),
];

#[test]
fn every_case_of_z4j_is_judged_alike_in_the_database_and_in_its_rows_with_the_state() {
    let test = "every_case_of_z4j_is_judged_alike_in_the_database_and_in_its_rows_with_the_state";
    let Some(folder) = vectors(test, "z4j") else { return };
    let world = World::new();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    let secrets = |expected: &Value| -> Vec<String> {
        let mut more = Vec::new();
        for (name, value) in expected["runs"][0]["env"].as_object().into_iter().flatten() {
            if name.contains("SECRET") && !name.contains("SESSION") {
                world.write(name, value.as_str().unwrap());
                more.extend(["--secret".to_owned(), format!("{name}=file:{name}")]);
            }
        }
        more
    };
    for (name, path, expected) in cases(&folder) {
        if !path.join("z4j.db").exists() {
            continue;
        }
        seen += 1;
        let more = secrets(&expected);
        let report = verify(&world, &path.join("z4j.db"), "z4j", &more);
        let wanted = Z4J.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, kinds)| kinds);
        if found(&report) != wanted {
            wrong.push(format!("{name}: expected {wanted:?}, found {:?}", found(&report)));
        }
        let theirs = expected["runs"][0]["exit_code"].as_u64().unwrap();
        let verdict = match BETTER.iter().find(|(known, _)| *known == name) {
            Some((_, better)) => better,
            None if name.ends_with("wrong-secret") => "cannot-verify",
            None => ["intact", "findings"][usize::from(theirs != 0)],
        };
        if report["verdict"] != verdict {
            wrong.push(format!(
                "{name}: expected {verdict}, found {}: {}",
                report["verdict"], report["diagnosis"]
            ));
        }
        // The state row beside the rows is found by itself, and can be named; without it, what it would tell is not told.
        let state = path.join("state.json").to_str().unwrap().to_owned();
        std::fs::create_dir_all(world.path("alone")).unwrap();
        world.write("alone/rows.jsonl", std::fs::read(path.join("rows.jsonl")).unwrap());
        world.write("alone/rows.csv", csv(&read_rows(&path.join("rows.jsonl"))));
        let named: Vec<String> = more.iter().cloned().chain(["--state".into(), state]).collect();
        for (input, more) in [
            (path.join("rows.jsonl"), &more),
            (world.path("alone/rows.jsonl"), &named),
            (world.path("alone/rows.csv"), &named),
        ] {
            let same = verify(&world, &input, "z4j", more);
            if found(&same) != found(&report) || same["verdict"] != report["verdict"] {
                wrong.push(format!(
                    "{name} from {}: {:?} {}",
                    input.display(),
                    found(&same),
                    same["verdict"]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > Z4J.len());
    let rows = world.path("alone/rows.jsonl").to_str().unwrap().to_owned();
    for (more, kind) in [
        (["--state", "nowhere.json"], ErrorKind::NotFound),
        (["--companion", "nothing=alone/rows.jsonl"], ErrorKind::InvalidInput),
        (["--companion", "audit_chain_state=alone/rows.csv"], ErrorKind::Malformed),
    ] {
        let mut arguments = vec!["chain", "verify", rows.as_str(), "--format", "z4j"];
        arguments.extend(more);
        world.fails(kind, arguments);
    }
}

#[test]
fn an_honest_prune_of_z4j_proves_what_is_left_with_the_earlier_rows() {
    let test = "an_honest_prune_of_z4j_proves_what_is_left_with_the_earlier_rows";
    let Some(folder) = vectors(test, "z4j") else { return };
    let world = World::new();
    let env: Value =
        serde_json::from_slice(&std::fs::read(folder.join("v2-pruned/EXPECTED.json")).unwrap()).unwrap();
    world.write("key", env["runs"][0]["env"]["Z4J_AUDIT_CHAIN_SECRET"].as_str().unwrap());
    let at = |case: &str| folder.join(case).join("z4j.db").to_str().unwrap().to_owned();
    let key = ["--secret", "Z4J_AUDIT_CHAIN_SECRET=file:key"];
    let earlier = at("v2-valid");
    world.write(
        "checkpoint",
        world.run([&["chain", "checkpoint", &earlier, "--format", "z4j"][..], &key].concat()).good().out,
    );
    let judge = |case: &str, more: &[&str]| {
        let more: Vec<String> = key.iter().chain(more).map(|text| (*text).to_owned()).collect();
        verify(&world, Path::new(&at(case)), "z4j", &more)
    };
    // With the checkpoint alone, what is left cannot be told; with the earlier rows it is proven, and the prune is a note.
    for (case, kept) in
        [("v2-pruned", "the other 46 are here, byte for byte"), ("v2-fully-pruned", "58 records")]
    {
        let report = judge(case, &["--checkpoint", "checkpoint", "--earlier", &earlier]);
        assert_eq!(report["verdict"], "intact", "{case}: {report:#}");
        let gap = report["notes"].as_array().unwrap().iter().find(|note| note["kind"] == "retention-gap");
        let explains = gap.unwrap()["explains"].as_str().unwrap();
        assert!(explains.contains(kept), "{case}: {explains}");
    }
    // Dishonest ones stay findings.
    for case in
        ["v2-pruned-boundary-row-restored", "v2-truncated-tail", "v2-deleted-middle", "v2-all-rows-deleted"]
    {
        let report = judge(case, &["--checkpoint", "checkpoint", "--earlier", &earlier]);
        assert_eq!(report["verdict"], "findings", "{case}: {report:#}");
    }
    let report = judge("v2-truncated-tail", &["--earlier", &earlier]);
    let named = report["findings"].as_array().unwrap().iter().find(|finding| finding["position"] == 56);
    assert_eq!(named.unwrap()["last"], 58, "{report:#}");
    // An earlier copy that is not the checkpoint's proves nothing.
    let report = judge("v2-valid", &["--checkpoint", "checkpoint", "--earlier", &at("v2-edited-action")]);
    assert!(found(&report).contains(&"beee checkpoint-mismatch".to_owned()), "{report:#}");
}

#[test]
fn every_case_of_agledger_has_the_outcome_and_the_names_that_it_should_have() {
    let test = "every_case_of_agledger_has_the_outcome_and_the_names_that_it_should_have";
    let Some(folder) = vectors(test, "agledger") else { return };
    let world = World::new();
    let mut wrong = Vec::new();
    let cases = cases(&folder);
    for (name, path, expected) in &cases {
        let expect = &expected["expect"];
        let mut runs = vec![(Vec::new(), &expect["without_anchor"])];
        for run in expect["with_options"].as_array().into_iter().flatten() {
            let mut more = Vec::new();
            for (option, flag) in [("trustAnchors", "--trust-anchor"), ("distrustedKeys", "--distrusted-key")]
            {
                for value in run["options"][option].as_array().into_iter().flatten() {
                    more.extend([flag.to_owned(), value.as_str().unwrap().to_owned()]);
                }
            }
            runs.push((more, run));
        }
        for (more, run) in runs {
            let dump = path.join("dump").to_str().unwrap().to_owned();
            let mut arguments = vec!["chain", "verify", &dump, "--format", "agledger"];
            arguments.extend(more.iter().map(String::as_str));
            if run["outcome"] == "unreadable" {
                world.fails(ErrorKind::Malformed, arguments);
                continue;
            }
            let report = verify(&world, &path.join("dump"), "agledger", &more);
            let names: BTreeSet<&str> = report["findings"]
                .as_array()
                .unwrap()
                .iter()
                .map(|finding| finding["explains"].as_str().unwrap().split(':').next().unwrap())
                .collect();
            let kinds: BTreeSet<&str> =
                run["kinds"].as_array().unwrap().iter().map(|kind| kind.as_str().unwrap()).collect();
            let outcome = if report["ok"] == true { "ok" } else { "findings" };
            let trust_fits = run.get("verdict").is_none_or(|verdict| *verdict == report["trust"]);
            if outcome != run["outcome"] || names != kinds || !trust_fits {
                wrong.push(format!(
                    "{name} {more:?}: expected {run}, found {outcome} {names:?} {}",
                    report["trust"]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() > 50);
}

/// A key that is distrusted counts for nothing; a registry travels as CSV and is compared after a restore.
#[test]
fn the_registry_of_agledger_is_printed_compared_and_a_key_of_it_distrusted() {
    let test = "the_registry_of_agledger_is_printed_compared_and_a_key_of_it_distrusted";
    let Some(folder) = vectors(test, "agledger") else { return };
    let world = World::new();
    let dump = |case: &str| folder.join(case).join("dump").to_str().unwrap().to_owned();
    let valid = dump("valid-rotation");
    let csv = world.run(["chain", "registry", &valid]).good().out;
    assert!(csv.starts_with("key_id,public_key,algorithm,status,activated_at,retired_at\n"), "{csv}");
    assert!(csv.contains(",retired,") && csv.contains("+00"), "{csv}");
    world.write("vault-public-keys.csv", &csv);
    let same = world.json(0, ["chain", "registry", &valid, "--compare", "vault-public-keys.csv"]);
    assert_eq!((&same["ok"], same["keys"].as_u64()), (&true.into(), Some(csv.lines().count() as u64 - 1)));
    world.write("short.csv", csv.lines().take(2).map(|line| line.to_owned() + "\n").collect::<String>());
    let run = world.run(["chain", "registry", &valid, "--compare", "short.csv"]).ends(1);
    assert!(run.out.starts_with("DIFFERS  ") && run.out.contains("was not there"), "{}", run.out);
    world.write("edited.csv", csv.replace(",retired,", ",active,"));
    let run = world.run(["chain", "registry", &valid, "--compare", "edited.csv"]).ends(1);
    assert!(run.out.contains("status: expected active, found retired"), "{}", run.out);
    world.fails(ErrorKind::NotFound, ["chain", "registry", &valid, "--compare", "nowhere.csv"]);
    world.write("other.csv", "a,b\n1,2\n");
    world.fails(ErrorKind::Malformed, ["chain", "registry", "other.csv"]);

    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder.join("valid-rotation/EXPECTED.json")).unwrap()).unwrap();
    let anchor = expected["expect"]["with_options"][0]["options"]["trustAnchors"][0].as_str().unwrap();
    let verify = ["chain", "verify", &valid, "--format", "agledger", "--trust-anchor", anchor];
    assert_eq!(world.json(0, verify)["trust"], "trusted");
    // An anchor that is distrusted is refused; a distrust from a time on is taken.
    let both = |key: &str| -> Vec<String> {
        verify.iter().chain(&["--distrusted-key", key]).map(|text| (*text).to_owned()).collect()
    };
    world.fails(ErrorKind::InvalidInput, both(anchor));
    let run = world.run(both(&format!("{anchor}@2099-01-01T00:00:00Z")));
    run.ends(0);
    world.fails(ErrorKind::KeyRejected, both("sha256:ab"));
}
