//! Checks of a database that nobody writes: its structure, its references, and questions of the caller's.
//!
//! Called on the copy of a snapshot where that is asked for, and on a restored database before it is put in place.

use std::collections::BTreeMap;
use std::path::Path;

use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::traits::Check;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde::{Deserialize, Serialize};

use crate::fault::explain;
use crate::schema::{quote, user_tables};
use crate::watch::watched;

/// How many lines of complaints a check quotes.
const QUOTED: usize = 5;

/// How closely the structure of a database is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Integrity {
    /// Not at all.
    Off,
    /// `PRAGMA quick_check`: pages and rows, but not whether indexes hold what the tables hold.
    Quick,
    /// `PRAGMA integrity_check`: also the indexes.
    Full,
}

/// A question to a restored database with the answer that is expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlCheck {
    /// What it is called in reports.
    pub name: String,
    /// One statement that reads; its first column of its first row is the answer.
    pub sql: String,
    /// The answer as text (`42`, `active`); `None` means: any answer but NULL, 0 or no row.
    pub expected: Option<String>,
}

/// Runs `sql` on a connection that can be cancelled.
fn ask<T>(
    connection: &Connection,
    ctx: &Context,
    path: &Path,
    step: &str,
    op: impl FnOnce() -> rusqlite::Result<T>,
) -> Result<T> {
    ctx.check()?;
    watched(connection.get_interrupt_handle(), ctx, || (), op).map_err(|error| explain(error, step, path))
}

/// Checks the structure of the database.
///
/// # Errors
/// Only when it cannot be read at all; what is wrong is in the result.
pub(crate) fn integrity(
    connection: &Connection,
    path: &Path,
    level: Integrity,
    ctx: &Context,
) -> Result<Option<Check>> {
    let pragma = match level {
        Integrity::Off => return Ok(None),
        Integrity::Quick => "quick_check",
        Integrity::Full => "integrity_check",
    };
    let complaints = ask(connection, ctx, path, "check", || {
        // SQLite's own cache of 2 MiB stays: on 1 GB with random keys one of 32 MiB costs a third more, because its
        // table of pages no longer fits in the processor's cache, while the system's holds the file anyway.
        let mut statement = connection.prepare(&format!("PRAGMA {pragma}({QUOTED})"))?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
        lines.collect::<rusqlite::Result<Vec<_>>>()
    });
    let complaints = match complaints {
        // Damage in the first pages is an error of the statement, not a row of its answer.
        Err(error) if error.kind() == ErrorKind::Corrupt => vec![error.to_string()],
        other => other?,
    };
    let ok = complaints.len() == 1 && complaints[0] == "ok";
    let detail = if ok { "ok".to_owned() } else { complaints.join("; ") };
    Ok(Some(Check { name: pragma.replace('_', " "), ok, detail }))
}

/// Checks that every foreign key has its row.
///
/// # Errors
/// When the database cannot be read.
pub(crate) fn foreign_keys(connection: &Connection, path: &Path, ctx: &Context) -> Result<Check> {
    let (count, places) = ask(connection, ctx, path, "check the foreign keys of", || {
        let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
        let mut rows = statement.query([])?;
        let (mut count, mut places) = (0_u64, Vec::new());
        while let Some(row) = rows.next()? {
            count += 1;
            if places.len() < QUOTED {
                let (table, rowid, parent): (String, Option<i64>, String) =
                    (row.get(0)?, row.get(1)?, row.get(2)?);
                let rowid = rowid.map(|rowid| format!(" row {rowid}")).unwrap_or_default();
                places.push(format!("{table}{rowid} refers to nothing in {parent}"));
            }
        }
        Ok((count, places))
    })?;
    let detail = match count {
        0 => "every reference has its row".to_owned(),
        count => format!("{count} references without a row: {}", places.join("; ")),
    };
    Ok(Check { name: "foreign keys".into(), ok: count == 0, detail })
}

/// Counts the rows of every table of the user.
///
/// # Errors
/// When the database cannot be read.
pub(crate) fn count_rows(
    connection: &Connection,
    path: &Path,
    ctx: &Context,
) -> Result<BTreeMap<String, u64>> {
    let tables = user_tables(connection).map_err(|error| explain(error, "read the schema of", path))?;
    let mut counts = BTreeMap::new();
    for table in tables {
        let sql = format!("SELECT count(*) FROM {}", quote(&table));
        let rows: i64 = ask(connection, ctx, path, "count the rows of", || {
            connection.query_row(&sql, [], |row| row.get(0))
        })?;
        counts.insert(table, u64::try_from(rows).unwrap_or(0));
    }
    Ok(counts)
}

/// Compares row counts with those of the manifest.
pub(crate) fn compare_rows(expected: &BTreeMap<String, u64>, found: &BTreeMap<String, u64>) -> Check {
    let mut differences = Vec::new();
    for (table, rows) in expected {
        match found.get(table) {
            Some(now) if now == rows => {}
            Some(now) => differences.push(format!("{table}: expected {rows} rows, found {now}")),
            None => differences.push(format!("{table}: expected {rows} rows, the table is not there")),
        }
    }
    for table in found.keys().filter(|table| !expected.contains_key(*table)) {
        differences.push(format!("{table}: not in the manifest"));
    }
    let ok = differences.is_empty();
    let detail = if ok {
        let rows: u64 = found.values().sum();
        format!("{rows} rows in {} tables, as in the manifest", found.len())
    } else {
        differences.truncate(QUOTED);
        differences.join("; ")
    };
    Check { name: "row counts".into(), ok, detail }
}

