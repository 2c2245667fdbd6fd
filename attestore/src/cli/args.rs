//! The arguments of the command line, exactly as INTERFACE.md fixes them, each verb with an example.

use std::path::PathBuf;

use super::postgres::PostgresArguments;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

/// Backups that carry their own evidence.
#[derive(Debug, Parser)]
#[command(
    name = "attestore",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    propagate_version = true
)]
#[command(
    after_help = "Exit status: 0 done and good; 1 something was found, or is overdue; 2 wrong use, or the input cannot be read; \
3 refused, nothing changed; 4 not found; 5 corrupt or tampered; 6 a key or secret does not fit; 7 not available; 130 interrupted; 70 a bug."
)]
pub(crate) struct Cli {
    /// Print one JSON document on standard output and nothing else there
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress bar on standard error
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make an Ed25519 signing key (mode 0600) with its public key beside it
    #[command(
        after_help = "Example:\n  attestore keygen --out backup.key\n  # keep backup.key with the machine that makes backups, give backup.key.pub to whoever verifies"
    )]
    Keygen(Keygen),
    /// Make a repository
    #[command(after_help = "Example:\n  attestore init /srv/backups")]
    Init(Init),
    /// Back up databases and files into a repository, with the evidence
    #[command(
        after_help = "Example:\n  attestore backup app.db --to /srv/backups --chain aegisagent --sign-with backup.key \\\n      --encrypt-to age1… --file config=/etc/app --keep-last 30"
    )]
    Backup(Backup),
    /// List the backups of a repository, oldest first
    #[command(after_help = "Example:\n  attestore list /srv/backups")]
    List(List),
    /// Show one backup: objects, digests, chains, what is not included
    #[command(after_help = "Example:\n  attestore show /srv/backups latest --json")]
    Show(Show),
    /// Prove a backup, or the whole repository and its log
    #[command(
        after_help = "Example:\n  attestore verify /srv/backups --all --public-key backup.key.pub --checkpoint yesterday.checkpoint"
    )]
    Verify(Verify),
    /// Put a backup back: restored beside the target, proven, swapped in; the old file is kept
    #[command(
        after_help = "Example:\n  attestore restore /srv/backups latest --to /var/lib/app/app.db --plan\n  attestore restore /srv/backups latest --to /var/lib/app/app.db --public-key backup.key.pub"
    )]
    Restore(Restore),
    /// Restore a backup into a scratch place, check it, time it, throw it away
    #[command(
        after_help = "Example:\n  attestore drill /srv/backups latest --check \"SELECT count(*) >= 1 FROM users\" --report drill.html\n  attestore drill --plan /etc/app/attestore.toml"
    )]
    Drill(Drill),
    /// Say whether what a plan promises is so: what is overdue, missing or no longer fits
    #[command(
        after_help = "Example:\n  attestore status --plan /etc/app/attestore.toml\n  attestore status --plan attestore.toml --prometheus /var/lib/node_exporter/attestore.prom"
    )]
    Status(super::plan::StatusArgs),
    /// Say which stored credentials of a plan's databases open with the secrets at hand, for after a restore
    #[command(
        after_help = "Example:\n  attestore gaps --plan /etc/app/attestore.toml\n  attestore gaps --plan attestore.toml app=/srv/restored/app.db --json"
    )]
    Gaps(super::plan::GapsArgs),
    /// Print the runbook of a plan, dated: who backs up what, how to restore, what must be entered again
    #[command(
        after_help = "Example:\n  attestore runbook --plan /etc/app/attestore.toml > runbook.md\n  attestore runbook --plan /etc/app/attestore.toml --html > runbook.html"
    )]
    Runbook(super::plan::RunbookArgs),
    /// Say which backups retention would remove; with --apply remove them
    #[command(
        after_help = "Example:\n  attestore prune /srv/backups --keep-daily 7 --keep-weekly 5 --keep-monthly 12\n  attestore prune /srv/backups --keep-daily 7 --apply --sign-with backup.key"
    )]
    Prune(Prune),
    /// Keep a backup from being pruned, or release it
    #[command(after_help = "Example:\n  attestore hold /srv/backups 20261120T030000Z --reason \"case 4711\"")]
    Hold(Hold),
    /// Pack one backup as a single file to hand over
    #[command(after_help = "Example:\n  attestore export /srv/backups latest --out handover.tar.gz")]
    Export(Export),
    /// Print the repository log's signed checkpoint, to be kept elsewhere
    #[command(
        after_help = "Example:\n  attestore checkpoint /srv/backups > /mnt/elsewhere/attestore.checkpoint"
    )]
    Checkpoint(Checkpoint),
    /// Verify audit chains, and write down where they stand
    #[command(subcommand)]
    Chain(Chain),
    /// List or remove the files that restores set aside
    #[command(
        after_help = "Example:\n  attestore set-aside /var/lib/app/app.db\n  attestore set-aside /var/lib/app/app.db --archive /srv/old\n  attestore set-aside /var/lib/app/app.db --remove"
    )]
    SetAside(SetAside),
    /// Say what this machine has and lacks, with the line that installs it
    #[command(after_help = "Example:\n  attestore doctor")]
    Doctor,
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  attestore completions bash > /etc/bash_completion.d/attestore")]
    Completions(Completions),
}

