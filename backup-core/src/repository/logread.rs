//! Reading and verifying the repository's log.
//!
//! `list`, `show`, restores and `verify` read through here, without a lock: bundles and checkpoint are replaced
//! in one step each, and a reading that an append crossed is done again. Constant memory beside the state.
//!
//! One pass checks every record (its hash, its link, its place), the checkpoint's signature and root, and the
//! root at every earlier size that is asked for (RFC 6962: a log extends another one when its root at that
//! size is the other's). A damaged record is a finding, not an error, so that what the rest says can be used.

use std::collections::BTreeMap;

use audit_chain::merkle::Hash;
use audit_chain::native::NativeHead;
use audit_chain::note::{Note, NoteVerifier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::entry::{Event, LogState};
use super::finding::{RepositoryFinding as Finding, RepositoryFindingKind as Kind};
use super::layout::read_limited;
use super::log::{BUNDLE, Log, MAX_BUNDLE_BYTES, MAX_CHECKPOINT_BYTES, Tip};
use super::record;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, LogPosition};

/// How often a reading is begun anew because an append crossed it.
const ATTEMPTS: usize = 8;

/// What was read of a log.
#[derive(Debug)]
pub(super) struct LogRead {
    pub(super) state: LogState,
    pub(super) position: LogPosition,
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
    /// The checkpoint's signatures beside the log's own, unverified.
    pub(super) note: Option<Note>,
    /// The roots at the sizes that were asked for.
    pub(super) roots: BTreeMap<u64, Hash>,
}

