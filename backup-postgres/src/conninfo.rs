//! Reads connection strings as libpq does: URLs, `key=value` lists, service files, the environment, password files.
//!
//! ```text
//! postgres://user:password@host1:5432,host2/db?sslmode=verify-full&sslrootcert=/ca.pem      PostgreSQL manual §34.1.1.2
//! host=/run/postgresql dbname='my db' user=app                                              §34.1.1.1
//! ```
//!
//! What the string does not say, the service file says, then the environment. [`crate::connect`] makes a target of it.
//! A keyword that this crate cannot honour is refused: a setting that would be passed over in silence is a trap.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::environment::Environment;
use crate::error::{Error, Result};

/// Keywords that are honoured, with the variable of the environment that stands for each.
const KEYWORDS: &[(&str, &str)] = &[
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("options", "PGOPTIONS"),
    ("application_name", "PGAPPNAME"),
    ("sslmode", "PGSSLMODE"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("keepalives", ""),
    ("keepalives_idle", ""),
    ("tcp_user_timeout", ""),
    ("service", "PGSERVICE"),
    ("servicefile", "PGSERVICEFILE"),
];

/// Keywords that say nothing against what is done anyway: UTF-8 on our side, no GSSAPI, SNI sent.
const WITHOUT_EFFECT: &[&str] = &[
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "sslcompression",
    "sslsni",
    "load_balance_hosts",
];

/// The values of a connection by keyword, without secrets in its `Debug`.
#[derive(Clone, Default)]
pub(crate) struct Parameters {
    values: BTreeMap<String, Zeroizing<String>>,
}

impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Parameters").field(&self.values.keys().collect::<Vec<_>>()).finish()
    }
}

/// Reports whether a text is a connection string: a URL, `postgres:` before a list, or a list that names a database.
#[must_use]
pub fn is_conninfo(text: &str) -> bool {
    text.starts_with("postgres:")
        || text.starts_with("postgresql:")
        || (text.contains("dbname=")
            && pairs(text).is_ok_and(|pairs| pairs.iter().all(|(key, _)| known(key))))
}

fn known(key: &str) -> bool {
    KEYWORDS.iter().any(|(name, _)| *name == key) || WITHOUT_EFFECT.contains(&key)
}

