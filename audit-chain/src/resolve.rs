//! Says what a link that does not fit means: rows missing, moved, doubled, forked or forged.
//!
//! The walk sees only that a record does not continue the one before it. Where there are such places, the
//! source is read a second time and asked: is the predecessor that the record names anywhere in the chain,
//! does anyone else claim it, is the record itself there twice? A source that can be read only once
//! gets the weaker word, `link-broken`.

use std::collections::HashMap;

use crate::format::{Link, LinkRules};
use crate::pipeline::Batch;
use crate::report::{Finding, FindingKind};
use crate::walk::{Break, Walk};

/// What the second pass saw of one link value.
#[derive(Debug, Clone, Copy, Default)]
struct Sighting {
    /// The place of the first record that has this link value, from 1.
    at: Option<u64>,
    /// How many records have it.
    bearers: u64,
    /// How many records name it as their predecessor.
    claims: u64,
}

/// The questions of the second pass and their answers.
#[derive(Debug)]
pub(crate) struct Search {
    asked: HashMap<String, HashMap<Link, Sighting>>,
    places: HashMap<String, u64>,
}

impl Search {
    /// Asks about the predecessors and the link values of all breaks.
    pub(crate) fn new(walk: &Walk) -> Self {
        let mut asked: HashMap<String, HashMap<Link, Sighting>> = HashMap::new();
        for found in &walk.breaks {
            let chain = asked.entry(walk.chains[found.chain].id.clone()).or_default();
            chain.entry(found.prev).or_default();
            chain.entry(found.link).or_default();
        }
        Self { asked, places: HashMap::new() }
    }

    /// Looks at the next batch.
    pub(crate) fn consume(&mut self, batch: &Batch) {
        for (at, id) in batch.chains.iter().enumerate() {
            let Some(asked) = self.asked.get_mut(id) else { continue };
            let place = self.places.entry(id.clone()).or_default();
            for entry in batch.entries.iter().filter(|entry| entry.chain as usize == at) {
                *place += 1;
                if let Some(seen) = asked.get_mut(&entry.link) {
                    seen.at.get_or_insert(*place);
                    seen.bearers += 1;
                }
                if let Some(seen) = asked.get_mut(&entry.prev) {
                    seen.claims += 1;
                }
            }
        }
    }

    /// Reports whether the predecessor that a record names stands behind it.
    pub(crate) fn names_a_later_one(&self, chain: &str, found: &Break) -> bool {
        self.sighting(chain, found.prev).at.is_some_and(|at| at > found.place)
    }

    fn sighting(&self, chain: &str, link: Link) -> Sighting {
        self.asked.get(chain).and_then(|asked| asked.get(&link)).copied().unwrap_or_default()
    }
}

/// Turns a break into its finding. `search` is `None` where the source could not be read again, or need not be.
pub(crate) fn explain(rules: LinkRules, chain: &str, found: &Break, search: Option<&Search>) -> Finding {
    let (kind, explains) = if rules.numbered { numbered(chain, found, search) } else { None }
        .unwrap_or_else(|| match search {
            _ if found.place == 1 => {
                (FindingKind::MissingHead, "the first record names a predecessor that is not here".to_owned())
            }
            Some(search) => searched(chain, found, search),
            None => (
                FindingKind::LinkBroken,
                "the record does not continue the one before it (the source can be read only once, so rows gone and rows moved are not told apart)".to_owned(),
            ),
        });
    let position = found.number.and_then(|number| u64::try_from(number).ok()).unwrap_or(found.place);
    // Of two records that changed places, the second is passed over by the walk.
    let last = (rules.numbered && found.bypassed && kind == FindingKind::Reordered).then_some(position + 1);
    Finding {
        kind,
        chain: chain.to_owned(),
        position: Some(position),
        last,
        record: Some(found.id.clone()),
        expected: Some(spell(found.head)),
        found: Some(spell(found.prev)),
        explains,
    }
}

