//! The public keys of a dump: what each can verify, when it was valid, and whether a trust anchor reaches it.
//!
//! ```text
//! vault_signing_keys  key_id (16 hex), public_key (base64 SPKI DER), algorithm (Ed25519 | ES256, any case),
//!                     status (active | retired), activated_at, retired_at, retired_by
//! key_id              first 16 hex of SHA-256(SPKI DER); the whole digest is the trust anchor
//! ```
//!
//! Without anchors the registry is trusted as it stands. With anchors, the key statements say which keys are reached
//! and when they were valid ([`super::statements`]); what the columns say otherwise is a finding. Built once,
//! before the rows are read, and shared by all threads. A public key that the caller trusts and that the
//! registry lacks is taken in without a window.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;
use p256::ecdsa::signature::Verifier as _;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::claims::{EDDSA, ES256, Opened};
use super::codes::{Code, Flaw};
use super::statements::{self, Distrust, Outcome};
use super::times::{millis, registry_time, spell};
use crate::error::{Error, Result};
use crate::keys::KeyRing;
use crate::report::{Finding, FindingKind};
use crate::signature;

/// The name of the registry's file and table.
pub(super) const KEYS: &str = "vault_signing_keys";

/// The DER prefix of an uncompressed P-256 point as SubjectPublicKeyInfo (RFC 5480 §2); 65 bytes follow.
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The DER prefix of an Ed25519 key as SubjectPublicKeyInfo (RFC 8410 §4); 32 bytes follow.
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A small table's row.
pub(super) type JsonRow = Map<String, Value>;

/// A public key that signatures are verified with.
#[derive(Debug, Clone)]
pub(super) enum PublicKey {
    Ed25519(VerifyingKey),
    P256(Box<p256::ecdsa::VerifyingKey>),
    /// It is no key that can be used; why.
    Unusable(String),
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo.
    pub(super) fn of_spki(der: &[u8]) -> Self {
        if let Some(key) = der.strip_prefix(&ED25519_SPKI) {
            return match signature::public_key(key) {
                Ok(key) => Self::Ed25519(key),
                Err(refusal) => Self::Unusable(refusal.to_string()),
            };
        }
        match der.strip_prefix(&P256_SPKI).map(p256::ecdsa::VerifyingKey::from_sec1_bytes) {
            Some(Ok(key)) => Self::P256(Box::new(key)),
            Some(Err(_)) => Self::Unusable("the point is not on the curve P-256".into()),
            None => Self::Unusable(format!(
                "{} bytes that are no SubjectPublicKeyInfo of an Ed25519 or P-256 key",
                der.len()
            )),
        }
    }

    /// Returns the COSE algorithm that the key is for.
    pub(super) const fn alg(&self) -> Option<i128> {
        match self {
            Self::Ed25519(_) => Some(EDDSA),
            Self::P256(_) => Some(ES256),
            Self::Unusable(_) => None,
        }
    }

    /// Verifies a signature: Ed25519 by the one strict rule of [`signature::verify`], ES256 as `r || s` (RFC 9053 §2.1).
    ///
    /// # Errors
    /// The reason why it is refused.
    pub(super) fn verify(&self, alg: i128, message: &[u8], signature: &[u8]) -> Result<(), String> {
        match self {
            Self::Unusable(why) => Err(why.clone()),
            key if key.alg() != Some(alg) => Err(format!(
                "the signature says {}, the key is for {}",
                alg_name(Some(alg)),
                alg_name(key.alg())
            )),
            Self::Ed25519(key) => {
                signature::verify(key, message, signature).map_err(|refusal| refusal.to_string())
            }
            Self::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .and_then(|signature| key.verify(message, &signature))
                .map_err(|_| "the signature does not verify".to_owned()),
        }
    }
}

/// Names a COSE algorithm.
pub(super) fn alg_name(alg: Option<i128>) -> String {
    match alg {
        Some(EDDSA) => "Ed25519".into(),
        Some(ES256) => "ES256".into(),
        Some(other) => format!("COSE algorithm {other}"),
        None => "no algorithm".into(),
    }
}

/// Reads the key id that a column names.
pub(super) fn named_key(column: crate::value::Value<'_>) -> Result<[u8; 8], Flaw> {
    let mut kid = [0; 8];
    match column.as_text() {
        Some(id) if hex::decode_to_slice(id, &mut kid).is_ok() => Ok(kid),
        Some(id) => Err(no_such_key(id)),
        None => Err(no_such_key(column.type_name())),
    }
}

