//! The rule of the `native` format: reads rows of [`crate::native`] and checks their hashes.
//!
//! A row's hash is recomputed from the stored text; a keyed row needs the secret whose key id it names, which is
//! looked for among all secrets at hand. A key id that none of them has is `unknown-key`, a version that
//! this program does not know is `unknown-version`: neither is ever called edited. A chain that is keyed and then
//! plain again is `unsigned`: its plain records can be anybody's.
//!
//! A chain is in the order of `seq`, from 1 without gaps, and begins with an empty `prev`.

use crate::canonical::RowForm;
use crate::error::{Error, Result};
use crate::format::{ChainFormat, Conclusion, Fault, Link, LinkRules, Record, RecordRule, Seal, Setup};
use crate::keys::KeyRing;
use crate::native::{COLUMNS, Fields, NativeKey, VERSION, parse_time};
use crate::report::{Finding, FindingKind};
use crate::value::{Columns, Row, Value};

/// The native chain.
#[derive(Debug, Clone, Copy, Default)]
pub struct Native;

/// The table that a native chain is kept in, unless the service names another.
pub const TABLE: &str = "attestore_chain";

/// How many unknown keys and versions are told apart by name; what is made up must not fill the memory.
const MAX_LABELS: usize = 4_096;

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
        Ok(Box::new(Rule {
            places: COLUMNS.map(|column| columns.position(column)),
            keys: Keys::new(setup.keys),
            form: RowForm::new(columns),
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
        Ok(())
    }
}

/// The bound rule.
struct Rule {
    /// Where the columns stand, in the order of [`COLUMNS`].
    places: [Option<usize>; 8],
    keys: Keys,
    form: RowForm,
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
        let leaf = self.form.leaf(row);
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
            ..Record::default()
        })
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
