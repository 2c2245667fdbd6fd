//! The rows of `COPY … TO STDOUT` in text form, as values (PostgreSQL manual, COPY, "Text Format").
//!
//! A row is one line; fields end at a tab; NULL is `\N`; a backslash escapes itself, the tab, line ends and other control
//! characters. A block of whole rows is parsed by the worker that takes it; values borrow from the block, or from the
//! scratch buffer where something had to be unescaped or respelt.

use audit_chain::error::Result;
use audit_chain::value::{Row, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How the text of a column becomes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `smallint`, `integer`, `bigint`, `oid`.
    Int,
    /// `boolean`.
    Bool,
    /// `numeric`: kept as it is spelt.
    Number,
    /// `real`, `double precision`.
    Real,
    /// `bytea`.
    Bytes,
    /// `bytea` as text in base64.
    Base64,
    /// `bytea` as text in hexadecimal digits.
    Hex,
    /// JSON as an object of the row, without the blanks that `jsonb` puts between its tokens.
    Json,
    /// `timestamptz` in RFC 3339 with milliseconds, of what the server writes under UTC and ISO.
    Millis,
    /// Everything else, and JSON where a format hashes its text.
    Text,
}

/// A parser with the buffers of one worker.
#[derive(Debug)]
pub(crate) struct RowParser {
    kinds: Vec<Kind>,
    scratch: Vec<u8>,
    spans: Vec<Span>,
}

/// Where a field's bytes are.
#[derive(Debug, Clone, Copy)]
enum Span {
    Null,
    /// In the row.
    Row(usize, usize),
    /// In the scratch buffer.
    Own(usize, usize),
}

impl RowParser {
    pub(crate) fn new(kinds: Vec<Kind>) -> Self {
        Self { kinds, scratch: Vec::new(), spans: Vec::new() }
    }

    /// Hands the rows of a block to `each`. Returns the number of the row that is not one, where there is one.
    pub(crate) fn block(
        &mut self,
        block: &[u8],
        each: &mut dyn FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<Option<u64>> {
        let mut from = 0;
        let mut number = 0;
        let mut spare: Vec<Value<'static>> = Vec::with_capacity(self.kinds.len());
        for end in memchr::memchr_iter(b'\n', block) {
            let row = block.get(from..end).unwrap_or_default();
            from = end + 1;
            number += 1;
            if !self.split(row) {
                return Ok(Some(number));
            }
            let mut values = recycle(spare);
            values
                .extend(self.spans.iter().zip(&self.kinds).map(|(span, kind)| self.value(row, *span, *kind)));
            each(&Row::new(&values))?;
            spare = recycle(values);
        }
        Ok((from != block.len()).then_some(number + 1))
    }

    /// Finds the fields of a row; `false` when there are not as many as columns.
    fn split(&mut self, row: &[u8]) -> bool {
        self.spans.clear();
        self.scratch.clear();
        // A table without columns has rows without fields.
        if self.kinds.is_empty() {
            return row.is_empty();
        }
        let escaped = memchr::memchr(b'\\', row).is_some();
        let mut from = 0;
        for at in memchr::memchr_iter(b'\t', row).chain([row.len()]) {
            let Some(kind) = self.kinds.get(self.spans.len()).copied() else { return false };
            let field = row.get(from..at).unwrap_or_default();
            let span = if escaped && field == b"\\N" {
                Span::Null
            } else {
                let start = self.scratch.len();
                let raw = escaped && memchr::memchr(b'\\', field).is_some();
                match kind {
                    Kind::Bytes | Kind::Base64 => {
                        // `\x` and digits; the backslash is itself escaped.
                        let digits = field.strip_prefix(b"\\\\x").unwrap_or_default();
                        let bytes: Vec<u8> = digits.as_chunks::<2>().0.iter().map(hex_pair).collect();
                        if kind == Kind::Bytes {
                            self.scratch.extend_from_slice(&bytes);
                        } else {
                            self.scratch.extend_from_slice(STANDARD.encode(&bytes).as_bytes());
                        }
                        Span::Own(start, self.scratch.len())
                    }
                    Kind::Hex => {
                        let prefix = if field.starts_with(b"\\\\x") { 3 } else { 0 };
                        Span::Row(from + prefix, at)
                    }
                    Kind::Json => {
                        let mut text = Vec::with_capacity(field.len());
                        unescape(&mut text, field);
                        compact(&mut self.scratch, &text);
                        Span::Own(start, self.scratch.len())
                    }
                    Kind::Millis => match millis(field) {
                        Some(text) => {
                            self.scratch.extend_from_slice(text.as_bytes());
                            Span::Own(start, self.scratch.len())
                        }
                        // As `to_char` answers for the infinities.
                        None => Span::Null,
                    },
                    _ if raw => {
                        unescape(&mut self.scratch, field);
                        Span::Own(start, self.scratch.len())
                    }
                    _ => Span::Row(from, at),
                }
            };
            self.spans.push(span);
            from = at + 1;
        }
        self.spans.len() == self.kinds.len()
    }

    fn value<'a>(&'a self, row: &'a [u8], span: Span, kind: Kind) -> Value<'a> {
        let bytes = match span {
            Span::Null => return Value::Null,
            Span::Row(from, to) => row.get(from..to).unwrap_or_default(),
            Span::Own(from, to) => self.scratch.get(from..to).unwrap_or_default(),
        };
        if kind == Kind::Bytes {
            return Value::Bytes(bytes);
        }
        // Only a database without an encoding (SQL_ASCII) has text that is not UTF-8.
        let Ok(text) = std::str::from_utf8(bytes) else { return Value::Bytes(bytes) };
        match kind {
            Kind::Int => text.parse().map_or(Value::Text(text), Value::Int),
            Kind::Bool => match text {
                "t" => Value::Bool(true),
                "f" => Value::Bool(false),
                _ => Value::Text(text),
            },
            // NaN and infinities are no JSON numbers.
            Kind::Number if text.bytes().any(|byte| byte.is_ascii_alphabetic()) => Value::Text(text),
            Kind::Number => Value::Number(text),
            Kind::Real => text.parse().map_or(Value::Text(text), Value::Real),
            Kind::Json => match text.as_bytes().first() {
                Some(b'{' | b'[') => Value::Json(text),
                Some(b't') => Value::Bool(true),
                Some(b'f') => Value::Bool(false),
                Some(b'n') => Value::Null,
                Some(b'"') => Value::Json(text),
                _ => text.parse().map_or(Value::Number(text), Value::Int),
            },
            Kind::Text | Kind::Millis | Kind::Base64 | Kind::Hex | Kind::Bytes => Value::Text(text),
        }
    }
}

/// Spells `2026-01-02 03:04:05.123456+00` as `2026-01-02T03:04:05.123Z`, as
/// `to_char(…, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')` does; `None` for the infinities.
fn millis(field: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(field).ok()?;
    let text = text.strip_suffix(" BC").unwrap_or(text);
    let (date, time) = text.strip_suffix("+00")?.split_once(' ')?;
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
    let milliseconds: String = fraction.chars().chain("000".chars()).take(3).collect();
    Some(format!("{date}T{seconds}.{milliseconds}Z"))
}

fn hex_pair(pair: &[u8; 2]) -> u8 {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0);
    digit(pair[0]) << 4 | digit(pair[1])
}

