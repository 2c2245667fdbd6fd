//! The failures of PITFALLS.md 1 to 10 that a backup can meet, each by its number, and what else goes wrong with servers.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backup_core::context::{Cancel, Context};
use backup_core::error::ErrorKind;
use backup_core::repository::{LATEST, ReadOptions};
use backup_core::traits::{BackupObjects as _, Snapshot as _};
use backup_postgres::cluster::{ClusterOptions, ScratchCluster};
use backup_postgres::connect::Address;
use backup_postgres::tools::ToolOptions;
use backup_postgres::{Environment, PostgresSource, SourceOptions};

use crate::snapshot::{Store, source, source_with, stock_restore};
use crate::support::{Database, ask, cluster, execute, open, tools};

const SMALL: &str =
    "CREATE TABLE t(n int, x text); INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 100) n";

/// Makes a folder with a `pg_dump` of our own.
fn fake_pg_dump(script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let real = cluster().bin().display().to_string();
    let version = format!(
        "#!/bin/sh\ncase $1 in --version) echo 'pg_dump (PostgreSQL) {}.1'; exit;; esac\n",
        cluster().major()
    );
    let path = folder.path().join("pg_dump");
    std::fs::write(&path, version + &script.replace("REAL", &real)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// The address of a role on the shared server.
fn as_role(database: &Database, role: &str) -> PostgresSource {
    let folder = cluster().folder().display().to_string();
    let text = format!("host={folder} user={role} dbname={}", database.name);
    let options = SourceOptions { tools: tools(), ..SourceOptions::default() };
    PostgresSource::with_options(Address::parse(&text, &Environment::default()).unwrap(), options)
}

#[test]
fn pitfall_01_one_flipped_bit_in_a_stored_dump_is_never_read_as_good() {
    let database = Database::of(SMALL);
    let store = Store::new();
    let outcome = store.back_up(&source(&database), Vec::new()).unwrap();
    let path = outcome.path.join("database/db.dump.zst");
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by((whole.len() / 40).max(1)) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&path, &flipped).unwrap();
        let backup = store.repository.objects(LATEST, &ReadOptions::default(), &Context::new()).unwrap();
        let read = backup.open("database/db.dump").map_err(std::io::Error::from);
        let read = read.and_then(|mut object| std::io::copy(&mut object, &mut std::io::sink()));
        assert!(read.is_err(), "a flipped bit at byte {at} was read as good");
    }
}

#[test]
fn pitfall_02_a_truncated_dump_is_never_read_as_good() {
    let database = Database::of(SMALL);
    let store = Store::new();
    let outcome = store.back_up(&source(&database), Vec::new()).unwrap();
    let path = outcome.path.join("database/db.dump.zst");
    let whole = std::fs::read(&path).unwrap();
    for keep in [0, 1, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        let backup = store.repository.objects(LATEST, &ReadOptions::default(), &Context::new()).unwrap();
        let read = backup.open("database/db.dump").map_err(std::io::Error::from);
        let read = read.and_then(|mut object| std::io::copy(&mut object, &mut std::io::sink()));
        assert!(read.is_err(), "{keep} of {} bytes were read as good", whole.len());
    }
}

