//! Reads what a user calls a source or an input: a path, `sqlite:PATH`, `postgres://…`, `-`.

use std::path::{Path, PathBuf};

use backup_core::error::{Error, ErrorKind, Result};

use crate::postgres::Server;

/// What an INPUT of the command line (or of a binding) names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A SQLite database file.
    Sqlite(PathBuf),
    /// A database on a PostgreSQL server.
    Postgres(Server),
    /// NDJSON: one object a line.
    Ndjson(PathBuf),
    /// A JSON document: an array of objects.
    Json(PathBuf),
    /// CSV with a header.
    Csv(PathBuf),
    /// A folder of NDJSON files.
    Dump(PathBuf),
    /// NDJSON on standard input.
    Stdin,
}

impl Input {
    /// Reads the text of an INPUT. A path without a known ending is a SQLite file, a folder is a dump.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such path, [`ErrorKind::Unsupported`] for a server this build has no backend for.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "-" {
            return Ok(Self::Stdin);
        }
        if let Some(server) = Server::parse(text) {
            return Ok(Self::Postgres(server));
        }
        if let Some(path) = sqlite_path(text)? {
            return Ok(Self::Sqlite(path));
        }
        let path = PathBuf::from(text);
        let found = std::fs::metadata(&path).map_err(|source| Error::io("read", &path, source))?;
        if found.is_dir() {
            return Ok(Self::Dump(path));
        }
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or("").to_ascii_lowercase();
        Ok(match ending.as_str() {
            "ndjson" | "jsonl" => Self::Ndjson(path),
            "json" => Self::Json(path),
            "csv" => Self::Csv(path),
            _ => Self::Sqlite(path),
        })
    }
}

/// A database to back up, and the name it is given in the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name; the file's stem where `None`.
    pub name: Option<String>,
    /// The file.
    pub path: PathBuf,
}

/// Reads a SOURCE: a path, `sqlite:PATH`, or either behind `NAME=`. What exists under the whole text is that file.
///
/// # Errors
/// As [`database`].
pub fn source(text: &str) -> Result<Source> {
    let named = text.split_once('=').filter(|(name, rest)| {
        !name.is_empty() && !rest.is_empty() && !name.contains(['/', ':']) && !Path::new(text).exists()
    });
    match named {
        Some((name, rest)) => Ok(Source { name: Some(name.to_owned()), path: database(rest)? }),
        None => Ok(Source { name: None, path: database(text)? }),
    }
}

/// Reads the path of a database.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for a server this build has no backend for.
pub fn database(text: &str) -> Result<PathBuf> {
    Ok(sqlite_path(text)?.unwrap_or_else(|| Path::new(text).to_owned()))
}

/// Takes the path out of a `sqlite:` URL; `None` for a plain path.
fn sqlite_path(text: &str) -> Result<Option<PathBuf>> {
    if text.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "a path is empty: expected a path or sqlite:PATH"));
    }
    if let Some(rest) = text.strip_prefix("sqlite:") {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        if path.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, format!("{text}: expected sqlite:PATH")));
        }
        return Ok(Some(PathBuf::from(path)));
    }
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        Some("postgres" | "postgresql") => {
            Err(Error::new(ErrorKind::Unsupported, "postgres: a file or folder is wanted here, not a server")
                .with_hint("name a path, or sqlite:PATH"))
        }
        Some(other) if !Path::new(text).exists() => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{other}: no such kind of database: expected a path or sqlite:PATH"),
        )),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_paths_are_told_apart() {
        assert_eq!(database("sqlite:///var/app.db").unwrap(), Path::new("/var/app.db"));
        assert_eq!(database("sqlite:app.db").unwrap(), Path::new("app.db"));
        assert_eq!(database("a b/ü.db").unwrap(), Path::new("a b/ü.db"));
        assert_eq!(database("postgres://u:secret@h/d").unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(!database("postgres://u:secret@h/d").unwrap_err().to_string().contains("secret"));
        assert_eq!(database("mysql://h/d").unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(database("").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(database("sqlite:").unwrap_err().kind(), ErrorKind::InvalidInput);
        let named = |text: &str| source(text).unwrap().name;
        assert_eq!(named("eu=/var/app.db"), Some("eu".to_owned()));
        assert_eq!(source("eu=sqlite:a=b.db").unwrap().path, Path::new("a=b.db"));
        for text in ["app.db", "/a=b/app.db", "sqlite:a=b.db", "=app.db"] {
            assert_eq!(named(text), None, "{text}");
        }
        assert_eq!(Input::parse("-").unwrap(), Input::Stdin);
        assert_eq!(Input::parse("no-such-file").unwrap_err().kind(), ErrorKind::NotFound);
        assert!(matches!(Input::parse(".").unwrap(), Input::Dump(_)));
    }
}
