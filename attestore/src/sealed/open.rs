//! Tries keys on one sealed value.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use backup_core::error::{Error, ErrorKind, Result};
use chacha20poly1305::ChaCha20Poly1305;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::layout::{Layout, NONCE, TAG, decode};
use crate::plan::schema::{Encoding, KeyForm, Sealed, SealedKind};

/// What a CSS1 envelope begins with.
const MAGIC: &[u8] = b"CSS1";
/// The bytes of the key id in a CSS1 envelope.
const KEY_ID: usize = 8;
/// The sealed data key: 32 bytes and a tag.
const SEALED_KEY: usize = 32 + TAG;
/// What a CSS1 data key is bound to.
const KEY_AAD: &[u8] = b"caracal.css1.dek";

/// Whether a value opens.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// With the key of this id, where it has one.
    Yes(Option<String>),
    /// Not with any at hand; the id that it names.
    No(Option<String>),
    /// It is not of the form.
    Malformed,
}

/// A part of the additional data.
#[derive(Debug)]
enum Bound {
    Literal(String),
    Column(usize),
}

/// The keys of one column.
pub(super) struct Opener {
    kind: SealedKind,
    keys: Vec<Zeroizing<[u8; 32]>>,
    layout: Option<Layout>,
    encoding: Encoding,
    bound: Vec<Bound>,
    columns: Vec<String>,
}

