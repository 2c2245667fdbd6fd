//! Verifies hash-, HMAC- and signature-chained audit logs, and writes the evidence about them:
//! Merkle trees (RFC 6962), signed notes and checkpoints (C2SP), reports of typed findings.
//!
//! This crate knows no database and no backup. The crates above bring rows ([`source::RowSource`]).

pub mod canonical;
pub mod checkpoint;
pub mod commitment;
pub mod csv_rows;
pub mod earlier;
pub mod erasure;
pub mod error;
pub mod export;
pub mod format;
pub mod formats;
pub mod iter_rows;
pub mod joined;
pub mod json_rows;
pub mod keys;
pub mod lineage;
pub mod merkle;
pub mod native;
pub mod note;
pub mod profile;
pub mod proof;
pub mod report;
pub mod retention;
pub mod signature;
pub mod sniff;
pub mod source;
pub mod timestamp;
pub mod tlog;
pub mod value;
pub mod verify;

mod diagnose;
mod json_tree;
mod order;
mod pipeline;
mod resolve;
mod runs;
mod spill;
mod walk;
