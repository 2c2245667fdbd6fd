//! `backup`: what it stores, what it refuses before a byte is written, and its JSON.

use std::fs;

use sha2::{Digest as _, Sha256};

use crate::support::{ErrorKind, World, append_receipts, files, receipts, strings};

/// Nothing of a refused backup is in the repository.
fn nothing_left(world: &World, backups: usize) {
    assert_eq!(fs::read_dir(world.path("repo/backups")).unwrap().count(), backups);
    assert_eq!(fs::read_dir(world.path("repo/staging")).unwrap().count(), 0);
}

#[test]
fn a_backup_has_the_json_of_the_interface() {
    let world = World::ready();
    let made = world
        .json(0, ["backup", "app.db", "--to", "repo", "--chain", "aegisagent", "--sign-with", "backup.key"]);
    for field in [
        "id",
        "path",
        "size_bytes",
        "created_at",
        "sources",
        "objects",
        "chains",
        "signed_by",
        "not_included",
    ] {
        assert!(made.get(field).is_some(), "{field}: {made}");
    }
    let id = made["id"].as_str().unwrap();
    assert!(id.len() == 16 && id.ends_with('Z') && id.contains('T'), "{id}");
    assert_eq!(made["path"], format!("repo/backups/{id}"));
    let object = &made["objects"][0];
    assert_eq!(object["name"], "database/app.db.zst");
    let stored = world.read(format!("repo/backups/{id}/database/app.db.zst"));
    assert_eq!(object["stored_size_bytes"], stored.len());
    assert_eq!(object["stored_sha256"], hex::encode(Sha256::digest(&stored)));
    assert_eq!(object["sha256"].as_str().unwrap().len(), 64);
    assert!(object["size_bytes"].as_u64().unwrap() >= 4096);
    assert_eq!(made["size_bytes"], stored.len());
    assert_eq!(made["sources"][0]["kind"], "sqlite");
    assert_eq!(made["sources"][0]["tables"]["action_receipts"], 9);
    let chain = &made["chains"][0];
    assert_eq!(
        (&chain["format"], &chain["table"], &chain["verdict"]),
        (&"aegisagent".into(), &"action_receipts".into(), &"intact".into())
    );
    assert!(
        String::from_utf8(world.read("backup.key.pub"))
            .unwrap()
            .contains(made["signed_by"].as_str().unwrap())
    );
    assert!(!strings(&made["not_included"]).is_empty());
}

#[test]
fn what_is_no_database_is_refused_by_what_it_is() {
    let world = World::ready();
    world.write("text.db", "hello\n");
    world.write("empty.db", "");
    // Twice SQLite's page size of what nobody can tell from an encrypted database.
    let noise: Vec<u8> = (0_u32..256).flat_map(|n| Sha256::digest(n.to_le_bytes()).to_vec()).collect();
    world.write("noise.db", noise);
    fs::create_dir(world.path("folder.db")).unwrap();
    std::os::unix::fs::symlink("nothing", world.path("dangling.db")).unwrap();
    let mut cut = world.read("app.db");
    cut.truncate(cut.len() / 2);
    world.write("cut.db", cut);
    for (source, kind, told) in [
        ("missing.db", ErrorKind::NotFound, "no such file"),
        ("sqlite:missing.db", ErrorKind::NotFound, "no such file"),
        ("dangling.db", ErrorKind::NotFound, "symbolic link to nothing"),
        ("folder.db", ErrorKind::InvalidInput, "found a directory"),
        ("/dev/null", ErrorKind::InvalidInput, "device"),
        ("text.db", ErrorKind::Malformed, "not a SQLite database"),
        ("empty.db", ErrorKind::Malformed, "0 bytes"),
        ("noise.db", ErrorKind::KeyRejected, "encrypted or not a database"),
        ("cut.db", ErrorKind::Corrupt, "cut.db"),
        ("", ErrorKind::InvalidInput, "empty"),
        ("sqlite:", ErrorKind::InvalidInput, "sqlite:PATH"),
        ("mysql://u:hunter2@h/d", ErrorKind::Unsupported, "mysql"),
    ] {
        let said = world.fails(kind, ["backup", source, "--to", "repo"]);
        assert!(said.contains(told) && !said.contains("hunter2"), "{source}: {said}");
        nothing_left(&world, 0);
    }
    assert!(!world.path("missing.db").exists());
}

