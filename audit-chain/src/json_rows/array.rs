//! The records of one JSON document as lines, read as they come.
//!
//! Services answer with an array of records, or with an object in which one member is that array: `[…]`,
//! `{"receipts": […], "next": null}`. [`ArrayLines`] reads such a document and gives each record as one line, so that a
//! document of any length is read like NDJSON, in bounded memory and on all cores. Only brackets, quotes, commas and colons are looked at
//! here; `serde_json` judges each record, and at the end what stands around the array.

use std::fmt;
use std::io::{Error as IoError, ErrorKind, Read};

use serde_json::value::RawValue;

use crate::sniff::{self, TextKind};

/// How much may stand before and after the array, in bytes (16 MiB).
const MAX_AROUND: usize = 16 << 20;

/// How much is read at a time, in bytes (64 KiB).
const BUFFER_BYTES: usize = 64 << 10;

/// What is wrong with a document's shape.
#[derive(Debug)]
pub(super) struct Shape {
    /// Where: `record 7`, `byte 301`.
    pub(super) place: String,
    /// What was expected and found.
    pub(super) what: String,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl std::error::Error for Shape {}

/// Where in the document the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the array.
    Before,
    /// In the array, where a record or the end is next. The flag says that a record must be (after a comma).
    Between(bool),
    /// In a record.
    Inside,
    /// After a record: a comma or the end is next.
    AfterRecord,
    /// After the array.
    After,
    Done,
}

/// Gives the records of a document as lines.
pub(super) struct ArrayLines<R> {
    input: R,
    buffer: Vec<u8>,
    /// The part of `buffer` that is not looked at yet.
    from: usize,
    ended: bool,
    place: Place,
    depth: usize,
    quoted: bool,
    escaped: bool,
    /// What stands around the array, `[]` in its place.
    around: Vec<u8>,
    /// Whether the document itself is the array.
    bare: bool,
    records: u64,
    offset: u64,
}

impl<R: Read> ArrayLines<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            from: 0,
            ended: false,
            place: Place::Before,
            depth: 0,
            quoted: false,
            escaped: false,
            around: Vec::new(),
            bare: false,
            records: 0,
            offset: 0,
        }
    }

    fn shape(&self, what: impl Into<String>) -> IoError {
        let place = match self.place {
            Place::Before | Place::After | Place::Done => format!("byte {}", self.offset),
            _ => format!("record {}", self.records.max(1)),
        };
        IoError::new(ErrorKind::InvalidData, Shape { place, what: what.into() })
    }

    /// Reads on when all is looked at; returns whether there is more.
    fn fill(&mut self) -> std::io::Result<bool> {
        if self.from < self.buffer.len() {
            return Ok(true);
        }
        if self.ended {
            return Ok(false);
        }
        self.buffer.resize(BUFFER_BYTES, 0);
        self.from = 0;
        let read = loop {
            match self.input.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(*read.as_ref().unwrap_or(&0));
        self.ended = read? == 0;
        if self.offset == 0
            && let Some(what) = sniff::other_than(TextKind::Json.name(), &self.buffer)
        {
            return Err(self.shape(what));
        }
        Ok(!self.ended)
    }

    /// Looks at one byte outside records.
    fn outside(&mut self, byte: u8) -> std::io::Result<()> {
        match self.place {
            Place::Before | Place::After => self.around(byte),
            Place::Between(_) | Place::AfterRecord if byte.is_ascii_whitespace() => Ok(()),
            Place::Between(wanted) => match byte {
                b']' if !wanted => {
                    self.place = Place::After;
                    self.depth -= 1;
                    Ok(())
                }
                b']' | b',' => {
                    self.records += 1;
                    Err(self.shape("expected a record"))
                }
                _ => {
                    self.records += 1;
                    self.place = Place::Inside;
                    Ok(())
                }
            },
            Place::AfterRecord => match byte {
                b',' => {
                    self.place = Place::Between(true);
                    Ok(())
                }
                b']' => {
                    self.place = Place::After;
                    self.depth -= 1;
                    Ok(())
                }
                _ => Err(self.shape("expected a comma or the end of the array")),
            },
            Place::Inside | Place::Done => Ok(()),
        }
    }

    /// Looks at one byte before or after the array.
    fn around(&mut self, byte: u8) -> std::io::Result<()> {
        if self.around.len() >= MAX_AROUND {
            return Err(self.shape(format!("over {MAX_AROUND} bytes that are no records")));
        }
        self.around.push(byte);
        self.follow(byte);
        let opens = byte == b'[' && !self.quoted;
        if self.place == Place::Before && opens && (self.depth == 2 || self.depth == 1 && self.is_first()) {
            self.bare = self.depth == 1;
            self.around.push(b']');
            self.place = Place::Between(false);
        }
        Ok(())
    }

    /// Reports whether the last byte is the first of the document.
    fn is_first(&self) -> bool {
        self.around.trim_ascii_start().len() == 1
    }

    /// Keeps account of quotes and brackets.
    fn follow(&mut self, byte: u8) {
        if self.quoted {
            if self.escaped {
                self.escaped = false;
            } else if byte == b'\\' {
                self.escaped = true;
            } else if byte == b'"' {
                self.quoted = false;
            }
            return;
        }
        match byte {
            b'"' => self.quoted = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    /// Copies bytes of the record into `out` until it ends; returns how many of `out` were filled.
    fn record(&mut self, out: &mut [u8]) -> usize {
        let array_depth = if self.bare { 1 } else { 2 };
        let mut filled = 0;
        while filled < out.len() && self.from < self.buffer.len() {
            let byte = self.buffer[self.from];
            let ends = !self.quoted && self.depth == array_depth && matches!(byte, b',' | b']');
            if ends {
                out[filled] = b'\n';
                self.place = Place::AfterRecord;
                return filled + 1;
            }
            self.from += 1;
            self.offset += 1;
            self.follow(byte);
            // A line end between the record's tokens would end its line too soon.
            out[filled] = if matches!(byte, b'\n' | b'\r') && !self.quoted { b' ' } else { byte };
            filled += 1;
        }
        filled
    }

    /// Judges what stands around the array once everything is read.
    fn finish(&mut self) -> std::io::Result<()> {
        match self.place {
            Place::Done => return Ok(()),
            Place::Before => return Err(self.judge_without_array()),
            Place::After => {}
            _ => return Err(self.shape("the document ends inside the array")),
        }
        let members: Result<Vec<(String, Box<RawValue>)>, _> = if self.bare {
            serde_json::from_slice::<[(); 0]>(&self.around).map(|_| Vec::new())
        } else {
            serde_json::from_slice::<Pairs>(&self.around).map(|pairs| pairs.0)
        };
        let members = members.map_err(|error| self.shape(error.to_string()))?;
        let arrays = members.iter().filter(|(_, value)| value.get().starts_with('[')).count();
        if !self.bare && arrays != 1 {
            return Err(self.no_single_array(arrays));
        }
        self.place = Place::Done;
        Ok(())
    }

    fn no_single_array(&self, arrays: usize) -> IoError {
        self.shape(format!(
            "expected an array of records, or an object with one array in it; found an object with {arrays}"
        ))
    }

    fn judge_without_array(&self) -> IoError {
        if self.around.trim_ascii().is_empty() {
            return self.shape("an empty document; expected an array of records");
        }
        if self.around.starts_with(b"\xef\xbb\xbf") {
            return self.shape("a byte order mark; expected an array of records");
        }
        match serde_json::from_slice::<Pairs>(&self.around) {
            Ok(_) => self.no_single_array(0),
            Err(error) => self.shape(error.to_string()),
        }
    }
}

impl<R: Read> Read for ArrayLines<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let mut filled = 0;
        while filled < out.len() {
            if !self.fill()? {
                self.finish()?;
                break;
            }
            if self.place == Place::Inside {
                filled += self.record(&mut out[filled..]);
                continue;
            }
            let byte = self.buffer[self.from];
            self.outside(byte)?;
            // The first byte of a record is copied with the rest of it.
            if self.place != Place::Inside {
                self.from += 1;
                self.offset += 1;
            }
        }
        Ok(filled)
    }
}

