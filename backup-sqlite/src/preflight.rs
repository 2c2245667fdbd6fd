//! Everything that is checked before a restore writes a byte (B5), and the plan that a person reads.
//!
//! Called by [`crate::restore`], once for the plan and once more when it is carried out, for much can change in between.
//! Nothing is changed here, and the live file is looked at through SQLite and `stat` only.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use backup_core::context::Context;
use backup_core::durable::{free_space, parent_of};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::{ChainEntry, Manifest, ObjectEntry};
use backup_core::traits::SourceFacts;
use rustix::fs::{Access, StatVfsMountFlags};

use crate::aside::real_path;
use crate::checks::Integrity;
use crate::in_use::{Exclusive, Whose, require_closed};
use crate::migrations::{Known, Recorded, SchemaState, SchemaVerdict, compare};
use crate::open::{FAMILY, inspect, sidecar};
use crate::restore::SqliteRestore;
use crate::swap::is_pending;

/// Room that is asked for besides the restored file, for the journal and the names, in bytes.
const SPARE: u64 = 1 << 20;
/// The longest name of a target, in bytes: with `.bad-<seconds>-<number>-journal` it must fit 255.
const MAX_TARGET_NAME: usize = 215;

/// What is known once nothing refuses the restore.
pub(crate) struct Checked<'a> {
    /// The target, links followed.
    pub(crate) target: PathBuf,
    pub(crate) object: &'a ObjectEntry,
    pub(crate) facts: Option<&'a SourceFacts>,
    pub(crate) chains: Vec<ChainEntry>,
    /// The files that are there now.
    present: Vec<PathBuf>,
    schema: Vec<SchemaVerdict>,
    /// What the program knows of the schema: as the caller said, else as the database at the target records it.
    pub(crate) known: Vec<Known>,
    pending: bool,
    blind: Option<String>,
    pub(crate) needs_bytes: u64,
    pub(crate) free_bytes: u64,
}

impl SqliteRestore {
    /// Says how the database in a backup stands to what the program knows, as far as the manifest tells.
    ///
    /// # Errors
    /// As [`Restore::plan`](backup_core::traits::Restore::plan) where the backup holds no database, or several.
    pub fn schema(&self, manifest: &Manifest) -> Result<Vec<SchemaVerdict>> {
        self.schema_against(manifest, &self.options.known)
    }

    /// Compares what the manifest tells of the schema with what is known; a migration that failed half-way needs no comparison.
    fn schema_against(&self, manifest: &Manifest, known: &[Known]) -> Result<Vec<SchemaVerdict>> {
        let facts = facts_of(manifest, self.object(manifest)?);
        let recorded = facts.map(Recorded::from_facts).unwrap_or_default();
        let mut verdicts: Vec<SchemaVerdict> =
            known.iter().filter_map(|known| compare(known, &recorded)).collect();
        if verdicts.iter().all(|verdict| verdict.state != SchemaState::Dirty) {
            verdicts.extend(recorded.dirty());
        }
        Ok(verdicts)
    }

    /// Finds the database among the objects.
    pub(crate) fn object<'a>(&self, manifest: &'a Manifest) -> Result<&'a ObjectEntry> {
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
    pub(crate) fn preflight<'a>(&self, manifest: &'a Manifest, ctx: &Context) -> Result<Checked<'a>> {
        ctx.check()?;
        let object = self.object(manifest)?;
        let facts = facts_of(manifest, object);
        let target = real_path(&self.target)?;
        let pending = is_pending(&target);
        require_place(&target, pending)?;
        let present: Vec<PathBuf> = FAMILY
            .iter()
            .map(|ending| sidecar(&target, ending))
            .filter(|path| path.symlink_metadata().is_ok())
            .collect();
        require_closed(&target, Whose::Anyone)?;
        require_owner(&target)?;
        let (blind, live) = if pending { (None, None) } else { self.probe(&target, ctx)? };
        let known = match live {
            Some(live) if self.options.known.is_empty() => live.known(),
            _ => self.options.known.clone(),
        };
        let schema = self.schema_against(manifest, &known)?;
        self.require_schema(&schema)?;
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
            known,
            pending,
            blind,
            needs_bytes,
            free_bytes,
        })
    }

    /// Asks SQLite whether somebody holds a lock on the target, without waiting and without changing it; says why
    /// where that cannot be asked. Returns too what the database there records of its schema.
    fn probe(&self, target: &Path, ctx: &Context) -> Result<(Option<String>, Option<Recorded>)> {
        if target.symlink_metadata().is_err() {
            return Ok((None, None));
        }
        // Opening would roll back what a crashed writer left; that waits until the restore is carried out.
        if sidecar(target, "-journal").metadata().is_ok_and(|found| found.len() > 0) {
            let why = "a -journal lies beside it; its locks are asked when the restore runs";
            return Ok((Some(why.to_owned()), None));
        }
        let exclusive = Exclusive::take(target, self.options.busy_timeout, ctx)?;
        let recorded = exclusive.recorded(target);
        Ok((exclusive.blind, recorded))
    }

    /// Refuses a schema that the program does not open, unless the caller asked for it.
    pub(crate) fn require_schema(&self, schema: &[SchemaVerdict]) -> Result<()> {
        for verdict in schema {
            let (refused, kind, hint) = match verdict.state {
                SchemaState::Newer => (
                    !self.options.allow_newer,
                    ErrorKind::Newer,
                    "deploy the newer program first, or ask for the newer database explicitly (`--allow-newer`)",
                ),
                SchemaState::Changed => (
                    !self.options.allow_changed,
                    ErrorKind::Incompatible,
                    "deploy the program that the backup belongs to: this one refuses to start on it (`--allow-changed` restores it all the same)",
                ),
                SchemaState::Dirty => (
                    !self.options.allow_dirty,
                    ErrorKind::Incompatible,
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

    pub(crate) fn steps(&self, checked: &Checked<'_>) -> Vec<String> {
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
        let equal = checked.schema.iter().filter(|verdict| verdict.state == SchemaState::Equal);
        steps.extend(equal.map(|verdict| {
            format!("the schema is the program's ({}): {}", verdict.recorded_in, verdict.detail)
        }));
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

    pub(crate) fn warnings(&self, checked: &Checked<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(facts) = checked.facts {
            warnings.extend(facts.not_included.iter().map(|line| format!("not in the backup: {line}")));
            // The first line of what is not included names the instant.
            if !checked.present.is_empty() {
                warnings.push("what was committed since the backup is only in what is set aside".into());
            }
        } else {
            warnings.push(
                "the manifest has no facts of this database: rows and migrations are not compared".into(),
            );
        }
        let source = if self.options.known.is_empty() && !checked.known.is_empty() {
            "; what the program knows is taken from the database at the target"
        } else {
            ""
        };
        for verdict in checked.schema.iter().filter(|verdict| verdict.state != SchemaState::Equal) {
            warnings.push(format!(
                "schema {} ({}): {}{source}",
                verdict.state.name(),
                verdict.recorded_in,
                verdict.detail
            ));
        }
        if checked.known.is_empty()
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
