//! The comparison of a row's JSON view with the predicate that was signed.
//!
//! A row carries its payload as JSON beside the envelope; the signed form is the predicate. What the row would
//! project to must equal the predicate, deeply, with JSON's types kept apart:
//!
//! ```text
//! SCHEMA_REGISTERED, SCHEMA_IMPORTED, SCHEMA_DIGEST_MISMATCH:
//!   org_id, schema_type, schema_version, manifest_digest, outcome, source?    from members of the payload; others ignored
//! else:
//!   record_id, entry_type, state_transition?, payload?, traces?               payload without the members named here
//! ```
//!
//! `on_behalf_of` and `traceparent` of the predicate have no place in the projection; where the row has a copy,
//! it must be equal. There is one type of number: `1`, `1.0` and `1e0` are equal, `-0` is `0`; an integer is
//! compared exactly whatever its size (or by the shortest digits of the binary64 that it is, as JavaScript
//! spells it), a binary64 by what the digits round to. Text is compared by code point. No tree is built:
//! the CBOR is read once along the JSON.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::cose::{Cursor, Item};
use crate::value::Value;

/// The deepest nesting that is compared.
const MAX_DEPTH: usize = 128;

/// Above this many members an object is looked up by hash.
const FEW: usize = 12;

/// The largest integer below which every integer is a binary64.
const EXACT: i128 = 1 << 53;

/// What of the predicate other checks need.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bound<'b> {
    /// On whose behalf was acted, as CBOR.
    pub(super) on_behalf_of: Option<&'b [u8]>,
}

/// The columns that are bound.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'v> {
    pub(super) record_id: Value<'v>,
    pub(super) entry_type: Value<'v>,
    pub(super) payload: Value<'v>,
}

/// What the projection expects of one member.
enum Expected<'j> {
    Text(Cow<'j, str>),
    Null,
    Json(&'j str),
    /// An object of these members.
    Object(Object<'j>),
    /// `{from, to}`.
    Transition {
        from: Option<Cow<'j, str>>,
        to: Cow<'j, str>,
    },
}

/// Compares a row with the predicate that was signed.
///
/// # Errors
/// What differs, as the end of a sentence.
pub(super) fn check<'b>(predicate: &'b [u8], view: &View<'_>) -> Result<Bound<'b>, String> {
    let payload = match view.payload {
        Value::Absent | Value::Null => Object::default(),
        Value::Json(text) => Object::parse(text).ok_or("the payload column is not a JSON object")?,
        other => return Err(format!("the payload column is {}, not a JSON object", other.type_name())),
    };
    let Some(entry_type) = view.entry_type.as_text() else {
        return Err(format!("the column entry_type is {}", view.entry_type.type_name()));
    };
    let outcome = match entry_type {
        "SCHEMA_REGISTERED" => Some("REGISTERED"),
        "SCHEMA_IMPORTED" => Some("IMPORTED"),
        "SCHEMA_DIGEST_MISMATCH" => Some("DIGEST_MISMATCH"),
        _ => None,
    };
    let expected = match outcome {
        Some(outcome) => project_schema(&payload, outcome)?,
        None => project_record(&payload, view.record_id, entry_type)?,
    };
    compare(predicate, &payload, &expected)
}

/// Projects an event of a record.
fn project_record<'j>(
    payload: &Object<'j>,
    record_id: Value<'j>,
    entry_type: &'j str,
) -> Result<Vec<(&'static str, Expected<'j>)>, String> {
    const APART: [&str; 6] = ["from", "to", "state_transition", "traces", "on_behalf_of", "traceparent"];
    let Some(record_id) = record_id.as_text() else {
        return Err(format!("the column record_id is {}", record_id.type_name()));
    };
    let mut expected = vec![
        ("record_id", Expected::Text(record_id.into())),
        ("entry_type", Expected::Text(entry_type.into())),
    ];
    let within = payload.get("state_transition").and_then(Object::parse);
    let transition = match within.as_ref().and_then(|within| Some((within, within.text("to")?))) {
        Some((within, to)) => Some((within.text("from"), to)),
        None => payload.text("to").map(|to| (payload.text("from"), to)),
    };
    if let Some((from, to)) = transition {
        expected.push(("state_transition", Expected::Transition { from, to }));
    }
    let rest = payload.without(&APART);
    if !rest.members.is_empty() {
        expected.push(("payload", Expected::Object(rest)));
    }
    if let Some(traces) = payload.get("traces").filter(|traces| traces.starts_with('{')) {
        expected.push(("traces", Expected::Json(traces)));
    }
    Ok(expected)
}

/// Projects an event of a schema.
fn project_schema<'j>(
    payload: &Object<'j>,
    outcome: &'static str,
) -> Result<Vec<(&'static str, Expected<'j>)>, String> {
    let wanted = |names: &[&str], read: &dyn Fn(&str) -> Option<Cow<'j, str>>| {
        names
            .iter()
            .find_map(|name| read(name))
            .ok_or_else(|| format!("the payload has no text member {}", names.join(" or ")))
    };
    let text = |name: &str| payload.text(name);
    let printed = |name: &str| payload.text(name).or_else(|| payload.get(name).and_then(print_number));
    let mut expected = vec![
        ("org_id", payload.text("orgId").map_or(Expected::Null, Expected::Text)),
        ("schema_type", Expected::Text(wanted(&["type", "schemaType", "schema_type"], &text)?)),
        (
            "schema_version",
            Expected::Text(wanted(&["version", "schemaVersion", "schema_version"], &printed)?),
        ),
        ("manifest_digest", Expected::Text(wanted(&["manifestDigest", "manifest_digest"], &text)?)),
        ("outcome", Expected::Text(outcome.into())),
    ];
    if let Some(source) = payload.text("source") {
        expected.push(("source", Expected::Text(source)));
    }
    Ok(expected)
}

