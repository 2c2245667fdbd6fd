//! Profiles on the command line: every input, checkpoints, backups; and the shipped profiles of the four systems
//! against the built-in formats over all vectors.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::{ErrorKind, Run, World, vectors};

const DOORS: &str = r#"profile = 1
name = "doors"
chain = ["house"]
number = "seq"
id = "seq"
integers = ["level"]
[form]
kind = "joined"
separator = "|"
fields = ["prev", "house", "seq", "who", "level"]
[hash]
column = "hash"
algorithm = "sha256"
[link]
column = "prev"
"#;

/// A world with the same rows as a table, CSV, NDJSON, a JSON array, and a profile.
fn doors() -> World {
    let world = World::new();
    world.write("doors.toml", DOORS);
    let (mut csv, mut ndjson, mut sql) =
        ("seq,house,who,level,prev,hash\n".to_owned(), String::new(), String::new());
    for house in ["north", "south"] {
        let mut prev = String::new();
        for seq in 1..=6 {
            let who = ["ann", "bo,b", "zoé"][seq % 3];
            let form = format!("{prev}|{house}|{seq}|{who}|{}", seq * 10);
            let hash = hex::encode(Sha256::digest(form));
            csv += &format!("{seq},{house},\"{who}\",{},{prev},{hash}\n", seq * 10);
            let (json_prev, sql_prev) = match prev.as_str() {
                "" => ("null".to_owned(), "NULL".to_owned()),
                prev => (format!("\"{prev}\""), format!("'{prev}'")),
            };
            ndjson += &format!(
                "{{\"seq\":{seq},\"house\":\"{house}\",\"who\":\"{who}\",\"level\":{},\"prev\":{json_prev},\"hash\":\"{hash}\"}}\n",
                seq * 10
            );
            sql += &format!(
                "INSERT INTO doors VALUES ({seq}, '{house}', '{who}', {}, {sql_prev}, '{hash}');",
                seq * 10
            );
            prev = hash;
        }
    }
    world.write("doors.csv", csv);
    world.write("doors.json", format!("[{}]", ndjson.trim_end().replace('\n', ",")));
    world.write("doors.ndjson", ndjson);
    let create =
        "CREATE TABLE doors(seq INTEGER, house TEXT, who TEXT, level INTEGER, prev TEXT, hash TEXT);";
    world.sql("doors.db", &format!("{create}{sql}"));
    world
}

/// Runs `chain verify --json` on an input, standard input where it is `-`.
fn verify(world: &World, input: &str, format: &str, more: &[&str]) -> Value {
    let arguments = [&["chain", "verify", input, "--format", format, "--json"][..], more].concat();
    let mut command = world.command(&arguments);
    if input == "-" {
        command.stdin(Stdio::from(std::fs::File::open(world.path("doors.ndjson")).unwrap()));
    }
    let run = Run::from(command.output().unwrap());
    let report = run.json();
    let expected =
        ["intact", "findings"].iter().position(|verdict| report["verdict"] == *verdict).unwrap_or(6);
    assert_eq!(run.status, i32::try_from(expected).unwrap(), "{report:#}");
    report
}

/// The findings of a report: `chain kind@first-last`.
fn kinds(report: &Value) -> Vec<String> {
    let number =
        |value: &Value, sign: &str| value.as_u64().map(|at| format!("{sign}{at}")).unwrap_or_default();
    let text = |finding: &Value| {
        format!(
            "{} {}{}{}",
            finding["chain"].as_str().unwrap(),
            finding["kind"].as_str().unwrap(),
            number(&finding["position"], "@"),
            number(&finding["last"], "-")
        )
    };
    report["findings"].as_array().unwrap().iter().map(text).collect()
}

const INPUTS: [&str; 5] = ["doors.db", "doors.ndjson", "doors.csv", "doors.json", "-"];

