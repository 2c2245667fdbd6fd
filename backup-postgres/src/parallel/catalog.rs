//! What a parallel dump has to read, listed in the snapshot: tables with their sizes, sequences, large objects.
//!
//! The choice is `pg_dump`'s (schemas of users, ordinary tables, of extensions only the configuration tables with their
//! conditions), because `pg_dump` writes the schema that this data is loaded into; a test compares the two.
//! Names come quoted from the server, with every word quoted: what is a reserved word differs between versions.
//!
//! What the role may not read is found here, before a byte is written.

use backup_core::context::Context;

use super::pieces::{Cut, PAGE_BYTES, RANGES_SINCE};
use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};

/// The oldest server whose catalog is read as it is here.
const OLDEST: i32 = 12;
/// How many objects without a right are named in one error.
const NAMED: usize = 5;

/// One table whose rows are stored.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// Schema and name, quoted.
    pub(crate) quoted: String,
    /// The table that its rows are loaded into, quoted: itself, or the root of its partitions.
    pub(crate) target: String,
    /// The columns that are stored, quoted, comma separated; empty when there are none.
    pub(crate) columns: String,
    /// What of an extension's configuration table is the user's (`WHERE …`); empty for all of it.
    pub(crate) condition: String,
    /// The size of its heap.
    pub(crate) bytes: u64,
    /// Whether its rows lie in a heap, so that ranges of pages can be read.
    pub(crate) heap: bool,
}

impl Table {
    /// Returns the name as facts and messages spell it: `schema.table`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Cuts the table into pieces of about `piece_bytes`.
    pub(crate) fn cut(&self, server: i32, page_bytes: u64, piece_bytes: u64) -> Cut {
        let ranges = server >= i32::try_from(RANGES_SINCE).unwrap_or(i32::MAX);
        if ranges && self.heap && self.condition.is_empty() {
            Cut::new(self.bytes, page_bytes, piece_bytes)
        } else {
            Cut::WHOLE
        }
    }
}

/// One sequence.
#[derive(Debug, Clone)]
pub(crate) struct Sequence {
    /// Schema and name, quoted.
    pub(crate) quoted: String,
    /// The same without quotes, for messages.
    pub(crate) full_name: String,
}

/// What there is to read.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(crate) tables: Vec<Table>,
    pub(crate) sequences: Vec<Sequence>,
    pub(crate) large_objects: Vec<u32>,
    /// `server_version_num`.
    pub(crate) server: i32,
    pub(crate) page_bytes: u64,
    /// The database's encoding, as the server spells it.
    pub(crate) encoding: String,
    /// What is not read, one sentence each.
    pub(crate) not_included: Vec<String>,
}

/// A name, quoted whatever it is.
macro_rules! quoted {
    ($name:literal) => {
        concat!("'\"' || replace(", $name, "::text, '\"', '\"\"') || '\"'")
    };
}

/// Relations of users, and of extensions those that hold the user's configuration (`extcondition` in `condition`).
const RELATIONS: &str = concat!(
    "WITH member AS (SELECT d.objid AS oid, d.refobjid AS extension FROM pg_catalog.pg_depend d \
       WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'), \
     config AS (SELECT u.oid, COALESCE(e.extcondition[u.at], '') AS condition \
       FROM pg_catalog.pg_extension e, LATERAL unnest(e.extconfig) WITH ORDINALITY AS u(oid, at)), \
     relation AS (SELECT c.*, n.nspname, c.oid AS relid, COALESCE(g.condition, '') AS condition, ",
    quoted!("n.nspname"),
    " || '.' || ",
    quoted!("c.relname"),
    " AS quoted, n.nspname || '.' || c.relname AS plain, \
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS reachable \
       FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
       LEFT JOIN member m ON m.oid = c.oid LEFT JOIN config g ON g.oid = c.oid \
       WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
       AND (m.oid IS NULL OR g.oid IS NOT NULL)) "
);

