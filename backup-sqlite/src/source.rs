//! A SQLite database as a source of backups: [`Snapshot`] and [`ChainVerify`].
//!
//! The repository calls [`Snapshot::snapshot`]: the live database is copied to the repository's scratch folder as of
//! one instant ([`crate::copy`]); its connection is closed; then, at the same time, the copy streams into the object
//! `database/<name>.db`, its rows are counted, and its chains are verified, so that what is proven is what is stored.
//!
//! When the process dies, the copy stays in the scratch folder, which the repository empties; the live database
//! was only read. What a -journal or -wal of a crashed writer holds is recovered by SQLite as at any opening.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use audit_chain::canonical::RowForm;
use audit_chain::report::ChainReport;
use audit_chain::source::RowSource as _;
use audit_chain::verify::{VerifyOptions, verify};
use backup_core::context::{Context, Progress};
use backup_core::durable::free_space;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::names::validate_name;
use backup_core::traits::{
    ChainRequest, ChainVerify, Sinks, Snapshot, SnapshotOutcome, SourceFacts, SourceName,
};
use rusqlite::Connection;

use crate::checks::{self, Integrity};
use crate::copy::{Job, Method, copy, database_bytes};
use crate::facts::{self, KIND, Seen};
use crate::fault::explain;
use crate::migrations::{Known, SchemaVerdict, compare_database};
use crate::open::{absolute, inspect, open_immutable, open_live};
use crate::schema::user_tables;
use crate::staging::{Staging, sweep};
use crate::table::{ChainTable, DEFAULT_BUSY_TIMEOUT, TableOptions};

/// How much of the copy is read at once, in bytes.
const BUFFER: usize = 1 << 20;
/// The ending of folders that hold a copy for a verification.
const VERIFY_SUFFIX: &str = "verify";

/// How a database is backed up.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// The name in the backup (`database/<name>.db`); the file's stem where `None`.
    pub name: Option<String>,
    /// How the copy is made.
    pub method: Method,
    /// How long locks of others are waited for.
    pub busy_timeout: Duration,
    /// How closely the copy is checked; where `None`, [`Integrity::Quick`] for [`Method::OnlineBackup`], which
    /// copies damaged pages as they are, and [`Integrity::Off`] for [`Method::VacuumInto`], which reads every row.
    pub integrity: Option<Integrity>,
    /// Whether the rows of every table are counted for the manifest.
    pub count_rows: bool,
    /// Whether copies of chains lie at `chain/<name>/<table>.ndjson` instead of `chain/<table>.ndjson`: for a backup
    /// of several databases, where tables of one name would meet.
    pub chains_by_name: bool,
    /// A folder in which [`ChainVerify::verify_chain`] makes a copy of its own to verify; where `None` it reads the
    /// live database in one read transaction, which holds up writers where the database is not in WAL mode.
    pub verify_copy_in: Option<PathBuf>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            name: None,
            method: Method::default(),
            busy_timeout: DEFAULT_BUSY_TIMEOUT,
            integrity: None,
            count_rows: true,
            chains_by_name: false,
            verify_copy_in: None,
        }
    }
}

/// A database file that others may be using.
#[derive(Debug, Clone)]
pub struct SqliteSource {
    /// Where it is.
    pub path: PathBuf,
    /// How it is backed up.
    pub options: SourceOptions,
}

