//! Chains in backups: verified inside the snapshot, continued from the backup before (B3).

use audit_chain::report::{FindingKind, Verdict};
use backup_core::context::Context;
use backup_core::error::ErrorKind;
use backup_core::repository::{
    BackupOutcome, BackupRequest, OnFindings, Repository, SourceRequest, VerifyOptions, Which,
};

use super::{assert_whole, ids, init, request};
use crate::memory::Memory;
use crate::vault::{Vault, chain_request};

fn back_up(repository: &Repository, vault: &Vault, name: &str) -> BackupOutcome {
    let request = BackupRequest {
        sources: vec![SourceRequest { snapshot: vault, chains: vec![chain_request()] }],
        name: Some(name.into()),
        ..BackupRequest::default()
    };
    repository.backup(&request, &Context::new()).unwrap()
}

/// Edits the live file behind the vault's back.
fn edit(vault: &Vault, edit: impl FnOnce(&mut Vec<String>)) {
    let text = std::fs::read_to_string(&vault.path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    edit(&mut lines);
    std::fs::write(&vault.path, lines.join("\n") + "\n").unwrap();
}

#[test]
fn each_backup_is_compared_with_the_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(&dir.path().join("repo"));
    let vault = Vault::create(&dir.path().join("vault"), 5);
    let first = back_up(&repository, &vault, "one");
    assert_eq!(first.manifest.chains[0].extends, None);
    assert_eq!(first.manifest.chains[0].points.chains[0].records, 5);
    vault.append();
    // A backup of something else comes in between.
    repository.backup(&request(&Memory::small(), Some("other")), &Context::new()).unwrap();
    let second = back_up(&repository, &vault, "two");
    let extends = second.manifest.chains[0].extends.clone().unwrap();
    assert_eq!((extends.backup.as_str(), extends.ok), ("one", true));
    assert_eq!(second.manifest.previous.as_ref().unwrap().id, "other");
    assert_eq!(repository.list().unwrap().backups[2].chains, Some(Verdict::Intact));
    assert_whole(&repository);
}

#[test]
fn a_rewritten_chain_is_told_apart_from_a_grown_one_and_still_backed_up() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(&dir.path().join("repo"));
    let vault = Vault::create(&dir.path().join("vault"), 5);
    back_up(&repository, &vault, "one");
    // Another history, sound in itself.
    std::fs::remove_file(&vault.path).unwrap();
    let other = Vault::create(&dir.path().join("other"), 0);
    std::fs::rename(&other.path, &vault.path).unwrap();
    let rewritten = Vault::create(&dir.path().join("third"), 7);
    let text = std::fs::read_to_string(&rewritten.path).unwrap();
    std::fs::write(&vault.path, text).unwrap();
    edit(&vault, |lines| {
        // The same numbers with other contents, relinked.
        let mut writer =
            audit_chain::native::NativeAppender::new(audit_chain::native::NativeHead::genesis("vault"), None);
        *lines = (0..7).map(|n| writer.append(n, format!("forged {n}")).unwrap().line()).collect();
    });
    let second = back_up(&repository, &vault, "two");
    let chain = &second.manifest.chains[0];
    assert_eq!((chain.verdict, chain.extends.as_ref().unwrap().ok), (Verdict::Findings, false));
    assert!(second.reports[0].chains[0].has(FindingKind::Rewritten), "{:?}", second.reports);
    assert_eq!(chain.finding_kinds.get("rewritten"), Some(&1));
    assert_eq!(ids(&repository), ["one", "two"]);
    // The repository is sound: what it holds is the evidence.
    assert_whole(&repository);
}

#[test]
fn findings_refuse_the_backup_when_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(&dir.path().join("repo"));
    let vault = Vault::create(&dir.path().join("vault"), 5);
    edit(&vault, |lines| lines[2] = lines[2].replace("{\\\"n\\\":3}", "{\\\"n\\\":4}"));
    let strict = BackupRequest {
        sources: vec![SourceRequest { snapshot: &*vault, chains: vec![chain_request()] }],
        on_findings: OnFindings::Refuse,
        ..BackupRequest::default()
    };
    let error = repository.backup(&strict, &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tampered);
    assert_eq!(ids(&repository), [""; 0]);
    assert_eq!(std::fs::read_dir(repository.layout().staging()).unwrap().count(), 0);
    back_up(&repository, &vault, "evidence");
    assert_eq!(ids(&repository), ["evidence"]);
}

#[test]
fn a_damaged_backup_in_between_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(&dir.path().join("repo"));
    let vault = Vault::create(&dir.path().join("vault"), 5);
    back_up(&repository, &vault, "one");
    vault.append();
    back_up(&repository, &vault, "two");
    std::fs::write(repository.layout().backup("two").join("manifest.json"), b"{}").unwrap();
    vault.append();
    let third = back_up(&repository, &vault, "three");
    assert_eq!(third.manifest.chains[0].extends.as_ref().unwrap().backup, "one");
    let report = repository.verify(Which::One("three"), &VerifyOptions::default(), &Context::new()).unwrap();
    assert!(report.ok, "{:?}", report.findings);
}

#[test]
fn a_checkpoint_of_the_callers_own_takes_the_place_of_the_backup_before() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(&dir.path().join("repo"));
    let vault = Vault::create(&dir.path().join("vault"), 5);
    let first = back_up(&repository, &vault, "one");
    vault.append();
    let chain = audit_chain::checkpoint::ChainCheckpoint::clone(&first.manifest.chains[0].points);
    let request = BackupRequest {
        sources: vec![SourceRequest {
            snapshot: &*vault,
            chains: vec![backup_core::traits::ChainRequest { checkpoint: Some(chain), ..chain_request() }],
        }],
        ..BackupRequest::default()
    };
    let second = repository.backup(&request, &Context::new()).unwrap();
    let entry = &second.manifest.chains[0];
    assert_eq!((entry.verdict, &entry.extends), (Verdict::Intact, &None));
}
