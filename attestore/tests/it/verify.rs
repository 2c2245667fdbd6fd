//! `verify`, `checkpoint`, `export`: damage of every kind, keys that fit and do not, a repository that was set back.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{ErrorKind, World, copy_folder, files};

/// Flips one bit in the middle of a file.
fn flip(world: &World, name: impl AsRef<Path>) {
    let mut bytes = world.read(&name);
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    world.write(&name, bytes);
}

fn kinds(report: &Value) -> Vec<String> {
    report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["kind"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_sound_backup_is_proven_to_its_contents() {
    let world = World::with_backup();
    let report = world.json(0, ["verify", "repo", "--public-key", "backup.key.pub"]);
    assert_eq!((&report["ok"], &report["verdict"]), (&true.into(), &"intact".into()));
    let backup = &report["backups"][0];
    assert_eq!((&backup["level"], &backup["signer_trusted"]), (&"contents".into(), &true.into()));
    assert_eq!(backup["chains"][0]["verdict"], "intact");
    let text = world.run(["verify", "repo", "--all"]).good().out;
    assert!(text.starts_with("PROVEN ") && text.contains("which only the backup itself names"), "{text}");
    world.fails(ErrorKind::NotFound, ["verify", "repo", "two"]);
}

#[test]
fn damage_is_found_where_it_is_and_ends_with_5() {
    for (file, kind) in [
        ("repo/backups/one/database/app.db.zst", "object-altered"),
        ("repo/backups/one/manifest.json", "manifest-altered"),
        ("repo/backups/one/manifest.json.minisig", "signature-invalid"),
        ("repo/log/entries/00000000.ndjson", "log-edited"),
        ("repo/log/checkpoint", "log-checkpoint-mismatch"),
    ] {
        let world = World::with_backup();
        flip(&world, file);
        let report = world.json(5, ["verify", "repo", "--all", "--no-record"]);
        assert!(kinds(&report).iter().any(|found| found == kind), "{file}: {report:#}");
        let text = world.run(["verify", "repo", "--all", "--no-record"]).ends(5).out;
        assert!(text.starts_with("FINDINGS ") && text.contains(kind), "{text}");
    }
    let world = World::with_backup();
    fs::remove_file(world.path("repo/backups/one/database/app.db.zst")).unwrap();
    assert_eq!(kinds(&world.json(5, ["verify", "repo"])), ["object-missing"]);
    world.fails(ErrorKind::Corrupt, ["restore", "repo", "one", "--to", "new.db"]);
    world.fails(ErrorKind::Corrupt, ["export", "repo", "one", "--out", "x.tar.gz"]);
    assert!(!world.path("new.db").exists() && !world.path("x.tar.gz").exists());
}

#[test]
fn a_signature_that_is_asked_for_must_be_there_and_of_that_key() {
    let world = World::with_backup();
    world.run(["backup", "app.db", "--to", "repo", "--name", "bare"]).good();
    world.run(["keygen", "--out", "other.key"]).good();
    let asked = ["verify", "repo", "bare", "--public-key", "backup.key.pub"];
    assert_eq!(kinds(&world.json(3, asked)), ["unsigned"]);
    world.fails(
        ErrorKind::Unsigned,
        ["restore", "repo", "bare", "--to", "x.db", "--public-key", "backup.key.pub"],
    );
    assert_eq!(
        kinds(&world.json(6, ["verify", "repo", "one", "--public-key", "other.key.pub"])),
        ["unknown-key"]
    );
    world.fails(
        ErrorKind::KeyRejected,
        ["restore", "repo", "one", "--to", "x.db", "--public-key", "other.key.pub"],
    );
    assert!(!world.path("x.db").exists());
    world
        .run(["verify", "repo", "one", "--public-key", "other.key.pub", "--public-key", "backup.key.pub"])
        .good();
    let said = world.fails(ErrorKind::NotFound, ["verify", "repo", "--public-key", "nokey.pub"]);
    assert!(said.contains("nokey.pub"), "{said}");
    let secret = String::from_utf8(world.read("backup.key")).unwrap();
    let said = world
        .fails(ErrorKind::KeyRejected, ["verify", "repo", "--public-key", secret.lines().nth(1).unwrap()]);
    assert!(!said.contains(secret.lines().nth(1).unwrap()), "{said}");
    world
        .fails(ErrorKind::KeyRejected, ["backup", "app.db", "--to", "repo", "--sign-with", "backup.key.pub"]);
    fs::remove_file(world.path("repo/backups/one/manifest.json.minisig")).unwrap();
    assert_eq!(kinds(&world.json(3, ["verify", "repo", "one"])), ["unsigned"]);
}

#[test]
fn a_deleted_backup_and_a_repository_that_was_set_back_do_not_extend_a_checkpoint() {
    let world = World::with_backup();
    copy_folder(&world.path("repo"), &world.path("before"));
    world.backup("two").good();
    let note = world.run(["checkpoint", "repo"]).good().out;
    assert_eq!(world.json(0, ["checkpoint", "repo"])["checkpoint"], note);
    world.write("kept", &note);
    let report = world.json(0, ["verify", "repo", "--all", "--checkpoint", "kept"]);
    assert_eq!(report["log"]["extends"], true);

    // The backup's folder is deleted: the log still names it.
    copy_folder(&world.path("repo"), &world.path("gone"));
    fs::remove_dir_all(world.path("gone/backups/two")).unwrap();
    assert_eq!(kinds(&world.json(1, ["verify", "gone", "--all"])), ["backup-missing"]);
    // Yesterday's whole repository is put back: sound by itself, and too short for the checkpoint.
    world.run(["verify", "before", "--all", "--no-record"]).good();
    let report = world.json(1, ["verify", "before", "--all", "--checkpoint", "kept"]);
    assert_eq!(
        (kinds(&report), &report["log"]["extends"]),
        (vec!["log-truncated".to_owned()], &false.into())
    );
    // … and another history grows on it.
    for name in ["x", "y"] {
        world.run(["backup", "app.db", "--to", "before", "--name", name]).good();
    }
    assert_eq!(
        kinds(&world.json(1, ["verify", "before", "--all", "--checkpoint", "kept"])),
        ["log-rewritten"]
    );
}

#[test]
fn what_is_no_checkpoint_of_this_repository_is_told() {
    let world = World::with_backup();
    let chain = world.run(["chain", "checkpoint", "app.db", "--format", "aegisagent"]).good().out;
    world.write("chain.checkpoint", chain);
    world.write("text", "hello\n");
    world.write("binary", b"\xff\xfe");
    world.run(["init", "other"]).good();
    world.write("other.checkpoint", world.run(["checkpoint", "other"]).good().out);
    for (file, kind, told) in [
        ("nowhere", ErrorKind::NotFound, "nowhere"),
        ("chain.checkpoint", ErrorKind::Malformed, "chain verify"),
        ("text", ErrorKind::Malformed, "attestore checkpoint REPO"),
        ("binary", ErrorKind::Malformed, "UTF-8"),
        ("other.checkpoint", ErrorKind::Mismatch, "of the log"),
    ] {
        let said = world.fails(kind, ["verify", "repo", "--checkpoint", file]);
        assert!(said.contains(told), "{said}");
    }
}

#[test]
fn an_encrypted_backup_wants_its_identity_and_a_wrong_one_is_no_damage() {
    let world = World::ready();
    let (mine, other) =
        (backup_core::encrypt::Identities::generate(), backup_core::encrypt::Identities::generate());
    let recipient = mine.recipients().unwrap().to_strings().remove(0);
    world.write("mine", mine.to_file_text().as_bytes());
    world.write("other", other.to_file_text().as_bytes());
    let backup = ["backup", "app.db", "--to", "repo", "--chain", "aegisagent", "--encrypt-to"];
    for wrong in ["age1bad", "AGE-SECRET-KEY-1QQQQ", "mine", ""] {
        world.fails(ErrorKind::KeyRejected, backup.iter().copied().chain([wrong]).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(world.path("repo/backups")).unwrap().count(), 0);
    }
    world.run(backup.iter().copied().chain([recipient.as_str()])).good();
    let report = world.json(0, ["verify", "repo"]);
    assert_eq!(report["backups"][0]["level"], "digests");
    world.run(["verify", "repo", "--all"]).good();
    let wanted = world.json(6, ["verify", "repo", "--level", "decoded"]);
    assert_eq!(wanted["verdict"], "cannot-verify");
    assert_eq!(world.json(0, ["verify", "repo", "--identity", "mine"])["backups"][0]["level"], "contents");
    for all in [&["--all"][..], &[]] {
        let report = world.json(6, ["verify", "repo", "--identity", "other"].iter().chain(all));
        assert_eq!(
            (report["verdict"].as_str(), kinds(&report).len()),
            (Some("cannot-verify"), 0),
            "{report:#}"
        );
    }
    for more in [&[][..], &["--identity", "other"]] {
        world.fails(
            ErrorKind::KeyRejected,
            ["restore", "repo", "latest", "--to", "x.db"].iter().chain(more).collect::<Vec<_>>(),
        );
        world.fails(
            ErrorKind::KeyRejected,
            ["drill", "repo", "latest"].iter().chain(more).collect::<Vec<_>>(),
        );
    }
    assert!(!world.path("x.db").exists());
    world.run(["restore", "repo", "latest", "--to", "x.db", "--identity", "mine"]).good();
    world.fails(ErrorKind::NotFound, ["verify", "repo", "--identity", "nowhere"]);
    world.fails(ErrorKind::KeyRejected, ["verify", "repo", "--identity", "backup.key"]);
    flip(
        &world,
        files(&world.path("repo"))
            .into_iter()
            .map(|file| Path::new("repo").join(file))
            .find(|file| file.extension().is_some_and(|ending| ending == "age"))
            .unwrap(),
    );
    assert_eq!(kinds(&world.json(5, ["verify", "repo", "--identity", "other"])), ["object-altered"]);
}

#[test]
fn a_secret_is_compared_and_never_shown() {
    let world = World::ready();
    let secret = "hunter2-and-more";
    world.write("secret", secret);
    world.write("wrong", "another");
    let made = world
        .command([
            "backup",
            "app.db",
            "--to",
            "repo",
            "--secret",
            "KEY=file:secret",
            "--secret",
            "ENV=env:IT_SECRET",
            "--json",
        ])
        .env("IT_SECRET", secret)
        .output()
        .unwrap();
    let all = String::from_utf8(made.stdout).unwrap() + &String::from_utf8(made.stderr).unwrap();
    assert!(all.contains("$argon2id$") && !all.contains(secret), "{all}");
    for file in files(&world.path("repo")) {
        let bytes = world.read(Path::new("repo").join(file));
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()));
    }
    for wrong in [
        &["verify", "repo", "--secret", "KEY=file:wrong"][..],
        &["verify", "repo", "--all", "--secret", "KEY=file:wrong"],
    ] {
        let report = world.json(6, wrong);
        assert!(report["backups"][0]["not_verified"][0].as_str().unwrap().starts_with("KEY: "), "{report}");
    }
    world.fails(
        ErrorKind::KeyRejected,
        ["restore", "repo", "latest", "--to", "x.db", "--secret", "KEY=file:wrong"],
    );
    world.run(["verify", "repo", "--secret", "KEY=file:wrong", "--secret", "KEY=file:secret"]).good();
    for (text, kind) in [
        ("KEY=hunter2-and-more", ErrorKind::InvalidInput),
        ("hunter2-and-more", ErrorKind::InvalidInput),
        ("=hunter2-and-more", ErrorKind::InvalidInput),
        ("KEY=env:IT_NOT_SET", ErrorKind::NotFound),
        ("KEY=file:nowhere", ErrorKind::NotFound),
    ] {
        for arguments in [
            &["backup", "app.db", "--to", "repo", "--secret", text][..],
            &["verify", "repo", "--secret", text],
            &["restore", "repo", "latest", "--to", "x.db", "--secret", text],
            &["chain", "verify", "app.db", "--format", "aegisagent", "--secret", text],
        ] {
            assert!(!world.fails(kind, arguments).contains(secret));
        }
    }
}