/// Says that the registry has no such key.
pub(super) fn no_such_key(name: &str) -> Flaw {
    Flaw::between(
        Code::SignatureMissingKey,
        name,
        "no such key",
        "the key that signed is not in the registry",
    )
}

/// Reads the name of an algorithm in the registry.
fn alg_of_name(name: &str) -> Option<i128> {
    [("Ed25519", EDDSA), ("ES256", ES256)]
        .into_iter()
        .find_map(|(known, alg)| known.eq_ignore_ascii_case(name).then_some(alg))
}

/// One key of the registry.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) public: PublicKey,
    /// What the registry calls its algorithm.
    pub(super) algorithm: String,
    /// Milliseconds since 1970; `None` is unbounded.
    pub(super) activated: Option<i64>,
    pub(super) retired: Option<i64>,
    /// Whether a trust anchor reaches it; true when no anchor is given.
    pub(super) anchored: bool,
    /// What the caller's distrust leaves of it.
    pub(super) distrust: Distrust,
}

/// Why a key does not stand behind a signature.
#[derive(Debug)]
pub(super) enum NoKey {
    Missing,
    Unanchored,
    Distrusted,
}

/// The keys of a dump.
#[derive(Debug, Default)]
pub(super) struct Registry {
    keys: Vec<Key>,
    by_kid: HashMap<[u8; 8], usize>,
    /// When the first key became active, in milliseconds: from then on nothing may be unsigned.
    pub(super) signing_since: Option<i64>,
    /// Whether the caller gave trust anchors.
    pub(super) anchored: bool,
    /// Whether the registry was there at all.
    pub(super) present: bool,
}

impl Registry {
    /// Reads the registry, and with anchors the key statements. Returns what is wrong with them.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the anchors and distrusted keys of the caller contradict each other.
    pub(super) fn build(
        rows: Option<&[JsonRow]>,
        statement_rows: Option<&[JsonRow]>,
        ring: &KeyRing,
    ) -> Result<(Self, Vec<Finding>)> {
        let mut findings = Vec::new();
        let mut registry =
            Self { present: rows.is_some(), anchored: !ring.trust_anchors().is_empty(), ..Self::default() };
        check_distrust(ring)?;
        let rows = rows.unwrap_or_default();
        let mut read = Vec::with_capacity(rows.len());
        for (at, row) in rows.iter().enumerate() {
            match RegistryRow::read(row) {
                Ok(row) => read.push((at, row)),
                Err(why) => findings.push(about_row(
                    KEYS,
                    at,
                    text(row, "key_id"),
                    FindingKind::Malformed,
                    format!("{}: {why}", Code::RegistryRowMalformed.name()),
                )),
            }
        }
        let outcome = if registry.anchored {
            let spkis = read.iter().map(|(_, row)| (row.digest, row.spki.clone())).collect();
            let outcome = statements::judge(statement_rows, ring, spkis);
            findings.extend(outcome.findings.iter().cloned());
            Some(outcome)
        } else {
            None
        };
        for (at, row) in &read {
            if let Some(outcome) = &outcome {
                findings.extend(row.drift(*at, outcome, statement_rows.is_some()));
            }
            registry.add(row, outcome.as_ref());
        }
        for key in ring.public_keys() {
            let spki = signature::spki_der(key);
            let row = RegistryRow::given(&spki);
            if !row.kid().is_some_and(|kid| registry.by_kid.contains_key(&kid)) {
                registry.add(&row, outcome.as_ref());
            }
        }
        Ok((registry, findings))
    }

    fn add(&mut self, row: &RegistryRow, outcome: Option<&Outcome>) {
        let signed = outcome.and_then(|outcome| outcome.windows.get(&row.digest));
        let whole = row.key_id == hex::encode(&row.digest[..8]);
        let anchored = outcome.is_none_or(|outcome| whole && outcome.trusted.contains(&row.digest));
        let of_column = row.activated.map(millis);
        let activated = signed.and_then(|window| window.activated).map(millis).or(of_column);
        let retired = signed.and_then(|window| window.retired).or(row.retired).map(millis);
        if let Some(since) = activated.into_iter().chain(of_column).min() {
            self.signing_since = Some(self.signing_since.map_or(since, |known| known.min(since)));
        }
        let key = Key {
            id: row.key_id.clone(),
            public: row.public.clone(),
            algorithm: row.algorithm.clone(),
            activated,
            retired,
            anchored,
            distrust: outcome
                .and_then(|outcome| outcome.distrust.get(&row.digest).copied())
                .unwrap_or(Distrust::None),
        };
        if let Some(kid) = row.kid() {
            self.by_kid.insert(kid, self.keys.len());
        }
        self.keys.push(key);
    }

