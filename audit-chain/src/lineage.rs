//! Restores on record (B11): a chain that was set back on purpose verifies, and says for ever that it was.
//!
//! A restore writes down, signed, where the chain stood, where it stands now, and the Merkle leaves of the rows that
//! were lost. A checkpoint that lies among the lost rows then fits exactly when the rows that are still there, and the
//! lost leaves after them, make its root: a rollback without the record, or with one of another history, stays a finding.
//!
//! The record is a line of JSON, `{"lost":{"<chain>":["<base64 leaf>",…]},"note":"<signed note>"}` (docs/format/lineage.md),
//! kept in a file beside the database and, in a [`native`](crate::native) chain, in the body of a row. The note is a C2SP
//! signed note of two lines; only it is signed, for it holds the root that the leaves must make:
//!
//! ```text
//! attestore.dev/restore/<format>
//! {"at":…,"backup":…,"by":…,"chains":[{"from":{"head","records","root"},"id":…,"shared":…,"to":{…}}],…}
//! ```
//!
//! Called by [`crate::verify`] after the walk, before the chains are compared with a checkpoint.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::checkpoint::ChainPoint;
use crate::erasure::Told;
use crate::error::{Error, Result};
use crate::format::{ChainFormat, Mark};
use crate::keys::KeyRing;
use crate::merkle::{Frontier, Hash};
use crate::native::kind;
use crate::note::{Note as SignedNote, NoteSigner, TrustedKey};
use crate::report::{Finding, FindingKind, Note, NoteKind};
use crate::tlog::parse_root;
use crate::verify::plural;
use crate::walk::Walk;

/// What the first line of every note of a restore begins with.
pub const ORIGIN_PREFIX: &str = "attestore.dev/restore/";

/// How many rows that a restore lost are written down leaf by leaf, over all chains of a table. Beyond it only the
/// heads are on record, and a checkpoint in between cannot be told from another history.
pub const MAX_LOST: usize = 1 << 20;

/// How many records of restores one verification looks at.
const MAX_RESTORES: usize = 1_000;

/// Where a chain stood: how many records, the Merkle root over their rows, the head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    /// The last record's link value, as the format spells it.
    pub head: String,
    /// How many records.
    pub records: u64,
    /// The RFC 6962 root over the canonical rows, base64.
    pub root: String,
}

impl From<&ChainPoint> for Stand {
    fn from(point: &ChainPoint) -> Self {
        Self { head: point.head.clone(), records: point.records, root: STANDARD.encode(point.root) }
    }
}

/// What a restore did to one chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredChain {
    /// Where it stood before; `None` where the database that was replaced could not be read, or had no such chain.
    pub from: Option<Stand>,
    /// The chain's id.
    pub id: String,
    /// Where it was known to stand by other evidence: later backups of the same repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<Stand>,
    /// How many of its first rows are the same before and after.
    pub shared: u64,
    /// Where it stands now.
    pub to: Stand,
}

impl RestoredChain {
    /// Counts the rows that were lost; 0 where that is not known.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.from.as_ref().map_or(0, |from| from.records.saturating_sub(self.shared))
    }
}

/// What is signed of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreFacts {
    /// When: RFC 3339.
    pub at: String,
    /// The id of the backup that was restored.
    pub backup: String,
    /// Who restored.
    pub by: String,
    /// The chains.
    pub chains: Vec<RestoredChain>,
    /// The format's name.
    pub format: String,
    /// The id of the repository.
    pub repository: String,
    /// The table.
    pub table: String,
    /// What was replaced.
    pub target: String,
}

impl RestoreFacts {
    /// Signs the facts. `lost` are the leaves of the lost rows, by chain.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when a text cannot stand in a note.
    pub fn sign(&self, lost: BTreeMap<String, Vec<Hash>>, signer: &NoteSigner) -> Result<RestoreRecord> {
        let facts = serde_json::to_string(self)
            .map_err(|error| Error::InvalidInput(format!("the facts of a restore: {error}")))?;
        let mut note = SignedNote::new(format!("{ORIGIN_PREFIX}{}\n{facts}\n", self.format))?;
        note.sign(signer);
        let lost = lost
            .into_iter()
            .filter(|(_, leaves)| !leaves.is_empty())
            .map(|(id, leaves)| (id, leaves.iter().map(|leaf| STANDARD.encode(leaf)).collect()))
            .collect();
        Ok(RestoreRecord { lost, note: note.to_string() })
    }
}

