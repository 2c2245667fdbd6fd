//! Reads one row of `audit_log` and says whether it is what was signed.
//!
//! The form that a row was signed in follows from the columns that the input has and the row's markers:
//!
//! | row | HMAC input |
//! |---|---|
//! | era A: no `api_key_id` column | one of `version` 3, 2, 1, which nothing in the row names: all are tried |
//! | era B: no `hmac_version` column, or neither `hmac_version` 2 nor a generation | `version` 1 of the 16 members |
//! | era C: marked active | `z4j/audit-chain/row/v2` 0x00 and `version` 2 of the 18 members, key chosen by `hmac_key_id` |
//! | frozen: `legacy_frozen` | era B's form, under the master secret whose id `hmac_key_id` is; besides, its snapshot form |
//!
//! Nothing in this file knows of other rows; [`super::last`] has the last word on state, tallies and secrets.

use crate::canonical::RowForm;
use crate::error::Result;
use crate::format::{Fault, Link, OrderKey, Record, RecordRule, Remark, Seal};
use crate::report::{FindingKind, NoteKind};
use crate::value::{Row, Value};

use super::fields::{Address, inet_spellings, uuid_text};
use super::forms::{ERA_A, ERA_B, ERA_C, FROZEN, Form, ROW_DOMAIN};
use super::keys::Secrets;
use super::metadata::{Metadata, Reading};
use super::values::Fields;
use super::{Era, FROZEN_CHAIN, LEGACY_CHAIN, NO_SECRET, NO_SECRET_FITS, Places};

/// How many other spellings of one row are tried.
const MAX_SPELLINGS: usize = 1_024;

/// How many names of unknown keys are kept apart.
const MAX_LABELS: usize = 1_000;

/// Where a frozen row of the main log came from; rows put aside as forks have another origin.
const MAIN_ORIGIN: &str = "audit-log:preparation-v1";

const ORIGINS: [&str; 3] =
    [MAIN_ORIGIN, "fork-quarantine:audit-log-v1-15", "fork-quarantine:audit-log-v1-api-key-16"];

/// The bound rule.
pub(super) struct Rule {
    era: Era,
    places: Places,
    secrets: Secrets,
    labels: Vec<String>,
    row_form: RowForm,
    metadata: Metadata,
    /// The form that is hashed.
    json: Vec<u8>,
    /// The frozen row's bytes in the snapshot.
    snapshot: Vec<u8>,
    /// The form and the secret that fitted last.
    last: (usize, usize),
    remarks: Vec<Remark>,
    emitted: u32,
}

/// What kind of row it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Legacy,
    Active,
    Frozen,
}

/// What was found out about a row's HMAC.
struct Judged {
    seal: Seal,
    faults: Vec<Fault>,
    also: Option<Link>,
    remark: Option<(NoteKind, &'static str)>,
    /// The era A form that fitted has no link.
    unlinked: bool,
}

impl Judged {
    fn new(seal: Seal) -> Self {
        Self { seal, faults: Vec::new(), also: None, remark: None, unlinked: false }
    }

    fn fault(kind: FindingKind, explains: impl Into<String>) -> Self {
        let fault = Fault { kind, expected: None, found: None, explains: explains.into() };
        Self { faults: vec![fault], ..Self::new(Seal::Bad) }
    }

