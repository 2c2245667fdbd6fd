//! A chain's rows as a [`RowSource`]: a table or a query, streamed by `COPY (SELECT …) TO STDOUT`.
//!
//! Each pass has a connection of its own in the same snapshot ([`Joiner`]), read by a thread that cuts the stream into
//! blocks of whole rows; workers take the blocks and parse them ([`crate::copytext`]). At most [`AHEAD`] blocks wait, so
//! memory does not grow with the table. Rows come in the chain's order, by the server's `ORDER BY`.
//!
//! A format that hashes what its system's own driver saw gets it so: text of `jsonb`, times in UTC with what digits they
//! have. AGLedger's rows are spelt as its dumps are ([`Spelling::Dump`]).
//!
//! Row security: a partitioned table whose policies bind the role, but whose partitions have none, is read from its
//! partitions, which is exact. Where the session's settings are those that a policy asks for, the policy is trusted;
//! else the table is refused, never read in part.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Read as _};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use audit_chain::canonical::RowForm;
use audit_chain::error::{Error as ChainError, Result as ChainResult};
use audit_chain::format::{ChainFormat, Companions, Tables};
use audit_chain::source::{ChunkReader, RowSource};
use audit_chain::value::{Columns, Row};
use backup_core::context::Context;

use crate::catalog::{Catalog, Relation, RelationKind, quote_ident};
use crate::connect::{Canceller, Connection, SessionOptions};
use crate::copytext::{Kind, RowParser};
use crate::error::{Error, ErrorKind, Result};
use crate::session::Joiner;

/// How many bytes a block has at least, but the last.
const BLOCK_BYTES: usize = 256 << 10;
/// How many blocks may wait for a worker.
const AHEAD: usize = 4;
/// How often a waiting worker looks at the caller's flag.
const TICK: Duration = Duration::from_millis(50);
/// How many rows a table besides the chain may have: it is held in memory.
pub const MAX_COMPANION_ROWS: usize = 100_000;

/// How values are spelt for a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spelling {
    /// As the server writes them as text.
    #[default]
    Server,
    /// As AGLedger's dumps do: times in RFC 3339 with milliseconds, JSON as an object, bytes as base64.
    Dump,
}

/// What is read of a table.
#[derive(Debug, Clone, Default)]
pub struct TableOptions {
    /// The `ORDER BY` terms (columns); empty for the order in which the rows lie.
    pub order: Vec<String>,
    /// How values are spelt.
    pub spelling: Spelling,
}

/// Rows of a table or query in one snapshot.
pub struct ChainTable {
    name: String,
    columns: Columns,
    kinds: Vec<Kind>,
    /// The table that the rows lie in, where it is one table that the role sees whole.
    oid: Option<u32>,
    /// How the values of its own columns, as COPY writes them, become those that the query answers.
    raw: Vec<Kind>,
    sql: String,
    joiner: Joiner,
    session: SessionOptions,
    ctx: Context,
    pass: Mutex<Option<Pass>>,
}

impl std::fmt::Debug for ChainTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainTable").field("name", &self.name).field("sql", &self.sql).finish_non_exhaustive()
    }
}

