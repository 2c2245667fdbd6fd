//! `status --plan`: what is overdue, missing, cut off or no longer fits.

use backup_core::context::Context;
use backup_core::files::FilesSource;
use backup_core::repository::{BackupRequest, Repository, RepositoryOptions, SourceRequest};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::plan::{HEAD, planned};
use crate::support::{ErrorKind, World};

const STATUS: [&str; 3] = ["status", "--plan", "attestore.toml"];

/// A world whose plan has nothing to complain of.
fn healthy(more: &str) -> World {
    let world = planned(more);
    world.json(0, ["backup", "--plan", "attestore.toml", "--name", "one"]);
    world.run(["drill", "repo"]).good();
    world
}

fn problems(status: &Value) -> Vec<(String, String, String)> {
    let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
    let items = status["items"].as_array().unwrap().iter().filter(|item| item["ok"] == false);
    items.map(|item| (text(item, "check"), text(item, "detail"), text(item, "action"))).collect()
}

#[track_caller]
fn only(world: &World, check: &str, detail: &str) {
    let status = world.json(1, STATUS);
    let found = problems(&status);
    assert!(
        found.len() == 1 && found[0].0 == check && found[0].1.contains(detail) && !found[0].2.is_empty(),
        "expected {check}: {detail}, found {found:#?}"
    );
}

/// Makes a backup that is dated `from_now` hours from now.
fn backup_at(world: &World, hours: i64) {
    let repository = Repository::open(world.path("repo"), &RepositoryOptions::default()).unwrap();
    let source = FilesSource::new("app", world.path("backup.key.pub"));
    let request = BackupRequest {
        sources: vec![SourceRequest { snapshot: &source, chains: Vec::new() }],
        now: Some(Timestamp::now() + SignedDuration::from_hours(hours)),
        ..BackupRequest::default()
    };
    repository.backup(&request, &Context::new()).unwrap();
}

#[test]
fn a_repository_as_it_should_be_is_one_line_and_exit_0() {
    let world = healthy("");
    let run = world.run(STATUS).good();
    assert_eq!(run.out.lines().count(), 1, "{}", run.out);
    assert!(run.out.starts_with("ATTESTORE OK - Receipts, newest backup "), "{}", run.out);
    assert!(run.out.contains(" | backup_age=") && run.out.contains(" problems=0"), "Nagios: {}", run.out);
    let status = world.json(0, STATUS);
    assert_eq!(status["ok"], true);
    assert_eq!(status["figures"]["backups"], 1);
    let verbose = world.run(STATUS.iter().chain(&["--verbose"])).good().out;
    for check in ["log", "checkpoint", "backup-age", "drill", "continuity", "signature", "assets", "disk"] {
        assert!(verbose.contains(&format!("\n{check}: ok: ")), "{check}: {verbose}");
    }
}

#[test]
fn an_empty_repository_names_what_to_do_first() {
    let world = planned("");
    let run = world.run(STATUS).ends(1);
    assert!(run.out.starts_with("ATTESTORE PROBLEM: 3 problems - "), "{}", run.out);
    assert!(
        run.out.contains(
            "\nbackup-age: there is no backup -> make one: attestore backup --plan attestore.toml\n"
        )
    );
    assert!(run.out.contains("\ndrill: no drill ever succeeded"), "{}", run.out);
    assert!(run.out.contains("\ncheckpoint: there is no checkpoint "), "{}", run.out);
    std::fs::remove_dir_all(world.path("repo")).unwrap();
    world.fails(ErrorKind::NotFound, STATUS);
}

#[test]
fn a_newest_backup_past_its_objective_is_a_problem() {
    let world = healthy("");
    let text = HEAD.replace("rpo = \"24h\"", "rpo = \"1s\"");
    world.write("attestore.toml", &text);
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    only(&world, "backup-age", "the recovery point objective is 1s");
    world.write("attestore.toml", text.replace("1s", "24h").replace("\"90d\"", "\"1s\""));
    only(&world, "drill", "one is due every 1s");
}

#[test]
fn a_backup_from_the_future_is_a_clock_that_jumped() {
    let world = healthy("");
    backup_at(&world, 48);
    let found = problems(&world.json(1, STATUS));
    assert!(
        found.iter().any(|(check, detail, _)| check == "clock" && detail.contains("in the future")),
        "{found:?}"
    );
    // One that is older than the one before it in the log is still the newest.
    let world = healthy("");
    backup_at(&world, -72);
    let found = problems(&world.json(1, STATUS));
    assert!(
        found.iter().any(|(check, detail, _)| check == "backup-age" && detail.contains("3 days old")),
        "{found:?}"
    );
}

