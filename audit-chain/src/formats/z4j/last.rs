//! The last word: what only the whole shows.
//!
//! Called once after the walk. Era C's rows are compared with the signed state row (head, counts, prune boundary, digest
//! of the frozen rows); in eras A and B the runs of rows that no secret at hand fits are told apart.
//!
//! One cause is one finding: a gap that the links show explains a count that is too low, a row that is edited
//! explains a digest that does not fit. What the state row says is used only when its MAC holds.

use crate::format::{Conclusion, Link, Run, RunKind, Setup, Walked};
use crate::report::{Finding, FindingKind, Note, NoteKind};
use crate::verify::plural;

use super::keys::{CHAIN, MASTER, Secrets};
use super::state::{Found, META_TABLE, STATE_TABLE, State, Watermark};
use super::{FROZEN_CHAIN, LEGACY_CHAIN, NO_SECRET_FITS};

/// From how many neighbouring rows on, at a change of secrets or an end of the chain, a secret that is not at hand is
/// likelier than edits.
const MIN_SPAN: u64 = 3;

/// How many changes of the secret are noted in one chain.
const MAX_ROTATIONS: usize = 32;

/// Kinds of findings that say how rows follow each other.
const LINK_KINDS: [FindingKind; 6] = [
    FindingKind::Missing,
    FindingKind::MissingHead,
    FindingKind::LinkBroken,
    FindingKind::Forked,
    FindingKind::Duplicate,
    FindingKind::Reordered,
];

/// Has the last word on a verification.
pub(super) fn conclude(setup: &Setup<'_>, whole: &mut Conclusion<'_>) {
    let chains = std::mem::take(&mut whole.chains);
    let mut last = Last { setup, secrets: Secrets::new(setup.keys), chains: &chains, whole };
    last.legacy();
    last.rotations();
    last.state();
}

struct Last<'a, 'w> {
    setup: &'a Setup<'a>,
    secrets: Secrets,
    chains: &'a [Walked],
    whole: &'a mut Conclusion<'w>,
}

impl Last<'_, '_> {
    fn chain(&self, id: &str) -> Option<&Walked> {
        self.chains.iter().find(|chain| chain.id == id)
    }

    /// Reports something about a chain as a whole.
    fn report(
        &mut self,
        kind: FindingKind,
        chain: &str,
        expected: Option<String>,
        found: Option<String>,
        explains: String,
    ) {
        self.whole.report(Finding {
            kind,
            chain: chain.to_owned(),
            position: None,
            last: None,
            record: None,
            expected,
            found,
            explains,
        });
    }

    fn note(&mut self, kind: NoteKind, chain: &str, position: Option<u64>, explains: String) {
        self.whole.note(Note { kind, chain: chain.to_owned(), position, last: None, explains });
    }

    /// Reports whether a finding of one of these kinds is listed for a chain.
    fn has(&mut self, chain: &str, kinds: &[FindingKind]) -> bool {
        self.whole.findings().iter().any(|finding| finding.chain == chain && kinds.contains(&finding.kind))
    }

    /// Adds to what the first finding of one of these kinds explains; `false` when there is none.
    fn enrich(&mut self, chain: &str, kinds: &[FindingKind], more: &str) -> bool {
        let findings = self.whole.findings().iter_mut();
        let first = findings
            .filter(|finding| finding.chain == chain && kinds.contains(&finding.kind))
            .min_by_key(|finding| finding.position);
        first.map(|finding| finding.explains.push_str(more)).is_some()
    }

    /// Judges the rows of eras A and B that no secret at hand fits, and where the chain begins.
    fn legacy(&mut self) {
        let Some(chain) = self.chain(LEGACY_CHAIN) else { return };
        let (runs, records) = (chain.runs.clone(), chain.records);
        let verified = runs.iter().any(|run| run.how == RunKind::Verified);
        if self.has(LEGACY_CHAIN, &[FindingKind::WrongKey]) {
            self.whole
                .retract(|finding| finding.chain == LEGACY_CHAIN && finding.kind == FindingKind::WrongKey);
            for (at, run) in runs.iter().enumerate() {
                if self.fits_no_secret(run) {
                    self.misfits(&runs, at, verified);
                }
            }
            let more = self.whole.runs_left_out;
            if more > 0 {
                let explains =
                    format!("besides, {} that no secret at hand fits", plural(more, "stretch of rows"));
                self.report(FindingKind::Edited, LEGACY_CHAIN, None, None, explains);
            }
        }
        self.watermark(records, verified);
    }

