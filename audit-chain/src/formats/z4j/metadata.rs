//! Metadata as Python's `json.dumps(…, sort_keys=True, separators=(",", ":"), ensure_ascii=False)` writes it.
//!
//! Keys are sorted at every level by code point; of equal keys the last counts. Text is escaped as [`push_string`] does.
//! A number without `.`, `e` or `E` is an integer of any size (`-0` becomes `0`); any other is a binary64 in Python's
//! `repr`: the shortest digits that read back, plain from 1e-4 to 1e16 with at least one decimal, else with an exponent
//! of a sign and two digits or more. `NaN` and `Infinity`, which Python reads and eras A and B print, are no JSON; era C refuses them.
//!
//! No tree is built: members are written as they come and moved where they are not in order. Every nesting level
//! is scanned once more than the one around it, so depth is bounded by [`MAX_DEPTH`]. One [`Metadata`] per worker thread.

use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer as _, de};
use serde_json::value::RawValue;

use crate::canonical::push_string;

/// How deep objects and arrays may nest.
const MAX_DEPTH: usize = 200;

/// From which length on the depth is looked at before anything else, in bytes: every level costs a scan.
const LONG_BYTES: usize = 64 << 10;

/// Why metadata has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is no JSON, or holds text that is no UTF-8 (half a surrogate pair).
    NotJson(String),
    /// It is JSON, but no object.
    NotObject,
    /// It nests deeper than [`MAX_DEPTH`].
    TooDeep,
    /// A number that is not finite, where the era refuses it.
    NotFinite,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(why) => write!(f, "metadata is not JSON: {why}"),
            Self::NotObject => f.write_str("metadata is no JSON object"),
            Self::TooDeep => write!(f, "metadata nests deeper than {MAX_DEPTH} levels"),
            Self::NotFinite => {
                f.write_str("metadata holds a number that is not finite, which era C never signs")
            }
        }
    }
}

/// How metadata is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    /// Whether numbers that are not finite are printed (eras A and B) or refused (era C).
    pub(super) nonfinite: bool,
    /// Which of the numbers that `jsonb` may have respelt are written as they may have been: a bit for each, in order.
    pub(super) respelt: u32,
}

/// Writes metadata; its buffers are used again for every row.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    out: Vec<u8>,
    /// Decoded keys of the open objects.
    keys: Vec<u8>,
    members: Vec<Member>,
    scratch: Vec<u8>,
    reading: Reading,
    /// How many numbers `jsonb` may have respelt.
    respellable: u32,
    /// What stands for `NaN` and `Infinity` where the text had them.
    placeholders: Option<[String; 2]>,
    failure: Option<Unreadable>,
}

/// A member of an open object.
#[derive(Debug, Clone)]
struct Member {
    key: Range<usize>,
    out: Range<usize>,
}

impl Metadata {
    /// Writes the metadata `text`; [`Metadata::form`] has it then.
    pub(super) fn write(&mut self, text: &str, reading: Reading) -> Result<(), Unreadable> {
        self.reading = reading;
        self.placeholders = None;
        match self.whole(text) {
            Err(Unreadable::NotJson(why)) => {
                let Some((text, placeholders)) = replace_nonfinite(text) else {
                    return Err(Unreadable::NotJson(why));
                };
                if !reading.nonfinite {
                    return Err(Unreadable::NotFinite);
                }
                self.placeholders = Some(placeholders);
                self.whole(&text)
            }
            other => other,
        }
    }

    /// Returns what was written.
    pub(super) fn form(&self) -> &[u8] {
        &self.out
    }

    /// Returns how many numbers in it `jsonb` may have respelt, at most 32.
    pub(super) const fn respellable(&self) -> u32 {
        if self.respellable < 32 { self.respellable } else { 32 }
    }

    fn whole(&mut self, text: &str) -> Result<(), Unreadable> {
        self.out.clear();
        self.keys.clear();
        self.members.clear();
        self.respellable = 0;
        self.failure = None;
        let trimmed = text.trim_matches([' ', '\t', '\n', '\r']);
        if text.len() > LONG_BYTES && is_too_deep(trimmed) {
            return Err(Unreadable::TooDeep);
        }
        if trimmed.starts_with('{') {
            return self.value(trimmed, 1);
        }
        match serde_json::from_str::<&RawValue>(trimmed) {
            Ok(_) => Err(Unreadable::NotObject),
            Err(error) => Err(Unreadable::NotJson(describe(&error))),
        }
    }

