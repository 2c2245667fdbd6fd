//! A live table read by several connections while another process rewrites every row, again and again.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use audit_chain::source::RowSource as _;
use audit_chain::value::Value;
use backup_core::context::Context;
use backup_sqlite::table::{ChainTable, TableOptions};
use rusqlite::Connection;

use crate::child::{Other, argument, say};
use crate::support::rounds;

const ROWS: i64 = 3_000;

fn open(path: &Path, mode: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    connection.pragma_update(None, "journal_mode", mode).unwrap();
    connection.pragma_update(None, "synchronous", "OFF").unwrap();
    connection
}

/// Rewrites all rows in one transaction after the other, and moves the last ones to other row ids.
pub(crate) fn role() {
    let path = argument("DATABASE");
    let mode = argument("MODE");
    let writer = open(&path, mode.to_str().unwrap());
    say("writing");
    for generation in 1_i64.. {
        let work = format!(
            "BEGIN IMMEDIATE; UPDATE t SET generation = {generation}; DELETE FROM t WHERE id > {ROWS};
             INSERT INTO t SELECT id + {ROWS} + {}, {generation}, body FROM t WHERE id <= 100; COMMIT",
            generation % 50
        );
        if writer.execute_batch(&work).is_err() && !writer.is_autocommit() {
            writer.execute_batch("ROLLBACK").unwrap();
        }
        if generation % 5 == 0 {
            // Time for several readers to find the same snapshot.
            std::thread::sleep(Duration::from_millis(4));
        }
    }
}

/// Reads all rows with three readers; every row must be of one generation. Returns it and how many rows there were.
fn generation(table: &ChainTable) -> (i64, usize) {
    let seen = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut reader = table.reader().unwrap();
                let mut rows = Vec::new();
                while reader
                    .read_chunk(&mut |row| {
                        let Value::Int(generation) = row.values[1] else { panic!("{row:?}") };
                        rows.push(generation);
                        Ok(())
                    })
                    .unwrap()
                    .is_some()
                {}
                seen.lock().unwrap().extend(rows);
            });
        }
    });
    let seen = seen.into_inner().unwrap();
    assert!(seen.iter().all(|generation| *generation == seen[0]), "rows of two instants");
    (seen[0], seen.len())
}

#[test]
fn rows_of_a_live_table_are_of_one_instant_however_many_connections_read_it() {
    for mode in ["delete", "truncate", "persist", "memory", "off", "wal"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("live.db");
        open(&path, mode)
            .execute_batch(&format!(
                "CREATE TABLE t(id INTEGER PRIMARY KEY, generation, body);
                 WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {ROWS})
                 INSERT INTO t SELECT i, 0, hex(zeroblob(50)) FROM s;
                 INSERT INTO t SELECT id + {ROWS}, 0, body FROM t WHERE id <= 100"
            ))
            .unwrap();
        let mut writer = Other::start("rewrite", &[("DATABASE", &path), ("MODE", Path::new(mode))]);
        writer.wait_for("writing").unwrap();
        let options = TableOptions { chunk_rows: 64, connections: 3, ..TableOptions::default() };
        let (mut common, mut last) = (0, 0);
        for _ in 0..rounds(15) {
            let table = ChainTable::open_live(&path, "t", &options, &Context::new()).unwrap();
            common += usize::from(table.is_parallel());
            let first = generation(&table);
            assert!(first.0 >= last, "{mode}: went back from {last} to {}", first.0);
            assert_eq!(first.1, ROWS as usize + 100, "{mode}");
            assert!(table.rewind().unwrap());
            assert_eq!(generation(&table), first, "{mode}: another pass, another instant");
            last = first.0;
        }
        assert!(common > 0, "{mode}: never read side by side");
        assert!(last > 0, "{mode}: nothing was written");
        writer.kill();
    }
}