impl SqliteSource {
    /// Names a database with the default options. Nothing is opened.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::with_options(path, SourceOptions::default())
    }

    /// Names a database. Nothing is opened.
    pub fn with_options(path: impl Into<PathBuf>, options: SourceOptions) -> Self {
        Self { path: path.into(), options }
    }

    /// Lists the tables of the live database, sorted by name.
    ///
    /// # Errors
    /// As [`Snapshot::preflight`].
    pub fn tables(&self, ctx: &Context) -> Result<Vec<String>> {
        let connection = self.open(ctx)?;
        user_tables(&connection).map_err(|error| explain(error, "read the schema of", &self.path))
    }

    /// Says how the database stands to what a program knows of its schema.
    ///
    /// # Errors
    /// As [`Snapshot::preflight`]; `InvalidInput` for a query that does not answer one integer.
    pub fn schema(&self, known: &Known, ctx: &Context) -> Result<SchemaVerdict> {
        compare_database(known, &self.open(ctx)?, &self.path)
    }

    fn name(&self) -> String {
        match &self.options.name {
            Some(name) => name.clone(),
            None => object_stem(&self.path.file_stem().unwrap_or_default().to_string_lossy()),
        }
    }

    fn open(&self, ctx: &Context) -> Result<Connection> {
        if let Some(name) = &self.options.name {
            validate_name(name)?;
        }
        open_live(&self.path, self.options.busy_timeout, ctx)
    }

    fn integrity(&self) -> Integrity {
        match (self.options.integrity, self.options.method) {
            (Some(level), _) => level,
            (None, Method::OnlineBackup) => Integrity::Quick,
            (None, Method::VacuumInto) => Integrity::Off,
        }
    }

    /// Copies the live database to `to` and returns what was seen of it. The connection is closed again.
    fn copy_to(&self, to: &Path, ctx: &Context) -> Result<Seen> {
        let mode = inspect(&self.path)?.mode() & 0o7777;
        let connection = self.open(ctx)?;
        let failed = |error| explain(error, "read the settings of", &self.path);
        let journal_mode: String =
            connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(failed)?;
        let bytes = database_bytes(&connection).map_err(failed)?;
        require_room(to, bytes)?;
        let job = Job {
            source: &connection,
            own: true,
            path: &self.path,
            to,
            method: self.options.method,
            wait: self.options.busy_timeout,
        };
        let instant = copy(job, ctx)?;
        connection.close().map_err(|(_, error)| explain(error, "close", &self.path))?;
        let size_bytes = to.metadata().map_err(|error| Error::io("look at", to, error))?.len();
        Ok(Seen {
            name: self.name(),
            location: absolute(&self.path)?.display().to_string(),
            instant,
            size_bytes,
            journal_mode,
            method: self.options.method,
            mode,
        })
    }
}

/// Makes a name that can stand in a backup from a file's stem.
pub(crate) fn object_stem(stem: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = stem.chars().map(|c| if kept(c) { c } else { '_' }).take(60).collect();
    let name = name.replace("..", "_");
    let name = name.trim_start_matches(['.', '-']).trim_end_matches('.');
    if validate_name(name).is_ok() { name.to_owned() } else { "database".to_owned() }
}

/// Fails before a byte is written where the copy cannot fit.
fn require_room(to: &Path, bytes: u64) -> Result<()> {
    let folder = backup_core::durable::parent_of(to);
    let free = free_space(folder)?;
    if free < bytes {
        return Err(Error::new(
            ErrorKind::NoSpace,
            format!("no room for a copy in {}: {bytes} bytes needed, {free} bytes free", folder.display()),
        )
        .with_hint("free room on that file system, or choose another place"));
    }
    Ok(())
}

impl Snapshot for SqliteSource {
    fn describe(&self) -> SourceName {
        SourceName {
            kind: KIND.into(),
            name: self.name(),
            location: absolute(&self.path).unwrap_or_else(|_| self.path.clone()).display().to_string(),
        }
    }

    fn preflight(&self, ctx: &Context) -> Result<()> {
        self.open(ctx).map(drop)
    }

    fn snapshot(&self, chains: &[ChainRequest], sinks: &dyn Sinks, ctx: &Context) -> Result<SnapshotOutcome> {
        let span = tracing::info_span!(parent: &ctx.span(), "sqlite snapshot", path = %self.path.display());
        let _entered = span.enter();
        let copy = Scratch::create(sinks.scratch(), &self.name())?;
        let seen = self.copy_to(&copy.path, ctx)?;
        tracing::info!(bytes = seen.size_bytes, method = seen.method.name(), "copied");
        let bytes = seen.size_bytes;
        let object = format!("database/{}.db", seen.name);
        std::thread::scope(|scope| {
            let storing = scope.spawn(|| store(&copy.path, &object, bytes, sinks, ctx));
            let looking = scope.spawn(|| self.look(&copy.path, seen, ctx));
            let reports = self.verify_all(&copy.path, chains, sinks, ctx);
            // A cancelled or failed part is told by the first of these; all have ended when the scope does.
            joined(storing)?;
            let facts = joined(looking)?;
            Ok(SnapshotOutcome { facts, chains: reports? })
        })
    }
}

