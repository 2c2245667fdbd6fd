//! What is kept of a row until its chain is in order: fixed numbers, a few texts, and what is wrong with it.
//!
//! Rows of a dump may stand in any order, and there may be a million chains, so each row becomes one item of a
//! [`Sorter`](crate::spill::Sorter): about 200 bytes instead of 2 KiB.
//!
//! ```text
//! key    chain (17 bytes) | place, sign flipped (8 bytes, big-endian)
//! chain  0 | the 16 bytes of a uuid      or      1 | first 16 bytes of SHA-256(the text)
//! ```
//!
//! Two texts of one chain key would need a collision of 128 bits, and would be found broken, not sound.

use sha2::{Digest as _, Sha256};

use super::codes::{Code, Flaw};
use crate::error::Result;
use crate::format::Link;
use crate::merkle::Hash;
use crate::value::{Columns, Row, Value};

/// How long a chain's sort key is, in bytes.
pub(super) const CHAIN_KEY: usize = 17;

/// The sort key of a chain.
pub(super) type ChainKey = [u8; CHAIN_KEY];

/// The columns of a table that are read, with their places.
#[derive(Debug, Clone)]
pub(super) struct Places<const N: usize> {
    names: [&'static str; N],
    places: [Option<usize>; N],
}

impl<const N: usize> Places<N> {
    /// Resolves the columns.
    pub(super) fn new(columns: &Columns, names: [&'static str; N]) -> Self {
        Self { names, places: names.map(|name| columns.position(name)) }
    }

    /// Returns all values of a row. A member that the file's first line does not have stands in `extra`.
    pub(super) fn of<'r>(&self, row: &Row<'r>) -> [Value<'r>; N] {
        let mut values = [Value::Absent; N];
        for ((value, place), name) in values.iter_mut().zip(self.places).zip(self.names) {
            *value = match place {
                Some(_) => row.at(place),
                None => row
                    .extra
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map_or(Value::Absent, |(_, value)| *value),
            };
        }
        values
    }
}

/// Reads a whole number: an integer, or another spelling of one that a binary64 holds exactly.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn whole(value: Value<'_>) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let of_real = |real: f64| (real.fract() == 0.0 && real.abs() < EXACT).then_some(real as i64);
    match value {
        Value::Int(value) => Some(value),
        Value::Number(text) => text.parse().ok().and_then(of_real),
        Value::Real(real) => of_real(real),
        _ => None,
    }
}

/// Reads a stored hash as what the next record must name: only `null` is the beginning; 64 lowercase digits are a digest.
pub(super) fn link(value: Value<'_>) -> Link {
    match value {
        Value::Null => Link::Genesis,
        Value::Text("") => Link::Other(Sha256::digest([]).into()),
        Value::Text(text) => Link::of_text(text),
        other => {
            let mut spelt = b"not text: ".to_vec();
            crate::canonical::push_value(&mut spelt, other);
            Link::Other(Sha256::digest(&spelt).into())
        }
    }
}

/// Reads a uuid in its one spelling: lower case, with hyphens.
pub(super) fn uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut digits = [0_u8; 32];
    let mut next = digits.iter_mut();
    for (at, byte) in bytes.iter().enumerate() {
        match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => {}
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9' | b'a'..=b'f') => *next.next()? = *byte,
            _ => return None,
        }
    }
    let mut uuid = [0; 16];
    hex::decode_to_slice(digits, &mut uuid).ok()?;
    Some(uuid)
}

/// Spells a uuid.
fn uuid_text(uuid: &[u8]) -> String {
    let digits = hex::encode(uuid);
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or("");
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

/// Returns the sort key of a chain.
pub(super) fn chain_key(name: &str) -> ChainKey {
    let mut key = [0; CHAIN_KEY];
    let (tag, bytes) = match uuid(name) {
        Some(uuid) => (0, uuid),
        None => {
            let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
            let mut first = [0; 16];
            first.copy_from_slice(&digest[..16]);
            (1, first)
        }
    };
    key[0] = tag;
    key[1..].copy_from_slice(&bytes);
    key
}

/// How a row was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signed {
    /// Without a signature.
    No,
    /// By the key of this place, and it holds.
    By(u16),
    /// By a distrusted key, before a trusted one retired it.
    Accounted(u16),
    /// It says that it is signed, but that was not proven.
    Unproven,
}

