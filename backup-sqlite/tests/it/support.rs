//! What several test modules share: databases that are written to, a place for objects, vectors.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use audit_chain::checkpoint::ChainCheckpoint;
use backup_core::context::{Cancel, Context, Progress};
use backup_core::error::{Error, Result};
use backup_core::manifest::{ChainEntry, Compression, Digest, Encryption, Manifest, ObjectEntry};
use backup_core::traits::{BackupObjects, ChainRequest, ObjectSink, Sinks, Snapshot as _, SnapshotOutcome};
use backup_sqlite::SqliteSource;
use rusqlite::Connection;

/// How many accounts the bank of the writers has, and how much is in each at first.
pub(crate) const ACCOUNTS: i64 = 100;
pub(crate) const BALANCE: i64 = 1_000;

/// Says that a test was left out and why; on CI (`CI=true`) that is a failure.
pub(crate) fn left_out(test: &str, why: &str) {
    println!("left out: {test} ({why})");
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{test} was left out on CI: {why}");
}

/// Returns the folder of AegisAgent's vectors, or says that the test was left out.
pub(crate) fn vectors(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("ATTESTORE_VECTORS").map(PathBuf::from);
    if folder.is_none() {
        left_out(test, "ATTESTORE_VECTORS is not set");
    }
    folder.map(|folder| folder.join("aegisagent"))
}

/// Returns a command that runs this test binary with a file system of its own mounted at `at`, which vanishes with it;
/// `None`, said, where that takes a right that we lack. `then` is run by a shell after the mount.
pub(crate) fn mounted(test: &str, at: &Path, options: &str, then: &str) -> Option<std::process::Command> {
    use std::os::unix::fs::MetadataExt as _;
    let root = Path::new("/proc/self").metadata().is_ok_and(|own| own.uid() == 0);
    let works =
        || std::process::Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|s| s.success());
    if !root || !works() {
        left_out(test, "mounting takes root");
        return None;
    }
    let mut command = std::process::Command::new("unshare");
    let script = format!("mount -t tmpfs -o {options} none '{}' && {then} exec \"$0\" \"$@\"", at.display());
    command.args(["-m", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
    Some(command)
}

/// Returns what makes a command that runs this test binary as a user without rights; `None`, said, where that takes root.
pub(crate) fn nobody(test: &str) -> Option<impl Fn() -> std::process::Command> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;
    let root = Path::new("/proc/self").metadata().is_ok_and(|own| own.uid() == 0);
    if !root {
        left_out(test, "running as another user takes root");
        return None;
    }
    // The build folder may be closed to others: they run a copy.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("it");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    Some(move || {
        let mut command = std::process::Command::new(folder.path().join("it"));
        command.uid(65_534).gid(65_534);
        command
    })
}

/// Waits a moment that differs from round to round, to kill at another point each time.
pub(crate) fn moment(round: u64, up_to: std::time::Duration) {
    let part = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    std::thread::sleep(up_to.mul_f64(part as f64 / (1 << 24) as f64));
}

/// How often a crash test repeats: a handful, or 200 with `ATTESTORE_LONG=1`.
pub(crate) fn rounds(normal: u64) -> u64 {
    if std::env::var_os("ATTESTORE_LONG").is_some_and(|value| value == "1") { 200 } else { normal }
}

/// Copies one case's database, without what others left beside it, and returns its path.
pub(crate) fn case(vectors: &Path, case: &str, into: &Path) -> PathBuf {
    let to = into.join("aegis.db");
    std::fs::copy(vectors.join(case).join("aegis.db"), &to).unwrap();
    to
}

