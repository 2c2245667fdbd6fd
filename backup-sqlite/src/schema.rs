//! Finds a table, its columns and how its rows are reached in order.
//!
//! Names of tables and columns come from callers and from files of strangers: they are compared with what the
//! schema has and quoted, never pasted. Called by [`crate::table`] and [`crate::facts`].

use std::path::Path;

use backup_core::error::{Error, ErrorKind, Result};
use rusqlite::Connection;

use crate::fault::explain;

/// The names by which SQLite lets the row id be read (sqlite.org/rowidtable.html).
const ROWID_NAMES: [&str; 3] = ["rowid", "_rowid_", "oid"];
/// How many tables a message lists.
const LISTED: usize = 12;

/// Quotes an identifier.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table as the schema has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// Its name, spelt as in the schema.
    pub(crate) name: String,
    /// The columns of `SELECT *`, in the order of their declaration.
    pub(crate) columns: Vec<String>,
    /// The name under which the row id can be read, where there is a row id.
    pub(crate) rowid: Option<String>,
    /// The column that is the row id (`INTEGER PRIMARY KEY`).
    alias: Option<String>,
}

impl Table {
    /// Finds a table by its name, without regard to case, as SQLite does.
    ///
    /// # Errors
    /// `NotFound` when there is none, with the tables that look like a chain; `Unsupported` for a view.
    pub(crate) fn find(connection: &Connection, path: &Path, name: &str, wanted: &[String]) -> Result<Self> {
        let failed = |error| explain(error, "read the schema of", path);
        let found = connection.query_row(
            "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE",
            [name],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?)),
        );
        let (stored, kind, without_rowid) = match found {
            Ok(found) => found,
            Err(rusqlite::Error::QueryReturnedNoRows) => {
                return Err(missing(connection, path, name, wanted).map_err(failed)?);
            }
            Err(error) => return Err(failed(error)),
        };
        if kind == "view" {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{}: {stored:?} is a view; a chain is verified in the table that holds it",
                    path.display()
                ),
            )
            .with_hint("name the table that the view reads"));
        }
        let columns = columns_of(connection, &stored).map_err(failed)?;
        let (rowid, alias) = if without_rowid || kind == "virtual" {
            (None, None)
        } else {
            let alias = rowid_alias(connection, &stored).map_err(failed)?;
            let free = |name: &&&str| !columns.iter().any(|column| column.eq_ignore_ascii_case(name));
            let hidden = ROWID_NAMES.iter().find(free).map(|name| (*name).to_owned());
            (hidden.or_else(|| alias.clone()), alias)
        };
        Ok(Self { name: stored, columns, rowid, alias })
    }

    /// Spells an `ORDER BY` from a format's terms; `None` where that is the order of the row ids.
    ///
    /// # Errors
    /// `InvalidInput` when a term is not a column, optionally followed by `ASC` or `DESC`.
    pub(crate) fn order_by(&self, terms: &[String]) -> Result<Option<String>> {
        let mut spelt = Vec::with_capacity(terms.len());
        for term in terms {
            let term = term.trim();
            let (name, direction) = match term.rsplit_once(' ') {
                Some((name, word)) if word.eq_ignore_ascii_case("asc") => (name.trim_end(), ""),
                Some((name, word)) if word.eq_ignore_ascii_case("desc") => (name.trim_end(), " DESC"),
                _ => (term, ""),
            };
            let column = self.columns.iter().find(|column| column.eq_ignore_ascii_case(name));
            let is_rowid = match column {
                Some(column) => self.alias.as_ref() == Some(column),
                None => {
                    ROWID_NAMES.iter().any(|rowid| rowid.eq_ignore_ascii_case(name)) && self.rowid.is_some()
                }
            };
            if is_rowid && direction.is_empty() && spelt.is_empty() {
                // Row ids are unique: later terms change nothing.
                return Ok(None);
            }
            match (column, &self.rowid) {
                (Some(column), _) => spelt.push(format!("{}{direction}", quote(column))),
                (None, Some(rowid)) if is_rowid => spelt.push(format!("{}{direction}", quote(rowid))),
                _ => {
                    return Err(Error::new(
                        ErrorKind::InvalidInput,
                        format!("table {:?} has no column {name:?} to order by", self.name),
                    )
                    .with_hint(format!("its columns are {}", self.columns.join(", "))));
                }
            }
        }
        Ok((!spelt.is_empty()).then(|| spelt.join(", ")))
    }
}

fn columns_of(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    // Hidden columns of virtual tables (1) are not in `SELECT *`; generated ones (2, 3) are.
    let mut statement =
        connection.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    names.collect()
}

/// Finds the column that stands for the row id: the only key column, of exactly the type INTEGER, and without
/// an index of its own (`INTEGER PRIMARY KEY DESC` has one and is no alias).
fn rowid_alias(connection: &Connection, table: &str) -> rusqlite::Result<Option<String>> {
    let mut statement = connection
        .prepare("SELECT name, upper(type) = 'INTEGER' FROM pragma_table_xinfo(?1) WHERE pk > 0")?;
    let keys: Vec<(String, bool)> = statement
        .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let indexed: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'pk')",
        [table],
        |row| row.get(0),
    )?;
    Ok(match keys.as_slice() {
        [(name, true)] if !indexed => Some(name.clone()),
        _ => None,
    })
}

/// Lists the user's tables: name, in the order of the schema.
pub(crate) fn user_tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}

