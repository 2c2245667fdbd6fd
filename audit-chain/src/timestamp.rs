//! Reads the spellings of one instant that tables and exports use, and writes those that systems hash.
//!
//! Read: `YYYY-MM-DD`, a space or `T`, `HH:MM:SS`, up to nine fraction digits, then nothing or `Z` (UTC) or an offset
//! `+HH`, `+HHMM`, `+HH:MM`, `+HH:MM:SS`. This covers PostgreSQL's ISO style, RFC 3339 and SQLite. Years are those
//! of four digits. Called by the formats for every row, so it neither allocates nor looks up a calendar:
//! days are counted by the proleptic Gregorian calendar's 400-year cycle.

/// An instant in UTC, to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds past that second, below 1,000,000,000.
    pub nanos: u32,
}

const DAY: i64 = 86_400;

impl Instant {
    /// Reads a spelling; `None` when it is none, or no date of the calendar.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let head: &[u8; 19] = bytes.first_chunk()?;
        if (head[4], head[7], head[13], head[16]) != (b'-', b'-', b':', b':')
            || !matches!(head[10], b' ' | b'T' | b't')
        {
            return None;
        }
        let year = i64::from(two(head[0], head[1])?) * 100 + i64::from(two(head[2], head[3])?);
        let (month, day) = (two(head[5], head[6])?, two(head[8], head[9])?);
        let (hour, minute, second) =
            (two(head[11], head[12])?, two(head[14], head[15])?, two(head[17], head[18])?);
        if !(1..=12).contains(&month) || day < 1 || day > days_of_month(year, month) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let (nanos, rest) = fraction(bytes.get(19..)?)?;
        let seconds = days_from_civil(year, i64::from(month), i64::from(day)) * DAY
            + i64::from(hour) * 3_600
            + i64::from(minute) * 60
            + i64::from(second);
        Some(Self { seconds: seconds - offset(rest)?, nanos })
    }

    /// Makes an instant from microseconds since 1970.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        Self {
            seconds: micros.div_euclid(1_000_000),
            nanos: u32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0),
        }
    }

    /// Returns the microseconds since 1970; what is below a microsecond is cut off.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.seconds.saturating_mul(1_000_000).saturating_add(i64::from(self.nanos / 1_000))
    }

    /// Returns the calendar month, counted from year 0.
    #[must_use]
    pub fn month(self) -> i64 {
        let (year, month, _) = civil_from_days(self.seconds.div_euclid(DAY));
        year * 12 + month - 1
    }

    /// Appends `YYYY-MM-DD`, `separator`, `HH:MM:SS`, and `digits` (0 to 9) fraction digits; what is below is cut off.
    pub fn push(self, out: &mut Vec<u8>, separator: u8, digits: u8) {
        let (year, month, day) = civil_from_days(self.seconds.div_euclid(DAY));
        let second = self.seconds.rem_euclid(DAY);
        push_padded(out, year, 4);
        out.push(b'-');
        push_padded(out, month, 2);
        out.push(b'-');
        push_padded(out, day, 2);
        out.push(separator);
        push_padded(out, second / 3_600, 2);
        out.push(b':');
        push_padded(out, second / 60 % 60, 2);
        out.push(b':');
        push_padded(out, second % 60, 2);
        if digits > 0 {
            out.push(b'.');
            let digits = digits.min(9);
            let scale = 10_i64.pow(9 - u32::from(digits));
            push_padded(out, i64::from(self.nanos) / scale, usize::from(digits));
        }
    }
}

/// Returns the name of a month as [`Instant::month`] counts them: `2026-08`.
#[must_use]
pub fn month_name(month: i64) -> String {
    format!("{:04}-{:02}", month.div_euclid(12), month.rem_euclid(12) + 1)
}

/// Returns when a month begins, in microseconds since 1970.
#[must_use]
pub fn month_start(month: i64) -> i64 {
    days_from_civil(month.div_euclid(12), month.rem_euclid(12) + 1, 1) * DAY * 1_000_000
}

fn two(tens: u8, ones: u8) -> Option<u8> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| (tens - b'0') * 10 + (ones - b'0'))
}

