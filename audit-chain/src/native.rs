//! The `native` chain: what a record is, what its hash covers, and how the next one is made.
//!
//! Services that have no chain of their own, and the repository's log, append with [`NativeAppender`];
//! [`crate::formats::native`] verifies. One row is one record (docs/format/native-chain.md):
//!
//! ```text
//! chain   TEXT      which chain                      v       INTEGER   1
//! seq     INTEGER   1, 2, 3 … in its chain           key_id  TEXT      NULL: plain hash; else 16 hex digits
//! at      TEXT      2026-06-02T12:00:00.123456Z      prev    TEXT      '' at the beginning, else the hash before
//! body    TEXT      the exact bytes that are hashed  hash    TEXT      64 lowercase hex digits
//!
//! input   "attestore/chain/native/v1\n" || u64(v) || u64(seq)
//!         || str(chain) || str(at) || str(key_id, "" for NULL) || str(prev) || str(body)
//! str(x)  u64(length of x in bytes) || x        u64: 8 bytes, big-endian
//! hash    hex of SHA-256(input), or of HMAC-SHA256(secret, input)
//! key_id  first 16 hex digits of HMAC-SHA256(secret, "attestore/chain/key-id/v1")
//! ```
//!
//! Every length stands before its bytes, so no two records have one input. Text is hashed as stored, prev and key id too.
//! A chain may go from plain to keyed, never back: whoever lacks the secret could else continue it.
//! Nothing is written here: the record is durable when its caller's transaction is.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::canonical::RowForm;
use crate::error::{Error, Result};
use crate::format::Link;
use crate::merkle::{Hash, leaf_hash};
use crate::value::{Columns, Row, Value};

/// The version of the row that this program writes and verifies.
pub const VERSION: i64 = 1;

/// The columns of a record, in the order of [`NativeRecord::values`].
pub const COLUMNS: [&str; 8] = ["chain", "seq", "at", "body", "v", "key_id", "prev", "hash"];

/// The least length of a secret, in bytes.
pub const MIN_SECRET_BYTES: usize = 16;

/// What every hashed input begins with.
const DOMAIN: &[u8] = b"attestore/chain/native/v1\n";

/// What the key id is the HMAC of.
const KEY_ID_DOMAIN: &[u8] = b"attestore/chain/key-id/v1";

/// Kinds of bodies that Attestore gives a meaning: JSON objects whose member `kind` is one of these.
///
/// Names that begin with [`PREFIX`](kind::PREFIX) are reserved. The members of each are in docs/format/native-chain.md.
pub mod kind {
    /// What every reserved kind begins with.
    pub const PREFIX: &str = "attestore/chain/";
    /// A restore on record: the head that was replaced, the head that took its place, what was lost, by whom.
    pub const RESTORE: &str = "attestore/chain/restore/v1";
    /// The oldest records left on record: their range, count, Merkle root and the link that the rest begins at.
    pub const PRUNE: &str = "attestore/chain/prune/v1";
    /// A value whose commitment stands in an earlier record was erased with its salt.
    pub const ERASURE: &str = "attestore/chain/erasure/v1";
    /// From this record on another key makes the hashes.
    pub const KEY_ROTATION: &str = "attestore/chain/key-rotation/v1";
    /// All of them.
    pub const ALL: [&str; 4] = [RESTORE, PRUNE, ERASURE, KEY_ROTATION];

    /// Returns the reserved kind of a body, known here or not; `None` for the bodies of services.
    ///
    /// ```
    /// use audit_chain::native::kind;
    ///
    /// assert_eq!(kind::of(r#"{"kind":"attestore/chain/prune/v1","count":7}"#).as_deref(), Some(kind::PRUNE));
    /// assert_eq!(kind::of(r#"{"kind":"login"}"#), None);
    /// ```
    #[must_use]
    pub fn of(body: &str) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Kind<'a> {
            #[serde(borrow)]
            kind: std::borrow::Cow<'a, str>,
        }
        // Most bodies say nothing of it: looking for the words costs a tenth of parsing them.
        memchr::memmem::find(body.as_bytes(), b"kind")?;
        let kind = serde_json::from_str::<Kind<'_>>(body).ok()?.kind;
        kind.starts_with(PREFIX).then(|| kind.into_owned())
    }
}

