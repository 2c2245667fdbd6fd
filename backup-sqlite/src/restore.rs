//! Puts a database back: [`Restore`] for one SQLite file.
//!
//! The facade and the command line call it; it calls [`crate::in_use`], [`crate::prove`] and [`crate::swap`], which say
//! what lies where and what holds when the process dies. The live database is not touched before the restored one,
//! beside it, is proven; then it is moved aside with its sidecars, never deleted.
//!
//! The restored file gets the mode and the owner of the one it replaces. Extended attributes, access control lists
//! and security labels are not carried over.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use audit_chain::keys::KeyRing;
use backup_core::context::{Context, Progress};
use backup_core::durable::{Durable, PRIVATE_FILE, free_space, parent_of};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::{ChainEntry, Manifest, ObjectEntry};
use backup_core::traits::{
    BackupObjects, ChainRequest, Check, Restore, RestoreOutcome, RestorePlan, SourceFacts,
};
use rustix::fs::{Access, StatVfsMountFlags};

use crate::aside::real_path;
use crate::checks::{Integrity, SqlCheck};
use crate::in_use::{Exclusive, Whose, require_closed};
use crate::migrations::{Known, Recorded, SchemaState, SchemaVerdict, compare};
use crate::open::{FAMILY, inspect, sidecar};
use crate::prove::{Proof, prove};
use crate::source::own_error;
use crate::staging::Staging;
use crate::swap::{RESTORED, Recovery, is_pending, recover as recover_swap, staging_of, swap};

/// How much is read and written at once, in bytes.
const BUFFER: usize = 1 << 20;
/// Room that is asked for besides the restored file, for the journal and the names, in bytes.
const SPARE: u64 = 1 << 20;
/// The longest name of a target, in bytes: with `.bad-<seconds>-<number>-journal` it must fit 255.
const MAX_TARGET_NAME: usize = 215;
/// How long a lock on the old database is waited for by default, in milliseconds.
const DEFAULT_LOCK_WAIT: Duration = Duration::from_secs(2);

/// How a database is restored.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The object (`database/app.db`), where the backup holds several databases.
    pub object: Option<String>,
    /// What the deployed program knows of the schema; empty means that migrations are only reported.
    pub known: Vec<Known>,
    /// Restores a database that is newer than the program.
    pub allow_newer: bool,
    /// Restores a database whose migrations have other checksums than the program's.
    pub allow_changed: bool,
    /// Restores a database with a migration that did not run to its end.
    pub allow_dirty: bool,
    /// How closely the structure is checked.
    pub integrity: Integrity,
    /// Whether a reference without its row refuses the restore.
    pub foreign_keys: bool,
    /// Questions that the restored database must answer as expected.
    pub checks: Vec<SqlCheck>,
    /// Chains with their keys, and chains that the manifest does not name. Those that it names are verified anyway.
    pub chains: Vec<ChainRequest>,
    /// Keys for the chains of the manifest that are not in `chains`.
    pub keys: KeyRing,
    /// How long a lock on the old database is waited for.
    pub busy_timeout: Duration,
    /// The mode of the restored file where there is none to take over (octal permission bits).
    pub file_mode: u32,
    /// Syncs and renames; a test watches its steps.
    pub durable: Durable,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            object: None,
            known: Vec::new(),
            allow_newer: false,
            allow_changed: false,
            allow_dirty: false,
            integrity: Integrity::Full,
            foreign_keys: true,
            checks: Vec::new(),
            chains: Vec::new(),
            keys: KeyRing::new(),
            busy_timeout: DEFAULT_LOCK_WAIT,
            file_mode: PRIVATE_FILE,
            durable: Durable::new(),
        }
    }
}

/// A place that a database is restored to.
#[derive(Debug, Clone)]
pub struct SqliteRestore {
    /// The database file: one that is replaced, or a name that is free.
    pub target: PathBuf,
    /// How.
    pub options: RestoreOptions,
}

