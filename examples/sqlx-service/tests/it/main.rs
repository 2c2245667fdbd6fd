//! One binary, one SQLite: sqlx writes while backup-sqlite copies, and neither drops the other's locks.

// clippy.toml allows these in `#[test]` functions only; here the helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::error::ErrorKind;
use backup_sqlite::{Known, SqliteSource};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode};
use sqlx_service::{Error, Service};

fn migrations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")
}

async fn service(folder: &Path, mode: SqliteJournalMode) -> Service {
    Service::open(&folder.join("notes.db"), &migrations(), mode).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlx_and_backup_sqlite_run_on_one_sqlite_with_the_wal_reset_fix() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path(), SqliteJournalMode::Wal).await;
    assert_eq!(service.sqlite_version().await.unwrap(), backup_sqlite::sqlite_version());
    assert!(backup_sqlite::sqlite_version_number() >= 3_051_003, "{}", backup_sqlite::sqlite_version());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_backs_itself_up_while_it_writes() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path(), SqliteJournalMode::Wal).await;
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let (service, stop) = (service.clone(), stop.clone());
            tokio::spawn(async move {
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) {
                    service.write("while it is copied").await.unwrap();
                    written += 1;
                }
                written
            })
        })
        .collect();
    let dir = folder.path().join("backups");
    let mut before = 0;
    for round in 0..5 {
        let name = format!("{round}.db");
        let at_least = service.count().await.unwrap();
        let made = service.backup(dir.clone(), name.clone()).await.unwrap();
        assert_eq!(made.path, dir.join(&name));
        let options = SqliteConnectOptions::new().filename(&made.path).read_only(true);
        let mut copy = SqliteConnection::connect_with(&options).await.unwrap();
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&mut copy).await.unwrap();
        assert!(rows >= at_least && rows >= before, "{rows}");
        before = rows;
        let check: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut copy).await.unwrap();
        assert_eq!(check, "ok");
        copy.close().await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap();
    }
    assert_eq!(service.count().await.unwrap(), written, "no write was lost");

    let again = service.backup(dir.clone(), "0.db".into()).await.unwrap_err();
    let Error::Backup(again) = again else { panic!("{again}") };
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    let hostile = service.backup(dir, "../0.db".into()).await.unwrap_err();
    let Error::Backup(hostile) = hostile else { panic!("{hostile}") };
    assert_eq!(hostile.kind(), ErrorKind::InvalidName);
}

/// The failure of sqlite.org/howtocorrupt.html §2.2.1: a second SQLite in the process, or a plain `close`, would drop
/// the lock that the service's transaction holds, and another process would write inside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_does_not_drop_the_locks_of_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path(), SqliteJournalMode::Delete).await;
    let database = folder.path().join("notes.db");
    let mut transaction = service.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::query("INSERT INTO notes (text) VALUES ('mine')").execute(&mut *transaction).await.unwrap();
    assert!(!another_process_can_write(&database), "the service holds the lock");
    let made = service.backup(folder.path().join("backups"), "a.db".into()).await.unwrap();
    assert!(made.size_bytes > 0);
    assert!(!another_process_can_write(&database), "the service still holds the lock");
    transaction.commit().await.unwrap();
    assert!(another_process_can_write(&database));
    assert_eq!(service.count().await.unwrap(), 1);
}

const ROLE: &str = "SQLX_SERVICE_TEST_WRITES";

/// Not a test by itself: what the other process does.
#[tokio::test]
async fn writes_in_another_process() {
    let Some(database) = std::env::var_os(ROLE) else { return };
    let options = SqliteConnectOptions::new().filename(database).busy_timeout(std::time::Duration::ZERO);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let tried = sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await;
    println!("\n@can write: {}", tried.is_ok());
}

