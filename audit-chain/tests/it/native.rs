//! The native format: honest histories verify, and every kind of tampering gets its name.

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::formats;
use audit_chain::json_rows::NdjsonSource;
use audit_chain::keys::KeyRing;
use audit_chain::native::{NativeAppender, NativeHead, NativeKey, NativeRecord};
use audit_chain::report::{ChainReport, FindingKind, NoteKind, Verdict};
use audit_chain::verify::{VerifyOptions, verify};
use proptest::prelude::*;

const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];

fn ring(secrets: &[[u8; 32]]) -> KeyRing {
    let mut keys = KeyRing::new();
    secrets.iter().for_each(|secret| keys.add_secret("CHAIN", secret.to_vec()));
    keys
}

/// Two chains, interleaved: `plain` without keys; `keyed` with OLD, then a rotation to NEW halfway.
fn history(count: usize) -> Vec<NativeRecord> {
    let mut plain = NativeAppender::new(NativeHead::genesis("plain"), None);
    let mut keyed = NativeAppender::new(NativeHead::genesis("keyed"), Some(NativeKey::new(&OLD).unwrap()));
    let mut rows = Vec::new();
    for at in 0..count {
        let time = 1_780_401_600_000_000 + at as i64;
        rows.push(plain.append(time, format!("{{\"n\":{at}}}")).unwrap());
        let body = if at == count / 2 {
            keyed.rotate(NativeKey::new(&NEW).unwrap())
        } else {
            format!("{{\"text\":\"line\\n\u{e9} {at}\"}}")
        };
        rows.push(keyed.append(time, body).unwrap());
    }
    rows
}

fn text(rows: &[NativeRecord]) -> String {
    rows.iter().map(|row| row.line() + "\n").collect()
}

fn check_text(
    text: &str,
    keys: &KeyRing,
    checkpoint: Option<&ChainCheckpoint>,
) -> Result<ChainReport, String> {
    let open = || Ok(Some(Box::new(std::io::Cursor::new(text.as_bytes().to_vec())) as _));
    let source = NdjsonSource::new("rows.ndjson", open).map_err(|error| error.to_string())?;
    let format = formats::by_name("native").unwrap();
    let options = VerifyOptions { checkpoint, threads: 2, ..Default::default() };
    verify(&source, format.as_ref(), keys, &options).map_err(|error| error.to_string())
}

fn check(rows: &[NativeRecord], secrets: &[[u8; 32]], checkpoint: Option<&ChainCheckpoint>) -> ChainReport {
    check_text(&text(rows), &ring(secrets), checkpoint).unwrap()
}

fn kinds(report: &ChainReport) -> Vec<String> {
    let place = |finding: &audit_chain::report::Finding| match (finding.position, finding.last) {
        (Some(from), Some(to)) => format!("@{from}-{to}"),
        (Some(from), None) => format!("@{from}"),
        (None, _) => String::new(),
    };
    report.findings.iter().map(|found| format!("{} {}{}", found.chain, found.kind, place(found))).collect()
}

/// The place in `rows` of a record of a chain.
fn of(rows: &[NativeRecord], chain: &str, seq: u64) -> usize {
    rows.iter().position(|row| row.chain == chain && row.seq == seq).unwrap()
}

#[test]
fn an_honest_history_verifies_and_says_which_key_made_which_span() {
    let rows = history(10);
    let report = check(&rows, &[NEW, OLD], None);
    assert_eq!((report.verdict, report.records), (Verdict::Intact, 20), "{report:?}");
    let keyed = report.chain("keyed").unwrap();
    let spans: Vec<_> = keyed.verified_by.iter().map(|by| (by.key.as_str(), by.from, by.to)).collect();
    assert_eq!(spans, [("CHAIN#2", 1, 5), ("CHAIN#1", 6, 10)]);
    assert_eq!((keyed.signed, &keyed.head), (10, &rows[of(&rows, "keyed", 10)].hash));
    assert_eq!(report.chain("plain").unwrap().signed, 0);
}

#[test]
fn without_any_secret_keyed_records_are_neither_good_nor_bad() {
    let rows: Vec<_> = history(10).into_iter().filter(|row| row.chain == "keyed").collect();
    for secrets in [&[][..], &[[3; 32]]] {
        let report = check(&rows, secrets, None);
        assert_eq!(report.verdict, Verdict::CannotVerify, "{report:?}");
        assert_eq!(kinds(&report), ["keyed unknown-key@1-5", "keyed unknown-key@6-10"]);
        let wanted = format!("key id {}", NativeKey::new(&OLD).unwrap().id());
        assert_eq!(report.findings[0].found.as_deref(), Some(wanted.as_str()));
    }
}

