//! What a chain format is: how a record is read, what it commits to, what it links to.
//!
//! A [`ChainFormat`] is a value. [`ChainFormat::bind`] makes, per worker thread, a [`RecordRule`] with
//! the places of its columns resolved; the rule turns each row into a [`Record`]: link values, a whole-row
//! leaf and what is wrong with the row by itself. [`crate::verify`] puts the records in order and checks the links.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::Result;
use crate::keys::KeyRing;
use crate::report::{ChainReport, Finding, FindingKind, Note, NoteKind, VerifiedBy};
use crate::source::RowSource;
use crate::value::{Columns, Row, Value};
use crate::verify::VerifyOptions;

/// How [`Link::Unstated`] is spelt.
const UNSTATED: &str = "unstated";

/// A link value: what a record is known by to its successor, or what it says of its predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// No predecessor: NULL or empty text, whichever is the format's genesis.
    Genesis,
    /// Nothing is said, so nothing can be compared: an export without the column, a record that lost its HMAC.
    Unstated,
    /// A 32-byte value, stored as 64 lowercase hexadecimal digits.
    Digest([u8; 32]),
    /// Text that is no link value; the SHA-256 of that text, so that equal texts are equal.
    Other([u8; 32]),
}

impl Link {
    /// Reads a stored link value: empty is genesis, 64 lowercase hexadecimal digits are a digest.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let mut digest = [0_u8; 32];
        if text.is_empty() {
            Self::Genesis
        } else if decode_lowercase(text.as_bytes(), &mut digest) {
            Self::Digest(digest)
        } else {
            Self::Other(Sha256::digest(text.as_bytes()).into())
        }
    }

    /// Reports whether a record that says `prev` may follow one that is known by this link: they are equal, or
    /// one of them says nothing.
    #[must_use]
    pub fn admits(&self, prev: &Self) -> bool {
        self == prev || matches!(self, Self::Unstated) || matches!(prev, Self::Unstated)
    }

    /// Reads a stored link column: NULL and empty text are genesis; what is no text is no link.
    #[must_use]
    pub fn of_value(value: Value<'_>) -> Self {
        match value {
            Value::Absent | Value::Null => Self::Genesis,
            Value::Text(text) => Self::of_text(text),
            other => {
                let mut spelt = Vec::new();
                crate::canonical::push_value(&mut spelt, other);
                Self::Other(Sha256::digest(&spelt).into())
            }
        }
    }

    /// Reads a head as [`Link::text`] spells it.
    #[must_use]
    pub fn of_head(text: &str) -> Self {
        let mut digest = [0_u8; 32];
        if text == UNSTATED {
            return Self::Unstated;
        }
        match text.strip_prefix("other:") {
            Some(digits) if hex::decode_to_slice(digits, &mut digest).is_ok() => Self::Other(digest),
            _ => Self::of_text(text),
        }
    }

    /// Spells the link as the formats do: lowercase hex, empty for genesis; `unstated`;
    /// `other:` and the SHA-256 for text that is no digest.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Genesis => String::new(),
            Self::Unstated => UNSTATED.to_owned(),
            Self::Digest(digest) => hex::encode(digest),
            Self::Other(digest) => format!("other:{}", hex::encode(digest)),
        }
    }
}

/// Decodes 64 lowercase hexadecimal digits; `false` when they are not that. Once or twice a row, so by table.
fn decode_lowercase(digits: &[u8], digest: &mut [u8; 32]) -> bool {
    const BAD: u8 = 0xf0;
    const VALUES: [u8; 256] = {
        let mut values = [BAD; 256];
        let mut value = 0;
        while value < 16 {
            values[b"0123456789abcdef"[value as usize] as usize] = value;
            value += 1;
        }
        values
    };
    let (pairs, []) = digits.as_chunks::<2>() else { return false };
    if pairs.len() != digest.len() {
        return false;
    }
    let mut wrong = 0;
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        let (high, low) = (VALUES[usize::from(*high)], VALUES[usize::from(*low)]);
        wrong |= (high | low) & BAD;
        *byte = high << 4 | low;
    }
    wrong == 0
}

/// Something wrong with one row by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The kind of finding.
    pub kind: FindingKind,
    /// What the evidence commits to.
    pub expected: Option<String>,
    /// What is there.
    pub found: Option<String>,
    /// One sentence.
    pub explains: String,
}

