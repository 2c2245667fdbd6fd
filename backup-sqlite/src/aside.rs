//! What restores have set aside: listed, removed, archived (S3.4).
//!
//! A restore moves the database that was there to `<name>.bad-<unix seconds>`, with `-wal`, `-shm` and `-journal` where
//! there were any, and never deletes it. Once the restored database has proven itself, a person says what becomes of it.

use std::fs::File;
use std::path::{Path, PathBuf};

use backup_core::context::{Context, Progress};
use backup_core::durable::{Durable, PRIVATE_FILE};
use backup_core::error::{Error, ErrorKind, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::in_use::{Whose, require_closed};
use crate::open::{FAMILY, sidecar};

/// A database that a restore has set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// The database file; its sidecars have the same name with their endings.
    #[serde(serialize_with = "backup_core::paths::lossy")]
    pub path: PathBuf,
    /// When it was set aside, as its name says.
    pub at: Timestamp,
    /// The files that are there: the database first.
    #[serde(serialize_with = "backup_core::paths::all_lossy")]
    pub files: Vec<PathBuf>,
    /// Their size in bytes.
    pub size_bytes: u64,
}

/// Lists what restores of `target` have set aside, the oldest first.
///
/// # Errors
/// When the folder cannot be read.
pub fn set_aside(target: &Path) -> Result<Vec<SetAside>> {
    let target = real_path(target)?;
    let folder = backup_core::durable::parent_of(&target);
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found: Vec<(i64, u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| Error::io("read", folder, error))? {
        let entry = entry.map_err(|error| Error::io("read", folder, error))?;
        let entry_name = entry.file_name();
        let Some((seconds, number, base)) = entry_name.to_str().and_then(|entry| parse(&name, entry)) else {
            continue;
        };
        let path = folder.join(base);
        if !found.iter().any(|(_, _, known)| *known == path) {
            found.push((seconds, number, path));
        }
    }
    found.sort();
    found.into_iter().map(|(seconds, _, path)| describe(path, seconds)).collect()
}

/// Reads `<name>.bad-<seconds>[-<number>][ending]`: seconds, number, the name without the ending.
fn parse<'a>(name: &str, entry: &'a str) -> Option<(i64, u32, &'a str)> {
    let rest = entry.strip_prefix(name)?.strip_prefix(".bad-")?;
    let ending = FAMILY.iter().skip(1).find(|ending| rest.ends_with(**ending)).copied().unwrap_or("");
    let rest = rest.strip_suffix(ending)?;
    let base = entry.strip_suffix(ending)?;
    let (seconds, number) =
        rest.split_once('-').map_or((rest, None), |(seconds, number)| (seconds, Some(number)));
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(seconds) || !number.is_none_or(plain) {
        return None;
    }
    Some((seconds.parse().ok()?, number.map_or(Some(1), |number| number.parse().ok())?, base))
}

fn describe(path: PathBuf, seconds: i64) -> Result<SetAside> {
    let mut files = Vec::new();
    let mut size_bytes = 0;
    for ending in FAMILY {
        let file = sidecar(&path, ending);
        if let Ok(found) = file.symlink_metadata() {
            size_bytes += found.len();
            files.push(file);
        }
    }
    let at = Timestamp::from_second(seconds).map_err(|error| {
        Error::new(ErrorKind::Malformed, format!("{}: its name has no time", path.display()))
            .with_source(error)
    })?;
    Ok(SetAside { path, at, files, size_bytes })
}

/// Follows a symbolic link of the target, where there is one: restores replace the file that it names.
pub(crate) fn real_path(target: &Path) -> Result<PathBuf> {
    let target = crate::open::absolute(target)?;
    let is_link = target.symlink_metadata().is_ok_and(|found| found.is_symlink());
    if !is_link {
        return Ok(target);
    }
    target.canonicalize().map_err(|error| {
        Error::new(
            ErrorKind::InvalidInput,
            format!(
                "{}: expected a database file or nothing, found a symbolic link to nothing",
                target.display()
            ),
        )
        .with_hint("name the file itself, or remove the link")
        .with_source(error)
    })
}

/// Removes a set-aside database with its sidecars. It cannot be had back.
///
/// # Errors
/// `InUse` while a process has one of its files open; `NotFound` when it is not there; `InvalidInput` when the path
/// is not that of a set-aside database.
pub fn remove_set_aside(aside: &SetAside) -> Result<()> {
    require_aside(aside)?;
    let durable = Durable::new();
    // The database last: what is left by a crash in between is still listed.
    for file in present(aside)?.iter().rev() {
        durable.remove_file(file)?;
    }
    Ok(())
}

