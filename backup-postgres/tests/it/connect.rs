//! Addresses and sessions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::context::{Cancel, Context};
use backup_postgres::error::ErrorKind;
use backup_postgres::{Address, Connection, Environment, SessionOptions, SnapshotSession};

use crate::support::{Database, cluster, execute};

fn open(text: &str, environment: &Environment) -> backup_postgres::Result<Connection> {
    Connection::open(&Address::parse(text, environment)?, &SessionOptions::default(), &Context::new())
}

fn value(connection: &mut Connection, sql: &str) -> String {
    connection.client().query_one(sql, &[]).unwrap().get(0)
}

#[test]
fn the_environment_reaches_a_server_by_variables_service_and_socket() {
    let database = Database::new();
    let folder = cluster().folder().display().to_string();
    let mut environment = Environment::default();
    for (name, value) in [("PGHOST", folder.as_str()), ("PGUSER", "postgres"), ("PGDATABASE", &database.name)]
    {
        environment.variables.insert(name.into(), value.into());
    }
    let mut connection = open("postgres://", &environment).unwrap();
    assert_eq!(value(&mut connection, "SELECT current_database()::text"), database.name);
    let services = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        services.path(),
        format!("[app]\nhost={folder}\nuser=postgres\ndbname={}\n", database.name),
    )
    .unwrap();
    let text = format!("postgres:service=app servicefile={}", services.path().display());
    let mut connection = open(&text, &Environment::default()).unwrap();
    assert_eq!(value(&mut connection, "SELECT current_database()::text"), database.name);
}

#[test]
fn a_server_that_is_not_there_is_unavailable_and_a_missing_database_is_not_found() {
    let nowhere =
        open("postgres://u:hunter2@127.0.0.1:1/d?connect_timeout=2", &Environment::default()).unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::Unavailable);
    assert!(nowhere.hint().is_some() && !format!("{nowhere} {nowhere:?}").contains("hunter2"), "{nowhere}");
    let missing = open(&cluster().url("no_such_database"), &Environment::default()).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("no_such_database"), "{missing}");
}

#[test]
fn the_first_server_that_answers_is_taken_and_its_programs_are_sent_there() {
    let database = Database::new();
    let folder = cluster().folder().display().to_string();
    let text = format!("host=/nonexistent,{folder} user=postgres dbname={}", database.name);
    let connection = open(&text, &Environment::default()).unwrap();
    let host = connection.tool_environment().into_iter().rfind(|(name, _)| *name == "PGHOST").unwrap().1;
    assert_eq!(host.unwrap().to_str().unwrap(), folder);
    let wrong_kind =
        format!("host={folder} user=postgres dbname={} target_session_attrs=standby", database.name);
    assert_eq!(open(&wrong_kind, &Environment::default()).unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_session_is_independent_of_the_settings_of_server_database_and_role() {
    let database = Database::new();
    database.sql(&format!(
        "ALTER DATABASE {0} SET timezone = 'Asia/Tokyo'; ALTER DATABASE {0} SET datestyle = 'German'; \
         ALTER DATABASE {0} SET statement_timeout = '1ms'; ALTER DATABASE {0} SET bytea_output = 'escape'",
        database.name
    ));
    let mut connection = open(&database.url(), &Environment::default()).unwrap();
    let text = "SELECT '2026-11-20 12:00:00.5+00'::timestamptz::text || '\\x00ff'::bytea::text || pg_sleep(0.02)::text";
    assert_eq!(value(&mut connection, text), "2026-11-20 12:00:00.5+00\\x00ff");
    let options = SessionOptions {
        settings: vec![("caracal.zone_id".into(), "*".into())],
        ..SessionOptions::default()
    };
    let mut connection = Connection::open(&database.address(), &options, &Context::new()).unwrap();
    assert_eq!(value(&mut connection, "SELECT current_setting('caracal.zone_id')"), "*");
    assert!(connection.client().batch_execute("CREATE TABLE t()").is_err(), "the session may write");
}

#[test]
fn a_cancelled_step_ends_on_the_server_too() {
    let database = Database::new();
    let cancel = Cancel::new();
    let ctx = Context::new().with_cancel(cancel.clone());
    let mut connection = Connection::open(&database.address(), &SessionOptions::default(), &ctx).unwrap();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        cancel.cancel();
    });
    let begun = Instant::now();
    let error =
        connection.run("sleep in", &ctx, |client| client.batch_execute("SELECT pg_sleep(60)")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(20));
    stopper.join().unwrap();
    // The same session is free again at once: the server stopped the query.
    assert_eq!(connection.client().query_one("SELECT 1", &[]).unwrap().get::<_, i32>(0), 1);
}

