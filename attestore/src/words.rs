//! Numbers spelt for people: ages and sizes, the same in every report.

/// Spells an age in seconds; one that lies in the future says so.
#[must_use]
pub fn age(seconds: i64) -> String {
    match seconds {
        ..0 => format!("{} in the future", age(seconds.saturating_neg())),
        1 => "1 second".to_owned(),
        0..120 => format!("{seconds} seconds"),
        120..7_200 => format!("{} minutes", seconds / 60),
        7_200..172_800 => format!("{} hours", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Spells a number of bytes.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut unit, mut whole, mut tenths) = (0, count, 0);
    while whole >= 1_024 && unit + 1 < UNITS.len() {
        tenths = whole % 1_024 * 10 / 1_024;
        whole /= 1_024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{whole} B") } else { format!("{whole}.{tenths} {name}") }
}

/// Spells a duration in seconds.
#[must_use]
pub fn seconds(time: f64) -> String {
    if time < 0.01 {
        "<0.01 s".to_owned()
    } else if time < 10.0 {
        format!("{time:.2} s")
    } else if time < 120.0 {
        format!("{time:.0} s")
    } else {
        // Above two minutes the fraction says nothing.
        #[allow(clippy::cast_possible_truncation)]
        age(time as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_spelt_in_their_unit() {
        for (number, text) in
            [(0, "0 seconds"), (1, "1 second"), (119, "119 seconds"), (120, "2 minutes"), (7_200, "2 hours")]
        {
            assert_eq!(age(number), text);
        }
        assert_eq!(age(-7_200), "2 hours in the future");
        assert_eq!(bytes(1_590_000), "1.5 MiB");
        assert_eq!(seconds(0.123), "0.12 s");
    }
}