/// What is known once nothing refuses the restore.
struct Checked<'a> {
    /// The target, links followed.
    target: PathBuf,
    object: &'a ObjectEntry,
    facts: Option<&'a SourceFacts>,
    chains: Vec<ChainEntry>,
    /// The files that are there now.
    present: Vec<PathBuf>,
    schema: Vec<SchemaVerdict>,
    pending: bool,
    blind: Option<String>,
    needs_bytes: u64,
    free_bytes: u64,
}

impl SqliteRestore {
    /// Names a target with the default options. Nothing is opened.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self::with_options(target, RestoreOptions::default())
    }

    /// Names a target. Nothing is opened.
    pub fn with_options(target: impl Into<PathBuf>, options: RestoreOptions) -> Self {
        Self { target: target.into(), options }
    }

    /// Says how the database in a backup stands to what the program knows, as far as the manifest tells.
    ///
    /// # Errors
    /// As [`Restore::plan`] where the backup holds no database, or several.
    pub fn schema(&self, manifest: &Manifest) -> Result<Vec<SchemaVerdict>> {
        let facts = facts_of(manifest, self.object(manifest)?);
        let recorded = facts.map(Recorded::from_facts).unwrap_or_default();
        Ok(self.options.known.iter().filter_map(|known| compare(known, &recorded)).collect())
    }

    /// Finds the database among the objects.
    fn object<'a>(&self, manifest: &'a Manifest) -> Result<&'a ObjectEntry> {
        let databases: Vec<&ObjectEntry> = manifest
            .objects
            .iter()
            .filter(|object| {
                let name = object.plain_name();
                name.starts_with("database/") && name.ends_with(".db")
            })
            .collect();
        let listed = || {
            let names: Vec<&str> = databases.iter().map(|object| object.plain_name()).collect();
            if names.is_empty() {
                "it holds none".to_owned()
            } else {
                format!("it holds {}", names.join(", "))
            }
        };
        if let Some(name) = &self.options.object {
            return manifest.object(name).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("backup {:?} has no object {name:?}", manifest.id))
                    .with_hint(listed())
            });
        }
        match databases.as_slice() {
            [one] => Ok(one),
            [] => Err(Error::new(
                ErrorKind::NotFound,
                format!("backup {:?} holds no SQLite database", manifest.id),
            )
            .with_hint("list its objects with `attestore show`")),
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("backup {:?} holds several databases", manifest.id),
            )
            .with_hint(format!("name one: {}", listed()))),
        }
    }

    /// Checks everything that can be checked before a byte is written. Changes nothing.
    fn preflight<'a>(&self, manifest: &'a Manifest, ctx: &Context) -> Result<Checked<'a>> {
        ctx.check()?;
        let object = self.object(manifest)?;
        let facts = facts_of(manifest, object);
        let target = real_path(&self.target)?;
        let pending = is_pending(&target);
        require_place(&target, pending)?;
        let schema = self.schema(manifest)?;
        self.require_schema(&schema)?;
        let present: Vec<PathBuf> = FAMILY
            .iter()
            .map(|ending| sidecar(&target, ending))
            .filter(|path| path.symlink_metadata().is_ok())
            .collect();
        require_closed(&target, Whose::Anyone)?;
        require_owner(&target)?;
        let blind = if pending { None } else { self.probe(&target, ctx)? };
        let needs_bytes = object.size_bytes.saturating_add(SPARE);
        let folder = parent_of(&target);
        let free_bytes = free_space(folder)?;
        if free_bytes < needs_bytes {
            return Err(Error::new(
                ErrorKind::NoSpace,
                format!(
                    "no room in {}: {needs_bytes} bytes needed beside what is there, {free_bytes} bytes free",
                    folder.display()
                ),
            )
            .with_hint("free room on that file system; the old database stays until the new one is proven"));
        }
        let source = facts.map(|facts| facts.name.as_str());
        let chains =
            manifest.chains.iter().filter(|chain| Some(chain.source.as_str()) == source).cloned().collect();
        Ok(Checked {
            target,
            object,
            facts,
            chains,
            present,
            schema,
            pending,
            blind,
            needs_bytes,
            free_bytes,
        })
    }

    /// Asks SQLite whether somebody holds a lock on the target, without waiting and without changing it; says why
    /// where that cannot be asked.
    fn probe(&self, target: &Path, ctx: &Context) -> Result<Option<String>> {
        if target.symlink_metadata().is_err() {
            return Ok(None);
        }
        // Opening would roll back what a crashed writer left; that waits until the restore is carried out.
        if sidecar(target, "-journal").metadata().is_ok_and(|found| found.len() > 0) {
            return Ok(Some(
                "a -journal lies beside it; its locks are asked when the restore runs".to_owned(),
            ));
        }
        Ok(Exclusive::take(target, self.options.busy_timeout, ctx)?.blind)
    }

    fn require_schema(&self, schema: &[SchemaVerdict]) -> Result<()> {
        for verdict in schema {
            let (refused, kind, hint) = match verdict.state {
                SchemaState::Newer => (
                    !self.options.allow_newer,
                    ErrorKind::Newer,
                    "deploy the newer program first, or ask for the newer database explicitly (`--allow-newer`)",
                ),
                SchemaState::Changed => (
                    !self.options.allow_changed,
                    ErrorKind::Mismatch,
                    "deploy the program that the backup belongs to: this one refuses to start on it (`--allow-changed` restores it all the same)",
                ),
                SchemaState::Dirty => (
                    !self.options.allow_dirty,
                    ErrorKind::Mismatch,
                    "restore an earlier backup, or ask for this one explicitly (`--allow-dirty`) and repair the migration by hand",
                ),
                SchemaState::Equal | SchemaState::Older | SchemaState::NotRecorded => continue,
            };
            if refused {
                return Err(Error::new(
                    kind,
                    format!(
                        "the schema in the backup is {} ({}): {}",
                        verdict.state.name(),
                        verdict.recorded_in,
                        verdict.detail
                    ),
                )
                .with_hint(hint));
            }
        }
        Ok(())
    }

    /// Streams the object into the staging folder and syncs it.
    fn fetch(
        &self,
        checked: &Checked<'_>,
        backup: &dyn BackupObjects,
        staging: &Path,
        ctx: &Context,
    ) -> Result<PathBuf> {
        let name = checked.object.plain_name();
        let path = staging.join(RESTORED);
        let total = checked.object.size_bytes;
        let mut source = backup.open(name)?;
        let mut file = self.options.durable.create_new(&path, PRIVATE_FILE)?;
        let done = pump(&mut source, &mut file, ctx, &|done| {
            ctx.progress(Progress {
                stage: "restore",
                object: name,
                done,
                total: Some(total),
                unit: "bytes",
            });
        })
        .map_err(|error| own_error("restore", &path, error))?;
        if done != total {
            return Err(Error::Digest {
                object: name.to_owned(),
                what: "size in bytes",
                expected: total.to_string(),
                found: done.to_string(),
            });
        }
        file.finish_and_sync_dir()?;
        Ok(path)
    }

    /// Gives the restored file the mode and owner of the one it replaces.
    fn dress(&self, target: &Path, restored: &Path) -> Result<Check> {
        let (mode, owner) = match target.metadata() {
            Ok(old) => (old.mode() & 0o7777, Some((old.uid(), old.gid()))),
            Err(_) => (self.options.file_mode, None),
        };
        let new = restored.metadata().map_err(|error| Error::io("look at", restored, error))?;
        if let Some((uid, gid)) = owner.filter(|owner| *owner != (new.uid(), new.gid())) {
            std::os::unix::fs::chown(restored, Some(uid), Some(gid))
                .map_err(|error| Error::io("give its owner to", restored, error))?;
        }
        std::fs::set_permissions(restored, Permissions::from_mode(mode))
            .map_err(|error| Error::io("set the mode of", restored, error))?;
        let file = File::open(restored).map_err(|error| Error::io("open", restored, error))?;
        self.options.durable.sync_file(&file, restored)?;
        let detail = match owner {
            Some((uid, gid)) => format!("mode {mode:04o}, owner {uid}:{gid}, as before"),
            None => format!("mode {mode:04o}, owner {}:{}", new.uid(), new.gid()),
        };
        Ok(Check { name: "mode and owner".into(), ok: true, detail })
    }

    fn steps(&self, checked: &Checked<'_>) -> Vec<String> {
        let target = checked.target.display();
        let mut steps = Vec::new();
        if checked.pending {
            steps.push(format!("bring the interrupted restore of {target} to an end"));
        }
        steps.push(format!(
            "restore {} ({} bytes) beside {target}, its digests checked as it comes",
            checked.object.plain_name(),
            checked.object.size_bytes
        ));
        let mut proofs: Vec<String> = Vec::new();
        match self.options.integrity {
            Integrity::Off => {}
            Integrity::Quick => proofs.push("quick check".into()),
            Integrity::Full => proofs.push("integrity check".into()),
        }
        if self.options.foreign_keys {
            proofs.push("foreign keys".into());
        }
        if checked.facts.is_some_and(|facts| !facts.tables.is_empty()) {
            proofs.push("row counts of the manifest".into());
        }
        if !checked.chains.is_empty() {
            let tables: Vec<&str> = checked.chains.iter().map(|chain| chain.table.as_str()).collect();
            proofs.push(format!("chains of the manifest ({})", tables.join(", ")));
        }
        if !self.options.checks.is_empty() {
            proofs.push(format!("{} questions", self.options.checks.len()));
        }
        steps.push(format!(
            "prove it: {}",
            if proofs.is_empty() { "nothing".to_owned() } else { proofs.join(", ") }
        ));
        if checked.present.is_empty() {
            steps.push(format!("put it in place; nothing is at {target} now"));
        } else {
            let names: Vec<String> = checked
                .present
                .iter()
                .map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
                .collect();
            steps.push(format!("move {} aside to {target}.bad-<unix seconds>", names.join(", ")));
            steps.push("put the restored file in place, with the mode and owner of the old one".into());
        }
        steps
    }

    fn warnings(&self, checked: &Checked<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(facts) = checked.facts {
            if !checked.present.is_empty() {
                warnings
                    .push(format!("what was committed after {} is only in what is set aside", facts.instant));
            }
            warnings.extend(facts.not_included.iter().map(|line| format!("not in the backup: {line}")));
        } else {
            warnings.push(
                "the manifest has no facts of this database: rows and migrations are not compared".into(),
            );
        }
        for verdict in &checked.schema {
            warnings.push(format!(
                "schema {} ({}): {}",
                verdict.state.name(),
                verdict.recorded_in,
                verdict.detail
            ));
        }
        if self.options.known.is_empty()
            && let Some(migrations) = checked.facts.and_then(|facts| facts.migrations.as_ref())
        {
            warnings.push(format!(
                "schema version {} ({}) is not compared: what the program knows was not said",
                migrations.version, migrations.recorded_in
            ));
        }
        for chain in checked.chains.iter().filter(|chain| chain.findings > 0) {
            warnings.push(format!(
                "chain {} had findings when it was backed up: {}",
                chain.table, chain.diagnosis
            ));
        }
        if let Some(why) = &checked.blind {
            warnings.push(format!("whether it is in use was told by open files alone: {why}"));
        }
        if self.target.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
            warnings.push(format!(
                "{} is a symbolic link: the file that it names is replaced, {}",
                self.target.display(),
                checked.target.display()
            ));
        }
        warnings
    }
}

