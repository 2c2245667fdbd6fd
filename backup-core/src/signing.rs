//! Ed25519 signing keys and detached signatures, in minisign's formats.
//!
//! `keygen`, the manifest and the repository's log use it; stock `minisign -V` verifies what it signs and
//! stock `minisign -S` (0.11) signs with its keys. Signatures are decided by [`audit_chain::signature`], the
//! one strict rule of every path; Ed25519 is ed25519-dalek's, BLAKE2b blake2's; here is the file format only.
//!
//! ```text
//! secret file (0600)  untrusted comment: …\n  base64(158 bytes)\n
//!   "Ed" 00 00 "B2" salt[32]=0 opslimit[8]=0 memlimit[8]=0 key id[8] seed[32] public[32] BLAKE2b-256[32]
//!   the checksum is over "Ed", key id, seed, public; minisign 0.11 leaves it zero in a key without password
//! public file         untrusted comment: …\n  base64("Ed" key id[8] public[32])\n
//! signature           untrusted comment: signature from minisign secret key\n
//!                     base64("ED" key id[8] signature[64])\n      over BLAKE2b-512 of the bytes
//!                     trusted comment: TEXT\n
//!                     base64(signature[64])\n                     over the first signature and TEXT
//! ```
//! (jedisct1.github.io/minisign, docs/format/objects.md.) The key id says which key; it is no secret and
//! proves nothing. Keys made here have the first 8 bytes of SHA-256(public key) as their id.
//!
//! When the process dies in `keygen`: the secret file may exist without its `.pub`; it is then complete or
//! not a key at all, and a second `keygen` refuses the name.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use audit_chain::note::{NoteSigner, NoteVerifier};
use audit_chain::signature::{self, Refusal};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b256, Blake2b512, Digest as _};
use ed25519_dalek::{Signer as _, VerifyingKey};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::durable::{Durable, PRIVATE_FILE};
use crate::error::{Error, ErrorKind, Result};

/// The ending of a detached signature's file.
pub const SIGNATURE_SUFFIX: &str = ".minisig";
/// The longest trusted comment, in bytes: what stock minisign reads.
pub const TRUSTED_COMMENT_MAX: usize = 8000;

/// The untrusted comments that are taken. Nothing signs that line, so anything else there is an alteration:
/// with it fixed, no bit of a signature file can change unnoticed.
const UNTRUSTED_COMMENTS: [&str; 2] =
    ["signature from minisign secret key", "signature from rsign secret key"];
const UNTRUSTED: &str = "untrusted comment: ";
const TRUSTED: &str = "trusted comment: ";
/// The shortest spelling of an Ed25519 key, in bytes: 32 bytes in base64 without padding.
const SHORTEST_KEY: usize = 43;
/// The longest key or signature file that is read, in bytes.
const FILE_MAX: u64 = 16 * 1024;

/// Minisign's key id, 8 bytes; 16 hexadecimal digits as minisign prints it (little-endian).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A private key. Wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    id: KeyId,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

impl SigningKey {
    /// Makes a new key from the system's random bytes.
    ///
    /// # Errors
    /// `Unavailable` when the system gives none.
    pub fn generate() -> Result<Self> {
        let mut seed = Zeroizing::new([0_u8; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the system gives no random bytes").with_source(error)
        })?;
        Ok(Self::from_seed(&seed))
    }

