//! The chain formats that are built in, each in its own file with its specification.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::ChainFormat;

pub mod aegisagent;

/// The names that [`by_name`] knows.
pub const NAMES: &[&str] = &["aegisagent", "aegisagent-policy"];

/// Returns a built-in format by its name.
///
/// # Errors
/// [`Error::InvalidInput`] naming the formats there are.
pub fn by_name(name: &str) -> Result<Arc<dyn ChainFormat>> {
    match name {
        "aegisagent" => Ok(Arc::new(aegisagent::Receipts)),
        "aegisagent-policy" => Ok(Arc::new(aegisagent::PolicyLog)),
        _ => Err(Error::InvalidInput(format!(
            "unknown chain format {name:?}: expected one of {}",
            NAMES.join(", ")
        ))),
    }
}
