//! The runbook of a plan: the dated document that people follow, from the plan and the repository's facts (S1.1, S1.6).
//!
//! `attestore runbook --plan` calls [`runbook`]; it reads the log and the newest manifest and writes nothing. The commands in it are
//! exact for this plan; a test runs them. Markdown and HTML are made from the same [`Runbook`].

use std::fmt::Write as _;
use std::path::Path;

use backup_core::error::{ErrorKind, Result};
use backup_core::manifest::Manifest;
use jiff::Timestamp;
use serde::Serialize;

use crate::backup::open_repository;
use crate::page::{cell, esc, list, page, table};
use crate::plan::Plan;
use crate::words::{age, bytes};

/// A block of the runbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "block", rename_all = "kebab-case")]
pub enum Block {
    /// A paragraph.
    Text {
        /// What it says.
        text: String,
    },
    /// Lines of a list.
    List {
        /// The lines.
        lines: Vec<String>,
    },
    /// Commands, to be run in this order.
    Commands {
        /// The lines.
        lines: Vec<String>,
    },
    /// A table.
    Table {
        /// The heads.
        heads: Vec<String>,
        /// The rows.
        rows: Vec<Vec<String>>,
    },
    /// Steps with who does them.
    Steps {
        /// What, and who.
        steps: Vec<(String, String)>,
    },
}

/// A section of the runbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// What it holds.
    pub blocks: Vec<Block>,
}

/// A runbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Runbook {
    /// The system.
    pub name: String,
    /// The role that answers for it.
    pub owner: String,
    /// How the owner is reached.
    pub contact: Option<String>,
    /// When it was made.
    pub dated: Timestamp,
    /// The digest of the plan's bytes.
    pub plan_sha256: String,
    /// The sections.
    pub sections: Vec<Section>,
}

/// Makes the runbook of a plan, dated `now`.
///
/// # Errors
/// When the repository is there and cannot be read. A repository that does not exist yet, or has no backup, is said in the runbook.
pub fn runbook(plan: &Plan, now: Timestamp) -> Result<Runbook> {
    let (newest, count) = match open_repository(&plan.repository()) {
        Ok(repository) => {
            let seen = repository.overview(None)?;
            let newest = seen.backups.last().map(|backup| repository.show(&backup.id)).transpose()?;
            (newest.map(|shown| shown.manifest), seen.backups.len())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => (None, 0),
        Err(error) => return Err(error),
    };
    let writer = Writer { plan, newest, count, now };
    let file = &plan.file;
    Ok(Runbook {
        name: file.plan.name.clone(),
        owner: file.plan.owner.clone(),
        contact: file.plan.contact.clone(),
        dated: now,
        plan_sha256: plan.sha256.to_string(),
        sections: vec![
            writer.now(),
            writer.who(),
            writer.contents(),
            writer.secrets(),
            writer.backup(),
            writer.restore(),
            writer.stock(),
            writer.drill(),
            writer.afterwards(),
        ],
    })
}

struct Writer<'a> {
    plan: &'a Plan,
    newest: Option<Manifest>,
    count: usize,
    now: Timestamp,
}

fn text(text: impl Into<String>) -> Block {
    Block::Text { text: text.into() }
}

fn table_of(heads: &[&str], rows: Vec<Vec<String>>) -> Block {
    Block::Table { heads: heads.iter().map(|head| (*head).to_owned()).collect(), rows }
}

/// Quotes an argument for a POSIX shell where that is needed.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', "'\\''"))
    }
}