    fn fits_no_secret(&self, run: &Run) -> bool {
        let label = run.keys.and_then(|(first, _)| self.whole.records_by_key.get(usize::from(first)));
        run.how == RunKind::Unchecked && label.is_some_and(|(label, _)| label == NO_SECRET_FITS)
    }

    /// Says whether a run of rows that no secret at hand fits was edited or made with another secret.
    fn misfits(&mut self, runs: &[Run], at: usize, verified: bool) {
        let run = &runs[at];
        let is_verified = |run: &&Run| run.how == RunKind::Verified;
        let before = runs[..at].iter().rev().find(is_verified).and_then(|run| Some(run.keys?.1));
        let after = runs[at + 1..].iter().find(is_verified).and_then(|run| Some(run.keys?.0));
        let oddities = self.secrets.oddities(None);
        let [name, before_name] = MASTER;
        let edited = verified && (run.records < MIN_SPAN || (before.is_some() && before == after));
        if !edited {
            let (kind, explains) = if verified {
                (
                    FindingKind::UnknownKey,
                    format!(
                        "no secret at hand made these rows, while others verify: a former {name} is wanted in {before_name}, or all of them were edited{oddities}"
                    ),
                )
            } else {
                (
                    FindingKind::WrongKey,
                    format!(
                        "{name} at hand is not the one that made these rows: neither good nor bad{oddities}"
                    ),
                )
            };
            self.whole.report(Finding {
                kind,
                chain: LEGACY_CHAIN.to_owned(),
                position: Some(run.from),
                last: (run.to > run.from).then_some(run.to),
                record: run.ids.first().map(|(_, id)| id.clone()),
                expected: Some(format!("a value of {name} or {before_name} that made them")),
                found: None,
                explains,
            });
            return;
        }
        let explains =
            "the row is not what its HMAC commits to under any secret at hand, while rows beside it verify";
        let edited = |position, last, record| Finding {
            kind: FindingKind::Edited,
            chain: LEGACY_CHAIN.to_owned(),
            position: Some(position),
            last,
            record,
            expected: None,
            found: None,
            explains: explains.to_owned(),
        };
        for (position, id) in &run.ids {
            self.whole.report(edited(*position, None, Some(id.clone())));
        }
        if let Some((position, _)) = run.ids.last().filter(|(position, _)| *position < run.to) {
            self.whole.report(edited(position + 1, Some(run.to), None));
        }
    }

    /// Says what the watermark is worth.
    fn watermark(&mut self, records: u64, verified: bool) {
        let Some(watermark) = Watermark::read(self.setup.companions) else { return };
        // Nothing names a row before the genesis.
        self.put_back(LEGACY_CHAIN, "the watermark in z4j_meta says that older rows were removed");
        let gone = format!("the rows up to the one with HMAC {} were removed", watermark.row_hmac);
        match watermark.is_authentic(&self.secrets) {
            None => self.note(
                NoteKind::RetentionGap,
                LEGACY_CHAIN,
                Some(1),
                format!("{gone}, says z4j_meta; nothing authenticates that, so a clean-up by z4j and a cut by hand look the same"),
            ),
            Some(true) => self.note(NoteKind::Pruned, LEGACY_CHAIN, Some(1), format!("{gone}, says z4j_meta under {}", MASTER[0])),
            Some(false) if verified || records == 0 => self.report(
                FindingKind::StateMismatch,
                LEGACY_CHAIN,
                None,
                Some(watermark.row_hmac),
                format!("the prune watermark in z4j_meta was not made with {}: it was put there by hand", MASTER[0]),
            ),
            Some(false) => {}
        }
    }

