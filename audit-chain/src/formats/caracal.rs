//! Caracal's audit events (`audit_events`, one chain per `zone_id`, numbered by `chain_seq` from 1).
//!
//! `content_sha256` is the lowercase hex SHA-256 of twelve fields, each followed by byte 0x1F: `id, zone_id, event_type,
//! request_id, decision, policy_set_id, policy_set_version_id, manifest_sha, evaluation_status,
//! determining_policies_json, diagnostics_json, metadata_json`; then the decimal Unix nanoseconds of `occurred_at`, cut to
//! microseconds, with nothing behind. SQL NULL is empty text; a JSON column is its `jsonb::text`, SQL NULL the four bytes
//! `null`. The hash covers neither predecessor nor number. `prev_content_sha256` is the predecessor's hash (NULL for the
//! first); `chain_hmac` is hex HMAC-SHA256(key, content || `|` || prev or nothing) under `AUDIT_HMAC_KEY` (hex of at
//! least 32 bytes), or `''` where the service had no key. Nothing covers `chain_seq`, `ingested_at`, `ingest_signature`:
//! they are in the whole-row root of a checkpoint only.
//!
//! JSON that is spelt otherwise than PostgreSQL spells it, and times that lost digits on the way, are proven by finding
//! the spelling that was hashed ([`super::caracal_drift`]); that is a note. HMACs are judged in
//! [`super::caracal_hmac`]: a row that no key at hand fits is judged by what stands around it.
//!
//! Retention drops whole months of `occurred_at` ([`crate::retention`]). The marker row of `audit_chain_rehash` must be there:
//! without it Caracal, on its next start, hashes every row anew with its current key, and the evidence is gone.

use sha2::{Digest as _, Sha256};

use super::caracal_drift::{Drift, JSON_COLUMNS};
use super::caracal_hmac::{AuditKeys, judge};
use crate::canonical::{RowForm, push_int, push_value};
use crate::error::{Error, Result};
use crate::format::{
    ChainFormat, Conclusion, Fault, Link, LinkRules, OrderKey, PartRule, Record, RecordRule, Remark, Setup,
};
use crate::report::{Finding, FindingKind, Note, NoteKind};
use crate::timestamp::{Instant, month_name, month_start};
use crate::value::{Columns, Row, Value};

/// The audit events of Caracal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caracal;

/// The table that says that the chains were hashed anew once.
const REHASH_MARKER: &str = "audit_chain_rehash";
/// The table with the retention that an operator chose.
const RETENTION: &str = "audit_retention";
/// The table that says how far the hourly export is.
const WATERMARK: &str = "audit_export_watermark";

/// How many days events are kept where nothing else is said.
const DEFAULT_RETENTION_DAYS: i64 = 365;

const COLUMNS: &[&str] = &[
    "id",
    "zone_id",
    "event_type",
    "request_id",
    "decision",
    "policy_set_id",
    "policy_set_version_id",
    "manifest_sha",
    "evaluation_status",
    "determining_policies_json",
    "diagnostics_json",
    "metadata_json",
    "occurred_at",
    "ingested_at",
    "content_sha256",
    "prev_content_sha256",
    "chain_hmac",
    "chain_seq",
    "ingest_signature",
];

/// How many of [`COLUMNS`] are hashed text, in order; [`JSON_COLUMNS`] hashed JSON follow, then the time.
const TEXT_COLUMNS: usize = 9;
/// How many of [`COLUMNS`] the hash needs.
const HASHED_COLUMNS: usize = TEXT_COLUMNS + JSON_COLUMNS + 1;

/// What ends each hashed field.
pub(super) const SEPARATOR: u8 = 0x1f;

impl ChainFormat for Caracal {
    fn name(&self) -> &str {
        "caracal"
    }

    fn table(&self) -> &str {
        "audit_events"
    }

    fn columns(&self) -> &[&str] {
        COLUMNS
    }

    fn integers(&self) -> &[&str] {
        &["chain_seq"]
    }

    fn order(&self) -> &[&str] {
        &["zone_id", "chain_seq"]
    }

    fn time_column(&self) -> Option<&str> {
        Some("occurred_at")
    }

    fn companions(&self) -> &[&str] {
        &[REHASH_MARKER, RETENTION, WATERMARK]
    }

    fn links(&self) -> LinkRules {
        LinkRules { numbered: true, clock: false }
    }

    fn head_commits(&self) -> bool {
        false
    }

    fn parts(&self) -> Option<PartRule> {
        Some(PartRule { of: |micros| Instant::from_micros(micros).month(), name: month_name })
    }

