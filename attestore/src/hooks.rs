//! Runs the commands of a plan: hooks before and after a backup, smoke tests of a drill, checks of what others back up.
//!
//! Called by `planned` and `drill`. A command runs without a shell, in the plan's folder, in a process group of its own that is
//! killed as a whole when its time is over, when the run is cancelled, and when the command ends and leaves something running.
//! What it prints is kept, the beginning and the end of it where it is long.
//!
//! When this process is killed with SIGKILL, the command goes on; nothing of the repository waits for it.

use std::collections::VecDeque;
use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;

/// How many bytes of output are kept from the beginning, and how many from the end.
pub const KEPT_BYTES: usize = 16 << 10;
/// How often a running command is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long the rest of the output is waited for once the whole group is dead.
const DRAIN: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// What it is called in reports.
    pub name: &'a str,
    /// The program and its arguments.
    pub run: &'a [String],
    /// How long it may take.
    pub timeout: Duration,
    /// The folder it runs in.
    pub folder: &'a Path,
    /// Variables beside those of this process.
    pub environment: Vec<(String, String)>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HookReport {
    /// What it is called.
    pub name: String,
    /// The program and its arguments.
    pub run: Vec<String>,
    /// Whether it ended with 0 in its time.
    pub ok: bool,
    /// The exit status, where it ended by itself.
    pub exit_status: Option<i32>,
    /// How it ended, in a few words.
    pub ended: String,
    /// How long it ran, in seconds.
    pub seconds: f64,
    /// What it printed, both streams in the order they came; control characters as they are.
    pub output: String,
}

/// The beginning and the end of a long output.
#[derive(Debug, Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        let room = KEPT_BYTES.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(KEPT_BYTES);
        self.tail.drain(..over);
        self.dropped += over as u64;
    }

    fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.head).into_owned();
        if self.dropped > 0 {
            text.push_str(&format!("\n… {} bytes left out …\n", self.dropped));
        }
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        text.push_str(&String::from_utf8_lossy(&tail));
        text
    }
}

/// A child whose whole process group dies with this value.
struct Group {
    child: Child,
    pid: Option<Pid>,
}