/// Verbs on chains.
#[derive(Debug, Subcommand)]
pub(crate) enum Chain {
    /// Verify the chains in a database or a file
    #[command(
        after_help = "Example:\n  attestore chain verify app.db --format aegisagent --checkpoint last-week.checkpoint --json"
    )]
    Verify(ChainVerify),
    /// Print a checkpoint of the chains: size, Merkle root over whole rows, head
    #[command(
        after_help = "Example:\n  attestore chain checkpoint app.db --format aegisagent --sign-with backup.key > today.checkpoint"
    )]
    Checkpoint(ChainCheckpoint),
    /// Prove to an auditor that one record is in a chain: prints a small JSON file that stands alone
    #[command(
        after_help = "Example:\n  attestore chain prove app.db --format aegisagent --record 239864b1-e76d-5237-adee-e0c1a6673365 \\\n      --sign-with backup.key > record.proof.json"
    )]
    Prove(super::chain_prove::ChainProve),
    /// Check such a proof by the file alone
    #[command(
        after_help = "Example:\n  attestore chain check-proof record.proof.json --public-key backup.key.pub"
    )]
    CheckProof(super::chain_prove::CheckProof),
    /// Print AGLedger's key registry as its backups do (vault-public-keys.csv), or compare it with one
    #[command(
        after_help = "Example:\n  attestore chain registry dump/ > vault-public-keys.csv\n  attestore chain registry dump-after-restore/ --compare vault-public-keys.csv"
    )]
    Registry(super::chain_prove::ChainRegistry),
    /// Append records to a native chain: NDJSON on standard input, each line the body of one
    #[command(
        after_help = "Example:\n  echo '{\"event\":\"paid\",\"order\":7}' | attestore chain append app.db --chain orders --secret CHAIN_KEY=env:CHAIN_KEY"
    )]
    Append(super::ledger::Append),
    /// Erase values that records of a native chain commit to, on record
    #[command(
        after_help = "Example:\n  attestore chain erase app.db --chain people --record 7 --by dpo@example.com --reason \"request 4711\" --repo /srv/backups"
    )]
    Erase(super::ledger::Erase),
    /// Export the rows of the chains as NDJSON or CSV, with all that is needed to verify them from the file
    #[command(
        after_help = "--from and --to are half-open: from T on, before T. A row's own time counts. A filtered export still verifies: FILE.json says where it begins.\n\nExamples:\n  attestore chain export app.db --format aegisagent --out receipts.ndjson\n  attestore chain export z4j.db --format z4j --as csv --from 2026-11-01 --to 2026-12-01 --out november.csv\n  attestore chain export app.db --format caracal --out /mnt/archive --watermark /var/lib/caracal.watermark"
    )]
    Export(super::chain_export::ChainExport),
}

