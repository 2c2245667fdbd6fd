//! One sentence on what most likely happened, from the findings of a report.

use crate::report::{ChainReport, FindingKind as Kind, NoteKind, Verdict};
use crate::verify::plural;

/// Says what most likely happened.
pub(crate) fn sentence(report: &ChainReport) -> String {
    let chains = plural(report.chains_total, "chain");
    let records = plural(report.records, "record");
    let noted = |kind| report.notes.iter().any(|note| note.kind == kind);
    match report.verdict {
        Verdict::Intact if report.records == 0 => return "no records: there is nothing to verify".into(),
        Verdict::Intact => {
            let restored =
                if noted(NoteKind::SanctionedRestore) { ", after a sanctioned restore" } else { "" };
            let mut said = format!("intact{restored}: {records} in {chains}");
            if noted(NoteKind::RetentionGap) {
                said.push_str("; retention removed older ones");
            }
            if noted(NoteKind::Rotated) {
                said.push_str("; the key was rotated, and the keys at hand verify what each made");
            }
            return said;
        }
        Verdict::CannotVerify if report.has(Kind::UnknownVersion) => {
            return format!(
                "cannot verify: {records} in a version of the format that this program does not know; this says nothing about tampering"
            );
        }
        Verdict::CannotVerify
            if report.findings.is_empty() && noted(NoteKind::UnrecoverableCanonicalForm) =>
        {
            return "cannot verify: links hold, but the form in which contents were hashed cannot be had back from what is stored; this says nothing about tampering".into();
        }
        Verdict::CannotVerify => {
            return format!(
                "cannot verify (wrong key): no key at hand fits any of {records}; this says nothing about tampering"
            );
        }
        Verdict::Findings => {}
    }
    let count = |kinds: &[Kind]| {
        report.findings.iter().filter(|finding| kinds.contains(&finding.kind)).count() as u64
    };
    let edited = count(&[Kind::Edited, Kind::SignatureInvalid]);
    let gone = count(&[Kind::Missing, Kind::MissingHead]);
    let rewritten = count(&[Kind::Rewritten]);
    let keys = count(&[Kind::UnknownKey, Kind::WrongKey, Kind::KeyExpired]);
    let shape = count(&[Kind::Reordered, Kind::Duplicate, Kind::Forked, Kind::LinkBroken]);
    let stripped = count(&[Kind::Stripped, Kind::Unsigned]);
    let unhashed = count(&[Kind::UnhashedEdited]);
    let state = count(&[Kind::StateMismatch, Kind::CheckpointMismatch]);
    let malformed = count(&[Kind::Malformed]);
    let mut parts = Vec::new();
    if rewritten > 0 {
        parts.push(
            "rewritten history: the chain is consistent in itself but is not the one of the checkpoint"
                .to_owned(),
        );
    }
    if edited > 0 {
        parts.push(format!("edited rows: {} not as written", plural_are(edited, "record")));
    }
    parts.extend(cut(report));
    if gone > 0 {
        parts.push(format!(
            "rows missing: {} inside or at the beginning (deleted, or taken by a retention that left no record)",
            plural(gone, "gap")
        ));
    }
    if unhashed > 0 {
        parts.push("edited columns that the system's own hash does not cover".to_owned());
    }
    if stripped > 0 {
        parts.push("signatures removed".to_owned());
    }
    if keys > 0 {
        parts.push("wrong key: records made by a key that is not at hand or not trusted: one retired in a rotation, or a stranger's".to_owned());
    }
    if count(&[Kind::UnknownVersion]) > 0 {
        parts.push("records in a version of the format that this program does not know".to_owned());
    }
    if shape > 0 {
        parts.push("rows moved, doubled or put in".to_owned());
    }
    if state > 0 {
        parts.push("the state or checkpoint does not belong to these rows".to_owned());
    }
    if malformed > 0 {
        parts.push(format!("{} cannot be read", plural(malformed, "record")));
    }
    parts.join("; ")
}

/// Says what chains mean that end before the checkpoint or are gone. A copy that was restored is older in all chains or lacks
/// whole ones; who deletes takes the end of some.
fn cut(report: &ChainReport) -> Option<String> {
    let chains_with = |kind: Kind| {
        let mut chains: Vec<&str> = report
            .findings
            .iter()
            .filter(|finding| finding.kind == kind)
            .map(|finding| finding.chain.as_str())
            .collect();
        chains.sort_unstable();
        chains.dedup();
        chains.len() as u64
    };
    let (shorter, gone) = (chains_with(Kind::Truncated), chains_with(Kind::MissingChain));
    let only_cut =
        report.findings.iter().all(|finding| matches!(finding.kind, Kind::Truncated | Kind::MissingChain));
    match (shorter, gone) {
        (0, 0) => None,
        (_, 1..) if only_cut && shorter == 0 => Some(format!(
            "partial restore: {} of the checkpoint gone, and everything else is as it was (restored without them, or deleted)",
            plural_are(gone, "whole chain")
        )),
        _ if only_cut && shorter == report.chains_total && shorter + gone > 1 => Some(format!(
            "partial restore: every chain ends before the checkpoint, and what is there is as it was (an older copy was restored, or the end of {} was deleted)",
            plural(shorter, "chain")
        )),
        (0, _) => Some(format!("rows missing: {} of the checkpoint gone", plural_are(gone, "whole chain"))),
        _ => Some(format!(
            "rows missing: the newest records of {} are gone (deleted, rolled back, or a partial restore of an older copy)",
            plural(shorter, "chain")
        )),
    }
}

/// Counts with the right verb.
fn plural_are(count: u64, what: &str) -> String {
    if count == 1 { format!("one {what} is") } else { format!("{count} {what}s are") }
}
