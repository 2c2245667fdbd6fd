//! Group commit: many threads hand records in, one thread stores them, many in one transaction.
//!
//! [`Writer::append`] returns when the record is durable; what else waits meanwhile goes into the next transaction, so
//! that a slow disk makes the groups larger and not the queue longer. The queue is bounded: who hands in faster than
//! the disk takes waits ([`Writer::submit`]) or is told so ([`Writer::try_submit`]).
//!
//! A record that cannot be stored is its own caller's error: when a group fails it is rolled back and each of its records
//! is tried alone. An outcome that nobody waits for is told by [`Writer::flush`] or [`Writer::close`]. When the process
//! dies, records whose receipt was not handed out may or may not be there; the others are.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use rusqlite::Connection;

use super::append::{Draft, Ledger, Receipt, allowed};
use super::fault;
use crate::open::open_live;

/// How many records may wait, by default.
pub const DEFAULT_QUEUE: usize = 4_096;
/// How many records one transaction takes at most, by default.
pub const DEFAULT_GROUP: usize = 1_024;
/// How long the lock of another writer is waited for, by default.
pub const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// How a [`Writer`] works.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// How many records may wait before who hands in more waits, too.
    pub queue: usize,
    /// How many records one transaction takes at most.
    pub group: usize,
    /// How long the lock of another writer is waited for.
    pub busy_timeout: Duration,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { queue: DEFAULT_QUEUE, group: DEFAULT_GROUP, busy_timeout: DEFAULT_BUSY_TIMEOUT }
    }
}

/// Takes records from many threads. Dropped, it stores what waits, and ends.
#[derive(Debug)]
pub struct Writer {
    inbox: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
    chain: String,
}

/// A record that was handed in. Its outcome is told once.
#[derive(Debug)]
#[must_use = "whether the record was stored is told here"]
pub struct Pending {
    outcome: Receiver<Result<Receipt>>,
}

impl Pending {
    /// Waits until the record is durable, or cannot be stored.
    ///
    /// # Errors
    /// As [`Ledger::append`]; `Unavailable` when the writer ended before.
    pub fn wait(self) -> Result<Receipt> {
        self.outcome.recv().unwrap_or_else(|_| Err(stopped()))
    }
}

#[derive(Debug)]
enum Message {
    Record(Item),
    Flush(Sender<Option<Error>>),
}

#[derive(Debug)]
struct Item {
    /// The chain, where it is not the ledger's own.
    chain: Option<String>,
    draft: Draft,
    outcome: Sender<Result<Receipt>>,
}

impl Writer {
    /// Opens a database for appending to its chains. Its tables must be there ([`Layout::create`](super::Layout::create)).
    ///
    /// # Errors
    /// `NotFound` when there is no such file; what SQLite says.
    pub fn open(path: &Path, ledger: Ledger, options: &WriterOptions) -> Result<Self> {
        Self::over(open_live(path, options.busy_timeout, &Context::new())?, ledger, options)
    }

    /// Takes a connection that nobody else uses. Each commit is synced before its receipts are handed out.
    ///
    /// # Errors
    /// What SQLite says; when no thread can be started.
    pub fn over(connection: Connection, ledger: Ledger, options: &WriterOptions) -> Result<Self> {
        let failed = |error| fault("append to the chain in", &connection, error);
        connection.busy_timeout(options.busy_timeout).map_err(failed)?;
        connection.execute_batch("PRAGMA synchronous=FULL").map_err(failed)?;
        ledger.head(&connection)?;
        let (inbox, messages) = mpsc::sync_channel(options.queue.max(1));
        let chain = ledger.chain().to_owned();
        let group = options.group.max(1);
        let thread = std::thread::Builder::new()
            .name("attestore-ledger".into())
            .spawn(move || Work { connection, ledger, group, unclaimed: None }.run(&messages))
            .map_err(|error| Error::io("start a thread that writes", "the chain", error))?;
        Ok(Self { inbox: Some(inbox), thread: Some(thread), chain })
    }

    /// Appends a record and waits until it is durable.
    ///
    /// # Errors
    /// As [`Pending::wait`].
    pub fn append(&self, draft: Draft) -> Result<Receipt> {
        self.submit(draft)?.wait()
    }

    /// Hands a record in; waits only while the queue is full.
    ///
    /// # Errors
    /// `Unavailable` when the writer ended; `InvalidInput` for a body of a reserved kind.
    pub fn submit(&self, draft: Draft) -> Result<Pending> {
        self.send(None, draft, true)
    }

    /// Hands in a record of another chain in the same table.
    ///
    /// # Errors
    /// As [`Writer::submit`].
    pub fn submit_to(&self, chain: &str, draft: Draft) -> Result<Pending> {
        self.send((chain != self.chain).then(|| chain.to_owned()), draft, true)
    }

    /// Hands a record in, or says at once that the queue is full.
    ///
    /// # Errors
    /// `Locked` when it is; else as [`Writer::submit`].
    pub fn try_submit(&self, draft: Draft) -> Result<Pending> {
        self.send(None, draft, false)
    }

    fn send(&self, chain: Option<String>, draft: Draft, wait: bool) -> Result<Pending> {
        let (outcome, pending) = mpsc::channel();
        let message = Message::Record(Item { chain, draft: allowed(draft)?, outcome });
        let inbox = self.inbox.as_ref().ok_or_else(stopped)?;
        if wait {
            inbox.send(message).map_err(|_| stopped())?;
        } else {
            inbox.try_send(message).map_err(|error| match error {
                TrySendError::Disconnected(_) => stopped(),
                TrySendError::Full(_) => Error::new(
                    ErrorKind::Locked,
                    format!(
                        "the queue of chain {:?} is full: records come faster than the disk takes them",
                        self.chain
                    ),
                )
                .with_hint("wait (`submit`), or answer that the service is busy"),
            })?;
        }
        Ok(Pending { outcome: pending })
    }