impl SqliteSource {
    /// Reads the facts of the copy and checks it as far as the options ask.
    fn look(&self, copy: &Path, seen: Seen, ctx: &Context) -> Result<SourceFacts> {
        let connection = open_immutable(copy)?;
        let mut facts = facts::facts(&connection, copy, seen, self.options.count_rows, ctx)?;
        if let Some(check) = checks::integrity(&connection, copy, self.integrity(), ctx)? {
            if !check.ok {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("{}: {}: {}", self.path.display(), check.name, check.detail),
                )
                .with_hint(
                    "the live database is damaged: restore an earlier backup, or repair it with `.recover`",
                ));
            }
            facts.details.insert(check.name, check.detail);
        }
        Ok(facts)
    }

    /// Verifies the chains in a private copy, and stores their rows where that is asked for.
    fn verify_all(
        &self,
        copy: &Path,
        chains: &[ChainRequest],
        sinks: &dyn Sinks,
        ctx: &Context,
    ) -> Result<Vec<ChainReport>> {
        let mut reports = Vec::with_capacity(chains.len());
        let mut stored = BTreeSet::new();
        for chain in chains {
            let options = TableOptions { copy_of: Some(self.path.clone()), ..table_options(chain) };
            let table = ChainTable::open_copy(copy, table_of(chain), &options, ctx)?;
            reports.push(verify_table(&table, chain, 0, ctx)?);
            if chain.copy && stored.insert(table.table().to_owned()) {
                let folder =
                    if self.options.chains_by_name { format!("{}/", self.name()) } else { String::new() };
                // What records commit to is not of the chain.
                let options = TableOptions { values: None, ..options };
                let rows = ChainTable::open_copy(copy, table_of(chain), &options, ctx)?;
                store_rows(&rows, &folder, sinks, ctx)?;
            }
        }
        Ok(reports)
    }
}

pub(crate) fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a thread of the snapshot panicked")))
}

/// A private file in the scratch folder, removed with what SQLite puts beside it.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn create(folder: &Path, name: &str) -> Result<Self> {
        let path = backup_core::durable::staging_name(&folder.join(format!("{name}.db")), "copy")?;
        // SQLite takes an empty file as it is, so the copy is never readable by others.
        std::os::unix::fs::OpenOptionsExt::mode(File::options().write(true).create_new(true), 0o600)
            .open(&path)
            .map_err(|error| Error::io("create", &path, error))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for ending in crate::open::FAMILY {
            // Gone already, or the folder's owner removes it.
            let _ = std::fs::remove_file(crate::open::sidecar(&self.path, ending));
        }
    }
}

/// Takes an error of this workspace out of the `io::Error` that carried it through `Write` or `Read`.
pub(crate) fn own_error(action: &'static str, path: impl AsRef<Path>, error: std::io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|error| Error::io(action, path, error))
}

/// Streams the copy into its object. The plain file calls are safe: only immutable connections, which hold no
/// locks, have the copy open.
fn store(copy: &Path, object: &str, bytes: u64, sinks: &dyn Sinks, ctx: &Context) -> Result<()> {
    let mut file = File::open(copy).map_err(|error| Error::io("open", copy, error))?;
    let mut sink = sinks.object(object, Some(bytes))?;
    let mut buffer = vec![0_u8; BUFFER];
    let mut done = 0;
    loop {
        ctx.check()?;
        let read = file.read(&mut buffer).map_err(|error| Error::io("read", copy, error))?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        sink.write_all(part).map_err(|error| own_error("store", object, error))?;
        done += part.len() as u64;
        ctx.progress(Progress { stage: "store", object, done, total: Some(bytes), unit: "bytes" });
    }
    if done != bytes {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("{}: expected {bytes} bytes of the copy, found {done} bytes", copy.display()),
        ));
    }
    sink.finish()
}

pub(crate) fn table_of(chain: &ChainRequest) -> &str {
    chain.table.as_deref().unwrap_or_else(|| chain.format.table())
}

pub(crate) fn table_options(chain: &ChainRequest) -> TableOptions {
    TableOptions::of_format(chain.format.as_ref(), table_of(chain))
}

