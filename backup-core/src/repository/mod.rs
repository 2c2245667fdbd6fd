//! A repository: a folder in which backups live, with a log of its own that notices what is done to them.
//!
//! Services, bindings and the command line call [`Repository`]; it calls `seal` and `signing` for bytes and
//! `audit_chain` for the log. One file a concern:
//!
//! | file | what |
//! |---|---|
//! | `layout` | paths, `repository.json`, ids |
//! | `lock` | who may write |
//! | `staging`, `commit`, `recover` | a backup is whole or not there, whenever the process dies |
//! | `record`, `log`, `logread`, `entry` | the log: lines, appending, verifying, what it adds up to |
//! | `read` | a backup's objects, for restores |
//! | `verify`, `objects`, `finding` | levels of verification and what they find |
//! | `overview` | all that `status` asks, in one reading |
//! | `policy`, `retention` | which backups go, and their removal |
//!
//! The order of a commit: objects, manifest and signature are written and synced under `staging/`; the log's
//! entry names the backup by its manifest's digest; one rename puts it in place. The entry comes first, so
//! that a backup that is there without one was put there by something else.

mod commit;
mod entry;
mod finding;
mod layout;
mod lock;
mod log;
mod logread;
mod objects;
mod overview;
mod policy;
mod read;
mod record;
mod recover;
mod retention;
mod staging;
mod verify;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use audit_chain::note::NoteSigner;
use audit_chain::report::Verdict;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::commit::{BackupOutcome, BackupRequest, OnFindings, SourceReport, SourceRequest};
pub use self::entry::{
    BackupEvent, BackupRecord, DrillEvent, Event, ExportEvent, HoldEvent, InitEvent, LogEntry, LogState,
    PruneEvent, PrunedBackup, RecoverEvent, RestoreEvent, Timed, Verified, VerifyEvent,
};
pub use self::finding::{
    BackupReport, Level, LogReport, RepositoryFinding, RepositoryFindingKind, VerifyReport,
};
pub use self::layout::{FORMAT, FORMAT_VERSION, Header, Layout, MANIFEST, SIGNATURE};
pub use self::log::BUNDLE;
pub use self::overview::Overview;
pub use self::policy::{Age, RetentionPolicy};
pub use self::read::{ReadOptions, StoredBackup, recorded};
pub use self::retention::{KeptBackup, PRUNE_BATCH, PruneOptions, PruneOutcome, PrunePlan, RemovedBackup};
pub use self::verify::{ContentCheck, ContentReport, VerifyOptions, Which};

use self::log::Log;
use self::logread::LogRead;
use crate::context::Context;
use crate::durable::{self, Durable, PRIVATE_DIR};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, Manifest};
use crate::signing::SigningKey;

/// The id that stands for the newest backup by the order of the log.
pub const LATEST: &str = "latest";
/// What the origin of a repository's log begins with; its id follows.
pub const LOG_ORIGIN_PREFIX: &str = "attestore.dev/repository/";

/// How a repository is opened or made.
#[derive(Debug, Clone, Default)]
pub struct RepositoryOptions {
    /// Creates, syncs and renames; tests observe it.
    pub durable: Durable,
    /// Who the log's entries say wrote them; the machine's name by default.
    pub by: Option<String>,
}

/// A repository in a folder of a local file system.
#[derive(Debug)]
pub struct Repository {
    layout: Layout,
    header: Header,
    durable: Durable,
    by: String,
}

/// What `list` says of a backup, from the log alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupSummary {
    /// Its id.
    pub id: String,
    /// Its folder.
    pub path: PathBuf,
    /// The size of its stored objects, in bytes.
    pub size_bytes: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// The place of its entry in the log: the order in which backups were committed.
    pub sequence: u64,
    /// How many objects.
    pub objects: u64,
    /// The sources, as `kind:name`.
    pub sources: Vec<String>,
    /// The digest of its manifest.
    pub manifest_sha256: Digest,
    /// The public key that signed the manifest.
    pub signed_by: Option<String>,
    /// The worst verdict on its chains.
    pub chains: Option<Verdict>,
    /// Why it is held.
    pub held: Option<String>,
    /// How far the newest good verification that named it went.
    pub verified: Option<Level>,
}

/// What `list` returns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// The backups that are there, oldest first by the order of the log.
    pub backups: Vec<BackupSummary>,
    /// What does not fit, as far as it is seen without reading a backup. `verify` says more.
    pub findings: Vec<RepositoryFinding>,
}

