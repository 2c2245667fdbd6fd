//! `chain export`: the rows of a chain as files that verify by themselves, at once or as a series of segments.
//!
//! Called by the command line and the bindings; rows come from [`crate::chain_input`], their text from `audit_chain::export`.
//! On disk (docs/format/export.md):
//!
//! ```text
//! OUT                                  the rows, NDJSON or CSV
//! OUT.json                             the sidecar: counts, digest, where each chain begins and ends
//! DIR/rows-000000000001.ndjson[.json]  segments of a series and their sidecars, named by their first row
//! FILE                                 the watermark of the series
//! ```
//!
//! A file is written under `.NAME.<16 hex>.part`, synced, verified by reading it back, and renamed; its sidecar stands before it
//! does. Of a series the watermark is replaced last: when the process dies before, the segment of the next row is not
//! committed, and the next run puts another in its place. Nothing that is committed is ever overwritten.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit_chain::export::each_record;
use audit_chain::export::series::{self, LastSegment, Progress as SeriesProgress, Watermark, segment_of};
use audit_chain::export::sidecar::{FilterText, SegmentPlace, Sidecar, SidecarChain, TYPE};
use audit_chain::export::slice::{SliceFilter, Slicer, StartNotes, Starts};
use audit_chain::export::text::{RowShape, RowText};
use audit_chain::format::{ChainFormat, Companions};
use audit_chain::formats::agledger::{AgledgerDump, write_dump};
use audit_chain::keys::KeyRing;
use audit_chain::report::{ChainReport, Finding, Verdict};
use audit_chain::verify::{VerifyOptions, verify};
use backup_core::context::{Context, Progress};
use backup_core::durable::{Durable, DurableFile, PRIVATE_DIR, PRIVATE_FILE, staging_name};
use backup_core::error::{Error, ErrorKind, Result};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::chain;
use crate::chain_input::{self, ChainRows, open_rows, sidecar_path};
use crate::input::Input;
use crate::postgres::PostgresOptions;

/// The ending of files that are not finished.
const PART: &str = "part";

/// How many rows are written between two looks at the progress callback.
const TOLD_EVERY: u64 = 16_384;

/// What is exported, and how.
#[derive(Debug, Clone, Default)]
pub struct ExportOptions {
    /// A format's name, or the path of a profile.
    pub format: String,
    /// The table, where it is not the format's own.
    pub table: Option<String>,
    /// Secrets and public keys at hand, for the verdict of the export; an export needs none.
    pub keys: KeyRing,
    /// How rows are written; where `None`, as the ending of the file says, else NDJSON.
    pub shape: Option<RowShape>,
    /// The first instant: RFC 3339, or a date.
    pub from: Option<String>,
    /// The instant that is no more part of it.
    pub to: Option<String>,
    /// The chains; empty for all.
    pub chains: Vec<String>,
    /// The watermark of a series; the target is then the folder of its segments.
    pub watermark: Option<PathBuf>,
    /// How many threads verify what was written; 0 means one per core.
    pub threads: usize,
    /// How a PostgreSQL server is reached.
    pub postgres: PostgresOptions,
}

/// What an export made.
#[derive(Debug, Clone, Serialize)]
pub struct ExportOutcome {
    /// The file, or the folder.
    pub path: PathBuf,
    /// The size of what was written, in bytes.
    pub size_bytes: u64,
    /// How many rows were written.
    pub rows: u64,
    /// SHA-256 of the file; of a series, of the segment. Absent where nothing was written, or a folder.
    pub sha256: Option<String>,
    /// The format.
    pub format: String,
    /// How rows are written.
    #[serde(rename = "as")]
    pub shape: RowShape,
    /// The chains in what was written.
    pub chains: Vec<SidecarChain>,
    /// How many rows the filters left out.
    pub left_out: u64,
    /// The document beside the file.
    pub sidecar: Option<PathBuf>,
    /// The watermark, after the run.
    pub watermark: Option<PathBuf>,
    /// The segment that was written.
    pub segment: Option<PathBuf>,
    /// The rows of each table of a dump.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u64>,
    /// What a verification of the export says, with the keys at hand.
    pub verdict: Option<Verdict>,
    /// The one sentence of that verification.
    pub diagnosis: Option<String>,
    /// Why nothing was exported: what was exported before was changed since.
    pub findings: Vec<Finding>,
    /// What is worth saying.
    pub notes: Vec<String>,
}