    /// Writes one value. `raw` is one JSON value without space around it.
    fn value(&mut self, raw: &str, depth: usize) -> Result<(), Unreadable> {
        match raw.as_bytes().first() {
            Some(b'{' | b'[') if depth > MAX_DEPTH => Err(Unreadable::TooDeep),
            Some(b'{') => self.nested(raw, |json, writer| json.deserialize_map(Members { writer, depth })),
            Some(b'[') => self.nested(raw, |json, writer| json.deserialize_seq(Items { writer, depth })),
            Some(b'"') => {
                if memchr::memchr(b'\\', raw.as_bytes()).is_none() {
                    self.out.extend_from_slice(raw.as_bytes());
                    return Ok(());
                }
                self.nested(raw, |json, writer| json.deserialize_str(Escaped(writer)))
            }
            Some(b't' | b'f' | b'n') => {
                self.out.extend_from_slice(raw.as_bytes());
                Ok(())
            }
            _ => self.number(raw),
        }
    }

    fn nested(
        &mut self,
        raw: &str,
        read: impl FnOnce(
            &mut serde_json::Deserializer<serde_json::de::StrRead<'_>>,
            &mut Self,
        ) -> serde_json::Result<()>,
    ) -> Result<(), Unreadable> {
        let mut json = serde_json::Deserializer::from_str(raw);
        let result = read(&mut json, self).and_then(|()| json.end());
        result.map_err(|error| self.failure.take().unwrap_or_else(|| Unreadable::NotJson(describe(&error))))
    }

    /// Ends an object: puts its members in order and drops those that a later one replaces.
    fn close(&mut self, first: usize, start: usize, sorted: bool) {
        let Self { out, keys, members, scratch, .. } = self;
        if !sorted {
            let own = &mut members[first..];
            own.sort_unstable_by(|left, right| {
                keys[left.key.clone()]
                    .cmp(&keys[right.key.clone()])
                    .then(left.out.start.cmp(&right.out.start))
            });
            scratch.clear();
            for (at, member) in own.iter().enumerate() {
                if own.get(at + 1).is_some_and(|next| keys[next.key.clone()] == keys[member.key.clone()]) {
                    continue;
                }
                if !scratch.is_empty() {
                    scratch.push(b',');
                }
                scratch.extend_from_slice(&out[member.out.clone()]);
            }
            out.truncate(start);
            out.extend_from_slice(scratch);
        }
        if let Some(member) = members.get(first) {
            // Keys of one object lie together, whatever the order of its members now is.
            let keys_from = members[first..].iter().map(|member| member.key.start).min();
            keys.truncate(keys_from.unwrap_or(member.key.start));
        }
        members.truncate(first);
        out.push(b'}');
    }

    fn number(&mut self, raw: &str) -> Result<(), Unreadable> {
        if let Some([nan, infinity]) = &self.placeholders {
            let (sign, bare) = raw.strip_prefix('-').map_or(("", raw), |bare| ("-", bare));
            if bare == nan || bare == infinity {
                let name = if bare == nan { "NaN" } else { "Infinity" };
                self.out.extend_from_slice(sign.as_bytes());
                self.out.extend_from_slice(name.as_bytes());
                return Ok(());
            }
        }
        if !raw.contains(['.', 'e', 'E']) {
            if was_exponent(raw) && self.respell() {
                push_float(&mut self.out, raw.parse().unwrap_or(f64::INFINITY));
            } else {
                self.out.extend_from_slice(if raw == "-0" { b"0" } else { raw.as_bytes() });
            }
            return Ok(());
        }
        let value: f64 = raw.parse().map_err(|_| Unreadable::NotJson(format!("no number: {raw:.40}")))?;
        if value.is_infinite() && !self.reading.nonfinite {
            return Err(Unreadable::NotFinite);
        }
        let negative = value == 0.0 && value.is_sign_positive() && self.respell();
        push_float(&mut self.out, if negative { -0.0 } else { value });
        Ok(())
    }

    /// Counts a number that may have been respelt; says whether this reading writes it as it may have been.
    fn respell(&mut self) -> bool {
        let bit = self.respellable;
        self.respellable += 1;
        bit < 32 && self.reading.respelt >> bit & 1 == 1
    }

    /// Remembers why, and makes the error that carries nothing through serde.
    fn fail<E: de::Error>(&mut self, failure: Unreadable) -> E {
        self.failure = Some(failure);
        E::custom("unreadable")
    }
}

