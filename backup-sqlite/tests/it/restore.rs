//! Restores: what refuses them, what proves them, what they leave.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind};
use backup_core::traits::{Restore as _, RestoreOutcome};
use backup_sqlite::{
    Known, Recovery, RestoreOptions, SchemaState, SqlCheck, SqliteRestore, archive_set_aside, recover,
    remove_set_aside, set_aside,
};
use rusqlite::Connection;

use crate::child::Other;
use crate::support::{Backup, assert_whole_bank, bank, cancelling, case, mounted, names, transfer, vectors};

/// A folder with a live bank, a backup of it, and a live bank that has gone on since.
struct Scene {
    folder: tempfile::TempDir,
    live: PathBuf,
    backup: Backup,
}

impl Scene {
    fn new(mode: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("live");
        std::fs::create_dir(&place).unwrap();
        let live = place.join("bank.db");
        bank(&live, mode);
        let backup = Backup::of(&live, &folder.path().join("backup"), &[]);
        let connection = Connection::open(&live).unwrap();
        for number in 0..10 {
            transfer(&connection, number).unwrap();
        }
        Self { folder, live, backup }
    }

    fn place(&self) -> &Path {
        self.live.parent().unwrap()
    }

    /// Restores over the live bank.
    fn restore(&self, options: RestoreOptions) -> Result<RestoreOutcome, Error> {
        restore(&self.backup, &self.live, options)
    }

    /// A process was killed while it wrote: the last commit is in the -wal only.
    fn killed_with_a_log(&self) {
        let sql = "PRAGMA wal_autocheckpoint=0; INSERT INTO transfers(src, amount) VALUES (1, 0)";
        let mut holder = Other::start("holder", &[("DATABASE", &self.live), ("SQL", Path::new(sql))]);
        holder.wait_for("holding").unwrap();
        holder.kill();
        assert_eq!(names(self.place()), ["bank.db", "bank.db-shm", "bank.db-wal"]);
    }
}

fn restore(backup: &Backup, target: &Path, options: RestoreOptions) -> Result<RestoreOutcome, Error> {
    let restore = SqliteRestore::with_options(target, options);
    let plan = restore.plan(backup, &Context::new())?;
    restore.execute(&plan, backup, &Context::new())
}

fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    names(folder).into_iter().map(|name| (name.clone(), std::fs::read(folder.join(&name)).unwrap())).collect()
}

