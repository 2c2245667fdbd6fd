//! Writes reports: one file that was asked for, or the set of a plan, each with a detached signature where there is a key.
//!
//! ```text
//! <reports>/drill-<backup>-<UTC time>.json  .md  .html     each with .minisig beside it (checked by stock `minisign -V`)
//! ```
//! The place is tried before the drill begins, so that an hour's drill does not end without a report. A file is never overwritten.

use std::path::{Path, PathBuf};

use backup_core::durable::{Durable, parent_of};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::Digest;
use backup_core::repository::Repository;
use backup_core::signing::SigningKey;
use serde::Serialize;

use super::{DrillReport, html, markdown};
use crate::repository::refuse_inside;

/// A report that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// The file.
    #[serde(serialize_with = "backup_core::paths::lossy")]
    pub path: PathBuf,
    /// The digest of its bytes.
    pub sha256: Digest,
    /// The file of its signature.
    #[serde(serialize_with = "signature", skip_serializing_if = "Option::is_none")]
    pub signature: Option<PathBuf>,
}

fn signature<S: serde::Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => backup_core::paths::lossy(path, serializer),
        None => serializer.serialize_none(),
    }
}

/// Refuses a single report that could not be written.
///
/// # Errors
/// `AlreadyExists`, `InvalidInput` for another ending or a place in the repository; what the system says of the folder.
pub(super) fn refuse_file(path: &Path, repository: &Repository) -> Result<()> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("html" | "md" | "json") => {}
        _ => {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{}: expected a report named FILE.html, FILE.md or FILE.json", path.display()),
            ));
        }
    }
    for path in [path.to_owned(), signature_path(path)] {
        if path.symlink_metadata().is_ok() {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("{} exists", path.display())));
        }
    }
    refuse_inside(repository, path)?;
    try_folder(parent_of(path))
}

/// Refuses a folder of reports that could not be written to.
///
/// # Errors
/// As [`refuse_file`].
pub(super) fn refuse_folder(folder: &Path, repository: &Repository) -> Result<()> {
    refuse_inside(repository, &folder.join("report"))?;
    try_folder(folder)
}

/// Creates a file in a folder and removes it.
fn try_folder(folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no folder {} for the report", folder.display()),
        )
        .with_hint("make it, or name another one; the drill has not begun"));
    }
    tempfile::Builder::new()
        .prefix(".attestore-")
        .tempfile_in(folder)
        .map(drop)
        // The name that was tried says nothing, and is another one each time.
        .map_err(|error| Error::io("write the report to", folder, std::io::Error::from(error.kind())))
}

fn signature_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".minisig");
    PathBuf::from(name)
}

/// Writes the files that were asked for.
///
/// # Errors
/// What the system says.
pub(super) fn write(
    report: &DrillReport,
    file: Option<&Path>,
    folder: Option<&Path>,
    key: Option<&SigningKey>,
) -> Result<Vec<Written>> {
    let mut written = Vec::new();
    if let Some(path) = file {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or("json");
        written.push(one(path, &render(report, ending)?, report, key)?);
    }
    if let Some(folder) = folder {
        let time = report.started_at.strftime("%Y%m%dT%H%M%SZ");
        let stem = format!("drill-{}-{time}", report.backup);
        for ending in ["json", "md", "html"] {
            // Two drills in a second do not replace one another.
            let mut path = folder.join(format!("{stem}.{ending}"));
            let mut number = 2;
            while path.symlink_metadata().is_ok() {
                path = folder.join(format!("{stem}-{number}.{ending}"));
                number += 1;
            }
            written.push(one(&path, &render(report, ending)?, report, key)?);
        }
    }
    Ok(written)
}

fn render(report: &DrillReport, ending: &str) -> Result<String> {
    match ending {
        "html" => Ok(html::page(report)),
        "md" => Ok(markdown(report)),
        _ => serde_json::to_string_pretty(report)
            .map(|text| text + "\n")
            .map_err(|error| Error::new(ErrorKind::Internal, format!("cannot write the report: {error}"))),
    }
}

fn one(path: &Path, text: &str, report: &DrillReport, key: Option<&SigningKey>) -> Result<Written> {
    let durable = Durable::default();
    durable.write_new(path, text.as_bytes(), 0o644)?;
    let signature = key
        .map(|key| {
            let comment = format!("attestore drill of backup {} at {}", report.backup, report.started_at);
            let signed = key.sign_detached(text.as_bytes(), &comment)?;
            let path = signature_path(path);
            durable.write_new(&path, signed.as_bytes(), 0o644)?;
            Ok::<_, Error>(path)
        })
        .transpose()?;
    Ok(Written { path: path.to_owned(), sha256: Digest::of(text.as_bytes()), signature })
}
