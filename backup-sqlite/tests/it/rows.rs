//! Rows of chains: every row once and in order, whatever the row ids, from copies and from live databases.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use audit_chain::source::RowSource;
use audit_chain::value::Value;
use backup_core::context::Context;
use backup_core::error::ErrorKind;
use backup_sqlite::table::{ChainTable, TableOptions};
use rusqlite::Connection;

use crate::support::cancelling;

/// A database with one table, from SQL.
fn database(folder: &Path, sql: &str) -> PathBuf {
    let path = folder.join("chain.db");
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    path
}

/// Reads a source with several threads and returns the first column of its rows, in order.
fn read(source: &dyn RowSource, threads: usize) -> Vec<i64> {
    let chunks = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut reader = source.reader().unwrap();
                loop {
                    let mut rows = Vec::new();
                    let number = reader
                        .read_chunk(&mut |row| {
                            let Value::Int(first) = row.values[0] else { panic!("{:?}", row.values[0]) };
                            rows.push(first);
                            Ok(())
                        })
                        .unwrap();
                    let Some(number) = number else { break };
                    chunks.lock().unwrap().push((number, rows));
                }
            });
        }
    });
    let mut chunks = chunks.into_inner().unwrap();
    chunks.sort();
    let numbers: Vec<u64> = chunks.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "chunk numbers without gaps");
    if chunks.len() > 1 {
        assert!(chunks.iter().all(|(_, rows)| !rows.is_empty()), "no empty chunks");
    }
    chunks.into_iter().flat_map(|(_, rows)| rows).collect()
}

fn options(chunk_rows: u32, order: &[&str]) -> TableOptions {
    TableOptions {
        chunk_rows,
        connections: 3,
        order: order.iter().map(|term| (*term).to_owned()).collect(),
        ..TableOptions::default()
    }
}

/// Reads a table as a copy and as a live database, twice each.
fn assert_rows(path: &Path, table: &str, options: &TableOptions, parallel: bool, expected: &[i64]) {
    let ctx = Context::new();
    let copy = ChainTable::open_copy(path, table, options, &ctx).unwrap();
    assert_eq!(copy.is_parallel(), parallel);
    let live = ChainTable::open_live(path, table, options, &ctx).unwrap();
    assert_eq!(live.is_parallel(), parallel);
    for source in [&copy, &live] {
        for pass in 0..2 {
            assert_eq!(read(source, 3), expected, "pass {pass} of {source:?}");
            assert!(source.rewind().unwrap());
        }
    }
}

#[test]
fn every_row_is_read_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(
        folder.path(),
        "CREATE TABLE t(n, b); WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 10007)
         INSERT INTO t SELECT i, zeroblob(i % 300) FROM s",
    );
    let expected: Vec<i64> = (1..=10_007).collect();
    for chunk in [1_000, 10_007, 50_000, 7] {
        assert_rows(&path, "t", &options(chunk, &[]), true, &expected);
    }
}

#[test]
fn huge_gaps_between_row_ids_make_no_empty_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path(), "CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
    let connection = Connection::open(&path).unwrap();
    let mut ids =
        vec![i64::MIN, i64::MIN + 1, -5, 0, 1, 2, 3, 1 << 40, (1 << 40) + 1, i64::MAX - 1, i64::MAX];
    ids.extend((1..200).map(|n| n * 1_000_003));
    for id in &ids {
        connection.execute("INSERT INTO t VALUES (?1, 'x')", [id]).unwrap();
    }
    drop(connection);
    ids.sort_unstable();
    for chunk in [1, 2, 64] {
        assert_rows(&path, "t", &options(chunk, &[]), true, &ids);
    }
}

#[test]
fn an_empty_table_is_one_empty_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path(), "CREATE TABLE t(n)");
    assert_rows(&path, "t", &options(10, &[]), true, &[]);
}

#[test]
fn tables_without_row_ids_and_orders_of_their_own_are_read_in_that_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(
        folder.path(),
        "CREATE TABLE w(n INTEGER, k TEXT, PRIMARY KEY (k)) WITHOUT ROWID; INSERT INTO w VALUES (3, 'c'), (1, 'a'), (2, 'b');
         CREATE TABLE o(n INTEGER, zone TEXT, seq INT); INSERT INTO o VALUES (4, 'b', 2), (1, 'a', 1), (3, 'b', 1), (2, 'a', 2);
         CREATE TABLE odd(rowid, _rowid_, oid); INSERT INTO odd VALUES (1, 0, 0), (2, 0, 0);",
    );
    assert_rows(&path, "w", &options(2, &[]), false, &[1, 2, 3]);
    assert_rows(&path, "o", &options(2, &["zone", "seq"]), false, &[1, 2, 3, 4]);
    assert_rows(&path, "o", &options(2, &["zone DESC", "seq"]), false, &[3, 4, 1, 2]);
    assert_rows(&path, "o", &options(2, &[]), true, &[4, 1, 3, 2]);
    assert_rows(&path, "odd", &options(1, &[]), false, &[1, 2]);
}