/// Copies all bytes, looking at the caller's flag between buffers.
///
/// # Errors
/// What reading or writing says; cancellation as an error that carries [`Error::Cancelled`].
pub(crate) fn pump(
    source: &mut dyn Read,
    target: &mut dyn Write,
    ctx: &Context,
    progress: &dyn Fn(u64),
) -> std::io::Result<u64> {
    let mut buffer = vec![0_u8; BUFFER];
    let mut done = 0;
    loop {
        ctx.check()?;
        let read = match source.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { return Ok(done) };
        target.write_all(part)?;
        done += part.len() as u64;
        progress(done);
    }
}

/// Finds the facts of the source that an object is of.
fn facts_of<'a>(manifest: &'a Manifest, object: &ObjectEntry) -> Option<&'a SourceFacts> {
    let name = object.plain_name().strip_prefix("database/")?.strip_suffix(".db")?;
    manifest.source(name).filter(|facts| facts.kind == crate::facts::KIND)
}

/// Refuses a place where no database can be put.
fn require_place(target: &Path, pending: bool) -> Result<()> {
    let shown = target.display();
    let name = target.file_name().ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, format!("{shown}: expected the path of a file"))
    })?;
    let own = name.to_str().is_some_and(|name| FAMILY.iter().skip(1).any(|ending| name.ends_with(ending)));
    if name.len() > MAX_TARGET_NAME || name.to_str().is_none() || own {
        return Err(Error::new(
            ErrorKind::InvalidName,
            format!("{shown}: the name is longer than {MAX_TARGET_NAME} bytes, not UTF-8, or ends as SQLite's own files do"),
        )
        .with_hint("choose another name"));
    }
    let folder = parent_of(target);
    match folder.metadata() {
        Ok(found) if found.is_dir() => {}
        Ok(_) => {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{}: expected a folder, found a file", folder.display()),
            ));
        }
        Err(error) => {
            return Err(Error::io("look at", folder, error));
        }
    }
    let read_only =
        rustix::fs::statvfs(folder).is_ok_and(|mounted| mounted.f_flag.contains(StatVfsMountFlags::RDONLY));
    if read_only || rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let why = if read_only { "its file system is mounted read-only" } else { "access denied" };
        return Err(Error::new(
            ErrorKind::Permission,
            format!("cannot write in {}: {why}", folder.display()),
        )
        .with_hint("run as a user who may, or restore to another place"));
    }
    match target.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("look at", target, error)),
        Ok(found) if found.is_dir() => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{shown}: expected a database file or nothing, found a directory"),
        )
        .with_hint("name the file in it")),
        Ok(found) if !found.is_file() => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{shown}: expected a database file or nothing, found a device, pipe or socket"),
        )),
        Ok(_) if pending => Ok(()),
        Ok(_) => match inspect(target) {
            // Too small to be a database: it is set aside like any other.
            Err(error) if error.kind() == ErrorKind::Malformed => Ok(()),
            other => other.map(drop),
        },
    }
}

