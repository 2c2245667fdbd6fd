//! Where a database is, and connections to it.
//!
//! [`Address::parse`] reads a connection string ([`crate::conninfo`]); [`Connection::open`] tries its hosts one by one, so that
//! it is known which server answered: PostgreSQL's own programs are then sent to that very server
//! ([`Connection::tool_environment`]), with the password in their environment and never on a command line.
//!
//! A session speaks UTF-8, UTC and ISO dates, has no statement timeout, waits a bounded time for locks, and fails rather
//! than being shown filtered rows (`row_security = off`). [`Connection::run`] does a step under the caller's flag: a cancelled
//! step is cancelled on the server too. Nothing survives the process: the server ends a session whose connection is gone.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use backup_core::context::Context;
use backup_core::error::Error as CoreError;
use postgres::Client;
use postgres::config::{ChannelBinding, Config, SslMode as Wire};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use crate::conninfo::{Parameters, password_in_file};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result, explain, is_io, kind_of};
use crate::tls::{SslMode, TlsSettings};
use crate::version::ServerVersion;

/// How long a connection may take to be made where nothing else is said.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a lock of another session is waited for by default.
pub const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a running step looks at the caller's flag.
const TICK: Duration = Duration::from_millis(50);
/// The folders in which servers on this machine keep their sockets.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
/// The variables of the environment that libpq reads; a program that is started gets exactly those that are meant.
const LIBPQ_VARIABLES: &[&str] = &[
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGREQUIREAUTH",
    "PGCHANNELBINDING",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGOPTIONS",
    "PGAPPNAME",
    "PGSSLMODE",
    "PGREQUIRESSL",
    "PGSSLNEGOTIATION",
    "PGSSLCOMPRESSION",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLCERTMODE",
    "PGSSLROOTCERT",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLSNI",
    "PGREQUIREPEER",
    "PGSSLMINPROTOCOLVERSION",
    "PGSSLMAXPROTOCOLVERSION",
    "PGGSSENCMODE",
    "PGKRBSRVNAME",
    "PGGSSLIB",
    "PGCONNECT_TIMEOUT",
    "PGCLIENTENCODING",
    "PGTARGETSESSIONATTRS",
    "PGLOADBALANCEHOSTS",
    "PGDATESTYLE",
    "PGTZ",
    "PGGEQO",
];

/// Where one server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A socket in this folder.
    Socket(PathBuf),
    /// A name or address, and the address that is used instead of looking the name up.
    Network(String, Option<IpAddr>),
}

