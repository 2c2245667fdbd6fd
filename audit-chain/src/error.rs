//! The one table of what can go wrong, shared by every crate and every language.
//!
//! [`ErrorKind`] answers "would the caller act differently?"; each kind has one `ERR_…` code
//! (Node, JSON), one exit status (command line) and, in the Python package, one exception class.
//! The crates above carry their own error types and reuse this kind.

use std::path::PathBuf;

use serde::{Serialize, Serializer};

/// The table: for each kind its meaning, its `ERR_…` code, its exit status (INTERFACE.md, "Exit codes") and what to do when
/// the error itself has no better word.
///
/// `error_kinds!(mine)` calls `mine!` with all rows, so that every binding and every test that must know each kind is made
/// from this one place, and a kind that is added here cannot be forgotten there.
#[macro_export]
macro_rules! error_kinds {
    ($with:ident) => {
        $with! {
            /// The thing named does not exist.
            NotFound "ERR_NOT_FOUND" 4 "check the name and the path";
            /// The thing to be made exists already and is never overwritten.
            AlreadyExists "ERR_ALREADY_EXISTS" 3 "choose another name, or move away what is there";
            /// A name that could leave its folder, hide a file or be taken for something else.
            InvalidName "ERR_INVALID_NAME" 3 "use letters, digits, '-', '_' and '.'";
            /// An argument, option or plan that cannot be meant.
            InvalidInput "ERR_INVALID_INPUT" 2 "see `attestore --help`, or VERB --help";
            /// Input that is not what it is said to be (bad JSON, not a database, another format).
            Malformed "ERR_MALFORMED" 2 "check that this is the file that is meant, and that it is whole";
            /// Another process holds the lock.
            Locked "ERR_LOCKED" 7 "wait for the other process to end, then run it again";
            /// Another process has the target open.
            InUse "ERR_IN_USE" 3 "stop what uses it, then run it again";
            /// Made by a newer program than this one.
            Newer "ERR_NEWER" 3 "use the newer program";
            /// Belongs to another state of the program that shall use it: its migrations were changed, or one failed half-way.
            Incompatible "ERR_INCOMPATIBLE" 3 "use the program that it belongs to";
            /// This program, or this build of it, cannot do it.
            Unsupported "ERR_UNSUPPORTED" 2 "see `attestore --help` for what can be given";
            /// A server, tool or file system is not there or does not answer.
            Unavailable "ERR_UNAVAILABLE" 7 "run it again when the system has what is missing";
            /// The operating system or the server denies access.
            Permission "ERR_PERMISSION" 7 "run as a user who may, or change the owner or mode";
            /// No room left.
            NoSpace "ERR_NO_SPACE" 7 "free room on that file system, or choose another place";
            /// Bytes differ from their recorded digest or do not decode: damage.
            Corrupt "ERR_CORRUPT" 5 "use another copy or an older backup, and check the disk";
            /// A signature, a chain or a log is not what was signed: an alteration.
            Tampered "ERR_TAMPERED" 5 "trust nothing of it before it is known who changed it";
            /// A key or secret does not fit what it should open or verify.
            KeyRejected "ERR_KEY_REJECTED" 6 "check that it is the right key, whole, and given as what it is";
            /// A signature is asked for and there is none.
            Unsigned "ERR_UNSIGNED" 3 "ask without a public key to accept what nobody signed";
            /// What was restored or compared is not what the evidence says.
            Mismatch "ERR_MISMATCH" 5 "compare with the evidence of the right backup or log";
            /// The caller, or Ctrl-C, cancelled the work.
            Cancelled "ERR_CANCELLED" 130 "run it again when it suits";
            /// Any other failure of the operating system.
            Io "ERR_IO" 7 "see what the system says of the device or file system";
            /// A defect of this program.
            Internal "ERR_INTERNAL" 70 "report it with the command and this message";
        }
    };
}

