//! AGLedger: a dump of its vault, verified from the files alone.
//!
//! ```text
//! audit_vault.ndjson                  one row per event; chains by chain_key            entries.rs, vault.rs
//! vault_checkpoints.ndjson            tips of chains, signed                            checkpoints.rs
//! vault_signing_keys.ndjson           the key registry                                  registry.rs
//! vault_key_statements.ndjson         API 2.0: who admitted and closed which key        statements.rs
//! org_admin_reads.ndjson              the read log, a Merkle tree per organisation      reads.rs
//! org_admin_reads_checkpoints.ndjson  its signed tree heads
//! ```
//!
//! Every signed thing is a COSE_Sign1 (`cose.rs`, `claims.rs`); a row's JSON is bound to what was signed (`binding.rs`). A dump
//! without key statements is of API 1.x. The product's names for findings stand first in each sentence (`codes.rs`).
//!
//! There may be a million chains of a few rows, in any order. So this format has its own driver: worker threads check each row by
//! itself, signature and all, and leave a small item (`items.rs`); the items are sorted in bounded memory
//! (`spill.rs`); then one chain after the other goes by, joined with its checkpoints.
//!
//! The registry travels in the dump, so that a key it lacks is a finding, not "cannot verify". Only rows without any registry
//! (the vault's file alone) cannot be verified. Zero rows are a finding: nothing was verified.
//! What nobody can see from the files: rows cut after the last checkpoint, whole chains and all checkpoints gone. An earlier
//! checkpoint of this library's own ([`crate::checkpoint`]) shows them.

mod binding;
mod chains;
mod checkpoints;
mod claims;
mod codes;
mod cose;
mod dump;
mod entries;
mod export;
mod findings;
mod hex_tree;
mod items;
mod reads;
mod registry;
mod registry_csv;
mod statements;
mod times;
mod vault;

use std::borrow::Cow;
use std::sync::Arc;

pub use codes::kinds_of;
pub use dump::AgledgerDump;
pub use export::{DumpFile, DumpSummary, SUMMARY, check_dump, write_dump};
pub use registry_csv::{REGISTRY_COLUMNS, RegistryDifference, compare_registries, registry_csv};

use checkpoints::{CHECKPOINTS, CheckpointReading};
use entries::{EntryReading, EntryRule, VAULT};
use findings::Findings;
use items::{Items, Signed};
use reads::{HEADS, HeadReading, LeafReading, READS};
use registry::{JsonRow, KEYS, Registry};
use statements::STATEMENTS;
use vault::Points;

use crate::diagnose;
use crate::error::{Error, Result};
use crate::format::{ChainFormat, Fault, LinkRules, Record, RecordRule, Seal, Setup};
use crate::json_rows::NdjsonSource;
use crate::keys::KeyRing;
use crate::pipeline::{self, Reading};
use crate::report::{
    ChainReport, ChainSummary, Finding, FindingKind, MAX_LISTED_CHAINS, Note, NoteKind, Trust, Verdict,
};
use crate::source::RowSource;
use crate::spill::{Sorted, Sorter};
use crate::value::{Columns, Row};
use crate::verify::{VerifyOptions, plural};

/// How often progress is told, in rows.
const PROGRESS_EVERY: u64 = 4_096;

/// The format of AGLedger's vault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Agledger;

/// Which of the two APIs wrote a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    /// API 1.x (engines 0.25 to 1.8): five files.
    One,
    /// API 2.0: key statements, claims of checkpoints and leaves, trees of RFC 9162.
    Two,
}

impl ChainFormat for Agledger {
    fn name(&self) -> &str {
        "agledger"
    }

    fn table(&self) -> &str {
        VAULT
    }

    fn columns(&self) -> &[&str] {
        &entries::COLUMNS
    }

    fn time_column(&self) -> Option<&str> {
        Some("created_at")
    }

    fn companions(&self) -> &[&str] {
        &[KEYS, STATEMENTS, CHECKPOINTS, READS, HEADS]
    }

    fn links(&self) -> LinkRules {
        LinkRules { numbered: true, clock: false }
    }

    fn bind(&self, columns: &Columns, setup: &Setup<'_>) -> Result<Box<dyn RecordRule>> {
        check_columns(columns, "the input")?;
        let rows = |table: &str| setup.companions.get(table).map(Vec::as_slice);
        let (registry, _) = Registry::build(rows(KEYS), rows(STATEMENTS), setup.keys)?;
        let registry = Arc::new(registry);
        Ok(Box::new(Rule { rule: EntryRule::new(columns, Arc::clone(&registry)), registry }))
    }

