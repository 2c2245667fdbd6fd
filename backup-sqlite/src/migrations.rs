//! Which migrations a database has applied, and whether the program that will open it knows them.
//!
//! Read from what the common tools record:
//! - sqlx: `_sqlx_migrations(version, description, installed_on, success, checksum, execution_time)`; the checksum is
//!   the SHA-384 of the migration's file
//! - refinery: `refinery_schema_history(version, name, applied_on, checksum)`
//! - diesel: `__diesel_schema_migrations(version, run_on)`
//! - a single row: `schema_meta(id = 1, version)`
//! - `PRAGMA user_version` (sqlite.org/pragma.html#pragma_user_version)
//!
//! A database that is newer than its program is the failure of PITFALLS 15: the program refuses to start, or worse,
//! does not. [`compare`] is asked twice: by a restore's plan over the manifest's facts, and over the restored file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use backup_core::error::{Error, ErrorKind, Result};
use backup_core::traits::{Migration, Migrations, SourceFacts};
use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha384};

use crate::fault::explain;

/// The largest migration file that is read, in bytes.
const MAX_MIGRATION_BYTES: u64 = 64 << 20;
/// The member of [`SourceFacts::details`] that holds `PRAGMA user_version`.
pub const DETAIL_USER_VERSION: &str = "user_version";
/// The member of [`SourceFacts::details`] that holds the version of `schema_meta`.
pub const DETAIL_SCHEMA_META: &str = "schema_meta.version";

const SQLX: &str = "_sqlx_migrations";
const REFINERY: &str = "refinery_schema_history";
const DIESEL: &str = "__diesel_schema_migrations";
const SCHEMA_META: &str = "schema_meta";

/// What the deployed program knows of the schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Known {
    /// Its migrations, with their checksums in hex where it compares them (sqlx, refinery, diesel).
    Migrations(Vec<Migration>),
    /// The highest version in `schema_meta(id = 1)`.
    SchemaMeta {
        /// The highest version that it opens.
        max: i64,
    },
    /// The highest `PRAGMA user_version`.
    UserVersion {
        /// The highest version that it opens.
        max: i64,
    },
    /// The highest answer of a query, which is asked of the restored file before it is put in place.
    Query {
        /// One statement that reads and answers one integer.
        sql: String,
        /// The highest version that it opens.
        max: i64,
    },
}

impl Known {
    /// Reads a folder of migrations as sqlx does: `<VERSION>_<DESCRIPTION>.sql` or `….up.sql`, checksums of the whole
    /// files; `….down.sql` and other files are left out.
    ///
    /// # Errors
    /// When the folder cannot be read, a version is not an integer, or one stands twice.
    pub fn sqlx_folder(folder: &Path) -> Result<Self> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(|error| Error::io("read", folder, error))? {
            let entry = entry.map_err(|error| Error::io("read", folder, error))?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((version, rest)) = name.split_once('_') else { continue };
            let file = path.metadata().map_err(|error| Error::io("look at", &path, error))?;
            if !file.is_file() || !rest.ends_with(".sql") || rest.ends_with(".down.sql") {
                continue;
            }
            let wrong = |why: &str| {
                Error::new(ErrorKind::Malformed, format!("migration {}: {why}", path.display()))
                    .with_hint("sqlx names its migrations `<VERSION>_<DESCRIPTION>.sql`")
            };
            let version: i64 = version.parse().map_err(|_| wrong("its version is not an integer"))?;
            if file.len() > MAX_MIGRATION_BYTES {
                return Err(wrong("it is larger than 64 MiB"));
            }
            let bytes = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
            let migration = Migration {
                version: version.to_string(),
                checksum: Some(hex::encode(Sha384::digest(&bytes))),
                success: true,
            };
            if found.insert(version, migration).is_some() {
                return Err(wrong("its version stands twice"));
            }
        }
        Ok(Self::Migrations(found.into_values().collect()))
    }

    /// Returns where a database records what this compares with.
    fn place(&self) -> &'static str {
        match self {
            Self::Migrations(_) => "migrations",
            Self::SchemaMeta { .. } => SCHEMA_META,
            Self::UserVersion { .. } => "user_version",
            Self::Query { .. } => "query",
        }
    }
}

