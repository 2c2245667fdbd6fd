//! The repository's own log: what it notices, how it grows, what it costs to read.

use std::io::Cursor;

use audit_chain::formats;
use audit_chain::json_rows::NdjsonSource;
use audit_chain::keys::KeyRing;
use audit_chain::note::{Note, NoteVerifier};
use audit_chain::tlog::LogCheckpoint;
use audit_chain::verify::{VerifyOptions as ChainOptions, verify};
use backup_core::context::Context;
use backup_core::error::ErrorKind;
use backup_core::repository::{
    BUNDLE, BackupRequest, DrillEvent, Event, Level, PruneEvent, PrunedBackup, Repository,
    RepositoryFindingKind as Kind, RepositoryOptions, VerifyOptions, VerifyReport, Which,
};

use super::{assert_whole, back_up, ids, init, key, open, request, verify_all};
use crate::memory::Memory;

fn against(repository: &Repository, checkpoint: &str) -> VerifyReport {
    let options = VerifyOptions { checkpoint: Some(checkpoint.to_owned()), ..VerifyOptions::default() };
    repository.verify(Which::All, &options, &Context::new()).unwrap()
}

fn kinds(report: &VerifyReport) -> Vec<&'static str> {
    report.findings.iter().map(|finding| finding.kind.name()).collect()
}

fn drill(backup: &str) -> Event {
    let event = DrillEvent { backup: backup.into(), ok: true, report_sha256: None, details: [].into() };
    Event::Drill(event)
}

/// Copies a folder as `cp -r` does.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn the_log_is_a_native_chain_and_its_checkpoint_a_signed_note() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    for name in ["one", "two", "three"] {
        back_up(&repository, name).unwrap();
    }
    let text = repository.log_checkpoint().unwrap();
    let note = Note::parse(&text).unwrap();
    note.verify(&[NoteVerifier::parse(&repository.header().log_key).unwrap()]).unwrap();
    let checkpoint = LogCheckpoint::parse(note.text()).unwrap();
    assert_eq!((checkpoint.size(), checkpoint.origin()), (4, repository.header().log_origin.as_str()));

    let bundle = std::fs::read(repository.layout().log_bundle(0)).unwrap();
    let source = NdjsonSource::once("log", Cursor::new(bundle)).unwrap();
    let format = formats::by_name("native").unwrap();
    let report = verify(&source, &*format, &KeyRing::new(), &ChainOptions::default()).unwrap();
    assert!(report.ok, "{report:#?}");
    let chain = &report.chains[0];
    assert_eq!((chain.id.as_str(), chain.records), (checkpoint.origin(), 4));
    let root = LogCheckpoint::new("x", 4, *checkpoint.root()).unwrap().to_string();
    assert_eq!(root.lines().nth(2).unwrap(), chain.root, "the trees are one");
}

#[test]
fn the_operators_key_signs_the_checkpoint_beside_the_logs_own() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let (mine, source) = (key(1), Memory::small());
    let signed = BackupRequest { signing_key: Some(&mine), ..request(&source, Some("one")) };
    repository.backup(&signed, &Context::new()).unwrap();
    let note = Note::parse(&repository.log_checkpoint().unwrap()).unwrap();
    assert_eq!(note.signatures().len(), 2);
    let options = VerifyOptions { public_keys: vec![mine.public_key()], ..VerifyOptions::default() };
    let report = repository.verify(Which::All, &options, &Context::new()).unwrap();
    assert_eq!(report.log.cosigned_by, Some(mine.public_key().to_minisign()));
    repository.record(drill("one"), None, &Context::new()).unwrap();
    let report = repository.verify(Which::All, &options, &Context::new()).unwrap();
    assert_eq!((report.ok, report.log.cosigned_by), (true, None));
}

