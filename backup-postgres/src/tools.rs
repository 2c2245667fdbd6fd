//! PostgreSQL's own programs: found, asked for their version, run and watched.
//!
//! Looked for in the folder that the caller names and nowhere else; else on the `PATH`, where `pg_config --bindir` points,
//! and where distributions put them (`/usr/lib/postgresql/*/bin`, `/usr/pgsql-*/bin`). The newest that is at least the
//! server's version is taken: `pg_dump` refuses a server that is newer than itself. Debian's `pg_wrapper`, which
//! chooses a version by rules of its own, is passed over.
//!
//! [`Running`] is a program under way: its password comes in its environment, its messages are kept (the last
//! [`STDERR_BYTES`]), it is killed when the caller cancels or lets go of it. When this process dies, the program's
//! pipe breaks and it ends by itself.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use backup_core::context::Context;
use backup_core::error::Error as CoreError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::connect::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::version::{ServerVersion, ToolVersion};

/// How much of what a program says is kept, in bytes.
pub const STDERR_BYTES: usize = 8 << 10;
/// How long a program's output is waited for before the context is asked again.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Folders that hold one folder per version, each with the programs in `bin`.
const VERSIONED: [(&str, &str); 3] =
    [("/usr/lib/postgresql", ""), ("/usr", "pgsql-"), ("/opt/homebrew/opt", "postgresql@")];

/// Where programs are looked for.
#[derive(Debug, Clone, Default)]
pub struct ToolOptions {
    /// The folder that holds them; where it is named, no other is looked at.
    pub folder: Option<PathBuf>,
    /// Folders as `PATH` spells them.
    pub path: Option<OsString>,
}

/// A program that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// Its version.
    pub version: ToolVersion,
}

impl ToolOptions {
    /// Finds the newest program of this name that can read the server.
    ///
    /// # Errors
    /// [`Error::ToolMissing`] when there is none; [`Error::ToolTooOld`] when all are older than the server. Both say
    /// the line that installs one.
    pub fn find(&self, name: &'static str, server: &ServerVersion) -> Result<Tool> {
        let newest = self.newest(name, server.major())?;
        if newest.version.reads(server.major()) {
            return Ok(newest);
        }
        Err(Error::ToolTooOld {
            tool: name.to_owned(),
            server: server.short().to_owned(),
            found: format!("{} ({})", newest.version, newest.path.display()),
            install: install_line(name, server.major()),
        })
    }

    /// Finds the newest program of this name.
    ///
    /// # Errors
    /// [`Error::ToolMissing`], with the line that installs version `wanted`.
    pub fn newest(&self, name: &'static str, wanted: i32) -> Result<Tool> {
        let folders = self.folders();
        let tools = folders.iter().filter_map(|folder| tool_in(folder, name));
        // Of equal versions the first that was found.
        let newest = tools.reduce(|best, next| if next.version > best.version { next } else { best });
        newest.ok_or_else(|| Error::ToolMissing {
            tool: name.to_owned(),
            looked: folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", "),
            install: install_line(name, wanted),
        })
    }

    /// Lists the folders to look in, each once.
    fn folders(&self) -> Vec<PathBuf> {
        if let Some(folder) = &self.folder {
            return vec![folder.clone()];
        }
        let mut folders: Vec<PathBuf> = Vec::new();
        let mut add = |folder: PathBuf| {
            if !folder.as_os_str().is_empty() && !folders.contains(&folder) {
                folders.push(folder);
            }
        };
        let on_path: Vec<PathBuf> =
            self.path.as_ref().map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
        for folder in &on_path {
            add(folder.clone());
        }
        for folder in &on_path {
            let config = folder.join("pg_config");
            if is_executable(&config)
                && let Some(line) = first_line(&config, "--bindir")
            {
                add(PathBuf::from(line));
            }
        }
        for (parent, prefix) in VERSIONED {
            let Ok(entries) = std::fs::read_dir(parent) else { continue };
            let mut found: Vec<PathBuf> = entries
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
                .map(|entry| entry.path().join("bin"))
                .filter(|folder| folder.is_dir() && (!prefix.is_empty() || parent.ends_with("postgresql")))
                .collect();
            found.sort();
            found.into_iter().for_each(&mut add);
        }
        folders
    }
}

