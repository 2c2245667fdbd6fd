//! Makes databases of any size, the same bytes for the same options.
//!
//! The loader, the tests and the benches call it. It writes under a staging name, without a journal, and renames at
//! the end: if the process dies here, a `.part` file is left and no database.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OpenFlags, params};

use crate::error::{Error, Result};
use crate::policy::PolicyChange;
use crate::receipt::{Action, Receipt, ReceiptSigner};
use crate::store::{INSERT_POLICY, INSERT_RECEIPT, create_schema, insert_policy, insert_receipt, rfc3339};

/// How many receipts a database has unless told.
pub const DEFAULT_RECEIPTS: u64 = 100_000;
/// How many tenants, each with a chain of its own.
pub const DEFAULT_TENANTS: u32 = 5;
/// How many entries of the policy log.
pub const DEFAULT_POLICIES: u64 = 500;
/// The mean size of one row of `audit_events`, in bytes: half text that compresses, half bytes that do not.
pub const EVENT_BYTES: u64 = 4_096;

/// The first receipt's time.
const START: &str = "2026-06-02T12:00:00Z";

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How many receipts, in all tenants together.
    pub receipts: u64,
    /// How many tenants; at least 1.
    pub tenants: u32,
    /// How many entries of the policy log.
    pub policies: u64,
    /// Bytes of `audit_events`, for a database of a certain size.
    pub event_bytes: u64,
    /// Whether every receipt is signed; the key is made from the seed.
    pub sign: bool,
    /// Equal seeds make equal databases.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            receipts: DEFAULT_RECEIPTS,
            tenants: DEFAULT_TENANTS,
            policies: DEFAULT_POLICIES,
            event_bytes: 0,
            sign: false,
            seed: 1,
        }
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Where.
    pub path: PathBuf,
    /// How many receipts.
    pub receipts: u64,
    /// How many rows of `audit_events`.
    pub events: u64,
    /// The file's size, in bytes.
    pub size_bytes: u64,
    /// The public key of the signatures, 64 hexadecimal digits, where receipts are signed.
    pub public_key: Option<String>,
}

/// Makes a database at `path`, in WAL mode as the service leaves it.
///
/// # Errors
/// [`Error::Exists`] when there is a file, [`Error::Invalid`] for no tenants, else what SQLite or the operating
/// system said.
pub fn generate(path: &Path, options: &Options) -> Result<Summary> {
    if options.tenants == 0 {
        return Err(Error::Invalid("a database needs at least 1 tenant".into()));
    }
    if fs::symlink_metadata(path).is_ok() {
        return Err(Error::Exists(path.to_owned()));
    }
    let mut staging = path.as_os_str().to_owned();
    staging.push(".part");
    let staging = PathBuf::from(staging);
    let result = fill(&staging, path, options);
    if result.is_err() {
        let _ = fs::remove_file(&staging);
    }
    result
}

fn fill(staging: &Path, path: &Path, options: &Options) -> Result<Summary> {
    let io = |action| move |source| Error::Io { action, path: staging.to_owned(), source };
    // Created here and not by SQLite, so that what another run left is never taken over.
    fs::OpenOptions::new().write(true).create_new(true).open(staging).map_err(io("create"))?;
    let mut connection = Connection::open_with_flags(staging, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "journal_mode", "OFF")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    // 256 MiB, in KiB as a negative number: the index over random ids stays in memory.
    connection.pragma_update(None, "cache_size", -262_144)?;

    let mut maker = Maker::new(options)?;
    let transaction = connection.transaction()?;
    create_schema(&transaction)?;
    maker.tenants(&transaction)?;
    maker.receipts(&transaction, options.receipts)?;
    maker.policies(&transaction, options.policies)?;
    let events = maker.events(&transaction, options.event_bytes)?;
    transaction.commit()?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.close().map_err(|(_, error)| error)?;

    let file = fs::File::open(staging).map_err(io("open"))?;
    file.sync_all().map_err(io("sync"))?;
    let size_bytes = file.metadata().map_err(io("read"))?.len();
    fs::rename(staging, path).map_err(io("rename"))?;
    Ok(Summary {
        path: path.to_owned(),
        receipts: options.receipts,
        events,
        size_bytes,
        public_key: maker.signer.map(|signer| signer.public_key().to_owned()),
    })
}