#[test]
fn a_profile_reads_every_kind_of_input_and_finds_the_same() {
    let world = doors();
    for input in INPUTS {
        let report = verify(&world, input, "doors.toml", &[]);
        assert_eq!((&report["records"], &report["format"]), (&12.into(), &"doors".into()), "{input}");
        if input != "-" {
            let note = world.run(["chain", "checkpoint", input, "--format", "doors.toml"]).good().out;
            world.write(format!("{input}.checkpoint"), note);
        }
    }
    // Text and integers are told apart alike in all of them, so one checkpoint serves for all.
    for input in INPUTS {
        verify(&world, input, "doors.toml", &["--checkpoint", "doors.csv.checkpoint"]);
    }
    world.sql("doors.db", "UPDATE doors SET who = 'eve' WHERE house = 'south' AND seq = 4");
    for ending in ["ndjson", "csv", "json"] {
        let file = format!("doors.{ending}");
        let text = String::from_utf8(world.read(&file)).unwrap();
        let south = text.match_indices("south").nth(3).unwrap().0;
        let (before, after) = text.split_at(south);
        world.write(
            &file,
            format!("{before}{}", after.replacen("bo,b", "eve", 1).replacen("\"eve\"\"", "\"eve\"", 1)),
        );
    }
    for input in INPUTS {
        for checkpoint in [&[][..], &["--checkpoint", "doors.db.checkpoint"]] {
            let report = verify(&world, input, "doors.toml", checkpoint);
            assert_eq!(kinds(&report), ["south edited@4"], "{input}");
            let explains = report["findings"][0]["explains"].as_str().unwrap();
            assert!(explains.ends_with("|south|4|eve|40\""), "shows what was hashed: {explains}");
            assert_eq!(report["diagnosis"], "edited rows: one record is not as written");
        }
    }
    world.sql("doors.db", "DELETE FROM doors WHERE house = 'north' AND seq > 4; UPDATE doors SET house = 'west' WHERE house = 'south'");
    let report = verify(&world, "doors.db", "doors.toml", &["--checkpoint", "doors.csv.checkpoint"]);
    assert!(kinds(&report).iter().any(|kind| kind.starts_with("north truncated")), "{report:#}");
    assert!(kinds(&report).iter().any(|kind| kind == "south missing-chain"), "{report:#}");
}

#[test]
fn a_backup_of_a_profiled_chain_verifies_again_without_the_profile() {
    let world = doors();
    world.sql("doors.db", "ALTER TABLE doors RENAME TO \"old doors\"");
    world.run(["init", "repo"]).good();
    let backup = ["backup", "doors.db", "--to", "repo", "--chain", "doors.toml:old doors", "--name"];
    let made = world.json(0, backup.iter().chain(&["one"]));
    assert_eq!((&made["chains"][0]["format"], &made["chains"][0]["records"]), (&"doors".into(), &12.into()));
    std::fs::rename(world.path("doors.toml"), world.path("gone")).unwrap();
    let restored = world.json(0, ["restore", "repo", "one", "--to", "back.db"]);
    assert!(restored.to_string().contains("intact: 12 records, as in the manifest"), "{restored:#}");
    let verified = world.run(["verify", "repo", "one", "--level", "contents"]).good();
    assert!(verified.out.contains("12 records"), "{}", verified.out);
    std::fs::rename(world.path("gone"), world.path("doors.toml")).unwrap();
    // The backup after it is held against where the chain stood.
    world.sql("doors.db", "DELETE FROM \"old doors\" WHERE house = 'south' AND seq = 6");
    let made = world.json(1, backup.iter().chain(&["two"]));
    assert_eq!(made["chains"][0]["extends"]["ok"], false, "{made:#}");
}

