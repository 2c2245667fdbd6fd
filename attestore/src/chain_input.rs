//! Opens an INPUT as rows of a chain: a table, a file with the sidecar beside it, the segments of an incremental export, pages.
//!
//! Called by [`crate::chain`] (verify), [`crate::chain_export`] and [`crate::chain_prune`]. A backend's table goes in here as
//! one more [`RowSource`] with the small tables of the same instant.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Cursor, Read as _};
use std::path::{Path, PathBuf};

use audit_chain::csv_rows::{CsvOptions, CsvSource};
use audit_chain::export::series::segment_of;
use audit_chain::export::sidecar::Sidecar;
use audit_chain::export::slice::Starts;
use audit_chain::export::text::RowShape;
use audit_chain::format::{ChainFormat, Companions};
use audit_chain::joined::Joined;
use audit_chain::json_rows::{JsonSource, NdjsonSource};
use audit_chain::report::{Finding, FindingKind};
use audit_chain::sniff::{self, TextKind};
use audit_chain::source::RowSource;
use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use backup_sqlite::table::{ChainTable, TableOptions};
use sha2::{Digest as _, Sha256};

use crate::chain::{Stdin, read_document};
use crate::input::Input;
use crate::postgres::{PostgresOptions, Server};

/// How much of standard input is looked at to tell what it is, in bytes (64 KiB).
const BEGINNING_BYTES: usize = 64 << 10;

/// How much of a file is looked at to say what it is, in bytes (64 KiB).
const BLOCK_BYTES: u64 = 64 << 10;

/// Rows of a chain with what belongs to them.
pub struct ChainRows {
    /// The rows.
    pub rows: Box<dyn RowSource>,
    /// The small tables that the format reads besides.
    pub companions: Companions,
    /// Where runs of a filtered export begin.
    pub starts: Starts,
    /// The file and the document beside it, where the input is an export.
    pub sidecar: Option<(PathBuf, Sidecar)>,
    /// What is wrong with the input as a whole: a segment that is missing.
    pub findings: Vec<Finding>,
}

impl std::fmt::Debug for ChainRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainRows").field("rows", &self.rows.name()).finish_non_exhaustive()
    }
}

impl ChainRows {
    fn of(rows: impl RowSource + 'static) -> Self {
        Self {
            rows: Box::new(rows),
            companions: Companions::new(),
            starts: Starts::new(),
            sidecar: None,
            findings: Vec::new(),
        }
    }
}

/// Opens an input. A SQLite table is read in one transaction, which lasts as long as the value.
///
/// # Errors
/// When it cannot be read, or is no input of this format.
pub fn open(
    input: &Input,
    format: &dyn ChainFormat,
    table: Option<&str>,
    postgres: &PostgresOptions,
    ctx: &Context,
) -> Result<ChainRows> {
    match input {
        Input::Stdin => open_stdin(format, ctx),
        Input::Json(path) => open_export(path, RowShape::Json, format),
        Input::Ndjson(path) => open_export(path, RowShape::Ndjson, format),
        Input::Csv(path) => open_export(path, RowShape::Csv, format),
        Input::Dump(path) => open_folder(path, format),
        Input::Sqlite(path) => {
            open_table(path, format, table, false, ctx).map_err(|error| explain(error, path))
        }
        Input::Postgres(server) => open_server(server, postgres, format, table, ctx),
    }
}

/// Opens an input as [`open`] does, and of a SQLite table also the values that its records only commit to: to verify
/// them. They are no part of the chain's rows, and of no export.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_with_values(
    input: &Input,
    format: &dyn ChainFormat,
    table: Option<&str>,
    postgres: &PostgresOptions,
    ctx: &Context,
) -> Result<ChainRows> {
    match input {
        Input::Sqlite(path) => {
            open_table(path, format, table, true, ctx).map_err(|error| explain(error, path))
        }
        other => open(other, format, table, postgres, ctx),
    }
}

