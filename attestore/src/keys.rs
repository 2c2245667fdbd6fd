//! Secrets and keys as a user names them: `NAME=REF`, a key file or a key's text.

use std::path::Path;

use audit_chain::keys::KeyRing;
use backup_core::encrypt::Identities;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::{Manifest, SecretEntry};
use backup_core::secret::{SecretRef, matches};
use backup_core::signing::{PublicKey, SigningKey};
use zeroize::Zeroizing;

/// Splits `NAME=REF`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when it is not of that form. The text is not repeated: it may hold a secret.
pub fn named_secret(text: &str) -> Result<(String, SecretRef)> {
    let (name, reference) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidInput,
            "a secret is given as NAME=REF; found no NAME before an equals sign",
        )
        .with_hint("REF is env:VAR or file:PATH, for example AUDIT_HMAC_KEY=env:AUDIT_HMAC_KEY")
    })?;
    Ok((name.to_owned(), SecretRef::parse(reference)?))
}

/// Reads secrets, in the order given; a NAME may come several times (a rotation).
///
/// # Errors
/// When a reference is of no known form, unset, empty or unreadable.
pub fn read_secrets(texts: &[String]) -> Result<Vec<(String, Zeroizing<Vec<u8>>)>> {
    texts
        .iter()
        .map(|text| {
            let (name, reference) = named_secret(text)?;
            Ok((name, reference.read()?))
        })
        .collect()
}

/// Finds the secrets of a manifest of which a value is at hand and none fits the fingerprint.
pub(crate) fn unfitting<'a>(
    manifest: &'a Manifest,
    at_hand: &[(String, Zeroizing<Vec<u8>>)],
) -> Result<Vec<&'a SecretEntry>> {
    let mut unfitting = Vec::new();
    for entry in &manifest.secrets {
        let mut values = at_hand.iter().filter(|(name, _)| *name == entry.name).peekable();
        if values.peek().is_none() {
            continue;
        }
        let mut fits = false;
        for (_, value) in values {
            fits |= matches(&entry.fingerprint, value)?;
        }
        if !fits {
            unfitting.push(entry);
        }
    }
    Ok(unfitting)
}

/// Says that a secret is not the one of a backup; the fingerprint by the beginning of its hash.
pub(crate) fn does_not_fit(manifest: &Manifest, entry: &SecretEntry) -> String {
    let hash: String = entry.fingerprint.rsplit('$').next().unwrap_or_default().chars().take(12).collect();
    format!(
        "{}: the key at hand is not the one this backup was made with (needs fingerprint {hash}…, made {} as backup {})",
        entry.name,
        manifest.created_at.strftime("%Y-%m-%d"),
        manifest.id
    )
}

/// Makes the ring of a verification from secrets, public keys (file or text) and trust anchors.
///
/// # Errors
/// When one of them cannot be read.
pub fn key_ring(secrets: &[String], public_keys: &[String], trust_anchors: &[String]) -> Result<KeyRing> {
    let mut ring = KeyRing::new();
    for (name, value) in read_secrets(secrets)? {
        ring.add_secret(&name, value.to_vec());
    }
    for key in self::public_keys(public_keys)? {
        ring.add_public_key(*key.verifying_key());
    }
    for anchor in trust_anchors {
        ring.add_trust_anchor(anchor)?;
    }
    Ok(ring)
}

/// Reads public keys, each a file or the key's text.
///
/// # Errors
/// [`ErrorKind::KeyRejected`] when one is neither.
pub fn public_keys(texts: &[String]) -> Result<Vec<PublicKey>> {
    texts.iter().map(|text| PublicKey::parse_or_load(text)).collect()
}

/// Loads a signing key where one is named: a file, or `env:VAR` that holds the file's text.
///
/// # Errors
/// When the file is missing, readable by others, or no signing key.
pub fn signing_key(path: Option<&Path>) -> Result<Option<SigningKey>> {
    path.map(|path| match variable(path)? {
        None => SigningKey::load(path),
        Some(reference) => SigningKey::parse(&reference.to_string(), &text_of(&reference)?),
    })
    .transpose()
}

/// Reads the age identities of a file, or of `env:VAR` that holds the file's text; none where nothing is named.
///
/// # Errors
/// When it cannot be read or holds no identity.
pub fn identities(path: Option<&Path>) -> Result<Identities> {
    path.map_or_else(
        || Ok(Identities::none()),
        |path| match variable(path)? {
            None => Identities::from_file(path),
            Some(reference) => Identities::parse(&reference.to_string(), &text_of(&reference)?),
        },
    )
}

/// Takes `env:VAR` for what it is; `None` for a path.
fn variable(path: &Path) -> Result<Option<SecretRef>> {
    match path.to_str().filter(|text| text.starts_with("env:")) {
        Some(text) => SecretRef::parse(text).map(Some),
        None => Ok(None),
    }
}

fn text_of(reference: &SecretRef) -> Result<Zeroizing<String>> {
    let bytes = reference.read()?;
    std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| {
        Error::new(
            ErrorKind::KeyRejected,
            format!("{reference}: expected the text of a key file, found other bytes"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_without_a_name_is_refused_without_repeating_it() {
        for text in ["hunter2", "=env:X", ""] {
            let error = named_secret(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(!error.to_string().contains("hunter2"));
        }
        assert!(named_secret("A=hunter2").is_err());
        assert_eq!(named_secret("A=env:B").unwrap().0, "A");
    }
}