/// Asks the caller's question.
///
/// # Errors
/// `InvalidInput` when it is not one statement that only reads, or does not compile; `Cancelled`.
pub(crate) fn sql(connection: &Connection, path: &Path, check: &SqlCheck, ctx: &Context) -> Result<Check> {
    let wrong = |why: &str| {
        Error::new(ErrorKind::InvalidInput, format!("check {:?}: {why}", check.name))
            .with_hint("a check is one SELECT whose first column is the answer")
    };
    let found = ask(connection, ctx, path, "run a check on", || {
        let mut statement = connection.prepare(&check.sql)?;
        if !statement.readonly() || statement.column_count() == 0 || statement.parameter_count() > 0 {
            return Ok(None);
        }
        let mut rows = statement.query([])?;
        let answer = match rows.next()? {
            None => (None, false),
            Some(row) => answer(row.get_ref(0)?),
        };
        Ok(Some(answer))
    });
    let (found, truthy) = match found {
        Ok(Some(found)) => found,
        Ok(None) => return Err(wrong("it writes, returns nothing, or has parameters")),
        Err(error) if matches!(error.kind(), ErrorKind::Malformed | ErrorKind::Unsupported) => {
            return Err(wrong("it does not run").with_source(error));
        }
        Err(error) => return Err(error),
    };
    let shown = found.clone().unwrap_or_else(|| "nothing".into());
    let (ok, wanted) = match &check.expected {
        Some(expected) => (found.as_ref() == Some(expected), expected.clone()),
        None => (truthy, "any answer but NULL, 0 or no row".into()),
    };
    let detail = if ok { shown } else { format!("expected {wanted}, found {shown}") };
    Ok(Check { name: check.name.clone(), ok, detail })
}

/// Spells an answer, and says whether it is one that counts as yes.
fn answer(value: ValueRef<'_>) -> (Option<String>, bool) {
    match value {
        ValueRef::Null => (None, false),
        ValueRef::Integer(value) => (Some(value.to_string()), value != 0),
        ValueRef::Real(value) => (Some(value.to_string()), value != 0.0),
        ValueRef::Text(bytes) => (Some(String::from_utf8_lossy(bytes).into_owned()), true),
        ValueRef::Blob(bytes) => (Some(hex::encode(bytes)), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(sql: &str) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        connection
    }

    fn run(connection: &Connection, statement: &str, expected: Option<&str>) -> Result<Check> {
        let check =
            SqlCheck { name: "c".into(), sql: statement.into(), expected: expected.map(str::to_owned) };
        sql(connection, Path::new("a.db"), &check, &Context::new())
    }

    #[test]
    fn a_check_compares_the_first_answer() {
        let db = database("CREATE TABLE t(a); INSERT INTO t VALUES (7), (8)");
        assert!(run(&db, "SELECT count(*) FROM t", Some("2")).unwrap().ok);
        let wrong = run(&db, "SELECT a FROM t", Some("8")).unwrap();
        assert_eq!((wrong.ok, wrong.detail.as_str()), (false, "expected 8, found 7"));
        assert!(run(&db, "SELECT 1 FROM t WHERE a = 8", None).unwrap().ok);
        assert!(!run(&db, "SELECT 1 FROM t WHERE a = 9", None).unwrap().ok);
        assert!(!run(&db, "SELECT NULL", None).unwrap().ok);
        assert!(run(&db, "SELECT x'00ff'", Some("00ff")).unwrap().ok);
    }

    #[test]
    fn a_check_that_writes_or_does_not_compile_is_refused() {
        let db = database("CREATE TABLE t(a)");
        for hostile in [
            "DELETE FROM t",
            "INSERT INTO t VALUES (1) RETURNING 1",
            "PRAGMA user_version=3",
            "SELEC",
            "",
            "SELECT ?1",
        ] {
            assert_eq!(run(&db, hostile, None).unwrap_err().kind(), ErrorKind::InvalidInput, "{hostile:?}");
        }
        assert_eq!(db.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    }

    #[test]
    fn dangling_references_are_counted_and_named() {
        let db = database(
            "PRAGMA foreign_keys=OFF; CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p); INSERT INTO c VALUES (1), (2)",
        );
        let check = foreign_keys(&db, Path::new("a.db"), &Context::new()).unwrap();
        assert!(!check.ok);
        assert!(
            check.detail.starts_with("2 references without a row: c row 1 refers to nothing in p"),
            "{}",
            check.detail
        );
    }

    #[test]
    fn row_counts_are_compared_table_by_table() {
        let counts =
            |pairs: &[(&str, u64)]| pairs.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect();
        let expected: BTreeMap<String, u64> = counts(&[("a", 1), ("b", 2)]);
        assert!(compare_rows(&expected, &expected).ok);
        let check = compare_rows(&expected, &counts(&[("a", 2), ("c", 0)]));
        assert_eq!(
            check.detail,
            "a: expected 1 rows, found 2; b: expected 2 rows, the table is not there; c: not in the manifest"
        );
    }
}
