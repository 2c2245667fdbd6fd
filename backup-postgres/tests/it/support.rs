//! A server shared by the tests of this binary, and databases of their own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use backup_core::context::Context;
use backup_postgres::cluster::{ClusterOptions, ScratchCluster};
use backup_postgres::tools::ToolOptions;
use backup_postgres::{Address, Connection, SessionOptions};

/// Returns where PostgreSQL's programs are looked for.
pub(crate) fn tools() -> ToolOptions {
    ToolOptions { folder: None, path: std::env::var_os("PATH") }
}

/// Returns the server that the tests share. It ends with this process.
pub(crate) fn cluster() -> &'static ScratchCluster {
    static CLUSTER: OnceLock<ScratchCluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let settings =
            [("max_prepared_transactions", "4"), ("wal_level", "replica"), ("max_connections", "200")];
        let options = ClusterOptions {
            tools: tools(),
            settings: settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            ..ClusterOptions::default()
        };
        ScratchCluster::start(&options, &Context::new()).unwrap()
    })
}

/// A database of one test on the shared server.
pub(crate) struct Database {
    pub(crate) name: String,
}

impl Database {
    /// Makes an empty database.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// Makes a database with more words behind `CREATE DATABASE name`.
    pub(crate) fn with(words: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        execute("postgres", &format!("CREATE DATABASE {name} {words}"));
        Self { name }
    }

    /// Makes a database with this content.
    pub(crate) fn of(sql: &str) -> Self {
        let made = Self::new();
        made.sql(sql);
        made
    }

    pub(crate) fn address(&self) -> Address {
        cluster().address(&self.name).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        cluster().url(&self.name)
    }

    /// Runs SQL as the superuser.
    pub(crate) fn sql(&self, sql: &str) {
        execute(&self.name, sql);
    }

    /// Answers a query with its only value, as text.
    pub(crate) fn ask(&self, sql: &str) -> String {
        ask(&self.name, sql)
    }
}

/// Opens a session that may write.
pub(crate) fn open(address: &Address) -> Connection {
    let options = SessionOptions { read_only: false, row_security: true, ..SessionOptions::default() };
    Connection::open(address, &options, &Context::new()).unwrap()
}

/// Runs SQL in a database as the superuser.
pub(crate) fn execute(database: &str, sql: &str) {
    let mut connection = open(&cluster().address(database).unwrap());
    connection.client().batch_execute(sql).unwrap_or_else(|error| panic!("{error:?} in {sql}"));
}

/// Answers a query with its only value, as text; NULL is `NULL`.
pub(crate) fn ask(database: &str, sql: &str) -> String {
    let mut connection = open(&cluster().address(database).unwrap());
    let rows = connection.client().simple_query(sql).unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    let value = rows.iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    value.unwrap_or_default()
}

/// Says that a test is left out; under CI that is a failure.
pub(crate) fn left_out(test: &str, why: &str) {
    println!("left out: {test} ({why})");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} is left out: {why}");
}

/// Runs `psql` on a database of the shared server.
pub(crate) fn psql(database: &str, arguments: &[&str], input: &str) {
    use std::io::Write as _;
    let mut child = std::process::Command::new(cluster().bin().join("psql"))
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &cluster().url(database)])
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