    /// Returns a key by its place.
    pub(super) fn key(&self, at: u16) -> Option<&Key> {
        self.keys.get(usize::from(at))
    }

    /// Returns the names of the keys in the order of their places.
    pub(super) fn labels(&self) -> Vec<String> {
        self.keys.iter().map(|key| key.id.clone()).collect()
    }

    /// Finds the key of a key id.
    pub(super) fn find(&self, kid: [u8; 8]) -> Option<(u16, &Key)> {
        let at = *self.by_kid.get(&kid)?;
        Some((u16::try_from(at).ok()?, self.keys.get(at)?))
    }

    /// Reports whether something written at this time (in milliseconds) without a signature is too late to be.
    pub(super) fn must_be_signed(&self, written: Option<i64>) -> bool {
        match (self.signing_since, written) {
            (Some(since), Some(written)) => written >= since,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// Finds the key that stands behind a signature made at a time (milliseconds) that windows do not bind.
    pub(super) fn standing(&self, kid: [u8; 8], written: Option<i64>) -> Result<(u16, &Key), NoKey> {
        let (at, key) = self.find(kid).ok_or(NoKey::Missing)?;
        match key.distrust.of(written) {
            Some(_) => Err(NoKey::Distrusted),
            None if !key.anchored => Err(NoKey::Unanchored),
            None => Ok((at, key)),
        }
    }

    /// Checks the signature of a checkpoint, a leaf or a tree head: key, anchor, algorithm, signature.
    pub(super) fn check(
        &self,
        opened: &Opened<'_>,
        kid: [u8; 8],
        written: Option<i64>,
        codes: &SealCodes,
        buffer: &mut Vec<u8>,
    ) -> Result<u16, Flaw> {
        let name = hex::encode(kid);
        let (at, key) = self.standing(kid, written).map_err(|why| match why {
            NoKey::Missing => no_such_key(&name),
            NoKey::Unanchored => Flaw::between(
                codes.unanchored,
                "a key that an anchor reaches",
                name.clone(),
                "no trust anchor reaches the key",
            ),
            NoKey::Distrusted => Flaw::between(
                codes.unanchored,
                "a key that is not distrusted",
                name.clone(),
                "signed by a key that is distrusted from then on",
            ),
        })?;
        let alg = opened.claims.alg.filter(|alg| matches!(*alg, EDDSA | ES256)).ok_or_else(|| {
            Flaw::between(
                Code::UnsupportedAlgorithm,
                "Ed25519 or ES256",
                alg_name(opened.claims.alg),
                "the envelope's algorithm is not one of the two that there are",
            )
        })?;
        opened.envelope.signed_bytes(buffer);
        key.public.verify(alg, buffer, opened.envelope.signature).map_err(|why| {
            Flaw::between(codes.invalid, format!("a signature by {name}"), why, "the signature does not hold")
        })?;
        Ok(at)
    }
}

/// The names that tell the signatures of checkpoints, leaves and tree heads apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct SealCodes {
    pub(super) unanchored: Code,
    pub(super) invalid: Code,
}

impl Key {
    /// Returns whether the registry's algorithm and the envelope's are the same.
    pub(super) fn is_for(&self, alg: Option<i128>) -> bool {
        alg.is_some() && alg_of_name(&self.algorithm) == alg
    }
}

/// A row of the registry, as it can be read.
struct RegistryRow {
    key_id: String,
    spki: Vec<u8>,
    digest: [u8; 32],
    public: PublicKey,
    algorithm: String,
    status: Option<String>,
    /// Microseconds since 1970.
    activated: Option<i64>,
    retired: Option<i64>,
}

impl RegistryRow {
    fn read(row: &JsonRow) -> Result<Self, String> {
        let key_id = text(row, "key_id").ok_or("the row has no text in key_id")?;
        let time = |name: &str| match row.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => {
                registry_time(text).map(Some).ok_or_else(|| format!("{name} is no time: {text:?}"))
            }
            Some(other) => Err(format!("{name} is no time: {other}")),
        };
        let spki = text(row, "public_key").and_then(|key| STANDARD.decode(key).ok());
        let public = match &spki {
            Some(spki) => PublicKey::of_spki(spki),
            None => PublicKey::Unusable("the registry's public_key is not base64".into()),
        };
        let spki = spki.unwrap_or_default();
        Ok(Self {
            digest: Sha256::digest(&spki).into(),
            spki,
            public,
            algorithm: text(row, "algorithm").unwrap_or_default(),
            status: text(row, "status"),
            activated: time("activated_at")?,
            retired: time("retired_at")?,
            key_id,
        })
    }

