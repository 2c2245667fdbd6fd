//! The rule of the `native` format: reads rows of [`crate::native`] and checks their hashes.
//!
//! A row's hash is recomputed from the stored text; a keyed row needs the secret whose key id it names, which is
//! looked for among all secrets at hand. A key id that none of them has is `unknown-key`, a version that
//! this program does not know is `unknown-version`: neither is ever called edited. A chain that is keyed and then
//! plain again is `unsigned`: its plain records can be anybody's.
//!
//! A chain is in the order of `seq`, from 1 without gaps, and begins with an empty `prev`.
//!
//! Where the source brings the values along that records commit to, each is checked ([`crate::erasure`]). Records of
//! the reserved kinds are marked for the last word.

use crate::canonical::RowForm;
use crate::commitment::commitments;
use crate::erasure::{self, ERASED_COLUMN, Erasure, VALUES_COLUMN};
use crate::error::{Error, Result};
use crate::format::{
    ChainFormat, Conclusion, Fault, Link, LinkRules, Mark, Record, RecordRule, Remark, Seal, Setup,
};
use crate::keys::KeyRing;
use crate::native::{COLUMNS, Fields, NativeKey, VERSION, kind, parse_time};
use crate::report::{Finding, FindingKind, Note, NoteKind};
use crate::value::{Columns, Row, Value};

/// The native chain.
#[derive(Debug, Clone, Copy, Default)]
pub struct Native;

/// The table that a native chain is kept in, unless the service names another.
pub const TABLE: &str = "attestore_chain";

/// What the name of the table ends with that keeps the values which records commit to.
pub const VALUES_SUFFIX: &str = "_values";

/// How many unknown keys and versions are told apart by name; what is made up must not fill the memory.
const MAX_LABELS: usize = 4_096;

/// How many erasures are noted one by one.
const MAX_ERASURES: usize = 100;

impl ChainFormat for Native {
    fn name(&self) -> &str {
        "native"
    }

    fn table(&self) -> &str {
        TABLE
    }

    fn columns(&self) -> &[&str] {
        &COLUMNS
    }

    fn integers(&self) -> &[&str] {
        &["seq", "v"]
    }

    fn order(&self) -> &[&str] {
        &["chain", "seq"]
    }

    fn values_table(&self, table: &str) -> Option<String> {
        Some(format!("{table}{VALUES_SUFFIX}"))
    }

    fn time_column(&self) -> Option<&str> {
        Some("at")
    }

    fn links(&self) -> LinkRules {
        LinkRules { numbered: true, clock: true }
    }

    fn bind(&self, columns: &Columns, setup: &Setup<'_>) -> Result<Box<dyn RecordRule>> {
        let missing: Vec<&str> =
            COLUMNS.into_iter().filter(|column| columns.position(column).is_none()).collect();
        // A source without a header has no rows.
        if !missing.is_empty() && !columns.names().is_empty() {
            return Err(Error::NotThisFormat {
                input: "the input".into(),
                format: self.name().to_owned(),
                what: format!("no column {}; found {}", missing.join(", "), columns.names().join(", ")),
            });
        }
        // What the source brings along stands behind the row's own columns and is not of the row.
        let own = match columns.names() {
            [own @ .., values, erased] if values == VALUES_COLUMN && erased == ERASED_COLUMN => own,
            own => own,
        };
        Ok(Box::new(Rule {
            places: COLUMNS.map(|column| columns.position(column)),
            keys: Keys::new(setup.keys),
            form: RowForm::new(&Columns::new(own.iter().cloned())),
            own: own.len(),
            beside: own.len() < columns.names().len(),
            emitted: 0,
            remarks: Vec::new(),
        }))
    }

    fn conclude(&self, _setup: &Setup<'_>, whole: &mut Conclusion<'_>) -> Result<()> {
        for (chain, position) in whole.unsigned_after_signed() {
            whole.report(Finding {
                kind: FindingKind::Unsigned,
                chain,
                position: Some(position),
                last: None,
                record: None,
                expected: Some("a keyed hash: records before it are keyed".into()),
                found: Some("a plain hash".into()),
                explains: "a chain that is keyed stays keyed; anybody can write a plain record".into(),
            });
        }
        conclude_erasures(whole);
        conclude_vouched(whole);
        Ok(())
    }
}

