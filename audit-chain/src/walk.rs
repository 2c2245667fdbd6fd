//! Walks the records of all chains in order: links, numbers, clocks, Merkle roots, key spans.
//!
//! Called by [`crate::verify`] with the batches of [`crate::pipeline`]. Per chain it keeps a fixed-size
//! state (a compact Merkle range, the head, the open span), so memory grows with the number of
//! chains, never with their length.
//!
//! After a record that does not fit, the walk goes on from that record's *stored* link value, and the
//! place before it stays an allowed predecessor for one more record: one wrong row is one finding.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest as _, Sha256};

use crate::checkpoint::ChainPoint;
use crate::error::{Error, Result};
use crate::format::{
    ChainFormat, Conclusion, Link, LinkRules, Mark, OrderKey, PartRule, RUN_IDS, Remark, Run, RunKind, Seal,
    Start, Walked,
};
use crate::lineage::{MAX_LOST, OpenTail};
use crate::merkle::{Frontier, Hash};
use crate::pipeline::{Batch, Entry};
use crate::report::{Finding, FindingKind, MAX_LISTED_FINDINGS, Note, NoteKind, VerifiedBy};
use crate::retention::{Excuse, Parts};
use crate::verify::plural;

/// How many places where a link does not fit are looked into in a second pass.
pub(crate) const MAX_BREAKS: usize = 10_000;

/// How many [`Run`]s are kept over all chains. An honest chain has a handful.
const MAX_RUNS: usize = 10_000;

/// How many marked records are kept, and how many bytes of what is said of them.
const MAX_MARKS: usize = 10_000;
const MAX_MARK_BYTES: usize = 16 << 20;

/// How a stretch of records was authenticated, for spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stretch {
    None,
    Key(u16, KeyUse),
    Unasked,
    Bad,
}

impl Stretch {
    /// Returns the kind of run that the stretch belongs to.
    const fn kind(self) -> RunKind {
        match self {
            Self::None => RunKind::Unsigned,
            Self::Key(_, KeyUse::Verified | KeyUse::SelfVouched) => RunKind::Verified,
            Self::Key(_, KeyUse::Unchecked) => RunKind::Unchecked,
            Self::Unasked => RunKind::Unasked,
            Self::Bad => RunKind::Bad,
        }
    }
}

/// What a key did for a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyUse {
    Verified,
    SelfVouched,
    Unchecked,
}

/// A record whose link does not fit what stands before it.
#[derive(Debug, Clone)]
pub(crate) struct Break {
    pub(crate) chain: usize,
    /// The record's place among the records found, from 1.
    pub(crate) place: u64,
    pub(crate) number: Option<i64>,
    pub(crate) expected_number: Option<i64>,
    pub(crate) id: String,
    /// What the record says of its predecessor.
    pub(crate) prev: Link,
    /// What stands before it.
    pub(crate) head: Link,
    /// The record's own link value.
    pub(crate) link: Link,
    /// Whether the next record goes on from before this one.
    pub(crate) bypassed: bool,
    /// Whether the record verifies and nothing else is wrong with it.
    pub(crate) sound: bool,
}

/// What a chain was when it had as many records as the checkpoint says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AtPoint {
    pub(crate) root: Hash,
    pub(crate) head: Link,
    /// The digest over all links, where the head alone does not stand for them.
    pub(crate) links: Option<Hash>,
    pub(crate) signed: u64,
    /// How many faults of content there were by then.
    pub(crate) faults: u64,
}

/// What is compared of a chain with where it stood at a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) records: u64,
    pub(crate) head: Link,
    pub(crate) at_point: Option<AtPoint>,
    /// Where the checkpoint's head was met.
    pub(crate) point_head_at: Option<u64>,
    /// How many links do not fit.
    pub(crate) breaks: u64,
    /// The last record of those that were removed on record before the first.
    pub(crate) boundary: Option<Link>,
}

