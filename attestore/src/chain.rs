//! Chains in databases and files: verify them, and write down where they stand.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::format::ChainFormat;
use audit_chain::formats;
use audit_chain::formats::agledger::AgledgerDump;
use audit_chain::keys::KeyRing;
use audit_chain::note::TrustedKey;
use audit_chain::profile::Profile;
use audit_chain::report::ChainReport;
use audit_chain::verify::{VerifyOptions, verify};
use backup_core::context::{Context, Progress};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::signing::{PublicKey, SigningKey};
use backup_core::traits::{ChainRequest, ChainVerify as _};
use backup_sqlite::SqliteSource;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::chain_input::{self, ChainRows};
use crate::input::Input;
use crate::postgres::PostgresOptions;

/// The largest JSON document and checkpoint that is read whole, in bytes.
const MAX_DOCUMENT_BYTES: u64 = 1 << 30;

/// How long standard input is waited for before the context is asked again.
const STDIN_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// What a verification of a chain is given.
#[derive(Debug, Clone, Default)]
pub struct ChainOptions {
    /// A format's name, or the path of a profile.
    pub format: String,
    /// The table, where it is not the format's own.
    pub table: Option<String>,
    /// Secrets, public keys and trust anchors at hand.
    pub keys: KeyRing,
    /// An earlier checkpoint that the chains must extend.
    pub checkpoint: Option<ChainCheckpoint>,
    /// How many threads read and hash; 0 means one per core.
    pub threads: usize,
    /// How a PostgreSQL server is reached.
    pub postgres: PostgresOptions,
}

/// Finds a format by its name, or reads the profile whose path (`….toml`) it is.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] naming the formats there are; [`ErrorKind::Malformed`] with the line of a profile that
/// cannot be right.
pub fn format(name: &str) -> Result<Arc<dyn ChainFormat>> {
    if Path::new(name).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("toml")) {
        return Ok(Arc::new(Profile::load(Path::new(name))?));
    }
    Ok(formats::by_name(name)?)
}

/// Splits `FORMAT:TABLE`; a path of a profile may hold a colon only before a slash.
#[must_use]
pub fn format_and_table(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((format, table)) if !format.is_empty() && !table.is_empty() && !table.contains('/') => {
            (format, Some(table))
        }
        _ => (text, None),
    }
}

/// Verifies the chains of an input.
///
/// # Errors
/// When the input cannot be read or is not of the format. What is wrong with the chains is in the report.
pub fn verify_chain(input: &Input, options: &ChainOptions, ctx: &Context) -> Result<ChainReport> {
    let format = format(&options.format)?;
    let told = |done| {
        ctx.progress(Progress { stage: "verify chain", object: "", done, total: None, unit: "rows" });
    };
    let verify_options = VerifyOptions {
        threads: options.threads,
        checkpoint: options.checkpoint.as_ref(),
        cancel: Some(ctx.cancel().flag()),
        progress: Some(&told),
        ..VerifyOptions::default()
    };
    let named = |error| match error {
        audit_chain::error::Error::Cancelled => Error::Cancelled,
        other => Error::Chain(other),
    };
    let run = |source: &ChainRows| {
        let verify_options = VerifyOptions {
            companions: Some(&source.companions),
            starts: Some(&source.starts),
            threads: options.threads,
            checkpoint: options.checkpoint.as_ref(),
            cancel: Some(ctx.cancel().flag()),
            progress: Some(&told),
            ..VerifyOptions::default()
        };
        let mut report =
            verify(source.rows.as_ref(), format.as_ref(), &options.keys, &verify_options).map_err(named)?;
        if let Some((path, sidecar)) = &source.sidecar {
            let (sha256, _) = chain_input::digest_file(path, ctx)?;
            sidecar.compare(&mut report, Some(&sha256));
        }
        report.add_findings(source.findings.clone());
        Ok(report)
    };
    match input {
        Input::Stdin => {
            let report = chain_input::open(input, format.as_ref(), None, &options.postgres, ctx)
                .and_then(|source| run(&source));
            // The reader can only say that it failed; why, the context knows.
            if ctx.cancel().is_cancelled() { Err(Error::Cancelled) } else { report }
        }
        Input::Dump(path) if format.name() == "agledger" => {
            AgledgerDump::open(path)?.verify(&options.keys, &verify_options).map_err(named)
        }
        Input::Postgres(server) => {
            let request = ChainRequest {
                format: Arc::clone(&format),
                table: options.table.clone(),
                keys: options.keys.clone(),
                checkpoint: options.checkpoint.clone(),
                copy: false,
            };
            #[cfg(feature = "postgres")]
            return crate::postgres::verify_chain(server, &options.postgres, &request, ctx);
            #[cfg(not(feature = "postgres"))]
            {
                let _ = (server, request);
                Err(crate::postgres::absent())
            }
        }
        Input::Sqlite(path) => {
            let request = ChainRequest {
                format: Arc::clone(&format),
                table: options.table.clone(),
                keys: options.keys.clone(),
                checkpoint: options.checkpoint.clone(),
                copy: false,
            };
            SqliteSource::new(path)
                .verify_chain(&request, ctx)
                .map_err(|error| chain_input::explain(error, path))
        }
        _ => {
            run(&chain_input::open(input, format.as_ref(), options.table.as_deref(), &options.postgres, ctx)?)
        }
    }
}

