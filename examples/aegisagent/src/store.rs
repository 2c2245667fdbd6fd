//! The service's database: opened once, appended to in `BEGIN IMMEDIATE`, one chain per tenant.
//!
//! A commit is durable (`synchronous = FULL`) before the caller hears of it. If the process dies inside an
//! append, the transaction never was; the chain has no gap.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;
use rusqlite::{Connection, OptionalExtension as _, Statement, TransactionBehavior, params};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::policy::PolicyChange;
use crate::receipt::{Action, CANON_VERSION, Receipt, ReceiptSigner};

/// The newest schema this program knows (`schema_meta.version`).
pub const SCHEMA_VERSION: i64 = 1;

/// How long a write waits for another writer before it fails.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest accepted receipt, in bytes of its JSON.
pub const MAX_RECEIPT_BYTES: usize = 64 * 1024;

/// Where a tenant's chain stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainHead {
    /// The tenant.
    pub tenant_id: String,
    /// How many receipts.
    pub receipts: u64,
    /// The last receipt's hash, empty where there is none.
    pub head: String,
}

/// The open database.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Mutex<Connection>,
    signer: Option<ReceiptSigner>,
}

impl Store {
    /// Opens the database, making it and its tables where there is none.
    ///
    /// # Errors
    /// [`Error::Newer`] when a newer program made it; [`Error::Sqlite`] when it is not a database.
    pub fn open(path: &Path, signer: Option<ReceiptSigner>) -> Result<Self> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match schema_version(&transaction)? {
            None => create_schema(&transaction)?,
            Some(found) if found > SCHEMA_VERSION => {
                return Err(Error::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION });
            }
            Some(_) => {}
        }
        transaction.commit()?;
        Ok(Self { path: path.to_owned(), connection: Mutex::new(connection), signer })
    }

    /// Returns where the database is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere rolled its transaction back; the connection is whole.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a receipt to its tenant's chain; a tenant seen for the first time begins a new one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty field or an over-long receipt, [`Error::Sqlite`] when it cannot be written.
    pub fn append(&self, action: Action) -> Result<Receipt> {
        check(&action)?;
        let id = new_id()?;
        let now = Timestamp::now();
        let ts = rfc3339(now);
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute(
            "INSERT OR IGNORE INTO tenants (id, label, created_at) VALUES (?1, ?1, ?2)",
            params![action.tenant_id, ts],
        )?;
        let prev = head(&transaction, &action.tenant_id)?.unwrap_or_default();
        let receipt = Receipt::new(id, ts, action, prev, self.signer.as_ref())?;
        let created_at = receipt.ts.clone();
        insert_receipt(&mut transaction.prepare(INSERT_RECEIPT)?, &receipt, &created_at)?;
        transaction.commit()?;
        Ok(receipt)
    }

    /// Returns where a tenant's chain stands.
    ///
    /// # Errors
    /// [`Error::Sqlite`] when it cannot be read.
    pub fn chain_head(&self, tenant_id: &str) -> Result<ChainHead> {
        let mut connection = self.lock();
        // One read transaction, so that count and head are of one instant.
        let transaction = connection.transaction()?;
        let receipts: i64 = transaction.query_row(
            "SELECT count(*) FROM action_receipts WHERE tenant_id = ?1",
            [tenant_id],
            |row| row.get(0),
        )?;
        let head = head(&transaction, tenant_id)?.unwrap_or_default();
        Ok(ChainHead { tenant_id: tenant_id.to_owned(), receipts: receipts.unsigned_abs(), head })
    }

    /// Reads one page, to say whether the service can answer.
    ///
    /// # Errors
    /// [`Error::Sqlite`] when it cannot.
    pub fn ready(&self) -> Result<i64> {
        schema_version(&self.lock())?.ok_or_else(|| Error::Invalid("the database has no schema".into()))
    }
}