/// The state of one chain.
#[derive(Debug)]
pub(crate) struct ChainState {
    pub(crate) id: String,
    pub(crate) records: u64,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) head: Link,
    /// What the first record must say of its predecessor.
    pub(crate) start: Link,
    pub(crate) links: Option<Hash>,
    /// The parts that retention takes away whole; `None` where there are none, or the numbers are not in order.
    pub(crate) parts: Option<Parts>,
    /// What retention took, once that is known.
    pub(crate) excuse: Option<Excuse>,
    pub(crate) frontier: Frontier,
    pub(crate) signed: u64,
    pub(crate) verified: u64,
    pub(crate) unchecked: u64,
    pub(crate) faults: u64,
    pub(crate) breaks: u64,
    pub(crate) point: Option<ChainPoint>,
    /// The checkpoint's head as a link.
    point_head: Option<Link>,
    pub(crate) at_point: Option<AtPoint>,
    /// Where the checkpoint's head was met.
    pub(crate) point_head_at: Option<u64>,
    /// A predecessor that is allowed besides the head: the place before a record that did not fit.
    also: Option<Link>,
    /// What the last record's content commits to, where that is not what it says.
    heir: Option<Link>,
    last_break: Option<usize>,
    time: Option<i64>,
    clock_steps: u64,
    first_clock_step: u64,
    times: Option<(i64, i64)>,
    stretch: Stretch,
    stretch_from: u64,
    /// The number of the record at `stretch_from`.
    stretch_number: u64,
    runs: Vec<Run>,
    /// Whether the last run was not kept.
    run_dropped: Option<RunKind>,
    remarks: Vec<Remarks>,
    pub(crate) verified_by: Vec<VerifiedBy>,
    unsigned: Option<(u64, u64)>,
    unsigned_total: u64,
    /// The last record's place in the chain order.
    order: Option<OrderKey>,
    /// How many records each key was used for: index into [`Walk::labels`], count.
    keys: Vec<(u16, u64)>,
    last_faulty: bool,
    watch: Option<Link>,
    watched: Option<u64>,
    snapshot: Option<Sha256>,
    /// The sizes at which the tree is wanted, ascending, and the trees that were kept.
    wanted: Vec<u64>,
    pub(crate) kept: Vec<(u64, Frontier)>,
    /// The rows after the checkpoint, where they are asked for.
    pub(crate) tail: Option<OpenTail>,
}

/// Equal remarks of one chain.
#[derive(Debug)]
struct Remarks {
    kind: NoteKind,
    explains: &'static str,
    first: u64,
    last: u64,
    /// The last one's place.
    place: u64,
    count: u64,
}

/// The walk over all chains.
#[derive(Debug)]
pub(crate) struct Walk {
    rules: LinkRules,
    head_commits: bool,
    parts: Option<PartRule>,
    runs: usize,
    /// How many runs that are not verified were past [`MAX_RUNS`].
    runs_left_out: u64,
    pub(crate) chains: Vec<ChainState>,
    by_id: HashMap<String, usize>,
    points: BTreeMap<String, ChainPoint>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) findings_total: u64,
    pub(crate) notes: Vec<Note>,
    pub(crate) breaks: Vec<Break>,
    /// Breaks past [`MAX_BREAKS`], counted only.
    pub(crate) breaks_more: u64,
    labels: Vec<String>,
    /// How many records each key of `labels` was used for.
    key_records: Vec<u64>,
    worker_labels: HashMap<usize, Vec<u16>>,
    /// The records that the rule marked.
    pub(crate) marks: Vec<Mark>,
    mark_bytes: usize,
    /// How many were past [`MAX_MARKS`] or [`MAX_MARK_BYTES`].
    pub(crate) marks_left_out: u64,
    snapshot_prefix: Vec<u8>,
    /// The sizes at which trees of chains are wanted, by chain.
    wanted: BTreeMap<String, Vec<u64>>,
    /// Whether the rows after the checkpoint are asked for, and how many leaves are kept.
    tails: bool,
    tail_leaves: usize,
    /// A record came before one that stands before it in the chain order; the walk stopped there.
    pub(crate) disordered: bool,
    pub(crate) records: u64,
}

