//! Verifies a chain from the very rows that are stored, reading its table once.
//!
//! The table is a [`RowSource`] whose chunks are its pieces: whoever verifies asks for the next piece, which is then read from
//! the server, stored, and handed over row by row. Rows of a heap lie in no order that can be relied on (a short row
//! goes where a long one did not fit), so the source says that it can be read once only: records without their rows are
//! then sorted by `audit_chain::order`, in bounded memory and on scratch disk past it, and walked. A table has no order
//! of its own, so a record that only has a number stands where its number says ([`InOrder`]).
//!
//! What cannot be done so is left to an ordered second reading, and said: formats without an order, records without a place.
//!
//! What a piece stores does not depend on what the verification makes of it: a row that cannot be understood, a walk that
//! gives up, still leave every row stored.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit_chain::error::{Error as ChainError, Result as ChainResult};
use audit_chain::format::{
    ChainFormat, Conclusion, LinkRules, OrderKey, PartRule, Record, RecordRule, Remark, Setup, Start,
};
use audit_chain::keys::KeyRing;
use audit_chain::report::ChainReport;
use audit_chain::source::{ChunkReader, RowSource};
use audit_chain::value::{Columns, Row};
use audit_chain::verify::{VerifyOptions, verify as walk};
use backup_core::context::{Context, Progress};
use backup_core::error::Error as CoreError;
use backup_core::traits::ChainRequest;

use super::catalog::Table;
use super::lane::{Lane, Store};
use super::pieces::Cut;
use crate::copytext::RowParser;
use crate::error::{Error, ErrorKind, Result};
use crate::table::{Beside, ChainTable};

/// A chain whose table may be stored while it is verified.
#[derive(Clone, Copy)]
pub(crate) struct Streamed<'a> {
    pub(crate) request: &'a ChainRequest,
    pub(crate) table: &'a ChainTable,
    pub(crate) beside: &'a Beside,
}

/// Finds the table of a chain; `None` where its rows cannot be taken from what is stored: a query, a table that is not a plain one, a
/// format without an order, columns that are computed and therefore not stored.
pub(crate) fn find(tables: &[Table], chain: &Streamed<'_>) -> Option<usize> {
    let oid = chain.table.oid()?;
    if chain.request.format.order().is_empty() {
        return None;
    }
    let at = tables.iter().position(|table| table.oid == oid)?;
    let columns =
        chain.table.columns().names().iter().map(|name| format!("\"{}\"", name.replace('"', "\"\"")));
    let columns = columns.collect::<Vec<_>>().join(", ");
    tables.get(at).filter(|table| table.columns == columns).map(|_| at)
}

/// Verifies one chain while its table is stored. Returns the lanes, and whether the table was read a second time; no
/// report where its records have no place in an order.
///
/// # Errors
/// When the table cannot be read or stored; `NotThisFormat` when its columns are not the format's. What is wrong with the chain is in the report.
#[allow(clippy::too_many_arguments)] // the parts of one dump
pub(crate) fn verify<'s>(
    lanes: Vec<Lane<'s>>,
    store: &Store<'s>,
    tables: &[Table],
    at: usize,
    cut: Cut,
    chain: &Streamed<'_>,
    scratch: &Path,
    ctx: &Context,
) -> Result<(Option<ChainReport>, Vec<Lane<'s>>, bool)> {
    let internal = || Error::new(ErrorKind::Internal, "a dump without a connection");
    let table = tables.get(at).ok_or_else(internal)?;
    let threads = lanes.len();
    let request = chain.request;
    let format = InOrder::new(request.format.as_ref());
    let source = Pieces {
        name: chain.table.name(),
        whole: &format.whole,
        lanes: Mutex::new(lanes),
        store,
        at,
        table,
        cut,
        chain: *chain,
        next: AtomicU32::new(0),
        storing: AtomicBool::new(true),
        again: AtomicBool::new(false),
        failed: Mutex::new(None),
        ctx,
    };
    let progress = |done| {
        ctx.progress(Progress {
            stage: "verify chain",
            object: &table.name,
            done,
            total: None,
            unit: "rows",
        });
    };
    let beside = chain.beside.lent();
    let options = VerifyOptions {
        threads,
        companions: Some(&chain.beside.companions),
        tables: (!beside.is_empty()).then_some(&beside),
        scratch: Some(scratch),
        checkpoint: request.checkpoint.as_ref(),
        cancel: Some(ctx.cancel().flag()),
        progress: Some(&progress),
        ..VerifyOptions::default()
    };
    let result = walk(&source, &format, &request.keys, &options);
    if let Some(error) = source.take_failure() {
        return Err(error);
    }
    let report = if format.placeless.load(Ordering::Relaxed) { None } else { Some(result?) };
    // A format may look at a part of the rows only; all are stored.
    source.store_rest()?;
    let again = source.again.load(Ordering::Relaxed);
    if let Some(report) = &report {
        tracing::info!(
            table = table.full_name(),
            records = report.records,
            ok = report.ok,
            again,
            "chain verified"
        );
    }
    let lanes = source.lanes.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((report, lanes, again))
}