/// Standard input that stops when the work is cancelled, though nobody writes to it or closes it.
pub(crate) struct Stdin {
    pub(crate) ctx: Context,
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let input = std::io::stdin();
        loop {
            self.ctx.check()?;
            let mut wanted = [PollFd::new(&input, PollFlags::IN)];
            match poll(&mut wanted, Some(&STDIN_WAIT)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return input.lock().read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Where the chains of an input stand.
#[derive(Debug, Clone, Serialize)]
pub struct CheckpointOutcome {
    /// The points of all chains.
    #[serde(flatten)]
    pub checkpoint: ChainCheckpoint,
    /// The same as a C2SP note (c2sp.org/tlog-checkpoint), signed where a key was given.
    pub note: String,
    /// The verification that it rests on.
    pub report: ChainReport,
}

/// Verifies an input and writes down where its chains stand.
///
/// # Errors
/// As [`verify_chain`]; and when the key cannot sign.
pub fn checkpoint_chain(
    input: &Input,
    options: &ChainOptions,
    key: Option<&SigningKey>,
    ctx: &Context,
) -> Result<CheckpointOutcome> {
    let report = verify_chain(input, options, ctx)?;
    let checkpoint = ChainCheckpoint::from_report(&report)?;
    let note = match key {
        Some(key) => checkpoint.sign(None, &key.note_signer(CHAIN_SIGNER)?)?,
        None => checkpoint.to_note_text(None)?,
    };
    Ok(CheckpointOutcome { checkpoint, note, report })
}

/// The key name on the signature line of a chain's checkpoint.
pub const CHAIN_SIGNER: &str = "attestore.dev/chain";

/// Reads a checkpoint: a note, or the JSON that `chain checkpoint --json` prints. With `trusted` keys one of them must
/// have signed it.
///
/// # Errors
/// When the file is no checkpoint, or nobody trusted signed it.
pub fn read_checkpoint(path: &Path, trusted: &[PublicKey]) -> Result<ChainCheckpoint> {
    let bytes = read_document(path)?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Error::new(ErrorKind::Malformed, format!("{}: a checkpoint is UTF-8 text", path.display()))
    })?;
    let name = |error: audit_chain::error::Error| {
        Error::new(error.kind(), format!("{}: {error}", path.display()))
            .with_hint("a checkpoint is what `attestore chain checkpoint` prints")
    };
    let parsed = ChainCheckpoint::parse(&text).map_err(name)?;
    if !trusted.is_empty() {
        let keys: Vec<_> = trusted.iter().map(|key| TrustedKey::Bare(*key.verifying_key())).collect();
        parsed.verify(&keys).map_err(name)?;
    }
    Ok(parsed.checkpoint)
}

/// Reads a file that must fit in memory.
pub(crate) fn read_document(path: &Path) -> Result<Vec<u8>> {
    let size = fs::metadata(path).map_err(|source| Error::io("read", path, source))?.len();
    if size > MAX_DOCUMENT_BYTES {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{}: expected at most {MAX_DOCUMENT_BYTES} bytes, found {size} bytes", path.display()),
        )
        .with_hint("give long chains as NDJSON: it is read as a stream"));
    }
    fs::read(path).map_err(|source| Error::io("read", path, source))
}
