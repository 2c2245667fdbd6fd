//! `list` and `show`.

use crate::support::{ErrorKind, World, strings};

#[test]
fn an_empty_repository_lists_nothing() {
    let world = World::ready();
    assert_eq!(world.run(["list", "repo"]).good().out, "no backups\n");
    let listing = world.json(0, ["list", "repo"]);
    assert_eq!(
        (listing["backups"].as_array().unwrap().len(), listing["findings"].as_array().unwrap().len()),
        (0, 0)
    );
    let said = world.fails(ErrorKind::NotFound, ["show", "repo"]);
    assert!(said.contains("no backup") && said.contains("attestore backup"), "{said}");
}

#[test]
fn backups_are_listed_in_the_order_of_the_log_with_what_is_known_of_them() {
    let world = World::with_backup();
    world.run(["backup", "app.db", "--to", "repo", "--name", "a-second"]).good();
    world.run(["verify", "repo", "one"]).good();
    let listing = world.json(0, ["list", "repo"]);
    let backups = listing["backups"].as_array().unwrap();
    let ids: Vec<_> = backups.iter().map(|backup| backup["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["one", "a-second"]);
    assert_eq!(backups[0]["chains"], "intact");
    assert_eq!(backups[0]["verified"], "contents");
    assert_eq!(strings(&backups[0]["sources"]), ["sqlite:app"]);
    assert!(backups[0]["size_bytes"].as_u64().unwrap() > 0 && backups[0]["signed_by"].is_string());
    assert!(backups[1]["signed_by"].is_null() && backups[1]["verified"].is_null());
    let text = world.run(["list", "repo"]).good().out;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].starts_with("one ") && lines[1].contains("contents"), "{text}");
    assert!(text.lines().all(|line| line == line.trim_end()), "{text:?}");
}

#[test]
fn a_backup_is_shown_by_id_and_as_latest() {
    let world = World::with_backup();
    world.run(["backup", "app.db", "--to", "repo", "--name", "two"]).good();
    assert_eq!(world.json(0, ["show", "repo"])["id"], "two");
    assert_eq!(world.json(0, ["show", "repo", "latest"])["id"], "two");
    let shown = world.json(0, ["show", "repo", "one"]);
    assert_eq!(shown["id"], "one");
    assert_eq!(shown["path"], "repo/backups/one");
    assert_eq!(shown["chains"][0]["verdict"], "intact");
    let text = world.run(["show", "repo", "one"]).good().out;
    assert!(
        text.contains("database/app.db.zst")
            && text.contains("chain aegisagent in app.action_receipts: intact"),
        "{text}"
    );
}

#[test]
fn a_name_that_is_not_there_or_no_name_is_told() {
    let world = World::with_backup();
    let said = world.fails(ErrorKind::NotFound, ["show", "repo", "two"]);
    assert!(said.contains("\"two\"") && said.contains("attestore list"), "{said}");
    for name in ["../one", "one/", "/etc", "", ".", "one\n"] {
        world.fails(ErrorKind::InvalidName, ["show", "repo", name]);
    }
    world.fails(ErrorKind::NotFound, ["list", "nowhere"]);
    world.fails(ErrorKind::NotFound, ["list", "."]);
    let said = world.fails(ErrorKind::Malformed, ["list", "app.db"]);
    assert!(said.contains("app.db is not a repository: it is a file"), "{said}");
}
