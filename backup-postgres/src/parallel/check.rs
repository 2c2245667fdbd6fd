//! Compares a restored database with the table of contents: rows and digests of every table, large objects, sequences.
//!
//! Called before a restored database takes the place of the live one. Tables are read again with the statements of
//! the dump, by several connections; the sums do not depend on the order of rows.

use std::io::BufRead as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use backup_core::context::{Context, Progress};
use backup_core::error::Error as CoreError;
use backup_core::traits::Check;

use super::digest::RowSum;
use super::large_objects::{self, Queue};
use super::toc::Toc;
use crate::connect::{Address, Connection, SessionOptions};
use crate::error::{Error, ErrorKind, Result};

/// What of a database is not as it was dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differs {
    /// The table, quoted, or `large objects`.
    pub what: String,
    /// What the dump holds.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// Reads every table of a database and compares it with the dump's. An empty list means that they are alike.
///
/// # Errors
/// When the database cannot be read, a table of the dump is not there, or the work is cancelled.
pub fn compare(address: &Address, toc: &Toc, jobs: usize, ctx: &Context) -> Result<Vec<Differs>> {
    let options = SessionOptions::default();
    let mut tables: Vec<_> = toc.tables.iter().collect();
    tables.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.rows));
    let mut first = Connection::open(address, &options, ctx)?;
    let oids: Vec<u32> = first.run("list the large objects of", ctx, |client| {
        let rows = client.query("SELECT oid FROM pg_catalog.pg_largeobject_metadata ORDER BY oid", &[])?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    })?;
    let (next, queue) = (AtomicUsize::new(0), Queue::new(&oids));
    let (differs, objects) = (Mutex::new(Vec::new()), Mutex::new(RowSum::default()));
    let total = Some(tables.len() as u64);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.max(1))
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open(address, &options, ctx)?;
                    connection.run("set up a session in", ctx, |client| {
                        client.batch_execute(&session(&toc.encoding))
                    })?;
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some((name, entry)) = tables.get(at) else { break };
                        let sum = sum(&mut connection, name, &entry.select, ctx)?;
                        if (sum.rows(), sum.to_string().as_str()) != (entry.rows, entry.sum.as_str()) {
                            let spelt = |rows, sum: &str| format!("{rows} rows, digest {sum}");
                            differs.lock().unwrap_or_else(PoisonError::into_inner).push(Differs {
                                what: (*name).clone(),
                                expected: spelt(entry.rows, &entry.sum),
                                found: spelt(sum.rows(), &sum.to_string()),
                            });
                        }
                        ctx.progress(Progress {
                            stage: "check",
                            object: name,
                            done: at as u64,
                            total,
                            unit: "objects",
                        });
                    }
                    let read = large_objects::read(&mut connection, &queue, &mut |_| Ok(()), ctx)?;
                    objects.lock().unwrap_or_else(PoisonError::into_inner).merge(&read.sum);
                    Ok(())
                })
            })
            .collect();
        let panicked = |_| Err(Error::new(ErrorKind::Internal, "a thread of the check panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect::<Result<Vec<()>>>()
    })?;
    let mut differs = differs.into_inner().unwrap_or_else(PoisonError::into_inner);
    let objects = objects.into_inner().unwrap_or_else(PoisonError::into_inner);
    if (oids.len() as u64, objects.to_string()) != (toc.large_objects, toc.large_object_sum.clone()) {
        differs.push(Differs {
            what: "large objects".into(),
            expected: format!("{}, digest {}", toc.large_objects, toc.large_object_sum),
            found: format!("{}, digest {objects}", oids.len()),
        });
    }
    differs.sort_by(|one, other| one.what.cmp(&other.what));
    Ok(differs)
}

/// Makes checks of a comparison, for the outcome of a restore.
#[must_use]
pub fn checks(toc: &Toc, differs: &[Differs]) -> Vec<Check> {
    let rows: u64 = toc.tables.values().map(|table| table.rows).sum();
    let mut checks = vec![Check {
        name: "rows and digests of every table".into(),
        ok: differs.is_empty(),
        detail: format!(
            "{} tables, {rows} rows, {} large objects; {} differ",
            toc.tables.len(),
            toc.large_objects,
            differs.len()
        ),
    }];
    checks.extend(differs.iter().map(|differs| Check {
        name: format!("rows of {}", differs.what),
        ok: false,
        detail: format!("expected {}, found {}", differs.expected, differs.found),
    }));
    checks
}

/// Returns the settings under which rows are spelt as they were when they were dumped.
fn session(encoding: &str) -> String {
    let mut settings =
        String::from("SET search_path = ''; SET max_parallel_workers_per_gather = 0; SET jit = off");
    if encoding == super::script::SQL_ASCII {
        settings.push_str("; SET client_encoding = 'SQL_ASCII'");
    }
    settings
}

fn sum(connection: &mut Connection, name: &str, sql: &str, ctx: &Context) -> Result<RowSum> {
    let mut failed = None;
    let sum = connection.run(&format!("read table {name} of"), ctx, |client| {
        let mut sum = RowSum::default();
        let mut reader = client.copy_out(sql)?;
        loop {
            let message = match reader.fill_buf() {
                Ok(message) => message,
                Err(error) => match error.downcast::<postgres::Error>() {
                    Ok(error) => return Err(error),
                    Err(error) => {
                        failed = Some(CoreError::io("read", name, error));
                        return Ok(sum);
                    }
                },
            };
            let Some((_, row)) = message.split_last() else { return Ok(sum) };
            sum.add(row);
            let length = message.len();
            reader.consume(length);
        }
    })?;
    failed.map_or(Ok(sum), |error| Err(error.into()))
}
