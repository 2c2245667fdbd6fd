//! Pages of a service in a folder: JSON documents, each an array of records or an object with one.
//!
//! Files are taken in the order of the numbers in their names (`page-2.json` before `page-10.json`). What a page says is next
//! (`next_cursor`, `next`, `has_more`) must be absent or null on the last one, or the extraction stopped early.

use std::path::{Path, PathBuf};

use audit_chain::joined::Joined;
use audit_chain::json_rows::JsonSource;
use audit_chain::report::{Finding, FindingKind};
use audit_chain::source::RowSource;
use backup_core::error::{Error, Result};

use crate::chain::read_document;

/// Lists the JSON files of a folder in page order.
pub(crate) fn page_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io("read", folder, error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        if json && path.is_file() {
            found.push(path);
        }
    }
    found.sort_by_cached_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (numbers_of(&name), name)
    });
    Ok(found)
}

/// Splits a name into texts and numbers, so that it sorts as a person would.
fn numbers_of(name: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (head, tail) = rest.split_at(text);
        let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(digits);
        parts.push((head.to_owned(), number.parse().unwrap_or(u64::MAX)));
        rest = tail;
    }
    parts
}

/// What the last page says is next, where it does.
pub(crate) fn unread(pages: &[PathBuf]) -> Result<Option<Finding>> {
    #[derive(serde::Deserialize)]
    struct Around {
        next_cursor: Option<serde_json::Value>,
        next: Option<serde_json::Value>,
        has_more: Option<bool>,
    }
    let Some(last) = pages.last() else { return Ok(None) };
    let text = read_document(last)?;
    // A page that is an array says nothing of others.
    let Ok(around) = serde_json::from_slice::<Around>(&text) else { return Ok(None) };
    let next = around.next_cursor.or(around.next).filter(|next| *next != "" && !next.is_null());
    let Some(next) = next.or_else(|| around.has_more.filter(|more| *more).map(Into::into)) else {
        return Ok(None);
    };
    Ok(Some(Finding {
        kind: FindingKind::Truncated,
        chain: String::new(),
        position: None,
        last: None,
        record: Some(last.display().to_string()),
        expected: Some("a last page that names no next one".into()),
        found: Some(format!("next: {next}")),
        explains: "the last page says that another follows, which is not here: the extraction stopped early"
            .into(),
    }))
}

/// Opens pages as one source.
pub(crate) fn open_pages(folder: &Path, pages: &[PathBuf]) -> Result<Joined<'static>> {
    let mut sources: Vec<Box<dyn RowSource>> = Vec::with_capacity(pages.len());
    for page in pages {
        sources.push(Box::new(JsonSource::open(page)?));
    }
    Ok(Joined::new(folder.display().to_string(), sources))
}