impl Parameters {
    /// Reads a connection string and fills it up from its service and the environment.
    ///
    /// # Errors
    /// [`Error::Parameter`] for what cannot be meant or honoured; `NotFound` for a service that is in no file.
    pub(crate) fn read(text: &str, environment: &Environment) -> Result<Self> {
        let mut made = Self::default();
        if let Some(rest) = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
            made.url(rest)?;
        } else {
            let list =
                text.strip_prefix("postgres:").or_else(|| text.strip_prefix("postgresql:")).unwrap_or(text);
            for (key, value) in pairs(list)? {
                made.set("the connection string", &key, value)?;
            }
        }
        made.fill(environment)?;
        Ok(made)
    }

    /// Returns a value that is not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|value| value.as_str()).filter(|value| !value.is_empty())
    }

    fn set(&mut self, place: &str, key: &str, value: impl Into<String>) -> Result<()> {
        if !known(key) {
            return Err(Error::parameter(
                place,
                format!("the keyword {key:?} is unknown, or cannot be honoured here"),
            )
            .with_hint(format!("known are {}", KEYWORDS.map_names())));
        }
        self.values.insert(key.to_owned(), Zeroizing::new(value.into()));
        Ok(())
    }

    /// Reads a URL behind its scheme.
    fn url(&mut self, rest: &str) -> Result<()> {
        const PLACE: &str = "the connection URL";
        let (before, query) =
            rest.split_once('?').map_or((rest, None), |(before, query)| (before, Some(query)));
        let (authority, path) =
            before.split_once('/').map_or((before, None), |(host, path)| (host, Some(path)));
        let (userinfo, hosts) =
            authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        if let Some(userinfo) = userinfo {
            let (user, password) =
                userinfo.split_once(':').map_or((userinfo, None), |(user, word)| (user, Some(word)));
            self.decoded(PLACE, "user", user)?;
            if let Some(password) = password {
                self.decoded(PLACE, "password", password)?;
            }
        }
        if !hosts.is_empty() {
            let (mut names, mut ports) = (Vec::new(), Vec::new());
            for one in hosts.split(',') {
                let (name, port) = host_and_port(one)?;
                names.push(decode(PLACE, name)?);
                ports.push(port);
            }
            self.set(PLACE, "host", names.join(","))?;
            if ports.iter().any(|port| !port.is_empty()) {
                self.set(PLACE, "port", ports.join(","))?;
            }
        }
        if let Some(name) = path.filter(|path| !path.is_empty()) {
            self.decoded(PLACE, "dbname", name)?;
        }
        for pair in query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                Error::parameter(PLACE, "a parameter behind the question mark has no equals sign")
            })?;
            let key = decode(PLACE, key)?;
            match key.as_str() {
                "ssl" if value == "true" => self.set(PLACE, "sslmode", "require")?,
                _ => self.decoded(PLACE, &key, value)?,
            }
        }
        Ok(())
    }

    fn decoded(&mut self, place: &str, key: &str, value: &str) -> Result<()> {
        let value = decode(place, value)?;
        self.set(place, key, value)
    }

    /// Fills up what is not said: from the service, then from the environment.
    fn fill(&mut self, environment: &Environment) -> Result<()> {
        let service = self.get("service").or_else(|| environment.get("PGSERVICE")).map(str::to_owned);
        if let Some(service) = service {
            let named = self.get("servicefile").map(PathBuf::from);
            for (key, value) in service_entries(&service, named, environment)? {
                if !self.values.contains_key(&key) {
                    self.set(&format!("service {service:?}"), &key, value)?;
                }
            }
        }
        for (key, variable) in KEYWORDS {
            if let Some(value) = environment.get(variable).filter(|_| !self.values.contains_key(*key)) {
                self.set(variable, key, value)?;
            }
        }
        if environment.get("PGREQUIRESSL") == Some("1") && !self.values.contains_key("sslmode") {
            self.set("PGREQUIRESSL", "sslmode", "require")?;
        }
        Ok(())
    }
}

trait Names {
    fn map_names(&self) -> String;
}

impl Names for [(&str, &str)] {
    fn map_names(&self) -> String {
        self.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }
}

/// Undoes the escapes of a URL.
fn decode(place: &str, text: &str) -> Result<String> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        if !after.as_bytes().first_chunk::<2>().is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        {
            return Err(Error::parameter(place, "a percent sign is not followed by two hexadecimal digits")
                .with_hint("write a percent sign of a password as %25, an @ as %40, a / as %2F"));
        }
        rest = after;
    }
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| Error::parameter(place, "an escaped value is not UTF-8"))?;
    if text.contains('\0') {
        return Err(Error::parameter(place, "a value holds a zero byte"));
    }
    Ok(text.into_owned())
}

/// Splits `host:port`, `[::1]:port`.
fn host_and_port(text: &str) -> Result<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest
            .split_once(']')
            .ok_or_else(|| Error::parameter("the connection URL", "an address in brackets does not end"))?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, port)),
            None if after.is_empty() => Ok((host, "")),
            None => {
                Err(Error::parameter("the connection URL", "expected a colon and a port behind the bracket"))
            }
        };
    }
    Ok(text.split_once(':').unwrap_or((text, "")))
}

