//! Chooses rows by time and by chain, and notes where the chosen ones begin.
//!
//! A span of time is half-open: from `from` on, before `to`. What counts is the row's own clock, the column that
//! [`ChainFormat::time_column`](crate::format::ChainFormat::time_column) names; a row whose clock cannot be read is always chosen.
//! Where a chosen row follows one that was not, the value that it names as its predecessor is kept as a [`SliceStart`], so that
//! a verification knows that the export begins there and does not take it for rows that are gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::format::{Link, Record};
use crate::timestamp::Instant;
use crate::value::Row;

/// Which rows are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SliceFilter {
    /// The first instant.
    pub from: Option<Instant>,
    /// The instant that is no more part of it.
    pub to: Option<Instant>,
    /// The chains; empty for all.
    pub chains: BTreeSet<String>,
}

impl SliceFilter {
    /// Reports whether every row is wanted.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.from.is_none() && self.to.is_none() && self.chains.is_empty()
    }

    /// Reads a time: RFC 3339 with `Z` or an offset, or a date, which is its midnight in UTC.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when it is neither.
    pub fn parse_time(text: &str) -> Result<Instant> {
        let date = text.len() == 10;
        let zoned = text.get(19..).is_some_and(|rest| rest.contains(['Z', 'z', '+', '-']));
        let instant = match (date, zoned) {
            (true, _) => Instant::parse(&format!("{text}T00:00:00Z")),
            (false, true) => Instant::parse(&text.replace('z', "Z")),
            (false, false) => None,
        };
        instant.ok_or_else(|| {
            Error::InvalidInput(format!(
                "{text:?} is no time: expected RFC 3339 as in 2026-11-20T12:00:00Z, or a date as in 2026-11-20, which is its midnight in UTC"
            ))
        })
    }
}

/// Where a run of chosen rows begins in its chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceStart {
    /// The first row's number, where the format has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// What it says of its predecessor, as the format spells it; empty for the beginning of the chain.
    pub prev: String,
}

impl SliceStart {
    /// Returns the predecessor as a link.
    #[must_use]
    pub fn link(&self) -> Link {
        Link::of_head(&self.prev)
    }
}

/// The starts of chains, by chain id.
pub type Starts = BTreeMap<String, Vec<SliceStart>>;

/// Notes where runs of chosen rows begin.
#[derive(Debug, Default)]
pub struct StartNotes {
    chains: HashMap<String, State>,
}

/// One chain so far.
#[derive(Debug, Default)]
struct State {
    /// Whether the last row was left out.
    outside: bool,
    kept: bool,
    starts: Vec<SliceStart>,
}

impl StartNotes {
    /// Takes the next row of the source. `part` says that the first chosen row of a chain begins a run unless it begins the
    /// chain.
    pub fn see(&mut self, record: &Record<'_>, chosen: bool, part: bool) {
        let state = match self.chains.get_mut(record.chain) {
            Some(state) => state,
            None => self.chains.entry(record.chain.to_owned()).or_default(),
        };
        if chosen {
            let first = part && !state.kept && !matches!(record.prev, Link::Genesis | Link::Unstated);
            if state.outside || first {
                state.starts.push(SliceStart { number: record.number, prev: record.prev.text() });
            }
            state.kept = true;
        }
        state.outside = !chosen;
    }

    /// Returns where the runs begin.
    #[must_use]
    pub fn finish(self) -> Starts {
        let starts = self.chains.into_iter().filter(|(_, state)| !state.starts.is_empty());
        starts.map(|(id, state)| (id, state.starts)).collect()
    }
}

/// Chooses row by row.
#[derive(Debug)]
pub struct Slicer {
    filter: SliceFilter,
    time: Option<usize>,
    notes: StartNotes,
    left_out: u64,
}

