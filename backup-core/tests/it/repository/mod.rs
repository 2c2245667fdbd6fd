//! The local repository: one module per concern.

mod backup;
mod chain;
mod crash;
mod lock;
mod log;
mod prune;
mod tamper;
mod verify;

use std::path::Path;

use backup_core::context::Context;
use backup_core::error::Result;
use backup_core::repository::{
    BackupOutcome, BackupReport, BackupRequest, Repository, RepositoryOptions, SourceRequest, VerifyOptions,
    VerifyReport, Which,
};
use backup_core::signing::SigningKey;
use backup_core::traits::Snapshot;

use crate::memory::Memory;

pub(crate) fn init(path: &Path) -> Repository {
    Repository::init(path, &RepositoryOptions::default()).unwrap()
}

pub(crate) fn open(path: &Path) -> Repository {
    Repository::open(path, &RepositoryOptions::default()).unwrap()
}

pub(crate) fn request<'a>(source: &'a dyn Snapshot, name: Option<&str>) -> BackupRequest<'a> {
    BackupRequest {
        sources: vec![SourceRequest { snapshot: source, chains: Vec::new() }],
        name: name.map(str::to_owned),
        ..BackupRequest::default()
    }
}

/// Backs a small source up under a name.
pub(crate) fn back_up(repository: &Repository, name: &str) -> Result<BackupOutcome> {
    let source = Memory::small();
    repository.backup(&request(&source, Some(name)), &Context::new())
}

pub(crate) fn verify_all(repository: &Repository) -> VerifyReport {
    repository.verify(Which::All, &VerifyOptions::default(), &Context::new()).unwrap()
}

/// Verifies everything and asks for nothing wrong.
#[track_caller]
pub(crate) fn assert_whole(repository: &Repository) -> Vec<BackupReport> {
    let report = verify_all(repository);
    assert!(report.ok, "{:#?}", report.findings);
    report.backups
}

pub(crate) fn ids(repository: &Repository) -> Vec<String> {
    let listing = repository.list().unwrap();
    listing.backups.into_iter().map(|backup| backup.id).collect()
}

pub(crate) fn key(byte: u8) -> SigningKey {
    SigningKey::from_seed(&[byte; 32])
}