/// Opens a table of a server, in one snapshot that lasts as long as the value.
fn open_server(
    server: &Server,
    options: &PostgresOptions,
    format: &dyn ChainFormat,
    table: Option<&str>,
    ctx: &Context,
) -> Result<ChainRows> {
    #[cfg(feature = "postgres")]
    {
        let rows = crate::postgres::open_chain(server, options, format, table, ctx)?;
        let companions = rows.companions().clone();
        Ok(ChainRows { companions, ..ChainRows::of(rows) })
    }
    #[cfg(not(feature = "postgres"))]
    {
        let _ = (server, options, format, table, ctx);
        Err(crate::postgres::absent())
    }
}

/// Opens what standard input brings: NDJSON, a JSON document or CSV, told by how it begins.
fn open_stdin(format: &dyn ChainFormat, ctx: &Context) -> Result<ChainRows> {
    let failed = |source| Error::io("read", "-", source);
    let mut input = Stdin { ctx: ctx.clone() };
    let mut beginning = Vec::new();
    // A pipe gives what there is: it is read until a line of text tells, or all is there.
    while beginning.len() < BEGINNING_BYTES && sniff::kind_of(&beginning).is_none() {
        let from = beginning.len();
        beginning.resize(BEGINNING_BYTES, 0);
        let read = input.read(beginning.get_mut(from..).unwrap_or_default()).map_err(failed)?;
        beginning.truncate(from + read);
        if read == 0 {
            break;
        }
    }
    let kind = sniff::kind_of(&beginning);
    let input = Cursor::new(beginning).chain(input);
    Ok(match kind {
        Some(TextKind::Json) => ChainRows::of(JsonSource::once("-", input)?),
        Some(TextKind::Csv) => ChainRows::of(CsvSource::once("-", csv_options(format), input)?),
        Some(TextKind::Ndjson) | None => ChainRows::of(NdjsonSource::once("-", input)?),
    })
}

/// Returns how CSV of a format is read.
fn csv_options(format: &dyn ChainFormat) -> CsvOptions {
    let integers = format.integers().iter().map(|name| (*name).to_owned()).collect();
    CsvOptions { integers, ..CsvOptions::default() }
}

/// Says what a file is that is no database, where its beginning tells.
pub(crate) fn explain(error: Error, path: &Path) -> Error {
    // What is encrypted, or looks so, is not known to be none.
    if !matches!(error.kind(), ErrorKind::Malformed | ErrorKind::KeyRejected) {
        return error;
    }
    // No database: so no lock of SQLite's is lost when the file is closed.
    let mut beginning = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BLOCK_BYTES).read_to_end(&mut beginning));
    match read.ok().and_then(|_| sniff::other_than("a SQLite database", &beginning)) {
        Some(what) if !beginning.starts_with(b"SQLite format 3\0") => {
            Error::new(ErrorKind::Malformed, format!("{}: {what}", path.display()))
        }
        _ => error,
    }
}

/// Opens the table of a SQLite database, in one transaction; with the `values` that its records only commit to, or without.
fn open_table(
    path: &Path,
    format: &dyn ChainFormat,
    table: Option<&str>,
    values: bool,
    ctx: &Context,
) -> Result<ChainRows> {
    let table = table.unwrap_or_else(|| format.table());
    let mut options = TableOptions::of_format(format, table);
    if !values {
        options.values = None;
    }
    let rows = ChainTable::open_live(path, table, &options, ctx)?;
    let companions = rows.companions().clone();
    Ok(ChainRows { companions, ..ChainRows::of(rows) })
}

/// Opens a file of rows, and takes from the document beside it what it says of them.
fn open_export(path: &Path, shape: RowShape, format: &dyn ChainFormat) -> Result<ChainRows> {
    let sidecar =
        read_sidecar(path)?.filter(|sidecar| sidecar.format == format.name() && sidecar.shape == shape);
    let rows = open_rows(path, shape, format, sidecar.as_ref())?;
    let (starts, companions) =
        sidecar.as_ref().map(|sidecar| (sidecar.starts(), sidecar.companions.clone())).unwrap_or_default();
    let sidecar = sidecar.map(|sidecar| (path.to_owned(), sidecar));
    Ok(ChainRows { rows, companions, starts, sidecar, findings: Vec::new() })
}

