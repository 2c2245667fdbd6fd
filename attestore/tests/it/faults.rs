//! What a machine does to a run: full and read-only disks, Ctrl-C and kill in the middle, two at once, a log that is left.
//!
//! Disks are file systems in memory, mounted for one run only (`unshare -m`), which takes root.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::kinds::ENDLESS;
use crate::signals::{signal, until};
use crate::support::{ErrorKind, Run, World, fails, files, left_out};

/// A disk of its own for each run: `disk` below the world, filled from `prepared`; what is on it afterwards comes to `after`.
struct Disk<'a> {
    world: &'a World,
    options: &'static str,
    read_only: bool,
}

impl<'a> Disk<'a> {
    /// Prepares it; `None`, said, where mounting is not permitted.
    fn new(test: &str, world: &'a World, options: &'static str, read_only: bool) -> Option<Self> {
        let root = Path::new("/proc/self").metadata().is_ok_and(|own| own.uid() == 0);
        let works = || Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|s| s.success());
        if !root || !works() {
            left_out(test, "mounting takes root");
            return None;
        }
        for folder in ["disk", "prepared"] {
            fs::create_dir(world.path(folder)).unwrap();
        }
        Some(Self { world, options, read_only })
    }

    /// Returns the program to be run in `disk`; its arguments see `..` as the world.
    fn command(&self, arguments: &[&str]) -> Command {
        let _ = fs::remove_dir_all(self.world.path("after"));
        let seal = if self.read_only { "mount -o remount,ro disk" } else { "true" };
        let script = format!(
            "mount -t tmpfs -o {},mode=0700 none disk && cp -a prepared/. disk/ && {seal} || exit 99; \
             (cd disk && exec \"$0\" \"$@\"); status=$?; cp -a disk after; exit $status",
            self.options
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]).arg(env!("CARGO_BIN_EXE_attestore")).args(arguments);
        command.current_dir(self.world.root()).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn fails(&self, kind: ErrorKind, arguments: &[&str]) -> String {
        fails(kind, || self.command(arguments))
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.command(arguments).output().unwrap().into()
    }
}

/// Makes a database of some megabytes that do not compress.
fn large(world: &World, name: &str, mebibytes: u32) {
    world.sql(
        name,
        &format!(
            "CREATE TABLE blobs(bytes BLOB); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {mebibytes}) \
             INSERT INTO blobs SELECT randomblob(1 << 20) FROM n"
        ),
    );
}

/// Nothing half-made is in a repository, and what it holds is proven.
#[track_caller]
fn whole(world: &World, repository: &str, backups: usize) {
    assert_eq!(fs::read_dir(world.path(repository).join("backups")).unwrap().count(), backups);
    world.run(["verify", repository, "--all"]).good();
    assert_eq!(fs::read_dir(world.path(repository).join("staging")).unwrap().count(), 0);
}

/// The folder holds nothing but these names.
#[track_caller]
fn holds(folder: &Path, names: &[&str]) {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found, names);
}

#[test]
fn a_full_disk_is_told_and_nothing_half_made_stays() {
    let test = "a_full_disk_is_told_and_nothing_half_made_stays";
    let world = World::with_backup();
    let Some(disk) = Disk::new(test, &world, "size=2m", false) else { return };
    large(&world, "large.db", 6);
    world.run(["backup", "large.db", "--to", "repo", "--name", "large"]).good();

    // The repository's disk is full: the database is elsewhere.
    world.run(["init", "prepared/repo"]).good();
    let said = disk.fails(ErrorKind::NoSpace, &["backup", "../large.db", "--to", "repo"]);
    assert!(said.contains("free"), "{said}");
    whole(&world, "after/repo", 0);
    // It was not too small for everything: a small backup goes in.
    disk.run(&["backup", "../app.db", "--to", "repo"]).good();
    whole(&world, "after/repo", 1);
    fs::remove_dir_all(world.path("prepared/repo")).unwrap();

    // The target's disk is full: told before a byte is written, and the old database stays.
    world.write("prepared/app.db", world.read("app.db"));
    let said = disk.fails(ErrorKind::NoSpace, &["restore", "../repo", "large", "--to", "app.db"]);
    assert!(said.contains("no room") && said.contains("bytes free"), "{said}");
    holds(&world.path("after"), &["app.db"]);
    assert_eq!(world.read("after/app.db"), world.read("app.db"));
    // What is packed or written beside has no plan: it is removed again.
    disk.fails(ErrorKind::NoSpace, &["export", "../repo", "large", "--out", "large.tar.gz"]);
    holds(&world.path("after"), &["app.db"]);
    let run = disk.run(&["drill", "../repo", "large", "--scratch", "."]).ends(7);
    assert!(run.err.contains("no room"), "{}", run.err);
    holds(&world.path("after"), &["app.db"]);
    whole(&world, "repo", 2);
}

