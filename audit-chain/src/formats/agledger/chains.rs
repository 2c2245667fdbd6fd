//! What is kept while one chain goes by in its order: size, head, whole-row Merkle root, who signed which span,
//! and where it stood at the caller's checkpoint. Used for the chains of the vault and for the read logs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::items::{Item, Signed};
use super::registry::Registry;
use crate::checkpoint::ChainPoint;
use crate::format::Link;
use crate::merkle::Frontier;
use crate::report::{ChainSummary, Finding, VerifiedBy};
use crate::verify::compare_chain;
use crate::walk::{AtPoint, Standing};

/// One chain.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) id: String,
    pub(super) records: u64,
    first: Option<i64>,
    /// The last row's own place.
    pub(super) last: Option<i64>,
    /// What the next row must name.
    pub(super) head: Link,
    frontier: Frontier,
    /// How many rows carry a signature.
    pub(super) signed: u64,
    pub(super) unsigned: u64,
    /// How many rows differ from what was signed or cannot be read.
    pub(super) faults: u64,
    /// How many places or links do not fit.
    pub(super) breaks: u64,
    /// Who signed: key, first, last place.
    spans: Vec<(u16, u64, u64)>,
    keep_spans: bool,
    point: Option<(ChainPoint, Link)>,
    at_point: Option<AtPoint>,
    point_head_at: Option<u64>,
}

impl Chain {
    /// Begins a chain. Spans are kept only where the chain will be listed.
    pub(super) fn new(id: String, keep_spans: bool, point: Option<&ChainPoint>) -> Self {
        Self {
            id,
            records: 0,
            first: None,
            last: None,
            head: Link::Genesis,
            frontier: Frontier::new(),
            signed: 0,
            unsigned: 0,
            faults: 0,
            breaks: 0,
            spans: Vec::new(),
            keep_spans,
            point: point.map(|point| (point.clone(), Link::of_head(&point.head))),
            at_point: None,
            point_head_at: None,
        }
    }

    /// Takes the next row. Whether it fits was decided before; the counts of faults and breaks are the caller's.
    pub(super) fn add(&mut self, item: &Item) {
        self.records += 1;
        if self.records == 1 {
            self.first = item.place;
        }
        self.last = item.place;
        self.head = item.link;
        self.frontier.push(item.row_leaf);
        match item.signed {
            Signed::No => self.unsigned += 1,
            Signed::Unproven => self.signed += 1,
            Signed::By(key) | Signed::Accounted(key) => {
                self.signed += 1;
                let place = item.place.and_then(|place| u64::try_from(place).ok()).unwrap_or(self.records);
                match self.spans.last_mut() {
                    Some(span) if span.0 == key && span.2 + 1 == place => span.2 = place,
                    _ if self.keep_spans => self.spans.push((key, place, place)),
                    _ => {}
                }
            }
        }
        let Some((point, head)) = &self.point else { return };
        if self.records == point.records {
            self.at_point = Some(AtPoint {
                root: self.frontier.root(),
                head: item.link,
                signed: self.signed,
                faults: self.faults,
                links: None,
            });
        }
        if self.point_head_at.is_none() && *head == item.link {
            self.point_head_at = Some(self.records);
        }
    }

    /// Says what differs from the caller's checkpoint.
    pub(super) fn compare(&self) -> Vec<Finding> {
        let standing = Standing {
            records: self.records,
            head: self.head,
            at_point: self.at_point,
            point_head_at: self.point_head_at,
            breaks: self.breaks,
            boundary: None,
        };
        self.point.as_ref().map_or_else(Vec::new, |(point, _)| compare_chain(point, &standing))
    }

    /// Makes the summary.
    pub(super) fn summary(self, registry: &Registry) -> ChainSummary {
        let number = |place: Option<i64>| place.and_then(|place| u64::try_from(place).ok()).unwrap_or(0);
        ChainSummary {
            records: self.records,
            first: number(self.first),
            last: number(self.last),
            head: self.head.text(),
            root: STANDARD.encode(self.frontier.root()),
            signed: self.signed,
            links: None,
            parts: Vec::new(),
            verified_by: self
                .spans
                .iter()
                .map(|(key, from, to)| VerifiedBy {
                    key: registry.key(*key).map_or_else(|| "?".into(), |key| key.id.clone()),
                    from: *from,
                    to: *to,
                })
                .collect(),
            id: self.id,
        }
    }
}
