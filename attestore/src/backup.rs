//! Makes backups, and says what is in one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use audit_chain::report::{ChainReport, Verdict};
use backup_core::context::Context;
use backup_core::encrypt::Recipients;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::files::FilesSource;
use backup_core::manifest::{ChainEntry, Manifest, ObjectEntry, SecretEntry};
use backup_core::repository::{
    BackupRequest, OnFindings, PruneOutcome, Repository, RepositoryOptions, RetentionPolicy, SourceRequest,
};
use backup_core::secret::fingerprint;
use backup_core::traits::{ChainRequest, Snapshot, SourceFacts};
use backup_sqlite::{Method, SourceOptions, SqliteSource};
use jiff::Timestamp;
use serde::Serialize;

use crate::input::{self, Source};
use crate::postgres::{PostgresOptions, ServerSource};
use crate::{chain, keys, lineage, postgres};

/// What to back up and how.
#[derive(Debug, Clone, Default)]
pub struct BackupOptions {
    /// Databases: a path, `sqlite:PATH`, `postgres://…`, or `NAME=` before one of them.
    pub sources: Vec<String>,
    /// The backup's name instead of a UTC time stamp.
    pub name: Option<String>,
    /// Chains to verify inside the snapshot, each `FORMAT` or `FORMAT:TABLE`.
    pub chains: Vec<String>,
    /// Secrets as `NAME=REF`: fingerprinted, used to verify, never stored.
    pub secrets: Vec<String>,
    /// Public keys that may sign chain records: files or text.
    pub public_keys: Vec<String>,
    /// Files and folders, each `NAME=PATH`.
    pub files: Vec<String>,
    /// age recipients.
    pub encrypt_to: Vec<String>,
    /// The file of the signing key.
    pub sign_with: Option<PathBuf>,
    /// Afterwards keep only the newest so many.
    pub keep_last: Option<u32>,
    /// Threads that compress; `None` lets the machine decide. From 2 on also how many connections read a PostgreSQL server.
    pub jobs: Option<u32>,
    /// How a SQLite file is copied.
    pub method: Method,
    /// Whether each chain is also stored as NDJSON.
    pub chain_copy: bool,
    /// Whether a chain with findings stops the backup.
    pub refuse_findings: bool,
    /// How long to wait for another backup to end.
    pub wait: Duration,
    /// How PostgreSQL servers are reached.
    pub postgres: PostgresOptions,
    /// The chains of each source, in the order of `sources`; where this is empty, `chains` are looked for in every source.
    pub source_chains: Vec<Vec<SourceChain>>,
    /// What to keep afterwards, where `keep_last` does not say it.
    pub retention: Option<RetentionPolicy>,
    /// What the backup does not hold, besides what the sources say.
    pub not_included: Vec<String>,
    /// How many sources are read at once; 0 and 1 mean one.
    pub parallel: usize,
}

/// A chain of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceChain {
    /// `FORMAT` or `FORMAT:TABLE`.
    pub chain: String,
    /// Whether it is also stored as NDJSON.
    pub copy: bool,
}

/// One backup as INTERFACE.md writes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Backup {
    /// Its id.
    pub id: String,
    /// Its folder.
    pub path: PathBuf,
    /// The size of its stored objects, in bytes.
    pub size_bytes: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// What was backed up.
    pub sources: Vec<SourceFacts>,
    /// The objects with sizes and digests.
    pub objects: Vec<ObjectEntry>,
    /// The chains that were verified in the snapshot.
    pub chains: Vec<ChainEntry>,
    /// The secrets that the data needs, by fingerprint.
    pub secrets: Vec<SecretEntry>,
    /// The public key that signed it.
    pub signed_by: Option<String>,
    /// Whom it is encrypted to.
    pub encrypted_to: Vec<String>,
    /// What it does not hold.
    pub not_included: Vec<String>,
    /// The full reports on the chains; only where the backup was just made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reports: Vec<ChainReport>,
    /// What retention removed afterwards, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruned: Option<PruneOutcome>,
    /// Why retention did not run, where it was asked for and failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune_error: Option<String>,
}

impl Backup {
    /// Takes a manifest.
    #[must_use]
    pub fn from_manifest(manifest: Manifest, path: PathBuf) -> Self {
        Self {
            size_bytes: manifest.stored_bytes(),
            id: manifest.id,
            path,
            created_at: manifest.created_at,
            sources: manifest.sources,
            objects: manifest.objects,
            chains: manifest.chains,
            secrets: manifest.secrets,
            signed_by: manifest.signed_by,
            encrypted_to: manifest.encrypted_to,
            not_included: manifest.not_included,
            reports: Vec::new(),
            pruned: None,
            prune_error: None,
        }
    }

    /// Reports whether every chain was found intact.
    #[must_use]
    pub fn chains_intact(&self) -> bool {
        self.chains.iter().all(|chain| chain.verdict == Verdict::Intact)
    }
}

/// Opens a repository by its path.
///
/// # Errors
/// [`ErrorKind::NotFound`] when it is none; [`ErrorKind::Unsupported`] for an object store.
pub fn open_repository(repository: &str) -> Result<Repository> {
    Repository::open(local(repository)?, &RepositoryOptions::default())
}

/// Takes the path of a repository, and refuses what this build cannot reach.
pub(crate) fn local(repository: &str) -> Result<&Path> {
    match repository.split_once("://") {
        Some((scheme @ ("s3" | "gs" | "az"), _)) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{scheme}: this build keeps repositories in folders only"),
        )
        .with_hint("name a folder; copy it to the object store with the store's own tool")),
        // Only the scheme is repeated: a URL may hold a password.
        Some((scheme, _)) if !Path::new(repository).exists() => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{scheme}: no such kind of repository: expected a folder"),
        )),
        _ => Ok(Path::new(repository)),
    }
}