/// Says that a table is not there, and which tables look like a chain.
fn missing(connection: &Connection, path: &Path, name: &str, wanted: &[String]) -> rusqlite::Result<Error> {
    let mut fitting = Vec::new();
    let mut linked = Vec::new();
    let all = user_tables(connection)?;
    for table in &all {
        let columns = columns_of(connection, table)?;
        let has = |name: &String| columns.iter().any(|column| column.eq_ignore_ascii_case(name));
        if !wanted.is_empty() && wanted.iter().all(has) {
            fitting.push(table.clone());
        } else if columns.iter().any(|column| looks_like_a_link(column)) {
            linked.push(table.clone());
        }
    }
    fitting.append(&mut linked);
    let hint = if all.is_empty() {
        "the database has no tables".to_owned()
    } else if fitting.is_empty() {
        format!("no table looks like a chain; the tables are {}", list(&all))
    } else {
        format!("the tables that look like a chain are {}", list(&fitting))
    };
    Ok(Error::new(ErrorKind::NotFound, format!("{} has no table {name:?}", path.display())).with_hint(hint))
}

fn list(names: &[String]) -> String {
    let mut text = names.iter().take(LISTED).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if names.len() > LISTED {
        text.push_str(&format!(" and {} more", names.len() - LISTED));
    }
    text
}

fn looks_like_a_link(column: &str) -> bool {
    let column = column.to_ascii_lowercase();
    let parts: Vec<&str> = column.split('_').collect();
    let has = |words: &[&str]| parts.iter().any(|part| words.contains(part));
    has(&["prev", "previous", "parent"]) && has(&["hash", "hmac", "mac", "digest", "sha256", "link"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(sql: &str) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        connection
    }

    fn find(connection: &Connection, name: &str) -> Result<Table> {
        Table::find(connection, Path::new("app.db"), name, &["id".into(), "prev_hash".into()])
    }

    fn order(table: &Table, terms: &[&str]) -> Result<Option<String>> {
        table.order_by(&terms.iter().map(|term| (*term).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_row_id_is_read_under_a_name_that_no_column_has() {
        let connection = database(
            "CREATE TABLE a(x); CREATE TABLE b(rowid TEXT, x); CREATE TABLE c(rowid, _rowid_, oid);
             CREATE TABLE d(oid INTEGER PRIMARY KEY, rowid, _rowid_); CREATE TABLE e(k PRIMARY KEY) WITHOUT ROWID;",
        );
        let rowid = |name| find(&connection, name).unwrap().rowid;
        assert_eq!(rowid("a").as_deref(), Some("rowid"));
        assert_eq!(rowid("b").as_deref(), Some("_rowid_"));
        assert_eq!(rowid("c"), None);
        assert_eq!(rowid("d").as_deref(), Some("oid"));
        assert_eq!(rowid("e"), None);
    }

    #[test]
    fn an_order_is_made_of_columns_and_nothing_else() {
        let connection = database("CREATE TABLE a(id INTEGER PRIMARY KEY, \"odd \"\"name\" TEXT, seq)");
        let table = find(&connection, "A").unwrap();
        assert_eq!(table.name, "a");
        assert_eq!(order(&table, &[]).unwrap(), None);
        assert_eq!(order(&table, &["id"]).unwrap(), None);
        assert_eq!(order(&table, &["rowid", "seq"]).unwrap(), None);
        assert_eq!(
            order(&table, &["SEQ desc", "odd \"name"]).unwrap().unwrap(),
            "\"seq\" DESC, \"odd \"\"name\""
        );
        assert_eq!(order(&table, &["seq", "rowid"]).unwrap().unwrap(), "\"seq\", \"rowid\"");
        for hostile in ["seq; DROP TABLE a", "1", "(SELECT 1)", "nope", "seq)--"] {
            assert_eq!(order(&table, &[hostile]).unwrap_err().kind(), ErrorKind::InvalidInput, "{hostile}");
        }
    }

    #[test]
    fn a_key_that_is_no_alias_of_the_row_id_is_an_order_of_its_own() {
        let connection = database(
            "CREATE TABLE a(id INT PRIMARY KEY); CREATE TABLE b(id INTEGER PRIMARY KEY DESC); CREATE TABLE c(x INTEGER, y INTEGER, PRIMARY KEY(x, y));",
        );
        for (name, column) in [("a", "id"), ("b", "id"), ("c", "x")] {
            assert!(order(&find(&connection, name).unwrap(), &[column]).unwrap().is_some(), "{name}");
        }
    }

    #[test]
    fn a_missing_table_names_those_that_look_like_a_chain() {
        let connection = database(
            "CREATE TABLE users(id); CREATE TABLE receipts(id, prev_hash); CREATE TABLE log(seq, previous_row_hmac);
             CREATE VIEW v AS SELECT * FROM receipts;",
        );
        let error = find(&connection, "action_receipts").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.hint().unwrap(), "the tables that look like a chain are \"receipts\", \"log\"");
        assert_eq!(find(&connection, "v").unwrap_err().kind(), ErrorKind::Unsupported);
        let none = find(&database("CREATE TABLE users(id)"), "x").unwrap_err();
        assert_eq!(none.hint().unwrap(), "no table looks like a chain; the tables are \"users\"");
    }

    #[test]
    fn generated_columns_are_columns() {
        let connection = database("CREATE TABLE g(a, b AS (a + 1), c AS (a + 2) STORED)");
        assert_eq!(find(&connection, "g").unwrap().columns, ["a", "b", "c"]);
    }
}
