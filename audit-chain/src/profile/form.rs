//! What is hashed: the fields of a row, each rendered, put together as a profile says.
//!
//! ```text
//! joined           field SEP field SEP field [SEP]
//! json             {"name":value,…}, members sorted by code point, by RFC 8785 (numbers too), or as given; spaces and
//!                  ASCII as Python's json.dumps
//! length-prefixed  LEN bytes LEN bytes …; integers of fixed width have no length
//! template         literal text with {column} and {column:as}
//! ```
//!
//! A prefix stands before, a suffix behind. NULL is written as the field's or form's `null` text, as JSON `null`, or
//! with `omit_null` the field is left out as if it were not in the list.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::canonical::push_int;
use crate::json_tree::{Json, Members, NumberStyle, Style};
use crate::timestamp::Instant;
use crate::value::{Columns, Row, Value};

/// A form as the profile describes it.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) prefix: String,
    pub(super) suffix: String,
    pub(super) kind: Kind,
    pub(super) fields: Vec<Field>,
}

/// How the fields are put together.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Joined {
        separator: String,
        trailing: bool,
    },
    /// Fields are in the order in which they are written; the style is also that of nested values.
    Json(Style),
    LengthPrefixed(Length),
    /// Literal text stands before each field ([`Field::before`]).
    Template,
}

/// How a length is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// An unsigned integer of this many bytes.
    Big(usize),
    Little(usize),
    /// `5:hello,`
    Netstring,
}

/// The lengths by their names.
pub(super) const LENGTHS: &[(&str, Length)] = &[
    ("u16be", Length::Big(2)),
    ("u32be", Length::Big(4)),
    ("u64be", Length::Big(8)),
    ("u16le", Length::Little(2)),
    ("u32le", Length::Little(4)),
    ("u64le", Length::Little(8)),
    ("netstring", Length::Netstring),
];

/// One field.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// The member's name in JSON.
    pub(super) name: String,
    /// Literal text before it, in a template.
    pub(super) before: String,
    pub(super) from: From,
    pub(super) rendering: As,
    /// What NULL is written as; `None`: JSON `null`, or nothing.
    pub(super) null: Option<String>,
    pub(super) omit_null: bool,
}

/// Where a field comes from.
#[derive(Debug, Clone)]
pub(super) enum From {
    Column(String),
    /// The same for every row.
    Text(String),
    Int(i64),
}

/// How a value is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum As {
    Plain,
    Text,
    Integer,
    Bool,
    Json,
    Jsonb,
    JsonRfc8785,
    JsonPython,
    /// Units of 10 to the minus this many seconds since 1970.
    Unix(u32),
    /// Date, separator, time, this many fraction digits, zone.
    Time(TimeForm),
    Uuid,
    Hex,
    Base64,
    /// The bytes that the text spells.
    Decoded(Spelling),
    Big(usize),
    Little(usize),
}

/// How bytes are spelt in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    Hex,
    Base64,
    Base64Url,
}

/// How a date and time is spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeForm {
    separator: u8,
    digits: u8,
    /// Whether zeros at the end of the fraction are left out.
    trimmed: bool,
    zone: &'static str,
}

const fn rfc3339(digits: u8, trimmed: bool, zone: &'static str) -> As {
    As::Time(TimeForm { separator: b'T', digits, trimmed, zone })
}

