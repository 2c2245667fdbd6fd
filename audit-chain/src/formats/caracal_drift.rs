//! Finds the spelling that Caracal hashed, where a copy spells JSON or time otherwise.
//!
//! A row whose content does not hash to its stored hash was edited, or went through something that respells values: a JSON
//! library with binary numbers (`1.00` becomes `1.0`), an export as objects instead of `jsonb::text`, a driver that cuts
//! microseconds to milliseconds. The stored SHA-256 decides: whatever spelling hashes to it *is* what was hashed, so
//! a find is a proof that nothing but the spelling changed. Tried, in this order:
//!
//! 1. JSON written as `jsonb::text`; text that is no JSON taken as a JSON string, empty text as NULL;
//! 2. the numbers in the JSON columns with zeros put back behind the point, the fewest first;
//! 3. the lost microseconds of a time that has none (1,500 instants: cut or rounded);
//! 4. the lost fraction of a time without one (1,500,000 instants).
//!
//! Steps 2 and 4 have a budget per thread, so that a table full of edits costs no more than a table full of rows. Rows that
//! would need step 4 beyond it, when every one before was found, are said to be unrecoverable and not edited.
//! Called by [`super::caracal`] for rows that do not fit, never for others.

use sha2::{Digest as _, Sha256};

use super::caracal::{SEPARATOR, push_json, push_nanos};
use crate::canonical::push_string;
use crate::json_tree::Json;
use crate::report::NoteKind;
use crate::value::Value;

/// How many JSON columns are hashed.
pub(super) const JSON_COLUMNS: usize = 3;

/// How many spellings of the numbers of one row are tried.
const MAX_NUMBER_SPELLINGS: u64 = 4_096;
/// How many tries of step 2 may fail, per thread.
const NUMBER_BUDGET: u64 = 4_000_000;
/// How many tries of step 4 may be made, per thread.
const SECOND_BUDGET: u64 = 3_000_000;

const JSON_RESPELT: &str =
    "JSON is spelt otherwise than PostgreSQL spells it; spelt as jsonb::text it is what was hashed";
const NUMBERS_RESPELT: &str =
    "numbers in JSON lost zeros behind the point; with the zeros put back the row is what was hashed";
const MICROSECONDS_LOST: &str =
    "occurred_at lost its microseconds; with the microseconds found again the row is what was hashed";
const FRACTION_LOST: &str =
    "occurred_at lost its fraction of a second; with the fraction found again the row is what was hashed";
const FRACTION_UNSOUGHT: &str = "occurred_at lost its fraction of a second, as rows before whose fraction was found again; too many to seek them all";

/// The search and what is left of its budgets.
#[derive(Debug)]
pub(super) struct Drift {
    numbers_left: u64,
    seconds_left: u64,
    seconds_found: u64,
    seconds_failed: u64,
}

impl Default for Drift {
    fn default() -> Self {
        Self { numbers_left: NUMBER_BUDGET, seconds_left: SECOND_BUDGET, seconds_found: 0, seconds_failed: 0 }
    }
}

impl Drift {
    /// Looks for the spelling that hashes to `stored`; says what is to be noted, `None` when the row was edited.
    /// `texts` are the hashed bytes of the fields before the JSON columns.
    pub(super) fn recover(
        &mut self,
        stored: [u8; 32],
        texts: &[u8],
        json: [Value<'_>; JSON_COLUMNS],
        micros: i64,
    ) -> Option<(NoteKind, &'static str)> {
        let search = Search { stored, texts: Sha256::new_with_prefix(texts) };
        let spellings = json.map(spellings);
        let combinations = combine(&spellings);
        let drift = |explains| Some((NoteKind::SerialisationDrift, explains));
        if combinations.iter().skip(1).any(|json| search.fits(&search.with(json), micros)) {
            return drift(JSON_RESPELT);
        }
        if self.respell_numbers(&search, json.map(tree), micros) {
            return drift(NUMBERS_RESPELT);
        }
        if micros % 1_000 != 0 {
            return None;
        }
        for json in &combinations {
            if search.fits_any(&search.with(json), micros - 500..micros + 1_000) {
                return drift(MICROSECONDS_LOST);
            }
        }
        if micros % 1_000_000 != 0 {
            return None;
        }
        let instants = micros - 500_000..micros + 1_000_000;
        for json in &combinations {
            let Some(left) = self.seconds_left.checked_sub(1_500_000) else {
                let all_found = self.seconds_found > 0 && self.seconds_failed == 0;
                return all_found.then_some((NoteKind::UnrecoverableCanonicalForm, FRACTION_UNSOUGHT));
            };
            self.seconds_left = left;
            if search.fits_any(&search.with(json), instants.clone()) {
                self.seconds_found += 1;
                return drift(FRACTION_LOST);
            }
        }
        self.seconds_failed += 1;
        None
    }

    /// Tries the numbers of all columns with zeros put back, every column written as `jsonb::text`.
    fn respell_numbers(&mut self, search: &Search, trees: [Json; JSON_COLUMNS], micros: i64) -> bool {
        let Some(mut numbers) = Numbers::of(trees) else { return false };
        let most = self.numbers_left.min(MAX_NUMBER_SPELLINGS);
        let mut tries = 0;
        let mut found = false;
        numbers.each(&mut |json| {
            if tries >= most {
                return true;
            }
            tries += 1;
            found = search.fits(&search.with(json), micros);
            found
        });
        if !found {
            self.numbers_left -= tries;
        }
        found
    }
}

/// One row's hash and the state of the hash before its JSON.
struct Search {
    stored: [u8; 32],
    texts: Sha256,
}

impl Search {
    /// Returns the state of the hash behind the JSON columns.
    fn with(&self, json: &[&[u8]; JSON_COLUMNS]) -> Sha256 {
        let mut state = self.texts.clone();
        for column in json {
            update(&mut state, column);
        }
        state
    }

