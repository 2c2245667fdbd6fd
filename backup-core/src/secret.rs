//! Secrets: where they are held, their value in memory that is wiped, and their fingerprint.
//!
//! The plan and the command line name a secret by reference (`env:VAR`, `file:PATH`), never by value. The
//! value is read only to verify with it or to fingerprint it. Nothing here prints, logs or repeats a value,
//! not even a text that was to be a reference and may be the secret itself.
//!
//! A fingerprint in a manifest tells at restore whether the secret at hand is the one: Argon2id in a PHC
//! string, with the parameters that RFC 9106 §4 recommends second, a salt of its own and 32 bytes of output.
//!
//! ```text
//! $argon2id$v=19$m=65536,t=3,p=4$<16 bytes of salt>$<32 bytes>       64 MiB, 3 passes, 4 lanes
//! ```
//! A guess costs that much work and memory: a random secret cannot be found from it, a short one can.

use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher as _, PasswordVerifier as _, Version};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// The memory of a fingerprint, in KiB.
pub const FINGERPRINT_MEMORY_KIB: u32 = 64 * 1024;
/// The passes of a fingerprint.
pub const FINGERPRINT_PASSES: u32 = 3;
/// The lanes of a fingerprint.
pub const FINGERPRINT_LANES: u32 = 4;
/// The largest secret that is read, in bytes.
pub const SECRET_MAX: u64 = 1 << 20;

/// The most that a foreign fingerprint may cost: 256 MiB, 16 passes and lanes, so that a manifest cannot
/// take the machine down.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;

/// Where a secret is held.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file; one newline at its end is not part of the secret.
    File(PathBuf),
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl FromStr for SecretRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl SecretRef {
    /// Parses `env:VAR` or `file:PATH`.
    ///
    /// ```
    /// use backup_core::secret::SecretRef;
    ///
    /// assert_eq!(SecretRef::parse("env:AUDIT_KEY")?, SecretRef::Env("AUDIT_KEY".into()));
    /// assert!(SecretRef::parse("hunter2").is_err());
    /// # Ok::<(), backup_core::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput`; the text is not repeated, because it may be the secret.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(ErrorKind::InvalidInput, format!("reference to a secret: {why}")).with_hint(
                "write env:VAR or file:PATH; a secret itself never stands on a command line or in a plan",
            )
        };
        if let Some(name) = text.strip_prefix("env:") {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(fits) {
                return Err(bad("env: expects the name of an environment variable (letters, digits, `_`)"));
            }
            return Ok(Self::Env(name.into()));
        }
        match text.strip_prefix("file:") {
            Some(path) if path.is_empty() || path.contains('\0') => Err(bad("file: expects a path")),
            Some(path) => Ok(Self::File(path.into())),
            None => Err(bad("expected env:VAR or file:PATH, found something else (not shown)")),
        }
    }

    /// Reads the value into memory that is wiped when dropped. Of a file, one newline at the end (`\n` or
    /// `\r\n`) is left out, as editors and `echo` put it there.
    ///
    /// # Errors
    /// `NotFound` when the variable is not set or the file does not exist; `InvalidInput` when the value is
    /// empty or longer than [`SECRET_MAX`]. Every error names the reference, never the value.
    pub fn read(&self) -> Result<Zeroizing<Vec<u8>>> {
        let value = match self {
            Self::Env(name) => match std::env::var_os(name) {
                Some(value) => Zeroizing::new(std::os::unix::ffi::OsStringExt::into_vec(value)),
                None => {
                    let message = format!("{self}: the environment variable is not set");
                    return Err(Error::new(ErrorKind::NotFound, message));
                }
            },
            Self::File(path) => read_file(path)?,
        };
        if value.len() as u64 > SECRET_MAX {
            let message = format!("{self}: expected at most {SECRET_MAX} bytes, found more");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if value.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, format!("{self}: the secret is empty")));
        }
        Ok(value)
    }
}

