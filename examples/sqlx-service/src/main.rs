//! Opens a database, writes to it, backs it up beside itself: `sqlx-service DATABASE BACKUP-FOLDER NAME`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use backup_core::error::ErrorKind;
use sqlx::sqlite::SqliteJournalMode;
use sqlx_service::{Error, Service};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [database, folder, name] = arguments.as_slice() else {
        let _ = writeln!(std::io::stderr(), "usage: sqlx-service DATABASE BACKUP-FOLDER NAME");
        return ExitCode::from(ErrorKind::InvalidInput.exit_status());
    };
    match run(database, folder, &name.to_string_lossy()).await {
        Ok(line) => {
            let _ = writeln!(std::io::stdout(), "{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            let status = match &error {
                Error::Backup(error) => error.kind().exit_status(),
                _ => ErrorKind::Unavailable.exit_status(),
            };
            ExitCode::from(status)
        }
    }
}

async fn run(database: &Path, folder: &Path, name: &str) -> Result<String, Error> {
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let service = Service::open(database, &migrations, SqliteJournalMode::Wal).await?;
    service.write("hello").await?;
    let made = service.backup(folder.to_owned(), name.to_owned()).await?;
    let version = service.sqlite_version().await?;
    Ok(format!("{} ({} bytes, SQLite {version})", made.path.display(), made.size_bytes))
}