    fn edited(stored: &str, computed: [u8; 32], explains: &str) -> Self {
        let fault = Fault {
            kind: FindingKind::Edited,
            expected: Some(stored.to_owned()),
            found: Some(hex::encode(computed)),
            explains: explains.to_owned(),
        };
        Self { faults: vec![fault], also: Some(Link::Digest(computed)), ..Self::new(Seal::Bad) }
    }
}

impl RecordRule for Rule {
    fn record(&mut self, row: &Row<'_>, emit: &mut dyn FnMut(Record<'_>) -> Result<()>) -> Result<()> {
        let mut problems = Vec::new();
        let fields = Fields::read(&self.places, row, &mut problems);
        let kind = self.kind(&fields);
        self.snapshot.clear();
        let metadata_problem = self.read_metadata(row, kind, Reading::default(), &mut problems);
        let mut judged = if !problems.is_empty() {
            Judged::fault(FindingKind::Malformed, problems.join("; "))
        } else if metadata_problem {
            Judged::fault(
                FindingKind::Edited,
                "metadata holds a number that is not finite, which z4j 1.8 and later never sign",
            )
        } else {
            match kind {
                Kind::Legacy => self.judge_legacy(&fields, row),
                Kind::Active => self.judge_active(&fields),
                Kind::Frozen => self.judge_frozen(&fields),
            }
        };
        if let Some((kind, explains)) = judged.remark.take() {
            self.remarks.push(Remark { record: self.emitted, kind, explains });
        }
        self.emitted += 1;
        let id = fields.id.map(|id| uuid_text(&id));
        let generation = fields.generation.map(|generation| uuid_text(&generation));
        let (prev, link) = links(&fields, kind, judged.unlinked);
        let micros = fields.occurred_at.map(|stamp| stamp.micros);
        emit(Record {
            chain: match (kind, &generation) {
                (Kind::Legacy, _) => LEGACY_CHAIN,
                (Kind::Frozen, _) => FROZEN_CHAIN,
                (Kind::Active, Some(generation)) => std::str::from_utf8(generation).unwrap_or(""),
                (Kind::Active, None) => "no generation",
            },
            id: match &id {
                Some(id) => std::str::from_utf8(id).unwrap_or(""),
                None => row.at(self.places.id).as_text().unwrap_or(""),
            },
            prev,
            link,
            also: judged.also,
            leaf: self.row_form.leaf(row),
            time: micros,
            order: micros.map(|micros| OrderKey::of_parts(micros, &fields.id.unwrap_or_default())),
            seal: judged.seal,
            faults: judged.faults,
            snapshot: &self.snapshot,
            mark: None,
            number: None,
        })
    }

    fn key_labels(&self) -> Vec<String> {
        self.labels.clone()
    }

    fn remarks(&mut self) -> Vec<Remark> {
        self.emitted = 0;
        std::mem::take(&mut self.remarks)
    }
}

/// Returns what the row says of its predecessor and what its successor must say of it.
fn links(fields: &Fields<'_>, kind: Kind, unlinked: bool) -> (Link, Link) {
    let stored = |value: Option<&str>| value.map_or(Link::Genesis, Link::of_text);
    let link = fields.row_hmac.map_or(Link::Unstated, Link::of_text);
    match kind {
        Kind::Frozen => (
            // Only of these does z4j's own upgrade say that they continued the row before them.
            if fields.integrity_class == Some("legacy-linked-verified") {
                stored(fields.prev_row_hmac)
            } else {
                Link::Unstated
            },
            if fields.origin == Some(MAIN_ORIGIN) { link } else { Link::Unstated },
        ),
        _ if unlinked && fields.prev_row_hmac.is_none() => (Link::Unstated, Link::Unstated),
        // A row that lost its HMAC may have lost its link too; its own finding says so.
        _ if fields.row_hmac.is_none() && fields.prev_row_hmac.is_none() => (Link::Unstated, Link::Unstated),
        _ => (stored(fields.prev_row_hmac), link),
    }
}

impl Rule {
    pub(super) fn new(era: Era, places: Places, secrets: Secrets, row_form: RowForm) -> Self {
        // Labels of secrets stand first, at their places: those by id, then the masters, then what is not at hand.
        let labels = secrets.by_id.iter().chain(&secrets.master).map(|secret| secret.label.clone()).collect();
        Self {
            era,
            places,
            secrets,
            labels,
            row_form,
            metadata: Metadata::default(),
            json: Vec::with_capacity(1_024),
            snapshot: Vec::new(),
            last: (0, 0),
            remarks: Vec::new(),
            emitted: 0,
        }
    }

    const fn kind(&self, fields: &Fields<'_>) -> Kind {
        match self.era {
            Era::C if fields.frozen => Kind::Frozen,
            // z4j 1.8 and later without an audit key (development only) go on writing era B's rows.
            Era::C if fields.generation.is_none() && matches!(fields.hmac_version, None | Some(1)) => {
                Kind::Legacy
            }
            Era::C => Kind::Active,
            Era::A | Era::B => Kind::Legacy,
        }
    }

    /// Reads the metadata column; returns whether it holds a number that era C refuses.
    fn read_metadata(
        &mut self,
        row: &Row<'_>,
        kind: Kind,
        reading: Reading,
        problems: &mut Vec<String>,
    ) -> bool {
        let text = match row.at(self.places.metadata) {
            Value::Text(text) | Value::Json(text) => text,
            value => {
                problems.push(format!("metadata is {}, expected a JSON object", value.type_name()));
                return false;
            }
        };
        let reading = Reading { nonfinite: kind != Kind::Active, ..reading };
        match self.metadata.write(text, reading) {
            Ok(()) => false,
            Err(super::metadata::Unreadable::NotFinite) => true,
            Err(why) => {
                problems.push(why.to_string());
                false
            }
        }
    }

