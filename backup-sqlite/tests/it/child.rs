//! Other processes: this test binary runs itself with a role, so that locks and crashes are real.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;

use crate::support::transfer;

const ROLE: &str = "ATTESTORE_TEST_ROLE";

/// A process with a role; killed when dropped.
pub(crate) struct Other {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Other {
    /// Starts a process in a role.
    pub(crate) fn start(role: &str, arguments: &[(&str, &Path)]) -> Self {
        Self::start_with(Command::new(std::env::current_exe().unwrap()), role, arguments)
    }

    /// Starts a process in a role under a command that runs it (`unshare`, `setpriv`).
    pub(crate) fn start_with(mut command: Command, role: &str, arguments: &[(&str, &Path)]) -> Self {
        command.args(["--exact", "child::plays_its_role", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role).stdin(Stdio::null()).stdout(Stdio::piped());
        for (name, value) in arguments {
            command.env(name, value);
        }
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// Waits until it says a line that begins with `word`, and returns the rest; `None` when it ended without.
    pub(crate) fn wait_for(&mut self, word: &str) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.said.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The test harness writes its own `test … ` before the first line.
            if let Some(at) = line.find(&format!("@{word}")) {
                return Some(line[at + 1 + word.len()..].trim().to_owned());
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end and reports whether it ended well.
    pub(crate) fn finish(&mut self) -> bool {
        let mut rest = String::new();
        while self.said.read_line(&mut rest).unwrap() > 0 {}
        self.child.wait().unwrap().success()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Says a line to the process that started this one.
pub(crate) fn say(text: &str) {
    println!("\n@{text}");
}

pub(crate) fn argument(name: &str) -> std::path::PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set")).into()
}

/// Not a test by itself: what a child process does.
#[test]
fn plays_its_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "writer" => writer(),
        "holder" => holder(),
        other => crate::roles(other),
    }
}

/// Transfers until killed; says how many after each hundred.
fn writer() {
    let connection = Connection::open(argument("DATABASE")).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    let mode = argument("MODE");
    let mode = mode.to_str().unwrap();
    if mode != "wal" {
        // Modes other than WAL belong to the connection.
        let _: String =
            connection.query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0)).unwrap();
    }
    connection.execute_batch("PRAGMA synchronous=OFF").unwrap();
    let first = i64::from(std::process::id()) % 1_000;
    for number in 0..1_000_000 {
        transfer(&connection, first + number).unwrap();
        if number == 20 {
            say("writing");
        }
    }
}

/// Opens the database, runs the SQL it was given, and keeps everything until killed.
fn holder() {
    let connection = Connection::open(argument("DATABASE")).unwrap();
    let sql = argument("SQL");
    connection.execute_batch(sql.to_str().unwrap()).unwrap();
    say("holding");
    loop {
        std::thread::park();
    }
}
