//! The state row of era C, and the watermark of era B.
//!
//! `audit_chain_state` holds one row, `singleton_id` = `audit-chain`. Its MAC is HMAC-SHA256(secret whose id is `state_key_id`,
//! `z4j/audit-chain/state/v1` 0x00 and the JSON of all columns but `singleton_id`, `state_mac` and
//! `observed_active_row_count`), in hex. Rules that z4j itself holds to: counts are no less than 0; the counts per key, at most 32, sum to
//! the rows; each quartet (`head_…`, `prune_…`: row_hmac, hmac_key_id, occurred_at, id) is whole or NULL; rows or a
//! boundary need a head; without rows the head is the boundary; the digest is NULL exactly when no row is frozen.
//!
//! `z4j_meta`, key `audit_prune_watermark`: `<row_hmac>` (1.7, authenticated by nothing) or `<row_hmac>:<HMAC-SHA256(Z4J_SECRET,
//! "audit_prune_watermark|" row_hmac)>`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::format::Companions;

use super::fields::{Stamp, parse_uuid, uuid_text};
use super::forms::STATE_DOMAIN;
use super::keys::{Secret, Secrets};
use super::metadata::{Metadata, Reading};

/// The table of the state row.
pub(super) const STATE_TABLE: &str = "audit_chain_state";

/// The table of the watermark.
pub(super) const META_TABLE: &str = "z4j_meta";

/// The most keys that a state row counts.
const MAX_KEYS: usize = 32;

/// How a signed column is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Text,
    Uuid,
    Time,
    Count,
    Json,
}

/// The signed columns, sorted by name.
const SIGNED: [(&str, Column); 17] = [
    ("active_key_counts", Column::Json),
    ("active_row_count", Column::Count),
    ("format_version", Column::Count),
    ("frozen_row_count", Column::Count),
    ("frozen_snapshot_digest", Column::Text),
    ("generation", Column::Uuid),
    ("head_hmac_key_id", Column::Text),
    ("head_id", Column::Uuid),
    ("head_occurred_at", Column::Time),
    ("head_row_hmac", Column::Text),
    ("installation_id", Column::Uuid),
    ("prune_hmac_key_id", Column::Text),
    ("prune_id", Column::Uuid),
    ("prune_occurred_at", Column::Time),
    ("prune_row_hmac", Column::Text),
    ("retired_recovery_binding", Column::Json),
    ("state_key_id", Column::Text),
];

/// What there is of a state row.
#[derive(Debug, Clone)]
pub(super) enum Found {
    /// The input does not come with the table.
    NotAtHand,
    /// The table holds no row, several, or another than z4j's.
    Missing(String),
    /// A row that breaks z4j's own rules.
    Broken(String),
    /// A row of the right shape; nothing is said of its MAC.
    Row(Box<State>),
}

/// A state row.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// Text, UUIDs and times as they are signed; NULL is left out.
    texts: BTreeMap<&'static str, String>,
    /// What is signed.
    json: Vec<u8>,
    mac: String,
    /// How many active rows there are.
    pub(super) rows: u64,
    /// How many frozen rows there are.
    pub(super) frozen: u64,
    /// How many active rows each key made, by its id.
    pub(super) rows_by_key: BTreeMap<String, u64>,
    /// How many active rows the table's own triggers counted; not signed.
    pub(super) observed: Option<u64>,
}

impl State {
    /// Reads the state row from the tables at hand.
    pub(super) fn read(companions: &Companions) -> Found {
        let Some(rows) = companions.get(STATE_TABLE) else {
            // A database whose other table is here and that has no state table is of era A or B, or lost it.
            return Found::NotAtHand;
        };
        match rows.as_slice() {
            [row] if row.get("singleton_id").is_none_or(|id| id == "audit-chain") => match Self::parse(row) {
                Ok(state) => Found::Row(Box::new(state)),
                Err(why) => Found::Broken(why),
            },
            [_] => Found::Missing("its one row is not z4j's".into()),
            rows => Found::Missing(format!("{} rows, expected one", rows.len())),
        }
    }

    /// Returns a text, UUID or time as it is signed.
    pub(super) fn text(&self, column: &str) -> Option<&str> {
        self.texts.get(column).map(String::as_str)
    }

    /// Returns the generation that the state row is of.
    pub(super) fn generation(&self) -> Option<&str> {
        self.text("generation")
    }

    /// Returns what is signed, after the domain prefix.
    #[cfg(test)]
    pub(super) fn signed(&self) -> &str {
        std::str::from_utf8(&self.json).unwrap()
    }

    /// Checks the MAC.
    pub(super) fn is_signed_by(&self, secret: &Secret) -> bool {
        let computed = secret.mac(&[STATE_DOMAIN, &self.json]);
        computed.is_some_and(|computed| hex::encode(computed) == self.mac)
    }

    fn parse(row: &Map<String, Value>) -> Result<Self, String> {
        let mut state = Self {
            texts: BTreeMap::new(),
            json: Vec::new(),
            mac: row.get("state_mac").and_then(Value::as_str).unwrap_or_default().to_owned(),
            rows: 0,
            frozen: 0,
            rows_by_key: BTreeMap::new(),
            observed: row.get("observed_active_row_count").and_then(count),
        };
        let mut metadata = Metadata::default();
        for (at, (name, column)) in SIGNED.into_iter().enumerate() {
            state.json.push(if at == 0 { b'{' } else { b',' });
            state.json.extend_from_slice(format!("\"{name}\":").as_bytes());
            let value = row.get(name).unwrap_or(&Value::Null);
            state.column(name, column, value, &mut metadata).map_err(|what| format!("{name} is {what}"))?;
        }
        state.json.push(b'}');
        state.check()?;
        Ok(state)
    }

