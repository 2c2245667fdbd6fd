//! The values of one row of `audit_log`, read from the columns in whichever spelling they come.

use crate::value::{Row, Value};

use super::Places;
use super::fields::{Stamp, parse_uuid};

/// The values of a row, read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fields<'r> {
    pub(super) action: Option<&'r str>,
    pub(super) target_type: Option<&'r str>,
    pub(super) target_id: Option<&'r str>,
    pub(super) result: Option<&'r str>,
    pub(super) outcome: Option<&'r str>,
    pub(super) user_agent: Option<&'r str>,
    pub(super) source_ip: Option<&'r str>,
    pub(super) row_hmac: Option<&'r str>,
    pub(super) prev_row_hmac: Option<&'r str>,
    pub(super) hmac_key_id: Option<&'r str>,
    pub(super) integrity_class: Option<&'r str>,
    pub(super) origin: Option<&'r str>,
    pub(super) id: Option<[u8; 16]>,
    pub(super) event_id: Option<[u8; 16]>,
    pub(super) user_id: Option<[u8; 16]>,
    pub(super) api_key_id: Option<[u8; 16]>,
    pub(super) project_id: Option<[u8; 16]>,
    pub(super) generation: Option<[u8; 16]>,
    pub(super) occurred_at: Option<Stamp>,
    pub(super) hmac_version: Option<i64>,
    pub(super) frozen: bool,
    /// Whether the id is written as PostgreSQL and JSON do, with dashes.
    pub(super) dashed: bool,
}

impl<'r> Fields<'r> {
    /// Reads the row's columns; what cannot be read is said in `problems`.
    pub(super) fn read(places: &Places, row: &Row<'r>, problems: &mut Vec<String>) -> Self {
        let mut text = |name: &str, column: Option<usize>| match row.at(column) {
            Value::Text(text) => Some(text),
            value => {
                if !value.is_null() {
                    problems.push(format!("{name} is {}, expected text or null", value.type_name()));
                }
                None
            }
        };
        let mut fields = Self {
            action: text("action", places.action),
            target_type: text("target_type", places.target_type),
            target_id: text("target_id", places.target_id),
            result: text("result", places.result),
            outcome: text("outcome", places.outcome),
            user_agent: text("user_agent", places.user_agent),
            source_ip: text("source_ip", places.source_ip),
            row_hmac: text("row_hmac", places.row_hmac),
            prev_row_hmac: text("prev_row_hmac", places.prev_row_hmac),
            hmac_key_id: text("hmac_key_id", places.hmac_key_id),
            integrity_class: text("legacy_integrity_class", places.integrity_class),
            origin: text("legacy_origin", places.origin),
            ..Self::default()
        };
        let id = text("id", places.id);
        fields.dashed = id.is_some_and(|id| id.len() != 32);
        let event_id = text("event_id", places.event_id);
        let user_id = text("user_id", places.user_id);
        let api_key_id = text("api_key_id", places.api_key_id);
        let project_id = text("project_id", places.project_id);
        let generation = text("chain_generation", places.generation);
        let occurred_at = text("occurred_at", places.occurred_at);
        let mut uuid = |name: &str, value: Option<&str>| {
            let uuid = value.and_then(parse_uuid);
            if uuid.is_none()
                && let Some(value) = value
            {
                problems.push(format!("{name} is no UUID: {value:.80?}"));
            }
            uuid
        };
        fields.id = uuid("id", id);
        fields.event_id = uuid("event_id", event_id);
        fields.user_id = uuid("user_id", user_id);
        fields.api_key_id = uuid("api_key_id", api_key_id);
        fields.project_id = uuid("project_id", project_id);
        fields.generation = uuid("chain_generation", generation);
        fields.occurred_at = occurred_at.and_then(Stamp::parse);
        if fields.occurred_at.is_none() {
            problems.push(match occurred_at {
                Some(value) => format!("occurred_at is no time stamp: {value:.80?}"),
                None => "occurred_at is missing".to_owned(),
            });
        }
        if id.is_none() {
            problems.push("id is missing".to_owned());
        }
        match truth(row.at(places.frozen)) {
            Some(frozen) => fields.frozen = frozen,
            None => problems.push(format!(
                "legacy_frozen is {}, expected a truth value",
                row.at(places.frozen).type_name()
            )),
        }
        fields.hmac_version = match row.at(places.hmac_version) {
            value if value.is_null() => None,
            value => {
                let version = value.as_int().or_else(|| value.as_text()?.parse().ok());
                if version.is_none() {
                    problems
                        .push(format!("hmac_version is {}, expected an integer or null", value.type_name()));
                }
                version
            }
        };
        fields
    }
}

/// Reads a truth value as SQLite, PostgreSQL's text and JSON spell it; no value is `false`.
fn truth(value: Value<'_>) -> Option<bool> {
    match value {
        Value::Absent | Value::Null => Some(false),
        Value::Bool(value) => Some(value),
        Value::Int(0) | Value::Text("0" | "f" | "false" | "False") => Some(false),
        Value::Int(1) | Value::Text("1" | "t" | "true" | "True") => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Columns;

    #[test]
    fn what_cannot_be_read_is_named_with_what_was_expected() {
        let columns =
            Columns::new(["id", "occurred_at", "action", "user_id", "legacy_frozen", "hmac_version"]);
        let values = [
            Value::Text("x"),
            Value::Int(5),
            Value::Bytes(b"a"),
            Value::Text("0a66"),
            Value::Text("maybe"),
            Value::Real(2.0),
        ];
        let mut problems = Vec::new();
        Fields::read(&Places::new(&columns), &Row::new(&values), &mut problems);
        let said = problems.join("\n");
        for problem in [
            "action is bytes, expected text or null",
            "occurred_at is an integer, expected text or null",
            "occurred_at is missing",
            "id is no UUID: \"x\"",
            "user_id is no UUID: \"0a66\"",
            "legacy_frozen is text, expected a truth value",
            "hmac_version is a number, expected an integer or null",
        ] {
            assert!(said.contains(problem), "{problem}: {said}");
        }
    }

    #[test]
    fn marks_are_read_in_the_spellings_of_all_inputs() {
        let columns = Columns::new(["legacy_frozen", "hmac_version"]);
        for (frozen, wanted) in [
            (Value::Int(1), true),
            (Value::Text("t"), true),
            (Value::Bool(true), true),
            (Value::Text("0"), false),
            (Value::Text("f"), false),
            (Value::Null, false),
        ] {
            let values = [frozen, Value::Text("2")];
            let fields = Fields::read(&Places::new(&columns), &Row::new(&values), &mut Vec::new());
            assert_eq!((fields.frozen, fields.hmac_version), (wanted, Some(2)), "{frozen:?}");
        }
    }
}
