//! Results as text for people.

use attestore::aside::AsideOutcome;
use attestore::backup::Backup;
use attestore::doctor::Doctor;
use attestore::repository::{ExportOutcome, HoldOutcome, InitOutcome, KeygenOutcome, Prune};
use attestore::restore::Restored;
use audit_chain::report::{ChainReport, Finding, Verdict};
use backup_core::repository::{Listing, RepositoryFinding, VerifyReport};
use jiff::Timestamp;

use super::output::{Text, bytes};

/// Adds one line to a [`Text`]; what stands in the values stays in this line.
macro_rules! line {
    ($text:expr, $($arguments:tt)+) => {
        $text.line(format_args!($($arguments)+))
    };
}

pub(super) use line;

/// How many findings are printed before the rest is only counted.
const SHOWN: usize = 20;

/// What a warning of a plan begins with that names what a backup does not hold.
const NOT_IN_BACKUP: &str = "not in the backup: ";

/// Prints what a machine has and lacks.
pub(crate) fn doctor(found: &Doctor) -> Text {
    let mut text = Text::default();
    line!(text, "attestore {}", found.version);
    text.blank();
    let rows: Vec<_> = found
        .findings
        .iter()
        .map(|finding| {
            let mark = if finding.ok { "ok" } else { "missing" };
            vec![mark.to_owned(), finding.name.clone(), finding.found.clone(), finding.used_for.clone()]
        })
        .collect();
    text.table(&["", "what", "found", "used for"], &rows);
    let lines: Vec<_> = found.findings.iter().filter_map(|finding| finding.install.as_deref()).collect();
    if !lines.is_empty() {
        text.blank();
        line!(text, "To install what is missing:");
        for line in lines {
            line!(text, "  {line}");
        }
    }
    text
}

/// Prints a key that was made.
pub(crate) fn keygen(made: &KeygenOutcome) -> Text {
    let mut text = Text::default();
    line!(text, "{}", made.public_key);
    text.blank();
    line!(
        text,
        "The secret key is in {} (mode 0600): keep it where backups are made.",
        made.secret_key.display()
    );
    line!(
        text,
        "The public key above is also in {}: give it to whoever verifies.",
        made.public_key_file.display()
    );
    text
}

/// Prints a repository that was made.
pub(crate) fn init(made: &InitOutcome) -> Text {
    let mut text = Text::default();
    line!(text, "repository {} in {}", made.id, made.path.display());
    text
}

/// Prints a backup: its objects and chains.
pub(crate) fn backup(backup: &Backup) -> Text {
    let mut text = Text::default();
    line!(text, "backup {}  {}  {}", backup.id, seconds(backup.created_at), bytes(backup.size_bytes));
    line!(text, "{}", backup.path.display());
    text.blank();
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
    text.table(&["object", "size", "stored", "sha256 of the stored bytes"], &rows);
    for chain in &backup.chains {
        let extends = match &chain.extends {
            Some(extends) if extends.ok => format!(", extends backup {}", extends.backup),
            Some(extends) => format!(", DOES NOT EXTEND backup {}", extends.backup),
            None => String::new(),
        };
        line!(
            text,
            "chain {} in {}.{}: {}{extends}",
            chain.format,
            chain.source,
            chain.table,
            chain.diagnosis
        );
    }
    for report in backup.reports.iter().filter(|report| report.verdict != Verdict::Intact) {
        text.append(chain_report(report));
    }
    match &backup.signed_by {
        Some(key) => line!(text, "signed by {key}"),
        None => line!(text, "not signed: nobody can tell who made it (--sign-with)"),
    }
    if !backup.encrypted_to.is_empty() {
        line!(text, "encrypted to {}", backup.encrypted_to.join(", "));
    }
    for secret in &backup.secrets {
        line!(text, "needs secret {} ({})", secret.name, secret.fingerprint);
    }
    for line in &backup.not_included {
        line!(text, "not included: {line}");
    }
    if let Some(pruned) = &backup.pruned {
        for removed in &pruned.removed {
            line!(text, "pruned {}", removed.id);
        }
    }
    if let Some(error) = &backup.prune_error {
        line!(text, "NOT pruned: {error}");
    }
    text
}

