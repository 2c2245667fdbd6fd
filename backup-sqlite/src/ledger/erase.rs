//! Erases values that records commit to, on record (B12).
//!
//! The value and its salt are overwritten, the row of the value names the record of the erasure, and that record says
//! who erased what and why: all in the caller's transaction. The chain verifies before and after.
//!
//! SQLite keeps what is deleted: in free space of pages, in free pages, in the log. So `secure_delete` is on while
//! the values go, the table of values is written anew and the old pages are overwritten with zeros, and after the commit
//! [`scrub`] empties the -wal. What was copied elsewhere before, a backup above all, still has the values.
//!
//! When the process dies before the commit nothing was erased; after it, before [`scrub`], the -wal still holds the
//! old pages: the next checkpoint that empties it takes them away, and `scrub` may be called again at any time.

use audit_chain::erasure::{ErasedField, Erasure};
use backup_core::error::{Error, ErrorKind, Result};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;

use super::append::{Draft, Ledger, Receipt};
use super::fault;
use super::layout::require_transaction;
use crate::schema::quote;

/// How many values one record of an erasure lists; more of them make more records.
const FIELDS_PER_RECORD: usize = 1_000;

/// How values are erased.
#[derive(Debug, Clone, Default)]
pub struct EraseOptions {
    /// Who erases: a person, an office, a ticket.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Leaves the table of values as it is but for the rows erased. Faster for very large tables; parts of old values
    /// can then stay in the free space of its pages until a `VACUUM`.
    pub keep_pages: bool,
}

/// What was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// The records that say so.
    pub records: Vec<Receipt>,
    /// The values.
    pub fields: Vec<ErasedField>,
}