impl Walk {
    /// Starts a walk. `points` is where the chains stood at the earlier checkpoint.
    pub(crate) fn new(format: &dyn ChainFormat, points: impl IntoIterator<Item = ChainPoint>) -> Self {
        Self {
            rules: format.links(),
            head_commits: format.head_commits(),
            parts: format.parts(),
            runs: 0,
            runs_left_out: 0,
            snapshot_prefix: format.snapshot_prefix().to_vec(),
            wanted: BTreeMap::new(),
            tails: false,
            tail_leaves: 0,
            disordered: false,
            chains: Vec::new(),
            by_id: HashMap::new(),
            points: points.into_iter().map(|point| (point.id.clone(), point)).collect(),
            findings: Vec::new(),
            findings_total: 0,
            notes: Vec::new(),
            breaks: Vec::new(),
            breaks_more: 0,
            labels: Vec::new(),
            key_records: Vec::new(),
            worker_labels: HashMap::new(),
            marks: Vec::new(),
            mark_bytes: 0,
            marks_left_out: 0,
            records: 0,
        }
    }

    /// Keeps the trees of chains at these sizes; with `tails`, the leaves of the rows after the checkpoint.
    #[must_use]
    pub(crate) fn keeping(mut self, wanted: BTreeMap<String, Vec<u64>>, tails: bool) -> Self {
        self.wanted = wanted;
        self.tails = tails;
        self
    }

    /// Takes the next batch.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the records are not in the chain order; [`Walk::disordered`] says so.
    pub(crate) fn consume(&mut self, batch: Batch, start: &dyn Fn(&str) -> Start) -> Result<()> {
        self.learn_labels(&batch);
        let chains: Vec<usize> = batch.chains.iter().map(|id| self.chain(id, start)).collect();
        let mut faults = batch.faults.iter().peekable();
        let mut also = batch.also.iter().peekable();
        let mut snapshots = batch.snapshots().peekable();
        let mut remarks = batch.remarks.iter().peekable();
        let mut marks = batch.marks.iter().peekable();
        for (at, entry) in batch.entries.iter().enumerate() {
            let chain = chains[entry.chain as usize];
            if entry.order.is_some() {
                if entry.order < self.chains[chain].order {
                    self.disordered = true;
                    return Err(Error::Cancelled);
                }
                self.chains[chain].order = entry.order;
            }
            let mut count = 0;
            while let Some((_, fault)) = faults.next_if(|(of, _)| *of as usize == at) {
                // A key that is not at hand says nothing of the content.
                if !matches!(fault.kind, FindingKind::UnknownKey | FindingKind::UnknownVersion) {
                    count += 1;
                }
                let place = self.chains[chain].records + 1;
                let position = entry.number.and_then(|number| u64::try_from(number).ok()).unwrap_or(place);
                self.report(Finding {
                    kind: fault.kind,
                    chain: self.chains[chain].id.clone(),
                    position: Some(position),
                    last: None,
                    record: Some(batch.id(entry).to_owned()),
                    expected: fault.expected.clone(),
                    found: fault.found.clone(),
                    explains: fault.explains.clone(),
                });
            }
            if let Some((_, text)) = marks.next_if(|(of, _)| *of as usize == at) {
                self.mark(chain, entry, text);
            }
            self.step(chain, entry, count, &batch);
            self.chains[chain].heir = also.next_if(|(of, _)| *of as usize == at).map(|(_, link)| *link);
            if let Some((_, bytes)) = snapshots.next_if(|(of, _)| *of as usize == at) {
                let prefix = &self.snapshot_prefix;
                let digest =
                    self.chains[chain].snapshot.get_or_insert_with(|| Sha256::new_with_prefix(prefix));
                digest.update(bytes);
            }
            while let Some(remark) = remarks.next_if(|remark| remark.record as usize == at) {
                self.chains[chain].remark(entry, remark);
            }
        }
        self.records += batch.entries.len() as u64;
        Ok(())
    }

