//! Puts a files asset back: extracts the tar stream that `files` wrote into a new folder.
//!
//! Restores and drills call it with the opened object. The archive is not trusted beyond its bytes: what
//! `files` never writes is refused, whoever signed it. Refused are absolute names, `..` and `.` in names,
//! names with NUL, a name that stands twice or under something that is not a folder, hard links, devices,
//! pipes, sparse files, pax headers, setuid, setgid and sticky bits, links that leave the tree (an option
//! skips or keeps them), an archive that is cut or goes on behind its end.
//!
//! Nothing is written through a link: every name is created exclusively, relative to its open folder, and
//! links are made after all files. Until then an empty file holds a link's place.
//!
//! All is extracted into `.NAME.<16 hex>.partial` beside the target, synced, then renamed to the target, which
//! must not exist. When the process dies before that, the target does not exist and the partial folder stays.
//! Owners are not set; the entries' modes and times are.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{self as rfs, AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use tar::{Archive, EntryType, Header};

use crate::context::{Context, Progress};
use crate::durable::{self, Durable, PRIVATE_DIR};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{MAX_DEPTH, stays_inside};

/// The longest name or link target, in bytes.
const NAME_MAX: usize = 4096;
/// Bytes handled at once.
const BUFFER: usize = 256 * 1024;
const PROGRESS_STEP: u64 = 4 << 20;

/// What happens to symbolic links whose target is not in the archive's own tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OutsideLinks {
    /// The extraction fails.
    #[default]
    Refuse,
    /// They are left out and listed.
    Skip,
    /// They are made like the others: for an archive whose maker is trusted.
    Keep,
}

/// How an asset is extracted.
#[derive(Debug, Clone, Default)]
pub struct ExtractOptions {
    /// What happens to links that leave the tree.
    pub outside_links: OutsideLinks,
    /// The most bytes that all files together may have.
    pub max_bytes: Option<u64>,
    /// The most entries.
    pub max_entries: Option<u64>,
}

/// What was extracted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Regular files.
    pub files: u64,
    /// Folders, the asset's own too where the archive holds it.
    pub folders: u64,
    /// Symbolic links.
    pub links: u64,
    /// The bytes of all files.
    pub size_bytes: u64,
    /// Links that were left out, with their targets.
    pub skipped_links: Vec<String>,
}

/// Extracts a tar stream into `target`, a folder that must not exist. `object` is the stream's name in errors.
///
/// The stream is read to its end, so that a reader that checks digests has checked them before the target exists.
///
/// # Errors
/// `AlreadyExists` when the target does; `InvalidName` for names and links that are refused; `Unsupported` for
/// entries that no asset holds; `Corrupt` when the archive is damaged or cut; `NoSpace`; what the stream says.
/// The target does not exist then.
pub fn extract(
    object: &str,
    tar: impl Read,
    target: impl AsRef<Path>,
    options: &ExtractOptions,
    durable: &Durable,
    ctx: &Context,
) -> Result<Extracted> {
    let target = target.as_ref();
    if target.symlink_metadata().is_ok() {
        let message = format!("{} exists; an asset is extracted into a new folder", target.display());
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    ctx.check()?;
    let staging = Staging::create(durable::staging_name(target, "partial")?, durable)?;
    let mut tree = Tree {
        object,
        root: open_folder(CWD, staging.path.as_os_str().as_bytes(), &staging.path)?,
        path: &staging.path,
        open: Vec::new(),
        folders: Vec::new(),
        links: Vec::new(),
        done: Extracted::default(),
        buffer: vec![0; BUFFER],
        told: 0,
        options,
        ctx,
    };
    tree.read(tar)?;
    tree.make_links()?;
    tree.set_folders()?;
    let done = tree.done;
    durable.sync_tree(&staging.path)?;
    durable.rename_noreplace(&staging.path, target)?;
    staging.keep();
    Ok(done)
}

/// The folder that becomes the target; removed when it is dropped before.
struct Staging {
    path: PathBuf,
    kept: bool,
}

impl Staging {
    fn create(path: PathBuf, durable: &Durable) -> Result<Self> {
        durable.create_dir(&path, PRIVATE_DIR)?;
        Ok(Self { path, kept: false })
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.kept {
            make_writable(&self.path);
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Gives folders that the archive made unwritable their bits back, so that they can be removed.
fn make_writable(folder: &Path) {
    let _ = rfs::chmod(folder, Mode::from_raw_mode(PRIVATE_DIR));
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

/// Marks the stream's own failures, so that they are not taken for damage of the archive.
struct Input<'a, R> {
    stream: R,
    object: &'a str,
}

impl<R: Read> Read for Input<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => Error::io("read", self.object, error).into(),
        })
    }
}

