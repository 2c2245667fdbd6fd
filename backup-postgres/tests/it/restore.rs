//! Restores: beside, proven, renamed; what fails leaves the live database as it was.

use audit_chain::keys::KeyRing;
use backup_core::context::Context;
use backup_core::error::ErrorKind;
use backup_core::repository::{LATEST, ReadOptions, StoredBackup};
use backup_core::traits::{Restore as _, RestoreOutcome};
use backup_postgres::{PostgresRestore, RestoreOptions};

use crate::snapshot::{Store, source};
use crate::support::{Database, ask, cluster, execute, open, tools};

const SHOP: &str = "CREATE TABLE t(id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, x text); INSERT INTO t(x) SELECT 'row ' || n FROM generate_series(1, 500) n;
    CREATE SEQUENCE s; SELECT setval('s', 99)";

fn stored(store: &Store) -> StoredBackup {
    store.repository.objects(LATEST, &ReadOptions::default(), &Context::new()).unwrap()
}

fn restore_to(name: &str, options: RestoreOptions) -> PostgresRestore {
    let options = RestoreOptions { tools: tools(), ..options };
    PostgresRestore::new(cluster().address("postgres").unwrap().with_database(name), options)
}

fn run(store: &Store, restore: &PostgresRestore) -> backup_core::error::Result<RestoreOutcome> {
    let backup = stored(store);
    let plan = restore.plan(&backup, &Context::new())?;
    restore.execute(&plan, &backup, &Context::new())
}

/// Lists the databases whose names begin so.
fn databases(prefix: &str) -> Vec<String> {
    let list = ask(
        "postgres",
        &format!(
            "SELECT coalesce(string_agg(datname, ',' ORDER BY datname), '') FROM pg_database WHERE starts_with(datname::text, '{prefix}')"
        ),
    );
    list.split(',').map(str::to_owned).collect()
}

#[test]
fn a_restore_is_proven_beside_and_renamed_and_can_be_rolled_back() {
    let database = Database::of(SHOP);
    database.sql(&format!("ALTER DATABASE {} SET search_path = shop, public", database.name));
    let store = Store::new();
    store.back_up(&source(&database), Vec::new()).unwrap();
    database.sql("DELETE FROM t WHERE id > 10; INSERT INTO t(x) VALUES ('newer')");
    let restore = restore_to(
        &database.name,
        RestoreOptions {
            checks: vec!["SELECT count(*) = 500 FROM public.t".into()],
            ..RestoreOptions::default()
        },
    );
    let plan = restore.plan(&stored(&store), &Context::new()).unwrap();
    assert!(plan.steps.iter().any(|step| step.contains("_bad_")), "{plan:?}");
    assert_eq!(database.ask("SELECT count(*) FROM public.t"), "11", "a plan changes nothing");
    let outcome = run(&store, &restore).unwrap();
    assert!(outcome.checks.iter().all(|check| check.ok) && outcome.checks.len() >= 2, "{outcome:?}");
    assert_eq!(database.ask("SELECT count(*) FROM public.t"), "500");
    assert_eq!(database.ask("SELECT last_value FROM public.s"), "99");
    assert_eq!(database.ask("SHOW search_path"), "shop, public");
    let bad = outcome.set_aside[0].display().to_string();
    assert_eq!(ask(&bad, "SELECT count(*) FROM public.t"), "11", "the old database is kept");
    assert_eq!(
        database.ask("SELECT (reltuples > 0)::text FROM pg_class WHERE relname = 't'"),
        "true",
        "ANALYZE has run"
    );
    let undone =
        backup_postgres::restore::rollback(&database.address(), &bad, false, &Context::new()).unwrap();
    assert_eq!(database.ask("SELECT count(*) FROM public.t"), "11");
    assert_eq!(databases(&format!("{}_", database.name)), [undone]);
}

