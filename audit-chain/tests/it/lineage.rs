//! Restores on record: a sanctioned one verifies and is said, any other rollback is found.

use std::collections::BTreeMap;
use std::sync::Mutex;

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::formats;
use audit_chain::json_rows::NdjsonSource;
use audit_chain::keys::KeyRing;
use audit_chain::lineage::{RestoreBody, RestoreFacts, RestoreRecord, RestoredChain, Stand, Tail};
use audit_chain::native::{NativeAppender, NativeHead, NativeRecord};
use audit_chain::note::NoteSigner;
use audit_chain::report::{ChainReport, FindingKind, NoteKind};
use audit_chain::verify::{VerifyOptions, verify};

fn signer(seed: u8) -> NoteSigner {
    NoteSigner::new("attestore.dev/chain", &[seed; 32]).unwrap()
}

fn ring(seeds: &[u8], records: &[RestoreRecord]) -> KeyRing {
    let mut keys = KeyRing::new();
    for seed in seeds {
        keys.add_restore_key(ed25519_dalek::SigningKey::from_bytes(&[*seed; 32]).verifying_key());
    }
    records.iter().for_each(|record| keys.add_restore(record.clone()));
    keys
}

/// A chain with a branch of its own: record bodies name it.
fn grow(rows: &mut Vec<NativeRecord>, count: usize, branch: &str) {
    let head = rows.last().map_or_else(|| NativeHead::genesis("orders"), NativeHead::from);
    let mut log = NativeAppender::new(head, None);
    for _ in 0..count {
        let number = rows.len() as i64;
        rows.push(log.append(number, format!("{{\"branch\":\"{branch}\",\"n\":{number}}}")).unwrap());
    }
}

fn check_with(
    rows: &[NativeRecord],
    keys: &KeyRing,
    checkpoint: Option<&ChainCheckpoint>,
    tails: Option<&Mutex<Vec<Tail>>>,
) -> ChainReport {
    let text: String = rows.iter().map(|row| row.line() + "\n").collect();
    let open = || Ok(Some(Box::new(std::io::Cursor::new(text.clone().into_bytes())) as _));
    let source = NdjsonSource::new("rows.ndjson", open).unwrap();
    let format = formats::by_name("native").unwrap();
    let options = VerifyOptions { checkpoint, tails, threads: 2, ..Default::default() };
    verify(&source, format.as_ref(), keys, &options).unwrap()
}

fn check(rows: &[NativeRecord], keys: &KeyRing, checkpoint: &ChainCheckpoint) -> ChainReport {
    check_with(rows, keys, Some(checkpoint), None)
}

fn point(rows: &[NativeRecord]) -> ChainCheckpoint {
    ChainCheckpoint::from_report(&check_with(rows, &KeyRing::new(), None, None)).unwrap()
}

/// Sets `rows` back to `to` records as a restore does, and returns its record.
fn restore(rows: &mut Vec<NativeRecord>, to: usize, seed: u8) -> RestoreRecord {
    let backup = point(&rows[..to]);
    let tails = Mutex::new(Vec::new());
    check_with(rows, &KeyRing::new(), Some(&backup), Some(&tails));
    let tails = tails.into_inner().unwrap();
    let tail = &tails[0];
    assert_eq!(tail.shared, to as u64);
    let leaves = tail.leaves.clone().unwrap();
    assert_eq!(leaves.len(), rows.len() - to);
    let facts = RestoreFacts {
        at: "2026-11-20T12:00:00Z".into(),
        backup: "b1".into(),
        by: "operator".into(),
        chains: vec![RestoredChain {
            from: Some(Stand::from(&tail.stand)),
            id: "orders".into(),
            known: Vec::new(),
            shared: tail.shared,
            to: Stand::from(&backup.chains[0]),
        }],
        format: "native".into(),
        repository: "r".into(),
        table: "attestore_chain".into(),
        target: "app.db".into(),
    };
    let lost = BTreeMap::from([("orders".to_owned(), leaves)]);
    rows.truncate(to);
    facts.sign(lost, &signer(seed)).unwrap()
}

