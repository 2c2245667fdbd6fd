//! z4j's log as a small writer writes it: honest histories verify, and whatever is changed is found under its name.

use audit_chain::checkpoint::{ChainCheckpoint, ChainPoint};
use audit_chain::format::Companions;
use audit_chain::formats;
use audit_chain::json_rows::{JsonSource, NdjsonSource};
use audit_chain::keys::KeyRing;
use audit_chain::report::{ChainReport, FindingKind, NoteKind, Verdict};
use audit_chain::source::RowSource;
use audit_chain::verify::{VerifyOptions, verify};
use base64::Engine as _;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::z4j::{check_text, kinds, ring};
use crate::z4j_writer::{Log, Row, STYLES, Style, key_id, mac, stamp, uuid};

fn ndjson(rows: &[Row]) -> String {
    rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect()
}

fn check(rows: &[Row], companions: &Companions, keys: &KeyRing) -> ChainReport {
    check_text(&ndjson(rows), companions, keys).unwrap()
}

/// Verifies a log as SQLite has it.
fn check_log(log: &Log) -> ChainReport {
    check(&log.spelt(Style::Sqlite), &log.companions(Style::Sqlite), &log.ring(None))
}

fn check_against(log: &Log, checkpoint: &ChainCheckpoint) -> ChainReport {
    let text = ndjson(&log.spelt(Style::Sqlite));
    let source = NdjsonSource::once("rows", std::io::Cursor::new(text)).unwrap();
    let companions = log.companions(Style::Sqlite);
    let options =
        VerifyOptions { companions: Some(&companions), checkpoint: Some(checkpoint), ..Default::default() };
    verify(&source, formats::by_name("z4j").unwrap().as_ref(), &log.ring(None), &options).unwrap()
}

fn checkpoint_of(report: &ChainReport) -> ChainCheckpoint {
    let chains = report.chains.iter().map(|chain| ChainPoint {
        id: chain.id.clone(),
        records: chain.records,
        root: base64::engine::general_purpose::STANDARD.decode(&chain.root).unwrap().try_into().unwrap(),
        head: chain.head.clone(),
        signed: chain.signed,
        ..serde_json::from_value(json!({
            "id": "", "records": 0, "root": chain.root, "head": "", "signed": 0
        }))
        .unwrap()
    });
    ChainCheckpoint { format: report.format.clone(), chains: chains.collect() }
}

fn noted(report: &ChainReport, kind: NoteKind) -> bool {
    report.notes.iter().any(|note| note.kind == kind)
}

/// One thing that happens to a log.
#[derive(Debug, Clone)]
enum Event {
    Append(i64),
    Rotate,
    /// So many hundredths of the rows.
    Prune(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        12 => (-5_i64..90_000).prop_map(Event::Append),
        // The clock is set back; era C clamps.
        1 => Just(Event::Append(-400_000)),
        1 => Just(Event::Rotate),
        1 => (0_usize..=100).prop_map(Event::Prune),
    ];
    prop::collection::vec(event, 1..40)
}

fn history(era: char, events: &[Event]) -> Log {
    let mut log = Log::of(era, 1);
    for event in events {
        match event {
            Event::Append(step) if era == 'C' => log.append(*step),
            Event::Append(step) => log.append(step.abs() + 1),
            Event::Rotate => log.rotate(),
            Event::Prune(part) if era == 'C' => log.prune(log.rows.len() * part / 100),
            Event::Prune(_) => {}
        }
    }
    log
}

/// The columns that a row's HMAC or its link covers.
const COVERED: [&str; 19] = [
    "action",
    "target_type",
    "target_id",
    "result",
    "outcome",
    "event_id",
    "user_id",
    "project_id",
    "source_ip",
    "user_agent",
    "metadata",
    "occurred_at",
    "prev_row_hmac",
    "row_hmac",
    "id",
    "api_key_id",
    "hmac_key_id",
    "chain_generation",
    "hmac_version",
];

