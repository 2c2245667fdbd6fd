//! Opens databases: a live one only ever through SQLite, a private copy as immutable.
//!
//! The live file is looked at with `stat` and opened by SQLite alone. A plain `open` and `close` of a file that
//! this process also has open through SQLite would drop the process's POSIX locks, and another process would
//! write inside our transaction (sqlite.org/howtocorrupt.html §2.2). A missing file is never created.
//!
//! A live database is opened for writing where that is allowed although nothing is written: only so can SQLite
//! roll back the journal of a crashed writer and remove the -wal and -shm that it made for us.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::Metadata;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use rusqlite::{Connection, OpenFlags};

use crate::fault::{self, SMALLEST_PAGE, explain};

/// How long SQLite itself waits for a lock before the caller's flag and deadline are looked at again.
pub(crate) const SLICE: Duration = Duration::from_millis(100);
/// The pause where SQLite says "busy" without waiting (a lock that waiting in place cannot get).
const PAUSE: Duration = Duration::from_millis(5);

/// The endings of the files that belong to a database, its own first.
pub(crate) const FAMILY: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Returns the path of one of the files that belong to a database.
pub(crate) fn sidecar(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

/// Makes a path absolute, so that no name can be taken for a `file:` URI.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::io("resolve", path, error))
}

/// Looks at a database file without opening it.
///
/// # Errors
/// `NotFound` when nothing is there, or a symbolic link to nothing; `InvalidInput` for a directory or a device;
/// `Malformed` when it is too small to be a database.
pub(crate) fn inspect(path: &Path) -> Result<Metadata> {
    let found = match path.metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let dangling = path.symlink_metadata().is_ok();
            let why = if dangling { "it is a symbolic link to nothing" } else { "there is no such file" };
            return Err(Error::new(ErrorKind::NotFound, format!("no database at {}: {why}", path.display()))
                .with_hint("check the path; a missing database is never created"));
        }
        Err(error) => return Err(Error::io("look at", path, error)),
    };
    if found.is_dir() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{}: expected a database file, found a directory", path.display()),
        )
        .with_hint("name the file in it"));
    }
    if !found.is_file() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{}: expected a database file, found a device, pipe or socket", path.display()),
        ));
    }
    if found.len() < SMALLEST_PAGE {
        if let Some(error) = fault::interrupted("open", path) {
            return Err(error);
        }
        return Err(Error::new(
            ErrorKind::Malformed,
            format!(
                "{} is not a SQLite database: {} bytes, expected at least {SMALLEST_PAGE}",
                path.display(),
                found.len()
            ),
        )
        .with_hint("nothing was ever written there, or the file was cut: check the path"));
    }
    Ok(found)
}

/// Opens a database that others may be using, and proves that it is one by reading its schema.
///
/// # Errors
/// As [`inspect`]; `Locked` when the lock is not to be had within `wait`; `KeyRejected`, `Malformed`,
/// `Corrupt`, `Permission` as SQLite says.
pub(crate) fn open_live(path: &Path, wait: Duration, ctx: &Context) -> Result<Connection> {
    let path = absolute(path)?;
    inspect(&path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match open_with(&path, flags, wait, ctx) {
        Err(error) if error.kind() == ErrorKind::Permission && frozen(&path) => connect_immutable(&path),
        other => other,
    }
}

fn open_with(path: &Path, flags: OpenFlags, wait: Duration, ctx: &Context) -> Result<Connection> {
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| explain(error, "open", path))?;
    connection.busy_timeout(SLICE).map_err(|error| explain(error, "open", path))?;
    // Functions and collations in the schema of a file from elsewhere are not called for us.
    connection.execute_batch("PRAGMA trusted_schema=OFF").map_err(|error| explain(error, "open", path))?;
    patiently(wait, ctx, "open", path, || {
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
    })?;
    Ok(connection)
}

