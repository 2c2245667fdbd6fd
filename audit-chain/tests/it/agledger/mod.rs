//! AGLedger dumps: every vector case, honest dumps of our own writer, single changes.

mod vectors;