    /// Keeps what the rule said of a record that is not yet counted.
    fn mark(&mut self, at: usize, entry: &Entry, text: &str) {
        self.mark_bytes = self.mark_bytes.saturating_add(text.len());
        if self.marks.len() >= MAX_MARKS || self.mark_bytes > MAX_MARK_BYTES {
            self.marks_left_out += 1;
            return;
        }
        let chain = &self.chains[at];
        let place = chain.records + 1;
        self.marks.push(Mark {
            chain: chain.id.clone(),
            number: entry.number.and_then(|number| u64::try_from(number).ok()).unwrap_or(place),
            place,
            text: text.into(),
            before: chain.frontier.clone(),
        });
    }

    /// Adds a finding; past [`MAX_LISTED_FINDINGS`] it is only counted. Neighbours that are wrong in the same
    /// way for want of the same key become one span.
    pub(crate) fn report(&mut self, finding: Finding) {
        let spans = matches!(
            finding.kind,
            FindingKind::UnknownKey
                | FindingKind::UnknownVersion
                | FindingKind::WrongKey
                | FindingKind::Reordered
        );
        if spans
            && let (Some(last), Some(position)) = (self.findings.last_mut(), finding.position)
            && last.kind == finding.kind
            && last.chain == finding.chain
            && (finding.kind == FindingKind::Reordered || last.found == finding.found)
            && last.last.or(last.position) == position.checked_sub(1)
        {
            last.last = Some(position);
            return;
        }
        self.findings_total += 1;
        if self.findings.len() < MAX_LISTED_FINDINGS {
            self.findings.push(finding);
        }
    }

    /// Ends the walk: closes the spans and writes the notes that need the whole chain.
    pub(crate) fn close(&mut self, seals: bool) {
        for at in 0..self.chains.len() {
            self.close_stretch(at);
            let chain = &mut self.chains[at];
            for remarks in &chain.remarks {
                self.notes.push(Note {
                    kind: remarks.kind,
                    chain: chain.id.clone(),
                    position: Some(remarks.first),
                    last: (remarks.last != remarks.first).then_some(remarks.last),
                    explains: format!("{}: {}", plural(remarks.count, "record"), remarks.explains),
                });
            }
            if chain.clock_steps > 0 {
                self.notes.push(Note {
                    kind: NoteKind::ClockStepBack,
                    chain: chain.id.clone(),
                    position: Some(chain.first_clock_step),
                    last: None,
                    explains: format!(
                        "the clock of the records steps back {}; their order is that of insertion, and the links hold or not by themselves",
                        times(chain.clock_steps)
                    ),
                });
            }
            if seals && let Some((from, to)) = chain.unsigned {
                self.notes.push(Note {
                    kind: NoteKind::UnsignedSpan,
                    chain: chain.id.clone(),
                    position: Some(from),
                    last: Some(to),
                    explains: format!(
                        "{} of {} records carry no signature",
                        chain.unsigned_total, chain.records
                    ),
                });
            }
        }
    }

    /// Makes one note of those on chains that carry no signature at all, however many there are.
    pub(crate) fn join_bare(&mut self) {
        let records_of: HashMap<&str, u64> = self
            .chains
            .iter()
            .filter(|chain| chain.unsigned_total == chain.records)
            .map(|chain| (chain.id.as_str(), chain.records))
            .collect();
        let bare = |note: &Note| {
            let records = records_of.get(note.chain.as_str()).copied();
            records.filter(|_| note.kind == NoteKind::UnsignedSpan && note.position.is_some())
        };
        let records: Vec<u64> = self.notes.iter().filter_map(bare).collect();
        if records.len() < 2 {
            return;
        }
        self.notes.retain(|note| bare(note).is_none());
        self.notes.push(Note {
            kind: NoteKind::UnsignedSpan,
            chain: String::new(),
            position: None,
            last: None,
            explains: format!(
                "{} of {} carry no signature at all: {}",
                records.len(),
                plural(self.chains.len() as u64, "chain"),
                plural(records.iter().sum(), "record")
            ),
        });
    }

