//! `backup --plan`: what a plan does, and every way it can be wrong.

use std::time::{Duration, Instant};

use crate::support::{ErrorKind, World, files, strings};

/// The beginning of every plan here.
pub(crate) const HEAD: &str = r#"
[plan]
name = "Receipts"
owner = "platform on-call"

[repository]
path = "repo"
sign_with = "file:backup.key"
public_keys = ["backup.key.pub"]
checkpoint = "elsewhere.checkpoint"

[objectives]
rpo = "24h"
drill_every = "90d"

[[sources]]
name = "app"
database = "app.db"
[[sources.chains]]
format = "aegisagent"
"#;

/// Makes a scratch folder with a plan of [`HEAD`] and `more`.
pub(crate) fn planned(more: &str) -> World {
    let world = World::ready();
    world.write("attestore.toml", format!("{HEAD}{more}"));
    world
}

const BACKUP: [&str; 3] = ["backup", "--plan", "attestore.toml"];

#[test]
fn a_plan_backs_up_every_source_and_file_with_what_it_says_of_them() {
    let world = planned(
        r#"
[retention]
keep_last = 2
[[sources]]
name = "other"
database = "sqlite:other.db"
[[files]]
name = "config"
path = "config"
[[secrets]]
name = "KEY"
ref = "file:key.txt"
opens = "the tokens"
escrow = "the safe"
if_lost = "lost"
[[elsewhere]]
name = "uploads"
what = "what users upload"
by = "the bucket's versions"
how_to_check = "look"
[[hooks.before]]
name = "freeze"
run = ["sh", "-c", "echo freezing; echo freeze >> hooks.log"]
[[hooks.after]]
name = "thaw"
run = ["sh", "-c", "echo $ATTESTORE_OUTCOME $ATTESTORE_BACKUP >> hooks.log"]
"#,
    );
    world.sql("other.db", "CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    std::fs::create_dir(world.path("config")).unwrap();
    world.write("config/a.toml", "a = 1");
    world.write("key.txt", "hunter2\n");
    let made = world.json(0, BACKUP.iter().chain(&["--name", "one"]));
    let objects: Vec<_> =
        made["objects"].as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap()).collect();
    assert_eq!(objects, ["database/app.db.zst", "database/other.db.zst", "files/config.tar.zst"]);
    assert_eq!(made["chains"][0]["source"], "app");
    assert_eq!(made["secrets"][0]["name"], "KEY");
    let lacks = strings(&made["not_included"]).join("\n");
    assert!(lacks.contains("the secret KEY (the tokens): escrowed at the safe"), "{lacks}");
    assert!(lacks.contains("uploads (what users upload): backed up by the bucket's versions"), "{lacks}");
    assert_eq!(made["hooks"][0]["output"], "freezing\n");
    assert_eq!(made["problems"], serde_json::json!([]));
    assert_eq!(world.read("hooks.log"), b"freeze\nok one\n");
    assert!(world.read("elsewhere.checkpoint").starts_with(b"attestore.dev/repository/"));
    for name in ["two", "three"] {
        world.json(0, BACKUP.iter().chain(&["--name", name]));
    }
    let listed = world.json(0, ["list", "repo"]);
    let ids: Vec<_> =
        listed["backups"].as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["two", "three"]);
    world.run(["verify", "repo", "--all", "--checkpoint", "elsewhere.checkpoint"]).good();
}

#[test]
fn a_plan_means_the_same_from_another_folder() {
    let world = planned("");
    let run = crate::support::attestore(["backup", "--plan", world.path("attestore.toml").to_str().unwrap()])
        .current_dir("/")
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    assert_eq!(world.json(0, ["list", "repo"])["backups"].as_array().unwrap().len(), 1);
}

