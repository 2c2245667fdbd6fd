//! Whether another process, or this one, has a database open.
//!
//! Two ways, because neither sees everything:
//! - SQLite's locks ([`Exclusive`]): sees any process on any machine that is reading or writing *now*, and any that has a
//!   WAL database open. A connection that idles on a database with a rollback journal holds no lock.
//! - the open files of all processes (`/proc/*/fd`, `/proc/locks`, on Linux): sees those that idle, but not processes of
//!   other users (unless run by root), of other containers, of other machines.
//!
//! The files are looked at with `stat` only, never opened by plain calls (sqlite.org/howtocorrupt.html §2.2).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::migrations::Recorded;
#[cfg(target_os = "linux")]
use crate::open::FAMILY;
use crate::open::{patiently, sidecar};

/// How many processes a message names.
const NAMED: usize = 5;

/// Whose open files count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Those of every process, this one too.
    Anyone,
    /// Those of other processes: this one holds the database itself.
    Others,
}

/// How often, and how far apart, what is seen open is looked at again before it is called in use: a process that another
/// thread is just starting shares this one's open files until it becomes another program.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Refuses when a process is seen, at several looks, to have one of the database's files open.
///
/// # Errors
/// `InUse`, naming the processes.
pub(crate) fn require_closed(path: &Path, whose: Whose) -> Result<()> {
    let look = || {
        let mut found = holders(path);
        if whose == Whose::Others {
            found.remove(&std::process::id());
        }
        found
    };
    let mut holders = look();
    for _ in 1..LOOKS {
        if holders.is_empty() {
            return Ok(());
        }
        std::thread::sleep(BETWEEN_LOOKS);
        let still = look();
        holders.retain(|pid, _| still.contains_key(pid));
    }
    if holders.is_empty() {
        return Ok(());
    }
    let mut named: Vec<String> =
        holders.iter().take(NAMED).map(|(pid, name)| format!("{name} ({pid})")).collect();
    if holders.len() > NAMED {
        named.push(format!("{} more", holders.len() - NAMED));
    }
    Err(in_use(path, &format!("it is open in {}", named.join(", "))))
}

fn in_use(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::InUse, format!("{} is in use: {why}", path.display()))
        .with_hint("stop the service that uses the database, then restore")
}

/// Lists the processes that have one of the database's files open or locked: process id, name.
#[cfg(target_os = "linux")]
fn holders(path: &Path) -> BTreeMap<u32, String> {
    use std::os::unix::fs::MetadataExt as _;

    let files: Vec<(u64, u64)> = FAMILY
        .iter()
        .filter_map(|ending| sidecar(path, ending).metadata().ok())
        .map(|found| (found.dev(), found.ino()))
        .collect();
    let mut holders = BTreeMap::new();
    if files.is_empty() {
        return holders;
    }
    let is_ours = |found: std::fs::Metadata| files.contains(&(found.dev(), found.ino()));
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Processes of others cannot be looked into; their locks are seen below and by SQLite.
        let Ok(open) = std::fs::read_dir(process.path().join("fd")) else { continue };
        if open.flatten().any(|file| file.path().metadata().is_ok_and(is_ours)) {
            holders.insert(pid, name_of(pid));
        }
    }
    for pid in lockers(&files) {
        holders.entry(pid).or_insert_with(|| name_of(pid));
    }
    holders
}

#[cfg(not(target_os = "linux"))]
fn holders(_path: &Path) -> BTreeMap<u32, String> {
    BTreeMap::new()
}

#[cfg(target_os = "linux")]
fn name_of(pid: u32) -> String {
    if pid == std::process::id() {
        return "this process".to_owned();
    }
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| "a process".to_owned(), |name| name.trim().to_owned())
}

/// Reads who holds locks on the files (proc(5), `/proc/locks`): `1: POSIX ADVISORY WRITE 1234 fe:00:5678 0 EOF`.
#[cfg(target_os = "linux")]
fn lockers(files: &[(u64, u64)]) -> Vec<u32> {
    let table = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let locks = table.lines().filter_map(|line| {
        // A process that waits for a lock has an arrow before the kind.
        let mut fields = line.split_whitespace().filter(|field| *field != "->").skip(1);
        let (_kind, _mode, _type) = (fields.next()?, fields.next()?, fields.next()?);
        let pid = fields.next()?.parse::<u32>().ok()?;
        let mut place = fields.next()?.split(':');
        let major = u32::from_str_radix(place.next()?, 16).ok()?;
        let minor = u32::from_str_radix(place.next()?, 16).ok()?;
        let inode = place.next()?.parse::<u64>().ok()?;
        files.contains(&(rustix::fs::makedev(major, minor), inode)).then_some(pid)
    });
    locks.filter(|pid| *pid > 0).collect()
}