/// Undoes the escapes of a field.
fn unescape(out: &mut Vec<u8>, field: &[u8]) {
    let mut rest = field;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (plain, escape) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some(code) = escape.get(1) else {
            rest = escape.get(1..).unwrap_or_default();
            continue;
        };
        out.push(match code {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            other => *other,
        });
        rest = escape.get(2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

/// Copies JSON without the blanks between its tokens; what is in strings stays.
fn compact(out: &mut Vec<u8>, json: &[u8]) {
    let mut inside = false;
    let mut escaped = false;
    for &byte in json {
        if inside {
            out.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => inside = false,
                _ => {}
            }
        } else if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            inside = byte == b'"';
            out.push(byte);
        }
    }
}

/// Returns the empty buffer of one row as a buffer for the next, whose values live elsewhere; the allocation stays.
#[inline]
#[allow(clippy::unnecessary_filter_map)] // `filter` cannot change the lifetime in the type
fn recycle<'to>(values: Vec<Value<'_>>) -> Vec<Value<'to>> {
    values.into_iter().filter_map(|_| None).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kinds: &[Kind], block: &[u8]) -> (Vec<String>, Option<u64>) {
        let mut parser = RowParser::new(kinds.to_vec());
        let mut rows = Vec::new();
        let bad = parser
            .block(block, &mut |row| {
                rows.push(format!("{:?}", row.values));
                Ok(())
            })
            .unwrap();
        (rows, bad)
    }

    #[test]
    fn values_are_what_was_stored() {
        let kinds = [Kind::Int, Kind::Bool, Kind::Text, Kind::Number, Kind::Real, Kind::Bytes];
        let (rows, bad) =
            parse(&kinds, b"7\tt\ta\\tb\\\\\\n\t1.50\t0.5\t\\\\x00ff\n\\N\tf\t\tNaN\t-Infinity\t\\N\n");
        assert_eq!(bad, None);
        assert_eq!(
            rows[0],
            r#"[Int(7), Bool(true), Text("a\tb\\\n"), Number("1.50"), Real(0.5), Bytes([0, 255])]"#
        );
        assert_eq!(rows[1], r#"[Null, Bool(false), Text(""), Text("NaN"), Real(-inf), Null]"#);
    }

    #[test]
    fn json_loses_only_the_blanks_between_its_tokens() {
        let (rows, _) = parse(
            &[Kind::Json, Kind::Base64, Kind::Hex],
            b"{\"a b\": \"c\\\\\" d\", \"n\": [1, 2]}\t\\\\x00ff\t\\\\x00ff\n",
        );
        assert_eq!(rows[0], r#"[Json("{\"a b\":\"c\\\" d\",\"n\":[1,2]}"), Text("AP8="), Text("00ff")]"#);
    }

    #[test]
    fn times_are_spelt_with_milliseconds() {
        let rows = b"2026-01-02 03:04:05.123456+00\n2026-01-02 03:04:05+00\n2026-01-02 03:04:05.9+00\n\\N\ninfinity\n0044-03-15 12:00:00+00 BC\n";
        let (rows, _) = parse(&[Kind::Millis], rows);
        assert_eq!(
            rows,
            [
                r#"[Text("2026-01-02T03:04:05.123Z")]"#,
                r#"[Text("2026-01-02T03:04:05.000Z")]"#,
                r#"[Text("2026-01-02T03:04:05.900Z")]"#,
                "[Null]",
                "[Null]",
                r#"[Text("0044-03-15T12:00:00.000Z")]"#,
            ]
        );
    }

    #[test]
    fn what_is_no_row_is_told_by_its_number() {
        assert_eq!(parse(&[Kind::Text, Kind::Text], b"a\tb\na\n").1, Some(2));
        assert_eq!(parse(&[Kind::Text], b"a\tb\n").1, Some(1));
        assert_eq!(parse(&[Kind::Text], b"a\nb").1, Some(2));
        assert_eq!(parse(&[], b"\n\n").0, ["[]", "[]"]);
    }
}
