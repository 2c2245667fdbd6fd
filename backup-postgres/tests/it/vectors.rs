//! Rows of real systems in a real server: what is found is what is found in the files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit_chain::formats;
use audit_chain::formats::agledger::AgledgerDump;
use audit_chain::json_rows::NdjsonSource;
use audit_chain::keys::KeyRing;
use audit_chain::report::{ChainReport, FindingKind, NoteKind, Verdict};
use audit_chain::verify::{VerifyOptions, verify};
use backup_core::context::Context;
use backup_core::traits::{ChainRequest, ChainVerify as _};
use serde_json::Value;

use crate::snapshot::{Store, source};
use crate::support::{Database, left_out, psql};

fn folder(test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("ATTESTORE_VECTORS").map(PathBuf::from);
    if found.is_none() {
        left_out(test, "ATTESTORE_VECTORS is not set");
    }
    found
}

pub(crate) fn request(format: &str, keys: &KeyRing) -> ChainRequest {
    ChainRequest {
        format: formats::by_name(format).unwrap(),
        table: None,
        keys: keys.clone(),
        checkpoint: None,
        copy: false,
    }
}

fn expected(case: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(case.join("EXPECTED.json")).unwrap()).unwrap()
}

fn live(database: &Database, format: &str, keys: &KeyRing) -> ChainReport {
    source(database).verify_chain(&request(format, keys), &Context::new()).unwrap()
}

fn of_file(path: &Path, format: &str, keys: &KeyRing) -> ChainReport {
    let rows = NdjsonSource::open(path).unwrap();
    let format = formats::by_name(format).unwrap();
    verify(&rows, format.as_ref(), keys, &VerifyOptions::default()).unwrap()
}

/// Everything that a report says of the rows.
fn said(report: &ChainReport) -> Value {
    serde_json::to_value(report).unwrap()
}

#[test]
fn caracal_rows_in_a_server_are_judged_as_in_their_file() {
    let Some(folder) = folder("caracal_rows_in_a_server_are_judged_as_in_their_file") else { return };
    let folder = folder.join("caracal");
    let schema = std::fs::read_to_string(folder.join("schema.sql")).unwrap();
    let database = Database::of(&schema);
    // The files hold the chain's own table only.
    database.sql("DROP TABLE audit_chain_rehash, audit_retention, audit_export_watermark");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    let mut compared = 0;
    for case in cases {
        let tables = [("audit_events", "caracal"), ("admin_audit_events", "caracal-admin")];
        for (table, format) in tables {
            let rows = case.join(format!("{table}.copy.sql"));
            if !rows.exists() {
                continue;
            }
            database.sql(&format!(
                "TRUNCATE {table}; ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_pkey"
            ));
            psql(&database.name, &["-f", rows.to_str().unwrap()], "");
            let expected = expected(&case);
            let mut keys = KeyRing::new();
            for member in ["hmac_key_hex_used", "hmac_key_hex"] {
                if let Some(key) = expected[member].as_str().filter(|key| !key.is_empty()) {
                    keys.add_secret("AUDIT_HMAC_KEY", key.as_bytes().to_vec());
                }
            }
            let (live, file) =
                (live(&database, format, &keys), of_file(&case.join("rows.ndjson"), format, &keys));
            assert_eq!(said(&live), said(&file), "{}", case.display());
            compared += 1;
        }
    }
    assert!(compared >= 15, "{compared} cases");
}

#[test]
fn a_lost_rehash_marker_is_found_in_the_same_snapshot() {
    let Some(folder) = folder("a_lost_rehash_marker_is_found_in_the_same_snapshot") else { return };
    let folder = folder.join("caracal");
    let database = Database::of(&std::fs::read_to_string(folder.join("schema.sql")).unwrap());
    psql(&database.name, &["-f", folder.join("valid/audit_events.copy.sql").to_str().unwrap()], "");
    let mut keys = KeyRing::new();
    let key = expected(&folder.join("valid"))["hmac_key_hex_used"].as_str().unwrap().to_owned();
    keys.add_secret("AUDIT_HMAC_KEY", key.into_bytes());
    let lost = live(&database, "caracal", &keys);
    assert!(lost.findings.iter().any(|finding| finding.kind == FindingKind::StateMismatch), "{lost:?}");
    database.sql("INSERT INTO audit_chain_rehash DEFAULT VALUES");
    assert_eq!(live(&database, "caracal", &keys).verdict, Verdict::Intact);
}

