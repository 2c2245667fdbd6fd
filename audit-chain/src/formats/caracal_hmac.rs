//! The HMAC of Caracal's chains: which key made it, and what it means when none at hand did.
//!
//! A row's `chain_hmac` is lowercase hex of HMAC-SHA256(key, content hash || `|` || predecessor's hash or nothing), over
//! the *stored* texts, so that an edited content is one finding and not two. The key is the hex-decoded value of
//! `AUDIT_HMAC_KEY`, at least 32 bytes; nothing in the row names it. Secrets whose name begins with that are tried.
//!
//! A row alone cannot say whether it was forged or made with a retired key. [`judge`] looks at runs of rows:
//!
//! | the run that no key fits | is |
//! |---|---|
//! | everything, in every chain | `wrong-key`, once per chain with its span; the verdict is cannot-verify |
//! | between rows that one key made | `signature-invalid`, row by row: nobody rotates a key back and forth |
//! | between rows of two keys, or before the first row that fits | `unknown-key`: a retired key that is not at hand |
//! | behind the last row that fits | `signature-invalid` where other chains go on with the key, else `unknown-key` |
//!
//! Rows without HMAC are a note where no key was given. With a key they are `unsigned`: the key may have been
//! enabled later, or somebody took the HMAC away, and only a checkpoint tells which; where it vouches for them they
//! are a note. Behind rows that have one they are always `unsigned`.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::format::{Conclusion, Fault, Link, Run, RunKind, Seal, Walked};
use crate::keys::KeyRing;
use crate::report::{Finding, FindingKind, Note, NoteKind};
use crate::value::Value;
use crate::verify::plural;

/// The name of the secret; further names may follow it (`AUDIT_HMAC_KEY_OLD`).
pub const KEY_NAME: &str = "AUDIT_HMAC_KEY";

/// The shortest key, in bytes.
const MIN_KEY_BYTES: usize = 32;

/// What a row's HMAC is said to be by when no key fits.
const NO_KEY: &str = "none of the keys at hand";

/// The keys at hand, ready to use.
pub(super) struct AuditKeys {
    keys: Vec<Hmac<Sha256>>,
    labels: Vec<String>,
    /// The key that fitted last.
    last: usize,
}

impl AuditKeys {
    /// Decodes the keys.
    pub(super) fn new(ring: &KeyRing) -> Result<Self> {
        let mut found = Self { keys: Vec::new(), labels: Vec::new(), last: 0 };
        for (_, secret) in ring.all_secrets().filter(|(name, _)| name.starts_with(KEY_NAME)) {
            let bad = |why: String| Error::BadKey { what: secret.label.clone(), why };
            let key =
                Zeroizing::new(hex::decode(secret.expose().trim_ascii()).map_err(|_| {
                    bad("expected hexadecimal digits, as in the environment of Caracal".into())
                })?);
            if key.len() < MIN_KEY_BYTES {
                return Err(bad(format!("expected at least {MIN_KEY_BYTES} bytes, found {}", key.len())));
            }
            found.keys.push(Hmac::new_from_slice(&key).map_err(|error| bad(error.to_string()))?);
            found.labels.push(secret.label.clone());
        }
        found.labels.push(NO_KEY.into());
        Ok(found)
    }

    /// Reports whether there is no key at all.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the keys' names; the last one stands for "none fits".
    pub(super) fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Says which key made the HMAC of a row.
    pub(super) fn check(
        &mut self,
        content: Value<'_>,
        prev: Value<'_>,
        stored: Value<'_>,
        faults: &mut Vec<Fault>,
    ) -> Seal {
        let digits = match stored {
            Value::Null | Value::Absent | Value::Text("") => return Seal::None,
            Value::Text(digits) => digits,
            _ => "",
        };
        let Link::Digest(mac) = Link::of_text(digits) else {
            faults.push(Fault {
                kind: FindingKind::SignatureInvalid,
                expected: Some("64 lowercase hexadecimal digits, or nothing".into()),
                found: Some(digits.chars().take(80).collect()),
                explains: "chain_hmac is no HMAC".into(),
            });
            return Seal::Bad;
        };
        if self.keys.is_empty() {
            return Seal::Unasked;
        }
        let (content, prev) = (content.as_text().unwrap_or(""), prev.as_text().unwrap_or(""));
        let order = [self.last].into_iter().chain((0..self.keys.len()).filter(|at| *at != self.last));
        for at in order {
            let Some(key) = self.keys.get(at) else { continue };
            let made = key.clone().chain_update(content).chain_update(b"|").chain_update(prev);
            if made.finalize().into_bytes()[..] == mac {
                self.last = at;
                return Seal::Verified(u16::try_from(at).unwrap_or(u16::MAX));
            }
        }
        Seal::Unchecked(u16::try_from(self.keys.len()).unwrap_or(u16::MAX))
    }
}

