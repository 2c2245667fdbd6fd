//! Kills at every step and at random moments, the order of syncs, full disks.
//!
//! A child is this test binary again, running [`child`] with its orders in the environment.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::context::Context;
use backup_core::durable::{Durable, Event};
use backup_core::error::ErrorKind;
use backup_core::repository::{BackupRequest, PruneOptions, Repository, RepositoryOptions, RetentionPolicy};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

use super::{assert_whole, back_up, ids, init, key, open, request};
use crate::memory::Memory;
use crate::support::left_out;

/// What a child does at a step of [`Durable`].
const REPOSITORY: &str = "ATTESTORE_CRASH_REPOSITORY";
const STEP: &str = "ATTESTORE_CRASH_STEP";
const SIGNAL: &str = "ATTESTORE_CRASH_SIGNAL";

fn with_observer(path: &Path, observer: impl Fn(&Event) + Send + Sync + 'static) -> Repository {
    let options = RepositoryOptions { durable: Durable::with_observer(observer), ..Default::default() };
    Repository::open(path, &options).unwrap()
}

/// The killed process. Does nothing when it is run as a test.
#[test]
fn child() {
    let Some(path) = std::env::var_os(REPOSITORY) else { return };
    let step: Option<usize> = std::env::var(STEP).ok().map(|step| step.parse().unwrap());
    let signal = match std::env::var(SIGNAL).as_deref() {
        Ok("stop") => Signal::STOP,
        _ => Signal::KILL,
    };
    let seen = AtomicUsize::new(0);
    let repository = with_observer(Path::new(&path), move |_| {
        if Some(seen.fetch_add(1, Ordering::SeqCst)) == step {
            kill_process(getpid(), signal).unwrap();
        }
    });
    let noise: Vec<u8> = (0..60_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let source = Memory::new("app", &[("database/app.db", &noise), ("files/f.tar", b"x")]);
    let mine = key(1);
    let retention = Some(RetentionPolicy::last(2));
    loop {
        let name = step.map(|_| "killed");
        let request = BackupRequest {
            retention: retention.clone(),
            signing_key: Some(&mine),
            ..request(&source, name)
        };
        repository.backup(&request, &Context::new()).unwrap();
        if step.is_some() {
            break;
        }
    }
}

fn spawn(repository: &Path, step: Option<usize>, signal: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "repository::crash::child", "--test-threads=1"]);
    command.env(REPOSITORY, repository).env(SIGNAL, signal);
    command.envs(step.map(|step| (STEP, step.to_string())));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// What has to hold after any death, before anyone cleans up and after.
fn assert_recovers(path: &Path, before: &BTreeSet<String>) {
    let repository = open(path);
    assert_whole(&repository);
    let listed: BTreeSet<String> = ids(&repository).into_iter().collect();
    back_up(&repository, "after").unwrap();
    assert_whole(&repository);
    let mut after: BTreeSet<String> = ids(&repository).into_iter().collect();
    assert!(after.remove("after"));
    // What was listed stays; what the next run finishes is whole, since it verifies.
    assert!(after.is_superset(&listed) || after.is_subset(&listed), "{listed:?} {after:?}");
    assert!(after.intersection(before).count() + usize::from(after.contains("killed")) >= 2, "{after:?}");
    assert_eq!(std::fs::read_dir(repository.layout().staging()).unwrap().count(), 0);
    for folder in [repository.layout().log(), repository.layout().log_entries()] {
        let hidden = std::fs::read_dir(folder)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
        assert_eq!(hidden.count(), 0);
    }
}

#[test]
fn a_process_killed_at_any_step_of_a_backup_or_prune_leaves_the_repository_whole() {
    let mut committed_at = None;
    let mut step = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let repository = init(dir.path());
        back_up(&repository, "one").unwrap();
        back_up(&repository, "two").unwrap();
        let status = spawn(dir.path(), Some(step), "kill").wait().unwrap();
        if status.success() {
            assert_eq!(ids(&repository), ["two", "killed"]);
            break;
        }
        assert_eq!(status.signal(), Some(9), "step {step}: {status}");
        if ids(&repository).contains(&"killed".to_owned()) {
            committed_at.get_or_insert(step);
        }
        assert_recovers(dir.path(), &["one".to_owned(), "two".to_owned()].into());
        step += 1;
    }
    // Both sides of the commit were seen.
    assert!(committed_at.is_some_and(|at| at > 20 && at + 5 < step), "{committed_at:?} of {step}");
}

