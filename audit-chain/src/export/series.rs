//! The watermark of an incremental export: what is exported already, per chain, and how the next run tells what is new.
//!
//! A run reads the whole source in its order and asks [`Progress::is_new`] of every row. What is new is decided by the chain, never
//! by a clock: where records are numbered, a number that is not among the exported ones; else what stands behind the record
//! that was exported last, found again by its link value. So a transaction that commits late, in another chain or
//! under a lower row id, is not passed over. The rows that were exported before are hashed again: their Merkle root must
//! be that of the last run ([`Progress::finish`]), or the history was rewritten and nothing is exported. Where the oldest rows
//! were removed since (retention), the rest cannot be held to that root: the record exported last must still be there, whole,
//! or the chain must go on behind it.
//!
//! Where records are not numbered and a row appears among those exported before (a clock that was set back in a format
//! that orders by it), [`Progress::finish`] asks for a comparison with the exported segments; [`Progress::late`] takes its answer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::each_record;
use super::text::RowShape;
use crate::checkpoint::optional_root;
use crate::error::{Error, Result};
use crate::format::{ChainFormat, Link, Record};
use crate::merkle::{Frontier, Hash};
use crate::report::{Finding, FindingKind};
use crate::retention::Numbers;
use crate::source::RowSource;

/// What the document says it is.
pub const TYPE: &str = "attestore.dev/chain-export-watermark/v1";

/// The watermark, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// [`TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The chain format.
    pub format: String,
    /// How rows are written.
    #[serde(rename = "as")]
    pub shape: RowShape,
    /// The series, a random name: segments of another are not taken for its own.
    pub series: String,
    /// How many rows all segments hold.
    pub rows: u64,
    /// How many segments there are.
    pub segments: u64,
    /// The last segment; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastSegment>,
    /// The columns of CSV that hold other values than text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub literals: Vec<String>,
    /// The columns of CSV that hold text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<String>,
    /// The chains, sorted by id.
    pub chains: Vec<ChainMark>,
}

/// The last segment of a series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSegment {
    /// The file's name.
    pub name: String,
    /// How many rows.
    pub rows: u64,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the file, lowercase hex.
    pub sha256: String,
}

/// How far one chain is exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainMark {
    /// The chain's id.
    pub id: String,
    /// How many records were exported.
    pub records: u64,
    /// Their numbers, where the format numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<Numbers>,
    /// The link value of the record exported last.
    pub head: String,
    /// Its leaf, base64.
    #[serde(with = "optional_root")]
    pub leaf: Option<Hash>,
    /// How many of the exported records the source still had at the last run.
    pub kept: u64,
    /// The root over those, base64.
    #[serde(with = "optional_root")]
    pub root: Option<Hash>,
}

impl Watermark {
    /// Begins a series.
    #[must_use]
    pub fn new(format: &str, shape: RowShape, series: String) -> Self {
        Self {
            kind: TYPE.into(),
            format: format.into(),
            shape,
            series,
            rows: 0,
            segments: 0,
            last: None,
            literals: Vec::new(),
            texts: Vec::new(),
            chains: Vec::new(),
        }
    }

    /// Reads a watermark and holds it to the export that is asked for.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is none; [`Error::InvalidInput`] when it is of another format or shape.
    pub fn parse(name: &str, text: &[u8], format: &str, shape: RowShape) -> Result<Self> {
        let malformed = |place: String, what: String| Error::Malformed { input: name.into(), place, what };
        let mark: Self = serde_json::from_slice(text).map_err(|error| {
            malformed(format!("line {}", error.line()), format!("not a watermark: {error}"))
        })?;
        if mark.kind != TYPE {
            return Err(malformed("type".into(), format!("expected {TYPE}, found {}", mark.kind)));
        }
        if mark.format != format || mark.shape != shape {
            return Err(Error::InvalidInput(format!(
                "{name}: the watermark is of an export of {} as {}, not of {format} as {}",
                mark.format,
                mark.shape.name(),
                shape.name()
            )));
        }
        Ok(mark)
    }

    /// Names the segment that begins at the next row.
    #[must_use]
    pub fn next_name(&self) -> String {
        segment_name(self.rows + 1, self.shape)
    }
}

/// Names a segment by its first row's place among all rows, from 1: names sort as the segments follow each other.
#[must_use]
pub fn segment_name(first_row: u64, shape: RowShape) -> String {
    format!("rows-{first_row:012}.{}", shape.name())
}

