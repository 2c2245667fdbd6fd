//! The lock of a repository: an advisory lock of the operating system on a file that is never removed.
//!
//! `commit` and `retention` hold `<repository>/lock` while they write; `log` holds `log/lock` for one append.
//! The system releases the lock when its holder dies, however it dies, so there is no stale lock and no
//! "unlock" command (PITFALLS 20). Readers take no lock.
//!
//! The file's bytes are for people and errors only: one JSON object that says who holds it, written after the
//! lock was taken and cut to nothing before it is given back. What they say decides nothing.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::durable::PRIVATE_FILE;
use crate::error::{Error, ErrorKind, Result};

/// How long between two tries while another process holds the lock.
const RETRY: Duration = Duration::from_millis(50);

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// The process.
    pub(super) pid: u32,
    /// The machine.
    pub(super) host: String,
    /// Since when, by its clock.
    pub(super) since: Timestamp,
    /// What it does: `backup`, `prune`, `append`.
    pub(super) command: String,
}

impl Holder {
    /// Describes this process.
    #[must_use]
    pub(super) fn this_process(command: &str) -> Self {
        Self {
            pid: std::process::id(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            since: Timestamp::now(),
            command: command.to_owned(),
        }
    }
}

/// A lock that is held; dropped, it is given back.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// Whether it was taken: one that is refused leaves the holder's text alone.
    taken: bool,
}

impl Lock {
    /// Takes a lock, waiting at most `wait` for another process (or thread) to give it back.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`], naming the holder, when it is not free in time; [`ErrorKind::Cancelled`];
    /// [`ErrorKind::Unsupported`] when the file system has no locks; [`ErrorKind::Permission`].
    pub(super) fn acquire(path: &Path, command: &str, wait: Duration, ctx: &Context) -> Result<Self> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(PRIVATE_FILE))
            .map_err(|error| Error::io("open", path, error.into()))?;
        let mut lock = Self { file: File::from(fd), taken: false };
        let start = Instant::now();
        loop {
            ctx.check()?;
            match lock.file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if start.elapsed() < wait => {
                    std::thread::sleep(RETRY.min(wait.saturating_sub(start.elapsed())));
                }
                Err(TryLockError::WouldBlock) => return Err(held(path, lock.holder(), wait)),
                Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
                    let message = format!("the file system of {} has no file locks", path.display());
                    return Err(Error::new(ErrorKind::Unsupported, message).with_source(error));
                }
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", path, error)),
            }
        }
        lock.taken = true;
        lock.describe(&Holder::this_process(command)).map_err(|error| Error::io("write", path, error))?;
        Ok(lock)
    }

    fn holder(&mut self) -> Option<Holder> {
        let mut text = Vec::new();
        self.file.rewind().ok()?;
        (&self.file).take(4096).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn describe(&mut self, holder: &Holder) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(&serde_json::to_vec(holder)?)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.taken {
            return;
        }
        // Until the lock is given back nobody else reads what is cut here.
        let _ = self.file.set_len(0);
        // Not left to closing: a child that another thread forked and that has not yet replaced itself (exec)
        // has the file open too, and would hold the lock on.
        let _ = self.file.unlock();
    }
}

/// An open file whose lock, if it has one, is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Unlocking(pub(super) File);

impl Drop for Unlocking {
    fn drop(&mut self) {
        // Explicitly, for the same reason as above.
        let _ = self.0.unlock();
    }
}

fn held(path: &Path, holder: Option<Holder>, wait: Duration) -> Error {
    let who = holder.map_or_else(
        || "another process".to_owned(),
        |holder| {
            format!("process {} on {} ({}, since {})", holder.pid, holder.host, holder.command, holder.since)
        },
    );
    let waited = if wait.is_zero() { String::new() } else { format!(", waited {} s", wait.as_secs_f32()) };
    Error::new(ErrorKind::Locked, format!("{} is held by {who}{waited}", path.display()))
        .with_hint("wait for it to end; a lock is never left behind by a process that died")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let ctx = Context::new();
        let first = Lock::acquire(&path, "backup", Duration::ZERO, &ctx).unwrap();
        Lock::acquire(&path, "prune", Duration::ZERO, &ctx).unwrap_err();
        // The one that was refused has not wiped out who holds it.
        let error = Lock::acquire(&path, "prune", Duration::ZERO, &ctx).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        let text = error.to_string();
        let pid = std::process::id().to_string();
        assert!(text.contains(&pid) && text.contains("backup") && text.contains("since"), "{text}");
        drop(first);
        assert!(std::fs::read(&path).unwrap().is_empty());
        Lock::acquire(&path, "prune", Duration::ZERO, &ctx).unwrap();
    }

    #[test]
    fn a_lock_is_given_back_although_a_child_still_has_the_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = Lock::acquire(&path, "backup", Duration::ZERO, &Context::new()).unwrap();
        // As between fork and exec of a child: another descriptor of the same open file.
        let inherited = lock.file.try_clone().unwrap();
        drop(lock);
        Lock::acquire(&path, "backup", Duration::ZERO, &Context::new()).unwrap();
        drop(inherited);
    }

    #[test]
    fn a_waiting_holder_gets_the_lock_when_it_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::acquire(&path, "backup", Duration::ZERO, &Context::new()).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::acquire(&path, "b", Duration::from_secs(60), &Context::new()));
            drop(first);
            second.join().unwrap().unwrap();
        });
    }

    #[test]
    fn waiting_ends_when_the_work_is_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let _first = Lock::acquire(&path, "backup", Duration::ZERO, &Context::new()).unwrap();
        let ctx = Context::new();
        ctx.cancel().cancel();
        let error = Lock::acquire(&path, "backup", Duration::from_secs(60), &ctx).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn text_left_by_a_dead_holder_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let dead = Holder { pid: 1, ..Holder::this_process("backup") };
        std::fs::write(&path, serde_json::to_vec(&dead).unwrap()).unwrap();
        Lock::acquire(&path, "backup", Duration::ZERO, &Context::new()).unwrap();
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, b"precious").unwrap();
        let path = dir.path().join("lock");
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        Lock::acquire(&path, "backup", Duration::ZERO, &Context::new()).unwrap_err();
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }
}
