//! AegisAgent's two chains: receipts of decisions, and the log of policy changes.
//!
//! **Receipts** (`action_receipts`, one chain per `tenant_id`, order of insertion). `receipt_hash` is the
//! lowercase hex SHA-256 of one JSON object, scheme `aegis-jcs-1`: no spaces, raw UTF-8, absent is `null`, and exactly
//! these members, sorted: `action, action_hash, agent_id, approver, decision, event_id` (the row's `id`),
//! `prev_receipt_hash, resource, run_id, source_trust, tool, trace_id, ts, user_id`. The first receipt's
//! `prev_receipt_hash` is empty. `signature` is Ed25519 over the 64 characters of `receipt_hash`, hex, by the
//! `signer_public_key` (hex) of the same row; unsigned rows are allowed.
//!
//! **Policy log** (`policy_audit_log`, per `tenant_id`, order of insertion). `entry_hash` is the same over `action,
//! body_hash, changed_by, diff_summary, id, policy_id, policy_key, prev_hash, tenant_id`.
//!
//! What the hashes do not cover (tenant of a receipt, decision link, times of insertion, signatures) is covered by
//! the whole-row Merkle root of a checkpoint. AegisAgent's own job orders by `created_at` and so calls a clock
//! that stepped back a break; here the order of insertion decides, and the step is a note.

use std::collections::HashMap;

use ed25519_dalek::VerifyingKey;
use sha2::{Digest as _, Sha256};

use crate::canonical::{RowForm, push_string};
use crate::error::{Error, Result};
use crate::format::{ChainFormat, Fault, Link, LinkRules, Record, RecordRule, Seal, Setup};
use crate::keys::KeyRing;
use crate::report::FindingKind;
use crate::signature;
use crate::value::{Columns, Row, Value};

/// The receipt chain of AegisAgent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Receipts;

/// The policy log of AegisAgent, for which the system itself has no verifier.
#[derive(Debug, Clone, Copy, Default)]
pub struct PolicyLog;

/// The columns of the receipts that are read by name.
const RECEIPT_COLUMNS: &[&str] = &[
    "id",
    "tenant_id",
    "ts",
    "agent_id",
    "user_id",
    "run_id",
    "trace_id",
    "tool",
    "action",
    "resource",
    "source_trust",
    "decision",
    "approver",
    "action_hash",
    "prev_receipt_hash",
    "receipt_hash",
    "signature",
    "signer_public_key",
    "signer_key_id",
    "created_at",
];

/// Members of a receipt's hashed object in their order; `event_id` is the column `id`.
const RECEIPT_MEMBERS: &[&str] = &[
    "action",
    "action_hash",
    "agent_id",
    "approver",
    "decision",
    "event_id",
    "prev_receipt_hash",
    "resource",
    "run_id",
    "source_trust",
    "tool",
    "trace_id",
    "ts",
    "user_id",
];

const POLICY_COLUMNS: &[&str] = &[
    "id",
    "tenant_id",
    "policy_id",
    "policy_key",
    "action",
    "changed_by",
    "body_hash",
    "diff_summary",
    "prev_hash",
    "entry_hash",
    "created_at",
];

const POLICY_MEMBERS: &[&str] = &[
    "action",
    "body_hash",
    "changed_by",
    "diff_summary",
    "id",
    "policy_id",
    "policy_key",
    "prev_hash",
    "tenant_id",
];

impl ChainFormat for Receipts {
    fn name(&self) -> &str {
        "aegisagent"
    }

    fn table(&self) -> &str {
        "action_receipts"
    }

    fn columns(&self) -> &[&str] {
        RECEIPT_COLUMNS
    }

    fn time_column(&self) -> Option<&str> {
        Some("ts")
    }

    fn links(&self) -> LinkRules {
        LinkRules { numbered: false, clock: true }
    }

    fn bind(&self, columns: &Columns, setup: &Setup<'_>) -> Result<Box<dyn RecordRule>> {
        let names =
            Names { format: self.name(), hash: "receipt_hash", prev: "prev_receipt_hash", signed: true };
        Rule::bind(columns, setup.keys, &names, RECEIPT_MEMBERS)
    }
}

impl ChainFormat for PolicyLog {
    fn name(&self) -> &str {
        "aegisagent-policy"
    }

    fn table(&self) -> &str {
        "policy_audit_log"
    }

    fn columns(&self) -> &[&str] {
        POLICY_COLUMNS
    }

    fn seals(&self) -> bool {
        false
    }

    fn time_column(&self) -> Option<&str> {
        Some("created_at")
    }

    fn links(&self) -> LinkRules {
        LinkRules { numbered: false, clock: true }
    }

