//! One receipt: what is hashed, how it links, how it is signed.
//!
//! `receipt_hash` is the lowercase hex SHA-256 of the receipt's fourteen fields as JSON: keys in code point order,
//! no spaces, UTF-8 as it is, an absent value as `null` (scheme `aegis-jcs-1`). `prev_receipt_hash` is
//! the hash before it of the same tenant, empty for the first. A signature, where there is one, is Ed25519 over the 64
//! hexadecimal digits as text.

use ed25519_dalek::{Signer as _, SigningKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// The name of the scheme, stored in every row.
pub const CANON_VERSION: &str = "aegis-jcs-1";

/// What a caller says of an action; the service adds id, time, link, hash and signature.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Whose chain it belongs to.
    pub tenant_id: String,
    /// The decision that it answers.
    #[serde(default)]
    pub decision_id: Option<String>,
    /// Which agent acted.
    #[serde(default)]
    pub agent_id: Option<String>,
    /// For whom.
    #[serde(default)]
    pub user_id: Option<String>,
    /// In which run.
    #[serde(default)]
    pub run_id: Option<String>,
    /// In which trace.
    #[serde(default)]
    pub trace_id: Option<String>,
    /// With which tool.
    #[serde(default)]
    pub tool: Option<String>,
    /// Doing what.
    #[serde(default)]
    pub action: Option<String>,
    /// To what.
    #[serde(default)]
    pub resource: Option<String>,
    /// How far the origin of the request is trusted.
    pub source_trust: String,
    /// What was decided: `allow`, `deny`, `require_approval`.
    pub decision: String,
    /// Who approved.
    #[serde(default)]
    pub approver: Option<String>,
    /// SHA-256 of the action's arguments, hex.
    #[serde(default)]
    pub action_hash: Option<String>,
}

/// A receipt as it stands in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Its id.
    pub id: String,
    /// RFC 3339, UTC, with offset `+00:00`.
    pub ts: String,
    /// What was done.
    #[serde(flatten)]
    pub action: Action,
    /// The hash before it, empty for the first of a tenant.
    pub prev_receipt_hash: String,
    /// Its own hash.
    pub receipt_hash: String,
    /// Ed25519 over the hash's text, hex, with the key that made it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signature: Option<Signature>,
}

/// A signature with the key that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// 128 hexadecimal digits.
    pub signature: String,
    /// The public key, 64 hexadecimal digits.
    pub signer_public_key: String,
    /// The key's name, where it has one.
    pub signer_key_id: Option<String>,
}

/// The fields that are hashed, in the order in which they are hashed.
#[derive(Serialize)]
struct Hashed<'a> {
    action: Option<&'a str>,
    action_hash: Option<&'a str>,
    agent_id: Option<&'a str>,
    approver: Option<&'a str>,
    decision: &'a str,
    event_id: &'a str,
    prev_receipt_hash: &'a str,
    resource: Option<&'a str>,
    run_id: Option<&'a str>,
    source_trust: &'a str,
    tool: Option<&'a str>,
    trace_id: Option<&'a str>,
    ts: &'a str,
    user_id: Option<&'a str>,
}

/// Signs receipts. Its key is wiped from memory when dropped and never printed.
pub struct ReceiptSigner {
    key: SigningKey,
    key_id: Option<String>,
    public_key: String,
}

impl std::fmt::Debug for ReceiptSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiptSigner").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

impl ReceiptSigner {
    /// Reads a key spelt `[key_id:]<64 hex>`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not of that form; the text is not repeated.
    pub fn parse(text: &str) -> Result<Self> {
        let (key_id, digits) = match text.split_once(':') {
            Some(("", _)) => {
                return Err(Error::Invalid("signing key: the key id before ':' is empty".into()));
            }
            Some((id, digits)) => (Some(id.to_owned()), digits),
            None => (None, text),
        };
        let mut seed = Zeroizing::new([0_u8; 32]);
        hex::decode_to_slice(digits, seed.as_mut_slice()).map_err(|_| {
            Error::Invalid("signing key: expected 64 hexadecimal digits, after an optional `key_id:`".into())
        })?;
        Ok(Self::from_seed(&seed, key_id))
    }