/// One server of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub host: Host,
    /// Its port; part of the socket's name too.
    pub port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Socket(folder) => write!(f, "{}/.s.PGSQL.{}", folder.display(), self.port),
            Host::Network(name, _) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Host::Network(name, _) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Which kind of server is wanted (`target_session_attrs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// Where a database is and how it is reached. `Debug` and [`Address::location`] hold no password.
#[derive(Clone)]
pub struct Address {
    places: Vec<Place>,
    database: String,
    user: String,
    password: Option<Zeroizing<String>>,
    password_file: Option<PathBuf>,
    tls: TlsSettings,
    options: Option<String>,
    application_name: String,
    connect_timeout: Duration,
    channel_binding: ChannelBinding,
    wanted: Wanted,
    keepalives: Option<Duration>,
    no_keepalives: bool,
    tcp_user_timeout: Option<Duration>,
    /// Where programs are looked for.
    path: Option<OsString>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("location", &self.location())
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl Address {
    /// Reads a connection string: a URL or `key=value` pairs; what it does not say, its service and the environment say.
    ///
    /// # Errors
    /// `InvalidInput` for what cannot be meant or honoured; `NotFound` for a service that is in no file.
    pub fn parse(text: &str, environment: &Environment) -> Result<Self> {
        let given = Parameters::read(text, environment)?;
        let user = given
            .get("user")
            .map(str::to_owned)
            .or_else(|| environment.user.clone())
            .or_else(system_user)
            .ok_or_else(|| Error::parameter("user", "no role is named and this user has no name"))?;
        let seconds =
            |key: &str| -> Result<Option<u64>> { given.get(key).map(|text| number(key, text)).transpose() };
        let wanted = match given.get("target_session_attrs") {
            None | Some("any") => Wanted::Any,
            Some("read-write") => Wanted::ReadWrite,
            Some("read-only") => Wanted::ReadOnly,
            Some("primary") => Wanted::Primary,
            Some("standby") => Wanted::Standby,
            Some("prefer-standby") => Wanted::PreferStandby,
            Some(other) => return Err(Error::parameter("target_session_attrs", format!("found {other:?}"))),
        };
        let channel_binding = match given.get("channel_binding") {
            None | Some("prefer") => ChannelBinding::Prefer,
            Some("disable") => ChannelBinding::Disable,
            Some("require") => ChannelBinding::Require,
            Some(other) => return Err(Error::parameter("channel_binding", format!("found {other:?}"))),
        };
        Ok(Self {
            places: places(&given)?,
            database: given.get("dbname").map_or_else(|| user.clone(), str::to_owned),
            user,
            password: given.get("password").map(|word| Zeroizing::new(word.to_owned())),
            password_file: given
                .get("passfile")
                .map(PathBuf::from)
                .or_else(|| environment.in_home(".pgpass")),
            tls: TlsSettings::read(&given, environment)?,
            options: given.get("options").map(str::to_owned),
            application_name: given.get("application_name").unwrap_or("attestore").to_owned(),
            connect_timeout: match seconds("connect_timeout")? {
                None => DEFAULT_CONNECT_TIMEOUT,
                // libpq: 0 waits for ever, and less than 2 means 2.
                Some(0) => Duration::from_secs(u64::from(u32::MAX)),
                Some(seconds) => Duration::from_secs(seconds.max(2)),
            },
            channel_binding,
            wanted,
            keepalives: seconds("keepalives_idle")?.filter(|idle| *idle > 0).map(Duration::from_secs),
            no_keepalives: given.get("keepalives") == Some("0"),
            tcp_user_timeout: seconds("tcp_user_timeout")?.map(Duration::from_millis),
            path: environment.path.clone(),
        })
    }

    /// Returns the database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Returns the role's name.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the folders in which programs are looked for, as `PATH` spells them.
    #[must_use]
    pub const fn search_path(&self) -> Option<&OsString> {
        self.path.as_ref()
    }

    /// Returns the same server with another database (`postgres` for making and renaming databases).
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        Self { database: name.to_owned(), ..self.clone() }
    }

    /// Spells where the database is, without a password: `postgres://user@host:port/database`.
    #[must_use]
    pub fn location(&self) -> String {
        let places = self.places.iter().map(|place| match &place.host {
            Host::Socket(folder) => format!("{}:{}", escape(&folder.to_string_lossy()), place.port),
            Host::Network(..) => place.to_string(),
        });
        let places = places.collect::<Vec<_>>().join(",");
        format!("postgres://{}@{places}/{}", escape(&self.user), escape(&self.database))
    }

    fn named(&self, place: &Place) -> String {
        format!("{place} (database {:?}, role {:?})", self.database, self.user)
    }

    fn password_for(&self, place: &Place) -> Option<Zeroizing<String>> {
        if self.password.is_some() {
            return self.password.clone();
        }
        let file = self.password_file.as_deref()?;
        let host = match &place.host {
            Host::Socket(folder) if SOCKET_FOLDERS.iter().any(|usual| folder == Path::new(usual)) => {
                "localhost".into()
            }
            Host::Socket(folder) => folder.to_string_lossy(),
            Host::Network(name, _) => name.as_str().into(),
        };
        password_in_file(file, &host, place.port, &self.database, &self.user)
    }

    fn config(&self, place: &Place, wire: Wire) -> Config {
        let mut config = Config::new();
        config
            .user(&self.user)
            .dbname(&self.database)
            .application_name(&self.application_name)
            .port(place.port)
            .connect_timeout(self.connect_timeout)
            .channel_binding(self.channel_binding)
            .ssl_mode(wire)
            .keepalives(!self.no_keepalives);
        match &place.host {
            Host::Socket(folder) => {
                config.host_path(folder);
            }
            Host::Network(name, address) => {
                config.host(name);
                if let Some(address) = address {
                    config.hostaddr(*address);
                }
            }
        }
        if let Some(idle) = self.keepalives {
            config.keepalives_idle(idle);
        }
        if let Some(timeout) = self.tcp_user_timeout {
            config.tcp_user_timeout(timeout);
        }
        if let Some(options) = &self.options {
            config.options(options);
        }
        if let Some(password) = self.password_for(place) {
            config.password(password.as_bytes());
        }
        config
    }

    /// Connects to one server, in the ways that the mode allows. Returns how it is encrypted too.
    fn connect_to(&self, place: &Place, tls: &MakeRustlsConnect) -> Result<(Client, bool), postgres::Error> {
        let connect = |wire| self.config(place, wire).connect(tls.clone());
        if matches!(place.host, Host::Socket(_)) {
            return connect(Wire::Disable).map(|client| (client, false));
        }
        match self.tls.mode {
            SslMode::Disable => connect(Wire::Disable).map(|client| (client, false)),
            SslMode::Allow => match connect(Wire::Disable) {
                Err(error) if !is_io(&error) => connect(Wire::Require).map(|client| (client, true)),
                other => other.map(|client| (client, false)),
            },
            SslMode::Prefer => match connect(Wire::Require) {
                Ok(client) => Ok((client, true)),
                // The server has no TLS, or does not let this role in with it; what else is wrong shows again.
                Err(_) => connect(Wire::Disable).map(|client| (client, false)),
            },
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
                connect(Wire::Require).map(|client| (client, true))
            }
        }
    }
}