impl Group {
    fn kill(&self) {
        if let Some(pid) = self.pid {
            // ESRCH: nobody of it is left.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
///
/// # Errors
/// `Cancelled`; what the system says when it cannot be watched. A command that fails, cannot be started or takes too long is no
/// error but a report that says so.
pub fn run(job: &Job<'_>, ctx: &Context) -> Result<HookReport> {
    ctx.check()?;
    let start = Instant::now();
    let report = |exit_status, ok, ended: String, output: String| HookReport {
        name: job.name.to_owned(),
        run: job.run.to_vec(),
        ok,
        exit_status,
        ended,
        seconds: (start.elapsed().as_secs_f64() * 1_000.0).round() / 1_000.0,
        output,
    };
    let (program, arguments) = job
        .run
        .split_first()
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, format!("the hook {} runs nothing", job.name)))?;
    let spawned = Command::new(program)
        .args(arguments)
        .envs(job.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(job.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let child = match spawned {
        Ok(child) => child,
        Err(error) => return Ok(report(None, false, format!("cannot be started: {error}"), String::new())),
    };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let mut group = Group { child, pid };
    let kept = Arc::new(Mutex::new(Kept::default()));
    let (done, drained) = mpsc::channel();
    if let Some(pipe) = group.child.stdout.take() {
        drain(pipe, &kept, &done);
    }
    if let Some(pipe) = group.child.stderr.take() {
        drain(pipe, &kept, &done);
    }
    drop(done);
    let (mut timed_out, mut cancelled) = (false, false);
    let status: ExitStatus = loop {
        let waited = group.child.try_wait();
        if let Some(status) = waited.map_err(|error| Error::io("wait for", program, error))? {
            break status;
        }
        cancelled |= ctx.check().is_err();
        timed_out |= start.elapsed() >= job.timeout;
        if cancelled || timed_out {
            group.kill();
            break group.child.wait().map_err(|error| Error::io("wait for", program, error))?;
        }
        std::thread::sleep(LOOK.min(job.timeout.saturating_sub(start.elapsed())));
    };
    // What it left running holds its pipes open and would outlive the run.
    group.kill();
    let limit = Instant::now() + DRAIN;
    while drained.recv_timeout(limit.saturating_duration_since(Instant::now())).is_ok() {}
    if cancelled {
        return Err(Error::Cancelled);
    }
    let output = kept.lock().unwrap_or_else(PoisonError::into_inner).text();
    let ended = if timed_out {
        format!("took longer than {} s and was killed with all it had started", job.timeout.as_secs_f64())
    } else if let Some(code) = status.code() {
        format!("ended with {code}")
    } else {
        format!("was ended by signal {}", status.signal().unwrap_or_default())
    };
    Ok(report(status.code().filter(|_| !timed_out), status.success() && !timed_out, ended, output))
}

/// Reads a pipe to its end in a thread of its own; says so on `done`.
fn drain(mut pipe: impl Read + Send + 'static, kept: &Arc<Mutex<Kept>>, done: &mpsc::Sender<()>) {
    let (kept, done) = (Arc::clone(kept), done.clone());
    std::thread::spawn(move || {
        let mut buffer = [0_u8; 4096];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    kept.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(buffer.get(..read).unwrap_or_default());
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = done.send(());
    });
}

/// Makes an error of a command that failed, with the end of what it printed.
#[must_use]
pub fn failure(what: &str, report: &HookReport) -> Error {
    let said: Vec<&str> =
        report.output.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
    let said = said.into_iter().rev().collect::<Vec<_>>().join(" / ");
    let said = if said.is_empty() { "it printed nothing".to_owned() } else { format!("it printed: {said}") };
    Error::new(ErrorKind::Unavailable, format!("{what} {} {}", report.name, report.ended))
        .with_hint(format!("{said}; run by hand: {}", report.run.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job<'a>(run: &'a [String], seconds: u64) -> Job<'a> {
        Job {
            name: "t",
            run,
            timeout: Duration::from_secs(seconds),
            folder: Path::new("/"),
            environment: vec![("ATTESTORE_X".into(), "1".into())],
        }
    }

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn output_exit_status_and_environment_are_kept() {
        let run = sh("echo out $ATTESTORE_X; echo err >&2; exit 3");
        let report = super::run(&job(&run, 20), &Context::new()).unwrap();
        assert_eq!((report.ok, report.exit_status), (false, Some(3)));
        assert!(report.output.contains("out 1") && report.output.contains("err"), "{report:?}");
        let missing = ["/no/such/program".to_owned()];
        let report = super::run(&job(&missing, 20), &Context::new()).unwrap();
        assert!(!report.ok && report.ended.starts_with("cannot be started"), "{report:?}");
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let run = sh(&format!("sleep 600 & echo $! > {}; echo begun; wait", pid.display()));
        let begun = Instant::now();
        let report = super::run(&job(&run, 1), &Context::new()).unwrap();
        assert!(!report.ok && report.ended.contains("took longer than 1 s"), "{report:?}");
        assert!(report.output.contains("begun") && begun.elapsed() < Duration::from_secs(30));
        let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        // The signal is sent; on a busy machine it takes a moment until the process is dead, or a zombie.
        let dead = || {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|_| ") X".into());
            state.contains(") Z") || state.contains(") X")
        };
        let limit = Instant::now() + Duration::from_secs(60);
        while !dead() {
            assert!(Instant::now() < limit, "process {pid} lives on");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn what_a_command_leaves_running_does_not_hold_up_the_run() {
        let run = sh("sleep 600 & exit 0");
        let begun = Instant::now();
        let report = super::run(&job(&run, 100), &Context::new()).unwrap();
        assert!(report.ok && begun.elapsed() < Duration::from_secs(60), "{report:?}");
    }

    #[test]
    fn a_long_output_keeps_its_beginning_and_its_end() {
        let run = sh("echo first; head -c 200000 /dev/zero | tr '\\0' x; echo; echo last");
        let report = super::run(&job(&run, 60), &Context::new()).unwrap();
        assert!(report.output.starts_with("first") && report.output.trim_end().ends_with("last"));
        assert!(report.output.contains("bytes left out") && report.output.len() < 3 * KEPT_BYTES);
    }

    #[test]
    fn a_cancelled_run_kills_its_command() {
        let ctx = Context::new();
        ctx.cancel().cancel();
        let run = sh("sleep 600");
        assert_eq!(super::run(&job(&run, 600), &ctx).unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
