//! A backup as one plain database file in a folder, for a service that embeds it (S3.2).
//!
//! The service's handler calls [`backup_into`] with the name that a request brought. The name must be a bare name; an
//! existing one is never overwritten; the file appears under its name whole and synced, or not at all.
//!
//! Layout: `<dir>/<name>`; while it is made, `<dir>/.<name>.<16 hex>.into/copy.db` (mode 0700 and 0600). When the
//! process dies, that folder stays and the next call into the same `dir` removes it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::context::Context;
use backup_core::durable::{Durable, PRIVATE_DIR, PRIVATE_FILE, free_space, parent_of};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::names::validate_name;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::copy::{Job, Method, copy, database_bytes};
use crate::fault::explain;
use crate::open::{FAMILY, absolute, inspect, open_immutable, open_live, path_of, sidecar};
use crate::staging::{Staging, sweep};
use crate::table::DEFAULT_BUSY_TIMEOUT;

/// The ending of staging folders.
const SUFFIX: &str = "into";

/// The database to copy: a path, or a connection that the service has open.
#[derive(Debug, Clone, Copy)]
pub enum Live<'a> {
    /// A file; it is opened through SQLite for the time of the copy.
    Path(&'a Path),
    /// A connection that is not inside a transaction; its settings are left as they are.
    Connection(&'a Connection),
}

impl<'a> From<&'a Path> for Live<'a> {
    fn from(path: &'a Path) -> Self {
        Self::Path(path)
    }
}

impl<'a> From<&'a PathBuf> for Live<'a> {
    fn from(path: &'a PathBuf) -> Self {
        Self::Path(path)
    }
}

impl<'a> From<&'a str> for Live<'a> {
    fn from(path: &'a str) -> Self {
        Self::Path(Path::new(path))
    }
}

impl<'a> From<&'a Connection> for Live<'a> {
    fn from(connection: &'a Connection) -> Self {
        Self::Connection(connection)
    }
}

/// How a file is backed up into a folder.
#[derive(Debug, Clone)]
pub struct BackupIntoOptions {
    /// How the copy is made.
    pub method: Method,
    /// How long locks of others are waited for.
    pub busy_timeout: Duration,
    /// The mode of folders that are created (octal permission bits, before the umask).
    pub folder_mode: u32,
    /// The mode of the file; where `None`, the live database's without execute bits.
    pub file_mode: Option<u32>,
}

impl Default for BackupIntoOptions {
    fn default() -> Self {
        Self {
            method: Method::default(),
            busy_timeout: DEFAULT_BUSY_TIMEOUT,
            folder_mode: PRIVATE_DIR,
            file_mode: None,
        }
    }
}

/// The file that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// Copies a live database to the new file `dir/name`, as of one instant.
///
/// `dir` is created if it is missing. The file is synced before it gets its name, and the folder after.
///
/// # Errors
/// `InvalidName` when `name` is not a bare name ([`validate_name`]; an HTTP 400); `AlreadyExists` when anything has
/// that name, a symbolic link to nothing too, or a -wal, -shm or -journal that SQLite would take for the new file's
/// (409); `NotFound`, `KeyRejected`, `Malformed`, `Corrupt`, `Locked`, `NoSpace`, `Permission` as the copy fails;
/// `InvalidInput` for a connection inside a transaction. On any error nothing is left in `dir`.
///
/// # Examples
/// ```
/// use backup_core::{context::Context, error::ErrorKind};
/// use backup_sqlite::{BackupIntoOptions, backup_into};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let live = folder.path().join("app.db");
/// let connection = rusqlite::Connection::open(&live)?;
/// connection.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (1)")?;
///
/// let backups = folder.path().join("backups");
/// let options = BackupIntoOptions::default();
/// let made = backup_into(&connection, &backups, "snap.db", &options, &Context::new())?;
/// assert_eq!(made.path, backups.join("snap.db"));
/// assert_eq!(made.size_bytes, made.path.metadata()?.len());
///
/// let again = backup_into(&connection, &backups, "snap.db", &options, &Context::new());
/// assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
/// # Ok(())
/// # }
/// ```
pub fn backup_into<'a>(
    source: impl Into<Live<'a>>,
    dir: impl AsRef<Path>,
    name: &str,
    options: &BackupIntoOptions,
    ctx: &Context,
) -> Result<BackupFile> {
    let span = tracing::info_span!(parent: &ctx.span(), "sqlite backup into", name);
    let _entered = span.enter();
    validate_name(name)?;
    match source.into() {
        Live::Path(path) => {
            let connection = open_live(path, options.busy_timeout, ctx)?;
            let made = make(&connection, true, path, dir.as_ref(), name, options, ctx)?;
            connection.close().map_err(|(_, error)| explain(error, "close", path))?;
            Ok(made)
        }
        Live::Connection(connection) => {
            let path = path_of(connection)?;
            if !connection.is_autocommit() {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("cannot copy {}: the connection is inside a transaction", path.display()),
                )
                .with_hint("commit first, or give the path instead of the connection"));
            }
            make(connection, false, &path, dir.as_ref(), name, options, ctx)
        }
    }
}