    fn bind(&self, columns: &Columns, setup: &Setup<'_>) -> Result<Box<dyn RecordRule>> {
        let names = Names { format: self.name(), hash: "entry_hash", prev: "prev_hash", signed: false };
        Rule::bind(columns, setup.keys, &names, POLICY_MEMBERS)
    }
}

/// What tells the two chains apart.
struct Names<'a> {
    format: &'a str,
    hash: &'a str,
    prev: &'a str,
    signed: bool,
}

/// The bound rule of either chain.
struct Rule {
    /// Hashed members in order: `"name":` and the column's place.
    members: Vec<(Vec<u8>, Option<usize>)>,
    id: Option<usize>,
    tenant: Option<usize>,
    hash: Option<usize>,
    prev: Option<usize>,
    created: Option<usize>,
    signature: Option<usize>,
    signer: Option<usize>,
    signer_id: Option<usize>,
    signed: bool,
    form: RowForm,
    buffer: Vec<u8>,
    signers: Signers,
}

impl Rule {
    fn bind(
        columns: &Columns,
        keys: &KeyRing,
        names: &Names<'_>,
        members: &[&str],
    ) -> Result<Box<dyn RecordRule>> {
        let id = columns.position("id").or_else(|| columns.position("event_id"));
        let place = |member: &str| match member {
            "event_id" | "id" => id,
            other => columns.position(other),
        };
        let missing: Vec<&str> =
            members.iter().copied().chain([names.hash]).filter(|member| place(member).is_none()).collect();
        // A source without a header has no rows.
        if !missing.is_empty() && !columns.names().is_empty() {
            return Err(Error::NotThisFormat {
                input: "the input".into(),
                format: names.format.to_owned(),
                what: format!("no column {}; found {}", missing.join(", "), columns.names().join(", ")),
            });
        }
        Ok(Box::new(Self {
            members: members
                .iter()
                .map(|member| {
                    let mut name = Vec::new();
                    push_string(&mut name, member);
                    name.push(b':');
                    (name, place(member))
                })
                .collect(),
            id,
            tenant: columns.position("tenant_id"),
            hash: columns.position(names.hash),
            prev: columns.position(names.prev),
            created: columns.position("created_at"),
            signature: columns.position("signature"),
            signer: columns.position("signer_public_key"),
            signer_id: columns.position("signer_key_id"),
            signed: names.signed,
            form: RowForm::new(columns),
            buffer: Vec::with_capacity(1_024),
            signers: Signers::new(keys),
        }))
    }

    /// Hashes the canonical object of the row that `form` wrote last: its values are the same text.
    fn digest(&mut self) -> [u8; 32] {
        let buffer = &mut self.buffer;
        buffer.clear();
        buffer.push(b'{');
        for (at, (name, column)) in self.members.iter().enumerate() {
            if at > 0 {
                buffer.push(b',');
            }
            buffer.extend_from_slice(name);
            match self.form.value(*column) {
                [] => buffer.extend_from_slice(b"null"),
                value => buffer.extend_from_slice(value),
            }
        }
        buffer.push(b'}');
        Sha256::digest(&*buffer).into()
    }
}

impl RecordRule for Rule {
    fn record(&mut self, row: &Row<'_>, emit: &mut dyn FnMut(Record<'_>) -> Result<()>) -> Result<()> {
        let mut faults = Vec::new();
        let stored = row.at(self.hash);
        let link = Link::of_value(stored);
        let leaf = self.form.leaf(row);
        let digest = self.digest();
        if link != Link::Digest(digest) {
            faults.push(Fault {
                kind: if matches!(link, Link::Digest(_)) {
                    FindingKind::Edited
                } else {
                    FindingKind::Malformed
                },
                expected: Some(stored.as_text().map_or_else(|| stored.type_name().to_owned(), str::to_owned)),
                found: Some(hex::encode(digest)),
                explains: "the row's content does not hash to its stored hash".into(),
            });
        }
        let seal = if self.signed {
            let (signature, signer) = (row.at(self.signature), row.at(self.signer));
            self.signers.check(stored, signature, signer, row.at(self.signer_id), &mut faults)
        } else {
            Seal::None
        };
        emit(Record {
            chain: row.at(self.tenant).as_text().unwrap_or(""),
            id: row.at(self.id).as_text().unwrap_or(""),
            number: None,
            prev: Link::of_value(row.at(self.prev)),
            link,
            leaf,
            time: row.at(self.created).as_text().and_then(clock),
            seal,
            faults,
            ..Record::default()
        })
    }

    fn key_labels(&self) -> Vec<String> {
        self.signers.labels.clone()
    }
}