#[test]
fn without_the_retired_secret_its_span_is_named_and_not_called_edited() {
    let report = check(&history(10), &[NEW], None);
    assert_eq!(report.verdict, Verdict::Findings);
    assert_eq!(kinds(&report), ["keyed unknown-key@1-5"]);
}

#[test]
fn records_of_an_unknown_version_are_neither_good_nor_bad() {
    let mut rows: Vec<_> = history(3).into_iter().filter(|row| row.chain == "plain").collect();
    rows.iter_mut().for_each(|row| row.v = 2);
    let report = check(&rows, &[], None);
    assert_eq!(report.verdict, Verdict::CannotVerify, "{report:?}");
    assert_eq!(kinds(&report), ["plain unknown-version@1-3"]);
    assert!(report.diagnosis.contains("version"), "{}", report.diagnosis);

    let mut rows = history(10);
    let at = of(&rows, "keyed", 7);
    rows[at].v = 9;
    let report = check(&rows, &[NEW, OLD], None);
    assert_eq!((report.verdict, kinds(&report)), (Verdict::Findings, vec!["keyed unknown-version@7".into()]));
}

/// What is edited, how, and what is found.
type Edit = (&'static str, fn(&mut NativeRecord), &'static [&'static str]);

#[test]
fn any_edited_field_is_found_at_its_record() {
    let edits: [Edit; 5] = [
        ("body", |row| row.body.push(' '), &["edited@4"]),
        ("at", |row| row.at = row.at.replace("2026", "2025"), &["edited@4"]),
        ("prev", |row| row.prev = "0".repeat(64), &["edited@4", "link-broken@4"]),
        ("hash", |row| row.hash = "0".repeat(64), &["edited@4", "link-broken@5"]),
        ("spelling of the hash", |row| row.hash = row.hash.to_uppercase(), &["malformed@4", "link-broken@5"]),
    ];
    for chain in ["plain", "keyed"] {
        for (what, edit, expected) in edits {
            let mut rows = history(10);
            let at = of(&rows, chain, 4);
            edit(&mut rows[at]);
            let report = check(&rows, &[NEW, OLD], None);
            let expected: Vec<_> = expected.iter().map(|kind| format!("{chain} {kind}")).collect();
            assert_eq!(kinds(&report), expected, "{what} of {chain}");
        }
    }
}

#[test]
fn rows_gone_moved_doubled_or_forked_get_their_name() {
    let all = history(10);
    let plain = |seq| of(&all, "plain", seq);
    let without = |places: &[usize]| {
        let rows = all.iter().enumerate().filter(|(at, _)| !places.contains(at));
        rows.map(|(_, row)| row.clone()).collect::<Vec<_>>()
    };
    let find = |rows: &[NativeRecord]| kinds(&check(rows, &[NEW, OLD], None));
    assert_eq!(find(&without(&[plain(4), plain(5)])), ["plain missing@6"]);
    assert_eq!(find(&without(&[plain(1)])), ["plain missing-head@2"]);
    let mut doubled = all.clone();
    doubled.insert(plain(4), all[plain(4)].clone());
    assert_eq!(find(&doubled), ["plain duplicate@4"]);
    let mut forked = all.clone();
    let fork = NativeHead::from(&all[plain(3)]).next(5, "other", None).unwrap();
    forked.insert(plain(4), fork);
    assert_eq!(find(&forked)[0], "plain forked@4");
    let mut moved = all.clone();
    moved.swap(plain(4), plain(7));
    assert!(
        find(&moved).iter().all(|kind| kind.starts_with("plain ") && !kind.contains("edited")),
        "{:?}",
        find(&moved)
    );
}

#[test]
fn a_cut_tail_a_rewritten_history_and_a_lost_chain_are_found_with_the_checkpoint() {
    let rows = history(10);
    let report = check(&rows, &[NEW, OLD], None);
    let checkpoint = ChainCheckpoint::from_report(&report).unwrap();
    let find = |rows: &[NativeRecord]| kinds(&check(rows, &[NEW, OLD], Some(&checkpoint)));
    assert!(find(&rows).is_empty());

    let mut longer = rows.clone();
    longer.push(NativeHead::from(&rows[of(&rows, "plain", 10)]).next(7, "more", None).unwrap());
    assert!(find(&longer).is_empty());

    assert_eq!(find(&rows[..18]), ["keyed truncated", "plain truncated"]);
    let only_plain: Vec<_> = rows.iter().filter(|row| row.chain == "plain").cloned().collect();
    assert_eq!(find(&only_plain), ["keyed missing-chain"]);

    let mut log = NativeAppender::new(NativeHead::genesis("plain"), None);
    let mut anew: Vec<_> = rows.iter().filter(|row| row.chain == "keyed").cloned().collect();
    for at in 0..12 {
        anew.push(log.append(at, "forged").unwrap());
    }
    assert_eq!(find(&anew), ["plain rewritten"]);
}

/// Whoever can write the table but has no secret can only make plain records.
#[test]
fn a_keyed_chain_continued_without_the_key_is_found() {
    let mut rows: Vec<_> = history(10).into_iter().filter(|row| row.chain == "keyed").collect();
    rows.truncate(8);
    // The appender refuses this; the attacker does not use it.
    let mut forged = NativeRecord { seq: 9, prev: rows[7].hash.clone(), key_id: None, ..rows[7].clone() };
    forged.hash = hex::encode(forged.digest(None));
    rows.push(forged);
    let report = check(&rows, &[NEW, OLD], None);
    assert_eq!(kinds(&report), ["keyed unsigned@9"]);
    assert!(report.has(FindingKind::Unsigned));
}

#[test]
fn a_chain_that_was_plain_first_may_become_keyed() {
    let mut log = NativeAppender::new(NativeHead::genesis("a"), None);
    let mut rows = vec![log.append(0, "one").unwrap(), log.append(1, "two").unwrap()];
    let body = log.rotate(NativeKey::new(&NEW).unwrap());
    rows.push(log.append(2, body).unwrap());
    let report = check(&rows, &[NEW], None);
    assert_eq!(report.verdict, Verdict::Intact, "{report:?}");
    let note = &report.notes[0];
    assert_eq!((note.kind, note.position, note.last), (NoteKind::UnsignedSpan, Some(1), Some(2)));
}

#[test]
fn rows_of_the_wrong_types_are_malformed_and_the_walk_goes_on() {
    let rows = history(3);
    let line = rows[of(&rows, "plain", 2)].line();
    for (good, bad) in [
        ("\"v\":1", "\"v\":\"1\""),
        ("\"v\":1", "\"v\":null"),
        ("\"at\":\"", "\"at\":[\""),
        ("\"key_id\":null", "\"key_id\":\"\""),
        ("\"key_id\":null", "\"key_id\":7"),
        ("\"body\":\"{\\\"n\\\":1}\"", "\"body\":{\"n\":1}"),
    ] {
        let mut bad = line.replacen(good, bad, 1);
        if bad.contains('[') {
            bad = bad.replacen("Z\"", "Z\"]", 1);
        }
        assert_ne!(line, bad);
        let report = check_text(&text(&rows).replace(&line, &bad), &ring(&[NEW, OLD]), None).unwrap();
        assert_eq!(kinds(&report), ["plain malformed@2"], "{bad}");
    }
}

#[test]
fn rows_of_another_format_are_named_so() {
    let error = check_text("{\"receipt_hash\":\"\",\"id\":\"a\"}\n", &ring(&[]), None).unwrap_err();
    assert!(error.contains("is not native") && error.contains("no column chain, seq"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// With the checkpoint, any flipped bit of the stored rows is an error or a finding, whatever it hits.
    #[test]
    fn any_flipped_bit_of_any_row_is_noticed(at: prop::sample::Index) {
        let rows = history(4);
        let checkpoint = ChainCheckpoint::from_report(&check(&rows, &[NEW, OLD], None)).unwrap();
        let mut bytes = text(&rows).into_bytes();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
        if let Ok(report) = check_text(&text, &ring(&[NEW, OLD]), Some(&checkpoint)) {
            prop_assert!(!report.ok, "bit {bit}: {text}");
        }
    }

    #[test]
    fn any_honest_history_verifies(
        bodies in proptest::collection::vec(("\\PC{0,30}|[\\x00-\\x7f]{0,9}", 0..3_usize, -9_i64..9), 0..30), keyed: [bool; 3],
    ) {
        let mut logs: Vec<_> = keyed.iter().enumerate().map(|(n, keyed)| {
            let key = keyed.then(|| NativeKey::new(&NEW).unwrap());
            NativeAppender::new(NativeHead::genesis(format!("chain {n}")), key)
        }).collect();
        let rows: Vec<_> = bodies.into_iter().map(|(body, log, at)| logs[log].append(at, body).unwrap()).collect();
        let report = check(&rows, &[NEW], None);
        prop_assert!(report.ok, "{report:?}");
    }
}
