//! Native chains written, erased from and restored through the command line.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{ErrorKind, Run, World};

/// Runs with standard input.
fn piped(world: &World, input: &str, arguments: &[&str]) -> Run {
    let mut child = world
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses before it reads closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap().into()
}

fn lines(from: usize, count: usize) -> String {
    (from..from + count)
        .map(|n| format!("{{\"event\":\"login\",\"n\":{n},\"user\":{{\"email\":\"p{n}@example.com\",\"name\":\"Person {n}\"}}}}\n"))
        .collect()
}

/// A keyed chain `people` of `count` records with personal values in `app.db`; `backup.key`, `other.key` and `repo`.
fn world(count: usize) -> World {
    let world = World::new();
    world.write("chain.secret", "0123456789abcdef0123456789abcdef");
    let made = piped(
        &world,
        &lines(1, count),
        &[
            "chain",
            "append",
            "app.db",
            "--create",
            "--chain",
            "people",
            "--secret",
            "K=file:chain.secret",
            "--personal",
            "/user/email",
            "--personal",
            "/user/name",
            "--json",
        ],
    );
    let made = made.ends(0).json();
    assert_eq!(
        (made["records"].as_u64(), made["last"]["seq"].as_u64()),
        (Some(count as u64), Some(count as u64))
    );
    world.run(["keygen", "--out", "backup.key"]).good();
    world.run(["keygen", "--out", "other.key"]).good();
    world.run(["init", "repo"]).good();
    world
}

fn grow(world: &World, from: usize, count: usize) {
    let append = [
        "chain",
        "append",
        "app.db",
        "--chain",
        "people",
        "--secret",
        "K=file:chain.secret",
        "--personal",
        "/user/email",
    ];
    piped(world, &lines(from, count), &append).good();
}

fn back_up(world: &World, name: &str) {
    world
        .run([
            "backup",
            "app.db",
            "--to",
            "repo",
            "--chain",
            "native",
            "--secret",
            "K=file:chain.secret",
            "--sign-with",
            "backup.key",
            "--name",
            name,
        ])
        .good();
}

fn checkpoint(world: &World, name: &str) {
    let note = world.run([
        "chain",
        "checkpoint",
        "app.db",
        "--format",
        "native",
        "--secret",
        "K=file:chain.secret",
        "--sign-with",
        "backup.key",
    ]);
    world.write(name, note.good().out);
}

fn restore(world: &World, id: &str) -> Value {
    world.json(
        0,
        [
            "restore",
            "repo",
            id,
            "--to",
            "app.db",
            "--secret",
            "K=file:chain.secret",
            "--sign-with",
            "backup.key",
            "--public-key",
            "backup.key.pub",
            "--by",
            "op@example.com",
        ],
    )
}

fn verify(world: &World, status: i32, more: &[&str]) -> Value {
    let mut arguments =
        vec!["chain", "verify", "app.db", "--format", "native", "--secret", "K=file:chain.secret"];
    arguments.extend(more);
    world.json(status, arguments)
}

fn notes<'a>(report: &'a Value, kind: &str) -> Vec<&'a str> {
    let notes = report["notes"].as_array().unwrap().iter();
    notes.filter(|note| note["kind"] == kind).map(|note| note["explains"].as_str().unwrap()).collect()
}

fn kinds(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["kind"].as_str().unwrap()).collect()
}

