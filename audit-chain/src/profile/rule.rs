//! The bound rule of a profile: reads a row, hashes its form, checks hash and seal.

use std::collections::HashMap;

use ed25519_dalek::VerifyingKey;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::form::{Form, push_text};
use super::keys::{Encoding, Fit, Keyed, MAX_BYTES, MacKeys};
use super::{Algorithm, HASHED, Over, Profile, SealColumn, SealKind};
use crate::canonical::{RowForm, push_string};
use crate::error::{Error, Result};
use crate::format::{Fault, Link, OrderKey, Record, RecordRule, Seal};
use crate::keys::KeyRing;
use crate::report::FindingKind;
use crate::runs::NO_KEY;
use crate::signature;
use crate::timestamp::Instant;
use crate::value::{Columns, Row, Value};

/// How much of what was hashed a finding shows, in characters.
const MAX_SHOWN: usize = 200;

/// How many signers are kept decoded; what is made up must not fill the memory.
const MAX_SIGNERS: usize = 4_096;

/// Binds a profile to a source.
pub(super) fn bind(profile: &Profile, columns: &Columns, keys: &KeyRing) -> Result<Box<dyn RecordRule>> {
    let missing: Vec<&str> =
        profile.columns.iter().copied().filter(|name| columns.position(name).is_none()).collect();
    // A source without a header has no rows.
    if !missing.is_empty() && !columns.names().is_empty() {
        return Err(Error::NotThisFormat {
            input: "the input".into(),
            format: profile.name.to_owned(),
            what: format!("no column {}; found {}", missing.join(", "), columns.names().join(", ")),
        });
    }
    let place = |name: &Option<String>| name.as_deref().and_then(|name| columns.position(name));
    let hash_keys = profile.hash.keyed.as_ref().map(|keyed| {
        let keys = MacKeys::new(keyed, profile.hash.algorithm, keys)?;
        Ok::<_, Error>((keyed.clone(), keys, place(&keyed.key_id)))
    });
    let seal = profile.seal.as_ref().map(|seal| Sealer::bind(seal, columns, keys)).transpose()?;
    let number = place(&profile.number);
    let order: Vec<Option<usize>> = profile
        .order
        .iter()
        .filter(|name| !profile.chain.iter().any(|chain| chain == *name))
        .map(|name| columns.position(name))
        .collect();
    Ok(Box::new(Rule {
        places: profile.form.places(columns),
        hash: place(&profile.hash.column),
        hash_keys: hash_keys.transpose()?,
        link: columns.position(&profile.link.column),
        seal,
        chain: profile.chain.iter().map(|name| columns.position(name)).collect(),
        id: place(&profile.id),
        number,
        time: place(&profile.time),
        order,
        row_form: RowForm::new(columns),
        form: Vec::with_capacity(1_024),
        scratch: Vec::new(),
        chain_id: String::new(),
        record_id: String::new(),
        profile: profile.clone(),
    }))
}

/// The rule.
struct Rule {
    profile: Profile,
    places: Vec<Option<usize>>,
    hash: Option<usize>,
    hash_keys: Option<(Keyed, MacKeys, Option<usize>)>,
    link: Option<usize>,
    seal: Option<Sealer>,
    chain: Vec<Option<usize>>,
    id: Option<usize>,
    number: Option<usize>,
    time: Option<usize>,
    order: Vec<Option<usize>>,
    row_form: RowForm,
    /// The form of the row at hand.
    form: Vec<u8>,
    scratch: Vec<u8>,
    chain_id: String,
    record_id: String,
}

/// A digest of any of the algorithms.
#[derive(Clone, Copy)]
struct Digest {
    bytes: [u8; 64],
    length: usize,
}

impl Digest {
    fn of(algorithm: Algorithm, message: &[u8]) -> Self {
        let mut digest = Self { bytes: [0; 64], length: 0 };
        let mut set = |made: &[u8]| {
            digest.length = made.len();
            for (to, from) in digest.bytes.iter_mut().zip(made) {
                *to = *from;
            }
        };
        match algorithm {
            Algorithm::Sha256 => set(&Sha256::digest(message)),
            Algorithm::Sha384 => set(&Sha384::digest(message)),
            Algorithm::Sha512 => set(&Sha512::digest(message)),
        }
        digest
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }
}

/// Makes the link value of a digest.
fn link_of_bytes(bytes: &[u8]) -> Link {
    bytes.try_into().map_or_else(|_| Link::Other(Sha256::digest(bytes).into()), Link::Digest)
}

