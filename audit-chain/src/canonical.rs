//! The canonical form of a whole row, and its leaf hash.
//!
//! A row is one JSON object without spaces: members sorted by name (code points), text escaped as
//! RFC 8785 §3.2.2.2 asks (`\b \t \n \f \r \" \\`, other control characters `\u00xx`, all else as it is).
//! Values keep what was stored, so that the form says the same of a table, of its NDJSON export and of a restored copy:
//!
//! | stored | written |
//! |---|---|
//! | NULL | `null` |
//! | integer | its decimal digits, whatever its size |
//! | JSON number with fraction or exponent, or past 64 bits | the digits as found |
//! | binary64 of a database | the shortest digits that read back to it; `{"$real":"inf"}` and the like where JSON has none |
//! | text | a JSON string |
//! | bytes, and text that is not UTF-8 | `{"$base64":"…"}` |
//! | JSON object or array | its exact bytes |
//! | a member that the line does not have | left out |
//!
//! The line's RFC 6962 leaf hash is SHA-256 of a zero byte and these bytes. One [`RowForm`] per worker
//! thread; its buffer is used again for every row.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::value::{Columns, Row, Value};

/// Appends `text` as a JSON string, quotes included (RFC 8785 §3.2.2.2).
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_escaped(out, text.as_bytes());
    out.push(b'"');
}

/// Reports whether a byte must be escaped: below 0x20, a quote or a backslash.
#[inline]
const fn needs_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Returns how many leading bytes need no escape.
#[inline]
fn plain_prefix(bytes: &[u8]) -> usize {
    let long = plain_lanes::<32>(bytes);
    let rest = bytes.get(long..).unwrap_or_default();
    let short = plain_lanes::<8>(rest);
    let tail = rest.get(short..).unwrap_or_default();
    long + short + tail.iter().take_while(|byte| !needs_escape(**byte)).count()
}

/// Returns the length of the leading lanes of `N` bytes that need no escape.
#[inline]
fn plain_lanes<const N: usize>(bytes: &[u8]) -> usize {
    // Without a branch inside a lane the compiler compares it as one vector.
    let plain = |lane: &&[u8; N]| !lane.iter().fold(false, |found, byte| found | needs_escape(*byte));
    bytes.as_chunks::<N>().0.iter().take_while(plain).count() * N
}

/// Appends the inside of a JSON string.
pub(crate) fn push_escaped(out: &mut Vec<u8>, mut bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    loop {
        let plain = plain_prefix(bytes);
        let (head, rest) = bytes.split_at(plain);
        out.extend_from_slice(head);
        let Some((&byte, rest)) = rest.split_first() else { return };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x0a => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            0x0d => out.extend_from_slice(b"\\r"),
            other => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(other >> 4)]);
                out.push(HEX[usize::from(other & 15)]);
            }
        }
        bytes = rest;
    }
}

