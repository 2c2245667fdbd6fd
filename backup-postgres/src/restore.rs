//! Puts a backup back without harming what is live: restored into a new database beside it, proven there, then renamed.
//!
//! ```text
//! <name>_restore_<unix seconds>   made from template0 under the encoding and locale of the manifest, loaded, proven, analyzed
//! BEGIN; ALTER DATABASE <name> RENAME TO <name>_bad_<unix seconds>; ALTER DATABASE <name>_restore_… RENAME TO <name>; COMMIT
//! ```
//!
//! Nothing is ever dropped but the new database of a restore that failed. An error of `pg_restore` fails the restore,
//! except the few of [`HARMLESS`], which are told. The two renames are one transaction: a crash leaves the old state or the
//! new one. A session holds the advisory lock of the new database's name: when this process dies before the renames,
//! the lock is free, and the next restore of that database drops what was left. [`rollback`] renames back.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Stdio;

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::formats;
use audit_chain::formats::agledger::registry_csv;
use audit_chain::keys::KeyRing;
use audit_chain::profile::Profile;
use audit_chain::report::{ChainReport, Verdict};
use backup_core::context::{Context, Progress};
use backup_core::error::Error as CoreError;
use backup_core::manifest::ChainEntry;
use backup_core::traits::{
    BackupObjects, ChainRequest, ChainVerify as _, Check, Restore, RestoreOutcome, RestorePlan, SourceFacts,
};
use jiff::Timestamp;

use crate::catalog::{Catalog, quote_ident, quote_text};
use crate::connect::{Address, Connection, SessionOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::facts::{self, Inventory, KIND, detail};
use crate::parallel::{self, LoadOptions};
use crate::session::SnapshotSession;
use crate::source::{ONLY, PostgresSource, REGISTRY_OBJECT, SourceOptions};
use crate::table::{ChainTable, TableOptions};
use crate::tools::{Running, Tool, ToolOptions};

/// Errors of `pg_restore` that change nothing of what is restored: objects that every new database has already, and comments on extensions that only a superuser may write.
pub const HARMLESS: [&str; 2] = ["schema \"public\" already exists", "must be owner of extension"];
/// Databases that hold no user's data and can be connected to while others are renamed.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];
/// How much of an archive is sent at once, in bytes.
const BUFFER: usize = 256 << 10;
/// How often the renames are tried while ended sessions go away.
const RENAME_TRIES: u32 = 50;
/// The longest name of a database, in bytes.
const MAX_NAME: usize = 63;

/// How a database is put back.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// The source's name in the manifest; `None` takes the only PostgreSQL database of the backup.
    pub source: Option<String>,
    /// Where `pg_restore` is looked for.
    pub tools: ToolOptions,
    /// Whether sessions on the live database are ended; otherwise the restore is refused while there are any.
    pub end_sessions: bool,
    /// Queries that the restored database must answer with something but NULL, 0, false or nothing.
    pub checks: Vec<String>,
    /// Secrets and public keys at hand for the chains.
    pub keys: KeyRing,
    /// Settings of the sessions that read chains.
    pub settings: Vec<(String, String)>,
    /// How many connections load a parallel dump; 0 means as many as there are cores.
    pub jobs: usize,
}

/// A restore to a database of a server, live or new.
#[derive(Debug, Clone)]
pub struct PostgresRestore {
    /// The database that is replaced or made.
    pub target: Address,
    /// How.
    pub options: RestoreOptions,
}

/// What a look at server and backup gives.
struct Looked {
    facts: SourceFacts,
    stem: String,
    tool: Tool,
    /// A session on another database of the server.
    keeper: Connection,
    /// Whether the target is there.
    live: bool,
    sessions: i64,
    superuser: bool,
    warnings: Vec<String>,
}

impl PostgresRestore {
    /// Names a target. Nothing is opened.
    #[must_use]
    pub fn new(target: Address, mut options: RestoreOptions) -> Self {
        if options.tools.path.is_none() {
            options.tools.path = target.search_path().cloned();
        }
        Self { target, options }
    }

