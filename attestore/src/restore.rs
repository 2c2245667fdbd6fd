//! Puts a backup back: a database as a file, a folder as a new folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::context::Context;
use backup_core::durable::{self, Durable};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::extract::{ExtractOptions, extract};
use backup_core::manifest::Manifest;
use backup_core::repository::{Event, ReadOptions, RestoreEvent, StoredBackup};
use backup_core::signing::SigningKey;
use backup_core::traits::{BackupObjects, Check, Restore as _, RestoreOutcome, RestorePlan};
use backup_sqlite::{Known, RestoreOptions as SqliteOptions, SqlCheck, SqliteRestore};
use serde::Serialize;

use crate::backup::open_repository;
use crate::contents::databases;
use crate::lineage::{Recorder, RecorderOptions};
use crate::postgres::PostgresOptions;
#[cfg(feature = "postgres")]
use crate::postgres::Server;
use crate::repository::refuse_inside;
use crate::{chain, input, keys};

/// How a backup is put back.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Which object, where a backup has several.
    pub object: Option<String>,
    /// Only say what would happen.
    pub plan_only: bool,
    /// Secrets as `NAME=REF`: each must be the one that the backup was made with.
    pub secrets: Vec<String>,
    /// The file of the age identity that opens the objects.
    pub identity: Option<PathBuf>,
    /// Public keys of which one must have signed: files or text.
    pub public_keys: Vec<String>,
    /// Questions that the restored database must answer with something but NULL, 0 or nothing.
    pub checks: Vec<String>,
    /// The folder of the deployed program's migrations.
    pub migrations: Option<PathBuf>,
    /// The highest `schema_meta` version that the deployed program opens.
    pub schema_version: Option<i64>,
    /// Restores a database whose schema is newer than the program.
    pub allow_newer: bool,
    /// Restores a database with a migration that is not the program's.
    pub allow_changed: bool,
    /// Restores a database with a migration that failed half-way.
    pub allow_dirty: bool,
    /// How a PostgreSQL server is reached.
    pub postgres: PostgresOptions,
    /// Ends the sessions on a live PostgreSQL database; otherwise the restore is refused while there are any.
    pub end_sessions: bool,
    /// The file of the key that signs the log's entry, and the record of the restore that later verifications accept.
    pub sign_with: Option<PathBuf>,
    /// Who restores, for the record; the machine's name where `None`.
    pub by: Option<String>,
    /// Checkpoints at which the chains stood before, where the database that is replaced cannot say it itself.
    pub stood_at: Vec<PathBuf>,
}

/// A restore: its plan, and what was done where that was asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Restored {
    /// What would happen, or happened.
    pub plan: RestorePlan,
    /// What was done; absent where only the plan was asked for.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<RestoreOutcome>,
    /// What is worth saying.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What is to be put back.
enum What {
    Database(String),
    Files(String),
}

