//! `manifest.json`: what is in a backup, with the digests and facts; the document that is signed.
//!
//! Called by the repository (writes one per backup, last), by `verify` and by restores.
//!
//! Layout (docs/format/manifest.md): one JSON object in canonical form (RFC 8785), UTF-8, no byte after the
//! closing brace. The signed bytes are the file's bytes; they are never made again from a parsed value.
//!
//! A reader refuses a `format_version` above [`FORMAT_VERSION`] and ignores members it does not know;
//! unknown members of the outermost object are kept ([`Manifest::extra`]).
//!
//! Everything that a manifest names is checked before it is used: ids and object names cannot leave
//! their folder, digests have their length, no object stands twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::error::ErrorKind;
use audit_chain::report::Verdict;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, Result};
use crate::names;
use crate::traits::SourceFacts;

/// What the member `format` says.
pub const FORMAT: &str = "attestore-backup";
/// The version of the format that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// The largest manifest that is read, in bytes.
pub const MAX_BYTES: u64 = 64 << 20;
/// The largest whole number that JSON carries exactly everywhere: 2^53 - 1.
const MAX_EXACT: u64 = (1 << 53) - 1;

/// A SHA-256 digest; 64 lowercase hexadecimal digits in JSON and in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Digests bytes that are at hand as a whole.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut digest = [0_u8; 32];
        let lowercase = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !lowercase || hex::decode_to_slice(text, &mut digest).is_err() {
            return Err(Error::new(
                ErrorKind::Malformed,
                format!("sha256: expected 64 lowercase hexadecimal digits, found {text:?}"),
            ));
        }
        Ok(Self(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// How an object's plain bytes were compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Compression {
    /// As they are: reserved; this version writes none and refuses to read one.
    None,
    /// Zstandard (RFC 8878) with content checksum; the stored name ends in `.zst`.
    Zstd,
}

/// How an object's compressed bytes were encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Encryption {
    /// As they are.
    None,
    /// age (C2SP age v1) to the recipients of [`Manifest::encrypted_to`]; the stored name ends in `.age`.
    Age,
}

/// One object of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// The path of the stored file in the backup's folder (`database/app.db.zst.age`).
    pub name: String,
    /// The size of the plain bytes.
    pub size_bytes: u64,
    /// The digest of the plain bytes.
    pub sha256: Digest,
    /// The size of the stored file, in bytes.
    pub stored_size_bytes: u64,
    /// The digest of the stored file.
    pub stored_sha256: Digest,
    /// How it was compressed.
    pub compression: Compression,
    /// How it was encrypted.
    pub encryption: Encryption,
}

impl ObjectEntry {
    /// Returns the path that an object is stored under: its plain name with the suffixes of its containers.
    #[must_use]
    pub fn stored_name(plain: &str, compression: Compression, encryption: Encryption) -> String {
        let zst = if compression == Compression::Zstd { ".zst" } else { "" };
        let age = if encryption == Encryption::Age { ".age" } else { "" };
        format!("{plain}{zst}{age}")
    }

    /// Returns the plain name that the backend gave (`database/app.db`): the stored name without the suffixes.
    #[must_use]
    pub fn plain_name(&self) -> &str {
        let mut name = self.name.as_str();
        if self.encryption == Encryption::Age {
            name = name.strip_suffix(".age").unwrap_or(name);
        }
        if self.compression == Compression::Zstd {
            name = name.strip_suffix(".zst").unwrap_or(name);
        }
        name
    }
}

