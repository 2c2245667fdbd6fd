//! Where rows come from, in a shape that all cores can read at once.
//!
//! A [`RowSource`] is cut into numbered chunks. Each worker thread asks the source for a reader of its
//! own ([`RowSource::reader`]) and then claims one chunk after the other ([`ChunkReader::read_chunk`]);
//! the rows are handed over borrowed, hashed where they were read, and only the small results travel to
//! the thread that puts the chunks back in order. A table read by row-id ranges, a file cut at line
//! ends and a single iterator all fit this.

use crate::error::Result;
use crate::value::{Columns, Row};

/// A sequence of rows in chain order that several readers can share.
pub trait RowSource: Sync {
    /// Names the source for messages (`receipts.ndjson`, `app.db:action_receipts`).
    fn name(&self) -> String;

    /// Returns the header.
    fn columns(&self) -> &Columns;

    /// Opens a reader for one worker thread. Readers of one pass share the chunks: each chunk is
    /// read by exactly one of them.
    ///
    /// # Errors
    /// [`Error::Source`](crate::error::Error::Source) or [`Error::Io`](crate::error::Error::Io) when the source cannot be opened.
    fn reader(&self) -> Result<Box<dyn ChunkReader + '_>>;

    /// Starts another pass from the first row; returns `false` where the source can be read once only.
    fn rewind(&self) -> Result<bool>;
}

/// One worker's view of a [`RowSource`].
pub trait ChunkReader {
    /// Claims the next chunk, hands its rows to `each` in order, and returns the chunk's number
    /// (0, 1, 2 … without gaps over all readers), or `None` when no chunk is left.
    ///
    /// # Errors
    /// What the source says, with the place (line, row) in it; and what `each` returns.
    fn read_chunk(&mut self, each: &mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<Option<u64>>;
}
