//! Seals an object in one pass and opens it again: digests, zstd, age.
//!
//! ```text
//! plain bytes -> count + SHA-256 -> one zstd frame -> [age] -> count + SHA-256 -> stored bytes
//! ```
//! The repository writes and reads every object through here. A stored object is exactly one zstd frame
//! (RFC 8878) with a content checksum and without a dictionary, named `NAME.zst`; encrypted, it is that frame
//! inside one binary age file (c2sp.org/age), named `NAME.zst.age`. So `age -d | zstd -d | sha256sum` gives
//! the recorded digest of the plain bytes, and `sha256sum` of the file that of the stored bytes.
//!
//! Constant memory: some 17 MiB with two compression threads, 8 MiB for each further one. zstd's own threads
//! compress and, on four cores or more, one more hashes the plain bytes, while the thread that writes only
//! hands over; it hashes the stored bytes, of which there are fewer. A reader hashes beside decompression.
//! A writer that is dropped or fails gives no [`Sealed`], so nothing can be recorded for it.

use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use age::stream::{StreamReader, StreamWriter};
use serde::{Deserialize, Serialize};
use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation as _, OutBuffer};
use zstd::stream::{write, zio};

use crate::context::{Context, Progress};
use crate::encrypt::{Identities, Recipients};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Digest;
use crate::tally::{Stored, Tally, TallyBeside};

/// The suffix of a compressed object.
pub const SUFFIX_PLAIN: &str = ".zst";
/// The suffix of a compressed and encrypted object.
pub const SUFFIX_ENCRYPTED: &str = ".zst.age";
/// The zstd level unless told otherwise.
pub const DEFAULT_LEVEL: i32 = 3;
/// The highest zstd level: beyond it a frame needs more than 8 MiB of window to read.
pub const MAX_LEVEL: i32 = 19;
/// The most compression threads unless told otherwise: each costs some 12 MiB.
pub const DEFAULT_MAX_WORKERS: u32 = 4;

/// Bytes handled at once, in bytes.
const BUFFER: usize = 256 * 1024;
/// Bytes that one compression thread takes at a time.
const JOB: u32 = 2 << 20;
/// Under this many plain bytes threads do not pay.
const SMALL: u64 = 1 << 20;
/// The largest window that is read, as a power of two: what level 19 writes.
const WINDOW_LOG_MAX: u32 = 23;
/// Bytes between two reports of progress.
const PROGRESS_STEP: u64 = 4 << 20;

/// The sizes and digests of a sealed object, as the manifest records them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Plain bytes.
    pub size_bytes: u64,
    /// The SHA-256 of the plain bytes.
    pub sha256: Digest,
    /// Stored bytes.
    pub stored_size_bytes: u64,
    /// The SHA-256 of the stored bytes.
    pub stored_sha256: Digest,
}

/// How objects are sealed.
#[derive(Debug, Clone)]
pub struct SealOptions {
    /// The zstd level, from 1 to [`MAX_LEVEL`]; [`DEFAULT_LEVEL`] by default.
    pub level: i32,
    /// Compression threads; 0 compresses in the writing thread. By default one a core, at most
    /// [`DEFAULT_MAX_WORKERS`].
    pub workers: Option<u32>,
    /// The exact number of plain bytes, where known: recorded in the frame, and another number is an error.
    pub pledged_size: Option<u64>,
    /// Whom to encrypt to; `None` stores the frame as it is.
    pub recipients: Option<Recipients>,
}

impl Default for SealOptions {
    fn default() -> Self {
        Self { level: DEFAULT_LEVEL, workers: None, pledged_size: None, recipients: None }
    }
}

impl SealOptions {
    /// Returns the suffix of what these options store: `.zst` or `.zst.age`.
    #[must_use]
    pub fn suffix(&self) -> &'static str {
        if self.recipients.is_some() { SUFFIX_ENCRYPTED } else { SUFFIX_PLAIN }
    }

    fn workers(&self) -> u32 {
        if self.pledged_size.is_some_and(|size| size < SMALL) {
            return 0;
        }
        self.workers.unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            // One core: a thread of its own would only take turns with the writing one.
            if cores == 1 { 0 } else { DEFAULT_MAX_WORKERS.min(u32::try_from(cores).unwrap_or(u32::MAX)) }
        })
    }
}

