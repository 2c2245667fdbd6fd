//! What stops a parallel dump: each fault named, nothing left in the repository.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backup_core::context::{Cancel, Context};
use backup_core::error::{Error, ErrorKind};
use backup_core::repository::{Repository, RepositoryOptions};
use backup_core::traits::BackupObjects as _;
use backup_postgres::cluster::{ClusterOptions, ScratchCluster};
use backup_postgres::parallel::{self, DumpRequest};
use backup_postgres::tools::ToolOptions;
use backup_postgres::{Address, Environment, SessionOptions, SnapshotSession};

use crate::parallel::{Parallel, latest, load, program, rows};
use crate::support::{Database, cluster, execute, open};

/// Some 20 MB in one table.
const LARGE: &str = "CREATE TABLE large (id int PRIMARY KEY, body text); \
    INSERT INTO large SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 30000) i";

/// Checks that a failed backup is not listed and has left nothing behind.
fn assert_nothing_left(folder: &Path) {
    let path = folder.join("repository");
    let repository = Repository::open(&path, &RepositoryOptions::default()).unwrap();
    assert_eq!(repository.list().unwrap().backups.len(), 0);
    let staged: Vec<_> = std::fs::read_dir(repository.layout().staging()).unwrap().collect();
    assert!(staged.is_empty(), "{staged:?}");
}

/// Backs up and expects a failure.
fn fails(dump: &Parallel, ctx: &Context) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let error = dump.back_up(folder.path(), Vec::new(), ctx).unwrap_err();
    assert_nothing_left(folder.path());
    error
}

/// A context whose first progress on the rows of a table does something, once.
fn at_first_rows(act: impl Fn() + Send + Sync + 'static) -> Context {
    let done = AtomicBool::new(false);
    Context::new().with_progress(move |progress| {
        if progress.object == "large" && !done.swap(true, Ordering::Relaxed) {
            act();
        }
    })
}

fn small_pieces(address: Address) -> Parallel {
    Parallel { jobs: 2, piece_bytes: 1 << 20, ..Parallel::new(address) }
}

#[test]
fn a_server_that_is_killed_mid_dump_is_told_and_nothing_is_left() {
    let options = ClusterOptions { tools: crate::support::tools(), ..ClusterOptions::default() };
    let own = ScratchCluster::start(&options, &Context::new()).unwrap();
    let address = own.address("postgres").unwrap();
    open(&address).client().batch_execute(LARGE).unwrap();
    let pid = std::fs::read_to_string(own.folder().join("data/postmaster.pid")).unwrap();
    let pid = pid.lines().next().unwrap().to_owned();
    let ctx = at_first_rows(move || {
        // QUIT ends the server's processes at once, as a crash would.
        assert!(Command::new("kill").args(["-QUIT", &pid]).status().unwrap().success());
        std::thread::sleep(Duration::from_millis(300));
    });
    let error = fails(&small_pieces(address), &ctx);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.full_text());
}

#[test]
fn a_connection_that_is_cut_mid_copy_is_told_with_the_table() {
    let database = Database::of(LARGE);
    let name = database.name.clone();
    let ctx = at_first_rows(move || {
        execute(
            "postgres",
            &format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND query LIKE 'COPY%'"
            ),
        );
    });
    let error = fails(&small_pieces(database.address()), &ctx);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.full_text());
    assert!(error.to_string().contains("public.large"), "{error}");
}

/// Puts a `pg_dump` into a folder that says its version and then does what the script says.
fn broken_pg_dump(folder: &Path, script: &str) -> ToolOptions {
    let path = folder.join("pg_dump");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec {0} --version\n{script}\n",
        program("pg_dump").display()
    );
    std::fs::write(&path, text.replace("REAL", &program("pg_dump").display().to_string())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    ToolOptions { folder: Some(folder.to_owned()), path: None }
}

