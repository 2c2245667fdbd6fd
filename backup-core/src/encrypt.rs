//! Encrypts objects to age recipients and opens them with age identities.
//!
//! `seal` calls it. Only X25519 is spoken: recipients `age1…` (62 characters) and identity files without a
//! passphrase, as `age-keygen` writes them. SSH keys, plugins, post-quantum and passphrase recipients are
//! refused by name. The wire form is age-encryption.org/v1 (c2sp.org/age), binary, never armoured.
//!
//! PITFALLS 23: [`Recipients`] cannot be empty and each of its keys has been used once on parsing, so that
//! sealing to it cannot turn into plain text or fail after the first byte. A machine that makes backups
//! holds only recipients and cannot read what it wrote.

use std::cell::Cell;
use std::fmt;
use std::io::BufRead;
use std::path::Path;

use age::stream::StreamReader;
use age::x25519;
use age_core::format::{FileKey, Stanza};
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::{Error, ErrorKind, Result};

/// The largest identity file that is read, in bytes.
const IDENTITY_FILE_MAX: u64 = 1 << 20;

/// Whom an object is encrypted to: at least one X25519 recipient, each proven usable.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipients(Vec<x25519::Recipient>);

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.to_strings()).finish()
    }
}

impl Recipients {
    /// Parses recipients (`age1…`); one that is given twice counts once.
    ///
    /// # Errors
    /// `InvalidInput` when there is none; `KeyRejected` when one is not an X25519 recipient or cannot be
    /// encrypted to. A secret identity given by mistake is named as such and not repeated.
    ///
    /// # Source
    /// c2sp.org/age, "The X25519 recipient type".
    pub fn parse<S: AsRef<str>>(recipients: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut parsed: Vec<x25519::Recipient> = Vec::new();
        for text in recipients {
            let recipient = parse_recipient(text.as_ref().trim())?;
            if !parsed.contains(&recipient) {
                parsed.push(recipient);
            }
        }
        if parsed.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "encryption is asked for without any recipient")
                .with_hint("name at least one age recipient (`age1…`); `age-keygen` makes one"));
        }
        Ok(Self(parsed))
    }

    /// Returns how many there are, at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // Never empty.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns them as `age1…` texts, in the order given.
    #[must_use]
    pub fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Starts an age file for them.
    pub(crate) fn encryptor(&self) -> Result<age::Encryptor> {
        let recipients = self.0.iter().map(|recipient| recipient as &dyn age::Recipient);
        age::Encryptor::with_recipients(recipients).map_err(|error| {
            Error::new(ErrorKind::KeyRejected, "these age recipients cannot be encrypted to")
                .with_source(error.to_string())
        })
    }
}

fn parse_recipient(text: &str) -> Result<x25519::Recipient> {
    let reject = |why: &str| {
        Err(Error::new(ErrorKind::KeyRejected, format!("age recipient {text:?}: {why}"))
            .with_hint("a recipient is the `age1…` line that `age-keygen -y IDENTITY-FILE` prints"))
    };
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("age-secret-key-") {
        let message = "an age secret identity was given where a recipient (`age1…`) is expected";
        return Err(Error::new(ErrorKind::KeyRejected, message).with_hint(
            "`age-keygen -y IDENTITY-FILE` prints its recipient; keep the identity off this machine",
        ));
    }
    if lower.starts_with("ssh-") {
        return reject("SSH keys are not supported, only age X25519 recipients");
    }
    let Ok(recipient) = text.parse::<x25519::Recipient>() else {
        // `age1yubikey1…`, `age1pq1…`: Bech32 of another human-readable part.
        let other = lower.strip_prefix("age1").is_some_and(|rest| rest.contains('1'));
        return reject(match other {
            true => "plugin and post-quantum recipients are not supported, only age X25519 recipients",
            false => "expected age1 and 58 more characters of Bech32",
        });
    };
    if !contributes(text) {
        return reject("the key is a point of small order: anyone could read what is encrypted to it");
    }
    Ok(recipient)
}

/// Reports whether a key agreement with this recipient depends on the other side; age panics where it does not.
fn contributes(text: &str) -> bool {
    let bytes = age_core::primitives::bech32_decode(
        text,
        |_| (),
        |_| Ok(()),
        |_, bytes| <[u8; 32]>::try_from(bytes.collect::<Vec<_>>()).map_err(|_| ()),
    );
    let Ok(bytes) = bytes else { return false };
    // Any scalar tells: small-order points are those that every clamped scalar takes to zero.
    let secret = x25519_dalek::StaticSecret::from([0x42; 32]);
    secret.diffie_hellman(&x25519_dalek::PublicKey::from(bytes)).was_contributory()
}

