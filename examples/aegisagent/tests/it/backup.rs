//! `POST /v1/admin/backup`: names, collisions, and copies made while receipts are written.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aegisagent_example::{Options, Store, generate};
use serde_json::{Value, json};

use crate::chains::verify;
use crate::service::{Running, action};

/// Asks for a backup of a name.
fn back_up(service: &Running, name: &str) -> (u16, Value) {
    service.post("/v1/admin/backup", json!({"filename": name}))
}

/// Lists a folder; nothing where there is none.
fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_backup_answers_with_its_path_and_size_and_opens_as_the_service_s_database() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path());
    service.post("/v1/receipts", action("one", 0));
    let (status, answer) = back_up(&service, "snap.db");
    assert_eq!(status, 200, "{answer}");
    let path = folder.path().join("backups/snap.db");
    let size = path.metadata().unwrap().len();
    assert_eq!(answer, json!({"path": path, "size_bytes": size}));
    let copy = Store::open(&path, None).unwrap();
    assert_eq!(copy.chain_head("one").unwrap().receipts, 1);
}

#[test]
fn a_name_that_is_not_bare_is_answered_400_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path());
    let long = "x".repeat(300);
    let names = [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc/x",
        "a..b.db",
        "dir/",
        "./x",
        "a\\b.db",
        " ",
        ".hidden",
        "-wal",
        "-rf",
        "file:x?mode=memory",
        "line\nbreak.db",
        "snap.db-journal",
        "snap.db-wal",
        "snap.db-shm",
        "SNAP.DB-WAL",
        "nul\0byte.db",
        "tab\t.db",
        "\u{202e}bd.pans",
        "C:evil.db",
        &long,
    ];
    for name in names {
        let (status, answer) = back_up(&service, name);
        assert_eq!(status, 400, "{name:?}: {answer}");
        assert_eq!(answer["error"]["code"], "ERR_INVALID_NAME", "{name:?}");
        assert!(answer["error"]["hint"].is_string(), "{name:?}");
    }
    assert_eq!(names_in(&folder.path().join("backups")), Vec::<String>::new());
    assert!(names_in(folder.path()).iter().all(|name| name.starts_with("aegis.db")));
}

#[test]
fn a_body_without_a_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path());
    for body in [json!({}), json!({"filename": 7}), json!({"filename": null})] {
        let (status, answer) = service.post("/v1/admin/backup", &body);
        assert_eq!((status, &answer["error"]["code"]), (422, &json!("ERR_INVALID_INPUT")), "{body}");
    }
}

#[test]
fn a_name_that_exists_is_answered_409_and_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path());
    assert_eq!(back_up(&service, "snap.db").0, 200);
    let backups = folder.path().join("backups");
    let first = std::fs::read(backups.join("snap.db")).unwrap();
    service.post("/v1/receipts", action("one", 0));

    std::fs::write(backups.join("empty.db"), "").unwrap();
    std::fs::create_dir(backups.join("folder.db")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("elsewhere.db"), backups.join("dangling.db")).unwrap();
    for name in ["snap.db", "empty.db", "folder.db", "dangling.db"] {
        let (status, answer) = back_up(&service, name);
        assert_eq!(
            (status, &answer["error"]["code"]),
            (409, &json!("ERR_ALREADY_EXISTS")),
            "{name}: {answer}"
        );
    }
    assert_eq!(std::fs::read(backups.join("snap.db")).unwrap(), first);
    assert_eq!(backups.join("empty.db").metadata().unwrap().len(), 0);
    assert!(!folder.path().join("elsewhere.db").exists());
    assert_eq!(names_in(&backups), ["dangling.db", "empty.db", "folder.db", "snap.db"]);
}

#[test]
fn of_two_backups_of_one_name_at_once_exactly_one_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path());
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| back_up(&service, "snap.db").0)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409]);
    assert_eq!(names_in(&folder.path().join("backups")), ["snap.db"]);
}

#[test]
fn backups_under_concurrent_appends_are_whole_verify_and_hold_all_that_was_acknowledged() {
    const WRITERS: usize = 3;
    let folder = tempfile::tempdir().unwrap();
    let options = Options { receipts: 5_000, tenants: 3, ..Options::default() };
    generate(&folder.path().join("aegis.db"), &options).unwrap();
    let service = Running::start(folder.path());
    let acknowledged = AtomicU64::new(options.receipts);
    let done = AtomicBool::new(false);
    let during = std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (service, acknowledged, done) = (&service, &acknowledged, &done);
            scope.spawn(move || {
                for number in 0.. {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    // The loader's tenants, so that its chains are continued; two writers share one of them.
                    let tenant = ["tenant_01", "tenant_02"][writer % 2];
                    let (status, answer) = service.post("/v1/receipts", action(tenant, number));
                    assert_eq!(status, 201, "{answer}");
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let mut before = 0;
        let mut during = 0;
        for number in 0..5 {
            let known = acknowledged.load(Ordering::SeqCst);
            let (status, answer) = back_up(&service, &format!("snap-{number}.db"));
            during += acknowledged.load(Ordering::SeqCst) - known;
            assert_eq!(status, 200, "{answer}");
            let path = folder.path().join(format!("backups/snap-{number}.db"));
            let report = verify(&path, "aegisagent");
            assert!(report.ok, "{report:?}");
            assert!(report.records >= known, "{} receipts, {known} were acknowledged before", report.records);
            assert!(report.records >= before);
            before = report.records;
            assert!(verify(&path, "aegisagent-policy").ok);
            let copy = rusqlite::Connection::open(&path).unwrap();
            let integrity: String = copy.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(integrity, "ok");
        }
        done.store(true, Ordering::SeqCst);
        during
    });
    assert!(during > 0, "no receipt was written while a backup was made");
    assert!(verify(&folder.path().join("aegis.db"), "aegisagent").ok);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_of_the_service_not_of_the_caller() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path());
    std::fs::write(folder.path().join("backups"), "a file where the folder should be").unwrap();
    let (status, answer) = back_up(&service, "snap.db");
    assert!(status >= 500, "{status} {answer}");
}