/// How a record was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Seal {
    /// The record carries no signature or HMAC.
    #[default]
    None,
    /// It carries one that verifies under the key of this index in [`RecordRule::key_labels`].
    Verified(u16),
    /// It carries one that verifies under its own key, which nobody at hand vouches for.
    SelfVouched(u16),
    /// It carries one, but no key at hand fits or was given: neither good nor bad.
    Unchecked(u16),
    /// It carries one, and no key was given for it; the format verifies the rest without.
    Unasked,
    /// It carries one that is wrong; a fault says so.
    Bad,
}

impl Seal {
    /// Renames the key that the seal refers to.
    pub(crate) fn with_key(self, rename: impl Fn(u16) -> u16) -> Self {
        match self {
            Self::Verified(key) => Self::Verified(rename(key)),
            Self::SelfVouched(key) => Self::SelfVouched(rename(key)),
            Self::Unchecked(key) => Self::Unchecked(rename(key)),
            Self::None | Self::Unasked | Self::Bad => self,
        }
    }

    /// Takes the seal apart for [`Seal::of_parts`].
    pub(crate) const fn parts(self) -> (u8, u16) {
        match self {
            Self::None => (0, 0),
            Self::Verified(key) => (1, key),
            Self::SelfVouched(key) => (2, key),
            Self::Unchecked(key) => (3, key),
            Self::Unasked => (4, 0),
            Self::Bad => (5, 0),
        }
    }

    /// Puts a seal together again.
    pub(crate) const fn of_parts(tag: u8, key: u16) -> Self {
        match tag {
            0 => Self::None,
            1 => Self::Verified(key),
            2 => Self::SelfVouched(key),
            3 => Self::Unchecked(key),
            4 => Self::Unasked,
            _ => Self::Bad,
        }
    }
}

/// Where a record belongs in its chain: keys compare as their bytes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKey([u8; Self::LEN]);

impl OrderKey {
    /// How long a key is, in bytes.
    pub const LEN: usize = 32;

    /// Makes the key of a number.
    #[must_use]
    pub fn of_number(number: i64) -> Self {
        Self::of_parts(number, &[])
    }

    /// Makes the key of a number and, where numbers are equal, of up to 24 bytes; what is past them does not
    /// count. Records with equal keys keep the order of the input.
    #[must_use]
    pub fn of_parts(number: i64, rest: &[u8]) -> Self {
        let mut key = [0; Self::LEN];
        let (head, tail) = key.split_at_mut(8);
        head.copy_from_slice(&(number.cast_unsigned() ^ (1 << 63)).to_be_bytes());
        for (to, from) in tail.iter_mut().zip(rest) {
            *to = *from;
        }
        Self(key)
    }

    /// Reads a key as it was written.
    pub(crate) const fn of_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Returns the key's bytes.
    pub(crate) const fn bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// What a rule makes of one row. The default is an empty record without a place in any order, for the fields that a format does not have.
#[derive(Debug)]
pub struct Record<'a> {
    /// The chain that the record belongs to (tenant, zone …).
    pub chain: &'a str,
    /// The record's id, for findings.
    pub id: &'a str,
    /// The record's own number in its chain, where the format has one.
    pub number: Option<i64>,
    /// What the record says of its predecessor.
    pub prev: Link,
    /// What its successor must say of it: the *stored* value, so that one bad row is one finding.
    pub link: Link,
    /// Another value that its successor may name: what the row's content commits to where that is not what is stored.
    pub also: Option<Link>,
    /// The RFC 6962 leaf hash of the whole row in canonical form.
    pub leaf: [u8; 32],
    /// The record's own clock as a growing number, where the format has one; only its order counts.
    pub time: Option<i64>,
    /// Where it belongs in its chain, for formats with a [`ChainFormat::order`]; `None` keeps it behind the record before it.
    pub order: Option<OrderKey>,
    /// How it was authenticated.
    pub seal: Seal,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
    /// Its bytes in the chain's own digest over a span of records ([`Walked::snapshot`]); empty where there is none.
    pub snapshot: &'a [u8],
    /// What the format wants to see again in its last word ([`Conclusion::marks`]): records that say something of others.
    pub mark: Option<Box<str>>,
}