#[test]
fn an_outsider_verifies_against_a_signed_checkpoint_without_the_secret() {
    let world = world(20);
    checkpoint(&world, "then.checkpoint");
    grow(&world, 21, 5);
    let outsider = [
        "chain",
        "verify",
        "app.db",
        "--format",
        "native",
        "--checkpoint",
        "then.checkpoint",
        "--checkpoint-key",
        "backup.key.pub",
    ];
    // Rows after the checkpoint cannot be verified without the secret, and nothing more is said of them.
    let report = world.json(6, outsider);
    assert_eq!(kinds(&report), ["unknown-key"]);
    let finding = &report["findings"][0];
    assert_eq!((finding["position"].as_u64(), finding["last"].as_u64()), (Some(21), Some(25)), "{report}");
    // The rows that are in the signed tree are proven by it alone.
    checkpoint(&world, "then.checkpoint");
    let report = world.json(0, outsider);
    assert!(notes(&report, "not-checked")[0].contains("row for row those of the checkpoint"), "{report}");
    world.json(6, &outsider[..5]);
    // A row that was changed since: its own time, a column that is the service's own, a link.
    let rows = world.read("app.db");
    for change in [
        "UPDATE attestore_chain SET at = '2026-01-01T00:00:00.000000Z' WHERE seq = 7",
        "UPDATE attestore_chain SET body = 'x' WHERE seq = 20",
        "UPDATE attestore_chain SET hash = upper(hash) WHERE seq = 25",
        "DELETE FROM attestore_chain WHERE seq = 25",
    ] {
        world.sql("app.db", "DROP TRIGGER attestore_chain_no_update; DROP TRIGGER attestore_chain_no_delete");
        world.sql("app.db", change);
        let report = world.json(1, outsider);
        assert_eq!(report["verdict"], "findings", "{change}: {report}");
        let _ = std::fs::remove_file(world.path("app.db-wal"));
        world.write("app.db", &rows);
    }
    // Signed by another, it counts for nothing.
    let other = [&outsider[..8], &["other.key.pub"]].concat();
    let run = world.run(other);
    assert!([5, 6].contains(&run.status), "{run:?}");
}

#[test]
fn appending_refuses_what_would_break_the_chain() {
    let world = world(3);
    let append = |input: &str, more: &[&str]| {
        let mut arguments = vec!["chain", "append", "app.db", "--chain", "people", "--json"];
        arguments.extend(more);
        piped(&world, input, &arguments)
    };
    // No secret, another one, one that is too short.
    world.write("new.secret", "ffffffffffffffffffffffffffffffff");
    world.write("short.secret", "short");
    for secret in [&[][..], &["--secret", "K=file:new.secret"], &["--secret", "K=file:short.secret"]] {
        assert_eq!(append("{}\n", secret).ends(6).json_error()["code"], "ERR_KEY_REJECTED");
    }
    let good = &["--secret", "K=file:chain.secret"];
    let bad = append("{\"a\":1}\n\nnot json\n{\"b\":1}\n", good).ends(2).json_error();
    assert!(
        bad["message"].as_str().unwrap().contains("line 3")
            && bad["message"].as_str().unwrap().contains("1 records"),
        "{bad}"
    );
    let reserved = append("{\"kind\":\"attestore/chain/restore/v1\"}\n", good).ends(2).json_error();
    assert!(reserved["message"].as_str().unwrap().contains("line 1"), "{reserved}");
    append("{\"a\":{\"attestore/commitment/v1\":\"0\"}}\n", good).ends(2).json_error();
    assert_eq!(append("", good).ends(0).json()["records"], 0);
    // A new secret takes over on record, and both verify their span.
    let rotated =
        append("{}\n", &["--secret", "K=file:new.secret", "--secret", "K=file:chain.secret", "--rotate"])
            .ends(0)
            .json();
    assert_eq!((rotated["rotated"]["seq"].as_u64(), rotated["last"]["seq"].as_u64()), (Some(5), Some(6)));
    let report = verify(&world, 0, &["--secret", "K=file:new.secret"]);
    let spans = report["chains"][0]["verified_by"].as_array().unwrap();
    assert_eq!((spans.len(), spans[1]["from"].as_u64()), (2, Some(5)), "{report}");
    world.fails(ErrorKind::NotFound, ["chain", "append", "missing.db", "--chain", "a"]);
    world.fails(ErrorKind::InvalidName, ["chain", "append", "app.db", "--chain", "a", "--table", "sqlite_x"]);
    world.write("noise.db", vec![0xa5_u8; 8_192]);
    world.fails(ErrorKind::KeyRejected, ["chain", "append", "noise.db", "--chain", "a"]);
}