/// Says how a program of this version is installed.
pub(crate) fn install_line(name: &str, major: i32) -> String {
    let package = match name {
        "initdb" | "postgres" | "pg_ctl" => "postgresql",
        _ => "postgresql-client",
    };
    format!(
        "install PostgreSQL {major}'s: apt-get install {package}-{major} (where the distribution lacks it: apt.postgresql.org), or name the folder that has it"
    )
}

fn tool_in(folder: &Path, name: &'static str) -> Option<Tool> {
    let path = folder.join(name);
    if !is_executable(&path) {
        return None;
    }
    // Debian's wrapper goes by clusters that are configured on this machine, not by the server that is dumped.
    if path.canonicalize().is_ok_and(|real| real.file_name().is_some_and(|file| file == "pg_wrapper")) {
        return None;
    }
    let version = ToolVersion::parse(&first_line(&path, "--version")?)?;
    Some(Tool { name, path, version })
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Returns the first line that a program prints.
fn first_line(program: &Path, argument: &str) -> Option<String> {
    let output =
        Command::new(program).arg(argument).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .next()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty() && output.status.success())
}

/// Under which variables programs reach the server of a connection; threads that must not share the connection share this.
#[derive(Clone)]
pub struct ToolEnvironment {
    variables: Vec<(&'static str, Option<OsString>)>,
    /// The database's name.
    pub database: String,
}

impl std::fmt::Debug for ToolEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToolEnvironment").field("database", &self.database).finish_non_exhaustive()
    }
}

impl ToolEnvironment {
    /// Takes it from a connection.
    #[must_use]
    pub fn of(connection: &Connection) -> Self {
        Self {
            variables: connection.tool_environment(),
            database: connection.address().database().to_owned(),
        }
    }
}

impl Tool {
    /// Makes the command that runs this program against the server and database of a connection, as its role.
    #[must_use]
    pub fn command(&self, connection: &Connection) -> Command {
        self.command_in(&ToolEnvironment::of(connection))
    }

    /// Makes the command that runs this program in an environment that was taken from a connection.
    #[must_use]
    pub fn command_in(&self, environment: &ToolEnvironment) -> Command {
        let mut command = self.alone();
        for (name, value) in &environment.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Makes the command that runs this program without a server. Messages are English, so that they can be read here.
    #[must_use]
    pub fn alone(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.env("LC_ALL", "C").env("LANGUAGE", "C").stdin(Stdio::null());
        command
    }
}

/// A program under way. Dropped without [`Running::finish`] it is killed and waited for.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    stderr: Option<JoinHandle<Vec<u8>>>,
    ctx: Context,
}

impl Running {
    /// Starts a program; its messages are kept. Standard input and output are as the command says.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be started.
    pub fn start(name: &str, mut command: Command, ctx: &Context) -> Result<Self> {
        ctx.check()?;
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| {
            Error::Core(
                CoreError::new(ErrorKind::Unavailable, format!("cannot start {name}")).with_source(error),
            )
        })?;
        let stderr = child.stderr.take().map(|stderr| std::thread::spawn(move || tail(stderr)));
        Ok(Self { name: name.to_owned(), child, stderr, ctx: ctx.clone() })
    }

    /// Takes the program's output as a reader that stops when the caller cancels; the command must have piped it.
    pub fn output(&mut self) -> Option<Output> {
        self.child.stdout.take().map(|pipe| Output { pipe, ctx: self.ctx.clone() })
    }

    /// Takes the program's input; the command must have piped it. The program sees its end when it is dropped.
    pub fn input(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the program's end; returns what it said.
    ///
    /// # Errors
    /// `Cancelled`; [`Error::ToolFailed`] with the end of its messages when it did not end well.
    pub fn finish(mut self) -> Result<String> {
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {
                    self.ctx.check()?;
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                Err(error) => {
                    return Err(Error::Core(
                        CoreError::new(ErrorKind::Io, format!("cannot wait for {}", self.name))
                            .with_source(error),
                    ));
                }
            }
        };
        let said = self.said();
        if status.success() { Ok(said) } else { Err(failure(&self.name, status, said)) }
    }

    /// Returns the end of what the program said; waits until it has closed its messages.
    fn said(&mut self) -> String {
        let bytes = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already, or killed; either way nothing is left to run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes an error of a program that did not end well.
fn failure(name: &str, status: ExitStatus, said: String) -> Error {
    use std::os::unix::process::ExitStatusExt as _;
    let status = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended for no known reason".into(),
    };
    let (kind, hint) = judge(&said);
    let stderr = if said.is_empty() { "it said nothing".to_owned() } else { said };
    Error::ToolFailed { tool: name.to_owned(), status, stderr, kind, hint: hint.map(str::to_owned) }
}