impl Default for Record<'_> {
    fn default() -> Self {
        Self {
            chain: "",
            id: "",
            number: None,
            prev: Link::Unstated,
            link: Link::Unstated,
            also: None,
            leaf: [0; 32],
            time: None,
            order: None,
            seal: Seal::None,
            faults: Vec::new(),
            snapshot: &[],
            mark: None,
        }
    }
}

/// Something worth saying of one record that is not wrong. Equal remarks of a chain become one note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remark {
    /// Which record: how many the rule emitted since [`RecordRule::remarks`] was last called, before this one.
    pub record: u32,
    /// The kind of note. [`NoteKind::UnrecoverableCanonicalForm`] says that the record's content could not be
    /// checked: where no checkpoint vouches for it, the verdict is no better than cannot-verify.
    pub kind: NoteKind,
    /// One sentence on the records it is about, without their number.
    pub explains: &'static str,
}

/// Reads rows of one bound source. One per worker thread.
pub trait RecordRule {
    /// Reads one row and hands its record to `emit`, once.
    ///
    /// # Errors
    /// Only what `emit` returns; a row that cannot be read is a record with a `malformed` fault.
    fn record(&mut self, row: &Row<'_>, emit: &mut dyn FnMut(Record<'_>) -> Result<()>) -> Result<()>;

    /// Returns the names of the keys that [`Seal`]s of this rule refer to, as known so far.
    fn key_labels(&self) -> Vec<String>;

    /// Takes the remarks on the records emitted since the last call. Called once a chunk.
    fn remarks(&mut self) -> Vec<Remark> {
        Vec::new()
    }
}

/// A format of chained records.
pub trait ChainFormat: Debug + Send + Sync {
    /// Returns the format's name (`aegisagent`).
    fn name(&self) -> &str;

    /// Returns the table that holds the chain in the system's own database.
    fn table(&self) -> &str;

    /// Returns the text that defines the format where it is not built in: a profile. A backup keeps it with the chain.
    fn definition(&self) -> Option<&str> {
        None
    }

    /// Returns the columns that the format reads.
    fn columns(&self) -> &[&str];

    /// Returns the columns that hold integers, for inputs that do not tell types apart (CSV).
    fn integers(&self) -> &[&str] {
        &[]
    }

    /// Returns the columns of the chain order; empty means the order of insertion (`rowid`, place in the file).
    ///
    /// Where there are some, the rule gives each record its [`Record::order`]: rows that come in another order (an
    /// export, newest first) are put in order before they are walked.
    fn order(&self) -> &[&str] {
        &[]
    }

    /// Returns the column of the record's own clock, by which an export chooses rows and a prune says what is old.
    fn time_column(&self) -> Option<&str> {
        None
    }

    /// Reports whether the format reads a row of one of its [`ChainFormat::companions`]; others do not leave with an export.
    fn reads_companion(&self, _table: &str, _row: &serde_json::Map<String, serde_json::Value>) -> bool {
        true
    }

    /// Returns the small tables that the format reads besides the chain (state rows, registries, checkpoints).
    fn companions(&self) -> &[&str] {
        &[]
    }

    /// Returns the table that keeps the values which records in `table` only commit to, where the format has one; its
    /// rows come as two columns behind the chain's own ([`crate::erasure`]).
    fn values_table(&self, _table: &str) -> Option<String> {
        None
    }

    /// Returns how links, numbers and genesis behave.
    fn links(&self) -> LinkRules;

    /// Reports whether records of this format can carry a signature or HMAC, so that one without is worth a note.
    fn seals(&self) -> bool {
        true
    }

    /// Returns what the digest over [`Record::snapshot`] bytes begins with (a domain prefix).
    fn snapshot_prefix(&self) -> &[u8] {
        &[]
    }

    /// Reports whether a record's link value covers its predecessor's, so that the head stands for the whole chain.
    fn head_commits(&self) -> bool {
        true
    }

    /// Returns how retention cuts a chain into parts that it takes away whole, where it does. Only for numbered records.
    fn parts(&self) -> Option<PartRule> {
        None
    }

    /// Reports whether [`ChainFormat::order`] goes by a clock that the records' HMACs cover. Then a record that verifies and names
    /// a later one as its predecessor was written so, with the clock set back: a note, no finding.
    fn order_is_sealed(&self) -> bool {
        false
    }