#[test]
fn every_connection_of_a_session_sees_the_same_instant() {
    let database = Database::of("CREATE TABLE t(n int); INSERT INTO t VALUES (1)");
    let ctx = Context::new();
    let session = SnapshotSession::open(&database.address(), &SessionOptions::default(), &ctx).unwrap();
    database.sql("INSERT INTO t VALUES (2)");
    let joiner = Arc::new(session.joiner().clone());
    let counts: Vec<i64> = (0..3)
        .map(|_| {
            let joiner = Arc::clone(&joiner);
            std::thread::spawn(move || {
                let mut connection = joiner.join(&Context::new()).unwrap();
                connection.client().query_one("SELECT count(*) FROM public.t", &[]).unwrap().get(0)
            })
        })
        .map(|thread| thread.join().unwrap())
        .collect();
    assert_eq!(counts, [1, 1, 1]);
    assert_eq!(database.ask("SELECT count(*) FROM t"), "2");
}

#[test]
fn a_password_is_asked_for_and_found_in_its_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let options =
        backup_postgres::cluster::ClusterOptions { tools: crate::support::tools(), ..Default::default() };
    let own = backup_postgres::cluster::ScratchCluster::start(&options, &Context::new()).unwrap();
    let mut connection = crate::support::open(&own.address("postgres").unwrap());
    connection.client().batch_execute("CREATE ROLE app LOGIN PASSWORD 'hunter2 with \" and '''").unwrap();
    let hba = own.folder().join("data/pg_hba.conf");
    std::fs::write(&hba, "local all postgres trust\nlocal all all scram-sha-256\n").unwrap();
    connection.client().batch_execute("SELECT pg_reload_conf()").unwrap();
    let folder = own.folder().display().to_string();
    let text = format!("host={folder} user=app dbname=postgres");
    let begun = Instant::now();
    let error = loop {
        match open(&text, &Environment::default()) {
            Err(error) => break error,
            Ok(_) if begun.elapsed() < Duration::from_secs(10) => {}
            Ok(_) => panic!("the server still asks for no password"),
        }
    };
    assert_eq!(error.kind(), ErrorKind::Permission);
    assert!(error.hint().unwrap().contains("PGPASSFILE"), "{error:?}");
    let wrong = open(&format!("{text} password=wrong"), &Environment::default()).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Permission);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{folder}:5432:postgres:app:hunter2 with \" and '\n")).unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let connection =
        open(&format!("{text} passfile={}", file.path().display()), &Environment::default()).unwrap();
    assert!(!format!("{connection:?}").contains("hunter2"));
    drop(connection);
    // Programs get it in their environment, never as an argument.
    let environment = connection_environment(&text, file.path());
    assert!(environment.iter().any(|(name, value)| *name == "PGPASSWORD" && value.is_some()));
    execute("postgres", "SELECT 1");
}

fn connection_environment(
    text: &str,
    file: &std::path::Path,
) -> Vec<(&'static str, Option<std::ffi::OsString>)> {
    let connection = open(&format!("{text} passfile={}", file.display()), &Environment::default()).unwrap();
    connection.tool_environment()
}
