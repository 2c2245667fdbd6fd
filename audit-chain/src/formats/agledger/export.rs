//! Writes a dump directory from any row sources, and checks one against its summary.
//!
//! ```text
//! audit_vault.ndjson, vault_checkpoints.ndjson, vault_signing_keys.ndjson, org_admin_reads.ndjson,
//! org_admin_reads_checkpoints.ndjson, and vault_key_statements.ndjson where the source has that table
//! dump-summary.json   {"format":"agledger-dump","version":1,"counts":{table: rows},
//!                      "files":[{"name","rows","size_bytes","sha256"}]}
//! ```
//!
//! One compact JSON object per line, LF, members in the producer's order and unknown ones behind them, every value as it
//! came; rows in the order of their source. All is written to a directory beside the target, synced, and renamed: the target
//! is not there or is whole, whenever the process dies; what a killed process leaves is a hidden directory `.NAME.*`.
//! The summary is the closing line: a file that was cut afterwards is told from a short one. Nothing is overwritten.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::checkpoints::CHECKPOINTS;
use super::entries::{self, VAULT};
use super::reads::{HEADS, READS};
use super::registry::KEYS;
use super::statements::STATEMENTS;
use crate::canonical::{push_string, push_value};
use crate::error::{Error, Result};
use crate::format::Tables;
use crate::source::RowSource;
use crate::value::{Columns, Value};

/// The name of the summary in a dump directory.
pub const SUMMARY: &str = "dump-summary.json";

/// What the summary says it is.
const FORMAT: &str = "agledger-dump";

/// The tables in the order in which they are written; the last may be missing.
const TABLES: [&str; 6] = [VAULT, CHECKPOINTS, KEYS, READS, HEADS, STATEMENTS];

/// One file of a dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpFile {
    /// The file's name in the directory.
    pub name: String,
    /// How many rows.
    pub rows: u64,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// SHA-256 of its bytes, lower-case hex.
    pub sha256: String,
}

/// What a dump holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpSummary {
    /// `agledger-dump`.
    pub format: String,
    /// The summary's version, 1.
    pub version: u32,
    /// How many rows each table has.
    pub counts: BTreeMap<String, u64>,
    /// The files.
    pub files: Vec<DumpFile>,
}

/// Writes a dump to `directory`, which must not exist; its parent must.
///
/// # Errors
/// [`Error::InvalidInput`] when a table is missing or the directory has no name; [`Error::Io`] when something stands at the
/// target or cannot be written; what a source says; [`Error::Cancelled`]. Nothing is left behind.
pub fn write_dump(directory: &Path, tables: &Tables<'_>, cancel: Option<&AtomicBool>) -> Result<DumpSummary> {
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action: "write", path: path.clone(), source }
    };
    let missing: Vec<&str> =
        TABLES.into_iter().filter(|table| *table != STATEMENTS && !tables.contains_key(*table)).collect();
    if !missing.is_empty() {
        return Err(Error::InvalidInput(format!("a dump needs the tables {}", missing.join(", "))));
    }
    let name = directory.file_name().ok_or_else(|| {
        Error::InvalidInput(format!("{}: a dump directory has a name", directory.display()))
    })?;
    if directory.symlink_metadata().is_ok() {
        return Err(write(directory)(std::io::ErrorKind::AlreadyExists.into()));
    }
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let staging = tempfile::Builder::new()
        .prefix(&format!(".{}.", name.to_string_lossy()))
        .tempdir_in(parent)
        .map_err(write(parent))?;
    let mut summary =
        DumpSummary { format: FORMAT.into(), version: 1, counts: BTreeMap::new(), files: Vec::new() };
    for table in TABLES {
        let Some(source) = tables.get(table) else { continue };
        let file = write_table(staging.path(), table, source.as_ref(), cancel)?;
        summary.counts.insert(table.to_owned(), file.rows);
        summary.files.push(file);
    }
    let text = serde_json::to_vec_pretty(&summary)
        .map_err(|error| Error::InvalidInput(format!("the summary: {error}")))?;
    let path = staging.path().join(SUMMARY);
    let mut file = File::create_new(&path).map_err(write(&path))?;
    file.write_all(&text)
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .map_err(write(&path))?;
    sync_directory(staging.path()).map_err(write(staging.path()))?;
    std::fs::rename(staging.path(), directory).map_err(write(directory))?;
    // It has another name now; there is nothing to remove.
    let _ = staging.keep();
    sync_directory(parent).map_err(write(parent))?;
    Ok(summary)
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Counts and hashes what is written through it.
struct Counted<W> {
    inner: W,
    size: u64,
    digest: Sha256,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or(&[]));
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Writes one file.
fn write_table(
    directory: &Path,
    table: &str,
    source: &dyn RowSource,
    cancel: Option<&AtomicBool>,
) -> Result<DumpFile> {
    let name = format!("{table}.ndjson");
    let path = directory.join(&name);
    let failed = |source| Error::Io { action: "write", path: path.clone(), source };
    let file = File::create_new(&path).map_err(failed)?;
    let mut out =
        BufWriter::with_capacity(256 << 10, Counted { inner: file, size: 0, digest: Sha256::new() });
    let order = member_order(table, source.columns());
    let (mut rows, mut line) = (0_u64, Vec::new());
    let mut reader = source.reader()?;
    while reader
        .read_chunk(&mut |row| {
            if cancel.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return Err(Error::Cancelled);
            }
            line.clear();
            line.push(b'{');
            let columns = order.iter().map(|(name, at)| (name.as_str(), row.at(Some(*at))));
            for (name, value) in columns.chain(row.extra.iter().copied()) {
                if value == Value::Absent {
                    continue;
                }
                if line.len() > 1 {
                    line.push(b',');
                }
                push_string(&mut line, name);
                line.push(b':');
                push_value(&mut line, value);
            }
            line.extend_from_slice(b"}\n");
            rows += 1;
            out.write_all(&line).map_err(failed)
        })?
        .is_some()
    {}
    let counted = out.into_inner().map_err(|error| failed(error.into_error()))?;
    counted.inner.sync_all().map_err(failed)?;
    Ok(DumpFile { name, rows, size_bytes: counted.size, sha256: hex::encode(counted.digest.finalize()) })
}