/// The record of a restore: the signed note, and the leaves that it commits to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRecord {
    /// The leaves of the rows that were lost, base64, by chain, the oldest first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost: BTreeMap<String, Vec<String>>,
    /// The signed note.
    pub note: String,
}

impl RestoreRecord {
    /// Reads the records of a lineage file: one JSON object a line, the oldest first.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the line.
    pub fn parse_file(text: &str) -> Result<Vec<Self>> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(at, line)| {
                let malformed = |what| Error::Malformed {
                    input: "lineage file".into(),
                    place: format!("line {}", at + 1),
                    what,
                };
                let record: Self =
                    serde_json::from_str(line).map_err(|error| malformed(error.to_string()))?;
                record.facts().map_err(|error| malformed(error.to_string()))?;
                Ok(record)
            })
            .collect()
    }

    /// Writes the line of a lineage file, without its end.
    #[must_use]
    pub fn line(&self) -> String {
        // Strings always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what the note says, whoever signed it.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is no note of a restore.
    pub fn facts(&self) -> Result<RestoreFacts> {
        facts_of(&SignedNote::parse(&self.note)?)
    }

    /// Reads what the note says when one of the keys signed it; also returns that key's name.
    ///
    /// # Errors
    /// [`Error::Unverified`] when none of them did, [`Error::Malformed`] as [`RestoreRecord::facts`].
    pub fn verify(&self, trusted: &[TrustedKey]) -> Result<(RestoreFacts, String)> {
        let note = SignedNote::parse(&self.note)?;
        let signers = note.verify_trusted(trusted)?;
        let signer = signers.first().map(|signer| signer.name().to_owned()).unwrap_or_default();
        Ok((facts_of(&note)?, signer))
    }

    /// Reads the leaves of a chain; `None` when one of them is no leaf.
    fn leaves(&self, chain: &str) -> Option<Vec<Hash>> {
        let texts = self.lost.get(chain).map_or(&[][..], Vec::as_slice);
        texts.iter().map(|text| parse_root(text).ok()).collect()
    }
}

fn facts_of(note: &SignedNote) -> Result<RestoreFacts> {
    let malformed =
        |what: String| Error::Malformed { input: "note of a restore".into(), place: "text".into(), what };
    let (origin, rest) = note.text().split_once('\n').unwrap_or_default();
    let format = origin.strip_prefix(ORIGIN_PREFIX).ok_or_else(|| {
        malformed(format!("expected an origin that begins with {ORIGIN_PREFIX}, found {origin:?}"))
    })?;
    let facts: RestoreFacts =
        serde_json::from_str(rest.trim_end_matches('\n')).map_err(|error| malformed(error.to_string()))?;
    if facts.format != format {
        return Err(malformed(format!("the origin says {format:?}, the facts say {:?}", facts.format)));
    }
    Ok(facts)
}

/// The body of the row that a restore appends to a native chain: this restore last, before it those whose rows it lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreBody {
    /// [`kind::RESTORE`].
    pub kind: String,
    /// The records, the oldest first.
    pub records: Vec<RestoreRecord>,
}

impl RestoreBody {
    /// Makes the body.
    #[must_use]
    pub fn new(records: Vec<RestoreRecord>) -> Self {
        Self { kind: kind::RESTORE.to_owned(), records }
    }

