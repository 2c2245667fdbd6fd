//! Bring your own chain: a table described by a small TOML file is verified without writing code.
//!
//! A [`Profile`] is read from its text ([`Profile::parse`], [`Profile::load`]) and is then a [`ChainFormat`] like the
//! built-in ones. docs/chains/bring-your-own.md describes every key with a worked example. In short:
//!
//! ```toml
//! profile = 1                    # the version of this layout
//! name = "orders"                # the format's name in reports and checkpoints
//! table = "audit"                # the table in a database
//! chain = ["tenant"]             # columns that tell chains apart; none: one chain
//! number = "seq"                 # the record's number, from `first_number` (1) without gaps; may be left out
//! order = ["tenant", "seq"]      # chain order; left out: the number, else the order of the input
//! id = "id"                      # what findings call a record
//! time = "at"                    # a clock whose steps back are noted
//! integers = ["seq"]             # for inputs without types (CSV)
//! [form]                         # what is hashed (profile/form.rs)
//! [hash]                         # column, algorithm, encoding; secret and key id where it is an HMAC
//! [link]                         # the column with the predecessor's hash; what the first record has there
//! [seal]                         # an HMAC or Ed25519 signature besides the hash
//! ```
//!
//! A profile that cannot be right is refused with its line and the reason; an unknown key with the nearest known one.
//! Not expressible: a hash over a predecessor that is not stored in the row, and several forms in one table.

mod form;
mod keys;
mod read;
mod rule;

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::format::{ChainFormat, Conclusion, LinkRules, RecordRule, Setup, Start};
use crate::report::FindingKind;
use crate::runs::{Runs, UnsignedRule, What};
use crate::value::Columns;

use self::form::Form;
use self::keys::{Encoding, Keyed, MacKeys};

/// The version of the layout that this program reads.
pub const VERSION: i64 = 1;

/// How long a profile may be, in bytes.
pub const MAX_BYTES: u64 = 64 << 10;

/// What stands before the beginning of what was hashed, in a finding.
const HASHED: &str = "; what was hashed begins with ";

/// A chain format that a TOML file describes.
#[derive(Debug, Clone)]
pub struct Profile {
    text: Arc<str>,
    name: &'static str,
    table: &'static str,
    columns: Vec<&'static str>,
    order: Vec<&'static str>,
    integers: Vec<&'static str>,
    chain: Vec<String>,
    id: Option<String>,
    number: Option<String>,
    first_number: i64,
    time: Option<String>,
    form: Form,
    hash: Hash,
    link: LinkColumn,
    seal: Option<SealColumn>,
    head_commits: bool,
}

/// The record's own hash.
#[derive(Debug, Clone)]
struct Hash {
    /// Where it is stored; without it a record's hash is only in its successor.
    column: Option<String>,
    algorithm: Algorithm,
    encoding: Encoding,
    /// Text before the digits: `sha256:`.
    text_prefix: String,
    /// Where the hash is an HMAC: its key.
    keyed: Option<Keyed>,
    /// Whether a record whose key id is NULL has a plain hash.
    keyless: bool,
}

/// A digest algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

/// What a record says of its predecessor.
#[derive(Debug, Clone)]
struct LinkColumn {
    column: String,
    /// What the first record says; `None` is NULL or empty text.
    genesis: Option<String>,
}

/// A seal besides the hash.
#[derive(Debug, Clone)]
struct SealColumn {
    column: String,
    encoding: Encoding,
    over: Over,
    required: bool,
    kind: SealKind,
}

/// What a seal is over.
#[derive(Debug, Clone)]
enum Over {
    /// The bytes of the hash.
    Hash,
    /// The hash as it is stored.
    HashText,
    /// What is hashed.
    Form,
    /// Another form, of a template.
    Template(Form),
}

/// What a seal is made with.
#[derive(Debug, Clone)]
enum SealKind {
    Hmac(Algorithm, Keyed),
    Ed25519 {
        /// The column with the signer's public key, where rows name it.
        public_key: Option<(String, Encoding)>,
        /// The column with the key's id, for reports.
        key_id: Option<String>,
    },
}