/// Makes a backup.
///
/// # Errors
/// Whatever stops it; nothing is then left in the repository.
pub fn backup(repository: &str, options: &BackupOptions, ctx: &Context) -> Result<Backup> {
    let repository = open_repository(repository)?;
    let key = keys::signing_key(options.sign_with.as_deref())?;
    let recipients =
        if options.encrypt_to.is_empty() { None } else { Some(Recipients::parse(&options.encrypt_to)?) };
    let ring = keys::key_ring(&options.secrets, &options.public_keys, &[])?;
    let request = |text: &str, copy: bool| {
        let (format, table) = chain::format_and_table(text);
        Ok(ChainRequest {
            format: chain::format(format)?,
            table: table.map(str::to_owned),
            keys: ring.clone(),
            checkpoint: None,
            copy,
        })
    };
    let chains =
        options.chains.iter().map(|text| request(text, options.chain_copy)).collect::<Result<Vec<_>>>()?;
    let source_chains = options
        .source_chains
        .iter()
        .map(|chains| chains.iter().map(|one| request(&one.chain, one.copy)).collect::<Result<Vec<_>>>())
        .collect::<Result<Vec<_>>>()?;
    let mut snapshots: Vec<(Box<dyn Snapshot>, Vec<ChainRequest>)> = Vec::new();
    let alone = options.sources.len() == 1;
    let mut databases = Vec::with_capacity(options.sources.len());
    for (at, text) in options.sources.iter().enumerate() {
        match ServerSource::parse(text) {
            Some(server) => {
                let own = source_chains.get(at).map(Vec::as_slice);
                snapshots.push(postgres::snapshot(&server, options, &chains, own, alone, ctx)?);
            }
            None => databases.push((at, input::source(text)?)),
        }
    }
    let mut exclude = vec![repository.path().to_owned()];
    for (at, Source { name, path }) in databases {
        exclude.push(path.clone());
        let source_options = SourceOptions {
            name,
            method: options.method,
            chains_by_name: !alone,
            ..SourceOptions::default()
        };
        let source = SqliteSource::with_options(path, source_options);
        let mut held = match source_chains.get(at) {
            Some(own) => own.clone(),
            None if alone => chains.clone(),
            None => chains_in(&source, &chains, ctx)?,
        };
        for chain in &mut held {
            // A chain that a restore on record set back continues the backup before (B3, B11).
            lineage::add_beside(&mut chain.keys, &source.path)?;
            key.iter().for_each(|key| chain.keys.add_restore_key(*key.public_key().verifying_key()));
        }
        snapshots.push((Box::new(source), held));
    }
    if let Some(lost) = chains.iter().find(|chain| !snapshots.iter().any(|(_, held)| holds(held, chain))) {
        let message = format!("no source has the chain {} of {}", lost.format.table(), lost.format.name());
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    for file in &options.files {
        let mut source = files_source(file)?;
        // A folder is taken without the databases that are sources of their own, and never with the repository itself.
        source.exclude.clone_from(&exclude);
        snapshots.push((Box::new(source), Vec::new()));
    }
    let request = BackupRequest {
        sources: snapshots
            .iter()
            .map(|(snapshot, chains)| SourceRequest { snapshot: snapshot.as_ref(), chains: chains.clone() })
            .collect(),
        name: options.name.clone(),
        recipients,
        signing_key: key.as_ref(),
        secrets: fingerprints(&options.secrets)?,
        jobs: options.jobs,
        on_findings: if options.refuse_findings { OnFindings::Refuse } else { OnFindings::Record },
        lock_wait: options.wait,
        retention: options.keep_last.map(RetentionPolicy::last).or_else(|| options.retention.clone()),
        not_included: options.not_included.clone(),
        parallel: options.parallel,
        ..BackupRequest::default()
    };
    let made = repository.backup(&request, ctx)?;
    let mut backup = Backup::from_manifest(made.manifest, made.path);
    backup.reports = made.reports.into_iter().flat_map(|report| report.chains).collect();
    backup.pruned = made.pruned;
    backup.prune_error = made.prune_error;
    Ok(backup)
}

/// Reports whether a source was given this chain.
fn holds(held: &[ChainRequest], chain: &ChainRequest) -> bool {
    held.iter().any(|one| one.format.name() == chain.format.name() && one.table == chain.table)
}

/// Of several databases, each is asked only for the chains whose tables it has.
fn chains_in(source: &SqliteSource, chains: &[ChainRequest], ctx: &Context) -> Result<Vec<ChainRequest>> {
    let tables = source.tables(ctx)?;
    let has = |chain: &&ChainRequest| {
        let table = chain.table.as_deref().unwrap_or_else(|| chain.format.table());
        tables.iter().any(|name| name.eq_ignore_ascii_case(table))
    };
    Ok(chains.iter().filter(has).cloned().collect())
}

/// Reads `NAME=PATH`.
fn files_source(text: &str) -> Result<FilesSource> {
    let (name, path) = text
        .split_once('=')
        .filter(|(name, path)| !name.is_empty() && !path.is_empty())
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, format!("--file {text:?}: expected NAME=PATH")))?;
    Ok(FilesSource::new(name, path))
}

/// Fingerprints the first value of each secret: the one in force.
fn fingerprints(secrets: &[String]) -> Result<Vec<SecretEntry>> {
    let mut entries: Vec<SecretEntry> = Vec::new();
    for (name, value) in keys::read_secrets(secrets)? {
        if entries.iter().all(|entry| entry.name != name) {
            entries.push(SecretEntry { fingerprint: fingerprint(&value)?, name });
        }
    }
    Ok(entries)
}
