//! The chain formats that are built in, each in its own file with its specification.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::{ChainFormat, Companions, Setup};
use crate::keys::KeyRing;
use crate::value::Columns;

pub mod aegisagent;
pub mod agledger;
pub mod caracal;
pub mod caracal_admin;
mod caracal_drift;
pub mod caracal_hmac;
pub mod native;
pub mod z4j;

/// The names that [`by_name`] knows.
pub const NAMES: &[&str] =
    &["aegisagent", "aegisagent-policy", "agledger", "caracal", "caracal-admin", "native", "z4j"];

/// Returns a built-in format by its name.
///
/// # Errors
/// [`Error::InvalidInput`] naming the formats there are.
pub fn by_name(name: &str) -> Result<Arc<dyn ChainFormat>> {
    match name {
        "aegisagent" => Ok(Arc::new(aegisagent::Receipts)),
        "aegisagent-policy" => Ok(Arc::new(aegisagent::PolicyLog)),
        "agledger" => Ok(Arc::new(agledger::Agledger)),
        "caracal" => Ok(Arc::new(caracal::Caracal)),
        "caracal-admin" => Ok(Arc::new(caracal_admin::CaracalAdmin)),
        "native" => Ok(Arc::new(native::Native)),
        "z4j" => Ok(Arc::new(z4j::Z4j)),
        _ => Err(Error::InvalidInput(format!(
            "unknown chain format {name:?}: expected one of {}",
            NAMES.join(", ")
        ))),
    }
}

/// Returns the built-in formats whose hashed columns are all there.
#[must_use]
pub fn recognise(columns: &Columns) -> Vec<&'static str> {
    let keys = KeyRing::new();
    let companions = Companions::new();
    let setup = Setup { keys: &keys, companions: &companions };
    let fits = |name: &&&'static str| by_name(name).is_ok_and(|format| format.bind(columns, &setup).is_ok());
    if columns.names().is_empty() { Vec::new() } else { NAMES.iter().filter(fits).copied().collect() }
}
