//! The read log: its leaves (`org_admin_reads`), one tree per organisation, and its signed tree heads
//! (`org_admin_reads_checkpoints`).
//!
//! ```text
//! leaf   API 2.0: leaf_hash = SHA-256(0x00 || envelope), tree of RFC 9162 §2.1
//!        API 1.x: leaf_hash = SHA-256(envelope), tree of hex texts ([`super::hex_tree`])
//!        TENANT_READ_LEAF_INDEX_GAP      leaf_index is not the next one, from 0
//!        TENANT_READ_LEAF_HASH_MISMATCH
//!        TENANT_READ_CLAIM_MISMATCH      2.0: position = leaf_index + 1, previous leaf_hash, record_id, subject
//!        TENANT_READ_LEAF_UNSIGNED, CHAIN_SIGNATURE_MISSING_KEY, TENANT_READ_KEY_UNANCHORED,
//!        TENANT_READ_SIGNATURE_INVALID   the first finding ends the organisation: its heads are not looked at
//! head   TENANT_CHECKPOINT_LEAF_COUNT_MISMATCH   tree_size is more than there are leaves
//!        TENANT_CHECKPOINT_ROOT_MISMATCH
//!        TENANT_CHECKPOINT_CLAIM_MISMATCH        2.0: position, chain_tip_hash, count, subject (the root), key id
//!        TENANT_CHECKPOINT_UNSIGNED, CHAIN_SIGNATURE_MISSING_KEY, TENANT_CHECKPOINT_KEY_UNANCHORED,
//!        TENANT_CHECKPOINT_SIGNATURE_INVALID
//!        TENANT_CHECKPOINT_FORK                  another root for a size that has one already
//! ```
//!
//! In API 1.x the tree heads vouch for the leaves: a leaf's own signature is checked where no head that fits covers it.
//! `caller_key_id`, `filter_applied`, `read_context` and the witness columns are not bound by anything; the
//! whole-row root of the read log's chain in the report is.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::chains::Chain;
use super::checkpoints::{check_kid, signed_tip};
use super::claims::{Opened, Previous};
use super::codes::{Code, Flaw};
use super::cose::{int_member, text_member};
use super::findings::Place;
use super::hex_tree::HexTree;
use super::items::{Item, Items, Places, Signed, link, uuid, whole};
use super::registry::{Registry, SealCodes, named_key};
use super::times::{millis, row_time};
use super::vault::{Points, Stream};
use super::{Era, Whole};
use crate::canonical::RowForm;
use crate::error::Result;
use crate::format::Link;
use crate::merkle::{Frontier, Hash, leaf_hash};
use crate::pipeline::Reading;
use crate::report::FindingKind;
use crate::spill::Sorted;
use crate::value::{Columns, Row, Value};

/// The name of the leaves' file and table.
pub(super) const READS: &str = "org_admin_reads";

/// The name of the tree heads' file and table.
pub(super) const HEADS: &str = "org_admin_reads_checkpoints";

/// The most findings of one organisation's tree heads that wait for its leaves to end well.
const MAX_WAITING: usize = 1_000;

const LEAF_COLUMNS: [&str; 7] =
    ["id", "org_id", "record_id", "read_at", "leaf_index", "leaf_hash", "cose_sign1"];

const LEAF_CODES: SealCodes =
    SealCodes { unanchored: Code::ReadKeyUnanchored, invalid: Code::ReadSignatureInvalid };

const HEAD_COLUMNS: [&str; 8] = [
    "id",
    "org_id",
    "tree_size",
    "root_hash",
    "checkpoint_at",
    "cose_sign1",
    "signing_key_id",
    "witness_signature",
];

const HEAD_CODES: SealCodes =
    SealCodes { unanchored: Code::HeadKeyUnanchored, invalid: Code::HeadSignatureInvalid };

/// The rule of one leaf, in a worker thread.
pub(super) struct LeafReading {
    places: Places<{ LEAF_COLUMNS.len() }>,
    registry: Arc<Registry>,
    era: Era,
    form: RowForm,
    buffer: Vec<u8>,
}

