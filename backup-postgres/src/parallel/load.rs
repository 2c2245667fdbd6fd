//! Loads a parallel dump into an empty database, with several connections.
//!
//! Called by the restore, which has made the database and proves it afterwards: `pg_restore` makes the tables (section
//! pre-data), the data files are loaded by COPY, each by one connection, large objects and sequences are set, and
//! `pg_restore` builds indexes and constraints (section post-data), several at a time. The schema is a file in the scratch folder meanwhile.
//!
//! The first error ends it, and the caller drops the database: what is half loaded is never kept.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use backup_core::context::{Context, Progress};
use backup_core::error::Error as CoreError;
use backup_core::traits::BackupObjects;

use super::script::SQL_ASCII;
use super::toc::{DataFile, Toc};
use crate::connect::{Address, Connection, SessionOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::tools::{Running, Tool};

/// How much of a data file is sent at once, in bytes.
const BUFFER: usize = 256 << 10;
/// The longest table of contents that is read, in bytes.
const MAX_TOC: u64 = 1 << 30;
/// The longest line of a script that is run, in bytes: a piece of a large object in digits, and the statement around it.
const MAX_LINE: usize = 1 << 20;

/// How a dump is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// How many connections load, and how many indexes are built at a time; 0 means as many as there are cores.
    pub jobs: usize,
    /// Further options of `pg_restore` (`--no-owner`).
    pub pg_restore_options: Vec<String>,
}

/// What was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The table of contents.
    pub toc: Toc,
    /// What `pg_restore` said without failing.
    pub said: Vec<String>,
}

/// Reports whether a backup holds a parallel dump of a database, by the names of its objects.
#[must_use]
pub fn is_parallel(backup: &dyn BackupObjects, name: &str) -> bool {
    backup.manifest().object(&format!("database/{name}/toc.json")).is_some()
}

/// Reads the table of contents of a dump in a backup.
///
/// # Errors
/// `NotFound` when there is none; `Malformed`; what reading the object says.
pub fn read_toc(backup: &dyn BackupObjects, name: &str) -> Result<Toc> {
    let object = format!("database/{name}/toc.json");
    let mut bytes = Vec::new();
    backup
        .open(&object)?
        .take(MAX_TOC)
        .read_to_end(&mut bytes)
        .map_err(|error| CoreError::io("read", &object, error))?;
    Toc::from_json(&bytes)
}

/// Loads the dump `name` of a backup into the database of an address, which must be empty.
///
/// # Errors
/// The first failure of the server, of `pg_restore` or of an object; `Cancelled`.
pub fn load(
    backup: &dyn BackupObjects,
    name: &str,
    address: &Address,
    pg_restore: &Tool,
    scratch: &Path,
    options: &LoadOptions,
    ctx: &Context,
) -> Result<Loaded> {
    let toc = read_toc(backup, name)?;
    let folder = format!("database/{name}/");
    let session = SessionOptions { read_only: false, ..SessionOptions::default() };
    let mut connection = Connection::open(address, &session, ctx)?;
    let jobs = match options.jobs {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        some => some,
    };
    let schema = tempfile::NamedTempFile::new_in(scratch)
        .map_err(|error| CoreError::io("create a file in", scratch, error))?;
    copy_to(backup, &format!("{folder}schema.dump"), schema.as_file(), ctx)?;
    let restore = Restore { tool: pg_restore, schema: schema.path(), options };
    let mut said = restore.section(&connection, "pre-data", 1, ctx)?;
    let lines = scripts(backup, &folder);
    let work =
        Work { backup, folder: &folder, toc: &toc, lines: &lines, options, over: AtomicBool::new(false) };
    work.lines_of(&mut connection, &format!("{folder}large-objects.sql"), ctx)?;
    work.run(address, &session, jobs, ctx)?;
    work.lines_of(&mut connection, &format!("{folder}sequences.sql"), ctx)?;
    said.extend(restore.section(&connection, "post-data", jobs, ctx)?);
    Ok(Loaded { toc, said })
}

/// Writes an object into a file.
fn copy_to(backup: &dyn BackupObjects, object: &str, mut file: &File, ctx: &Context) -> Result<()> {
    let mut input = backup.open(object)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        ctx.check()?;
        let read = input.read(&mut buffer).map_err(|error| CoreError::io("read", object, error))?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { return Ok(()) };
        file.write_all(part).map_err(|error| CoreError::io("write a copy of", object, error))?;
    }
}

