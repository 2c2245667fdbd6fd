//! Drills: on the shared server, on a throwaway one, and what they leave behind.

use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use audit_chain::formats::native::Native;
use audit_chain::keys::KeyRing;
use backup_core::context::Context;
use backup_core::repository::{LATEST, ReadOptions};
use backup_core::traits::{BackupObjects as _, ChainRequest};
use backup_postgres::drill::{DrillOptions, Drilled, PREFIX, SqlQuestion, drill, sweep};
use backup_postgres::parallel::ParallelOptions;
use backup_postgres::{PostgresSource, SourceOptions};

use crate::chains_in_dump::chained;
use crate::snapshot::Store;
use crate::support::{Database, ask, cluster, open, tools};

const HOLD: &str = "ATTESTORE_TEST_DRILL";

fn chain(store: &Store) -> ChainRequest {
    let backup = store.repository.objects(LATEST, &ReadOptions::default(), &Context::new()).unwrap();
    let checkpoint = backup.manifest().chains.first().map(|entry| entry.points.clone());
    ChainRequest { format: Arc::new(Native), table: None, keys: KeyRing::default(), checkpoint, copy: false }
}

fn back_up(store: &Store, database: &Database, jobs: usize) -> String {
    let options = SourceOptions {
        tools: tools(),
        parallel: ParallelOptions { jobs, ..ParallelOptions::default() },
        ..SourceOptions::default()
    };
    let source = PostgresSource::with_options(database.address(), options);
    let request = ChainRequest {
        format: Arc::new(Native),
        table: None,
        keys: KeyRing::default(),
        checkpoint: None,
        copy: false,
    };
    store.back_up(&source, vec![request]).unwrap().manifest.sources[0].name.clone()
}

fn question(sql: &str, expected: Option<&str>) -> SqlQuestion {
    SqlQuestion { sql: sql.into(), expected: expected.map(str::to_owned) }
}

fn run(store: &Store, name: &str, options: &DrillOptions) -> Drilled {
    let backup = store.repository.objects(LATEST, &ReadOptions::default(), &Context::new()).unwrap();
    drill(&backup, name, options, &Context::new()).unwrap()
}

fn left() -> String {
    ask(
        "postgres",
        &format!(
            "SELECT count(*) FROM pg_database WHERE datname LIKE '{PREFIX}%' AND datname <> '{PREFIX}00000000000000aa'"
        ),
    )
}

#[test]
fn a_drill_proves_rows_chains_and_answers_on_a_given_server_and_on_a_throwaway_one() {
    let database = chained();
    database.sql("CREATE TABLE people (name text); INSERT INTO people VALUES ('a'), ('b')");
    for jobs in [1, 2] {
        let store = Store::new();
        let name = back_up(&store, &database, jobs);
        for server in [Some(cluster().address("postgres").unwrap()), None] {
            let options = DrillOptions {
                server,
                tools: tools(),
                jobs: 2,
                questions: vec![
                    question("SELECT count(*) FROM people", Some("2")),
                    question("SELECT name FROM people WHERE name = 'a'", None),
                ],
                chains: vec![chain(&store)],
                ..DrillOptions::default()
            };
            let done = run(&store, &name, &options);
            assert!(done.ok(), "{:#?}", done.checks);
            assert_eq!(done.chains.len(), 1);
            assert!(done.checks.len() >= 5 && done.timings.iter().any(|timing| timing.step == "restore"));
            assert_eq!(done.server.contains("throwaway"), options.server.is_none());
        }
    }
}

#[test]
fn a_drill_says_what_does_not_hold() {
    let database = chained();
    let store = Store::new();
    let name = back_up(&store, &database, 2);
    let options = DrillOptions {
        server: Some(cluster().address("postgres").unwrap()),
        tools: tools(),
        questions: vec![
            question("SELECT count(*) FROM attestore_chain", Some("7")),
            question("SELECT 0", None),
            question("SELECT nonsense", None),
            question("DROP TABLE attestore_chain", None),
        ],
        ..DrillOptions::default()
    };
    let done = run(&store, &name, &options);
    assert!(!done.ok());
    let bad: Vec<_> =
        done.checks.iter().filter(|check| !check.ok).map(|check| check.detail.as_str()).collect();
    assert_eq!(bad.len(), 4, "{bad:?}");
    assert!(bad[0].contains("expected 7, found 12000") && bad[3].contains("read-only"), "{bad:?}");
}

#[test]
fn the_database_of_a_drill_that_was_killed_is_dropped_by_the_next() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["drill::held_in_the_middle", "--exact", "--nocapture"])
        .env(HOLD, cluster().url("postgres"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    lines.by_ref().map_while(Result::ok).find(|line| line.contains("drill: held")).unwrap();
    let mut connection = open(&cluster().address("postgres").unwrap());
    // Its owner lives: it stays.
    sweep(&mut connection, &Context::new()).unwrap();
    let there = format!("SELECT count(*) FROM pg_database WHERE datname = '{PREFIX}00000000000000aa'");
    assert_eq!(ask("postgres", &there), "1");
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = std::time::Instant::now();
    while ask("postgres", &there) == "1" {
        // The server notices a moment later that the session is gone.
        assert!(begun.elapsed() < std::time::Duration::from_secs(30));
        sweep(&mut connection, &Context::new()).unwrap();
    }
    let _ = left();
}

/// What the test above kills; without its variable there is nothing to do.
#[test]
fn held_in_the_middle() {
    let Some(url) = std::env::var_os(HOLD) else { return };
    let address =
        backup_postgres::Address::parse(url.to_str().unwrap(), &backup_postgres::Environment::default())
            .unwrap();
    let mut connection = open(&address);
    let name = format!("{PREFIX}00000000000000aa");
    connection.client().query_one("SELECT pg_advisory_lock(hashtext($1))::text", &[&name]).unwrap();
    connection.client().batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    println!("drill: held");
    std::thread::sleep(std::time::Duration::from_secs(60));
}
