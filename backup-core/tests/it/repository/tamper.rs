//! Any altered byte of a repository is noticed.

use std::path::{Path, PathBuf};

use backup_core::context::Context;
use backup_core::repository::{
    BackupRequest, Level, Repository, RepositoryFindingKind as Kind, RepositoryOptions, VerifyOptions, Which,
};

use super::{assert_whole, back_up, init, key, request, verify_all};
use crate::memory::Memory;

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), into);
        } else {
            into.push(entry.path());
        }
    }
}

/// Says how a repository is found to be wrong; `None` when nothing is noticed.
fn noticed(path: &Path, options: &VerifyOptions<'_>) -> Option<String> {
    let repository = match Repository::open(path, &RepositoryOptions::default()) {
        Ok(repository) => repository,
        Err(error) => return Some(error.to_string()),
    };
    match repository.verify(Which::All, options, &Context::new()) {
        Ok(report) if report.ok => None,
        Ok(report) => Some(format!("{:?}", report.findings)),
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn any_flipped_bit_of_object_manifest_signature_log_or_checkpoint_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let source = Memory::new("app", &[("database/app.db", b"a small database"), ("files/f.tar", b"x")]);
    let mine = key(1);
    let signed = BackupRequest { signing_key: Some(&mine), ..request(&source, Some("one")) };
    repository.backup(&signed, &Context::new()).unwrap();
    back_up(&repository, "two").unwrap();
    assert_whole(&repository);
    let mut all = Vec::new();
    files(dir.path(), &mut all);
    // What is no evidence: the lock's text, the cache, and the log's own key, which `append` checks.
    all.retain(|path| !["lock", "state.json", "key"].iter().any(|name| path.ends_with(name)));
    assert_eq!(all.len(), 9, "{all:?}");
    let long = std::env::var_os("ATTESTORE_LONG").is_some();
    // Without any key: the log alone must notice it.
    let options = VerifyOptions { level: Some(Level::Digests), jobs: 1, ..VerifyOptions::default() };
    let mut flips = 0;
    for path in &all {
        let bytes = std::fs::read(path).unwrap();
        for at in 0..bytes.len() {
            // One bit of each byte, another one each time; all of them in the long run.
            for bit in if long { 0..8 } else { at as u32 % 8..at as u32 % 8 + 1 } {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                std::fs::write(path, flipped).unwrap();
                let noticed = noticed(dir.path(), &options);
                assert!(noticed.is_some(), "{}: bit {bit} of byte {at}", path.display());
                flips += 1;
            }
        }
        std::fs::write(path, bytes).unwrap();
    }
    assert!(flips > 4_000, "{flips}");
    assert_whole(&repository);
}

#[test]
fn a_cut_a_longer_and_a_missing_file_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    back_up(&repository, "one").unwrap();
    let mut all = Vec::new();
    files(dir.path(), &mut all);
    all.retain(|path| !["lock", "state.json", "key"].iter().any(|name| path.ends_with(name)));
    for path in &all {
        let bytes = std::fs::read(path).unwrap();
        let longer = [&bytes[..], b"\n"].concat();
        for other in [&bytes[..bytes.len() - 1], b"", &longer] {
            std::fs::write(path, other).unwrap();
            assert!(noticed(dir.path(), &VerifyOptions::default()).is_some(), "{}", path.display());
        }
        std::fs::remove_file(path).unwrap();
        assert!(noticed(dir.path(), &VerifyOptions::default()).is_some(), "{}", path.display());
        std::fs::write(path, bytes).unwrap();
    }
    assert_whole(&repository);
}

#[test]
fn each_kind_of_damage_has_its_own_finding() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let source = Memory::new("app", &[("database/app.db", b"a small database")]);
    let mine = key(1);
    let signed = BackupRequest { signing_key: Some(&mine), ..request(&source, Some("one")) };
    repository.backup(&signed, &Context::new()).unwrap();
    let folder = repository.layout().backup("one");
    let object = folder.join("database/app.db.zst");
    let kinds = || {
        let report = verify_all(&repository);
        assert!(report.backups.iter().all(|backup| !backup.ok));
        report.findings.iter().map(|finding| finding.kind).collect::<Vec<_>>()
    };
    let bytes = std::fs::read(&object).unwrap();
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&object, flipped).unwrap();
    assert_eq!(kinds(), [Kind::ObjectAltered]);
    std::fs::remove_file(&object).unwrap();
    assert_eq!(kinds(), [Kind::ObjectMissing]);
    std::os::unix::fs::symlink("/etc/passwd", &object).unwrap();
    assert!(kinds().contains(&Kind::ExtraFile));
    std::fs::remove_file(&object).unwrap();
    std::fs::write(&object, bytes).unwrap();

    std::fs::write(folder.join("database/app.db-wal"), b"").unwrap();
    assert_eq!(kinds(), [Kind::ExtraFile]);
    std::fs::remove_file(folder.join("database/app.db-wal")).unwrap();
    std::fs::create_dir(folder.join("empty")).unwrap();
    assert_eq!(kinds(), [Kind::ExtraFile]);
    std::fs::remove_dir(folder.join("empty")).unwrap();

    let signature = folder.join("manifest.json.minisig");
    let text = std::fs::read(&signature).unwrap();
    std::fs::remove_file(&signature).unwrap();
    assert_eq!(kinds(), [Kind::Unsigned]);
    let other = key(2).sign_detached(&std::fs::read(folder.join("manifest.json")).unwrap(), "x").unwrap();
    std::fs::write(&signature, other).unwrap();
    assert_eq!(kinds(), [Kind::SignatureInvalid]);
    std::fs::write(&signature, text).unwrap();
    assert_whole(&repository);

    let options = VerifyOptions { public_keys: vec![key(2).public_key()], ..VerifyOptions::default() };
    let report = repository.verify(Which::All, &options, &Context::new()).unwrap();
    assert!(report.has(Kind::UnknownKey), "{:?}", report.findings);
}