/// Opens the rows of a file.
pub(crate) fn open_rows(
    path: &Path,
    shape: RowShape,
    format: &dyn ChainFormat,
    sidecar: Option<&Sidecar>,
) -> Result<Box<dyn RowSource>> {
    match shape {
        RowShape::Ndjson => return Ok(Box::new(NdjsonSource::open(path)?)),
        RowShape::Json => return Ok(Box::new(JsonSource::open(path)?)),
        RowShape::Csv => {}
    }
    let options = match sidecar {
        Some(sidecar) => CsvOptions { literals: sidecar.literals.clone(), ..CsvOptions::default() },
        None => csv_options(format),
    };
    Ok(Box::new(CsvSource::open(path, options)?))
}

/// Puts rows behind files of older ones, as one source.
///
/// # Errors
/// When a file cannot be read, or is neither NDJSON nor CSV.
pub fn behind_archives(
    source: ChainRows,
    archives: &[PathBuf],
    format: &dyn ChainFormat,
) -> Result<ChainRows> {
    let name = source.rows.name();
    let mut parts: Vec<Box<dyn RowSource>> = Vec::with_capacity(archives.len() + 1);
    let mut starts = Starts::new();
    let (mut seen, mut told) = (BTreeSet::new(), true);
    for path in archives {
        let input = Input::parse(&path.display().to_string())?;
        let shape = match &input {
            Input::Ndjson(_) => RowShape::Ndjson,
            Input::Csv(_) => RowShape::Csv,
            _ => {
                let message = format!("{}: an archive is a .ndjson or .csv file", path.display());
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
        };
        let archive = open_export(path, shape, format)?;
        // Only what comes first begins the whole; what a file holds, only the document beside it says.
        let held = archive.sidecar.as_ref().map(|(_, sidecar)| &sidecar.chains);
        for chain in held.into_iter().flatten().filter(|_| told) {
            if seen.insert(chain.id.clone()) && !chain.starts.is_empty() {
                starts.insert(chain.id.clone(), chain.starts.clone());
            }
        }
        told &= held.is_some();
        parts.push(archive.rows);
    }
    parts.push(source.rows);
    Ok(ChainRows { starts, findings: source.findings, ..ChainRows::of(Joined::new(name, parts)) })
}

/// Returns the path of the document beside an export.
#[must_use]
pub fn sidecar_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

/// Reads the document beside an export; `None` when there is none.
pub(crate) fn read_sidecar(path: &Path) -> Result<Option<Sidecar>> {
    let beside = sidecar_path(path);
    match read_document(&beside) {
        Ok(text) => Ok(Sidecar::parse(&beside.display().to_string(), &text)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the SHA-256 of a file, lowercase hex, and its size in bytes.
pub(crate) fn digest_file(path: &Path, ctx: &Context) -> Result<(String, u64)> {
    let failed = |error| Error::io("read", path, error);
    let mut file = File::open(path).map_err(failed)?;
    let (mut digest, mut size, mut buffer) = (Sha256::new(), 0_u64, vec![0; 1 << 20]);
    loop {
        ctx.check()?;
        let read = file.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            return Ok((hex::encode(digest.finalize()), size));
        }
        digest.update(buffer.get(..read).unwrap_or_default());
        size += read as u64;
    }
}

/// One segment of an incremental export.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) first_row: u64,
    pub(crate) shape: RowShape,
}

/// Lists the segments in a folder, the oldest first.
pub(crate) fn segments(folder: &Path) -> Result<Vec<Segment>> {
    let failed = |error| Error::io("read", folder, error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if let Some((first_row, shape)) = entry.file_name().to_str().and_then(segment_of) {
            found.push(Segment { path: entry.path(), first_row, shape });
        }
    }
    found.sort_by_key(|segment| segment.first_row);
    Ok(found)
}

/// Opens the rows of segments as one source.
pub(crate) fn open_segments(
    folder: &Path,
    segments: &[Segment],
    format: &dyn ChainFormat,
) -> Result<Joined<'static>> {
    let mut sources = Vec::with_capacity(segments.len());
    for segment in segments {
        let sidecar = read_sidecar(&segment.path)?;
        sources.push(open_rows(&segment.path, segment.shape, format, sidecar.as_ref())?);
    }
    Ok(Joined::new(folder.display().to_string(), sources))
}

/// Opens a folder: segments of an incremental export, or the pages of a service as JSON files.
fn open_folder(folder: &Path, format: &dyn ChainFormat) -> Result<ChainRows> {
    let segments = segments(folder)?;
    if segments.is_empty() {
        let pages = crate::chain_pages::page_files(folder)?;
        if !pages.is_empty() {
            let findings = crate::chain_pages::unread(&pages)?.into_iter().collect();
            let rows = crate::chain_pages::open_pages(folder, &pages)?;
            return Ok(ChainRows { findings, ..ChainRows::of(rows) });
        }
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{}: the format {} is not read from a folder", folder.display(), format.name()),
        )
        .with_hint("give the SQLite file, its rows as NDJSON, CSV or a JSON array, or a folder of export segments or JSON pages"));
    }
    let rows = open_segments(folder, &segments, format)?;
    let (starts, findings) = follow(&segments)?;
    Ok(ChainRows { starts, findings, ..ChainRows::of(rows) })
}

