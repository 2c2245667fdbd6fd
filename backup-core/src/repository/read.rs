//! A committed backup that is read: its manifest, checked, and its objects, checked while they are read.
//!
//! Restores, drills, exports and `verify` read through [`StoredBackup`].
//!
//! While one is open it holds a shared lock on its `manifest.json`, so that a prune does not take the backup
//! away under a restore. The manifest's bytes must be those that the repository's log names; the signature is
//! checked over these bytes by the caller's keys, or, without any, by the key that the manifest itself names,
//! which shows that the file is whole and not who made it.

use std::fs::{File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::entry::BackupRecord;
use super::layout::{MANIFEST, SIGNATURE, read_limited};
use super::lock::Unlocking;
use super::{BackupSummary, Repository};
use crate::context::Context;
use crate::durable;
use crate::encrypt::Identities;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Compression, Encryption, Manifest, ObjectEntry};
use crate::seal::{OpenOptions, OpenReader, Sealed};
use crate::signing::{self, PublicKey};
use crate::traits::BackupObjects;

/// The largest signature file that is read, in bytes.
const MAX_SIGNATURE_BYTES: u64 = 1 << 16;

/// How a backup is opened.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// What opens its objects when they are encrypted.
    pub identities: Identities,
    /// The keys of which one must have signed it. Without any, an unsigned backup is opened too.
    pub public_keys: Vec<PublicKey>,
}

/// A backup whose manifest was checked.
#[derive(Debug)]
pub struct StoredBackup {
    folder: PathBuf,
    summary: BackupSummary,
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    signed_by: Option<PublicKey>,
    identities: Identities,
    ctx: Context,
    /// Holds the shared lock.
    _lock: Unlocking,
}

impl Repository {
    /// Opens a backup for reading; `id` may be [`LATEST`](super::LATEST).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::InUse`] while it is being pruned; [`ErrorKind::Tampered`] when the
    /// manifest is not the logged one or its signature does not verify; [`ErrorKind::Unsigned`] and
    /// [`ErrorKind::KeyRejected`] when keys are given and none of them signed it; [`ErrorKind::Newer`].
    pub fn objects(&self, id: &str, options: &ReadOptions, ctx: &Context) -> Result<StoredBackup> {
        let read = self.log().read(&[])?;
        for finding in &read.findings {
            tracing::warn!(kind = %finding.kind, "{}", finding.explains);
        }
        self.open_record(self.find(&read.state, id)?, options, ctx)
    }

    pub(super) fn open_record(
        &self,
        record: &BackupRecord,
        options: &ReadOptions,
        ctx: &Context,
    ) -> Result<StoredBackup> {
        let folder = self.layout.backup(&record.event.id);
        let lock = Unlocking(durable::open_read(folder.join(MANIFEST))?);
        match lock.0.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("the backup {} is being pruned", record.event.id);
                return Err(Error::new(ErrorKind::InUse, message));
            }
            // A file system without locks: a prune there has none either.
            Err(TryLockError::Error(error)) => tracing::debug!(%error, "no lock on the manifest"),
        }
        let (manifest, manifest_bytes) = self.read_manifest(record)?;
        let signed_by = check_signature(&folder, &manifest, &manifest_bytes, &options.public_keys)?;
        Ok(StoredBackup {
            folder,
            summary: self.summary(record),
            manifest,
            manifest_bytes,
            signed_by,
            identities: options.identities.clone(),
            ctx: ctx.clone(),
            _lock: lock,
        })
    }
}

