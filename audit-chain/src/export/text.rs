//! Rows as lines of NDJSON or records of CSV, every value in its exact stored text.
//!
//! NDJSON is the canonical form of whole rows ([`crate::canonical`]), one object a line. CSV is RFC 4180 with LF at line
//! ends: NULL is an empty field, empty text is `""`; other text stands in quotes only where it holds a comma, a quote, CR or LF.
//! Numbers, truth values, JSON and bytes are written as in NDJSON. A column of CSV has one type: either all its values that are
//! not NULL are text, or none is ([`RowText::literals`]); what CSV cannot hold is refused, so that the rows read back are
//! the rows that were stored.

use crate::canonical::RowForm;
use crate::error::{Error, Result};
use crate::value::{Columns, Row, Value};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowShape {
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated values with a header.
    Csv,
}

impl RowShape {
    /// Returns the shape's name, which is also the ending of its files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }
}

/// What a column of CSV holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Nothing,
    Text,
    Literal,
}

/// Writes rows of one header.
#[derive(Debug)]
pub struct RowText {
    shape: RowShape,
    name: String,
    columns: Vec<String>,
    form: RowForm,
    held: Vec<Held>,
    line: Vec<u8>,
    rows: u64,
}

impl RowText {
    /// Prepares to write rows of a source; `name` is the source's, for messages.
    #[must_use]
    pub fn new(shape: RowShape, name: String, columns: &Columns) -> Self {
        Self {
            shape,
            name,
            columns: columns.names().to_vec(),
            form: RowForm::new(columns),
            held: vec![Held::Nothing; columns.names().len()],
            line: Vec::new(),
            rows: 0,
        }
    }

    /// Takes up a CSV file whose columns are known to hold text or, those of `literals`, other values.
    pub fn resume(&mut self, literals: &[String], texts: &[String]) {
        for (held, column) in self.held.iter_mut().zip(&self.columns) {
            if literals.contains(column) {
                *held = Held::Literal;
            } else if texts.contains(column) {
                *held = Held::Text;
            }
        }
    }

    /// Returns what stands before the rows: the header of CSV, nothing for NDJSON.
    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        let mut header = Vec::new();
        if self.shape == RowShape::Csv && !self.columns.is_empty() {
            for (at, name) in self.columns.iter().enumerate() {
                if at > 0 {
                    header.push(b',');
                }
                push_field(&mut header, name);
            }
            header.push(b'\n');
        }
        header
    }

    /// Writes a row, line end included.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the shape cannot hold it: a column of CSV with text and other values, a member that is no
    /// column; a line end inside a JSON value of NDJSON.
    pub fn row(&mut self, row: &Row<'_>) -> Result<&[u8]> {
        self.rows += 1;
        self.line.clear();
        let form = self.form.line(row);
        if self.shape == RowShape::Ndjson {
            if memchr::memchr(b'\n', form).is_some() {
                return Err(self.refuse("a JSON value holds a line end".into()));
            }
            self.line.extend_from_slice(form);
            self.line.push(b'\n');
            return Ok(&self.line);
        }
        if let Some((name, _)) = row.extra.first() {
            return Err(self.refuse(format!("member {name:?} is no column of the first row")));
        }
        for at in 0..self.columns.len() {
            if at > 0 {
                self.line.push(b',');
            }
            let held = match row.at(Some(at)) {
                // An empty line is no row.
                Value::Null if self.columns.len() == 1 => {
                    return Err(self.refuse("a row of nothing but NULL".into()));
                }
                Value::Null => continue,
                Value::Absent => {
                    return Err(self.refuse(format!("there is no member {:?}", self.columns[at])));
                }
                Value::Text(text) => {
                    push_field(&mut self.line, text);
                    Held::Text
                }
                _ => {
                    let literal = std::str::from_utf8(self.form.value(Some(at))).unwrap_or_default();
                    push_field(&mut self.line, literal);
                    Held::Literal
                }
            };
            match self.held[at] {
                Held::Nothing => self.held[at] = held,
                known if known != held => {
                    let column = &self.columns[at];
                    return Err(self.refuse(format!("column {column:?} holds text and other values")));
                }
                _ => {}
            }
        }
        self.line.push(b'\n');
        Ok(&self.line)
    }

    fn refuse(&self, why: String) -> Error {
        let shape = self.shape.name().to_uppercase();
        let hint = if self.shape == RowShape::Csv { "; NDJSON can hold it" } else { "" };
        Error::InvalidInput(format!(
            "{}: row {}: {why}, which {shape} cannot tell{hint}",
            self.name, self.rows
        ))
    }

    /// Returns the RFC 6962 leaf of the row that was written last.
    pub fn leaf(&mut self, row: &Row<'_>) -> [u8; 32] {
        self.form.leaf(row)
    }

    /// Returns the columns of CSV that hold other values than text.
    #[must_use]
    pub fn literals(&self) -> Vec<String> {
        self.columns_that(Held::Literal)
    }

    /// Returns the columns of CSV that hold text.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.columns_that(Held::Text)
    }

    fn columns_that(&self, wanted: Held) -> Vec<String> {
        let both = self.columns.iter().zip(&self.held);
        both.filter(|(_, held)| self.shape == RowShape::Csv && **held == wanted)
            .map(|(column, _)| column.clone())
            .collect()
    }

    /// Returns how many rows were written.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }
}

