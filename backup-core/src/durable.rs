//! Makes files and directories durable: exclusive creation, fsync of files and of directories, renames that
//! never replace.
//!
//! The repository, key files and exports write through here; nothing else in the crate creates or renames.
//! Rules: a file is created with `O_CREAT | O_EXCL | O_NOFOLLOW`, so an existing name (a dangling symbolic
//! link too) is never written through; a file exists for good once it *and* the directory that names it are
//! synced (PITFALLS 21: a power cut loses a renamed entry whose directory was not synced).
//!
//! When the process dies: a [`DurableFile`] that was not finished stays under the name it was created with,
//! so callers create under a staging name; [`Durable::replace`] leaves at most a `.NAME.<16 hex>.tmp`.
//! When a [`DurableFile`] is dropped unfinished, its file is removed.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self as rfs, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};

use crate::error::{Error, ErrorKind, Result};

/// The mode of private files, in octal.
pub const PRIVATE_FILE: u32 = 0o600;
/// The mode of private directories, in octal.
pub const PRIVATE_DIR: u32 = 0o700;

/// One step that changed the file system or made it durable; what an observer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A file or directory was created.
    Created(PathBuf),
    /// A file's bytes were synced.
    FileSynced(PathBuf),
    /// A directory's entries were synced.
    DirSynced(PathBuf),
    /// All files and directories of a tree were synced.
    TreeSynced(PathBuf),
    /// An entry was renamed, from and to.
    Renamed(PathBuf, PathBuf),
    /// A file or tree was removed.
    Removed(PathBuf),
}

/// Is told every [`Event`] after it happened, in order.
pub type Observer = dyn Fn(&Event) + Send + Sync;

/// Creates, syncs, renames and removes; clones share the observer.
#[derive(Clone, Default)]
pub struct Durable {
    observer: Option<Arc<Observer>>,
}

impl fmt::Debug for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durable").field("observed", &self.observer.is_some()).finish()
    }
}

impl Durable {
    /// Makes one without an observer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells `observer` every step, so that a test can count the syncs and see their order.
    #[must_use]
    pub fn with_observer(observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self { observer: Some(Arc::new(observer)) }
    }

    fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(observer) = &self.observer {
            observer(&event());
        }
    }

    /// Creates a file that must not exist, with `mode` (octal permission bits).
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, by a dangling symbolic link too; `NotFound` when the directory
    /// does not exist; `Permission`, `NoSpace`.
    pub fn create_new(&self, path: impl AsRef<Path>, mode: u32) -> Result<DurableFile> {
        let path = path.as_ref();
        let (parent, name) = split(path)?;
        let dir = open_dir(&parent)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rfs::openat(&dir, &name, flags, Mode::from_raw_mode(mode))
            .map_err(|error| Error::io("create", path, error.into()))?;
        self.tell(|| Event::Created(path.to_owned()));
        Ok(DurableFile {
            file: Some(File::from(fd)),
            dir,
            name,
            path: path.to_owned(),
            durable: self.clone(),
        })
    }

    /// Creates a file that must not exist, with these bytes, and syncs it and its directory.
    ///
    /// # Errors
    /// As [`Durable::create_new`]; on any failure the file is gone again.
    pub fn write_new(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<()> {
        let path = path.as_ref();
        let mut file = self.create_new(path, mode)?;
        file.write_all(bytes).map_err(|error| Error::io("write", path, error))?;
        file.finish_and_sync_dir()
    }

    /// Replaces a file's content in one step: a reader sees the old bytes or the new, also after a power cut.
    ///
    /// # Errors
    /// When the file cannot be written beside the old one; the old one is then as it was.
    pub fn replace(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<()> {
        let path = path.as_ref();
        let staging = staging_name(path, "tmp")?;
        let mut file = self.create_new(&staging, mode)?;
        file.write_all(bytes).map_err(|error| Error::io("write", path, error))?;
        file.sync()?;
        rfs::renameat(CWD, &staging, CWD, path)
            .map_err(|error| Error::io("rename", &staging, error.into()))?;
        file.disarm();
        self.tell(|| Event::Renamed(staging.clone(), path.to_owned()));
        self.sync_dir(parent_of(path))
    }

    /// Creates one directory that must not exist, with `mode`, and syncs its parent.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound`, `Permission`, `NoSpace`.
    pub fn create_dir(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let path = path.as_ref();
        rfs::mkdirat(CWD, path, Mode::from_raw_mode(mode))
            .map_err(|error| Error::io("create", path, error.into()))?;
        self.tell(|| Event::Created(path.to_owned()));
        self.sync_dir(parent_of(path))
    }

    /// Syncs a directory's entries.
    ///
    /// # Errors
    /// When it cannot be opened or synced.
    pub fn sync_dir(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let dir = open_dir(path)?;
        rfs::fsync(&dir).map_err(|error| Error::io("sync", path, error.into()))?;
        self.tell(|| Event::DirSynced(path.to_owned()));
        Ok(())
    }

    /// Syncs every directory under `root` and `root` itself, deepest first; symbolic links are not followed.
    ///
    /// # Errors
    /// When one cannot be read or synced.
    pub fn sync_dirs(&self, root: impl AsRef<Path>) -> Result<()> {
        let root = root.as_ref();
        for entry in read_dir(root)? {
            let kind = entry.file_type().map_err(|error| Error::io("read", entry.path(), error))?;
            if kind.is_dir() {
                self.sync_dirs(entry.path())?;
            }
        }
        self.sync_dir(root)
    }

    /// Syncs every file and directory under `root` and `root` itself: on Linux by one call that flushes the
    /// whole file system, which for many small files is far less work than one call each.
    ///
    /// # Errors
    /// When the system cannot write them.
    pub fn sync_tree(&self, root: impl AsRef<Path>) -> Result<()> {
        let root = root.as_ref();
        #[cfg(any(target_os = "linux", target_os = "android"))]
        rfs::syncfs(open_dir(root)?).map_err(|error| Error::io("sync", root, error.into()))?;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        sync_each(root)?;
        self.tell(|| Event::TreeSynced(root.to_owned()));
        Ok(())
    }

    /// Syncs an open file's bytes.
    ///
    /// # Errors
    /// When the system cannot write them; they must then be taken for lost.
    pub fn sync_file(&self, file: &File, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        file.sync_all().map_err(|error| Error::io("sync", path, error))?;
        self.tell(|| Event::FileSynced(path.to_owned()));
        Ok(())
    }

    /// Renames within one file system onto a name that must be free, then syncs the directories of both names.
    ///
    /// Where the file system has no `RENAME_NOREPLACE`, a file is linked and unlinked, and a directory takes
    /// the place of an empty one that this call created, so that the guarantee is the same.
    ///
    /// # Errors
    /// `AlreadyExists` when `to` is taken; `InvalidInput` when the two are on different file systems.
    pub fn rename_noreplace(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        rename_exclusive(from, to).map_err(|error| rename_error(from, to, error))?;
        self.tell(|| Event::Renamed(from.to_owned(), to.to_owned()));
        self.sync_dir(parent_of(to))?;
        if parent_of(from) != parent_of(to) {
            self.sync_dir(parent_of(from))?;
        }
        Ok(())
    }

    /// Removes a file, or a symbolic link itself, and syncs its directory.
    ///
    /// # Errors
    /// `NotFound`, `Permission`.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        rfs::unlinkat(CWD, path, AtFlags::empty())
            .map_err(|error| Error::io("remove", path, error.into()))?;
        self.tell(|| Event::Removed(path.to_owned()));
        self.sync_dir(parent_of(path))
    }

    /// Removes a directory with all that is in it, and syncs its parent. Links inside are removed, never
    /// followed; a `path` that is itself a link is refused.
    ///
    /// # Errors
    /// `NotFound`, `Permission`; `InvalidName` when `path` is not a directory.
    pub fn remove_tree(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let stat = rfs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| Error::io("remove", path, error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let message =
                format!("cannot remove {}: expected a directory, found another file", path.display());
            return Err(Error::new(ErrorKind::InvalidName, message));
        }
        std::fs::remove_dir_all(path).map_err(|error| Error::io("remove", path, error))?;
        self.tell(|| Event::Removed(path.to_owned()));
        self.sync_dir(parent_of(path))
    }
}

