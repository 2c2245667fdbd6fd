//! What every test of the command line needs: the built program, a scratch folder, databases with real chains.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ed25519_dalek::{Signer as _, SigningKey};
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) use attestore::ErrorKind;

/// Returns the program with arguments; standard input is empty.
pub(crate) fn attestore<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attestore"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let run = Self {
            // A run that a signal ended is no run that this program ended.
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert!(!run.err.contains("panicked"), "{run:?}");
        run
    }
}

impl Run {
    /// Asserts the exit status.
    #[track_caller]
    pub(crate) fn ends(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.out, self.err);
        self
    }

    /// Asserts that all is well and nothing stands on standard error.
    #[track_caller]
    pub(crate) fn good(self) -> Self {
        let run = self.ends(0);
        assert_eq!(run.err, "");
        run
    }

    /// Returns the one JSON document on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.err, "", "{}", self.out);
        assert!(self.out.ends_with("}\n"), "{}", self.out);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// Returns the JSON error on standard error; nothing stands on standard output.
    #[track_caller]
    pub(crate) fn json_error(&self) -> Value {
        assert_eq!(self.out, "", "{}", self.err);
        let document: Value =
            serde_json::from_str(&self.err).unwrap_or_else(|error| panic!("{error}: {}", self.err));
        let mut keys: Vec<_> = document["error"].as_object().unwrap().keys().collect();
        keys.sort_unstable();
        assert_eq!(keys, ["code", "hint", "kind", "message"]);
        assert_eq!(document.as_object().unwrap().len(), 1);
        document["error"].clone()
    }
}

/// A scratch folder in which the program runs, so that relative names and messages are what a person sees.
pub(crate) struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// Makes an empty one.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("cli-").tempdir().unwrap() }
    }

    /// Makes one with `app.db` (two tenants' receipts, 6 and 3), `backup.key` and the repository `repo`.
    pub(crate) fn ready() -> Self {
        let world = Self::new();
        receipts(&world.path("app.db"), &[("alpha", 6), ("beta", 3)], None);
        world.run(["keygen", "--out", "backup.key"]).good();
        world.run(["init", "repo"]).good();
        world
    }

    /// Makes one like [`World::ready`] with a signed backup `one` of `app.db` and its chain.
    pub(crate) fn with_backup() -> Self {
        let world = Self::ready();
        world.backup("one").good();
        world
    }

    /// Makes a signed backup of `app.db` with its chain.
    pub(crate) fn backup(&self, name: &str) -> Run {
        self.run([
            "backup",
            "app.db",
            "--to",
            "repo",
            "--chain",
            "aegisagent",
            "--sign-with",
            "backup.key",
            "--name",
            name,
        ])
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Opens a database in it.
    pub(crate) fn open(&self, name: &str) -> Connection {
        Connection::open(self.path(name)).unwrap()
    }

    /// Runs SQL on a database in it.
    pub(crate) fn sql(&self, name: &str, sql: &str) {
        self.open(name).execute_batch(sql).unwrap();
    }

    /// Returns the program, to be run in this folder.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = attestore(arguments);
        command.current_dir(self.root());
        command
    }

    /// Returns what makes the program run in this folder by a shell that did `first` (`ulimit …`, `mount …`).
    pub(crate) fn limited(&self, first: &str) -> impl Fn(&[&str]) -> Command + 'static {
        let (root, script) = (self.root().to_owned(), format!("{first} && exec \"$0\" \"$@\""));
        move |arguments| {
            let mut command = Command::new("sh");
            command.args(["-c", &script]).arg(env!("CARGO_BIN_EXE_attestore")).args(arguments);
            command.current_dir(&root).stdin(Stdio::null());
            command
        }
    }

    /// Runs the program in this folder.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs with `--json` and returns the document; the run must end with `status`.
    #[track_caller]
    pub(crate) fn json<A: AsRef<OsStr>>(&self, status: i32, arguments: impl IntoIterator<Item = A>) -> Value {
        let mut command = self.command(arguments);
        Run::from(command.arg("--json").output().unwrap()).ends(status).json()
    }

    /// Runs once for people and once with `--json`: both fail with this kind, its status and its code, say so on
    /// standard error only, and in the same words. Returns message and hint in one line.
    #[track_caller]
    pub(crate) fn fails<A: AsRef<OsStr> + Clone>(
        &self,
        kind: ErrorKind,
        arguments: impl IntoIterator<Item = A> + Clone,
    ) -> String {
        fails(kind, || self.command(arguments.clone()))
    }
}

