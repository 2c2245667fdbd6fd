//! Judges runs of records that no key at hand made, and runs without signature or HMAC.
//!
//! Where a record does not name its key, a wrong HMAC alone cannot say whether the record was forged or made with a retired
//! key. What stands around it can. Called by the formats of such chains at the end ([`crate::format::ChainFormat::conclude`]):
//!
//! | the run that no key fits | is |
//! |---|---|
//! | everything, in every chain | `wrong-key`, once per chain with its span; the verdict is cannot-verify |
//! | between records that one key made | forged, record by record: nobody rotates a key back and forth |
//! | between records of two keys | `unknown-key`: a retired key that is not at hand |
//! | one or two records at an end of the chain | forged: a key is hardly changed there |
//! | before the first that fits | `unknown-key`, unless other chains used the key before |
//! | behind the last that fits | `unknown-key`, unless other chains go on with the key: then forged |
//!
//! Records without HMAC are a note where no key was given. With a key they are `unsigned`: the key may have been
//! enabled later, or somebody took the HMAC away, and only a checkpoint tells which; where it vouches for them they
//! are a note. Behind records that have one they are always `unsigned`.

use crate::format::{Conclusion, Run, RunKind, Walked};
use crate::report::{Finding, FindingKind, Note, NoteKind};
use crate::verify::plural;

/// What a record's HMAC is said to be by when no key fits: a label of [`crate::format::RecordRule::key_labels`].
pub(crate) const NO_KEY: &str = "none of the keys at hand";

/// How many records at an end of a chain are rather forged than made with another key.
const FEW: u64 = 2;

/// What a record carries, in the words of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Hmac,
    Signature,
}

impl What {
    /// Returns the word.
    const fn word(self) -> &'static str {
        match self {
            Self::Hmac => "HMAC",
            Self::Signature => "signature",
        }
    }

    /// Returns the word with its article.
    const fn one(self) -> &'static str {
        match self {
            Self::Hmac => "an HMAC",
            Self::Signature => "a signature",
        }
    }
}

/// What tells the formats apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runs<'a> {
    /// Whether no key was given.
    pub(crate) keyless: bool,
    /// The name of the secret.
    pub(crate) secret: &'a str,
    /// What a record carries.
    pub(crate) what: What,
    /// What a forged record is.
    pub(crate) forged: FindingKind,
    /// One sentence on a forged record.
    pub(crate) explains: &'a str,
    /// Whether the HMAC is the record's own hash, so that without a key its content is not judged.
    pub(crate) whole_record: bool,
    /// Whether runs that no key fits are judged here; where records name their key they are judged one by one.
    pub(crate) unfit: bool,
    /// Which runs without HMAC are a finding.
    pub(crate) unsigned: UnsignedRule,
}

/// Which runs without HMAC or signature are a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnsignedRule {
    /// None, or each was said already.
    Leave,
    /// Those behind records that have one.
    BehindSigned,
    /// All, where a key is at hand; those behind records that have one always.
    Any,
}

