//! The parallel mode as a source of backups, for tests: dumped into a real repository, restored in two ways.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use backup_core::context::Context;
use backup_core::error::Result as CoreResult;
use backup_core::repository::{
    BackupOutcome, BackupRequest, LATEST, ReadOptions, Repository, RepositoryOptions, SourceRequest,
    StoredBackup,
};
use backup_core::traits::{BackupObjects as _, ChainRequest};
use backup_postgres::cluster::ScratchCluster;
use backup_postgres::parallel::toc::Toc;
use backup_postgres::parallel::{self, LoadOptions, ParallelOptions};
use backup_postgres::tools::ToolOptions;
use backup_postgres::{Address, Connection, PostgresSource, SessionOptions, SourceOptions};

/// A database that is dumped by several connections.
pub(crate) struct Parallel {
    pub(crate) address: Address,
    pub(crate) tools: ToolOptions,
    pub(crate) lock_timeout: Duration,
    pub(crate) jobs: usize,
    pub(crate) piece_bytes: u64,
    pub(crate) file_bytes: u64,
}

impl Parallel {
    pub(crate) fn new(address: Address) -> Self {
        Self {
            address,
            tools: crate::support::tools(),
            lock_timeout: Duration::from_secs(30),
            jobs: 3,
            // Small, so that small tables are cut too.
            piece_bytes: 256 << 10,
            file_bytes: 512 << 10,
        }
    }

    pub(crate) fn options(&self) -> ParallelOptions {
        ParallelOptions { jobs: self.jobs, piece_bytes: self.piece_bytes, file_bytes: self.file_bytes }
    }

    /// Backs the database up into the repository in `folder`.
    pub(crate) fn back_up(
        &self,
        folder: &Path,
        chains: Vec<ChainRequest>,
        ctx: &Context,
    ) -> CoreResult<BackupOutcome> {
        let path = folder.join("repository");
        let repository = if path.exists() {
            Repository::open(path, &RepositoryOptions::default())?
        } else {
            Repository::init(path, &RepositoryOptions::default())?
        };
        let options = SourceOptions {
            tools: self.tools.clone(),
            lock_timeout: self.lock_timeout,
            parallel: self.options(),
            globals: false,
            ..SourceOptions::default()
        };
        let source = PostgresSource::with_options(self.address.clone(), options);
        let request = BackupRequest {
            sources: vec![SourceRequest { snapshot: &source, chains }],
            ..BackupRequest::default()
        };
        repository.backup(&request, ctx)
    }
}

/// Returns the rows of each table, as the newest backup's manifest says.
pub(crate) fn rows(folder: &Path) -> BTreeMap<String, u64> {
    latest(folder).manifest().sources[0].tables.clone()
}

/// Returns the table of contents of the newest backup.
pub(crate) fn toc(folder: &Path) -> Toc {
    parallel::read_toc(&latest(folder), "db").unwrap()
}

/// Opens the newest backup of a folder's repository.
pub(crate) fn latest(folder: &Path) -> StoredBackup {
    let repository = Repository::open(folder.join("repository"), &RepositoryOptions::default()).unwrap();
    repository.objects(LATEST, &ReadOptions::default(), &Context::new()).unwrap()
}

/// Loads the newest backup into an empty database.
pub(crate) fn load(
    folder: &Path,
    address: &Address,
    tools: &ToolOptions,
) -> backup_postgres::Result<parallel::Loaded> {
    let backup = latest(folder);
    let ctx = Context::new();
    let version = Connection::open(address, &SessionOptions::default(), &ctx)?.version().clone();
    let pg_restore = tools.find("pg_restore", &version)?;
    let options = LoadOptions { jobs: 3, ..LoadOptions::default() };
    parallel::load(&backup, "db", address, &pg_restore, folder, &options, &ctx)
}

/// Writes the objects of the newest backup into a folder, as `zstd -d` would.
pub(crate) fn extract(folder: &Path) -> std::path::PathBuf {
    let backup = latest(folder);
    let to = folder.join("extracted");
    for object in &backup.manifest().objects {
        let path = to.join(object.plain_name());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = Vec::new();
        backup.open(object.plain_name()).unwrap().read_to_end(&mut bytes).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    to.join("database/db")
}

/// Returns where a program is that goes with the shared server.
pub(crate) fn program(name: &'static str) -> std::path::PathBuf {
    crate::support::tools().newest(name, 15).unwrap().path
}

/// Returns where a program is that goes with a server.
pub(crate) fn program_of(cluster: &ScratchCluster, name: &'static str) -> std::path::PathBuf {
    let beside = cluster.bin().join(name);
    if beside.exists() { beside } else { program(name) }
}

/// Runs the script of a dump with nothing but PostgreSQL's own programs and a shell.
pub(crate) fn run_script(dump: &Path, database: &str, cluster: &ScratchCluster) -> Result<(), String> {
    let output = Command::new("sh")
        .arg(dump.join("restore.sh"))
        .args([database, "2"])
        .env("PGHOST", cluster.folder())
        .env("PGUSER", "postgres")
        .env(
            "PATH",
            format!("{}:/usr/bin:/bin", program_of(cluster, "pg_restore").parent().unwrap().display()),
        )
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Dumps with stock `pg_dump` and restores with stock `pg_restore`.
pub(crate) fn stock(from: &str, to: &str, cluster: &ScratchCluster, folder: &Path) -> Result<(), String> {
    let run = |program: &'static str, arguments: &[&str]| {
        let output = Command::new(program_of(cluster, program))
            .args(arguments)
            .env("PGHOST", cluster.folder())
            .env("PGUSER", "postgres")
            .output()
            .unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    };
    let file = folder.join("stock.dump");
    run("pg_dump", &["-Fc", "-d", from, "-f", file.to_str().unwrap()])?;
    run("pg_restore", &["--exit-on-error", "-d", to, file.to_str().unwrap()])
}