fn another_process_can_write(database: &Path) -> bool {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writes_in_another_process", "--nocapture"])
        .env(ROLE, database)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("@can write: "), "{said}");
    said.contains("@can write: true")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_migrations_that_sqlx_records_are_those_of_the_folder() {
    use backup_core::context::Context;
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path(), SqliteJournalMode::Wal).await;
    let made = service.backup(folder.path().join("backups"), "a.db".into()).await.unwrap();
    let known = Known::sqlx_folder(&migrations()).unwrap();
    let verdict = SqliteSource::new(&made.path).schema(&known, &Context::new()).unwrap();
    assert_eq!(verdict.state, backup_sqlite::SchemaState::Equal, "{}", verdict.detail);
    // A program that has one migration less.
    let fewer = folder.path().join("fewer");
    std::fs::create_dir(&fewer).unwrap();
    std::fs::copy(migrations().join("0001_notes.sql"), fewer.join("0001_notes.sql")).unwrap();
    let known = Known::sqlx_folder(&fewer).unwrap();
    let verdict = SqliteSource::new(&made.path).schema(&known, &Context::new()).unwrap();
    assert_eq!(verdict.state, backup_sqlite::SchemaState::Newer, "{}", verdict.detail);
    // A migration that was edited after it was applied: sqlx itself refuses it, too.
    std::fs::write(fewer.join("0001_notes.sql"), "CREATE TABLE notes (id INTEGER PRIMARY KEY);").unwrap();
    std::fs::copy(migrations().join("0002_authors.sql"), fewer.join("0002_authors.sql")).unwrap();
    let known = Known::sqlx_folder(&fewer).unwrap();
    let verdict = SqliteSource::new(&made.path).schema(&known, &Context::new()).unwrap();
    assert_eq!(verdict.state, backup_sqlite::SchemaState::Changed, "{}", verdict.detail);
    let refused = Service::open(&made.path, &fewer, SqliteJournalMode::Delete).await.unwrap_err();
    assert!(matches!(refused, Error::Migration(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_are_on_record_in_one_chain_that_verifies_whoever_writes() {
    use audit_chain::keys::KeyRing;
    use backup_core::context::Context;
    use backup_core::traits::{ChainRequest, ChainVerify as _};
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path(), SqliteJournalMode::Wal).await.keyed(&[7; 32]).unwrap();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let service = service.clone();
            tokio::spawn(async move {
                for number in 0..10 {
                    service.write(&format!("note {number} of {writer}")).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    // A request that fails leaves neither the note nor its record.
    let mut failing = service.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::query("INSERT INTO notes (text) VALUES ('lost')").execute(&mut *failing).await.unwrap();
    failing.rollback().await.unwrap();
    let verify = || {
        let mut keys = KeyRing::new();
        keys.add_secret("K", vec![7; 32]);
        let format = audit_chain::formats::by_name("native").unwrap();
        let request = ChainRequest { format, table: None, keys, checkpoint: None, copy: false };
        SqliteSource::new(folder.path().join("notes.db")).verify_chain(&request, &Context::new()).unwrap()
    };
    let report = verify();
    assert!(report.ok, "{report:?}");
    assert_eq!(
        (report.records, i64::try_from(report.records).unwrap()),
        (40, service.count().await.unwrap())
    );
    // The guards hold for sqlx too, and a value that is changed past them is found.
    let changed = sqlx::query("UPDATE attestore_chain_values SET value = '\"x\"' WHERE seq = 7");
    assert!(changed.execute(&service.pool).await.is_err());
    sqlx::query("DROP TRIGGER attestore_chain_values_no_update").execute(&service.pool).await.unwrap();
    let changed = sqlx::query("UPDATE attestore_chain_values SET value = '\"x\"' WHERE seq = 7");
    changed.execute(&service.pool).await.unwrap();
    let report = verify();
    assert_eq!(report.findings[0].position, Some(7), "{report:?}");
    assert!(report.findings[0].explains.contains("/text"), "{report:?}");
}

#[test]
fn the_binary_runs() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        Command::new(env!("CARGO_BIN_EXE_sqlx-service"))
            .arg(folder.path().join("notes.db"))
            .arg(folder.path().join("backups"))
            .arg("a.db")
            .output()
            .unwrap()
    };
    let first = run();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(String::from_utf8_lossy(&first.stdout).contains("backups/a.db ("));
    assert_eq!(run().status.code(), Some(3), "an existing name is refused");
}