/// Says what kind of failure a program's messages stand for.
fn judge(said: &str) -> (ErrorKind, Option<&'static str>) {
    let has = |words: &str| said.contains(words);
    // pg_dump waits for its locks under a statement timeout.
    if has("lock timeout") || has("could not obtain lock") || (has("statement timeout") && has("LOCK TABLE"))
    {
        (
            ErrorKind::Locked,
            Some(
                "another session holds a lock that keeps readers out (ACCESS EXCLUSIVE: ALTER TABLE, TRUNCATE, VACUUM FULL); wait for it, or allow a longer lock timeout",
            ),
        )
    } else if has("row-level security") || has("row security") {
        (
            ErrorKind::Permission,
            Some("use a role that sees every row: the owner, a superuser or one with BYPASSRLS"),
        )
    } else if has("permission denied") {
        (
            ErrorKind::Permission,
            Some(
                "grant the role what it lacks, for example membership of pg_read_all_data (PostgreSQL 14 and newer)",
            ),
        )
    } else if has("No space left on device") {
        (ErrorKind::NoSpace, Some("free room on that disk"))
    } else if has("conflict with recovery") {
        (
            ErrorKind::Unavailable,
            Some(
                "the standby cancelled a query to go on with replay: raise max_standby_streaming_delay, or set hot_standby_feedback",
            ),
        )
    } else if has("invalid page") || has("could not read block") || has("missing chunk") {
        (ErrorKind::Corrupt, Some("the live database is damaged: restore an earlier backup, see pg_amcheck"))
    } else {
        (ErrorKind::Unavailable, None)
    }
}

/// A program's output. Reading fails with `Cancelled` when the caller cancels, though nothing comes.
#[derive(Debug)]
pub struct Output {
    pipe: ChildStdout,
    ctx: Context,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.ctx.check()?;
            let mut wanted = [PollFd::new(&self.pipe, PollFlags::IN)];
            match poll(&mut wanted, Some(&WAIT)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.pipe.read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Keeps the end of what a program says.
fn tail(mut stderr: impl Read) -> Vec<u8> {
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = [0_u8; 4096];
    loop {
        match stderr.read(&mut buffer) {
            Ok(0) => return kept,
            Ok(count) => {
                kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
                let over = kept.len().saturating_sub(STDERR_BYTES);
                kept.drain(..over);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_long_messages_is_kept() {
        let mut text = vec![b'x'; 3 * STDERR_BYTES];
        text.extend_from_slice(b"the end");
        let kept = tail(text.as_slice());
        assert_eq!(kept.len(), STDERR_BYTES);
        assert!(kept.ends_with(b"the end"));
    }

    #[test]
    fn a_program_that_fails_is_told_with_its_status_and_what_it_said() {
        let ctx = Context::new();
        let run = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Running::start("pg_dump", command, &ctx).unwrap().finish()
        };
        assert_eq!(run("echo note >&2").unwrap(), "note");
        let error = run("echo 'permission denied for table t' >&2; exit 3").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Permission);
        assert_eq!(error.to_string(), "pg_dump failed (exit status 3): permission denied for table t");
        assert!(run("kill -9 $$").unwrap_err().to_string().contains("killed by signal 9"));
    }

    #[test]
    fn a_cancelled_program_is_killed_though_it_says_nothing() {
        let cancel = backup_core::context::Cancel::new();
        let ctx = Context::new().with_cancel(cancel.clone());
        let mut command = Command::new("sleep");
        command.arg("600").stdout(Stdio::piped());
        let mut running = Running::start("sleep", command, &ctx).unwrap();
        let pid = running.id();
        let mut output = running.output().unwrap();
        let reader = std::thread::spawn(move || output.read(&mut [0; 1]));
        cancel.cancel();
        assert!(reader.join().unwrap().is_err());
        assert!(matches!(running.finish(), Err(Error::Core(CoreError::Cancelled))));
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_missing_program_comes_with_the_line_that_installs_it() {
        let options = ToolOptions { folder: Some("/no/such/folder".into()), path: None };
        let error = options.find("pg_dump", &ServerVersion::new(170_002, "17.2".into())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.hint().unwrap().contains("apt-get install postgresql-client-17"), "{error}");
    }
}