/// Refuses what no receipt may hold.
fn check(action: &Action) -> Result<()> {
    for (name, value) in [
        ("tenant_id", &action.tenant_id),
        ("source_trust", &action.source_trust),
        ("decision", &action.decision),
    ] {
        if value.is_empty() {
            return Err(Error::Invalid(format!("{name} is empty")));
        }
    }
    let json = serde_json::to_vec(action).map_err(|error| Error::Invalid(error.to_string()))?;
    if json.len() > MAX_RECEIPT_BYTES {
        return Err(Error::Invalid(format!(
            "a receipt of {} bytes is longer than {MAX_RECEIPT_BYTES} bytes",
            json.len()
        )));
    }
    Ok(())
}

/// Returns a random id (UUID version 4).
fn new_id() -> Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::Invalid(format!("no random bytes: {error}")))?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string())
}

/// Spells an instant as receipts do: RFC 3339, UTC as `+00:00`.
pub(crate) fn rfc3339(instant: Timestamp) -> String {
    instant.display_with_offset(Offset::UTC).to_string()
}

/// Returns the schema's version, or nothing for an empty database.
fn schema_version(connection: &Connection) -> Result<Option<i64>> {
    let has_table: bool = connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'schema_meta'",
        [],
        |row| row.get(0),
    )?;
    if !has_table {
        return Ok(None);
    }
    Ok(connection
        .query_row("SELECT version FROM schema_meta WHERE id = 1", [], |row| row.get(0))
        .optional()?)
}

/// Makes the tables of an empty database.
pub(crate) fn create_schema(connection: &Connection) -> Result<()> {
    connection.execute_batch(include_str!("../schema.sql"))?;
    connection.execute("INSERT INTO schema_meta (id, version) VALUES (1, ?1)", [SCHEMA_VERSION])?;
    Ok(())
}

/// Returns the hash of a tenant's last receipt.
fn head(connection: &Connection, tenant_id: &str) -> Result<Option<String>> {
    Ok(connection
        .prepare("SELECT receipt_hash FROM action_receipts WHERE tenant_id = ?1 ORDER BY rowid DESC LIMIT 1")?
        .query_row([tenant_id], |row| row.get(0))
        .optional()?)
}

pub(crate) const INSERT_RECEIPT: &str = "INSERT INTO action_receipts (id, tenant_id, decision_id, ts, agent_id, \
    user_id, run_id, trace_id, tool, action, resource, source_trust, decision, approver, action_hash, \
    prev_receipt_hash, receipt_hash, canon_version, signature, signer_public_key, signer_key_id, created_at) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Writes a receipt's row.
pub(crate) fn insert_receipt(
    statement: &mut Statement<'_>,
    receipt: &Receipt,
    created_at: &str,
) -> Result<()> {
    let action = &receipt.action;
    let signature = receipt.signature.as_ref();
    statement.execute(params![
        receipt.id,
        action.tenant_id,
        action.decision_id,
        receipt.ts,
        action.agent_id,
        action.user_id,
        action.run_id,
        action.trace_id,
        action.tool,
        action.action,
        action.resource,
        action.source_trust,
        action.decision,
        action.approver,
        action.action_hash,
        receipt.prev_receipt_hash,
        receipt.receipt_hash,
        CANON_VERSION,
        signature.map(|signature| &signature.signature),
        signature.map(|signature| &signature.signer_public_key),
        signature.and_then(|signature| signature.signer_key_id.as_ref()),
        created_at,
    ])?;
    Ok(())
}

pub(crate) const INSERT_POLICY: &str = "INSERT INTO policy_audit_log (id, tenant_id, policy_id, policy_key, \
    action, changed_by, body_hash, diff_summary, prev_hash, entry_hash, created_at) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Writes a policy log entry's row and returns its hash.
pub(crate) fn insert_policy(
    statement: &mut Statement<'_>,
    change: &PolicyChange,
    id: &str,
    prev_hash: &str,
    created_at: &str,
) -> Result<String> {
    let entry_hash = change.entry_hash(id, prev_hash)?;
    statement.execute(params![
        id,
        change.tenant_id,
        change.policy_id,
        change.policy_key,
        change.action,
        change.changed_by,
        change.body_hash,
        change.diff_summary,
        prev_hash,
        entry_hash,
        created_at,
    ])?;
    Ok(entry_hash)
}
