//! Puts a proven file in the place of a database and keeps the old one, so that a crash at any point leaves the
//! old or the new, never a mixture.
//!
//! Called by [`crate::restore`], under the lock of a staging folder beside the target and SQLite's exclusive lock.
//!
//! Layout, for a target `app.db`:
//! - `.app.db.attestore-restore/` (0700): `restored.db`, `guard`, `swap.json`
//! - `app.db.bad-<unix seconds>` with `-wal`, `-shm`, `-journal`: what was there before. SQLite finds the log of the old
//!   database beside it under that name.
//!
//! Steps, each synced before the next: (0) `swap.json` names what is where; (1) the old database gets its second name;
//! (2) only where a -wal or -journal holds something that belongs to it, the name `app.db` is given to a guard, a
//! text that no SQLite opens, so that no service can start on half of the old; (3) the sidecars move aside;
//! (4) the restored file is renamed over the name. Without (2) the name always stands for the whole old database or
//! the whole new one.
//!
//! When the process dies: before (4) [`recover`] puts everything back; after it there is nothing to do but to
//! remove the folder. A stale log never meets the new database (sqlite.org/howtocorrupt.html §1.4).

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use backup_core::durable::{Durable, PRIVATE_FILE, parent_of};
use backup_core::error::{Error, ErrorKind, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::open::{FAMILY, sidecar};

/// The version of `swap.json`.
const VERSION: u32 = 1;
/// The largest `swap.json` that is read, in bytes.
const MAX_BYTES: u64 = 64 << 10;
/// How many names `….bad-<seconds>-N` are tried.
const TRIES: u32 = 1_000;

const JOURNAL: &str = "swap.json";
const GUARD: &str = "guard";
/// The restored file in the staging folder.
pub(crate) const RESTORED: &str = "restored.db";

/// What an interrupted restore was brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recovery {
    /// There was none.
    Nothing,
    /// The old database is in place, as it was.
    RolledBack,
    /// The restored database is in place; the old one is set aside.
    Completed,
}

/// A file by its number in the file system that holds them all. The number of the device is left out: it can be
/// another after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Identity(u64);

impl Identity {
    fn of(found: &Metadata) -> Self {
        Self(found.ino())
    }

    fn at(path: &Path) -> Result<Option<Self>> {
        match path.symlink_metadata() {
            Ok(found) => Ok(Some(Self::of(&found))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("look at", path, error)),
        }
    }
}

/// The guard, told from a file that got its number after somebody removed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Guard {
    identity: Identity,
    size: u64,
    /// Seconds and nanoseconds of its last change.
    changed: (i64, i64),
}

impl Guard {
    fn at(path: &Path) -> Result<Self> {
        let found = path.symlink_metadata().map_err(|error| Error::io("look at", path, error))?;
        Ok(Self {
            identity: Identity::of(&found),
            size: found.len(),
            changed: (found.mtime(), found.mtime_nsec()),
        })
    }
}

/// One file of the old database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Old {
    /// Which: empty, `-wal`, `-shm`, `-journal`.
    ending: String,
    identity: Identity,
}

/// `swap.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    version: u32,
    /// The name that the old files get, without their endings.
    aside: String,
    /// The files that were there, the database first.
    old: Vec<Old>,
    /// The restored file.
    new: Identity,
    /// The guard, where one is needed.
    guard: Option<Guard>,
}

/// Returns the path of the staging folder of a target.
pub(crate) fn staging_of(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.attestore-restore"))
}

/// Reports whether a restore of this target was interrupted in the middle of its swap.
pub(crate) fn is_pending(target: &Path) -> bool {
    staging_of(target).join(JOURNAL).symlink_metadata().is_ok()
}

/// Swaps `staging/restored.db` in and returns the files set aside. On failure everything is put back.
///
/// # Errors
/// The first failure; where putting back fails too, or the new name cannot be synced, `swap.json` stays for [`recover`].
pub(crate) fn swap(target: &Path, staging: &Path, durable: &Durable) -> Result<Vec<PathBuf>> {
    let journal = prepare(target, staging, durable)?;
    if let Err(error) = carry_out(target, staging, &journal, durable) {
        put_back(target, &journal, durable).map_err(|worse| stuck(target, &error, worse))?;
        forget(staging, durable)?;
        return Err(error);
    }
    // From here on the restored database is the database: taking it back would be a second swap.
    durable.sync_dir(parent_of(target))?;
    forget(staging, durable)?;
    Ok(journal.old.iter().map(|old| aside(target, &journal, &old.ending)).collect())
}