#[test]
fn pitfall_24_a_deleted_backup_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    for name in ["one", "two", "three"] {
        back_up(&repository, name).unwrap();
    }
    std::fs::remove_dir_all(repository.layout().backup("two")).unwrap();
    let report = verify_all(&repository);
    assert_eq!(kinds(&report), ["backup-missing"]);
    assert_eq!((report.findings[0].backup.as_deref(), report.findings[0].entry), (Some("two"), Some(2)));
    assert_eq!(repository.list().unwrap().findings, report.findings);
    assert_eq!(ids(&repository), ["one", "three"]);
    // The newest one is not silently replaced by the one before it.
    std::fs::remove_dir_all(repository.layout().backup("three")).unwrap();
    assert_eq!(repository.show("latest").unwrap_err().kind(), ErrorKind::NotFound);
    repository.show("one").unwrap();
}

#[test]
fn pitfall_24_a_rolled_back_backup_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(&dir.path().join("repo"));
    back_up(&repository, "one").unwrap();
    copy(&repository.layout().backup("one"), &dir.path().join("old"));
    // The same name again, after a prune on record; then the old bytes are put back.
    let source = Memory::new("app", &[("database/app.db", b"newer content")]);
    back_up(&repository, "two").unwrap();
    let options = backup_core::repository::PruneOptions {
        policy: backup_core::repository::RetentionPolicy::last(1),
        ..Default::default()
    };
    let plan = repository.prune_plan(&options, &Context::new()).unwrap();
    repository.prune_apply(&plan, &options, None, &Context::new()).unwrap();
    repository.backup(&request(&source, Some("one")), &Context::new()).unwrap();
    assert_whole(&repository);
    std::fs::remove_dir_all(repository.layout().backup("one")).unwrap();
    copy(&dir.path().join("old"), &repository.layout().backup("one"));
    let report = verify_all(&repository);
    assert_eq!(kinds(&report), ["manifest-altered"]);
    let error = repository.objects("one", &Default::default(), &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tampered);
}

#[test]
fn pitfall_24_a_repository_that_was_rolled_back_as_a_whole_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    let repository = init(&path);
    back_up(&repository, "one").unwrap();
    copy(&path, &dir.path().join("old"));
    back_up(&repository, "two").unwrap();
    let kept = repository.log_checkpoint().unwrap();
    let report = against(&repository, &kept);
    assert_eq!((report.ok, report.log.extends), (true, Some(true)));
    std::fs::remove_dir_all(&path).unwrap();
    copy(&dir.path().join("old"), &path);
    let repository = open(&path);
    assert_whole(&repository);
    let report = against(&repository, &kept);
    assert_eq!((kinds(&report), report.log.extends), (vec!["log-truncated"], Some(false)));
    // What grows from the old copy is another history.
    back_up(&repository, "three").unwrap();
    back_up(&repository, "four").unwrap();
    assert_whole(&repository);
    let report = against(&repository, &kept);
    assert_eq!(kinds(&report), ["log-rewritten"]);
}

#[test]
fn a_rewritten_log_is_noticed_by_the_manifests_too() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(&dir.path().join("repo"));
    back_up(&repository, "one").unwrap();
    back_up(&repository, "two").unwrap();
    // The attacker holds the log's key: a new log with the same backups, in which nothing looks wrong.
    let other = init(&dir.path().join("other"));
    back_up(&other, "one").unwrap();
    back_up(&other, "two").unwrap();
    for file in ["repository.json", "log/key", "log/checkpoint", "log/entries/00000000.ndjson"] {
        std::fs::copy(other.path().join(file), repository.path().join(file)).unwrap();
    }
    let report = verify_all(&open(repository.path()));
    assert!(!report.ok);
    assert!(report.has(Kind::ManifestAltered), "{:?}", report.findings);
}