/// The renderings by their names.
pub(super) const RENDERINGS: &[(&str, As)] = &[
    ("plain", As::Plain),
    ("text", As::Text),
    ("integer", As::Integer),
    ("bool", As::Bool),
    ("json", As::Json),
    ("jsonb", As::Jsonb),
    ("json-rfc8785", As::JsonRfc8785),
    ("json-python", As::JsonPython),
    ("unix-seconds", As::Unix(0)),
    ("unix-millis", As::Unix(3)),
    ("unix-micros", As::Unix(6)),
    ("unix-nanos", As::Unix(9)),
    ("rfc3339-seconds", rfc3339(0, false, "Z")),
    ("rfc3339-millis", rfc3339(3, false, "Z")),
    ("rfc3339-micros", rfc3339(6, false, "Z")),
    ("rfc3339-nanos", rfc3339(9, false, "Z")),
    ("rfc3339-trimmed", rfc3339(9, true, "Z")),
    ("rfc3339-seconds-offset", rfc3339(0, false, "+00:00")),
    ("rfc3339-millis-offset", rfc3339(3, false, "+00:00")),
    ("rfc3339-micros-offset", rfc3339(6, false, "+00:00")),
    ("rfc3339-nanos-offset", rfc3339(9, false, "+00:00")),
    ("postgres", As::Time(TimeForm { separator: b' ', digits: 6, trimmed: true, zone: "+00" })),
    ("uuid", As::Uuid),
    ("hex", As::Hex),
    ("base64", As::Base64),
    ("decoded-hex", As::Decoded(Spelling::Hex)),
    ("decoded-base64", As::Decoded(Spelling::Base64)),
    ("decoded-base64url", As::Decoded(Spelling::Base64Url)),
    ("u8", As::Big(1)),
    ("u16be", As::Big(2)),
    ("u32be", As::Big(4)),
    ("u64be", As::Big(8)),
    ("u16le", As::Little(2)),
    ("u32le", As::Little(4)),
    ("u64le", As::Little(8)),
];

impl As {
    /// Reports whether the rendering has a width of its own, so that it needs no length.
    pub(super) const fn is_fixed(self) -> bool {
        matches!(self, Self::Big(_) | Self::Little(_))
    }

    /// Reports whether the rendering is a JSON value as it stands, and no string.
    const fn is_json(self) -> bool {
        matches!(
            self,
            Self::Integer
                | Self::Bool
                | Self::Json
                | Self::Jsonb
                | Self::JsonRfc8785
                | Self::JsonPython
                | Self::Unix(_)
        )
    }
}

impl Form {
    /// Returns the columns that the form reads.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().filter_map(|field| match &field.from {
            From::Column(column) => Some(column.as_str()),
            From::Text(_) | From::Int(_) => None,
        })
    }

    /// Finds the columns of a source.
    pub(super) fn places(&self, columns: &Columns) -> Vec<Option<usize>> {
        let place = |field: &Field| match &field.from {
            From::Column(column) => columns.position(column),
            From::Text(_) | From::Int(_) => None,
        };
        self.fields.iter().map(place).collect()
    }

    /// Appends the form of a row. Says what cannot be rendered: the column and why.
    pub(super) fn write(
        &self,
        places: &[Option<usize>],
        row: &Row<'_>,
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), (String, String)> {
        out.extend_from_slice(self.prefix.as_bytes());
        if matches!(self.kind, Kind::Json(_)) {
            out.push(b'{');
        }
        let mut first = true;
        for (field, place) in self.fields.iter().zip(places) {
            out.extend_from_slice(field.before.as_bytes());
            let value = match &field.from {
                From::Column(_) => row.at(*place),
                From::Text(text) => Value::Text(text),
                From::Int(value) => Value::Int(*value),
            };
            if value.is_null() && field.omit_null {
                continue;
            }
            let fail = |why| (field.name.clone(), why);
            match &self.kind {
                Kind::Joined { separator, trailing } => {
                    if !first && !trailing {
                        out.extend_from_slice(separator.as_bytes());
                    }
                    field.push(out, value, None).map_err(fail)?;
                    if *trailing {
                        out.extend_from_slice(separator.as_bytes());
                    }
                }
                Kind::Json(style) => {
                    if !first {
                        style.push_comma(out);
                    }
                    style.push_string(out, &field.name);
                    style.push_colon(out);
                    field.push(out, value, Some(*style)).map_err(fail)?;
                }
                Kind::LengthPrefixed(_) if field.rendering.is_fixed() => {
                    field.push(out, value, None).map_err(fail)?;
                }
                Kind::LengthPrefixed(length) => {
                    scratch.clear();
                    field.push(scratch, value, None).map_err(fail)?;
                    length.push(out, scratch).map_err(fail)?;
                }
                Kind::Template => field.push(out, value, None).map_err(fail)?,
            }
            first = false;
        }
        if matches!(self.kind, Kind::Json(_)) {
            out.push(b'}');
        }
        out.extend_from_slice(self.suffix.as_bytes());
        Ok(())
    }
}

