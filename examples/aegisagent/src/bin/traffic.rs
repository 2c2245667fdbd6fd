//! Keeps a service busy: posts receipts until it is stopped, the service ends, or enough were posted, then says how
//! many were answered with 201.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aegisagent_example::Action;
use clap::Parser;

/// Posts receipts to a running service.
#[derive(Debug, Parser)]
#[command(name = "aegisagent-traffic")]
struct Args {
    /// The service, as `http://127.0.0.1:8787`.
    url: String,
    /// How many receipts a second, at most.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Stop after so many seconds.
    #[arg(long, default_value_t = 3_600)]
    seconds: u64,
    /// Stop after so many receipts.
    #[arg(long)]
    count: Option<u64>,
    /// Whose chains grow: this many of the loader's tenants.
    #[arg(long, default_value_t = 5)]
    tenants: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let url = format!("{}/v1/receipts", args.url.trim_end_matches('/'));
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(30))).build().into();
    let start = Instant::now();
    let between = Duration::from_secs(1) / args.rate.max(1);
    let mut posted = 0;
    let stopped = loop {
        if start.elapsed() >= Duration::from_secs(args.seconds) || args.count == Some(posted) {
            break None;
        }
        let action = Action {
            tenant_id: format!("tenant_{:02}", posted % args.tenants.max(1) + 1),
            agent_id: Some("traffic".into()),
            tool: Some("http".into()),
            action: Some("GET /v1/orders".into()),
            resource: Some(format!("orders#{posted}")),
            source_trust: "semi_trusted_customer".into(),
            decision: "allow".into(),
            ..Action::default()
        };
        if let Err(error) = agent.post(&url).send_json(&action) {
            break Some(error);
        }
        posted += 1;
        // The schedule, not the last answer, sets the pace: a slow answer is made up for.
        let due = between * u32::try_from(posted).unwrap_or(u32::MAX);
        if let Some(ahead) = due.checked_sub(start.elapsed()) {
            std::thread::sleep(ahead);
        }
    };
    let _ = writeln!(std::io::stdout(), "{posted} receipts posted in {:.1} s", start.elapsed().as_secs_f64());
    match stopped {
        None => ExitCode::SUCCESS,
        Some(error) => {
            let _ = writeln!(std::io::stderr(), "aegisagent-traffic: {error}");
            ExitCode::FAILURE
        }
    }
}
