//! One JSON object as a row.
//!
//! Every member is scanned once, by `serde_json`; text without escapes is borrowed from the line, text with escapes is decoded into
//! one buffer that serves all lines. Members mostly come in the order of the header, so their columns are
//! guessed before they are looked up. Nested values are not descended into, so their depth costs no stack.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::value::{Columns, Row, Value};

/// Why a line gives no row: what is wrong with it, or what the row's taker said.
pub(super) enum NoRow {
    /// Column and cause.
    Line(String),
    /// The taker's error.
    Taker(Error),
}

/// Reads lines; its buffers are used again.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    /// The decoded texts of one line.
    decoded: String,
}

/// A member of a line.
struct Member<'t> {
    /// The header's column, or the name of a member that is none.
    at: Result<usize, Cow<'t, str>>,
    value: Found<'t>,
}

/// A member's value.
enum Found<'t> {
    Whole(Value<'t>),
    /// Text in [`LineReader::decoded`].
    Decoded(Range<usize>),
}

impl LineReader {
    /// Reads the lines of a block and hands their rows to `each`.
    ///
    /// # Errors
    /// The place (0 for the first line) and the cause.
    pub(super) fn block(
        &mut self,
        columns: &Columns,
        block: &[u8],
        each: &mut dyn FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<(), (u64, NoRow)> {
        // Looked at as a whole, text is validated at the speed of memory; a fault is looked for again, by line.
        let whole = std::str::from_utf8(block).ok();
        let mut members = Vec::new();
        let mut values = Vec::new();
        let mut start = 0;
        let ends = memchr::memchr_iter(b'\n', block).chain(std::iter::once(block.len()));
        for (number, end) in (0..).zip(ends) {
            let line = &block[start..end];
            let checked = whole.and_then(|text| text.get(start..end));
            start = end + 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let text = checked.map_or_else(|| utf8(line), Ok).map_err(|what| (number, NoRow::Line(what)))?;
            self.line(columns, text, &mut members, &mut values, each).map_err(|why| (number, why))?;
        }
        Ok(())
    }

    /// Reads one line.
    fn line<'t>(
        &mut self,
        columns: &Columns,
        text: &'t str,
        members: &mut Vec<Member<'t>>,
        values: &mut Vec<Value<'t>>,
        each: &mut dyn FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<(), NoRow> {
        self.decoded.clear();
        members.clear();
        let taker = Members { text, columns, decoded: &mut self.decoded, members };
        parse(text, taker).map_err(NoRow::Line)?;
        values.clear();
        values.resize(columns.names().len(), Value::Absent);
        if self.decoded.is_empty() {
            return hand_over(members, "", values, each);
        }
        // Values of the decoded text live no longer than it stays as it is.
        let mut short: Vec<Value<'_>> = Vec::with_capacity(values.len());
        short.resize(values.len(), Value::Absent);
        hand_over(members, &self.decoded, &mut short, each)
    }
}

/// Puts the members in the header's order and hands the row to `each`.
fn hand_over<'v, 't: 'v>(
    members: &[Member<'t>],
    decoded: &'v str,
    values: &mut [Value<'v>],
    each: &mut dyn FnMut(&Row<'_>) -> Result<()>,
) -> Result<(), NoRow> {
    let mut extra: Vec<(&str, Value<'_>)> = Vec::new();
    for member in members {
        let value = match &member.value {
            Found::Whole(value) => *value,
            Found::Decoded(range) => Value::Text(decoded.get(range.clone()).unwrap_or_default()),
        };
        match &member.at {
            Ok(at) => {
                if let Some(place) = values.get_mut(*at) {
                    *place = value;
                }
            }
            Err(name) => match extra.iter_mut().find(|(known, _)| known == name) {
                Some(known) => known.1 = value,
                None => extra.push((name, value)),
            },
        }
    }
    each(&Row { values, extra: &extra }).map_err(NoRow::Taker)
}

/// Returns the names of an object's members in order, each once.
pub(super) fn names(line: &[u8]) -> Result<Vec<String>, String> {
    let (columns, mut decoded, mut members) = (Columns::default(), String::new(), Vec::new());
    let text = utf8(line)?;
    parse(text, Members { text, columns: &columns, decoded: &mut decoded, members: &mut members })?;
    let mut names: Vec<String> = Vec::with_capacity(members.len());
    for member in members {
        if let Err(name) = member.at
            && !names.iter().any(|known| *known == name)
        {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

/// Checks that a line is text.
fn utf8(line: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(line).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to() + 1))
}

/// Reads one object.
fn parse<'t>(text: &'t str, members: Members<'_, 't>) -> Result<(), String> {
    if text.starts_with('\u{feff}') {
        return Err("a byte order mark; expected a JSON object".into());
    }
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(members).and_then(|()| json.end()).map_err(|error| describe(&error))
}

/// Says what is wrong without the line number, which is that of the one line parsed.
pub(super) fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("column {}: {what}", error.column())
}

/// Where the backslashes of a line are, so that they are looked for once and not in every value anew.
struct Escapes<'t> {
    line: &'t str,
    /// The first one at or behind the value that was asked for last; the line's length where there is none.
    next: usize,
}

impl<'t> Escapes<'t> {
    fn new(line: &'t str) -> Self {
        Self { line, next: memchr::memchr(b'\\', line.as_bytes()).unwrap_or(line.len()) }
    }

    /// Returns the place of the first backslash in a part of the line. Parts are asked for in their order.
    #[inline]
    fn first_in(&mut self, part: &str) -> Option<usize> {
        let start = part.as_ptr().addr().wrapping_sub(self.line.as_ptr().addr());
        if self.next < start {
            let rest = self.line.as_bytes().get(start..).unwrap_or_default();
            self.next = memchr::memchr(b'\\', rest).map_or(self.line.len(), |at| start + at);
        }
        (self.next < start.saturating_add(part.len())).then(|| self.next - start)
    }
}

/// Takes an object's members.
struct Members<'r, 't> {
    text: &'t str,
    columns: &'r Columns,
    decoded: &'r mut String,
    members: &'r mut Vec<Member<'t>>,
}

impl<'t> Visitor<'t> for Members<'_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<(), A::Error> {
        let mut guess = 0;
        let mut escapes = Escapes::new(self.text);
        while let Some(at) = map.next_key_seed(Key { columns: self.columns, guess })? {
            if let Ok(at) = at {
                guess = at + 1;
            }
            let raw: &'t RawValue = map.next_value()?;
            let value = read(raw.get(), &mut escapes, self.decoded).map_err(A::Error::custom)?;
            self.members.push(Member { at, value });
        }
        Ok(())
    }
}

