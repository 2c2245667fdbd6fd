//! Oldest records that left on record: what the record of a prune says, and what it explains.
//!
//! A prune of a [`native`](crate::native) chain appends a record of the kind [`kind::PRUNE`] in the very transaction
//! that deletes the rows (docs/format/native-chain.md, "Reserved bodies"). Its body, members sorted by name:
//!
//! ```text
//! archive  {"name","sha256","size_bytes"}: the file that the rows went to
//! count    how many records left            from, to  their numbers
//! prev     what the first of them said of its predecessor
//! head     the hash of the last of them     root      base64 of the RFC 6962 root over their rows
//! tip      {"hash","seq"}: where the chain stood, the record that this one follows
//! ```
//!
//! [`excuse`] is called by [`crate::verify`] after the walk: a chain that begins behind such a record's `to`, naming its `head`, is
//! not cut off; it says so in a note. The rows that left are in the archive: archive and table one behind the other are
//! the whole chain again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::format::Link;
use crate::merkle::Hash;
use crate::native::kind;
use crate::report::{Note, NoteKind};
use crate::verify::plural;
use crate::walk::Walk;

/// The file that pruned rows went to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneArchive {
    /// Its name, without folders.
    pub name: String,
    /// SHA-256 of its bytes, lowercase hex.
    pub sha256: String,
    /// Its size, in bytes.
    pub size_bytes: u64,
}

/// Where a chain stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneTip {
    /// The hash of its last record.
    pub hash: String,
    /// Its number.
    pub seq: u64,
}

/// The oldest records of one chain, which are to leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// The chain's id.
    pub chain: String,
    /// The first record's number.
    pub from: u64,
    /// The last record's number.
    pub to: u64,
    /// How many records.
    pub count: u64,
    /// What the first says of its predecessor; empty at the beginning.
    pub prev: String,
    /// The hash of the last.
    pub head: String,
    /// Base64 of the RFC 6962 root over the rows.
    pub root: String,
}

/// The body of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneBody {
    /// The file that the rows went to.
    pub archive: PruneArchive,
    /// How many records left.
    pub count: u64,
    /// The first one's number.
    pub from: u64,
    /// The hash of the last one.
    pub head: String,
    /// [`kind::PRUNE`].
    pub kind: String,
    /// What the first one said of its predecessor.
    pub prev: String,
    /// Base64 of the RFC 6962 root over their rows.
    pub root: String,
    /// The record that this one follows.
    pub tip: PruneTip,
    /// The last one's number.
    pub to: u64,
}

impl PruneBody {
    /// Says what left; `tip` is where the chain stands before the record.
    #[must_use]
    pub fn new(cut: &Cut, archive: PruneArchive, tip: PruneTip) -> Self {
        Self {
            archive,
            count: cut.count,
            from: cut.from,
            head: cut.head.clone(),
            kind: kind::PRUNE.into(),
            prev: cut.prev.clone(),
            root: cut.root.clone(),
            tip,
            to: cut.to,
        }
    }

    /// Writes the body: compact JSON, members sorted by name.
    #[must_use]
    pub fn text(&self) -> String {
        // Texts and numbers alone always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a body; `None` when it is no record of a prune.
    #[must_use]
    pub fn parse(body: &str) -> Option<Self> {
        let body: Self = serde_json::from_str(body).ok()?;
        let numbers = body.from > 0 && body.from <= body.to && body.to < body.tip.seq.saturating_add(1);
        let sound = body.kind == kind::PRUNE && numbers && body.count == body.to - body.from + 1;
        sound.then_some(body)
    }
}

/// Returns the base64 spelling of a root.
#[must_use]
pub fn root_text(root: &Hash) -> String {
    STANDARD.encode(root)
}

/// Takes chains that begin behind what a prune on record took away for whole, and notes it.
pub(crate) fn excuse(walk: &mut Walk) {
    let mut excused = Vec::new();
    for (at, found) in walk.breaks.iter().enumerate().filter(|(_, found)| found.place == 1) {
        let Link::Digest(_) = found.prev else { continue };
        let Some(number) = found.number.and_then(|number| u64::try_from(number).ok()) else { continue };
        let id = &walk.chains[found.chain].id;
        let sound = |position: u64| {
            let wrong = walk.findings.iter().any(|finding| {
                finding.chain == *id
                    && finding
                        .position
                        .is_some_and(|at| at <= position && position <= finding.last.unwrap_or(at))
            });
            !wrong
        };
        let told = walk.marks.iter().filter(|mark| mark.chain == *id).find_map(|mark| {
            let body = PruneBody::parse(&mark.text)?;
            let fits = body.to.checked_add(1) == Some(number) && Link::of_text(&body.head) == found.prev;
            (fits && mark.number > body.to && sound(mark.number)).then_some((mark.number, body))
        });
        if let Some((record, body)) = told {
            excused.push((at, found.chain, found.prev, record, body));
        }
    }
    for (at, chain, prev, record, body) in excused.into_iter().rev() {
        walk.breaks.remove(at);
        let chain = &mut walk.chains[chain];
        chain.breaks = chain.breaks.saturating_sub(1);
        chain.start = prev;
        let note = Note {
            kind: NoteKind::RetentionGap,
            chain: chain.id.clone(),
            position: Some(body.from),
            last: (body.to != body.from).then_some(body.to),
            explains: format!(
                "{} up to number {} were removed on record: record {record} names the archive {} with SHA-256 {}, their head and their Merkle root",
                plural(body.count, "record"),
                body.to,
                body.archive.name,
                body.archive.sha256
            ),
        };
        walk.notes.push(note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> PruneBody {
        let cut = Cut {
            chain: "orders".into(),
            from: 3,
            to: 9,
            count: 7,
            prev: "ab".repeat(32),
            head: "cd".repeat(32),
            root: root_text(&[7; 32]),
        };
        let archive = PruneArchive { name: "old.ndjson".into(), sha256: "ef".repeat(32), size_bytes: 12 };
        PruneBody::new(&cut, archive, PruneTip { hash: "01".repeat(32), seq: 20 })
    }

    #[test]
    fn the_body_is_sorted_json_of_its_kind_and_comes_back() {
        let text = body().text();
        assert!(text.starts_with(r#"{"archive":{"name":"old.ndjson","sha256":"efef"#), "{text}");
        assert_eq!(kind::of(&text).as_deref(), Some(kind::PRUNE));
        let sorted: std::collections::BTreeMap<String, serde_json::Value> =
            serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&sorted).unwrap(), text);
        assert_eq!(PruneBody::parse(&text).unwrap(), body());
    }

    #[test]
    fn a_body_that_does_not_add_up_explains_nothing() {
        for wrong in [
            PruneBody { count: 6, ..body() },
            PruneBody { from: 0, count: 10, ..body() },
            PruneBody { to: 2, ..body() },
            PruneBody { to: 21, count: 19, ..body() },
            PruneBody { kind: kind::RESTORE.into(), ..body() },
        ] {
            assert_eq!(PruneBody::parse(&wrong.text()), None, "{wrong:?}");
        }
        assert_eq!(PruneBody::parse("{}"), None);
    }
}