/// Escapes a part of a URL.
fn escape(text: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    percent_encoding::utf8_percent_encode(text, KEPT).to_string()
}

fn number(key: &str, text: &str) -> Result<u64> {
    text.trim().parse().map_err(|_| Error::parameter(key, format!("expected a whole number, found {text:?}")))
}

/// Pairs hosts, addresses and ports; without a host, the usual sockets, then this machine.
fn places(given: &Parameters) -> Result<Vec<Place>> {
    let list = |key: &str| given.get(key).map(|text| text.split(',').map(str::trim).collect::<Vec<_>>());
    let (hosts, addresses) = (list("host"), list("hostaddr"));
    let count = hosts.as_ref().or(addresses.as_ref()).map_or(1, Vec::len);
    if let (Some(hosts), Some(addresses)) = (&hosts, &addresses)
        && hosts.len() != addresses.len()
    {
        return Err(Error::parameter(
            "hostaddr",
            format!("{} addresses for {} hosts", addresses.len(), hosts.len()),
        ));
    }
    let ports = list("port").unwrap_or_default();
    if ports.len() > 1 && ports.len() != count {
        return Err(Error::parameter("port", format!("{} ports for {count} hosts", ports.len())));
    }
    let mut found = Vec::with_capacity(count);
    for at in 0..count {
        let port = match ports.get(at).or(ports.first()).copied().unwrap_or("") {
            "" => 5432,
            text => text.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                Error::parameter("port", format!("expected a number from 1 to 65535, found {text:?}"))
            })?,
        };
        let address = addresses.as_ref().and_then(|all| all.get(at)).filter(|text| !text.is_empty());
        let address = address
            .map(|text| {
                text.parse::<IpAddr>()
                    .map_err(|_| Error::parameter("hostaddr", format!("{text:?} is no address")))
            })
            .transpose()?;
        let name = hosts.as_ref().and_then(|all| all.get(at)).copied().unwrap_or("");
        let host = match (name, address) {
            ("", Some(address)) => Host::Network(address.to_string(), Some(address)),
            ("", None) => default_host(port),
            (path, _) if path.starts_with('/') => Host::Socket(PathBuf::from(path)),
            (path, _) if path.starts_with('@') => {
                return Err(Error::parameter("host", "sockets without a file are not supported"));
            }
            (name, address) => Host::Network(name.to_owned(), address),
        };
        found.push(Place { host, port });
    }
    Ok(found)
}

fn default_host(port: u16) -> Host {
    let has_socket = |folder: &&&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    match SOCKET_FOLDERS.iter().find(has_socket) {
        Some(folder) => Host::Socket(PathBuf::from(folder)),
        None => Host::Network("localhost".into(), None),
    }
}

/// Finds the name of the user who runs this process.
fn system_user() -> Option<String> {
    let id = rustix::process::geteuid().as_raw().to_string();
    crate::users::entries().find(|entry| entry.uid == id).map(|entry| entry.name)
}