/// Reads `key=value` pairs; values in single quotes may hold spaces, a backslash takes the next character as it is.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    const PLACE: &str = "the connection string";
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or_else(|| {
            Error::parameter(PLACE, "expected key=value pairs, found no equals sign behind a key")
        })?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(Error::parameter(PLACE, "expected one word before an equals sign"));
        }
        let after = after.trim_start();
        let quoted = after.starts_with('\'');
        let mut value = String::new();
        let mut at = after.char_indices();
        if quoted {
            at.next();
        }
        let mut end = None;
        while let Some((place, c)) = at.next() {
            match c {
                '\\' => match at.next() {
                    Some((_, escaped)) => value.push(escaped),
                    None => return Err(Error::parameter(PLACE, "a backslash ends it")),
                },
                '\'' if quoted => {
                    end = Some(place + 1);
                    break;
                }
                c if !quoted && c.is_whitespace() => {
                    end = Some(place);
                    break;
                }
                c => value.push(c),
            }
        }
        if quoted && end.is_none() {
            return Err(Error::parameter(PLACE, "a quoted value does not end"));
        }
        found.push((key.to_owned(), value));
        rest = end.and_then(|end| after.get(end..)).unwrap_or("").trim_start();
    }
    Ok(found)
}

/// Finds a service in the user's file, then in the system's (PostgreSQL manual §34.17).
fn service_entries(
    service: &str,
    named: Option<PathBuf>,
    environment: &Environment,
) -> Result<Vec<(String, String)>> {
    let users = named
        .or_else(|| environment.get("PGSERVICEFILE").map(PathBuf::from))
        .or_else(|| environment.in_home(".pg_service.conf"));
    let system = environment.get("PGSYSCONFDIR").unwrap_or("/etc/postgresql-common");
    let files = users.into_iter().chain([Path::new(system).join("pg_service.conf")]);
    let mut looked = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else {
            looked.push(file.display().to_string());
            continue;
        };
        if let Some(entries) = section(&text, service) {
            return Ok(entries);
        }
        looked.push(file.display().to_string());
    }
    Err(Error::new(
        crate::error::ErrorKind::NotFound,
        format!("no service {service:?} in {}", looked.join(", ")),
    )
    .with_hint("name the file that has it in PGSERVICEFILE"))
}

/// Returns the entries of one section of a service file.
fn section(text: &str, name: &str) -> Option<Vec<(String, String)>> {
    let mut found: Option<Vec<(String, String)>> = None;
    for line in text.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            if header == name {
                found = Some(Vec::new());
            }
        } else if let (Some(entries), Some((key, value))) = (&mut found, line.split_once('='))
            && !line.starts_with('#')
        {
            entries.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

/// Looks a password up in a password file (PostgreSQL manual §34.16): `host:port:database:user:password`, `*` for any.
/// A file that others may read is passed over, as libpq does.
pub(crate) fn password_in_file(
    file: &Path,
    host: &str,
    port: u16,
    database: &str,
    user: &str,
) -> Option<Zeroizing<String>> {
    let found = std::fs::metadata(file).ok()?;
    if !found.is_file() {
        return None;
    }
    if found.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "the password file is passed over: others may read it (mode 0600 is wanted)");
        return None;
    }
    let text = Zeroizing::new(std::fs::read_to_string(file).ok()?);
    let port = port.to_string();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let fields = split_fields(line);
        let [a, b, c, d, password] = fields.as_slice() else { continue };
        let fits = |field: &str, value: &str| field == "*" || field == value;
        if fits(a, host) && fits(b, &port) && fits(c, database) && fits(d, user) {
            return Some(password.clone());
        }
    }
    None
}

