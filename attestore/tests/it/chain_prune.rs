//! `chain prune`: the oldest records leave on record, into an archive that is proven.

use std::process::Stdio;
use std::time::Duration;

use audit_chain::native::NativeKey;
use backup_sqlite::ledger::{Draft, Ledger};
use rusqlite::{Connection, TransactionBehavior};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{ErrorKind, Run, World};

const SECRET: &str = "a secret of thirty-two bytes ....";
/// 2020-01-01T00:00:00Z in microseconds.
const OLD: i64 = 1_577_836_800_000_000;
const APPLY: [&str; 11] = [
    "chain",
    "prune",
    "app.db",
    "--format",
    "native",
    "--older-than",
    "1y",
    "--archive",
    "old.ndjson",
    "--secret",
    "KEY=file:key",
];

/// Makes `app.db` with a keyed chain `orders` (10 old records, 5 of today) and a plain one `plain` (3 and 2).
fn world() -> World {
    let world = World::new();
    world.write("key", SECRET);
    let mut connection = world.open("app.db");
    ledger("orders").layout().create(&connection, false).unwrap();
    for (chain, old, new) in [("orders", 10, 5), ("plain", 3, 2)] {
        append(&mut connection, chain, old, Some(OLD));
        append(&mut connection, chain, new, None);
    }
    world
}

fn ledger(chain: &str) -> Ledger {
    let ledger = Ledger::new(chain);
    if chain == "plain" { ledger } else { ledger.with_key(NativeKey::new(SECRET.as_bytes()).unwrap()) }
}

fn append(connection: &mut Connection, chain: &str, count: i64, at: Option<i64>) {
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    for number in 0..count {
        let draft = Draft::new(format!("{{\"event\":\"paid\",\"note\":\"größe {number}\"}}"));
        let draft = match at {
            Some(at) => draft.at(at + number * 1_000_000),
            None => draft,
        };
        ledger(chain).append(&tx, draft).unwrap();
    }
    tx.commit().unwrap();
}

fn prune(world: &World, more: &[&str]) -> Run {
    let mut all: Vec<&str> = APPLY.to_vec();
    all.extend(more);
    world.run(all)
}

fn verify(world: &World, status: i32, more: &[&str]) -> Value {
    let mut all = vec!["chain", "verify", "app.db", "--format", "native", "--secret", "KEY=file:key"];
    all.extend(more);
    world.json(status, all)
}

fn kinds(report: &Value, what: &str) -> Vec<String> {
    report[what].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap().to_owned()).collect()
}

fn count(world: &World) -> i64 {
    world.open("app.db").query_row("SELECT count(*) FROM attestore_chain", [], |row| row.get(0)).unwrap()
}

fn checkpoint(world: &World, name: &str) {
    let run =
        world.run(["chain", "checkpoint", "app.db", "--format", "native", "--secret", "KEY=file:key"]).good();
    world.write(name, run.out);
}

#[test]
fn a_plan_changes_nothing_and_says_what_would_leave() {
    let world = world();
    let before = world.read("app.db");
    let plan = serde_json::from_str::<Value>(&prune(&world, &["--json"]).good().out).unwrap();
    assert_eq!((plan["applied"].as_bool(), plan["rows"].as_u64()), (Some(false), Some(13)));
    assert_eq!(plan["chains"][0]["chain"], "orders");
    assert_eq!((plan["chains"][0]["from"].as_u64(), plan["chains"][0]["to"].as_u64()), (Some(1), Some(10)));
    assert_eq!(plan["archive"], "old.ndjson");
    assert!(prune(&world, &[]).good().out.contains("PLAN  would remove 13 records"));
    assert_eq!(world.read("app.db"), before);
    assert!(!world.path("old.ndjson").exists() && !world.path("old.ndjson.json").exists());
}

