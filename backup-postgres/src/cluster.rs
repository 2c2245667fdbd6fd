//! A throwaway server: made from the installed programs, reached by a socket in a private folder, gone afterwards.
//!
//! For drills and tests. `initdb` fills a folder `attestore-pg-*` (mode 0700), `postgres` runs on it without TCP and
//! without syncing; as root both run as `postgres` or `nobody`, since PostgreSQL refuses root.
//!
//! A small shell watches a pipe to this process: when the pipe closes, because the cluster was dropped or this process
//! was killed, it stops the server and removes the folder. So nothing is left, whatever happens here.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backup_core::context::Context;
use backup_core::error::Error as CoreError;

use crate::connect::{Address, Connection, SessionOptions};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::tools::{Running, Tool, ToolOptions};
use crate::users::{self, User};

/// How long a server may take to start.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a starting server is asked whether it is ready.
const TICK: Duration = Duration::from_millis(50);
/// The longest path of a socket's folder: a socket's address holds 107 bytes, its name takes up to 20.
const MAX_SOCKET_FOLDER: usize = 80;
/// The role that owns the cluster.
pub const SUPERUSER: &str = "postgres";
/// Waits for the pipe's end; `$1` is the folder, the rest the server's command.
const GUARD: &str = r#"
dir=$1; shift
trap '' INT TERM HUP
"$@" >"$dir/log" 2>&1 &
server=$!
read -r _
kill -QUIT "$server" 2>/dev/null
wait "$server"
rm -rf -- "$dir"
"#;

/// How a throwaway server is made.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// Where `initdb` and `postgres` are looked for; they are of one folder.
    pub tools: ToolOptions,
    /// The lowest major version that will do; 0 for any.
    pub at_least: i32,
    /// Where the folder is made; `None` takes the system's folder for temporary files.
    pub parent: Option<PathBuf>,
    /// The port, which is part of the socket's name too; 0 means 5432.
    pub port: u16,
    /// Further settings of the server (`name`, `value`).
    pub settings: Vec<(String, String)>,
    /// The locale of the cluster; `None` means `C`.
    pub locale: Option<String>,
    /// The encoding; `None` means UTF-8.
    pub encoding: Option<String>,
    /// A running server of which this one is made a standby (`pg_basebackup -R`); the cluster is then its copy.
    pub standby_of: Option<Address>,
}

/// A throwaway server that runs.
#[derive(Debug)]
pub struct ScratchCluster {
    folder: PathBuf,
    guard: Child,
    bin: PathBuf,
    major: i32,
    port: u16,
}

impl ScratchCluster {
    /// Makes a cluster and starts its server.
    ///
    /// # Errors
    /// `Unavailable` when the programs are missing or the server does not start, with the end of its log.
    pub fn start(options: &ClusterOptions, ctx: &Context) -> Result<Self> {
        let initdb = options.tools.newest("initdb", options.at_least.max(15))?;
        if initdb.version.major() < options.at_least {
            return Err(Error::ToolTooOld {
                tool: "initdb".into(),
                server: options.at_least.to_string(),
                found: format!("{} ({})", initdb.version, initdb.path.display()),
                install: crate::tools::install_line("initdb", options.at_least),
            });
        }
        // A link to it may lie alone in a folder of the PATH.
        let real = initdb.path.canonicalize().unwrap_or_else(|_| initdb.path.clone());
        let bin = real.parent().unwrap_or(Path::new("/")).to_owned();
        let user = unprivileged()?;
        let folder = make_folder(options.parent.as_deref(), user.as_ref())?;
        let made = Self::fill_and_run(options, &initdb, &bin, &folder, user.as_ref(), ctx);
        if made.is_err() {
            // The guard, where it ran already, removes it too.
            let _ = fs::remove_dir_all(&folder);
        }
        made
    }

    /// Makes an empty cluster.
    fn init(
        options: &ClusterOptions,
        initdb: &Tool,
        data: &Path,
        folder: &Path,
        user: Option<&User>,
        ctx: &Context,
    ) -> Result<()> {
        let mut command = initdb.alone();
        command
            .args(["--no-sync", "--no-instructions", "--auth=trust", "--username", SUPERUSER])
            .arg(format!("--encoding={}", options.encoding.as_deref().unwrap_or("UTF8")))
            .arg(format!("--locale={}", options.locale.as_deref().unwrap_or("C")))
            .arg("-D")
            .arg(data)
            .current_dir(folder)
            .stdout(Stdio::null());
        become_user(&mut command, user);
        Running::start("initdb", command, ctx)?.finish()?;
        Ok(())
    }

