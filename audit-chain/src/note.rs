//! Signed notes: text that one or more keys signed.
//!
//! [`crate::tlog`] and [`crate::checkpoint`] put their text in notes; `audit-chain` signs and verifies them here.
//!
//! ```text
//! note        text (ends in a newline), an empty line, one or more signature lines
//! signature   "— " name " " base64( key id (4 bytes) || signature ) newline
//! verifier    name "+" 8 hexadecimal digits of the key id "+" base64( 0x01 || public key (32 bytes) )
//! key id      SHA-256( name || 0x0A || 0x01 || public key )[0..4]
//! ```
//!
//! Layout: c2sp.org/signed-note, signature type 0x01 (Ed25519 over the text). Signatures of unknown keys are
//! ignored; a signature of a known key that does not verify refuses the whole note; a malformed note is no note.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::signature;

/// How many bytes a note may have. Protects a reader from a stranger's gigabyte; a checkpoint of a million chains fits.
pub const MAX_NOTE_BYTES: usize = 256 << 20;

/// How many signatures a note may have; c2sp.org/signed-note asks for at least 16.
pub const MAX_SIGNATURES: usize = 100;

/// The signature type of Ed25519 over the note's text.
const ED25519: u8 = 1;

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key.
    pub name: String,
    /// The key id, big-endian.
    pub key_id: u32,
    /// What the key made of the text; 64 bytes for Ed25519, other lengths for other algorithms.
    pub signature: Vec<u8>,
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.key_id.to_be_bytes().to_vec();
        bytes.extend(&self.signature);
        write!(f, "— {} {}", self.name, STANDARD.encode(bytes))
    }
}

/// A note: its text and its signatures, none of which is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl Note {
    /// Begins an unsigned note.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the text does not end in a newline or holds another control character.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        check_text(&text).map_err(|why| Error::InvalidInput(format!("text of a note: {why}")))?;
        Ok(Self { text, signatures: Vec::new() })
    }

    /// Reads a signed note.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the place.
    pub fn parse(note: &str) -> Result<Self> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(malformed(
                "note",
                format!("expected at most {MAX_NOTE_BYTES} bytes, found {}", note.len()),
            ));
        }
        check_text(note).map_err(|why| malformed("note", why))?;
        // The last empty line separates the text from the signatures.
        let cut =
            note.rfind("\n\n").ok_or_else(|| malformed("note", "no empty line before signatures".into()))?
                + 1;
        let text = &note[..cut];
        let first_line = text.matches('\n').count() + 2;
        let mut signatures = Vec::new();
        for (offset, line) in note[cut + 1..].split_terminator('\n').enumerate() {
            let place = format!("line {}", first_line + offset);
            if signatures.len() == MAX_SIGNATURES {
                return Err(malformed(&place, format!("more than {MAX_SIGNATURES} signatures")));
            }
            signatures.push(parse_signature(line).map_err(|why| malformed(&place, why))?);
        }
        if signatures.is_empty() {
            return Err(malformed("note", "no signature after the empty line".into()));
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// Returns the text, including its last newline. It is worth nothing before [`Note::verify`].
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the signature lines, in order.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature; an earlier one by the same key is replaced.
    pub fn sign(&mut self, signer: &NoteSigner) {
        let verifier = &signer.verifier;
        self.signatures.retain(|old| !verifier.made(old));
        self.signatures.push(NoteSignature {
            name: verifier.name.clone(),
            key_id: verifier.key_id,
            signature: signer.key.sign(self.text.as_bytes()).to_bytes().to_vec(),
        });
    }

    /// Verifies the note against the keys that the caller trusts; returns those that signed it, in their order.
    ///
    /// # Errors
    /// [`Error::Unverified`] when none of the keys signed it, or when a signature in the name of one does not verify.
    pub fn verify<'v>(&self, trusted: &'v [NoteVerifier]) -> Result<Vec<&'v NoteVerifier>> {
        let mut signed_by = Vec::new();
        for verifier in trusted {
            let mut signed = false;
            for line in self.signatures.iter().filter(|line| verifier.made(line)) {
                signature::verify(&verifier.key, self.text.as_bytes(), &line.signature)
                    .map_err(|refusal| unverified(format!("signature of {}: {refusal}", verifier.name)))?;
                signed = true;
            }
            if signed {
                signed_by.push(verifier);
            }
        }
        if signed_by.is_empty() {
            return Err(unverified(self.nobody_known(trusted)));
        }
        Ok(signed_by)
    }

    /// Verifies the note against keys with and without a name; returns those that signed it.
    ///
    /// # Errors
    /// Those of [`Note::verify`].
    pub fn verify_trusted(&self, trusted: &[TrustedKey]) -> Result<Vec<NoteVerifier>> {
        let mut verifiers: Vec<NoteVerifier> = Vec::new();
        for key in trusted {
            match key {
                TrustedKey::Named(verifier) => verifiers.push(verifier.clone()),
                TrustedKey::Bare(key) => {
                    for line in &self.signatures {
                        verifiers.push(NoteVerifier::new(line.name.clone(), *key)?);
                    }
                }
            }
        }
        verifiers.sort_by(|a, b| (&a.name, a.key_id).cmp(&(&b.name, b.key_id)));
        verifiers.dedup();
        Ok(self.verify(&verifiers)?.into_iter().cloned().collect())
    }

    fn nobody_known(&self, trusted: &[NoteVerifier]) -> String {
        let names = |list: Vec<String>| if list.is_empty() { "nobody".to_owned() } else { list.join(", ") };
        let label = |name: &str, id: u32| format!("{name}+{id:08x}");
        let signers = self.signatures.iter().map(|line| label(&line.name, line.key_id)).collect();
        let known = trusted.iter().map(|verifier| label(&verifier.name, verifier.key_id)).collect();
        format!("signed by {}, trusted: {}", names(signers), names(known))
    }
}

