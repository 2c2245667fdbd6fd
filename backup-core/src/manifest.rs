//! `manifest.json`: what is in a backup, with the digests and facts.

use serde::{Deserialize, Serialize};

/// The JSON that lists every object of a backup with sizes and digests, and the facts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The backup's id.
    pub id: String,
}
