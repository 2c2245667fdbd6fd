//! What an `attestore.toml` may say: the one place that names its keys.
//!
//! `read` deserializes these types; the JSON Schema for editors (`docs/attestore.schema.json`) and the reference
//! (`docs/plan.md`) are generated from them and their comments by the tests in `reference`. An unknown key is refused.

use std::path::PathBuf;

use backup_core::repository::RetentionPolicy;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::values::{Location, Name, Period, Recipient, Reference, Timeout};

/// A plan: what is backed up, where to, with which secrets, how it is proven, and who does what.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// What the plan is for and who answers for it.
    pub plan: About,
    /// Where backups go.
    pub repository: RepositoryPlan,
    /// How old things may become.
    pub objectives: Objectives,
    /// Which backups are kept; without it none is ever removed.
    #[serde(default)]
    pub retention: Option<Retention>,
    /// Databases that are backed up.
    #[serde(default)]
    pub sources: Vec<Source>,
    /// Files and folders that go into the same backup.
    #[serde(default)]
    pub files: Vec<Files>,
    /// Secrets that the data needs: never stored, told by fingerprint.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Things that others back up.
    #[serde(default)]
    pub elsewhere: Vec<Elsewhere>,
    /// Things that are in no backup and need none, because they are made again.
    #[serde(default)]
    pub recreated: Vec<Recreated>,
    /// Commands before and after a backup.
    #[serde(default)]
    pub hooks: Hooks,
    /// How a drill is made.
    #[serde(default)]
    pub drill: Drill,
}

/// What the plan is for and who answers for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The system, as its people call it.
    pub name: String,
    /// The role that answers for the plan, and for every asset that names no owner.
    pub owner: String,
    /// How the owner is reached.
    #[serde(default)]
    pub contact: Option<String>,
    /// What a reader of the runbook should know first.
    #[serde(default)]
    pub notes: Option<String>,
}

/// Where backups go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RepositoryPlan {
    /// The repository, made with `attestore init`. A relative path begins at the plan's folder, here as everywhere in it.
    pub path: String,
    /// age recipients (`age1…`): the machine that makes backups need not be able to read them.
    #[serde(default)]
    pub encrypt_to: Vec<Recipient>,
    /// The key that signs backups and the log: `file:PATH`, or `env:VAR` that holds the key file's text.
    #[serde(default)]
    pub sign_with: Option<Reference>,
    /// Public keys of which one must have signed a backup: files or text.
    #[serde(default)]
    pub public_keys: Vec<String>,
    /// The age identity that opens the objects, for drills on a machine that may: `file:PATH` or `env:VAR`.
    #[serde(default)]
    pub identity: Option<Reference>,
    /// A checkpoint of the repository's log that is kept elsewhere: `status` proves that the log extends it, and a backup by
    /// this plan brings it up to date.
    #[serde(default)]
    pub checkpoint: Option<PathBuf>,
    /// Fewer free bytes on the repository's file system are a problem.
    #[serde(default)]
    pub min_free_bytes: Option<u64>,
    /// How many sources are read at once (default 2).
    #[serde(default)]
    pub parallel_sources: Option<usize>,
}

/// How old things may become.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Objectives {
    /// Recovery point: the newest backup may be this old (`24h`).
    pub rpo: Period,
    /// Recovery time: a drill may take this long (`30m`).
    #[serde(default)]
    pub rto: Option<Timeout>,
    /// A good drill is due this often (`90d`).
    pub drill_every: Period,
    /// A good verification is due this often (`7d`).
    #[serde(default)]
    pub verify_every: Option<Period>,
}

/// Which backups are kept: those that any rule keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// The newest N.
    pub keep_last: Option<u32>,
    /// The newest of each of the last N days that have one.
    pub keep_daily: Option<u32>,
    /// The newest of each of the last N weeks that have one.
    pub keep_weekly: Option<u32>,
    /// The newest of each of the last N months that have one.
    pub keep_monthly: Option<u32>,
    /// The newest of each of the last N years that have one.
    pub keep_yearly: Option<u32>,
    /// Everything up to this age, counted back from the newest backup.
    pub keep_within: Option<Period>,
}

impl Retention {
    /// Returns the policy of the repository.
    #[must_use]
    pub fn policy(&self) -> RetentionPolicy {
        RetentionPolicy {
            keep_last: self.keep_last,
            keep_daily: self.keep_daily,
            keep_weekly: self.keep_weekly,
            keep_monthly: self.keep_monthly,
            keep_yearly: self.keep_yearly,
            keep_within: self.keep_within.map(Period::age),
        }
    }
}