/// One record of a native chain, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NativeRecord {
    /// Which chain it belongs to.
    pub chain: String,
    /// Its number in the chain, from 1.
    pub seq: u64,
    /// When it was made: RFC 3339, UTC, microseconds.
    pub at: String,
    /// The exact text that is hashed, usually a JSON object.
    pub body: String,
    /// The version of the row: 1.
    pub v: i64,
    /// The id of the key that made the hash; `None` for a plain hash.
    pub key_id: Option<String>,
    /// The hash of the record before, empty at the beginning.
    pub prev: String,
    /// The hash of this record, 64 lowercase hexadecimal digits.
    pub hash: String,
}

impl NativeRecord {
    /// Returns the values in the order of [`COLUMNS`].
    ///
    /// A number past the range of a database's integers is given as its largest: no appender makes one.
    #[must_use]
    pub fn values(&self) -> [Value<'_>; 8] {
        [
            Value::Text(&self.chain),
            Value::Int(i64::try_from(self.seq).unwrap_or(i64::MAX)),
            Value::Text(&self.at),
            Value::Text(&self.body),
            Value::Int(self.v),
            self.key_id.as_deref().map_or(Value::Null, Value::Text),
            Value::Text(&self.prev),
            Value::Text(&self.hash),
        ]
    }

    /// Writes the record as its canonical NDJSON line, without the line end: members sorted, no spaces.
    #[must_use]
    pub fn line(&self) -> String {
        let mut form = RowForm::new(&Columns::new(COLUMNS));
        String::from_utf8_lossy(form.line(&Row::new(&self.values()))).into_owned()
    }

    /// Reads a record from a line of JSON; members may stand in any order, others than its own are refused.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is no record of this version.
    pub fn parse(line: &str) -> Result<Self> {
        let malformed = |what| Error::Malformed { input: "native record".into(), place: "line".into(), what };
        let record: Self = serde_json::from_str(line).map_err(|error| malformed(error.to_string()))?;
        if record.v != VERSION {
            return Err(malformed(format!("expected version {VERSION}, found {}", record.v)));
        }
        if i64::try_from(record.seq).is_err() {
            return Err(malformed(format!("number {} is past the largest, {}", record.seq, i64::MAX)));
        }
        Ok(record)
    }

    /// Returns the RFC 6962 leaf of the whole row.
    #[must_use]
    pub fn leaf(&self) -> Hash {
        leaf_hash(self.line().as_bytes())
    }

    /// Computes the hash that the record should have. `key` is the one that [`NativeRecord::key_id`] names.
    #[must_use]
    pub fn digest(&self, key: Option<&NativeKey>) -> Hash {
        let fields = Fields {
            v: self.v,
            seq: self.seq,
            chain: &self.chain,
            at: &self.at,
            key_id: self.key_id.as_deref().unwrap_or(""),
            prev: &self.prev,
            body: &self.body,
        };
        match key {
            None => fields.sha256(),
            Some(key) => fields.hmac(key),
        }
    }
}

/// What the hash covers, borrowed from a record or a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) v: i64,
    pub(crate) seq: u64,
    pub(crate) chain: &'a str,
    pub(crate) at: &'a str,
    pub(crate) key_id: &'a str,
    pub(crate) prev: &'a str,
    pub(crate) body: &'a str,
}

