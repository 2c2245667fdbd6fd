//! Proves a restored database before it is put in place (B6): structure, references, rows, migrations, the caller's
//! questions, and that every chain stands where the manifest says.
//!
//! Nobody else knows the file, so the checks run side by side on connections of their own. The structure takes longest and
//! one core: the chains, which can use many, leave it that one. Called by [`crate::restore`].

use std::path::Path;
use std::sync::Arc;

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::format::ChainFormat;
use audit_chain::formats;
use audit_chain::keys::KeyRing;
use audit_chain::profile::Profile;
use audit_chain::report::{ChainReport, Verdict};
use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::ChainEntry;
use backup_core::traits::{ChainRequest, Check, SourceFacts};

use crate::checks::{self, Integrity, SqlCheck};
use crate::migrations::{Known, SchemaVerdict, compare_database};
use crate::open::open_immutable;
use crate::source::{joined, verify_copy};

/// What is checked.
#[derive(Debug)]
pub(crate) struct Proof<'a> {
    pub(crate) integrity: Integrity,
    pub(crate) foreign_keys: bool,
    pub(crate) facts: Option<&'a SourceFacts>,
    pub(crate) known: &'a [Known],
    pub(crate) checks: &'a [SqlCheck],
    pub(crate) chains: &'a [ChainEntry],
    pub(crate) requests: &'a [ChainRequest],
    pub(crate) keys: &'a KeyRing,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Proven {
    pub(crate) checks: Vec<Check>,
    pub(crate) schema: Vec<SchemaVerdict>,
    pub(crate) reports: Vec<ChainReport>,
}

/// A check with the kind of error that it is when it fails.
type Judged = (ErrorKind, Check);

/// Runs all checks.
///
/// # Errors
/// `Corrupt`, `Mismatch`, `Tampered` when a check fails, with every failed check in the text; `Cancelled`; whatever SQLite says.
pub(crate) fn prove(path: &Path, proof: &Proof<'_>, ctx: &Context) -> Result<Proven> {
    let mut proven = Proven::default();
    let mut judged: Vec<Judged> = Vec::new();
    std::thread::scope(|scope| {
        let structure = scope.spawn(|| -> Result<Option<Check>> {
            checks::integrity(&open_immutable(path)?, path, proof.integrity, ctx)
        });
        let rest = contents(path, proof, ctx).and_then(|contents| Ok((contents, chains(path, proof, ctx)?)));
        judged.extend(joined(structure)?.map(|check| (ErrorKind::Corrupt, check)));
        let ((found, schema), (chains, reports)) = rest?;
        judged.extend(found);
        proven.schema = schema;
        judged.extend(chains);
        proven.reports = reports;
        Ok::<(), Error>(())
    })?;
    if let Some((kind, _)) = judged.iter().find(|(_, check)| !check.ok) {
        let failed: Vec<String> = judged
            .iter()
            .filter(|(_, check)| !check.ok)
            .map(|(_, check)| format!("{}: {}", check.name, check.detail))
            .collect();
        return Err(Error::new(
            *kind,
            format!("the restored database fails its checks: {}", failed.join("; ")),
        )
        .with_hint("nothing was changed: verify the backup, or restore another one"));
    }
    proven.checks = judged.into_iter().map(|(_, check)| check).collect();
    Ok(proven)
}

/// Everything that one connection answers.
fn contents(path: &Path, proof: &Proof<'_>, ctx: &Context) -> Result<(Vec<Judged>, Vec<SchemaVerdict>)> {
    let connection = open_immutable(path)?;
    let mut judged = Vec::new();
    let mut schema = Vec::new();
    for known in proof.known {
        schema.push(compare_database(known, &connection, path)?);
    }
    if proof.foreign_keys {
        judged.push((ErrorKind::Mismatch, checks::foreign_keys(&connection, path, ctx)?));
    }
    if let Some(facts) = proof.facts.filter(|facts| !facts.tables.is_empty()) {
        let found = checks::count_rows(&connection, path, ctx)?;
        judged.push((ErrorKind::Mismatch, checks::compare_rows(&facts.tables, &found)));
    }
    for check in proof.checks {
        judged.push((ErrorKind::Mismatch, checks::sql(&connection, path, check, ctx)?));
    }
    Ok((judged, schema))
}

