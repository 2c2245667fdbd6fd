//! What can go wrong with a PostgreSQL server or its tools, with the facts a caller needs to act.
//!
//! The coarse kinds are those of the one table ([`ErrorKind`]). Every error of this crate becomes a
//! [`backup_core::error::Error`] of the same kind, text and hint at the traits; what PostgreSQL said stays under it.
//! No variant ever carries a password: messages name host, port, database and role only.

use backup_core::error::Error as CoreError;
pub use backup_core::error::ErrorKind;
use postgres::error::SqlState;

/// A failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A connection string, a service or a setting that cannot be meant.
    #[error("{place}: {what}")]
    Parameter {
        /// Which: `the connection URL`, `service "app"`, `sslmode`.
        place: String,
        /// What was expected and found; never a value that may be secret.
        what: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// No server could be reached, or it let nobody in.
    #[error("cannot connect to {server}: {why}")]
    Connect {
        /// Host, port, database and role.
        server: String,
        /// The coarse kind.
        kind: ErrorKind,
        /// What the server or the system said.
        why: String,
        /// What to do next.
        hint: Option<String>,
        /// What lies under it.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The server refused or failed a step, or the connection was lost in it.
    #[error("cannot {step} {database}: {message}")]
    Server {
        /// What was being done, as a verb phrase: `count rows in`, `read table public.t of`.
        step: String,
        /// Which database.
        database: String,
        /// The coarse kind.
        kind: ErrorKind,
        /// What the server said.
        message: String,
        /// What to do next.
        hint: Option<String>,
        /// The client library's error.
        source: Box<postgres::Error>,
    },
    /// A program of PostgreSQL is not on this machine.
    #[error("{tool} is not installed; looked in {looked}")]
    ToolMissing {
        /// Its name.
        tool: String,
        /// Where it was looked for.
        looked: String,
        /// The line that installs it.
        install: String,
    },
    /// Every program of PostgreSQL that is here is older than the server.
    #[error(
        "{tool} is older than the server: the server is PostgreSQL {server}, the newest {tool} here is {found}"
    )]
    ToolTooOld {
        /// Its name.
        tool: String,
        /// The server's version.
        server: String,
        /// The newest version that was found, and where.
        found: String,
        /// The line that installs one that fits.
        install: String,
    },
    /// A program of PostgreSQL ended with a failure.
    #[error("{tool} failed ({status}): {stderr}")]
    ToolFailed {
        /// Its name.
        tool: String,
        /// Its exit status or signal.
        status: String,
        /// The end of what it said.
        stderr: String,
        /// The coarse kind.
        kind: ErrorKind,
        /// What to do next.
        hint: Option<String>,
    },
    /// A row-security policy would hide rows from the role at hand, so that a backup would silently lack them.
    #[error(
        "row security would hide rows of {table} from the role {role}: the backup would silently lack them"
    )]
    Filtered {
        /// The table.
        table: String,
        /// The role.
        role: String,
    },
    /// Anything else that refuses or stops the work.
    #[error(transparent)]
    Core(#[from] CoreError),
}

/// The result of this crate's fallible calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes a failure of a kind with its sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Core(CoreError::new(kind, message))
    }

    /// Makes a refusal of a connection parameter.
    pub(crate) fn parameter(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Parameter { place: place.into(), what: what.into(), hint: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Self::Parameter { hint, .. }
            | Self::Connect { hint, .. }
            | Self::Server { hint, .. }
            | Self::ToolFailed { hint, .. } => *hint = Some(text.into()),
            Self::Core(_) => {
                if let Self::Core(error) = self {
                    return Self::Core(error.with_hint(text));
                }
            }
            Self::ToolMissing { .. } | Self::ToolTooOld { .. } | Self::Filtered { .. } => {}
        }
        self
    }

    /// Returns the coarse kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Parameter { .. } => ErrorKind::InvalidInput,
            Self::Connect { kind, .. } | Self::Server { kind, .. } | Self::ToolFailed { kind, .. } => *kind,
            Self::ToolMissing { .. } | Self::ToolTooOld { .. } => ErrorKind::Unavailable,
            Self::Filtered { .. } => ErrorKind::Permission,
            Self::Core(error) => error.kind(),
        }
    }

    /// Returns the SQLSTATE that the server answered with, where it did.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server { source, .. } => source.code().map(SqlState::code),
            _ => None,
        }
    }

    /// Returns what to do next, where there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Parameter { hint, .. }
            | Self::Connect { hint, .. }
            | Self::Server { hint, .. }
            | Self::ToolFailed { hint, .. } => hint.clone(),
            Self::ToolMissing { install, .. } | Self::ToolTooOld { install, .. } => Some(install.clone()),
            Self::Filtered { .. } => Some(
                "back up as the tables' owner, as a superuser or as a role with BYPASSRLS; where the policies let everything pass under a session setting, name it (`options=-c name=value`)"
                    .into(),
            ),
            Self::Core(error) => error.hint(),
        }
    }
}

impl From<Error> for CoreError {
    fn from(error: Error) -> Self {
        let (kind, hint) = (error.kind(), error.hint());
        match error {
            Error::Core(error) => error,
            other => {
                let mut made = Self::new(kind, other.to_string());
                if let Some(hint) = hint {
                    made = made.with_hint(hint);
                }
                made.with_source(other)
            }
        }
    }
}