    /// Makes the key of a 32-byte seed (RFC 8032 §5.1.5).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let id = derived_id(&key.verifying_key());
        Self { key, id }
    }

    /// Makes a key, writes it to `path` (mode 0600) and its public half to `path.pub`. Neither may exist.
    ///
    /// # Errors
    /// `AlreadyExists` when one of the files is there; nothing is then written. What the system says.
    pub fn keygen(path: impl AsRef<Path>, durable: &Durable) -> Result<Self> {
        let path = path.as_ref();
        let key = Self::generate()?;
        // Both names are taken before either file has a byte, and both go again when one fails.
        let taken = |error: Error| match &error {
            Error::Io { path, .. } if error.kind() == ErrorKind::AlreadyExists => {
                Error::new(ErrorKind::AlreadyExists, format!("{} exists", path.display()))
                    .with_hint("a key is never overwritten: choose another name")
            }
            _ => error,
        };
        let mut secret = durable.create_new(path, PRIVATE_FILE).map_err(taken)?;
        let mut public = durable.create_new(public_path(path), 0o644).map_err(taken)?;
        let failed = |path: &Path, error| Error::io("write", path, error);
        secret.write_all(key.to_file_text().as_bytes()).map_err(|error| failed(secret.path(), error))?;
        public
            .write_all(key.public_key().to_file_text().as_bytes())
            .map_err(|error| failed(public.path(), error))?;
        public.sync()?;
        secret.finish()?;
        public.finish_and_sync_dir()?;
        Ok(key)
    }

    /// Reads a secret key file without password, made by [`SigningKey::keygen`] or `minisign -G -W`.
    ///
    /// # Errors
    /// `Permission` when others may read or write the file; `Unsupported` when it has a password;
    /// `KeyRejected` when it is not such a key or damaged; `NotFound`.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = std::fs::File::open(path).map_err(|error| Error::io("open", path, error))?;
        let metadata = file.metadata().map_err(|error| Error::io("read", path, error))?;
        let key = Self::parse(&path.display().to_string(), &read_text(file, path)?)?;
        let mode = metadata.mode() & 0o7777;
        if metadata.is_file() && mode & 0o077 != 0 {
            let message = format!(
                "{}: others may use this secret key (mode {mode:04o}, expected 0600)",
                path.display()
            );
            return Err(Error::new(ErrorKind::Permission, message).with_hint(format!(
                "chmod 600 {}; if others could read it, make a new key",
                path.display()
            )));
        }
        Ok(key)
    }

    /// Parses the text of a secret key file; `name` stands for it in errors, which never repeat the text.
    ///
    /// # Errors
    /// `Unsupported` when it has a password; `KeyRejected` when it is not such a key or damaged.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let reject = |why: &str| {
            Error::new(ErrorKind::KeyRejected, format!("{name}: {why}"))
                .with_hint("`attestore keygen --out FILE` makes a key; `minisign -G -W` does too")
        };
        let line = text.lines().nth(1).map(str::trim).filter(|_| text.starts_with("untrusted comment:"));
        let line = line.ok_or_else(|| reject("expected a minisign secret key file, found another text"))?;
        let mut bytes = Zeroizing::new([0_u8; 160]);
        let bytes = match STANDARD.decode_slice(line, bytes.as_mut_slice()) {
            Ok(158) => Zeroizing::new(<[u8; 158]>::try_from(&bytes[..158]).unwrap_or([0; 158])),
            Ok(42) => return Err(reject("this is the public key; the secret one is needed")),
            _ => return Err(reject("expected 158 bytes of minisign secret key in base64")),
        };
        let (algorithm, kdf, checksum_algorithm) = (&bytes[..2], &bytes[2..4], &bytes[4..6]);
        if algorithm != b"Ed" || checksum_algorithm != b"B2" {
            return Err(reject("expected an Ed25519 key with a BLAKE2b checksum, found another algorithm"));
        }
        if kdf == b"Sc" {
            let message =
                format!("{name}: the secret key is protected by a password, which cannot be asked for here");
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_hint("`minisign -C -W -s FILE` writes it without password; protect the file instead"));
        }
        if kdf != [0, 0] {
            return Err(reject("the secret key is protected in an unknown way"));
        }
        let (id, secret, checksum) = (&bytes[54..62], &bytes[62..126], &bytes[126..158]);
        let sum = Blake2b256::new().chain_update(b"Ed").chain_update(id).chain_update(secret).finalize();
        // minisign 0.11 writes no checksum when there is no password; the public half below still checks the seed.
        if checksum != sum.as_slice() && checksum != [0; 32] {
            return Err(reject("the secret key is damaged: its checksum does not fit"));
        }
        let mut seed = Zeroizing::new([0_u8; 32]);
        seed.copy_from_slice(&secret[..32]);
        let mut key = Self::from_seed(&seed);
        if key.key.verifying_key().as_bytes() != &secret[32..] {
            return Err(reject("the secret key is damaged: its public half is another key's"));
        }
        let mut stated = [0; 8];
        stated.copy_from_slice(id);
        key.id = KeyId(stated);
        Ok(key)
    }

    /// Returns the text of the secret key file; wiped when dropped.
    #[must_use]
    pub fn to_file_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0_u8; 158]);
        bytes[..2].copy_from_slice(b"Ed");
        bytes[4..6].copy_from_slice(b"B2");
        bytes[54..62].copy_from_slice(&self.id.0);
        bytes[62..94].copy_from_slice(self.key.as_bytes());
        bytes[94..126].copy_from_slice(self.key.verifying_key().as_bytes());
        let sum = Blake2b256::new().chain_update(b"Ed").chain_update(&bytes[54..126]).finalize();
        bytes[126..].copy_from_slice(&sum);
        // Reserved in full, so that no copy is left behind by growing.
        let mut text = Zeroizing::new(String::with_capacity(400));
        text.push_str(UNTRUSTED);
        text.push_str("attestore signing key without password, keep it secret\n");
        STANDARD.encode_string(bytes.as_slice(), &mut text);
        text.push('\n');
        text
    }

    /// Returns the public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey { key: self.key.verifying_key(), id: self.id, id_known: true }
    }

    /// Returns the 32-byte seed; wiped when dropped.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// Returns the same key as a signer of notes (c2sp.org/signed-note).
    ///
    /// # Errors
    /// `KeyRejected` when the name is empty or holds a space or `+`.
    pub fn note_signer(&self, name: &str) -> Result<NoteSigner> {
        Ok(NoteSigner::new(name, &self.seed())?)
    }

    /// Signs bytes and returns the text of a `.minisig` file. `trusted_comment` is signed too.
    ///
    /// # Errors
    /// `InvalidInput` when the comment is longer than [`TRUSTED_COMMENT_MAX`], holds a control character other
    /// than a tab, or begins or ends with a blank.
    ///
    /// # Source
    /// jedisct1.github.io/minisign, "Signature format" (prehashed, `ED`).
    pub fn sign_detached(&self, bytes: &[u8], trusted_comment: &str) -> Result<String> {
        check_comment(trusted_comment)?;
        let signed = self.key.sign(&Blake2b512::digest(bytes)).to_bytes();
        let global = self.key.sign(&[&signed, trusted_comment.as_bytes()].concat()).to_bytes();
        let signature =
            Detached { algorithm: *b"ED", id: self.id, signed, comment: trusted_comment.into(), global };
        Ok(signature.to_text(UNTRUSTED_COMMENTS[0]))
    }
}