/// Lists the objects that hold large objects.
fn scripts(backup: &dyn BackupObjects, folder: &str) -> Vec<String> {
    let inside = format!("{folder}large-objects/");
    let names: BTreeSet<String> = backup
        .manifest()
        .objects
        .iter()
        .map(|object| object.plain_name().to_owned())
        .filter(|name| name.starts_with(&inside))
        .collect();
    names.into_iter().collect()
}

/// The sections of the schema.
struct Restore<'a> {
    tool: &'a Tool,
    schema: &'a Path,
    options: &'a LoadOptions,
}

impl Restore<'_> {
    fn section(
        &self,
        connection: &Connection,
        section: &str,
        jobs: usize,
        ctx: &Context,
    ) -> Result<Vec<String>> {
        let mut command = self.tool.command(connection);
        command
            .args(["--exit-on-error", "--no-password"])
            .arg(format!("--section={section}"))
            .arg(format!("--jobs={jobs}"))
            .arg(format!("--dbname={}", connection.address().database()))
            .args(&self.options.pg_restore_options)
            .arg(self.schema)
            .stdout(Stdio::null());
        let said = Running::start("pg_restore", command, ctx)?.finish()?;
        Ok(said.lines().map(str::to_owned).collect())
    }
}

/// The loading of rows.
struct Work<'a> {
    backup: &'a dyn BackupObjects,
    folder: &'a str,
    toc: &'a Toc,
    lines: &'a [String],
    options: &'a LoadOptions,
    over: AtomicBool,
}

