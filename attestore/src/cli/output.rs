//! What the command line writes: one JSON document or text for people on standard output, errors on standard error.

use std::io::{ErrorKind as IoKind, Write};

use attestore::Error;
use serde::Serialize;
use serde_json::json;

/// Where results go and in which shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// One JSON document instead of text.
    pub(crate) json: bool,
}

impl Output {
    /// Writes a result: as JSON, or as the text that `text` makes of it.
    ///
    /// # Errors
    /// When standard output cannot be written. A reader that went away early is no error.
    pub(crate) fn show<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Error> {
        let written = if self.json {
            let mut line = serde_json::to_string_pretty(value).map_err(|error| {
                Error::new(attestore::ErrorKind::Internal, format!("cannot write JSON: {error}"))
            })?;
            line.push('\n');
            line
        } else {
            text(value)
        };
        let mut out = std::io::stdout().lock();
        match out.write_all(written.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != IoKind::BrokenPipe => {
                Err(Error::io("write", "standard output", error))
            }
            _ => Ok(()),
        }
    }

    /// Writes an error with its causes and its hint to standard error.
    pub(crate) fn error(self, error: &Error) {
        let kind = error.kind();
        let message = with_causes(error);
        let text = if self.json {
            let document = json!({"error": {"code": kind.code(), "kind": kind.name(), "message": message, "hint": error.hint()}});
            format!("{document}\n")
        } else {
            let hint = error.hint().map(|hint| format!("HINT: {hint}\n")).unwrap_or_default();
            format!("attestore: {message}\n{hint}")
        };
        // There is nowhere left to say that standard error cannot be written.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// Joins an error with what lies under it, without saying anything twice.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(under) = cause {
        let said = under.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = under.source();
    }
    text
}

/// Spells a number of bytes for people, with the exact number where it matters.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = count;
    let mut tenths = 0;
    while whole >= 1_024 && unit + 1 < UNITS.len() {
        tenths = whole % 1_024 * 10 / 1_024;
        whole /= 1_024;
        unit += 1;
    }
    if unit == 0 { format!("{whole} B") } else { format!("{whole}.{tenths} {}", UNITS[unit]) }
}

/// Lays rows out in columns; the last column is not padded.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let all =
        std::iter::once(head.iter().map(|cell| (*cell).to_owned()).collect()).chain(rows.iter().cloned());
    for row in all {
        let row: Vec<String> = row;
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if at + 1 == row.len() {
                text.push_str(cell);
            } else {
                let pad = width - cell.chars().count() + 2;
                text.push_str(cell);
                text.extend(std::iter::repeat_n(' ', pad));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_spelt_for_people() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_590_000, "1.5 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
