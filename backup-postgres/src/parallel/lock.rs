//! Keeps tables as they are while a dump reads them: ACCESS SHARE on each, in the transaction that holds the snapshot.
//!
//! That lock stops nobody but those who would drop, empty or rewrite the table. It is asked for without waiting first; where
//! somebody holds a stronger one, tables are locked one by one, each waited for as long as the session's lock
//! timeout says, so that the error names the table and who holds it.
//!
//! A table that was emptied or rewritten after the snapshot was taken and before it was locked looks empty in the
//! snapshot (TRUNCATE is not MVCC-safe). Such a table is found by its file's number and refused.

use std::time::Duration;

use backup_core::context::Context;

use super::catalog::Table;
use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};

/// How many tables one statement locks.
const BATCH: usize = 256;

/// Locks every table, in the connection's transaction.
///
/// # Errors
/// `Locked`, with the table and who holds it, after the session's lock timeout; `Unavailable` when a table was dropped or
/// rewritten since the snapshot, or the server has no room for so many locks.
pub(crate) fn lock(
    connection: &mut Connection,
    tables: &[Table],
    timeout: Duration,
    ctx: &Context,
) -> Result<()> {
    for batch in tables.chunks(BATCH) {
        let names = batch.iter().map(|table| format!("ONLY {}", table.quoted)).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SAVEPOINT attestore_lock; LOCK TABLE {names} IN ACCESS SHARE MODE NOWAIT; RELEASE attestore_lock"
        );
        match connection.run("lock the tables of", ctx, |client| client.batch_execute(&sql)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Locked => {
                connection.run("lock the tables of", ctx, |client| {
                    client.batch_execute("ROLLBACK TO attestore_lock; RELEASE attestore_lock")
                })?;
                for table in batch {
                    wait_for(connection, table, timeout, ctx)?;
                }
            }
            Err(error) => return Err(explained(error, tables.len())),
        }
    }
    rewritten(connection, ctx)
}

/// Locks one table, and says who is in the way where that does not work.
fn wait_for(connection: &mut Connection, table: &Table, timeout: Duration, ctx: &Context) -> Result<()> {
    let sql = format!(
        "SAVEPOINT attestore_lock; LOCK TABLE ONLY {} IN ACCESS SHARE MODE; RELEASE attestore_lock",
        table.quoted
    );
    let error = match connection.run("lock the tables of", ctx, |client| client.batch_execute(&sql)) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::Locked => error,
        Err(error) => return Err(explained(error, 1)),
    };
    let holder = connection.run("look for locks in", ctx, |client| {
        client.batch_execute("ROLLBACK TO attestore_lock; RELEASE attestore_lock")?;
        client.query_opt(
            "SELECT a.pid, a.application_name, COALESCE(a.state, '') FROM pg_catalog.pg_locks l \
             JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
             WHERE l.locktype = 'relation' AND l.relation = $1 AND l.granted AND l.mode = 'AccessExclusiveLock' \
             AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) LIMIT 1",
            &[&table.oid],
        )
    });
    let who = match holder {
        Ok(Some(row)) => {
            let (pid, program, state): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
            format!("session {pid} ({program:?}, {state}) holds it")
        }
        _ => "another session holds it".to_owned(),
    };
    let seconds = timeout.as_secs_f64();
    let hint = error.hint().unwrap_or_default();
    Err(Error::new(
        ErrorKind::Locked,
        format!("no lock on table {} within {seconds} s: {who}", table.full_name()),
    )
    .with_hint(hint))
}

/// Says what to do about failures that locking many tables meets.
fn explained(error: Error, tables: usize) -> Error {
    match error.sqlstate() {
        Some("53200") => error.with_hint(format!(
            "{tables} tables want a lock each: raise max_locks_per_transaction on the server (it counts for every connection of max_connections)"
        )),
        Some("42P01" | "3F000") => Error::new(
            ErrorKind::Unavailable,
            format!("a table was dropped or renamed while the backup began: {error}"),
        )
        .with_hint("try again"),
        _ => error,
    }
}

/// Fails when a table's file is not the one of the snapshot. The catalog's rows are those of the snapshot, the function
/// answers with what is now.
fn rewritten(connection: &mut Connection, ctx: &Context) -> Result<()> {
    let found = connection.run("compare the tables of", ctx, |client| {
        client.query_opt(
            "SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND c.relfilenode <> 0 AND n.nspname NOT LIKE 'pg\\_%' \
             AND n.nspname <> 'information_schema' \
             AND pg_catalog.pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode LIMIT 1",
            &[],
        )
    })?;
    match found {
        None => Ok(()),
        Some(row) => Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "table {} was emptied, rewritten or dropped (TRUNCATE, VACUUM FULL, ALTER TABLE) between the snapshot and its lock",
                row.get::<_, String>(0)
            ),
        )
        .with_hint("try again")),
    }
}
