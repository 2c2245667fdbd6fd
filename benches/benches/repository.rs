//! `status`, `list` and `prune` on repositories of many backups, as whole processes.
//!
//! `cargo bench -p benches --bench repository`
#![allow(clippy::print_stdout, missing_docs)]

use std::process::Command;
use std::time::Duration;

use benches::{Result, Table, attestore, folder, measure, median, runs, seconds, verdict};

fn main() -> Result<()> {
    let folder = folder()?;
    let program = attestore()?;
    let mut table = Table::default();
    for (number, limit) in [(100, None), (1_000, Some(Duration::from_millis(100))), (10_000, None)] {
        let (repository, checkpoint) = benches::repository::generate(folder.path(), number)?;
        let kept = folder.path().join(format!("checkpoint-{number}"));
        std::fs::write(&kept, checkpoint)?;
        let plan = folder.path().join(format!("plan-{number}.toml"));
        std::fs::write(
            &plan,
            format!(
                "[plan]\nname = \"bench\"\nowner = \"bench\"\n[repository]\npath = {repository:?}\ncheckpoint = {kept:?}\n\
                 [objectives]\nrpo = \"2h\"\ndrill_every = \"90d\"\n[[files]]\nname = \"data\"\npath = \"data\"\n"
            ),
        )?;
        // A drill, so that there is nothing to complain of.
        measure(Command::new(&program).arg("drill").arg("--plan").arg(&plan))?;
        let time = |make: &dyn Fn() -> Command| -> Result<Duration> {
            let times = (0..runs()).map(|_| Ok(measure(&mut make())?.wall)).collect::<Result<Vec<_>>>()?;
            Ok(median(times))
        };
        let status = time(&|| {
            let mut command = Command::new(&program);
            command.arg("status").arg("--plan").arg(&plan);
            command
        })?;
        let met = |time: Duration, limit: Option<Duration>| {
            limit.map_or_else(
                || "-".to_owned(),
                |limit| format!("< {} {}", seconds(limit), verdict(time < limit)),
            )
        };
        table.row(&format!("status, {number} backups"), &seconds(status), "-", "-", &met(status, limit));
        let second = (number == 10_000).then_some(Duration::from_secs(1));
        let list = time(&|| {
            let mut command = Command::new(&program);
            command.arg("list").arg(&repository).arg("--json");
            command
        })?;
        table.row(&format!("list, {number} backups"), &seconds(list), "-", "-", &met(list, second));
        let prune = time(&|| {
            let mut command = Command::new(&program);
            command.arg("prune").arg(&repository).args(["--keep-daily", "30"]);
            command
        })?;
        table.row(
            &format!("prune (its plan), {number} backups"),
            &seconds(prune),
            "-",
            "-",
            &met(prune, second),
        );
    }
    println!("{}", table.markdown("Repositories of many backups"));
    Ok(())
}
