//! Runs `pg_dump` and `pg_dumpall` and streams what they write into a sink.
//!
//! The dump is PostgreSQL's custom format without compression (`-Fc -Z0`): the sink compresses on all cores and checks
//! sums, and `zstd -d | pg_restore` restores it. The sink is finished only after the program ended with status 0 and
//! its pipe was read to the end (PITFALLS 5); an object that is not finished leaves nothing. A cancelled or failed run
//! kills the program.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use backup_core::context::{Context, Progress};
use backup_core::error::Error as CoreError;
use backup_core::traits::Sinks;

use crate::error::{Error, ErrorKind, Result};
use crate::tools::{Running, Tool, ToolEnvironment};

/// How much is read at once, in bytes.
const BUFFER: usize = 256 << 10;
/// What the custom format begins with.
const MAGIC: &[u8] = b"PGDMP";

/// How a database is dumped.
#[derive(Debug, Clone)]
pub(crate) struct DumpJob<'a> {
    pub(crate) tool: &'a Tool,
    pub(crate) snapshot: &'a str,
    pub(crate) lock_timeout: Duration,
    /// The object's plain name.
    pub(crate) object: &'a str,
}

/// Dumps the connection's database in a snapshot. Returns how many bytes there were.
///
/// # Errors
/// `Cancelled`; [`Error::ToolFailed`]; what the sink says.
pub(crate) fn dump(
    job: &DumpJob<'_>,
    environment: &ToolEnvironment,
    sinks: &dyn Sinks,
    ctx: &Context,
) -> Result<u64> {
    let mut command = job.tool.command_in(environment);
    command
        .args(["--format=custom", "--compress=0", "--no-password"])
        .arg(format!("--snapshot={}", job.snapshot))
        .arg(format!("--lock-wait-timeout={}", job.lock_timeout.as_millis().max(1)))
        .stdout(Stdio::piped());
    let bytes = stream(job.tool.name, command, job.object, sinks, MAGIC, ctx)?;
    tracing::info!(bytes, object = job.object, "dumped");
    Ok(bytes)
}

/// Writes the roles, their memberships and the tablespaces of the cluster, without passwords. Returns what was not
/// permitted, as a sentence for `not_included`.
///
/// # Errors
/// `Cancelled`; what the sink says.
pub(crate) fn globals(
    tool: &Tool,
    environment: &ToolEnvironment,
    object: &str,
    sinks: &dyn Sinks,
    ctx: &Context,
) -> Result<Option<String>> {
    let database = environment.database.replace('\\', "\\\\").replace('\'', "\\'");
    let mut command = tool.command_in(environment);
    command
        .args(["--globals-only", "--no-role-passwords", "--no-password"])
        .arg(format!("--database=dbname='{database}'"))
        .stdout(Stdio::piped());
    match stream(tool.name, command, object, sinks, b"--", ctx) {
        Ok(_) => Ok(None),
        Err(Error::ToolFailed { stderr, .. }) => {
            let why = stderr.lines().last().unwrap_or("").trim().to_owned();
            tracing::warn!(why, "roles are not in the backup");
            Ok(Some(format!(
                "roles, memberships and tablespaces of the cluster: pg_dumpall could not read them ({why})"
            )))
        }
        Err(error) => Err(error),
    }
}

/// Streams a program's output into an object.
fn stream(
    name: &str,
    command: std::process::Command,
    object: &str,
    sinks: &dyn Sinks,
    magic: &[u8],
    ctx: &Context,
) -> Result<u64> {
    let mut running = Running::start(name, command, ctx)?;
    let Some(mut output) = running.output() else {
        return Err(Error::new(ErrorKind::Internal, format!("{name} was started without a pipe")));
    };
    let mut sink = sinks.object(object, None)?;
    let mut buffer = vec![0_u8; BUFFER];
    let mut head: Vec<u8> = Vec::new();
    let mut done = 0_u64;
    loop {
        let read = output.read(&mut buffer).map_err(|error| own_error("read", object, error))?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        if head.len() < magic.len() {
            head.extend(part.iter().take(magic.len() - head.len()));
        }
        sink.write_all(part).map_err(|error| own_error("store", object, error))?;
        done += part.len() as u64;
        ctx.progress(Progress { stage: "store", object, done, total: None, unit: "bytes" });
    }
    drop(output);
    // The status first: what was read may be half a dump.
    running.finish()?;
    if head != magic {
        return Err(Error::new(
            ErrorKind::Malformed,
            format!("{name} ended well but wrote no dump ({done} bytes)"),
        ));
    }
    sink.finish()?;
    Ok(done)
}

/// Takes an error of this workspace out of the `io::Error` that carried it through `Write` or `Read`.
pub(crate) fn own_error(action: &'static str, object: &str, error: std::io::Error) -> Error {
    Error::Core(error.downcast::<CoreError>().unwrap_or_else(|error| CoreError::io(action, object, error)))
}