/// SQLite's exclusive lock on a database, held until this goes. Nothing is written through it.
#[derive(Debug)]
pub(crate) struct Exclusive {
    /// `None` where the file is not a database that this build can open.
    connection: Option<Connection>,
    /// Why the locks could not be asked.
    pub(crate) blind: Option<String>,
}

impl Exclusive {
    /// Takes the lock, or learns that somebody else holds one.
    ///
    /// A -journal that a crashed writer left is rolled back by this, as by any opening; a -wal is read and left as it is.
    ///
    /// # Errors
    /// `InUse` when the lock is not to be had within `wait`; `Cancelled`; `Permission`.
    pub(crate) fn take(path: &Path, wait: Duration, ctx: &Context) -> Result<Self> {
        let wal = sidecar(path, "-wal");
        let had_wal = wal.symlink_metadata().is_ok();
        let taken = Self::connect(path, wait, ctx);
        // A -wal that this opening made: empty, and nobody else's, because the lock is ours. Without the lock it may
        // be that of a process that has just come.
        if taken.is_ok() && !had_wal && wal.metadata().is_ok_and(|found| found.len() == 0) {
            let _ = std::fs::remove_file(&wal);
        }
        match taken {
            Ok(connection) => Ok(Self { connection: Some(connection), blind: None }),
            Err(error) => match error.kind() {
                ErrorKind::Locked => {
                    Err(in_use(path, "another connection holds a lock on it").with_source(error))
                }
                ErrorKind::Cancelled | ErrorKind::Permission => Err(error),
                // Damaged, encrypted, not a database: that is what a restore is for.
                _ => Ok(Self { connection: None, blind: Some(error.to_string()) }),
            },
        }
    }

    /// Reads what the database records of its schema; `None` where it cannot be read or holds no table.
    pub(crate) fn recorded(&self, path: &Path) -> Option<Recorded> {
        let connection = self.connection.as_ref()?;
        let tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table'";
        let tables: i64 = connection.query_row(tables, [], |row| row.get(0)).ok()?;
        if tables > 0 { Recorded::read(connection, path).ok() } else { None }
    }

    /// Hands over the connection, in its exclusive transaction, to read through; the lock lasts as long as it.
    pub(crate) fn into_connection(self) -> Option<Connection> {
        self.connection
    }

    fn connect(path: &Path, wait: Duration, ctx: &Context) -> Result<Connection> {
        let failed = |error| crate::fault::explain(error, "lock", path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        // Closing must neither write the -wal into the database nor remove, by its name, one that is new by then.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
        connection.busy_timeout(Duration::from_millis(50)).map_err(failed)?;
        patiently(wait, ctx, "lock", path, || {
            // Exclusive mode keeps the index of a -wal in memory: no -shm is made.
            connection.execute_batch("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE")
        })?;
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(folder: &Path, mode: &str) -> std::path::PathBuf {
        let path = folder.join("app.db");
        let sql = format!("PRAGMA journal_mode={mode}; CREATE TABLE t(a); INSERT INTO t VALUES (1)");
        Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
        path
    }

    #[test]
    fn an_idle_connection_of_this_process_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path(), "delete");
        require_closed(&path, Whose::Anyone).unwrap();
        let connection = Connection::open(&path).unwrap();
        connection.query_row("SELECT a FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
        if cfg!(target_os = "linux") {
            let error = require_closed(&path, Whose::Anyone).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InUse);
            assert!(error.to_string().contains("this process"), "{error}");
        }
    }

    #[test]
    fn the_lock_is_refused_while_another_connection_reads_a_wal_database() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path(), "wal");
        let connection = Connection::open(&path).unwrap();
        connection.query_row("SELECT a FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
        let error = Exclusive::take(&path, Duration::ZERO, &Context::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        drop(connection);
        drop(Exclusive::take(&path, Duration::ZERO, &Context::new()).unwrap());
        let names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["app.db"]);
    }

    #[test]
    fn locking_leaves_database_and_log_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let live = database(folder.path(), "wal");
        let connection = Connection::open(&live).unwrap();
        connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        // What a killed process leaves: the database and a -wal with a commit.
        let path = folder.path().join("killed.db");
        for ending in ["", "-wal"] {
            std::fs::copy(sidecar(&live, ending), sidecar(&path, ending)).unwrap();
        }
        let read = |ending| std::fs::read(sidecar(&path, ending)).unwrap();
        let before = (read(""), read("-wal"));
        let exclusive = Exclusive::take(&path, Duration::ZERO, &Context::new()).unwrap();
        assert!(exclusive.blind.is_none());
        drop(exclusive);
        assert_eq!((read(""), read("-wal")), before);
        assert!(!sidecar(&path, "-shm").exists());
    }

    #[test]
    fn what_is_not_a_database_is_locked_blindly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise.db");
        std::fs::write(&path, vec![0xa5; 8_192]).unwrap();
        let exclusive = Exclusive::take(&path, Duration::ZERO, &Context::new()).unwrap();
        assert!(exclusive.blind.is_some());
    }
}