/// Exports the rows of a chain.
///
/// # Errors
/// `AlreadyExists` when something stands at the target; `InvalidInput` for options that do not go together; what the
/// source or the system says. Nothing is left behind but what a killed process leaves: a hidden `.NAME.*.part`.
pub fn export_chain(
    input: &Input,
    out: &Path,
    options: &ExportOptions,
    ctx: &Context,
) -> Result<ExportOutcome> {
    let format = chain::format(&options.format)?;
    let filter = filter(options)?;
    if format.name() == "agledger" {
        return export_dump(input, out, options, &filter, ctx);
    }
    if let Some(watermark) = &options.watermark {
        if !filter.is_all() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a watermark with a filter: a series holds every row, so that none is passed over",
            )
            .with_hint("leave out --from, --to and --chain, or export without --watermark"));
        }
        let _lock = lock_folder(out)?;
        let source =
            chain_input::open(input, format.as_ref(), options.table.as_deref(), &options.postgres, ctx)?;
        return Series { format, out, watermark, options, ctx }.run(&source);
    }
    if out.symlink_metadata().is_ok() {
        return Err(exists(out));
    }
    let beside = sidecar_path(out);
    let left = free_sidecar(&beside)?;
    let source = chain_input::open(input, format.as_ref(), options.table.as_deref(), &options.postgres, ctx)?;
    let shape = options.shape.unwrap_or_else(|| shape_of(out));
    let mut slicer = Slicer::new(filter.clone(), time_place(format.as_ref(), &source))?;
    let mut writer = Writer::new(out, shape, &source, (&[], &[]))?;
    each_record(source.rows.as_ref(), format.as_ref(), Some(ctx.cancel().flag()), &mut |row, record| {
        if slicer.wants(row, record) { writer.row(row, ctx) } else { Ok(()) }
    })
    .map_err(chain_error)?;
    let (starts, left_out) = slicer.finish();
    let (file, mut sidecar) = writer.finish(out, format.name())?;
    sidecar.filter = (!filter.is_all()).then(|| FilterText {
        from: options.from.clone(),
        to: options.to.clone(),
        chains: filter.chains.clone(),
        left_out,
    });
    if filter.is_all() {
        sidecar.companions = companions_read(format.as_ref(), &source.companions);
    }
    let report = read_back(file.path(), &sidecar, &starts, format.as_ref(), options, ctx)?;
    sidecar.take_chains(&report, &starts);
    let durable = Durable::new();
    if left {
        durable.remove_file(&beside)?;
    }
    write_sidecar(&durable, &beside, &sidecar)?;
    file.finish_renamed(out).inspect_err(|_| {
        let _ = std::fs::remove_file(&beside);
    })?;
    Ok(ExportOutcome { left_out, sidecar: Some(beside), ..outcome(out, sidecar, &report) })
}

/// Makes the filter of the options.
fn filter(options: &ExportOptions) -> Result<SliceFilter> {
    let time = |text: &Option<String>| text.as_deref().map(SliceFilter::parse_time).transpose();
    Ok(SliceFilter {
        from: time(&options.from)?,
        to: time(&options.to)?,
        chains: options.chains.iter().cloned().collect(),
    })
}

fn exists(out: &Path) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{} exists", out.display()))
        .with_hint("an export never overwrites: choose another name, or move it away")
}

/// Reports whether the document of an export that was never finished is in the way; what else stands there is not touched.
fn free_sidecar(beside: &Path) -> Result<bool> {
    if beside.symlink_metadata().is_err() {
        return Ok(false);
    }
    let text = chain::read_document(beside)?;
    match Sidecar::parse(&beside.display().to_string(), &text)? {
        Some(_) => Ok(true),
        None => Err(exists(beside)),
    }
}

fn shape_of(out: &Path) -> RowShape {
    let csv = out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv"));
    if csv { RowShape::Csv } else { RowShape::Ndjson }
}

fn time_place(format: &dyn ChainFormat, source: &ChainRows) -> Option<usize> {
    source.rows.columns().position(format.time_column()?)
}

