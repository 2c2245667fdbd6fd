//! Retention: plan, then apply.

use backup_core::context::Context;
use backup_core::error::ErrorKind;
use backup_core::repository::{
    BackupRequest, PruneOptions, ReadOptions, Repository, RetentionPolicy, VerifyOptions, Which,
};

use super::{assert_whole, back_up, ids, init, request, verify_all};
use crate::memory::Memory;

fn keep_last(number: u32) -> PruneOptions {
    PruneOptions { policy: RetentionPolicy::last(number), ..PruneOptions::default() }
}

fn filled(dir: &std::path::Path, number: usize) -> Repository {
    let repository = init(dir);
    for at in 0..number {
        back_up(&repository, &format!("b{at}")).unwrap();
    }
    repository
}

#[test]
fn a_plan_changes_nothing_and_applying_it_does_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let repository = filled(dir.path(), 5);
    let plan = repository.prune_plan(&keep_last(2), &Context::new()).unwrap();
    assert_eq!(ids(&repository).len(), 5);
    assert_eq!(plan.remove.iter().map(|gone| gone.id.as_str()).collect::<Vec<_>>(), ["b0", "b1", "b2"]);
    assert!(plan.frees_bytes > 0 && plan.keep.iter().all(|kept| !kept.reasons.is_empty()));
    let outcome = repository.prune_apply(&plan, &keep_last(2), None, &Context::new()).unwrap();
    assert_eq!((outcome.removed.len(), outcome.freed_bytes), (3, plan.frees_bytes));
    assert_eq!(ids(&repository), ["b3", "b4"]);
    assert_whole(&repository);
    assert_eq!(std::fs::read_dir(repository.layout().staging()).unwrap().count(), 0);
    let again = repository.prune_plan(&keep_last(2), &Context::new()).unwrap();
    assert_eq!(again.remove, []);
    let nothing = repository.prune_apply(&again, &keep_last(2), None, &Context::new()).unwrap();
    assert_eq!(nothing.entries, [0; 0]);
    assert_eq!(repository.show("b0").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_plan_that_would_no_longer_be_made_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let repository = filled(dir.path(), 4);
    let plan = repository.prune_plan(&keep_last(1), &Context::new()).unwrap();
    repository.hold("b1", true, "case 7", &Context::new()).unwrap();
    let error = repository.prune_apply(&plan, &keep_last(1), None, &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert_eq!(ids(&repository).len(), 4);
    let plan = repository.prune_plan(&keep_last(1), &Context::new()).unwrap();
    repository.prune_apply(&plan, &keep_last(1), None, &Context::new()).unwrap();
    assert_eq!(ids(&repository), ["b1", "b3"]);
    repository.hold("b1", false, "case 7 is closed", &Context::new()).unwrap();
    let plan = repository.prune_plan(&keep_last(1), &Context::new()).unwrap();
    repository.prune_apply(&plan, &keep_last(1), None, &Context::new()).unwrap();
    assert_eq!(ids(&repository), ["b3"]);
    assert_whole(&repository);
}

#[test]
fn pitfall_18_retention_counts_only_backups_whose_manifest_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let repository = filled(dir.path(), 5);
    // The three newest "succeeded", and what is there is empty, truncated or altered.
    let folder = |id| repository.layout().backup(id);
    std::fs::write(folder("b4").join("database/app.db.zst"), b"").unwrap();
    std::fs::write(folder("b3").join("manifest.json"), b"{}").unwrap();
    std::fs::remove_file(folder("b2").join("database/app.db.zst")).unwrap();
    let plan = repository.prune_plan(&keep_last(1), &Context::new()).unwrap();
    assert_eq!(plan.remove.iter().map(|gone| gone.id.as_str()).collect::<Vec<_>>(), ["b0"]);
    assert_eq!(plan.warnings.len(), 3, "{:?}", plan.warnings);
    repository.prune_apply(&plan, &keep_last(1), None, &Context::new()).unwrap();
    repository.objects("b1", &ReadOptions::default(), &Context::new()).unwrap();
    let report = repository.verify(Which::One("b1"), &VerifyOptions::default(), &Context::new()).unwrap();
    assert!(report.ok);
}

#[test]
fn pitfall_18_retention_runs_only_after_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let repository = filled(dir.path(), 3);
    let retention = Some(RetentionPolicy::last(2));
    let mut failing = Memory::small();
    failing.between = Some(Box::new(|_| Err(backup_core::error::Error::new(ErrorKind::Unavailable, "gone"))));
    let bad = BackupRequest { retention: retention.clone(), ..request(&failing, None) };
    repository.backup(&bad, &Context::new()).unwrap_err();
    assert_eq!(ids(&repository).len(), 3);
    let source = Memory::small();
    let good = BackupRequest { retention, ..request(&source, Some("b3")) };
    let outcome = repository.backup(&good, &Context::new()).unwrap();
    assert_eq!(outcome.pruned.unwrap().removed.len(), 2);
    assert_eq!(ids(&repository), ["b2", "b3"]);
    assert_whole(&repository);
}

#[test]
fn pitfall_19_names_and_clocks_do_not_decide_what_goes() {
    let dir = tempfile::tempdir().unwrap();
    let repository = init(dir.path());
    let source = Memory::small();
    // Names that sort backwards, and a clock that jumps to 2099 and back to 1970.
    for (name, time) in [
        ("z-first", "2026-11-18T00:00:00Z"),
        ("y-second", "2099-01-01T00:00:00Z"),
        ("x-third", "2026-11-19T00:00:00Z"),
        ("a-last", "1970-01-01T00:00:00Z"),
    ] {
        let request = BackupRequest { now: Some(time.parse().unwrap()), ..request(&source, Some(name)) };
        repository.backup(&request, &Context::new()).unwrap();
    }
    let plan = repository.prune_plan(&keep_last(1), &Context::new()).unwrap();
    let gone: Vec<&str> = plan.remove.iter().map(|gone| gone.id.as_str()).collect();
    assert!(!gone.contains(&"a-last"), "the newest by the log stays: {gone:?}");
    assert_eq!(gone, ["z-first", "x-third"], "a doubtful clock removes nothing");
    assert_eq!(repository.show("latest").unwrap().summary.id, "a-last");
}

#[test]
fn a_backup_that_is_being_read_is_not_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let repository = filled(dir.path(), 3);
    let plan = repository.prune_plan(&keep_last(1), &Context::new()).unwrap();
    let reading = repository.objects("b1", &ReadOptions::default(), &Context::new()).unwrap();
    let error = repository.prune_apply(&plan, &keep_last(1), None, &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.to_string().contains("b1"));
    assert_eq!(ids(&repository).len(), 3);
    drop(reading);
    repository.prune_apply(&plan, &keep_last(1), None, &Context::new()).unwrap();
    assert_eq!(ids(&repository), ["b2"]);
}

#[test]
fn a_policy_that_keeps_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let repository = filled(dir.path(), 1);
    for options in [PruneOptions::default(), keep_last(0)] {
        let error = repository.prune_plan(&options, &Context::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn a_hold_names_a_backup_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let repository = filled(dir.path(), 1);
    let error = repository.hold("none", true, "", &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    repository.hold("latest", true, "case 7", &Context::new()).unwrap();
    assert_eq!(repository.list().unwrap().backups[0].held.as_deref(), Some("case 7"));
    assert!(verify_all(&repository).ok);
}
