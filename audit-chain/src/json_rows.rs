//! Rows from JSON: NDJSON streams, and the arrays that services answer with.
//!
//! A line or array item is one object; its members are the row. Text is decoded, numbers and nested values keep the
//! bytes that were found. Blank lines and CRLF are passed over; a byte order mark, a line that is
//! no object and a line past [`MAX_LINE_BYTES`] are errors that name the line. Of two members with one name the last counts.
//!
//! The stream is read in blocks cut at line ends; each worker parses its own block.

use std::borrow::Cow;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::source::{ChunkReader, RowSource};
use crate::value::{Columns, Row, Value};

/// The longest line that is read, in bytes (64 MiB).
pub const MAX_LINE_BYTES: usize = 64 << 20;

/// How much is read at a time, in bytes.
const BLOCK_BYTES: usize = 256 << 10;

type Opener<'a> = dyn Fn() -> Result<Option<Box<dyn Read + Send + 'a>>> + Send + Sync + 'a;

/// Rows from NDJSON text.
pub struct NdjsonSource<'a> {
    name: String,
    columns: Columns,
    stream: Mutex<Stream<'a>>,
    reopen: Box<Opener<'a>>,
}

impl fmt::Debug for NdjsonSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NdjsonSource").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The part of the text that is not handed out yet.
struct Stream<'a> {
    input: Box<dyn Read + Send + 'a>,
    /// Bytes read past the last line end.
    rest: Vec<u8>,
    ended: bool,
    next_chunk: u64,
    next_line: u64,
}

impl<'a> NdjsonSource<'a> {
    /// Opens a file of NDJSON.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::Malformed`] when its first line is no JSON object.
    pub fn open(path: &Path) -> Result<NdjsonSource<'static>> {
        let owned = path.to_owned();
        NdjsonSource::new(path.display().to_string(), move || {
            let file = std::fs::File::open(&owned).map_err(|source| Error::Io {
                action: "read",
                path: owned.clone(),
                source,
            })?;
            Ok(Some(Box::new(file)))
        })
    }

    /// Reads a stream once (standard input, a pipe).
    ///
    /// # Errors
    /// As [`NdjsonSource::open`].
    pub fn once(name: impl Into<String>, input: impl Read + Send + 'a) -> Result<Self> {
        let input = Mutex::new(Some(Box::new(input) as Box<dyn Read + Send + 'a>));
        Self::new(name, move || Ok(input.lock().unwrap_or_else(PoisonError::into_inner).take()))
    }

    /// Reads what `open` yields, again for every pass while it yields something.
    ///
    /// # Errors
    /// As [`NdjsonSource::open`].
    pub fn new(
        name: impl Into<String>,
        open: impl Fn() -> Result<Option<Box<dyn Read + Send + 'a>>> + Send + Sync + 'a,
    ) -> Result<Self> {
        let name = name.into();
        let input = open()?.ok_or_else(|| Error::InvalidInput(format!("{name}: nothing to read")))?;
        let mut stream = Stream::new(input);
        let columns = stream.header(&name)?;
        Ok(Self { name, columns, stream: Mutex::new(stream), reopen: Box::new(open) })
    }

    fn stream(&self) -> MutexGuard<'_, Stream<'a>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Stream<'a> {
    fn new(input: Box<dyn Read + Send + 'a>) -> Self {
        Self { input, rest: Vec::new(), ended: false, next_chunk: 0, next_line: 1 }
    }

    /// Reads the names of the first object's members, without using it up.
    fn header(&mut self, name: &str) -> Result<Columns> {
        let mut line = 1;
        loop {
            self.fill(name)?;
            let mut start = 0;
            while let Some(end) = memchr::memchr(b'\n', &self.rest[start..])
                .map(|at| start + at)
                .or_else(|| (self.ended && start < self.rest.len()).then_some(self.rest.len()))
            {
                let text = &self.rest[start..end];
                if !text.trim_ascii().is_empty() {
                    let object = parse_object(text).map_err(|what| malformed(name, line, what))?;
                    return Ok(Columns::new(object.into_iter().map(|(key, _)| key.into_owned())));
                }
                line += 1;
                start = (end + 1).min(self.rest.len());
            }
            if self.ended {
                return Ok(Columns::default());
            }
        }
    }

    /// Reads one more block into `rest`.
    fn fill(&mut self, name: &str) -> Result<()> {
        let before = self.rest.len();
        let wanted = u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX);
        let read = self
            .input
            .by_ref()
            .take(wanted)
            .read_to_end(&mut self.rest)
            .map_err(|source| Error::Io { action: "read", path: name.into(), source })?;
        self.ended |= read < BLOCK_BYTES;
        if before > MAX_LINE_BYTES {
            return Err(malformed(name, self.next_line, format!("a line of over {MAX_LINE_BYTES} bytes")));
        }
        Ok(())
    }

    /// Moves the next block of whole lines into `block`; returns its chunk number and first line.
    fn take(&mut self, name: &str, block: &mut Vec<u8>) -> Result<Option<(u64, u64)>> {
        let cut = loop {
            if self.ended && self.rest.len() <= BLOCK_BYTES {
                if self.rest.is_empty() {
                    return Ok(None);
                }
                break self.rest.len();
            }
            if self.rest.len() >= BLOCK_BYTES || self.ended {
                if let Some(at) = memchr::memrchr(b'\n', &self.rest) {
                    break at + 1;
                }
                if self.ended {
                    break self.rest.len();
                }
            }
            self.fill(name)?;
        };
        block.clear();
        block.extend_from_slice(&self.rest[..cut]);
        self.rest.drain(..cut);
        let taken = (self.next_chunk, self.next_line);
        self.next_chunk += 1;
        self.next_line += memchr::memchr_iter(b'\n', block).count() as u64;
        Ok(Some(taken))
    }
}