    fn fill_and_run(
        options: &ClusterOptions,
        initdb: &Tool,
        bin: &Path,
        folder: &Path,
        user: Option<&User>,
        ctx: &Context,
    ) -> Result<Self> {
        let data = folder.join("data");
        match &options.standby_of {
            Some(primary) => copy_of(primary, bin, &data, user, ctx)?,
            None => Self::init(options, initdb, &data, folder, user, ctx)?,
        }
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GUARD, "attestore-guard"]).arg(folder).arg(bin.join("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(folder);
        let port = if options.port == 0 { 5432 } else { options.port };
        command.arg("-p").arg(port.to_string());
        let quick = ["listen_addresses=", "fsync=off", "full_page_writes=off", "synchronous_commit=off"];
        for setting in quick
            .into_iter()
            .map(str::to_owned)
            .chain(options.settings.iter().map(|(name, value)| format!("{name}={value}")))
        {
            command.arg("-c").arg(setting);
        }
        // A process group of its own: Ctrl-C on a terminal is for us, and the guard stays to clean up.
        command
            .current_dir(folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        become_user(&mut command, user);
        let guard = command.spawn().map_err(|error| {
            Error::Core(
                CoreError::new(ErrorKind::Unavailable, "cannot start a shell for a throwaway server")
                    .with_source(error),
            )
        })?;
        let cluster = Self {
            folder: folder.to_owned(),
            guard,
            bin: bin.to_owned(),
            major: initdb.version.major(),
            port,
        };
        cluster.wait(ctx)?;
        Ok(cluster)
    }

    /// Waits until the server answers.
    fn wait(&self, ctx: &Context) -> Result<()> {
        let begun = Instant::now();
        let address = self.address("postgres")?;
        loop {
            ctx.check()?;
            let answer = Connection::open(&address, &SessionOptions::default(), ctx);
            let Err(error) = answer else { return Ok(()) };
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            // A server that is starting turns clients away with a FATAL of its own.
            let fatal = |line: &str| line.contains("FATAL:") && !line.contains("the database system is");
            if begun.elapsed() > START_TIMEOUT || log.lines().any(fatal) {
                let from = log.floor_char_boundary(log.len().saturating_sub(2_000));
                let end = log.get(from..).unwrap_or("").trim().to_owned();
                return Err(Error::Core(
                    CoreError::new(
                        ErrorKind::Unavailable,
                        format!("the throwaway server did not start: {end}"),
                    )
                    .with_source(error),
                ));
            }
            std::thread::sleep(TICK);
        }
    }

    /// Returns the address of one of its databases, as the superuser.
    ///
    /// # Errors
    /// Never for a folder that [`ScratchCluster::start`] made.
    pub fn address(&self, database: &str) -> Result<Address> {
        Address::parse(&self.url(database), &Environment::default())
    }

    /// Returns the URL of one of its databases, as the superuser.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let escaped = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        let folder = escaped(&self.folder.to_string_lossy());
        format!("postgres://{SUPERUSER}@{folder}:{}/{}", self.port, escaped(database))
    }

    /// Returns the folder of its socket, data and log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the folder of the programs that it runs.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Returns its major version.
    #[must_use]
    pub const fn major(&self) -> i32 {
        self.major
    }
}

impl Drop for ScratchCluster {
    fn drop(&mut self) {
        // The guard sees the end of the pipe, stops the server and removes the folder.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Copies a running server's cluster, so that it starts as its standby.
fn copy_of(primary: &Address, bin: &Path, data: &Path, user: Option<&User>, ctx: &Context) -> Result<()> {
    let connection = Connection::open(primary, &SessionOptions::default(), ctx)?;
    let mut command = Command::new(bin.join("pg_basebackup"));
    for (name, value) in connection.tool_environment() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .args([
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-sync",
            "--no-password",
            "-D",
        ])
        .arg(data)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    become_user(&mut command, user);
    Running::start("pg_basebackup", command, ctx)?.finish()?;
    Ok(())
}

/// Returns the user as whom a server is run: `None` for this process's own, which must not be root.
fn unprivileged() -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let wanted = ["postgres", "nobody"];
    let found = wanted.iter().find_map(|name| users::entries().find(|user| user.name == *name));
    found.map(Some).ok_or_else(|| {
        Error::new(
            ErrorKind::Unavailable,
            "PostgreSQL does not run as root, and there is no user postgres or nobody",
        )
        .with_hint("run as another user")
    })
}

fn become_user(command: &mut Command, user: Option<&User>) {
    if let Some((Ok(uid), Ok(gid))) = user.map(|user| (user.uid.parse(), user.gid.parse())) {
        command.uid(uid).gid(gid).env("HOME", "/nonexistent");
    }
}

/// Makes the private folder of a cluster.
fn make_folder(parent: Option<&Path>, user: Option<&User>) -> Result<PathBuf> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
    let failed = |path: &Path, error| Error::Core(CoreError::io("create", path, error));
    let mut folder = unused(&parent);
    if folder.as_os_str().len() > MAX_SOCKET_FOLDER {
        folder = unused(Path::new("/tmp"));
    }
    fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|error| failed(&folder, error))?;
    if let Some((Ok(uid), Ok(gid))) = user.map(|user| (user.uid.parse(), user.gid.parse())) {
        chown(&folder, Some(uid), Some(gid)).map_err(|error| failed(&folder, error))?;
    }
    Ok(folder)
}

/// Names a folder that is not there.
fn unused(parent: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("attestore-pg-{}-{number}", std::process::id()));
        if path.symlink_metadata().is_err() {
            return path;
        }
    }
}