#[test]
fn values_are_handed_over_as_they_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(
        folder.path(),
        "CREATE TABLE t(a, b, c, d, e, f, g AS (a + 1));
         INSERT INTO t VALUES (1, 1.5, 'é' || char(0) || 'x', x'00ff', NULL, CAST(x'61ff' AS TEXT));
         CREATE TABLE u(t TEXT) ; ",
    );
    let ctx = Context::new();
    for source in [
        ChainTable::open_copy(&path, "T", &TableOptions::default(), &ctx).unwrap(),
        ChainTable::open_live(&path, "T", &TableOptions::default(), &ctx).unwrap(),
    ] {
        assert_eq!(source.columns().names(), ["a", "b", "c", "d", "e", "f", "g"]);
        assert_eq!(source.name(), "chain.db:t");
        let mut rows = 0;
        source
            .reader()
            .unwrap()
            .read_chunk(&mut |row| {
                rows += 1;
                assert_eq!(
                    row.values,
                    [
                        Value::Int(1),
                        Value::Real(1.5),
                        Value::Text("é\0x"),
                        Value::Bytes(&[0, 255]),
                        Value::Null,
                        Value::Bytes(b"a\xff"),
                        Value::Int(2),
                    ]
                );
                Ok(())
            })
            .unwrap();
        assert_eq!(rows, 1);
    }
}

#[test]
fn a_live_table_shows_one_instant_in_every_pass() {
    let folder = tempfile::tempdir().unwrap();
    let path =
        database(folder.path(), "PRAGMA journal_mode=WAL; CREATE TABLE t(n); INSERT INTO t VALUES (1), (2)");
    let writer = Connection::open(&path).unwrap();
    let source = ChainTable::open_live(&path, "t", &options(1, &[]), &Context::new()).unwrap();
    writer.execute_batch("INSERT INTO t VALUES (3)").unwrap();
    assert_eq!(read(&source, 2), [1, 2]);
    writer.execute_batch("DELETE FROM t").unwrap();
    source.rewind().unwrap();
    assert_eq!(read(&source, 2), [1, 2]);
    drop(source);
    // The transaction ended with the source: the log can be emptied.
    let blocked: i64 = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    assert_eq!(blocked, 0);
}

#[test]
fn a_pass_that_is_not_read_to_its_end_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(
        folder.path(),
        "CREATE TABLE t(n); WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 5000) INSERT INTO t SELECT i FROM s",
    );
    let source = ChainTable::open_live(&path, "t", &options(10, &[]), &Context::new()).unwrap();
    let mut first = 0;
    source
        .reader()
        .unwrap()
        .read_chunk(&mut |_| {
            first += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(first, 10);
    source.rewind().unwrap();
    assert_eq!(read(&source, 2).len(), 5_000);
    source.rewind().unwrap();
    source.reader().unwrap().read_chunk(&mut |_| Ok(())).unwrap();
    drop(source);
}

#[test]
fn companions_are_read_with_the_chain_and_missing_ones_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(
        folder.path(),
        "CREATE TABLE t(n); CREATE TABLE state(id, head, raw); INSERT INTO state VALUES (1, 'abc', x'01'), (2, NULL, 1.5)",
    );
    let options =
        TableOptions { companions: vec!["state".into(), "not_there".into()], ..TableOptions::default() };
    let source = ChainTable::open_live(&path, "t", &options, &Context::new()).unwrap();
    let found = serde_json::to_string(source.companions()).unwrap();
    assert_eq!(
        found,
        r#"{"state":[{"head":"abc","id":1,"raw":{"$base64":"AQ=="}},{"head":null,"id":2,"raw":1.5}]}"#
    );
}

#[test]
fn a_missing_table_or_a_view_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path(), "CREATE TABLE receipts(id, prev_hash); CREATE VIEW v AS SELECT 1");
    let ctx = Context::new();
    let error = ChainTable::open_copy(&path, "nope", &TableOptions::default(), &ctx).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.hint().unwrap().contains("\"receipts\""));
    let error = ChainTable::open_live(&path, "v", &TableOptions::default(), &ctx).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for hostile in ["t; DROP TABLE receipts", "receipts\" --", "main.receipts", ""] {
        let error = ChainTable::open_copy(&path, hostile, &TableOptions::default(), &ctx).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{hostile:?}");
    }
}

#[test]
fn a_long_sort_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(
        folder.path(),
        "CREATE TABLE t(n, k); WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 300000)
         INSERT INTO t SELECT i, hex(randomblob(20)) FROM s",
    );
    let ctx = cancelling(|_| false);
    let source = ChainTable::open_live(&path, "t", &options(10, &["k"]), &ctx).unwrap();
    ctx.cancel().cancel();
    let error = source.reader().unwrap().read_chunk(&mut |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}
