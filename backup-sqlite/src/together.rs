//! Gives several connections one snapshot of a live database, so that they read it side by side.
//!
//! Called by [`crate::table`]. Each connection takes its snapshot when its transaction first reads; what another process
//! commits in between would make them differ. So one of them asks before and after whether anything was committed:
//!
//! ```text
//! first    PRAGMA data_version            outside a transaction: a snapshot that is given up at once
//! others   BEGIN; PRAGMA data_version     each takes its snapshot and holds it
//! first    BEGIN; PRAGMA data_version     takes its snapshot and holds it: the same value, else all begin again
//! ```
//!
//! WAL mode: `data_version` changes when the header of the wal-index is another one than at the last look
//! (sqlite.org/walformat.html §2.1). That header holds the place of the last commit with its checksum and the log's
//! salts, so it never comes back to an earlier value: equal before and after means that all who looked in between
//! saw this very commit. A rollback journal: the others hold SHARED locks from their snapshot on, under which
//! nobody can commit (sqlite.org/lockingv3.html §3.0), so all that is held at once is one state of the file.
//!
//! All must be the same file: a database that is swapped for another by a rename has another inode afterwards.
//! Where others write too often or hold a lock, one connection must do; that is no failure.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use backup_core::context::Context;
use backup_core::error::{ErrorKind, Result};
use rusqlite::Connection;

use crate::copy::begin_read;
use crate::fault::{explain, is_busy};
use crate::open::{SLICE, open_live};

/// How long a common snapshot is tried for.
const PATIENCE: Duration = Duration::from_millis(250);
/// The pause before the next try, in which a writer may end what it is at.
const PAUSE: Duration = Duration::from_micros(200);

/// Opens up to `count` connections with one snapshot, each in a read transaction that lasts until the connection closes.
/// The first result is there always; where a common snapshot cannot be had it is the only one.
///
/// # Errors
/// As [`open_live`]; `Locked` when the first connection's snapshot is not to be had within `wait`.
pub(crate) fn open_together(
    path: &Path,
    wait: Duration,
    count: usize,
    ctx: &Context,
) -> Result<(Connection, Vec<Connection>)> {
    let place = Place::of(path);
    let first = open_live(path, wait, ctx)?;
    let others = match place {
        Some(place) if place.is_still(path) => open_others(path, place, count.saturating_sub(1), ctx)?,
        _ => Vec::new(),
    };
    if !others.is_empty() && begin_together(&first, &others, path, ctx)? {
        return Ok((first, others));
    }
    // Their transactions would keep a writer from making way.
    drop(others);
    begin_read(&first, path, wait, ctx)?;
    Ok((first, Vec::new()))
}

/// Which file a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    device: u64,
    inode: u64,
}

impl Place {
    fn of(path: &Path) -> Option<Self> {
        path.metadata().ok().map(|found| Self { device: found.dev(), inode: found.ino() })
    }

    fn is_still(self, path: &Path) -> bool {
        Self::of(path) == Some(self)
    }
}

/// Opens the other connections; none where one of them cannot be opened or opens another file.
fn open_others(path: &Path, place: Place, count: usize, ctx: &Context) -> Result<Vec<Connection>> {
    let mut others = Vec::with_capacity(count);
    for _ in 0..count {
        // A lock in its way, too many open files: one connection is enough to go on with.
        match open_live(path, Duration::ZERO, ctx) {
            Ok(connection) if place.is_still(path) && connection.busy_timeout(Duration::ZERO).is_ok() => {
                others.push(connection);
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            _ => return Ok(Vec::new()),
        }
    }
    Ok(others)
}

/// Begins read transactions with one snapshot on all connections; `false`, and no transaction, where that cannot be had soon.
fn begin_together(first: &Connection, others: &[Connection], path: &Path, ctx: &Context) -> Result<bool> {
    let failed = |error| explain(error, "read", path);
    first.busy_timeout(Duration::ZERO).map_err(failed)?;
    let begun = Instant::now();
    let mut together = false;
    while !together && begun.elapsed() < PATIENCE {
        ctx.check()?;
        match begin(first, others.iter()) {
            Ok(same) => together = same,
            Err(error) if is_busy(&error) => {}
            Err(error) => return Err(failed(error)),
        }
        if !together {
            let begun = others.iter().chain([first]).filter(|connection| !connection.is_autocommit());
            let ended: rusqlite::Result<Vec<()>> =
                begun.map(|connection| connection.execute_batch("ROLLBACK")).collect();
            ended.map_err(failed)?;
            std::thread::sleep(PAUSE);
        }
    }
    first.busy_timeout(SLICE).map_err(failed)?;
    Ok(together)
}

/// Begins the transactions once; `false` when something was committed meanwhile.
fn begin<'a>(first: &Connection, others: impl Iterator<Item = &'a Connection>) -> rusqlite::Result<bool> {
    let before = version(first)?;
    for connection in others {
        take(connection)?;
    }
    Ok(take(first)? == before)
}

