//! The product's names for what its verifiers find, and the kinds that they are here.
//!
//! Every finding about an AGLedger dump begins its sentence with the product's own name (`CHAIN_LINK_BROKEN: …`), so that
//! an operator can look it up; the kind is the one of [`FindingKind`](Kind) that says what happened.
//! `REGISTRY_ROW_MALFORMED` alone is this library's own: the product's verifiers take such rows as they are.

use crate::report::FindingKind as Kind;

/// One name of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Code {
    ChainEmpty,
    UnsupportedFormat,
    PositionGap,
    GenesisInvalid,
    LinkBroken,
    HashMismatch,
    MalformedEntry,
    CoseDecodeFailed,
    CoseHeaderMismatch,
    PayloadBindingMismatch,
    OidcActorMismatch,
    ActorAttributionMismatch,
    SignatureMissingKey,
    SigningKeyDrift,
    AlgMismatch,
    KeyNotYetActive,
    KeyExpired,
    EntryUnsigned,
    SigningKeyUnanchored,
    SignedByDistrustedKey,
    UnsupportedAlgorithm,
    SignatureInvalid,
    CheckpointRowMissing,
    CheckpointHashMismatch,
    CheckpointClaimMismatch,
    CheckpointUnsigned,
    CheckpointKeyUnanchored,
    CheckpointSignatureInvalid,
    ReadIndexGap,
    ReadLeafHashMismatch,
    ReadClaimMismatch,
    ReadLeafUnsigned,
    ReadKeyUnanchored,
    ReadSignatureInvalid,
    HeadLeafCountMismatch,
    HeadRootMismatch,
    HeadClaimMismatch,
    HeadUnsigned,
    HeadKeyUnanchored,
    HeadSignatureInvalid,
    HeadFork,
    KeyStatementInvalid,
    KeyClosureInvalid,
    KeyWindowDrift,
    RegistryRowMalformed,
}

/// How many names there are.
pub(super) const CODES: usize = Code::ALL.len();

impl Code {
    /// Lists every name.
    pub(super) const ALL: [Self; 45] = [
        Self::ChainEmpty,
        Self::UnsupportedFormat,
        Self::PositionGap,
        Self::GenesisInvalid,
        Self::LinkBroken,
        Self::HashMismatch,
        Self::MalformedEntry,
        Self::CoseDecodeFailed,
        Self::CoseHeaderMismatch,
        Self::PayloadBindingMismatch,
        Self::OidcActorMismatch,
        Self::ActorAttributionMismatch,
        Self::SignatureMissingKey,
        Self::SigningKeyDrift,
        Self::AlgMismatch,
        Self::KeyNotYetActive,
        Self::KeyExpired,
        Self::EntryUnsigned,
        Self::SigningKeyUnanchored,
        Self::SignedByDistrustedKey,
        Self::UnsupportedAlgorithm,
        Self::SignatureInvalid,
        Self::CheckpointRowMissing,
        Self::CheckpointHashMismatch,
        Self::CheckpointClaimMismatch,
        Self::CheckpointUnsigned,
        Self::CheckpointKeyUnanchored,
        Self::CheckpointSignatureInvalid,
        Self::ReadIndexGap,
        Self::ReadLeafHashMismatch,
        Self::ReadClaimMismatch,
        Self::ReadLeafUnsigned,
        Self::ReadKeyUnanchored,
        Self::ReadSignatureInvalid,
        Self::HeadLeafCountMismatch,
        Self::HeadRootMismatch,
        Self::HeadClaimMismatch,
        Self::HeadUnsigned,
        Self::HeadKeyUnanchored,
        Self::HeadSignatureInvalid,
        Self::HeadFork,
        Self::KeyStatementInvalid,
        Self::KeyClosureInvalid,
        Self::KeyWindowDrift,
        Self::RegistryRowMalformed,
    ];

