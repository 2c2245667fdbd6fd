//! Rows from CSV: exports of PostgreSQL (`COPY … TO … (FORMAT csv, HEADER)`), SQLite (`.mode csv`) and other tables.
//!
//! The dialect is RFC 4180: fields end at a comma (or another byte), records at LF or CRLF; a field with a delimiter, quote
//! or line end in it stands in quotes, where a quote is doubled. The first record names the columns, unless
//! [`CsvOptions::columns`] does. The text is UTF-8. What follows is refused with its line: a byte order mark, a quote inside
//! a field that does not begin with one, text behind a closing quote, a quote that is never closed, a record with more or
//! fewer fields than the header, a name that is empty or comes twice, a record past [`MAX_RECORD_BYTES`].
//! Empty lines are passed over.
//!
//! CSV has neither NULL nor types. Which field is NULL says [`NullRule`]: as PostgreSQL and SQLite write it, an empty field
//! is NULL and `""` is empty text. Every other field is text, byte for byte; the columns of [`CsvOptions::integers`] are
//! integers where they are spelt as such, so that the rows, and a checkpoint over them, are those of the table
//! ([`crate::format::ChainFormat::integers`] names them).
//!
//! The stream is read in blocks cut at record ends, which are told from line ends in quotes by counting quotes; each
//! worker parses its own block.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use csv_core::{ReadFieldResult, ReaderBuilder};

use crate::error::{Error, Result};
use crate::sniff::{self, TextKind};
use crate::source::{ChunkReader, RowSource};
use crate::value::{Columns, Row, Value};

/// The longest record that is read, in bytes (64 MiB).
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// How much is read at a time, in bytes.
const BLOCK_BYTES: usize = 256 << 10;

/// Which fields are NULL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NullRule {
    /// An empty field that is not in quotes: PostgreSQL's default, and SQLite's.
    #[default]
    UnquotedEmpty,
    /// This text when it is not in quotes: PostgreSQL's `NULL '…'`, MySQL's `\N`. An empty field is empty text.
    Unquoted(String),
    /// No field.
    Never,
}

/// How a CSV text is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvOptions {
    /// What ends a field: a comma, a semicolon, a tab.
    pub delimiter: u8,
    /// What quotes a field.
    pub quote: u8,
    /// Which fields are NULL.
    pub null: NullRule,
    /// The columns' names, where the text does not begin with them.
    pub columns: Option<Vec<String>>,
    /// The columns whose text is an integer.
    pub integers: Vec<String>,
    /// The columns whose fields are JSON literals: numbers, `true`, `false`, objects, arrays. A field that is none is text.
    pub literals: Vec<String>,
}

/// What a column's fields are read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Literal,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self {
            delimiter: b',',
            quote: b'"',
            null: NullRule::default(),
            columns: None,
            integers: Vec::new(),
            literals: Vec::new(),
        }
    }
}

type Input<'a> = Box<dyn Read + Send + 'a>;
type Opener<'a> = dyn Fn() -> Result<Option<Input<'a>>> + Send + Sync + 'a;

/// Rows from CSV text.
pub struct CsvSource<'a> {
    name: String,
    options: CsvOptions,
    columns: Columns,
    /// What each column's fields are read as.
    kinds: Vec<Kind>,
    stream: Mutex<Stream<'a>>,
    reopen: Box<Opener<'a>>,
}