/// A table that is stored while it is read, piece by piece.
struct Pieces<'a, 's> {
    name: String,
    /// Whether the format reads the source in its own way, as often as it likes.
    whole: &'a AtomicBool,
    /// The lanes that no reader has.
    lanes: Mutex<Vec<Lane<'s>>>,
    store: &'a Store<'s>,
    at: usize,
    table: &'a Table,
    cut: Cut,
    chain: Streamed<'a>,
    /// The next piece.
    next: AtomicU32,
    /// Whether this is the pass that stores.
    storing: AtomicBool,
    again: AtomicBool,
    /// Why the table could not be read or stored.
    failed: Mutex<Option<Error>>,
    ctx: &'a Context,
}

impl<'s> Pieces<'_, 's> {
    fn lanes(&self) -> MutexGuard<'_, Vec<Lane<'s>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self) -> Option<u32> {
        // Past the end the number stays small enough never to wrap: each reader asks once more and stops.
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        (at < self.cut.count()).then_some(at)
    }

    /// Keeps a failure to read or store, and makes of it what a verification understands.
    fn fail(&self, error: Error) -> ChainError {
        let kind = error.kind();
        let cancelled = matches!(error, Error::Core(CoreError::Cancelled));
        let text = error.to_string();
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        if cancelled {
            return ChainError::Cancelled;
        }
        ChainError::Source { input: self.name.clone(), kind, source: text.into() }
    }

    fn take_failure(&self) -> Option<Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Stores the pieces that nobody has asked for.
    fn store_rest(&self) -> Result<()> {
        let lanes = std::mem::take(&mut *self.lanes());
        let done = std::thread::scope(|scope| {
            let threads: Vec<_> = lanes
                .into_iter()
                .map(|mut lane| {
                    scope.spawn(move || {
                        while let Some(piece) = self.claim() {
                            lane.piece(
                                Some(self.store),
                                self.at,
                                self.table,
                                self.cut.get(piece),
                                &mut |_| Ok(()),
                                self.ctx,
                            )??;
                        }
                        Ok(lane)
                    })
                })
                .collect();
            let panicked = |_| Err(Error::new(ErrorKind::Internal, "a thread of the dump panicked"));
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(panicked))
                .collect::<Result<Vec<_>>>()
        })?;
        *self.lanes() = done;
        Ok(())
    }
}

impl RowSource for Pieces<'_, '_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn columns(&self) -> &Columns {
        self.chain.table.columns()
    }

    fn reader(&self) -> ChainResult<Box<dyn ChunkReader + '_>> {
        Ok(Box::new(Reader { lane: self.lanes().pop(), parser: self.chain.table.raw_parser(), of: self }))
    }

    fn rewind(&self) -> ChainResult<bool> {
        // Once only, unless the format has a way of its own: so every record is kept at once.
        if !self.whole.load(Ordering::Relaxed) {
            return Ok(false);
        }
        if self.next.load(Ordering::Relaxed) == 0 {
            return Ok(true);
        }
        if self.storing.load(Ordering::Relaxed) {
            self.store_rest().map_err(|error| self.fail(error))?;
            self.storing.store(false, Ordering::Relaxed);
        }
        self.again.store(true, Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        Ok(true)
    }
}

/// One lane's part in a pass. A reader that got no lane reads nothing: the others read all pieces.
struct Reader<'a, 'b, 's> {
    lane: Option<Lane<'s>>,
    parser: RowParser,
    of: &'a Pieces<'b, 's>,
}