/// Reads the predicate along what is expected of it.
fn compare<'b>(
    predicate: &'b [u8],
    payload: &Object<'_>,
    expected: &[(&'static str, Expected<'_>)],
) -> Result<Bound<'b>, String> {
    const BAD: &str = "the predicate cannot be read";
    let mut bound = Bound::default();
    let mut seen = vec![false; expected.len()];
    let mut traceparent = None;
    let mut cursor = Cursor::new(predicate);
    for _ in 0..cursor.map().map_err(|_| BAD)? {
        let Ok(Item::Text(name)) = cursor.next() else { return Err(BAD.into()) };
        let value = cursor.skip().map_err(|_| BAD)?;
        let twice = match name {
            "on_behalf_of" => bound.on_behalf_of.replace(value).is_some(),
            "traceparent" => traceparent.replace(value).is_some(),
            _ => {
                let at = expected.iter().position(|(known, _)| *known == name);
                let Some((at, (_, wanted))) = at.and_then(|at| Some((at, expected.get(at)?))) else {
                    return Err(format!("{name} is signed but not in the row"));
                };
                if !wanted.equals(&mut Cursor::new(value)) {
                    return Err(format!("{name} is not what was signed"));
                }
                seen.get_mut(at).is_none_or(|seen| std::mem::replace(seen, true))
            }
        };
        if twice {
            return Err(format!("{name} is signed twice"));
        }
    }
    if let Some((name, _)) = expected.iter().zip(&seen).find_map(|(member, seen)| (!seen).then_some(member)) {
        return Err(format!("{name} is in the row but was not signed"));
    }
    let copy = payload.get("on_behalf_of").filter(|copy| copy.starts_with('{'));
    if let Some(copy) = copy
        && !bound.on_behalf_of.is_some_and(|signed| equals(&mut Cursor::new(signed), copy, 0))
    {
        return Err("on_behalf_of is not what was signed".into());
    }
    if let Some(copy) = payload.text("traceparent").filter(|copy| is_traceparent(copy))
        && !traceparent.is_some_and(|signed| Cursor::new(signed).next() == Ok(Item::Text(&copy)))
    {
        return Err("traceparent is not what was signed".into());
    }
    Ok(bound)
}

/// Reports whether text is a traceparent of version 00 (W3C Trace Context): `00-<32 hex>-<16 hex>-<2 hex>`.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    matches!(parts.as_slice(), ["00", trace, span, flags] if hex(trace, 32) && hex(span, 16) && hex(flags, 2))
}