/// The signed note: text, empty line, signatures. Without signatures, the text alone.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if !self.signatures.is_empty() {
            f.write_str("\n")?;
        }
        for signature in &self.signatures {
            writeln!(f, "{signature}")?;
        }
        Ok(())
    }
}

/// A named public key that signs notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteVerifier {
    name: String,
    key_id: u32,
    key: VerifyingKey,
}

impl NoteVerifier {
    /// Names a public key.
    ///
    /// # Errors
    /// [`Error::BadKey`] when the name is empty or holds a space or `+`, or the key is not strict.
    pub fn new(name: impl Into<String>, key: VerifyingKey) -> Result<Self> {
        let name = name.into();
        check_name(&name).map_err(bad)?;
        let key = signature::public_key(key.as_bytes()).map_err(|refusal| bad(refusal.to_string()))?;
        let key_id = key_id(&name, &key);
        Ok(Self { name, key_id, key })
    }

    /// Reads a verifier key: `name+key id+base64`.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is not of that form, of another algorithm, or its key id does not fit.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.starts_with("PRIVATE+KEY+") {
            return Err(bad("this is a private key; give the public one".into()));
        }
        let (name, stated_id, bytes) = split_key(text).map_err(bad)?;
        let verifier =
            Self::new(name, signature::public_key(&bytes).map_err(|refusal| bad(refusal.to_string()))?)?;
        if verifier.key_id != stated_id {
            return Err(bad(format!(
                "its key id is {:08x}, the text says {stated_id:08x}: a part of it was altered",
                verifier.key_id
            )));
        }
        Ok(verifier)
    }

    /// Returns the key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the key id, big-endian.
    #[must_use]
    pub const fn key_id(&self) -> u32 {
        self.key_id
    }

    /// Returns the public key.
    #[must_use]
    pub const fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// Reports whether a signature line says that it is of this key.
    fn made(&self, line: &NoteSignature) -> bool {
        line.key_id == self.key_id && line.name == self.name
    }
}

/// The verifier key: `name+key id+base64`.
impl fmt::Display for NoteVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![ED25519];
        bytes.extend(self.key.as_bytes());
        write!(f, "{}+{:08x}+{}", self.name, self.key_id, STANDARD.encode(bytes))
    }
}

/// A public key that a caller trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedKey {
    /// A key that signs under its own name only.
    Named(NoteVerifier),
    /// A key whatever name it signs under.
    Bare(VerifyingKey),
}