impl RowSource for NdjsonSource<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn columns(&self) -> &Columns {
        &self.columns
    }

    fn reader(&self) -> Result<Box<dyn ChunkReader + '_>> {
        Ok(Box::new(NdjsonReader { source: self, block: Vec::new() }))
    }

    fn rewind(&self) -> Result<bool> {
        let Some(input) = (self.reopen)()? else { return Ok(false) };
        *self.stream() = Stream::new(input);
        Ok(true)
    }
}

/// One worker's reader.
struct NdjsonReader<'s, 'a> {
    source: &'s NdjsonSource<'a>,
    block: Vec<u8>,
}

impl ChunkReader for NdjsonReader<'_, '_> {
    fn read_chunk(&mut self, each: &mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<Option<u64>> {
        let taken = self.source.stream().take(&self.source.name, &mut self.block)?;
        let Some((chunk, first_line)) = taken else { return Ok(None) };
        for (at, line) in (first_line..).zip(self.block.split(|byte| *byte == b'\n')) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let object = parse_object(line).map_err(|what| malformed(&self.source.name, at, what))?;
            with_row(&self.source.columns, &object, each).map_err(|error| match error {
                Ok(error) => error,
                Err(what) => malformed(&self.source.name, at, what),
            })?;
        }
        Ok(Some(chunk))
    }
}

/// Rows from one JSON document that is held in memory: an array of objects, or an object with one such array.
#[derive(Debug)]
pub struct JsonSource {
    name: String,
    columns: Columns,
    /// The items, one per line, so that [`NdjsonSource`]'s rules apply.
    items: Vec<Box<RawValue>>,
    next: Mutex<usize>,
}

impl JsonSource {
    /// Reads a document: `[…]`, or `{"receipts":[…]}` with any name for its one array of objects.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is neither, or an item is no object.
    pub fn parse(name: impl Into<String>, text: &[u8]) -> Result<Self> {
        let name = name.into();
        let text = std::str::from_utf8(text).map_err(|error| {
            malformed_at(&name, format!("byte {}", error.valid_up_to()), "not UTF-8".into())
        })?;
        let json = |error: serde_json::Error| {
            malformed_at(&name, format!("line {} column {}", error.line(), error.column()), error.to_string())
        };
        let items: Vec<Box<RawValue>> = if text.trim_start().starts_with('[') {
            serde_json::from_str(text).map_err(json)?
        } else {
            let object = parse_object(text.as_bytes()).map_err(|what| malformed(&name, 1, what))?;
            let arrays: Vec<_> = object.iter().filter(|(_, value)| value.get().starts_with('[')).collect();
            match arrays.as_slice() {
                [(_, array)] => serde_json::from_str(array.get()).map_err(json)?,
                other => {
                    return Err(malformed_at(
                        &name,
                        "line 1".into(),
                        format!(
                            "expected an array of records, or an object with one array in it; found an object with {}",
                            other.len()
                        ),
                    ));
                }
            }
        };
        let mut names: Vec<String> = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let object = parse_object(item.get().as_bytes())
                .map_err(|what| malformed_at(&name, format!("record {}", at + 1), what))?;
            if at == 0 {
                names.extend(object.into_iter().map(|(key, _)| key.into_owned()));
            }
        }
        Ok(Self { name, columns: Columns::new(names), items, next: Mutex::new(0) })
    }
}

