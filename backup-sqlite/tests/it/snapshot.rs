//! Snapshots under writers, in every journal mode, by both methods; what cannot be copied; cancellation.

use std::path::Path;
use std::time::Duration;

use backup_core::context::{Cancel, Context};
use backup_core::error::ErrorKind;
use backup_core::traits::Snapshot as _;
use backup_sqlite::{Method, SourceOptions, SqliteSource};
use rusqlite::Connection;

use crate::child::{Other, argument, say};
use crate::support::{Backup, Folder, assert_whole_bank, bank, cancelling, mounted, names, nobody};

const MODES: [&str; 6] = ["delete", "truncate", "persist", "memory", "wal", "off"];

fn source(path: &Path, method: Method) -> SqliteSource {
    let options = SourceOptions { method, busy_timeout: Duration::from_secs(60), ..SourceOptions::default() };
    SqliteSource::with_options(path, options)
}

/// Takes several snapshots while two processes write.
fn snapshots_under_writers(mode: &str, method: Method) {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("bank.db");
    bank(&database, mode);
    let start = || {
        let mut writer = Other::start("writer", &[("DATABASE", &database), ("MODE", Path::new(mode))]);
        writer.wait_for("writing").expect("the writer writes");
        writer
    };
    // Without a journal two writers could not take back what a lock refused: one writes.
    let mut writers = vec![start()];
    if mode != "off" && mode != "memory" {
        writers.push(start());
    }
    let mut before = 0;
    for round in 0..3 {
        let to = Folder::new(&folder.path().join(format!("backup{round}")));
        let outcome = source(&database, method).snapshot(&[], &to, &Context::new()).unwrap();
        let copy = to.object("database/bank.db");
        let transfers = assert_whole_bank(&copy);
        assert!(transfers >= before, "{transfers} transfers after {before}");
        before = transfers;
        assert_eq!(outcome.facts.tables["transfers"], u64::try_from(transfers).unwrap());
        assert_eq!(outcome.facts.tables["accounts"], 100);
        assert_eq!(outcome.facts.details["method"], method.name());
        assert_eq!(outcome.facts.details["journal_mode"] == "wal", mode == "wal");
        assert_eq!(names(&to.root.join("scratch")), [""; 0], "the scratch folder is empty again");
    }
    assert!(before > 2_000, "the writers wrote while the copies were made");
    // In `off` and `memory` a killed writer leaves a torn database behind by design; elsewhere it must be whole.
    writers.clear();
    if mode != "off" && mode != "memory" {
        assert_whole_bank(&database);
    }
}

macro_rules! under_writers {
    ($($name:ident: $mode:literal, $method:ident;)*) => {
        $(#[test]
        fn $name() {
            assert!(MODES.contains(&$mode));
            snapshots_under_writers($mode, Method::$method);
        })*
    };
}

under_writers! {
    vacuum_into_is_whole_under_writers_in_delete_mode: "delete", VacuumInto;
    vacuum_into_is_whole_under_writers_in_truncate_mode: "truncate", VacuumInto;
    vacuum_into_is_whole_under_writers_in_persist_mode: "persist", VacuumInto;
    vacuum_into_is_whole_under_writers_in_memory_mode: "memory", VacuumInto;
    vacuum_into_is_whole_under_writers_in_wal_mode: "wal", VacuumInto;
    vacuum_into_is_whole_under_a_writer_without_journal: "off", VacuumInto;
    online_backup_is_whole_under_writers_in_delete_mode: "delete", OnlineBackup;
    online_backup_is_whole_under_writers_in_truncate_mode: "truncate", OnlineBackup;
    online_backup_is_whole_under_writers_in_persist_mode: "persist", OnlineBackup;
    online_backup_is_whole_under_writers_in_memory_mode: "memory", OnlineBackup;
    online_backup_is_whole_under_writers_in_wal_mode: "wal", OnlineBackup;
    online_backup_is_whole_under_a_writer_without_journal: "off", OnlineBackup;
}

#[test]
fn a_snapshot_leaves_nothing_beside_a_wal_database() {
    for method in [Method::VacuumInto, Method::OnlineBackup] {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("live").join("app.db");
        std::fs::create_dir(database.parent().unwrap()).unwrap();
        bank(&database, "wal");
        assert_eq!(names(database.parent().unwrap()), ["app.db"]);
        let to = Folder::new(&folder.path().join("backup"));
        let outcome = source(&database, method).snapshot(&[], &to, &Context::new()).unwrap();
        assert_eq!(names(database.parent().unwrap()), ["app.db"], "{method:?}");
        assert_eq!(names(&to.root.join("database")), ["app.db"]);
        assert!(outcome.facts.not_included.iter().any(|line| line.contains("WAL mode")));
        // The copy stands alone: no -wal appears beside it when it is read.
        let header = std::fs::read(to.object("database/app.db")).unwrap();
        assert_eq!(&header[18..20], [1, 1], "{method:?}: rollback-journal mode");
        assert_whole_bank(&to.object("database/app.db"));
        assert_eq!(names(&to.root.join("database")), ["app.db"]);
    }
}

