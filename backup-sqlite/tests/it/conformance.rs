//! The public suite over the traits, with real repositories: both methods, with and without WAL.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::conformance::{Fixture, Harness, run};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::traits::{ChainRequest, ChainVerify, Restore, Snapshot};
use backup_sqlite::{Method, SourceOptions, SqliteRestore, SqliteSource};
use rusqlite::Connection;

use crate::chains::request;
use crate::receipts::{append_with, receipts};

struct Sqlite {
    mode: &'static str,
    method: Method,
}

struct Live {
    folder: PathBuf,
    path: PathBuf,
    source: SqliteSource,
    restore: SqliteRestore,
}

impl Harness for Sqlite {
    fn create(&self, folder: &Path) -> Result<Box<dyn Fixture>> {
        let path = folder.join("app.db");
        receipts(&path, 200);
        let connection = Connection::open(&path).unwrap();
        let sql = format!("PRAGMA journal_mode={}", self.mode);
        let mode: String = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        assert_eq!(mode, self.mode);
        connection.execute_batch("CREATE TABLE notes(id INTEGER PRIMARY KEY, text)").unwrap();
        let options = SourceOptions { method: self.method, ..SourceOptions::default() };
        Ok(Box::new(Live {
            folder: folder.to_owned(),
            source: SqliteSource::with_options(&path, options),
            restore: SqliteRestore::new(&path),
            path,
        }))
    }
}

impl Live {
    /// Opens the database for one call: a restore wants it closed.
    fn with<T>(&self, op: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let made = Connection::open(&self.path).and_then(|connection| {
            connection.busy_timeout(Duration::from_secs(60))?;
            op(&connection)
        });
        made.map_err(|error| Error::new(ErrorKind::Internal, "the fixture failed").with_source(error))
    }
}

impl Fixture for Live {
    fn snapshot(&self) -> &dyn Snapshot {
        &self.source
    }

    fn restore(&self) -> Option<&dyn Restore> {
        Some(&self.restore)
    }

    fn chain_verify(&self) -> Option<&dyn ChainVerify> {
        Some(&self.source)
    }

    fn chains(&self) -> Vec<ChainRequest> {
        vec![request(true)]
    }

    fn content(&self) -> Result<Vec<u8>> {
        self.with(|connection| {
            let transaction = connection.unchecked_transaction()?;
            let mut text = String::new();
            for sql in [
                "SELECT rowid || id || coalesce(decision, '') || receipt_hash FROM action_receipts ORDER BY rowid",
                "SELECT id || coalesce(text, '') FROM notes ORDER BY id",
            ] {
                let mut statement = transaction.prepare(sql)?;
                let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
                for line in lines {
                    text.push_str(&line?);
                    text.push('\n');
                }
            }
            Ok(text.into_bytes())
        })
    }

    fn rows(&self) -> Result<BTreeMap<String, u64>> {
        self.with(|connection| {
            ["action_receipts", "notes"]
                .into_iter()
                .map(|table| {
                    let sql = format!("SELECT count(*) FROM {table}");
                    Ok((table.to_owned(), connection.query_row(&sql, [], |row| row.get::<_, u32>(0))?.into()))
                })
                .collect()
        })
    }

    fn change(&self) -> Result<()> {
        self.with(|connection| {
            append_with(connection, 3, || {
                connection.execute("INSERT INTO notes(text) VALUES ('changed')", []).map(drop)
            })
        })
    }

    fn tamper(&self) -> Result<bool> {
        self.with(|connection| {
            connection.execute("UPDATE action_receipts SET decision = 'deny' WHERE rowid = 77", [])
        })
        .map(|changed| changed == 1)
    }

    fn truncate(&self) -> Result<bool> {
        self.with(|connection| {
            connection.execute(
                "DELETE FROM action_receipts WHERE rowid = (SELECT max(rowid) FROM action_receipts)",
                [],
            )
        })
        .map(|changed| changed == 1)
    }

    fn spoil(&self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|error| Error::io("remove", &self.path, error))
    }

    fn folder(&self) -> &Path {
        &self.folder
    }
}

fn conforms(mode: &'static str, method: Method) {
    let scratch = tempfile::tempdir().unwrap();
    let report = run(&Sqlite { mode, method }, scratch.path()).unwrap();
    assert!(report.failed.is_empty() && report.left_out.is_empty(), "{report}");
    assert!(report.passed.len() >= 15, "{report}");
}

#[test]
fn the_suite_holds_with_vacuum_into_in_wal_mode() {
    conforms("wal", Method::VacuumInto);
}

#[test]
fn the_suite_holds_with_vacuum_into_on_a_rollback_journal() {
    conforms("delete", Method::VacuumInto);
}

#[test]
fn the_suite_holds_with_online_backup_in_wal_mode() {
    conforms("wal", Method::OnlineBackup);
}

#[test]
fn the_suite_holds_with_online_backup_on_a_rollback_journal() {
    conforms("delete", Method::OnlineBackup);
}
