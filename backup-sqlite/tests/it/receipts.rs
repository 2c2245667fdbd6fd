//! Receipts by the rule of AegisAgent's chain (formats/aegisagent.md A1), written here so that no vector is needed.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};
use sha2::{Digest as _, Sha256};

/// Makes a table with receipts of two tenants.
pub(crate) fn receipts(path: &Path, count: usize) {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE action_receipts(id TEXT PRIMARY KEY, tenant_id TEXT, decision_id TEXT, ts TEXT, agent_id TEXT,
               user_id TEXT, run_id TEXT, trace_id TEXT, tool TEXT, action TEXT, resource TEXT, source_trust TEXT,
               decision TEXT, approver TEXT, action_hash TEXT, prev_receipt_hash TEXT, receipt_hash TEXT,
               canon_version TEXT DEFAULT '', signature TEXT, signer_public_key TEXT, created_at TEXT, signer_key_id TEXT)",
        )
        .unwrap();
    append_with(&connection, count, || Ok(())).unwrap();
}

/// Appends receipts, in turn to one tenant and the other, and does more, in one transaction.
pub(crate) fn append_with(
    connection: &Connection,
    count: usize,
    more: impl FnOnce() -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let done = append_in_transaction(connection, count)
        .and_then(|()| more())
        .and_then(|()| connection.execute_batch("COMMIT"));
    done.inspect_err(|_| {
        let _ = connection.execute_batch("ROLLBACK");
    })
}

fn append_in_transaction(connection: &Connection, count: usize) -> rusqlite::Result<()> {
    let sql = "SELECT coalesce(max(rowid), 0) FROM action_receipts";
    let first: u32 = connection.query_row(sql, [], |row| row.get(0))?;
    let first = usize::try_from(first).unwrap();
    let mut heads = [String::new(), String::new()];
    for (tenant, head) in heads.iter_mut().enumerate() {
        let sql = "SELECT receipt_hash FROM action_receipts WHERE tenant_id = ?1 ORDER BY rowid DESC LIMIT 1";
        let found = connection.query_row(sql, [format!("tenant-{tenant}")], |row| row.get(0)).optional()?;
        *head = found.unwrap_or_default();
    }
    let mut insert = connection.prepare(
        "INSERT INTO action_receipts(id, tenant_id, decision_id, ts, agent_id, tool, action, resource, source_trust,
           decision, prev_receipt_hash, receipt_hash, canon_version, created_at)
         VALUES (?1, ?2, 'd', ?3, 'agent-1', 'fs', 'write', ?4, 'trusted', 'allow', ?5, ?6, 'aegis-jcs-1', ?3)",
    )?;
    for number in first..first + count {
        let tenant = number % 2;
        let id = format!("{number:08x}-0000-4000-8000-000000000000");
        let ts = format!("2026-06-02T12:{:02}:{:02}+00:00", number / 60 % 60, number % 60);
        let resource = format!("größe \"{number}\"\n\u{1}");
        let fields = serde_json::json!({
            "action": "write", "action_hash": null, "agent_id": "agent-1", "approver": null, "decision": "allow",
            "event_id": id, "prev_receipt_hash": heads[tenant], "resource": resource, "run_id": null,
            "source_trust": "trusted", "tool": "fs", "trace_id": null, "ts": ts, "user_id": null,
        });
        let hash = hex::encode(Sha256::digest(fields.to_string()));
        insert.execute((&id, format!("tenant-{tenant}"), &ts, &resource, &heads[tenant], &hash))?;
        heads[tenant] = hash;
    }
    Ok(())
}