    /// Says better what a first row that does not continue the boundary is: rows of before it are back.
    fn put_back(&mut self, chain: &str, why: &str) {
        for finding in self.whole.findings() {
            if finding.chain == chain
                && finding.kind == FindingKind::MissingHead
                && finding.found.as_deref().is_some_and(|found| found.starts_with("none"))
            {
                finding.kind = FindingKind::LinkBroken;
                finding.explains =
                    format!("{why}, but a row from before that is here: it was put back, or this one was");
            }
        }
    }

    /// Notes where the secret changed.
    fn rotations(&mut self) {
        let chains = self.chains;
        for chain in chains {
            let changes = chain.verified_by.windows(2).filter(|pair| pair[0].key != pair[1].key);
            for pair in changes.take(MAX_ROTATIONS) {
                self.note(
                    NoteKind::Rotated,
                    &chain.id,
                    Some(pair[1].from),
                    format!(
                        "the secret changed: records up to {} verify with {}, from {} on with {}; both are needed for the whole chain",
                        pair[0].to, pair[0].key, pair[1].from, pair[1].key
                    ),
                );
            }
        }
    }

    /// Judges era C.
    fn state(&mut self) {
        let is_active = |chain: &&Walked| chain.id != LEGACY_CHAIN && chain.id != FROZEN_CHAIN;
        let active = self.chains.iter().filter(is_active).count() > 0;
        let present = active || self.chain(FROZEN_CHAIN).is_some();
        match State::read(self.setup.companions) {
            Found::NotAtHand if !present => {}
            Found::NotAtHand if self.setup.companions.contains_key(META_TABLE) => {
                self.no_state(format!("the table {STATE_TABLE} is gone"));
            }
            Found::NotAtHand => {
                if active {
                    self.begun_later();
                    self.note(NoteKind::NotChecked, "", None, format!("{STATE_TABLE} is not at hand: rows cut off the end, and the prune boundary, were not checked"));
                }
                self.unproven_frozen();
            }
            // Without an audit key (development only) there is no state row.
            Found::Missing(_) if !present && self.chain(LEGACY_CHAIN).is_some() => {}
            Found::Missing(why) => self.no_state(format!("{STATE_TABLE} does not hold the state row: {why}")),
            Found::Broken(why) => self.no_state(format!("the state row breaks z4j's own rules: {why}")),
            Found::Row(state) => self.state_row(&state),
        }
    }

    /// Takes it for a note that a generation begins behind rows that are not here: z4j removes the oldest rows itself, and only
    /// the state row says where, so rows alone (an export of some days) do not tell that from rows cut off by hand. An earlier
    /// checkpoint that has those rows makes it a finding again: nothing at hand says that z4j removed them.
    fn begun_later(&mut self) {
        let ids: Vec<String> = self.chains.iter().map(|chain| chain.id.clone()).collect();
        let known: Vec<String> =
            ids.into_iter().filter(|id| self.whole.begins_otherwise_at_checkpoint(id)).collect();
        let gone = self.whole.retract(|finding| {
            finding.kind == FindingKind::MissingHead
                && ![LEGACY_CHAIN, FROZEN_CHAIN].contains(&finding.chain.as_str())
                && !known.contains(&finding.chain)
        });
        for finding in gone {
            let before = finding.found.unwrap_or_default();
            let explains = format!(
                "the rows begin behind the one with HMAC {before}: whether z4j removed those before it, an export left them out or somebody cut them off, only {STATE_TABLE} tells"
            );
            self.note(NoteKind::RetentionGap, &finding.chain, finding.position, explains);
        }
    }

    fn no_state(&mut self, explains: String) {
        self.report(FindingKind::StateMismatch, "", Some("one signed state row".into()), None, explains);
        self.unproven_frozen();
    }

