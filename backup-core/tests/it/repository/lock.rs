//! Two at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use backup_core::context::Context;
use backup_core::error::ErrorKind;
use backup_core::repository::{BackupRequest, PruneOptions, RetentionPolicy};

use super::{assert_whole, back_up, ids, init, request};
use crate::memory::Memory;

/// A source that tells when it is read and then waits for leave.
fn slow() -> (Memory, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (started, has_started) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let mut source = Memory::small();
    source.between = Some(Box::new(move |_| {
        started.send(()).unwrap();
        may_go_on.lock().unwrap().recv().unwrap();
        Ok(())
    }));
    (source, has_started, go_on)
}

#[test]
fn pitfall_20_the_second_backup_at_once_is_refused_and_names_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let (source, started, go_on) = slow();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| repository.backup(&request(&source, Some("first")), &Context::new()));
        started.recv().unwrap();
        let error = back_up(&repository, "second").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        let text = error.to_string();
        let pid = format!("process {} on ", std::process::id());
        assert!(text.contains(&pid) && text.contains("(backup, since 20"), "{text}");
        let options = PruneOptions { policy: RetentionPolicy::last(1), ..PruneOptions::default() };
        let plan = repository.prune_plan(&options, &Context::new()).unwrap();
        let error = repository.prune_apply(&plan, &options, None, &Context::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        // What needs no repository lock goes on meanwhile.
        assert_whole(&repository);
        go_on.send(()).unwrap();
        first.join().unwrap().unwrap();
    });
    assert_eq!(ids(&repository), ["first"]);
}

#[test]
fn pitfall_20_the_second_backup_waits_when_it_is_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let (source, started, go_on) = slow();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| repository.backup(&request(&source, Some("first")), &Context::new()));
        started.recv().unwrap();
        let second = scope.spawn(|| {
            let source = Memory::small();
            let wait =
                BackupRequest { lock_wait: Duration::from_secs(60), ..request(&source, Some("second")) };
            repository.backup(&wait, &Context::new())
        });
        go_on.send(()).unwrap();
        first.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
    });
    assert_eq!(ids(&repository), ["first", "second"]);
    assert_whole(&repository);
}

/// Sets its flag when dropped, by a panic too.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn readers_see_a_whole_repository_while_backups_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "first").unwrap();
    let done = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                assert_whole(&repository);
                let listing = repository.list().unwrap();
                assert_eq!(listing.findings, []);
                assert!(!listing.backups.is_empty());
                rounds += 1;
            }
            rounds
        });
        // However the writer ends, the reader does.
        let ended = SetOnDrop(&done);
        let source = Memory::small();
        for _ in 0..60 {
            let retention = Some(RetentionPolicy::last(2));
            let outcome =
                repository.backup(&BackupRequest { retention, ..request(&source, None) }, &Context::new());
            // A prune gives way to a reader.
            assert!(outcome.unwrap().prune_error.is_none_or(|error| error.contains("is being read")));
        }
        drop(ended);
        reader.join().unwrap()
    });
    assert!(rounds > 3, "{rounds}");
    assert_whole(&repository);
}