/// Orders the columns as the producer does: the vault's by the specification, others as the source has them.
fn member_order(table: &str, columns: &Columns) -> Vec<(String, usize)> {
    let mut order: Vec<(String, usize)> =
        columns.names().iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
    if table == VAULT {
        let rank = |name: &str| entries::COLUMNS.iter().position(|known| *known == name);
        order.sort_by_key(|(name, _)| rank(name).unwrap_or(usize::MAX));
    }
    order
}

/// Checks the files of a dump against the summary in it.
///
/// # Errors
/// [`Error::Io`] when a file cannot be read; [`Error::Malformed`] when the summary is none;
/// [`Error::Unverified`] when a file is not what the summary says.
pub fn check_dump(directory: &Path) -> Result<DumpSummary> {
    let read = |path: &Path| {
        let path = PathBuf::from(path);
        move |source| Error::Io { action: "read", path: path.clone(), source }
    };
    let path = directory.join(SUMMARY);
    let malformed = |what: String| Error::Malformed {
        input: path.display().to_string(),
        place: "the summary".into(),
        what,
    };
    let text = std::fs::read(&path).map_err(read(&path))?;
    let summary: DumpSummary = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
    if summary.format != FORMAT || summary.version != 1 {
        return Err(malformed(format!(
            "expected {FORMAT} version 1, found {} version {}",
            summary.format, summary.version
        )));
    }
    for file in &summary.files {
        if !TABLES.iter().any(|table| file.name == format!("{table}.ndjson")) {
            return Err(malformed(format!("{:?} is no file of a dump", file.name)));
        }
        let path = directory.join(&file.name);
        let mut input = File::open(&path).map_err(read(&path))?;
        let (mut digest, mut size, mut buffer) = (Sha256::new(), 0_u64, vec![0; 256 << 10]);
        loop {
            let count = input.read(&mut buffer).map_err(read(&path))?;
            if count == 0 {
                break;
            }
            digest.update(buffer.get(..count).unwrap_or(&[]));
            size += count as u64;
        }
        let found = hex::encode(digest.finalize());
        if size != file.size_bytes || found != file.sha256 {
            return Err(Error::Unverified {
                what: path.display().to_string(),
                why: format!(
                    "expected {} bytes with SHA-256 {}, found {size} bytes with {found}",
                    file.size_bytes, file.sha256
                ),
            });
        }
    }
    Ok(summary)
}