fn read_file(path: &PathBuf) -> Result<Zeroizing<Vec<u8>>> {
    let file = std::fs::File::open(path).map_err(|error| Error::io("open", path, error))?;
    // Reserved for what the file says it holds, so that no copy is left behind by growing; a pipe says 0.
    let size = file.metadata().map_or(0, |metadata| metadata.len()).clamp(4096, SECRET_MAX + 3);
    let mut value = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(4096) + 1));
    file.take(SECRET_MAX + 3).read_to_end(&mut value).map_err(|error| Error::io("read", path, error))?;
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
    Ok(value)
}

/// Returns a secret's fingerprint: a PHC string that tells whether another value is the same and nothing else.
///
/// # Errors
/// `InvalidInput` when the secret is empty; `Unavailable` when the system gives no random bytes or memory.
///
/// # Source
/// RFC 9106 §4 (Argon2id); the PHC string format.
pub fn fingerprint(secret: &[u8]) -> Result<String> {
    if secret.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "an empty secret has no fingerprint"));
    }
    let failed = |why: &dyn fmt::Display| {
        Error::new(ErrorKind::Unavailable, format!("cannot fingerprint a secret: {why}"))
    };
    let mut salt = [0_u8; 16];
    getrandom::fill(&mut salt).map_err(|error| failed(&error))?;
    let params = Params::new(FINGERPRINT_MEMORY_KIB, FINGERPRINT_PASSES, FINGERPRINT_LANES, Some(32));
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(|error| failed(&error))?);
    let hash = argon2.hash_password_with_salt(secret, &salt).map_err(|error| failed(&error))?;
    Ok(hash.to_string())
}