impl Expected<'_> {
    /// Reads one item and compares it.
    fn equals(&self, cursor: &mut Cursor<'_>) -> bool {
        match self {
            Self::Text(text) => cursor.next() == Ok(Item::Text(text)),
            Self::Null => cursor.next() == Ok(Item::Null),
            Self::Json(text) => equals(cursor, text, 0),
            Self::Object(object) => object.equals(cursor, 0),
            Self::Transition { from, to } => {
                let (mut from_fits, mut to_fits) = (false, false);
                if cursor.map() != Ok(2) {
                    return false;
                }
                for _ in 0..2 {
                    match (cursor.next(), cursor.next()) {
                        (Ok(Item::Text("from")), Ok(Item::Text(found))) => {
                            from_fits = from.as_deref() == Some(found);
                        }
                        (Ok(Item::Text("from")), Ok(Item::Null)) => from_fits = from.is_none(),
                        (Ok(Item::Text("to")), Ok(Item::Text(found))) => to_fits = found == to,
                        _ => return false,
                    }
                }
                from_fits && to_fits
            }
        }
    }
}

/// The members of a JSON object, each name once; a name that comes again replaces the earlier value.
#[derive(Debug, Default)]
struct Object<'j> {
    members: Vec<(Cow<'j, str>, &'j str)>,
    by_name: Option<HashMap<Cow<'j, str>, usize>>,
}

impl<'j> Object<'j> {
    /// Reads an object; `None` when it is none, or holds text that is no Unicode (a lone surrogate).
    fn parse(text: &'j str) -> Option<Self> {
        if !text.starts_with('{') {
            return None;
        }
        serde_json::Deserializer::from_str(text).deserialize_map(ObjectVisitor).ok()
    }

    fn push(&mut self, name: Cow<'j, str>, value: &'j str) {
        if self.by_name.is_none() && self.members.len() >= FEW {
            let places = self.members.iter().enumerate();
            self.by_name = Some(places.map(|(at, (name, _))| (name.clone(), at)).collect());
        }
        match self.place(&name).and_then(|at| self.members.get_mut(at)) {
            Some(known) => known.1 = value,
            None => {
                if let Some(by_name) = &mut self.by_name {
                    by_name.insert(name.clone(), self.members.len());
                }
                self.members.push((name, value));
            }
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        match &self.by_name {
            Some(by_name) => by_name.get(name).copied(),
            None => self.members.iter().position(|(known, _)| known == name),
        }
    }

    fn get(&self, name: &str) -> Option<&'j str> {
        self.members.get(self.place(name)?).map(|(_, value)| *value)
    }

    /// Returns a member that is text.
    fn text(&self, name: &str) -> Option<Cow<'j, str>> {
        text_of(self.get(name)?)
    }

    fn without(&self, names: &[&str]) -> Self {
        let mut rest = Self::default();
        for (name, value) in self.members.iter().filter(|(name, _)| !names.contains(&name.as_ref())) {
            rest.push(name.clone(), value);
        }
        rest
    }

    /// Reads a map and compares it.
    fn equals(&self, cursor: &mut Cursor<'_>, depth: usize) -> bool {
        if cursor.map() != Ok(self.members.len()) {
            return false;
        }
        let mut seen = vec![false; self.members.len()];
        (0..self.members.len()).all(|_| {
            let Ok(Item::Text(name)) = cursor.next() else { return false };
            let Some(at) = self.place(name) else { return false };
            let fresh = seen.get_mut(at).is_some_and(|seen| !std::mem::replace(seen, true));
            fresh && self.members.get(at).is_some_and(|(_, value)| equals(cursor, value, depth + 1))
        })
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = Object::default();
        while let Some(name) = map.next_key::<&RawValue>()? {
            let value: &RawValue = map.next_value()?;
            let name =
                text_of(name.get()).ok_or_else(|| serde::de::Error::custom("a name that is no text"))?;
            object.push(name, value.get());
        }
        Ok(object)
    }
}

