//! AegisAgent's own databases: what its job and its verifier said of them, and what must be said here.
//!
//! The cases are read where `ATTESTORE_VECTORS` is; those that it does not show are made from a copy of `valid`.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::{ErrorKind, World, vectors};

/// A finding: kind, chain, first and last position where it has them.
type Found<'a> = (&'a str, &'a str, Option<u64>);

/// Copies a case's database and returns a folder to run in.
fn case(folder: &Path, name: &str) -> World {
    let world = World::new();
    copy(&folder.join(name).join("aegis.db"), &world.path("aegis.db"));
    copy(&folder.join("valid/aegis.db"), &world.path("valid.db"));
    for format in ["aegisagent", "aegisagent-policy"] {
        let note = world.run(["chain", "checkpoint", "valid.db", "--format", format]).good().out;
        world.write(format!("{format}.checkpoint"), note);
    }
    world
}

/// Copies a read-only file so that it can be written.
fn copy(from: &Path, to: &Path) {
    std::fs::write(to, std::fs::read(from).unwrap()).unwrap();
}

/// Verifies and returns the report; the exit status fits the verdict.
fn verify(world: &World, format: &str, more: &[&str]) -> Value {
    let arguments = [&["chain", "verify", "aegis.db", "--format", format, "--json"][..], more].concat();
    let run = world.run(&arguments);
    let report = run.json();
    let status = match report["verdict"].as_str().unwrap() {
        "intact" => 0,
        "findings" => 1,
        _ => 6,
    };
    assert_eq!(run.status, status, "{report}");
    assert_eq!(report["ok"], status == 0);
    let text =
        world.run(["chain", "verify", "aegis.db", "--format", format].iter().chain(more)).ends(status).out;
    assert!(text.starts_with(["INTACT", "FINDINGS"][usize::from(status == 1)]), "{text}");
    report
}

/// Asserts that exactly these findings are there (spans by their first position).
#[track_caller]
fn finds(report: &Value, expected: &[Found<'_>]) {
    let found: Vec<_> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            (
                finding["kind"].as_str().unwrap(),
                finding["chain"].as_str().unwrap(),
                finding["position"].as_u64(),
            )
        })
        .collect();
    assert_eq!(found, expected, "{report:#}");
}

#[track_caller]
fn has(report: &Value, kind: &str, chain: &str) {
    let findings = report["findings"].as_array().unwrap();
    assert!(
        findings.iter().any(|finding| finding["kind"] == kind && finding["chain"] == chain),
        "{kind} {chain}: {report:#}"
    );
}

const A: &str = "tenant_alpha";
const B: &str = "tenant_beta";
const RECEIPTS: &[&str] = &["--checkpoint", "aegisagent.checkpoint"];
const POLICY: &[&str] = &["--checkpoint", "aegisagent-policy.checkpoint"];

fn folder(test: &str) -> Option<PathBuf> {
    vectors(test, "aegisagent")
}

