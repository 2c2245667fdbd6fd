//! The walk over the chains of the vault in their order, joined with their checkpoints.
//!
//! Both come sorted by chain and place ([`super::items`]), so one chain is open at a time and memory does not grow
//! with their number. A row's place and link are judged here:
//!
//! ```text
//! CHAIN_POSITION_GAP      the place is not the one after the last row's (1 for the first)
//! CHAIN_GENESIS_INVALID   the first row's previous_hash is not null
//! CHAIN_LINK_BROKEN       previous_hash is not the last row's stored payload_hash
//! CHAIN_ENTRY_UNSIGNED    no signature, after a row that has one
//! ```
//!
//! After a row that does not fit, the walk goes on from that row's stored values.

use std::collections::BTreeMap;

use super::Whole;
use super::chains::Chain;
use super::codes::{Code, Flaw};
use super::findings::Place;
use super::items::{CHAIN_KEY, Item, Signed};
use crate::checkpoint::ChainPoint;
use crate::error::{Error, Result};
use crate::format::Link;
use crate::report::FindingKind;
use crate::spill::Sorted;

/// A sorted stream with its next item in sight.
pub(super) struct Stream {
    sorted: Sorted,
    pub(super) next: Option<(Vec<u8>, Item)>,
}

impl Stream {
    /// Starts a stream.
    pub(super) fn new(sorted: Sorted) -> Result<Self> {
        let mut stream = Self { sorted, next: None };
        stream.advance()?;
        Ok(stream)
    }

    /// Takes the next item and looks at the one after it.
    pub(super) fn advance(&mut self) -> Result<Option<(Vec<u8>, Item)>> {
        let next = match self.sorted.next()? {
            Some((key, body)) => {
                let item = Item::read(key, body).ok_or_else(|| {
                    Error::InvalidInput("a sorted item cannot be read back; this is a defect".into())
                })?;
                Some((key.get(..CHAIN_KEY).unwrap_or(&[]).to_vec(), item))
            }
            None => None,
        };
        Ok(std::mem::replace(&mut self.next, next))
    }

    /// Takes the next item if it is of the chain of this key.
    pub(super) fn of_chain(&mut self, key: &[u8]) -> Result<Option<Item>> {
        match &self.next {
            Some((next, _)) if next == key => Ok(self.advance()?.map(|(_, item)| item)),
            _ => Ok(None),
        }
    }

    /// Returns the key of the next chain.
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.next.as_ref().map(|(key, _)| key.as_slice())
    }
}

/// The caller's checkpoint, by chain.
pub(super) type Points = BTreeMap<String, ChainPoint>;

/// Walks the vault.
pub(super) fn walk(rows: Sorted, checkpoints: Sorted, points: &mut Points, whole: &mut Whole) -> Result<()> {
    let mut rows = Stream::new(rows)?;
    let mut checkpoints = Stream::new(checkpoints)?;
    while let Some((key, first)) = rows.advance()? {
        while checkpoints.key().is_some_and(|other| other < key.as_slice()) {
            let Some((_, checkpoint)) = checkpoints.advance()? else { break };
            missing(&checkpoint, None, whole);
        }
        let point = points.remove(&first.chain);
        let mut chain = Chain::new(first.chain.clone(), whole.lists_more(), point.as_ref());
        let mut also = None;
        let mut item = Some(first);
        while let Some(row) = item {
            step(&mut chain, &mut also, &row, whole);
            anchors_here(&mut checkpoints, &key, &chain, whole)?;
            item = rows.of_chain(&key)?;
        }
        while let Some(checkpoint) = checkpoints.of_chain(&key)? {
            missing(&checkpoint, Some(&chain), whole);
        }
        for finding in chain.compare() {
            whole.findings.whole(finding);
        }
        whole.end(chain);
    }
    while let Some((_, checkpoint)) = checkpoints.advance()? {
        missing(&checkpoint, None, whole);
    }
    Ok(())
}

/// Judges one row and takes it into its chain. `also` is a predecessor that is allowed besides the head.
fn step(chain: &mut Chain, also: &mut Option<Link>, row: &Item, whole: &mut Whole) {
    let expected = chain.last.map_or(1, |last| last.saturating_add(1));
    let first = chain.records == 0;
    let flaw = match &row.flaw {
        Some(flaw) if flaw.code == Code::UnsupportedFormat => Some((flaw.code.kind(), flaw.clone())),
        own => placed(chain, expected, row)
            .or_else(|| linked(chain, first, *also, row))
            .or_else(|| own.clone().map(|flaw| (flaw.code.kind(), flaw)))
            .or_else(|| unsigned(chain, row)),
    };
    let doubled =
        flaw.as_ref().is_some_and(|(kind, _)| matches!(kind, FindingKind::Duplicate | FindingKind::Forked));
    *also = doubled.then_some(chain.head);
    if let Some((kind, flaw)) = flaw {
        match flaw.code {
            Code::PositionGap | Code::GenesisInvalid | Code::LinkBroken => chain.breaks += 1,
            _ => chain.faults += 1,
        }
        let place = row.place.and_then(|place| u64::try_from(place).ok()).unwrap_or(chain.records + 1);
        whole.findings.kind(kind, flaw, Place { chain: &chain.id, position: Some(place), record: &row.id });
    }
    whole.count(row.signed);
    let last = chain.last;
    chain.add(row);
    if row.place.is_none() {
        chain.last = last;
    }
}

