//! Deletes the oldest records of a native chain, on record, in one transaction.
//!
//! Called by the facade once the rows are in an archive that was synced and verified. In one `BEGIN IMMEDIATE` the rows are read
//! again, their Merkle root must be the archive's, the record of the prune is appended, the rows go. The guards
//! ([`crate::ledger`]) are lifted and put back in the same transaction; a service's own triggers stay, and may refuse.
//!
//! When the process dies before the commit nothing is deleted, after it the record is there. Values that records only
//! commit to go with their records when they were erased before; otherwise the prune is refused, for the archive does not hold them.

use std::path::Path;
use std::time::Duration;

use audit_chain::canonical::RowForm;
use audit_chain::merkle::Frontier;
use audit_chain::native::{NativeHead, NativeKey, NativeRecord};
use audit_chain::pruned::{Cut, PruneArchive, PruneBody, PruneTip, root_text};
use audit_chain::value::{Columns, Row};
use backup_core::context::{Context, Progress};
use backup_core::error::{Error, ErrorKind, Result};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use serde::Serialize;

use crate::fault::explain;
use crate::ledger::Layout;
use crate::open::{absolute, open_live};
use crate::schema::{Table, quote};
use crate::table::value_of;

/// What is to be deleted.
#[derive(Debug, Clone)]
pub struct PruneJob<'a> {
    /// The table.
    pub table: &'a str,
    /// The oldest records of each chain.
    pub cuts: &'a [Cut],
    /// Where they are kept.
    pub archive: &'a PruneArchive,
    /// Secrets at hand: a keyed chain is continued with the one that its last record names.
    pub keys: &'a [NativeKey],
    /// How long locks of others are waited for.
    pub busy_timeout: Duration,
}

/// The record of what left one chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PruneReceipt {
    /// The chain.
    pub chain: String,
    /// How many rows were deleted.
    pub deleted: u64,
    /// The record's number.
    pub seq: u64,
    /// The record's hash: the chain's head now.
    pub hash: String,
    /// The id of the key that made the record; `None` for a plain hash.
    pub key_id: Option<String>,
}

/// Deletes rows on record.
///
/// # Errors
/// `Mismatch` when the rows are not those of the archive any more; `KeyRejected` when a chain is keyed and its secret is not at hand;
/// `Unsupported` when a trigger forbids it or values would be lost; `Locked`; what SQLite says. Nothing is deleted then.
pub fn prune_native(path: &Path, job: &PruneJob<'_>, ctx: &Context) -> Result<Vec<PruneReceipt>> {
    let path = absolute(path)?;
    let failed = |error| explain(error, "prune", &path);
    let mut connection = open_live(&path, job.busy_timeout, ctx)?;
    // A commit that is said to be done survives a power cut.
    connection.execute_batch("PRAGMA synchronous=FULL").map_err(failed)?;
    let table = Table::find(&connection, &path, job.table, &[])?.name;
    // SQLite waits for the lock as long as it is told to; a caller who cancels waits with it.
    connection.busy_timeout(job.busy_timeout).map_err(failed)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let layout = Layout::new(table)?;
    let receipts = layout.lifted(&transaction, || {
        let mut receipts = Vec::with_capacity(job.cuts.len());
        for cut in job.cuts {
            ctx.check()?;
            ctx.progress(Progress {
                stage: "prune",
                object: &cut.chain,
                done: 0,
                total: Some(cut.count),
                unit: "rows",
            });
            receipts.push(prune_chain(&transaction, &path, &layout, cut, job)?);
        }
        Ok(receipts)
    })?;
    ctx.check()?;
    transaction.commit().map_err(failed)?;
    Ok(receipts)
}

fn prune_chain(
    transaction: &Connection,
    path: &Path,
    layout: &Layout,
    cut: &Cut,
    job: &PruneJob<'_>,
) -> Result<PruneReceipt> {
    let failed = |error| explain(error, "prune", path);
    let table = layout.table();
    compare(transaction, path, table, cut)?;
    let last = last_record(transaction, table, &cut.chain)
        .map_err(failed)?
        .ok_or_else(|| changed(cut, "no record"))?;
    let key = match &last.key_id {
        None => None,
        Some(id) => Some(job.keys.iter().find(|key| key.id() == id).ok_or_else(|| {
            Error::new(
                ErrorKind::KeyRejected,
                format!(
                    "chain {:?} is keyed with the secret of key id {id}, which is not at hand",
                    cut.chain
                ),
            )
            .with_hint("give it with --secret NAME=REF: the record of the prune is made with it")
        })?),
    };
    let tip = PruneTip { hash: last.hash.clone(), seq: last.seq };
    let body = PruneBody::new(cut, job.archive.clone(), tip).text();
    let record = NativeHead::from(&last).next(Timestamp::now().as_microsecond(), body, key)?;
    let seq = i64::try_from(record.seq).unwrap_or(i64::MAX);
    transaction
        .execute(
            &layout.insert_sql(),
            params![
                record.chain,
                seq,
                record.at,
                record.body,
                record.v,
                record.key_id,
                record.prev,
                record.hash
            ],
        )
        .map_err(failed)?;
    remove_values(transaction, path, &layout.values_table(), cut)?;
    let to = i64::try_from(cut.to).unwrap_or(i64::MAX);
    let deleted = transaction
        .execute(
            &format!("DELETE FROM {} WHERE chain = ?1 AND seq <= ?2", quote(table)),
            params![cut.chain, to],
        )
        .map_err(|error| forbidden(error, path, table))?;
    let deleted = deleted as u64;
    if deleted != cut.count {
        return Err(changed(cut, &format!("{deleted} rows up to number {}", cut.to)));
    }
    Ok(PruneReceipt {
        chain: record.chain,
        deleted,
        seq: record.seq,
        hash: record.hash,
        key_id: record.key_id,
    })
}