/// Moves a set-aside database with its sidecars to another folder, under the same names, and returns them.
///
/// Within one file system this is a rename; else each file is copied, synced and then removed.
///
/// # Errors
/// `AlreadyExists` when a name is taken there; `InUse`, `NotFound`, `NoSpace`, `Cancelled`. What was not moved is still
/// where it was.
pub fn archive_set_aside(aside: &SetAside, into: &Path, ctx: &Context) -> Result<Vec<PathBuf>> {
    require_aside(aside)?;
    let into = crate::open::absolute(into)?;
    if !into.is_dir() {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no folder {}", into.display())));
    }
    let files = present(aside)?;
    let moves: Vec<(PathBuf, PathBuf)> = files
        .into_iter()
        .map(|from| {
            let to = into.join(from.file_name().unwrap_or_default());
            (from, to)
        })
        .collect();
    if let Some((_, taken)) = moves.iter().find(|(_, to)| to.symlink_metadata().is_ok()) {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("{} exists already and is never overwritten", taken.display()),
        ));
    }
    let durable = Durable::new();
    for (from, to) in moves.iter().rev() {
        ctx.check()?;
        match durable.rename_noreplace(from, to) {
            Ok(()) => {}
            // Two file systems.
            Err(error) if error.kind() == ErrorKind::InvalidInput => copy_over(from, to, &durable, ctx)?,
            Err(error) => return Err(error),
        }
    }
    Ok(moves.into_iter().map(|(_, to)| to).collect())
}

fn copy_over(from: &Path, to: &Path, durable: &Durable, ctx: &Context) -> Result<()> {
    let mut source = File::open(from).map_err(|error| Error::io("open", from, error))?;
    let total = source.metadata().map_err(|error| Error::io("look at", from, error))?.len();
    let mut target = durable.create_new(to, PRIVATE_FILE)?;
    let object = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let done = crate::pump::pump(&mut source, &mut target, ctx, &|done| {
        ctx.progress(Progress { stage: "archive", object: &object, done, total: Some(total), unit: "bytes" });
    })
    .map_err(|error| crate::source::own_error("archive", from, error))?;
    if done != total {
        return Err(Error::new(
            ErrorKind::Mismatch,
            format!("{}: expected {total} bytes, copied {done} bytes", from.display()),
        ));
    }
    target.finish_and_sync_dir()?;
    durable.remove_file(from)
}

/// Refuses a value that does not name what a restore has set aside, so that nothing else is ever removed.
fn require_aside(aside: &SetAside) -> Result<()> {
    let name = aside.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let base = name.rsplit_once(".bad-").map_or("", |(base, _)| base);
    let fits = !base.is_empty() && parse(base, name).is_some_and(|(_, _, whole)| whole == name);
    if !fits {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{} is not a database that a restore has set aside", aside.path.display()),
        )
        .with_hint("its name ends in .bad- and seconds"));
    }
    require_closed(&aside.path, Whose::Anyone)
}

fn present(aside: &SetAside) -> Result<Vec<PathBuf>> {
    let files: Vec<PathBuf> = FAMILY
        .iter()
        .map(|ending| sidecar(&aside.path, ending))
        .filter(|file| file.symlink_metadata().is_ok())
        .collect();
    if files.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, format!("{} is not there", aside.path.display())));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_of_set_aside_files_are_read_exactly() {
        for (entry, read) in [
            ("app.db.bad-1700000000", Some((1_700_000_000, 1, "app.db.bad-1700000000"))),
            ("app.db.bad-1700000000-wal", Some((1_700_000_000, 1, "app.db.bad-1700000000"))),
            ("app.db.bad-1700000000-2-journal", Some((1_700_000_000, 2, "app.db.bad-1700000000-2"))),
            ("app.db.bad-", None),
            ("app.db.bad-x", None),
            ("app.db.bad-17-wal-wal", None),
            ("app.db.bad-17-", None),
            ("app.db.bad-17-2-3", None),
            ("app.db.bad-+7", None),
            ("other.db.bad-17", None),
            ("app.db", None),
            ("app.db-wal", None),
        ] {
            assert_eq!(parse("app.db", entry), read, "{entry}");
        }
    }
}
