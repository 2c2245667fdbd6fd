//! Results as text for people.

use std::fmt::Write as _;

use attestore::doctor::Doctor;
use audit_chain::report::{ChainReport, Finding, Verdict};

use super::output::table;

/// How many findings are printed before the rest is only counted.
const SHOWN: usize = 20;

/// Prints what a machine has and lacks.
pub(crate) fn doctor(found: &Doctor) -> String {
    let mut text = format!("attestore {}\n\n", found.version);
    let rows: Vec<_> = found
        .findings
        .iter()
        .map(|finding| {
            let mark = if finding.ok { "ok" } else { "missing" };
            vec![mark.to_owned(), finding.name.clone(), finding.found.clone(), finding.used_for.clone()]
        })
        .collect();
    text.push_str(&table(&["", "what", "found", "used for"], &rows));
    let lines: Vec<_> = found.findings.iter().filter_map(|finding| finding.install.as_deref()).collect();
    if !lines.is_empty() {
        text.push_str("\nTo install what is missing:\n");
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

/// Prints a chain report: verdict first.
pub(crate) fn chain_report(report: &ChainReport) -> String {
    let word = match report.verdict {
        Verdict::Intact => "INTACT",
        Verdict::Findings => "FINDINGS",
        Verdict::CannotVerify => "CANNOT VERIFY",
    };
    let mut text = format!("{word}  {}\n", report.diagnosis);
    if !report.findings.is_empty() {
        text.push('\n');
        for finding in report.findings.iter().take(SHOWN) {
            text.push_str(&finding_text(finding));
        }
        let more = report.findings_total.saturating_sub(SHOWN as u64);
        if more > 0 {
            let _ = writeln!(text, "  … and {more} more (see --json)");
        }
    }
    if !report.chains.is_empty() {
        text.push('\n');
        let rows: Vec<_> = report
            .chains
            .iter()
            .take(SHOWN)
            .map(|chain| {
                vec![
                    if chain.id.is_empty() { "(one chain)".into() } else { chain.id.clone() },
                    chain.records.to_string(),
                    chain.signed.to_string(),
                    chain.head.chars().take(16).collect(),
                    chain.root.clone(),
                ]
            })
            .collect();
        text.push_str(&table(&["chain", "records", "signed", "head", "Merkle root over whole rows"], &rows));
        if report.chains.len() > SHOWN {
            let _ = writeln!(text, "… and {} more chains (see --json)", report.chains.len() - SHOWN);
        }
    }
    for note in report.notes.iter().take(SHOWN) {
        let _ = writeln!(text, "note: {}{}", in_chain(&note.chain), note.explains);
    }
    text
}

/// Prints one finding in at most three lines.
fn finding_text(finding: &Finding) -> String {
    let place = match (finding.position, finding.last) {
        (Some(from), Some(to)) => format!(" at {from} to {to}"),
        (Some(from), None) => format!(" at {from}"),
        (None, _) => String::new(),
    };
    let record = finding
        .record
        .as_deref()
        .filter(|id| !id.is_empty())
        .map(|id| format!(" (record {id})"))
        .unwrap_or_default();
    let mut text =
        format!("  {}{place}{record}: {}{}\n", finding.kind, in_chain(&finding.chain), finding.explains);
    if let Some(expected) = &finding.expected {
        let _ = writeln!(text, "      expected {expected}");
    }
    if let Some(found) = &finding.found {
        let _ = writeln!(text, "      found    {found}");
    }
    text
}

/// Names the chain, where it has a name.
fn in_chain(chain: &str) -> String {
    if chain.is_empty() { String::new() } else { format!("chain {chain}: ") }
}