/// Tells whether a secret is the one of a fingerprint. The comparison takes the same time wherever it differs.
///
/// # Errors
/// `Malformed` when the fingerprint is not an Argon2id PHC string of 32 bytes; `Unsupported` when computing it
/// would cost more than 256 MiB or 16 passes.
pub fn matches(fingerprint: &str, secret: &[u8]) -> Result<bool> {
    let malformed = || {
        let message = "fingerprint of a secret: expected a PHC string of Argon2id with a salt and 32 bytes";
        Error::new(ErrorKind::Malformed, message)
    };
    let hash = PasswordHash::new(fingerprint).map_err(|_| malformed())?;
    let params = Params::try_from(&hash).map_err(|_| malformed())?;
    let whole =
        hash.salt.is_some_and(|salt| salt.len() >= 8) && hash.hash.is_some_and(|hash| hash.len() == 32);
    if hash.algorithm.as_str() != "argon2id" || hash.version != Some(19) || !whole {
        return Err(malformed());
    }
    if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_PASSES || params.p_cost() > MAX_PASSES {
        let message = format!(
            "fingerprint of a secret: it asks for {} KiB, {} passes and {} lanes, at most {MAX_MEMORY_KIB} KiB, \
             {MAX_PASSES} and {MAX_PASSES} are computed",
            params.m_cost(),
            params.t_cost(),
            params.p_cost()
        );
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    match Argon2::default().verify_password(secret, &hash) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(_) => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> (tempfile::TempDir, SecretRef) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, content).unwrap();
        (dir, SecretRef::parse(&format!("file:{}", path.display())).unwrap())
    }

    #[test]
    fn references_parse_and_print_as_they_were() {
        for text in ["env:AUDIT_KEY", "env:_a9", "file:/run/secrets/key", "file:rel ative"] {
            assert_eq!(SecretRef::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_text_that_is_no_reference_is_not_repeated() {
        for text in [
            "hunter2secret",
            "",
            "env:",
            "env:hunter2secret!",
            "env:9a",
            "file:",
            "ENV:hunter2secret",
            "file:a\0b",
        ] {
            let error = SecretRef::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(!format!("{error:?} {:?}", error.hint()).contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn one_newline_at_the_end_of_a_file_is_left_out() {
        for (content, value) in [
            (&b"s3cret"[..], &b"s3cret"[..]),
            (b"s3cret\n", b"s3cret"),
            (b"s3cret\r\n", b"s3cret"),
            (b"s3cret\n\n", b"s3cret\n"),
            (b"a\nb\n", b"a\nb"),
            (&[0, 255, 10], &[0, 255]),
        ] {
            let (_dir, reference) = file(content);
            assert_eq!(*reference.read().unwrap(), value);
        }
    }

    #[test]
    fn empty_missing_and_oversized_secrets_are_errors_that_name_the_reference() {
        for content in [&b""[..], b"\n", b"\r\n"] {
            let (_dir, reference) = file(content);
            let error = reference.read().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(&reference.to_string()), "{error}");
        }
        let (_dir, reference) = file(&vec![b'x'; SECRET_MAX as usize + 1]);
        assert_eq!(reference.read().unwrap_err().kind(), ErrorKind::InvalidInput);
        let (_dir, reference) = file(&vec![b'x'; SECRET_MAX as usize]);
        assert_eq!(reference.read().unwrap().len() as u64, SECRET_MAX);

        let unset = SecretRef::parse("env:ATTESTORE_TEST_THAT_NOBODY_SETS").unwrap().read().unwrap_err();
        assert_eq!(unset.kind(), ErrorKind::NotFound);
        assert!(unset.to_string().contains("env:ATTESTORE_TEST_THAT_NOBODY_SETS"));
        let missing = SecretRef::parse("file:/nonexistent/key").unwrap().read().unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(missing.to_string().contains("/nonexistent/key"));
    }

    #[test]
    fn an_environment_variable_is_read_as_it_is() {
        // PATH is set wherever tests run; its value is compared, not shown.
        let value = SecretRef::Env("PATH".into()).read().unwrap();
        assert!(*value == std::env::var_os("PATH").unwrap().into_encoded_bytes());
    }

    #[test]
    fn a_fingerprint_matches_its_secret_only_and_is_salted() {
        let print = fingerprint(b"correct horse").unwrap();
        assert!(print.starts_with("$argon2id$v=19$m=65536,t=3,p=4$"), "{print}");
        assert!(matches(&print, b"correct horse").unwrap());
        assert!(!matches(&print, b"correct horsf").unwrap());
        assert!(!matches(&print, b"").unwrap());
        assert_ne!(print, fingerprint(b"correct horse").unwrap());
        assert_eq!(fingerprint(b"").unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn the_published_vector_of_the_reference_implementation_matches() {
        // phc-winner-argon2, src/test.c, Argon2id v=19, t=2, m=64 MiB, p=1.
        let print = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(matches(print, b"password").unwrap());
        assert!(!matches(print, b"sassword").unwrap());
    }

    #[test]
    fn fingerprints_that_are_foreign_or_too_costly_are_refused() {
        let salt_and_hash = "c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        for (print, kind) in [
            (String::new(), ErrorKind::Malformed),
            ("s3cret".into(), ErrorKind::Malformed),
            (format!("$argon2i$v=19$m=65536,t=2,p=1${salt_and_hash}"), ErrorKind::Malformed),
            (format!("$argon2id$v=16$m=65536,t=2,p=1${salt_and_hash}"), ErrorKind::Malformed),
            ("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ".into(), ErrorKind::Malformed),
            ("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO0".into(), ErrorKind::Malformed),
            (format!("$argon2id$v=19$m=4194304,t=2,p=1${salt_and_hash}"), ErrorKind::Unsupported),
            (format!("$argon2id$v=19$m=65536,t=4000000,p=1${salt_and_hash}"), ErrorKind::Unsupported),
            (format!("$argon2id$v=19$m=262144,t=2,p=9999${salt_and_hash}"), ErrorKind::Unsupported),
        ] {
            assert_eq!(matches(&print, b"password").unwrap_err().kind(), kind, "{print}");
        }
    }
}