impl From<audit_chain::error::Error> for Error {
    fn from(error: audit_chain::error::Error) -> Self {
        Self::Core(match error {
            audit_chain::error::Error::Cancelled => CoreError::Cancelled,
            other => CoreError::Chain(other),
        })
    }
}

/// Returns the kind that a SQLSTATE stands for (PostgreSQL manual, appendix A).
pub(crate) fn kind_of(state: &SqlState) -> ErrorKind {
    let code = state.code();
    match code {
        "3D000" | "42P01" | "3F000" | "42883" | "42704" => ErrorKind::NotFound,
        "42501" | "25006" => ErrorKind::Permission,
        "42P04" | "42P07" | "42710" => ErrorKind::AlreadyExists,
        "55P03" => ErrorKind::Locked,
        "55006" => ErrorKind::InUse,
        "53100" => ErrorKind::NoSpace,
        "0A000" => ErrorKind::Unsupported,
        "XX001" | "XX002" => ErrorKind::Corrupt,
        _ if code.starts_with("28") => ErrorKind::Permission,
        _ if code.starts_with("42") || code.starts_with("22") => ErrorKind::InvalidInput,
        _ => ErrorKind::Unavailable,
    }
}

/// Says what to do about a SQLSTATE, where that is known.
fn hint_of(code: &str, message: &str) -> Option<&'static str> {
    Some(match code {
        "55P03" => {
            "another session holds a lock that keeps readers out (ACCESS EXCLUSIVE: ALTER TABLE, TRUNCATE, VACUUM FULL); wait for it, or allow a longer lock timeout"
        }
        "42501" if message.contains("row-level security") || message.contains("row security") => {
            "use a role that sees every row: the owner, a superuser or one with BYPASSRLS"
        }
        "42501" => {
            "grant the role what it lacks, for example membership of pg_read_all_data (PostgreSQL 14 and newer)"
        }
        "40001" | "57014" if message.contains("recovery") => {
            "the standby cancelled the query to go on with replay: raise max_standby_streaming_delay, or set hot_standby_feedback"
        }
        "57014" => "a statement timeout of the server or role ended the query, or somebody cancelled it",
        "57P01" | "57P02" => "the server was stopped, or an administrator ended the session",
        "57P03" => "the server is starting or stopping: try again",
        "53300" => "the server has no free connection: raise max_connections, or wait",
        "53100" => "free room on the server's disk",
        "3D000" => "check the name of the database",
        "28P01" | "28000" => {
            "check the role, its password (PGPASSFILE, PGPASSWORD) and the server's pg_hba.conf"
        }
        _ => return None,
    })
}

/// Makes an error of what the server or the connection said. `step` is a verb phrase, `database` names it.
pub(crate) fn explain(error: postgres::Error, step: impl Into<String>, database: &str) -> Error {
    let (kind, message, hint) = match error.as_db_error() {
        Some(said) => {
            let code = said.code();
            let hint = hint_of(code.code(), said.message()).map(str::to_owned);
            (kind_of(code), said.message().to_owned(), hint.or_else(|| said.hint().map(str::to_owned)))
        }
        None => {
            let mut why = error.to_string();
            let mut under = std::error::Error::source(&error);
            while let Some(cause) = under {
                let said = cause.to_string();
                if !why.contains(&said) {
                    why = format!("{why}: {said}");
                }
                under = cause.source();
            }
            let kind = if error.is_closed() || is_io(&error) {
                ErrorKind::Unavailable
            } else {
                ErrorKind::Malformed
            };
            let lost = kind == ErrorKind::Unavailable;
            (
                kind,
                if lost { format!("the connection was lost: {why}") } else { why },
                lost.then(|| "see the server's log, and try again".to_owned()),
            )
        }
    };
    Error::Server {
        step: step.into(),
        database: database.to_owned(),
        kind,
        message,
        hint,
        source: Box::new(error),
    }
}

/// Reports whether the operating system failed, not the server.
pub(crate) fn is_io(error: &postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_become_kinds_that_callers_act_on() {
        for (code, kind) in [
            ("3D000", ErrorKind::NotFound),
            ("28P01", ErrorKind::Permission),
            ("42501", ErrorKind::Permission),
            ("55P03", ErrorKind::Locked),
            ("57P01", ErrorKind::Unavailable),
            ("53100", ErrorKind::NoSpace),
            ("XX001", ErrorKind::Corrupt),
            ("42601", ErrorKind::InvalidInput),
            ("08006", ErrorKind::Unavailable),
        ] {
            assert_eq!(kind_of(&SqlState::from_code(code)), kind, "{code}");
        }
    }

    #[test]
    fn an_error_keeps_kind_text_and_hint_at_the_traits() {
        let error = Error::Filtered { table: "public.t".into(), role: "low".into() };
        let (text, kind) = (error.to_string(), error.kind());
        let core = CoreError::from(error);
        assert_eq!((core.to_string(), core.kind()), (text, kind));
        assert!(core.hint().unwrap().contains("BYPASSRLS"));
        let kept = Error::from(CoreError::Cancelled).with_hint("x");
        assert!(matches!(CoreError::from(kept), CoreError::Cancelled));
    }
}
