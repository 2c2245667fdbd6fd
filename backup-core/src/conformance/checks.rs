//! The checks of the suite, each on a fresh live source.
//!
//! A check returns an error when the backend fails where it must not; `expect!` says what does not hold.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use audit_chain::report::{FindingKind, Verdict};
use jiff::Timestamp;

use super::faulty::{Discard, Fault, Faulty};
use super::{Case, Outcome, describe};
use crate::context::{Cancel, Context};
use crate::durable::{Durable, PRIVATE_DIR};
use crate::error::{Error, ErrorKind, Result};
use crate::names;
use crate::repository::{
    BackupOutcome, BackupRequest, LATEST, ReadOptions, Repository, RepositoryOptions, SourceRequest,
    VerifyOptions, Which,
};
use crate::traits::ChainRequest;

type Check = fn(&Case<'_>) -> Result<Outcome>;

/// Every check, by name.
pub(super) const ALL: [(&str, Check); 15] = [
    ("the-source-describes-itself", describes_itself),
    ("a-backup-restores-to-the-content-it-was-made-of", round_trip),
    ("facts-are-true", facts_are_true),
    ("a-snapshot-shows-one-instant-under-writes", one_instant),
    ("preflight-fails-before-a-byte-is-written", preflight),
    ("cancelling-a-snapshot-leaves-nothing", cancel_snapshot),
    ("a-restore-plan-changes-nothing", plan_changes_nothing),
    ("a-restore-keeps-what-was-there", keeps_old),
    ("a-failing-restore-leaves-the-live-data-alone", failing_restore),
    ("cancelling-a-restore-leaves-the-live-data-alone", cancel_restore),
    ("chains-are-verified-inside-the-snapshot", chains_inside),
    ("chain-verification-agrees-with-the-snapshot", verification_agrees),
    ("an-edited-record-is-found-and-still-backed-up", edited_record),
    ("a-grown-chain-extends-the-backup-before", grown_chain),
    ("a-cut-chain-does-not-extend-the-backup-before", cut_chain),
];

/// Ends a check with what was seen when a condition does not hold.
macro_rules! expect {
    ($condition:expr, $($seen:tt)+) => {
        if !$condition {
            return Ok(Outcome::Failed(format!($($seen)+)));
        }
    };
}

/// Ends a check that does not apply.
macro_rules! needs {
    ($option:expr, $why:expr) => {
        match $option {
            Some(value) => value,
            None => return Ok(Outcome::LeftOut($why)),
        }
    };
}

const NO_RESTORE: &str = "the backend has no restore";
const NO_CHAIN: &str = "the source has no chain";
/// How often a snapshot is tried again until a writer came in between.
const OVERLAPS: usize = 20;

impl Case<'_> {
    fn repository(&self) -> Result<Repository> {
        let path = self.scratch.join("repository");
        if path.exists() {
            Repository::open(path, &RepositoryOptions::default())
        } else {
            Repository::init(path, &RepositoryOptions::default())
        }
    }

    fn back_up(&self, chains: Vec<ChainRequest>, ctx: &Context) -> Result<BackupOutcome> {
        let request = BackupRequest {
            sources: vec![SourceRequest { snapshot: self.fixture.snapshot(), chains }],
            ..BackupRequest::default()
        };
        self.repository()?.backup(&request, ctx)
    }

    fn chains(&self) -> Option<Vec<ChainRequest>> {
        Some(self.fixture.chains()).filter(|chains| !chains.is_empty())
    }

    /// Restores the newest backup over the live source.
    fn restore_latest(&self) -> Result<Option<crate::traits::RestoreOutcome>> {
        let Some(restore) = self.fixture.restore() else { return Ok(None) };
        let ctx = Context::new();
        let stored = self.repository()?.objects(LATEST, &ReadOptions::default(), &ctx)?;
        let plan = restore.plan(&stored, &ctx)?;
        restore.execute(&plan, &stored, &ctx).map(Some)
    }

    /// Checks that nothing of a failed backup is left.
    fn nothing_left(&self) -> Result<Option<String>> {
        let repository = self.repository()?;
        let listed = repository.list()?.backups.len();
        let staged = names_in(&repository.layout().staging())?;
        let left = (listed > 0 || !staged.is_empty())
            .then(|| format!("{listed} backups are listed, {staged:?} lies in staging"));
        Ok(left)
    }
}

