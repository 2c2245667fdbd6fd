//! Personal values that a record only commits to, so that they can be erased and the chain still verifies (B12).
//!
//! In the body of a [`native`](crate::native) record a value is replaced by a commitment; the value and its salt are kept
//! outside the chain (docs/format/native-chain.md):
//!
//! ```text
//! {"attestore/commitment/v1":"<64 hexadecimal digits>"}
//! commitment = HMAC-SHA256(salt, "attestore/chain/commitment/v1\n" || value)
//! salt   32 random bytes, one for each value       value   its JSON text, as it is kept
//! ```
//!
//! Who has the value and the salt proves that the record is about it. Who has only the record learns nothing, whatever
//! he guesses: the salt is the key. Erasing is deleting both; a copy elsewhere (an older backup) still has them.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use crate::error::{Error, Result};

/// The one member of an object that stands for a value.
pub const MEMBER: &str = "attestore/commitment/v1";

/// The length of a salt, in bytes.
pub const SALT_BYTES: usize = 32;

/// What every committed text begins with.
const DOMAIN: &[u8] = b"attestore/chain/commitment/v1\n";

/// A value that a record commits to, as it is kept outside the chain.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedValue {
    /// Where in the body: a JSON pointer (RFC 6901).
    pub pointer: String,
    /// The salt.
    pub salt: [u8; SALT_BYTES],
    /// The value as JSON text.
    pub value: String,
}

impl std::fmt::Debug for SealedValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedValue").field("pointer", &self.pointer).finish_non_exhaustive()
    }
}

/// A commitment in a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    /// Where in the body: a JSON pointer.
    pub pointer: String,
    /// The commitment as it stands there.
    pub digest: String,
}