#[test]
fn values_are_erased_on_record_and_the_chain_verifies() {
    let world = world(10);
    back_up(&world, "one");
    checkpoint(&world, "before.checkpoint");
    let found = |bytes: &[u8]| {
        let held =
            [world.read("app.db"), std::fs::read(world.path("app.db-wal")).unwrap_or_default()].concat();
        held.windows(bytes.len()).any(|window| window == bytes)
    };
    assert!(found(b"p4@example.com"));
    let erase = [
        "chain",
        "erase",
        "app.db",
        "--record",
        "4",
        "--by",
        "dpo@example.com",
        "--reason",
        "request 4711",
        "--repo",
        "repo",
    ];
    world.fails(ErrorKind::KeyRejected, erase);
    let secret = ["--secret", "K=file:chain.secret"];
    let done = world.json(0, [&erase[..], &secret].concat());
    assert_eq!(done["erased"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&done["records"][0]["seq"], &done["scrubbed"], &done["backups"][0]),
        (&11.into(), &true.into(), &"one".into())
    );
    assert!(done["notes"][0].as_str().unwrap().contains("until they are pruned"), "{done}");
    assert!(!found(b"p4@example.com") && !found(b"Person 4\"") && found(b"p5@example.com"));
    let report = verify(&world, 0, &["--checkpoint", "before.checkpoint"]);
    let told = notes(&report, "erased");
    assert!(!told.is_empty());
    assert!(told.iter().any(|note| note.contains("dpo@example.com") && note.contains("4711")), "{report}");
    assert!(world.fails(ErrorKind::NotFound, [&erase[..], &secret].concat()).contains("record 4"));
    world.fails(ErrorKind::NotFound, [&erase[..4], &["99"], &erase[5..], &secret].concat());
    world.fails(ErrorKind::NotFound, [&erase[..], &secret, &["--field", "/nowhere"]].concat());
    world.fails(ErrorKind::InvalidInput, [&erase[..4], &["5", "--by", " "], &erase[7..], &secret].concat());
    // One field of another record; the rest of it stays.
    world.json(0, [&erase[..4], &["5"], &erase[5..], &secret, &["--field", "/user/email"]].concat());
    assert!(!found(b"p5@example.com") && found(b"Person 5\""));
    verify(&world, 0, &[]);
    // Removed without a record, or changed: a finding that names record and field.
    world.sql(
        "app.db",
        "DROP TRIGGER attestore_chain_values_no_delete; DROP TRIGGER attestore_chain_values_no_update;
         DELETE FROM attestore_chain_values WHERE seq = 7 AND pointer = '/user/name';
         UPDATE attestore_chain_values SET value = '\"x\"' WHERE seq = 8 AND pointer = '/user/email'",
    );
    let report = verify(&world, 1, &[]);
    assert_eq!(kinds(&report), ["state-mismatch", "edited"], "{report}");
    let said = |at: usize| {
        (
            report["findings"][at]["position"].as_u64().unwrap(),
            report["findings"][at]["explains"].as_str().unwrap(),
        )
    };
    assert!(said(0).0 == 7 && said(0).1.contains("/user/name"), "{report}");
    assert!(said(1).0 == 8 && said(1).1.contains("/user/email"), "{report}");
    // An export holds the commitments and never the values; that they are not checked is said, not guessed.
    world.run(["chain", "export", "app.db", "--format", "native", "--out", "rows.ndjson"]).good();
    let rows = String::from_utf8(world.read("rows.ndjson")).unwrap();
    assert!(rows.contains("attestore/commitment/v1"), "{rows}");
    assert!(!rows.contains("p6@example.com") && !rows.contains("Person 6"), "{rows}");
    let report = world
        .json(0, ["chain", "verify", "rows.ndjson", "--format", "native", "--secret", "K=file:chain.secret"]);
    assert!(notes(&report, "not-checked")[0].contains("not in this input"), "{report}");
}

