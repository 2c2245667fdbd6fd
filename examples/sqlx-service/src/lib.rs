//! A service over sqlx that backs its own database up while it writes, with [`backup_sqlite`] in the same binary.
//!
//! Both link the same SQLite, so the locks that the pool's connections hold stay held when the backup closes its own
//! (sqlite.org/howtocorrupt.html §2.2.1). The blocking call runs on tokio's threads for blocking work.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::context::Context;
use backup_sqlite::{BackupFile, BackupIntoOptions, backup_into};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};

/// How long a connection of the pool waits for a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

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
        Ok(Self { pool, path: path.to_owned() })
    }

    /// Writes a note.
    ///
    /// # Errors
    /// What the database says.
    pub async fn write(&self, text: &str) -> Result<(), Error> {
        sqlx::query("INSERT INTO notes (text, author) VALUES (?1, 'me')")
            .bind(text)
            .execute(&self.pool)
            .await?;
        Ok(())
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