/// Where the zstd frame goes.
enum Target<W: Write> {
    Plain(Stored<W>),
    Age(Box<StreamWriter<Stored<W>>>),
}

impl<W: Write> Write for Target<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(buf),
            Self::Age(out) => out.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes plain bytes and writes the sealed object.
///
/// After an error the writer stays failed: no further byte is taken and [`SealWriter::finish`] fails.
#[must_use = "an object is sealed only by `finish`"]
pub struct SealWriter<W: Write> {
    object: String,
    encoder: write::Encoder<'static, Target<W>>,
    /// Small writes gathered, so that hash and compressor see large ones.
    gathered: Vec<u8>,
    plain: TallyBeside,
    pledged: Option<u64>,
    /// Compression threads that are still to be asked for.
    workers: u32,
    failed: bool,
    told: u64,
    ctx: Context,
}

impl<W: Write> fmt::Debug for SealWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealWriter").field("object", &self.object).finish_non_exhaustive()
    }
}

impl<W: Write> SealWriter<W> {
    /// Starts an object; `object` is its name in errors and progress. With recipients, the age header is
    /// written to `out` at once.
    ///
    /// # Errors
    /// `InvalidInput` for a level that is not offered; `KeyRejected` when it cannot be encrypted; what `out`
    /// says.
    ///
    /// # Source
    /// RFC 8878 (zstd); c2sp.org/age.
    pub fn new(object: &str, out: W, options: &SealOptions, ctx: &Context) -> Result<Self> {
        if !(1..=MAX_LEVEL).contains(&options.level) {
            let message = format!("zstd level: expected 1 to {MAX_LEVEL}, found {}", options.level);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        ctx.check()?;
        let zstd_error = |error: io::Error| {
            Error::new(ErrorKind::Internal, format!("{object}: zstd refuses its settings")).with_source(error)
        };
        let mut raw = Encoder::new(options.level).map_err(zstd_error)?;
        raw.set_parameter(CParameter::ChecksumFlag(true)).map_err(zstd_error)?;
        raw.set_pledged_src_size(options.pledged_size).map_err(zstd_error)?;

        let stored = Stored::new(out);
        let target = match &options.recipients {
            None => Target::Plain(stored),
            Some(recipients) => {
                let age = recipients.encryptor()?.wrap_output(stored);
                Target::Age(Box::new(age.map_err(|error| Error::io("write", object, error))?))
            }
        };
        let encoder = write::Encoder::with_writer(zio::Writer::new_with_capacity(target, raw, BUFFER));
        Ok(Self {
            object: object.to_owned(),
            encoder,
            gathered: Vec::with_capacity(BUFFER),
            // The thread pays beside two compressing ones and this one.
            plain: TallyBeside::new(4),
            pledged: options.pledged_size,
            workers: options.workers(),
            failed: false,
            told: 0,
            ctx: ctx.clone(),
        })
    }

    /// Ends the object and returns its sizes and digests with the output, which the caller makes durable.
    ///
    /// # Errors
    /// `InvalidInput` when the plain bytes are not as many as were pledged; what the output says; `Cancelled`.
    pub fn finish(mut self) -> Result<(Sealed, W)> {
        if self.failed {
            let message = format!("{}: not sealed: an earlier write failed", self.object);
            return Err(Error::new(ErrorKind::Io, message));
        }
        let object = std::mem::take(&mut self.object);
        let named = |error| Error::io("write", &object, error);
        let gathered = std::mem::take(&mut self.gathered);
        if self.plain.size() == 0 {
            // All of it is at hand: its size is known and threads do not pay.
            self.workers = 0;
            let size = self.pledged.or(Some(gathered.len() as u64));
            self.encoder.set_pledged_src_size(size).map_err(named)?;
        }
        self.consume(&gathered).map_err(named)?;
        if let Some(pledged) = self.pledged
            && pledged != self.plain.size()
        {
            let message = format!("{object}: expected {pledged} bytes, got {}", self.plain.size());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let target = self.encoder.finish().map_err(named)?;
        let stored = match target {
            Target::Plain(stored) => stored,
            Target::Age(age) => age.finish().map_err(named)?,
        };
        let (size_bytes, sha256) = self.plain.finish()?;
        let (stored_size_bytes, stored_sha256) = stored.tally.finish();
        Ok((Sealed { size_bytes, sha256, stored_size_bytes, stored_sha256 }, stored.out))
    }

    fn consume(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.workers > 0 && !bytes.is_empty() {
            self.encoder.set_parameter(CParameter::NbWorkers(self.workers))?;
            self.encoder.set_parameter(CParameter::JobSize(JOB))?;
            self.workers = 0;
        }
        for piece in bytes.chunks(BUFFER) {
            self.ctx.check()?;
            self.encoder.write_all(piece)?;
            self.plain.update(piece);
        }
        if self.plain.size() >= self.told + PROGRESS_STEP {
            self.told = self.plain.size();
            let (done, total) = (self.plain.size(), self.pledged);
            self.ctx.progress(Progress { stage: "store", object: &self.object, done, total, unit: "bytes" });
        }
        Ok(())
    }
}

impl<W: Write> Write for SealWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::Error::other("an earlier write failed"));
        }
        // Until the bytes are all taken, a failure leaves the writer failed.
        self.failed = true;
        if self.gathered.len() + buf.len() > BUFFER {
            let mut gathered = std::mem::take(&mut self.gathered);
            self.consume(&gathered)?;
            gathered.clear();
            self.gathered = gathered;
        }
        // The first buffer is kept back: with nothing behind it the object is small.
        if buf.len() > BUFFER || (buf.len() == BUFFER && self.plain.size() > 0) {
            self.consume(buf)?;
        } else {
            self.gathered.extend_from_slice(buf);
        }
        self.failed = false;
        Ok(buf.len())
    }

    /// Does nothing: an object is complete only after [`SealWriter::finish`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How objects are opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Whether the object is an age file (its name ends in `.zst.age`).
    pub encrypted: bool,
    /// The identities at hand.
    pub identities: Identities,
    /// What the manifest records. Without it only zstd's checksum and age's tags tell damage.
    pub expected: Option<Sealed>,
}

