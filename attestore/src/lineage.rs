//! Puts restores on record (B11), so that a later verification tells them from a rollback.
//!
//! [`crate::restore`] makes a [`Recorder`], which the SQLite backend calls with both databases before the names change: it
//! reads how far the old chains went beyond the restored ones, signs that, appends it to native chains of the restored
//! file, and adds a line to the *lineage file* beside the target, `app.db.lineage` (docs/format/lineage.md), which later
//! restores only append to. [`crate::chain`] and [`crate::backup`] read it.
//!
//! When the process dies after the line and before the swap, the file names a restore that was not finished; it allows what
//! the operator had signed. A restore that fails takes its line back.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit_chain::checkpoint::{ChainCheckpoint, ChainPoint};
use audit_chain::formats;
use audit_chain::keys::KeyRing;
use audit_chain::lineage::{RestoreFacts, RestoreRecord, RestoredChain, Stand, Tail};
use audit_chain::merkle::{Hash, empty_root};
use backup_core::context::Context;
use backup_core::durable;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::ChainEntry;
use backup_core::repository::Repository;
use backup_core::signing::SigningKey;
use backup_core::traits::{ChainRequest, Check};
use backup_sqlite::lineage::{BeforeSwap, Replacement, append_restore, tails};
use jiff::Timestamp;

use crate::chain::{CHAIN_SIGNER, read_document};

/// What the name of a lineage file ends with.
pub const SUFFIX: &str = ".lineage";

/// How many lost rows the row of a restore in a native chain lists itself; the lineage file lists more.
const LOST_IN_ROW: usize = 4_096;

/// A table with more chains than this records only those that the restore changed.
const MAX_UNCHANGED: usize = 1_000;

/// Returns the lineage file of a database.
#[must_use]
pub fn file_of(database: &Path) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(SUFFIX);
    PathBuf::from(name)
}

/// Reads a lineage file.
///
/// # Errors
/// `NotFound`; `Malformed` with the line.
pub fn read_file(path: &Path) -> Result<Vec<RestoreRecord>> {
    let text = String::from_utf8(read_document(path)?).map_err(|_| {
        Error::new(ErrorKind::Malformed, format!("{}: a lineage file is UTF-8 text", path.display()))
    })?;
    RestoreRecord::parse_file(&text).map_err(|error| {
        Error::new(error.kind(), format!("{}: {error}", path.display()))
            .with_hint("a lineage file is what `attestore restore --sign-with` writes beside the database")
    })
}

/// Adds the records of the lineage file beside a database to a ring, where there is one.
///
/// # Errors
/// As [`read_file`].
pub fn add_beside(ring: &mut KeyRing, database: &Path) -> Result<()> {
    let path = file_of(database);
    if path.symlink_metadata().is_ok() {
        read_file(&path)?.into_iter().for_each(|record| ring.add_restore(record));
    }
    Ok(())
}

/// Puts one restore on record.
pub(crate) struct Recorder {
    key: SigningKey,
    by: String,
    backup: String,
    repository: String,
    target: PathBuf,
    /// Where chains are known to have stood, by format and table: later backups, checkpoints that the operator gives.
    known: Vec<(String, Option<String>, Vec<ChainPoint>)>,
    keys: KeyRing,
    done: Mutex<Done>,
}

/// What was written so far.
#[derive(Default)]
struct Done {
    records: Vec<RestoreRecord>,
    notes: Vec<String>,
    /// The length of the lineage file before; `None` where there was none.
    before: Option<Option<u64>>,
}

/// Who restores what, and what is known besides.
pub(crate) struct RecorderOptions<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) backup: &'a str,
    pub(crate) target: &'a Path,
    pub(crate) key: SigningKey,
    pub(crate) by: Option<String>,
    pub(crate) keys: KeyRing,
    pub(crate) stood_at: Vec<ChainCheckpoint>,
}