/// Finds a member's column.
struct Key<'c> {
    columns: &'c Columns,
    guess: usize,
}

impl Key<'_> {
    /// Returns the column of a name.
    fn find(&self, name: &str) -> Option<usize> {
        let guessed = self.columns.names().get(self.guess).is_some_and(|known| known == name);
        if guessed { Some(self.guess) } else { self.columns.position(name) }
    }
}

impl<'t> DeserializeSeed<'t> for Key<'_> {
    type Value = Result<usize, Cow<'t, str>>;

    fn deserialize<D: serde::Deserializer<'t>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'t> Visitor<'t> for Key<'_> {
    type Value = Result<usize, Cow<'t, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E>(self, name: &'t str) -> Result<Self::Value, E> {
        Ok(self.find(name).ok_or(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.find(name).ok_or_else(|| Cow::Owned(name.to_owned())))
    }
}

/// Reads a value; text with escapes is appended to `decoded`.
#[inline]
fn read<'t>(raw: &'t str, escapes: &mut Escapes<'_>, decoded: &mut String) -> Result<Found<'t>, String> {
    // One byte is compared faster than a pattern.
    let inner = match raw.as_bytes() {
        [b'"', inside @ .., b'"'] => raw.get(1..=inside.len()),
        _ => None,
    };
    let Some(inner) = inner else {
        return Ok(Found::Whole(plain_value(raw)));
    };
    let Some(first) = escapes.first_in(inner) else {
        return Ok(Found::Whole(Value::Text(inner)));
    };
    let start = decoded.len();
    if unescape(inner, first, decoded).is_none() {
        // What the short way does not know is judged by the parser.
        decoded.truncate(start);
        let text: String = serde_json::from_str(raw).map_err(|error| describe(&error))?;
        decoded.push_str(&text);
    }
    if decoded.len() == start {
        return Ok(Found::Whole(Value::Text("")));
    }
    Ok(Found::Decoded(start..decoded.len()))
}

