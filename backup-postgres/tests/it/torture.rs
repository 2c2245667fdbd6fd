//! A database of everything that dumps stumble over: dumped by the parallel mode and by stock `pg_dump`, restored by our loader, by
//! the generated script with stock tools, and by stock `pg_restore`; all compared object by object and row by row.

use backup_core::traits::BackupObjects as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use backup_core::context::Context;
use backup_postgres::cluster::ScratchCluster;
use backup_postgres::parallel;

use crate::compare::{assert_same, describe};
use crate::parallel::{Parallel, extract, latest, load, program_of, rows, run_script, stock, toc};
use crate::support::{Database, cluster};

const TORTURE: &str = include_str!("torture.sql");

/// Makes the torture schema in a database, statement by statement, as its script is meant to run.
pub(crate) fn fill(cluster: &ScratchCluster, database: &str) {
    let mut psql = Command::new(program_of(cluster, "psql"))
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", database])
        .env("PGHOST", cluster.folder())
        .env("PGUSER", "postgres")
        .env("PGCLIENTENCODING", "UTF8")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    psql.stdin.take().unwrap().write_all(TORTURE.as_bytes()).unwrap();
    assert!(psql.wait().unwrap().success());
}

/// Makes the roles that the schema names, once for the shared server.
pub(crate) fn roles() {
    crate::support::execute(
        "postgres",
        "DO $$ BEGIN PERFORM pg_advisory_xact_lock(7); \
         IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'torture_reader') THEN \
         CREATE ROLE \"torture owner\"; CREATE ROLE torture_reader LOGIN; END IF; END $$",
    );
}

fn torture() -> Database {
    roles();
    let database = Database::new();
    fill(cluster(), &database.name);
    database
}

fn target() -> Database {
    Database::with("TEMPLATE template0")
}

fn everything(_: &str) -> bool {
    false
}

#[test]
fn a_torture_schema_comes_back_by_both_ways_as_it_was_and_as_stock_tools_restore_it() {
    let source = torture();
    let folder = tempfile::tempdir().unwrap();
    let dump = Parallel::new(source.address());
    dump.back_up(folder.path(), Vec::new(), &Context::new()).unwrap();
    let (loaded, scripted, stocked) = (target(), target(), target());
    load(folder.path(), &loaded.address(), &crate::support::tools()).unwrap();
    run_script(&extract(folder.path()), &scripted.name, cluster()).unwrap();
    stock(&source.name, &stocked.name, cluster(), folder.path()).unwrap();
    let original = describe(&source.address(), &everything);
    assert!(original.len() > 450, "only {} lines describe the torture schema", original.len());
    assert_same("stock tools", &original, &describe(&stocked.address(), &everything));
    assert_same("the loader", &original, &describe(&loaded.address(), &everything));
    assert_same("the script", &original, &describe(&scripted.address(), &everything));
    // The table of contents knows the restored rows again, and a changed one not.
    let toc = toc(folder.path());
    let differs = parallel::compare(&loaded.address(), &toc, 2, &Context::new()).unwrap();
    assert_eq!(differs, []);
    loaded.sql("UPDATE public.hen SET egg = 20 WHERE id = 1; SELECT lo_put(70002, 1, '\\x00')");
    let differs = parallel::compare(&loaded.address(), &toc, 2, &Context::new()).unwrap();
    let named: Vec<_> = differs.iter().map(|differs| differs.what.as_str()).collect();
    assert_eq!(named, ["\"public\".\"hen\"", "large objects"]);
}

#[test]
fn facts_count_the_rows_of_every_table() {
    let source = torture();
    let folder = tempfile::tempdir().unwrap();
    let dump = Parallel::new(source.address());
    dump.back_up(folder.path(), Vec::new(), &Context::new()).unwrap();
    let rows = rows(folder.path());
    assert_eq!(rows["public.no_columns"], 2);
    assert_eq!(rows["public.parent"], 1);
    assert_eq!(rows["public.child"], 1);
    assert_eq!(rows["public.secured"], 3);
    assert_eq!(rows["public.no_rows"], 0);
    assert_eq!(rows["public.by_mood_0"] + rows["public.by_mood_1"] + rows["public.by_mood_2"], 25);
    // Without their quotes these two are spelt alike.
    assert_eq!((rows["\"select\".\"a.b\""], rows["\"select.a\".b"]), (1, 2));
    assert_eq!(rows["public.events"].to_string(), source.ask("SELECT count(*) FROM public.events"));
    let files = latest(folder.path()).manifest().objects.len();
    assert!(files > 6, "the small limit made only {files} objects");
}

#[test]
fn a_dump_is_of_one_instant_while_rows_come_and_go() {
    let source = Database::of(
        "CREATE TABLE a (n int); CREATE TABLE b (n int); INSERT INTO a SELECT generate_series(1, 20000); INSERT INTO b SELECT n FROM a",
    );
    let stop = std::sync::atomic::AtomicBool::new(false);
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = crate::support::open(&source.address());
            let mut n = 20_000;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                connection
                    .client()
                    .batch_execute(&format!(
                        "BEGIN; INSERT INTO a VALUES ({n}); DELETE FROM b WHERE n = {n} - 20000; INSERT INTO b VALUES ({n}); DELETE FROM a WHERE n = {n} - 20000; COMMIT"
                    ))
                    .unwrap();
            }
        });
        for _ in 0..3 {
            let dump = Parallel::new(source.address());
            dump.back_up(folder.path(), Vec::new(), &Context::new()).unwrap();
            let toc = toc(folder.path());
            let (a, b) = (&toc.tables["\"public\".\"a\""], &toc.tables["\"public\".\"b\""]);
            assert_eq!((a.rows, &a.sum), (20_000, &b.sum));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
