//! What a backup says of its database: rows of every table, versions, collations, extensions, sequences, roles, and
//! what it does not hold.
//!
//! Read by a connection of its own in the snapshot, while `pg_dump` streams. What is long goes into an object of its own
//! beside the dump, `database/<name>.inventory.json`:
//!
//! ```json
//! {"version":1,"database":"app","server":"15.18","sequences":{"public.s":7},"extensions":{"pgcrypto":"1.3"},
//!  "collations":{"en_US.utf8":"2.36"},"roles":["app"],"owner":"app","settings":{"search_path":"app, public"}}
//! ```

use std::collections::BTreeMap;

use backup_core::context::{Context, Progress};
use backup_core::traits::SourceFacts;
use serde::{Deserialize, Serialize};

use crate::catalog::{Catalog, Relation, RelationKind, check};
use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::migrations;
use crate::session::SnapshotSession;

/// The kind of these sources in facts and names.
pub const KIND: &str = "postgres";
/// How many tables one statement counts.
const COUNTED_AT_ONCE: usize = 64;

/// The keys of [`SourceFacts::details`].
pub mod detail {
    /// The server's version with what its distributor added.
    pub const SERVER: &str = "server_version";
    /// `server_version_num`.
    pub const SERVER_NUMBER: &str = "server_version_num";
    /// The database's encoding.
    pub const ENCODING: &str = "encoding";
    /// `LC_COLLATE`.
    pub const COLLATE: &str = "lc_collate";
    /// `LC_CTYPE`.
    pub const CTYPE: &str = "lc_ctype";
    /// `libc`, `icu` or `builtin`.
    pub const LOCALE_PROVIDER: &str = "locale_provider";
    /// The locale of that provider, where it has one of its own.
    pub const LOCALE: &str = "locale";
    /// The version of the collation's data (glibc's, ICU's): text indexes made under another may be corrupt.
    pub const COLLATION_VERSION: &str = "collation_version";
    /// The place in the write-ahead log.
    pub const LSN: &str = "wal_lsn";
    /// The programs that made the dump.
    pub const PG_DUMP: &str = "pg_dump";
}

/// What lies beside the dump.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The version of this form: 1.
    pub version: u32,
    /// The database's name.
    pub database: String,
    /// The server's version.
    pub server: String,
    /// The last value of each sequence; `None` for one that was never used.
    pub sequences: BTreeMap<String, Option<i64>>,
    /// The extensions with their versions.
    pub extensions: BTreeMap<String, String>,
    /// The collations that columns use, with the versions of their data.
    pub collations: BTreeMap<String, Option<String>>,
    /// The roles of the cluster.
    pub roles: Vec<String>,
    /// The database's owner.
    pub owner: String,
    /// Settings of the database (`ALTER DATABASE … SET`).
    pub settings: BTreeMap<String, String>,
}

/// What is known before the facts are read.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) count_rows: bool,
    pub(crate) migrations_query: Option<String>,
}

/// What [`read`] returns.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) facts: SourceFacts,
    pub(crate) inventory: Inventory,
}

/// Reads the facts in the connection's transaction.
///
/// # Errors
/// `Cancelled`; what the server says.
pub(crate) fn read(
    connection: &mut Connection,
    catalog: &Catalog,
    asked: Asked,
    instant: jiff::Timestamp,
    standby: bool,
    ctx: &Context,
) -> Result<Found> {
    let mut details = settings(connection, standby, ctx)?;
    let inventory = inventory(connection, catalog, ctx)?;
    let migrations = migrations::read(connection, catalog, asked.migrations_query.as_deref(), ctx)?;
    let size: i64 = connection.run("measure", ctx, |client| {
        Ok(client.query_one("SELECT pg_database_size(current_database())", &[])?.get(0))
    })?;
    let tables =
        if asked.count_rows { count_rows(connection, catalog, standby, ctx)? } else { BTreeMap::new() };
    if !inventory.extensions.is_empty() {
        let list = inventory.extensions.iter().map(|(name, version)| format!("{name} {version}"));
        details.insert("extensions".into(), list.collect::<Vec<_>>().join(", "));
    }
    let facts = SourceFacts {
        kind: KIND.into(),
        name: asked.name,
        location: asked.location,
        engine: format!("PostgreSQL {}", connection.version().short()),
        instant,
        size_bytes: u64::try_from(size).unwrap_or(0),
        tables,
        migrations,
        details,
        not_included: not_included(connection, catalog, standby, instant),
    };
    Ok(Found { facts, inventory })
}