    fn bind(&self, columns: &Columns, setup: &Setup<'_>) -> Result<Box<dyn RecordRule>> {
        let needed = COLUMNS.iter().take(HASHED_COLUMNS).copied().chain([
            "content_sha256",
            "prev_content_sha256",
            "chain_hmac",
            "chain_seq",
        ]);
        refuse_others(self.name(), columns, needed)?;
        let place = |name: &str| columns.position(name);
        let place_at = |at: usize| COLUMNS.get(at).and_then(|name| columns.position(name));
        Ok(Box::new(Rule {
            texts: std::array::from_fn(place_at),
            json: std::array::from_fn(|at| place_at(TEXT_COLUMNS + at)),
            occurred_at: place("occurred_at"),
            content: place("content_sha256"),
            prev: place("prev_content_sha256"),
            hmac: place("chain_hmac"),
            seq: place("chain_seq"),
            keys: AuditKeys::new(setup.keys)?,
            form: RowForm::new(columns),
            buffer: Vec::with_capacity(1_024),
            drift: Drift::default(),
            remarks: Vec::new(),
            emitted: 0,
        }))
    }

    fn conclude(&self, setup: &Setup<'_>, whole: &mut Conclusion<'_>) -> Result<()> {
        judge(AuditKeys::new(setup.keys)?.is_empty(), whole);
        let records: u64 = whole.chains.iter().map(|chain| chain.records).sum();
        let marker = setup.companions.get(REHASH_MARKER);
        if marker.is_some_and(Vec::is_empty) && records > 0 {
            whole.report(Finding {
                kind: FindingKind::StateMismatch,
                chain: String::new(),
                position: None,
                last: None,
                record: None,
                expected: Some(format!("one row in {REHASH_MARKER}")),
                found: Some("none".into()),
                explains: "the marker that the chains were hashed anew is gone: on its next start Caracal rewrites every hash, link and HMAC with its current key, after which no edit can be found".into(),
            });
        }
        excuse_missing_heads(setup, whole);
        Ok(())
    }
}

/// Refuses columns that are another format's.
pub(super) fn refuse_others<'a>(
    format: &str,
    columns: &Columns,
    needed: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let missing: Vec<&str> = needed.filter(|name| columns.position(name).is_none()).collect();
    // A source without a header has no rows.
    if missing.is_empty() || columns.names().is_empty() {
        return Ok(());
    }
    Err(Error::NotThisFormat {
        input: "the input".into(),
        format: format.to_owned(),
        what: format!("no column {}; found {}", missing.join(", "), columns.names().join(", ")),
    })
}

/// Turns missing heads into notes where the retention at hand explains them: no row of any zone is older than the first
/// month that is kept, and that month was over long enough ago when the newest event occurred.
fn excuse_missing_heads(setup: &Setup<'_>, whole: &mut Conclusion<'_>) {
    let Some(retention) = setup.companions.get(RETENTION) else { return };
    let days = retention.first().and_then(|row| row.get("retention_days")).and_then(|days| match days {
        serde_json::Value::String(digits) => digits.parse().ok(),
        other => other.as_i64(),
    });
    let days = days.unwrap_or(DEFAULT_RETENTION_DAYS).min(DEFAULT_RETENTION_DAYS);
    let times = whole.chains.iter().filter_map(|chain| chain.times);
    let Some((oldest, newest)) = times.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return };
    // The export of an hour proves that the service was alive then.
    let exported = setup.companions.get(WATERMARK).into_iter().flatten();
    let alive =
        exported.filter_map(|row| Instant::parse(row.get("updated_at")?.as_str()?)).map(Instant::micros);
    let newest = alive.fold(newest, i64::max);
    let month = Instant::from_micros(oldest).month();
    if month_start(month) > newest.saturating_sub(days.saturating_mul(86_400_000_000)) {
        return;
    }
    for finding in whole.retract(|finding| finding.kind == FindingKind::MissingHead) {
        let first = finding.position.unwrap_or(1);
        whole.note(Note {
            kind: NoteKind::RetentionGap,
            chain: finding.chain,
            position: Some(1),
            last: Some(first.saturating_sub(1)),
            explains: format!(
                "the chain begins at number {first}: events before {} are past their {days} days, and no zone has one",
                month_name(month)
            ),
        });
    }
}

