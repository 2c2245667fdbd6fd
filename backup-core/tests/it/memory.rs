//! A small source for tests: named objects in memory, with a file behind them as the live data.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Mutex;

use audit_chain::error::ErrorKind;
use audit_chain::report::ChainReport;
use backup_core::context::Context;
use backup_core::error::{Error, Result};
use backup_core::traits::{ChainRequest, Sinks, Snapshot, SnapshotOutcome, SourceFacts, SourceName};
use jiff::Timestamp;

/// What happens while the source is read, where a test wants something.
type Hook = Box<dyn Fn(&Context) -> Result<()> + Send + Sync>;

/// Objects in memory.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) name: String,
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
    /// The reports to give, in the order of the requests, and the requests that came.
    pub(crate) reports: Vec<ChainReport>,
    pub(crate) requests: Mutex<Vec<ChainRequest>>,
    pub(crate) preflight_error: Option<String>,
    /// Called between the objects.
    pub(crate) between: Option<Hook>,
}

impl Memory {
    pub(crate) fn new(name: &str, objects: &[(&str, &[u8])]) -> Self {
        Self {
            name: name.to_owned(),
            objects: objects.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect(),
            ..Self::default()
        }
    }

    /// A source of one small object.
    pub(crate) fn small() -> Self {
        Self::new("app", &[("database/app.db", b"forty-two bytes of a very small database..")])
    }
}

impl Snapshot for Memory {
    fn describe(&self) -> SourceName {
        SourceName { kind: "memory".into(), name: self.name.clone(), location: "memory".into() }
    }

    fn preflight(&self, _: &Context) -> Result<()> {
        match &self.preflight_error {
            None => Ok(()),
            Some(message) => Err(Error::new(ErrorKind::Unavailable, message.clone())),
        }
    }

    fn snapshot(&self, chains: &[ChainRequest], sinks: &dyn Sinks, ctx: &Context) -> Result<SnapshotOutcome> {
        *self.requests.lock().unwrap() = chains.to_vec();
        for (name, bytes) in &self.objects {
            if let Some(between) = &self.between {
                between(ctx)?;
            }
            ctx.check()?;
            let mut sink = sinks.object(name, Some(bytes.len() as u64))?;
            for piece in bytes.chunks(65_536) {
                sink.write_all(piece).map_err(|error| Error::io("write", name, error))?;
            }
            sink.finish()?;
        }
        Ok(SnapshotOutcome {
            facts: SourceFacts {
                kind: "memory".into(),
                name: self.name.clone(),
                location: "memory".into(),
                engine: "memory 1".into(),
                instant: Timestamp::now(),
                size_bytes: self.objects.values().map(|bytes| bytes.len() as u64).sum(),
                tables: BTreeMap::new(),
                migrations: None,
                details: BTreeMap::new(),
                not_included: vec!["what is not in memory".into()],
            },
            chains: self.reports.clone(),
        })
    }
}