/// The public keys met in rows, each decoded once.
struct Signers {
    trusted: Vec<VerifyingKey>,
    known: HashMap<(String, String), Option<Signer>>,
    labels: Vec<String>,
}

/// One signer's key.
#[derive(Clone, Copy)]
struct Signer {
    key: VerifyingKey,
    trusted: bool,
    label: u16,
}

impl Signers {
    fn new(keys: &KeyRing) -> Self {
        Self { trusted: keys.public_keys().to_vec(), known: HashMap::new(), labels: Vec::new() }
    }

    /// Checks a row's signature over its stored hash text.
    fn check(
        &mut self,
        stored: Value<'_>,
        signature: Value<'_>,
        signer: Value<'_>,
        signer_id: Value<'_>,
        faults: &mut Vec<Fault>,
    ) -> Seal {
        let (text, signer) = match (signature, signer) {
            (signature, _) if signature.is_null() => return Seal::None,
            (Value::Text(text), Value::Text(signer)) => (text, signer),
            (_, signer) => {
                faults.push(Fault {
                    kind: FindingKind::SignatureInvalid,
                    expected: Some("a signature and its signer's public key, in hex".into()),
                    found: Some(format!("signer: {}", signer.type_name())),
                    explains: "the row has a signature but does not say whose".into(),
                });
                return Seal::Bad;
            }
        };
        let Some(known) = self.signer(signer, signer_id.as_text().unwrap_or("")) else {
            faults.push(Fault {
                kind: FindingKind::SignatureInvalid,
                expected: Some("an Ed25519 public key, 64 hexadecimal digits".into()),
                found: Some(signer.chars().take(80).collect()),
                explains: "the row's signer is no valid public key".into(),
            });
            return Seal::Bad;
        };
        let mut bytes = [0_u8; 64];
        let holds = hex::decode_to_slice(text, &mut bytes).is_ok()
            && stored
                .as_text()
                .is_some_and(|message| signature::verify(&known.key, message.as_bytes(), &bytes).is_ok());
        if !holds {
            faults.push(Fault {
                kind: FindingKind::SignatureInvalid,
                expected: Some(format!("a signature of the stored hash by {signer}")),
                found: Some(text.chars().take(160).collect()),
                explains: "the signature does not fit the stored hash".into(),
            });
            return Seal::Bad;
        }
        if known.trusted {
            return Seal::Verified(known.label);
        }
        if self.trusted.is_empty() {
            return Seal::SelfVouched(known.label);
        }
        faults.push(Fault {
            kind: FindingKind::UnknownKey,
            expected: Some("a signer among the trusted public keys".into()),
            found: Some(signer.to_owned()),
            explains: "signed by a key that is not trusted".into(),
        });
        Seal::Unchecked(known.label)
    }

    /// Decodes a public key once.
    fn signer(&mut self, signer: &str, id: &str) -> Option<Signer> {
        let name = (signer.to_owned(), id.to_owned());
        if let Some(known) = self.known.get(&name) {
            return *known;
        }
        let mut bytes = [0_u8; 32];
        let key =
            hex::decode_to_slice(signer, &mut bytes).ok().and_then(|()| signature::public_key(&bytes).ok());
        let found = key.map(|key| {
            let trusted = self.trusted.contains(&key);
            let vouched = if trusted { "" } else { " (named by the rows only)" };
            let label =
                if id.is_empty() { format!("{signer}{vouched}") } else { format!("{id} {signer}{vouched}") };
            self.labels.push(label);
            Signer { key, trusted, label: u16::try_from(self.labels.len() - 1).unwrap_or(u16::MAX) }
        });
        // A table full of made-up signers must not fill the memory.
        if self.known.len() < 4_096 {
            self.known.insert(name, found);
        }
        found
    }
}

/// Reads `YYYY-MM-DD HH:MM:SS[.ffffff]` (or with `T`) as one growing number. Only its order has a meaning.
fn clock(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| {
        bytes
            .get(from..to)?
            .iter()
            .try_fold(0_i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let days = (digits(0, 4)? * 12 + digits(5, 7)?) * 31 + digits(8, 10)?;
    let seconds = (digits(11, 13)? * 60 + digits(14, 16)?) * 60 + digits(17, 19)?;
    let mut fraction = 0;
    if bytes.get(19) == Some(&b'.') {
        for at in 20..26 {
            let digit =
                bytes.get(at).filter(|byte| byte.is_ascii_digit()).map_or(0, |byte| i64::from(byte - b'0'));
            fraction = fraction * 10 + digit;
        }
    }
    Some((days * 86_400 + seconds) * 1_000_000 + fraction)
}