#[test]
fn what_only_the_wal_holds_is_in_the_copy() {
    for method in [Method::VacuumInto, Method::OnlineBackup] {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        bank(&database, "wal");
        let sql = "PRAGMA wal_autocheckpoint=0; INSERT INTO transfers(src, amount) VALUES (1, 0)";
        let mut holder = Other::start("holder", &[("DATABASE", &database), ("SQL", Path::new(sql))]);
        holder.wait_for("holding").unwrap();
        // Killed: the row is in the -wal only.
        holder.kill();
        assert!(folder.path().join("app.db-wal").metadata().unwrap().len() > 0);
        let to = Folder::new(&folder.path().join("backup"));
        source(&database, method).snapshot(&[], &to, &Context::new()).unwrap();
        assert_eq!(assert_whole_bank(&to.object("database/app.db")), 2_001, "{method:?}");
    }
}

#[test]
fn what_is_not_a_database_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("empty.db"), b"").unwrap();
    std::fs::write(at("short.db"), vec![b'x'; 300]).unwrap();
    std::fs::write(at("text.db"), "not a database\n".repeat(100)).unwrap();
    // What SQLCipher leaves on disk: whole pages of noise.
    let noise: Vec<u8> = (0..8_192_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(at("encrypted.db"), noise).unwrap();
    std::os::unix::fs::symlink(at("nowhere"), at("dangling.db")).unwrap();
    for (name, kind, says) in [
        ("missing.db", ErrorKind::NotFound, "there is no such file"),
        ("dangling.db", ErrorKind::NotFound, "symbolic link to nothing"),
        ("", ErrorKind::InvalidInput, "found a directory"),
        ("empty.db", ErrorKind::Malformed, "0 bytes"),
        ("short.db", ErrorKind::Malformed, "300 bytes"),
        ("text.db", ErrorKind::Malformed, "not a SQLite database"),
        ("encrypted.db", ErrorKind::KeyRejected, "encrypted"),
    ] {
        let source = source(&at(name), Method::VacuumInto);
        let to = Folder::new(&folder.path().join("backup"));
        for error in [
            source.preflight(&Context::new()).unwrap_err(),
            source.snapshot(&[], &to, &Context::new()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), kind, "{name}: {error}");
            assert!(error.to_string().contains(says), "{name}: {error}");
            assert!(error.hint().is_some(), "{name}");
        }
        assert_eq!(names(&to.root), ["scratch"], "{name}");
        assert_eq!(names(&to.root.join("scratch")), [""; 0], "{name}");
    }
    assert!(!at("missing.db").exists() && !at("nowhere").exists(), "nothing is created");
}

#[test]
fn a_damaged_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    bank(&database, "delete");
    let mut bytes = std::fs::read(&database).unwrap();
    // The type byte of every page but the first.
    for page in 1..bytes.len() / 4_096 {
        bytes[page * 4_096] = 0xee;
    }
    std::fs::write(&database, bytes).unwrap();
    for method in [Method::VacuumInto, Method::OnlineBackup] {
        let to = Folder::new(&folder.path().join(method.name()));
        let error = source(&database, method).snapshot(&[], &to, &Context::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{method:?}: {error}");
        assert_eq!(names(&to.root.join("scratch")), [""; 0]);
    }
}

#[test]
fn a_database_that_stays_locked_is_told_after_the_busy_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    bank(&database, "delete");
    let mut holder =
        Other::start("holder", &[("DATABASE", &database), ("SQL", Path::new("BEGIN EXCLUSIVE"))]);
    holder.wait_for("holding").unwrap();
    let options = SourceOptions { busy_timeout: Duration::from_millis(300), ..SourceOptions::default() };
    let source = SqliteSource::with_options(&database, options);
    let error = source.preflight(&Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("held its lock for"), "{error}");
    // A lock of a dead process is none.
    holder.kill();
    source.preflight(&Context::new()).unwrap();
}

