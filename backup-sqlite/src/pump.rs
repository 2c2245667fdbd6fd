//! Moves bytes from a reader to a writer, with the caller's flag looked at between buffers.
//!
//! [`pump`] does both on one thread. [`pump_beside`] writes on a thread of its own, so that decompressing and hashing go
//! on while the kernel takes the bytes; at most [`AHEAD`] buffers wait. Called by [`crate::restore`] and [`crate::aside`].

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc::{channel, sync_channel};

use backup_core::context::Context;

/// How much is read and written at once, in bytes.
const BUFFER: usize = 1 << 20;
/// How many buffers may wait to be written.
const AHEAD: usize = 4;

/// Copies all bytes and returns how many they are.
///
/// # Errors
/// What reading or writing says; cancellation as an error that carries [`backup_core::error::Error::Cancelled`].
pub(crate) fn pump(
    source: &mut dyn Read,
    target: &mut dyn Write,
    ctx: &Context,
    progress: &dyn Fn(u64),
) -> io::Result<u64> {
    let mut buffer = vec![0_u8; BUFFER];
    let mut done = 0;
    loop {
        ctx.check()?;
        let read = fill(source, &mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { return Ok(done) };
        target.write_all(part)?;
        done += part.len() as u64;
        progress(done);
    }
}

/// Copies all bytes as [`pump`] does; another thread writes them. It has ended when this returns.
///
/// # Errors
/// As [`pump`].
pub(crate) fn pump_beside(
    source: &mut dyn Read,
    target: &mut (dyn Write + Send),
    ctx: &Context,
    progress: &dyn Fn(u64),
) -> io::Result<u64> {
    let (filled, incoming) = sync_channel::<(Vec<u8>, usize)>(AHEAD);
    let (outgoing, emptied) = channel::<Vec<u8>>();
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            for (buffer, length) in incoming {
                target.write_all(buffer.get(..length).unwrap_or_default())?;
                // The other side takes an empty buffer when it wants one.
                let _ = outgoing.send(buffer);
            }
            Ok(())
        });
        let mut reading = || {
            let mut done = 0;
            loop {
                ctx.check()?;
                let mut buffer = emptied.try_recv().unwrap_or_else(|_| vec![0_u8; BUFFER]);
                let read = fill(source, &mut buffer)?;
                // A writer that is gone has an error to tell.
                if read == 0 || filled.send((buffer, read)).is_err() {
                    return Ok(done);
                }
                done += read as u64;
                progress(done);
            }
        };
        let read = reading();
        drop(filled);
        let written: io::Result<()> =
            writing.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread panicked")));
        // Where writing failed, reading only stopped.
        written.and(read)
    })
}

/// Fills a buffer as far as the source goes; 0 is its end.
fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match source.read(room) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use backup_core::context::Cancel;

    use super::*;

    /// Gives so many bytes, few at a time, and then an error or the end.
    struct Source(u64, Option<&'static str>);

    impl Read for Source {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return self.1.take().map_or(Ok(0), |error| Err(io::Error::other(error)));
            }
            let count = buffer.len().min(77_777).min(usize::try_from(self.0).unwrap());
            for (at, byte) in buffer[..count].iter_mut().enumerate() {
                *byte = ((self.0 - at as u64) % 251) as u8;
            }
            self.0 -= count as u64;
            Ok(count)
        }
    }

    /// Takes so many bytes.
    struct Target(Vec<u8>, usize);

    impl Write for Target {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.len() + bytes.len() > self.1 {
                return Err(io::Error::other("full"));
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_byte_arrives_in_order_on_one_thread_and_on_two() {
        let ctx = Context::new();
        for size in [0, 1, BUFFER as u64, BUFFER as u64 + 1, 20 << 20] {
            let (mut one, mut two) = (Target(Vec::new(), usize::MAX), Target(Vec::new(), usize::MAX));
            let told = std::cell::Cell::new(0);
            assert_eq!(pump(&mut Source(size, None), &mut one, &ctx, &|done| told.set(done)).unwrap(), size);
            assert_eq!(told.replace(0), size);
            let copied = pump_beside(&mut Source(size, None), &mut two, &ctx, &|done| told.set(done));
            assert_eq!((copied.unwrap(), told.get()), (size, size));
            assert!(one.0.len() as u64 == size && one.0 == two.0);
        }
    }

    #[test]
    fn a_failure_of_either_side_and_a_cancelled_call_end_both() {
        let ctx = Context::new();
        let said = |source: u64, error, room, ctx: &Context| {
            let mut target = Target(Vec::new(), room);
            pump_beside(&mut Source(source, error), &mut target, ctx, &|_| ()).unwrap_err().to_string()
        };
        assert_eq!(said(50 << 20, None, 9 << 20, &ctx), "full");
        assert_eq!(said(9 << 20, Some("torn"), usize::MAX, &ctx), "torn");
        let cancel = Cancel::new();
        cancel.cancel();
        let error = said(50 << 20, None, usize::MAX, &Context::new().with_cancel(cancel));
        assert_eq!(error, backup_core::error::Error::Cancelled.to_string());
    }
}
