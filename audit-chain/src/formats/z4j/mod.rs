//! z4j's audit log, of every release so far: `audit_log`, `audit_chain_state`, and one key of `z4j_meta`.
//!
//! | era | releases | secret | signed form ([`forms`]) | seen at the end |
//! |---|---|---|---|---|
//! | A | 1.0–1.2 | `Z4J_SECRET` | version 3, 2 or 1 | nothing: a tail that is gone is not seen |
//! | B | 1.3–1.7 | `Z4J_SECRET` | version 1 | the same; `z4j_meta.audit_prune_watermark` says where a clean-up ended |
//! | C | 1.8– | `Z4J_AUDIT_CHAIN_SECRET` | version 2, domain prefix, key id, generation | the signed state row: head, counts, prune boundary |
//!
//! `row_hmac` is the lowercase hex HMAC-SHA256 of the row's form; `prev_row_hmac` is the `row_hmac` of the row before it in the
//! order of `(occurred_at, id)`, NULL for the first. Former secrets stand in `Z4J_PREVIOUS_SECRETS` and
//! `Z4J_AUDIT_CHAIN_PREVIOUS_SECRETS` ([`keys`]). An upgrade from B to C freezes B's rows: their digest is in the state row.
//!
//! Chains here: one per generation of era C (named by it), `frozen`, and one without a name for eras A and B. [`row`] judges a row
//! by itself, [`state`] reads and authenticates the state row, [`last`] compares the two. What z4j's own verifier calls tampered and is
//! not (IPv4-mapped addresses of another Python, PostgreSQL's respelling) is intact with a note; what it misses is found
//! where it can be: deletions in era A, edits of frozen rows to the row. A tail cut in eras A and B, and a cut with an older genuine
//! state row put back, take an earlier checkpoint to see. docs/chains/z4j.md says what each finding means.

use crate::canonical::RowForm;
use crate::error::{Error, Result};
use crate::format::{ChainFormat, Conclusion, Link, LinkRules, RecordRule, Setup, Start};
use crate::value::Columns;

mod fields;
mod forms;
mod keys;
mod last;
pub(crate) mod metadata;
mod row;
mod state;
mod values;

#[cfg(test)]
mod kat;

/// The name of the chain of frozen rows.
const FROZEN_CHAIN: &str = "frozen";

/// The name of the chain of eras A and B.
const LEGACY_CHAIN: &str = "";

/// The label of rows for which no secret was given.
const NO_SECRET: &str = "no secret at hand";

/// Why a row without a key id is neither good nor bad.
const NO_SECRET_FITS: &str = "no secret at hand fits";

/// z4j's audit log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Z4j;

/// Which columns there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    A,
    B,
    C,
}

/// The columns of the current table, in its physical order. Era B lacks the last six, era A `api_key_id` too.
const COLUMNS: &[&str] = &[
    "project_id",
    "user_id",
    "api_key_id",
    "action",
    "target_type",
    "target_id",
    "result",
    "metadata",
    "source_ip",
    "user_agent",
    "occurred_at",
    "outcome",
    "event_id",
    "row_hmac",
    "prev_row_hmac",
    "id",
    "legacy_frozen",
    "hmac_version",
    "hmac_key_id",
    "legacy_integrity_class",
    "legacy_origin",
    "chain_generation",
];

/// What era C added.
const ERA_C_COLUMNS: &[&str] = &[
    "legacy_frozen",
    "hmac_version",
    "hmac_key_id",
    "legacy_integrity_class",
    "legacy_origin",
    "chain_generation",
];

/// Where the columns stand.
#[derive(Debug, Clone, Copy, Default)]
struct Places {
    id: Option<usize>,
    action: Option<usize>,
    target_type: Option<usize>,
    target_id: Option<usize>,
    result: Option<usize>,
    outcome: Option<usize>,
    event_id: Option<usize>,
    user_id: Option<usize>,
    api_key_id: Option<usize>,
    project_id: Option<usize>,
    source_ip: Option<usize>,
    user_agent: Option<usize>,
    metadata: Option<usize>,
    occurred_at: Option<usize>,
    row_hmac: Option<usize>,
    prev_row_hmac: Option<usize>,
    hmac_version: Option<usize>,
    hmac_key_id: Option<usize>,
    frozen: Option<usize>,
    integrity_class: Option<usize>,
    origin: Option<usize>,
    generation: Option<usize>,
}