    /// Authenticates the state row, and compares when it holds.
    fn state_row(&mut self, state: &State) {
        let generation = state.generation().unwrap_or("").to_owned();
        let key_id = state.text("state_key_id").unwrap_or("").to_owned();
        let Some(secret) = self.secrets.find(&key_id) else {
            let explains = format!(
                "the state row is signed with an audit chain secret that is not at hand: neither good nor bad{}",
                self.secrets.oddities(Some(&key_id))
            );
            let wanted = format!("the secret with this key id in {} or {}", CHAIN[0], CHAIN[1]);
            self.report(
                FindingKind::UnknownKey,
                &generation,
                Some(wanted),
                Some(format!("key id {key_id}")),
                explains,
            );
            self.unproven_frozen();
            return;
        };
        if !state.is_signed_by(secret) {
            let explains =
                "the state row is not what its MAC commits to: it was edited, so nothing that it says counts";
            self.report(FindingKind::StateMismatch, &generation, None, None, explains.into());
            self.unproven_frozen();
            return;
        }
        self.outsiders(&generation);
        self.unknown_keys(state, &generation);
        self.counts(state, &generation);
        self.keys(state, &generation);
        self.frozen(state);
    }

    /// Reports rows that belong to no generation that the state row vouches for.
    fn outsiders(&mut self, generation: &str) {
        let chains = self.chains;
        for chain in chains.iter().filter(|chain| chain.id != generation && chain.id != FROZEN_CHAIN) {
            // Where such rows begin and end nobody says.
            self.whole.retract(|finding| finding.chain == chain.id && LINK_KINDS.contains(&finding.kind));
            let explains = format!(
                "{} outside the generation that the signed state row names",
                plural(chain.records, "row")
            );
            self.report(
                FindingKind::StateMismatch,
                &chain.id,
                Some(format!("generation {generation}")),
                None,
                explains,
            );
        }
    }

    /// Turns rows of keys that the state row does not count into edited ones.
    fn unknown_keys(&mut self, state: &State, generation: &str) {
        for finding in self.whole.findings() {
            let key = finding.found.as_deref().and_then(|found| found.strip_prefix("key id "));
            if finding.chain == generation
                && finding.kind == FindingKind::UnknownKey
                && finding.position.is_some()
                && key.is_some_and(|key| !state.rows_by_key.contains_key(key))
            {
                finding.kind = FindingKind::Edited;
                finding.expected = None;
                finding.explains = "its hmac_key_id names a secret that made no row of this chain, says the signed state row".into();
            }
        }
    }

    /// Compares head and counts.
    fn counts(&mut self, state: &State, generation: &str) {
        let head = state.text("head_row_hmac");
        let none = Walked::default();
        let chain = self.chain(generation).unwrap_or(&none).clone();
        let boundary = state.text("prune_row_hmac");
        if let Some(boundary) = boundary {
            self.pruned(state, generation, boundary, chain.records > state.rows);
        }
        let wanted = format!("{}, head {}", plural(state.rows, "record"), head.unwrap_or("none"));
        let here = format!("{}, head {}", plural(chain.records, "record"), chain.head.text());
        let mut cut = false;
        if chain.records == 0 {
            cut = state.rows > 0;
        } else if head.map_or(Link::Genesis, Link::of_text) != chain.head {
            if let Some(place) = chain.watched {
                self.report(
                    FindingKind::StateMismatch,
                    generation,
                    Some(wanted.clone()),
                    Some(here.clone()),
                    format!(
                        "{} stand after the one that the signed state row calls the newest",
                        plural(chain.records - place, "record")
                    ),
                );
                return;
            }
            // A last row that is wrong by itself explains that it is not the head, unless rows are missing too.
            cut = chain.records < state.rows;
            if !cut && !chain.last_faulty {
                let explains = "the newest row is not the one that the signed state row names".to_owned();
                self.report(
                    FindingKind::StateMismatch,
                    generation,
                    Some(wanted.clone()),
                    Some(here.clone()),
                    explains,
                );
            }
        }
        if cut {
            let explains = format!(
                "{} that the signed state row counts are gone, the newest among them",
                plural(state.rows - chain.records, "record")
            );
            self.report(FindingKind::Truncated, generation, Some(wanted), Some(here), explains);
        } else if chain.records < state.rows {
            let more = format!(
                "; the signed state row counts {} more than are here",
                plural(state.rows - chain.records, "record")
            );
            if !self.enrich(generation, &LINK_KINDS, &more) {
                let explains = format!("rows are gone where no link tells{more}");
                self.report(FindingKind::Missing, generation, Some(wanted), Some(here), explains);
            }
        } else if chain.records > state.rows {
            let more = format!(
                "; here are {} more than the signed state row counts",
                plural(chain.records - state.rows, "record")
            );
            if !self.enrich(generation, &LINK_KINDS, &more) {
                self.report(
                    FindingKind::StateMismatch,
                    generation,
                    Some(wanted),
                    Some(here),
                    format!("rows were put in{more}"),
                );
            }
        }
    }

