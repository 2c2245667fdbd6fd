//! Rows from JSON: NDJSON streams, and the documents that services answer with.
//!
//! A line or array item is one object; its members are the row. Text is decoded, numbers and nested values keep the
//! bytes that were found. Blank lines and CRLF are passed over; a byte order mark, a line that is
//! no object and a line past [`MAX_LINE_BYTES`] are errors that name the line. Of two members with one name the last counts.
//!
//! The stream is read in blocks cut at line ends; each worker parses its own block ([`line`]). A document becomes
//! lines as it is read ([`mod@array`]), so that neither is ever held whole.

use std::fmt;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::sniff::{self, TextKind};
use crate::source::{ChunkReader, RowSource};
use crate::value::{Columns, Row};

use self::array::{ArrayLines, Shape};
use self::line::{LineReader, NoRow};

mod array;
mod line;

/// The longest line that is read, in bytes (64 MiB).
pub const MAX_LINE_BYTES: usize = 64 << 20;

/// How much is read at a time, in bytes.
const BLOCK_BYTES: usize = 256 << 10;

type Opener<'a> = dyn Fn() -> Result<Option<Box<dyn Read + Send + 'a>>> + Send + Sync + 'a;

/// Rows from NDJSON text.
pub struct NdjsonSource<'a> {
    name: String,
    /// What one piece of the input is called in messages: `line`, `record`.
    unit: &'static str,
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

/// What messages call the input and its pieces.
#[derive(Clone, Copy)]
struct Naming<'n> {
    name: &'n str,
    unit: &'static str,
}

impl Naming<'_> {
    fn malformed(self, number: u64, what: String) -> Error {
        self.malformed_at(format!("{} {number}", self.unit), what)
    }

    fn malformed_at(self, place: String, what: String) -> Error {
        Error::Malformed { input: self.name.to_owned(), place, what }
    }
}

impl<'a> NdjsonSource<'a> {
    /// Opens a file of NDJSON.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::Malformed`] when its first line is no JSON object.
    pub fn open(path: &Path) -> Result<NdjsonSource<'static>> {
        let owned = path.to_owned();
        NdjsonSource::new(path.display().to_string(), move || Ok(Some(Box::new(open(&owned)?))))
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
        Self::of_units(name.into(), "line", Box::new(open))
    }

    fn of_units(name: String, unit: &'static str, open: Box<Opener<'a>>) -> Result<Self> {
        let input = open()?.ok_or_else(|| Error::InvalidInput(format!("{name}: nothing to read")))?;
        let mut stream = Stream::new(input);
        let columns = stream.header(Naming { name: &name, unit })?;
        Ok(Self { name, unit, columns, stream: Mutex::new(stream), reopen: open })
    }

    fn stream(&self) -> MutexGuard<'_, Stream<'a>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn naming(&self) -> Naming<'_> {
        Naming { name: &self.name, unit: self.unit }
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })
}

impl<'a> Stream<'a> {
    fn new(input: Box<dyn Read + Send + 'a>) -> Self {
        Self { input, rest: Vec::new(), ended: false, next_chunk: 0, next_line: 1 }
    }

    /// Reads the names of the first object's members, without using it up.
    fn header(&mut self, naming: Naming<'_>) -> Result<Columns> {
        let mut searched = 0;
        let mut looked = false;
        loop {
            let mut rest = std::mem::take(&mut self.rest);
            let filled = self.fill(naming, &mut rest);
            self.rest = rest;
            filled?;
            // The records of a document are lines already, and were looked at there.
            if !std::mem::replace(&mut looked, true)
                && naming.unit == "line"
                && let Some(what) = sniff::other_than(TextKind::Ndjson.name(), &self.rest)
            {
                return Err(naming.malformed(1, what));
            }
            // Blank lines before it are used up.
            let mut start = 0;
            while let Some(end) = memchr::memchr(b'\n', &self.rest[searched..]).map(|at| searched + at) {
                let text = &self.rest[start..end];
                if !text.trim_ascii().is_empty() {
                    let names = line::names(text).map_err(|what| naming.malformed(self.next_line, what))?;
                    self.rest.drain(..start);
                    return Ok(Columns::new(names));
                }
                self.next_line += 1;
                start = end + 1;
                searched = start;
            }
            self.rest.drain(..start);
            searched = self.rest.len();
            if self.ended {
                if self.rest.trim_ascii().is_empty() {
                    return Ok(Columns::default());
                }
                let names = line::names(&self.rest).map_err(|what| naming.malformed(self.next_line, what))?;
                return Ok(Columns::new(names));
            }
        }
    }