/// Takes back what is said of missing secrets where the checkpoint vouches for the rows: they are in its tree as they
/// stand, and an outsider needs no secret to see that.
fn conclude_vouched(whole: &mut Conclusion<'_>) {
    let vouched: Vec<(String, u64, u64)> = whole
        .walk
        .chains
        .iter()
        .filter(|chain| chain.vouched() > 0)
        .map(|chain| {
            let first = u64::try_from(chain.first).unwrap_or(1);
            (chain.id.clone(), first, first.saturating_add(chain.vouched() - 1))
        })
        .collect();
    for (id, first, last) in vouched {
        let taken = whole.retract(|finding| {
            finding.kind == FindingKind::UnknownKey
                && finding.chain == id
                && finding.position.is_some_and(|position| (first..=last).contains(&position))
        });
        let mut records = 0;
        for mut finding in taken {
            let (from, to) =
                (finding.position.unwrap_or(first), finding.last.or(finding.position).unwrap_or(first));
            records += to.min(last).saturating_sub(from) + 1;
            if to > last {
                finding.position = Some(last + 1);
                finding.last = (to > last + 1).then_some(to);
                whole.report(finding);
            }
        }
        if records == 0 {
            continue;
        }
        if let Some(chain) = whole.walk.chains.iter_mut().find(|chain| chain.id == id) {
            chain.unchecked = chain.unchecked.saturating_sub(records);
        }
        whole.note(Note {
            kind: NoteKind::NotChecked,
            chain: id,
            position: Some(first),
            last: Some(last),
            explains: format!(
                "{records} records were made with a secret that is not at hand: their hashes were not computed, and they are row for row those of the checkpoint"
            ),
        });
    }
}

/// Notes the erasures on record, and reports values that are still there though they are on record as erased.
fn conclude_erasures(whole: &mut Conclusion<'_>) {
    let (marks, _) = whole.marks();
    let told: Vec<(Mark, erasure::Told)> = marks
        .iter()
        .filter_map(|mark| Some((mark.clone(), serde_json::from_str::<erasure::Told>(&mark.text).ok()?)))
        .filter(|(_, told)| told.kind == kind::ERASURE)
        .collect();
    for (at, (mark, told)) in told.iter().enumerate() {
        // What was pruned since took its values along.
        let first = whole.walk.by_id(&mark.chain).and_then(|chain| u64::try_from(chain.first).ok());
        if let Some(seq) = told.unclaimed.filter(|seq| first.is_some_and(|first| *seq >= first)) {
            whole.report(Finding {
                kind: FindingKind::StateMismatch,
                chain: mark.chain.clone(),
                position: Some(mark.number),
                last: None,
                record: None,
                expected: Some("no value".into()),
                found: Some(format!("a value of record {seq}")),
                explains: "a value that this record says was erased is there again, or was never erased"
                    .into(),
            });
        }
        if at < MAX_ERASURES {
            whole.note(Note {
                kind: NoteKind::Erased,
                chain: mark.chain.clone(),
                position: Some(mark.number),
                last: None,
                explains: told.sentence(),
            });
        }
    }
}

/// The bound rule.
struct Rule {
    /// Where the columns stand, in the order of [`COLUMNS`].
    places: [Option<usize>; 8],
    keys: Keys,
    form: RowForm,
    /// How many columns are the row's own.
    own: usize,
    /// Whether the source brings values along behind them.
    beside: bool,
    /// How many records were emitted since the remarks were taken.
    emitted: u32,
    remarks: Vec<Remark>,
}

impl Rule {
    /// Checks what the body commits to and lists; returns what is to be seen again in the last word.
    fn body(&mut self, body: &str, row: &Row<'_>, faults: &mut Vec<Fault>) -> Option<Box<str>> {
        let mut remark = |kind, explains| self.remarks.push(Remark { record: self.emitted, kind, explains });
        let has = |words: &[u8]| memchr::memmem::find(body.as_bytes(), words).is_some();
        let reserved = if has(b"attestore") || has(b"\\u00") { kind::of(body) } else { None };
        let erasure = match reserved.as_deref() {
            Some(kind::ERASURE) => Erasure::parse(body),
            _ => None,
        };
        let mut unclaimed = None;
        if self.beside {
            if erasure::check_values(body, row.at(Some(self.own)), faults) > 0 {
                remark(NoteKind::Erased, "values that they commit to were erased on record");
            }
            let listed = erasure.as_ref().map_or(&[][..], |erasure| &erasure.fields);
            unclaimed = erasure::check_erased(listed, row.at(Some(self.own + 1)), faults);
        } else if !commitments(body).is_empty() {
            remark(
                NoteKind::NotChecked,
                "values that they commit to are not in this input, so only the commitments were verified",
            );
        }
        match erasure {
            Some(erasure) => Some(erasure::mark(&erasure, unclaimed)),
            None => reserved.map(|_| body.into()),
        }
    }
}