impl fmt::Debug for CsvSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsvSource")
            .field("name", &self.name)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<'a> CsvSource<'a> {
    /// Opens a file of CSV.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::Malformed`] when its header is none;
    /// [`Error::InvalidInput`] when the options cannot be meant.
    pub fn open(path: &Path, options: CsvOptions) -> Result<CsvSource<'static>> {
        let owned = path.to_owned();
        CsvSource::new(path.display().to_string(), options, move || {
            let file = std::fs::File::open(&owned);
            let file = file.map_err(|source| Error::Io { action: "read", path: owned.clone(), source })?;
            Ok(Some(Box::new(file)))
        })
    }

    /// Reads a stream once (standard input, a pipe).
    ///
    /// # Errors
    /// As [`CsvSource::open`].
    pub fn once(name: impl Into<String>, options: CsvOptions, input: impl Read + Send + 'a) -> Result<Self> {
        let input = Mutex::new(Some(Box::new(input) as Input<'a>));
        Self::new(name, options, move || Ok(input.lock().unwrap_or_else(PoisonError::into_inner).take()))
    }

    /// Reads what `open` yields, again for every pass while it yields something.
    ///
    /// # Errors
    /// As [`CsvSource::open`].
    pub fn new(
        name: impl Into<String>,
        options: CsvOptions,
        open: impl Fn() -> Result<Option<Input<'a>>> + Send + Sync + 'a,
    ) -> Result<Self> {
        let name = name.into();
        check_options(&options)?;
        let input = open()?.ok_or_else(|| Error::InvalidInput(format!("{name}: nothing to read")))?;
        let mut stream = Stream::new(input, options.quote);
        let header = stream.header(&name, &options)?;
        let names = options.columns.clone().or(header).unwrap_or_default();
        check_names(&name, &names)?;
        let kind =
            |column: &String| match (options.literals.contains(column), options.integers.contains(column)) {
                (true, _) => Kind::Literal,
                (false, true) => Kind::Integer,
                (false, false) => Kind::Text,
            };
        let kinds = names.iter().map(kind).collect();
        let columns = Columns::new(names);
        Ok(Self { name, options, columns, kinds, stream: Mutex::new(stream), reopen: Box::new(open) })
    }

    fn stream(&self) -> MutexGuard<'_, Stream<'a>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses options that would read something else than they say.
fn check_options(options: &CsvOptions) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii() && !matches!(byte, b'\r' | b'\n' | 0);
    if !fits(options.delimiter) || !fits(options.quote) || options.delimiter == options.quote {
        return Err(Error::InvalidInput(format!(
            "CSV with delimiter {:?} and quote {:?}: expected two different ASCII characters that end no line",
            char::from(options.delimiter),
            char::from(options.quote)
        )));
    }
    Ok(())
}

/// Refuses a header in which a column has no name, or another's.
fn check_names(name: &str, names: &[String]) -> Result<()> {
    for (at, column) in names.iter().enumerate() {
        let what = if column.is_empty() {
            format!("column {} has no name", at + 1)
        } else if names.iter().take(at).any(|other| other == column) {
            format!("column {column:?} stands twice")
        } else {
            continue;
        };
        return Err(malformed(name, 1, what));
    }
    Ok(())
}

/// The part of the text that is not handed out yet.
struct Stream<'a> {
    input: Input<'a>,
    quote: u8,
    /// Bytes read and not handed out.
    rest: Vec<u8>,
    /// How much of `rest` was looked through, whether that ends inside quotes, and where its last record ends.
    seen: usize,
    quoted: bool,
    record_end: usize,
    ended: bool,
    next_chunk: u64,
    next_line: u64,
}

impl<'a> Stream<'a> {
    const fn new(input: Input<'a>, quote: u8) -> Self {
        Self {
            input,
            quote,
            rest: Vec::new(),
            seen: 0,
            quoted: false,
            record_end: 0,
            ended: false,
            next_chunk: 0,
            next_line: 1,
        }
    }

