//! Which backups a retention policy keeps: a pure function of the log's order and the policy.
//!
//! `retention` calls it with the backups that are there and whether each verifies.
//!
//! Rules, from newest to oldest *by the log's sequence* (PITFALLS 18, 19):
//! - Only backups that verify are counted. One that does not is neither counted nor removed.
//! - The newest that verifies is kept whatever the policy says; so is the newest that a `verify` found intact.
//! - A backup under a hold is kept and takes the place it would have had.
//! - A backup whose clock contradicts the log's order is kept, and takes no place in a calendar rule. Which
//!   clocks contradict: those outside a longest run of times that never step back.
//! - Calendar rules keep the newest backup of each of the last N days, ISO weeks, months or years that have
//!   one (UTC).

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Span, SpanFieldwise, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::entry::BackupRecord;
use crate::error::{Error, ErrorKind, Result};

/// A length of time by the calendar (`36h`, `30d`, `8w`, `6mo`, `1y 2mo`, `P30D`), above nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age(SpanFieldwise);

impl Age {
    /// Returns the time that lies this age before `time`, by the UTC calendar.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when that is before the calendar begins.
    pub fn before(self, time: Timestamp) -> Result<Timestamp> {
        let earlier = time.to_zoned(TimeZone::UTC).checked_sub(self.0.0);
        earlier
            .map(|earlier| earlier.timestamp())
            .map_err(|error| Error::new(ErrorKind::InvalidInput, format!("age {self}: {error}")))
    }
}

impl FromStr for Age {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: String| {
            Error::new(ErrorKind::InvalidInput, format!("age {text:?}: {why}"))
                .with_hint("write an age as `36h`, `30d`, `8w`, `6mo` or `1y`")
        };
        let span: Span = text.trim().parse().map_err(|error: jiff::Error| bad(error.to_string()))?;
        if span.is_zero() || span.is_negative() {
            return Err(bad("expected more than nothing".into()));
        }
        Ok(Self(span.fieldwise()))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0.0)
    }
}

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What to keep. A backup is kept when any rule keeps it; a policy without rules is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionPolicy {
    /// The newest N.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// The newest of each of the last N days that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_daily: Option<u32>,
    /// The newest of each of the last N ISO weeks that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_weekly: Option<u32>,
    /// The newest of each of the last N months that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_monthly: Option<u32>,
    /// The newest of each of the last N years that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_yearly: Option<u32>,
    /// Everything up to this age, counted back from the newest backup (not from now).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_within: Option<Age>,
}

impl RetentionPolicy {
    /// Makes a policy that keeps the newest N.
    #[must_use]
    pub fn last(number: u32) -> Self {
        Self { keep_last: Some(number), ..Self::default() }
    }

    fn rules(&self) -> [(&'static str, Option<u32>); 5] {
        [
            ("last", self.keep_last),
            ("daily", self.keep_daily),
            ("weekly", self.keep_weekly),
            ("monthly", self.keep_monthly),
            ("yearly", self.keep_yearly),
        ]
    }

    /// Writes the policy as the command line would take it.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut words: Vec<String> = self
            .rules()
            .iter()
            .filter_map(|(name, number)| number.map(|number| format!("keep-{name} {number}")))
            .collect();
        words.extend(self.keep_within.map(|age| format!("keep-within {age}")));
        words.join(", ")
    }

    /// Checks that the policy keeps something.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`].
    pub fn check(&self) -> Result<()> {
        let counts = self.rules().iter().any(|(_, number)| number.is_some_and(|number| number > 0));
        if counts || self.keep_within.is_some() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "the retention policy keeps nothing")
            .with_hint("name at least one rule above 0, such as `--keep-last 7`"))
    }
}

/// A backup that is there, and whether it counts.
#[derive(Debug, Clone)]
pub(super) struct Candidate<'a> {
    pub(super) record: &'a BackupRecord,
    /// Why its manifest does not verify.
    pub(super) fault: Option<String>,
}

/// What the policy says of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// Why it is kept; empty when it goes.
    pub(super) reasons: Vec<String>,
}