/// Says that a trigger of the service's own forbids the deletion.
fn forbidden(error: rusqlite::Error, path: &Path, table: &str) -> Error {
    let trigger = rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER;
    if error.sqlite_error().is_some_and(|error| error.extended_code == trigger) {
        return Error::new(
            ErrorKind::InUse,
            format!("{}: a trigger forbids to delete from {table:?}: {error}", path.display()),
        )
        .with_hint("the service's own rule stands above a prune: drop the trigger first, or export only")
        .with_source(error);
    }
    explain(error, "prune", path)
}

fn changed(cut: &Cut, found: &str) -> Error {
    Error::new(
        ErrorKind::Mismatch,
        format!(
            "chain {:?}: expected {} rows up to number {} with root {}, as in the archive, found {found}: nothing was deleted",
            cut.chain, cut.count, cut.to, cut.root
        ),
    )
}

/// Holds the rows that are to go to the archive.
fn compare(connection: &Connection, path: &Path, table: &str, cut: &Cut) -> Result<()> {
    let failed = |error| explain(error, "read rows of", path);
    let mut statement = connection
        .prepare(&format!("SELECT * FROM {} WHERE chain = ?1 AND seq <= ?2 ORDER BY seq", quote(table)))
        .map_err(failed)?;
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let width = names.len();
    let mut form = RowForm::new(&Columns::new(names));
    let mut tree = Frontier::new();
    let mut count = 0_u64;
    let to = i64::try_from(cut.to).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![cut.chain, to]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let mut values = Vec::with_capacity(width);
        for at in 0..width {
            values.push(value_of(row.get_ref(at).map_err(failed)?));
        }
        tree.push(form.leaf(&Row::new(&values)));
        count += 1;
    }
    let root = root_text(&tree.root());
    if count == cut.count && root == cut.root {
        return Ok(());
    }
    Err(changed(cut, &format!("{count} rows with root {root}")))
}

fn last_record(connection: &Connection, table: &str, chain: &str) -> rusqlite::Result<Option<NativeRecord>> {
    let columns = audit_chain::native::COLUMNS.join(", ");
    let sql = format!("SELECT {columns} FROM {} WHERE chain = ?1 ORDER BY seq DESC LIMIT 1", quote(table));
    connection
        .query_row(&sql, [chain], |row| {
            Ok(NativeRecord {
                chain: row.get(0)?,
                seq: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
                at: row.get(2)?,
                body: row.get(3)?,
                v: row.get(4)?,
                key_id: row.get(5)?,
                prev: row.get(6)?,
                hash: row.get(7)?,
            })
        })
        .optional()
}

/// Removes the places of erased values; values that are still there forbid the prune.
fn remove_values(connection: &Connection, path: &Path, values: &str, cut: &Cut) -> Result<()> {
    let failed = |error| explain(error, "prune", path);
    let there: bool = connection
        .query_row(
            "SELECT count(*) > 0 FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name = ?1",
            [values],
            |row| row.get(0),
        )
        .map_err(failed)?;
    if !there {
        return Ok(());
    }
    let to = i64::try_from(cut.to).unwrap_or(i64::MAX);
    let kept: i64 = connection
        .query_row(
            &format!(
                "SELECT count(*) FROM {} WHERE chain = ?1 AND seq <= ?2 AND value IS NOT NULL",
                quote(values)
            ),
            params![cut.chain, to],
            |row| row.get(0),
        )
        .map_err(failed)?;
    if kept > 0 {
        return Err(Error::new(
            ErrorKind::InUse,
            format!(
                "chain {:?}: {kept} values in {values:?} belong to records up to number {}, and an archive of the records does not hold them",
                cut.chain, cut.to
            ),
        )
        .with_hint("erase those values first, or keep those records"));
    }
    connection
        .execute(
            &format!("DELETE FROM {} WHERE chain = ?1 AND seq <= ?2", quote(values)),
            params![cut.chain, to],
        )
        .map_err(|error| forbidden(error, path, values))?;
    Ok(())
}
