//! Rows of COPY's text format as values (PostgreSQL manual, COPY, "Text Format").
//!
//! Columns are separated by tabs, NULL is `\N`, and backslashes escape what would be taken for something else. A value without a
//! backslash is handed on where it lies.

use audit_chain::value::Value;

use crate::error::{Error, ErrorKind, Result};

/// What a column's text stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `boolean`: `t`, `f`.
    Bool,
    /// `smallint`, `integer`, `bigint`, `oid`.
    Int,
    /// `numeric`, kept as it is spelt.
    Number,
    /// `real`, `double precision`.
    Real,
    /// `json`, `jsonb`.
    Json,
    /// `bytea` in hexadecimal digits.
    Bytes,
    /// Anything else, as PostgreSQL writes it.
    Text,
}

impl Kind {
    /// Returns what the values of a type are, by the type's OID (`pg_type.dat`; these never change).
    pub(crate) const fn of(oid: u32) -> Self {
        match oid {
            16 => Self::Bool,
            20 | 21 | 23 | 26 => Self::Int,
            1700 => Self::Number,
            700 | 701 => Self::Real,
            114 | 3802 => Self::Json,
            17 => Self::Bytes,
            _ => Self::Text,
        }
    }
}

/// Where a field's text is.
#[derive(Debug, Clone, Copy)]
enum Field {
    Null,
    /// In the row itself.
    Row(usize, usize),
    /// In the arena, without its escapes.
    Arena(usize, usize),
}

/// Takes rows apart; its buffers serve one row after the other.
#[derive(Debug)]
pub(crate) struct Decoder {
    kinds: Vec<Kind>,
    fields: Vec<Field>,
    arena: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new(kinds: Vec<Kind>) -> Self {
        Self { fields: Vec::with_capacity(kinds.len()), kinds, arena: Vec::new() }
    }