/// Prints the list of backups.
pub(crate) fn list(listing: &Listing) -> Text {
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
                seconds(backup.created_at),
                bytes(backup.size_bytes),
                backup.sources.join(" "),
                chains.to_owned(),
                if backup.signed_by.is_some() { "yes" } else { "no" }.to_owned(),
                backup.verified.map_or("-".to_owned(), |level| level.name().to_owned()),
                held,
            ]
        })
        .collect();
    let mut text = Text::default();
    if rows.is_empty() {
        line!(text, "no backups");
    } else {
        text.table(&["id", "made", "size", "sources", "chains", "signed", "verified", ""], &rows);
    }
    text.append(repository_findings(&listing.findings));
    text
}

/// Prints what is wrong with a repository.
fn repository_findings(findings: &[RepositoryFinding]) -> Text {
    let mut text = Text::default();
    for finding in findings {
        let of = finding.backup.as_deref().map(|id| format!(" in backup {id}")).unwrap_or_default();
        let object = finding.object.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
        line!(text, "  {}{of}{object}: {}", finding.kind, finding.explains);
        if let Some(expected) = &finding.expected {
            line!(text, "      expected {expected}");
        }
        if let Some(found) = &finding.found {
            line!(text, "      found    {found}");
        }
    }
    text
}

/// Prints a verification: verdict first.
pub(crate) fn verify(report: &VerifyReport) -> Text {
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
    let mut text = Text::default();
    line!(
        text,
        "{word}  repository {}, log of {}{log}",
        report.repository,
        count(report.log.position.size, "entry", "entries")
    );
    if !report.findings.is_empty() {
        text.blank();
        text.append(repository_findings(&report.findings));
    }
    for backup in &report.backups {
        let mark = if backup.ok { "ok" } else { "NOT OK" };
        let signer = match (&backup.signed_by, backup.signer_trusted) {
            (Some(key), true) => format!("signed by {key}"),
            (Some(key), false) => format!("signed by {key}, which only the backup itself names"),
            (None, _) => "not signed".to_owned(),
        };
        text.blank();
        line!(
            text,
            "backup {}  {mark}  level {}, {}, {}, {signer}",
            backup.id,
            backup.level.name(),
            count(backup.objects, "object", "objects"),
            bytes(backup.bytes)
        );
        for check in &backup.checks {
            let mark = if check.ok { "ok" } else { "NOT OK" };
            line!(text, "  {mark}  {}: {}", check.name, check.detail);
        }
        for chain in &backup.chains {
            line!(text, "  chain {}: {}", chain.format, chain.diagnosis);
        }
        for line in &backup.not_verified {
            line!(text, "  not verified: {line}");
        }
    }
    for note in &report.notes {
        line!(text, "note: {note}");
    }
    text
}

/// Prints a restore or its plan.
pub(crate) fn restored(restored: &Restored) -> Text {
    let plan = &restored.plan;
    let mut text = Text::default();
    match &restored.outcome {
        None => {
            line!(text, "PLAN  backup {} to {} (nothing was changed)", plan.backup, plan.target);
            for (at, step) in plan.steps.iter().enumerate() {
                line!(text, "  {}. {step}", at + 1);
            }
            line!(text, "needs {} there, {} free", bytes(plan.needs_bytes), bytes(plan.free_bytes));
        }
        Some(done) => {
            line!(text, "RESTORED  backup {} to {}", done.backup, done.target);
            for check in &done.checks {
                let mark = if check.ok { "ok" } else { "NOT OK" };
                line!(text, "  {mark}  {}: {}", check.name, check.detail);
            }
            for chain in &done.chains {
                line!(text, "  chain {}: {}", chain.format, chain.diagnosis);
            }
            for path in &done.set_aside {
                line!(text, "kept aside: {}", path.display());
            }
        }
    }
    for warning in &plan.warnings {
        // What no backup of its kind holds is worth knowing and nothing to be warned of.
        let word = if warning.starts_with(NOT_IN_BACKUP) { "" } else { "warning: " };
        line!(text, "{word}{warning}");
    }
    for note in &restored.notes {
        line!(text, "note: {note}");
    }
    text
}

