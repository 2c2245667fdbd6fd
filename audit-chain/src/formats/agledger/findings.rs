//! Collects findings: a bounded list, everything counted, no kind of finding hidden by a flood of another.

use super::codes::{CODES, Flaw};
use crate::report::{Finding, FindingKind, MAX_LISTED_FINDINGS};

/// How many findings of one name are listed even when the list is full.
const OF_EACH: u32 = 20;

/// Where a finding is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'p> {
    pub(super) chain: &'p str,
    pub(super) position: Option<u64>,
    pub(super) record: &'p str,
}

/// The findings so far.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) listed: Vec<Finding>,
    pub(super) total: u64,
    by_code: [u32; CODES],
}

impl Findings {
    pub(super) const fn new() -> Self {
        Self { listed: Vec::new(), total: 0, by_code: [0; CODES] }
    }

    /// Adds what is wrong with a row.
    pub(super) fn flaw(&mut self, flaw: Flaw, place: Place<'_>) {
        self.kind(flaw.code.kind(), flaw, place);
    }

    /// Adds what is wrong with a row, of a kind that says it more exactly.
    pub(super) fn kind(&mut self, kind: FindingKind, flaw: Flaw, place: Place<'_>) {
        debug_assert!(flaw.code.kinds().contains(&kind), "{} is no {kind}", flaw.code.name());
        let explains = format!("{}: {}", flaw.code.name(), flaw.explains);
        // Neighbours that want the same key are one span.
        if kind == FindingKind::UnknownKey
            && let (Some(last), Some(position)) = (self.listed.last_mut(), place.position)
            && last.kind == kind
            && last.chain == place.chain
            && last.explains == explains
            && (&last.expected, &last.found) == (&flaw.expected, &flaw.found)
            && last.last.or(last.position) == position.checked_sub(1)
        {
            last.last = Some(position);
            return;
        }
        self.total += 1;
        let of_code = self.by_code.get_mut(flaw.code as usize).map_or(0, |count| {
            *count = count.saturating_add(1);
            *count
        });
        if self.listed.len() < MAX_LISTED_FINDINGS || of_code <= OF_EACH {
            self.listed.push(Finding {
                kind,
                chain: place.chain.to_owned(),
                position: place.position,
                last: None,
                record: Some(place.record).filter(|record| !record.is_empty()).map(str::to_owned),
                expected: flaw.expected,
                found: flaw.found,
                explains,
            });
        }
    }

    /// Reports whether all that is wrong is that keys are not at hand.
    pub(super) fn only_keys(&self) -> bool {
        self.listed.iter().all(|finding| finding.kind == FindingKind::UnknownKey)
    }

    /// Adds a finding as it is.
    pub(super) fn whole(&mut self, finding: Finding) {
        self.total += 1;
        if self.listed.len() < MAX_LISTED_FINDINGS {
            self.listed.push(finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::agledger::codes::Code;

    #[test]
    fn a_flood_of_one_kind_hides_no_other_and_everything_is_counted() {
        let mut findings = Findings::new();
        let place = |position| Place { chain: "c", position: Some(position), record: "r" };
        for at in 0..5_000 {
            findings.flaw(Flaw::new(Code::HashMismatch, "x"), place(at));
        }
        findings.flaw(Flaw::new(Code::LinkBroken, "y"), place(5_000));
        assert_eq!((findings.total, findings.listed.len()), (5_001, MAX_LISTED_FINDINGS + 1));
        assert_eq!(findings.listed.last().unwrap().explains, "CHAIN_LINK_BROKEN: y");
    }

    #[test]
    fn neighbours_that_want_the_same_key_are_one_span() {
        let mut findings = Findings::new();
        for (position, found) in [(1, "a"), (2, "a"), (3, "b"), (5, "b")] {
            let flaw = Flaw::between(Code::SignatureMissingKey, "k", found, "no key");
            findings.flaw(flaw, Place { chain: "c", position: Some(position), record: "" });
        }
        let spans: Vec<_> = findings.listed.iter().map(|finding| (finding.position, finding.last)).collect();
        assert_eq!(spans, [(Some(1), Some(2)), (Some(3), None), (Some(5), None)]);
        assert_eq!(findings.total, 3);
    }
}
