//! A dump directory: finds its files, tells the two APIs apart, and says clearly what is missing.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Agledger;
use super::checkpoints::CHECKPOINTS;
use super::entries::VAULT;
use super::reads::{HEADS, READS};
use super::registry::KEYS;
use super::statements::STATEMENTS;
use crate::error::{Error, Result};
use crate::format::Tables;
use crate::json_rows::NdjsonSource;
use crate::keys::KeyRing;
use crate::merkle::leaf_hash;
use crate::report::ChainReport;
use crate::source::RowSource;
use crate::value::Value;
use crate::verify::{VerifyOptions, verify};

/// The files that a dump of either API has besides the vault.
const REQUIRED: [&str; 4] = [KEYS, CHECKPOINTS, READS, HEADS];

/// A dump directory, opened.
pub struct AgledgerDump {
    vault: NdjsonSource<'static>,
    tables: Tables<'static>,
}

impl std::fmt::Debug for AgledgerDump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgledgerDump")
            .field("vault", &self.vault)
            .field("tables", &self.tables.keys())
            .finish_non_exhaustive()
    }
}

impl AgledgerDump {
    /// Opens a dump: `audit_vault.ndjson` and the four or five files beside it. Other files are passed over.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory or a file cannot be read; [`Error::NotThisFormat`] when there is no vault in it;
    /// [`Error::Malformed`] when a file is missing, or the first line of one is no JSON object.
    pub fn open(directory: &Path) -> Result<Self> {
        let entries = std::fs::read_dir(directory).map_err(|source| io(directory, source))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| io(directory, source))?;
            found.push(entry.file_name());
        }
        let has = |table: &str| found.iter().any(|name| *name == *file_name(table));
        if !has(VAULT) {
            return Err(Error::NotThisFormat {
                input: directory.display().to_string(),
                format: "agledger".into(),
                what: format!("no {} in it", file_name(VAULT)),
            });
        }
        for table in REQUIRED {
            if !has(table) {
                return Err(missing(directory, table, "every dump has it"));
            }
        }
        let open = |table: &str| NdjsonSource::open(&directory.join(file_name(table)));
        let mut tables = Tables::new();
        for table in REQUIRED {
            tables.insert(table.to_owned(), Box::new(open(table)?));
        }
        if has(STATEMENTS) {
            tables.insert(STATEMENTS.to_owned(), Box::new(open(STATEMENTS)?));
        } else if is_of_api_two(&open(READS)?)? {
            return Err(missing(
                directory,
                STATEMENTS,
                "the read log is hashed as API 2.0 does, and a dump of API 2.0 has it",
            ));
        }
        Ok(Self { vault: open(VAULT)?, tables })
    }

    /// Returns the rows of the vault.
    #[must_use]
    pub fn source(&self) -> &dyn RowSource {
        &self.vault
    }

    /// Returns the tables beside the vault, for [`VerifyOptions::tables`].
    #[must_use]
    pub const fn tables(&self) -> &Tables<'static> {
        &self.tables
    }

    /// Returns all tables, the vault among them, for [`write_dump`](super::write_dump).
    #[must_use]
    pub fn into_tables(self) -> Tables<'static> {
        let mut tables = self.tables;
        tables.insert(VAULT.to_owned(), Box::new(self.vault));
        tables
    }

    /// Verifies the dump. `options.tables` and `options.companions` are the dump's own.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn verify(&self, keys: &KeyRing, options: &VerifyOptions<'_>) -> Result<ChainReport> {
        let options = VerifyOptions {
            earlier: options.earlier,
            threads: options.threads,
            companions: None,
            tables: Some(&self.tables),
            max_chains: options.max_chains,
            scratch: options.scratch,
            checkpoint: options.checkpoint,
            tails: options.tails,
            starts: options.starts,
            cancel: options.cancel,
            progress: options.progress,
        };
        verify(&self.vault, &Agledger, keys, &options)
    }
}

fn file_name(table: &str) -> String {
    format!("{table}.ndjson")
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io { action: "read", path: PathBuf::from(path), source }
}

fn missing(directory: &Path, table: &str, why: &str) -> Error {
    Error::Malformed {
        input: directory.display().to_string(),
        place: file_name(table),
        what: format!("the file is missing; {why}"),
    }
}

/// Reports whether the first leaf of the read log is hashed as API 2.0 does.
fn is_of_api_two(reads: &NdjsonSource<'_>) -> Result<bool> {
    /// Ends the reading after the first row.
    const ENOUGH: Error = Error::Cancelled;
    let columns = reads.columns();
    let (hash, cose) = (columns.position("leaf_hash"), columns.position("cose_sign1"));
    let mut two = false;
    let read = reads.reader()?.read_chunk(&mut |row| {
        if let (Value::Text(hash), Value::Text(cose)) = (row.at(hash), row.at(cose)) {
            two = STANDARD.decode(cose).is_ok_and(|bytes| hex::encode(leaf_hash(&bytes)) == hash);
        }
        Err(ENOUGH)
    });
    match read {
        Ok(_) | Err(Error::Cancelled) => Ok(two),
        Err(error) => Err(error),
    }
}