impl TrustedKey {
    /// Reads a key: a note verifier key keeps its name, any other spelling of a public key has none.
    ///
    /// # Errors
    /// [`Error::BadKey`] as [`signature::parse_public_key`] says.
    pub fn parse(text: &str) -> Result<Self> {
        match NoteVerifier::parse(text) {
            Ok(verifier) => Ok(Self::Named(verifier)),
            Err(_) => signature::parse_public_key(text).map(Self::Bare),
        }
    }
}

impl From<NoteVerifier> for TrustedKey {
    fn from(verifier: NoteVerifier) -> Self {
        Self::Named(verifier)
    }
}

impl From<VerifyingKey> for TrustedKey {
    fn from(key: VerifyingKey) -> Self {
        Self::Bare(key)
    }
}

/// A named private key that signs notes. Wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct NoteSigner {
    verifier: NoteVerifier,
    key: SigningKey,
}

impl NoteSigner {
    /// Names the private key that a 32-byte Ed25519 seed gives.
    ///
    /// # Errors
    /// [`Error::BadKey`] when the name is empty or holds a space or `+`.
    pub fn new(name: impl Into<String>, seed: &[u8; 32]) -> Result<Self> {
        let key = SigningKey::from_bytes(seed);
        Ok(Self { verifier: NoteVerifier::new(name, key.verifying_key())?, key })
    }

    /// Reads a private key in note form: `PRIVATE+KEY+name+key id+base64`.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is not of that form, of another algorithm, or its key id does not fit. The error never holds the text.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: String| Error::BadKey { what: "private key of a note".into(), why };
        let text = text
            .trim()
            .strip_prefix("PRIVATE+KEY+")
            .ok_or_else(|| bad("no PRIVATE+KEY+ at its start".into()))?;
        let (name, stated_id, bytes) = split_key(text).map_err(bad)?;
        let seed = zeroize::Zeroizing::new(bytes);
        let signer = Self::new(name, &seed)?;
        if signer.verifier.key_id != stated_id {
            return Err(bad(format!(
                "its key id is {:08x}, the text says {stated_id:08x}",
                signer.verifier.key_id
            )));
        }
        Ok(signer)
    }

    /// Returns the public half.
    #[must_use]
    pub const fn verifier(&self) -> &NoteVerifier {
        &self.verifier
    }
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteSigner({}+{:08x})", self.verifier.name, self.verifier.key_id)
    }
}

/// Returns the key id of an Ed25519 key.
fn key_id(name: &str, key: &VerifyingKey) -> u32 {
    let digest = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', ED25519])
        .chain_update(key.as_bytes())
        .finalize();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Splits `name+key id+base64` into its name, key id and the 32 bytes after the algorithm.
fn split_key(text: &str) -> Result<(&str, u32, [u8; 32]), String> {
    // Only the base64 may hold further pluses.
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("expected name+key id+base64".into());
    };
    check_name(name)?;
    let id = (id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| u32::from_str_radix(id, 16).ok())
        .flatten()
        .ok_or("the key id is 8 hexadecimal digits")?;
    let bytes = zeroize::Zeroizing::new(STANDARD.decode(key).map_err(|_| "the key is not base64")?);
    match bytes.split_first() {
        Some((&ED25519, key)) => {
            let key =
                key.try_into().map_err(|_| format!("an Ed25519 key is 32 bytes, found {}", key.len()))?;
            Ok((name, id, key))
        }
        Some((algorithm, _)) => Err(format!("signature type {algorithm:#04x} is not Ed25519 (0x01)")),
        None => Err("the key is empty".into()),
    }
}