    /// Waits until everything handed in so far is stored.
    ///
    /// # Errors
    /// The first error since the last call whose caller did not wait for it; `Unavailable` when the writer ended.
    pub fn flush(&self) -> Result<()> {
        let (done, flushed) = mpsc::channel();
        let inbox = self.inbox.as_ref().ok_or_else(stopped)?;
        inbox.send(Message::Flush(done)).map_err(|_| stopped())?;
        flushed.recv().map_err(|_| stopped())?.map_or(Ok(()), Err)
    }

    /// Stores what waits and ends.
    ///
    /// # Errors
    /// As [`Writer::flush`].
    pub fn close(mut self) -> Result<()> {
        let flushed = self.flush();
        self.end();
        flushed
    }

    fn end(&mut self) {
        self.inbox = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has ended the callers' waits with an error already.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the thread owns.
struct Work {
    connection: Connection,
    ledger: Ledger,
    group: usize,
    /// The first error that nobody waited for.
    unclaimed: Option<Error>,
}

impl Work {
    /// Stores groups until all senders are gone and the queue is empty.
    fn run(mut self, messages: &Receiver<Message>) {
        let mut next = messages.recv().ok();
        while let Some(message) = next.take() {
            let mut group = Vec::new();
            let mut flush = None;
            let mut message = Some(message);
            while let Some(taken) = message.take() {
                match taken {
                    Message::Record(item) => group.push(item),
                    // What comes after a flush is not of it.
                    Message::Flush(done) => {
                        flush = Some(done);
                        break;
                    }
                }
                if group.len() < self.group {
                    message = messages.try_recv().ok();
                }
            }
            self.store(group);
            if let Some(done) = flush {
                // Who asked may be gone; then the error waits for the next.
                if let Err(mpsc::SendError(error)) = done.send(self.unclaimed.take()) {
                    self.unclaimed = error;
                }
            }
            next = messages.recv().ok();
        }
    }

    /// Stores a group and tells each of its callers.
    fn store(&mut self, group: Vec<Item>) {
        if group.is_empty() {
            return;
        }
        match self.commit(&group) {
            Ok(outcomes) => {
                for (item, outcome) in group.into_iter().zip(outcomes) {
                    self.tell(&item, outcome);
                }
            }
            // Nobody gets the lock a moment later one by one; and a group of one was tried alone.
            Err(error) if group.len() == 1 || error.kind() == ErrorKind::Locked => {
                for item in &group {
                    self.tell(item, Err(again(&error)));
                }
            }
            Err(_) => {
                for item in group {
                    let outcome = match self.commit(std::slice::from_ref(&item)) {
                        Ok(mut outcomes) => outcomes.pop().unwrap_or_else(|| Err(stopped())),
                        Err(error) => Err(error),
                    };
                    self.tell(&item, outcome);
                }
            }
        }
    }

    fn tell(&mut self, item: &Item, outcome: Result<Receipt>) {
        if let Err(mpsc::SendError(Err(error))) = item.outcome.send(outcome) {
            self.unclaimed.get_or_insert(error);
        }
    }

    /// Stores a group in one transaction; an error means that none of it is stored.
    fn commit(&self, group: &[Item]) -> Result<Vec<Result<Receipt>>> {
        let connection = &self.connection;
        let failed = |error| fault("append to the chain in", connection, error);
        connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        let stored = self.insert(group).and_then(|outcomes| {
            connection.execute_batch("COMMIT").map_err(failed)?;
            Ok(outcomes)
        });
        if stored.is_err() && !connection.is_autocommit() {
            // When even this fails the next BEGIN says so.
            let _ = connection.execute_batch("ROLLBACK");
        }
        stored
    }

    fn insert(&self, group: &[Item]) -> Result<Vec<Result<Receipt>>> {
        let mut others: HashMap<&str, Ledger> = HashMap::new();
        for chain in group.iter().filter_map(|item| item.chain.as_deref()) {
            others.entry(chain).or_insert_with(|| self.ledger.of_chain(chain));
        }
        let mut own = None;
        let mut open = HashMap::new();
        let mut outcomes = Vec::with_capacity(group.len());
        for item in group {
            let open = match item.chain.as_deref().and_then(|chain| others.get_key_value(chain)) {
                Some((chain, ledger)) => match open.entry(*chain) {
                    std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
                    std::collections::hash_map::Entry::Vacant(place) => {
                        place.insert(ledger.open(&self.connection)?)
                    }
                },
                None => match &mut own {
                    Some(open) => open,
                    none => none.insert(self.ledger.open(&self.connection)?),
                },
            };
            // A record that cannot be made leaves the head where it is; one that cannot be stored ends the group.
            outcomes.push(match open.make(&item.draft) {
                Ok(record) => open.store(record, &item.draft).map(Ok)?,
                Err(error) => Err(error),
            });
        }
        Ok(outcomes)
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "the writer of the chain has ended")
        .with_hint("open another: what it had not told anybody about may or may not be stored")
}

/// Says an error once more, to another caller.
fn again(error: &Error) -> Error {
    let told = Error::new(error.kind(), error.full_text());
    match error.hint() {
        Some(hint) => told.with_hint(hint),
        None => told,
    }
}