#[test]
fn assets_in_no_backup_are_named_one_by_one() {
    let world = healthy("");
    let more = "[[files]]\nname = \"config\"\npath = \".\"\n[[sources]]\nname = \"b\"\ndatabase = \"b.db\"\n";
    world.write("attestore.toml", format!("{HEAD}{more}"));
    let found = problems(&world.json(1, STATUS));
    let lacks: Vec<_> =
        found.iter().filter(|(check, ..)| check == "assets").map(|found| found.1.as_str()).collect();
    assert_eq!(
        lacks,
        [
            "b is in the plan and not in the newest backup one",
            "config is in the plan and not in the newest backup one"
        ]
    );
}

#[test]
fn a_secret_that_changed_no_longer_fits() {
    let secret = "[[secrets]]\nname = \"KEY\"\nref = \"file:key\"\nopens = \"x\"\nescrow = \"the safe\"\nif_lost = \"lost\"\n";
    let world = planned(secret);
    world.write("key", "first");
    world.json(0, ["backup", "--plan", "attestore.toml", "--name", "one"]);
    world.run(["drill", "repo"]).good();
    world.json(0, STATUS);
    world.write("key", "second");
    only(&world, "secrets", "is not the one");
    std::fs::remove_file(world.path("key")).unwrap();
    only(&world, "secrets", "the secret KEY");
}

#[test]
fn a_log_that_was_cut_back_does_not_extend_the_checkpoint() {
    let world = healthy("");
    crate::support::copy_folder(&world.path("repo"), &world.path("old"));
    world.json(0, ["backup", "--plan", "attestore.toml"]);
    std::fs::remove_dir_all(world.path("repo")).unwrap();
    std::fs::rename(world.path("old"), world.path("repo")).unwrap();
    only(&world, "checkpoint", "the log is shorter than");
    world.write("elsewhere.checkpoint", "no checkpoint");
    only(&world, "checkpoint", "expected a checkpoint of a repository");
}

#[test]
fn a_backup_that_was_deleted_is_a_problem_of_the_log() {
    let world = healthy("");
    world.json(0, ["backup", "--plan", "attestore.toml", "--name", "two"]);
    std::fs::remove_dir_all(world.path("repo/backups/one")).unwrap();
    only(&world, "log", "the backup one is gone and no prune is on record");
}

#[test]
fn backups_past_retention_and_unsigned_ones_are_problems() {
    let world = healthy("");
    world.json(0, ["backup", "--plan", "attestore.toml", "--name", "two"]);
    world.write("attestore.toml", format!("{HEAD}[retention]\nkeep_last = 1\n"));
    only(&world, "retention", "1 backups are past keep-last 1, the oldest one");
    let world = healthy("");
    world.run(["backup", "app.db", "--to", "repo", "--chain", "aegisagent", "--name", "plain"]).good();
    only(&world, "signature", "the newest backup plain is not signed");
}

#[test]
fn a_chain_that_was_rewritten_is_a_problem_of_continuity() {
    let world = healthy("");
    world.sql("app.db", "DELETE FROM action_receipts WHERE id = 'alpha-6'");
    world.json(1, ["backup", "--plan", "attestore.toml", "--name", "two"]);
    only(&world, "continuity", "does not extend the one in one");
}

#[test]
fn the_prometheus_file_is_replaced_in_one_step_and_written_also_when_the_repository_is_gone() {
    let world = healthy("");
    let with = ["status", "--plan", "attestore.toml", "--prometheus", "out.prom"];
    world.run(with).good();
    let text = String::from_utf8(world.read("out.prom")).unwrap();
    for line in [
        "attestore_status_ok{plan=\"Receipts\"} 1",
        "attestore_check_ok{plan=\"Receipts\",check=\"drill\"} 1",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{text}");
    }
    std::fs::rename(world.path("repo"), world.path("gone")).unwrap();
    world.run(with).ends(4);
    let text = String::from_utf8(world.read("out.prom")).unwrap();
    assert!(text.contains("attestore_status_ok{plan=\"Receipts\"} 0\n"), "{text}");
    std::fs::rename(world.path("gone"), world.path("repo")).unwrap();
    world.fails(
        ErrorKind::InvalidInput,
        ["status", "--plan", "attestore.toml", "--prometheus", "repo/out.prom"],
    );
    world.run(["status", "--plan", "attestore.toml", "--prometheus", "nowhere/out.prom"]).ends(4);
}

#[test]
fn what_others_back_up_is_checked_when_that_is_asked_for() {
    let world = healthy(
        "[[elsewhere]]\nname = \"uploads\"\nwhat = \"x\"\nby = \"y\"\nhow_to_check = \"look at the bucket\"\n\
         check = { run = [\"false\"], timeout = \"10s\" }\n",
    );
    world.json(0, STATUS);
    let found = problems(&world.json(1, STATUS.iter().chain(&["--run-checks"])));
    assert_eq!(found[0].0, "elsewhere");
    assert_eq!(found[0].2, "look at the bucket");
}