/// Digests what comes from storage; shared, because age keeps its input to itself.
struct Source<R> {
    input: R,
    object: Arc<str>,
    tally: Arc<Mutex<Tally>>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = match self.input.read(buf) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            // Marked as storage's own failure, so that it is not taken for damage.
            Err(error) => return Err(Error::io("read", &*self.object, error).into()),
        };
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).update(&buf[..got]);
        Ok(got)
    }
}

/// Where the zstd frame comes from.
enum Frame<R> {
    Plain(Source<R>),
    Age(Box<StreamReader<BufReader<Source<R>>>>),
}

/// Gives the plain bytes of a sealed object.
///
/// It returns the end (`Ok(0)`) only after the frame is complete with its checksum, nothing follows it and
/// every recorded size and digest holds. A reader that stops early has proven nothing: call
/// [`OpenReader::finish`].
pub struct OpenReader<R> {
    object: Arc<str>,
    frame: Frame<R>,
    buffer: Vec<u8>,
    /// The unread part of `buffer`.
    unread: std::ops::Range<usize>,
    decoder: Decoder<'static>,
    /// The decoder may hold output that did not fit.
    pending: bool,
    started: bool,
    frame_done: bool,
    plain: TallyBeside,
    stored: Arc<Mutex<Tally>>,
    expected: Option<Sealed>,
    outcome: Option<Sealed>,
    failed: bool,
    ctx: Context,
}

impl<R> fmt::Debug for OpenReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenReader").field("object", &self.object).finish_non_exhaustive()
    }
}