/// Brings an interrupted swap to an end. The caller holds the lock of the staging folder.
///
/// # Errors
/// `Corrupt` when `swap.json` cannot be read; `Mismatch` when somebody has put other files in the way.
pub(crate) fn recover(target: &Path, staging: &Path, durable: &Durable) -> Result<Recovery> {
    let path = staging.join(JOURNAL);
    let Some(journal) = read_journal(&path)? else { return Ok(Recovery::Nothing) };
    if Identity::at(target)? == Some(journal.new) {
        durable.sync_dir(parent_of(target))?;
        forget(staging, durable)?;
        return Ok(Recovery::Completed);
    }
    put_back(target, &journal, durable)?;
    forget(staging, durable)?;
    Ok(Recovery::RolledBack)
}

/// Looks at what is there, makes the guard and writes `swap.json`.
fn prepare(target: &Path, staging: &Path, durable: &Durable) -> Result<Journal> {
    let mut old = Vec::new();
    let mut belongs = false;
    for ending in FAMILY {
        let path = sidecar(target, ending);
        match path.symlink_metadata() {
            Ok(found) => {
                belongs |= found.len() > 0 && (ending == "-wal" || ending == "-journal");
                old.push(Old { ending: ending.to_owned(), identity: Identity::of(&found) });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("look at", &path, error)),
        }
    }
    let had_database = old.first().is_some_and(|first| first.ending.is_empty());
    let guard = if belongs && had_database {
        let path = staging.join(GUARD);
        durable.write_new(&path, guard_text(target).as_bytes(), PRIVATE_FILE)?;
        Some(Guard::at(&path)?)
    } else {
        None
    };
    let restored = staging.join(RESTORED);
    let new = Identity::at(&restored)?
        .ok_or_else(|| Error::new(ErrorKind::Internal, format!("{} is gone", restored.display())))?;
    let journal = Journal { version: VERSION, aside: free_aside(target)?, old, new, guard };
    let bytes = serde_json::to_vec_pretty(&journal)
        .map_err(|error| Error::new(ErrorKind::Internal, "swap.json cannot be written").with_source(error))?;
    durable.replace(staging.join(JOURNAL), &bytes, PRIVATE_FILE)?;
    // The folder's own name must outlive a power cut before anything moves.
    durable.sync_dir(parent_of(staging))?;
    Ok(journal)
}

fn guard_text(target: &Path) -> String {
    format!(
        "This is not a database. A restore of {} was interrupted here.\n\
         What was there before is beside this file. Run the restore again before the service is started:\n\
         it puts the old database back and begins anew.\n",
        target.display()
    )
}

/// Finds a name that none of the old files' new names is taken under.
fn free_aside(target: &Path) -> Result<String> {
    let name = target.file_name().unwrap_or_default();
    let name = name.to_str().ok_or_else(|| {
        Error::new(ErrorKind::InvalidName, format!("{}: the file's name is not UTF-8", target.display()))
    })?;
    let seconds = Timestamp::now().as_second();
    for number in 1..TRIES {
        let again = if number == 1 { String::new() } else { format!("-{number}") };
        let aside = format!("{name}.bad-{seconds}{again}");
        let base = target.with_file_name(&aside);
        if FAMILY.iter().all(|ending| sidecar(&base, ending).symlink_metadata().is_err()) {
            return Ok(aside);
        }
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!("every name {name}.bad-{seconds}-N is taken beside {}", target.display()),
    ))
}

fn aside(target: &Path, journal: &Journal, ending: &str) -> PathBuf {
    sidecar(&target.with_file_name(&journal.aside), ending)
}

fn carry_out(target: &Path, staging: &Path, journal: &Journal, durable: &Durable) -> Result<()> {
    let folder = parent_of(target);
    if journal.old.first().is_some_and(|first| first.ending.is_empty()) {
        let second = aside(target, journal, "");
        // (1) A second name where the file system has hard links; else the only one.
        if std::fs::hard_link(target, &second).is_ok() {
            durable.sync_dir(folder)?;
        } else {
            durable.rename_noreplace(target, &second)?;
        }
        // (2)
        if journal.guard.is_some() {
            replace(&staging.join(GUARD), target)?;
            durable.sync_dir(folder)?;
        }
    }
    // (3)
    for old in journal.old.iter().filter(|old| !old.ending.is_empty()) {
        durable.rename_noreplace(sidecar(target, &old.ending), aside(target, journal, &old.ending))?;
    }
    // (4)
    replace(&staging.join(RESTORED), target)
}