impl Work<'_> {
    fn run(&self, address: &Address, session: &SessionOptions, jobs: usize, ctx: &Context) -> Result<()> {
        // The largest files first; then the large objects.
        let size = |file: &DataFile| file.blocks.iter().map(|block| block.bytes).sum::<u64>();
        let mut files: Vec<&DataFile> = self.toc.data.iter().collect();
        files.sort_by_key(|file| std::cmp::Reverse(size(file)));
        let next = AtomicUsize::new(0);
        let first = Mutex::new(None);
        let total = Some((files.len() + self.lines.len()) as u64);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..jobs.min(files.len() + self.lines.len()))
                .map(|_| {
                    scope.spawn(|| {
                        let result = self.one(address, session, &files, &next, total, ctx);
                        if let Err(error) = result {
                            self.over.store(true, Ordering::Relaxed);
                            first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        }
                    })
                })
                .collect();
            for thread in threads {
                if thread.join().is_err() {
                    let panicked = Error::new(ErrorKind::Internal, "a thread of the restore panicked");
                    first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panicked);
                }
            }
        });
        first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn one(
        &self,
        address: &Address,
        session: &SessionOptions,
        files: &[&DataFile],
        next: &AtomicUsize,
        total: Option<u64>,
        ctx: &Context,
    ) -> Result<()> {
        let mut connection = Connection::open(address, session, ctx)?;
        let mut settings = String::from(
            "SET search_path = ''; SET check_function_bodies = false; SET synchronous_commit = off; SET lock_timeout = 0",
        );
        if self.toc.encoding == SQL_ASCII {
            settings.push_str("; SET client_encoding = 'SQL_ASCII'");
        }
        connection.run("set up a session in", ctx, |client| client.batch_execute(&settings))?;
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let object = match (files.get(at), self.lines.get(at.saturating_sub(files.len()))) {
                (Some(file), _) => {
                    self.file(&mut connection, file, ctx)?;
                    file.name.as_str()
                }
                (None, Some(object)) => {
                    self.lines_of(&mut connection, object, ctx)?;
                    object
                }
                (None, None) => return Ok(()),
            };
            ctx.progress(Progress { stage: "restore", object, done: at as u64 + 1, total, unit: "objects" });
        }
    }

    /// Loads one data file, block by block, and reads it to its end, where its digest is proven.
    fn file(&self, connection: &mut Connection, file: &DataFile, ctx: &Context) -> Result<()> {
        let object = format!("{}{}", self.folder, file.name);
        let mut input = Counted { input: self.backup.open(&object)?, at: 0, object: &object };
        let mut buffer = vec![0; BUFFER];
        for block in &file.blocks {
            input.skip_to(block.offset, &mut buffer)?;
            let copy = self.toc.tables.get(&block.table).map_or("", |table| table.copy.as_str());
            let mut failed = None;
            let rows = connection.run(&format!("load table {} of", block.table), ctx, |client| {
                let mut writer = client.copy_in(copy)?;
                let mut left = block.bytes;
                while left > 0 {
                    if self.over.load(Ordering::Relaxed) || ctx.cancel().is_cancelled() {
                        failed = Some(Error::from(CoreError::Cancelled));
                        return Ok(0);
                    }
                    let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let part = match input.some(buffer.get_mut(..want).unwrap_or_default()) {
                        Ok(0) => {
                            failed = Some(input.short());
                            return Ok(0);
                        }
                        Ok(read) => buffer.get(..read).unwrap_or_default(),
                        Err(error) => {
                            failed = Some(error);
                            return Ok(0);
                        }
                    };
                    left -= part.len() as u64;
                    if let Err(error) = writer.write_all(part) {
                        return match error.downcast::<postgres::Error>() {
                            Ok(error) => Err(error),
                            Err(error) => {
                                failed = Some(CoreError::io("load", &object, error).into());
                                Ok(0)
                            }
                        };
                    }
                }
                // A writer that is dropped without this makes the server forget the rows.
                writer.finish()
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
            if rows != block.rows {
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    format!("{object}: table {}: expected {} rows, loaded {rows}", block.table, block.rows),
                ));
            }
        }
        while input.some(&mut buffer)? > 0 {}
        Ok(())
    }

    /// Runs the statements of a script, one a line, many at a time; what the script begins with (`SET`) is this
    /// session's already.
    fn lines_of(&self, connection: &mut Connection, object: &str, ctx: &Context) -> Result<()> {
        let mut input = BufReader::with_capacity(BUFFER, self.backup.open(object)?);
        let has = |option: &str| self.options.pg_restore_options.iter().any(|one| one == option);
        let (no_owner, no_rights) = (has("--no-owner"), has("--no-privileges"));
        let step = format!("run {object} in");
        let mut line = Vec::new();
        let mut batch = String::new();
        loop {
            line.clear();
            let read = (&mut input)
                .take(MAX_LINE as u64)
                .read_until(b'\n', &mut line)
                .map_err(|error| CoreError::io("read", object, error))?;
            if batch.len() >= BUFFER || (read == 0 && !batch.is_empty()) {
                connection.run(&step, ctx, |client| client.batch_execute(&batch))?;
                batch.clear();
            }
            if read == 0 {
                return Ok(());
            }
            if self.over.load(Ordering::Relaxed) {
                return Err(CoreError::Cancelled.into());
            }
            let text =
                std::str::from_utf8(&line).ok().filter(|text| text.ends_with('\n')).ok_or_else(|| {
                    Error::new(
                        ErrorKind::Malformed,
                        format!("{object}: expected lines of at most {MAX_LINE} bytes of UTF-8"),
                    )
                })?;
            let begins = |words: &[&str]| words.iter().any(|word| text.starts_with(word));
            if begins(&[
                "SELECT pg_catalog.lo_",
                "SELECT pg_catalog.setval(",
                "COMMENT ON LARGE",
                "SECURITY LABEL ",
            ]) || (!no_owner && begins(&["ALTER LARGE OBJECT "]))
                || (!no_rights && begins(&["GRANT ", "REVOKE "]))
            {
                batch.push_str(text);
            }
        }
    }
}

/// An object that knows how far it was read.
struct Counted<'a> {
    input: Box<dyn Read + Send + 'a>,
    at: u64,
    object: &'a str,
}

impl Counted<'_> {
    fn some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.input.read(buffer).map_err(|error| CoreError::io("read", self.object, error))?;
        self.at += read as u64;
        Ok(read)
    }

    fn skip_to(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        while self.at < offset {
            let want = buffer.len().min(usize::try_from(offset - self.at).unwrap_or(usize::MAX));
            if self.some(buffer.get_mut(..want).unwrap_or_default())? == 0 {
                return Err(self.short());
            }
        }
        Ok(())
    }

    fn short(&self) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!("{}: it ends after {} bytes, before the rows that toc.json names", self.object, self.at),
        )
    }
}
