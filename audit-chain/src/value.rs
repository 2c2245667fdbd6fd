//! Rows as they come from a table or a file: named columns and borrowed values.
//!
//! A source binds its [`Columns`] once; each row is then a slice of [`Value`]s in that order, so that
//! the hot path compares no names and copies no text.

use std::collections::HashMap;

/// One stored value, exactly as it was stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A member that this JSON line does not have; a table never yields it.
    Absent,
    /// SQL NULL or JSON `null`.
    Null,
    /// A truth value (JSON, PostgreSQL).
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// A number kept as it was spelt: JSON fractions, exponents and integers past 64 bits.
    Number(&'a str),
    /// A binary64 number of a database.
    Real(f64),
    /// Text (decoded, valid UTF-8).
    Text(&'a str),
    /// Bytes that are not text.
    Bytes(&'a [u8]),
    /// A JSON object or array, as the exact bytes that were found.
    Json(&'a str),
}

impl<'a> Value<'a> {
    /// Returns the text, if it is text.
    #[must_use]
    pub const fn as_text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the integer, if it is one.
    #[must_use]
    pub const fn as_int(self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(value),
            _ => None,
        }
    }

    /// Reads an integer that is stored as one, or as its decimal digits in text (CSV).
    #[must_use]
    pub fn to_int(self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(value),
            Self::Text(text) if text.starts_with('+') => None,
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Reports whether there is no value: NULL, or no such member.
    #[must_use]
    pub const fn is_null(self) -> bool {
        matches!(self, Self::Null | Self::Absent)
    }

    /// Returns the name of the value's type, for messages.
    #[must_use]
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Absent => "nothing",
            Self::Null => "null",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "an integer",
            Self::Number(_) | Self::Real(_) => "a number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Json(_) => "JSON",
        }
    }
}

/// The column names of a source, in the order of its rows' values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    names: Vec<String>,
    index: HashMap<String, usize>,
}

impl Columns {
    /// Makes the header of a source. Of two equal names the first wins.
    pub fn new<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let mut index = HashMap::with_capacity(names.len());
        for (at, name) in names.iter().enumerate() {
            index.entry(name.clone()).or_insert(at);
        }
        Self { names, index }
    }

    /// Returns the names in order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns where a column stands.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }
}

/// One row of a source: its values in the order of the source's [`Columns`], and what else the line held.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The values, one per column.
    pub values: &'a [Value<'a>],
    /// Members of a JSON line that are no column of the header (`name`, value), in the order found.
    pub extra: &'a [(&'a str, Value<'a>)],
}

impl<'a> Row<'a> {
    /// Makes a row of a table.
    #[must_use]
    pub const fn new(values: &'a [Value<'a>]) -> Self {
        Self { values, extra: &[] }
    }

    /// Returns the value at a column's place; [`Value::Absent`] when there is no such column.
    #[must_use]
    pub fn at(&self, column: Option<usize>) -> Value<'a> {
        column.and_then(|at| self.values.get(at)).copied().unwrap_or(Value::Absent)
    }
}