/// Identities that open objects. The values are wiped when dropped and never printed.
#[derive(Clone, Default)]
pub struct Identities(Vec<x25519::Identity>);

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

impl Identities {
    /// Makes a set without identities: only plain objects open.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Makes one new identity.
    #[must_use]
    pub fn generate() -> Self {
        Self(vec![x25519::Identity::generate()])
    }

    /// Reads an identity file: `AGE-SECRET-KEY-1…` lines, comments (`#`) and blank lines.
    ///
    /// # Errors
    /// `NotFound`, `Permission`; `KeyRejected` when it holds no identity, an encrypted one or one of another
    /// kind, naming the file and the line.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        use std::io::Read as _;
        let path = path.as_ref();
        let file = std::fs::File::open(path).map_err(|error| Error::io("open", path, error))?;
        let mut text = Zeroizing::new(Vec::with_capacity(4096));
        let read = file.take(IDENTITY_FILE_MAX + 1).read_to_end(&mut text);
        let size = read.map_err(|error| Error::io("read", path, error))? as u64;
        let name = path.display().to_string();
        if size > IDENTITY_FILE_MAX {
            let message =
                format!("{name}: expected an age identity file, found more than {IDENTITY_FILE_MAX} bytes");
            return Err(Error::new(ErrorKind::KeyRejected, message));
        }
        match std::str::from_utf8(&text) {
            Ok(text) => Self::parse(&name, text),
            Err(_) => {
                let message = format!("{name}: expected an age identity file, found bytes that are not text");
                Err(Error::new(ErrorKind::KeyRejected, message))
            }
        }
    }

    /// Parses the text of an identity file; `name` stands for it in errors.
    ///
    /// # Errors
    /// `KeyRejected`, as [`Identities::from_file`].
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let mut identities = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let identity = line.parse::<x25519::Identity>().map_err(|_| {
                let found = describe(line);
                let message =
                    format!("{name}: line {}: expected AGE-SECRET-KEY-1…, found {found}", number + 1);
                Error::new(ErrorKind::KeyRejected, message).with_hint(
                    "only X25519 identity files without a passphrase, as `age-keygen` writes them, are read",
                )
            })?;
            identities.push(identity);
        }
        if identities.is_empty() {
            let message = format!("{name}: expected an age identity (AGE-SECRET-KEY-1…), found none");
            return Err(Error::new(ErrorKind::KeyRejected, message));
        }
        Ok(Self(identities))
    }

    /// Adds the identities of another set.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Reports whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the recipients that these identities open.
    ///
    /// # Errors
    /// `InvalidInput` when there is no identity.
    pub fn recipients(&self) -> Result<Recipients> {
        Recipients::parse(self.0.iter().map(|identity| identity.to_public().to_string()))
    }

    /// Returns the text of an identity file, as `age-keygen` writes it; wiped when dropped.
    #[must_use]
    pub fn to_file_text(&self) -> Zeroizing<String> {
        use age::secrecy::ExposeSecret as _;
        // 74 characters of key and 77 of comment a piece: reserved, so that no copy is left by growing.
        let mut text = Zeroizing::new(String::with_capacity(self.0.len() * 160));
        for identity in &self.0 {
            text.push_str("# public key: ");
            text.push_str(&identity.to_public().to_string());
            text.push('\n');
            text.push_str(identity.to_string().expose_secret());
            text.push('\n');
        }
        text
    }

    /// Opens an age file; `object` stands for it in errors.
    pub(crate) fn open<R: BufRead>(&self, object: &str, input: R) -> Result<StreamReader<R>> {
        let damaged = |why: String| {
            Error::new(ErrorKind::Corrupt, format!("{object}: {why}"))
                .with_hint("the object is damaged or not an age file: restore from another backup")
        };
        let decryptor = age::Decryptor::new_buffered(input).map_err(|error| match error {
            age::DecryptError::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                Error::io("read", object, error)
            }
            other => damaged(format!("the age header does not parse ({other})")),
        })?;
        if decryptor.is_scrypt() {
            let message = format!("{object}: it is sealed with a passphrase, which is not supported");
            return Err(Error::new(ErrorKind::KeyRejected, message).with_hint("decrypt it with `age -d`"));
        }
        let stanzas = CountStanzas(Cell::new(0));
        let identities = self.0.iter().map(|identity| identity as &dyn age::Identity);
        let opened = decryptor.decrypt(identities.chain(std::iter::once(&stanzas as &dyn age::Identity)));
        opened.map_err(|error| match error {
            age::DecryptError::NoMatchingKeys => {
                let message = format!(
                    "{object}: none of the {} identities at hand opens it; it was sealed to {} X25519 recipients",
                    self.0.len(),
                    stanzas.0.get()
                );
                Error::new(ErrorKind::KeyRejected, message)
                    .with_hint("name the age identity file of one of its recipients (`--identity`)")
            }
            other => damaged(format!("the age header is not what was sealed ({other})")),
        })
    }
}

