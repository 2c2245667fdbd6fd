//! `drill --plan`: what the report says, that it is signed and safe to open, and that nothing is left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use backup_core::manifest::Digest;
use backup_core::signing::{PublicKey, verify_detached};
use serde_json::Value;

use crate::plan::{HEAD, planned};
use crate::support::{ErrorKind, World, files, strings};

const DRILL: [&str; 3] = ["drill", "--plan", "attestore.toml"];

/// A world with a plan, a folder `drills`, a scratch folder and two backups.
fn world(more: &str) -> World {
    let drill = format!("[drill]\nreports = \"drills\"\nscratch = \"scratch\"\n{more}");
    let world = planned(&drill);
    for folder in ["drills", "scratch"] {
        fs::create_dir(world.path(folder)).unwrap();
    }
    for name in ["one", "two"] {
        world.json(0, ["backup", "--plan", "attestore.toml", "--name", name]);
    }
    world
}

fn reports(world: &World, ending: &str) -> Vec<PathBuf> {
    let found = files(&world.path("drills")).into_iter();
    found
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .map(|path| world.path("drills").join(path))
        .collect()
}

#[test]
fn a_drill_by_a_plan_leaves_signed_reports_and_an_entry_and_nothing_else() {
    let world = world(
        "[[drill.checks]]\nname = \"notes\"\nsql = \"SELECT count(*) FROM notes\"\nexpected = \"1\"\nsource = \"app\"\n\
         [[drill.smoke]]\nname = \"ready\"\nrun = [\"sh\", \"-c\", \"test -f \\\"$ATTESTORE_DATABASE\\\" && test \\\"$ATTESTORE_DATABASE\\\" = \\\"$ATTESTORE_DATABASE_APP\\\" && echo $ATTESTORE_DATABASE > seen\"]\n\
         [[drill.steps]]\nwhat = \"sign in\"\nowner = \"support lead\"\n",
    );
    let report = world.json(0, DRILL);
    assert_eq!((&report["ok"], &report["backup"]), (&true.into(), &"two".into()));
    let names: Vec<_> =
        report["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    for name in [
        "integrity check",
        "row counts",
        "notes",
        "chain action_receipts",
        "chain action_receipts extends backup one",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let points: Vec<_> = report["continuity"][0]["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| (point["backup"].as_str().unwrap(), point["extends"].as_bool()))
        .collect();
    assert_eq!(points, [("one", None), ("two", Some(true))]);
    assert_eq!(report["hooks"][0]["ok"], true);
    assert_eq!(report["plan"]["steps"][0]["owner"], "support lead");
    assert!(
        report["plan"]["rpo_met"].as_bool().unwrap() && report["restore_seconds"].as_f64().unwrap() > 0.0
    );
    let lacks = strings(&report["not_covered"]).join("\n");
    assert!(lacks.contains("the way back of a whole machine") && !lacks.contains("smoke"), "{lacks}");
    let seen = String::from_utf8(world.read("seen")).unwrap();
    assert!(!PathBuf::from(seen.trim()).exists(), "thrown away");
    assert_eq!(fs::read_dir(world.path("scratch")).unwrap().count(), 0);
    let key = PublicKey::load(world.path("backup.key.pub")).unwrap();
    for ending in ["json", "md", "html"] {
        let found = reports(&world, ending);
        assert_eq!(found.len(), 1, "{ending}");
        let bytes = fs::read(&found[0]).unwrap();
        let signature = fs::read_to_string(format!("{}.minisig", found[0].display())).unwrap();
        verify_detached("report", &bytes, &signature, std::slice::from_ref(&key)).unwrap();
    }
    let json = fs::read(&reports(&world, "json")[0]).unwrap();
    let logged = fs::read_to_string(world.path("repo/log/entries/00000000.ndjson")).unwrap();
    assert!(logged.contains(&Digest::of(&json).to_string()), "the report's digest is in the log");
    // The next one has this one as its past.
    let report = world.json(0, DRILL);
    assert_eq!(report["past_drills"].as_array().unwrap().len(), 1);
    assert_eq!(world.json(0, ["drill", "--plan", "attestore.toml", "one"])["backup"], "one");
}

#[test]
fn what_does_not_hold_fails_the_drill_and_is_said_first() {
    let world =
        world("[[drill.checks]]\nname = \"notes\"\nsql = \"SELECT count(*) FROM notes\"\nexpected = \"7\"\n");
    let report = world.json(1, DRILL);
    assert!(report["checks"][0]["detail"].as_str().unwrap().contains("expected"), "{report:#}");
    assert!(world.run(DRILL).ends(1).out.starts_with("# Restore drill: FAILED\n"));
    assert_eq!(world.json(1, ["status", "--plan", "attestore.toml"])["ok"], false);

    let world =
        self::world("[[drill.smoke]]\nname = \"ready\"\nrun = [\"sh\", \"-c\", \"echo no route; exit 7\"]\n");
    let report = world.json(1, DRILL);
    assert_eq!(
        (&report["hooks"][0]["exit_status"], &report["hooks"][0]["output"]),
        (&7.into(), &"no route\n".into())
    );

    let world = self::world(
        "[[drill.smoke]]\nname = \"hangs\"\nrun = [\"sh\", \"-c\", \"sleep 600 & wait\"]\ntimeout = \"1s\"\n",
    );
    assert!(world.json(1, DRILL)["hooks"][0]["ended"].as_str().unwrap().contains("took longer than 1 s"));
}

#[test]
fn a_missed_objective_is_said_and_does_not_fail_the_drill() {
    let world = world("");
    let text = String::from_utf8(world.read("attestore.toml")).unwrap();
    world.write("attestore.toml", text.replace("rpo = \"24h\"", "rpo = \"1s\"\nrto = \"1ms\""));
    std::thread::sleep(Duration::from_millis(2_100));
    let run = world.run(DRILL).ends(0);
    assert!(
        run.out.starts_with("# Restore drill: restored and proven, an objective was missed"),
        "{}",
        run.out
    );
    assert!(run.out.contains("| recovery time | ") && run.out.contains("**missed**"), "{}", run.out);
}

#[test]
fn a_rewritten_chain_is_seen_against_the_backup_before() {
    let world = world("");
    world.sql("app.db", "DELETE FROM action_receipts WHERE id = 'alpha-6'");
    world.json(1, ["backup", "--plan", "attestore.toml", "--name", "three"]);
    let report = world.json(1, DRILL);
    let checks = report["checks"].as_array().unwrap();
    let check =
        checks.iter().find(|check| check["name"] == "chain action_receipts extends backup two").unwrap();
    assert_eq!(check["ok"], false, "{check}");
    let html = fs::read_to_string(&reports(&world, "html")[0]).unwrap();
    assert!(
        html.contains("does not extend the one before") && html.contains("stroke-dasharray"),
        "drawn as broken"
    );
}

#[test]
fn names_and_values_in_a_report_are_escaped() {
    let evil = "<script>alert(1)</script>";
    let world = world(&format!(
        "[[drill.smoke]]\nname = \"x\"\nrun = [\"sh\", \"-c\", \"echo '{evil}\\\"'; exit 1\"]\n\
         [[drill.steps]]\nwhat = '{evil}'\nowner = '\"onload=\"x'\n"
    ));
    let text = String::from_utf8(world.read("attestore.toml")).unwrap();
    world
        .write("attestore.toml", text.replace("name = \"Receipts\"", &format!("name = '{evil}<img src=x>'")));
    world.run(DRILL).ends(1);
    let html = fs::read_to_string(&reports(&world, "html")[0]).unwrap();
    assert!(!html.contains("<script") && !html.contains("<img") && html.contains("&lt;script&gt;"));
    for word in ["http://", "https://", "url(", "@import", "onload=\"x"] {
        assert!(!html.contains(word), "a report needs no network: {word}");
    }
    assert!(
        html.contains("default-src 'none'")
            && html.contains("prefers-color-scheme:dark")
            && html.contains("@media print")
    );
    let text = fs::read_to_string(&reports(&world, "md")[0]).unwrap();
    assert!(!text.contains("<script"), "{text}");
}

#[test]
fn a_place_that_cannot_be_written_is_refused_before_the_drill_begins() {
    let world = world("");
    let entries = world.read("repo/log/entries/00000000.ndjson");
    fs::remove_dir(world.path("drills")).unwrap();
    let said = world.fails(ErrorKind::NotFound, DRILL);
    assert!(said.contains("the drill has not begun"), "{said}");
    fs::create_dir(world.path("drills")).unwrap();
    fs::set_permissions(world.path("drills"), fs::Permissions::from_mode(0o500)).unwrap();
    // Root may write anywhere.
    if rustix::process::geteuid().is_root() {
        world.run(DRILL).good();
    } else {
        world.fails(ErrorKind::Permission, DRILL);
        assert_eq!(world.read("repo/log/entries/00000000.ndjson"), entries);
    }
    fs::set_permissions(world.path("drills"), fs::Permissions::from_mode(0o700)).unwrap();
    world.write("file", "");
    for report in ["file/x.html", "repo/x.html", "x.pdf"] {
        world.run(["drill", "repo", "--report", report]).ends(match report {
            "file/x.html" => 4,
            _ => 2,
        });
    }
    world.run(["drill", "repo", "--report", "x.html"]).good();
    assert!(world.read("x.html").starts_with(b"<!doctype html>"));
}

#[test]
fn a_killed_drill_leaves_nothing_behind_next_time() {
    let world =
        world("[[drill.smoke]]\nname = \"slow\"\nrun = [\"sh\", \"-c\", \"touch begun; sleep 600\"]\n");
    let mut child = world.command(DRILL).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    while !world.path("begun").exists() {
        assert!(Instant::now() < limit, "the drill did not come to its smoke test");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read_dir(world.path("scratch")).unwrap().count(), 1, "restored data of the dead one");
    let text = String::from_utf8(world.read("attestore.toml")).unwrap();
    world.write("attestore.toml", text.replace("sleep 600", "true"));
    world.run(DRILL).good();
    assert_eq!(fs::read_dir(world.path("scratch")).unwrap().count(), 0);
}

#[test]
fn a_folder_alone_can_be_drilled_and_migrations_are_compared() {
    let world = World::ready();
    fs::create_dir(world.path("config")).unwrap();
    world.write("config/a", "a");
    let text = HEAD.split("[[sources]]").next().unwrap().to_owned()
        + "[[files]]\nname = \"config\"\npath = \"config\"\n";
    world.write("attestore.toml", text);
    world.json(0, ["backup", "--plan", "attestore.toml"]);
    let report: Value = world.json(0, DRILL);
    assert_eq!(report["checks"][0]["name"], "files/config.tar reads to its end");
}
