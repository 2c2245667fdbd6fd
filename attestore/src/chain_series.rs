//! One run of an incremental export: a segment with what is new, its sidecar, then the watermark.
//!
//! Called by [`crate::chain_export`], whose front comment has the layout; what is new is decided by `audit_chain::export::series`.
//! The folder is locked while a run lasts. When the process dies before the watermark is replaced, the segment is not committed:
//! the next run removes what is left of it and writes it anew.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use audit_chain::export::each_record;
use audit_chain::export::series::{self, LastSegment, Progress as SeriesProgress, Watermark, segment_of};
use audit_chain::export::sidecar::SegmentPlace;
use audit_chain::export::slice::{StartNotes, Starts};
use audit_chain::export::text::RowShape;
use audit_chain::format::ChainFormat;
use audit_chain::report::Finding;
use backup_core::context::Context;
use backup_core::durable::{Durable, PRIVATE_DIR, PRIVATE_FILE};
use backup_core::error::{Error, ErrorKind, Result};

use crate::chain;
use crate::chain_export::{
    ExportOptions, ExportOutcome, Writer, chain_error, exists, json, outcome, read_back, write_sidecar,
};
use crate::chain_input::{self, ChainRows, sidecar_path};

/// Makes the folder of a series where it is not there, and locks it; the lock ends with the process.
pub(crate) fn lock_folder(folder: &Path) -> Result<File> {
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
pub(crate) struct Series<'a> {
    pub(crate) format: Arc<dyn ChainFormat>,
    pub(crate) out: &'a Path,
    pub(crate) watermark: &'a Path,
    pub(crate) options: &'a ExportOptions,
    pub(crate) ctx: &'a Context,
}

/// What one pass wrote.
struct Pass {
    writer: Writer,
    starts: Starts,
    done: series::Finished,
}

impl Series<'_> {
    pub(crate) fn run(&self, source: &ChainRows) -> Result<ExportOutcome> {
        let shape = self.options.shape.unwrap_or(RowShape::Ndjson);
        if shape == RowShape::Json {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "segments that are put one behind the other are no JSON array",
            )
            .with_hint("export the series as ndjson or csv"));
        }
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
                durable.replace(self.watermark, &json(&mark)?, PRIVATE_FILE)?;
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
