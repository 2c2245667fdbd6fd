//! A restore into a database that is thrown away: on a given server, or on a throwaway one where none is at hand.
//!
//! The database `attestore_drill_<hex>` is made from `template0`, loaded (a parallel dump or an archive of `pg_dump`), and
//! asked: rows against the manifest (with digests, where the dump has them), chains against where they stood, the registry
//! of keys against its CSV, the caller's questions. What is wrong with the backup is a check that does not hold; an
//! error means that the drill could not be made.
//!
//! A session holds the advisory lock of its drill's name. When this process dies, the lock is free: the next drill on
//! that server drops the database ([`sweep`]). A throwaway server ends with this process ([`crate::cluster`]).

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use audit_chain::formats::agledger::registry_csv;
use audit_chain::report::{ChainReport, Verdict};
use backup_core::context::Context;
use backup_core::error::Error as CoreError;
use backup_core::traits::{BackupObjects, ChainRequest, ChainVerify as _, Check, SourceFacts};

use crate::catalog::quote_ident;
use crate::cluster::{ClusterOptions, ScratchCluster};
use crate::connect::{Address, Connection, SessionOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::facts::{self, Inventory, detail};
use crate::parallel::{self, LoadOptions};
use crate::source::{ONLY, PostgresSource, REGISTRY_OBJECT, SourceOptions};
use crate::table::{ChainTable, TableOptions};
use crate::tools::{Running, ToolOptions};

/// What the names of a drill's databases begin with.
pub const PREFIX: &str = "attestore_drill_";
/// How much of an archive is sent at once, in bytes.
const BUFFER: usize = 256 << 10;
/// The table of AGLedger's keys.
const REGISTRY_TABLE: &str = "vault_signing_keys";

/// A question to the restored database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlQuestion {
    /// One query.
    pub sql: String,
    /// The first value that it must answer, as text; `None` wants something but NULL, 0, false or nothing.
    pub expected: Option<String>,
}

/// How a drill is made.
#[derive(Debug, Clone, Default)]
pub struct DrillOptions {
    /// The server to drill on (its database is only connected to); `None` starts a throwaway one.
    pub server: Option<Address>,
    /// Where PostgreSQL's programs are looked for.
    pub tools: ToolOptions,
    /// The folder for scratch files and a throwaway server; `None` takes the system's folder for temporary files.
    pub scratch: Option<PathBuf>,
    /// How many connections load; 0 means as many as there are cores.
    pub jobs: usize,
    /// The caller's questions.
    pub questions: Vec<SqlQuestion>,
    /// The chains to verify, with the keys at hand and where they stood at the backup.
    pub chains: Vec<ChainRequest>,
    /// Settings of the sessions that read chains (`caracal.zone_id`, `*`).
    pub settings: Vec<(String, String)>,
}

/// How long one step took.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Timing {
    /// The step.
    pub step: String,
    /// In seconds.
    pub seconds: f64,
}

/// What a drill showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Drilled {
    /// The server: its version, and whether it was a throwaway one.
    pub server: String,
    /// What was checked.
    pub checks: Vec<Check>,
    /// The chains.
    pub chains: Vec<ChainReport>,
    /// How long each step took.
    pub timings: Vec<Timing>,
}

