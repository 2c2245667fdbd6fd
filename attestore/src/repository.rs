//! What is done with a repository besides backing up, verifying and restoring: made, listed, pruned, held, exported.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::context::Context;
use backup_core::durable::{self, Durable};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::Digest;
use backup_core::pack::{PackOptions, Packer};
use backup_core::paths::lossy;
use backup_core::repository::{
    Event, ExportEvent, Listing, MANIFEST, PruneOptions as CorePruneOptions, PruneOutcome, PrunePlan,
    ReadOptions, Repository, RepositoryOptions, RetentionPolicy, SIGNATURE,
};
use backup_core::seal::check_stored;
use backup_core::signing::SigningKey;
use backup_core::traits::BackupObjects as _;
use serde::Serialize;

use crate::backup::{Backup, local, open_repository};
use crate::keys;

/// A signing key that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeygenOutcome {
    /// The file of the secret key, mode 0600.
    #[serde(serialize_with = "lossy")]
    pub secret_key: PathBuf,
    /// The file of the public key.
    #[serde(serialize_with = "lossy")]
    pub public_key_file: PathBuf,
    /// The public key as minisign spells it.
    pub public_key: String,
    /// The same as 64 hexadecimal digits.
    pub public_key_hex: String,
}

/// Makes a signing key.
///
/// # Errors
/// `AlreadyExists` when one of the two files is there.
pub fn keygen(path: &Path) -> Result<KeygenOutcome> {
    let key = SigningKey::keygen(path, &Durable::default())?;
    let public = key.public_key();
    Ok(KeygenOutcome {
        secret_key: path.to_owned(),
        public_key_file: backup_core::signing::public_path(path),
        public_key: public.to_minisign(),
        public_key_hex: public.to_hex(),
    })
}

/// A repository that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InitOutcome {
    /// Its id.
    pub id: String,
    /// Its folder.
    pub path: PathBuf,
}

/// Makes a repository.
///
/// # Errors
/// `AlreadyExists` when the folder is a repository or not empty.
pub fn init(repository: &str) -> Result<InitOutcome> {
    let made = Repository::init(local(repository)?, &RepositoryOptions::default())?;
    Ok(InitOutcome { id: made.id().to_owned(), path: made.path().to_owned() })
}

/// Lists the backups, oldest first by the order of the log.
///
/// # Errors
/// When the repository cannot be read.
pub fn list(repository: &str) -> Result<Listing> {
    open_repository(repository)?.list()
}

/// Shows one backup; `id` may be `latest`.
///
/// # Errors
/// `NotFound`; `Tampered` when the manifest is not the logged one.
pub fn show(repository: &str, id: &str) -> Result<Backup> {
    let shown = open_repository(repository)?.show(id)?;
    Ok(Backup::from_manifest(shown.manifest, shown.summary.path))
}

/// Refuses to write a file into a repository, where it would be taken for damage or replace a part of it.
pub(crate) fn refuse_inside(repository: &Repository, path: &Path) -> Result<()> {
    let inside = durable::parent_of(path)
        .canonicalize()
        .is_ok_and(|folder| repository.path().canonicalize().is_ok_and(|root| folder.starts_with(root)));
    if !inside {
        return Ok(());
    }
    let message = format!("{} lies in the repository {}", path.display(), repository.path().display());
    Err(Error::new(ErrorKind::InvalidInput, message).with_hint("name a place outside the repository"))
}

/// Returns the log's signed checkpoint as the text of a note.
///
/// # Errors
/// `Tampered` when the log is not whole.
pub fn checkpoint(repository: &str) -> Result<String> {
    open_repository(repository)?.log_checkpoint()
}

/// What a prune is given.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// The rules.
    pub policy: RetentionPolicy,
    /// Whether to remove what the plan says.
    pub apply: bool,
    /// The keys of which one must have signed a backup for it to count.
    pub public_keys: Vec<String>,
    /// The file of the key that signs the log's entry.
    pub sign_with: Option<PathBuf>,
    /// How long to wait for a backup that is being made.
    pub wait: Duration,
}