    /// Reads one column and appends it to what is signed.
    fn column(
        &mut self,
        name: &'static str,
        column: Column,
        value: &Value,
        metadata: &mut Metadata,
    ) -> Result<(), String> {
        let text = match (column, value) {
            (Column::Json, _) => return self.json_column(name, value, metadata),
            (Column::Count, value) => {
                let number = count(value).ok_or_else(|| format!("{value}, expected a count"))?;
                match name {
                    "active_row_count" => self.rows = number,
                    "frozen_row_count" => self.frozen = number,
                    "format_version" if number != 1 => return Err(format!("{number}, expected 1")),
                    _ => {}
                }
                self.json.extend_from_slice(number.to_string().as_bytes());
                return Ok(());
            }
            (_, Value::Null) => {
                self.json.extend_from_slice(b"null");
                return Ok(());
            }
            (_, Value::String(text)) => text,
            (_, other) => return Err(format!("{other:.80}, expected text")),
        };
        let spelt = match column {
            Column::Uuid => parse_uuid(text).map(|uuid| uuid_text(&uuid).to_vec()),
            Column::Time => Stamp::parse(text).map(|stamp| stamp.text.to_vec()),
            _ => Some(text.as_bytes().to_vec()),
        };
        let spelt =
            spelt.and_then(|spelt| String::from_utf8(spelt).ok()).ok_or_else(|| format!("{text:.80?}"))?;
        crate::canonical::push_string(&mut self.json, &spelt);
        self.texts.insert(name, spelt);
        Ok(())
    }

    /// Reads a JSON column, which SQLite stores as text.
    fn json_column(&mut self, name: &str, value: &Value, metadata: &mut Metadata) -> Result<(), String> {
        let stored = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let parsed: Value =
            serde_json::from_str(&stored).map_err(|_| format!("{stored:.80?}, expected JSON"))?;
        if name == "active_key_counts" {
            let counts = parsed.as_object().ok_or_else(|| format!("{stored:.80}, expected an object"))?;
            for (key, rows) in counts {
                let rows = count(rows).ok_or_else(|| format!("{rows} for a key, expected a count"))?;
                self.rows_by_key.insert(key.clone(), rows);
            }
        }
        if parsed.is_object() {
            metadata.write(&stored, Reading::default()).map_err(|why| why.to_string())?;
            self.json.extend_from_slice(metadata.form());
        } else {
            // z4j writes an object or null here; anything else is signed as it is and does not verify.
            self.json.extend_from_slice(parsed.to_string().as_bytes());
        }
        Ok(())
    }

    /// Holds the row to z4j's own rules.
    fn check(&self) -> Result<(), String> {
        let quartet = |which: &str| {
            let there = ["row_hmac", "hmac_key_id", "occurred_at", "id"]
                .into_iter()
                .filter(|part| self.text(&format!("{which}_{part}")).is_some())
                .count();
            match there {
                0 => Ok(false),
                4 => Ok(true),
                _ => Err(format!("{there} of the 4 columns {which}_… are there, expected all or none")),
            }
        };
        let (head, prune) = (quartet("head")?, quartet("prune")?);
        let sum = self.rows_by_key.values().try_fold(0_u64, |sum, rows| sum.checked_add(*rows));
        if sum != Some(self.rows) {
            return Err("active_key_counts does not sum to active_row_count".into());
        }
        if self.rows_by_key.len() > MAX_KEYS {
            return Err(format!(
                "active_key_counts names {} keys, expected at most {MAX_KEYS}",
                self.rows_by_key.len()
            ));
        }
        if self.rows > 0 && !head {
            return Err("there are active rows, but no head".into());
        }
        if prune && !head {
            return Err("there is a prune boundary, but no head".into());
        }
        if self.rows == 0 && head && self.text("head_row_hmac") != self.text("prune_row_hmac") {
            return Err("there are no active rows, but the head is not the prune boundary".into());
        }
        if (self.frozen == 0) != self.text("frozen_snapshot_digest").is_none() {
            return Err("frozen_snapshot_digest must be NULL exactly when no row is frozen".into());
        }
        if self.generation().is_none() {
            return Err("generation is NULL".into());
        }
        Ok(())
    }
}

/// Reads a count: an integer that is not negative.
fn count(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Where a clean-up of era B ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watermark {
    /// The HMAC of the last row that was removed.
    pub(super) row_hmac: String,
    /// What authenticates it, in releases since 1.8.
    mac: Option<String>,
}

impl Watermark {
    /// Reads the watermark from the tables at hand.
    pub(super) fn read(companions: &Companions) -> Option<Self> {
        let rows = companions.get(META_TABLE)?;
        let row = rows.iter().find(|row| row.get("key").is_some_and(|key| key == "audit_prune_watermark"))?;
        let value = row.get("value").and_then(Value::as_str).filter(|value| !value.is_empty())?;
        Some(match value.split_once(':') {
            Some((row_hmac, mac)) => Self { row_hmac: row_hmac.to_owned(), mac: Some(mac.to_owned()) },
            None => Self { row_hmac: value.to_owned(), mac: None },
        })
    }

    /// Says whether a master secret made it; `None` where nothing authenticates it.
    pub(super) fn is_authentic(&self, secrets: &Secrets) -> Option<bool> {
        let mac = self.mac.as_ref()?;
        let fits = |secret: &Secret| {
            let computed = secret.mac(&[b"audit_prune_watermark|", self.row_hmac.as_bytes()]);
            computed.is_some_and(|computed| hex::encode(computed) == *mac)
        };
        Some(secrets.master.iter().any(fits))
    }
}