/// Reads a segment's name.
#[must_use]
pub fn segment_of(name: &str) -> Option<(u64, RowShape)> {
    let (digits, ending) = name.strip_prefix("rows-")?.split_once('.')?;
    let shape = match ending {
        "ndjson" => RowShape::Ndjson,
        "csv" => RowShape::Csv,
        _ => return None,
    };
    let plain = digits.len() >= 12 && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((digits.parse().ok().filter(|_| plain)?, shape))
}

/// What a comparison with the exported rows found.
#[derive(Debug, Default)]
pub struct Comparison {
    /// The leaves of rows that stand among exported ones and were not exported.
    pub late: HashSet<Hash>,
    /// Exported rows that were changed, or are gone from the middle.
    pub findings: Vec<Finding>,
}

/// The exported rows of one chain.
struct Known {
    /// Their leaves and places; those that were met in the source are taken out.
    leaves: HashMap<Hash, u64>,
    links: HashSet<Link>,
    /// The link value of the record exported last.
    head: Link,
    /// The least place that was met.
    first: u64,
}

/// Compares the rows of some chains up to the record exported last with the exported rows themselves. Holds 48 bytes a row of
/// these chains in memory; only called where the Merkle root does not vouch for them.
///
/// # Errors
/// What the sources say.
pub fn compare(
    source: &dyn RowSource,
    exported: &dyn RowSource,
    format: &dyn ChainFormat,
    mark: &Watermark,
    chains: &[String],
    cancel: Option<&AtomicBool>,
) -> Result<Comparison> {
    let mut known: HashMap<&str, Known> = HashMap::new();
    for chain in mark.chains.iter().filter(|chain| chains.contains(&chain.id)) {
        let head = Link::of_head(&chain.head);
        let known_chain = Known { leaves: HashMap::new(), links: HashSet::new(), head, first: u64::MAX };
        known.insert(&chain.id, known_chain);
    }
    each_record(exported, format, cancel, &mut |_, record| {
        if let Some(chain) = known.get_mut(record.chain) {
            let place = chain.leaves.len() as u64;
            chain.leaves.insert(record.leaf, place);
            chain.links.insert(record.link);
        }
        Ok(())
    })?;
    let mut found = Comparison::default();
    let mut ended: HashSet<String> = HashSet::new();
    let finding = |chain: &str, record: Option<String>, explains: &str| Finding {
        kind: FindingKind::Rewritten,
        chain: chain.to_owned(),
        position: None,
        last: None,
        record,
        expected: None,
        found: None,
        explains: explains.to_owned(),
    };
    each_record(source, format, cancel, &mut |_, record| {
        let Some(chain) = known.get_mut(record.chain) else { return Ok(()) };
        if ended.contains(record.chain) {
            return Ok(());
        }
        if let Some(place) = chain.leaves.remove(&record.leaf) {
            chain.first = place.min(chain.first);
        } else if chain.links.contains(&record.link) {
            let explains = "a record that was exported has other content now: history was rewritten";
            found.findings.push(finding(record.chain, Some(record.id.to_owned()), explains));
        } else {
            found.late.insert(record.leaf);
        }
        if record.link == chain.head {
            ended.insert(record.chain.to_owned());
        }
        Ok(())
    })?;
    for (chain, Known { leaves, first, .. }) in known {
        if leaves.values().any(|place| *place > first) {
            let explains = "records that were exported are gone from the middle of the chain";
            found.findings.push(finding(chain, None, explains));
        }
    }
    Ok(found)
}

/// One chain during a run.
#[derive(Debug)]
struct ChainRun {
    mark: Option<ChainMark>,
    head: Option<Link>,
    /// Whether the record exported last was met, whole; or the chain goes on behind it.
    met: bool,
    /// Whether that record is here with another leaf.
    differs: bool,
    /// Whether the chain begins behind the record exported last.
    behind: bool,
    /// The exported rows that are still here, and how many.
    old: Frontier,
    old_rows: u64,
    /// The same and the new rows that stand among or behind them, for the next run.
    all: Frontier,
    all_rows: u64,
    lowest: Option<i64>,
    new: u64,
    numbers: Numbers,
    last: Option<(Link, Hash)>,
    /// The greatest number so far: what the record exported last is for the next run.
    greatest: Option<i64>,
    /// A number that came out of order among the new ones.
    loose: Vec<u64>,
}