impl RowSource for JsonSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn columns(&self) -> &Columns {
        &self.columns
    }

    fn reader(&self) -> Result<Box<dyn ChunkReader + '_>> {
        Ok(Box::new(JsonReader(self)))
    }

    fn rewind(&self) -> Result<bool> {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        Ok(true)
    }
}

/// One worker's reader; the whole array is one chunk of 1,024 items at a time.
struct JsonReader<'s>(&'s JsonSource);

impl ChunkReader for JsonReader<'_> {
    fn read_chunk(&mut self, each: &mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<Option<u64>> {
        const ITEMS: usize = 1_024;
        let from = {
            let mut next = self.0.next.lock().unwrap_or_else(PoisonError::into_inner);
            let from = *next;
            *next = (from + ITEMS).min(self.0.items.len());
            from
        };
        let Some(items) = self.0.items.get(from..).filter(|items| !items.is_empty()) else { return Ok(None) };
        for (at, item) in items.iter().take(ITEMS).enumerate() {
            let place = || format!("record {}", from + at + 1);
            let object = parse_object(item.get().as_bytes())
                .map_err(|what| malformed_at(&self.0.name, place(), what))?;
            with_row(&self.0.columns, &object, each).map_err(|error| match error {
                Ok(error) => error,
                Err(what) => malformed_at(&self.0.name, place(), what),
            })?;
        }
        Ok(Some((from / ITEMS) as u64))
    }
}

fn malformed(name: &str, line: u64, what: String) -> Error {
    malformed_at(name, format!("line {line}"), what)
}

fn malformed_at(name: &str, place: String, what: String) -> Error {
    Error::Malformed { input: name.to_owned(), place, what }
}

type Members<'t> = Vec<(Cow<'t, str>, &'t RawValue)>;

/// Splits one object into its members; a name that comes again replaces the earlier value.
fn parse_object(line: &[u8]) -> Result<Members<'_>, String> {
    if line.starts_with(b"\xef\xbb\xbf") {
        return Err("a byte order mark; expected a JSON object".into());
    }
    let text = std::str::from_utf8(line)
        .map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to() + 1))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = deserializer.deserialize_map(MembersVisitor).map_err(|error| describe(&error))?;
    deserializer.end().map_err(|error| describe(&error))?;
    Ok(members)
}

/// Says what is wrong without the line number, which is that of the one line parsed.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("column {}: {what}", error.column())
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Members<'de> = Vec::with_capacity(24);
        while let Some(key) = map.next_key::<CowStr<'de>>()? {
            let value: &RawValue = map.next_value()?;
            match members.iter_mut().find(|(known, _)| *known == key.0) {
                Some(known) => known.1 = value,
                None => members.push((key.0, value)),
            }
        }
        Ok(members)
    }
}

