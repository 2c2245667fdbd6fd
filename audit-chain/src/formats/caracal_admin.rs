//! Caracal's log of administrative calls (`admin_audit_events`, one chain per `zone_id` and one for NULL, by `chain_seq`).
//!
//! `content_sha256` is the lowercase hex SHA-256 of fourteen fields, *each* followed by byte 0x1F: `id, request_id,
//! actor_id, actor_name, actor_scope, action, method, path, zone_id, entity_type, entity_id, status_code, payload,
//! occurred_at`. NULL is empty; the payload is `JSON.stringify` of the object in the order in which the service put its
//! members in; the time is `YYYY-MM-DDTHH:MM:SS.mmmZ`. Links and HMAC are those of [`super::caracal`]; without a key
//! `chain_hmac` is NULL. Caracal has no verifier for this table.
//!
//! The column is `jsonb`, which forgets the order of members. It is put back from [`MEMBER_ORDER`]; then the order found is
//! tried (an export may have kept it), then members that are not in the list at every place, then every order,
//! up to a limit. The order that hashes to the stored hash is the one that was hashed. Where none was found and not all
//! could be tried, the content is neither good nor bad (`unrecoverable-canonical-form`; verdict cannot-verify);
//! where every member is in the list, a row that does not fit was edited.

use sha2::{Digest as _, Sha256};

use super::caracal::{SEPARATOR, edited, malformed, push_text, refuse_others};
use super::caracal_hmac::{AuditKeys, judge};
use crate::canonical::{RowForm, push_string};
use crate::error::Result;
use crate::format::{
    ChainFormat, Conclusion, Fault, Link, LinkRules, OrderKey, Record, RecordRule, Remark, Setup,
};
use crate::json_tree::{Json, Style};
use crate::report::NoteKind;
use crate::timestamp::Instant;
use crate::value::{Columns, Row, Value};

/// The administrative log of Caracal.
#[derive(Debug, Clone, Copy, Default)]
pub struct CaracalAdmin;

const COLUMNS: &[&str] = &[
    "id",
    "request_id",
    "actor_id",
    "actor_name",
    "actor_scope",
    "action",
    "method",
    "path",
    "zone_id",
    "entity_type",
    "entity_id",
    "status_code",
    "payload_json",
    "occurred_at",
    "content_sha256",
    "prev_content_sha256",
    "chain_hmac",
    "chain_seq",
];

/// How many of [`COLUMNS`] are hashed before the payload.
const PLAIN_COLUMNS: usize = 12;

/// The order in which the service puts the members of a payload.
pub const MEMBER_ORDER: &[&str] = &[
    "rls_mode",
    "rls_zone_guc",
    "operator",
    "change_kind",
    "changed_fields",
    "secret_rotated",
    "dcr_registration_disabled",
    "dcr_shutdown_mode",
    "live_dcr_applications",
    "revoked_applications",
    "subject_id",
    "reason",
    "revoked_authority_records",
    "terminated_sessions",
    "revoked_delegations",
    "revoked_connections",
];

/// How many orders of one payload are tried.
const MAX_ORDERS: u64 = 50_000;
/// How many orders may be tried in vain, per thread.
const ORDER_BUDGET: u64 = 20_000_000;

const ORDER_FOUND: &str = "members of the payload stand in an order that is not documented; in the order found they are what was hashed";
const ORDER_LOST: &str = "the order of the payload's members is not documented, and too many orders are possible to try them all; links and HMAC are judged, the content is not";

impl ChainFormat for CaracalAdmin {
    fn name(&self) -> &str {
        "caracal-admin"
    }

    fn table(&self) -> &str {
        "admin_audit_events"
    }

    fn columns(&self) -> &[&str] {
        COLUMNS
    }

    fn integers(&self) -> &[&str] {
        &["status_code", "chain_seq"]
    }

    fn order(&self) -> &[&str] {
        &["zone_id", "chain_seq"]
    }

    fn time_column(&self) -> Option<&str> {
        Some("occurred_at")
    }

    fn links(&self) -> LinkRules {
        LinkRules { numbered: true, clock: false }
    }

    fn head_commits(&self) -> bool {
        false
    }

    fn bind(&self, columns: &Columns, setup: &Setup<'_>) -> Result<Box<dyn RecordRule>> {
        refuse_others(self.name(), columns, COLUMNS.iter().copied())?;
        let place = |name: &str| columns.position(name);
        Ok(Box::new(Rule {
            plain: std::array::from_fn(|at| COLUMNS.get(at).and_then(|name| columns.position(name))),
            zone: place("zone_id"),
            payload: place("payload_json"),
            occurred_at: place("occurred_at"),
            content: place("content_sha256"),
            prev: place("prev_content_sha256"),
            hmac: place("chain_hmac"),
            seq: place("chain_seq"),
            keys: AuditKeys::new(setup.keys)?,
            form: RowForm::new(columns),
            buffer: Vec::with_capacity(1_024),
            orders_left: ORDER_BUDGET,
            remarks: Vec::new(),
            emitted: 0,
        }))
    }