/// A pass that is under way.
struct Pass {
    blocks: Option<Receiver<ChainResult<Vec<u8>>>>,
    next: u64,
    running: Arc<Mutex<Running>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread of a pass shares with who ends it.
#[derive(Default)]
struct Running {
    stop: bool,
    canceller: Option<Canceller>,
}

impl ChainTable {
    /// Opens a table of the catalog, or a query (`SELECT …`), in the snapshot of `joiner`; `connection` is one of its sessions.
    ///
    /// # Errors
    /// As [`Catalog::find`]; [`Error::Filtered`] when policies would hide rows; `Permission`; `InvalidInput` for an order by what is no column.
    pub fn open(
        connection: &mut Connection,
        joiner: &Joiner,
        catalog: &Catalog,
        table: &str,
        options: &TableOptions,
        ctx: &Context,
    ) -> Result<Self> {
        let mut session = joiner.options().clone();
        let (from, name, oid) = if is_query(table) {
            (format!("({}) AS q", table.trim().trim_end_matches(';')), "the query".to_owned(), None)
        } else {
            let relation = catalog.find(table, joiner.database())?;
            let own = relation.kind == RelationKind::Table && !relation.filtered;
            let from = from_of(connection, catalog, relation, &mut session, ctx)?;
            (from, relation.name.clone(), own.then_some(relation.oid))
        };
        let trusted = session.row_security;
        let described = connection.run(&format!("read the columns of {name} in"), ctx, |client| {
            if trusted {
                client.batch_execute("SET LOCAL row_security = on")?;
            }
            let described = client.prepare(&format!("SELECT * FROM {from}"))?;
            if trusted {
                client.batch_execute("SET LOCAL row_security = off")?;
            }
            Ok(described)
        })?;
        let mut columns = Vec::new();
        let mut kinds = Vec::new();
        let mut raw = Vec::new();
        let mut terms = Vec::new();
        for column in described.columns() {
            let (kind, term) = spell(column.name(), column.type_(), options.spelling);
            columns.push(column.name().to_owned());
            raw.push(if term.starts_with("to_char(") { Kind::Millis } else { kind });
            kinds.push(kind);
            terms.push(term);
        }
        let mut order = Vec::with_capacity(options.order.len());
        for name in &options.order {
            // A column that is not there is the format's to tell.
            if columns.contains(name) {
                order.push(format!("q.{}", quote_ident(name)));
            }
        }
        let by = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
        let from = if is_query(table) { from } else { format!("(SELECT * FROM {from}) AS q") };
        let sql = format!("COPY (SELECT {} FROM {from}{by}) TO STDOUT", terms.join(", "));
        Ok(Self {
            name: format!("{}:{name}", joiner.database()),
            columns: Columns::new(columns),
            kinds,
            oid,
            raw,
            sql,
            joiner: joiner.clone(),
            session,
            ctx: ctx.clone(),
            pass: Mutex::new(None),
        })
    }

    /// Returns the table that the rows lie in, where it is one that the role sees whole.
    pub(crate) const fn oid(&self) -> Option<u32> {
        self.oid
    }