    /// Writes the form that is hashed.
    fn write(&mut self, form: &Form, fields: &Fields<'_>, source_ip: Option<&str>) {
        self.json.clear();
        form.write(&mut self.json, fields, source_ip, self.metadata.form());
    }

    /// Judges a row of era C.
    fn judge_active(&mut self, fields: &Fields<'_>) -> Judged {
        let Some(stored) = fields.row_hmac else {
            return Judged::fault(
                FindingKind::Unsigned,
                "the row has no HMAC, which every active row must have",
            );
        };
        if let Some(fault) = not_hex(fields) {
            return fault;
        }
        let key_id = fields.hmac_key_id.unwrap_or("");
        let Some(at) = self.secrets.by_id.iter().position(|secret| secret.id == key_id) else {
            let label = format!("key id {key_id}");
            let fault = Fault {
                kind: FindingKind::UnknownKey,
                expected: Some("the secret with this key id".into()),
                found: Some(label.clone()),
                explains: format!(
                    "made with an audit chain secret that is not at hand: neither good nor bad{}",
                    self.secrets.oddities(Some(key_id))
                ),
            };
            return Judged { faults: vec![fault], ..Judged::new(Seal::Unchecked(self.label(&label))) };
        };
        let address = fields.source_ip.map(Address::parse);
        let (first, second) = match (&address, fields.source_ip) {
            (Some(Address::Compressed(spelt)), _) => (Some(spelt.as_str()), None),
            (Some(Address::Mapped([hex, dotted])), _) => (Some(hex.as_str()), Some(dotted.as_str())),
            (_, stored) => (stored, None),
        };
        let mut computed = [0; 32];
        for (source_ip, newer) in [(first, false), (second, true)] {
            if newer && source_ip.is_none() {
                continue;
            }
            self.write(&ERA_C, fields, source_ip);
            computed = self.secrets.by_id[at].mac(&[ROW_DOMAIN, &self.json]).unwrap_or_default();
            if Link::of_text(stored) == Link::Digest(computed) {
                let mut judged = marked(fields, self.sealed(at));
                if newer {
                    judged.remark.get_or_insert((NoteKind::SerialisationDrift, NEWER_PYTHON));
                }
                return judged;
            }
        }
        if fields.hmac_version != Some(2) {
            return unknown_version(fields, Seal::Unchecked(self.label("another version")));
        }
        Judged::edited(stored, computed, "the row is not what its HMAC commits to")
    }

    /// Judges a row of eras A and B.
    fn judge_legacy(&mut self, fields: &Fields<'_>, row: &Row<'_>) -> Judged {
        let Some(stored) = fields.row_hmac else {
            return Judged::fault(FindingKind::Unsigned, "the row has no HMAC");
        };
        let wanted = Link::of_text(stored);
        if !matches!(wanted, Link::Digest(_)) {
            return Judged::fault(FindingKind::Malformed, "row_hmac is not 64 lowercase hexadecimal digits");
        }
        if self.secrets.master.is_empty() {
            let fault = Fault {
                kind: FindingKind::UnknownKey,
                expected: Some("Z4J_SECRET".into()),
                found: None,
                explains: format!(
                    "Z4J_SECRET is not at hand: neither good nor bad{}",
                    self.secrets.oddities(None)
                ),
            };
            return Judged { faults: vec![fault], ..Judged::new(Seal::Unchecked(self.label(NO_SECRET))) };
        }
        let forms: &[Form] = if self.era == Era::A { &ERA_A } else { std::slice::from_ref(&ERA_B) };
        let mut also = None;
        if let Some((form, secret)) = self.try_forms(forms, fields, fields.source_ip, wanted, &mut also) {
            self.last = (form, secret);
            let mut judged = Judged::new(self.sealed(self.secrets.by_id.len() + secret));
            if self.era == Era::A && forms[form].version < 3 {
                judged.unlinked = true;
                judged.remark = Some((NoteKind::NotChecked, UNLINKED));
            }
            return judged;
        }
        // SQLite keeps what z4j wrote; PostgreSQL respells some numbers and addresses.
        if fields.dashed
            && let Some((form, secret)) = self.try_spellings(forms, fields, row, wanted)
        {
            self.last = (form, secret);
            let mut judged = Judged::new(self.sealed(self.secrets.by_id.len() + secret));
            judged.unlinked = self.era == Era::A && forms[form].version < 3;
            judged.remark = Some((NoteKind::SerialisationDrift, RESPELT));
            return judged;
        }
        let fault = Fault {
            kind: FindingKind::WrongKey,
            expected: Some("a secret that made this HMAC".into()),
            found: None,
            explains: NO_SECRET_FITS.into(),
        };
        let seal = Seal::Unchecked(self.label(NO_SECRET_FITS));
        // In era A it may have been one of the forms without a link.
        Judged { faults: vec![fault], also, unlinked: self.era == Era::A, ..Judged::new(seal) }
    }