#[test]
fn a_restore_on_record_is_told_from_the_same_rollback_without() {
    let world = world(10);
    back_up(&world, "one");
    grow(&world, 11, 8);
    checkpoint(&world, "later.checkpoint");
    let before = world.read("app.db");
    let done = restore(&world, "one");
    assert!(done["checks"].to_string().contains("8 rows lost"), "{done}");
    assert_eq!(done["notes"].as_array().map_or(0, Vec::len), 0, "{done}");
    let against = ["--checkpoint", "later.checkpoint"];
    let report = verify(&world, 0, &["--checkpoint", "later.checkpoint", "--public-key", "backup.key.pub"]);
    assert!(
        report["diagnosis"].as_str().unwrap().starts_with("intact, after a sanctioned restore"),
        "{report}"
    );
    let told = notes(&report, "sanctioned-restore");
    assert!(
        told.len() == 1
            && told[0].contains("op@example.com")
            && told[0].contains("18 records to 10 records, 8 lost"),
        "{report}"
    );
    // It stays visible, and the chain goes on.
    grow(&world, 50, 30);
    assert_eq!(
        notes(&verify(&world, 0, &["--lineage-key", "backup.key.pub"]), "sanctioned-restore").len(),
        1
    );
    let report =
        verify(&world, 0, &["--checkpoint", "later.checkpoint", "--checkpoint-key", "backup.key.pub"]);
    assert_eq!(notes(&report, "sanctioned-restore").len(), 1);
    // Nobody's word, or another's: found, with the reason.
    let report = verify(&world, 1, &against);
    assert_eq!(kinds(&report), ["rewritten"]);
    assert!(
        report["findings"][0]["explains"].as_str().unwrap().contains("no public key is at hand"),
        "{report}"
    );
    let report = verify(&world, 1, &["--checkpoint", "later.checkpoint", "--public-key", "other.key.pub"]);
    assert!(
        kinds(&report).contains(&"rewritten") && kinds(&report).contains(&"signature-invalid"),
        "{report}"
    );
    // The row alone is enough, and so is the file alone.
    std::fs::rename(world.path("app.db.lineage"), world.path("kept.lineage")).unwrap();
    let with_key = ["--checkpoint", "later.checkpoint", "--public-key", "backup.key.pub"];
    verify(&world, 0, &with_key);
    // The same rollback without the record: what was restored, put there by hand.
    world.run(["restore", "repo", "one", "--to", "plain.db", "--secret", "K=file:chain.secret"]).good();
    std::fs::remove_file(world.path("app.db")).unwrap();
    let _ = std::fs::remove_file(world.path("app.db-wal"));
    std::fs::rename(world.path("plain.db"), world.path("app.db")).unwrap();
    let report = verify(&world, 1, &with_key);
    assert_eq!(kinds(&report), ["truncated"], "{report}");
    verify(&world, 0, &[&with_key[..], &["--lineage", "kept.lineage"]].concat());
    // A record of another history does not fit.
    world.write("app.db", before);
    world.write(
        "forged.lineage",
        String::from_utf8(world.read("kept.lineage")).unwrap().replacen(
            "op@example.com",
            "me@example.com",
            1,
        ),
    );
    std::fs::remove_file(world.path("app.db")).unwrap();
    world.run(["restore", "repo", "one", "--to", "app.db", "--secret", "K=file:chain.secret"]).good();
    let report = verify(&world, 1, &[&with_key[..], &["--lineage", "forged.lineage"]].concat());
    assert!(kinds(&report).contains(&"truncated"), "{report}");
    assert!(
        report["findings"][0]["explains"].as_str().unwrap().contains("a restore is on record, but"),
        "{report}"
    );
    world.write("broken.lineage", "{\"note\":\"x\"}\n");
    assert!(
        world
            .fails(
                ErrorKind::Malformed,
                ["chain", "verify", "app.db", "--format", "native", "--lineage", "broken.lineage"]
            )
            .contains("line 1")
    );
    world.fails(
        ErrorKind::NotFound,
        ["chain", "verify", "app.db", "--format", "native", "--lineage", "missing"],
    );
}

#[test]
fn restores_follow_each_other_and_the_next_backup_goes_on() {
    let world = world(10);
    back_up(&world, "one");
    grow(&world, 11, 4);
    back_up(&world, "two");
    grow(&world, 15, 4);
    checkpoint(&world, "first.checkpoint");
    restore(&world, "two");
    grow(&world, 60, 3);
    checkpoint(&world, "second.checkpoint");
    restore(&world, "one");
    restore(&world, "one");
    grow(&world, 90, 40);
    for checkpoint in ["first.checkpoint", "second.checkpoint"] {
        let key = ["--checkpoint", checkpoint, "--public-key", "backup.key.pub"];
        verify(&world, 0, &key);
        // Each row carries the records of the restores whose rows it lost.
        std::fs::rename(world.path("app.db.lineage"), world.path("kept.lineage")).unwrap();
        verify(&world, 0, &key);
        std::fs::rename(world.path("kept.lineage"), world.path("app.db.lineage")).unwrap();
    }
    // The next backup is compared with the one before, which the restore set back.
    back_up(&world, "three");
    let shown = world.json(0, ["show", "repo", "three"]);
    assert_eq!(shown["chains"][0]["verdict"], "intact", "{shown}");
    assert!(shown["chains"][0]["diagnosis"].as_str().unwrap().contains("sanctioned restore"), "{shown}");
}

