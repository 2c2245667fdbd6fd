//! What a restore does for the record of itself (B11): it looks at the chains of the database that is replaced, and
//! appends to native chains of the one that takes its place.
//!
//! [`crate::restore`] calls a [`BeforeSwap`] with both files, after the new one is proven and before the names change.
//! The old one is read under SQLite's exclusive lock and left byte for byte as it is; that nobody wrote to it between
//! the look and the swap is checked by [`Seen`]. When the process dies here the target is what it was.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit_chain::keys::KeyRing;
use audit_chain::lineage::{RestoreBody, RestoreRecord, Tail};
use audit_chain::native::NativeKey;
use audit_chain::verify::{VerifyOptions, verify};
use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::ChainEntry;
use backup_core::traits::{ChainRequest, Check};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::in_use::Exclusive;
use crate::ledger::{Draft, Layout, Ledger, Receipt};
use crate::open::sidecar;
use crate::source::{table_of, table_options};
use crate::table::ChainTable;

/// A database that is about to be replaced, and the one that takes its place.
#[derive(Debug)]
pub struct Replacement<'a> {
    /// The proven file; it may be appended to.
    pub restored: &'a Path,
    /// The database that is there, closed by everybody; `None` where there is none.
    pub old: Option<&'a Path>,
    /// The chains that the manifest names for it.
    pub chains: &'a [ChainEntry],
    /// How long a lock on the old database is waited for.
    pub busy_timeout: Duration,
}

type Work = dyn Fn(&Replacement<'_>, &Context) -> Result<Vec<Check>> + Send + Sync;

/// What is done before the swap; an error stops the restore, and nothing was changed.
#[derive(Clone)]
pub struct BeforeSwap(Arc<Work>);

impl BeforeSwap {
    /// Takes what is to be done; its checks are told with those of the restore.
    pub fn new(
        work: impl Fn(&Replacement<'_>, &Context) -> Result<Vec<Check>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(work))
    }

    pub(crate) fn run(&self, replacement: &Replacement<'_>, ctx: &Context) -> Result<Vec<Check>> {
        (self.0)(replacement, ctx)
    }
}

impl std::fmt::Debug for BeforeSwap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BeforeSwap")
    }
}

/// What the files of a database look like from outside: number, size and last change of each that holds something.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen([Option<(u64, u64, i64, i64)>; 3]);

impl Seen {
    pub(crate) fn of(path: &Path) -> Self {
        Self(["", "-wal", "-journal"].map(|ending| {
            let found = sidecar(path, ending).metadata().ok().filter(|found| found.len() > 0)?;
            Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        }))
    }
}

/// Verifies a chain of the database that is replaced against a checkpoint (`request.checkpoint`), and returns what its
/// chains have after it.
///
/// # Errors
/// When the database or its table cannot be read.
pub fn tails(old: &Path, request: &ChainRequest, wait: Duration, ctx: &Context) -> Result<Vec<Tail>> {
    let exclusive = Exclusive::take(old, wait, ctx)?;
    let blind = exclusive.blind.clone();
    let connection = exclusive.into_connection().ok_or_else(|| {
        Error::new(ErrorKind::Malformed, blind.unwrap_or_else(|| format!("cannot read {}", old.display())))
    })?;
    let table = ChainTable::of_connection(connection, old, table_of(request), &table_options(request), ctx)?;
    let tails = Mutex::new(Vec::new());
    let options = VerifyOptions {
        companions: Some(table.companions()),
        checkpoint: request.checkpoint.as_ref(),
        cancel: Some(ctx.cancel().flag()),
        tails: Some(&tails),
        ..VerifyOptions::default()
    };
    verify(&table, request.format.as_ref(), &request.keys, &options).map_err(|error| match error {
        audit_chain::error::Error::Cancelled => Error::Cancelled,
        other => Error::Chain(other),
    })?;
    Ok(tails.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Appends the record of a restore to a native chain of the restored file, which nobody else has open. A keyed chain takes
/// the secret that made its last record.
///
/// # Errors
/// `KeyRejected` when that secret is not at hand; what SQLite says.
pub fn append_restore(
    restored: &Path,
    table: &str,
    chain: &str,
    records: Vec<RestoreRecord>,
    keys: &KeyRing,
) -> Result<Receipt> {
    let failed = |error| crate::fault::explain(error, "append to the chain in", restored);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(restored, flags).map_err(failed)?;
    // No -shm is made; the -wal, where there is one, goes when the connection closes.
    connection
        .execute_batch("PRAGMA trusted_schema=OFF; PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=FULL")
        .map_err(failed)?;
    let mut ledger = Ledger::new(chain).with_layout(Layout::new(table)?);
    if let Some(wanted) = ledger.head_key(&connection)? {
        let fitting = keys
            .all_secrets()
            .filter_map(|(_, secret)| NativeKey::new(secret.expose()).ok())
            .find(|key| key.id() == wanted);
        ledger = ledger.with_key(fitting.ok_or_else(|| {
            Error::new(
                ErrorKind::KeyRejected,
                format!("no secret at hand has the key id {wanted} of the last record of chain {chain:?}"),
            )
        })?);
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let receipt = ledger.append_any(&tx, Draft::new(RestoreBody::new(records).body()))?;
    tx.commit().map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))?;
    Ok(receipt)
}
