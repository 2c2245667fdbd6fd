//! Every kind of error, provoked through the command line: its code, its kind, its exit status, its hint.
//!
//! The table is `audit_chain::error_kinds!`. [`Kind`] is made of it, so that a kind that is added there and is not
//! provoked here does not compile.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::{ErrorKind, World, attestore, fails};

macro_rules! kinds {
    ($($(#[$meaning:meta])* $kind:ident $code:literal $status:literal $advice:literal;)*) => {
        /// The kinds of the table, for a match that forgets none.
        #[derive(Debug, Clone, Copy)]
        enum Kind {
            $($kind,)*
        }

        const TABLE: &[(Kind, ErrorKind, &str, &str, u8)] =
            &[$((Kind::$kind, ErrorKind::$kind, stringify!($kind), $code, $status)),*];
    };
}

audit_chain::error_kinds!(kinds);

/// How a kind is provoked.
enum Provoked {
    /// By these arguments, in a folder with a repository, a backup and a key.
    By(&'static [&'static str]),
    /// By this command.
    With(Box<dyn Fn() -> Command>),
    /// From outside by nothing that is known: why, and where it is tested.
    NotFromOutside(&'static str),
}

use Provoked::{By, NotFromOutside, With};

/// Says how to provoke a kind. `world` has the repository `repo` with the backup `one`, `app.db`, `backup.key`.
fn provocation(kind: Kind, world: &World) -> Provoked {
    match kind {
        Kind::NotFound => By(&["show", "repo", "two"]),
        Kind::AlreadyExists => By(&["keygen", "--out", "backup.key"]),
        Kind::InvalidName => By(&["backup", "app.db", "--to", "repo", "--name", "../x"]),
        Kind::InvalidInput => By(&["prune", "repo", "--keep-last", "0"]),
        Kind::Malformed => By(&["chain", "verify", "text.ndjson", "--format", "native"]),
        Kind::Locked => By(&["backup", "app.db", "--to", "locked"]),
        Kind::InUse => By(&["restore", "repo", "one", "--to", "open.db"]),
        Kind::Newer => By(&["list", "newer"]),
        Kind::Incompatible => By(&["restore", "repo", "dirty", "--to", "new.db"]),
        Kind::Unsupported => By(&["backup", "mysql://h/d", "--to", "repo"]),
        Kind::Unavailable => {
            let limited = world.limited("ulimit -n 4");
            With(Box::new(move || limited(&["verify", "repo"])))
        }
        Kind::Permission => By(&["backup", "app.db", "--to", "repo", "--sign-with", "open.key"]),
        Kind::NoSpace => {
            let root = world.root().to_owned();
            With(Box::new(move || {
                let mut command = attestore(["list", "repo"]);
                let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
                command.current_dir(&root).stdout(full);
                command
            }))
        }
        Kind::Corrupt => By(&["export", "damaged", "one", "--out", "x.tar.gz"]),
        Kind::Tampered => {
            By(&["backup", "edited.db", "--to", "repo", "--chain", "aegisagent", "--refuse-findings"])
        }
        Kind::KeyRejected => By(&["restore", "repo", "one", "--to", "x.db", "--public-key", "other.key.pub"]),
        Kind::Unsigned => By(&["restore", "repo", "bare", "--to", "x.db", "--public-key", "backup.key.pub"]),
        Kind::Mismatch => By(&["restore", "repo", "one", "--to", "x.db", "--check", "SELECT 0"]),
        // SIGINT while a check runs that never ends.
        Kind::Cancelled => {
            let root = world.root().to_owned();
            With(Box::new(move || {
                let mut command = Command::new("timeout");
                command
                    .args(["--foreground", "--preserve-status", "--signal=INT", "1"])
                    .arg(env!("CARGO_BIN_EXE_attestore"));
                command.args(["restore", "repo", "one", "--to", "x.db", "--check", ENDLESS]);
                command.current_dir(&root);
                command
            }))
        }
        // A process's own memory cannot be read from its first byte: the system answers EIO.
        Kind::Io => By(&["chain", "verify", "failing.ndjson", "--format", "native"]),
        Kind::Internal => {
            NotFromOutside("a defect of this program; cli::guard tests that a panic becomes it")
        }
    }
}

/// A question without an end.
pub(crate) const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

#[test]
fn every_kind_of_error_is_provoked_with_its_code_status_and_hint() {
    let world = World::with_backup();
    world.run(["backup", "app.db", "--to", "repo", "--name", "bare"]).good();
    world.run(["keygen", "--out", "other.key"]).good();
    world.write("text.ndjson", "hello\n");
    std::os::unix::fs::symlink("/proc/self/mem", world.path("failing.ndjson")).unwrap();
    world.write("open.key", world.read("backup.key"));
    fs::set_permissions(world.path("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    world.write("edited.db", world.read("app.db"));
    world.sql("edited.db", "UPDATE action_receipts SET decision = 'deny' WHERE id = 'alpha-4'");
    world.write("dirty.db", world.read("app.db"));
    world.sql(
        "dirty.db",
        "CREATE TABLE _sqlx_migrations(version BIGINT PRIMARY KEY, description TEXT, installed_on TIMESTAMP, success BOOLEAN, checksum BLOB, execution_time BIGINT);
         INSERT INTO _sqlx_migrations VALUES(1, 'a', '2026-01-01', 0, x'00', 1)",
    );
    world.run(["backup", "dirty.db", "--to", "repo", "--name", "dirty"]).good();
    for copy in ["damaged", "newer", "locked"] {
        crate::support::copy_folder(&world.path("repo"), &world.path(copy));
    }
    fs::remove_file(world.path("damaged/backups/one/database/app.db.zst")).unwrap();
    let header = String::from_utf8(world.read("newer/repository.json")).unwrap();
    world.write("newer/repository.json", header.replace("\"format_version\":1", "\"format_version\":9"));
    world.write("open.db", world.read("app.db"));
    let open = world.open("open.db");
    open.execute_batch("BEGIN IMMEDIATE; INSERT INTO notes(text) VALUES('open')").unwrap();
    world.write("busy.db", world.read("app.db"));
    let busy = world.open("busy.db");
    busy.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut holder = world.command(["backup", "busy.db", "--to", "locked"]).spawn().unwrap();
    crate::signals::until("the other backup holds the lock", || {
        fs::metadata(world.path("locked/lock")).is_ok_and(|found| found.len() > 0)
    });

    for (kind, error, name, code, status) in TABLE {
        assert_eq!((error.name(), error.code(), error.exit_status()), (*name, *code, *status));
        assert!(!error.advice().is_empty());
        let said = match provocation(*kind, &world) {
            By(arguments) => world.fails(*error, arguments),
            With(command) => fails(*error, command),
            NotFromOutside(why) => {
                println!("{name}: {why}");
                continue;
            }
        };
        let (message, hint) = said.split_once(" HINT: ").unwrap_or_else(|| panic!("{name}: no hint: {said}"));
        assert!(!message.is_empty() && !hint.trim().is_empty(), "{name}: {said}");
    }
    assert_eq!(TABLE.len(), ErrorKind::ALL.len());
    assert!(!world.path("x.db").exists() && !world.path("new.db").exists());
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let world = World::ready();
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(world.path("backup.key"), open).unwrap();
    let said =
        world.fails(ErrorKind::Permission, ["backup", "app.db", "--to", "repo", "--sign-with", "backup.key"]);
    assert!(said.contains("chmod 600 backup.key"), "{said}");
}
