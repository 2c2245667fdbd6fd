//! Every case of the vectors: outcome and the product's names must be what EXPECTED.json says.

use std::collections::BTreeSet;
use std::path::Path;

use audit_chain::error::{Error, ErrorKind};
use audit_chain::formats::agledger::{AgledgerDump, kinds_of};
use audit_chain::keys::KeyRing;
use audit_chain::report::{ChainReport, Trust, Verdict};
use audit_chain::verify::VerifyOptions;
use serde_json::Value;

use crate::vectors::vectors;

/// Returns the product's names in a report.
pub(crate) fn names(report: &ChainReport) -> BTreeSet<String> {
    report
        .findings
        .iter()
        .map(|finding| {
            let name = finding.explains.split(':').next().unwrap().to_owned();
            let kinds = kinds_of(&name).unwrap_or_else(|| panic!("{name} is no name of the product"));
            assert!(kinds.contains(&finding.kind), "{name} is {}", finding.kind);
            name
        })
        .collect()
}

fn check(dump: &Path, anchors: &[&str]) -> Result<ChainReport, Error> {
    let mut keys = KeyRing::new();
    for anchor in anchors {
        keys.add_trust_anchor(anchor).unwrap();
    }
    AgledgerDump::open(dump)?.verify(&keys, &VerifyOptions { threads: 2, ..Default::default() })
}

/// Compares one run; returns what differs.
fn differs(expected: &Value, found: &Result<ChainReport, Error>) -> Option<String> {
    let kinds: BTreeSet<String> =
        expected["kinds"].as_array().unwrap().iter().map(|kind| kind.as_str().unwrap().to_owned()).collect();
    let (outcome, names) = match found {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
            ("unreadable", BTreeSet::new())
        }
        Ok(report) if report.ok => ("ok", names(report)),
        Ok(report) => {
            assert_eq!(report.verdict, Verdict::Findings);
            ("findings", names(report))
        }
    };
    let trust = match found.as_ref().ok().and_then(|report| report.trust) {
        Some(Trust::Trusted) => Some("trusted"),
        Some(Trust::Unanchored) => Some("unanchored"),
        Some(Trust::Failed) => Some("failed"),
        None => None,
    };
    let trust_fits = expected.get("verdict").is_none_or(|verdict| verdict.as_str() == trust);
    let fits = outcome == expected["outcome"] && names == kinds && trust_fits;
    (!fits).then(|| format!("expected {expected}, found {outcome} {trust:?} {names:?} {found:?}"))
}

#[test]
fn every_case_has_the_outcome_and_the_names_that_it_should_have() {
    let Some(folder) = vectors("agledger vectors", "agledger") else { return };
    let mut wrong = Vec::new();
    let mut cases = 0;
    for case in std::fs::read_dir(folder).unwrap() {
        let case = case.unwrap().path();
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let expected: Value =
            serde_json::from_slice(&std::fs::read(case.join("EXPECTED.json")).unwrap()).unwrap();
        let dump = case.join("dump");
        cases += 1;
        wrong.extend(
            differs(&expected["expect"]["without_anchor"], &check(&dump, &[]))
                .map(|why| format!("{name}: {why}")),
        );
        for run in expected["expect"]["with_options"].as_array().into_iter().flatten() {
            let anchors: Vec<&str> = run["options"]["trustAnchors"]
                .as_array()
                .unwrap()
                .iter()
                .map(|anchor| anchor.as_str().unwrap())
                .collect();
            wrong.extend(
                differs(run, &check(&dump, &anchors)).map(|why| format!("{name} with {anchors:?}: {why}")),
            );
        }
    }
    assert!(cases >= 85, "{cases} cases");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}
