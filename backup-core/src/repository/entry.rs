//! What the repository's log says: its entries, and the state that they add up to.
//!
//! `log` reads and appends entries; everything else asks [`LogState`]: which backups there are, in which
//! order they came, which are held, which were pruned on record. The order is the entries' order, never a
//! clock's or a name's (PITFALLS 19).
//!
//! An entry is the body of one record of the log (docs/format/repository.md): `{"by":…,"kind":"backup",…}` in
//! canonical JSON; its time is the record's. Entries of kinds that this version does not know
//! are counted and otherwise passed over.

use std::collections::{BTreeMap, HashMap};

use audit_chain::report::Verdict;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Level;
use crate::manifest::Digest;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When, by the clock of the machine that wrote it. Decides nothing.
    pub time: Timestamp,
    /// Who: the machine's name, or what the caller said.
    pub by: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened to a repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The repository was made; always the first entry.
    Init(InitEvent),
    /// A backup was committed.
    Backup(BackupEvent),
    /// The log and any number of backups were verified.
    Verify(VerifyEvent),
    /// A backup was restored, or the attempt failed.
    Restore(RestoreEvent),
    /// A backup was restored into a scratch place, checked and thrown away.
    Drill(DrillEvent),
    /// A backup was packed into a single file for handing over.
    Export(ExportEvent),
    /// Backups are removed; written before their bytes go.
    Prune(PruneEvent),
    /// A backup was put under a hold, or released from it.
    Hold(HoldEvent),
    /// What an interrupted process had left was put in order.
    Recover(RecoverEvent),
    /// An entry of a kind that this version does not know.
    #[serde(other)]
    Other,
}

impl Event {
    /// Returns the kind as it stands in JSON.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::Backup(_) => "backup",
            Self::Verify(_) => "verify",
            Self::Restore(_) => "restore",
            Self::Drill(_) => "drill",
            Self::Export(_) => "export",
            Self::Prune(_) => "prune",
            Self::Hold(_) => "hold",
            Self::Recover(_) => "recover",
            Self::Other => "other",
        }
    }
}

/// The repository was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitEvent {
    /// Its id.
    pub repository: String,
    /// The version of Attestore that made it.
    pub attestore: String,
    /// The digest of `repository.json`.
    pub header_sha256: Digest,
}

/// A backup was committed. What `list` shows is here, so that no manifest need be read for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupEvent {
    /// Its id.
    pub id: String,
    /// The digest of its `manifest.json`.
    pub manifest_sha256: Digest,
    /// When it was made.
    pub created_at: Timestamp,
    /// The size of its stored objects, in bytes.
    pub size_bytes: u64,
    /// How many objects.
    pub objects: u64,
    /// The sources, as `kind:name`.
    pub sources: Vec<String>,
    /// The public key that signed the manifest.
    pub signed_by: Option<String>,
    /// The worst verdict on its chains; `null` when it has none.
    pub chains: Option<Verdict>,
}

/// A verification ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyEvent {
    /// The backups, by id; empty when only the log was verified, or all of them.
    pub backups: Vec<String>,
    /// When all of them were verified: those whose entries lie before this place in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_before: Option<u64>,
    /// How far it went with every one of them.
    pub level: Level,
    /// What it said.
    pub verdict: Verdict,
    /// How many findings.
    pub findings: u64,
}

/// A restore ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreEvent {
    /// The backup.
    pub backup: String,
    /// Where it went, without secrets.
    pub target: String,
    /// Whether the restored data is in place.
    pub ok: bool,
    /// Further facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, serde_json::Value>,
}

/// A drill ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillEvent {
    /// The backup.
    pub backup: String,
    /// Whether every check held.
    pub ok: bool,
    /// The digest of the report that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_sha256: Option<Digest>,
    /// Further facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, serde_json::Value>,
}

/// A backup was exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportEvent {
    /// The backup.
    pub backup: String,
    /// The file's name.
    pub file: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its digest.
    pub sha256: Digest,
}

/// Backups are removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneEvent {
    /// The rules, as a person would write them.
    pub policy: String,
    /// What goes.
    pub backups: Vec<PrunedBackup>,
}

