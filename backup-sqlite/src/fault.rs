//! Turns what SQLite says into errors that a person can act on.
//!
//! Every other module of this crate calls [`explain`] at the place where it knows which file and which step
//! failed. SQLite's own text is kept as the source of the error, never repeated in the message.

use std::path::Path;

use backup_core::error::{Error, ErrorKind};
use rusqlite::ffi;

/// The smallest page of a database, in bytes; every database file is a multiple of it (sqlite.org/fileformat.html §1.3.2).
pub(crate) const SMALLEST_PAGE: u64 = 512;

/// How SQLite says that a schema names something that only the service's own connections have.
const BEYOND_SQLITE: [&str; 5] = [
    "no such function",
    "unknown function",
    "no such collation sequence",
    "no such module",
    "no such tokenizer",
];

/// Makes an error of the kind that SQLite's result code stands for. `step` is what was being done, as a verb
/// phrase (`open`, `copy`, `read table "t" of`).
#[must_use]
pub fn explain(error: rusqlite::Error, step: &str, path: &Path) -> Error {
    let place = path.display();
    let text = error.to_string();
    if BEYOND_SQLITE.iter().any(|what| text.contains(what)) {
        return Error::new(ErrorKind::Unsupported, format!("cannot {step} {place}: {error}"))
            .with_hint(
                "the schema uses what only the service defines: copy with the method online-backup, or give the service's own connection; restore with `quick` integrity",
            )
            .with_source(error);
    }
    let Some(code) = extended_code(&error) else {
        // Not SQLite's own: SQL that does not compile, a value of another type than was asked for.
        return Error::new(ErrorKind::Malformed, format!("cannot {step} {place}: {error}"))
            .with_source(error);
    };
    let made = match code & 0xff {
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => {
            Error::new(ErrorKind::Locked, format!("cannot {step} {place}: it is locked by another connection"))
                .with_hint("wait for the writer to finish, or allow a longer busy timeout")
        }
        ffi::SQLITE_NOTADB => not_a_database(step, path),
        ffi::SQLITE_CORRUPT => {
            Error::new(ErrorKind::Corrupt, format!("cannot {step} {place}: the database is damaged")).with_hint(
                "run `PRAGMA integrity_check`; a -wal or -journal file of another database beside it has the same effect",
            )
        }
        ffi::SQLITE_FULL => Error::new(ErrorKind::NoSpace, format!("cannot {step} {place}: no room left"))
            .with_hint("free room on that file system, or choose another place"),
        ffi::SQLITE_READONLY => read_only(step, path, code),
        ffi::SQLITE_PERM | ffi::SQLITE_AUTH => {
            Error::new(ErrorKind::Permission, format!("cannot {step} {place}: access denied"))
                .with_hint("run as a user who may, or change the owner or mode")
        }
        ffi::SQLITE_CANTOPEN => cannot_open(step, path),
        ffi::SQLITE_IOERR => io_failure(&error, step, path, code),
        ffi::SQLITE_INTERRUPT => Error::Cancelled,
        ffi::SQLITE_NOMEM | ffi::SQLITE_TOOBIG => {
            Error::new(ErrorKind::Unavailable, format!("cannot {step} {place}: not enough memory"))
        }
        _ => Error::new(ErrorKind::Malformed, format!("cannot {step} {place}: {error}")),
    };
    made.with_source(error)
}

/// Returns SQLite's extended result code.
pub(crate) fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// Reports whether another connection's lock is in the way, so that waiting helps.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    extended_code(error).is_some_and(|code| matches!(code & 0xff, ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED))
}

/// Says that what is there is the guard of a restore that was interrupted, where it is.
pub(crate) fn interrupted(step: &str, path: &Path) -> Option<Error> {
    crate::swap::is_pending(path).then(|| {
        Error::new(
            ErrorKind::InUse,
            format!("cannot {step} {}: a restore of it was interrupted and is not finished", path.display()),
        )
        .with_hint("run the restore again: it puts the old database back and begins anew")
    })
}