impl Ledger {
    /// Lists the values of a record that are there: their pointers.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn values_of(&self, connection: &Connection, seq: u64) -> Result<Vec<ErasedField>> {
        let failed = |error| fault("read the values of the chain in", connection, error);
        let sql = format!(
            "SELECT pointer FROM {} WHERE chain = ?1 AND seq = ?2 AND value IS NOT NULL ORDER BY pointer",
            quote(&self.layout().values_table())
        );
        let mut statement = connection.prepare(&sql).map_err(failed)?;
        let rows = statement
            .query_map(params![self.chain(), i64::try_from(seq).unwrap_or(i64::MAX)], |row| row.get(0))
            .map_err(failed)?;
        rows.map(|pointer| Ok(ErasedField { seq, pointer: pointer.map_err(failed)? })).collect()
    }

    /// Erases values, in the caller's transaction; [`scrub`] the database after the commit.
    ///
    /// # Errors
    /// `InvalidInput` outside a transaction, without `by` or `reason`, or when nothing is named; `NotFound` when a value is
    /// not there or was erased before. After an error the transaction must be rolled back.
    pub fn erase(
        &self,
        connection: &Connection,
        fields: &[ErasedField],
        options: &EraseOptions,
    ) -> Result<Erased> {
        require_transaction(connection)?;
        let wrong = |what: &str| Err(Error::new(ErrorKind::InvalidInput, format!("cannot erase: {what}")));
        if options.by.trim().is_empty() || options.reason.trim().is_empty() {
            return wrong("an erasure says who erases and why");
        }
        let mut fields = fields.to_vec();
        fields.sort();
        fields.dedup();
        if fields.is_empty() {
            return wrong("no value is named");
        }
        let failed = |error| fault("erase values of the chain in", connection, error);
        let before: i64 =
            connection.query_row("PRAGMA secure_delete", [], |row| row.get(0)).map_err(failed)?;
        let set = |mode: i64| {
            let on = ["OFF", "ON", "FAST"].get(usize::try_from(mode).unwrap_or(1)).unwrap_or(&"ON");
            connection.query_row(&format!("PRAGMA secure_delete={on}"), [], |_| Ok(())).map_err(failed)
        };
        set(1)?;
        let done = self.layout().lifted(connection, || self.erase_all(connection, &fields, options));
        set(before)?;
        Ok(Erased { records: done?, fields })
    }

    fn erase_all(
        &self,
        connection: &Connection,
        fields: &[ErasedField],
        options: &EraseOptions,
    ) -> Result<Vec<Receipt>> {
        let failed = |error| fault("erase values of the chain in", connection, error);
        let values = quote(&self.layout().values_table());
        let find = format!("SELECT erased_by FROM {values} WHERE chain = ?1 AND seq = ?2 AND pointer = ?3");
        let erase = format!(
            "UPDATE {values} SET salt = NULL, value = NULL, erased_by = ?4 WHERE chain = ?1 AND seq = ?2 AND pointer = ?3"
        );
        let mut receipts = Vec::new();
        for part in fields.chunks(FIELDS_PER_RECORD) {
            for field in part {
                let found: Option<Option<i64>> = connection
                    .query_row(&find, params![self.chain(), number(field.seq), field.pointer], |row| {
                        row.get(0)
                    })
                    .optional()
                    .map_err(failed)?;
                let missing = |why: String| {
                    let ErasedField { seq, pointer } = field;
                    Error::new(
                        ErrorKind::NotFound,
                        format!("record {seq} of chain {:?} has no value at {pointer:?}{why}", self.chain()),
                    )
                };
                match found {
                    Some(None) => {}
                    Some(Some(by)) => return Err(missing(format!(": record {by} erased it"))),
                    None => {
                        return Err(missing(String::new())
                            .with_hint("only values that a record commits to can be erased from it"));
                    }
                }
            }
            let body = Erasure::new(options.by.trim(), options.reason.trim(), part.to_vec()).body();
            let receipt = self.append_any(connection, Draft::new(body))?;
            for field in part {
                connection
                    .execute(
                        &erase,
                        params![self.chain(), number(field.seq), field.pointer, number(receipt.seq)],
                    )
                    .map_err(failed)?;
            }
            receipts.push(receipt);
        }
        if !options.keep_pages {
            self.rewrite_values(connection)?;
        }
        Ok(receipts)
    }

    /// Writes the table of values anew; the old pages are zeroed because `secure_delete` is on.
    fn rewrite_values(&self, connection: &Connection) -> Result<()> {
        let failed = |error| fault("write the values of the chain anew in", connection, error);
        let values = self.layout().values_table();
        let triggers: i64 = connection
            .query_row(
                "SELECT count(*) FROM main.sqlite_schema WHERE tbl_name = ?1 AND type = 'trigger'",
                [&values],
                |row| row.get(0),
            )
            .map_err(failed)?;
        if triggers > 0 {
            // The service's own triggers would go with the table.
            return Ok(());
        }
        let (old, new) = (quote(&values), quote(&format!("{values}_new")));
        let made: String = connection
            .query_row(
                "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1",
                [&values],
                |row| row.get(0),
            )
            .map_err(failed)?;
        // Its columns stand from the first bracket on, whatever the name before it is.
        let Some(columns) =
            made.strip_prefix("CREATE TABLE ").and_then(|rest| rest.strip_prefix(old.as_str()))
        else {
            return Ok(());
        };
        connection
            .execute_batch(&format!(
                "CREATE TABLE {new}{columns};
INSERT INTO {new} SELECT * FROM {old} ORDER BY chain, seq, pointer;
DROP TABLE {old};
ALTER TABLE {new} RENAME TO {old};
{}",
                self.layout().create_sql()
            ))
            .map_err(failed)
    }
}

/// Empties the -wal after an erasure was committed, so that no old page is left in it.
///
/// # Errors
/// `InvalidInput` inside a transaction; `Locked` while another connection reads an older state or writes.
pub fn scrub(connection: &Connection) -> Result<()> {
    if !connection.is_autocommit() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "a -wal is emptied after the commit, not inside a transaction",
        ));
    }
    let failed = |error| fault("empty the -wal of", connection, error);
    let busy: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(failed)?;
    if busy != 0 {
        return Err(Error::new(
            ErrorKind::Locked,
            "the values are erased from the database, but its -wal still holds old pages: another connection reads an older state",
        )
        .with_hint("call it again when that reader has finished; a -wal is also emptied when its last connection closes"));
    }
    Ok(())
}

fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}