    /// Takes the first record off, when it is the header.
    fn header(&mut self, name: &str, options: &CsvOptions) -> Result<Option<Vec<String>>> {
        self.fill(name)?;
        if self.rest.starts_with(b"\xef\xbb\xbf") {
            let what = "a byte order mark: expected UTF-8 as the database writes it (spreadsheets, which write such marks, respell values)";
            return Err(malformed(name, 1, what.into()));
        }
        if options.columns.is_some() {
            return Ok(None);
        }
        if let Some(what) = sniff::other_than(TextKind::Csv.name(), &self.rest) {
            return Err(malformed(name, 1, what));
        }
        loop {
            // The first record may be followed by others in the block: look for its own end.
            let mut quoted = false;
            let ends = memchr::memchr2_iter(self.quote, b'\n', &self.rest);
            let end = ends.into_iter().find(|at| {
                let quote = self.rest.get(*at) == Some(&self.quote);
                quoted ^= quote;
                !quote && !quoted
            });
            let end = end.map(|at| at + 1).or_else(|| self.ended.then_some(self.rest.len()));
            let Some(end) = end else {
                self.fill(name)?;
                continue;
            };
            let first: Vec<u8> = self.rest.drain(..end).collect();
            self.seen = 0;
            let mut records = Records::default();
            records
                .parse(&first, options, None, self.next_line)
                .map_err(|(line, what)| malformed(name, line, what))?;
            self.next_line += memchr::memchr_iter(b'\n', &first).count() as u64;
            let text = records.text().map_err(|(line, what)| malformed(name, line, what))?;
            if !records.lines.is_empty() {
                return Ok(Some(records.fields(text, 0).map(|(field, _)| field.to_owned()).collect()));
            }
            if self.ended && self.rest.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Reads one more block into `rest`.
    fn fill(&mut self, name: &str) -> Result<()> {
        if self.rest.len() > MAX_RECORD_BYTES {
            let what = format!("a record of over {MAX_RECORD_BYTES} bytes, or a quote that is never closed");
            return Err(malformed(name, self.next_line, what));
        }
        let wanted = u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX);
        let read = self.input.by_ref().take(wanted).read_to_end(&mut self.rest);
        let read = read.map_err(|source| Error::Io { action: "read", path: name.into(), source })?;
        self.ended |= read < BLOCK_BYTES;
        Ok(())
    }

    /// Looks for record ends in what was not looked through yet.
    fn look(&mut self) {
        let fresh = self.rest.get(self.seen..).unwrap_or(&[]);
        for at in memchr::memchr2_iter(self.quote, b'\n', fresh) {
            if fresh.get(at) == Some(&self.quote) {
                self.quoted = !self.quoted;
            } else if !self.quoted {
                self.record_end = self.seen + at + 1;
            }
        }
        self.seen = self.rest.len();
    }

    /// Moves the next block of whole records into `block`; returns its chunk number and first line.
    fn take(&mut self, name: &str, block: &mut Vec<u8>) -> Result<Option<(u64, u64)>> {
        let cut = loop {
            self.look();
            if self.ended {
                break self.rest.len();
            }
            if self.rest.len() >= BLOCK_BYTES && self.record_end > 0 {
                break self.record_end;
            }
            self.fill(name)?;
        };
        if cut == 0 {
            return Ok(None);
        }
        block.clear();
        block.extend_from_slice(self.rest.get(..cut).unwrap_or(&[]));
        self.rest.drain(..cut);
        (self.seen, self.quoted, self.record_end) = (0, false, 0);
        let taken = (self.next_chunk, self.next_line);
        self.next_chunk += 1;
        self.next_line += memchr::memchr_iter(b'\n', block).count() as u64;
        Ok(Some(taken))
    }
}

impl RowSource for CsvSource<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn columns(&self) -> &Columns {
        &self.columns
    }

    fn reader(&self) -> Result<Box<dyn ChunkReader + '_>> {
        Ok(Box::new(CsvReader { source: self, block: Vec::new(), records: Records::default() }))
    }

    fn rewind(&self) -> Result<bool> {
        let Some(input) = (self.reopen)()? else { return Ok(false) };
        let mut stream = Stream::new(input, self.options.quote);
        stream.header(&self.name, &self.options)?;
        *self.stream() = stream;
        Ok(true)
    }
}