fn names_in(folder: &Path) -> Result<BTreeSet<String>> {
    let named = |error| Error::io("read", folder, error);
    let entries = std::fs::read_dir(folder).map_err(named)?;
    entries.map(|entry| Ok(entry.map_err(named)?.file_name().to_string_lossy().into_owned())).collect()
}

/// The kind and text of what should have been an error.
fn seen<T>(result: &Result<T>) -> String {
    match result {
        Ok(_) => "success".into(),
        Err(error) => format!("{}: {}", error.kind().name(), describe(error)),
    }
}

fn describes_itself(case: &Case<'_>) -> Result<Outcome> {
    let about = case.fixture.snapshot().describe();
    names::validate_name(&about.name)?;
    expect!(!about.kind.is_empty(), "the kind is empty");
    let outcome = case.back_up(Vec::new(), &Context::new())?;
    let facts = outcome.manifest.sources.first();
    expect!(
        facts.is_some_and(|facts| (&facts.kind, &facts.name) == (&about.kind, &about.name)),
        "described as {about:?}, the facts say {facts:?}"
    );
    Ok(Outcome::Passed)
}

fn round_trip(case: &Case<'_>) -> Result<Outcome> {
    let before = case.fixture.content()?;
    case.back_up(case.fixture.chains(), &Context::new())?;
    let report = case.repository()?.verify(Which::All, &VerifyOptions::default(), &Context::new())?;
    expect!(report.ok, "the backup does not verify: {:?}", report.findings);
    case.fixture.change()?;
    expect!(case.fixture.content()? != before, "a change changes nothing: the fixture proves nothing");
    needs!(case.restore_latest()?, NO_RESTORE);
    expect!(case.fixture.content()? == before, "the restored content is not what was backed up");
    Ok(Outcome::Passed)
}

fn facts_are_true(case: &Case<'_>) -> Result<Outcome> {
    let start = Timestamp::now();
    let outcome = case.back_up(Vec::new(), &Context::new())?;
    let end = Timestamp::now();
    let Some(facts) = outcome.manifest.sources.first() else {
        return Ok(Outcome::Failed("the manifest has no source".into()));
    };
    let rows = case.fixture.rows()?;
    expect!(facts.tables == rows, "expected the rows {rows:?}, the facts say {:?}", facts.tables);
    expect!(facts.size_bytes > 0, "the facts say that the source has no bytes");
    expect!(
        facts.instant >= start && facts.instant <= end,
        "the instant {} is not between {start} and {end}",
        facts.instant
    );
    expect!(!facts.engine.is_empty(), "the facts name no engine");
    Ok(Outcome::Passed)
}

/// What a writer saw and did while snapshots ran.
#[derive(Default)]
struct Written {
    contents: BTreeSet<Vec<u8>>,
    changes: u64,
    failed: Option<String>,
}

/// Writes until told to stop; every content that the source ever had is kept.
fn write_until(case: &Case<'_>, written: &Mutex<Written>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let changed = case.fixture.change().and_then(|()| case.fixture.content());
        let Ok(mut written) = written.lock() else { return };
        match changed {
            Ok(content) => {
                written.contents.insert(content);
                written.changes += 1;
            }
            Err(error) => {
                written.failed = Some(describe(&error));
                return;
            }
        }
    }
}

