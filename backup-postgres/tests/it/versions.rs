//! Servers and programs of several versions: Debian's, and 16 and 18 where `scripts/fetch-postgres.sh` has put them.

use std::path::PathBuf;
use std::sync::OnceLock;

use backup_core::context::Context;
use backup_core::error::ErrorKind;
use backup_postgres::cluster::{ClusterOptions, ScratchCluster};
use backup_postgres::parallel;
use backup_postgres::tools::ToolOptions;

use crate::compare::{assert_same, describe};
use crate::parallel::{Parallel, extract, latest, load, run_script, toc};
use crate::support::open;

/// Returns the folder of a fetched version's programs; a test that lacks it counts as left out.
pub(crate) fn bin(major: u32, test: &str) -> Option<PathBuf> {
    let named = std::env::var_os("ATTESTORE_POSTGRES").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/attestore-postgres"));
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map(|cache| PathBuf::from(cache).join("attestore-postgres"));
    let folders = [named, Some("/var/cache/attestore-postgres".into()), cache, home];
    let found = folders
        .into_iter()
        .flatten()
        .map(|folder| folder.join(format!("{major}/bin")))
        .find(|bin| bin.join("postgres").exists());
    if found.is_none() {
        println!("left out: {test} (PostgreSQL {major} is not here; scripts/fetch-postgres.sh fetches it)");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI wants PostgreSQL {major}");
    }
    found
}

pub(crate) fn only(bin: &std::path::Path) -> ToolOptions {
    ToolOptions { folder: Some(bin.to_owned()), path: None }
}

fn start(bin: &std::path::Path, settings: &[(&str, &str)]) -> ScratchCluster {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = ClusterOptions { tools: only(bin), settings, ..ClusterOptions::default() };
    ScratchCluster::start(&options, &Context::new()).unwrap()
}

/// The server of version 18 that the tests share.
fn eighteen(test: &str) -> Option<&'static ScratchCluster> {
    static CLUSTER: OnceLock<ScratchCluster> = OnceLock::new();
    let bin = bin(18, test)?;
    Some(CLUSTER.get_or_init(|| start(&bin, &[])))
}

const ROLES: &str = "CREATE ROLE \"torture owner\"; CREATE ROLE torture_reader LOGIN";

/// What versions may say differently of the same object.
fn spelt_by_version(line: &str) -> bool {
    // Since 18 NOT NULL is a constraint with a name; the columns say it too.
    line.starts_with("constraint: ") && line.contains(": NOT NULL ")
}