/// What a run found at its end.
#[derive(Debug)]
pub struct Finished {
    /// The chains as they are exported once the segment is committed.
    pub chains: Vec<ChainMark>,
    /// Why nothing may be exported; empty when all is well.
    pub findings: Vec<Finding>,
    /// The chains that need a comparison with what was exported ([`Progress::late`]).
    pub compare: Vec<String>,
    /// What is worth saying: rows that retention removed since.
    pub notes: Vec<String>,
}

/// One run.
#[derive(Debug)]
pub struct Progress {
    numbered: bool,
    holes_allowed: bool,
    chains: HashMap<String, ChainRun>,
    absent: BTreeMap<String, ChainMark>,
    /// Leaves of rows that stand among exported ones and are new.
    late: HashSet<Hash>,
    compared: bool,
}

impl Progress {
    /// Starts a run at a watermark.
    #[must_use]
    pub fn new(format: &dyn ChainFormat, mark: &Watermark) -> Self {
        Self {
            numbered: format.links().numbered,
            holes_allowed: format.parts().is_some(),
            chains: HashMap::new(),
            absent: mark.chains.iter().map(|chain| (chain.id.clone(), chain.clone())).collect(),
            late: HashSet::new(),
            compared: false,
        }
    }

    /// Takes the answer of a comparison: the leaves of rows among the exported ones that were not exported.
    pub fn late(&mut self, leaves: HashSet<Hash>) {
        self.late = leaves;
        self.compared = true;
    }

    /// Reports whether rows of a chain were exported before this run.
    #[must_use]
    pub fn is_known(&self, chain: &str) -> bool {
        self.absent.contains_key(chain) || self.chains.get(chain).is_some_and(|chain| chain.mark.is_some())
    }

    /// Takes the next row of the source and reports whether it is to be exported.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the format numbers its records and this one has no number.
    pub fn is_new(&mut self, record: &Record<'_>) -> Result<bool> {
        let numbered = self.numbered;
        if numbered && record.number.is_none_or(|number| number < 0) {
            return Err(Error::InvalidInput(format!(
                "record {:?} of chain {:?} has no number, so an incremental export cannot tell whether it is new; export without a watermark",
                record.id, record.chain
            )));
        }
        let chain = match self.chains.get_mut(record.chain) {
            Some(chain) => chain,
            None => {
                let mark = self.absent.remove(record.chain);
                let head = mark.as_ref().map(|mark| Link::of_head(&mark.head));
                let behind = !numbered && matches!(record.prev, Link::Digest(_)) && head == Some(record.prev);
                let run = ChainRun {
                    met: mark.is_none() || behind,
                    differs: false,
                    behind,
                    old: Frontier::new(),
                    old_rows: 0,
                    all: Frontier::new(),
                    all_rows: 0,
                    lowest: None,
                    new: 0,
                    numbers: mark.as_ref().and_then(|mark| mark.numbers.clone()).unwrap_or_default(),
                    last: None,
                    greatest: None,
                    loose: Vec::new(),
                    mark,
                    head,
                };
                self.chains.entry(record.chain.to_owned()).or_insert(run)
            }
        };
        let new = chain.takes(record, numbered, &self.late);
        chain.all.push(record.leaf);
        chain.all_rows += 1;
        Ok(new)
    }

    /// Ends the run.
    #[must_use]
    pub fn finish(self) -> Finished {
        let mut done =
            Finished { chains: Vec::new(), findings: Vec::new(), compare: Vec::new(), notes: Vec::new() };
        for (id, mark) in self.absent {
            if mark.kept > 0 {
                done.notes
                    .push(format!("chain {id:?}: all {} records that were exported are gone", mark.records));
            }
            done.chains.push(ChainMark { kept: 0, root: None, ..mark });
        }
        for (id, chain) in self.chains {
            chain.judge(&id, self.holes_allowed, self.compared, &mut done);
            done.chains.push(chain.mark(id));
        }
        done.chains.sort_by(|left, right| left.id.cmp(&right.id));
        done.compare.sort_unstable();
        done
    }
}