/// Arguments of `keygen`.
#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// The file for the secret key; FILE.pub beside it holds the public key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: PathBuf,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The directory to make
    #[arg(value_name = "REPO", value_hint = ValueHint::DirPath)]
    pub(crate) repo: String,
}

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// What to back up: a SQLite file, sqlite:PATH or postgres://…, with NAME= before it where two have the same name
    #[arg(value_name = "SOURCE", required_unless_present = "plan")]
    pub(crate) sources: Vec<String>,
    /// The repository
    #[arg(long, value_name = "REPO", value_hint = ValueHint::DirPath, required_unless_present = "plan")]
    pub(crate) to: Option<String>,
    /// Back up what this plan says instead (docs/plan.md); only --name, --jobs and --wait go with it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["sources", "to", "chains", "secrets", "public_keys", "files", "encrypt_to", "sign_with", "keep_last", "chain_copy", "refuse_findings"])]
    pub(crate) plan: Option<PathBuf>,
    /// The backup's name instead of a UTC time stamp
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A chain to verify inside the snapshot
    #[arg(long = "chain", value_name = "FORMAT[:TABLE]")]
    pub(crate) chains: Vec<String>,
    /// A secret the data needs: fingerprinted, used to verify, never stored
    #[arg(long = "secret", value_name = "NAME=REF")]
    pub(crate) secrets: Vec<String>,
    /// A public key that signs chain records (file or text)
    #[arg(long = "public-key", value_name = "FILE|KEY")]
    pub(crate) public_keys: Vec<String>,
    /// A file or folder to include
    #[arg(long = "file", value_name = "NAME=PATH")]
    pub(crate) files: Vec<String>,
    /// Encrypt to this age recipient
    #[arg(long = "encrypt-to", value_name = "AGE-RECIPIENT")]
    pub(crate) encrypt_to: Vec<String>,
    /// Sign the manifest and the repository's log with this key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) sign_with: Option<PathBuf>,
    /// After the backup, keep only the newest N
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<u32>,
    /// Threads that compress; from 2 on also connections that read a PostgreSQL server at once
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<u32>,
    /// How a SQLite file is copied
    #[arg(long, value_enum, default_value_t = SqliteMethod::VacuumInto)]
    pub(crate) method: SqliteMethod,
    /// Also store each chain as NDJSON, readable without the database
    #[arg(long)]
    pub(crate) chain_copy: bool,
    /// Refuse to commit a backup whose chain has findings (by default it is kept, as evidence, and said)
    #[arg(long)]
    pub(crate) refuse_findings: bool,
    /// Wait this many seconds for another backup to end
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) wait: u64,
    #[command(flatten)]
    pub(crate) postgres: PostgresArguments,
}

/// How a SQLite file is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SqliteMethod {
    /// `VACUUM INTO`: compact, one read transaction
    VacuumInto,
    /// The online backup API under a pinned read transaction: page for page
    Online,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// The repository
    #[arg(value_name = "REPO", value_hint = ValueHint::DirPath)]
    pub(crate) repo: String,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The repository
    #[arg(value_name = "REPO", value_hint = ValueHint::DirPath)]
    pub(crate) repo: String,
    /// A backup's id, or `latest`
    #[arg(value_name = "ID", default_value = "latest")]
    pub(crate) id: String,
}

/// How deep a verification goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Objects are there and have their size
    Present,
    /// Stored bytes have their digests
    Digests,
    /// Decrypted and decompressed, plain bytes have their digests
    Decoded,
    /// Databases open and check, chains stand where the manifest says
    Contents,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The repository
    #[arg(value_name = "REPO", value_hint = ValueHint::DirPath)]
    pub(crate) repo: String,
    /// A backup's id, or `latest` (the default)
    #[arg(value_name = "ID", conflicts_with = "all")]
    pub(crate) id: Option<String>,
    /// Every backup
    #[arg(long)]
    pub(crate) all: bool,
    /// The public key that must have signed (file or text)
    #[arg(long, value_name = "FILE|KEY")]
    pub(crate) public_key: Vec<String>,
    /// The age identity that opens the objects
    #[arg(long, value_name = "AGE-IDENTITY-FILE", value_hint = ValueHint::FilePath)]
    pub(crate) identity: Option<PathBuf>,
    /// An earlier checkpoint of the repository's log that today's must extend
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) checkpoint: Option<PathBuf>,
    /// A secret at hand
    #[arg(long = "secret", value_name = "NAME=REF")]
    pub(crate) secrets: Vec<String>,
    /// How deep to look (default: contents for one backup, decoded for --all; as far as keys allow)
    #[arg(long, value_enum)]
    pub(crate) level: Option<Level>,
    /// Where databases are restored for a look inside (default: the system's temporary folder)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) scratch: Option<PathBuf>,
    /// Write no entry about this verification into the repository's log
    #[arg(long)]
    pub(crate) no_record: bool,
    /// Sign the log's entry about this verification
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) sign_with: Option<PathBuf>,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The repository
    #[arg(value_name = "REPO", value_hint = ValueHint::DirPath)]
    pub(crate) repo: String,
    /// A backup's id, or `latest`
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Where to: the database file, postgres://… for a server's database, or a folder for a folder
    #[arg(long, value_name = "TARGET")]
    pub(crate) to: String,
    /// Which object, where a backup has several (its name in `show`)
    #[arg(long, value_name = "NAME")]
    pub(crate) object: Option<String>,
    /// Only say what would happen
    #[arg(long)]
    pub(crate) plan: bool,
    /// A secret at hand: must be the one the backup was made with
    #[arg(long = "secret", value_name = "NAME=REF")]
    pub(crate) secrets: Vec<String>,
    /// The age identity that opens the objects
    #[arg(long, value_name = "AGE-IDENTITY-FILE", value_hint = ValueHint::FilePath)]
    pub(crate) identity: Option<PathBuf>,
    /// The public key that must have signed (file or text)
    #[arg(long, value_name = "FILE|KEY")]
    pub(crate) public_key: Vec<String>,
    /// A query that the restored database must answer with something but NULL, 0 or nothing, before the swap
    #[arg(long = "check", value_name = "SQL")]
    pub(crate) checks: Vec<String>,
    /// The folder of the deployed program's migrations: a backup that is newer is refused
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) migrations: Option<PathBuf>,
    /// The highest `schema_meta` version that the deployed program opens: a newer backup is refused
    #[arg(long, value_name = "N")]
    pub(crate) schema_version: Option<i64>,
    /// Restore although the backup's schema is newer than the deployed program
    #[arg(long)]
    pub(crate) allow_newer: bool,
    /// Restore although a migration in the backup is not the deployed program's
    #[arg(long)]
    pub(crate) allow_changed: bool,
    /// End the sessions on the live PostgreSQL database (by default the restore is refused while there are any)
    #[arg(long)]
    pub(crate) end_sessions: bool,
    #[command(flatten)]
    pub(crate) postgres: PostgresArguments,
    /// Restore although a migration in the backup failed half-way
    #[arg(long)]
    pub(crate) allow_dirty: bool,
    /// Who restores, for the record (default: the machine's name)
    #[arg(long, value_name = "WHO")]
    pub(crate) by: Option<String>,
    /// A checkpoint at which the chains stood before the restore, where the old database is lost or cannot be read
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "sign_with")]
    pub(crate) stood_at: Vec<PathBuf>,
    /// Sign the record of this restore, by which a later verification tells it from a rollback, and the log's entry
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) sign_with: Option<PathBuf>,
}

