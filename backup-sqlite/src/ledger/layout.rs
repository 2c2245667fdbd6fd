//! The tables of a native chain in SQLite: the one place that knows their names, columns, indexes and triggers.
//!
//! Everything of this crate that writes or prunes a native chain takes its SQL from here; so may a service that
//! reaches SQLite through another library (sqlx). Layout, for a table `attestore_chain` (docs/format/native-chain.md):
//!
//! - `attestore_chain`: the records, one a row. A chain cannot fork: `PRIMARY KEY (chain, seq)` and
//!   `UNIQUE (chain, prev)`, so that two records neither have one number nor one predecessor.
//! - `attestore_chain_values`: values that records only commit to, each with its salt; erased ones keep their row.
//! - guards: triggers that forbid UPDATE and DELETE, and any INSERT that does not continue its chain. `INSERT OR
//!   REPLACE` deletes without the delete trigger (sqlite.org/lang_createtrigger.html), so the last one matters.
//!
//! Whoever may change the schema may drop the guards: they stop mistakes and programs, not an owner. What shows an
//! owner's change is the chain itself, and a checkpoint kept elsewhere.

use backup_core::error::{Error, ErrorKind, Result};
use rusqlite::{Connection, params};

use super::fault;
use crate::schema::quote;

/// The table that a native chain is kept in, unless the service names another.
pub const DEFAULT_TABLE: &str = audit_chain::formats::native::TABLE;

/// What the name of the table of values ends with.
pub const VALUES_SUFFIX: &str = audit_chain::formats::native::VALUES_SUFFIX;

/// The longest name of a table, in bytes: names are made from it.
const MAX_NAME_BYTES: usize = 200;

/// The names and the SQL of one native chain's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    table: String,
}

impl Default for Layout {
    fn default() -> Self {
        Self { table: DEFAULT_TABLE.to_owned() }
    }
}

impl Layout {
    /// Names the table of the records.
    ///
    /// # Errors
    /// `InvalidName` when it is empty, too long, SQLite's own, or holds a NUL.
    pub fn new(table: impl Into<String>) -> Result<Self> {
        let table = table.into();
        let own = table.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"));
        if table.is_empty() || table.len() > MAX_NAME_BYTES || own || table.contains('\0') {
            return Err(Error::new(
                ErrorKind::InvalidName,
                format!(
                    "{table:?} cannot name the table of a chain: expected 1 to {MAX_NAME_BYTES} bytes without NUL, not sqlite_…"
                ),
            ));
        }
        Ok(Self { table })
    }

    /// Returns the name of the table of records.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Returns the name of the table of values.
    #[must_use]
    pub fn values_table(&self) -> String {
        format!("{}{VALUES_SUFFIX}", self.table)
    }