impl Length {
    /// Appends bytes with their length.
    fn push(self, out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), String> {
        let too_long = || format!("{} bytes are too long for their length", bytes.len());
        let length = u64::try_from(bytes.len()).map_err(|_| too_long())?;
        match self {
            Self::Big(width) | Self::Little(width) => {
                push_fixed(out, length, width, matches!(self, Self::Big(_))).ok_or_else(too_long)?;
                out.extend_from_slice(bytes);
            }
            Self::Netstring => {
                out.extend_from_slice(bytes.len().to_string().as_bytes());
                out.push(b':');
                out.extend_from_slice(bytes);
                out.push(b',');
            }
        }
        Ok(())
    }
}

/// Appends an unsigned integer of `width` bytes; `None` when it does not fit.
fn push_fixed(out: &mut Vec<u8>, value: u64, width: usize, big: bool) -> Option<()> {
    if width < 8 && value >> (8 * width) != 0 {
        return None;
    }
    if big {
        out.extend_from_slice(value.to_be_bytes().get(8 - width..)?);
    } else {
        out.extend_from_slice(value.to_le_bytes().get(..width)?);
    }
    Some(())
}

impl Field {
    /// Appends the rendered value; as a JSON value where a style is given.
    fn push(&self, out: &mut Vec<u8>, value: Value<'_>, json: Option<Style>) -> Result<(), String> {
        if value.is_null() {
            match (&self.null, json) {
                (Some(text), Some(style)) => style.push_string(out, text),
                (None, Some(_)) => out.extend_from_slice(b"null"),
                (Some(text), None) => out.extend_from_slice(text.as_bytes()),
                (None, None) if self.rendering.is_fixed() => {
                    return Err("NULL, and a number of fixed width has none".into());
                }
                (None, None) => {}
            }
            return Ok(());
        }
        match (self.rendering, json) {
            (As::Plain, Some(style)) => push_plain_json(out, value, style),
            (rendering, Some(style)) if !rendering.is_json() => {
                let mut text = Vec::new();
                render(&mut text, value, rendering, Style::PYTHON)?;
                let text = String::from_utf8(text).map_err(|_| "not text".to_owned())?;
                style.push_string(out, &text);
                Ok(())
            }
            (rendering, json) => render(out, value, rendering, json.unwrap_or(Style::PYTHON)),
        }
    }
}

/// Appends a value as the JSON value that it is.
fn push_plain_json(out: &mut Vec<u8>, value: Value<'_>, style: Style) -> Result<(), String> {
    match value {
        Value::Text(text) => style.push_string(out, text),
        Value::Int(_) | Value::Number(_) | Value::Json(_) | Value::Real(_)
            if style.numbers == NumberStyle::EcmaScript =>
        {
            let mut stands = Vec::new();
            push_text(&mut stands, value);
            let tree = Json::parse(&String::from_utf8_lossy(&stands))
                .map_err(|error| format!("no JSON: {error}"))?;
            tree.push(out, style).ok_or("a number that is too large")?;
        }
        Value::Bytes(_) => return Err("bytes are no JSON: render them as hex or base64".into()),
        other => crate::canonical::push_value(out, other),
    }
    Ok(())
}

