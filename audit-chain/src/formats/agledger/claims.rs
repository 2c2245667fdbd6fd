//! What an envelope says: the claims of its protected header and the in-toto statement of its payload.
//!
//! ```text
//! protected  { 1: alg (-8 EdDSA, -7 ES256), 3: content type, 4: kid (8 bytes; zero when unsigned),
//!              15: { 1: iss, 2: sub, 6: iat, -65539: { 1: actor key uuid, 2: role, 3: owner uuid } },
//!              -65537: { 1: position, 2: null | 32 bytes of the previous hash } }
//! payload    { _type, subject: [{ name, digest: { sha256: bytes } }], predicate: { … }, predicateType }
//! ```
//!
//! Labels that are not known are passed over; a label that matters and is there twice makes the header
//! unreadable; a value of another type counts as none. `iss`, `sub` and `iat` are not compared with anything.

use super::cose::{BadCbor, Cursor, Envelope, Item, member, single};

/// The label of the algorithm.
const ALG: i128 = 1;
/// The label of the content type.
const CONTENT_TYPE: i128 = 3;
/// The label of the key id.
const KID: i128 = 4;
/// The label of the CWT claims (RFC 9597).
const CWT: i128 = 15;
/// The claim of the acting key, inside the CWT claims.
const ACTOR: i128 = -65_539;
/// The label of the claim of the place in the chain.
const CHAIN: i128 = -65_537;

/// EdDSA, as COSE numbers it.
pub(super) const EDDSA: i128 = -8;
/// ES256, as COSE numbers it.
pub(super) const ES256: i128 = -7;

/// What the header says of the previous record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Previous<'b> {
    /// There is no such claim, or it is of another type.
    None,
    /// There is no previous record.
    Genesis,
    /// The hash of the previous record.
    Hash(&'b [u8]),
}

/// Who acted, as signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Actor<'b> {
    pub(super) key: &'b [u8],
    pub(super) role: &'b str,
    pub(super) owner: &'b [u8],
}

/// The claims of a protected header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claims<'b> {
    pub(super) alg: Option<i128>,
    pub(super) content_type: Option<&'b str>,
    /// The key id; `None` when there is none of 8 bytes.
    pub(super) kid: Option<[u8; 8]>,
    pub(super) actor: Option<Actor<'b>>,
    pub(super) position: Option<i128>,
    pub(super) previous: Previous<'b>,
    /// How many labels there are.
    pub(super) labels: usize,
}

impl<'b> Claims<'b> {
    /// Reads a protected header.
    pub(super) fn decode(protected: &'b [u8]) -> Result<Self, BadCbor> {
        let [alg, content_type, kid, cwt, chain] = values(protected, [ALG, CONTENT_TYPE, KID, CWT, CHAIN])?;
        let actor = match cwt.filter(is_map) {
            Some(cwt) => values(cwt, [ACTOR])?[0].filter(is_map).map(actor).transpose()?.flatten(),
            None => None,
        };
        let [position, previous] = match chain.filter(is_map) {
            Some(chain) => values(chain, [1, 2])?,
            None => [None, None],
        };
        Ok(Self {
            alg: alg.and_then(int),
            content_type: content_type.and_then(text),
            kid: kid.and_then(bytes).and_then(|kid| kid.try_into().ok()),
            actor,
            position: position.and_then(int),
            previous: match previous.map(single) {
                Some(Ok(Item::Null)) => Previous::Genesis,
                Some(Ok(Item::Bytes(hash))) => Previous::Hash(hash),
                _ => Previous::None,
            },
            labels: Cursor::new(protected).map()?,
        })
    }

    /// Returns the key id, unless it is the eight zero bytes of an unsigned installation.
    pub(super) fn signer(&self) -> Option<[u8; 8]> {
        self.kid.filter(|kid| *kid != [0; 8])
    }
}

/// Reads the three parts of the actor; `None` when one is missing.
fn actor(map: &[u8]) -> Result<Option<Actor<'_>>, BadCbor> {
    let [key, role, owner] = values(map, [1, 2, 3])?;
    let parts = (key.and_then(bytes), role.and_then(text), owner.and_then(bytes));
    Ok(match parts {
        (Some(key), Some(role), Some(owner)) => Some(Actor { key, role, owner }),
        _ => None,
    })
}

/// Finds the values of integer labels of the one map that `map` is.
fn values<const N: usize>(map: &[u8], labels: [i128; N]) -> Result<[Option<&[u8]>; N], BadCbor> {
    let mut found = [None; N];
    let mut cursor = Cursor::new(map);
    for _ in 0..cursor.map()? {
        let label = cursor.skip()?;
        let value = cursor.skip()?;
        let Some(label) = int(label) else { continue };
        for (place, wanted) in found.iter_mut().zip(labels) {
            if wanted == label && place.replace(value).is_some() {
                return Err(BadCbor { what: "a label that is there twice", at: 0 });
            }
        }
    }
    cursor.finish()?;
    Ok(found)
}

fn is_map(item: &&[u8]) -> bool {
    matches!(Cursor::new(item).next(), Ok(Item::Map(_)))
}

fn int(item: &[u8]) -> Option<i128> {
    single(item).ok()?.as_int()
}

fn text(item: &[u8]) -> Option<&str> {
    match single(item) {
        Ok(Item::Text(text)) => Some(text),
        _ => None,
    }
}

fn bytes(item: &[u8]) -> Option<&[u8]> {
    match single(item) {
        Ok(Item::Bytes(bytes)) => Some(bytes),
        _ => None,
    }
}

