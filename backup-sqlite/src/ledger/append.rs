//! Appends records of a native chain in the caller's own transaction.
//!
//! Called by services, by the [`Writer`](super::Writer) and by the facade. The record is made by
//! [`NativeHead::next`], which owns the hash; here the head is read and the row is stored, in one transaction.
//!
//! When the process dies before the caller's commit, neither the record nor what it is about is there.

use std::time::{SystemTime, UNIX_EPOCH};

use audit_chain::commitment::{MEMBER, SealedValue, commitments, seal};
use audit_chain::native::{NativeHead, NativeKey, NativeRecord, kind};
use backup_core::error::{Error, ErrorKind, Result};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;

use super::fault;
use super::layout::{Layout, require_transaction};

/// What is to be written on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub(super) body: String,
    pub(super) at_us: Option<i64>,
    pub(super) values: Vec<SealedValue>,
}

impl Draft {
    /// Takes a text as it stands, usually a JSON object: these bytes are hashed and stored.
    pub fn new(body: impl Into<String>) -> Self {
        Self { body: body.into(), at_us: None, values: Vec::new() }
    }

    /// Serializes a value as JSON.
    ///
    /// # Errors
    /// `InvalidInput` when the value has no JSON form.
    pub fn json(value: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_string(value).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "the record has no JSON form").with_source(error)
        })?;
        Ok(Self::new(body))
    }

    /// Keeps the values at these JSON pointers outside the chain, where they can be erased: the body only commits to
    /// them, each with a fresh salt ([`audit_chain::commitment`]). The body is written anew as compact JSON.
    ///
    /// # Errors
    /// `InvalidInput` when the body is no JSON object or array, or there is no value at a pointer.
    pub fn personal(self, pointers: &[impl AsRef<str>]) -> Result<Self> {
        if pointers.is_empty() {
            return Ok(self);
        }
        let (body, values) = seal(&self.body, pointers)?;
        Ok(Self { body, values, ..self })
    }

    /// Sets the time, in microseconds since 1970; by default it is that of the append.
    #[must_use]
    pub const fn at(mut self, at_us: i64) -> Self {
        self.at_us = Some(at_us);
        self
    }
}

/// Where a record stands. It is durable when the transaction that it was made in is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The chain.
    pub chain: String,
    /// The record's number in it, from 1.
    pub seq: u64,
    /// When: RFC 3339, UTC, microseconds.
    pub at: String,
    /// The record's hash, 64 lowercase hexadecimal digits.
    pub hash: String,
}

/// One native chain in a SQLite database: which table, which chain, which key.
///
/// ```
/// use backup_sqlite::ledger::{Draft, Ledger};
///
/// let mut db = rusqlite::Connection::open_in_memory()?;
/// let ledger = Ledger::new("orders");
/// ledger.layout().create(&db, true)?;
/// let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
/// tx.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY); INSERT INTO orders VALUES (7)")?;
/// let receipt = ledger.append(&tx, Draft::new(r#"{"event":"paid","order":7}"#))?;
/// tx.commit()?;
/// assert_eq!(receipt.seq, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ledger {
    layout: Layout,
    chain: String,
    key: Option<NativeKey>,
}

impl Ledger {
    /// Names a chain in the default table, plain.
    pub fn new(chain: impl Into<String>) -> Self {
        Self { layout: Layout::default(), chain: chain.into(), key: None }
    }

