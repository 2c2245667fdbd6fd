//! The drill report as one self-contained HTML page: verdict first, then timeline, checks, continuity, history, secrets, gaps.

use std::fmt::Write as _;

use audit_chain::report::Verdict;

use super::facts::{Continuity, Point};
use super::{DrillReport, Outcome};
use crate::page::{esc, list, mark, table};
use crate::words::{age, bytes, seconds};

/// Writes the page.
#[must_use]
pub fn page(report: &DrillReport) -> String {
    let mut body = String::new();
    // Writing to a String cannot fail.
    let _ = sections(report, &mut body);
    let system = report.plan.as_ref().map_or("", |plan| plan.name.as_str());
    let title =
        format!("Restore drill {} {}: {}", system, report.started_at.strftime("%Y-%m-%d"), report.verdict());
    crate::page::page(title.trim(), &body)
}

fn sections(report: &DrillReport, body: &mut String) -> std::fmt::Result {
    head(report, body)?;
    cards(report, body)?;
    timeline(report, body)?;
    checks(report, body)?;
    chains(report, body)?;
    history(report, body)?;
    secrets(report, body)?;
    writeln!(body, "<h2>Not covered</h2>\n<p>This drill does not show:</p>\n{}", list(&report.not_covered))?;
    if !report.not_included.is_empty() {
        writeln!(body, "<h3>Not in the backup</h3>\n{}", list(&report.not_included))?;
    }
    steps(report, body)?;
    if !report.notes.is_empty() {
        writeln!(body, "<h2>Notes</h2>\n{}", list(&report.notes))?;
    }
    let signer = report.signed_by.as_deref().unwrap_or("nobody that was checked");
    writeln!(
        body,
        "<footer>\n<p>Backup signed by <code>{}</code>. Repository <code>{}</code>, whose log had {} entries with root <code>{}</code>.</p>\n\
         <p>Attestore {}, on {}. The digest of this report stands in the repository&#39;s log; a signature, where there is one, lies beside \
         it in a file that ends in <code>.minisig</code>.</p>\n</footer>",
        esc(signer),
        esc(&report.repository),
        report.log.size,
        esc(&report.log.root),
        esc(&report.attestore),
        esc(&report.machine)
    )
}

fn head(report: &DrillReport, body: &mut String) -> std::fmt::Result {
    let who = report.plan.as_ref().map(|plan| {
        let contact = plan.contact.as_ref().map(|contact| format!(", {contact}")).unwrap_or_default();
        format!("{} · answered for by {}{contact}", plan.name, plan.owner)
    });
    let (class, icon) = match report.outcome() {
        Outcome::Good => ("good", "<path d=\"M13 25l8 8 15-17\"/>"),
        Outcome::Late => ("warn", "<path d=\"M24 13v14M24 34v.5\"/>"),
        Outcome::Failed => ("bad", "<path d=\"M15 15l18 18M33 15L15 33\"/>"),
    };
    writeln!(
        body,
        "<h1>Restore drill{}</h1>",
        who.map(|who| format!(" · {}", esc(&who))).unwrap_or_default()
    )?;
    writeln!(
        body,
        "<div class=\"verdict {class}\"><svg viewBox=\"0 0 48 48\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"4\" stroke-linecap=\"round\" \
         stroke-linejoin=\"round\" aria-hidden=\"true\"><circle cx=\"24\" cy=\"24\" r=\"21\" stroke-width=\"3\"/>{icon}</svg><div><strong>{}</strong>\
         <span>Backup <code>{}</code> of {}, tried on {}.</span>",
        esc(&sentence(report.verdict())),
        esc(&report.backup),
        when(report.created_at),
        when(report.started_at)
    )?;
    let reasons = report.reasons();
    if !reasons.is_empty() {
        body.push_str(&list(&reasons));
    }
    body.push_str("</div></div>\n");
    Ok(())
}

/// Writes a verdict as a heading.
fn sentence(text: &str) -> String {
    let mut letters = text.to_lowercase().chars().collect::<Vec<_>>();
    if let Some(first) = letters.first_mut() {
        *first = first.to_ascii_uppercase();
    }
    letters.into_iter().collect()
}

/// Spells an instant for people, in UTC.
fn when(time: jiff::Timestamp) -> String {
    time.strftime("%-d %B %Y, %H:%M UTC").to_string()
}