    /// Opens the walk for a format's last word.
    pub(crate) fn conclusion(&mut self) -> Conclusion<'_> {
        let chains = self.chains.iter_mut().map(|chain| Walked {
            id: chain.id.clone(),
            records: chain.records,
            last: chain.last,
            head: chain.head,
            signed: chain.signed,
            records_by_key: chain
                .keys
                .iter()
                .filter_map(|(key, count)| Some((self.labels.get(usize::from(*key))?.clone(), *count)))
                .collect(),
            verified_by: chain.verified_by.clone(),
            last_faulty: chain.last_faulty,
            watched: chain.watched,
            snapshot: chain.snapshot.clone().map(|digest| digest.finalize().into()),
            times: chain.times,
            vouched: chain.vouched(),
            runs: std::mem::take(&mut chain.runs),
        });
        let chains = chains.collect();
        let records_by_key = self.labels.iter().cloned().zip(self.key_records.iter().copied()).collect();
        Conclusion { chains, records_by_key, runs_left_out: self.runs_left_out, walk: self }
    }

    /// Returns the first chain with a record whose content could not be checked and that no checkpoint vouches for.
    pub(crate) fn unrecoverable(&self) -> Option<&str> {
        let open = |chain: &&ChainState| {
            chain.remarks.iter().any(|remarks| {
                remarks.kind == NoteKind::UnrecoverableCanonicalForm && remarks.place > chain.vouched()
            })
        };
        self.chains.iter().find(open).map(|chain| chain.id.as_str())
    }

    /// Returns the checkpoint's chains that were not met.
    pub(crate) fn unmet_points(&self) -> Vec<ChainPoint> {
        self.points.values().filter(|point| !self.by_id.contains_key(&point.id)).cloned().collect()
    }

    /// Returns the state of a chain.
    pub(crate) fn by_id(&self, id: &str) -> Option<&ChainState> {
        self.by_id.get(id).map(|at| &self.chains[*at])
    }

    /// Finds or starts a chain.
    fn chain(&mut self, id: &str, start: &dyn Fn(&str) -> Start) -> usize {
        if let Some(at) = self.by_id.get(id) {
            return *at;
        }
        let at = self.chains.len();
        let mut chain = ChainState::new(id, start(id), self.points.get(id).cloned());
        chain.links = (!self.head_commits).then_some([0; 32]);
        chain.parts = self.parts.map(|rule| Parts::new(rule, chain.point.as_ref()));
        chain.wanted = self.wanted.get(id).cloned().unwrap_or_default();
        chain.tail = self.tails.then(OpenTail::default);
        self.chains.push(chain);
        self.by_id.insert(id.to_owned(), at);
        at
    }

    /// Gives the keys of a worker their common numbers.
    fn learn_labels(&mut self, batch: &Batch) {
        for label in &batch.new_labels {
            let at = self.labels.iter().position(|known| known == label).unwrap_or_else(|| {
                self.labels.push(label.clone());
                self.key_records.push(0);
                self.labels.len() - 1
            });
            let at = u16::try_from(at).unwrap_or(u16::MAX);
            self.worker_labels.entry(batch.worker).or_default().push(at);
        }
    }

    fn stretch_of(&self, worker: usize, seal: Seal) -> Stretch {
        let key = |at: u16, how| {
            let of_worker = self.worker_labels.get(&worker);
            Stretch::Key(
                of_worker.and_then(|known| known.get(usize::from(at))).copied().unwrap_or(u16::MAX),
                how,
            )
        };
        match seal {
            Seal::None => Stretch::None,
            Seal::Verified(at) => key(at, KeyUse::Verified),
            Seal::SelfVouched(at) => key(at, KeyUse::SelfVouched),
            Seal::Unchecked(at) => key(at, KeyUse::Unchecked),
            Seal::Unasked => Stretch::Unasked,
            Seal::Bad => Stretch::Bad,
        }
    }

    /// Adds one record to its chain.
    fn step(&mut self, at: usize, entry: &Entry, faults: u64, batch: &Batch) {
        let stretch = self.stretch_of(batch.worker, entry.seal);
        if self.chains[at].stretch != stretch {
            self.close_stretch(at);
            let chain = &mut self.chains[at];
            chain.stretch = stretch;
            chain.stretch_from = chain.records + 1;
            chain.stretch_number =
                entry.number.and_then(|number| u64::try_from(number).ok()).unwrap_or(chain.stretch_from);
        }
        self.run(at, stretch, entry, batch);
        if let Stretch::Key(key, _) = stretch {
            if let Some(count) = self.key_records.get_mut(usize::from(key)) {
                *count += 1;
            }
            self.chains[at].count_key(key);
        }
        let numbered = self.rules.numbered;
        let chain = &mut self.chains[at];
        let place = chain.records + 1;
        let expected_number = chain.last.checked_add(1).filter(|_| numbered);
        // A record without a number is malformed, which is said of it; its place is judged by its link.
        let number_fits = !numbered || entry.number.is_none() || entry.number == expected_number;
        let fits = number_fits && (chain.head.admits(&entry.prev) || chain.heir == Some(entry.prev));
        if !fits {
            let bypass = chain.also == Some(entry.prev) && (!numbered || number_fits);
            if bypass && let Some(before) = chain.last_break {
                self.breaks[before].bypassed = true;
            } else {
                chain.breaks += 1;
                let found = Break {
                    chain: at,
                    place,
                    number: entry.number,
                    expected_number,
                    id: batch.id(entry).to_owned(),
                    prev: entry.prev,
                    head: chain.head,
                    link: entry.link,
                    bypassed: false,
                    sound: faults == 0 && matches!(entry.seal, Seal::Verified(_)),
                };
                if self.breaks.len() < MAX_BREAKS {
                    chain.last_break = Some(self.breaks.len());
                    chain.also = Some(chain.head);
                    self.breaks.push(found);
                } else {
                    self.breaks_more += 1;
                }
            }
        } else if chain.last_break.is_some_and(|before| self.breaks[before].place + 1 < place) {
            chain.also = None;
            chain.last_break = None;
        }
        chain.add(entry, place, faults, self.rules.clock);
        if chain.tail.is_some() {
            self.tail(at, entry.leaf);
        }
    }

    /// Keeps the leaf of a record that was added, where the rows after the checkpoint are asked for.
    fn tail(&mut self, at: usize, leaf: Hash) {
        let chain = &mut self.chains[at];
        let Some(tail) = &mut chain.tail else { return };
        if !tail.over {
            tail.leaves.push(leaf);
            self.tail_leaves += 1;
        }
        let met = chain.point.as_ref().is_some_and(|point| {
            point.records == chain.records && chain.at_point.is_some_and(|found| found.root == point.root)
        });
        if met || self.tail_leaves > MAX_LOST {
            self.tail_leaves -= tail.leaves.len();
            *tail = OpenTail { shared: if met { chain.records } else { 0 }, leaves: Vec::new(), over: !met };
        }
    }

    /// Adds one record, not yet counted, to the run that it continues or begins.
    fn run(&mut self, at: usize, stretch: Stretch, entry: &Entry, batch: &Batch) {
        let how = stretch.kind();
        let key = if let Stretch::Key(key, _) = stretch { Some(key) } else { None };
        let chain = &mut self.chains[at];
        let place = chain.records + 1;
        let number = entry.number.and_then(|number| u64::try_from(number).ok()).unwrap_or(place);
        if let Some(run) = chain.runs.last_mut().filter(|run| run.how == how && chain.run_dropped.is_none()) {
            run.to = number;
            run.place = place;
            run.records += 1;
            run.times.1 = entry.time;
            run.keys = run.keys.map(|(first, last)| (first, key.unwrap_or(last)));
            if how != RunKind::Verified && run.ids.len() < RUN_IDS {
                run.ids.push((number, batch.id(entry).to_owned()));
            }
        } else if self.runs < MAX_RUNS {
            self.runs += 1;
            let ids = if how == RunKind::Verified {
                Vec::new()
            } else {
                vec![(number, batch.id(entry).to_owned())]
            };
            chain.runs.push(Run {
                how,
                from: number,
                to: number,
                records: 1,
                place,
                ids,
                keys: key.map(|key| (key, key)),
                times: (entry.time, entry.time),
            });
        } else if chain.run_dropped != Some(how) {
            chain.run_dropped = Some(how);
            self.runs_left_out += u64::from(how != RunKind::Verified);
        }
    }

    /// Writes down who verified the stretch that ends here.
    fn close_stretch(&mut self, at: usize) {
        let chain = &mut self.chains[at];
        let (from, to) = (chain.stretch_from, chain.records);
        if to < from {
            return;
        }
        let from_number = chain.stretch_number;
        let to_number = u64::try_from(chain.last).unwrap_or(to);
        match chain.stretch {
            Stretch::None => {
                chain.unsigned = Some(chain.unsigned.map_or((from, to), |(first, _)| (first, to)));
                chain.unsigned_total += to - from + 1;
            }
            Stretch::Key(key, KeyUse::Verified | KeyUse::SelfVouched) => {
                let label = self.labels.get(usize::from(key)).cloned().unwrap_or_else(|| "?".into());
                match chain.verified_by.last_mut() {
                    Some(last) if last.key == label && last.to + 1 == from_number => last.to = to_number,
                    _ => chain.verified_by.push(VerifiedBy { key: label, from: from_number, to: to_number }),
                }
            }
            Stretch::Key(_, KeyUse::Unchecked) | Stretch::Unasked | Stretch::Bad => {}
        }
    }
}

