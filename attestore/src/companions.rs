//! Small tables beside a chain that come in files of their own: z4j's signed state row, Caracal's markers.
//!
//! A database has them beside the chain; a file of rows does not. They are read from files that the caller names, or from
//! `state.json` in the folder of the rows. What a file may be:
//!
//! ```text
//! {"<table>": [row, …], …}     several tables (state.json)
//! [row, …]  or  row per line   one table, whose name is given, or is the only one that the format reads
//! ```

use std::path::{Path, PathBuf};

use audit_chain::format::{ChainFormat, Companions};
use backup_core::error::{Error, ErrorKind, Result};
use serde_json::{Map, Value};

use crate::chain::read_document;
use crate::input::Input;

/// The name of the file that is looked for beside the rows.
pub const BESIDE: &str = "state.json";

/// A file that holds small tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompanionFile {
    /// The table that it holds; `None` where the file says so itself.
    pub table: Option<String>,
    /// The file.
    pub path: PathBuf,
}

impl CompanionFile {
    /// Reads `TABLE=FILE`, or a FILE alone.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.split_once('=') {
            Some((table, path)) if !table.is_empty() && !table.contains('/') && !Path::new(text).exists() => {
                Self { table: Some(table.to_owned()), path: PathBuf::from(path) }
            }
            _ => Self { table: None, path: PathBuf::from(text) },
        }
    }
}

/// Adds the tables of the files to those that the input has; a file that is named goes before them.
///
/// # Errors
/// When a file cannot be read, is no table, or is of a table that the format does not read.
pub(crate) fn add(
    companions: &mut Companions,
    input: &Input,
    format: &dyn ChainFormat,
    files: &[CompanionFile],
) -> Result<()> {
    for file in files {
        for (table, rows) in read(file, format)? {
            companions.insert(table, rows);
        }
    }
    if let (true, Input::Ndjson(path) | Input::Json(path) | Input::Csv(path)) = (files.is_empty(), input) {
        for (table, rows) in beside(path, format)? {
            companions.entry(table).or_insert(rows);
        }
    }
    Ok(())
}

/// Reads the tables of a `state.json` beside a file of rows; a file of that name that is something else is not for us.
fn beside(rows: &Path, format: &dyn ChainFormat) -> Result<Companions> {
    let path = rows.with_file_name(BESIDE);
    if format.companions().is_empty() || rows.file_name() == path.file_name() || !path.is_file() {
        return Ok(Companions::new());
    }
    let Ok(Value::Object(tables)) = serde_json::from_slice(&read_document(&path)?) else {
        return Ok(Companions::new());
    };
    let known = tables.keys().any(|table| format.companions().contains(&table.as_str()));
    if known { read(&CompanionFile { table: None, path }, format) } else { Ok(Companions::new()) }
}

/// Reads the tables of one file.
fn read(file: &CompanionFile, format: &dyn ChainFormat) -> Result<Companions> {
    let shown = file.path.display();
    let known = format.companions();
    let reads = || {
        if known.is_empty() {
            format!("the format {} reads no tables besides the rows", format.name())
        } else {
            format!("the format {} reads {}", format.name(), known.join(", "))
        }
    };
    let wrong = |what: &str| {
        Error::new(ErrorKind::Malformed, format!("{shown}: {what}"))
            .with_hint("give {\"TABLE\": [row, …]}, or TABLE=FILE with an array of rows or one row a line")
    };
    let unknown =
        |table: &str| Error::new(ErrorKind::InvalidInput, format!("{shown}: {}, not {table:?}", reads()));
    if let Some(table) = file.table.as_deref().filter(|table| !known.contains(table)) {
        return Err(unknown(table));
    }
    if known.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, format!("{shown}: {}", reads())));
    }
    let bytes = read_document(&file.path)?;
    let values: Vec<Value> = serde_json::Deserializer::from_slice(&bytes)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(&format!("line {}: not JSON: {error}", error.line())))?;
    let rows = |values: Vec<Value>| -> Result<Vec<Map<String, Value>>> {
        values
            .into_iter()
            .map(|value| match value {
                Value::Object(row) => Ok(row),
                _ => Err(wrong("a row is no JSON object")),
            })
            .collect()
    };
    if file.table.is_none()
        && let [Value::Object(tables)] = values.as_slice()
        && tables.values().all(Value::is_array)
    {
        let mut companions = Companions::new();
        for (table, values) in tables {
            if known.contains(&table.as_str()) {
                let values = values.as_array().cloned().unwrap_or_default();
                companions.insert(table.clone(), rows(values)?);
            }
        }
        return match (companions.is_empty(), tables.keys().next()) {
            (true, Some(table)) => Err(unknown(table)),
            _ => Ok(companions),
        };
    }
    let table = match (&file.table, known) {
        (Some(table), _) => table.clone(),
        (None, [only]) => (*only).to_owned(),
        (None, _) => {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{shown}: whose rows these are is not said; {}", reads()),
            )
            .with_hint("give --companion TABLE=FILE"));
        }
    };
    let values = match <[Value; 1]>::try_from(values) {
        Ok([Value::Array(values)]) => values,
        Ok([value]) => vec![value],
        Err(values) => values,
    };
    Ok(Companions::from([(table, rows(values)?)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn z4j() -> std::sync::Arc<dyn ChainFormat> {
        audit_chain::formats::by_name("z4j").unwrap()
    }

    #[test]
    fn a_file_holds_one_table_or_several() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.json");
        let given =
            |table: Option<&str>| CompanionFile { table: table.map(str::to_owned), path: path.clone() };
        for text in ["{\"audit_chain_state\": [{\"a\": 1}], \"other\": []}", "[{\"a\": 1}]", "{\"a\": 1}\n"] {
            std::fs::write(&path, text).unwrap();
            let table = (!text.contains("other")).then_some("audit_chain_state");
            let read = read(&given(table), z4j().as_ref()).unwrap();
            assert_eq!(read["audit_chain_state"][0]["a"], 1, "{text}");
            assert_eq!(read.len(), 1);
        }
        for (text, table, kind) in [
            ("[1]", Some("audit_chain_state"), ErrorKind::Malformed),
            ("{", Some("audit_chain_state"), ErrorKind::Malformed),
            ("[]", Some("nothing"), ErrorKind::InvalidInput),
            ("[{\"a\": 1}]", None, ErrorKind::InvalidInput),
            ("{\"nothing\": []}", None, ErrorKind::InvalidInput),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&given(table), z4j().as_ref()).unwrap_err().kind(), kind, "{text}");
        }
        let aegisagent = audit_chain::formats::by_name("aegisagent").unwrap();
        assert_eq!(read(&given(None), aegisagent.as_ref()).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_name_before_an_equals_sign_is_a_table() {
        let table = |text: &str| CompanionFile::parse(text).table;
        assert_eq!(table("z4j_meta=a=b.json").as_deref(), Some("z4j_meta"));
        assert_eq!(table("state.json"), None);
        assert_eq!(table("/a=b/state.json"), None);
    }
}
