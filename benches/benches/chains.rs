//! Chains of four systems verified from files, against each system's own rule with Python's standard library, and
//! AGLedger's against nothing but its signature checks; peak memory.
//!
//! `cargo bench -p benches --bench chains`
#![allow(clippy::print_stdout, missing_docs)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aegisagent_example::generate::{self, Options};
use audit_chain::signature;
use benches::histories::{self, Signed};
use benches::{Result, Table, attestore, folder, measure, median, runs, verdict};

/// Rows of z4j's log.
const Z4J: u64 = 300_000;
/// Rows of Caracal's and of AegisAgent's.
const EVENTS: u64 = 500_000;
/// Signed rows of AGLedger's.
const ENTRIES: u64 = 40_000;
/// How many rows the peers get; their rate does not depend on it.
const PEER_ROWS: usize = 20_000;
/// The most memory, in bytes.
const MEMORY: u64 = 64 << 20;

fn main() -> Result<()> {
    let folder = folder()?;
    let program = attestore()?;
    let at = |name: &str| folder.path().join(name);
    let mut table = Table::default();
    histories::z4j(&at("z4j.ndjson"), Z4J)?;
    rows(&mut table, &program, "z4j", &at("z4j.ndjson"), Z4J, 300_000)?;
    histories::caracal(&at("caracal.ndjson"), EVENTS)?;
    rows(&mut table, &program, "caracal", &at("caracal.ndjson"), EVENTS, 700_000)?;
    generate::generate(&at("aegis.db"), &Options { receipts: EVENTS, event_bytes: 0, ..Default::default() })?;
    histories::aegisagent(&at("aegis.db"), &at("aegis.ndjson"))?;
    rows(&mut table, &program, "aegisagent", &at("aegis.ndjson"), EVENTS, 700_000)?;
    std::fs::create_dir(at("dump"))?;
    let signed = histories::agledger(&at("dump"), ENTRIES)?;
    entries(&mut table, &program, &at("dump"), &signed)?;
    println!("{}", table.markdown("Chains verified from files"));
    Ok(())
}

/// Makes the command that verifies a file; it fails unless the chain is intact.
fn command(program: &Path, format: &str, input: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["chain", "verify", "--quiet", "--format", format]).arg(input);
    for (name, value) in histories::secrets() {
        command.env(format!("BENCH_{name}"), value).args(["--secret", &format!("{name}=env:BENCH_{name}")]);
    }
    command
}

/// Measures one file and the peer on its first rows.
fn rows(table: &mut Table, program: &Path, format: &str, file: &Path, count: u64, target: u64) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/chains.py");
    let few = file.with_extension("few.ndjson");
    let text = std::fs::read_to_string(file)?;
    let end = text.match_indices('\n').nth(PEER_ROWS - 1).map_or(text.len(), |(at, _)| at + 1);
    std::fs::write(&few, text.get(..end).unwrap_or_default())?;
    drop(text);
    let (mut ours, mut peer, mut peak) = (Vec::new(), Vec::new(), 0);
    for _ in 0..runs() {
        let run = measure(&mut command(program, format, file))?;
        ours.push(run.wall);
        peak = peak.max(run.peak_bytes);
        let mut python = Command::new("python3");
        python.arg(&script).arg(format).arg(&few).envs(histories::secrets());
        peer.push(measure(&mut python)?.wall);
    }
    let rate = |rows: u64, time: Duration| rows as f64 / time.as_secs_f64();
    let (ours, peer) = (rate(count, median(ours)), rate(PEER_ROWS as u64, median(peer)));
    table.row(
        &format!("{format}: {count} rows, {} MiB", std::fs::metadata(file)?.len() >> 20),
        &format!("{ours:.0} rows/s"),
        &format!("{peer:.0} rows/s"),
        &format!("{:.1} x", ours / peer),
        &format!(">= {target} rows/s {}", verdict(ours >= target as f64)),
    );
    memory(table, format, peak);
    Ok(())
}

/// Measures AGLedger's dump against its signatures alone.
fn entries(table: &mut Table, program: &Path, dump: &Path, signed: &Signed) -> Result<()> {
    let (mut ours, mut peer, mut peak) = (Vec::new(), Vec::new(), 0);
    for _ in 0..runs() {
        let run = measure(command(program, "agledger", dump).args(["--trust-anchor", &signed.anchor]))?;
        ours.push(run.wall);
        peak = peak.max(run.peak_bytes);
        peer.push(signatures_alone(signed)?);
    }
    table.at_most(
        &format!("agledger: {ENTRIES} signed rows, against their strict Ed25519 checks alone, all cores"),
        median(ours),
        median(peer),
        1.3,
    );
    memory(table, "agledger", peak);
    Ok(())
}

/// Checks as many signatures over messages of the same lengths on all cores, and nothing else.
fn signatures_alone(signed: &Signed) -> Result<Duration> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let start = Instant::now();
    let good = std::thread::scope(|scope| {
        let part = signed.signatures.len().div_ceil(cores);
        let threads: Vec<_> = signed
            .signatures
            .chunks(part)
            .map(|part| {
                let good = |(message, seal): &&(Vec<u8>, [u8; 64])| {
                    signature::verify(&signed.key, message, seal).is_ok()
                };
                scope.spawn(move || part.iter().filter(good).count())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum::<usize>()
    });
    let time = start.elapsed();
    if good != signed.signatures.len() {
        return Err("a signature does not verify".into());
    }
    Ok(time)
}

/// Adds a row for the memory.
fn memory(table: &mut Table, format: &str, peak: u64) {
    table.row(
        &format!("{format}: peak memory"),
        &format!("{} MiB", peak >> 20),
        "",
        "",
        &format!("< {} MiB {}", MEMORY >> 20, verdict(peak < MEMORY)),
    );
}