/// A public key, with the key id that minisign gives it where that is known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    id: KeyId,
    /// Whether `id` was read; otherwise it is what `keygen` would have given.
    id_known: bool,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.to_minisign())
    }
}

/// The minisign form: `RW` and 54 more characters.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_minisign())
    }
}

impl PublicKey {
    /// Makes one from a verifying key; its id is the one that `keygen` gives.
    #[must_use]
    pub fn new(key: VerifyingKey) -> Self {
        Self { key, id: derived_id(&key), id_known: false }
    }

    /// Returns the key itself.
    #[must_use]
    pub const fn verifying_key(&self) -> &VerifyingKey {
        &self.key
    }

    /// Parses any spelling that [`audit_chain::signature::parse_public_key`] knows: minisign (a line or the
    /// text of a `.pub` file), hex, base64, a note verifier key, SPKI.
    ///
    /// # Errors
    /// `KeyRejected` with what was found instead.
    pub fn parse(text: &str) -> Result<Self> {
        let mut key = Self::new(signature::parse_public_key(text)?);
        let line = text.trim().lines().last().unwrap_or_default().trim();
        if let Ok(bytes) = STANDARD.decode(line)
            && bytes.len() == 42
            && let Some(id) = bytes.get(2..10).and_then(|id| <[u8; 8]>::try_from(id).ok())
        {
            (key.id, key.id_known) = (KeyId(id), true);
        }
        Ok(key)
    }