    /// Resolves columns and prepares keys for one worker thread.
    ///
    /// # Errors
    /// [`Error::NotThisFormat`](crate::error::Error::NotThisFormat) when columns that the hash needs are not there.
    fn bind(&self, columns: &Columns, setup: &Setup<'_>) -> Result<Box<dyn RecordRule>>;

    /// Returns what the first record of a chain must say of its predecessor ([`Link::Genesis`], or where a prune ended).
    fn start(&self, _chain: &str, _setup: &Setup<'_>) -> Start {
        Start::default()
    }

    /// Adds what only the whole shows: state rows, tallies, tree heads. Called once, after the walk.
    ///
    /// # Errors
    /// When a companion cannot be read as what it should be.
    fn conclude(&self, _setup: &Setup<'_>, _whole: &mut Conclusion<'_>) -> Result<()> {
        Ok(())
    }

    /// Verifies a whole source in the format's own way; `None` where the walk of [`crate::verify`] fits it.
    ///
    /// # Errors
    /// As [`crate::verify::verify`].
    fn verify_whole(
        &self,
        _source: &dyn RowSource,
        _keys: &KeyRing,
        _options: &VerifyOptions<'_>,
    ) -> Option<Result<ChainReport>> {
        None
    }
}

/// What a verification brings to a format besides the rows.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// The secrets and public keys at hand.
    pub keys: &'a KeyRing,
    /// The small tables at hand, as [`ChainFormat::companions`] names them; absent where the input has none.
    pub companions: &'a Companions,
}

/// Small tables held in memory, by name: each row a JSON object of the stored values.
pub type Companions = std::collections::BTreeMap<String, Vec<serde_json::Map<String, serde_json::Value>>>;

/// Tables besides the chain that are too large to hold in memory, by name.
pub type Tables<'a> = std::collections::BTreeMap<String, Box<dyn RowSource + 'a>>;

/// Where a chain begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// What the first record must say of its predecessor.
    pub link: Link,
    /// The first record's number, where the format numbers.
    pub number: i64,
    /// A link value whose place is wanted at the end: the head that a state row names ([`Walked::watched`]).
    pub watch: Option<Link>,
}

impl Default for Start {
    fn default() -> Self {
        Self { link: Link::Genesis, number: 1, watch: None }
    }
}

/// One chain at the end of the walk.
#[derive(Debug, Clone)]
pub struct Walked {
    /// The chain's id.
    pub id: String,
    /// How many records.
    pub records: u64,
    /// The last record's number (or place).
    pub last: i64,
    /// The last record's link value.
    pub head: Link,
    /// How many records carry a signature or HMAC.
    pub signed: u64,
    /// How many records each key was used for, by its label.
    pub records_by_key: Vec<(String, u64)>,
    /// Which key verified which span.
    pub verified_by: Vec<VerifiedBy>,
    /// Whether something is wrong with the last record by itself.
    pub last_faulty: bool,
    /// The place, from 1, of the first record that bears the link of [`Start::watch`].
    pub watched: Option<u64>,
    /// The SHA-256 of [`ChainFormat::snapshot_prefix`] and the [`Record::snapshot`] bytes in chain order, where there were any.
    pub snapshot: Option<[u8; 32]>,
    /// The earliest and the latest [`Record::time`].
    pub times: Option<(i64, i64)>,
    /// Up to which record (by count) the rows are those of the checkpoint; 0 without one.
    pub vouched: u64,
    /// How the records were authenticated, in order. Past [`Conclusion::runs_left_out`] runs are only counted.
    pub runs: Vec<Run>,
}

impl Default for Walked {
    fn default() -> Self {
        Self {
            id: String::new(),
            records: 0,
            last: 0,
            head: Link::Genesis,
            signed: 0,
            records_by_key: Vec::new(),
            verified_by: Vec::new(),
            last_faulty: false,
            watched: None,
            snapshot: None,
            times: None,
            vouched: 0,
            runs: Vec::new(),
        }
    }
}