impl Opener {
    /// Makes the keys.
    ///
    /// # Errors
    /// `KeyRejected` when a secret is no key of 32 bytes in the form that the plan says; `InvalidInput` for an `aad` that does not close.
    pub(super) fn new(sealed: &Sealed, values: &[Zeroizing<Vec<u8>>]) -> Result<Self> {
        let name = sealed.secret.get_ref();
        let keys = values
            .iter()
            .map(|value| {
                key(value, sealed.key).ok_or_else(|| {
                    Error::new(
                        ErrorKind::KeyRejected,
                        format!(
                            "the secret {name} is not 32 bytes in the form that the plan says for {}.{}",
                            sealed.table, sealed.column
                        ),
                    )
                    .with_hint("key = \"hex\", \"base64\", \"raw\" or \"sha256\" says how it becomes a key")
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let layout = match &sealed.layout {
            Some(text) => Some(
                Layout::parse(text, sealed.encoding)
                    .map_err(|what| Error::new(ErrorKind::InvalidInput, what))?,
            ),
            None => None,
        };
        let (mut bound, mut columns) = (Vec::new(), Vec::new());
        let mut rest = sealed.aad.as_deref().unwrap_or_default();
        while let Some((literal, after)) = rest.split_once('{') {
            let (column, after) = after.split_once('}').ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidInput,
                    format!("aad of {}.{}: a brace is not closed", sealed.table, sealed.column),
                )
            })?;
            bound.push(Bound::Literal(literal.to_owned()));
            bound.push(Bound::Column(columns.len()));
            columns.push(column.to_owned());
            rest = after;
        }
        bound.push(Bound::Literal(rest.to_owned()));
        Ok(Self { kind: sealed.kind, keys, layout, encoding: sealed.encoding, bound, columns })
    }

    /// Returns the columns that the additional data names.
    pub(super) fn aad_columns(&self) -> Vec<String> {
        self.columns.clone()
    }

    /// Returns the ids of the keys at hand, where the form has ids.
    pub(super) fn key_ids(&self) -> Vec<String> {
        match self.kind {
            SealedKind::Css1 => self.keys.iter().map(|key| css1_id(key)).collect(),
            _ => Vec::new(),
        }
    }

    /// Tries every key on a value.
    pub(super) fn open(&self, value: &[u8], nonce: Option<&[u8]>, bound: &[&[u8]]) -> Opened {
        let mut aad = Vec::new();
        for part in &self.bound {
            match part {
                Bound::Literal(text) => aad.extend_from_slice(text.as_bytes()),
                Bound::Column(at) => aad.extend_from_slice(bound.get(*at).copied().unwrap_or_default()),
            }
        }
        match self.kind {
            SealedKind::Aes256Gcm => self.aes(value, &aad),
            SealedKind::Css1 => self.css1(value, &aad),
            SealedKind::ZoneKek => self.zone(value, nonce),
        }
    }

    fn aes(&self, value: &[u8], aad: &[u8]) -> Opened {
        let Some(parts) = self.layout.as_ref().and_then(|layout| layout.split(value)) else {
            return Opened::Malformed;
        };
        let opens = self.keys.iter().any(|key| {
            let cipher = Aes256Gcm::new(key.as_slice().into());
            let payload = Payload { msg: &parts.sealed, aad };
            cipher.decrypt(Nonce::from_slice(&parts.nonce), payload).map(Zeroizing::new).is_ok()
        });
        if opens { Opened::Yes(None) } else { Opened::No(None) }
    }

    fn css1(&self, value: &[u8], aad: &[u8]) -> Opened {
        // A BLOB holds the envelope as it is; text holds it in base64 or hex.
        let decoded;
        let envelope = if value.starts_with(MAGIC) {
            value
        } else {
            match decode(value, self.encoding) {
                Some(bytes) => {
                    decoded = bytes;
                    decoded.as_slice()
                }
                None => return Opened::Malformed,
            }
        };
        let Some(rest) = envelope.strip_prefix(MAGIC) else { return Opened::Malformed };
        let parts = || {
            let (id, rest) = rest.split_at_checked(KEY_ID)?;
            let (key_nonce, rest) = rest.split_at_checked(NONCE)?;
            let (sealed_key, rest) = rest.split_at_checked(SEALED_KEY)?;
            let (nonce, sealed) = rest.split_at_checked(NONCE)?;
            (sealed.len() >= TAG).then_some((id, key_nonce, sealed_key, nonce, sealed))
        };
        let Some((id, key_nonce, sealed_key, nonce, sealed)) = parts() else { return Opened::Malformed };
        let id = hex::encode(id);
        let opens = self.keys.iter().filter(|key| css1_id(key) == id).any(|key| {
            chacha(key.as_slice(), key_nonce, sealed_key, KEY_AAD)
                .filter(|data_key| data_key.len() == 32)
                .is_some_and(|data_key| chacha(&data_key, nonce, sealed, aad).is_some())
        });
        if opens { Opened::Yes(Some(id)) } else { Opened::No(Some(id)) }
    }

    fn zone(&self, value: &[u8], nonce: Option<&[u8]>) -> Opened {
        let Some(bytes) = decode(value, self.encoding) else { return Opened::Malformed };
        let split = match nonce {
            Some(nonce) => {
                decode(nonce, self.encoding).filter(|nonce| nonce.len() == NONCE).map(|nonce| (nonce, bytes))
            }
            None => bytes.split_at_checked(NONCE).map(|(nonce, rest)| (nonce.to_vec(), rest.to_vec())),
        };
        let Some((nonce, sealed)) = split.filter(|(_, sealed)| sealed.len() >= TAG) else {
            return Opened::Malformed;
        };
        let opens = self.keys.iter().any(|key| chacha(key.as_slice(), &nonce, &sealed, b"").is_some());
        if opens { Opened::Yes(None) } else { Opened::No(None) }
    }
}

/// Makes the 32 bytes of a key.
fn key(value: &[u8], form: KeyForm) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = match form {
        KeyForm::Raw => Zeroizing::new(value.to_vec()),
        KeyForm::Hex => Zeroizing::new(decode(value, Encoding::Hex)?),
        KeyForm::Base64 => Zeroizing::new(decode(value, Encoding::Base64)?),
        KeyForm::Sha256 => Zeroizing::new(Sha256::digest(value).to_vec()),
    };
    bytes.as_slice().try_into().ok().map(Zeroizing::new)
}

/// Returns the id that a CSS1 envelope gives its key.
fn css1_id(key: &[u8; 32]) -> String {
    hex::encode(Sha256::digest(key).get(..KEY_ID).unwrap_or_default())
}

fn chacha(key: &[u8], nonce: &[u8], sealed: &[u8], aad: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let cipher = ChaCha20Poly1305::new_from_slice(key).ok()?;
    let nonce: [u8; NONCE] = nonce.try_into().ok()?;
    cipher.decrypt((&nonce).into(), Payload { msg: sealed, aad }).ok().map(Zeroizing::new)
}
