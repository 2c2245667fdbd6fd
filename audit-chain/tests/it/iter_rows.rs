//! Rows from an iterator: the same report as from a file, errors that end the run, constant order.

use std::sync::atomic::{AtomicUsize, Ordering};

use audit_chain::error::{Error, ErrorKind, Result};
use audit_chain::formats;
use audit_chain::iter_rows::{CHUNK_ROWS, IterSource, OwnedRow, OwnedValue};
use audit_chain::json_rows::NdjsonSource;
use audit_chain::keys::KeyRing;
use audit_chain::report::{ChainReport, Verdict};
use audit_chain::source::RowSource;
use audit_chain::verify::{VerifyOptions, verify};
use serde_json::{Map, Value, json};

const VALID: &str = include_str!("../vectors/caracal/valid.ndjson");
const KEY: &str = "a1a1a1a100112233445566778899aabbccddeeff0123456789abcdef01234567";

fn check(source: &dyn RowSource, threads: usize) -> Result<ChainReport> {
    let mut ring = KeyRing::new();
    ring.add_secret("AUDIT_HMAC_KEY", KEY.as_bytes().to_vec());
    let options = VerifyOptions { threads, ..Default::default() };
    verify(source, formats::by_name("caracal")?.as_ref(), &ring, &options)
}

fn columns_and_rows(text: &str) -> (Vec<String>, Vec<OwnedRow>) {
    let rows: Vec<Map<String, Value>> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let columns: Vec<String> = rows[0].keys().cloned().collect();
    let owned = |value: &Value| match value {
        Value::Null => OwnedValue::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| OwnedValue::Number(number.to_string()), Into::into)
        }
        Value::String(text) => text.as_str().into(),
        other => OwnedValue::Json(other.to_string()),
    };
    let rows = rows.iter().map(|row| columns.iter().map(|name| owned(&row[name])).collect()).collect();
    (columns, rows)
}

#[test]
fn an_iterator_gives_the_report_that_the_file_gives() {
    let open = || Ok(Some(Box::new(std::io::Cursor::new(VALID.as_bytes())) as _));
    let file = check(&NdjsonSource::new("rows", open).unwrap(), 2).unwrap();
    assert_eq!(file.verdict, Verdict::Intact);
    let (columns, rows) = columns_and_rows(VALID);
    for threads in [1, 2, 5] {
        let once = IterSource::once("rows", columns.clone(), rows.clone().into_iter().map(Ok));
        let report = check(&once, threads).unwrap();
        assert_eq!(json!(report), json!(file), "{threads} threads");
    }
    let again = IterSource::again("rows", columns, || Ok(rows.clone().into_iter().map(Ok))).unwrap();
    assert_eq!(json!(check(&again, 2).unwrap()), json!(file));
    assert!(again.rewind().unwrap());
    assert_eq!(json!(check(&again, 2).unwrap()), json!(file), "read a second time");
}

#[test]
fn an_edited_row_of_an_iterator_is_found() {
    let (columns, mut rows) = columns_and_rows(VALID);
    let decision = columns.iter().position(|name| name == "decision").unwrap();
    rows[7][decision] = "forged".into();
    let report = check(&IterSource::once("rows", columns, rows.into_iter().map(Ok)), 2).unwrap();
    assert_eq!(report.verdict, Verdict::Findings);
    assert_eq!(report.findings.len(), 1);
}

#[test]
fn an_iterator_that_fails_is_an_error_and_not_a_shorter_chain() {
    let (columns, rows) = columns_and_rows(VALID);
    let cut = rows.len() / 2;
    let broken = || Error::Source {
        input: "api.example/audit".into(),
        kind: ErrorKind::Unavailable,
        source: "page 3: connection reset".into(),
    };
    let items = rows.into_iter().take(cut).map(Ok).chain(std::iter::once_with(|| Err(broken())));
    let error = check(&IterSource::once("rows", columns, items), 3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("api.example/audit"), "{error}");
}

#[test]
fn a_row_of_another_width_is_named() {
    let (columns, mut rows) = columns_and_rows(VALID);
    rows[4].pop();
    let width = columns.len();
    let error = check(&IterSource::once("cursor", columns, rows.into_iter().map(Ok)), 2).unwrap_err();
    assert_eq!(error.to_string(), format!("cursor: row 5: expected {width} values, found {}", width - 1));
}

#[test]
fn an_iterator_is_asked_for_no_more_than_a_chunk_a_thread_ahead() {
    // A reader that stops after one row: what was taken from the iterator is one chunk.
    let asked = AtomicUsize::new(0);
    let rows = std::iter::repeat_with(|| {
        asked.fetch_add(1, Ordering::Relaxed);
        Ok(vec![OwnedValue::Int(1)])
    });
    let source = IterSource::once("endless", ["seq"], rows);
    let mut reader = source.reader().unwrap();
    let mut seen = 0;
    assert_eq!(
        reader
            .read_chunk(&mut |_| {
                seen += 1;
                Ok(())
            })
            .unwrap(),
        Some(0)
    );
    assert_eq!(
        reader
            .read_chunk(&mut |_| {
                seen += 1;
                Ok(())
            })
            .unwrap(),
        Some(1)
    );
    drop(reader);
    assert_eq!(seen, 2 * CHUNK_ROWS);
    drop(source);
    assert_eq!(asked.into_inner(), 2 * CHUNK_ROWS);
}
