//! Writes native chains from the outside: appends records, erases values that records commit to (B12).
//!
//! A service appends in its own transaction with `backup_sqlite::ledger`; this is for scripts, and for the person who answers
//! a request to erase. The database is opened through SQLite beside whoever else uses it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};

use audit_chain::erasure::ErasedField;
use audit_chain::native::NativeKey;
use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::Manifest;
use backup_sqlite::ledger::{
    DEFAULT_BUSY_TIMEOUT, Draft, EraseOptions, Layout, Ledger, Pending, Receipt, Writer, WriterOptions, scrub,
};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::backup::open_repository;
use crate::{chain, input, keys};

/// The longest line that is appended, in bytes.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// How many records are on their way at once.
const AHEAD: usize = 1_024;

/// How records are appended.
#[derive(Debug, Clone, Default)]
pub struct AppendOptions {
    /// The table, where it is not the format's own.
    pub table: Option<String>,
    /// The chain's id.
    pub chain: String,
    /// Secrets as `NAME=REF`; the first makes the hashes, the others tell which key it takes over from.
    pub secrets: Vec<String>,
    /// JSON pointers to values that records only commit to.
    pub personal: Vec<String>,
    /// Makes the database where there is none.
    pub create: bool,
    /// Makes the tables without the triggers that forbid changes.
    pub unguarded: bool,
    /// Goes on with another key than the chain's last record.
    pub rotate: bool,
}

/// What was appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Appended {
    /// The chain.
    pub chain: String,
    /// The table.
    pub table: String,
    /// How many records, without that of a new key.
    pub records: u64,
    /// The record that says that another key took over, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotated: Option<Receipt>,
    /// The first record.
    pub first: Option<Receipt>,
    /// The last record.
    pub last: Option<Receipt>,
}

/// Appends NDJSON from standard input, each line the body of a record as it stands.
///
/// # Errors
/// `Malformed` with the line; `KeyRejected` when the secret is not that of the chain. Records before the line that failed
/// are appended, and the error says how many.
pub fn append_stdin(source: &str, options: &AppendOptions, ctx: &Context) -> Result<Appended> {
    append(source, options, chain::stdin(ctx), ctx)
}

/// Appends NDJSON.
///
/// # Errors
/// As [`append_stdin`].
pub fn append(source: &str, options: &AppendOptions, lines: impl Read, ctx: &Context) -> Result<Appended> {
    let layout = layout(options.table.as_deref())?;
    let mut connection = open(source, options.create)?;
    layout.create(&connection, !options.unguarded)?;
    let mut ledger = Ledger::new(&options.chain).with_layout(layout.clone());
    let rotated = take_key(&mut ledger, &mut connection, options)?;
    let writer = Writer::over(connection, ledger, &WriterOptions::default())?;
    let mut done = Appended {
        chain: options.chain.clone(),
        table: layout.table().to_owned(),
        records: 0,
        rotated,
        first: None,
        last: None,
    };
    let mut waiting = VecDeque::new();
    let read = read_lines(lines, ctx, &mut |number, line| {
        waiting.push_back((number, writer.submit(draft(line, options)?)?));
        if waiting.len() >= AHEAD { settle(&mut waiting, &mut done) } else { Ok(()) }
    });
    let mut settled = Ok(());
    while settled.is_ok() && !waiting.is_empty() {
        settled = settle(&mut waiting, &mut done);
    }
    writer.close()?;
    settled.and(read).map_err(|error| {
        if done.records == 0 || error.kind() == ErrorKind::Cancelled {
            return error;
        }
        let told = Error::new(
            error.kind(),
            format!("{}; {} records before it are appended", error.full_text(), done.records),
        );
        match error.hint() {
            Some(hint) => told.with_hint(hint),
            None => told,
        }
    })?;
    Ok(done)
}

/// Takes the outcome of the oldest record on its way.
fn settle(waiting: &mut VecDeque<(u64, Pending)>, done: &mut Appended) -> Result<()> {
    let Some((number, pending)) = waiting.pop_front() else { return Ok(()) };
    let receipt = pending.wait().map_err(|error| {
        let told = Error::new(error.kind(), format!("line {number}: {}", error.full_text()));
        match error.hint() {
            Some(hint) => told.with_hint(hint),
            None => told,
        }
    })?;
    done.records += 1;
    done.first.get_or_insert_with(|| receipt.clone());
    done.last = Some(receipt);
    Ok(())
}

fn draft(line: &str, options: &AppendOptions) -> Result<Draft> {
    Draft::new(line).personal(&options.personal)
}