/// Checks the signature over a manifest's bytes; returns the key that made it.
pub(super) fn check_signature(
    folder: &Path,
    manifest: &Manifest,
    bytes: &[u8],
    trusted: &[PublicKey],
) -> Result<Option<PublicKey>> {
    let path = folder.join(SIGNATURE);
    let name = format!("the manifest of {}", manifest.id);
    let text = match read_limited(&path, MAX_SIGNATURE_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return match (&manifest.signed_by, trusted.is_empty()) {
                (None, true) => Ok(None),
                (Some(_), _) => Err(Error::new(
                    ErrorKind::Unsigned,
                    format!("{name} says that it is signed, and {SIGNATURE} is not there"),
                )
                .with_hint("the signature was removed: use another backup")),
                (None, false) => Err(Error::new(ErrorKind::Unsigned, format!("{name} is not signed"))
                    .with_hint(
                        "it was made without a signing key: to use it all the same, give no public key",
                    )),
            };
        }
        Err(error) => return Err(error),
    };
    let Some(claimed) = &manifest.signed_by else {
        let message = format!("{name} says that it is not signed, and {SIGNATURE} is there");
        return Err(Error::new(ErrorKind::Tampered, message));
    };
    let claimed = PublicKey::parse(claimed).map_err(|error| {
        Error::new(ErrorKind::Tampered, format!("{name}: signed_by is not a public key")).with_source(error)
    })?;
    let text = std::str::from_utf8(&text)
        .map_err(|_| Error::new(ErrorKind::Tampered, format!("{}: it is not UTF-8", path.display())))?;
    let mine = trusted.iter().any(|key| key.key() == claimed.key());
    if !trusted.is_empty() && !mine {
        let message =
            format!("{name} is signed by {}, which is none of the keys given", claimed.to_minisign());
        return Err(Error::new(ErrorKind::KeyRejected, message)
            .with_hint("give the public key of whoever makes the backups, or none"));
    }
    signing::verify_detached(&name, bytes, text, std::slice::from_ref(&claimed)).map_err(|error| {
        let message = format!("{SIGNATURE} is not a signature over {name} by the key that it names");
        Error::new(ErrorKind::Tampered, message)
            .with_hint("the backup was altered or damaged: use another one")
            .with_source(error)
    })?;
    Ok(Some(claimed))
}

impl StoredBackup {
    /// Returns what the log says of it.
    #[must_use]
    pub const fn summary(&self) -> &BackupSummary {
        &self.summary
    }

    /// Returns its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the exact bytes of its manifest.
    #[must_use]
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// Returns the key whose signature over the manifest was verified.
    #[must_use]
    pub const fn signed_by(&self) -> Option<&PublicKey> {
        self.signed_by.as_ref()
    }

    /// Opens the file that an object is stored in, as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it is missing or its size is another one.
    pub fn open_stored(&self, object: &ObjectEntry) -> Result<File> {
        let path = self.folder.join(&object.name);
        let file = durable::open_read(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                Error::new(ErrorKind::Corrupt, format!("{} of {} is missing", object.name, self.manifest.id))
                    .with_hint("the backup is damaged: use another one")
            }
            _ => error,
        })?;
        let size = file.metadata().map_err(|error| Error::io("read", &path, error))?.len();
        if size != object.stored_size_bytes {
            return Err(Error::Digest {
                object: object.name.clone(),
                what: "size of the stored bytes",
                expected: object.stored_size_bytes.to_string(),
                found: size.to_string(),
            });
        }
        Ok(file)
    }

    /// Opens an object for its plain bytes.
    pub(super) fn open_object(&self, object: &ObjectEntry) -> Result<OpenReader<File>> {
        if object.compression != Compression::Zstd {
            let message = format!("{} of {} is not compressed with zstd", object.name, self.manifest.id);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let encrypted = object.encryption == Encryption::Age;
        if encrypted && self.identities.is_empty() {
            let message =
                format!("{} of {} is encrypted and no identity is given", object.name, self.manifest.id);
            return Err(Error::new(ErrorKind::KeyRejected, message).with_hint(format!(
                "give the age identity of one of: {}",
                self.manifest.encrypted_to.join(", ")
            )));
        }
        let options =
            OpenOptions { encrypted, identities: self.identities.clone(), expected: Some(recorded(object)) };
        OpenReader::new(&object.name, self.open_stored(object)?, &options, &self.ctx)
    }
}

/// Returns what the manifest records of an object, as [`check_stored`](crate::seal::check_stored) compares it.
#[must_use]
pub fn recorded(object: &ObjectEntry) -> Sealed {
    Sealed {
        size_bytes: object.size_bytes,
        sha256: object.sha256,
        stored_size_bytes: object.stored_size_bytes,
        stored_sha256: object.stored_sha256,
    }
}

impl BackupObjects for StoredBackup {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send + '_>> {
        let object = self.manifest.object(name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("the backup {} has no object {name:?}", self.manifest.id))
        })?;
        Ok(Box::new(self.open_object(object)?))
    }
}
