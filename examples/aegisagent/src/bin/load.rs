//! Makes a database of many receipts: `aegisagent-load --receipts 100000 app.db`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use aegisagent_example::{Options, generate};
use clap::Parser;

/// Makes a database of receipts, the same bytes for the same options.
#[derive(Debug, Parser)]
#[command(name = "aegisagent-load")]
struct Args {
    /// Where to make it; an existing file is never overwritten.
    path: PathBuf,
    /// How many receipts, in all tenants together.
    #[arg(long, default_value_t = Options::default().receipts)]
    receipts: u64,
    /// How many tenants, each with a chain of its own.
    #[arg(long, default_value_t = Options::default().tenants)]
    tenants: u32,
    /// How many entries of the policy log.
    #[arg(long, default_value_t = Options::default().policies)]
    policies: u64,
    /// Mebibytes of events beside the receipts, half of them incompressible; 850 and 100000 receipts make about 1 GB.
    #[arg(long, default_value_t = 0)]
    events_mib: u64,
    /// Sign every receipt, with a key made from the seed.
    #[arg(long)]
    sign: bool,
    /// Equal seeds make equal databases.
    #[arg(long, default_value_t = Options::default().seed)]
    seed: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options {
        receipts: args.receipts,
        tenants: args.tenants,
        policies: args.policies,
        event_bytes: args.events_mib.saturating_mul(1 << 20),
        sign: args.sign,
        seed: args.seed,
    };
    let start = Instant::now();
    match generate(&args.path, &options) {
        Ok(made) => {
            let mut line = format!(
                "{}: {} receipts of {} tenants, {} events, {} bytes, in {:.1} s",
                made.path.display(),
                made.receipts,
                options.tenants,
                made.events,
                made.size_bytes,
                start.elapsed().as_secs_f64()
            );
            if let Some(key) = made.public_key {
                line.push_str(&format!("\nsigned by {key}"));
            }
            let _ = writeln!(std::io::stdout(), "{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "aegisagent-load: {error}");
            ExitCode::from(error.kind().exit_status())
        }
    }
}