/// Opens nothing and counts the X25519 recipients in a header.
struct CountStanzas(Cell<usize>);

impl age::Identity for CountStanzas {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, age::DecryptError>> {
        if stanza.tag == "X25519" {
            self.0.set(self.0.get() + 1);
        }
        None
    }
}

/// Says what kind of thing a line is without repeating any of it.
fn describe(line: &str) -> &'static str {
    let mut lower = line.to_ascii_lowercase();
    let found = match lower.as_str() {
        text if text.starts_with("age-secret-key-pq-") => "a post-quantum identity",
        text if text.starts_with("age-secret-key-") => "a damaged X25519 identity",
        text if text.starts_with("age-plugin-") => "a plugin identity",
        text if text.starts_with("age-encryption.org/") => "an identity file encrypted with a passphrase",
        text if text.starts_with("-----begin age encrypted") => {
            "an identity file encrypted with a passphrase"
        }
        text if text.starts_with("-----begin openssh") => "an SSH private key",
        text if text.starts_with("age1") => "a recipient (a public key)",
        _ => "something else",
    };
    lower.zeroize();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    const SECRET: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

    #[test]
    fn no_recipient_is_an_error_not_plain_text() {
        let error = Recipients::parse::<&str>([]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn recipients_that_cannot_be_used_are_refused_by_name() {
        for (text, word) in [
            ("", "58 more"),
            ("age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pb", "58 more"),
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA", "SSH"),
            ("age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t", "plugin"),
        ] {
            let error = Recipients::parse([text]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::KeyRejected, "{text}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn recipients_of_small_order_are_refused_and_do_not_panic() {
        for text in [
            "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z",
            "age1qyqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqj7vrya",
            "age1anlllllllllllllllllllllllllllllllllllllllllllllllals4n2t7m",
        ] {
            let error = Recipients::parse([text]).unwrap_err();
            assert!(error.to_string().contains("small order"), "{error}");
        }
    }

    #[test]
    fn a_secret_given_as_recipient_is_not_repeated() {
        let error = Recipients::parse([SECRET]).unwrap_err();
        let shown = format!("{error} {error:?} {:?}", error.hint());
        assert!(!shown.to_lowercase().contains(&SECRET.to_lowercase()[20..40]), "{shown}");
    }

    #[test]
    fn a_recipient_given_twice_counts_once() {
        assert_eq!(Recipients::parse([RECIPIENT, RECIPIENT]).unwrap().len(), 1);
        assert_eq!(Recipients::parse([RECIPIENT]).unwrap().to_strings(), [RECIPIENT]);
    }

    #[test]
    fn identity_files_parse_with_comments_and_never_print() {
        let text = format!("# created: 2026-01-01\n# public key: {RECIPIENT}\n\n{SECRET}\n");
        let identities = Identities::parse("key.txt", &text).unwrap();
        assert_eq!(identities.len(), 1);
        assert_eq!(identities.recipients().unwrap().to_strings(), [RECIPIENT]);
        assert_eq!(format!("{identities:?}"), "Identities(1)");
        assert!(identities.to_file_text().contains(SECRET));
    }

    #[test]
    fn identity_files_of_another_kind_are_named_with_their_line() {
        let damaged = SECRET.replace("Y5J33", "Y5J34");
        for (text, word) in [
            ("", "found none"),
            ("# only a comment\n", "found none"),
            (RECIPIENT, "a recipient"),
            ("age-encryption.org/v1\n-> scrypt", "passphrase"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", "SSH"),
            (damaged.as_str(), "line 1: expected AGE-SECRET-KEY-1…, found a damaged X25519 identity"),
        ] {
            let error = Identities::parse("key.txt", text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::KeyRejected, "{text}");
            assert!(error.to_string().contains(word) && !error.to_string().contains("2Y5J34"), "{error}");
        }
    }
}
