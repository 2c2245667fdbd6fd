//! Runs the service: `aegisagent-serve --database app.db --listen 127.0.0.1:8787`.
//!
//! The signing key comes from the environment, `RECEIPT_SIGNING_KEY=[key_id:]<64 hex>`; an invalid key stops the
//! start, where the alternative would be receipts that are silently unsigned.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use aegisagent_example::api::{DEFAULT_BACKUP_DIR, Service, serve};
use aegisagent_example::{Error, ReceiptSigner, Result, Store};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Keeps receipts in a hash chain per tenant and backs them up while it writes.
#[derive(Debug, Parser)]
#[command(name = "aegisagent-serve")]
struct Args {
    /// The database; made where there is none.
    #[arg(long, default_value = "aegis.db")]
    database: PathBuf,
    /// Where to listen; port 0 takes a free one. Loopback only.
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// Where `POST /v1/admin/backup` puts its files; made where there is none.
    #[arg(long, default_value = DEFAULT_BACKUP_DIR)]
    backup_dir: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "aegisagent-serve: {error}");
            ExitCode::from(error.kind().exit_status())
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let signer = match std::env::var("RECEIPT_SIGNING_KEY") {
        Ok(text) => Some(ReceiptSigner::parse(&text)?),
        Err(std::env::VarError::NotPresent) => None,
        Err(std::env::VarError::NotUnicode(_)) => {
            return Err(Error::Invalid("RECEIPT_SIGNING_KEY is not text".into()));
        }
    };
    let store = Store::open(&args.database, signer)?;
    let service = Arc::new(Service { store, backup_dir: args.backup_dir });
    let no_signals = |source| Error::Io { action: "wait for", path: "signals".into(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let announce = |address: SocketAddr| {
        let mut stdout = std::io::stdout();
        let _ = writeln!(stdout, "listening on http://{address}");
        let _ = stdout.flush();
    };
    serve(service, args.listen, announce, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await
}
