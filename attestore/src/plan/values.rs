//! Single values of a plan, each refused where it stands when it is not what it is said to be.
//!
//! `schema` uses them; because they parse while the file is read, the error has the line and the column. Texts that may be a
//! secret or hold a password are never repeated.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::encrypt::Recipients;
use backup_core::names::validate_name;
use backup_core::repository::Age;
use backup_core::secret::SecretRef;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, de};

/// Makes a value that is a string in the file and parses as it is read.
macro_rules! text_value {
    ($name:ident, $what:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }

        #[cfg(test)]
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "format": $what})
            }
        }
    };
}

/// A bare name: what an asset is called in the plan, in the backup and in reports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    fn parse(text: &str) -> Result<Self, String> {
        validate_name(text).map_err(|error| error.to_string())?;
        if text.contains('=') {
            return Err(format!("name {text:?} holds an equals sign"));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns it as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(Name, "name");

/// Where a secret or a key is held: `env:VAR` or `file:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(SecretRef);

impl Reference {
    fn parse(text: &str) -> Result<Self, String> {
        SecretRef::parse(text).map(Self).map_err(|error| error.to_string())
    }

    /// Returns the reference with a relative path taken from `folder`.
    #[must_use]
    pub fn within(&self, folder: &Path) -> SecretRef {
        match &self.0 {
            SecretRef::File(path) => SecretRef::File(folder.join(path)),
            other => other.clone(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(Reference, "reference");

/// An age recipient that can be encrypted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(String);

impl Recipient {
    fn parse(text: &str) -> Result<Self, String> {
        Recipients::parse([text]).map_err(|error| error.to_string())?;
        Ok(Self(text.to_owned()))
    }

    /// Returns it as age spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

text_value!(Recipient, "age-recipient");

/// A length of time by the calendar: `24h`, `30d`, `8w`, `6mo`, `1y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period(Age);

impl Period {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: backup_core::error::Error| error.to_string())
    }

    /// Returns the instant that lies this long before `time`; the earliest there is where the calendar ends.
    #[must_use]
    pub fn before(self, time: Timestamp) -> Timestamp {
        self.0.before(time).unwrap_or(Timestamp::MIN)
    }

    /// Returns the age, for a retention policy.
    #[must_use]
    pub const fn age(self) -> Age {
        self.0
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(Period, "period");

/// How long a command may take: `30s`, `5m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout(Duration);

impl Timeout {
    fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("timeout {text:?}: expected a time above nothing such as `30s`, `5m` or `1h`");
        let time: SignedDuration = text.trim().parse().map_err(|_| bad())?;
        let time = Duration::try_from(time).map_err(|_| bad())?;
        if time.is_zero() { Err(bad()) } else { Ok(Self(time)) }
    }

    /// Returns it as a duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Default for Timeout {
    /// Ten minutes.
    fn default() -> Self {
        Self(Duration::from_secs(600))
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}

text_value!(Timeout, "duration");

/// Where a database is: a path, `sqlite:PATH`, `postgres://…` without a password, or `env:VAR` that holds one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location(String);

impl Location {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a database is empty: expected a path, sqlite:PATH, postgres://… or env:VAR".into());
        }
        if text.starts_with("env:") {
            SecretRef::parse(text).map_err(|error| error.to_string())?;
        } else if let Some((_, rest)) = text.split_once("://") {
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
            if user.contains(':') || rest.contains("password=") {
                return Err("the URL of a database holds a password (not shown): write it as `env:VAR`, or use a password file".into());
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns it as it stands in the plan; it holds no secret.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what `attestore backup` takes: the variable read, a relative path taken from `folder`.
    ///
    /// # Errors
    /// When the variable is not set, empty or not text.
    pub fn resolve(&self, folder: &Path) -> backup_core::error::Result<String> {
        use backup_core::error::{Error, ErrorKind};
        let text = if self.0.starts_with("env:") {
            let value = SecretRef::parse(&self.0)?.read()?;
            let text = std::str::from_utf8(&value)
                .map_err(|_| Error::new(ErrorKind::InvalidInput, format!("{}: it is not text", self.0)))?;
            text.to_owned()
        } else {
            self.0.clone()
        };
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(format!("sqlite:{}", folder.join(path).display()));
        }
        if text.contains("://") {
            return Ok(text);
        }
        Ok(folder.join(PathBuf::from(text)).display().to_string())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(Location, "database");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_plan_is_refused_and_not_repeated() {
        for text in ["postgres://u:hunter2@h/d", "postgres://h/d?user=u&password=hunter2"] {
            let error = Location::parse(text).unwrap_err();
            assert!(error.contains("password") && !error.contains("hunter2"), "{error}");
        }
        for text in ["postgres://u@h/d", "env:DATABASE_URL", "app.db", "sqlite:app.db"] {
            assert_eq!(Location::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn relative_paths_are_taken_from_the_folder_of_the_plan() {
        let resolve = |text: &str| Location::parse(text).unwrap().resolve(Path::new("/etc/a")).unwrap();
        assert_eq!(resolve("app.db"), "/etc/a/app.db");
        assert_eq!(resolve("sqlite:app.db"), "sqlite:/etc/a/app.db");
        assert_eq!(resolve("/var/app.db"), "/var/app.db");
        assert_eq!(resolve("postgres://h/d"), "postgres://h/d");
    }

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(Timeout::parse("30s").unwrap().get(), Duration::from_secs(30));
        assert_eq!(Timeout::parse("5m").unwrap().get(), Duration::from_secs(300));
        for text in ["", "0s", "-5s", "5", "soon"] {
            assert!(Timeout::parse(text).is_err(), "{text}");
        }
        assert!(Period::parse("24h").is_ok() && Period::parse("day").is_err());
    }
}
