//! The rule of one row of `vault_checkpoints`: everything that can be said of it without the chain that it anchors.
//!
//! ```text
//! joined with the chain by chain_key (record_id where there is none); first that applies:
//! CHECKPOINT_ROW_MISSING     no row stands at chain_position            decided at the join ([`super::vault`])
//! CHECKPOINT_HASH_MISMATCH   that row's payload_hash is another         decided at the join
//! CHECKPOINT_CLAIM_MISMATCH  the envelope does not sign the row: position, chain_tip_hash, subject (SHA-256 of the
//!                            16 bytes of record_id), key id
//! CHECKPOINT_UNSIGNED        no key id, written when signing had begun
//! CHAIN_SIGNATURE_MISSING_KEY, CHECKPOINT_KEY_UNANCHORED, CHAIN_UNSUPPORTED_ALGORITHM, CHECKPOINT_SIGNATURE_INVALID
//! ```
//!
//! Checkpoints are not held to the windows of their keys. In a dump of API 1.x an unsigned checkpoint is in order and
//! the key of the column counts; that a signed one says what its columns say is checked after its signature.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::Era;
use super::claims::Opened;
use super::codes::{Code, Flaw};
use super::cose::text_member;
use super::items::{Item, Items, Places, Signed, link, uuid, whole};
use super::registry::{Registry, SealCodes, named_key};
use super::times::{millis, row_time};
use crate::error::Result;
use crate::format::Link;
use crate::pipeline::Reading;
use crate::value::{Columns, Row, Value};

/// The name of the checkpoints' file and table.
pub(super) const CHECKPOINTS: &str = "vault_checkpoints";

const COLUMNS: [&str; 8] = [
    "id",
    "record_id",
    "chain_key",
    "chain_position",
    "payload_hash",
    "cose_sign1",
    "signing_key_id",
    "created_at",
];

const CODES: SealCodes =
    SealCodes { unanchored: Code::CheckpointKeyUnanchored, invalid: Code::CheckpointSignatureInvalid };

/// The rule of one worker thread.
pub(super) struct CheckpointReading {
    places: Places<{ COLUMNS.len() }>,
    registry: Arc<Registry>,
    era: Era,
    buffer: Vec<u8>,
}

/// The values that are checked.
struct Checkpoint<'r> {
    record_id: Value<'r>,
    position: Option<i64>,
    payload_hash: Value<'r>,
    key_id: Value<'r>,
    /// Milliseconds since 1970.
    written: Option<i64>,
}

impl CheckpointReading {
    pub(super) fn new(columns: &Columns, registry: Arc<Registry>, era: Era) -> Self {
        Self { places: Places::new(columns, COLUMNS), registry, era, buffer: Vec::new() }
    }

    /// Checks the envelope; `Ok` says who signed.
    fn check(&mut self, checkpoint: &Checkpoint<'_>, cose: Value<'_>) -> Result<Signed, Flaw> {
        let unreadable = |why: String| {
            let code = match self.era {
                Era::Two => Code::CheckpointClaimMismatch,
                Era::One => Code::CheckpointSignatureInvalid,
            };
            Flaw::new(code, format!("the checkpoint's envelope cannot be read: {why}"))
        };
        let unsigned_column = checkpoint.key_id.is_null();
        if self.era == Era::One && unsigned_column {
            return Ok(Signed::No);
        }
        let bytes = cose
            .as_text()
            .ok_or_else(|| format!("it is {}", cose.type_name()))
            .and_then(|text| STANDARD.decode(text).map_err(|error| error.to_string()))
            .map_err(unreadable)?;
        let opened = Opened::decode(&bytes).map_err(unreadable)?;
        match self.era {
            Era::Two => {
                check_claim(checkpoint, &opened)?;
                self.check_two(checkpoint, &opened)
            }
            Era::One => self.check_one(checkpoint, &opened),
        }
    }

    fn check_two(&mut self, checkpoint: &Checkpoint<'_>, opened: &Opened<'_>) -> Result<Signed, Flaw> {
        let Some(kid) = opened.claims.signer() else {
            if self.registry.must_be_signed(checkpoint.written) {
                return Err(Flaw::between(
                    Code::CheckpointUnsigned,
                    "a signature",
                    "none",
                    "the checkpoint is not signed, although the first key was active when it was written",
                ));
            }
            return Ok(Signed::No);
        };
        self.registry.check(opened, kid, checkpoint.written, &CODES, &mut self.buffer).map(Signed::By)
    }

