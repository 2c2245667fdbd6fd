//! Rows from a service, page by page: a cursor in, records and the next cursor out.
//!
//! A [`PageSource`] is whatever answers with pages (an HTTP API, a message log); [`extract`] takes them one after the other into an NDJSON
//! file, resumably. After each page the rows are synced before the state is replaced, so when the process dies, the next call cuts the file
//! back to what the state says and goes on at its cursor: no row is there twice, none is missing. On disk, until it is done:
//!
//! ```text
//! OUT.part         the rows so far, NDJSON, each record's exact bytes on a line
//! OUT.part.state   {"type","cursor","pages","rows","size_bytes","last_page"}
//! ```
//!
//! A page that comes again (a service that answers the same cursor with itself), and a record that stands in two neighbouring pages, are
//! told: paging by offset while rows come and go does both. `last_page` is the SHA-256 of each record of the last page.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// What the state says it is.
const TYPE: &str = "attestore.dev/page-extraction/v1";

/// How many pages are read without an end before it is taken for a circle.
pub const MAX_PAGES: u64 = 10_000_000;

/// One page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The records, each a JSON object in its exact bytes.
    pub records: Vec<String>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

impl Page {
    /// Reads the document of a service: an array of objects, or an object with one array of objects and `next_cursor`, `next` or
    /// `cursor` beside it. Line ends between members become spaces; all else is kept as it is.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is neither.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self> {
        let malformed =
            |place: String, what: String| Error::Malformed { input: name.to_owned(), place, what };
        let wrong = |error: serde_json::Error| malformed(format!("line {}", error.line()), error.to_string());
        if text.trim_ascii_start().starts_with(b"[") {
            let items: Vec<&RawValue> = serde_json::from_slice(text).map_err(wrong)?;
            return Ok(Self {
                records: objects(&items)
                    .ok_or_else(|| malformed("array".into(), "an item is no object".into()))?,
                next: None,
            });
        }
        let members: std::collections::BTreeMap<String, &RawValue> =
            serde_json::from_slice(text).map_err(wrong)?;
        let arrays = members.values().filter_map(|value| {
            let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
            objects(&items)
        });
        let mut arrays: Vec<Vec<String>> = arrays.collect();
        let records = match arrays.len() {
            1 => arrays.remove(0),
            found => {
                let what = format!("expected one array of records, found {found}");
                return Err(malformed("document".into(), what));
            }
        };
        let next = ["next_cursor", "next", "cursor"]
            .iter()
            .find_map(|name| members.get(*name))
            .map(|next| next.get());
        let next = match next {
            None | Some("null" | "\"\"" | "false") => None,
            Some(text) => Some(serde_json::from_str::<String>(text).unwrap_or_else(|_| text.to_owned())),
        };
        Ok(Self { records, next })
    }
}

/// Takes the items of an array of objects, each on one line; `None` when one is no object.
fn objects(items: &[&RawValue]) -> Option<Vec<String>> {
    items
        .iter()
        .map(|item| {
            let text = item.get();
            // In JSON a bare line end stands only between tokens.
            text.starts_with('{').then(|| text.replace(['\n', '\r'], " "))
        })
        .collect()
}

/// Answers with pages.
pub trait PageSource {
    /// Names the source for messages (`https://…/events`).
    fn name(&self) -> String;

    /// Reads the page at a cursor; the first at `None`.
    ///
    /// # Errors
    /// When the service does not answer with a page; [`extract`] can be called again later.
    fn page(&mut self, cursor: Option<&str>) -> Result<Page>;
}

/// What an extraction made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Extracted {
    /// How many pages, over all calls.
    pub pages: u64,
    /// How many rows.
    pub rows: u64,
    /// The size of the file, in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the file, lowercase hex.
    pub sha256: String,
    /// Records that stood in two neighbouring pages and were taken once.
    pub repeated: u64,
    /// At how many rows this call went on; 0 for a new extraction.
    pub resumed_at: u64,
}

/// How far an extraction is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    #[serde(rename = "type")]
    kind: String,
    cursor: Option<String>,
    pages: u64,
    rows: u64,
    size_bytes: u64,
    #[serde(default)]
    repeated: u64,
    #[serde(default)]
    last_page: Vec<String>,
}