/// Makes a bank: transfers between accounts keep the sum; each is one row of a log of its own.
pub(crate) fn bank(path: &Path, journal_mode: &str) {
    let connection = Connection::open(path).unwrap();
    let mode: String =
        connection.query_row(&format!("PRAGMA journal_mode={journal_mode}"), [], |row| row.get(0)).unwrap();
    assert_eq!(mode, journal_mode);
    connection
        .execute_batch(
            "CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
             CREATE TABLE transfers(id INTEGER PRIMARY KEY, src, dst, amount, note TEXT);
             CREATE INDEX transfers_src ON transfers(src);",
        )
        .unwrap();
    let mut fill = connection.prepare("INSERT INTO accounts VALUES (?1, ?2)").unwrap();
    connection.execute_batch("BEGIN").unwrap();
    for id in 0..ACCOUNTS {
        fill.execute((id, BALANCE)).unwrap();
    }
    let mut log =
        connection.prepare("INSERT INTO transfers(src, dst, amount, note) VALUES (0, 0, 0, ?1)").unwrap();
    for number in 0..2_000 {
        log.execute([format!("opening entry {number} {}", "x".repeat(200))]).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
}

/// Proves that a database shows the bank between two transfers, and returns how many there were.
pub(crate) fn assert_whole_bank(path: &Path) -> i64 {
    let connection = Connection::open(path).unwrap();
    let (sum, count): (i64, i64) = connection
        .query_row("SELECT sum(balance), count(*) FROM accounts", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!((sum, count), (ACCOUNTS * BALANCE, ACCOUNTS), "{}: torn rows", path.display());
    // Every account is what its transfers made of it.
    let torn: i64 = connection
        .query_row(
            "SELECT count(*) FROM accounts a WHERE balance <> ?1
                - (SELECT coalesce(sum(amount), 0) FROM transfers WHERE src = a.id AND amount > 0)
                + (SELECT coalesce(sum(amount), 0) FROM transfers WHERE dst = a.id AND amount > 0)",
            [BALANCE],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(torn, 0, "{}: accounts and transfers of two instants", path.display());
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    connection.query_row("SELECT count(*) FROM transfers", [], |row| row.get(0)).unwrap()
}

/// Makes one transfer. `journal_mode` as the connection was opened with.
pub(crate) fn transfer(connection: &Connection, number: i64) -> rusqlite::Result<()> {
    let (src, dst, amount) = (number * 7 % ACCOUNTS, (number * 13 + 1) % ACCOUNTS, number % 9 + 1);
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let work = || {
        connection.execute("UPDATE accounts SET balance = balance - ?1 WHERE id = ?2", (amount, src))?;
        connection.execute("UPDATE accounts SET balance = balance + ?1 WHERE id = ?2", (amount, dst))?;
        connection.execute(
            "INSERT INTO transfers(src, dst, amount, note) VALUES (?1, ?2, ?3, ?4)",
            (src, dst, amount, "y".repeat(300)),
        )?;
        connection.execute_batch("COMMIT")
    };
    work().inspect_err(|_| {
        let _ = connection.execute_batch("ROLLBACK");
    })
}

/// Lists a folder's names, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A backup whose objects are the plain files of a folder.
pub(crate) struct Backup {
    pub(crate) root: PathBuf,
    pub(crate) manifest: Manifest,
}

impl Backup {
    /// Backs a database up, with the chains asked for.
    pub(crate) fn of(database: &Path, root: &Path, chains: &[ChainRequest]) -> Self {
        let to = Folder::new(root);
        let outcome = SqliteSource::new(database).snapshot(chains, &to, &Context::new()).unwrap();
        Self::kept(root, outcome, chains)
    }

    /// Writes the manifest of a snapshot that a [`Folder`] kept.
    pub(crate) fn kept(root: &Path, outcome: SnapshotOutcome, chains: &[ChainRequest]) -> Self {
        let mut manifest = Manifest::new("b1", "r1", "2026-11-20T15:30:00Z".parse().unwrap());
        let name = format!("database/{}.db", outcome.facts.name);
        let bytes = std::fs::read(root.join(&name)).unwrap();
        let size = bytes.len() as u64;
        let digest = Digest::of(&bytes);
        manifest.objects = vec![ObjectEntry {
            name,
            size_bytes: size,
            sha256: digest,
            stored_size_bytes: size,
            stored_sha256: digest,
            compression: Compression::None,
            encryption: Encryption::None,
        }];
        manifest.chains = chains
            .iter()
            .zip(&outcome.chains)
            .map(|(request, report)| ChainEntry {
                source: outcome.facts.name.clone(),
                table: request.table.clone().unwrap_or_else(|| request.format.table().to_owned()),
                format: report.format.clone(),
                profile: request.format.definition().map(str::to_owned),
                records: report.records,
                verdict: report.verdict,
                findings: report.findings_total,
                finding_kinds: std::collections::BTreeMap::new(),
                diagnosis: report.diagnosis.clone(),
                points: ChainCheckpoint::from_report(report).unwrap(),
                extends: None,
            })
            .collect();
        manifest.sources = vec![outcome.facts];
        Self { root: root.to_owned(), manifest }
    }

    /// Reads a backup that another process wrote.
    pub(crate) fn open(root: &Path) -> Self {
        let bytes = std::fs::read(root.join("manifest.json")).unwrap();
        Self { root: root.to_owned(), manifest: Manifest::from_json(&bytes).unwrap() }
    }

    /// Writes the manifest beside the objects.
    pub(crate) fn save(&self) {
        std::fs::write(self.root.join("manifest.json"), self.manifest.to_canonical_json().unwrap()).unwrap();
    }
}

impl BackupObjects for Backup {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send + '_>> {
        let path = self.root.join(name);
        Ok(Box::new(File::open(&path).map_err(|error| Error::io("open", &path, error))?))
    }
}

/// Keeps objects as plain files of a folder.
pub(crate) struct Folder {
    pub(crate) root: PathBuf,
    scratch: PathBuf,
}

impl Folder {
    pub(crate) fn new(root: &Path) -> Self {
        let scratch = root.join("scratch");
        std::fs::create_dir_all(&scratch).unwrap();
        Self { root: root.to_owned(), scratch }
    }

    pub(crate) fn object(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Sinks for Folder {
    fn object(&self, name: &str, _size: Option<u64>) -> Result<Box<dyn ObjectSink + '_>> {
        let path = self.root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).map_err(|error| Error::io("create", &path, error))?;
        let file = File::create_new(&path).map_err(|error| Error::io("create", &path, error))?;
        Ok(Box::new(Sink { file }))
    }

    fn scratch(&self) -> &Path {
        &self.scratch
    }
}

struct Sink {
    file: File,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl ObjectSink for Sink {
    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// A context that cancels itself when `when` holds for a progress report.
pub(crate) fn cancelling(when: impl Fn(Progress<'_>) -> bool + Send + Sync + 'static) -> Context {
    let cancel = Cancel::new();
    let flag = cancel.clone();
    Context::new().with_cancel(cancel).with_progress(move |progress| {
        if when(progress) {
            flag.cancel();
        }
    })
}