/// As [`World::fails`], for a command that is made anew each time.
#[track_caller]
pub(crate) fn fails(kind: ErrorKind, command: impl Fn() -> Command) -> String {
    let run = Run::from(command().output().unwrap()).ends(i32::from(kind.exit_status()));
    assert_eq!(run.out, "", "{}", run.err);
    let error =
        Run::from(command().arg("--json").output().unwrap()).ends(i32::from(kind.exit_status())).json_error();
    assert_eq!(
        (error["code"].as_str(), error["kind"].as_str()),
        (Some(kind.code()), Some(kind.name())),
        "{error}"
    );
    let message = error["message"].as_str().unwrap();
    assert!(!message.ends_with('.') || message.ends_with("..."), "{message}");
    let hint = format!("\nHINT: {}", error["hint"].as_str().unwrap());
    if run.err.starts_with("attestore: ") {
        let json = format!("attestore: {message}{hint}");
        assert_eq!(
            without_random_names(run.err.trim_end()),
            without_random_names(&json),
            "the two forms say the same"
        );
    }
    format!("{message}{}", hint.replace('\n', " "))
}

/// Replaces the 16 hexadecimal digits of names that are made for one run.
fn without_random_names(text: &str) -> String {
    let mut words: Vec<_> = text.split(['.', '/', '-', ' ']).collect();
    for word in &mut words {
        if word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            *word = "random";
        }
    }
    words.join(" ")
}

/// Returns every file below a folder, sorted, relative to it.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inside) = folders.pop() {
        for entry in std::fs::read_dir(&inside).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    found.sort_unstable();
    found
}

/// Copies a folder with everything in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(&file);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(from.join(&file), target).unwrap();
    }
    // Empty folders are part of a repository too.
    for folder in ["backups", "staging"] {
        std::fs::create_dir_all(to.join(folder)).unwrap();
    }
}

/// The 14 members of a receipt that AegisAgent hashes, besides the link (scheme `aegis-jcs-1`).
const MEMBERS: [&str; 12] = [
    "id",
    "ts",
    "agent_id",
    "user_id",
    "run_id",
    "trace_id",
    "tool",
    "action",
    "resource",
    "source_trust",
    "decision",
    "approver",
];

/// Makes a database with a chain of receipts per tenant, as AegisAgent hashes them. Independent of the code under
/// test: `serde_json` with sorted keys and raw UTF-8 spells the scheme of these values.
pub(crate) fn receipts(path: &Path, tenants: &[(&str, u64)], key: Option<&SigningKey>) {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE tenants(id TEXT PRIMARY KEY);
             CREATE TABLE action_receipts(id TEXT PRIMARY KEY, tenant_id TEXT NOT NULL REFERENCES tenants(id),
               decision_id TEXT, ts TEXT NOT NULL, agent_id TEXT, user_id TEXT, run_id TEXT, trace_id TEXT, tool TEXT,
               action TEXT, resource TEXT, source_trust TEXT NOT NULL, decision TEXT NOT NULL, approver TEXT,
               action_hash TEXT, prev_receipt_hash TEXT NOT NULL, receipt_hash TEXT NOT NULL,
               canon_version TEXT NOT NULL DEFAULT '', signature TEXT, signer_public_key TEXT,
               created_at DATETIME NOT NULL, signer_key_id TEXT);
             CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT);
             INSERT INTO notes(text) VALUES ('first');",
        )
        .unwrap();
    for (tenant, count) in tenants {
        connection.execute("INSERT INTO tenants VALUES(?1)", [tenant]).unwrap();
        append_receipts(&connection, tenant, 1, *count, key);
    }
}

