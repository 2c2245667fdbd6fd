//! Results as text for people.

use std::fmt::Write as _;

use attestore::aside::AsideOutcome;
use attestore::backup::Backup;
use attestore::doctor::Doctor;
use attestore::repository::{ExportOutcome, HoldOutcome, InitOutcome, KeygenOutcome, Prune};
use attestore::restore::Restored;
use audit_chain::report::{ChainReport, Finding, Verdict};
use backup_core::repository::{Listing, RepositoryFinding, VerifyReport};

use super::output::{bytes, table};

/// How many findings are printed before the rest is only counted.
const SHOWN: usize = 20;

/// Prints what a machine has and lacks.
pub(crate) fn doctor(found: &Doctor) -> String {
    let mut text = format!("attestore {}\n\n", found.version);
    let rows: Vec<_> = found
        .findings
        .iter()
        .map(|finding| {
            let mark = if finding.ok { "ok" } else { "missing" };
            vec![mark.to_owned(), finding.name.clone(), finding.found.clone(), finding.used_for.clone()]
        })
        .collect();
    text.push_str(&table(&["", "what", "found", "used for"], &rows));
    let lines: Vec<_> = found.findings.iter().filter_map(|finding| finding.install.as_deref()).collect();
    if !lines.is_empty() {
        text.push_str("\nTo install what is missing:\n");
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

/// Prints a key that was made.
pub(crate) fn keygen(made: &KeygenOutcome) -> String {
    format!(
        "{}\n\nThe secret key is in {} (mode 0600): keep it where backups are made.\nThe public key above is also in {}: give it to whoever verifies.\n",
        made.public_key,
        made.secret_key.display(),
        made.public_key_file.display()
    )
}

/// Prints a repository that was made.
pub(crate) fn init(made: &InitOutcome) -> String {
    format!("repository {} in {}\n", made.id, made.path.display())
}

/// Prints a backup: its objects and chains.
pub(crate) fn backup(backup: &Backup) -> String {
    let mut text = format!(
        "backup {}  {}  {}\n{}\n\n",
        backup.id,
        backup.created_at,
        bytes(backup.size_bytes),
        backup.path.display()
    );
    let rows: Vec<_> = backup
        .objects
        .iter()
        .map(|object| {
            vec![
                object.name.clone(),
                bytes(object.size_bytes),
                bytes(object.stored_size_bytes),
                object.stored_sha256.to_string(),
            ]
        })
        .collect();
    text.push_str(&table(&["object", "size", "stored", "sha256 of the stored bytes"], &rows));
    for chain in &backup.chains {
        let extends = match &chain.extends {
            Some(extends) if extends.ok => format!(", extends backup {}", extends.backup),
            Some(extends) => format!(", DOES NOT EXTEND backup {}", extends.backup),
            None => String::new(),
        };
        let _ = writeln!(
            text,
            "chain {} in {}.{}: {}{extends}",
            chain.format, chain.source, chain.table, chain.diagnosis
        );
    }
    for report in backup.reports.iter().filter(|report| report.verdict != Verdict::Intact) {
        text.push_str(&chain_report(report));
    }
    let _ = match &backup.signed_by {
        Some(key) => writeln!(text, "signed by {key}"),
        None => writeln!(text, "not signed: nobody can tell who made it (--sign-with)"),
    };
    if !backup.encrypted_to.is_empty() {
        let _ = writeln!(text, "encrypted to {}", backup.encrypted_to.join(", "));
    }
    for secret in &backup.secrets {
        let _ = writeln!(text, "needs secret {} ({})", secret.name, secret.fingerprint);
    }
    for line in &backup.not_included {
        let _ = writeln!(text, "not included: {line}");
    }
    if let Some(pruned) = &backup.pruned {
        for removed in &pruned.removed {
            let _ = writeln!(text, "pruned {}", removed.id);
        }
    }
    if let Some(error) = &backup.prune_error {
        let _ = writeln!(text, "NOT pruned: {error}");
    }
    text
}

/// Prints the list of backups.
pub(crate) fn list(listing: &Listing) -> String {
    let rows: Vec<_> = listing
        .backups
        .iter()
        .map(|backup| {
            let chains = backup.chains.map_or("-", |verdict| match verdict {
                Verdict::Intact => "intact",
                Verdict::Findings => "FINDINGS",
                Verdict::CannotVerify => "cannot verify",
            });
            let held = backup.held.as_ref().map_or(String::new(), |reason| format!("held: {reason}"));
            vec![
                backup.id.clone(),
                backup.created_at.to_string(),
                bytes(backup.size_bytes),
                backup.sources.join(" "),
                chains.to_owned(),
                if backup.signed_by.is_some() { "yes" } else { "no" }.to_owned(),
                backup.verified.map_or("-".to_owned(), |level| level.name().to_owned()),
                held,
            ]
        })
        .collect();
    let mut text = if rows.is_empty() {
        "no backups\n".to_owned()
    } else {
        table(&["id", "made", "size", "sources", "chains", "signed", "verified", ""], &rows)
    };
    text.push_str(&repository_findings(&listing.findings));
    text
}

/// Prints what is wrong with a repository.
fn repository_findings(findings: &[RepositoryFinding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let of = finding.backup.as_deref().map(|id| format!(" in backup {id}")).unwrap_or_default();
        let object = finding.object.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
        let _ = writeln!(text, "  {}{of}{object}: {}", finding.kind, finding.explains);
        if let Some(expected) = &finding.expected {
            let _ = writeln!(text, "      expected {expected}");
        }
        if let Some(found) = &finding.found {
            let _ = writeln!(text, "      found    {found}");
        }
    }
    text
}

/// Prints a verification: verdict first.
pub(crate) fn verify(report: &VerifyReport) -> String {
    let word = match report.verdict {
        Verdict::Intact => "PROVEN",
        Verdict::Findings => "FINDINGS",
        Verdict::CannotVerify => "CANNOT VERIFY",
    };
    let log = match report.log.extends {
        Some(true) => ", extends the checkpoint",
        Some(false) => ", DOES NOT EXTEND the checkpoint",
        None => "",
    };
    let mut text = format!(
        "{word}  repository {}, log of {} entries{log}\n",
        report.repository, report.log.position.size
    );
    if !report.findings.is_empty() {
        text.push('\n');
        text.push_str(&repository_findings(&report.findings));
    }
    for backup in &report.backups {
        let mark = if backup.ok { "ok" } else { "NOT OK" };
        let signer = match (&backup.signed_by, backup.signer_trusted) {
            (Some(key), true) => format!("signed by {key}"),
            (Some(key), false) => format!("signed by {key}, which only the backup itself names"),
            (None, _) => "not signed".to_owned(),
        };
        let _ = writeln!(
            text,
            "\nbackup {}  {mark}  level {}, {} objects, {}, {signer}",
            backup.id,
            backup.level.name(),
            backup.objects,
            bytes(backup.bytes)
        );
        for check in &backup.checks {
            let mark = if check.ok { "ok" } else { "NOT OK" };
            let _ = writeln!(text, "  {mark}  {}: {}", check.name, check.detail);
        }
        for chain in &backup.chains {
            let _ = writeln!(text, "  chain {}: {}", chain.format, chain.diagnosis);
        }
        for line in &backup.not_verified {
            let _ = writeln!(text, "  not verified: {line}");
        }
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// Prints a restore or its plan.
pub(crate) fn restored(restored: &Restored) -> String {
    let plan = &restored.plan;
    let mut text = String::new();
    match &restored.outcome {
        None => {
            let _ = writeln!(text, "PLAN  backup {} to {} (nothing was changed)", plan.backup, plan.target);
            for (at, step) in plan.steps.iter().enumerate() {
                let _ = writeln!(text, "  {}. {step}", at + 1);
            }
            let _ =
                writeln!(text, "needs {} there, {} free", bytes(plan.needs_bytes), bytes(plan.free_bytes));
        }
        Some(done) => {
            let _ = writeln!(text, "RESTORED  backup {} to {}", done.backup, done.target);
            for check in &done.checks {
                let mark = if check.ok { "ok" } else { "NOT OK" };
                let _ = writeln!(text, "  {mark}  {}: {}", check.name, check.detail);
            }
            for chain in &done.chains {
                let _ = writeln!(text, "  chain {}: {}", chain.format, chain.diagnosis);
            }
            for path in &done.set_aside {
                let _ = writeln!(text, "kept aside: {}", path.display());
            }
        }
    }
    for warning in &plan.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    for note in &restored.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// Prints a prune or its plan.
pub(crate) fn prune(prune: &Prune) -> String {
    let plan = &prune.plan;
    let rows: Vec<_> = plan
        .keep
        .iter()
        .map(|kept| {
            vec!["keep".to_owned(), kept.id.clone(), kept.created_at.to_string(), kept.reasons.join(", ")]
        })
        .chain(plan.remove.iter().map(|removed| {
            vec![
                "remove".to_owned(),
                removed.id.clone(),
                removed.created_at.to_string(),
                bytes(removed.size_bytes),
            ]
        }))
        .collect();
    let mut text = table(&["", "backup", "made", ""], &rows);
    let _ = match &prune.outcome {
        Some(done) => {
            writeln!(text, "removed {} backups, freed {}", done.removed.len(), bytes(done.freed_bytes))
        }
        None => writeln!(
            text,
            "PLAN  would free {} (nothing was changed; --apply does it)",
            bytes(plan.frees_bytes)
        ),
    };
    text
}

/// Prints a hold.
pub(crate) fn hold(held: &HoldOutcome) -> String {
    let word = if held.held { "held" } else { "released" };
    let reason = if held.reason.is_empty() { String::new() } else { format!(": {}", held.reason) };
    format!("backup {} {word}{reason}\n", held.id)
}

/// Prints an export.
pub(crate) fn export(made: &ExportOutcome) -> String {
    let mut text = format!("{}  {}\n", made.path.display(), bytes(made.size_bytes));
    for name in &made.names {
        let _ = writeln!(text, "  {name}");
    }
    text
}

/// Prints what restores set aside.
pub(crate) fn set_aside(done: &AsideOutcome) -> String {
    let mut text = String::new();
    for aside in &done.set_aside {
        let word = if done.removed { "removed  " } else { "" };
        let _ = writeln!(text, "{word}{}  {}  {}", aside.path.display(), aside.at, bytes(aside.size_bytes));
    }
    for path in &done.archived {
        let _ = writeln!(text, "archived {}", path.display());
    }
    if done.set_aside.is_empty() {
        let _ = writeln!(text, "nothing is set aside beside {}", done.target.display());
    }
    text
}

/// Prints a chain report: verdict first.
pub(crate) fn chain_report(report: &ChainReport) -> String {
    let word = match report.verdict {
        Verdict::Intact => "INTACT",
        Verdict::Findings => "FINDINGS",
        Verdict::CannotVerify => "CANNOT VERIFY",
    };
    let mut text = format!("{word}  {}\n", report.diagnosis);
    if !report.findings.is_empty() {
        text.push('\n');
        for finding in report.findings.iter().take(SHOWN) {
            text.push_str(&finding_text(finding));
        }
        let more = report.findings_total.saturating_sub(SHOWN as u64);
        if more > 0 {
            let _ = writeln!(text, "  … and {more} more (see --json)");
        }
    }
    if !report.chains.is_empty() {
        text.push('\n');
        let rows: Vec<_> = report
            .chains
            .iter()
            .take(SHOWN)
            .map(|chain| {
                vec![
                    if chain.id.is_empty() { "(one chain)".into() } else { chain.id.clone() },
                    chain.records.to_string(),
                    chain.signed.to_string(),
                    chain.head.chars().take(16).collect(),
                    chain.root.clone(),
                ]
            })
            .collect();
        text.push_str(&table(&["chain", "records", "signed", "head", "Merkle root over whole rows"], &rows));
        if report.chains.len() > SHOWN {
            let _ = writeln!(text, "… and {} more chains (see --json)", report.chains.len() - SHOWN);
        }
    }
    for note in report.notes.iter().take(SHOWN) {
        let _ = writeln!(text, "note: {}{}", in_chain(&note.chain), note.explains);
    }
    text
}

/// Prints one finding in at most three lines.
fn finding_text(finding: &Finding) -> String {
    let place = match (finding.position, finding.last) {
        (Some(from), Some(to)) => format!(" at {from} to {to}"),
        (Some(from), None) => format!(" at {from}"),
        (None, _) => String::new(),
    };
    let record = finding
        .record
        .as_deref()
        .filter(|id| !id.is_empty())
        .map(|id| format!(" (record {id})"))
        .unwrap_or_default();
    let mut text =
        format!("  {}{place}{record}: {}{}\n", finding.kind, in_chain(&finding.chain), finding.explains);
    if let Some(expected) = &finding.expected {
        let _ = writeln!(text, "      expected {expected}");
    }
    if let Some(found) = &finding.found {
        let _ = writeln!(text, "      found    {found}");
    }
    text
}

/// Names the chain, where it has a name.
fn in_chain(chain: &str) -> String {
    if chain.is_empty() { String::new() } else { format!("chain {chain}: ") }
}