/// What it means to lose an asset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Tier {
    /// Must survive.
    #[default]
    A,
    /// Nice to have.
    B,
    /// Made again.
    C,
}

/// A database that is backed up.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What it is called in the backup.
    #[cfg_attr(test, schemars(with = "Name"))]
    pub name: Spanned<Name>,
    /// Where it is: a path, `sqlite:PATH`, `postgres://…` without a password, or `env:VAR` that holds one of them.
    pub database: Location,
    /// What it means to lose it.
    #[serde(default)]
    pub tier: Tier,
    /// The role that owns it.
    #[serde(default)]
    pub owner: Option<String>,
    /// How it comes back, beyond the restore itself.
    #[serde(default)]
    pub way_back: Option<String>,
    /// Its audit chains.
    #[serde(default)]
    pub chains: Vec<Chain>,
    /// Columns that hold ciphertext, for the credential-gap report.
    #[serde(default)]
    pub sealed: Vec<Sealed>,
    /// The folder of the deployed program's migrations (as sqlx keeps them): a drill says whether the backup's are older, equal
    /// or newer.
    #[serde(default)]
    pub migrations: Option<PathBuf>,
}

/// An audit chain in a source.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// The format's name, or the path of a profile.
    pub format: String,
    /// The table, where it is not the format's own.
    #[serde(default)]
    pub table: Option<String>,
    /// Whether the rows are also stored as NDJSON, readable without the database.
    #[serde(default)]
    pub copy: bool,
    /// Public keys that may sign its records: files or text.
    #[serde(default)]
    pub public_keys: Vec<String>,
}

/// A column that holds ciphertext.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// The column that names a record in reports; the row's number where it is left out.
    #[serde(default)]
    pub id: Option<String>,
    /// The secret of this plan that opens it.
    #[cfg_attr(test, schemars(with = "Name"))]
    pub secret: Spanned<Name>,
    /// How the values are made.
    #[serde(default)]
    pub kind: SealedKind,
    /// AES-256-GCM: how a value is put together, for example `<nonce>.<ct>.<tag>` (parts encoded one by one) or
    /// `v1:<nonce><ct><tag>` (encoded as one).
    #[serde(default)]
    pub layout: Option<String>,
    /// AES-256-GCM: how the bytes are spelt.
    #[serde(default)]
    pub encoding: Encoding,
    /// AES-256-GCM: how the secret becomes the 32 bytes of the key.
    #[serde(default)]
    pub key: KeyForm,
    /// The additional data that the value is bound to; `{column}` stands for another column of the row.
    #[serde(default)]
    pub aad: Option<String>,
    /// The column of the nonce, where it is one of its own (`zone-kek`).
    #[serde(default)]
    pub nonce_column: Option<String>,
    /// What is done about a value that does not open.
    #[serde(default)]
    pub if_lost: IfLost,
}

/// How sealed values are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SealedKind {
    /// AES-256-GCM with a nonce of 12 bytes and a tag of 16.
    #[default]
    Aes256Gcm,
    /// Caracal's envelope `CSS1`, which names the key that it is sealed under.
    Css1,
    /// Caracal's older form: ChaCha20-Poly1305 directly under the zone's key.
    ZoneKek,
}

/// How bytes are spelt in a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// Base64 with or without padding, in either alphabet.
    #[default]
    Base64,
    /// Hexadecimal digits.
    Hex,
    /// As they are (a BLOB).
    Raw,
}

/// How a secret becomes a key of 32 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum KeyForm {
    /// 64 hexadecimal digits.
    #[default]
    Hex,
    /// Base64 of 32 bytes.
    Base64,
    /// The 32 bytes themselves.
    Raw,
    /// The SHA-256 of the secret's text.
    Sha256,
}

/// What is done about a secret or a value that is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum IfLost {
    /// A person must enter it again.
    #[default]
    ReEnter,
    /// A new one is minted.
    Mint,
    /// Nothing: what it opens is lost.
    Lost,
}

impl IfLost {
    /// Says it in a few words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::ReEnter => "a person enters it again",
            Self::Mint => "a new one is minted",
            Self::Lost => "what it opens is lost",
        }
    }
}

/// Files or a folder that go into the same backup.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// What it is called in the backup.
    #[cfg_attr(test, schemars(with = "Name"))]
    pub name: Spanned<Name>,
    /// The file or folder.
    pub path: PathBuf,
    /// What it means to lose it.
    #[serde(default)]
    pub tier: Tier,
    /// The role that owns it.
    #[serde(default)]
    pub owner: Option<String>,
    /// How it comes back, beyond the restore itself.
    #[serde(default)]
    pub way_back: Option<String>,
}

