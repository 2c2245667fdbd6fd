//! Erasures on record: the body that says so, and the check of what is kept outside the chain against the records (B12).
//!
//! The [`native`](crate::formats::native) rule calls this for each row whose source brings the values along, in two
//! columns behind the row's own, so that rows and values are of one instant and nothing is held in memory:
//!
//! ```text
//! attestore_values  [[pointer, salt in hex or null, value or null, erased_by or null, 1 where that record is there], …]
//! attestore_erased  [[seq, pointer], …]      the values that say this record erased them
//! ```
//!
//! A record vouches for its own values: each commitment has a value that fits it, or one erased by a record that is
//! there. A record of an erasure vouches for what it erased: exactly the values that name it. So each is judged alone.

use serde::{Deserialize, Serialize};

use crate::commitment::{SALT_BYTES, commit, commitments};
use crate::format::Fault;
use crate::native::kind;
use crate::report::FindingKind;
use crate::value::Value;

/// The column of a record's values.
pub const VALUES_COLUMN: &str = "attestore_values";

/// The column of the values that a record erased.
pub const ERASED_COLUMN: &str = "attestore_erased";

/// The longest text of a reason or a name that is repeated in a report, in characters.
const SHOWN_CHARS: usize = 200;

/// A value by its place: the record's number and a JSON pointer into its body.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ErasedField {
    /// The record's number in its chain.
    pub seq: u64,
    /// Where in its body: a JSON pointer (RFC 6901).
    pub pointer: String,
}

/// The body of a record that says what was erased, by whom and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// Who.
    pub by: String,
    /// What.
    pub fields: Vec<ErasedField>,
    /// [`kind::ERASURE`].
    pub kind: String,
    /// Why.
    pub reason: String,
}

impl Erasure {
    /// Writes the record of an erasure.
    #[must_use]
    pub fn new(by: &str, reason: &str, fields: Vec<ErasedField>) -> Self {
        Self { by: by.to_owned(), fields, kind: kind::ERASURE.to_owned(), reason: reason.to_owned() }
    }

    /// Returns the body to append, as JSON with sorted members.
    #[must_use]
    pub fn body(&self) -> String {
        // Strings and numbers always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the body of a record; `None` when it is not the record of an erasure.
    #[must_use]
    pub fn parse(body: &str) -> Option<Self> {
        serde_json::from_str(body).ok().filter(|erasure: &Self| erasure.kind == kind::ERASURE)
    }
}

/// What a report says of one erasure, in few bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) kind: String,
    by: String,
    reason: String,
    fields: u64,
    records: u64,
    /// The highest record whose value is on record as erased and does not say so itself.
    pub(crate) unclaimed: Option<u64>,
}

impl Told {
    /// Says it in one sentence.
    pub(crate) fn sentence(&self) -> String {
        let count = |count: u64, what: &str| crate::verify::plural(count, what);
        format!(
            "{} of {} erased on record by {:?}: {:?}",
            count(self.fields, "value"),
            count(self.records, "record"),
            self.by,
            self.reason
        )
    }
}

/// The values of one record, as the source brings them.
type Kept = Vec<(String, Option<String>, Option<String>, Option<u64>, u8)>;