/// Appends a value that is not NULL. `nested` is the style of JSON that is written anew by Python's rule.
fn render(out: &mut Vec<u8>, value: Value<'_>, rendering: As, nested: Style) -> Result<(), String> {
    match rendering {
        As::Plain | As::Text | As::Json => push_text(out, value),
        As::Integer => {
            push_int(out, value.to_int().ok_or_else(|| found("an integer", value))?);
        }
        As::Bool => {
            let truth = match value {
                Value::Bool(truth) => truth,
                Value::Int(1) | Value::Text("t" | "true" | "1") => true,
                Value::Int(0) | Value::Text("f" | "false" | "0") => false,
                other => return Err(found("a truth value", other)),
            };
            out.extend_from_slice(if truth { b"true" } else { b"false" });
        }
        As::Jsonb | As::JsonRfc8785 | As::JsonPython => {
            let mut text = Vec::new();
            push_text(&mut text, value);
            let text = String::from_utf8_lossy(&text);
            let tree = Json::parse(&text).map_err(|error| format!("no JSON: {error}"))?;
            let style = Style { members: Members::CodePoints, numbers: Style::PYTHON.numbers, ..nested };
            let written = match rendering {
                As::Jsonb => tree.push_jsonb(out),
                As::JsonRfc8785 => tree.push(out, Style::RFC_8785),
                _ => tree.push(out, style),
            };
            written.ok_or("a number that is too long or too large")?;
        }
        As::Unix(power) => {
            let instant = instant(value)?;
            let nanos = i128::from(instant.seconds) * 1_000_000_000 + i128::from(instant.nanos);
            let units = nanos.div_euclid(10_i128.pow(9 - power));
            out.extend_from_slice(units.to_string().as_bytes());
        }
        As::Time(form) => {
            let from = out.len();
            instant(value)?.push(out, form.separator, form.digits);
            if form.trimmed {
                while out.last() == Some(&b'0') {
                    out.pop();
                }
                if out.last() == Some(&b'.') {
                    out.pop();
                }
            }
            debug_assert!(out.len() > from);
            out.extend_from_slice(form.zone.as_bytes());
        }
        As::Uuid => push_uuid(out, value)?,
        As::Hex => out.extend_from_slice(hex::encode(bytes_of(value)?).as_bytes()),
        As::Base64 => out.extend_from_slice(STANDARD.encode(bytes_of(value)?).as_bytes()),
        As::Decoded(spelling) => {
            let text = value.as_text().ok_or_else(|| found("text", value))?;
            let (bytes, expected) = match spelling {
                Spelling::Hex => (hex::decode(text).ok(), "hexadecimal digits"),
                Spelling::Base64 => (STANDARD.decode(text).ok(), "base64"),
                Spelling::Base64Url => (URL_SAFE_NO_PAD.decode(text).ok(), "base64url without padding"),
            };
            out.extend_from_slice(&bytes.ok_or_else(|| found(expected, value))?);
        }
        As::Big(width) | As::Little(width) => {
            let number = value.to_int().ok_or_else(|| found("an integer", value))?;
            let fits = push_fixed(out, number.cast_unsigned(), width, matches!(rendering, As::Big(_)));
            fits.ok_or_else(|| format!("{number} does not fit {width} bytes"))?;
        }
    }
    Ok(())
}

/// Appends a value as text: text as it stands, numbers in their digits.
pub(super) fn push_text(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Text(text) => out.extend_from_slice(text.as_bytes()),
        Value::Bytes(bytes) => out.extend_from_slice(bytes),
        other => crate::canonical::push_value(out, other),
    }
}

fn instant(value: Value<'_>) -> Result<Instant, String> {
    value.as_text().and_then(Instant::parse).ok_or_else(|| found("a date and time", value))
}

/// Appends a UUID in lowercase with hyphens; it may be stored without them, or as 16 bytes.
fn push_uuid(out: &mut Vec<u8>, value: Value<'_>) -> Result<(), String> {
    let digits = match value {
        Value::Bytes(bytes) if bytes.len() == 16 => hex::encode(bytes),
        Value::Text(text) => text.replace('-', "").to_ascii_lowercase(),
        other => return Err(found("a UUID", other)),
    };
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(found("a UUID", value));
    }
    let mut rest = digits.as_str();
    for (at, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        let (part, behind) = rest.split_at(length);
        out.extend_from_slice(if at > 0 { b"-" } else { b"" });
        out.extend_from_slice(part.as_bytes());
        rest = behind;
    }
    Ok(())
}

/// Returns the bytes of a value: those of a BLOB, of PostgreSQL's `\x…`, or of text.
fn bytes_of(value: Value<'_>) -> Result<Vec<u8>, String> {
    match value {
        Value::Bytes(bytes) => Ok(bytes.to_vec()),
        Value::Text(text) => match text.strip_prefix("\\x") {
            Some(digits) => hex::decode(digits).map_err(|_| found("bytes", value)),
            None => Ok(text.as_bytes().to_vec()),
        },
        other => Err(found("bytes", other)),
    }
}

