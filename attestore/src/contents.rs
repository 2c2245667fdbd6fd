//! Looks into a backup: restores each database into a scratch folder, checks it and verifies its chains.
//!
//! Used by `verify` at its deepest level and by drills; the scratch folder is removed in any case.

use std::path::PathBuf;

use audit_chain::keys::KeyRing;
use backup_core::context::Context;
use backup_core::error::{Error, Result};
use backup_core::manifest::Manifest;
use backup_core::repository::{ContentCheck, ContentReport};
use backup_core::traits::{BackupObjects, Check, Restore as _};
use backup_sqlite::{RestoreOptions, SqliteRestore};

use crate::scratch::Scratch;

/// Checks contents with the backends that this build has.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Where scratch folders are made; `None` takes the system's temporary folder.
    pub scratch: Option<PathBuf>,
    /// Secrets and public keys at hand for the chains.
    pub keys: KeyRing,
}

impl Contents {
    /// Makes a private scratch folder that is removed when dropped.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch(&self) -> Result<Scratch> {
        Scratch::new(self.scratch.as_deref())
    }
}

/// Lists the databases of a backup by their plain names.
#[must_use]
pub fn databases(manifest: &Manifest) -> Vec<String> {
    let names = manifest.objects.iter().map(|object| object.plain_name());
    names.filter(|name| name.starts_with("database/") && name.ends_with(".db")).map(str::to_owned).collect()
}

impl ContentCheck for Contents {
    fn check(&self, backup: &dyn BackupObjects, ctx: &Context) -> Result<ContentReport> {
        let mut report = ContentReport::default();
        for object in databases(backup.manifest()) {
            let scratch = self.scratch()?;
            let options = RestoreOptions {
                object: Some(object.clone()),
                keys: self.keys.clone(),
                // Whether a program starts on it is asked when it is restored for one.
                allow_dirty: true,
                ..Default::default()
            };
            let restore = SqliteRestore::with_options(scratch.path().join("contents.db"), options);
            let restored = restore.plan(backup, ctx).and_then(|plan| restore.execute(&plan, backup, ctx));
            match restored {
                Ok(done) => {
                    report.checks.extend(done.checks);
                    report.chains.extend(done.chains);
                }
                // What stops a restore is wrong with the contents; what stops this machine is not.
                Err(error) if is_about_contents(&error) => {
                    report.checks.push(Check { name: object, ok: false, detail: error.full_text() });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }
}

/// Tells what is wrong with a backup from what is wrong with the machine.
pub(crate) fn is_about_contents(error: &Error) -> bool {
    use backup_core::error::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::Corrupt | Kind::Tampered | Kind::Mismatch | Kind::Malformed | Kind::Incompatible
    )
}
