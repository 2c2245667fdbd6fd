//! Verifies the chains in a source: the one call behind every language and every backend.
//!
//! Streams in constant memory on all cores: [`crate::pipeline`] reads and hashes, the walk checks the links in
//! order, a second pass is made only where links do not fit; rows in another order than the chain's are sorted on disk first. The result is a [`ChainReport`];
//! an error means that the source could not be read, never that it is wrong.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::{ChainCheckpoint, ChainPoint};
use crate::diagnose;
use crate::earlier::{ChainDifferences, RowDifferences, RowSpan};
use crate::error::{Error, Result};
use crate::export::slice::{SliceStart, Starts};
use crate::format::{ChainFormat, Companions, Link, Setup, Start, Tables};
use crate::keys::KeyRing;
use crate::lineage::{self, Lineage, Tail};
use crate::order::{Sorted, Sorter};
use crate::pipeline::{self, Batch};
use crate::report::{ChainReport, ChainSummary, Finding, FindingKind, Note, NoteKind, Verdict};
use crate::resolve::{self, Search};
use crate::retention::{self, Parts};
use crate::source::RowSource;
use crate::walk::{Break, ChainState, Standing, Walk};

/// How often progress is told, in records.
const PROGRESS_EVERY: u64 = 16_384;

/// What a verification may be given besides the keys.
#[derive(Default)]
pub struct VerifyOptions<'a> {
    /// How many threads read and hash; 0 means one per core.
    pub threads: usize,
    /// The small tables that the format reads besides the rows, where the input has them.
    pub companions: Option<&'a Companions>,
    /// The tables that the format reads besides the rows and that may be large; they go before `companions`.
    pub tables: Option<&'a Tables<'a>>,
    /// How many chains the report lists where a format has very many short ones; 0 means
    /// [`MAX_LISTED_CHAINS`](crate::report::MAX_LISTED_CHAINS). A checkpoint wants all: `usize::MAX`.
    pub max_chains: usize,
    /// Where what does not fit in memory is sorted; `None` means the system's folder for temporary files.
    pub scratch: Option<&'a Path>,
    /// An earlier checkpoint that the chains must extend.
    pub checkpoint: Option<&'a ChainCheckpoint>,
    /// What became of the rows of an older copy ([`crate::earlier::compare_rows`]), verified against `checkpoint` or its own.
    pub earlier: Option<&'a RowDifferences>,
    /// Where to put what the chains have after the checkpoint, for the record of a restore ([`crate::lineage`]).
    pub tails: Option<&'a Mutex<Vec<Tail>>>,
    /// Where runs of rows begin that follow others which the input does not hold, because it is a part of a chain on purpose.
    pub starts: Option<&'a Starts>,
    /// A flag that stops the work.
    pub cancel: Option<&'a AtomicBool>,
    /// Called now and then with the records done.
    pub progress: Option<&'a dyn Fn(u64)>,
}

impl std::fmt::Debug for VerifyOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyOptions")
            .field("threads", &self.threads)
            .field("checkpoint", &self.checkpoint)
            .finish_non_exhaustive()
    }
}

impl VerifyOptions<'_> {
    /// Returns how many threads read and hash.
    pub(crate) fn thread_count(&self) -> usize {
        thread_count(self.threads)
    }
}

/// Returns how many threads 0 stands for.
pub(crate) fn thread_count(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        some => some,
    }
}

/// Verifies every chain in `source`.
///
/// # Errors
/// When the source cannot be read, does not have the format's columns, or the work is cancelled.
/// What is wrong with the chains is in the report.
pub fn verify(
    source: &dyn RowSource,
    format: &dyn ChainFormat,
    keys: &KeyRing,
    options: &VerifyOptions<'_>,
) -> Result<ChainReport> {
    if let Some(report) = format.verify_whole(source, keys, options) {
        return report;
    }
    let threads = options.thread_count();
    let points = options.checkpoint.map(|checkpoint| checkpoint.chains.clone()).unwrap_or_default();
    let none = Companions::new();
    let setup = Setup { keys, companions: options.companions.unwrap_or(&none) };
    let work = Work { source, format, setup: &setup, threads, options };
    let (mut walk, sorted) = work.walk(points)?;
    if let Some(progress) = options.progress {
        progress(walk.records);
    }
    walk.close(format.seals());
    let fits = options.checkpoint.is_some_and(|checkpoint| checkpoint.format == format.name());
    let taken_whole = if fits { excuse(&mut walk) } else { Vec::new() };
    work.explain_breaks(sorted, &mut walk)?;
    note_starts(options.starts, &mut walk);
    let lineage = Lineage::judge(format, keys, &mut walk);
    compare(&work, &taken_whole, &lineage, &mut walk);
    format.conclude(&setup, &mut walk.conclusion())?;
    if let Some(tails) = options.tails {
        *tails.lock().unwrap_or_else(PoisonError::into_inner) = lineage::tails(&mut walk);
    }
    walk.join_bare();
    Ok(report(format, walk))
}