/// A prune: the plan, and what was done where that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Prune {
    /// What the rules say.
    #[serde(flatten)]
    pub plan: PrunePlan,
    /// Whether it was done.
    pub applied: bool,
    /// What was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<PruneOutcome>,
}

/// Says what the rules would remove, and removes it where that is asked for.
///
/// # Errors
/// `InvalidInput` when no rule is given; `Locked`.
pub fn prune(repository: &str, options: &PruneOptions, ctx: &Context) -> Result<Prune> {
    let repository = open_repository(repository)?;
    let key = keys::signing_key(options.sign_with.as_deref())?;
    let core = CorePruneOptions {
        policy: options.policy.clone(),
        public_keys: keys::public_keys(&options.public_keys)?,
        lock_wait: options.wait,
    };
    let plan = repository.prune_plan(&core, ctx)?;
    let outcome =
        if options.apply { Some(repository.prune_apply(&plan, &core, key.as_ref(), ctx)?) } else { None };
    Ok(Prune { plan, applied: outcome.is_some(), outcome })
}

/// A hold that was set or released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HoldOutcome {
    /// The backup's id.
    pub id: String,
    /// Whether it is held now.
    pub held: bool,
    /// Why.
    pub reason: String,
}

/// Keeps a backup from being pruned, or releases it.
///
/// # Errors
/// `NotFound`.
pub fn hold(repository: &str, id: &str, on: bool, reason: &str, ctx: &Context) -> Result<HoldOutcome> {
    let repository = open_repository(repository)?;
    let id = repository.show(id)?.summary.id;
    repository.hold(&id, on, reason, ctx)?;
    Ok(HoldOutcome { id, held: on, reason: reason.to_owned() })
}

/// An export that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportOutcome {
    /// The backup's id.
    pub id: String,
    /// The file.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The digest of its bytes.
    pub sha256: Digest,
    /// The names in it.
    pub names: Vec<String>,
    /// The place of the log's entry.
    pub entry: u64,
}

/// Packs one backup, as it is stored, into a single file: `<id>/manifest.json`, its signature and every object.
///
/// # Errors
/// `AlreadyExists` when the file is there; `Corrupt` when an object is not what the manifest says.
pub fn export(
    repository: &str,
    id: &str,
    out: &Path,
    sign_with: Option<&Path>,
    ctx: &Context,
) -> Result<ExportOutcome> {
    let repository = open_repository(repository)?;
    let key = keys::signing_key(sign_with)?;
    refuse_inside(&repository, out)?;
    let backup = repository.objects(id, &ReadOptions::default(), ctx)?;
    let manifest = backup.manifest();
    let id = manifest.id.clone();
    let seconds = u64::try_from(manifest.created_at.as_second()).unwrap_or(0);
    let mut packer =
        Packer::create(out, &PackOptions { seconds, ..PackOptions::default() }, &Durable::default(), ctx)?;
    let mut names = Vec::new();
    let mut add = |name: &str, size: u64, reader: &mut dyn Read| {
        let name = format!("{id}/{name}");
        packer.add(&name, size, reader)?;
        names.push(name);
        Ok::<_, Error>(())
    };
    add(MANIFEST, backup.manifest_bytes().len() as u64, &mut backup.manifest_bytes())?;
    if manifest.signed_by.is_some() {
        let path = backup.folder().join(SIGNATURE);
        let signature = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
        add(SIGNATURE, signature.len() as u64, &mut signature.as_slice())?;
    }
    for object in &manifest.objects {
        check_stored(
            &object.name,
            backup.open_stored(object)?,
            &backup_core::repository::recorded(object),
            ctx,
        )?;
        add(&object.name, object.stored_size_bytes, &mut backup.open_stored(object)?)?;
    }
    let packed = packer.finish()?;
    let size_bytes = packed.size_bytes;
    let file = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let event = Event::Export(ExportEvent { backup: id.clone(), file, size_bytes, sha256: packed.sha256 });
    let entry = repository.record(event, key.as_ref(), ctx)?;
    Ok(ExportOutcome { id, path: out.to_owned(), size_bytes, sha256: packed.sha256, names, entry })
}
