//! What is new since the last run, where records are numbered: many chains, holes that are filled late, retention, rewritten rows.

use audit_chain::export::each_record;
use audit_chain::export::series::{Finished, Progress, Watermark};
use audit_chain::export::text::RowShape;
use audit_chain::formats::native::Native;
use audit_chain::json_rows::NdjsonSource;
use audit_chain::native::{NativeAppender, NativeHead, NativeRecord};
use audit_chain::report::FindingKind;

/// Makes the records of a chain.
fn chain(id: &str, count: i64) -> Vec<NativeRecord> {
    let mut log = NativeAppender::new(NativeHead::genesis(id), None);
    (0..count).map(|at| log.append(at, format!("{{\"n\":{at}}}")).unwrap()).collect()
}

/// Runs over rows in this order; returns the numbers that are new, and how the run ended.
fn run(mark: &mut Watermark, rows: &[&NativeRecord]) -> (Vec<(String, u64)>, Finished) {
    let text: String = rows.iter().map(|row| row.line() + "\n").collect();
    let source = NdjsonSource::once("rows", text.as_bytes()).unwrap();
    let mut progress = Progress::new(&Native, mark);
    let mut new = Vec::new();
    each_record(&source, &Native, None, &mut |_, record| {
        if progress.is_new(record)? {
            new.push((record.chain.to_owned(), u64::try_from(record.number.unwrap()).unwrap()));
        }
        Ok(())
    })
    .unwrap();
    let done = progress.finish();
    if done.findings.is_empty() {
        mark.chains.clone_from(&done.chains);
        // What is stored comes back.
        let text = serde_json::to_vec(mark).unwrap();
        *mark = Watermark::parse("mark", &text, "native", RowShape::Ndjson).unwrap();
    }
    (new, done)
}

fn fresh() -> Watermark {
    Watermark::new("native", RowShape::Ndjson, "s".into())
}

fn numbers(new: &[(String, u64)], chain: &str) -> Vec<u64> {
    new.iter().filter(|(id, _)| id == chain).map(|(_, number)| *number).collect()
}

#[test]
fn each_chain_has_its_own_place_and_every_record_is_new_once() {
    let chains: Vec<Vec<NativeRecord>> = (0..200).map(|at| chain(&format!("record-{at}"), 9)).collect();
    let mut mark = fresh();
    let mut exported = 0;
    for step in 0..=9 {
        // Another number of records of each chain at each step, grouped or mixed.
        let mut rows: Vec<&NativeRecord> = chains
            .iter()
            .enumerate()
            .flat_map(|(at, chain)| chain.iter().take((step + at % 3).min(9)))
            .collect();
        if step % 2 == 1 {
            rows.sort_by_key(|row| row.seq);
        }
        let total = rows.len();
        let (new, done) = run(&mut mark, &rows);
        assert!(done.findings.is_empty() && done.notes.is_empty(), "{:?}", done.findings);
        exported += new.len();
        assert_eq!(exported, total);
    }
    assert_eq!(exported, 1_800);
}

#[test]
fn a_number_that_was_not_there_is_new_when_it_comes() {
    let all = chain("zone", 9);
    let mut mark = fresh();
    let pick =
        |numbers: &[usize]| -> Vec<&NativeRecord> { numbers.iter().map(|number| &all[number - 1]).collect() };
    assert_eq!(numbers(&run(&mut mark, &pick(&[1, 2, 4, 6])).0, "zone"), [1, 2, 4, 6]);
    assert_eq!(numbers(&run(&mut mark, &pick(&[1, 2, 3, 4, 6])).0, "zone"), [3]);
    assert_eq!(numbers(&run(&mut mark, &pick(&[1, 2, 3, 4, 5, 6, 7])).0, "zone"), [5, 7]);
    assert_eq!(numbers(&run(&mut mark, &pick(&[1, 2, 3, 4, 5, 6, 7])).0, "zone"), [0_u64; 0]);
    assert_eq!(mark.chains[0].numbers.as_ref().unwrap().to_string(), "1-7");
}

#[test]
fn oldest_records_that_left_are_a_note_and_the_rest_goes_on() {
    let (all, other) = (chain("zone", 9), chain("other", 3));
    let mut mark = fresh();
    run(&mut mark, &all[..5].iter().chain(&other).collect::<Vec<_>>());
    let (new, done) = run(&mut mark, &all[3..7].iter().collect::<Vec<_>>());
    assert_eq!((numbers(&new, "zone"), done.findings.len(), done.notes.len()), (vec![6, 7], 0, 2));
    // All that was exported left; nothing is new twice.
    let (new, done) = run(&mut mark, &all[8..].iter().collect::<Vec<_>>());
    assert_eq!((numbers(&new, "zone"), done.findings.len()), (vec![9], 0));
    let (new, done) = run(&mut mark, &all[7..].iter().collect::<Vec<_>>());
    assert_eq!((numbers(&new, "zone"), done.findings.len(), done.notes.len()), (vec![8], 0, 0));
}

#[test]
fn rows_that_were_exported_and_changed_since_are_rewritten_history() {
    let all = chain("zone", 6);
    let mut anew = NativeAppender::new(NativeHead::from(&all[2]), None);
    let other: Vec<NativeRecord> = (0..3).map(|at| anew.append(at, "{\"n\":\"other\"}").unwrap()).collect();
    let mut edited = all[1].clone();
    edited.body = "{}".into();
    for rows in [
        // The last one, another with its number; the last ones; one in the middle; one twice; one in the middle gone.
        vec![&all[0], &all[1], &all[2], &all[3], &other[1]],
        vec![&all[0], &all[1], &all[2], &other[0], &other[1], &other[2]],
        vec![&all[0], &edited, &all[2], &all[3], &all[4], &all[5]],
        vec![&all[0], &all[1], &all[1], &all[2], &all[3], &all[4]],
        vec![&all[0], &all[1], &all[3], &all[4]],
    ] {
        let mut mark = fresh();
        run(&mut mark, &all[..5].iter().collect::<Vec<_>>());
        let before = mark.clone();
        let (_, done) = run(&mut mark, &rows);
        assert_eq!(done.findings.len(), 1, "{rows:?}");
        assert_eq!(
            (done.findings[0].kind, done.findings[0].chain.as_str()),
            (FindingKind::Rewritten, "zone")
        );
        assert_eq!(mark, before);
    }
}

#[test]
fn a_watermark_of_something_else_is_refused() {
    let text = serde_json::to_string(&fresh()).unwrap();
    assert!(Watermark::parse("w", text.as_bytes(), "native", RowShape::Ndjson).is_ok());
    assert!(Watermark::parse("w", text.as_bytes(), "native", RowShape::Csv).is_err());
    assert!(Watermark::parse("w", text.as_bytes(), "caracal", RowShape::Ndjson).is_err());
    for wrong in
        ["", "{}", "[]", &text.replace("watermark", "other"), &text.replace("\"rows\":0", "\"rows\":-1")]
    {
        assert!(Watermark::parse("w", wrong.as_bytes(), "native", RowShape::Ndjson).is_err(), "{wrong}");
    }
}