    /// Judges a frozen row, and writes its bytes in the snapshot.
    fn judge_frozen(&mut self, fields: &Fields<'_>) -> Judged {
        if let Some(why) = not_canonical(fields) {
            return Judged::fault(
                FindingKind::Edited,
                format!("the frozen row is not as z4j's upgrade leaves one: {why}"),
            );
        }
        self.write(&FROZEN, fields, fields.source_ip);
        self.snapshot.extend((self.json.len() as u64).to_be_bytes());
        self.snapshot.extend_from_slice(&self.json);
        let (Some(stored), Some(key_id)) = (fields.row_hmac, fields.hmac_key_id) else {
            // Signed by nobody, or by a secret that was lost before the upgrade: only the snapshot stands for them.
            return Judged::new(if fields.row_hmac.is_none() { Seal::None } else { Seal::Unasked });
        };
        let Some(at) = self.secrets.by_id.iter().position(|secret| secret.id == key_id) else {
            // The signed digest may stand for it; the name of the key is told either way.
            self.label(&format!("key id {key_id}"));
            return Judged::new(Seal::Unasked);
        };
        self.write(&ERA_B, fields, fields.source_ip);
        let computed = self.secrets.by_id[at].mac(&[&self.json]).unwrap_or_default();
        if Link::of_text(stored) == Link::Digest(computed) {
            Judged::new(self.sealed(at))
        } else {
            Judged::edited(stored, computed, "the frozen row is not what its HMAC commits to")
        }
    }

    /// Tries the forms under every master secret, what fitted last first. `also` becomes the HMAC under that.
    fn try_forms(
        &mut self,
        forms: &[Form],
        fields: &Fields<'_>,
        source_ip: Option<&str>,
        wanted: Link,
        also: &mut Option<Link>,
    ) -> Option<(usize, usize)> {
        let (last_form, last_secret) = self.last;
        for form in rotated(forms.len(), last_form) {
            self.write(&forms[form], fields, source_ip);
            for secret in rotated(self.secrets.master.len(), last_secret) {
                let computed =
                    Link::Digest(self.secrets.master[secret].mac(&[&self.json]).unwrap_or_default());
                if computed == wanted {
                    return Some((form, secret));
                }
                also.get_or_insert(computed);
            }
        }
        None
    }