impl Log<'_> {
    /// Reads what the log says and fails when it is not whole: for callers that act on it.
    ///
    /// # Errors
    /// [`ErrorKind::Tampered`] with the first finding.
    pub(super) fn state(&self) -> Result<LogState> {
        let read = self.read(&[])?;
        match read.findings.first() {
            None => Ok(read.state),
            Some(finding) => Err(Error::new(
                ErrorKind::Tampered,
                format!("the repository's log: {}: {}", finding.kind, finding.explains),
            )
            .with_hint("run `attestore verify` to see everything that differs")),
        }
    }

    /// Reads and verifies the whole log; `sizes` are the earlier sizes whose roots are wanted.
    ///
    /// # Errors
    /// When a file cannot be read. What is wrong is in the findings.
    pub(super) fn read(&self, sizes: &[u64]) -> Result<LogRead> {
        let mut attempt = 1;
        loop {
            let before = read_limited(&self.layout.log_checkpoint(), MAX_CHECKPOINT_BYTES).ok();
            let read = self.read_once(sizes)?;
            let after = read_limited(&self.layout.log_checkpoint(), MAX_CHECKPOINT_BYTES).ok();
            if read.findings.is_empty() || before == after || attempt == ATTEMPTS {
                return Ok(read);
            }
            attempt += 1;
        }
    }

    fn read_once(&self, sizes: &[u64]) -> Result<LogRead> {
        let mut walk = Walk::new(&self.header.log_origin, sizes);
        let checkpoint = match self.checkpoint() {
            Ok((checkpoint, note)) => {
                walk.roots.insert(checkpoint.size(), None);
                walk.note = Some(note);
                Some(checkpoint)
            }
            Err(error) => {
                walk.findings.push(Finding::new(Kind::LogCheckpointMismatch, error.to_string()));
                None
            }
        };
        walk.reached();
        self.walk_bundles(&mut walk)?;
        self.check_header(&mut walk)?;
        if let Some(checkpoint) = checkpoint {
            let size = walk.tip.frontier.size();
            let root = walk.roots.get(&checkpoint.size()).copied().flatten();
            if checkpoint.size() > size {
                let what = "the log has fewer entries than its checkpoint says";
                walk.findings.push(Finding::new(Kind::LogTruncated, what).differs(checkpoint.size(), size));
            } else if root.as_ref() != Some(checkpoint.root()) {
                let found = root.map(|root| STANDARD.encode(root)).unwrap_or_default();
                walk.findings.push(
                    Finding::new(Kind::LogCheckpointMismatch, "the entries are not those of the checkpoint")
                        .differs(STANDARD.encode(checkpoint.root()), found),
                );
            } else if size - checkpoint.size() == 1 {
                walk.notes.push(format!(
                    "entry {} has no checkpoint yet: it is being written, or its writer died",
                    size - 1
                ));
            } else if size > checkpoint.size() {
                let what = "entries were added without a checkpoint";
                walk.findings.push(Finding::new(Kind::LogAhead, what).differs(checkpoint.size(), size));
            }
        }
        for (entry, what) in walk.state.problems() {
            walk.findings
                .push(Finding::new(Kind::LogImpossible, format!("the log has {what}")).entry(*entry));
        }
        let position = walk.tip.position();
        let roots = walk.roots.iter().filter_map(|(size, root)| Some((*size, (*root)?))).collect();
        Ok(LogRead {
            state: walk.state,
            position,
            findings: walk.findings,
            notes: walk.notes,
            note: walk.note,
            roots,
        })
    }

    fn walk_bundles(&self, walk: &mut Walk) -> Result<()> {
        let mut number = 0;
        loop {
            let path = self.layout.log_bundle(number);
            let bytes = match read_limited(&path, MAX_BUNDLE_BYTES) {
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                bytes => bytes?,
            };
            if walk.tip.frontier.size() != number * BUNDLE {
                let what = format!("bundle {:08} before it is not full", number.saturating_sub(1));
                walk.findings.push(Finding::new(Kind::LogEdited, what).entry(walk.tip.frontier.size()));
            }
            let body = bytes.strip_suffix(b"\n").unwrap_or_else(|| {
                let what = format!("bundle {number:08} does not end in a newline");
                walk.findings.push(Finding::new(Kind::LogEdited, what));
                &bytes
            });
            let mut lines = 0;
            for line in body.split(|byte| *byte == b'\n') {
                walk.line(line);
                lines += 1;
            }
            if lines > BUNDLE {
                let what = format!("bundle {number:08} has more than {BUNDLE} entries");
                walk.findings.push(Finding::new(Kind::LogEdited, what));
            }
            number += 1;
        }
        let folder = self.layout.log_entries();
        let entries = std::fs::read_dir(&folder).map_err(|error| Error::io("read", &folder, error))?;
        for entry in entries {
            let name = entry.map_err(|error| Error::io("read", &folder, error))?.file_name();
            let name = name.to_string_lossy();
            let temporary = name.starts_with('.') && name.ends_with(".tmp");
            let known = name.strip_suffix(".ndjson").and_then(|stem| stem.parse::<u64>().ok());
            // A bundle that an append has just begun is read by the next attempt.
            if !temporary && known.is_none_or(|known| known > number || format!("{known:08}.ndjson") != name)
            {
                let what = format!(
                    "log/entries/{name} does not continue the log: bundles before it are missing, or it is not one"
                );
                walk.findings.push(Finding::new(Kind::LogEdited, what));
            }
        }
        Ok(())
    }

    /// The first entry holds the digest of `repository.json`.
    fn check_header(&self, walk: &mut Walk) -> Result<()> {
        let Some(expected) = walk.header else {
            walk.findings
                .push(Finding::new(Kind::LogEdited, "the log does not begin with an `init` entry").entry(0));
            return Ok(());
        };
        let found = Digest::of(&read_limited(&self.layout.header(), 1 << 16)?);
        if found != expected {
            let what = "repository.json is not the one that the log began with";
            walk.findings.push(Finding::new(Kind::HeaderAltered, what).differs(expected, found));
        }
        Ok(())
    }

    /// Compares the log with a checkpoint that was kept elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] when the text is no checkpoint; [`ErrorKind::Mismatch`] when it is of another log.
    pub(super) fn outside(&self, text: &str) -> Result<Outside> {
        let malformed = |what: String| Error::new(ErrorKind::Malformed, format!("checkpoint: {what}"));
        let note = Note::parse(text).map_err(|error| malformed(error.to_string()))?;
        let checkpoint = audit_chain::tlog::LogCheckpoint::parse(note.text())
            .map_err(|error| malformed(error.to_string()))?;
        if checkpoint.origin() != self.header.log_origin {
            let message = format!(
                "the checkpoint is of the log {}, this repository's is {}",
                checkpoint.origin(),
                self.header.log_origin
            );
            return Err(Error::new(ErrorKind::Mismatch, message)
                .with_hint("give a checkpoint that `attestore checkpoint` printed for this repository"));
        }
        Ok(Outside { size: checkpoint.size(), root: *checkpoint.root(), note })
    }
}