/// A borrowed member name where it has no escapes.
struct CowStr<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for CowStr<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = CowStr<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(CowStr(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(CowStr(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// Makes the row of an object and hands it to `each`. The inner error says that a value cannot be read.
fn with_row(
    columns: &Columns,
    object: &Members<'_>,
    each: &mut dyn FnMut(&Row<'_>) -> Result<()>,
) -> Result<(), Result<Error, String>> {
    let texts: Vec<Option<Cow<'_, str>>> =
        object.iter().map(|(_, raw)| text_of(raw)).collect::<Result<_, _>>().map_err(Err)?;
    let mut values = vec![Value::Absent; columns.names().len()];
    let mut extra: Vec<(&str, Value<'_>)> = Vec::new();
    let mut guess = 0;
    for ((name, raw), text) in object.iter().zip(&texts) {
        let value = match text {
            Some(text) => Value::Text(text),
            None => plain_value(raw.get()),
        };
        // Lines mostly have their members in the order of the first one.
        let at = if columns.names().get(guess).is_some_and(|known| known == name) {
            Some(guess)
        } else {
            columns.position(name)
        };
        match at {
            Some(at) => {
                values[at] = value;
                guess = at + 1;
            }
            None => extra.push((name, value)),
        }
    }
    each(&Row { values: &values, extra: &extra }).map_err(Ok)
}

/// Decodes a JSON string; `None` when the value is no string.
fn text_of(raw: &RawValue) -> Result<Option<Cow<'_, str>>, String> {
    let text = raw.get();
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return Ok(None) };
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(Some(Cow::Borrowed(inner)));
    }
    serde_json::from_str::<String>(text).map(|text| Some(Cow::Owned(text))).map_err(|error| describe(&error))
}

/// Reads a value that is no string.
fn plain_value(text: &str) -> Value<'_> {
    match text {
        "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ if text.starts_with(['{', '[']) => Value::Json(text),
        // `-0` keeps its spelling: as an integer it would lose its sign.
        _ if text != "-0" => text.parse().map_or(Value::Number(text), Value::Int),
        _ => Value::Number(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::RowForm;

    fn lines(text: &str) -> Result<Vec<String>> {
        let source = NdjsonSource::once("t.ndjson", text.as_bytes())?;
        let mut form = RowForm::new(source.columns());
        let mut found = Vec::new();
        let mut reader = source.reader()?;
        while reader
            .read_chunk(&mut |row| {
                found.push(String::from_utf8(form.line(row).to_vec()).unwrap());
                Ok(())
            })?
            .is_some()
        {}
        Ok(found)
    }

    #[test]
    fn a_line_keeps_what_was_found() {
        let text = "\r\n{\"b\":\"z\\u00e9\\n\",\"a\":1.50,\"n\":12345678901234567890,\"o\":{\"y\": 1}}\r\n\n{\"a\":-0,\"c\":[],\"a\":7}";
        assert_eq!(
            lines(text).unwrap(),
            [r#"{"a":1.50,"b":"zé\n","n":12345678901234567890,"o":{"y": 1}}"#, r#"{"a":7,"c":[]}"#]
        );
    }

    #[test]
    fn what_is_no_object_is_named_by_its_line() {
        for (text, place, what) in [
            ("{\"a\":1}\n[1]\n", "line 2", "expected a JSON object"),
            ("{\"a\":1}\n\n{\"a\":1} x", "line 3", "trailing characters"),
            ("\u{feff}{\"a\":1}", "line 1", "byte order mark"),
            ("{\"a\":1}\n{\"a\":", "line 2", "EOF"),
            ("{\"a\":1}\n{\"a\":\"\\ud800\"}", "line 2", "hex escape"),
            ("{\"a\":1}\n{\"a\":NaN}", "line 2", "expected value"),
        ] {
            let Err(Error::Malformed { place: found, what: said, .. }) = lines(text) else {
                panic!("{text}")
            };
            assert_eq!(found, place, "{text}");
            assert!(said.contains(what), "{text}: {said}");
        }
        let source = NdjsonSource::once("t", &b"{\"a\":1}\n{\"a\":\"\xff\"}"[..]).unwrap();
        let mut reader = source.reader().unwrap();
        let mut result = reader.read_chunk(&mut |_| Ok(()));
        while matches!(result, Ok(Some(_))) {
            result = reader.read_chunk(&mut |_| Ok(()));
        }
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), "t: line 2: not UTF-8 at byte 7");
    }

    #[test]
    fn blocks_are_cut_at_line_ends_and_numbered_without_gaps() {
        let text: String =
            (0..20_000).map(|at| format!("{{\"a\":{at},\"pad\":\"{}\"}}\n", "x".repeat(40))).collect();
        let source = NdjsonSource::once("t", text.as_bytes()).unwrap();
        let mut readers = [source.reader().unwrap(), source.reader().unwrap()];
        let (mut rows, mut chunks) = (0, Vec::new());
        'all: loop {
            for reader in &mut readers {
                let Some(chunk) = reader
                    .read_chunk(&mut |row| {
                        assert_eq!(row.values[0], Value::Int(rows));
                        rows += 1;
                        Ok(())
                    })
                    .unwrap()
                else {
                    break 'all;
                };
                chunks.push(chunk);
            }
        }
        assert_eq!(rows, 20_000);
        assert!(chunks.len() > 3 && chunks.iter().copied().eq(0..chunks.len() as u64));
    }

    #[test]
    fn an_array_may_stand_alone_or_in_an_object() {
        for text in [r#"[{"a":1},{"a":2}]"#, r#"{"receipts": [{"a":1},{"a":2}], "next": null}"#] {
            let source = JsonSource::parse("t.json", text.as_bytes()).unwrap();
            let mut seen = Vec::new();
            let mut reader = source.reader().unwrap();
            while reader
                .read_chunk(&mut |row| {
                    seen.push(row.values[0] == Value::Int(1));
                    Ok(())
                })
                .unwrap()
                .is_some()
            {}
            assert_eq!(seen, [true, false]);
        }
        assert!(JsonSource::parse("t", b"{\"receipts\":[5]}").unwrap_err().to_string().contains("record 1"));
        assert!(JsonSource::parse("t", b"{\"a\":1}").is_err());
    }
}