/// How a database stands to the program that will open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SchemaState {
    /// The same migrations.
    Equal,
    /// The program has migrations that the database lacks: it migrates the database when it starts.
    Older,
    /// The database records nothing that could be compared.
    NotRecorded,
    /// The database has migrations that the program does not know.
    Newer,
    /// A migration that both have was changed after it was applied.
    Changed,
    /// A migration did not run to its end.
    Dirty,
}

impl SchemaState {
    /// Returns the state's name as it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Older => "older",
            Self::NotRecorded => "not-recorded",
            Self::Newer => "newer",
            Self::Changed => "changed",
            Self::Dirty => "dirty",
        }
    }
}

/// One comparison with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaVerdict {
    /// Where the database records it: `_sqlx_migrations`, `schema_meta`, `user_version`, `query` …
    pub recorded_in: String,
    /// The state.
    pub state: SchemaState,
    /// What differs, in a few words.
    pub detail: String,
}

/// Everything that a database says of its own version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The applied migrations of the tool that recorded them.
    pub migrations: Option<Migrations>,
    /// The version in `schema_meta`.
    pub schema_meta: Option<i64>,
    /// `PRAGMA user_version`; `None` where it is not known.
    pub user_version: Option<i64>,
}

impl Recorded {
    /// Reads it from a database.
    ///
    /// # Errors
    /// Whatever SQLite says.
    pub fn read(connection: &Connection, path: &Path) -> Result<Self> {
        Self::read_from(connection).map_err(|error| explain(error, "read the migrations of", path))
    }

    fn read_from(connection: &Connection) -> rusqlite::Result<Self> {
        let user_version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let schema_meta = if has_columns(connection, SCHEMA_META, &["id", "version"])? {
            let sql = "SELECT CAST(version AS INTEGER) FROM schema_meta WHERE id = 1";
            connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).optional()?.flatten()
        } else {
            None
        };
        let mut migrations = recorded_by_a_tool(connection)?;
        if migrations.is_none() {
            let single = |place: &str, version: i64| Migrations {
                recorded_in: place.into(),
                version: version.to_string(),
                applied: Vec::new(),
            };
            migrations = match (schema_meta, user_version) {
                (Some(version), _) => Some(single(SCHEMA_META, version)),
                (None, 0) => None,
                (None, version) => Some(single("user_version", version)),
            };
        }
        Ok(Self { migrations, schema_meta, user_version: Some(user_version) })
    }

    /// Takes it from the facts in a manifest.
    #[must_use]
    pub fn from_facts(facts: &SourceFacts) -> Self {
        let detail = |name: &str| facts.details.get(name).and_then(|text| text.parse().ok());
        Self {
            migrations: facts.migrations.clone(),
            schema_meta: detail(DETAIL_SCHEMA_META),
            user_version: detail(DETAIL_USER_VERSION),
        }
    }

    /// Returns what a program knows that this database is at home with: its migrations, its versions.
    #[must_use]
    pub fn known(&self) -> Vec<Known> {
        let mut known = Vec::new();
        known.extend(self.applied().map(|applied| Known::Migrations(applied.applied.clone())));
        known.extend(self.schema_meta.map(|max| Known::SchemaMeta { max }));
        known.extend(self.user_version.filter(|max| *max != 0).map(|max| Known::UserVersion { max }));
        known
    }

    /// Says which migrations failed half-way, where any did: no program starts on such a database.
    #[must_use]
    pub fn dirty(&self) -> Option<SchemaVerdict> {
        let applied = self.applied()?;
        let failed: Vec<&str> = applied
            .applied
            .iter()
            .filter(|migration| !migration.success)
            .map(|migration| migration.version.as_str())
            .collect();
        (!failed.is_empty()).then(|| SchemaVerdict {
            recorded_in: applied.recorded_in.clone(),
            state: SchemaState::Dirty,
            detail: format!("migration {} did not run to its end", failed.join(", ")),
        })
    }

    /// Returns the applied migrations where a tool recorded them one by one.
    fn applied(&self) -> Option<&Migrations> {
        self.migrations
            .as_ref()
            .filter(|migrations| [SQLX, REFINERY, DIESEL].contains(&migrations.recorded_in.as_str()))
    }
}