/// A backup with its manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShownBackup {
    /// What the log says.
    pub summary: BackupSummary,
    /// The manifest, whose bytes have the digest that the log names.
    pub manifest: Manifest,
}

/// Returns random bytes in hex.
fn random_hex<const N: usize>() -> Result<String> {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(ErrorKind::Unavailable, "the system gives no random bytes").with_source(error)
    })?;
    Ok(hex::encode(bytes))
}

impl Repository {
    /// Makes a repository in a folder that does not exist or is empty.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when the folder is a repository or not empty; `Permission`, `NoSpace`.
    pub fn init(path: impl AsRef<Path>, options: &RepositoryOptions) -> Result<Self> {
        let path = path.as_ref();
        let exists = |what: &str| {
            Err(Error::new(ErrorKind::AlreadyExists, format!("{} {what}", path.display()))
                .with_hint("choose a folder that does not exist or is empty"))
        };
        match std::fs::read_dir(path) {
            Ok(mut entries) => {
                if Layout::new(path).header().exists() {
                    return exists("is a repository already");
                }
                if entries.next().is_some() {
                    return exists("is not empty");
                }
                Self::build(path, options)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create_parents(path, &options.durable)?;
                let staging = durable::staging_name(path, "init")?;
                options.durable.create_dir(&staging, PRIVATE_DIR)?;
                let built = Self::build(&staging, options)
                    .and_then(|()| options.durable.rename_noreplace(&staging, path));
                if let Err(error) = built {
                    let _ = options.durable.remove_tree(&staging);
                    return Err(error);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory && path.is_file() => {
                return exists("is a file");
            }
            Err(error) => return Err(Error::io("read", path, error)),
        }
        Self::open(path, options)
    }

    /// Writes everything into an empty folder; `repository.json` last, without which it is none.
    fn build(root: &Path, options: &RepositoryOptions) -> Result<()> {
        let mut seed = zeroize::Zeroizing::new([0_u8; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the system gives no random bytes").with_source(error)
        })?;
        let id = random_hex::<16>()?;
        let log_origin = format!("{LOG_ORIGIN_PREFIX}{id}");
        let signer = NoteSigner::new(&log_origin, &seed)?;
        let layout = Layout::new(root);
        let header = Header {
            format: FORMAT.into(),
            format_version: FORMAT_VERSION,
            id,
            created_at: Timestamp::now(),
            log_key: signer.verifier().to_string(),
            log_origin,
        };
        let repository = Self { layout, header, durable: options.durable.clone(), by: by(options) };
        let (layout, durable) = (&repository.layout, &repository.durable);
        durable.create_dir(layout.backups(), PRIVATE_DIR)?;
        durable.create_dir(layout.staging(), PRIVATE_DIR)?;
        let header = repository.header.to_bytes()?;
        let init = Event::Init(InitEvent {
            repository: repository.header.id.clone(),
            attestore: env!("CARGO_PKG_VERSION").into(),
            header_sha256: Digest::of(&header),
        });
        repository.log().create(&signer, &seed, init)?;
        durable.write_new(layout.header(), &header, durable::PRIVATE_FILE)
    }

    /// Opens a repository. Nothing is written and no lock is taken.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is none; [`ErrorKind::Newer`] when a newer program made it;
    /// [`ErrorKind::Malformed`] when `repository.json` is damaged.
    pub fn open(path: impl AsRef<Path>, options: &RepositoryOptions) -> Result<Self> {
        let layout = Layout::new(path.as_ref());
        let header = Header::read(&layout)?;
        Ok(Self { layout, header, durable: options.durable.clone(), by: by(options) })
    }

    /// Returns the repository's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.header.id
    }

    /// Returns who writes entries into its log: the machine's name, or what the caller said.
    #[must_use]
    pub fn by(&self) -> &str {
        &self.by
    }

    /// Returns the repository's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.layout.root()
    }