    /// Returns the row of the table: the product's name, the kinds that it can be here. The first kind is the
    /// one of a finding that does not say it more exactly.
    const fn row(self) -> (&'static str, &'static [Kind]) {
        match self {
            Self::ChainEmpty => ("CHAIN_EMPTY", &[Kind::MissingChain]),
            Self::UnsupportedFormat => ("UNSUPPORTED_FORMAT", &[Kind::UnknownVersion]),
            Self::PositionGap => (
                "CHAIN_POSITION_GAP",
                &[Kind::Missing, Kind::MissingHead, Kind::Duplicate, Kind::Forked, Kind::Malformed],
            ),
            Self::GenesisInvalid => ("CHAIN_GENESIS_INVALID", &[Kind::LinkBroken]),
            Self::LinkBroken => ("CHAIN_LINK_BROKEN", &[Kind::LinkBroken]),
            Self::HashMismatch => ("CHAIN_HASH_MISMATCH", &[Kind::Edited]),
            Self::MalformedEntry => ("CHAIN_MALFORMED_ENTRY", &[Kind::Malformed]),
            Self::CoseDecodeFailed => ("CHAIN_COSE_DECODE_FAILED", &[Kind::Malformed]),
            Self::CoseHeaderMismatch => ("CHAIN_COSE_HEADER_MISMATCH", &[Kind::Edited]),
            Self::PayloadBindingMismatch => ("CHAIN_PAYLOAD_BINDING_MISMATCH", &[Kind::Edited]),
            Self::OidcActorMismatch => ("CHAIN_OIDC_ACTOR_MISMATCH", &[Kind::Edited]),
            Self::ActorAttributionMismatch => ("CHAIN_ACTOR_ATTRIBUTION_MISMATCH", &[Kind::Edited]),
            Self::SignatureMissingKey => ("CHAIN_SIGNATURE_MISSING_KEY", &[Kind::UnknownKey]),
            Self::SigningKeyDrift => ("CHAIN_SIGNING_KEY_DRIFT", &[Kind::Edited]),
            Self::AlgMismatch => ("CHAIN_ALG_MISMATCH", &[Kind::WrongKey]),
            Self::KeyNotYetActive => ("CHAIN_KEY_NOT_YET_ACTIVE", &[Kind::KeyExpired]),
            Self::KeyExpired => ("CHAIN_KEY_EXPIRED", &[Kind::KeyExpired]),
            Self::EntryUnsigned => ("CHAIN_ENTRY_UNSIGNED", &[Kind::Unsigned]),
            Self::SigningKeyUnanchored => ("CHAIN_SIGNING_KEY_UNANCHORED", &[Kind::UnknownKey]),
            Self::SignedByDistrustedKey => ("CHAIN_SIGNED_BY_DISTRUSTED_KEY", &[Kind::UnknownKey]),
            Self::UnsupportedAlgorithm => ("CHAIN_UNSUPPORTED_ALGORITHM", &[Kind::UnknownKey]),
            Self::SignatureInvalid => ("CHAIN_SIGNATURE_INVALID", &[Kind::SignatureInvalid]),
            Self::CheckpointRowMissing => ("CHECKPOINT_ROW_MISSING", &[Kind::Truncated, Kind::MissingChain]),
            Self::CheckpointHashMismatch => ("CHECKPOINT_HASH_MISMATCH", &[Kind::CheckpointMismatch]),
            Self::CheckpointClaimMismatch => ("CHECKPOINT_CLAIM_MISMATCH", &[Kind::CheckpointMismatch]),
            Self::CheckpointUnsigned => ("CHECKPOINT_UNSIGNED", &[Kind::Unsigned]),
            Self::CheckpointKeyUnanchored => ("CHECKPOINT_KEY_UNANCHORED", &[Kind::UnknownKey]),
            Self::CheckpointSignatureInvalid => ("CHECKPOINT_SIGNATURE_INVALID", &[Kind::SignatureInvalid]),
            Self::ReadIndexGap => (
                "TENANT_READ_LEAF_INDEX_GAP",
                &[Kind::Missing, Kind::MissingHead, Kind::Duplicate, Kind::Forked, Kind::Malformed],
            ),
            Self::ReadLeafHashMismatch => ("TENANT_READ_LEAF_HASH_MISMATCH", &[Kind::Edited]),
            Self::ReadClaimMismatch => ("TENANT_READ_CLAIM_MISMATCH", &[Kind::Edited, Kind::LinkBroken]),
            Self::ReadLeafUnsigned => ("TENANT_READ_LEAF_UNSIGNED", &[Kind::Unsigned]),
            Self::ReadKeyUnanchored => ("TENANT_READ_KEY_UNANCHORED", &[Kind::UnknownKey]),
            Self::ReadSignatureInvalid => ("TENANT_READ_SIGNATURE_INVALID", &[Kind::SignatureInvalid]),
            Self::HeadLeafCountMismatch => ("TENANT_CHECKPOINT_LEAF_COUNT_MISMATCH", &[Kind::Truncated]),
            Self::HeadRootMismatch => ("TENANT_CHECKPOINT_ROOT_MISMATCH", &[Kind::CheckpointMismatch]),
            Self::HeadClaimMismatch => ("TENANT_CHECKPOINT_CLAIM_MISMATCH", &[Kind::CheckpointMismatch]),
            Self::HeadUnsigned => ("TENANT_CHECKPOINT_UNSIGNED", &[Kind::Unsigned]),
            Self::HeadKeyUnanchored => ("TENANT_CHECKPOINT_KEY_UNANCHORED", &[Kind::UnknownKey]),
            Self::HeadSignatureInvalid => ("TENANT_CHECKPOINT_SIGNATURE_INVALID", &[Kind::SignatureInvalid]),
            Self::HeadFork => ("TENANT_CHECKPOINT_FORK", &[Kind::Forked]),
            Self::KeyStatementInvalid => (
                "KEY_STATEMENT_INVALID",
                &[Kind::SignatureInvalid, Kind::Malformed, Kind::StateMismatch, Kind::UnknownKey],
            ),
            Self::KeyClosureInvalid => ("KEY_CLOSURE_INVALID", &[Kind::StateMismatch, Kind::UnknownKey]),
            Self::KeyWindowDrift => ("CHAIN_KEY_WINDOW_DRIFT", &[Kind::StateMismatch]),
            Self::RegistryRowMalformed => ("REGISTRY_ROW_MALFORMED", &[Kind::Malformed]),
        }
    }

