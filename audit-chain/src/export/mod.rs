//! Exports of chains that carry all that is needed to verify them, and how an export goes on where the last one ended.
//!
//! [`text`] writes rows as NDJSON or CSV; [`mod@slice`] chooses rows by time and chain and notes where the chosen ones begin;
//! [`sidecar`] is the small document beside an export that says what it holds; [`series`] is the watermark of an
//! incremental export; [`pages`] takes rows out of a service page by page. Which files are made, and how they become durable,
//! is the caller's (`attestore::chain_export`). Byte for byte: docs/format/export.md.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::format::{ChainFormat, Companions, Record, Setup};
use crate::keys::KeyRing;
use crate::pipeline::name_input;
use crate::source::RowSource;
use crate::value::Row;

pub mod pages;
pub mod series;
pub mod sidecar;
pub mod slice;
pub mod text;

/// Hands each row of a source, in the order of the source, with its record to `each`. One pass, one thread; the keys are not
/// asked, so what is wrong with single records is not said.
///
/// # Errors
/// What the source or `each` says; [`Error::NotThisFormat`] when columns are missing; [`Error::Cancelled`].
pub fn each_record(
    source: &dyn RowSource,
    format: &dyn ChainFormat,
    cancel: Option<&AtomicBool>,
    each: &mut dyn FnMut(&Row<'_>, &Record<'_>) -> Result<()>,
) -> Result<()> {
    let keys = KeyRing::new();
    let companions = Companions::new();
    let setup = Setup { keys: &keys, companions: &companions };
    let mut rule = format.bind(source.columns(), &setup).map_err(|error| name_input(error, source))?;
    let mut reader = source.reader()?;
    loop {
        if cancel.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(Error::Cancelled);
        }
        let chunk = reader.read_chunk(&mut |row| rule.record(row, &mut |record| each(row, &record)))?;
        // A rule keeps its remarks until they are taken.
        rule.remarks();
        if chunk.is_none() {
            return Ok(());
        }
    }
}