#[test]
fn shown_cases_are_judged_at_their_records() {
    let Some(folder) = folder("shown_cases_are_judged_at_their_records") else { return };
    for name in [
        "valid",
        "encryption-key-set",
        "migration-behind",
        "migration-checksum-changed",
        "migration-unknown-newer",
        "schema-newer",
        "wrong-key",
    ] {
        let world = case(&folder, name);
        for (format, checkpoint) in [("aegisagent", RECEIPTS), ("aegisagent-policy", POLICY)] {
            assert_eq!(verify(&world, format, &[])["verdict"], "intact", "{name}");
            assert_eq!(verify(&world, format, checkpoint)["verdict"], "intact", "{name}");
        }
    }
    // Their job cries break; the order of insertion is whole. Against a checkpoint, the column outside the hash shows.
    let world = case(&folder, "clock-step-back");
    let report = verify(&world, "aegisagent", &[]);
    assert_eq!(report["verdict"], "intact");
    let note =
        report["notes"].as_array().unwrap().iter().find(|note| note["kind"] == "clock-step-back").unwrap();
    assert_eq!((&note["chain"], &note["position"]), (&A.into(), &26.into()));
    has(&verify(&world, "aegisagent", RECEIPTS), "unhashed-edited", A);

    let world = case(&folder, "edited-row");
    finds(&verify(&world, "aegisagent", &[]), &[("edited", A, Some(13))]);
    has(&verify(&world, "aegisagent", RECEIPTS), "edited", A);
    let world = case(&folder, "bad-signature");
    finds(&verify(&world, "aegisagent", &[]), &[("signature-invalid", A, Some(21))]);
    let world = case(&folder, "policylog-missing");
    assert_eq!(verify(&world, "aegisagent", RECEIPTS)["verdict"], "intact");
    let report = verify(&world, "aegisagent-policy", &[]);
    finds(&report, &[("missing", A, Some(4))]);
    has(&verify(&world, "aegisagent-policy", POLICY), "missing", A);
    // The record behind the gap, at the place where the gap is.
    let world = case(&folder, "missing-middle");
    finds(&verify(&world, "aegisagent", &[]), &[("missing", A, Some(15))]);
    finds(&verify(&world, "aegisagent", RECEIPTS), &[("missing", A, Some(15))]);
}

#[test]
fn what_their_verifier_does_not_see_is_found_with_a_checkpoint() {
    let Some(folder) = folder("what_their_verifier_does_not_see_is_found_with_a_checkpoint") else { return };
    let world = case(&folder, "truncated-tail");
    assert_eq!(verify(&world, "aegisagent", &[])["verdict"], "intact");
    has(&verify(&world, "aegisagent", RECEIPTS), "truncated", A);
    let world = case(&folder, "missing-tenant");
    assert_eq!(verify(&world, "aegisagent", &[])["verdict"], "intact");
    let gone = if verify(&world, "aegisagent", &[])["chains"][0]["id"] == A { B } else { A };
    has(&verify(&world, "aegisagent", RECEIPTS), "missing-chain", gone);
    let world = case(&folder, "rechained-from-edit");
    let report = verify(&world, "aegisagent", &[]);
    has(&report, "signature-invalid", A);
    assert_eq!(report["findings"][0]["position"], 13);
    has(&verify(&world, "aegisagent", RECEIPTS), "rewritten", A);
}

#[test]
fn a_signer_that_is_not_trusted_is_unknown_and_not_tampering() {
    let Some(folder) = folder("a_signer_that_is_not_trusted_is_unknown_and_not_tampering") else { return };
    let world = case(&folder, "wrong-key");
    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder.join("wrong-key/EXPECTED.json")).unwrap()).unwrap();
    let trusted = expected["trusted_signer_public_keys"][0].as_str().unwrap();
    let report = verify(&world, "aegisagent", &["--public-key", trusted]);
    for finding in report["findings"].as_array().unwrap() {
        assert_eq!((&finding["kind"], &finding["chain"]), (&"unknown-key".into(), &A.into()));
    }
    assert_eq!(report["findings"][0]["position"], 41, "{report:#}");
    let all: Value =
        serde_json::from_slice(&std::fs::read(folder.join("valid/EXPECTED.json")).unwrap()).unwrap();
    let keys = &all["trusted_signer_public_keys"];
    let both = ["--public-key", keys[0].as_str().unwrap(), "--public-key", keys[1].as_str().unwrap()];
    assert_eq!(verify(&world, "aegisagent", &both)["verdict"], "intact");
}

