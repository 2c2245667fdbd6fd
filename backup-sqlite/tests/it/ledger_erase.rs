//! Erasure on record: the chain verifies, the values are gone from the file, and nothing else can pass for it.

use std::path::{Path, PathBuf};

use audit_chain::erasure::ErasedField;
use audit_chain::report::{ChainReport, FindingKind, NoteKind};
use backup_core::error::ErrorKind;
use backup_sqlite::ledger::{Draft, EraseOptions, Layout, Ledger, scrub};
use rusqlite::{Connection, TransactionBehavior};

use crate::ledger::verify;

const PERSON: &str = "grete.hermann@example.com";

fn database(folder: &Path, mode: &str) -> (PathBuf, Connection) {
    let path = folder.join("app.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(&format!("PRAGMA journal_mode={mode}")).unwrap();
    Layout::default().create(&connection, true).unwrap();
    (path, connection)
}

/// Ten records, each with two personal values, in batches so that pages are split and filled.
fn fill(connection: &mut Connection, ledger: &Ledger, count: usize) {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let drafts = (0..count).map(|number| {
        let person = if number == 3 { PERSON.to_owned() } else { format!("person-{number}@example.com") };
        let body = serde_json::json!({"event": "login", "user": {"email": person, "name": format!("Name {number} {person}")}});
        Draft::json(&body).unwrap().personal(&["/user/email", "/user/name"]).unwrap()
    });
    ledger.append_all(&tx, drafts).unwrap();
    tx.commit().unwrap();
}

fn why() -> EraseOptions {
    EraseOptions {
        by: "dpo@example.com".into(),
        reason: "GDPR Art. 17, request 4711".into(),
        ..Default::default()
    }
}

fn field(seq: u64, pointer: &str) -> ErasedField {
    ErasedField { seq, pointer: pointer.into() }
}

fn erase(connection: &mut Connection, ledger: &Ledger, fields: &[ErasedField]) -> u64 {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let erased = ledger.erase(&tx, fields, &why()).unwrap();
    tx.commit().unwrap();
    erased.records[0].seq
}

/// Reports which files of the database hold the bytes.
fn holding(path: &Path, bytes: &[u8]) -> Vec<String> {
    ["", "-wal", "-journal"]
        .iter()
        .filter(|ending| {
            let held = std::fs::read(format!("{}{ending}", path.display())).unwrap_or_default();
            memchr::memmem::find(&held, bytes).is_some()
        })
        .map(|ending| format!("app.db{ending}"))
        .collect()
}

fn explained(report: &ChainReport, kind: FindingKind, words: &str) -> bool {
    report.findings.iter().any(|finding| finding.kind == kind && finding.explains.contains(words))
}

#[test]
fn an_erasure_is_on_record_and_the_bytes_are_gone_from_the_files() {
    for mode in ["WAL", "DELETE", "TRUNCATE"] {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut connection) = database(folder.path(), mode);
        let ledger = Ledger::new("people");
        fill(&mut connection, &ledger, 400);
        let salt: Vec<u8> = connection
            .query_row(
                "SELECT salt FROM attestore_chain_values WHERE seq = 4 AND pointer = '/user/email'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert!(!holding(&path, PERSON.as_bytes()).is_empty() && !holding(&path, &salt).is_empty());
        let before = verify(&path, &[]);
        assert!(before.ok && before.notes.iter().all(|note| note.kind != NoteKind::Erased), "{before:?}");

        let fields = ledger.values_of(&connection, 4).unwrap();
        assert_eq!(fields, [field(4, "/user/email"), field(4, "/user/name")]);
        assert_eq!(erase(&mut connection, &ledger, &fields), 401);
        scrub(&connection).unwrap();
        assert!(holding(&path, PERSON.as_bytes()).is_empty(), "{mode}");
        assert!(holding(&path, &salt).is_empty(), "{mode}");
        // Those of others are still there and still verify.
        assert!(!holding(&path, b"person-5@example.com").is_empty());
        let after = verify(&path, &[]);
        assert!(after.ok, "{mode} {after:?}");
        let told: Vec<_> = after.notes.iter().filter(|note| note.kind == NoteKind::Erased).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0].position, Some(4));
        assert!(
            told[1].position == Some(401)
                && told[1].explains.contains("dpo@example.com")
                && told[1].explains.contains("4711"),
            "{told:?}"
        );
        assert!(ledger.values_of(&connection, 4).unwrap().is_empty());
        // The guards are back.
        assert!(connection.execute("DELETE FROM attestore_chain_values", []).is_err());
        assert!(connection.execute("UPDATE attestore_chain SET at = at", []).is_err());
        // A second erasure, after the table was written anew.
        erase(&mut connection, &ledger, &[field(9, "/user/name")]);
        assert!(verify(&path, &[]).ok);
    }
}

