//! Copies a live database into a file, as of one instant: `VACUUM INTO` or the online backup API.
//!
//! Called by [`crate::source`] (into the repository's scratch folder) and by [`crate::into_folder`] (into a staging
//! folder). The target is a name of ours that nobody else knows; when the process dies here, a torn file stays
//! under that name, and the next user of the folder removes it.
//!
//! `VACUUM INTO` (sqlite.org/lang_vacuum.html) reads in one transaction, leaves free pages behind and writes a
//! database in rollback-journal mode. The backup API (sqlite.org/backup.html) copies page by page; every write
//! of another process would start it over, so a read transaction on the source connection pins the snapshot
//! first. In WAL mode neither holds up a writer; with a rollback journal a writer waits at its commit, as it
//! does for any reader.

use std::path::Path;
use std::time::Duration;

use backup_core::context::{Context, Progress};
use backup_core::error::{Error, ErrorKind, Result};
use jiff::Timestamp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use crate::fault::explain;
use crate::open::patiently;
use crate::watch::watched;

/// How many pages the backup API copies between two looks at the caller's flag.
const PAGES_A_STEP: i32 = 1_024;

/// How a live database is copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Method {
    /// `VACUUM INTO`: compact, without free pages, written anew table by table.
    #[default]
    VacuumInto,
    /// The online backup API under a pinned read transaction: page by page, free pages included. For databases
    /// whose schema uses functions or collations that only their own program has.
    OnlineBackup,
}

impl Method {
    /// Returns the method's name as it stands in facts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VacuumInto => "vacuum-into",
            Self::OnlineBackup => "online-backup",
        }
    }
}

/// One copy to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    /// The source; not inside a transaction.
    pub(crate) source: &'a Connection,
    /// Whether the connection is ours, so that its settings may be changed for the time of the copy.
    pub(crate) own: bool,
    /// Where the source is, for messages.
    pub(crate) path: &'a Path,
    /// The file that is written: absent or empty.
    pub(crate) to: &'a Path,
    /// How.
    pub(crate) method: Method,
    /// How long locks of others are waited for.
    pub(crate) wait: Duration,
}

/// Makes the copy and returns the instant that it shows. The copy is not synced.
///
/// # Errors
/// `Cancelled`, `Locked`, `NoSpace`, `Corrupt` and whatever SQLite says; `job.to` may then hold a torn file.
pub(crate) fn copy(job: Job<'_>, ctx: &Context) -> Result<Timestamp> {
    let total = database_bytes(job.source).map_err(|error| explain(error, "read the size of", job.path))?;
    let instant = match job.method {
        Method::VacuumInto => vacuum_into(job, total, ctx),
        Method::OnlineBackup => online_backup(job, total, ctx),
    }?;
    tell(job.path, total, total, ctx);
    Ok(instant)
}

/// Returns the size of the database in bytes, as its header and -wal have it.
pub(crate) fn database_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let size: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    Ok(u64::try_from(pages).unwrap_or(0).saturating_mul(u64::try_from(size).unwrap_or(0)))
}

fn tell(path: &Path, done: u64, total: u64, ctx: &Context) {
    let object = path.file_name().unwrap_or_default().to_string_lossy();
    ctx.progress(Progress {
        stage: "snapshot",
        object: &object,
        done: done.min(total),
        total: Some(total),
        unit: "bytes",
    });
}

fn vacuum_into(job: Job<'_>, total: u64, ctx: &Context) -> Result<Timestamp> {
    let Job { source, path, .. } = job;
    let _unsynced = job.own.then(|| Unsynced::set(source));
    let mut instant = Timestamp::now();
    // SQL takes text: bytes cast to text would be read in the encoding of the database.
    let to = job.to.to_str().ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            format!("VACUUM INTO cannot write {}: the path is not UTF-8", job.to.display()),
        )
        .with_hint("use the method online-backup, or a folder with a name in UTF-8")
    })?;
    let target = job.to;
    watched(
        source.get_interrupt_handle(),
        ctx,
        move || tell(path, target.metadata().map_or(0, |found| found.len()), total, ctx),
        || {
            patiently(job.wait, ctx, "copy", path, || {
                instant = Timestamp::now();
                source.execute("VACUUM INTO ?1", [to])
            })
        },
    )?;
    Ok(instant)
}

/// Takes back `PRAGMA synchronous=OFF` when it goes. The copy is synced by whoever keeps it; syncing it here
/// too would write a database twice that may be thrown away.
struct Unsynced<'a>(&'a Connection, i64);

impl<'a> Unsynced<'a> {
    fn set(connection: &'a Connection) -> Self {
        let before = connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap_or(2);
        // Where it cannot be set, the copy is only slower.
        let _ = connection.execute_batch("PRAGMA synchronous=OFF");
        Self(connection, before)
    }
}

impl Drop for Unsynced<'_> {
    fn drop(&mut self) {
        // A checkpoint when this connection closes must be synced again.
        let _ = self.0.execute_batch(&format!("PRAGMA synchronous={}", self.1));
    }
}

/// Begins a read transaction and takes its snapshot.
///
/// # Errors
/// `Locked` after `wait`; whatever SQLite says.
pub(crate) fn begin_read(connection: &Connection, path: &Path, wait: Duration, ctx: &Context) -> Result<()> {
    connection.execute_batch("BEGIN").map_err(|error| explain(error, "read", path))?;
    // BEGIN alone takes no lock and no snapshot; the first read does (sqlite.org/lang_transaction.html).
    patiently(wait, ctx, "read", path, || {
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
    })
    .map(drop)
}

/// Ends the transaction of a connection when it goes.
struct EndOfRead<'a>(&'a Connection);

impl Drop for EndOfRead<'_> {
    fn drop(&mut self) {
        // Fails only where no transaction was begun.
        let _ = self.0.execute_batch("ROLLBACK");
    }
}

fn online_backup(job: Job<'_>, total: u64, ctx: &Context) -> Result<Timestamp> {
    let Job { source, path, .. } = job;
    let failed = |error| explain(error, "copy", path);
    let _ending = EndOfRead(source);
    begin_read(source, path, job.wait, ctx)?;
    let instant = Timestamp::now();
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut target =
        Connection::open_with_flags(job.to, flags).map_err(|error| explain(error, "write", job.to))?;
    target
        .execute_batch("PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF")
        .map_err(|error| explain(error, "write", job.to))?;
    {
        let backup = Backup::new(source, &mut target).map_err(failed)?;
        loop {
            let step = patiently(job.wait, ctx, "copy", path, || match backup.step(PAGES_A_STEP)? {
                StepResult::Busy | StepResult::Locked => Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                    None,
                )),
                other => Ok(other),
            })?;
            if step == StepResult::Done {
                break;
            }
            let progress = backup.progress();
            let pages = u64::try_from(progress.pagecount.max(1)).unwrap_or(1);
            let left = u64::try_from(progress.remaining).unwrap_or(0).min(pages);
            tell(path, total / pages * (pages - left), total, ctx);
        }
    }
    // The pages say "WAL" where the source is in WAL mode; the copy must stand alone, also on read-only media.
    target
        .query_row("PRAGMA journal_mode=DELETE", [], |row| row.get::<_, String>(0))
        .map_err(|error| explain(error, "write", job.to))?;
    target.close().map_err(|(_, error)| explain(error, "write", job.to))?;
    Ok(instant)
}
