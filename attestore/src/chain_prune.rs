//! `chain prune`: what is older than an age goes to an archive that is proven, and leaves the chain on record.
//!
//! Called by the command line and the bindings. Reading, archive and checks are here; the one transaction that deletes is the
//! backend's (`backup_sqlite::prune`). Steps: verify the whole chain; cut the oldest records of each chain, a run from its first
//! record to the last one before the first that is young enough; write them to the archive, sync it, read it back; then
//! compare them once more, append the record and delete, in one transaction.
//!
//! When the process dies before that transaction's commit nothing is deleted, and the archive is a copy that the next run
//! replaces; after it the archive is complete and the record is there.
//!
//! Only a `native` chain is pruned. Of the other systems each verifies its chain by itself, and would say that it was tampered with;
//! [`refusal`] says for each what to do instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use audit_chain::export::each_record;
use audit_chain::export::slice::{StartNotes, Starts};
use audit_chain::format::{ChainFormat, Link};
use audit_chain::keys::KeyRing;
use audit_chain::merkle::Frontier;
use audit_chain::native::{NativeKey, kind};
use audit_chain::pruned::{Cut, PruneArchive, PruneBody, root_text};
use audit_chain::report::{ChainReport, Verdict};
use audit_chain::timestamp::Instant;
use audit_chain::verify::{VerifyOptions, verify};
use backup_core::context::Context;
use backup_core::durable::Durable;
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::repository::Age;
use backup_sqlite::prune::{PruneJob, PruneReceipt, prune_native};
use backup_sqlite::table::DEFAULT_BUSY_TIMEOUT;
use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::chain;
use crate::chain_export::{ExportOptions, Writer, chain_error, exists, read_back, shape_of, write_sidecar};
use crate::chain_input::{self, ChainRows, read_sidecar, sidecar_path};
use crate::input::Input;
use crate::postgres::PostgresOptions;

/// What is pruned, and how.
#[derive(Debug, Clone)]
pub struct ChainPruneOptions {
    /// A format's name.
    pub format: String,
    /// The table, where it is not the format's own.
    pub table: Option<String>,
    /// Records older than this may leave.
    pub older_than: Age,
    /// The file that they go to; as CSV where it is named so.
    pub archive: PathBuf,
    /// Secrets at hand, by name.
    pub secrets: Vec<(String, Zeroizing<Vec<u8>>)>,
    /// Only these chains; empty for all.
    pub chains: Vec<String>,
    /// Whether to do it; otherwise it is only planned.
    pub apply: bool,
}

/// What would leave, or has left.
#[derive(Debug, Clone, Serialize)]
pub struct ChainPruned {
    /// Whether rows were deleted.
    pub applied: bool,
    /// The format.
    pub format: String,
    /// What is older than this instant may leave.
    pub cutoff: Timestamp,
    /// How many rows leave.
    pub rows: u64,
    /// The oldest records of each chain that has old ones.
    pub chains: Vec<Cut>,
    /// The file that they go to.
    pub archive: PathBuf,
    /// SHA-256 of the archive, lowercase hex; only when it was written.
    pub archive_sha256: Option<String>,
    /// The archive's size, in bytes; only when it was written.
    pub archive_size_bytes: Option<u64>,
    /// The records of the prune, one a chain.
    pub records: Vec<PruneReceipt>,
    /// What is worth saying.
    pub notes: Vec<String>,
}