/// Checks the values of a record. Returns how many are erased on record.
pub(crate) fn check_values(body: &str, kept: Value<'_>, faults: &mut Vec<Fault>) -> u64 {
    let committed = commitments(body);
    let kept: Kept = match kept.as_text() {
        Some("[]") if committed.is_empty() => return 0,
        Some(text) => match serde_json::from_str(text) {
            Ok(kept) => kept,
            Err(error) => {
                faults.push(fault(
                    FindingKind::Malformed,
                    None,
                    Some(error.to_string()),
                    "the values kept for the record cannot be read".into(),
                ));
                return 0;
            }
        },
        None => {
            faults.push(fault(
                FindingKind::Malformed,
                None,
                None,
                "the values kept for the record are no text".into(),
            ));
            return 0;
        }
    };
    let mut erased = 0;
    for commitment in &committed {
        let pointer = &commitment.pointer;
        match kept.iter().find(|value| value.0 == *pointer) {
            None => faults.push(fault(
                FindingKind::StateMismatch,
                Some("the value and its salt, or the record of their erasure".into()),
                Some("neither".into()),
                format!("the value at {pointer} was removed and no erasure is on record"),
            )),
            Some((_, Some(salt), Some(value), _, _)) => {
                let mut bytes = [0; SALT_BYTES];
                let found = hex::decode_to_slice(salt, &mut bytes).is_ok().then(|| commit(&bytes, value));
                if found.as_deref() != Some(&commitment.digest) {
                    faults.push(fault(
                        FindingKind::Edited,
                        Some(commitment.digest.chars().take(SHOWN_CHARS).collect()),
                        found,
                        format!("the value kept for {pointer} is not the one that the record commits to"),
                    ));
                }
            }
            Some((_, _, _, Some(_), 1)) => erased += 1,
            Some((_, _, _, by, _)) => faults.push(fault(
                FindingKind::StateMismatch,
                Some("the record of an erasure".into()),
                by.map(|by| format!("nothing at number {by}")),
                format!("the value at {pointer} is said to be erased, and no erasure is on record"),
            )),
        }
    }
    for (pointer, ..) in &kept {
        if !committed.iter().any(|commitment| commitment.pointer == *pointer) {
            let pointer: String = pointer.chars().take(SHOWN_CHARS).collect();
            faults.push(fault(
                FindingKind::StateMismatch,
                None,
                Some(format!("a value at {pointer}")),
                format!("a value is kept for {pointer}, where the record commits to none"),
            ));
        }
    }
    erased
}

/// Checks that the values which name this record as their erasure are those that it lists. Returns the highest number
/// of a record on its list whose value does not say so.
pub(crate) fn check_erased(
    listed: &[ErasedField],
    claims: Value<'_>,
    faults: &mut Vec<Fault>,
) -> Option<u64> {
    let claims: Vec<(u64, String)> = match claims.as_text() {
        Some("[]") if listed.is_empty() => return None,
        Some(text) => serde_json::from_str(text).unwrap_or_default(),
        None => Vec::new(),
    };
    let mut listed: Vec<(u64, &str)> =
        listed.iter().map(|field| (field.seq, field.pointer.as_str())).collect();
    listed.sort_unstable();
    let mut claimed: Vec<(u64, &str)> =
        claims.iter().map(|(seq, pointer)| (*seq, pointer.as_str())).collect();
    claimed.sort_unstable();
    for claim in &claimed {
        if listed.binary_search(claim).is_err() {
            let (seq, pointer) = claim;
            let pointer: String = pointer.chars().take(SHOWN_CHARS).collect();
            faults.push(fault(
                FindingKind::StateMismatch,
                Some("an erasure that lists it".into()),
                Some(format!("{pointer} of record {seq}")),
                format!("the value at {pointer} of record {seq} is said to be erased by this record, which does not say so"),
            ));
        }
    }
    listed.iter().rev().find(|field| claimed.binary_search(field).is_err()).map(|(seq, _)| *seq)
}

/// Makes the mark of the record of an erasure.
pub(crate) fn mark(erasure: &Erasure, unclaimed: Option<u64>) -> Box<str> {
    let shown = |text: &str| text.chars().take(SHOWN_CHARS).collect();
    let mut records: Vec<u64> = erasure.fields.iter().map(|field| field.seq).collect();
    records.sort_unstable();
    records.dedup();
    let told = Told {
        kind: kind::ERASURE.to_owned(),
        by: shown(&erasure.by),
        reason: shown(&erasure.reason),
        fields: erasure.fields.len() as u64,
        records: records.len() as u64,
        unclaimed,
    };
    serde_json::to_string(&told).unwrap_or_default().into()
}

fn fault(kind: FindingKind, expected: Option<String>, found: Option<String>, explains: String) -> Fault {
    Fault { kind, expected, found, explains }
}