/// Appends a decimal integer.
pub(crate) fn push_int(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a value in canonical form. [`Value::Absent`] writes nothing: leave its member out.
pub fn push_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Absent => {}
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(value) => push_int(out, value),
        Value::Number(digits) | Value::Json(digits) => out.extend_from_slice(digits.as_bytes()),
        Value::Real(real) if real.is_finite() => {
            // serde_json writes the shortest digits that read back to the same number.
            if serde_json::to_writer(&mut *out, &real).is_err() {
                out.extend_from_slice(b"null");
            }
        }
        Value::Real(real) => {
            let name = if real.is_nan() {
                "nan"
            } else if real > 0.0 {
                "inf"
            } else {
                "-inf"
            };
            out.extend_from_slice(format!("{{\"$real\":\"{name}\"}}").as_bytes());
        }
        Value::Text(text) => push_string(out, text),
        Value::Bytes(bytes) => {
            out.extend_from_slice(b"{\"$base64\":\"");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
}

/// Writes rows of one header in canonical form.
#[derive(Debug, Clone)]
pub struct RowForm {
    /// Columns in the order of the canonical form: place in the row, `"name":`.
    members: Vec<(usize, Vec<u8>)>,
    /// The same names, to merge members that are no column.
    names: Vec<String>,
    buffer: Vec<u8>,
    /// Where each column's value stands in the buffer, by its place in the row.
    values: Vec<(usize, usize)>,
}

impl RowForm {
    /// Prepares the form of a header.
    #[must_use]
    pub fn new(columns: &Columns) -> Self {
        let mut sorted: Vec<(usize, &String)> = columns.names().iter().enumerate().collect();
        sorted.sort_by(|left, right| left.1.cmp(right.1).then(left.0.cmp(&right.0)));
        sorted.dedup_by(|later, earlier| later.1 == earlier.1);
        let members = sorted
            .iter()
            .map(|(at, name)| {
                let mut member = Vec::with_capacity(name.len() + 3);
                push_string(&mut member, name);
                member.push(b':');
                (*at, member)
            })
            .collect();
        let names = sorted.into_iter().map(|(_, name)| name.clone()).collect();
        Self { members, names, buffer: vec![0], values: vec![(0, 0); columns.names().len()] }
    }

    /// Writes the row and returns its line, without a line end. Valid until the next call.
    pub fn line(&mut self, row: &Row<'_>) -> &[u8] {
        self.write(row);
        &self.buffer[1..]
    }

    /// Returns the canonical bytes of one column of the row that was written last; empty where it had none.
    #[must_use]
    pub fn value(&self, column: Option<usize>) -> &[u8] {
        let span = column.and_then(|at| self.values.get(at)).copied().unwrap_or_default();
        self.buffer.get(span.0..span.1).unwrap_or_default()
    }

    /// Returns the RFC 6962 leaf hash of the row's line.
    pub fn leaf(&mut self, row: &Row<'_>) -> [u8; 32] {
        self.write(row);
        Sha256::digest(&self.buffer).into()
    }

    /// Fills the buffer: a zero byte (the leaf prefix of RFC 6962 §2.1) and the line.
    fn write(&mut self, row: &Row<'_>) {
        let Self { members, names, buffer, values } = self;
        buffer.truncate(1);
        buffer.push(b'{');
        let mut column = |buffer: &mut Vec<u8>, at: usize, member: &[u8]| {
            let start = push_member(buffer, member, row.at(Some(at)));
            if let Some(span) = values.get_mut(at) {
                *span = (start, buffer.len());
            }
        };
        if row.extra.is_empty() {
            for (at, member) in members.iter() {
                column(buffer, *at, member);
            }
        } else {
            let mut extra: Vec<&(&str, Value<'_>)> = row.extra.iter().collect();
            extra.sort_by_key(|(name, _)| *name);
            let mut extra = extra.into_iter().peekable();
            for ((at, member), name) in members.iter().zip(names.iter()) {
                while let Some((other, value)) = extra.next_if(|(other, _)| *other < name.as_str()) {
                    push_extra(buffer, other, *value);
                }
                column(buffer, *at, member);
            }
            for (other, value) in extra {
                push_extra(buffer, other, *value);
            }
        }
        buffer.push(b'}');
    }
}

/// Appends one column with its prepared name; returns where its value begins.
#[inline]
fn push_member(buffer: &mut Vec<u8>, member: &[u8], value: Value<'_>) -> usize {
    if matches!(value, Value::Absent) {
        return buffer.len();
    }
    if buffer.len() > 2 {
        buffer.push(b',');
    }
    buffer.extend_from_slice(member);
    let start = buffer.len();
    push_value(buffer, value);
    start
}

/// Appends a member that is no column.
fn push_extra(buffer: &mut Vec<u8>, name: &str, value: Value<'_>) {
    let mut member = Vec::with_capacity(name.len() + 3);
    push_string(&mut member, name);
    member.push(b':');
    push_member(buffer, &member, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(names: &[&str], values: &[Value<'_>], extra: &[(&str, Value<'_>)]) -> String {
        let mut form = RowForm::new(&Columns::new(names.iter().copied()));
        String::from_utf8(form.line(&Row { values, extra }).to_vec()).unwrap()
    }

    #[test]
    fn members_are_sorted_and_values_keep_what_was_stored() {
        let text = line(
            &["b", "a", "é", "n", "x"],
            &[
                Value::Int(i64::MIN),
                Value::Text("zoë \u{2028}\"\\\n\u{1}\u{7f}"),
                Value::Real(0.1),
                Value::Null,
                Value::Bytes(&[0, 255]),
            ],
            &[],
        );
        assert_eq!(
            text,
            "{\"a\":\"zoë \u{2028}\\\"\\\\\\n\\u0001\u{7f}\",\"b\":-9223372036854775808,\"n\":null,\"x\":{\"$base64\":\"AP8=\"},\"é\":0.1}"
        );
    }

    #[test]
    fn members_beyond_the_header_stand_in_their_place_and_absent_ones_do_not() {
        let extra = [("z", Value::Json("[1, 2]")), ("aa", Value::Number("1.50"))];
        assert_eq!(
            line(&["b", "a"], &[Value::Absent, Value::Bool(true)], &extra),
            r#"{"a":true,"aa":1.50,"z":[1, 2]}"#
        );
    }

    #[test]
    fn every_byte_that_needs_an_escape_is_found_at_every_place() {
        for at in 0..20 {
            for byte in (0..0x20_u8).chain([b'"', b'\\']) {
                let mut text = "x".repeat(20).into_bytes();
                text[at] = byte;
                let text = String::from_utf8(text).unwrap();
                let mut ours = Vec::new();
                push_string(&mut ours, &text);
                assert_eq!(String::from_utf8(ours).unwrap(), serde_json::to_string(&text).unwrap());
            }
        }
        for text in ["ÿ\u{80}\u{ff}\u{7f}ÿÿÿÿÿÿ", "\u{10ffff}\u{20}!#[]"] {
            let mut ours = Vec::new();
            push_string(&mut ours, text);
            assert_eq!(String::from_utf8(ours).unwrap(), serde_json::to_string(text).unwrap());
        }
    }
}
