//! The texts of a parallel dump: statements that read and load rows, what every data file begins with, `restore.sh`.
//!
//! Names are quoted by the catalog already; nothing else of a database gets into these texts but numbers, and the
//! rows themselves, in which COPY escapes every line end and backslash.

use super::catalog::{Sequence, Table};
use super::pieces::Pages;

/// The encoding that stores bytes as they come.
pub(crate) const SQL_ASCII: &str = "SQL_ASCII";
/// What ends the rows of a COPY in a script.
pub(crate) const END_OF_ROWS: &[u8] = b"\\.\n\n";

/// Returns what a script begins with: a session that takes everything as it was written.
pub(crate) fn prologue(encoding: &str) -> String {
    let encoding = if encoding == SQL_ASCII { SQL_ASCII } else { "UTF8" };
    format!(
        "SET statement_timeout = 0;\nSET lock_timeout = 0;\nSET idle_in_transaction_session_timeout = 0;\n\
         SET client_encoding = '{encoding}';\nSET standard_conforming_strings = on;\n\
         SELECT pg_catalog.set_config('search_path', '', false);\nSET check_function_bodies = false;\n\
         SET xmloption = content;\nSET client_min_messages = warning;\nSET row_security = off;\n\
         SET datestyle = 'ISO, YMD';\nSET intervalstyle = 'postgres';\nSET bytea_output = 'hex';\n\
         SET synchronous_commit = off;\n\n"
    )
}

/// Returns the statement that reads a range of a table.
pub(crate) fn copy_out(table: &Table, pages: Pages) -> String {
    let range = pages.condition();
    if range.is_none() && table.condition.is_empty() {
        return format!("COPY {}{} TO STDOUT", table.quoted, list(table));
    }
    let condition = range.map_or_else(|| table.condition.clone(), |range| format!("WHERE {range}"));
    format!("COPY (SELECT {} FROM ONLY {} {condition}) TO STDOUT", table.columns, table.quoted)
}

/// Returns the statement that reads all that was stored of a table, or of what was loaded into one target.
pub(crate) fn select(table: &Table) -> String {
    if table.target == table.quoted {
        return copy_out(table, Pages { from: 0, to: None });
    }
    format!("COPY (SELECT {} FROM {}) TO STDOUT", table.columns, table.target)
}

/// Returns the statement that loads rows, without its semicolon.
pub(crate) fn copy_in(table: &Table) -> String {
    format!("COPY {}{} FROM stdin", table.target, list(table))
}

/// Returns the list of columns; without any there is none to write, and COPY then means no columns too.
fn list(table: &Table) -> String {
    if table.columns.is_empty() { String::new() } else { format!(" ({})", table.columns) }
}

/// Quotes a text as a literal, under `standard_conforming_strings`.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Quotes a text as a literal on one line, whatever the settings.
pub(crate) fn one_line(text: &str) -> String {
    let mut made = String::from("E'");
    for c in text.chars() {
        match c {
            '\'' => made.push_str("''"),
            '\\' => made.push_str("\\\\"),
            '\n' => made.push_str("\\n"),
            '\r' => made.push_str("\\r"),
            other => made.push(other),
        }
    }
    made.push('\'');
    made
}

/// Returns the statement that sets a sequence.
pub(crate) fn set_sequence(sequence: &Sequence, last: i64, called: bool) -> String {
    format!("SELECT pg_catalog.setval({}, {last}, {called});\n", literal(&sequence.quoted))
}

