//! The loader's databases.

use aegisagent_example::{Error, Options, Store, generate};
use sha2::{Digest as _, Sha256};

use crate::chains::verify;

fn small() -> Options {
    Options { receipts: 500, tenants: 3, policies: 20, event_bytes: 100_000, ..Options::default() }
}

#[test]
fn equal_options_make_equal_bytes_and_another_seed_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let digest = |name: &str, options: &Options| {
        let made = generate(&folder.path().join(name), options).unwrap();
        Sha256::digest(std::fs::read(made.path).unwrap())
    };
    let first = digest("a.db", &small());
    assert_eq!(first, digest("b.db", &small()));
    assert_ne!(first, digest("c.db", &Options { seed: 2, ..small() }));
}

#[test]
fn a_generated_database_is_whole_and_the_service_opens_and_continues_it() {
    let folder = tempfile::tempdir().unwrap();
    let made = generate(&folder.path().join("a.db"), &Options { sign: true, ..small() }).unwrap();
    let store = Store::open(&made.path, None).unwrap();
    for (format, records) in [("aegisagent", 500), ("aegisagent-policy", 20)] {
        let report = verify(&made.path, format);
        assert!(report.ok, "{report:?}");
        assert_eq!((report.records, report.chains.len()), (records, 3));
    }
    let before = store.chain_head("tenant_01").unwrap();
    let receipt = store.append(crate::service::action("tenant_01", 0)).unwrap();
    assert_eq!(receipt.prev_receipt_hash, before.head);

    let connection = rusqlite::Connection::open(&made.path).unwrap();
    let integrity: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM action_receipts"), 501);
    assert_eq!(count("SELECT count(*) FROM action_receipts WHERE signer_public_key IS NOT NULL"), 500);
    assert_eq!(count("SELECT count(*) FROM policy_audit_log"), 20);
    assert_eq!(count("SELECT count(DISTINCT tenant_id) FROM action_receipts"), 3);
    assert_eq!(count("SELECT count(*) FROM pragma_foreign_key_check"), 0);
}

#[test]
fn events_bring_a_database_to_the_size_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { receipts: 10, event_bytes: 8 << 20, ..Options::default() };
    let made = generate(&folder.path().join("a.db"), &options).unwrap();
    assert!((8 << 20..12 << 20).contains(&made.size_bytes), "{}", made.size_bytes);
}

#[test]
fn the_loader_overwrites_nothing_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    std::fs::write(&path, "mine").unwrap();
    assert!(matches!(generate(&path, &small()).unwrap_err(), Error::Exists(_)));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    let nobody = Options { tenants: 0, ..small() };
    assert!(matches!(generate(&folder.path().join("b.db"), &nobody).unwrap_err(), Error::Invalid(_)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