/// Judges by the records' own numbers and by what the second pass saw; `None` where the numbers say nothing.
fn numbered(chain: &str, found: &Break, search: Option<&Search>) -> Option<(FindingKind, String)> {
    let (number, expected) = (found.number?, found.expected_number?);
    let linked = found.prev == found.head;
    if linked {
        // The number is wrong and the link is right: a number that no hash covers was changed.
        return Some(match (number.checked_add(1) == Some(expected), found.place) {
            (true, _) => (
                FindingKind::Duplicate,
                format!(
                    "number {number} stands here twice, but the record continues the other: its number was changed"
                ),
            ),
            (false, 1) => (
                FindingKind::UnhashedEdited,
                format!(
                    "renumbered: the record names no predecessor, so it is the first, but its number is {number}"
                ),
            ),
            (false, _) => (
                FindingKind::UnhashedEdited,
                format!(
                    "renumbered: the record continues the one before it, but its number is {number} where {expected} belongs"
                ),
            ),
        });
    }
    if found.place == 1 {
        return Some(match number.checked_sub(expected) {
            Some(0) => (FindingKind::LinkBroken, "the first record names a predecessor".to_owned()),
            Some(gone) if gone > 0 => (
                FindingKind::MissingHead,
                format!("the chain begins at number {number}: {} before it", records(gone)),
            ),
            _ => (FindingKind::Reordered, format!("number {number} stands where {expected} belongs")),
        });
    }
    if number.checked_add(1) == Some(expected) {
        return Some(if found.link == found.head {
            (FindingKind::Duplicate, format!("record number {number} stands here twice"))
        } else {
            (FindingKind::Forked, format!("two different records have the number {number}"))
        });
    }
    let named = search.map(|search| search.sighting(chain, found.prev)).unwrap_or_default();
    let own = search.map(|search| search.sighting(chain, found.link)).unwrap_or_default();
    if own.bearers > 1 && matches!(found.link, Link::Digest(_)) {
        return Some((
            FindingKind::Duplicate,
            format!("the same record stands in the chain {} times, here as number {number}", own.bearers),
        ));
    }
    if let Some(at) = named.at.filter(|_| found.prev != Link::Genesis) {
        return Some(if named.claims > 1 {
            (
                FindingKind::Forked,
                format!(
                    "{} records continue the record at place {at}; one history has one of them",
                    named.claims
                ),
            )
        } else {
            (
                FindingKind::Reordered,
                format!("the record continues the one at place {at}, but stands at place {}", found.place),
            )
        });
    }
    Some(if number == expected {
        (
            FindingKind::LinkBroken,
            "the numbering has no gap, but the record does not continue the one before it: that one was replaced, or this one"
                .to_owned(),
        )
    } else if number > expected {
        (FindingKind::Missing, format!("numbers {expected} to {} are not here", number - 1))
    } else {
        (FindingKind::Reordered, format!("number {number} stands where {expected} belongs"))
    })
}

/// Judges by what the second pass saw.
fn searched(chain: &str, found: &Break, search: &Search) -> (FindingKind, String) {
    let named = search.sighting(chain, found.prev);
    let own = search.sighting(chain, found.link);
    if own.bearers > 1 {
        return (
            FindingKind::Duplicate,
            format!("the same record stands in the chain {} times", own.bearers),
        );
    }
    match named.at {
        Some(at) if named.claims > 1 => (
            FindingKind::Forked,
            format!("{} records continue the record at place {at}; one history has one of them", named.claims),
        ),
        Some(at) => (
            FindingKind::Reordered,
            format!("the record continues the one at place {at}, but stands at place {}", found.place),
        ),
        None if found.prev == Link::Genesis => {
            (FindingKind::LinkBroken, "a second beginning: the record names no predecessor".to_owned())
        }
        None if found.bypassed => (
            FindingKind::LinkBroken,
            "the record names a predecessor that is not here, and the chain goes on without it: it does not belong"
                .to_owned(),
        ),
        None => (
            FindingKind::Missing,
            "the predecessor that the record names is not here: one or more records before it are gone, or the one before it was replaced"
                .to_owned(),
        ),
    }
}

/// Spells a link for a finding.
fn spell(link: Link) -> String {
    match link {
        Link::Genesis => "none (the beginning)".into(),
        Link::Unstated => "not stated".into(),
        other => other.text(),
    }
}

/// Says how many records.
fn records(count: i64) -> String {
    if count == 1 { "one record is gone".into() } else { format!("{count} records are gone") }
}