/// Neighbouring records that were authenticated in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// In which way.
    pub how: RunKind,
    /// The first record's number, or its place where the format does not number.
    pub from: u64,
    /// The last record's.
    pub to: u64,
    /// How many records.
    pub records: u64,
    /// The last record's place, from 1.
    pub place: u64,
    /// The first records' ids, at most [`RUN_IDS`]; none for verified runs.
    pub ids: Vec<(u64, String)>,
    /// The keys of the first and of the last record, into [`Conclusion::records_by_key`].
    pub keys: Option<(u16, u16)>,
    /// The first and the last record's time.
    pub times: (Option<i64>, Option<i64>),
}

/// How many ids a [`Run`] keeps.
pub const RUN_IDS: usize = 16;

/// How the records of a [`Run`] were authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// They carry nothing.
    Unsigned,
    /// A key fits, at hand or named by the rows.
    Verified,
    /// No key at hand fits.
    Unchecked,
    /// No key was given.
    Unasked,
    /// What they carry is wrong.
    Bad,
}

/// What the walk found, open for a format's last word.
#[derive(Debug)]
pub struct Conclusion<'a> {
    /// The chains met.
    pub chains: Vec<Walked>,
    /// How many records each key verified, by its label.
    pub records_by_key: Vec<(String, u64)>,
    /// How many runs of another kind than [`RunKind::Verified`] were past what is kept.
    pub runs_left_out: u64,
    pub(crate) walk: &'a mut crate::walk::Walk,
}

impl Conclusion<'_> {
    /// Adds a finding.
    pub fn report(&mut self, finding: Finding) {
        self.walk.report(finding);
    }

    /// Returns the records that the rule marked, in the order of the walk, and how many were past what is kept.
    #[must_use]
    pub fn marks(&self) -> (&[Mark], u64) {
        (&self.walk.marks, self.walk.marks_left_out)
    }

    /// Adds a note.
    pub fn note(&mut self, note: Note) {
        self.walk.notes.push(note);
    }

    /// Returns the chains where a record without signature or HMAC follows one that has it, with the
    /// number of the last such record.
    #[must_use]
    pub fn unsigned_after_signed(&self) -> Vec<(String, u64)> {
        let chains = self.walk.chains.iter();
        chains.filter_map(|chain| Some((chain.id.clone(), chain.unsigned_after_signed()?))).collect()
    }

    /// Looks at the findings so far, to say one better. To take one back use [`Conclusion::retract`].
    pub fn findings(&mut self) -> &mut Vec<Finding> {
        &mut self.walk.findings
    }

    /// Reports whether an earlier checkpoint knows this chain and does not begin with the rows that are here.
    #[must_use]
    pub fn begins_otherwise_at_checkpoint(&self, chain: &str) -> bool {
        let mut chains = self.walk.chains.iter().filter(|walked| walked.id == chain);
        chains.any(|walked| {
            walked.point.as_ref().is_some_and(|point| point.records > 0) && walked.vouched() == 0
        })
    }

    /// Takes findings back; returns those taken.
    pub fn retract(&mut self, wrong: impl Fn(&Finding) -> bool) -> Vec<Finding> {
        let taken: Vec<Finding> = self.walk.findings.extract_if(.., |finding| wrong(finding)).collect();
        self.walk.findings_total -= taken.len() as u64;
        taken
    }

    /// Looks at the notes so far, to take one back or to say it better.
    pub fn notes(&mut self) -> &mut Vec<Note> {
        &mut self.walk.notes
    }
}

/// A record that the rule marked.
#[derive(Debug, Clone)]
pub struct Mark {
    /// The chain's id.
    pub chain: String,
    /// The record's number, or its place where the format does not number.
    pub number: u64,
    /// Its place among the records found, from 1.
    pub place: u64,
    /// What the rule said of it.
    pub text: Box<str>,
    /// The Merkle tree over the rows before it.
    pub before: crate::merkle::Frontier,
}

/// How retention cuts a chain into parts ([`crate::retention`]).
#[derive(Debug, Clone, Copy)]
pub struct PartRule {
    /// Returns the part that a [`Record::time`] belongs to.
    pub of: fn(i64) -> i64,
    /// Returns a part's name; names sort by age.
    pub name: fn(i64) -> String,
}

/// How the records of a format link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkRules {
    /// Whether records carry their own number, from 1 without gaps.
    pub numbered: bool,
    /// Whether a clock that steps back is worth a note.
    pub clock: bool,
}