#[test]
fn a_torture_schema_of_16_and_18_comes_back_on_the_same_version() {
    for major in [16, 18] {
        let Some(bin) = bin(major, "a_torture_schema_of_16_and_18_comes_back_on_the_same_version") else {
            continue;
        };
        let own = start(&bin, &[]);
        let run = |database: &str, sql: &str| {
            open(&own.address(database).unwrap())
                .client()
                .batch_execute(sql)
                .unwrap_or_else(|error| panic!("{major}: {error:?}"));
        };
        run("postgres", ROLES);
        for name in ["source", "loaded", "scripted"] {
            run("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
        }
        crate::torture::fill(&own, "source");
        if major >= 18 {
            run(
                "source",
                "DROP EVENT TRIGGER \"no \"\"ddl\"\"\"; CREATE TABLE public.virtual (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL, c int NOT NULL DEFAULT 3); INSERT INTO public.virtual (a) VALUES (1), (2)",
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let dump = Parallel { tools: only(&bin), ..Parallel::new(own.address("source").unwrap()) };
        dump.back_up(folder.path(), Vec::new(), &Context::new()).unwrap();
        load(folder.path(), &own.address("loaded").unwrap(), &only(&bin)).unwrap();
        run_script(&extract(folder.path()), "scripted", &own).unwrap();
        let original = describe(&own.address("source").unwrap(), &|_| false);
        assert_same("the loader", &original, &describe(&own.address("loaded").unwrap(), &|_| false));
        assert_same("the script", &original, &describe(&own.address("scripted").unwrap(), &|_| false));
    }
}

#[test]
fn an_older_server_is_dumped_with_newer_programs_and_restored_on_the_newer_server() {
    const NAME: &str = "an_older_server_is_dumped_with_newer_programs_and_restored_on_the_newer_server";
    let Some(newer) = eighteen(NAME) else { return };
    crate::torture::roles();
    let source = crate::support::Database::new();
    crate::torture::fill(crate::support::cluster(), &source.name);
    // The newer server's build has no libxml.
    source.sql("DELETE FROM public.documents");
    for sql in [ROLES, "CREATE DATABASE upgraded TEMPLATE template0"] {
        for statement in sql.split("; ") {
            open(&newer.address("postgres").unwrap()).client().batch_execute(statement).unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let tools = only(newer.bin());
    let dump = Parallel { tools: tools.clone(), ..Parallel::new(source.address()) };
    dump.back_up(folder.path(), Vec::new(), &Context::new()).unwrap();
    let target = newer.address("upgraded").unwrap();
    load(folder.path(), &target, &tools).unwrap();
    let toc = parallel::read_toc(&latest(folder.path()), "db").unwrap();
    assert_eq!(parallel::compare(&target, &toc, 2, &Context::new()).unwrap(), []);
    let rows = |lines: std::collections::BTreeSet<String>| -> std::collections::BTreeSet<String> {
        lines
            .into_iter()
            .filter(|line| line.starts_with("rows of ") || line.starts_with("large object"))
            .collect()
    };
    let (original, upgraded) =
        (describe(&source.address(), &spelt_by_version), describe(&target, &spelt_by_version));
    // Large objects' rights have one spelling more; their bytes are compared above too.
    assert_same("rows", &rows(original), &rows(upgraded));
}

#[test]
fn a_newer_server_is_refused_by_older_programs_with_both_versions() {
    let Some(newer) = eighteen("a_newer_server_is_refused_by_older_programs_with_both_versions") else {
        return;
    };
    let tools = ToolOptions {
        folder: Some(crate::parallel::program("pg_dump").parent().unwrap().to_owned()),
        path: None,
    };
    if crate::support::cluster().major() >= 18 {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dump = Parallel { tools, ..Parallel::new(newer.address("postgres").unwrap()) };
    let error = dump.back_up(folder.path(), Vec::new(), &Context::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    let older = crate::support::cluster().major().to_string();
    assert!(text.contains("18.") && text.contains(&format!("{older}.")), "{text}");
    assert!(error.hint().unwrap().contains("18"), "{error}");
}

/// An extension with a configuration table of which some rows are its own, and a sequence.
const EXTENSION: &str =
    "CREATE TABLE settings (name text PRIMARY KEY, value text, standard boolean DEFAULT false);
INSERT INTO settings VALUES ('built in', '1', true);
CREATE SEQUENCE numbers;
CREATE TABLE private_cache (a int);
INSERT INTO private_cache VALUES (1);
SELECT pg_extension_config_dump('settings', 'WHERE NOT standard');
SELECT pg_extension_config_dump('numbers', '');
";

#[test]
fn configuration_tables_of_extensions_come_back_without_what_the_extension_brings() {
    const NAME: &str = "configuration_tables_of_extensions_come_back_without_what_the_extension_brings";
    let Some(bin) = bin(18, NAME) else { return };
    let folder = tempfile::Builder::new().prefix("ext").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let extensions = folder.path().join("extension");
    std::fs::create_dir(&extensions).unwrap();
    std::fs::set_permissions(&extensions, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(extensions.join("ours.control"), "default_version = '1'\nrelocatable = true\n").unwrap();
    std::fs::write(extensions.join("ours--1.sql"), EXTENSION).unwrap();
    let path = format!("{}:$system", folder.path().display());
    let own = start(&bin, &[("extension_control_path", &path)]);
    let run = |database: &str, sql: &str| {
        open(&own.address(database).unwrap()).client().batch_execute(sql).unwrap();
    };
    for name in ["source", "loaded", "scripted"] {
        run("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
    }
    run(
        "source",
        "CREATE SCHEMA s; CREATE EXTENSION ours SCHEMA s; INSERT INTO s.settings VALUES ('mine', '2'), ('yours', NULL); \
         SELECT nextval('s.numbers'), nextval('s.numbers'); UPDATE s.settings SET value = 'changed' WHERE standard; INSERT INTO s.private_cache VALUES (2)",
    );
    let backup = tempfile::tempdir().unwrap();
    let dump = Parallel { tools: only(&bin), ..Parallel::new(own.address("source").unwrap()) };
    dump.back_up(backup.path(), Vec::new(), &Context::new()).unwrap();
    assert_eq!(toc(backup.path()).tables["\"s\".\"settings\""].rows, 2);
    load(backup.path(), &own.address("loaded").unwrap(), &only(&bin)).unwrap();
    run_script(&extract(backup.path()), "scripted", &own).unwrap();
    for name in ["loaded", "scripted"] {
        let row = open(&own.address(name).unwrap())
            .client()
            .query_one("SELECT (SELECT string_agg(name || '=' || coalesce(value, '?'), ' ' ORDER BY name) FROM s.settings), (SELECT last_value FROM s.numbers), (SELECT count(*) FROM s.private_cache)", &[])
            .unwrap();
        assert_eq!(
            (row.get::<_, String>(0).as_str(), row.get::<_, i64>(1), row.get::<_, i64>(2)),
            ("built in=1 mine=2 yours=?", 2, 1),
            "{name}"
        );
    }
}
