//! Files and folders as assets: one deterministic tar stream per asset. `extract` puts it back.
//!
//! [`FilesSource`] is a [`Snapshot`]: the engine calls it like a database; it writes `files/<name>.tar`.
//!
//! ```text
//! GNU tar format; entries in the order of their bytes within a folder, a folder before what is in it
//! ./                  a folder asset's own mode and time; a single file has only its own entry
//! NAME, NAME/         relative names, bytes as the file system has them; over 100 bytes as GNU `L` entries
//! kept                mode (0777), time of modification (seconds), numeric owner and group, link targets as they are
//! not kept            hard links (each name is a file of its own), extended attributes, ACLs, setuid, setgid
//!                     and sticky bits; devices, sockets and pipes are left out and listed in `not_included`
//! ```
//! The same tree gives the same bytes. Links are never followed (except the asset's own path), a file is
//! opened relative to its open folder. A file that changes while it is read is an error that names it; one of
//! at most 8 MiB is read once more first. There is no snapshot of a folder: files are as of when each is read.
//!
//! A live SQLite database is refused: a copy by plain file calls would be torn, and closing it would drop the
//! locks that this process holds on it (PITFALLS 12). It is a source of its own, or excluded.
//! Nothing is written but into the sink; when the process dies, the sink decides what is left.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{self as rfs, AtFlags, CWD, FileType, Mode, OFlags};
use tar::{EntryType, Header};

use crate::context::{Context, Progress};
use crate::error::{Error, ErrorKind, Result};
use crate::names;
use crate::traits::{ChainRequest, Sinks, Snapshot, SnapshotOutcome, SourceFacts, SourceName};

/// The deepest nesting of folders that is stored.
pub const MAX_DEPTH: usize = 256;
/// Files up to this size, in bytes, are read a second time when they change during the first.
pub const RETRY_MAX: u64 = 8 << 20;

const BLOCK: usize = 512;
/// Bytes handled at once.
const BUFFER: usize = 256 * 1024;
const PROGRESS_STEP: u64 = 4 << 20;
/// Endings of files that SQLite keeps beside an open database.
const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Extensions under which databases are kept.
const DATABASES: [&str; 6] = ["db", "db3", "sqlite", "sqlite3", "s3db", "sl3"];

const BESIDE: &str = "its -wal, -shm or -journal file stands beside it";

/// A file or folder to back up.
#[derive(Debug, Clone, Default)]
pub struct FilesSource {
    /// The asset's name: its object is `files/<name>.tar`.
    pub name: String,
    /// The file or folder. When it is a symbolic link, what it points to.
    pub path: PathBuf,
    /// Paths inside that are left out, with all that is in them; of a database its `-wal`, `-shm` and
    /// `-journal` too. Databases that are sources of their own and the repository belong here.
    pub exclude: Vec<PathBuf>,
}

impl FilesSource {
    /// Makes a source that leaves nothing out.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), exclude: Vec::new() }
    }

    /// Writes the tar stream of the asset.
    ///
    /// # Errors
    /// `NotFound`, `Permission`; `InUse` when a file changed while it was read or is a live SQLite database;
    /// what `out` says; `Cancelled`.
    pub fn write_tar(&self, out: impl Write, ctx: &Context) -> Result<Stored> {
        let metadata = self.check_root()?;
        let root = self.path.canonicalize().map_err(|error| Error::io("read", &self.path, error))?;
        let mut walk = Walk {
            tar: tar::Builder::new(out),
            source: self,
            root,
            exclude: self.excluded(),
            open_here: files_open_in_this_process(),
            stored: Stored::default(),
            buffer: Vec::new(),
            told: 0,
            ctx,
        };
        if metadata.is_dir() {
            walk.folder(open_root(&self.path)?, Path::new(""), 0)?;
        } else {
            let name = self.path.file_name().unwrap_or(OsStr::new("file"));
            walk.file(&|| open_root(&self.path), open_root(&self.path)?, Path::new(name))?;
        }
        walk.tar.into_inner().map_err(|error| Error::io("write", &self.path, error))?;
        Ok(walk.stored)
    }

    /// The excluded paths with their folders resolved, so that they compare with what the walk meets.
    fn excluded(&self) -> BTreeSet<PathBuf> {
        let mut excluded = BTreeSet::new();
        for path in &self.exclude {
            let resolved = path.canonicalize().ok();
            let spelt = path.parent().and_then(|parent| parent.canonicalize().ok());
            let spelt = spelt.zip(path.file_name()).map(|(parent, name)| parent.join(name));
            for path in resolved.into_iter().chain(spelt) {
                for sidecar in SIDECARS {
                    let mut beside = path.clone().into_os_string();
                    beside.push(sidecar);
                    excluded.insert(PathBuf::from(beside));
                }
                excluded.insert(path);
            }
        }
        excluded
    }
}