/// A chain in a backup: where it stood, and what verifying it in the snapshot said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChainEntry {
    /// The name of the source that holds it ([`SourceFacts::name`]).
    pub source: String,
    /// The table.
    pub table: String,
    /// The format's name.
    pub format: String,
    /// The profile that defines the format, where it is not built in: TOML text. The backup verifies without other files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// How many records in all chains of the table.
    pub records: u64,
    /// The verdict.
    pub verdict: Verdict,
    /// How many findings.
    pub findings: u64,
    /// How many findings of each kind that was listed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub finding_kinds: BTreeMap<String, u64>,
    /// One sentence: what most likely happened.
    pub diagnosis: String,
    /// Where each chain stood: records, Merkle root over whole rows, head.
    pub points: ChainCheckpoint,
    /// Whether it extends the chain in the backup before; absent when there was none to extend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extends: Option<Extends>,
}

/// Whether a chain extends the one in an earlier backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extends {
    /// The earlier backup's id.
    pub backup: String,
    /// Whether it extends it: everything that was there is there unchanged.
    pub ok: bool,
}

/// A secret that the backup's data needs, told by fingerprint only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEntry {
    /// What the plan calls it.
    pub name: String,
    /// A salted slow hash of it (Argon2id, PHC string).
    pub fingerprint: String,
}

/// Where the repository's log stood when the manifest was written, before this backup's own entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// How many entries.
    pub size: u64,
    /// The RFC 6962 root over them, base64.
    pub root: String,
}

/// The backup before this one in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousBackup {
    /// Its id.
    pub id: String,
    /// The digest of its `manifest.json`.
    pub manifest_sha256: Digest,
}

/// The JSON that lists every object of a backup with sizes and digests, and the facts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// [`FORMAT_VERSION`] or below.
    pub format_version: u32,
    /// The backup's id: the name of its folder.
    pub id: String,
    /// The id of the repository it was made in.
    pub repository: String,
    /// When it was made, by the clock of the machine that made it.
    pub created_at: Timestamp,
    /// The version of Attestore that made it.
    pub attestore: String,
    /// What was backed up, and what the backends say of it.
    pub sources: Vec<SourceFacts>,
    /// The objects, sorted by name.
    pub objects: Vec<ObjectEntry>,
    /// The chains that were verified inside the snapshots.
    pub chains: Vec<ChainEntry>,
    /// The secrets that the data needs; never their values.
    pub secrets: Vec<SecretEntry>,
    /// The public age recipients that the objects are encrypted to.
    pub encrypted_to: Vec<String>,
    /// What the backup does not hold, one sentence each.
    pub not_included: Vec<String>,
    /// Where the repository's log stood.
    pub log: LogPosition,
    /// The backup before this one.
    pub previous: Option<PreviousBackup>,
    /// The minisign public key that `manifest.json.minisig` verifies under; `null` when it is not signed.
    pub signed_by: Option<String>,
    /// Members that this version does not know, as they were.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// What is read before anything else, so that a newer manifest is called newer and not malformed.
#[derive(Deserialize)]
struct Probe {
    format: String,
    format_version: u64,
}

impl Manifest {
    /// Makes a manifest of this version that lists nothing yet.
    pub fn new(id: impl Into<String>, repository: impl Into<String>, created_at: Timestamp) -> Self {
        Self {
            format: FORMAT.into(),
            format_version: FORMAT_VERSION,
            id: id.into(),
            repository: repository.into(),
            created_at,
            attestore: env!("CARGO_PKG_VERSION").into(),
            sources: Vec::new(),
            objects: Vec::new(),
            chains: Vec::new(),
            secrets: Vec::new(),
            encrypted_to: Vec::new(),
            not_included: Vec::new(),
            log: LogPosition { size: 0, root: String::new() },
            previous: None,
            signed_by: None,
            extra: BTreeMap::new(),
        }
    }

    /// Writes the manifest in canonical form (RFC 8785): the bytes that are stored and signed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when a name cannot stand in a manifest or a number is above 2^53 - 1.
    pub fn to_canonical_json(&self) -> Result<Vec<u8>> {
        self.check().map_err(|what| self.refuse(ErrorKind::InvalidInput, &what))?;
        serde_json_canonicalizer::to_vec(self)
            .map_err(|error| self.refuse(ErrorKind::InvalidInput, &error.to_string()))
    }

