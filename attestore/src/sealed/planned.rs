//! The credential gaps of a plan's databases where they are: what is to be entered again after a restore.

use std::path::{Path, PathBuf};

use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use backup_sqlite::cells::Reading;
use serde::Serialize;

use super::{ColumnGap, gaps};
use crate::plan::Plan;
use crate::{input, keys};

/// What the secrets at hand open in a plan's databases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gaps {
    /// Whether nothing is lost: every value opens, or a new one is simply minted.
    pub ok: bool,
    /// Each sealed column of the plan.
    pub gaps: Vec<ColumnGap>,
    /// Secrets that could not be read, one sentence each.
    pub not_at_hand: Vec<String>,
}

/// Tries the plan's secrets on its sealed columns. `places` are sources that lie elsewhere than the plan says, each `NAME=PATH`.
///
/// # Errors
/// `InvalidInput` when the plan describes no sealed column or has no such source; what [`gaps`] says.
pub fn planned_gaps(plan: &Plan, places: &[String], ctx: &Context) -> Result<Gaps> {
    let sources = &plan.file.sources;
    if sources.iter().all(|source| source.sealed.is_empty()) {
        let message = format!("{}: it describes no sealed column", plan.path.display());
        return Err(Error::new(ErrorKind::InvalidInput, message)
            .with_hint("add [[sources.sealed]] tables: docs/drill.md"));
    }
    let mut elsewhere: Vec<(&str, PathBuf)> = Vec::new();
    for place in places {
        let (name, path) = place.split_once('=').unwrap_or(("", place));
        if !sources.iter().any(|source| source.name.get_ref().as_str() == name) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{place:?}: the plan has no source {name:?}"),
            )
            .with_hint("write NAME=PATH with a source's name from the plan"));
        }
        elsewhere.push((name, Path::new(path).to_owned()));
    }
    let mut all = Gaps { ok: true, gaps: Vec::new(), not_at_hand: Vec::new() };
    let mut at_hand = Vec::new();
    for text in plan.secrets() {
        match keys::read_secrets(std::slice::from_ref(&text)) {
            Ok(read) => at_hand.extend(read),
            Err(error) => all.not_at_hand.push(error.to_string()),
        }
    }
    for source in sources {
        let name = source.name.get_ref().as_str();
        if source.sealed.is_empty() {
            continue;
        }
        let path = match elsewhere.iter().find(|(of, _)| *of == name) {
            Some((_, path)) => path.clone(),
            None => input::database(&source.database.resolve(plan.folder())?)?,
        };
        for column in &source.sealed {
            let secret = column.secret.get_ref().as_str();
            let values: Vec<_> =
                at_hand.iter().filter(|(name, _)| name == secret).map(|(_, value)| value.clone()).collect();
            all.gaps.push(gaps(&path, Reading::Live, name, column, &values, ctx)?);
        }
    }
    all.ok = !all.gaps.iter().any(ColumnGap::hurts);
    Ok(all)
}