#[test]
fn a_profile_that_is_wrong_or_does_not_fit_is_refused_with_the_line() {
    let world = doors();
    world.write("typo.toml", DOORS.replace("separator", "seperator"));
    world.write("latin.toml", b"profile = 1\nname = \"\xe9\"\n");
    world.write("long.toml", format!("# {}\n{DOORS}", "x".repeat(1 << 16)));
    world.write("other.toml", DOORS.replace("\"who\"", "\"whom\""));
    for (arguments, said) in [
        (
            ["doors.csv", "typo.toml"],
            "typo.toml: line 9: unknown key seperator in [form]: did you mean separator?",
        ),
        (["doors.csv", "latin.toml"], "latin.toml: line 2: not UTF-8"),
        (["doors.csv", "long.toml"], "long.toml: line 1: a profile has at most 65536 bytes"),
        (["doors.csv", "other.toml"], "no column whom; found seq, house, who"),
    ] {
        for verb in ["verify", "checkpoint"] {
            let found =
                world.fails(ErrorKind::Malformed, ["chain", verb, arguments[0], "--format", arguments[1]]);
            assert!(found.contains(said), "{found}");
        }
    }
    world.fails(ErrorKind::NotFound, ["chain", "verify", "doors.csv", "--format", "nowhere.toml"]);
    world.run(["init", "repo"]).good();
    world.fails(ErrorKind::Malformed, ["backup", "doors.db", "--to", "repo", "--chain", "typo.toml"]);
    assert_eq!(world.json(0, ["list", "repo"])["backups"], serde_json::json!([]));
}

/// Returns the path of a shipped profile.
fn shipped(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../docs/chains/profiles/{name}.toml"))
        .to_str()
        .unwrap()
        .to_owned()
}

/// The folders of a system's cases that have this file.
fn cases(folder: &Path, file: &str) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path.join(file)));
    let mut cases: Vec<_> = named.filter(|(_, path)| path.exists()).collect();
    cases.sort();
    cases
}

/// Verifies a case by a profile and by the built-in format, with these secrets.
fn both(input: &Path, profile: &str, format: &str, secrets: &[(&str, &str)]) -> (Value, Value) {
    let world = World::new();
    let mut more: Vec<String> = Vec::new();
    for (at, (name, value)) in secrets.iter().enumerate() {
        world.write(format!("secret-{at}"), value);
        more.extend(["--secret".into(), format!("{name}=file:secret-{at}")]);
    }
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let mut path = input.to_str().unwrap().to_owned();
    if input.extension().is_some_and(|ending| ending == "db") {
        world.write("case.db", std::fs::read(input).unwrap());
        path = "case.db".into();
    }
    (verify(&world, &path, &shipped(profile), &more), verify(&world, &path, format, &more))
}

#[test]
fn the_shipped_profile_of_caracal_finds_what_the_built_in_format_finds() {
    let Some(folder) =
        vectors("the_shipped_profile_of_caracal_finds_what_the_built_in_format_finds", "caracal")
    else {
        return;
    };
    for (case, rows) in cases(&folder, "rows.ndjson") {
        // A respelt copy is what a profile does not know.
        if case.starts_with("admin-") || case.starts_with("lossy-") {
            continue;
        }
        for secrets in [
            &[][..],
            &[("AUDIT_HMAC_KEY", "a1a1a1a100112233445566778899aabbccddeeff0123456789abcdef01234567")],
        ] {
            let (ours, theirs) = both(&rows, "caracal", "caracal", secrets);
            assert_eq!(kinds(&ours), kinds(&theirs), "{case}");
            assert_eq!(ours["chains"].as_array().unwrap().len(), theirs["chains"].as_array().unwrap().len());
            for (ours, theirs) in
                ours["chains"].as_array().unwrap().iter().zip(theirs["chains"].as_array().unwrap())
            {
                assert_eq!((&ours["head"], &ours["root"]), (&theirs["head"], &theirs["root"]), "{case}");
            }
        }
    }
}

#[test]
fn the_shipped_profiles_of_aegisagent_find_what_the_built_in_formats_find() {
    let test = "the_shipped_profiles_of_aegisagent_find_what_the_built_in_formats_find";
    let Some(folder) = vectors(test, "aegisagent") else { return };
    for (case, database) in cases(&folder, "aegis.db") {
        for name in ["aegisagent", "aegisagent-policy"] {
            let (ours, theirs) = both(&database, name, name, &[]);
            assert_eq!(kinds(&ours), kinds(&theirs), "{case}");
            assert_eq!(ours["verdict"], theirs["verdict"], "{case}");
        }
    }
}

/// What only the built-in format knows: other spellings of addresses, the row version; and frozen rows and prune boundaries.
const Z4J_KNOWS: &[&str] = &["v2-accepted-ip-text", "v2-hmac-version-3", "v2-ipv4mapped-signed-on-py313"];

