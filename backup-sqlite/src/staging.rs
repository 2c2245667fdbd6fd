//! Private folders in which files are made before they get their names.
//!
//! A folder is locked (`flock`, which a dead process cannot hold) for as long as it is in use. Whoever comes next to
//! the same place sweeps away what the dead left behind: a name with the prefix whose lock is free.
//!
//! When the process dies, the folder stays until the next sweep. Where the file system has no locks on folders, nothing
//! is swept.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use backup_core::durable::{PRIVATE_DIR, staging_name};
use backup_core::error::{Error, ErrorKind, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How often a folder is made anew when another process sweeps it between its making and its locking.
const TRIES: u32 = 16;

/// A private folder, removed with all that is in it when this goes.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    keep: bool,
    _lock: File,
}

/// What a try to lock a folder came to.
enum Locked {
    /// It is ours.
    Mine(File),
    /// Somebody holds it.
    Held,
    /// It is gone, or another folder has its name.
    Gone,
    /// The file system has no such locks.
    Unsupported(File),
}

fn lock(path: &Path) -> Result<Locked> {
    let failed = |error| Error::io("lock", path, error);
    let folder = match File::open(path) {
        Ok(folder) => folder,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Locked::Gone),
        Err(error) => return Err(failed(error)),
    };
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(Locked::Held),
        Err(_) => return Ok(Locked::Unsupported(folder)),
    }
    // Whoever held it before may have removed it; then the lock is on a folder without a name.
    let own = folder.metadata().map_err(failed)?;
    match path.symlink_metadata() {
        Ok(named) if (named.dev(), named.ino()) == (own.dev(), own.ino()) => Ok(Locked::Mine(folder)),
        _ => Ok(Locked::Gone),
    }
}

impl Staging {
    /// Makes a folder `.<name>.<16 hex>.<suffix>` beside `path`, readable by its owner only.
    ///
    /// # Errors
    /// When `path` has no file name, or the folder it is in cannot be written.
    pub(crate) fn beside(path: &Path, suffix: &str) -> Result<Self> {
        for _ in 0..TRIES {
            let staging = staging_name(path, suffix)?;
            DirBuilder::new()
                .mode(PRIVATE_DIR)
                .create(&staging)
                .map_err(|error| Error::io("create", &staging, error))?;
            match lock(&staging)? {
                Locked::Mine(lock) | Locked::Unsupported(lock) => {
                    return Ok(Self { path: staging, keep: false, _lock: lock });
                }
                Locked::Held | Locked::Gone => {}
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("cannot keep a staging folder beside {}: another process removes it", path.display()),
        ))
    }

    /// Takes the one folder with a fixed name: makes it, or takes over what a dead process left. The flag says which.
    ///
    /// # Errors
    /// `InUse` while another process holds it; when it cannot be made.
    pub(crate) fn fixed(path: &Path, purpose: &str) -> Result<(Self, bool)> {
        for _ in 0..TRIES {
            let made = match DirBuilder::new().mode(PRIVATE_DIR).create(path) {
                Ok(()) => true,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(Error::io("create", path, error)),
            };
            if !path.symlink_metadata().is_ok_and(|found| found.is_dir()) && !made {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("{}: expected a folder of ours or nothing, found a file", path.display()),
                ));
            }
            match lock(path)? {
                Locked::Mine(lock) | Locked::Unsupported(lock) => {
                    return Ok((Self { path: path.to_owned(), keep: false, _lock: lock }, !made));
                }
                Locked::Held => {
                    return Err(Error::new(
                        ErrorKind::InUse,
                        format!("another process is {purpose}: it holds {}", path.display()),
                    )
                    .with_hint("wait for it to finish"));
                }
                Locked::Gone => {}
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("cannot keep {}: another process removes it", path.display()),
        ))
    }

    /// Returns the folder's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Says whether the folder stays when this goes, for what is in it is still needed.
    pub(crate) fn keep(&mut self, keep: bool) {
        self.keep = keep;
    }

    /// Removes what is in the folder.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub(crate) fn empty(&self) -> Result<()> {
        let failed = |error| Error::io("empty", &self.path, error);
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            if is_folder { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
                .map_err(failed)?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // What cannot be removed now is swept by the next one.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes what dead processes left in `folder`: folders named `.<name>.<16 hex>.<suffix>` whose lock is free.
pub(crate) fn sweep(folder: &Path, suffix: &str) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if is_staging(&entry.file_name(), suffix)
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(Locked::Mine(_lock)) = lock(&path)
            && std::fs::remove_dir_all(&path).is_ok()
        {
            tracing::info!(path = %path.display(), "removed what a dead process left");
        }
    }
}

fn is_staging(name: &OsStr, suffix: &str) -> bool {
    let Some(name) = name.as_bytes().strip_suffix(suffix.as_bytes()) else { return false };
    let Some(name) = name.strip_suffix(b".") else { return false };
    name.len() > 18
        && name[0] == b'.'
        && name[name.len() - 17] == b'.'
        && name[name.len() - 16..].iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_removes_what_nobody_holds_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("snap.db");
        let held = Staging::beside(&target, "into").unwrap();
        let dead = folder.path().join(".snap.db.0123456789abcdef.into");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join("copy.db"), b"torn").unwrap();
        let others = [
            ".snap.db.0123456789abcdef.tmp",
            "snap.db.0123456789abcdef.into",
            ".x.into",
            ".snap.db.0123456789abcdeg.into",
        ];
        for name in others {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        sweep(folder.path(), "into");
        assert!(held.path().exists() && !dead.exists());
        assert!(others.iter().all(|name| folder.path().join(name).exists()));
        let path = held.path().to_owned();
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn a_fixed_folder_has_one_holder_and_is_taken_over_from_the_dead() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".app.db.attestore-restore");
        let (first, taken_over) = Staging::fixed(&path, "restoring").unwrap();
        assert!(!taken_over);
        assert_eq!(Staging::fixed(&path, "restoring").unwrap_err().kind(), ErrorKind::InUse);
        drop(first);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("left"), b"x").unwrap();
        let (second, taken_over) = Staging::fixed(&path, "restoring").unwrap();
        assert!(taken_over && second.path().join("left").exists());
    }
}