/// Says whether segments follow each other, and where the first of them begins.
fn follow(segments: &[Segment]) -> Result<(Starts, Vec<Finding>)> {
    let mut findings = Vec::new();
    let mut starts = Starts::new();
    let mut before: Option<(u64, Sidecar)> = None;
    for (at, segment) in segments.iter().enumerate() {
        let name = segment.path.display().to_string();
        let mut report = |kind, expected: String, found: String, explains: &str| {
            findings.push(Finding {
                kind,
                chain: String::new(),
                position: None,
                last: None,
                record: Some(name.clone()),
                expected: Some(expected),
                found: Some(found),
                explains: explains.to_owned(),
            });
        };
        let Some(sidecar) = read_sidecar(&segment.path)? else {
            report(
                FindingKind::Missing,
                sidecar_path(&segment.path).display().to_string(),
                "no such file".into(),
                "the document beside a segment is gone: whether the segment is whole, nothing says",
            );
            before = None;
            continue;
        };
        match &before {
            None if at == 0 => starts.extend(sidecar.starts()),
            None => {}
            Some((next, last)) => {
                if segment.first_row != *next {
                    report(
                        FindingKind::Missing,
                        format!("a segment that begins at row {next}"),
                        format!("one that begins at row {}", segment.first_row),
                        "segments of the export are gone, or overlap",
                    );
                } else if sidecar.segment.as_ref().is_none_or(|place| {
                    place.previous_sha256 != last.sha256
                        || last.segment.as_ref().is_some_and(|last| last.series != place.series)
                }) {
                    report(
                        FindingKind::CheckpointMismatch,
                        format!("a segment that follows the one with SHA-256 {}", last.sha256),
                        sidecar
                            .segment
                            .as_ref()
                            .map_or_else(String::new, |place| place.previous_sha256.clone()),
                        "the segment does not follow the one before it: one of them was replaced",
                    );
                }
            }
        }
        let (sha256, size_bytes) = digest_file(&segment.path, &Context::new())?;
        if sha256 != sidecar.sha256 {
            report(
                FindingKind::CheckpointMismatch,
                format!("{} bytes with SHA-256 {}", sidecar.size_bytes, sidecar.sha256),
                format!("{size_bytes} bytes with SHA-256 {sha256}"),
                "the segment is not, byte for byte, the one that was exported",
            );
        }
        before = Some((segment.first_row + sidecar.rows, sidecar));
    }
    Ok((starts, findings))
}
