//! `keygen` and `init`.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::{ErrorKind, World, files};

fn mode(world: &World, name: &str) -> u32 {
    world.path(name).metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_key_is_private_and_its_public_half_lies_beside_it() {
    let world = World::new();
    let made = world.json(0, ["keygen", "--out", "k"]);
    assert_eq!((&made["secret_key"], &made["public_key_file"]), (&"k".into(), &"k.pub".into()));
    let public = made["public_key"].as_str().unwrap();
    assert!(public.starts_with("RW") && public.len() == 56, "{public}");
    assert_eq!(made["public_key_hex"].as_str().unwrap().len(), 64);
    assert_eq!((mode(&world, "k"), mode(&world, "k.pub")), (0o600, 0o644));
    assert!(String::from_utf8(world.read("k.pub")).unwrap().contains(public));
    let text = world.run(["keygen", "--out", "other"]).good().out;
    assert!(text.starts_with("RW") && text.contains("other.pub"), "{text}");
    let secret = String::from_utf8(world.read("other")).unwrap();
    assert!(!text.contains(secret.lines().nth(1).unwrap()));
}

#[test]
fn a_key_is_never_overwritten() {
    let world = World::new();
    world.run(["keygen", "--out", "k"]).good();
    let before = world.read("k");
    let said = world.fails(ErrorKind::AlreadyExists, ["keygen", "--out", "k"]);
    assert!(said.contains("k exists") && said.contains("HINT"), "{said}");
    assert_eq!(world.read("k"), before);
    std::fs::remove_file(world.path("k")).unwrap();
    world.fails(ErrorKind::AlreadyExists, ["keygen", "--out", "k"]);
    assert_eq!(files(world.root()).len(), 1, "only k.pub is there");
    world.fails(ErrorKind::NotFound, ["keygen", "--out", "nowhere/k"]);
}

#[test]
fn a_repository_is_made_where_nothing_is() {
    let world = World::new();
    let made = world.json(0, ["init", "a/b/repo"]);
    assert_eq!(made["path"], "a/b/repo");
    assert_eq!(made["id"].as_str().unwrap().len(), 32);
    std::fs::create_dir(world.path("empty")).unwrap();
    assert!(world.run(["init", "empty"]).good().out.ends_with(" in empty\n"));
    assert_eq!(mode(&world, "a/b/repo/log/key"), 0o600);

    let said = world.fails(ErrorKind::AlreadyExists, ["init", "empty"]);
    assert!(said.contains("empty is a repository already"), "{said}");
    std::fs::create_dir(world.path("full")).unwrap();
    world.write("full/precious", "x");
    let said = world.fails(ErrorKind::AlreadyExists, ["init", "full"]);
    assert!(said.contains("full is not empty"), "{said}");
    assert_eq!(files(&world.path("full")).len(), 1);
    world.write("file", "x");
    let said = world.fails(ErrorKind::AlreadyExists, ["init", "file"]);
    assert!(said.contains("file is a file"), "{said}");
    assert_eq!(world.read("file"), b"x");
    world.fails(ErrorKind::Unsupported, ["init", "s3://bucket/prefix"]);
}

#[test]
fn what_looks_like_a_url_is_no_folder_and_its_password_is_not_repeated() {
    let world = World::new();
    for url in ["mysql://user:hunter2@host/db", "sftp://user:hunter2@host/x", "s3://key:hunter2@bucket/x"] {
        for arguments in
            [&["init", url][..], &["list", url], &["backup", "x.db", "--to", url], &["verify", url]]
        {
            let said = world.fails(ErrorKind::Unsupported, arguments);
            assert!(!said.contains("hunter2"), "{said}");
        }
        let said = world.fails(ErrorKind::Unsupported, ["chain", "verify", url, "--format", "native"]);
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert!(files(world.root()).is_empty());
}
