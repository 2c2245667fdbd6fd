//! Says what this machine has and lacks, with the line that installs it.
//!
//! Attestore itself needs none of these tools: they are what a backup is restored with when Attestore is not at hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

/// One thing that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The tool or library.
    pub name: String,
    /// Whether it is here.
    pub ok: bool,
    /// Its version, or what is wrong.
    pub found: String,
    /// What it is for.
    pub used_for: String,
    /// The line that installs it, where it is not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install: Option<String>,
}

/// What a machine has and lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doctor {
    /// Whether Attestore itself can do all it does here.
    pub ok: bool,
    /// This program's version.
    pub version: String,
    /// What was looked for, in a fixed order.
    pub findings: Vec<Finding>,
}

/// A tool: name, the argument that prints its version, Debian's package, what it is for.
const TOOLS: &[(&str, &str, &str, &str)] = &[
    ("sqlite3", "--version", "sqlite3", "opening a restored SQLite database by hand"),
    ("pg_dump", "--version", "postgresql-client", "backing up PostgreSQL databases"),
    ("pg_restore", "--version", "postgresql-client", "restoring PostgreSQL databases"),
    ("zstd", "--version", "zstd", "decompressing objects by hand"),
    ("age", "--version", "age", "decrypting objects by hand"),
    ("minisign", "-v", "minisign", "checking a manifest's signature by hand"),
    ("tar", "--version", "tar", "unpacking files and exports by hand"),
    ("sha256sum", "--version", "coreutils", "checking digests by hand"),
];

/// Looks at this machine. `search` is the list of folders to look for programs in, as `PATH` spells it.
#[must_use]
pub fn doctor(search: &std::ffi::OsStr) -> Doctor {
    let mut findings = vec![sqlite()];
    findings.extend(TOOLS.iter().map(|tool| look_for(tool, search)));
    let ok = findings.first().is_some_and(|finding| finding.ok);
    Doctor { ok, version: env!("CARGO_PKG_VERSION").to_owned(), findings }
}

/// Says which SQLite is linked in. Before 3.51.3 a WAL reset at the wrong moment could corrupt a database
/// (sqlite.org, release notes of 3.51.3).
fn sqlite() -> Finding {
    let version = backup_sqlite::sqlite_version();
    let number = backup_sqlite::sqlite_version_number();
    let ok = number >= 3_051_003;
    Finding {
        name: "SQLite (linked in)".into(),
        ok,
        found: if ok {
            version.to_owned()
        } else {
            format!("{version}: older than 3.51.3, which fixed a corruption in WAL mode")
        },
        used_for: "reading and copying SQLite databases".into(),
        install: (!ok).then(|| "build with the feature `bundled`".into()),
    }
}

/// Looks for a program and asks it for its version.
fn look_for(
    &(name, argument, package, used_for): &(&str, &str, &str, &str),
    search: &std::ffi::OsStr,
) -> Finding {
    let found = find(name, search).map(|path| version_of(&path, argument));
    Finding {
        name: name.to_owned(),
        ok: found.is_some(),
        install: found.is_none().then(|| format!("apt-get install {package}")),
        found: found.unwrap_or_else(|| "not found".into()),
        used_for: used_for.to_owned(),
    }
}

/// Finds an executable file in a search path.
fn find(name: &str, search: &std::ffi::OsStr) -> Option<PathBuf> {
    std::env::split_paths(search).map(|folder| folder.join(name)).find(|path| is_executable(path))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}

/// Returns the first line that a program prints about its version.
fn version_of(path: &Path, argument: &str) -> String {
    let output = Command::new(path).arg(argument).stdin(Stdio::null()).output();
    let Ok(output) = output else { return "cannot be run".into() };
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text);
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("version unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_is_not_there_comes_with_the_line_that_installs_it() {
        let found = doctor(std::ffi::OsStr::new("/no/such/folder"));
        assert!(found.ok, "{found:?}");
        let age = found.findings.iter().find(|finding| finding.name == "age").unwrap();
        assert_eq!((age.ok, age.install.as_deref()), (false, Some("apt-get install age")));
    }
}
