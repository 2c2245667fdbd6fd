//! A small backend for tests: a live NDJSON file that holds a `native` chain and is appended to.
//!
//! Real in every respect that the traits ask for: one instant (the length at the start), the chain verified
//! over the very bytes that are stored, a restore that proves beside the target before it swaps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use audit_chain::checkpoint::ChainCheckpoint;
use audit_chain::formats;
use audit_chain::json_rows::NdjsonSource;
use audit_chain::keys::KeyRing;
use audit_chain::native::{NativeAppender, NativeHead, NativeRecord};
use audit_chain::report::{ChainReport, Verdict};
use audit_chain::verify::{VerifyOptions, verify};
use backup_core::conformance::{Fixture, Harness};
use backup_core::context::Context;
use backup_core::durable::{Durable, free_space, parent_of, staging_name};
use backup_core::error::{Error, ErrorKind, Result};
use backup_core::traits::{
    BackupObjects, ChainRequest, ChainVerify, Check, Restore, RestoreOutcome, RestorePlan, Sinks, Snapshot,
    SnapshotOutcome, SourceFacts, SourceName,
};
use jiff::Timestamp;

/// The live file.
pub(crate) struct Vault {
    pub(crate) path: PathBuf,
    writer: Mutex<NativeAppender>,
}

const OBJECT: &str = "database/vault.ndjson";

pub(crate) fn chain_request() -> ChainRequest {
    ChainRequest {
        format: formats::by_name("native").unwrap(),
        table: Some("vault".into()),
        keys: KeyRing::new(),
        checkpoint: None,
        copy: false,
    }
}

impl Vault {
    pub(crate) fn create(path: &Path, records: usize) -> Arc<Self> {
        File::create_new(path).unwrap();
        let writer = Mutex::new(NativeAppender::new(NativeHead::genesis("vault"), None));
        let vault = Self { path: path.to_owned(), writer };
        for _ in 0..records {
            vault.append();
        }
        Arc::new(vault)
    }

    pub(crate) fn append(&self) {
        let mut writer = self.writer.lock().unwrap();
        let number = writer.head().seq() + 1;
        let record = writer.append(number as i64 * 1_000_000, format!("{{\"n\":{number}}}")).unwrap();
        let mut file = File::options().append(true).open(&self.path).unwrap();
        file.write_all(format!("{}\n", record.line()).as_bytes()).unwrap();
    }

    fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = std::fs::read(&self.path).map_err(|error| Error::io("read", &self.path, error))?;
        // A line that is being appended is not there yet.
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        Ok(bytes)
    }
}

fn check(bytes: &[u8], chain: &ChainRequest, ctx: &Context) -> Result<ChainReport> {
    let source = NdjsonSource::once("vault", Cursor::new(bytes.to_vec()))?;
    let options = VerifyOptions {
        checkpoint: chain.checkpoint.as_ref(),
        cancel: Some(ctx.cancel().flag()),
        ..VerifyOptions::default()
    };
    Ok(verify(&source, &*chain.format, &chain.keys, &options)?)
}

fn rows(bytes: &[u8]) -> BTreeMap<String, u64> {
    [("vault".to_owned(), bytes.iter().filter(|byte| **byte == b'\n').count() as u64)].into()
}

impl Snapshot for Vault {
    fn describe(&self) -> SourceName {
        let location = self.path.display().to_string();
        SourceName { kind: "vault".into(), name: "vault".into(), location }
    }

    fn preflight(&self, _: &Context) -> Result<()> {
        let first = self.read()?.split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec();
        let text = String::from_utf8_lossy(&first).into_owned();
        NativeRecord::parse(&text).map(|_| ()).map_err(Error::from)
    }

    fn snapshot(&self, chains: &[ChainRequest], sinks: &dyn Sinks, ctx: &Context) -> Result<SnapshotOutcome> {
        let instant = Timestamp::now();
        let bytes = self.read()?;
        let mut sink = sinks.object(OBJECT, Some(bytes.len() as u64))?;
        for line in bytes.chunks(256) {
            ctx.check()?;
            sink.write_all(line).map_err(|error| Error::io("write", OBJECT, error))?;
        }
        sink.finish()?;
        let reports = chains.iter().map(|chain| check(&bytes, chain, ctx)).collect::<Result<_>>()?;
        let about = self.describe();
        let facts = SourceFacts {
            kind: about.kind,
            name: about.name,
            location: about.location,
            engine: "vault 1".into(),
            instant,
            size_bytes: bytes.len() as u64,
            tables: rows(&bytes),
            migrations: None,
            details: BTreeMap::new(),
            not_included: Vec::new(),
        };
        Ok(SnapshotOutcome { facts, chains: reports })
    }
}

