//! Arguments, help, completions, `doctor`, and what happens when the output cannot be written.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStringExt as _;
use std::process::Stdio;

use crate::support::{ErrorKind, Run, World, attestore};

const VERBS: [&[&str]; 24] = [
    &["keygen"],
    &["init"],
    &["backup"],
    &["list"],
    &["show"],
    &["verify"],
    &["restore"],
    &["drill"],
    &["prune"],
    &["hold"],
    &["export"],
    &["checkpoint"],
    &["chain"],
    &["chain", "verify"],
    &["chain", "checkpoint"],
    &["chain", "prove"],
    &["chain", "check-proof"],
    &["chain", "registry"],
    &["set-aside"],
    &["status"],
    &["gaps"],
    &["runbook"],
    &["doctor"],
    &["completions"],
];

fn run(arguments: &[&str]) -> Run {
    attestore(arguments).output().unwrap().into()
}

#[test]
fn every_verb_has_help_with_an_example() {
    for verb in VERBS {
        let help = run(&[verb, &["--help"]].concat()).good().out;
        assert!(help.contains("Usage: attestore"), "{verb:?}: {help}");
        assert!(verb == ["chain"] || help.contains("\nExample:\n  attestore "), "{verb:?}: {help}");
        assert!(help.lines().all(|line| line.chars().count() <= 132), "{verb:?}: {help}");
    }
    let help = run(&["--help"]).good().out;
    for verb in VERBS {
        assert!(help.contains(&format!("\n  {} ", verb[0])), "{verb:?} is in the list: {help}");
    }
    for status in ["0 done", "1 ", "2 ", "3 ", "4 ", "5 ", "6 ", "7 ", "130 ", "70 "] {
        assert!(help.contains(status), "{status}: {help}");
    }
    assert!(run(&["--version"]).good().out.starts_with("attestore 0."));
}

#[test]
fn wrong_use_is_told_the_same_in_text_and_json() {
    let world = World::new();
    for (arguments, told) in [
        (vec![], "no verb"),
        (vec!["frobnicate"], "frobnicate"),
        (vec!["bakcup"], "backup"),
        (vec!["backup"], "--to <REPO>"),
        (vec!["backup"], "<SOURCE>"),
        (vec!["backup", "a.db", "--to"], "--to <REPO>"),
        (vec!["verify", "repo", "x", "--all"], "--all"),
        (vec!["list", "repo", "--frobnicate"], "--frobnicate"),
        (vec!["backup", "a.db", "--to", "r", "--keep-last", "many"], "many"),
        (vec!["backup", "a.db", "--to", "r", "--keep-last", "-1"], "-1"),
        (vec!["verify", "repo", "--level", "deep"], "present, digests, decoded, contents"),
        (vec!["chain"], "no verb"),
        (vec!["chain", "verify", "a.db"], "--format <FORMAT>"),
        (
            vec!["chain", "verify", "a.db", "--format", "native", "--checkpoint-key", "k"],
            "--checkpoint <FILE>",
        ),
        (vec!["set-aside", "a.db", "--remove", "--archive", "x"], "--archive"),
        (vec!["completions", "csh"], "csh"),
        (vec!["keygen"], "--out <FILE>"),
    ] {
        let said = world.fails(ErrorKind::InvalidInput, arguments.clone());
        assert!(said.contains(told), "{arguments:?}: {said}");
    }
}

#[test]
fn arguments_that_are_not_utf8_are_refused_and_file_names_that_are_not_work() {
    let world = World::ready();
    let odd = |text: &[u8]| OsString::from_vec(text.to_vec());
    world.fails(ErrorKind::InvalidInput, [odd(b"backup"), odd(b"\xff.db"), odd(b"--to"), odd(b"repo")]);
    world.fails(ErrorKind::InvalidInput, [odd(b"\xff")]);
    world.backup("one").good();
    let made = world.json(0, [odd(b"keygen"), odd(b"--out"), odd(b"\xff.key")]);
    assert_eq!(made["secret_key"], "\u{fffd}.key");
    assert!(world.path(odd(b"\xff.key.pub")).exists());
    let made = world.json(0, [odd(b"export"), odd(b"repo"), odd(b"one"), odd(b"--out"), odd(b"\xff.tar.gz")]);
    assert_eq!(made["path"], "\u{fffd}.tar.gz");
    assert_eq!(made["size_bytes"], world.path(odd(b"\xff.tar.gz")).metadata().unwrap().len());
    world.json(0, [odd(b"set-aside"), odd(b"\xff.db")]);
    assert!(run(&["list", "repo"]).status != 0);
    let run = world.run([
        odd(b"chain"),
        odd(b"verify"),
        odd(b"app.db"),
        odd(b"--format"),
        odd(b"aegisagent"),
        odd(b"--checkpoint"),
        odd(b"\xff"),
    ]);
    run.ends(4);
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).good().out;
        assert!(script.contains("set-aside") && script.contains("keep-monthly"), "{shell}");
    }
}

#[test]
fn doctor_says_what_is_there_and_what_is_missing() {
    let world = World::new();
    let document = world.json(0, ["doctor"]);
    assert_eq!((&document["ok"], &document["findings"][0]["ok"]), (&true.into(), &true.into()), "{document}");
    let found: Run = attestore(["doctor", "--json"]).env("PATH", "").output().unwrap().into();
    let found = found.good().json();
    let age = found["findings"].as_array().unwrap().iter().find(|finding| finding["name"] == "age").unwrap();
    assert_eq!((&age["ok"], &age["install"]), (&false.into(), &"apt-get install age".into()));
    let text: Run = attestore(["doctor"]).env_remove("PATH").output().unwrap().into();
    assert!(text.good().out.contains("apt-get install age"));
}

#[test]
fn a_reader_that_goes_away_early_is_no_failure() {
    let world = World::with_backup();
    for arguments in [
        &["--help"][..],
        &["backup", "--help"],
        &["completions", "bash"],
        &["list", "repo"],
        &["show", "repo", "--json"],
        &["chain", "verify", "app.db", "--format", "aegisagent"],
        &["checkpoint", "repo"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let run: Run = world.command(arguments).stdout(writer).output().unwrap().into();
        run.good();
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = world.command(["list", "nowhere"]).stdout(Stdio::null()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(4));
}

#[test]
fn an_output_that_cannot_be_written_is_a_failure() {
    let world = World::with_backup();
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    if File::open("/dev/full").is_err() {
        return crate::support::left_out(
            "an_output_that_cannot_be_written_is_a_failure",
            "there is no /dev/full",
        );
    }
    for arguments in [
        &["--help"][..],
        &["completions", "zsh"],
        &["list", "repo"],
        &["show", "repo", "--json"],
        &["checkpoint", "repo"],
    ] {
        let run: Run = world.command(arguments).stdout(full()).output().unwrap().into();
        run.ends(7);
    }
}

#[test]
fn help_and_json_may_stand_anywhere() {
    let world = World::with_backup();
    let one: serde_json::Value =
        serde_json::from_str(&world.run(["--json", "list", "repo"]).good().out).unwrap();
    let two = world.json(0, ["list", "repo"]);
    assert_eq!(one, two);
    world.run(["-q", "verify", "repo"]).good();
}