impl Runs<'_> {
    /// Adds the findings and notes.
    pub(crate) fn judge(&self, whole: &mut Conclusion<'_>) {
        let chains = std::mem::take(&mut whole.chains);
        let some_fit = chains.iter().flat_map(|chain| &chain.runs).any(|run| run.how == RunKind::Verified);
        for chain in &chains {
            let mut signed = false;
            for (at, run) in chain.runs.iter().enumerate() {
                match run.how {
                    RunKind::Unsigned => self.judge_unsigned(some_fit, signed, chain, run, whole),
                    RunKind::Unchecked if self.unfit => {
                        self.judge_unchecked(some_fit, &chains, chain, at, whole);
                    }
                    RunKind::Verified | RunKind::Unchecked | RunKind::Unasked | RunKind::Bad => {}
                }
                signed |= run.how != RunKind::Unsigned;
            }
            note_rotation(chain, whole);
        }
        let unasked: u64 = chains
            .iter()
            .flat_map(|chain| &chain.runs)
            .filter(|run| run.how == RunKind::Unasked)
            .map(|run| run.records)
            .sum();
        if unasked > 0 {
            whole.note(Note {
                kind: NoteKind::NotChecked,
                chain: String::new(),
                position: None,
                last: None,
                explains: format!(
                    "the {}s of {} were not checked: no {} was given, so contents and links could have been made anew by anybody",
                    self.what.word(),
                    plural(unasked, "record"),
                    self.secret
                ),
            });
        }
        if whole.runs_left_out > 0 {
            let left_out = plural(whole.runs_left_out, "further run");
            whole.report(Finding {
                kind: self.forged,
                chain: String::new(),
                position: None,
                last: None,
                record: None,
                expected: None,
                found: None,
                explains: format!("{left_out} of records that no key fits are not listed"),
            });
        }
        whole.chains = chains;
    }

    /// Judges rows without HMAC.
    fn judge_unsigned(
        &self,
        some_fit: bool,
        signed_before: bool,
        chain: &Walked,
        run: &Run,
        whole: &mut Conclusion<'_>,
    ) {
        if self.unsigned == UnsignedRule::Leave
            || (self.unsigned == UnsignedRule::BehindSigned && !signed_before)
        {
            return;
        }
        let never_signed = chain.runs.iter().all(|run| run.how == RunKind::Unsigned);
        let nothing_fits = !some_fit && !never_signed;
        if run.place <= chain.vouched || (!signed_before && (self.keyless || nothing_fits)) {
            return;
        }
        // The finding says more than the note of the walk.
        whole.notes().retain(|note| note.kind != NoteKind::UnsignedSpan || note.chain != chain.id);
        let (one, word) = (self.what.one(), self.what.word());
        let explains = if signed_before {
            format!(
                "records without {word} stand behind records that have one: they were put in, or their {word} was taken away"
            )
        } else if never_signed {
            format!(
                "no record of the chain has {one}: written before the key was enabled, or the {word}s were taken away; only an earlier checkpoint tells which"
            )
        } else {
            format!(
                "the first records have no {word}: written before the key was enabled, or their {word}s were taken away; only an earlier checkpoint tells which"
            )
        };
        whole.report(Finding {
            kind: FindingKind::Unsigned,
            chain: chain.id.clone(),
            position: Some(run.from),
            last: (run.to != run.from).then_some(run.to),
            record: run.ids.first().filter(|_| run.records == 1).map(|(_, id)| id.clone()),
            expected: Some(format!("{one} of a key at hand")),
            found: Some("none".into()),
            explains,
        });
    }

    /// Judges rows with an HMAC that no key at hand made.
    fn judge_unchecked(
        &self,
        some_fit: bool,
        chains: &[Walked],
        chain: &Walked,
        at: usize,
        whole: &mut Conclusion<'_>,
    ) {
        let Some(run) = chain.runs.get(at) else { return };
        if !some_fit {
            let explains = match (self.keyless, self.whole_record) {
                (true, _) => "no key is at hand for these records".to_owned(),
                (false, true) => "no key at hand made these records; only their links are judged".to_owned(),
                (false, false) => format!(
                    "the key at hand did not make these {}s; contents and links are judged without it",
                    self.what.word()
                ),
            };
            whole.report(self.span(FindingKind::WrongKey, chain, run, &explains));
            return;
        }
        let fits = |run: &&Run| run.how == RunKind::Verified;
        let before = chain.runs.iter().take(at).rev().find(fits).and_then(|run| run.keys);
        let after = chain.runs.iter().skip(at + 1).find(fits).and_then(|run| run.keys);
        let unknown = |explains| self.span(FindingKind::UnknownKey, chain, run, explains);
        let finding = match (before, after) {
            (Some((_, before)), Some((after, _))) if before == after => None,
            (Some(_), Some(_)) => {
                Some(unknown("made with a key that is not at hand, between two keys that are: a rotation"))
            }
            (Some(_), None) | (None, Some(_)) if run.records <= FEW => None,
            (None, Some(_)) if !contradicted(chains, chain, run, false) => Some(unknown(
                "made with a key that is not at hand: one that was retired, or a forger's; the retired key tells",
            )),
            (Some(_), None) if !contradicted(chains, chain, run, true) => Some(unknown(
                "made with a key that is not at hand: one newer than those at hand, or a forger's",
            )),
            (None, None) if !contradicted(chains, chain, run, false) => {
                Some(unknown("made with a key that is not at hand, though others of the table fit"))
            }
            _ => None,
        };
        match finding {
            Some(finding) => whole.report(finding),
            None => self.report_forged(chain, run, whole),
        }
    }

    /// Reports forged records, row by row while there are few.
    fn report_forged(&self, chain: &Walked, run: &Run, whole: &mut Conclusion<'_>) {
        if run.records > run.ids.len() as u64 {
            whole.report(self.span(self.forged, chain, run, self.explains));
            return;
        }
        for (number, id) in &run.ids {
            whole.report(Finding {
                position: Some(*number),
                last: None,
                record: Some(id.clone()),
                ..self.span(self.forged, chain, run, self.explains)
            });
        }
    }

    /// Makes the finding of a whole run.
    fn span(&self, kind: FindingKind, chain: &Walked, run: &Run, explains: &str) -> Finding {
        Finding {
            kind,
            chain: chain.id.clone(),
            position: Some(run.from),
            last: (run.to != run.from).then_some(run.to),
            record: run.ids.first().filter(|_| run.records == 1).map(|(_, id)| id.clone()),
            expected: Some(format!("{} by a key at hand", self.what.one())),
            found: Some(NO_KEY.into()),
            explains: explains.into(),
        }
    }
}

