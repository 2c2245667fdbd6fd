//! A restore against the stock tools: decompress, copy into place, check.
//!
//! `cargo bench -p benches --bench restore`
#![allow(clippy::print_stdout, missing_docs)]

use std::process::Command;

use benches::{Result, Table, attestore, data, folder, measure, median, runs, shell};

/// The peer. `$1` object, `$2` folder.
const PEER: &str = r#"zstd -d -q "$1" -o "$2/scratch.db" && cp "$2/scratch.db" "$2/peer.db" && sqlite3 "$2/peer.db" "PRAGMA integrity_check" && rm "$2/scratch.db" "$2/peer.db""#;

fn main() -> Result<()> {
    let folder = folder()?;
    let program = attestore()?;
    let key = folder.path().join("key");
    measure(Command::new(&program).arg("keygen").arg("--out").arg(&key))?;
    let mut table = Table::default();
    for db in data(folder.path())? {
        let repository = folder.path().join(format!("{}-repository", db.name));
        measure(Command::new(&program).arg("init").arg(&repository))?;
        measure(
            Command::new(&program)
                .arg("backup")
                .arg(&db.path)
                .arg("--to")
                .arg(&repository)
                .args(["--name", "one", "--chain", "aegisagent", "--sign-with"])
                .arg(&key),
        )?;
        let object = repository.join(format!("backups/one/database/{}.db.zst", db.name));
        let (mut ours, mut peer, mut drills) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..runs() {
            let place = tempfile::tempdir_in(folder.path())?;
            peer.push(measure(&mut shell(PEER, &[&object, place.path()]))?.wall);
            let target = place.path().join(format!("restored-{run}.db"));
            let mut command = Command::new(&program);
            command
                .arg("restore")
                .arg(&repository)
                .arg("one")
                .arg("--to")
                .arg(&target)
                .arg("--public-key")
                .arg(key.with_extension("pub"));
            ours.push(measure(&mut command)?.wall);
            let mut command = Command::new(&program);
            command.arg("drill").arg(&repository).arg("one").arg("--scratch").arg(place.path());
            command.arg("--public-key").arg(key.with_extension("pub"));
            drills.push(measure(&mut command)?.wall);
        }
        let what = format!(
            "{} ({} MiB): digests, integrity, foreign keys, chain proven, synced",
            db.name,
            db.size_bytes >> 20
        );
        table.at_most(&what, median(ours.clone()), median(peer), 1.3);
        let what = format!("{}: a drill against our own restore", db.name);
        table.at_most(&what, median(drills), median(ours), 1.25);
    }
    println!("{}", table.markdown("A restore against `zstd -d`, `cp`, `sqlite3 \"PRAGMA integrity_check\"`"));
    Ok(())
}