/// Reads lines of JSON; blank ones are passed over.
fn read_lines(lines: impl Read, ctx: &Context, each: &mut dyn FnMut(u64, &str) -> Result<()>) -> Result<()> {
    let mut lines = BufReader::new(lines);
    let mut line = Vec::new();
    for number in 1.. {
        ctx.check()?;
        line.clear();
        let read = lines.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line);
        let length = read.map_err(|error| Error::io("read", "standard input", error))?;
        if length == 0 {
            break;
        }
        let bad =
            |what: String| Error::new(ErrorKind::Malformed, format!("standard input: line {number}: {what}"));
        if length as u64 > MAX_LINE_BYTES {
            return Err(bad(format!("longer than {MAX_LINE_BYTES} bytes")));
        }
        let text = std::str::from_utf8(&line).map_err(|_| bad("not UTF-8".into()))?.trim();
        if text.is_empty() {
            continue;
        }
        serde_json::from_str::<&RawValue>(text).map_err(|error| bad(format!("no JSON: {error}")))?;
        each(number, text).map_err(|error| {
            let own = matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Malformed)
                && !error.to_string().contains("line ");
            if own {
                Error::new(error.kind(), format!("standard input: line {number}: {}", error.full_text()))
            } else {
                error
            }
        })?;
    }
    Ok(())
}

/// Chooses the key, and appends the record of its first use where it is another than before.
fn take_key(
    ledger: &mut Ledger,
    connection: &mut Connection,
    options: &AppendOptions,
) -> Result<Option<Receipt>> {
    let secrets = keys::read_secrets(&options.secrets)?;
    let made = secrets.iter().map(|(_, secret)| Ok(NativeKey::new(secret)?)).collect::<Result<Vec<_>>>()?;
    let head = ledger.head(connection)?;
    let before = ledger.head_key(connection)?;
    let Some(key) = made.first() else {
        return match before {
            None => Ok(None),
            Some(id) => Err(Error::new(
                ErrorKind::KeyRejected,
                format!(
                    "the last record of chain {:?} is keyed (key id {id}): a plain record cannot follow",
                    ledger.chain()
                ),
            )
            .with_hint("give the secret with --secret NAME=REF")),
        };
    };
    if head.seq() == 0 || before.as_deref() == Some(key.id()) {
        *ledger = ledger.clone().with_key(key.clone());
        return Ok(None);
    }
    let old = before.as_ref().and_then(|id| made.iter().find(|key| key.id() == id));
    if let (Some(id), false) = (&before, options.rotate) {
        return Err(Error::new(
            ErrorKind::KeyRejected,
            format!(
                "the last record of chain {:?} was made with the key id {id}, the secret given has {}",
                ledger.chain(),
                key.id()
            ),
        )
        .with_hint("give the chain's secret, or --rotate to go on with a new one"));
    }
    if let Some(old) = old {
        *ledger = ledger.clone().with_key(old.clone());
    }
    let tx = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|error| failed(source_of(ledger), error))?;
    let receipt = ledger.rotate(&tx, key.clone())?;
    tx.commit().map_err(|error| failed(source_of(ledger), error))?;
    Ok(Some(receipt))
}

fn source_of(ledger: &Ledger) -> String {
    format!("chain {:?}", ledger.chain())
}

/// What is erased.
#[derive(Debug, Clone, Default)]
pub struct EraseRequest {
    /// The table, where it is not the format's own.
    pub table: Option<String>,
    /// The chain's id; may be left out where the table has one chain.
    pub chain: Option<String>,
    /// The records, by number.
    pub records: Vec<u64>,
    /// JSON pointers of the values; empty means all that the records commit to.
    pub fields: Vec<String>,
    /// Who erases.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Secrets as `NAME=REF`: a keyed chain takes the one of its last record.
    pub secrets: Vec<String>,
    /// A repository whose backups are looked through for copies of the values.
    pub repository: Option<String>,
}

/// What was erased, and where copies remain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EraseOutcome {
    /// The chain.
    pub chain: String,
    /// The values.
    pub erased: Vec<ErasedField>,
    /// The records that say so.
    pub records: Vec<Receipt>,
    /// Whether no old page is left in the database's own files.
    pub scrubbed: bool,
    /// The backups of the repository that hold the values until they are pruned; `null` where none was looked through.
    pub backups: Option<Vec<String>>,
    /// What is worth saying.
    pub notes: Vec<String>,
}

