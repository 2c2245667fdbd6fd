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
        Verdict::Intact if noted(NoteKind::SanctionedRestore) => {
            return format!("intact, after a sanctioned restore: {records} in {chains}");
        }
        Verdict::Intact if noted(NoteKind::RetentionGap) => {
            return format!("intact: {records} in {chains}; retention removed older ones");
        }
        Verdict::Intact => return format!("intact: {records} in {chains}"),
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
                "cannot verify: no key at hand fits any of {records}; this says nothing about tampering"
            );
        }
        Verdict::Findings => {}
    }
    let count = |kinds: &[Kind]| {
        report.findings.iter().filter(|finding| kinds.contains(&finding.kind)).count() as u64
    };
    let edited = count(&[Kind::Edited, Kind::SignatureInvalid]);
    let gone = count(&[Kind::Missing, Kind::MissingHead]);
    let cut = count(&[Kind::Truncated, Kind::MissingChain]);
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
    if cut > 0 {
        parts.push("rows missing: records of the checkpoint are gone from the end, or whole chains (a rollback, a partial restore, or deletion)".to_owned());
    }
    if gone > 0 {
        parts.push(format!("rows missing: {} inside or at the beginning", plural(gone, "gap")));
    }
    if unhashed > 0 {
        parts.push("edited columns that the system's own hash does not cover".to_owned());
    }
    if stripped > 0 {
        parts.push("signatures removed".to_owned());
    }
    if keys > 0 {
        parts.push("wrong key: records made by a key that is not at hand or not trusted".to_owned());
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

/// Counts with the right verb.
fn plural_are(count: u64, what: &str) -> String {
    if count == 1 { format!("one {what} is") } else { format!("{count} {what}s are") }
}