impl LeafReading {
    pub(super) fn new(columns: &Columns, registry: Arc<Registry>, era: Era) -> Self {
        Self {
            places: Places::new(columns, LEAF_COLUMNS),
            registry,
            era,
            form: RowForm::new(columns),
            buffer: Vec::new(),
        }
    }

    /// Checks a leaf by itself; fills in what the item keeps of it.
    fn check(
        &mut self,
        index: Value<'_>,
        record_id: Value<'_>,
        read_at: Value<'_>,
        stored: Value<'_>,
        cose: Value<'_>,
        item: &mut Item,
    ) -> Result<(), Flaw> {
        let hash_mismatch = |found: String| {
            let stored = stored.as_text().unwrap_or(stored.type_name());
            Flaw::between(
                Code::ReadLeafHashMismatch,
                stored,
                found,
                "the envelope does not hash to leaf_hash",
            )
        };
        let bytes = cose
            .as_text()
            .ok_or_else(|| format!("cose_sign1 is {}", cose.type_name()))
            .and_then(|text| STANDARD.decode(text).map_err(|error| error.to_string()))
            .map_err(hash_mismatch)?;
        item.tree_leaf = match self.era {
            Era::Two => leaf_hash(&bytes),
            Era::One => Sha256::digest(&bytes).into(),
        };
        let digest = hex::encode(item.tree_leaf);
        if stored.as_text() != Some(&digest) {
            let mut flaw = hash_mismatch(digest);
            let other: Hash = match self.era {
                Era::Two => Sha256::digest(&bytes).into(),
                Era::One => leaf_hash(&bytes),
            };
            if stored.as_text() == Some(&hex::encode(other)) {
                flaw.explains.push_str(match self.era {
                    Era::Two => " as API 2.0 hashes it, but as API 1.x did",
                    Era::One => " as API 1.x hashed it, but as API 2.0 does: vault_key_statements is missing",
                });
            }
            return Err(flaw);
        }
        let written = read_at.as_text().and_then(row_time).map(millis);
        let opened = Opened::decode(&bytes).map_err(|why| {
            let code =
                if self.era == Era::Two { Code::ReadClaimMismatch } else { Code::ReadSignatureInvalid };
            Flaw::new(code, format!("the leaf's envelope cannot be read: {why}"))
        })?;
        item.signed_prev = match opened.claims.previous {
            Previous::Genesis => Link::Genesis,
            Previous::Hash(hash) => {
                hash.try_into().map_or_else(|_| Link::Other(Sha256::digest(hash).into()), Link::Digest)
            }
            Previous::None => link(Value::Absent),
        };
        if self.era == Era::Two {
            check_leaf_claim(whole(index), record_id, &opened)?;
        }
        let Some(kid) = opened.claims.kid else {
            return Err(Flaw::new(Code::ReadSignatureInvalid, "the leaf's envelope names no key"));
        };
        if kid == [0; 8] {
            if self.registry.must_be_signed(written) {
                return Err(Flaw::between(
                    Code::ReadLeafUnsigned,
                    "a signature",
                    "none",
                    "the leaf is not signed, although the first key was active when it was written",
                ));
            }
            item.signed = Signed::No;
            return Ok(());
        }
        let at = self.registry.check(&opened, kid, written, &LEAF_CODES, &mut self.buffer)?;
        item.signed = Signed::By(at);
        Ok(())
    }
}

/// Compares what a leaf signs with its columns; the previous leaf is compared when the log is in order.
fn check_leaf_claim(index: Option<i64>, record_id: Value<'_>, opened: &Opened<'_>) -> Result<(), Flaw> {
    let position = index.and_then(|index| index.checked_add(1)).map(i128::from);
    let spelt = |position: Option<i128>| position.map_or("none".to_owned(), |position| position.to_string());
    let mismatch = |expected: String, found: String, what: &str| {
        Err(Flaw::between(
            Code::ReadClaimMismatch,
            expected,
            found,
            format!("the signed {what} is not the leaf's"),
        ))
    };
    if position.is_none() || opened.claims.position != position {
        return mismatch(spelt(opened.claims.position), spelt(position), "position");
    }
    let record = opened.statement.predicate.and_then(|predicate| text_member(predicate, "record_id"));
    if record != record_id.as_text() {
        return mismatch(
            record.unwrap_or("none").to_owned(),
            record_id.as_text().unwrap_or(record_id.type_name()).to_owned(),
            "record_id",
        );
    }
    let subject: Option<Hash> = record.and_then(uuid).map(|record| Sha256::digest(record).into());
    if record.is_some()
        && (subject.is_none() || opened.statement.subject != subject.as_ref().map(Hash::as_slice))
    {
        return mismatch(
            opened.statement.subject.map_or("none".to_owned(), hex::encode),
            subject.map_or("no uuid in record_id".to_owned(), hex::encode),
            "subject",
        );
    }
    Ok(())
}

