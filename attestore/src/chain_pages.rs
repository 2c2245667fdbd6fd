//! Pages of a service in a folder: JSON documents, each an array of records or an object with one.
//!
//! Files are taken in the order of the numbers in their names (`page-2.json` before `page-10.json`). What a page says is next
//! (`next_cursor`, `next`, `cursor`) must be absent or null on the last one, or the extraction stopped early.

use std::path::{Path, PathBuf};

use audit_chain::joined::Joined;
use audit_chain::json_rows::JsonSource;
use audit_chain::source::RowSource;
use backup_core::error::{Error, Result};

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

/// Opens pages as one source.
pub(crate) fn open_pages(folder: &Path, pages: &[PathBuf]) -> Result<Joined<'static>> {
    let mut sources: Vec<Box<dyn RowSource>> = Vec::with_capacity(pages.len());
    for page in pages {
        sources.push(Box::new(JsonSource::open(page)?));
    }
    Ok(Joined::new(folder.display().to_string(), sources))
}