impl ChainState {
    fn new(id: &str, start: Start, point: Option<ChainPoint>) -> Self {
        Self {
            id: id.to_owned(),
            records: 0,
            first: start.number,
            last: start.number.saturating_sub(1),
            head: start.link,
            start: start.link,
            links: None,
            parts: None,
            excuse: None,
            frontier: Frontier::new(),
            signed: 0,
            verified: 0,
            unchecked: 0,
            faults: 0,
            breaks: 0,
            point_head: point.as_ref().map(|point| Link::of_head(&point.head)),
            point,
            at_point: None,
            point_head_at: None,
            also: None,
            heir: None,
            last_break: None,
            time: None,
            clock_steps: 0,
            first_clock_step: 0,
            times: None,
            stretch: Stretch::Bad,
            stretch_from: 1,
            stretch_number: 1,
            runs: Vec::new(),
            run_dropped: None,
            remarks: Vec::new(),
            verified_by: Vec::new(),
            unsigned: None,
            unsigned_total: 0,
            order: None,
            keys: Vec::new(),
            last_faulty: false,
            watch: start.watch,
            watched: None,
            snapshot: None,
            wanted: Vec::new(),
            kept: Vec::new(),
            tail: None,
        }
    }

    /// Counts a use of a key.
    fn count_key(&mut self, key: u16) {
        match self.keys.iter_mut().find(|(known, _)| *known == key) {
            Some((_, count)) => *count += 1,
            None => self.keys.push((key, 1)),
        }
    }