/// Reports whether other chains show that no key was changed when the run was written.
///
/// A key is changed for all chains at one moment. For a run at the end: of several chains this one alone has it, or
/// another goes on with a key at hand after the run began. At the beginning: another used a key at hand before.
fn contradicted(chains: &[Walked], chain: &Walked, run: &Run, at_end: bool) -> bool {
    let others = || chains.iter().filter(|other| other.id != chain.id && !other.runs.is_empty());
    let fits = |run: &&Run| run.how == RunKind::Verified;
    if at_end {
        let went_on = |other: &Walked| {
            let last = other.runs.iter().rev().find(fits).and_then(|run| run.times.1);
            last.zip(run.times.0).is_some_and(|(last, began)| last > began)
        };
        let ends_unfit = |other: &Walked| other.runs.last().is_some_and(|run| run.how == RunKind::Unchecked);
        let alone = others().next().is_some() && !others().any(ends_unfit);
        alone || others().any(went_on)
    } else {
        let had_begun = |other: &Walked| {
            let first = other.runs.iter().find(fits).and_then(|run| run.times.0);
            first.zip(run.times.0).is_some_and(|(first, began)| first < began)
        };
        others().any(had_begun)
    }
}

/// Notes that a chain was written with several keys.
fn note_rotation(chain: &Walked, whole: &mut Conclusion<'_>) {
    let mut keys: Vec<u16> = Vec::new();
    for (first, last) in
        chain.runs.iter().filter(|run| run.how == RunKind::Verified).filter_map(|run| run.keys)
    {
        for key in [first, last] {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    if keys.len() < 2 {
        return;
    }
    let names: Vec<&str> = keys
        .iter()
        .filter_map(|key| whole.records_by_key.get(usize::from(*key)))
        .map(|(label, _)| label.as_str())
        .collect();
    let explains = format!("the key was changed: {}", names.join(", then "));
    whole.note(Note {
        kind: NoteKind::Rotated,
        chain: chain.id.clone(),
        position: None,
        last: None,
        explains,
    });
}
