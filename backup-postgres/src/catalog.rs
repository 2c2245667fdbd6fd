//! What a database holds and what the role at hand may see of it, read from PostgreSQL's own catalog.
//!
//! Names of tables come from strangers: they are compared with the catalog and quoted by the server (`format('%I.%I')`),
//! never pasted. [`Catalog::refuse_what_is_hidden`] is what stands between a role with too few rights and a backup
//! that silently lacks rows (PITFALLS 6): `pg_dump` and this crate both read with `row_security = off` besides.

use std::fmt;

use backup_core::context::Context;
use backup_core::error::Error as CoreError;

use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};

/// How many tables a message lists.
const LISTED: usize = 8;

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// A table with rows of its own.
    Table,
    /// A partitioned table: its rows are in its partitions.
    Partitioned,
    /// A materialized view.
    MaterializedView,
    /// A table of another server.
    Foreign,
    /// A sequence.
    Sequence,
}

/// One relation of the database that a dump holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its object id.
    pub oid: u32,
    /// Its name, quoted where SQL asks for it: `public.t`, `public."odd name"`.
    pub name: String,
    /// Its schema, as it is.
    pub schema: String,
    /// Its name in the schema, as it is.
    pub bare: String,
    /// What it is.
    pub kind: RelationKind,
    /// Whether the role may read it.
    pub readable: bool,
    /// Whether row-security policies apply to the role.
    pub filtered: bool,
    /// Whether its rows are not logged, so that a standby has none.
    pub unlogged: bool,
    /// Whether a materialized view has been filled.
    pub filled: bool,
    /// The partitioned table that it is a partition of.
    pub parent: Option<u32>,
    /// Whether it is found without its schema under the role's search path.
    pub visible: bool,
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The relations of a database, sorted by name; those of extensions and of PostgreSQL itself are left out.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// The relations.
    pub relations: Vec<Relation>,
    /// The role that looked.
    pub role: String,
}

const QUERY: &str = "SELECT c.oid, format('%I.%I', n.nspname, c.relname), n.nspname::text, c.relname::text, c.relkind::text, \
     CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END \
         AND has_schema_privilege(n.oid, 'USAGE'), \
     row_security_active(c.oid), c.relpersistence = 'u', c.relispopulated, \
     CASE WHEN c.relispartition THEN (SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = c.oid LIMIT 1) END, \
     pg_table_is_visible(c.oid) \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p', 'm', 'f', 'S') AND c.relpersistence <> 't' \
     AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
     AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') \
     ORDER BY 2";

impl Catalog {
    /// Reads the relations in the transaction of the connection.
    ///
    /// # Errors
    /// What the server says.
    pub fn read(connection: &mut Connection, ctx: &Context) -> Result<Self> {
        let (rows, role) = connection.run("read the schema of", ctx, |client| {
            let rows = client.query(QUERY, &[])?;
            let role = client.query_one("SELECT current_user::text", &[])?.get(0);
            Ok((rows, role))
        })?;
        let relations = rows.iter().map(|row| Relation {
            oid: row.get(0),
            name: row.get(1),
            schema: row.get(2),
            bare: row.get(3),
            kind: match row.get::<_, &str>(4) {
                "p" => RelationKind::Partitioned,
                "m" => RelationKind::MaterializedView,
                "f" => RelationKind::Foreign,
                "S" => RelationKind::Sequence,
                _ => RelationKind::Table,
            },
            readable: row.get(5),
            filtered: row.get(6),
            unlogged: row.get(7),
            filled: row.get(8),
            parent: row.get(9),
            visible: row.get(10),
        });
        Ok(Self { relations: relations.collect(), role })
    }

    /// Returns the tables that hold rows.
    pub fn tables(&self) -> impl Iterator<Item = &Relation> {
        self.relations.iter().filter(|relation| relation.kind == RelationKind::Table)
    }

    /// Refuses a role that would be shown too little: a policy that would filter rows, a table it may not read.
    ///
    /// # Errors
    /// [`Error::Filtered`], naming the first table; `Permission`, naming what cannot be read.
    pub fn refuse_what_is_hidden(&self) -> Result<()> {
        if let Some(hidden) = self.tables().find(|relation| relation.filtered) {
            return Err(Error::Filtered { table: hidden.name.clone(), role: self.role.clone() });
        }
        let denied: Vec<&Relation> = self
            .relations
            .iter()
            .filter(|relation| !relation.readable)
            .filter(|relation| {
                !matches!(relation.kind, RelationKind::MaterializedView | RelationKind::Foreign)
            })
            .collect();
        if denied.is_empty() {
            return Ok(());
        }
        let mut names =
            denied.iter().take(LISTED).map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
        if denied.len() > LISTED {
            names.push_str(&format!(" and {} more", denied.len() - LISTED));
        }
        Err(Error::new(ErrorKind::Permission, format!("the role {} may not read {names}", self.role)).with_hint(
            format!(
                "GRANT pg_read_all_data TO {} (PostgreSQL 14 and newer), or GRANT SELECT on them and USAGE on their schemas",
                self.role
            ),
        ))
    }