impl Recorder {
    /// Reads what later backups of the repository say of the chains.
    pub(crate) fn new(options: RecorderOptions<'_>) -> Result<Arc<Self>> {
        let mut known = Vec::new();
        let state = options.repository.state()?;
        let from = state.live(options.backup).map_or(0, |record| record.sequence);
        for record in state.live_records().filter(|record| record.sequence > from) {
            // A backup that cannot be read says nothing.
            let Ok(shown) = options.repository.show(&record.event.id) else { continue };
            for entry in shown.manifest.chains {
                known.push((entry.format, Some(entry.table), entry.points.chains));
            }
        }
        known.extend(options.stood_at.into_iter().map(|given| (given.format, None, given.chains)));
        Ok(Arc::new(Self {
            key: options.key,
            by: options.by.unwrap_or_else(|| options.repository.by().to_owned()),
            backup: options.backup.to_owned(),
            repository: options.repository.id().to_owned(),
            target: options.target.to_owned(),
            known,
            keys: options.keys,
            done: Mutex::default(),
        }))
    }

    /// Returns what the backend is to do before the swap.
    pub(crate) fn before_swap(self: &Arc<Self>) -> BeforeSwap {
        let recorder = Arc::clone(self);
        BeforeSwap::new(move |replacement, ctx| recorder.record(replacement, ctx))
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the records that were written, and what is worth saying.
    pub(crate) fn finish(&self) -> (Vec<RestoreRecord>, Vec<String>) {
        let mut done = self.done();
        (std::mem::take(&mut done.records), std::mem::take(&mut done.notes))
    }

    /// Takes the lines of a restore that failed back.
    pub(crate) fn undo(&self) -> Result<()> {
        let Some(before) = self.done().before.take() else { return Ok(()) };
        let path = file_of(&self.target);
        match before {
            None => std::fs::remove_file(&path).map_err(|error| Error::io("remove", &path, error)),
            Some(length) => OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(length).and_then(|()| file.sync_all()))
                .map_err(|error| Error::io("shorten", &path, error)),
        }
    }

    fn record(&self, replacement: &Replacement<'_>, ctx: &Context) -> Result<Vec<Check>> {
        let mut checks = Vec::new();
        let mut lines = String::new();
        for entry in replacement.chains {
            let name = format!("lineage of {}", entry.table);
            let detail = match self.table(entry, replacement, ctx)? {
                Some((record, detail)) => {
                    lines.push_str(&record.line());
                    lines.push('\n');
                    self.done().records.push(record);
                    detail
                }
                None => format!("not on record: the format {} is not at hand", entry.format),
            };
            checks.push(Check { name, ok: true, detail });
        }
        if !lines.is_empty() {
            self.write(&lines)?;
        }
        Ok(checks)
    }