#[test]
fn a_schema_dump_that_is_killed_or_cut_short_fails_the_backup() {
    let database = Database::of("CREATE TABLE t (a int)");
    let folder = tempfile::tempdir().unwrap();
    for (script, said) in [
        ("REAL \"$@\" | head -c 500; kill -9 $$", "signal 9"),
        ("REAL \"$@\"; echo 'disk on fire' >&2; exit 1", "disk on fire"),
        ("echo 'pg_dump: error: could not write: No space left on device' >&2; exit 1", "No space left"),
    ] {
        let tools = broken_pg_dump(folder.path(), script);
        let error = fails(&Parallel { tools, ..Parallel::new(database.address()) }, &Context::new());
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn a_lock_of_another_session_is_waited_for_and_then_named_with_its_holder() {
    let database = Database::of("CREATE TABLE quiet (a int); CREATE TABLE \"held fast\" (a int)");
    let mut holder = open(&database.address());
    holder
        .client()
        .batch_execute(
            "SET application_name = 'migration'; BEGIN; LOCK TABLE \"held fast\" IN ACCESS EXCLUSIVE MODE",
        )
        .unwrap();
    let mut dump = Parallel::new(database.address());
    dump.lock_timeout = Duration::from_millis(300);
    let begun = Instant::now();
    let error = fails(&dump, &Context::new());
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("public.held fast") && text.contains("migration") && text.contains("0.3 s"),
        "{text}"
    );
    // The lock is given back in time: the dump waits and goes on.
    dump.lock_timeout = Duration::from_secs(60);
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            holder.client().batch_execute("COMMIT").unwrap();
        });
        dump.back_up(folder.path(), Vec::new(), &Context::new()).unwrap();
    });
}

#[test]
fn timeouts_of_the_server_database_and_role_do_not_cut_a_dump() {
    let database = Database::of(LARGE);
    database.sql(&format!(
        "ALTER DATABASE {0} SET statement_timeout = '5ms'; ALTER DATABASE {0} SET idle_in_transaction_session_timeout = '5ms'",
        database.name
    ));
    let folder = tempfile::tempdir().unwrap();
    let dump = small_pieces(database.address());
    dump.back_up(folder.path(), Vec::new(), &Context::new()).unwrap();
    assert_eq!(rows(folder.path())["public.large"], 30_000);
}

#[test]
fn a_statement_that_somebody_cancels_fails_the_dump() {
    let database = Database::of(LARGE);
    let name = database.name.clone();
    let ctx = at_first_rows(move || {
        execute(
            "postgres",
            &format!(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND query LIKE 'COPY%'"
            ),
        );
    });
    // One piece of some 20 MB: the server is still sending when the first rows are told of.
    let error = fails(&Parallel { piece_bytes: 64 << 20, ..small_pieces(database.address()) }, &ctx);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.hint().unwrap().contains("cancelled"), "{error}");
}

/// Returns the address of a database for a role.
fn as_role(database: &Database, role: &str) -> Address {
    let text = format!("host={} user={role} dbname={}", cluster().folder().display(), database.name);
    Address::parse(&text, &Environment::default()).unwrap()
}

#[test]
fn a_role_that_may_not_read_something_is_told_before_a_byte_is_written() {
    let database = Database::of(
        "CREATE TABLE open (a int); CREATE TABLE closed (a int, b int); CREATE SEQUENCE hidden; CREATE SCHEMA shut; CREATE TABLE shut.inside (a int)",
    );
    let role = format!("low_{}", database.name);
    database.sql(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT ON open TO {role}; GRANT SELECT ON shut.inside TO {role}"
    ));
    let written = std::sync::Arc::new(AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&written);
    let ctx = Context::new().with_progress(move |progress| {
        if progress.stage == "store" {
            seen.store(true, Ordering::Relaxed);
        }
    });
    let dump = Parallel::new(as_role(&database, &role));
    let error = fails(&dump, &ctx);
    assert_eq!(error.kind(), ErrorKind::Permission);
    let text = error.to_string();
    for name in ["public.closed", "shut.inside", "public.hidden", &role] {
        assert!(text.contains(name), "{text}");
    }
    assert!(!written.load(Ordering::Relaxed));
    let rights = format!("GRANT SELECT ON closed, hidden TO {role}; GRANT USAGE ON SCHEMA shut TO {role}");
    database.sql(&rights);
    let folder = tempfile::tempdir().unwrap();
    dump.back_up(folder.path(), Vec::new(), &Context::new()).unwrap();
}

