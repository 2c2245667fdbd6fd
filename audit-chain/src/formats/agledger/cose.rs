//! CBOR items borrowed from bytes, and the COSE_Sign1 envelope around everything that AGLedger signs.
//!
//! Tokens come from `ciborium-ll`; this file adds what AGLedger's verifiers ask for: definite lengths only,
//! nothing after the item, text that is UTF-8. The envelope (RFC 9052 §4.2) is
//!
//! ```text
//! 0xd2                      tag 18, in its short form only
//! [ protected: bstr, unprotected: map, payload: bstr, signature: bstr ]
//! signed: ["Signature1", protected, h'', payload]      as CBOR; the two byte strings as found
//! ```
//!
//! The unprotected map is not signed and may hold anything; the protected header may be written in any
//! well-formed way, since its bytes are signed as they stand. Key statements must be in the
//! deterministic form of RFC 8949 §4.2.1: [`check_canonical`].

use ciborium_ll::{Decoder, Encoder, Header};

/// Why bytes are not the CBOR that is expected, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(super) struct BadCbor {
    /// What is wrong.
    pub(super) what: &'static str,
    /// At which byte of the item.
    pub(super) at: usize,
}

/// One item, or the head of an array, map or tag.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Item<'b> {
    Uint(u64),
    /// The integer -1 - n.
    Negative(u64),
    Bytes(&'b [u8]),
    Text(&'b str),
    Array(usize),
    Map(usize),
    Tag(u64),
    Float(f64),
    Bool(bool),
    Null,
    /// `undefined`, or a simple value without a meaning here.
    Simple(u8),
}

impl Item<'_> {
    /// Returns the integer, if it is one.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Uint(value) => Some(i128::from(*value)),
            Self::Negative(value) => Some(-1 - i128::from(*value)),
            _ => None,
        }
    }
}

/// Reads items one after the other.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    /// Starts at the first byte.
    pub(super) const fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    const fn bad(&self, what: &'static str) -> BadCbor {
        BadCbor { what, at: self.at }
    }

    /// Reads the next item, or the head of what holds others.
    pub(super) fn next(&mut self) -> Result<Item<'b>, BadCbor> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let mut decoder = Decoder::from(rest);
        let header = decoder.pull().map_err(|_| self.bad("no well-formed item"))?;
        let head = decoder.offset();
        let item = match header {
            Header::Positive(value) => Item::Uint(value),
            Header::Negative(value) => Item::Negative(value),
            Header::Bytes(Some(length)) => Item::Bytes(self.take(head, length)?),
            Header::Text(Some(length)) => Item::Text(
                std::str::from_utf8(self.take(head, length)?)
                    .map_err(|_| self.bad("text that is not UTF-8"))?,
            ),
            // An item has a byte at least, so that no made-up count goes unnoticed for long.
            Header::Array(Some(length)) if length <= rest.len() => Item::Array(length),
            Header::Map(Some(length)) if length <= rest.len() => Item::Map(length),
            Header::Array(Some(_)) | Header::Map(Some(_)) => return Err(self.bad("more items than bytes")),
            Header::Tag(tag) => Item::Tag(tag),
            Header::Float(value) => Item::Float(value),
            // RFC 8949 §3.3: simple values below 32 have one byte.
            Header::Simple(value) if value < 32 && head == 2 => {
                return Err(self.bad("a simple value in two bytes"));
            }
            Header::Simple(20) => Item::Bool(false),
            Header::Simple(21) => Item::Bool(true),
            Header::Simple(22) => Item::Null,
            Header::Simple(value) => Item::Simple(value),
            Header::Bytes(None)
            | Header::Text(None)
            | Header::Array(None)
            | Header::Map(None)
            | Header::Break => {
                return Err(self.bad("an item of indefinite length"));
            }
        };
        self.at += head
            + match item {
                Item::Bytes(bytes) => bytes.len(),
                Item::Text(text) => text.len(),
                _ => 0,
            };
        Ok(item)
    }

    fn take(&self, head: usize, length: usize) -> Result<&'b [u8], BadCbor> {
        let start = self.at + head;
        start
            .checked_add(length)
            .and_then(|end| self.bytes.get(start..end))
            .ok_or_else(|| self.bad("a string that is cut off"))
    }

    /// Reads the next item with all that it holds, and returns its bytes.
    pub(super) fn skip(&mut self) -> Result<&'b [u8], BadCbor> {
        let start = self.at;
        let mut left = 1_usize;
        while left > 0 {
            left -= 1;
            let inner = match self.next()? {
                Item::Array(length) => length,
                Item::Map(length) => length.saturating_mul(2),
                Item::Tag(_) => 1,
                _ => 0,
            };
            left = left.saturating_add(inner);
        }
        Ok(self.bytes.get(start..self.at).unwrap_or(&[]))
    }

    /// Checks that nothing follows.
    pub(super) fn finish(&self) -> Result<(), BadCbor> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.bad("bytes after the item")) }
    }

    /// Reads the head of a map.
    pub(super) fn map(&mut self) -> Result<usize, BadCbor> {
        let at = self.at;
        match self.next()? {
            Item::Map(length) => Ok(length),
            _ => Err(BadCbor { what: "expected a map", at }),
        }
    }

    /// Reads a byte string.
    fn byte_string(&mut self) -> Result<&'b [u8], BadCbor> {
        let at = self.at;
        match self.next()? {
            Item::Bytes(bytes) => Ok(bytes),
            _ => Err(BadCbor { what: "expected a byte string", at }),
        }
    }
}