/// Arguments of `drill`.
#[derive(Debug, Args)]
pub(crate) struct Drill {
    /// The repository; with --plan a backup's id instead
    #[arg(value_name = "REPO", value_hint = ValueHint::DirPath, required_unless_present = "plan")]
    pub(crate) repo: Option<String>,
    /// A backup's id, or `latest` (the default)
    #[arg(value_name = "ID", conflicts_with = "plan")]
    pub(crate) id: Option<String>,
    /// Drill by this plan (docs/drill.md): its repository, keys, secrets, questions, smoke tests and reports
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["scratch", "checks", "identity", "public_key", "secrets", "sign_with"])]
    pub(crate) plan: Option<PathBuf>,
    /// Where to restore to (default: a temporary folder); removed afterwards
    #[arg(long, value_name = "URL|DIR")]
    pub(crate) scratch: Option<String>,
    /// A query that the restored database must answer with something but NULL, 0 or nothing
    #[arg(long = "check", value_name = "SQL")]
    pub(crate) checks: Vec<String>,
    /// Write the report to FILE.html, FILE.md or FILE.json, and its signature beside it where there is a key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) report: Option<PathBuf>,
    /// The age identity that opens the objects
    #[arg(long, value_name = "AGE-IDENTITY-FILE", value_hint = ValueHint::FilePath)]
    pub(crate) identity: Option<PathBuf>,
    /// The public key that must have signed (file or text)
    #[arg(long, value_name = "FILE|KEY")]
    pub(crate) public_key: Vec<String>,
    /// A secret at hand
    #[arg(long = "secret", value_name = "NAME=REF")]
    pub(crate) secrets: Vec<String>,
    /// Sign the log's entry about this drill
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) sign_with: Option<PathBuf>,
}

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// The repository
    #[arg(value_name = "REPO", value_hint = ValueHint::DirPath)]
    pub(crate) repo: String,
    /// Keep the newest N
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<u32>,
    /// Keep the newest of each of the last N days that have one
    #[arg(long, value_name = "N")]
    pub(crate) keep_daily: Option<u32>,
    /// Keep the newest of each of the last N weeks that have one
    #[arg(long, value_name = "N")]
    pub(crate) keep_weekly: Option<u32>,
    /// Keep the newest of each of the last N months that have one
    #[arg(long, value_name = "N")]
    pub(crate) keep_monthly: Option<u32>,
    /// Keep the newest of each of the last N years that have one
    #[arg(long, value_name = "N")]
    pub(crate) keep_yearly: Option<u32>,
    /// Keep all younger than AGE (36h, 14d, 8w, 6mo, 2y)
    #[arg(long, value_name = "AGE")]
    pub(crate) keep_within: Option<String>,
    /// Remove what the plan says
    #[arg(long)]
    pub(crate) apply: bool,
    /// The public key that counts: backups that it did not sign are neither counted nor removed
    #[arg(long, value_name = "FILE|KEY")]
    pub(crate) public_key: Vec<String>,
    /// Sign the log's entry
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) sign_with: Option<PathBuf>,
}