#[test]
fn the_shipped_profiles_of_z4j_find_what_the_built_in_format_finds() {
    let Some(folder) = vectors("the_shipped_profiles_of_z4j_find_what_the_built_in_format_finds", "z4j")
    else {
        return;
    };
    for (case, rows) in cases(&folder, "rows.jsonl") {
        if Z4J_KNOWS.contains(&case.as_str()) || case.contains("upgraded") || case.contains("pruned") {
            continue;
        }
        let expected = std::fs::read(rows.with_file_name("EXPECTED.json")).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let env = &expected["runs"][0]["env"];
        let (profile, secret, previous) = match case.split_once('-').unwrap().0 {
            "v1" => ("z4j-b", "Z4J_SECRET", "Z4J_PREVIOUS_SECRETS"),
            "v2" => ("z4j-c", "Z4J_AUDIT_CHAIN_SECRET", "Z4J_AUDIT_CHAIN_PREVIOUS_SECRETS"),
            _ => ("z4j-a", "Z4J_SECRET", "Z4J_PREVIOUS_SECRETS"),
        };
        let lists = env[previous].as_str().unwrap_or("").split(',').filter(|value| !value.is_empty());
        let values: Vec<&str> = env[secret].as_str().into_iter().chain(lists).collect();
        let secrets: Vec<(&str, &str)> = values.iter().map(|value| (secret, *value)).collect();
        // Alone: the built-in format would find the state beside them, of which a profile knows nothing.
        let alone = World::new();
        alone.write("rows.jsonl", std::fs::read(&rows).unwrap());
        let (ours, theirs) = both(&alone.path("rows.jsonl"), profile, "z4j", &secrets);
        // Metadata that is JSON but no object is hashed by a profile as it stands; a changed HMAC also breaks the link.
        let places = |report: &Value| -> Vec<u64> {
            let findings = report["findings"].as_array().unwrap().iter();
            findings.map(|finding| finding["position"].as_u64().unwrap()).collect()
        };
        assert_eq!(ours["verdict"], theirs["verdict"], "{case}: {ours:#}");
        if case == "v2-edited-rowhmac" {
            assert_eq!((places(&ours), places(&theirs)), (vec![5, 6], vec![5]));
        } else {
            assert_eq!(places(&ours), places(&theirs), "{case}: {ours:#}");
        }
    }
}

#[test]
fn the_shipped_profile_of_agledger_finds_every_envelope_and_link_that_does_not_fit() {
    let test = "the_shipped_profile_of_agledger_finds_every_envelope_and_link_that_does_not_fit";
    let Some(folder) = vectors(test, "agledger") else { return };
    let (mut found, mut silent) = (0, 0);
    for (case, rows) in cases(&folder, "dump/audit_vault.ndjson") {
        let expected: Value =
            serde_json::from_slice(&std::fs::read(folder.join(&case).join("EXPECTED.json")).unwrap())
                .unwrap();
        let expected = &expected["expect"]["without_anchor"];
        let names = expected["kinds"].to_string();
        let run = World::new().run([
            "chain",
            "verify",
            rows.to_str().unwrap(),
            "--format",
            &shipped("agledger"),
            "--json",
        ]);
        let must = ["CHAIN_LINK_BROKEN", "CHAIN_HASH_MISMATCH", "CHAIN_POSITION_GAP"];
        // A number in text is read as the number; the built-in format keeps the types apart.
        let must = must.iter().any(|name| names.contains(name)) && case != "chain-position-string";
        match run.status {
            0 => assert!(!must, "{case}"),
            1 => assert_ne!(expected["outcome"], "ok", "{case}: {}", run.out),
            2 => assert_eq!(expected["outcome"], "unreadable", "{case}: {}", run.err),
            other => panic!("{case}: {other}"),
        }
        found += u32::from(must);
        silent += u32::from(run.status == 0 && expected["outcome"] == "ok");
    }
    assert!(found >= 8 && silent >= 20, "{found} {silent}");
}