#[test]
fn a_lost_database_is_restored_with_what_the_operator_vouches_for() {
    let world = world(10);
    back_up(&world, "one");
    grow(&world, 11, 8);
    checkpoint(&world, "later.checkpoint");
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(world.path(format!("app.db{ending}")));
    }
    restore(&world, "one");
    let key = ["--checkpoint", "later.checkpoint", "--public-key", "backup.key.pub"];
    let report = verify(&world, 1, &key);
    assert!(kinds(&report) == ["truncated"] || kinds(&report) == ["rewritten"], "{report}");
    std::fs::remove_file(world.path("app.db")).unwrap();
    let vouched = [
        "restore",
        "repo",
        "one",
        "--to",
        "app.db",
        "--secret",
        "K=file:chain.secret",
        "--sign-with",
        "backup.key",
        "--stood-at",
        "later.checkpoint",
    ];
    world.json(0, vouched);
    let report = verify(&world, 0, &key);
    assert!(
        notes(&report, "sanctioned-restore").iter().any(|note| note.contains("an unknown number lost")),
        "{report}"
    );
    // One that cannot be read is no obstacle, and is said.
    world.write("app.db", vec![0xa5_u8; 8_192]);
    let done = world.json(0, vouched);
    assert!(done["notes"][0].as_str().unwrap().contains("is not on record"), "{done}");
    verify(&world, 0, &key);
}

#[test]
fn a_restore_that_fails_or_is_only_planned_leaves_no_record() {
    let world = world(10);
    back_up(&world, "one");
    grow(&world, 11, 2);
    let common = [
        "restore",
        "repo",
        "one",
        "--to",
        "app.db",
        "--secret",
        "K=file:chain.secret",
        "--sign-with",
        "backup.key",
    ];
    world.json(0, [&common[..], &["--plan"]].concat());
    assert!(!world.path("app.db.lineage").exists());
    world.fails(ErrorKind::Mismatch, [&common[..], &["--check", "SELECT 0"]].concat());
    assert!(!world.path("app.db.lineage").exists());
    let unsigned = world.json(0, &common[..7]);
    assert!(unsigned["plan"]["warnings"].to_string().contains("will not be on record"), "{unsigned}");
    assert!(!world.path("app.db.lineage").exists());
}

#[test]
fn chains_of_other_formats_are_followed_by_the_file_beside_the_database() {
    let world = World::with_backup();
    world.run(["keygen", "--out", "other.key"]).good();
    crate::support::receipts(&world.path("more.db"), &[("alpha", 9), ("beta", 3)], None);
    // The same service, three receipts of alpha later.
    std::fs::rename(world.path("more.db"), world.path("app.db")).unwrap();
    let then = world.run(["chain", "checkpoint", "app.db", "--format", "aegisagent"]).good().out;
    world.write("later.checkpoint", then);
    let verify = |status, more: &[&str]| {
        world.json(
            status,
            [
                &["chain", "verify", "app.db", "--format", "aegisagent", "--checkpoint", "later.checkpoint"],
                more,
            ]
            .concat(),
        )
    };
    verify(0, &[]);
    world.json(0, ["restore", "repo", "one", "--to", "app.db", "--sign-with", "backup.key"]);
    let report = verify(0, &["--lineage-key", "backup.key.pub"]);
    assert!(!notes(&report, "sanctioned-restore").is_empty(), "{report}");
    assert_eq!(kinds(&verify(1, &["--lineage-key", "other.key.pub"])), ["truncated"]);
    std::fs::remove_file(world.path("app.db.lineage")).unwrap();
    assert_eq!(kinds(&verify(1, &["--lineage-key", "backup.key.pub"])), ["truncated"]);
}

#[test]
fn a_restore_that_brings_erased_values_back_says_so() {
    let world = world(5);
    back_up(&world, "one");
    world.json(
        0,
        [
            "chain",
            "erase",
            "app.db",
            "--record",
            "2",
            "--by",
            "dpo",
            "--reason",
            "request 9",
            "--secret",
            "K=file:chain.secret",
        ],
    );
    let done = restore(&world, "one");
    let said = done["notes"][0].as_str().unwrap();
    assert!(said.contains("request 9") && said.contains("erase them again"), "{done}");
    verify(&world, 0, &["--lineage-key", "backup.key.pub"]);
    world.json(
        0,
        [
            "chain",
            "erase",
            "app.db",
            "--record",
            "2",
            "--by",
            "dpo",
            "--reason",
            "request 9, again",
            "--secret",
            "K=file:chain.secret",
        ],
    );
    verify(&world, 0, &["--lineage-key", "backup.key.pub"]);
}