#[test]
fn a_role_that_policies_would_show_a_part_is_refused_with_the_table() {
    let database = Database::of(
        "CREATE TABLE secured (a int); INSERT INTO secured SELECT generate_series(1, 100); ALTER TABLE secured ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY part ON secured USING (a <= 10)",
    );
    let role = format!("seen_{}", database.name);
    database.sql(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON secured TO {role}"));
    let error = fails(&Parallel::new(as_role(&database, &role)), &Context::new());
    assert_eq!(error.kind(), ErrorKind::Permission);
    assert!(error.to_string().contains("public.secured"), "{error}");
    database.sql(&format!("ALTER ROLE {role} BYPASSRLS"));
    let folder = tempfile::tempdir().unwrap();
    let dump = Parallel::new(as_role(&database, &role));
    dump.back_up(folder.path(), Vec::new(), &Context::new()).unwrap();
    assert_eq!(rows(folder.path())["public.secured"], 100);
}

/// Sinks that must never be asked for anything.
struct NoSinks;

impl backup_core::traits::Sinks for NoSinks {
    fn object(
        &self,
        name: &str,
        _: Option<u64>,
    ) -> backup_core::error::Result<Box<dyn backup_core::traits::ObjectSink + '_>> {
        panic!("{name} is written");
    }

    fn scratch(&self) -> &Path {
        Path::new("/")
    }
}

/// Takes a snapshot, changes the database behind it, and dumps.
fn changed_behind(sql: &str) -> backup_postgres::Error {
    let database = Database::of("CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE TABLE u (a int)");
    let dump = Parallel::new(database.address());
    let ctx = Context::new();
    let mut session = SnapshotSession::open(&dump.address, &SessionOptions::default(), &ctx).unwrap();
    let pg_dump = dump.tools.find("pg_dump", session.version()).unwrap();
    database.sql(sql);
    let mut request = DumpRequest::new(&mut session, &pg_dump, "db", dump.options());
    parallel::dump(&mut request, &NoSinks, &ctx).unwrap_err()
}

#[test]
fn a_table_that_is_emptied_or_dropped_right_after_the_snapshot_is_not_stored_empty() {
    for (sql, said) in [
        ("TRUNCATE t", "public.t was emptied"),
        ("ALTER TABLE t ALTER a TYPE bigint", "public.t was emptied, rewritten"),
        ("VACUUM FULL t", "public.t was emptied, rewritten"),
        ("DROP TABLE u", "\"public.u\" does not exist"),
    ] {
        let error = changed_behind(sql);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{sql}: {error}");
        assert!(error.to_string().contains(said), "{sql}: {error}");
    }
}

#[test]
fn a_cancelled_dump_stops_and_leaves_nothing() {
    let database = Database::of(LARGE);
    let cancel = Cancel::new();
    let flag = cancel.clone();
    let ctx = at_first_rows(move || flag.cancel()).with_cancel(cancel);
    let error = fails(&small_pieces(database.address()), &ctx);
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
}