    /// Makes the row of a key that the caller trusts.
    fn given(spki: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(spki).into();
        Self {
            key_id: hex::encode(&digest[..8]),
            spki: spki.to_vec(),
            digest,
            public: PublicKey::of_spki(spki),
            algorithm: "Ed25519".into(),
            status: None,
            activated: None,
            retired: None,
        }
    }

    /// Returns the id as an envelope has it.
    fn kid(&self) -> Option<[u8; 8]> {
        let mut kid = [0; 8];
        let lower = !self.key_id.bytes().any(|byte| byte.is_ascii_uppercase());
        (lower && hex::decode_to_slice(&self.key_id, &mut kid).is_ok()).then_some(kid)
    }

    fn is_retired(&self) -> bool {
        self.retired.is_some() || self.status.as_deref() == Some("retired")
    }

    /// Compares the columns with what the statements sign.
    fn drift(&self, at: usize, outcome: &Outcome, has_statements: bool) -> Option<Finding> {
        let signed = outcome.windows.get(&self.digest);
        let closed = signed.and_then(|window| window.retired);
        let finding = |code: Code, expected: String, found: String, explains: &str| {
            let mut finding = about_row(
                KEYS,
                at,
                Some(self.key_id.clone()),
                code.kind(),
                format!("{}: {explains}", code.name()),
            );
            (finding.expected, finding.found) = (Some(expected), Some(found));
            Some(finding)
        };
        if self.is_retired() && closed.is_none() && has_statements {
            return finding(
                Code::KeyClosureInvalid,
                "a closure signed by a key that an anchor reaches".into(),
                "none that counts".into(),
                "the registry says that the key is retired, but no closure that counts does",
            );
        }
        if !outcome.trusted.contains(&self.digest) {
            return None;
        }
        let spelt = |time: Option<i64>| time.map_or_else(|| "none".to_owned(), spell);
        let window = signed?;
        if let Some(activated) = window.activated
            && self.activated.map(millis) != Some(millis(activated))
        {
            return finding(
                Code::KeyWindowDrift,
                spell(activated),
                spelt(self.activated),
                "activated_at is not what the key's statements sign",
            );
        }
        let status_fits = self.status.as_deref() == Some("retired");
        if closed.is_some() && (self.retired.map(millis) != closed.map(millis) || !status_fits) {
            return finding(
                Code::KeyWindowDrift,
                format!("retired {}", spelt(closed)),
                format!("{} {}", self.status.as_deref().unwrap_or("no status"), spelt(self.retired)),
                "the key's retirement is not what its closure signs",
            );
        }
        None
    }
}

/// Refuses a key that is anchored and distrusted for ever, and distrust without an anchor.
fn check_distrust(ring: &KeyRing) -> Result<()> {
    let anchors = ring.trust_anchors();
    for distrusted in ring.distrusted_keys() {
        let name = hex::encode(distrusted.digest);
        if anchors.is_empty() {
            return Err(Error::InvalidInput(format!(
                "distrusted key sha256:{name}: give a trust anchor too; without one the registry is trusted as it stands"
            )));
        }
        if distrusted.from_micros.is_none() && anchors.contains(&distrusted.digest) {
            return Err(Error::InvalidInput(format!(
                "key sha256:{name} is a trust anchor and distrusted for ever: say from when (@<RFC 3339 time>)"
            )));
        }
    }
    Ok(())
}

/// Reads a text member.
pub(super) fn text(row: &JsonRow, name: &str) -> Option<String> {
    row.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// Makes a finding about a row of a small table; `at` counts from 0.
pub(super) fn about_row(
    table: &str,
    at: usize,
    record: Option<String>,
    kind: FindingKind,
    explains: String,
) -> Finding {
    Finding {
        kind,
        chain: table.to_owned(),
        position: u64::try_from(at).ok().map(|at| at + 1),
        last: None,
        record,
        expected: None,
        found: None,
        explains,
    }
}