    /// Returns what reads rows as COPY writes the table's own columns.
    pub(crate) fn raw_parser(&self) -> RowParser {
        RowParser::new(self.raw.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Pass>> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next block with its number.
    fn take(&self) -> ChainResult<Option<(u64, Vec<u8>)>> {
        let mut pass = self.lock();
        if pass.is_none() {
            *pass = Some(self.begin()?);
        }
        let Some(pass) = pass.as_mut() else { return Ok(None) };
        let Some(blocks) = &pass.blocks else { return Ok(None) };
        loop {
            if self.ctx.cancel().is_cancelled() {
                return Err(ChainError::Cancelled);
            }
            match blocks.recv_timeout(TICK) {
                Ok(block) => {
                    let number = pass.next;
                    pass.next += 1;
                    return Ok(Some((number, block?)));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }

    /// Starts a pass.
    fn begin(&self) -> ChainResult<Pass> {
        let (deliver, blocks) = mpsc::sync_channel(AHEAD);
        let running = Arc::new(Mutex::new(Running::default()));
        let work = Work {
            name: self.name.clone(),
            sql: self.sql.clone(),
            joiner: self.joiner.clone(),
            session: self.session.clone(),
            ctx: self.ctx.clone(),
            running: Arc::clone(&running),
        };
        let thread = std::thread::Builder::new()
            .name("attestore-copy".into())
            .spawn(move || work.serve(&deliver))
            .map_err(|source| ChainError::Io { action: "read", path: self.name.clone().into(), source })?;
        Ok(Pass { blocks: Some(blocks), next: 0, running, thread: Some(thread) })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.blocks = None;
        let state = || self.running.lock().unwrap_or_else(PoisonError::into_inner);
        state().stop = true;
        if let Some(thread) = self.thread.take() {
            // A sort that has not given its first row notices only the cancelled query.
            while !thread.is_finished() {
                let canceller = state().canceller.clone();
                if let Some(canceller) = canceller {
                    canceller.cancel();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = thread.join();
        }
    }
}

/// What the thread of a pass needs.
struct Work {
    name: String,
    sql: String,
    joiner: Joiner,
    session: SessionOptions,
    ctx: Context,
    running: Arc<Mutex<Running>>,
}

impl Work {
    fn serve(self, deliver: &SyncSender<ChainResult<Vec<u8>>>) {
        let result = self.copy(deliver);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.canceller = None;
        let stopped = running.stop;
        drop(running);
        if let Err(error) = result
            && !stopped
        {
            // Where nobody listens any more, nobody needs to know.
            let _ = deliver.send(Err(row_error(&self.name, error)));
        }
    }

    fn copy(&self, deliver: &SyncSender<ChainResult<Vec<u8>>>) -> Result<()> {
        let mut connection = self.joiner.join_with(&self.session, &self.ctx)?;
        {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if running.stop {
                return Ok(());
            }
            running.canceller = Some(connection.canceller());
        }
        let step = format!("read {} of", self.name);
        let database = self.joiner.database();
        let failed = |error| crate::error::explain(error, step.clone(), database);
        let canceller = connection.canceller();
        let mut reader = connection.client().copy_out(&self.sql).map_err(failed)?;
        let mut block = Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4);
        loop {
            let rows = reader.fill_buf().map_err(|error| copy_error(error, &step, database))?;
            if rows.is_empty() {
                break;
            }
            block.extend_from_slice(rows);
            let taken = rows.len();
            reader.consume(taken);
            if block.len() >= BLOCK_BYTES && block.ends_with(b"\n") {
                let next = Vec::with_capacity(block.len());
                if deliver.send(Ok(std::mem::replace(&mut block, next))).is_err() {
                    // Nobody takes the rest: the server stops sending it.
                    canceller.cancel();
                    let _ = reader.read_to_end(&mut Vec::new());
                    return Ok(());
                }
            }
        }
        if !block.is_empty() {
            let _ = deliver.send(Ok(block));
        }
        Ok(())
    }
}

/// Makes an error of a `COPY` that broke off.
pub(crate) fn copy_error(error: std::io::Error, step: &str, database: &str) -> Error {
    match error.downcast::<postgres::Error>() {
        Ok(error) => crate::error::explain(error, step, database),
        Err(error) => Error::Core(
            backup_core::error::Error::new(
                ErrorKind::Unavailable,
                format!("cannot {step} {database}: the connection was lost"),
            )
            .with_source(error),
        ),
    }
}

/// Wraps a failure to read rows for the crate that verifies them.
fn row_error(input: &str, error: Error) -> ChainError {
    match error.kind() {
        ErrorKind::Cancelled => ChainError::Cancelled,
        kind => ChainError::Source {
            input: input.to_owned(),
            kind,
            source: Box::new(backup_core::error::Error::from(error)),
        },
    }
}

impl RowSource for ChainTable {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn columns(&self) -> &Columns {
        &self.columns
    }

    fn reader(&self) -> ChainResult<Box<dyn ChunkReader + '_>> {
        Ok(Box::new(BlockReader { table: self, parser: RowParser::new(self.kinds.clone()) }))
    }

    fn rewind(&self) -> ChainResult<bool> {
        *self.lock() = None;
        Ok(true)
    }
}

/// One worker.
struct BlockReader<'a> {
    table: &'a ChainTable,
    parser: RowParser,
}

impl ChunkReader for BlockReader<'_> {
    fn read_chunk(&mut self, each: &mut dyn FnMut(&Row<'_>) -> ChainResult<()>) -> ChainResult<Option<u64>> {
        let Some((number, block)) = self.table.take()? else { return Ok(None) };
        match self.parser.block(&block, each)? {
            None => Ok(Some(number)),
            Some(row) => Err(ChainError::Malformed {
                input: self.table.name.clone(),
                place: format!("row {row} of block {number}"),
                what: "the server sent a row with another number of columns".into(),
            }),
        }
    }
}

/// Reports whether a table's name is a query.
fn is_query(table: &str) -> bool {
    let word = table.trim_start().split(|c: char| c.is_whitespace() || c == '(').next().unwrap_or("");
    word.eq_ignore_ascii_case("select") || word.eq_ignore_ascii_case("with")
}

/// Says what is behind `FROM`, so that no policy hides rows.
fn from_of(
    connection: &mut Connection,
    catalog: &Catalog,
    relation: &Relation,
    session: &mut SessionOptions,
    ctx: &Context,
) -> Result<String> {
    if !relation.filtered {
        if !relation.readable {
            return Err(Error::new(
                ErrorKind::Permission,
                format!("the role {} may not read {relation}", catalog.role),
            )
            .with_hint(format!("GRANT SELECT ON {relation} TO {0}, and USAGE on its schema", catalog.role)));
        }
        return Ok(relation.name.clone());
    }
    if relation.kind == RelationKind::Partitioned {
        let leaves = catalog.leaves(relation.oid);
        if !leaves.is_empty() && leaves.iter().all(|leaf| !leaf.filtered && leaf.readable) {
            return union(connection, relation, &leaves, ctx);
        }
    }
    if relation.readable && settings_fit(connection, relation, session, ctx)? {
        session.row_security = true;
        return Ok(relation.name.clone());
    }
    Err(Error::Filtered { table: relation.name.clone(), role: catalog.role.clone() })
}

/// Reads the partitions instead of the table: columns by name, since partitions may have them in another order.
fn union(
    connection: &mut Connection,
    relation: &Relation,
    leaves: &[&Relation],
    ctx: &Context,
) -> Result<String> {
    let rows = connection.run("read the schema of", ctx, |client| {
        client.query(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            &[&relation.oid],
        )
    })?;
    let columns = rows.iter().map(|row| quote_ident(row.get(0))).collect::<Vec<_>>().join(", ");
    let parts = leaves.iter().map(|leaf| format!("SELECT {columns} FROM ONLY {leaf}"));
    Ok(format!("({}) AS p", parts.collect::<Vec<_>>().join(" UNION ALL ")))
}

/// Reports whether every policy for reading asks for a setting that the session was given.
fn settings_fit(
    connection: &mut Connection,
    relation: &Relation,
    session: &SessionOptions,
    ctx: &Context,
) -> Result<bool> {
    let rows = connection.run("read the policies of", ctx, |client| {
        client.query(
            "SELECT coalesce(pg_get_expr(polqual, polrelid), '') FROM pg_policy WHERE polrelid = $1 AND polcmd IN ('*', 'r')",
            &[&relation.oid],
        )
    })?;
    let named =
        |expression: &str| session.settings.iter().any(|(name, _)| expression.contains(&format!("'{name}'")));
    let fits = !rows.is_empty() && rows.iter().all(|row| named(row.get(0)));
    if fits {
        tracing::info!(
            table = relation.name,
            "read under its row-security policies, with the settings that they ask for"
        );
    }
    Ok(fits)
}

/// Says how a column is selected and what its text stands for.
fn spell(name: &str, of: &postgres::types::Type, spelling: Spelling) -> (Kind, String) {
    use postgres::types::{Kind as TypeKind, Type};
    let mut of = of.clone();
    while let TypeKind::Domain(base) = of.kind().clone() {
        of = base;
    }
    let column = format!("q.{}", quote_ident(name));
    let dump = spelling == Spelling::Dump;
    if dump && matches!(of.kind(), TypeKind::Array(_)) {
        return (Kind::Json, format!("to_json({column})"));
    }
    match of {
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => (Kind::Int, column),
        Type::BOOL => (Kind::Bool, column),
        Type::NUMERIC => (Kind::Number, column),
        Type::FLOAT4 | Type::FLOAT8 => (Kind::Real, column),
        Type::BYTEA if dump && name.contains("hash") => (Kind::Hex, column),
        Type::BYTEA if dump => (Kind::Base64, column),
        Type::BYTEA => (Kind::Bytes, column),
        Type::JSON | Type::JSONB if dump => (Kind::Json, column),
        Type::TIMESTAMPTZ if dump => {
            (Kind::Text, format!("to_char({column}, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"))
        }
        _ => (Kind::Text, column),
    }
}

/// Returns how a format's rows are read.
#[must_use]
pub fn options_for(format: &dyn ChainFormat) -> TableOptions {
    let dump = format.name() == "agledger";
    TableOptions {
        order: format.order().iter().map(|name| (*name).to_owned()).collect(),
        spelling: if dump { Spelling::Dump } else { Spelling::Server },
    }
}

/// What a format reads besides its chain, in the same snapshot.
#[derive(Debug, Default)]
pub struct Beside {
    /// Small tables, held in memory.
    pub companions: Companions,
    /// Tables that are read as they come.
    pub tables: BTreeMap<String, ChainTable>,
}

impl Beside {
    /// Opens the tables that a format reads besides the chain; those that are not there are left out. They are
    /// looked for in the chain's own schema first.
    ///
    /// # Errors
    /// As [`ChainTable::open`]; `Unsupported` when a table that is held in memory has more than [`MAX_COMPANION_ROWS`] rows.
    pub fn open(
        connection: &mut Connection,
        joiner: &Joiner,
        catalog: &Catalog,
        chain: &str,
        format: &dyn ChainFormat,
        ctx: &Context,
    ) -> Result<Self> {
        let schema =
            if is_query(chain) { None } else { Some(catalog.find(chain, joiner.database())?.schema.clone()) };
        let large = format.name() == "agledger";
        let mut found = Self::default();
        for name in format.companions() {
            let same = catalog
                .relations
                .iter()
                .find(|one| Some(&one.schema) == schema.as_ref() && one.bare == *name);
            let relation = match same {
                Some(same) => same.name.clone(),
                None => match catalog.find(name, joiner.database()) {
                    Ok(relation) => relation.name.clone(),
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                },
            };
            let options = TableOptions { order: Vec::new(), ..options_for(format) };
            let table = ChainTable::open(connection, joiner, catalog, &relation, &options, ctx)?;
            if large {
                found.tables.insert((*name).to_owned(), table);
            } else {
                found.companions.insert((*name).to_owned(), whole(&table)?);
            }
        }
        Ok(found)
    }

    /// Lends the tables to a verification.
    #[must_use]
    pub fn lent(&self) -> Tables<'_> {
        self.tables
            .iter()
            .map(|(name, table)| (name.clone(), Box::new(Lent(table)) as Box<dyn RowSource>))
            .collect()
    }
}

/// A table that stays with its owner.
#[derive(Debug)]
pub struct Lent<'a>(pub &'a ChainTable);

impl RowSource for Lent<'_> {
    fn name(&self) -> String {
        self.0.name()
    }

    fn columns(&self) -> &Columns {
        self.0.columns()
    }

    fn reader(&self) -> ChainResult<Box<dyn ChunkReader + '_>> {
        self.0.reader()
    }