#[test]
fn pitfall_04_the_newest_tools_are_taken_and_a_newer_server_is_refused_with_the_line_that_installs_them() {
    let database = Database::of(SMALL);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pg_dump");
    std::fs::write(&path, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let store = Store::new();
    let old = ToolOptions { folder: Some(folder.path().to_owned()), path: None };
    let options = SourceOptions { tools: old, ..SourceOptions::default() };
    let error =
        store.back_up(&PostgresSource::with_options(database.address(), options), Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("9.6.24") && text.contains(&format!("PostgreSQL {}", cluster().major())), "{text}");
    let hint = error.hint().unwrap();
    assert!(hint.contains(&format!("apt-get install postgresql-client-{}", cluster().major())), "{hint}");
    store.assert_empty();
    // On the PATH the old one comes first; the newest that fits is taken all the same.
    let both = std::env::join_paths([folder.path(), cluster().bin()]).unwrap();
    let options =
        SourceOptions { tools: ToolOptions { folder: None, path: Some(both) }, ..SourceOptions::default() };
    store.back_up(&PostgresSource::with_options(database.address(), options), Vec::new()).unwrap();
}

#[test]
fn pitfall_05_a_dump_that_was_killed_failed_or_is_empty_leaves_nothing() {
    let database = Database::of(SMALL);
    for (script, words) in [
        ("REAL/pg_dump \"$@\" | head -c 700; kill -9 $$", "killed by signal 9"),
        ("REAL/pg_dump \"$@\"; echo 'pg_dump: error: half of it' >&2; exit 1", "half of it"),
        ("exit 0", "wrote no dump"),
        ("echo no dump at all", "wrote no dump"),
    ] {
        let folder = fake_pg_dump(script);
        let store = Store::new();
        let tools = ToolOptions { folder: Some(folder.path().to_owned()), path: None };
        let options = SourceOptions { tools, ..SourceOptions::default() };
        let error = store
            .back_up(&PostgresSource::with_options(database.address(), options), Vec::new())
            .unwrap_err();
        assert!(error.full_text().contains(words), "{script}: {}", error.full_text());
        store.assert_empty();
    }
}

#[test]
fn pitfall_06_a_role_that_would_see_a_filtered_database_is_refused_with_the_table() {
    let database = Database::of(
        "CREATE TABLE t(n int, tenant text); INSERT INTO t SELECT n, n % 10 FROM generate_series(1, 100) n;
         CREATE TABLE open(n int); CREATE ROLE p6_reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO p6_reader;
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (tenant = '1')",
    );
    let store = Store::new();
    let error = store.back_up(&as_role(&database, "p6_reader"), Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission);
    assert!(error.to_string().contains("public.t") && error.to_string().contains("p6_reader"), "{error}");
    assert_eq!(
        as_role(&database, "p6_reader").preflight(&Context::new()).unwrap_err().kind(),
        ErrorKind::Permission
    );
    store.assert_empty();
    // A table that the role may not read at all is named too.
    database.sql("ALTER TABLE t DISABLE ROW LEVEL SECURITY; REVOKE SELECT ON open FROM p6_reader");
    let error = store.back_up(&as_role(&database, "p6_reader"), Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission);
    assert!(error.to_string().contains("public.open"), "{error}");
    store.assert_empty();
    database.sql("GRANT SELECT ON open TO p6_reader");
    store.back_up(&as_role(&database, "p6_reader"), Vec::new()).unwrap();
}

#[test]
fn pitfall_06_a_policy_on_a_partitioned_parent_hides_nothing_from_a_chain() {
    use audit_chain::keys::KeyRing;
    use backup_core::traits::ChainVerify as _;
    let database = Database::of(
        "CREATE TABLE audit_events(id text, zone_id text, event_type text, request_id text, decision text, policy_set_id text,
         policy_set_version_id text, manifest_sha text, evaluation_status text, determining_policies_json jsonb, diagnostics_json jsonb,
         metadata_json jsonb, occurred_at timestamptz, ingested_at timestamptz, content_sha256 text, prev_content_sha256 text,
         chain_hmac text, chain_seq bigint, ingest_signature text) PARTITION BY RANGE (occurred_at);
         CREATE TABLE audit_events_default PARTITION OF audit_events DEFAULT;
         INSERT INTO audit_events(id, zone_id, occurred_at, content_sha256, chain_seq) SELECT n::text, 'z', now(), repeat('0', 64), n FROM generate_series(1, 5) n;
         CREATE ROLE p6_leaves LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO p6_leaves;
         ALTER TABLE audit_events ENABLE ROW LEVEL SECURITY;
         CREATE POLICY zone ON audit_events USING (current_setting('caracal.zone_id', true) IN ('*', zone_id))",
    );
    let request = crate::vectors::request("caracal", &KeyRing::new());
    // The partitions carry no policy: they are read instead of the table.
    let report = as_role(&database, "p6_leaves").verify_chain(&request, &Context::new()).unwrap();
    assert_eq!(report.records, 5);
    // With a policy on the partitions too, only the setting that it asks for opens them.
    database.sql(
        "ALTER TABLE audit_events_default ENABLE ROW LEVEL SECURITY;
         CREATE POLICY zone ON audit_events_default USING (current_setting('caracal.zone_id', true) IN ('*', zone_id))",
    );
    let error = as_role(&database, "p6_leaves").verify_chain(&request, &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    let mut allowed = as_role(&database, "p6_leaves");
    allowed.options.settings = vec![("caracal.zone_id".into(), "*".into())];
    assert_eq!(allowed.verify_chain(&request, &Context::new()).unwrap().records, 5);
}

#[test]
fn pitfall_07_an_exclusive_lock_elsewhere_ends_the_backup_with_a_clear_error() {
    let database = Database::of(SMALL);
    let mut holder = open(&database.address());
    holder.client().batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").unwrap();
    let store = Store::new();
    let options = SourceOptions { lock_timeout: Duration::from_millis(300), ..SourceOptions::default() };
    let begun = Instant::now();
    let error = store.back_up(&source_with(&database, options), Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{}", error.full_text());
    assert!(error.hint().unwrap().contains("ACCESS EXCLUSIVE"));
    assert!(begun.elapsed() < Duration::from_secs(30));
    store.assert_empty();
}

#[test]
fn pitfall_08_large_objects_are_in_and_what_is_not_is_listed() {
    let database = Database::of(
        "SELECT lo_from_bytea(0, '\\x00ff00ff'); CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE far(n int) SERVER s",
    );
    let store = Store::new();
    let outcome = store.back_up(&source(&database), Vec::new()).unwrap();
    stock_restore(&outcome, "database/db.dump.zst", "p8_restored");
    assert_eq!(
        ask("p8_restored", "SELECT string_agg(encode(data, 'hex'), '') FROM pg_largeobject"),
        "00ff00ff"
    );
    let listed = outcome.manifest.not_included.join("\n");
    for word in ["passwords of roles", "statistics", "1 foreign tables", "configuration", "committed after"] {
        assert!(listed.contains(word), "{word}: {listed}");
    }
}

#[test]
fn pitfall_09_the_collation_and_its_version_are_recorded() {
    let database = Database::new();
    let store = Store::new();
    let outcome = store.back_up(&source(&database), Vec::new()).unwrap();
    let details = &outcome.manifest.sources[0].details;
    assert_eq!(details["lc_collate"], "C");
    assert_eq!(details["locale_provider"], "libc");
    assert_eq!(details["encoding"], "UTF8");
    let icu = Database::with("TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'");
    let outcome = store.back_up(&source(&icu), Vec::new()).unwrap();
    let details = &outcome.manifest.sources[0].details;
    assert_eq!(details["locale_provider"], "icu");
    assert_eq!(details["collation_version"], icu.ask("SELECT pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = current_database()"));
}

#[test]
fn a_database_of_another_encoding_or_of_none_is_backed_up_as_it_is() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let database =
            Database::with(&format!("ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"));
        database.sql("CREATE TABLE t(x text); INSERT INTO t VALUES ('gr\u{fc}n'), (E'\\n\\t\\\\')");
        let store = Store::new();
        let outcome = store.back_up(&source(&database), Vec::new()).unwrap();
        let facts = &outcome.manifest.sources[0];
        assert_eq!((facts.details["encoding"].as_str(), facts.tables["public.t"]), (encoding, 2));
    }
}

