//! Chain order: rows that come in another order are walked in the chain's own, and what is wrong has the same name.

use std::sync::Mutex;

use audit_chain::error::Result;
use audit_chain::format::{
    ChainFormat, Conclusion, Link, LinkRules, OrderKey, Record, RecordRule, Setup, Start,
};
use audit_chain::json_rows::NdjsonSource;
use audit_chain::keys::KeyRing;
use audit_chain::report::ChainReport;
use audit_chain::value::{Columns, Row};
use audit_chain::verify::{VerifyOptions, verify};
use sha2::{Digest as _, Sha256};

/// What `conclude` was told of a chain: its id, the digest over the snapshot bytes, the place of the watched head.
type Told = (String, Option<[u8; 32]>, Option<u64>);

/// A format of this test: `chain, n, prev, hash`; the chain order is `n`, the links carry no number.
#[derive(Debug, Default)]
struct Toy {
    told: Mutex<Vec<Told>>,
}

struct Rule([Option<usize>; 4]);

impl RecordRule for Rule {
    fn record(&mut self, row: &Row<'_>, emit: &mut dyn FnMut(Record<'_>) -> Result<()>) -> Result<()> {
        let [chain, number, prev, hash] = self.0.map(|column| row.at(column));
        emit(Record {
            chain: chain.as_text().unwrap(),
            id: hash.as_text().unwrap(),
            prev: Link::of_value(prev),
            link: Link::of_value(hash),
            order: number.as_int().map(OrderKey::of_number),
            snapshot: hash.as_text().unwrap().as_bytes(),
            ..Record::default()
        })
    }

    fn key_labels(&self) -> Vec<String> {
        Vec::new()
    }
}

impl ChainFormat for Toy {
    fn name(&self) -> &str {
        "toy"
    }
    fn table(&self) -> &str {
        "toy"
    }
    fn columns(&self) -> &[&str] {
        &["chain", "n", "prev", "hash"]
    }
    fn order(&self) -> &[&str] {
        &["chain", "n"]
    }
    fn links(&self) -> LinkRules {
        LinkRules::default()
    }
    fn snapshot_prefix(&self) -> &[u8] {
        b"prefix"
    }
    fn bind(&self, columns: &Columns, _: &Setup<'_>) -> Result<Box<dyn RecordRule>> {
        Ok(Box::new(Rule(["chain", "n", "prev", "hash"].map(|name| columns.position(name)))))
    }
    fn start(&self, chain: &str, _: &Setup<'_>) -> Start {
        Start { watch: Some(Link::of_text(&hash(chain, 41))), ..Start::default() }
    }
    fn conclude(&self, _: &Setup<'_>, whole: &mut Conclusion<'_>) -> Result<()> {
        let told = whole.chains.iter().map(|chain| (chain.id.clone(), chain.snapshot, chain.watched));
        let mut all = self.told.lock().unwrap();
        all.extend(told);
        all.sort();
        Ok(())
    }
}

fn hash(chain: &str, number: i64) -> String {
    hex::encode(Sha256::digest(format!("{chain} {number}")))
}

/// Makes two interleaved chains, in order.
fn history(count: i64) -> Vec<String> {
    let mut rows = Vec::new();
    for number in 0..count {
        for chain in ["a", "b"] {
            let prev = if number == 0 { String::new() } else { hash(chain, number - 1) };
            rows.push(format!(
                r#"{{"chain":"{chain}","n":{number},"prev":"{prev}","hash":"{}"}}"#,
                hash(chain, number)
            ));
        }
    }
    rows
}

fn check(rows: &[String], once: bool, toy: &Toy) -> ChainReport {
    let text = rows.join("\n");
    let source = if once {
        NdjsonSource::once("toy", std::io::Cursor::new(text)).unwrap()
    } else {
        NdjsonSource::new("toy", move || Ok(Some(Box::new(std::io::Cursor::new(text.clone()))))).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let options = VerifyOptions { threads: 3, scratch: Some(folder.path()), ..Default::default() };
    let report = verify(&source, toy, &KeyRing::new(), &options).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
    report
}

fn kinds(report: &ChainReport) -> Vec<String> {
    report
        .findings
        .iter()
        .map(|finding| format!("{} {}@{}", finding.chain, finding.kind, finding.position.unwrap_or(0)))
        .collect()
}

/// The rows in order, newest first, and shuffled.
fn orders(rows: &[String]) -> Vec<Vec<String>> {
    let newest_first: Vec<String> = rows.iter().rev().cloned().collect();
    let mut shuffled = rows.to_vec();
    shuffled.sort_by_key(|row| Sha256::digest(row).to_vec());
    vec![rows.to_vec(), newest_first, shuffled]
}

#[test]
fn rows_in_any_order_verify_alike_and_come_out_in_chain_order() {
    let rows = history(2_000);
    let wanted = verify_in_order(&rows);
    for rows in orders(&rows) {
        for once in [false, true] {
            let toy = Toy::default();
            let report = check(&rows, once, &toy);
            assert!(report.ok, "{:?}", report.findings);
            assert_eq!(report.chains, wanted.0.chains);
            assert_eq!(*toy.told.lock().unwrap(), wanted.1);
        }
    }
}

fn verify_in_order(rows: &[String]) -> (ChainReport, Vec<Told>) {
    let toy = Toy::default();
    let report = check(rows, false, &toy);
    let told = toy.told.into_inner().unwrap();
    let mut digest = Sha256::new_with_prefix("prefix");
    (0..2_000).for_each(|number| digest.update(hash("b", number)));
    assert_eq!(told[1], ("b".into(), Some(digest.finalize().into()), Some(42)));
    (report, told)
}

#[test]
fn what_is_wrong_has_the_same_name_and_place_in_every_order() {
    for once in [false, true] {
        for rows in orders(&history(300)) {
            let mut rows = rows;
            rows.retain(|row| !row.contains(r#""chain":"a","n":100,"#));
            assert_eq!(kinds(&check(&rows, once, &Toy::default())), ["a missing@101"]);
            rows.retain(|row| !row.contains(r#""chain":"b","n":0,"#));
            assert_eq!(
                kinds(&check(&rows, once, &Toy::default())),
                ["a missing@101", "b missing-head@1"],
                "once: {once}"
            );
        }
    }
}