#[test]
fn cancelling_while_waiting_for_a_lock_does_not_wait_on() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    bank(&database, "delete");
    let locking = Connection::open(&database).unwrap();
    locking.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let cancel = Cancel::new();
    let ctx = Context::new().with_cancel(cancel.clone());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| source(&database, Method::VacuumInto).preflight(&ctx));
        std::thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished());
        cancel.cancel();
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    });
}

#[test]
fn cancelling_a_copy_leaves_nothing() {
    for (method, stage) in
        [(Method::OnlineBackup, "snapshot"), (Method::OnlineBackup, "store"), (Method::VacuumInto, "store")]
    {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        bank(&database, "wal");
        let connection = Connection::open(&database).unwrap();
        connection.execute_batch("CREATE TABLE big(b); INSERT INTO big VALUES (zeroblob(30000000))").unwrap();
        let to = Folder::new(&folder.path().join("backup"));
        let ctx = cancelling(move |progress| progress.stage == stage);
        let error = source(&database, method).snapshot(&[], &to, &ctx).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{method:?} {stage}");
        assert_eq!(names(&to.root.join("scratch")), [""; 0], "{method:?} {stage}");
        connection.execute_batch("DROP TABLE big").unwrap();
    }
}

#[test]
fn progress_of_both_methods_moves_to_its_end() {
    use std::sync::{Arc, Mutex};
    for method in [Method::VacuumInto, Method::OnlineBackup] {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        bank(&database, "wal");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let ctx = Context::new().with_progress(move |progress| {
            if progress.stage == "snapshot" {
                log.lock().unwrap().push((progress.done, progress.total.unwrap()));
            }
        });
        let to = Folder::new(&folder.path().join("backup"));
        source(&database, method).snapshot(&[], &to, &ctx).unwrap();
        let seen = seen.lock().unwrap();
        let (done, total) = *seen.last().unwrap();
        assert_eq!(done, total, "{method:?}");
        assert!(seen.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{method:?}: {seen:?}");
    }
}

#[test]
fn facts_say_what_the_database_is() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("my app.db");
    let connection = Connection::open(&database).unwrap();
    connection
        .execute_batch(
            "PRAGMA page_size=8192; PRAGMA encoding='UTF-16le'; PRAGMA user_version=7; PRAGMA application_id=42;
             CREATE TABLE \"odd \"\"name\"(a); INSERT INTO \"odd \"\"name\" VALUES ('é'), (2);
             CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID; CREATE VIRTUAL TABLE f USING fts5(t); CREATE VIEW v AS SELECT 1;",
        )
        .unwrap();
    let to = Folder::new(&folder.path().join("backup"));
    let facts = source(&database, Method::VacuumInto).snapshot(&[], &to, &Context::new()).unwrap().facts;
    assert_eq!((facts.kind.as_str(), facts.name.as_str()), ("sqlite", "my_app"));
    assert_eq!(facts.engine, format!("SQLite {}", rusqlite::version()));
    assert_eq!(facts.size_bytes, to.object("database/my_app.db").metadata().unwrap().len());
    let tables: Vec<(&str, u64)> = facts.tables.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
    assert_eq!(tables, [("odd \"name", 2), ("w", 0)]);
    for (name, value) in
        [("page_size", "8192"), ("encoding", "UTF-16le"), ("user_version", "7"), ("application_id", "42")]
    {
        assert_eq!(facts.details[name], value, "{name}");
    }
    assert_eq!(facts.migrations.unwrap().version, "7");
    assert!(facts.not_included.len() >= 3);
}

#[test]
fn the_bundled_sqlite_has_the_wal_reset_fix() {
    assert!(rusqlite::version_number() >= 3_051_003, "SQLite {}", rusqlite::version());
}