/// Plans a restore, and does it unless only the plan is asked for.
///
/// # Errors
/// What refuses or stops the restore; the target is then what it was before.
pub fn restore(
    repository: &str,
    id: &str,
    to: &str,
    options: &RestoreOptions,
    ctx: &Context,
) -> Result<Restored> {
    let repository = open_repository(repository)?;
    let key = keys::signing_key(options.sign_with.as_deref())?;
    let backup = open_backup(&repository, id, options, ctx)?;
    check_secrets(backup.manifest(), &options.secrets)?;
    #[cfg(feature = "postgres")]
    if let Some(server) = Server::parse(to) {
        return crate::postgres_restore::restore(&repository, &backup, &server, options, key.as_ref(), ctx);
    }
    let target = input::database(to)?;
    refuse_inside(&repository, &target)?;
    let what = choose(backup.manifest(), options.object.as_deref())?;
    let recorder = recorder(&repository, &backup, &what, &target, options, key.as_ref())?;
    let (mut plan, outcome) = match &what {
        What::Database(object) => {
            let mut sqlite = sqlite_options(object, options)?;
            sqlite.before_swap = recorder.as_ref().map(Recorder::before_swap);
            let restore = SqliteRestore::with_options(&target, sqlite);
            let plan = restore.plan(&backup, ctx)?;
            let outcome = if options.plan_only { None } else { Some(restore.execute(&plan, &backup, ctx)) };
            (plan, outcome)
        }
        What::Files(object) => {
            let plan = files_plan(&backup, object, &target)?;
            let outcome =
                if options.plan_only { None } else { Some(restore_files(&backup, object, &target, ctx)) };
            (plan, outcome)
        }
    };
    plan.warnings.extend(secrets_in_doubt(backup.manifest(), &options.secrets)?);
    if options.public_keys.is_empty() {
        plan.warnings.push("who signed this backup is not checked: give --public-key".into());
    }
    if recorder.is_none() && matches!(what, What::Database(_)) && !backup.manifest().chains.is_empty() {
        plan.warnings.push(
            "this restore will not be on record: verified against a later checkpoint, the chains are found to be set back; give --sign-with".into(),
        );
    }
    let Some(outcome) = outcome else { return Ok(Restored { plan, outcome: None, notes: Vec::new() }) };
    let mut notes = Vec::new();
    let mut details = std::collections::BTreeMap::new();
    if let Some(recorder) = &recorder {
        if outcome.is_err()
            && let Err(error) = recorder.undo()
        {
            notes.push(format!("the lineage file names this restore, which failed: {error}"));
        }
        let (records, told) = recorder.finish();
        notes.extend(told);
        if outcome.is_ok() && !records.is_empty() {
            let signed: Vec<_> = records.into_iter().map(|record| record.note).collect();
            details.insert("lineage".to_owned(), signed.into());
        }
    }
    let event = RestoreEvent {
        backup: plan.backup.clone(),
        target: plan.target.clone(),
        ok: outcome.is_ok(),
        details,
    };
    if let Err(error) = repository.record(Event::Restore(event), key.as_ref(), ctx) {
        notes.push(format!("this restore is not in the repository's log: {error}"));
    }
    Ok(Restored { plan, outcome: Some(outcome?), notes })
}

/// Makes what puts the restore on record, where a key signs it and there are chains.
fn recorder(
    repository: &backup_core::repository::Repository,
    backup: &StoredBackup,
    what: &What,
    target: &Path,
    options: &RestoreOptions,
    key: Option<&SigningKey>,
) -> Result<Option<Arc<Recorder>>> {
    let stood_at =
        options.stood_at.iter().map(|path| chain::read_checkpoint(path, &[])).collect::<Result<Vec<_>>>()?;
    let Some(key) = key.filter(|_| matches!(what, What::Database(_)) && !backup.manifest().chains.is_empty())
    else {
        return Ok(None);
    };
    Recorder::new(RecorderOptions {
        repository,
        backup: &backup.manifest().id,
        target,
        key: key.clone(),
        by: options.by.clone(),
        keys: keys::key_ring(&options.secrets, &[], &[])?,
        stood_at,
    })
    .map(Some)
}

/// Opens the backup with the keys at hand.
fn open_backup(
    repository: &backup_core::repository::Repository,
    id: &str,
    options: &RestoreOptions,
    ctx: &Context,
) -> Result<StoredBackup> {
    let read = ReadOptions {
        identities: keys::identities(options.identity.as_deref())?,
        public_keys: keys::public_keys(&options.public_keys)?,
    };
    repository.objects(id, &read, ctx)
}

/// Checks each secret at hand against the fingerprint in the manifest (B5).
pub(crate) fn check_secrets(manifest: &Manifest, secrets: &[String]) -> Result<()> {
    let read = keys::read_secrets(secrets)?;
    match keys::unfitting(manifest, &read)?.first() {
        None => Ok(()),
        Some(entry) => Err(Error::new(ErrorKind::KeyRejected, keys::does_not_fit(manifest, entry))
            .with_hint(format!("find the secret whose fingerprint is {}", entry.fingerprint))),
    }
}

/// Says which secrets the data needs that are not at hand, and which are at hand that the manifest does not know.
pub(crate) fn secrets_in_doubt(manifest: &Manifest, secrets: &[String]) -> Result<Vec<String>> {
    let given = secrets.iter().map(|text| Ok(keys::named_secret(text)?.0)).collect::<Result<Vec<_>>>()?;
    let known = |name: &String| manifest.secrets.iter().any(|entry| entry.name == *name);
    let mut lines: Vec<String> = manifest
        .secrets
        .iter()
        .filter(|entry| !given.contains(&entry.name))
        .map(|entry| format!("needs the secret {0}, which is not checked: give --secret {0}=REF", entry.name))
        .collect();
    for name in given.iter().filter(|name| !known(name)) {
        lines.push(format!("the backup has no fingerprint of a secret {name}: it is not checked"));
    }
    Ok(lines)
}

