//! A PostgreSQL database as a source of backups: [`Snapshot`] and [`ChainVerify`].
//!
//! One snapshot is exported and shared. At the same time `pg_dump` streams into `database/<name>.dump`, a second connection
//! reads the facts, and the chains' rows are read and verified by further ones: what is proven is what is stored. Beside
//! it lie `database/<name>.inventory.json`, `database/<name>.globals.sql` where the role may read the cluster's roles, and
//! `keys/vault-public-keys.csv` for AGLedger. The first part that fails stops the others.
//!
//! When the process dies, the server ends the sessions and `pg_dump` its work, and the repository empties the staging folder.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use audit_chain::canonical::RowForm;
use audit_chain::format::{ChainFormat, Companions, Tables};
use audit_chain::formats::agledger::registry_csv;
use audit_chain::report::ChainReport;
use audit_chain::source::{ChunkReader, RowSource};
use audit_chain::value::Columns;
use audit_chain::verify::{VerifyOptions, verify};
use backup_core::context::{Cancel, Context, Progress};
use backup_core::error::Error as CoreError;
use backup_core::names::validate_name;
use backup_core::traits::{
    ChainRequest, ChainVerify, Sinks, Snapshot, SnapshotOutcome, SourceFacts, SourceName,
};

use crate::catalog::{Catalog, object_stem};
use crate::connect::{Address, Connection, DEFAULT_LOCK_TIMEOUT, SessionOptions};
use crate::dump::{self, DumpJob, own_error};
use crate::error::{Error, ErrorKind, Result};
use crate::facts::{self, Asked, Found, KIND, detail};
use crate::parallel::ParallelOptions;
use crate::session::{Joiner, SnapshotSession};
use crate::table::{Beside, ChainTable, Lent, options_for};
use crate::tools::{ToolEnvironment, ToolOptions};

/// The name of a backup's only database: `database/db.dump`.
pub const ONLY: &str = "db";
/// The registry of keys beside AGLedger's vault.
pub const REGISTRY_OBJECT: &str = "vault-public-keys.csv";
/// AGLedger's table of keys.
const REGISTRY_TABLE: &str = "vault_signing_keys";
/// How much of a chain's copy is written at once, in bytes.
const BUFFER: usize = 1 << 20;
/// How often the caller's flag is looked at while the parts run.
const TICK: Duration = Duration::from_millis(50);

/// How a database is backed up.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// The name in the backup (`database/<name>.dump`); where `None` it is the only one: `database/db.dump`.
    pub name: Option<String>,
    /// Where `pg_dump` and `pg_dumpall` are looked for.
    pub tools: ToolOptions,
    /// How long locks of others are waited for.
    pub lock_timeout: Duration,
    /// Settings of the sessions (`caracal.zone_id`, `*`).
    pub settings: Vec<(String, String)>,
    /// Whether the rows of every table are counted for the manifest.
    pub count_rows: bool,
    /// Whether the cluster's roles are stored too, where the role may read them.
    pub globals: bool,
    /// A query that answers the applied migrations, one a row, the newest last.
    pub migrations_query: Option<String>,
    /// How many connections read at once, and how the work is divided among them; with one, `pg_dump` writes one archive.
    pub parallel: ParallelOptions,
    /// Whether copies of chains and registries lie in a folder of the source's name: for a backup of several databases.
    pub chains_by_name: bool,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            name: None,
            tools: ToolOptions::default(),
            lock_timeout: DEFAULT_LOCK_TIMEOUT,
            settings: Vec::new(),
            count_rows: true,
            globals: true,
            migrations_query: None,
            parallel: ParallelOptions::default(),
            chains_by_name: false,
        }
    }
}

/// A database on a server.
#[derive(Debug, Clone)]
pub struct PostgresSource {
    /// Where it is.
    pub address: Address,
    /// How it is backed up.
    pub options: SourceOptions,
}

