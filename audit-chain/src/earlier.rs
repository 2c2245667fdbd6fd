//! Compares the rows of chains with an older copy of them, row by row, and names those that differ.
//!
//! A checkpoint says that something before it changed; with the older rows at hand [`compare_rows`] says which, and proves
//! what is left unchanged where the oldest rows were removed honestly. [`crate::verify`] takes the result in
//! [`VerifyOptions::earlier`](crate::verify::VerifyOptions::earlier) and judges it together with links, prune boundaries
//! and partitions. Rows are matched by chain and record id, in memory that does not grow with the chain: both copies go
//! through [`crate::spill`], keyed
//!
//! ```text
//! chain | ff | id | ff | side (0 older, 1 today) | place (u64 BE)        matched by everything before the side
//! ```
//!
//! The older copy is trusted only as far as the checkpoint that it was verified against.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, Result};
use crate::format::{ChainFormat, Companions, Link, Setup};
use crate::keys::KeyRing;
use crate::merkle::Hash;
use crate::pipeline;
use crate::source::RowSource;
use crate::spill::Sorter;

/// How many spans of one kind are kept per chain; the rest is only counted.
pub const MAX_SPANS: usize = 1_000;

/// What a comparison is given besides the two copies.
#[derive(Debug, Clone, Default)]
pub struct EarlierOptions<'a> {
    /// How many threads read and hash; 0 means one per core.
    pub threads: usize,
    /// The small tables of the older copy.
    pub earlier_companions: Option<&'a Companions>,
    /// The small tables of today's rows.
    pub companions: Option<&'a Companions>,
    /// Where what does not fit in memory is sorted; `None` means the system's folder for temporary files.
    pub scratch: Option<&'a Path>,
    /// A flag that stops the work.
    pub cancel: Option<&'a AtomicBool>,
}

/// A record by its place and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowName {
    /// Its number where the format has one, else its place, from 1.
    pub position: u64,
    /// Its id.
    pub id: String,
    /// Its link value.
    pub link: Link,
}

/// Neighbouring records that differ in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSpan {
    /// The first.
    pub first: RowName,
    /// The last.
    pub last: RowName,
    /// How many.
    pub records: u64,
}

/// What became of one chain since the older copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainDifferences {
    /// How many records the older copy has.
    pub earlier_records: u64,
    /// How many of them are here today, byte for byte.
    pub same: u64,
    /// Records of which the link value is the same and other columns are not.
    pub unhashed: Vec<RowSpan>,
    /// Records that have another link value than they had.
    pub rehashed: Vec<RowSpan>,
    /// The oldest records of the older copy, where they are gone.
    pub gone_first: Option<RowSpan>,
    /// Records of the older copy between others that are gone.
    pub gone_between: Vec<RowSpan>,
    /// The newest records of the older copy, where they are gone.
    pub gone_last: Option<RowSpan>,
    /// Records that stand before one of the older copy and were not in it.
    pub put_in: Vec<RowSpan>,
    /// How many spans were past [`MAX_SPANS`].
    pub more: u64,
}

/// What became of all chains since the older copy, by chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowDifferences {
    /// The chains of the older copy.
    pub chains: BTreeMap<String, ChainDifferences>,
}

/// What stands in an item besides its key.
struct Body<'a> {
    place: u64,
    position: u64,
    link: Link,
    leaf: Hash,
    id: &'a str,
}

const OLDER: u8 = 0;
const TODAY: u8 = 1;

/// What became of a record; the order of the second sort.
const SAME: u8 = 0;
const UNHASHED: u8 = 1;
const REHASHED: u8 = 2;
const GONE: u8 = 3;
const NEW: u8 = 4;