impl ChainVerify for Vault {
    fn verify_chain(&self, chain: &ChainRequest, ctx: &Context) -> Result<ChainReport> {
        check(&self.read()?, chain, ctx)
    }
}

impl Restore for Vault {
    fn plan(&self, backup: &dyn BackupObjects, ctx: &Context) -> Result<RestorePlan> {
        ctx.check()?;
        let object = backup
            .manifest()
            .object(OBJECT)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("the backup has no {OBJECT}")))?;
        Ok(RestorePlan {
            backup: backup.manifest().id.clone(),
            target: self.path.display().to_string(),
            steps: vec!["restore beside the target".into(), "prove".into(), "swap".into()],
            warnings: Vec::new(),
            needs_bytes: object.size_bytes,
            free_bytes: free_space(parent_of(&self.path))?,
        })
    }

    fn execute(
        &self,
        plan: &RestorePlan,
        backup: &dyn BackupObjects,
        ctx: &Context,
    ) -> Result<RestoreOutcome> {
        ctx.check()?;
        let mut bytes = Vec::new();
        let mut reader = backup.open(OBJECT)?;
        reader.read_to_end(&mut bytes).map_err(|error| Error::io("read", OBJECT, error))?;
        let recorded = backup.manifest().object(OBJECT).map(|object| object.size_bytes);
        if recorded != Some(bytes.len() as u64) {
            return Err(Error::new(ErrorKind::Corrupt, "the object has another size"));
        }
        let mut checks = vec![Check { name: "size".into(), ok: true, detail: bytes.len().to_string() }];
        let mut chains = Vec::new();
        for entry in &backup.manifest().chains {
            let points: ChainCheckpoint = entry.points.clone();
            let report = check(&bytes, &ChainRequest { checkpoint: Some(points), ..chain_request() }, ctx)?;
            if entry.verdict == Verdict::Intact && !report.ok {
                return Err(Error::new(ErrorKind::Mismatch, report.diagnosis));
            }
            checks.push(Check { name: "chain".into(), ok: true, detail: report.diagnosis.clone() });
            chains.push(report);
        }
        let durable = Durable::new();
        let beside = staging_name(&self.path, "restore")?;
        durable.write_new(&beside, &bytes, 0o600)?;
        let aside = self.path.with_extension(format!("bad-{}", Timestamp::now().as_second()));
        durable.rename_noreplace(&self.path, &aside)?;
        durable.rename_noreplace(&beside, &self.path)?;
        let target = plan.target.clone();
        let backup = plan.backup.clone();
        Ok(RestoreOutcome { backup, target, set_aside: vec![aside], checks, chains })
    }
}

/// The vault in the conformance suite.
pub(crate) struct VaultHarness;

struct VaultFixture {
    folder: PathBuf,
    vault: Arc<Vault>,
}

impl Harness for VaultHarness {
    fn create(&self, folder: &Path) -> Result<Box<dyn Fixture>> {
        let vault = Vault::create(&folder.join("vault.ndjson"), 40);
        Ok(Box::new(VaultFixture { folder: folder.to_owned(), vault }))
    }
}

impl VaultFixture {
    fn rewrite(&self, edit: impl FnOnce(&mut Vec<String>)) {
        let text = std::fs::read_to_string(&self.vault.path).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        edit(&mut lines);
        std::fs::write(&self.vault.path, lines.join("\n") + "\n").unwrap();
    }
}

impl Fixture for VaultFixture {
    fn snapshot(&self) -> &dyn Snapshot {
        &*self.vault
    }

    fn restore(&self) -> Option<&dyn Restore> {
        Some(&*self.vault)
    }

    fn chain_verify(&self) -> Option<&dyn ChainVerify> {
        Some(&*self.vault)
    }

    fn chains(&self) -> Vec<ChainRequest> {
        vec![chain_request()]
    }

    fn content(&self) -> Result<Vec<u8>> {
        self.vault.read()
    }

    fn rows(&self) -> Result<BTreeMap<String, u64>> {
        Ok(rows(&self.vault.read()?))
    }

    fn change(&self) -> Result<()> {
        self.vault.append();
        Ok(())
    }

    fn tamper(&self) -> Result<bool> {
        self.rewrite(|lines| lines[7] = lines[7].replace("{\\\"n\\\":8}", "{\\\"n\\\":9}"));
        Ok(true)
    }

    fn truncate(&self) -> Result<bool> {
        self.rewrite(|lines| {
            lines.pop();
        });
        Ok(true)
    }

    fn spoil(&self) -> Result<()> {
        std::fs::remove_file(&self.vault.path).map_err(|error| Error::io("remove", &self.vault.path, error))
    }

    fn folder(&self) -> &Path {
        &self.folder
    }
}