/// How a session is set up.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// How long a lock of another session is waited for.
    pub lock_timeout: Duration,
    /// Settings of the session, by name (`caracal.zone_id`, `*`); tools that are started get them too.
    pub settings: Vec<(String, String)>,
    /// Whether the session may only read.
    pub read_only: bool,
    /// Whether row-security policies apply; otherwise a query that they would filter fails.
    pub row_security: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            lock_timeout: DEFAULT_LOCK_TIMEOUT,
            settings: Vec::new(),
            read_only: true,
            row_security: false,
        }
    }
}

/// A session on a server.
pub struct Connection {
    client: Client,
    address: Address,
    place: Place,
    tls: MakeRustlsConnect,
    encrypted: bool,
    version: ServerVersion,
    options: SessionOptions,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("place", &self.place)
            .field("database", &self.address.database)
            .field("version", &self.version)
            .field("encrypted", &self.encrypted)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to the first server of the address that answers and is of the kind that is wanted, and sets the session up.
    ///
    /// # Errors
    /// `Unavailable` when none answers; `Permission` when the role is not let in; `NotFound` when there is no such database.
    pub fn open(address: &Address, options: &SessionOptions, ctx: &Context) -> Result<Self> {
        let tls = address.tls.connector()?;
        let mut failed: Option<Error> = None;
        let mut spare: Option<Self> = None;
        for place in &address.places {
            ctx.check()?;
            match address.connect_to(place, &tls) {
                Ok((client, encrypted)) => {
                    let made = Self::set_up(client, address, place, tls.clone(), encrypted, options, ctx)?;
                    match made {
                        (connection, true) => return Ok(connection),
                        (connection, false) if address.wanted == Wanted::PreferStandby => {
                            spare.get_or_insert(connection);
                        }
                        (_, false) => {
                            failed.get_or_insert(Error::Connect {
                                server: address.named(place),
                                kind: ErrorKind::Unavailable,
                                why: "the server is not of the kind that target_session_attrs asks for"
                                    .into(),
                                hint: None,
                                source: None,
                            });
                        }
                    }
                }
                Err(error) => {
                    let answered =
                        error.as_db_error().is_some_and(|said| !said.code().code().starts_with("57P"));
                    let error = refused(address, place, error);
                    if answered {
                        return Err(error);
                    }
                    failed.get_or_insert(error);
                }
            }
        }
        spare.ok_or_else(|| failed.unwrap_or_else(|| Error::parameter("host", "the address names no server")))
    }