impl Profile {
    /// Reads a profile from a file.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::Malformed`] when it is no UTF-8, and as [`Profile::parse`].
    pub fn load(path: &Path) -> Result<Self> {
        let failed = |source| Error::Io { action: "read", path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        // One byte more tells that it is too long.
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        let input = path.display().to_string();
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let before = bytes.get(..error.valid_up_to()).unwrap_or(&[]);
            let line = memchr::memchr_iter(b'\n', before).count() + 1;
            Error::Malformed { input: input.clone(), place: format!("line {line}"), what: "not UTF-8".into() }
        })?;
        Self::parse(&input, text)
    }

    /// Reads a profile from its text; `input` names it in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the line and the reason when it is no TOML, has an unknown key or cannot be right.
    pub fn parse(input: &str, text: &str) -> Result<Self> {
        if text.len() as u64 > MAX_BYTES {
            return Err(Error::Malformed {
                input: input.to_owned(),
                place: "line 1".into(),
                what: format!("a profile has at most {MAX_BYTES} bytes"),
            });
        }
        read::profile(input, text)
    }

    /// Returns the keyed hash or seal, where there is one.
    fn keyed(&self) -> Option<&Keyed> {
        match &self.seal {
            Some(SealColumn { kind: SealKind::Hmac(_, keyed), .. }) => Some(keyed),
            _ => self.hash.keyed.as_ref(),
        }
    }
}

/// Keeps a name for as long as the process lives: what [`ChainFormat`] hands out outlives no profile, but its type says so.
fn keep(name: &str) -> &'static str {
    static KEPT: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = kept.get_or_insert_default();
    if let Some(known) = kept.get(name) {
        return known;
    }
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    kept.insert(name);
    name
}

impl ChainFormat for Profile {
    fn name(&self) -> &str {
        self.name
    }

    fn table(&self) -> &str {
        self.table
    }

    fn definition(&self) -> Option<&str> {
        Some(&self.text)
    }

    fn columns(&self) -> &[&str] {
        &self.columns
    }

    fn integers(&self) -> &[&str] {
        &self.integers
    }

    fn order(&self) -> &[&str] {
        &self.order
    }

    fn links(&self) -> LinkRules {
        LinkRules { numbered: self.number.is_some(), clock: self.time.is_some() }
    }

    fn seals(&self) -> bool {
        self.seal.is_some() || self.hash.keyed.is_some()
    }

    fn head_commits(&self) -> bool {
        self.head_commits
    }

    fn bind(&self, columns: &Columns, setup: &Setup<'_>) -> Result<Box<dyn RecordRule>> {
        rule::bind(self, columns, setup.keys)
    }

    fn start(&self, _chain: &str, _setup: &Setup<'_>) -> Start {
        Start { number: self.first_number, ..Start::default() }
    }

    fn conclude(&self, setup: &Setup<'_>, whole: &mut Conclusion<'_>) -> Result<()> {
        // One look at what was hashed shows what the profile gets wrong; more would repeat the table.
        let edited = whole.findings().iter_mut().filter(|finding| finding.kind == FindingKind::Edited);
        for finding in edited.skip(1) {
            if let Some(at) = finding.explains.find(HASHED) {
                finding.explains.truncate(at);
            }
        }
        let required = self.seal.as_ref().is_some_and(|seal| seal.required);
        let (keyless, secret, named, is_hash) = match (self.keyed(), &self.seal) {
            (Some(keyed), seal) => {
                let keys = MacKeys::new(keyed, Algorithm::Sha256, setup.keys)?;
                (
                    keys.is_empty(),
                    keyed.secret.as_deref().unwrap_or("secret"),
                    keyed.names_keys(),
                    seal.is_none(),
                )
            }
            (None, Some(SealColumn { kind: SealKind::Ed25519 { public_key, .. }, .. })) => {
                (setup.keys.public_keys().is_empty(), "public key", public_key.is_some(), false)
            }
            (None, _) => return Ok(()),
        };
        let unsigned = match (&self.seal, required || (is_hash && !self.hash.keyless)) {
            (_, true) | (Some(SealColumn { kind: SealKind::Ed25519 { .. }, .. }), false) => {
                UnsignedRule::Leave
            }
            (None, false) => UnsignedRule::BehindSigned,
            (Some(_), false) => UnsignedRule::Any,
        };
        Runs {
            keyless,
            secret,
            what: match &self.seal {
                Some(SealColumn { kind: SealKind::Ed25519 { .. }, .. }) => What::Signature,
                _ => What::Hmac,
            },
            forged: if is_hash { FindingKind::Edited } else { FindingKind::SignatureInvalid },
            explains: if is_hash {
                "the record is not what its hash commits to under the key of the records around it"
            } else {
                "the seal does not fit the record under the key of the records around it"
            },
            whole_record: is_hash,
            unfit: !named,
            unsigned,
        }
        .judge(whole);
        Ok(())
    }
}
