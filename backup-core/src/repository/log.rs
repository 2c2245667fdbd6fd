//! The repository's own tamper-evident log: appending to it.
//!
//! Every verb that changes or uses a repository appends one entry here; `logread` reads and verifies.
//!
//! ```text
//! log/entries/00000000.ndjson     the first 256 records in the `native` format, one line each; then 00000001 …
//! log/checkpoint                  size and RFC 6962 root over the lines, signed (c2sp.org/tlog-checkpoint)
//! log/state.json                  the tree at the last full bundle: a cache, checked against the checkpoint
//! log/key                         the private key of the log, in note form
//! ```
//!
//! An append replaces the last bundle, syncs it, then replaces the checkpoint and syncs that. A process that
//! dies in between leaves one record that no checkpoint covers; the next append checks that it continues the
//! chain, covers it and says so in a `recover` entry. More than one such record is an alteration.
//!
//! The log's key lies in the repository: it shows that a checkpoint is of this log and that the file is whole,
//! not who wrote it. Who wrote it is shown by the operator's signature beside it, by the signed manifests
//! (each holds the log's position) and by checkpoints that were kept elsewhere.

use std::path::Path;
use std::time::Duration;

use audit_chain::merkle::{Frontier, Hash, leaf_hash};
use audit_chain::native::NativeHead;
use audit_chain::note::{Note, NoteSigner, NoteVerifier};
use audit_chain::tlog::LogCheckpoint;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::entry::{Event, LogEntry, LogState, RecoverEvent};
use super::layout::{Header, Layout, read_limited};
use super::lock::Lock;
use super::record;
use crate::context::Context;
use crate::durable::{Durable, PRIVATE_FILE};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::LogPosition;

/// How many records a bundle holds when it is full.
pub const BUNDLE: u64 = 256;
/// The largest bundle that is read, in bytes.
pub(super) const MAX_BUNDLE_BYTES: u64 = (BUNDLE * MAX_RECORD_BYTES as u64) + BUNDLE;
/// The largest record that is written, in bytes.
const MAX_RECORD_BYTES: usize = 1 << 20;
/// The largest checkpoint that is read, in bytes.
pub(super) const MAX_CHECKPOINT_BYTES: u64 = 1 << 16;
/// How long an append waits for another one.
pub(super) const APPEND_WAIT: Duration = Duration::from_secs(30);

/// Where the log stands: enough to append to it.
#[derive(Debug, Clone)]
pub(super) struct Tip {
    pub(super) frontier: Frontier,
    pub(super) head: NativeHead,
}

impl Tip {
    pub(super) fn empty(chain: &str) -> Self {
        Self { frontier: Frontier::new(), head: NativeHead::genesis(chain) }
    }

    /// Takes a line, and the head that it leaves.
    pub(super) fn push(&mut self, line: &[u8], head: NativeHead) {
        self.frontier.push(leaf_hash(line));
        self.head = head;
    }

    pub(super) fn position(&self) -> LogPosition {
        LogPosition { size: self.frontier.size(), root: STANDARD.encode(self.frontier.root()) }
    }
}

/// `log/state.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Cache {
    /// How many records lie before the last bundle: a multiple of [`BUNDLE`].
    size: u64,
    /// The frontier there, base64.
    nodes: Vec<String>,
    /// The hash of the last of them; empty when there is none.
    hash: String,
}

impl Cache {
    fn of(tip: &Tip) -> Self {
        let nodes = tip.frontier.nodes().iter().map(|node| STANDARD.encode(node)).collect();
        Self { size: tip.frontier.size(), nodes, hash: tip.head.hash().to_owned() }
    }

    fn tip(&self, chain: &str) -> Option<Tip> {
        let nodes: Option<Vec<Hash>> =
            self.nodes.iter().map(|node| STANDARD.decode(node).ok()?.try_into().ok()).collect();
        let frontier = Frontier::from_parts(self.size, nodes?).ok()?;
        Some(Tip { frontier, head: record::head(chain, self.size, &self.hash) })
    }
}

/// The log of one repository.
#[derive(Debug)]
pub(super) struct Log<'a> {
    pub(super) layout: &'a Layout,
    pub(super) header: &'a Header,
    pub(super) durable: &'a Durable,
    /// Who the entries say wrote them.
    pub(super) by: &'a str,
}