/// A secret that the data needs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// What it is called.
    #[cfg_attr(test, schemars(with = "Name"))]
    pub name: Spanned<Name>,
    /// Where the machine that makes backups holds it: `env:VAR` or `file:PATH`. Left out where that machine never has it: then
    /// there is no fingerprint.
    #[serde(default, rename = "ref")]
    pub reference: Option<Reference>,
    /// Where earlier values are held (a rotation), newest first.
    #[serde(default)]
    pub previous: Vec<Reference>,
    /// What it opens or signs.
    pub opens: String,
    /// Where it is escrowed: the place that is asked after a disaster.
    pub escrow: String,
    /// What is done when it is lost.
    pub if_lost: IfLost,
    /// The role that holds it.
    #[serde(default)]
    pub owner: Option<String>,
}

/// Something that others back up.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// What it is called.
    #[cfg_attr(test, schemars(with = "Name"))]
    pub name: Spanned<Name>,
    /// What it is.
    pub what: String,
    /// Who backs it up and how.
    pub by: String,
    /// How a person checks that.
    pub how_to_check: String,
    /// A command that checks it: run in a drill, and by `status --run-checks`.
    #[serde(default)]
    pub check: Option<Command>,
    /// What it means to lose it.
    #[serde(default)]
    pub tier: Tier,
    /// The role that owns it.
    #[serde(default)]
    pub owner: Option<String>,
    /// How it comes back.
    #[serde(default)]
    pub way_back: Option<String>,
}

/// Something that is in no backup and needs none.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Recreated {
    /// What it is called.
    #[cfg_attr(test, schemars(with = "Name"))]
    pub name: Spanned<Name>,
    /// What it is.
    pub what: String,
    /// How it is made again.
    pub way_back: String,
    /// What it means to lose it.
    #[serde(default = "tier_c")]
    pub tier: Tier,
    /// The role that owns it.
    #[serde(default)]
    pub owner: Option<String>,
}

const fn tier_c() -> Tier {
    Tier::C
}

/// A command with its time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments, run in the plan's folder; no shell is between.
    pub run: Vec<String>,
    /// After this time its whole process group is killed and the run fails (default `10m`).
    #[serde(default)]
    pub timeout: Timeout,
}

/// A command before or after a backup, or a smoke test of a drill.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// What it is called in reports.
    #[cfg_attr(test, schemars(with = "Name"))]
    pub name: Spanned<Name>,
    /// The program and its arguments, run in the plan's folder; no shell is between.
    pub run: Vec<String>,
    /// After this time its whole process group is killed and the run fails (default `10m`).
    #[serde(default)]
    pub timeout: Timeout,
}

/// Commands before and after a backup.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Run before the first byte, in order. One that fails stops the run: nothing is backed up.
    #[serde(default)]
    pub before: Vec<Hook>,
    /// Run afterwards, in order, also when the backup failed (`ATTESTORE_OUTCOME` is `ok` or `failed`, `ATTESTORE_BACKUP` the
    /// id). One that fails fails the run; the backup stays.
    #[serde(default)]
    pub after: Vec<Hook>,
}

/// How a drill is made.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Drill {
    /// The folder for scratch databases (default: the system's temporary folder).
    #[serde(default)]
    pub scratch: Option<PathBuf>,
    /// The folder that each drill leaves its report in, as JSON, Markdown and HTML with signatures.
    #[serde(default)]
    pub reports: Option<PathBuf>,
    /// Questions that the restored database must answer.
    #[serde(default)]
    pub checks: Vec<DrillCheck>,
    /// Commands run against the restored database, such as starting the service and calling its `/ready`. Their environment has
    /// `ATTESTORE_DATABASE` (the path), and `ATTESTORE_DATABASE_<NAME>` for every source.
    #[serde(default)]
    pub smoke: Vec<Hook>,
    /// What people do in a quarterly drill beside the machine's part.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// A question to a restored database.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DrillCheck {
    /// What it is called in reports.
    #[cfg_attr(test, schemars(with = "Name"))]
    pub name: Spanned<Name>,
    /// One statement that reads; the first column of its first row is the answer.
    pub sql: String,
    /// The answer as text; without it anything but NULL, 0 and nothing is good.
    #[serde(default)]
    pub expected: Option<String>,
    /// The source it is asked of; every one where it is left out.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<Name>"))]
    pub source: Option<Spanned<Name>>,
}

/// A step that a person does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What is done.
    pub what: String,
    /// The role that does it.
    #[serde(default)]
    pub owner: Option<String>,
}