/// Appends a field of CSV that is not NULL.
fn push_field(out: &mut Vec<u8>, text: &str) {
    let plain = !text.is_empty() && !text.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n'));
    if plain {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr(b'"', rest) {
        let (head, tail) = rest.split_at(at + 1);
        out.extend_from_slice(head);
        out.push(b'"');
        rest = tail;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csv_rows::{CsvOptions, CsvSource};
    use crate::source::RowSource as _;

    fn lines(shape: RowShape, columns: &[&str], rows: &[&[Value<'_>]]) -> Result<(String, Vec<String>)> {
        let mut text = RowText::new(shape, "t".into(), &Columns::new(columns.iter().copied()));
        let mut out = String::from_utf8(text.header()).unwrap();
        for row in rows {
            out.push_str(std::str::from_utf8(text.row(&Row::new(row))?).unwrap());
        }
        Ok((out, text.literals()))
    }

    #[test]
    fn csv_reads_back_as_the_very_rows_it_was_made_of() {
        let columns = ["a", "b,\"c\"", "n"];
        let rows: [&[Value<'_>]; 5] = [
            &[Value::Text("x"), Value::Text(""), Value::Int(-7)],
            &[Value::Null, Value::Text("say \"hi\",\r\nyou\n"), Value::Null],
            &[Value::Text(" é\t "), Value::Null, Value::Real(0.1)],
            &[Value::Text("1"), Value::Text("null"), Value::Json("{\"b\": 1, \"a\":2}")],
            &[Value::Text("'"), Value::Text("\u{feff}"), Value::Bool(true)],
        ];
        let (csv, literals) = lines(RowShape::Csv, &columns, &rows).unwrap();
        assert_eq!(literals, ["n"]);
        assert!(csv.starts_with("a,\"b,\"\"c\"\"\",n\nx,\"\",-7\n,"), "{csv}");
        let options = CsvOptions { literals, ..CsvOptions::default() };
        let source = CsvSource::once("t", options, csv.as_bytes()).unwrap();
        let mut form = RowForm::new(source.columns());
        let mut found = Vec::new();
        let mut reader = source.reader().unwrap();
        while reader
            .read_chunk(&mut |row| {
                found.push(String::from_utf8(form.line(row).to_vec()).unwrap());
                Ok(())
            })
            .unwrap()
            .is_some()
        {}
        let expected = lines(RowShape::Ndjson, &columns, &rows).unwrap().0;
        assert_eq!(found, expected.lines().collect::<Vec<_>>());
    }

    #[test]
    fn csv_refuses_what_it_cannot_tell_apart_and_names_the_way_out() {
        let pairs: [[&[Value<'_>]; 2]; 3] = [
            [&[Value::Text("5")], &[Value::Int(5)]],
            [&[Value::Text("a")], &[Value::Absent]],
            [&[Value::Text("a")], &[Value::Null]],
        ];
        for rows in &pairs {
            let error = lines(RowShape::Csv, &["a"], rows).unwrap_err().to_string();
            assert!(error.contains("row 2") && error.contains("NDJSON"), "{error}");
        }
        assert!(lines(RowShape::Csv, &["a"], &[&[Value::Int(5)], &[Value::Bytes(b"\xff")]]).is_ok());
    }

    #[test]
    fn ndjson_never_breaks_a_line() {
        assert!(lines(RowShape::Ndjson, &["a"], &[&[Value::Json("{\n}")]]).is_err());
        let (text, literals) =
            lines(RowShape::Ndjson, &["b", "a"], &[&[Value::Text("\n"), Value::Null]]).unwrap();
        assert_eq!((text.as_str(), literals.len()), ("{\"a\":null,\"b\":\"\\n\"}\n", 0));
    }
}
