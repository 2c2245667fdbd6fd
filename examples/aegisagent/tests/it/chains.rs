//! Verifies the chains of a database with the library.

use std::path::Path;

use audit_chain::formats;
use audit_chain::keys::KeyRing;
use audit_chain::report::ChainReport;
use backup_core::context::Context;
use backup_core::traits::{ChainRequest, ChainVerify as _};
use backup_sqlite::SqliteSource;

/// Verifies the chains of one format.
pub(crate) fn verify(database: &Path, format: &str) -> ChainReport {
    let request = ChainRequest {
        format: formats::by_name(format).unwrap(),
        table: None,
        keys: KeyRing::new(),
        checkpoint: None,
        copy: false,
    };
    SqliteSource::new(database).verify_chain(&request, &Context::new()).unwrap()
}