/// A file that was created exclusively and is not yet durable.
///
/// Dropped before [`DurableFile::finish`], it is removed again. Its `Write` names the path in every error.
#[derive(Debug)]
pub struct DurableFile {
    /// Present until the file is finished.
    file: Option<File>,
    dir: OwnedFd,
    name: OsString,
    path: PathBuf,
    durable: Durable,
}

impl DurableFile {
    /// Returns the path that it was created under.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the bytes written so far.
    ///
    /// # Errors
    /// When the system cannot write them.
    pub fn sync(&self) -> Result<()> {
        match &self.file {
            Some(file) => self.durable.sync_file(file, &self.path),
            None => Ok(()),
        }
    }

    /// Syncs the file and keeps it. The directory is the caller's to sync, once for all files in it.
    ///
    /// # Errors
    /// When the system cannot write the bytes; the file is then removed.
    pub fn finish(mut self) -> Result<()> {
        self.sync()?;
        self.disarm();
        Ok(())
    }

    /// Syncs the file and its directory and keeps it.
    ///
    /// # Errors
    /// When the system cannot write; the file is then removed.
    pub fn finish_and_sync_dir(mut self) -> Result<()> {
        self.sync()?;
        self.durable.sync_dir(parent_of(&self.path))?;
        self.disarm();
        Ok(())
    }

    /// Syncs the file, gives it a name that must be free in the same directory, and syncs the directory.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken; what the system says. The file is then removed, unless only the
    /// last step failed: it then has its name, but a power cut may take it.
    pub fn finish_renamed(mut self, to: impl AsRef<Path>) -> Result<()> {
        self.sync()?;
        self.durable.rename_noreplace(&self.path, to)?;
        self.disarm();
        Ok(())
    }

    /// Closes without removing.
    fn disarm(&mut self) {
        self.file = None;
    }

    fn name_error(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::Interrupted {
            return error;
        }
        Error::io("write", &self.path, error).into()
    }
}