fn settings(connection: &mut Connection, standby: bool, ctx: &Context) -> Result<BTreeMap<String, String>> {
    let major = connection.version().major();
    let mut found = BTreeMap::new();
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            found.insert(key.to_owned(), value);
        }
    };
    add(detail::SERVER, Some(connection.version().to_string()));
    add(detail::SERVER_NUMBER, Some(connection.version().number().to_string()));
    let (provider, locale, version) = match major {
        17.. => ("datlocprovider::text", "datlocale", "pg_database_collation_actual_version(oid)"),
        15.. => ("datlocprovider::text", "daticulocale", "pg_database_collation_actual_version(oid)"),
        _ => (
            "'c'",
            "NULL::text",
            "(SELECT pg_collation_actual_version(l.oid) FROM pg_collation l WHERE l.collcollate = d.datcollate AND l.collprovider = 'c' LIMIT 1)",
        ),
    };
    let lsn = if standby { "pg_last_wal_replay_lsn()" } else { "pg_current_wal_lsn()" };
    let sql = format!(
        "SELECT pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text, {provider}, {locale}::text, \
         ({version})::text, {lsn}::text, current_setting('data_checksums'), current_setting('block_size'), \
         current_user::text, (SELECT system_identifier::text FROM pg_control_system()) \
         FROM pg_database d WHERE datname = current_database()"
    );
    // pg_control_system may be denied; the rest is for everybody.
    let plain = sql.replace("(SELECT system_identifier::text FROM pg_control_system())", "NULL::text");
    let allowed: bool = connection.run("read the settings of", ctx, |client| {
        Ok(client.query_one("SELECT has_function_privilege('pg_control_system()', 'EXECUTE')", &[])?.get(0))
    })?;
    let row = connection.run("read the settings of", ctx, |client| {
        client.query_one(if allowed { &sql } else { &plain }, &[])
    })?;
    add(detail::ENCODING, row.get(0));
    add(detail::COLLATE, row.get(1));
    add(detail::CTYPE, row.get(2));
    let provider = match row.get::<_, &str>(3) {
        "i" => "icu",
        "b" => "builtin",
        _ => "libc",
    };
    add(detail::LOCALE_PROVIDER, Some(provider.into()));
    add(detail::LOCALE, row.get(4));
    add(detail::COLLATION_VERSION, row.get(5));
    add(detail::LSN, row.get(6));
    add("data_checksums", row.get(7));
    add("block_size", row.get(8));
    add("role", row.get(9));
    add("system_identifier", row.get(10));
    add("standby", standby.then(|| "yes".to_owned()));
    Ok(found)
}

fn inventory(connection: &mut Connection, catalog: &Catalog, ctx: &Context) -> Result<Inventory> {
    let mut made = Inventory {
        version: 1,
        database: connection.address().database().to_owned(),
        server: connection.version().short().to_owned(),
        ..Inventory::default()
    };
    let rows = connection.run("read the sequences of", ctx, |client| {
        client.query(
            "SELECT format('%I.%I', schemaname, sequencename), last_value FROM pg_sequences ORDER BY 1",
            &[],
        )
    })?;
    let ours = |name: &str| {
        catalog.relations.iter().any(|one| one.kind == RelationKind::Sequence && one.name == name)
    };
    let sequences = rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, Option<i64>>(1)));
    // A database may have very many: looked up in a set.
    made.sequences = if rows.len() < 64 {
        sequences.filter(|(name, _)| ours(name)).collect()
    } else {
        let known: std::collections::HashSet<&str> = catalog
            .relations
            .iter()
            .filter(|one| one.kind == RelationKind::Sequence)
            .map(|one| one.name.as_str())
            .collect();
        sequences.filter(|(name, _)| known.contains(name.as_str())).collect()
    };
    let (extensions, collations, roles, owner, settings) = connection.run("read the inventory of", ctx, |client| {
        Ok((
            client.query("SELECT extname::text, extversion FROM pg_extension WHERE extname <> 'plpgsql'", &[])?,
            client.query(
                "SELECT DISTINCT l.collname::text, pg_collation_actual_version(l.oid) FROM pg_attribute a \
                 JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                 JOIN pg_collation l ON l.oid = a.attcollation \
                 WHERE l.collprovider IN ('c', 'i') AND l.collname NOT IN ('C', 'POSIX', 'default') \
                 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
                &[],
            )?,
            client.query("SELECT rolname::text FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1", &[])?,
            client.query_one(
                "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = current_database()",
                &[],
            )?,
            client.query(
                "SELECT unnest(s.setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase \
                 WHERE d.datname = current_database() AND s.setrole = 0",
                &[],
            )?,
        ))
    })?;
    made.extensions = extensions.iter().map(|row| (row.get(0), row.get(1))).collect();
    made.collations = collations.iter().map(|row| (row.get(0), row.get(1))).collect();
    made.roles = roles.iter().map(|row| row.get(0)).collect();
    made.owner = owner.get(0);
    made.settings = settings
        .iter()
        .filter_map(|row| row.get::<_, &str>(0).split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Ok(made)
}

