//! Says what a file really is when it is not what it was given as, by how it begins.
//!
//! Called by the readers of NDJSON, CSV and JSON with the first block of their input, before anything is parsed, and by
//! the command line for what it would open as a database. Compressed, encrypted and binary files are told by their magic
//! bytes; the three kinds of text by their first line. What is not recognised is left to the parser.

/// A kind of text that rows are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextKind {
    /// One JSON object a line.
    Ndjson,
    /// One JSON document with an array of records.
    Json,
    /// A header and records.
    Csv,
}

impl TextKind {
    /// Returns its name and what to do about it.
    const fn described(self) -> (&'static str, &'static str) {
        match self {
            Self::Ndjson => ("NDJSON", "give it the ending .ndjson"),
            Self::Json => ("one JSON document", "give it the ending .json"),
            Self::Csv => ("CSV", "give it the ending .csv"),
        }
    }

    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.described().0
    }
}

/// How other files begin, what they are, and what to do.
const MAGIC: &[(&[u8], &str, &str)] = &[
    (b"\x1f\x8b", "a gzip file", "decompress it first (gzip -d)"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "decompress it first (zstd -d)"),
    (b"\xfd7zXZ\0", "an xz file", "decompress it first (xz -d)"),
    (b"BZh", "a bzip2 file", "decompress it first (bzip2 -d)"),
    (b"PK\x03\x04", "a ZIP file (or an XLSX sheet)", "unpack it, or export the rows as CSV or NDJSON"),
    (b"SQLite format 3\0", "a SQLite database", "give it as sqlite:PATH"),
    (
        b"PGDMP",
        "a PostgreSQL dump in the custom format",
        "export the table: COPY … TO STDOUT (FORMAT csv, HEADER)",
    ),
    (
        b"--\n-- PostgreSQL database",
        "a PostgreSQL dump in SQL",
        "export the table: COPY … TO STDOUT (FORMAT csv, HEADER)",
    ),
    (b"PAR1", "a Parquet file", "export the table as CSV or NDJSON"),
    (b"age-encryption.org/", "a file encrypted with age", "decrypt it first (age -d)"),
    (b"-----BEGIN AGE ENCRYPTED FILE", "a file encrypted with age", "decrypt it first (age -d)"),
    (b"\xff\xfe", "UTF-16 text", "convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    (b"\xfe\xff", "UTF-16 text", "convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"),
];

/// Tells which kind of text begins so; `None` where it cannot be told.
#[must_use]
pub fn kind_of(beginning: &[u8]) -> Option<TextKind> {
    let text = beginning.trim_ascii_start();
    let (line, rest) = match memchr::memchr(b'\n', text) {
        Some(end) => text.split_at(end),
        None => (text, &[][..]),
    };
    match text.first()? {
        b'[' => Some(TextKind::Json),
        b'{' => {
            let alone = serde_json::from_slice::<serde::de::IgnoredAny>(line);
            match (alone, rest.trim_ascii_start().first()) {
                (Ok(_), Some(b'{')) => Some(TextKind::Ndjson),
                // The line is broken where a member's name may stand, not inside a record.
                (Err(error), Some(b'"')) if error.is_eof() => Some(TextKind::Json),
                _ => None,
            }
        }
        _ => {
            // A header: names and separators, nothing else.
            let line = std::str::from_utf8(line.trim_ascii_end()).ok()?;
            let names =
                |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '"' | ' ' | '.');
            let header = line.contains([',', ';', '\t'])
                && line.chars().all(|letter| names(letter) || matches!(letter, ',' | ';' | '\t'));
            header.then_some(TextKind::Csv)
        }
    }
}

/// Says what a file that begins so is and what to do, when it cannot be `wanted`.
#[must_use]
pub fn other_than(wanted: &str, beginning: &[u8]) -> Option<String> {
    if let Some((_, what, todo)) = MAGIC.iter().find(|(magic, _, _)| beginning.starts_with(magic)) {
        return Some(format!("this is {what}, not {wanted}: {todo}"));
    }
    if beginning.get(257..262) == Some(b"ustar") {
        return Some(format!("this is a tar archive, not {wanted}: unpack it first"));
    }
    let (name, todo) = kind_of(beginning)?.described();
    (name != wanted).then(|| format!("this looks like {name}, not {wanted}: {todo}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_how_they_begin() {
        for (beginning, expected) in [
            (&b"\x1f\x8b\x08\0"[..], "a gzip file"),
            (b"\x28\xb5\x2f\xfdx", "a zstd file"),
            (b"\xfd7zXZ\0", "an xz file"),
            (b"BZh9", "a bzip2 file"),
            (b"PK\x03\x04", "a ZIP file"),
            (b"SQLite format 3\0", "a SQLite database"),
            (b"PGDMP\x01", "a PostgreSQL dump in the custom format"),
            (b"--\n-- PostgreSQL database dump\n", "a PostgreSQL dump in SQL"),
            (b"PAR1", "a Parquet file"),
            (b"age-encryption.org/v1\n", "a file encrypted with age"),
            (b"\xff\xfe{\0", "UTF-16 text"),
            (b"\xfe\xff\0{", "UTF-16 text"),
        ] {
            let said = other_than("NDJSON", beginning).unwrap();
            assert!(said.starts_with(&format!("this is {expected}")), "{said}");
            assert!(said.contains(", not NDJSON: "), "{said}");
        }
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(other_than("CSV", &tar).unwrap().starts_with("this is a tar archive, not CSV"));
    }

    #[test]
    fn the_three_kinds_of_text_are_told_by_their_first_line() {
        for (beginning, expected) in [
            ("{\"a\":1}\n{\"a\":2}\n", Some(TextKind::Ndjson)),
            ("\n {\"a\":[1]}\r\n\r\n{\"a\"", Some(TextKind::Ndjson)),
            ("[{\"a\":1}]", Some(TextKind::Json)),
            (" [\n", Some(TextKind::Json)),
            ("{\n \"receipts\": [", Some(TextKind::Json)),
            ("{\"receipts\":[{}]}\n", None),
            ("{\"a\":1}", None),
            ("{\"a\":\n{\"a\":1}\n", None),
            ("{\"a\":tru}\n{\"a\":1}\n", None),
            ("id,seq,\"prev hash\"\n1,2,3\n", Some(TextKind::Csv)),
            ("id;b\n", Some(TextKind::Csv)),
            ("hello", None),
            ("hello, {world}", None),
            ("null\n", None),
            ("", None),
        ] {
            assert_eq!(kind_of(beginning.as_bytes()), expected, "{beginning:?}");
        }
        assert_eq!(other_than("NDJSON", b"{\"a\":1}\n{\"a\":2}\n"), None);
        assert_eq!(
            other_than("CSV", b"[1]").unwrap(),
            "this looks like one JSON document, not CSV: give it the ending .json"
        );
    }
}