fn append_body(rows: &mut Vec<NativeRecord>, body: String) {
    let head = NativeHead::from(rows.last().unwrap());
    rows.push(head.next(1_000, body, None).unwrap());
}

fn sanctioned(report: &ChainReport) -> bool {
    report.ok
        && report.notes.iter().any(|note| note.kind == NoteKind::SanctionedRestore)
        && report.diagnosis.starts_with("intact, after a sanctioned restore")
}

#[test]
fn every_checkpoint_of_the_lost_history_is_explained_and_none_of_another() {
    let mut rows = Vec::new();
    grow(&mut rows, 20, "first");
    let old: Vec<ChainCheckpoint> = (1..=20).map(|size| point(&rows[..size])).collect();
    let mut other = rows[..8].to_vec();
    grow(&mut other, 12, "another");
    let foreign: Vec<ChainCheckpoint> = (9..=20).map(|size| point(&other[..size])).collect();
    let record = restore(&mut rows, 8, 1);
    grow(&mut rows, 30, "second");
    let keys = ring(&[1], std::slice::from_ref(&record));
    for checkpoint in &old {
        let report = check(&rows, &keys, checkpoint);
        assert!(sanctioned(&report), "{} {report:?}", checkpoint.chains[0].records);
        // Those up to the restored state are simply extended; the others are found without the record.
        let without = check(&rows, &KeyRing::new(), checkpoint);
        assert_eq!(without.ok, checkpoint.chains[0].records <= 8);
    }
    for checkpoint in &foreign {
        let report = check(&rows, &keys, checkpoint);
        assert!(report.has(FindingKind::Rewritten), "{report:?}");
        assert!(report.findings[0].explains.contains("of no history that it ended"), "{report:?}");
    }
    // What was appended since is no history that the restore ended: it cannot be used to go back again.
    let later = point(&rows[..15]);
    rows.truncate(8);
    let report = check(&rows, &keys, &later);
    assert!(report.has(FindingKind::Truncated), "{report:?}");
}

#[test]
fn a_record_that_is_forged_or_of_another_key_is_found() {
    let mut rows = Vec::new();
    grow(&mut rows, 20, "first");
    let checkpoint = point(&rows);
    let record = restore(&mut rows, 8, 1);
    let wrong_key = check(&rows, &ring(&[2], std::slice::from_ref(&record)), &checkpoint);
    assert!(
        wrong_key.has(FindingKind::Truncated)
            && wrong_key.findings[0].explains.contains("a restore is on record, but"),
        "{wrong_key:?}"
    );
    let no_key = check(&rows, &ring(&[], std::slice::from_ref(&record)), &checkpoint);
    assert!(no_key.has(FindingKind::Truncated), "{no_key:?}");
    assert!(no_key.findings[0].explains.contains("no public key is at hand"), "{no_key:?}");
    let mut altered = record.clone();
    altered.note = altered.note.replace("operator", "somebody");
    let report = check(&rows, &ring(&[1], &[altered]), &checkpoint);
    assert!(report.has(FindingKind::Truncated), "{report:?}");
    // The leaves are not signed, but must make the root that is.
    let earlier = {
        let mut longer = rows.clone();
        grow(&mut longer, 5, "first");
        point(&longer)
    };
    let mut exchanged = record.clone();
    exchanged.lost.get_mut("orders").unwrap().swap(0, 1);
    assert!(check(&rows, &ring(&[1], &[exchanged]), &earlier).has(FindingKind::Truncated));
    assert!(sanctioned(&check(&rows, &ring(&[1], &[record]), &earlier)));
    // A rollback further back than the restore, and a row edited below it.
    rows.truncate(7);
    let record = {
        let mut again = Vec::new();
        grow(&mut again, 20, "first");
        restore(&mut again, 8, 1)
    };
    assert!(check(&rows, &ring(&[1], &[record]), &checkpoint).has(FindingKind::Truncated));
}