/// Changes a value to another of the same shape.
fn change(row: &mut Row, column: &str) {
    let value = match (column, &row[column]) {
        ("metadata", Value::String(text)) => json!(text.replacen("\"n\"", "\"m\"", 1)),
        ("metadata", _) => json!({"n": "other"}),
        ("source_ip", _) => json!("10.9.9.9"),
        ("occurred_at", Value::String(text)) => json!(text.replacen("2026-01", "2026-02", 1)),
        ("hmac_version", _) => json!(7),
        ("row_hmac" | "prev_row_hmac" | "hmac_key_id", _) => json!("cd".repeat(32)),
        ("event_id" | "user_id" | "project_id" | "id" | "api_key_id" | "chain_generation", _) => {
            json!(uuid(4_242))
        }
        (_, Value::String(text)) => json!(format!("{text} ")),
        _ => json!("x"),
    };
    row.insert(column.into(), value);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_honest_history_verifies_in_every_spelling_and_order(
        era in prop::sample::select(vec!['A', 'B', 'C']), events in events(), style in prop::sample::select(STYLES.to_vec()),
        newest_first: bool,
    ) {
        let log = history(era, &events);
        let mut rows = log.spelt(style);
        if newest_first {
            rows.reverse();
        }
        let companions = log.companions(style);
        let report = check(&rows, &companions, &log.ring(None));
        prop_assert!(report.ok, "{:#?}", report.findings);
        prop_assert_eq!(report.records, rows.len() as u64);
        // Without its secrets it is neither good nor bad; with some of them it is not called tampered.
        let report = check(&rows, &companions, &KeyRing::new());
        prop_assert_eq!(report.verdict, Verdict::CannotVerify, "{:#?}", report.findings);
        let mut log = log;
        let last = log.secrets.split_off(log.secrets.len() - 1);
        if !log.secrets.is_empty() && era == 'C' {
            let report = check(&rows, &companions, &log.ring(None));
            let keys = |kind: FindingKind| matches!(kind, FindingKind::UnknownKey | FindingKind::WrongKey);
            prop_assert!(!report.ok && report.findings.iter().all(|finding| keys(finding.kind)), "{:#?}", report.findings);
        }
        drop(last);
    }

    #[test]
    fn any_changed_value_that_is_covered_is_found_at_its_row(
        era in prop::sample::select(vec!['A', 'B', 'C']), events in events(), style in prop::sample::select(STYLES.to_vec()),
        which: prop::sample::Index, column in prop::sample::select(COVERED.to_vec()),
    ) {
        let log = history(era, &events);
        let mut rows = log.spelt(style);
        prop_assume!(!rows.is_empty());
        let which = which.index(rows.len());
        prop_assume!(rows[which].contains_key(column));
        // Of eras A and B the end, and a chain of one row, are judged by nothing else.
        prop_assume!(era == 'C' || rows.len() > 1);
        let id = rows[which]["id"].clone();
        change(&mut rows[which], column);
        let report = check(&rows, &log.companions(style), &log.ring(None));
        prop_assert!(!report.ok, "{} of row {}", column, which);
        let id = uuid_of(if column == "id" { &rows[which]["id"] } else { &id });
        let named = report.findings.iter().any(|finding| finding.record.as_deref() == Some(&id));
        let spanned = report.findings.iter().any(|finding| finding.kind == FindingKind::WrongKey);
        prop_assert!(named || spanned, "{} of row {}: {:#?}", column, which, report.findings);
    }

    #[test]
    fn any_rows_taken_out_are_found(
        era in prop::sample::select(vec!['A', 'B', 'C']), events in events(), from: prop::sample::Index, count in 1_usize..5,
    ) {
        let log = history(era, &events);
        let mut rows = log.spelt(Style::Postgres);
        prop_assume!(!rows.is_empty());
        let from = from.index(rows.len());
        let to = (from + count).min(rows.len());
        let tail = to == rows.len();
        rows.drain(from..to);
        let report = check(&rows, &log.companions(Style::Postgres), &log.ring(None));
        // Eras A and B have no state row: what is cut off the end is seen by a checkpoint only.
        prop_assert_eq!(report.ok, tail && era != 'C', "{:#?}", report.findings);
    }

    #[test]
    fn any_changed_column_of_the_state_row_is_found(events in events(), which: prop::sample::Index) {
        let log = history('C', &events);
        let mut companions = log.companions(Style::Sqlite);
        let state = &mut companions.get_mut("audit_chain_state").unwrap()[0];
        let names: Vec<String> = state.keys().filter(|name| *name != "singleton_id").cloned().collect();
        let name = &names[which.index(names.len())];
        let value = match &state[name] {
            Value::Number(number) => json!(number.as_u64().unwrap() + 1),
            Value::String(text) if text.starts_with('{') => json!(text.replacen('}', ",\"x\":0}", 1)),
            Value::String(text) => json!(text.replace(|letter: char| letter.is_ascii_digit(), "7")),
            _ => json!("6ebf"),
        };
        prop_assume!(value != state[name]);
        state.insert(name.clone(), value);
        let report = check(&log.spelt(Style::Sqlite), &companions, &log.ring(None));
        prop_assert!(!report.ok, "{}", name);
    }
}