    fn verify_whole(
        &self,
        source: &dyn RowSource,
        keys: &KeyRing,
        options: &VerifyOptions<'_>,
    ) -> Option<Result<ChainReport>> {
        Some(verify(source, keys, options))
    }
}

/// Refuses a source that is no vault: most of the columns that say what a row is are not there.
fn check_columns(columns: &Columns, input: &str) -> Result<()> {
    const TELLING: [&str; 6] =
        ["chain_position", "payload_hash", "previous_hash", "cose_sign1", "entry_type", "actor_key_id"];
    let missing: Vec<&str> =
        TELLING.into_iter().filter(|column| columns.position(column).is_none()).collect();
    // A source without a header has no rows; single columns may be missing in the first row alone.
    if missing.len() <= 2 || columns.names().is_empty() {
        return Ok(());
    }
    Err(Error::NotThisFormat {
        input: input.to_owned(),
        format: "agledger".into(),
        what: format!("no column {}; found {}", missing.join(", "), columns.names().join(", ")),
    })
}

/// The rule of a row for callers that walk rows themselves.
struct Rule {
    rule: EntryRule,
    registry: Arc<Registry>,
}

impl RecordRule for Rule {
    fn record(&mut self, row: &Row<'_>, emit: &mut dyn FnMut(Record<'_>) -> Result<()>) -> Result<()> {
        let (chain, item) = self.rule.read(row);
        let faults = item.flaw.into_iter().map(|flaw| Fault {
            kind: flaw.code.kind(),
            explains: format!("{}: {}", flaw.code.name(), flaw.explains),
            expected: flaw.expected,
            found: flaw.found,
        });
        emit(Record {
            chain: &chain,
            id: &item.id,
            number: item.place,
            prev: item.prev,
            link: item.link,
            leaf: item.row_leaf,
            seal: match item.signed {
                Signed::No => Seal::None,
                Signed::By(key) | Signed::Accounted(key) => Seal::Verified(key),
                Signed::Unproven => Seal::Bad,
            },
            faults: faults.collect(),
            ..Record::default()
        })
    }

    fn key_labels(&self) -> Vec<String> {
        self.registry.labels()
    }
}

/// What the walks add up.
struct Whole {
    findings: Findings,
    chains: Vec<ChainSummary>,
    chains_total: u64,
    max_chains: usize,
    records: u64,
    signed: u64,
    unsigned: u64,
    /// How many signatures were proven under a key that an anchor reaches.
    anchored: u64,
    accounted: u64,
    /// How many checkpoints name their chain by a derived id only.
    underived: u64,
    witnessed: u64,
    registry: Arc<Registry>,
}

impl Whole {
    /// Reports whether the next chain will be listed.
    const fn lists_more(&self) -> bool {
        self.chains.len() < self.max_chains
    }

    /// Counts a signature.
    fn count(&mut self, signed: Signed) {
        match signed {
            Signed::By(key) if self.registry.anchored => {
                self.anchored += u64::from(self.registry.key(key).is_some_and(|key| key.anchored));
            }
            Signed::Accounted(_) => self.accounted += 1,
            _ => {}
        }
    }

    /// Ends a chain.
    fn end(&mut self, chain: chains::Chain) {
        self.chains_total += 1;
        self.records += chain.records;
        self.signed += chain.signed;
        self.unsigned += chain.unsigned;
        if self.lists_more() {
            let summary = chain.summary(&self.registry);
            self.chains.push(summary);
        }
    }
}

/// The tables beside the vault, wherever they are.
struct Beside<'o> {
    options: &'o VerifyOptions<'o>,
}

impl<'o> Beside<'o> {
    /// Opens a table; `None` when the input does not have it.
    fn open(&self, table: &str) -> Result<Option<Opened<'o>>> {
        if let Some(source) = self.options.tables.and_then(|tables| tables.get(table)) {
            return Ok(Some(Opened::Borrowed(source.as_ref())));
        }
        let Some(rows) = self.options.companions.and_then(|companions| companions.get(table)) else {
            return Ok(None);
        };
        let mut text = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut text, row)
                .map_err(|error| Error::InvalidInput(format!("{table}: {error}")))?;
            text.push(b'\n');
        }
        Ok(Some(Opened::Owned(Box::new(NdjsonSource::once(table, std::io::Cursor::new(text))?))))
    }

    /// Reads a small table whole.
    fn rows(&self, table: &str) -> Result<Option<Cow<'o, [JsonRow]>>> {
        if let Some(source) = self.options.tables.and_then(|tables| tables.get(table)) {
            return read_whole(source.as_ref()).map(|rows| Some(Cow::Owned(rows)));
        }
        let rows = self.options.companions.and_then(|companions| companions.get(table));
        Ok(rows.map(|rows| Cow::Borrowed(rows.as_slice())))
    }
}

