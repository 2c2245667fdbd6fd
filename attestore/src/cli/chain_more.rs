//! What verbs on chains may be given besides the input and its keys: small tables, distrusted keys, an older copy.

use attestore::chain::ChainOptions;
use attestore::companions::CompanionFile;
use attestore::input::Input;
use attestore::{Error, keys};
use clap::Args;

use super::args::ChainInput;

/// What a verification and a checkpoint may be given.
#[derive(Debug, Args)]
pub(crate) struct ChainMore {
    /// The system's own state beside a file of rows: {"TABLE": [row, …]}; a state.json in the same folder is found by itself
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Vec<String>,
    /// A small table that the format reads besides the rows: an array of rows, or one row a line
    #[arg(long = "companion", value_name = "TABLE=FILE")]
    pub(crate) companions: Vec<String>,
    /// A key that counts for nothing, ever or from a time on
    #[arg(long = "distrusted-key", value_name = "sha256:HEX[@TIME]")]
    pub(crate) distrusted: Vec<String>,
}

/// Reads what every verb on chains takes.
///
/// # Errors
/// When a key, a secret, the format or the input cannot be meant.
pub(crate) fn options(input: &ChainInput, more: &ChainMore) -> Result<(Input, ChainOptions), Error> {
    let mut ring = keys::key_ring(&input.secrets, &input.public_keys, &input.trust_anchors)?;
    for key in &more.distrusted {
        ring.add_distrusted_key(key).map_err(Error::Chain)?;
    }
    let options = ChainOptions {
        format: input.format.clone(),
        table: input.table.clone(),
        keys: ring,
        threads: input.jobs.map_or(0, |jobs| jobs as usize),
        companions: more
            .state
            .iter()
            .chain(&more.companions)
            .map(|text| CompanionFile::parse(text))
            .collect(),
        ..ChainOptions::default()
    };
    // An unknown format is said before the input is looked at.
    attestore::chain::format(&options.format)?;
    Ok((Input::parse(&input.input)?, options))
}
