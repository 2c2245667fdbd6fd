//! The drill report as Markdown: verdict first.

use std::fmt::Write as _;

use super::DrillReport;
use crate::page::{cell, code};
use crate::words::{age, bytes, seconds};

/// Writes the report.
#[must_use]
pub fn markdown(report: &DrillReport) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = sections(report, &mut text);
    text
}

fn sections(report: &DrillReport, text: &mut String) -> std::fmt::Result {
    writeln!(text, "# Restore drill: {}\n", report.verdict())?;
    if let Some(plan) = &report.plan {
        writeln!(text, "**{}**, answered for by {}.\n", cell(&plan.name), cell(&plan.owner))?;
    }
    writeln!(
        text,
        "Backup {} of {:.0}, restored on {:.0} in {} ({} in all). At that moment it was {} old.\n",
        code(&report.backup),
        report.created_at,
        report.started_at,
        seconds(report.restore_seconds),
        seconds(report.total_seconds),
        age(report.age_seconds)
    )?;
    for reason in report.reasons() {
        writeln!(text, "- **{}**", cell(&reason))?;
    }
    if let Some(plan) = &report.plan {
        let kept = |met: bool| if met { "met" } else { "**missed**" };
        writeln!(text, "\n| objective | wanted | measured | |\n|---|---|---|---|")?;
        writeln!(
            text,
            "| recovery point | {} | {} | {} |",
            cell(&plan.rpo),
            age(report.age_seconds),
            kept(plan.rpo_met)
        )?;
        if let (Some(rto), Some(met)) = (plan.rto_seconds, plan.rto_met) {
            writeln!(
                text,
                "| recovery time | {} | {} | {} |",
                seconds(rto),
                seconds(report.restore_seconds),
                kept(met)
            )?;
        }
    }
    let signer = report.signed_by.as_deref().unwrap_or("nobody that was checked");
    writeln!(
        text,
        "\nThe backup is signed by {}.\n\n## Timeline\n\n| step | begins | takes |\n|---|---|---|",
        code(signer)
    )?;
    for stage in &report.timeline {
        writeln!(
            text,
            "| {} | {} | {} |",
            cell(&stage.name),
            seconds(stage.start_seconds),
            seconds(stage.seconds)
        )?;
    }
    writeln!(text, "\n## Checks\n\n| check | holds | detail |\n|---|---|---|")?;
    for check in &report.checks {
        let holds = if check.ok { "yes" } else { "**no**" };
        writeln!(text, "| {} | {holds} | {} |", cell(&check.name), cell(&check.detail))?;
    }
    if !report.chains.is_empty() {
        text.push_str("\n## Chains\n\n| chain | records | verdict | diagnosis |\n|---|---|---|---|\n");
        for chain in &report.chains {
            writeln!(
                text,
                "| {} | {} | {} | {} |",
                cell(&chain.format),
                chain.records,
                chain.verdict.name(),
                cell(&chain.diagnosis)
            )?;
        }
    }
    for chain in &report.continuity {
        writeln!(
            text,
            "\n### {} in {}.{} across backups\n\n| backup | made | records | extends the one before |\n|---|---|---|---|",
            cell(&chain.format),
            cell(&chain.source),
            cell(&chain.table)
        )?;
        for point in &chain.points {
            let extends = match point.extends {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "nothing to compare with",
            };
            writeln!(
                text,
                "| {} | {:.0} | {} | {extends} |",
                code(&point.backup),
                point.created_at,
                point.records
            )?;
        }
    }
    if !report.hooks.is_empty() {
        text.push_str("\n## Smoke tests and outside checks\n\n| command | good | how it ended | took |\n|---|---|---|---|\n");
        for hook in &report.hooks {
            let good = if hook.ok { "yes" } else { "**no**" };
            writeln!(
                text,
                "| {} | {good} | {} | {} |",
                cell(&hook.name),
                cell(&hook.ended),
                seconds(hook.seconds)
            )?;
        }
    }
    secrets(report, text)?;
    text.push_str("\n## Not covered by this drill\n\n");
    for line in &report.not_covered {
        writeln!(text, "- {}", cell(line))?;
    }
    text.push_str("\n## Not in the backup\n\n");
    for line in &report.not_included {
        writeln!(text, "- {}", cell(line))?;
    }
    if let Some(plan) = report.plan.as_ref().filter(|plan| !plan.steps.is_empty()) {
        text.push_str("\n## What people do\n\n");
        for step in &plan.steps {
            writeln!(text, "- [ ] {} — {}", cell(&step.what), cell(&step.owner))?;
        }
    }
    if !report.notes.is_empty() {
        text.push_str("\n## Notes\n\n");
        for note in &report.notes {
            writeln!(text, "- {}", cell(note))?;
        }
    }
    writeln!(
        text,
        "\n---\n\nRepository {}, log of {} entries with root {}; {} stored, {} restored; attestore {}.",
        code(&report.repository),
        report.log.size,
        code(&report.log.root),
        bytes(report.stored_bytes),
        bytes(report.size_bytes),
        report.attestore
    )
}

fn secrets(report: &DrillReport, text: &mut String) -> std::fmt::Result {
    if report.secrets.is_empty() && report.gaps.is_empty() {
        return Ok(());
    }
    text.push_str("\n## Secrets and gaps\n");
    if !report.secrets.is_empty() {
        text.push_str("\n| secret | at hand | opens | escrow | if lost |\n|---|---|---|---|---|\n");
        for secret in &report.secrets {
            let said = |text: Option<&str>| text.map(cell).unwrap_or_default();
            writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                cell(&secret.name),
                secret.state.replace('-', " "),
                said(secret.opens.as_deref()),
                said(secret.escrow.as_deref()),
                said(secret.if_lost)
            )?;
        }
    }
    if !report.gaps.is_empty() {
        text.push_str(
            "\n| column | values | open | do not | what is done | records |\n|---|---|---|---|---|---|\n",
        );
        for gap in &report.gaps {
            writeln!(
                text,
                "| {}.{} | {} | {} | {} | {} | {} |",
                cell(&gap.table),
                cell(&gap.column),
                gap.values,
                gap.opens,
                gap.does_not_open + gap.malformed,
                if gap.ok { "nothing" } else { gap.if_lost.describe() },
                cell(&gap.records.join(", "))
            )?;
        }
        for gap in &report.gaps {
            writeln!(text, "\n- {}.{}: {}", cell(&gap.table), cell(&gap.column), cell(&gap.diagnosis))?;
        }
    }
    Ok(())
}
