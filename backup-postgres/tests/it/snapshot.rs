//! Backups in repositories, and what stock tools make of them.

use std::process::{Command, Stdio};

use backup_core::context::Context;
use backup_core::error::Result;
use backup_core::repository::{
    BackupOutcome, BackupRequest, LATEST, ReadOptions, Repository, RepositoryOptions, SourceRequest,
};
use backup_core::traits::{BackupObjects as _, ChainRequest, Snapshot};
use backup_postgres::facts::Inventory;
use backup_postgres::{PostgresSource, SourceOptions};

use crate::support::{Database, ask, cluster, execute, tools};

/// A repository of one test.
pub(crate) struct Store {
    pub(crate) repository: Repository,
    folder: tempfile::TempDir,
}

impl Store {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init(folder.path().join("repo"), &RepositoryOptions::default()).unwrap();
        Self { repository, folder }
    }

    pub(crate) fn back_up(&self, source: &dyn Snapshot, chains: Vec<ChainRequest>) -> Result<BackupOutcome> {
        self.back_up_in(source, chains, &Context::new())
    }

    pub(crate) fn back_up_in(
        &self,
        source: &dyn Snapshot,
        chains: Vec<ChainRequest>,
        ctx: &Context,
    ) -> Result<BackupOutcome> {
        let request = BackupRequest {
            sources: vec![SourceRequest { snapshot: source, chains }],
            ..BackupRequest::default()
        };
        self.repository.backup(&request, ctx)
    }

    /// Returns the plain bytes of an object of the newest backup.
    pub(crate) fn object(&self, name: &str) -> Vec<u8> {
        let backup = self.repository.objects(LATEST, &ReadOptions::default(), &Context::new()).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut backup.open(name).unwrap(), &mut bytes).unwrap();
        bytes
    }

    /// Fails when a failed backup left anything in the repository.
    pub(crate) fn assert_empty(&self) {
        let left = |folder: &str| {
            let found = std::fs::read_dir(self.folder.path().join("repo").join(folder));
            found.map(|entries| entries.count()).unwrap_or(0)
        };
        assert_eq!(left("backups"), 0, "a failed backup left something");
        assert_eq!(self.repository.list().unwrap().backups.len(), 0);
    }
}

/// Names a database of the shared server as a source.
pub(crate) fn source(database: &Database) -> PostgresSource {
    source_with(database, SourceOptions::default())
}

pub(crate) fn source_with(database: &Database, options: SourceOptions) -> PostgresSource {
    PostgresSource::with_options(database.address(), SourceOptions { tools: tools(), ..options })
}

/// Restores an object of the newest backup with `zstd` and `pg_restore` alone into a new database; returns its name.
pub(crate) fn stock_restore(outcome: &BackupOutcome, object: &str, name: &str) {
    execute("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
    let mut zstd = Command::new("zstd")
        .args(["-d", "-c", "-q"])
        .arg(outcome.path.join(object))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let restored = Command::new(cluster().bin().join("pg_restore"))
        .args(["--exit-on-error", "-d", &cluster().url(name)])
        .stdin(zstd.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(zstd.wait().unwrap().success());
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
}

const SHOP: &str = "CREATE SCHEMA shop; CREATE TABLE shop.customers(id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
    CREATE TABLE \"Odd \"\"name\"(x bytea, y jsonb); CREATE SEQUENCE ticks; SELECT setval('ticks', 41);
    INSERT INTO shop.customers(name) SELECT 'customer ' || n FROM generate_series(1, 1000) n;
    INSERT INTO \"Odd \"\"name\" VALUES ('\\x00ff', '{\"b\": 1, \"a\": [1.50]}'), (NULL, NULL);
    CREATE MATERIALIZED VIEW shop.names AS SELECT name FROM shop.customers;
    CREATE TABLE schema_migrations(version text PRIMARY KEY, applied_at timestamptz DEFAULT now());
    INSERT INTO schema_migrations VALUES ('0001_init'), ('0002_more')";

#[test]
fn a_backup_restores_with_zstd_and_pg_restore_alone() {
    let database = Database::of(SHOP);
    let store = Store::new();
    let outcome = store.back_up(&source(&database), Vec::new()).unwrap();
    stock_restore(&outcome, "database/db.dump.zst", "stock_restored");
    let rows = "SELECT string_agg(id || name, ',' ORDER BY id) FROM shop.customers";
    assert_eq!(ask("stock_restored", rows), database.ask(rows));
    let odd = "SELECT string_agg(x::text || y::text, ',') FROM \"Odd \"\"name\"";
    assert_eq!(ask("stock_restored", odd), database.ask(odd));
    assert_eq!(ask("stock_restored", "SELECT last_value FROM ticks"), "41");
    assert_eq!(ask("stock_restored", "SELECT count(*) FROM shop.names"), "1000");
}

#[test]
fn facts_inventory_and_roles_lie_beside_the_dump() {
    let database = Database::of(SHOP);
    execute("postgres", "CREATE ROLE facts_role PASSWORD 'hunter2'");
    let store = Store::new();
    let outcome = store.back_up(&source(&database), Vec::new()).unwrap();
    let facts = &outcome.manifest.sources[0];
    assert_eq!((facts.kind.as_str(), &facts.name), ("postgres", &database.name));
    assert_eq!(facts.tables["shop.customers"], 1000);
    assert_eq!(facts.tables["public.\"Odd \"\"name\""], 2);
    assert_eq!(facts.tables["shop.names"], 1000);
    assert!(facts.engine.starts_with("PostgreSQL 1"), "{}", facts.engine);
    let migrations = facts.migrations.as_ref().unwrap();
    assert_eq!(
        (migrations.recorded_in.as_str(), migrations.version.as_str()),
        ("schema_migrations", "0002_more")
    );
    for key in ["encoding", "lc_collate", "server_version", "wal_lsn", "pg_dump"] {
        assert!(facts.details.contains_key(key), "{key}: {:?}", facts.details);
    }
    assert!(facts.not_included.iter().any(|line| line.contains("passwords")));
    let inventory: Inventory = serde_json::from_slice(&store.object("database/db.inventory.json")).unwrap();
    assert_eq!(inventory.sequences["public.ticks"], Some(41));
    assert_eq!(inventory.owner, "postgres");
    assert!(inventory.roles.contains(&"facts_role".to_owned()));
    let globals = String::from_utf8(store.object("database/db.globals.sql")).unwrap();
    assert!(globals.contains("CREATE ROLE facts_role") && !globals.contains("PASSWORD"), "{globals}");
    let manifest = serde_json::to_string(&outcome.manifest).unwrap();
    assert!(!manifest.contains("hunter2"));
}