/// The parts of a name, each a plain file name.
type Name = Vec<Vec<u8>>;

struct Folder {
    name: Name,
    mode: u32,
    seconds: i64,
}

struct Link {
    name: Name,
    target: Vec<u8>,
    seconds: i64,
}

/// The tree as far as it is extracted.
struct Tree<'a> {
    object: &'a str,
    root: OwnedFd,
    path: &'a Path,
    /// The folders that lead to the last entry, kept open.
    open: Vec<(Vec<u8>, OwnedFd)>,
    /// Modes and times to set once nothing is created any more.
    folders: Vec<Folder>,
    links: Vec<Link>,
    done: Extracted,
    buffer: Vec<u8>,
    told: u64,
    options: &'a ExtractOptions,
    ctx: &'a Context,
}

impl Tree<'_> {
    fn read(&mut self, stream: impl Read) -> Result<()> {
        let mut archive = Archive::new(Input { stream, object: self.object });
        let mut entries = 0_u64;
        let (mut long_name, mut long_target) = (None, None);
        // Raw: long names are put together here, with a bound on their size.
        for entry in archive.entries().map_err(|error| self.damaged(error))?.raw(true) {
            self.ctx.check()?;
            let mut entry = entry.map_err(|error| self.damaged(error))?;
            let header = entry.header().clone();
            let size = header.entry_size().map_err(|error| self.damaged(error))?;
            match header.entry_type() {
                EntryType::GNULongName if long_name.is_none() => {
                    long_name = Some(self.long(&mut entry, size)?);
                    continue;
                }
                EntryType::GNULongLink if long_target.is_none() => {
                    long_target = Some(self.long(&mut entry, size)?);
                    continue;
                }
                _ => {}
            }
            entries += 1;
            if self.options.max_entries.is_some_and(|most| entries > most) {
                return Err(self
                    .refuse(ErrorKind::Unsupported, format!("it holds more than {} entries", entries - 1)));
            }
            let (name, target) = (long_name.take(), long_target.take());
            self.entry(&header, name, target, size, &mut entry)?;
        }
        if long_name.is_some() || long_target.is_some() {
            return Err(
                self.refuse(ErrorKind::Corrupt, "it ends behind a long name without its entry".into())
            );
        }
        self.check_end(archive.into_inner())
    }

    /// Reads the rest of the stream: the end is two blocks of zeros, of which the first is read, and zeros.
    fn check_end(&mut self, mut input: impl Read) -> Result<()> {
        let mut zeros = 0_u64;
        loop {
            self.ctx.check()?;
            match input.read(&mut self.buffer) {
                Ok(0) if zeros < 512 => {
                    return Err(self.refuse(ErrorKind::Corrupt, "it is cut short: it has no end mark".into()));
                }
                Ok(0) => return Ok(()),
                Ok(got) if self.buffer[..got].iter().any(|byte| *byte != 0) => {
                    return Err(self.refuse(ErrorKind::Corrupt, "other bytes follow its end".into()));
                }
                Ok(got) => zeros += got as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.damaged(error)),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        long_name: Option<Vec<u8>>,
        long_target: Option<Vec<u8>>,
        size: u64,
        data: &mut impl Read,
    ) -> Result<()> {
        let spelt = match long_name {
            Some(name) => name,
            None => self.short_name(header)?,
        };
        let shown = String::from_utf8_lossy(&spelt).into_owned();
        let kind = header.entry_type();
        let held = match kind {
            EntryType::Regular | EntryType::Directory | EntryType::Symlink => None,
            EntryType::Link => Some("a hard link"),
            EntryType::Char | EntryType::Block => Some("a device"),
            EntryType::Fifo => Some("a pipe"),
            EntryType::GNUSparse => Some("a sparse file"),
            EntryType::XHeader | EntryType::XGlobalHeader => Some("a pax header"),
            EntryType::GNULongName | EntryType::GNULongLink => Some("a second long name for one entry"),
            _ => Some("an unknown kind of entry"),
        };
        if let Some(held) = held {
            let message = format!("{shown:?} is {held}, which no asset holds");
            return Err(self.refuse(ErrorKind::Unsupported, message));
        }
        let mode = header.mode().map_err(|error| self.damaged(error))?;
        if mode > 0o777 {
            let message =
                format!("{shown:?} has mode {mode:04o}: setuid, setgid and sticky bits are refused");
            return Err(self.refuse(ErrorKind::Unsupported, message));
        }
        let seconds = header.mtime().map_err(|error| self.damaged(error))?;
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        if kind != EntryType::Regular && size != 0 {
            let message = format!("{shown:?} has {size} bytes of data and is no file");
            return Err(self.refuse(ErrorKind::Corrupt, message));
        }
        if kind == EntryType::Directory && spelt == b"./" {
            return self.own_folder(mode, seconds);
        }
        let name = self.check_name(&spelt, kind == EntryType::Directory)?;
        match kind {
            EntryType::Directory => self.folder(name, mode, seconds),
            EntryType::Symlink => {
                let target = match long_target {
                    Some(target) => target,
                    None => self.field(&header.as_old().linkname, "link target")?,
                };
                self.link(name, target, seconds)
            }
            _ => self.file(&name, mode, seconds, size, data),
        }
    }

    /// The archive's own folder may only come first.
    fn own_folder(&mut self, mode: u32, seconds: i64) -> Result<()> {
        if self.done != Extracted::default() || !self.links.is_empty() {
            return Err(
                self.refuse(ErrorKind::InvalidName, "\"./\" stands twice or behind other entries".into())
            );
        }
        self.folders.push(Folder { name: Vec::new(), mode, seconds });
        self.done.folders += 1;
        Ok(())
    }

    fn folder(&mut self, name: Name, mode: u32, seconds: i64) -> Result<()> {
        let path = self.full(&name);
        let (parent, last) = self.parent(&name)?;
        rfs::mkdirat(parent, last, Mode::from_raw_mode(PRIVATE_DIR))
            .map_err(|error| self.created(&name, &path, error))?;
        self.folders.push(Folder { name, mode, seconds });
        self.done.folders += 1;
        Ok(())
    }

    fn link(&mut self, name: Name, target: Vec<u8>, seconds: i64) -> Result<()> {
        if target.is_empty() {
            return Err(
                self.refuse(ErrorKind::InvalidName, format!("{:?} is a link to nothing", show(&name)))
            );
        }
        if !stays_inside(name.len() - 1, &target) && self.options.outside_links != OutsideLinks::Keep {
            let shown = format!("{:?} -> {:?}", show(&name), String::from_utf8_lossy(&target));
            if self.options.outside_links == OutsideLinks::Skip {
                self.done.skipped_links.push(shown);
                return Ok(());
            }
            let message = format!("the link {shown} leaves the folder");
            return Err(self.refuse(ErrorKind::InvalidName, message).with_hint(
                "skip links that leave the folder, or keep them when you trust whoever made the backup",
            ));
        }
        drop(self.create(&name, 0)?);
        self.links.push(Link { name, target, seconds });
        self.done.links += 1;
        Ok(())
    }

    fn file(&mut self, name: &Name, mode: u32, seconds: i64, size: u64, data: &mut impl Read) -> Result<()> {
        let total = self.done.size_bytes.saturating_add(size);
        if let Some(most) = self.options.max_bytes.filter(|most| total > *most) {
            return Err(self.refuse(ErrorKind::Unsupported, format!("its files have more than {most} bytes")));
        }
        let path = self.full(name);
        let mut file = File::from(self.create(name, 0o600)?);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut left = size;
        while left > 0 {
            self.ctx.check()?;
            match data.read(&mut buffer) {
                Ok(0) => {
                    let message = format!(
                        "{:?} is cut short: expected {size} bytes, found {}",
                        show(name),
                        size - left
                    );
                    return Err(self.refuse(ErrorKind::Corrupt, message));
                }
                Ok(got) => {
                    file.write_all(&buffer[..got]).map_err(|error| Error::io("write", &path, error))?;
                    left = left.saturating_sub(got as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.damaged(error)),
            }
        }
        self.buffer = buffer;
        rfs::fchmod(&file, Mode::from_raw_mode(mode))
            .and_then(|()| rfs::futimens(&file, &times(seconds)))
            .map_err(|error| Error::io("set mode and time of", &path, error.into()))?;
        self.done.files += 1;
        self.done.size_bytes = total;
        if total >= self.told + PROGRESS_STEP {
            self.told = total;
            let (object, done) = (self.object, total);
            self.ctx.progress(Progress { stage: "restore", object, done, total: None, unit: "bytes" });
        }
        Ok(())
    }

    /// Creates a file that must not exist, in a folder that must.
    fn create(&mut self, name: &Name, mode: u32) -> Result<OwnedFd> {
        let path = self.full(name);
        let (parent, last) = self.parent(name)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rfs::openat(parent, last, flags, Mode::from_raw_mode(mode))
            .map_err(|error| self.created(name, &path, error))
    }

    /// Opens the folder that an entry stands in, one name at a time and never through a link.
    fn parent<'n>(&mut self, name: &'n Name) -> Result<(&OwnedFd, &'n [u8])> {
        let (last, parents) = name.split_last().ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("{}: an entry without a name", self.object))
        })?;
        let same = self.open.iter().zip(parents).take_while(|((open, _), part)| open == *part).count();
        self.open.truncate(same);
        for (depth, part) in parents.iter().enumerate().skip(same) {
            let above = self.open.last().map_or(&self.root, |(_, fd)| fd);
            let opened = match open_at(above, part) {
                Ok(opened) => opened,
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                    let message = format!(
                        "{:?} stands in {:?}, which is no folder of the archive before it",
                        show(name),
                        show(&parents[..=depth])
                    );
                    return Err(self.refuse(ErrorKind::InvalidName, message));
                }
                Err(error) => return Err(Error::io("open", self.full(&parents[..=depth]), error.into())),
            };
            self.open.push((part.clone(), opened));
        }
        Ok((self.open.last().map_or(&self.root, |(_, fd)| fd), last))
    }

    fn make_links(&mut self) -> Result<()> {
        for link in std::mem::take(&mut self.links) {
            self.ctx.check()?;
            let path = self.full(&link.name);
            let (parent, last) = self.parent(&link.name)?;
            rfs::unlinkat(parent, last, AtFlags::empty())
                .and_then(|()| rfs::symlinkat(link.target.as_slice(), parent, last))
                .and_then(|()| rfs::utimensat(parent, last, &times(link.seconds), AtFlags::SYMLINK_NOFOLLOW))
                .map_err(|error| Error::io("create", &path, error.into()))?;
        }
        Ok(())
    }

    /// Sets modes and times of folders, what is inside before what holds it.
    fn set_folders(&mut self) -> Result<()> {
        self.open.clear();
        for folder in std::mem::take(&mut self.folders).into_iter().rev() {
            let path = self.full(&folder.name);
            let opened;
            let fd = if folder.name.is_empty() {
                &self.root
            } else {
                let (parent, last) = self.parent(&folder.name)?;
                opened = open_folder(parent.as_fd(), last, &path)?;
                &opened
            };
            rfs::fchmod(fd, Mode::from_raw_mode(folder.mode))
                .and_then(|()| rfs::futimens(fd, &times(folder.seconds)))
                .map_err(|error| Error::io("set mode and time of", &path, error.into()))?;
        }
        Ok(())
    }

    /// Reads a long name: its bytes and one NUL.
    fn long(&self, data: &mut impl Read, size: u64) -> Result<Vec<u8>> {
        if size > NAME_MAX as u64 + 1 {
            let message = format!("a name of {size} bytes, at most {NAME_MAX} are taken");
            return Err(self.refuse(ErrorKind::InvalidName, message));
        }
        let mut name = Vec::new();
        data.take(NAME_MAX as u64 + 2).read_to_end(&mut name).map_err(|error| self.damaged(error))?;
        if name.len() as u64 != size {
            return Err(self.refuse(ErrorKind::Corrupt, "it is cut short in a long name".into()));
        }
        match name.pop() {
            Some(0) if !name.contains(&0) => Ok(name),
            _ => Err(self
                .refuse(ErrorKind::InvalidName, "a long name holds a NUL or does not end with one".into())),
        }
    }

    /// The name in the header itself, with ustar's prefix.
    fn short_name(&self, header: &Header) -> Result<Vec<u8>> {
        let name = self.field(&header.as_old().name, "name")?;
        match (header.as_gnu(), header.as_ustar()) {
            (Some(_), _) => Ok(name),
            (None, Some(ustar)) => {
                let prefix = self.field(&ustar.prefix, "name")?;
                Ok(if prefix.is_empty() { name } else { [&prefix, b"/".as_slice(), &name].concat() })
            }
            (None, None) => {
                Err(self
                    .refuse(ErrorKind::Unsupported, "an entry is neither of GNU nor of ustar format".into()))
            }
        }
    }

    /// Cuts a header field at its first NUL; what follows must be NUL too, or a name could hide in it.
    fn field(&self, field: &[u8], what: &str) -> Result<Vec<u8>> {
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        if field[end..].iter().any(|byte| *byte != 0) {
            return Err(self.refuse(ErrorKind::InvalidName, format!("a {what} holds a NUL")));
        }
        Ok(field[..end].to_vec())
    }

    fn check_name(&self, spelt: &[u8], folder: bool) -> Result<Name> {
        let bad = |why: &str| {
            let message = format!("{:?} {why}", String::from_utf8_lossy(spelt));
            self.refuse(ErrorKind::InvalidName, message)
        };
        let plain = if folder { spelt.strip_suffix(b"/").unwrap_or(spelt) } else { spelt };
        if plain.is_empty() {
            return Err(bad("is no name"));
        }
        if plain.starts_with(b"/") {
            return Err(bad("is an absolute name"));
        }
        if plain.len() > NAME_MAX {
            return Err(bad("is too long a name"));
        }
        let name: Name = plain.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        if name.len() > MAX_DEPTH + 1 {
            return Err(bad("is nested too deep"));
        }
        match name.iter().find(|part| matches!(part.as_slice(), b"" | b"." | b"..") || part.contains(&0)) {
            Some(part) => Err(bad(&format!(
                "has the part {:?}, which could leave the folder",
                String::from_utf8_lossy(part)
            ))),
            None => Ok(name),
        }
    }

    fn full(&self, name: &[Vec<u8>]) -> PathBuf {
        name.iter().fold(self.path.to_owned(), |path, part| path.join(OsStr::from_bytes(part)))
    }

    fn created(&self, name: &Name, path: &Path, error: rustix::io::Errno) -> Error {
        match error {
            rustix::io::Errno::EXIST => {
                self.refuse(ErrorKind::InvalidName, format!("{:?} stands twice in it", show(name)))
            }
            other => Error::io("create", path, other.into()),
        }
    }

    fn refuse(&self, kind: ErrorKind, why: String) -> Error {
        Error::new(kind, format!("{}: the archive is refused: {why}", self.object))
    }

    /// The stream's own failure, or else the tar reader's verdict.
    fn damaged(&self, error: io::Error) -> Error {
        error.downcast::<Error>().unwrap_or_else(|error| {
            Error::new(ErrorKind::Corrupt, format!("{}: the archive is damaged: {error}", self.object))
        })
    }
}

fn open_at(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rfs::openat(parent, name, flags, Mode::empty())
}

fn open_folder(parent: impl std::os::fd::AsFd, name: &[u8], path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rfs::openat(parent, name, flags, Mode::empty()).map_err(|error| Error::io("open", path, error.into()))
}

/// The time of last access is left as it is.
fn times(seconds: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    }
}

fn show(name: &[Vec<u8>]) -> String {
    String::from_utf8_lossy(&name.join(&b'/')).into_owned()
}