/// Refuses where the owner of the old file could not be kept.
fn require_owner(target: &Path) -> Result<()> {
    let Ok(old) = target.metadata() else { return Ok(()) };
    let own = rustix::process::geteuid().as_raw();
    if own != 0 && own != old.uid() {
        return Err(Error::new(
            ErrorKind::Permission,
            format!(
                "the owner of {} (uid {}) could not be kept: this process runs as uid {own}",
                target.display(),
                old.uid()
            ),
        )
        .with_hint("run as the owner of the database, or as root"));
    }
    Ok(())
}

/// Brings a restore that was interrupted in the middle of its swap to an end: rolled back, or completed.
///
/// [`SqliteRestore`] does so itself before anything else. A service may call it before it opens its database.
///
/// # Errors
/// `InUse` while another process restores; `Corrupt` or `Mismatch` when it cannot be told what was there.
pub fn recover(target: &Path) -> Result<Recovery> {
    let target = real_path(target)?;
    let path = staging_of(&target);
    if path.symlink_metadata().is_err() {
        return Ok(Recovery::Nothing);
    }
    let (mut staging, _) = Staging::fixed(&path, "restoring")?;
    finish(&target, &mut staging, &Durable::new())
}

/// Brings what a dead process left in the staging folder to an end.
fn finish(target: &Path, staging: &mut Staging, durable: &Durable) -> Result<Recovery> {
    staging.keep(true);
    let recovery = recover_swap(target, staging.path(), durable)?;
    staging.keep(false);
    if recovery != Recovery::Nothing {
        tracing::warn!(target = %target.display(), ?recovery, "an interrupted restore was brought to an end");
    }
    Ok(recovery)
}