/// Notes what retention took since the checkpoint; returns the chains of which it took everything.
fn excuse(walk: &mut Walk) -> Vec<String> {
    let mut whole = Vec::new();
    for (id, excuse) in retention::excuse(walk) {
        walk.notes.push(excuse.note());
        match walk.chains.iter_mut().find(|chain| chain.id == id) {
            Some(chain) => chain.excuse = Some(excuse),
            None => whole.push(id),
        }
    }
    whole
}

/// Notes which chains begin behind rows that the input leaves out on purpose.
fn note_starts(starts: Option<&Starts>, walk: &mut Walk) {
    for (id, starts) in starts.into_iter().flatten() {
        let Some(chain) = walk.by_id(id) else { continue };
        let position = u64::try_from(chain.first).ok();
        walk.notes.push(Note {
            kind: NoteKind::RetentionGap,
            chain: id.clone(),
            position,
            last: None,
            explains: match starts.as_slice() {
                [start] => format!(
                    "the input is a part of the chain and begins behind the record {}: what was before is not in it",
                    start.prev
                ),
                starts => format!(
                    "the input holds {} parts of the chain, the first behind the record {}: what was before and between them is not in it",
                    starts.len(),
                    starts.first().map_or("", |start| start.prev.as_str())
                ),
            },
        });
    }
}

/// What all passes over the rows need.
struct Work<'a> {
    source: &'a dyn RowSource,
    format: &'a dyn ChainFormat,
    setup: &'a Setup<'a>,
    threads: usize,
    options: &'a VerifyOptions<'a>,
}