#[test]
fn a_path_that_is_not_utf8_is_copied_page_by_page_and_refused_by_vacuum() {
    use std::os::unix::ffi::OsStringExt as _;
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join(std::ffi::OsString::from_vec(b"odd \xff".to_vec()));
    std::fs::create_dir(&odd).unwrap();
    let database = odd.join("app.db");
    bank(&database, "wal");
    let to = Folder::new(&odd.join("backup"));
    let error = source(&database, Method::VacuumInto).snapshot(&[], &to, &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    source(&database, Method::OnlineBackup).snapshot(&[], &to, &Context::new()).unwrap();
    assert_eq!(assert_whole_bank(&to.object("database/app.db")), 2_000);
}

#[test]
fn a_schema_with_functions_of_the_service_is_copied_page_by_page() {
    use backup_core::traits::Restore as _;
    use backup_sqlite::{Integrity, RestoreOptions, SqliteRestore};
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let connection = Connection::open(&database).unwrap();
    connection
        .create_scalar_function(
            "fold",
            1,
            rusqlite::functions::FunctionFlags::SQLITE_DETERMINISTIC
                | rusqlite::functions::FunctionFlags::SQLITE_UTF8,
            |call| call.get::<String>(0).map(|text| text.to_lowercase()),
        )
        .unwrap();
    connection
        .execute_batch("CREATE TABLE t(a TEXT, b AS (fold(a)) STORED); INSERT INTO t VALUES ('A'); CREATE INDEX i ON t(fold(a))")
        .unwrap();
    drop(connection);
    let to = Folder::new(&folder.path().join("vacuum"));
    let error = source(&database, Method::VacuumInto).snapshot(&[], &to, &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.hint().unwrap().contains("online-backup"));
    let to = Folder::new(&folder.path().join("online"));
    let outcome = source(&database, Method::OnlineBackup).snapshot(&[], &to, &Context::new()).unwrap();
    let backup = Backup::kept(&to.root, outcome, &[]);
    let restore = |integrity| {
        let options = RestoreOptions { integrity, ..RestoreOptions::default() };
        let restore = SqliteRestore::with_options(folder.path().join("new.db"), options);
        let plan = restore.plan(&backup, &Context::new()).unwrap();
        restore.execute(&plan, &backup, &Context::new())
    };
    let error = restore(Integrity::Full).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    restore(Integrity::Quick).unwrap();
}

/// Takes a snapshot and says what came of it.
pub(crate) fn role() {
    let to = Folder::new(&argument("DIR"));
    match SqliteSource::new(argument("DATABASE")).snapshot(&[], &to, &Context::new()) {
        Ok(outcome) => say(&format!("made {}", outcome.facts.tables["transfers"])),
        Err(error) => say(&format!("failed {} {error}", error.kind().name())),
    }
}

#[test]
fn a_database_on_read_only_media_is_read_where_nothing_is_to_be_recovered() {
    let test = "a_database_on_read_only_media_is_read_where_nothing_is_to_be_recovered";
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.db");
    bank(&good, "wal");
    let killed = folder.path().join("killed.db");
    bank(&killed, "wal");
    let sql = "PRAGMA wal_autocheckpoint=0; INSERT INTO transfers(src, amount) VALUES (1, 0)";
    let mut holder = Other::start("holder", &[("DATABASE", &killed), ("SQL", Path::new(sql))]);
    holder.wait_for("holding").unwrap();
    holder.kill();
    let media = folder.path().join("media");
    std::fs::create_dir(&media).unwrap();
    let here = folder.path().display();
    let there = media.display();
    let then = format!(
        "cp '{here}/good.db' '{here}/killed.db' '{here}/killed.db-wal' '{there}' && mount -o remount,ro '{there}' &&"
    );
    for (name, says) in [("good.db", "made 2000"), ("killed.db", "failed Permission")] {
        let Some(command) = mounted(test, &media, "size=16m", &then) else { return };
        let arguments =
            [("DATABASE", media.join(name)), ("DIR", folder.path().join(format!("backup-{name}")))];
        let arguments: Vec<(&str, &Path)> =
            arguments.iter().map(|(name, path)| (*name, path.as_path())).collect();
        let mut child = Other::start_with(command, "snapshot-told", &arguments);
        let (word, rest) = says.split_once(' ').unwrap();
        let said = child.wait_for(word).unwrap_or_default();
        assert!(said.starts_with(rest), "{name}: {said:?}");
        assert!(child.finish());
    }
}

#[test]
fn a_folder_that_this_user_cannot_write_is_told() {
    let Some(user) = nobody("a_folder_that_this_user_cannot_write_is_told") else { return };
    let folder = tempfile::tempdir().unwrap();
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open_to_all).unwrap();
    let dir = folder.path().join("backup");
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(65_534), Some(65_534)).unwrap();
    let rollback = folder.path().join("rollback.db");
    bank(&rollback, "delete");
    let wal = folder.path().join("wal.db");
    bank(&wal, "wal");
    let secret = folder.path().join("secret.db");
    bank(&secret, "delete");
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for (database, says) in
        [(rollback, "made 2000"), (wal, "failed Permission"), (secret, "failed Permission")]
    {
        let mut child = Other::start_with(user(), "snapshot-told", &[("DATABASE", &database), ("DIR", &dir)]);
        let (word, rest) = says.split_once(' ').unwrap();
        let said = child.wait_for(word).unwrap_or_default();
        assert!(said.starts_with(rest), "{}: {said:?}", database.display());
        assert!(child.finish());
    }
}