impl Places {
    fn new(columns: &Columns) -> Self {
        let at = |name| columns.position(name);
        Self {
            id: at("id"),
            action: at("action"),
            target_type: at("target_type"),
            target_id: at("target_id"),
            result: at("result"),
            outcome: at("outcome"),
            event_id: at("event_id"),
            user_id: at("user_id"),
            api_key_id: at("api_key_id"),
            project_id: at("project_id"),
            source_ip: at("source_ip"),
            user_agent: at("user_agent"),
            metadata: at("metadata"),
            occurred_at: at("occurred_at"),
            row_hmac: at("row_hmac"),
            prev_row_hmac: at("prev_row_hmac"),
            hmac_version: at("hmac_version"),
            hmac_key_id: at("hmac_key_id"),
            frozen: at("legacy_frozen"),
            integrity_class: at("legacy_integrity_class"),
            origin: at("legacy_origin"),
            generation: at("chain_generation"),
        }
    }
}

/// Says which era the columns are of.
fn era(columns: &Columns) -> Result<Era> {
    let has = |name: &&&str| columns.position(name).is_some();
    let era = if ERA_C_COLUMNS.iter().any(|name| has(&name)) {
        Era::C
    } else if has(&&"api_key_id") {
        Era::B
    } else {
        Era::A
    };
    let wanted = COLUMNS.iter().filter(|name| match era {
        Era::C => true,
        Era::B => !ERA_C_COLUMNS.contains(name),
        Era::A => !ERA_C_COLUMNS.contains(name) && **name != "api_key_id",
    });
    let missing: Vec<&str> = wanted.filter(|name| !has(name)).copied().collect();
    // A source without a header has no rows.
    if missing.is_empty() || columns.names().is_empty() {
        return Ok(era);
    }
    let export = missing.contains(&"row_hmac") && missing.contains(&"prev_row_hmac") && has(&&"occurred_at");
    let what = if export {
        "no columns row_hmac and prev_row_hmac: z4j's own CSV, JSON and XLSX exports leave them out, and nobody can verify those; export the table instead".to_owned()
    } else {
        format!("no column {}; found {}", missing.join(", "), columns.names().join(", "))
    };
    Err(Error::NotThisFormat { input: "the input".into(), format: "z4j".into(), what })
}

impl ChainFormat for Z4j {
    fn name(&self) -> &str {
        "z4j"
    }

    fn table(&self) -> &str {
        "audit_log"
    }

    fn columns(&self) -> &[&str] {
        COLUMNS
    }

    fn order(&self) -> &[&str] {
        &["occurred_at", "id"]
    }

    fn time_column(&self) -> Option<&str> {
        Some("occurred_at")
    }

    fn reads_companion(&self, table: &str, row: &serde_json::Map<String, serde_json::Value>) -> bool {
        table != state::META_TABLE || row.get("key").is_some_and(|key| key == "audit_prune_watermark")
    }

    fn companions(&self) -> &[&str] {
        &[state::STATE_TABLE, state::META_TABLE]
    }

    fn links(&self) -> LinkRules {
        LinkRules { numbered: false, clock: false }
    }

    fn order_is_sealed(&self) -> bool {
        true
    }

    fn snapshot_prefix(&self) -> &[u8] {
        forms::FROZEN_DOMAIN
    }

    fn bind(&self, columns: &Columns, setup: &Setup<'_>) -> Result<Box<dyn RecordRule>> {
        let era = era(columns)?;
        let secrets = keys::Secrets::new(setup.keys);
        Ok(Box::new(row::Rule::new(era, Places::new(columns), secrets, RowForm::new(columns))))
    }

    fn start(&self, chain: &str, setup: &Setup<'_>) -> Start {
        if chain == LEGACY_CHAIN || chain == FROZEN_CHAIN {
            let watermark = state::Watermark::read(setup.companions);
            let link = watermark.map_or(Link::Genesis, |watermark| Link::of_text(&watermark.row_hmac));
            return Start { link, ..Start::default() };
        }
        match state::State::read(setup.companions) {
            state::Found::Row(state) if state.generation() == Some(chain) => Start {
                link: state.text("prune_row_hmac").map_or(Link::Genesis, Link::of_text),
                watch: state.text("head_row_hmac").map(Link::of_text),
                ..Start::default()
            },
            _ => Start::default(),
        }
    }

    fn conclude(&self, setup: &Setup<'_>, whole: &mut Conclusion<'_>) -> Result<()> {
        last::conclude(setup, whole);
        Ok(())
    }
}