/// Makes [`ErrorKind`] of the table.
macro_rules! make_kinds {
    ($($(#[$meaning:meta])* $kind:ident $code:literal $status:literal $advice:literal;)*) => {
        /// Says coarsely what went wrong: two errors differ in kind when a caller would act differently.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[$meaning])* $kind,)*
        }

        impl ErrorKind {
            /// Lists every kind, for tables and tests that walk all of them.
            pub const ALL: [Self; [$($status),*].len()] = [$(Self::$kind),*];

            /// Returns the kind's name, the same in every language.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)* }
            }

            /// Returns the code that JSON errors and the Node package carry.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$kind => $code,)* }
            }

            /// Returns the exit status of the command line (INTERFACE.md, "Exit codes").
            #[must_use]
            pub const fn exit_status(self) -> u8 {
                match self { $(Self::$kind => $status,)* }
            }

            /// Returns what to do next where an error has no hint of its own.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$kind => $advice,)* }
            }
        }
    };
}

error_kinds!(make_kinds);

impl ErrorKind {
    /// Returns the kind of an operating system error.
    #[must_use]
    pub fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        // ENFILE and EMFILE: the system or the process has no descriptor left. The same numbers on every Unix.
        if matches!(error.raw_os_error(), Some(23 | 24)) {
            return Self::Unavailable;
        }
        match error.kind() {
            Io::NotFound => Self::NotFound,
            Io::AlreadyExists => Self::AlreadyExists,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => Self::Permission,
            Io::StorageFull | Io::QuotaExceeded => Self::NoSpace,
            Io::OutOfMemory => Self::Unavailable,
            _ => Self::Io,
        }
    }
}

impl Serialize for ErrorKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A failure of this crate: reading input, reading keys, or a proof that cannot be made.
///
/// What a verification *finds* is not an error but a [`Finding`](crate::report::Finding) in a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input is not what its format says, at a line or record that is named.
    #[error("{input}: {place}: {what}")]
    Malformed {
        /// What was read: a path, `-`, a table.
        input: String,
        /// Where: `line 7`, `record 12`, `byte 301`.
        place: String,
        /// What was expected and what was found.
        what: String,
    },
    /// The input lacks columns that the format hashes; it may be another format.
    #[error("{input} is not {format}: {what}")]
    NotThisFormat {
        /// What was read.
        input: String,
        /// The format that was asked for.
        format: String,
        /// What is missing, and which format it looks like.
        what: String,
    },
    /// An argument that cannot be meant.
    #[error("{0}")]
    InvalidInput(String),
    /// A key or note that cannot be read.
    #[error("{what}: {why}")]
    BadKey {
        /// Which key, by name or source; never its value.
        what: String,
        /// What was expected and found.
        why: String,
    },
    /// A signature or proof does not verify.
    #[error("{what}: {why}")]
    Unverified {
        /// What was checked.
        what: String,
        /// Why it does not hold.
        why: String,
    },
    /// A signature is asked for and there is none.
    #[error("{what} is not signed")]
    Unsigned {
        /// What was checked.
        what: String,
    },
    /// The operating system failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The verb: `read`, `write`, `open`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// A source of rows failed (a backend's own error).
    #[error("cannot read {input}")]
    Source {
        /// Which source.
        input: String,
        /// The kind of the backend's error.
        kind: ErrorKind,
        /// The backend's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Returns the coarse kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed { .. } | Self::NotThisFormat { .. } => ErrorKind::Malformed,
            Self::InvalidInput(_) => ErrorKind::InvalidInput,
            Self::BadKey { .. } => ErrorKind::KeyRejected,
            Self::Unverified { .. } => ErrorKind::Tampered,
            Self::Unsigned { .. } => ErrorKind::Unsigned,
            Self::Io { source, .. } => ErrorKind::of_io(source),
            Self::Source { kind, .. } => *kind,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    /// Returns what to do next, where there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotThisFormat { .. } => {
                Some("name the format the data is in (`--format`), or a profile that describes it".into())
            }
            Self::BadKey { .. } => Some(
                "an Ed25519 key is 32 bytes: 64 hexadecimal digits, a minisign key, or a note key".into(),
            ),
            _ => None,
        }
    }
}

/// The result of this crate's fallible calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::ErrorKind;

    #[test]
    fn every_kind_has_its_own_name_and_code_and_a_documented_status() {
        let mut codes: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        for kind in ErrorKind::ALL {
            assert!([2, 3, 4, 5, 6, 7, 70, 130].contains(&kind.exit_status()), "{kind:?}");
            assert!(kind.code().starts_with("ERR_"), "{kind:?}");
        }
    }
}