    /// Hands the values of one row, given without its line end, to `take`.
    ///
    /// # Errors
    /// `Malformed` when the row does not have the columns or a value is not of its type; what `take` returns.
    pub(crate) fn decode(
        &mut self,
        row: &[u8],
        take: &mut dyn FnMut(&[Value<'_>]) -> Result<()>,
    ) -> Result<()> {
        self.split(row)?;
        // `bytea` is decoded behind the escapes, so that values can borrow from the arena.
        for at in 0..self.fields.len() {
            if self.kinds.get(at) == Some(&Kind::Bytes) {
                self.decode_bytes(at, row)?;
            }
        }
        let mut values = Vec::with_capacity(self.fields.len());
        for (field, kind) in self.fields.iter().zip(&self.kinds) {
            values.push(value(text(field, row, &self.arena), *kind)?);
        }
        take(&values)
    }

    fn split(&mut self, row: &[u8]) -> Result<()> {
        self.fields.clear();
        self.arena.clear();
        if self.kinds.is_empty() {
            return if row.is_empty() {
                Ok(())
            } else {
                Err(malformed("a row of a table without columns is not empty"))
            };
        }
        let mut start = 0;
        loop {
            let rest = row.get(start..).unwrap_or_default();
            let found = memchr::memchr2(b'\t', b'\\', rest).map(|at| start + at);
            let (end, field) = match found {
                Some(at) if row.get(at) == Some(&b'\\') => {
                    let end = memchr::memchr(b'\t', row.get(at..).unwrap_or_default())
                        .map_or(row.len(), |more| at + more);
                    let raw = row.get(start..end).unwrap_or_default();
                    (end, if raw == b"\\N" { Field::Null } else { self.unescape(raw)? })
                }
                Some(at) => (at, Field::Row(start, at)),
                None => (row.len(), Field::Row(start, row.len())),
            };
            self.fields.push(field);
            if end >= row.len() {
                break;
            }
            start = end + 1;
        }
        if self.fields.len() != self.kinds.len() {
            return Err(malformed(&format!(
                "expected {} columns, found {}",
                self.kinds.len(),
                self.fields.len()
            )));
        }
        Ok(())
    }

    /// Writes a field without its escapes into the arena.
    fn unescape(&mut self, raw: &[u8]) -> Result<Field> {
        let from = self.arena.len();
        let mut rest = raw;
        while let Some(at) = memchr::memchr(b'\\', rest) {
            let (plain, escape) = rest.split_at(at);
            self.arena.extend_from_slice(plain);
            let [_, letter, after @ ..] = escape else { return Err(malformed("a backslash ends a value")) };
            self.arena.push(match letter {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                // Digits of other bases are read by COPY FROM, never written by COPY TO.
                b'0'..=b'7' | b'x' => {
                    return Err(malformed("a value holds an escape that servers do not write"));
                }
                other => *other,
            });
            rest = after;
        }
        self.arena.extend_from_slice(rest);
        Ok(Field::Arena(from, self.arena.len()))
    }

    /// Replaces the digits of a `bytea` by its bytes.
    fn decode_bytes(&mut self, at: usize, row: &[u8]) -> Result<()> {
        let Some(field) = self.fields.get_mut(at) else { return Ok(()) };
        let (from, to, in_row) = match *field {
            Field::Null => return Ok(()),
            Field::Row(from, to) => (from, to, true),
            Field::Arena(from, to) => (from, to, false),
        };
        let digits = if in_row { row.get(from..to) } else { self.arena.get(from..to) };
        let bytes = digits
            .and_then(|text| text.strip_prefix(b"\\x"))
            .and_then(|digits| hex::decode(digits).ok())
            .ok_or_else(|| malformed("a bytea is not in hexadecimal digits"))?;
        let start = self.arena.len();
        self.arena.extend_from_slice(&bytes);
        *field = Field::Arena(start, self.arena.len());
        Ok(())
    }
}

fn text<'a>(field: &Field, row: &'a [u8], arena: &'a [u8]) -> Option<&'a [u8]> {
    match *field {
        Field::Null => None,
        Field::Row(from, to) => row.get(from..to),
        Field::Arena(from, to) => arena.get(from..to),
    }
}

/// Makes a value of a column's text.
fn value(text: Option<&[u8]>, kind: Kind) -> Result<Value<'_>> {
    let Some(bytes) = text else { return Ok(Value::Null) };
    if kind == Kind::Bytes {
        return Ok(Value::Bytes(bytes));
    }
    // A database of encoding SQL_ASCII may hold anything.
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(Value::Bytes(bytes)) };
    let wrong = |what: &str| malformed(&format!("expected {what}, found {text:?}"));
    Ok(match kind {
        Kind::Bool => Value::Bool(match text {
            "t" => true,
            "f" => false,
            _ => return Err(wrong("t or f")),
        }),
        Kind::Int => Value::Int(text.parse().map_err(|_| wrong("a whole number"))?),
        Kind::Real => Value::Real(text.parse().map_err(|_| wrong("a number"))?),
        // NaN and the infinities are no numbers in JSON.
        Kind::Number if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-')) => {
            Value::Text(text)
        }
        Kind::Number => Value::Number(text),
        Kind::Json => Value::Json(text),
        Kind::Text | Kind::Bytes => Value::Text(text),
    })
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::Malformed, format!("COPY: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(kinds: &[Kind], row: &[u8]) -> Result<Vec<String>> {
        let mut seen = Vec::new();
        Decoder::new(kinds.to_vec()).decode(row, &mut |values| {
            seen = values.iter().map(|value| format!("{value:?}")).collect();
            Ok(())
        })?;
        Ok(seen)
    }

    #[test]
    fn every_kind_of_column_is_read() {
        use Kind::*;
        let row = b"t\t-7\t1.50\t0.1\t{\"a\": \"\\\\n\"}\t\\\\x00ff\ta\\tb\\\\\\n\t\\N\tNaN";
        let kinds = [Bool, Int, Number, Real, Json, Bytes, Text, Text, Number];
        assert_eq!(
            decode(&kinds, row).unwrap(),
            [
                "Bool(true)",
                "Int(-7)",
                "Number(\"1.50\")",
                "Real(0.1)",
                "Json(\"{\\\"a\\\": \\\"\\\\n\\\"}\")",
                "Bytes([0, 255])",
                "Text(\"a\\tb\\\\\\n\")",
                "Null",
                "Text(\"NaN\")",
            ]
        );
    }

    #[test]
    fn empty_values_and_empty_rows_are_told_apart_from_null() {
        assert_eq!(decode(&[Kind::Text], b"").unwrap(), ["Text(\"\")"]);
        assert_eq!(decode(&[Kind::Text, Kind::Text], b"\t").unwrap(), ["Text(\"\")", "Text(\"\")"]);
        assert_eq!(decode(&[], b"").unwrap(), Vec::<String>::new());
        // The text `\N` itself.
        assert_eq!(decode(&[Kind::Text], b"\\\\N").unwrap(), ["Text(\"\\\\N\")"]);
    }

    #[test]
    fn what_no_server_writes_is_refused() {
        for (kinds, row) in [
            (vec![Kind::Text], b"a\tb".to_vec()),
            (vec![Kind::Text, Kind::Text], b"a".to_vec()),
            (vec![Kind::Int], b"x".to_vec()),
            (vec![Kind::Bool], b"true".to_vec()),
            (vec![Kind::Bytes], b"00".to_vec()),
            (vec![Kind::Bytes], b"\\\\x0".to_vec()),
            (vec![Kind::Text], b"a\\".to_vec()),
            (vec![Kind::Text], b"\\x41".to_vec()),
            (vec![], b"a".to_vec()),
        ] {
            assert_eq!(decode(&kinds, &row).unwrap_err().kind(), ErrorKind::Malformed, "{row:?}");
        }
    }

    /// Writes a value as COPY TO does (`CopyAttributeOutText`).
    fn escape(text: &str) -> String {
        let mut made = String::new();
        for c in text.chars() {
            match c {
                '\u{8}' => made.push_str("\\b"),
                '\u{c}' => made.push_str("\\f"),
                '\n' => made.push_str("\\n"),
                '\r' => made.push_str("\\r"),
                '\t' => made.push_str("\\t"),
                '\u{b}' => made.push_str("\\v"),
                '\\' => made.push_str("\\\\"),
                other => made.push(other),
            }
        }
        made
    }

    proptest! {
        #[test]
        fn any_text_comes_back(texts in proptest::collection::vec(proptest::option::of("[\\x01-\\x7f\u{e4}\u{1f600}]{0,12}"), 1..6)) {
            let row = texts.iter().map(|text| text.as_deref().map_or("\\N".to_owned(), escape)).collect::<Vec<_>>().join("\t");
            let kinds = vec![Kind::Text; texts.len()];
            let mut seen = Vec::new();
            Decoder::new(kinds).decode(row.as_bytes(), &mut |values| {
                seen = values.iter().map(|value| value.as_text().map(str::to_owned)).collect();
                Ok(())
            }).unwrap();
            prop_assert_eq!(seen, texts);
        }
    }
}
