//! How many records a native chain takes a second: one transaction each, and in groups.
//!
//! `cargo bench -p benches --bench ledger`. Every commit is synced (WAL, synchronous=FULL), every record is keyed.
#![allow(clippy::print_stdout, missing_docs)]

use std::path::Path;
use std::time::{Duration, Instant};

use audit_chain::native::NativeKey;
use backup_sqlite::ledger::{Draft, Ledger, Writer, WriterOptions};
use benches::{Result, Table, folder};
use rusqlite::{Connection, TransactionBehavior};

/// How long each measurement lasts.
const SPAN: Duration = Duration::from_secs(3);
/// How many threads wait for their receipt in the measurement of a busy service.
const CALLERS: usize = 64;

fn main() -> Result<()> {
    let folder = folder()?;
    let mut table = Table::default();
    let alone = one_by_one(&folder.path().join("alone.db"))?;
    let waiting = waiting(&folder.path().join("waiting.db"))?;
    let queued = queued(&folder.path().join("queued.db"))?;
    for (name, ours) in
        [("64 threads, each waits for its receipt", waiting), ("one thread, receipts taken later", queued)]
    {
        let rate = |rate: f64| format!("{rate:.0} rows/s");
        table.row(name, &rate(ours), &rate(alone), &format!("{:.1}", ours / alone), "");
    }
    println!(
        "{}",
        table.markdown("Appends in groups (ours) and one transaction a record (peer), WAL, synchronous=FULL")
    );
    Ok(())
}

fn ledger(path: &Path) -> Result<(Connection, Ledger)> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")?;
    let ledger = Ledger::new("bench").with_key(NativeKey::new(&[7; 32])?);
    ledger.layout().create(&connection, true)?;
    Ok((connection, ledger))
}

fn draft(number: u64) -> Draft {
    Draft::new(format!(r#"{{"event":"login","number":{number},"text":"{}"}}"#, "x".repeat(150)))
}

/// One transaction a record.
fn one_by_one(path: &Path) -> Result<f64> {
    let (mut connection, ledger) = ledger(path)?;
    let start = Instant::now();
    let mut rows = 0;
    while start.elapsed() < SPAN {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        ledger.append(&tx, draft(rows))?;
        tx.commit()?;
        rows += 1;
    }
    Ok(rows as f64 / start.elapsed().as_secs_f64())
}

/// Many threads, each of which waits until its record is durable.
fn waiting(path: &Path) -> Result<f64> {
    let (connection, ledger) = ledger(path)?;
    let writer = Writer::over(connection, ledger, &WriterOptions::default())?;
    let start = Instant::now();
    let rows = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut rows = 0;
                    while start.elapsed() < SPAN && writer.append(draft(rows)).is_ok() {
                        rows += 1;
                    }
                    rows
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap_or(0)).sum::<u64>()
    });
    let rate = rows as f64 / start.elapsed().as_secs_f64();
    writer.close()?;
    Ok(rate)
}

/// One thread that hands records in as fast as the queue takes them.
fn queued(path: &Path) -> Result<f64> {
    let (connection, ledger) = ledger(path)?;
    let writer = Writer::over(connection, ledger, &WriterOptions::default())?;
    let start = Instant::now();
    let mut pending = std::collections::VecDeque::new();
    let mut rows = 0;
    while start.elapsed() < SPAN {
        pending.push_back(writer.submit(draft(rows))?);
        rows += 1;
        if pending.len() > 4_096
            && let Some(oldest) = pending.pop_front()
        {
            oldest.wait()?;
        }
    }
    for left in pending {
        left.wait()?;
    }
    let rate = rows as f64 / start.elapsed().as_secs_f64();
    writer.close()?;
    Ok(rate)
}
