//! The one rule that decides an Ed25519 signature, and the one reader of public keys.
//!
//! Every signature that this workspace verifies (rows, notes, checkpoints, manifests) comes through [`verify`],
//! so that one signature has one verdict on every path and in every language. The rule:
//!
//! ```text
//! signature   64 bytes R || S
//! S           a canonical integer: S < L (RFC 8032 §5.1.7)
//! A, R        canonical encodings: y < 2^255 - 19, and no "negative zero" x
//! A, R        not of small order (8 points), so that nobody makes one signature fit every message
//! equation    S·B = R + SHA-512(R || A || M)·A, without the cofactor, R compared as bytes
//! ```
//!
//! The base is ed25519-dalek's `verify`, which compares R as bytes with the canonical encoding of the point that it
//! should be; so R needs no decoding, which `verify_strict` spends a sixth of its time on, and is of small order where it is one of the eight
//! encodings in [`SMALL_ORDER`]. dalek takes a key with a non-canonical encoding, and another crate of
//! the same binary can switch its `S < L` check off (the feature `legacy_compatibility` is unified by cargo);
//! both are closed here. Points with a small-order *component* (mixed order) are accepted, as RFC 8032 has it.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};

use crate::error::{Error, Result};
use crate::note::NoteVerifier;

/// Why a signature or key is refused. The text is a reason, to stand after the name of what was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The signature has another length.
    #[error("a signature is 64 bytes, found {0}")]
    SignatureLength(usize),
    /// The key has another length.
    #[error("an Ed25519 public key is 32 bytes, found {0}")]
    KeyLength(usize),
    /// The key's bytes are no point of the curve.
    #[error("the public key is no point of the curve")]
    NotAPoint,
    /// The key is a second spelling of a point.
    #[error("the public key is not in its canonical encoding")]
    KeyNotCanonical,
    /// The key is one of the points under which signatures prove nothing.
    #[error("the public key is a point of small order, under which a signature proves nothing")]
    KeySmallOrder,
    /// The signature is a second spelling of another signature.
    #[error("the signature is not in its canonical encoding (S is not below the group order)")]
    ScalarNotCanonical,
    /// The signature is not one of this key over this message.
    #[error("the signature does not verify")]
    Mismatch,
}

/// Verifies a signature over a message by the strict rule.
///
/// # Errors
/// The reason why it is refused.
///
/// # Source
/// RFC 8032 §5.1.7, without the cofactor; "Taming the many EdDSAs" (2020) for what implementations differ in.
pub fn verify(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    let signature: &[u8; 64] = signature.try_into().map_err(|_| Refusal::SignatureLength(signature.len()))?;
    check_key(key)?;
    if !below(&signature[32..], &GROUP_ORDER) {
        return Err(Refusal::ScalarNotCanonical);
    }
    if SMALL_ORDER.iter().any(|point| signature.starts_with(point)) {
        return Err(Refusal::Mismatch);
    }
    key.verify(message, &Signature::from_bytes(signature)).map_err(|_| Refusal::Mismatch)
}

/// Reads a public key from its 32 bytes, by the strict rule.
///
/// # Errors
/// The reason why it is refused.
pub fn public_key(bytes: &[u8]) -> Result<VerifyingKey, Refusal> {
    let bytes: &[u8; 32] = bytes.try_into().map_err(|_| Refusal::KeyLength(bytes.len()))?;
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| Refusal::NotAPoint)?;
    check_key(&key)?;
    Ok(key)
}

/// Checks that a key, however it was made, is canonical and not of small order.
fn check_key(key: &VerifyingKey) -> Result<(), Refusal> {
    if key.is_weak() {
        return Err(Refusal::KeySmallOrder);
    }
    // The sign bit over x = 0 is the other non-canonical form; its two points are of small order.
    let mut y = *key.as_bytes();
    y[31] &= 0x7f;
    if below(&y, &FIELD_PRIME) { Ok(()) } else { Err(Refusal::KeyNotCanonical) }
}

/// L = 2^252 + 27742317777372353535851937790883648493, little-endian.
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// p = 2^255 - 19, little-endian.
const FIELD_PRIME: [u8; 32] = [
    0xed, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
];