/// A hash as it is stored: its bytes, or nothing where it is none.
struct Stored {
    bytes: [u8; MAX_BYTES],
    length: Option<usize>,
}

impl Stored {
    fn read(value: Value<'_>, encoding: Encoding, prefix: &str) -> Self {
        let mut bytes = [0; MAX_BYTES];
        let length = encoding.decode(value, prefix, &mut bytes);
        Self { bytes, length }
    }

    fn bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length?)
    }

    /// Makes the link value; what is no hash of `length` bytes is known by its text.
    fn link(&self, value: Value<'_>, length: usize) -> Link {
        match self.bytes().filter(|bytes| bytes.len() == length) {
            Some(bytes) => link_of_bytes(bytes),
            None => match Link::of_value(value) {
                Link::Digest(digest) => Link::Other(Sha256::digest(digest).into()),
                other => other,
            },
        }
    }
}

impl Rule {
    /// Checks the row's hash; returns its link value, the hash's bytes and how it is sealed.
    fn check_hash(&mut self, row: &Row<'_>, faults: &mut Vec<Fault>) -> (Link, Option<Digest>, Seal) {
        self.form.clear();
        let written = self.profile.form.write(&self.places, row, &mut self.form, &mut self.scratch);
        let written = match written {
            Ok(()) => true,
            Err((column, why)) => {
                faults.push(malformed(&column, why));
                false
            }
        };
        let algorithm = self.profile.hash.algorithm;
        if self.profile.hash.column.is_none() {
            let digest = written.then(|| Digest::of(algorithm, &self.form));
            let link = digest.map_or(Link::Unstated, |digest| link_of_bytes(digest.as_slice()));
            return (link, digest, Seal::None);
        }
        let value = row.at(self.hash);
        if self.hash_keys.is_some() && (value.is_null() || value.as_text() == Some("")) {
            faults.push(Fault {
                kind: FindingKind::Unsigned,
                expected: Some("an HMAC".into()),
                found: Some("none".into()),
                explains: "the record has no HMAC: its content is not protected".into(),
            });
            return (Link::Unstated, None, Seal::None);
        }
        let stored = Stored::read(value, self.profile.hash.encoding, &self.profile.hash.text_prefix);
        let link = stored.link(value, algorithm.length());
        let Some(bytes) = stored.bytes().filter(|bytes| bytes.len() == algorithm.length()) else {
            faults.push(malformed("hash", format!("expected {}", self.profile.hash.describe())));
            return (link, None, if self.hash_keys.is_some() { Seal::Bad } else { Seal::None });
        };
        let digest = Digest::stored(bytes);
        if !written {
            return (link, Some(digest), if self.hash_keys.is_some() { Seal::Bad } else { Seal::None });
        }
        let mut key_id = Value::Null;
        let keyed = self.hash_keys.as_mut().filter(|(_, _, place)| {
            key_id = row.at(*place);
            !(self.profile.hash.keyless && key_id.is_null())
        });
        let Some((plan, keys, _)) = keyed else {
            let made = Digest::of(algorithm, &self.form);
            if made.as_slice() != bytes {
                let made = self.profile.hash.encoding.encode(made.as_slice());
                let explains = "the row's content does not hash to its stored hash";
                faults.push(edited(value, Some(made), explains, &self.form));
            }
            return (link, Some(digest), Seal::None);
        };
        let explains = "the row's content is not what its keyed hash commits to";
        let seal = match keys.check(plan, key_id, &self.form, bytes) {
            Fit::Key(key) => Seal::Verified(key),
            Fit::None(key) | Fit::NoKeys(key) => Seal::Unchecked(key),
            Fit::Unknown(key, label) => {
                faults.push(unknown_key(label));
                Seal::Unchecked(key)
            }
            Fit::Wrong => {
                faults.push(edited(value, None, explains, &self.form));
                Seal::Bad
            }
        };
        (link, Some(digest), seal)
    }