fn has_columns(connection: &Connection, table: &str, wanted: &[&str]) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare("SELECT lower(name) FROM pragma_table_info(?1)")?;
    let names: BTreeSet<String> =
        statement.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(wanted.iter().all(|name| names.contains(*name)))
}

/// Reads the list of the first tool whose table is there.
fn recorded_by_a_tool(connection: &Connection) -> rusqlite::Result<Option<Migrations>> {
    let tools: [(&str, &[&str], &str); 3] = [
        (
            SQLX,
            &["version", "success", "checksum"],
            "SELECT CAST(version AS TEXT), lower(hex(checksum)), success <> 0 FROM _sqlx_migrations ORDER BY version",
        ),
        (
            REFINERY,
            &["version", "checksum"],
            "SELECT CAST(version AS TEXT), CAST(checksum AS TEXT), 1 FROM refinery_schema_history ORDER BY version",
        ),
        (
            DIESEL,
            &["version"],
            "SELECT CAST(version AS TEXT), NULL, 1 FROM __diesel_schema_migrations ORDER BY version",
        ),
    ];
    for (table, columns, sql) in tools {
        if !has_columns(connection, table, columns)? {
            continue;
        }
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| {
            Ok(Migration {
                version: row.get::<_, Option<String>>(0)?.unwrap_or_default(),
                checksum: row.get(1)?,
                success: row.get::<_, Option<bool>>(2)?.unwrap_or(false),
            })
        })?;
        let applied: Vec<Migration> = rows.collect::<rusqlite::Result<_>>()?;
        let version = applied.last().map(|last| last.version.clone()).unwrap_or_default();
        return Ok(Some(Migrations { recorded_in: table.into(), version, applied }));
    }
    Ok(None)
}

/// Compares what a database records with what a program knows; `None` where it can only be asked of the file itself.
#[must_use]
pub fn compare(known: &Known, recorded: &Recorded) -> Option<SchemaVerdict> {
    match known {
        Known::Migrations(known) => Some(match recorded.applied() {
            Some(applied) => compare_lists(known, applied),
            None => SchemaVerdict {
                recorded_in: "migrations".into(),
                state: SchemaState::NotRecorded,
                detail: format!("the database lists no migrations, the program has {}", known.len()),
            },
        }),
        Known::SchemaMeta { max } => Some(compare_numbers(SCHEMA_META, recorded.schema_meta, *max)),
        Known::UserVersion { max } => Some(compare_numbers("user_version", recorded.user_version, *max)),
        Known::Query { .. } => None,
    }
}

/// Compares a database itself, also by [`Known::Query`].
///
/// # Errors
/// `InvalidInput` when the query does not answer one integer; whatever SQLite says.
pub fn compare_database(known: &Known, connection: &Connection, path: &Path) -> Result<SchemaVerdict> {
    if let Known::Query { sql, max } = known {
        let wrong = |why: &str| {
            Error::new(ErrorKind::InvalidInput, format!("the query for the schema's version {why}: {sql}"))
                .with_hint("it is one SELECT that answers one integer")
        };
        let mut statement =
            connection.prepare(sql).map_err(|error| wrong("does not run").with_source(error))?;
        if !statement.readonly() || statement.parameter_count() > 0 || statement.column_count() == 0 {
            return Err(wrong("writes, returns nothing, or has parameters"));
        }
        let found = statement
            .query_row([], |row| row.get::<_, Option<i64>>(0))
            .optional()
            .map_err(|error| wrong("does not answer an integer").with_source(error))?;
        return Ok(compare_numbers(known.place(), found.flatten(), *max));
    }
    let recorded = Recorded::read(connection, path)?;
    compare(known, &recorded)
        .ok_or_else(|| Error::new(ErrorKind::Internal, "a comparison without a place to compare"))
}