    /// Connects to the same server and database once more.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn another(&self, ctx: &Context) -> Result<Self> {
        self.another_with(&self.options, ctx)
    }

    /// Connects to the same server and database once more, with other options.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn another_with(&self, options: &SessionOptions, ctx: &Context) -> Result<Self> {
        Self::open(&self.pinned(), options, ctx)
    }

    /// Returns the address of the very server that answered.
    #[must_use]
    pub fn pinned(&self) -> Address {
        Address { places: vec![self.place.clone()], wanted: Wanted::Any, ..self.address.clone() }
    }

    fn set_up(
        mut client: Client,
        address: &Address,
        place: &Place,
        tls: MakeRustlsConnect,
        encrypted: bool,
        options: &SessionOptions,
        ctx: &Context,
    ) -> Result<(Self, bool)> {
        let failed = |error| explain(error, "set up a session in", &address.database);
        let row = client
            .query_one("SELECT current_setting('server_version_num')::int4, current_setting('server_version'), pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'", &[])
            .map_err(failed)?;
        let number: i32 = row.get(0);
        let version = ServerVersion::new(number, row.get(1));
        let (standby, read_only): (bool, bool) = (row.get(2), row.get(3));
        let fits = match address.wanted {
            Wanted::Any => true,
            Wanted::ReadWrite => !read_only,
            Wanted::ReadOnly => read_only,
            Wanted::Primary => !standby,
            Wanted::Standby | Wanted::PreferStandby => standby,
        };
        let mut connection = Self {
            client,
            address: address.clone(),
            place: place.clone(),
            tls,
            encrypted,
            version,
            options: options.clone(),
        };
        if fits {
            connection.prepare(ctx)?;
        }
        Ok((connection, fits))
    }

    /// Makes what the session says independent of the server's, the database's and the role's settings.
    fn prepare(&mut self, ctx: &Context) -> Result<()> {
        let mut sql = String::from(
            "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'; \
             SET xmloption = 'content'; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
             SET synchronize_seqscans = off; SET standard_conforming_strings = on; ",
        );
        let extra_digits = if self.version.major() >= 12 { 1 } else { 3 };
        sql.push_str(&format!("SET extra_float_digits = {extra_digits}; "));
        if self.version.major() >= 17 {
            sql.push_str("SET transaction_timeout = 0; ");
        }
        if self.version.major() >= 14 {
            sql.push_str("SET idle_session_timeout = 0; ");
        }
        let word = |on: bool| if on { "on" } else { "off" };
        sql.push_str(&format!(
            "SET lock_timeout = {}; SET default_transaction_read_only = {}; SET row_security = {}",
            self.options.lock_timeout.as_millis().min(i32::MAX as u128),
            word(self.options.read_only),
            word(self.options.row_security)
        ));
        let settings = self.options.settings.clone();
        self.run("set up a session in", ctx, |client| {
            client.batch_execute(&sql)?;
            for (name, value) in &settings {
                client.query_one("SELECT set_config($1, $2, false)", &[name, value])?;
            }
            Ok(())
        })
    }

    /// Returns the server's version.
    #[must_use]
    pub const fn version(&self) -> &ServerVersion {
        &self.version
    }

    /// Returns the address that was asked for.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Reports whether the connection is encrypted.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Returns the client itself, for a step that nobody needs to cancel.
    pub const fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Does one step; when the caller cancels, the server is told to stop it. `step` is a verb phrase that the
    /// database's name can follow (`count rows in`).
    ///
    /// # Errors
    /// `Cancelled`; what the server says.
    pub fn run<T>(
        &mut self,
        step: &str,
        ctx: &Context,
        work: impl FnOnce(&mut Client) -> Result<T, postgres::Error>,
    ) -> Result<T> {
        ctx.check()?;
        let canceller = self.canceller();
        let client = &mut self.client;
        let result = std::thread::scope(|scope| {
            let (done, waiting) = mpsc::channel::<()>();
            scope.spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = waiting.recv_timeout(TICK) {
                    if ctx.cancel().is_cancelled() {
                        canceller.cancel();
                    }
                }
            });
            let result = work(client);
            drop(done);
            result
        });
        result.map_err(|error| {
            if ctx.cancel().is_cancelled() {
                return Error::Core(CoreError::Cancelled);
            }
            explain(error, step, &self.address.database)
        })
    }

    /// Returns what stops the session's running query from another thread.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller { token: self.client.cancel_token(), tls: self.tls.clone() }
    }

    /// Returns the environment under which PostgreSQL's own programs reach this very server and database as this role:
    /// names that are to be removed (`None`) and values that are to be set.
    #[must_use]
    pub fn tool_environment(&self) -> Vec<(&'static str, Option<OsString>)> {
        let mut set: Vec<(&'static str, OsString)> = vec![
            ("PGPORT", self.place.port.to_string().into()),
            ("PGUSER", self.address.user.clone().into()),
            ("PGDATABASE", self.address.database.clone().into()),
            ("PGAPPNAME", self.address.application_name.clone().into()),
            // Without a password at hand none is looked for elsewhere.
            ("PGPASSFILE", "/nonexistent/attestore".into()),
            ("PGGSSENCMODE", "disable".into()),
        ];
        match &self.place.host {
            Host::Socket(folder) => set.push(("PGHOST", folder.clone().into())),
            Host::Network(name, address) => {
                set.push(("PGHOST", name.clone().into()));
                if let Some(address) = address {
                    set.push(("PGHOSTADDR", address.to_string().into()));
                }
                set.push(("PGSSLMODE", self.address.tls.mode.name().into()));
            }
        }
        let files = [
            ("PGSSLROOTCERT", &self.address.tls.roots),
            ("PGSSLCERT", &self.address.tls.certificate),
            ("PGSSLKEY", &self.address.tls.key),
        ];
        for (name, file) in files {
            set.extend(file.as_ref().map(|file| (name, file.clone().into_os_string())));
        }
        if let Some(password) = self.address.password_for(&self.place) {
            set.push(("PGPASSWORD", password.as_str().into()));
        }
        let binding = match self.address.channel_binding {
            ChannelBinding::Disable => "disable",
            ChannelBinding::Require => "require",
            _ => "prefer",
        };
        set.push(("PGCHANNELBINDING", binding.into()));
        let mut options = self.address.options.clone().unwrap_or_default();
        for (name, value) in &self.options.settings {
            if !options.is_empty() {
                options.push(' ');
            }
            options.push_str("-c ");
            for c in format!("{name}={value}").chars() {
                if c.is_whitespace() || c == '\\' {
                    options.push('\\');
                }
                options.push(c);
            }
        }
        if !options.is_empty() {
            set.push(("PGOPTIONS", options.into()));
        }
        let mut all: Vec<(&'static str, Option<OsString>)> =
            LIBPQ_VARIABLES.iter().map(|name| (*name, None)).collect();
        all.extend(set.into_iter().map(|(name, value)| (name, Some(value))));
        all
    }
}