    /// Returns the product's name.
    pub(super) const fn name(self) -> &'static str {
        self.row().0
    }

    /// Returns the kinds that it can be here.
    pub(super) const fn kinds(self) -> &'static [Kind] {
        self.row().1
    }

    /// Returns the kind of a finding that does not say it more exactly.
    pub(super) fn kind(self) -> Kind {
        self.kinds().first().copied().unwrap_or(Kind::Malformed)
    }

    /// Returns the name of this number.
    pub(super) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// Returns the kinds that a name of the product can be here; `None` when it is not known.
///
/// ```
/// use audit_chain::formats::agledger::kinds_of;
/// use audit_chain::report::FindingKind;
///
/// assert_eq!(kinds_of("CHAIN_LINK_BROKEN"), Some(&[FindingKind::LinkBroken][..]));
/// ```
#[must_use]
pub fn kinds_of(name: &str) -> Option<&'static [Kind]> {
    Code::ALL.into_iter().find(|code| code.name() == name).map(Code::kinds)
}

/// Something wrong with one row by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) code: Code,
    /// What the evidence commits to.
    pub(super) expected: Option<String>,
    /// What is there.
    pub(super) found: Option<String>,
    /// One sentence, without the name.
    pub(super) explains: String,
}

impl Flaw {
    /// Makes a flaw that its sentence says wholly.
    pub(super) fn new(code: Code, explains: impl Into<String>) -> Self {
        Self { code, expected: None, found: None, explains: explains.into() }
    }

    /// Makes a flaw with what was expected and what was found.
    pub(super) fn between(
        code: Code,
        expected: impl Into<String>,
        found: impl Into<String>,
        explains: impl Into<String>,
    ) -> Self {
        Self { code, expected: Some(expected.into()), found: Some(found.into()), explains: explains.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_number_name_and_at_least_one_kind() {
        let mut names = Vec::new();
        for (at, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, at, "{code:?}");
            assert_eq!(Code::of_number(code as u8), Some(code));
            assert!(!code.kinds().is_empty(), "{code:?}");
            assert_eq!(kinds_of(code.name()), Some(code.kinds()));
            names.push(code.name());
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CODES);
        assert_eq!(kinds_of("CHAIN_FINE"), None);
    }
}
