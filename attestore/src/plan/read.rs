//! Reads the text of a plan and says what is wrong with it: file, line, column, the nearest known key.
//!
//! Called by [`super::Plan::load`]. Values of the file are not repeated in errors: a secret may have been put where it should not.

use std::path::Path;

use backup_core::error::{Error, ErrorKind, Result};

use super::schema::PlanFile;

/// A key further from every known one than this is not taken for a slip (Jaro-Winkler similarity, 0 to 1).
const NEAR: f64 = 0.7;

/// Reads a plan.
///
/// # Errors
/// `InvalidInput` with the place and what is wrong there.
pub(super) fn parse(path: &Path, text: &str) -> Result<PlanFile> {
    toml::from_str(text).map_err(|error| {
        let place = error.span().map(|span| place(text, span.start)).unwrap_or_default();
        let (what, hint) = explain(error.message());
        let fault = Error::new(ErrorKind::InvalidInput, format!("{}{place}: {what}", path.display()));
        match hint {
            Some(hint) => fault.with_hint(hint),
            None => fault.with_hint("docs/plan.md lists every key of a plan"),
        }
    })
}

/// Makes an error about a place in the plan.
pub(super) fn fault(path: &Path, text: &str, at: usize, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("{}{}: {what}", path.display(), place(text, at)))
}

/// Spells a place as `:LINE:COLUMN`, both from 1; columns count characters.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!(":{line}:{column}")
}

/// Says what the parser means, in this project's words, with a hint.
fn explain(message: &str) -> (String, Option<String>) {
    let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.starts_with("unknown field")
        && let Some((found, known)) = words.split_first()
    {
        return (format!("unknown key {found:?}"), Some(nearest("key", found, known)));
    }
    if message.starts_with("unknown variant")
        && let Some((found, known)) = words.split_first()
    {
        return (format!("unknown value {found:?}"), Some(nearest("value", found, known)));
    }
    if message.starts_with("missing field")
        && let Some(name) = words.first()
    {
        return (format!("the key {name:?} is missing"), None);
    }
    // The text of a string is not repeated; its type is.
    let what = match (message.find("string \""), message.rfind("\", expected")) {
        (Some(from), Some(to)) if message.starts_with("invalid ") && from < to => {
            format!("{}a string{}", &message[..from], &message[to + 1..])
        }
        _ => message.to_owned(),
    };
    (what.trim_end().trim_end_matches('.').replace('\n', ", "), None)
}

/// Names the nearest of the known words, and all of them where none is near.
fn nearest(what: &str, found: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|word| (strsim::jaro_winkler(found, word), word))
        .filter(|(score, _)| *score >= NEAR)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    match near {
        Some((_, word)) => format!("the nearest known {what} is {word:?}"),
        None if known.is_empty() => format!("no {what} is known here"),
        None => format!("known here: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> (String, String) {
        let error = parse(Path::new("attestore.toml"), text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        (error.to_string(), error.hint().unwrap_or_default())
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
        let (what, hint) = error("[plan]\nname = \"x\"\nowner = \"y\"\n  contcat = \"z\"\n");
        assert_eq!(what, "attestore.toml:4:3: unknown key \"contcat\"");
        assert_eq!(hint, "the nearest known key is \"contact\"");
        let (what, hint) = error("[plan]\nname = \"x\"\nowner = \"y\"\n[[sources]]\nname = \"a\"\nzzz = 1\n");
        assert_eq!(what, "attestore.toml:6:1: unknown key \"zzz\"");
        assert!(hint.starts_with("known here: name, database"), "{hint}");
    }

    #[test]
    fn a_wrong_type_is_named_with_its_place_and_without_its_value() {
        let (what, _) = error("[plan]\nname = \"x\"\nowner = \"y\"\n[retention]\nkeep_last = \"hunter2\"\n");
        assert_eq!(what, "attestore.toml:5:13: invalid type: a string, expected u32");
        let (what, _) = error("[plan]\nname = 3\n");
        assert!(what.starts_with("attestore.toml:2:8: invalid type: integer"), "{what}");
        let (what, _) = error("[plan\n");
        assert!(what.starts_with("attestore.toml:1:6: "), "{what}");
        let (what, _) = error("secrets = \"hunter2\"\n");
        assert!(!what.contains("hunter2"), "{what}");
    }
}