/// Keeps the rows of small tables that the format reads.
fn companions_read(format: &dyn ChainFormat, companions: &Companions) -> Companions {
    let kept = |(table, rows): (&String, &Vec<_>)| {
        let rows = rows.iter().filter(|row| format.reads_companion(table, row)).cloned().collect();
        (table.clone(), rows)
    };
    companions.iter().map(kept).collect()
}

fn chain_error(error: audit_chain::error::Error) -> Error {
    match error {
        audit_chain::error::Error::Cancelled => Error::Cancelled,
        other => Error::Chain(other),
    }
}

/// Verifies what was written, from the file.
fn read_back(
    path: &Path,
    sidecar: &Sidecar,
    starts: &Starts,
    format: &dyn ChainFormat,
    options: &ExportOptions,
    ctx: &Context,
) -> Result<ChainReport> {
    let rows = open_rows(path, sidecar.shape, format, Some(sidecar))?;
    let told = |done| {
        ctx.progress(Progress {
            stage: "read back",
            object: "",
            done,
            total: Some(sidecar.rows),
            unit: "rows",
        });
    };
    let verify_options = VerifyOptions {
        threads: options.threads,
        companions: Some(&sidecar.companions),
        starts: Some(starts),
        max_chains: usize::MAX,
        cancel: Some(ctx.cancel().flag()),
        progress: Some(&told),
        ..VerifyOptions::default()
    };
    let report = verify(rows.as_ref(), format, &options.keys, &verify_options).map_err(chain_error)?;
    if report.records != sidecar.rows {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "{}: {} rows were written, {} are read back",
                path.display(),
                sidecar.rows,
                report.records
            ),
        ));
    }
    Ok(report)
}

fn write_sidecar(durable: &Durable, path: &Path, sidecar: &Sidecar) -> Result<()> {
    durable.write_new(path, &json(sidecar)?, PRIVATE_FILE)
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::new(ErrorKind::Internal, format!("cannot write JSON: {error}")))?;
    text.push(b'\n');
    Ok(text)
}

fn outcome(path: &Path, sidecar: Sidecar, report: &ChainReport) -> ExportOutcome {
    ExportOutcome {
        path: path.to_owned(),
        size_bytes: sidecar.size_bytes,
        rows: sidecar.rows,
        sha256: Some(sidecar.sha256),
        format: sidecar.format,
        shape: sidecar.shape,
        chains: sidecar.chains,
        left_out: 0,
        sidecar: None,
        watermark: None,
        segment: None,
        counts: BTreeMap::new(),
        verdict: Some(report.verdict),
        diagnosis: Some(report.diagnosis.clone()),
        findings: Vec::new(),
        notes: Vec::new(),
    }
}

/// Writes rows into a file that has no name yet.
struct Writer {
    text: RowText,
    shape: RowShape,
    file: BufWriter<DurableFile>,
    path: PathBuf,
    digest: Sha256,
    size: u64,
}