/// Reads the one item that `bytes` are.
pub(super) fn single(bytes: &[u8]) -> Result<Item<'_>, BadCbor> {
    let mut cursor = Cursor::new(bytes);
    let item = cursor.next()?;
    cursor.finish()?;
    Ok(item)
}

/// Finds a member of a map by its text key and returns the bytes of its value.
///
/// # Errors
/// When it is no map, or the key is there twice.
pub(super) fn member<'b>(map: &'b [u8], name: &str) -> Result<Option<&'b [u8]>, BadCbor> {
    let mut found = None;
    let mut cursor = Cursor::new(map);
    for _ in 0..cursor.map()? {
        let at = cursor.at;
        let key = cursor.skip()?;
        let value = cursor.skip()?;
        if single(key).is_ok_and(|key| key == Item::Text(name)) && found.replace(value).is_some() {
            return Err(BadCbor { what: "a key that is there twice", at });
        }
    }
    Ok(found)
}

/// Finds a text member of a map.
pub(super) fn text_member<'b>(map: &'b [u8], name: &str) -> Option<&'b str> {
    match single(member(map, name).ok()??) {
        Ok(Item::Text(text)) => Some(text),
        _ => None,
    }
}

/// Finds an integer member of a map.
pub(super) fn int_member(map: &[u8], name: &str) -> Option<i128> {
    single(member(map, name).ok()??).ok()?.as_int()
}

/// The parts of a COSE_Sign1, as found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope<'b> {
    pub(super) protected: &'b [u8],
    pub(super) payload: &'b [u8],
    pub(super) signature: &'b [u8],
}

impl<'b> Envelope<'b> {
    /// Reads an envelope.
    pub(super) fn decode(bytes: &'b [u8]) -> Result<Self, BadCbor> {
        const TAG: u8 = 0xd2;
        let Some((&TAG, rest)) = bytes.split_first() else {
            return Err(BadCbor { what: "expected tag 18 in its short form (0xd2)", at: 0 });
        };
        let shift = |bad: BadCbor| BadCbor { at: bad.at + 1, ..bad };
        let mut cursor = Cursor::new(rest);
        if cursor.next().map_err(shift)? != Item::Array(4) {
            return Err(BadCbor { what: "expected an array of four", at: 1 });
        }
        let protected = cursor.byte_string().map_err(shift)?;
        let unprotected = cursor.at;
        if !matches!(cursor.clone().next().map_err(shift)?, Item::Map(_)) {
            return Err(BadCbor { what: "expected a map as unprotected header", at: unprotected + 1 });
        }
        cursor.skip().map_err(shift)?;
        let payload = cursor.byte_string().map_err(shift)?;
        let signature = cursor.byte_string().map_err(shift)?;
        cursor.finish().map_err(shift)?;
        Ok(Self { protected, payload, signature })
    }

