//! Making, listing, showing and reading backups.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use backup_core::context::{Cancel, Context};
use backup_core::encrypt::Identities;
use backup_core::error::ErrorKind;
use backup_core::manifest::Encryption;
use backup_core::repository::{
    BackupRequest, LATEST, Level, ReadOptions, Repository, RepositoryOptions, SourceRequest, VerifyOptions,
    Which,
};
use backup_core::traits::BackupObjects as _;

use super::{assert_whole, back_up, ids, init, key, open, request, verify_all};
use crate::memory::Memory;

#[test]
fn a_backup_reads_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(&dir.path().join("repo"));
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
    let source = Memory::new("app", &[("database/app.db", &large), ("files/a/b.tar", b"")]);
    let outcome = repository.backup(&request(&source, None), &Context::new()).unwrap();
    assert_eq!(outcome.path, repository.path().join("backups").join(&outcome.id));
    assert!(outcome.id.starts_with("20") && outcome.id.ends_with('Z'), "{}", outcome.id);
    assert_eq!(outcome.manifest.not_included, ["what is not in memory"]);
    assert!(outcome.size_bytes > 0 && outcome.size_bytes < large.len() as u64);

    let again = open(repository.path());
    let stored = again.objects(LATEST, &ReadOptions::default(), &Context::new()).unwrap();
    for name in ["database/app.db", "database/app.db.zst"] {
        let mut bytes = Vec::new();
        stored.open(name).unwrap().read_to_end(&mut bytes).unwrap();
        assert!(bytes == large, "{name}");
    }
    assert_eq!(stored.open("database/none").err().unwrap().kind(), ErrorKind::NotFound);
    let reports = assert_whole(&again);
    assert_eq!((reports[0].level, reports[0].objects), (Level::Decoded, 2));
    let left = std::fs::read_dir(repository.layout().staging()).unwrap().count();
    assert_eq!(left, 0, "nothing is left in staging");
}

#[test]
fn list_and_show_say_what_was_made_in_the_order_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    for name in ["zulu", "alpha", "mike"] {
        back_up(&repository, name).unwrap();
    }
    assert_eq!(ids(&repository), ["zulu", "alpha", "mike"]);
    let listing = repository.list().unwrap();
    assert_eq!(listing.findings, []);
    assert_eq!(listing.backups[0].sources, ["memory:app"]);
    let shown = repository.show(LATEST).unwrap();
    assert_eq!((shown.summary.id.as_str(), shown.manifest.id.as_str()), ("mike", "mike"));
    assert_eq!(shown.manifest.previous.unwrap().id, "alpha");
    assert_eq!(repository.show("none").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(repository.show("../zulu").unwrap_err().kind(), ErrorKind::InvalidName);
}

#[test]
fn an_empty_repository_has_no_latest_backup() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    assert_eq!(repository.show(LATEST).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(ids(&repository), [""; 0]);
    assert_whole(&repository);
}

#[test]
fn a_name_that_is_taken_or_bad_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "one").unwrap();
    assert_eq!(back_up(&repository, "one").unwrap_err().kind(), ErrorKind::AlreadyExists);
    for name in ["../x", "", "a/b", "latest", "snap.db-wal", "nul\0byte"] {
        assert_eq!(back_up(&repository, name).unwrap_err().kind(), ErrorKind::InvalidName, "{name:?}");
    }
    assert_eq!(ids(&repository), ["one"]);
}

#[test]
fn backups_in_the_same_second_get_ids_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let now = Some("2026-11-20T15:30:00Z".parse().unwrap());
    for _ in 0..3 {
        let source = Memory::small();
        let request = BackupRequest { now, ..request(&source, None) };
        repository.backup(&request, &Context::new()).unwrap();
    }
    assert_eq!(ids(&repository), ["20261120T153000Z", "20261120T153000Z-1", "20261120T153000Z-2"]);
}

#[test]
fn init_refuses_what_is_not_empty_and_makes_missing_folders() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/repo");
    let repository = init(&path);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let again = Repository::init(&path, &RepositoryOptions::default()).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    let parent = Repository::init(dir.path(), &RepositoryOptions::default()).unwrap_err();
    assert_eq!(parent.kind(), ErrorKind::AlreadyExists);
    std::fs::write(dir.path().join("file"), b"").unwrap();
    assert!(Repository::init(dir.path().join("file"), &RepositoryOptions::default()).is_err());
    assert_whole(&repository);
}

#[test]
fn what_is_no_repository_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("none")] {
        let error = Repository::open(&path, &RepositoryOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.hint().unwrap().contains("attestore init"));
    }
}

#[test]
fn a_repository_from_a_newer_version_is_refused_as_newer() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let path = repository.layout().header();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"format_version\":1", "\"format_version\":2,\"x\":[]")).unwrap();
    let error = Repository::open(dir.path(), &RepositoryOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Newer);
}

#[test]
fn a_source_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "good").unwrap();
    let mut source = Memory::new("app", &[("database/a", b"a"), ("database/b", b"b")]);
    let calls = std::sync::atomic::AtomicUsize::new(0);
    source.between =
        Some(Box::new(move |_| match calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(backup_core::error::Error::new(ErrorKind::Unavailable, "the server went away")),
        }));
    let error = repository.backup(&request(&source, Some("bad")), &Context::new()).unwrap_err();
    assert_eq!(error.to_string(), "the server went away");
    assert_eq!(ids(&repository), ["good"]);
    assert_eq!(std::fs::read_dir(repository.layout().staging()).unwrap().count(), 0);
    assert_whole(&repository);
}