#[test]
fn hostile_names_of_databases_schemas_and_tables_are_only_names() {
    let name = "odd \"db\" = 'x' \\ $(touch /tmp/attestore-pwned) --";
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    execute("postgres", &format!("CREATE DATABASE {quoted}"));
    let address = cluster().address("postgres").unwrap().with_database(name);
    let mut session = open(&address);
    session.client().batch_execute("CREATE SCHEMA \"a.b; DROP\"; CREATE TABLE \"a.b; DROP\".\"x'y\"\"z\"(\"c\td\" int); INSERT INTO \"a.b; DROP\".\"x'y\"\"z\" VALUES (1)").unwrap();
    let store = Store::new();
    let options = SourceOptions { tools: tools(), ..SourceOptions::default() };
    let outcome = store.back_up(&PostgresSource::with_options(address, options), Vec::new()).unwrap();
    assert_eq!(outcome.manifest.sources[0].tables.values().sum::<u64>(), 1);
    assert!(!Path::new("/tmp/attestore-pwned").exists());
    stock_restore(&outcome, "database/db.dump.zst", "hostile_restored");
}

#[test]
fn a_cancelled_backup_stops_at_once_and_leaves_nothing() {
    let database = Database::of(SMALL);
    let folder = fake_pg_dump("REAL/pg_dump \"$@\" | head -c 100; exec sleep 600");
    let tools = ToolOptions { folder: Some(folder.path().to_owned()), path: None };
    let options = SourceOptions { tools, ..SourceOptions::default() };
    let source = PostgresSource::with_options(database.address(), options);
    let cancel = Cancel::new();
    let ctx = Context::new().with_cancel(cancel.clone());
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        cancel.cancel();
    });
    let store = Store::new();
    let begun = Instant::now();
    let error = store.back_up_in(&source, Vec::new(), &ctx).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(20));
    stopper.join().unwrap();
    store.assert_empty();
}

