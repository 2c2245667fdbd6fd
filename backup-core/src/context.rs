//! What every long call carries: progress, cancellation and the tracing span.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// A flag that asks running work to stop; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Makes a flag that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work to stop. Safe from any thread and from a signal handler.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Reports whether the work was asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns the flag itself, for libraries that poll one.
    #[must_use]
    pub fn flag(&self) -> &AtomicBool {
        &self.0
    }
}

/// How far a stage of the work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The stage, in the words of the documentation: `snapshot`, `store`, `verify chain`, `restore` …
    pub stage: &'a str,
    /// The object it is about, where there is one.
    pub object: &'a str,
    /// Units done (bytes, rows or pages, as the stage counts).
    pub done: u64,
    /// Units in all, where known.
    pub total: Option<u64>,
    /// The unit: `bytes`, `rows`, `pages`, `objects`.
    pub unit: &'a str,
}

/// A callback for progress. Called from worker threads, often; it should return at once.
pub type ProgressFn = dyn Fn(Progress<'_>) + Send + Sync;

/// Carries progress, cancellation and the span of one run.
#[derive(Clone, Default)]
pub struct Context {
    cancel: Cancel,
    progress: Option<Arc<ProgressFn>>,
    span: Option<tracing::Span>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("cancelled", &self.cancel.is_cancelled())
            .field("progress", &self.progress.is_some())
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Makes a context without progress whose flag nobody sets.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Shares a cancellation flag.
    #[must_use]
    pub fn with_cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// Sets the progress callback.
    #[must_use]
    pub fn with_progress(mut self, progress: impl Fn(Progress<'_>) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Sets the span under which the work logs (otherwise the current one).
    #[must_use]
    pub fn with_span(mut self, span: tracing::Span) -> Self {
        self.span = Some(span);
        self
    }

    /// Returns the span.
    #[must_use]
    pub fn span(&self) -> tracing::Span {
        self.span.clone().unwrap_or_else(tracing::Span::current)
    }

    /// Returns the cancellation flag.
    #[must_use]
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Fails when the work was asked to stop.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Tells the caller how far a stage has come.
    pub fn progress(&self, progress: Progress<'_>) {
        if let Some(callback) = &self.progress {
            callback(progress);
        }
    }
}