#[test]
fn a_disk_without_a_single_free_byte_holds_no_key_and_no_repository() {
    let test = "a_disk_without_a_single_free_byte_holds_no_key_and_no_repository";
    let world = World::with_backup();
    // Four pages: the folder that is made fills them.
    let Some(disk) = Disk::new(test, &world, "size=16k,nr_inodes=4", false) else { return };
    world.write("prepared/filler", vec![0; 16 << 10]);
    disk.fails(ErrorKind::NoSpace, &["keygen", "--out", "new.key"]);
    holds(&world.path("after"), &["filler"]);
    disk.fails(ErrorKind::NoSpace, &["init", "new"]);
    holds(&world.path("after"), &["filler"]);
    disk.fails(ErrorKind::NoSpace, &["drill", "../repo", "--report", "drill.md"]);
    holds(&world.path("after"), &["filler"]);
    world.run(["verify", "repo", "--all"]).good();
}

#[test]
fn a_read_only_disk_is_read_and_never_written() {
    let test = "a_read_only_disk_is_read_and_never_written";
    let world = World::with_backup();
    let Some(disk) = Disk::new(test, &world, "size=8m", true) else { return };
    let copied =
        Command::new("cp").args(["-a", "repo", "app.db", "prepared"]).current_dir(world.root()).status();
    assert!(copied.unwrap().success());
    for arguments in [
        &["backup", "../app.db", "--to", "repo"][..],
        &["restore", "../repo", "one", "--to", "app.db"],
        &["restore", "../repo", "one", "--to", "new.db"],
        &["export", "../repo", "one", "--out", "one.tar.gz"],
        &["keygen", "--out", "new.key"],
        &["init", "new"],
        &["prune", "repo", "--keep-last", "1", "--apply"],
        &["hold", "repo", "one"],
        &["drill", "../repo", "--report", "drill.md"],
    ] {
        let said = disk.fails(ErrorKind::Permission, arguments);
        assert!(!said.contains("unable to open"), "{said}");
        assert_eq!(files(&world.path("after")), files(&world.path("prepared")), "{arguments:?}");
    }
    // Reading works: a database and a repository on a read-only disk are proven, and restored elsewhere.
    disk.run(&["chain", "verify", "app.db", "--format", "aegisagent"]).good();
    disk.run(&["list", "repo"]).good();
    let run = disk.run(&["verify", "repo", "--all"]).ends(0);
    assert!(run.out.starts_with("PROVEN ") && run.out.contains("not in the repository's log"), "{}", run.out);
    disk.run(&["verify", "repo", "--all", "--no-record"]).good();
    disk.run(&["backup", "app.db", "--to", "../repo", "--name", "from-read-only"]).good();
    let run = disk.run(&["restore", "repo", "one", "--to", "../new.db"]).ends(0);
    assert!(run.out.contains("not in the repository's log"), "{}", run.out);
    whole(&world, "repo", 2);
}

