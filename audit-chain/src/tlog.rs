//! Checkpoints of transparency logs: the text that says how long a log is and what its root is.
//!
//! [`crate::checkpoint`] and the repository's log write this text into a [`crate::note`].
//!
//! ```text
//! origin               a unique name of the log, not empty
//! size                 decimal number of leaves, no leading zero
//! root                 base64 of the RFC 6962 root, 32 bytes
//! extension …          any number of further lines, none empty
//! ```
//!
//! Layout: c2sp.org/tlog-checkpoint.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result};
use crate::merkle::Hash;

/// The text of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCheckpoint {
    origin: String,
    size: u64,
    root: Hash,
    extensions: Vec<String>,
}

impl LogCheckpoint {
    /// Makes a checkpoint without extension lines.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the origin is empty or holds a control character.
    pub fn new(origin: impl Into<String>, size: u64, root: Hash) -> Result<Self> {
        let origin = origin.into();
        check_line(&origin).map_err(|why| Error::InvalidInput(format!("origin of a checkpoint: {why}")))?;
        Ok(Self { origin, size, root, extensions: Vec::new() })
    }

    /// Adds an extension line.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when it is empty or holds a control character.
    pub fn push_extension(&mut self, line: impl Into<String>) -> Result<()> {
        let line = line.into();
        check_line(&line).map_err(|why| Error::InvalidInput(format!("extension of a checkpoint: {why}")))?;
        self.extensions.push(line);
        Ok(())
    }

    /// Reads the text of a note as a checkpoint.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the line.
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = |line: usize, what: String| Error::Malformed {
            input: "checkpoint".into(),
            place: format!("line {line}"),
            what,
        };
        let body = text
            .strip_suffix('\n')
            .ok_or_else(|| malformed(text.lines().count().max(1), "does not end in a newline".into()))?;
        let mut lines = Vec::new();
        for (at, line) in body.split('\n').enumerate() {
            check_line(line).map_err(|why| malformed(at + 1, why))?;
            lines.push(line);
        }
        let [origin, size, root, extensions @ ..] = lines.as_slice() else {
            return Err(malformed(lines.len(), "expected at least origin, size and root".into()));
        };
        Ok(Self {
            origin: (*origin).to_owned(),
            size: parse_decimal(size).map_err(|why| malformed(2, format!("size: {why}")))?,
            root: parse_root(root).map_err(|why| malformed(3, format!("root: {why}")))?,
            extensions: extensions.iter().map(|line| (*line).to_owned()).collect(),
        })
    }

    /// Returns the name of the log.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns the root over the leaves.
    #[must_use]
    pub const fn root(&self) -> &Hash {
        &self.root
    }

    /// Returns the extension lines.
    #[must_use]
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }
}

/// The text of the note, with its last newline.
impl fmt::Display for LogCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, STANDARD.encode(self.root))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn check_line(line: &str) -> Result<(), String> {
    if line.is_empty() {
        return Err("the line is empty".into());
    }
    match line.chars().find(|c| *c < ' ') {
        Some(found) => Err(format!("control character {:#04x}", u32::from(found))),
        None => Ok(()),
    }
}

/// Reads a decimal number in its one spelling: digits only, no leading zero, at most 2^64 - 1.
pub(crate) fn parse_decimal(text: &str) -> Result<u64, String> {
    let canonical = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    canonical
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| "expected a decimal number below 2^64 without leading zeros".into())
}

/// Reads 32 bytes of padded standard base64.
pub(crate) fn parse_root(text: &str) -> Result<Hash, String> {
    let bytes = STANDARD.decode(text).map_err(|_| "expected base64 of 32 bytes")?;
    let length = bytes.len();
    bytes.try_into().map_err(|_| format!("expected base64 of 32 bytes, found {length} bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "example.com/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";

    #[test]
    fn malformed_checkpoints_are_refused_with_the_line() {
        LogCheckpoint::parse(TEXT).unwrap();
        for (place, text) in [
            ("line 1", String::new()),
            ("line 3", TEXT.trim_end().to_owned()),
            ("line 2", "example.com/log\n0\n".into()),
            ("line 1", TEXT.replace("example.com/log", "")),
            ("line 2", TEXT.replace("\n0\n", "\n00\n")),
            ("line 2", TEXT.replace("\n0\n", "\n+1\n")),
            ("line 2", TEXT.replace("\n0\n", "\n-1\n")),
            ("line 2", TEXT.replace("\n0\n", "\n 1\n")),
            ("line 2", TEXT.replace("\n0\n", "\n18446744073709551616\n")),
            ("line 3", TEXT.replace("FU=", "FV=")),
            ("line 3", TEXT.replace("FU=", "FU")),
            ("line 3", TEXT.replace("47DEQpj8", "")),
            ("line 4", format!("{TEXT}\n")),
            ("line 4", format!("{TEXT}a\tb\n")),
            ("line 1", TEXT.replace('\n', "\r\n")),
        ] {
            let error = LogCheckpoint::parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("checkpoint: {place}: ")), "{text:?}: {error}");
        }
    }

    #[test]
    fn lines_that_would_break_the_text_are_not_written() {
        assert!(LogCheckpoint::new("", 0, [0; 32]).is_err());
        assert!(LogCheckpoint::new("a\nb", 0, [0; 32]).is_err());
        let mut checkpoint = LogCheckpoint::new("a", 0, [0; 32]).unwrap();
        assert!(checkpoint.push_extension("").is_err());
        assert!(checkpoint.push_extension("a\n").is_err());
    }

    proptest! {
        #[test]
        fn checkpoints_come_back(
            origin in "[^\\x00-\\x1f]{1,20}", size: u64, root: Hash,
            extensions in proptest::collection::vec("[^\\x00-\\x1f]{1,20}", 0..4),
        ) {
            let mut checkpoint = LogCheckpoint::new(origin, size, root).unwrap();
            for line in extensions {
                checkpoint.push_extension(line).unwrap();
            }
            prop_assert_eq!(LogCheckpoint::parse(&checkpoint.to_string()).unwrap(), checkpoint);
        }
    }
}