impl Slicer {
    /// Prepares to choose; `time` is the place of the column of the row's own clock.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when a span of time is wanted and there is no such column, or the span is empty.
    pub fn new(filter: SliceFilter, time: Option<usize>) -> Result<Self> {
        if time.is_none() && (filter.from.is_some() || filter.to.is_some()) {
            return Err(Error::InvalidInput("rows of this format have no time to choose them by".into()));
        }
        if let (Some(from), Some(to)) = (filter.from, filter.to)
            && from >= to
        {
            return Err(Error::InvalidInput(
                "no time is from the first instant on and before the second".into(),
            ));
        }
        Ok(Self { filter, time, notes: StartNotes::default(), left_out: 0 })
    }

    /// Reports whether a row is chosen.
    pub fn wants(&mut self, row: &Row<'_>, record: &Record<'_>) -> bool {
        if self.filter.is_all() {
            return true;
        }
        if !self.filter.chains.is_empty() && !self.filter.chains.contains(record.chain) {
            self.left_out += 1;
            return false;
        }
        let clock = row.at(self.time).as_text().and_then(Instant::parse);
        let wanted = clock.is_none_or(|clock| {
            self.filter.from.is_none_or(|from| clock >= from) && self.filter.to.is_none_or(|to| clock < to)
        });
        self.left_out += u64::from(!wanted);
        self.notes.see(record, wanted, true);
        wanted
    }

    /// Returns where the chosen runs begin, and how many rows were left out.
    #[must_use]
    pub fn finish(self) -> (Starts, u64) {
        (self.notes.finish(), self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    #[test]
    fn times_are_rfc_3339_or_dates() {
        let at = |text| SliceFilter::parse_time(text).map(Instant::micros).ok();
        assert_eq!(at("1970-01-02"), Some(86_400_000_000));
        assert_eq!(at("1970-01-02T00:00:00Z"), at("1970-01-02"));
        assert_eq!(at("1970-01-02T01:00:00.5+01:00"), Some(86_400_500_000));
        assert_eq!(at("1970-01-01T23:00:00-01:00"), at("1970-01-02"));
        for text in ["", "1970", "1970-01-02T00:00:00", "1970-02-30", "yesterday", "1970-01-02T25:00:00Z"] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    #[test]
    fn a_span_is_half_open_and_its_start_is_kept() {
        let filter = SliceFilter {
            from: SliceFilter::parse_time("1970-01-02").ok(),
            to: SliceFilter::parse_time("1970-01-04").ok(),
            ..SliceFilter::default()
        };
        let mut slicer = Slicer::new(filter, Some(0)).unwrap();
        let mut kept = Vec::new();
        let times = ["1970-01-01", "1970-01-02", "1970-01-05", "1970-01-03", "1970-01-04"];
        for (at, day) in times.iter().enumerate() {
            let time = format!("{day} 00:00:00");
            let number = i64::try_from(at).unwrap() + 1;
            let prev = if at == 0 { Link::Genesis } else { Link::Digest([number as u8; 32]) };
            let record = Record { chain: "c", number: Some(number), prev, ..Record::default() };
            if slicer.wants(&Row::new(&[Value::Text(&time)]), &record) {
                kept.push(number);
            }
        }
        let (starts, left_out) = slicer.finish();
        assert_eq!((kept.as_slice(), left_out), (&[2, 4][..], 3));
        let numbers: Vec<_> = starts["c"].iter().map(|start| start.number).collect();
        assert_eq!(numbers, [Some(2), Some(4)]);
        assert_eq!(starts["c"][0].link(), Link::Digest([2; 32]));
    }

    #[test]
    fn an_empty_span_and_rows_without_a_time_are_refused() {
        let day = |text| SliceFilter::parse_time(text).ok();
        let filter = SliceFilter { from: day("1970-01-02"), to: day("1970-01-02"), ..SliceFilter::default() };
        assert!(Slicer::new(filter.clone(), Some(0)).is_err());
        assert!(Slicer::new(SliceFilter { to: None, ..filter }, None).is_err());
        assert!(Slicer::new(SliceFilter::default(), None).is_ok());
    }
}