#[test]
fn what_left_is_on_record_and_archive_and_rest_verify_alone_and_together() {
    let world = world();
    checkpoint(&world, "before");
    let done = serde_json::from_str::<Value>(&prune(&world, &["--apply", "--json"]).good().out).unwrap();
    assert_eq!((done["applied"].as_bool(), done["rows"].as_u64(), count(&world)), (Some(true), Some(13), 9));
    let sha256 = hex::encode(Sha256::digest(world.read("old.ndjson")));
    assert_eq!(done["archive_sha256"], json!(sha256));
    let body: String = world
        .open("app.db")
        .query_row(
            "SELECT body FROM attestore_chain WHERE chain = 'orders' ORDER BY seq DESC LIMIT 1",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["kind"], "attestore/chain/prune/v1");
    assert_eq!(
        (body["from"].as_u64(), body["to"].as_u64(), body["count"].as_u64()),
        (Some(1), Some(10), Some(10))
    );
    assert_eq!((&body["archive"]["sha256"], &body["tip"]["seq"]), (&json!(sha256), &json!(15)));
    assert_eq!(body["root"], done["chains"][0]["root"]);
    assert!(done["records"][0]["key_id"].is_string() && done["records"][1]["key_id"].is_null());

    let rest = verify(&world, 0, &[]);
    assert_eq!(kinds(&rest, "notes").iter().filter(|kind| *kind == "retention-gap").count(), 2, "{rest}");
    assert_eq!(rest["chains"][0]["first"], 11);
    let archive =
        world.json(0, ["chain", "verify", "old.ndjson", "--format", "native", "--secret", "KEY=file:key"]);
    assert_eq!(archive["records"], 13);
    let whole = verify(&world, 0, &["--archive", "old.ndjson"]);
    assert_eq!(
        (whole["records"].as_u64(), kinds(&whole, "notes").contains(&"retention-gap".into())),
        (Some(22), false)
    );
    // An earlier checkpoint: with the archive all is proven, without it nothing is alarmed.
    verify(&world, 0, &["--archive", "old.ndjson", "--checkpoint", "before"]);
    verify(&world, 0, &["--checkpoint", "before"]);
}