impl Drilled {
    /// Reports whether every check holds.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

/// Makes a drill of one database of a backup; `name` is the source's name in the manifest.
///
/// # Errors
/// When the server cannot be used, programs are missing, or the work is cancelled. What is wrong with the backup is in the result.
pub fn drill(
    backup: &dyn BackupObjects,
    name: &str,
    options: &DrillOptions,
    ctx: &Context,
) -> Result<Drilled> {
    let facts = backup
        .manifest()
        .source(name)
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("the backup holds no database {name:?}")))?;
    let mut clock = Clock { timings: Vec::new(), since: Instant::now() };
    let dumped: i32 =
        facts.details.get(detail::SERVER_NUMBER).and_then(|text| text.parse().ok()).unwrap_or_default();
    let cluster = match &options.server {
        Some(_) => None,
        None => {
            let made = ScratchCluster::start(
                &ClusterOptions {
                    tools: options.tools.clone(),
                    at_least: dumped / 10_000,
                    parent: options.scratch.clone(),
                    ..ClusterOptions::default()
                },
                ctx,
            )?;
            clock.step("start a throwaway server");
            Some(made)
        }
    };
    let server = match (&options.server, &cluster) {
        (Some(server), _) => server.clone(),
        (None, Some(cluster)) => cluster.address("postgres")?,
        (None, None) => return Err(Error::new(ErrorKind::Internal, "a drill without a server")),
    };
    let scratch = Scratch::create(&server, facts, cluster.is_some(), ctx)?;
    let stem = stem(backup, name);
    let throwaway = if cluster.is_some() { " (throwaway)" } else { "" };
    let mut done = Drilled {
        server: format!("PostgreSQL {}{throwaway}", scratch.keeper.version().short()),
        checks: Vec::new(),
        chains: Vec::new(),
        timings: Vec::new(),
    };
    if cluster.is_some() {
        roles(backup, &stem, &server, ctx)?;
    }
    clock.step("make a database");
    match restore(backup, &stem, &scratch, options, ctx) {
        Ok(()) => done.checks.push(Check { name: "restored".into(), ok: true, detail: done.server.clone() }),
        Err(Error::Core(CoreError::Cancelled)) => return Err(CoreError::Cancelled.into()),
        Err(error) => {
            let detail = CoreError::from(error).full_text();
            done.checks.push(Check { name: "restored".into(), ok: false, detail });
            clock.step("restore");
            done.timings = clock.timings;
            return Ok(done);
        }
    }
    clock.step("restore");
    done.checks.extend(rows(backup, &stem, facts, &scratch, options, ctx)?);
    clock.step("compare rows");
    for chain in &options.chains {
        let (check, report) = verify(chain, &scratch, options, ctx);
        done.checks.push(check);
        done.chains.extend(report);
    }
    done.checks.extend(registry(backup, &scratch, ctx)?);
    clock.step("verify chains and registry");
    for question in &options.questions {
        done.checks.push(ask(question, &scratch, options, ctx)?);
    }
    clock.step("ask");
    scratch.remove(ctx)?;
    if let Some(cluster) = cluster {
        drop(cluster);
    }
    clock.step("remove");
    done.timings = clock.timings;
    Ok(done)
}

struct Clock {
    timings: Vec<Timing>,
    since: Instant,
}

impl Clock {
    fn step(&mut self, step: &str) {
        let seconds = (self.since.elapsed().as_secs_f64() * 1_000.0).round() / 1_000.0;
        self.timings.push(Timing { step: step.to_owned(), seconds });
        self.since = Instant::now();
    }
}

/// Returns the stem under which a source's objects are stored: its name, or that of a backup's only database.
fn stem(backup: &dyn BackupObjects, name: &str) -> String {
    let has = |stem: &str| {
        let objects = &backup.manifest().objects;
        let (dump, folder) = (format!("database/{stem}.dump"), format!("database/{stem}/"));
        objects.iter().any(|object| object.plain_name() == dump || object.plain_name().starts_with(&folder))
    };
    if has(name) { name.to_owned() } else { ONLY.to_owned() }
}

/// The database of a drill, dropped with the value.
struct Scratch {
    /// Holds the lock of the name, on the server's own database.
    keeper: Connection,
    address: Address,
    name: String,
    there: bool,
}

impl Scratch {
    fn create(server: &Address, facts: &SourceFacts, own: bool, ctx: &Context) -> Result<Self> {
        let options = SessionOptions { read_only: false, ..SessionOptions::default() };
        let mut keeper = Connection::open(server, &options, ctx)?;
        if !own {
            sweep(&mut keeper, ctx)?;
        }
        let hex: String = keeper.run("name a drill in", ctx, |client| {
            Ok(client.query_one("SELECT replace(gen_random_uuid()::text, '-', '')", &[])?.get(0))
        })?;
        let name = format!("{PREFIX}{}", hex.get(..16).unwrap_or(&hex));
        keeper.run("lock a drill in", ctx, |client| {
            client.query_one("SELECT pg_advisory_lock(hashtext($1))::text", &[&name])
        })?;
        let fact = |key: &str| facts.details.get(key).map(|text| text.replace('\'', "''"));
        let encoding = fact(detail::ENCODING).unwrap_or_else(|| "UTF8".into());
        let (collate, ctype) = (fact(detail::COLLATE), fact(detail::CTYPE));
        let locale = |collate: &str, ctype: &str| {
            format!(
                "CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE '{collate}' LC_CTYPE '{ctype}'"
            )
        };
        let wanted = locale(collate.as_deref().unwrap_or("C"), ctype.as_deref().unwrap_or("C"));
        let made = keeper.run("make a database beside", ctx, |client| client.batch_execute(&wanted));
        if let Err(error) = made {
            // A locale that this machine does not have changes how text sorts, not what it is.
            if error.kind() == ErrorKind::Permission || ctx.cancel().is_cancelled() {
                return Err(error);
            }
            tracing::warn!(%error, "the drill's database has locale C");
            keeper.run("make a database beside", ctx, |client| client.batch_execute(&locale("C", "C")))?;
        }
        let address = keeper.pinned().with_database(&name);
        Ok(Self { keeper, address, name, there: true })
    }