impl Work<'_> {
    /// Walks all records, in chain order: as they come while they come so, else sorted. A source that can
    /// be read only once has no second try, so its records are kept at once.
    fn walk(&self, points: Vec<ChainPoint>) -> Result<(Walk, Option<Sorted>)> {
        let ordered = !self.format.order().is_empty();
        if !ordered || self.source.rewind()? {
            let mut walk = self.fresh(points.clone());
            let mut told = 0;
            match self.read(&mut |batch| self.step(&mut walk, batch, &mut told)) {
                Err(_) if walk.disordered && self.source.rewind()? => {}
                result => return result.map(|()| (walk, None)),
            }
        }
        let mut sorter = Sorter::new(self.options.scratch);
        self.read(&mut |batch| sorter.push(&batch))?;
        let mut sorted = sorter.finish()?;
        let mut walk = self.fresh(points);
        let mut told = 0;
        sorted.replay(&mut |batch| self.step(&mut walk, batch, &mut told))?;
        Ok((walk, Some(sorted)))
    }

    /// Starts a walk.
    fn fresh(&self, points: Vec<ChainPoint>) -> Walk {
        let wanted = lineage::wanted(self.format, self.setup.keys);
        Walk::new(self.format, points).keeping(wanted, self.options.tails.is_some())
    }

    /// Says where a chain begins.
    fn start(&self, chain: &str) -> Start {
        let start = self.format.start(chain, self.setup);
        match self.options.starts.and_then(|starts| starts.get(chain)?.first()) {
            Some(slice) => {
                Start { link: slice.link(), number: slice.number.unwrap_or(start.number), watch: start.watch }
            }
            None => start,
        }
    }

    /// Takes one batch into the walk.
    fn step(&self, walk: &mut Walk, batch: Batch, told: &mut u64) -> Result<()> {
        if self.options.cancel.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(Error::Cancelled);
        }
        walk.consume(batch, &|chain| self.start(chain))?;
        if let Some(progress) = self.options.progress
            && walk.records >= *told + PROGRESS_EVERY
        {
            *told = walk.records;
            progress(*told);
        }
        Ok(())
    }

    /// Reads one pass of the source.
    fn read(&self, consume: &mut dyn FnMut(Batch) -> Result<()>) -> Result<()> {
        pipeline::run(self.source, self.format, self.setup, self.threads, self.options.cancel, consume)
    }

    /// Reads the records again where links do not fit, and turns those places into findings.
    fn explain_breaks(&self, sorted: Option<Sorted>, walk: &mut Walk) -> Result<()> {
        let begins = |found: &Break, walk: &Walk| {
            let starts = self.options.starts.and_then(|starts| starts.get(&walk.chains[found.chain].id));
            let begins = |start: &SliceStart| start.number == found.number && start.link() == found.prev;
            starts.is_some_and(|starts| starts.iter().any(begins))
        };
        let excused = |found: &Break, walk: &Walk| {
            begins(found, walk)
                || walk.chains[found.chain].excuse.as_ref().is_some_and(|excuse| excuse.covers(found))
        };
        let breaks = std::mem::take(&mut walk.breaks);
        let breaks: Vec<Break> = breaks.into_iter().filter(|found| !excused(found, walk)).collect();
        walk.breaks = breaks;
        // Where the records are numbered and the link fits, nothing needs to be looked for.
        let numbered = self.format.links().numbered;
        let puzzling = |found: &Break| !numbered || (found.place > 1 && found.prev != found.head);
        let mut search = None;
        if walk.breaks.iter().any(puzzling) {
            let mut questions = Search::new(walk);
            let mut answer = |batch: Batch| {
                questions.consume(&batch);
                Ok(())
            };
            if let Some(mut sorted) = sorted {
                sorted.replay(&mut answer)?;
                search = Some(questions);
            } else if self.source.rewind()? {
                self.read(&mut answer)?;
                search = Some(questions);
            }
        }
        let breaks = std::mem::take(&mut walk.breaks);
        for found in &breaks {
            let id = walk.chains[found.chain].id.clone();
            let set_back = |search: &Search| found.sound && search.names_a_later_one(&id, found);
            if self.format.order_is_sealed() && search.as_ref().is_some_and(set_back) {
                walk.notes.push(Note {
                    kind: NoteKind::ClockStepBack,
                    chain: id,
                    position: Some(found.place),
                    last: None,
                    explains: "the record verifies and names a later one as its predecessor: the clock was set back before it was written".into(),
                });
                continue;
            }
            walk.report(resolve::explain(self.format.links(), &id, found, search.as_ref()));
        }
        walk.breaks = breaks;
        walk.findings_total += walk.breaks_more;
        Ok(())
    }
}

/// Compares the chains with where they stood at the checkpoint.
fn compare(work: &Work<'_>, taken_whole: &[String], lineage: &Lineage, walk: &mut Walk) {
    let (format, earlier) = (work.format, work.options.earlier);
    let mut sanctioned = Vec::new();
    let Some(checkpoint) = work.options.checkpoint else {
        walk.notes.extend(lineage.notes(&sanctioned, walk));
        return;
    };
    if checkpoint.format != format.name() {
        walk.report(Finding {
            kind: FindingKind::CheckpointMismatch,
            chain: String::new(),
            position: None,
            last: None,
            record: None,
            expected: Some(checkpoint.format.clone()),
            found: Some(format.name().to_owned()),
            explains: "the checkpoint is of another format".into(),
        });
        return;
    }
    let (mut found, mut noted) = (Vec::new(), Vec::new());
    for point in walk.unmet_points() {
        if point.records == 0 || taken_whole.contains(&point.id) {
            continue;
        }
        // A removal on record may have taken the whole chain, up to the checkpoint's head or to the older copy's last row.
        let boundary = work.start(&point.id).link;
        let last = earlier
            .and_then(|earlier| earlier.chains.get(&point.id)?.gone_last.as_ref())
            .map_or_else(|| Link::of_head(&point.head), |gone| gone.last.link);
        if matches!(boundary, Link::Digest(_)) && boundary == last {
            noted.push(Note {
                kind: NoteKind::RetentionGap,
                chain: point.id.clone(),
                position: Some(1),
                last: Some(point.records),
                explains: format!(
                    "all {} of the checkpoint were removed on record: the removal ends at its head",
                    plural(point.records, "record")
                ),
            });
        } else {
            match lineage.excuse(&point, walk) {
                Ok(note) => sanctioned.push(note),
                Err(_) => found.push(missing_chain(&point, walk)),
            }
        }
    }
    for point in &checkpoint.chains {
        let Some(chain) = walk.by_id(&point.id) else { continue };
        let by_row = earlier.and_then(|earlier| earlier.chains.get(&point.id));
        let mut differs = Vec::new();
        if let Some(differences) = by_row {
            // Which rows differ says more than that some do; only signatures are counted, not compared.
            let all = compare_chain(point, &chain.standing());
            let excused = chain.excuse.is_some();
            differs
                .extend(all.into_iter().filter(|finding| finding.kind == FindingKind::Stripped && !excused));
            let (findings, notes) = name_rows(&point.id, differences, chain, &walk.findings);
            differs.extend(findings);
            noted.extend(notes);
        } else if chain.excuse.is_none() {
            differs = compare_chain(point, &chain.standing());
        }
        let set_back =
            |finding: &Finding| matches!(finding.kind, FindingKind::Truncated | FindingKind::Rewritten);
        if differs.iter().any(set_back) {
            match lineage.excuse(point, walk) {
                Ok(note) => {
                    sanctioned.push(note);
                    differs.clear();
                }
                Err(why) => differs
                    .iter_mut()
                    .filter(|finding| set_back(finding))
                    .for_each(|finding| finding.explains.push_str(&why)),
            }
        }
        found.extend(differs);
    }
    walk.notes.extend(lineage.notes(&sanctioned, walk));
    walk.notes.extend(sanctioned);
    for finding in found {
        walk.report(finding);
    }
    walk.notes.extend(noted);
}

