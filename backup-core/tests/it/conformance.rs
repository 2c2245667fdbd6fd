//! The conformance suite against real backends, and against ones that break a rule: it must notice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use audit_chain::report::ChainReport;
use backup_core::conformance::{Fixture, Harness, run};
use backup_core::context::Context;
use backup_core::error::{Error, Result};
use backup_core::files::FilesSource;
use backup_core::traits::{
    BackupObjects, ChainRequest, ChainVerify, Restore, RestoreOutcome, RestorePlan, Sinks, Snapshot,
    SnapshotOutcome, SourceName,
};

use crate::vault::VaultHarness;

#[test]
fn a_backend_with_chains_and_restore_passes_every_check() {
    let dir = tempfile::tempdir().unwrap();
    let report = run(&VaultHarness, dir.path()).unwrap();
    assert!(report.failed.is_empty() && report.left_out.is_empty(), "{report}");
    assert_eq!(report.passed.len(), 15);
}

/// A folder of files as a source: no restore of its own, no chain.
struct FilesHarness;

struct FilesFixture {
    folder: PathBuf,
    source: FilesSource,
    changes: std::sync::atomic::AtomicU32,
}

impl Harness for FilesHarness {
    fn create(&self, folder: &Path) -> Result<Box<dyn Fixture>> {
        let path = folder.join("asset");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("a.txt"), b"one").unwrap();
        Ok(Box::new(FilesFixture {
            folder: folder.to_owned(),
            source: FilesSource::new("asset", path),
            changes: 0.into(),
        }))
    }
}

impl Fixture for FilesFixture {
    fn snapshot(&self) -> &dyn Snapshot {
        &self.source
    }

    fn restore(&self) -> Option<&dyn Restore> {
        None
    }

    fn chain_verify(&self) -> Option<&dyn ChainVerify> {
        None
    }

    fn chains(&self) -> Vec<ChainRequest> {
        Vec::new()
    }

    fn content(&self) -> Result<Vec<u8>> {
        let mut tar = Vec::new();
        self.source.write_tar(&mut tar, &Context::new())?;
        Ok(tar)
    }

    fn rows(&self) -> Result<BTreeMap<String, u64>> {
        Ok(BTreeMap::new())
    }

    fn change(&self) -> Result<()> {
        let number = self.changes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        std::fs::write(self.source.path.join(format!("change-{number}")), b"two").unwrap();
        Ok(())
    }

    fn tamper(&self) -> Result<bool> {
        Ok(false)
    }

    fn truncate(&self) -> Result<bool> {
        Ok(false)
    }

    fn spoil(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.source.path)
            .map_err(|error| Error::io("remove", &self.source.path, error))
    }

    fn folder(&self) -> &Path {
        &self.folder
    }
}

#[test]
fn files_pass_every_check_that_applies() {
    let dir = tempfile::tempdir().unwrap();
    let report = run(&FilesHarness, dir.path()).unwrap();
    assert!(report.failed.is_empty(), "{report}");
    assert_eq!((report.passed.len(), report.left_out.len()), (4, 11), "{report}");
}

/// A way to break the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Breach {
    /// The preflight says yes to everything.
    Preflight,
    /// The snapshot does not look whether it was cancelled.
    Deaf,
    /// The restore removes the live data first.
    Destructive,
    /// The restore leaves its work behind when it fails.
    Untidy,
    /// The restore does not keep what was there.
    Forgetful,
    /// The facts are made up.
    FalseFacts,
    /// The chain is never looked at.
    Blind,
    /// The snapshot reads twice.
    TwoInstants,
}

struct Breaching {
    inner: Box<dyn Fixture>,
    breach: Breach,
}

struct BreachingHarness(Breach);

impl Harness for BreachingHarness {
    fn create(&self, folder: &Path) -> Result<Box<dyn Fixture>> {
        Ok(Box::new(Breaching { inner: VaultHarness.create(folder)?, breach: self.0 }))
    }
}

impl Breaching {
    fn file(&self) -> PathBuf {
        self.inner.folder().join("vault.ndjson")
    }
}

impl Snapshot for Breaching {
    fn describe(&self) -> SourceName {
        self.inner.snapshot().describe()
    }

    fn preflight(&self, ctx: &Context) -> Result<()> {
        if self.breach == Breach::Preflight { Ok(()) } else { self.inner.snapshot().preflight(ctx) }
    }