    fn fits(&self, state: &Sha256, micros: i64) -> bool {
        self.fits_any(state, micros..micros.saturating_add(1))
    }

    fn fits_any(&self, state: &Sha256, mut instants: std::ops::Range<i64>) -> bool {
        let mut digits = Vec::with_capacity(24);
        instants.any(|micros| {
            digits.clear();
            push_nanos(&mut digits, micros);
            let digest: [u8; 32] = state.clone().chain_update(&digits).finalize().into();
            digest == self.stored
        })
    }
}

fn update(state: &mut Sha256, json: &[u8]) {
    state.update(json);
    state.update([SEPARATOR]);
}

/// Lists how a JSON column may have been spelt when it was hashed: as it stands first.
fn spellings(value: Value<'_>) -> Vec<Vec<u8>> {
    let mut stands = Vec::new();
    push_json(&mut stands, value);
    let mut found = vec![stands];
    let mut add = |spelt: Vec<u8>| {
        if !found.contains(&spelt) {
            found.push(spelt);
        }
    };
    let text = match value {
        Value::Text(text) => {
            let mut string = Vec::new();
            push_string(&mut string, text);
            add(string);
            text
        }
        Value::Json(text) | Value::Number(text) => text,
        _ => return found,
    };
    if text.is_empty() {
        add(b"null".to_vec());
    }
    let mut jsonb = Vec::new();
    if Json::parse(text).ok().and_then(|tree| tree.push_jsonb(&mut jsonb)).is_some() {
        add(jsonb);
    }
    found
}

/// Reads a JSON column; text that is no JSON is a JSON string.
fn tree(value: Value<'_>) -> Json {
    let mut stands = Vec::new();
    push_json(&mut stands, value);
    let text = String::from_utf8_lossy(&stands);
    Json::parse(&text)
        .unwrap_or_else(|_| if text.is_empty() { Json::Null } else { Json::Text(text.into_owned()) })
}

/// Lists the combinations of the columns' spellings; all as they stand is the first.
fn combine(spellings: &[Vec<Vec<u8>>; JSON_COLUMNS]) -> Vec<[&[u8]; JSON_COLUMNS]> {
    let [first, second, third] = spellings;
    let mut all = Vec::with_capacity(first.len() * second.len() * third.len());
    for a in first {
        for b in second {
            all.extend(third.iter().map(|c| [a.as_slice(), b.as_slice(), c.as_slice()]));
        }
    }
    all
}

/// The numbers in a row's JSON, to be spelt with more zeros.
struct Numbers {
    trees: [Json; JSON_COLUMNS],
    digits: Vec<String>,
    zeros: Vec<usize>,
}

type Spelt<'a> = &'a mut dyn FnMut(&[&[u8]; JSON_COLUMNS]) -> bool;

impl Numbers {
    /// Takes the columns of a row; `None` when there is no number in them.
    fn of(mut trees: [Json; JSON_COLUMNS]) -> Option<Self> {
        let mut digits = Vec::new();
        for tree in &mut trees {
            tree.numbers_mut(&mut |number| digits.push(number.clone()));
        }
        let zeros = vec![0; digits.len()];
        (!digits.is_empty()).then_some(Self { trees, digits, zeros })
    }

    /// Hands over spellings, the fewest zeros first, until `fits` says so; `false` when it never does.
    fn each(&mut self, fits: Spelt<'_>) -> bool {
        const MOST_ZEROS: usize = 6;
        // A library that drops zeros drops them everywhere.
        for zeros in 1..=3 {
            self.zeros.fill(zeros);
            if self.spell(fits) {
                return true;
            }
            let behind_a_point = |digits: &String| if digits.contains('.') { zeros } else { 0 };
            self.zeros = self.digits.iter().map(behind_a_point).collect();
            if self.spell(fits) {
                return true;
            }
        }
        self.zeros.fill(0);
        (0..=MOST_ZEROS).any(|zeros| self.distribute(0, zeros, fits))
    }

    /// Gives `zeros` zeros to the numbers from `at` on, in every way.
    fn distribute(&mut self, at: usize, zeros: usize, fits: Spelt<'_>) -> bool {
        if zeros == 0 {
            return self.spell(fits);
        }
        for here in at..self.digits.len() {
            for given in (1..=zeros).rev() {
                self.give(here, given);
                let found = self.distribute(here + 1, zeros - given, fits);
                self.give(here, 0);
                if found {
                    return true;
                }
            }
        }
        false
    }

    fn give(&mut self, at: usize, zeros: usize) {
        if let Some(given) = self.zeros.get_mut(at) {
            *given = zeros;
        }
    }

    /// Writes the columns with the zeros as they are given now.
    fn spell(&mut self, fits: Spelt<'_>) -> bool {
        let mut spelt = self.digits.iter().zip(&self.zeros).map(|(digits, zeros)| {
            let point = if *zeros > 0 && !digits.contains('.') { "." } else { "" };
            [digits.as_str(), point, &"0".repeat(*zeros)].concat()
        });
        let mut texts: [Vec<u8>; JSON_COLUMNS] = Default::default();
        for (tree, text) in self.trees.iter_mut().zip(&mut texts) {
            tree.numbers_mut(&mut |number| {
                if let Some(spelt) = spelt.next() {
                    *number = spelt;
                }
            });
            if tree.push_jsonb(text).is_none() {
                return false;
            }
        }
        fits(&texts.each_ref().map(Vec::as_slice))
    }
}
