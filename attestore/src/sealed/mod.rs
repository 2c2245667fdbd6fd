//! Sealed columns: do the secrets at hand open what a restored database holds? The credential-gap report (S1.5, S4.5).
//!
//! A drill calls [`gaps`] on the restored copy, `attestore gaps --plan` calls [`planned_gaps`] on live databases after a restore. The plan describes the columns; every value is tried, and what is reported are counts
//! and record ids, never a value. Three ways a value is made are known:
//!
//! ```text
//! aes-256-gcm   a layout of nonce, ciphertext and tag (`layout`), under a key of 32 bytes
//! css1          "CSS1" | SHA-256(kek)[0..8] | dekNonce 12 | dekCt 32+16 | valNonce 12 | valCt n+16   (formats: Caracal)
//! zone-kek      ChaCha20-Poly1305 directly under the key, nonce in its own column or in front        (Caracal before CSS1)
//! ```
//! AES-GCM and the older form say only "opens" or "does not": one value alone cannot tell damage from a wrong key, all of a column
//! failing can. A CSS1 envelope names its key, so that a wrong key and damage are told apart.

pub mod layout;
mod open;
mod planned;

use std::collections::BTreeMap;
use std::path::Path;

use backup_core::context::Context;
use backup_core::error::Result;
use backup_sqlite::cells::{Cell, Reading, read_columns};
use serde::Serialize;
use zeroize::Zeroizing;

pub use layout::Layout;
pub use planned::{Gaps, planned_gaps};

use self::open::{Opened, Opener};
use crate::plan::schema::{IfLost, Sealed, SealedKind};

/// How many records that do not open are named per column.
pub const NAMED_RECORDS: usize = 50;

/// What the secrets at hand open in one column. Counts and record ids, never values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnGap {
    /// The source.
    pub source: String,
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// The secret that should open it.
    pub secret: String,
    /// How its values are made.
    pub kind: SealedKind,
    /// Whether every value opens.
    pub ok: bool,
    /// How many values there are (NULL and empty ones are not counted).
    pub values: u64,
    /// How many open with a key at hand.
    pub opens: u64,
    /// How many do not, although they are of the form.
    pub does_not_open: u64,
    /// How many are not of the form at all.
    pub malformed: u64,
    /// How many values name each key id (CSS1).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub key_ids: BTreeMap<String, u64>,
    /// The key ids of the secrets at hand (CSS1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub key_ids_at_hand: Vec<String>,
    /// The records whose values do not open, at most [`NAMED_RECORDS`].
    pub records: Vec<String>,
    /// What is done about them.
    pub if_lost: IfLost,
    /// One sentence.
    pub diagnosis: String,
}

impl ColumnGap {
    /// Reports whether something is lost: values do not open, and no new ones are simply minted.
    #[must_use]
    pub fn hurts(&self) -> bool {
        !self.ok && self.if_lost != IfLost::Mint
    }
}

/// The values of a secret at hand, the one in force first.
pub type Values = [Zeroizing<Vec<u8>>];

/// Tries every value of one column. `values` are those of the column's secret; none means that it is not at hand.
///
/// # Errors
/// When the table or a column is not there, or the database cannot be read; `KeyRejected` when a secret is no key of this kind.
pub fn gaps(
    database: &Path,
    reading: Reading,
    source: &str,
    sealed: &Sealed,
    values: &Values,
    ctx: &Context,
) -> Result<ColumnGap> {
    let opener = Opener::new(sealed, values)?;
    let mut columns = vec![sealed.column.as_str()];
    columns.extend(sealed.nonce_column.as_deref());
    let aad = opener.aad_columns();
    columns.extend(aad.iter().map(String::as_str));
    let first_aad = 1 + usize::from(sealed.nonce_column.is_some());
    let mut gap = ColumnGap {
        source: source.to_owned(),
        table: sealed.table.clone(),
        column: sealed.column.clone(),
        secret: sealed.secret.get_ref().to_string(),
        kind: sealed.kind,
        ok: false,
        values: 0,
        opens: 0,
        does_not_open: 0,
        malformed: 0,
        key_ids: BTreeMap::new(),
        key_ids_at_hand: opener.key_ids(),
        records: Vec::new(),
        if_lost: sealed.if_lost,
        diagnosis: String::new(),
    };
    read_columns(
        database,
        reading,
        &sealed.table,
        sealed.id.as_deref(),
        &columns,
        ctx,
        &mut |record, cells| {
            let Some(value) = cells.first().copied().and_then(Cell::bytes).filter(|value| !value.is_empty())
            else {
                return Ok(());
            };
            gap.values += 1;
            let nonce = sealed.nonce_column.as_ref().and_then(|_| cells.get(1).copied()?.bytes());
            let bound: Vec<&[u8]> =
                cells.iter().skip(first_aad).map(|cell| cell.bytes().unwrap_or_default()).collect();
            match opener.open(value, nonce, &bound) {
                Opened::Yes(key) => {
                    gap.opens += 1;
                    count(&mut gap.key_ids, key);
                    return Ok(());
                }
                Opened::No(key) => {
                    gap.does_not_open += 1;
                    count(&mut gap.key_ids, key);
                }
                Opened::Malformed => gap.malformed += 1,
            }
            if gap.records.len() < NAMED_RECORDS {
                gap.records.push(record.to_owned());
            }
            Ok(())
        },
    )?;
    gap.ok = gap.opens == gap.values;
    gap.diagnosis = diagnose(&gap, !values.is_empty());
    Ok(gap)
}

fn count(ids: &mut BTreeMap<String, u64>, key: Option<String>) {
    if let Some(key) = key {
        *ids.entry(key).or_insert(0) += 1;
    }
}

/// Says what most likely is so.
fn diagnose(gap: &ColumnGap, at_hand: bool) -> String {
    let secret = &gap.secret;
    let wanted: Vec<&str> =
        gap.key_ids.keys().filter(|id| !gap.key_ids_at_hand.contains(id)).map(String::as_str).collect();
    if gap.values == 0 {
        "no values".to_owned()
    } else if gap.ok {
        format!("all {} values open with {secret}", gap.values)
    } else if !wanted.is_empty() {
        let have =
            if gap.key_ids_at_hand.is_empty() { "none".to_owned() } else { gap.key_ids_at_hand.join(", ") };
        let what = wanted.join(", ");
        format!(
            "{} of {} values do not open: they need key {what}, at hand is {have}",
            gap.values - gap.opens,
            gap.values
        )
    } else if !at_hand {
        format!("{} values, and {secret} is not at hand", gap.values)
    } else if gap.opens == 0 && gap.malformed == gap.values {
        format!("none of {} values is of the form that the plan describes", gap.values)
    } else if gap.opens == 0 {
        format!(
            "none of {} values opens: {secret} at hand is most likely not the key of this data",
            gap.values
        )
    } else {
        format!(
            "{} of {} values do not open although others do: damaged, or sealed under another key",
            gap.values - gap.opens,
            gap.values
        )
    }
}
