//! Versions of servers and programs, and which of them go together.

use std::fmt;

/// A server's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    number: i32,
    text: String,
}

impl ServerVersion {
    /// Makes a version of `server_version_num` (150018) and `server_version` (`15.18 (Debian …)`).
    #[must_use]
    pub fn new(number: i32, text: String) -> Self {
        Self { number, text }
    }

    /// Returns the major version (15; 9 for 9.6).
    #[must_use]
    pub const fn major(&self) -> i32 {
        self.number / 10_000
    }

    /// Returns the number (150018 for 15.18).
    #[must_use]
    pub const fn number(&self) -> i32 {
        self.number
    }

    /// Returns the version without what a distributor added (`15.18`).
    #[must_use]
    pub fn short(&self) -> &str {
        self.text.split_whitespace().next().unwrap_or(&self.text)
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A program's version, read from what `--version` prints.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ToolVersion {
    major: i32,
    minor: i32,
    text: String,
}

impl ToolVersion {
    /// Reads `pg_dump (PostgreSQL) 15.18 (Debian …)`, `psql (PostgreSQL) 17beta1`.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let text = line.split("(PostgreSQL)").nth(1)?.split_whitespace().next()?;
        let digits = |part: &str| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part.get(..end).unwrap_or("").parse::<i32>().ok()
        };
        let mut parts = text.split('.');
        let major = digits(parts.next()?)?;
        let minor = parts.next().and_then(digits).unwrap_or(0);
        Some(Self { major, minor, text: text.to_owned() })
    }

    /// Returns the major version.
    #[must_use]
    pub const fn major(&self) -> i32 {
        self.major
    }

    /// Reports whether this program may read a server of that version: its major version is not older.
    #[must_use]
    pub const fn reads(&self, server_major: i32) -> bool {
        self.major >= server_major
    }
}

impl fmt::Display for ToolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let read = |line| ToolVersion::parse(line).unwrap();
        let debian = read("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)");
        assert_eq!((debian.major(), debian.to_string().as_str()), (15, "15.18"));
        assert!(read("pg_dump (PostgreSQL) 17beta1") > debian && read("psql (PostgreSQL) 9.6.24") < debian);
        assert!(read("pg_dump (PostgreSQL) 15.9") < debian);
        assert!(debian.reads(15) && debian.reads(14) && !debian.reads(16));
        assert_eq!(ToolVersion::parse("pg_dump: not found"), None);
        let server = ServerVersion::new(150_018, "15.18 (Debian 15.18-0+deb12u1)".into());
        assert_eq!((server.major(), server.short()), (15, "15.18"));
    }
}