/// Dumps and restores a database of so many tables, and compares the count of rows.
fn many_tables(count: u32, settings: &[(&str, &str)]) {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = ClusterOptions { tools: crate::support::tools(), settings, ..ClusterOptions::default() };
    let own = ScratchCluster::start(&options, &Context::new()).unwrap();
    let mut connection = open(&own.address("postgres").unwrap());
    for name in ["many", "back"] {
        connection.client().batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    }
    let mut connection = open(&own.address("many").unwrap());
    for from in (0..count).step_by(500) {
        let to = (from + 500).min(count) - 1;
        connection
            .client()
            .batch_execute(&format!(
                "DO $$ BEGIN FOR i IN {from}..{to} LOOP EXECUTE format('CREATE TABLE t%s (a int); INSERT INTO t%s VALUES (%s)', i, i, i); END LOOP; END $$"
            ))
            .unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let dump = Parallel {
        file_bytes: 256 << 20,
        piece_bytes: 32 << 20,
        ..Parallel::new(own.address("many").unwrap())
    };
    dump.back_up(folder.path(), Vec::new(), &Context::new()).unwrap();
    let rows = rows(folder.path());
    assert_eq!((rows.len() as u32, rows.values().sum::<u64>()), (count, u64::from(count)));
    load(folder.path(), &own.address("back").unwrap(), &crate::support::tools()).unwrap();
    let toc = parallel::read_toc(&latest(folder.path()), "db").unwrap();
    assert_eq!(parallel::compare(&own.address("back").unwrap(), &toc, 3, &Context::new()).unwrap(), []);
    assert!(latest(folder.path()).manifest().objects.len() < 12, "few objects, however many tables");
}

#[test]
fn many_tables_are_few_objects_and_come_back() {
    // A thousand; a hundred thousand in the long run.
    let long = std::env::var_os("ATTESTORE_LONG").is_some();
    let (count, locks) = if long { (100_000, "4096") } else { (1_000, "256") };
    many_tables(count, &[("max_locks_per_transaction", locks)]);
}

#[test]
fn more_tables_than_the_server_has_locks_for_are_told_with_the_setting() {
    let settings = [("max_locks_per_transaction", "10"), ("max_connections", "5"), ("max_wal_senders", "0")];
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = ClusterOptions { tools: crate::support::tools(), settings, ..ClusterOptions::default() };
    let own = ScratchCluster::start(&options, &Context::new()).unwrap();
    let address = own.address("postgres").unwrap();
    let mut connection = open(&address);
    for from in 0..40 {
        let sql = format!(
            "DO $$ BEGIN FOR i IN {from}*100..{from}*100+99 LOOP EXECUTE format('CREATE TABLE t%s ()', i); END LOOP; END $$"
        );
        connection.client().batch_execute(&sql).unwrap();
    }
    let error = fails(&Parallel { jobs: 2, ..Parallel::new(address) }, &Context::new());
    assert!(error.hint().unwrap().contains("max_locks_per_transaction"), "{}", error.full_text());
}

#[test]
fn a_database_of_another_encoding_comes_back_byte_by_byte() {
    for (encoding, fill) in [
        ("LATIN1", "INSERT INTO t SELECT chr(i) FROM generate_series(1, 255) i"),
        (
            "SQL_ASCII",
            "INSERT INTO t SELECT convert_from(decode(lpad(to_hex(i), 2, '0'), 'hex'), 'SQL_ASCII') FROM generate_series(1, 255) i",
        ),
    ] {
        let words = format!("TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
        let source = Database::with(&words);
        source.sql("CREATE TABLE t (a text)");
        source.sql(fill);
        let folder = tempfile::tempdir().unwrap();
        Parallel::new(source.address()).back_up(folder.path(), Vec::new(), &Context::new()).unwrap();
        let (loaded, scripted) = (Database::with(&words), Database::with(&words));
        load(folder.path(), &loaded.address(), &crate::support::tools()).unwrap();
        crate::parallel::run_script(&crate::parallel::extract(folder.path()), &scripted.name, cluster())
            .unwrap();
        let digest = "SELECT md5(string_agg(encode(convert_to(a, current_setting('server_encoding')), 'hex'), ',' ORDER BY ascii(a), a)) || count(*) FROM t";
        let digest = if encoding == "SQL_ASCII" {
            "SELECT md5(string_agg(encode(a::bytea, 'hex'), ',' ORDER BY a)) || count(*) FROM (SELECT replace(a, '\\', '\\\\') AS a FROM t) t"
        } else {
            digest
        };
        let expected = source.ask(digest);
        assert_eq!(loaded.ask(digest), expected, "{encoding}");
        assert_eq!(scripted.ask(digest), expected, "{encoding}");
    }
}

#[test]
fn damage_to_a_stored_object_fails_the_load() {
    let source = Database::of(LARGE);
    let folder = tempfile::tempdir().unwrap();
    small_pieces(source.address()).back_up(folder.path(), Vec::new(), &Context::new()).unwrap();
    let path = latest(folder.path()).folder().join("database/db/data/00001.sql.zst");
    let good = std::fs::read(&path).unwrap();
    for spoil in
        [&(|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2)) as &dyn Fn(&mut Vec<u8>), &|bytes| {
            let at = bytes.len() / 3;
            bytes[at] ^= 1;
        }]
    {
        let mut bad = good.clone();
        spoil(&mut bad);
        std::fs::write(&path, bad).unwrap();
        let target = Database::with("TEMPLATE template0");
        let error = load(folder.path(), &target.address(), &crate::support::tools()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}
