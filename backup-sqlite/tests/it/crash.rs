//! A restore killed at any point leaves the old database or the new one, never a mixture.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use backup_core::context::Context;
use backup_core::durable::{Durable, Event};
use backup_core::error::ErrorKind;
use backup_core::traits::Restore as _;
use backup_sqlite::{Recovery, RestoreOptions, SqliteRestore, recover};
use rusqlite::Connection;

use crate::child::{Other, argument, say};
use crate::support::{Backup, assert_whole_bank, bank, moment, names, rounds, transfer};

/// How many transfers the old database has, those in its log included, and the new one.
const OLD: i64 = 2_011;
const NEW: i64 = 2_000;

/// A live bank and a backup of what it was.
struct Scene {
    folder: tempfile::TempDir,
    backup: PathBuf,
    with_log: bool,
    round: u64,
}

impl Scene {
    fn new(with_log: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("bank.db");
        bank(&source, "wal");
        let backup = folder.path().join("backup");
        Backup::of(&source, &backup, &[]).save();
        Self { folder, backup, with_log, round: 0 }
    }

    /// Makes a new folder with the old database; with the last commit in the -wal only, where that is asked for.
    fn live(&mut self) -> PathBuf {
        self.round += 1;
        let place = self.folder.path().join(format!("live{}", self.round));
        std::fs::create_dir(&place).unwrap();
        let made = self.folder.path().join("made.db");
        std::fs::copy(self.folder.path().join("bank.db"), &made).unwrap();
        let live = place.join("bank.db");
        let connection = Connection::open(&made).unwrap();
        for number in 0..10 {
            transfer(&connection, number).unwrap();
        }
        let _: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        connection.execute_batch("INSERT INTO transfers(src, amount) VALUES (1, 0)").unwrap();
        if self.with_log {
            for ending in ["", "-wal"] {
                std::fs::copy(format!("{}{ending}", made.display()), format!("{}{ending}", live.display()))
                    .unwrap();
            }
        }
        drop(connection);
        if !self.with_log {
            std::fs::copy(&made, &live).unwrap();
        }
        live
    }

    fn child(&self, live: &Path, die_at: u64) -> Other {
        let at = die_at.to_string();
        Other::start_with(
            Command::new(std::env::current_exe().unwrap()),
            "restore",
            &[("DATABASE", live), ("DIR", &self.backup), ("DIE_AT", Path::new(&at))],
        )
    }
}

/// Restores; dies at the n-th step that it takes, where one is given.
pub(crate) fn role() {
    let (live, backup) = (argument("DATABASE"), Backup::open(&argument("DIR")));
    let die_at: u64 = argument("DIE_AT").to_str().unwrap().parse().unwrap();
    let seen = AtomicU64::new(0);
    let durable = Durable::with_observer(move |event: &Event| {
        if seen.fetch_add(1, Ordering::Relaxed) + 1 == die_at {
            say(&format!("dies {event:?}"));
            std::process::abort();
        }
    });
    let restore = SqliteRestore::with_options(&live, RestoreOptions { durable, ..Default::default() });
    say("begins");
    let plan = restore.plan(&backup, &Context::new()).unwrap();
    restore.execute(&plan, &backup, &Context::new()).unwrap();
    say("done");
}

/// Judges what a dead restore left: before anything is recovered, and after.
fn assert_old_or_new(live: &Path, what: &str) -> Recovery {
    let place = live.parent().unwrap();
    // A service that starts now finds the whole old database, the whole new one, or an error; never half of one.
    let copy = tempfile::tempdir().unwrap();
    for name in names(place).iter().filter(|name| name.starts_with("bank.db") && !name.contains(".bad-")) {
        std::fs::copy(place.join(name), copy.path().join(name)).unwrap();
    }
    let seen = copy.path().join("bank.db");
    assert!(seen.exists(), "{what}: the name stands for something at every moment");
    let rows = Connection::open(&seen)
        .unwrap()
        .query_row("SELECT count(*) FROM transfers", [], |row| row.get::<_, i64>(0));
    if let Ok(rows) = rows {
        assert!(rows == OLD || rows == NEW, "{what}: {rows} transfers");
        assert_eq!(assert_whole_bank(&seen), rows, "{what}");
    }
    let recovery = recover(live).unwrap();
    assert_eq!(recover(live).unwrap(), Recovery::Nothing, "{what}");
    assert!(names(place).iter().all(|name| !name.starts_with('.')), "{what}: {:?}", names(place));
    let aside: Vec<String> = names(place).into_iter().filter(|name| name.contains(".bad-")).collect();
    let rows = assert_whole_bank(live);
    if rows == NEW {
        let base = aside.iter().find(|name| !name.ends_with("-wal") && !name.ends_with("-shm")).unwrap();
        assert_eq!(assert_whole_bank(&place.join(base)), OLD, "{what}: the old one is kept whole");
    } else {
        assert_eq!(rows, OLD, "{what}");
        assert_eq!(aside, [""; 0], "{what}: everything is back");
    }
    recovery
}

