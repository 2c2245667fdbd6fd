//! Native chains written in SQLite: appended, guarded, verified.

use std::path::Path;
use std::sync::Arc;

use audit_chain::formats::native::Native;
use audit_chain::keys::KeyRing;
use audit_chain::native::NativeKey;
use audit_chain::report::{ChainReport, FindingKind};
use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind};
use backup_core::traits::{ChainRequest, ChainVerify as _};
use backup_sqlite::SqliteSource;
use backup_sqlite::ledger::{Draft, Layout, Ledger};
use rusqlite::{Connection, TransactionBehavior};

/// Verifies the native chains of a table with secrets at hand.
pub(crate) fn verify(path: &Path, secrets: &[&[u8]]) -> ChainReport {
    let mut keys = KeyRing::new();
    for secret in secrets {
        keys.add_secret("CHAIN_KEY", secret.to_vec());
    }
    let request = ChainRequest { format: Arc::new(Native), table: None, keys, checkpoint: None, copy: false };
    SqliteSource::new(path).verify_chain(&request, &Context::new()).unwrap()
}

fn database(folder: &Path, guarded: bool) -> (std::path::PathBuf, Connection) {
    let path = folder.join("app.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA journal_mode=WAL").unwrap();
    Layout::default().create(&connection, guarded).unwrap();
    (path, connection)
}

fn append(connection: &mut Connection, ledger: &Ledger, body: &str) {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    ledger.append(&tx, Draft::new(body)).unwrap();
    tx.commit().unwrap();
}

#[test]
fn a_record_is_stored_with_what_it_is_about_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut connection) = database(folder.path(), true);
    connection.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY)").unwrap();
    let ledger = Ledger::new("orders");
    for (id, commits) in [(1, true), (2, false), (3, true)] {
        let tx = connection.transaction().unwrap();
        tx.execute("INSERT INTO orders VALUES (?1)", [id]).unwrap();
        let receipt = ledger.append(&tx, Draft::json(&serde_json::json!({"paid": id})).unwrap()).unwrap();
        assert_eq!(receipt.seq, if id == 1 { 1 } else { 2 });
        if commits { tx.commit().unwrap() } else { tx.rollback().unwrap() }
    }
    let report = verify(&path, &[]);
    assert!(report.ok, "{report:?}");
    assert_eq!((report.records, report.chain("orders").unwrap().last), (2, 2));
    assert_eq!(ledger.head(&connection).unwrap().hash(), report.chain("orders").unwrap().head);
}

#[test]
fn appending_takes_a_transaction_and_no_reserved_body() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut connection) = database(folder.path(), true);
    let ledger = Ledger::new("orders");
    let error = ledger.append(&connection, Draft::new("{}")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("transaction"), "{error}");
    let tx = connection.transaction().unwrap();
    let forged = Draft::new(r#"{"kind":"attestore/chain/restore/v1"}"#);
    assert_eq!(ledger.append(&tx, forged).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(ledger.append(&tx, Draft::new("{}")).unwrap().seq, 1);
}

#[test]
fn keys_are_rotated_and_the_report_says_which_span_each_verified() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut connection) = database(folder.path(), true);
    let (old, new) = ([1_u8; 32], [2_u8; 32]);
    let mut ledger = Ledger::new("orders");
    append(&mut connection, &ledger, "plain");
    ledger = ledger.with_key(NativeKey::new(&old).unwrap());
    append(&mut connection, &ledger, "keyed");
    let tx = connection.transaction().unwrap();
    let rotation = ledger.rotate(&tx, NativeKey::new(&new).unwrap()).unwrap();
    tx.commit().unwrap();
    assert_eq!(rotation.seq, 3);
    append(&mut connection, &ledger, "with the new key");
    // Who lost the key does not go on without one.
    let tx = connection.transaction().unwrap();
    let plain = Ledger::new("orders").append(&tx, Draft::new("plain again")).unwrap_err();
    assert_eq!(plain.kind(), ErrorKind::InvalidInput);
    drop(tx);

    let report = verify(&path, &[&new, &old]);
    assert!(report.ok, "{report:?}");
    let spans: Vec<_> =
        report.chain("orders").unwrap().verified_by.iter().map(|by| (by.from, by.to)).collect();
    assert_eq!(spans, [(2, 2), (3, 4)]);
    let without = verify(&path, &[&new]);
    assert!(without.has(FindingKind::UnknownKey), "{without:?}");
    assert!(!without.has(FindingKind::Edited));
}