#[test]
fn a_restore_is_refused_while_sessions_are_connected_unless_they_may_be_ended() {
    let database = Database::of(SHOP);
    let store = Store::new();
    store.back_up(&source(&database), Vec::new()).unwrap();
    let mut session = open(&database.address());
    let error = run(&store, &restore_to(&database.name, RestoreOptions::default())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    session.client().batch_execute("SELECT 1").unwrap();
    assert_eq!(databases(&format!("{}_", database.name)), [""], "nothing was made");
    let ending =
        restore_to(&database.name, RestoreOptions { end_sessions: true, ..RestoreOptions::default() });
    run(&store, &ending).unwrap();
    assert!(session.client().batch_execute("SELECT 1").is_err(), "the session was ended");
    assert_eq!(database.ask("SELECT count(*) FROM t"), "500");
}

#[test]
fn pitfall_02_and_03_a_restore_that_fails_leaves_the_live_database_and_nothing_else() {
    let database = Database::of(SHOP);
    let store = Store::new();
    let made = store.back_up(&source(&database), Vec::new()).unwrap();
    database.sql("INSERT INTO t(x) VALUES ('live')");
    let path = made.path.join("database/db.dump.zst");
    let whole = std::fs::read(&path).unwrap();
    let unharmed = |what: &str| {
        assert_eq!(database.ask("SELECT count(*) FROM t"), "501", "{what}");
        assert_eq!(databases(&format!("{}_", database.name)), [""], "{what}");
    };
    for keep in [whole.len() / 3, whole.len() - 2] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        let error = run(&store, &restore_to(&database.name, RestoreOptions::default())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.full_text());
        unharmed("truncated");
    }
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 4;
    std::fs::write(&path, &flipped).unwrap();
    run(&store, &restore_to(&database.name, RestoreOptions::default())).unwrap_err();
    unharmed("flipped");
    std::fs::write(&path, &whole).unwrap();
    let asking = RestoreOptions {
        checks: vec!["SELECT count(*) > 100000 FROM public.t".into()],
        ..RestoreOptions::default()
    };
    let error = run(&store, &restore_to(&database.name, asking)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    unharmed("a check that does not hold");
    // Owners that the server does not have fail a restore: nothing half-restored is swapped in.
    let owned = Database::of(
        "CREATE ROLE restore_owner; CREATE TABLE o(n int); ALTER TABLE o OWNER TO restore_owner",
    );
    let other = Store::new();
    other.back_up(&source(&owned), Vec::new()).unwrap();
    owned.sql("DROP TABLE o; DROP ROLE restore_owner");
    let error = run(&other, &restore_to(&database.name, RestoreOptions::default())).unwrap_err();
    assert!(error.full_text().contains("restore_owner"), "{}", error.full_text());
    unharmed("a missing role");
}

#[test]
fn a_restore_makes_a_database_that_is_not_there_and_sweeps_what_a_killed_one_left() {
    let database = Database::of(SHOP);
    let store = Store::new();
    store.back_up(&source(&database), Vec::new()).unwrap();
    let name = format!("{}new", database.name);
    execute("postgres", &format!("CREATE DATABASE {name}_restore_1700000000"));
    let outcome =
        run(&store, &restore_to(&name, RestoreOptions { keys: KeyRing::new(), ..RestoreOptions::default() }))
            .unwrap();
    assert!(outcome.set_aside.is_empty());
    assert_eq!(ask(&name, "SELECT count(*) FROM t"), "500");
    assert_eq!(databases(&name), [name]);
}

#[test]
fn a_role_without_superuser_restores_what_it_owns() {
    let database = Database::of(SHOP);
    let store = Store::new();
    store.back_up(&source(&database), Vec::new()).unwrap();
    execute("postgres", "CREATE ROLE restorer LOGIN CREATEDB; CREATE ROLE powerless LOGIN");
    let as_role = |role: &str| {
        let text = format!("host={} user={role} dbname={}_own", cluster().folder().display(), database.name);
        let address =
            backup_postgres::Address::parse(&text, &backup_postgres::Environment::default()).unwrap();
        PostgresRestore::new(address, RestoreOptions { tools: tools(), ..RestoreOptions::default() })
    };
    assert_eq!(run(&store, &as_role("powerless")).unwrap_err().kind(), ErrorKind::Permission);
    run(&store, &as_role("restorer")).unwrap();
    let name = format!("{}_own", database.name);
    assert_eq!(ask(&name, "SELECT tableowner FROM pg_tables WHERE tablename = 't'"), "restorer");
    // Again, over what is there now.
    assert_eq!(run(&store, &as_role("restorer")).unwrap().set_aside.len(), 1);
}
