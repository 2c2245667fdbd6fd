//! Rows from any iterator: a driver's cursor, the pages of an HTTP API, rows made in memory.
//!
//! For callers whose rows are in no file and no table that a backend reads. The iterator is asked by one thread at a time,
//! [`CHUNK_ROWS`] rows at once; hashing and checking run on every core. At most one chunk per thread is in memory.
//!
//! An iterator yields `Result`s, so that a cursor that breaks off is an error and never a chain that merely ends earlier.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::source::{ChunkReader, RowSource};
use crate::value::{Columns, Row, Value};

/// How many rows a thread takes at a time.
pub const CHUNK_ROWS: usize = 256;

/// One value that owns its text, for rows that outlive what they were read from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum OwnedValue {
    /// A member that this row does not have.
    Absent,
    /// SQL NULL or JSON `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// A number as it is spelt: JSON fractions, exponents, integers past 64 bits, `numeric`.
    Number(String),
    /// A binary64 number of a database.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes that are not text.
    Bytes(Vec<u8>),
    /// A JSON object or array, in the exact bytes of its source (PostgreSQL's `jsonb::text`).
    Json(String),
}

impl OwnedValue {
    /// Borrows the value.
    #[must_use]
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Self::Absent => Value::Absent,
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Number(text) => Value::Number(text),
            Self::Real(value) => Value::Real(*value),
            Self::Text(text) => Value::Text(text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Json(text) => Value::Json(text),
        }
    }
}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Absent => Self::Absent,
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Int(value) => Self::Int(value),
            Value::Number(text) => Self::Number(text.to_owned()),
            Value::Real(value) => Self::Real(value),
            Value::Text(text) => Self::Text(text.to_owned()),
            Value::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            Value::Json(text) => Self::Json(text.to_owned()),
        }
    }
}

impl From<&str> for OwnedValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for OwnedValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for OwnedValue {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for OwnedValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl<T: Into<Self>> From<Option<T>> for OwnedValue {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One row: its values in the order of the source's columns.
pub type OwnedRow = Vec<OwnedValue>;

type Rows<'a> = Box<dyn Iterator<Item = Result<OwnedRow>> + Send + 'a>;
type Restart<'a> = Box<dyn Fn() -> Result<Option<Rows<'a>>> + Send + Sync + 'a>;

/// Rows of an iterator as a [`RowSource`].
///
/// ```
/// use audit_chain::iter_rows::{IterSource, OwnedValue};
/// use audit_chain::source::RowSource as _;
///
/// let rows = [("a", 1), ("b", 2)].map(|(name, seq)| Ok(vec![OwnedValue::from(name), OwnedValue::from(seq)]));
/// let source = IterSource::once("rows", ["name", "seq"], rows);
/// assert_eq!(source.columns().names(), ["name", "seq"]);
/// ```
pub struct IterSource<'a> {
    name: String,
    columns: Columns,
    state: Mutex<State<'a>>,
    restart: Restart<'a>,
}

struct State<'a> {
    rows: Option<Rows<'a>>,
    next_chunk: u64,
    next_row: u64,
}

impl<'a> State<'a> {
    fn new(rows: Rows<'a>) -> Self {
        Self { rows: Some(rows), next_chunk: 0, next_row: 1 }
    }
}

impl fmt::Debug for IterSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IterSource")
            .field("name", &self.name)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

impl<'a> IterSource<'a> {
    /// Reads an iterator that can be read once. `name` is what messages call the source.
    pub fn once<S: Into<String>, I>(
        name: impl Into<String>,
        columns: impl IntoIterator<Item = S>,
        rows: I,
    ) -> Self
    where
        I: IntoIterator<Item = Result<OwnedRow>>,
        I::IntoIter: Send + 'a,
    {
        Self {
            name: name.into(),
            columns: Columns::new(columns),
            state: Mutex::new(State::new(Box::new(rows.into_iter()))),
            restart: Box::new(|| Ok(None)),
        }
    }

    /// Reads rows that `make` can start again from the first one, as often as it is asked.
    ///
    /// # Errors
    /// What `make` says.
    pub fn again<S: Into<String>, I>(
        name: impl Into<String>,
        columns: impl IntoIterator<Item = S>,
        make: impl Fn() -> Result<I> + Send + Sync + 'a,
    ) -> Result<Self>
    where
        I: Iterator<Item = Result<OwnedRow>> + Send + 'a,
    {
        let first: Rows<'a> = Box::new(make()?);
        Ok(Self {
            name: name.into(),
            columns: Columns::new(columns),
            state: Mutex::new(State::new(first)),
            restart: Box::new(move || Ok(Some(Box::new(make()?) as Rows<'a>))),
        })
    }

    /// Takes the next rows and the chunk's number.
    fn take(&self, into: &mut Vec<OwnedRow>) -> Result<Option<u64>> {
        into.clear();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rows) = &mut state.rows else { return Ok(None) };
        for row in rows.by_ref().take(CHUNK_ROWS) {
            let expected = self.columns.names().len();
            let wrong = match row {
                Ok(row) if row.len() == expected => {
                    into.push(row);
                    continue;
                }
                Ok(row) => Error::Malformed {
                    input: self.name.clone(),
                    place: format!("row {}", state.next_row + into.len() as u64),
                    what: format!("expected {expected} values, found {}", row.len()),
                },
                Err(error) => error,
            };
            // Nothing behind a failure is read: the next call ends.
            state.rows = None;
            return Err(wrong);
        }
        if into.is_empty() {
            state.rows = None;
            return Ok(None);
        }
        let chunk = state.next_chunk;
        state.next_chunk += 1;
        state.next_row += into.len() as u64;
        Ok(Some(chunk))
    }
}

impl RowSource for IterSource<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn columns(&self) -> &Columns {
        &self.columns
    }

    fn reader(&self) -> Result<Box<dyn ChunkReader + '_>> {
        Ok(Box::new(IterReader { source: self, rows: Vec::with_capacity(CHUNK_ROWS) }))
    }

    fn rewind(&self) -> Result<bool> {
        let Some(rows) = (self.restart)()? else { return Ok(false) };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::new(rows);
        Ok(true)
    }
}

/// One thread's view.
struct IterReader<'s, 'a> {
    source: &'s IterSource<'a>,
    rows: Vec<OwnedRow>,
}

impl ChunkReader for IterReader<'_, '_> {
    fn read_chunk(&mut self, each: &mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<Option<u64>> {
        let Some(chunk) = self.source.take(&mut self.rows)? else { return Ok(None) };
        let mut values = Vec::with_capacity(self.source.columns.names().len());
        for row in &self.rows {
            values.clear();
            values.extend(row.iter().map(OwnedValue::as_value));
            each(&Row::new(&values))?;
        }
        Ok(Some(chunk))
    }
}