#[test]
fn z4j_on_a_server_is_judged_with_its_state_row() {
    let Some(folder) = folder("z4j_on_a_server_is_judged_with_its_state_row") else { return };
    for (case, verdict) in [
        ("pg-v2-valid", Verdict::Intact),
        ("pg-v2-deleted-middle", Verdict::Findings),
        ("pg-v2-edited-row", Verdict::Findings),
        ("pg-v2-wrong-secret", Verdict::CannotVerify),
        ("pg-v1-honest-false-positives", Verdict::Intact),
    ] {
        let case = folder.join("z4j").join(case);
        let database = Database::new();
        // The triggers call functions that the file does not hold; the rows are all there.
        psql(
            &database.name,
            &["-v", "ON_ERROR_STOP=0", "-f", case.join("audit_tables.sql").to_str().unwrap()],
            "",
        );
        let expected = expected(&case);
        let mut keys = KeyRing::new();
        for (name, value) in expected["runs"][0]["env"].as_object().unwrap() {
            if name.contains("SECRET") && !name.contains("SESSION") {
                keys.add_secret(name, value.as_str().unwrap().as_bytes().to_vec());
            }
        }
        let report = live(&database, "z4j", &keys);
        assert_eq!(report.verdict, verdict, "{}: {report:#?}", case.display());
        if let Some(rows) = expected["rows"].as_u64() {
            assert_eq!(report.records, rows, "{}", case.display());
        }
        if case.ends_with("pg-v1-honest-false-positives") {
            assert!(report.notes.iter().any(|note| note.kind == NoteKind::SerialisationDrift), "{report:#?}");
        }
    }
}

/// AGLedger's tables with the types of a server.
const VAULT: &str = "CREATE TABLE audit_vault(id uuid, record_id uuid, chain_key text, entry_type text, payload jsonb, payload_hash text,
 previous_hash text, chain_position bigint, cose_sign1 text, signing_key_id text, actor_key_id uuid, actor_role text, actor_owner_id uuid,
 actor_oidc_iss text, actor_oidc_sub text, actor_oidc_synthesized boolean, created_at timestamptz);
 CREATE TABLE vault_checkpoints(id uuid, record_id uuid, chain_key text, chain_position bigint, payload_hash text, cose_sign1 text,
 signing_key_id text, created_at timestamptz);
 CREATE TABLE vault_signing_keys(key_id text, public_key text, algorithm text, status text, activated_at timestamptz, retired_at timestamptz, retired_by text);
 CREATE TABLE org_admin_reads(id uuid, org_id uuid, caller_key_id uuid, record_id uuid, filter_applied text, read_context text, export_batch_id uuid,
 read_at timestamptz, leaf_index bigint, leaf_hash text, cose_sign1 text);
 CREATE TABLE org_admin_reads_checkpoints(id uuid, org_id uuid, tree_size bigint, root_hash text, checkpoint_at timestamptz, log_id text, cose_sign1 text,
 signing_key_id text, witness_signature text, witness_key_id text, witness_cosigned_at timestamptz);
 CREATE TABLE vault_key_statements(id uuid, kind text, subject_key_id text, endorser_key_id text, statement text[], created_at timestamptz)";

fn vault(dump: &Path) -> Database {
    let database = Database::of(VAULT);
    for table in [
        "audit_vault",
        "vault_checkpoints",
        "vault_signing_keys",
        "org_admin_reads",
        "org_admin_reads_checkpoints",
        "vault_key_statements",
    ] {
        let Ok(text) = std::fs::read_to_string(dump.join(format!("{table}.ndjson"))) else {
            database.sql(&format!("DROP TABLE {table}"));
            continue;
        };
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            database_insert(&database, table, line);
        }
    }
    database
}

fn database_insert(database: &Database, table: &str, line: &str) {
    database.sql(&format!(
        "INSERT INTO {table} SELECT * FROM jsonb_populate_record(NULL::{table}, $line${line}$line$::jsonb)"
    ));
}