#[test]
fn a_plan_that_is_wrong_says_where_and_nothing_is_written() {
    let hook = |run: &str| format!("[[hooks.before]]\nname = \"h\"\nrun = {run}\n");
    let cases = [
        ("[[sources]]\nname = \"app\"\ndatabase = \"b.db\"\n", ":22:8: two sources are called \"app\""),
        ("[[files]]\nname = \"app\"\npath = \".\"\n", ":22:8: a source and a files asset are called \"app\""),
        (
            "[retention]\nkeep_lsat = 3\n",
            ":22:1: unknown key \"keep_lsat\"\nHINT: the nearest known key is \"keep_last\"",
        ),
        ("[retention]\nkeep_last = -1\n", ":22:13: invalid value: integer `-1`, expected u32"),
        ("[retention]\nkeep_last = 0\n", "[retention]: the retention policy keeps nothing"),
        ("[drill]\nchecks = 3\n", ":22:10: invalid type: integer `3`, expected a sequence"),
        (
            "[[secrets]]\nname = \"K\"\nref = \"hunter2\"\nopens=\"\"\nescrow=\"\"\nif_lost=\"mint\"\n",
            ":23:7: reference to a secret: expected env:VAR or file:PATH",
        ),
        (
            "[[secrets]]\nname = \"K\"\nopens=\"\"\nescrow=\"\"\nif_lost=\"minted\"\n",
            ":25:9: unknown value \"minted\"\nHINT: the nearest known value is \"mint\"",
        ),
        (&hook("[]"), "the hook h runs nothing"),
        (&hook("[\"true\"]\ntimeout = \"soon\""), ":24:11: timeout \"soon\": expected a time above nothing"),
        (
            "[[drill.checks]]\nname = \"c\"\nsql = \"SELECT 1\"\nsource = \"nope\"\n",
            "there is no source \"nope\"",
        ),
        ("[[sources]]\nname = \"../x\"\ndatabase = \"b.db\"\n", ":22:8: "),
    ];
    for (more, expected) in cases {
        let world = planned(more);
        let said = world.fails(ErrorKind::InvalidInput, BACKUP);
        let expected = expected.replace("\nHINT", " HINT");
        assert!(said.contains(&expected), "{more}\nexpected {expected}\nfound {said}");
        assert!(said.contains("attestore.toml") && !said.contains("hunter2"), "{said}");
        assert_eq!(std::fs::read_dir(world.path("repo/backups")).unwrap().count(), 0);
    }
    let world = planned("");
    let said = world.fails(ErrorKind::NotFound, ["backup", "--plan", "nowhere.toml"]);
    assert!(said.contains("there is no plan nowhere.toml"), "{said}");
    world.write("attestore.toml", b"\xff");
    world.fails(ErrorKind::InvalidInput, BACKUP);
    world.fails(ErrorKind::InvalidInput, ["backup", "app.db", "--plan", "attestore.toml"]);
    world.fails(ErrorKind::InvalidInput, ["backup"]);
}

#[test]
fn recipients_that_are_no_keys_are_refused_before_the_first_byte() {
    let world = planned("");
    let text = HEAD.replace("checkpoint =", "encrypt_to = [\"age1nope\"]\ncheckpoint =");
    world.write("attestore.toml", text);
    let said = world.fails(ErrorKind::InvalidInput, BACKUP);
    assert!(said.contains("attestore.toml:10:14: age recipient"), "{said}");
}

#[test]
fn a_secret_that_is_unset_or_empty_stops_the_run_before_any_hook() {
    let secret = |reference: &str| {
        format!(
            "[[secrets]]\nname = \"TOKEN_KEY\"\nref = \"{reference}\"\nopens = \"x\"\nescrow = \"y\"\nif_lost = \"lost\"\n\
             [[hooks.before]]\nname = \"h\"\nrun = [\"touch\", \"ran\"]\n"
        )
    };
    for (reference, kind, what) in [
        ("env:ATTESTORE_TEST_UNSET", ErrorKind::NotFound, "not set"),
        ("file:empty", ErrorKind::InvalidInput, "empty"),
        ("file:nowhere", ErrorKind::NotFound, "nowhere"),
    ] {
        let world = planned(&secret(reference));
        world.write("empty", "");
        let said = world.fails(kind, BACKUP);
        assert!(said.contains("the secret TOKEN_KEY") && said.contains(what), "{said}");
        assert!(!world.path("ran").exists());
    }
}

