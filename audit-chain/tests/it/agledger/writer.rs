//! Writes honest dumps of either API by the format's text alone: its own CBOR, its own trees, test keys.

use std::path::Path;

use audit_chain::merkle::{self, Hash};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ciborium_ll::{Encoder, Header};
use ed25519_dalek::Signer as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// A CBOR value; maps are written in the deterministic order.
#[derive(Debug, Clone)]
pub(crate) enum Cbor {
    Int(i64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Self>),
    Map(Vec<(Self, Self)>),
    Bool(bool),
    Float(f64),
    Null,
}

impl Cbor {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn map<const N: usize>(members: [(&str, Self); N]) -> Self {
        Self::Map(members.into_iter().map(|(name, value)| (Self::text(name), value)).collect())
    }

    pub(crate) fn of_json(json: &Value) -> Self {
        match json {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => {
                number.as_i64().map_or_else(|| Self::Float(number.as_f64().unwrap()), Self::Int)
            }
            Value::String(text) => Self::text(text),
            Value::Array(items) => Self::Array(items.iter().map(Self::of_json).collect()),
            Value::Object(members) => Self::Map(
                members.iter().map(|(name, value)| (Self::text(name), Self::of_json(value))).collect(),
            ),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::from(&mut out);
        match self {
            Self::Int(value) => encoder
                .push(match u64::try_from(*value) {
                    Ok(value) => Header::Positive(value),
                    Err(_) => Header::Negative(value.cast_unsigned() ^ !0),
                })
                .unwrap(),
            Self::Bytes(bytes) => encoder.bytes(bytes, None).unwrap(),
            Self::Text(text) => encoder.text(text, None).unwrap(),
            Self::Bool(value) => encoder.push(Header::Simple(20 + u8::from(*value))).unwrap(),
            Self::Float(value) => encoder.push(Header::Float(*value)).unwrap(),
            Self::Null => encoder.push(Header::Simple(22)).unwrap(),
            Self::Array(items) => {
                encoder.push(Header::Array(Some(items.len()))).unwrap();
                items.iter().for_each(|item| out.extend(item.encode()));
            }
            Self::Map(members) => {
                encoder.push(Header::Map(Some(members.len()))).unwrap();
                let mut members: Vec<_> =
                    members.iter().map(|(key, value)| (key.encode(), value.encode())).collect();
                members.sort();
                members.into_iter().for_each(|(key, value)| out.extend([key, value].concat()));
            }
        }
        out
    }
}

/// A test key.
#[derive(Debug, Clone)]
pub(crate) enum Key {
    Ed25519(Box<ed25519_dalek::SigningKey>),
    P256(Box<p256::ecdsa::SigningKey>),
}

impl Key {
    pub(crate) fn ed25519(seed: u8) -> Self {
        Self::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(&[seed; 32])))
    }

    pub(crate) fn p256(seed: u8) -> Self {
        Self::P256(Box::new(p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap()))
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => {
                [hex::decode("302a300506032b6570032100").unwrap(), key.verifying_key().to_bytes().to_vec()]
                    .concat()
            }
            Self::P256(key) => [
                hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap(),
                key.verifying_key().to_encoded_point(false).as_bytes().to_vec(),
            ]
            .concat(),
        }
    }

    pub(crate) fn digest(&self) -> Hash {
        Sha256::digest(self.spki()).into()
    }

    pub(crate) fn id(&self) -> String {
        hex::encode(&self.digest()[..8])
    }

    pub(crate) fn anchor(&self) -> String {
        format!("sha256:{}", hex::encode(self.digest()))
    }

    pub(crate) const fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "Ed25519",
            Self::P256(_) => "ES256",
        }
    }

    pub(crate) const fn alg(&self) -> i64 {
        match self {
            Self::Ed25519(_) => -8,
            Self::P256(_) => -7,
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = p256::ecdsa::signature::Signer::sign(&**key, message);
                signature.to_bytes().to_vec()
            }
        }
    }
}