fn replace(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|error| {
        let busy = error.kind() == std::io::ErrorKind::ResourceBusy;
        let error = Error::io("rename over", to, error);
        if busy {
            Error::new(ErrorKind::Unsupported, format!("{} is a mount point", to.display()))
                .with_hint("mount the folder of the database, not the file")
                .with_source(error)
        } else {
            error
        }
    })
}

/// What gives one old file its name back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Return {
    /// It never moved.
    Stay,
    /// It has both names: the second goes.
    DropSecond,
    /// Its name is free.
    Rename,
    /// Its name stands for the guard.
    ReplaceGuard,
}

/// Gives every old file its name back. Can be repeated at any point. Nothing moves unless everything can.
fn put_back(target: &Path, journal: &Journal, durable: &Durable) -> Result<()> {
    let folder = parent_of(target);
    let mut returns = Vec::with_capacity(journal.old.len());
    // The sidecars first: where they belong to it, the name does not stand for the old database yet.
    for old in journal.old.iter().rev() {
        let place = sidecar(target, &old.ending);
        let second = aside(target, journal, &old.ending);
        let (at_place, at_second) = (Identity::at(&place)?, Identity::at(&second)?);
        let is_guard = || journal.guard.is_some() && Guard::at(&place).ok() == journal.guard;
        let how = match (at_place, at_second == Some(old.identity)) {
            (Some(found), both) if found == old.identity => {
                if both {
                    Return::DropSecond
                } else {
                    Return::Stay
                }
            }
            (_, false) => return Err(in_the_way(target, &second, "the old file is not there any more")),
            (None, true) => Return::Rename,
            (Some(_), true) if old.ending.is_empty() && is_guard() => Return::ReplaceGuard,
            (Some(_), true) => {
                return Err(in_the_way(target, &place, "somebody has made another file there"));
            }
        };
        returns.push((place, second, how));
    }
    // There was no database, only a log: it is not put beside one that somebody has made since.
    let had_database = journal.old.first().is_none_or(|first| first.ending.is_empty());
    if !had_database && target.symlink_metadata().is_ok() {
        return Err(in_the_way(target, target, "somebody has made another file there"));
    }
    for (place, second, how) in returns {
        match how {
            Return::Stay => {}
            Return::DropSecond => durable.remove_file(&second)?,
            Return::Rename => durable.rename_noreplace(&second, &place)?,
            Return::ReplaceGuard => {
                replace(&second, &place)?;
                durable.sync_dir(folder)?;
            }
        }
    }
    durable.sync_dir(folder)
}

fn in_the_way(target: &Path, path: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::Mismatch,
        format!(
            "the interrupted restore of {} cannot be undone: {}: {why}",
            target.display(),
            path.display()
        ),
    )
    .with_hint(format!(
        "decide by hand: the old database is {}.bad-…, the restored one is in {}; then remove that folder",
        target.display(),
        staging_of(target).display()
    ))
}

fn stuck(target: &Path, first: &Error, worse: Error) -> Error {
    Error::new(
        worse.kind(),
        format!("the restore of {} failed ({first}) and could not be undone: {worse}", target.display()),
    )
    .with_hint("run the restore again: it first puts the old database back")
    .with_source(worse)
}

/// Removes `swap.json`: from here on there is nothing to bring to an end.
fn forget(staging: &Path, durable: &Durable) -> Result<()> {
    durable.remove_file(staging.join(JOURNAL))
}

fn read_journal(path: &Path) -> Result<Option<Journal>> {
    let damaged = |why: String| {
        Error::new(ErrorKind::Corrupt, format!("{}: {why}", path.display())).with_hint(
            "look at the files beside it and put the right database back by hand; then remove its folder",
        )
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| Error::io("read", path, error))?;
    let journal: Journal = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if journal.version != VERSION {
        return Err(Error::new(
            ErrorKind::Newer,
            format!("{}: version {}, expected {VERSION}", path.display(), journal.version),
        )
        .with_hint("finish the restore with the version that began it"));
    }
    let known = journal.old.iter().all(|old| FAMILY.contains(&old.ending.as_str()));
    if !known || journal.aside.contains('/') || journal.aside.is_empty() {
        return Err(damaged("it names files that are not a database's".into()));
    }
    Ok(Some(journal))
}