/// One worker's reader.
struct CsvReader<'s, 'a> {
    source: &'s CsvSource<'a>,
    block: Vec<u8>,
    records: Records,
}

impl ChunkReader for CsvReader<'_, '_> {
    fn read_chunk(&mut self, each: &mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<Option<u64>> {
        let source = self.source;
        let taken = source.stream().take(&source.name, &mut self.block)?;
        let Some((chunk, first_line)) = taken else { return Ok(None) };
        let fail = |(line, what)| malformed(&source.name, line, what);
        let width = source.columns.names().len();
        self.records.parse(&self.block, &source.options, Some(width), first_line).map_err(fail)?;
        let text = self.records.text().map_err(fail)?;
        let mut values = Vec::with_capacity(width);
        for record in 0..self.records.lines.len() {
            values.clear();
            let fields = self.records.fields(text, record).zip(&source.kinds);
            values.extend(fields.map(|((field, quoted), kind)| {
                let null = match &source.options.null {
                    NullRule::UnquotedEmpty => !quoted && field.is_empty(),
                    NullRule::Unquoted(null) => !quoted && field == null,
                    NullRule::Never => false,
                };
                if null {
                    Value::Null
                } else {
                    match kind {
                        Kind::Text => Value::Text(field),
                        Kind::Integer => integer_of(field).map_or(Value::Text(field), Value::Int),
                        Kind::Literal => literal_of(field),
                    }
                }
            }));
            each(&Row::new(&values))?;
        }
        Ok(Some(chunk))
    }
}

/// Reads a JSON literal; what is none is text.
fn literal_of(text: &str) -> Value<'_> {
    match text {
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        _ => {}
    }
    if let Some(number) = integer_of(text) {
        return Value::Int(number);
    }
    match serde_json::from_str::<&serde_json::value::RawValue>(text) {
        Ok(_) if text.starts_with(['{', '[']) => Value::Json(text),
        Ok(_) if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => Value::Number(text),
        _ => Value::Text(text),
    }
}

/// Reads an integer in the one spelling that a table prints.
fn integer_of(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let shortest = text == "0" || (plain && !digits.starts_with('0'));
    if shortest { text.parse().ok() } else { None }
}

/// What is wrong, and in which line.
type Wrong = (u64, String);

/// The records of a block, parsed.
#[derive(Default)]
struct Records {
    /// The fields' text, one behind the other.
    bytes: Vec<u8>,
    /// Where each field ends in `bytes`, and whether it was in quotes.
    fields: Vec<(usize, bool)>,
    /// How many fields there are before each record.
    starts: Vec<usize>,
    /// The line in which each record begins.
    lines: Vec<u64>,
}

impl Records {
    /// Parses a block of whole records. `width` is how many fields each must have.
    fn parse(
        &mut self,
        block: &[u8],
        options: &CsvOptions,
        width: Option<usize>,
        line: u64,
    ) -> Result<(), Wrong> {
        let mut reader = ReaderBuilder::new().delimiter(options.delimiter).quote(options.quote).build();
        self.fields.clear();
        self.starts.clear();
        self.lines.clear();
        self.bytes.clear();
        // A field is never longer than its text.
        self.bytes.resize(block.len() + 1, 0);
        let (mut at, mut written, mut line, mut counted) = (0, 0, line, 0);
        loop {
            // Behind a record: the LF of a CRLF, and empty lines.
            while matches!(block.get(at), Some(b'\r' | b'\n')) {
                at += 1;
            }
            if at >= block.len() {
                break;
            }
            line += memchr::memchr_iter(b'\n', block.get(counted..at).unwrap_or(&[])).count() as u64;
            counted = at;
            self.starts.push(self.fields.len());
            self.lines.push(line);
            loop {
                let (from, first) = (at, written);
                let end = loop {
                    let input = block.get(at..).unwrap_or(&[]);
                    let output = self.bytes.get_mut(written..).unwrap_or_default();
                    let (result, read, wrote) = reader.read_field(input, output);
                    at += read;
                    written += wrote;
                    match result {
                        ReadFieldResult::Field { record_end } => break record_end,
                        // Only the last record of a text has no line end; an empty input tells the parser so.
                        ReadFieldResult::InputEmpty if at >= block.len() && !input.is_empty() => {}
                        _ => break true,
                    }
                };
                let raw = field_text(block, from, at, options.delimiter);
                let quoted = raw.first() == Some(&options.quote);
                check_quotes(raw, written - first, options.quote).map_err(|what| (line, what))?;
                self.fields.push((written, quoted));
                if end {
                    break;
                }
            }
            let found = self.fields.len() - self.starts.last().copied().unwrap_or(0);
            if let Some(width) = width.filter(|width| *width != found) {
                return Err((line, format!("expected {width} fields as in the header, found {found}")));
            }
        }
        self.bytes.truncate(written);
        Ok(())
    }