impl Writer {
    /// Creates the file beside `out`; `held` is what columns of CSV are known to hold (literals, texts).
    fn new(out: &Path, shape: RowShape, source: &ChainRows, held: (&[String], &[String])) -> Result<Self> {
        let path = staging_name(out, PART)?;
        let file = Durable::new().create_new(&path, PRIVATE_FILE)?;
        let mut text = RowText::new(shape, source.rows.name(), source.rows.columns());
        text.resume(held.0, held.1);
        let header = text.header();
        let file = BufWriter::with_capacity(1 << 20, file);
        let mut writer = Self { text, shape, file, path, digest: Sha256::new(), size: 0 };
        writer.put(&header).map_err(chain_error)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> audit_chain::error::Result<()> {
        self.file.write_all(bytes).map_err(|source| write_error(&self.path, source))?;
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn row(&mut self, row: &audit_chain::value::Row<'_>, ctx: &Context) -> audit_chain::error::Result<()> {
        let line = self.text.row(row)?;
        self.file.write_all(line).map_err(|source| write_error(&self.path, source))?;
        self.digest.update(line);
        self.size += line.len() as u64;
        let rows = self.text.rows();
        if rows.is_multiple_of(TOLD_EVERY) {
            ctx.progress(Progress {
                stage: "export chain",
                object: "",
                done: rows,
                total: None,
                unit: "rows",
            });
        }
        Ok(())
    }

    /// Syncs the file and says what is in it; the file has its last name only when the caller renames it.
    fn finish(self, out: &Path, format: &str) -> Result<(DurableFile, Sidecar)> {
        let file =
            self.file.into_inner().map_err(|error| Error::io("write", &self.path, error.into_error()))?;
        file.sync()?;
        let sidecar = Sidecar {
            kind: TYPE.into(),
            attestore: env!("CARGO_PKG_VERSION").into(),
            format: format.to_owned(),
            shape: self.shape,
            file: out.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            rows: self.text.rows(),
            size_bytes: self.size,
            sha256: hex::encode(self.digest.finalize()),
            literals: self.text.literals(),
            texts: self.text.texts(),
            filter: None,
            segment: None,
            chains: Vec::new(),
            verdict: Verdict::CannotVerify,
            companions: Companions::new(),
        };
        Ok((file, sidecar))
    }
}

fn write_error(path: &Path, source: std::io::Error) -> audit_chain::error::Error {
    audit_chain::error::Error::Io { action: "write", path: path.to_owned(), source }
}

/// Makes the folder of a series where it is not there, and locks it; the lock ends with the process.
fn lock_folder(folder: &Path) -> Result<File> {
    if folder.symlink_metadata().is_err() {
        Durable::new().create_dir(folder, PRIVATE_DIR)?;
    }
    let handle = File::open(folder).map_err(|error| Error::io("open", folder, error))?;
    if !folder.is_dir() {
        return Err(exists(folder).with_hint("a series of segments needs a folder"));
    }
    match handle.try_lock() {
        Ok(()) => Ok(handle),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Locked,
            format!("{} is locked: another export writes there", folder.display()),
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(Error::io("lock", folder, error)),
    }
}

/// One run of a series.
struct Series<'a> {
    format: Arc<dyn ChainFormat>,
    out: &'a Path,
    watermark: &'a Path,
    options: &'a ExportOptions,
    ctx: &'a Context,
}

/// What one pass wrote.
struct Pass {
    writer: Writer,
    starts: Starts,
    done: series::Finished,
}

impl Series<'_> {
    fn run(&self, source: &ChainRows) -> Result<ExportOutcome> {
        let shape = self.options.shape.unwrap_or(RowShape::Ndjson);
        let durable = Durable::new();
        let mark = self.read_watermark(shape, &durable)?;
        self.sweep(&mark)?;
        let target = self.out.join(mark.next_name());
        let mut pass = self.pass(source, &mark, &target, SeriesProgress::new(self.format.as_ref(), &mark))?;
        if !pass.done.compare.is_empty() && pass.done.findings.is_empty() {
            let compared = self.compare(source, &mark, &pass.done.compare)?;
            drop(pass);
            match compared {
                Ok(progress) => pass = self.pass(source, &mark, &target, progress)?,
                Err(findings) => return Ok(self.refused(&mark, findings)),
            }
        }
        let Pass { writer, starts, done } = pass;
        if !done.findings.is_empty() {
            return Ok(self.refused(&mark, done.findings));
        }
        let mut next = Watermark { chains: done.chains, ..mark.clone() };
        if writer.text.rows() == 0 {
            if next != mark {
                durable.replace(self.watermark, &json(&next)?, PRIVATE_FILE)?;
            }
            return Ok(ExportOutcome { notes: done.notes, ..self.nothing(&mark) });
        }
        let rows = writer.text.rows();
        (next.literals, next.texts) = (writer.text.literals(), writer.text.texts());
        let (file, mut sidecar) = writer.finish(&target, self.format.name())?;
        sidecar.segment = Some(SegmentPlace {
            series: mark.series.clone(),
            number: mark.segments + 1,
            first_row: mark.rows + 1,
            previous_sha256: mark.last.as_ref().map(|last| last.sha256.clone()).unwrap_or_default(),
        });
        let report = read_back(file.path(), &sidecar, &starts, self.format.as_ref(), self.options, self.ctx)?;
        sidecar.take_chains(&report, &starts);
        let beside = sidecar_path(&target);
        // What stands at these names was never committed: no watermark counts it.
        for leftover in [&target, &beside] {
            if leftover.symlink_metadata().is_ok() {
                durable.remove_file(leftover)?;
            }
        }
        file.finish_renamed(&target)?;
        write_sidecar(&durable, &beside, &sidecar)?;
        next.rows += rows;
        next.segments += 1;
        next.last = Some(LastSegment {
            name: sidecar.file.clone(),
            rows,
            size_bytes: sidecar.size_bytes,
            sha256: sidecar.sha256.clone(),
        });
        durable.replace(self.watermark, &json(&next)?, PRIVATE_FILE)?;
        Ok(ExportOutcome {
            sidecar: Some(beside),
            watermark: Some(self.watermark.to_owned()),
            segment: Some(target),
            notes: done.notes,
            ..outcome(self.out, sidecar, &report)
        })
    }