/// Decides for each candidate; they come in the order of the log, oldest first.
pub(super) fn decide(candidates: &[Candidate<'_>], policy: &RetentionPolicy) -> Result<Vec<Decision>> {
    policy.check()?;
    let mut decisions = vec![Decision { reasons: Vec::new() }; candidates.len()];
    let times: Vec<Timestamp> =
        candidates.iter().map(|candidate| candidate.record.event.created_at).collect();
    let trusted = steady_clocks(&times);
    let counted: Vec<usize> =
        (0..candidates.len()).rev().filter(|&at| candidates[at].fault.is_none()).collect();
    let mut keep = |at: usize, reason: String| decisions[at].reasons.push(reason);

    for (at, candidate) in candidates.iter().enumerate() {
        if let Some(fault) = &candidate.fault {
            keep(at, format!("not counted: {fault}"));
        } else if !trusted[at] {
            keep(at, "its clock contradicts the order of the log".into());
        }
        if let Some(reason) = &candidate.record.held {
            keep(at, format!("held: {reason}"));
        }
    }
    if let Some(&newest) = counted.first() {
        keep(newest, "the newest that verifies".into());
    }
    let verified = |&&at: &&usize| candidates[at].record.verified.is_some();
    if let Some(&at) = counted.iter().find(verified) {
        keep(at, "the newest that was verified".into());
    }
    for (place, &at) in counted.iter().enumerate() {
        if policy.keep_last.is_some_and(|number| place < number as usize) {
            keep(at, format!("last {}", place + 1));
        }
    }
    let dated: Vec<usize> = counted.into_iter().filter(|&at| trusted[at]).collect();
    for (name, number, bucket) in [
        ("daily", policy.keep_daily, day as fn(Timestamp) -> String),
        ("weekly", policy.keep_weekly, week),
        ("monthly", policy.keep_monthly, month),
        ("yearly", policy.keep_yearly, year),
    ] {
        let mut seen = HashSet::new();
        for &at in &dated {
            if seen.len() >= number.unwrap_or(0) as usize {
                break;
            }
            let bucket = bucket(times[at]);
            let reason = format!("{name} {bucket}");
            if seen.insert(bucket) {
                keep(at, reason);
            }
        }
    }
    if let (Some(age), Some(&newest)) = (policy.keep_within, dated.first()) {
        let oldest = age.before(times[newest])?;
        for &at in &dated {
            if times[at] >= oldest {
                keep(at, format!("within {age}"));
            }
        }
    }
    Ok(decisions)
}

fn day(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

fn week(time: Timestamp) -> String {
    time.strftime("%G-W%V").to_string()
}

fn month(time: Timestamp) -> String {
    time.strftime("%Y-%m").to_string()
}

fn year(time: Timestamp) -> String {
    time.strftime("%Y").to_string()
}

/// Marks a longest run of times that never step back: the clocks that agree with the order of the log.
fn steady_clocks(times: &[Timestamp]) -> Vec<bool> {
    // `tails[n]` is where the run of length n + 1 with the earliest end stands.
    let mut tails: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(times.len());
    for (at, time) in times.iter().enumerate() {
        let length = tails.partition_point(|&tail| times[tail] <= *time);
        before.push(length.checked_sub(1).map(|shorter| tails[shorter]));
        if length == tails.len() {
            tails.push(at);
        } else {
            tails[length] = at;
        }
    }
    let mut steady = vec![false; times.len()];
    let mut next = tails.last().copied();
    while let Some(at) = next {
        steady[at] = true;
        next = before[at];
    }
    steady
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Level;
    use super::super::entry::{BackupEvent, Verified};
    use super::*;
    use crate::manifest::Digest;

    fn record(sequence: usize, time: &str) -> BackupRecord {
        BackupRecord {
            sequence: sequence as u64,
            event: BackupEvent {
                id: format!("b{sequence}"),
                manifest_sha256: Digest::of(b""),
                created_at: time.parse().unwrap(),
                size_bytes: 1,
                objects: 1,
                sources: Vec::new(),
                signed_by: None,
                chains: None,
            },
            pruned: None,
            held: None,
            verified: None,
        }
    }

    fn days(number: usize) -> Vec<BackupRecord> {
        let start: Timestamp = "2026-01-01T03:00:00Z".parse().unwrap();
        (0..number)
            .map(|day| record(day, &(start + Span::new().hours(24 * day as i64)).to_string()))
            .collect()
    }

    /// The places that go.
    fn removed(records: &[BackupRecord], faulty: &[usize], policy: &RetentionPolicy) -> Vec<usize> {
        let candidates: Vec<Candidate<'_>> = records
            .iter()
            .enumerate()
            .map(|(at, record)| Candidate {
                record,
                fault: faulty.contains(&at).then(|| "manifest.json is missing".to_owned()),
            })
            .collect();
        let decisions = decide(&candidates, policy).unwrap();
        (0..records.len()).filter(|&at| decisions[at].reasons.is_empty()).collect()
    }

    #[test]
    fn each_rule_keeps_what_it_says() {
        let records = days(40);
        let keep = |policy: &RetentionPolicy| 40 - removed(&records, &[], policy).len();
        assert_eq!(keep(&RetentionPolicy::last(7)), 7);
        assert_eq!(keep(&RetentionPolicy { keep_daily: Some(5), ..Default::default() }), 5);
        assert_eq!(keep(&RetentionPolicy { keep_weekly: Some(3), ..Default::default() }), 3);
        assert_eq!(keep(&RetentionPolicy { keep_monthly: Some(9), ..Default::default() }), 2);
        assert_eq!(keep(&RetentionPolicy { keep_yearly: Some(1), ..Default::default() }), 1);
        let within =
            |age: &str| RetentionPolicy { keep_within: Some(age.parse().unwrap()), ..Default::default() };
        assert_eq!(keep(&within("3d")), 4);
        assert_eq!(keep(&within("1mo")), 32);
    }

    #[test]
    fn a_policy_that_keeps_nothing_and_bad_ages_are_refused() {
        for policy in [RetentionPolicy::default(), RetentionPolicy::last(0)] {
            assert_eq!(decide(&[], &policy).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        for age in ["", "-3d", "0d", "3 apples", "d"] {
            assert_eq!(age.parse::<Age>().unwrap_err().kind(), ErrorKind::InvalidInput, "{age}");
        }
        let policy = RetentionPolicy {
            keep_last: Some(7),
            keep_within: Some("1y 2mo".parse().unwrap()),
            ..Default::default()
        };
        assert_eq!(policy.describe(), "keep-last 7, keep-within 1y 2mo");
    }

    #[test]
    fn pitfall_18_broken_backups_push_no_good_one_out() {
        let records = days(10);
        // The last three "succeeded" with nothing in them.
        let removed = removed(&records, &[7, 8, 9], &RetentionPolicy::last(2));
        assert_eq!(removed, [0, 1, 2, 3, 4], "5 and 6 are the newest that verify; 7 to 9 are not touched");
    }

    #[test]
    fn pitfall_19_the_newest_by_the_log_is_kept_when_clocks_jump() {
        let mut records = days(6);
        records[2] = record(2, "2099-01-01T00:00:00Z");
        records[5] = record(5, "1970-01-01T00:00:00Z");
        // By the clock, 5 is the oldest and 2 the newest.
        let gone = removed(&records, &[], &RetentionPolicy::last(1));
        assert!(!gone.contains(&5), "the newest by the log stays: {gone:?}");
        assert!(!gone.contains(&2), "a clock that contradicts the log removes nothing: {gone:?}");
        assert_eq!(gone, [0, 1, 3, 4]);
        // Calendar rules give their places to the clocks that agree.
        let policy = RetentionPolicy { keep_daily: Some(2), ..Default::default() };
        assert_eq!(removed(&records, &[], &policy), [0, 1]);
    }

    #[test]
    fn a_held_backup_and_the_newest_verified_one_stay() {
        let mut records = days(8);
        records[0].held = Some("case 7".into());
        records[3].verified = Some(Verified { sequence: 9, level: Level::Contents });
        assert_eq!(removed(&records, &[], &RetentionPolicy::last(1)), [1, 2, 4, 5, 6]);
    }

    proptest! {
        #[test]
        fn whatever_the_clocks_say_the_last_ones_that_verify_stay(
            seconds in proptest::collection::vec(0_i64..4_000_000_000, 1..40),
            broken in proptest::collection::vec(any::<bool>(), 40),
            last in 1_u32..6,
            daily in proptest::option::of(1_u32..6),
        ) {
            let records: Vec<BackupRecord> = seconds
                .iter()
                .enumerate()
                .map(|(at, second)| record(at, &Timestamp::from_second(*second).unwrap().to_string()))
                .collect();
            let faulty: Vec<usize> = (0..records.len()).filter(|&at| broken[at]).collect();
            let policy = RetentionPolicy { keep_daily: daily, ..RetentionPolicy::last(last) };
            let gone = removed(&records, &faulty, &policy);
            let good: Vec<usize> = (0..records.len()).rev().filter(|at| !faulty.contains(at)).collect();
            for at in good.iter().take(last as usize) {
                prop_assert!(!gone.contains(at));
            }
            for at in &faulty {
                prop_assert!(!gone.contains(at));
            }
        }
    }
}