impl<R: Read> OpenReader<R> {
    /// Opens an object; `object` is its name in errors. An encrypted one is decrypted as far as its header.
    ///
    /// # Errors
    /// `KeyRejected` when no identity at hand opens it; `Corrupt` when its header is damaged; what the input
    /// says.
    pub fn new(object: &str, input: R, options: &OpenOptions, ctx: &Context) -> Result<Self> {
        ctx.check()?;
        let stored = Arc::new(Mutex::new(Tally::default()));
        let object: Arc<str> = Arc::from(object);
        let source = Source { input, object: Arc::clone(&object), tally: Arc::clone(&stored) };
        let frame = if options.encrypted {
            let input = BufReader::with_capacity(BUFFER, source);
            Frame::Age(Box::new(options.identities.open(&object, input)?))
        } else {
            Frame::Plain(source)
        };
        let zstd_error = |error| {
            Error::new(ErrorKind::Internal, format!("{object}: zstd refuses its settings")).with_source(error)
        };
        let mut decoder = Decoder::new().map_err(zstd_error)?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(zstd_error)?;
        Ok(Self {
            object,
            frame,
            buffer: vec![0; BUFFER],
            unread: 0..0,
            decoder,
            pending: false,
            started: false,
            frame_done: false,
            plain: TallyBeside::new(2),
            stored,
            expected: options.expected,
            outcome: None,
            failed: false,
            ctx: ctx.clone(),
        })
    }

    /// Reads what is left, checks everything and returns the sizes and digests found.
    ///
    /// # Errors
    /// [`Error::Digest`] when one is not the recorded one; `Corrupt` when the object is damaged, cut or
    /// followed by other bytes.
    pub fn finish(mut self) -> Result<Sealed> {
        let mut rest = vec![0; BUFFER];
        while self.step(&mut rest)? > 0 {}
        self.outcome.take().ok_or_else(|| self.damaged("it was not read to its end"))
    }

    fn damaged(&self, why: impl fmt::Display) -> Error {
        let message = format!("{}: after {} plain bytes: {why}", self.object, self.plain.size());
        Error::new(ErrorKind::Corrupt, message)
            .with_hint("the object is damaged: restore from another backup")
    }

