//! JSON as a tree that keeps what spelling tells: the order of members and the digits of numbers.
//!
//! For the slow path only: to write a value again as the system that hashed it would have written it, when the
//! spelling at hand is another one. The writers are
//!
//! - [`Json::push_jsonb`]: PostgreSQL's `jsonb::text`. A space after `:` and `,`; members by length of the name
//!   in bytes, then by its bytes; of equal names the last; numbers as `numeric` prints them (`1e3` is `1000`,
//!   `1.00` stays, there is no negative zero).
//! - [`Json::push`]: as a [`Style`] says: ECMAScript's `JSON.stringify`, RFC 8785, Python's `json.dumps`.
//!
//! serde_json reads; nesting deeper than [`MAX_DEPTH`] is refused.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::canonical::push_string;
use crate::formats::z4j::metadata::push_float;

/// How deep values may be nested.
pub(crate) const MAX_DEPTH: usize = 128;

/// How long a number may be when it is written without exponent, in digits (PostgreSQL's own limit on the left side).
const MAX_DIGITS: usize = 131_072;

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// The digits as found.
    Number(String),
    Text(String),
    Array(Vec<Self>),
    /// Members in the order found, equal names included.
    Object(Vec<(String, Self)>),
}

/// How the members of objects are ordered. Of equal names the last counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Members {
    /// As they stand.
    AsFound,
    /// By the UTF-16 code units of their names (RFC 8785 §3.2.3).
    Utf16,
    /// By the code points of their names (Python's `sort_keys`).
    CodePoints,
}

/// How numbers are spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumberStyle {
    /// As they stand.
    AsFound,
    /// As ECMAScript prints the nearest binary64.
    EcmaScript,
    /// As Python: integers of any size, others as `repr` of the nearest binary64.
    Python,
}

/// How JSON is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) members: Members,
    pub(crate) numbers: NumberStyle,
    /// A space after `:` and `,`.
    pub(crate) spaces: bool,
    /// `\uXXXX` for all but printable ASCII (Python's `ensure_ascii`).
    pub(crate) ascii: bool,
}

impl Style {
    /// ECMAScript's `JSON.stringify`.
    pub(crate) const STRINGIFY: Self =
        Self { members: Members::AsFound, numbers: NumberStyle::EcmaScript, spaces: false, ascii: false };
    /// RFC 8785.
    pub(crate) const RFC_8785: Self = Self { members: Members::Utf16, ..Self::STRINGIFY };
    /// Python's `json.dumps(…, sort_keys=True)`.
    pub(crate) const PYTHON: Self =
        Self { members: Members::CodePoints, numbers: NumberStyle::Python, spaces: false, ascii: false };

    /// Appends a string, quotes included.
    pub(crate) fn push_string(self, out: &mut Vec<u8>, text: &str) {
        use std::io::Write as _;
        if !self.ascii {
            push_string(out, text);
            return;
        }
        let from = out.len();
        push_string(out, text);
        if out.iter().skip(from).all(|byte| (b' '..=b'~').contains(byte)) {
            return;
        }
        let escaped = String::from_utf8_lossy(out.get(from..).unwrap_or(&[])).into_owned();
        out.truncate(from);
        for letter in escaped.chars() {
            if (' '..='~').contains(&letter) {
                out.push(u8::try_from(letter).unwrap_or(b'?'));
            } else {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    // Writing to a vector does not fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }

    /// Appends what stands between two members or items.
    pub(crate) fn push_comma(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.spaces { b", " } else { b"," });
    }

    /// Appends what stands behind a member's name.
    pub(crate) fn push_colon(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.spaces { b": " } else { b":" });
    }
}

impl Json {
    /// Reads one value.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Self::of_raw(raw, MAX_DEPTH)
    }