#[test]
fn a_process_killed_at_random_moments_leaves_the_repository_whole() {
    let points = if std::env::var_os("ATTESTORE_LONG").is_some() { 200 } else { 8 };
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "first").unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for point in 0..points {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = spawn(dir.path(), None, "kill");
        std::thread::sleep(Duration::from_micros(15_000 + (random >> 33) % 120_000));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert_whole(&repository);
        assert!(!ids(&repository).is_empty());
        back_up(&repository, &format!("after-{point}")).unwrap();
        assert_whole(&repository);
    }
}

#[test]
fn pitfall_20_a_stopped_process_holds_the_lock_and_a_dead_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let mut child = spawn(dir.path(), Some(4), "stop");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped());
    let error = back_up(&repository, "second").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains(&format!("process {} on ", child.id())), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    back_up(&repository, "second").unwrap();
    assert_eq!(ids(&repository), ["second"]);
    assert_whole(&repository);
}

/// What was not yet synced, as a power cut would lose it.
#[derive(Debug, Default)]
struct Unsynced {
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    /// Renames onto a backup's place and onto log files, in order.
    renames: Vec<PathBuf>,
    synced_files: usize,
    synced_folders: usize,
    faults: Vec<String>,
}

impl Unsynced {
    fn see(&mut self, event: &Event) {
        let parent = |path: &Path| path.parent().unwrap().to_owned();
        match event {
            Event::Created(path) => {
                if !path.is_dir() {
                    self.files.insert(path.clone());
                }
                self.folders.insert(parent(path));
            }
            Event::FileSynced(path) => {
                self.files.remove(path);
                self.synced_files += 1;
            }
            Event::DirSynced(path) => {
                self.folders.remove(path);
                self.synced_folders += 1;
            }
            Event::Renamed(from, to) => {
                let below = |path: &&PathBuf| path.starts_with(from);
                let lost: Vec<_> = self.files.iter().chain(&self.folders).filter(below).cloned().collect();
                if !lost.is_empty() {
                    self.faults.push(format!("{} is named before {lost:?} is synced", to.display()));
                }
                self.folders.extend([parent(from), parent(to)]);
                self.renames.push(to.clone());
            }
            Event::Removed(path) => {
                self.files.retain(|file| !file.starts_with(path));
                self.folders.retain(|folder| !folder.starts_with(path));
                self.folders.insert(parent(path));
            }
            _ => {}
        }
    }
}

#[test]
fn pitfall_21_everything_is_synced_before_and_after_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("repo");
    let unsynced = Arc::new(Mutex::new(Unsynced::default()));
    let seen = Arc::clone(&unsynced);
    let options = RepositoryOptions {
        durable: Durable::with_observer(move |event| seen.lock().unwrap().see(event)),
        ..Default::default()
    };
    let at_rest = |what: &str| {
        let mut unsynced = unsynced.lock().unwrap();
        assert_eq!(unsynced.faults, [""; 0], "{what}");
        assert!(unsynced.files.is_empty() && unsynced.folders.is_empty(), "{what}: {unsynced:?}");
        std::mem::take(&mut *unsynced)
    };
    let repository = Repository::init(&root, &options).unwrap();
    at_rest("init");

    let source = Memory::new("app", &[("database/app.db", b"x"), ("files/a/b.tar", b"y")]);
    let mine = key(1);
    let signed = BackupRequest { signing_key: Some(&mine), ..request(&source, Some("one")) };
    repository.backup(&signed, &Context::new()).unwrap();
    let seen = at_rest("backup");
    let place = |name: &str| seen.renames.iter().position(|to| to.ends_with(name)).unwrap();
    assert!(place("log/checkpoint") < place("backups/one"), "the entry comes before the rename");
    assert!(place("log/entries/00000000.ndjson") < place("log/checkpoint"));
    // Two objects, manifest, signature; the log's bundle and checkpoint.
    assert_eq!(seen.synced_files, 6);
    // backup/, database/, files/, files/a/ and what names them, at least once each.
    assert!(seen.synced_folders >= 12, "{}", seen.synced_folders);

    back_up(&repository, "two").unwrap();
    at_rest("backup");
    let prune = PruneOptions { policy: RetentionPolicy::last(1), ..PruneOptions::default() };
    let plan = repository.prune_plan(&prune, &Context::new()).unwrap();
    repository.prune_apply(&plan, &prune, None, &Context::new()).unwrap();
    at_rest("prune");
    repository.hold("two", true, "case 7", &Context::new()).unwrap();
    at_rest("hold");
    assert_whole(&repository);
}

