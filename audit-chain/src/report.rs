//! What a verification found: typed, serializable, stable (INTERFACE.md, "Chain report").

use serde::{Deserialize, Serialize};

use crate::retention::ChainPart;

/// How many findings of one report are listed; the rest are counted in `findings_total`.
pub const MAX_LISTED_FINDINGS: usize = 1_000;

/// How many chains a report lists where a format has very many short ones, unless the caller asks for more
/// ([`VerifyOptions::max_chains`](crate::verify::VerifyOptions::max_chains)); `chains_total` counts them all.
pub const MAX_LISTED_CHAINS: usize = 10_000;

/// The three verdicts. "Cannot verify" is never called tampering and never called good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything that was asked for was verified and nothing is wrong.
    Intact,
    /// Something is wrong; the findings say what.
    Findings,
    /// Nothing can be said: no key at hand fits, or the version is unknown.
    CannotVerify,
}

impl Verdict {
    /// Returns the verdict's name as it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Findings => "findings",
            Self::CannotVerify => "cannot-verify",
        }
    }
}

/// The kinds of findings (INTERFACE.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FindingKind {
    /// The row's content is not what its hash, HMAC or signature commits to.
    Edited,
    /// Rows between two others are gone.
    Missing,
    /// The chain does not begin at its genesis.
    MissingHead,
    /// Fewer rows than a checkpoint or state row says.
    Truncated,
    /// A chain that a checkpoint names is gone.
    MissingChain,
    /// Rows stand in another order than the chain's.
    Reordered,
    /// The same record twice.
    Duplicate,
    /// Two records continue the same predecessor.
    Forked,
    /// A link does not fit its predecessor, with no gap in the numbering to explain it.
    LinkBroken,
    /// A key at hand is not the one that made the records.
    WrongKey,
    /// Records made by a key that is not at hand or not trusted.
    UnknownKey,
    /// Records of a format version that this program does not know: neither good nor bad.
    UnknownVersion,
    /// Records made outside their key's time of validity.
    KeyExpired,
    /// A signature does not verify.
    SignatureInvalid,
    /// A record without the signature or HMAC that its format asks for.
    Unsigned,
    /// Signatures that an earlier checkpoint counted are gone.
    Stripped,
    /// A checkpoint does not fit: its signature, its origin, its format.
    CheckpointMismatch,
    /// A valid chain that does not extend an earlier checkpoint.
    Rewritten,
    /// Columns outside the system's own hash differ from an earlier checkpoint.
    UnhashedEdited,
    /// The system's own state or marker row does not fit the rows.
    StateMismatch,
    /// A record that cannot be read as its format.
    Malformed,
}

impl FindingKind {
    /// Returns the kind's name as it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Missing => "missing",
            Self::MissingHead => "missing-head",
            Self::Truncated => "truncated",
            Self::MissingChain => "missing-chain",
            Self::Reordered => "reordered",
            Self::Duplicate => "duplicate",
            Self::Forked => "forked",
            Self::LinkBroken => "link-broken",
            Self::WrongKey => "wrong-key",
            Self::UnknownKey => "unknown-key",
            Self::UnknownVersion => "unknown-version",
            Self::KeyExpired => "key-expired",
            Self::SignatureInvalid => "signature-invalid",
            Self::Unsigned => "unsigned",
            Self::Stripped => "stripped",
            Self::CheckpointMismatch => "checkpoint-mismatch",
            Self::Rewritten => "rewritten",
            Self::UnhashedEdited => "unhashed-edited",
            Self::StateMismatch => "state-mismatch",
            Self::Malformed => "malformed",
        }
    }
}

impl std::fmt::Display for FindingKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that is wrong, at a named record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of wrong.
    pub kind: FindingKind,
    /// The chain it is in (tenant, zone, record …).
    pub chain: String,
    /// The record's place in its chain, from 1; `null` when it is about the chain as a whole.
    pub position: Option<u64>,
    /// The last place of a span of records that are wrong in the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// The record's own id.
    pub record: Option<String>,
    /// What the evidence commits to.
    pub expected: Option<String>,
    /// What is there.
    pub found: Option<String>,
    /// One sentence.
    pub explains: String,
}