/// The canonical encodings of the eight points of small order: of order 1, 2, 4 (two of them) and 8 (four).
const SMALL_ORDER: [[u8; 32]; 8] = {
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut minus_one = FIELD_PRIME;
    minus_one[0] -= 1;
    let zero = [0; 32];
    [identity, minus_one, zero, negated(zero), EIGHTH, negated(EIGHTH), OTHER_EIGHTH, negated(OTHER_EIGHTH)]
};

/// A point of order 8.
const EIGHTH: [u8; 32] = [
    0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
    0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
];

/// Another one, whose y is minus that of the first.
const OTHER_EIGHTH: [u8; 32] = [
    0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
    0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
];

/// Returns the encoding of the point with the other x.
const fn negated(mut point: [u8; 32]) -> [u8; 32] {
    point[31] |= 0x80;
    point
}

/// Compares little-endian integers. Public values only: not in constant time.
fn below(value: &[u8], limit: &[u8; 32]) -> bool {
    value.iter().rev().lt(limit.iter().rev())
}

/// The DER prefix of an Ed25519 key as SubjectPublicKeyInfo (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The length of a minisign secret key, for the error that a person who mixed up the two files gets.
const MINISIGN_SECRET_KEY_LENGTH: usize = 158;

/// Standard base64, with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Returns a key's SubjectPublicKeyInfo in DER, 44 bytes, whose SHA-256 is its trust anchor.
///
/// # Source
/// RFC 8410 §4.
#[must_use]
pub fn spki_der(key: &VerifyingKey) -> [u8; 44] {
    let mut der = [0; 44];
    der[..12].copy_from_slice(&SPKI_PREFIX);
    der[12..].copy_from_slice(key.as_bytes());
    der
}

/// Reads a public key from any of the spellings in use; space around it does not matter.
///
/// ```text
/// d75a…511a (64 hexadecimal digits)          11qY…URo= (base64 of 32 bytes)
/// RWQ… (a minisign key: base64 of "Ed", 8 bytes of key id, 32 bytes)
/// untrusted comment: …, newline, RWQ…        (a minisign .pub file)
/// example.com/log+33d7b496+AeHT… (a C2SP note verifier key, its hash checked)
/// MCowBQYDK2VwAyEA… (SubjectPublicKeyInfo in DER, base64), or the same between PEM lines
/// ```
///
/// ```
/// use audit_chain::signature::parse_public_key;
///
/// let hex = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
/// assert_eq!(parse_public_key(hex)?, parse_public_key("11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")?);
/// # Ok::<(), audit_chain::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::BadKey`] with what was found instead. The text itself is never repeated: it may be a secret pasted by mistake.
pub fn parse_public_key(text: &str) -> Result<VerifyingKey> {
    let text = text.trim();
    if text.is_empty() {
        return Err(bad("the text is empty"));
    }
    if text.contains("PRIVATE KEY-----") || text.starts_with("PRIVATE+KEY+") {
        return Err(bad("this is a private key; give the public one"));
    }
    if text.contains("-----BEGIN") {
        return parse_pem(text);
    }
    if let Some(comment) = text.strip_prefix("untrusted comment:") {
        let key = comment.lines().nth(1).map(str::trim).unwrap_or_default();
        return Some(key)
            .filter(|key| !key.is_empty())
            .and_then(decode_base64)
            .ok_or_else(|| bad("the line after `untrusted comment:` is not base64"))
            .and_then(|bytes| parse_encoded(&bytes));
    }
    if text.len() == 64
        && let Ok(bytes) = hex::decode(text)
    {
        return public_key(&bytes).map_err(|refusal| bad(&refusal.to_string()));
    }
    if let Some(bytes) = decode_base64(text) {
        return parse_encoded(&bytes);
    }
    if text.contains('+') {
        return Ok(*NoteVerifier::parse(text)?.key());
    }
    if text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(bad(&format!("expected 64 hexadecimal digits, found {}", text.len())));
    }
    Err(bad(&format!("{} characters that are none of the known spellings", text.chars().count())))
}