    /// Makes a signer from a 32-byte seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32], key_id: Option<String>) -> Self {
        let key = SigningKey::from_bytes(seed);
        let public_key = hex::encode(key.verifying_key().as_bytes());
        Self { key, key_id, public_key }
    }

    /// Returns the public key, 64 hexadecimal digits.
    #[must_use]
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    fn sign(&self, receipt_hash: &str) -> Signature {
        Signature {
            signature: hex::encode(self.key.sign(receipt_hash.as_bytes()).to_bytes()),
            signer_public_key: self.public_key.clone(),
            signer_key_id: self.key_id.clone(),
        }
    }
}

impl Receipt {
    /// Makes the receipt that follows `prev_receipt_hash`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the fields cannot be written as JSON (never, for text).
    pub fn new(
        id: String,
        ts: String,
        action: Action,
        prev_receipt_hash: String,
        signer: Option<&ReceiptSigner>,
    ) -> Result<Self> {
        let hashed = Hashed {
            action: action.action.as_deref(),
            action_hash: action.action_hash.as_deref(),
            agent_id: action.agent_id.as_deref(),
            approver: action.approver.as_deref(),
            decision: &action.decision,
            event_id: &id,
            prev_receipt_hash: &prev_receipt_hash,
            resource: action.resource.as_deref(),
            run_id: action.run_id.as_deref(),
            source_trust: &action.source_trust,
            tool: action.tool.as_deref(),
            trace_id: action.trace_id.as_deref(),
            ts: &ts,
            user_id: action.user_id.as_deref(),
        };
        let receipt_hash = hash_of(&hashed)?;
        let signature = signer.map(|signer| signer.sign(&receipt_hash));
        Ok(Self { id, ts, action, prev_receipt_hash, receipt_hash, signature })
    }
}

/// Returns the lowercase hex SHA-256 of a value's JSON; the value's fields stand in code point order.
pub(crate) fn hash_of(value: &impl Serialize) -> Result<String> {
    // serde_json escapes exactly what the scheme escapes, and spells it the same way.
    let json = serde_json::to_vec(value).map_err(|error| Error::Invalid(format!("receipt: {error}")))?;
    Ok(hex::encode(Sha256::digest(&json)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of the format's description: the first receipt that the real system wrote.
    #[test]
    fn a_receipt_hashes_as_the_real_system_hashed_it() {
        let action = Action {
            tenant_id: "tenant_alpha".into(),
            agent_id: Some("coding-agent-prod".into()),
            user_id: Some("zoë@example.com".into()),
            run_id: Some("run-0".into()),
            trace_id: Some("trace-0".into()),
            tool: Some("github".into()),
            action: Some("merge_pull_request".into()),
            source_trust: "trusted_internal_signed".into(),
            decision: "allow".into(),
            action_hash: Some("0000000000000000000000000000000000000000000000000000000000abcdef".into()),
            ..Action::default()
        };
        let receipt = Receipt::new(
            "239864b1-e76d-5237-adee-e0c1a6673365".into(),
            "2026-06-02T12:00:00+00:00".into(),
            action,
            String::new(),
            None,
        )
        .unwrap();
        assert_eq!(receipt.receipt_hash, "c2c55cc22bdf262f2f96e97baa96102da8e11a3e09bcca9308521b3927ea152c");
    }

    #[test]
    fn quotes_backslashes_and_control_characters_hash_as_the_scheme_spells_them() {
        let json = serde_json::to_string("\"\\\u{8}\u{c}\n\r\t\u{1}\u{7f}\u{2028}é").unwrap();
        assert_eq!(json, "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\u{7f}\u{2028}é\"");
    }

    #[test]
    fn a_signature_is_over_the_hash_as_text() {
        let signer = ReceiptSigner::from_seed(&[7; 32], Some("k1".into()));
        let action = Action { tenant_id: "t".into(), ..Action::default() };
        let receipt = Receipt::new("id".into(), "ts".into(), action, String::new(), Some(&signer)).unwrap();
        let signature = receipt.signature.unwrap();
        let mut bytes = [0; 64];
        hex::decode_to_slice(&signature.signature, &mut bytes).unwrap();
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        key.verify_strict(receipt.receipt_hash.as_bytes(), &bytes.into()).unwrap();
    }

    #[test]
    fn a_signing_key_that_is_not_one_is_refused_and_not_repeated() {
        for text in ["", "abc", ":00", &format!("k:{}", "g".repeat(64)), &"0".repeat(63)] {
            let error = ReceiptSigner::parse(text).unwrap_err().to_string();
            assert!(text.len() < 3 || !error.contains(text), "{error}");
        }
        assert!(ReceiptSigner::parse(&format!("k:{}", "0a".repeat(32))).is_ok());
    }
}