#[test]
fn a_backup_that_is_not_in_the_log_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "one").unwrap();
    copy(&repository.layout().backup("one"), &repository.layout().backup("planted"));
    let report = verify_all(&repository);
    assert_eq!(kinds(&report), ["backup-unlogged"]);
    assert_eq!(ids(&repository), ["one"]);
    assert_eq!(repository.show("planted").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(back_up(&repository, "planted").unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[test]
fn a_pruned_backup_that_is_there_again_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(&dir.path().join("repo"));
    back_up(&repository, "one").unwrap();
    copy(&repository.layout().backup("one"), &dir.path().join("kept"));
    let source = Memory::small();
    let retention = Some(backup_core::repository::RetentionPolicy::last(1));
    repository
        .backup(&BackupRequest { retention, ..request(&source, Some("two")) }, &Context::new())
        .unwrap();
    assert_eq!(ids(&repository), ["two"]);
    assert_whole(&repository);
    copy(&dir.path().join("kept"), &repository.layout().backup("one"));
    let report = verify_all(&repository);
    assert_eq!(kinds(&report), ["backup-readded"]);
    assert_eq!(ids(&repository), ["two"]);
}

#[test]
fn an_edited_a_removed_and_an_added_entry_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    for name in ["one", "two", "three"] {
        back_up(&repository, name).unwrap();
    }
    let bundle = repository.layout().log_bundle(0);
    let text = std::fs::read_to_string(&bundle).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let written = |lines: &[&str]| std::fs::write(&bundle, lines.join("\n") + "\n").unwrap();
    let edited = lines[2].replace("two", "owt");

    written(&[lines[0], lines[1], &edited, lines[3]]);
    let report = verify_all(&repository);
    assert_eq!(report.findings[0].kind, Kind::LogEdited);
    assert_eq!(report.findings[0].entry, Some(2));
    assert!(report.has(Kind::LogCheckpointMismatch));
    assert_eq!(report.findings.iter().filter(|finding| finding.kind == Kind::LogEdited).count(), 1);
    // Nothing is built on an altered log.
    assert_eq!(back_up(&repository, "four").unwrap_err().kind(), ErrorKind::Tampered);
    assert_eq!(
        repository.record(drill("one"), None, &Context::new()).unwrap_err().kind(),
        ErrorKind::Tampered
    );
    // What is not touched can still be listed and read.
    assert_eq!(ids(&repository), ["one", "three"]);
    repository.objects("one", &Default::default(), &Context::new()).unwrap();

    written(&[lines[0], lines[1], lines[3]]);
    assert!(verify_all(&repository).has(Kind::LogTruncated));
    written(&lines[..3]);
    assert!(verify_all(&repository).has(Kind::LogTruncated));
    written(&[lines[0], lines[2], lines[1], lines[3]]);
    assert!(verify_all(&repository).has(Kind::LogEdited));
    written(&[lines[0], lines[1], lines[2], lines[3], lines[3]]);
    assert!(verify_all(&repository).has(Kind::LogEdited));
    written(&lines);
    assert_whole(&repository);
}

#[test]
fn entries_without_a_checkpoint_are_tolerated_once() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "one").unwrap();
    let checkpoint = std::fs::read(repository.layout().log_checkpoint()).unwrap();
    repository.record(drill("one"), None, &Context::new()).unwrap();
    // As a process that died between the record and its checkpoint leaves it.
    std::fs::write(repository.layout().log_checkpoint(), &checkpoint).unwrap();
    let report = verify_all(&repository);
    assert!(report.ok && report.notes.len() == 1, "{report:#?}");
    repository.record(drill("one"), None, &Context::new()).unwrap();
    let report = verify_all(&repository);
    assert!(report.ok && report.notes.is_empty());
    assert_eq!(report.log.position.size, 5, "init, backup, drill, recover, drill");
    // Two are not what a process can leave.
    std::fs::write(repository.layout().log_checkpoint(), &checkpoint).unwrap();
    assert!(verify_all(&repository).has(Kind::LogAhead));
    assert_eq!(back_up(&repository, "two").unwrap_err().kind(), ErrorKind::Tampered);
}