    fn of_raw(raw: &RawValue, depth: usize) -> Result<Self, String> {
        let text = raw.get();
        let depth = depth.checked_sub(1).ok_or_else(|| format!("nested deeper than {MAX_DEPTH}"))?;
        Ok(match text.as_bytes().first() {
            Some(b'{') => {
                let members = serde_json::Deserializer::from_str(text)
                    .deserialize_map(RawMembers)
                    .map_err(|error| error.to_string())?;
                let members = members.into_iter().map(|(name, raw)| Ok((name, Self::of_raw(raw, depth)?)));
                Self::Object(members.collect::<Result<_, String>>()?)
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| error.to_string())?;
                Self::Array(items.into_iter().map(|raw| Self::of_raw(raw, depth)).collect::<Result<_, _>>()?)
            }
            Some(b'"') => Self::Text(serde_json::from_str(text).map_err(|error| error.to_string())?),
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'n') => Self::Null,
            _ => Self::Number(text.to_owned()),
        })
    }

    /// Appends the value as PostgreSQL's `jsonb::text`; `None` when a number is longer than PostgreSQL keeps.
    pub(crate) fn push_jsonb(&self, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Number(digits) => push_numeric(out, digits)?,
            Self::Text(text) => push_string(out, text),
            Self::Array(items) => {
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    out.extend_from_slice(if at > 0 { b", " } else { b"" });
                    item.push_jsonb(out)?;
                }
                out.push(b']');
            }
            Self::Object(members) => {
                let mut sorted: Vec<&(String, Self)> = members.iter().collect();
                sorted.sort_by(|left, right| (left.0.len(), &left.0).cmp(&(right.0.len(), &right.0)));
                out.push(b'{');
                for (at, (name, value)) in last_of_equal(&sorted).enumerate() {
                    out.extend_from_slice(if at > 0 { b", " } else { b"" });
                    push_string(out, name);
                    out.extend_from_slice(b": ");
                    value.push_jsonb(out)?;
                }
                out.push(b'}');
            }
        }
        Some(())
    }

    /// Appends the value; `None` when a number is beyond binary64 and is to be written as one.
    pub(crate) fn push(&self, out: &mut Vec<u8>, style: Style) -> Option<()> {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Number(digits) => push_number(out, digits, style.numbers)?,
            Self::Text(text) => style.push_string(out, text),
            Self::Array(items) => {
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        style.push_comma(out);
                    }
                    item.push(out, style)?;
                }
                out.push(b']');
            }
            Self::Object(members) => {
                let mut ordered: Vec<&(String, Self)> = members.iter().collect();
                match style.members {
                    Members::AsFound => {}
                    Members::Utf16 => {
                        ordered.sort_by(|left, right| left.0.encode_utf16().cmp(right.0.encode_utf16()));
                    }
                    Members::CodePoints => ordered.sort_by(|left, right| left.0.cmp(&right.0)),
                }
                out.push(b'{');
                for (at, (name, value)) in last_of_equal(&ordered).enumerate() {
                    if at > 0 {
                        style.push_comma(out);
                    }
                    style.push_string(out, name);
                    style.push_colon(out);
                    value.push(out, style)?;
                }
                out.push(b'}');
            }
        }
        Some(())
    }

    /// Visits every number, in the order of the text.
    pub(crate) fn numbers_mut<'a>(&'a mut self, visit: &mut dyn FnMut(&'a mut String)) {
        match self {
            Self::Number(digits) => visit(digits),
            Self::Array(items) => items.iter_mut().for_each(|item| item.numbers_mut(visit)),
            Self::Object(members) => members.iter_mut().for_each(|(_, value)| value.numbers_mut(visit)),
            Self::Null | Self::Bool(_) | Self::Text(_) => {}
        }
    }
}

/// Passes over members whose name comes again right after. Sorted members have equal names side by side.
fn last_of_equal<'a, 'b>(members: &'b [&'a (String, Json)]) -> impl Iterator<Item = &'a (String, Json)> + 'b {
    let again = |at: usize, name: &String| members.get(at + 1).is_some_and(|next| next.0 == *name);
    members.iter().enumerate().filter(move |(at, member)| !again(*at, &member.0)).map(|(_, member)| *member)
}

/// Appends a JSON number as PostgreSQL's `numeric` prints it.
fn push_numeric(out: &mut Vec<u8>, number: &str) -> Option<()> {
    let (negative, digits) = number.strip_prefix('-').map_or((false, number), |digits| (true, digits));
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: i64 = exponent.parse().ok()?;
    let all = [whole, fraction].concat();
    // Where the point stands in `all`; digits behind it are what the text had, less what the exponent takes.
    let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let scale = i64::try_from(fraction.len()).ok()?.checked_sub(exponent)?.max(0);
    let (scale, before) = (usize::try_from(scale).ok()?, usize::try_from(point.max(0)).ok()?);
    if scale > MAX_DIGITS || before > MAX_DIGITS {
        return None;
    }
    let digit =
        |at: i64| usize::try_from(at).ok().and_then(|at| all.as_bytes().get(at)).copied().unwrap_or(b'0');
    let mut written: Vec<u8> = (0..point.max(0)).map(digit).collect();
    let leading = written.iter().take_while(|digit| **digit == b'0').count();
    written.drain(..leading.min(written.len().saturating_sub(1)));
    if written.is_empty() {
        written.push(b'0');
    }
    if scale > 0 {
        written.push(b'.');
        written.extend((point..).take(scale).map(digit));
    }
    if negative && written.iter().any(|byte| (b'1'..=b'9').contains(byte)) {
        out.push(b'-');
    }
    out.extend_from_slice(&written);
    Some(())
}

/// Appends a JSON number; `None` when it is beyond binary64.
fn push_number(out: &mut Vec<u8>, number: &str, style: NumberStyle) -> Option<()> {
    let integer = !number.contains(['.', 'e', 'E']);
    match style {
        NumberStyle::AsFound => out.extend_from_slice(number.as_bytes()),
        NumberStyle::Python if integer => {
            out.extend_from_slice(if number == "-0" { b"0" } else { number.as_bytes() });
        }
        NumberStyle::Python => push_float(out, finite(number)?),
        NumberStyle::EcmaScript => {
            out.extend_from_slice(ryu_js::Buffer::new().format_finite(finite(number)?).as_bytes());
        }
    }
    Some(())
}

