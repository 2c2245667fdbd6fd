//! What the command line writes: one JSON document or text for people on standard output, errors on standard error.

use std::fmt;
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
    /// When standard output cannot be written.
    pub(crate) fn show<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> Text) -> Result<(), Error> {
        self.show_exact(value, |value| text(value).0)
    }

    /// Writes a result of which the text is a document of its own (a signed note, a report) and stays as it is.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub(crate) fn show_exact<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Error> {
        if !self.json {
            return print(text(value).as_bytes());
        }
        let mut line = serde_json::to_string_pretty(value).map_err(|error| {
            Error::new(attestore::ErrorKind::Internal, format!("cannot write JSON: {error}"))
        })?;
        line.push('\n');
        print(line.as_bytes())
    }

    /// Writes an error with its causes and its hint to standard error.
    pub(crate) fn error(self, error: &Error) {
        let kind = error.kind();
        let message = error.full_text();
        let hint = error.hint().unwrap_or_else(|| kind.advice().to_owned());
        let text = if self.json {
            let document = json!({"error": {"code": kind.code(), "kind": kind.name(), "message": message, "hint": hint}});
            format!("{document}\n")
        } else {
            format!("attestore: {}\nHINT: {}\n", plain(&message), plain(&hint))
        };
        // There is nowhere left to say that standard error cannot be written.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// Writes to standard output. A reader that went away early is no error.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != IoKind::BrokenPipe => Err(Error::io("write", "standard output", error)),
        _ => Ok(()),
    }
}

/// Escapes what a terminal would obey instead of show: control characters, and those that turn text around. For
/// values that come from data, which may be an attacker's.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Reports whether a terminal would obey a character, or show others in another order because of it.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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

/// Text for people, line by line. A value cannot leave its line nor command the terminal: it may be an attacker's.
#[derive(Debug, Default)]
pub(crate) struct Text(String);

impl Text {
    /// Adds a line.
    pub(crate) fn line(&mut self, arguments: fmt::Arguments<'_>) {
        self.0.push_str(&plain(&arguments.to_string()));
        self.0.push('\n');
    }

    /// Adds an empty line.
    pub(crate) fn blank(&mut self) {
        self.0.push('\n');
    }

    /// Adds another text.
    pub(crate) fn append(&mut self, other: Self) {
        self.0.push_str(&other.0);
    }

    /// Adds rows in columns; the last column is not padded.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let mut lines: Vec<Vec<String>> = vec![head.iter().map(|cell| (*cell).to_owned()).collect()];
        lines.extend(rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()));
        let mut widths: Vec<usize> = vec![0; head.len()];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for line in &lines {
            let mut text = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                let pad = width - cell.chars().count() + 2;
                text.push_str(cell);
                text.extend(std::iter::repeat_n(' ', pad));
            }
            self.0.push_str(text.trim_end());
            self.0.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(plain("größe 7 → 8"), "größe 7 → 8");
        assert_eq!(plain("a\u{1b}[2Jb\r\nINTACT\u{202e}\u{9b}"), "a\\u{1b}[2Jb\\r\\nINTACT\\u{202e}\\u{9b}");
    }

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