/// Compares today's rows with an older copy. Both sources are read from where they stand.
///
/// # Errors
/// When one of them cannot be read or is not of the format; [`Error::Io`] when the scratch folder cannot be written;
/// [`Error::Cancelled`].
pub fn compare_rows(
    earlier: &dyn RowSource,
    today: &dyn RowSource,
    format: &dyn ChainFormat,
    keys: &KeyRing,
    options: &EarlierOptions<'_>,
) -> Result<RowDifferences> {
    let none = Companions::new();
    let mut both = Sorter::new(options.scratch);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (side, source, companions) in
        [(OLDER, earlier, options.earlier_companions), (TODAY, today, options.companions)]
    {
        let setup = Setup { keys, companions: companions.unwrap_or(&none) };
        in_chain_order(source, format, &setup, options, &mut |chain, body| {
            if side == OLDER {
                *counts.entry(chain.to_owned()).or_default() += 1;
            }
            both.push(&match_key(chain, side, body), &encode(body))
        })?;
    }
    let mut judged = Sorter::new(options.scratch);
    // Up to which place of today records of the older copy stand, by chain.
    let mut reach: BTreeMap<String, u64> = BTreeMap::new();
    join(both, &mut judged, &mut reach)?;
    let mut differences = RowDifferences::default();
    for (chain, records) in &counts {
        let chain = differences.chains.entry(chain.clone()).or_default();
        chain.earlier_records = *records;
    }
    tell(judged, &reach, &mut differences)?;
    Ok(differences)
}

