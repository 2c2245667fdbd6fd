//! Verification in levels, and listing at scale.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use audit_chain::merkle::{Frontier, leaf_hash};
use audit_chain::native::{NativeAppender, NativeHead, NativeRecord};
use audit_chain::note::{Note, NoteSigner};
use audit_chain::report::Verdict;
use audit_chain::tlog::LogCheckpoint;
use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::repository::{
    BUNDLE, ContentCheck, ContentReport, Level, Repository, RepositoryFindingKind as Kind, VerifyOptions,
    Which,
};
use backup_core::traits::{BackupObjects, Check};

use super::{assert_whole, back_up, ids, init, verify_all};

/// Checks that the object is what [`back_up`] writes.
struct Contents {
    calls: AtomicUsize,
    expected: &'static [u8],
}

impl ContentCheck for Contents {
    fn check(&self, backup: &dyn BackupObjects, _: &Context) -> Result<ContentReport> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut bytes = Vec::new();
        let mut reader = backup.open("database/app.db")?;
        reader.read_to_end(&mut bytes).map_err(|error| Error::io("read", "database/app.db", error))?;
        let ok = bytes.starts_with(self.expected);
        let check = Check { name: "words".into(), ok, detail: format!("{} bytes", bytes.len()) };
        Ok(ContentReport { checks: vec![check], chains: Vec::new() })
    }
}

#[test]
fn levels_go_as_far_as_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "one").unwrap();
    let contents = Contents { calls: 0.into(), expected: b"forty-two" };
    for level in [Level::Present, Level::Digests, Level::Decoded, Level::Contents] {
        let options = VerifyOptions {
            level: Some(level),
            contents: (level == Level::Contents).then_some(&contents as &dyn ContentCheck),
            ..VerifyOptions::default()
        };
        let report = repository.verify(Which::One("latest"), &options, &Context::new()).unwrap();
        assert_eq!((report.ok, report.backups[0].level), (true, level));
    }
    assert_eq!(contents.calls.load(Ordering::Relaxed), 1);
    let without = VerifyOptions { level: Some(Level::Contents), ..VerifyOptions::default() };
    let error = repository.verify(Which::All, &without, &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(verify_all(&repository).backups[0].level, Level::Decoded);
    let report = repository.verify(Which::Log, &VerifyOptions::default(), &Context::new()).unwrap();
    assert!(report.ok && report.backups.is_empty());
}

#[test]
fn wrong_contents_are_a_finding_and_damaged_objects_are_not_handed_to_the_backend() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let folder = back_up(&repository, "one").unwrap().path;
    let contents = Contents { calls: 0.into(), expected: b"something else" };
    let options = VerifyOptions { contents: Some(&contents), ..VerifyOptions::default() };
    let report = repository.verify(Which::All, &options, &Context::new()).unwrap();
    assert_eq!(report.findings[0].kind, Kind::ContentsWrong);
    assert_eq!(report.verdict, Verdict::Findings);
    assert_eq!((contents.calls.load(Ordering::Relaxed), report.backups[0].checks.len()), (1, 1));

    std::fs::write(folder.join("database/app.db.zst"), b"damaged").unwrap();
    let report = repository.verify(Which::All, &options, &Context::new()).unwrap();
    assert_eq!(report.findings[0].kind, Kind::ObjectAltered);
    assert_eq!(contents.calls.load(Ordering::Relaxed), 1);
}

#[test]
fn a_verification_of_one_backup_reads_no_other_and_still_misses_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "good").unwrap();
    let bad = back_up(&repository, "bad").unwrap().path;
    std::fs::remove_file(bad.join("database/app.db.zst")).unwrap();
    let verify = |id| repository.verify(Which::One(id), &VerifyOptions::default(), &Context::new());
    assert!(verify("good").unwrap().ok);
    assert!(verify("bad").unwrap().has(Kind::ObjectMissing));
    assert_eq!(verify("none").unwrap_err().kind(), ErrorKind::NotFound);
    let all = verify_all(&repository);
    assert_eq!((all.ok, all.backups[0].ok, all.backups[1].ok), (false, true, false));
    std::fs::remove_dir_all(bad).unwrap();
    for id in ["good", "latest", "bad"] {
        let report = verify(id).unwrap();
        assert!(report.has(Kind::BackupMissing) && !report.ok, "{id}");
        assert!(report.backups.iter().all(|backup| backup.ok && backup.id == "good"));
        assert_eq!(report.backups.len(), usize::from(id != "bad"), "{id}");
    }
}