/// Erases values on record.
///
/// # Errors
/// `NotFound` when a record has no such value; `KeyRejected` when the chain's secret is not at hand; what SQLite says.
/// Nothing is erased then.
pub fn erase(source: &str, request: &EraseRequest, ctx: &Context) -> Result<EraseOutcome> {
    ctx.check()?;
    let layout = layout(request.table.as_deref())?;
    let mut connection = open(source, false)?;
    let chain = match &request.chain {
        Some(chain) => chain.clone(),
        None => only_chain(&connection, source, &layout)?,
    };
    let mut ledger = Ledger::new(&chain).with_layout(layout.clone());
    let sql = |error| failed(source.to_owned(), error);
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
    if let Some(wanted) = ledger.head_key(&tx)? {
        let secrets = keys::read_secrets(&request.secrets)?;
        let fitting = secrets
            .iter()
            .filter_map(|(_, secret)| NativeKey::new(secret).ok())
            .find(|key| key.id() == wanted);
        ledger = ledger.with_key(fitting.ok_or_else(|| {
            Error::new(
                ErrorKind::KeyRejected,
                format!("no secret at hand has the key id {wanted} of the last record of chain {chain:?}"),
            )
            .with_hint("give the secret with --secret NAME=REF; nothing was erased")
        })?);
    }
    let mut fields = Vec::new();
    for seq in &request.records {
        if request.fields.is_empty() {
            let all = ledger.values_of(&tx, *seq)?;
            if all.is_empty() {
                return Err(Error::new(ErrorKind::NotFound, format!("record {seq} of chain {chain:?} has no value to erase"))
                    .with_hint("only values that a record commits to (`personal`) and that are still there can be erased"));
            }
            fields.extend(all);
        } else {
            fields.extend(
                request.fields.iter().map(|pointer| ErasedField { seq: *seq, pointer: pointer.clone() }),
            );
        }
    }
    let options = EraseOptions { by: request.by.clone(), reason: request.reason.clone(), keep_pages: false };
    let erased = ledger.erase(&tx, &fields, &options)?;
    tx.commit().map_err(sql)?;
    let mut notes = Vec::new();
    let scrubbed = match scrub(&connection) {
        Ok(()) => true,
        Err(error) => {
            notes.push(error.full_text());
            notes.extend(error.hint());
            false
        }
    };
    let last = erased.fields.iter().map(|field| field.seq).min().unwrap_or(0);
    let backups = match &request.repository {
        None => None,
        Some(repository) => {
            let holding = holding(repository, layout.table(), &chain, last, &mut notes)?;
            Some(holding)
        }
    };
    notes.push("copies made before still hold the values: backups until they are pruned, files that restores set aside, exports of the values".into());
    Ok(EraseOutcome { chain, erased: erased.fields, records: erased.records, scrubbed, backups, notes })
}

/// Lists the backups that were made while the chain had the record and its values.
fn holding(
    repository: &str,
    table: &str,
    chain: &str,
    seq: u64,
    notes: &mut Vec<String>,
) -> Result<Vec<String>> {
    let repository = open_repository(repository)?;
    let reaches = |manifest: &Manifest| {
        let tables = manifest.chains.iter().filter(|entry| entry.format == "native" && entry.table == table);
        tables.filter_map(|entry| entry.points.chain(chain)).any(|point| point.records >= seq)
    };
    let mut holding = Vec::new();
    for record in repository.state()?.live_records() {
        let id = &record.event.id;
        match repository.show(id) {
            Ok(shown) if reaches(&shown.manifest) => holding.push(id.clone()),
            Ok(shown) if shown.manifest.chains.is_empty() => {
                notes.push(format!("backup {id} names no chain: it may hold the values"));
            }
            Ok(_) => {}
            Err(error) => notes.push(format!("backup {id} cannot be read: {error}")),
        }
    }
    Ok(holding)
}

fn layout(table: Option<&str>) -> Result<Layout> {
    table.map_or_else(|| Ok(Layout::default()), Layout::new)
}

/// Returns the chain of a table that has one.
fn only_chain(connection: &Connection, source: &str, layout: &Layout) -> Result<String> {
    let sql = |error| failed(source.to_owned(), error);
    let table = layout.table().replace('"', "\"\"");
    let mut statement = connection
        .prepare(&format!("SELECT DISTINCT chain FROM \"{table}\" ORDER BY chain LIMIT 9"))
        .map_err(sql)?;
    let found = statement.query_map([], |row| row.get::<_, String>(0)).map_err(sql)?;
    let found = found.collect::<rusqlite::Result<Vec<_>>>().map_err(sql)?;
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => {
            Err(Error::new(ErrorKind::NotFound, format!("{source}: table {:?} has no chain", layout.table())))
        }
        some => {
            Err(Error::new(ErrorKind::InvalidInput, format!("{source}: several chains: {}", some.join(", ")))
                .with_hint("name one with --chain"))
        }
    }
}

/// Opens a database for writing.
fn open(source: &str, create: bool) -> Result<Connection> {
    let path = input::database(source)?;
    if !create && path.symlink_metadata().is_err() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("no database at {}: there is no such file", path.display()),
        )
        .with_hint("check the path, or make the database with `chain append --create`"));
    }
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let failed = |error| failed(path.display().to_string(), error);
    // A path is never taken for a `file:` URI.
    let absolute = std::path::absolute(&path).map_err(|error| Error::io("resolve", &path, error))?;
    let connection = Connection::open_with_flags(absolute, flags).map_err(failed)?;
    connection.busy_timeout(DEFAULT_BUSY_TIMEOUT).map_err(failed)?;
    connection.execute_batch("PRAGMA trusted_schema=OFF; PRAGMA synchronous=FULL").map_err(failed)?;
    if create {
        connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).map_err(failed)?;
    }
    Ok(connection)
}

/// Explains what SQLite says.
fn failed(what: String, error: rusqlite::Error) -> Error {
    backup_sqlite::explain(error, "write", std::path::Path::new(&what))
}