    /// Says what a signed prune boundary explains.
    fn pruned(&mut self, state: &State, generation: &str, boundary: &str, too_many: bool) {
        let at = state.text("prune_occurred_at").unwrap_or("?");
        self.note(
            NoteKind::Pruned,
            generation,
            Some(1),
            format!("the rows up to {at} were removed on record: the signed state row names the last of them, HMAC {boundary}"),
        );
        self.put_back(generation, "the signed state row says that older rows were removed");
        for finding in self.whole.findings().iter_mut().filter(|finding| finding.chain == generation) {
            match finding.kind {
                FindingKind::MissingHead if too_many => {
                    finding.kind = FindingKind::LinkBroken;
                    finding.explains = "a row from before the prune boundary was put back".into();
                }
                // At this point these can only come from the comparison with an earlier checkpoint; where the earlier
                // rows were at hand, they name a row.
                FindingKind::Truncated | FindingKind::Rewritten if finding.position.is_none() => {
                    finding.kind = FindingKind::CheckpointMismatch;
                    finding.explains = format!(
                        "the checkpoint's head is not here; the rows up to {at} were removed on record since, so it may be among them: an earlier copy of the chain tells"
                    );
                }
                _ => {}
            }
        }
    }

    /// Compares how many rows each key made, and the tally of the table's triggers.
    fn keys(&mut self, state: &State, generation: &str) {
        let Some(chain) = self.chain(generation).filter(|chain| chain.records == state.rows) else { return };
        let used = |key: &str| {
            let label =
                self.secrets.find(key).map_or_else(|| format!("key id {key}"), |secret| secret.label.clone());
            chain.records_by_key.iter().find(|(known, _)| *known == label).map_or(0, |(_, count)| *count)
        };
        let counted: u64 = state.rows_by_key.keys().map(|key| used(key)).sum();
        // Rows that are wrong by themselves are counted for no key.
        let uncounted = chain.records - counted.min(chain.records);
        let lacking: u64 = state.rows_by_key.iter().map(|(key, rows)| rows.saturating_sub(used(key))).sum();
        let odd = state.rows_by_key.iter().find(|(key, rows)| used(key) > **rows || lacking != uncounted);
        let mismatch = odd.map(|(key, rows)| (format!("{rows} of key id {key}"), used(key).to_string()));
        let frozen = self.chain(FROZEN_CHAIN).map_or(0, |frozen| frozen.records);
        let tally =
            state.observed.filter(|tally| ![0, chain.records, chain.records + frozen].contains(tally));
        if let Some((wanted, here)) = mismatch {
            let explains = "the keys made other numbers of rows than the signed state row counts".to_owned();
            self.report(FindingKind::StateMismatch, generation, Some(wanted), Some(here), explains);
        }
        if let Some(tally) = tally {
            let explains =
                "the table's own tally of its rows does not fit: its triggers were bypassed".to_owned();
            let wanted = Some(plural(state.rows, "record"));
            self.report(
                FindingKind::StateMismatch,
                generation,
                wanted,
                Some(plural(tally, "record")),
                explains,
            );
        }
    }

