//! Group commit and several processes: every receipt is true, no chain forks, and a kill leaves it whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use audit_chain::native::NativeKey;
use backup_core::error::ErrorKind;
use backup_sqlite::ledger::{Draft, Layout, Ledger, Writer, WriterOptions};
use rusqlite::{Connection, TransactionBehavior};

use crate::child::{Other, argument, say};
use crate::ledger::verify;
use crate::support::{moment, rounds};

fn database(folder: &Path) -> PathBuf {
    let path = folder.join("app.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA journal_mode=WAL").unwrap();
    Layout::default().create(&connection, true).unwrap();
    path
}

fn count(path: &Path) -> u64 {
    let sql = "SELECT count(*) FROM attestore_chain";
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as u64
}

#[test]
fn many_threads_get_true_receipts_and_few_transactions_carry_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    let ledger = Ledger::new("orders").with_key(NativeKey::new(&[7; 32]).unwrap());
    let writer = Writer::open(&path, ledger, &WriterOptions::default()).unwrap();
    let seen = std::sync::Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (writer, seen) = (&writer, &seen);
            scope.spawn(move || {
                for number in 0..100 {
                    let receipt = writer.append(Draft::new(format!("{thread} {number}"))).unwrap();
                    assert!(seen.lock().unwrap().insert((
                        receipt.seq,
                        receipt.hash,
                        format!("{thread} {number}")
                    )));
                }
            });
        }
    });
    writer.close().unwrap();
    let connection = Connection::open(&path).unwrap();
    let mut statement =
        connection.prepare("SELECT seq, hash, body FROM attestore_chain ORDER BY seq").unwrap();
    let stored: BTreeSet<_> = statement
        .query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(stored, seen.into_inner().unwrap());
    let report = verify(&path, &[&[7; 32]]);
    assert!(report.ok && report.records == 800, "{report:?}");
}

#[test]
fn a_record_that_cannot_be_stored_is_its_own_callers_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    // What the service itself refuses fails in the insert, and takes its group with it.
    let sql = "CREATE TRIGGER no_bad BEFORE INSERT ON attestore_chain WHEN NEW.body = 'bad' BEGIN SELECT RAISE(ABORT, 'bad'); END";
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let writer = Writer::open(&path, Ledger::new("orders"), &WriterOptions::default()).unwrap();
    let bodies: Vec<String> =
        (0..200).map(|number| if number % 50 == 7 { "bad".into() } else { number.to_string() }).collect();
    let pending: Vec<_> = bodies.iter().map(|body| writer.submit(Draft::new(body)).unwrap()).collect();
    for (body, pending) in bodies.iter().zip(pending) {
        match pending.wait() {
            Ok(_) => assert_ne!(body, "bad"),
            Err(error) => assert!(body == "bad" && error.to_string().contains("bad"), "{body}: {error}"),
        }
    }
    // A time that no record can have fails before the insert.
    let error = writer.append(Draft::new("late").at(i64::MAX)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let reserved = writer.submit(Draft::new(r#"{"kind":"attestore/chain/prune/v1"}"#)).unwrap_err();
    assert_eq!(reserved.kind(), ErrorKind::InvalidInput);
    // An error whose caller has gone is told by the flush, once.
    drop(writer.submit(Draft::new("bad")).unwrap());
    assert!(writer.flush().unwrap_err().to_string().contains("bad"));
    writer.flush().unwrap();
    assert_eq!(count(&path), 196);
    assert!(verify(&path, &[]).ok);
}

#[test]
fn a_full_queue_is_said_and_what_waits_is_stored_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    let options = WriterOptions { queue: 4, group: 2, busy_timeout: Duration::from_secs(60) };
    let writer = Writer::open(&path, Ledger::new("orders"), &options).unwrap();
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut pending = Vec::new();
    let full = loop {
        match writer.try_submit(Draft::new(pending.len().to_string())) {
            Ok(one) => pending.push(one),
            Err(error) => break error,
        }
        assert!(pending.len() < 10, "the queue has no end");
    };
    assert_eq!(full.kind(), ErrorKind::Locked);
    assert!(full.to_string().contains("queue"), "{full}");
    holder.execute_batch("COMMIT").unwrap();
    let handed_in = pending.len() as u64;
    drop(writer);
    assert_eq!(count(&path), handed_in);
    for (at, one) in pending.into_iter().enumerate() {
        assert_eq!(one.wait().unwrap().seq, at as u64 + 1);
    }
}

#[test]
fn a_lock_that_is_not_to_be_had_is_every_waiting_callers_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    let options = WriterOptions { busy_timeout: Duration::from_millis(50), ..WriterOptions::default() };
    let writer = Writer::open(&path, Ledger::new("orders"), &options).unwrap();
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let pending: Vec<_> = (0..5).map(|_| writer.submit(Draft::new("x")).unwrap()).collect();
    for one in pending {
        assert_eq!(one.wait().unwrap_err().kind(), ErrorKind::Locked);
    }
    holder.execute_batch("COMMIT").unwrap();
    assert_eq!(writer.append(Draft::new("x")).unwrap().seq, 1);
}

