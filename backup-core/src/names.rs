//! The rules for names: of backups, of objects, of files that a caller names.
//!
//! Called wherever a name becomes part of a path: by the repository, by backends that write a file under a
//! name that a request brought, by services that embed them. A name that passes stays in its folder on every
//! operating system, hides nothing and is not taken for something else (`snap.db-journal` beside `snap.db`
//! would be deleted by SQLite as a hot journal).

use audit_chain::error::ErrorKind;

use crate::error::{Error, Result};

/// The longest name, in bytes of UTF-8. Suffixes of containers and of staging fit below the 255 of file systems.
pub const MAX_NAME_BYTES: usize = 200;
/// The longest name of an object, in bytes: a path of several names.
pub const MAX_OBJECT_NAME_BYTES: usize = 1_000;

/// Endings that SQLite gives to the files beside a database.
const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Names that the repository or an operating system takes for itself, compared without case and extension.
const RESERVED: [&str; 7] = ["latest", "con", "prn", "aux", "nul", "clock$", "conin$"];
/// Names in a backup's folder that are not objects.
const RESERVED_OBJECTS: [&str; 2] = ["manifest.json", "manifest.json.minisig"];

fn refuse(what: &str, name: &str, why: &str) -> Error {
    let shown: String = name.chars().take(60).collect();
    let dots = if shown.len() < name.len() { "…" } else { "" };
    Error::new(ErrorKind::InvalidName, format!("{what} {shown:?}{dots} {why}"))
        .with_hint("use a bare name of letters, digits, `.`, `_` and `-`, such as `nightly-2026-11-20`")
}

/// Says why a string is not a bare name, if it is not.
fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("is empty");
    }
    if name.len() > MAX_NAME_BYTES {
        return Some("is longer than 200 bytes");
    }
    if name.contains('/') || name.contains('\\') {
        return Some("holds a path separator");
    }
    if name.contains("..") {
        return Some("holds `..`");
    }
    if name.chars().any(char::is_control) {
        return Some("holds a control character");
    }
    if name.contains(['\u{2028}', '\u{2029}', '\u{200e}', '\u{200f}', '\u{feff}'])
        || name.contains(|c| ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c))
    {
        return Some("holds an invisible character that changes how it is shown");
    }
    if name.starts_with('.') {
        return Some("begins with a dot");
    }
    if name.starts_with('-') {
        return Some("begins with a dash");
    }
    if name.trim() != name || name.ends_with('.') {
        return Some("begins or ends with a blank, or ends with a dot");
    }
    if name.contains([':', '*', '?', '"', '<', '>', '|']) {
        return Some("holds one of `: * ? \" < > |`");
    }
    let lower = name.to_ascii_lowercase();
    if SIDECARS.iter().any(|ending| lower.ends_with(ending)) {
        return Some("ends in -wal, -shm or -journal, which SQLite takes for its own");
    }
    let stem = lower.split('.').next().unwrap_or_default();
    let device = |prefix: &str| {
        stem.strip_prefix(prefix)
            .is_some_and(|digit| digit.len() == 1 && digit.as_bytes()[0].is_ascii_digit())
    };
    if RESERVED.contains(&stem) && (stem != "latest" || lower == "latest") || device("com") || device("lpt") {
        return Some("is reserved");
    }
    None
}

/// Checks a bare name that a caller gives to a backup or to a file in a given folder.
///
/// Refused: empty, longer than [`MAX_NAME_BYTES`], a separator (`/` and `\`), `..` anywhere, a leading dot or
/// dash, blanks at the ends, control characters and NUL, characters that turn the text around, `: * ? " < > |`,
/// the endings `-wal`, `-shm`, `-journal`, and the names that operating systems and this program reserve.
///
/// # Errors
/// [`ErrorKind::InvalidName`], with the reason.
///
/// # Examples
/// ```
/// assert!(backup_core::names::validate_name("nightly-2026.db").is_ok());
/// assert!(backup_core::names::validate_name("../etc/passwd").is_err());
/// assert!(backup_core::names::validate_name("snap.db-journal").is_err());
/// ```
pub fn validate_name(name: &str) -> Result<()> {
    fault(name).map_or(Ok(()), |why| Err(refuse("name", name, why)))
}

/// Checks the name of an object in a backup: bare names joined by `/`, in a folder of the backup.
///
/// # Errors
/// [`ErrorKind::InvalidName`], with the reason.
pub fn validate_object_name(name: &str) -> Result<()> {
    if name.len() > MAX_OBJECT_NAME_BYTES {
        return Err(refuse("object name", name, "is longer than 1000 bytes"));
    }
    if RESERVED_OBJECTS.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(refuse("object name", name, "is reserved"));
    }
    name.split('/').find_map(fault).map_or(Ok(()), |why| Err(refuse("object name", name, why)))
}

#[cfg(test)]
mod tests {
    use super::{ErrorKind, validate_name, validate_object_name};

    #[test]
    fn bare_names_are_accepted() {
        for name in [
            "a",
            "snap.db",
            "nightly-2026-11-20",
            "20261120T153000Z",
            "größe",
            "a b",
            "x.tar.gz",
            "latest.db",
        ] {
            validate_name(name).unwrap();
        }
    }

    #[test]
    fn names_that_leave_hide_or_mislead_are_refused() {
        let long = "x".repeat(201);
        let bad = [
            "",
            "../x",
            "a/b",
            "/etc/x",
            ".",
            "..",
            "a..b.db",
            "dir/",
            "./x",
            "a\\b.db",
            " ",
            " a",
            "a ",
            "a.",
            ".hidden",
            "-wal",
            "-rf",
            "file:x?mode=memory",
            "new\nline",
            "nul\0byte.db",
            "nul",
            "NUL.db",
            "com1",
            "LPT9.txt",
            "latest",
            "Latest",
            "snap.db-journal",
            "snap.db-wal",
            "snap.db-shm",
            "SNAP.DB-WAL",
            "a\u{7f}",
            "a\u{85}",
            "gpj\u{202e}.db",
            "c:x",
            long.as_str(),
        ];
        for name in bad {
            let error = validate_name(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName, "{name:?}");
            assert!(error.hint().is_some(), "{name:?}");
        }
    }

    #[test]
    fn object_names_are_bare_names_joined_by_slashes() {
        for name in ["database/app.db.zst.age", "keys/vault-public-keys.csv", "chain/receipts.ndjson.zst"] {
            validate_object_name(name).unwrap();
        }
        for name in [
            "",
            "/abs",
            "a//b",
            "a/../b",
            "a/",
            "manifest.json",
            "Manifest.JSON",
            "manifest.json.minisig",
            "a/./b",
        ] {
            assert_eq!(validate_object_name(name).unwrap_err().kind(), ErrorKind::InvalidName, "{name:?}");
        }
    }
}
