//! A backup as one file in a folder: names, exclusivity, crashes, full disks.

use std::path::Path;
use std::time::Duration;

use backup_core::context::Context;
use backup_core::error::ErrorKind;
use backup_sqlite::{BackupIntoOptions, Method, backup_into};
use rusqlite::Connection;

use crate::child::{Other, argument, say};
use crate::support::{assert_whole_bank, bank, cancelling, moment, mounted, names, rounds, transfer};

fn options() -> BackupIntoOptions {
    BackupIntoOptions { busy_timeout: Duration::from_secs(60), ..BackupIntoOptions::default() }
}

#[test]
fn a_backup_is_one_whole_file_and_its_folder_is_made() {
    use std::os::unix::fs::PermissionsExt as _;
    for method in [Method::VacuumInto, Method::OnlineBackup] {
        let folder = tempfile::tempdir().unwrap();
        let live = folder.path().join("app.db");
        bank(&live, "wal");
        std::fs::set_permissions(&live, std::fs::Permissions::from_mode(0o640)).unwrap();
        let dir = folder.path().join("var").join("backups");
        let options = BackupIntoOptions { method, ..options() };
        let made = backup_into(&live, &dir, "snap.db", &options, &Context::new()).unwrap();
        assert_eq!(made.path, dir.join("snap.db"));
        assert_eq!(made.size_bytes, made.path.metadata().unwrap().len());
        assert_eq!(names(&dir), ["snap.db"]);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&made.path)), (0o700, 0o640));
        assert_eq!(assert_whole_bank(&made.path), 2_000);
        assert_eq!(names(folder.path()), ["app.db", "var"], "{method:?}");
    }
}

#[test]
fn names_that_are_not_bare_are_refused_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("app.db");
    bank(&live, "delete");
    let dir = folder.path().join("backups");
    std::fs::create_dir(&dir).unwrap();
    let long = "x".repeat(300);
    for name in [
        // Those that the system itself refuses …
        "",
        "../x",
        "a/b",
        "/etc/x",
        ".",
        "..",
        "a..b.db",
        "dir/",
        "./x",
        // … and those that it accepts, to its harm.
        "a\\b.db",
        " ",
        ".hidden",
        "-wal",
        "file:x?mode=memory",
        "new\nline.db",
        "snap.db-journal",
        "snap.db-wal",
        "snap.db-shm",
        "nul\0byte.db",
        "-rf",
        "snap.db-WAL",
        long.as_str(),
    ] {
        let error = backup_into(&live, &dir, name, &options(), &Context::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName, "{name:?}: {error}");
        assert!(error.hint().is_some(), "{name:?}");
        assert_eq!(names(&dir), [""; 0], "{name:?}");
        assert_eq!(names(folder.path()), ["app.db", "backups"], "{name:?}");
    }
}

#[test]
fn a_taken_name_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("app.db");
    bank(&live, "wal");
    let dir = folder.path().join("backups");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("file.db"), b"old").unwrap();
    std::fs::write(dir.join("empty.db"), b"").unwrap();
    std::fs::create_dir(dir.join("folder.db")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("elsewhere.db"), dir.join("dangling.db")).unwrap();
    std::fs::write(dir.join("stale.db-wal"), b"old log").unwrap();
    std::fs::write(dir.join("hot.db-journal"), b"old journal").unwrap();
    let before = names(&dir);
    for name in ["file.db", "empty.db", "folder.db", "dangling.db", "stale.db", "hot.db"] {
        let error = backup_into(&live, &dir, name, &options(), &Context::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{name}: {error}");
    }
    assert_eq!(names(&dir), before);
    assert_eq!(std::fs::read(dir.join("file.db")).unwrap(), b"old");
    assert!(!folder.path().join("elsewhere.db").exists(), "the link was not followed");
}

#[test]
fn of_two_backups_with_one_name_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("app.db");
    bank(&live, "wal");
    let dir = folder.path().join("backups");
    let results: Vec<_> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| backup_into(&live, &dir, "snap.db", &options(), &Context::new())))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
    assert_eq!(names(&dir), ["snap.db"]);
    assert_whole_bank(&dir.join("snap.db"));
}