fn one_instant(case: &Case<'_>) -> Result<Outcome> {
    if case.fixture.restore().is_none() {
        return Ok(Outcome::LeftOut(NO_RESTORE));
    }
    let written = Mutex::new(Written::default());
    if let Ok(mut written) = written.lock() {
        written.contents.insert(case.fixture.content()?);
    }
    let stop = AtomicBool::new(false);
    let changes = || written.lock().map_or(0, |written| written.changes);
    let mut overlapped = false;
    let backed_up = std::thread::scope(|scope| {
        scope.spawn(|| write_until(case, &written, &stop));
        let mut backed_up = Ok(());
        for _ in 0..OVERLAPS {
            let before = changes();
            backed_up = case.back_up(case.fixture.chains(), &Context::new()).map(|_| ());
            overlapped |= changes() > before;
            if backed_up.is_err() || overlapped {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        backed_up
    });
    backed_up?;
    let written = written.into_inner().unwrap_or_default();
    expect!(written.failed.is_none(), "a writer failed under the snapshot: {:?}", written.failed);
    expect!(overlapped, "no change came in between in {OVERLAPS} snapshots: the fixture proves nothing");
    case.restore_latest()?;
    let restored = case.fixture.content()?;
    expect!(
        written.contents.contains(&restored),
        "the snapshot is none of the {} contents that the source ever had",
        written.contents.len()
    );
    let rows = case.fixture.rows()?;
    let shown = case.repository()?.show(LATEST)?;
    let facts = shown.manifest.sources.first().map(|facts| facts.tables.clone()).unwrap_or_default();
    expect!(facts == rows, "the facts say {facts:?} of a snapshot that has {rows:?}");
    Ok(Outcome::Passed)
}

fn preflight(case: &Case<'_>) -> Result<Outcome> {
    case.fixture.spoil()?;
    let checked = case.fixture.snapshot().preflight(&Context::new());
    expect!(checked.is_err(), "preflight accepts a source that cannot be backed up");
    let result = case.back_up(case.fixture.chains(), &Context::new());
    expect!(result.is_err(), "a source that cannot be backed up was backed up");
    if let Some(left) = case.nothing_left()? {
        return Ok(Outcome::Failed(left));
    }
    Ok(Outcome::Passed)
}

fn cancel_snapshot(case: &Case<'_>) -> Result<Outcome> {
    let before = (case.fixture.content()?, names_in(case.fixture.folder())?);
    let cancelled = Cancel::new();
    cancelled.cancel();
    let scratch = case.scratch.join("scratch");
    Durable::new().create_dir(&scratch, PRIVATE_DIR)?;
    let sinks = Discard { scratch, finished: AtomicU64::new(0) };
    let ctx = Context::new().with_cancel(cancelled.clone());
    let result = case.fixture.snapshot().snapshot(&case.fixture.chains(), &sinks, &ctx);
    let kind = result.as_ref().err().map(Error::kind);
    expect!(kind == Some(ErrorKind::Cancelled), "cancelled before it began, seen {}", seen(&result));
    let finished = sinks.finished.into_inner();
    expect!(finished == 0, "cancelled before it began, {finished} objects were finished");
    // Through the repository: at once, and at the first sign of progress.
    let later = Cancel::new();
    let flag = later.clone();
    for ctx in [
        Context::new().with_cancel(cancelled),
        Context::new().with_cancel(later).with_progress(move |_| flag.cancel()),
    ] {
        let result = case.back_up(case.fixture.chains(), &ctx);
        let kind = result.as_ref().err().map(Error::kind);
        expect!(kind == Some(ErrorKind::Cancelled), "expected Cancelled, seen {}", seen(&result));
        if let Some(left) = case.nothing_left()? {
            return Ok(Outcome::Failed(left));
        }
    }
    let after = (case.fixture.content()?, names_in(case.fixture.folder())?);
    expect!(after == before, "the live source or its folder changed: {:?}, was {:?}", after.1, before.1);
    Ok(Outcome::Passed)
}

fn plan_changes_nothing(case: &Case<'_>) -> Result<Outcome> {
    let restore = needs!(case.fixture.restore(), NO_RESTORE);
    let outcome = case.back_up(Vec::new(), &Context::new())?;
    case.fixture.change()?;
    let before = (case.fixture.content()?, names_in(case.fixture.folder())?);
    let stored = case.repository()?.objects(LATEST, &ReadOptions::default(), &Context::new())?;
    let plan = restore.plan(&stored, &Context::new())?;
    expect!(plan.backup == outcome.id, "the plan is about {:?}", plan.backup);
    expect!(!plan.steps.is_empty() && !plan.target.is_empty(), "the plan says nothing: {plan:?}");
    let after = (case.fixture.content()?, names_in(case.fixture.folder())?);
    expect!(after == before, "planning changed the live source or its folder: {:?}", after.1);
    Ok(Outcome::Passed)
}

fn keeps_old(case: &Case<'_>) -> Result<Outcome> {
    case.back_up(case.fixture.chains(), &Context::new())?;
    case.fixture.change()?;
    let outcome = needs!(case.restore_latest()?, NO_RESTORE);
    expect!(!outcome.set_aside.is_empty(), "the restore kept nothing of what was there");
    for path in &outcome.set_aside {
        expect!(path.exists(), "{} is said to be kept and is not there", path.display());
    }
    let failed: Vec<_> = outcome.checks.iter().filter(|check| !check.ok).collect();
    expect!(failed.is_empty(), "the restore succeeded with failed checks: {failed:?}");
    expect!(!outcome.checks.is_empty(), "the restore checked nothing");
    Ok(Outcome::Passed)
}

fn failing_restore(case: &Case<'_>) -> Result<Outcome> {
    let restore = needs!(case.fixture.restore(), NO_RESTORE);
    case.back_up(case.fixture.chains(), &Context::new())?;
    case.fixture.change()?;
    let before = (case.fixture.content()?, names_in(case.fixture.folder())?);
    let stored = case.repository()?.objects(LATEST, &ReadOptions::default(), &Context::new())?;
    for fault in Fault::ALL {
        let faulty = Faulty { inner: &stored, fault };
        let ctx = Context::new();
        // A backend may notice while it plans.
        let result = restore.plan(&faulty, &ctx).and_then(|plan| restore.execute(&plan, &faulty, &ctx));
        expect!(result.is_err(), "{fault:?}: a damaged backup was restored");
        expect!(case.fixture.content()? == before.0, "{fault:?}: the live data changed");
        let after = names_in(case.fixture.folder())?;
        expect!(after == before.1, "{fault:?}: the folder holds {after:?}, before {:?}", before.1);
    }
    Ok(Outcome::Passed)
}

fn cancel_restore(case: &Case<'_>) -> Result<Outcome> {
    let restore = needs!(case.fixture.restore(), NO_RESTORE);
    case.back_up(case.fixture.chains(), &Context::new())?;
    case.fixture.change()?;
    let before = (case.fixture.content()?, names_in(case.fixture.folder())?);
    let stored = case.repository()?.objects(LATEST, &ReadOptions::default(), &Context::new())?;
    let plan = restore.plan(&stored, &Context::new())?;
    let cancelled = Cancel::new();
    cancelled.cancel();
    let result = restore.execute(&plan, &stored, &Context::new().with_cancel(cancelled));
    let kind = result.as_ref().err().map(Error::kind);
    expect!(kind == Some(ErrorKind::Cancelled), "expected Cancelled, seen {}", seen(&result));
    let after = (case.fixture.content()?, names_in(case.fixture.folder())?);
    expect!(after == before, "the live source or its folder changed: {:?}, was {:?}", after.1, before.1);
    Ok(Outcome::Passed)
}

fn chains_inside(case: &Case<'_>) -> Result<Outcome> {
    let chains = needs!(case.chains(), NO_CHAIN);
    let asked = chains.len();
    let outcome = case.back_up(chains, &Context::new())?;
    let reports = outcome.reports.first().map(|source| source.chains.as_slice()).unwrap_or_default();
    expect!(reports.len() == asked, "{} reports on {asked} chains", reports.len());
    for report in reports {
        expect!(report.verdict == Verdict::Intact, "an intact chain: {report:?}");
        expect!(report.records >= 3, "the chain has {} records, fewer than 3", report.records);
    }
    let entries = &outcome.manifest.chains;
    expect!(entries.len() == asked, "the manifest has {} of {asked} chains", entries.len());
    for entry in entries {
        expect!(entry.extends.is_none(), "the first backup extends {:?}", entry.extends);
        expect!(!entry.points.chains.is_empty(), "the manifest does not say where the chain stood");
    }
    Ok(Outcome::Passed)
}

fn verification_agrees(case: &Case<'_>) -> Result<Outcome> {
    let chains = needs!(case.chains(), NO_CHAIN);
    let verify = needs!(case.fixture.chain_verify(), "the backend verifies no live chains");
    let outcome = case.back_up(chains.clone(), &Context::new())?;
    let reports = outcome.reports.first().map(|source| source.chains.as_slice()).unwrap_or_default();
    for (chain, inside) in chains.iter().zip(reports) {
        let live = verify.verify_chain(chain, &Context::new())?;
        expect!(live.chains == inside.chains, "live {:?}, in the snapshot {:?}", live.chains, inside.chains);
        expect!(live.verdict == inside.verdict, "live {:?}, inside {:?}", live.verdict, inside.verdict);
    }
    Ok(Outcome::Passed)
}

fn edited_record(case: &Case<'_>) -> Result<Outcome> {
    let chains = needs!(case.chains(), NO_CHAIN);
    expect!(case.fixture.tamper()?, "the fixture has a chain and cannot tamper with it");
    let outcome = case.back_up(chains.clone(), &Context::new())?;
    let found = outcome.manifest.chains.iter().any(|chain| chain.verdict == Verdict::Findings);
    expect!(found, "the snapshot did not find the edit: {:?}", outcome.manifest.chains);
    if let Some(verify) = case.fixture.chain_verify() {
        let mut found = false;
        for chain in &chains {
            found |= verify.verify_chain(chain, &Context::new())?.verdict == Verdict::Findings;
        }
        expect!(found, "the live verification did not find the edit");
    }
    Ok(Outcome::Passed)
}

fn grown_chain(case: &Case<'_>) -> Result<Outcome> {
    let chains = needs!(case.chains(), NO_CHAIN);
    let first = case.back_up(chains.clone(), &Context::new())?;
    case.fixture.change()?;
    let second = case.back_up(chains, &Context::new())?;
    for entry in &second.manifest.chains {
        let extends = entry.extends.as_ref();
        let ok = extends.is_some_and(|extends| extends.ok && extends.backup == first.id);
        expect!(ok && entry.verdict == Verdict::Intact, "extends {extends:?}, {}", entry.diagnosis);
    }
    Ok(Outcome::Passed)
}

fn cut_chain(case: &Case<'_>) -> Result<Outcome> {
    let chains = needs!(case.chains(), NO_CHAIN);
    case.back_up(chains.clone(), &Context::new())?;
    expect!(case.fixture.truncate()?, "the fixture has a chain and cannot cut it");
    let second = case.back_up(chains, &Context::new())?;
    let cut = second.manifest.chains.iter().any(|entry| {
        entry.extends.as_ref().is_some_and(|extends| !extends.ok) && entry.verdict == Verdict::Findings
    });
    expect!(cut, "the cut was not found: {:?}", second.manifest.chains);
    let reports = second.reports.iter().flat_map(|source| &source.chains);
    let kinds: BTreeSet<FindingKind> =
        reports.flat_map(|report| &report.findings).map(|finding| finding.kind).collect();
    let fit = [FindingKind::Truncated, FindingKind::Rewritten, FindingKind::MissingChain];
    expect!(fit.iter().any(|kind| kinds.contains(kind)), "the cut was found as {kinds:?}");
    Ok(Outcome::Passed)
}