fn parse_signature(line: &str) -> Result<NoteSignature, String> {
    let rest =
        line.strip_prefix("— ").ok_or("expected a signature line: em dash, space, name, space, base64")?;
    let (name, encoded) = rest.split_once(' ').ok_or("expected a key name, a space and base64")?;
    check_name(name)?;
    let bytes = STANDARD.decode(encoded).map_err(|_| "the signature is not base64")?;
    match bytes.split_first_chunk::<4>() {
        Some((id, signature)) if !signature.is_empty() => Ok(NoteSignature {
            name: name.to_owned(),
            key_id: u32::from_be_bytes(*id),
            signature: signature.to_vec(),
        }),
        _ => Err(format!("a signature is more than 4 bytes, found {}", bytes.len())),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the key name is empty".into());
    }
    if name.chars().any(|c| c.is_whitespace() || c == '+' || c < ' ') {
        return Err("the key name holds a space, a control character or a plus".into());
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), String> {
    if let Some(at) = text.bytes().position(|byte| byte < b' ' && byte != b'\n') {
        return Err(format!("control character {:#04x} at byte {at}", text.as_bytes()[at]));
    }
    if !text.ends_with('\n') {
        return Err("does not end in a newline".into());
    }
    Ok(())
}

fn malformed(place: &str, what: String) -> Error {
    Error::Malformed { input: "signed note".into(), place: place.into(), what }
}

fn unverified(why: String) -> Error {
    Error::Unverified { what: "signed note".into(), why }
}

fn bad(why: String) -> Error {
    Error::BadKey { what: "verifier key of a note".into(), why }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signer(name: &str, seed: u8) -> NoteSigner {
        NoteSigner::new(name, &[seed; 32]).unwrap()
    }

    fn signed(text: &str, signers: &[NoteSigner]) -> String {
        let mut note = Note::new(text).unwrap();
        for signer in signers {
            note.sign(signer);
        }
        note.to_string()
    }

    #[test]
    fn signatures_of_unknown_keys_are_ignored() {
        let (log, witness) = (signer("example.com/log", 1), signer("witness.example", 2));
        let note = Note::parse(&signed("text\n", &[witness, log.clone()])).unwrap();
        assert_eq!(note.signatures().len(), 2);
        let trusted = [log.verifier().clone()];
        assert_eq!(note.verify(&trusted).unwrap(), [log.verifier()]);
    }

    #[test]
    fn keys_that_share_a_name_or_an_id_but_not_both_are_unknown() {
        let log = signer("example.com/log", 1);
        let note = Note::parse(&signed("text\n", std::slice::from_ref(&log))).unwrap();
        let other_key = signer("example.com/log", 2).verifier().clone();
        let other_name = signer("example.com/other", 1).verifier().clone();
        let error = note.verify(&[other_key, other_name]).unwrap_err().to_string();
        assert!(error.contains("signed by example.com/log+"), "{error}");
    }

    #[test]
    fn a_key_without_a_name_is_trusted_under_every_name() {
        let log = signer("example.com/log", 1);
        let note = Note::parse(&signed("text\n", std::slice::from_ref(&log))).unwrap();
        let hex = hex::encode(log.verifier().key().as_bytes());
        let trusted =
            [TrustedKey::parse(&hex).unwrap(), TrustedKey::parse(&log.verifier().to_string()).unwrap()];
        assert!(matches!(trusted, [TrustedKey::Bare(_), TrustedKey::Named(_)]));
        assert_eq!(note.verify_trusted(&trusted).unwrap(), [log.verifier().clone()]);
        assert_eq!(note.verify_trusted(&trusted[..1]).unwrap(), [log.verifier().clone()]);
        note.verify_trusted(&[(*signer("example.com/log", 2).verifier().key()).into()]).unwrap_err();
        note.verify_trusted(&[]).unwrap_err();
    }

    #[test]
    fn a_bad_signature_of_a_known_key_refuses_the_note_though_another_is_good() {
        let (log, witness) = (signer("example.com/log", 1), signer("witness.example", 2));
        let mut note = Note::parse(&signed("text\n", &[log.clone(), witness.clone()])).unwrap();
        note.signatures[1].signature[0] ^= 1;
        let both = [log.verifier().clone(), witness.verifier().clone()];
        assert!(note.verify(&both).unwrap_err().to_string().contains("witness.example"));
        note.verify(&both[..1]).unwrap();
    }

    #[test]
    fn a_second_bad_signature_in_the_name_of_a_known_key_refuses_the_note() {
        let log = signer("example.com/log", 1);
        let mut note = Note::parse(&signed("text\n", std::slice::from_ref(&log))).unwrap();
        let mut second = note.signatures[0].clone();
        second.signature[5] ^= 1;
        note.signatures.push(second);
        note.verify(&[log.verifier().clone()]).unwrap_err();
    }

    #[test]
    fn a_note_may_hold_empty_lines_and_is_split_at_the_last() {
        let log = signer("example.com/log", 1);
        let text = "first\n\n\nlast\n";
        let note = Note::parse(&signed(text, std::slice::from_ref(&log))).unwrap();
        assert_eq!(note.text(), text);
        note.verify(&[log.verifier().clone()]).unwrap();
    }

    #[test]
    fn malformed_notes_are_refused() {
        let good = signed("text\n", &[signer("example.com/log", 1)]);
        Note::parse(&good).unwrap();
        for (what, note) in [
            ("nothing", String::new()),
            ("no signature", "text\n".into()),
            ("no signature after the empty line", "text\n\n".into()),
            ("no last newline", good.trim_end().into()),
            ("carriage returns", good.replace('\n', "\r\n")),
            ("tab", good.replace("text", "te\txt")),
            ("hyphen for the dash", good.replace('—', "-")),
            ("no name", good.replace("example.com/log ", "")),
            ("empty name", good.replace("example.com/log", "")),
            ("name with a plus", good.replace("example.com/log", "example.com+log")),
            ("name with a wide space", good.replace("example.com/log", "example.com\u{3000}log")),
            ("not base64", good.replace('=', "*")),
            ("no padding", good.replace('=', "")),
            ("too short", "text\n\n— a AAAA\n".into()),
            ("text after the signatures", format!("{good}more\n")),
            ("too many signatures", format!("{good}{}", "— a AAAAAAA=\n".repeat(MAX_SIGNATURES))),
        ] {
            assert!(matches!(Note::parse(&note), Err(Error::Malformed { .. })), "{what}");
        }
    }

    #[test]
    fn text_that_cannot_be_a_note_is_not_signed() {
        for text in ["", "no newline", "tab\t\n", "cr\r\n"] {
            assert!(Note::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn keys_that_do_not_fit_their_own_id_are_refused() {
        let good = signer("example.com/log", 1).verifier().to_string();
        NoteVerifier::parse(&good).unwrap();
        for text in [
            good.replace("example", "examplf"),
            good.replace("example.com/log", ""),
            good.replacen("+A", "+B", 1),
            good[..good.len() - 1].to_owned(),
            "name+00000000".to_owned(),
            "name+0000000+AAAA".to_owned(),
            "name++00000000+AAAA".to_owned(),
        ] {
            assert!(matches!(NoteVerifier::parse(&text), Err(Error::BadKey { .. })), "{text}");
        }
    }

    #[test]
    fn a_private_key_is_never_printed() {
        let signer = signer("example.com/log", 0x41);
        assert_eq!(
            format!("{signer:?}"),
            format!("NoteSigner(example.com/log+{:08x})", signer.verifier().key_id())
        );
        let error = NoteSigner::parse("PRIVATE+KEY+a+00000000+AUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB")
            .unwrap_err();
        assert!(!error.to_string().contains("FBQUFB"), "{error}");
    }

    proptest! {
        #[test]
        fn signed_notes_come_back_and_any_flipped_bit_is_noticed(
            lines in proptest::collection::vec("[^\\x00-\\x1f]{0,20}", 1..6), at: prop::sample::Index,
        ) {
            let log = signer("example.com/log", 9);
            let trusted = [log.verifier().clone()];
            let text = lines.join("\n") + "\n";
            let note = signed(&text, std::slice::from_ref(&log));
            let parsed = Note::parse(&note).unwrap();
            prop_assert_eq!(parsed.text(), &text);
            prop_assert_eq!(parsed.to_string(), note.clone());
            parsed.verify(&trusted).unwrap();

            let mut bytes = note.into_bytes();
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(note) = String::from_utf8(bytes) {
                prop_assert!(Note::parse(&note).and_then(|note| note.verify(&trusted).map(|_| ())).is_err());
            }
        }
    }
}