    /// Makes the place of a row in its chain.
    fn order_key(&self, row: &Row<'_>, number: Option<i64>) -> Option<OrderKey> {
        let Some((first, rest)) = self.order.split_first() else { return number.map(OrderKey::of_number) };
        let value = row.at(*first);
        let mut tail = Vec::new();
        let head = value
            .to_int()
            .or_else(|| value.as_text().and_then(Instant::parse).map(Instant::micros))
            .unwrap_or_else(|| {
                push_text(&mut tail, value);
                0
            });
        for place in rest {
            let value = row.at(*place);
            match value.as_text().map(|text| text.replace('-', "")).map(hex::decode) {
                // A UUID takes half the room as bytes.
                Some(Ok(bytes)) if bytes.len() == 16 => tail.extend(bytes),
                _ => match value.to_int() {
                    Some(number) => {
                        tail.extend_from_slice(OrderKey::of_number(number).bytes().first_chunk::<8>()?);
                    }
                    None => push_text(&mut tail, value),
                },
            }
        }
        Some(OrderKey::of_parts(head, &tail))
    }
}

impl RecordRule for Rule {
    fn record(&mut self, row: &Row<'_>, emit: &mut dyn FnMut(Record<'_>) -> Result<()>) -> Result<()> {
        let mut faults = Vec::new();
        let (link, digest, hash_seal) = self.check_hash(row, &mut faults);
        let value = row.at(self.link);
        let prev = match &self.profile.link.genesis {
            Some(genesis) if value.as_text() == Some(genesis) => Link::Genesis,
            None if value.is_null() || value.as_text() == Some("") => Link::Genesis,
            // Neither NULL nor empty text is this chain's beginning.
            Some(_) if value.is_null() => Link::Other(Sha256::digest(b"null").into()),
            _ => Stored::read(value, self.profile.hash.encoding, &self.profile.hash.text_prefix)
                .link(value, self.profile.hash.algorithm.length()),
        };
        let seal = match &mut self.seal {
            Some(sealer) => {
                let hash_text = match (&self.profile.hash.column, digest) {
                    (None, Some(digest)) => Some(self.profile.hash.encoding.encode(digest.as_slice())),
                    _ => None,
                };
                let stored = hash_text.as_deref().map_or_else(|| row.at(self.hash), Value::Text);
                sealer.check(row, stored, digest.as_ref().map(Digest::as_slice), &self.form, &mut faults)
            }
            None => hash_seal,
        };
        let number = row.at(self.number).to_int();
        if self.profile.number.is_some() && number.is_none() {
            faults.push(malformed("number", "expected an integer".into()));
        }
        self.chain_id.clear();
        match self.chain.as_slice() {
            [] => {}
            [place] => push_name(&mut self.chain_id, row.at(*place)),
            places => {
                let mut id = vec![b'['];
                for (at, place) in places.iter().enumerate() {
                    let mut name = String::new();
                    push_name(&mut name, row.at(*place));
                    id.extend_from_slice(if at > 0 { b"," } else { b"" });
                    push_string(&mut id, &name);
                }
                id.push(b']');
                self.chain_id.push_str(&String::from_utf8_lossy(&id));
            }
        }
        self.record_id.clear();
        push_name(&mut self.record_id, row.at(self.id));
        let time = row.at(self.time);
        emit(Record {
            chain: &self.chain_id,
            id: &self.record_id,
            number,
            prev,
            link,
            leaf: self.row_form.leaf(row),
            time: time.as_text().and_then(Instant::parse).map(Instant::micros).or_else(|| time.as_int()),
            order: self.order_key(row, number),
            seal,
            faults,
            ..Record::default()
        })
    }

    fn key_labels(&self) -> Vec<String> {
        match (&self.seal, &self.hash_keys) {
            (Some(sealer), _) => sealer.labels().to_vec(),
            (None, Some((_, keys, _))) => keys.labels().to_vec(),
            (None, None) => Vec::new(),
        }
    }
}

impl Digest {
    /// Takes a stored digest.
    fn stored(stored: &[u8]) -> Self {
        let mut bytes = [0; 64];
        for (to, from) in bytes.iter_mut().zip(stored) {
            *to = *from;
        }
        Self { bytes, length: stored.len().min(64) }
    }
}

