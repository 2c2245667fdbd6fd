//! The rule of one row of `audit_vault`: everything that can be said of it without its neighbours.
//!
//! The checks in their order; a row has one finding, the first that applies. What needs the neighbours (position, genesis, link,
//! an unsigned row after a signed one) is decided when the chain is in order ([`super::vault`]) and goes
//! before all of these but the first:
//!
//! ```text
//! UNSUPPORTED_FORMAT      no cose_sign1: a row from before the signed format
//! MALFORMED_ENTRY         payload_hash is no text                (position, genesis and link are decided here)
//! HASH_MISMATCH           SHA-256 of the envelope is not payload_hash
//! MALFORMED_ENTRY         created_at is no RFC 3339 time with an offset
//! COSE_DECODE_FAILED      the envelope, its header or its payload cannot be read
//! COSE_HEADER_MISMATCH    the signed position or previous hash is not the row's
//! PAYLOAD_BINDING_MISMATCH, OIDC_ACTOR_MISMATCH, ACTOR_ATTRIBUTION_MISMATCH
//! ENTRY_UNSIGNED          without key id, written when signing had begun
//! SIGNING_KEY_DRIFT       the column signing_key_id is not the signed key id
//! SIGNATURE_MISSING_KEY, ALG_MISMATCH, KEY_NOT_YET_ACTIVE, KEY_EXPIRED, SIGNING_KEY_UNANCHORED, SIGNATURE_INVALID
//! ```
//!
//! Runs in the worker threads; the signature is checked where the row was read. `created_at`, the envelope's `iss`,
//! `sub` and `iat` and the subject's digest are compared with nothing: the signer does not bind them.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::binding::{self, View};
use super::claims::{Actor, Opened, Previous};
use super::codes::{Code, Flaw};
use super::cose::{member, text_member};
use super::items::{Item, Items, Places, Signed, link, uuid, whole};
use super::registry::{Registry, alg_name, no_such_key};
use super::statements::Counts;
use super::times::{millis, row_time, spell};
use crate::canonical::RowForm;
use crate::error::Result;
use crate::format::Link;
use crate::pipeline::Reading;
use crate::value::{Columns, Row, Value};

/// The name of the vault's file and table.
pub(super) const VAULT: &str = "audit_vault";

/// The columns that are read, in the order of [`Entry`].
pub(super) const COLUMNS: [&str; 17] = [
    "id",
    "record_id",
    "chain_key",
    "entry_type",
    "payload",
    "payload_hash",
    "previous_hash",
    "chain_position",
    "cose_sign1",
    "signing_key_id",
    "actor_key_id",
    "actor_role",
    "actor_owner_id",
    "actor_oidc_iss",
    "actor_oidc_sub",
    "actor_oidc_synthesized",
    "created_at",
];

/// The values of a row.
#[derive(Debug, Clone, Copy)]
struct Entry<'r> {
    id: Value<'r>,
    record_id: Value<'r>,
    chain_key: Value<'r>,
    entry_type: Value<'r>,
    payload: Value<'r>,
    payload_hash: Value<'r>,
    previous_hash: Value<'r>,
    position: Value<'r>,
    cose: Value<'r>,
    key_id: Value<'r>,
    actor_key: Value<'r>,
    actor_role: Value<'r>,
    actor_owner: Value<'r>,
    oidc_iss: Value<'r>,
    oidc_sub: Value<'r>,
    oidc_synthesized: Value<'r>,
    created_at: Value<'r>,
}