/// What a tar stream holds and what it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Regular files.
    pub files: u64,
    /// Folders, the asset's own too.
    pub folders: u64,
    /// Symbolic links.
    pub links: u64,
    /// The bytes of all files.
    pub size_bytes: u64,
    /// Symbolic links that point outside the asset: stored, but refused or skipped when put back.
    pub links_outside: u64,
    /// What was left out, one sentence each.
    pub skipped: Vec<String>,
}

impl Snapshot for FilesSource {
    fn describe(&self) -> SourceName {
        SourceName {
            kind: "files".into(),
            name: self.name.clone(),
            location: self.path.display().to_string(),
        }
    }

    fn preflight(&self, ctx: &Context) -> Result<()> {
        ctx.check()?;
        names::validate_object_name(&self.object())?;
        if self.check_root()?.is_dir() {
            let failed = |error| Error::io("read", &self.path, error);
            return std::fs::read_dir(&self.path)
                .map_err(failed)?
                .try_for_each(|entry| entry.map(drop).map_err(failed));
        }
        open_root(&self.path).map(drop)
    }

    fn snapshot(&self, chains: &[ChainRequest], sinks: &dyn Sinks, ctx: &Context) -> Result<SnapshotOutcome> {
        if !chains.is_empty() {
            let message = format!("{}: a folder of files holds no chain that could be verified", self.name);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let instant = Timestamp::now();
        let mut sink = sinks.object(&self.object(), None)?;
        let stored = self.write_tar(&mut sink, ctx)?;
        sink.finish()?;
        let details = [
            ("files", stored.files),
            ("folders", stored.folders),
            ("links", stored.links),
            ("links_outside", stored.links_outside),
        ];
        let facts = SourceFacts {
            kind: "files".into(),
            name: self.name.clone(),
            location: self.path.display().to_string(),
            engine: "tar (GNU format)".into(),
            instant,
            size_bytes: stored.size_bytes,
            tables: BTreeMap::new(),
            migrations: None,
            details: details.map(|(name, count)| (name.to_owned(), count.to_string())).into(),
            not_included: stored.skipped,
        };
        Ok(SnapshotOutcome { facts, chains: Vec::new() })
    }
}

impl FilesSource {
    fn object(&self) -> String {
        format!("files/{}.tar", self.name)
    }

    /// Looks at what the path names without opening it: opening a live database would already do harm.
    fn check_root(&self) -> Result<std::fs::Metadata> {
        let metadata = std::fs::metadata(&self.path).map_err(|error| Error::io("read", &self.path, error))?;
        if metadata.is_file() {
            let beside = SIDECARS.iter().any(|sidecar| {
                let mut path = self.path.clone().into_os_string();
                path.push(sidecar);
                Path::new(&path).exists()
            });
            if beside {
                return Err(live_database(&self.path, BESIDE));
            }
            refuse_live_database(&self.path, &files_open_in_this_process())?;
        } else if !metadata.is_dir() {
            let message =
                format!("{}: expected a file or folder, found a device, pipe or socket", self.path.display());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(metadata)
    }
}

/// Opens what the asset's path names, following links there only. Does not wait for a pipe's other end.
fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rfs::openat(CWD, path, flags, Mode::empty()).map_err(|error| Error::io("open", path, error.into()))
}

/// Device and inode of every file that this process has open, where the system tells.
fn files_open_in_this_process() -> BTreeSet<(u64, u64)> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return BTreeSet::new() };
    let metadata = entries.filter_map(|entry| std::fs::metadata(entry.ok()?.path()).ok());
    metadata.filter(std::fs::Metadata::is_file).map(|file| (file.dev(), file.ino())).collect()
}

