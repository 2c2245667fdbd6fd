//! One self-contained HTML page: drill reports and runbooks use the same frame, style and escaping.
//!
//! The page needs no network and no script (its content security policy allows none), follows the reader's light or dark setting, reads
//! on a phone and prints on paper. Every value goes through [`esc`]: it may be an attacker's.

use std::fmt::Write as _;

/// The style of every page.
const STYLE: &str = include_str!("page.css");

/// Escapes a value for HTML text and quoted attributes. Control characters, and those that turn text around, are shown as `\u{…}`.
#[must_use]
pub fn esc(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(c),
            c if hidden(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

/// Keeps a value inside its cell of a Markdown table, and from being taken for markup or obeyed by a terminal.
#[must_use]
pub fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' => {
                safe.push('\\');
                safe.push(c);
            }
            '<' => safe.push_str("&lt;"),
            '&' => safe.push_str("&amp;"),
            c if hidden(c) => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// Puts a value into Markdown's code span, whatever it holds.
#[must_use]
pub fn code(text: &str) -> String {
    let clean: String = text.chars().map(|c| if hidden(c) { ' ' } else { c }).collect();
    let mut run = 0;
    let mut longest = 0;
    for c in clean.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat(longest + 1);
    let pad = if longest > 0 { " " } else { "" };
    format!("{fence}{pad}{clean}{pad}{fence}")
}

/// Reports whether a character would be obeyed instead of shown.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Makes the page around a body that is HTML already.
#[must_use]
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        esc(title)
    )
}

/// Writes a table; cells are HTML already. On a phone each row becomes a card with the heads as labels.
#[must_use]
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = String::from("<div class=\"table\"><table>\n<thead><tr>");
    for head in heads {
        let _ = write!(text, "<th>{}</th>", esc(head));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        text.push_str("<tr>");
        for (cell, head) in row.iter().zip(heads) {
            let _ = write!(text, "<td data-head=\"{}\">{cell}</td>", esc(head));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table></div>\n");
    text
}

/// Writes a mark: good, bad or neither.
#[must_use]
pub fn mark(class: &str, text: &str) -> String {
    format!("<span class=\"mark {class}\">{}</span>", esc(text))
}

/// Writes a list of sentences.
#[must_use]
pub fn list(lines: &[String]) -> String {
    let mut text = String::from("<ul>\n");
    for line in lines {
        let _ = writeln!(text, "<li>{}</li>", esc(line));
    }
    text.push_str("</ul>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_hidden_characters_are_shown_and_not_obeyed() {
        assert_eq!(
            esc("<b a=\"x\" c='y'>&\u{202e}\u{1b}"),
            "&lt;b a=&quot;x&quot; c=&#39;y&#39;&gt;&amp;\\u{202e}\\u{1b}"
        );
        assert_eq!(cell("a|b\n<i>*x*"), "a\\|b &lt;i>\\*x\\*");
        assert_eq!(code("a`b"), "`` a`b ``");
        assert!(page("<x>", "").contains("<title>&lt;x&gt;</title>"));
    }
}