#[test]
fn restores_one_after_the_other_are_followed_back() {
    let mut rows = Vec::new();
    grow(&mut rows, 20, "first");
    let first = point(&rows[..18]);
    let one = restore(&mut rows, 12, 1);
    grow(&mut rows, 10, "second");
    let second = point(&rows[..17]);
    let two = restore(&mut rows, 6, 1);
    grow(&mut rows, 1, "third");
    let three = restore(&mut rows, 6, 1);
    grow(&mut rows, 40, "fourth");
    for order in [[&one, &two, &three], [&three, &two, &one]] {
        let keys = ring(&[1], &order.map(Clone::clone));
        assert!(sanctioned(&check(&rows, &keys, &first)));
        assert!(sanctioned(&check(&rows, &keys, &second)));
    }
    // Without the one in between the first cannot be reached.
    assert!(!check(&rows, &ring(&[1], &[one, three]), &first).ok);
}

#[test]
fn the_row_of_a_restore_speaks_for_itself_and_stays_visible() {
    let mut rows = Vec::new();
    grow(&mut rows, 20, "first");
    let checkpoint = point(&rows[..15]);
    let one = restore(&mut rows, 10, 1);
    append_body(&mut rows, RestoreBody::new(vec![one.clone()]).body());
    grow(&mut rows, 3, "second");
    // Restored to the same backup once more: the row goes, the new one carries its record.
    let two = restore(&mut rows, 10, 1);
    append_body(&mut rows, RestoreBody::new(vec![one.clone(), two]).body());
    grow(&mut rows, 30, "third");
    let report = check(&rows, &ring(&[1], &[]), &checkpoint);
    assert!(sanctioned(&report), "{report:?}");
    assert!(report.notes.iter().any(|note| note.position == Some(11)), "{report:?}");
    let without = check_with(&rows, &ring(&[1], &[]), None, None);
    assert!(sanctioned(&without), "{without:?}");
    let unchecked = check_with(&rows, &KeyRing::new(), None, None);
    assert!(unchecked.ok && unchecked.diagnosis.starts_with("intact:"), "{unchecked:?}");
    assert!(unchecked.notes.iter().any(|note| note.kind == NoteKind::NotChecked));
    assert!(check(&rows, &KeyRing::new(), &checkpoint).has(FindingKind::Rewritten));
    // Keys that are named must have signed it; keys that may also have are only not enough.
    let lenient = check_with(&rows, &ring(&[9], &[]), None, None);
    assert!(lenient.ok && lenient.notes.iter().any(|note| note.kind == NoteKind::NotChecked), "{lenient:?}");
    let mut named = KeyRing::new();
    named.add_public_key(ed25519_dalek::SigningKey::from_bytes(&[9; 32]).verifying_key());
    let forged = check(&rows, &named, &checkpoint);
    assert!(forged.has(FindingKind::SignatureInvalid) && forged.has(FindingKind::Rewritten), "{forged:?}");
    // The record of a restore copied to another place of the chain.
    let mut copied = Vec::new();
    grow(&mut copied, 20, "first");
    let _ = restore(&mut copied, 9, 1);
    append_body(&mut copied, RestoreBody::new(vec![one]).body());
    let report = check(&copied, &ring(&[1], &[]), &checkpoint);
    assert!(report.has(FindingKind::StateMismatch), "{report:?}");
}

#[test]
fn a_lineage_file_reads_back_and_names_the_line_that_does_not() {
    let mut rows = Vec::new();
    grow(&mut rows, 4, "first");
    let record = restore(&mut rows, 2, 1);
    let text = format!("{}\n\n{}\n", record.line(), record.line());
    assert_eq!(RestoreRecord::parse_file(&text).unwrap(), [record.clone(), record.clone()]);
    for bad in ["{}", "x", &record.line().replace("attestore.dev/restore/native", "example.com/other/native")]
    {
        let error = RestoreRecord::parse_file(&format!("{}\n{bad}\n", record.line())).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
