//! PostgreSQL through the command line, on a throwaway server that the tests of this module share.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use attestore::{Context, ErrorKind};
use backup_postgres::cluster::{ClusterOptions, ScratchCluster};
use backup_postgres::tools::ToolOptions;
use backup_postgres::{Connection, SessionOptions};

use crate::support::{World, receipts};

fn cluster() -> &'static ScratchCluster {
    static CLUSTER: OnceLock<ScratchCluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let tools = ToolOptions { folder: None, path: std::env::var_os("PATH") };
        ScratchCluster::start(&ClusterOptions { tools, ..ClusterOptions::default() }, &Context::new())
            .unwrap()
    })
}

fn execute(database: &str, sql: &str) {
    let options = SessionOptions { read_only: false, ..SessionOptions::default() };
    let address = cluster().address(database).unwrap();
    Connection::open(&address, &options, &Context::new()).unwrap().client().batch_execute(sql).unwrap();
}

/// Makes a database with this content; returns its URL.
fn database(sql: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("cli{}", COUNT.fetch_add(1, Ordering::Relaxed));
    execute("postgres", &format!("CREATE DATABASE {name}"));
    execute(&name, sql);
    cluster().url(&name)
}

const USERS: &str = "CREATE TABLE users(id int PRIMARY KEY, name text); INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 50) n";