/// The script that restores a dump with PostgreSQL's own programs.
pub(crate) const RESTORE: &str = r#"#!/bin/sh
# Restores this dump with PostgreSQL's own programs, psql and pg_restore:
#
#   createdb -T template0 NEW && sh restore.sh NEW [JOBS [OPTION...]]
#
# NEW is an empty database (a name or a connection string); nothing is dropped, and the first error ends it.
# OPTIONs go to pg_restore (--no-owner, --no-privileges). The files may still be compressed (.zst, then zstd is
# needed too). Take the digests of manifest.json first: what is here is run as it is.
set -eu
[ $# -ge 1 ] || { echo "usage: sh restore.sh DATABASE [JOBS [OPTION...]]" >&2; exit 2; }
database=$1
jobs=${2:-2}
shift
[ $# -eq 0 ] || shift
cd "$(dirname "$0")"
export database

# The schema is a file that pg_restore must be able to seek in.
schema=schema.dump
if [ ! -e "$schema" ]; then
    schema=$(mktemp)
    trap 'rm -f "$schema"' EXIT
    zstd -dcq schema.dump.zst >"$schema"
fi

# Runs the scripts whose names are read, so many at once.
scripts() {
    xargs -P "$1" -n 1 sh -c '
        case $1 in
        *.zst) zstd -dcq "$1" | psql -X -q -v ON_ERROR_STOP=1 -o /dev/null -d "$database" ;;
        *) psql -X -q -v ON_ERROR_STOP=1 -o /dev/null -d "$database" -f "$1" ;;
        esac' sh
}

pg_restore --exit-on-error --section=pre-data -d "$database" "$@" "$schema"
find . -name 'large-objects.sql*' | scripts 1
find data large-objects -type f 2>/dev/null | sort | scripts "$jobs"
find . -name 'sequences.sql*' | scripts 1
pg_restore --exit-on-error --section=post-data -j "$jobs" -d "$database" "$@" "$schema"
psql -X -q -v ON_ERROR_STOP=1 -d "$database" -c ANALYZE
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            oid: 1,
            schema: "s".into(),
            name: "t".into(),
            quoted: "\"s\".\"t\"".into(),
            target: "\"s\".\"t\"".into(),
            columns: "\"a\", \"b\"".into(),
            condition: String::new(),
            bytes: 0,
            heap: true,
        }
    }

    #[test]
    fn statements_name_what_they_read() {
        let whole = Pages { from: 0, to: None };
        assert_eq!(copy_out(&table(), whole), r#"COPY "s"."t" ("a", "b") TO STDOUT"#);
        assert_eq!(
            copy_out(&table(), Pages { from: 8, to: Some(16) }),
            r#"COPY (SELECT "a", "b" FROM ONLY "s"."t" WHERE ctid >= '(8,0)'::tid AND ctid < '(16,0)'::tid) TO STDOUT"#
        );
        let config = Table { condition: "WHERE NOT standard".into(), ..table() };
        assert_eq!(
            copy_out(&config, whole),
            r#"COPY (SELECT "a", "b" FROM ONLY "s"."t" WHERE NOT standard) TO STDOUT"#
        );
        let bare = Table { columns: String::new(), ..table() };
        assert_eq!(copy_out(&bare, whole), r#"COPY "s"."t" TO STDOUT"#);
        assert_eq!(copy_in(&bare), r#"COPY "s"."t" FROM stdin"#);
        let leaf = Table { target: "\"s\".\"root\"".into(), ..table() };
        assert_eq!(copy_in(&leaf), r#"COPY "s"."root" ("a", "b") FROM stdin"#);
        assert_eq!(select(&leaf), r#"COPY (SELECT "a", "b" FROM "s"."root") TO STDOUT"#);
    }

    #[test]
    fn any_text_fits_on_one_line() {
        assert_eq!(one_line("it's a \\ and\r\nmore"), r"E'it''s a \\ and\r\nmore'");
    }

    #[test]
    fn a_sequence_with_a_quote_in_its_name_is_set() {
        let sequence = Sequence { quoted: "\"s\".\"it's\"".into(), full_name: "s.it's".into() };
        assert_eq!(
            set_sequence(&sequence, -5, false),
            "SELECT pg_catalog.setval('\"s\".\"it''s\"', -5, false);\n"
        );
    }

    #[test]
    fn bytes_go_through_as_they_are_only_where_the_database_holds_bytes() {
        assert!(prologue("SQL_ASCII").contains("client_encoding = 'SQL_ASCII'"));
        assert!(prologue("LATIN1").contains("client_encoding = 'UTF8'"));
    }
}
