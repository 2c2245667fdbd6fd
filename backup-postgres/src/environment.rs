//! What a process's environment says about connections, handed in by the caller: a library reads no environment.
//!
//! The facade fills it (`attestore::postgres::environment`); a service that embeds this crate fills what it wants
//! honoured, or leaves it empty.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// The values of the environment that connections and tools go by.
#[derive(Clone, Default)]
pub struct Environment {
    /// The variables whose names begin with `PG`, as libpq knows them.
    pub variables: BTreeMap<String, String>,
    /// The home folder: `.pgpass`, `.pg_service.conf`, `.postgresql/`.
    pub home: Option<PathBuf>,
    /// The user's name, which is the role and the database where nothing else is said.
    pub user: Option<String>,
    /// The list of folders in which programs are looked for, as `PATH` spells it.
    pub path: Option<OsString>,
}

impl Environment {
    /// Takes what matters out of a list of variables, as `std::env::vars_os` yields them. What is not UTF-8 is passed over.
    #[must_use]
    pub fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut made = Self::default();
        for (name, value) in variables {
            match name.to_str() {
                Some("HOME") => made.home = Some(PathBuf::from(value)),
                Some("PATH") => made.path = Some(value),
                Some("USER") => made.user = value.into_string().ok(),
                Some("LOGNAME") if made.user.is_none() => made.user = value.into_string().ok(),
                Some(name) if name.starts_with("PG") => {
                    if let Ok(value) = value.into_string() {
                        made.variables.insert(name.to_owned(), value);
                    }
                }
                _ => {}
            }
        }
        made
    }

    /// Returns a variable that is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns a file under the home folder.
    pub(crate) fn in_home(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(name))
    }
}

/// Names what is set; values may be secret.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys().collect::<Vec<_>>())
            .field("home", &self.home)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
