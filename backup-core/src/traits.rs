//! The three traits that a backend implements: [`Snapshot`], [`Restore`], [`ChainVerify`].
//!
//! All are synchronous and object-safe; the [`Context`] carries progress and cancellation.
//! `conformance` is the suite that every implementation runs, this project's and anyone's.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::format::ChainFormat;
use audit_chain::keys::KeyRing;
use audit_chain::report::ChainReport;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::Result;
use crate::manifest::Manifest;

/// A chain to verify inside a source.
#[derive(Debug, Clone)]
pub struct ChainRequest {
    /// The format, with its settings.
    pub format: Arc<dyn ChainFormat>,
    /// The table, where it is not the format's own.
    pub table: Option<String>,
    /// Secrets and public keys at hand.
    pub keys: KeyRing,
    /// An earlier checkpoint that the chain must extend.
    pub checkpoint: Option<ChainCheckpoint>,
    /// Whether the chain's rows are also stored as `chain/<table>.ndjson.zst`.
    pub copy: bool,
}

/// What a backend says of its source at the instant of the snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// `sqlite`, `postgres`, `files`.
    pub kind: String,
    /// The source's name in the backup: the file's stem, the database's name.
    pub name: String,
    /// Where it was, without secrets.
    pub location: String,
    /// The version of the engine that wrote the snapshot (`SQLite 3.51.3`).
    pub engine: String,
    /// The instant that the snapshot shows.
    pub instant: Timestamp,
    /// The size of the database, in bytes.
    pub size_bytes: u64,
    /// Rows per table.
    pub tables: BTreeMap<String, u64>,
    /// Applied migrations, where the source says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<Migrations>,
    /// Further facts of the backend (page size, encoding, journal mode …).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
    /// What the snapshot does not hold, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_included: Vec<String>,
}

/// The migrations that a database has applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrations {
    /// Where they are recorded: `_sqlx_migrations`, `schema_meta`, `user_version`, `query`.
    pub recorded_in: String,
    /// The newest version, as the database spells it.
    pub version: String,
    /// Every applied migration with its checksum in hex, where recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<Migration>,
}

/// One applied migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// Its version.
    pub version: String,
    /// The checksum of its file in hex, where recorded.
    pub checksum: Option<String>,
    /// Whether it ran to its end.
    pub success: bool,
}

/// What a snapshot returns.
#[derive(Debug, Clone)]
pub struct SnapshotOutcome {
    /// The facts.
    pub facts: SourceFacts,
    /// The reports of the chains asked for, in their order.
    pub chains: Vec<ChainReport>,
}

/// Opens objects of a backup that is being written.
pub trait Sinks: Sync {
    /// Opens an object for writing. `name` is the plain name (`database/app.db`); suffixes for
    /// compression and encryption are the repository's. `size_hint` is the expected size in bytes.
    ///
    /// # Errors
    /// When the object exists already or cannot be created.
    fn object(&self, name: &str, size_hint: Option<u64>) -> Result<Box<dyn ObjectSink + '_>>;

    /// Returns a private folder (mode 0700) in the repository's file system, removed after the backup.
    fn scratch(&self) -> &Path;
}

/// Takes one object's plain bytes; digests, compresses, encrypts and stores them as they come.
pub trait ObjectSink: Write + Send {
    /// Ends the object: everything flushed, synced and recorded for the manifest. An object that is
    /// dropped without this call leaves nothing in the backup.
    ///
    /// # Errors
    /// When the last bytes cannot be stored.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Copies a source as of one instant.
pub trait Snapshot: Send + Sync {
    /// Returns the source's name in a backup and its kind.
    fn describe(&self) -> SourceName;

    /// Checks everything that can be checked before a byte is written: the source exists, can be
    /// read and is what it is said to be, keys fit.
    ///
    /// # Errors
    /// The first thing that is wrong.
    fn preflight(&self, ctx: &Context) -> Result<()>;

    /// Streams the source as of one instant into `sinks`, in constant memory, and verifies `chains`
    /// inside that same snapshot.
    ///
    /// # Errors
    /// Any failure; the caller then throws the whole backup away.
    fn snapshot(&self, chains: &[ChainRequest], sinks: &dyn Sinks, ctx: &Context) -> Result<SnapshotOutcome>;
}

/// A source's kind and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceName {
    /// `sqlite`, `postgres`, `files`.
    pub kind: String,
    /// The name under which its objects are stored.
    pub name: String,
    /// Where it is, without secrets.
    pub location: String,
}

/// Verifies chains in a source as of one instant.
pub trait ChainVerify: Send + Sync {
    /// Verifies one chain inside one snapshot of the source.
    ///
    /// # Errors
    /// When the source cannot be read; what is wrong with the chain is in the report, not an error.
    fn verify_chain(&self, chain: &ChainRequest, ctx: &Context) -> Result<ChainReport>;
}

/// Reads the objects of a committed backup.
pub trait BackupObjects: Sync {
    /// Returns the manifest, already checked as far as the caller asked.
    fn manifest(&self) -> &Manifest;

    /// Opens an object by its name in the manifest. The reader decrypts, decompresses and digests as
    /// it goes, and fails at the end (or at the first damaged frame) when a digest is not the recorded one.
    ///
    /// # Errors
    /// When the object is missing or no identity at hand opens it.
    fn open(&self, name: &str) -> Result<Box<dyn Read + Send + '_>>;
}

/// Puts a backup back.
pub trait Restore: Send + Sync {
    /// Checks everything that can be checked before a byte is written and says what would happen.
    ///
    /// # Errors
    /// What refuses the restore: in use, newer schema, no room, key does not fit.
    fn plan(&self, backup: &dyn BackupObjects, ctx: &Context) -> Result<RestorePlan>;

    /// Does what the plan says: restores beside the target, proves the result, swaps, keeps the old.
    /// The live data is untouched until the restored data is proven.
    ///
    /// # Errors
    /// Any failure; the target is then what it was before.
    fn execute(
        &self,
        plan: &RestorePlan,
        backup: &dyn BackupObjects,
        ctx: &Context,
    ) -> Result<RestoreOutcome>;
}

/// What a restore would do, for people and for JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// The backup's id.
    pub backup: String,
    /// Where it goes.
    pub target: String,
    /// The steps in order, one sentence each.
    pub steps: Vec<String>,
    /// What a person should know before saying yes.
    pub warnings: Vec<String>,
    /// Bytes needed beside the target.
    pub needs_bytes: u64,
    /// Bytes free there.
    pub free_bytes: u64,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreOutcome {
    /// The backup's id.
    pub backup: String,
    /// Where it went.
    pub target: String,
    /// The files that hold what was there before.
    #[serde(serialize_with = "crate::paths::all_lossy")]
    pub set_aside: Vec<PathBuf>,
    /// What was checked, one line each.
    pub checks: Vec<Check>,
    /// The chains of the restored data.
    pub chains: Vec<ChainReport>,
}

/// One check of a restore, a drill or a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// What was expected and found, in a few words.
    pub detail: String,
}
