//! `chain verify --earlier`, and checkpoints that are signed: which rows differ, and what is left after an honest removal.

use ed25519_dalek::SigningKey;
use serde_json::Value;

use crate::support::{ErrorKind, World, append_receipts, receipts, rechain};

/// A finding: kind, chain, first and last position, record.
type Found<'a> = (&'a str, &'a str, Option<u64>, Option<u64>, Option<&'a str>);

fn found(report: &Value) -> Vec<Found<'_>> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| {
            (
                finding["kind"].as_str().unwrap(),
                finding["chain"].as_str().unwrap(),
                finding["position"].as_u64(),
                finding["last"].as_u64(),
                finding["record"].as_str(),
            )
        })
        .collect()
}

/// A folder with `app.db`, the same as `earlier.db`, and a checkpoint of it, signed.
fn world() -> World {
    let world = World::new();
    let key = SigningKey::from_bytes(&[7; 32]);
    receipts(&world.path("app.db"), &[("alpha", 12), ("beta", 3)], Some(&key));
    world.write("earlier.db", world.read("app.db"));
    world.run(["keygen", "--out", "backup.key"]).good();
    let note = world
        .run(["chain", "checkpoint", "app.db", "--format", "aegisagent", "--sign-with", "backup.key"])
        .good();
    world.write("checkpoint", note.out);
    world
}

const VERIFY: [&str; 5] = ["chain", "verify", "app.db", "--format", "aegisagent"];

fn verify(world: &World, status: i32, more: &[&str]) -> Value {
    world.json(status, VERIFY.iter().chain(more))
}

const BOTH: &[&str] =
    &["--checkpoint", "checkpoint", "--checkpoint-key", "backup.key.pub", "--earlier", "earlier.db"];

#[test]
fn a_signed_checkpoint_is_verified_by_its_key_and_by_no_other() {
    let world = world();
    world.run(["keygen", "--out", "other.key"]).good();
    let with =
        |key: &'static str| [&VERIFY[..], &["--checkpoint", "checkpoint", "--checkpoint-key", key]].concat();
    assert_eq!(world.json(0, with("backup.key.pub"))["verdict"], "intact");
    world.fails(ErrorKind::Tampered, with("other.key.pub"));
    let bare = world.run(["chain", "checkpoint", "app.db", "--format", "aegisagent"]).good().out;
    world.write("bare", &bare);
    let unsigned = [&VERIFY[..], &["--checkpoint", "bare", "--checkpoint-key", "backup.key.pub"]].concat();
    world.fails(ErrorKind::Unsigned, unsigned);
    assert_eq!(verify(&world, 0, &["--checkpoint", "bare"])["verdict"], "intact");
    // The JSON is a checkpoint too, and so is a whole report.
    let json = world.run(["chain", "checkpoint", "app.db", "--format", "aegisagent", "--json"]).good().out;
    world.write("json", &json);
    assert_eq!(verify(&world, 0, &["--checkpoint", "json"])["verdict"], "intact");
    let report = world.run(VERIFY.iter().chain(&["--json"])).good().out;
    world.write("report", &report);
    assert_eq!(verify(&world, 0, &["--checkpoint", "report"])["verdict"], "intact");
    // One that was altered, though it looks like one.
    let text = String::from_utf8(world.read("checkpoint")).unwrap();
    world.write("altered", text.replacen("chain 12 ", "chain 11 ", 1));
    world.fails(ErrorKind::Tampered, [&VERIFY[..], &["--checkpoint", "altered"]].concat());
    // One of another format says nothing of these rows.
    world.write("native", text.replacen("/aegisagent\n", "/native\n", 1));
    let report = verify(&world, 1, &["--checkpoint", "native"]);
    assert_eq!(report["findings"][0]["kind"], "checkpoint-mismatch");
}

#[test]
fn rows_that_grew_are_intact_and_rows_that_differ_are_named() {
    let world = world();
    assert_eq!(verify(&world, 0, BOTH)["verdict"], "intact");
    append_receipts(&world.open("app.db"), "alpha", 13, 20, None);
    world.sql("app.db", "INSERT INTO tenants VALUES('gamma')");
    append_receipts(&world.open("app.db"), "gamma", 1, 2, None);
    let report = verify(&world, 0, BOTH);
    assert_eq!((&report["verdict"], report["findings"].as_array().unwrap().len()), (&"intact".into(), 0));

    // Columns outside the hash, in two places.
    world.sql(
        "app.db",
        "UPDATE action_receipts SET created_at = 'x' WHERE id IN ('alpha-3', 'alpha-4', 'beta-2')",
    );
    let report = verify(&world, 1, BOTH);
    assert_eq!(
        found(&report),
        [
            ("unhashed-edited", "alpha", Some(3), Some(4), Some("alpha-3")),
            ("unhashed-edited", "beta", Some(2), None, Some("beta-2")),
        ]
    );
    // A row that its own hash convicts is not told twice.
    world.sql("app.db", "UPDATE action_receipts SET decision = 'deny' WHERE id = 'alpha-3'");
    let report = verify(&world, 1, BOTH);
    assert_eq!(found(&report)[0], ("edited", "alpha", Some(3), None, Some("alpha-3")));
    assert_eq!(found(&report)[1], ("unhashed-edited", "alpha", Some(3), Some(4), Some("alpha-3")));
}