impl Algorithm {
    /// Returns how many bytes a digest has.
    pub(super) const fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl super::Hash {
    /// Says how a hash is spelt.
    fn describe(&self) -> String {
        let prefix =
            if self.text_prefix.is_empty() { String::new() } else { format!("{:?} and ", self.text_prefix) };
        let name = super::keys::ENCODINGS.iter().find(|(_, known)| *known == self.encoding);
        format!("{prefix}{} bytes in {}", self.algorithm.length(), name.map_or("", |(name, _)| name))
    }
}

/// Appends a value as a name.
fn push_name(out: &mut String, value: Value<'_>) {
    match value {
        Value::Text(text) => out.push_str(text),
        Value::Null | Value::Absent => {}
        other => {
            let mut text = Vec::new();
            push_text(&mut text, other);
            out.push_str(&String::from_utf8_lossy(&text));
        }
    }
}

/// Says that a row is not what its hash commits to, with the beginning of what was hashed.
fn edited(stored: Value<'_>, found: Option<String>, explains: &str, form: &[u8]) -> Fault {
    let shown = form.utf8_chunks().flat_map(|chunk| {
        let invalid = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().chain(invalid)
    });
    let shown: String = shown.take(MAX_SHOWN).collect();
    Fault {
        kind: FindingKind::Edited,
        expected: stored.as_text().map(str::to_owned),
        found,
        explains: format!("{explains}{HASHED}{shown:?}"),
    }
}

fn malformed(column: &str, why: String) -> Fault {
    Fault {
        kind: FindingKind::Malformed,
        expected: None,
        found: Some(why),
        explains: format!("{column} cannot be read as the profile says"),
    }
}

fn unknown_key(label: String) -> Fault {
    Fault {
        kind: FindingKind::UnknownKey,
        expected: Some("a key at hand".into()),
        found: Some(label),
        explains: "made with a key that is not at hand: neither good nor bad".into(),
    }
}

/// Checks the seal of rows.
struct Sealer {
    plan: SealColumn,
    column: Option<usize>,
    template: Vec<Option<usize>>,
    keys: SealKeys,
    message: Vec<u8>,
    scratch: Vec<u8>,
}

/// The keys of a seal.
enum SealKeys {
    Mac(Keyed, MacKeys, Option<usize>),
    Ed25519 {
        trusted: Vec<VerifyingKey>,
        /// The columns with the signer's key and its id.
        signer: Option<(usize, Encoding)>,
        id: Option<usize>,
        known: HashMap<(String, String), Option<Signer>>,
        labels: Vec<String>,
    },
}

/// A signer that rows name.
#[derive(Clone, Copy)]
struct Signer {
    key: VerifyingKey,
    trusted: bool,
    label: u16,
}

impl Sealer {
    fn bind(plan: &SealColumn, columns: &Columns, ring: &KeyRing) -> Result<Self> {
        let place = |name: &Option<String>| name.as_deref().and_then(|name| columns.position(name));
        let keys = match &plan.kind {
            SealKind::Hmac(algorithm, keyed) => {
                SealKeys::Mac(keyed.clone(), MacKeys::new(keyed, *algorithm, ring)?, place(&keyed.key_id))
            }
            SealKind::Ed25519 { public_key, key_id } => {
                let trusted = ring.public_keys().to_vec();
                let signer = public_key
                    .as_ref()
                    .and_then(|(name, encoding)| Some((columns.position(name)?, *encoding)));
                let mut labels: Vec<String> = Vec::new();
                if public_key.is_none() {
                    labels.extend(trusted.iter().map(|key| hex::encode(key.as_bytes())));
                    labels.push(NO_KEY.into());
                }
                SealKeys::Ed25519 { trusted, signer, id: place(key_id), known: HashMap::new(), labels }
            }
        };
        let template = match &plan.over {
            Over::Template(form) => form.places(columns),
            Over::Hash | Over::HashText | Over::Form => Vec::new(),
        };
        let column = columns.position(&plan.column);
        Ok(Self { plan: plan.clone(), column, template, keys, message: Vec::new(), scratch: Vec::new() })
    }

    fn labels(&self) -> &[String] {
        match &self.keys {
            SealKeys::Mac(_, keys, _) => keys.labels(),
            SealKeys::Ed25519 { labels, .. } => labels,
        }
    }