    /// Returns the text of all fields.
    fn text(&self) -> Result<&str, Wrong> {
        std::str::from_utf8(&self.bytes).map_err(|error| {
            let field = self.fields.partition_point(|(end, _)| *end <= error.valid_up_to());
            let record = self.starts.partition_point(|start| *start <= field).saturating_sub(1);
            let line = self.lines.get(record).copied().unwrap_or(1);
            let column = field - self.starts.get(record).copied().unwrap_or(0) + 1;
            (line, format!("not UTF-8 in field {column}"))
        })
    }

    /// Returns the fields of a record, each with whether it was in quotes.
    fn fields<'t>(&'t self, text: &'t str, record: usize) -> impl Iterator<Item = (&'t str, bool)> {
        let from = self.starts.get(record).copied().unwrap_or(0);
        let to = self.starts.get(record + 1).copied().unwrap_or(self.fields.len());
        let mut start =
            from.checked_sub(1).and_then(|before| self.fields.get(before)).map_or(0, |(end, _)| *end);
        self.fields.get(from..to).unwrap_or(&[]).iter().map(move |(end, quoted)| {
            let field = text.get(start..*end).unwrap_or("");
            start = *end;
            (field, *quoted)
        })
    }
}

/// Cuts what ended a field off its text: the delimiter, or the first byte of the line end.
fn field_text(block: &[u8], from: usize, to: usize, delimiter: u8) -> &[u8] {
    let text = block.get(from..to).unwrap_or(&[]);
    match text.split_last() {
        Some((last, rest)) if *last == delimiter || matches!(last, b'\r' | b'\n') => rest,
        _ => text,
    }
}

/// Checks that a field is quoted as RFC 4180 asks: not at all, or from end to end with inner quotes doubled.
fn check_quotes(raw: &[u8], decoded: usize, quote: u8) -> Result<(), String> {
    let quotes = memchr::memchr_iter(quote, raw).count();
    if quotes == 0 {
        return Ok(());
    }
    if raw.first() != Some(&quote) {
        return Err("a quote inside a field that does not begin with one".into());
    }
    if quotes % 2 == 1 {
        return Err("a quote is never closed".into());
    }
    // Two quotes around the field, one of each pair inside is left.
    if raw.last() != Some(&quote) || decoded != raw.len() - 2 - (quotes - 2) / 2 {
        return Err("text behind a closing quote".into());
    }
    Ok(())
}