    /// Takes more of the frame into the buffer behind what is unread; false at the end.
    fn fill(&mut self) -> Result<bool> {
        self.ctx.check()?;
        if self.unread.is_empty() {
            self.unread = 0..0;
        }
        loop {
            let room = &mut self.buffer[self.unread.end..];
            let read = match &mut self.frame {
                Frame::Plain(source) => source.read(room),
                Frame::Age(source) => source.read(room),
            };
            match read {
                Ok(got) => {
                    self.unread.end += got;
                    return Ok(got > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What is not storage's own failure is age's verdict.
                Err(error) => {
                    return Err(error
                        .downcast::<Error>()
                        .unwrap_or_else(|error| self.damaged(format!("the age payload fails: {error}"))));
                }
            }
        }
    }

    /// Refuses what a sealed object never starts with, before the decoder sees it.
    fn check_start(&mut self) -> Result<()> {
        while self.unread.len() < 5 {
            if !self.fill()? {
                let message = format!("expected a zstd frame, found {} bytes", self.unread.len());
                return Err(self.damaged(message));
            }
        }
        let start = &self.buffer[self.unread.clone()];
        let (magic, descriptor) = (&start[..4], start[4]);
        if magic != [0x28, 0xB5, 0x2F, 0xFD] {
            let why = if start.starts_with(b"age-e") { "an age file" } else { "other bytes" };
            return Err(self.damaged(format!("expected a zstd frame, found {why}")));
        }
        // Bit 2 is the content checksum; bits 4 and 3 are unused, 1 and 0 a dictionary.
        if descriptor & 0b0001_1111 != 0b0000_0100 {
            let message =
                format!("expected a frame with a checksum and no dictionary, found {descriptor:#04x}");
            return Err(self.damaged(message));
        }
        self.started = true;
        Ok(())
    }

    fn step(&mut self, buf: &mut [u8]) -> Result<usize> {
        if self.failed {
            let message = format!("{}: an earlier read failed", self.object);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        if buf.is_empty() || self.outcome.is_some() {
            return Ok(0);
        }
        let result = self.advance(buf);
        self.failed = result.is_err();
        result
    }

    fn advance(&mut self, buf: &mut [u8]) -> Result<usize> {
        if !self.started {
            self.check_start()?;
        }
        while !self.frame_done {
            if self.unread.is_empty() && !self.pending && !self.fill()? {
                return Err(self.damaged("the object is cut short"));
            }
            let mut input = InBuffer::around(&self.buffer[self.unread.clone()]);
            let mut output = OutBuffer::around(&mut *buf);
            let run = self.decoder.run(&mut input, &mut output);
            let (taken, given) = (input.pos(), output.pos());
            self.unread.start += taken;
            let wants = run.map_err(|error| self.damaged(format!("the zstd frame fails: {error}")))?;
            self.frame_done = wants == 0;
            self.pending = given == buf.len();
            if given > 0 {
                self.plain.update(&buf[..given]);
                if let Some(expected) = &self.expected
                    && self.plain.size() > expected.size_bytes
                {
                    let found = format!("at least {}", self.plain.size());
                    return Err(self.digest("size in bytes", expected.size_bytes, found));
                }
                return Ok(given);
            }
        }
        if !self.unread.is_empty() || self.fill()? {
            return Err(self.damaged("other bytes follow the object's end"));
        }
        self.check_end()?;
        Ok(0)
    }

    fn check_end(&mut self) -> Result<()> {
        let (size_bytes, sha256) =
            std::mem::replace(&mut self.plain, TallyBeside::new(usize::MAX)).finish()?;
        let stored = std::mem::take(&mut *self.stored.lock().unwrap_or_else(PoisonError::into_inner));
        let (stored_size_bytes, stored_sha256) = stored.finish();
        let found = Sealed { size_bytes, sha256, stored_size_bytes, stored_sha256 };
        if let Some(expected) = &self.expected {
            compare(&self.object, expected, &found, true)?;
        }
        self.outcome = Some(found);
        Ok(())
    }

    fn digest(&self, what: &'static str, expected: impl fmt::Display, found: impl fmt::Display) -> Error {
        Error::Digest {
            object: self.object.to_string(),
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

impl<R: Read> Read for OpenReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.step(buf)?)
    }
}

/// Reads an object as it is stored and checks it against what is recorded, without any identity.
///
/// # Errors
/// [`Error::Digest`] when size or digest is not the recorded one; what the input says; `Cancelled`.
pub fn check_stored(object: &str, input: impl Read, expected: &Sealed, ctx: &Context) -> Result<()> {
    let (stored_size_bytes, stored_sha256) = digest(object, input, ctx)?;
    let found = Sealed { stored_size_bytes, stored_sha256, ..*expected };
    compare(object, expected, &found, false)
}

/// Reads to the end and returns the number of bytes and their SHA-256.
///
/// # Errors
/// What the input says; `Cancelled`.
pub fn digest(object: &str, mut input: impl Read, ctx: &Context) -> Result<(u64, Digest)> {
    let mut tally = Tally::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        ctx.check()?;
        match input.read(&mut buffer) {
            Ok(0) => return Ok(tally.finish()),
            Ok(got) => tally.update(&buffer[..got]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", object, error)),
        }
    }
}

/// Fails on the first figure that differs, stored bytes first: they say whether storage is at fault.
fn compare(object: &str, expected: &Sealed, found: &Sealed, plain: bool) -> Result<()> {
    let fail = |what, expected: String, found: String| {
        Err(Error::Digest { object: object.to_owned(), what, expected, found })
    };
    let sizes = [
        ("size of the stored bytes", expected.stored_size_bytes, found.stored_size_bytes, true),
        ("size in bytes", expected.size_bytes, found.size_bytes, plain),
    ];
    let digests = [
        ("sha256 of the stored bytes", expected.stored_sha256, found.stored_sha256, true),
        ("sha256", expected.sha256, found.sha256, plain),
    ];
    for (what, expected, found, asked) in sizes {
        if asked && expected != found {
            return fail(what, expected.to_string(), found.to_string());
        }
    }
    for (what, expected, found, asked) in digests {
        if asked && expected != found {
            return fail(what, expected.to_string(), found.to_string());
        }
    }
    Ok(())
}
