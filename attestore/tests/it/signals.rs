//! Interruptions and two at once: Ctrl-C leaves nothing, a lock names its holder and dies with it.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{ErrorKind, Run, World};

pub(crate) fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").arg(name).arg(child.id().to_string()).status().unwrap().success());
}

/// Waits until something holds; fails after a minute.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a backup that waits for a lock on its source while it holds the repository, and returns it.
fn waiting(world: &World) -> (Child, rusqlite::Connection) {
    world.write("busy.db", world.read("app.db"));
    let busy = world.open("busy.db");
    busy.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let child = world
        .command(["backup", "busy.db", "--to", "repo"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lock = world.path("repo/lock");
    until("the backup holds the lock", || fs::metadata(&lock).is_ok_and(|found| found.len() > 0));
    (child, busy)
}

#[test]
fn a_second_backup_is_told_who_holds_the_lock_and_ctrl_c_ends_the_first() {
    let world = World::ready();
    let (child, busy) = waiting(&world);
    let said = world.fails(ErrorKind::Locked, ["backup", "app.db", "--to", "repo"]);
    assert!(said.contains(&format!("process {}", child.id())) && said.contains("backup"), "{said}");
    signal(&child, "-INT");
    let run = Run::from(child.wait_with_output().unwrap()).ends(130);
    assert!(run.err.contains("cancelled") && run.out.is_empty(), "{run:?}");
    assert_eq!(fs::read_dir(world.path("repo/backups")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(world.path("repo/staging")).unwrap().count(), 0);
    drop(busy);
    world.run(["backup", "busy.db", "--to", "repo"]).good();
}

#[test]
fn the_lock_of_a_killed_process_holds_nothing() {
    let world = World::ready();
    let (mut child, busy) = waiting(&world);
    child.kill().unwrap();
    child.wait().unwrap();
    world.run(["backup", "app.db", "--to", "repo"]).good();
    drop(busy);
    world.run(["verify", "repo", "--all"]).good();
}

#[test]
fn standard_input_that_never_ends_can_be_interrupted() {
    let world = World::new();
    for name in ["-INT", "-TERM"] {
        let mut child = world
            .command(["chain", "verify", "-", "--format", "aegisagent"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        // The handler is set before standard input is read; a signal before that kills, which is no better known here.
        let status = format!("/proc/{}/status", child.id());
        until("the handler is set", || {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap_or("0");
            u64::from_str_radix(caught, 16).unwrap_or(0) & 2 != 0
        });
        signal(&child, name);
        Run::from(child.wait_with_output().unwrap()).ends(130);
        drop(input);
    }
}
