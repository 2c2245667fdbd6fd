//! Which migrations a database has applied, as the tools that run migrations record it.
//!
//! Looked for in this order; the first table that is there counts. A query that the caller names goes first.

use backup_core::context::Context;
use backup_core::traits::{Migration, Migrations};

use crate::catalog::{Catalog, RelationKind};
use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};

/// A table of migrations: its name, and the columns of version, checksum in hex and success as SQL.
const RECORDS: &[(&str, &str, &str, &str, &str)] = &[
    ("_sqlx_migrations", "version::text", "encode(checksum, 'hex')", "success", "version"),
    (
        "_prisma_migrations",
        "migration_name",
        "checksum",
        "finished_at IS NOT NULL AND rolled_back_at IS NULL",
        "started_at, migration_name",
    ),
    ("schema_migrations", "version::text", "NULL::text", "true", "version"),
    ("alembic_version", "version_num", "NULL::text", "true", "version_num"),
    ("django_migrations", "app || '.' || name", "NULL::text", "true", "id"),
    (
        "flyway_schema_history",
        "coalesce(version, description)",
        "checksum::text",
        "success",
        "installed_rank",
    ),
    ("__diesel_schema_migrations", "version", "NULL::text", "true", "version"),
    ("seaql_migrations", "version", "NULL::text", "true", "version"),
    ("refinery_schema_history", "version::text", "checksum", "true", "version"),
    ("goose_db_version", "version_id::text", "NULL::text", "is_applied", "id"),
    ("knex_migrations", "name", "NULL::text", "true", "id"),
    ("__drizzle_migrations", "hash", "hash", "true", "id"),
];

/// Reads the applied migrations in the connection's transaction; `None` where nothing records them.
///
/// # Errors
/// `InvalidInput` when the caller's query does not answer; what the server says.
pub fn read(
    connection: &mut Connection,
    catalog: &Catalog,
    query: Option<&str>,
    ctx: &Context,
) -> Result<Option<Migrations>> {
    if let Some(query) = query {
        let sql = format!("SELECT q::text FROM ({}) AS q(q)", query.trim().trim_end_matches(';'));
        let rows = connection.run("read the migrations of", ctx, |client| client.query(&sql, &[]))?;
        let applied: Vec<Migration> = rows
            .iter()
            .filter_map(|row| row.get::<_, Option<String>>(0))
            .map(|version| Migration { version, checksum: None, success: true })
            .collect();
        let Some(last) = applied.last() else {
            return Err(Error::new(ErrorKind::InvalidInput, "the query for migrations answers no row"));
        };
        return Ok(Some(Migrations { recorded_in: "query".into(), version: last.version.clone(), applied }));
    }
    for (table, version, checksum, success, order) in RECORDS {
        let found = catalog
            .relations
            .iter()
            .filter(|one| {
                one.bare == *table && one.kind == RelationKind::Table && one.readable && !one.filtered
            })
            .max_by_key(|one| (one.visible, one.schema == "public"));
        let Some(relation) = found else { continue };
        let step = format!("read {relation} of");
        let columns = connection.run(&step, ctx, |client| {
            client.query(
                "SELECT attname::text FROM pg_attribute WHERE attrelid = $1 AND attnum > 0",
                &[&relation.oid],
            )
        })?;
        let has = |name: &str| columns.iter().any(|row| row.get::<_, &str>(0) == name);
        // golang-migrate and dbmate share a name; only the first says whether it ended well.
        let success = if *table == "schema_migrations" && has("dirty") { "NOT dirty" } else { success };
        if *table == "schema_migrations" && !has("version") {
            continue;
        }
        let sql = format!(
            "SELECT ({version})::text, ({checksum})::text, ({success})::bool FROM {relation} ORDER BY {order}"
        );
        connection.run(&step, ctx, |client| client.batch_execute("SAVEPOINT migrations"))?;
        let rows = match connection.run(&step, ctx, |client| client.query(&sql, &[])) {
            Ok(rows) => rows,
            // A table of that name with other columns is somebody else's.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => {
                connection.run(&step, ctx, |client| client.batch_execute("ROLLBACK TO migrations"))?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let applied: Vec<Migration> = rows
            .iter()
            .map(|row| Migration {
                version: row.get::<_, Option<String>>(0).unwrap_or_default(),
                checksum: row.get(1),
                success: row.get::<_, Option<bool>>(2).unwrap_or(false),
            })
            .collect();
        let version = applied.last().map(|last| last.version.clone()).unwrap_or_default();
        return Ok(Some(Migrations { recorded_in: (*table).to_owned(), version, applied }));
    }
    Ok(None)
}