/// Prunes the chains of a database, or plans it.
///
/// # Errors
/// [`refusal`] for other formats; `Tampered` when the chain has findings; `KeyRejected` when it cannot be verified with the keys
/// at hand; `AlreadyExists` when something stands at the archive's name; what the backend says. Nothing is deleted then.
pub fn prune_chain(input: &Input, options: &ChainPruneOptions, ctx: &Context) -> Result<ChainPruned> {
    let format = chain::format(&options.format)?;
    if let Some(refused) = refusal(format.as_ref()) {
        return Err(refused);
    }
    let Input::Sqlite(database) = input else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "a native chain is pruned in a SQLite database, and this input is none",
        )
        .with_hint(
            "give the SQLite file; of a server or a file of rows `chain export --to` makes the archive",
        ));
    };
    let cutoff = options.older_than.before(Timestamp::now())?;
    let mut ring = KeyRing::new();
    for (name, value) in &options.secrets {
        ring.add_secret(name, value.to_vec());
    }
    let (cuts, mut notes) = {
        let source = chain_input::open(
            input,
            format.as_ref(),
            options.table.as_deref(),
            &PostgresOptions::default(),
            ctx,
        )?;
        require_intact(&check(&source, format.as_ref(), &ring, ctx)?)?;
        cut(&source, format.as_ref(), cutoff, options, ctx)?
    };
    let mut outcome = ChainPruned {
        applied: false,
        format: format.name().to_owned(),
        cutoff,
        rows: cuts.iter().map(|cut| cut.count).sum(),
        chains: cuts,
        archive: options.archive.clone(),
        archive_sha256: None,
        archive_size_bytes: None,
        records: Vec::new(),
        notes: Vec::new(),
    };
    if outcome.chains.is_empty() {
        notes.push("no chain begins with a record that is old enough".into());
    }
    outcome.notes = notes;
    let stale = stale_archive(input, format.as_ref(), options, ctx)?;
    if !options.apply || outcome.chains.is_empty() {
        return Ok(outcome);
    }
    let archive = write_archive(input, format.as_ref(), &ring, &outcome.chains, stale, options, ctx)?;
    let keys: Vec<NativeKey> =
        options.secrets.iter().filter_map(|(_, value)| NativeKey::new(value).ok()).collect();
    let job = PruneJob {
        table: options.table.as_deref().unwrap_or_else(|| format.table()),
        cuts: &outcome.chains,
        archive: &archive,
        keys: &keys,
        busy_timeout: DEFAULT_BUSY_TIMEOUT,
    };
    match prune_native(database, &job, ctx) {
        Ok(records) => outcome.records = records,
        Err(error) => {
            // Whether a commit that failed was done nobody knows: then the archive stays.
            if !matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::Corrupt) {
                remove_archive(&options.archive)?;
            }
            return Err(error);
        }
    }
    outcome.applied = true;
    outcome.archive_sha256 = Some(archive.sha256);
    outcome.archive_size_bytes = Some(archive.size_bytes);
    Ok(outcome)
}

/// Says why the chain of a system is not pruned, and what to do instead; `None` where it can be.
#[must_use]
pub fn refusal(format: &dyn ChainFormat) -> Option<Error> {
    let (why, instead) = match format.name() {
        "native" => return None,
        "z4j" => (
            "z4j: its audit rows leave only through its own guards, which plain SQLite lacks, with a signed state row and an audit.prune row of its own making; a deletion from outside is what its verifier calls tampering",
            "export first (`attestore chain export … --to CUTOFF`), verify the export, then let z4j remove the same rows: `z4j audit prune --before CUTOFF --apply`",
        ),
        "aegisagent" => (
            "aegisagent: its hourly check begins every tenant's chain at an empty predecessor, and would raise a critical alert for a chain whose oldest receipts are gone",
            "export only (`attestore chain export`); AegisAgent keeps all receipts",
        ),
        "aegisagent-policy" => (
            "aegisagent-policy: triggers of AegisAgent forbid to delete from policy_audit_log",
            "export only (`attestore chain export`)",
        ),
        "caracal" => (
            "caracal: it drops whole partitions by AUDIT_RETENTION_DAYS itself, and its role may not delete rows; single rows that are gone are a break that its sweeper reports for ever",
            "export with a watermark (`attestore chain export … --watermark FILE`) before the retention comes, and keep a checkpoint",
        ),
        "caracal-admin" => (
            "caracal-admin: Caracal keeps its admin log whole and has no rule for what may leave",
            "export only (`attestore chain export`)",
        ),
        "agledger" => (
            "agledger: signed checkpoints and the read log name rows of the vault by position; a vault without them fails AGLedger's own verification",
            "export only (`attestore chain export --format agledger --out DIR`)",
        ),
        _ => (
            "a chain that a profile describes has no place for the record of a prune, so that a deletion would not be evident",
            "export only (`attestore chain export`)",
        ),
    };
    // Refused, nothing changed: exit status 3.
    Some(Error::new(ErrorKind::InUse, format!("cannot prune {why}")).with_hint(instead))
}