fn malformed(name: &str, line: u64, what: String) -> Error {
    Error::Malformed { input: name.to_owned(), place: format!("line {line}"), what }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads all rows with `readers` readers in turn; values as they are printed for debugging.
    fn read(text: &[u8], options: CsvOptions) -> Result<(Vec<String>, Vec<Vec<String>>)> {
        let source = CsvSource::once("t.csv", options, text)?;
        let mut readers = [source.reader()?, source.reader()?];
        let mut rows = Vec::new();
        let mut chunks = 0;
        'all: loop {
            for reader in &mut readers {
                let mut each = |row: &Row<'_>| {
                    rows.push(row.values.iter().map(|value| format!("{value:?}")).collect());
                    Ok(())
                };
                let Some(chunk) = reader.read_chunk(&mut each)? else { break 'all };
                assert_eq!(chunk, chunks);
                chunks += 1;
            }
        }
        Ok((source.columns().names().to_vec(), rows))
    }

    #[test]
    fn fields_are_what_postgresql_wrote() {
        // COPY (SELECT 1 AS id, NULL AS a, '' AS b, E'x"y,z\n\r\\' AS c, 'é' AS d) TO STDOUT (FORMAT csv, HEADER)
        let text = "id,a,b,c,d\n1,,\"\",\"x\"\"y,z\n\r\\\",é\n";
        let row = vec!["Int(1)", "Null", "Text(\"\")", "Text(\"x\\\"y,z\\n\\r\\\\\")", "Text(\"é\")"];
        let options = CsvOptions { integers: vec!["id".into(), "d".into()], ..CsvOptions::default() };
        for text in [
            text.to_owned(),
            text.trim_end().to_owned(),
            text.replace("e\n", "e\r\n").replace("d\n", "d\r\n") + "\r\n\n",
        ] {
            let (names, rows) = read(text.as_bytes(), options.clone()).unwrap();
            assert_eq!(names, ["id", "a", "b", "c", "d"]);
            assert_eq!(rows, std::slice::from_ref(&row), "{text:?}");
        }
    }

    #[test]
    fn null_is_what_the_rule_says() {
        let text = b"a;b;c;d\n;\"\";\\N;\"\\N\"\n";
        for (null, expected) in [
            (NullRule::UnquotedEmpty, ["Null", "Text(\"\")", "Text(\"\\\\N\")", "Text(\"\\\\N\")"]),
            (NullRule::Unquoted("\\N".into()), ["Text(\"\")", "Text(\"\")", "Null", "Text(\"\\\\N\")"]),
            (NullRule::Never, ["Text(\"\")", "Text(\"\")", "Text(\"\\\\N\")", "Text(\"\\\\N\")"]),
        ] {
            let options = CsvOptions { delimiter: b';', null, ..CsvOptions::default() };
            assert_eq!(read(text, options).unwrap().1, [expected]);
        }
    }

    #[test]
    fn integers_have_one_spelling() {
        for (text, number) in [("0", Some(0)), ("-7", Some(-7)), ("-9223372036854775808", Some(i64::MIN))] {
            assert_eq!(integer_of(text), number);
        }
        for text in ["", "-", "-0", "007", "+7", "7 ", "7.0", "9223372036854775808", "١"] {
            assert_eq!(integer_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_header_may_be_given_and_a_text_without_records_has_no_rows() {
        let options = CsvOptions { columns: Some(vec!["x".into(), "y".into()]), ..CsvOptions::default() };
        assert_eq!(read(b"1,2\n", options.clone()).unwrap().1, [["Text(\"1\")", "Text(\"2\")"]]);
        assert_eq!(read(b"", options).unwrap().1.len(), 0);
        assert_eq!(read(b"", CsvOptions::default()).unwrap(), (vec![], vec![]));
        assert_eq!(read(b"\n\r\na\n\n", CsvOptions::default()).unwrap(), (vec!["a".into()], vec![]));
    }

    #[test]
    fn what_is_no_csv_is_named_by_its_line() {
        for (text, place, what) in [
            (&b"\xef\xbb\xbfa,b\n"[..], "line 1", "byte order mark"),
            (b"a,,b\n", "line 1", "column 2 has no name"),
            (b"a,b,a\n", "line 1", "\"a\" stands twice"),
            (b"a,b\n1,2\n\n1,2,3\n", "line 4", "expected 2 fields as in the header, found 3"),
            (b"a,b\n1\n", "line 2", "found 1"),
            (b"a,b\n\"1\n2\",3\n4\n", "line 4", "found 1"),
            (b"a,b\n1,x\"y\n", "line 2", "does not begin with one"),
            (b"a,b\n1,\"x\"y\n", "line 2", "text behind a closing quote"),
            (b"a,b\n1,\"x\"y\"z\"\n", "line 2", "text behind a closing quote"),
            (b"a,b\n1,2\n1,\"x\n3,4\n", "line 3", "never closed"),
            (b"a,b\n1,\"x\"\"\n", "line 2", "never closed"),
            (b"a,b\n1,2\n1,\xff\n", "line 3", "not UTF-8 in field 2"),
        ] {
            let text_shown = String::from_utf8_lossy(text).into_owned();
            let Err(Error::Malformed { place: found, what: said, .. }) = read(text, CsvOptions::default())
            else {
                panic!("{text_shown}")
            };
            assert_eq!(found, place, "{text_shown}: {said}");
            assert!(said.contains(what), "{text_shown}: {said}");
        }
        let same = CsvOptions { delimiter: b'"', ..CsvOptions::default() };
        assert!(matches!(read(b"", same), Err(Error::InvalidInput(_))));
    }

    #[test]
    fn a_quote_that_is_never_closed_does_not_fill_the_memory() {
        let endless = std::io::repeat(b'x').take(1 << 40);
        let text = Read::chain(&b"a\n\""[..], endless);
        let source = CsvSource::once("t", CsvOptions::default(), text).unwrap();
        let error = source.reader().unwrap().read_chunk(&mut |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("never closed"), "{error}");
    }

    #[test]
    fn blocks_are_cut_at_record_ends_and_never_inside_quotes() {
        let mut text = String::from("a,b\n");
        for at in 0..20_000 {
            text += &format!("{at},\"line\nin \"\"quotes\"\"\n,{}\"\n", "x".repeat(at % 60));
        }
        let options = CsvOptions { integers: vec!["a".into()], ..CsvOptions::default() };
        let (_, rows) = read(text.as_bytes(), options).unwrap();
        assert_eq!(rows.len(), 20_000);
        for (at, row) in rows.iter().enumerate() {
            assert_eq!(row[0], format!("Int({at})"));
            assert!(row[1].starts_with("Text(\"line\\nin \\\"quotes\\\"\\n,"), "{row:?}");
        }
    }

    proptest! {
        #[test]
        fn what_a_writer_quotes_is_read_back(rows in proptest::collection::vec(proptest::collection::vec(proptest::option::of("[a\",;\r\n é\\\\]{0,4}"), 3), 0..8), crlf in any::<bool>()) {
            let end = if crlf { "\r\n" } else { "\n" };
            let mut text = format!("a,b,c{end}");
            for row in &rows {
                let fields: Vec<String> = row.iter().map(|field| match field {
                    None => String::new(),
                    Some(plain) if plain.contains(['a', 'é']) && !plain.contains(['"', ',', '\r', '\n']) => plain.clone(),
                    Some(other) => format!("\"{}\"", other.replace('"', "\"\"")),
                }).collect();
                text += &(fields.join(",") + end);
            }
            let expected: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|field| match field {
                None => "Null".to_owned(),
                Some(text) => format!("{:?}", Value::Text(text)),
            }).collect()).collect();
            prop_assert_eq!(read(text.as_bytes(), CsvOptions::default()).unwrap().1, expected);
        }

        #[test]
        fn no_bytes_make_it_fail_otherwise_than_with_an_error(bytes in proptest::collection::vec(prop_oneof![Just(b'"'), Just(b','), Just(b'\n'), Just(b'\r'), Just(b'a'), any::<u8>()], 0..60)) {
            let _ = read(&bytes, CsvOptions::default());
        }
    }
}
