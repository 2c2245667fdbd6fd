//! The spellings of single fields: UUIDs, time stamps, IP addresses.
//!
//! | field | stored as | hashed as |
//! |---|---|---|
//! | UUID | 32 hexadecimal digits (SQLite), dashed (PostgreSQL, JSON), either case, `{…}`, `urn:uuid:…` | lowercase, dashed |
//! | time | `2026-11-20 13:58:46.703956` (SQLite), `…46.7+00` (PostgreSQL), `…T…Z`, any offset; no offset is UTC | `2026-11-20T13:58:46.703956+00:00` |
//! | address | text; PostgreSQL's `inet` respells it | era C: Python's `ip_address(x).compressed`; eras A and B: as stored |
//!
//! Python before 3.13 compresses an IPv4-mapped address to `::ffff:c000:201`, from 3.13 on to `::ffff:192.0.2.1`, so z4j calls
//! rows of the other one tampered. [`Address`] gives both spellings.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A UUID as it is hashed: lowercase, dashed.
pub(super) type UuidText = [u8; 36];

/// Reads a UUID as Python's `UUID(text)` does.
pub(super) fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut uuid = [0; 16];
    if text.len() == 32 {
        hex::decode_to_slice(text, &mut uuid).ok()?;
        return Some(uuid);
    }
    let bare = text.strip_prefix("urn:uuid:").unwrap_or(text);
    let bare = bare.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(bare);
    let mut digits = [0; 32];
    let mut count = 0;
    for byte in bare.bytes().filter(|byte| *byte != b'-') {
        *digits.get_mut(count)? = byte;
        count += 1;
    }
    if count != 32 {
        return None;
    }
    hex::decode_to_slice(digits, &mut uuid).ok()?;
    Some(uuid)
}

/// Spells a UUID as it is hashed.
pub(super) fn uuid_text(uuid: &[u8; 16]) -> UuidText {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    text
}

/// A point in time with microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Microseconds since 1970-01-01 UTC.
    pub(super) micros: i64,
    /// As it is hashed.
    pub(super) text: [u8; 32],
}

/// Reads decimal digits.
fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0_i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

impl Stamp {
    /// Reads a time stamp; without an offset it is UTC. Digits past the microseconds are dropped, as Python does.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let field = |from: usize, to: usize| digits(bytes.get(from..to)?);
        if bytes.get(4) != Some(&b'-') || bytes.get(7) != Some(&b'-') {
            return None;
        }
        if !matches!(bytes.get(10)?, b'T' | b't' | b' ') || bytes.get(13) != Some(&b':') {
            return None;
        }
        let (hour, minute) = (field(11, 13)?, field(14, 16)?);
        let mut rest = bytes.get(16..)?;
        let mut second = 0;
        if let [b':', tens, ones, tail @ ..] = rest {
            second = digits(&[*tens, *ones])?;
            rest = tail;
        }
        let mut micros = 0;
        if let [b'.' | b',', tail @ ..] = rest {
            let length = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if length == 0 {
                return None;
            }
            for at in 0..6 {
                micros = micros * 10
                    + tail.get(at).filter(|_| at < length).map_or(0, |byte| i64::from(byte - b'0'));
            }
            rest = &tail[length..];
        }
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let offset = parse_offset(rest)?;
        let date = jiff::civil::Date::new(
            i16::try_from(field(0, 4)?).ok()?,
            i8::try_from(field(5, 7)?).ok()?,
            i8::try_from(field(8, 10)?).ok()?,
        )
        .ok()?;
        let midnight =
            jiff::tz::Offset::UTC.to_timestamp(date.to_datetime(jiff::civil::Time::midnight())).ok()?;
        let seconds = midnight.as_second() + (hour * 60 + minute) * 60 + second - offset;
        Self::new(seconds.checked_mul(1_000_000)?.checked_add(micros)?, (offset == 0).then_some(bytes))
    }

    /// Spells the time; `date` is text in UTC that begins with the date and the time to the minute.
    fn new(micros: i64, date: Option<&[u8]>) -> Option<Self> {
        let mut text = *b"0000-00-00T00:00:00.000000+00:00";
        let mut put = |from: usize, to: usize, mut value: i64| {
            for place in text[from..to].iter_mut().rev() {
                *place = b'0' + u8::try_from(value % 10).unwrap_or(0);
                value /= 10;
            }
        };
        let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
        put(20, 26, fraction);
        put(17, 19, seconds.rem_euclid(60));
        if let Some(date) = date.and_then(|date| date.get(..16)) {
            text[..10].copy_from_slice(&date[..10]);
            text[11..16].copy_from_slice(&date[11..16]);
        } else {
            let timestamp = jiff::Timestamp::from_second(seconds).ok()?;
            let civil = jiff::tz::Offset::UTC.to_datetime(timestamp);
            if civil.year() < 1 {
                return None;
            }
            put(0, 4, i64::from(civil.year()));
            put(5, 7, i64::from(civil.month()));
            put(8, 10, i64::from(civil.day()));
            put(11, 13, i64::from(civil.hour()));
            put(14, 16, i64::from(civil.minute()));
        }
        Some(Self { micros, text })
    }
}

