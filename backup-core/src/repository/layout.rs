//! Where everything in a repository lies, and how a backup gets its id.
//!
//! Called by every file of `repository`; touches the disk only to read and write `repository.json`.
//!
//! ```text
//! repository.json             this header
//! lock                        held by the one operation that writes backups (`lock`)
//! backups/<id>/               committed backups; nothing else may lie here
//! staging/                    what is being written or removed; the next holder of the lock cleans it up
//! log/lock                    held for the milliseconds of an append
//! log/key                     the private key of the repository's log (mode 0600)
//! log/entries/<8 digits>.ndjson
//! log/checkpoint              a signed note (c2sp.org/tlog-checkpoint)
//! log/state.json              a cache that is rebuilt when it is missing or wrong
//! ```

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::error::{Error, ErrorKind, Result};

/// What the member `format` of `repository.json` says.
pub const FORMAT: &str = "attestore-repository";
/// The version of the layout that this program writes, and the newest that it works with.
pub const FORMAT_VERSION: u32 = 1;
/// The largest header that is read, in bytes.
const MAX_HEADER_BYTES: u64 = 1 << 16;

/// `repository.json`: what a repository says of itself. Never rewritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: String,
    /// [`FORMAT_VERSION`] or below.
    pub format_version: u32,
    /// 32 random hexadecimal digits.
    pub id: String,
    /// When it was made, by the clock of the machine that made it.
    pub created_at: Timestamp,
    /// The origin line of the log's checkpoints (`attestore.dev/repository/<id>`).
    pub log_origin: String,
    /// The public key of the log in note form (`<origin>+<8 hex>+<base64>`).
    pub log_key: String,
}

/// What is read before anything else, so that a newer layout is called newer and not malformed.
#[derive(Deserialize)]
struct Probe {
    format: String,
    format_version: u64,
}

impl Header {
    /// Reads `repository.json`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when `root` is no repository; [`ErrorKind::Newer`] when a newer program made it;
    /// [`ErrorKind::Malformed`] when the header is damaged.
    pub fn read(layout: &Layout) -> Result<Self> {
        let path = layout.header();
        let bytes = read_limited(&path, MAX_HEADER_BYTES).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let what = if layout.root().is_dir() { "holds no repository.json" } else { "does not exist" };
                Error::new(
                    ErrorKind::NotFound,
                    format!("{} is not a repository: it {what}", layout.root().display()),
                )
                .with_hint(format!("make one: attestore init {}", layout.root().display()))
            }
            _ if layout.root().is_file() => Error::new(
                ErrorKind::Malformed,
                format!("{} is not a repository: it is a file", layout.root().display()),
            )
            .with_hint("name the folder that `attestore init` made"),
            _ => error,
        })?;
        let malformed =
            |what: String| Error::new(ErrorKind::Malformed, format!("{}: {what}", path.display()));
        let probe: Probe = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        if probe.format != FORMAT {
            return Err(malformed(format!("format: expected {FORMAT:?}, found {:?}", probe.format)));
        }
        if probe.format_version > u64::from(FORMAT_VERSION) {
            let message = format!(
                "the repository {} has format version {}, this program works with up to {FORMAT_VERSION}",
                layout.root().display(),
                probe.format_version
            );
            return Err(Error::new(ErrorKind::Newer, message)
                .with_hint("use the newer Attestore that made this repository"));
        }
        serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))
    }

    /// Writes the header in canonical form (RFC 8785).
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json_canonicalizer::to_vec(self).map_err(|error| {
            Error::new(ErrorKind::Internal, "repository.json cannot be written").with_source(error)
        })
    }
}

/// The paths of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the paths under a root; touches nothing.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns the repository's own folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns `repository.json`.
    #[must_use]
    pub fn header(&self) -> PathBuf {
        self.root.join("repository.json")
    }

    /// Returns the lock of the operation that writes.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Returns the folder of committed backups.
    #[must_use]
    pub fn backups(&self) -> PathBuf {
        self.root.join("backups")
    }

    /// Returns a backup's folder.
    #[must_use]
    pub fn backup(&self, id: &str) -> PathBuf {
        self.root.join("backups").join(id)
    }

    /// Returns the folder of unfinished work.
    #[must_use]
    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// Returns the log's folder.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Returns the lock of the log.
    #[must_use]
    pub fn log_lock(&self) -> PathBuf {
        self.root.join("log").join("lock")
    }

    /// Returns the log's private key.
    #[must_use]
    pub fn log_key(&self) -> PathBuf {
        self.root.join("log").join("key")
    }

    /// Returns the folder of the log's bundles.
    #[must_use]
    pub fn log_entries(&self) -> PathBuf {
        self.root.join("log").join("entries")
    }

    /// Returns the bundle of a number.
    #[must_use]
    pub fn log_bundle(&self, number: u64) -> PathBuf {
        self.log_entries().join(format!("{number:08}.ndjson"))
    }

    /// Returns the log's signed checkpoint.
    #[must_use]
    pub fn log_checkpoint(&self) -> PathBuf {
        self.root.join("log").join("checkpoint")
    }

    /// Returns the log's cache.
    #[must_use]
    pub fn log_state(&self) -> PathBuf {
        self.root.join("log").join("state.json")
    }
}

/// The manifest's name in a backup's folder.
pub const MANIFEST: &str = "manifest.json";
/// The name of the manifest's signature.
pub const SIGNATURE: &str = "manifest.json.minisig";

/// Makes an id from a time: `20261120T153000Z`, or with `-1`, `-2` … behind it when that is taken.
pub(super) fn make_id(time: Timestamp, taken: impl Fn(&str) -> bool) -> String {
    let base = time.strftime("%Y%m%dT%H%M%SZ").to_string();
    if !taken(&base) {
        return base;
    }
    let mut number = 1_u64;
    loop {
        let id = format!("{base}-{number}");
        if !taken(&id) {
            return id;
        }
        number += 1;
    }
}

/// Reads a regular file that must be small.
pub(super) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let file = durable::open_read(path)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| Error::io("read", path, error))?;
    if bytes.len() as u64 > limit {
        let message = format!("{}: expected at most {limit} bytes, found more", path.display());
        return Err(Error::new(ErrorKind::Malformed, message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::make_id;

    #[test]
    fn an_id_is_a_utc_time_and_unique() {
        let time = "2026-11-20T15:30:00.75Z".parse().unwrap();
        assert_eq!(make_id(time, |_| false), "20261120T153000Z");
        assert_eq!(make_id(time, |id| id == "20261120T153000Z"), "20261120T153000Z-1");
        assert_eq!(make_id(time, |id| id.len() < 19 && !id.ends_with("-3")), "20261120T153000Z-3");
        crate::names::validate_name(&make_id(time, |_| false)).unwrap();
    }
}