fn day(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

fn cards(report: &DrillReport, body: &mut String) -> std::fmt::Result {
    body.push_str("<div class=\"cards\">\n");
    let mut card = |label: &str, value: &str, class: &str, note: &str| {
        writeln!(
            body,
            "<div class=\"card\"><span class=\"label\">{}</span><b>{}</b><span class=\"note {class}\">{}</span></div>",
            esc(label),
            esc(value),
            esc(note)
        )
    };
    let plan = report.plan.as_ref();
    let (class, note) = match plan.and_then(|plan| Some((plan.rto_met?, plan.rto_seconds?))) {
        Some((true, rto)) => ("good", format!("objective {} met", seconds(rto))),
        Some((false, rto)) => ("bad", format!("objective {} missed", seconds(rto))),
        None => ("", "no objective is named".to_owned()),
    };
    card("Recovery time", &seconds(report.restore_seconds), class, &note)?;
    let (class, note) = match plan {
        Some(plan) if plan.rpo_met => ("good", format!("objective {} met", plan.rpo)),
        Some(plan) => ("bad", format!("objective {} missed", plan.rpo)),
        None => ("", "no objective is named".to_owned()),
    };
    card("Recovery point", &age(report.age_seconds), class, &note)?;
    let good = report.checks.iter().filter(|check| check.ok).count();
    let class = if good == report.checks.len() { "good" } else { "bad" };
    card(
        "Checks",
        &format!("{good} of {}", report.checks.len()),
        class,
        if class == "good" { "all hold" } else { "not all hold" },
    )?;
    let records: u64 = report.chains.iter().map(|chain| chain.records).sum();
    if !report.chains.is_empty() {
        let intact = report.chains.iter().all(|chain| chain.verdict == Verdict::Intact);
        let (class, note) = if intact { ("good", "chains intact") } else { ("warn", "see below") };
        card("Chained records", &records.to_string(), class, note)?;
    }
    card("Restored", &bytes(report.size_bytes), "", &format!("from {} stored", bytes(report.stored_bytes)))?;
    body.push_str("</div>\n");
    Ok(())
}

fn timeline(report: &DrillReport, body: &mut String) -> std::fmt::Result {
    writeln!(
        body,
        "<h2>Timeline</h2>\n<p class=\"muted small\">From the first byte to the last, {}.</p>\n<div class=\"time\">",
        seconds(report.total_seconds)
    )?;
    let whole = report.total_seconds.max(0.001);
    for stage in &report.timeline {
        let (left, width) = (stage.start_seconds / whole * 100.0, stage.seconds / whole * 100.0);
        let left = left.clamp(0.0, 99.5);
        writeln!(
            body,
            "<div class=\"row\"><span>{}</span><span class=\"track\"><i{} style=\"left:{left:.2}%;width:{:.2}%\"></i></span><span class=\"took\">{}</span></div>",
            esc(&stage.name),
            if stage.ok { "" } else { " class=\"bad\"" },
            width.clamp(0.2, 100.0 - left),
            seconds(stage.seconds)
        )?;
    }
    body.push_str("</div>\n");
    Ok(())
}

fn holds(ok: bool) -> String {
    if ok { mark("good", "holds") } else { mark("bad", "fails") }
}

fn checks(report: &DrillReport, body: &mut String) -> std::fmt::Result {
    let rows: Vec<Vec<String>> = report
        .checks
        .iter()
        .map(|check| vec![esc(&check.name), holds(check.ok), esc(&check.detail)])
        .collect();
    writeln!(body, "<h2>Checks</h2>\n{}", table(&["check", "", "expected and found"], &rows))?;
    if report.hooks.is_empty() {
        return Ok(());
    }
    let rows: Vec<Vec<String>> = report
        .hooks
        .iter()
        .map(|hook| {
            let output = hook.output.trim_end();
            let shown = if output.is_empty() {
                String::new()
            } else {
                format!("<details><summary>what it printed</summary><pre>{}</pre></details>", esc(output))
            };
            vec![
                format!("{}<br><code class=\"muted\">{}</code>", esc(&hook.name), esc(&hook.run.join(" "))),
                if hook.ok { mark("good", "good") } else { mark("bad", "failed") },
                format!("{} after {}{shown}", esc(&hook.ended), seconds(hook.seconds)),
            ]
        })
        .collect();
    writeln!(
        body,
        "<h3>Smoke tests and outside checks</h3>\n{}",
        table(&["command", "", "how it ended"], &rows)
    )
}

fn chains(report: &DrillReport, body: &mut String) -> std::fmt::Result {
    if report.continuity.is_empty() {
        return Ok(());
    }
    body.push_str(
        "<h2>Chain continuity</h2>\n<p class=\"muted small\">Each dot is a backup. A line joins two when everything that was in the older is in \
         the newer, unchanged.</p>\n",
    );
    for chain in &report.continuity {
        writeln!(
            body,
            "<h3>{} in {}.{}</h3>\n<ol class=\"chain\">",
            esc(&chain.format),
            esc(&chain.source),
            esc(&chain.table)
        )?;
        for (at, point) in chain.points.iter().enumerate() {
            node(chain, at, point, report, body)?;
        }
        body.push_str("</ol>\n");
    }
    Ok(())
}

/// Draws one backup of a chain: its dot, the line to the one before and the line to the next.
fn node(
    chain: &Continuity,
    at: usize,
    point: &Point,
    report: &DrillReport,
    body: &mut String,
) -> std::fmt::Result {
    // The line is drawn with the newer of the two, which says whether it extends the older.
    let line = |extends: Option<bool>, y1: u32, y2: u32| match extends {
        Some(true) => format!("<path d=\"M16 {y1}V{y2}\" stroke=\"var(--good)\" stroke-width=\"3\"/>"),
        Some(false) => format!(
            "<path d=\"M16 {y1}V{y2}\" stroke=\"var(--bad)\" stroke-width=\"3\" stroke-dasharray=\"3 5\"/>"
        ),
        None => String::new(),
    };
    let above = if at > 0 { line(point.extends, 0, 17) } else { String::new() };
    let below = chain.points.get(at + 1).map_or_else(String::new, |next| line(next.extends, 32, 400));
    let tried = point.backup == report.backup;
    let (color, class, word) = match (point.verdict, point.extends) {
        (_, Some(false)) => ("var(--bad)", "bad", "does not extend the one before"),
        (Verdict::Findings, _) => ("var(--bad)", "bad", "findings"),
        (Verdict::CannotVerify, _) => ("var(--warn)", "warn", "no key at hand"),
        (Verdict::Intact, Some(true)) => ("var(--good)", "good", "extends"),
        (Verdict::Intact, None) => {
            ("var(--good)", "none", if at == 0 { "first shown" } else { "nothing to compare with" })
        }
    };
    let fill = if tried { color } else { "var(--paper)" };
    let before = at.checked_sub(1).and_then(|before| chain.points.get(before));
    let grown = before
        .filter(|_| point.extends == Some(true))
        .map(|before| point.records.saturating_sub(before.records));
    let grown = grown.map(|grown| format!(" (+{grown})")).unwrap_or_default();
    writeln!(
        body,
        "<li><svg viewBox=\"0 0 32 52\" aria-hidden=\"true\">{above}{below}<circle cx=\"16\" cy=\"24\" r=\"7\" fill=\"{fill}\" stroke=\"{color}\" \
         stroke-width=\"3\"/></svg><div><span class=\"id\">{}</span> {} {}<br><span class=\"muted small\">{} · {} records{grown}</span></div></li>",
        esc(&point.backup),
        mark(class, word),
        if tried { mark("none", "this drill") } else { String::new() },
        when(point.created_at),
        point.records
    )
}

/// A bar of a plot.
struct Bar {
    height: f64,
    class: &'static str,
    title: String,
}

fn history(report: &DrillReport, body: &mut String) -> std::fmt::Result {
    body.push_str("<h2>Over time</h2>\n<div class=\"plots\">\n");
    #[allow(clippy::cast_precision_loss, reason = "the height of a bar")]
    let sizes: Vec<Bar> = report
        .past_backups
        .iter()
        .map(|past| Bar {
            height: past.stored_bytes as f64,
            class: if past.id == report.backup { "now" } else { "" },
            title: format!("{} {}: {}", past.id, day(past.created_at), bytes(past.stored_bytes)),
        })
        .collect();
    let ends = (report.past_backups.first(), report.past_backups.last());
    let largest = report.past_backups.iter().map(|past| past.stored_bytes).max().unwrap_or(0);
    if let (Some(first), Some(last)) = ends {
        plot(
            &format!("Stored size, {} backups", sizes.len()),
            &sizes,
            None,
            &[day(first.created_at), format!("highest {}", bytes(largest)), day(last.created_at)],
            body,
        )?;
    }
    let mut times: Vec<Bar> = report
        .past_drills
        .iter()
        .map(|past| Bar {
            height: past.restore_seconds.unwrap_or(0.0),
            class: if past.ok { "" } else { "bad" },
            title: format!(
                "{}: {}",
                day(past.time),
                past.restore_seconds.map_or_else(|| "not measured".into(), seconds)
            ),
        })
        .collect();
    times.push(Bar {
        height: report.restore_seconds,
        class: if report.ok { "now" } else { "bad" },
        title: format!("this drill: {}", seconds(report.restore_seconds)),
    });
    let first = report.past_drills.first().map_or(report.started_at, |past| past.time);
    let longest = times.iter().map(|bar| bar.height).fold(0.0, f64::max);
    let objective =
        report.plan.as_ref().and_then(|plan| plan.rto_seconds).filter(|rto| *rto <= longest * 4.0);
    let caption = if times.len() == 1 {
        "Restore time, the first drill".to_owned()
    } else {
        format!("Restore time, {} drills", times.len())
    };
    plot(
        &caption,
        &times,
        objective,
        &[day(first), format!("longest {}", seconds(longest)), day(report.started_at)],
        body,
    )?;
    body.push_str("</div>\n");
    Ok(())
}

/// Draws bars with a line at the objective. There is no text in the drawing, so that it may be stretched to any width.
fn plot(
    caption: &str,
    bars: &[Bar],
    line: Option<f64>,
    axis: &[String; 3],
    body: &mut String,
) -> std::fmt::Result {
    let top =
        bars.iter().map(|bar| bar.height).fold(line.unwrap_or(0.0), f64::max).max(f64::MIN_POSITIVE) * 1.08;
    write!(
        body,
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 600 100\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
        esc(caption),
        esc(caption)
    )?;
    #[allow(clippy::cast_precision_loss, reason = "a handful of bars")]
    let step = 580.0 / bars.len().max(8) as f64;
    let mut x = 10.0;
    for bar in bars {
        let height = (bar.height / top * 96.0).max(1.0);
        let fill = match bar.class {
            "now" => "var(--bar-now)",
            "bad" => "var(--bad)",
            _ => "var(--bar)",
        };
        write!(
            body,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{fill}\"><title>{}</title></rect>",
            x + step * 0.12,
            100.0 - height,
            step * 0.76,
            esc(&bar.title)
        )?;
        x += step;
    }
    if let Some(line) = line {
        let y = 100.0 - line / top * 96.0;
        write!(
            body,
            "<path d=\"M0 {y:.1}H600\" stroke=\"var(--warn)\" stroke-width=\"1.5\" stroke-dasharray=\"6 5\" vector-effect=\"non-scaling-stroke\"><title>objective {}</title></path>",
            seconds(line)
        )?;
    }
    let [left, middle, right] = axis;
    writeln!(
        body,
        "</svg><div class=\"axis\"><span>{}</span><span>{}</span><span>{}</span></div></figure>",
        esc(left),
        esc(middle),
        esc(right)
    )
}

fn secrets(report: &DrillReport, body: &mut String) -> std::fmt::Result {
    if report.secrets.is_empty() && report.gaps.is_empty() {
        return Ok(());
    }
    body.push_str("<h2>Secrets and gaps</h2>\n<p class=\"muted small\">Told by fingerprint, counts and record ids. No value was written.</p>\n");
    if !report.secrets.is_empty() {
        let rows: Vec<Vec<String>> = report
            .secrets
            .iter()
            .map(|secret| {
                let state = match secret.state {
                    "fits" => mark("good", "fits"),
                    "does-not-fit" => mark("bad", "does not fit"),
                    "not-at-hand" => mark("warn", "not at hand"),
                    _ => mark("none", "no fingerprint"),
                };
                let said = |text: Option<&str>| esc(text.unwrap_or_default());
                vec![
                    format!("<code>{}</code>", esc(&secret.name)),
                    state,
                    said(secret.opens.as_deref()),
                    said(secret.escrow.as_deref()),
                    said(secret.if_lost),
                ]
            })
            .collect();
        body.push_str(&table(&["secret", "", "opens", "escrowed at", "if it is lost"], &rows));
    }
    if !report.gaps.is_empty() {
        let rows: Vec<Vec<String>> = report
            .gaps
            .iter()
            .map(|gap| {
                let bad = gap.does_not_open + gap.malformed;
                let records = if gap.records.is_empty() {
                    String::new()
                } else {
                    format!(
                        "<details><summary>{} records</summary><code>{}</code></details>",
                        bad,
                        esc(&gap.records.join(", "))
                    )
                };
                vec![
                    format!("<code>{}.{}</code>", esc(&gap.table), esc(&gap.column)),
                    match (gap.ok, gap.hurts()) {
                        (true, _) => mark("good", "all open"),
                        (false, true) => mark("bad", "gap"),
                        (false, false) => mark("warn", "minted anew"),
                    },
                    format!("{} of {}", gap.opens, gap.values),
                    format!("{}{records}", esc(&gap.diagnosis)),
                    if gap.ok { String::new() } else { esc(gap.if_lost.describe()) },
                ]
            })
            .collect();
        body.push_str("<h3>Credential gaps</h3>\n");
        body.push_str(&table(&["column", "", "open", "what that means", "what is done"], &rows));
    }
    Ok(())
}

fn steps(report: &DrillReport, body: &mut String) -> std::fmt::Result {
    let Some(plan) = report.plan.as_ref().filter(|plan| !plan.steps.is_empty()) else { return Ok(()) };
    body.push_str("<h2>What people do</h2>\n<ol class=\"steps\">\n");
    for step in &plan.steps {
        writeln!(
            body,
            "<li><span>{}</span><span class=\"who\">{}</span><span class=\"sign\">done on ______________ by ______________________________</span></li>",
            esc(&step.what),
            esc(&step.owner)
        )?;
    }
    body.push_str("</ol>\n");
    Ok(())
}
