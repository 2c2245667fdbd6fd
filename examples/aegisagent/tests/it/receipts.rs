//! Appending and reading chain heads.

use std::collections::HashMap;

use aegisagent_example::{Error, ReceiptSigner, Store};
use serde_json::json;

use crate::service::{Running, action};

#[test]
fn ready_answers_with_the_schema_version() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path());
    assert_eq!(service.get("/ready"), (200, json!({"ready": true, "schema_version": 1})));
}

#[test]
fn each_tenant_has_a_chain_of_its_own_whose_head_is_the_last_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path());
    let mut heads: HashMap<&str, String> = HashMap::new();
    for number in 0..10 {
        let tenant = ["one", "two"][number % 2];
        let (status, receipt) = service.post("/v1/receipts", action(tenant, number));
        assert_eq!(status, 201, "{receipt}");
        let head = heads.entry(tenant).or_default();
        assert_eq!(receipt["prev_receipt_hash"], head.as_str());
        *head = receipt["receipt_hash"].as_str().unwrap().to_owned();
    }
    for (tenant, head) in heads {
        let answer = service.get(&format!("/v1/receipts/chain-head?tenant_id={tenant}"));
        assert_eq!(answer, (200, json!({"tenant_id": tenant, "receipts": 5, "head": head})));
    }
    let (status, empty) = service.get("/v1/receipts/chain-head?tenant_id=nobody");
    assert_eq!((status, &empty["receipts"], &empty["head"]), (200, &json!(0), &json!("")));
}

#[test]
fn concurrent_appends_make_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..25 {
                    assert_eq!(service.post("/v1/receipts", action("one", number)).0, 201);
                }
            });
        }
    });
    let (_, head) = service.get("/v1/receipts/chain-head?tenant_id=one");
    assert_eq!(head["receipts"], 100);
}

#[test]
fn a_receipt_that_cannot_be_meant_is_refused_and_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path());
    let no_decision = json!({"tenant_id": "one", "source_trust": "trusted"});
    let empty_tenant = json!({"tenant_id": "", "source_trust": "trusted", "decision": "allow"});
    let unknown_field =
        json!({"tenant_id": "one", "source_trust": "t", "decision": "allow", "receipt_hash": "00"});
    let long = json!({"tenant_id": "one", "source_trust": "t", "decision": "x".repeat(70_000)});
    for (body, status) in [(no_decision, 422), (empty_tenant, 400), (unknown_field, 422), (long, 400)] {
        let (answered, error) = service.post("/v1/receipts", &body);
        assert_eq!(answered, status, "{error}");
        assert_eq!(error["error"]["code"], "ERR_INVALID_INPUT");
    }
    assert_eq!(service.get("/v1/receipts/chain-head?tenant_id=one").1["receipts"], 0);
}

#[test]
fn a_query_without_its_tenant_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path());
    assert_eq!(service.get("/v1/receipts/chain-head").0, 400);
}

#[test]
fn a_database_of_a_newer_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aegis.db");
    drop(Store::open(&path, None).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute("UPDATE schema_meta SET version = 2", []).unwrap();
    drop(connection);
    let error = Store::open(&path, None).unwrap_err();
    assert!(matches!(error, Error::Newer { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn a_signing_service_stores_the_signature_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let signer = ReceiptSigner::from_seed(&[9; 32], Some("v1".into()));
    let public_key = signer.public_key().to_owned();
    let store = Store::open(&folder.path().join("aegis.db"), Some(signer)).unwrap();
    let receipt = store.append(action("one", 0)).unwrap();
    let signature = receipt.signature.unwrap();
    assert_eq!(signature.signer_public_key, public_key);
    assert_eq!(signature.signer_key_id.as_deref(), Some("v1"));
    assert_eq!(signature.signature.len(), 128);
}

#[test]
fn an_address_that_others_reach_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("aegis.db"), None).unwrap();
    let service = aegisagent_example::api::Service { store, backup_dir: folder.path().join("backups") };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = "0.0.0.0:0".parse().unwrap();
    let served = aegisagent_example::api::serve(service.into(), address, |_| {}, async {});
    let error = runtime.block_on(served).unwrap_err();
    assert!(error.to_string().contains("not a loopback address"), "{error}");
}