    fn remove(mut self, ctx: &Context) -> Result<()> {
        self.there = false;
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        self.keeper.run("drop the drill's database beside", ctx, |client| client.batch_execute(&sql))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.there {
            // What cannot be dropped now is left to the next drill's sweep.
            let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            let _ = self.keeper.client().batch_execute(&sql);
        }
    }
}

/// Drops the databases of drills whose process is gone; returns how many.
///
/// # Errors
/// What the server says.
pub fn sweep(connection: &mut Connection, ctx: &Context) -> Result<usize> {
    let names: Vec<String> = connection.run("list the databases beside", ctx, |client| {
        let rows = client.query(
            "SELECT datname::text FROM pg_database WHERE datname ~ ('^' || $1 || '[0-9a-f]{16}$') AND pg_has_role(datdba, 'MEMBER')",
            &[&PREFIX],
        )?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    })?;
    let mut swept = 0;
    for name in names {
        connection.run("drop an old drill's database beside", ctx, |client| {
            let free: bool = client.query_one("SELECT pg_try_advisory_lock(hashtext($1))", &[&name])?.get(0);
            if free {
                client
                    .batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_ident(&name)))?;
                client.query_one("SELECT pg_advisory_unlock(hashtext($1))", &[&name])?;
                swept += 1;
            }
            Ok(())
        })?;
    }
    Ok(swept)
}

/// Makes the roles that the database's objects belong to, on a server that is thrown away; they cannot log in.
fn roles(backup: &dyn BackupObjects, stem: &str, server: &Address, ctx: &Context) -> Result<()> {
    let object = format!("database/{stem}.inventory.json");
    if backup.manifest().object(&object).is_none() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    backup.open(&object)?.read_to_end(&mut bytes).map_err(|error| CoreError::io("read", &object, error))?;
    let inventory: Inventory = serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(ErrorKind::Malformed, format!("{object}: {error}")))?;
    let options = SessionOptions { read_only: false, ..SessionOptions::default() };
    let mut connection = Connection::open(server, &options, ctx)?;
    for role in inventory.roles.iter().chain([&inventory.owner]) {
        connection.run("make roles on the server of", ctx, |client| {
            let known = client.query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[role])?;
            if known.is_none() && !role.starts_with("pg_") {
                client.batch_execute(&format!("CREATE ROLE {}", quote_ident(role)))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Loads the dump. Its owners and rights count only where its roles are.
fn restore(
    backup: &dyn BackupObjects,
    stem: &str,
    scratch: &Scratch,
    options: &DrillOptions,
    ctx: &Context,
) -> Result<()> {
    let pg_restore = options.tools.find("pg_restore", scratch.keeper.version())?;
    let given = options.server.is_some();
    let flags: Vec<String> =
        if given { vec!["--no-owner".into(), "--no-privileges".into()] } else { Vec::new() };
    if parallel::is_parallel(backup, stem) {
        let folder = options.scratch.clone().unwrap_or_else(std::env::temp_dir);
        let how = LoadOptions { jobs: options.jobs, pg_restore_options: flags };
        parallel::load(backup, stem, &scratch.address, &pg_restore, &folder, &how, ctx)?;
        return Ok(());
    }
    let object = format!("database/{stem}.dump");
    let connection = Connection::open(&scratch.address, &SessionOptions::default(), ctx)?;
    let mut command = pg_restore.command(&connection);
    command.args(["--exit-on-error", "--no-password"]).args(flags);
    command.arg(format!("--dbname={}", scratch.name)).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut running = Running::start("pg_restore", command, ctx)?;
    let mut input = running
        .input()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "pg_restore was started without a pipe"))?;
    let mut archive = backup.open(&object)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        ctx.check()?;
        let read = archive.read(&mut buffer).map_err(|error| CoreError::io("read", &object, error))?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        if input.write_all(part).is_err() {
            // It has ended, and says itself why.
            break;
        }
    }
    drop(input);
    running.finish()?;
    Ok(())
}