    /// Reads a file that holds one public key in any spelling.
    ///
    /// # Errors
    /// `NotFound`, `Permission`; `KeyRejected`, naming the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = std::fs::File::open(path).map_err(|error| Error::io("open", path, error))?;
        let text = read_text(file, path)?;
        Self::parse(&text).map_err(|error| {
            Error::new(ErrorKind::KeyRejected, format!("{}: {error}", path.display()))
                .with_hint(error.hint().unwrap_or_default())
        })
    }

    /// Takes a public key itself or the path of a file that holds one, as `--public-key` does.
    ///
    /// # Errors
    /// As [`PublicKey::parse`] and [`PublicKey::load`]; `NotFound` for what is neither a file nor as long as a key.
    pub fn parse_or_load(file_or_text: &str) -> Result<Self> {
        Self::parse(file_or_text).or_else(|refused| {
            if Path::new(file_or_text).exists() {
                Self::load(file_or_text)
            } else if file_or_text.len() < SHORTEST_KEY {
                // Too short for any spelling of a key, a secret one too, so it can be repeated.
                let message = format!("{file_or_text}: there is no such file, and it is no public key");
                Err(Error::new(ErrorKind::NotFound, message).with_hint(refused.hint().unwrap_or_default()))
            } else {
                Err(refused)
            }
        })
    }

    /// Returns the verifying key.
    #[must_use]
    pub const fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// Returns the key id; for a key whose spelling holds none, the one that `keygen` gives.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.id
    }

    /// Returns the minisign form: base64 of `Ed`, the key id and the key.
    #[must_use]
    pub fn to_minisign(&self) -> String {
        STANDARD.encode([b"Ed", self.id.0.as_slice(), self.key.as_bytes()].concat())
    }

    /// Returns the text of a minisign public key file.
    #[must_use]
    pub fn to_file_text(&self) -> String {
        format!("{UNTRUSTED}minisign public key {}\n{}\n", self.id, self.to_minisign())
    }

    /// Returns the 32 bytes as 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.key.as_bytes())
    }

    /// Returns the key as a verifier of notes (c2sp.org/signed-note); its text is the note's verifier key.
    ///
    /// # Errors
    /// `KeyRejected` when the name is empty or holds a space or `+`.
    pub fn note_verifier(&self, name: &str) -> Result<NoteVerifier> {
        Ok(NoteVerifier::new(name, self.key)?)
    }
}

/// What a signature that holds says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The key that made it, one of those given.
    pub key: PublicKey,
    /// The comment that it covers.
    pub trusted_comment: String,
}

/// Verifies a detached signature (`.minisig`) over bytes by any of the trusted keys. `name` is what was signed.
///
/// The text must be exactly what minisign writes, with its own untrusted comment, so that every change of a
/// bit in it is noticed. Signatures of the old kind (`minisign -S -l`) are refused.
///
/// # Errors
/// `InvalidInput` without keys; `Corrupt` when the text is no signature; `KeyRejected` when it is of a key
/// that is not trusted; `Tampered` when bytes, comment or signature are not what was signed.
///
/// # Source
/// jedisct1.github.io/minisign; RFC 8032 by the strict rule of [`audit_chain::signature`].
pub fn verify_detached(name: &str, bytes: &[u8], text: &str, trusted: &[PublicKey]) -> Result<Verified> {
    if trusted.is_empty() {
        let message = format!("{name}: no public key is given that its signature could be of");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let signature = Detached::parse(name, text)?;
    let prehashed = Blake2b512::digest(bytes);
    let mut named = false;
    for key in trusted.iter().filter(|key| !key.id_known || key.id == signature.id) {
        named |= key.id_known;
        match signature::verify(&key.key, &prehashed, &signature.signed) {
            Ok(()) => {}
            // A key without an id may simply not be the one.
            Err(Refusal::Mismatch) if !key.id_known => continue,
            Err(refusal) => {
                return Err(tampered(name, &format!("signature of key {}", signature.id), refusal));
            }
        }
        let covered = [&signature.signed, signature.comment.as_bytes()].concat();
        signature::verify(&key.key, &covered, &signature.global)
            .map_err(|refusal| tampered(name, "signature over the trusted comment", refusal))?;
        return Ok(Verified { key: *key, trusted_comment: signature.comment });
    }
    if !named && trusted.iter().any(|key| !key.id_known && key.id == signature.id) {
        return Err(tampered(name, &format!("signature of key {}", signature.id), Refusal::Mismatch));
    }
    let ids: Vec<_> = trusted.iter().map(|key| key.id.to_string()).collect();
    let message = format!("{name}: signed by key {}, expected one of {}", signature.id, ids.join(", "));
    Err(Error::new(ErrorKind::KeyRejected, message)
        .with_hint("name the public key of whoever made the backup (`--public-key`)"))
}

fn tampered(name: &str, what: &str, refusal: Refusal) -> Error {
    Error::new(ErrorKind::Tampered, format!("{name}: {what}: {refusal}"))
        .with_hint("the file or its signature was altered after it was signed: do not use it")
}

/// A signature file taken apart.
struct Detached {
    algorithm: [u8; 2],
    id: KeyId,
    signed: [u8; 64],
    comment: String,
    global: [u8; 64],
}

impl Detached {
    fn parse(name: &str, text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(ErrorKind::Corrupt, format!("{name}: its signature cannot be read: {why}"))
                .with_hint("the signature file is damaged or not minisign's; fetch it again")
        };
        let lines: Vec<&str> = text.split('\n').collect();
        let [untrusted, signed, trusted, global, ""] = lines.as_slice() else {
            return Err(bad("expected four lines, each ended by a newline"));
        };
        let untrusted = untrusted.strip_prefix(UNTRUSTED).filter(|text| UNTRUSTED_COMMENTS.contains(text));
        let untrusted = untrusted.ok_or_else(|| {
            bad("line 1 is not `untrusted comment: signature from minisign secret key`, which nothing signs")
        })?;
        let decoded = STANDARD.decode(signed).ok().filter(|bytes| bytes.len() == 74);
        let decoded = decoded.ok_or_else(|| bad("line 2 is not 74 bytes in base64"))?;
        let comment =
            trusted.strip_prefix(TRUSTED).ok_or_else(|| bad("line 3 is not `trusted comment: …`"))?;
        check_comment(comment).map_err(|error| bad(&error.to_string()))?;
        let global = STANDARD.decode(global).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        let global = global.ok_or_else(|| bad("line 4 is not 64 bytes in base64"))?;
        let (mut algorithm, mut id, mut signed) = ([0; 2], [0; 8], [0; 64]);
        algorithm.copy_from_slice(&decoded[..2]);
        id.copy_from_slice(&decoded[2..10]);
        signed.copy_from_slice(&decoded[10..]);
        match &algorithm {
            b"ED" => {}
            b"Ed" => return Err(bad("it is of the old kind, without prehashing; sign again without `-l`")),
            _ => return Err(bad("its algorithm is unknown")),
        }
        let signature = Self { algorithm, id: KeyId(id), signed, comment: comment.into(), global };
        // One signature, one spelling.
        if signature.to_text(untrusted) != text {
            return Err(bad("it is not spelt as minisign writes it"));
        }
        Ok(signature)
    }

    fn to_text(&self, untrusted: &str) -> String {
        let signed = STANDARD.encode([&self.algorithm, self.id.0.as_slice(), &self.signed].concat());
        let global = STANDARD.encode(self.global);
        format!("{UNTRUSTED}{untrusted}\n{signed}\n{TRUSTED}{}\n{global}\n", self.comment)
    }
}