/// The kinds of notes: worth saying, not wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NoteKind {
    /// A restore that is on record.
    SanctionedRestore,
    /// Links hold but contents are spelt otherwise than when they were hashed.
    SerialisationDrift,
    /// A gap whose rows retention removed.
    RetentionGap,
    /// The key changed.
    Rotated,
    /// Records written without a signature where the format allows it.
    UnsignedSpan,
    /// A record's own time is before its predecessor's.
    ClockStepBack,
    /// The form that was hashed cannot be had back from what is stored.
    UnrecoverableCanonicalForm,
    /// The oldest records were removed on record.
    Pruned,
    /// Records without their content: only the links were verified.
    NotChecked,
    /// Values that records commit to were erased on record.
    Erased,
}

/// One note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What kind of note.
    pub kind: NoteKind,
    /// The chain it is about.
    pub chain: String,
    /// The first record it is about, from 1.
    pub position: Option<u64>,
    /// The last record it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// One sentence.
    pub explains: String,
}

/// Which key verified which span of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedBy {
    /// The key's name: `NAME#1` for a secret at hand, the key id or public key otherwise.
    pub key: String,
    /// The first record, from 1.
    pub from: u64,
    /// The last record.
    pub to: u64,
}

/// What was seen of one chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainSummary {
    /// The chain's id; empty where a source is a single chain without a name.
    pub id: String,
    /// How many records.
    pub records: u64,
    /// The first record's place: its own number where the format has one, else 1.
    pub first: u64,
    /// The last record's place.
    pub last: u64,
    /// The last record's link value, as the format spells it (hex).
    pub head: String,
    /// The Merkle root (RFC 6962) over whole rows in canonical form, base64.
    pub root: String,
    /// How many records carry a signature or HMAC.
    pub signed: u64,
    /// Which key verified which span.
    pub verified_by: Vec<VerifiedBy>,
    /// A digest over all links, base64, where the head alone does not stand for the records before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<String>,
    /// The parts that retention takes away whole, where the format has such.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<ChainPart>,
}

/// How far the signatures of a clean report lead back to a trust anchor of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// Nothing is wrong, and at least one signature was made by a key that an anchor reaches.
    Trusted,
    /// Nothing is wrong, but the keys vouch for themselves: no anchor was given, or none made a signature.
    Unanchored,
    /// Something is wrong.
    Failed,
}

/// The whole result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainReport {
    /// Whether the verdict is [`Verdict::Intact`].
    pub ok: bool,
    /// The verdict.
    pub verdict: Verdict,
    /// The format's name.
    pub format: String,
    /// How many records in all chains.
    pub records: u64,
    /// The chains, sorted by id.
    pub chains: Vec<ChainSummary>,
    /// How many chains there are in all; more than are listed only where a format has very many short ones.
    #[serde(default)]
    pub chains_total: u64,
    /// Whether a trust anchor stands behind the result, where the format knows trust anchors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// What is wrong, by chain and place; at most [`MAX_LISTED_FINDINGS`].
    pub findings: Vec<Finding>,
    /// How many findings there are in all.
    pub findings_total: u64,
    /// What is worth saying.
    pub notes: Vec<Note>,
    /// One sentence: what most likely happened.
    pub diagnosis: String,
}

impl ChainReport {
    /// Reports whether a finding of this kind is listed.
    #[must_use]
    pub fn has(&self, kind: FindingKind) -> bool {
        self.findings.iter().any(|finding| finding.kind == kind)
    }

    /// Adds what was found of the input as a whole.
    pub fn add_findings(&mut self, found: Vec<Finding>) {
        if found.is_empty() {
            return;
        }
        self.findings_total += found.len() as u64;
        self.findings.extend(found);
        self.ok = false;
        self.verdict = Verdict::Findings;
        self.diagnosis = crate::diagnose::sentence(self);
    }

    /// Returns the summary of a chain.
    #[must_use]
    pub fn chain(&self, id: &str) -> Option<&ChainSummary> {
        self.chains.iter().find(|chain| chain.id == id)
    }
}
