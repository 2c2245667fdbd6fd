//! The plan, `attestore.toml`: what is backed up, how it is proven and who does what, as one file that the verbs act on.
//!
//! `backup`, `drill`, `status` and `runbook` load one with [`Plan::load`]. One file a concern: `schema` names the keys, `values` reads
//! single values, `read` turns a fault into a sentence with its place, `check` looks at what the types do not, `reference` (tests)
//! writes `docs/plan.md` and `docs/attestore.schema.json`.
//!
//! A relative path in a plan begins at the plan's folder, so that a plan means the same from wherever it is run.

mod check;
mod read;
#[cfg(test)]
mod reference;
pub mod schema;
pub mod values;

use std::path::{Path, PathBuf};

use backup_core::error::{Error, ErrorKind, Result};
use backup_core::manifest::Digest;
use backup_core::secret::SecretRef;

use self::schema::{PlanFile, Secret, Tier};

/// The largest plan that is read, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;

/// A plan that was read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What it says.
    pub file: PlanFile,
    /// Where it was read from.
    pub path: PathBuf,
    /// The digest of its bytes.
    pub sha256: Digest,
    folder: PathBuf,
}

/// One thing that must survive, or that is made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset<'a> {
    /// What it is called.
    pub name: &'a str,
    /// What it is: `database`, `files`, `secret`, `elsewhere`, `recreated`.
    pub kind: &'static str,
    /// What it means to lose it.
    pub tier: Tier,
    /// The role that owns it.
    pub owner: &'a str,
    /// Where it is.
    pub place: String,
    /// How it comes back.
    pub way_back: String,
}

