//! Tells rows that retention took away from rows that somebody deleted.
//!
//! Some systems keep a chain in parts (Caracal: one partition per month of the event's own time) and drop the oldest
//! parts whole. A late event sits in an old part under a new number, so an honest drop can leave a hole in the
//! middle of the chain. A checkpoint of such a format therefore holds, per chain and part, the numbers and the
//! Merkle root of the part's rows ([`ChainPart`]). Later, [`excuse`] accepts a gap only when
//!
//! - the missing numbers are exactly whole parts of the checkpoint, in every chain that had them,
//! - no chain still has a row of those parts or of an older one,
//! - every other part of the checkpoint is there, row for row (its root is the same).
//!
//! What was taken away is remembered in the next checkpoint as a part without a root, so that the night after still
//! knows. Called by [`crate::verify`] after the walk, before gaps become findings.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{ChainPoint, optional_root};
use crate::format::PartRule;
use crate::merkle::{Frontier, Hash};
use crate::report::{Note, NoteKind};
use crate::verify::plural;
use crate::walk::{Break, Walk};

/// How many spans of numbers the parts of one chain may have; a chain with more has no parts in its checkpoint.
const MAX_SPANS: usize = 1_024;

/// Numbers of records as spans, ascending and apart: `1-6,21`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Numbers(Vec<(u64, u64)>);

impl Numbers {
    /// Appends a number; `false` when it is not after all others.
    fn push(&mut self, number: u64) -> bool {
        match self.0.last_mut() {
            Some((_, to)) if number <= *to => return false,
            Some((_, to)) if number == *to + 1 => *to = number,
            _ => self.0.push((number, number)),
        }
        true
    }

    /// Makes spans of numbers that ascend.
    pub(crate) fn of_sorted(numbers: &[u64]) -> Self {
        let mut spans = Self::default();
        for number in numbers {
            spans.push(*number);
        }
        spans
    }

    /// Counts the numbers from one on.
    pub(crate) fn count_from(&self, from: u64) -> u64 {
        let spans = self.0.iter().filter(|span| span.1 >= from);
        spans.fold(0, |sum: u64, (first, last)| sum.saturating_add(last - from.max(*first)).saturating_add(1))
    }

    /// Reports whether all of a span is in it.
    #[must_use]
    pub fn contains(&self, from: u64, to: u64) -> bool {
        self.0.iter().any(|span| span.0 <= from && to <= span.1)
    }

    /// Counts the numbers.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, (from, to)| sum.saturating_add(to - from).saturating_add(1))
    }

    /// Returns the first and the last number.
    #[must_use]
    pub fn ends(&self) -> Option<(u64, u64)> {
        Some((self.0.first()?.0, self.0.last()?.1))
    }

    /// Puts other numbers in.
    pub fn merge(&mut self, other: &Self) {
        let mut all = std::mem::take(&mut self.0);
        all.extend_from_slice(&other.0);
        all.sort_unstable();
        for (from, to) in all {
            match self.0.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => self.0.push((from, to)),
            }
        }
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (from, to)) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            if from == to { write!(f, "{from}")? } else { write!(f, "{from}-{to}")? }
        }
        Ok(())
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not spans of ascending numbers, as in 1-6,21");
        let number = |digits: &str| digits.parse::<u64>().map_err(|_| bad());
        let mut spans: Vec<(u64, u64)> = Vec::new();
        for span in text.split(',') {
            let (from, to) = span.split_once('-').unwrap_or((span, span));
            let (from, to) = (number(from)?, number(to)?);
            if from > to || spans.last().is_some_and(|last| from <= last.1.saturating_add(1)) {
                return Err(bad());
            }
            spans.push((from, to));
        }
        let numbers = Self(spans);
        if numbers.to_string() == text { Ok(numbers) } else { Err(bad()) }
    }
}

impl TryFrom<String> for Numbers {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Numbers> for String {
    fn from(numbers: Numbers) -> Self {
        numbers.to_string()
    }
}

/// The rows of one chain that retention takes away together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainPart {
    /// The part's name; names sort by age (`2026-08`).
    pub name: String,
    /// The numbers of its rows.
    pub numbers: Numbers,
    /// The Merkle root (RFC 6962) over its rows; `None` for what retention took away, up to this part.
    #[serde(default, with = "optional_root", skip_serializing_if = "Option::is_none")]
    pub root: Option<Hash>,
}