impl Fields<'_> {
    /// Feeds the hashed input to `update`, part by part.
    fn feed(&self, mut update: impl FnMut(&[u8])) {
        update(DOMAIN);
        update(&self.v.to_be_bytes());
        update(&self.seq.to_be_bytes());
        for text in [self.chain, self.at, self.key_id, self.prev, self.body] {
            update(&(text.len() as u64).to_be_bytes());
            update(text.as_bytes());
        }
    }

    pub(crate) fn sha256(&self) -> Hash {
        let mut digest = Sha256::new();
        self.feed(|part| digest.update(part));
        digest.finalize().into()
    }

    pub(crate) fn hmac(&self, key: &NativeKey) -> Hash {
        let mut mac = key.mac.clone();
        self.feed(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }
}

/// A secret that makes keyed hashes. Never printed; its id is public.
#[derive(Clone)]
pub struct NativeKey {
    id: String,
    mac: Hmac<Sha256>,
}

impl NativeKey {
    /// Prepares a secret of at least [`MIN_SECRET_BYTES`] bytes; 32 random ones are best.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is shorter.
    pub fn new(secret: &[u8]) -> Result<Self> {
        let bad = |why| Error::BadKey { what: "secret of a native chain".into(), why };
        if secret.len() < MIN_SECRET_BYTES {
            return Err(bad(format!("expected at least {MIN_SECRET_BYTES} bytes, found {}", secret.len())));
        }
        let mac = Hmac::<Sha256>::new_from_slice(secret).map_err(|error| bad(error.to_string()))?;
        let id = mac.clone().chain_update(KEY_ID_DOMAIN).finalize().into_bytes();
        Ok(Self { id: hex::encode(&id[..8]), mac })
    }

    /// Returns the key id that records of this key carry: 16 lowercase hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Debug for NativeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NativeKey({})", self.id)
    }
}

/// Where a chain stands: all that its next record must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeHead {
    chain: String,
    seq: u64,
    hash: String,
    keyed: bool,
}

impl NativeHead {
    /// Begins a chain.
    #[must_use]
    pub fn genesis(chain: impl Into<String>) -> Self {
        Self { chain: chain.into(), seq: 0, hash: String::new(), keyed: false }
    }

    /// Takes a chain up where its last record stands: its number, its hash, and whether it names a key.
    ///
    /// Nothing is checked here; [`NativeHead::next`] refuses a head that cannot be one.
    #[must_use]
    pub fn at(chain: impl Into<String>, seq: u64, hash: impl Into<String>, keyed: bool) -> Self {
        Self { chain: chain.into(), seq, hash: hash.into(), keyed }
    }

    /// Reports whether the last record is keyed, so that the next must be.
    #[must_use]
    pub const fn is_keyed(&self) -> bool {
        self.keyed
    }

    /// Returns the chain's id.
    #[must_use]
    pub fn chain(&self) -> &str {
        &self.chain
    }

    /// Returns the number of the last record; 0 when there is none.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Returns the hash of the last record; empty when there is none.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Makes the record that comes next. `at_us` is the time in microseconds since 1970.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when a plain record would follow a keyed one, the head's hash is no hash,
    /// the time is outside the years 0 to 9999, or the numbers of the chain are used up.
    pub fn next(&self, at_us: i64, body: impl Into<String>, key: Option<&NativeKey>) -> Result<NativeRecord> {
        let refuse =
            |why: String| Error::InvalidInput(format!("cannot append to chain {:?}: {why}", self.chain));
        if self.keyed && key.is_none() {
            return Err(refuse("its last record is keyed, so the next must be too".into()));
        }
        let fits = match Link::of_text(&self.hash) {
            Link::Genesis => self.seq == 0,
            Link::Digest(_) => self.seq > 0,
            Link::Unstated | Link::Other(_) => false,
        };
        if !fits {
            return Err(refuse(format!(
                "its head, number {}, has no hash of 64 hexadecimal digits",
                self.seq
            )));
        }
        let seq = self.seq.checked_add(1).filter(|seq| i64::try_from(*seq).is_ok());
        let mut record = NativeRecord {
            chain: self.chain.clone(),
            seq: seq.ok_or_else(|| refuse("its numbers are used up".into()))?,
            at: format_time(at_us)
                .ok_or_else(|| refuse(format!("{at_us} µs is outside the years 0 to 9999")))?,
            body: body.into(),
            v: VERSION,
            key_id: key.map(|key| key.id.clone()),
            prev: self.hash.clone(),
            hash: String::new(),
        };
        record.hash = hex::encode(record.digest(key));
        Ok(record)
    }
}

