//! Scratch folders for restored databases: private, removed in any case, and those of a killed process removed by the next.
//!
//! `contents` (verifications) and `drill` make one with [`Scratch::new`].
//!
//! ```text
//! <parent>/attestore-scratch-<random>/        mode 0700
//!                                    /.lock   locked while its process lives
//! ```
//! When the process dies, the lock goes with it and the folder stays; the next [`Scratch::new`] in the same parent removes it. A
//! folder of another user, one that is locked, and one that is too young to have its lock yet are left alone.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use backup_core::error::{Error, ErrorKind, Result};

/// What the names of scratch folders begin with.
pub const PREFIX: &str = "attestore-scratch-";
/// The file that is locked.
const LOCK: &str = ".lock";
/// A folder without a lock is left alone for so long.
const YOUNG: Duration = Duration::from_secs(600);

/// A scratch folder, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
    _lock: File,
}

impl Scratch {
    /// Removes what dead processes left in `parent` (the system's temporary folder where it is `None`), and makes a new one.
    ///
    /// # Errors
    /// `NotFound` when there is no such folder; what the system says.
    pub fn new(parent: Option<&Path>) -> Result<Self> {
        let system = std::env::temp_dir();
        let parent = parent.unwrap_or(&system);
        if !parent.is_dir() {
            let message = format!("there is no folder {} for scratch files", parent.display());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        sweep(parent);
        let failed = |error| Error::io("create a scratch folder in", parent, error);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent).map_err(failed)?;
        let lock = File::create_new(folder.path().join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("{} is locked by another process", folder.path().display());
                return Err(Error::new(ErrorKind::Locked, message));
            }
            // A file system without locks: nobody sweeps there either.
            Err(TryLockError::Error(error)) => tracing::debug!(%error, "no lock on the scratch folder"),
        }
        Ok(Self { folder, _lock: lock })
    }

    /// Returns the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes the folders of dead processes of this user. What cannot be removed is left.
fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    let me = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // A symbolic link is not followed.
        let Ok(found) = entry.path().symlink_metadata() else { continue };
        if !found.is_dir() || found.uid() != me {
            continue;
        }
        let dead = match File::open(entry.path().join(LOCK)) {
            Ok(lock) => matches!(lock.try_lock(), Ok(())),
            Err(_) => found
                .modified()
                .ok()
                .and_then(|time| SystemTime::now().duration_since(time).ok())
                .is_some_and(|age| age > YOUNG),
        };
        if dead {
            match std::fs::remove_dir_all(entry.path()) {
                Ok(()) => {
                    tracing::warn!(folder = %entry.path().display(), "removed what a killed run had left");
                }
                Err(error) => tracing::warn!(%error, "a scratch folder is left"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_one_is_removed_by_the_next_and_a_living_one_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let living = Scratch::new(Some(parent.path())).unwrap();
        let dead = parent.path().join("attestore-scratch-dead");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join(LOCK), "").unwrap();
        std::fs::write(dead.join("app.db"), "restored data").unwrap();
        let young = parent.path().join("attestore-scratch-young");
        std::fs::create_dir(&young).unwrap();
        let next = Scratch::new(Some(parent.path())).unwrap();
        assert!(living.path().exists() && young.exists() && !dead.exists());
        drop((living, next));
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1, "only the young one");
        assert_eq!(Scratch::new(Some(&parent.path().join("no"))).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