/// Lists what there is to read, in the connection's transaction; fails when the role may not read some of it.
///
/// # Errors
/// `Permission`, with the names; [`Error::Filtered`] where row security would hide rows; `Unsupported` for a server that is too old.
pub(crate) fn read(connection: &mut Connection, standby: bool, ctx: &Context) -> Result<Catalog> {
    let server = connection.version().number();
    if connection.version().major() < OLDEST {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the server is PostgreSQL {}: expected {OLDEST} or newer for a parallel dump",
                connection.version().short()
            ),
        )
        .with_hint("back up without parallel jobs"));
    }
    let role = connection.address().user().to_owned();
    let (tables, unreadable, filtered) = tables(connection, standby, ctx)?;
    let (sequences, more) = sequences(connection, ctx)?;
    refuse(&role, unreadable.into_iter().chain(more))?;
    if let Some(table) = filtered {
        return Err(Error::Filtered { table, role });
    }
    let (large_objects, page_bytes, encoding, foreign, unlogged) =
        connection.run("read the catalog of", ctx, |client| {
            let rows =
                client.query("SELECT oid FROM pg_catalog.pg_largeobject_metadata ORDER BY oid", &[])?;
            let objects: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
            let row = client
                .query_one("SELECT current_setting('block_size'), current_setting('server_encoding')", &[])?;
            let left_out = client.query_one(
                &format!(
                    "{RELATIONS} SELECT count(*) FILTER (WHERE relkind = 'f'), \
                     count(*) FILTER (WHERE relkind = 'r' AND relpersistence = 'u') FROM relation"
                ),
                &[],
            )?;
            Ok((
                objects,
                row.get::<_, String>(0).parse().unwrap_or(PAGE_BYTES),
                row.get::<_, String>(1),
                left_out.get::<_, i64>(0),
                left_out.get::<_, i64>(1),
            ))
        })?;
    let mut not_included = Vec::new();
    if foreign > 0 {
        not_included.push(format!("the rows of {foreign} foreign tables: they are on other servers"));
    }
    if standby && unlogged > 0 {
        not_included.push(format!("the rows of {unlogged} unlogged tables: a standby does not have them"));
    }
    Ok(Catalog { tables, sequences, large_objects, server, page_bytes, encoding, not_included })
}

/// Fails when something cannot be read, with the first names.
fn refuse(role: &str, unreadable: impl Iterator<Item = String>) -> Result<()> {
    let all: Vec<String> = unreadable.collect();
    if all.is_empty() {
        return Ok(());
    }
    let more = all.len().saturating_sub(NAMED);
    let mut named = all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 {
        named = format!("{named} and {more} more");
    }
    Err(Error::new(ErrorKind::Permission, format!("the role {role:?} may not read {named}")).with_hint(
        "grant it SELECT on them and USAGE on their schemas, or membership of pg_read_all_data (PostgreSQL 14 and newer)",
    ))
}

type Tables = (Vec<Table>, Vec<String>, Option<String>);