#[test]
fn a_postgres_database_is_backed_up_shown_and_verified() {
    let url = database(USERS);
    let world = World::new();
    world.run(["init", "repo"]).good();
    let made = world.json(0, ["backup", &url, "--to", "repo", "--name", "one"]);
    assert_eq!(made["sources"][0]["kind"], "postgres");
    assert_eq!(made["sources"][0]["tables"]["public.users"], 50);
    let names: Vec<&str> =
        made["objects"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    for name in ["database/db.dump.zst", "database/db.inventory.json.zst", "database/db.globals.sql.zst"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let shown = world.run(["show", "repo", "latest"]).good();
    assert!(shown.out.contains("database/db.dump.zst"), "{}", shown.out);
    world.run(["verify", "repo", "--all"]).good();
    // Again, beside a SQLite file: each object has its source's name.
    receipts(&world.path("app.db"), &[("alpha", 3)], None);
    let both =
        world.json(0, ["backup", &format!("main={url}"), "app.db", "--to", "repo", "--chain", "aegisagent"]);
    let text = both["objects"].to_string();
    assert!(text.contains("database/main.dump.zst") && text.contains("database/app.db.zst"), "{text}");
    assert_eq!(both["chains"][0]["verdict"], "intact");
}

#[test]
fn the_environment_names_the_server_and_no_password_is_ever_shown() {
    let url = database(USERS);
    let name = url.rsplit('/').next().unwrap();
    let world = World::new();
    world.run(["init", "repo"]).good();
    let mut command = world.command(["backup", "postgres://", "--to", "repo", "--json"]);
    command
        .env("PGHOST", cluster().folder())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", name)
        .env("PGPASSWORD", "hunter2");
    let run: crate::support::Run = command.output().unwrap().into();
    assert_eq!(run.json()["sources"][0]["name"], name);
    let manifest = std::fs::read_dir(world.path("repo/backups"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
        .join("manifest.json");
    assert!(!std::fs::read_to_string(manifest).unwrap().contains("hunter2"));
    let refused = world.fails(
        ErrorKind::Unavailable,
        ["backup", "postgres://u:hunter2@127.0.0.1:1/d?connect_timeout=2", "--to", "repo"],
    );
    assert!(!format!("{refused:?}").contains("hunter2"));
}

#[test]
fn what_is_wrong_with_a_server_ends_with_its_status() {
    let url = database(USERS);
    let world = World::new();
    world.run(["init", "repo"]).good();
    let missing = url.replace("/cli", "/no_such_cli");
    world.fails(ErrorKind::NotFound, ["backup", &missing, "--to", "repo"]);
    world.fails(ErrorKind::NotFound, ["backup", &url, "--to", "repo", "--chain", "caracal"]);
    world.fails(ErrorKind::NotFound, ["chain", "verify", &url, "--format", "z4j"]);
    world.fails(ErrorKind::Malformed, ["chain", "verify", &url, "--format", "z4j", "--table", "users"]);
    world.fails(ErrorKind::InvalidInput, ["backup", "postgres://h/d?sslmode=maybe", "--to", "repo"]);
    let tool = world.path("pg_dump");
    std::fs::write(&tool, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n").unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let old = world.fails(ErrorKind::Unavailable, ["backup", &url, "--to", "repo", "--pg-bin", "."]);
    assert!(format!("{old:?}").contains("apt-get install postgresql-client-"), "{old:?}");
    assert!(std::fs::read_dir(world.path("repo/backups")).map_or(0, |found| found.count()) == 0);
}

#[test]
fn a_chain_in_a_server_is_verified_checkpointed_and_backed_up() {
    let Some(folder) = std::env::var_os("ATTESTORE_VECTORS").map(std::path::PathBuf::from) else {
        println!(
            "left out: a_chain_in_a_server_is_verified_checkpointed_and_backed_up (ATTESTORE_VECTORS is not set)"
        );
        assert!(std::env::var("CI").as_deref() != Ok("true"));
        return;
    };
    let folder = folder.join("caracal");
    let url = database(&std::fs::read_to_string(folder.join("schema.sql")).unwrap());
    let rows = folder.join("valid/audit_events.copy.sql");
    let loaded = std::process::Command::new(cluster().bin().join("psql"))
        .args(["-X", "-q", "-d", &url, "-f"])
        .arg(rows)
        .output()
        .unwrap();
    assert!(loaded.status.success(), "{loaded:?}");
    let name = url.rsplit('/').next().unwrap();
    execute(name, "INSERT INTO audit_chain_rehash DEFAULT VALUES");
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("valid/EXPECTED.json")).unwrap()).unwrap();
    let world = World::new();
    world.write("hmac.key", expected["hmac_key_hex_used"].as_str().unwrap());
    world.run(["init", "repo"]).good();
    let secret = ["--secret", "AUDIT_HMAC_KEY=file:hmac.key"];
    let report = world.json(0, [&["chain", "verify", &url, "--format", "caracal"][..], &secret].concat());
    assert_eq!((report["verdict"].as_str(), report["records"].as_u64()), (Some("intact"), Some(50)));
    let note =
        world.run([&["chain", "checkpoint", &url, "--format", "caracal"][..], &secret].concat()).good();
    world.write("before.checkpoint", &note.out);
    let made = world.json(0, [&["backup", &url, "--to", "repo", "--chain", "caracal"][..], &secret].concat());
    assert_eq!(made["chains"][0]["verdict"], "intact");
    world
        .run(
            [&["chain", "export", &url, "--format", "caracal", "--out", "rows.ndjson"][..], &secret].concat(),
        )
        .good();
    execute(name, "UPDATE audit_events SET decision = 'deny' WHERE chain_seq = 13 AND zone_id LIKE '%a'");
    let verify = ["chain", "verify", &url, "--format", "caracal", "--checkpoint", "before.checkpoint"];
    let report = world.json(1, [&verify[..], &secret].concat());
    assert_eq!(report["findings"][0]["kind"], "edited");
    let exported =
        world.json(0, [&["chain", "verify", "rows.ndjson", "--format", "caracal"][..], &secret].concat());
    assert_eq!(exported["records"], 50);
}

#[test]
fn a_backup_by_several_connections_is_drilled_on_a_named_server_and_on_a_throwaway_one() {
    let url = database(USERS);
    let world = World::new();
    world.run(["init", "repo"]).good();
    let made = world.json(0, ["backup", &url, "--to", "repo", "--jobs", "2"]);
    assert_eq!(made["sources"][0]["tables"]["public.users"], 50);
    assert!(made["objects"].to_string().contains("database/db/restore.sh"), "{made}");
    world.run(["verify", "repo", "--all"]).good();
    let check = "SELECT count(*) = 50 FROM users";
    for scratch in [Some(cluster().url("postgres")), None] {
        let mut arguments = vec!["drill", "repo", "latest", "--check", check];
        arguments.extend(scratch.iter().flat_map(|url| ["--scratch", url.as_str()]));
        let report = world.json(0, arguments);
        let text = report.to_string();
        assert!(text.contains("rows and digests of every table") && text.contains(check), "{text}");
    }
    // What does not hold is told, by exit status too.
    let report = world.json(1, ["drill", "repo", "latest", "--check", "SELECT count(*) = 7 FROM users"]);
    assert_eq!(report["ok"], false);
}

#[test]
fn a_postgres_database_is_restored_beside_and_renamed() {
    let url = database(USERS);
    let name = url.rsplit('/').next().unwrap().to_owned();
    let world = World::new();
    world.run(["init", "repo"]).good();
    world.run(["backup", &url, "--to", "repo"]).good();
    execute(&name, "DELETE FROM users");
    let plan = world.json(0, ["restore", "repo", "latest", "--to", &url, "--plan"]);
    assert!(plan["plan"]["steps"].to_string().contains("_bad_"), "{plan}");
    assert_eq!(count(&name), 0);
    world.fails(
        ErrorKind::Mismatch,
        ["restore", "repo", "latest", "--to", &url, "--check", "SELECT count(*) > 50 FROM users"],
    );
    assert_eq!(count(&name), 0);
    let holder =
        Connection::open(&cluster().address(&name).unwrap(), &SessionOptions::default(), &Context::new())
            .unwrap();
    world.fails(ErrorKind::InUse, ["restore", "repo", "latest", "--to", &url]);
    drop(holder);
    let done = world
        .json(0, ["restore", "repo", "latest", "--to", &url, "--check", "SELECT count(*) = 50 FROM users"]);
    assert!(done["set_aside"][0].as_str().unwrap().starts_with(&format!("{name}_bad_")), "{done}");
    assert_eq!(count(&name), 50);
}

fn count(name: &str) -> i64 {
    let address = cluster().address(name).unwrap();
    let mut connection = Connection::open(&address, &SessionOptions::default(), &Context::new()).unwrap();
    connection.client().query_one("SELECT count(*) FROM public.users", &[]).unwrap().get(0)
}