fn finite(number: &str) -> Option<f64> {
    number.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Reads an object's members without looking into them.
struct RawMembers;

impl<'de> Visitor<'de> for RawMembers {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn jsonb(text: &str) -> String {
        let mut out = Vec::new();
        Json::parse(text).unwrap().push_jsonb(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn written(text: &str, style: Style) -> String {
        let mut out = Vec::new();
        Json::parse(text).unwrap().push(&mut out, style).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The right sides are what PostgreSQL 15 printed for `'…'::jsonb::text`.
    #[test]
    fn jsonb_is_written_as_postgresql_writes_it() {
        for (text, expected) in [
            (r#"{"b":1,"aa":3,"a":2}"#, r#"{"a": 2, "b": 1, "aa": 3}"#),
            (r#"{"é":1,"zz":2,"z":3,"aa":4}"#, r#"{"z": 3, "aa": 4, "zz": 2, "é": 1}"#),
            (r#"{"d":1,"x":{"b":[ ],"a":{ }},"d":2}"#, r#"{"d": 2, "x": {"a": {}, "b": []}}"#),
            (
                "[1.00,1e3,1.50e1,15e-8,-0,-0.0,-0.50,1E+2,0.00001e2,12345678901234567890123.0]",
                "[1.00, 1000, 15.0, 0.00000015, 0, 0.0, -0.50, 100, 0.001, 12345678901234567890123.0]",
            ),
            (r#""\u00e9\/\u0001\t\u007f\ud83d\ude00""#, "\"é/\\u0001\\t\u{7f}😀\""),
            (" null ", "null"),
            ("[true,false]", "[true, false]"),
        ] {
            assert_eq!(jsonb(text), expected, "{text}");
        }
        assert_eq!(Json::parse("1e999999999").unwrap().push_jsonb(&mut Vec::new()), None);
        assert_eq!(Json::parse("1e-99999999999999999999").unwrap().push_jsonb(&mut Vec::new()), None);
    }

    #[test]
    fn styles_are_those_of_ecmascript_and_python() {
        let text = r#"{ "b" : 1.0, "a" : [1e21, 0.000001, 1e-7, "\u2028\u0007"], "b" : -0 }"#;
        assert_eq!(
            written(text, Style::RFC_8785),
            "{\"a\":[1e+21,0.000001,1e-7,\"\u{2028}\\u0007\"],\"b\":0}"
        );
        assert_eq!(written(r#"{"b":1,"a":{"d":1,"c":2}}"#, Style::STRINGIFY), r#"{"b":1,"a":{"d":1,"c":2}}"#);
        // json.dumps({"é": [1.0, 1e16, -0.0, 10**30, 1e-05, "\x7f😀/"]}, sort_keys=True)
        let text = "{\"é\": [1.0, 1e16, -0.0, 1000000000000000000000000000000, 0.00001, \"\u{7f}😀/\"]}";
        assert_eq!(
            written(text, Style { spaces: true, ascii: true, ..Style::PYTHON }),
            r#"{"\u00e9": [1.0, 1e+16, -0.0, 1000000000000000000000000000000, 1e-05, "\u007f\ud83d\ude00/"]}"#
        );
        // U+FF5E sorts before U+1F600 by code point, behind it by UTF-16.
        let text = "{\"😀\":1,\"～\":2}";
        assert_eq!(written(text, Style::PYTHON), "{\"～\":2,\"😀\":1}");
        assert_eq!(written(text, Style::RFC_8785), text);
    }

    #[test]
    fn nesting_has_a_limit_and_bad_text_is_refused() {
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Json::parse(&deep(MAX_DEPTH)).is_ok());
        assert!(Json::parse(&deep(MAX_DEPTH + 1)).is_err());
        assert!(Json::parse(&deep(100_000)).is_err());
        for text in ["", "{", "[1,]", "NaN", "{\"a\":1}x", "01", "\"\\ud800\""] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn jsonb_text_is_its_own_jsonb(text in r#"(\{"[a-c]{1,3}":(-?[1-9][0-9]{0,3}(\.[0-9]{1,3})?([eE][+-]?[0-9])?|true|"x"),"[a-c]{1,3}":\[null\]\})"#) {
            let once = jsonb(&text);
            prop_assert_eq!(jsonb(&once), once);
        }

        #[test]
        fn sorted_by_utf_16_is_rfc_8785(value in any::<f64>().prop_filter("finite", |value| value.is_finite()), names in proptest::collection::vec("\\PC{0,3}", 0..5)) {
            let members: serde_json::Map<String, serde_json::Value> =
                names.into_iter().map(|name| (name, value.into())).collect();
            let text = serde_json::to_string(&members).unwrap();
            prop_assert_eq!(written(&text, Style::RFC_8785), serde_json_canonicalizer::to_string(&members).unwrap());
        }
    }
}