impl PostgresSource {
    /// Names a database with the default options. Nothing is opened.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self::with_options(address, SourceOptions::default())
    }

    /// Names a database. Nothing is opened.
    #[must_use]
    pub fn with_options(address: Address, mut options: SourceOptions) -> Self {
        if options.tools.path.is_none() {
            options.tools.path = address.search_path().cloned();
        }
        Self { address, options }
    }

    /// Lists the tables of the database, each by its bare name and with its schema.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn tables(&self, ctx: &Context) -> Result<Vec<String>> {
        let mut connection = Connection::open(&self.address, &self.session_options(), ctx)?;
        let catalog = Catalog::read(&mut connection, ctx)?;
        Ok(catalog.relations.into_iter().flat_map(|one| [one.bare, one.name]).collect())
    }

    /// Returns how sessions on it are set up.
    #[must_use]
    pub fn session_options(&self) -> SessionOptions {
        SessionOptions {
            lock_timeout: self.options.lock_timeout,
            settings: self.options.settings.clone(),
            ..SessionOptions::default()
        }
    }

    /// Returns the stem of its objects in a backup.
    pub(crate) fn stem(&self) -> String {
        self.options.name.clone().unwrap_or_else(|| ONLY.to_owned())
    }

    pub(crate) fn open(&self, ctx: &Context) -> Result<(SnapshotSession, Catalog)> {
        if let Some(name) = &self.options.name {
            validate_name(name)?;
        }
        let mut session = SnapshotSession::open(&self.address, &self.session_options(), ctx)?;
        let catalog = session.catalog(ctx)?;
        Ok((session, catalog))
    }

    /// Opens the chains' tables: what is not there or not allowed is told before a byte is written.
    pub(crate) fn open_chains(
        &self,
        session: &mut SnapshotSession,
        catalog: &Catalog,
        chains: &[ChainRequest],
        ctx: &Context,
    ) -> Result<Vec<OpenChain>> {
        let joiner = session.joiner().clone();
        chains
            .iter()
            .map(|chain| OpenChain::open(session.connection(), &joiner, catalog, chain, ctx))
            .collect()
    }

    /// Opens a format's table, and the tables that belong to it, in one snapshot that lasts as long as the value.
    ///
    /// # Errors
    /// As [`ChainVerify::verify_chain`].
    pub fn open_table(
        &self,
        format: &dyn ChainFormat,
        table: Option<&str>,
        ctx: &Context,
    ) -> Result<OpenedTable> {
        let (mut session, catalog) = self.open(ctx)?;
        let joiner = session.joiner().clone();
        let name = table.unwrap_or_else(|| format.table());
        let mut options = options_for(format);
        if format.name() == "agledger" {
            // A dump's rows come in the order of its producer.
            options.order = vec!["record_id".into(), "chain_position".into()];
        }
        let table = ChainTable::open(session.connection(), &joiner, &catalog, name, &options, ctx)
            .map_err(|error| looks_like(error, &catalog, name, joiner.database()))?;
        let beside = Beside::open(session.connection(), &joiner, &catalog, name, format, ctx)?;
        Ok(OpenedTable { table, beside, name: format.table().to_owned(), _session: Mutex::new(session) })
    }

    fn take(&self, chains: &[ChainRequest], sinks: &dyn Sinks, ctx: &Context) -> Result<SnapshotOutcome> {
        if self.options.parallel.jobs > 1 {
            return self.take_parallel(chains, sinks, ctx);
        }
        let (mut session, catalog) = self.open(ctx)?;
        let tool = self.options.tools.find("pg_dump", session.version())?;
        catalog.refuse_what_is_hidden()?;
        let opened = self.open_chains(&mut session, &catalog, chains, ctx)?;
        let stem = self.stem();
        let joiner = session.joiner().clone();
        let snapshot = session.id().to_owned();
        let (instant, standby) = (session.instant(), session.is_standby());
        let first = session.first();
        let job = DumpJob {
            tool: &tool,
            snapshot: &snapshot,
            lock_timeout: self.options.lock_timeout,
            object: &format!("database/{stem}.dump"),
        };
        let linked = Cancel::new();
        let inner = ctx.clone().with_cancel(linked.clone());
        let asked = Asked {
            name: self.describe().name,
            location: self.address.location(),
            count_rows: self.options.count_rows,
            migrations_query: self.options.migrations_query.clone(),
        };
        let environment = ToolEnvironment::of(first);
        let (dumped, found, reports) = std::thread::scope(|scope| {
            let (done, waiting) = mpsc::channel::<()>();
            let watched = linked.clone();
            scope.spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = waiting.recv_timeout(TICK) {
                    if ctx.cancel().is_cancelled() {
                        watched.cancel();
                    }
                }
            });
            let stop = |failed: bool| {
                if failed {
                    linked.cancel();
                }
            };
            let (inner, job, catalog, joiner) = (&inner, &job, &catalog, &joiner);
            let environment = &environment;
            let dumping = scope.spawn(move || {
                let result = dump::dump(job, environment, sinks, inner);
                stop(result.is_err());
                result
            });
            let looking = scope.spawn(move || {
                let look = || {
                    let mut connection = joiner.join(inner)?;
                    facts::read(&mut connection, catalog, asked, instant, standby, inner)
                };
                let result = look();
                stop(result.is_err());
                result
            });
            let verifying = self.verify_all(&opened, chains, sinks, inner);
            stop(verifying.is_err());
            let results = (joined(dumping), joined(looking), verifying);
            drop(done);
            results
        });
        let Found { mut facts, inventory } = first_failure(dumped, found, &reports, ctx)?;
        let reports = reports?;
        facts.details.insert(detail::PG_DUMP.into(), tool.version.to_string());
        self.finish(session, facts, &inventory, reports, sinks, ctx)
    }

    /// Ends the snapshot and stores what lies beside the dump.
    pub(crate) fn finish(
        &self,
        mut session: SnapshotSession,
        mut facts: SourceFacts,
        inventory: &facts::Inventory,
        reports: Vec<ChainReport>,
        sinks: &dyn Sinks,
        ctx: &Context,
    ) -> Result<SnapshotOutcome> {
        let stem = self.stem();
        // The transaction ends only now: every part has read in it.
        let connection = session.connection();
        connection.run("end the snapshot of", ctx, |client| client.batch_execute("COMMIT"))?;
        store(&format!("database/{stem}.inventory.json"), &json(inventory)?, sinks)?;
        if self.options.globals {
            let object = format!("database/{stem}.globals.sql");
            match self.options.tools.find("pg_dumpall", connection.version()) {
                Ok(tool) => {
                    let environment = ToolEnvironment::of(connection);
                    facts.not_included.extend(dump::globals(&tool, &environment, &object, sinks, ctx)?);
                }
                Err(error) => facts
                    .not_included
                    .push(format!("roles, memberships and tablespaces of the cluster: {error}")),
            }
        } else {
            facts.not_included.push("roles, memberships and tablespaces of the cluster".into());
        }
        Ok(SnapshotOutcome { facts, chains: reports })
    }

    fn verify_all(
        &self,
        opened: &[OpenChain],
        chains: &[ChainRequest],
        sinks: &dyn Sinks,
        ctx: &Context,
    ) -> Result<Vec<ChainReport>> {
        let reports = opened.iter().zip(chains).map(|(open, chain)| open.verify(chain, ctx));
        let reports = reports.collect::<Result<Vec<_>>>()?;
        self.store_beside(opened, chains, sinks, ctx)?;
        Ok(reports)
    }

    /// Stores registries of keys, and copies of the chains where that is asked for.
    pub(crate) fn store_beside(
        &self,
        opened: &[OpenChain],
        chains: &[ChainRequest],
        sinks: &dyn Sinks,
        ctx: &Context,
    ) -> Result<()> {
        let mut stored = BTreeSet::new();
        let folder = if self.options.chains_by_name {
            format!("{}/", object_stem(&self.describe().name))
        } else {
            String::new()
        };
        for (open, chain) in opened.iter().zip(chains) {
            if let Some(registry) = &open.registry
                && stored.insert(REGISTRY_OBJECT.to_owned())
            {
                let csv = registry_csv(registry)?;
                store(&format!("keys/{folder}{REGISTRY_OBJECT}"), csv.as_bytes(), sinks)?;
            }
            if chain.copy {
                let besides = open.beside.tables.iter().map(|(name, table)| (name.clone(), table));
                for (name, table) in std::iter::once((open.stem.clone(), &open.table)).chain(besides) {
                    if stored.insert(name.clone()) {
                        let object = format!("chain/{folder}{}.ndjson", object_stem(&name));
                        store_rows(table, &object, sinks, ctx)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns the result that counts: the first part that failed by itself, not because another did.
fn first_failure(
    dumped: Result<u64>,
    found: Result<Found>,
    reports: &Result<Vec<ChainReport>>,
    ctx: &Context,
) -> Result<Found> {
    if ctx.cancel().is_cancelled() {
        return Err(Error::Core(CoreError::Cancelled));
    }
    let own = |error: &Error| error.kind() != ErrorKind::Cancelled;
    match (dumped, found) {
        (Err(error), _) if own(&error) => Err(error),
        (_, Err(error)) if own(&error) => Err(error),
        // The caller takes the error of the reports.
        (Ok(_), Ok(found)) => Ok(found),
        (dumped, found) => match reports {
            Err(error) if own(error) => Err(Error::new(error.kind(), error.to_string())),
            _ => dumped.and(found),
        },
    }
}

/// A format's table and those that belong to it, all as of one instant.
#[derive(Debug)]
pub struct OpenedTable {
    table: ChainTable,
    beside: Beside,
    name: String,
    /// Holds the snapshot open.
    _session: Mutex<SnapshotSession>,
}

impl OpenedTable {
    /// Returns the small tables that the format reads besides its rows.
    #[must_use]
    pub const fn companions(&self) -> &Companions {
        &self.beside.companions
    }

    /// Lends all tables by the names that the format gives them.
    #[must_use]
    pub fn tables(&self) -> Tables<'_> {
        let mut tables = self.beside.lent();
        tables.insert(self.name.clone(), Box::new(Lent(&self.table)));
        tables
    }
}

impl RowSource for OpenedTable {
    fn name(&self) -> String {
        self.table.name()
    }

    fn columns(&self) -> &Columns {
        self.table.columns()
    }

    fn reader(&self) -> audit_chain::error::Result<Box<dyn ChunkReader + '_>> {
        self.table.reader()
    }

    fn rewind(&self) -> audit_chain::error::Result<bool> {
        self.table.rewind()
    }
}

/// A chain whose table is open.
pub(crate) struct OpenChain {
    stem: String,
    pub(crate) table: ChainTable,
    pub(crate) beside: Beside,
    registry: Option<ChainTable>,
}

impl OpenChain {
    fn open(
        connection: &mut Connection,
        joiner: &Joiner,
        catalog: &Catalog,
        chain: &ChainRequest,
        ctx: &Context,
    ) -> Result<Self> {
        let name = chain.table.as_deref().unwrap_or_else(|| chain.format.table());
        let format = chain.format.as_ref();
        let options = options_for(format);
        let table = ChainTable::open(connection, joiner, catalog, name, &options, ctx)
            .map_err(|error| looks_like(error, catalog, name, joiner.database()))?;
        let beside = Beside::open(connection, joiner, catalog, name, format, ctx)?;
        let registry = match beside.tables.contains_key(REGISTRY_TABLE) {
            // As the server spells it: the CSV has microseconds.
            true => Some(ChainTable::open(
                connection,
                joiner,
                catalog,
                REGISTRY_TABLE,
                &crate::table::TableOptions::default(),
                ctx,
            )?),
            false => None,
        };
        Ok(Self { stem: name.to_owned(), table, beside, registry })
    }

    pub(crate) fn verify(&self, chain: &ChainRequest, ctx: &Context) -> Result<ChainReport> {
        let progress = |done| {
            ctx.progress(Progress {
                stage: "verify chain",
                object: &self.stem,
                done,
                total: None,
                unit: "rows",
            });
        };
        let tables = self.beside.lent();
        let options = VerifyOptions {
            companions: Some(&self.beside.companions),
            tables: (!tables.is_empty()).then_some(&tables),
            checkpoint: chain.checkpoint.as_ref(),
            cancel: Some(ctx.cancel().flag()),
            progress: Some(&progress),
            ..VerifyOptions::default()
        };
        let report = verify(&self.table, chain.format.as_ref(), &chain.keys, &options)?;
        tracing::info!(table = self.stem, records = report.records, ok = report.ok, "chain verified");
        Ok(report)
    }
}

/// Adds to a missing table which formats' tables the database has.
fn looks_like(error: Error, catalog: &Catalog, name: &str, database: &str) -> Error {
    if error.kind() != ErrorKind::NotFound || error.hint().is_some() {
        return error;
    }
    let known = audit_chain::formats::NAMES.iter().filter_map(|format| {
        let table = audit_chain::formats::by_name(format).ok()?.table().to_owned();
        catalog.find(&table, database).ok().map(|found| format!("{found} (the table of {format})"))
    });
    let known: Vec<String> = known.collect();
    let tables: Vec<&str> = catalog.tables().map(|one| one.name.as_str()).take(12).collect();
    error.with_hint(if !known.is_empty() {
        format!("it has {}; name the table with --table", known.join(", "))
    } else if tables.is_empty() {
        format!("the database has no tables; is {name} in another one?")
    } else {
        format!("its tables are {}", tables.join(", "))
    })
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a thread of the snapshot panicked")))
}

fn json(inventory: &facts::Inventory) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(inventory)
        .map_err(|error| Error::new(ErrorKind::Internal, format!("cannot write the inventory: {error}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Stores a short object.
fn store(object: &str, bytes: &[u8], sinks: &dyn Sinks) -> Result<()> {
    let mut sink = sinks.object(object, Some(bytes.len() as u64))?;
    sink.write_all(bytes).map_err(|error| own_error("store", object, error))?;
    Ok(sink.finish()?)
}

/// Stores a table's rows, one canonical JSON line each, in chain order.
fn store_rows(table: &ChainTable, object: &str, sinks: &dyn Sinks, ctx: &Context) -> Result<()> {
    let mut sink = sinks.object(object, None)?;
    let mut form = RowForm::new(table.columns());
    let mut buffer = Vec::with_capacity(2 * BUFFER);
    let mut done = 0;
    table.rewind()?;
    let mut reader = table.reader()?;
    // One reader claims the blocks in their order.
    loop {
        ctx.check()?;
        let more = reader.read_chunk(&mut |row| {
            buffer.extend_from_slice(form.line(row));
            buffer.push(b'\n');
            done += 1;
            if buffer.len() >= BUFFER {
                sink.write_all(&buffer).map_err(|source| audit_chain::error::Error::Io {
                    action: "store",
                    path: object.into(),
                    source,
                })?;
                buffer.clear();
            }
            Ok(())
        })?;
        ctx.progress(Progress { stage: "store chain", object, done, total: None, unit: "rows" });
        if more.is_none() {
            break;
        }
    }
    drop(reader);
    sink.write_all(&buffer).map_err(|error| own_error("store", object, error))?;
    Ok(sink.finish()?)
}

impl Snapshot for PostgresSource {
    fn describe(&self) -> SourceName {
        SourceName {
            kind: KIND.into(),
            name: self.options.name.clone().unwrap_or_else(|| object_stem(self.address.database())),
            location: self.address.location(),
        }
    }

    fn preflight(&self, ctx: &Context) -> backup_core::error::Result<()> {
        let (session, catalog) = self.open(ctx)?;
        self.options.tools.find("pg_dump", session.version())?;
        Ok(catalog.refuse_what_is_hidden()?)
    }

    fn snapshot(
        &self,
        chains: &[ChainRequest],
        sinks: &dyn Sinks,
        ctx: &Context,
    ) -> backup_core::error::Result<SnapshotOutcome> {
        let span =
            tracing::info_span!(parent: &ctx.span(), "postgres snapshot", database = self.address.database());
        let _entered = span.enter();
        Ok(self.take(chains, sinks, ctx)?)
    }
}

impl ChainVerify for PostgresSource {
    fn verify_chain(&self, chain: &ChainRequest, ctx: &Context) -> backup_core::error::Result<ChainReport> {
        let span =
            tracing::info_span!(parent: &ctx.span(), "postgres verify", database = self.address.database());
        let _entered = span.enter();
        let (mut session, catalog) = self.open(ctx)?;
        let joiner = session.joiner().clone();
        let open = OpenChain::open(session.connection(), &joiner, &catalog, chain, ctx)?;
        Ok(open.verify(chain, ctx)?)
    }
}