/// Ctrl-C while the copy of the database is being made.
#[test]
fn ctrl_c_in_the_middle_of_a_backup_leaves_nothing_behind() {
    let world = World::with_backup();
    large(&world, "large.db", 96);
    let before = fs::metadata(world.path("large.db")).unwrap().len();
    for method in ["vacuum-into", "online"] {
        let child = world
            .command(["backup", "large.db", "--to", "repo", "--method", method, "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let staging = world.path("repo/staging");
        let written = || {
            files(&staging)
                .iter()
                .filter_map(|file| fs::metadata(staging.join(file)).ok())
                .any(|found| found.len() > 1 << 20)
        };
        until("a megabyte is written", written);
        signal(&child, "-INT");
        let run = Run::from(child.wait_with_output().unwrap()).ends(130);
        let error = run.json_error();
        assert_eq!((&error["code"], &error["kind"]), (&"ERR_CANCELLED".into(), &"Cancelled".into()));
        whole(&world, "repo", 1);
    }
    assert_eq!(fs::metadata(world.path("large.db")).unwrap().len(), before);
    holds(world.root(), &["app.db", "backup.key", "backup.key.pub", "large.db", "repo"]);
    world.run(["backup", "large.db", "--to", "repo"]).good();
}

/// Ctrl-C while the restored database is being proven, beside the target.
#[test]
fn ctrl_c_in_the_middle_of_a_restore_leaves_the_old_database_and_nothing_else() {
    let world = World::with_backup();
    world.sql("app.db", "INSERT INTO notes(text) VALUES('later')");
    let before = world.read("app.db");
    for name in ["-INT", "-TERM"] {
        for target in ["app.db", "new.db"] {
            let child = world
                .command(["restore", "repo", "one", "--to", target, "--check", ENDLESS])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let names = || fs::read_dir(world.root()).unwrap().count();
            until("something lies beside the target", || names() > 4);
            signal(&child, name);
            let run = Run::from(child.wait_with_output().unwrap()).ends(130);
            assert!(run.out.is_empty() && run.err.contains("cancelled"), "{run:?}");
            holds(world.root(), &["app.db", "backup.key", "backup.key.pub", "repo"]);
            assert_eq!(world.read("app.db"), before);
        }
    }
    world.run(["restore", "repo", "one", "--to", "app.db"]).good();
}

/// Killed without a warning, at other moments each round: the repository is whole, the target is old or new.
#[test]
fn a_program_that_is_killed_leaves_a_whole_repository_and_the_old_or_the_new_database() {
    let rounds: u64 = if std::env::var_os("ATTESTORE_LONG").is_some() { 200 } else { 12 };
    let world = World::with_backup();
    large(&world, "live.db", 3);
    world.run(["backup", "live.db", "--to", "repo", "--name", "old"]).good();
    let blobs = |name: &str| -> i64 {
        world.open(name).query_row("SELECT count(*) FROM blobs", [], |row| row.get(0)).unwrap()
    };
    world.sql("live.db", "INSERT INTO blobs VALUES(x'00')");
    let mut made = 2;
    for round in 0..rounds {
        // Spread over the time that a run takes, some 150 ms.
        let moment = Duration::from_micros((round * 2_654_435_761) % 180_000);
        let arguments: &[&str] = if round % 2 == 0 {
            &["backup", "live.db", "--to", "repo"]
        } else {
            &["restore", "repo", "old", "--to", "live.db"]
        };
        let mut child = world.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
        // What a power cut left is brought to an end by the next run.
        if round % 2 == 1 {
            world.run(["restore", "repo", "old", "--to", "live.db", "--plan"]).good();
            let restored = world.path("live.db").exists();
            assert!(
                restored || world.path(".live.db.restoring").exists(),
                "round {round}: no database at all"
            );
            if restored {
                assert!([3, 4].contains(&blobs("live.db")), "round {round}");
            }
            world.run(["restore", "repo", "old", "--to", "live.db"]).good();
            assert_eq!(blobs("live.db"), 3, "round {round}");
            world.run(["set-aside", "live.db", "--remove"]).good();
            world.sql("live.db", "INSERT INTO blobs VALUES(x'00')");
        }
        world.run(["verify", "repo", "--all", "--level", "digests", "--no-record"]).good();
        let there = fs::read_dir(world.path("repo/backups")).unwrap().count();
        assert!(there >= made, "round {round}: a backup is gone");
        made = there;
    }
    world.run(["backup", "live.db", "--to", "repo"]).good();
    // One that was on record when it was killed is brought to its end.
    let there = fs::read_dir(world.path("repo/backups")).unwrap().count();
    assert!(there > made);
    whole(&world, "repo", there);
}

#[test]
fn two_backups_at_once_are_made_one_after_the_other_where_one_may_wait() {
    let world = World::with_backup();
    large(&world, "large.db", 24);
    let children: Vec<_> = (0..3)
        .map(|at| {
            world
                .command([
                    "backup",
                    "large.db",
                    "--to",
                    "repo",
                    "--wait",
                    "120",
                    "--name",
                    &format!("at-once-{at}"),
                ])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        Run::from(child.wait_with_output().unwrap()).good();
    }
    whole(&world, "repo", 4);
}

/// A killed service's -wal lies beside the target: it goes aside with its database, and is not replayed over the restored one.
#[test]
fn a_stale_wal_is_set_aside_with_its_database() {
    let world = World::with_backup();
    let live = world.open("live.db");
    live.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE notes(text); INSERT INTO notes VALUES('old')",
    )
    .unwrap();
    // What a killed process leaves.
    for ending in ["", "-wal", "-shm"] {
        fs::copy(world.path(format!("live.db{ending}")), world.path(format!("killed.db{ending}"))).unwrap();
    }
    drop(live);
    let wal = world.read("killed.db-wal");
    assert!(!wal.is_empty());
    let done = world.json(0, ["restore", "repo", "one", "--to", "killed.db"]);
    let aside = done["set_aside"].as_array().unwrap();
    let kept = aside.iter().map(|path| path.as_str().unwrap()).find(|path| path.ends_with("-wal")).unwrap();
    assert_eq!(fs::read(kept).unwrap(), wal);
    assert!(!world.path("killed.db-wal").exists() && !world.path("killed.db-shm").exists());
    let open = world.open("killed.db");
    let receipts: i64 = open.query_row("SELECT count(*) FROM action_receipts", [], |row| row.get(0)).unwrap();
    let sound: String = open.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!((receipts, sound.as_str()), (9, "ok"));
}

#[test]
fn an_input_of_a_chain_that_is_none_is_told_by_what_it_is() {
    let world = World::ready();
    fs::create_dir(world.path("folder")).unwrap();
    world.write("empty.db", "");
    world.write("text.db", "hello, this is no database, and long enough to be taken for one: ".repeat(20));
    let noise: Vec<u8> = (0_u32..512)
        .flat_map(|n| {
            sha2::Digest::finalize(sha2::Digest::chain_update(
                <sha2::Sha256 as sha2::Digest>::new(),
                n.to_le_bytes(),
            ))
            .to_vec()
        })
        .collect();
    world.write("encrypted.db", noise);
    for ending in ["ndjson", "json", "csv"] {
        world.write(format!("empty.{ending}"), "");
        world.write(format!("database.{ending}"), world.read("app.db"));
    }
    std::os::unix::fs::symlink("nowhere", world.path("dangling.db")).unwrap();
    for verb in ["verify", "checkpoint"] {
        for (input, kind) in [
            ("missing.db", ErrorKind::NotFound),
            ("missing.ndjson", ErrorKind::NotFound),
            ("dangling.db", ErrorKind::NotFound),
            ("sqlite:missing.db", ErrorKind::NotFound),
            ("sqlite:folder", ErrorKind::InvalidInput),
            ("folder", ErrorKind::Unsupported),
            ("empty.db", ErrorKind::Malformed),
            ("text.db", ErrorKind::Malformed),
            ("encrypted.db", ErrorKind::KeyRejected),
            ("database.ndjson", ErrorKind::Malformed),
            ("database.json", ErrorKind::Malformed),
            ("database.csv", ErrorKind::Malformed),
            ("", ErrorKind::InvalidInput),
            ("mysql://u:hunter2@h/d", ErrorKind::Unsupported),
        ] {
            let said = world.fails(kind, ["chain", verb, input, "--format", "aegisagent"]);
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
    assert!(!world.path("missing.db").exists());
}