/// Arguments of `hold`.
#[derive(Debug, Args)]
pub(crate) struct Hold {
    /// The repository
    #[arg(value_name = "REPO", value_hint = ValueHint::DirPath)]
    pub(crate) repo: String,
    /// A backup's id, or `latest`
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Why it is kept
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    /// Let it go again
    #[arg(long)]
    pub(crate) release: bool,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The repository
    #[arg(value_name = "REPO", value_hint = ValueHint::DirPath)]
    pub(crate) repo: String,
    /// A backup's id, or `latest`
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The file to make: NAME.tar.gz or NAME.tar.zst
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: PathBuf,
    /// Sign the log's entry
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) sign_with: Option<PathBuf>,
}

/// Arguments of `checkpoint`.
#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    /// The repository
    #[arg(value_name = "REPO", value_hint = ValueHint::DirPath)]
    pub(crate) repo: String,
}

/// What every verb on chains takes.
#[derive(Debug, Args)]
pub(crate) struct ChainInput {
    /// A SQLite file, sqlite:PATH, postgres://…, a .ndjson, .jsonl, .json or .csv file, a dump directory, or - for NDJSON on standard input
    #[arg(value_name = "INPUT")]
    pub(crate) input: String,
    /// The chain's format, or a profile FILE.toml
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: String,
    /// The table, where it is not the format's own
    #[arg(long, value_name = "T")]
    pub(crate) table: Option<String>,
    /// A secret that keys the chain (repeat a NAME for a rotation)
    #[arg(long = "secret", value_name = "NAME=REF")]
    pub(crate) secrets: Vec<String>,
    /// A public key that may sign records (file or text)
    #[arg(long = "public-key", value_name = "F")]
    pub(crate) public_keys: Vec<String>,
    /// The digest of a key that vouches for the others
    #[arg(long = "trust-anchor", value_name = "sha256:HEX")]
    pub(crate) trust_anchors: Vec<String>,
    /// Threads that read and hash (default: one per core)
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<u32>,
    #[command(flatten)]
    pub(crate) postgres: PostgresArguments,
}

/// Arguments of `chain verify`.
#[derive(Debug, Args)]
pub(crate) struct ChainVerify {
    #[command(flatten)]
    pub(crate) input: ChainInput,
    #[command(flatten)]
    pub(crate) more: super::chain_more::ChainMore,
    /// An older copy of the rows: names each row that differs, and proves what is left where the oldest were removed on record
    #[arg(long, value_name = "INPUT")]
    pub(crate) earlier: Option<String>,
    /// List at most N chains where there are very many short ones (default: 10000)
    #[arg(long, value_name = "N")]
    pub(crate) max_chains: Option<std::num::NonZeroU32>,
    /// An earlier checkpoint that the chains must extend
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) checkpoint: Option<PathBuf>,
    /// The public key that must have signed the checkpoint (file or text)
    #[arg(long, value_name = "FILE|KEY", requires = "checkpoint")]
    pub(crate) checkpoint_key: Vec<String>,
    /// Records of restores (default: DATABASE.lineage beside a SQLite file); a key of --public-key, --checkpoint-key or --lineage-key must have signed them
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) lineage: Vec<PathBuf>,
    /// A public key that may sign records of restores (file or text)
    #[arg(long, value_name = "FILE|KEY")]
    pub(crate) lineage_key: Vec<String>,
}

/// Arguments of `chain checkpoint`.
#[derive(Debug, Args)]
pub(crate) struct ChainCheckpoint {
    #[command(flatten)]
    pub(crate) input: ChainInput,
    #[command(flatten)]
    pub(crate) more: super::chain_more::ChainMore,
    /// Sign the checkpoint with this key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) sign_with: Option<PathBuf>,
}

/// Arguments of `set-aside`.
#[derive(Debug, Args)]
pub(crate) struct SetAside {
    /// The restored database file
    #[arg(value_name = "TARGET", value_hint = ValueHint::FilePath)]
    pub(crate) target: PathBuf,
    /// Remove the files
    #[arg(long, conflicts_with = "archive")]
    pub(crate) remove: bool,
    /// Move the files into this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) archive: Option<PathBuf>,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}
