//! Chains verified inside the very snapshot that is stored, and again after a restore.

use std::sync::Arc;

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::formats::aegisagent::{PolicyLog, Receipts};
use audit_chain::keys::KeyRing;
use audit_chain::report::{FindingKind, Verdict};
use backup_core::context::Context;
use backup_core::error::ErrorKind;
use backup_core::traits::{ChainRequest, ChainVerify as _, Restore as _, Snapshot as _};
use backup_sqlite::{Method, RestoreOptions, SourceOptions, SqliteRestore, SqliteSource};
use rusqlite::Connection;

use crate::receipts::receipts;
use crate::support::{Backup, Folder, case, names, vectors};

pub(crate) fn request(copy: bool) -> ChainRequest {
    ChainRequest { format: Arc::new(Receipts), table: None, keys: KeyRing::new(), checkpoint: None, copy }
}

#[test]
fn chains_are_verified_and_copied_from_the_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("app.db");
    receipts(&live, 10_001);
    for method in [Method::VacuumInto, Method::OnlineBackup] {
        let to = Folder::new(&folder.path().join(method.name()));
        let options = SourceOptions { method, ..SourceOptions::default() };
        let source = SqliteSource::with_options(&live, options);
        let outcome = source.snapshot(&[request(true)], &to, &Context::new()).unwrap();
        let report = &outcome.chains[0];
        assert_eq!((report.verdict, report.records), (Verdict::Intact, 10_001), "{}", report.diagnosis);
        assert_eq!(report.chains.len(), 2);
        let text = std::fs::read_to_string(to.object("chain/action_receipts.ndjson")).unwrap();
        assert_eq!(text.lines().count(), 10_001);
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["receipt_hash"], report.chain("tenant-0").unwrap().head);
        assert_eq!(last["signature"], serde_json::Value::Null);
        // The live database says the same, also by a copy of its own.
        let live_report = source.verify_chain(&request(false), &Context::new()).unwrap();
        assert_eq!(live_report, *report);
        let options = SourceOptions {
            method,
            verify_copy_in: Some(folder.path().to_owned()),
            ..SourceOptions::default()
        };
        let again = SqliteSource::with_options(&live, options);
        assert_eq!(again.verify_chain(&request(false), &Context::new()).unwrap(), *report);
        assert!(names(folder.path()).iter().all(|name| !name.starts_with('.')), "{:?}", names(folder.path()));
    }
}

#[test]
fn an_edited_row_is_found_in_the_snapshot_and_the_copy_still_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("app.db");
    receipts(&live, 500);
    let connection = Connection::open(&live).unwrap();
    connection.execute("UPDATE action_receipts SET decision = 'deny' WHERE rowid = 77", []).unwrap();
    let to = Folder::new(&folder.path().join("backup"));
    let outcome = SqliteSource::new(&live).snapshot(&[request(false)], &to, &Context::new()).unwrap();
    let report = &outcome.chains[0];
    assert_eq!(report.verdict, Verdict::Findings);
    assert!(report.has(FindingKind::Edited), "{:?}", report.findings);
    assert_eq!(report.findings[0].record.as_deref(), Some("0000004c-0000-4000-8000-000000000000"));
    // Restored, it is what it was; that it had findings then is said.
    let backup = Backup::kept(&to.root, outcome, &[request(false)]);
    let target = folder.path().join("again.db");
    let restore = SqliteRestore::new(&target);
    let plan = restore.plan(&backup, &Context::new()).unwrap();
    assert!(plan.warnings.iter().any(|line| line.contains("had findings when it was backed up")));
    let outcome = restore.execute(&plan, &backup, &Context::new()).unwrap();
    let check = outcome.checks.iter().find(|check| check.name == "chain action_receipts").unwrap();
    assert!(check.ok && check.detail.contains("findings that it had then"), "{check:?}");
}

#[test]
fn a_restore_whose_chain_is_not_the_manifests_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("app.db");
    receipts(&live, 200);
    let root = folder.path().join("backup");
    let backup = Backup::of(&live, &root, &[request(false)]);
    // The stored database is replaced by one whose chain was cut, or relabelled; both are valid by themselves.
    let spoil: [&str; 3] = [
        "DELETE FROM action_receipts WHERE rowid > 190",
        "UPDATE action_receipts SET tenant_id = 'tenant-9' WHERE tenant_id = 'tenant-1'",
        "UPDATE action_receipts SET decision_id = 'other' WHERE rowid = 5",
    ];
    for sql in spoil {
        let other = folder.path().join("other.db");
        std::fs::copy(&live, &other).unwrap();
        Connection::open(&other).unwrap().execute_batch(&format!("{sql}; VACUUM")).unwrap();
        let mut spoiled = Backup { root: root.clone(), manifest: backup.manifest.clone() };
        spoiled.manifest.objects[0].size_bytes = other.metadata().unwrap().len();
        spoiled.manifest.sources[0].tables.clear();
        std::fs::copy(&other, root.join("database/app.db")).unwrap();
        let target = folder.path().join("target.db");
        let restore = SqliteRestore::new(&target);
        let plan = restore.plan(&spoiled, &Context::new()).unwrap();
        let error = restore.execute(&plan, &spoiled, &Context::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tampered, "{sql}: {error}");
        assert!(error.to_string().contains("chain action_receipts"), "{sql}: {error}");
        assert!(!target.exists());
    }
}