impl Reading for LeafReading {
    type Batch = Items;

    fn begin(&mut self) -> Items {
        Items::default()
    }

    fn row(&mut self, row: &Row<'_>, batch: &mut Items) -> Result<()> {
        let [id, org, record_id, read_at, index, stored, cose] = self.places.of(row);
        let org = org.as_text().unwrap_or("");
        let mut item = Item {
            chain: if uuid(org).is_some() { String::new() } else { org.to_owned() },
            id: id.as_text().unwrap_or("").to_owned(),
            place: whole(index),
            prev: Link::Genesis,
            link: link(stored),
            signed_prev: Link::Genesis,
            row_leaf: self.form.leaf(row),
            tree_leaf: [0; 32],
            signed: Signed::Unproven,
            derived: false,
            flaw: None,
        };
        item.flaw = self.check(index, record_id, read_at, stored, cose, &mut item).err();
        batch.push(org, item.place.unwrap_or(i64::MAX), &item);
        Ok(())
    }
}

/// The rule of one tree head, in a worker thread.
pub(super) struct HeadReading {
    places: Places<{ HEAD_COLUMNS.len() }>,
    registry: Arc<Registry>,
    era: Era,
    buffer: Vec<u8>,
}

/// The values of a tree head that are checked.
struct Head<'r> {
    size: Option<i64>,
    root: Value<'r>,
    key_id: Value<'r>,
    /// Milliseconds since 1970.
    written: Option<i64>,
}

impl HeadReading {
    pub(super) fn new(columns: &Columns, registry: Arc<Registry>, era: Era) -> Self {
        Self { places: Places::new(columns, HEAD_COLUMNS), registry, era, buffer: Vec::new() }
    }

    /// Checks the envelope; `Ok` says who signed.
    fn check(&mut self, head: &Head<'_>, cose: Value<'_>) -> Result<Signed, Flaw> {
        let unreadable = |why: String| {
            let code =
                if self.era == Era::Two { Code::HeadClaimMismatch } else { Code::HeadSignatureInvalid };
            Flaw::new(code, format!("the tree head's envelope cannot be read: {why}"))
        };
        if self.era == Era::One && head.key_id.is_null() {
            return Ok(Signed::No);
        }
        let bytes = cose
            .as_text()
            .ok_or_else(|| format!("it is {}", cose.type_name()))
            .and_then(|text| STANDARD.decode(text).map_err(|error| error.to_string()))
            .map_err(unreadable)?;
        let opened = Opened::decode(&bytes).map_err(unreadable)?;
        if self.era == Era::One {
            return self.check_one(head, &opened);
        }
        check_head_claim(head, &opened)?;
        let Some(kid) = opened.claims.signer() else {
            if self.registry.must_be_signed(head.written) {
                return Err(Flaw::between(
                    Code::HeadUnsigned,
                    "a signature",
                    "none",
                    "the tree head is not signed, although the first key was active when it was written",
                ));
            }
            return Ok(Signed::No);
        };
        self.registry.check(&opened, kid, head.written, &HEAD_CODES, &mut self.buffer).map(Signed::By)
    }

    fn check_one(&mut self, head: &Head<'_>, opened: &Opened<'_>) -> Result<Signed, Flaw> {
        if opened.envelope.is_zero_signature() {
            return Ok(Signed::No);
        }
        let kid = named_key(head.key_id)?;
        let at = self.registry.check(opened, kid, head.written, &HEAD_CODES, &mut self.buffer)?;
        check_tip(head, opened)?;
        Ok(Signed::By(at))
    }
}