#[test]
fn a_name_that_could_hide_or_mislead_is_refused_and_a_taken_one_too() {
    let world = World::with_backup();
    let long = "x".repeat(300);
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc/x",
        "a..b",
        "dir/",
        "./x",
        "a\\b",
        " ",
        ".hidden",
        "-wal",
        "snap.db-journal",
        "file:x?mode=memory",
        "new\nline",
        "esc\u{1b}[2J",
        "gpj\u{202e}.db",
        "nul",
        "latest",
        &long,
    ] {
        let said = world
            .fails(ErrorKind::InvalidName, ["backup", "app.db", "--to", "repo", &format!("--name={name}")]);
        assert!(!said.chars().any(char::is_control), "{said:?}");
        nothing_left(&world, 1);
    }
    let said = world.fails(ErrorKind::AlreadyExists, ["backup", "app.db", "--to", "repo", "--name", "one"]);
    assert!(said.contains("\"one\" exists already"), "{said}");
    nothing_left(&world, 1);
}

#[test]
fn a_repository_that_is_none_newer_or_out_of_reach_is_told_apart() {
    let world = World::ready();
    let backup = |to| ["backup", "app.db", "--to", to];
    let said = world.fails(ErrorKind::NotFound, backup("nowhere"));
    assert!(said.contains("attestore init nowhere"), "{said}");
    world.fails(ErrorKind::NotFound, backup("."));
    world.fails(ErrorKind::Malformed, backup("app.db"));
    let said = world.fails(ErrorKind::Unsupported, backup("s3://bucket/prefix"));
    assert!(said.contains("folders only"), "{said}");

    let header = String::from_utf8(world.read("repo/repository.json")).unwrap();
    world.write("repo/repository.json", header.replace("\"format_version\":1", "\"format_version\":2"));
    for arguments in [&backup("repo")[..], &["list", "repo"], &["verify", "repo"], &["checkpoint", "repo"]] {
        let said = world.fails(ErrorKind::Newer, arguments);
        assert!(said.contains("version 2") && said.contains("newer Attestore"), "{said}");
    }
    world.write("repo/repository.json", &header[..header.len() / 2]);
    world.fails(ErrorKind::Malformed, backup("repo"));
}

#[test]
fn chains_that_are_unknown_or_not_in_the_source_are_refused() {
    let world = World::ready();
    let backup = |chain| ["backup", "app.db", "--to", "repo", "--chain", chain];
    let said = world.fails(ErrorKind::InvalidInput, backup("frobnicate"));
    assert!(said.contains("aegisagent") && said.contains("native"), "names those there are: {said}");
    for chain in ["native", "aegisagent:nowhere", "aegisagent-policy"] {
        let said = world.fails(ErrorKind::NotFound, backup(chain));
        assert!(said.contains("app.db has no table") && !said.contains("staging"), "{chain}: {said}");
        assert!(said.contains("action_receipts"), "names the likely one: {said}");
        nothing_left(&world, 0);
    }
    let said = world.fails(ErrorKind::Malformed, backup("aegisagent:notes"));
    assert!(said.contains("not aegisagent"), "{said}");
    nothing_left(&world, 0);

    world.sql("app.db", "ALTER TABLE action_receipts RENAME TO \"re:ceipts\"");
    world.sql("app.db", "ALTER TABLE \"re:ceipts\" RENAME TO renamed");
    let made = world.json(0, backup("aegisagent:renamed"));
    assert_eq!(made["chains"][0]["table"], "renamed");
}

#[test]
fn a_chain_with_findings_is_backed_up_and_said_or_refused_where_that_is_asked() {
    let world = World::with_backup();
    world.sql("app.db", "UPDATE action_receipts SET decision = 'deny' WHERE id = 'alpha-4'");
    let arguments = ["backup", "app.db", "--to", "repo", "--chain", "aegisagent", "--name", "two"];
    let said = world.fails(
        ErrorKind::Tampered,
        arguments.iter().copied().chain(["--refuse-findings"]).collect::<Vec<_>>(),
    );
    assert!(said.contains("action_receipts"), "{said}");
    nothing_left(&world, 1);

    let made = world.json(1, arguments);
    assert_eq!(made["chains"][0]["verdict"], "findings");
    let finding = &made["reports"][0]["findings"][0];
    assert_eq!(
        (&finding["kind"], &finding["chain"], &finding["position"]),
        (&"edited".into(), &"alpha".into(), &4.into())
    );
    let text = world.run(["list", "repo"]).good().out;
    assert!(text.contains("FINDINGS"), "{text}");
}

#[test]
fn a_chain_that_does_not_extend_the_backup_before_is_said() {
    let world = World::with_backup();
    append_receipts(&world.open("app.db"), "alpha", 7, 8, None);
    let made = world.json(0, ["backup", "app.db", "--to", "repo", "--chain", "aegisagent", "--name", "two"]);
    assert_eq!(
        (&made["chains"][0]["extends"]["ok"], &made["chains"][0]["extends"]["backup"]),
        (&true.into(), &"one".into())
    );
    // Rolled back to before the first backup's end: every remaining record is sound.
    world.sql("app.db", "DELETE FROM action_receipts WHERE tenant_id = 'alpha' AND rowid > 4");
    let run =
        world.run(["backup", "app.db", "--to", "repo", "--chain", "aegisagent", "--name", "three"]).ends(1);
    assert!(run.out.contains("DOES NOT EXTEND backup two") && run.out.contains("truncated"), "{}", run.out);
}