    /// Compares the frozen rows with their signed digest.
    fn frozen(&mut self, state: &State) {
        let none = Walked::default();
        let chain = self.chain(FROZEN_CHAIN).unwrap_or(&none).clone();
        let digest = chain.snapshot.map(hex::encode);
        let wanted = state.text("frozen_snapshot_digest");
        if chain.records == state.frozen && digest.as_deref() == wanted {
            // They are as they were at the upgrade, which wrote down gaps and forks of before.
            self.whole.retract(|finding| finding.chain == FROZEN_CHAIN && LINK_KINDS.contains(&finding.kind));
            let verified: u64 = chain.records_by_key.iter().map(|(_, count)| count).sum();
            if verified < chain.records {
                let ids = self.wanted_ids();
                self.note(
                    NoteKind::NotChecked,
                    FROZEN_CHAIN,
                    Some(1),
                    format!(
                        "{} are as they were at the upgrade, says the signed state row; the HMACs of {} of them were not computed again{ids}",
                        plural(chain.records, "frozen row"),
                        chain.records - verified
                    ),
                );
            }
            return;
        }
        let counted = plural(state.frozen, "frozen row");
        let here = plural(chain.records, "frozen row");
        let more = match chain.records.cmp(&state.frozen) {
            std::cmp::Ordering::Less => {
                format!("; the signed state row counts {} more than are here", state.frozen - chain.records)
            }
            std::cmp::Ordering::Greater => {
                format!("; here are {} more than the signed state row counts", chain.records - state.frozen)
            }
            std::cmp::Ordering::Equal => {
                "; the signed digest of the frozen rows does not fit either".to_owned()
            }
        };
        let by_itself = [FindingKind::Edited, FindingKind::Malformed, FindingKind::Reordered];
        let kinds: Vec<FindingKind> = match chain.records.cmp(&state.frozen) {
            std::cmp::Ordering::Less => LINK_KINDS.to_vec(),
            std::cmp::Ordering::Equal => by_itself.to_vec(),
            std::cmp::Ordering::Greater => LINK_KINDS.iter().chain(&by_itself).copied().collect(),
        };
        if self.enrich(FROZEN_CHAIN, &kinds, &more) {
            return;
        }
        let (kind, what) = match chain.records.cmp(&state.frozen) {
            std::cmp::Ordering::Less => (FindingKind::Truncated, "frozen rows are gone".to_owned()),
            std::cmp::Ordering::Greater => {
                (FindingKind::StateMismatch, "rows were put among the frozen ones".to_owned())
            }
            std::cmp::Ordering::Equal => (
                FindingKind::StateMismatch,
                format!(
                    "the frozen rows are not those of the signed digest: at least one was edited; {} tells which{}",
                    MASTER[0],
                    self.wanted_ids()
                ),
            ),
        };
        let (expected, found) = match wanted.zip(digest).filter(|_| chain.records == state.frozen) {
            Some((wanted, digest)) => (wanted.to_owned(), digest),
            None => (counted, here),
        };
        let more = if chain.records == state.frozen { "" } else { &more };
        self.report(kind, FROZEN_CHAIN, Some(expected), Some(found), format!("{what}{more}"));
    }

    /// Says that frozen rows have neither their secret nor a signed digest to stand for them.
    fn unproven_frozen(&mut self) {
        let Some(chain) = self.chain(FROZEN_CHAIN) else { return };
        let verified: u64 = chain.records_by_key.iter().map(|(_, count)| count).sum();
        let (records, signed) = (chain.records, chain.signed);
        if verified >= signed || self.has(FROZEN_CHAIN, &[FindingKind::Edited, FindingKind::Malformed]) {
            return;
        }
        let explains = format!(
            "{} of {}: neither the secret that made them nor a signed digest is at hand: neither good nor bad{}",
            signed - verified,
            plural(records, "frozen row"),
            self.wanted_ids()
        );
        self.report(FindingKind::UnknownKey, FROZEN_CHAIN, Some(MASTER[0].into()), None, explains);
    }

    /// Names the keys of frozen rows that are not at hand.
    fn wanted_ids(&self) -> String {
        let active = |label: &str| {
            self.chains.iter().any(|chain| chain.records_by_key.iter().any(|(known, _)| known == label))
        };
        let labels = self.whole.records_by_key.iter().map(|(label, _)| label);
        let wanted: Vec<&str> = labels
            .filter(|label| label.starts_with("key id ") && !active(label))
            .take(4)
            .map(String::as_str)
            .collect();
        if wanted.is_empty() {
            String::new()
        } else {
            format!(" ({} wanted: {})", MASTER[0], wanted.join(", "))
        }
    }
}