    fn rewind(&self) -> ChainResult<bool> {
        self.0.rewind()
    }
}

/// Reads a small table whole, each row a JSON object of the stored values.
fn whole(table: &ChainTable) -> Result<Vec<serde_json::Map<String, serde_json::Value>>> {
    let mut form = RowForm::new(table.columns());
    let mut rows = Vec::new();
    let mut broken = None;
    let mut reader = table.reader()?;
    while reader
        .read_chunk(&mut |row| {
            match serde_json::from_slice(form.line(row)) {
                Ok(line) if rows.len() < MAX_COMPANION_ROWS => rows.push(line),
                Ok(_) => {
                    broken = Some(Error::new(
                        ErrorKind::Unsupported,
                        format!("table {} has more than {MAX_COMPANION_ROWS} rows; it is read whole beside the chain", table.name),
                    ));
                    return Err(ChainError::Cancelled);
                }
                Err(error) => {
                    broken = Some(Error::new(
                        ErrorKind::Internal,
                        format!("a row of {} does not read back as JSON: {error}", table.name),
                    ));
                    return Err(ChainError::Cancelled);
                }
            }
            Ok(())
        })
        .or_else(|error| broken.take().map_or_else(|| Err(Error::from(error)), Err))?
        .is_some()
    {}
    drop(reader);
    table.rewind()?;
    Ok(rows)
}