    /// Checks the seal of a row. `stored` is its hash as text, `digest` as bytes, `form` what was hashed.
    fn check(
        &mut self,
        row: &Row<'_>,
        stored: Value<'_>,
        digest: Option<&[u8]>,
        form: &[u8],
        faults: &mut Vec<Fault>,
    ) -> Seal {
        let value = row.at(self.column);
        if value.is_null() || value.as_text() == Some("") {
            if self.plan.required {
                faults.push(Fault {
                    kind: FindingKind::Unsigned,
                    expected: Some(format!("a seal in {}", self.plan.column)),
                    found: Some("none".into()),
                    explains: "the record has no seal, and the profile says that each has one".into(),
                });
            }
            return Seal::None;
        }
        let seal = Stored::read(value, self.plan.encoding, "");
        let Some(seal) = seal.bytes() else {
            faults.push(invalid(value, "the seal is not encoded as the profile says"));
            return Seal::Bad;
        };
        self.message.clear();
        match &self.plan.over {
            Over::Hash => self.message.extend_from_slice(digest.unwrap_or(&[])),
            Over::HashText => push_text(&mut self.message, stored),
            Over::Form => self.message.extend_from_slice(form),
            Over::Template(template) => {
                if let Err((column, why)) =
                    template.write(&self.template, row, &mut self.message, &mut self.scratch)
                {
                    faults.push(malformed(&column, why));
                    return Seal::Bad;
                }
            }
        }
        match &mut self.keys {
            SealKeys::Mac(plan, keys, place) => match keys.check(plan, row.at(*place), &self.message, seal) {
                Fit::Key(key) => Seal::Verified(key),
                Fit::None(key) => Seal::Unchecked(key),
                Fit::NoKeys(_) => Seal::Unasked,
                Fit::Unknown(_, _) if keys.is_empty() => Seal::Unasked,
                Fit::Unknown(key, label) => {
                    faults.push(unknown_key(label));
                    Seal::Unchecked(key)
                }
                Fit::Wrong => {
                    faults
                        .push(invalid(value, "the seal does not fit the record under the key that it names"));
                    Seal::Bad
                }
            },
            SealKeys::Ed25519 { trusted, signer: None, labels, .. } => {
                if trusted.is_empty() {
                    return Seal::Unasked;
                }
                let fits = |key: &VerifyingKey| signature::verify(key, &self.message, seal).is_ok();
                match trusted.iter().position(fits) {
                    Some(at) => Seal::Verified(u16::try_from(at).unwrap_or(u16::MAX)),
                    None => {
                        Seal::Unchecked(u16::try_from(labels.len().saturating_sub(1)).unwrap_or(u16::MAX))
                    }
                }
            }
            SealKeys::Ed25519 { trusted, signer: Some((place, encoding)), id, known, labels } => {
                let named = row.at(Some(*place));
                let signer = find_signer(named, *encoding, row.at(*id), trusted, known, labels);
                let Some(signer) = signer else {
                    faults.push(invalid(
                        named,
                        "the signer that the record names is no valid Ed25519 public key",
                    ));
                    return Seal::Bad;
                };
                if signature::verify(&signer.key, &self.message, seal).is_err() {
                    faults.push(invalid(value, "the signature does not fit the record"));
                    return Seal::Bad;
                }
                if signer.trusted {
                    return Seal::Verified(signer.label);
                }
                if trusted.is_empty() {
                    return Seal::SelfVouched(signer.label);
                }
                let label = labels.get(usize::from(signer.label)).cloned().unwrap_or_default();
                faults.push(unknown_key(label));
                Seal::Unchecked(signer.label)
            }
        }
    }
}

/// Decodes the public key that a row names, once.
fn find_signer(
    value: Value<'_>,
    encoding: Encoding,
    id: Value<'_>,
    trusted: &[VerifyingKey],
    known: &mut HashMap<(String, String), Option<Signer>>,
    labels: &mut Vec<String>,
) -> Option<Signer> {
    let (mut text, mut id_text) = (String::new(), String::new());
    push_name(&mut text, value);
    push_name(&mut id_text, id);
    let name = (text, id_text);
    if let Some(found) = known.get(&name) {
        return *found;
    }
    let key = Stored::read(value, encoding, "");
    let key = key.bytes().and_then(|bytes| signature::public_key(bytes).ok());
    let found = key.map(|key| {
        let trusted = trusted.contains(&key);
        let digits = hex::encode(key.as_bytes());
        let vouched = if trusted { "" } else { " (named by the rows only)" };
        let space = if name.1.is_empty() { "" } else { " " };
        if labels.len() < MAX_SIGNERS {
            labels.push(format!("{}{space}{digits}{vouched}", name.1));
        }
        Signer { key, trusted, label: u16::try_from(labels.len() - 1).unwrap_or(u16::MAX) }
    });
    if known.len() < MAX_SIGNERS {
        known.insert(name, found);
    }
    found
}

fn invalid(value: Value<'_>, explains: &str) -> Fault {
    Fault {
        kind: FindingKind::SignatureInvalid,
        expected: None,
        found: Some(match value.as_text() {
            Some(text) => text.chars().take(160).collect(),
            None => value.type_name().to_owned(),
        }),
        explains: explains.into(),
    }
}

/// Checks that a form does not hold a column.
pub(super) fn reads(form: &Form, column: &str) -> bool {
    form.columns().any(|known| known == column)
}