    /// Writes it as JSON with sorted members.
    #[must_use]
    pub fn body(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the body of a row; `None` when it is not the record of a restore.
    #[must_use]
    pub fn parse(body: &str) -> Option<Self> {
        serde_json::from_str(body).ok().filter(|restore: &Self| restore.kind == kind::RESTORE)
    }
}

/// What a chain had that another point of it does not have: asked for with
/// [`VerifyOptions::tails`](crate::verify::VerifyOptions::tails) and a checkpoint.
#[derive(Debug, Clone)]
pub struct Tail {
    /// Where the chain stands.
    pub stand: ChainPoint,
    /// How many of its first rows are those of the checkpoint: all of the checkpoint's, or 0.
    pub shared: u64,
    /// The leaves of the rows after them; `None` when they are more than [`MAX_LOST`].
    pub leaves: Option<Vec<Hash>>,
    /// The restores on record among those rows.
    pub restores: Vec<RestoreRecord>,
    /// The erasures on record among those rows, one sentence each: where the rows are lost, the values are back.
    pub erasures: Vec<String>,
}

/// A chain's tail during the walk.
#[derive(Debug, Default)]
pub(crate) struct OpenTail {
    pub(crate) shared: u64,
    pub(crate) leaves: Vec<Hash>,
    pub(crate) over: bool,
}

/// Takes the tails of a finished walk.
pub(crate) fn tails(walk: &mut Walk) -> Vec<Tail> {
    let mut tails = Vec::with_capacity(walk.chains.len());
    for chain in &mut walk.chains {
        let Some(tail) = chain.tail.take() else { continue };
        let restores = walk
            .marks
            .iter()
            .filter(|mark| mark.chain == chain.id && mark.place > tail.shared)
            .filter_map(|mark| RestoreBody::parse(&mark.text))
            .flat_map(|body| body.records)
            .collect();
        let erasures = walk
            .marks
            .iter()
            .filter(|mark| mark.chain == chain.id && mark.place > tail.shared)
            .filter_map(|mark| serde_json::from_str::<Told>(&mark.text).ok())
            .filter(|told| told.kind == kind::ERASURE)
            .map(|told| told.sentence())
            .collect();
        let stand = ChainPoint {
            id: chain.id.clone(),
            records: chain.records,
            root: chain.frontier.root(),
            head: chain.head.text(),
            signed: chain.signed,
            links: chain.links,
            parts: Vec::new(),
        };
        tails.push(Tail {
            stand,
            shared: tail.shared,
            leaves: (!tail.over).then_some(tail.leaves),
            restores,
            erasures,
        });
    }
    tails
}

/// A restore whose note is signed by a key at hand.
struct Trusted {
    facts: RestoreFacts,
    record: RestoreRecord,
    signer: String,
    /// The row that it is in.
    row: Option<(String, u64)>,
}

/// The restores on record, and what they explain.
pub(crate) struct Lineage {
    trusted: Vec<Trusted>,
    /// Why restores on record do not count.
    refused: Vec<String>,
}

/// A history that a restore ended: the rows before the branch, and the leaves of those after it.
struct Branch {
    base: Frontier,
    shared: u64,
    leaves: Vec<Hash>,
}

impl Branch {
    /// Returns the tree of its first `size` rows.
    fn at(&self, size: u64) -> Option<Frontier> {
        let more = usize::try_from(size.checked_sub(self.shared)?).ok()?;
        let mut tree = self.base.clone();
        self.leaves.get(..more)?.iter().for_each(|leaf| tree.push(*leaf));
        Some(tree)
    }
}

impl Lineage {
    /// Looks at every restore on record: those at hand and those in the rows. Forged ones become findings.
    pub(crate) fn judge(format: &dyn ChainFormat, keys: &KeyRing, walk: &mut Walk) -> Self {
        let trusted: Vec<TrustedKey> = keys.restore_keys().map(|key| TrustedKey::Bare(*key)).collect();
        // Who names the keys that may sign wants to know of others.
        let trusted = (trusted.as_slice(), !keys.public_keys().is_empty());
        let mut lineage = Self { trusted: Vec::new(), refused: Vec::new() };
        let marks: Vec<(Mark, RestoreBody)> = walk
            .marks
            .iter()
            .filter_map(|mark| Some((mark.clone(), RestoreBody::parse(&mark.text)?)))
            .collect();
        for record in keys.restores().iter().take(MAX_RESTORES) {
            if record.facts().is_ok_and(|facts| facts.format == format.name()) {
                lineage.take(record, None, trusted, walk);
            }
        }
        for (mark, body) in &marks {
            let own = body.records.len().saturating_sub(1);
            for (at, record) in body.records.iter().enumerate().take(MAX_RESTORES) {
                let row = (at == own).then(|| (mark.chain.clone(), mark.number));
                lineage.take(record, row, trusted, walk);
            }
            lineage.check_row(mark, body, walk);
        }
        lineage
    }