/// Verifies all rows.
fn check(source: &ChainRows, format: &dyn ChainFormat, keys: &KeyRing, ctx: &Context) -> Result<ChainReport> {
    let options = VerifyOptions {
        companions: Some(&source.companions),
        cancel: Some(ctx.cancel().flag()),
        max_chains: usize::MAX,
        ..VerifyOptions::default()
    };
    verify(source.rows.as_ref(), format, keys, &options).map_err(chain_error)
}

fn require_intact(report: &ChainReport) -> Result<()> {
    let (kind, hint) = match report.verdict {
        Verdict::Intact => return Ok(()),
        Verdict::Findings => {
            (ErrorKind::Tampered, "look at `attestore chain verify`: what is evidence must not be deleted")
        }
        Verdict::CannotVerify => {
            (ErrorKind::KeyRejected, "give the secrets of the chain with --secret NAME=REF")
        }
    };
    Err(Error::new(kind, format!("the chain is not proven, so nothing is deleted: {}", report.diagnosis))
        .with_hint(hint))
}

/// The oldest records of one chain while they are read.
#[derive(Debug)]
struct Open {
    from: u64,
    to: u64,
    count: u64,
    prev: String,
    head: Link,
    tree: Frontier,
    /// A record that is young enough was met, or one whose time cannot be read.
    ended: bool,
    records: u64,
}

/// Finds the oldest records of each chain.
fn cut(
    source: &ChainRows,
    format: &dyn ChainFormat,
    cutoff: Timestamp,
    options: &ChainPruneOptions,
    ctx: &Context,
) -> Result<(Vec<Cut>, Vec<String>)> {
    if !source.rows.rewind().map_err(chain_error)? {
        return Err(Error::new(ErrorKind::Internal, "the table cannot be read twice"));
    }
    let time = format.time_column().and_then(|column| source.rows.columns().position(column));
    let cutoff = cutoff.as_microsecond();
    let mut chains: BTreeMap<String, Open> = BTreeMap::new();
    each_record(source.rows.as_ref(), format, Some(ctx.cancel().flag()), &mut |row, record| {
        if !options.chains.is_empty() && options.chains.iter().all(|chain| chain != record.chain) {
            return Ok(());
        }
        let number = record.number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default();
        let open = match chains.get_mut(record.chain) {
            Some(open) => open,
            None => chains.entry(record.chain.to_owned()).or_insert_with(|| Open {
                from: number,
                to: 0,
                count: 0,
                prev: record.prev.text(),
                head: Link::Genesis,
                tree: Frontier::new(),
                ended: false,
                records: 0,
            }),
        };
        open.records += 1;
        let at = row.at(time).as_text().and_then(Instant::parse).map(Instant::micros);
        open.ended |= at.is_none_or(|at| at >= cutoff);
        if !open.ended {
            open.to = number;
            open.count += 1;
            open.head = record.link;
            open.tree.push(record.leaf);
        }
        Ok(())
    })
    .map_err(chain_error)?;
    let mut notes = Vec::new();
    if let Some(chain) = options.chains.iter().find(|chain| !chains.contains_key(*chain)) {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no chain {chain:?}")));
    }
    let mut cuts = Vec::new();
    for (chain, open) in chains {
        if open.count == 0 {
            continue;
        }
        if open.count == open.records {
            notes.push(format!(
                "chain {chain:?}: every record is old; only the record of the prune will be left"
            ));
        }
        cuts.push(Cut {
            chain,
            from: open.from,
            to: open.to,
            count: open.count,
            prev: open.prev,
            head: open.head.text(),
            root: root_text(&open.tree.root()),
        });
    }
    Ok((cuts, notes))
}