    fn name(&self) -> &str {
        self.target.database()
    }

    /// Looks at everything that can be known before a byte is written.
    fn look(&self, backup: &dyn BackupObjects, ctx: &Context) -> Result<Looked> {
        let manifest = backup.manifest();
        let facts = self.facts(backup)?.clone();
        let stem = stem(backup, &facts.name)?;
        if MAINTENANCE.contains(&self.name()) || self.name() == "template0" {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{} belongs to the server", self.name()),
            )
            .with_hint("name a database of your own"));
        }
        let longest = self.name().len() + "_restore_".len() + 10;
        if longest > MAX_NAME {
            return Err(Error::new(
                ErrorKind::InvalidName,
                format!(
                    "the name {:?} is too long to be renamed beside: {longest} of at most {MAX_NAME} bytes",
                    self.name()
                ),
            ));
        }
        let mut keeper = keeper(&self.target, ctx)?;
        let sql = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1), \
             (SELECT count(*) FROM pg_stat_activity WHERE datname = $1), r.rolsuper, r.rolcreatedb OR r.rolsuper, \
             coalesce((SELECT pg_has_role(d.datdba, 'MEMBER') FROM pg_database d WHERE d.datname = $1), true) \
             FROM pg_roles r WHERE r.rolname = current_user";
        let name = self.name().to_owned();
        let row =
            keeper.run("look at the databases beside", ctx, |client| client.query_one(sql, &[&name]))?;
        let (live, sessions, superuser): (bool, i64, bool) = (row.get(0), row.get(1), row.get(2));
        let (creates, owns): (bool, bool) = (row.get(3), row.get(4));
        if !creates || !owns {
            let what = if creates { "own the database" } else { "make databases" };
            return Err(Error::new(
                ErrorKind::Permission,
                format!("the role {} may not {what} {:?}", self.target.user(), self.name()),
            )
            .with_hint("use a role with CREATEDB that owns the live database, or a superuser"));
        }
        if live && sessions > 0 && !self.options.end_sessions {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("database {:?} has {sessions} sessions", self.name()),
            )
            .with_hint(
                "stop the services that use it, or allow their sessions to be ended (--end-sessions)",
            ));
        }
        let mut warnings = Vec::new();
        let number = facts.details.get(detail::SERVER_NUMBER).and_then(|text| text.parse::<i32>().ok());
        let dumped = number.unwrap_or(0) / 10_000;
        if dumped > keeper.version().major() {
            return Err(Error::new(
                ErrorKind::Newer,
                format!(
                    "the backup is of PostgreSQL {dumped}, the server is PostgreSQL {}: a dump is not restored into an older server",
                    keeper.version().short()
                ),
            ));
        }
        let tool = self.options.tools.find("pg_restore", keeper.version())?;
        let made_by =
            facts.details.get(detail::PG_DUMP).and_then(|text| text.split('.').next()?.parse::<i32>().ok());
        if made_by.is_some_and(|made_by| made_by > tool.version.major()) {
            return Err(Error::ToolTooOld {
                tool: "pg_restore".into(),
                server: format!("(dumped by pg_dump {})", made_by.unwrap_or(0)),
                found: format!("{} ({})", tool.version, tool.path.display()),
                install: crate::tools::install_line("pg_restore", made_by.unwrap_or(0)),
            });
        }
        warnings.extend(collation(&facts, &mut keeper, ctx)?);
        if !superuser {
            warnings.push(format!(
                "{} is no superuser: everything will belong to it, without the grants of the backup",
                self.target.user()
            ));
        }
        if live && sessions > 0 {
            warnings.push(format!("{sessions} sessions on the live database will be ended"));
        }
        for line in &manifest.not_included {
            tracing::debug!(line, "not in the backup");
        }
        Ok(Looked { facts, stem, tool, keeper, live, sessions, superuser, warnings })
    }

    fn facts<'a>(&self, backup: &'a dyn BackupObjects) -> Result<&'a SourceFacts> {
        let manifest = backup.manifest();
        let of_kind: Vec<&SourceFacts> = manifest.sources.iter().filter(|facts| facts.kind == KIND).collect();
        match (&self.options.source, of_kind.as_slice()) {
            (Some(name), _) => of_kind.iter().find(|facts| facts.name == *name).copied().ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!("backup {} holds no PostgreSQL database {name:?}", manifest.id),
                )
            }),
            (None, [one]) => Ok(one),
            (None, []) => Err(Error::new(
                ErrorKind::NotFound,
                format!("backup {} holds no PostgreSQL database", manifest.id),
            )),
            (None, several) => {
                let names: Vec<&str> = several.iter().map(|facts| facts.name.as_str()).collect();
                Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "backup {} holds several PostgreSQL databases: {}",
                        manifest.id,
                        names.join(", ")
                    ),
                )
                .with_hint("name one with --object"))
            }
        }
    }

    /// Does the work of [`Restore::execute`].
    fn put_back(&self, backup: &dyn BackupObjects, ctx: &Context) -> Result<RestoreOutcome> {
        let mut looked = self.look(backup, ctx)?;
        let seconds = Timestamp::now().as_second();
        sweep(&mut looked.keeper, self.name(), ctx)?;
        let fresh = Fresh::create(&mut looked, &format!("{}_restore_{seconds}", self.name()), ctx)?;
        let address = looked.keeper.pinned().with_database(&fresh.name);
        let told = self.load(backup, &looked, &address, ctx)?;
        let mut proven = self.prove(backup, &looked, &address, ctx)?;
        proven.checks.extend(told);
        finish(backup, &looked, &address, ctx)?;
        let set_aside = self.swap(&mut looked, &fresh.name, seconds, ctx)?;
        fresh.keep(&mut looked.keeper);
        Ok(RestoreOutcome {
            backup: backup.manifest().id.clone(),
            target: self.target.location(),
            set_aside,
            checks: proven.checks,
            chains: proven.chains,
        })
    }

    /// Loads the dump; says which errors were harmless.
    fn load(
        &self,
        backup: &dyn BackupObjects,
        looked: &Looked,
        address: &Address,
        ctx: &Context,
    ) -> Result<Option<Check>> {
        let flags: Vec<String> =
            if looked.superuser { Vec::new() } else { vec!["--no-owner".into(), "--no-privileges".into()] };
        if parallel::is_parallel(backup, &looked.stem) {
            let scratch =
                tempfile::tempdir().map_err(|error| CoreError::io("create", std::env::temp_dir(), error))?;
            let how = LoadOptions { jobs: self.options.jobs, pg_restore_options: flags };
            parallel::load(backup, &looked.stem, address, &looked.tool, scratch.path(), &how, ctx)?;
            return Ok(None);
        }
        let object = format!("database/{}.dump", looked.stem);
        let connection = Connection::open(address, &SessionOptions::default(), ctx)?;
        let mut command = looked.tool.command(&connection);
        let database = address.database().replace('\\', "\\\\").replace('\'', "\\'");
        command.args(["--no-password"]).args(flags).arg(format!("--dbname=dbname='{database}'"));
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut running = Running::start("pg_restore", command, ctx)?;
        let mut input = running
            .input()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "pg_restore was started without a pipe"))?;
        let total = backup.manifest().object(&object).map(|object| object.size_bytes);
        let mut archive = backup.open(&object)?;
        let mut buffer = vec![0; BUFFER];
        let mut done = 0_u64;
        let mut broken = false;
        loop {
            ctx.check()?;
            // The reader's last word is the digest: a dump that is not the recorded one fails here, before anything is renamed.
            let read = archive.read(&mut buffer).map_err(|error| own_error(&object, error))?;
            let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
            // pg_restore that has ended says itself why; the rest of the object is read all the same.
            broken = broken || input.write_all(part).is_err();
            done += part.len() as u64;
            ctx.progress(Progress { stage: "restore", object: &object, done, total, unit: "bytes" });
        }
        drop(input);
        let size_fits = total.is_none_or(|total| total == done);
        if !size_fits {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{object}: expected {} bytes, found {done} bytes", total.unwrap_or(0)),
            ));
        }
        match running.finish() {
            Ok(_) if broken => {
                Err(Error::new(ErrorKind::Corrupt, format!("pg_restore took only a part of {object}")))
            }
            Ok(_) => Ok(None),
            Err(Error::ToolFailed { tool, status, stderr, kind, hint }) => match harmless(&stderr) {
                Some(errors) => Ok(Some(Check { name: "pg_restore".into(), ok: true, detail: errors })),
                None => Err(Error::ToolFailed { tool, status, stderr, kind, hint }),
            },
            Err(error) => Err(error),
        }
    }

    /// Compares the restored database with the manifest.
    fn prove(
        &self,
        backup: &dyn BackupObjects,
        looked: &Looked,
        address: &Address,
        ctx: &Context,
    ) -> Result<Proven> {
        let mut proven = Proven::default();
        if parallel::is_parallel(backup, &looked.stem) {
            let toc = parallel::read_toc(backup, &looked.stem)?;
            let differs = parallel::compare(address, &toc, self.options.jobs.max(1), ctx)?;
            proven.checks.extend(parallel::checks(&toc, &differs));
        } else if !looked.facts.tables.is_empty() {
            proven.checks.push(rows(&looked.facts, address, ctx)?);
        }
        let source = PostgresSource::with_options(
            address.clone(),
            SourceOptions {
                tools: self.options.tools.clone(),
                settings: self.options.settings.clone(),
                ..SourceOptions::default()
            },
        );
        let ours = |entry: &&ChainEntry| entry.source == looked.facts.name;
        for entry in backup.manifest().chains.iter().filter(ours) {
            let name = format!("chain {}", entry.table);
            let format = match &entry.profile {
                Some(text) => {
                    let place = format!("the profile {} in the manifest", entry.format);
                    Some(std::sync::Arc::new(Profile::parse(&place, text)?) as _)
                }
                None => formats::by_name(&entry.format).ok(),
            };
            let Some(format) = format else {
                let detail = format!("not verified again: format {} is not at hand", entry.format);
                proven.checks.push(Check { name, ok: true, detail });
                continue;
            };
            let request = ChainRequest {
                format,
                table: Some(entry.table.clone()),
                keys: self.options.keys.clone(),
                checkpoint: None,
                copy: false,
            };
            let report = source.verify_chain(&request, ctx)?;
            proven.checks.push(stands(name, entry, &report)?);
            proven.chains.push(report);
        }
        proven.checks.extend(registry(backup, &source, ctx)?);
        for sql in &self.options.checks {
            proven.checks.push(ask(sql, address, &self.options.settings, ctx)?);
        }
        let failed: Vec<String> = proven
            .checks
            .iter()
            .filter(|check| !check.ok)
            .map(|check| format!("{}: {}", check.name, check.detail))
            .collect();
        if failed.is_empty() {
            return Ok(proven);
        }
        Err(Error::new(
            ErrorKind::Mismatch,
            format!("the restored database fails its checks: {}", failed.join("; ")),
        )
        .with_hint("nothing was changed: verify the backup, or restore another one"))
    }

    /// Renames both databases in one transaction. Returns what the old one is called now.
    fn swap(&self, looked: &mut Looked, fresh: &str, seconds: i64, ctx: &Context) -> Result<Vec<PathBuf>> {
        let name = self.name().to_owned();
        let bad = format!("{name}_bad_{seconds}");
        let mut sql = String::from("BEGIN; ");
        if looked.live {
            sql.push_str(&format!("ALTER DATABASE {} RENAME TO {}; ", quote_ident(&name), quote_ident(&bad)));
        }
        sql.push_str(&format!(
            "ALTER DATABASE {} RENAME TO {}; COMMIT",
            quote_ident(fresh),
            quote_ident(&name)
        ));
        rename(&mut looked.keeper, &sql, &name, self.options.end_sessions, ctx)?;
        tracing::info!(database = name, sessions = looked.sessions, "restored and renamed");
        Ok(if looked.live { vec![PathBuf::from(bad)] } else { Vec::new() })
    }
}