#[test]
fn files_that_are_missing_are_said_by_their_name() {
    let world = planned("[[files]]\nname = \"config\"\npath = \"nowhere\"\n");
    let said = world.fails(ErrorKind::NotFound, BACKUP);
    assert!(said.contains("the files asset config: there is no ") && said.contains("nowhere"), "{said}");
    let world = planned("");
    std::fs::remove_file(world.path("app.db")).unwrap();
    let said = world.fails(ErrorKind::NotFound, BACKUP);
    assert!(said.contains("app.db"), "{said}");
    assert_eq!(std::fs::read_dir(world.path("repo/staging")).unwrap().count(), 0);
}

#[test]
fn a_hook_that_fails_or_hangs_fails_the_run() {
    let world = planned(
        "[[hooks.before]]\nname = \"freeze\"\nrun = [\"sh\", \"-c\", \"echo cannot freeze; exit 4\"]\n\
         [[hooks.after]]\nname = \"thaw\"\nrun = [\"sh\", \"-c\", \"echo $ATTESTORE_OUTCOME >> thawed\"]\n",
    );
    let said = world.fails(ErrorKind::Unavailable, BACKUP);
    assert!(said.contains("the hook before freeze ended with 4") && said.contains("cannot freeze"), "{said}");
    assert_eq!(std::fs::read_dir(world.path("repo/backups")).unwrap().count(), 0);
    assert_eq!(world.read("thawed"), b"failed\nfailed\n", "what was frozen is thawed");

    let world = planned(
        "[[hooks.before]]\nname = \"freeze\"\nrun = [\"sh\", \"-c\", \"sleep 600 & wait\"]\ntimeout = \"1s\"\n",
    );
    let begun = Instant::now();
    let said = world.fails(ErrorKind::Unavailable, BACKUP);
    assert!(said.contains("took longer than 1 s"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(120));

    let world = planned(
        "[[hooks.after]]\nname = \"announce\"\nrun = [\"sh\", \"-c\", \"echo no network; exit 1\"]\n",
    );
    let made = world.json(i32::from(ErrorKind::Unavailable.exit_status()), BACKUP);
    assert!(made["problems"][0].as_str().unwrap().contains("the hook after announce ended with 1"), "{made}");
    assert_eq!(made["hooks"][0]["output"], "no network\n");
    assert_eq!(world.json(0, ["list", "repo"])["backups"].as_array().unwrap().len(), 1, "the backup stays");
}

#[test]
fn a_checkpoint_is_not_replaced_when_the_log_does_not_extend_it() {
    let world = planned("");
    world.json(0, BACKUP);
    crate::support::copy_folder(&world.path("repo"), &world.path("old"));
    world.json(0, BACKUP);
    let kept = world.read("elsewhere.checkpoint");
    std::fs::remove_dir_all(world.path("repo")).unwrap();
    std::fs::rename(world.path("old"), world.path("repo")).unwrap();
    let made = world.json(7, BACKUP);
    assert!(made["problems"][0].as_str().unwrap().contains("checkpoint"), "{made}");
    assert_eq!(world.read("elsewhere.checkpoint"), kept);
    assert_eq!(world.json(1, ["status", "--plan", "attestore.toml"])["ok"], false);
}

#[test]
fn several_sources_at_once_are_one_backup_and_one_that_fails_leaves_nothing() {
    let more: String =
        (0..5).map(|n| format!("[[sources]]\nname = \"s{n}\"\ndatabase = \"s{n}.db\"\n")).collect();
    let world = planned(&more);
    world.write(
        "attestore.toml",
        format!("{HEAD}{more}").replace("checkpoint =", "parallel_sources = 3\ncheckpoint ="),
    );
    for n in 0..5 {
        world.sql(&format!("s{n}.db"), &format!("CREATE TABLE t(x); INSERT INTO t VALUES ({n})"));
    }
    let made = world.json(0, BACKUP);
    let names: Vec<_> =
        made["sources"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["app", "s0", "s1", "s2", "s3", "s4"], "in the plan's order");
    world.run(["verify", "repo"]).good();
    world.write("s3.db", "this is not a database at all, only text");
    let before = files(&world.path("repo"));
    world.fails(ErrorKind::Malformed, BACKUP);
    assert_eq!(files(&world.path("repo")), before);
}