/// Names the rows of a chain that are not those of the older copy; what the walk has found already is not said again.
fn name_rows(
    id: &str,
    differences: &ChainDifferences,
    chain: &ChainState,
    found: &[Finding],
) -> (Vec<Finding>, Vec<Note>) {
    let (mut findings, mut notes) = (Vec::new(), Vec::new());
    let known = |kinds: &[FindingKind], span: &RowSpan| {
        let within = |finding: &&Finding| {
            let from = finding.position.unwrap_or(0);
            let to = finding.last.unwrap_or(from);
            finding.chain == id
                && kinds.contains(&finding.kind)
                && from <= span.first.position.min(span.last.position)
                && span.last.position.max(span.first.position) <= to
        };
        found.iter().any(|finding| within(&finding))
    };
    let mut name = |kind, span: &RowSpan, explains: String| {
        findings.push(Finding {
            kind,
            chain: id.to_owned(),
            position: Some(span.first.position.min(span.last.position)),
            last: (span.records > 1).then_some(span.last.position.max(span.first.position)),
            record: Some(span.first.id.clone()).filter(|id| !id.is_empty()),
            expected: Some(span.first.link.text()).filter(|link| !link.is_empty()),
            found: None,
            explains,
        });
    };
    let rows = |span: &RowSpan| plural(span.records, "record");
    let content = [FindingKind::Edited, FindingKind::SignatureInvalid, FindingKind::Malformed];
    // A row that stands elsewhere has another number, which no hash covers.
    let unhashed = |span: &&RowSpan| !known(&content, span) && !known(&[FindingKind::Reordered], span);
    for span in differences.unhashed.iter().filter(unhashed) {
        name(
            FindingKind::UnhashedEdited,
            span,
            format!("{}: columns outside the system's own hash are not as in the earlier copy", rows(span)),
        );
    }
    for span in differences.rehashed.iter().filter(|span| !known(&content, span)) {
        name(
            FindingKind::Rewritten,
            span,
            format!("{}: not the rows of the earlier copy; they were written and hashed anew", rows(span)),
        );
    }
    for span in &differences.put_in {
        name(
            FindingKind::Rewritten,
            span,
            format!("{} of which the earlier copy knows nothing, before records that it has", rows(span)),
        );
    }
    let excused = chain.excuse.is_some();
    let boundary = chain.standing().boundary;
    if !excused {
        for span in &differences.gone_between {
            // The walk puts a gap at the record behind it.
            let behind = |finding: &&Finding| {
                finding.chain == id && matches!(finding.kind, FindingKind::Missing | FindingKind::LinkBroken)
            };
            if found.iter().filter(behind).count() < differences.gone_between.len() {
                name(
                    FindingKind::Missing,
                    span,
                    format!("{} of the earlier copy, between others, are gone", rows(span)),
                );
            }
        }
        if let Some(span) = &differences.gone_last {
            let all = span.records == differences.earlier_records;
            match boundary {
                Some(link) if all && link == span.last.link => notes.push(removed(id, span, differences)),
                Some(_) if all => name(
                    FindingKind::CheckpointMismatch,
                    span,
                    "all records of the earlier copy are gone; records were removed on record since, so they may be among those: a newer copy tells".to_owned(),
                ),
                _ => name(
                    FindingKind::Truncated,
                    span,
                    format!("the last {} of the earlier copy are gone", rows(span)),
                ),
            }
        }
    }
    if let Some(span) = differences.gone_first.as_ref().filter(|_| !excused) {
        let said =
            found.iter().any(|finding| finding.chain == id && finding.kind == FindingKind::MissingHead);
        if boundary == Some(span.last.link) {
            notes.push(removed(id, span, differences));
        } else if !said {
            name(
                FindingKind::MissingHead,
                span,
                format!(
                    "the first {} of the earlier copy are gone, and no removal on record ends there",
                    rows(span)
                ),
            );
        }
    }
    (findings, notes)
}

