//! z4j's secrets: which there are, what their ids are, and what they authenticate.
//!
//! A secret is the raw bytes of its environment variable: nothing is decoded, and white space at its ends counts. The two
//! `…_PREVIOUS_…` variables are lists cut at commas, each part trimmed, empty and repeated parts dropped.
//! The id of a secret is HMAC-SHA256(secret, `z4j/audit-chain/key-id/v1` 0x00), in hex.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::keys::KeyRing;

/// The secret of era C and its predecessors.
pub(super) const CHAIN: [&str; 2] = ["Z4J_AUDIT_CHAIN_SECRET", "Z4J_AUDIT_CHAIN_PREVIOUS_SECRETS"];

/// The secret of eras A and B and its predecessors.
pub(super) const MASTER: [&str; 2] = ["Z4J_SECRET", "Z4J_PREVIOUS_SECRETS"];

/// What the id of a secret is computed over.
const KEY_ID: &[u8] = b"z4j/audit-chain/key-id/v1\0";

/// z4j refuses shorter secrets, in bytes.
const MIN_BYTES: usize = 32;

/// One secret, ready for use.
#[derive(Clone)]
pub(super) struct Secret {
    /// Its name in reports.
    pub(super) label: String,
    /// Its id in hex.
    pub(super) id: String,
    mac: Option<Hmac<Sha256>>,
    short: bool,
    /// The id that it would have without white space at its ends, where it has some.
    trimmed_id: Option<String>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.label)
    }
}

impl Secret {
    fn new(label: String, value: &[u8]) -> Self {
        let trimmed = value.trim_ascii();
        Self {
            label,
            id: id_of(value),
            // HMAC takes keys of any length.
            mac: Hmac::new_from_slice(value).ok(),
            short: value.len() < MIN_BYTES,
            trimmed_id: (trimmed.len() != value.len()).then(|| id_of(trimmed)),
        }
    }

    /// Computes an HMAC over the parts.
    pub(super) fn mac(&self, parts: &[&[u8]]) -> Option<[u8; 32]> {
        let mut mac = self.mac.clone()?;
        for part in parts {
            mac.update(part);
        }
        Some(mac.finalize().into_bytes().into())
    }
}

fn id_of(value: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(value).map(|mac| mac.chain_update(KEY_ID).finalize());
    mac.map(|mac| hex::encode(mac.into_bytes())).unwrap_or_default()
}

/// All secrets at hand.
#[derive(Debug, Clone)]
pub(super) struct Secrets {
    /// Those that an id may name: every secret of the ring, whatever it is called, for the id says whether it fits.
    pub(super) by_id: Vec<Secret>,
    /// Those that made rows without an id, current one first.
    pub(super) master: Vec<Secret>,
}

impl Secrets {
    /// Takes the secrets from the ring.
    pub(super) fn new(ring: &KeyRing) -> Self {
        let [chain, chain_before] = CHAIN;
        let [master, master_before] = MASTER;
        let mut by_id = Vec::new();
        for (name, list) in [(chain, false), (chain_before, true), (master, false), (master_before, true)] {
            add(&mut by_id, ring, name, list);
        }
        let mut masters = Vec::new();
        add(&mut masters, ring, master, false);
        add(&mut masters, ring, master_before, true);
        let named = [chain, chain_before, master, master_before];
        for (name, secret) in ring.all_secrets() {
            if !named.contains(&name) {
                push(&mut by_id, secret.label.clone(), secret.expose());
            }
        }
        Self { by_id, master: masters }
    }

    /// Finds the secret with an id.
    pub(super) fn find(&self, id: &str) -> Option<&Secret> {
        self.by_id.iter().find(|secret| secret.id == id)
    }

    /// Says what is odd about the secrets at hand, for a message that none of them fits; begins with `; ` if anything.
    pub(super) fn oddities(&self, wanted: Option<&str>) -> String {
        let mut said = String::new();
        for secret in &self.by_id {
            if wanted.is_some() && secret.trimmed_id.as_deref() == wanted {
                said.push_str(&format!("; {} fits without the white space at its ends", secret.label));
            } else if secret.short {
                said.push_str(&format!(
                    "; {} is shorter than the {MIN_BYTES} bytes that z4j asks for",
                    secret.label
                ));
            }
        }
        said
    }
}

/// Adds the secrets of one name, or the parts of a list.
fn add(secrets: &mut Vec<Secret>, ring: &KeyRing, name: &str, list: bool) {
    if !list {
        for secret in ring.secrets(name) {
            push(secrets, secret.label.clone(), secret.expose());
        }
        return;
    }
    let mut count = 0;
    for secret in ring.secrets(name) {
        for part in secret.expose().split(|byte| *byte == b',') {
            let part =
                std::str::from_utf8(part).map_or_else(|_| part.trim_ascii(), |text| text.trim().as_bytes());
            if !part.is_empty() {
                count += 1;
                push(secrets, format!("{name}#{count}"), part);
            }
        }
    }
}

/// Adds one secret unless it is there.
fn push(secrets: &mut Vec<Secret>, label: String, value: &[u8]) {
    let secret = Secret::new(label, value);
    if secrets.iter().all(|known| known.id != secret.id) {
        secrets.push(secret);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_as_z4j_cuts_them_and_current_secrets_are_taken_raw() {
        let mut ring = KeyRing::new();
        ring.add_secret(CHAIN[0], b"test-audit-chain-secret-0123456789-K1 ".to_vec());
        ring.add_secret(
            CHAIN[1],
            b" test-audit-chain-secret-0123456789-K2 ,, short,test-audit-chain-secret-0123456789-K2".to_vec(),
        );
        let secrets = Secrets::new(&ring);
        let labels: Vec<_> = secrets.by_id.iter().map(|secret| secret.label.as_str()).collect();
        assert_eq!(
            labels,
            [
                "Z4J_AUDIT_CHAIN_SECRET#1",
                "Z4J_AUDIT_CHAIN_PREVIOUS_SECRETS#1",
                "Z4J_AUDIT_CHAIN_PREVIOUS_SECRETS#2"
            ]
        );
        let k2 = "fdbf952edcd33932bb3e105cb36b1f1a02b3af447a00d5ab9c2748ba80accbd6";
        assert_eq!(secrets.find(k2).unwrap().label, "Z4J_AUDIT_CHAIN_PREVIOUS_SECRETS#1");
        let k1 = "f9e8fee7f051606c927438534a445ca284b115c1b534f51d503d80d394f7b3ff";
        assert!(secrets.find(k1).is_none());
        let said = secrets.oddities(Some(k1));
        assert!(said.contains("Z4J_AUDIT_CHAIN_SECRET#1 fits without the white space"), "{said}");
        assert!(said.contains("Z4J_AUDIT_CHAIN_PREVIOUS_SECRETS#2 is shorter than the 32 bytes"), "{said}");
        assert!(!format!("{secrets:?}{said}").contains("0123456789"), "{secrets:?}");
    }
}
