//! A whole backup against the stock pipe, with and without encryption; peak memory.
//!
//! `cargo bench -p benches --bench backup`
#![allow(clippy::print_stdout, missing_docs)]

use std::path::Path;
use std::process::Command;

use benches::{Result, Table, attestore, data, folder, measure, median, runs, shell, verdict};

/// The peer: copy, compress, digest, flush. `$1` database, `$2` folder.
const PEER: &str = r#"sqlite3 "$1" "VACUUM INTO '$2/copy.db'" && zstd -3 -q "$2/copy.db" -o "$2/copy.db.zst" && rm "$2/copy.db" && sha256sum "$2/copy.db.zst" && sync "$2/copy.db.zst" "$2""#;

fn main() -> Result<()> {
    let folder = folder()?;
    let program = attestore()?;
    let (key, identity) = (folder.path().join("key"), folder.path().join("identity"));
    measure(Command::new(&program).arg("keygen").arg("--out").arg(&key))?;
    measure(Command::new("age-keygen").arg("-o").arg(&identity))?;
    let recipient = std::fs::read_to_string(&identity)?;
    let recipient =
        recipient.lines().find_map(|line| line.strip_prefix("# public key: ")).ok_or("no recipient")?;
    let mut table = Table::default();
    for db in data(folder.path())? {
        let (mut ours, mut sealed, mut peer, mut peak) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for _ in 0..runs() {
            let place = tempfile::tempdir_in(folder.path())?;
            peer.push(measure(&mut shell(PEER, &[&db.path, place.path()]))?.wall);
            let run = backup(&program, &db.path, &key, place.path(), "plain", None)?;
            ours.push(run.wall);
            peak = peak.max(run.peak_bytes);
            let run = backup(&program, &db.path, &key, place.path(), "sealed", Some(recipient))?;
            sealed.push(run.wall);
            peak = peak.max(run.peak_bytes);
        }
        let (ours, sealed, peer) = (median(ours), median(sealed), median(peer));
        let what = format!("{} ({} MiB, {} receipts)", db.name, db.size_bytes >> 20, db.receipts);
        table.at_most(
            &format!("{what}: snapshot, chain verified, zstd, SHA-256, signed, synced"),
            ours,
            peer,
            1.3,
        );
        table.at_most(&format!("{what}: the same, encrypted, against not encrypted"), sealed, ours, 1.15);
        let fits = peak < 128 << 20;
        table.row(
            &format!("{what}: peak memory"),
            &format!("{} MiB", peak >> 20),
            "",
            "",
            &format!("< 128 MiB {}", verdict(fits)),
        );
    }
    println!(
        "{}",
        table.markdown("A whole backup against `sqlite3 VACUUM INTO`, `zstd -3`, `sha256sum`, `sync`")
    );
    Ok(())
}

/// Runs one backup into a fresh repository.
fn backup(
    program: &Path,
    db: &Path,
    key: &Path,
    place: &Path,
    name: &str,
    recipient: Option<&str>,
) -> Result<benches::Run> {
    let repository = place.join(name);
    measure(Command::new(program).arg("init").arg(&repository))?;
    let mut command = Command::new(program);
    command
        .arg("backup")
        .arg(db)
        .arg("--to")
        .arg(&repository)
        .args(["--chain", "aegisagent"])
        .arg("--sign-with")
        .arg(key);
    if let Some(recipient) = recipient {
        command.args(["--encrypt-to", recipient]);
    }
    measure(&mut command)
}
