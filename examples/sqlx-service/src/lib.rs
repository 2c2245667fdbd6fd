//! A service over sqlx that backs its own database up while it writes, with [`backup_sqlite`] in the same binary, and
//! that keeps a native audit chain: each note and its record are written in one transaction of sqlx, the record made by
//! [`audit_chain`], the SQL by [`backup_sqlite::ledger::Layout`].
//!
//! Both link the same SQLite, so the locks that the pool's connections hold stay held when the backup closes its own
//! (sqlite.org/howtocorrupt.html §2.2.1). The blocking call runs on tokio's threads for blocking work.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use audit_chain::commitment::seal;
use audit_chain::native::{NativeHead, NativeKey, NativeRecord};
use backup_core::context::Context;
use backup_sqlite::ledger::Layout;
use backup_sqlite::{BackupFile, BackupIntoOptions, backup_into};
use sqlx::AssertSqlSafe;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
};

/// How long a connection of the pool waits for a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The chain that notes are on record in.
pub const CHAIN: &str = "notes";

/// What can fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service's own database.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// A migration.
    #[error("migration: {0}")]
    Migration(#[from] MigrateError),
    /// A record of the chain.
    #[error("audit chain: {0}")]
    Chain(#[from] audit_chain::error::Error),
    /// The backup; `kind()` says which status a request is answered with.
    #[error(transparent)]
    Backup(#[from] backup_core::error::Error),
    /// The thread that backs up ended early.
    #[error("the backup's thread: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// The service.
#[derive(Debug, Clone)]
pub struct Service {
    /// The pool that requests use.
    pub pool: SqlitePool,
    path: PathBuf,
    layout: Layout,
    key: Option<NativeKey>,
}

impl Service {
    /// Opens the database, making it where it is missing, and applies the migrations of a folder.
    ///
    /// # Errors
    /// When the database cannot be opened, or a migration does not fit it.
    pub async fn open(path: &Path, migrations: &Path, mode: SqliteJournalMode) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(mode)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        Migrator::new(migrations).await?.run(&pool).await?;
        let layout = Layout::default();
        sqlx::raw_sql(AssertSqlSafe(layout.create_sql())).execute(&pool).await?;
        for (name, sql) in layout.guards() {
            let there: i64 =
                sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name = ?1")
                    .bind(name)
                    .fetch_one(&pool)
                    .await?;
            if there == 0 {
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await?;
            }
        }
        Ok(Self { pool, path: path.to_owned(), layout, key: None })
    }

    /// Keys the chain's records with a secret.
    ///
    /// # Errors
    /// When the secret is too short.
    pub fn keyed(self, secret: &[u8]) -> Result<Self, Error> {
        Ok(Self { key: Some(NativeKey::new(secret)?), ..self })
    }

    /// Writes a note, and on record that it was written: both are there, or neither.
    ///
    /// # Errors
    /// What the database says.
    pub async fn write(&self, text: &str) -> Result<(), Error> {
        // IMMEDIATE: the lock is had before the chain's head is read, so two writers make no fork.
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let written = sqlx::query("INSERT INTO notes (text, author) VALUES (?1, 'me')")
            .bind(text)
            .execute(&mut *tx)
            .await?;
        let id = written.last_insert_rowid();
        // What is personal is only committed to: it can be erased, and the chain still verifies.
        let body = serde_json::json!({"event": "note", "id": id, "text": text}).to_string();
        self.append(&mut tx, &body, &["/text"]).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Appends a record in a transaction that holds the lock for writing.
    async fn append(
        &self,
        tx: &mut SqliteConnection,
        body: &str,
        personal: &[&str],
    ) -> Result<NativeRecord, Error> {
        let (body, values) = seal(body, personal)?;
        let head: Option<(i64, String, Option<String>)> =
            sqlx::query_as(AssertSqlSafe(self.layout.head_sql()))
                .bind(CHAIN)
                .fetch_optional(&mut *tx)
                .await?;
        let head = match head {
            Some((seq, hash, key_id)) => {
                NativeHead::at(CHAIN, u64::try_from(seq).unwrap_or(0), hash, key_id.is_some())
            }
            None => NativeHead::genesis(CHAIN),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let record = head.next(i64::try_from(now).unwrap_or(i64::MAX), body, self.key.as_ref())?;
        let seq = i64::try_from(record.seq).unwrap_or(i64::MAX);
        sqlx::query(AssertSqlSafe(self.layout.insert_sql()))
            .bind(&record.chain)
            .bind(seq)
            .bind(&record.at)
            .bind(&record.body)
            .bind(record.v)
            .bind(&record.key_id)
            .bind(&record.prev)
            .bind(&record.hash)
            .execute(&mut *tx)
            .await?;
        for value in &values {
            sqlx::query(AssertSqlSafe(self.layout.insert_value_sql()))
                .bind(&record.chain)
                .bind(seq)
                .bind(&value.pointer)
                .bind(value.salt.as_slice())
                .bind(&value.value)
                .execute(&mut *tx)
                .await?;
        }
        Ok(record)
    }

    /// Counts the notes.
    ///
    /// # Errors
    /// What the database says.
    pub async fn count(&self) -> Result<i64, Error> {
        Ok(sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&self.pool).await?)
    }

    /// Returns the version of the SQLite that sqlx runs on.
    ///
    /// # Errors
    /// What the database says.
    pub async fn sqlite_version(&self) -> Result<String, Error> {
        Ok(sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&self.pool).await?)
    }

    /// Copies the live database to the new file `dir/name`.
    ///
    /// # Errors
    /// As [`backup_into`].
    pub async fn backup(&self, dir: PathBuf, name: String) -> Result<BackupFile, Error> {
        let path = self.path.clone();
        let made = tokio::task::spawn_blocking(move || {
            backup_into(&path, dir, &name, &BackupIntoOptions::default(), &Context::new())
        });
        Ok(made.await??)
    }
}