    /// Tries the spellings that PostgreSQL may have changed.
    fn try_spellings(
        &mut self,
        forms: &[Form],
        fields: &Fields<'_>,
        row: &Row<'_>,
        wanted: Link,
    ) -> Option<(usize, usize)> {
        let addresses = fields.source_ip.map(inet_spellings).unwrap_or_default();
        let numbers = self.metadata.respellable();
        if addresses.is_empty() && numbers == 0 {
            return None;
        }
        // All at once is what jsonb does; single ones are tried only while they are few.
        let all = u32::MAX.checked_shr(32 - numbers).unwrap_or(0);
        let few = if numbers <= 6 { 1 << numbers } else { 0 };
        let readings = [0, all].into_iter().take(if numbers == 0 { 1 } else { 2 });
        let readings = readings.chain((1..few).filter(|mask| *mask != all));
        let mut tried = 0;
        for respelt in readings {
            let mut ignored = Vec::new();
            self.read_metadata(row, Kind::Legacy, Reading { nonfinite: true, respelt }, &mut ignored);
            for source_ip in
                std::iter::once(fields.source_ip).chain(addresses.iter().map(|text| Some(text.as_str())))
            {
                tried += 1;
                if tried > MAX_SPELLINGS {
                    return None;
                }
                let found = self.try_forms(forms, fields, source_ip, wanted, &mut None);
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    /// Returns the seal of a secret at a place among the labels.
    fn sealed(&self, at: usize) -> Seal {
        Seal::Verified(u16::try_from(at).unwrap_or(u16::MAX))
    }

    /// Returns the index of a name.
    fn label(&mut self, name: &str) -> u16 {
        let at = self.labels.iter().position(|label| label == name).unwrap_or_else(|| {
            if self.labels.len() < MAX_LABELS {
                self.labels.push(name.to_owned());
            }
            self.labels.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }
}

/// Says that z4j run on another Python than the row's writer calls it tampered.
const NEWER_PYTHON: &str = "signed by z4j on Python 3.13 or later, which spells IPv4-mapped addresses otherwise; z4j on an older Python calls them tampered, which they are not";

/// Says what PostgreSQL did.
const RESPELT: &str = "PostgreSQL spells a number or an address otherwise than when the row was signed (jsonb and inet do so); with the spelling of then the HMAC fits";

/// Says that the oldest forms have no link.
const UNLINKED: &str = "signed in a form older than links: each is what was signed, but rows missing among them cannot be noticed";

/// Returns `0..count`, beginning with `first`.
fn rotated(count: usize, first: usize) -> impl Iterator<Item = usize> {
    let first = if first < count { first } else { 0 };
    (0..count).map(move |at| (at + first) % count)
}

/// Judges the columns that must be lowercase hexadecimal in era C.
fn not_hex(fields: &Fields<'_>) -> Option<Judged> {
    let is_hex = |value: &str| {
        value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
    };
    if fields.row_hmac.is_some_and(|value| !is_hex(value)) {
        return Some(Judged::fault(
            FindingKind::Malformed,
            "row_hmac is not 64 lowercase hexadecimal digits",
        ));
    }
    if fields.prev_row_hmac.is_some_and(|value| !is_hex(value)) {
        return Some(Judged::fault(
            FindingKind::Edited,
            "prev_row_hmac is not 64 lowercase hexadecimal digits",
        ));
    }
    if !fields.hmac_key_id.is_some_and(is_hex) {
        return Some(Judged::fault(
            FindingKind::Edited,
            "hmac_key_id is not 64 lowercase hexadecimal digits",
        ));
    }
    None
}

/// Judges the marker columns of a row whose HMAC of era C fits.
fn marked(fields: &Fields<'_>, seal: Seal) -> Judged {
    if fields.hmac_version == Some(2) {
        return Judged::new(seal);
    }
    let mut judged = Judged::fault(
        FindingKind::Edited,
        "the row's HMAC is one of version 2, but its hmac_version says otherwise: that column was changed",
    );
    for fault in &mut judged.faults {
        fault.expected = Some("hmac_version 2".into());
        fault.found = Some(version_name(fields));
    }
    judged
}

fn version_name(fields: &Fields<'_>) -> String {
    fields
        .hmac_version
        .map_or_else(|| "hmac_version null".into(), |version| format!("hmac_version {version}"))
}

/// Judges a row of a version that is not known and that is none of version 2 either.
fn unknown_version(fields: &Fields<'_>, seal: Seal) -> Judged {
    let fault = Fault {
        kind: FindingKind::UnknownVersion,
        expected: Some("hmac_version 2".into()),
        found: Some(version_name(fields)),
        explains: "the row is of a version that this program does not know".into(),
    };
    Judged { faults: vec![fault], ..Judged::new(seal) }
}

/// Says what no frozen row can be.
fn not_canonical(fields: &Fields<'_>) -> Option<&'static str> {
    let signed = (fields.row_hmac.is_some(), fields.hmac_key_id.is_some());
    if fields.generation.is_some() {
        return Some("it has a generation");
    }
    if !fields.origin.is_some_and(|origin| ORIGINS.contains(&origin)) {
        return Some("its legacy_origin is none of those that z4j writes");
    }
    match fields.integrity_class {
        Some("legacy-linked-verified" | "legacy-standalone-verified" | "legacy-fork-verified") => {
            let whole = signed == (true, true) && fields.hmac_version == Some(1);
            (!whole).then_some("it is classed as verified, but lacks its HMAC, its key id or hmac_version 1")
        }
        Some("legacy-unsigned") => {
            (signed != (false, false)).then_some("it is classed as unsigned, but has an HMAC or a key id")
        }
        Some("legacy-invalid" | "legacy-unverifiable-key-unavailable") => (signed != (true, false))
            .then_some("it is classed as not verified, but lacks its HMAC or has a key id"),
        _ => Some("its legacy_integrity_class is none of those that z4j writes"),
    }
}