impl Writer<'_> {
    fn plan_path(&self) -> String {
        let path = self.plan.path.file_name().unwrap_or(self.plan.path.as_os_str());
        quoted(&self.plan.folder().join(path).display().to_string())
    }

    fn repository(&self) -> String {
        quoted(&self.plan.repository())
    }

    /// Options of `restore` and `verify` that the plan knows.
    fn keys(&self) -> String {
        let mut text = String::new();
        for key in self.plan.public_keys() {
            let _ = write!(text, " --public-key {}", quoted(&key));
        }
        text
    }

    fn identity(&self) -> Option<String> {
        self.plan.identity().map(|path| quoted(&path.display().to_string()))
    }

    fn now(&self) -> Section {
        let file = &self.plan.file;
        let mut blocks = Vec::new();
        blocks.extend(file.plan.notes.as_ref().map(|notes| text(notes.clone())));
        let mut lines = vec![
            format!("Recovery point objective {}: the newest backup is never older.", file.objectives.rpo),
            format!("A drill every {}.", file.objectives.drill_every),
        ];
        if let Some(rto) = file.objectives.rto {
            lines.push(format!("Recovery time objective {rto}: a restore is proven within it."));
        }
        match &self.newest {
            Some(newest) => lines.push(format!(
                "On this date the repository {} held {} backups; the newest, {}, was made on {:.0} ({} ago) and takes {}.",
                self.plan.repository(),
                self.count,
                newest.id,
                newest.created_at,
                age(self.now.as_second() - newest.created_at.as_second()),
                bytes(newest.stored_bytes())
            )),
            None => lines.push(format!("On this date there was no backup in {}. Make one before anything else.", self.plan.repository())),
        }
        blocks.push(Block::List { lines });
        blocks.push(text("What is so at this moment:"));
        blocks.push(Block::Commands { lines: vec![format!("attestore status --plan {}", self.plan_path())] });
        Section { title: "At a glance".into(), blocks }
    }

    fn who(&self) -> Section {
        let rows = self
            .plan
            .assets()
            .into_iter()
            .map(|asset| {
                vec![
                    format!("{:?}", asset.tier),
                    asset.name.to_owned(),
                    asset.kind.to_owned(),
                    asset.owner.to_owned(),
                    asset.place,
                    asset.way_back,
                ]
            })
            .collect();
        Section {
            title: "Who backs up what".into(),
            blocks: vec![
                text("Tier A must survive, B is nice to have, C is made again."),
                table_of(&["tier", "asset", "kind", "owner", "place", "way back"], rows),
            ],
        }
    }

    fn contents(&self) -> Section {
        let mut blocks = Vec::new();
        if let Some(newest) = &self.newest {
            let rows = newest
                .objects
                .iter()
                .map(|object| {
                    vec![object.name.clone(), bytes(object.size_bytes), bytes(object.stored_size_bytes)]
                })
                .collect();
            blocks.push(text(format!("In the newest backup, {}:", newest.id)));
            blocks.push(table_of(&["object", "size", "stored"], rows));
            for chain in &newest.chains {
                blocks.push(text(format!(
                    "Audit chain {} in {}.{}: {}.",
                    chain.format, chain.source, chain.table, chain.diagnosis
                )));
            }
        }
        let lacks = match &self.newest {
            Some(newest) => newest.not_included.clone(),
            None => self.plan.not_included(),
        };
        blocks.push(text("Not in it:"));
        blocks.push(Block::List { lines: lacks });
        Section { title: "What is in a backup, and what is not".into(), blocks }
    }

    fn secrets(&self) -> Section {
        let rows: Vec<Vec<String>> = self
            .plan
            .file
            .secrets
            .iter()
            .map(|secret| {
                vec![
                    secret.name.get_ref().to_string(),
                    secret.opens.clone(),
                    secret.escrow.clone(),
                    secret.if_lost.describe().to_owned(),
                    self.plan.owner(secret.owner.as_ref()).to_owned(),
                ]
            })
            .collect();
        let mut blocks = vec![text(
            "A backup holds fingerprints of secrets, never the secrets. Fetch them before a restore, and let the preflight say whether they fit.",
        )];
        if rows.is_empty() {
            blocks.push(text("The plan names no secret."));
        } else {
            blocks.push(table_of(&["secret", "opens", "escrowed at", "if it is lost", "holder"], rows));
        }
        if !self.plan.file.repository.encrypt_to.is_empty() {
            blocks.push(text(
                "The objects are encrypted to age recipients: without one of their identities nothing can be restored. Keep one where the backups are not.",
            ));
        }
        Section { title: "Secrets".into(), blocks }
    }

    fn backup(&self) -> Section {
        let retention = self.plan.file.retention.as_ref().map_or_else(
            || "No retention is named: nothing is ever removed.".to_owned(),
            |retention| format!("Kept: {}.", retention.policy().describe()),
        );
        Section {
            title: "Back up".into(),
            blocks: vec![
                text("The schedule (cron, a timer) runs this; it can be run by hand at any time:"),
                Block::Commands { lines: vec![format!("attestore backup --plan {}", self.plan_path())] },
                text(retention),
            ],
        }
    }

    fn restore(&self) -> Section {
        let (keys, repository) = (self.keys(), self.repository());
        let identity = self.identity().map(|path| format!(" --identity {path}")).unwrap_or_default();
        let mut secrets = String::new();
        for text in self.plan.secrets() {
            let _ = write!(secrets, " --secret {}", quoted(&text));
        }
        let mut blocks = vec![
            text("1. Stop the service. A restore refuses a database that is in use."),
            text("2. Prove the backup that you are about to restore:"),
            Block::Commands { lines: vec![format!("attestore verify {repository} latest{keys}{identity}")] },
            text(
                "3. See what would happen, then do it. The database is restored beside the live one, proven, and swapped; the old file is kept.",
            ),
        ];
        let mut lines = Vec::new();
        for source in &self.plan.file.sources {
            let location = source.database.as_str();
            if location.contains("://") || location.starts_with("env:") {
                blocks.push(text(format!(
                    "   {}: restore {location} as docs/postgres.md says.",
                    source.name.get_ref()
                )));
                continue;
            }
            let path = location.strip_prefix("sqlite:").unwrap_or(location);
            let target =
                quoted(&self.plan.resolve(path.strip_prefix("//").unwrap_or(path)).display().to_string());
            let object = quoted(&format!("database/{}.db", source.name.get_ref()));
            let command = format!(
                "attestore restore {repository} latest --object {object} --to {target}{keys}{identity}{secrets}"
            );
            lines.push(format!("{command} --plan"));
            lines.push(command);
        }
        for files in &self.plan.file.files {
            let path = self.plan.resolve(&files.path);
            let target = quoted(&format!("{}.restored", path.display()));
            let object = quoted(&format!("files/{}.tar", files.name.get_ref()));
            lines.push(format!(
                "attestore restore {repository} latest --object {object} --to {target}{keys}{identity}"
            ));
        }
        blocks.push(Block::Commands { lines });
        blocks.push(text(
            "4. Files are restored to a new name beside the old: compare, then move them into place. Start the service. When all is well, remove or \
             archive what was set aside (attestore set-aside).",
        ));
        Section { title: "Restore".into(), blocks }
    }

    fn stock(&self) -> Section {
        let mut blocks = vec![text(
            "On a machine without Attestore. A backup is a folder of zstd files, encrypted with age where recipients are named, with a manifest that \
             minisign checks and that holds the SHA-256 of every file. Nothing here overwrites a live file.",
        )];
        let Some(newest) = &self.newest else {
            blocks.push(text("There is no backup yet: the commands are made from the newest one."));
            return Section { title: "Restore with stock tools alone".into(), blocks };
        };
        let folder = quoted(
            &Path::new(&self.plan.repository()).join("backups").join(&newest.id).display().to_string(),
        );
        let mut lines = vec![format!("cd {folder}")];
        if let Some(key) = &newest.signed_by {
            lines.push(format!("minisign -V -P {} -m manifest.json", quoted(key)));
        }
        for object in &newest.objects {
            lines.push(format!("echo '{}  {}' | sha256sum -c -", object.stored_sha256, object.name));
        }
        lines.push("out=$(mktemp -d)".into());
        let identity = self.identity().unwrap_or_else(|| "IDENTITY-FILE".into());
        for object in &newest.objects {
            let name = quoted(&object.name);
            let plain = object.plain_name();
            let source = if object.name.ends_with(".age") {
                format!("age -d -i {identity} {name} | zstd -dc")
            } else {
                format!("zstd -dc {name}")
            };
            let target = plain.rsplit('/').next().unwrap_or(plain);
            if plain.ends_with(".tar") {
                lines.push(format!("{source} | tar -x -C \"$out\" -f -"));
            } else {
                lines.push(format!("{source} > \"$out\"/{}", quoted(target)));
            }
            if plain.ends_with(".db") {
                lines.push(format!("sqlite3 \"$out\"/{} 'PRAGMA integrity_check'", quoted(target)));
            }
        }
        lines.push("ls -l \"$out\"".into());
        blocks.push(Block::Commands { lines });
        blocks.push(text(
            "Then, with the service stopped, move the old database aside together with its -wal, -shm and -journal (an old -wal beside a new \
             database undoes the restore), and copy the new one into place.",
        ));
        Section { title: "Restore with stock tools alone".into(), blocks }
    }

    fn drill(&self) -> Section {
        let file = &self.plan.file;
        let owner = |owner: Option<&String>| self.plan.owner(owner).to_owned();
        let plan = self.plan_path();
        let mut steps = vec![
            (format!("Look at the newest backup's age: attestore status --plan {plan}"), owner(None)),
            (
                format!("Restore it into scratch, prove it, time it: attestore drill --plan {plan}"),
                owner(None),
            ),
        ];
        for hook in &file.drill.smoke {
            steps.push((
                format!("The smoke test {} is good (part of the drill)", hook.name.get_ref()),
                owner(None),
            ));
        }
        for check in &file.drill.checks {
            steps.push((
                format!("The spot check {:?} is good (part of the drill)", check.name.get_ref().as_str()),
                owner(None),
            ));
        }
        for secret in &file.secrets {
            steps.push((
                format!("Fetch {} from {} once, as after a disaster", secret.name.get_ref(), secret.escrow),
                owner(secret.owner.as_ref()),
            ));
        }
        for other in &file.elsewhere {
            steps.push((
                format!("{}: {}", other.name.get_ref(), other.how_to_check),
                owner(other.owner.as_ref()),
            ));
        }
        for step in &file.drill.steps {
            steps.push((step.what.clone(), owner(step.owner.as_ref())));
        }
        steps.push(("Keep the signed report, and put what went wrong into the plan".into(), owner(None)));
        Section {
            title: "Drill checklist".into(),
            blocks: vec![
                text(format!("Due every {}.", file.objectives.drill_every)),
                Block::Commands { lines: vec![format!("attestore drill --plan {plan}")] },
                Block::Steps { steps },
            ],
        }
    }

    fn afterwards(&self) -> Section {
        let file = &self.plan.file;
        let mut lines = Vec::new();
        for secret in &file.secrets {
            lines.push(format!(
                "{} ({}): from {}; if it is lost, {}",
                secret.name.get_ref(),
                secret.opens,
                secret.escrow,
                secret.if_lost.describe()
            ));
        }
        for source in &file.sources {
            for sealed in &source.sealed {
                lines.push(format!(
                    "{}.{} in {}: every value that does not open with {}: {}",
                    sealed.table,
                    sealed.column,
                    source.name.get_ref(),
                    sealed.secret.get_ref(),
                    sealed.if_lost.describe()
                ));
            }
        }
        for made in &file.recreated {
            lines.push(format!("{}: {}", made.name.get_ref(), made.way_back));
        }
        let mut blocks =
            vec![text("What is in no backup and must be there again before the service is whole:")];
        if lines.is_empty() {
            blocks.push(text("The plan names nothing."));
        } else {
            blocks.push(Block::List { lines });
        }
        blocks.push(text("A drill's report names the records whose credentials do not open."));
        Section { title: "To re-enter or make again after a disaster".into(), blocks }
    }
}