/// Verifies every chain that the manifest names, and those that the caller asks for besides.
fn chains(path: &Path, proof: &Proof<'_>, ctx: &Context) -> Result<(Vec<Judged>, Vec<ChainReport>)> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if proof.integrity == Integrity::Off { cores } else { (cores - 1).max(1) };
    let mut judged = Vec::new();
    let mut reports = Vec::new();
    let mut asked: Vec<&ChainRequest> = proof.requests.iter().collect();
    for entry in proof.chains {
        let at = asked.iter().position(|request| {
            request.format.name() == entry.format && table_of(request).eq_ignore_ascii_case(&entry.table)
        });
        let request = match at {
            Some(at) => Some(asked.remove(at).clone()),
            None => format_of(entry)?.map(|format| ChainRequest {
                format,
                table: Some(entry.table.clone()),
                keys: proof.keys.clone(),
                checkpoint: None,
                copy: false,
            }),
        };
        let name = format!("chain {}", entry.table);
        let Some(request) = request else {
            let detail = format!("not verified again: format {} is not at hand", entry.format);
            judged.push((ErrorKind::Tampered, Check { name, ok: true, detail }));
            continue;
        };
        let report = verify_copy(path, &request, threads, ctx)?;
        judged.push((ErrorKind::Tampered, compare(name, entry, &report)?));
        reports.push(report);
    }
    for request in asked {
        let report = verify_copy(path, request, threads, ctx)?;
        let name = format!("chain {}", table_of(request));
        judged.push((ErrorKind::Tampered, alone(name, &report)));
        reports.push(report);
    }
    Ok((judged, reports))
}

/// Returns the format of a chain as it was backed up: built in, or the profile that the manifest holds.
fn format_of(entry: &ChainEntry) -> Result<Option<Arc<dyn ChainFormat>>> {
    match &entry.profile {
        Some(text) => {
            let profile = Profile::parse(&format!("the profile {} in the manifest", entry.format), text)?;
            Ok(Some(Arc::new(profile)))
        }
        None => Ok(formats::by_name(&entry.format).ok()),
    }
}

fn table_of(request: &ChainRequest) -> &str {
    request.table.as_deref().unwrap_or_else(|| request.format.table())
}

/// Compares a restored chain with where it stood when it was backed up.
fn compare(name: String, entry: &ChainEntry, report: &ChainReport) -> Result<Check> {
    let found = ChainCheckpoint::from_report(report)?;
    for point in &entry.points.chains {
        let here = found.chain(&point.id);
        if here != Some(point) {
            let here = here.map_or_else(
                || "no such chain".to_owned(),
                |here| format!("{} records, head {}", here.records, here.head),
            );
            let detail = format!(
                "{:?}: expected {} records, head {}, found {here}",
                point.id, point.records, point.head
            );
            return Ok(Check { name, ok: false, detail });
        }
    }
    if found.chains.len() != entry.points.chains.len() {
        let detail = format!("expected {} chains, found {}", entry.points.chains.len(), found.chains.len());
        return Ok(Check { name, ok: false, detail });
    }
    // Row for row what was backed up; what was wrong with it then is wrong with it now, and is said.
    let as_then = format!("{} records, as in the manifest", report.records);
    let (ok, detail) = match (report.verdict, entry.verdict) {
        (Verdict::Intact, _) => (true, format!("intact: {as_then}")),
        (Verdict::CannotVerify, _) => (true, format!("{as_then}; no key at hand verifies them")),
        (Verdict::Findings, Verdict::Findings) => {
            (true, format!("{as_then}, with the findings that it had then: {}", report.diagnosis))
        }
        // A key at hand now may find what none could when it was backed up.
        (Verdict::Findings, _) => (false, report.diagnosis.clone()),
    };
    Ok(Check { name, ok, detail })
}

/// Judges a chain that the manifest does not know.
fn alone(name: String, report: &ChainReport) -> Check {
    let (ok, detail) = match report.verdict {
        Verdict::Intact => (true, format!("intact: {} records", report.records)),
        Verdict::CannotVerify => (false, "no key at hand verifies it".to_owned()),
        Verdict::Findings => (false, report.diagnosis.clone()),
    };
    Check { name, ok, detail }
}
