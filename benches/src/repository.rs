//! Makes repositories of many signed backups in seconds: one true backup, copied with other names and times, and the log written anew.
//!
//! Such a repository is what `attestore` would have made (its log, manifests and signatures verify); only the objects of all backups
//! are the same few bytes.

use std::path::Path;

use audit_chain::merkle::{Frontier, leaf_hash};
use audit_chain::native::{NativeAppender, NativeHead, NativeRecord};
use audit_chain::note::{Note, NoteSigner};
use audit_chain::tlog::LogCheckpoint;
use backup_core::context::Context;
use backup_core::files::FilesSource;
use backup_core::manifest::{Digest, Manifest};
use backup_core::repository::{
    BUNDLE, BackupRequest, MANIFEST, Repository, RepositoryOptions, SIGNATURE, SourceRequest,
};
use backup_core::signing::SigningKey;
use jiff::{SignedDuration, Timestamp};

use crate::Result;

/// Makes a repository of `number` backups, one a hour, the newest now, under `folder`; returns its path and the log's checkpoint.
///
/// # Errors
/// When it cannot be made.
pub fn generate(folder: &Path, number: u32) -> Result<(std::path::PathBuf, String)> {
    let path = folder.join(format!("repository-{number}"));
    let repository = Repository::init(&path, &RepositoryOptions::default())?;
    let data = folder.join("data");
    std::fs::create_dir_all(&data)?;
    std::fs::write(data.join("file"), "a few bytes")?;
    let key = SigningKey::generate()?;
    let source = FilesSource::new("data", &data);
    let first = Timestamp::now() - SignedDuration::from_hours(i64::from(number) - 1);
    let request = BackupRequest {
        sources: vec![SourceRequest { snapshot: &source, chains: Vec::new() }],
        name: Some("b00000".into()),
        signing_key: Some(&key),
        now: Some(first),
        ..BackupRequest::default()
    };
    let made = repository.backup(&request, &Context::new())?;
    let layout = repository.layout();
    let text = std::fs::read_to_string(layout.log_bundle(0))?;
    let records = text.lines().map(NativeRecord::parse).collect::<std::result::Result<Vec<_>, _>>()?;
    let (init, backup) = (records.first().ok_or("no first entry")?, records.last().ok_or("no entry")?);
    let origin = &repository.header().log_origin;
    let mut writer = NativeAppender::new(NativeHead::genesis(origin.as_str()), None);
    let mut tree = Frontier::new();
    let mut bundle = String::new();
    let mut previous = made.manifest.previous.clone();
    for at in 0..=u64::from(number) {
        let (time, body) = if at == 0 {
            (audit_chain::native::parse_time(&init.at).ok_or("no time")?, init.body.clone())
        } else {
            let id = format!("b{:05}", at - 1);
            let time = first + SignedDuration::from_hours(i64::try_from(at)? - 1);
            let mut manifest: Manifest = made.manifest.clone();
            manifest.id.clone_from(&id);
            manifest.created_at = time;
            manifest.previous = previous.take();
            let bytes = manifest.to_canonical_json()?;
            let to = layout.backup(&id);
            if at > 1 {
                for object in &manifest.objects {
                    let target = to.join(&object.name);
                    std::fs::create_dir_all(target.parent().ok_or("no parent")?)?;
                    std::fs::hard_link(made.path.join(&object.name), target)?;
                }
            }
            std::fs::write(to.join(MANIFEST), &bytes)?;
            std::fs::write(to.join(SIGNATURE), key.sign_detached(&bytes, &id)?)?;
            let digest = Digest::of(&bytes);
            previous =
                Some(backup_core::manifest::PreviousBackup { id: id.clone(), manifest_sha256: digest });
            let body = backup
                .body
                .replace("\"b00000\"", &format!("\"{id}\""))
                .replace(&made.manifest_sha256.to_string(), &digest.to_string())
                .replace(&first.to_string(), &time.to_string());
            (time.as_microsecond(), body)
        };
        let line = writer.append(time, body)?.line();
        tree.push(leaf_hash(line.as_bytes()));
        bundle.push_str(&line);
        bundle.push('\n');
        if (at + 1).is_multiple_of(BUNDLE) || at == u64::from(number) {
            std::fs::write(layout.log_bundle(at / BUNDLE), &bundle)?;
            bundle.clear();
        }
    }
    let checkpoint = LogCheckpoint::new(origin, tree.size(), tree.root())?;
    let mut note = Note::new(checkpoint.to_string())?;
    note.sign(&NoteSigner::parse(&std::fs::read_to_string(layout.log_key())?)?);
    std::fs::write(layout.log_checkpoint(), note.to_string())?;
    Ok((path, note.to_string()))
}