/// A table that was opened.
enum Opened<'o> {
    Borrowed(&'o dyn RowSource),
    Owned(Box<dyn RowSource + 'o>),
}

impl<'o> Opened<'o> {
    fn source(&self) -> &(dyn RowSource + 'o) {
        match self {
            Self::Borrowed(source) => *source,
            Self::Owned(source) => source.as_ref(),
        }
    }
}

/// Reads a small table's rows as JSON.
fn read_whole(source: &dyn RowSource) -> Result<Vec<JsonRow>> {
    let mut form = crate::canonical::RowForm::new(source.columns());
    let mut rows = Vec::new();
    let mut reader = source.reader()?;
    while reader
        .read_chunk(&mut |row| {
            let line = form.line(row);
            let row = serde_json::from_slice(line).map_err(|error| Error::Malformed {
                input: source.name(),
                place: format!("row {}", rows.len() + 1),
                what: error.to_string(),
            })?;
            rows.push(row);
            Ok(())
        })?
        .is_some()
    {}
    source.rewind()?;
    Ok(rows)
}

/// Reads a table on all cores and sorts what is kept of its rows. Returns how many there were.
fn sorted<R: Reading<Batch = Items>>(
    source: &dyn RowSource,
    options: &VerifyOptions<'_>,
    told: &mut u64,
    start: &(dyn Fn() -> R + Sync),
) -> Result<(Sorted, u64)> {
    let mut sorter = Sorter::new(options.scratch);
    let mut rows = 0;
    let base = *told;
    let mut last = base;
    pipeline::read(source, options.thread_count(), options.cancel, &|_| Ok(start()), &mut |items: Items| {
        rows += items.len() as u64;
        items.each(|key, body| sorter.push(key, body))?;
        if let Some(progress) = options.progress
            && base + rows >= last + PROGRESS_EVERY
        {
            last = base + rows;
            progress(last);
        }
        Ok(())
    })?;
    *told = base + rows;
    if let Some(progress) = options.progress {
        progress(*told);
    }
    Ok((sorter.finish()?, rows))
}

/// Verifies a dump.
fn verify(source: &dyn RowSource, keys: &KeyRing, options: &VerifyOptions<'_>) -> Result<ChainReport> {
    check_columns(source.columns(), &source.name()).map_err(|error| pipeline::name_input(error, source))?;
    let beside = Beside { options };
    let statements = beside.rows(STATEMENTS)?;
    let era = if statements.is_some() { Era::Two } else { Era::One };
    let (registry, about_keys) = Registry::build(beside.rows(KEYS)?.as_deref(), statements.as_deref(), keys)?;
    let registry = Arc::new(registry);
    let mut told = 0;
    let (rows, vault_rows) = sorted(source, options, &mut told, &|| {
        EntryReading(EntryRule::new(source.columns(), Arc::clone(&registry)))
    })?;
    let mut whole = Whole {
        findings: Findings::new(),
        chains: Vec::new(),
        chains_total: 0,
        max_chains: match options.max_chains {
            0 => MAX_LISTED_CHAINS,
            some => some,
        },
        records: 0,
        signed: 0,
        unsigned: 0,
        anchored: 0,
        accounted: 0,
        underived: 0,
        witnessed: 0,
        registry: Arc::clone(&registry),
    };
    let mut points: Points = match options.checkpoint {
        Some(checkpoint) if checkpoint.format == "agledger" => {
            checkpoint.chains.iter().map(|point| (point.id.clone(), point.clone())).collect()
        }
        Some(checkpoint) => {
            whole.findings.whole(other_format(&checkpoint.format));
            Points::new()
        }
        None => Points::new(),
    };
    let table = |name: &str, told: &mut u64, era: Era| -> Result<Sorted> {
        let Some(table) = beside.open(name)? else { return Sorter::new(options.scratch).finish() };
        let (source, keys) = (table.source(), || Arc::clone(&registry));
        let columns = source.columns();
        let sorted = match name {
            CHECKPOINTS => sorted(source, options, told, &|| CheckpointReading::new(columns, keys(), era)),
            READS => sorted(source, options, told, &|| LeafReading::new(columns, keys(), era)),
            _ => sorted(source, options, told, &|| HeadReading::new(columns, keys(), era)),
        };
        sorted.map(|(sorted, _)| sorted)
    };
    let checkpoints = table(CHECKPOINTS, &mut told, era)?;
    if vault_rows == 0 {
        // The other files must be readable all the same.
        drop((table(READS, &mut told, era)?, table(HEADS, &mut told, era)?));
        return Ok(empty(whole, points));
    }
    about_keys.into_iter().for_each(|finding| whole.findings.whole(finding));
    vault::walk(rows, checkpoints, &mut points, &mut whole)?;
    let leaves = table(READS, &mut told, era)?;
    let heads = table(HEADS, &mut told, era)?;
    reads::walk(leaves, heads, era, &mut points, &mut whole)?;
    gone(points, &mut whole);
    Ok(report(whole, &registry))
}

/// Says that a checkpoint is of another format.
fn other_format(format: &str) -> Finding {
    Finding {
        kind: FindingKind::CheckpointMismatch,
        chain: String::new(),
        position: None,
        last: None,
        record: None,
        expected: Some(format.to_owned()),
        found: Some("agledger".into()),
        explains: "the checkpoint is of another format".into(),
    }
}

/// Says that the vault has no rows.
fn empty(mut whole: Whole, points: Points) -> ChainReport {
    let flaw = codes::Flaw::new(
        codes::Code::ChainEmpty,
        "audit_vault has no rows: nothing was verified, and an empty vault is not a good one",
    );
    whole.findings.flaw(flaw, findings::Place { chain: "", position: None, record: "" });
    gone(points, &mut whole);
    let registry = Arc::clone(&whole.registry);
    report(whole, &registry)
}

/// Says which chains of the caller's checkpoint are not here.
fn gone(points: Points, whole: &mut Whole) {
    for point in points.into_values().filter(|point| point.records > 0) {
        whole.findings.whole(Finding {
            kind: FindingKind::MissingChain,
            chain: point.id,
            position: None,
            last: None,
            record: None,
            expected: Some(format!("{} records, head {}", point.records, point.head)),
            found: None,
            explains: "the chain was here at the checkpoint and is gone".into(),
        });
    }
}

/// Makes the report.
fn report(mut whole: Whole, registry: &Registry) -> ChainReport {
    let keyless = !registry.present && whole.signed > 0 && whole.findings.only_keys();
    let verdict = match (whole.findings.total, keyless) {
        (_, true) => Verdict::CannotVerify,
        (0, false) => Verdict::Intact,
        _ => Verdict::Findings,
    };
    let trust = match verdict {
        Verdict::Intact if whole.anchored > 0 => Trust::Trusted,
        Verdict::Intact => Trust::Unanchored,
        _ => Trust::Failed,
    };
    let notes = notes(&whole);
    whole.findings.listed.sort_by(|left, right| {
        (&left.chain, left.position, left.kind).cmp(&(&right.chain, right.position, right.kind))
    });
    whole.chains.sort_by(|left, right| left.id.cmp(&right.id));
    let mut report = ChainReport {
        ok: verdict == Verdict::Intact,
        verdict,
        format: "agledger".into(),
        records: whole.records,
        chains: whole.chains,
        chains_total: whole.chains_total,
        trust: Some(trust),
        findings: whole.findings.listed,
        findings_total: whole.findings.total,
        notes,
        diagnosis: String::new(),
    };
    report.diagnosis = diagnose::sentence(&report);
    report
}

/// Says what is worth saying.
fn notes(whole: &Whole) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut note = |kind, explains: String| {
        notes.push(Note { kind, chain: String::new(), position: None, last: None, explains });
    };
    if whole.unsigned > 0 {
        let records = plural(whole.records, "record");
        note(NoteKind::UnsignedSpan, format!("{} of {records} carry no signature", whole.unsigned));
    }
    if whole.accounted > 0 {
        let records = plural(whole.accounted, "record");
        note(
            NoteKind::Rotated,
            format!(
                "CHAIN_SIGNED_BY_DISTRUSTED_KEY: {records} signed by a distrusted key before a trusted key retired it"
            ),
        );
    }
    if whole.underived > 0 {
        let checkpoints = plural(whole.underived, "checkpoint");
        note(
            NoteKind::NotChecked,
            format!(
                "{checkpoints} without chain_key name a schema chain by a derived id and could not be joined"
            ),
        );
    }
    if whole.witnessed > 0 {
        let heads = plural(whole.witnessed, "tree head");
        note(NoteKind::NotChecked, format!("{heads} with a witness's signature, which is not checked"));
    }
    notes
}