impl ChunkReader for Reader<'_, '_, '_> {
    fn read_chunk(&mut self, each: &mut dyn FnMut(&Row<'_>) -> ChainResult<()>) -> ChainResult<Option<u64>> {
        let Some(lane) = &mut self.lane else { return Ok(None) };
        let Some(piece) = self.of.claim() else { return Ok(None) };
        let of = self.of;
        let parser = &mut self.parser;
        let store = of.storing.load(Ordering::Relaxed).then_some(of.store);
        let mut stopped: ChainResult<()> = Ok(());
        let mut number = 0_u64;
        let read = lane.piece(
            store,
            of.at,
            of.table,
            of.cut.get(piece),
            &mut |line| {
                number += 1;
                match parser.block(line, each) {
                    Ok(None) => return Ok(()),
                    Ok(Some(_)) => {
                        stopped = Err(ChainError::Malformed {
                            input: of.name.clone(),
                            place: format!("row {number} of piece {piece}"),
                            what: "the server sent a row with another number of columns".into(),
                        });
                    }
                    Err(error) => stopped = Err(error),
                }
                Err(Error::new(ErrorKind::Cancelled, "the verification has stopped"))
            },
            of.ctx,
        );
        match read {
            Err(error) => Err(of.fail(error)),
            // The verification's own reason goes back to it.
            Ok(Err(_)) if stopped.is_err() => stopped.map(|()| None),
            Ok(Err(error)) => Err(of.fail(error)),
            Ok(Ok(())) => Ok(Some(u64::from(piece))),
        }
    }
}

impl Drop for Reader<'_, '_, '_> {
    fn drop(&mut self) {
        self.of.lanes().extend(self.lane.take());
    }
}

/// A format whose records have a place in any case: their own, or the one of their number.
#[derive(Debug)]
struct InOrder<'a> {
    format: &'a dyn ChainFormat,
    /// Whether the format verifies sources in a way of its own.
    whole: AtomicBool,
    /// Whether a record had no place, so that this does not work.
    placeless: Arc<AtomicBool>,
}

impl<'a> InOrder<'a> {
    fn new(format: &'a dyn ChainFormat) -> Self {
        Self { format, whole: AtomicBool::new(false), placeless: Arc::default() }
    }
}

impl ChainFormat for InOrder<'_> {
    fn name(&self) -> &str {
        self.format.name()
    }

    fn table(&self) -> &str {
        self.format.table()
    }

    fn definition(&self) -> Option<&str> {
        self.format.definition()
    }

    fn columns(&self) -> &[&str] {
        self.format.columns()
    }

    fn integers(&self) -> &[&str] {
        self.format.integers()
    }

    fn order(&self) -> &[&str] {
        self.format.order()
    }

    fn companions(&self) -> &[&str] {
        self.format.companions()
    }

    fn links(&self) -> LinkRules {
        self.format.links()
    }

    fn seals(&self) -> bool {
        self.format.seals()
    }

    fn snapshot_prefix(&self) -> &[u8] {
        self.format.snapshot_prefix()
    }

    fn head_commits(&self) -> bool {
        self.format.head_commits()
    }

    fn parts(&self) -> Option<PartRule> {
        self.format.parts()
    }

    fn order_is_sealed(&self) -> bool {
        self.format.order_is_sealed()
    }

    fn bind(&self, columns: &Columns, setup: &Setup<'_>) -> ChainResult<Box<dyn RecordRule>> {
        Ok(Box::new(Placed {
            rule: self.format.bind(columns, setup)?,
            placeless: Arc::clone(&self.placeless),
        }))
    }

    fn start(&self, chain: &str, setup: &Setup<'_>) -> Start {
        self.format.start(chain, setup)
    }

    fn conclude(&self, setup: &Setup<'_>, whole: &mut Conclusion<'_>) -> ChainResult<()> {
        self.format.conclude(setup, whole)
    }

    fn verify_whole(
        &self,
        source: &dyn RowSource,
        keys: &KeyRing,
        options: &VerifyOptions<'_>,
    ) -> Option<ChainResult<ChainReport>> {
        self.whole.store(true, Ordering::Relaxed);
        let report = self.format.verify_whole(source, keys, options);
        self.whole.store(report.is_some(), Ordering::Relaxed);
        report
    }
}

/// A rule whose records have a place.
struct Placed {
    rule: Box<dyn RecordRule>,
    placeless: Arc<AtomicBool>,
}

impl RecordRule for Placed {
    fn record(
        &mut self,
        row: &Row<'_>,
        emit: &mut dyn FnMut(Record<'_>) -> ChainResult<()>,
    ) -> ChainResult<()> {
        self.rule.record(row, &mut |mut record| {
            record.order = record.order.or(record.number.map(OrderKey::of_number));
            // One that cannot be read has none either, and stays behind the record before it.
            if record.order.is_none() && record.faults.is_empty() {
                self.placeless.store(true, Ordering::Relaxed);
                return Err(ChainError::Cancelled);
            }
            emit(record)
        })
    }

    fn key_labels(&self) -> Vec<String> {
        self.rule.key_labels()
    }

    fn remarks(&mut self) -> Vec<Remark> {
        self.rule.remarks()
    }
}