    fn conclude(&self, setup: &Setup<'_>, whole: &mut Conclusion<'_>) -> Result<()> {
        judge(AuditKeys::new(setup.keys)?.is_empty(), whole);
        Ok(())
    }
}

/// The bound rule.
struct Rule {
    plain: [Option<usize>; PLAIN_COLUMNS],
    zone: Option<usize>,
    payload: Option<usize>,
    occurred_at: Option<usize>,
    content: Option<usize>,
    prev: Option<usize>,
    hmac: Option<usize>,
    seq: Option<usize>,
    keys: AuditKeys,
    form: RowForm,
    buffer: Vec<u8>,
    orders_left: u64,
    remarks: Vec<Remark>,
    /// How many records were emitted since the remarks were last taken.
    emitted: u32,
}

impl Rule {
    /// Checks the row's content against its stored hash.
    fn check(&mut self, row: &Row<'_>, time: Option<Instant>, faults: &mut Vec<Fault>) {
        let stored = row.at(self.content);
        let Some(time) = time else {
            faults.push(malformed("occurred_at, a date and time", "occurred_at", row.at(self.occurred_at)));
            return;
        };
        let Link::Digest(digest) = Link::of_value(stored) else {
            faults.push(malformed(
                "content_sha256, 64 lowercase hexadecimal digits",
                "content_sha256",
                stored,
            ));
            return;
        };
        let Some(payload) = Payload::of(row.at(self.payload)) else {
            faults.push(malformed("payload_json, JSON", "payload_json", row.at(self.payload)));
            return;
        };
        self.buffer.clear();
        for place in self.plain {
            push_text(&mut self.buffer, row.at(place));
            self.buffer.push(SEPARATOR);
        }
        let mut end = vec![SEPARATOR];
        // The service has milliseconds; a column with more digits is not what it wrote.
        time.push(&mut end, b'T', if time.nanos % 1_000_000 == 0 { 3 } else { 9 });
        end.extend_from_slice(&[b'Z', SEPARATOR]);
        let row_hash = RowHash { stored: digest, before: Sha256::new_with_prefix(&self.buffer), end };
        if row_hash.of(&payload.documented()) == digest {
            return;
        }
        let remark = match payload.search(&row_hash, &mut self.orders_left) {
            Order::Found => (NoteKind::SerialisationDrift, ORDER_FOUND),
            Order::Unknown => (NoteKind::UnrecoverableCanonicalForm, ORDER_LOST),
            Order::None => {
                faults.push(edited(stored, row_hash.of(&payload.documented())));
                return;
            }
        };
        self.remarks.push(Remark { record: self.emitted, kind: remark.0, explains: remark.1 });
    }
}

impl RecordRule for Rule {
    fn record(&mut self, row: &Row<'_>, emit: &mut dyn FnMut(Record<'_>) -> Result<()>) -> Result<()> {
        let mut faults = Vec::new();
        let stored = row.at(self.content);
        let prev = row.at(self.prev);
        let time = row.at(self.occurred_at).as_text().and_then(Instant::parse);
        self.check(row, time, &mut faults);
        let number = row.at(self.seq).to_int();
        if number.is_none() {
            faults.push(malformed("chain_seq, an integer", "chain_seq", row.at(self.seq)));
        }
        let seal = self.keys.check(stored, prev, row.at(self.hmac), &mut faults);
        let leaf = self.form.leaf(row);
        let [id, ..] = self.plain;
        emit(Record {
            chain: row.at(self.zone).as_text().unwrap_or(""),
            id: row.at(id).as_text().unwrap_or(""),
            number,
            prev: Link::of_value(prev),
            link: Link::of_value(stored),
            leaf,
            time: time.map(Instant::micros),
            seal,
            faults,
            order: number.map(OrderKey::of_number),
            ..Record::default()
        })?;
        self.emitted += 1;
        Ok(())
    }

    fn key_labels(&self) -> Vec<String> {
        self.keys.labels().to_vec()
    }

    fn remarks(&mut self) -> Vec<Remark> {
        self.emitted = 0;
        std::mem::take(&mut self.remarks)
    }
}

/// What is hashed around the payload.
struct RowHash {
    stored: [u8; 32],
    before: Sha256,
    end: Vec<u8>,
}

impl RowHash {
    fn of(&self, payload: &[u8]) -> [u8; 32] {
        self.before.clone().chain_update(payload).chain_update(&self.end).finalize().into()
    }
}

/// What a search for the order of members gave.
enum Order {
    Found,
    /// Not every order could be tried.
    Unknown,
    /// No order fits.
    None,
}