#[test]
fn what_was_removed_without_a_record_is_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut connection) = database(folder.path(), "WAL");
    let ledger = Ledger::new("people");
    fill(&mut connection, &ledger, 10);
    let erasure = erase(&mut connection, &ledger, &[field(2, "/user/email")]);
    let layout = Layout::default();
    let mut judged = |change: &str| {
        let tx = connection.transaction().unwrap();
        layout
            .lifted(&tx, || {
                tx.execute_batch(change).unwrap();
                Ok(())
            })
            .unwrap();
        tx.commit().unwrap();
        verify(&path, &[])
    };
    // A value and its salt deleted.
    let report = judged("DELETE FROM attestore_chain_values WHERE seq = 5 AND pointer = '/user/name'");
    assert!(
        explained(&report, FindingKind::StateMismatch, "the value at /user/name was removed"),
        "{report:?}"
    );
    assert_eq!((report.findings.len(), report.findings[0].position), (1, Some(5)));
    // Said to be erased by a record that is not there, by one that is none, by one that lists another.
    let report = judged(
        "UPDATE attestore_chain_values SET salt = NULL, value = NULL, erased_by = 99 WHERE seq = 6 AND pointer = '/user/name'",
    );
    assert!(explained(&report, FindingKind::StateMismatch, "no erasure is on record"), "{report:?}");
    let report =
        judged("UPDATE attestore_chain_values SET erased_by = 7 WHERE seq = 6 AND pointer = '/user/name'");
    assert!(explained(&report, FindingKind::StateMismatch, "which does not say so"), "{report:?}");
    let report = judged(&format!(
        "UPDATE attestore_chain_values SET erased_by = {erasure} WHERE seq = 6 AND pointer = '/user/name'"
    ));
    assert!(
        explained(&report, FindingKind::StateMismatch, "/user/name of record 6 is said to be erased"),
        "{report:?}"
    );
    // The whole table.
    // Its triggers go with it.
    connection.execute_batch("DROP TABLE attestore_chain_values").unwrap();
    let report = verify(&path, &[]);
    assert!(report.findings_total >= 19, "{report:?}");
}

#[test]
fn a_value_that_was_changed_or_put_back_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut connection) = database(folder.path(), "WAL");
    let ledger = Ledger::new("people");
    fill(&mut connection, &ledger, 10);
    let kept: (Vec<u8>, String) = connection
        .query_row(
            "SELECT salt, value FROM attestore_chain_values WHERE seq = 2 AND pointer = '/user/email'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    let erasure = erase(&mut connection, &ledger, &[field(2, "/user/email")]);
    let layout = Layout::default();
    let tx = connection.transaction().unwrap();
    layout
        .lifted(&tx, || {
            tx.execute_batch("UPDATE attestore_chain_values SET value = '\"mallory\"' WHERE seq = 5 AND pointer = '/user/email'").unwrap();
            tx.execute("UPDATE attestore_chain_values SET salt = ?1, value = ?2, erased_by = NULL WHERE seq = 2 AND pointer = '/user/email'", kept).unwrap();
            tx.execute("INSERT INTO attestore_chain_values (chain, seq, pointer, salt, value) VALUES ('people', 8, '/other', zeroblob(32), '1')", []).unwrap();
            Ok(())
        })
        .unwrap();
    tx.commit().unwrap();
    let report = verify(&path, &[]);
    let kinds: Vec<_> =
        report.findings.iter().map(|finding| (finding.kind, finding.position.unwrap())).collect();
    assert_eq!(
        kinds,
        [(FindingKind::Edited, 5), (FindingKind::StateMismatch, 8), (FindingKind::StateMismatch, erasure)],
        "{report:?}"
    );
    assert!(explained(&report, FindingKind::Edited, "/user/email"));
    assert!(explained(&report, FindingKind::StateMismatch, "is there again"));
    assert!(!format!("{report:?}").contains("mallory"), "no value in a report");
}

#[test]
fn an_erasure_that_cannot_be_is_refused_and_nothing_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut connection) = database(folder.path(), "WAL");
    let ledger = Ledger::new("people");
    fill(&mut connection, &ledger, 5);
    erase(&mut connection, &ledger, &[field(1, "/user/email")]);
    let outside = ledger.erase(&connection, &[field(2, "/user/email")], &why()).unwrap_err();
    assert_eq!(outside.kind(), ErrorKind::InvalidInput);
    for (fields, options, kind) in [
        (vec![], why(), ErrorKind::InvalidInput),
        (vec![field(2, "/user/email")], EraseOptions { by: " ".into(), ..why() }, ErrorKind::InvalidInput),
        (
            vec![field(2, "/user/email")],
            EraseOptions { reason: String::new(), ..why() },
            ErrorKind::InvalidInput,
        ),
        (vec![field(2, "/user/email"), field(2, "/event")], why(), ErrorKind::NotFound),
        (vec![field(2, "/user/email"), field(99, "/user/email")], why(), ErrorKind::NotFound),
        (vec![field(2, "/user/email"), field(1, "/user/email")], why(), ErrorKind::NotFound),
    ] {
        let tx = connection.transaction().unwrap();
        let error = ledger.erase(&tx, &fields, &options).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        drop(tx);
        assert_eq!(ledger.values_of(&connection, 2).unwrap().len(), 2);
    }
    assert!(verify(&path, &[]).ok);
    assert!(connection.execute("DELETE FROM attestore_chain", []).is_err(), "the guards are there");
}

#[test]
fn a_reader_of_an_older_state_holds_the_old_pages_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut connection) = database(folder.path(), "WAL");
    let ledger = Ledger::new("people");
    fill(&mut connection, &ledger, 10);
    connection.busy_timeout(std::time::Duration::from_millis(20)).unwrap();
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let _: i64 = reader.query_row("SELECT count(*) FROM attestore_chain", [], |row| row.get(0)).unwrap();
    erase(&mut connection, &ledger, &[field(4, "/user/email")]);
    let held = scrub(&connection).unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Locked);
    reader.execute_batch("COMMIT").unwrap();
    scrub(&connection).unwrap();
    assert!(holding(&path, format!("\"{PERSON}\"").as_bytes()).is_empty());
}

#[test]
fn a_body_that_commits_without_its_values_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut connection) = database(folder.path(), "WAL");
    let tx = connection.transaction().unwrap();
    let forged = Draft::new(r#"{"a":{"attestore/commitment/v1":"00"}}"#);
    assert_eq!(Ledger::new("people").append(&tx, forged).unwrap_err().kind(), ErrorKind::InvalidInput);
    let nothing = Draft::new(r#"{"a":1}"#).personal(&["/b"]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::InvalidInput);
}