#[test]
fn an_export_is_one_file_that_stock_tools_read() {
    let world = World::with_backup();
    let made = world.json(0, ["export", "repo", "one", "--out", "one.tar.gz"]);
    assert_eq!(made["size_bytes"], world.read("one.tar.gz").len());
    let listed =
        std::process::Command::new("tar").arg("-tzf").arg(world.path("one.tar.gz")).output().unwrap();
    assert_eq!(
        String::from_utf8(listed.stdout).unwrap(),
        "one/manifest.json\none/manifest.json.minisig\none/database/app.db.zst\n"
    );
    world.fails(ErrorKind::AlreadyExists, ["export", "repo", "one", "--out", "one.tar.gz"]);
    world.fails(ErrorKind::InvalidInput, ["export", "repo", "one", "--out", "one.zip"]);
    world.fails(ErrorKind::NotFound, ["export", "repo", "one", "--out", "nowhere/one.tar.gz"]);
    world.fails(ErrorKind::InvalidInput, ["export", "repo", "one", "--out", "repo/backups/one/one.tar.gz"]);
    world.run(["verify", "repo", "--all"]).good();
}

/// Any flipped bit of any file that is evidence is noticed, through the command line.
///
/// May be flipped unnoticed: `lock` and `log/lock` (text for people), `log/state.json` (a cache that is rebuilt), and
/// `log/key`, which signs and is checked by the next append.
#[test]
fn any_flipped_bit_of_a_repository_ends_in_failure() {
    let world = World::with_backup();
    world.write("kept", world.run(["checkpoint", "repo"]).good().out);
    let verify =
        ["verify", "repo", "--all", "--public-key", "backup.key.pub", "--checkpoint", "kept", "--no-record"];
    world.run(verify).good();
    let harmless = ["lock", "state.json", "key"];
    let mut all: Vec<_> =
        files(&world.path("repo")).into_iter().map(|file| Path::new("repo").join(file)).collect();
    all.retain(|file| !harmless.contains(&file.file_name().unwrap().to_str().unwrap()));
    all.extend([Path::new("kept").to_owned(), Path::new("backup.key.pub").to_owned()]);
    let long = std::env::var_os("ATTESTORE_LONG").is_some();
    for file in &all {
        let bytes = world.read(file);
        // A public key file's comment and key id are for people: only the key itself decides.
        let from = if file.ends_with("backup.key.pub") { (bytes.len() - 40) * 8 } else { 0 };
        let to = match file.file_name().unwrap().to_str().unwrap() {
            "backup.key.pub" => (bytes.len() - 4) * 8,
            // Signatures of others below the log's own (an operator's, a witness's) are no part of what it says.
            "kept" => (bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1) * 8,
            _ => bytes.len() * 8,
        };
        let step = if long { 1 } else { (to - from) / 12 + 1 };
        for bit in (from..to).step_by(step) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            world.write(file, flipped);
            let run = world.run(verify);
            assert_ne!(run.status, 0, "{}: bit {bit}\n{}", file.display(), run.out);
        }
        world.write(file, bytes);
    }
    world.run(verify).good();
}