/// Appends receipts `from..=to` to a tenant's chain.
pub(crate) fn append_receipts(
    connection: &Connection,
    tenant: &str,
    from: u64,
    to: u64,
    key: Option<&SigningKey>,
) {
    let mut prev: String = connection
        .query_row(
            "SELECT receipt_hash FROM action_receipts WHERE tenant_id = ?1 ORDER BY rowid DESC LIMIT 1",
            [tenant],
            |row| row.get(0),
        )
        .unwrap_or_default();
    for number in from..=to {
        let time = format!("2026-06-{:02}T12:00:00+00:00", number % 28 + 1);
        let mut row = Map::new();
        for member in MEMBERS {
            row.insert(member.into(), json!(format!("{member} {tenant} ü {number}")));
        }
        row.insert("id".into(), json!(format!("{tenant}-{number}")));
        row.insert("ts".into(), json!(time));
        row.insert("approver".into(), Value::Null);
        row.insert("action_hash".into(), Value::Null);
        row.insert("prev_receipt_hash".into(), json!(prev));
        let hash = receipt_hash(&row);
        let signature = key.map(|key| hex::encode(key.sign(hash.as_bytes()).to_bytes()));
        let signer = key.map(|key| hex::encode(key.verifying_key().as_bytes()));
        row.insert("tenant_id".into(), json!(tenant));
        row.insert("receipt_hash".into(), json!(hash));
        row.insert("signature".into(), json!(signature));
        row.insert("signer_public_key".into(), json!(signer));
        row.insert("created_at".into(), json!(format!("2026-06-01 12:00:{:02}", number % 60)));
        let names: Vec<_> = row.keys().cloned().collect();
        let places: Vec<_> = (1..=names.len()).map(|place| format!("?{place}")).collect();
        let sql = format!("INSERT INTO action_receipts({}) VALUES({})", names.join(","), places.join(","));
        let values = row.values().map(|value| value.as_str().map(str::to_owned));
        connection.execute(&sql, rusqlite::params_from_iter(values)).unwrap();
        prev = hash;
    }
}

/// Hashes and links a tenant's receipts anew from the first on, as one who edited them would, and signs them with a key.
pub(crate) fn rechain(connection: &Connection, tenant: &str, key: Option<&SigningKey>) {
    let names: Vec<_> = MEMBERS.into_iter().chain(["action_hash"]).collect();
    let sql = format!("SELECT {} FROM action_receipts WHERE tenant_id = ?1 ORDER BY rowid", names.join(","));
    let mut statement = connection.prepare(&sql).unwrap();
    let rows: Vec<Map<String, Value>> = statement
        .query_map([tenant], |row| {
            Ok(names
                .iter()
                .enumerate()
                .map(|(at, name)| ((*name).to_owned(), json!(row.get_unwrap::<_, Option<String>>(at))))
                .collect())
        })
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut prev = String::new();
    for mut row in rows {
        row.insert("prev_receipt_hash".into(), json!(prev));
        let hash = receipt_hash(&row);
        connection
            .execute(
                "UPDATE action_receipts SET prev_receipt_hash = ?1, receipt_hash = ?2, signature = ?3, signer_public_key = ?4 WHERE id = ?5",
                (
                    &prev,
                    &hash,
                    key.map(|key| hex::encode(key.sign(hash.as_bytes()).to_bytes())),
                    key.map(|key| hex::encode(key.verifying_key().as_bytes())),
                    row["id"].as_str().unwrap(),
                ),
            )
            .unwrap();
        prev = hash;
    }
}

/// Hashes a receipt: SHA-256 over its 14 members, `id` under the name `event_id`.
pub(crate) fn receipt_hash(row: &Map<String, Value>) -> String {
    let mut hashed = Map::new();
    for member in MEMBERS.into_iter().chain(["action_hash", "prev_receipt_hash"]) {
        let name = if member == "id" { "event_id" } else { member };
        hashed.insert(name.into(), row[member].clone());
    }
    // serde_json's map is sorted by key.
    hex::encode(Sha256::digest(serde_json::to_string(&hashed).unwrap()))
}

/// Returns a file or folder of the vectors; `None`, said aloud, when there are none (a failure where `CI` is `true`).
pub(crate) fn vectors(test: &str, path: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("ATTESTORE_VECTORS") else {
        left_out(test, "ATTESTORE_VECTORS is not set");
        return None;
    };
    let path = PathBuf::from(folder).join(path);
    assert!(path.exists(), "{} does not exist", path.display());
    Some(path)
}

/// Says that a test cannot run here; in CI that is a failure.
#[track_caller]
pub(crate) fn left_out(test: &str, why: &str) {
    println!("left out: {test} ({why})");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} may not be left out in CI: {why}");
}

/// Returns the strings of a JSON array.
#[track_caller]
pub(crate) fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect()
}
