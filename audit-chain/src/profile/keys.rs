//! The keys of a profile: how values are encoded, which secret a row wants, and whether one fits.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use super::Algorithm;
use crate::error::{Error, Result};
use crate::keys::{KeyRing, Secret};
use crate::runs::NO_KEY;
use crate::value::Value;

/// The longest value that is decoded, in bytes.
pub(super) const MAX_BYTES: usize = 96;

/// How many unknown keys are told apart by name; what is made up must not fill the memory.
const MAX_LABELS: usize = 4_096;

/// How bytes are spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Lowercase hexadecimal.
    Hex,
    HexUpper,
    Base64,
    /// RFC 4648 §5 without padding.
    Base64Url,
    /// The bytes of a BLOB; `\x` and hexadecimal where a database prints them so.
    Raw,
}

/// The encodings by their names.
pub(super) const ENCODINGS: &[(&str, Encoding)] = &[
    ("hex", Encoding::Hex),
    ("hex-upper", Encoding::HexUpper),
    ("base64", Encoding::Base64),
    ("base64url", Encoding::Base64Url),
    ("raw", Encoding::Raw),
];

impl Encoding {
    /// Decodes a stored value into `bytes`; returns how many, `None` when it is not so encoded.
    pub(super) fn decode(self, value: Value<'_>, prefix: &str, bytes: &mut [u8; MAX_BYTES]) -> Option<usize> {
        let text = match value {
            Value::Bytes(raw) if self == Self::Raw => {
                bytes.get_mut(..raw.len())?.copy_from_slice(raw);
                return Some(raw.len());
            }
            Value::Text(text) => text.strip_prefix(prefix)?,
            _ => return None,
        };
        let digits = match self {
            Self::Base64 => return STANDARD.decode_slice(text, bytes).ok(),
            Self::Base64Url => return URL_SAFE_NO_PAD.decode_slice(text, bytes).ok(),
            Self::Raw => text.strip_prefix("\\x")?,
            Self::Hex | Self::HexUpper => text,
        };
        let wrong_case = |byte: u8| match self {
            Self::HexUpper => byte.is_ascii_lowercase(),
            _ => byte.is_ascii_uppercase(),
        };
        if digits.bytes().any(wrong_case) || digits.len() % 2 == 1 {
            return None;
        }
        hex::decode_to_slice(digits, bytes.get_mut(..digits.len() / 2)?).ok()?;
        Some(digits.len() / 2)
    }

    /// Spells bytes.
    pub(super) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex::encode(bytes),
            Self::HexUpper => hex::encode_upper(bytes),
            Self::Base64 => STANDARD.encode(bytes),
            Self::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
            Self::Raw => format!("\\x{}", hex::encode(bytes)),
        }
    }
}

/// How a secret's value is spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SecretEncoding {
    /// The key is the value's own bytes.
    Text,
    Hex,
    Base64,
}

/// The encodings of secrets by their names.
pub(super) const SECRET_ENCODINGS: &[(&str, SecretEncoding)] =
    &[("text", SecretEncoding::Text), ("hex", SecretEncoding::Hex), ("base64", SecretEncoding::Base64)];

/// How the key of a row is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Every value of the secret is tried.
    Try,
    /// The key id is the secret's name.
    Name,
    /// The key id is the first digits of the hex HMAC-SHA256 of a label under the secret.
    Hmac { label: String, digits: usize },
    /// The key id is the first digits of the hex SHA-256 of the secret.
    Sha256 { digits: usize },
}

/// Which secret makes an HMAC.
#[derive(Debug, Clone)]
pub(super) struct Keyed {
    /// The secret's name; without one all secrets at hand are meant.
    pub(super) secret: Option<String>,
    pub(super) encoding: SecretEncoding,
    /// The column with the key id.
    pub(super) key_id: Option<String>,
    pub(super) lookup: Lookup,
}

impl Keyed {
    /// Reports whether rows say which key made them.
    pub(super) fn names_keys(&self) -> bool {
        self.lookup != Lookup::Try
    }
}

