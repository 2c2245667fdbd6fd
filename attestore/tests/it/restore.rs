//! `restore`, `drill`, `set-aside`, `prune` and `hold`.

use std::fs;

use sha2::{Digest as _, Sha384};

use crate::support::{ErrorKind, World, files};

#[test]
fn a_plan_changes_nothing_and_a_restore_keeps_what_was_there() {
    let world = World::with_backup();
    world.sql("app.db", "INSERT INTO notes(text) VALUES('later')");
    let before = world.read("app.db");
    let plan = world.json(0, ["restore", "repo", "one", "--to", "app.db", "--plan"]);
    assert!(
        !plan["plan"]["steps"].as_array().unwrap().is_empty() && plan.get("set_aside").is_none(),
        "{plan}"
    );
    assert!(
        world.run(["restore", "repo", "one", "--to", "app.db", "--plan"]).good().out.starts_with("PLAN  ")
    );
    assert_eq!(world.read("app.db"), before);
    let done = world.json(0, ["restore", "repo", "one", "--to", "app.db", "--public-key", "backup.key.pub"]);
    assert_eq!(done["backup"], "one");
    assert_eq!(done["chains"][0]["verdict"], "intact");
    let notes: i64 =
        world.open("app.db").query_row("SELECT count(*) FROM notes", [], |row| row.get(0)).unwrap();
    assert_eq!(notes, 1);
    let aside = world.json(0, ["set-aside", "app.db"]);
    assert_eq!(aside["set_aside"][0]["path"], done["set_aside"][0]);
    assert_eq!(fs::read(done["set_aside"][0].as_str().unwrap()).unwrap(), before);
    world.fails(ErrorKind::NotFound, ["set-aside", "app.db", "--archive", "nowhere"]);
    fs::create_dir(world.path("old")).unwrap();
    assert_eq!(
        world.json(0, ["set-aside", "app.db", "--archive", "old"])["archived"].as_array().unwrap().len(),
        1
    );
    world.json(0, ["restore", "repo", "one", "--to", "app.db"]);
    assert_eq!(world.json(0, ["set-aside", "app.db", "--remove"])["removed"], true);
    assert!(world.run(["set-aside", "app.db"]).good().out.contains("nothing is set aside"));
    world.fails(ErrorKind::InvalidInput, ["set-aside", "."]);
}

#[test]
fn a_target_that_cannot_be_meant_is_refused() {
    let world = World::with_backup();
    let restore = |to| ["restore", "repo", "one", "--to", to];
    world.fails(ErrorKind::InvalidInput, restore("."));
    world.fails(ErrorKind::InvalidInput, restore(""));
    world.fails(ErrorKind::InvalidInput, restore("repo/x.db"));
    world.fails(ErrorKind::InvalidInput, restore("repo/backups/one/database/app.db.zst"));
    world.fails(ErrorKind::NotFound, restore("nowhere/x.db"));
    world.fails(ErrorKind::InvalidName, restore("x.db-wal"));
    world.fails(ErrorKind::NotFound, restore("postgres://u:p@h/d"));
    world.fails(ErrorKind::NotFound, ["restore", "repo", "two", "--to", "x.db"]);
    world.fails(
        ErrorKind::NotFound,
        ["restore", "repo", "one", "--to", "x.db", "--object", "database/other.db"],
    );
    world.fails(ErrorKind::Mismatch, ["restore", "repo", "one", "--to", "x.db", "--check", "SELECT 0"]);
    world.fails(
        ErrorKind::InvalidInput,
        ["restore", "repo", "one", "--to", "x.db", "--check", "DELETE FROM notes"],
    );
    assert!(!world.path("x.db").exists());
    world.run(["verify", "repo", "--all"]).good();
}

#[test]
fn a_database_that_another_process_has_open_is_not_replaced() {
    let world = World::with_backup();
    let open = world.open("app.db");
    open.execute_batch("BEGIN IMMEDIATE; INSERT INTO notes(text) VALUES('open')").unwrap();
    let said = world.fails(ErrorKind::InUse, ["restore", "repo", "one", "--to", "app.db"]);
    assert!(said.contains("app.db is in use"), "{said}");
    open.execute_batch("COMMIT").unwrap();
    let notes: i64 = open.query_row("SELECT count(*) FROM notes", [], |row| row.get(0)).unwrap();
    assert_eq!(notes, 2);
}

#[test]
fn a_folder_comes_back_to_a_new_name() {
    let world = World::ready();
    fs::create_dir_all(world.path("conf/sub")).unwrap();
    world.write("conf/sub/größe", "x");
    let made = world.json(0, ["backup", "app.db", "--to", "repo", "--file", "config=conf"]);
    assert_eq!(made["objects"].as_array().unwrap().len(), 2);
    let restore = ["restore", "repo", "latest", "--object", "files/config.tar", "--to", "back"];
    world.run(restore).good();
    assert_eq!(files(&world.path("back")), files(&world.path("conf")));
    world.fails(ErrorKind::AlreadyExists, restore);
    world.fails(
        ErrorKind::AlreadyExists,
        ["restore", "repo", "latest", "--object", "files/config.tar", "--to", "conf"],
    );
}