/// Prints a prune or its plan.
pub(crate) fn prune(prune: &Prune) -> Text {
    let plan = &prune.plan;
    let rows: Vec<_> = plan
        .keep
        .iter()
        .map(|kept| {
            vec!["keep".to_owned(), kept.id.clone(), seconds(kept.created_at), kept.reasons.join(", ")]
        })
        .chain(plan.remove.iter().map(|removed| {
            vec![
                "remove".to_owned(),
                removed.id.clone(),
                seconds(removed.created_at),
                bytes(removed.size_bytes),
            ]
        }))
        .collect();
    let mut text = Text::default();
    if !rows.is_empty() {
        text.table(&["", "backup", "made", ""], &rows);
    }
    match &prune.outcome {
        Some(done) => line!(
            text,
            "removed {}, freed {}",
            count(done.removed.len() as u64, "backup", "backups"),
            bytes(done.freed_bytes)
        ),
        None => line!(
            text,
            "PLAN  would remove {} and free {} (nothing was changed; --apply does it)",
            count(plan.remove.len() as u64, "backup", "backups"),
            bytes(plan.frees_bytes)
        ),
    }
    text
}

/// Prints a hold.
pub(crate) fn hold(held: &HoldOutcome) -> Text {
    let word = if held.held { "held" } else { "released" };
    let reason = if held.reason.is_empty() { String::new() } else { format!(": {}", held.reason) };
    let mut text = Text::default();
    line!(text, "backup {} {word}{reason}", held.id);
    text
}

/// Prints an export.
pub(crate) fn export(made: &ExportOutcome) -> Text {
    let mut text = Text::default();
    line!(text, "{}  {}", made.path.display(), bytes(made.size_bytes));
    for name in &made.names {
        line!(text, "  {name}");
    }
    text
}

/// Prints what restores set aside.
pub(crate) fn set_aside(done: &AsideOutcome) -> Text {
    let mut text = Text::default();
    for aside in &done.set_aside {
        let word = if done.removed { "removed  " } else { "" };
        line!(text, "{word}{}  {}  {}", aside.path.display(), aside.at, bytes(aside.size_bytes));
    }
    for path in &done.archived {
        line!(text, "archived {}", path.display());
    }
    if done.set_aside.is_empty() {
        line!(text, "nothing is set aside beside {}", done.target.display());
    }
    text
}

/// Prints a chain report: verdict first.
pub(crate) fn chain_report(report: &ChainReport) -> Text {
    let word = match report.verdict {
        Verdict::Intact => "INTACT",
        Verdict::Findings => "FINDINGS",
        Verdict::CannotVerify => "CANNOT VERIFY",
    };
    let mut text = Text::default();
    let said = format!("{}: ", word.to_lowercase());
    line!(text, "{word}  {}", report.diagnosis.strip_prefix(&said).unwrap_or(&report.diagnosis));
    if !report.findings.is_empty() {
        text.blank();
        for finding in report.findings.iter().take(SHOWN) {
            text.append(finding_text(finding));
        }
        let more = report.findings_total.saturating_sub(SHOWN as u64);
        if more > 0 {
            line!(text, "  … and {more} more (see --json)");
        }
    }
    if !report.chains.is_empty() {
        text.blank();
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
        text.table(&["chain", "records", "signed", "head", "Merkle root over whole rows"], &rows);
        if report.chains.len() > SHOWN {
            line!(text, "… and {} more chains (see --json)", report.chains.len() - SHOWN);
        }
    }
    for note in report.notes.iter().take(SHOWN) {
        line!(text, "note: {}{}", in_chain(&note.chain), note.explains);
    }
    text
}

/// Prints one finding in at most three lines.
fn finding_text(finding: &Finding) -> Text {
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
    let mut text = Text::default();
    line!(text, "  {}{place}{record}: {}{}", finding.kind, in_chain(&finding.chain), finding.explains);
    if let Some(expected) = &finding.expected {
        line!(text, "      expected {expected}");
    }
    if let Some(found) = &finding.found {
        line!(text, "      found    {found}");
    }
    text
}

/// Spells an instant to the second.
fn seconds(instant: Timestamp) -> String {
    format!("{instant:.0}")
}

/// Counts things in the singular or the plural.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Names the chain, where it has a name.
fn in_chain(chain: &str) -> String {
    if chain.is_empty() { String::new() } else { format!("chain {chain}: ") }
}
