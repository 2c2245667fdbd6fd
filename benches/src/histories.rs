//! Long honest histories of other systems' chains as files, by the writers that the tests of audit-chain use.
//!
//! Rows are shaped as the systems' own: those of the test vectors, or by the rules of the formats. Each file is written row by row.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use audit_chain::canonical::RowForm;
use audit_chain::source::RowSource as _;
use backup_core::context::Context;
use backup_sqlite::table::{ChainTable, TableOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::Result;

#[path = "../../audit-chain/tests/it/agledger/writer.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::panic)]
mod agledger;
#[path = "../../audit-chain/tests/it/caracal_writer.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod caracal;
#[path = "../../audit-chain/tests/it/z4j_writer.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod z4j;

/// The secrets of the histories, as names and values of the formats.
#[must_use]
pub fn secrets() -> [(&'static str, String); 2] {
    [
        ("Z4J_AUDIT_CHAIN_SECRET", z4j::Log::new('C').secrets.concat()),
        ("AUDIT_HMAC_KEY", caracal::KEY.to_owned()),
    ]
}

/// Writes a log of z4j's current era, as its SQLite table holds it.
///
/// # Errors
/// When the file cannot be written.
pub fn z4j(path: &Path, rows: u64) -> Result<()> {
    let mut out = BufWriter::new(File::create_new(path)?);
    let mut log = z4j::Log::new('C');
    for _ in 0..rows {
        log.append(40_000);
        for row in log.rows.drain(..).collect::<Vec<_>>() {
            serde_json::to_writer(&mut out, &log.spell(&row, false, z4j::Style::Sqlite))?;
            out.write_all(b"\n")?;
        }
    }
    Ok(out.flush()?)
}

/// Writes Caracal's audit events of two zones, as `COPY … TO` of its table gives them.
///
/// # Errors
/// When the file cannot be written.
pub fn caracal(path: &Path, rows: u64) -> Result<()> {
    let mut out = BufWriter::new(File::create_new(path)?);
    let first = rows / 2;
    for row in caracal::history(10, first).chain(caracal::history(11, rows - first)) {
        serde_json::to_writer(&mut out, &row)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Writes the receipts of a database of the example service.
///
/// # Errors
/// When it cannot be read or the file cannot be written.
pub fn aegisagent(database: &Path, path: &Path) -> Result<()> {
    let mut out = BufWriter::new(File::create_new(path)?);
    let table =
        ChainTable::open_copy(database, "action_receipts", &TableOptions::default(), &Context::new())?;
    let mut form = RowForm::new(table.columns());
    let mut reader = table.reader()?;
    let mut failed = None;
    while reader
        .read_chunk(&mut |row| {
            if let Err(error) = out.write_all(form.line(row)).and_then(|()| out.write_all(b"\n")) {
                failed.get_or_insert(error);
            }
            Ok(())
        })?
        .is_some()
    {}
    failed.map_or(Ok(()), Err)?;
    Ok(out.flush()?)
}

/// A dump of AGLedger and the plain cost of its signatures.
#[derive(Debug)]
pub struct Signed {
    /// The digest of the key that vouches for all others (`sha256:…`).
    pub anchor: String,
    /// The key that signed.
    pub key: ed25519_dalek::VerifyingKey,
    /// As many messages as there are rows, as long as what the rows sign, each with its signature.
    pub signatures: Vec<(Vec<u8>, [u8; 64])>,
}

/// Writes a dump of AGLedger's API 2.0 whose records have twenty signed entries each.
///
/// # Errors
/// When the files cannot be written.
pub fn agledger(folder: &Path, rows: u64) -> Result<Signed> {
    use ed25519_dalek::Signer as _;
    let key = agledger::Key::ed25519(7);
    let agledger::Key::Ed25519(signing) = &key else { return Err("no Ed25519 key".into()) };
    let mut dump = agledger::Dump::new(true);
    dump.genesis(&key);
    dump.write_as_is(folder, &[]);
    let mut out = BufWriter::new(File::create(folder.join("audit_vault.ndjson"))?);
    let mut signatures = Vec::new();
    for number in 0..rows {
        let record = agledger::uuid(1, number / 20);
        let payload = json!({
            "to": "IN_PROGRESS", "from": "PROPOSED", "summary": format!("delivery {number} accepted after review"),
            "amount": number as f64 / 4.0, "currency": "EUR", "evidence": {"sha256": "9f".repeat(32), "bytes": number * 13},
            "tags": ["invoice", "q4", "größe"], "oidc": number % 2 == 0,
        });
        if number % 20 == 0 {
            dump.vault.clear();
        }
        dump.entry(&record, "STATE_CHANGED", &payload, Some(&key));
        let Some(row) = dump.vault.last() else { continue };
        serde_json::to_writer(&mut out, row)?;
        out.write_all(b"\n")?;
        let envelope = STANDARD.decode(row.get("cose_sign1").and_then(Value::as_str).unwrap_or_default())?;
        let message = envelope.get(..envelope.len() - 64).unwrap_or_default().to_vec();
        let signature = signing.sign(&message).to_bytes();
        signatures.push((message, signature));
    }
    out.flush()?;
    Ok(Signed { anchor: key.anchor(), key: signing.verifying_key(), signatures })
}