/// A backup that a prune removes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedBackup {
    /// Its id.
    pub id: String,
    /// The digest of its manifest, which stays on record.
    pub manifest_sha256: Digest,
}

/// A hold was set or released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldEvent {
    /// The backup.
    pub backup: String,
    /// Whether it is held from now on.
    pub on: bool,
    /// Why.
    pub reason: String,
}

/// Something was put in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverEvent {
    /// What was found and done, one sentence each.
    pub actions: Vec<String>,
}

/// A verification of one backup that found nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The entry that says so.
    pub sequence: u64,
    /// How far it went.
    pub level: Level,
}

/// What the log says of one backup.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupRecord {
    /// The place of its entry in the log, from 0: the order in which backups were committed.
    pub sequence: u64,
    /// What its entry says.
    pub event: BackupEvent,
    /// The entry that pruned it.
    pub pruned: Option<u64>,
    /// Why it is held.
    pub held: Option<String>,
    /// The newest verification that named it and found nothing.
    pub verified: Option<Verified>,
}

/// What an entry says, with its place and its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timed<T> {
    /// The place of the entry in the log.
    pub sequence: u64,
    /// When it was written, by the clock of the machine that wrote it.
    pub time: Timestamp,
    /// What it says.
    pub event: T,
}

/// What the entries add up to.
#[derive(Debug, Clone, Default)]
pub struct LogState {
    size: u64,
    records: Vec<BackupRecord>,
    /// The newest record of an id; an id may come again after it was pruned.
    newest: HashMap<String, usize>,
    drills: Vec<Timed<DrillEvent>>,
    verified: Option<Timed<VerifyEvent>>,
    problems: Vec<(u64, String)>,
}

impl LogState {
    /// Takes the next entry.
    pub fn apply(&mut self, entry: &LogEntry) {
        let sequence = self.size;
        self.size += 1;
        match &entry.event {
            Event::Init(_) if sequence != 0 => {
                self.problems.push((sequence, "a second `init` entry".into()));
            }
            Event::Backup(event) => self.backup(sequence, event),
            Event::Prune(event) => self.prune(sequence, event),
            Event::Hold(event) => match self.live_mut(&event.backup) {
                Some(record) => record.held = event.on.then(|| event.reason.clone()),
                None => self
                    .problems
                    .push((sequence, format!("a hold names {:?}, which is not there", event.backup))),
            },
            Event::Drill(event) => {
                self.drills.push(Timed { sequence, time: entry.time, event: event.clone() });
            }
            Event::Verify(event) if event.verdict == Verdict::Intact => {
                self.verified = Some(Timed { sequence, time: entry.time, event: event.clone() });
                let before = event.all_before.unwrap_or(0);
                for record in self.records.iter_mut().filter(|record| record.pruned.is_none()) {
                    if record.sequence < before || event.backups.contains(&record.event.id) {
                        record.verified = Some(Verified { sequence, level: event.level });
                    }
                }
            }
            _ => {}
        }
    }

    /// Counts an entry that cannot be read.
    pub(super) fn skip(&mut self) {
        self.size += 1;
    }

    fn backup(&mut self, sequence: u64, event: &BackupEvent) {
        if self.live(&event.id).is_some() {
            self.problems.push((sequence, format!("a second backup {:?}", event.id)));
        }
        self.newest.insert(event.id.clone(), self.records.len());
        self.records.push(BackupRecord {
            sequence,
            event: event.clone(),
            pruned: None,
            held: None,
            verified: None,
        });
    }

    fn prune(&mut self, sequence: u64, event: &PruneEvent) {
        for pruned in &event.backups {
            match self.live_mut(&pruned.id) {
                Some(record) if record.event.manifest_sha256 == pruned.manifest_sha256 => {
                    record.pruned = Some(sequence);
                    if record.held.is_some() {
                        self.problems.push((sequence, format!("a prune of {:?}, which is held", pruned.id)));
                    }
                }
                _ => {
                    let what = format!("a prune names {:?}, which is not there", pruned.id);
                    self.problems.push((sequence, what));
                }
            }
        }
    }