/// Cases that are not shown, made from `valid`.
#[test]
fn cases_made_from_the_valid_one_are_found() {
    let Some(folder) = folder("cases_made_from_the_valid_one_are_found") else { return };
    let made = |sql: &str| {
        let world = case(&folder, "valid");
        let connection = Connection::open(world.path("aegis.db")).unwrap();
        let triggers: Vec<String> = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for trigger in triggers {
            connection.execute_batch(&format!("DROP TRIGGER \"{trigger}\"")).unwrap();
        }
        connection.execute_batch(&format!("PRAGMA foreign_keys=OFF; {sql}")).unwrap();
        drop(connection);
        world
    };
    let nth = |n: u32| {
        format!(
            "(SELECT rowid FROM action_receipts WHERE tenant_id='{A}' ORDER BY rowid LIMIT 1 OFFSET {})",
            n - 1
        )
    };

    // edited-unhashed-columns: nothing in the chain covers them.
    let world = made(&format!("UPDATE action_receipts SET decision_id = 'other' WHERE rowid = {}", nth(7)));
    assert_eq!(verify(&world, "aegisagent", &[])["verdict"], "intact");
    has(&verify(&world, "aegisagent", RECEIPTS), "unhashed-edited", A);
    // missing-head.
    let world = made(&format!("DELETE FROM action_receipts WHERE rowid = {}", nth(1)));
    finds(&verify(&world, "aegisagent", &[]), &[("missing-head", A, Some(1))]);
    // signature-stripped: AegisAgent writes unsigned rows too, so only the count of an earlier time shows it.
    let world =
        made("UPDATE action_receipts SET signature = NULL, signer_public_key = NULL, signer_key_id = NULL");
    assert_eq!(verify(&world, "aegisagent", &[])["verdict"], "intact");
    has(&verify(&world, "aegisagent", RECEIPTS), "stripped", A);
    // tenant-relabelled.
    let world =
        made(&format!("UPDATE action_receipts SET tenant_id = 'tenant_gamma' WHERE tenant_id = '{B}'"));
    assert_eq!(verify(&world, "aegisagent", &[])["verdict"], "intact");
    has(&verify(&world, "aegisagent", RECEIPTS), "missing-chain", B);
    // policylog-edited.
    let world = made(
        "UPDATE policy_audit_log SET diff_summary = 'nothing' WHERE rowid = (SELECT rowid FROM policy_audit_log ORDER BY rowid LIMIT 1 OFFSET 2)",
    );
    finds(&verify(&world, "aegisagent-policy", &[]), &[("edited", A, Some(3))]);
    assert_eq!(verify(&world, "aegisagent", RECEIPTS)["verdict"], "intact");
    // reordered: rows 20 and 21 trade places.
    let (one, two) = (nth(20), nth(21));
    let world = made(&format!(
        "CREATE TEMP TABLE r AS SELECT {one} AS a, {two} AS b; \
         UPDATE action_receipts SET rowid = -1 WHERE rowid = (SELECT a FROM r); \
         UPDATE action_receipts SET rowid = (SELECT a FROM r) WHERE rowid = (SELECT b FROM r); \
         UPDATE action_receipts SET rowid = (SELECT b FROM r) WHERE rowid = -1"
    ));
    has(&verify(&world, "aegisagent", &[]), "reordered", A);
    // The same record again.
    let world = made(&format!(
        "CREATE TEMP TABLE r AS SELECT * FROM action_receipts WHERE rowid = {}; UPDATE r SET id = 'again'; INSERT INTO action_receipts SELECT * FROM r",
        nth(50)
    ));
    assert_eq!(verify(&world, "aegisagent", &[])["verdict"], "findings");
}

