//! Verifying receipts with their whole-row Merkle roots, from a live table and from a snapshot's copy, on one core and
//! on all; the peer is the system's own rule with Python's standard library.
//!
//! `cargo bench -p benches --bench receipts`
#![allow(clippy::print_stdout, missing_docs)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aegisagent_example::generate::{self, Options};
use audit_chain::formats;
use audit_chain::keys::KeyRing;
use audit_chain::source::RowSource;
use audit_chain::verify::{VerifyOptions, verify};
use backup_core::context::Context;
use backup_sqlite::table::{ChainTable, TableOptions};
use benches::{Result, Table, folder, measure, median, runs, verdict};

const RECEIPTS: u64 = 500_000;

fn main() -> Result<()> {
    let folder = folder()?;
    let path = folder.path().join("receipts.db");
    generate::generate(&path, &Options { receipts: RECEIPTS, event_bytes: 0, ..Default::default() })?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/receipts.py");
    let (mut python, mut live, mut copy, mut single) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs() {
        python.push(measure(Command::new("python3").arg(&script).arg(&path))?.wall);
        live.push(one(&path, true, cores)?);
        copy.push(one(&path, false, cores)?);
        single.push(one(&path, false, 1)?);
    }
    let (python, live, copy, single) = (median(python), median(live), median(copy), median(single));
    let rate = |time: Duration| format!("{:.0} receipts/s", RECEIPTS as f64 / time.as_secs_f64());
    let ratio = |time: Duration| format!("{:.1} x", python.as_secs_f64() / time.as_secs_f64());
    let mut table = Table::default();
    for (what, time) in [("live table, all cores", live), ("snapshot's copy, all cores", copy)] {
        let met = RECEIPTS as f64 / time.as_secs_f64() >= 600_000.0;
        table.row(what, &rate(time), &rate(python), &ratio(time), &format!(">= 600,000/s {}", verdict(met)));
    }
    table.row("snapshot's copy, one core", &rate(single), &rate(python), &ratio(single), "");
    let scale = single.as_secs_f64() / copy.as_secs_f64();
    table.row("from one core to all", &format!("{scale:.2} x"), "", "", &format!("{cores} cores"));
    println!("{}", table.markdown("Receipts verified with whole-row Merkle roots, against hashlib and json"));
    Ok(())
}

/// Verifies the table once.
fn one(path: &Path, live: bool, threads: usize) -> Result<Duration> {
    let (options, ctx) = (TableOptions::default(), Context::new());
    let format = formats::by_name("aegisagent")?;
    let start = Instant::now();
    let source = if live {
        ChainTable::open_live(path, format.table(), &options, &ctx)?
    } else {
        ChainTable::open_copy(path, format.table(), &options, &ctx)?
    };
    let source: &dyn RowSource = &source;
    let report =
        verify(source, format.as_ref(), &KeyRing::new(), &VerifyOptions { threads, ..Default::default() })?;
    let time = start.elapsed();
    if !report.ok || report.records != RECEIPTS {
        return Err(format!("the generated table does not verify: {}", report.diagnosis).into());
    }
    Ok(time)
}