impl RecordRule for Rule {
    fn record(&mut self, row: &Row<'_>, emit: &mut dyn FnMut(Record<'_>) -> Result<()>) -> Result<()> {
        let [chain, seq, at, body, v, key_id, prev, hash] = self.places.map(|place| row.at(place));
        let mut faults = Vec::new();
        let link = Link::of_value(hash);
        let seal = if v.as_int() == Some(VERSION) {
            match Fields::read(chain, seq, at, body, key_id, prev) {
                Ok(fields) => self.keys.check(&fields, key_id, hash, link, &mut faults),
                Err(what) => {
                    faults.push(malformed(what));
                    if matches!(key_id, Value::Text(id) if !id.is_empty()) { Seal::Bad } else { Seal::None }
                }
            }
        } else if let Some(version) = v.as_int() {
            faults.push(Fault {
                kind: FindingKind::UnknownVersion,
                expected: Some(format!("version {VERSION}")),
                found: Some(format!("version {version}")),
                explains: "the record is of a version that this program does not know".into(),
            });
            Seal::Unchecked(self.keys.label(&format!("version {version}")))
        } else {
            faults.push(malformed(format!("v is {}, expected an integer", v.type_name())));
            Seal::None
        };
        let mark = body.as_text().and_then(|body| self.body(body, row, &mut faults));
        let own = Row { values: row.values.get(..self.own).unwrap_or(row.values), extra: row.extra };
        let leaf = self.form.leaf(&own);
        self.emitted += 1;
        emit(Record {
            chain: chain.as_text().unwrap_or(""),
            id: hash.as_text().unwrap_or(""),
            number: seq.as_int(),
            prev: Link::of_value(prev),
            link,
            leaf,
            time: at.as_text().and_then(parse_time),
            seal,
            faults,
            mark,
            ..Record::default()
        })
    }

    fn remarks(&mut self) -> Vec<Remark> {
        self.emitted = 0;
        std::mem::take(&mut self.remarks)
    }

    fn key_labels(&self) -> Vec<String> {
        self.keys.labels.clone()
    }
}

impl<'a> Fields<'a> {
    /// Takes the hashed fields of a row of version 1.
    fn read(
        chain: Value<'a>,
        seq: Value<'a>,
        at: Value<'a>,
        body: Value<'a>,
        key_id: Value<'a>,
        prev: Value<'a>,
    ) -> Result<Self, String> {
        let text = |name: &str, value: Value<'a>| {
            value.as_text().ok_or_else(|| format!("{name} is {}, expected text", value.type_name()))
        };
        Ok(Self {
            v: VERSION,
            seq: seq
                .as_int()
                .and_then(|seq| u64::try_from(seq).ok())
                .filter(|seq| *seq > 0)
                .ok_or_else(|| format!("seq is {}, expected an integer from 1", seq.type_name()))?,
            chain: text("chain", chain)?,
            at: text("at", at)?,
            key_id: match key_id {
                Value::Null => "",
                Value::Text("") => return Err("key_id is empty text, expected null or 16 digits".into()),
                other => text("key_id", other)?,
            },
            prev: text("prev", prev)?,
            body: text("body", body)?,
        })
    }
}

/// The secrets at hand by key id, and the names that seals refer to.
struct Keys {
    known: Vec<(NativeKey, u16)>,
    labels: Vec<String>,
}

impl Keys {
    /// Prepares every secret; one that is too short for this format belongs to another.
    fn new(ring: &KeyRing) -> Self {
        let mut keys = Self { known: Vec::new(), labels: Vec::new() };
        for (_, secret) in ring.all_secrets() {
            if let Ok(key) = NativeKey::new(secret.expose()) {
                let label = keys.label(&secret.label);
                keys.known.push((key, label));
            }
        }
        keys
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

    /// Checks the hash of a row.
    fn check(
        &mut self,
        fields: &Fields<'_>,
        key_id: Value<'_>,
        stored: Value<'_>,
        link: Link,
        faults: &mut Vec<Fault>,
    ) -> Seal {
        let (digest, seal) = if key_id.is_null() {
            (fields.sha256(), Seal::None)
        } else if let Some((key, label)) = self.known.iter().find(|(key, _)| key.id() == fields.key_id) {
            (fields.hmac(key), Seal::Verified(*label))
        } else {
            let label = format!("key id {:.80}", fields.key_id);
            faults.push(Fault {
                kind: FindingKind::UnknownKey,
                expected: Some("the secret with this key id".into()),
                found: Some(label.clone()),
                explains: "made with a secret that is not at hand: neither good nor bad".into(),
            });
            return Seal::Unchecked(self.label(&label));
        };
        if link == Link::Digest(digest) {
            return seal;
        }
        let is_hash = matches!(link, Link::Digest(_));
        faults.push(Fault {
            kind: if is_hash { FindingKind::Edited } else { FindingKind::Malformed },
            expected: Some(
                stored.as_text().map_or(stored.type_name(), |text| text).chars().take(80).collect(),
            ),
            found: Some(hex::encode(digest)),
            explains: if is_hash {
                "the row's content does not hash to its stored hash".into()
            } else {
                "the stored hash is not 64 lowercase hexadecimal digits".into()
            },
        });
        if seal == Seal::None { Seal::None } else { Seal::Bad }
    }
}

fn malformed(what: String) -> Fault {
    Fault {
        kind: FindingKind::Malformed,
        expected: None,
        found: Some(what),
        explains: "the row cannot be read as a native record".into(),
    }
}