fn found(expected: &str, value: Value<'_>) -> String {
    match value.as_text() {
        Some(text) => format!("expected {expected}, found {:?}", text.chars().take(60).collect::<String>()),
        None => format!("expected {expected}, found {}", value.type_name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(value: Value<'_>, name: &str) -> Result<String, String> {
        let (_, rendering) = RENDERINGS.iter().find(|(known, _)| *known == name).unwrap();
        let mut out = Vec::new();
        render(&mut out, value, *rendering, Style::PYTHON)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn every_rendering_writes_what_its_name_says() {
        let at = Value::Text("2026-11-03 10:00:37.120400+02");
        for (value, name, expected) in [
            (Value::Text("é"), "plain", "é"),
            (Value::Int(-7), "text", "-7"),
            (Value::Text("12"), "integer", "12"),
            (Value::Text("t"), "bool", "true"),
            (Value::Int(0), "bool", "false"),
            (Value::Json("{\"b\": 1}"), "json", "{\"b\": 1}"),
            (Value::Text("{\"b\":1.0,\"a\":1e3}"), "jsonb", "{\"a\": 1000, \"b\": 1.0}"),
            (Value::Text("{\"b\":1.0,\"a\":1e3}"), "json-rfc8785", "{\"a\":1000,\"b\":1}"),
            (Value::Text("{\"b\":1.0,\"a\":1e3}"), "json-python", "{\"a\":1000.0,\"b\":1.0}"),
            (at, "unix-seconds", "1793692837"),
            (at, "unix-millis", "1793692837120"),
            (at, "unix-micros", "1793692837120400"),
            (at, "unix-nanos", "1793692837120400000"),
            (at, "rfc3339-seconds", "2026-11-03T08:00:37Z"),
            (at, "rfc3339-millis", "2026-11-03T08:00:37.120Z"),
            (at, "rfc3339-micros", "2026-11-03T08:00:37.120400Z"),
            (at, "rfc3339-nanos", "2026-11-03T08:00:37.120400000Z"),
            (at, "rfc3339-trimmed", "2026-11-03T08:00:37.1204Z"),
            (at, "rfc3339-micros-offset", "2026-11-03T08:00:37.120400+00:00"),
            (at, "postgres", "2026-11-03 08:00:37.1204+00"),
            (Value::Text("2026-11-03 08:00:00Z"), "postgres", "2026-11-03 08:00:00+00"),
            (Value::Text("0198F0C0000070008000000000000001"), "uuid", "0198f0c0-0000-7000-8000-000000000001"),
            (Value::Bytes(&[1, 255]), "hex", "01ff"),
            (Value::Text("\\x01ff"), "base64", "Af8="),
            (Value::Text("_w"), "decoded-base64url", "\u{fffd}"),
            (Value::Text("w6k="), "decoded-base64", "é"),
            (Value::Text("C3a9"), "decoded-hex", "é"),
            (Value::Int(258), "u16be", "\u{1}\u{2}"),
            (Value::Int(258), "u32le", "\u{2}\u{1}\0\0"),
            (Value::Text("65"), "u8", "A"),
        ] {
            assert_eq!(rendered(value, name).unwrap(), expected, "{name}");
        }
        for (value, name) in [
            (Value::Text("x"), "integer"),
            (Value::Text("yes"), "bool"),
            (Value::Text("{"), "jsonb"),
            (Value::Int(5), "unix-nanos"),
            (Value::Text("0198f0c0"), "uuid"),
            (Value::Int(5), "hex"),
            (Value::Text("w6k"), "decoded-base64"),
            (Value::Text("c3a"), "decoded-hex"),
            (Value::Int(7), "decoded-hex"),
            (Value::Int(256), "u8"),
            (Value::Int(-1), "u32be"),
        ] {
            assert!(rendered(value, name).is_err(), "{name}");
        }
    }
}