#[test]
fn a_checkpoint_of_another_repository_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (init(&dir.path().join("one")), init(&dir.path().join("other")));
    let options =
        VerifyOptions { checkpoint: Some(other.log_checkpoint().unwrap()), ..VerifyOptions::default() };
    let error = one.verify(Which::Log, &options, &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    for text in ["", "hello", "a\n1\nAAAA\n"] {
        let options = VerifyOptions { checkpoint: Some(text.into()), ..VerifyOptions::default() };
        let error = one.verify(Which::Log, &options, &Context::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{text:?}");
    }
    // One that says the right origin and was signed by somebody else proves nothing.
    let mine = one.log_checkpoint().unwrap();
    let mut forged = Note::new(Note::parse(&mine).unwrap().text()).unwrap();
    forged.sign(&audit_chain::note::NoteSigner::new(&one.header().log_origin, &[9; 32]).unwrap());
    let report = against(&one, &forged.to_string());
    assert_eq!(kinds(&report), ["log-rewritten"]);
}

#[test]
fn a_missing_or_wrong_cache_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "one").unwrap();
    for content in [None, Some("not JSON"), Some(r#"{"size":256,"nodes":["AAAA"],"hash":"00"}"#)] {
        match content {
            None => std::fs::remove_file(repository.layout().log_state()).unwrap(),
            Some(content) => std::fs::write(repository.layout().log_state(), content).unwrap(),
        }
        repository.record(drill("one"), None, &Context::new()).unwrap();
        assert_whole(&repository);
    }
}

#[test]
fn the_log_grows_over_several_bundles() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "one").unwrap();
    let mut checkpoints = Vec::new();
    for number in 0..2 * BUNDLE + 3 {
        repository.record(drill("one"), None, &Context::new()).unwrap();
        if number % 100 == 0 {
            checkpoints.push(repository.log_checkpoint().unwrap());
        }
        if number == BUNDLE + 40 {
            // The cache is lost in the middle of the second bundle.
            std::fs::remove_file(repository.layout().log_state()).unwrap();
        }
    }
    assert_whole(&repository);
    for checkpoint in &checkpoints {
        assert!(against(&repository, checkpoint).ok);
    }
    let bundles = std::fs::read_dir(repository.layout().log_entries()).unwrap().count();
    assert_eq!(bundles, 3);
    let lines = std::fs::read_to_string(repository.layout().log_bundle(1)).unwrap().lines().count();
    assert_eq!(lines as u64, BUNDLE);
    // A bundle that is gone is noticed, from the front, the middle and the end.
    for number in 0..3 {
        let path = repository.layout().log_bundle(number);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!verify_all(&repository).ok, "{number}");
        std::fs::write(&path, bytes).unwrap();
    }
    assert_whole(&repository);
}

#[test]
fn only_entries_about_what_was_done_with_a_backup_may_be_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "one").unwrap();
    let manifest_sha256 = repository.show("one").unwrap().summary.manifest_sha256;
    let backups = vec![PrunedBackup { id: "one".into(), manifest_sha256 }];
    let prune = Event::Prune(PruneEvent { policy: "mine".into(), backups });
    let error = repository.record(prune, None, &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);

    let report = verify_all(&repository);
    repository.record(report.to_event(), None, &Context::new()).unwrap();
    assert_eq!(repository.list().unwrap().backups[0].verified, Some(Level::Decoded));
}

#[test]
fn repository_json_cannot_be_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let path = repository.layout().header();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"created_at\":\"2", "\"created_at\":\"1")).unwrap();
    assert!(verify_all(&open(dir.path())).has(Kind::HeaderAltered));
}

#[test]
fn readers_see_a_whole_log_while_it_grows() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "one").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mine = Repository::open(dir.path(), &RepositoryOptions::default()).unwrap();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let report = mine.verify(Which::Log, &VerifyOptions::default(), &Context::new()).unwrap();
                    assert!(report.ok, "{:#?}", report.findings);
                }
            });
        }
        // Two writers take turns; neither loses an entry.
        let writers = [(); 2].map(|()| {
            scope.spawn(|| {
                for _ in 0..BUNDLE / 2 + 10 {
                    repository.record(drill("one"), None, &Context::new()).unwrap();
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(repository.state().unwrap().size(), BUNDLE + 22);
}
