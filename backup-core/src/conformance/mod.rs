//! The suite that every implementation of [`Snapshot`], [`Restore`] and [`ChainVerify`] runs, this project's and
//! anyone's.
//!
//! A backend writes a [`Harness`]: how to make a live source of its kind with known content, change it, look
//! at it, damage it. [`run`] then makes real backups in real repositories and says what holds:
//!
//! ```no_run
//! # use backup_core::conformance::{Harness, run};
//! # fn check(harness: &dyn Harness, scratch: &std::path::Path) -> backup_core::error::Result<()> {
//! let report = run(harness, scratch)?;
//! assert!(report.failed.is_empty(), "{report}");
//! # Ok(()) }
//! ```
//!
//! Nothing is written outside the scratch folder. A check that does not apply (no restore, no chain) is
//! listed as left out, never counted as passed.

mod checks;
mod faulty;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::durable::{Durable, PRIVATE_DIR};
use crate::error::{Error, Result};
use crate::traits::{ChainRequest, ChainVerify, Restore, Snapshot};

/// Makes live sources for the suite.
pub trait Harness: Sync {
    /// Makes a fresh source in an empty folder, with some content and, where the kind has chains, an intact one
    /// of at least three records.
    ///
    /// # Errors
    /// Any: the suite fails.
    fn create(&self, folder: &Path) -> Result<Box<dyn Fixture>>;
}

/// One live source of the suite, in a folder of its own. Calls come from several threads.
pub trait Fixture: Send + Sync {
    /// Returns the source as it is backed up.
    fn snapshot(&self) -> &dyn Snapshot;

    /// Returns a restore whose target is the live source's own place; `None` when the backend has none.
    fn restore(&self) -> Option<&dyn Restore>;

    /// Returns the verification of chains in the live source; `None` when the backend has none.
    fn chain_verify(&self) -> Option<&dyn ChainVerify>;

    /// Returns the chains of the live source, intact as long as nothing tampered with it; empty when it has none.
    fn chains(&self) -> Vec<ChainRequest>;

    /// Returns the whole live content in a form that can be compared.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn content(&self) -> Result<Vec<u8>>;

    /// Returns how many rows each table of the live source has, as its facts must say; empty when it has no tables.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn rows(&self) -> Result<BTreeMap<String, u64>>;

    /// Changes the live source honestly, each call to a content it never had: rows and chain records are added.
    ///
    /// # Errors
    /// When the source cannot be written; under a running snapshot this may take as long as the backend says.
    fn change(&self) -> Result<()>;

    /// Alters a chain record of the live source behind its back, so that verification has findings; `false` when
    /// it has no chain.
    ///
    /// # Errors
    /// When the source cannot be written.
    fn tamper(&self) -> Result<bool>;

    /// Removes the last chain record of the live source behind its back; `false` when it has no chain.
    ///
    /// # Errors
    /// When the source cannot be written.
    fn truncate(&self) -> Result<bool>;

    /// Makes the live source something that cannot be backed up (gone, or no longer what it was).
    ///
    /// # Errors
    /// When that does not work.
    fn spoil(&self) -> Result<()>;

    /// Returns the folder in which nothing but the source itself may lie; what a restore sets aside counts too.
    fn folder(&self) -> &Path;
}

/// What became of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It holds.
    Passed,
    /// It does not apply, and why.
    LeftOut(&'static str),
    /// It does not hold, and what was seen.
    Failed(String),
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckOutcome {
    /// The check.
    pub name: &'static str,
    /// What was seen, or why it was left out.
    pub why: String,
}

/// What the suite found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[must_use]
pub struct ConformanceReport {
    /// The checks that hold.
    pub passed: Vec<&'static str>,
    /// The checks that do not apply.
    pub left_out: Vec<CheckOutcome>,
    /// The checks that do not hold.
    pub failed: Vec<CheckOutcome>,
}

impl fmt::Display for ConformanceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.failed {
            writeln!(f, "failed: {}: {}", check.name, check.why)?;
        }
        for check in &self.left_out {
            writeln!(f, "left out: {} ({})", check.name, check.why)?;
        }
        write!(
            f,
            "{} passed, {} failed, {} left out",
            self.passed.len(),
            self.failed.len(),
            self.left_out.len()
        )
    }
}

/// A check with a live source of its own.
pub(crate) struct Case<'a> {
    pub(crate) fixture: &'a dyn Fixture,
    /// A folder for repositories.
    pub(crate) scratch: PathBuf,
}

/// Runs every check on a fresh source of its own, in folders under `scratch`.
///
/// # Errors
/// When a source or a folder cannot be made. What a check sees is in the report.
pub fn run(harness: &dyn Harness, scratch: &Path) -> Result<ConformanceReport> {
    let durable = Durable::new();
    let mut report = ConformanceReport::default();
    for (name, check) in checks::ALL {
        let folder = scratch.join(name);
        durable.create_dir(&folder, PRIVATE_DIR)?;
        let live = folder.join("live");
        durable.create_dir(&live, PRIVATE_DIR)?;
        let fixture = harness.create(&live)?;
        let case = Case { fixture: &*fixture, scratch: folder };
        let outcome = check(&case).unwrap_or_else(|error| Outcome::Failed(describe(&error)));
        match outcome {
            Outcome::Passed => report.passed.push(name),
            Outcome::LeftOut(why) => report.left_out.push(CheckOutcome { name, why: why.into() }),
            Outcome::Failed(why) => report.failed.push(CheckOutcome { name, why }),
        }
    }
    Ok(report)
}

/// Writes an error with all that lies under it.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