#[test]
fn several_sources_files_and_folders_make_one_backup() {
    let world = World::ready();
    receipts(&world.path("other.db"), &[("gamma", 2)], None);
    world.sql("other.db", "DROP TABLE notes");
    fs::create_dir_all(world.path("conf/sub")).unwrap();
    world.write("conf/a.toml", "a = 1\n");
    world.write("conf/sub/größe", "x");
    fs::create_dir(world.path("conf/empty")).unwrap();
    world.write("single.txt", "alone");
    let made = world.json(
        0,
        [
            "backup",
            "app.db",
            "sqlite:other.db",
            "--to",
            "repo",
            "--chain",
            "aegisagent",
            "--file",
            "config=conf",
            "--file",
            "note=single.txt",
            "--chain-copy",
            "--method",
            "online",
        ],
    );
    let names: Vec<_> =
        made["objects"].as_array().unwrap().iter().map(|object| object["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    for name in ["database/app.db.zst", "database/other.db.zst", "files/config.tar.zst", "files/note.tar.zst"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(made["chains"].as_array().unwrap().len(), 2);
    let id = made["id"].as_str().unwrap();
    assert_eq!(files(&world.path(format!("repo/backups/{id}"))).len(), 7, "the objects and the manifest");
    world.run(["verify", "repo", "--level", "contents"]).good();
}

#[test]
fn two_databases_of_one_name_are_told_apart_by_names_that_are_given() {
    let world = World::ready();
    fs::create_dir(world.path("eu")).unwrap();
    receipts(&world.path("eu/app.db"), &[("gamma", 2)], None);
    let said = world.fails(ErrorKind::InvalidInput, ["backup", "app.db", "eu/app.db", "--to", "repo"]);
    assert!(said.contains("app") && said.contains("NAME=PATH"), "{said}");
    nothing_left(&world, 0);
    let made = world.json(0, ["backup", "app.db", "app-eu=eu/app.db", "--to", "repo"]);
    assert_eq!(made["objects"][0]["name"], "database/app-eu.db.zst");
    world.fails(
        ErrorKind::InvalidName,
        ["backup", "-x=eu/app.db", "--to", "repo"]
            .map(|text| if text.starts_with('-') && text.contains('=') { ".x=eu/app.db" } else { text }),
    );
    // A file whose own name holds an equals sign is that file.
    fs::copy(world.path("app.db"), world.path("a=b.db")).unwrap();
    let made = world.json(0, ["backup", "a=b.db", "--to", "repo"]);
    assert_eq!(made["sources"][0]["name"], "a_b");
}

#[test]
fn files_are_refused_when_they_are_missing_or_badly_named() {
    let world = World::ready();
    world.write("x", "x");
    for (file, kind) in [
        ("x", ErrorKind::InvalidInput),
        ("=x", ErrorKind::InvalidInput),
        ("x=", ErrorKind::InvalidInput),
        ("x=nowhere", ErrorKind::NotFound),
        ("../x=x", ErrorKind::InvalidName),
        ("/x=x", ErrorKind::InvalidName),
        ("a//b=x", ErrorKind::InvalidName),
    ] {
        world.fails(kind, ["backup", "app.db", "--to", "repo", "--file", file]);
        nothing_left(&world, 0);
    }
    world.fails(
        ErrorKind::InvalidInput,
        ["backup", "app.db", "--to", "repo", "--file", "x=x", "--file", "x=x"],
    );
    nothing_left(&world, 0);
}

#[test]
fn keep_last_prunes_after_the_commit_and_not_what_is_held() {
    let world = World::with_backup();
    world.run(["hold", "repo", "one", "--reason", "case 4711"]).good();
    for name in ["two", "three"] {
        world.backup(name).good();
    }
    let made = world.json(
        0,
        [
            "backup",
            "app.db",
            "--to",
            "repo",
            "--chain",
            "aegisagent",
            "--sign-with",
            "backup.key",
            "--name",
            "four",
            "--keep-last",
            "1",
        ],
    );
    let removed: Vec<_> = made["pruned"]["removed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backup| backup["id"].as_str().unwrap())
        .collect();
    assert_eq!(removed, ["two", "three"]);
    let listing = world.json(0, ["list", "repo"]);
    let ids: Vec<_> =
        listing["backups"].as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["one", "four"]);
    world.fails(ErrorKind::InvalidInput, ["backup", "app.db", "--to", "repo", "--keep-last", "0"]);
    world.run(["verify", "repo", "--all"]).good();
}
