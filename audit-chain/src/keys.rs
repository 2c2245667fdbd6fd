//! The secrets and public keys that a verification may use. Values never leave this module in text.

use std::collections::BTreeMap;
use std::fmt;

use ed25519_dalek::VerifyingKey;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::lineage::RestoreRecord;

/// A named secret, wiped from memory when dropped and never printed.
#[derive(Clone)]
pub struct Secret {
    /// What it is called in reports: `NAME#1` for the first value of NAME.
    pub label: String,
    value: Zeroizing<Vec<u8>>,
}

impl Secret {
    /// Makes a secret from its raw bytes.
    pub fn new(label: impl Into<String>, value: Vec<u8>) -> Self {
        Self { label: label.into(), value: Zeroizing::new(value) }
    }

    /// Returns the raw bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.value
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.label)
    }
}

/// A public key that the caller does not trust, from some time on or ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DistrustedKey {
    /// The SHA-256 of its SPKI DER form.
    pub digest: [u8; 32],
    /// From when, in microseconds since 1970-01-01T00:00:00Z; `None` means ever.
    pub from_micros: Option<i64>,
}

/// Everything a caller brings to a verification.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    secrets: BTreeMap<String, Vec<Secret>>,
    public_keys: Vec<VerifyingKey>,
    restore_keys: Vec<VerifyingKey>,
    restores: Vec<RestoreRecord>,
    trust_anchors: Vec<[u8; 32]>,
    distrusted: Vec<DistrustedKey>,
}

impl KeyRing {
    /// Makes an empty ring.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value of the secret `name`; several values of one name are a rotation, newest first.
    pub fn add_secret(&mut self, name: &str, value: Vec<u8>) {
        let values = self.secrets.entry(name.to_owned()).or_default();
        let label = format!("{name}#{}", values.len() + 1);
        values.push(Secret::new(label, value));
    }

    /// Adds a trusted public key.
    pub fn add_public_key(&mut self, key: VerifyingKey) {
        if !self.public_keys.contains(&key) {
            self.public_keys.push(key);
        }
    }

    /// Adds a key that may sign the records of restores ([`crate::lineage`]); those of
    /// [`KeyRing::add_public_key`] may, too.
    pub fn add_restore_key(&mut self, key: VerifyingKey) {
        if !self.restore_keys.contains(&key) {
            self.restore_keys.push(key);
        }
    }

    /// Adds the record of a restore, the oldest first.
    pub fn add_restore(&mut self, record: RestoreRecord) {
        self.restores.push(record);
    }

    /// Returns the keys that may sign the records of restores.
    pub fn restore_keys(&self) -> impl Iterator<Item = &VerifyingKey> {
        self.restore_keys.iter().chain(&self.public_keys)
    }

    /// Returns the records of restores at hand.
    #[must_use]
    pub fn restores(&self) -> &[RestoreRecord] {
        &self.restores
    }

    /// Adds a trust anchor: the SHA-256 of a public key's SPKI DER form, as `sha256:<64 hex>`.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is not of that form.
    pub fn add_trust_anchor(&mut self, anchor: &str) -> Result<()> {
        self.trust_anchors.push(parse_anchor("trust anchor", anchor, anchor)?);
        Ok(())
    }

    /// Adds a key that is not to be trusted, as `sha256:<64 hex>` or, from a time on, `sha256:<64 hex>@<RFC 3339 time>`.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is not of that form.
    pub fn add_distrusted_key(&mut self, key: &str) -> Result<()> {
        let (anchor, from) = match key.split_once('@') {
            Some((anchor, from)) => (anchor, Some(from)),
            None => (key, None),
        };
        let digest = parse_anchor("distrusted key", key, anchor)?;
        let from_micros = match from.map(str::parse::<jiff::Timestamp>) {
            Some(Ok(from)) => Some(from.as_microsecond()),
            Some(Err(_)) => {
                return Err(Error::BadKey {
                    what: format!("distrusted key {key:?}"),
                    why: "expected an RFC 3339 time after the @".into(),
                });
            }
            None => None,
        };
        self.distrusted.push(DistrustedKey { digest, from_micros });
        Ok(())
    }

    /// Returns the values of a secret, in the order given.
    #[must_use]
    pub fn secrets(&self, name: &str) -> &[Secret] {
        self.secrets.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns every secret of every name.
    pub fn all_secrets(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.secrets.iter().flat_map(|(name, values)| values.iter().map(move |value| (name.as_str(), value)))
    }

    /// Returns the trusted public keys.
    #[must_use]
    pub fn public_keys(&self) -> &[VerifyingKey] {
        &self.public_keys
    }

    /// Returns the trust anchors.
    #[must_use]
    pub fn trust_anchors(&self) -> &[[u8; 32]] {
        &self.trust_anchors
    }

    /// Returns the keys that are not to be trusted.
    #[must_use]
    pub fn distrusted_keys(&self) -> &[DistrustedKey] {
        &self.distrusted
    }
}

/// Reads `sha256:` and 64 hexadecimal digits.
fn parse_anchor(what: &str, given: &str, anchor: &str) -> Result<[u8; 32]> {
    let bad = || Error::BadKey {
        what: format!("{what} {given:?}"),
        why: "expected sha256: and 64 hexadecimal digits".into(),
    };
    let digits = anchor.strip_prefix("sha256:").ok_or_else(bad)?;
    let mut digest = [0_u8; 32];
    hex::decode_to_slice(digits, &mut digest).map_err(|_| bad())?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distrusted_keys_have_an_instant_or_none() {
        let mut ring = KeyRing::new();
        let anchor = format!("sha256:{}", "ab".repeat(32));
        ring.add_distrusted_key(&anchor).unwrap();
        ring.add_distrusted_key(&format!("{anchor}@2026-09-01T00:00:01.5Z")).unwrap();
        let from: Vec<_> = ring.distrusted_keys().iter().map(|key| key.from_micros).collect();
        assert_eq!(from, [None, Some(1_788_220_801_500_000)]);
        for bad in ["ab", "sha256:ab", "sha256:ab@2026-09-01T00:00:00Z", &format!("{anchor}@yesterday")] {
            assert!(matches!(ring.add_distrusted_key(bad), Err(Error::BadKey { .. })), "{bad}");
            assert!(matches!(ring.add_trust_anchor(bad), Err(Error::BadKey { .. })), "{bad}");
        }
    }
}
