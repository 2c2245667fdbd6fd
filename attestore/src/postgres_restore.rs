//! Puts a PostgreSQL backup back: into a new database beside the live one, proven, then renamed.

use backup_core::context::Context;
use backup_core::error::Result;
use backup_core::manifest::Manifest;
use backup_core::repository::{Event, Repository, RestoreEvent, StoredBackup};
use backup_core::signing::SigningKey;
use backup_core::traits::{BackupObjects as _, Restore as _};
use backup_postgres::{PostgresRestore, RestoreOptions as ServerOptions};

use crate::keys;
use crate::postgres::{self, Server};
use crate::restore::{RestoreOptions, Restored, secrets_in_doubt};

/// Plans a restore to a server, and does it unless only the plan is asked for.
///
/// # Errors
/// What refuses or stops the restore; the live database is then what it was before.
pub(crate) fn restore(
    repository: &Repository,
    backup: &StoredBackup,
    server: &Server,
    options: &RestoreOptions,
    key: Option<&SigningKey>,
    ctx: &Context,
) -> Result<Restored> {
    let manifest = backup.manifest();
    let formats: Vec<_> = manifest.chains.iter().map(|chain| chain.format.as_str()).collect();
    let restore = PostgresRestore::new(
        postgres::address(server)?,
        ServerOptions {
            source: options.object.as_deref().map(|object| source_of(manifest, object)),
            tools: postgres::tools(&options.postgres),
            end_sessions: options.end_sessions,
            checks: options.checks.clone(),
            keys: keys::key_ring(&options.secrets, &[], &[])?,
            settings: postgres::settings(&options.postgres, &formats)?,
            jobs: 0,
        },
    );
    let mut plan = restore.plan(backup, ctx)?;
    plan.warnings.extend(secrets_in_doubt(manifest, &options.secrets)?);
    if options.public_keys.is_empty() {
        // A dump runs code of whoever made it (PITFALLS 10).
        plan.warnings.push("who signed this backup is not checked: give --public-key".into());
    }
    if options.plan_only {
        return Ok(Restored { plan, outcome: None, notes: Vec::new() });
    }
    let outcome = restore.execute(&plan, backup, ctx);
    let event = RestoreEvent {
        backup: plan.backup.clone(),
        target: plan.target.clone(),
        ok: outcome.is_ok(),
        details: Default::default(),
    };
    let mut notes = Vec::new();
    if let Err(error) = repository.record(Event::Restore(event), key, ctx) {
        notes.push(format!("this restore is not in the repository's log: {error}"));
    }
    Ok(Restored { plan, outcome: Some(outcome?), notes })
}

/// Returns the source that an object belongs to: the name of one may be given too.
fn source_of(manifest: &Manifest, object: &str) -> String {
    let stem = object.strip_prefix("database/").unwrap_or(object);
    let stem = stem.split(['/', '.']).next().unwrap_or(stem);
    let servers: Vec<_> = manifest.sources.iter().filter(|source| source.kind == "postgres").collect();
    match servers.as_slice() {
        [only] if stem == backup_postgres::source::ONLY => only.name.clone(),
        _ => stem.to_owned(),
    }
}
