//! What the benchmarks share: data, measured runs of processes, and the table of ratios.
//!
//! Every figure is a ratio against a peer measured in the same run: ours and the peer's runs alternate, and the
//! medians are compared. `ATTESTORE_BENCH_RUNS` sets how often (default 3), `ATTESTORE_BENCH_SIZES` which databases
//! (`demo,large` by default; `large` is about 1 GB), `ATTESTORE_BENCH_DIR` where the data goes (default: a temporary folder).

pub mod repository;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aegisagent_example::generate::{self, Options};

pub mod histories;

/// The result of the benchmarks' calls.
pub type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// One measured run of a process.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// From start to exit.
    pub wall: Duration,
    /// The largest resident set seen, in bytes (sampled every 5 ms).
    pub peak_bytes: u64,
}

/// Runs a command and measures it; its output is thrown away unless it fails.
///
/// # Errors
/// When it cannot be started or does not exit with 0.
pub fn measure(command: &mut Command) -> Result<Run> {
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak_bytes = 0;
    let exit = loop {
        if let Some(exit) = child.try_wait()? {
            break exit;
        }
        peak_bytes = peak_bytes.max(high_water(&status));
        std::thread::sleep(Duration::from_millis(5));
    };
    let wall = start.elapsed();
    if !exit.success() {
        let mut said = String::new();
        if let Some(mut pipe) = child.stderr.take() {
            std::io::Read::read_to_string(&mut pipe, &mut said)?;
        }
        return Err(format!("{command:?} ended with {exit}: {said}").into());
    }
    Ok(Run { wall, peak_bytes })
}

/// Reads a process's high-water mark of resident memory.
fn high_water(status: &Path) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) * 1_024
}

/// Makes a shell command line in which `$1`, `$2` … are the arguments; any failing part fails it.
#[must_use]
pub fn shell(script: &str, arguments: &[&Path]) -> Command {
    let mut command = Command::new("bash");
    command.args(["-e", "-o", "pipefail", "-c", script, "peer"]).args(arguments);
    command
}

/// How often each side is measured.
#[must_use]
pub fn runs() -> usize {
    std::env::var("ATTESTORE_BENCH_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Returns the middle one.
#[must_use]
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Builds the command line in the release profile and returns its path; `ATTESTORE_BENCH_PROGRAM` names one that is built already.
///
/// # Errors
/// When it does not build.
pub fn attestore() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("ATTESTORE_BENCH_PROGRAM") {
        return Ok(PathBuf::from(program));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(["build", "--release", "--quiet", "-p", "attestore"]).status()?;
    if !status.success() {
        return Err("attestore does not build".into());
    }
    // Benchmarks lie in <target>/release/deps.
    let here = std::env::current_exe()?;
    let folder = here.parent().and_then(Path::parent).ok_or("no target folder")?;
    Ok(folder.join("attestore"))
}

/// One database to measure on.
#[derive(Debug)]
pub struct Data {
    /// What it is called in the table.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// How many receipts it holds.
    pub receipts: u64,
}

/// Makes the databases that `ATTESTORE_BENCH_SIZES` names: `demo` (100,000 receipts), `large` (about 1 GB).
///
/// # Errors
/// When a database cannot be made.
pub fn data(folder: &Path) -> Result<Vec<Data>> {
    let wanted = std::env::var("ATTESTORE_BENCH_SIZES").unwrap_or_else(|_| "demo,large".into());
    wanted
        .split(',')
        .map(|name| {
            let options = match name {
                "demo" => Options { receipts: 100_000, ..Default::default() },
                "large" => Options { receipts: 500_000, event_bytes: 600 << 20, ..Default::default() },
                other => {
                    return Err(format!("ATTESTORE_BENCH_SIZES: {other:?} is neither demo nor large").into());
                }
            };
            let path = folder.join(format!("{name}.db"));
            let made = generate::generate(&path, &options)?;
            Ok(Data { name: name.to_owned(), path, size_bytes: made.size_bytes, receipts: made.receipts })
        })
        .collect()
}

/// Makes the folder that the data goes to; it is removed when dropped.
///
/// # Errors
/// When it cannot be made.
pub fn folder() -> Result<tempfile::TempDir> {
    Ok(match std::env::var_os("ATTESTORE_BENCH_DIR") {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    })
}

/// The table of one benchmark.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<[String; 5]>,
}

impl Table {
    /// Adds a ratio of our time to the peer's, which should be at most `target`.
    pub fn at_most(&mut self, what: &str, ours: Duration, peer: Duration, target: f64) {
        let ratio = ours.as_secs_f64() / peer.as_secs_f64();
        self.row(
            what,
            &seconds(ours),
            &seconds(peer),
            &format!("{ratio:.2}"),
            &format!("<= {target:.2} {}", verdict(ratio <= target)),
        );
    }

    /// Adds any row.
    pub fn row(&mut self, what: &str, ours: &str, peer: &str, ratio: &str, target: &str) {
        self.rows.push([what, ours, peer, ratio, target].map(str::to_owned));
    }

    /// Writes the table as Markdown, with the machine above it.
    #[must_use]
    pub fn markdown(&self, title: &str) -> String {
        let mut text = format!(
            "\n## {title}\n\n{}\n\n| what | ours | peer | ratio | target |\n|---|---|---|---|---|\n",
            machine()
        );
        for [what, ours, peer, ratio, target] in &self.rows {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| {what} | {ours} | {peer} | {ratio} | {target} |");
        }
        text
    }
}

/// Says whether a target is met.
#[must_use]
pub const fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// Spells a time.
#[must_use]
pub fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

/// Names the processor, the cores and the memory.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("?", |line| line.trim_start_matches([' ', '\t', ':']));
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).map_or("?", str::trim);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{model}, {cores} cores, {memory} of memory, {} runs each, medians", runs())
}