/// Counts the rows of every table and every filled materialized view, by name.
///
/// # Errors
/// `Cancelled`; what the server says.
pub fn count_rows(
    connection: &mut Connection,
    catalog: &Catalog,
    standby: bool,
    ctx: &Context,
) -> Result<BTreeMap<String, u64>> {
    let counted: Vec<&Relation> = catalog
        .relations
        .iter()
        .filter(|one| match one.kind {
            RelationKind::Table => one.readable && !(standby && one.unlogged),
            RelationKind::MaterializedView => one.readable && one.filled,
            _ => false,
        })
        .collect();
    let mut found = BTreeMap::new();
    for batch in counted.chunks(COUNTED_AT_ONCE) {
        check(ctx)?;
        let parts =
            batch.iter().enumerate().map(|(at, one)| format!("SELECT {at}, count(*) FROM ONLY {one}"));
        let sql = parts.collect::<Vec<_>>().join(" UNION ALL ");
        let rows = connection.run("count rows in", ctx, |client| client.query(&sql, &[]))?;
        for row in rows {
            let (at, count): (i32, i64) = (row.get(0), row.get(1));
            let one = usize::try_from(at).ok().and_then(|at| batch.get(at));
            let one = one.ok_or_else(|| Error::new(ErrorKind::Internal, "a count of no table"))?;
            found.insert(one.name.clone(), u64::try_from(count).unwrap_or(0));
        }
        ctx.progress(Progress {
            stage: "count rows",
            object: "",
            done: found.len() as u64,
            total: Some(counted.len() as u64),
            unit: "tables",
        });
    }
    Ok(found)
}

/// Says what a dump of one database cannot hold (S1.7).
fn not_included(
    connection: &Connection,
    catalog: &Catalog,
    standby: bool,
    instant: jiff::Timestamp,
) -> Vec<String> {
    let mut missing = vec![
        format!("what was committed after {instant}"),
        "other databases of the cluster: each is a source of its own".to_owned(),
        "the server's configuration (postgresql.conf, pg_hba.conf), tablespaces' places, replication slots"
            .to_owned(),
        "passwords of roles: they are set anew after a restore into a new cluster".to_owned(),
        "the planner's statistics: a restore runs ANALYZE".to_owned(),
        format!("the values of prepared transactions and of sessions on {}", connection.address().database()),
    ];
    let foreign = catalog.relations.iter().filter(|one| one.kind == RelationKind::Foreign).count();
    if foreign > 0 {
        missing.push(format!("the rows of {foreign} foreign tables: they are on other servers"));
    }
    let unlogged: Vec<&str> =
        catalog.tables().filter(|one| standby && one.unlogged).map(|one| one.name.as_str()).collect();
    if !unlogged.is_empty() {
        missing.push(format!(
            "the rows of unlogged tables, which a standby does not have: {}",
            unlogged.join(", ")
        ));
    }
    missing
}

impl SnapshotSession {
    /// Reads the catalog in this snapshot.
    ///
    /// # Errors
    /// What the server says.
    pub fn catalog(&mut self, ctx: &Context) -> Result<Catalog> {
        Catalog::read(self.connection(), ctx)
    }
}