impl Write for DurableFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::BrokenPipe.into()) };
        file.write(buf).map_err(|error| self.name_error(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for DurableFile {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        // Removed only while the name still stands for this file.
        let named = rfs::statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if let (Ok(own), Ok(named)) = (rfs::fstat(&file), named)
            && (own.st_dev, own.st_ino) == (named.st_dev, named.st_ino)
            && rfs::unlinkat(&self.dir, &self.name, AtFlags::empty()).is_ok()
        {
            self.durable.tell(|| Event::Removed(self.path.clone()));
        }
    }
}

/// Opens a regular file for reading; a symbolic link in the last place, a device or a pipe is refused.
///
/// # Errors
/// `NotFound`, `Permission`; `InvalidName` when it is not a regular file.
pub fn open_read(path: impl AsRef<Path>) -> Result<File> {
    let path = path.as_ref();
    let other = |found: &str| {
        let message = format!("{}: expected a regular file, found {found}", path.display());
        Error::new(ErrorKind::InvalidName, message)
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match rfs::openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::LOOP) => return Err(other("a symbolic link")),
        Err(error) => return Err(Error::io("open", path, error.into())),
    };
    let stat = rfs::fstat(&fd).map_err(|error| Error::io("read", path, error.into()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(File::from(fd)),
        FileType::Directory => Err(other("a directory")),
        _ => Err(other("a device, pipe or socket")),
    }
}

/// Returns the bytes that this user may still write in the file system of `path`.
///
/// # Errors
/// When `path` does not exist or its file system does not answer.
pub fn free_space(path: impl AsRef<Path>) -> Result<u64> {
    let path = path.as_ref();
    let stat = rfs::statvfs(path).map_err(|error| Error::io("read the free space of", path, error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Returns the directory that names `path`; `.` for a bare name.
#[must_use]
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Returns `.NAME.<16 hex>.SUFFIX` in the same directory: a name for what is not finished.
///
/// # Errors
/// `InvalidName` when `path` has no file name; `Unavailable` when the system gives no random bytes.
pub fn staging_name(path: &Path, suffix: &str) -> Result<PathBuf> {
    let (parent, name) = split(path)?;
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|error| {
        Error::new(ErrorKind::Unavailable, "the system gives no random bytes").with_source(error)
    })?;
    let mut staging = OsString::from(".");
    staging.push(&name);
    staging.push(format!(".{}.{suffix}", hex::encode(random)));
    Ok(parent.join(staging))
}

fn split(path: &Path) -> Result<(PathBuf, OsString)> {
    let name = path.file_name().ok_or_else(|| {
        Error::new(ErrorKind::InvalidName, format!("{:?} does not name a file", path.display().to_string()))
    })?;
    Ok((parent_of(path).to_owned(), name.to_owned()))
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rfs::openat(CWD, path, flags, Mode::empty()).map_err(|error| Error::io("open", path, error.into()))
}

fn read_dir(path: &Path) -> Result<Vec<std::fs::DirEntry>> {
    let entries = std::fs::read_dir(path).map_err(|error| Error::io("read", path, error))?;
    entries.collect::<io::Result<_>>().map_err(|error| Error::io("read", path, error))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn sync_each(root: &Path) -> Result<()> {
    for entry in read_dir(root)? {
        let (path, kind) = (entry.path(), entry.file_type());
        let kind = kind.map_err(|error| Error::io("read", &path, error))?;
        if kind.is_dir() {
            sync_each(&path)?;
        } else if kind.is_file() {
            open_read(&path)?.sync_all().map_err(|error| Error::io("sync", &path, error))?;
        }
    }
    rfs::fsync(open_dir(root)?).map_err(|error| Error::io("sync", root, error.into()))
}

fn rename_exclusive(from: &Path, to: &Path) -> rustix::io::Result<()> {
    use rustix::io::Errno;
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    match rfs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        result => return result,
    }
    rename_by_link(from, to)
}

/// The same guarantee on a file system that cannot rename exclusively (NFS, some FUSE).
fn rename_by_link(from: &Path, to: &Path) -> rustix::io::Result<()> {
    let stat = rfs::statat(CWD, from, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        rfs::mkdirat(CWD, to, Mode::from_raw_mode(PRIVATE_DIR))?;
        // rename(2) replaces an empty directory in one step and fails on one that has got an entry.
        return rfs::renameat(CWD, from, CWD, to).inspect_err(|_| {
            let _ = rfs::unlinkat(CWD, to, AtFlags::REMOVEDIR);
        });
    }
    rfs::linkat(CWD, from, CWD, to, AtFlags::empty())?;
    rfs::unlinkat(CWD, from, AtFlags::empty())
}

fn rename_error(from: &Path, to: &Path, error: rustix::io::Errno) -> Error {
    use rustix::io::Errno;
    match error {
        Errno::EXIST | Errno::NOTEMPTY => {
            let message = format!("cannot rename {} to {}: that name is taken", from.display(), to.display());
            Error::new(ErrorKind::AlreadyExists, message)
        }
        Errno::XDEV => {
            let message =
                format!("cannot rename {} to {}: they are on two file systems", from.display(), to.display());
            Error::new(ErrorKind::InvalidInput, message)
        }
        other => Error::io("rename", from, other.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::Mutex;

    use super::*;

    /// A `Durable` and what it was seen to do, with paths relative to the test's directory.
    fn observed() -> (Durable, Arc<Mutex<Vec<Event>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        (Durable::with_observer(move |event| log.lock().unwrap().push(event.clone())), seen)
    }

    #[test]
    fn a_new_file_is_synced_before_the_directory_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let (durable, seen) = observed();
        let path = dir.path().join("a");
        durable.write_new(&path, b"bytes", PRIVATE_FILE).unwrap();
        assert_eq!(
            *seen.lock().unwrap(),
            [
                Event::Created(path.clone()),
                Event::FileSynced(path.clone()),
                Event::DirSynced(dir.path().to_owned())
            ]
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"bytes");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, PRIVATE_FILE);
    }

    #[test]
    fn create_new_refuses_what_exists_and_a_dangling_link() {
        let dir = tempfile::tempdir().unwrap();
        let durable = Durable::new();
        let taken = dir.path().join("taken");
        std::fs::write(&taken, b"old").unwrap();
        assert_eq!(durable.create_new(&taken, 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&taken).unwrap(), b"old");

        let link = dir.path().join("link");
        symlink(dir.path().join("elsewhere"), &link).unwrap();
        assert_eq!(durable.write_new(&link, b"x", 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn a_file_dropped_unfinished_is_removed_but_not_what_took_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let durable = Durable::new();
        let path = dir.path().join("a");
        let mut file = durable.create_new(&path, 0o600).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert!(!path.exists());

        let file = durable.create_new(&path, 0o600).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"someone else's").unwrap();
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"someone else's");
    }

    #[test]
    fn replace_renames_a_synced_file_then_syncs_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (durable, seen) = observed();
        let path = dir.path().join("state");
        std::fs::write(&path, b"old").unwrap();
        durable.replace(&path, b"new", 0o644).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(
            matches!(
                seen.lock().unwrap().as_slice(),
                [Event::Created(a), Event::FileSynced(b), Event::Renamed(c, d), Event::DirSynced(_)]
                if a == b && b == c && *d == path
            ),
            "{seen:?}"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn rename_never_replaces_and_syncs_both_directories() {
        let dir = tempfile::tempdir().unwrap();
        let (durable, seen) = observed();
        let (from, to) = (dir.path().join("staging/x"), dir.path().join("final/x"));
        for made in [&from, &to] {
            std::fs::create_dir(made.parent().unwrap()).unwrap();
        }
        std::fs::create_dir(&from).unwrap();
        std::fs::write(from.join("f"), b"1").unwrap();
        durable.rename_noreplace(&from, &to).unwrap();
        assert_eq!(
            *seen.lock().unwrap(),
            [
                Event::Renamed(from.clone(), to.clone()),
                Event::DirSynced(dir.path().join("final")),
                Event::DirSynced(dir.path().join("staging"))
            ]
        );
        // An empty directory in the way is what rename(2) would replace.
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        let error = durable.rename_noreplace(&to, dir.path().join("empty")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(to.join("f").exists());
    }

    #[test]
    fn the_fallback_rename_is_exclusive_for_files_and_directories() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("a"), b"a").unwrap();
        std::fs::write(at("b"), b"b").unwrap();
        assert!(rename_by_link(&at("a"), &at("b")).is_err());
        assert_eq!(std::fs::read(at("b")).unwrap(), b"b");
        rename_by_link(&at("a"), &at("c")).unwrap();
        assert!(!at("a").exists() && at("c").exists());

        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/f"), b"f").unwrap();
        std::fs::create_dir(at("e")).unwrap();
        assert!(rename_by_link(&at("d"), &at("e")).is_err());
        assert!(at("e").exists(), "a directory that was there is never removed");
        rename_by_link(&at("d"), &at("g")).unwrap();
        assert!(at("g/f").exists() && !at("d").exists());
    }

    #[test]
    fn remove_tree_does_not_follow_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("keep")).unwrap();
        std::fs::write(at("keep/f"), b"f").unwrap();
        std::fs::create_dir(at("tree")).unwrap();
        symlink(at("keep"), at("tree/link")).unwrap();
        symlink(at("keep"), at("link")).unwrap();
        let durable = Durable::new();
        assert_eq!(durable.remove_tree(at("link")).unwrap_err().kind(), ErrorKind::InvalidName);
        durable.remove_tree(at("tree")).unwrap();
        assert!(at("keep/f").exists() && !at("tree").exists());
    }

    #[test]
    fn sync_dirs_goes_deepest_first() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink("/", dir.path().join("a/link")).unwrap();
        let (durable, seen) = observed();
        durable.sync_dirs(dir.path()).unwrap();
        let synced =
            ["a/b", "a", ""].map(|name| Event::DirSynced(dir.path().join(name).components().collect()));
        assert_eq!(*seen.lock().unwrap(), synced);
    }

    #[test]
    fn open_read_refuses_links_directories_and_pipes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("f"), b"f").unwrap();
        symlink(at("f"), at("link")).unwrap();
        rfs::mknodat(CWD, at("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        for name in ["link", "pipe", "."] {
            assert_eq!(open_read(at(name)).unwrap_err().kind(), ErrorKind::InvalidName, "{name}");
        }
        assert_eq!(open_read(at("none")).unwrap_err().kind(), ErrorKind::NotFound);
        open_read(at("f")).unwrap();
    }

    #[test]
    fn free_space_is_told_in_bytes() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_space(dir.path()).unwrap() > 4096);
        assert_eq!(free_space(dir.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