/// Reads what a base64 spelling held; the lengths of the spellings differ.
fn parse_encoded(bytes: &[u8]) -> Result<VerifyingKey> {
    let key = match bytes.len() {
        32 => bytes,
        42 => match bytes.split_at(10) {
            (header, key) if header.starts_with(b"Ed") => key,
            _ => return Err(bad("42 bytes that do not start with minisign's `Ed`")),
        },
        44 => bytes.strip_prefix(&SPKI_PREFIX).ok_or_else(|| bad("44 bytes that are not an Ed25519 SPKI"))?,
        MINISIGN_SECRET_KEY_LENGTH if bytes.starts_with(b"Ed") => {
            return Err(bad("this is a minisign secret key; give the one that ends in .pub"));
        }
        74 if bytes.starts_with(b"Ed") || bytes.starts_with(b"ED") => {
            return Err(bad("this is a minisign signature, not a key"));
        }
        length => {
            return Err(bad(&format!(
                "expected base64 of 32, 42 (minisign) or 44 (SPKI) bytes, found {length} bytes"
            )));
        }
    };
    public_key(key).map_err(|refusal| bad(&refusal.to_string()))
}

fn parse_pem(text: &str) -> Result<VerifyingKey> {
    let body = text
        .strip_prefix("-----BEGIN PUBLIC KEY-----")
        .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
        .ok_or_else(|| bad("expected one PEM block BEGIN PUBLIC KEY … END PUBLIC KEY"))?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = decode_base64(&body).ok_or_else(|| bad("the PEM block is not base64"))?;
    let key = der.strip_prefix(&SPKI_PREFIX).ok_or_else(|| bad("the PEM block is no Ed25519 public key"))?;
    public_key(key).map_err(|refusal| bad(&refusal.to_string()))
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

fn bad(why: &str) -> Error {
    Error::BadKey { what: "public key".into(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use ed25519_dalek::{Signer as _, SigningKey};
    use proptest::prelude::*;

    use super::*;

    /// The key of RFC 8032 §7.1, test 1.
    const HEX: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn key() -> VerifyingKey {
        public_key(&hex::decode(HEX).unwrap()).unwrap()
    }

    fn minisign() -> String {
        let mut bytes = b"Ed\x01\x02\x03\x04\x05\x06\x07\x08".to_vec();
        bytes.extend(key().as_bytes());
        STANDARD.encode(bytes)
    }

    fn why(text: &str) -> String {
        match parse_public_key(text) {
            Err(Error::BadKey { why, .. }) => why,
            other => panic!("expected a bad key, got {other:?}"),
        }
    }

    #[test]
    fn every_spelling_of_a_public_key_is_read() {
        let spki = STANDARD.encode(spki_der(&key()));
        let note = NoteVerifier::new("example.com/log", key()).unwrap().to_string();
        for text in [
            HEX.to_owned(),
            HEX.to_uppercase(),
            format!("  {HEX}\n"),
            STANDARD.encode(key().as_bytes()),
            STANDARD.encode(key().as_bytes()).trim_end_matches('=').to_owned(),
            minisign(),
            format!("untrusted comment: minisign public key 0807060504030201\n{}\n", minisign()),
            format!("untrusted comment: minisign public key\r\n{}\r\n", minisign()),
            note,
            spki.clone(),
            format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n"),
        ] {
            assert_eq!(parse_public_key(&text).unwrap(), key(), "{text}");
        }
    }

    #[test]
    fn what_is_no_public_key_is_refused_with_what_it_is() {
        assert_eq!(why(""), "the text is empty");
        assert_eq!(why(&HEX[1..]), "expected 64 hexadecimal digits, found 63");
        assert_eq!(why("hello, world"), "12 characters that are none of the known spellings");
        assert!(why("-----BEGIN PRIVATE KEY-----\nMC4CAQ==\n-----END PRIVATE KEY-----").contains("private"));
        assert!(
            why("PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
                .contains("private")
        );
        assert!(why("untrusted comment: minisign public key").contains("line after"));
        let mut secret = vec![0_u8; 158];
        secret[..2].copy_from_slice(b"Ed");
        assert!(why(&format!("untrusted comment: x\n{}", STANDARD.encode(secret))).contains("secret key"));
        assert_eq!(
            why(&STANDARD.encode([7; 33])),
            "expected base64 of 32, 42 (minisign) or 44 (SPKI) bytes, found 33 bytes"
        );
        assert_eq!(why(&"0".repeat(64)), Refusal::KeySmallOrder.to_string());
        assert_eq!(why(&format!("07{}", "0".repeat(62))), Refusal::NotAPoint.to_string());
    }

    #[test]
    fn no_error_repeats_the_text_that_was_given() {
        let secret = "correct horse battery staple";
        for text in [secret.to_owned(), format!("untrusted comment: x\n{secret}"), format!("a+{secret}+c")] {
            assert!(!parse_public_key(&text).unwrap_err().to_string().contains("horse"), "{text}");
        }
    }

    /// y = p + 3 … p + 18 are second spellings of y = 3 … 18, which `VerifyingKey::from_bytes` takes.
    #[test]
    fn keys_in_a_second_spelling_are_refused_however_they_were_made() {
        let mut taken_by_dalek = 0;
        for offset in 0..19_u8 {
            let mut bytes = FIELD_PRIME;
            bytes[0] += offset;
            let Ok(key) = VerifyingKey::from_bytes(&bytes) else { continue };
            taken_by_dalek += 1;
            let expected = if key.is_weak() { Refusal::KeySmallOrder } else { Refusal::KeyNotCanonical };
            assert_eq!(public_key(&bytes), Err(expected), "p + {offset}");
            assert_eq!(verify(&key, b"", &[1; 64]), Err(expected), "p + {offset}");
        }
        assert_eq!(taken_by_dalek, 12);
    }

    #[test]
    fn a_signature_with_the_group_order_added_is_refused() {
        let signer = SigningKey::from_bytes(&[7; 32]);
        let mut signature = signer.sign(b"message").to_bytes();
        verify(&signer.verifying_key(), b"message", &signature).unwrap();
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(GROUP_ORDER) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = (sum & 0xff) as u8;
            carry = sum >> 8;
        }
        let refusal = verify(&signer.verifying_key(), b"message", &signature);
        assert_eq!(refusal, Err(Refusal::ScalarNotCanonical));
    }

    #[test]
    fn the_points_of_small_order_are_all_eight() {
        let distinct: std::collections::BTreeSet<_> = SMALL_ORDER.iter().collect();
        assert_eq!(distinct.len(), 8);
        for bytes in &SMALL_ORDER {
            let key = VerifyingKey::from_bytes(bytes).unwrap();
            assert!(key.is_weak() && key.as_bytes() == bytes, "{}", hex::encode(bytes));
            let mut y = *bytes;
            y[31] &= 0x7f;
            assert!(below(&y, &FIELD_PRIME));
        }
    }

    /// With R the neutral element, S = SHA-512(R || A || M) · a fits the equation of an honest key.
    #[test]
    fn a_signature_whose_equation_holds_with_r_of_small_order_is_refused() {
        use sha2::Digest as _;
        let signer = SigningKey::from_bytes(&[7; 32]);
        let (public, r) = (signer.verifying_key(), SMALL_ORDER[0]);
        let hash = sha2::Sha512::new()
            .chain_update(r)
            .chain_update(public.as_bytes())
            .chain_update(b"message")
            .finalize();
        let secret = signer.to_scalar();
        let one = secret * secret.invert();
        let mut scalar = one - one;
        for bit in (0..512).rev() {
            scalar += scalar;
            if hash[bit / 8] >> (bit % 8) & 1 == 1 {
                scalar += one;
            }
        }
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice((scalar * secret).as_bytes());
        assert!(public.verify(b"message", &Signature::from_bytes(&signature)).is_ok());
        assert!(public.verify_strict(b"message", &Signature::from_bytes(&signature)).is_err());
        assert_eq!(verify(&public, b"message", &signature), Err(Refusal::Mismatch));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_of_message_or_signature_is_refused(seed: [u8; 32], mut message: Vec<u8>, at: prop::sample::Index) {
            let signer = SigningKey::from_bytes(&seed);
            let mut signature = signer.sign(&message).to_bytes();
            prop_assert!(verify(&signer.verifying_key(), &message, &signature).is_ok());
            let bit = at.index(512 + 8 * message.len());
            let byte = if bit < 512 { &mut signature[bit / 8] } else { &mut message[bit / 8 - 64] };
            *byte ^= 1 << (bit % 8);
            prop_assert!(verify(&signer.verifying_key(), &message, &signature).is_err());
        }

        #[test]
        fn no_text_crashes_the_reader(text in "\\PC{0,120}") {
            let _ = parse_public_key(&text);
        }
    }
}
