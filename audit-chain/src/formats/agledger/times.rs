//! The spellings of time in AGLedger's files.
//!
//! | where | spelling | read by |
//! |---|---|---|
//! | rows of a dump | RFC 3339 with `T` and an offset: `2026-09-01T00:00:01.014Z` | [`row_time`] |
//! | signed key statements | exactly `2026-09-01T00:00:01.014000Z` | [`instant`] |
//! | `vault-public-keys.csv` | PostgreSQL text: `2026-05-26 01:24:53.5+00` | [`registry_time`], which reads both |
//!
//! All give microseconds since 1970-01-01T00:00:00Z. Dumps carry milliseconds, so times are compared as [`millis`].

use jiff::Timestamp;

/// Reads a time of a dump's row: a date, `T`, a time with seconds, an optional fraction, `Z` or `±HH:MM`.
pub(super) fn row_time(text: &str) -> Option<i64> {
    let rest = shape(text, b'T')?;
    let offset_is_full = rest == "Z" || matches!(rest.as_bytes(), [b'+' | b'-', _, _, b':', _, _]);
    if offset_is_full { micros(text) } else { None }
}

/// Reads the instant of a key statement, which has one spelling: microseconds and `Z`.
pub(super) fn instant(text: &str) -> Option<i64> {
    if text.len() == 27 && shape(text, b'T') == Some("Z") { micros(text) } else { None }
}

/// Reads a time of the registry, in the spelling of a dump or of PostgreSQL (`±HH`, `±HH:MM`, `±HH:MM:SS`).
pub(super) fn registry_time(text: &str) -> Option<i64> {
    row_time(text).or_else(|| {
        let rest = shape(text, b' ')?;
        let digits = rest.strip_prefix(['+', '-'])?;
        let parts: Vec<&str> = digits.split(':').collect();
        let full = parts.len() <= 3
            && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()));
        if full { micros(text) } else { None }
    })
}

/// Rounds microseconds down to milliseconds, as a dump does.
pub(super) const fn millis(micros: i64) -> i64 {
    micros.div_euclid(1_000)
}

/// Spells microseconds since 1970 for a finding.
pub(super) fn spell(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |time| time.to_string())
}

/// Checks the shape up to the offset, and returns the offset.
fn shape(text: &str, between: u8) -> Option<&str> {
    let bytes = text.as_bytes();
    let fits = bytes.get(..19)?.iter().enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-',
        10 => *byte == between,
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    });
    let rest = text.get(19..)?;
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => {
            let offset = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
            if offset.len() == fraction.len() {
                return None;
            }
            offset
        }
        None => rest,
    };
    fits.then_some(rest)
}

fn micros(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_spelling() {
        let at = Some(1_788_220_801_014_000);
        for text in
            ["2026-09-01T00:00:01.014Z", "2026-09-01T00:00:01.014000Z", "2026-09-01T02:00:01.014+02:00"]
        {
            assert_eq!((row_time(text), registry_time(text)), (at, at), "{text}");
        }
        assert_eq!(instant("2026-09-01T00:00:01.014000Z"), at);
        for text in
            ["2026-09-01T00:00:01.014Z", "2026-09-01T00:00:01.0140000Z", "2026-09-01T02:00:01.014+02:00"]
        {
            assert_eq!(instant(text), None, "{text}");
        }
        for text in [
            "2026-09-01 00:00:01.014+00",
            "2026-08-31 19:00:01.014-05:00",
            "2026-09-01 05:30:01.014+05:30:00",
        ] {
            assert_eq!((row_time(text), registry_time(text)), (None, at), "{text}");
        }
        for text in [
            "",
            "2026-09-01",
            "2026-09-01T00:00:01.014",
            "2026-09-01T00:00:01.014z",
            "2026-09-01t00:00:01Z",
            "2026-09-01T00:00:01.Z",
            "2026-09-01T00:00:01+00",
            "2026-09-01T00:00:01+0000",
            "2026-09-01T00:00:01Z[UTC]",
            "2026-09-01T00:00:61Z",
            "2026-02-30T00:00:01Z",
            "2026-09-01 00:00:01",
            "2026-09-01 00:00:01+0",
            "infinity",
            "２０２６-09-01T00:00:01Z",
        ] {
            assert_eq!((row_time(text), registry_time(text)), (None, None), "{text}");
        }
    }

    #[test]
    fn milliseconds_round_down_before_1970_too() {
        assert_eq!((millis(1_999), millis(-1), millis(-1_000)), (1, -1, -1));
        assert_eq!(spell(1_788_220_801_014_000), "2026-09-01T00:00:01.014Z");
    }
}