impl Log<'_> {
    /// Makes the log with its first entry.
    pub(super) fn create(&self, signer: &NoteSigner, seed: &[u8; 32], first: Event) -> Result<()> {
        self.durable.create_dir(self.layout.log(), crate::durable::PRIVATE_DIR)?;
        self.durable.create_dir(self.layout.log_entries(), crate::durable::PRIVATE_DIR)?;
        let key = private_key_text(signer.verifier(), seed);
        self.durable.write_new(self.layout.log_key(), key.as_bytes(), PRIVATE_FILE)?;
        let mut tip = Tip::empty(&self.header.log_origin);
        self.write(&mut tip, &mut Vec::new(), self.entry(first), &[signer])
    }

    fn entry(&self, event: Event) -> LogEntry {
        LogEntry { time: Timestamp::now(), by: self.by.to_owned(), event }
    }

    /// Returns the key that checkpoints of this log verify under.
    pub(super) fn verifier(&self) -> Result<NoteVerifier> {
        Ok(NoteVerifier::parse(&self.header.log_key)?)
    }

    fn signer(&self) -> Result<NoteSigner> {
        let path = self.layout.log_key();
        let text = Zeroizing::new(read_limited(&path, 4096).map_err(|error| {
            match error.kind() {
                ErrorKind::Permission => Error::new(
                    ErrorKind::Permission,
                    format!("the key of the repository's log, {}, cannot be read", path.display()),
                )
                .with_hint("append to a repository as the user who made it")
                .with_source(error),
                _ => error,
            }
        })?);
        let text = std::str::from_utf8(&text).unwrap_or_default();
        let signer = NoteSigner::parse(text)?;
        if signer.verifier().to_string() != self.header.log_key {
            let message = format!("{} is not the key that repository.json names", path.display());
            return Err(Error::new(ErrorKind::Tampered, message)
                .with_hint("one of the two was replaced: verify the repository against a kept checkpoint"));
        }
        Ok(signer)
    }

    /// Appends one entry, which `make` decides on what the log says at that moment, and returns its place.
    ///
    /// `cosigner` is the operator's own key, whose signature the checkpoint carries too.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] when another append does not end; [`ErrorKind::Tampered`] when the log is not what
    /// its checkpoint says; what `make` says: nothing is then written.
    pub(super) fn append(
        &self,
        cosigner: Option<&NoteSigner>,
        ctx: &Context,
        make: impl FnOnce(&mut dyn FnMut() -> Result<LogState>) -> Result<Event>,
    ) -> Result<u64> {
        let _lock = Lock::acquire(&self.layout.log_lock(), "append", APPEND_WAIT, ctx)?;
        let signer = self.signer()?;
        let signers: Vec<&NoteSigner> = std::iter::once(&signer).chain(cosigner).collect();
        let (mut tip, mut bundle, uncovered) = self.tip()?;
        if uncovered {
            // Covered first, so that never more than one record is without a checkpoint.
            self.sign(&tip, &signers)?;
            let action = format!("entry {} had no checkpoint", tip.frontier.size() - 1);
            let entry = self.entry(Event::Recover(RecoverEvent { actions: vec![action] }));
            self.write(&mut tip, &mut bundle, entry, &signers)?;
        }
        let event = make(&mut || self.state())?;
        self.write(&mut tip, &mut bundle, self.entry(event), &signers)?;
        Ok(tip.frontier.size() - 1)
    }

    /// Returns where the log stands; reads its last bundle only.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] when an append does not end; [`ErrorKind::Tampered`] when the last bundle is not what
    /// the checkpoint says.
    pub(super) fn position(&self, ctx: &Context) -> Result<LogPosition> {
        let _lock = Lock::acquire(&self.layout.log_lock(), "read", APPEND_WAIT, ctx)?;
        Ok(self.tip()?.0.position())
    }

    /// Writes one record behind `tip` and covers it.
    fn write(
        &self,
        tip: &mut Tip,
        bundle: &mut Vec<u8>,
        entry: LogEntry,
        signers: &[&NoteSigner],
    ) -> Result<()> {
        let size = tip.frontier.size();
        if size.is_multiple_of(BUNDLE) {
            bundle.clear();
            // Only a cache: when it is lost or torn, it is made again.
            self.durable.replace(self.layout.log_state(), &to_json(&Cache::of(tip))?, PRIVATE_FILE)?;
        }
        let record = record::encode(&tip.head, entry)?;
        let line = record.line();
        if line.len() > MAX_RECORD_BYTES {
            let message = format!("a log entry of {} bytes is above {MAX_RECORD_BYTES}", line.len());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        bundle.extend_from_slice(line.as_bytes());
        bundle.push(b'\n');
        self.durable.replace(self.layout.log_bundle(size / BUNDLE), bundle, PRIVATE_FILE)?;
        tip.push(line.as_bytes(), NativeHead::from(&record));
        self.sign(tip, signers)
    }

    fn sign(&self, tip: &Tip, signers: &[&NoteSigner]) -> Result<()> {
        let checkpoint =
            LogCheckpoint::new(&self.header.log_origin, tip.frontier.size(), tip.frontier.root())?;
        let mut note = Note::new(checkpoint.to_string())?;
        for signer in signers {
            note.sign(signer);
        }
        self.durable.replace(self.layout.log_checkpoint(), note.to_string().as_bytes(), PRIVATE_FILE)
    }

    /// Returns where the log stands, its last bundle's bytes, and whether its last record has no checkpoint.
    ///
    /// Reads the last bundle and the cache only; everything when the cache does not fit.
    fn tip(&self) -> Result<(Tip, Vec<u8>, bool)> {
        let (checkpoint, _) = self.checkpoint()?;
        let cached = read_limited(&self.layout.log_state(), MAX_CHECKPOINT_BYTES)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Cache>(&bytes).ok())
            .and_then(|cache| cache.tip(&self.header.log_origin));
        if let Some(start) = cached
            && let Some(found) = self.walk(start, &checkpoint)?
        {
            return Ok(found);
        }
        self.walk(Tip::empty(&self.header.log_origin), &checkpoint)?.ok_or_else(|| {
            let message = format!(
                "the repository's log is not what its checkpoint says (size {}, root {})",
                checkpoint.size(),
                STANDARD.encode(checkpoint.root())
            );
            Error::new(ErrorKind::Tampered, message)
                .with_hint("nothing is added to an altered log: run `attestore verify` to see what differs")
        })
    }

    /// Walks from a known place to the end; `None` when that does not lead to the checkpoint.
    fn walk(&self, mut tip: Tip, checkpoint: &LogCheckpoint) -> Result<Option<(Tip, Vec<u8>, bool)>> {
        if !tip.frontier.size().is_multiple_of(BUNDLE) {
            return Ok(None);
        }
        let fits = |tip: &Tip| tip.frontier.root() == *checkpoint.root();
        let mut covered = tip.frontier.size() == checkpoint.size() && fits(&tip);
        let mut last = Vec::new();
        loop {
            let path = self.layout.log_bundle(tip.frontier.size() / BUNDLE);
            let bytes = match read_limited(&path, MAX_BUNDLE_BYTES) {
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                bytes => bytes?,
            };
            let Some(body) = bytes.strip_suffix(b"\n") else { return Ok(None) };
            let end = tip.frontier.size() + BUNDLE;
            for line in body.split(|byte| *byte == b'\n') {
                let Ok(found) = record::decode(&tip.head, line) else { return Ok(None) };
                tip.push(line, NativeHead::from(&found));
                if tip.frontier.size() == checkpoint.size() {
                    covered = fits(&tip);
                }
            }
            if tip.frontier.size() > end {
                return Ok(None);
            }
            last = bytes;
            if !tip.frontier.size().is_multiple_of(BUNDLE) {
                break;
            }
        }
        let ahead = tip.frontier.size().checked_sub(checkpoint.size());
        match ahead {
            Some(ahead @ 0..=1) if covered => {
                if tip.frontier.size().is_multiple_of(BUNDLE) {
                    last.clear();
                }
                Ok(Some((tip, last, ahead == 1)))
            }
            _ => Ok(None),
        }
    }

    /// Reads the checkpoint and verifies its signature.
    ///
    /// # Errors
    /// [`ErrorKind::Tampered`] when it is not one of this log.
    pub(super) fn checkpoint(&self) -> Result<(LogCheckpoint, Note)> {
        let path = self.layout.log_checkpoint();
        let bytes = read_limited(&path, MAX_CHECKPOINT_BYTES)?;
        let (checkpoint, note) = parse_checkpoint(&path, &bytes)?;
        note.verify(&[self.verifier()?]).map_err(|error| altered(&path, &error.to_string()))?;
        if checkpoint.origin() != self.header.log_origin {
            return Err(altered(&path, &format!("it is of the log {}", checkpoint.origin())));
        }
        Ok((checkpoint, note))
    }
}