fn head_mismatch(expected: String, found: String, what: &str) -> Flaw {
    Flaw::between(
        Code::HeadClaimMismatch,
        expected,
        found,
        format!("the signed {what} is not the tree head's"),
    )
}

/// Compares the signed size and root with the columns.
fn check_tip(head: &Head<'_>, opened: &Opened<'_>) -> Result<(), Flaw> {
    signed_tip(head.size.map(i128::from), head.root, opened)
        .map_err(|(expected, found, what)| head_mismatch(expected, found, what))
}

/// Compares all that a tree head signs with its columns.
fn check_head_claim(head: &Head<'_>, opened: &Opened<'_>) -> Result<(), Flaw> {
    check_tip(head, opened)?;
    let size = head.size.map(i128::from);
    let count = opened.statement.predicate.and_then(|predicate| int_member(predicate, "count"));
    if count != size {
        let spelt = |size: Option<i128>| size.map_or("none".to_owned(), |size| size.to_string());
        return Err(head_mismatch(spelt(count), spelt(size), "count"));
    }
    let subject = opened.statement.subject.map(hex::encode);
    if subject.as_deref() != head.root.as_text() {
        let found = head.root.as_text().unwrap_or(head.root.type_name()).to_owned();
        return Err(head_mismatch(subject.unwrap_or_else(|| "none".into()), found, "subject"));
    }
    check_kid(head.key_id, opened).map_err(|(expected, found)| head_mismatch(expected, found, "key id"))
}

impl Reading for HeadReading {
    type Batch = Items;

    fn begin(&mut self) -> Items {
        Items::default()
    }

    fn row(&mut self, row: &Row<'_>, batch: &mut Items) -> Result<()> {
        let [id, org, size, root, written, cose, key_id, witness] = self.places.of(row);
        let head = Head {
            size: whole(size),
            root,
            key_id,
            written: written.as_text().and_then(row_time).map(millis),
        };
        let checked = self.check(&head, cose);
        let org = org.as_text().unwrap_or("");
        let item = Item {
            chain: if uuid(org).is_some() { String::new() } else { org.to_owned() },
            id: id.as_text().unwrap_or("").to_owned(),
            place: head.size,
            prev: Link::Genesis,
            link: link(root),
            signed_prev: Link::Genesis,
            row_leaf: [0; 32],
            tree_leaf: [0; 32],
            signed: *checked.as_ref().unwrap_or(&Signed::Unproven),
            derived: !witness.is_null(),
            flaw: checked.err(),
        };
        batch.push(org, head.size.unwrap_or(i64::MAX), &item);
        Ok(())
    }
}

/// The tree of either era.
enum Tree {
    Rfc9162(Frontier),
    Hex(HexTree),
}

impl Tree {
    fn push(&mut self, leaf: Hash) {
        match self {
            Self::Rfc9162(tree) => tree.push(leaf),
            Self::Hex(tree) => tree.push(leaf),
        }
    }

    fn root(&self) -> Hash {
        match self {
            Self::Rfc9162(tree) => tree.root(),
            Self::Hex(tree) => tree.root(),
        }
    }
}

/// One organisation's read log while it goes by, in the order of its leaves.
struct Log {
    chain: Chain,
    tree: Tree,
    leaves: i64,
    /// Whether a leaf was found wrong: nothing more is said of the log but forks.
    stopped: bool,
    /// Findings of heads, until the leaves have ended well.
    waiting: Vec<(FindingKind, Flaw, Option<i64>, String)>,
    waiting_more: u64,
    /// The first leaf since the last head that fits whose own signature does not hold (API 1.x).
    unvouched: Option<(Flaw, i64, String)>,
    /// The size and root of the last head.
    last_head: Option<(Option<i64>, Link)>,
}