#[test]
fn one_writer_serves_many_chains_of_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    let writer = Arc::new(Writer::open(&path, Ledger::new("own"), &WriterOptions::default()).unwrap());
    let pending: Vec<_> = (0..60)
        .map(|number| {
            writer.submit_to(["own", "a", "b"][number % 3], Draft::new(number.to_string())).unwrap()
        })
        .collect();
    for (number, one) in pending.into_iter().enumerate() {
        let receipt = one.wait().unwrap();
        assert_eq!(
            (receipt.chain.as_str(), receipt.seq),
            (["own", "a", "b"][number % 3], number as u64 / 3 + 1)
        );
    }
    let report = verify(&path, &[]);
    assert!(report.ok && report.chains.len() == 3, "{report:?}");
}

/// Appends until killed or `COUNT` is reached; says each receipt.
pub(crate) fn role() {
    let path = argument("DATABASE");
    let count: u64 = argument("COUNT").to_str().unwrap().parse().unwrap();
    let ledger = Ledger::new("shared");
    if argument("HOW").to_str() == Some("group") {
        let writer = Writer::open(&path, ledger, &WriterOptions::default()).unwrap();
        let mut pending = std::collections::VecDeque::new();
        for number in 0..count {
            pending.push_back(writer.submit(Draft::new(number.to_string())).unwrap());
            if pending.len() > 16 {
                say(&format!("receipt {}", pending.pop_front().unwrap().wait().unwrap().seq));
            }
        }
        for one in pending {
            say(&format!("receipt {}", one.wait().unwrap().seq));
        }
        return;
    }
    let mut connection = Connection::open(&path).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    for number in 0..count {
        // A deferred transaction: the append itself takes the lock before it reads the head.
        let tx = connection.transaction_with_behavior(TransactionBehavior::Deferred).unwrap();
        let receipt = ledger.append(&tx, Draft::new(number.to_string())).unwrap();
        tx.commit().unwrap();
        say(&format!("receipt {}", receipt.seq));
    }
}

fn start(path: &Path, how: &str, count: &str) -> Other {
    Other::start("ledger", &[("DATABASE", path), ("HOW", Path::new(how)), ("COUNT", Path::new(count))])
}

#[test]
fn processes_that_append_at_once_make_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    let mut others: Vec<Other> =
        ["single", "group", "single", "group"].iter().map(|how| start(&path, how, "100")).collect();
    let mut seen = BTreeSet::new();
    for other in &mut others {
        for _ in 0..100 {
            let seq: u64 = other.wait_for("receipt").unwrap().parse().unwrap();
            assert!(seen.insert(seq), "{seq} twice");
        }
        assert!(other.finish());
    }
    assert_eq!(seen, (1..=400).collect());
    let report = verify(&path, &[]);
    assert!(report.ok && report.records == 400, "{report:?}");
}

#[test]
fn a_kill_leaves_the_chain_whole_with_every_receipt_that_was_handed_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    let mut told = 0;
    for round in 0..rounds(6) {
        let mut other = start(&path, if round % 2 == 0 { "group" } else { "single" }, "1000000");
        other.wait_for("receipt").unwrap();
        moment(round, Duration::from_millis(60));
        other.kill();
        while let Some(seq) = other.wait_for("receipt") {
            // The last line may be cut in the middle.
            told = seq.parse::<u64>().map_or(told, |seq| told.max(seq));
        }
        let report = verify(&path, &[]);
        assert!(report.ok, "round {round}: {report:?}");
        // A number cut short is smaller than what was meant, never larger.
        assert!(report.records >= told, "round {round}: {} records, receipt {told}", report.records);
    }
    assert!(told > 0);
}