    /// Appends up to one more block to `buffer`, which holds no line end past the lines that are read.
    fn fill(&mut self, naming: Naming<'_>, buffer: &mut Vec<u8>) -> Result<()> {
        if buffer.len() > MAX_LINE_BYTES {
            return Err(
                naming.malformed(self.next_line, format!("over {MAX_LINE_BYTES} bytes without a line end"))
            );
        }
        // Doubling would take twice the memory of a long line.
        buffer.reserve_exact(BLOCK_BYTES.max(buffer.len() / 4));
        let wanted = u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX);
        let read =
            self.input.by_ref().take(wanted).read_to_end(buffer).map_err(|source| failed(naming, source))?;
        self.ended |= read < BLOCK_BYTES;
        Ok(())
    }

    /// Puts the next block of whole lines into `block`; returns its chunk number and first line.
    fn take(&mut self, naming: Naming<'_>, block: &mut Vec<u8>) -> Result<Option<(u64, u64)>> {
        block.clear();
        block.append(&mut self.rest);
        let mut searched = 0;
        let cut = loop {
            if self.ended && block.len() <= BLOCK_BYTES {
                break block.len();
            }
            if block.len() >= BLOCK_BYTES || self.ended {
                if let Some(at) = memchr::memrchr(b'\n', &block[searched..]) {
                    break searched + at + 1;
                }
                if self.ended {
                    break block.len();
                }
                searched = block.len();
            }
            if let Err(error) = self.fill(naming, block) {
                // What was read is lost with this block: another reader must not go on in the middle of a line.
                self.input = Box::new(std::io::empty());
                self.ended = true;
                return Err(error);
            }
        };
        if cut == 0 {
            return Ok(None);
        }
        self.rest.extend_from_slice(&block[cut..]);
        block.truncate(cut);
        let taken = (self.next_chunk, self.next_line);
        self.next_chunk += 1;
        self.next_line += memchr::memchr_iter(b'\n', block).count() as u64;
        Ok(Some(taken))
    }
}

/// Tells a document of the wrong shape from a failure of the system.
fn failed(naming: Naming<'_>, source: std::io::Error) -> Error {
    if let Some(shape) = source.get_ref().and_then(|inner| inner.downcast_ref::<Shape>()) {
        return naming.malformed_at(shape.place.clone(), shape.what.clone());
    }
    Error::Io { action: "read", path: naming.name.into(), source }
}

impl RowSource for NdjsonSource<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn columns(&self) -> &Columns {
        &self.columns
    }

    fn reader(&self) -> Result<Box<dyn ChunkReader + '_>> {
        Ok(Box::new(NdjsonReader { source: self, block: Vec::new(), lines: LineReader::default() }))
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
    lines: LineReader,
}