/// Decodes the inside of a JSON string that was scanned as one; `first` is where its first backslash stands.
/// `None` where half a surrogate pair, or anything else out of order, wants the parser's judgement.
fn unescape(mut text: &str, first: usize, out: &mut String) -> Option<()> {
    let mut next = Some(first);
    while let Some(at) = next {
        out.push_str(text.get(..at)?);
        let (letter, mut used) = (*text.as_bytes().get(at + 1)?, 2);
        out.push(match letter {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = code_unit(text, at)?;
                used = 6;
                if (0xd800..0xdc00).contains(&unit) {
                    let low = code_unit(text, at + 6).filter(|low| (0xdc00..0xe000).contains(low))?;
                    used = 12;
                    char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00))?
                } else {
                    char::from_u32(unit)?
                }
            }
            _ => return None,
        });
        text = text.get(at + used..)?;
        next = memchr::memchr(b'\\', text.as_bytes());
    }
    out.push_str(text);
    Some(())
}

/// Reads `\uXXXX` at a place.
fn code_unit(text: &str, at: usize) -> Option<u32> {
    let digits = text.as_bytes().get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

/// Reads a value that is no string.
fn plain_value(text: &str) -> Value<'_> {
    // It was scanned as a JSON value: its first byte says which.
    match text.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'{' | b'[') => Value::Json(text),
        // `-0` keeps its spelling: as an integer it would lose its sign.
        _ if text != "-0" => text.parse().map_or(Value::Number(text), Value::Int),
        _ => Value::Number(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(raw: &str) -> Result<String, String> {
        let mut decoded = String::new();
        Ok(match read(raw, &mut Escapes::new(raw), &mut decoded)? {
            Found::Whole(value) => value.as_text().unwrap().to_owned(),
            Found::Decoded(range) => decoded[range].to_owned(),
        })
    }

    #[test]
    fn escapes_are_decoded_as_the_parser_does() {
        for raw in [
            r#""""#,
            r#""\u0041""#,
            r#""a\"b\\c\/d\b\f\n\r\t\u00e9\uD83D\ude00é""#,
            r#""\\\\""#,
            r#""\u0000\u2028\uffff""#,
            r#""\ud83d\ude00\ud83d\ude01""#,
        ] {
            assert_eq!(decoded(raw).unwrap(), serde_json::from_str::<String>(raw).unwrap(), "{raw}");
        }
        for raw in [r#""\ud800""#, r#""\ud800x""#, r#""\udc00""#, r#""\ud800\ud800""#, r#""\ud800\n""#] {
            assert!(decoded(raw).is_err(), "{raw}");
            assert!(serde_json::from_str::<String>(raw).is_err(), "{raw}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_reads_back_however_it_is_escaped(text in "[\\x00-\\x7fé😀\u{2028}]{0,20}", which: u64) {
            let mut raw = String::from("\"");
            for (at, letter) in text.chars().enumerate() {
                let plain = letter >= ' ' && letter != '"' && letter != '\\';
                if plain && which >> (at % 64) & 1 == 0 {
                    raw.push(letter);
                } else {
                    letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| raw.push_str(&format!("\\u{unit:04X}")));
                }
            }
            raw.push('"');
            proptest::prop_assert_eq!(decoded(&raw).unwrap(), text);
        }
    }
}