    /// Reads the watermark, or begins a series: the first watermark stands before the first segment does.
    fn read_watermark(&self, shape: RowShape, durable: &Durable) -> Result<Watermark> {
        match chain::read_document(self.watermark) {
            Ok(text) => {
                let name = self.watermark.display().to_string();
                Ok(Watermark::parse(&name, &text, self.format.name(), shape)?)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !chain_input::segments(self.out)?.is_empty() {
                    return Err(Error::new(
                        ErrorKind::AlreadyExists,
                        format!(
                            "{} holds segments, but there is no watermark {}",
                            self.out.display(),
                            self.watermark.display()
                        ),
                    )
                    .with_hint("name the watermark of that series, or export into another folder"));
                }
                let mut random = [0_u8; 16];
                getrandom::fill(&mut random).map_err(|error| {
                    Error::new(ErrorKind::Unavailable, "the system gives no random bytes").with_source(error)
                })?;
                let mark = Watermark::new(self.format.name(), shape, hex::encode(random));
                durable.write_new(self.watermark, &json(&mark)?, PRIVATE_FILE)?;
                Ok(mark)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes what killed runs left, and refuses a folder that is ahead of its watermark by more than one segment.
    fn sweep(&self, mark: &Watermark) -> Result<()> {
        let failed = |error| Error::io("read", self.out, error);
        for entry in std::fs::read_dir(self.out).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(".rows-") && name.ends_with(".part") {
                std::fs::remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
            }
            if let Some((first_row, _)) = segment_of(&name)
                && first_row > mark.rows + 1
            {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!(
                        "{} begins behind row {}, where the watermark {} stands: the watermark is an older one, or of another series",
                        path.display(),
                        mark.rows,
                        self.watermark.display()
                    ),
                )
                .with_hint("put the series' own watermark back, or begin a new one in another folder"));
            }
        }
        Ok(())
    }

    /// Reads the source once and writes what is new.
    fn pass(
        &self,
        source: &ChainRows,
        mark: &Watermark,
        target: &Path,
        mut progress: SeriesProgress,
    ) -> Result<Pass> {
        let mut writer = Writer::new(target, mark.shape, source, (&mark.literals, &mark.texts))?;
        let mut starts = StartNotes::default();
        let cancel = Some(self.ctx.cancel().flag());
        each_record(source.rows.as_ref(), self.format.as_ref(), cancel, &mut |row, record| {
            let known = progress.is_known(record.chain);
            let new = progress.is_new(record)?;
            starts.see(record, new, known);
            if new { writer.row(row, self.ctx) } else { Ok(()) }
        })
        .map_err(chain_error)?;
        Ok(Pass { writer, starts: starts.finish(), done: progress.finish() })
    }