#[test]
fn guards_refuse_every_change_but_the_next_record() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut connection) = database(folder.path(), true);
    let ledger = Ledger::new("it's \"odd\"");
    for number in 1..=3 {
        append(&mut connection, &ledger, &format!("record {number}"));
    }
    for change in [
        "UPDATE attestore_chain SET body = 'x' WHERE seq = 2",
        "DELETE FROM attestore_chain WHERE seq = 3",
        "INSERT OR REPLACE INTO attestore_chain SELECT chain, seq, at, 'x', v, key_id, prev, hash FROM attestore_chain WHERE seq = 3",
        "INSERT OR REPLACE INTO attestore_chain SELECT chain, seq, at, 'x', v, key_id, prev, hash FROM attestore_chain WHERE seq = 1",
        "INSERT INTO attestore_chain SELECT chain, 5, at, body, v, key_id, hash, hash FROM attestore_chain WHERE seq = 3",
        "INSERT INTO attestore_chain SELECT chain, 4, at, body, v, key_id, prev, hash FROM attestore_chain WHERE seq = 3",
        "INSERT INTO attestore_chain SELECT 'other', 2, at, body, v, key_id, prev, hash FROM attestore_chain WHERE seq = 2",
    ] {
        let error = connection.execute(change, []).unwrap_err();
        assert!(
            error.to_string().contains("append") || error.to_string().contains("continue"),
            "{change}: {error}"
        );
    }
    assert!(verify(&path, &[]).ok);
}

#[test]
fn without_guards_the_indexes_still_let_no_chain_fork() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut connection) = database(folder.path(), false);
    let ledger = Ledger::new("orders");
    append(&mut connection, &ledger, "one");
    append(&mut connection, &ledger, "two");
    for fork in [
        // The same number, and the same predecessor under another number.
        "INSERT INTO attestore_chain SELECT chain, seq, at, 'fork', v, key_id, prev, hash FROM attestore_chain WHERE seq = 2",
        "INSERT INTO attestore_chain SELECT chain, 3, at, 'fork', v, key_id, prev, hash FROM attestore_chain WHERE seq = 2",
    ] {
        let error = connection.execute(fork, []).unwrap_err();
        assert!(error.to_string().contains("UNIQUE constraint failed"), "{error}");
    }
}

#[test]
fn lifted_guards_are_there_again_and_nobody_else_sees_the_tables_without() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut connection) = database(folder.path(), true);
    append(&mut connection, &Ledger::new("orders"), "one");
    let layout = Layout::default();
    let guards = |connection: &Connection| -> i64 {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'";
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let outside = layout.lifted(&connection, || Ok(())).unwrap_err();
    assert_eq!(outside.kind(), ErrorKind::InvalidInput);
    let other = Connection::open(&path).unwrap();
    let before = guards(&connection);
    assert_eq!(before, 6);
    let tx = connection.transaction().unwrap();
    layout
        .lifted(&tx, || {
            tx.execute("UPDATE attestore_chain SET at = at", []).unwrap();
            assert_eq!((guards(&tx), guards(&other)), (0, before));
            Ok(())
        })
        .unwrap();
    assert_eq!(guards(&tx), before);
    tx.commit().unwrap();
    assert_eq!(guards(&other), before);
    // A failure in between: the transaction is rolled back, and they were never away.
    let tx = connection.transaction().unwrap();
    let failed = layout.lifted(&tx, || Err::<(), _>(Error::new(ErrorKind::Internal, "on purpose")));
    assert!(failed.is_err());
    drop(tx);
    assert_eq!(guards(&connection), before);
    assert!(connection.execute("DELETE FROM attestore_chain", []).is_err());
}

#[test]
fn names_of_tables_are_quoted_and_bad_ones_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let mut connection = Connection::open(&path).unwrap();
    let layout = Layout::new("odd \"name\"; DROP TABLE x; --").unwrap();
    layout.create(&connection, true).unwrap();
    layout.create(&connection, true).unwrap();
    let ledger = Ledger::new("a").with_layout(layout);
    append(&mut connection, &ledger, "one");
    append(&mut connection, &ledger, "two");
    assert_eq!(ledger.head(&connection).unwrap().seq(), 2);
    for bad in ["", "sqlite_x", "SQLITE_x", "a\0b", &"x".repeat(201)] {
        assert_eq!(Layout::new(bad).unwrap_err().kind(), ErrorKind::InvalidName, "{bad:?}");
    }
}