/// Makes rows out of a seeded generator.
struct Maker {
    random: fastrand::Rng,
    now: Timestamp,
    tenants: Vec<String>,
    heads: Vec<String>,
    signer: Option<ReceiptSigner>,
}

const AGENTS: [&str; 6] =
    ["coding-agent-prod", "support-agent", "billing-agent", "release-agent", "triage-agent", "übersetzer"];
const USERS: [&str; 6] = [
    "zoë@example.com",
    "ops@example.com",
    "mei.lin@example.com",
    "j.ncube@example.com",
    "noreply@example.com",
    "sam@example.org",
];
const TOOLS: [(&str, &str); 8] = [
    ("github", "merge_pull_request"),
    ("github", "create_branch"),
    ("filesystem", "read_file"),
    ("filesystem", "write_file"),
    ("slack", "post \"quoted\" \\ message"),
    ("postgres", "select"),
    ("http", "POST /v2/refunds"),
    ("calendar", "invite"),
];
const RESOURCES: [&str; 5] =
    ["payments-service#482", "s3://invoices/2026/06/", "déjà vu ☕", "docs/README.md", "refund\tbatch\n42"];
const TRUST: [&str; 4] =
    ["trusted_internal_signed", "trusted_internal_unsigned", "semi_trusted_customer", "untrusted_external"];

impl Maker {
    fn new(options: &Options) -> Result<Self> {
        let mut random = fastrand::Rng::with_seed(options.seed);
        let now = START.parse().map_err(|error| Error::Invalid(format!("{START}: {error}")))?;
        let signer = options.sign.then(|| {
            let mut seed = [0_u8; 32];
            random.fill(&mut seed);
            ReceiptSigner::from_seed(&seed, Some("v1".into()))
        });
        let tenants: Vec<String> =
            (1..=options.tenants).map(|number| format!("tenant_{number:02}")).collect();
        Ok(Self { random, now, heads: vec![String::new(); tenants.len()], tenants, signer })
    }

    fn id(&mut self) -> String {
        let bytes = self.random.u128(..).to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    fn hex(&mut self, bytes: usize) -> String {
        let mut buffer = [0_u8; 32];
        self.random.fill(&mut buffer[..bytes]);
        hex::encode(&buffer[..bytes])
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.random.usize(..from.len())]
    }

    /// Moves the clock by up to two seconds and returns it.
    fn tick(&mut self) -> Timestamp {
        self.now += SignedDuration::from_micros(self.random.i64(1..2_000_000));
        self.now
    }

    fn tenants(&mut self, connection: &Connection) -> Result<()> {
        for tenant in &self.tenants {
            connection.execute(
                "INSERT INTO tenants (id, label, created_at) VALUES (?1, ?2, ?3)",
                params![tenant, tenant.replace('_', " "), rfc3339(self.now)],
            )?;
        }
        Ok(())
    }

    fn receipts(&mut self, connection: &Connection, count: u64) -> Result<()> {
        let mut statement = connection.prepare(INSERT_RECEIPT)?;
        for _ in 0..count {
            let tenant = self.random.usize(..self.tenants.len());
            let action = self.action(tenant);
            let ts = rfc3339(self.tick());
            let created_at = ts.get(..19).unwrap_or_default().replace('T', " ");
            let prev = std::mem::take(&mut self.heads[tenant]);
            let id = self.id();
            let receipt = Receipt::new(id, ts, action, prev, self.signer.as_ref())?;
            insert_receipt(&mut statement, &receipt, &created_at)?;
            self.heads[tenant] = receipt.receipt_hash;
        }
        Ok(())
    }