/// The parts of one chain during the walk.
#[derive(Debug)]
pub(crate) struct Parts {
    rule: PartRule,
    open: BTreeMap<i64, (Numbers, Frontier)>,
    spans: usize,
    /// The last number of the checkpoint, and the parts as they were when it was passed.
    point_last: Option<u64>,
    at_point: Option<Vec<ChainPart>>,
    /// How many records had a number up to the checkpoint's last.
    point_place: u64,
}

impl Parts {
    pub(crate) fn new(rule: PartRule, point: Option<&ChainPoint>) -> Self {
        let ends = point.into_iter().flat_map(|point| &point.parts).filter_map(|part| part.numbers.ends());
        Self {
            rule,
            open: BTreeMap::new(),
            spans: 0,
            point_last: ends.map(|(_, last)| last).max(),
            at_point: None,
            point_place: 0,
        }
    }

    /// Takes a record; `false` when the chain cannot be told in parts.
    pub(crate) fn push(&mut self, number: Option<i64>, time: Option<i64>, leaf: Hash) -> bool {
        let Some((number, time)) = number.and_then(|number| u64::try_from(number).ok()).zip(time) else {
            return false;
        };
        if self.point_last.is_some_and(|last| number > last) {
            self.pass_point();
        }
        let (numbers, rows) = self.open.entry((self.rule.of)(time)).or_default();
        let spans = numbers.0.len();
        if !numbers.push(number) {
            return false;
        }
        rows.push(leaf);
        self.spans += numbers.0.len() - spans;
        if self.at_point.is_none() {
            self.point_place += 1;
        }
        self.spans <= MAX_SPANS
    }

    /// Keeps the parts as they are at the checkpoint's last number.
    fn pass_point(&mut self) {
        if self.at_point.is_none() {
            self.at_point = Some(self.list());
        }
    }

    /// Lists the parts, the oldest first.
    pub(crate) fn list(&self) -> Vec<ChainPart> {
        let part = |(part, (numbers, rows)): (&i64, &(Numbers, Frontier))| ChainPart {
            name: (self.rule.name)(*part),
            numbers: numbers.clone(),
            root: Some(rows.root()),
        };
        self.open.iter().map(part).collect()
    }
}

/// What retention took from one chain.
#[derive(Debug, Clone)]
pub(crate) struct Excuse {
    /// The chain's id.
    chain: String,
    /// The numbers that are gone, now or earlier.
    pub(crate) gone: ChainPart,
    /// How many of the chain's records are those of the checkpoint.
    pub(crate) vouched: u64,
    /// How many records are gone since the checkpoint.
    since: u64,
}

impl Excuse {
    /// Reports whether the gap before a break is retention's.
    pub(crate) fn covers(&self, found: &Break) -> bool {
        let span = found.expected_number.zip(found.number);
        span.is_some_and(|(expected, number)| {
            let (from, to) = (u64::try_from(expected), u64::try_from(number.saturating_sub(1)));
            matches!((from, to), (Ok(from), Ok(to)) if from <= to && self.gone.numbers.contains(from, to))
        })
    }

    /// Says what is gone.
    pub(crate) fn note(&self) -> Note {
        let (first, last) = self.gone.numbers.ends().unwrap_or((0, 0));
        Note {
            kind: NoteKind::RetentionGap,
            chain: self.chain.clone(),
            position: Some(first),
            last: (last != first).then_some(last),
            explains: format!(
                "numbers {} are gone with the parts up to {}, {} of them since the checkpoint; every other record of the checkpoint is there, byte for byte",
                self.gone.numbers,
                self.gone.name,
                plural(self.since, "record")
            ),
        }
    }
}