/// Looks at what stands at the archive's name: nothing, or what a run left that died before it deleted anything.
fn stale_archive(
    input: &Input,
    format: &dyn ChainFormat,
    options: &ChainPruneOptions,
    ctx: &Context,
) -> Result<bool> {
    let archive = &options.archive;
    let there = archive.symlink_metadata().is_ok();
    if !there && sidecar_path(archive).symlink_metadata().is_err() {
        return Ok(false);
    }
    let Some(sidecar) = read_sidecar(archive)? else { return Err(exists(archive)) };
    if !there {
        return Ok(true);
    }
    let source =
        chain_input::open(input, format, options.table.as_deref(), &PostgresOptions::default(), ctx)?;
    let mut recorded = false;
    let mut met: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let body = source.rows.columns().position("body");
    each_record(source.rows.as_ref(), format, Some(ctx.cancel().flag()), &mut |row, record| {
        let number = record.number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default();
        let span = met.entry(record.chain.to_owned()).or_insert((number, number));
        span.1 = number;
        let text = row.at(body).as_text().unwrap_or_default();
        if kind::of(text).as_deref() == Some(kind::PRUNE) {
            recorded |= PruneBody::parse(text).is_some_and(|body| body.archive.sha256 == sidecar.sha256);
        }
        Ok(())
    })
    .map_err(chain_error)?;
    let still_there = |chain: &audit_chain::export::sidecar::SidecarChain| {
        met.get(&chain.id).is_some_and(|(first, last)| *first <= chain.first && chain.last <= *last)
    };
    let only_a_copy = sidecar.pruned && !recorded && sidecar.chains.iter().all(still_there);
    if only_a_copy { Ok(true) } else { Err(exists(archive)) }
}

/// Writes the archive and proves it: what is read back are the very rows that are to go.
fn write_archive(
    input: &Input,
    format: &dyn ChainFormat,
    keys: &KeyRing,
    cuts: &[Cut],
    stale: bool,
    options: &ChainPruneOptions,
    ctx: &Context,
) -> Result<PruneArchive> {
    let out = &options.archive;
    let source =
        chain_input::open(input, format, options.table.as_deref(), &PostgresOptions::default(), ctx)?;
    let last: BTreeMap<&str, u64> = cuts.iter().map(|cut| (cut.chain.as_str(), cut.to)).collect();
    let mut starts = StartNotes::default();
    let mut writer = Writer::new(out, shape_of(out), &source, (&[], &[]))?;
    each_record(source.rows.as_ref(), format, Some(ctx.cancel().flag()), &mut |row, record| {
        let number = record.number.and_then(|number| u64::try_from(number).ok()).unwrap_or(u64::MAX);
        if last.get(record.chain).is_none_or(|to| number > *to) {
            return Ok(());
        }
        starts.see(record, true, true);
        writer.row(row, ctx)
    })
    .map_err(chain_error)?;
    let starts: Starts = starts.finish();
    let (file, mut sidecar) = writer.finish(out, format.name())?;
    let export = ExportOptions { keys: keys.clone(), ..ExportOptions::default() };
    let report = read_back(file.path(), &sidecar, &starts, format, &export, ctx)?;
    require_intact(&report)?;
    prove(cuts, &report)?;
    sidecar.take_chains(&report, &starts);
    sidecar.pruned = true;
    let durable = Durable::new();
    if stale {
        remove_archive(out)?;
    }
    write_sidecar(&durable, &sidecar_path(out), &sidecar)?;
    file.finish_renamed(out)?;
    Ok(PruneArchive { name: sidecar.file, sha256: sidecar.sha256, size_bytes: sidecar.size_bytes })
}

/// Holds what was read back to what is to go.
fn prove(cuts: &[Cut], report: &ChainReport) -> Result<()> {
    for cut in cuts {
        let found = report.chain(&cut.chain);
        let equal = found.is_some_and(|chain| {
            (chain.records, &chain.root, &chain.head) == (cut.count, &cut.root, &cut.head)
        });
        if !equal {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "chain {:?}: expected {} rows with root {} in the archive, found {}",
                    cut.chain,
                    cut.count,
                    cut.root,
                    found.map_or_else(
                        || "none".into(),
                        |chain| format!("{} with root {}", chain.records, chain.root)
                    )
                ),
            )
            .with_hint("the rows changed while they were read: try again"));
        }
    }
    Ok(())
}

fn remove_archive(archive: &Path) -> Result<()> {
    let durable = Durable::new();
    for path in [archive.to_owned(), sidecar_path(archive)] {
        if path.symlink_metadata().is_ok() {
            durable.remove_file(&path)?;
        }
    }
    Ok(())
}