/// Computes the commitment to a value: 64 lowercase hexadecimal digits.
#[must_use]
pub fn commit(salt: &[u8; SALT_BYTES], value: &str) -> String {
    // A key of any length is taken; the fallback is never reached.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(salt) else { return String::new() };
    mac.update(DOMAIN);
    mac.update(value.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// Replaces the values at `pointers` of a JSON body by commitments, each with a fresh salt. Returns the body to
/// append, compact JSON, and what is to be kept outside the chain.
///
/// ```
/// use audit_chain::commitment::{commit, commitments, seal};
///
/// let (body, values) = seal(r#"{"event":"login","user":{"email":"a@example.com"}}"#, &["/user/email"])?;
/// assert!(!body.contains("a@example.com"));
/// assert_eq!(values[0].value, r#""a@example.com""#);
/// assert_eq!(commitments(&body)[0].digest, commit(&values[0].salt, &values[0].value));
/// # Ok::<(), audit_chain::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::InvalidInput`] when the body is no JSON object or array, holds a commitment already, or has no value at a
/// pointer; [`Error::Io`] when the operating system gives no random bytes.
pub fn seal(body: &str, pointers: &[impl AsRef<str>]) -> Result<(String, Vec<SealedValue>)> {
    let refuse = |why: String| Error::InvalidInput(format!("cannot commit to values of a record: {why}"));
    let mut json: Value =
        serde_json::from_str(body).map_err(|error| refuse(format!("the body is no JSON: {error}")))?;
    if !commitments(body).is_empty() {
        return Err(refuse(format!("the body has a member {MEMBER:?} already")));
    }
    let mut sealed = Vec::with_capacity(pointers.len());
    for pointer in pointers.iter().map(AsRef::as_ref) {
        let place = json
            .pointer_mut(pointer)
            .filter(|place| !pointer.is_empty() && commitment_of(place).is_none())
            .ok_or_else(|| refuse(format!("there is no value at {pointer:?}")))?;
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|error| Error::Io {
            action: "read",
            path: "the system's random numbers".into(),
            source: std::io::Error::other(error),
        })?;
        let value = place.to_string();
        *place = serde_json::json!({ MEMBER: commit(&salt, &value) });
        sealed.push(SealedValue { pointer: pointer.to_owned(), salt, value });
    }
    // A value inside another one that was replaced later is gone from the body.
    let body = json.to_string();
    if commitments(&body).len() != sealed.len() {
        return Err(refuse("one value lies inside another".into()));
    }
    Ok((body, sealed))
}

/// Finds the commitments of a body, in the order of their pointers; none in what is no JSON.
#[must_use]
pub fn commitments(body: &str) -> Vec<Commitment> {
    let mut found = Vec::new();
    // Most bodies have none: looking for the words costs a tenth of parsing them. A member may be spelt with escapes.
    let has = |words: &[u8]| memchr::memmem::find(body.as_bytes(), words).is_some();
    if (has(b"commitment") || has(b"\\u00"))
        && let Ok(json) = serde_json::from_str::<Value>(body)
    {
        search(&json, &mut String::new(), &mut found);
        found.sort_by(|left: &Commitment, right| left.pointer.cmp(&right.pointer));
    }
    found
}

/// Returns the digest of an object that is a commitment.
fn commitment_of(json: &Value) -> Option<&str> {
    let object = json.as_object().filter(|object| object.len() == 1)?;
    object.get(MEMBER)?.as_str()
}

fn search(json: &Value, pointer: &mut String, found: &mut Vec<Commitment>) {
    if let Some(digest) = commitment_of(json) {
        found.push(Commitment { pointer: pointer.clone(), digest: digest.to_owned() });
        return;
    }
    let length = pointer.len();
    let mut step = |token: &str, value: &Value| {
        pointer.push('/');
        pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
        search(value, pointer, found);
        pointer.truncate(length);
    };
    match json {
        Value::Object(members) => members.iter().for_each(|(name, value)| step(name, value)),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(at, value)| step(&at.to_string(), value));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_replaced_and_found_again_at_their_pointers() {
        let body = r#"{"a/b":{"~x":[1,"two",{"y":null}]},"plain":"stays"}"#;
        let (sealed, values) = seal(body, &["/a~1b/~0x/1", "/a~1b/~0x/2"]).unwrap();
        let found = commitments(&sealed);
        assert_eq!(found.len(), 2);
        for (found, value) in found.iter().zip(&values) {
            assert_eq!(
                (found.pointer.as_str(), found.digest.as_str()),
                (value.pointer.as_str(), commit(&value.salt, &value.value).as_str())
            );
        }
        assert_eq!(values[1].value, r#"{"y":null}"#);
        assert_ne!(values[0].salt, values[1].salt);
        assert!(sealed.contains("stays") && !sealed.contains("two"));
    }

    #[test]
    fn a_commitment_depends_on_every_byte_of_salt_and_value() {
        let digest = commit(&[7; 32], "\"a\"");
        assert_eq!(digest.len(), 64);
        assert_ne!(digest, commit(&[7; 32], "\"b\""));
        assert_ne!(digest, commit(&[8; 32], "\"a\""));
        // Worked out with Python's hmac and hashlib (docs/format/native-chain.md).
        assert_eq!(digest, "3a636b09dbba25517b0f815ee73b869223bd297882868609e1f1cd3de4347015");
    }

    #[test]
    fn what_cannot_be_committed_to_is_refused() {
        let committed = format!(r#"{{"a":{{"{MEMBER}":"x"}}}}"#);
        for (body, pointers) in [
            ("no json", vec!["/a"]),
            (r#"{"a":1}"#, vec!["/b"]),
            (r#"{"a":1}"#, vec![""]),
            (r#"{"a":1}"#, vec!["a"]),
            (r#"{"a":1}"#, vec!["/a", "/a"]),
            (r#"{"a":{"b":1}}"#, vec!["/a/b", "/a"]),
            (r#"{"a":{"b":1}}"#, vec!["/a", "/a/b"]),
            (committed.as_str(), vec!["/a"]),
        ] {
            assert!(matches!(seal(body, &pointers), Err(Error::InvalidInput(_))), "{body} {pointers:?}");
        }
    }

    #[test]
    fn only_an_object_with_that_one_member_is_a_commitment() {
        assert!(commitments(&format!(r#"{{"a":{{"{MEMBER}":"x","b":1}}}}"#)).is_empty());
        assert!(commitments(&format!(r#"{{"a":"{MEMBER}"}}"#)).is_empty());
        let escaped = r#"{"a":{"attestore\/c\u006fmmitment\/v1":"x"}}"#;
        assert_eq!(commitments(escaped)[0].pointer, "/a");
    }

    #[test]
    fn a_sealed_value_is_not_printed() {
        let (_, values) = seal(r#"{"a":"hunter2"}"#, &["/a"]).unwrap();
        assert!(!format!("{values:?}").contains("hunter2"));
    }
}