#[test]
fn history_that_was_written_anew_is_named_from_its_first_row() {
    let world = world();
    // The attacker has a key of his own: every link and every signature fits.
    let forger = SigningKey::from_bytes(&[9; 32]);
    world.sql("app.db", "UPDATE action_receipts SET decision = 'allow' WHERE id = 'alpha-5'");
    rechain(&world.open("app.db"), "alpha", Some(&forger));
    assert_eq!(verify(&world, 0, &[])["verdict"], "intact", "nothing in the rows shows it");
    let report = verify(&world, 1, &["--checkpoint", "checkpoint"]);
    assert_eq!(found(&report), [("rewritten", "alpha", None, None, None)]);
    assert!(report["diagnosis"].as_str().unwrap().starts_with("rewritten history"), "{report}");
    let report = verify(&world, 1, BOTH);
    // All rows are signed by another key; from the fifth on they are hashed anew too.
    assert_eq!(
        found(&report),
        [
            ("unhashed-edited", "alpha", Some(1), Some(4), Some("alpha-1")),
            ("rewritten", "alpha", Some(5), Some(12), Some("alpha-5")),
        ]
    );
    // The key that is trusted tells as well.
    let trusted = hex::encode(SigningKey::from_bytes(&[7; 32]).verifying_key().as_bytes());
    let report = verify(&world, 1, &["--public-key", &trusted]);
    assert_eq!(found(&report)[0].0, "unknown-key");
    // Left unsigned: they are stripped.
    rechain(&world.open("app.db"), "alpha", None);
    let report = verify(&world, 1, &["--checkpoint", "checkpoint"]);
    let kinds: Vec<_> = found(&report).iter().map(|finding| finding.0).collect();
    assert_eq!(kinds, ["stripped", "rewritten"]);
}

#[test]
fn rows_that_are_gone_are_named_wherever_they_were() {
    for (sql, expected) in [
        (
            "id IN ('alpha-11', 'alpha-12')",
            vec![("truncated", "alpha", Some(11), Some(12), Some("alpha-11"))],
        ),
        ("id IN ('alpha-1', 'alpha-2')", vec![("missing-head", "alpha", Some(1), None, Some("alpha-3"))]),
        ("id = 'alpha-6'", vec![("missing", "alpha", Some(6), None, Some("alpha-7"))]),
        ("tenant_id = 'beta'", vec![("missing-chain", "beta", None, None, None)]),
    ] {
        let world = world();
        world.sql("app.db", &format!("DELETE FROM action_receipts WHERE {sql}"));
        let report = verify(&world, 1, BOTH);
        assert_eq!(found(&report), expected, "{sql}");
    }
    // Taken out of the middle, and the rest linked anew: only the earlier rows tell which.
    let world = world();
    world.sql("app.db", "DELETE FROM action_receipts WHERE id = 'alpha-6'");
    rechain(&world.open("app.db"), "alpha", Some(&SigningKey::from_bytes(&[7; 32])));
    assert_eq!(verify(&world, 0, &[])["verdict"], "intact");
    let report = verify(&world, 1, BOTH);
    assert_eq!(
        found(&report),
        [
            ("missing", "alpha", Some(6), None, Some("alpha-6")),
            ("rewritten", "alpha", Some(6), Some(11), Some("alpha-7")),
        ]
    );
}

#[test]
fn an_earlier_copy_that_cannot_be_meant_is_refused() {
    let world = world();
    let with = |earlier: &'static str| [&VERIFY[..], &["--earlier", earlier]].concat();
    world.fails(ErrorKind::NotFound, with("nowhere.db"));
    world.fails(ErrorKind::InvalidInput, with("-"));
    world.write("text.ndjson", "hello\n");
    world.fails(ErrorKind::Malformed, with("text.ndjson"));
    // One that is not of the checkpoint proves nothing, and is said.
    world.sql("earlier.db", "UPDATE action_receipts SET decision = 'deny' WHERE id = 'alpha-9'");
    rechain(&world.open("earlier.db"), "alpha", None);
    let report = verify(&world, 1, BOTH);
    assert_eq!(report["findings"][0]["kind"], "checkpoint-mismatch", "{report:#}");
    assert!(report["findings"][0]["explains"].as_str().unwrap().contains("earlier copy"), "{report:#}");
}