/// The header is not SQLite's. The file is not read by plain calls to say more: it may be open elsewhere in this
/// process through another SQLite library, whose locks a `close` would drop (sqlite.org/howtocorrupt.html §2.2).
fn not_a_database(step: &str, path: &Path) -> Error {
    let place = path.display();
    let size = path.metadata().map_or(0, |found| found.len());
    if let Some(error) = interrupted(step, path) {
        return error;
    }
    if size >= SMALLEST_PAGE && size.is_multiple_of(SMALLEST_PAGE) {
        return Error::new(
            ErrorKind::KeyRejected,
            format!(
                "cannot {step} {place}: its header is not SQLite's, so it is encrypted or not a database (size {size} bytes, whole pages)"
            ),
        )
        .with_hint(
            "this build holds no SQLCipher: make a plain copy with the program that has the key (`ATTACH … KEY ''; SELECT sqlcipher_export(…)`), or store the encrypted file with `--file` while its program is stopped; if it was never a database, check the path",
        );
    }
    Error::new(
        ErrorKind::Malformed,
        format!("cannot {step} {place}: it is not a SQLite database (size {size} bytes)"),
    )
    .with_hint("check the path")
}

fn read_only(step: &str, path: &Path, code: i32) -> Error {
    let place = path.display();
    let (why, hint) = match code {
        ffi::SQLITE_READONLY_ROLLBACK => (
            "a crashed writer left a -journal that must be rolled back, and the file cannot be written",
            "run as a user who may write the file and its folder",
        ),
        ffi::SQLITE_READONLY_RECOVERY | ffi::SQLITE_READONLY_CANTINIT | ffi::SQLITE_READONLY_CANTLOCK => (
            "its -wal must be recovered, and the folder cannot be written",
            "run as a user who may write the folder, or copy the file together with its -wal to a place that can be written",
        ),
        ffi::SQLITE_READONLY_DIRECTORY => {
            ("its folder cannot be written", "run as a user who may write the folder")
        }
        _ => ("it cannot be written", "run as a user who may, or change the owner or mode"),
    };
    Error::new(ErrorKind::Permission, format!("cannot {step} {place}: {why}")).with_hint(hint)
}

fn cannot_open(step: &str, path: &Path) -> Error {
    let place = path.display();
    let Ok(found) = path.metadata() else {
        return Error::new(ErrorKind::NotFound, format!("cannot {step} {place}: it is not there"));
    };
    if found.is_dir() {
        return Error::new(ErrorKind::InvalidInput, format!("cannot {step} {place}: it is a directory"));
    }
    Error::new(
        ErrorKind::Permission,
        format!("cannot {step} {place}: the file, or the -wal, -shm or -journal beside it, cannot be opened"),
    )
    .with_hint("a database in WAL mode needs a folder that can be written, also for reading; run as a user who may, or copy the database with its -wal to such a folder")
}

fn io_failure(error: &rusqlite::Error, step: &str, path: &Path, code: i32) -> Error {
    let place = path.display();
    let kind = match code {
        ffi::SQLITE_IOERR_CORRUPTFS => ErrorKind::Corrupt,
        ffi::SQLITE_IOERR_NOMEM => ErrorKind::Unavailable,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("cannot {step} {place}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: i32) -> Error {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        explain(error, "open", Path::new("/nowhere/app.db"))
    }

    #[test]
    fn result_codes_become_kinds_that_callers_act_on() {
        for (code, kind) in [
            (ffi::SQLITE_BUSY, ErrorKind::Locked),
            (ffi::SQLITE_BUSY_SNAPSHOT, ErrorKind::Locked),
            (ffi::SQLITE_NOTADB, ErrorKind::Malformed),
            (ffi::SQLITE_CORRUPT, ErrorKind::Corrupt),
            (ffi::SQLITE_FULL, ErrorKind::NoSpace),
            (ffi::SQLITE_READONLY_ROLLBACK, ErrorKind::Permission),
            (ffi::SQLITE_CANTOPEN, ErrorKind::NotFound),
            (ffi::SQLITE_IOERR_WRITE, ErrorKind::Io),
            (ffi::SQLITE_INTERRUPT, ErrorKind::Cancelled),
        ] {
            assert_eq!(of(code).kind(), kind, "{code}");
        }
    }

    #[test]
    fn messages_name_the_step_and_the_file() {
        let text = of(ffi::SQLITE_BUSY).to_string();
        assert!(text.contains("open") && text.contains("/nowhere/app.db"), "{text}");
        assert!(of(ffi::SQLITE_BUSY).hint().is_some());
    }
}