/// A small file system in memory that is unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path, kib: u32) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k,mode=0700"), "tmpfs"])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_the_repository_whole() {
    let dir = tempfile::tempdir().unwrap();
    let Some(tmpfs) = Tmpfs::mount(dir.path(), 1024) else {
        left_out("a_full_disk_is_an_error_and_leaves_the_repository_whole", "mounting a tmpfs wants root");
        return;
    };
    let root = tmpfs.0.join("repo");
    let repository = init(&root);
    back_up(&repository, "one").unwrap();
    let noise: Vec<u8> = (0..600_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let large = Memory::new("app", &[("database/app.db", &noise)]);
    let error = repository.backup(&request(&large, Some("large")), &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.hint().is_some());
    assert_eq!(std::fs::read_dir(repository.layout().staging()).unwrap().count(), 0);
    assert_eq!(ids(&repository), ["one"]);
    assert_whole(&repository);

    // The disk fills up at one step after the other.
    let filler = tmpfs.0.join("filler");
    let mut failed = 0;
    for pages in 0..24_u64 {
        let free = backup_core::durable::free_space(&tmpfs.0).unwrap();
        std::fs::write(&filler, vec![1; usize::try_from(free.saturating_sub(pages * 4096)).unwrap()])
            .unwrap();
        let result = back_up(&repository, &format!("pages-{pages}"));
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            failed += 1;
        }
        assert_whole(&repository);
        std::fs::remove_file(&filler).unwrap();
        back_up(&repository, &format!("after-{pages}")).unwrap();
        assert_whole(&repository);
        assert_eq!(std::fs::read_dir(repository.layout().staging()).unwrap().count(), 0);
    }
    assert!((3..24).contains(&failed), "{failed}");
}

#[test]
fn what_the_log_names_is_put_in_place_and_what_it_does_not_name_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let outcome = back_up(&repository, "one").unwrap();
    // As a process leaves it that died between the entry and the rename.
    let work = repository.layout().staging().join("backup-00000000000000aa");
    let staged = work.join("backup");
    let unstage = || {
        std::fs::create_dir_all(&work).unwrap();
        std::fs::rename(&outcome.path, &staged).unwrap();
    };
    unstage();
    std::fs::create_dir_all(repository.layout().staging().join("backup-00000000000000bb/backup")).unwrap();
    assert_whole(&repository);
    assert_eq!(ids(&repository), [""; 0]);
    assert_eq!(repository.show("latest").unwrap_err().kind(), ErrorKind::NotFound);
    back_up(&repository, "two").unwrap();
    assert_eq!(ids(&repository), ["one", "two"]);
    assert_whole(&repository);
    assert_eq!(std::fs::read_dir(repository.layout().staging()).unwrap().count(), 0);

    // Something else took the place: the true bytes are not thrown away.
    unstage();
    std::fs::create_dir(&outcome.path).unwrap();
    std::fs::write(outcome.path.join("manifest.json"), b"planted").unwrap();
    back_up(&repository, "three").unwrap();
    assert!(staged.join("manifest.json").exists());
    assert!(!super::verify_all(&repository).ok);
    std::fs::remove_dir_all(&outcome.path).unwrap();
    back_up(&repository, "four").unwrap();
    assert_eq!(ids(&repository), ["one", "two", "three", "four"]);
    assert_whole(&repository);

    // What is not whole waits for nothing.
    unstage();
    std::fs::remove_file(staged.join("database/app.db.zst")).unwrap();
    assert!(
        super::verify_all(&repository).has(backup_core::repository::RepositoryFindingKind::BackupMissing)
    );
}