    fn snapshot(&self, chains: &[ChainRequest], sinks: &dyn Sinks, ctx: &Context) -> Result<SnapshotOutcome> {
        let own = Context::new();
        let ctx = if self.breach == Breach::Deaf { &own } else { ctx };
        let mut outcome = self.inner.snapshot().snapshot(chains, sinks, ctx)?;
        match self.breach {
            Breach::FalseFacts => {
                outcome.facts.tables.insert("vault".into(), 7);
            }
            Breach::TwoInstants => {
                // The facts are of a later moment than the bytes.
                std::thread::sleep(std::time::Duration::from_millis(5));
                outcome.facts.tables = self.inner.rows()?;
            }
            Breach::Blind => {
                for report in &mut outcome.chains {
                    pretend_intact(report);
                }
            }
            _ => {}
        }
        Ok(outcome)
    }
}

fn pretend_intact(report: &mut ChainReport) {
    report.verdict = audit_chain::report::Verdict::Intact;
    report.ok = true;
    report.findings.clear();
    report.findings_total = 0;
}

impl Restore for Breaching {
    fn plan(&self, backup: &dyn BackupObjects, ctx: &Context) -> Result<RestorePlan> {
        self.inner.restore().unwrap().plan(backup, ctx)
    }

    fn execute(
        &self,
        plan: &RestorePlan,
        backup: &dyn BackupObjects,
        ctx: &Context,
    ) -> Result<RestoreOutcome> {
        if self.breach == Breach::Destructive {
            std::fs::write(self.file(), b"").unwrap();
        }
        let result = self.inner.restore().unwrap().execute(plan, backup, ctx);
        match (self.breach, &result) {
            (Breach::Untidy, Err(_)) => std::fs::write(self.inner.folder().join("half"), b"").unwrap(),
            (Breach::Forgetful, Ok(outcome)) => {
                for path in &outcome.set_aside {
                    std::fs::remove_file(path).unwrap();
                }
            }
            _ => {}
        }
        result
    }
}

impl Fixture for Breaching {
    fn snapshot(&self) -> &dyn Snapshot {
        self
    }

    fn restore(&self) -> Option<&dyn Restore> {
        Some(self)
    }

    fn chain_verify(&self) -> Option<&dyn ChainVerify> {
        self.inner.chain_verify()
    }

    fn chains(&self) -> Vec<ChainRequest> {
        self.inner.chains()
    }

    fn content(&self) -> Result<Vec<u8>> {
        self.inner.content()
    }

    fn rows(&self) -> Result<BTreeMap<String, u64>> {
        self.inner.rows()
    }

    fn change(&self) -> Result<()> {
        self.inner.change()
    }

    fn tamper(&self) -> Result<bool> {
        self.inner.tamper()
    }

    fn truncate(&self) -> Result<bool> {
        self.inner.truncate()
    }

    fn spoil(&self) -> Result<()> {
        self.inner.spoil()
    }

    fn folder(&self) -> &Path {
        self.inner.folder()
    }
}

#[test]
fn a_backend_that_breaks_a_rule_is_found_out() {
    for (breach, checks) in [
        (Breach::Preflight, &["preflight-fails-before-a-byte-is-written"][..]),
        (Breach::Deaf, &["cancelling-a-snapshot-leaves-nothing"]),
        (
            Breach::Destructive,
            &[
                "a-failing-restore-leaves-the-live-data-alone",
                "cancelling-a-restore-leaves-the-live-data-alone",
            ],
        ),
        (
            Breach::Untidy,
            &[
                "a-failing-restore-leaves-the-live-data-alone",
                "cancelling-a-restore-leaves-the-live-data-alone",
            ],
        ),
        (Breach::Forgetful, &["a-restore-keeps-what-was-there"]),
        (Breach::FalseFacts, &["facts-are-true"]),
        (Breach::TwoInstants, &["a-snapshot-shows-one-instant-under-writes"]),
        (
            Breach::Blind,
            &[
                "an-edited-record-is-found-and-still-backed-up",
                "a-cut-chain-does-not-extend-the-backup-before",
            ],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let report = run(&BreachingHarness(breach), dir.path()).unwrap();
        let failed: Vec<&str> = report.failed.iter().map(|check| check.name).collect();
        for check in checks {
            assert!(failed.contains(check), "{breach:?}: {report}");
        }
    }
}