    /// Takes one record, once.
    fn take(
        &mut self,
        record: &RestoreRecord,
        row: Option<(String, u64)>,
        (trusted, strict): (&[TrustedKey], bool),
        walk: &mut Walk,
    ) {
        if let Some(known) = self.trusted.iter_mut().find(|known| known.record.note == record.note) {
            known.row = known.row.take().or(row);
            // The copy with more evidence counts.
            for (chain, leaves) in &record.lost {
                let kept = known.record.lost.entry(chain.clone()).or_default();
                if kept.len() < leaves.len() {
                    kept.clone_from(leaves);
                }
            }
            return;
        }
        if self.trusted.len() >= MAX_RESTORES {
            return;
        }
        let verified = if trusted.is_empty() {
            Err("no public key is at hand that may sign restores".to_owned())
        } else {
            record.verify(trusted).map_err(|error| error.to_string())
        };
        let why = match verified {
            Ok((facts, signer)) => {
                self.trusted.push(Trusted { facts, record: record.clone(), signer, row });
                return;
            }
            Err(why) => why,
        };
        self.refused.push(why.clone());
        let Some((chain, number)) = row else { return };
        if strict {
            walk.report(Finding {
                kind: FindingKind::SignatureInvalid,
                chain,
                position: Some(number),
                last: None,
                record: None,
                expected: Some("a signature of a public key at hand".into()),
                found: Some(why),
                explains: "the record of a restore is not signed by a key at hand: forged, altered, or another operator's".into(),
            });
        } else {
            let told = record
                .facts()
                .map(|facts| format!(" ({} by {:?}, backup {})", facts.at, facts.by, facts.backup));
            walk.notes.push(Note {
                kind: NoteKind::NotChecked,
                chain,
                position: Some(number),
                last: None,
                explains: format!(
                    "a restore is on record here{}; who signed it is not checked: {why}",
                    told.unwrap_or_default()
                ),
            });
        }
    }

    /// Checks that the row of a restore stands where the chain stood after it.
    fn check_row(&self, mark: &Mark, body: &RestoreBody, walk: &mut Walk) {
        let from_first = walk.by_id(&mark.chain).is_some_and(|chain| chain.first == 1);
        let Some(own) = body.records.last() else { return };
        let Some(trusted) = self.trusted.iter().find(|trusted| trusted.record.note == own.note) else {
            return;
        };
        let chain = trusted.facts.chains.iter().find(|chain| chain.id == mark.chain);
        let (here, root) = (mark.place - 1, STANDARD.encode(mark.before.root()));
        // Where the oldest rows were removed since, the tree before the row is another one.
        if from_first && chain.is_none_or(|chain| (chain.to.records, &chain.to.root) != (here, &root)) {
            walk.report(Finding {
                kind: FindingKind::StateMismatch,
                chain: mark.chain.clone(),
                position: Some(mark.number),
                last: None,
                record: None,
                expected: Some(chain.map_or_else(
                    || "a restore of this chain".into(),
                    |chain| format!("{} records, root {}", chain.to.records, chain.to.root),
                )),
                found: Some(format!("{here} records, root {root}")),
                explains: "the record of a restore does not belong here: the rows before it are not those that were restored".into(),
            });
        }
    }

    /// Finds which of the restores lead to the chain as it is: those whose restored state is in its history, and the
    /// histories that they ended.
    fn branches(&self, id: &str, walk: &Walk) -> Vec<(usize, RestoredChain, Option<Branch>)> {
        let today = |size: u64| -> Option<Frontier> {
            if size == 0 {
                return Some(Frontier::new());
            }
            let kept = walk.by_id(id).and_then(|chain| chain.kept.iter().find(|(at, _)| *at == size));
            let mark = || walk.marks.iter().find(|mark| mark.chain == id && mark.place == size + 1);
            kept.map(|(_, tree)| tree).or_else(|| mark().map(|mark| &mark.before)).cloned()
        };
        let mut found: Vec<(usize, RestoredChain, Option<Branch>)> = Vec::new();
        let mut open: Vec<(usize, &RestoredChain)> = self
            .trusted
            .iter()
            .enumerate()
            .filter_map(|(at, trusted)| Some((at, trusted.facts.chains.iter().find(|chain| chain.id == id)?)))
            .collect();
        loop {
            let before = open.len();
            open.retain(|(at, chain)| {
                let trees = |size: u64| {
                    let ended = found.iter().filter_map(|(.., branch)| branch.as_ref()?.at(size));
                    today(size).into_iter().chain(ended).collect::<Vec<_>>()
                };
                let root_is =
                    |tree: &Frontier, root: &str| parse_root(root).is_ok_and(|root| tree.root() == root);
                if !trees(chain.to.records).iter().any(|tree| root_is(tree, &chain.to.root)) {
                    return true;
                }
                let leaves = self.trusted.get(*at).and_then(|trusted| trusted.record.leaves(id));
                let branch = chain.from.as_ref().zip(leaves).and_then(|(from, leaves)| {
                    let branches = trees(chain.shared).into_iter().map(|base| Branch {
                        base,
                        shared: chain.shared,
                        leaves: leaves.clone(),
                    });
                    let mut fit = branches.filter(|branch| {
                        branch.shared + branch.leaves.len() as u64 == from.records
                            && branch.at(from.records).is_some_and(|tree| root_is(&tree, &from.root))
                    });
                    fit.next()
                });
                found.push((*at, (*chain).clone(), branch));
                false
            });
            if open.len() == before {
                return found;
            }
        }
    }