/// Takes all pages of a source into `out`, an NDJSON file, or goes on where an earlier call was stopped.
///
/// # Errors
/// [`Error::Io`] when `out` exists or cannot be written; what the source says; [`Error::InvalidInput`] when a cursor comes again;
/// [`Error::Cancelled`]. What was taken stays, for the next call.
pub fn extract(source: &mut dyn PageSource, out: &Path, cancel: Option<&AtomicBool>) -> Result<Extracted> {
    let io = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action, path: path.clone(), source }
    };
    if out.symlink_metadata().is_ok() {
        return Err(io("create", out)(std::io::ErrorKind::AlreadyExists.into()));
    }
    let (part, state_path) = (with_ending(out, ".part"), with_ending(out, ".part.state"));
    let mut state = read_state(&state_path)?;
    let resumed_at = state.rows;
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&part)
        .map_err(io("open", &part))?;
    let size = file.metadata().map_err(io("read", &part))?.len();
    if size < state.size_bytes {
        return Err(Error::Malformed {
            input: part.display().to_string(),
            place: format!("byte {size}"),
            what: format!(
                "expected at least {} bytes, as its state says; remove both to begin anew",
                state.size_bytes
            ),
        });
    }
    // What stands behind was written, but not yet counted, when the process died.
    file.set_len(state.size_bytes).map_err(io("write", &part))?;
    file.seek(SeekFrom::End(0)).map_err(io("write", &part))?;
    loop {
        if cancel.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(Error::Cancelled);
        }
        if state.pages > 0 && state.cursor.is_none() {
            break;
        }
        let page = source.page(state.cursor.as_deref())?;
        if (page.next.is_some() && page.next == state.cursor) || state.pages >= MAX_PAGES {
            return Err(Error::InvalidInput(format!(
                "{}: page {} names itself as the next one",
                source.name(),
                state.pages + 1
            )));
        }
        take(&mut state, page, &mut file).map_err(io("write", &part))?;
        file.sync_data().map_err(io("sync", &part))?;
        write_state(&state_path, &state)?;
    }
    file.sync_all().map_err(io("sync", &part))?;
    file.rewind().map_err(io("read", &part))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer).map_err(io("read", &part))?;
        if read == 0 {
            break;
        }
        digest.update(buffer.get(..read).unwrap_or_default());
    }
    // A link does not replace what came to stand there meanwhile.
    std::fs::hard_link(&part, out).map_err(io("create", out))?;
    sync_folder(out)?;
    for path in [&part, &state_path] {
        std::fs::remove_file(path).map_err(io("remove", path))?;
    }
    sync_folder(out)?;
    Ok(Extracted {
        pages: state.pages,
        rows: state.rows,
        size_bytes: state.size_bytes,
        sha256: hex::encode(digest.finalize()),
        repeated: state.repeated,
        resumed_at,
    })
}

/// Appends a page's rows; those that the page before had are passed over.
fn take(state: &mut State, page: Page, file: &mut File) -> std::io::Result<()> {
    let before: HashSet<&String> = state.last_page.iter().collect();
    let mut digests = Vec::with_capacity(page.records.len());
    let mut text = Vec::new();
    let (mut rows, mut repeated) = (0, 0);
    for record in page.records {
        let digest = hex::encode(Sha256::digest(record.as_bytes()));
        if before.contains(&digest) {
            repeated += 1;
        } else {
            text.extend_from_slice(record.as_bytes());
            text.push(b'\n');
            rows += 1;
        }
        digests.push(digest);
    }
    file.write_all(&text)?;
    state.rows += rows;
    state.repeated += repeated;
    state.size_bytes += text.len() as u64;
    state.pages += 1;
    state.cursor = page.next;
    state.last_page = digests;
    Ok(())
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn read_state(path: &Path) -> Result<State> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(State { kind: TYPE.into(), ..State::default() });
        }
        Err(source) => return Err(Error::Io { action: "read", path: path.to_owned(), source }),
    };
    let malformed =
        |what| Error::Malformed { input: path.display().to_string(), place: "state".into(), what };
    let state: State = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
    if state.kind == TYPE {
        Ok(state)
    } else {
        Err(malformed(format!("expected {TYPE}, found {:?}", state.kind)))
    }
}

/// Replaces the state in one step.
fn write_state(path: &Path, state: &State) -> Result<()> {
    let staging = with_ending(path, ".tmp");
    let io = |source| Error::Io { action: "write", path: staging.clone(), source };
    let text =
        serde_json::to_vec(state).map_err(|error| Error::InvalidInput(format!("the state: {error}")))?;
    let mut file = File::create(&staging).map_err(io)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(io)?;
    std::fs::rename(&staging, path).map_err(io)?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| Error::Io { action: "sync", path: folder.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_an_array_or_an_object_with_one() {
        let page = |text: &str| Page::parse("p", text.as_bytes());
        let records = |page: Page| page.records;
        assert_eq!(records(page("[{\"a\": 1.0},{}]").unwrap()), ["{\"a\": 1.0}", "{}"]);
        let found = page("{\"page\":0,\"events\":[{\"a\":\n\"x\\ny\"}],\"next_cursor\":\"c2\"}").unwrap();
        assert_eq!((found.records, found.next.as_deref()), (vec!["{\"a\": \"x\\ny\"}".into()], Some("c2")));
        assert_eq!(page("{\"events\":[],\"next\":7}").unwrap().next.as_deref(), Some("7"));
        for last in ["null", "\"\"", "false"] {
            assert_eq!(page(&format!("{{\"e\":[],\"next_cursor\":{last}}}")).unwrap().next, None);
        }
        for wrong in ["", "{}", "7", "[1]", "{\"a\":[{}],\"b\":[{}]}", "{\"a\":[{}]", "nope"] {
            assert!(matches!(page(wrong), Err(Error::Malformed { .. })), "{wrong}");
        }
    }
}