#[test]
fn cancelling_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let cancel = Cancel::new();
    let flag = cancel.clone();
    let mut source = Memory::new("app", &[("database/a", b"a"), ("database/b", b"b")]);
    source.between = Some(Box::new(move |_| {
        flag.cancel();
        Ok(())
    }));
    let ctx = Context::new().with_cancel(cancel);
    let error = repository.backup(&request(&source, None), &ctx).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(ids(&repository), [""; 0]);
    assert_eq!(std::fs::read_dir(repository.layout().staging()).unwrap().count(), 0);
}

#[test]
fn preflight_fails_before_a_byte_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let log = std::fs::read(repository.layout().log_bundle(0)).unwrap();
    let good = Memory::new("good", &[("database/good", b"g")]);
    let bad = Memory { preflight_error: Some("no such database".into()), ..Memory::new("bad", &[]) };
    let mut both = request(&good, None);
    both.sources.push(SourceRequest { snapshot: &bad, chains: Vec::new() });
    let error = repository.backup(&both, &Context::new()).unwrap_err();
    assert_eq!(error.to_string(), "no such database");
    assert_eq!(std::fs::read_dir(repository.layout().staging()).unwrap().count(), 0);
    assert_eq!(std::fs::read(repository.layout().log_bundle(0)).unwrap(), log);
}

#[test]
fn a_request_that_cannot_be_meant_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let source = Memory::small();
    let none = BackupRequest::default();
    assert_eq!(repository.backup(&none, &Context::new()).unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut twice = request(&source, None);
    twice.sources.push(SourceRequest { snapshot: &source, chains: Vec::new() });
    assert_eq!(repository.backup(&twice, &Context::new()).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn pitfall_18_a_source_that_writes_nothing_is_no_backup() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "good").unwrap();
    let empty = Memory::new("app", &[]);
    let request = BackupRequest {
        retention: Some(backup_core::repository::RetentionPolicy::last(1)),
        ..request(&empty, Some("empty"))
    };
    repository.backup(&request, &Context::new()).unwrap_err();
    assert_eq!(ids(&repository), ["good"], "and retention removed nothing");
}

#[test]
fn pitfall_23_an_encrypted_backup_holds_no_plain_byte() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let secret = b"a secret that compression would leave readable: 0123456789abcdef".repeat(3);
    let source = Memory::new("app", &[("database/app.db", &secret), ("chain/t.ndjson", b"{}\n")]);
    let identities = Identities::generate();
    let request =
        BackupRequest { recipients: Some(identities.recipients().unwrap()), ..request(&source, None) };
    let outcome = repository.backup(&request, &Context::new()).unwrap();
    assert_eq!(outcome.manifest.encrypted_to, identities.recipients().unwrap().to_strings());
    for object in &outcome.manifest.objects {
        assert_eq!(object.encryption, Encryption::Age);
        let stored = std::fs::read(outcome.path.join(&object.name)).unwrap();
        assert!(stored.starts_with(b"age-encryption.org/v1\n"), "{}", object.name);
        assert!(!stored.windows(16).any(|window| secret.windows(16).any(|plain| plain == window)));
    }
    // Without an identity only the stored bytes can be verified, and that is said.
    let reports = assert_whole(&repository);
    assert_eq!(reports[0].level, Level::Digests);
    assert_eq!(reports[0].not_verified.len(), 2);
    let asked = VerifyOptions { level: Some(Level::Decoded), ..VerifyOptions::default() };
    let report = repository.verify(Which::All, &asked, &Context::new()).unwrap();
    assert_eq!((report.ok, report.verdict), (false, audit_chain::report::Verdict::CannotVerify));
    let with = VerifyOptions { identities: identities.clone(), ..VerifyOptions::default() };
    let report = repository.verify(Which::All, &with, &Context::new()).unwrap();
    assert_eq!((report.ok, report.backups[0].level), (true, Level::Decoded));

    let read = |identities| ReadOptions { identities, ..ReadOptions::default() };
    let closed = repository.objects(LATEST, &read(Identities::none()), &Context::new()).unwrap();
    assert_eq!(closed.open("database/app.db").err().unwrap().kind(), ErrorKind::KeyRejected);
    let opened = repository.objects(LATEST, &read(identities), &Context::new()).unwrap();
    let mut bytes = Vec::new();
    opened.open("database/app.db").unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, secret);
}

#[test]
fn a_signature_is_asked_for_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let source = Memory::small();
    let (mine, other) = (key(1), key(2));
    back_up(&repository, "unsigned").unwrap();
    let signed = BackupRequest { signing_key: Some(&mine), ..request(&source, Some("signed")) };
    let outcome = repository.backup(&signed, &Context::new()).unwrap();
    assert_eq!(outcome.manifest.signed_by, Some(mine.public_key().to_minisign()));

    let read = |key: &backup_core::signing::SigningKey, id| {
        let options = ReadOptions { public_keys: vec![key.public_key()], ..ReadOptions::default() };
        repository.objects(id, &options, &Context::new())
    };
    assert_eq!(read(&mine, "signed").unwrap().signed_by().unwrap(), &mine.public_key());
    assert_eq!(read(&other, "signed").unwrap_err().kind(), ErrorKind::KeyRejected);
    assert_eq!(read(&mine, "unsigned").unwrap_err().kind(), ErrorKind::Unsigned);

    let options = VerifyOptions { public_keys: vec![mine.public_key()], ..VerifyOptions::default() };
    let report = repository.verify(Which::All, &options, &Context::new()).unwrap();
    let kinds: BTreeSet<_> = report.findings.iter().map(|finding| finding.kind.name()).collect();
    assert_eq!(kinds, BTreeSet::from(["unsigned"]), "{:?}", report.findings);
    let signed = report.backups.iter().find(|backup| backup.id == "signed").unwrap();
    assert!(signed.ok && signed.signer_trusted);
    let report = verify_all(&repository);
    assert!(report.ok && !report.backups[1].signer_trusted);
}
