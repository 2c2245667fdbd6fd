//! `vault-public-keys.csv`: the key registry beside a backup, written, and compared with a registry after a restore.
//!
//! ```text
//! key_id,public_key,algorithm,status,activated_at,retired_at      the header; newest activation first
//! 15042c89eb3bcf9a,MCowBQ…,Ed25519,active,2026-05-26 01:24:53+00,
//! ```
//!
//! Times in PostgreSQL's text form (UTC, a fraction of up to six digits without trailing zeros), empty where there is none.
//! Compared by value: spellings of one instant are equal, and a time that one side has only to the
//! millisecond (a dump) is compared to the millisecond. Public halves only.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::items::Places;
use super::times::{millis, registry_time};
use crate::error::{Error, Result};
use crate::source::RowSource;
use crate::value::Value;

/// The columns of the file.
pub const REGISTRY_COLUMNS: [&str; 6] =
    ["key_id", "public_key", "algorithm", "status", "activated_at", "retired_at"];

/// One way in which two registries differ.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RegistryDifference {
    /// The key.
    pub key_id: String,
    /// The column; `None` when the whole key is on one side only.
    pub column: Option<&'static str>,
    /// What the expected registry has; `None` for nothing.
    pub expected: Option<String>,
    /// What the other has; `None` for nothing.
    pub found: Option<String>,
}

/// A registry's row as text; `None` for NULL and for empty.
type Fields = [Option<String>; REGISTRY_COLUMNS.len()];

/// Reads a registry from a table, a dump's file or the CSV.
fn read(source: &dyn RowSource) -> Result<Vec<Fields>> {
    let malformed = |row: usize, what: String| Error::Malformed {
        input: source.name(),
        place: format!("row {row}"),
        what,
    };
    let places = Places::new(source.columns(), REGISTRY_COLUMNS);
    let mut rows: Vec<Fields> = Vec::new();
    let mut reader = source.reader()?;
    while reader
        .read_chunk(&mut |row| {
            let mut fields = Fields::default();
            for ((field, value), column) in fields.iter_mut().zip(places.of(row)).zip(REGISTRY_COLUMNS) {
                *field = match value {
                    Value::Absent | Value::Null | Value::Text("") => None,
                    Value::Text(text) => Some(text.to_owned()),
                    other => {
                        let what = format!("{column} is {}, not text", other.type_name());
                        return Err(malformed(rows.len() + 1, what));
                    }
                };
            }
            let [key_id, .., activated, retired] = &fields;
            if key_id.is_none() {
                return Err(malformed(rows.len() + 1, "there is no key_id".into()));
            }
            for time in [activated, retired].into_iter().flatten() {
                if registry_time(time).is_none() {
                    return Err(malformed(rows.len() + 1, format!("{time:?} is no time")));
                }
            }
            rows.push(fields);
            Ok(())
        })?
        .is_some()
    {}
    Ok(rows)
}

/// Writes the registry as the product's backup does.
///
/// # Errors
/// What the source says; [`Error::Malformed`] for a row without key id or with a time that cannot be read.
pub fn registry_csv(source: &dyn RowSource) -> Result<String> {
    let mut rows = read(source)?;
    let activated = |row: &Fields| row[4].as_deref().and_then(registry_time);
    rows.sort_by(|left, right| activated(right).cmp(&activated(left)).then(left[0].cmp(&right[0])));
    let mut text = REGISTRY_COLUMNS.join(",");
    text.push('\n');
    for row in rows {
        let fields = row.iter().enumerate().map(|(at, field)| match field {
            Some(time) if at >= 4 => registry_time(time).map_or_else(String::new, postgres),
            Some(field) => quoted(field),
            None => String::new(),
        });
        text.push_str(&fields.collect::<Vec<_>>().join(","));
        text.push('\n');
    }
    Ok(text)
}

/// Quotes a field where RFC 4180 asks for it.
fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// Spells microseconds since 1970 as PostgreSQL does in UTC.
fn postgres(micros: i64) -> String {
    let Ok(time) = Timestamp::from_microsecond(micros) else { return String::new() };
    let text = time.to_string();
    format!("{}+00", text.trim_end_matches('Z').replace('T', " "))
}

/// Compares two registries, in any order of rows. An empty list says that they are the same.
///
/// # Errors
/// As [`registry_csv`]; [`Error::Malformed`] when one has a key twice.
pub fn compare_registries(
    expected: &dyn RowSource,
    found: &dyn RowSource,
) -> Result<Vec<RegistryDifference>> {
    let by_id = |source: &dyn RowSource| -> Result<BTreeMap<String, Fields>> {
        let mut keys = BTreeMap::new();
        for fields in read(source)? {
            let id = fields[0].clone().unwrap_or_default();
            if keys.insert(id.clone(), fields).is_some() {
                return Err(Error::Malformed {
                    input: source.name(),
                    place: format!("key {id}"),
                    what: "the key stands there twice".into(),
                });
            }
        }
        Ok(keys)
    };
    let (expected, mut found) = (by_id(expected)?, by_id(found)?);
    let mut differences = Vec::new();
    for (key_id, before) in expected {
        let Some(after) = found.remove(&key_id) else {
            differences.push(RegistryDifference {
                expected: Some(key_id.clone()),
                key_id,
                column: None,
                found: None,
            });
            continue;
        };
        for ((column, before), after) in REGISTRY_COLUMNS.into_iter().zip(before).zip(after) {
            let same = if column.ends_with("_at") { same_time(&before, &after) } else { before == after };
            if !same {
                differences.push(RegistryDifference {
                    key_id: key_id.clone(),
                    column: Some(column),
                    expected: before,
                    found: after,
                });
            }
        }
    }
    differences.extend(found.into_keys().map(|key_id| RegistryDifference {
        found: Some(key_id.clone()),
        key_id,
        column: None,
        expected: None,
    }));
    Ok(differences)
}