    /// Returns the SQL that makes the tables where they are missing, without guards.
    #[must_use]
    pub fn create_sql(&self) -> String {
        let (table, values) = (quote(&self.table), quote(&self.values_table()));
        let erased = quote(&format!("{}_erased", self.values_table()));
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (
  chain  TEXT    NOT NULL,
  seq    INTEGER NOT NULL CHECK (seq > 0),
  at     TEXT    NOT NULL,
  body   TEXT    NOT NULL,
  v      INTEGER NOT NULL,
  key_id TEXT,
  prev   TEXT    NOT NULL CHECK (length(prev) = CASE seq WHEN 1 THEN 0 ELSE 64 END),
  hash   TEXT    NOT NULL CHECK (length(hash) = 64),
  PRIMARY KEY (chain, seq),
  UNIQUE (chain, prev)
) STRICT;
CREATE TABLE IF NOT EXISTS {values} (
  chain     TEXT    NOT NULL,
  seq       INTEGER NOT NULL,
  pointer   TEXT    NOT NULL,
  salt      BLOB    CHECK (length(salt) = 32),
  value     TEXT,
  erased_by INTEGER CHECK (erased_by > seq),
  PRIMARY KEY (chain, seq, pointer),
  CHECK ((salt IS NULL) = (value IS NULL) AND (salt IS NULL) = (erased_by IS NOT NULL))
) STRICT;
CREATE INDEX IF NOT EXISTS {erased} ON {values} (chain, erased_by) WHERE erased_by IS NOT NULL;
"
        )
    }

    /// Returns the guards: name and SQL of each trigger.
    #[must_use]
    pub fn guards(&self) -> Vec<(String, String)> {
        let values = self.values_table();
        let (table, values_table) = (quote(&self.table), quote(&values));
        let guard = |owner: &str, what: &str, rest: String| {
            let name = format!("{owner}_{what}");
            let sql = format!("CREATE TRIGGER {} {rest}", quote(&name));
            (name, sql)
        };
        let refuse = |why: &str| format!("BEGIN SELECT RAISE(ABORT, '{}'); END", why.replace('\'', "''"));
        vec![
            guard(
                &self.table,
                "no_update",
                format!("BEFORE UPDATE ON {table} {}", refuse("a chain is appended to, never updated")),
            ),
            guard(
                &self.table,
                "no_delete",
                format!("BEFORE DELETE ON {table} {}", refuse("a chain is appended to, never deleted from")),
            ),
            guard(
                &self.table,
                "append_only",
                format!(
                    "BEFORE INSERT ON {table} WHEN NEW.seq IS NOT 1 + coalesce((SELECT max(seq) FROM {table} WHERE chain = NEW.chain), 0) \
OR NEW.prev IS NOT coalesce((SELECT hash FROM {table} WHERE chain = NEW.chain AND seq = NEW.seq - 1), '') {}",
                    refuse("the record does not continue its chain")
                ),
            ),
            guard(
                &values,
                "no_update",
                format!(
                    "BEFORE UPDATE ON {values_table} {}",
                    refuse("values are erased on record, never updated")
                ),
            ),
            guard(
                &values,
                "no_delete",
                format!(
                    "BEFORE DELETE ON {values_table} {}",
                    refuse("values are erased on record, never deleted")
                ),
            ),
            guard(
                &values,
                "append_only",
                format!(
                    "BEFORE INSERT ON {values_table} WHEN EXISTS (SELECT 1 FROM {values_table} \
WHERE chain = NEW.chain AND seq = NEW.seq AND pointer = NEW.pointer) {}",
                    refuse("the record has a value there already")
                ),
            ),
        ]
    }

    /// Returns the SQL that reads where a chain stands: `seq`, `hash`, `key_id`; parameter 1 is the chain.
    #[must_use]
    pub fn head_sql(&self) -> String {
        format!(
            "SELECT seq, hash, key_id FROM {} WHERE chain = ?1 ORDER BY seq DESC LIMIT 1",
            quote(&self.table)
        )
    }

    /// Returns the SQL that takes the lock for writing and changes nothing.
    ///
    /// First in a deferred transaction it sees to it that the head is read after the lock is had, so that no other
    /// writer comes between.
    #[must_use]
    pub fn lock_sql(&self) -> String {
        format!("UPDATE {} SET v = v WHERE 0", quote(&self.table))
    }

    /// Returns the SQL that stores a record: parameters 1 to 8 in the order of [`audit_chain::native::COLUMNS`].
    #[must_use]
    pub fn insert_sql(&self) -> String {
        format!(
            "INSERT INTO {} ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            quote(&self.table),
            audit_chain::native::COLUMNS.join(", ")
        )
    }

    /// Returns the SQL that stores a value: chain, seq, pointer, salt, value.
    #[must_use]
    pub fn insert_value_sql(&self) -> String {
        format!(
            "INSERT INTO {} (chain, seq, pointer, salt, value) VALUES (?1, ?2, ?3, ?4, ?5)",
            quote(&self.values_table())
        )
    }

    /// Makes the tables where they are missing; with `guarded`, the triggers too.
    ///
    /// # Errors
    /// What SQLite says; `Locked` when another connection is in the way.
    pub fn create(&self, connection: &Connection, guarded: bool) -> Result<()> {
        let failed = |error| fault("make the tables of the chain in", connection, error);
        connection.execute_batch(&self.create_sql()).map_err(failed)?;
        if guarded {
            for (name, sql) in self.guards() {
                if self.guard_sql(connection, &name)?.is_none() {
                    connection.execute_batch(&sql).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Runs `work` with the guards lifted, in the caller's transaction: they are dropped and made again as they were,
    /// and no other connection ever sees the tables without them. When `work` fails the transaction must be rolled back.
    ///
    /// # Errors
    /// `InvalidInput` outside a transaction; what `work` and SQLite say.
    pub fn lifted<T>(&self, connection: &Connection, work: impl FnOnce() -> Result<T>) -> Result<T> {
        require_transaction(connection)?;
        let failed = |error| fault("lift the guards of the chain in", connection, error);
        let mut lifted = Vec::new();
        for (name, _) in self.guards() {
            if let Some(sql) = self.guard_sql(connection, &name)? {
                connection.execute_batch(&format!("DROP TRIGGER {}", quote(&name))).map_err(failed)?;
                lifted.push(sql);
            }
        }
        let done = work()?;
        for sql in lifted {
            connection.execute_batch(&sql).map_err(failed)?;
        }
        Ok(done)
    }

    /// Returns the SQL of a guard as the database has it; `None` where it is not there.
    fn guard_sql(&self, connection: &Connection, name: &str) -> Result<Option<String>> {
        let found = connection.query_row(
            "SELECT sql FROM main.sqlite_schema WHERE type = 'trigger' AND name = ?1",
            params![name],
            |row| row.get(0),
        );
        match found {
            Ok(sql) => Ok(Some(sql)),
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
            Err(error) => Err(fault("read the schema of", connection, error)),
        }
    }
}

/// Refuses a connection that is in no transaction.
///
/// # Errors
/// `InvalidInput`.
pub(super) fn require_transaction(connection: &Connection) -> Result<()> {
    if connection.is_autocommit() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "a chain is written in a transaction of the caller, and this connection is in none",
        )
        .with_hint("begin one (BEGIN IMMEDIATE) around the record and what it is about"));
    }
    Ok(())
}