/// Reads an offset from UTC in seconds: nothing, `Z`, `+00`, `+0000`, `+00:00`, `+00:00:00`.
fn parse_offset(text: &[u8]) -> Option<i64> {
    let (sign, rest) = match text {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, minutes, seconds) = match rest {
        [_, _] => (digits(rest)?, 0, 0),
        [_, _, _, _] => (digits(&rest[..2])?, digits(&rest[2..])?, 0),
        [_, _, b':', _, _] => (digits(&rest[..2])?, digits(&rest[3..])?, 0),
        [_, _, b':', _, _, b':', _, _] => (digits(&rest[..2])?, digits(&rest[3..5])?, digits(&rest[6..])?),
        _ => return None,
    };
    (hours < 24 && minutes < 60 && seconds < 60).then_some(sign * ((hours * 60 + minutes) * 60 + seconds))
}

/// An address as era C hashes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// Hashed as it is stored: IPv4, and what is no address.
    Plain,
    /// Python's compressed spelling.
    Compressed(String),
    /// IPv4-mapped: what Python before 3.13 and from 3.13 on makes of it.
    Mapped([String; 2]),
}

impl Address {
    /// Reads an address as Python's `ip_address(text)` does.
    pub(super) fn parse(text: &str) -> Self {
        if text.parse::<Ipv4Addr>().is_ok() {
            return Self::Plain;
        }
        let (bare, scope) = match text.split_once('%') {
            Some((bare, scope)) if !scope.is_empty() && !scope.contains('%') => (bare, Some(scope)),
            Some(_) => return Self::Plain,
            None => (text, None),
        };
        let Ok(address) = bare.parse::<Ipv6Addr>() else { return Self::Plain };
        let spell = |dotted| {
            let mut spelt = spell_ipv6(&address, Spelling { dotted, ..Spelling::default() });
            if let Some(scope) = scope {
                spelt.push('%');
                spelt.push_str(scope);
            }
            spelt
        };
        if address.to_ipv4_mapped().is_some() {
            Self::Mapped([spell(false), spell(true)])
        } else {
            Self::Compressed(spell(false))
        }
    }
}

/// How an IPv6 address is written.
#[derive(Debug, Clone, Copy, Default)]
struct Spelling {
    /// The last 32 bits as an IPv4 address.
    dotted: bool,
    /// Every group, zeros too.
    whole: bool,
    /// Four digits a group.
    padded: bool,
    upper: bool,
}

/// Writes an IPv6 address as Python's `ipaddress` compresses it, or as `spelling` says.
fn spell_ipv6(address: &Ipv6Addr, spelling: Spelling) -> String {
    let segments = address.segments();
    let count = if spelling.dotted { 6 } else { 8 };
    let segments = &segments[..count];
    // The first longest run of at least two zero groups becomes `::`.
    let (mut best, mut run) = ((0, 0), (0, 0));
    for (at, segment) in segments.iter().enumerate() {
        run = if *segment != 0 { (at + 1, 0) } else { (run.0, run.1 + 1) };
        if run.1 > best.1 {
            best = run;
        }
    }
    if best.1 < 2 || spelling.whole {
        best = (count, 0);
    }
    let mut text = String::with_capacity(40);
    let mut at = 0;
    while at < count {
        if at == best.0 {
            text.push_str("::");
            at += best.1;
            continue;
        }
        if !text.is_empty() && !text.ends_with("::") {
            text.push(':');
        }
        let segment = segments[at];
        text.push_str(&if spelling.padded { format!("{segment:04x}") } else { format!("{segment:x}") });
        at += 1;
    }
    if spelling.dotted {
        if !text.ends_with(':') {
            text.push(':');
        }
        let [.., a, b, c, d] = address.octets();
        text.push_str(&Ipv4Addr::new(a, b, c, d).to_string());
    }
    if spelling.upper { text.to_uppercase() } else { text }
}