fn check_comment(comment: &str) -> Result<()> {
    let fault = if comment.len() > TRUSTED_COMMENT_MAX {
        format!("expected at most {TRUSTED_COMMENT_MAX} bytes, found {}", comment.len())
    } else if comment.chars().any(|c| c.is_control() && c != '\t') {
        "it holds a control character".into()
    } else if comment.trim() != comment {
        "it begins or ends with a blank".into()
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidInput, format!("trusted comment: {fault}")))
}

/// Reads a small text file into memory that is wiped when dropped.
fn read_text(file: std::fs::File, path: &Path) -> Result<Zeroizing<String>> {
    // Reserved in full, so that no copy is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_MAX as usize + 64));
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(|error| Error::io("read", path, error))?;
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            let message = format!("{}: expected a key file, found bytes that are not text", path.display());
            Err(Error::new(ErrorKind::KeyRejected, message))
        }
    }
}

/// The key id of keys made here, so that every spelling of the key gives the same minisign form.
fn derived_id(key: &VerifyingKey) -> KeyId {
    let digest = Sha256::digest(key.as_bytes());
    let mut id = [0; 8];
    id.copy_from_slice(&digest[..8]);
    KeyId(id)
}

/// Returns where `keygen` puts the public half: the same path with `.pub` behind it.
#[must_use]
pub fn public_path(secret: &Path) -> PathBuf {
    let mut path = secret.as_os_str().to_owned();
    path.push(".pub");
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32])
    }

    #[test]
    fn keygen_makes_a_private_file_and_its_public_half_and_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.key");
        let made = SigningKey::keygen(&path, &Durable::new()).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let loaded = SigningKey::load(&path).unwrap();
        assert_eq!(loaded.seed(), made.seed());
        assert_eq!(PublicKey::load(public_path(&path)).unwrap(), made.public_key());

        let before = std::fs::read(&path).unwrap();
        let again = SigningKey::keygen(&path, &Durable::new()).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn keygen_leaves_nothing_when_the_public_file_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        std::fs::write(public_path(&path), b"mine").unwrap();
        let error = SigningKey::keygen(&path, &Durable::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(!path.exists());
        assert_eq!(std::fs::read(public_path(&path)).unwrap(), b"mine");
    }

    #[test]
    fn load_refuses_a_key_that_others_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        SigningKey::keygen(&path, &Durable::new()).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o644] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = SigningKey::load(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Permission, "{mode:o}");
            assert!(error.hint().unwrap().contains("chmod 600"));
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
        SigningKey::load(&path).unwrap();
    }

    #[test]
    fn damaged_and_foreign_secret_keys_are_refused_without_their_text() {
        let good = key().to_file_text();
        let line = good.lines().nth(1).unwrap();
        let mut bytes = STANDARD.decode(line).unwrap();
        let rebuild = |bytes: &[u8]| format!("untrusted comment: x\n{}\n", STANDARD.encode(bytes));
        let mut cases = vec![
            (String::new(), ErrorKind::KeyRejected),
            ("untrusted comment: only\n".into(), ErrorKind::KeyRejected),
            (key().public_key().to_file_text(), ErrorKind::KeyRejected),
            (line.to_owned(), ErrorKind::KeyRejected),
            (rebuild(&bytes[..157]), ErrorKind::KeyRejected),
        ];
        for at in [0, 4, 60, 70, 100, 130] {
            bytes[at] ^= 1;
            cases.push((rebuild(&bytes), ErrorKind::KeyRejected));
            bytes[at] ^= 1;
        }
        bytes[2..4].copy_from_slice(b"Sc");
        cases.push((rebuild(&bytes), ErrorKind::Unsupported));
        for (text, kind) in cases {
            let error = SigningKey::parse("k", &text).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(!format!("{error:?}").contains(&line[100..140]));
        }
    }

    #[test]
    fn a_zero_checksum_is_read_as_minisign_writes_it_but_the_halves_must_fit() {
        let mut bytes = STANDARD.decode(key().to_file_text().lines().nth(1).unwrap()).unwrap();
        bytes[126..].fill(0);
        let text = |bytes: &[u8]| format!("untrusted comment: x\n{}\n", STANDARD.encode(bytes));
        assert_eq!(SigningKey::parse("k", &text(&bytes)).unwrap().seed(), key().seed());
        bytes[70] ^= 1;
        assert!(SigningKey::parse("k", &text(&bytes)).is_err());
    }

    #[test]
    fn the_minisign_crate_reads_our_keys_and_signatures_and_we_read_its() {
        let ours = key();
        let secret = minisign::SecretKeyBox::from_string(&ours.to_file_text()).unwrap();
        let secret = secret.into_unencrypted_secret_key().unwrap();
        let public = minisign::PublicKeyBox::from_string(&ours.public_key().to_file_text()).unwrap();
        let public = public.into_public_key().unwrap();

        let text = ours.sign_detached(b"bytes", "made by us").unwrap();
        let parsed = minisign::SignatureBox::from_string(&text).unwrap();
        minisign::verify(&public, &parsed, std::io::Cursor::new(b"bytes"), true, false, false).unwrap();
        assert_eq!(parsed.trusted_comment().unwrap(), "made by us");

        let theirs = minisign::sign(None, &secret, &b"bytes"[..], Some("made by it"), None).unwrap();
        let verified = verify_detached("f", b"bytes", &theirs.to_string(), &[ours.public_key()]).unwrap();
        assert_eq!(verified.trusted_comment, "made by it");
    }

    #[test]
    fn every_spelling_of_a_public_key_verifies() {
        let signed = key().sign_detached(b"bytes", "c").unwrap();
        let public = key().public_key();
        for text in [
            public.to_string(),
            public.to_file_text(),
            public.to_hex(),
            public.note_verifier("example.com/log").unwrap().to_string(),
        ] {
            let parsed = PublicKey::parse(&text).unwrap();
            assert_eq!(parsed.to_minisign(), public.to_minisign(), "{text}");
            verify_detached("f", b"bytes", &signed, &[parsed]).unwrap();
        }
        assert_eq!(key().note_signer("n").unwrap().verifier(), &public.note_verifier("n").unwrap());
    }

    #[test]
    fn parse_or_load_takes_a_key_or_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.pub");
        std::fs::write(&path, key().public_key().to_file_text()).unwrap();
        assert_eq!(PublicKey::parse_or_load(path.to_str().unwrap()).unwrap(), key().public_key());
        assert_eq!(PublicKey::parse_or_load(&key().public_key().to_string()).unwrap(), key().public_key());
        assert!(PublicKey::parse_or_load("none").is_err());
    }

    #[test]
    fn altered_bytes_and_comments_are_tampering_and_another_key_is_a_rejected_key() {
        let text = key().sign_detached(b"bytes", "backup 1").unwrap();
        let trusted = [SigningKey::from_seed(&[8; 32]).public_key(), key().public_key()];
        let verified = verify_detached("f", b"bytes", &text, &trusted).unwrap();
        assert_eq!(verified, Verified { key: key().public_key(), trusted_comment: "backup 1".into() });

        let kind = |bytes: &[u8], text: &str, keys: &[PublicKey]| {
            verify_detached("f", bytes, text, keys).unwrap_err().kind()
        };
        assert_eq!(kind(b"bytez", &text, &trusted), ErrorKind::Tampered);
        assert_eq!(kind(b"bytes", &text.replace("backup 1", "backup 2"), &trusted), ErrorKind::Tampered);
        assert_eq!(kind(b"bytes", &text, &trusted[..1]), ErrorKind::KeyRejected);
        assert_eq!(kind(b"bytes", &text, &[]), ErrorKind::InvalidInput);
        // A key given as hex has no stated id: the same verdicts.
        let hex = PublicKey::parse(&key().public_key().to_hex()).unwrap();
        assert_eq!(kind(b"bytez", &text, &[hex]), ErrorKind::Tampered);
        let other = PublicKey::parse(&trusted[0].to_hex()).unwrap();
        assert_eq!(kind(b"bytes", &text, &[other]), ErrorKind::KeyRejected);
    }

    #[test]
    fn other_spellings_of_a_signature_are_refused() {
        let text = key().sign_detached(b"bytes", "c").unwrap();
        let legacy = {
            let line = text.lines().nth(1).unwrap();
            let mut bytes = STANDARD.decode(line).unwrap();
            bytes[1] = b'd';
            text.replace(line, &STANDARD.encode(bytes))
        };
        for other in [
            text.replace('\n', "\r\n"),
            text.trim_end().to_owned(),
            format!("{text}\n"),
            format!("{text}x"),
            text.replace("signature from minisign", "signed by minisign"),
            text.replace("trusted comment: c\n", "trusted comment: c \n"),
            legacy,
            String::new(),
        ] {
            let error = verify_detached("f", b"bytes", &other, &[key().public_key()]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{other:?}");
        }
    }

    #[test]
    fn comments_that_would_break_the_format_are_refused() {
        for comment in ["a\nb", "a\rb", " a", "a ", "\u{0}", &"x".repeat(TRUSTED_COMMENT_MAX + 1)] {
            assert_eq!(key().sign_detached(b"", comment).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let text = key().sign_detached(b"", "").unwrap();
        verify_detached("f", b"", &text, &[key().public_key()]).unwrap();
    }

    #[test]
    fn every_single_flipped_bit_of_a_signature_is_noticed() {
        let text = key().sign_detached(b"bytes", "timestamp:1\tfile:manifest.json").unwrap();
        for at in 0..text.len() * 8 {
            let mut flipped = text.clone().into_bytes();
            flipped[at / 8] ^= 1 << (at % 8);
            let Ok(flipped) = String::from_utf8(flipped) else { continue };
            assert!(verify_detached("f", b"bytes", &flipped, &[key().public_key()]).is_err(), "bit {at}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let shown = format!("{:?}", key());
        assert_eq!(shown, format!("SigningKey({})", key().public_key().key_id()));
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies(bytes: Vec<u8>, seed: [u8; 32], comment in "[ -~]{0,200}") {
            let (key, comment) = (SigningKey::from_seed(&seed), comment.trim());
            let text = key.sign_detached(&bytes, comment).unwrap();
            prop_assert_eq!(verify_detached("f", &bytes, &text, &[key.public_key()]).unwrap().trusted_comment, comment);
            let again = SigningKey::parse("k", &key.to_file_text()).unwrap();
            prop_assert_eq!(again.seed(), key.seed());
        }
    }
}