    fn action(&mut self, tenant: usize) -> Action {
        let (tool, action) = TOOLS[self.random.usize(..TOOLS.len())];
        let decision = match self.random.u8(..100) {
            0..=84 => "allow",
            85..=93 => "deny",
            _ => "require_approval",
        };
        Action {
            tenant_id: self.tenants[tenant].clone(),
            decision_id: Some(self.id()),
            agent_id: Some(self.pick(&AGENTS).to_owned()),
            user_id: self.random.bool().then(|| self.pick(&USERS).to_owned()),
            run_id: Some(format!("run-{}", self.random.u32(..1_000_000))),
            trace_id: (self.random.u8(..10) < 8).then(|| self.hex(16)),
            tool: Some(tool.to_owned()),
            action: Some(action.to_owned()),
            resource: (self.random.u8(..10) < 7).then(|| self.pick(&RESOURCES).to_owned()),
            source_trust: self.pick(&TRUST).to_owned(),
            decision: decision.to_owned(),
            approver: (decision == "require_approval").then(|| self.pick(&USERS).to_owned()),
            action_hash: Some(self.hex(32)),
        }
    }

    fn policies(&mut self, connection: &Connection, count: u64) -> Result<()> {
        let mut statement = connection.prepare(INSERT_POLICY)?;
        let mut heads = vec![String::new(); self.tenants.len()];
        for number in 0..count {
            let tenant = self.random.usize(..self.tenants.len());
            let policy = self.random.u32(..40);
            let change = PolicyChange {
                tenant_id: self.tenants[tenant].clone(),
                policy_id: format!("policy-{policy}"),
                policy_key: format!("p{policy}"),
                action: if number < 40 { "created" } else { "updated" }.to_owned(),
                changed_by: Some(self.pick(&USERS).to_owned()),
                body_hash: format!("sha256:{}", self.hex(32)),
                diff_summary: Some(format!("Policy 'p{policy}' now at version {number} (changed: body)")),
            };
            let created_at = rfc3339(self.tick());
            let id = self.id();
            heads[tenant] = insert_policy(&mut statement, &change, &id, &heads[tenant], &created_at)?;
        }
        Ok(())
    }

    /// Fills `audit_events` with about `bytes` bytes and returns how many rows that took.
    fn events(&mut self, connection: &Connection, bytes: u64) -> Result<u64> {
        let mut statement = connection.prepare(
            "INSERT INTO audit_events (tenant_id, at, kind, body, evidence) VALUES (?, ?, ?, ?, ?)",
        )?;
        let half = usize::try_from(EVENT_BYTES / 2).unwrap_or(2_048);
        let mut evidence = vec![0_u8; 2 * half];
        let (mut rows, mut written) = (0, 0);
        while written < bytes {
            let size = self.random.usize(half / 2..half + half / 2);
            self.random.fill(&mut evidence[..size]);
            let (tool, action) = TOOLS[self.random.usize(..TOOLS.len())];
            let body = self.text(half);
            let at = rfc3339(self.tick());
            let tenant = self.random.usize(..self.tenants.len());
            statement.execute(params![
                self.tenants[tenant],
                at,
                format!("{tool}.{action}"),
                body,
                &evidence[..size]
            ])?;
            rows += 1;
            written += (body.len() + size) as u64;
        }
        Ok(rows)
    }

    /// Returns text of about `bytes` bytes that reads like a log and compresses like one.
    fn text(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 128);
        while text.len() < bytes {
            let (agent, user, resource) = (self.pick(&AGENTS), self.pick(&USERS), self.pick(&RESOURCES));
            let number = self.random.u32(..);
            text.push_str(&format!(
                "{agent} asked for {resource} on behalf of {user}: request {number:08x}; "
            ));
        }
        text
    }
}
