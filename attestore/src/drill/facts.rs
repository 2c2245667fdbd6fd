//! What a drill report says beside the restore itself: the plan's promises, continuity across backups, past sizes and times, secrets.

use std::collections::BTreeMap;

use audit_chain::report::Verdict;
use backup_core::error::Result;
use backup_core::manifest::Manifest;
use backup_core::repository::{Overview, Repository};
use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::plan::Plan;

/// How many backups the continuity of chains is drawn over.
const CONTINUITY_OVER: usize = 12;
/// How many backups and drills are plotted.
const HISTORY_OVER: usize = 30;

/// What the plan promises, and whether it is kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanFacts {
    /// The system.
    pub name: String,
    /// The role that answers for the plan.
    pub owner: String,
    /// How the owner is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// The digest of the plan's bytes.
    pub sha256: String,
    /// The recovery point objective.
    pub rpo: String,
    /// Whether the backup was within it when the drill began.
    pub rpo_met: bool,
    /// The recovery time objective, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<f64>,
    /// Whether the restore was within it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rto_met: Option<bool>,
    /// How often a drill is due.
    pub drill_every: String,
    /// What people do.
    pub steps: Vec<StepFact>,
}

/// A step that a person does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepFact {
    /// What is done.
    pub what: String,
    /// The role that does it.
    pub owner: String,
}

/// Where a chain stood in one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// The backup.
    pub backup: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// How many records the chain had.
    pub records: u64,
    /// The verdict then.
    pub verdict: Verdict,
    /// The earlier backup that it was compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_with: Option<String>,
    /// Whether it extends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extends: Option<bool>,
}

/// One chain across backups, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Continuity {
    /// The source.
    pub source: String,
    /// The table.
    pub table: String,
    /// The format.
    pub format: String,
    /// Where it stood.
    pub points: Vec<Point>,
}

/// An earlier backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastBackup {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its stored size, in bytes.
    pub stored_bytes: u64,
}

/// An earlier drill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PastDrill {
    /// When it was made.
    pub time: Timestamp,
    /// The backup.
    pub backup: String,
    /// Whether it was good.
    pub ok: bool,
    /// How long its restore took, in seconds.
    pub restore_seconds: Option<f64>,
}

/// A secret that the backup needs, and whether the one at hand is it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretFact {
    /// Its name.
    pub name: String,
    /// `fits`, `does-not-fit`, `not-at-hand`, `no-fingerprint`.
    pub state: &'static str,
    /// What it opens, where the plan says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opens: Option<String>,
    /// Where it is escrowed, where the plan says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escrow: Option<String>,
    /// What is done when it is lost, where the plan says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_lost: Option<&'static str>,
}

/// Reads where the chains stood in the backups up to this one.
pub(super) fn continuity(repository: &Repository, seen: &Overview, manifest: &Manifest) -> Vec<Continuity> {
    let upto = seen.backups.iter().position(|backup| backup.id == manifest.id).map_or(0, |at| at + 1);
    let mut chains: BTreeMap<(String, String, String), Vec<Point>> = BTreeMap::new();
    for chain in &manifest.chains {
        chains.insert((chain.source.clone(), chain.table.clone(), chain.format.clone()), Vec::new());
    }
    if chains.is_empty() {
        return Vec::new();
    }
    let first = upto.saturating_sub(CONTINUITY_OVER);
    for backup in seen.backups.get(first..upto).unwrap_or_default() {
        let read;
        let one = if backup.id == manifest.id {
            manifest
        } else {
            // One that cannot be read is a finding of `verify`; here it is a gap in the drawing.
            let Ok(shown) = repository.show(&backup.id) else { continue };
            read = shown.manifest;
            &read
        };
        for chain in &one.chains {
            let key = (chain.source.clone(), chain.table.clone(), chain.format.clone());
            let Some(points) = chains.get_mut(&key) else { continue };
            points.push(Point {
                backup: backup.id.clone(),
                created_at: backup.created_at,
                records: chain.records,
                verdict: chain.verdict,
                compared_with: chain.extends.as_ref().map(|extends| extends.backup.clone()),
                extends: chain.extends.as_ref().map(|extends| extends.ok),
            });
        }
    }
    chains
        .into_iter()
        .map(|((source, table, format), points)| Continuity { source, table, format, points })
        .collect()
}

/// Lists the newest backups, oldest first.
pub(super) fn past_backups(seen: &Overview) -> Vec<PastBackup> {
    let from = seen.backups.len().saturating_sub(HISTORY_OVER);
    let past = seen.backups.get(from..).unwrap_or_default().iter();
    past.map(|backup| PastBackup {
        id: backup.id.clone(),
        created_at: backup.created_at,
        stored_bytes: backup.size_bytes,
    })
    .collect()
}

/// Lists the newest drills before this one, oldest first.
pub(super) fn past_drills(seen: &Overview) -> Vec<PastDrill> {
    let drills = seen.state.drills();
    let from = drills.len().saturating_sub(HISTORY_OVER);
    let past = drills.get(from..).unwrap_or_default().iter();
    past.map(|drill| PastDrill {
        time: drill.time,
        backup: drill.event.backup.clone(),
        ok: drill.event.ok,
        restore_seconds: drill.event.details.get("restore_seconds").and_then(serde_json::Value::as_f64),
    })
    .collect()
}

/// Compares the secrets at hand with the manifest's fingerprints.
///
/// # Errors
/// When a fingerprint is malformed.
pub(super) fn secrets(
    manifest: &Manifest,
    plan: Option<&Plan>,
    at_hand: &[(String, Zeroizing<Vec<u8>>)],
) -> Result<Vec<SecretFact>> {
    let mut facts = Vec::new();
    let unfitting = crate::keys::unfitting(manifest, at_hand)?;
    let fact = |name: &str, state| {
        let planned = plan.and_then(|plan| plan.secret(name));
        SecretFact {
            name: name.to_owned(),
            state,
            opens: planned.map(|secret| secret.opens.clone()),
            escrow: planned.map(|secret| secret.escrow.clone()),
            if_lost: planned.map(|secret| secret.if_lost.describe()),
        }
    };
    for entry in &manifest.secrets {
        let state = if !at_hand.iter().any(|(name, _)| *name == entry.name) {
            "not-at-hand"
        } else if unfitting.iter().any(|other| other.name == entry.name) {
            "does-not-fit"
        } else {
            "fits"
        };
        facts.push(fact(&entry.name, state));
    }
    for secret in plan.iter().flat_map(|plan| &plan.file.secrets) {
        let name = secret.name.get_ref().as_str();
        if !manifest.secrets.iter().any(|entry| entry.name == name) {
            facts.push(fact(name, "no-fingerprint"));
        }
    }
    Ok(facts)
}