/// Stops a session's running query from another thread.
#[derive(Clone)]
pub struct Canceller {
    token: postgres::CancelToken,
    tls: MakeRustlsConnect,
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

impl Canceller {
    /// Asks the server to stop what the session is doing; nothing happens when it does nothing.
    pub fn cancel(&self) {
        if let Err(error) = self.token.cancel_query(self.tls.clone()) {
            tracing::debug!(%error, "a query could not be cancelled");
        }
    }
}

/// Makes an error of a connection that was not made.
fn refused(address: &Address, place: &Place, error: postgres::Error) -> Error {
    let server = address.named(place);
    if let Some(said) = error.as_db_error() {
        let code = said.code();
        let hint = match code.code() {
            "28P01" | "28000" => {
                Some("check the role, its password (PGPASSFILE, PGPASSWORD) and the server's pg_hba.conf")
            }
            "3D000" => Some("check the name of the database"),
            "53300" => Some("the server has no free connection: raise max_connections, or wait"),
            "57P03" => Some("the server is starting or stopping: try again"),
            _ => None,
        };
        return Error::Connect {
            server,
            kind: kind_of(code),
            why: said.message().to_owned(),
            hint: hint.map(str::to_owned),
            source: Some(Box::new(error)),
        };
    }
    let mut why = error.to_string();
    let mut under = std::error::Error::source(&error);
    while let Some(cause) = under {
        let said = cause.to_string();
        if !why.contains(&said) {
            why = format!("{why}: {said}");
        }
        under = cause.source();
    }
    let (kind, hint) = if why.contains("password missing") {
        (
            ErrorKind::Permission,
            "the server asks for a password: give it in PGPASSFILE (mode 0600), PGPASSWORD or a service file",
        )
    } else if why.contains("certificate") {
        (
            ErrorKind::Unavailable,
            "the server's certificate is not one that sslrootcert vouches for, or not made out to this host; check both",
        )
    } else if why.contains("does not support TLS") {
        (ErrorKind::Unavailable, "the server has TLS switched off, and sslmode asks for it")
    } else {
        (
            ErrorKind::Unavailable,
            "check that the server runs, listens there and lets this machine in (listen_addresses, pg_hba.conf, firewall)",
        )
    };
    Error::Connect { server, kind, why, hint: Some(hint.into()), source: Some(Box::new(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        let environment = Environment { user: Some("me".into()), ..Environment::default() };
        Address::parse(text, &environment).unwrap()
    }

    #[test]
    fn an_address_is_spelt_without_its_password() {
        let one = address("postgres://u:hunter2@db.example:5433/my%20db?sslmode=require");
        assert_eq!(one.location(), "postgres://u@db.example:5433/my%20db");
        assert!(!format!("{one:?}").contains("hunter2"));
        assert_eq!(address("postgres:///d?host=/run/pg").location(), "postgres://me@%2Frun%2Fpg:5432/d");
        let many = address("postgres://h1:1,h2:2/d");
        assert_eq!(many.location(), "postgres://me@h1:1,h2:2/d");
        assert_eq!(many.with_database("postgres").database(), "postgres");
        assert_eq!(address("postgres://h").database(), "me");
    }

    #[test]
    fn hosts_ports_and_modes_that_cannot_be_meant_are_refused() {
        for text in [
            "postgres://h:0/d",
            "postgres://h:x/d",
            "host=a,b port=1,2,3 dbname=d",
            "host=a hostaddr=b dbname=d",
            "postgres://h/d?sslmode=yes",
            "postgres://h/d?sslmode=require&sslrootcert=system",
            "postgres://h/d?target_session_attrs=fast",
        ] {
            let error =
                Address::parse(text, &Environment { user: Some("me".into()), ..Environment::default() });
            assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
        }
    }
}
