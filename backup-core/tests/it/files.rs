//! Files and folders as assets: round trips, what is refused on the way in, hostile archives on the way out.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use backup_core::context::{Cancel, Context};
use backup_core::durable::{Durable, Event};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::extract::{ExtractOptions, Extracted, OutsideLinks, extract};
use backup_core::files::{FilesSource, MAX_DEPTH, RETRY_MAX};
use backup_core::traits::{ObjectSink, Sinks, Snapshot as _};

use crate::support::{run, tools};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

fn tar_of(path: &Path) -> Result<Vec<u8>> {
    let mut tar = Vec::new();
    FilesSource::new("asset", path).write_tar(&mut tar, &Context::new())?;
    Ok(tar)
}

fn untar(tar: &[u8], target: &Path) -> Result<Extracted> {
    untar_with(tar, target, &ExtractOptions::default())
}

fn untar_with(tar: &[u8], target: &Path, options: &ExtractOptions) -> Result<Extracted> {
    extract("files/asset.tar", tar, target, options, &Durable::new(), &Context::new())
}

/// Everything that is kept of a tree, one line an entry.
fn listing(root: &Path) -> Vec<String> {
    fn walk(root: &Path, path: &Path, lines: &mut Vec<String>) {
        let metadata = fs::symlink_metadata(path).unwrap();
        let name = path.strip_prefix(root).unwrap().display();
        let (mode, time) = (metadata.mode() & 0o777, metadata.mtime());
        if metadata.is_symlink() {
            lines.push(format!("{name} -> {} {time}", fs::read_link(path).unwrap().display()));
        } else if metadata.is_dir() {
            lines.push(format!("{name}/ {mode:o} {time}"));
            let mut children: Vec<_> =
                fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            children.sort();
            children.iter().for_each(|child| walk(root, child, lines));
        } else {
            lines.push(format!("{name} {mode:o} {time} {:?}", fs::read(path).unwrap()));
        }
    }
    let mut lines = Vec::new();
    walk(root, root, &mut lines);
    lines
}

fn set(path: &Path, mode: u32, seconds: i64) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let file = fs::File::open(path).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.try_into().unwrap());
    file.set_modified(time).unwrap();
}

/// A folder with everything that an asset may hold.
fn sample(place: &Place) -> PathBuf {
    let root = place.at("root");
    place.file("root/a.txt", b"alpha");
    place.file("root/empty", b"");
    place.file("root/sub/deep/b", &vec![7; 100_000]);
    place.file(&format!("root/{}/{}", "long".repeat(40), "name".repeat(40)), b"long");
    place.file("root/caf\u{e9} \u{1f600}\nnew line", b"odd");
    fs::create_dir(root.join("hollow")).unwrap();
    symlink("../a.txt", root.join("sub/link")).unwrap();
    symlink("nothing", root.join("dangling")).unwrap();
    symlink("x/".repeat(80), root.join("far")).unwrap();
    fs::hard_link(root.join("a.txt"), root.join("same")).unwrap();
    set(&root.join("a.txt"), 0o640, 1_000_000_000);
    set(&root.join("sub/deep/b"), 0o755, 1_234_567_890);
    set(&root.join("sub/deep"), 0o500, 1_111_111_111);
    set(&root.join("hollow"), 0o700, 0);
    set(&root.join("sub"), 0o750, 1_222_222_222);
    set(&root, 0o711, 1_333_333_333);
    root
}

#[test]
fn a_folder_comes_back_as_it_was() {
    let place = Place::new();
    let root = sample(&place);
    let tar = tar_of(&root).unwrap();
    let done = untar(&tar, &place.at("back")).unwrap();
    assert_eq!((done.files, done.folders, done.links), (6, 5, 3));
    // Times of links: the sample's are now, kept in seconds like the others.
    assert_eq!(listing(&place.at("back")), listing(&root));
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 2);
}

#[test]
fn the_same_tree_gives_the_same_bytes_in_sorted_order() {
    let place = Place::new();
    let root = sample(&place);
    let tar = tar_of(&root).unwrap();
    assert_eq!(tar, tar_of(&root).unwrap());
    let names: Vec<_> = tar::Archive::new(tar.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().into_owned())
        .collect();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(names, sorted);
    assert!(names.iter().all(|name| name.is_relative()));
}

