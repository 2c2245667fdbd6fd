//! The forms that z4j signs: which members, in which order, under which domain.
//!
//! Every form is one JSON object without spaces, its members sorted by name. See [`super`] for the eras.

use crate::canonical::push_string;

use super::fields::uuid_text;
use super::values::Fields;

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

impl Form {
    /// Appends the form of a row. The address and the metadata come in the spelling that is signed.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        fields: &Fields<'_>,
        source_ip: Option<&str>,
        metadata: &[u8],
    ) {
        let text = |out: &mut Vec<u8>, value: Option<&str>| match value {
            Some(value) => push_string(out, value),
            None => out.extend_from_slice(b"null"),
        };
        let plain = |out: &mut Vec<u8>, value: Option<&[u8]>| match value {
            Some(value) => {
                out.push(b'"');
                out.extend_from_slice(value);
                out.push(b'"');
            }
            None => out.extend_from_slice(b"null"),
        };
        let uuid = |out: &mut Vec<u8>, value: Option<[u8; 16]>| {
            let spelt = value.map(|value| uuid_text(&value));
            plain(out, spelt.as_ref().map(<[u8; 36]>::as_slice));
        };
        for (at, field) in self.fields.iter().enumerate() {
            out.push(if at == 0 { b'{' } else { b',' });
            out.push(b'"');
            out.extend_from_slice(field.name().as_bytes());
            out.extend_from_slice(b"\":");
            match field {
                Action => text(out, fields.action),
                TargetType => text(out, fields.target_type),
                TargetId => text(out, fields.target_id),
                Result => text(out, fields.result),
                Outcome => text(out, fields.outcome),
                UserAgent => text(out, fields.user_agent),
                SourceIp => text(out, source_ip),
                RowHmac => text(out, fields.row_hmac),
                PrevRowHmac => text(out, fields.prev_row_hmac),
                HmacKeyId => text(out, fields.hmac_key_id),
                IntegrityClass => text(out, fields.integrity_class),
                Origin => text(out, fields.origin),
                Id => uuid(out, fields.id),
                EventId => uuid(out, fields.event_id),
                UserId => uuid(out, fields.user_id),
                ApiKeyId => uuid(out, fields.api_key_id),
                ProjectId => uuid(out, fields.project_id),
                Generation => uuid(out, fields.generation),
                OccurredAt => plain(out, fields.occurred_at.as_ref().map(|stamp| stamp.text.as_slice())),
                Metadata => out.extend_from_slice(metadata),
                HmacVersion => match fields.hmac_version {
                    Some(version) => out.extend_from_slice(version.to_string().as_bytes()),
                    None => out.extend_from_slice(b"null"),
                },
                Frozen => out.extend_from_slice(b"true"),
                Version => out.push(b'0' + self.version),
            }
        }
        out.push(b'}');
    }
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