#[test]
fn with_archive_and_checkpoint_a_retained_row_that_was_rewritten_is_found() {
    let world = world();
    checkpoint(&world, "before");
    prune(&world, &["--apply"]).good();
    // A plain chain written anew from its first retained row on, with its record: valid by itself.
    let connection = world.open("app.db");
    let rows: Vec<String> = {
        let mut statement = connection
            .prepare("SELECT body FROM attestore_chain WHERE chain = 'plain' ORDER BY seq")
            .unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let (prev, at): (String, String) = connection
        .query_row("SELECT prev, at FROM attestore_chain WHERE chain = 'plain' AND seq = 4", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    connection.execute("DELETE FROM attestore_chain WHERE chain = 'plain'", []).unwrap();
    let mut last = prev;
    for (at_seq, body) in rows.iter().enumerate() {
        let body = if at_seq == 0 { body.replace("paid", "free") } else { body.clone() };
        let seq = 4 + u64::try_from(at_seq).unwrap();
        let mut record = audit_chain::native::NativeRecord {
            chain: "plain".into(),
            seq,
            at: at.clone(),
            body,
            v: 1,
            key_id: None,
            prev: last.clone(),
            hash: String::new(),
        };
        record.hash = hex::encode(record.digest(None));
        connection
            .execute(
                "INSERT INTO attestore_chain(chain, seq, at, body, v, key_id, prev, hash) VALUES(?1, ?2, ?3, ?4, 1, NULL, ?5, ?6)",
                rusqlite::params![record.chain, seq as i64, record.at, record.body, record.prev, record.hash],
            )
            .unwrap();
        last = record.hash;
    }
    verify(&world, 0, &[]);
    let found = verify(&world, 1, &["--archive", "old.ndjson", "--checkpoint", "before"]);
    assert_eq!(kinds(&found, "findings"), ["rewritten"], "{found}");
}

#[test]
fn rows_cut_off_without_a_record_are_still_found() {
    for change in [
        "DELETE FROM attestore_chain WHERE seq <= 2",
        "DELETE FROM attestore_chain WHERE seq <= 11 AND chain = 'orders'",
        "DELETE FROM attestore_chain WHERE body LIKE '%prune%' AND chain = 'orders'",
        "UPDATE attestore_chain SET body = replace(body, '\"to\":10', '\"to\":9') WHERE body LIKE '%prune%' AND chain = 'orders'",
    ] {
        let world = world();
        if !change.contains("<= 2") {
            prune(&world, &["--apply"]).good();
        }
        world.sql("app.db", change);
        let report = verify(&world, 1, &[]);
        let found = kinds(&report, "findings");
        assert!(found.iter().any(|kind| kind == "missing-head"), "{change}: {report}");
    }
}

#[test]
fn a_chain_goes_on_and_is_pruned_again_and_all_archives_with_it_are_one_chain() {
    let world = world();
    prune(&world, &["--apply"]).good();
    let mut connection = world.open("app.db");
    append(&mut connection, "orders", 4, None);
    verify(&world, 0, &[]);
    std::thread::sleep(Duration::from_millis(1_100));
    let again = [
        "chain",
        "prune",
        "app.db",
        "--format",
        "native",
        "--older-than",
        "1s",
        "--archive",
        "second.csv",
        "--secret",
        "KEY=file:key",
        "--apply",
        "--json",
    ];
    let done = world.run(again).good().json();
    // Every record is old now; the record of the prune alone goes on.
    assert_eq!((done["rows"].as_u64(), count(&world)), (Some(13), 2));
    let rest = verify(&world, 0, &[]);
    assert_eq!(rest["chains"][0]["first"], 21);
    append(&mut connection, "orders", 1, None);
    let whole = verify(&world, 0, &["--archive", "old.ndjson", "--archive", "second.csv"]);
    assert_eq!(
        (whole["records"].as_u64(), kinds(&whole, "notes").contains(&"retention-gap".into())),
        (Some(29), false)
    );
    // Out of order, or one left out, is no whole chain.
    verify(&world, 1, &["--archive", "second.csv", "--archive", "old.ndjson"]);
    verify(&world, 1, &["--archive", "old.ndjson"]);
}

#[test]
fn what_is_cut_is_a_run_from_the_first_record_and_no_clock_steers_it() {
    let world = World::new();
    world.write("key", SECRET);
    let mut connection = world.open("app.db");
    ledger("orders").layout().create(&connection, false).unwrap();
    append(&mut connection, "orders", 2, Some(OLD));
    append(&mut connection, "orders", 1, None);
    append(&mut connection, "orders", 5, Some(OLD));
    let plan = serde_json::from_str::<Value>(&prune(&world, &["--json"]).good().out).unwrap();
    assert_eq!((plan["rows"].as_u64(), plan["chains"][0]["to"].as_u64()), (Some(2), Some(2)));
    let nothing = world.json(
        0,
        [
            "chain",
            "prune",
            "app.db",
            "--format",
            "native",
            "--older-than",
            "90y",
            "--archive",
            "x.ndjson",
            "--secret",
            "KEY=file:key",
            "--apply",
        ],
    );
    assert_eq!((nothing["applied"].as_bool(), nothing["rows"].as_u64()), (Some(false), Some(0)));
    assert!(!world.path("x.ndjson").exists());
}

#[test]
fn without_the_secret_or_with_findings_nothing_is_deleted() {
    let world = world();
    let base = [
        "chain",
        "prune",
        "app.db",
        "--format",
        "native",
        "--older-than",
        "1y",
        "--archive",
        "old.ndjson",
        "--apply",
    ];
    let kind = |more: &[&str], kind| {
        let mut all = base.to_vec();
        all.extend(more);
        world.fails(kind, all)
    };
    world.write("wrong", "another secret of thirty bytes..");
    // The plain chain is verified without a secret, the keyed one is not: nothing at all is deleted.
    let run = world.run(base);
    assert!([5, 6].contains(&run.status), "{run:?}");
    let run = world.run(base.iter().copied().chain(["--secret", "KEY=file:wrong"]));
    assert!([5, 6].contains(&run.status), "{run:?}");
    world.sql("app.db", "UPDATE attestore_chain SET body = '{}' WHERE chain = 'orders' AND seq = 12");
    assert!(kind(&["--secret", "KEY=file:key"], ErrorKind::Tampered).contains("nothing is deleted"));
    assert_eq!(count(&world), 20);
    assert!(!world.path("old.ndjson").exists() && !world.path("old.ndjson.json").exists());
}

#[test]
fn an_archive_is_never_overwritten_but_one_of_a_run_that_died_is_replaced() {
    let world = world();
    world.write("old.ndjson", "mine");
    assert!(world.fails(ErrorKind::AlreadyExists, APPLY).contains("old.ndjson exists"));
    std::fs::remove_file(world.path("old.ndjson")).unwrap();
    let before = world.read("app.db");
    prune(&world, &["--apply"]).good();
    let archive = world.read("old.ndjson");
    world.fails(ErrorKind::AlreadyExists, APPLY);
    assert_eq!(world.read("old.ndjson"), archive);
    // As when the process died between the archive and the commit.
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(world.path(format!("app.db{ending}")));
    }
    world.write("app.db", before);
    prune(&world, &["--apply"]).good();
    assert_eq!(count(&world), 9);
    verify(&world, 0, &["--archive", "old.ndjson"]);
}

#[test]
fn guards_are_back_after_a_prune_and_another_trigger_stands_above_it() {
    let world = world();
    ledger("orders").layout().create(&world.open("app.db"), true).unwrap();
    prune(&world, &["--apply"]).good();
    verify(&world, 0, &["--archive", "old.ndjson"]);
    let error = world.open("app.db").execute("DELETE FROM attestore_chain", []).unwrap_err().to_string();
    assert!(error.contains("never deleted"), "{error}");
    append(&mut world.open("app.db"), "orders", 1, None);
    let other = super::chain_prune::world();
    other.sql(
        "app.db",
        "CREATE TRIGGER keep BEFORE DELETE ON attestore_chain BEGIN SELECT RAISE(ABORT, 'legal hold'); END",
    );
    let all: Vec<&str> = APPLY.iter().copied().chain(["--apply"]).collect();
    assert!(other.fails(ErrorKind::InUse, all).contains("legal hold"));
    assert_eq!(count(&other), 20);
    assert!(!other.path("old.ndjson").exists());
}

#[test]
fn values_outside_the_chain_are_not_lost_with_it() {
    let world = world();
    let mut connection = world.open("app.db");
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let draft = Draft::new(r#"{"name":"Ada"}"#).personal(&["/name"]).unwrap().at(OLD);
    ledger("people").append(&tx, draft).unwrap();
    tx.commit().unwrap();
    let all: Vec<&str> = APPLY.iter().copied().chain(["--apply"]).collect();
    assert!(world.fails(ErrorKind::InUse, all).contains("1 values"));
    assert_eq!(count(&world), 21);
}

#[test]
fn other_systems_are_refused_with_the_reason_and_what_to_do_instead() {
    let world = world();
    for (format, reason, instead) in [
        ("z4j", "its verifier calls tampering", "z4j audit prune"),
        ("aegisagent", "critical alert", "chain export"),
        ("aegisagent-policy", "triggers", "chain export"),
        ("caracal", "partitions", "--watermark"),
        ("caracal-admin", "no rule", "chain export"),
        ("agledger", "checkpoints", "--format agledger --out DIR"),
    ] {
        for apply in [None, Some("--apply")] {
            let run =
                ["chain", "prune", "app.db", "--format", format, "--older-than", "1y", "--archive", "x"];
            let said = world.fails(ErrorKind::InUse, run.into_iter().chain(apply).collect::<Vec<_>>());
            assert!(said.contains(reason) && said.contains(instead), "{said}");
        }
    }
    assert_eq!((count(&world), ErrorKind::InUse.exit_status()), (20, 3));
    world.fails(
        ErrorKind::InvalidInput,
        ["chain", "prune", "app.db", "--format", "native", "--older-than", "soon", "--archive", "x"],
    );
    world.write("rows.ndjson", "");
    world.fails(
        ErrorKind::Unsupported,
        ["chain", "prune", "rows.ndjson", "--format", "native", "--older-than", "1y", "--archive", "x"],
    );
}

#[test]
fn a_prune_under_a_writer_loses_nothing() {
    let world = world();
    world.sql("app.db", "PRAGMA journal_mode = WAL");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let appended = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut connection = world.open("app.db");
            let mut appended = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                append(&mut connection, "orders", 3, None);
                appended += 3;
                std::thread::sleep(Duration::from_millis(2));
            }
            appended
        });
        std::thread::sleep(Duration::from_millis(50));
        prune(&world, &["--apply"]).good();
        std::thread::sleep(Duration::from_millis(50));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        writer.join().unwrap()
    });
    let whole = verify(&world, 0, &["--archive", "old.ndjson"]);
    assert_eq!(whole["records"].as_i64(), Some(20 + 2 + appended));
}