fn uuid_of(value: &Value) -> String {
    let digits = value.as_str().unwrap().replace('-', "");
    if digits.len() != 32 {
        return value.as_str().unwrap().to_owned();
    }
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

#[test]
fn each_thing_done_to_a_chain_of_era_c_has_its_name() {
    type Tamper = fn(&mut Log, &mut Vec<Row>, &mut Companions);
    let cases: &[(&str, Tamper, &[&str])] = &[
        ("nothing", |_, _, _| {}, &[]),
        ("edited", |_, rows, _| change(&mut rows[6], "action"), &["edited@7"]),
        ("one taken out", |_, rows, _| drop(rows.remove(6)), &["missing@7"]),
        ("the first taken out", |_, rows, _| drop(rows.remove(0)), &["missing-head@1"]),
        ("the last taken out", |_, rows, _| drop(rows.pop()), &["truncated"]),
        (
            "cut and gapped",
            |_, rows, _| {
                rows.remove(3);
                rows.pop();
            },
            &["truncated", "missing@4"],
        ),
        ("all taken out", |_, rows, _| rows.clear(), &["truncated"]),
        ("one twice", |_, rows, _| rows.insert(6, rows[6].clone()), &["duplicate@8"]),
        (
            "its HMAC taken away",
            |_, rows, _| {
                rows[6].insert("row_hmac".into(), Value::Null);
            },
            &["unsigned@7"],
        ),
        (
            "its HMAC and link taken away",
            |_, rows, _| {
                rows[6].insert("row_hmac".into(), Value::Null);
                rows[6].insert("prev_row_hmac".into(), Value::Null);
            },
            &["unsigned@7"],
        ),
        ("its HMAC replaced", |_, rows, _| change(&mut rows[6], "row_hmac"), &["edited@7"]),
        (
            "its HMAC no HMAC",
            |_, rows, _| {
                rows[6].insert("row_hmac".into(), "xyz".into());
            },
            &["malformed@7", "missing@8"],
        ),
        ("the last one's HMAC replaced", |_, rows, _| change(&mut rows[9], "row_hmac"), &["edited@10"]),
        ("a secret that made no row named", |_, rows, _| change(&mut rows[6], "hmac_key_id"), &["edited@7"]),
        (
            "the key id spelt in capitals",
            |_, rows, _| {
                let text = rows[6]["hmac_key_id"].as_str().unwrap().to_uppercase();
                rows[6].insert("hmac_key_id".into(), text.into());
            },
            &["edited@7"],
        ),
        (
            "an unknown version",
            |_, rows, _| {
                change(&mut rows[6], "hmac_version");
                change(&mut rows[6], "action");
            },
            &["unknown-version@7"],
        ),
        (
            "another generation",
            |_, rows, _| change(&mut rows[6], "chain_generation"),
            &["missing@7", "state-mismatch", "edited@1"],
        ),
        (
            "marked frozen",
            |_, rows, _| {
                rows[6].insert("legacy_frozen".into(), 1.into());
            },
            &["missing@7", "frozen!edited@1"],
        ),
        (
            "a valid row of another generation put in",
            |log, rows, _| {
                let mut other = log.clone();
                other.generation = uuid(8);
                let mut row = other.rows[9].clone();
                other.sign(&mut row);
                rows.push(log.spell(&row, false, Style::Sqlite));
            },
            &["state-mismatch"],
        ),
        (
            "an honest row after the signed head",
            |log, rows, _| {
                log.append(1_000);
                rows.push(log.spell(&log.rows[10], false, Style::Sqlite));
            },
            &["state-mismatch"],
        ),
        (
            "the state row gone",
            |_, _, tables| {
                tables.insert("audit_chain_state".into(), Vec::new());
            },
            &["state-mismatch"],
        ),
        (
            "the state table gone",
            |_, _, tables| drop(tables.remove("audit_chain_state")),
            &["state-mismatch"],
        ),
        (
            "two state rows",
            |_, _, tables| {
                let rows = tables.get_mut("audit_chain_state").unwrap();
                rows.push(rows[0].clone());
            },
            &["state-mismatch"],
        ),
        (
            "an older genuine state row",
            |log, _, tables| {
                log.rows.truncate(8);
                log.head = log.rows.last().cloned();
                *tables = log.companions(Style::Sqlite);
            },
            &["state-mismatch"],
        ),
        (
            "the state of another database",
            |_, _, tables| {
                let mut other = Log::of('C', 10);
                other.secrets[0].push('x');
                *tables = other.companions(Style::Sqlite);
            },
            &["unknown-key"],
        ),
    ];
    for (name, tamper, wanted) in cases {
        let mut log = Log::of('C', 10);
        let (mut rows, mut companions, keys) =
            (log.spelt(Style::Sqlite), log.companions(Style::Sqlite), log.ring(None));
        tamper(&mut log, &mut rows, &mut companions);
        let report = check(&rows, &companions, &keys);
        assert_eq!(kinds(&report), *wanted, "{name}: {:#?}", report.findings);
        assert_eq!(report.ok, wanted.is_empty(), "{name}");
    }
}

#[test]
fn each_rule_of_the_state_row_is_held_to() {
    type Edit = fn(&mut Row);
    let cases: &[(Edit, &str)] = &[
        (|state| drop(state.insert("active_row_count".into(), 11.into())), "does not sum"),
        (|state| drop(state.insert("active_row_count".into(), json!(-1))), "expected a count"),
        (|state| drop(state.insert("head_id".into(), Value::Null)), "expected all or none"),
        (|state| drop(state.insert("prune_id".into(), uuid(3).into())), "expected all or none"),
        (|state| drop(state.insert("frozen_row_count".into(), 1.into())), "exactly when no row is frozen"),
        (
            |state| drop(state.insert("frozen_snapshot_digest".into(), "00".into())),
            "exactly when no row is frozen",
        ),
        (|state| drop(state.insert("format_version".into(), 2.into())), "expected 1"),
        (|state| drop(state.insert("active_key_counts".into(), "[1]".into())), "expected an object"),
        (|state| drop(state.insert("active_key_counts".into(), "{".into())), "expected JSON"),
        (|state| drop(state.insert("head_occurred_at".into(), "yesterday".into())), "head_occurred_at"),
        (|state| drop(state.insert("generation".into(), Value::Null)), "generation is NULL"),
        (
            |state| {
                for name in ["row_hmac", "hmac_key_id", "occurred_at", "id"] {
                    state.insert(format!("head_{name}"), Value::Null);
                }
            },
            "but no head",
        ),
        (|state| drop(state.insert("singleton_id".into(), "other".into())), "not z4j's"),
        (|state| drop(state.insert("state_mac".into(), "00".into())), "not what its MAC commits to"),
        (|state| drop(state.insert("installation_id".into(), uuid(6).into())), "not what its MAC commits to"),
    ];
    let log = Log::of('C', 10);
    for (edit, said) in cases {
        let mut companions = log.companions(Style::Sqlite);
        edit(&mut companions.get_mut("audit_chain_state").unwrap()[0]);
        let report = check(&log.spelt(Style::Sqlite), &companions, &log.ring(None));
        assert_eq!(kinds(&report), ["state-mismatch"], "{said}: {:#?}", report.findings);
        assert!(report.findings[0].explains.contains(said), "{said}: {}", report.findings[0].explains);
    }
    // The tally of PostgreSQL's triggers is signed by nobody, but it must fit.
    let mut companions = log.companions(Style::Sqlite);
    companions.get_mut("audit_chain_state").unwrap()[0].insert("observed_active_row_count".into(), 9.into());
    let report = check(&log.spelt(Style::Sqlite), &companions, &log.ring(None));
    assert_eq!(kinds(&report), ["state-mismatch"]);
}

#[test]
fn rows_without_their_state_row_at_hand_verify_with_a_note_that_the_end_was_not_checked() {
    let log = Log::of('C', 10);
    let report = check(&log.spelt(Style::Json), &Companions::new(), &log.ring(None));
    assert!(report.ok && noted(&report, NoteKind::NotChecked), "{report:#?}");
    let bodies = include_str!("../vectors/z4j/v2-valid/forward-bodies.jsonl");
    let env = json!({"Z4J_AUDIT_CHAIN_SECRET": "test-audit-chain-secret-0123456789-K1"});
    let report = check_text(bodies, &Companions::new(), &ring(&env)).unwrap();
    assert!(report.ok && noted(&report, NoteKind::NotChecked), "{report:#?}");
    assert_eq!(report.records, 58);
}

#[test]
fn a_rollback_with_its_own_state_row_is_seen_by_an_earlier_checkpoint_only() {
    let mut log = Log::of('C', 20);
    let later = checkpoint_of(&check_log(&log));
    log.rows.truncate(12);
    log.head = log.rows.last().cloned();
    assert!(check_log(&log).ok);
    assert_eq!(kinds(&check_against(&log, &later)), ["truncated"]);
}

#[test]
fn a_removal_on_record_does_not_make_an_earlier_checkpoint_useless() {
    let mut log = Log::of('C', 20);
    let earlier = checkpoint_of(&check_log(&log));
    // Fewer rows than then, as many, and more: what was the head is still here.
    log.prune(12);
    for _ in 0..3 {
        let report = check_against(&log, &earlier);
        assert!(report.ok && noted(&report, NoteKind::Pruned), "{:#?}", report.findings);
        (0..12).for_each(|_| log.append(5_000));
    }
    // What was the head is the boundary itself.
    let head = log.rows.iter().position(|row| row["row_hmac"] == earlier.chains[0].head.as_str()).unwrap();
    log.prune(head + 1);
    assert!(check_against(&log, &earlier).ok);
    // It is among what was removed: nobody can tell from these rows.
    log.prune(1);
    assert_eq!(kinds(&check_against(&log, &earlier)), ["checkpoint-mismatch"]);
    assert!(check_log(&log).ok);
    // Cut off the end, with the state row of then, it is seen.
    let mut log = Log::of('C', 20);
    log.prune(5);
    let earlier = checkpoint_of(&check_log(&log));
    log.rows.truncate(9);
    log.head = log.rows.last().cloned();
    assert_eq!(kinds(&check_against(&log, &earlier)), ["checkpoint-mismatch"]);
}

#[test]
fn secrets_that_are_not_at_hand_are_named_and_rotations_noted() {
    let mut log = Log::of('C', 5);
    log.rotate();
    log.append(1_000);
    let report = check_log(&log);
    let note = report.notes.iter().find(|note| note.kind == NoteKind::Rotated).unwrap();
    assert_eq!(note.position, Some(6));
    let spans: Vec<_> =
        report.chains[0].verified_by.iter().map(|by| (by.key.as_str(), by.from, by.to)).collect();
    assert_eq!(spans, [("Z4J_AUDIT_CHAIN_PREVIOUS_SECRETS#1", 1, 5), ("Z4J_AUDIT_CHAIN_SECRET#1", 6, 7)]);
    let mut keys = KeyRing::new();
    keys.add_secret("Z4J_AUDIT_CHAIN_SECRET", format!("{} ", log.secrets[1]).into_bytes());
    let report = check(&log.spelt(Style::Sqlite), &log.companions(Style::Sqlite), &keys);
    assert_eq!(
        (report.verdict, kinds(&report)),
        (
            Verdict::CannotVerify,
            vec!["unknown-key".into(), "unknown-key@1-5".into(), "unknown-key@6-7".into()]
        )
    );
    let wanted = format!("key id {}", key_id(&log.secrets[0]));
    assert_eq!(report.findings[1].found.as_deref(), Some(wanted.as_str()));
    assert!(
        report.findings[2].explains.contains("fits without the white space"),
        "{}",
        report.findings[2].explains
    );
    assert!(!format!("{report:?}").contains("test-secret-number"));
}

#[test]
fn era_b_tells_a_secret_that_is_not_at_hand_from_edits() {
    let log = Log::of('B', 12);
    let edited = |which: &[usize]| {
        let mut rows = log.spelt(Style::Sqlite);
        which.iter().for_each(|at| change(&mut rows[*at], "action"));
        kinds(&check(&rows, &log.companions(Style::Sqlite), &log.ring(None)))
    };
    assert_eq!(edited(&[0]), ["edited@1"]);
    assert_eq!(edited(&[11]), ["edited@12"]);
    assert_eq!(edited(&[4, 5, 6, 7]), ["edited@5", "edited@6", "edited@7", "edited@8"]);
    assert_eq!(edited(&[2, 9]), ["edited@3", "edited@10"]);
    assert_eq!(edited(&[9, 10, 11]), ["unknown-key@10-12"]);
    // A stretch longer than what is kept of ids.
    let log = Log::of('B', 40);
    let mut rows = log.spelt(Style::Sqlite);
    rows[5..35].iter_mut().for_each(|row| change(row, "action"));
    let report = check(&rows, &log.companions(Style::Sqlite), &log.ring(None));
    assert_eq!(kinds(&report).last().unwrap(), "edited@22-35");
    // A secret in the middle that is not at hand.
    let mut log = Log::of('B', 5);
    log.rotate();
    (0..4).for_each(|_| log.append(1_000));
    log.rotate();
    log.append(1_000);
    let rows = log.spelt(Style::Sqlite);
    log.secrets.remove(1);
    let report = check(&rows, &log.companions(Style::Sqlite), &log.ring(None));
    assert_eq!(kinds(&report), ["unknown-key@6-10"]);
}

#[test]
fn era_b_written_with_the_clock_set_back_is_a_note() {
    let mut log = Log::of('B', 8);
    log.append(-150_000);
    log.append(400_000);
    log.append(1_000);
    let report = check_log(&log);
    assert!(report.ok && noted(&report, NoteKind::ClockStepBack), "{:#?}", report.findings);
    // The same row with its time changed by hand is not.
    let log = Log::of('B', 8);
    let mut rows = log.spelt(Style::Sqlite);
    rows[6].insert("occurred_at".into(), stamp(1_050_000).replace('T', " ").into());
    let report = check(&rows, &log.companions(Style::Sqlite), &log.ring(None));
    assert!(report.has(FindingKind::Edited), "{:#?}", report.findings);
}

#[test]
fn rows_alone_that_begin_later_are_a_note_until_a_checkpoint_knows_what_was_before() {
    let log = Log::of('C', 12);
    let rows = log.spelt(Style::Sqlite);
    let verify_rows = |rows: &[Row], checkpoint: Option<&ChainCheckpoint>| {
        let source = NdjsonSource::once("rows", std::io::Cursor::new(ndjson(rows))).unwrap();
        let options = VerifyOptions { checkpoint, ..Default::default() };
        verify(&source, formats::by_name("z4j").unwrap().as_ref(), &log.ring(None), &options).unwrap()
    };
    let later = verify_rows(&rows[4..], None);
    assert!(later.ok && noted(&later, NoteKind::RetentionGap), "{later:#?}");
    let whole = checkpoint_of(&verify_rows(&rows, None));
    let cut = verify_rows(&rows[4..], Some(&whole));
    assert_eq!(kinds(&cut), ["missing-head@1"], "{cut:#?}");
    // A checkpoint of the later rows themselves vouches for where they begin.
    let same = verify_rows(&rows[4..], Some(&checkpoint_of(&later)));
    assert!(same.ok && noted(&same, NoteKind::RetentionGap), "{same:#?}");
}

#[test]
fn a_watermark_is_worth_what_authenticates_it() {
    let log = Log::of('B', 12);
    let master = &log.secrets[0];
    let boundary = log.rows[3]["row_hmac"].as_str().unwrap();
    let authentic = mac(master, &[b"audit_prune_watermark|", boundary.as_bytes()]);
    let check_with = |value: String, skip: usize| {
        let row = json!({"key": "audit_prune_watermark", "value": value}).as_object().unwrap().clone();
        let companions = Companions::from([("z4j_meta".into(), vec![row])]);
        check(&log.spelt(Style::Sqlite)[skip..], &companions, &log.ring(None))
    };
    let report = check_with(boundary.to_owned(), 4);
    assert!(report.ok && noted(&report, NoteKind::RetentionGap), "{report:#?}");
    let report = check_with(format!("{boundary}:{authentic}"), 4);
    assert!(report.ok && noted(&report, NoteKind::Pruned), "{report:#?}");
    let forged = mac("another secret", &[b"audit_prune_watermark|", boundary.as_bytes()]);
    assert_eq!(kinds(&check_with(format!("{boundary}:{forged}"), 4)), ["state-mismatch"]);
    assert_eq!(kinds(&check_with(boundary.to_owned(), 5)), ["missing-head@1"]);
    assert_eq!(kinds(&check_with(boundary.to_owned(), 0)), ["link-broken@1"]);
}

#[test]
fn frozen_rows_stand_by_their_signed_digest_or_by_their_own_secret() {
    let (log, master) = Log::of('B', 10).upgrade();
    let rows = log.spelt(Style::Sqlite);
    let companions = log.companions(Style::Sqlite);
    let with_master = log.ring(Some(&master));
    for (keys, checked) in [(&with_master, true), (&log.ring(None), false)] {
        let report = check(&rows, &companions, keys);
        assert!(report.ok && noted(&report, NoteKind::NotChecked) != checked, "{report:#?}");
        assert_eq!(report.chain("frozen").unwrap().records, 10);
    }
    // An edit is found to the row where the secret is at hand, and by the digest where it is not.
    let mut edited = rows.clone();
    change(&mut edited[3], "action");
    assert_eq!(kinds(&check(&edited, &companions, &with_master)), ["frozen!edited@4"]);
    assert_eq!(kinds(&check(&edited, &companions, &log.ring(None))), ["frozen!state-mismatch"]);
    let mut cut = rows.clone();
    cut.remove(9);
    assert_eq!(kinds(&check(&cut, &companions, &log.ring(None))), ["frozen!truncated"]);
    let mut marked = rows.clone();
    marked[3].insert("legacy_integrity_class".into(), "made up".into());
    assert_eq!(kinds(&check(&marked, &companions, &log.ring(None))), ["frozen!edited@4"]);
    // Alone, as in a frozen export document, only their secret stands for them.
    let document =
        json!({"format_version": 1, "manifest": {"rows": 10}, "rows": log.spelt(Style::Json)[..10]});
    for (keys, verdict) in [(&with_master, Verdict::Intact), (&log.ring(None), Verdict::CannotVerify)] {
        let text = serde_json::to_vec_pretty(&document).unwrap();
        let source = JsonSource::parse("frozen.json", &text).unwrap();
        let format = formats::by_name("z4j").unwrap();
        let report = verify(&source, format.as_ref(), keys, &VerifyOptions::default()).unwrap();
        assert_eq!((report.verdict, report.records), (verdict, 10), "{report:#?}");
        assert!(source.name().contains("frozen.json"));
    }
}

#[test]
fn numbers_that_are_not_finite_are_honest_in_era_b_and_edits_in_era_c() {
    let with_nan = |era: char| {
        let log = Log::of(era, 6);
        let mut rows = log.spelt(Style::Sqlite);
        rows[2].insert("metadata".into(), "{\"x\": [NaN, -Infinity, \"NaN\"]}".into());
        (log, rows)
    };
    let (log, mut rows) = with_nan('B');
    // Signed as Python prints it.
    let mut row = log.rows[2].clone();
    row.insert("metadata".into(), json!(null));
    let mut signed: Row =
        crate::z4j_writer::LEGACY.iter().map(|name| ((*name).to_owned(), row[*name].clone())).collect();
    signed.insert("version".into(), 1.into());
    let text = serde_json::to_string(&signed)
        .unwrap()
        .replace("\"metadata\":null", "\"metadata\":{\"x\":[NaN,-Infinity,\"NaN\"]}");
    rows[2].insert("row_hmac".into(), mac(&log.secrets[0], &[text.as_bytes()]).into());
    let report = check(&rows, &log.companions(Style::Sqlite), &log.ring(None));
    assert_eq!(kinds(&report), ["missing@4"], "{:#?}", report.findings);
    let (log, rows) = with_nan('C');
    assert_eq!(kinds(&check(&rows, &log.companions(Style::Sqlite), &log.ring(None))), ["edited@3"]);
}

#[test]
fn the_three_forms_of_era_a_stand_side_by_side() {
    let answers: Value = serde_json::from_str(include_str!("../vectors/z4j/KAT.json")).unwrap();
    let mixed = &answers["v3_mixed"];
    let rows: Vec<Row> = mixed["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| {
            let mut row: Row = serde_json::from_str(answer["canonical"]["3"].as_str().unwrap()).unwrap();
            row.remove("version");
            row.insert("row_hmac".into(), answer["row_hmac"].clone());
            row
        })
        .collect();
    let keys = ring(&json!({"Z4J_SECRET": mixed["master_secret"]}));
    let report = check(&rows, &Companions::new(), &keys);
    assert!(report.ok, "{:#?}", report.findings);
    let note = report.notes.iter().find(|note| note.kind == NoteKind::NotChecked).unwrap();
    assert_eq!((note.position, note.last), (Some(1), Some(8)));
    // Each is held to its own form.
    for at in 0..rows.len() {
        let mut edited = rows.clone();
        edited[at].insert("action".into(), "other".into());
        assert_eq!(kinds(&check(&edited, &Companions::new(), &keys)), [format!("edited@{}", at + 1)]);
    }
}

#[test]
fn z4js_own_exports_are_refused_with_the_reason() {
    let line = r#"{"id":"bbd14ae2-3341-45ae-a7fa-eb45db190ce5","occurred_at":"2026-11-20T13:58:56.816147","action":"a","target_type":"t","target_id":"","result":"success","outcome":"allow","user_id":"","event_id":"","source_ip":"","user_agent":"","metadata":"{}"}"#;
    let error = check_text(line, &Companions::new(), &KeyRing::new()).unwrap_err();
    assert!(error.to_string().contains("nobody can verify"), "{error}");
    let error =
        check_text("{\"id\":1,\"chain_generation\":2}", &Companions::new(), &KeyRing::new()).unwrap_err();
    assert!(error.to_string().contains("no column project_id"), "{error}");
}
