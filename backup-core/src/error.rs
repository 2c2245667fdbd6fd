//! What can go wrong with a backup, with the facts a caller needs to act.
//!
//! The coarse kinds, their `ERR_…` codes and exit statuses are one table, [`ErrorKind`].

use std::path::{Path, PathBuf};

pub use audit_chain::error::ErrorKind;

/// A failure of a backup, a restore, a repository or one of their parts.
///
/// The text names the object, what was expected and what was found; [`Error::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A failure with a kind, a sentence and a way on.
    #[error("{message}")]
    Fault {
        /// The coarse kind.
        kind: ErrorKind,
        /// The object, what was expected, what was found.
        message: String,
        /// What to do next.
        hint: Option<String>,
        /// What lies under it.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The operating system failed on a path.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The verb: `read`, `create`, `sync`, `rename`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// An object's bytes are not the recorded ones.
    #[error("{object}: {what}: expected {expected}, found {found}")]
    Digest {
        /// The object's name in the backup.
        object: String,
        /// Which figure: `sha256 of the stored bytes`, `size in bytes`.
        what: &'static str,
        /// The recorded value.
        expected: String,
        /// The value found.
        found: String,
    },
    /// A failure in audit-chain.
    #[error(transparent)]
    Chain(#[from] audit_chain::error::Error),
    /// The caller, or Ctrl-C, cancelled the work.
    #[error("cancelled; nothing was left behind")]
    Cancelled,
}

/// The result of this crate's fallible calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes a failure of a kind with its sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Fault { kind, message: message.into(), hint: None, source: None }
    }

    /// Makes an operating system failure on a path. When `source` carries an error of this crate (it came
    /// through a `Read` or `Write` of this crate), that error is returned with its own kind and facts.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        match source.downcast::<Self>() {
            Ok(carried) => carried,
            Err(source) => Self::Io { action, path: path.as_ref().to_owned(), source },
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Fault { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// Adds what lies under it.
    #[must_use]
    pub fn with_source(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        if let Self::Fault { source, .. } = &mut self {
            *source = Some(cause.into());
        }
        self
    }

    /// Returns the text with the texts of what lies under it, saying nothing twice.
    #[must_use]
    pub fn full_text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(under) = cause {
            let said = under.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = under.source();
        }
        text
    }

    /// Returns the coarse kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Fault { kind, .. } => *kind,
            Self::Io { source, .. } => ErrorKind::of_io(source),
            Self::Digest { .. } => ErrorKind::Corrupt,
            Self::Chain(error) => error.kind(),
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    /// Returns what to do next, where there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Fault { hint, .. } => hint.clone(),
            Self::Chain(error) => error.hint(),
            Self::Io { .. } => match self.kind() {
                ErrorKind::NoSpace => Some("free room on that file system, or choose another place".into()),
                ErrorKind::Permission => Some("run as a user who may, or change the owner or mode".into()),
                _ => None,
            },
            Self::Digest { .. } => Some("the object is damaged: restore from another backup".into()),
            Self::Cancelled => None,
        }
    }
}

/// Carries an error through `Read` and `Write`; [`Error::io`] takes it out again.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            ErrorKind::NotFound => Io::NotFound,
            ErrorKind::AlreadyExists => Io::AlreadyExists,
            ErrorKind::Permission => Io::PermissionDenied,
            ErrorKind::NoSpace => Io::StorageFull,
            ErrorKind::InvalidName | ErrorKind::InvalidInput => Io::InvalidInput,
            ErrorKind::Malformed | ErrorKind::Corrupt | ErrorKind::Tampered | ErrorKind::KeyRejected => {
                Io::InvalidData
            }
            _ => Io::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, ErrorKind};

    #[test]
    fn causes_are_told_once_each() {
        let under = std::io::Error::other("no such table: x");
        let error = Error::new(ErrorKind::InvalidInput, "the check does not run").with_source(under);
        assert_eq!(error.full_text(), "the check does not run: no such table: x");
        let io = Error::io("read", "/x", std::io::Error::from(std::io::ErrorKind::NotFound));
        assert_eq!(io.full_text(), io.to_string());
    }

    #[test]
    fn an_error_keeps_its_facts_through_read_and_write() {
        let carried: std::io::Error = Error::Cancelled.into();
        assert!(matches!(Error::io("write", "/x", carried), Error::Cancelled));

        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let carried: std::io::Error = Error::io("write", "/the/path", full).into();
        let error = Error::io("seal", "another name", carried);
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.to_string().contains("/the/path"), "{error}");
    }
}