/// Begins a transaction with its snapshot: BEGIN alone takes none, the first read does.
fn take(connection: &Connection) -> rusqlite::Result<i64> {
    connection.execute_batch("BEGIN")?;
    version(connection)
}

/// Returns a number that is another one after others committed (sqlite.org/pragma.html#pragma_data_version).
fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const MODES: [&str; 6] = ["delete", "truncate", "persist", "memory", "off", "wal"];

    fn counter(path: &Path, mode: &str) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        connection.pragma_update(None, "journal_mode", mode).unwrap();
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        connection
            .execute_batch("CREATE TABLE IF NOT EXISTS c(n INTEGER); INSERT INTO c SELECT 0 WHERE NOT EXISTS (SELECT * FROM c)")
            .unwrap();
        connection
    }

    fn read(connection: &Connection) -> i64 {
        connection.query_row("SELECT n FROM c", [], |row| row.get(0)).unwrap()
    }

    /// Takes snapshots while two writers commit; returns how many were common to all connections.
    fn race(mode: &str, rounds: u32, pause: Duration) -> u32 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.db");
        drop(counter(&path, mode));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for number in 0..2 {
                let (path, stop) = (&path, &stop);
                scope.spawn(move || {
                    let writer = counter(path, mode);
                    let mut commits = 0_u32;
                    while !stop.load(Ordering::Relaxed) {
                        let written = writer.execute("UPDATE c SET n = n + 1", []);
                        assert!(written.is_ok() || is_busy(written.as_ref().unwrap_err()), "{written:?}");
                        commits += 1;
                        // The log begins anew again and again, so that places and frames are used twice.
                        if mode == "wal" && commits % 7 == number {
                            let kind = ["PASSIVE", "RESTART", "TRUNCATE"][(commits / 7 % 3) as usize];
                            let _ =
                                writer.query_row(&format!("PRAGMA wal_checkpoint({kind})"), [], |_| Ok(()));
                        }
                        std::thread::sleep(pause);
                    }
                });
            }
            let _stopping = Stop(&stop);
            let mut common = 0;
            for round in 0..rounds {
                let count = 2 + round as usize % 3;
                let (first, others) =
                    open_together(&path, Duration::from_secs(60), count, &Context::new()).unwrap();
                let seen = read(&first);
                for _ in 0..3 {
                    let all = others.iter().chain([&first]).map(read);
                    assert!(all.clone().all(|n| n == seen), "{mode}: {seen}: {:?}", all.collect::<Vec<_>>());
                }
                if !others.is_empty() {
                    assert_eq!(others.len(), count - 1);
                    common += 1;
                }
            }
            common
        })
    }

    /// Ends the writers also where an assertion fails.
    struct Stop<'a>(&'a AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn all_connections_see_one_snapshot_while_others_commit_in_every_journal_mode() {
        let long = std::env::var_os("ATTESTORE_LONG").is_some_and(|value| value == "1");
        let rounds = if long { 2_000 } else { 40 };
        for mode in MODES {
            // A rest between commits, in which a common snapshot is to be had.
            assert!(race(mode, rounds, Duration::from_millis(2)) > 0, "{mode}");
            race(mode, 10 * rounds, Duration::ZERO);
        }
    }

    #[test]
    fn a_commit_between_two_snapshots_is_noticed_or_impossible_in_every_journal_mode() {
        for mode in MODES {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("c.db");
            let writer = counter(&path, mode);
            writer.busy_timeout(Duration::ZERO).unwrap();
            let first = open_live(&path, Duration::ZERO, &Context::new()).unwrap();
            let others = open_others(&path, Place::of(&path).unwrap(), 3, &Context::new()).unwrap();
            for commit_before in 0..=others.len() {
                let mut committed = false;
                let taking = others.iter().enumerate().map(|(at, other)| {
                    if at == commit_before {
                        committed = writer.execute("UPDATE c SET n = n + 1", []).is_ok();
                    }
                    other
                });
                let same = begin(&first, taking).unwrap();
                let all: Vec<_> = others.iter().chain([&first]).collect();
                let seen: Vec<_> = all.iter().map(|connection| read(connection)).collect();
                assert_eq!(same, !committed, "{mode}: {seen:?}");
                if same {
                    assert!(seen.iter().all(|n| *n == seen[0]), "{mode}: {seen:?}");
                }
                // Behind the first of them only a writer of the log gets in; before it, everyone.
                let possible = commit_before < others.len() && (mode == "wal" || commit_before == 0);
                assert_eq!(committed, possible, "{mode}: before {commit_before}");
                if mode == "wal" && (1..others.len()).contains(&commit_before) {
                    assert!(seen.iter().any(|n| *n != seen[0]), "the snapshots differ: {seen:?}");
                }
                all.iter().for_each(|connection| connection.execute_batch("ROLLBACK").unwrap());
            }
        }
    }

    #[test]
    fn a_quiet_database_is_read_by_as_many_as_asked_for_and_a_locked_one_by_one() {
        for mode in MODES {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("c.db");
            let writer = counter(&path, mode);
            let ctx = Context::new();
            let (first, others) = open_together(&path, Duration::ZERO, 4, &ctx).unwrap();
            assert_eq!((others.len(), first.is_autocommit()), (3, false), "{mode}");
            drop((first, others));
            let (first, others) = open_together(&path, Duration::ZERO, 1, &ctx).unwrap();
            assert_eq!((others.len(), first.is_autocommit()), (0, false), "{mode}");
            drop(first);
            writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
            let locked = open_together(&path, Duration::from_millis(20), 4, &ctx);
            if mode == "wal" {
                assert_eq!(locked.unwrap().1.len(), 3);
            } else {
                assert_eq!(locked.unwrap_err().kind(), ErrorKind::Locked, "{mode}");
            }
        }
    }

    #[test]
    fn a_writer_that_waits_for_readers_leaves_one_connection_its_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.db");
        let writer = counter(&path, "delete");
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM c").unwrap();
        writer.busy_timeout(Duration::ZERO).unwrap();
        writer.execute_batch("BEGIN; UPDATE c SET n = 5").unwrap();
        // COMMIT takes PENDING and keeps it: no new reader comes in, so the try for several must end.
        assert!(is_busy(&writer.execute_batch("COMMIT").unwrap_err()));
        let error = open_together(&path, Duration::from_millis(50), 3, &Context::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        drop(reader);
        writer.execute_batch("COMMIT").unwrap();
        let (first, others) = open_together(&path, Duration::ZERO, 3, &Context::new()).unwrap();
        assert!(others.iter().chain([&first]).all(|connection| read(connection) == 5));
    }

    #[test]
    fn a_file_that_took_the_name_meanwhile_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("c.db"), folder.path().join("d.db"));
        drop((counter(&path, "wal"), counter(&other, "wal")));
        let place = Place::of(&path).unwrap();
        assert_eq!(open_others(&path, place, 2, &Context::new()).unwrap().len(), 2);
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(open_others(&path, place, 2, &Context::new()).unwrap().len(), 0);
    }
}