#[test]
fn a_connection_of_the_service_is_copied_while_others_write() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("app.db");
    bank(&live, "wal");
    let mut writer = Other::start("writer", &[("DATABASE", &live), ("MODE", Path::new("wal"))]);
    writer.wait_for("writing").unwrap();
    let connection = Connection::open(&live).unwrap();
    connection.execute_batch("PRAGMA synchronous=NORMAL").unwrap();
    let dir = folder.path().join("backups");
    for (name, method) in [("a.db", Method::VacuumInto), ("b.db", Method::OnlineBackup)] {
        let options = BackupIntoOptions { method, ..options() };
        let made = backup_into(&connection, &dir, name, &options, &Context::new()).unwrap();
        assert_whole_bank(&made.path);
    }
    let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
    assert_eq!(synchronous, 1, "the connection's settings are the service's");
    writer.kill();
    transfer(&connection, 5).unwrap();

    connection.execute_batch("BEGIN").unwrap();
    let error = backup_into(&connection, &dir, "c.db", &options(), &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let memory = Connection::open_in_memory().unwrap();
    let error = backup_into(&memory, &dir, "c.db", &options(), &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(names(&dir), ["a.db", "b.db"]);
}

#[test]
fn a_place_that_is_no_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("app.db");
    bank(&live, "delete");
    std::fs::write(folder.path().join("file"), b"").unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
    for dir in ["file", "link"] {
        let error =
            backup_into(&live, folder.path().join(dir), "a.db", &options(), &Context::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{dir}: {error}");
    }
    let missing = folder.path().join("none.db");
    let dir = folder.path().join("backups");
    let error = backup_into(&missing, &dir, "a.db", &options(), &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!dir.exists() && !missing.exists());
}

#[test]
fn a_cancelled_backup_leaves_nothing_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("app.db");
    bank(&live, "wal");
    let dir = folder.path().join("backups");
    for method in [Method::VacuumInto, Method::OnlineBackup] {
        let options = BackupIntoOptions { method, ..options() };
        let error = backup_into(&live, &dir, "snap.db", &options, &cancelling(|_| true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{method:?}");
        assert_eq!(names(&dir), [""; 0], "{method:?}");
    }
}

/// Backs up again and again until killed.
pub(crate) fn role() {
    let (live, dir) = (argument("DATABASE"), argument("DIR"));
    say("begins");
    for number in 0..10_000 {
        let method = if number % 2 == 0 { Method::VacuumInto } else { Method::OnlineBackup };
        let options = BackupIntoOptions { method, ..options() };
        let name = format!("{}-{number}.db", std::process::id());
        backup_into(&live, &dir, &name, &options, &Context::new()).unwrap();
    }
}

#[test]
fn a_backup_killed_at_any_point_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("app.db");
    bank(&live, "wal");
    let dir = folder.path().join("backups");
    for round in 0..rounds(10) {
        let mut child = Other::start("into", &[("DATABASE", &live), ("DIR", &dir)]);
        child.wait_for("begins").unwrap();
        moment(round, Duration::from_millis(80));
        child.kill();
        if !dir.exists() {
            continue;
        }
        for name in names(&dir).iter().filter(|name| !name.starts_with('.')) {
            assert_eq!(assert_whole_bank(&dir.join(name)), 2_000, "round {round}: {name}");
        }
        // The next one sweeps what the dead left.
        backup_into(&live, &dir, "next.db", &options(), &Context::new()).unwrap();
        assert!(names(&dir).iter().all(|name| !name.starts_with('.')), "round {round}: {:?}", names(&dir));
        std::fs::remove_dir_all(&dir).unwrap();
    }
    assert_eq!(assert_whole_bank(&live), 2_000);
}

/// Backs up once, while another program fills the disk, and says what came of it.
pub(crate) fn role_once() {
    let (live, dir) = (argument("DATABASE"), argument("DIR"));
    let fill = argument("FILL");
    let options = BackupIntoOptions { method: Method::OnlineBackup, ..options() };
    let ctx = Context::new().with_progress(move |_| {
        if fill.as_os_str() != "" && !fill.exists() {
            // Fails when the disk is full, which is what it is for.
            let _ = std::fs::write(&fill, vec![1_u8; 64 << 20]);
        }
    });
    match backup_into(&live, &dir, "snap.db", &options, &ctx) {
        Ok(made) => say(&format!("made {}", made.size_bytes)),
        Err(error) => say(&format!("failed {} {error}", error.kind().name())),
    }
    say(&format!("left {:?}", names(&dir)));
}

#[test]
fn a_full_disk_is_told_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("app.db");
    bank(&live, "delete");
    Connection::open(&live)
        .unwrap()
        .execute_batch("CREATE TABLE big(b); INSERT INTO big VALUES (zeroblob(30000000))")
        .unwrap();
    let dir = folder.path().join("small");
    std::fs::create_dir(&dir).unwrap();
    // Too small from the start, and filled by another program while the copy is written.
    for (room, fill) in [("20m", Path::new("")), ("50m", &dir.join("other"))] {
        let Some(command) =
            mounted("a_full_disk_is_told_and_nothing_is_left", &dir, &format!("size={room}"), "")
        else {
            return;
        };
        let arguments = [("DATABASE", live.as_path()), ("DIR", &dir), ("FILL", fill)];
        let mut child = Other::start_with(command, "into-once", &arguments);
        let said = child.wait_for("failed").unwrap_or_default();
        assert!(said.starts_with("NoSpace "), "{room}: {said:?}");
        let left = child.wait_for("left").unwrap();
        assert!(!left.contains("snap"), "{left}");
        assert!(child.finish());
    }
}

#[test]
fn a_read_only_folder_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("app.db");
    bank(&live, "delete");
    let dir = folder.path().join("frozen");
    std::fs::create_dir(&dir).unwrap();
    let then = format!("mount -o remount,ro '{}' &&", dir.display());
    let Some(command) = mounted("a_read_only_folder_is_told", &dir, "size=8m", &then) else { return };
    let mut child = Other::start_with(
        command,
        "into-once",
        &[("DATABASE", &live), ("DIR", &dir), ("FILL", Path::new(""))],
    );
    let said = child.wait_for("failed").unwrap();
    assert!(said.starts_with("Permission "), "{said}");
    assert!(child.finish());
}