/// Refuses a database that this process has open, before it is opened by plain file calls.
fn refuse_live_database(path: &Path, open_here: &BTreeSet<(u64, u64)>) -> Result<()> {
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    if !extension.is_some_and(|extension| DATABASES.contains(&extension.as_str())) {
        return Ok(());
    }
    let metadata = std::fs::metadata(path).map_err(|error| Error::io("read", path, error))?;
    if open_here.contains(&(metadata.dev(), metadata.ino())) {
        return Err(live_database(path, "this process has it open"));
    }
    Ok(())
}

/// One pass over an asset.
struct Walk<'a, W: Write> {
    tar: tar::Builder<W>,
    source: &'a FilesSource,
    /// The asset's path with links resolved, to compare with `exclude`.
    root: PathBuf,
    exclude: BTreeSet<PathBuf>,
    open_here: BTreeSet<(u64, u64)>,
    stored: Stored,
    buffer: Vec<u8>,
    told: u64,
    ctx: &'a Context,
}

/// What must stay the same while a file is read.
#[derive(PartialEq, Eq)]
struct Version {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    fn of(file: &File, path: &Path) -> Result<(Self, std::fs::Metadata)> {
        let metadata = file.metadata().map_err(|error| Error::io("read", path, error))?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Ok((Self { size: metadata.size(), modified, changed }, metadata))
    }
}