/// The in-toto statement of a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statement<'b> {
    /// The first subject's SHA-256.
    pub(super) subject: Option<&'b [u8]>,
    /// The bytes of the predicate, which is a map.
    pub(super) predicate: Option<&'b [u8]>,
}

impl<'b> Statement<'b> {
    /// Reads a payload. All of it is well-formed when this succeeds.
    pub(super) fn decode(payload: &'b [u8]) -> Result<Self, BadCbor> {
        let mut cursor = Cursor::new(payload);
        cursor.skip()?;
        cursor.finish()?;
        if !is_map(&payload) {
            return Ok(Self { subject: None, predicate: None });
        }
        let subject = match member(payload, "subject")? {
            Some(subjects) => first_digest(subjects)?,
            None => None,
        };
        Ok(Self { subject, predicate: member(payload, "predicate")?.filter(is_map) })
    }
}

/// Reads the SHA-256 of the first subject.
fn first_digest(subjects: &[u8]) -> Result<Option<&[u8]>, BadCbor> {
    let mut cursor = Cursor::new(subjects);
    if !matches!(cursor.next()?, Item::Array(length) if length > 0) {
        return Ok(None);
    }
    let subject = cursor.skip()?;
    let digest = if is_map(&subject) { member(subject, "digest")? } else { None };
    let sha256 = match digest.filter(is_map) {
        Some(digest) => member(digest, "sha256")?,
        None => None,
    };
    Ok(sha256.and_then(bytes))
}

/// An envelope with all that it says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened<'b> {
    pub(super) envelope: Envelope<'b>,
    pub(super) claims: Claims<'b>,
    pub(super) statement: Statement<'b>,
}

impl<'b> Opened<'b> {
    /// Reads an envelope, its header and its payload.
    pub(super) fn decode(bytes: &'b [u8]) -> Result<Self, String> {
        let envelope = Envelope::decode(bytes).map_err(|bad| bad.to_string())?;
        let claims =
            Claims::decode(envelope.protected).map_err(|bad| format!("the protected header: {bad}"))?;
        let statement = Statement::decode(envelope.payload).map_err(|bad| format!("the payload: {bad}"))?;
        Ok(Self { envelope, claims, statement })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        hex::decode(text.replace(' ', "")).unwrap()
    }

    const UUID: &str = "50 0c0c0c0c000040008000000000000003";

    #[test]
    fn labels_in_any_order_and_spelling_say_the_same() {
        let previous = "5820 abababababababababababababababababababababababababababababababab";
        let actor = format!("a3 01 {UUID} 02 65 6167656e74 03 {UUID}");
        for header in [
            format!(
                "a5 01 27 03 61 78 04 48 15042c89eb3bcf9a 0f a1 3a00010002 {actor} 3a00010000 a2 01 02 02 {previous}"
            ),
            format!(
                "b805 3a00010000 b802 02 {previous} 1801 02 0f a1 3a00010002 {actor} 04 48 15042c89eb3bcf9a 03 61 78 1801 3807"
            ),
        ] {
            let header = hex(&header);
            let claims = Claims::decode(&header).unwrap();
            assert_eq!((claims.alg, claims.position), (Some(EDDSA), Some(2)));
            assert_eq!(claims.signer(), Some([0x15, 4, 0x2c, 0x89, 0xeb, 0x3b, 0xcf, 0x9a]));
            assert_eq!(claims.previous, Previous::Hash(&[0xab; 32]));
            let actor = claims.actor.unwrap();
            assert_eq!((actor.role, actor.key, actor.owner.len()), ("agent", actor.owner, 16));
            assert_eq!((claims.labels, claims.content_type), (5, Some("x")));
        }
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_none_and_what_is_there_twice_an_error() {
        for (header, alg) in [("a0", None), ("a1 01 61 78", None), ("a2 01 26 6161 01", Some(ES256))] {
            let header = hex(header);
            let claims = Claims::decode(&header).unwrap();
            assert_eq!((claims.alg, claims.kid, claims.position), (alg, None, None));
            assert_eq!((claims.actor, claims.previous), (None, Previous::None));
        }
        let unsigned = hex("a2 04 48 0000000000000000 3a00010000 a2 01 01 02 f6");
        let claims = Claims::decode(&unsigned).unwrap();
        assert_eq!((claims.kid, claims.signer(), claims.previous), (Some([0; 8]), None, Previous::Genesis));
        assert!(Claims::decode(&hex("a2 01 26 01 27")).is_err());
        assert!(Claims::decode(&hex("a0 00")).is_err());
        assert!(Claims::decode(&[]).is_err());
    }

    #[test]
    fn a_statement_gives_its_first_digest_and_its_predicate() {
        let payload = hex(
            "a2 67 7375626a656374 81 a1 66 646967657374 a1 66 736861323536 42 0102 69 707265646963617465 a1 6161 01",
        );
        let statement = Statement::decode(&payload).unwrap();
        assert_eq!((statement.subject, statement.predicate), (Some(&[1, 2][..]), Some(&hex("a1616101")[..])));
        for other in ["00", "a0", "a1 67 7375626a656374 80"] {
            let payload = hex(other);
            let statement = Statement::decode(&payload).unwrap();
            assert_eq!((statement.subject, statement.predicate), (None, None));
        }
        assert!(Statement::decode(&hex("a1 6161 62")).is_err());
        assert!(Statement::decode(&hex("a000")).is_err());
    }
}