#[test]
fn sessions_that_the_server_ends_fail_the_backup_and_leave_nothing() {
    let database = Database::of(
        "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 8) AS x FROM generate_series(1, 150000) n",
    );
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, name) = (Arc::clone(&stop), database.name.clone());
    let killer = std::thread::spawn(move || {
        let mut session = open(&cluster().address("postgres").unwrap());
        while !stopped.load(Ordering::Relaxed) {
            let sql = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND backend_start < clock_timestamp() - interval '50 ms'"
            );
            session.client().batch_execute(&sql).unwrap();
        }
    });
    let store = Store::new();
    let error = store.back_up(&source(&database), Vec::new());
    stop.store(true, Ordering::Relaxed);
    killer.join().unwrap();
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.full_text());
    store.assert_empty();
}

#[test]
fn a_standby_is_a_source_too() {
    let database = Database::of(&format!("{SMALL}; CREATE UNLOGGED TABLE fast AS SELECT 1 AS n"));
    let options = ClusterOptions {
        tools: tools(),
        standby_of: Some(cluster().address("postgres").unwrap()),
        // A standby wants at least what its primary has.
        settings: vec![
            ("max_connections".into(), "200".into()),
            ("max_prepared_transactions".into(), "4".into()),
        ],
        ..ClusterOptions::default()
    };
    let standby = ScratchCluster::start(&options, &Context::new()).unwrap();
    let address = standby.address(&database.name).unwrap();
    let options = SourceOptions { tools: tools(), ..SourceOptions::default() };
    let store = Store::new();
    let outcome = store.back_up(&PostgresSource::with_options(address, options), Vec::new()).unwrap();
    let facts = &outcome.manifest.sources[0];
    assert_eq!((facts.details["standby"].as_str(), facts.tables["public.t"]), ("yes", 100));
    assert!(
        outcome.manifest.not_included.iter().any(|line| line.contains("public.fast")),
        "{:?}",
        outcome.manifest.not_included
    );
    stock_restore(&outcome, "database/db.dump.zst", "from_standby");
    assert_eq!(ask("from_standby", "SELECT count(*) FROM t"), "100");
}