/// Walks the read logs.
pub(super) fn walk(
    leaves: Sorted,
    heads: Sorted,
    era: Era,
    points: &mut Points,
    whole: &mut Whole,
) -> Result<()> {
    let mut leaves = Stream::new(leaves)?;
    let mut heads = Stream::new(heads)?;
    loop {
        let key = match (leaves.key(), heads.key()) {
            (None, None) => return Ok(()),
            (Some(key), None) | (None, Some(key)) => key.to_vec(),
            (Some(leaf), Some(head)) => leaf.min(head).to_vec(),
        };
        let org = [&leaves, &heads]
            .iter()
            .find_map(|stream| stream.next.as_ref().filter(|(next, _)| *next == key))
            .map_or_else(String::new, |(_, item)| item.chain.clone());
        let id = format!("{READS}:{org}");
        let point = points.remove(&id);
        let mut log = Log {
            chain: Chain::new(id, whole.lists_more(), point.as_ref()),
            tree: match era {
                Era::Two => Tree::Rfc9162(Frontier::new()),
                Era::One => Tree::Hex(HexTree::new()),
            },
            leaves: 0,
            stopped: false,
            waiting: Vec::new(),
            waiting_more: 0,
            unvouched: None,
            last_head: None,
        };
        log.heads_here(&mut heads, &key, whole)?;
        while let Some(leaf) = leaves.of_chain(&key)? {
            log.leaf(&leaf, era, whole);
            log.heads_here(&mut heads, &key, whole)?;
        }
        while let Some(head) = heads.of_chain(&key)? {
            log.head(&head, whole);
        }
        log.end(whole);
    }
}

impl Log {
    fn place<'p>(&'p self, index: Option<i64>, record: &'p str) -> Place<'p> {
        let position = index.and_then(|index| u64::try_from(index.checked_add(1)?).ok());
        Place { chain: &self.chain.id, position, record }
    }

    /// Takes the next leaf.
    fn leaf(&mut self, leaf: &Item, era: Era, whole: &mut Whole) {
        let flaw = if self.stopped { None } else { self.judge(leaf, era) };
        if let Some((kind, flaw)) = flaw {
            self.stopped = true;
            match flaw.code {
                Code::ReadIndexGap => self.chain.breaks += 1,
                _ => self.chain.faults += 1,
            }
            whole.findings.kind(kind, flaw, self.place(leaf.place, &leaf.id));
        }
        // An invalid signature that a head vouches for is not the leaf's to prove (API 1.x).
        if !self.stopped
            && self.unvouched.is_none()
            && let Some(flaw) = &leaf.flaw
        {
            self.unvouched = Some((flaw.clone(), leaf.place.unwrap_or(self.leaves), leaf.id.clone()));
        }
        whole.count(leaf.signed);
        let at = Item { place: leaf.place.and_then(|index| index.checked_add(1)), ..leaf.clone() };
        self.chain.add(&at);
        self.tree.push(leaf.tree_leaf);
        self.leaves = self.leaves.saturating_add(1);
    }

    /// Judges a leaf by the one before it and by itself.
    fn judge(&self, leaf: &Item, era: Era) -> Option<(FindingKind, Flaw)> {
        if leaf.place != Some(self.leaves) {
            let (kind, explains) = match leaf.place {
                None => (FindingKind::Malformed, "leaf_index is no whole number".to_owned()),
                Some(index) if index < 0 => (FindingKind::Malformed, "leaf indices begin at 0".to_owned()),
                Some(index) if index > self.leaves && self.leaves == 0 => (
                    FindingKind::MissingHead,
                    format!("the log begins at index {index}: what was before it is gone"),
                ),
                Some(index) if index > self.leaves => {
                    (FindingKind::Missing, format!("leaves {} to {} are not here", self.leaves, index - 1))
                }
                Some(index) if leaf.link == self.chain.head => {
                    (FindingKind::Duplicate, format!("leaf {index} stands here twice"))
                }
                Some(index) => (FindingKind::Forked, format!("two different leaves have index {index}")),
            };
            let found = leaf.place.map_or("no whole number".to_owned(), |index| index.to_string());
            return Some((kind, Flaw::between(Code::ReadIndexGap, self.leaves.to_string(), found, explains)));
        }
        let own = leaf.flaw.clone().map(|flaw| (flaw.code.kind(), flaw));
        if own.as_ref().is_some_and(|(_, flaw)| flaw.code == Code::ReadLeafHashMismatch) {
            return own;
        }
        if era == Era::One {
            return None;
        }
        if leaf.signed_prev != self.chain.head {
            let spelt = |link: Link| match link {
                Link::Genesis => "null".to_owned(),
                other => other.text(),
            };
            let flaw = Flaw::between(
                Code::ReadClaimMismatch,
                spelt(leaf.signed_prev),
                spelt(self.chain.head),
                "the signed previous hash is not the leaf_hash of the leaf before it",
            );
            return Some((FindingKind::LinkBroken, flaw));
        }
        if own.is_none() && leaf.signed == Signed::No && self.chain.signed > 0 {
            let flaw = Flaw::between(
                Code::ReadLeafUnsigned,
                "a signature: leaves before it have one",
                "none",
                "the leaf is not signed, although the log was signed before it",
            );
            return Some((FindingKind::Unsigned, flaw));
        }
        own
    }