impl From<&NativeRecord> for NativeHead {
    fn from(last: &NativeRecord) -> Self {
        Self {
            chain: last.chain.clone(),
            seq: last.seq,
            hash: last.hash.clone(),
            keyed: last.key_id.is_some(),
        }
    }
}

/// Makes record after record of one chain.
///
/// ```
/// use audit_chain::native::{NativeAppender, NativeHead};
///
/// let mut log = NativeAppender::new(NativeHead::genesis("demo"), None);
/// let first = log.append(0, r#"{"event":"started"}"#)?;
/// let second = log.append(1_000_000, r#"{"event":"stopped"}"#)?;
/// assert_eq!((second.seq, &second.prev), (2, &first.hash));
/// # Ok::<(), audit_chain::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct NativeAppender {
    head: NativeHead,
    key: Option<NativeKey>,
}

impl NativeAppender {
    /// Takes up a chain at its head; with a key, its records are keyed from here on.
    #[must_use]
    pub const fn new(head: NativeHead, key: Option<NativeKey>) -> Self {
        Self { head, key }
    }

    /// Makes the next record and moves the head to it. When the record is then not stored, take the chain up anew.
    ///
    /// # Errors
    /// Those of [`NativeHead::next`].
    pub fn append(&mut self, at_us: i64, body: impl Into<String>) -> Result<NativeRecord> {
        let record = self.head.next(at_us, body, self.key.as_ref())?;
        self.head = NativeHead::from(&record);
        Ok(record)
    }