impl<W: Write> Walk<'_, W> {
    fn path(&self, name: &Path) -> PathBuf {
        if name.as_os_str().is_empty() { self.source.path.clone() } else { self.source.path.join(name) }
    }

    fn folder(&mut self, folder: OwnedFd, name: &Path, depth: usize) -> Result<()> {
        self.ctx.check()?;
        let path = self.path(name);
        if depth > MAX_DEPTH {
            let message = format!("{}: nested deeper than {MAX_DEPTH} folders", path.display());
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let failed = |error: rustix::io::Errno| Error::io("read", &path, error.into());
        let folder = File::from(folder);
        let metadata = folder.metadata().map_err(|error| Error::io("read", &path, error))?;
        let mut spelt =
            if name.as_os_str().is_empty() { b".".to_vec() } else { name.as_os_str().as_bytes().to_vec() };
        spelt.push(b'/');
        self.entry(EntryType::Directory, &spelt, &Attributes::of(&metadata), b"", 0)?;
        self.stored.folders += 1;
        self.note_special_bits(metadata.mode(), name);

        let mut children = Vec::new();
        for child in rfs::Dir::read_from(&folder).map_err(failed)? {
            let child = child.map_err(failed)?;
            let child = child.file_name().to_bytes();
            if child != b"." && child != b".." {
                children.push(child.to_vec());
            }
        }
        children.sort_unstable();
        let live: BTreeSet<&[u8]> = databases_with_sidecars(&children);
        for child in &children {
            let name = name.join(OsStr::from_bytes(child));
            let path = self.path(&name);
            if !self.exclude.is_empty() && self.exclude.contains(&self.root.join(&name)) {
                self.stored.skipped.push(format!("{}: excluded", name.display()));
                continue;
            }
            let stat = match rfs::statat(&folder, child.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Removed since the folder was listed: not there.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(Error::io("read", &path, error.into())),
            };
            let open = |flags| {
                let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rfs::openat(folder.as_fd(), child.as_slice(), flags, Mode::empty())
                    .map_err(|error| Error::io("open", &path, error.into()))
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.folder(open(OFlags::DIRECTORY)?, &name, depth + 1)?,
                FileType::RegularFile => {
                    if live.contains(child.as_slice()) {
                        return Err(live_database(&path, BESIDE));
                    }
                    refuse_live_database(&path, &self.open_here)?;
                    let open = || open(OFlags::NONBLOCK);
                    self.file(&open, open()?, &name)?;
                }
                FileType::Symlink => {
                    let target = rfs::readlinkat(&folder, child.as_slice(), Vec::new())
                        .map_err(|error| Error::io("read", &path, error.into()))?;
                    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
                    let attributes =
                        Attributes { mode: 0o777, seconds, owner: stat.st_uid, group: stat.st_gid };
                    self.entry(
                        EntryType::Symlink,
                        name.as_os_str().as_bytes(),
                        &attributes,
                        target.to_bytes(),
                        0,
                    )?;
                    self.stored.links += 1;
                    if !stays_inside(depth, target.to_bytes()) {
                        self.stored.links_outside += 1;
                    }
                }
                other => {
                    let kind = match other {
                        FileType::Fifo => "a pipe",
                        FileType::Socket => "a socket",
                        _ => "a device",
                    };
                    self.stored.skipped.push(format!("{}: {kind}", name.display()));
                }
            }
        }
        Ok(())
    }

    /// Stores one file; `reopen` opens it again for a second try.
    fn file(&mut self, reopen: &dyn Fn() -> Result<OwnedFd>, opened: OwnedFd, name: &Path) -> Result<()> {
        self.ctx.check()?;
        let path = self.path_of_file(name);
        let mut file = File::from(opened);
        let (mut version, mut metadata) = Version::of(&file, &path)?;
        if !metadata.is_file() {
            return Err(changed(&path, "it is no longer a file"));
        }
        if version.size <= RETRY_MAX {
            let mut content = std::mem::take(&mut self.buffer);
            let mut whole = read_whole(&mut file, &version, &mut content, &path)?;
            if !whole {
                file = File::from(reopen()?);
                (version, metadata) = Version::of(&file, &path)?;
                whole = version.size <= RETRY_MAX && read_whole(&mut file, &version, &mut content, &path)?;
            }
            if !whole {
                return Err(changed(&path, "twice"));
            }
            self.file_header(name, &metadata)?;
            self.write(&content)?;
            self.buffer = content;
        } else {
            self.file_header(name, &metadata)?;
            self.stream(&mut file, version.size, &path)?;
            let (now, _) = Version::of(&file, &path)?;
            if now != version {
                return Err(changed(&path, &format!("from {} to {} bytes", version.size, now.size)));
            }
        }
        write_padding(self.tar.get_mut(), version.size)
            .map_err(|error| Error::io("write", &self.source.path, error))?;
        self.stored.files += 1;
        self.stored.size_bytes += version.size;
        self.note_special_bits(metadata.mode(), name);
        self.tell(name);
        Ok(())
    }

    /// The full path of a file for errors: a single-file asset is its own path.
    fn path_of_file(&self, name: &Path) -> PathBuf {
        if self.stored.folders == 0 { self.source.path.clone() } else { self.path(name) }
    }

    fn file_header(&mut self, name: &Path, metadata: &std::fs::Metadata) -> Result<()> {
        let attributes = Attributes::of(metadata);
        self.entry(EntryType::Regular, name.as_os_str().as_bytes(), &attributes, b"", metadata.size())
    }

    fn stream(&mut self, file: &mut File, size: u64, path: &Path) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(BUFFER, 0);
        let mut left = size;
        while left > 0 {
            self.ctx.check()?;
            let room = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            match file.read(&mut buffer[..room]) {
                Ok(0) => return Err(changed(path, &format!("from {size} to {} bytes", size - left))),
                Ok(got) => {
                    self.write(&buffer[..got])?;
                    left -= got as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", path, error)),
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    fn entry(
        &mut self,
        kind: EntryType,
        name: &[u8],
        attributes: &Attributes,
        target: &[u8],
        size: u64,
    ) -> Result<()> {
        write_header(self.tar.get_mut(), kind, name, attributes, target, size)
            .map_err(|error| Error::io("write", &self.source.path, error))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.tar.get_mut().write_all(bytes).map_err(|error| Error::io("write", &self.source.path, error))
    }

    fn note_special_bits(&mut self, mode: u32, name: &Path) {
        if mode & 0o7000 != 0 {
            let name = if name.as_os_str().is_empty() { Cow::from(".") } else { name.to_string_lossy() };
            self.stored.skipped.push(format!("{name}: its setuid, setgid or sticky bit"));
        }
    }

    fn tell(&mut self, name: &Path) {
        if self.stored.size_bytes >= self.told + PROGRESS_STEP {
            self.told = self.stored.size_bytes;
            let object = name.to_string_lossy();
            let (done, total) = (self.told, None);
            self.ctx.progress(Progress { stage: "snapshot", object: &object, done, total, unit: "bytes" });
        }
    }
}

/// What an entry's header says besides names and size.
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) seconds: u64,
    pub(crate) owner: u32,
    pub(crate) group: u32,
}

impl Attributes {
    fn of(metadata: &std::fs::Metadata) -> Self {
        // Times before 1970 have no place in the header.
        let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
        Self { mode: metadata.mode(), seconds, owner: metadata.uid(), group: metadata.gid() }
    }
}

/// Writes an entry's header; names and targets that do not fit stand before it as GNU `L` and `K` entries.
pub(crate) fn write_header(
    out: &mut impl Write,
    kind: EntryType,
    name: &[u8],
    attributes: &Attributes,
    target: &[u8],
    size: u64,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    let fields = header.as_old_mut();
    let (name_room, link_room) = (fields.name.len(), fields.linkname.len());
    fields.name[..name.len().min(name_room)].copy_from_slice(&name[..name.len().min(name_room)]);
    fields.linkname[..target.len().min(link_room)].copy_from_slice(&target[..target.len().min(link_room)]);
    header.set_entry_type(kind);
    header.set_mode(attributes.mode & 0o777);
    header.set_uid(attributes.owner.into());
    header.set_gid(attributes.group.into());
    header.set_mtime(attributes.seconds);
    header.set_size(size);
    header.set_cksum();
    for (long, room, kind) in [(name, name_room, b'L'), (target, link_room, b'K')] {
        if long.len() > room {
            let mut extension = Header::new_gnu();
            extension.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
            extension.set_entry_type(EntryType::new(kind));
            extension.set_mode(0o644);
            extension.set_uid(0);
            extension.set_gid(0);
            extension.set_mtime(0);
            extension.set_size(long.len() as u64 + 1);
            extension.set_cksum();
            let mut data = long.to_vec();
            data.resize((long.len() + 1).next_multiple_of(BLOCK), 0);
            out.write_all(extension.as_bytes())?;
            out.write_all(&data)?;
        }
    }
    out.write_all(header.as_bytes())
}

/// Fills an entry's data up to a whole block.
pub(crate) fn write_padding(out: &mut impl Write, size: u64) -> io::Result<()> {
    let padding = size.next_multiple_of(BLOCK as u64) - size;
    out.write_all(&[0; BLOCK][..usize::try_from(padding).unwrap_or(0)])
}

/// Reads a small file; false when it is not what it was when it was opened.
fn read_whole(file: &mut File, version: &Version, content: &mut Vec<u8>, path: &Path) -> Result<bool> {
    content.clear();
    // One byte more than expected shows growth.
    let read = file.take(version.size + 1).read_to_end(content);
    read.map_err(|error| Error::io("read", path, error))?;
    let (now, _) = Version::of(file, path)?;
    Ok(content.len() as u64 == version.size && now == *version)
}

fn changed(path: &Path, how: &str) -> Error {
    Error::new(ErrorKind::InUse, format!("{}: changed while it was read: {how}", path.display()))
        .with_hint("stop what writes it, back up a copy, or leave it out")
}

fn live_database(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::InUse, format!("{} is a live SQLite database: {why}", path.display()))
        .with_hint("back it up as a source of its own and leave it out of the folder")
}

/// The names among `children` beside which SQLite keeps its files.
fn databases_with_sidecars(children: &[Vec<u8>]) -> BTreeSet<&[u8]> {
    let all: BTreeSet<&[u8]> = children.iter().map(Vec::as_slice).collect();
    let stems =
        all.iter().flat_map(|name| SIDECARS.iter().filter_map(|end| name.strip_suffix(end.as_bytes())));
    stems.filter(|stem| all.contains(stem)).collect()
}

/// Reports whether a link in a folder `depth` levels below the asset's own stays inside the asset.
///
/// `..` counts only at the target's start: behind a name, which may itself be a link, it proves nothing.
pub(crate) fn stays_inside(depth: usize, target: &[u8]) -> bool {
    if target.is_empty() || target.starts_with(b"/") || target.contains(&0) {
        return false;
    }
    let mut up = 0;
    let mut named = false;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if named => return false,
            b".." => up += 1,
            _ => named = true,
        }
    }
    up <= depth
}