#[test]
fn a_single_file_is_an_asset_of_one_entry() {
    let place = Place::new();
    let path = place.file("app.env", b"KEY=value\n");
    set(&path, 0o600, 1_000_000_000);
    let tar = tar_of(&path).unwrap();
    let done = untar(&tar, &place.at("back")).unwrap();
    assert_eq!((done.files, done.folders, done.size_bytes), (1, 0, 10));
    assert_eq!(listing(&place.at("back/app.env")), listing(&path));
    assert_eq!(fs::metadata(place.at("back")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_path_that_is_a_link_is_followed_but_links_inside_are_not() {
    let place = Place::new();
    place.file("release/app", b"1");
    place.file("outside/secret", b"s");
    symlink(place.at("outside"), place.at("release/out")).unwrap();
    symlink("release", place.at("current")).unwrap();
    let mut tar = Vec::new();
    let stored = FilesSource::new("a", place.at("current")).write_tar(&mut tar, &Context::new()).unwrap();
    assert_eq!((stored.files, stored.links, stored.links_outside), (1, 1, 1));
    assert!(!tar.windows(6).any(|bytes| bytes == b"secret"));
}

#[test]
fn pipes_sockets_and_special_bits_are_listed_as_left_out() {
    let place = Place::new();
    let root = sample(&place);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    fs::set_permissions(root.join("a.txt"), PermissionsExt::from_mode(0o4755)).unwrap();
    let mut tar = Vec::new();
    let stored = FilesSource::new("a", &root).write_tar(&mut tar, &Context::new()).unwrap();
    // `same` is a hard link to a.txt, so the bit is on both.
    assert_eq!(
        stored.skipped,
        [
            "a.txt: its setuid, setgid or sticky bit",
            "pipe: a pipe",
            "same: its setuid, setgid or sticky bit",
            "socket: a socket"
        ]
    );
    untar(&tar, &place.at("back")).unwrap();
    assert_eq!(fs::metadata(place.at("back/a.txt")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn excluded_paths_are_left_out_with_their_sidecars_and_listed() {
    let place = Place::new();
    let root = place.at("root");
    for name in ["keep", "app.db", "app.db-wal", "app.db-shm", "sub/skip/x"] {
        place.file(&format!("root/{name}"), b"x");
    }
    let exclude = vec![root.join("app.db"), root.join("sub/../sub/skip")];
    let source = FilesSource { name: "a".into(), path: root, exclude };
    let mut tar = Vec::new();
    let stored = source.write_tar(&mut tar, &Context::new()).unwrap();
    assert_eq!(stored.files, 1);
    let skipped = ["app.db", "app.db-shm", "app.db-wal", "sub/skip"].map(|name| format!("{name}: excluded"));
    assert_eq!(stored.skipped, skipped);
}

#[test]
fn a_live_sqlite_database_is_refused_before_it_is_opened() {
    let place = Place::new();
    place.file("root/app.data", b"SQLite format 3\0");
    for sidecar in ["-wal", "-shm", "-journal"] {
        let beside = place.file(&format!("root/app.data{sidecar}"), b"");
        for path in [place.at("root"), place.at("root/app.data")] {
            let error = tar_of(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InUse);
            assert!(error.to_string().contains("app.data") && error.hint().is_some(), "{error}");
        }
        fs::remove_file(beside).unwrap();
    }
    tar_of(&place.at("root")).unwrap();

    let database = place.file("root/open.sqlite3", b"SQLite format 3\0");
    let held = fs::File::open(&database).unwrap();
    for path in [place.at("root"), database.clone()] {
        assert_eq!(tar_of(&path).unwrap_err().kind(), ErrorKind::InUse);
    }
    drop(held);
    tar_of(&place.at("root")).unwrap();
}

/// Runs `change` once, when the first bytes of the file `name` come by.
struct OnceAt<F> {
    marker: &'static [u8],
    change: Option<F>,
}

impl<F: FnOnce()> Write for OnceAt<F> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.windows(self.marker.len()).any(|bytes| bytes == self.marker)
            && let Some(change) = self.change.take()
        {
            change();
        }
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_large_file_that_shrinks_or_grows_while_read_is_an_error_that_names_it() {
    for change in [10_u64, RETRY_MAX + (1 << 20), RETRY_MAX + (3 << 20)] {
        let place = Place::new();
        let path = place.file("root/log", b"start");
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(RETRY_MAX + (2 << 20)).unwrap();
        let out = OnceAt { marker: b"start", change: Some(|| file.set_len(change).unwrap()) };
        let error = FilesSource::new("a", place.at("root")).write_tar(out, &Context::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(error.to_string().contains("log"), "{error}");
    }
}

#[test]
fn a_file_removed_before_its_turn_is_not_there_and_one_that_cannot_be_read_is_an_error() {
    let place = Place::new();
    let gone = place.file("root/b", b"b");
    place.file("root/a", b"start");
    let out = OnceAt { marker: b"start", change: Some(|| fs::remove_file(&gone).unwrap()) };
    let stored = FilesSource::new("a", place.at("root")).write_tar(out, &Context::new()).unwrap();
    assert_eq!(stored.files, 1);
    assert_eq!(tar_of(&place.at("none")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(tar_of(Path::new("/dev/null")).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn too_deep_a_folder_is_refused_and_the_deepest_comes_back() {
    let place = Place::new();
    let deepest = place.at("root").join("d/".repeat(MAX_DEPTH));
    fs::create_dir_all(&deepest).unwrap();
    fs::write(deepest.join("f"), b"f").unwrap();
    untar(&tar_of(&place.at("root")).unwrap(), &place.at("back")).unwrap();
    assert_eq!(listing(&place.at("back")), listing(&place.at("root")));
    fs::create_dir(deepest.join("d")).unwrap();
    assert_eq!(tar_of(&place.at("root")).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn cancelling_stops_both_directions() {
    let place = Place::new();
    let tar = tar_of(&sample(&place)).unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let ctx = Context::new().with_cancel(cancel);
    let source = FilesSource::new("a", place.at("root"));
    assert!(matches!(source.write_tar(Vec::new(), &ctx), Err(Error::Cancelled)));
    let options = ExtractOptions::default();
    let result = extract("o", tar.as_slice(), place.at("back"), &options, &Durable::new(), &ctx);
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 1);
}

/// Collects objects in memory, as a repository would store them.
#[derive(Default)]
struct Memory(Mutex<Vec<(String, Vec<u8>)>>);

struct MemorySink<'a>(&'a Memory, String, Vec<u8>);

impl Sinks for Memory {
    fn object(&self, name: &str, _: Option<u64>) -> Result<Box<dyn ObjectSink + '_>> {
        Ok(Box::new(MemorySink(self, name.into(), Vec::new())))
    }
    fn scratch(&self) -> &Path {
        Path::new("/nonexistent")
    }
}

impl Write for MemorySink<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.2.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ObjectSink for MemorySink<'_> {
    fn finish(self: Box<Self>) -> Result<()> {
        self.0.0.lock().unwrap().push((self.1, self.2));
        Ok(())
    }
}

#[test]
fn a_files_source_is_a_snapshot() {
    let place = Place::new();
    let root = sample(&place);
    let source = FilesSource::new("uploads", &root);
    assert_eq!(source.describe().kind, "files");
    source.preflight(&Context::new()).unwrap();
    let sinks = Memory::default();
    let outcome = source.snapshot(&[], &sinks, &Context::new()).unwrap();
    assert_eq!(outcome.facts.size_bytes, 100_000 + 5 + 5 + 4 + 3);
    assert_eq!(outcome.facts.details["files"], "6");
    let objects = sinks.0.into_inner().unwrap();
    assert_eq!(objects.len(), 1);
    assert_eq!((objects[0].0.as_str(), &objects[0].1), ("files/uploads.tar", &tar_of(&root).unwrap()));

    for (name, path, kind) in [
        ("../x", root.clone(), ErrorKind::InvalidName),
        ("x", place.at("none"), ErrorKind::NotFound),
        ("x", "/dev/null".into(), ErrorKind::InvalidInput),
    ] {
        assert_eq!(FilesSource::new(name, path).preflight(&Context::new()).unwrap_err().kind(), kind);
    }
}

#[test]
fn extraction_is_synced_before_the_target_gets_its_name() {
    let place = Place::new();
    let tar = tar_of(&sample(&place)).unwrap();
    let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&seen);
    let durable = Durable::with_observer(move |event| log.lock().unwrap().push(event.clone()));
    let target = place.at("back");
    extract("o", tar.as_slice(), &target, &ExtractOptions::default(), &durable, &Context::new()).unwrap();
    let seen = seen.lock().unwrap();
    let [.., Event::TreeSynced(staging), Event::Renamed(from, to), Event::DirSynced(parent)] =
        seen.as_slice()
    else {
        panic!("{seen:?}");
    };
    assert_eq!((staging, to.as_path(), parent.as_path()), (from, target.as_path(), place.0.path()));
}

#[test]
fn stock_tar_reads_ours_and_we_read_plain_stock_archives() {
    if !tools("stock_tar_reads_ours_and_we_read_plain_stock_archives", &["tar"]) {
        return;
    }
    let place = Place::new();
    let root = sample(&place);
    fs::write(place.at("a.tar"), tar_of(&root).unwrap()).unwrap();
    fs::create_dir(place.at("stock")).unwrap();
    let text = |path: PathBuf| path.display().to_string();
    run("tar", &["-xpf", &text(place.at("a.tar")), "-C", &text(place.at("stock"))]);
    assert_eq!(listing(&place.at("stock")), listing(&root));

    // Of stock archives those are read that hold nothing else: GNU format, plain names, no hard links.
    let made = text(place.at("b.tar"));
    let root = text(root);
    let gnu = ["--format=gnu", "-cf", made.as_str(), "-C", root.as_str()];
    run("tar", &[&gnu[..], &["--hard-dereference", "a.txt", "same", "sub", "dangling"]].concat());
    let done = untar(&fs::read(&made).unwrap(), &place.at("back")).unwrap();
    assert_eq!((done.files, done.folders, done.links), (3, 2, 2));
    assert_eq!(listing(&place.at("back/sub")), listing(&place.at("root/sub")));
    run("tar", &[&gnu[..], &["a.txt", "same"]].concat());
    let error = untar(&fs::read(&made).unwrap(), &place.at("no")).unwrap_err();
    assert!(error.to_string().contains("hard link"), "{error}");
}

// Hostile archives, byte by byte.

/// A GNU header with its checksum.
fn header(name: &[u8], kind: u8, size: u64) -> [u8; 512] {
    let mut block = [0_u8; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar  \0");
    checksum(&mut block);
    block
}

fn checksum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn changed(mut block: [u8; 512], at: usize, bytes: &[u8]) -> Vec<u8> {
    block[at..at + bytes.len()].copy_from_slice(bytes);
    checksum(&mut block);
    block.to_vec()
}

fn data(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(512), 0);
    padded
}

fn file(name: &[u8], content: &[u8]) -> Vec<u8> {
    [header(name, b'0', content.len() as u64).to_vec(), data(content)].concat()
}

fn link(name: &[u8], kind: u8, target: &[u8]) -> Vec<u8> {
    changed(header(name, kind, 0), 157, target)
}

fn folder(name: &[u8]) -> Vec<u8> {
    changed(header(name, b'5', 0), 100, b"0000755\0")
}

fn long(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [header(b"././@LongLink", kind, bytes.len() as u64).to_vec(), data(bytes)].concat()
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

#[test]
fn the_hand_made_archive_without_malice_is_taken() {
    let place = Place::new();
    let tar = archive(&[
        folder(b"./"),
        file(b"a", b"alpha"),
        folder(b"d/"),
        file(b"d/b", &[1; 600]),
        link(b"d/l", b'2', b"../a"),
        long(b'L', &[&b"n".repeat(120)[..], b"\0"].concat()),
        file(&b"n".repeat(100), b"long"),
    ]);
    let done = untar(&tar, &place.at("back")).unwrap();
    assert_eq!((done.files, done.folders, done.links), (3, 2, 1));
    assert_eq!(fs::read(place.at("back").join("n".repeat(120))).unwrap(), b"long");
    assert_eq!(fs::read(place.at("back/d/l")).unwrap(), b"alpha");
    // Padded to a record, as stock tar does.
    untar(&[tar, vec![0; 8192]].concat(), &place.at("padded")).unwrap();
}

#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    let ustar = |prefix: &[u8], name: &[u8]| {
        let mut block = header(name, b'0', 0);
        block[257..265].copy_from_slice(b"ustar\x0000");
        changed(block, 345, prefix)
    };
    let base256 = |at: usize, bytes: &[u8]| changed(header(b"a", b'0', 0), at, bytes);
    let name = ErrorKind::InvalidName;
    let held = ErrorKind::Unsupported;
    let damage = ErrorKind::Corrupt;
    let cases: Vec<(&str, ErrorKind, Vec<Vec<u8>>)> = vec![
        ("absolute name", name, vec![file(b"/tmp/evil", b"x")]),
        ("absolute folder", name, vec![folder(b"/tmp/evil/")]),
        ("only a slash", name, vec![folder(b"/")]),
        ("parent", name, vec![file(b"../evil", b"x")]),
        ("parent inside", name, vec![folder(b"d/"), file(b"d/../../evil", b"x")]),
        ("parent as folder", name, vec![folder(b"../")]),
        ("parent as link", name, vec![link(b"..", b'2', b"x")]),
        ("dot inside", name, vec![file(b"./a", b"x")]),
        ("dot", name, vec![file(b".", b"")]),
        ("empty part", name, vec![folder(b"d/"), file(b"d//a", b"x")]),
        ("empty name", name, vec![file(b"", b"x")]),
        ("file with a slash", name, vec![file(b"a/", b"x")]),
        ("NUL in a name", name, vec![file(b"a\0/../../evil", b"x")]),
        ("NUL in a long name", name, vec![long(b'L', b"a\0b\0"), file(b"a", b"x")]),
        ("long name without NUL", name, vec![long(b'L', b"abc"), file(b"a", b"x")]),
        ("long name that leaves", name, vec![long(b'L', b"../evil\0"), file(b"a", b"x")]),
        ("long name too long", name, vec![long(b'L', &[b'a'; 5000]), file(b"a", b"x")]),
        ("two long names", held, vec![long(b'L', b"a\0"), long(b'L', b"b\0"), file(b"a", b"x")]),
        ("long name at the end", damage, vec![long(b'L', b"a\0")]),
        ("prefix that leaves", name, vec![ustar(b"..", b"evil")]),
        ("absolute prefix", name, vec![ustar(b"/tmp", b"evil")]),
        ("NUL in a prefix", name, vec![ustar(b"a\0b", b"c")]),
        ("absolute link", name, vec![link(b"l", b'2', b"/etc/passwd")]),
        ("link that leaves", name, vec![link(b"l", b'2', b"../x")]),
        ("deep link that leaves", name, vec![folder(b"d/"), link(b"d/l", b'2', b"../../x")]),
        ("link through a name", name, vec![folder(b"d/"), link(b"d/l", b'2', b"x/../../..")]),
        ("long link that leaves", name, vec![long(b'K', b"../x\0"), link(b"l", b'2', b"x")]),
        ("link to nothing", name, vec![link(b"l", b'2', b"")]),
        ("NUL in a target", name, vec![link(b"l", b'2', b"a\0b")]),
        ("file through a link", name, vec![link(b"l", b'2', b"d"), file(b"l/x", b"x")]),
        ("file over a link", name, vec![link(b"l", b'2', b"d"), file(b"l", b"x")]),
        ("link over a file", name, vec![file(b"l", b"x"), link(b"l", b'2', b"d")]),
        ("link over a folder", name, vec![folder(b"l/"), link(b"l", b'2', b"d")]),
        ("file in a file", name, vec![file(b"a", b"x"), file(b"a/b", b"x")]),
        ("file without its folder", name, vec![file(b"d/a", b"x")]),
        ("file twice", name, vec![file(b"a", b"x"), file(b"a", b"y")]),
        ("folder twice", name, vec![folder(b"d/"), folder(b"d/")]),
        ("own folder twice", name, vec![folder(b"./"), folder(b"./")]),
        ("own folder late", name, vec![file(b"a", b"x"), folder(b"./")]),
        ("hard link", held, vec![file(b"a", b"x"), link(b"h", b'1', b"a")]),
        ("hard link that leaves", held, vec![link(b"h", b'1', b"/etc/passwd")]),
        ("character device", held, vec![header(b"tty", b'3', 0).to_vec()]),
        ("block device", held, vec![header(b"sda", b'4', 0).to_vec()]),
        ("pipe", held, vec![header(b"p", b'6', 0).to_vec()]),
        ("continuous file", held, vec![header(b"c", b'7', 0).to_vec()]),
        ("sparse file", held, vec![header(b"s", b'S', 0).to_vec()]),
        ("pax header", held, vec![long(b'x', b"17 path=../evil\n"), file(b"a", b"x")]),
        ("global pax header", held, vec![long(b'g', b"17 path=../evil\n"), file(b"a", b"x")]),
        ("unknown kind", held, vec![header(b"a", b'Z', 0).to_vec()]),
        ("setuid", held, vec![changed(header(b"a", b'0', 0), 100, b"0004755\0")]),
        ("setgid folder", held, vec![changed(header(b"d/", b'5', 0), 100, b"0002755\0")]),
        ("sticky", held, vec![changed(header(b"a", b'0', 0), 100, b"0001644\0")]),
        ("neither GNU nor ustar", held, vec![changed(header(b"a", b'0', 0), 257, &[0; 8])]),
        ("folder with data", damage, vec![header(b"d/", b'5', 3).to_vec(), data(b"abc")]),
        ("link with data", damage, vec![changed(header(b"l", b'2', 3), 157, b"a"), data(b"abc")]),
        ("more bytes than the header says", damage, vec![header(b"a", b'0', 3).to_vec(), data(&[b'x'; 600])]),
        (
            "wrong checksum",
            damage,
            vec![{
                let mut block = header(b"a", b'0', 0);
                block[0] = b'b';
                block.to_vec()
            }],
        ),
        ("size that is no number", damage, vec![changed(header(b"a", b'0', 0), 124, b"zzzzzzzzzzz\0")]),
        (
            "huge size",
            damage,
            vec![base256(124, &[0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])],
        ),
    ];
    for (case, kind, entries) in cases {
        let place = Place::new();
        let error = untar(&archive(&entries), &place.at("back")).unwrap_err();
        assert_eq!(error.kind(), kind, "{case}: {error}");
        assert!(error.to_string().contains("files/asset.tar"), "{case}: {error}");
        assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 0, "{case} leaves something");
    }
    assert!(!Path::new("/tmp/evil").exists());
}

#[test]
fn an_archive_that_is_cut_or_goes_on_is_damage() {
    let place = Place::new();
    let tar = archive(&[file(b"a", &[7; 700]), file(b"b", b"x")]);
    for cut in 0..tar.len() {
        // Every multiple of 64 and all block borders.
        if cut % 64 == 0 {
            let error = untar(&tar[..cut], &place.at("back")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{cut}: {error}");
        }
    }
    let error = untar(&[tar.as_slice(), b"x"].concat(), &place.at("back")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let error = untar(&[tar.clone(), archive(&[file(b"c", b"x")])].concat(), &place.at("back")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 0);
    untar(&tar, &place.at("back")).unwrap();
}

#[test]
fn links_that_leave_the_tree_are_skipped_or_kept_on_request() {
    let tar = archive(&[link(b"in", b'2', b"a"), link(b"out", b'2', b"/etc/hostname"), file(b"a", b"x")]);
    let place = Place::new();
    let skip = ExtractOptions { outside_links: OutsideLinks::Skip, ..Default::default() };
    let done = untar_with(&tar, &place.at("skip"), &skip).unwrap();
    assert_eq!(done.skipped_links, ["\"out\" -> \"/etc/hostname\""]);
    assert!(place.at("skip/in").exists() && place.at("skip/out").symlink_metadata().is_err());
    let keep = ExtractOptions { outside_links: OutsideLinks::Keep, ..Default::default() };
    assert_eq!(untar_with(&tar, &place.at("keep"), &keep).unwrap().links, 2);
    assert_eq!(fs::read_link(place.at("keep/out")).unwrap(), Path::new("/etc/hostname"));
    // Kept links are still never written through.
    let through = archive(&[link(b"out", b'2', b"/tmp"), file(b"out/evil", b"x")]);
    assert_eq!(untar_with(&through, &place.at("no"), &keep).unwrap_err().kind(), ErrorKind::InvalidName);
}

#[test]
fn bounds_on_bytes_and_entries_hold() {
    let tar = archive(&[file(b"a", &[0; 600]), file(b"b", &[0; 400])]);
    let place = Place::new();
    let bytes = |max| ExtractOptions { max_bytes: Some(max), ..Default::default() };
    let entries = |max| ExtractOptions { max_entries: Some(max), ..Default::default() };
    assert_eq!(untar_with(&tar, &place.at("x"), &bytes(999)).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(untar_with(&tar, &place.at("x"), &entries(1)).unwrap_err().kind(), ErrorKind::Unsupported);
    untar_with(&tar, &place.at("a"), &bytes(1000)).unwrap();
    untar_with(&tar, &place.at("b"), &entries(2)).unwrap();
}

#[test]
fn an_existing_target_is_refused_whatever_it_is() {
    let place = Place::new();
    let tar = archive(&[file(b"a", b"x")]);
    fs::create_dir(place.at("empty")).unwrap();
    symlink("nowhere", place.at("dangling")).unwrap();
    for name in ["empty", "dangling"] {
        assert_eq!(untar(&tar, &place.at(name)).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 2);
}

#[test]
fn a_failing_stream_keeps_its_own_error_and_leaves_nothing() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(Error::new(ErrorKind::Tampered, "not what was signed").into())
        }
    }
    let tar = archive(&[folder(b"d/"), file(b"d/a", &[1; 2000])]);
    for cut in [0, 100, 512, 1024, 1600, 3072, tar.len() - 512, tar.len()] {
        let place = Place::new();
        let stream = tar[..cut].chain(Broken);
        let error = extract(
            "o",
            stream,
            place.at("back"),
            &ExtractOptions::default(),
            &Durable::new(),
            &Context::new(),
        )
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tampered, "{cut}: {error}");
        assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 0);
    }
}

#[test]
fn folders_without_any_right_come_back_and_are_removed_when_it_fails() {
    let place = Place::new();
    let closed = changed(header(b"d/", b'5', 0), 100, b"0000000\0");
    let entries = [closed, file(b"d/a", b"x")];
    let done = untar(&archive(&entries), &place.at("back")).unwrap();
    assert_eq!((done.files, fs::metadata(place.at("back/d")).unwrap().mode() & 0o777), (1, 0));
    // Only the end mark is missing: everything was extracted.
    untar(&entries.concat(), &place.at("no")).unwrap_err();
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 1);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// Whatever is done to an archive, nothing appears outside the target and no panic.
    #[test]
    fn a_damaged_archive_stays_inside(at: proptest::sample::Index, byte: u8, cut: proptest::sample::Index) {
        let place = Place::new();
        fs::create_dir(place.at("cage")).unwrap();
        let mut tar = archive(&[folder(b"d/"), file(b"d/a", &[1; 600]), link(b"l", b'2', b"d/a"), long(b'L', b"n\0"), file(b"n", b"x")]);
        let at = at.index(tar.len());
        tar[at] = byte;
        if at % 3 == 0 {
            tar.truncate(cut.index(tar.len()));
        }
        let extracted = untar(&tar, &place.at("cage/back"));
        let left = fs::read_dir(place.at("cage")).unwrap().count();
        proptest::prop_assert_eq!(left, usize::from(extracted.is_ok()));
        proptest::prop_assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 1);
    }
}