    /// Changes the key. Returns the body of the [`kind::KEY_ROTATION`] record to append next, the first under the new key.
    #[must_use]
    pub fn rotate(&mut self, key: NativeKey) -> String {
        // Key ids are hexadecimal digits: nothing to escape.
        let old = self.key.as_ref().map_or_else(|| "null".to_owned(), |old| format!("\"{}\"", old.id));
        let body = format!(r#"{{"from":{old},"kind":"{}","to":"{}"}}"#, kind::KEY_ROTATION, key.id);
        self.key = Some(key);
        body
    }

    /// Returns where the chain stands.
    #[must_use]
    pub const fn head(&self) -> &NativeHead {
        &self.head
    }
}

/// Spells a time as records do: RFC 3339, UTC, six digits of the second. `None` outside the years 0 to 9999.
#[must_use]
pub fn format_time(at_us: i64) -> Option<String> {
    let time = jiff::Timestamp::from_microsecond(at_us).ok()?;
    let text = format!("{time:.6}");
    (text.len() == TIME_LENGTH).then_some(text)
}

/// The length of a time in a record, in bytes.
const TIME_LENGTH: usize = "2026-06-02T12:00:00.123456Z".len();

/// Reads the time of a record as microseconds since 1970; `None` when it is not spelt as records spell it.
#[must_use]
pub fn parse_time(text: &str) -> Option<i64> {
    let bytes: &[u8; TIME_LENGTH] = text.as_bytes().try_into().ok()?;
    if (bytes[4], bytes[7], bytes[10], bytes[13]) != (b'-', b'-', b'T', b':')
        || (bytes[16], bytes[19], bytes[26]) != (b':', b'.', b'Z')
    {
        return None;
    }
    let digits = |from: usize, to: usize| {
        bytes[from..to]
            .iter()
            .try_fold(0_i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    let date =
        jiff::civil::Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days =
        date.ok()?.to_datetime(jiff::civil::Time::midnight()).to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    let seconds = days.timestamp().as_second() + (hour * 60 + minute) * 60 + second;
    Some(seconds * 1_000_000 + digits(20, 26)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> NativeKey {
        NativeKey::new(&[byte; 32]).unwrap()
    }

    fn record() -> NativeRecord {
        NativeHead::genesis("orders").next(1_780_401_600_123_456, r#"{"event":"paid"}"#, None).unwrap()
    }

    #[test]
    fn a_record_links_to_the_one_before_and_names_its_key() {
        let mut log = NativeAppender::new(NativeHead::genesis("orders"), None);
        let plain = log.append(0, "one").unwrap();
        let body = log.rotate(key(1));
        let rotation = log.append(1, body).unwrap();
        assert_eq!((plain.seq, plain.prev.as_str(), &plain.key_id), (1, "", &None));
        assert_eq!((rotation.seq, &rotation.prev), (2, &plain.hash));
        assert_eq!(rotation.key_id.as_deref(), Some(key(1).id()));
        assert_eq!(kind::of(&rotation.body).as_deref(), Some(kind::KEY_ROTATION));
        assert_eq!(NativeHead::from(&rotation), *log.head());
        assert_eq!(hex::encode(rotation.digest(Some(&key(1)))), rotation.hash);
        assert_ne!(hex::encode(rotation.digest(Some(&key(2)))), rotation.hash);
    }

    #[test]
    fn a_keyed_chain_does_not_become_plain_again() {
        let mut log = NativeAppender::new(NativeHead::genesis("orders"), Some(key(1)));
        let last = log.append(0, "one").unwrap();
        let error = NativeHead::from(&last).next(1, "two", None).unwrap_err();
        assert!(error.to_string().contains("keyed"), "{error}");
    }

    #[test]
    fn a_head_that_is_none_is_not_continued() {
        for (seq, hash) in [(0, "ab".repeat(32)), (3, String::new()), (3, "AB".repeat(32)), (3, "ab".into())]
        {
            let head = NativeHead { chain: "a".into(), seq, hash, keyed: false };
            assert!(head.next(0, "", None).is_err(), "{head:?}");
        }
        let head =
            NativeHead { chain: "a".into(), seq: i64::MAX as u64, hash: "ab".repeat(32), keyed: false };
        assert!(head.next(0, "", None).unwrap_err().to_string().contains("used up"));
    }

    #[test]
    fn short_secrets_are_refused_and_no_secret_is_printed() {
        assert!(matches!(NativeKey::new(b"fifteen bytes.."), Err(Error::BadKey { .. })));
        assert_eq!(format!("{:?}", key(0x41)), format!("NativeKey({})", key(0x41).id()));
        assert_eq!(key(0x41).id().len(), 16);
    }

    #[test]
    fn the_line_is_canonical_json_and_comes_back() {
        let record = NativeHead::genesis("a\"b\u{e9}").next(0, "{\"a\": 1,\n\"b\":2}", None).unwrap();
        let line = record.line();
        assert!(line.starts_with(r#"{"at":"1970-01-01T00:00:00.000000Z","body":"{\"a\": 1,\n\"b\":2}","chain":"a\"bé","hash":""#), "{line}");
        assert!(line.ends_with(r#","key_id":null,"prev":"","seq":1,"v":1}"#), "{line}");
        assert_eq!(line, serde_json_canonical(&record));
        assert_eq!(NativeRecord::parse(&line).unwrap(), record);
        assert_eq!(record.leaf(), leaf_hash(line.as_bytes()));
    }

    /// A sorted map of the members; serde_json escapes text as RFC 8785 does.
    fn serde_json_canonical(record: &NativeRecord) -> String {
        let json = serde_json::to_string(record).unwrap();
        let members: std::collections::BTreeMap<String, serde_json::Value> =
            serde_json::from_str(&json).unwrap();
        serde_json::to_string(&members).unwrap()
    }

    #[test]
    fn lines_that_are_no_record_are_refused() {
        let line = record().line();
        for bad in [
            line.replace("\"v\":1", "\"v\":2"),
            line.replace("\"v\":1", "\"v\":1,\"w\":1"),
            line.replace("\"v\":1", "\"v\":1,\"v\":1"),
            line.replace(",\"v\":1", ""),
            line.replace("\"seq\":1", "\"seq\":-1"),
            line.replace("\"seq\":1", "\"seq\":9223372036854775808"),
            line.replace("\"seq\":1", "\"seq\":\"1\""),
            format!("{line}{line}"),
        ] {
            assert!(matches!(NativeRecord::parse(&bad), Err(Error::Malformed { .. })), "{bad}");
        }
    }

    #[test]
    fn times_are_spelt_one_way() {
        for (us, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (1_780_401_600_123_456, "2026-06-02T12:00:00.123456Z"),
        ] {
            assert_eq!(format_time(us).as_deref(), Some(text));
            assert_eq!(parse_time(text), Some(us));
        }
        for text in [
            "2026-06-02T12:00:00Z",
            "2026-06-02 12:00:00.123456Z",
            "2026-06-02T12:00:00.123456+",
            "2026-02-30T12:00:00.123456Z",
            "2026-06-02T24:00:00.123456Z",
            "2026-06-02T12:60:00.123456Z",
            "2026-06-02T12:00:60.123456Z",
            "2026-06-0xT12:00:00.123456Z",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(format_time(i64::MAX), None);
        assert_eq!(format_time(-62_167_219_200_000_001), None);
    }

    #[test]
    fn only_names_under_the_prefix_are_reserved() {
        for reserved in kind::ALL {
            assert_eq!(kind::of(&format!(r#"{{"a":[1],"kind":"{reserved}"}}"#)).as_deref(), Some(reserved));
        }
        assert_eq!(
            kind::of(r#"{"kind":"attestore\/chain\/new/v9"}"#).as_deref(),
            Some("attestore/chain/new/v9")
        );
        for body in [
            "",
            "kind",
            r#"{"kind":1}"#,
            r#"{"kind":"attestore"}"#,
            r#"{"a":{"kind":"attestore/chain/prune/v1"}}"#,
        ] {
            assert_eq!(kind::of(body), None, "{body}");
        }
    }

    fn any_record() -> impl Strategy<Value = NativeRecord> {
        ("\\PC{0,9}", 1..i64::MAX, "\\PC{0,9}", "\\PC{0,20}", any::<bool>(), any::<bool>()).prop_map(
            |(chain, seq, at, body, keyed, first)| {
                let key = keyed.then(|| key(7));
                let prev = if first { String::new() } else { "5a".repeat(32) };
                let key_id = key.as_ref().map(|key| key.id.clone());
                let mut record = NativeRecord {
                    chain,
                    seq: seq as u64,
                    at,
                    body,
                    v: 1,
                    key_id,
                    prev,
                    hash: String::new(),
                };
                record.hash = hex::encode(record.digest(key.as_ref()));
                record
            },
        )
    }

    proptest! {
        #[test]
        fn records_come_back_from_their_line(record in any_record()) {
            prop_assert_eq!(NativeRecord::parse(&record.line()).unwrap(), record);
        }

        #[test]
        fn bytes_moved_from_one_field_to_another_change_the_hash(record in any_record(), cut: prop::sample::Index) {
            // The concatenation of all fields stays the same; only the borders move.
            let mut moved = record.clone();
            let all = format!("{}{}", record.chain, record.at);
            let borders: Vec<usize> = (0..=all.len()).filter(|at| all.is_char_boundary(*at)).collect();
            let border = borders[cut.index(borders.len())];
            prop_assume!(border != record.chain.len());
            moved.chain = all[..border].to_owned();
            moved.at = all[border..].to_owned();
            let key = record.key_id.as_ref().map(|_| key(7));
            prop_assert_ne!(moved.digest(key.as_ref()), record.digest(key.as_ref()));
        }

        #[test]
        fn times_come_back(us in -62_167_219_200_000_000..253_402_207_200_000_000_i64) {
            prop_assert_eq!(parse_time(&format_time(us).unwrap()), Some(us));
        }
    }
}