    /// Chooses other tables.
    #[must_use]
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// Hashes with a secret from here on. A chain that is keyed stays keyed.
    #[must_use]
    pub fn with_key(mut self, key: NativeKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Returns another chain in the same table, with the same key.
    #[must_use]
    pub fn of_chain(&self, chain: impl Into<String>) -> Self {
        Self { chain: chain.into(), ..self.clone() }
    }

    /// Returns the tables.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the chain's id.
    #[must_use]
    pub fn chain(&self) -> &str {
        &self.chain
    }

    /// Reads where the chain stands.
    ///
    /// # Errors
    /// What SQLite says: there is no such table, for one.
    pub fn head(&self, connection: &Connection) -> Result<NativeHead> {
        let failed = |error| fault("read the head of the chain in", connection, error);
        let mut statement = connection.prepare(&self.layout.head_sql()).map_err(failed)?;
        let found = statement.query_row([&self.chain], |row| {
            let key_id: Option<String> = row.get(2)?;
            // The tables hold numbers from 1 only; another one is no head, which `next` refuses.
            let seq = u64::try_from(row.get::<_, i64>(0)?).unwrap_or(u64::MAX);
            Ok(NativeHead::at(self.chain.as_str(), seq, row.get::<_, String>(1)?, key_id.is_some()))
        });
        match found {
            Ok(head) => Ok(head),
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(NativeHead::genesis(self.chain.as_str())),
            Err(error) => Err(failed(error)),
        }
    }

    /// Returns the id of the key that made the last record; `None` for a plain one, or none.
    ///
    /// # Errors
    /// As [`Ledger::head`].
    pub fn head_key(&self, connection: &Connection) -> Result<Option<String>> {
        let found = connection
            .query_row(&self.layout.head_sql(), [&self.chain], |row| row.get::<_, Option<String>>(2))
            .optional();
        Ok(found.map_err(|error| fault("read the head of the chain in", connection, error))?.flatten())
    }

    /// Appends a record in the caller's transaction, best one that was begun `IMMEDIATE`.
    ///
    /// In a deferred transaction the lock for writing is taken here; that fails when the transaction has read before
    /// and another connection has written since.
    ///
    /// # Errors
    /// `InvalidInput` outside a transaction, for a body of a reserved kind, and where [`NativeHead::next`] refuses;
    /// `Locked` when another writer holds the lock for longer than the connection's busy timeout; what SQLite says.
    /// The transaction can go on after an error, without the record.
    pub fn append(&self, connection: &Connection, draft: Draft) -> Result<Receipt> {
        self.append_any(connection, allowed(draft)?)
    }

    /// Changes the key: appends the record that says so, the first under the new key. Give the same key to
    /// [`Ledger::with_key`] from then on; keep the old secret, which verifies what it made.
    ///
    /// # Errors
    /// As [`Ledger::append`].
    pub fn rotate(&mut self, connection: &Connection, key: NativeKey) -> Result<Receipt> {
        let mut appender =
            audit_chain::native::NativeAppender::new(NativeHead::genesis(""), self.key.clone());
        let body = appender.rotate(key.clone());
        let rotated = Self { key: Some(key), ..self.clone() };
        let receipt = rotated.append_any(connection, Draft::new(body))?;
        *self = rotated;
        Ok(receipt)
    }

    /// Appends several records in the caller's transaction, one after the other: cheaper than each by itself.
    ///
    /// # Errors
    /// As [`Ledger::append`]. After an error the caller rolls back, or keeps the records before the one that failed.
    pub fn append_all(
        &self,
        connection: &Connection,
        drafts: impl IntoIterator<Item = Draft>,
    ) -> Result<Vec<Receipt>> {
        let mut open = self.open(connection)?;
        drafts.into_iter().map(|draft| open.append(&allowed(draft)?)).collect()
    }

    /// Appends a record of any kind.
    pub(crate) fn append_any(&self, connection: &Connection, draft: Draft) -> Result<Receipt> {
        self.open(connection)?.append(&draft)
    }

    /// Takes the lock, reads the head and prepares the statements for a transaction of appends.
    pub(super) fn open<'c>(&'c self, connection: &'c Connection) -> Result<Open<'c>> {
        require_transaction(connection)?;
        let failed = |error| fault("append to the chain in", connection, error);
        connection.execute(&self.layout.lock_sql(), []).map_err(failed)?;
        let insert = connection.prepare(&self.layout.insert_sql()).map_err(failed)?;
        Ok(Open { ledger: self, connection, head: self.head(connection)?, insert })
    }
}

/// A chain that is being written to in one transaction.
pub(super) struct Open<'c> {
    ledger: &'c Ledger,
    connection: &'c Connection,
    head: NativeHead,
    insert: rusqlite::Statement<'c>,
}

impl Open<'_> {
    /// Appends the next record.
    pub(super) fn append(&mut self, draft: &Draft) -> Result<Receipt> {
        let record = self.make(draft)?;
        self.store(record, draft)
    }

    /// Makes the next record; the head stays where it is.
    pub(super) fn make(&self, draft: &Draft) -> Result<NativeRecord> {
        let at_us = draft.at_us.unwrap_or_else(now_us);
        Ok(self.head.next(at_us, draft.body.as_str(), self.ledger.key.as_ref())?)
    }

    /// Stores the record that was made, with the values that it commits to, and moves the head to it.
    pub(super) fn store(&mut self, record: NativeRecord, draft: &Draft) -> Result<Receipt> {
        let failed = |error| fault("append to the chain in", self.connection, error);
        let seq = i64::try_from(record.seq).unwrap_or(i64::MAX);
        let (v, key_id) = (record.v, &record.key_id);
        let row = params![record.chain, seq, record.at, record.body, v, key_id, record.prev, record.hash];
        self.insert.execute(row).map_err(failed)?;
        if !draft.values.is_empty() {
            let sql = self.ledger.layout.insert_value_sql();
            let mut keep = self.connection.prepare(&sql).map_err(failed)?;
            for value in &draft.values {
                let row = params![record.chain, seq, value.pointer, value.salt, value.value];
                keep.execute(row).map_err(failed)?;
            }
        }
        self.head = NativeHead::from(&record);
        Ok(Receipt { chain: record.chain, seq: record.seq, at: record.at, hash: record.hash })
    }
}

/// Refuses bodies that only Attestore writes.
pub(super) fn allowed(draft: Draft) -> Result<Draft> {
    if let Some(reserved) = kind::of(&draft.body) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "a body of the kind {reserved} is not a service's to write: names that begin with {} are reserved",
                kind::PREFIX
            ),
        ));
    }
    if commitments(&draft.body).len() != draft.values.len() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("a body that commits to values comes without them: the member {MEMBER:?} is reserved"),
        )
        .with_hint(
            "name the values with `Draft::personal`; what users hand in goes into the body as a string",
        ));
    }
    Ok(draft)
}

/// Returns the time in microseconds since 1970.
fn now_us() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    }
}