    /// Returns how many entries were taken.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns every backup that was ever committed, in the order of the log.
    #[must_use]
    pub fn records(&self) -> &[BackupRecord] {
        &self.records
    }

    /// Returns the backups that were not pruned, in the order of the log.
    pub fn live_records(&self) -> impl DoubleEndedIterator<Item = &BackupRecord> {
        self.records.iter().filter(|record| record.pruned.is_none())
    }

    /// Returns the newest record of an id, pruned or not.
    #[must_use]
    pub fn record(&self, id: &str) -> Option<&BackupRecord> {
        self.newest.get(id).and_then(|at| self.records.get(*at))
    }

    /// Returns the record of a backup that was not pruned.
    #[must_use]
    pub fn live(&self, id: &str) -> Option<&BackupRecord> {
        self.record(id).filter(|record| record.pruned.is_none())
    }

    fn live_mut(&mut self, id: &str) -> Option<&mut BackupRecord> {
        let at = *self.newest.get(id)?;
        self.records.get_mut(at).filter(|record| record.pruned.is_none())
    }

    /// Returns every drill, in the order of the log.
    #[must_use]
    pub fn drills(&self) -> &[Timed<DrillEvent>] {
        &self.drills
    }

    /// Returns the newest verification that found nothing wrong.
    #[must_use]
    pub const fn verified(&self) -> Option<&Timed<VerifyEvent>> {
        self.verified.as_ref()
    }

    /// Returns what cannot be (entry, what): it was written by something else than this program.
    #[must_use]
    pub fn problems(&self) -> &[(u64, String)] {
        &self.problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(event: Event) -> LogEntry {
        LogEntry { time: Timestamp::UNIX_EPOCH, by: "host".into(), event }
    }

    fn backup(id: &str) -> Event {
        Event::Backup(BackupEvent {
            id: id.into(),
            manifest_sha256: Digest::of(id.as_bytes()),
            created_at: Timestamp::UNIX_EPOCH,
            size_bytes: 1,
            objects: 1,
            sources: vec!["files:a".into()],
            signed_by: None,
            chains: None,
        })
    }

    fn prune(id: &str) -> Event {
        let pruned = PrunedBackup { id: id.into(), manifest_sha256: Digest::of(id.as_bytes()) };
        Event::Prune(PruneEvent { policy: "keep-last 1".into(), backups: vec![pruned] })
    }

    #[test]
    fn entries_read_back_and_unknown_kinds_are_passed_over() {
        let written = entry(backup("a"));
        let text = serde_json_canonicalizer::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<LogEntry>(&text).unwrap(), written);
        let newer = r#"{"time":"2026-11-20T00:00:00Z","by":"h","kind":"witness","of":{"x":1}}"#;
        let newer: LogEntry = serde_json::from_str(newer).unwrap();
        assert_eq!(newer.event, Event::Other);
    }

    #[test]
    fn an_id_may_come_again_after_its_prune_only() {
        let mut state = LogState::default();
        for event in [backup("a"), prune("a"), backup("a")] {
            state.apply(&entry(event));
        }
        assert!(state.problems().is_empty());
        assert_eq!(state.live("a").unwrap().sequence, 2);
        assert_eq!(state.live_records().count(), 1);
        state.apply(&entry(backup("a")));
        assert_eq!(state.problems().len(), 1);
    }

    #[test]
    fn a_prune_of_what_is_not_there_or_is_held_is_a_problem() {
        let mut state = LogState::default();
        state.apply(&entry(prune("a")));
        assert_eq!(state.problems().len(), 1);
        state.apply(&entry(backup("a")));
        let hold = |on| Event::Hold(HoldEvent { backup: "a".into(), on, reason: "case 7".into() });
        state.apply(&entry(hold(true)));
        assert_eq!(state.live("a").unwrap().held.as_deref(), Some("case 7"));
        state.apply(&entry(prune("a")));
        assert_eq!(state.problems().len(), 2);
        let mut released = LogState::default();
        for event in [backup("a"), hold(true), hold(false), prune("a")] {
            released.apply(&entry(event));
        }
        assert!(released.problems().is_empty());
    }
}