    /// Reads a manifest and checks everything it names. The signature is checked elsewhere, over the bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Newer`] when a newer program made it; [`ErrorKind::Malformed`] when it is not a manifest.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let malformed = |what: String| {
            Error::new(ErrorKind::Malformed, format!("manifest.json: {what}"))
                .with_hint("the manifest is damaged or was altered: verify the repository")
        };
        let probe: Probe = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if probe.format != FORMAT {
            return Err(malformed(format!("format: expected {FORMAT:?}, found {:?}", probe.format)));
        }
        if probe.format_version > u64::from(FORMAT_VERSION) {
            return Err(Error::new(
                ErrorKind::Newer,
                format!(
                    "manifest.json has format version {}, this program reads up to {FORMAT_VERSION}",
                    probe.format_version
                ),
            )
            .with_hint("use the newer Attestore that made this backup"));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        manifest.check().map_err(malformed)?;
        Ok(manifest)
    }

    /// Returns an object by its plain name (`database/app.db`) or by the name it is stored under.
    #[must_use]
    pub fn object(&self, name: &str) -> Option<&ObjectEntry> {
        self.objects
            .iter()
            .find(|object| object.plain_name() == name)
            .or_else(|| self.objects.iter().find(|object| object.name == name))
    }

    /// Returns the facts of a source.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<&SourceFacts> {
        self.sources.iter().find(|source| source.name == name)
    }

    /// Returns the size of all stored objects, in bytes.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.stored_size_bytes).sum()
    }

    /// Returns the size of all objects' plain bytes.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.size_bytes).sum()
    }

    fn refuse(&self, kind: ErrorKind, what: &str) -> Error {
        Error::new(kind, format!("manifest of {:?}: {what}", self.id))
    }

    /// Checks what the types do not: names, order, exact numbers, agreement of members.
    fn check(&self) -> Result<(), String> {
        if self.format_version == 0 {
            return Err("format_version: expected 1 or above, found 0".into());
        }
        names::validate_name(&self.id).map_err(|error| format!("id: {error}"))?;
        let mut plain = BTreeSet::new();
        let mut before: Option<&str> = None;
        for object in &self.objects {
            let name = object.name.as_str();
            names::validate_object_name(name).map_err(|error| format!("objects: {error}"))?;
            if before.is_some_and(|before| before >= name) {
                return Err(format!("objects: {name:?} is not sorted, or stands twice"));
            }
            before = Some(name);
            let suffixes = ObjectEntry::stored_name("", object.compression, object.encryption);
            if !name.ends_with(&suffixes) {
                return Err(format!("objects: {name:?} does not end in {suffixes:?}"));
            }
            if !plain.insert(object.plain_name()) {
                return Err(format!("objects: {:?} is stored twice", object.plain_name()));
            }
            if object.encryption == Encryption::Age && self.encrypted_to.is_empty() {
                return Err(format!("objects: {name:?} is encrypted but encrypted_to names nobody"));
            }
            for size in [object.size_bytes, object.stored_size_bytes] {
                if size > MAX_EXACT {
                    return Err(format!("objects: {name:?}: {size} bytes is above 2^53 - 1"));
                }
            }
        }
        if let Some(previous) = &self.previous {
            names::validate_name(&previous.id).map_err(|error| format!("previous: {error}"))?;
        }
        if let Some(name) = self.extra.keys().find(|name| KNOWN.contains(&name.as_str())) {
            return Err(format!("{name} stands in extra and as a member"));
        }
        Ok(())
    }
}

/// The members of this version; none of them may come a second time through [`Manifest::extra`].
const KNOWN: [&str; 15] = [
    "format",
    "format_version",
    "id",
    "repository",
    "created_at",
    "attestore",
    "sources",
    "objects",
    "chains",
    "secrets",
    "encrypted_to",
    "not_included",
    "log",
    "previous",
    "signed_by",
];