impl Plan {
    /// Reads and checks a plan. Nothing that it names is opened.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` with the line, the column and the nearest known key.
    pub fn load(path: &Path) -> Result<Self> {
        use std::io::Read as _;
        let file = std::fs::File::open(path).map_err(|error| {
            let error = Error::io("open", path, error);
            if error.kind() == ErrorKind::NotFound {
                let message = format!("there is no plan {}", path.display());
                return Error::new(ErrorKind::NotFound, message)
                    .with_hint("docs/plan.md has one to begin with");
            }
            error
        })?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| Error::io("read", path, error))?;
        if bytes.len() as u64 > MAX_BYTES {
            let message = format!("{}: expected at most {MAX_BYTES} bytes, found more", path.display());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let at = error.valid_up_to();
            Error::new(
                ErrorKind::InvalidInput,
                format!("{}: a plan is UTF-8 text, this is not from byte {at} on", path.display()),
            )
        })?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let folder = parent.canonicalize().map_err(|error| Error::io("read", parent, error))?;
        let plan = Self {
            file: read::parse(path, text)?,
            path: path.to_owned(),
            sha256: Digest::of(&bytes),
            folder,
        };
        check::check(&plan, text)?;
        Ok(plan)
    }

    /// Returns the folder that relative paths begin at.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns a path of the plan as an absolute one.
    #[must_use]
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.join(path)
    }

    /// Returns the repository as the verbs take it.
    #[must_use]
    pub fn repository(&self) -> String {
        let path = &self.file.repository.path;
        if path.contains("://") { path.clone() } else { self.resolve(path).display().to_string() }
    }

    /// Returns the signing key's reference as `--sign-with` takes it.
    #[must_use]
    pub fn sign_with(&self) -> Option<PathBuf> {
        self.file.repository.sign_with.as_ref().map(|reference| key_path(&reference.within(&self.folder)))
    }

    /// Returns the age identity's reference as `--identity` takes it.
    #[must_use]
    pub fn identity(&self) -> Option<PathBuf> {
        self.file.repository.identity.as_ref().map(|reference| key_path(&reference.within(&self.folder)))
    }

    /// Returns the public keys, files as absolute paths.
    #[must_use]
    pub fn public_keys(&self) -> Vec<String> {
        self.keys(&self.file.repository.public_keys)
    }

    /// Returns the public keys that may sign chain records, files as absolute paths.
    #[must_use]
    pub fn chain_keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        for chain in self.file.sources.iter().flat_map(|source| &source.chains) {
            for key in self.keys(&chain.public_keys) {
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        keys
    }

    fn keys(&self, texts: &[String]) -> Vec<String> {
        let file = |text: &String| {
            let path = self.resolve(text);
            if path.exists() { path.display().to_string() } else { text.clone() }
        };
        texts.iter().map(file).collect()
    }

    /// Returns every secret with a reference as `NAME=REF`, the value in force before earlier ones.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for secret in &self.file.secrets {
            for reference in secret.reference.iter().chain(&secret.previous) {
                texts.push(format!("{}={}", secret.name.get_ref(), reference.within(&self.folder)));
            }
        }
        texts
    }

    /// Returns a secret by its name.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.file.secrets.iter().find(|secret| secret.name.get_ref().as_str() == name)
    }

    /// Returns the role that owns something.
    #[must_use]
    pub fn owner<'a>(&'a self, owner: Option<&'a String>) -> &'a str {
        owner.map_or(self.file.plan.owner.as_str(), String::as_str)
    }

    /// Lists every asset, tier A first.
    #[must_use]
    pub fn assets(&self) -> Vec<Asset<'_>> {
        let file = &self.file;
        let mut assets = Vec::new();
        let restored =
            |way: &Option<String>| way.clone().unwrap_or_else(|| "restored from the backup".into());
        for source in &file.sources {
            assets.push(Asset {
                name: source.name.get_ref().as_str(),
                kind: "database",
                tier: source.tier,
                owner: self.owner(source.owner.as_ref()),
                place: source.database.to_string(),
                way_back: restored(&source.way_back),
            });
        }
        for files in &file.files {
            assets.push(Asset {
                name: files.name.get_ref().as_str(),
                kind: "files",
                tier: files.tier,
                owner: self.owner(files.owner.as_ref()),
                place: files.path.display().to_string(),
                way_back: restored(&files.way_back),
            });
        }
        for secret in &file.secrets {
            assets.push(Asset {
                name: secret.name.get_ref().as_str(),
                kind: "secret",
                tier: Tier::A,
                owner: self.owner(secret.owner.as_ref()),
                place: secret
                    .reference
                    .as_ref()
                    .map_or_else(|| "not on this machine".into(), ToString::to_string),
                way_back: format!("from {}; if it is lost, {}", secret.escrow, secret.if_lost.describe()),
            });
        }
        for other in &file.elsewhere {
            assets.push(Asset {
                name: other.name.get_ref().as_str(),
                kind: "elsewhere",
                tier: other.tier,
                owner: self.owner(other.owner.as_ref()),
                place: other.by.clone(),
                way_back: other.way_back.clone().unwrap_or_else(|| format!("from {}", other.by)),
            });
        }
        for made in &file.recreated {
            assets.push(Asset {
                name: made.name.get_ref().as_str(),
                kind: "recreated",
                tier: made.tier,
                owner: self.owner(made.owner.as_ref()),
                place: made.what.clone(),
                way_back: made.way_back.clone(),
            });
        }
        assets.sort_by_key(|asset| asset.tier);
        assets
    }

    /// Says what a backup by this plan does not hold, one sentence each (S1.7).
    #[must_use]
    pub fn not_included(&self) -> Vec<String> {
        let file = &self.file;
        let mut lines = Vec::new();
        for secret in &file.secrets {
            lines.push(format!(
                "the secret {} ({}): escrowed at {}; if it is lost, {}",
                secret.name.get_ref(),
                secret.opens,
                secret.escrow,
                secret.if_lost.describe()
            ));
        }
        for other in &file.elsewhere {
            lines.push(format!("{} ({}): backed up by {}", other.name.get_ref(), other.what, other.by));
        }
        for made in &file.recreated {
            lines.push(format!("{} ({}): made again: {}", made.name.get_ref(), made.what, made.way_back));
        }
        lines
    }
}

/// Spells a reference to a key as the verbs take it: a path, or `env:VAR`.
fn key_path(reference: &SecretRef) -> PathBuf {
    match reference {
        SecretRef::File(path) => path.clone(),
        other => PathBuf::from(other.to_string()),
    }
}
