//! A chain is verified from the very rows that are stored, whatever order they lie in.

use std::sync::Arc;

use audit_chain::format::ChainFormat;
use audit_chain::formats::native::Native;
use audit_chain::keys::KeyRing;
use audit_chain::native::NativeHead;
use audit_chain::report::{FindingKind, Verdict};
use backup_core::context::Context;
use backup_core::traits::ChainRequest;

use crate::parallel::{Parallel, extract, toc};
use crate::support::{Database, open};

const TABLE: &str = "CREATE TABLE attestore_chain (chain text, seq bigint, at text, body text, v bigint, key_id text, prev text, hash text, PRIMARY KEY (chain, seq))";
const RECORDS: u64 = 12_000;

/// Makes a database with two chains, interleaved in the order of their writing.
pub(crate) fn chained() -> Database {
    use std::io::Write as _;
    let database = Database::of(TABLE);
    let mut rows = String::new();
    let mut heads = [NativeHead::genesis("a"), NativeHead::genesis("it's \"b\"")];
    for n in 0..RECORDS {
        let head = &mut heads[usize::from(n % 3 == 0)];
        let body = format!(
            "{{\"n\": {n}, \"text\": \"tab\\\\t, line\\\\n, 😀\", \"pad\": \"{}\"}}",
            "x".repeat(n as usize % 200)
        );
        let record = head
            .next(1_780_000_000_000_000 + i64::try_from(n).unwrap(), body.replace("\\\\", "\\"), None)
            .unwrap();
        let escape = |text: &str| text.replace('\\', "\\\\");
        rows.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\t\\N\t{}\t{}\n",
            record.chain,
            record.seq,
            record.at,
            escape(&record.body),
            record.v,
            record.prev,
            record.hash
        ));
        *head = NativeHead::at(record.chain.clone(), record.seq, record.hash.clone(), false);
    }
    let mut connection = open(&database.address());
    let mut writer = connection.client().copy_in("COPY attestore_chain FROM stdin").unwrap();
    writer.write_all(rows.as_bytes()).unwrap();
    assert_eq!(writer.finish().unwrap(), RECORDS);
    database
}

fn request(table: Option<&str>) -> ChainRequest {
    let format: Arc<dyn ChainFormat> = Arc::new(Native);
    ChainRequest {
        format,
        table: table.map(str::to_owned),
        keys: KeyRing::default(),
        checkpoint: None,
        copy: false,
    }
}

/// Backs up and returns the report, how often the table was read again, and the digest of its rows.
fn verified(database: &Database, jobs: usize) -> (audit_chain::report::ChainReport, usize, String) {
    let folder = tempfile::tempdir().unwrap();
    let dump = Parallel { jobs, piece_bytes: 512 << 10, ..Parallel::new(database.address()) };
    let outcome = dump.back_up(folder.path(), vec![request(None)], &Context::new()).unwrap();
    let toc = toc(folder.path());
    let entry = &toc.tables["\"public\".\"attestore_chain\""];
    let facts = &outcome.manifest.sources[0];
    assert_eq!(entry.rows, facts.tables["public.attestore_chain"]);
    let stored: u64 = toc.data.iter().flat_map(|file| &file.blocks).map(|block| block.rows).sum();
    assert_eq!(stored, entry.rows, "rows are stored once");
    let again = facts.details["chains_read_again"].parse().unwrap();
    let report = outcome.reports[0].chains[0].clone();
    (report, again, entry.sum.clone())
}

#[test]
fn a_chain_is_verified_from_one_reading_however_many_read_it() {
    let database = chained();
    let (report, again, one) = verified(&database, 2);
    assert_eq!((report.verdict, report.records, again), (Verdict::Intact, RECORDS, 0));
    for jobs in [3, 5] {
        let (other, again, sum) = verified(&database, jobs);
        assert_eq!((&other.chains, again), (&report.chains, 0));
        assert_eq!(sum, one);
    }
}

#[test]
fn a_chain_whose_rows_lie_anywhere_is_still_read_once() {
    let database = chained();
    let (expected, _, sum) = verified(&database, 2);
    for shuffle in ["random()", "seq DESC", "seq % 7, chain, seq"] {
        database.sql(&format!(
            "CREATE TABLE other AS SELECT * FROM attestore_chain ORDER BY {shuffle}; DROP TABLE attestore_chain; ALTER TABLE other RENAME TO attestore_chain"
        ));
        let (report, again, other) = verified(&database, 3);
        assert_eq!((report.verdict, &report.chains), (Verdict::Intact, &expected.chains), "{shuffle}");
        assert_eq!(again, 0, "{shuffle}");
        assert_eq!(other, sum, "{shuffle}");
    }
}

#[test]
fn rows_that_were_updated_in_place_are_found_and_stored() {
    let database = chained();
    database.sql("UPDATE attestore_chain SET body = body || ' ' WHERE chain = 'a' AND seq = 100");
    let (report, ..) = verified(&database, 2);
    let kinds: Vec<_> = report
        .findings
        .iter()
        .map(|finding| (finding.kind, finding.chain.as_str(), finding.position))
        .collect();
    assert_eq!(kinds, [(FindingKind::Edited, "a", Some(100))]);
    database.sql("DELETE FROM attestore_chain WHERE chain = 'a' AND seq BETWEEN 4000 AND 4100");
    let (report, ..) = verified(&database, 2);
    assert!(
        report.findings.iter().any(|finding| finding.kind == FindingKind::Missing),
        "{:?}",
        report.findings
    );
    assert_eq!(report.records, RECORDS - 101);
}

#[test]
fn what_is_stored_is_what_was_verified() {
    let database = chained();
    let folder = tempfile::tempdir().unwrap();
    let dump = Parallel { jobs: 2, piece_bytes: 512 << 10, ..Parallel::new(database.address()) };
    dump.back_up(folder.path(), vec![request(None)], &Context::new()).unwrap();
    let toc = toc(folder.path());
    let extracted = extract(folder.path());
    let mut sum = backup_postgres::parallel::digest::RowSum::default();
    for file in &toc.data {
        let bytes = std::fs::read(extracted.join(&file.name)).unwrap();
        for block in &file.blocks {
            let (from, to) = (
                usize::try_from(block.offset).unwrap(),
                usize::try_from(block.offset + block.bytes).unwrap(),
            );
            let rows = &bytes[from..to];
            assert!(rows.ends_with(b"\n") && bytes[to..].starts_with(b"\\.\n"));
            rows.split_inclusive(|byte| *byte == b'\n')
                .for_each(|row| sum.add(row.strip_suffix(b"\n").unwrap()));
        }
    }
    assert_eq!(
        (sum.rows(), sum.to_string()),
        (RECORDS, toc.tables["\"public\".\"attestore_chain\""].sum.clone())
    );
}

#[test]
fn a_second_chain_on_one_table_is_read_again_and_that_is_said() {
    let database = chained();
    let folder = tempfile::tempdir().unwrap();
    let dump = Parallel { jobs: 2, ..Parallel::new(database.address()) };
    let chains = vec![request(None), request(Some("public.attestore_chain"))];
    let outcome = dump.back_up(folder.path(), chains, &Context::new()).unwrap();
    let reports = &outcome.reports[0].chains;
    assert_eq!((reports[0].verdict, &reports[0].chains), (Verdict::Intact, &reports[1].chains));
    assert_eq!(outcome.manifest.sources[0].details["chains_read_again"], "1");
}