/// What a proof gives.
#[derive(Debug, Default)]
struct Proven {
    checks: Vec<Check>,
    chains: Vec<ChainReport>,
}

/// Connects to a database of the server that is not the target.
fn keeper(target: &Address, ctx: &Context) -> Result<Connection> {
    let options = SessionOptions { read_only: false, ..SessionOptions::default() };
    let mut failed = None;
    for name in MAINTENANCE {
        match Connection::open(&target.with_database(name), &options, ctx) {
            Ok(connection) => return Ok(connection),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| Error::new(ErrorKind::Internal, "no database to connect to")))
}

/// Runs renames; sessions that are in the way are ended where that is allowed.
fn rename(keeper: &mut Connection, sql: &str, name: &str, end: bool, ctx: &Context) -> Result<()> {
    let mut tries = 0;
    loop {
        if end {
            keeper.run("end the sessions beside", ctx, |client| {
                client.query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
                    &[&name],
                )
            })?;
        }
        tries += 1;
        match keeper.run("rename the databases beside", ctx, |client| client.batch_execute(sql)) {
            Ok(()) => return Ok(()),
            Err(error) => {
                keeper
                    .client()
                    .batch_execute("ROLLBACK")
                    .map_err(|lost| crate::error::explain(lost, "roll back the renames beside", name))?;
                if error.kind() != ErrorKind::InUse || !end || tries >= RENAME_TRIES {
                    return Err(error.with_hint(
                        "nothing was changed; stop what connects to the database, or pass --end-sessions",
                    ));
                }
            }
        }
    }
}