#[test]
fn a_newer_manifest_cannot_be_verified_and_is_not_called_tampered() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let outcome = back_up(&repository, "one").unwrap();
    // As a newer program would have written and logged it.
    let path = outcome.path.join("manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let newer = text.replace("\"format_version\":1", "\"format_version\":2");
    std::fs::write(&path, &newer).unwrap();
    let digest = backup_core::manifest::Digest::of(newer.as_bytes()).to_string();
    forge(&repository, |records| {
        records[1].body = records[1].body.replace(&outcome.manifest_sha256.to_string(), &digest);
    });
    let report = verify_all(&repository);
    assert_eq!((report.verdict, report.findings.len()), (Verdict::CannotVerify, 0), "{report:#?}");
    let error = repository.objects("one", &Default::default(), &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Newer);
}

/// Writes the log anew with the log's own key, as somebody who holds the repository can.
fn forge(repository: &Repository, edit: impl FnOnce(&mut Vec<NativeRecord>)) {
    let layout = repository.layout();
    let text = std::fs::read_to_string(layout.log_bundle(0)).unwrap();
    let mut records: Vec<NativeRecord> =
        text.lines().map(|line| NativeRecord::parse(line).unwrap()).collect();
    edit(&mut records);
    let origin = &repository.header().log_origin;
    let mut writer = NativeAppender::new(NativeHead::genesis(origin.as_str()), None);
    let mut tree = Frontier::new();
    let mut bundles = vec![String::new()];
    for (at, record) in records.iter().enumerate() {
        if at > 0 && (at as u64).is_multiple_of(BUNDLE) {
            bundles.push(String::new());
        }
        let time = audit_chain::native::parse_time(&record.at).unwrap();
        let line = writer.append(time, record.body.clone()).unwrap().line();
        tree.push(leaf_hash(line.as_bytes()));
        bundles.last_mut().unwrap().push_str(&(line + "\n"));
    }
    for (number, bundle) in bundles.iter().enumerate() {
        std::fs::write(layout.log_bundle(number as u64), bundle).unwrap();
    }
    let checkpoint = LogCheckpoint::new(origin, tree.size(), tree.root()).unwrap();
    let mut note = Note::new(checkpoint.to_string()).unwrap();
    note.sign(&NoteSigner::parse(&std::fs::read_to_string(layout.log_key()).unwrap()).unwrap());
    std::fs::write(layout.log_checkpoint(), note.to_string()).unwrap();
}

#[test]
fn listing_thousands_of_backups_reads_no_manifest() {
    let number = if std::env::var_os("ATTESTORE_LONG").is_some() { 10_000 } else { 1_000 };
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "b0").unwrap();
    forge(&repository, |records| {
        let one = records.pop().unwrap();
        for at in 0..number {
            let mut record = one.clone();
            record.body = one.body.replace("\"b0\"", &format!("\"b{at}\""));
            records.push(record);
        }
    });
    for at in 1..number {
        let folder = repository.layout().backup(&format!("b{at}"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("manifest.json"), b"not a manifest").unwrap();
    }
    let start = std::time::Instant::now();
    let listing = repository.list().unwrap();
    println!("listed {number} backups in {:?}", start.elapsed());
    assert_eq!((listing.backups.len(), listing.findings.len()), (number, 0));
    assert_eq!(ids(&repository)[number - 1], format!("b{}", number - 1));
    let start = std::time::Instant::now();
    repository.hold("b7", true, "still appended to", &Context::new()).unwrap();
    println!("appended behind them in {:?}", start.elapsed());
}

#[test]
fn who_holds_the_logs_key_can_forge_the_log_and_not_the_checkpoint_that_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "one").unwrap();
    back_up(&repository, "two").unwrap();
    let kept = repository.log_checkpoint().unwrap();
    // The newest backup and its entry vanish, and everything is signed again.
    forge(&repository, |records| {
        records.pop();
    });
    std::fs::remove_dir_all(repository.layout().backup("two")).unwrap();
    assert_whole(&repository);
    let options = VerifyOptions { checkpoint: Some(kept), ..VerifyOptions::default() };
    let report = repository.verify(Which::All, &options, &Context::new()).unwrap();
    assert!(report.has(Kind::LogTruncated));
}
