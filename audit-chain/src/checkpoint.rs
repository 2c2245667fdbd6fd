//! Checkpoints of chains and of logs.

use serde::{Deserialize, Serialize};

/// Where one chain stood: how many records, the Merkle root over their whole rows, the head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainPoint {
    /// The chain's id.
    pub id: String,
    /// How many records.
    pub records: u64,
    /// The RFC 6962 root over the canonical rows.
    #[serde(with = "root_base64")]
    pub root: [u8; 32],
    /// The last record's link value as the format spells it (hex).
    pub head: String,
    /// How many of the records carried a signature or HMAC.
    pub signed: u64,
}

/// Where all chains of one table stood at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainCheckpoint {
    /// The format's name.
    pub format: String,
    /// The chains, sorted by id.
    pub chains: Vec<ChainPoint>,
}

/// Spells a root as base64 in JSON.
mod root_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(root: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(root))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        bytes.try_into().map_err(|_| D::Error::custom("a Merkle root is 32 bytes in base64"))
    }
}