#[test]
fn agledger_in_a_server_is_judged_as_its_dump_and_its_registry_travels_along() {
    let test = "agledger_in_a_server_is_judged_as_its_dump_and_its_registry_travels_along";
    let Some(folder) = folder(test) else { return };
    for case in
        ["valid-small", "valid-rotation", "legacy-valid-small", "actor-role-edited", "checkpoint-removed"]
    {
        let dump = folder.join("agledger").join(case).join("dump");
        let database = vault(&dump);
        let keys = KeyRing::new();
        let file = AgledgerDump::open(&dump).unwrap().verify(&keys, &VerifyOptions::default()).unwrap();
        let live = live(&database, "agledger", &keys);
        assert_eq!((live.verdict, live.records), (file.verdict, file.records), "{case}: {live:#?}");
        let kinds = |report: &ChainReport| report.findings.iter().map(|one| one.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&live), kinds(&file), "{case}");
        assert_eq!(live.chains.len(), file.chains.len(), "{case}");
    }
    let database = vault(&folder.join("agledger/valid-rotation/dump"));
    let store = Store::new();
    let mut chain = request("agledger", &KeyRing::new());
    chain.copy = true;
    let outcome = store.back_up(&source(&database), vec![chain]).unwrap();
    assert_eq!(outcome.manifest.chains[0].verdict, Verdict::Intact);
    let csv = String::from_utf8(store.object("keys/vault-public-keys.csv")).unwrap();
    assert!(csv.starts_with("key_id,public_key,algorithm,status,activated_at,retired_at\n"), "{csv}");
    let keys: usize = database.ask("SELECT count(*) FROM vault_signing_keys").parse().unwrap();
    assert_eq!(csv.lines().count(), keys + 1);
    for table in [
        "audit_vault",
        "vault_checkpoints",
        "vault_signing_keys",
        "org_admin_reads",
        "org_admin_reads_checkpoints",
    ] {
        let rows: usize = database.ask(&format!("SELECT count(*) FROM {table}")).parse().unwrap();
        assert_eq!(
            store.object(&format!("chain/{table}.ndjson")).iter().filter(|byte| **byte == b'\n').count(),
            rows,
            "{table}"
        );
    }
}

#[test]
fn a_chain_is_verified_in_the_snapshot_though_rows_come_meanwhile() {
    let Some(folder) = folder("a_chain_is_verified_in_the_snapshot_though_rows_come_meanwhile") else {
        return;
    };
    let folder = folder.join("caracal");
    let database = Database::of(&std::fs::read_to_string(folder.join("schema.sql")).unwrap());
    psql(&database.name, &["-f", folder.join("valid/audit_events.copy.sql").to_str().unwrap()], "");
    database.sql("INSERT INTO audit_chain_rehash DEFAULT VALUES");
    let key = expected(&folder.join("valid"))["hmac_key_hex_used"].as_str().unwrap().to_owned();
    let mut keys = KeyRing::new();
    keys.add_secret("AUDIT_HMAC_KEY", key.into_bytes());
    let writer = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (going, name) = (Arc::clone(&writer), database.name.clone());
    // A broken row that is deleted again: only a reader of two instants could see it.
    let noise = std::thread::spawn(move || {
        while going.load(std::sync::atomic::Ordering::Relaxed) {
            crate::support::execute(
                &name,
                "INSERT INTO audit_events(id, zone_id, event_type, evaluation_status, occurred_at, chain_seq) VALUES ('x', 'zone-x', 'e', 's', now(), 1)",
            );
            crate::support::execute(&name, "DELETE FROM audit_events WHERE id = 'x'");
        }
    });
    let store = Store::new();
    let outcome = store.back_up(&source(&database), vec![request("caracal", &keys)]).unwrap();
    writer.store(false, std::sync::atomic::Ordering::Relaxed);
    noise.join().unwrap();
    let counted = outcome.manifest.sources[0].tables["public.audit_events"];
    let chain = &outcome.reports[0].chains[0];
    assert_eq!(chain.records, counted, "the chain and the counts are of one instant");
    if counted == 50 {
        assert_eq!(chain.verdict, Verdict::Intact, "{chain:#?}");
    }
}