impl<'r> Entry<'r> {
    fn new(values: [Value<'r>; COLUMNS.len()]) -> Self {
        let [
            id,
            record_id,
            chain_key,
            entry_type,
            payload,
            payload_hash,
            previous_hash,
            position,
            cose,
            key_id,
            actor_key,
            actor_role,
            actor_owner,
            oidc_iss,
            oidc_sub,
            oidc_synthesized,
            created_at,
        ] = values;
        Self {
            id,
            record_id,
            chain_key,
            entry_type,
            payload,
            payload_hash,
            previous_hash,
            position,
            cose,
            key_id,
            actor_key,
            actor_role,
            actor_owner,
            oidc_iss,
            oidc_sub,
            oidc_synthesized,
            created_at,
        }
    }

    /// Returns the chain that the row says it is of.
    fn chain(&self) -> String {
        if let Some(key) = self.chain_key.as_text().filter(|key| !key.is_empty()) {
            return key.to_owned();
        }
        if let Some(record) = self.record_id.as_text() {
            return record.to_owned();
        }
        // Before chain_key there was, a schema event said its organisation in its payload only.
        let payload = match self.payload {
            Value::Json(text) => serde_json::from_str::<serde_json::Value>(text).unwrap_or_default(),
            _ => serde_json::Value::Null,
        };
        let org = payload.get("orgId").and_then(serde_json::Value::as_str).unwrap_or("__platform__");
        format!("schema:{org}")
    }
}

/// The rule of one worker thread.
pub(super) struct EntryRule {
    places: Places<{ COLUMNS.len() }>,
    registry: Arc<Registry>,
    form: RowForm,
    envelope: Vec<u8>,
    signed: Vec<u8>,
}

impl EntryRule {
    pub(super) fn new(columns: &Columns, registry: Arc<Registry>) -> Self {
        Self {
            places: Places::new(columns, COLUMNS),
            registry,
            form: RowForm::new(columns),
            envelope: Vec::new(),
            signed: Vec::new(),
        }
    }

    /// Reads a row: its chain and what is kept of it.
    pub(super) fn read(&mut self, row: &Row<'_>) -> (String, Item) {
        let entry = Entry::new(self.places.of(row));
        let mut signed = Signed::No;
        let flaw = self.check(&entry, &mut signed).err();
        let item = Item {
            chain: String::new(),
            id: entry.id.as_text().unwrap_or("").to_owned(),
            place: whole(entry.position),
            prev: link(entry.previous_hash),
            link: link(entry.payload_hash),
            signed_prev: Link::Genesis,
            row_leaf: self.form.leaf(row),
            tree_leaf: [0; 32],
            signed,
            derived: false,
            flaw,
        };
        (entry.chain(), item)
    }

    /// Checks a row by itself. `signed` says how far that came.
    fn check(&mut self, entry: &Entry<'_>, signed: &mut Signed) -> Result<(), Flaw> {
        let Some(cose) = entry.cose.as_text() else {
            return Err(match entry.cose {
                Value::Absent | Value::Null => Flaw::new(
                    Code::UnsupportedFormat,
                    "the row has no envelope in cose_sign1: it is of an engine before the signed format, which is not verified",
                ),
                other => Flaw::new(Code::MalformedEntry, format!("cose_sign1 is {}", other.type_name())),
            });
        };
        *signed = Signed::Unproven;
        let Some(stored) = entry.payload_hash.as_text() else {
            return Err(Flaw::new(
                Code::MalformedEntry,
                format!("payload_hash is {}", entry.payload_hash.type_name()),
            ));
        };
        let mut bytes = std::mem::take(&mut self.envelope);
        bytes.clear();
        let result = match STANDARD.decode_vec(cose, &mut bytes) {
            Ok(()) => self.check_envelope(entry, stored, &bytes, signed),
            Err(error) => Err(Flaw::between(
                Code::HashMismatch,
                stored,
                error.to_string(),
                "the envelope is not base64, so its hash is not payload_hash",
            )),
        };
        self.envelope = bytes;
        result
    }

    fn check_envelope(
        &mut self,
        entry: &Entry<'_>,
        stored: &str,
        bytes: &[u8],
        signed: &mut Signed,
    ) -> Result<(), Flaw> {
        let mut digest = [0_u8; 64];
        // 32 bytes are 64 digits.
        let _ = hex::encode_to_slice(Sha256::digest(bytes), &mut digest);
        if digest != stored.as_bytes() {
            return Err(Flaw::between(
                Code::HashMismatch,
                stored,
                String::from_utf8_lossy(&digest),
                "the envelope does not hash to payload_hash",
            ));
        }
        let created = entry.created_at.as_text().and_then(row_time).map(millis).ok_or_else(|| {
            let found = entry.created_at.as_text().map_or(entry.created_at.type_name(), |text| text);
            Flaw::between(
                Code::MalformedEntry,
                "an RFC 3339 time with an offset",
                found,
                "created_at cannot be read",
            )
        })?;
        let opened = Opened::decode(bytes).map_err(|why| {
            Flaw::new(Code::CoseDecodeFailed, format!("the envelope cannot be read: {why}"))
        })?;
        check_header(entry, &opened)?;
        let view = View { record_id: entry.record_id, entry_type: entry.entry_type, payload: entry.payload };
        let predicate = opened
            .statement
            .predicate
            .ok_or_else(|| Flaw::new(Code::PayloadBindingMismatch, "the envelope signs no predicate"))?;
        let bound =
            binding::check(predicate, &view).map_err(|why| Flaw::new(Code::PayloadBindingMismatch, why))?;
        check_oidc(entry, bound.on_behalf_of)?;
        check_actor(entry, opened.claims.actor)?;
        *signed = self.check_signature(entry, &opened, created)?;
        Ok(())
    }

