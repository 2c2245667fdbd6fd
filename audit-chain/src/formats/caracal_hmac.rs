//! The HMAC of Caracal's chains: which key made it, and what it means when none at hand did.
//!
//! A row's `chain_hmac` is lowercase hex of HMAC-SHA256(key, content hash || `|` || predecessor's hash or nothing), over
//! the *stored* texts, so that an edited content is one finding and not two. The key is the hex-decoded value of
//! `AUDIT_HMAC_KEY`, at least 32 bytes; nothing in the row names it. Secrets whose name begins with that are tried.
//!
//! A row alone cannot say whether it was forged or made with a retired key; [`crate::runs`] judges runs of rows.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::format::{Conclusion, Fault, Link, Seal};
use crate::keys::KeyRing;
use crate::report::FindingKind;
use crate::runs::{NO_KEY, Runs, UnsignedRule, What};
use crate::value::Value;

/// The name of the secret; further names may follow it (`AUDIT_HMAC_KEY_OLD`).
pub const KEY_NAME: &str = "AUDIT_HMAC_KEY";

/// The shortest key, in bytes.
const MIN_KEY_BYTES: usize = 32;

/// The keys at hand, ready to use.
pub(super) struct AuditKeys {
    keys: Vec<Hmac<Sha256>>,
    labels: Vec<String>,
    /// The key that fitted last.
    last: usize,
}

impl AuditKeys {
    /// Decodes the keys.
    pub(super) fn new(ring: &KeyRing) -> Result<Self> {
        let mut found = Self { keys: Vec::new(), labels: Vec::new(), last: 0 };
        for (_, secret) in ring.all_secrets().filter(|(name, _)| name.starts_with(KEY_NAME)) {
            let bad = |why: String| Error::BadKey { what: secret.label.clone(), why };
            let key =
                Zeroizing::new(hex::decode(secret.expose().trim_ascii()).map_err(|_| {
                    bad("expected hexadecimal digits, as in the environment of Caracal".into())
                })?);
            if key.len() < MIN_KEY_BYTES {
                return Err(bad(format!("expected at least {MIN_KEY_BYTES} bytes, found {}", key.len())));
            }
            found.keys.push(Hmac::new_from_slice(&key).map_err(|error| bad(error.to_string()))?);
            found.labels.push(secret.label.clone());
        }
        found.labels.push(NO_KEY.into());
        Ok(found)
    }

    /// Reports whether there is no key at all.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the keys' names; the last one stands for "none fits".
    pub(super) fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Says which key made the HMAC of a row.
    pub(super) fn check(
        &mut self,
        content: Value<'_>,
        prev: Value<'_>,
        stored: Value<'_>,
        faults: &mut Vec<Fault>,
    ) -> Seal {
        let digits = match stored {
            Value::Null | Value::Absent | Value::Text("") => return Seal::None,
            Value::Text(digits) => digits,
            _ => "",
        };
        let Link::Digest(mac) = Link::of_text(digits) else {
            faults.push(Fault {
                kind: FindingKind::SignatureInvalid,
                expected: Some("64 lowercase hexadecimal digits, or nothing".into()),
                found: Some(digits.chars().take(80).collect()),
                explains: "chain_hmac is no HMAC".into(),
            });
            return Seal::Bad;
        };
        if self.keys.is_empty() {
            return Seal::Unasked;
        }
        let (content, prev) = (content.as_text().unwrap_or(""), prev.as_text().unwrap_or(""));
        let order = [self.last].into_iter().chain((0..self.keys.len()).filter(|at| *at != self.last));
        for at in order {
            let Some(key) = self.keys.get(at) else { continue };
            let made = key.clone().chain_update(content).chain_update(b"|").chain_update(prev);
            if made.finalize().into_bytes()[..] == mac {
                self.last = at;
                return Seal::Verified(u16::try_from(at).unwrap_or(u16::MAX));
            }
        }
        Seal::Unchecked(u16::try_from(self.keys.len()).unwrap_or(u16::MAX))
    }
}

/// Says what rows mean that no key at hand made, and rows without HMAC.
pub(super) fn judge(keyless: bool, whole: &mut Conclusion<'_>) {
    Runs {
        keyless,
        secret: KEY_NAME,
        what: What::Hmac,
        forged: FindingKind::SignatureInvalid,
        explains: "the HMAC does not fit content and predecessor under the key of the records around it: the record was put in, or hashed anew without the key",
        whole_record: false,
        unfit: true,
        unsigned: UnsignedRule::Any,
    }
    .judge(whole);
}