    /// Takes the heads of the size that the log now has.
    fn heads_here(&mut self, heads: &mut Stream, key: &[u8], whole: &mut Whole) -> Result<()> {
        while let Some((next, head)) = &heads.next {
            if next != key || head.place.is_none_or(|size| size > self.leaves) {
                return Ok(());
            }
            let Some(head) = heads.of_chain(key)? else { return Ok(()) };
            self.head(&head, whole);
        }
        Ok(())
    }

    /// Judges one head.
    fn head(&mut self, head: &Item, whole: &mut Whole) {
        whole.witnessed += u64::from(head.derived);
        let fork = match &self.last_head {
            Some((size, root)) if *size == head.place => *root != head.link,
            _ => {
                self.last_head = Some((head.place, head.link));
                false
            }
        };
        if fork {
            let first = self.last_head.as_ref().map_or_else(String::new, |(_, root)| root.text());
            let flaw = Flaw::between(
                Code::HeadFork,
                first,
                head.link.text(),
                "another tree head of the same size has another root",
            );
            // A fork is evidence whatever the leaves are.
            whole.findings.kind(FindingKind::Forked, flaw, self.head_place(head.place, &head.id));
        }
        let root = self.tree.root();
        let flaw = if head.place != Some(self.leaves) {
            let size = head.place.map_or("no whole number".to_owned(), |size| format!("{size} leaves"));
            Some(Flaw::between(
                Code::HeadLeafCountMismatch,
                size,
                format!("{} leaves", self.leaves),
                "the log has fewer leaves than the tree head signs",
            ))
        } else if head.link != Link::Digest(root) {
            Some(Flaw::between(
                Code::HeadRootMismatch,
                head.link.text(),
                hex::encode(root),
                "the root over the leaves is not the tree head's",
            ))
        } else {
            // The log's own record of the leaves so far; where the head does not hold, that is its own finding.
            if head.signed != Signed::No {
                self.unvouched = None;
            }
            head.flaw.clone()
        };
        match flaw {
            Some(flaw) if self.waiting.len() < MAX_WAITING => {
                self.waiting.push((flaw.code.kind(), flaw, head.place, head.id.clone()));
            }
            Some(_) => self.waiting_more += 1,
            None => whole.count(head.signed),
        }
    }

    fn head_place<'p>(&'p self, size: Option<i64>, record: &'p str) -> Place<'p> {
        Place { chain: &self.chain.id, position: size.and_then(|size| u64::try_from(size).ok()), record }
    }

    /// Ends the log.
    fn end(mut self, whole: &mut Whole) {
        if !self.stopped {
            for (kind, flaw, size, id) in &self.waiting {
                whole.findings.kind(*kind, flaw.clone(), self.head_place(*size, id));
            }
            whole.findings.total += self.waiting_more;
            if let Some((flaw, index, id)) = self.unvouched.take() {
                self.chain.faults += 1;
                whole.findings.flaw(flaw, self.place(Some(index), &id));
            }
        }
        for finding in self.chain.compare() {
            whole.findings.whole(finding);
        }
        if self.leaves > 0 {
            whole.end(self.chain);
        }
    }
}