#[test]
fn a_database_is_restored_to_a_free_name() {
    let scene = Scene::new("wal");
    let target = scene.place().join("again.db");
    let restore = SqliteRestore::new(&target);
    let plan = restore.plan(&scene.backup, &Context::new()).unwrap();
    assert!(!target.exists(), "a plan changes nothing");
    assert_eq!(names(scene.place()), ["bank.db"]);
    assert!(plan.needs_bytes > scene.backup.manifest.objects[0].size_bytes);
    assert!(plan.free_bytes > plan.needs_bytes);
    assert!(plan.steps.iter().any(|step| step.contains("integrity check")), "{:?}", plan.steps);
    let outcome = restore.execute(&plan, &scene.backup, &Context::new()).unwrap();
    assert!(outcome.set_aside.is_empty());
    assert_eq!(assert_whole_bank(&target), 2_000);
    assert_eq!(target.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let checks: Vec<&str> = outcome.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(checks, ["integrity check", "foreign keys", "row counts", "mode and owner"]);
    assert!(outcome.checks.iter().all(|check| check.ok));
    assert_eq!(names(scene.place()), ["again.db", "bank.db"]);
}

#[test]
fn the_old_database_is_kept_with_its_log_and_the_new_one_gets_its_mode_and_owner() {
    let scene = Scene::new("wal");
    scene.killed_with_a_log();
    std::fs::set_permissions(&scene.live, std::fs::Permissions::from_mode(0o640)).unwrap();
    let root = scene.live.metadata().unwrap().uid() == 0;
    if root {
        std::os::unix::fs::chown(&scene.live, Some(1_234), Some(4_321)).unwrap();
    }
    let before = contents(scene.place());
    let outcome = scene.restore(RestoreOptions::default()).unwrap();
    let aside = &outcome.set_aside[0];
    let base = aside.file_name().unwrap().to_str().unwrap();
    assert!(base.starts_with("bank.db.bad-"), "{base}");
    assert_eq!(
        names(scene.place()),
        ["bank.db".to_owned(), base.to_owned(), format!("{base}-shm"), format!("{base}-wal")]
    );
    // Byte for byte what was there, the log too.
    for (name, bytes) in before.iter().filter(|(name, _)| !name.ends_with("-shm")) {
        let moved = scene.place().join(name.replace("bank.db", base));
        assert!(std::fs::read(&moved).unwrap() == *bytes, "{name}");
    }
    let new = scene.live.metadata().unwrap();
    assert_eq!(new.permissions().mode() & 0o777, 0o640);
    if root {
        assert_eq!((new.uid(), new.gid()), (1_234, 4_321));
    }
    assert_eq!(assert_whole_bank(&scene.live), 2_000);
    // SQLite finds the old log beside the old database.
    assert_eq!(assert_whole_bank(aside), 2_011);
}

#[test]
fn a_stale_log_without_its_database_never_meets_the_restored_one() {
    let scene = Scene::new("wal");
    scene.killed_with_a_log();
    // The runbook of others: only the database was moved away.
    std::fs::remove_file(&scene.live).unwrap();
    let outcome = scene.restore(RestoreOptions::default()).unwrap();
    assert_eq!(assert_whole_bank(&scene.live), 2_000);
    assert_eq!(outcome.set_aside.len(), 2, "{:?}", outcome.set_aside);
}

#[test]
fn vector_restore_stale_wal() {
    let Some(vectors) = vectors("vector_restore_stale_wal") else { return };
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    std::fs::create_dir(&good).unwrap();
    let source = good.join("aegis.db");
    std::fs::copy(vectors.join("restore-stale-wal/backup.db"), &source).unwrap();
    let backup = Backup::of(&source, &folder.path().join("backup"), &[]);
    let place = folder.path().join("live");
    std::fs::create_dir(&place).unwrap();
    let live = case(&vectors, "restore-stale-wal", &place);
    std::fs::copy(vectors.join("restore-stale-wal/aegis.db-wal"), place.join("aegis.db-wal")).unwrap();
    let policies = |path: &Path| -> rusqlite::Result<i64> {
        Connection::open(path)?.query_row("SELECT count(*) FROM policies", [], |row| row.get(0))
    };
    restore(&backup, &live, RestoreOptions::default()).unwrap();
    assert_eq!(policies(&live).unwrap(), 3);
    let check: String =
        Connection::open(&live).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[test]
fn a_database_in_use_is_refused_and_the_process_named() {
    for (mode, sql) in [
        // Idle on a rollback journal: no lock, only an open file.
        ("delete", "SELECT count(*) FROM accounts"),
        ("wal", "SELECT count(*) FROM accounts"),
        ("delete", "BEGIN EXCLUSIVE"),
        ("wal", "BEGIN IMMEDIATE"),
    ] {
        let scene = Scene::new(mode);
        let mut holder = Other::start("holder", &[("DATABASE", &scene.live), ("SQL", Path::new(sql))]);
        holder.wait_for("holding").unwrap();
        let error = scene.restore(RestoreOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse, "{mode} {sql}: {error}");
        if cfg!(target_os = "linux") {
            assert!(error.to_string().contains(&format!("({})", holder.id())), "{error}");
        }
        assert!(error.hint().is_some());
        // Killed, it holds nothing any more.
        holder.kill();
        scene.restore(RestoreOptions::default()).unwrap();
        assert_eq!(assert_whole_bank(&scene.live), 2_000);
    }
}

#[test]
fn a_database_that_this_process_has_open_is_refused() {
    let scene = Scene::new("delete");
    let connection = Connection::open(&scene.live).unwrap();
    let _: i64 = connection.query_row("SELECT count(*) FROM accounts", [], |row| row.get(0)).unwrap();
    if cfg!(target_os = "linux") {
        let error = scene.restore(RestoreOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
    }
    drop(connection);
    scene.restore(RestoreOptions::default()).unwrap();
}

#[test]
fn a_damaged_or_foreign_old_file_is_set_aside_as_it_is() {
    for bytes in [vec![0xa5_u8; 8_192], b"short".to_vec(), Vec::new()] {
        let scene = Scene::new("delete");
        std::fs::write(&scene.live, &bytes).unwrap();
        let outcome = scene.restore(RestoreOptions::default()).unwrap();
        assert_eq!(std::fs::read(&outcome.set_aside[0]).unwrap(), bytes);
        assert_eq!(assert_whole_bank(&scene.live), 2_000);
    }
}

#[test]
fn a_failed_check_leaves_everything_as_it_was() {
    let ask = |sql: &str, expected: &str| SqlCheck {
        name: "spot check".into(),
        sql: sql.into(),
        expected: Some(expected.into()),
    };
    type Spoil = fn(&mut Backup);
    let cases: [(&str, ErrorKind, RestoreOptions, Spoil); 5] = [
        (
            "spot check: expected 7, found 100",
            ErrorKind::Mismatch,
            RestoreOptions { checks: vec![ask("SELECT count(*) FROM accounts", "7")], ..Default::default() },
            |_| {},
        ),
        (
            "row counts: transfers: expected 1 rows, found 2000",
            ErrorKind::Mismatch,
            RestoreOptions::default(),
            |backup| {
                backup.manifest.sources[0].tables.insert("transfers".into(), 1);
            },
        ),
        ("integrity check", ErrorKind::Corrupt, RestoreOptions::default(), |backup| {
            let path = backup.root.join("database/bank.db");
            let mut bytes = std::fs::read(&path).unwrap();
            let page = bytes.len() / 4_096 / 2 * 4_096;
            bytes[page..page + 64].fill(0xee);
            std::fs::write(&path, bytes).unwrap();
        }),
        ("size in bytes", ErrorKind::Corrupt, RestoreOptions::default(), |backup| {
            let file =
                std::fs::File::options().write(true).open(backup.root.join("database/bank.db")).unwrap();
            file.set_len(8_192).unwrap();
        }),
        (
            "does not run",
            ErrorKind::InvalidInput,
            RestoreOptions { checks: vec![ask("SELECT nope", "1")], ..Default::default() },
            |_| {},
        ),
    ];
    for (says, kind, options, spoil) in cases {
        let mut scene = Scene::new("wal");
        scene.killed_with_a_log();
        spoil(&mut scene.backup);
        let before = contents(scene.place());
        let error = scene.restore(options).unwrap_err();
        assert_eq!(error.kind(), kind, "{says}: {error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
        assert!(contents(scene.place()) == before, "{says}: something was changed or left");
    }
}

#[test]
fn references_without_their_rows_refuse_unless_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("app.db");
    Connection::open(&source)
        .unwrap()
        .execute_batch(
            "PRAGMA foreign_keys=OFF; CREATE TABLE p(id INTEGER PRIMARY KEY);
             CREATE TABLE c(p REFERENCES p); INSERT INTO c VALUES (1)",
        )
        .unwrap();
    let backup = Backup::of(&source, &folder.path().join("backup"), &[]);
    let target = folder.path().join("new.db");
    let error = restore(&backup, &target, RestoreOptions::default()).unwrap_err();
    assert!(error.to_string().contains("foreign keys: 1 references without a row"), "{error}");
    assert!(!target.exists());
    restore(&backup, &target, RestoreOptions { foreign_keys: false, ..Default::default() }).unwrap();
}

#[test]
fn migrations_are_compared_before_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("app.db");
    Connection::open(&source)
        .unwrap()
        .execute_batch(
            "PRAGMA user_version=5; CREATE TABLE schema_meta(id INTEGER PRIMARY KEY, version);
             INSERT INTO schema_meta VALUES (1, 2)",
        )
        .unwrap();
    let backup = Backup::of(&source, &folder.path().join("backup"), &[]);
    let target = folder.path().join("new.db");
    let with = |known: Known| RestoreOptions { known: vec![known], ..Default::default() };
    let query = |max| Known::Query { sql: "SELECT version + 10 FROM schema_meta".into(), max };
    for known in [Known::UserVersion { max: 4 }, Known::SchemaMeta { max: 1 }] {
        let restore = SqliteRestore::with_options(&target, with(known.clone()));
        // Refused before a byte is written.
        let error = restore.plan(&backup, &Context::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Newer, "{known:?}: {error}");
        assert_eq!(restore.schema(&backup.manifest).unwrap()[0].state, SchemaState::Newer);
    }
    let error = restore(&backup, &target, with(query(11))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Newer, "{error}");
    assert_eq!(names(folder.path()), ["app.db", "backup"]);
    for (known, state) in [
        (Known::UserVersion { max: 5 }, "equal"),
        (Known::SchemaMeta { max: 3 }, "older"),
        (query(12), "equal"),
        (Known::Migrations(Vec::new()), "not-recorded"),
    ] {
        let outcome = restore(&backup, &target, with(known)).unwrap();
        let check = outcome.checks.iter().find(|check| check.name.starts_with("schema")).unwrap();
        assert!(check.detail.starts_with(state), "{check:?}");
    }
    let options = RestoreOptions { allow_newer: true, ..with(Known::UserVersion { max: 4 }) };
    let outcome = restore(&backup, &target, options).unwrap();
    assert!(outcome.checks.iter().any(|check| check.detail.starts_with("newer")));
}

/// What AegisAgent's own program does with each database, told before it would.
#[test]
fn vector_migrations() {
    let Some(vectors) = vectors("vector_migrations") else { return };
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str| {
        let place = folder.path().join(name);
        std::fs::create_dir(&place).unwrap();
        let source = case(&vectors, name, &place);
        Backup::of(&source, &place.join("backup"), &[])
    };
    let valid = of("valid");
    let known = vec![
        Known::Migrations(valid.manifest.sources[0].migrations.clone().unwrap().applied),
        Known::SchemaMeta { max: 1 },
    ];
    let applied = valid.manifest.sources[0].migrations.as_ref().unwrap();
    assert_eq!((applied.recorded_in.as_str(), applied.applied.len()), ("_sqlx_migrations", 31));
    for (name, states, refused) in [
        ("valid", [SchemaState::Equal, SchemaState::Equal], None),
        ("migration-behind", [SchemaState::Older, SchemaState::Equal], None),
        ("migration-unknown-newer", [SchemaState::Newer, SchemaState::Equal], Some(ErrorKind::Newer)),
        (
            "migration-checksum-changed",
            [SchemaState::Changed, SchemaState::Equal],
            Some(ErrorKind::Incompatible),
        ),
        ("schema-newer", [SchemaState::Equal, SchemaState::Newer], Some(ErrorKind::Newer)),
    ] {
        let backup = if name == "valid" {
            Backup { root: valid.root.clone(), manifest: valid.manifest.clone() }
        } else {
            of(name)
        };
        let target = folder.path().join(format!("{name}.db"));
        let options = RestoreOptions { known: known.clone(), ..Default::default() };
        let restore = SqliteRestore::with_options(&target, options);
        let found: Vec<SchemaState> =
            restore.schema(&backup.manifest).unwrap().iter().map(|verdict| verdict.state).collect();
        assert_eq!(found, states, "{name}");
        let plan = restore.plan(&backup, &Context::new());
        match refused {
            Some(kind) => assert_eq!(plan.unwrap_err().kind(), kind, "{name}"),
            None => {
                restore.execute(&plan.unwrap(), &backup, &Context::new()).unwrap();
                assert!(target.exists());
            }
        }
    }
    // A migration that did not run to its end.
    let place = folder.path().join("dirty");
    std::fs::create_dir(&place).unwrap();
    let source = case(&vectors, "valid", &place);
    Connection::open(&source)
        .unwrap()
        .execute("UPDATE _sqlx_migrations SET success = 0 WHERE version = (SELECT max(version) FROM _sqlx_migrations)", [])
        .unwrap();
    let backup = Backup::of(&source, &place.join("backup"), &[]);
    let restore = SqliteRestore::with_options(
        folder.path().join("dirty.db"),
        RestoreOptions { known, ..Default::default() },
    );
    assert_eq!(restore.plan(&backup, &Context::new()).unwrap_err().kind(), ErrorKind::Incompatible);
}

#[test]
fn a_place_where_no_database_can_be_is_refused() {
    let scene = Scene::new("delete");
    let at = |name: &str| scene.folder.path().join(name);
    std::fs::create_dir(at("folder.db")).unwrap();
    std::os::unix::fs::symlink(at("nowhere"), at("dangling.db")).unwrap();
    std::fs::write(at("file"), b"").unwrap();
    for (target, kind) in [
        (at("folder.db"), ErrorKind::InvalidInput),
        (at("dangling.db"), ErrorKind::InvalidInput),
        (at("no/such/folder.db"), ErrorKind::NotFound),
        (at("file/app.db"), ErrorKind::InvalidInput),
        (at("app.db-wal"), ErrorKind::InvalidName),
        (at(&"x".repeat(230)), ErrorKind::InvalidName),
    ] {
        let error = restore(&scene.backup, &target, RestoreOptions::default()).unwrap_err();
        assert_eq!(error.kind(), kind, "{}: {error}", target.display());
    }
    assert!(at("dangling.db").symlink_metadata().unwrap().is_symlink() && !at("nowhere").exists());
}

#[test]
fn a_target_that_is_a_link_is_replaced_where_it_points() {
    let scene = Scene::new("delete");
    let link = scene.folder.path().join("link.db");
    std::os::unix::fs::symlink(&scene.live, &link).unwrap();
    let outcome = restore(&scene.backup, &link, RestoreOptions::default()).unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(assert_whole_bank(&scene.live), 2_000);
    assert_eq!(outcome.set_aside[0].parent(), Some(scene.place().canonicalize().unwrap().as_path()));
    assert_eq!(set_aside(&link).unwrap().len(), 1);
}

#[test]
fn which_database_is_meant_is_asked_where_there_are_several() {
    let mut scene = Scene::new("delete");
    let mut second = scene.backup.manifest.objects[0].clone();
    second.name = "database/other.db".into();
    scene.backup.manifest.objects.push(second);
    let error = scene.restore(RestoreOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.hint().unwrap().contains("database/bank.db, database/other.db"));
    let object = |name: &str| RestoreOptions { object: Some(name.into()), ..Default::default() };
    assert_eq!(scene.restore(object("database/none.db")).unwrap_err().kind(), ErrorKind::NotFound);
    scene.restore(object("database/bank.db")).unwrap();
    scene.backup.manifest.objects.clear();
    assert_eq!(scene.restore(RestoreOptions::default()).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_plan_for_another_backup_is_refused() {
    let scene = Scene::new("delete");
    let restore = SqliteRestore::new(&scene.live);
    let mut plan = restore.plan(&scene.backup, &Context::new()).unwrap();
    plan.backup = "b2".into();
    let error = restore.execute(&plan, &scene.backup, &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_cancelled_restore_leaves_everything_as_it_was() {
    let scene = Scene::new("wal");
    scene.killed_with_a_log();
    let before = contents(scene.place());
    let restore = SqliteRestore::new(&scene.live);
    let plan = restore.plan(&scene.backup, &Context::new()).unwrap();
    let ctx = cancelling(|progress| progress.stage == "restore");
    let error = restore.execute(&plan, &scene.backup, &ctx).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(contents(scene.place()) == before);
}

#[test]
fn of_two_restores_at_once_one_is_refused_and_the_other_is_whole() {
    let scene = Scene::new("wal");
    let restore = SqliteRestore::new(&scene.live);
    let plan = restore.plan(&scene.backup, &Context::new()).unwrap();
    std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..2).map(|_| scope.spawn(|| restore.execute(&plan, &scene.backup, &Context::new()))).collect();
        let results: Vec<_> = calls.into_iter().map(|call| call.join().unwrap()).collect();
        // One after the other is fine too; at once, one is told.
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
        }
        assert!(results.iter().any(Result::is_ok));
    });
    assert_eq!(assert_whole_bank(&scene.live), 2_000);
    assert!(names(scene.place()).iter().all(|name| !name.starts_with('.')));
}

#[test]
fn what_was_set_aside_is_listed_archived_and_removed() {
    let scene = Scene::new("wal");
    scene.killed_with_a_log();
    for _ in 0..3 {
        scene.restore(RestoreOptions::default()).unwrap();
    }
    let found = set_aside(&scene.live).unwrap();
    assert_eq!(found.len(), 3, "three in one second have three names: {:?}", names(scene.place()));
    assert_eq!(found[0].files.len(), 3);
    let age = jiff::Timestamp::now().as_second() - found[0].at.as_second();
    assert!((0..60).contains(&age), "{age} s");

    let archive = scene.folder.path().join("archive");
    let missing = archive_set_aside(&found[0], &archive, &Context::new()).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    std::fs::create_dir(&archive).unwrap();
    let moved = archive_set_aside(&found[0], &archive, &Context::new()).unwrap();
    assert_eq!(moved.len(), 3);
    assert_eq!(assert_whole_bank(&moved[0]), 2_011, "the archived database has its log beside it");
    assert_eq!(
        archive_set_aside(&found[0], &archive, &Context::new()).unwrap_err().kind(),
        ErrorKind::NotFound
    );

    let mut holder =
        Other::start("holder", &[("DATABASE", &found[1].path), ("SQL", Path::new("SELECT * FROM accounts"))]);
    holder.wait_for("holding").unwrap();
    if cfg!(target_os = "linux") {
        assert_eq!(remove_set_aside(&found[1]).unwrap_err().kind(), ErrorKind::InUse);
    }
    holder.kill();
    remove_set_aside(&found[1]).unwrap();
    remove_set_aside(&found[2]).unwrap();
    assert_eq!(names(scene.place()), ["bank.db"]);

    let mut hostile = found[2].clone();
    hostile.path = scene.live.clone();
    assert_eq!(remove_set_aside(&hostile).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(scene.live.exists());
}

#[test]
fn an_archive_on_another_file_system_is_copied_and_then_removed() {
    use std::os::unix::fs::MetadataExt as _;
    let scene = Scene::new("delete");
    scene.restore(RestoreOptions::default()).unwrap();
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        crate::support::left_out(
            "an_archive_on_another_file_system_is_copied_and_then_removed",
            "no /dev/shm",
        );
        return;
    };
    if other.path().metadata().unwrap().dev() == scene.folder.path().metadata().unwrap().dev() {
        crate::support::left_out(
            "an_archive_on_another_file_system_is_copied_and_then_removed",
            "one file system",
        );
        return;
    }
    let found = set_aside(&scene.live).unwrap();
    let moved = archive_set_aside(&found[0], other.path(), &Context::new()).unwrap();
    assert_eq!(assert_whole_bank(&moved[0]), 2_010);
    assert_eq!(names(scene.place()), ["bank.db"]);
}

#[test]
fn nothing_is_recovered_where_nothing_was_interrupted() {
    let scene = Scene::new("delete");
    let before = contents(scene.place());
    assert_eq!(recover(&scene.live).unwrap(), Recovery::Nothing);
    assert!(contents(scene.place()) == before);
    // A folder that a restore left before it came to the swap.
    let staging = scene.place().join(".bank.db.attestore-restore");
    std::fs::create_dir(&staging).unwrap();
    std::fs::write(staging.join("restored.db"), b"half").unwrap();
    assert_eq!(recover(&scene.live).unwrap(), Recovery::Nothing);
    assert!(contents(scene.place()) == before);
}

/// Restores in another process, while another program fills the disk where that is asked for, and says what came of it.
pub(crate) fn role() {
    let (target, backup) = (crate::child::argument("DATABASE"), Backup::open(&crate::child::argument("DIR")));
    let options = RestoreOptions { busy_timeout: Duration::from_secs(1), ..Default::default() };
    let fill = std::env::var_os("FILL").map(PathBuf::from);
    let ctx = Context::new().with_progress(move |_| {
        if let Some(fill) = fill.as_ref().filter(|fill| !fill.exists()) {
            // Fails when the disk is full, which is what it is for.
            let _ = std::fs::write(fill, vec![1_u8; 64 << 20]);
        }
    });
    let restore = SqliteRestore::with_options(&target, options);
    match restore.plan(&backup, &ctx).and_then(|plan| restore.execute(&plan, &backup, &ctx)) {
        Ok(_) => crate::child::say("done"),
        Err(error) => crate::child::say(&format!("failed {} {error}", error.kind().name())),
    }
    crate::child::say(&format!("left {:?}", names(target.parent().unwrap())));
}

#[test]
fn a_disk_that_fills_while_it_is_restored_leaves_everything_as_it_was() {
    let test = "a_disk_that_fills_while_it_is_restored_leaves_everything_as_it_was";
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("bank.db");
    bank(&source, "delete");
    Connection::open(&source)
        .unwrap()
        .execute_batch("CREATE TABLE big(b); INSERT INTO big VALUES (zeroblob(30000000))")
        .unwrap();
    let backup = Backup::of(&source, &folder.path().join("backup"), &[]);
    backup.save();
    let place = folder.path().join("small");
    std::fs::create_dir(&place).unwrap();
    let live = place.join("bank.db");
    let then = format!("echo old > '{}' &&", live.display());
    let Some(command) = mounted(test, &place, "size=50m", &then) else { return };
    let fill = place.join("other");
    let arguments = [("DATABASE", live.as_path()), ("DIR", &backup.root), ("FILL", &fill)];
    let mut child = Other::start_with(command, "restore-told", &arguments);
    let said = child.wait_for("failed").unwrap_or_default();
    assert!(said.starts_with("NoSpace "), "{said:?}");
    assert_eq!(child.wait_for("left").unwrap(), "[\"bank.db\", \"other\"]");
    assert!(child.finish());
}

#[test]
fn no_room_or_a_read_only_place_is_told_before_a_byte_is_written() {
    let scene = Scene::new("delete");
    scene.backup.save();
    let place = scene.folder.path().join("mounted");
    std::fs::create_dir(&place).unwrap();
    let frozen = format!("mount -o remount,ro '{}' &&", place.display());
    for (options, then, says) in [("size=1m", "", "NoSpace "), ("size=16m", frozen.as_str(), "Permission ")] {
        let test = "no_room_or_a_read_only_place_is_told_before_a_byte_is_written";
        let Some(command) = mounted(test, &place, options, then) else { return };
        let target = place.join("bank.db");
        let arguments = [("DATABASE", target.as_path()), ("DIR", &scene.backup.root)];
        let mut child = Other::start_with(command, "restore-told", &arguments);
        let said = child.wait_for("failed").unwrap();
        assert!(said.starts_with(says), "{said}");
        assert!(child.finish());
    }
}

#[test]
fn an_owner_that_could_not_be_kept_refuses() {
    let Some(user) = crate::support::nobody("an_owner_that_could_not_be_kept_refuses") else { return };
    let scene = Scene::new("delete");
    scene.backup.save();
    for path in [scene.folder.path(), scene.place()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let before = contents(scene.place());
    let arguments = [("DATABASE", scene.live.as_path()), ("DIR", &scene.backup.root)];
    let mut child = Other::start_with(user(), "restore-told", &arguments);
    let said = child.wait_for("failed").unwrap();
    assert!(said.starts_with("Permission the owner of"), "{said}");
    assert!(child.finish());
    assert!(contents(scene.place()) == before);
}