impl Restore for SqliteRestore {
    fn plan(&self, backup: &dyn BackupObjects, ctx: &Context) -> Result<RestorePlan> {
        let manifest = backup.manifest();
        let checked = self.preflight(manifest, ctx)?;
        Ok(RestorePlan {
            backup: manifest.id.clone(),
            target: self.target.display().to_string(),
            steps: self.steps(&checked),
            warnings: self.warnings(&checked),
            needs_bytes: checked.needs_bytes,
            free_bytes: checked.free_bytes,
        })
    }

    fn execute(
        &self,
        plan: &RestorePlan,
        backup: &dyn BackupObjects,
        ctx: &Context,
    ) -> Result<RestoreOutcome> {
        let span =
            tracing::info_span!(parent: &ctx.span(), "sqlite restore", target = %self.target.display());
        let _entered = span.enter();
        let manifest = backup.manifest();
        let shown = self.target.display().to_string();
        if plan.backup != manifest.id || plan.target != shown {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "the plan is for backup {:?} to {:?}, not for {:?} to {shown:?}",
                    plan.backup, plan.target, manifest.id
                ),
            ));
        }
        let durable = &self.options.durable;
        let target = real_path(&self.target)?;
        let folder = parent_of(&target);
        if !folder.is_dir() {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no folder {}", folder.display())));
        }
        let (mut staging, taken_over) = Staging::fixed(&staging_of(&target), "restoring")?;
        if taken_over {
            finish(&target, &mut staging, durable)?;
            staging.empty()?;
        }
        // What the plan saw may be long ago.
        let checked = self.preflight(manifest, ctx)?;
        let restored = self.fetch(&checked, backup, staging.path(), ctx)?;
        let proof = Proof {
            integrity: self.options.integrity,
            foreign_keys: self.options.foreign_keys,
            facts: checked.facts,
            known: &self.options.known,
            checks: &self.options.checks,
            chains: &checked.chains,
            requests: &self.options.chains,
            keys: &self.options.keys,
        };
        let mut proven = prove(&restored, &proof, ctx)?;
        self.require_schema(&proven.schema)?;
        proven.checks.extend(proven.schema.iter().map(|verdict| Check {
            name: format!("schema ({})", verdict.recorded_in),
            ok: true,
            detail: format!("{}: {}", verdict.state.name(), verdict.detail),
        }));
        proven.checks.push(self.dress(&target, &restored)?);
        ctx.check()?;
        require_closed(&target, Whose::Anyone)?;
        // Nobody may come in between: the lock is held while the names change.
        let exclusive = match target.symlink_metadata() {
            Ok(_) => Some(Exclusive::take(&target, self.options.busy_timeout, ctx)?),
            Err(_) => None,
        };
        if let Some(why) = exclusive.as_ref().and_then(|exclusive| exclusive.blind.as_ref()) {
            tracing::warn!(why, "the locks of the old database could not be asked");
        }
        require_closed(&target, Whose::Others)?;
        staging.keep(true);
        let result = swap(&target, staging.path(), durable);
        drop(exclusive);
        staging.keep(is_pending(&target));
        let set_aside = result?;
        tracing::info!(bytes = checked.object.size_bytes, set_aside = set_aside.len(), "restored");
        Ok(RestoreOutcome {
            backup: manifest.id.clone(),
            target: shown,
            set_aside,
            checks: proven.checks,
            chains: proven.reports,
        })
    }
}
