//! Keeps an eye on one long statement: tells progress and interrupts it when the caller cancels.
//!
//! SQLite's own progress callback belongs to the connection, which may be the caller's; a second thread and
//! `sqlite3_interrupt` serve every connection alike. Called by [`crate::copy`] and by the checks of a restore.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use backup_core::context::Context;
use rusqlite::InterruptHandle;

/// How often the caller's flag is looked at and progress is told.
const TICK: Duration = Duration::from_millis(50);

/// Runs `op`; meanwhile calls `tick` now and then, and interrupts the connection once `ctx` is cancelled.
///
/// The watching thread has ended when this returns, so no later statement can be interrupted by it.
pub(crate) fn watched<T>(
    handle: InterruptHandle,
    ctx: &Context,
    tick: impl Fn() + Send + Sync,
    op: impl FnOnce() -> T,
) -> T {
    let (working, done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while done.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                if ctx.cancel().is_cancelled() {
                    handle.interrupt();
                } else {
                    tick();
                }
            }
        });
        let value = op();
        drop(working);
        value
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use backup_core::context::Cancel;
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn cancelling_interrupts_a_statement_that_would_never_end() {
        let connection = Connection::open_in_memory().unwrap();
        let cancel = Cancel::new();
        let ctx = Context::new().with_cancel(cancel.clone());
        let begun = Instant::now();
        let result = watched(
            connection.get_interrupt_handle(),
            &ctx,
            || cancel.cancel(),
            || {
                connection.query_row(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
                    [],
                    |row| row.get::<_, i64>(0),
                )
            },
        );
        assert_eq!(crate::fault::extended_code(&result.unwrap_err()), Some(rusqlite::ffi::SQLITE_INTERRUPT));
        assert!(begun.elapsed() < Duration::from_secs(30));
        let after: i64 = connection.query_row("SELECT 1", [], |row| row.get(0)).unwrap();
        assert_eq!(after, 1);
    }
}