/// Splits a line of a password file; a backslash takes the next character as it is. The rest of the line is the password.
fn split_fields(line: &str) -> Vec<Zeroizing<String>> {
    let mut fields = vec![Zeroizing::new(String::new())];
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        let last = fields.len() == 5;
        let c = match c {
            ':' if !last => {
                fields.push(Zeroizing::new(String::new()));
                continue;
            }
            '\\' => characters.next().unwrap_or('\\'),
            c => c,
        };
        if let Some(field) = fields.last_mut() {
            field.push(c);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Parameters {
        Parameters::read(text, &Environment::default()).unwrap()
    }

    fn all(parameters: &Parameters) -> String {
        let pairs = parameters.values.iter().map(|(key, value)| format!("{key}={}", value.as_str()));
        pairs.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn urls_are_read_as_libpq_does() {
        for (url, expected) in [
            ("postgres://", ""),
            ("postgresql://h", "host=h"),
            ("postgres://u:p%40%2F@h:1/d%20b", "dbname=d b host=h password=p@/ port=1 user=u"),
            ("postgres://u@h1:1,h2:2,h3/d", "dbname=d host=h1,h2,h3 port=1,2, user=u"),
            ("postgres://[::1]:5433/d", "dbname=d host=::1 port=5433"),
            ("postgres:///d?host=/run/pg&sslmode=verify-ca", "dbname=d host=/run/pg sslmode=verify-ca"),
            ("postgres://%2Frun%2Fpg/d?ssl=true", "dbname=d host=/run/pg sslmode=require"),
            ("postgres:///d?options=-c%20caracal.zone_id%3D*", "dbname=d options=-c caracal.zone_id=*"),
        ] {
            assert_eq!(all(&read(url)), expected, "{url}");
        }
    }

    #[test]
    fn lists_are_read_as_libpq_does() {
        assert_eq!(all(&read(r"host = /x dbname='my \'db\'' user=a\ b")), "dbname=my 'db' host=/x user=a b");
        assert_eq!(all(&read("postgres:dbname=d")), "dbname=d");
        assert!(
            is_conninfo("host=x dbname=y") && is_conninfo("postgres://") && !is_conninfo("eu=/var/app.db")
        );
        assert!(!is_conninfo("dbname=x colour=red"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_without_repeating_a_password() {
        for text in [
            "postgres://u:hunter2%@h/d",
            "postgres://u:hunter2@h/d?colour=red",
            "postgres://u:hunter2@h/d?sslcrl=x",
            "dbname=d password='hunter2",
            "password=hunter2 dbname",
            "postgres://u:hunter2@[::1/d",
        ] {
            let error = Parameters::read(text, &Environment::default()).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::InvalidInput, "{text}");
            let said = format!("{error} {:?} {error:?}", error.hint());
            assert!(!said.contains("hunter2"), "{said}");
        }
        assert!(!format!("{:?}", read("postgres://u:hunter2@h/d")).contains("hunter2"));
    }

    #[test]
    fn a_service_and_the_environment_fill_up_what_is_not_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services");
        std::fs::write(
            &file,
            "# ours\n[other]\nhost=no\n[app]\nhost=/srv\nport=7\nuser=svc\n[last]\nuser=no\n",
        )
        .unwrap();
        let mut environment = Environment::default();
        for (name, value) in [
            ("PGSERVICEFILE", file.to_str().unwrap()),
            ("PGSERVICE", "app"),
            ("PGPORT", "9"),
            ("PGDATABASE", "env"),
        ] {
            environment.variables.insert(name.into(), value.into());
        }
        let read = Parameters::read("postgres://me@", &environment).unwrap();
        assert_eq!(
            (read.get("host"), read.get("port"), read.get("user"), read.get("dbname")),
            (Some("/srv"), Some("7"), Some("me"), Some("env"))
        );
        environment.variables.insert("PGSERVICE".into(), "none".into());
        let error = Parameters::read("postgres://", &environment).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::NotFound);
    }

    #[test]
    fn a_password_file_is_searched_line_by_line_and_only_when_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pass");
        std::fs::write(&file, "# c\nh:1:d:x:no\n*:1:d:u:a\\:b:c\\\\\n*:*:*:*:last\n").unwrap();
        let mode = |bits| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(bits)).unwrap();
        mode(0o600);
        let look = |port, user| password_in_file(&file, "h", port, "d", user).map(|word| word.to_string());
        assert_eq!(look(1, "u").as_deref(), Some("a:b:c\\"));
        assert_eq!(look(2, "u").as_deref(), Some("last"));
        mode(0o640);
        assert_eq!(look(1, "u"), None);
    }
}