/// The items of a JSON array.
fn items(text: &str) -> Option<Vec<&str>> {
    struct Items;
    impl<'de> Visitor<'de> for Items {
        type Value = Vec<&'de str>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element::<&RawValue>()? {
                items.push(item.get());
            }
            Ok(items)
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_seq(Items).ok()
}

/// Decodes a JSON string.
fn text_of(json: &str) -> Option<Cow<'_, str>> {
    let [b'"', inside @ .., b'"'] = json.as_bytes() else { return None };
    let inner = json.get(1..=inside.len())?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(json).ok().map(Cow::Owned)
}

/// Reads one CBOR item and compares it with a JSON value.
fn equals(cursor: &mut Cursor<'_>, json: &str, depth: usize) -> bool {
    if depth > MAX_DEPTH {
        return false;
    }
    match json.as_bytes().first() {
        Some(b'{') => Object::parse(json).is_some_and(|object| object.equals(cursor, depth)),
        Some(b'[') => items(json).is_some_and(|items| {
            cursor.next() == Ok(Item::Array(items.len()))
                && items.iter().all(|item| equals(cursor, item, depth + 1))
        }),
        Some(b'"') => match (text_of(json), cursor.next()) {
            (Some(text), Ok(Item::Text(signed))) => text == signed,
            _ => false,
        },
        Some(b'n') => cursor.next() == Ok(Item::Null),
        Some(b't') => cursor.next() == Ok(Item::Bool(true)),
        Some(b'f') => cursor.next() == Ok(Item::Bool(false)),
        _ => match cursor.next() {
            Ok(Item::Float(signed)) => float_equals(json, signed),
            Ok(Item::Tag(tag @ (2 | 3))) => match cursor.next() {
                Ok(Item::Bytes(magnitude)) => {
                    big(tag, magnitude).is_some_and(|signed| int_equals(json, signed))
                }
                _ => false,
            },
            Ok(item) => item.as_int().is_some_and(|signed| int_equals(json, signed)),
            Err(_) => false,
        },
    }
}

/// Reads a bignum (RFC 8949 §3.4.3) of up to 127 bits.
fn big(tag: u64, magnitude: &[u8]) -> Option<i128> {
    let mut bytes = [0; 16];
    let start = bytes.len().checked_sub(magnitude.len())?;
    bytes.get_mut(start..)?.copy_from_slice(magnitude);
    let value = i128::try_from(u128::from_be_bytes(bytes)).ok()?;
    Some(if tag == 3 { -1 - value } else { value })
}

/// A decimal number: sign, digits without zeros at either end, exponent of ten. Zero has no digits and no sign.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// Reads a JSON number (RFC 8259 §6).
    fn parse(text: &str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let mut exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        while digits.last() == Some(&b'0') {
            digits.pop();
            exponent = exponent.checked_add(1)?;
        }
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..zeros);
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        Some(Self { negative, digits, exponent })
    }

    /// Returns the integer, if it is one of at most 38 digits.
    fn as_int(&self) -> Option<i128> {
        let power = u32::try_from(self.exponent).ok()?;
        if self.digits.is_empty() {
            return Some(0);
        }
        if self.digits.len() as u64 + u64::from(power) > 38 {
            return None;
        }
        let digits = std::str::from_utf8(&self.digits).ok()?.parse::<i128>().ok()?;
        let value = digits.checked_mul(10_i128.checked_pow(power)?)?;
        Some(if self.negative { -value } else { value })
    }
}

/// Compares an integer with a JSON number.
fn int_equals(json: &str, signed: i128) -> bool {
    // The usual case needs no decimal arithmetic.
    if let Ok(value) = json.parse::<i64>() {
        return i128::from(value) == signed || shortest_of_int(signed) == Decimal::parse(json);
    }
    let Some(decimal) = Decimal::parse(json) else { return false };
    decimal.as_int() == Some(signed) || shortest_of_int(signed).is_some_and(|shortest| shortest == decimal)
}

/// Returns the shortest decimal of a large integer that is a binary64, as JavaScript spells it.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn shortest_of_int(value: i128) -> Option<Decimal> {
    if (-EXACT..=EXACT).contains(&value) {
        return None;
    }
    let real = value as f64;
    if real as i128 == value { shortest(real) } else { None }
}