fn compare_numbers(place: &str, found: Option<i64>, max: i64) -> SchemaVerdict {
    let (state, detail) = match found {
        None => (SchemaState::NotRecorded, format!("no version is recorded, the program knows {max}")),
        Some(version) => {
            let state = match version.cmp(&max) {
                std::cmp::Ordering::Less => SchemaState::Older,
                std::cmp::Ordering::Equal => SchemaState::Equal,
                std::cmp::Ordering::Greater => SchemaState::Newer,
            };
            (state, format!("the database has version {version}, the program knows up to {max}"))
        }
    };
    SchemaVerdict { recorded_in: place.into(), state, detail }
}

/// Compares two lists of migrations; the worst state wins.
fn compare_lists(known: &[Migration], applied: &Migrations) -> SchemaVerdict {
    // `007` and `7` are one version: sqlx compares numbers.
    let key = |version: &str| {
        version.parse::<i64>().map_or_else(|_| version.to_owned(), |number| number.to_string())
    };
    let known_by: BTreeMap<String, &Migration> =
        known.iter().map(|migration| (key(&migration.version), migration)).collect();
    let (mut dirty, mut changed, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    let mut met = BTreeSet::new();
    for migration in &applied.applied {
        let version = key(&migration.version);
        if !migration.success {
            dirty.push(migration.version.clone());
        }
        match known_by.get(&version) {
            None => unknown.push(migration.version.clone()),
            Some(ours) => {
                let differ = |ours: &String, theirs: &String| !ours.eq_ignore_ascii_case(theirs);
                if let (Some(ours), Some(theirs)) = (&ours.checksum, &migration.checksum)
                    && differ(ours, theirs)
                {
                    changed.push(migration.version.clone());
                }
            }
        }
        met.insert(version);
    }
    let lacking = known_by.keys().filter(|version| !met.contains(*version)).count();
    let (state, detail) = if !dirty.is_empty() {
        (SchemaState::Dirty, format!("migration {} did not run to its end", dirty.join(", ")))
    } else if !changed.is_empty() {
        (
            SchemaState::Changed,
            format!("migration {} has another checksum than the program's", changed.join(", ")),
        )
    } else if !unknown.is_empty() {
        (SchemaState::Newer, format!("the program does not know migration {}", unknown.join(", ")))
    } else if lacking > 0 {
        (SchemaState::Older, format!("the program has {lacking} migrations more and will apply them"))
    } else {
        (SchemaState::Equal, format!("the same {} migrations", applied.applied.len()))
    };
    SchemaVerdict { recorded_in: applied.recorded_in.clone(), state, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(version: &str, checksum: &str, success: bool) -> Migration {
        Migration { version: version.into(), checksum: Some(checksum.into()), success }
    }

    fn state(known: &[(&str, &str)], applied: &[(&str, &str, bool)]) -> SchemaState {
        let known =
            Known::Migrations(known.iter().map(|(version, sum)| migration(version, sum, true)).collect());
        let recorded = Recorded {
            migrations: Some(Migrations {
                recorded_in: SQLX.into(),
                version: "2".into(),
                applied: applied.iter().map(|(version, sum, ok)| migration(version, sum, *ok)).collect(),
            }),
            ..Recorded::default()
        };
        compare(&known, &recorded).unwrap().state
    }

    #[test]
    fn lists_are_equal_older_newer_changed_or_dirty() {
        let known = [("1", "aa"), ("2", "bb")];
        assert_eq!(state(&known, &[("1", "AA", true), ("2", "bb", true)]), SchemaState::Equal);
        assert_eq!(state(&known, &[("01", "aa", true)]), SchemaState::Older);
        assert_eq!(state(&known, &[]), SchemaState::Older);
        assert_eq!(state(&known, &[("1", "aa", true), ("9999", "cc", true)]), SchemaState::Newer);
        assert_eq!(state(&known, &[("1", "ab", true), ("2", "bb", true)]), SchemaState::Changed);
        assert_eq!(state(&known, &[("1", "ab", true), ("2", "bb", false)]), SchemaState::Dirty);
    }

    #[test]
    fn each_tool_is_read_from_its_own_table() {
        for (sql, place, version) in [
            ("CREATE TABLE _sqlx_migrations(version BIGINT PRIMARY KEY, description, installed_on, success, checksum BLOB, execution_time);
              INSERT INTO _sqlx_migrations VALUES (1,'a','',1,x'aabb',1),(20,'b','',0,x'cc',1)", SQLX, "20"),
            ("CREATE TABLE refinery_schema_history(version INT4 PRIMARY KEY, name, applied_on, checksum);
              INSERT INTO refinery_schema_history VALUES (3,'a','','123')", REFINERY, "3"),
            ("CREATE TABLE __diesel_schema_migrations(version PRIMARY KEY, run_on);
              INSERT INTO __diesel_schema_migrations VALUES ('20240101000000','')", DIESEL, "20240101000000"),
            ("CREATE TABLE schema_meta(id INTEGER PRIMARY KEY, version); INSERT INTO schema_meta VALUES (1, 4)", SCHEMA_META, "4"),
            ("PRAGMA user_version=9", "user_version", "9"),
        ] {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(sql).unwrap();
            let found = Recorded::read(&connection, Path::new("a.db")).unwrap().migrations.unwrap();
            assert_eq!((found.recorded_in.as_str(), found.version.as_str()), (place, version));
            if place == SQLX {
                assert_eq!(found.applied[0].checksum.as_deref(), Some("aabb"));
                assert!(found.applied[0].success && !found.applied[1].success);
            }
        }
    }

    #[test]
    fn a_folder_is_read_as_sqlx_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("0001_init.sql", "CREATE TABLE a(b);\n"),
            ("2_more.up.sql", "x"),
            ("2_more.down.sql", "y"),
            ("README.md", "z"),
            ("3_notes.txt", "z"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let Known::Migrations(found) = Known::sqlx_folder(folder.path()).unwrap() else { unreachable!() };
        let versions: Vec<&str> = found.iter().map(|migration| migration.version.as_str()).collect();
        assert_eq!(versions, ["1", "2"]);
        // sha384sum of "x"
        assert_eq!(
            found[1].checksum.as_deref(),
            Some(
                "d752c2c51fba0e29aa190570a9d4253e44077a058d3297fa3a5630d5bd012622f97c28acaed313b5c83bb990caa7da85"
            )
        );
        std::fs::write(folder.path().join("x_bad.sql"), "").unwrap();
        assert_eq!(Known::sqlx_folder(folder.path()).unwrap_err().kind(), ErrorKind::Malformed);
    }

    #[test]
    fn a_query_that_is_no_version_is_refused() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE v(n); INSERT INTO v VALUES (3)").unwrap();
        let ask = |sql: &str| {
            compare_database(&Known::Query { sql: sql.into(), max: 3 }, &connection, Path::new("a.db"))
        };
        assert_eq!(ask("SELECT n FROM v").unwrap().state, SchemaState::Equal);
        assert_eq!(ask("SELECT n + 1 FROM v").unwrap().state, SchemaState::Newer);
        assert_eq!(ask("SELECT n FROM v WHERE n > 5").unwrap().state, SchemaState::NotRecorded);
        for hostile in ["DELETE FROM v", "SELECT 'x'", "nonsense"] {
            assert_eq!(ask(hostile).unwrap_err().kind(), ErrorKind::InvalidInput, "{hostile}");
        }
    }
}