/// What is kept of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// The chain's name; empty where the sort key says it.
    pub(super) chain: String,
    pub(super) id: String,
    /// The row's place in its chain; `None` where the column is no whole number.
    pub(super) place: Option<i64>,
    pub(super) prev: Link,
    /// What the next row must name.
    pub(super) link: Link,
    /// What the signed claims say of the row before; the same as `prev` where that was compared already.
    pub(super) signed_prev: Link,
    /// The leaf of the whole row.
    pub(super) row_leaf: Hash,
    /// The leaf of the read log's own tree, or zero.
    pub(super) tree_leaf: Hash,
    pub(super) signed: Signed,
    /// Whether it is a checkpoint that names its chain by a derived id only.
    pub(super) derived: bool,
    pub(super) flaw: Option<Flaw>,
}

/// The items of one chunk of rows.
#[derive(Debug, Default)]
pub(super) struct Items {
    bytes: Vec<u8>,
    /// Where each item's key ends, and where its body ends.
    ends: Vec<(usize, usize)>,
}

impl Items {
    /// Appends an item. `sort` is the place to sort by where the row's own is none.
    pub(super) fn push(&mut self, chain: &str, sort: i64, item: &Item) {
        let key = chain_key(chain);
        self.bytes.extend_from_slice(&key);
        self.bytes.extend_from_slice(&(sort.cast_unsigned() ^ (1 << 63)).to_be_bytes());
        let key_end = self.bytes.len();
        item.write(&mut self.bytes);
        self.ends.push((key_end, self.bytes.len()));
    }

    /// Returns how many items there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Hands the items to `take`: key, body.
    pub(super) fn each(&self, mut take: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        let mut start = 0;
        for (key_end, end) in &self.ends {
            take(
                self.bytes.get(start..*key_end).unwrap_or(&[]),
                self.bytes.get(*key_end..*end).unwrap_or(&[]),
            )?;
            start = *end;
        }
        Ok(())
    }
}

impl Item {
    fn write(&self, out: &mut Vec<u8>) {
        put_text(out, &self.chain);
        put_text(out, &self.id);
        match self.place {
            Some(place) => {
                out.push(1);
                out.extend_from_slice(&place.to_le_bytes());
            }
            None => out.push(0),
        }
        put_link(out, self.prev);
        put_link(out, self.link);
        put_link(out, self.signed_prev);
        out.extend_from_slice(&self.row_leaf);
        out.extend_from_slice(&self.tree_leaf);
        let (tag, key) = match self.signed {
            Signed::No => (0, 0),
            Signed::By(key) => (1, key),
            Signed::Accounted(key) => (2, key),
            Signed::Unproven => (3, 0),
        };
        out.push(tag);
        out.extend_from_slice(&key.to_le_bytes());
        out.push(u8::from(self.derived));
        match &self.flaw {
            Some(flaw) => {
                out.push(1);
                out.push(flaw.code as u8);
                put_text(out, &flaw.explains);
                put_option(out, flaw.expected.as_deref());
                put_option(out, flaw.found.as_deref());
            }
            None => out.push(0),
        }
    }

    /// Reads an item back; `key` is its sort key. `None` is a defect of this program.
    pub(super) fn read(key: &[u8], body: &[u8]) -> Option<Self> {
        let mut from = Reader(body);
        let chain = from.text()?;
        let id = from.text()?;
        let place = if from.byte()? == 1 { Some(i64::from_le_bytes(from.array()?)) } else { None };
        let prev = from.link()?;
        let link = from.link()?;
        let signed_prev = from.link()?;
        let row_leaf = from.array()?;
        let tree_leaf = from.array()?;
        let tag = from.byte()?;
        let at = u16::from_le_bytes(from.array()?);
        let signed = match tag {
            0 => Signed::No,
            1 => Signed::By(at),
            2 => Signed::Accounted(at),
            _ => Signed::Unproven,
        };
        let derived = from.byte()? == 1;
        let flaw = if from.byte()? == 1 {
            let code = Code::of_number(from.byte()?)?;
            let explains = from.text()?;
            Some(Flaw { code, explains, expected: from.option()?, found: from.option()? })
        } else {
            None
        };
        let chain = if key.first() == Some(&0) { uuid_text(key.get(1..CHAIN_KEY)?) } else { chain };
        Some(Self { chain, id, place, prev, link, signed_prev, row_leaf, tree_leaf, signed, derived, flaw })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // A text of 4 GiB cannot come from a line of 64 MiB.
    let length = u32::try_from(text.len()).unwrap_or(0);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes().get(..length as usize).unwrap_or(&[]));
}

fn put_option(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put_text(out, text);
    }
}