/// A checkpoint that was kept elsewhere.
#[derive(Debug)]
pub(super) struct Outside {
    pub(super) size: u64,
    pub(super) root: Hash,
    note: Note,
}

impl Outside {
    /// Says what is wrong when the log does not extend it.
    pub(super) fn check(&self, read: &LogRead, verifier: NoteVerifier) -> Option<Finding> {
        if let Err(error) = self.note.verify(&[verifier]) {
            let what =
                format!("the earlier checkpoint is not one that this repository's log key signed: {error}");
            return Some(Finding::new(Kind::LogRewritten, what));
        }
        extends(read, self.size, &self.root, "an earlier checkpoint")
    }
}

/// Says what is wrong when the log is not an extension of a log of `size` entries with this root.
pub(super) fn extends(read: &LogRead, size: u64, root: &Hash, what: &str) -> Option<Finding> {
    if size > read.position.size {
        let explains =
            format!("the log is shorter than {what} says: entries were cut off, or an old copy was put back");
        return Some(Finding::new(Kind::LogTruncated, explains).differs(size, read.position.size));
    }
    let found = read.roots.get(&size);
    if found == Some(root) {
        return None;
    }
    let explains = format!("the log does not extend {what}: its first {size} entries are others");
    let found = found.map(|found| STANDARD.encode(found)).unwrap_or_default();
    Some(Finding::new(Kind::LogRewritten, explains).differs(STANDARD.encode(root), found))
}

/// What is known while the records go by.
struct Walk {
    tip: Tip,
    state: LogState,
    findings: Vec<Finding>,
    notes: Vec<String>,
    note: Option<Note>,
    roots: BTreeMap<u64, Option<Hash>>,
    header: Option<Digest>,
}

impl Walk {
    fn new(chain: &str, sizes: &[u64]) -> Self {
        Self {
            tip: Tip::empty(chain),
            state: LogState::default(),
            findings: Vec::new(),
            notes: Vec::new(),
            note: None,
            roots: sizes.iter().map(|size| (*size, None)).collect(),
            header: None,
        }
    }

    /// Takes the root if this size was asked for.
    fn reached(&mut self) {
        if let Some(root) = self.roots.get_mut(&self.tip.frontier.size()) {
            *root = Some(self.tip.frontier.root());
        }
    }

    fn line(&mut self, line: &[u8]) {
        let sequence = self.tip.frontier.size();
        match record::decode(&self.tip.head, line) {
            Ok(found) => {
                match record::entry(&found) {
                    Ok(entry) => {
                        if let (0, Event::Init(event)) = (sequence, &entry.event) {
                            self.header = Some(event.header_sha256);
                        }
                        self.state.apply(&entry);
                    }
                    Err(error) => {
                        let finding = Finding::new(Kind::LogImpossible, error.to_string());
                        self.findings.push(finding.entry(sequence));
                        self.state.skip();
                    }
                }
                self.tip.push(line, NativeHead::from(&found));
            }
            Err(error) => {
                self.findings.push(Finding::new(Kind::LogEdited, error.to_string()).entry(sequence));
                self.state.skip();
                // What follows continues from what the record says of itself, so that one edit is one finding.
                let hash = record::stated_hash(line).unwrap_or_else(|| self.tip.head.hash().to_owned());
                let head = record::head(self.tip.head.chain(), sequence + 1, &hash);
                self.tip.push(line, head);
            }
        }
        self.reached();
    }
}