/// An object's members in order, names decoded, values as found.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of records, or an object with one array in it")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_any(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most `step` bytes at a time, as a pipe may.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(out.len()).min(self.0.len());
            let (head, tail) = self.0.split_at(count);
            out[..count].copy_from_slice(head);
            self.0 = tail;
            Ok(count)
        }
    }

    fn lines(text: &str, step: usize) -> Result<String, String> {
        let mut found = String::new();
        match ArrayLines::new(Drip(text.as_bytes(), step)).read_to_string(&mut found) {
            Ok(_) => Ok(found),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn records_become_lines_wherever_the_array_stands_and_however_it_is_read() {
        for step in [1, 2, 7, 1_000_000] {
            for (text, wanted) in [
                ("[]", ""),
                (" [ ] \n", ""),
                (
                    r#"[{"a":1},{"b":[1,{"c":"],}\"\\"}]}]"#,
                    "{\"a\":1}\n{\"b\":[1,{\"c\":\"],}\\\"\\\\\"}]}\n",
                ),
                ("[\n  {\n\"a\": \"x y\"\r\n} ,\n 5]", "{ \"a\": \"x y\"  } \n5\n"),
                (
                    r#"{"n":{"x":[1,2]},"receipts": [{"a":1},{"a":2}], "next": null}"#,
                    "{\"a\":1}\n{\"a\":2}\n",
                ),
                (r#"{"s":"[\"","rows":[{"a":"]"}]}"#, "{\"a\":\"]\"}\n"),
                (r#"{"rows":[]}"#, ""),
            ] {
                assert_eq!(lines(text, step).as_deref(), Ok(wanted), "{text} by {step}");
            }
        }
    }

    #[test]
    fn a_document_of_another_shape_is_refused() {
        for (text, said) in [
            ("", "empty document"),
            ("  ", "empty document"),
            ("{\"a\":1}", "found an object with 0"),
            ("{\"a\":[],\"b\":[]}", "found an object with 2"),
            ("5", "expected an array of records"),
            ("[{},]", "record 2: expected a record"),
            ("[,{}]", "record 1: expected a record"),
            ("[{}", "ends inside the array"),
            ("[{\"a\":\"", "ends inside the array"),
            ("[{}] x", "trailing characters"),
            ("[{}],[{}]", "trailing characters"),
            ("{\"a\":[{}]", "EOF"),
            ("{\"a\":[{}]}}", "trailing characters"),
            ("{\"a\" [{}]}", "expected `:`"),
            ("\u{feff}[{}]", "byte order mark"),
            ("{[{}]}", "key must be a string"),
        ] {
            let error = lines(text, 3).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