/// Writes a runbook as Markdown.
#[must_use]
pub fn markdown(runbook: &Runbook) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_markdown(runbook, &mut text);
    text
}

fn write_markdown(runbook: &Runbook, text: &mut String) -> std::fmt::Result {
    let contact = runbook.contact.as_ref().map(|contact| format!(" ({})", cell(contact))).unwrap_or_default();
    writeln!(
        text,
        "# Backup and restore runbook: {}\n\nDated {}. Answered for by {}{contact}. Made by attestore {} from the plan with SHA-256 `{}`.",
        cell(&runbook.name),
        runbook.dated.strftime("%Y-%m-%d %H:%M UTC"),
        cell(&runbook.owner),
        env!("CARGO_PKG_VERSION"),
        runbook.plan_sha256
    )?;
    for section in &runbook.sections {
        writeln!(text, "\n## {}", section.title)?;
        for block in &section.blocks {
            text.push('\n');
            match block {
                Block::Text { text: said } => writeln!(text, "{}", cell(said.trim()))?,
                Block::List { lines } => {
                    for line in lines {
                        writeln!(text, "- {}", cell(line))?;
                    }
                }
                Block::Commands { lines } => {
                    writeln!(text, "```sh")?;
                    for line in lines {
                        writeln!(text, "{}", one_line(line))?;
                    }
                    writeln!(text, "```")?;
                }
                Block::Table { heads, rows } => {
                    writeln!(text, "| {} |\n|{}", heads.join(" | "), "---|".repeat(heads.len()))?;
                    for row in rows {
                        let cells: Vec<String> = row.iter().map(|one| cell(one)).collect();
                        writeln!(text, "| {} |", cells.join(" | "))?;
                    }
                }
                Block::Steps { steps } => {
                    for (what, who) in steps {
                        writeln!(text, "- [ ] {} — {}", cell(what), cell(who))?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Keeps a command on its line.
fn one_line(command: &str) -> String {
    command.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Writes a runbook as one self-contained HTML page.
#[must_use]
pub fn html(runbook: &Runbook) -> String {
    let mut body = String::new();
    // Writing to a String cannot fail.
    let _ = write_html(runbook, &mut body);
    page(&format!("Runbook: {}", runbook.name), &body)
}

fn write_html(runbook: &Runbook, body: &mut String) -> std::fmt::Result {
    let contact = runbook.contact.as_ref().map(|contact| format!(" ({contact})")).unwrap_or_default();
    writeln!(
        body,
        "<h1>Backup and restore runbook</h1>\n<p class=\"title\">{}</p>\n<p class=\"muted\">Dated {}. Answered for by {}.</p>",
        esc(&runbook.name),
        runbook.dated.strftime("%-d %B %Y, %H:%M UTC"),
        esc(&format!("{}{contact}", runbook.owner))
    )?;
    for section in &runbook.sections {
        writeln!(body, "<h2>{}</h2>", esc(&section.title))?;
        for block in &section.blocks {
            match block {
                Block::Text { text } => writeln!(body, "<p>{}</p>", esc(text.trim()))?,
                Block::List { lines } => body.push_str(&list(lines)),
                Block::Commands { lines } => {
                    let lines: Vec<String> = lines.iter().map(|line| esc(&one_line(line))).collect();
                    writeln!(body, "<pre>{}</pre>", lines.join("\n"))?;
                }
                Block::Table { heads, rows } => {
                    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
                    let rows: Vec<Vec<String>> =
                        rows.iter().map(|row| row.iter().map(|one| esc(one)).collect()).collect();
                    body.push_str(&table(&heads, &rows));
                }
                Block::Steps { steps } => {
                    body.push_str("<ol class=\"steps\">\n");
                    for (what, who) in steps {
                        writeln!(
                            body,
                            "<li><span>{}</span><span class=\"who\">{}</span><span class=\"sign\">done on ______________ by ______________________________</span></li>",
                            esc(what),
                            esc(who)
                        )?;
                    }
                    body.push_str("</ol>\n");
                }
            }
        }
    }
    writeln!(
        body,
        "<footer><p>Made by Attestore {} from the plan with SHA-256 <code>{}</code>. When the plan changes, print it again.</p></footer>",
        env!("CARGO_PKG_VERSION"),
        esc(&runbook.plan_sha256)
    )
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn arguments_are_quoted_where_a_shell_would_read_them_otherwise() {
        assert_eq!(quoted("/srv/a-b_c.db"), "/srv/a-b_c.db");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("a'b;$c"), "'a'\\''b;$c'");
        assert_eq!(quoted(""), "''");
    }
}