/// Returns the spellings in which the address that PostgreSQL's `inet` now shows may have come in.
pub(super) fn inet_spellings(text: &str) -> Vec<String> {
    let Ok(address) = text.parse::<Ipv6Addr>() else { return Vec::new() };
    let mut spellings = Vec::new();
    for bits in 0..16_u8 {
        let spelling = Spelling {
            dotted: bits & 8 != 0,
            whole: bits & 4 != 0,
            padded: bits & 2 != 0,
            upper: bits & 1 != 0,
        };
        if spelling.dotted && address.to_ipv4().is_none() {
            continue;
        }
        let spelt = spell_ipv6(&address, spelling);
        if spelt != text && !spellings.contains(&spelt) {
            spellings.push(spelt);
        }
    }
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_uuid_is_hashed_alike() {
        let wanted = "0a66bef8-3497-40bd-8cc0-8ab108c0ea8d";
        for text in [
            wanted,
            "0a66bef8349740bd8cc08ab108c0ea8d",
            "0A66BEF8349740BD8CC08AB108C0EA8D",
            "{0a66bef8-3497-40bd-8cc0-8ab108c0ea8d}",
            "urn:uuid:0a66bef8-3497-40bd-8cc0-8ab108c0ea8d",
        ] {
            let uuid = parse_uuid(text).unwrap();
            assert_eq!(std::str::from_utf8(&uuid_text(&uuid)).unwrap(), wanted, "{text}");
        }
        for text in ["", "0a66", "0a66bef8-3497-40bd-8cc0-8ab108c0ea8", "zz66bef8349740bd8cc08ab108c0ea8d"] {
            assert_eq!(parse_uuid(text), None, "{text}");
        }
    }

    #[test]
    fn every_spelling_of_a_time_is_hashed_alike() {
        for (text, wanted) in [
            ("2026-11-20 13:58:46.703956", "2026-11-20T13:58:46.703956+00:00"),
            ("2026-11-20T13:58:46.703956Z", "2026-11-20T13:58:46.703956+00:00"),
            ("2026-11-20 13:58:46.7+00", "2026-11-20T13:58:46.700000+00:00"),
            ("2026-11-20 13:58:46+00:00", "2026-11-20T13:58:46.000000+00:00"),
            ("2026-11-20 13:58:46.7039569", "2026-11-20T13:58:46.703956+00:00"),
            ("2026-11-20 15:28:46.703956+0130", "2026-11-20T13:58:46.703956+00:00"),
            ("2026-01-01 00:30:00.000001+01:00", "2025-12-31T23:30:00.000001+00:00"),
            ("2024-02-29T23:59:59.999999-23:59:59", "2024-03-01T23:59:58.999999+00:00"),
            ("1969-12-31 23:59:59.5", "1969-12-31T23:59:59.500000+00:00"),
            ("2026-11-20 13:58", "2026-11-20T13:58:00.000000+00:00"),
        ] {
            let stamp = Stamp::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(std::str::from_utf8(&stamp.text).unwrap(), wanted, "{text}");
            assert_eq!(Stamp::parse(wanted), Some(stamp), "{text}");
        }
        assert_eq!(Stamp::parse("1970-01-02 00:00:00.000003").unwrap().micros, 86_400_000_003);
        for text in [
            "",
            "2026-02-30 00:00:00",
            "2026-11-20",
            "2026-11-20 24:00:00",
            "2026-11-20 13:58:46.",
            "2026-11-20 13:58:46 UTC",
            "2026-11-20 13:58:46.7+1",
            "0001-01-01 00:00:00+01:00",
            "20261120T135846",
        ] {
            assert_eq!(Stamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_are_compressed_as_python_does() {
        let compressed = |text: &str| match Address::parse(text) {
            Address::Compressed(spelt) => spelt,
            other => panic!("{text}: {other:?}"),
        };
        for (text, wanted) in [
            ("2001:0DB8:0:0:0:0:0:00A1", "2001:db8::a1"),
            ("2001:db8::", "2001:db8::"),
            ("::", "::"),
            ("::1", "::1"),
            ("1:0:0:2:0:0:0:3", "1:0:0:2::3"),
            ("1:0:0:2:3:0:0:4", "1::2:3:0:0:4"),
            ("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"),
            ("::192.0.2.1", "::c000:201"),
            ("FE80::1%eth0", "fe80::1%eth0"),
        ] {
            assert_eq!(compressed(text), wanted, "{text}");
        }
        let mapped = Address::Mapped(["::ffff:c000:201".into(), "::ffff:192.0.2.1".into()]);
        assert_eq!(Address::parse("::FFFF:192.0.2.1"), mapped);
        assert_eq!(Address::parse("0:0:0:0:0:ffff:c000:0201"), mapped);
        for text in ["192.0.2.1", "010.0.0.1", "no address", "", "10.0.0.0/8", "fe80::1%", "::1::"] {
            assert_eq!(Address::parse(text), Address::Plain, "{text}");
        }
    }

    #[test]
    fn what_inet_respelt_can_be_found_again() {
        let spellings = inet_spellings("2001:db8::1");
        for text in [
            "2001:DB8::1",
            "2001:0db8:0000:0000:0000:0000:0000:0001",
            "2001:db8:0:0:0:0:0:1",
            "2001:0DB8::0001",
        ] {
            assert!(spellings.iter().any(|spelt| spelt == text), "{text}: {spellings:?}");
        }
        let spellings = inet_spellings("::ffff:192.0.2.1");
        for text in ["::ffff:c000:201", "::FFFF:192.0.2.1", "::FFFF:C000:201", "0:0:0:0:0:ffff:192.0.2.1"] {
            assert!(spellings.iter().any(|spelt| spelt == text), "{text}: {spellings:?}");
        }
        assert!(inet_spellings("10.0.0.1").is_empty());
    }
}
