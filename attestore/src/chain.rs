//! Chains in databases and files: verify them, and write down where they stand.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::earlier::RowDifferences;
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
#[cfg(feature = "postgres")]
use backup_core::traits::ChainRequest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::chain_input::{self, ChainRows};
use crate::companions::{self, CompanionFile};
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
    /// How many chains the report lists where a format has very many; 0 means as many as are usual.
    pub max_chains: usize,
    /// Files that hold the small tables which the format reads besides the rows.
    pub companions: Vec<CompanionFile>,
    /// Files of the oldest rows, from before they were pruned; verified with the input as one chain.
    pub archives: Vec<PathBuf>,
    /// An older copy of the rows: what differs is named row by row.
    pub earlier: Option<Input>,
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
    if let Some(earlier) = &options.earlier {
        return crate::earlier::verify_with_earlier(input, earlier, options, ctx);
    }
    if let Input::Dump(path) = input
        && format.name() == "agledger"
    {
        if !options.companions.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a dump of AGLedger holds all its tables: --state and --companion have nothing to add",
            ));
        }
        let told = progress(ctx);
        let verify_options = VerifyOptions {
            threads: options.threads,
            max_chains: options.max_chains,
            checkpoint: options.checkpoint.as_ref(),
            cancel: Some(ctx.cancel().flag()),
            progress: Some(&told),
            ..VerifyOptions::default()
        };
        return AgledgerDump::open(path)?.verify(&options.keys, &verify_options).map_err(chain_error);
    }
    #[cfg(feature = "postgres")]
    if let Input::Postgres(server) = input
        && options.companions.is_empty()
        && options.archives.is_empty()
    {
        let request = ChainRequest {
            format: Arc::clone(&format),
            table: options.table.clone(),
            keys: options.keys.clone(),
            checkpoint: options.checkpoint.clone(),
            copy: false,
        };
        return crate::postgres::verify_chain(server, &options.postgres, &request, ctx);
    }
    let report = open_chain(input, format.as_ref(), options, ctx).and_then(|rows| {
        verify_rows(&rows, format.as_ref(), options, options.checkpoint.as_ref(), None, ctx)
    });
    // The reader of standard input can only say that it failed; why, the context knows.
    if ctx.cancel().is_cancelled() { Err(Error::Cancelled) } else { report }
}

/// Opens an input with the small tables that the options name.
pub(crate) fn open_chain(
    input: &Input,
    format: &dyn ChainFormat,
    options: &ChainOptions,
    ctx: &Context,
) -> Result<ChainRows> {
    let table = options.table.as_deref();
    // Rows of archives and of older copies come without values, and are compared row for row.
    let alone = options.archives.is_empty() && options.earlier.is_none();
    let open = if alone { chain_input::open_with_values } else { chain_input::open };
    let mut rows = open(input, format, table, &options.postgres, ctx)?;
    companions::add(&mut rows.companions, input, format, &options.companions)?;
    if !options.archives.is_empty() {
        return chain_input::behind_archives(rows, &options.archives, format);
    }
    Ok(rows)
}

/// Verifies rows that are open, against a checkpoint and what became of an older copy's rows.
pub(crate) fn verify_rows(
    source: &ChainRows,
    format: &dyn ChainFormat,
    options: &ChainOptions,
    checkpoint: Option<&ChainCheckpoint>,
    earlier: Option<&RowDifferences>,
    ctx: &Context,
) -> Result<ChainReport> {
    let told = progress(ctx);
    let verify_options = VerifyOptions {
        companions: Some(&source.companions),
        starts: Some(&source.starts),
        threads: options.threads,
        max_chains: options.max_chains,
        checkpoint,
        earlier,
        cancel: Some(ctx.cancel().flag()),
        progress: Some(&told),
        ..VerifyOptions::default()
    };
    let mut report =
        verify(source.rows.as_ref(), format, &options.keys, &verify_options).map_err(chain_error)?;
    if let Some((path, sidecar)) = &source.sidecar {
        let (sha256, _) = chain_input::digest_file(path, ctx)?;
        sidecar.compare(&mut report, Some(&sha256));
    }
    report.add_findings(source.findings.clone());
    Ok(report)
}

/// Tells how many rows are done.
fn progress(ctx: &Context) -> impl Fn(u64) + '_ {
    |done| ctx.progress(Progress { stage: "verify chain", object: "", done, total: None, unit: "rows" })
}

/// Says that the work was cancelled as everything here says it.
pub(crate) fn chain_error(error: audit_chain::error::Error) -> Error {
    match error {
        audit_chain::error::Error::Cancelled => Error::Cancelled,
        other => Error::Chain(other),
    }
}

/// Returns standard input, which stops when the work is cancelled.
pub(crate) fn stdin(ctx: &Context) -> impl Read {
    Stdin { ctx: ctx.clone() }
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
    // A checkpoint names every chain.
    let options = ChainOptions { max_chains: usize::MAX, ..options.clone() };
    let report = verify_chain(input, &options, ctx)?;
    let checkpoint = ChainCheckpoint::from_report(&report)?;
    let note = match key {
        Some(key) => checkpoint.sign(None, &key.note_signer(CHAIN_SIGNER)?)?,
        None => checkpoint.to_note_text(None)?,
    };
    Ok(CheckpointOutcome { checkpoint, note, report })
}

/// The key name on the signature line of a chain's checkpoint.
pub const CHAIN_SIGNER: &str = "attestore.dev/chain";

/// Reads the text of a file that should be a checkpoint.
///
/// # Errors
/// When it cannot be read or is no text.
pub fn read_checkpoint_text(path: &Path) -> Result<String> {
    String::from_utf8(read_document(path)?).map_err(|_| {
        Error::new(ErrorKind::Malformed, format!("{}: a checkpoint is UTF-8 text", path.display()))
    })
}

/// Reads a checkpoint: a note, or the JSON that `chain checkpoint --json` prints. With `trusted` keys one of them must
/// have signed it.
///
/// # Errors
/// When the file is no checkpoint, or nobody trusted signed it.
pub fn read_checkpoint(path: &Path, trusted: &[PublicKey]) -> Result<ChainCheckpoint> {
    let text = read_checkpoint_text(path)?;
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
