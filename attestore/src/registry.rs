//! AGLedger's key registry as the product's backup writes it (`vault-public-keys.csv`), and its comparison after a restore.

use std::path::Path;

use audit_chain::csv_rows::{CsvOptions, CsvSource};
use audit_chain::formats::agledger::{AgledgerDump, RegistryDifference, compare_registries, registry_csv};
use audit_chain::json_rows::{JsonSource, NdjsonSource};
use audit_chain::source::RowSource;
use backup_core::error::{Error, ErrorKind, Result};
use backup_sqlite::table::{ChainTable, TableOptions};
use serde::Serialize;

use crate::chain::chain_error;
use crate::input::Input;

/// The table of the registry.
const TABLE: &str = "vault_signing_keys";

/// A registry, and how it differs from another.
#[derive(Debug, Clone, Serialize)]
pub struct RegistryOutcome {
    /// The registry as CSV, the newest key first.
    pub csv: String,
    /// How many keys.
    pub keys: u64,
    /// What differs from the registry that it was compared with; empty where nothing does.
    pub differences: Vec<RegistryDifference>,
    /// Whether nothing differs.
    pub ok: bool,
}

/// Reads the registry of a dump, a table or a file, and compares it with another.
///
/// # Errors
/// When one cannot be read or is no registry.
pub fn registry(input: &Input, expected: Option<&Input>, ctx: &crate::Context) -> Result<RegistryOutcome> {
    let csv = with_rows(input, ctx, &mut |rows| registry_csv(rows).map_err(chain_error))?;
    let mut differences = Vec::new();
    if let Some(expected) = expected {
        with_rows(expected, ctx, &mut |expected| {
            with_rows(input, ctx, &mut |found| {
                differences = compare_registries(expected, found).map_err(chain_error)?;
                Ok(())
            })
        })?;
    }
    let keys = csv.lines().count().saturating_sub(1) as u64;
    Ok(RegistryOutcome { csv, keys, ok: differences.is_empty(), differences })
}

/// Opens a registry and hands its rows over.
fn with_rows<T>(
    input: &Input,
    ctx: &crate::Context,
    each: &mut dyn FnMut(&dyn RowSource) -> Result<T>,
) -> Result<T> {
    let not_here =
        |path: &Path| Error::new(ErrorKind::NotFound, format!("{} has no {TABLE}", path.display()));
    match input {
        Input::Dump(path) => {
            let tables = AgledgerDump::open(path).map_err(chain_error)?.into_tables();
            each(tables.get(TABLE).ok_or_else(|| not_here(path))?.as_ref())
        }
        Input::Csv(path) => each(&CsvSource::open(path, CsvOptions::default()).map_err(chain_error)?),
        Input::Ndjson(path) => each(&NdjsonSource::open(path).map_err(chain_error)?),
        Input::Json(path) => each(&JsonSource::open(path).map_err(chain_error)?),
        Input::Sqlite(path) => each(&ChainTable::open_live(path, TABLE, &TableOptions::default(), ctx)?),
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            "a registry is read from a dump directory, a CSV, NDJSON or JSON file, or a SQLite table",
        )),
    }
}