/// Compares two times that can be read.
fn same_time(left: &Option<String>, right: &Option<String>) -> bool {
    let (Some(left), Some(right)) = (left, right) else { return left == right };
    match (registry_time(left), registry_time(right)) {
        // A dump cuts to milliseconds, and says so by its `T`.
        (Some(one), Some(other)) if left.contains('T') != right.contains('T') => millis(one) == millis(other),
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csv_rows::{CsvOptions, CsvSource};
    use crate::json_rows::NdjsonSource;

    const DUMP: &str = concat!(
        r#"{"key_id":"aa","public_key":"MCow+/=","algorithm":"Ed25519","status":"retired","activated_at":"2026-05-26T01:24:53.123Z","retired_at":"2026-05-27T00:00:00.000Z","retired_by":null}"#,
        "\n",
        r#"{"key_id":"bb","public_key":"MFkw","algorithm":"ES256","status":"active","activated_at":"2026-05-26T03:24:54.000+02:00","retired_at":null,"retired_by":null}"#,
    );

    fn dump(text: &str) -> NdjsonSource<'_> {
        NdjsonSource::once("dump", text.as_bytes()).unwrap()
    }

    fn csv(text: &str) -> CsvSource<'_> {
        CsvSource::once("csv", CsvOptions::default(), text.as_bytes()).unwrap()
    }

    #[test]
    fn the_registry_is_written_as_the_product_writes_it() {
        let text = registry_csv(&dump(DUMP)).unwrap();
        assert_eq!(
            text,
            "key_id,public_key,algorithm,status,activated_at,retired_at\n\
             bb,MFkw,ES256,active,2026-05-26 01:24:54+00,\n\
             aa,MCow+/=,Ed25519,retired,2026-05-26 01:24:53.123+00,2026-05-27 00:00:00+00\n"
        );
        assert_eq!(compare_registries(&csv(&text), &dump(DUMP)).unwrap(), []);
        assert_eq!(registry_csv(&csv(&text)).unwrap(), text);
    }

    #[test]
    fn microseconds_that_a_dump_cuts_are_no_difference_and_those_of_two_tables_are() {
        let one = registry_csv(&dump(DUMP)).unwrap();
        let finer = one.replace("53.123+00", "53.123456+00");
        assert_eq!(compare_registries(&csv(&finer), &dump(DUMP)).unwrap(), []);
        assert_eq!(compare_registries(&csv(&finer), &csv(&one)).unwrap().len(), 1);
        let elsewhere = one.replace("01:24:53.123+00", "04:24:53.123+03:00");
        assert_eq!(compare_registries(&csv(&elsewhere), &csv(&one)).unwrap(), []);
    }

    #[test]
    fn every_difference_is_named() {
        let text = registry_csv(&dump(DUMP)).unwrap();
        for (column, changed) in [
            ("public_key", text.replace("MFkw", "MFkx")),
            ("algorithm", text.replace("ES256", "Ed25519")),
            ("status", text.replace("active,", "retired,")),
            ("activated_at", text.replace("01:24:54", "01:24:55")),
            ("retired_at", text.replace(",2026-05-27 00:00:00+00", ",")),
        ] {
            let found = compare_registries(&csv(&text), &csv(&changed)).unwrap();
            assert_eq!(found.len(), 1, "{column}");
            assert_eq!(found[0].column, Some(column));
        }
        let without: String =
            text.lines().filter(|line| !line.starts_with("aa")).map(|line| format!("{line}\n")).collect();
        let gone = compare_registries(&csv(&text), &csv(&without)).unwrap();
        assert_eq!((gone[0].column, gone[0].found.as_ref(), gone[0].key_id.as_str()), (None, None, "aa"));
        let more = compare_registries(&csv(&without), &csv(&text)).unwrap();
        assert_eq!((more[0].column, more[0].expected.as_ref()), (None, None));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_row() {
        for (from, to, says) in [
            ("2026-05-26T01:24:53.123Z", "yesterday", "row 1"),
            ("\"aa\"", "null", "row 1"),
            ("\"aa\"", "5", "row 1"),
            ("\"aa\"", "\"bb\"", "twice"),
        ] {
            let text = DUMP.replace(from, to);
            let error = compare_registries(&dump(&text), &dump(DUMP)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