#[test]
fn a_prune_that_is_killed_deletes_nothing_or_everything_on_record() {
    let world = world();
    append(&mut world.open("app.db"), "more", 3_000, Some(OLD));
    let rows = count(&world);
    let mut delay = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut killed, mut done) = (0, false);
    for _ in 0..40 {
        delay = delay.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut run = world.command(APPLY.iter().copied().chain(["--apply", "--quiet"]));
        let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros((delay >> 33) % 600_000));
        run.kill().unwrap();
        let ended = run.wait().unwrap();
        killed += u32::from(ended.code().is_none());
        let left = count(&world);
        if left == rows {
            assert!(ended.code() != Some(0));
            verify(&world, 0, &[]);
            continue;
        }
        assert_eq!(left, rows - 3_013 + 3);
        let whole = verify(&world, 0, &["--archive", "old.ndjson"]);
        assert_eq!(whole["records"].as_i64(), Some(rows + 3));
        done = true;
        break;
    }
    if !done {
        prune(&world, &["--apply"]).good();
        verify(&world, 0, &["--archive", "old.ndjson"]);
    }
    assert!(killed > 0);
    let left: Vec<_> = crate::support::files(world.root())
        .into_iter()
        .filter(|file| !file.to_string_lossy().starts_with('.'))
        .map(|file| file.to_string_lossy().into_owned())
        .collect();
    assert!(
        left.iter().all(|name| name.starts_with("app.db") || name.starts_with("old.ndjson") || name == "key"),
        "{left:?}"
    );
}