/// Reads `.` and up to nine digits; returns nanoseconds and what follows.
fn fraction(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let Some((b'.', digits)) = bytes.split_first() else { return Some((0, bytes)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 || count > 9 {
        return None;
    }
    let (digits, rest) = digits.split_at(count);
    let value = digits.iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some((value * 10_u32.pow(9 - u32::try_from(count).ok()?), rest))
}

/// Reads the offset from UTC in seconds.
fn offset(bytes: &[u8]) -> Option<i64> {
    let (sign, rest) = match bytes {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, minutes, seconds) = match *rest {
        [a, b] => (two(a, b)?, 0, 0),
        [a, b, c, d] | [a, b, b':', c, d] => (two(a, b)?, two(c, d)?, 0),
        [a, b, b':', c, d, b':', e, f] => (two(a, b)?, two(c, d)?, two(e, f)?),
        _ => return None,
    };
    (hours < 24 && minutes < 60 && seconds < 60)
        .then(|| sign * (i64::from(hours) * 3_600 + i64::from(minutes) * 60 + i64::from(seconds)))
}

const fn days_of_month(year: i64, month: u8) -> u8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Counts the days from 1970-01-01; years begin in March, so that the leap day is the last.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The other way round: year, month, day.
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// Appends a number with leading zeros.
fn push_padded(out: &mut Vec<u8>, value: i64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    while rest > 0 && at > 0 {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    out.extend_from_slice(&digits[at.min(digits.len() - width)..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(instant: Instant, digits: u8) -> String {
        let mut out = Vec::new();
        instant.push(&mut out, b'T', digits);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_spelling_of_one_instant_is_that_instant() {
        let instant = Instant { seconds: 1_793_692_837, nanos: 123_457_000 };
        for spelling in [
            "2026-11-03 08:00:37.123457+00",
            "2026-11-03T08:00:37.123457Z",
            "2026-11-03t08:00:37.123457z",
            "2026-11-03T08:00:37.123457000+00:00",
            "2026-11-03 10:30:37.123457+0230",
            "2026-11-03 10:30:37.123457+02:30",
            "2026-11-03 00:00:35.123457-08:00:02",
            "2026-11-03 08:00:37.123457",
        ] {
            assert_eq!(Instant::parse(spelling), Some(instant), "{spelling}");
        }
        assert_eq!(instant.micros(), 1_793_692_837_123_457);
        assert_eq!(Instant::from_micros(instant.micros()), instant);
        assert_eq!(text(instant, 3), "2026-11-03T08:00:37.123");
        assert_eq!(
            (month_name(instant.month()).as_str(), month_start(instant.month())),
            ("2026-11", 1_793_491_200_000_000)
        );
        assert_eq!(Instant::parse("1969-12-31T23:59:59.9999999Z").unwrap().micros(), -1);
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for spelling in [
            "",
            "2026-11-03",
            "2026-13-03T08:00:00Z",
            "2026-02-29T08:00:00Z",
            "2026-11-00T08:00:00Z",
            "2026-11-03T24:00:00Z",
            "2026-11-03T08:60:00Z",
            "2026-11-03T08:00:60Z",
            "2026-11-03T08:00:00.Z",
            "2026-11-03T08:00:00.1234567890Z",
            "2026-11-03T08:00:00+24",
            "2026-11-03T08:00:00+1",
            "2026-11-03T08:00:00 UTC",
            "infinity",
            "2026-11-03T08:00:00ZZ",
            "20261-11-03T08:00:00Z",
            "2026-11-03 08:00:00 BC",
            "+026-11-03T08:00:00Z",
        ] {
            assert_eq!(Instant::parse(spelling), None, "{spelling}");
        }
        assert!(Instant::parse("2024-02-29T00:00:00Z").is_some());
        assert!(Instant::parse("2100-02-29T00:00:00Z").is_none());
    }

    proptest! {
        #[test]
        fn instants_are_those_of_the_calendar(seconds in -62_135_596_800_i64..253_402_300_799, nanos in 0_u32..1_000_000_000) {
            let instant = Instant { seconds, nanos };
            let spelt = text(instant, 9) + "Z";
            prop_assert_eq!(Instant::parse(&spelt), Some(instant));
            let peer: jiff::Timestamp = spelt.parse().unwrap();
            // jiff keeps seconds and nanoseconds of one sign.
            prop_assert_eq!(peer.as_nanosecond(), i128::from(seconds) * 1_000_000_000 + i128::from(nanos));
        }
    }
}
