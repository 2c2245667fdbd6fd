-- The example's own tables. The names and columns of action_receipts and policy_audit_log are
-- those that the chain formats `aegisagent` and `aegisagent-policy` read; the order of a chain is
-- the order of insertion (rowid), one chain per tenant.

CREATE TABLE schema_meta (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
);

CREATE TABLE tenants (
    id         TEXT PRIMARY KEY,
    label      TEXT NOT NULL,
    created_at TEXT NOT NULL
);

-- What each agent did and what was decided about it.
CREATE TABLE action_receipts (
    id                TEXT NOT NULL PRIMARY KEY,
    tenant_id         TEXT NOT NULL REFERENCES tenants (id),
    decision_id       TEXT,
    -- Hashed by the chain:
    ts                TEXT NOT NULL,
    agent_id          TEXT,
    user_id           TEXT,
    run_id            TEXT,
    trace_id          TEXT,
    tool              TEXT,
    action            TEXT,
    resource          TEXT,
    source_trust      TEXT NOT NULL,
    decision          TEXT NOT NULL,
    approver          TEXT,
    action_hash       TEXT,
    -- The chain itself:
    prev_receipt_hash TEXT NOT NULL,
    receipt_hash      TEXT NOT NULL,
    canon_version     TEXT NOT NULL,
    signature         TEXT,
    signer_public_key TEXT,
    signer_key_id     TEXT,
    created_at        TEXT NOT NULL
);

-- The head of a tenant's chain is the last entry of this index; a fork is impossible.
CREATE INDEX receipts_of_tenant ON action_receipts (tenant_id);
CREATE UNIQUE INDEX receipts_never_fork ON action_receipts (tenant_id, prev_receipt_hash);

-- Who changed which policy.
CREATE TABLE policy_audit_log (
    id           TEXT NOT NULL PRIMARY KEY,
    tenant_id    TEXT NOT NULL REFERENCES tenants (id),
    policy_id    TEXT NOT NULL,
    policy_key   TEXT NOT NULL,
    action       TEXT NOT NULL,
    changed_by   TEXT,
    body_hash    TEXT NOT NULL,
    diff_summary TEXT,
    prev_hash    TEXT NOT NULL,
    entry_hash   TEXT NOT NULL,
    created_at   TEXT NOT NULL
);

CREATE UNIQUE INDEX policy_log_never_forks ON policy_audit_log (tenant_id, prev_hash);

CREATE TRIGGER policy_log_keeps_rows BEFORE DELETE ON policy_audit_log
BEGIN SELECT RAISE (ABORT, 'the policy log only grows'); END;

CREATE TRIGGER policy_log_keeps_contents BEFORE UPDATE ON policy_audit_log
BEGIN SELECT RAISE (ABORT, 'the policy log only grows'); END;

-- Bulky and not chained: text that compresses and evidence that does not.
CREATE TABLE audit_events (
    id        INTEGER PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    at        TEXT NOT NULL,
    kind      TEXT NOT NULL,
    body      TEXT NOT NULL,
    evidence  BLOB
);