    /// Writes what is signed into `out` (RFC 9052 §4.4).
    pub(super) fn signed_bytes(&self, out: &mut Vec<u8>) {
        out.clear();
        let mut encoder = Encoder::from(&mut *out);
        // Writing into a vector does not fail.
        let _ = encoder
            .push(Header::Array(Some(4)))
            .and_then(|()| encoder.text("Signature1", None))
            .and_then(|()| encoder.bytes(self.protected, None))
            .and_then(|()| encoder.bytes(&[], None))
            .and_then(|()| encoder.bytes(self.payload, None));
    }

    /// Reports whether the signature is the 64 zero bytes of an unsigned installation.
    pub(super) fn is_zero_signature(&self) -> bool {
        self.signature.iter().all(|byte| *byte == 0)
    }
}

/// Checks that `bytes` are one item in the deterministic form of RFC 8949 §4.2.1: shortest heads, map keys
/// sorted and different. Floats, tags and simple values have no place in a key statement.
pub(super) fn check_canonical(bytes: &[u8]) -> Result<(), BadCbor> {
    let mut cursor = Cursor::new(bytes);
    canonical_item(&mut cursor, 0)?;
    cursor.finish()
}

fn canonical_item(cursor: &mut Cursor<'_>, depth: usize) -> Result<(), BadCbor> {
    let start = cursor.at;
    let item = cursor.next()?;
    let (header, body) = match item {
        Item::Uint(value) => (Header::Positive(value), 0),
        Item::Negative(value) => (Header::Negative(value), 0),
        Item::Bytes(bytes) => (Header::Bytes(Some(bytes.len())), bytes.len()),
        Item::Text(text) => (Header::Text(Some(text.len())), text.len()),
        Item::Array(length) => (Header::Array(Some(length)), 0),
        Item::Map(length) => (Header::Map(Some(length)), 0),
        Item::Bool(value) => (Header::Simple(20 + u8::from(value)), 0),
        Item::Null => (Header::Simple(22), 0),
        Item::Tag(_) | Item::Float(_) | Item::Simple(_) => {
            return Err(BadCbor { what: "a kind of item that does not belong here", at: start });
        }
    };
    let mut shortest = Vec::with_capacity(9);
    // Writing into a vector does not fail.
    let _ = Encoder::from(&mut shortest).push(header);
    if cursor.at - start != shortest.len() + body {
        return Err(BadCbor { what: "a head that is not in its shortest form", at: start });
    }
    if depth > 16 {
        return Err(BadCbor { what: "items nested too deep", at: start });
    }
    match item {
        Item::Array(length) => (0..length).try_for_each(|_| canonical_item(cursor, depth + 1)),
        Item::Map(length) => {
            let mut before: &[u8] = &[];
            for _ in 0..length {
                let at = cursor.at;
                canonical_item(cursor, depth + 1)?;
                let key = cursor.bytes.get(at..cursor.at).unwrap_or(&[]);
                if key <= before {
                    return Err(BadCbor { what: "map keys that are not sorted", at });
                }
                before = key;
                canonical_item(cursor, depth + 1)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        hex::decode(hex.replace(' ', "")).unwrap()
    }

    #[test]
    fn the_envelope_is_taken_apart_and_its_signed_bytes_are_those_of_rfc_9052() {
        let whole = bytes("d2 84 43 a10127 a1 01 02 42 a0a0 41 ff");
        let envelope = Envelope::decode(&whole).unwrap();
        assert_eq!(
            (envelope.protected, envelope.payload, envelope.signature),
            (&bytes("a10127")[..], &bytes("a0a0")[..], &[0xff][..])
        );
        let mut signed = Vec::new();
        envelope.signed_bytes(&mut signed);
        assert_eq!(signed, bytes("84 6a5369676e617475726531 43a10127 40 42a0a0"));
    }

    #[test]
    fn what_is_no_envelope_is_refused_with_the_place() {
        for (hex, what) in [
            ("", "expected tag 18 in its short form (0xd2) at byte 0"),
            ("d812 84 40 a0 40 40", "expected tag 18 in its short form (0xd2) at byte 0"),
            ("84 40 a0 40 40", "expected tag 18 in its short form (0xd2) at byte 0"),
            ("d2 83 40 a0 40", "expected an array of four at byte 1"),
            ("d2 9f 40 a0 40 40 ff", "an item of indefinite length at byte 1"),
            ("d2 84 a0 a0 40 40", "expected a byte string at byte 2"),
            ("d2 84 40 80 40 40", "expected a map as unprotected header at byte 3"),
            ("d2 84 40 bf ff 40 40", "an item of indefinite length at byte 3"),
            ("d2 84 40 a0 f6 40", "expected a byte string at byte 4"),
            ("d2 84 40 a0 5f 41 00 ff 40", "an item of indefinite length at byte 4"),
            ("d2 84 40 a0 40 42 00", "a string that is cut off at byte 5"),
            ("d2 84 40 a0 40 40 00", "bytes after the item at byte 6"),
            ("d2 84 40 a1 f814 00 40 40", "a simple value in two bytes at byte 4"),
            ("d2 84 40 ba ffffffff 40 40", "more items than bytes at byte 3"),
        ] {
            assert_eq!(Envelope::decode(&bytes(hex)).unwrap_err().to_string(), what, "{hex}");
        }
    }

    #[test]
    fn only_the_deterministic_form_is_canonical() {
        for good in ["00", "1818", "20", "3903e7", "a0", "a2 00 01 61 61 02", "83 f4 f5 f6", "82 40 60"] {
            check_canonical(&bytes(good)).unwrap();
        }
        for bad in [
            "1817",
            "190018",
            "1b00000000ffffffff",
            "5801 00",
            "7801 61",
            "9801 00",
            "b801 00 00",
            "a2 01 01 00 00",
            "a2 00 00 00 00",
            "a2 6161 00 00 00",
            "f93c00",
            "c0 00",
            "f7",
            "9f ff",
            "0000",
            "",
        ] {
            assert!(check_canonical(&bytes(bad)).is_err(), "{bad}");
        }
        assert!(check_canonical(&[0x81; 100]).is_err());
    }

    #[test]
    fn a_key_that_is_there_twice_is_an_error_not_a_choice() {
        let map = bytes("a3 6161 01 6162 02 6161 03");
        assert_eq!(int_member(&map, "b"), Some(2));
        assert_eq!(int_member(&map, "c"), None);
        assert_eq!(member(&map, "a").unwrap_err().what, "a key that is there twice");
        assert_eq!(int_member(&bytes("a1 6161 20"), "a"), Some(-1));
    }

    proptest! {
        #[test]
        fn no_bytes_crash_the_reader(bytes: Vec<u8>) {
            let _ = Envelope::decode(&bytes);
            let _ = check_canonical(&bytes);
            let _ = Cursor::new(&bytes).skip();
        }

        #[test]
        fn any_envelope_comes_back(protected: Vec<u8>, payload: Vec<u8>, signature: Vec<u8>) {
            let mut whole = vec![0xd2];
            let mut encoder = Encoder::from(&mut whole);
            encoder.push(Header::Array(Some(4))).unwrap();
            encoder.bytes(&protected, None).unwrap();
            encoder.push(Header::Map(Some(0))).unwrap();
            encoder.bytes(&payload, None).unwrap();
            encoder.bytes(&signature, None).unwrap();
            let envelope = Envelope::decode(&whole).unwrap();
            prop_assert_eq!(envelope.protected, &protected[..]);
            prop_assert_eq!(envelope.payload, &payload[..]);
            prop_assert_eq!(envelope.signature, &signature[..]);
        }
    }
}