/// Signs an envelope; without a key, the signature is 64 zero bytes.
pub(crate) fn cose(protected: &[u8], payload: &[u8], key: Option<&Key>) -> Vec<u8> {
    let bytes = |bytes: &[u8]| Cbor::Bytes(bytes.to_vec());
    let signed =
        Cbor::Array(vec![Cbor::text("Signature1"), bytes(protected), bytes(&[]), bytes(payload)]).encode();
    let signature = key.map_or_else(|| vec![0; 64], |key| key.sign(&signed));
    let body = Cbor::Array(vec![bytes(protected), Cbor::Map(Vec::new()), bytes(payload), bytes(&signature)]);
    [vec![0xd2], body.encode()].concat()
}

/// Spells milliseconds since 2026-09-01 as a dump does.
pub(crate) fn time(millis: i64) -> String {
    micros(millis).replace("000Z", "Z")
}

/// Spells milliseconds since 2026-09-01 as a key statement does.
pub(crate) fn micros(millis: i64) -> String {
    let (seconds, fraction) = (millis.div_euclid(1_000), millis.rem_euclid(1_000));
    let (day, seconds) = (1 + seconds / 86_400, seconds % 86_400);
    format!(
        "2026-09-{day:02}T{:02}:{:02}:{:02}.{fraction:03}000Z",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Makes a uuid that sorts by its number.
pub(crate) fn uuid(kind: u8, number: u64) -> String {
    format!("{number:08x}-{kind:02x}00-4000-8000-{number:012x}")
}

pub(crate) fn uuid_bytes(text: &str) -> Vec<u8> {
    hex::decode(text.replace('-', "")).unwrap()
}

/// What an envelope signs beside its predicate.
pub(crate) struct Claims<'c> {
    pub(crate) kind: &'c str,
    pub(crate) sub: &'c str,
    pub(crate) subject: (&'c str, Vec<u8>),
    pub(crate) position: i64,
    pub(crate) previous: Option<&'c [u8]>,
    pub(crate) actor: (&'c str, &'c str, &'c str),
    pub(crate) key: Option<&'c Key>,
}

/// Writes the protected header and the statement, and signs them.
pub(crate) fn envelope(claims: &Claims<'_>, predicate: Cbor) -> Vec<u8> {
    let kid = claims.key.map_or_else(|| vec![0; 8], |key| key.digest()[..8].to_vec());
    let (key, role, owner) = claims.actor;
    let actor = Cbor::Map(vec![
        (Cbor::Int(1), Cbor::Bytes(uuid_bytes(key))),
        (Cbor::Int(2), Cbor::text(role)),
        (Cbor::Int(3), Cbor::Bytes(uuid_bytes(owner))),
    ]);
    let cwt = Cbor::Map(vec![
        (Cbor::Int(1), Cbor::text("https://ledger.example")),
        (Cbor::Int(2), Cbor::text(claims.sub)),
        (Cbor::Int(6), Cbor::Int(1_788_220_801)),
        (Cbor::Int(-65_539), actor),
    ]);
    let previous = claims.previous.map_or(Cbor::Null, |hash| Cbor::Bytes(hash.to_vec()));
    let protected = Cbor::Map(vec![
        (Cbor::Int(1), Cbor::Int(claims.key.map_or(-8, Key::alg))),
        (Cbor::Int(3), Cbor::text("application/vnd.in-toto+cbor")),
        (Cbor::Int(4), Cbor::Bytes(kid)),
        (Cbor::Int(15), cwt),
        (
            Cbor::Int(-65_537),
            Cbor::Map(vec![(Cbor::Int(1), Cbor::Int(claims.position)), (Cbor::Int(2), previous)]),
        ),
    ]);
    let (name, digest) = &claims.subject;
    let statement = Cbor::map([
        ("_type", Cbor::text("https://in-toto.io/Statement/v1")),
        (
            "subject",
            Cbor::Array(vec![Cbor::map([
                ("name", Cbor::text(*name)),
                ("digest", Cbor::map([("sha256", Cbor::Bytes(digest.clone()))])),
            ])]),
        ),
        ("predicate", predicate),
        ("predicateType", Cbor::text(format!("https://agledger.ai/predicates/{}/v1", claims.kind))),
    ]);
    cose(&protected.encode(), &statement.encode(), claims.key)
}

const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

type Row = Map<String, Value>;

fn object(value: Value) -> Row {
    match value {
        Value::Object(row) => row,
        other => panic!("{other}"),
    }
}

/// The files of a dump, as rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dump {
    pub(crate) vault: Vec<Row>,
    pub(crate) checkpoints: Vec<Row>,
    pub(crate) keys: Vec<Row>,
    /// `None` in a dump of API 1.x.
    pub(crate) statements: Option<Vec<Row>>,
    pub(crate) reads: Vec<Row>,
    pub(crate) heads: Vec<Row>,
    clock: i64,
    ids: u64,
}

impl Dump {
    /// Begins a dump of API 2.0 (`true`) or 1.x.
    pub(crate) fn new(two: bool) -> Self {
        Self { statements: two.then(Vec::new), clock: 1_000, ..Self::default() }
    }

    /// Moves the clock on and returns it, in milliseconds.
    pub(crate) fn tick(&mut self) -> i64 {
        self.clock += 7;
        self.clock
    }

    fn id(&mut self) -> String {
        self.ids += 1;
        uuid(0xee, self.ids)
    }

    /// Registers a key, active from now.
    pub(crate) fn register(&mut self, key: &Key) -> i64 {
        let now = self.tick();
        self.keys.push(object(json!({
            "key_id": key.id(), "public_key": STANDARD.encode(key.spki()), "algorithm": key.algorithm(),
            "status": "active", "activated_at": time(now), "retired_at": null, "retired_by": null,
        })));
        now
    }

    /// Retires a key now.
    pub(crate) fn retire(&mut self, key: &Key) -> i64 {
        let now = self.tick();
        let row = self.keys.iter_mut().find(|row| row["key_id"] == key.id()).unwrap();
        row.insert("status".into(), json!("retired"));
        row.insert("retired_at".into(), json!(time(now)));
        now
    }

    /// Adds a statement; `signers` sign in their order.
    pub(crate) fn state(
        &mut self,
        kind: &str,
        payload: &Cbor,
        subject: &Key,
        endorser: Option<&Key>,
        signers: &[&Key],
    ) {
        let payload = payload.encode();
        let statement: Vec<Value> = signers
            .iter()
            .map(|key| {
                let protected = Cbor::Map(vec![
                    (Cbor::Int(1), Cbor::Int(key.alg())),
                    (Cbor::Int(3), Cbor::text("application/vnd.agledger.key-statement+cbor")),
                    (Cbor::Int(4), Cbor::Bytes(key.digest()[..8].to_vec())),
                ]);
                json!(STANDARD.encode(cose(&protected.encode(), &payload, Some(key))))
            })
            .collect();
        let (id, created) = (self.id(), time(self.tick()));
        self.statements.as_mut().unwrap().push(object(json!({
            "id": id, "kind": kind, "subject_key_id": subject.id(), "endorser_key_id": endorser.map(Key::id),
            "statement": statement, "created_at": created,
        })));
    }

    /// Registers a key with its genesis.
    pub(crate) fn genesis(&mut self, key: &Key) {
        let at = self.register(key);
        self.state("genesis", &payload("genesis", key, at, None, None, None), key, None, &[key]);
    }

    /// Registers a key that another admits.
    pub(crate) fn succession(&mut self, from: &Key, key: &Key) {
        let at = self.register(key);
        self.state(
            "succession",
            &payload("succession", key, at, None, Some(from), None),
            key,
            Some(from),
            &[from, key],
        );
    }

    /// Retires a key by another's closure.
    pub(crate) fn closure(&mut self, by: &Key, key: &Key, forced: bool) {
        let row = self.keys.iter().find(|row| row["key_id"] == key.id()).unwrap();
        let activated = millis_of(row["activated_at"].as_str().unwrap());
        let at = self.retire(key);
        let payload = payload("closure", key, activated, Some(at), Some(by), Some(forced));
        self.state("closure", &payload, key, Some(by), &[by]);
    }

    /// Appends an entry to the chain of a record and returns its place in `vault`.
    pub(crate) fn entry(
        &mut self,
        record: &str,
        entry_type: &str,
        payload: &Value,
        key: Option<&Key>,
    ) -> usize {
        let now = self.tick();
        self.entry_at(record, entry_type, payload, key, now)
    }

    /// The same, written at a time of the caller's.
    pub(crate) fn entry_at(
        &mut self,
        record: &str,
        entry_type: &str,
        payload: &Value,
        key: Option<&Key>,
        now: i64,
    ) -> usize {
        let schema = record.starts_with("schema:");
        let before = self.vault.iter().rev().find(|row| row["chain_key"] == record);
        let position = before.map_or(1, |row| row["chain_position"].as_i64().unwrap() + 1);
        let previous = before.map(|row| row["payload_hash"].as_str().unwrap().to_owned());
        let previous_bytes = previous.as_ref().map(|hash| hex::decode(hash).unwrap());
        let actor = (uuid(0x0c, 3), uuid(0x0d, 4));
        let behalf = json!({"oidc": {"iss": "https://idp.example", "sub": "agent-7"}});
        let oidc = payload.get("oidc") == Some(&json!(true));
        let predicate = if schema {
            project_schema(entry_type, payload)
        } else {
            project(record, entry_type, payload, oidc.then_some(&behalf))
        };
        let sub = record.strip_prefix("schema:").unwrap_or(record);
        let bytes = envelope(
            &Claims {
                kind: "record-state",
                sub,
                subject: ("record_id", Sha256::digest(sub).to_vec()),
                position,
                previous: previous_bytes.as_deref(),
                actor: (&actor.0, "agent", &actor.1),
                key,
            },
            predicate,
        );
        let id = self.id();
        self.vault.push(object(json!({
            "id": id, "record_id": if schema { Value::Null } else { json!(record) }, "chain_key": record,
            "entry_type": entry_type, "payload": payload, "payload_hash": hex::encode(Sha256::digest(&bytes)),
            "previous_hash": previous, "chain_position": position, "cose_sign1": STANDARD.encode(&bytes),
            "signing_key_id": key.map(Key::id), "actor_key_id": actor.0, "actor_role": "agent",
            "actor_owner_id": actor.1, "actor_oidc_iss": oidc.then_some("https://idp.example"),
            "actor_oidc_sub": oidc.then_some("agent-7"), "actor_oidc_synthesized": oidc, "created_at": time(now),
        })));
        self.vault.len() - 1
    }

    /// Anchors the tip of a chain.
    pub(crate) fn checkpoint(&mut self, record: &str, key: Option<&Key>) {
        let tip = self.vault.iter().rev().find(|row| row["chain_key"] == record).unwrap().clone();
        // A schema chain's record id is a made-up uuid of version 8.
        let id = if record.starts_with("schema:") { "00000000-0000-8000-8000-00000000abcd" } else { record };
        let (position, hash) =
            (tip["chain_position"].as_i64().unwrap(), tip["payload_hash"].as_str().unwrap());
        let bytes = envelope(
            &Claims {
                kind: "vault-checkpoint",
                sub: id,
                subject: ("record_id", Sha256::digest(uuid_bytes(id)).to_vec()),
                position,
                previous: None,
                actor: (NOBODY, "platform", NOBODY),
                key,
            },
            anchor(hash, 1, position, position),
        );
        let (row_id, now) = (self.id(), time(self.tick()));
        let mut row = object(json!({
            "id": row_id, "record_id": id, "chain_key": record, "chain_position": position, "payload_hash": hash,
            "cose_sign1": STANDARD.encode(bytes), "signing_key_id": key.map(Key::id), "created_at": now,
        }));
        if self.statements.is_none() {
            row.remove("chain_key");
        }
        self.checkpoints.push(row);
    }

    fn leaves(&self, org: &str) -> Vec<Row> {
        self.reads.iter().filter(|row| row["org_id"] == org).cloned().collect()
    }

    /// Appends a leaf to an organisation's read log.
    pub(crate) fn read(&mut self, org: &str, record: &str, key: Option<&Key>) {
        let leaves = self.leaves(org);
        let previous = leaves.last().map(|row| hex::decode(row["leaf_hash"].as_str().unwrap()).unwrap());
        let (reader, index) = (uuid(0x0e, 5), leaves.len());
        let short = hex::encode(Sha256::digest(uuid_bytes(&reader)));
        let bytes = envelope(
            &Claims {
                kind: "org-read",
                sub: record,
                subject: ("record_id", Sha256::digest(uuid_bytes(record)).to_vec()),
                position: i64::try_from(index).unwrap() + 1,
                previous: previous.as_deref(),
                actor: (&reader, "admin", org),
                key,
            },
            Cbor::map([
                ("record_id", Cbor::text(record)),
                ("reader_key_id", Cbor::text(&short[..32])),
                ("signed_checkpoint_ref", Cbor::Null),
                (
                    "traces",
                    Cbor::map([
                        ("read_context", Cbor::text("interactive")),
                        ("filter_applied", Cbor::text("org")),
                    ]),
                ),
            ]),
        );
        let hash =
            if self.statements.is_some() { merkle::leaf_hash(&bytes) } else { Sha256::digest(&bytes).into() };
        let (id, now) = (self.id(), time(self.tick()));
        self.reads.push(object(json!({
            "id": id, "org_id": org, "caller_key_id": reader, "record_id": record, "filter_applied": "org",
            "read_context": "interactive", "export_batch_id": null, "read_at": now, "leaf_index": index,
            "leaf_hash": hex::encode(hash), "cose_sign1": STANDARD.encode(bytes),
        })));
    }

    /// Signs the tree head of an organisation.
    pub(crate) fn head(&mut self, org: &str, key: Option<&Key>) {
        let leaves: Vec<Hash> = self
            .leaves(org)
            .iter()
            .map(|row| hex::decode(row["leaf_hash"].as_str().unwrap()).unwrap().try_into().unwrap())
            .collect();
        let root = if self.statements.is_some() { merkle::root(&leaves) } else { legacy_root(&leaves) };
        let size = i64::try_from(leaves.len()).unwrap();
        let bytes = envelope(
            &Claims {
                kind: "vault-checkpoint",
                sub: org,
                subject: ("org_admin_reads_root", root.to_vec()),
                position: size,
                previous: None,
                actor: (NOBODY, "platform", NOBODY),
                key,
            },
            anchor(&hex::encode(root), 0, size - 1, size),
        );
        let (id, now) = (self.id(), time(self.tick()));
        self.heads.push(object(json!({
            "id": id, "org_id": org, "tree_size": size, "root_hash": hex::encode(root), "checkpoint_at": now,
            "log_id": org, "cose_sign1": STANDARD.encode(bytes), "signing_key_id": key.map(Key::id),
            "witness_signature": null, "witness_key_id": null, "witness_cosigned_at": null,
        })));
    }

    /// Puts another envelope into a row of the vault and stamps its hash.
    pub(crate) fn restamp(&mut self, row: usize, envelope: &[u8]) {
        self.vault[row].insert("cose_sign1".into(), json!(STANDARD.encode(envelope)));
        self.vault[row].insert("payload_hash".into(), json!(hex::encode(Sha256::digest(envelope))));
    }

    /// Writes the files, rows of the vault in the producer's order.
    pub(crate) fn write(&self, folder: &Path) {
        let mut vault = self.vault.clone();
        vault.sort_by_key(|row| {
            (row["record_id"].is_null(), row["record_id"].to_string(), row["chain_position"].as_i64())
        });
        self.write_as_is(folder, &vault);
    }

    /// Writes the files with these rows of the vault.
    pub(crate) fn write_as_is(&self, folder: &Path, vault: &[Row]) {
        let tables = [
            ("audit_vault", Some(vault)),
            ("vault_checkpoints", Some(&self.checkpoints[..])),
            ("vault_signing_keys", Some(&self.keys)),
            ("vault_key_statements", self.statements.as_deref()),
            ("org_admin_reads", Some(&self.reads)),
            ("org_admin_reads_checkpoints", Some(&self.heads)),
        ];
        for (name, rows) in tables {
            let Some(rows) = rows else { continue };
            let text: String = rows.iter().map(|row| format!("{}\n", Value::Object(row.clone()))).collect();
            std::fs::write(folder.join(format!("{name}.ndjson")), text).unwrap();
        }
    }
}

/// Writes the payload of a key statement.
pub(crate) fn payload(
    kind: &str,
    subject: &Key,
    activated: i64,
    retired: Option<i64>,
    endorser: Option<&Key>,
    forced: Option<bool>,
) -> Cbor {
    let mut about = vec![
        (Cbor::text("kid"), Cbor::text(subject.id())),
        (Cbor::text("spkiSha256"), Cbor::text(hex::encode(subject.digest()))),
        (Cbor::text("alg"), Cbor::text(subject.algorithm())),
        (Cbor::text("spki"), Cbor::Bytes(subject.spki())),
        (Cbor::text("activatedAt"), Cbor::text(micros(activated))),
    ];
    about.extend(retired.map(|at| (Cbor::text("retiredAt"), Cbor::text(micros(at)))));
    let mut members = vec![
        (Cbor::text("typ"), Cbor::text(kind)),
        (Cbor::text("iss"), Cbor::text("https://ledger.example")),
        (Cbor::text("iat"), Cbor::Int(1_788_220_801)),
        (Cbor::text("subject"), Cbor::Map(about)),
    ];
    members.extend(endorser.map(|key| {
        let names =
            Cbor::map([("kid", Cbor::text(key.id())), ("spkiSha256", Cbor::text(hex::encode(key.digest())))]);
        (Cbor::text("endorser"), names)
    }));
    members.extend(forced.map(|forced| (Cbor::text("forced"), Cbor::Bool(forced))));
    Cbor::Map(members)
}

fn millis_of(time: &str) -> i64 {
    let number = |from: usize, to: usize| time[from..to].parse::<i64>().unwrap();
    ((((number(8, 10) - 1) * 24 + number(11, 13)) * 60 + number(14, 16)) * 60 + number(17, 19)) * 1_000
        + number(20, 23)
}

/// The predicate of a checkpoint or a tree head.
fn anchor(hash: &str, start: i64, end: i64, count: i64) -> Cbor {
    Cbor::map([
        ("chain_tip_hash", Cbor::text(format!("sha256:{hash}"))),
        ("range", Cbor::map([("start", Cbor::Int(start)), ("end", Cbor::Int(end))])),
        ("count", Cbor::Int(count)),
    ])
}

/// The predicate of a record's entry.
pub(crate) fn project(record: &str, entry_type: &str, payload: &Value, behalf: Option<&Value>) -> Cbor {
    let row = payload.as_object().unwrap();
    let mut members = vec![
        (Cbor::text("record_id"), Cbor::text(record)),
        (Cbor::text("entry_type"), Cbor::text(entry_type)),
    ];
    if let Some(to) = row.get("to") {
        let from = row.get("from").map_or(Cbor::Null, Cbor::of_json);
        members
            .push((Cbor::text("state_transition"), Cbor::map([("from", from), ("to", Cbor::of_json(to))])));
    }
    let apart = ["from", "to", "state_transition", "traces", "on_behalf_of", "traceparent"];
    let rest: Map<String, Value> = row
        .iter()
        .filter(|(name, _)| !apart.contains(&name.as_str()))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    if !rest.is_empty() {
        members.push((Cbor::text("payload"), Cbor::of_json(&Value::Object(rest))));
    }
    for name in ["traces", "on_behalf_of", "traceparent"] {
        if let Some(value) = row.get(name) {
            members.push((Cbor::text(name), Cbor::of_json(value)));
        }
    }
    if let Some(behalf) = behalf {
        members.push((Cbor::text("on_behalf_of"), Cbor::of_json(behalf)));
    }
    Cbor::Map(members)
}

fn project_schema(entry_type: &str, payload: &Value) -> Cbor {
    Cbor::map([
        ("org_id", Cbor::of_json(&payload["orgId"])),
        ("schema_type", Cbor::of_json(&payload["type"])),
        ("schema_version", Cbor::text(payload["version"].to_string())),
        ("manifest_digest", Cbor::of_json(&payload["manifestDigest"])),
        ("outcome", Cbor::text(entry_type.strip_prefix("SCHEMA_").unwrap())),
    ])
}

/// The root of API 1.x by its definition.
fn legacy_root(leaves: &[Hash]) -> Hash {
    let mut level: Vec<String> = leaves.iter().map(hex::encode).collect();
    while level.len() > 1 {
        if level.len() % 2 == 1 {
            level.push(level.last().unwrap().clone());
        }
        level = level.chunks(2).map(|pair| hex::encode(Sha256::digest(pair.concat()))).collect();
    }
    level
        .first()
        .map_or_else(|| Sha256::digest("").into(), |root| hex::decode(root).unwrap().try_into().unwrap())
}