#[test]
fn a_restore_that_dies_at_any_step_is_rolled_back_or_completed() {
    for with_log in [true, false] {
        let mut scene = Scene::new(with_log);
        let mut recoveries = Vec::new();
        for die_at in 1.. {
            let live = scene.live();
            let mut child = scene.child(&live, die_at);
            child.wait_for("begins").unwrap();
            let Some(step) = child.wait_for("dies") else {
                assert!(child.finish(), "it came to its end");
                assert_eq!(assert_whole_bank(&live), NEW);
                break;
            };
            assert!(!child.finish());
            recoveries.push(assert_old_or_new(&live, &format!("log {with_log}, step {die_at}: {step}")));
        }
        for kind in [Recovery::Nothing, Recovery::RolledBack, Recovery::Completed] {
            assert!(recoveries.contains(&kind), "log {with_log}: {kind:?} not met in {recoveries:?}");
        }
        assert!(
            recoveries.is_sorted_by_key(|recovery| match recovery {
                Recovery::RolledBack => 1,
                Recovery::Completed => 2,
                // Before the swap, and after its last step.
                Recovery::Nothing => 0,
            }) || recoveries.last() == Some(&Recovery::Nothing),
            "{recoveries:?}"
        );
    }
}

#[test]
fn a_restore_killed_at_any_moment_leaves_the_old_or_the_new() {
    let mut scene = Scene::new(true);
    let (mut old, mut new) = (0, 0);
    // The moments are spread over the time that a whole restore takes here and now.
    let live = scene.live();
    let mut child = scene.child(&live, 0);
    child.wait_for("begins").unwrap();
    let begun = Instant::now();
    child.wait_for("done").unwrap();
    let whole = begun.elapsed();
    let rounds = rounds(12);
    for round in 0..rounds {
        let live = scene.live();
        let mut child = scene.child(&live, 0);
        child.wait_for("begins").unwrap();
        moment(round, whole.mul_f64(1.2));
        child.kill();
        assert_old_or_new(&live, &format!("round {round}"));
        if assert_whole_bank(&live) == NEW {
            new += 1;
        } else {
            old += 1;
        }
        std::fs::remove_dir_all(live.parent().unwrap()).unwrap();
    }
    println!("{old} times the old database, {new} times the new one");
    assert!(rounds < 100 || (old > 0 && new > 0), "the moments were not spread: {old} old, {new} new");
}

#[test]
fn the_next_restore_brings_an_interrupted_one_to_its_end_by_itself() {
    let mut scene = Scene::new(true);
    let backup = Backup::open(&scene.backup);
    for die_at in 6..40 {
        let live = scene.live();
        let mut child = scene.child(&live, die_at);
        child.wait_for("begins").unwrap();
        if child.wait_for("dies").is_none() {
            return;
        }
        assert!(!child.finish());
        let restore = SqliteRestore::new(&live);
        let plan = restore.plan(&backup, &Context::new()).unwrap();
        let outcome = restore.execute(&plan, &backup, &Context::new()).unwrap();
        assert_eq!(assert_whole_bank(&live), NEW, "step {die_at}");
        let aside = outcome.set_aside.first().unwrap();
        // Old, or what the first restore had already put in place.
        assert!([OLD, NEW].contains(&assert_whole_bank(aside)), "step {die_at}");
    }
    panic!("a restore takes fewer steps");
}

#[test]
fn what_somebody_made_in_between_is_not_overwritten() {
    let mut scene = Scene::new(true);
    for die_at in 1..40 {
        let live = scene.live();
        let mut child = scene.child(&live, die_at);
        child.wait_for("begins").unwrap();
        if child.wait_for("dies").is_none() {
            break;
        }
        assert!(!child.finish());
        let place = live.parent().unwrap();
        let guarded = std::fs::read(&live).unwrap().starts_with(b"This is not a database");
        if !guarded || place.join("bank.db-wal").exists() {
            continue;
        }
        // A snapshot of what is not a database now says why.
        let error = backup_sqlite::backup_into(&live, place, "x.db", &Default::default(), &Context::new())
            .unwrap_err();
        assert!(error.hint().unwrap().contains("restore"), "{error}: {:?}", error.hint());
        // A service that replaces what it cannot open.
        std::fs::remove_file(&live).unwrap();
        bank(&live, "delete");
        let error = recover(&live).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert_eq!(assert_whole_bank(&live), NEW, "the service's file is as it was");
        assert!(names(place).iter().any(|name| name.contains(".bad-") && name.ends_with("-wal")));
        return;
    }
    panic!("no step at which the guard stands alone");
}

#[test]
fn a_restore_syncs_every_file_and_folder_before_it_goes_on() {
    use std::sync::{Arc, Mutex};
    let mut scene = Scene::new(true);
    let live = scene.live();
    let backup = Backup::open(&scene.backup);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let durable = Durable::with_observer(move |event| log.lock().unwrap().push(event.clone()));
    let restore = SqliteRestore::with_options(&live, RestoreOptions { durable, ..Default::default() });
    let plan = restore.plan(&backup, &Context::new()).unwrap();
    restore.execute(&plan, &backup, &Context::new()).unwrap();
    let seen = seen.lock().unwrap();
    let place = live.parent().unwrap();
    let staging = place.join(".bank.db.attestore-restore");
    let first = |wanted: Event| {
        seen.iter().position(|event| *event == wanted).unwrap_or_else(|| panic!("{wanted:?} in {seen:#?}"))
    };
    let restored = first(Event::FileSynced(staging.join("restored.db")));
    let named = first(Event::DirSynced(staging.clone()));
    let moved = seen
        .iter()
        .position(|event| matches!(event, Event::Renamed(from, _) if *from == place.join("bank.db-wal")));
    let moved = moved.expect("the log moved aside");
    assert!(restored < named && named < moved);
    // The folder is synced after the last rename into it, and before the journal goes.
    let gone = first(Event::Removed(staging.join("swap.json")));
    let last_sync =
        seen[..gone].iter().rposition(|event| *event == Event::DirSynced(place.to_owned())).unwrap();
    assert!(moved < last_sync && last_sync < gone, "{seen:#?}");
}