/// Reads a checkpoint without trusting anything in it.
pub(super) fn parse_checkpoint(path: &Path, bytes: &[u8]) -> Result<(LogCheckpoint, Note)> {
    let text = std::str::from_utf8(bytes).map_err(|_| altered(path, "it is not UTF-8"))?;
    let note = Note::parse(text).map_err(|error| altered(path, &error.to_string()))?;
    if note.to_string().as_bytes() != bytes {
        return Err(altered(path, "it is not spelt as it was written"));
    }
    let checkpoint = LogCheckpoint::parse(note.text()).map_err(|error| altered(path, &error.to_string()))?;
    Ok((checkpoint, note))
}

fn altered(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::Tampered, format!("{}: {why}", path.display())).with_hint(
        "the repository was altered or damaged: compare it with a checkpoint that was kept elsewhere",
    )
}

/// Spells a private key in note form, as golang.org/x/mod/sumdb/note does.
fn private_key_text(verifier: &NoteVerifier, seed: &[u8; 32]) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(vec![1_u8]);
    bytes.extend_from_slice(seed);
    let encoded = Zeroizing::new(STANDARD.encode(&*bytes));
    let (name, id) = (verifier.name(), verifier.key_id());
    Zeroizing::new(format!("PRIVATE+KEY+{name}+{id:08x}+{}\n", *encoded))
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json_canonicalizer::to_vec(value)
        .map_err(|error| Error::new(ErrorKind::Internal, "a log entry cannot be written").with_source(error))
}