    /// Checks who signed, whether they may, and the signature. `created` is in milliseconds.
    fn check_signature(
        &mut self,
        entry: &Entry<'_>,
        opened: &Opened<'_>,
        created: i64,
    ) -> Result<Signed, Flaw> {
        let column = entry.key_id;
        let Some(kid) = opened.claims.signer() else {
            if !column.is_null() {
                return Err(Flaw::between(
                    Code::SigningKeyDrift,
                    "no key id",
                    column.as_text().unwrap_or(column.type_name()),
                    "signing_key_id names a key, but the envelope is not signed",
                ));
            }
            if self.registry.must_be_signed(Some(created)) {
                return Err(Flaw::between(
                    Code::EntryUnsigned,
                    "a signature",
                    "none",
                    "the entry is not signed, although the first key was active when it was written",
                ));
            }
            return Ok(Signed::No);
        };
        let name = hex::encode(kid);
        if column.as_text() != Some(&name) {
            return Err(Flaw::between(
                Code::SigningKeyDrift,
                name,
                column.as_text().unwrap_or(column.type_name()),
                "signing_key_id is not the key that the envelope names",
            ));
        }
        let (at, key) = self.registry.find(kid).ok_or_else(|| no_such_key(&name))?;
        let alg = opened.claims.alg;
        if !key.is_for(alg) {
            return Err(Flaw::between(
                Code::AlgMismatch,
                key.algorithm.clone(),
                alg_name(alg),
                "the envelope's algorithm is not the one that the registry has for the key",
            ));
        }
        if let Some(activated) = key.activated.filter(|activated| created < *activated) {
            return Err(Flaw::between(
                Code::KeyNotYetActive,
                format!("at or after {}", spell(activated.saturating_mul(1_000))),
                spell(created.saturating_mul(1_000)),
                "the entry was written before its key was active",
            ));
        }
        if let Some(retired) = key.retired.filter(|retired| created > *retired) {
            return Err(Flaw::between(
                Code::KeyExpired,
                format!("at or before {}", spell(retired.saturating_mul(1_000))),
                spell(created.saturating_mul(1_000)),
                "the entry was written after its key was retired",
            ));
        }
        let counts = key.distrust.of(Some(created));
        if counts == Some(Counts::Nothing) {
            return Err(Flaw::between(
                Code::SignedByDistrustedKey,
                "a key that is not distrusted",
                name,
                "signed by a key that is distrusted, and no trusted key retired it afterwards",
            ));
        }
        // A key that was retired by a trusted one is accounted for even where no anchor reaches it.
        if !key.anchored && counts.is_none() {
            return Err(Flaw::between(
                Code::SigningKeyUnanchored,
                "a key that an anchor reaches",
                name,
                "no trust anchor reaches the key",
            ));
        }
        opened.envelope.signed_bytes(&mut self.signed);
        key.public.verify(alg.unwrap_or(0), &self.signed, opened.envelope.signature).map_err(|why| {
            Flaw::between(
                Code::SignatureInvalid,
                format!("a signature by {name}"),
                why,
                "the signature does not hold",
            )
        })?;
        Ok(if counts.is_some() { Signed::Accounted(at) } else { Signed::By(at) })
    }
}

/// Compares the signed place in the chain with the row's.
fn check_header(entry: &Entry<'_>, opened: &Opened<'_>) -> Result<(), Flaw> {
    let position = whole(entry.position).map(i128::from);
    if opened.claims.position != position || position.is_none() {
        let spelt = |position: Option<i128>| position.map_or("none".into(), |at| at.to_string());
        return Err(Flaw::between(
            Code::CoseHeaderMismatch,
            spelt(opened.claims.position),
            spelt(position),
            "the signed position is not the row's",
        ));
    }
    let fits = match (opened.claims.previous, entry.previous_hash) {
        (Previous::Genesis, Value::Null) => true,
        (Previous::Hash(hash), Value::Text(text)) => hash.len() == 32 && hex::encode(hash) == text,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(Flaw::between(
        Code::CoseHeaderMismatch,
        match opened.claims.previous {
            Previous::Genesis => "no previous record".into(),
            Previous::Hash(hash) => hex::encode(hash),
            Previous::None => "none".into(),
        },
        entry.previous_hash.as_text().unwrap_or(entry.previous_hash.type_name()),
        "the signed previous hash is not the row's",
    ))
}

/// Compares the OIDC columns with what was signed.
fn check_oidc(entry: &Entry<'_>, on_behalf_of: Option<&[u8]>) -> Result<(), Flaw> {
    let (iss, sub) = (entry.oidc_iss, entry.oidc_sub);
    let shown = || {
        let part = |value: Value<'_>| value.as_text().map_or(value.type_name().to_owned(), str::to_owned);
        format!("iss {}, sub {}", part(iss), part(sub))
    };
    let from_signed = match entry.oidc_synthesized {
        Value::Bool(synthesized) => synthesized,
        Value::Absent => !(iss.is_null() && sub.is_null()),
        Value::Null => return Ok(()),
        other => {
            return Err(Flaw::new(
                Code::OidcActorMismatch,
                format!("actor_oidc_synthesized is {}", other.type_name()),
            ));
        }
    };
    if !from_signed {
        if matches!(entry.oidc_synthesized, Value::Absent) || (iss.is_null() && sub.is_null()) {
            return Ok(());
        }
        return Err(Flaw::between(
            Code::OidcActorMismatch,
            "no OIDC actor",
            shown(),
            "the row has an OIDC actor although it says that none was made out",
        ));
    }
    let oidc = on_behalf_of.and_then(|signed| member(signed, "oidc").ok().flatten());
    let signed = oidc.map(|oidc| (text_member(oidc, "iss"), text_member(oidc, "sub")));
    match signed {
        Some((Some(signed_iss), Some(signed_sub)))
            if iss.as_text() == Some(signed_iss) && sub.as_text() == Some(signed_sub) =>
        {
            Ok(())
        }
        signed => {
            let expected = match signed {
                Some((signed_iss, signed_sub)) => {
                    format!(
                        "iss {}, sub {}",
                        signed_iss.unwrap_or("nothing"),
                        signed_sub.unwrap_or("nothing")
                    )
                }
                None => "no OIDC actor".into(),
            };
            Err(Flaw::between(
                Code::OidcActorMismatch,
                expected,
                shown(),
                "the OIDC actor of the row is not the signed one",
            ))
        }
    }
}

/// Compares the actor columns with the signed claim.
fn check_actor(entry: &Entry<'_>, actor: Option<Actor<'_>>) -> Result<(), Flaw> {
    let Some(actor) = actor else {
        return Err(Flaw::new(Code::ActorAttributionMismatch, "the envelope does not sign who acted"));
    };
    let is_uuid = |value: Value<'_>, signed: &[u8]| {
        value.as_text().and_then(uuid).is_some_and(|uuid| uuid.as_slice() == signed)
    };
    let differs = [
        ("actor_key_id", is_uuid(entry.actor_key, actor.key), hex::encode(actor.key), entry.actor_key),
        (
            "actor_role",
            entry.actor_role.as_text() == Some(actor.role),
            actor.role.to_owned(),
            entry.actor_role,
        ),
        (
            "actor_owner_id",
            is_uuid(entry.actor_owner, actor.owner),
            hex::encode(actor.owner),
            entry.actor_owner,
        ),
    ];
    for (column, fits, signed, found) in differs {
        if !fits {
            return Err(Flaw::between(
                Code::ActorAttributionMismatch,
                signed,
                found.as_text().unwrap_or(found.type_name()),
                format!("{column} is not what was signed"),
            ));
        }
    }
    Ok(())
}

/// Reads rows of the vault in a worker thread.
pub(super) struct EntryReading(pub(super) EntryRule);

impl Reading for EntryReading {
    type Batch = Items;

    fn begin(&mut self) -> Items {
        Items::default()
    }

    fn row(&mut self, row: &Row<'_>, batch: &mut Items) -> Result<()> {
        let (chain, mut item) = self.0.read(row);
        if uuid(&chain).is_none() {
            item.chain.clone_from(&chain);
        }
        // Rows without a place stand at the end; text that is a number is sorted as one, and still no number.
        let sort =
            item.place.or_else(|| self.0.places.of(row)[7].as_text()?.parse().ok()).unwrap_or(i64::MAX);
        batch.push(&chain, sort, &item);
        Ok(())
    }
}