/// Compares the rows: by digests where the dump has them, else by their number.
fn rows(
    backup: &dyn BackupObjects,
    stem: &str,
    facts: &SourceFacts,
    scratch: &Scratch,
    options: &DrillOptions,
    ctx: &Context,
) -> Result<Vec<Check>> {
    if parallel::is_parallel(backup, stem) {
        let toc = parallel::read_toc(backup, stem)?;
        let differs = parallel::compare(&scratch.address, &toc, options.jobs.max(1), ctx)?;
        return Ok(parallel::checks(&toc, &differs));
    }
    let mut connection = Connection::open(&scratch.address, &SessionOptions::default(), ctx)?;
    let catalog = crate::catalog::Catalog::read(&mut connection, ctx)?;
    let found = facts::count_rows(&mut connection, &catalog, false, ctx)?;
    let mut checks = Vec::new();
    for (table, expected) in &facts.tables {
        let rows = found.get(table).copied();
        if rows != Some(*expected) {
            let found = rows.map_or_else(|| "no such table".to_owned(), |rows| rows.to_string());
            checks.push(Check {
                name: format!("rows of {table}"),
                ok: false,
                detail: format!("expected {expected}, found {found}"),
            });
        }
    }
    checks.push(Check {
        name: "rows of every table".into(),
        ok: checks.is_empty(),
        detail: format!("{} tables, {} rows", facts.tables.len(), facts.tables.values().sum::<u64>()),
    });
    Ok(checks)
}

/// Verifies one chain of the restored database.
fn verify(
    chain: &ChainRequest,
    scratch: &Scratch,
    options: &DrillOptions,
    ctx: &Context,
) -> (Check, Option<ChainReport>) {
    let source = PostgresSource::with_options(
        scratch.address.clone(),
        SourceOptions {
            tools: options.tools.clone(),
            settings: options.settings.clone(),
            ..SourceOptions::default()
        },
    );
    let name = format!("chain {}", chain.table.as_deref().unwrap_or_else(|| chain.format.table()));
    match source.verify_chain(chain, ctx) {
        Ok(report) => {
            let ok = report.verdict == Verdict::Intact;
            let detail = format!("{} records: {}", report.records, report.diagnosis);
            (Check { name, ok, detail }, Some(report))
        }
        Err(error) => (Check { name, ok: false, detail: error.full_text() }, None),
    }
}

/// Compares the registry of keys with the CSV in the backup, where there is one.
fn registry(backup: &dyn BackupObjects, scratch: &Scratch, ctx: &Context) -> Result<Option<Check>> {
    let object = format!("keys/{REGISTRY_OBJECT}");
    if backup.manifest().object(&object).is_none() {
        return Ok(None);
    }
    let mut expected = Vec::new();
    backup
        .open(&object)?
        .read_to_end(&mut expected)
        .map_err(|error| CoreError::io("read", &object, error))?;
    let source = PostgresSource::new(scratch.address.clone());
    let (mut session, catalog) = source.open(ctx)?;
    let joiner = session.joiner().clone();
    let table = ChainTable::open(
        session.connection(),
        &joiner,
        &catalog,
        REGISTRY_TABLE,
        &TableOptions::default(),
        ctx,
    );
    let found = match table {
        Ok(table) => registry_csv(&table)?,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let ok = found.as_bytes() == expected.as_slice();
    let keys = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count().saturating_sub(1);
    let detail = format!("{} keys in {object}, {} in the database", keys(&expected), keys(found.as_bytes()));
    Ok(Some(Check { name: "registry of keys".into(), ok, detail }))
}

/// Asks one question, in a transaction that may not write.
fn ask(question: &SqlQuestion, scratch: &Scratch, options: &DrillOptions, ctx: &Context) -> Result<Check> {
    let session = SessionOptions { settings: options.settings.clone(), ..SessionOptions::default() };
    let mut connection = Connection::open(&scratch.address, &session, ctx)?;
    let answered = connection.run("ask", ctx, |client| client.simple_query(&question.sql));
    let name = format!("check {}", question.sql);
    let answer = match answered {
        Ok(messages) => messages.iter().find_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
            _ => None,
        }),
        Err(Error::Core(CoreError::Cancelled)) => return Err(CoreError::Cancelled.into()),
        Err(error) => {
            return Ok(Check { name, ok: false, detail: CoreError::from(error).full_text() });
        }
    };
    let found = match &answer {
        None => "nothing",
        Some(None) => "NULL",
        Some(Some(text)) => text.as_str(),
    };
    Ok(match &question.expected {
        Some(expected) => Check {
            name,
            ok: answer.as_ref().is_some_and(|value| value.as_deref() == Some(expected)),
            detail: format!("expected {expected}, found {found}"),
        },
        None => Check {
            name,
            ok: matches!(&answer, Some(Some(text)) if !matches!(text.as_str(), "" | "0" | "f")),
            detail: found.to_owned(),
        },
    })
}