/// Reports whether an integer may have been a float that Python writes with an exponent: `jsonb` shows 1e16 as 10000000000000000.
fn was_exponent(raw: &str) -> bool {
    let digits = raw.trim_start_matches('-');
    // 309 digits are past the largest binary64.
    if !(17..=309).contains(&digits.len()) {
        return false;
    }
    let Ok(value) = digits.parse::<f64>() else { return false };
    // The shortest digits and then zeros: so jsonb expands what Python wrote.
    let shortest = format!("{value:e}");
    let (mantissa, _) = shortest.split_once('e').unwrap_or((&shortest, ""));
    let significant = mantissa.bytes().filter(|byte| *byte != b'.');
    let mut rest = digits.bytes();
    significant.into_iter().all(|digit| rest.next() == Some(digit)) && rest.all(|digit| digit == b'0')
}

/// Appends a binary64 as Python's `repr` spells it.
pub(crate) fn push_float(out: &mut Vec<u8>, value: f64) {
    use std::io::Write as _;
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
        return;
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if value.is_infinite() {
        out.extend_from_slice(b"Infinity");
        return;
    }
    let mut buffer = [0_u8; 40];
    let mut rest = &mut buffer[..];
    // The shortest digits that read back to the same number: `1.2345e-7`.
    let written = match write!(rest, "{:e}", value.abs()) {
        Ok(()) => 40 - rest.len(),
        Err(_) => 0,
    };
    let shortest = &buffer[..written];
    let cut = memchr::memchr(b'e', shortest).unwrap_or(shortest.len());
    let exponent: i32 = std::str::from_utf8(shortest.get(cut + 1..).unwrap_or(b"0"))
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let mut digits = [0_u8; 24];
    let mut count = 0;
    for byte in shortest[..cut].iter().filter(|byte| **byte != b'.') {
        digits[count] = *byte;
        count += 1;
    }
    let digits = &digits[..count];
    if !(-4..16).contains(&exponent) {
        out.push(digits[0]);
        if count > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        // Writing to a vector does not fail.
        let _ = write!(out, "e{sign}{:02}", exponent.unsigned_abs());
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', usize::try_from(-exponent - 1).unwrap_or(0)));
        out.extend_from_slice(digits);
    } else {
        let whole = usize::try_from(exponent).unwrap_or(0) + 1;
        let (head, tail) = digits.split_at(whole.min(count));
        out.extend_from_slice(head);
        out.extend(std::iter::repeat_n(b'0', whole.saturating_sub(count)));
        out.push(b'.');
        out.extend_from_slice(if tail.is_empty() { b"0" } else { tail });
    }
}

/// Replaces bare `NaN` and `Infinity` by numbers that the text does not hold; `None` where there are none.
fn replace_nonfinite(text: &str) -> Option<(String, [String; 2])> {
    let placeholders = (0..)
        .map(|at: u32| [format!("0E{at}1"), format!("0E{at}2")])
        .find(|pair| pair.iter().all(|token| !text.contains(token.as_str())))?;
    let mut replaced = String::with_capacity(text.len());
    let (mut rest, mut found) = (text, false);
    while let Some(at) = rest.find(['"', 'N', 'I']) {
        replaced.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = if let Some(inside) = rest.strip_prefix('"') {
            let mut escaped = false;
            let end = inside.find(|letter| {
                let closes = letter == '"' && !escaped;
                escaped = letter == '\\' && !escaped;
                closes
            });
            end.map_or(rest.len(), |end| end + 2)
        } else {
            let token = [("NaN", 0), ("Infinity", 1)].into_iter().find(|(name, _)| rest.starts_with(name));
            if let Some((name, which)) = token {
                found = true;
                replaced.push_str(&placeholders[which]);
                rest = &rest[name.len()..];
                continue;
            }
            1
        };
        replaced.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    replaced.push_str(rest);
    found.then_some((replaced, placeholders))
}

/// Reports whether the text nests too deep. What is no JSON is found out later.
fn is_too_deep(text: &str) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Says what is wrong without the line number.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

/// Writes an object's members.
struct Members<'w> {
    writer: &'w mut Metadata,
    depth: usize,
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { writer, depth } = self;
        writer.out.push(b'{');
        let (first, start) = (writer.members.len(), writer.out.len());
        let mut sorted = true;
        loop {
            let key_start = writer.keys.len();
            if map.next_key_seed(Key(&mut writer.keys))?.is_none() {
                break;
            }
            let key = key_start..writer.keys.len();
            if let Some(before) = writer.members.get(first..).and_then(<[_]>::last) {
                sorted &= writer.keys[before.key.clone()] < writer.keys[key.clone()];
                writer.out.push(b',');
            }
            let out = writer.out.len();
            match std::str::from_utf8(&writer.keys[key.clone()]) {
                Ok(key) => push_string(&mut writer.out, key),
                Err(_) => return Err(A::Error::custom("a key that is no UTF-8")),
            }
            writer.out.push(b':');
            let raw: &RawValue = map.next_value()?;
            if let Err(failure) = writer.value(raw.get(), depth + 1) {
                return Err(writer.fail(failure));
            }
            writer.members.push(Member { key, out: out..writer.out.len() });
        }
        writer.close(first, start, sorted);
        Ok(())
    }
}

