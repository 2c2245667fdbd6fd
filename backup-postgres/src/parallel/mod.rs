//! A dump that many connections read at once: `--jobs N`.
//!
//! [`dump`] is called with a snapshot that is held open. Its tables are locked, then, all in that one snapshot and at the same time:
//! `pg_dump` writes the schema (sections pre-data and post-data), and N connections read the tables by COPY, the large ones
//! in ranges of pages, into data files that `psql` can run. Every row goes by once: into the file, into
//! its table's digest, and, where the table is a chain, through the verification, so that the chain that is
//! verified is the very bytes that are stored.
//!
//! The layout is in [`toc`]. Memory is a row, a compressor and a few buffers per connection; nothing is written to
//! scratch but what a chain in another order than its rows needs to be sorted.

mod catalog;
mod chain;
mod check;
pub mod digest;
mod dump;
mod lane;
mod large_objects;
mod load;
mod lock;
mod pieces;
mod script;
mod source;
pub mod toc;

pub use check::{Differs, checks, compare};
pub use dump::{DumpRequest, Dumped, MAX_JOBS, ParallelOptions, dump};
pub use load::{LoadOptions, Loaded, is_parallel, load, read_toc};