    /// Compares the rows that the Merkle root does not vouch for with the exported ones.
    fn compare(
        &self,
        source: &ChainRows,
        mark: &Watermark,
        chains: &[String],
    ) -> Result<Result<SeriesProgress, Vec<Finding>>> {
        let again = || {
            let message = format!(
                "{} can be read only once, and has to be compared with what was exported",
                source.rows.name()
            );
            Error::new(ErrorKind::Unsupported, message).with_hint("give the database or a file")
        };
        if !source.rows.rewind().map_err(chain_error)? {
            return Err(again());
        }
        let mut progress = SeriesProgress::new(self.format.as_ref(), mark);
        let mut segments = chain_input::segments(self.out)?;
        segments.retain(|segment| segment.first_row <= mark.rows);
        let rows: u64 = segments
            .iter()
            .map(|segment| Ok(chain_input::read_sidecar(&segment.path)?.map_or(0, |sidecar| sidecar.rows)))
            .sum::<Result<u64>>()?;
        if rows != mark.rows {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "rows before the watermark changed in {}; to tell rows that retention removed from rows that came late, the earlier segments are needed: expected {} rows in {}, found {rows}",
                    chains.join(", "),
                    mark.rows,
                    self.out.display()
                ),
            )
            .with_hint("put the earlier segments back, or begin a new series in another folder"));
        }
        let exported = chain_input::open_segments(self.out, &segments, self.format.as_ref())?;
        let cancel = Some(self.ctx.cancel().flag());
        let compared =
            series::compare(source.rows.as_ref(), &exported, self.format.as_ref(), mark, chains, cancel)
                .map_err(chain_error)?;
        if !source.rows.rewind().map_err(chain_error)? {
            return Err(again());
        }
        if compared.findings.is_empty() {
            progress.late(compared.late);
            Ok(Ok(progress))
        } else {
            Ok(Err(compared.findings))
        }
    }

    fn refused(&self, mark: &Watermark, findings: Vec<Finding>) -> ExportOutcome {
        ExportOutcome { findings, ..self.nothing(mark) }
    }

    fn nothing(&self, mark: &Watermark) -> ExportOutcome {
        ExportOutcome {
            path: self.out.to_owned(),
            size_bytes: 0,
            rows: 0,
            sha256: None,
            format: mark.format.clone(),
            shape: mark.shape,
            chains: Vec::new(),
            left_out: 0,
            sidecar: None,
            watermark: Some(self.watermark.to_owned()),
            segment: None,
            counts: BTreeMap::new(),
            verdict: None,
            diagnosis: None,
            findings: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// Writes the dump directory of AGLedger: the vault and the tables beside it, whole.
fn export_dump(
    input: &Input,
    out: &Path,
    options: &ExportOptions,
    filter: &SliceFilter,
    ctx: &Context,
) -> Result<ExportOutcome> {
    let unsupported = |what: &str, hint: &str| {
        Err(Error::new(ErrorKind::Unsupported, what.to_owned()).with_hint(hint.to_owned()))
    };
    if !filter.is_all() || options.watermark.is_some() || options.shape == Some(RowShape::Csv) {
        return unsupported(
            "agledger: a dump is whole and NDJSON: its key registry and checkpoints are about all of its chains",
            "leave out the filters, --watermark and --as csv",
        );
    }
    if out.symlink_metadata().is_ok() {
        return Err(exists(out));
    }
    let cancel = Some(ctx.cancel().flag());
    let summary = match input {
        Input::Dump(folder) => write_dump(out, &AgledgerDump::open(folder)?.into_tables(), cancel),
        #[cfg(feature = "postgres")]
        Input::Postgres(server) => {
            let format = chain::format(&options.format)?;
            let table = options.table.as_deref();
            let opened = crate::postgres::open_chain(server, &options.postgres, format.as_ref(), table, ctx)?;
            write_dump(out, &opened.tables(), cancel)
        }
        _ => {
            return unsupported(
                "agledger: a dump is made of six tables; this input is not a database or folder that has them",
                "give a dump directory, or postgres://…",
            );
        }
    };
    let summary = summary.map_err(chain_error)?;
    let verify_options = VerifyOptions {
        threads: options.threads,
        max_chains: usize::MAX,
        cancel: Some(ctx.cancel().flag()),
        ..VerifyOptions::default()
    };
    let report = AgledgerDump::open(out)?.verify(&options.keys, &verify_options).map_err(chain_error)?;
    let chains = report.chains.iter().map(|chain| SidecarChain {
        id: chain.id.clone(),
        records: chain.records,
        first: chain.first,
        last: chain.last,
        starts: Vec::new(),
        head: chain.head.clone(),
        root: chain.root.clone(),
    });
    Ok(ExportOutcome {
        path: out.to_owned(),
        size_bytes: summary.files.iter().map(|file| file.size_bytes).sum(),
        rows: report.records,
        sha256: None,
        format: "agledger".into(),
        shape: RowShape::Ndjson,
        chains: chains.collect(),
        left_out: 0,
        sidecar: None,
        watermark: None,
        segment: None,
        counts: summary.counts,
        verdict: Some(report.verdict),
        diagnosis: Some(report.diagnosis.clone()),
        findings: Vec::new(),
        notes: Vec::new(),
    })
}