/// The new database of a restore, dropped unless it was kept.
struct Fresh {
    name: String,
    /// Holds the lock of the name, and drops the database.
    guard: Option<Connection>,
}

impl Fresh {
    fn create(looked: &mut Looked, name: &str, ctx: &Context) -> Result<Self> {
        let mut guard = looked.keeper.another(ctx)?;
        guard.run("lock a restore beside", ctx, |client| {
            client.query_one("SELECT pg_advisory_lock(hashtext($1))::text", &[&name])
        })?;
        let fact = |key: &str| looked.facts.details.get(key).map(String::as_str);
        let mut sql = format!(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            quote_ident(name),
            quote_text(fact(detail::ENCODING).unwrap_or("UTF8")),
            quote_text(fact(detail::COLLATE).unwrap_or("C")),
            quote_text(fact(detail::CTYPE).unwrap_or("C"))
        );
        let major = guard.version().major();
        match (fact(detail::LOCALE_PROVIDER), fact(detail::LOCALE)) {
            (Some("icu"), Some(locale)) if major >= 15 => {
                sql.push_str(&format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", quote_text(locale)));
            }
            (Some("builtin"), Some(locale)) if major >= 17 => {
                sql.push_str(&format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", quote_text(locale)));
            }
            _ if major >= 15 => sql.push_str(" LOCALE_PROVIDER libc"),
            _ => {}
        }
        guard.run("make a database beside", ctx, |client| client.batch_execute(&sql))?;
        Ok(Self { name: name.to_owned(), guard: Some(guard) })
    }

    /// Keeps the database: it has its new name.
    fn keep(mut self, _: &mut Connection) {
        self.guard = None;
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(guard) = &mut self.guard {
            // What cannot be dropped now is left to the next restore's sweep.
            let _ = drop_database(guard, &self.name);
        }
    }
}

/// Drops a database that nobody but this process knows.
fn drop_database(connection: &mut Connection, name: &str) -> Result<(), postgres::Error> {
    let client = connection.client();
    client.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", &[&name])?;
    client.batch_execute(&format!("DROP DATABASE IF EXISTS {}", quote_ident(name)))
}

/// Drops the databases of restores of `target` whose process is gone.
fn sweep(connection: &mut Connection, target: &str, ctx: &Context) -> Result<()> {
    let prefix = format!("{target}_restore_");
    let names: Vec<String> = connection.run("list the databases beside", ctx, |client| {
        let rows = client.query(
            "SELECT datname::text FROM pg_database WHERE starts_with(datname::text, $1) \
             AND substr(datname::text, length($1) + 1) ~ '^[0-9]{10}$' AND pg_has_role(datdba, 'MEMBER')",
            &[&prefix],
        )?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    })?;
    for name in names {
        connection.run("drop what an interrupted restore left beside", ctx, |client| {
            let free: bool = client.query_one("SELECT pg_try_advisory_lock(hashtext($1))", &[&name])?.get(0);
            if free {
                client.query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
                    &[&name],
                )?;
                client.batch_execute(&format!("DROP DATABASE IF EXISTS {}", quote_ident(&name)))?;
                client.query_one("SELECT pg_advisory_unlock(hashtext($1))", &[&name])?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Returns the stem under which a source's objects are stored.
fn stem(backup: &dyn BackupObjects, name: &str) -> Result<String> {
    let manifest = backup.manifest();
    let has = |stem: &str| {
        manifest.object(&format!("database/{stem}.dump")).is_some() || parallel::is_parallel(backup, stem)
    };
    [name, ONLY].into_iter().find(|stem| has(stem)).map(str::to_owned).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("backup {} holds no dump of {name:?}", manifest.id))
    })
}

/// Says where the server sorts text otherwise than the backup's did (PITFALLS 9). A dump's indexes are built anew, so that is no damage.
fn collation(facts: &SourceFacts, keeper: &mut Connection, ctx: &Context) -> Result<Option<String>> {
    let (Some(then), true) = (facts.details.get(detail::COLLATION_VERSION), keeper.version().major() >= 15)
    else {
        return Ok(None);
    };
    let now: Option<String> = keeper.run("read the collation of", ctx, |client| {
        let sql = "SELECT pg_database_collation_actual_version(oid) FROM pg_database WHERE datcollate = $1 AND datlocprovider::text = $2 LIMIT 1";
        let provider = match facts.details.get(detail::LOCALE_PROVIDER).map(String::as_str) {
            Some("icu") => "i",
            Some("builtin") => "b",
            _ => "c",
        };
        let collate = facts.details.get(detail::COLLATE).map(String::as_str).unwrap_or("C");
        Ok(client.query_opt(sql, &[&collate, &provider])?.and_then(|row| row.get(0)))
    })?;
    Ok(now.filter(|now| now != then).map(|now| {
        format!("the collation's data is version {now}, the backup's was {then}: text may sort otherwise; indexes are built anew")
    }))
}

/// Returns the errors, where every one that `pg_restore` ignored is harmless.
fn harmless(said: &str) -> Option<String> {
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("ERROR:  ")).collect();
    let counted = said
        .lines()
        .find_map(|line| line.split("errors ignored on restore: ").nth(1)?.trim().parse::<usize>().ok())?;
    let known = |line: &&str| HARMLESS.iter().any(|harmless| line.contains(harmless));
    (counted == errors.len() && errors.iter().all(known))
        .then(|| format!("{counted} harmless errors: {}", errors.join("; ")))
}

/// Takes an error of this workspace out of the `io::Error` that carried it.
fn own_error(object: &str, error: std::io::Error) -> Error {
    Error::Core(CoreError::io("read", object, error))
}

/// Compares the rows of every table with the manifest.
fn rows(facts: &SourceFacts, address: &Address, ctx: &Context) -> Result<Check> {
    let mut connection = Connection::open(address, &SessionOptions::default(), ctx)?;
    let catalog = Catalog::read(&mut connection, ctx)?;
    let found = facts::count_rows(&mut connection, &catalog, false, ctx)?;
    let mut differs: Vec<String> = Vec::new();
    for (table, expected) in &facts.tables {
        if found.get(table) != Some(expected) {
            let found =
                found.get(table).map_or_else(|| "no such table".to_owned(), |rows| format!("{rows} rows"));
            differs.push(format!("{table}: expected {expected} rows, found {found}"));
        }
    }
    differs.truncate(8);
    Ok(Check {
        name: "rows of every table".into(),
        ok: differs.is_empty(),
        detail: if differs.is_empty() {
            format!("{} tables, {} rows", facts.tables.len(), facts.tables.values().sum::<u64>())
        } else {
            differs.join("; ")
        },
    })
}

/// Compares a restored chain with where it stood when it was backed up.
fn stands(name: String, entry: &ChainEntry, report: &ChainReport) -> Result<Check> {
    let found = ChainCheckpoint::from_report(report)?;
    let fits = entry.points.chains.len() == found.chains.len()
        && entry.points.chains.iter().all(|point| found.chain(&point.id) == Some(point));
    let worse = report.verdict == Verdict::Findings && entry.verdict != Verdict::Findings;
    let detail = match (fits, worse) {
        (false, _) => format!(
            "expected {} records as in the manifest, found {}: {}",
            entry.records, report.records, report.diagnosis
        ),
        (true, true) => format!(
            "{} records as in the manifest, with findings that it did not have: {}",
            report.records, report.diagnosis
        ),
        (true, false) => format!("{} records, as in the manifest: {}", report.records, report.diagnosis),
    };
    Ok(Check { name, ok: fits && !worse, detail })
}

/// Compares the registry of keys with the CSV in the backup, where there is one (S2.6).
fn registry(backup: &dyn BackupObjects, source: &PostgresSource, ctx: &Context) -> Result<Option<Check>> {
    let object = format!("keys/{REGISTRY_OBJECT}");
    if backup.manifest().object(&object).is_none() {
        return Ok(None);
    }
    let mut expected = Vec::new();
    backup.open(&object)?.read_to_end(&mut expected).map_err(|error| own_error(&object, error))?;
    let mut session = SnapshotSession::open(&source.address, &source.session_options(), ctx)?;
    let catalog = session.catalog(ctx)?;
    let joiner = session.joiner().clone();
    let options = TableOptions::default();
    let table =
        ChainTable::open(session.connection(), &joiner, &catalog, "vault_signing_keys", &options, ctx);
    let found = match table {
        Ok(table) => registry_csv(&table)?,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let keys = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count().saturating_sub(1);
    Ok(Some(Check {
        name: "registry of keys".into(),
        ok: found.as_bytes() == expected.as_slice(),
        detail: format!("{} keys in {object}, {} in the database", keys(&expected), keys(found.as_bytes())),
    }))
}

/// Asks a question that must be answered with something but NULL, 0, false or nothing.
fn ask(sql: &str, address: &Address, settings: &[(String, String)], ctx: &Context) -> Result<Check> {
    let options = SessionOptions { settings: settings.to_vec(), ..SessionOptions::default() };
    let mut connection = Connection::open(address, &options, ctx)?;
    let answer = connection.run("ask", ctx, |client| client.simple_query(sql))?;
    let value = answer.iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    let found = value.unwrap_or_default();
    let ok = !matches!(found.as_str(), "" | "0" | "f" | "NULL");
    let detail = if found.is_empty() { "nothing".to_owned() } else { found };
    Ok(Check { name: format!("check {sql}"), ok, detail })
}

/// Gives the new database the settings of the old one, and the planner its statistics.
fn finish(backup: &dyn BackupObjects, looked: &Looked, address: &Address, ctx: &Context) -> Result<()> {
    let options = SessionOptions { read_only: false, ..SessionOptions::default() };
    let mut connection = Connection::open(address, &options, ctx)?;
    let object = format!("database/{}.inventory.json", looked.stem);
    if backup.manifest().object(&object).is_some() {
        let mut bytes = Vec::new();
        backup.open(&object)?.read_to_end(&mut bytes).map_err(|error| own_error(&object, error))?;
        let inventory: Inventory = serde_json::from_slice(&bytes)
            .map_err(|error| Error::new(ErrorKind::Malformed, format!("{object}: {error}")))?;
        for (name, value) in &inventory.settings {
            let name = name.split('.').map(quote_ident).collect::<Vec<_>>().join(".");
            // `search_path` is a list of names, each quoted by itself; other settings are one value.
            let value = if name == "\"search_path\"" {
                let names = value.split(',').map(|name| quote_ident(name.trim().trim_matches('"')));
                names.collect::<Vec<_>>().join(", ")
            } else {
                quote_text(value)
            };
            let sql = format!("ALTER DATABASE {} SET {name} = {value}", quote_ident(address.database()));
            connection.run("set the settings of", ctx, |client| client.batch_execute(&sql))?;
        }
    }
    connection.run("analyze", ctx, |client| client.batch_execute("ANALYZE"))
}

/// Renames back what a restore renamed: the restored database becomes `<name>_undone_<unix seconds>`, the old one
/// takes its name again. Returns the name under which the restored one is kept.
///
/// # Errors
/// `NotFound` when there is no such database; `InUse` while sessions are connected, unless they are to be ended.
pub fn rollback(target: &Address, set_aside: &str, end_sessions: bool, ctx: &Context) -> Result<String> {
    let mut keeper = keeper(target, ctx)?;
    let name = target.database();
    let is_its = set_aside.strip_prefix(name).and_then(|rest| rest.strip_prefix("_bad_"));
    if !is_its.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{set_aside:?} is not what a restore of {name:?} set aside"),
        ));
    }
    let undone = format!("{name}_undone_{}", Timestamp::now().as_second());
    let sql = format!(
        "BEGIN; ALTER DATABASE {} RENAME TO {}; ALTER DATABASE {} RENAME TO {}; COMMIT",
        quote_ident(name),
        quote_ident(&undone),
        quote_ident(set_aside),
        quote_ident(name)
    );
    rename(&mut keeper, &sql, name, end_sessions, ctx)?;
    Ok(undone)
}