/// Backs a case up and restores it with what the deployed program knows.
#[test]
fn a_schema_that_the_program_does_not_know_is_refused_before_anything_changes() {
    let test = "a_schema_that_the_program_does_not_know_is_refused_before_anything_changes";
    let Some(folder) = folder(test) else { return };
    let restore = |name: &str, tamper: Option<&str>, more: &[&str]| {
        let world = case(&folder, name);
        if let Some(sql) = tamper {
            world.sql("aegis.db", sql);
        }
        world.run(["init", "repo"]).good();
        world.run(["backup", "aegis.db", "--to", "repo"]).good();
        world.write("live.db", world.read("valid.db"));
        let before = world.read("live.db");
        let arguments = [&["restore", "repo", "latest", "--to", "live.db"][..], more].concat();
        let run = world.run(&arguments);
        if run.status != 0 {
            assert_eq!(world.read("live.db"), before, "{name}");
        }
        run
    };
    let run = restore("schema-newer", None, &["--schema-version", "1"]).ends(3);
    assert!(run.err.contains("newer") && run.err.contains("--allow-newer"), "{}", run.err);
    restore("schema-newer", None, &["--schema-version", "1", "--allow-newer"]).ends(0);
    restore("schema-newer", None, &["--schema-version", "2"]).ends(0);
    restore("valid", None, &["--schema-version", "1"]).ends(0);

    // Nothing is said of the program: the database at the target speaks for it.
    for (name, tamper, word, allow) in [
        ("schema-newer", None, "newer (schema_meta)", "--allow-newer"),
        ("migration-unknown-newer", None, "migration 9999", "--allow-newer"),
        ("migration-checksum-changed", None, "migration 1 has another checksum", "--allow-changed"),
        (
            "valid",
            Some("UPDATE _sqlx_migrations SET success = 0 WHERE version = 31"),
            "migration 31 did not run to its end",
            "--allow-dirty",
        ),
        (
            "valid",
            Some(
                "INSERT INTO _sqlx_migrations SELECT 32, 'next', installed_on, 0, checksum, 1 FROM _sqlx_migrations WHERE version = 31",
            ),
            "migration 32 did not run to its end",
            "--allow-dirty",
        ),
    ] {
        let run = restore(name, tamper, &[]).ends(3);
        assert!(run.err.contains(word) && run.err.contains(allow), "{name}: {}", run.err);
        let run = restore(name, tamper, &["--plan"]).ends(3);
        assert!(run.err.contains(word), "{name}: {}", run.err);
        if !tamper.is_some_and(|sql| sql.starts_with("INSERT")) {
            restore(name, tamper, &[allow]).ends(0);
        }
    }
    let run = restore("valid", None, &[]).ends(0);
    assert!(run.out.contains("schema (_sqlx_migrations): equal: the same 31 migrations"), "{}", run.out);
    let run = restore("migration-behind", None, &[]).ends(0);
    assert!(run.out.contains("older: the program has 2 migrations more"), "{}", run.out);
    assert!(
        run.out.matches("what was committed").count() == 2,
        "what is missing, and where it is: {}",
        run.out
    );
}

#[test]
fn a_stale_wal_is_moved_aside_and_the_restored_database_is_sound() {
    let Some(folder) = folder("a_stale_wal_is_moved_aside_and_the_restored_database_is_sound") else {
        return;
    };
    let stale = folder.join("restore-stale-wal");
    let world = World::new();
    copy(&stale.join("backup.db"), &world.path("backup.db"));
    copy(&stale.join("aegis.db"), &world.path("aegis.db"));
    copy(&stale.join("aegis.db-wal"), &world.path("aegis.db-wal"));
    world.run(["init", "repo"]).good();
    world.run(["backup", "backup.db", "--to", "repo", "--chain", "aegisagent"]).good();
    let restored = world.json(0, ["restore", "repo", "latest", "--to", "aegis.db"]);
    assert!(!restored["set_aside"].as_array().unwrap().is_empty(), "{restored}");
    assert!(!world.path("aegis.db-wal").exists());
    let connection = world.open("aegis.db");
    let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    let policies: i64 = connection.query_row("SELECT count(*) FROM policies", [], |row| row.get(0)).unwrap();
    assert_eq!((sound.as_str(), policies), ("ok", 3));
}

#[test]
fn a_file_of_the_wrong_kind_is_no_chain() {
    let Some(folder) = folder("a_file_of_the_wrong_kind_is_no_chain") else { return };
    let world = World::new();
    copy(&folder.join("cli-json/raw.json"), &world.path("raw.json"));
    copy(&folder.join("valid/aegis.db"), &world.path("aegis.db"));
    world.fails(ErrorKind::Malformed, ["chain", "verify", "raw.json", "--format", "native"]);
    world.fails(ErrorKind::NotFound, ["chain", "verify", "aegis.db", "--format", "native"]);
}