#[test]
fn a_chain_that_is_asked_for_but_not_there_fails_the_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("app.db");
    receipts(&live, 3);
    let to = Folder::new(&folder.path().join("backup"));
    let policy = ChainRequest { format: Arc::new(PolicyLog), ..request(false) };
    let error = SqliteSource::new(&live).snapshot(&[policy], &to, &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.hint().unwrap().contains("action_receipts"), "{:?}", error.hint());
    let error = SqliteSource::new(folder.path().join("no.db"))
        .verify_chain(&request(false), &Context::new())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn vector_valid_and_what_is_found_against_it() {
    let Some(vectors) = vectors("vector_valid_and_what_is_found_against_it") else { return };
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(vectors.join(name).join("EXPECTED.json")).unwrap()).unwrap()
    };
    let snapshot = |name: &str, checkpoint: Option<ChainCheckpoint>| {
        let place = folder.path().join(name);
        std::fs::create_dir(&place).unwrap();
        let live = case(&vectors, name, &place);
        let to = Folder::new(&place.join("backup"));
        let requests = [
            ChainRequest { checkpoint, ..request(true) },
            ChainRequest { format: Arc::new(PolicyLog), ..request(true) },
        ];
        SqliteSource::new(&live).snapshot(&requests, &to, &Context::new()).unwrap()
    };
    let valid = snapshot("valid", None);
    let expected = read("valid");
    let anchors = &expected["anchors"]["receipts"];
    for tenant in ["tenant_alpha", "tenant_beta"] {
        let chain = valid.chains[0].chain(tenant).unwrap();
        assert_eq!(chain.head, anchors[tenant]["head"].as_str().unwrap());
        assert_eq!(chain.records, anchors[tenant]["rows"].as_u64().unwrap());
        assert_eq!(chain.signed, anchors[tenant]["signed"].as_u64().unwrap());
    }
    let policy = valid.chains[1].chain("tenant_alpha").unwrap();
    assert_eq!(
        policy.head,
        expected["anchors"]["policy_audit_log"]["tenant_alpha"]["head"].as_str().unwrap()
    );
    assert_eq!(valid.facts.migrations.as_ref().unwrap().applied.len(), 31);
    assert_eq!(valid.facts.tables["action_receipts"], 56);

    let checkpoint = ChainCheckpoint::from_report(&valid.chains[0]).unwrap();
    for (name, kind) in [
        ("edited-row", FindingKind::Edited),
        ("truncated-tail", FindingKind::Truncated),
        ("missing-tenant", FindingKind::MissingChain),
        ("rechained-from-edit", FindingKind::Rewritten),
    ] {
        let outcome = snapshot(name, Some(checkpoint.clone()));
        assert!(outcome.chains[0].has(kind), "{name}: {:?}", outcome.chains[0].findings);
    }
}

#[test]
fn a_backup_is_restored_with_its_chains_proven() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("app.db");
    receipts(&live, 1_000);
    let backup = Backup::of(&live, &folder.path().join("backup"), &[request(false)]);
    // The format comes from the manifest; the caller names no chain.
    let restore = SqliteRestore::new(&live);
    let plan = restore.plan(&backup, &Context::new()).unwrap();
    let outcome = restore.execute(&plan, &backup, &Context::new()).unwrap();
    assert_eq!(outcome.chains[0].records, 1_000);
    assert!(
        outcome.checks.iter().any(|check| check.detail == "intact: 1000 records, as in the manifest"),
        "{:?}",
        outcome.checks
    );
    // A chain that the manifest does not know and that is not there.
    let policy = ChainRequest { format: Arc::new(PolicyLog), ..request(false) };
    let options = RestoreOptions { chains: vec![policy], ..Default::default() };
    let restore = SqliteRestore::with_options(&live, options);
    let plan = restore.plan(&backup, &Context::new()).unwrap();
    assert_eq!(restore.execute(&plan, &backup, &Context::new()).unwrap_err().kind(), ErrorKind::NotFound);
}