    /// Finds a table by its name: `schema.table`, or `table` where it is visible or in one schema only.
    ///
    /// # Errors
    /// `NotFound`, with the tables that look like a chain (they have the columns in `wanted`); `InvalidInput` when
    /// several schemas have it.
    pub fn find(&self, name: &str, database: &str) -> Result<&Relation> {
        let holds_rows = |relation: &&Relation| relation.kind != RelationKind::Sequence;
        let exact = |relation: &&Relation| {
            relation.name == name || format!("{}.{}", relation.schema, relation.bare) == name
        };
        if let Some(found) = self.relations.iter().filter(holds_rows).find(exact) {
            return Ok(found);
        }
        let bare: Vec<&Relation> =
            self.relations.iter().filter(holds_rows).filter(|relation| relation.bare == name).collect();
        match bare.as_slice() {
            [] => {
                Err(Error::new(ErrorKind::NotFound, format!("database {database:?} has no table {name:?}")))
            }
            [one] => Ok(one),
            several => several.iter().find(|relation| relation.visible).copied().ok_or_else(|| {
                let names: Vec<&str> = several.iter().map(|one| one.name.as_str()).collect();
                Error::new(
                    ErrorKind::InvalidInput,
                    format!("several schemas have a table {name:?}: {}", names.join(", ")),
                )
                .with_hint("name one with its schema (`--table schema.table`)")
            }),
        }
    }

    /// Lists the partitions with rows below a partitioned table.
    #[must_use]
    pub fn leaves(&self, parent: u32) -> Vec<&Relation> {
        let mut found = Vec::new();
        let mut open = vec![parent];
        while let Some(oid) = open.pop() {
            for child in self.relations.iter().filter(|relation| relation.parent == Some(oid)) {
                match child.kind {
                    RelationKind::Partitioned => open.push(child.oid),
                    _ => found.push(child),
                }
            }
        }
        found
    }
}

/// Quotes an identifier.
#[must_use]
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes text as an SQL string.
#[must_use]
pub fn quote_text(text: &str) -> String {
    if text.contains('\\') {
        format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// Makes a name that can stand in a backup from a database's or a table's.
#[must_use]
pub fn object_stem(name: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
    let stem: String = name.chars().map(|c| if kept(c) { c } else { '_' }).take(60).collect();
    let stem = stem.replace("..", "_");
    let stem = stem.trim_start_matches(['.', '-']).trim_end_matches('.');
    if backup_core::names::validate_name(stem).is_ok() { stem.to_owned() } else { "database".to_owned() }
}

/// Fails when the caller cancels.
pub(crate) fn check(ctx: &Context) -> Result<()> {
    if ctx.cancel().is_cancelled() { Err(Error::Core(CoreError::Cancelled)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(schema: &str, bare: &str, visible: bool) -> Relation {
        Relation {
            oid: 1,
            name: format!("{schema}.{bare}"),
            schema: schema.into(),
            bare: bare.into(),
            kind: RelationKind::Table,
            readable: true,
            filtered: false,
            unlogged: false,
            filled: true,
            parent: None,
            visible,
        }
    }

    #[test]
    fn a_table_is_found_by_its_name_alone_where_that_is_clear() {
        let catalog = Catalog {
            relations: vec![
                relation("a", "t", false),
                relation("b", "t", false),
                relation("b", "u", false),
                relation("public", "v", true),
                relation("z", "v", false),
            ],
            role: "me".into(),
        };
        let find = |name| catalog.find(name, "d").map(|found| found.name.clone());
        assert_eq!(find("u").unwrap(), "b.u");
        assert_eq!(find("v").unwrap(), "public.v");
        assert_eq!(find("a.t").unwrap(), "a.t");
        assert_eq!(find("t").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(find("x").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn text_and_names_are_quoted() {
        assert_eq!(quote_ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_text("it's"), "'it''s'");
        assert_eq!(quote_text("a\\'"), " E'a\\\\'''");
        assert_eq!(object_stem("my db/../x"), "my_db___x");
    }
}