/// A payload, its members written out.
enum Payload {
    /// NULL, or a value without members: there is nothing to order.
    Plain(Vec<u8>),
    /// An object.
    Object {
        /// `"name":value` in the order found; the name's place in [`MEMBER_ORDER`].
        members: Vec<(Vec<u8>, Option<usize>)>,
        /// Whether a value holds an object of its own with members in an order that is not known.
        nested: bool,
    },
}

impl Payload {
    /// Reads the column; `None` when it is no JSON.
    fn of(value: Value<'_>) -> Option<Self> {
        let text = match value {
            Value::Null | Value::Absent | Value::Text("") => return Some(Self::Plain(Vec::new())),
            Value::Text(text) | Value::Json(text) => text,
            other => {
                let mut text = Vec::new();
                push_text(&mut text, other);
                return Some(Self::Plain(text));
            }
        };
        let write = |value: &Json| {
            let mut text = Vec::new();
            value.push(&mut text, Style::STRINGIFY)?;
            Some(text)
        };
        let Json::Object(found) = Json::parse(text).ok()? else {
            let value = Json::parse(text).ok()?;
            // `JSON.stringify` of nothing is nothing.
            return Some(Self::Plain(if value == Json::Null { Vec::new() } else { write(&value)? }));
        };
        let nested = found.iter().any(|(_, value)| has_order(value));
        let members = found.iter().map(|(name, value)| {
            let mut member = Vec::new();
            push_string(&mut member, name);
            member.push(b':');
            member.extend(write(value)?);
            Some((member, MEMBER_ORDER.iter().position(|known| known == name)))
        });
        Some(Self::Object { members: members.collect::<Option<_>>()?, nested })
    }

    /// Writes the payload with its members in the documented order; others behind, as found.
    fn documented(&self) -> Vec<u8> {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Object { members, .. } => {
                let mut order: Vec<usize> = (0..members.len()).collect();
                order.sort_by_key(|at| members.get(*at).and_then(|member| member.1).unwrap_or(usize::MAX));
                join(members, &order)
            }
        }
    }

    /// Looks for the order that was hashed.
    fn search(&self, row: &RowHash, budget: &mut u64) -> Order {
        let Self::Object { members, nested } = self else { return Order::None };
        let found: Vec<usize> = (0..members.len()).collect();
        if row.of(&join(members, &found)) == row.stored {
            return Order::Found;
        }
        let rank = |at: &usize| members.get(*at).and_then(|member| member.1);
        let (mut known, unknown): (Vec<usize>, Vec<usize>) = found.iter().partition(|at| rank(at).is_some());
        known.sort_by_key(rank);
        let mut left = MAX_ORDERS.min(*budget);
        let allowed = left;
        let fits = |order: &[usize]| row.of(&join(members, order)) == row.stored;
        // Members that are not in the list, at every place between those that are; then every order of all.
        let tried = insert(&mut known, &unknown, &mut left, &fits);
        let tried = tried.or_else(|| insert(&mut Vec::new(), &found, &mut left, &fits));
        match tried {
            Some(true) => return Order::Found,
            Some(false) | None => *budget -= allowed - left,
        }
        let all_tried = tried.is_none();
        if *nested || (!unknown.is_empty() && !all_tried) { Order::Unknown } else { Order::None }
    }
}

/// Puts the members `rest` into `order` at every place. `Some(true)` when an order fits, `Some(false)` when the
/// tries ran out, `None` when every order was tried.
fn insert(
    order: &mut Vec<usize>,
    rest: &[usize],
    left: &mut u64,
    fits: &dyn Fn(&[usize]) -> bool,
) -> Option<bool> {
    let Some((first, rest)) = rest.split_first() else {
        if *left == 0 {
            return Some(false);
        }
        *left -= 1;
        return fits(order).then_some(true);
    };
    for place in 0..=order.len() {
        order.insert(place, *first);
        let tried = insert(order, rest, left, fits);
        order.remove(place);
        if tried.is_some() {
            return tried;
        }
    }
    None
}

/// Writes members as an object.
fn join(members: &[(Vec<u8>, Option<usize>)], order: &[usize]) -> Vec<u8> {
    let mut text = vec![b'{'];
    for (place, at) in order.iter().enumerate() {
        if place > 0 {
            text.push(b',');
        }
        text.extend_from_slice(members.get(*at).map_or(&[], |member| member.0.as_slice()));
    }
    text.push(b'}');
    text
}

/// Reports whether a value holds an object of two or more members.
fn has_order(value: &Json) -> bool {
    match value {
        Json::Object(members) => members.len() > 1 || members.iter().any(|(_, value)| has_order(value)),
        Json::Array(items) => items.iter().any(has_order),
        _ => false,
    }
}