    fn check_one(&mut self, checkpoint: &Checkpoint<'_>, opened: &Opened<'_>) -> Result<Signed, Flaw> {
        if opened.envelope.is_zero_signature() {
            return Ok(Signed::No);
        }
        let kid = named_key(checkpoint.key_id)?;
        let at = self.registry.check(opened, kid, checkpoint.written, &CODES, &mut self.buffer)?;
        check_tip(checkpoint, opened)?;
        Ok(Signed::By(at))
    }
}

fn mismatch(expected: String, found: String, what: &str) -> Flaw {
    Flaw::between(
        Code::CheckpointClaimMismatch,
        expected,
        found,
        format!("the signed {what} is not the checkpoint's"),
    )
}

/// Compares the signed position and hash with the columns.
fn check_tip(checkpoint: &Checkpoint<'_>, opened: &Opened<'_>) -> Result<(), Flaw> {
    signed_tip(checkpoint.position.map(i128::from), checkpoint.payload_hash, opened)
        .map_err(|(expected, found, what)| mismatch(expected, found, what))
}

/// Compares the position and the hash that a checkpoint or tree head signs with its columns; returns what differs:
/// expected, found, which.
pub(super) fn signed_tip(
    position: Option<i128>,
    hash: Value<'_>,
    opened: &Opened<'_>,
) -> Result<(), (String, String, &'static str)> {
    let spelt = |position: Option<i128>| position.map_or("none".to_owned(), |position| position.to_string());
    if position.is_none() || opened.claims.position != position {
        return Err((spelt(opened.claims.position), spelt(position), "position"));
    }
    let tip = opened.statement.predicate.and_then(|predicate| text_member(predicate, "chain_tip_hash"));
    if tip.is_none() || tip.and_then(|tip| tip.strip_prefix("sha256:")) != hash.as_text() {
        return Err((
            tip.unwrap_or("none").to_owned(),
            hash.as_text().unwrap_or(hash.type_name()).to_owned(),
            "chain_tip_hash",
        ));
    }
    Ok(())
}

/// Compares all that a checkpoint signs with its columns.
fn check_claim(checkpoint: &Checkpoint<'_>, opened: &Opened<'_>) -> Result<(), Flaw> {
    check_tip(checkpoint, opened)?;
    let subject: Option<[u8; 32]> =
        checkpoint.record_id.as_text().and_then(uuid).map(|record| Sha256::digest(record).into());
    if subject.is_none() || opened.statement.subject != subject.as_ref().map(<[u8; 32]>::as_slice) {
        return Err(mismatch(
            opened.statement.subject.map_or("none".to_owned(), hex::encode),
            subject.map_or("no uuid in record_id".to_owned(), hex::encode),
            "subject",
        ));
    }
    check_kid(checkpoint.key_id, opened).map_err(|(expected, found)| mismatch(expected, found, "key id"))
}

/// Compares the signed key id with the column: zero or none where the column is null.
pub(super) fn check_kid(column: Value<'_>, opened: &Opened<'_>) -> Result<(), (String, String)> {
    let signed = opened.claims.signer().map(hex::encode);
    let fits = match &signed {
        Some(signed) => column.as_text() == Some(signed),
        None => column.is_null(),
    };
    if fits {
        return Ok(());
    }
    Err((
        signed.unwrap_or_else(|| "no key id".into()),
        column.as_text().unwrap_or(column.type_name()).to_owned(),
    ))
}

impl Reading for CheckpointReading {
    type Batch = Items;

    fn begin(&mut self) -> Items {
        Items::default()
    }

    fn row(&mut self, row: &Row<'_>, batch: &mut Items) -> Result<()> {
        let [id, record_id, chain_key, position, payload_hash, cose, key_id, created] = self.places.of(row);
        let checkpoint = Checkpoint {
            record_id,
            position: whole(position),
            payload_hash,
            key_id,
            written: created.as_text().and_then(row_time).map(millis),
        };
        let named = chain_key.as_text().filter(|key| !key.is_empty());
        let chain = named.or(record_id.as_text()).unwrap_or("");
        let checked = self.check(&checkpoint, cose);
        let item = Item {
            chain: if uuid(chain).is_some() { String::new() } else { chain.to_owned() },
            id: id.as_text().unwrap_or("").to_owned(),
            place: checkpoint.position,
            prev: Link::Genesis,
            link: link(payload_hash),
            signed_prev: Link::Genesis,
            row_leaf: [0; 32],
            tree_leaf: [0; 32],
            signed: *checked.as_ref().unwrap_or(&Signed::Unproven),
            // A schema chain's record_id is made up (a uuid of version 8), so that nothing joins it.
            derived: named.is_none() && chain.as_bytes().get(14) == Some(&b'8'),
            flaw: checked.err(),
        };
        batch.push(chain, checkpoint.position.unwrap_or(i64::MAX), &item);
        Ok(())
    }
}
