//! `runbook --plan`: what it says, and that its commands do what they say, with Attestore and with stock tools alone.

use std::process::Command;

use crate::plan::{HEAD, planned};
use crate::support::{World, left_out};

const RUNBOOK: [&str; 3] = ["runbook", "--plan", "attestore.toml"];

fn world() -> World {
    let world = planned(
        r#"
[[files]]
name = "config"
path = "my config"
tier = "B"
owner = "support lead"
[[secrets]]
name = "KEY"
ref = "file:key"
opens = "stored tokens"
escrow = "the safe"
if_lost = "re-enter"
[[elsewhere]]
name = "uploads"
what = "what users upload"
by = "the bucket's versions"
how_to_check = "list an old version"
owner = "storage team"
[[recreated]]
name = "cache"
what = "Redis"
way_back = "filled again by use"
[[drill.steps]]
what = "sign in with a test account"
owner = "support lead"
"#,
    );
    std::fs::create_dir(world.path("my config")).unwrap();
    world.write("my config/a.toml", "a = 1");
    world.write("key", "hunter2");
    world.json(0, ["backup", "--plan", "attestore.toml", "--name", "one"]);
    world
}

/// Returns the commands of a section.
fn commands(text: &str, section: &str) -> String {
    let section = text
        .split(&format!("\n## {section}"))
        .nth(1)
        .unwrap_or_else(|| panic!("no section {section}: {text}"));
    let section = section.split("\n## ").next().unwrap();
    section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

fn shell(world: &World, script: &str) -> String {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_attestore")).parent().unwrap().display();
    let path = format!("{program}:{}", std::env::var("PATH").unwrap());
    let run = Command::new("bash")
        .args(["-eu", "-o", "pipefail", "-c", script])
        .env("PATH", path)
        .current_dir(world.root())
        .output()
        .unwrap();
    assert!(run.status.success(), "{script}\n{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

#[test]
fn it_says_who_what_and_how_and_is_dated() {
    let world = world();
    let text = world.run(RUNBOOK).good().out;
    for line in [
        "# Backup and restore runbook: Receipts",
        "Answered for by platform on-call",
        "| B | config | files | support lead | my config | restored from the backup |",
        "| A | KEY | secret | platform on-call | file:key | from the safe; if it is lost, a person enters it again |",
        "| A | uploads | elsewhere | storage team | the bucket's versions | from the bucket's versions |",
        "| C | cache | recreated | platform on-call | Redis | filled again by use |",
        "- uploads (what users upload): backed up by the bucket's versions",
        "- [ ] Fetch KEY from the safe once, as after a disaster — platform on-call",
        "- [ ] uploads: list an old version — storage team",
        "- [ ] sign in with a test account — support lead",
        "- KEY (stored tokens): from the safe; if it is lost, a person enters it again",
        "| database/app.db.zst |",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(text.contains(&jiff::Timestamp::now().strftime("Dated %Y-%m-").to_string()), "{text}");
    assert!(!text.contains("hunter2"));
    let html = world.run(RUNBOOK.iter().chain(&["--html"])).good().out;
    assert!(
        html.starts_with("<!doctype html>")
            && html.contains("Drill checklist")
            && !html.contains("http://")
            && !html.contains("https://")
    );
    let json = world.json(0, RUNBOOK);
    assert_eq!(json["sections"][0]["title"], "At a glance");
}

#[test]
fn its_commands_restore_with_attestore() {
    let world = world();
    let text = world.run(RUNBOOK).good().out;
    world.sql("app.db", "DELETE FROM notes");
    shell(&world, &commands(&text, "Restore\n"));
    let notes: i64 =
        world.open("app.db").query_row("SELECT count(*) FROM notes", [], |row| row.get(0)).unwrap();
    assert_eq!(notes, 1);
    assert_eq!(world.read("my config.restored/a.toml"), b"a = 1");
    shell(&world, &commands(&text, "Drill checklist"));
    shell(&world, &commands(&text, "Back up"));
    shell(&world, &commands(&text, "At a glance"));
}

#[test]
fn its_commands_restore_with_stock_tools_alone() {
    for tool in ["zstd", "minisign", "sqlite3", "tar", "sha256sum"] {
        if !std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .any(|folder| folder.join(tool).is_file())
        {
            return left_out(
                "its_commands_restore_with_stock_tools_alone",
                &format!("{tool} is not installed"),
            );
        }
    }
    let world = world();
    let text = world.run(RUNBOOK).good().out;
    let script = commands(&text, "Restore with stock tools alone");
    assert!(!script.contains("attestore "), "{script}");
    let said = shell(
        &world,
        &format!(
            "{script}\nsqlite3 \"$out\"/app.db 'SELECT count(*) FROM action_receipts'; cat \"$out\"/a.toml \"$out\"/*/a.toml 2>/dev/null || true; rm -rf \"$out\""
        ),
    );
    for line in
        ["Signature and comment signature verified", "database/app.db.zst: OK", "ok\n", "\n9\n", "a = 1"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn a_plan_without_a_backup_or_repository_still_has_one() {
    let world = planned("");
    assert!(world.run(RUNBOOK).good().out.contains("On this date there was no backup in "));
    world.write("attestore.toml", HEAD.replace("path = \"repo\"", "path = \"not-yet\""));
    assert!(world.run(RUNBOOK).good().out.contains("There is no backup yet"));
}