#[test]
fn migrations_of_the_deployed_program_decide_what_is_restored() {
    let world = World::ready();
    fs::create_dir(world.path("migrations")).unwrap();
    let (one, two) = ("CREATE TABLE a(x);\n", "CREATE TABLE b(x);\n");
    world.write("migrations/0001_a.sql", one);
    let checksum = |text: &str| hex::encode(Sha384::digest(text));
    world.sql("app.db", &format!(
        "CREATE TABLE _sqlx_migrations(version BIGINT PRIMARY KEY, description TEXT NOT NULL, installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL, execution_time BIGINT NOT NULL); \
         INSERT INTO _sqlx_migrations VALUES(1, 'a', '2026-01-01', 1, x'{}', 1)", checksum(one)));
    let restore =
        |name: &'static str| ["restore", "repo", name, "--to", "x.db", "--migrations", "migrations"];
    let backup = |name: &str| world.run(["backup", "app.db", "--to", "repo", "--name", name]).good();
    backup("equal");
    world.run(restore("equal")).good();
    world.sql("app.db", "UPDATE _sqlx_migrations SET success = 0");
    backup("dirty");
    let said = world.fails(ErrorKind::Incompatible, restore("dirty"));
    assert!(said.contains("--allow-dirty"), "{said}");
    world.run(restore("dirty").iter().chain(&["--allow-dirty"])).good();
    world.sql("app.db", "UPDATE _sqlx_migrations SET success = 1, checksum = x'00'");
    backup("changed");
    assert!(world.fails(ErrorKind::Incompatible, restore("changed")).contains("--allow-changed"));
    world.sql("app.db", &format!("UPDATE _sqlx_migrations SET checksum = x'{}'; INSERT INTO _sqlx_migrations VALUES(2, 'b', '2026-01-02', 1, x'{}', 1)", checksum(one), checksum(two)));
    backup("newer");
    assert!(world.fails(ErrorKind::Newer, restore("newer")).contains("--allow-newer"));
    world.fails(ErrorKind::NotFound, ["restore", "repo", "newer", "--to", "x.db", "--migrations", "nowhere"]);
}

#[test]
fn a_drill_proves_reports_and_leaves_nothing() {
    let world = World::with_backup();
    fs::create_dir(world.path("scratch")).unwrap();
    let report = world.json(
        0,
        [
            "drill",
            "repo",
            "--scratch",
            "scratch",
            "--check",
            "SELECT count(*) FROM notes",
            "--report",
            "d.json",
        ],
    );
    assert_eq!((&report["ok"], &report["backup"]), (&true.into(), &"one".into()));
    assert_eq!(fs::read_dir(world.path("scratch")).unwrap().count(), 0);
    let kept: serde_json::Value = serde_json::from_slice(&world.read("d.json")).unwrap();
    assert_eq!(kept["checks"], report["checks"]);
    let failed = world.json(1, ["drill", "repo", "--check", "SELECT count(*) FROM nowhere"]);
    let detail = failed["checks"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("no such table: nowhere"), "{detail}");
    assert!(
        world
            .run(["drill", "repo", "--check", "SELECT 0"])
            .ends(1)
            .out
            .starts_with("# Restore drill: FAILED")
    );
    world.fails(ErrorKind::AlreadyExists, ["drill", "repo", "--report", "d.json"]);
    world.fails(ErrorKind::InvalidInput, ["drill", "repo", "--report", "d.txt"]);
    world.fails(ErrorKind::NotFound, ["drill", "repo", "--scratch", "nowhere"]);
    world.fails(ErrorKind::NotFound, ["verify", "repo", "--scratch", "nowhere"]);
}

#[test]
fn a_prune_is_a_plan_until_it_is_applied_and_a_hold_stops_it() {
    let world = World::with_backup();
    for name in ["two", "three"] {
        world.backup(name).good();
    }
    world.fails(ErrorKind::InvalidInput, ["prune", "repo"]);
    world.fails(ErrorKind::InvalidInput, ["prune", "repo", "--keep-within", "3x"]);
    let plan = world.json(0, ["prune", "repo", "--keep-last", "1"]);
    assert_eq!((plan["remove"].as_array().unwrap().len(), &plan["applied"]), (2, &false.into()));
    assert!(world.run(["prune", "repo", "--keep-last", "1"]).good().out.contains("--apply"));
    let held = world.json(0, ["hold", "repo", "one", "--reason", "a\n\u{1b}[2Jb"]);
    assert_eq!((&held["id"], &held["held"]), (&"one".into(), &true.into()));
    let text = world.run(["list", "repo"]).good().out;
    assert_eq!((text.lines().count(), text.contains('\u{1b}')), (4, false), "{text}");
    let done = world.json(0, ["prune", "repo", "--keep-last", "1", "--apply"]);
    assert_eq!((done["outcome"]["removed"].as_array().unwrap().len(), &done["applied"]), (1, &true.into()));
    assert!(world.path("repo/backups/one").exists() && !world.path("repo/backups/two").exists());
    world.run(["hold", "repo", "one", "--release"]).good();
    world.run(["prune", "repo", "--keep-last", "1", "--apply"]).good();
    assert!(!world.path("repo/backups/one").exists());
    world.fails(ErrorKind::NotFound, ["hold", "repo", "one"]);
    world.run(["verify", "repo", "--all"]).good();
}