/// Finds the chains whose gaps are whole parts of the checkpoint, by id. Empty when any chain contradicts it.
pub(crate) fn excuse(walk: &mut Walk) -> BTreeMap<String, Excuse> {
    let mut excuses = BTreeMap::new();
    let mut oldest_kept: Option<String> = None;
    let mut keep = |name: &str| {
        if oldest_kept.as_deref().is_none_or(|oldest| name < oldest) {
            oldest_kept = Some(name.to_owned());
        }
    };
    for chain in &mut walk.chains {
        let Some(parts) = &mut chain.parts else { continue };
        parts.pass_point();
        for part in parts.list() {
            keep(&part.name);
        }
        let Some(point) = chain.point.as_ref().filter(|point| !point.parts.is_empty()) else { continue };
        let today = parts.at_point.as_deref().unwrap_or(&[]);
        if let Some((gone, since)) = taken(&point.parts, today) {
            let vouched = parts.point_place;
            excuses.insert(point.id.clone(), Excuse { chain: point.id.clone(), gone, vouched, since });
        }
    }
    for point in walk.unmet_points() {
        if let Some((gone, since)) = taken(&point.parts, &[]) {
            excuses.insert(point.id.clone(), Excuse { chain: point.id.clone(), gone, vouched: 0, since });
        }
    }
    // A part that was dropped is dropped in every chain.
    if let Some(oldest) = oldest_kept {
        excuses.retain(|_, excuse| excuse.gone.name < oldest);
    }
    excuses
}

/// Compares the checkpoint's parts with today's; returns what is gone, and how many of it since the checkpoint.
/// `None` when nothing is gone, or a part that is still there differs.
fn taken(point: &[ChainPart], today: &[ChainPart]) -> Option<(ChainPart, u64)> {
    let mut gone: Option<ChainPart> = None;
    let mut since = 0;
    let mut kept = 0;
    for part in point {
        let now = today.iter().find(|now| now.name == part.name);
        match (part.root, now) {
            (Some(_), Some(now)) if now == part => kept += 1,
            // What is gone is older than what is kept.
            (_, None) if kept == 0 => {
                since += if part.root.is_some() { part.numbers.count() } else { 0 };
                let all = gone.get_or_insert_with(|| ChainPart {
                    name: part.name.clone(),
                    numbers: Numbers::default(),
                    root: None,
                });
                all.name.clone_from(&part.name);
                all.numbers.merge(&part.numbers);
            }
            _ => return None,
        }
    }
    (kept == today.len()).then_some(())?;
    Some((gone?, since))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, numbers: &str, root: u8) -> ChainPart {
        ChainPart { name: name.into(), numbers: numbers.parse().unwrap(), root: Some([root; 32]) }
    }

    #[test]
    fn numbers_have_one_spelling() {
        for text in ["1", "1-6,21", "3,5-6,18446744073709551615"] {
            assert_eq!(text.parse::<Numbers>().unwrap().to_string(), text);
        }
        for text in
            ["", "6-1", "1,2", "1-1", "2,1", "1-3,3-4", "01", "+1", "1 ", "1,,2", "18446744073709551616"]
        {
            assert!(text.parse::<Numbers>().is_err(), "{text}");
        }
        let mut numbers: Numbers = "2-4,9".parse().unwrap();
        numbers.merge(&"1,5-6,20".parse().unwrap());
        assert_eq!((numbers.to_string().as_str(), numbers.count()), ("1-6,9,20", 8));
        assert!(numbers.contains(2, 6) && !numbers.contains(6, 9) && !numbers.contains(7, 7));
    }

    #[test]
    fn only_whole_oldest_parts_may_be_gone() {
        let point =
            [part("2026-08", "1-6,21", 1), part("2026-09", "7-12", 2), part("2026-10", "13-20,22", 3)];
        let (gone, since) = taken(&point, &point[1..]).unwrap();
        assert_eq!((gone.name.as_str(), gone.numbers.to_string().as_str(), since), ("2026-08", "1-6,21", 7));
        assert_eq!(taken(&point, &point), None);
        // A hole in the middle, a part cut down, a part whose rows differ, a row that was not there.
        assert_eq!(taken(&point, &[point[0].clone(), point[2].clone()]), None);
        assert_eq!(taken(&point, &[part("2026-08", "1-6", 1), point[1].clone(), point[2].clone()]), None);
        assert_eq!(taken(&point, &[part("2026-09", "7-12", 9), point[2].clone()]), None);
        assert_eq!(taken(&point, &[point[1].clone(), point[2].clone(), part("2026-11", "23", 4)]), None);
        // The night after: what was gone then is gone still, and nothing else.
        let night = [ChainPart { root: None, ..gone }, point[1].clone(), point[2].clone()];
        assert_eq!(taken(&night, &point[1..]).unwrap().1, 0);
        assert_eq!(taken(&night, &point[2..]).unwrap().0.numbers.to_string(), "1-12,21");
    }
}
