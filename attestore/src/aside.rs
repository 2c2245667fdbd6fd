//! The files that restores set aside: listed, removed or archived by a call.

use std::path::{Path, PathBuf};

use backup_core::context::Context;
use backup_core::error::{Error, ErrorKind, Result};
use backup_sqlite::SetAside;
use serde::Serialize;

/// What was set aside beside a target, and what was done with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AsideOutcome {
    /// The restored database.
    #[serde(serialize_with = "backup_core::paths::lossy")]
    pub target: PathBuf,
    /// What restores had set aside, oldest first.
    pub set_aside: Vec<SetAside>,
    /// Whether they were removed.
    pub removed: bool,
    /// Where the files went, where they were archived.
    #[serde(serialize_with = "backup_core::paths::all_lossy")]
    pub archived: Vec<PathBuf>,
}

/// Lists what restores of `target` set aside; removes it, or moves it into a folder, where that is asked for.
///
/// # Errors
/// When the folder cannot be read or a file cannot be removed or moved.
pub fn set_aside(target: &Path, remove: bool, archive: Option<&Path>, ctx: &Context) -> Result<AsideOutcome> {
    if target.is_dir() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{}: expected the file of a restored database, found a folder", target.display()),
        ));
    }
    let found = backup_sqlite::set_aside(target)?;
    let mut archived = Vec::new();
    for aside in &found {
        if remove {
            backup_sqlite::remove_set_aside(aside)?;
        } else if let Some(folder) = archive {
            archived.extend(backup_sqlite::archive_set_aside(aside, folder, ctx)?);
        }
    }
    Ok(AsideOutcome { target: target.to_owned(), set_aside: found, removed: remove, archived })
}