/// Lists the tables, those that cannot be read, and the first whose rows a policy would hide.
fn tables(connection: &mut Connection, standby: bool, ctx: &Context) -> Result<Tables> {
    // A hash partition by an enum has its rows elsewhere in another database: the enum's values hash by their OIDs.
    let sql = format!(
        "{RELATIONS}, by_enum AS (SELECT p.partrelid FROM pg_catalog.pg_partitioned_table p WHERE \
           (SELECT o.oid FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_am a ON a.oid = o.opcmethod \
            WHERE o.opcname = 'enum_ops' AND o.opcnamespace = 'pg_catalog'::regnamespace AND a.amname = 'hash') = ANY (p.partclass)) \
         SELECT r.relid, r.nspname, r.relname, r.quoted, \
           COALESCE(root.quoted, r.quoted), \
           COALESCE(columns.list, ''), r.condition, \
           COALESCE(am.amname = 'heap', false), \
           COALESCE(r.reachable AND (pg_catalog.has_table_privilege(r.relid, 'SELECT') OR COALESCE(columns.all_readable, false)), true), \
           COALESCE(r.relrowsecurity AND pg_catalog.row_security_active(r.relid), false) \
         FROM relation r LEFT JOIN pg_catalog.pg_am am ON am.oid = r.relam \
         LEFT JOIN LATERAL (SELECT string_agg({column}, ', ' ORDER BY a.attnum) AS list, \
             bool_and(pg_catalog.has_column_privilege(r.relid, a.attnum, 'SELECT')) AS all_readable \
           FROM pg_catalog.pg_attribute a WHERE a.attrelid = r.relid AND a.attnum > 0 AND NOT a.attisdropped \
           AND a.attgenerated = '') columns ON true \
         LEFT JOIN relation root ON r.relispartition AND root.relid = pg_catalog.pg_partition_root(r.relid) AND EXISTS \
           (SELECT FROM pg_catalog.pg_partition_ancestors(r.relid) a JOIN by_enum ON by_enum.partrelid = a.relid) \
         WHERE r.relkind = 'r' {persistent} ORDER BY r.nspname, r.relname",
        column = quoted!("a.attname"),
        persistent = if standby { "AND r.relpersistence <> 'u'" } else { "" },
    );
    let rows = connection.run("list the tables of", ctx, |client| client.query(&sql, &[]))?;
    let mut found: Tables = (Vec::with_capacity(rows.len()), Vec::new(), None);
    for row in rows {
        let table = Table {
            oid: row.get(0),
            schema: row.get(1),
            name: row.get(2),
            quoted: row.get(3),
            target: row.get(4),
            columns: row.get(5),
            condition: row.get(6),
            bytes: 0,
            heap: row.get(7),
        };
        // One that was dropped since the snapshot is nobody's to read: its lock tells that better.
        if !row.get::<_, bool>(8) {
            found.1.push(table.full_name());
        } else if row.get(9) {
            found.2.get_or_insert(table.full_name());
        }
        found.0.push(table);
    }
    Ok(found)
}

/// Reads how large the tables are, which waits for whoever holds them: call it when they are locked.
///
/// # Errors
/// What the server says.
pub(crate) fn measure(connection: &mut Connection, catalog: &mut Catalog, ctx: &Context) -> Result<()> {
    let oids: Vec<u32> = catalog.tables.iter().map(|table| table.oid).collect();
    let rows = connection.run("measure the tables of", ctx, |client| {
        client.query("SELECT oid, pg_catalog.pg_relation_size(oid) FROM unnest($1::oid[]) AS oid", &[&oids])
    })?;
    let sizes: std::collections::HashMap<u32, u64> = rows
        .iter()
        .filter_map(|row| Some((row.get(0), u64::try_from(row.get::<_, Option<i64>>(1)?).ok()?)))
        .collect();
    for table in &mut catalog.tables {
        table.bytes = sizes.get(&table.oid).copied().unwrap_or(0);
    }
    Ok(())
}

/// Lists the sequences, and those that cannot be read.
fn sequences(connection: &mut Connection, ctx: &Context) -> Result<(Vec<Sequence>, Vec<String>)> {
    let sql = format!(
        "{RELATIONS} SELECT quoted, plain, COALESCE(reachable AND pg_catalog.has_sequence_privilege(relid, 'SELECT'), true) \
         FROM relation WHERE relkind = 'S' ORDER BY nspname, relname"
    );
    let rows = connection.run("list the sequences of", ctx, |client| client.query(&sql, &[]))?;
    let mut found = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        let sequence = Sequence { quoted: row.get(0), full_name: row.get(1) };
        if !row.get::<_, bool>(2) {
            found.1.push(sequence.full_name.clone());
        }
        found.0.push(sequence);
    }
    Ok(found)
}