/// An HMAC under one key, ready to use.
#[derive(Clone)]
enum Mac {
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl Mac {
    fn fits(&self, message: &[u8], stored: &[u8]) -> bool {
        match self {
            Self::Sha256(mac) => mac.clone().chain_update(message).verify_slice(stored).is_ok(),
            Self::Sha384(mac) => mac.clone().chain_update(message).verify_slice(stored).is_ok(),
            Self::Sha512(mac) => mac.clone().chain_update(message).verify_slice(stored).is_ok(),
        }
    }
}

/// What trying the keys gave; numbers are labels.
pub(super) enum Fit {
    /// This key made it.
    Key(u16),
    /// The key that the row names did not.
    Wrong,
    /// The key that the row names is not at hand.
    Unknown(u16, String),
    /// No key at hand did.
    None(u16),
    /// There is no key at hand.
    NoKeys(u16),
}

/// The keys at hand.
pub(super) struct MacKeys {
    keys: Vec<(Option<String>, Mac)>,
    labels: Vec<String>,
    last: usize,
}

impl MacKeys {
    /// Decodes the keys.
    pub(super) fn new(plan: &Keyed, algorithm: Algorithm, ring: &KeyRing) -> Result<Self> {
        let mut found = Self { keys: Vec::new(), labels: Vec::new(), last: 0 };
        let wanted = |name: &str| match (&plan.secret, &plan.lookup) {
            (Some(secret), Lookup::Try | Lookup::Hmac { .. } | Lookup::Sha256 { .. }) => name == secret,
            _ => true,
        };
        for (name, secret) in ring.all_secrets().filter(|(name, _)| wanted(name)) {
            let key = match decode_secret(secret, plan.encoding) {
                Ok(key) => key,
                // Secrets that were not asked for by name may be of another kind.
                Err(_) if plan.secret.is_none() => continue,
                Err(error) => return Err(error),
            };
            let bad = |error: String| Error::BadKey { what: secret.label.clone(), why: error };
            let id = match &plan.lookup {
                Lookup::Try => None,
                Lookup::Name => Some(name.to_owned()),
                Lookup::Hmac { label, digits } => {
                    let mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|error| bad(error.to_string()))?;
                    let id = hex::encode(mac.chain_update(label).finalize().into_bytes());
                    Some(id.chars().take(*digits).collect())
                }
                Lookup::Sha256 { digits } => {
                    Some(hex::encode(Sha256::digest(&*key)).chars().take(*digits).collect())
                }
            };
            let mac = match algorithm {
                Algorithm::Sha256 => Hmac::new_from_slice(&key).map(Mac::Sha256),
                Algorithm::Sha384 => Hmac::new_from_slice(&key).map(Mac::Sha384),
                Algorithm::Sha512 => Hmac::new_from_slice(&key).map(Mac::Sha512),
            };
            found.keys.push((id, mac.map_err(|error| bad(error.to_string()))?));
            found.labels.push(secret.label.clone());
        }
        found.labels.push(NO_KEY.into());
        Ok(found)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Says which key made `stored` over `message`.
    pub(super) fn check(&mut self, plan: &Keyed, key_id: Value<'_>, message: &[u8], stored: &[u8]) -> Fit {
        let none = u16::try_from(self.keys.len()).unwrap_or(u16::MAX);
        if plan.names_keys() && !key_id.is_null() {
            let mut text = Vec::new();
            super::form::push_text(&mut text, key_id);
            let id = String::from_utf8_lossy(&text).into_owned();
            let mut named = false;
            for (at, (known, mac)) in self.keys.iter().enumerate() {
                if known.as_deref() == Some(id.as_str()) {
                    named = true;
                    if mac.fits(message, stored) {
                        return Fit::Key(u16::try_from(at).unwrap_or(u16::MAX));
                    }
                }
            }
            let label = format!("key id {}", id.chars().take(80).collect::<String>());
            return if named { Fit::Wrong } else { Fit::Unknown(self.label(&label), label) };
        }
        if self.keys.is_empty() {
            return Fit::NoKeys(none);
        }
        let order = [self.last].into_iter().chain((0..self.keys.len()).filter(|at| *at != self.last));
        for at in order {
            if self.keys.get(at).is_some_and(|(_, mac)| mac.fits(message, stored)) {
                self.last = at;
                return Fit::Key(u16::try_from(at).unwrap_or(u16::MAX));
            }
        }
        Fit::None(none)
    }

    /// Returns the index of a name.
    fn label(&mut self, name: &str) -> u16 {
        let at = self.labels.iter().position(|label| label == name).unwrap_or_else(|| {
            if self.labels.len() < MAX_LABELS {
                self.labels.push(name.to_owned());
            }
            self.labels.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }
}

/// Decodes a secret's value.
fn decode_secret(secret: &Secret, encoding: SecretEncoding) -> Result<Zeroizing<Vec<u8>>> {
    let bad = |why: &str| Error::BadKey { what: secret.label.clone(), why: why.to_owned() };
    let value = secret.expose();
    let key = match encoding {
        SecretEncoding::Text => value.to_vec(),
        SecretEncoding::Hex => hex::decode(value.trim_ascii())
            .map_err(|_| bad("expected hexadecimal digits, as the profile says"))?,
        SecretEncoding::Base64 => {
            STANDARD.decode(value.trim_ascii()).map_err(|_| bad("expected base64, as the profile says"))?
        }
    };
    if key.is_empty() { Err(bad("it is empty")) } else { Ok(Zeroizing::new(key)) }
}
