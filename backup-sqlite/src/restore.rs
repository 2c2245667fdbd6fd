//! Puts a database back: [`Restore`] for one SQLite file.
//!
//! The facade and the command line call it; it calls [`crate::preflight`], [`crate::in_use`], [`crate::prove`] and [`crate::swap`], which say
//! what lies where and what holds when the process dies. The live database is not touched before the restored one,
//! beside it, is proven; then it is moved aside with its sidecars, never deleted.
//!
//! The restored file gets the mode and the owner of the one it replaces. Extended attributes, access control lists
//! and security labels are not carried over.

use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use audit_chain::keys::KeyRing;
use backup_core::context::{Context, Progress};
use backup_core::durable::{Durable, DurableFile, PRIVATE_FILE, parent_of};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::traits::{BackupObjects, ChainRequest, Check, Restore, RestoreOutcome, RestorePlan};

use crate::aside::real_path;
use crate::checks::{Integrity, SqlCheck};
use crate::in_use::{Exclusive, Whose, require_closed};
use crate::lineage::{BeforeSwap, Replacement, Seen};
use crate::migrations::Known;
use crate::preflight::Checked;
use crate::prove::{Proof, prove};
use crate::pump::pump_beside;
use crate::source::{joined, own_error};
use crate::staging::Staging;
use crate::swap::{RESTORED, Recovery, is_pending, recover as recover_swap, staging_of, swap};

/// How long a lock on the old database is waited for by default.
const DEFAULT_LOCK_WAIT: Duration = Duration::from_secs(2);

/// How a database is restored.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The object (`database/app.db`), where the backup holds several databases.
    pub object: Option<String>,
    /// What the deployed program knows of the schema. Empty means what the database at the target records, and
    /// where there is none, that migrations are only reported.
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
    /// What is done with the proven file before it takes the target's place.
    pub before_swap: Option<BeforeSwap>,
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
            before_swap: None,
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

impl SqliteRestore {
    /// Names a target with the default options. Nothing is opened.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self::with_options(target, RestoreOptions::default())
    }

    /// Names a target. Nothing is opened.
    pub fn with_options(target: impl Into<PathBuf>, options: RestoreOptions) -> Self {
        Self { target: target.into(), options }
    }

    /// Streams the object into the staging folder. It is not synced yet.
    fn fetch(
        &self,
        checked: &Checked<'_>,
        backup: &dyn BackupObjects,
        staging: &Path,
        ctx: &Context,
    ) -> Result<DurableFile> {
        let name = checked.object.plain_name();
        let path = staging.join(RESTORED);
        let total = checked.object.size_bytes;
        let mut source = backup.open(name)?;
        let mut file = self.options.durable.create_new(&path, PRIVATE_FILE)?;
        let done = pump_beside(&mut source, &mut file, ctx, &|done| {
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
        Ok(file)
    }

    /// Lets the caller see both databases before the swap; returns what the old one looked like then.
    fn before_swap(
        &self,
        checked: &Checked<'_>,
        target: &Path,
        restored: &Path,
        checks: &mut Vec<Check>,
        ctx: &Context,
    ) -> Result<Option<Seen>> {
        let Some(before_swap) = &self.options.before_swap else { return Ok(None) };
        require_closed(target, Whose::Anyone)?;
        let old = target.symlink_metadata().is_ok();
        if old {
            // Rolls back what a crashed writer left, so that reading changes nothing more.
            drop(Exclusive::take(target, self.options.busy_timeout, ctx)?);
        }
        let seen = Seen::of(target);
        let replacement = Replacement {
            restored,
            old: old.then_some(target),
            chains: &checked.chains,
            busy_timeout: self.options.busy_timeout,
        };
        checks.extend(before_swap.run(&replacement, ctx)?);
        Ok(Some(seen))
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
        let file = self.fetch(&checked, backup, staging.path(), ctx)?;
        let restored = file.path().to_owned();
        let proof = Proof {
            integrity: self.options.integrity,
            foreign_keys: self.options.foreign_keys,
            facts: checked.facts,
            known: &checked.known,
            checks: &self.options.checks,
            chains: &checked.chains,
            requests: &self.options.chains,
            keys: &self.options.keys,
        };
        // What is read is the same before and after it is on the disk; it is there before the swap.
        let (synced, proven) = std::thread::scope(|scope| {
            let syncing = scope.spawn(|| file.finish_and_sync_dir());
            let proven = prove(&restored, &proof, ctx);
            (joined(syncing), proven)
        });
        let mut proven = proven?;
        synced?;
        self.require_schema(&proven.schema)?;
        proven.checks.extend(proven.schema.iter().map(|verdict| Check {
            name: format!("schema ({})", verdict.recorded_in),
            ok: true,
            detail: format!("{}: {}", verdict.state.name(), verdict.detail),
        }));
        let seen = self.before_swap(&checked, &target, &restored, &mut proven.checks, ctx)?;
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
        if seen.is_some_and(|seen| seen != Seen::of(&target)) {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("{shown} was written to while its restore was put on record"),
            )
            .with_hint("stop the service and restore again; nothing was changed"));
        }
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