/// Returns the shortest decimal that reads back to a number.
fn shortest(real: f64) -> Option<Decimal> {
    Decimal::parse(&format!("{real:e}"))
}

/// Compares a binary64 with a JSON number.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn float_equals(json: &str, signed: f64) -> bool {
    if !signed.is_finite() || json.parse::<f64>() != Ok(signed) {
        return false;
    }
    // From 2^53 on several integers round to one binary64: the row must have that one, or its shortest digits.
    if signed.abs() < EXACT as f64 {
        return true;
    }
    let Some(decimal) = Decimal::parse(json) else { return false };
    decimal.as_int() == Some(signed as i128) || shortest(signed).is_some_and(|shortest| shortest == decimal)
}

/// Spells a JSON number as JavaScript's `String` does.
fn print_number(json: &str) -> Option<Cow<'_, str>> {
    if !json.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    match Decimal::parse(json)?.as_int() {
        Some(value) if (-EXACT..=EXACT).contains(&value) => Some(value.to_string().into()),
        _ => json.parse::<f64>().ok().map(|real| real.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use ciborium_ll::{Encoder, Header};
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;

    /// Writes JSON as CBOR, members as they come.
    fn cbor(out: &mut Vec<u8>, json: &Json) {
        let mut encoder = Encoder::from(&mut *out);
        match json {
            Json::Null => encoder.push(Header::Simple(22)).unwrap(),
            Json::Bool(value) => encoder.push(Header::Simple(20 + u8::from(*value))).unwrap(),
            Json::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => encoder.push(Header::Positive(value)).unwrap(),
                (_, Some(value)) => encoder.push(Header::Negative(value as u64 ^ !0)).unwrap(),
                _ => encoder.push(Header::Float(number.as_f64().unwrap())).unwrap(),
            },
            Json::String(text) => encoder.text(text, None).unwrap(),
            Json::Array(items) => {
                encoder.push(Header::Array(Some(items.len()))).unwrap();
                items.iter().for_each(|item| cbor(out, item));
            }
            Json::Object(members) => {
                encoder.push(Header::Map(Some(members.len()))).unwrap();
                for (name, value) in members {
                    cbor(out, &json!(name));
                    cbor(out, value);
                }
            }
        }
    }

    fn signed(json: &Json) -> Vec<u8> {
        let mut out = Vec::new();
        cbor(&mut out, json);
        out
    }

    fn bind(predicate: &Json, entry_type: &str, payload: &str) -> Result<(), String> {
        let view = View {
            record_id: if entry_type.starts_with("SCHEMA_") { Value::Null } else { Value::Text("r-1") },
            entry_type: Value::Text(entry_type),
            payload: if payload == "null" { Value::Null } else { Value::Json(payload) },
        };
        check(&signed(predicate), &view).map(|_| ())
    }

    #[test]
    fn a_record_event_is_bound_to_what_was_signed() {
        let predicate = json!({
            "record_id": "r-1", "entry_type": "X", "state_transition": {"from": null, "to": "B"},
            "payload": {"a": 1, "b": {"c": [true, null, "é"]}}, "traces": {"span": "s"},
            "on_behalf_of": {"oidc": {"iss": "i", "sub": "s"}}, "traceparent": format!("00-{}-{}-01", "a".repeat(32), "b".repeat(16)),
        });
        let row = r#"{"to":"B","b":{"c":[true,null,"\u00e9"]},"a":1.0,"traces":{"span":"s"}}"#;
        bind(&predicate, "X", row).unwrap();
        bind(
            &predicate,
            "X",
            &row.replace(r#""to":"B""#, r#""state_transition":{"to":"B"},"to":"Z","from":"Y""#),
        )
        .unwrap();
        bind(
            &predicate,
            "X",
            &row.replace("{\"to\"", r#"{"a":9,"on_behalf_of":{"oidc":{"sub":"s","iss":"i"}},"to""#),
        )
        .unwrap();
        for (what, changed, says) in [
            ("value", row.replace("1.0", "2"), "payload is not what was signed"),
            ("type", row.replace("true", "1"), "payload is not what was signed"),
            ("text for number", row.replace("1.0", "\"1\""), "payload is not what was signed"),
            ("null added", row.replace("{\"to\"", "{\"n\":null,\"to\""), "payload is not what was signed"),
            ("member gone", row.replace(",\"a\":1.0", ""), "payload is not what was signed"),
            ("other form", row.replace("\\u00e9", "e\\u0301"), "payload is not what was signed"),
            ("lone surrogate", row.replace("\\u00e9", "\\ud800"), "payload is not what was signed"),
            ("to", row.replace("\"B\"", "\"C\""), "state_transition is not what was signed"),
            (
                "from",
                row.replace("{\"to\"", "{\"from\":\"A\",\"to\""),
                "state_transition is not what was signed",
            ),
            ("no to", row.replace("\"to\":\"B\",", ""), "state_transition is signed but not in the row"),
            ("traces", row.replace("\"s\"", "\"t\""), "traces is not what was signed"),
            (
                "no traces",
                row.replace(r#","traces":{"span":"s"}"#, ""),
                "traces is signed but not in the row",
            ),
            (
                "behalf",
                row.replace("{\"to\"", r#"{"on_behalf_of":{"oidc":{"sub":"x"}},"to""#),
                "on_behalf_of is not what was signed",
            ),
            (
                "trace parent",
                row.replace(
                    "{\"to\"",
                    &format!(r#"{{"traceparent":"00-{}-{}-00","to""#, "a".repeat(32), "b".repeat(16)),
                ),
                "traceparent is not what was signed",
            ),
            ("array", "[]".into(), "the payload column is not a JSON object"),
        ] {
            assert_eq!(bind(&predicate, "X", &changed).unwrap_err(), says, "{what}");
        }
        bind(
            &predicate,
            "X",
            &row.replace("{\"to\"", r#"{"traceparent":"01-what-ever","on_behalf_of":null,"to""#),
        )
        .unwrap();
        assert_eq!(bind(&predicate, "Y", row).unwrap_err(), "entry_type is not what was signed");
        bind(&json!({"record_id": "r-1", "entry_type": "X"}), "X", "null").unwrap();
        bind(&json!({"record_id": "r-1", "entry_type": "X"}), "X", r#"{"traces":5}"#).unwrap();
        assert_eq!(
            bind(&json!({"record_id": "r-1", "entry_type": "X"}), "X", r#"{"a":1}"#).unwrap_err(),
            "payload is in the row but was not signed"
        );
    }

    #[test]
    fn a_schema_event_is_bound_to_the_members_that_it_projects() {
        let predicate = json!({"org_id": null, "schema_type": "t", "schema_version": "1", "manifest_digest": "d", "outcome": "IMPORTED"});
        for row in [
            r#"{"type":"t","version":1,"manifestDigest":"d"}"#,
            r#"{"schemaType":"t","schemaVersion":"1","manifest_digest":"d","orgId":null}"#,
            r#"{"schema_type":"t","schema_version":1.0,"manifest_digest":"d","note":"ignored"}"#,
        ] {
            bind(&predicate, "SCHEMA_IMPORTED", row).unwrap();
        }
        let row = r#"{"type":"t","version":1,"manifestDigest":"d"}"#;
        assert!(bind(&predicate, "SCHEMA_REGISTERED", row).is_err());
        assert!(bind(&predicate, "SCHEMA_IMPORTED", &row.replace("{", r#"{"source":"api","#)).is_err());
        assert!(bind(&predicate, "SCHEMA_IMPORTED", &row.replace("{", r#"{"orgId":"o","#)).is_err());
        assert_eq!(
            bind(&predicate, "SCHEMA_IMPORTED", &row.replace("type", "kind")).unwrap_err(),
            "the payload has no text member type or schemaType or schema_type"
        );
        assert!(bind(&predicate, "SCHEMA_IMPORTED", &row.replace('1', "null")).is_err());
    }

    #[test]
    fn numbers_are_equal_by_value_and_by_nothing_else() {
        let float = |json: &str, value: f64| float_equals(json, value);
        for (json, value) in [
            ("12.5", 12.5),
            ("1.25e1", 12.5),
            ("-0", 0.0),
            ("0", -0.0),
            ("5e-324", 5e-324),
            ("1.7976931348623157e308", f64::MAX),
            ("1e21", 1e21),
            ("1000000000000000000000", 1e21),
            ("0.1", 0.1),
            ("9223372036854775808", 9_223_372_036_854_775_808.0),
            ("9223372036854776000", 9_223_372_036_854_775_808.0),
        ] {
            assert!(float(json, value), "{json}");
        }
        for (json, value) in [
            ("12.51", 12.5),
            ("0.1", 0.100_000_000_000_000_02),
            ("9007199254740993", 9_007_199_254_740_992.0),
            ("9223372036854775809", 9_223_372_036_854_775_808.0),
            ("1e400", f64::INFINITY),
            ("1", f64::NAN),
        ] {
            assert!(!float(json, value), "{json}");
        }
        for (json, value) in [
            ("1", 1),
            ("1.0", 1),
            ("10e-1", 1),
            ("0.1e1", 1),
            ("-0.0", 0),
            ("-9223372036854775808", i128::from(i64::MIN)),
            ("18446744073709551615", i128::from(u64::MAX)),
            ("9007199254740993", 9_007_199_254_740_993),
            ("9223372036854776000", 9_223_372_036_854_775_808),
            ("1e18", 1_000_000_000_000_000_000),
        ] {
            assert!(int_equals(json, value), "{json}");
        }
        for (json, value) in [
            ("1.5", 1),
            ("-1", 1),
            ("9007199254740992", 9_007_199_254_740_993),
            ("9007199254740994", 9_007_199_254_740_993),
            ("18446744073709551616", i128::from(u64::MAX)),
            ("18446744073709552000", i128::from(u64::MAX)),
            ("1e99999999999", 1),
            ("1e-99999999999", 0),
        ] {
            assert!(!int_equals(json, value), "{json}");
        }
        assert_eq!(big(2, &[1, 0, 0, 0, 0, 0, 0, 0, 0]), Some(1 << 64));
        assert_eq!((big(3, &[0]), big(2, &[0xff; 16]), big(2, &[0; 17])), (Some(-1), None, None));
    }

    #[test]
    fn a_signed_map_with_a_key_twice_is_no_object() {
        let twice = hex::decode("a2616101616101").unwrap();
        assert!(!equals(&mut Cursor::new(&twice), r#"{"a":1,"b":1}"#, 0));
        assert!(!equals(&mut Cursor::new(&twice), r#"{"a":1}"#, 0));
    }

    #[test]
    fn what_is_nested_deeper_than_a_stack_bears_is_unequal_not_a_crash() {
        let json = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(!equals(&mut Cursor::new(&[0x81; 100_000]), &json, 0));
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            // An integer and a float of one value are equal here and different to serde_json.
            any::<f64>().prop_filter_map("a fraction", |real| {
                serde_json::Number::from_f64(real).filter(|_| real.fract() != 0.0).map(Json::from)
            }),
            "\\PC{0,8}".prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 40, 16, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
                prop::collection::btree_map("\\PC{0,4}", inner, 0..16)
                    .prop_map(|members| Json::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_equals_its_own_cbor_and_no_other(one in any_json(), other in any_json()) {
            let text = one.to_string();
            prop_assert!(equals(&mut Cursor::new(&signed(&one)), &text, 0));
            prop_assert_eq!(equals(&mut Cursor::new(&signed(&other)), &text, 0), one == other);
        }

        #[test]
        fn no_bytes_crash_the_comparison(bytes: Vec<u8>, one in any_json()) {
            let _ = equals(&mut Cursor::new(&bytes), &one.to_string(), 0);
        }

        #[test]
        fn every_float_equals_its_own_digits(real: f64) {
            prop_assume!(real.is_finite());
            prop_assert!(float_equals(&real.to_string(), real));
            let scientific = format!("{real:e}");
            prop_assert!(float_equals(&scientific, real));
        }

        #[test]
        fn every_64_bit_integer_is_exact(value: i64, other: i64) {
            prop_assert!(int_equals(&value.to_string(), i128::from(value)));
            // Only the shortest digits of a large binary64 are a second spelling.
            prop_assert!(value == other || !int_equals(&value.to_string(), i128::from(other)));
        }
    }
}
