//! What a repository's log and folder say at one moment, in one reading: for `status`, and for whoever keeps a checkpoint.
//!
//! No manifest is read and nothing is written.

use std::collections::BTreeSet;

use super::finding::RepositoryFinding;
use super::{BackupSummary, LogState, Repository};
use crate::error::Result;
use crate::manifest::LogPosition;

/// What was seen.
#[derive(Debug, Clone)]
pub struct Overview {
    /// What the entries add up to.
    pub state: LogState,
    /// Where the log stands.
    pub position: LogPosition,
    /// What does not fit: a damaged log, a backup that is gone without a prune …
    pub findings: Vec<RepositoryFinding>,
    /// Why the log does not extend the earlier checkpoint that was given.
    pub not_extending: Option<RepositoryFinding>,
    /// How many entries the earlier checkpoint covers.
    pub checkpoint_size: Option<u64>,
    /// The backups that are there, oldest first by the order of the log.
    pub backups: Vec<BackupSummary>,
}

impl Repository {
    /// Reads the log and the folder once; `checkpoint` is the text of a checkpoint that was kept elsewhere.
    ///
    /// # Errors
    /// When they cannot be read; `Malformed` and `Mismatch` when the text is no checkpoint or one of another log.
    pub fn overview(&self, checkpoint: Option<&str>) -> Result<Overview> {
        let outside = checkpoint.map(|text| self.log().outside(text)).transpose()?;
        let sizes: Vec<u64> = outside.iter().map(|outside| outside.size).collect();
        let (read, present, mut findings): (_, BTreeSet<String>, _) = self.settled(&sizes)?;
        findings.splice(0..0, read.findings.iter().cloned());
        let not_extending = match &outside {
            Some(outside) => outside.check(&read, self.log().verifier()?),
            None => None,
        };
        let backups = read
            .state
            .live_records()
            .filter(|record| present.contains(&record.event.id))
            .map(|record| self.summary(record))
            .collect();
        Ok(Overview {
            position: read.position,
            findings,
            not_extending,
            checkpoint_size: outside.map(|outside| outside.size),
            backups,
            state: read.state,
        })
    }
}