impl Restore for PostgresRestore {
    fn plan(&self, backup: &dyn BackupObjects, ctx: &Context) -> backup_core::error::Result<RestorePlan> {
        let looked = self.look(backup, ctx)?;
        let name = self.name();
        let what = if parallel::is_parallel(backup, &looked.stem) { "the parallel dump" } else { "the dump" };
        let mut steps = vec![
            format!("make the database {name}_restore_<unix seconds> from template0, beside {name}"),
            format!(
                "load {what} of {} with {} into it, checking its digests",
                looked.facts.name,
                looked.tool.path.display()
            ),
            "fail at any error of pg_restore that is not known to be harmless, and drop the new database"
                .into(),
            "compare rows, chains and the registry of keys with the manifest, and ask the caller's questions"
                .into(),
            "set the database's settings, run ANALYZE".into(),
        ];
        if looked.live {
            if looked.sessions > 0 {
                steps.push(format!("end {} sessions on {name}", looked.sessions));
            }
            steps.push(format!("in one transaction, rename {name} to {name}_bad_<unix seconds> and the new database to {name}"));
        } else {
            steps.push(format!("rename the new database to {name}"));
        }
        let mut warnings = looked.warnings;
        warnings.push("how much room the server's disk has is not known here".into());
        Ok(RestorePlan {
            backup: backup.manifest().id.clone(),
            target: self.target.location(),
            steps,
            warnings,
            needs_bytes: looked.facts.size_bytes,
            free_bytes: 0,
        })
    }

    fn execute(
        &self,
        _: &RestorePlan,
        backup: &dyn BackupObjects,
        ctx: &Context,
    ) -> backup_core::error::Result<RestoreOutcome> {
        let span = tracing::info_span!(parent: &ctx.span(), "postgres restore", database = self.name());
        let _entered = span.enter();
        Ok(self.put_back(backup, ctx)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_errors_are_harmless_and_only_when_all_are_seen() {
        let one = "pg_restore: error: could not execute query: ERROR:  schema \"public\" already exists\npg_restore: warning: errors ignored on restore: 1";
        assert!(harmless(one).unwrap().contains("1 harmless"));
        let other = one.replace("schema \"public\" already exists", "relation \"t\" already exists");
        assert_eq!(harmless(&other), None);
        // More were ignored than are seen: the beginning of the messages is lost.
        assert_eq!(harmless(&one.replace("restore: 1", "restore: 2")), None);
        assert_eq!(harmless("killed"), None);
    }
}