/// Says what rows mean that no key at hand made, and rows without HMAC.
pub(super) fn judge(keyless: bool, whole: &mut Conclusion<'_>) {
    let chains = std::mem::take(&mut whole.chains);
    let some_fit = chains.iter().flat_map(|chain| &chain.runs).any(|run| run.how == RunKind::Verified);
    for chain in &chains {
        let mut signed = false;
        for (at, run) in chain.runs.iter().enumerate() {
            match run.how {
                RunKind::Unsigned => judge_unsigned(keyless, some_fit, signed, chain, run, whole),
                RunKind::Unchecked => judge_unchecked(some_fit, &chains, chain, at, whole),
                RunKind::Verified | RunKind::Unasked | RunKind::Bad => {}
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
                "the HMACs of {} were not checked: no {KEY_NAME} was given, so contents and links could have been made anew by anybody",
                plural(unasked, "record")
            ),
        });
    }
    if whole.runs_left_out > 0 {
        let left_out = plural(whole.runs_left_out, "further run");
        whole.report(Finding {
            kind: FindingKind::SignatureInvalid,
            chain: String::new(),
            position: None,
            last: None,
            record: None,
            expected: None,
            found: None,
            explains: format!("{left_out} of records without a fitting HMAC are not listed"),
        });
    }
    whole.chains = chains;
}

/// Judges rows without HMAC.
fn judge_unsigned(
    keyless: bool,
    some_fit: bool,
    signed_before: bool,
    chain: &Walked,
    run: &Run,
    whole: &mut Conclusion<'_>,
) {
    let never_signed = chain.runs.iter().all(|run| run.how == RunKind::Unsigned);
    let nothing_fits = !some_fit && !never_signed;
    if run.place <= chain.vouched || (!signed_before && (keyless || nothing_fits)) {
        return;
    }
    // The finding says more than the note of the walk.
    whole.notes().retain(|note| note.kind != NoteKind::UnsignedSpan || note.chain != chain.id);
    let explains = if signed_before {
        "records without HMAC stand behind records that have one: they were put in, or their HMAC was taken away"
    } else if never_signed {
        "no record of the chain has an HMAC: written before the key was enabled, or the HMACs were taken away; only an earlier checkpoint tells which"
    } else {
        "the first records have no HMAC: written before the key was enabled, or their HMACs were taken away; only an earlier checkpoint tells which"
    };
    whole.report(Finding {
        kind: FindingKind::Unsigned,
        chain: chain.id.clone(),
        position: Some(run.from),
        last: (run.to != run.from).then_some(run.to),
        record: run.ids.first().filter(|_| run.records == 1).map(|(_, id)| id.clone()),
        expected: Some("an HMAC of a key at hand".into()),
        found: Some("none".into()),
        explains: explains.into(),
    });
}

/// Judges rows with an HMAC that no key at hand made.
fn judge_unchecked(some_fit: bool, chains: &[Walked], chain: &Walked, at: usize, whole: &mut Conclusion<'_>) {
    let Some(run) = chain.runs.get(at) else { return };
    if !some_fit {
        whole.report(span(
            FindingKind::WrongKey,
            chain,
            run,
            "the key at hand did not make these HMACs; contents and links are judged without it",
        ));
        return;
    }
    let fits = |run: &&Run| run.how == RunKind::Verified;
    let before = chain.runs.iter().take(at).rev().find(fits).and_then(|run| run.keys);
    let after = chain.runs.iter().skip(at + 1).find(fits).and_then(|run| run.keys);
    let unknown = |explains| span(FindingKind::UnknownKey, chain, run, explains);
    let finding = match (before, after) {
        (Some((_, before)), Some((after, _))) if before == after => None,
        (Some(_), Some(_)) => {
            Some(unknown("made with a key that is not at hand, between two keys that are: a rotation"))
        }
        (None, Some(_)) if !contradicted(chains, chain, run, false) => Some(unknown(
            "made with a key that is not at hand: one that was retired, or a forger's; the retired key tells",
        )),
        (Some(_), None) if !contradicted(chains, chain, run, true) => {
            Some(unknown("made with a key that is not at hand: one newer than those at hand, or a forger's"))
        }
        (None, None) if !contradicted(chains, chain, run, false) => {
            Some(unknown("made with a key that is not at hand, though others of the table fit"))
        }
        _ => None,
    };
    match finding {
        Some(finding) => whole.report(finding),
        None => report_forged(chain, run, whole),
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

/// Reports forged HMACs, row by row while there are few.
fn report_forged(chain: &Walked, run: &Run, whole: &mut Conclusion<'_>) {
    let explains = "the HMAC does not fit content and predecessor under the key of the records around it: the record was put in, or hashed anew without the key";
    if run.records > run.ids.len() as u64 {
        whole.report(span(FindingKind::SignatureInvalid, chain, run, explains));
        return;
    }
    for (number, id) in &run.ids {
        whole.report(Finding {
            position: Some(*number),
            last: None,
            record: Some(id.clone()),
            ..span(FindingKind::SignatureInvalid, chain, run, explains)
        });
    }
}

/// Makes the finding of a whole run.
fn span(kind: FindingKind, chain: &Walked, run: &Run, explains: &str) -> Finding {
    Finding {
        kind,
        chain: chain.id.clone(),
        position: Some(run.from),
        last: (run.to != run.from).then_some(run.to),
        record: run.ids.first().filter(|_| run.records == 1).map(|(_, id)| id.clone()),
        expected: Some("an HMAC by a key at hand".into()),
        found: Some(NO_KEY.into()),
        explains: explains.into(),
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