/// Chooses what to put back: the object named, or the only database.
fn choose(manifest: &Manifest, object: Option<&str>) -> Result<What> {
    let names: Vec<&str> = manifest.objects.iter().map(|object| object.plain_name()).collect();
    if let Some(name) = object {
        let found = manifest.object(name).map(|object| object.plain_name().to_owned()).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("backup {} has no object {name:?}; it has {}", manifest.id, names.join(", ")),
            )
        })?;
        return kind_of(&found).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, format!("{found} is neither a database nor a folder"))
        });
    }
    let databases = databases(manifest);
    match (databases.as_slice(), names.as_slice()) {
        ([one], _) => Ok(What::Database(one.clone())),
        ([], [one]) if kind_of(one).is_some() => Ok(What::Files((*one).to_owned())),
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("backup {} has several things to restore: {}", manifest.id, names.join(", ")),
        )
        .with_hint("name one with --object")),
    }
}

/// Tells a database from a folder by the object's name.
fn kind_of(object: &str) -> Option<What> {
    if object.starts_with("database/") && object.ends_with(".db") {
        Some(What::Database(object.to_owned()))
    } else if object.starts_with("files/") && object.ends_with(".tar") {
        Some(What::Files(object.to_owned()))
    } else {
        None
    }
}

/// Makes the options of the SQLite backend.
fn sqlite_options(object: &str, options: &RestoreOptions) -> Result<SqliteOptions> {
    let mut known = Vec::new();
    if let Some(folder) = &options.migrations {
        known.push(Known::sqlx_folder(folder)?);
    }
    if let Some(max) = options.schema_version {
        known.push(Known::SchemaMeta { max });
    }
    Ok(SqliteOptions {
        object: Some(object.to_owned()),
        known,
        allow_newer: options.allow_newer,
        allow_changed: options.allow_changed,
        allow_dirty: options.allow_dirty,
        checks: options.checks.iter().map(|sql| sql_check(sql)).collect(),
        keys: keys::key_ring(&options.secrets, &[], &[])?,
        ..SqliteOptions::default()
    })
}

/// Makes a check of a query that must answer something but NULL, 0 or nothing.
pub(crate) fn sql_check(sql: &str) -> SqlCheck {
    SqlCheck { name: sql.to_owned(), sql: sql.to_owned(), expected: None }
}

/// Says what extracting a folder would do.
fn files_plan(backup: &StoredBackup, object: &str, target: &Path) -> Result<RestorePlan> {
    if target.symlink_metadata().is_ok() {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("{} exists; a folder is restored to a new name", target.display()),
        ));
    }
    let entry = backup.manifest().object(object);
    Ok(RestorePlan {
        backup: backup.manifest().id.clone(),
        target: target.display().to_string(),
        steps: vec![
            format!("extract {object} beside {}, checking its digests", target.display()),
            "sync every file and folder".into(),
            format!("give it the name {}", target.display()),
        ],
        warnings: Vec::new(),
        needs_bytes: entry.map_or(0, |entry| entry.size_bytes),
        free_bytes: durable::free_space(durable::parent_of(target))?,
    })
}

/// Extracts a folder.
fn restore_files(
    backup: &StoredBackup,
    object: &str,
    target: &Path,
    ctx: &Context,
) -> Result<RestoreOutcome> {
    let done =
        extract(object, backup.open(object)?, target, &ExtractOptions::default(), &Durable::default(), ctx)?;
    let detail = format!(
        "{} files, {} folders, {} links, {} bytes",
        done.files, done.folders, done.links, done.size_bytes
    );
    Ok(RestoreOutcome {
        backup: backup.manifest().id.clone(),
        target: target.display().to_string(),
        set_aside: Vec::new(),
        checks: vec![Check { name: "digests".into(), ok: true, detail }],
        chains: Vec::new(),
    })
}