impl ChunkReader for NdjsonReader<'_, '_> {
    fn read_chunk(&mut self, each: &mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<Option<u64>> {
        let naming = self.source.naming();
        let taken = self.source.stream().take(naming, &mut self.block)?;
        let Some((chunk, first_line)) = taken else { return Ok(None) };
        self.lines.block(&self.source.columns, &self.block, each).map_err(|(at, why)| match why {
            NoRow::Line(what) => naming.malformed(first_line + at, what),
            NoRow::Taker(error) => error,
        })?;
        Ok(Some(chunk))
    }
}

/// Rows from one JSON document: an array of objects, or an object with one such array.
#[derive(Debug)]
pub struct JsonSource(NdjsonSource<'static>);

impl JsonSource {
    /// Reads a document that is held in memory: `[…]`, or `{"receipts":[…]}` with any name for its one array of objects.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is neither, or its first item is no object. The other items are judged as they are read.
    pub fn parse(name: impl Into<String>, text: &[u8]) -> Result<Self> {
        let text: Arc<[u8]> = text.into();
        Self::new(name.into(), move || Ok(Box::new(Cursor::new(Arc::clone(&text)))))
    }

    /// Opens a file that holds one document. It is read as it comes, never held whole.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; else as [`JsonSource::parse`].
    pub fn open(path: &Path) -> Result<Self> {
        let owned = path.to_owned();
        Self::new(path.display().to_string(), move || Ok(Box::new(open(&owned)?)))
    }

    /// Reads a stream once (standard input, a pipe).
    ///
    /// # Errors
    /// As [`JsonSource::parse`].
    pub fn once(name: impl Into<String>, input: impl Read + Send + 'static) -> Result<Self> {
        let input = Mutex::new(Some(ArrayLines::new(input)));
        let open = move || {
            let lines = input.lock().unwrap_or_else(PoisonError::into_inner).take();
            Ok(lines.map(|lines| Box::new(lines) as Box<dyn Read + Send>))
        };
        NdjsonSource::of_units(name.into(), "record", Box::new(open)).map(Self)
    }

    fn new(
        name: String,
        open: impl Fn() -> Result<Box<dyn Read + Send>> + Send + Sync + 'static,
    ) -> Result<Self> {
        let lines = move || Ok(Some(Box::new(ArrayLines::new(open()?)) as Box<dyn Read + Send>));
        NdjsonSource::of_units(name, "record", Box::new(lines)).map(Self)
    }
}

impl RowSource for JsonSource {
    fn name(&self) -> String {
        self.0.name()
    }

    fn columns(&self) -> &Columns {
        self.0.columns()
    }

    fn reader(&self) -> Result<Box<dyn ChunkReader + '_>> {
        self.0.reader()
    }

    fn rewind(&self) -> Result<bool> {
        self.0.rewind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::RowForm;
    use crate::value::Value;

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

    /// Gives the same byte again and again, and counts how many were taken.
    struct Endless(u64, u8, Arc<std::sync::atomic::AtomicU64>);

    impl Read for Endless {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let count = out.len().min(usize::try_from(self.0).unwrap());
            out[..count].fill(self.1);
            self.0 -= count as u64;
            self.2.fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
            Ok(count)
        }
    }

    #[test]
    fn a_line_of_gigabytes_is_refused_before_it_is_read() {
        for head in [&b""[..], b"{\"a\":1}\n{\"a\":\""] {
            let taken = Arc::default();
            let input = head.chain(Endless(8 << 30, b'x', Arc::clone(&taken)));
            let (error, source) = match NdjsonSource::once("t", input) {
                Err(error) => (error, None),
                Ok(source) => {
                    let mut reader = source.reader().unwrap();
                    reader.read_chunk(&mut |_| Ok(())).unwrap();
                    let error = reader.read_chunk(&mut |_| Ok(())).unwrap_err();
                    drop(reader);
                    (error, Some(source))
                }
            };
            let line = if head.is_empty() { 1 } else { 2 };
            assert_eq!(
                error.to_string(),
                format!("t: line {line}: over {MAX_LINE_BYTES} bytes without a line end")
            );
            let taken = taken.load(std::sync::atomic::Ordering::Relaxed);
            // Another reader does not take the rest of the line for the next one.
            if let Some(source) = source {
                let mut other = source.reader().unwrap();
                assert_eq!(other.read_chunk(&mut |_| Ok(())).unwrap(), None);
            }
            assert!(taken <= (MAX_LINE_BYTES + 4 * BLOCK_BYTES) as u64, "{taken}");
        }
        // Blank lines are no line, however many.
        let blank = format!("{}\n", " ".repeat(1 << 20)).repeat(65);
        let input = blank.as_bytes().chain(&b"{\"a\":1}"[..]);
        let source = NdjsonSource::once("t", input).unwrap();
        assert_eq!(source.columns().names(), ["a"]);
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert_eq!(lines(&deep).unwrap(), [deep]);
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