/// The bound rule.
struct Rule {
    texts: [Option<usize>; TEXT_COLUMNS],
    json: [Option<usize>; JSON_COLUMNS],
    occurred_at: Option<usize>,
    content: Option<usize>,
    prev: Option<usize>,
    hmac: Option<usize>,
    seq: Option<usize>,
    keys: AuditKeys,
    form: RowForm,
    buffer: Vec<u8>,
    drift: Drift,
    remarks: Vec<Remark>,
    /// How many records were emitted since the remarks were last taken.
    emitted: u32,
}

impl Rule {
    /// Checks the row's content against its stored hash.
    fn check(
        &mut self,
        row: &Row<'_>,
        stored: Value<'_>,
        link: Link,
        time: Option<i64>,
        faults: &mut Vec<Fault>,
    ) {
        let Some(micros) = time else {
            let found = row.at(self.occurred_at);
            faults.push(malformed("occurred_at, a date and time", "occurred_at", found));
            return;
        };
        let Link::Digest(stored_digest) = link else {
            faults.push(malformed(
                "content_sha256, 64 lowercase hexadecimal digits",
                "content_sha256",
                stored,
            ));
            return;
        };
        self.buffer.clear();
        for place in self.texts {
            push_text(&mut self.buffer, row.at(place));
            self.buffer.push(SEPARATOR);
        }
        let json_from = self.buffer.len();
        for place in self.json {
            push_json(&mut self.buffer, row.at(place));
            self.buffer.push(SEPARATOR);
        }
        push_nanos(&mut self.buffer, micros);
        let digest: [u8; 32] = Sha256::digest(&self.buffer).into();
        if digest == stored_digest {
            return;
        }
        let texts = self.buffer.get(..json_from).unwrap_or(&[]);
        match self.drift.recover(stored_digest, texts, self.json.map(|place| row.at(place)), micros) {
            Some((kind, explains)) => {
                self.remarks.push(Remark { record: self.emitted, kind, explains });
            }
            None => faults.push(edited(stored, digest)),
        }
    }
}

impl RecordRule for Rule {
    fn record(&mut self, row: &Row<'_>, emit: &mut dyn FnMut(Record<'_>) -> Result<()>) -> Result<()> {
        let mut faults = Vec::new();
        let stored = row.at(self.content);
        let link = Link::of_value(stored);
        let prev = row.at(self.prev);
        let time = row.at(self.occurred_at).as_text().and_then(Instant::parse).map(Instant::micros);
        self.check(row, stored, link, time, &mut faults);
        let number = row.at(self.seq).to_int();
        if number.is_none() {
            faults.push(malformed("chain_seq, an integer", "chain_seq", row.at(self.seq)));
        }
        let seal = self.keys.check(stored, prev, row.at(self.hmac), &mut faults);
        let leaf = self.form.leaf(row);
        let [id, zone, ..] = self.texts;
        emit(Record {
            chain: row.at(zone).as_text().unwrap_or(""),
            id: row.at(id).as_text().unwrap_or(""),
            number,
            prev: Link::of_value(prev),
            link,
            leaf,
            time,
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

/// Appends a text field; NULL is empty.
pub(super) fn push_text(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Text(text) => out.extend_from_slice(text.as_bytes()),
        Value::Bytes(bytes) => out.extend_from_slice(bytes),
        Value::Null | Value::Absent => {}
        other => push_value(out, other),
    }
}

/// Appends a JSON column as it is spelt here; NULL is `null`.
pub(super) fn push_json(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Null | Value::Absent => out.extend_from_slice(b"null"),
        other => push_text(out, other),
    }
}

/// Appends the decimal Unix nanoseconds.
pub(super) fn push_nanos(out: &mut Vec<u8>, micros: i64) {
    push_int(out, micros);
    if micros != 0 {
        out.extend_from_slice(b"000");
    }
}

/// Says that the content is not what was hashed.
pub(super) fn edited(stored: Value<'_>, digest: [u8; 32]) -> Fault {
    Fault {
        kind: FindingKind::Edited,
        expected: stored.as_text().map(str::to_owned),
        found: Some(hex::encode(digest)),
        explains: "the row's content does not hash to its content_sha256".into(),
    }
}

/// Says that a column cannot be read.
pub(super) fn malformed(expected: &str, column: &str, found: Value<'_>) -> Fault {
    let found = found.as_text().map_or_else(
        || found.type_name().to_owned(),
        |text| format!("{:?}", text.chars().take(80).collect::<String>()),
    );
    Fault {
        kind: FindingKind::Malformed,
        expected: Some(expected.to_owned()),
        found: Some(found),
        explains: format!("{column} cannot be read"),
    }
}