/// Notes that the oldest records of an earlier copy were removed on record.
fn removed(id: &str, span: &RowSpan, differences: &ChainDifferences) -> Note {
    let kept = differences.earlier_records - span.records;
    let how = match kept {
        0 => "none of the others were in it".to_owned(),
        _ if differences.same == kept => format!("the other {kept} are here, byte for byte"),
        _ => format!("of the other {kept}, {} are here byte for byte", differences.same),
    };
    Note {
        kind: NoteKind::RetentionGap,
        chain: id.to_owned(),
        position: Some(span.first.position),
        last: Some(span.last.position),
        explains: format!(
            "the oldest {} of the earlier copy were removed on record; {how}",
            plural(span.records, "record")
        ),
    }
}

/// Says that a chain of the checkpoint is gone, and whether another carries its head.
fn missing_chain(point: &ChainPoint, walk: &Walk) -> Finding {
    let head = Link::of_head(&point.head);
    let heir = walk
        .chains
        .iter()
        .find(|chain| chain.head == head && !matches!(head, Link::Genesis | Link::Unstated));
    Finding {
        kind: FindingKind::MissingChain,
        chain: point.id.clone(),
        position: None,
        last: None,
        record: None,
        expected: Some(format!("{} records, head {}", point.records, point.head)),
        found: heir.map(|chain| format!("chain {:?} has that head", chain.id)),
        explains: match heir {
            Some(chain) => format!("the chain is gone; its records are now said to be of {:?}", chain.id),
            None => "the chain was here at the checkpoint and is gone".into(),
        },
    }
}

/// Says what differs between a chain and where it stood at the checkpoint.
pub(crate) fn compare_chain(point: &ChainPoint, chain: &Standing) -> Vec<Finding> {
    let finding = |kind, expected: String, found: String, explains: String| Finding {
        kind,
        chain: point.id.clone(),
        position: None,
        last: None,
        record: None,
        expected: Some(expected),
        found: Some(found),
        explains,
    };
    let head = Link::of_head(&point.head);
    let Some(at_point) = chain.at_point.filter(|_| point.records > 0) else {
        // Shorter than it was. Gaps that the links show are findings already, and what was removed on record is
        // none; a head that was never met was cut off.
        let met = chain.point_head_at.is_some();
        if point.records == 0
            || (met && (chain.breaks > 0 || chain.boundary.is_some()))
            || chain.boundary == Some(head)
        {
            return Vec::new();
        }
        if met {
            return vec![finding(
                FindingKind::Rewritten,
                format!("{} records", point.records),
                format!("{} records", chain.records),
                "records were taken out since the checkpoint, and the links and numbers made to fit".into(),
            )];
        }
        return vec![finding(
            FindingKind::Truncated,
            format!("{} records, head {}", point.records, point.head),
            format!("{} records, head {}", chain.records, chain.head.text()),
            format!(
                "the chain is {} shorter than at the checkpoint and its head then is not in it",
                plural(point.records - chain.records, "record")
            ),
        )];
    };
    let mut found = Vec::new();
    if at_point.signed < point.signed {
        found.push(finding(
            FindingKind::Stripped,
            format!("{} signed records among the first {}", point.signed, point.records),
            format!("{} signed", at_point.signed),
            format!(
                "{} lost their signature since the checkpoint",
                plural(point.signed - at_point.signed, "record")
            ),
        ));
    }
    if at_point.root == point.root {
        return found;
    }
    let roots = (STANDARD.encode(point.root), STANDARD.encode(at_point.root));
    let relinked = point.links.is_some_and(|links| at_point.links.is_some_and(|now| now != links));
    if at_point.head == head && relinked && chain.breaks == 0 {
        found.push(finding(
            FindingKind::Rewritten,
            format!("links {}", point.links.map_or_else(String::new, |links| STANDARD.encode(links))),
            at_point.links.map_or_else(String::new, |links| STANDARD.encode(links)),
            "the head is that of the checkpoint, but hashes before it are not: records were edited and hashed anew"
                .into(),
        ));
    } else if at_point.head != head {
        // The old head stands elsewhere where rows were taken out or put in: the links say so themselves.
        // Where the oldest records were removed on record, it stands before its place, or is the boundary itself.
        let known = chain.point_head_at.is_some() || chain.boundary == Some(head);
        if !known || (chain.breaks == 0 && chain.boundary.is_none()) {
            found.push(finding(
                FindingKind::Rewritten,
                format!("head {} at record {}", point.head, point.records),
                at_point.head.text(),
                "the chain does not extend the checkpoint: its history was written anew".into(),
            ));
        }
    } else if at_point.faults == 0 && chain.breaks == 0 && found.is_empty() {
        found.push(finding(
            FindingKind::UnhashedEdited,
            roots.0,
            roots.1,
            format!(
                "the hashed columns of the first {} are as they were, but other columns were changed",
                plural(point.records, "record")
            ),
        ));
    }
    found
}