fn make(
    connection: &Connection,
    own: bool,
    live: &Path,
    dir: &Path,
    name: &str,
    options: &BackupIntoOptions,
    ctx: &Context,
) -> Result<BackupFile> {
    let dir = absolute(dir)?;
    let durable = Durable::new();
    create_folder(&durable, &dir, options.folder_mode)?;
    let target = dir.join(name);
    require_free_names(&target)?;
    sweep(&dir, SUFFIX);
    let bytes = database_bytes(connection).map_err(|error| explain(error, "read the size of", live))?;
    let free = free_space(&dir)?;
    if free < bytes {
        return Err(Error::new(
            ErrorKind::NoSpace,
            format!("no room for a copy in {}: {bytes} bytes needed, {free} bytes free", dir.display()),
        )
        .with_hint("free room on that file system, or choose another folder"));
    }
    let staging = Staging::beside(&target, SUFFIX)?;
    let made = staging.path().join("copy.db");
    // SQLite takes an empty file as it is, so the copy is never readable by others before its mode is set.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(&made)
        .map_err(|error| Error::io("create", &made, error))?;
    let job = Job {
        source: connection,
        own,
        path: live,
        to: &made,
        method: options.method,
        wait: options.busy_timeout,
    };
    copy(job, ctx)?;
    // What cannot be opened is no backup, whatever the copy said.
    drop(open_immutable(&made)?);
    let mode = match options.file_mode {
        Some(mode) => mode,
        None => inspect(live)?.mode() & 0o666,
    };
    let file = File::open(&made).map_err(|error| Error::io("open", &made, error))?;
    file.set_permissions(Permissions::from_mode(mode))
        .map_err(|error| Error::io("set the mode of", &made, error))?;
    durable.sync_file(&file, &made)?;
    let size_bytes = file.metadata().map_err(|error| Error::io("look at", &made, error))?.len();
    drop(file);
    ctx.check()?;
    require_free_names(&target)?;
    durable.rename_noreplace(&made, &target).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => taken(&target),
        _ => error,
    })?;
    tracing::info!(path = %target.display(), bytes = size_bytes, "backed up");
    Ok(BackupFile { path: target, size_bytes })
}

/// Creates the folder and those above it that are missing, and syncs the names of what it made.
fn create_folder(durable: &Durable, dir: &Path, mode: u32) -> Result<()> {
    match dir.metadata() {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{}: expected a folder for backups, found a file", dir.display()),
            ));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("look at", dir, error)),
    }
    if dir.symlink_metadata().is_ok() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{}: expected a folder for backups, found a symbolic link to nothing", dir.display()),
        ));
    }
    let above = parent_of(dir);
    if above != dir {
        create_folder(durable, above, mode)?;
    }
    match DirBuilder::new().mode(mode).create(dir) {
        Ok(()) => durable.sync_dir(above),
        // Another call was faster.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(Error::io("create", dir, error)),
    }
}

fn taken(path: &Path) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("{} exists already and is never overwritten", path.display()),
    )
    .with_hint("choose another name")
}

/// Refuses a name that is taken, or beside which files lie that SQLite would take for the new file's own.
fn require_free_names(target: &Path) -> Result<()> {
    for ending in FAMILY {
        let path = sidecar(target, ending);
        match path.symlink_metadata() {
            Ok(_) if ending.is_empty() => return Err(taken(target)),
            Ok(_) => {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!(
                        "{} exists: SQLite would replay it over {} or delete it",
                        path.display(),
                        target.display()
                    ),
                )
                .with_hint("choose another name, or move that file away"));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("look at", &path, error)),
        }
    }
    Ok(())
}