    /// Signs what the restore does to the chains of one table, and appends it to those that are native.
    fn table(
        &self,
        entry: &ChainEntry,
        replacement: &Replacement<'_>,
        ctx: &Context,
    ) -> Result<Option<(RestoreRecord, String)>> {
        let Ok(format) = formats::by_name(&entry.format) else { return Ok(None) };
        let request = ChainRequest {
            format,
            table: Some(entry.table.clone()),
            keys: KeyRing::new(),
            checkpoint: Some(entry.points.clone()),
            copy: false,
        };
        let mut seen = Vec::new();
        if let Some(old) = replacement.old {
            match tails(old, &request, replacement.busy_timeout, ctx) {
                Ok(found) => seen = found,
                Err(error) if matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::InUse) => {
                    return Err(error);
                }
                Err(error) => self.done().notes.push(format!(
                    "where the chains of {} stood before this restore is not on record: {}",
                    entry.table,
                    error.full_text()
                )),
            }
        }
        for tail in &seen {
            let chain = &tail.stand.id;
            let lost = tail.erasures.iter().map(|erasure| {
                format!("chain {chain:?}: lost with the rows after the backup: {erasure}; the backup has the values again: erase them again")
            });
            self.done().notes.extend(lost);
        }
        let chains = self.chains(entry, &seen);
        let lost: u64 = chains.iter().map(RestoredChain::lost).sum();
        let leaves: BTreeMap<String, Vec<Hash>> = seen
            .iter()
            .filter(|tail| chains.iter().any(|chain| chain.id == tail.stand.id))
            .map(|tail| (tail.stand.id.clone(), tail.leaves.clone().unwrap_or_default()))
            .collect();
        if seen.iter().any(|tail| tail.leaves.is_none()) {
            self.done().notes.push(format!(
                "{}: too many rows are lost to list them: only checkpoints of exactly the old head are explained",
                entry.table
            ));
        }
        let facts = RestoreFacts {
            at: Timestamp::now().to_string(),
            backup: self.backup.clone(),
            by: self.by.clone(),
            chains,
            format: entry.format.clone(),
            repository: self.repository.clone(),
            table: entry.table.clone(),
            target: self.target.display().to_string(),
        };
        let record = facts.sign(leaves, &self.key.note_signer(CHAIN_SIGNER)?)?;
        if entry.format == "native" {
            for chain in &facts.chains {
                self.append(entry, chain, &record, &seen, replacement.restored);
            }
        }
        let detail = match replacement.old {
            Some(_) if !seen.is_empty() => {
                format!("{lost} rows lost, on record in {}", file_of(&self.target).display())
            }
            _ => format!("no old chain to compare with, on record in {}", file_of(&self.target).display()),
        };
        Ok(Some((record, detail)))
    }

    /// Says of each chain where it stood and where it stands.
    fn chains(&self, entry: &ChainEntry, seen: &[Tail]) -> Vec<RestoredChain> {
        let points = &entry.points.chains;
        let few = points.len() + seen.len() <= MAX_UNCHANGED;
        let fresh = seen.iter().filter(|tail| entry.points.chain(&tail.stand.id).is_none()).map(|tail| {
            let empty = ChainPoint { id: tail.stand.id.clone(), root: empty_root(), ..ChainPoint::default() };
            (empty, Some(tail))
        });
        let kept =
            points.iter().map(|point| (point.clone(), seen.iter().find(|tail| tail.stand.id == point.id)));
        let chains = kept.chain(fresh).map(|(to, tail)| RestoredChain {
            from: tail.map(|tail| Stand::from(&tail.stand)),
            known: self.known(entry, &to),
            shared: tail.map_or(to.records, |tail| tail.shared),
            to: Stand::from(&to),
            id: to.id,
        });
        chains.filter(|chain| few || chain.from.as_ref() != Some(&chain.to)).collect()
    }

    /// Lists where a chain is known to have stood beyond the restored state.
    fn known(&self, entry: &ChainEntry, to: &ChainPoint) -> Vec<Stand> {
        let same = |(format, table, _): &&(String, Option<String>, Vec<ChainPoint>)| {
            *format == entry.format && table.as_ref().is_none_or(|table| *table == entry.table)
        };
        let points = self.known.iter().filter(same).flat_map(|(.., points)| points);
        let mut stands: Vec<Stand> = points
            .filter(|point| point.id == to.id && (point.records, point.root) != (to.records, to.root))
            .map(Stand::from)
            .collect();
        stands.sort_by(|left, right| (left.records, &left.root).cmp(&(right.records, &right.root)));
        stands.dedup();
        stands
    }

    /// Appends the record to a native chain of the restored file. Where that cannot be, it is said, and the file has it.
    fn append(
        &self,
        entry: &ChainEntry,
        chain: &RestoredChain,
        record: &RestoreRecord,
        seen: &[Tail],
        restored: &Path,
    ) {
        // Of the rows lost in this chain, as many as a row should hold; and the restores that were among them.
        let own = record.lost.get(&chain.id).filter(|leaves| leaves.len() <= LOST_IN_ROW);
        let lost = own.map(|leaves| BTreeMap::from([(chain.id.clone(), leaves.clone())])).unwrap_or_default();
        let mut records: Vec<RestoreRecord> = seen
            .iter()
            .find(|tail| tail.stand.id == chain.id)
            .map(|tail| tail.restores.clone())
            .unwrap_or_default();
        records.retain(|earlier| earlier.note != record.note);
        records.push(RestoreRecord { lost, note: record.note.clone() });
        if let Err(error) = append_restore(restored, &entry.table, &chain.id, records, &self.keys) {
            self.done().notes.push(format!(
                "the restore is not on record in chain {:?} itself: {}",
                chain.id,
                error.full_text()
            ));
        }
    }

    /// Adds lines to the lineage file and syncs it.
    fn write(&self, lines: &str) -> Result<()> {
        let path = file_of(&self.target);
        let failed = |error| Error::io("write", &path, error);
        let before = path.metadata().ok().map(|found| found.len());
        let mut file = OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        self.done().before = Some(before);
        file.write_all(lines.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        let folder = durable::parent_of(&path);
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| Error::io("sync", folder, error))
    }
}