impl ChainRun {
    /// Reports whether a record is new, and counts it.
    fn takes(&mut self, record: &Record<'_>, numbered: bool, late: &HashSet<Hash>) -> bool {
        let is_last = self.head == Some(record.link)
            && self.mark.as_ref().is_some_and(|mark| mark.leaf == Some(record.leaf));
        let number = record.number.filter(|_| numbered).and_then(|number| u64::try_from(number).ok());
        if !numbered {
            self.last = Some((record.link, record.leaf));
        }
        let old = match (number, &self.mark) {
            (_, None) => false,
            (Some(number), Some(mark)) => {
                let known = mark.numbers.as_ref().is_some_and(|known| known.contains(number, number));
                let last =
                    mark.numbers.as_ref().and_then(Numbers::ends).is_some_and(|(_, last)| last == number);
                self.differs |= known && last && !is_last;
                known
            }
            // Behind the record exported last, or among the exported and late.
            (None, Some(_)) => !self.met && !late.contains(&record.leaf),
        };
        if old {
            self.met |= is_last;
            self.old.push(record.leaf);
            self.old_rows += 1;
            let number = record.number.unwrap_or_default();
            self.lowest = Some(self.lowest.map_or(number, |lowest| lowest.min(number)));
            return false;
        }
        self.new += 1;
        if let Some(number) = number {
            self.loose.push(number);
            if self.loose.len() >= 4_096 {
                self.settle();
            }
        }
        if numbered && record.number >= self.greatest {
            self.greatest = record.number;
            self.last = Some((record.link, record.leaf));
        }
        true
    }

    /// Takes the loose numbers into the spans.
    fn settle(&mut self) {
        let mut loose = std::mem::take(&mut self.loose);
        loose.sort_unstable();
        loose.dedup();
        self.numbers.merge(&Numbers::of_sorted(&loose));
    }

    /// Says whether the rows that were exported are still what they were.
    fn judge(&self, id: &str, holes_allowed: bool, compared: bool, done: &mut Finished) {
        let Some(mark) = &self.mark else { return };
        let rewritten = |expected: String, found: String, explains: &str| Finding {
            kind: FindingKind::Rewritten,
            chain: id.to_owned(),
            position: None,
            last: None,
            record: None,
            expected: Some(expected),
            found: Some(found),
            explains: explains.to_owned(),
        };
        let here = self.old_rows;
        let root = self.old.root();
        let count = |count: u64| crate::verify::plural(count, "exported record");
        if self.differs {
            done.findings.push(rewritten(
                format!("a record with link value {}", mark.head),
                "another record under its number".into(),
                "the record that was exported last is not the one that stands at its place now: history was rewritten",
            ));
        } else if here == mark.kept && (here == 0 || Some(root) == mark.root) {
            // Nothing changed.
        } else if !self.met && mark.numbers.is_none() {
            done.findings.push(rewritten(
                format!("the record with link value {}", mark.head),
                format!("{} records, none of them it", self.all_rows),
                "the record that was exported last is gone, and the chain does not go on behind it: history was rewritten",
            ));
        } else if here == mark.kept {
            done.findings.push(rewritten(
                format!("the rows of {}", count(here)),
                "as many rows, of which at least one is another".into(),
                "rows that were exported were changed since: history was rewritten",
            ));
        } else if here > mark.kept && mark.numbers.is_some() {
            done.findings.push(rewritten(
                count(mark.kept),
                count(here),
                "a number that was exported stands here more often than it was exported",
            ));
        } else if mark.numbers.is_none() && !compared && !self.behind {
            done.compare.push(id.to_owned());
        } else {
            let gone = mark.kept.saturating_sub(here);
            let prefix = mark.numbers.as_ref().is_none_or(|numbers| {
                let from = self.lowest.and_then(|lowest| u64::try_from(lowest).ok());
                from.is_none_or(|from| numbers.count_from(from) == here)
            });
            if prefix || holes_allowed {
                done.notes.push(format!(
                    "chain {id:?}: {} were removed from the source since the last run",
                    count(gone)
                ));
            } else {
                done.findings.push(rewritten(
                    count(mark.kept),
                    count(here),
                    "records that were exported are gone from the middle of the chain",
                ));
            }
        }
    }

    /// Says how far the chain is exported after this run.
    fn mark(mut self, id: String) -> ChainMark {
        self.settle();
        let before = self.mark.as_ref();
        let further = |last: i64| {
            let ends = before.and_then(|mark| mark.numbers.as_ref()?.ends());
            ends.is_none_or(|(_, known)| u64::try_from(last).is_ok_and(|last| last > known))
        };
        let moved = self.last.filter(|_| self.greatest.is_none_or(further));
        let (head, leaf) = match (moved, before) {
            (Some((link, leaf)), _) => (link.text(), Some(leaf)),
            (None, Some(mark)) => (mark.head.clone(), mark.leaf),
            (None, None) => (String::new(), None),
        };
        ChainMark {
            id,
            records: before.map_or(0, |mark| mark.records) + self.new,
            numbers: self.numbers.ends().is_some().then_some(self.numbers),
            head,
            leaf,
            kept: self.all_rows,
            root: Some(self.all.root()),
        }
    }
}