/// Hands every record over with its place in its chain, whatever order the rows come in.
fn in_chain_order(
    source: &dyn RowSource,
    format: &dyn ChainFormat,
    setup: &Setup<'_>,
    options: &EarlierOptions<'_>,
    each: &mut dyn FnMut(&str, &Body<'_>) -> Result<()>,
) -> Result<()> {
    let threads = crate::verify::thread_count(options.threads);
    let mut places: BTreeMap<String, u64> = BTreeMap::new();
    let ordered = !format.order().is_empty();
    let mut sorter = Sorter::new(options.scratch);
    let mut seen = 0_u64;
    pipeline::run(source, format, setup, threads, options.cancel, &mut |batch| {
        for entry in &batch.entries {
            let chain = &batch.chains[entry.chain as usize];
            let number = entry.number.and_then(|number| u64::try_from(number).ok());
            let mut body = Body {
                place: 0,
                position: number.unwrap_or(0),
                link: entry.link,
                leaf: entry.leaf,
                id: batch.id(entry),
            };
            if ordered {
                let mut key = chain_key(chain);
                key.extend_from_slice(entry.order.as_ref().map_or(&[0; 32][..], |order| order.bytes()));
                key.extend_from_slice(&seen.to_be_bytes());
                seen += 1;
                sorter.push(&key, &encode(&body))?;
            } else {
                set_place(&mut places, chain, &mut body);
                each(chain, &body)?;
            }
        }
        Ok(())
    })?;
    let mut sorted = sorter.finish()?;
    while let Some((key, body)) = sorted.next()? {
        let chain = chain_of(key)?.to_owned();
        let mut body = decode(body)?;
        set_place(&mut places, &chain, &mut body);
        each(&chain, &body)?;
    }
    Ok(())
}

/// Counts a record of its chain.
fn set_place(places: &mut BTreeMap<String, u64>, chain: &str, body: &mut Body<'_>) {
    if !places.contains_key(chain) {
        places.insert(chain.to_owned(), 0);
    }
    if let Some(place) = places.get_mut(chain) {
        *place += 1;
        body.place = *place;
        if body.position == 0 {
            body.position = *place;
        }
    }
}

/// A record of one of the copies while records of one id are matched.
struct Held {
    place: u64,
    position: u64,
    link: Link,
    leaf: Hash,
    id: String,
}

/// Matches the records of both copies, id by id.
fn join(both: Sorter, judged: &mut Sorter, reach: &mut BTreeMap<String, u64>) -> Result<()> {
    let mut sorted = both.finish()?;
    let mut group: Vec<u8> = Vec::new();
    let mut older: std::collections::VecDeque<Held> = std::collections::VecDeque::new();
    loop {
        let Some((key, body)) = sorted.next()? else { break };
        let of = key.len().saturating_sub(9);
        let (name, side) = (key.get(..of).unwrap_or(&[]), key.get(of).copied().unwrap_or(OLDER));
        let body = decode(body)?;
        if group != name {
            let chain = chain_of(&group).unwrap_or("").to_owned();
            for gone in older.drain(..) {
                judge(judged, &chain, GONE, gone.place, &gone)?;
            }
            group = name.to_vec();
        }
        let held = Held {
            place: body.place,
            position: body.position,
            link: body.link,
            leaf: body.leaf,
            id: body.id.to_owned(),
        };
        if side == OLDER {
            older.push_back(held);
            continue;
        }
        let chain = chain_of(name)?.to_owned();
        let Some(before) = older.pop_front() else {
            judge(judged, &chain, NEW, held.place, &held)?;
            continue;
        };
        let what = match (before.leaf == held.leaf, before.link == held.link) {
            (true, _) => SAME,
            (false, true) => UNHASHED,
            (false, false) => REHASHED,
        };
        let furthest = reach.entry(chain.clone()).or_default();
        *furthest = (*furthest).max(held.place);
        judge(judged, &chain, what, before.place, &held)?;
    }
    let chain = chain_of(&group).unwrap_or("").to_owned();
    for gone in older.drain(..) {
        judge(judged, &chain, GONE, gone.place, &gone)?;
    }
    Ok(())
}

/// Keeps what became of a record, to be told in the order of the older copy's places; new ones in that of today's.
fn judge(judged: &mut Sorter, chain: &str, what: u8, place: u64, held: &Held) -> Result<()> {
    let mut key = chain_key(chain);
    key.push(u8::from(what == NEW));
    key.extend_from_slice(&place.to_be_bytes());
    let body = Body { place, position: held.position, link: held.link, leaf: held.leaf, id: &held.id };
    let mut bytes = vec![what];
    bytes.extend_from_slice(&encode(&body));
    judged.push(&key, &bytes)
}

/// Makes spans of neighbours.
fn tell(judged: Sorter, reach: &BTreeMap<String, u64>, differences: &mut RowDifferences) -> Result<()> {
    let mut sorted = judged.finish()?;
    // The chain, the kind and the place of the record before.
    let mut before: Option<(String, u8, u64)> = None;
    while let Some((key, bytes)) = sorted.next()? {
        let chain = chain_of(key)?.to_owned();
        let (what, body) = bytes.split_first().ok_or_else(broken)?;
        let body = decode(body)?;
        let name = RowName { position: body.position, id: body.id.to_owned(), link: body.link };
        let (what, place) = (*what, body.place);
        let neighbour =
            before.as_ref().is_some_and(|(of, kind, at)| *of == chain && *kind == what && *at + 1 == place);
        let reached = reach.get(&chain).copied().unwrap_or(0);
        before = Some((chain.clone(), what, place));
        let Some(told) = differences.chains.get_mut(&chain) else { continue };
        match what {
            SAME => told.same += 1,
            UNHASHED => told.more += u64::from(!extend(&mut told.unhashed, neighbour, name)),
            REHASHED => told.more += u64::from(!extend(&mut told.rehashed, neighbour, name)),
            GONE => {
                if place == 1 || (neighbour && told.gone_between.is_empty() && told.gone_first.is_some()) {
                    grow(&mut told.gone_first, name);
                } else {
                    told.more += u64::from(!extend(&mut told.gone_between, neighbour, name));
                    // The last span is the end of the chain when it reaches the last place.
                    if place == told.earlier_records {
                        told.gone_last = told.gone_between.pop();
                    }
                }
            }
            // What stands behind all of the older copy is growth.
            _ if place < reached => told.more += u64::from(!extend(&mut told.put_in, neighbour, name)),
            _ => {}
        }
    }
    // A chain of which nothing is left was not cut at its beginning.
    for told in differences.chains.values_mut() {
        if told.gone_first.as_ref().is_some_and(|gone| gone.records == told.earlier_records) {
            told.gone_last = told.gone_first.take();
        }
    }
    Ok(())
}

/// Adds a record to the last span, or begins one; `false` when there are too many.
fn extend(spans: &mut Vec<RowSpan>, neighbour: bool, name: RowName) -> bool {
    if neighbour && let Some(last) = spans.last_mut() {
        last.last = name;
        last.records += 1;
        return true;
    }
    if spans.len() >= MAX_SPANS {
        return neighbour;
    }
    spans.push(RowSpan { first: name.clone(), last: name, records: 1 });
    true
}

/// Adds a record to the one span there can be.
fn grow(span: &mut Option<RowSpan>, name: RowName) {
    match span {
        Some(span) => {
            span.last = name;
            span.records += 1;
        }
        None => *span = Some(RowSpan { first: name.clone(), last: name, records: 1 }),
    }
}

/// Begins a key with a chain's name; a byte that ends it is escaped in it.
fn chain_key(chain: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(chain.len() + 48);
    key.extend_from_slice(chain.as_bytes());
    // UTF-8 never holds this byte, so that no name is the beginning of another.
    key.push(0xff);
    key
}

/// Reads the chain's name of a key.
fn chain_of(key: &[u8]) -> Result<&str> {
    let end = key.iter().position(|byte| *byte == 0xff).ok_or_else(broken)?;
    std::str::from_utf8(key.get(..end).unwrap_or(&[])).map_err(|_| broken())
}

fn match_key(chain: &str, side: u8, body: &Body<'_>) -> Vec<u8> {
    let mut key = chain_key(chain);
    // A record without an id is known by its number.
    if body.id.is_empty() {
        key.push(0xff);
        key.extend_from_slice(&body.position.to_be_bytes());
    } else {
        key.extend_from_slice(body.id.as_bytes());
        key.push(0xff);
    }
    key.push(side);
    key.extend_from_slice(&body.place.to_be_bytes());
    key
}

fn encode(body: &Body<'_>) -> Vec<u8> {
    let (tag, value) = match body.link {
        Link::Genesis => (0, [0; 32]),
        Link::Unstated => (1, [0; 32]),
        Link::Digest(value) => (2, value),
        Link::Other(value) => (3, value),
    };
    let mut bytes = Vec::with_capacity(81 + body.id.len());
    bytes.extend_from_slice(&body.place.to_le_bytes());
    bytes.extend_from_slice(&body.position.to_le_bytes());
    bytes.push(tag);
    bytes.extend_from_slice(&value);
    bytes.extend_from_slice(&body.leaf);
    bytes.extend_from_slice(body.id.as_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Body<'_>> {
    let (place, rest) = bytes.split_first_chunk::<8>().ok_or_else(broken)?;
    let (position, rest) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
    let (tag, rest) = rest.split_first().ok_or_else(broken)?;
    let (value, rest) = rest.split_first_chunk::<32>().ok_or_else(broken)?;
    let (leaf, id) = rest.split_first_chunk::<32>().ok_or_else(broken)?;
    let link = match tag {
        0 => Link::Genesis,
        1 => Link::Unstated,
        2 => Link::Digest(*value),
        _ => Link::Other(*value),
    };
    Ok(Body {
        place: u64::from_le_bytes(*place),
        position: u64::from_le_bytes(*position),
        link,
        leaf: *leaf,
        id: std::str::from_utf8(id).map_err(|_| broken())?,
    })
}

/// Says that what was put aside does not read back.
fn broken() -> Error {
    Error::InvalidInput("the scratch file of a comparison does not read back as it was written".into())
}