    /// Returns the paths in it.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns what `repository.json` says.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    fn log(&self) -> Log<'_> {
        Log { layout: &self.layout, header: &self.header, durable: &self.durable, by: &self.by }
    }

    /// Names the operator's key as a signer of the log's checkpoints.
    fn cosigner(&self, key: Option<&SigningKey>) -> Result<Option<NoteSigner>> {
        key.map(|key| key.note_signer(&self.cosigner_name())).transpose()
    }

    fn cosigner_name(&self) -> String {
        format!("{}/operator", self.header.log_origin)
    }

    /// Returns what the log adds up to.
    ///
    /// # Errors
    /// [`ErrorKind::Tampered`] when the log is not whole.
    pub fn state(&self) -> Result<LogState> {
        self.log().state()
    }

    /// Lists the backups from the log and the folder, without reading a manifest.
    ///
    /// # Errors
    /// When the log or the folder cannot be read. A damaged log is a finding, and the rest is listed.
    pub fn list(&self) -> Result<Listing> {
        let (read, present, mut findings) = self.settled(&[])?;
        findings.splice(0..0, read.findings.iter().cloned());
        let backups = read
            .state
            .live_records()
            .filter(|record| present.contains(&record.event.id))
            .map(|record| self.summary(record))
            .collect();
        Ok(Listing { backups, findings })
    }

    /// Reads the log and compares it with the folder until no commit or prune comes in between: two readings
    /// in a row see the same, or nothing wrong.
    #[allow(clippy::type_complexity)] // What two readings give; it does not leave this crate.
    fn settled(&self, sizes: &[u64]) -> Result<(LogRead, BTreeSet<String>, Vec<RepositoryFinding>)> {
        let mut last = None;
        loop {
            let read = self.log().read(sizes)?;
            let (present, findings) = self.presence(&read)?;
            if findings.is_empty() || last.as_ref() == Some(&findings) {
                return Ok((read, present, findings));
            }
            last = Some(findings);
        }
    }

    /// Compares the log with the folder: the ids that are there and logged, and what does not fit.
    fn presence(&self, read: &LogRead) -> Result<(BTreeSet<String>, Vec<RepositoryFinding>)> {
        use self::finding::RepositoryFindingKind as Kind;
        let mut findings = Vec::new();
        let pending = recover::Pending::read(&self.layout)?;
        let mut folders = folder_names(&self.layout.backups())?;
        let mut present = BTreeSet::new();
        for record in read.state.live_records() {
            let id = &record.event.id;
            let has_manifest =
                folders.remove(id) && self.layout.backup(id).join(MANIFEST).symlink_metadata().is_ok();
            if has_manifest {
                present.insert(id.clone());
            } else if self.layout.backup(id).symlink_metadata().is_ok() {
                let what = format!("the backup {id} has no manifest");
                findings.push(
                    RepositoryFinding::new(Kind::ManifestMissing, what).backup(id).entry(record.sequence),
                );
            } else if !pending.commits(id, &record.event.manifest_sha256) {
                let what = format!("the backup {id} is gone and no prune is on record");
                findings.push(
                    RepositoryFinding::new(Kind::BackupMissing, what).backup(id).entry(record.sequence),
                );
            }
        }
        for id in folders {
            let (kind, what) = match read.state.record(&id) {
                Some(record) if pending.prunes(&id, &record.event.manifest_sha256) => continue,
                Some(_) => (Kind::BackupReadded, "was pruned and is there again"),
                None => (Kind::BackupUnlogged, "is there and the log does not name it"),
            };
            findings.push(RepositoryFinding::new(kind, format!("the backup {id} {what}")).backup(&id));
        }
        Ok((present, findings))
    }

    fn summary(&self, record: &BackupRecord) -> BackupSummary {
        let event = &record.event;
        BackupSummary {
            id: event.id.clone(),
            path: self.layout.backup(&event.id),
            size_bytes: event.size_bytes,
            created_at: event.created_at,
            sequence: record.sequence,
            objects: event.objects,
            sources: event.sources.clone(),
            manifest_sha256: event.manifest_sha256,
            signed_by: event.signed_by.clone(),
            chains: event.chains,
            held: record.held.clone(),
            verified: record.verified.map(|verified| verified.level),
        }
    }

    /// Shows a backup with its manifest; `id` may be [`LATEST`].
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Tampered`] when the manifest is not the logged one.
    pub fn show(&self, id: &str) -> Result<ShownBackup> {
        let read = self.log().read(&[])?;
        let record = self.find(&read.state, id)?;
        let (manifest, _) = self.read_manifest(record)?;
        Ok(ShownBackup { summary: self.summary(record), manifest })
    }

    /// Returns the log's newest checkpoint as the text of a signed note, to be kept elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::Tampered`] when it is not signed by the log's key or the entries do not fit it.
    pub fn log_checkpoint(&self) -> Result<String> {
        self.log().state()?;
        let (_, note) = self.log().checkpoint()?;
        Ok(note.to_string())
    }

    /// Records what was done with a backup: a verification, restore, drill or export. Returns the entry's place.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for entries that the repository writes itself; [`ErrorKind::Locked`],
    /// [`ErrorKind::Tampered`], [`ErrorKind::Permission`].
    pub fn record(&self, event: Event, key: Option<&SigningKey>, ctx: &Context) -> Result<u64> {
        let own = matches!(event, Event::Verify(_) | Event::Restore(_) | Event::Drill(_) | Event::Export(_));
        if !own {
            let message = format!("a `{}` entry is written by the repository itself", event.kind());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        self.log().append(self.cosigner(key)?.as_ref(), ctx, |_| Ok(event))
    }

    /// Puts a backup under a hold (`on`), or releases it; a held backup is never pruned.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Locked`], [`ErrorKind::Tampered`], [`ErrorKind::Permission`].
    pub fn hold(&self, id: &str, on: bool, reason: &str, ctx: &Context) -> Result<u64> {
        self.log().append(None, ctx, |state| {
            let state = state()?;
            let backup = self.find(&state, id)?.event.id.clone();
            Ok(Event::Hold(HoldEvent { backup, on, reason: reason.to_owned() }))
        })
    }

    /// Finds a backup by id or [`LATEST`] in the log and in the folder.
    fn find<'a>(&self, state: &'a LogState, id: &str) -> Result<&'a BackupRecord> {
        let there = |record: &&BackupRecord| {
            self.layout.backup(&record.event.id).join(MANIFEST).symlink_metadata().is_ok()
        };
        let missing = |id: &str, what: &str| {
            Error::new(ErrorKind::NotFound, format!("the backup {id:?} {what}"))
                .with_hint("`attestore list` shows what is there")
        };
        let gone = |id: &str| {
            missing(id, "is on record and gone")
                .with_hint("it was deleted: verify the repository, or name another backup")
        };
        if id == LATEST {
            let pending = recover::Pending::read(&self.layout)?;
            // One that waits to be put in place is passed over; one that was deleted is not.
            let newest = state.live_records().rev().find(|record| {
                there(record) || !pending.commits(&record.event.id, &record.event.manifest_sha256)
            });
            let newest = newest.ok_or_else(|| {
                let message = format!("the repository {} has no backup", self.path().display());
                Error::new(ErrorKind::NotFound, message)
                    .with_hint("make one: attestore backup SOURCE --to REPO")
            })?;
            return Some(newest).filter(there).ok_or_else(|| gone(&newest.event.id));
        }
        crate::names::validate_name(id)?;
        let record = state.record(id).ok_or_else(|| missing(id, "is not in this repository"))?;
        if record.pruned.is_some() {
            return Err(missing(id, "was pruned"));
        }
        Some(record).filter(there).ok_or_else(|| gone(id))
    }

    /// Reads a manifest and checks it against the log.
    fn read_manifest(&self, record: &BackupRecord) -> Result<(Manifest, Vec<u8>)> {
        let path = self.layout.backup(&record.event.id).join(MANIFEST);
        let bytes = layout::read_limited(&path, crate::manifest::MAX_BYTES)?;
        let found = Digest::of(&bytes);
        if found != record.event.manifest_sha256 {
            let message = format!(
                "the manifest of {} is not the one in the repository's log: expected sha256 {}, found {found}",
                record.event.id, record.event.manifest_sha256
            );
            return Err(Error::new(ErrorKind::Tampered, message)
                .with_hint("the backup was altered, damaged or rolled back: use another one"));
        }
        let manifest = Manifest::from_json(&bytes)?;
        if manifest.id != record.event.id {
            let message = format!("the manifest of {} says that it is of {}", record.event.id, manifest.id);
            return Err(Error::new(ErrorKind::Tampered, message));
        }
        Ok((manifest, bytes))
    }
}

fn by(options: &RepositoryOptions) -> String {
    options.by.clone().unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// Creates the folders above `path` that are missing, each synced into its parent.
fn create_parents(path: &Path, durable: &Durable) -> Result<()> {
    let parent = durable::parent_of(path);
    if parent == path || parent.is_dir() {
        return Ok(());
    }
    create_parents(parent, durable)?;
    match durable.create_dir(parent, 0o755) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Returns the names in a folder, whatever they are.
fn folder_names(folder: &Path) -> Result<BTreeSet<String>> {
    let named = |error| Error::io("read", folder, error);
    let entries = std::fs::read_dir(folder).map_err(named)?;
    entries.map(|entry| Ok(entry.map_err(named)?.file_name().to_string_lossy().into_owned())).collect()
}

/// Reads a root in base64.
fn parse_root(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