/// Makes the report.
fn report(format: &dyn ChainFormat, mut walk: Walk) -> ChainReport {
    let unchecked: u64 = walk.chains.iter().map(|chain| chain.unchecked).sum();
    let verified: u64 = walk.chains.iter().map(|chain| chain.verified).sum();
    let keyless = verified == 0 && (unchecked > 0 || !walk.findings.is_empty());
    let only_keys = walk.findings.iter().all(|finding| {
        matches!(finding.kind, FindingKind::WrongKey | FindingKind::UnknownKey | FindingKind::UnknownVersion)
    });
    let unrecoverable = walk.unrecoverable().is_some();
    let verdict = match (walk.findings_total, keyless && only_keys) {
        (_, true) => Verdict::CannotVerify,
        (0, false) if unrecoverable => Verdict::CannotVerify,
        (0, false) => Verdict::Intact,
        _ => Verdict::Findings,
    };
    walk.findings.sort_by(|left, right| {
        (&left.chain, left.position, left.kind).cmp(&(&right.chain, right.position, right.kind))
    });
    walk.notes.sort_by(|left, right| (&left.chain, left.position).cmp(&(&right.chain, right.position)));
    let mut chains: Vec<ChainSummary> = walk.chains.iter().map(summary).collect();
    chains.sort_by(|left, right| left.id.cmp(&right.id));
    let mut report = ChainReport {
        ok: verdict == Verdict::Intact,
        verdict,
        format: format.name().to_owned(),
        records: walk.records,
        chains_total: chains.len() as u64,
        chains,
        trust: None,
        findings: walk.findings,
        findings_total: walk.findings_total,
        notes: walk.notes,
        diagnosis: String::new(),
    };
    report.diagnosis = diagnose::sentence(&report);
    report
}

/// Makes the summary of one chain.
fn summary(chain: &ChainState) -> ChainSummary {
    let mut parts: Vec<_> = chain.excuse.iter().map(|excuse| excuse.gone.clone()).collect();
    parts.extend(chain.parts.iter().flat_map(Parts::list));
    ChainSummary {
        id: chain.id.clone(),
        records: chain.records,
        first: u64::try_from(chain.first).unwrap_or(0),
        last: u64::try_from(chain.last).unwrap_or(0),
        head: chain.head.text(),
        root: STANDARD.encode(chain.frontier.root()),
        signed: chain.signed,
        verified_by: chain.verified_by.clone(),
        links: chain.links.map(|links| STANDARD.encode(links)),
        parts,
    }
}

/// Counts something in words.
pub(crate) fn plural(count: u64, what: &str) -> String {
    if count == 1 { format!("one {what}") } else { format!("{count} {what}s") }
}