/// Verifies one opened table.
///
/// `threads` read and hash; 0 means one per core.
pub(crate) fn verify_table(
    table: &ChainTable,
    chain: &ChainRequest,
    threads: usize,
    ctx: &Context,
) -> Result<ChainReport> {
    let name = table.table().to_owned();
    let progress = |done| {
        ctx.progress(Progress { stage: "verify chain", object: &name, done, total: None, unit: "rows" });
    };
    let options = VerifyOptions {
        threads,
        companions: Some(table.companions()),
        checkpoint: chain.checkpoint.as_ref(),
        cancel: Some(ctx.cancel().flag()),
        progress: Some(&progress),
        ..VerifyOptions::default()
    };
    let report =
        verify(table, chain.format.as_ref(), &chain.keys, &options).map_err(|error| match error {
            audit_chain::error::Error::Cancelled => Error::Cancelled,
            other => Error::Chain(other),
        })?;
    tracing::info!(table = name, records = report.records, ok = report.ok, "chain verified");
    Ok(report)
}

/// Opens one chain of a private copy and verifies it.
pub(crate) fn verify_copy(
    copy: &Path,
    chain: &ChainRequest,
    threads: usize,
    ctx: &Context,
) -> Result<ChainReport> {
    let table = ChainTable::open_copy(copy, table_of(chain), &table_options(chain), ctx)?;
    verify_table(&table, chain, threads, ctx)
}

/// Stores a table's rows, one canonical JSON line each, in chain order.
fn store_rows(table: &ChainTable, folder: &str, sinks: &dyn Sinks, ctx: &Context) -> Result<()> {
    let name = table.table();
    let object = format!("chain/{folder}{}.ndjson", object_stem(name));
    let mut sink = sinks.object(&object, None)?;
    let mut form = RowForm::new(table.columns());
    let mut buffer = Vec::with_capacity(2 * BUFFER);
    let mut done = 0;
    table.rewind()?;
    let mut reader = table.reader()?;
    // One reader claims the chunks in their order.
    loop {
        ctx.check()?;
        let more = reader.read_chunk(&mut |row| {
            buffer.extend_from_slice(form.line(row));
            buffer.push(b'\n');
            done += 1;
            if buffer.len() >= BUFFER {
                sink.write_all(&buffer).map_err(|source| audit_chain::error::Error::Io {
                    action: "store",
                    path: object.clone().into(),
                    source,
                })?;
                buffer.clear();
            }
            Ok(())
        })?;
        ctx.progress(Progress { stage: "store chain", object: name, done, total: None, unit: "rows" });
        if more.is_none() {
            break;
        }
    }
    drop(reader);
    sink.write_all(&buffer).map_err(|error| own_error("store", &object, error))?;
    sink.finish()
}

impl ChainVerify for SqliteSource {
    fn verify_chain(&self, chain: &ChainRequest, ctx: &Context) -> Result<ChainReport> {
        let span = tracing::info_span!(parent: &ctx.span(), "sqlite verify", path = %self.path.display());
        let _entered = span.enter();
        if let Some(folder) = &self.options.verify_copy_in {
            sweep(folder, VERIFY_SUFFIX);
            let staging = Staging::beside(&folder.join(self.name()), VERIFY_SUFFIX)?;
            let copy = Scratch::create(staging.path(), &self.name())?;
            self.copy_to(&copy.path, ctx)?;
            return verify_copy(&copy.path, chain, 0, ctx);
        }
        let options = TableOptions { busy_timeout: self.options.busy_timeout, ..table_options(chain) };
        let table = ChainTable::open_live(&self.path, table_of(chain), &options, ctx)?;
        verify_table(&table, chain, 0, ctx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_file_name_becomes_a_name_that_can_be_stored() {
        for (stem, name) in [
            ("app", "app"),
            ("my app", "my_app"),
            (".hidden", "hidden"),
            ("-rf", "rf"),
            ("a..b", "a_b"),
            ("größe", "größe"),
            ("x-wal", "database"),
            ("nul", "database"),
            ("", "database"),
            ("a\nb:c", "a_b_c"),
        ] {
            assert_eq!(object_stem(stem), name, "{stem:?}");
        }
    }
}