fn put_link(out: &mut Vec<u8>, link: Link) {
    match link {
        Link::Genesis => out.push(0),
        Link::Unstated => out.push(3),
        Link::Digest(digest) => {
            out.push(1);
            out.extend_from_slice(&digest);
        }
        Link::Other(digest) => {
            out.push(2);
            out.extend_from_slice(&digest);
        }
    }
}

/// Reads the parts of a body.
struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn text(&mut self) -> Option<String> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn option(&mut self) -> Option<Option<String>> {
        if self.byte()? == 1 { self.text().map(Some) } else { Some(None) }
    }

    fn link(&mut self) -> Option<Link> {
        Some(match self.byte()? {
            0 => Link::Genesis,
            1 => Link::Digest(self.array()?),
            2 => Link::Other(self.array()?),
            _ => Link::Unstated,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_null_is_the_beginning() {
        assert_eq!(link(Value::Null), Link::Genesis);
        let different = [
            Value::Null,
            Value::Absent,
            Value::Text(""),
            Value::Text("ab"),
            Value::Int(0),
            Value::Bool(false),
            Value::Text(&"AB".repeat(32)),
            Value::Text(&"ab".repeat(32)),
        ]
        .map(link);
        for (at, one) in different.iter().enumerate() {
            assert!(different.iter().skip(at + 1).all(|other| other != one), "{at}");
        }
    }

    #[test]
    fn whole_numbers_have_several_spellings() {
        for (value, whole_is) in [
            (Value::Int(-3), Some(-3)),
            (Value::Number("2.0"), Some(2)),
            (Value::Number("1e1"), Some(10)),
            (Value::Number("-0"), Some(0)),
            (Value::Real(4.0), Some(4)),
            (Value::Number("2.5"), None),
            (Value::Number("1e300"), None),
            (Value::Text("2"), None),
            (Value::Null, None),
            (Value::Bool(true), None),
        ] {
            assert_eq!(whole(value), whole_is, "{value:?}");
        }
    }

    #[test]
    fn a_uuid_has_one_spelling() {
        let text = "0c0c0c0c-0000-4000-8000-00000000000f";
        assert_eq!(uuid_text(&uuid(text).unwrap()), text);
        for other in
            [&text.to_uppercase(), &text.replace('-', ""), "0c0c0c0c-0000-4000-8000-00000000000", "", "é"]
        {
            assert_eq!(uuid(other), None, "{other}");
            assert_eq!(chain_key(other)[0], 1);
        }
        assert_eq!(chain_key(text)[0], 0);
    }

    fn any_link() -> impl Strategy<Value = Link> {
        prop_oneof![
            Just(Link::Genesis),
            any::<Hash>().prop_map(Link::Digest),
            any::<Hash>().prop_map(Link::Other)
        ]
    }

    proptest! {
        #[test]
        fn items_come_back(
            (chain, id, place) in (".{0,9}", ".{0,9}", any::<Option<i64>>()),
            (prev, link, signed_prev) in (any_link(), any_link(), any_link()),
            (row_leaf, tree_leaf) in any::<(Hash, Hash)>(),
            key: u16,
            flaw in proptest::option::of((0..45_u8, ".{0,9}", any::<Option<String>>(), any::<Option<String>>())),
        ) {
            let flaw = flaw.map(|(code, explains, expected, found)| Flaw {
                code: Code::of_number(code).unwrap(), explains, expected, found,
            });
            for signed in [Signed::No, Signed::By(key), Signed::Accounted(key), Signed::Unproven] {
                let item = Item { chain: chain.clone(), id: id.clone(), place, prev, link, signed_prev, row_leaf, tree_leaf, signed, derived: place.is_none(), flaw: flaw.clone() };
                let mut items = Items::default();
                items.push(&chain, place.unwrap_or(0), &item);
                let mut back = None;
                items.each(|key, body| { back = Item::read(key, body); Ok(()) }).unwrap();
                prop_assert_eq!(back, Some(item));
            }
        }

        #[test]
        fn keys_sort_by_chain_and_place(one: i64, other: i64) {
            let item = Item {
                chain: String::new(), id: String::new(), place: None, prev: Link::Genesis, link: Link::Genesis,
                signed_prev: Link::Genesis, row_leaf: [0; 32], tree_leaf: [0; 32], signed: Signed::No, derived: false, flaw: None,
            };
            let mut items = Items::default();
            items.push("a", one, &item);
            items.push("a", other, &item);
            let mut keys = Vec::new();
            items.each(|key, _| { keys.push(key.to_vec()); Ok(()) }).unwrap();
            prop_assert_eq!(keys[0].cmp(&keys[1]), one.cmp(&other));
        }
    }
}