    /// Returns what is compared with a checkpoint.
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            records: self.records,
            head: self.head,
            at_point: self.at_point,
            point_head_at: self.point_head_at,
            breaks: self.breaks,
            boundary: Some(self.start).filter(|start| matches!(start, Link::Digest(_))),
        }
    }

    /// Returns the number of the record at a place, where numbers run without gaps.
    fn number_of(&self, place: u64) -> i64 {
        let place = i64::try_from(place).unwrap_or(i64::MAX);
        self.first.saturating_add(place).saturating_sub(1)
    }

    /// Returns the number of the last record without a signature, unless such records only begin the chain.
    pub(crate) fn unsigned_after_signed(&self) -> Option<u64> {
        let (from, to) = self.unsigned?;
        let only_at_the_beginning = from == 1 && to == self.unsigned_total;
        (!only_at_the_beginning).then(|| u64::try_from(self.number_of(to)).unwrap_or(to))
    }

    /// Returns how many of the first records are, row for row, those of the checkpoint.
    pub(crate) fn vouched(&self) -> u64 {
        if let Some(excuse) = &self.excuse {
            return excuse.vouched;
        }
        match (&self.point, &self.at_point) {
            (Some(point), Some(at_point)) if at_point.root == point.root => point.records,
            _ => 0,
        }
    }

    /// Takes a remark on the record that was added last.
    fn remark(&mut self, entry: &Entry, remark: &Remark) {
        let place = self.records;
        let number = entry.number.and_then(|number| u64::try_from(number).ok()).unwrap_or(place);
        let equal = |known: &&mut Remarks| known.kind == remark.kind && known.explains == remark.explains;
        match self.remarks.iter_mut().find(equal) {
            Some(known) => {
                known.last = number;
                known.place = place;
                known.count += 1;
            }
            None => self.remarks.push(Remarks {
                kind: remark.kind,
                explains: remark.explains,
                first: number,
                last: number,
                place,
                count: 1,
            }),
        }
    }

    /// Takes the record into the sums.
    fn add(&mut self, entry: &Entry, place: u64, faults: u64, clock: bool) {
        if self.records == 0
            && let Some(number) = entry.number
        {
            self.first = number;
        }
        self.records = place;
        self.last = entry.number.unwrap_or_else(|| self.last.saturating_add(1));
        self.head = entry.link;
        self.faults += faults;
        self.last_faulty = faults > 0;
        if self.watched.is_none() && self.watch == Some(entry.link) {
            self.watched = Some(place);
        }
        match entry.seal {
            Seal::None => {}
            Seal::Verified(_) | Seal::SelfVouched(_) => {
                self.signed += 1;
                self.verified += 1;
            }
            Seal::Unchecked(_) => {
                self.signed += 1;
                self.unchecked += 1;
            }
            Seal::Unasked | Seal::Bad => self.signed += 1,
        }
        if let Some(now) = entry.time {
            self.times = Some(self.times.map_or((now, now), |(from, to)| (from.min(now), to.max(now))));
        }
        if let Some(parts) = &mut self.parts
            && !parts.push(entry.number, entry.time, entry.leaf)
        {
            self.parts = None;
        }
        if let Some(links) = &mut self.links {
            *links = extend_links(links, entry);
        }
        if clock && let Some(now) = entry.time {
            if self.time.is_some_and(|before| now < before) {
                self.clock_steps += 1;
                if self.clock_steps == 1 {
                    self.first_clock_step = place;
                }
            }
            self.time = Some(now);
        }
        self.frontier.push(entry.leaf);
        if self.wanted.binary_search(&place).is_ok() {
            self.kept.push((place, self.frontier.clone()));
        }
        if let Some(point) = &self.point {
            if place == point.records {
                self.at_point = Some(AtPoint {
                    root: self.frontier.root(),
                    head: entry.link,
                    links: self.links,
                    signed: self.signed,
                    faults: self.faults,
                });
            }
            if self.point_head_at.is_none() && self.point_head == Some(entry.link) {
                self.point_head_at = Some(place);
            }
        }
    }
}

/// Extends the digest over all links: SHA-256 of the digest so far, the record's predecessor and its link value.
fn extend_links(links: &Hash, entry: &Entry) -> Hash {
    let mut digest = Sha256::new();
    digest.update(links);
    for link in [entry.prev, entry.link] {
        match link {
            Link::Genesis => digest.update([0]),
            Link::Digest(value) => {
                digest.update([1]);
                digest.update(value);
            }
            Link::Other(value) => {
                digest.update([2]);
                digest.update(value);
            }
            Link::Unstated => digest.update([3]),
        }
    }
    digest.finalize().into()
}

/// Says how often.
fn times(count: u64) -> String {
    if count == 1 { "once".into() } else { format!("{count} times") }
}
