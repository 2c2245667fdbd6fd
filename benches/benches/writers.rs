//! What a writer feels: the time of one commit with and without a backup running beside it, on the small and the large
//! database; the middle one of several runs.
//!
//! `cargo bench -p benches --bench writers`
#![allow(clippy::print_stdout, missing_docs)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use benches::{Data, Result, Table, attestore, data, folder, measure, median, runs};
use rusqlite::{Connection, params};

fn main() -> Result<()> {
    let folder = folder()?;
    let program = attestore()?;
    let repository = folder.path().join("repository");
    measure(Command::new(&program).arg("init").arg(&repository))?;
    let mut table = Table::default();
    for db in data(folder.path())? {
        for method in ["vacuum-into", "online"] {
            let (mut alone, mut beside) = (Vec::new(), Vec::new());
            for _ in 0..runs() {
                alone.push(commits(&db, None)?);
                beside.push(commits(&db, Some((&program, &repository, method)))?);
            }
            for (name, part) in [("p50", 0.50), ("p99", 0.99), ("max", 1.0)] {
                let middle =
                    |all: &[Vec<Duration>]| median(all.iter().map(|times| at(times, part)).collect());
                let (alone, beside) = (middle(&alone), middle(&beside));
                table.row(
                    &format!("{} {method}: commit, {name}", db.name),
                    &millis(beside),
                    &millis(alone),
                    &format!("{:.2}", beside.as_secs_f64() / alone.as_secs_f64()),
                    "",
                );
            }
        }
    }
    println!(
        "{}",
        table.markdown(
            "A writer's commits beside a running backup (ours) and alone (peer), WAL, synchronous=NORMAL"
        )
    );
    Ok(())
}

/// Commits for as long as a backup runs, or for three seconds, and returns the sorted times.
fn commits(db: &Data, backup: Option<(&Path, &Path, &str)>) -> Result<Vec<Duration>> {
    let connection = Connection::open(&db.path)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection
        .execute_batch("CREATE TABLE IF NOT EXISTS bench_commits (id INTEGER PRIMARY KEY, body TEXT)")?;
    let mut child = match backup {
        Some((program, repository, method)) => Some(
            Command::new(program)
                .arg("backup")
                .arg(&db.path)
                .arg("--to")
                .arg(repository)
                .args(["--method", method, "--chain", "aegisagent"])
                .stdout(Stdio::null())
                .spawn()?,
        ),
        None => None,
    };
    let started = Instant::now();
    let mut times = Vec::new();
    loop {
        let start = Instant::now();
        connection.execute("INSERT INTO bench_commits (body) VALUES (?1)", params!["x".repeat(200)])?;
        times.push(start.elapsed());
        match &mut child {
            Some(child) => {
                if let Some(exit) = child.try_wait()? {
                    if !exit.success() {
                        return Err(format!("the backup ended with {exit}").into());
                    }
                    break;
                }
            }
            None if started.elapsed() > Duration::from_secs(3) => break,
            None => {}
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    times.sort_unstable();
    Ok(times)
}

/// Returns the time that `part` of all are not above.
fn at(times: &[Duration], part: f64) -> Duration {
    let last = times.len().saturating_sub(1);
    let place = (last as f64 * part).round() as usize;
    times.get(place).copied().unwrap_or_default()
}

fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1_000.0)
}