/// Reports whether nobody can write the file, because its file system is mounted read-only, and it needs
/// nothing from a -wal: then it can be read without the -shm that cannot be made there.
fn frozen(path: &Path) -> bool {
    let read_only = rustix::fs::statvfs(path)
        .is_ok_and(|mounted| mounted.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let quiet = |ending| sidecar(path, ending).metadata().map_or(true, |found| found.len() == 0);
    read_only && quiet("-wal") && quiet("-journal")
}

/// Opens a private copy that nobody writes: no locks, no -wal, no -shm.
///
/// # Errors
/// As SQLite says.
pub(crate) fn open_immutable(path: &Path) -> Result<Connection> {
    let path = absolute(path)?;
    let connection = connect_immutable(&path)?;
    connection.execute_batch("PRAGMA query_only=ON").map_err(|error| explain(error, "open", &path))?;
    Ok(connection)
}

fn connect_immutable(path: &Path) -> Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(immutable_uri(path), flags)
        .map_err(|error| explain(error, "open", path))?;
    // Reading the schema also fixes the encoding: a pragma function that runs first in a UTF-16 database compares
    // its texts in the wrong one and finds nothing.
    connection
        .execute_batch("PRAGMA trusted_schema=OFF; SELECT count(*) FROM sqlite_schema")
        .map_err(|error| explain(error, "open", path))?;
    Ok(connection)
}

/// Spells an absolute path as a URI of sqlite.org/uri.html with `immutable=1`.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file://");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?immutable=1");
    uri
}

/// Returns the path of the file behind a connection.
///
/// # Errors
/// `InvalidInput` for a database in memory.
pub(crate) fn path_of(connection: &Connection) -> Result<PathBuf> {
    match connection.path() {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(OsString::from_vec(path.as_bytes().to_vec()))),
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            "the connection has no file that can be named: a database in memory, or a path that is not UTF-8",
        )
        .with_hint("give the path instead of the connection; a database in memory has none")),
    }
}

/// Runs `op` until it is not in another connection's way any more, the flag is set, or `wait` is over.
///
/// # Errors
/// `Cancelled`; `Locked` after `wait`, with the time in the text; whatever else SQLite says, at once.
pub(crate) fn patiently<T>(
    wait: Duration,
    ctx: &Context,
    step: &str,
    path: &Path,
    mut op: impl FnMut() -> rusqlite::Result<T>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        ctx.check()?;
        let tried = Instant::now();
        match op() {
            Ok(value) => return Ok(value),
            Err(error) if fault::is_busy(&error) => {
                if begun.elapsed() >= wait {
                    return Err(Error::new(
                        ErrorKind::Locked,
                        format!(
                            "cannot {step} {}: another connection held its lock for {} ms",
                            path.display(),
                            begun.elapsed().as_millis()
                        ),
                    )
                    .with_hint("wait for the writer to finish, or allow a longer busy timeout")
                    .with_source(error));
                }
                if tried.elapsed() < PAUSE {
                    std::thread::sleep(PAUSE);
                }
            }
            Err(error) => return Err(explain(error, step, path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_not_found_and_not_created() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.db");
        let error = open_live(&path, Duration::ZERO, &Context::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(!path.exists());
    }

    #[test]
    fn a_uri_carries_any_path() {
        let uri = immutable_uri(Path::new("/a b/ü?x=1#%.db"));
        assert_eq!(uri, "file:///a%20b/%C3%BC%3Fx%3D1%23%25.db?immutable=1");
        let folder = tempfile::tempdir().unwrap();
        let name = OsString::from_vec(b"odd ?mode=memory&\xff#%41.db".to_vec());
        let path = folder.path().join(name);
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES(1)").unwrap();
        let rows: i64 =
            open_immutable(&path).unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1);
    }

    #[test]
    fn patience_ends_with_the_time_in_the_text() {
        let busy = || rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(5), None);
        let error = patiently(Duration::from_millis(20), &Context::new(), "copy", Path::new("a.db"), || {
            Err::<(), _>(busy())
        })
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.to_string().contains("a.db: another connection held its lock for"), "{error}");
    }
}
