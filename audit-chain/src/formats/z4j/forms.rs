//! The forms that z4j signs: which members, in which order, under which domain.
//!
//! Every form is one JSON object without spaces, its members sorted by name. See [`super`] for the eras.

/// What era C's HMAC input begins with.
pub(super) const ROW_DOMAIN: &[u8] = b"z4j/audit-chain/row/v2\0";

/// What the state row's MAC input begins with.
pub(super) const STATE_DOMAIN: &[u8] = b"z4j/audit-chain/state/v1\0";

/// What the digest over the frozen rows begins with.
pub(super) const FROZEN_DOMAIN: &[u8] = b"z4j/audit-chain/frozen-snapshot/v1\0";

/// A member of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Action,
    ApiKeyId,
    Generation,
    EventId,
    HmacKeyId,
    HmacVersion,
    Id,
    Frozen,
    IntegrityClass,
    Origin,
    Metadata,
    OccurredAt,
    Outcome,
    PrevRowHmac,
    ProjectId,
    Result,
    RowHmac,
    SourceIp,
    TargetId,
    TargetType,
    UserAgent,
    UserId,
    Version,
}

impl Field {
    /// Returns the member's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::ApiKeyId => "api_key_id",
            Self::Generation => "chain_generation",
            Self::EventId => "event_id",
            Self::HmacKeyId => "hmac_key_id",
            Self::HmacVersion => "hmac_version",
            Self::Id => "id",
            Self::Frozen => "legacy_frozen",
            Self::IntegrityClass => "legacy_integrity_class",
            Self::Origin => "legacy_origin",
            Self::Metadata => "metadata",
            Self::OccurredAt => "occurred_at",
            Self::Outcome => "outcome",
            Self::PrevRowHmac => "prev_row_hmac",
            Self::ProjectId => "project_id",
            Self::Result => "result",
            Self::RowHmac => "row_hmac",
            Self::SourceIp => "source_ip",
            Self::TargetId => "target_id",
            Self::TargetType => "target_type",
            Self::UserAgent => "user_agent",
            Self::UserId => "user_id",
            Self::Version => "version",
        }
    }
}

/// A form.
#[derive(Debug)]
pub(super) struct Form {
    /// The value of `version`.
    pub(super) version: u8,
    pub(super) fields: &'static [Field],
}

use Field::{
    Action, ApiKeyId, EventId, Frozen, Generation, HmacKeyId, HmacVersion, Id, IntegrityClass, Metadata,
    OccurredAt, Origin, Outcome, PrevRowHmac, ProjectId, Result, RowHmac, SourceIp, TargetId, TargetType,
    UserAgent, UserId, Version,
};

/// Era A, newest first.
pub(super) const ERA_A: [Form; 3] = [
    Form {
        version: 3,
        fields: &[
            Action,
            EventId,
            Id,
            Metadata,
            OccurredAt,
            Outcome,
            PrevRowHmac,
            ProjectId,
            Result,
            SourceIp,
            TargetId,
            TargetType,
            UserAgent,
            UserId,
            Version,
        ],
    },
    Form {
        version: 2,
        fields: &[
            Action, EventId, Id, Metadata, OccurredAt, Outcome, ProjectId, Result, SourceIp, TargetId,
            TargetType, UserAgent, UserId, Version,
        ],
    },
    Form {
        version: 1,
        fields: &[
            Action, EventId, Metadata, OccurredAt, Outcome, ProjectId, Result, SourceIp, TargetId,
            TargetType, UserAgent, UserId, Version,
        ],
    },
];

/// Era B.
pub(super) const ERA_B: Form = Form {
    version: 1,
    fields: &[
        Action,
        ApiKeyId,
        EventId,
        Id,
        Metadata,
        OccurredAt,
        Outcome,
        PrevRowHmac,
        ProjectId,
        Result,
        SourceIp,
        TargetId,
        TargetType,
        UserAgent,
        UserId,
        Version,
    ],
};

/// Era C.
pub(super) const ERA_C: Form = Form {
    version: 2,
    fields: &[
        Action,
        ApiKeyId,
        Generation,
        EventId,
        HmacKeyId,
        Id,
        Metadata,
        OccurredAt,
        Outcome,
        PrevRowHmac,
        ProjectId,
        Result,
        SourceIp,
        TargetId,
        TargetType,
        UserAgent,
        UserId,
        Version,
    ],
};

/// A frozen row in the snapshot.
pub(super) const FROZEN: Form = Form {
    version: 0,
    fields: &[
        Action,
        ApiKeyId,
        Generation,
        EventId,
        HmacKeyId,
        HmacVersion,
        Id,
        Frozen,
        IntegrityClass,
        Origin,
        Metadata,
        OccurredAt,
        Outcome,
        PrevRowHmac,
        ProjectId,
        Result,
        RowHmac,
        SourceIp,
        TargetId,
        TargetType,
        UserAgent,
        UserId,
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_sorted_by_name() {
        for form in ERA_A.iter().chain([&ERA_B, &ERA_C, &FROZEN]) {
            assert!(form.fields.is_sorted_by(|left, right| left.name() < right.name()), "{form:?}");
        }
        assert_eq!((ERA_B.fields.len(), ERA_C.fields.len()), (16, 18));
        assert_eq!(ERA_A.each_ref().map(|form| form.fields.len()), [15, 14, 13]);
    }
}