    /// Says whether a point that the chain does not extend lies in a history that a restore ended.
    ///
    /// # Errors
    /// Why not, as the end of a sentence; empty where no restore is on record.
    pub(crate) fn excuse(&self, point: &ChainPoint, walk: &Walk) -> Result<Note, String> {
        for (at, chain, branch) in self.branches(&point.id, walk) {
            let stand = Stand::from(point);
            let is = |known: &Stand| (known.records, &known.root) == (stand.records, &stand.root);
            let exact = chain.from.iter().chain(&chain.known).any(is);
            let inside = || {
                let tree =
                    branch.as_ref().filter(|branch| point.records > branch.shared)?.at(point.records)?;
                (tree.root() == point.root).then_some(())
            };
            if (exact || inside().is_some())
                && let Some(trusted) = self.trusted.get(at)
            {
                let mut note = trusted.note(&chain);
                note.explains.push_str(&format!(
                    "; the checkpoint of {} was taken before it",
                    plural(point.records, "record")
                ));
                return Ok(note);
            }
        }
        Err(match (self.refused.first(), self.trusted.is_empty()) {
            (Some(why), _) => format!("; a restore is on record, but {why}"),
            (None, false) => {
                "; a restore is on record, but the checkpoint is of no history that it ended".into()
            }
            (None, true) => String::new(),
        })
    }

    /// Notes the restores of the chains, besides those that are `told` already.
    pub(crate) fn notes(&self, told: &[Note], walk: &Walk) -> Vec<Note> {
        let ids: Vec<&String> = {
            let mut ids: Vec<_> = self
                .trusted
                .iter()
                .flat_map(|trusted| trusted.facts.chains.iter().map(|chain| &chain.id))
                .collect();
            ids.sort();
            ids.dedup();
            ids
        };
        let all = ids.into_iter().flat_map(|id| self.branches(id, walk)).filter_map(|(at, chain, _)| {
            let note = self.trusted.get(at)?.note(&chain);
            let known =
                told.iter().any(|told| told.chain == note.chain && told.explains.starts_with(&note.explains));
            (!known).then_some(note)
        });
        all.collect()
    }
}

impl Trusted {
    /// Says what the restore did to a chain.
    fn note(&self, chain: &RestoredChain) -> Note {
        let RestoreFacts { at, by, backup, .. } = &self.facts;
        let from = match &chain.from {
            Some(from) => format!("from {} ", plural(from.records, "record")),
            None => String::new(),
        };
        let lost =
            if chain.from.is_some() { chain.lost().to_string() } else { "an unknown number".to_owned() };
        let row = self.row.as_ref().filter(|(id, _)| *id == chain.id);
        Note {
            kind: NoteKind::SanctionedRestore,
            chain: chain.id.clone(),
            position: row.map(|(_, number)| *number).or(Some(chain.to.records)),
            last: None,
            explains: format!(
                "restored on {at} by {by:?} from backup {backup}: set back {from}to {}, {lost} lost; signed by {}",
                plural(chain.to.records, "record"),
                self.signer
            ),
        }
    }
}

/// Returns the sizes at which the tree of a chain is wanted, by chain.
pub(crate) fn wanted(format: &dyn ChainFormat, keys: &KeyRing) -> BTreeMap<String, Vec<u64>> {
    let mut wanted: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for facts in keys.restores().iter().take(MAX_RESTORES).filter_map(|record| record.facts().ok()) {
        for chain in facts.chains.iter().filter(|_| facts.format == format.name()) {
            wanted.entry(chain.id.clone()).or_default().extend([chain.shared, chain.to.records]);
        }
    }
    for sizes in wanted.values_mut() {
        sizes.sort_unstable();
        sizes.dedup();
    }
    wanted
}