/// Judges a row's place.
fn placed(chain: &Chain, expected: i64, row: &Item) -> Option<(FindingKind, Flaw)> {
    let Some(place) = row.place else {
        return Some((
            FindingKind::Malformed,
            Flaw::between(
                Code::PositionGap,
                expected.to_string(),
                "no whole number",
                "chain_position is no whole number",
            ),
        ));
    };
    if place == expected {
        return None;
    }
    let (kind, explains) = if place < 1 {
        (FindingKind::Malformed, "positions begin at 1".to_owned())
    } else if chain.records == 0 {
        (
            FindingKind::MissingHead,
            format!("the chain begins at position {place}: what was before it is gone"),
        )
    } else if place > expected {
        (FindingKind::Missing, format!("positions {expected} to {} are not here", place - 1))
    } else if row.link == chain.head {
        (FindingKind::Duplicate, format!("position {place} stands here twice"))
    } else {
        (FindingKind::Forked, format!("two different entries have position {place}"))
    };
    Some((kind, Flaw::between(Code::PositionGap, expected.to_string(), place.to_string(), explains)))
}

/// Judges a row's link.
fn linked(chain: &Chain, first: bool, also: Option<Link>, row: &Item) -> Option<(FindingKind, Flaw)> {
    let spelt = |link: Link| match link {
        Link::Genesis => "null".to_owned(),
        other => other.text(),
    };
    if first {
        return (row.prev != Link::Genesis).then(|| {
            let flaw = Flaw::between(
                Code::GenesisInvalid,
                "null",
                spelt(row.prev),
                "the first entry's previous_hash is not null",
            );
            (FindingKind::LinkBroken, flaw)
        });
    }
    if row.prev == chain.head || also == Some(row.prev) {
        return None;
    }
    let flaw = Flaw::between(
        Code::LinkBroken,
        spelt(chain.head),
        spelt(row.prev),
        "previous_hash is not the payload_hash of the entry before it",
    );
    Some((FindingKind::LinkBroken, flaw))
}

/// Judges a row without a signature by the rows before it.
fn unsigned(chain: &Chain, row: &Item) -> Option<(FindingKind, Flaw)> {
    (row.signed == Signed::No && chain.signed > 0).then(|| {
        let flaw = Flaw::between(
            Code::EntryUnsigned,
            "a signature: entries before it have one",
            "none",
            "the entry is not signed, although the chain was signed before it",
        );
        (FindingKind::Unsigned, flaw)
    })
}

/// Compares the checkpoints of the row that was just taken.
fn anchors_here(checkpoints: &mut Stream, key: &[u8], chain: &Chain, whole: &mut Whole) -> Result<()> {
    let here = i64::try_from(chain.records).unwrap_or(i64::MAX);
    while let Some((next, checkpoint)) = &checkpoints.next {
        if next != key || checkpoint.place.is_none_or(|place| place > here) {
            return Ok(());
        }
        let Some(checkpoint) = checkpoints.of_chain(key)? else { return Ok(()) };
        if checkpoint.place != Some(here) {
            missing(&checkpoint, Some(chain), whole);
        } else if checkpoint.link != chain.head {
            let flaw = Flaw::between(
                Code::CheckpointHashMismatch,
                checkpoint.link.text(),
                chain.head.text(),
                format!("the entry in place {here} is not the one that the checkpoint anchors"),
            );
            whole.findings.flaw(flaw, place(&checkpoint, &chain.id));
        } else {
            judged(&checkpoint, whole);
        }
    }
    Ok(())
}

/// Says that the row of a checkpoint is not here.
fn missing(checkpoint: &Item, chain: Option<&Chain>, whole: &mut Whole) {
    if chain.is_none() && checkpoint.derived {
        whole.underived += 1;
        return judged(checkpoint, whole);
    }
    let (kind, found, explains) = match chain {
        Some(chain) => (
            FindingKind::Truncated,
            format!("{} entries", chain.records),
            "the entry that the checkpoint anchors is not here".to_owned(),
        ),
        None => (
            FindingKind::MissingChain,
            "no entry".to_owned(),
            "the chain that the checkpoint anchors is not here".to_owned(),
        ),
    };
    let position =
        checkpoint.place.map_or("no whole number".to_owned(), |place| format!("an entry in place {place}"));
    let flaw = Flaw::between(Code::CheckpointRowMissing, position, found, explains);
    whole.findings.kind(kind, flaw, place(checkpoint, &checkpoint.chain));
}

/// Reports what is wrong with a checkpoint by itself.
fn judged(checkpoint: &Item, whole: &mut Whole) {
    whole.count(checkpoint.signed);
    if let Some(flaw) = &checkpoint.flaw {
        whole.findings.flaw(flaw.clone(), place(checkpoint, &checkpoint.chain));
    }
}

fn place<'p>(checkpoint: &'p Item, chain: &'p str) -> Place<'p> {
    Place {
        chain,
        position: checkpoint.place.and_then(|place| u64::try_from(place).ok()),
        record: &checkpoint.id,
    }
}