/// Writes an array's items.
struct Items<'w> {
    writer: &'w mut Metadata,
    depth: usize,
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { writer, depth } = self;
        writer.out.push(b'[');
        let mut first = true;
        while let Some(raw) = seq.next_element::<&RawValue>()? {
            if !std::mem::take(&mut first) {
                writer.out.push(b',');
            }
            if let Err(failure) = writer.value(raw.get(), depth + 1) {
                return Err(writer.fail(failure));
            }
        }
        writer.out.push(b']');
        Ok(())
    }
}

/// Writes text that has escapes.
struct Escaped<'w>(&'w mut Metadata);

impl Visitor<'_> for Escaped<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        push_string(&mut self.0.out, text);
        Ok(())
    }
}

/// Takes a key's decoded bytes.
struct Key<'k>(&'k mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<(), E> {
        self.0.extend_from_slice(key.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Result<String, Unreadable> {
        let mut metadata = Metadata::default();
        metadata.write(text, Reading { nonfinite: true, respelt: 0 })?;
        Ok(String::from_utf8(metadata.form().to_vec()).unwrap())
    }

    #[test]
    fn keys_are_sorted_by_code_point_at_every_level_and_the_last_of_equal_ones_counts() {
        for (text, wanted) in [
            ("{}", "{}"),
            (" {\n\"b\" : 1 , \"a\":[ ] }\t", r#"{"a":[],"b":1}"#),
            (
                r#"{"z":{"b":{"d":1,"c":[{"y":1,"x":2},[]]},"a":null},"a":true}"#,
                r#"{"a":true,"z":{"a":null,"b":{"c":[{"x":2,"y":1},[]],"d":1}}}"#,
            ),
            (r#"{"a":9,"re\u0061son":"x\u005fy","a" : 3}"#, r#"{"a":3,"reason":"x_y"}"#),
            (
                r#"{"a":{"x":1},"b":0,"a":{"y":1,"x":{"q":1,"p":2}}}"#,
                r#"{"a":{"x":{"p":2,"q":1},"y":1},"b":0}"#,
            ),
            // Above the surrogates, UTF-16 order and code point order differ.
            (
                "{\"\u{1f600}\":1,\"\u{ffee}\":2,\"é\":3,\"A\":4,\"\":5}",
                "{\"\":5,\"A\":4,\"é\":3,\"\u{ffee}\":2,\"\u{1f600}\":1}",
            ),
            // Escaped, `"` and a control character sort before a letter; unescaped too, but not against `#`.
            (r##"{"#":1,"\"":2,"\u0001":3,"\\":4}"##, r##"{"\u0001":3,"\"":2,"#":1,"\\":4}"##),
            (
                r#"{"q":"\"\\\/\b\f\n\r\t\u0001\u001F\u007f\u00e9\ud83d\ude00\u2028"}"#,
                "{\"q\":\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\u{7f}é😀\u{2028}\"}",
            ),
        ] {
            assert_eq!(form(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn numbers_are_spelt_as_python_does() {
        for (token, wanted) in [
            ("0", "0"),
            ("-0", "0"),
            ("-1", "-1"),
            ("18446744073709551616", "18446744073709551616"),
            ("-99999999999999999999999999999999999999999", "-99999999999999999999999999999999999999999"),
            ("-0.0", "-0.0"),
            ("0.0", "0.0"),
            ("0e5", "0.0"),
            ("1.0", "1.0"),
            ("1.50", "1.5"),
            ("1e2", "100.0"),
            ("1E+2", "100.0"),
            ("-225e-2", "-2.25"),
            ("0.1", "0.1"),
            ("1e-1", "0.1"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1.234E-5", "1.234e-05"),
            ("123456.789", "123456.789"),
            ("9999999999999998.0", "9999999999999998.0"),
            ("1000000000000000.0", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("12345678901234567.0", "1.2345678901234568e+16"),
            ("1.2345678901234567890e20", "1.2345678901234568e+20"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("2.2250738585072014e-308", "2.2250738585072014e-308"),
            ("1e23", "1e+23"),
            ("9007199254740993.0", "9007199254740992.0"),
            ("0.333333333333333333333", "0.3333333333333333"),
            ("1e100", "1e+100"),
            ("1e999", "Infinity"),
            ("-1e999", "-Infinity"),
            ("NaN", "NaN"),
            ("Infinity", "Infinity"),
            ("-Infinity", "-Infinity"),
        ] {
            assert_eq!(form(&format!("{{\"x\":{token}}}")), Ok(format!("{{\"x\":{wanted}}}")), "{token}");
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_told_from_text_and_refused_by_era_c() {
        let text = r#"{"a":[NaN,"NaN \" Infinity",-Infinity,0E01,"0E02"],"NaN":Infinity}"#;
        assert_eq!(
            form(text).unwrap(),
            r#"{"NaN":Infinity,"a":[NaN,"NaN \" Infinity",-Infinity,0.0,"0E02"]}"#
        );
        let mut metadata = Metadata::default();
        for text in [r#"{"a":NaN}"#, r#"{"a":1e400}"#, r#"{"a":-Infinity}"#] {
            assert_eq!(metadata.write(text, Reading::default()), Err(Unreadable::NotFinite), "{text}");
        }
        assert_eq!(metadata.write(r#"{"a":"NaN"}"#, Reading::default()), Ok(()));
    }

    #[test]
    fn what_is_no_object_is_refused_and_deep_nesting_does_not_exhaust_the_stack() {
        for text in [
            "",
            "{broken",
            "{\"a\":1}}",
            "{\"a\":01}",
            "{\"x\": \"\\ud800\"}",
            "{\"a\":\"\u{1}\"}",
            "{'a':1}",
        ] {
            assert!(matches!(form(text), Err(Unreadable::NotJson(_))), "{text}: {:?}", form(text));
        }
        for text in ["[1,2]", "null", "5", "\"{}\""] {
            assert_eq!(form(text), Err(Unreadable::NotObject), "{text}");
        }
        let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert_eq!(form(&nested(MAX_DEPTH)), Ok(nested(MAX_DEPTH)));
        assert_eq!(form(&nested(MAX_DEPTH + 1)), Err(Unreadable::TooDeep));
        assert_eq!(form(&nested(1_000_000)), Err(Unreadable::TooDeep));
        let quoted = format!("{{\"a\":\"{}\"}}", r#"\"[{"#.repeat(100_000));
        assert_eq!(form(&quoted), Ok(quoted.clone()));
    }

    #[test]
    fn numbers_that_jsonb_respells_can_be_written_as_they_were() {
        let text = r#"{"a":10000000000000000,"b":0.0,"c":-15000000000000000000,"d":12345678901234567890,"e":1.0,"f":1000}"#;
        let mut metadata = Metadata::default();
        let mut write = |respelt| {
            metadata.write(text, Reading { nonfinite: true, respelt }).unwrap();
            (String::from_utf8(metadata.form().to_vec()).unwrap(), metadata.respellable())
        };
        assert_eq!(write(0), (text.to_owned(), 3));
        assert_eq!(
            write(0b111).0,
            r#"{"a":1e+16,"b":-0.0,"c":-1.5e+19,"d":12345678901234567890,"e":1.0,"f":1000}"#
        );
        assert_eq!(write(0b100).0, text.replace("-15000000000000000000", "-1.5e+19"));
    }

    proptest::proptest! {
        #[test]
        fn any_float_reads_back_and_has_pythons_shape(bits: u64) {
            let value = f64::from_bits(bits);
            proptest::prop_assume!(value.is_finite());
            let mut out = Vec::new();
            push_float(&mut out, value);
            let text = String::from_utf8(out).unwrap();
            proptest::prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits, "{}", text);
            proptest::prop_assert_eq!(text.contains('.') || text.contains('e'), true);
        }

        #[test]
        fn the_form_is_that_of_a_sorted_tree(value in tree()) {
            let text = serde_json::to_string_pretty(&value).unwrap();
            // A serde_json map is sorted by key; the numbers here are integers.
            proptest::prop_assert_eq!(form(&text).unwrap(), serde_json::to_string(&value).unwrap());
        }
    }

    fn tree() -> impl proptest::strategy::Strategy<Value = serde_json::Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            any::<i64>().prop_map(serde_json::Value::from),
            "[a-z\"\\\\é\n]{0,6}".prop_map(serde_json::Value::from),
            any::<bool>().prop_map(serde_json::Value::from),
        ];
        let nested = leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
                prop::collection::btree_map("[a-c\"é😀\u{ffee}]{0,3}", inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("[a-c\"é😀\u{ffee}]{0,3}", nested, 0..6)
            .prop_map(|map| serde_json::Value::Object(map.into_iter().collect()))
    }
}
