//! Signed key statements: which keys a trust anchor reaches, and when each was valid.
//!
//! ```text
//! row        kind (genesis | succession | closure), subject_key_id, endorser_key_id | null,
//!            statement: [base64 COSE_Sign1, …] over one payload, created_at
//! protected  { 1: alg, 3: "application/vnd.agledger.key-statement+cbor", 4: kid }   and nothing else
//! payload    { typ, iss, iat, subject: { kid, spkiSha256, alg, spki, activatedAt, retiredAt? },
//!              endorser?: { kid, spkiSha256 }, forced? }      in the deterministic form of RFC 8949 §4.2.1
//! signed by  genesis: the subject · succession: the endorser, then the subject · closure: the endorser
//! ```
//!
//! Looked at only when the caller gives trust anchors (`sha256:` and the digest of a key's SPKI). A succession E → K lets
//! trust pass from E to K, and back from K to E. Two passes: the first over all of them, to see which closures count
//! (those whose signer is reached); the second without what a closure voids, where trust goes back only along
//! the sole admission of a key. A forced closure voids everything that the key passed on; another, what it passed on
//! afterwards. The keys of the second pass are trusted; everything that is not so is a finding.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::claims::{Claims, EDDSA, ES256};
use super::codes::Code;
use super::cose::{Cursor, Envelope, Item, check_canonical, int_member, member, single, text_member};
use super::registry::{JsonRow, PublicKey, about_row, text};
use super::times::{instant, row_time};
use crate::keys::KeyRing;
use crate::report::{Finding, FindingKind};

/// The name of the statements' file and table.
pub(super) const STATEMENTS: &str = "vault_key_statements";

const CONTENT_TYPE: &str = "application/vnd.agledger.key-statement+cbor";

/// A key by the SHA-256 of its SPKI.
type KeyDigest = [u8; 32];

/// When a key was valid, as its statements sign it, in microseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) activated: Option<i64>,
    pub(super) retired: Option<i64>,
}

/// What the caller's distrust leaves of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distrust {
    /// It is not distrusted.
    None,
    /// What it signed from this time on (milliseconds) counts for nothing.
    From(i64),
    /// What it signed until this time (milliseconds) is accounted for by the key that retired it; the rest counts for nothing.
    Accounted(i64),
    /// What it signed counts for nothing.
    Ever,
}

/// How far a signature of a distrusted key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// A trusted key retired the signer afterwards.
    Accounted,
    /// Not at all.
    Nothing,
}

impl Distrust {
    /// Returns what is left of a signature made at a time (milliseconds); `None` when it counts as any other.
    pub(super) fn of(self, written: Option<i64>) -> Option<Counts> {
        match (self, written) {
            (Self::None, _) => None,
            (Self::From(from), Some(written)) if written < from => None,
            (Self::Accounted(until), Some(written)) if written <= until => Some(Counts::Accounted),
            _ => Some(Counts::Nothing),
        }
    }
}

/// What the statements say.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The keys that an anchor reaches.
    pub(super) trusted: HashSet<KeyDigest>,
    /// When each key that has verified statements was valid.
    pub(super) windows: HashMap<KeyDigest, Window>,
    pub(super) distrust: HashMap<KeyDigest, Distrust>,
    pub(super) findings: Vec<Finding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Genesis,
    Succession,
    Closure,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Genesis => "genesis",
            Self::Succession => "succession",
            Self::Closure => "closure",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        [Self::Genesis, Self::Succession, Self::Closure].into_iter().find(|kind| kind.name() == name)
    }
}

/// A statement whose signatures hold.
#[derive(Debug, Clone)]
struct Statement {
    /// The row, from 0.
    row: usize,
    kind: Kind,
    subject: KeyDigest,
    endorser: Option<KeyDigest>,
    /// Microseconds since 1970.
    activated: i64,
    retired: Option<i64>,
    forced: bool,
    stored: i64,
}

impl Statement {
    /// Returns the key that signs for another.
    fn signer(&self) -> KeyDigest {
        self.endorser.unwrap_or(self.subject)
    }
}

/// Why a statement is invalid.
#[derive(Debug)]
struct Invalid {
    kind: FindingKind,
    why: String,
}

impl Invalid {
    fn malformed(why: impl Into<String>) -> Self {
        Self { kind: FindingKind::Malformed, why: why.into() }
    }

    fn columns(why: impl Into<String>) -> Self {
        Self { kind: FindingKind::StateMismatch, why: why.into() }
    }

    fn signature(why: impl Into<String>) -> Self {
        Self { kind: FindingKind::SignatureInvalid, why: why.into() }
    }
}

/// Judges the statements. `spkis` are the keys of the registry by their digests.
pub(super) fn judge(
    rows: Option<&[JsonRow]>,
    ring: &KeyRing,
    mut spkis: HashMap<KeyDigest, Vec<u8>>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let rows = rows.unwrap_or_default();
    let parsed: Vec<Result<Parsed, Invalid>> = rows.iter().map(Parsed::read).collect();
    for parsed in parsed.iter().flatten() {
        spkis.insert(parsed.subject.digest, parsed.subject.spki.clone());
    }
    let mut seen = HashSet::new();
    let mut statements = Vec::new();
    for (at, parsed) in parsed.into_iter().enumerate() {
        let checked = parsed.and_then(|parsed| {
            let payload = parsed.payload_digest;
            parsed.verify(at, &spkis).map(|statement| (payload, statement))
        });
        match checked {
            // A row that repeats an earlier payload says nothing new.
            Ok((payload, statement)) if seen.insert(payload) => statements.push(statement),
            Ok(_) => {}
            Err(invalid) => {
                outcome.findings.push(finding(
                    rows,
                    at,
                    Code::KeyStatementInvalid,
                    invalid.kind,
                    &invalid.why,
                ));
            }
        }
    }
    let micros = rows.iter().all(|row| text(row, "created_at").is_some_and(|time| has_micros(&time)));
    let id = |statement: &Statement| rows.get(statement.row).and_then(|row| text(row, "id"));
    statements.sort_by(|left, right| {
        let ids = if micros { id(left).cmp(&id(right)) } else { std::cmp::Ordering::Equal };
        left.stored.cmp(&right.stored).then(ids).then(left.row.cmp(&right.row))
    });
    let walk = Walk::new(&statements, ring);
    walk.conclude(rows, &mut outcome);
    outcome
}

/// Reports whether a time is spelt to the microsecond.
fn has_micros(time: &str) -> bool {
    let fraction = time.split_once('.').map_or("", |(_, rest)| rest);
    fraction.bytes().take_while(u8::is_ascii_digit).count() >= 6
}

fn finding(rows: &[JsonRow], at: usize, code: Code, kind: FindingKind, why: &str) -> Finding {
    let id = rows.get(at).and_then(|row| text(row, "id"));
    about_row(STATEMENTS, at, id, kind, format!("{}: {why}", code.name()))
}

/// A key as a statement names it.
#[derive(Debug)]
struct Subject {
    digest: KeyDigest,
    spki: Vec<u8>,
    activated: i64,
    retired: Option<i64>,
}

/// A statement that can be read; its signatures are not checked yet.
#[derive(Debug)]
struct Parsed {
    kind: Kind,
    subject: Subject,
    endorser: Option<KeyDigest>,
    forced: bool,
    stored: i64,
    envelopes: Vec<Vec<u8>>,
    payload_digest: KeyDigest,
}

impl Parsed {
    fn read(row: &JsonRow) -> Result<Self, Invalid> {
        let kind = text(row, "kind")
            .and_then(|kind| Kind::of_name(&kind))
            .ok_or_else(|| Invalid::malformed("its kind is not genesis, succession or closure"))?;
        let stored = text(row, "created_at")
            .and_then(|time| row_time(&time))
            .ok_or_else(|| Invalid::malformed("created_at is no time"))?;
        let envelopes = row
            .get("statement")
            .and_then(Value::as_array)
            .and_then(|list| list.iter().map(|item| STANDARD.decode(item.as_str()?).ok()).collect())
            .ok_or_else(|| Invalid::malformed("its statement is no list of base64 texts"))?;
        let envelopes: Vec<Vec<u8>> = envelopes;
        let signatures = if kind == Kind::Succession { 2 } else { 1 };
        if envelopes.len() != signatures {
            return Err(Invalid::signature(format!(
                "a {} has {signatures} signature{}, found {}",
                kind.name(),
                if signatures == 1 { "" } else { "s" },
                envelopes.len()
            )));
        }
        let payload = Envelope::decode(envelopes.first().map_or(&[][..], Vec::as_slice))
            .map_err(|bad| Invalid::malformed(format!("its envelope is none: {bad}")))?
            .payload;
        check_canonical(payload).map_err(|bad| {
            Invalid::malformed(format!("its payload is not in the deterministic form: {bad}"))
        })?;
        let parsed = Self::of_payload(kind, payload, stored)?;
        parsed.check_columns(row)?;
        let payload_digest = Sha256::digest(payload).into();
        Ok(Self { envelopes, payload_digest, ..parsed })
    }

    fn of_payload(kind: Kind, payload: &[u8], stored: i64) -> Result<Self, Invalid> {
        let bad = |what: &str| Invalid::malformed(format!("its payload has no proper {what}"));
        only_members(payload, &["typ", "iss", "iat", "subject", "endorser", "forced"])?;
        if text_member(payload, "typ") != Some(kind.name()) {
            return Err(Invalid::columns(format!("its payload is no {}", kind.name())));
        }
        text_member(payload, "iss").ok_or_else(|| bad("iss"))?;
        int_member(payload, "iat").filter(|iat| *iat >= 0).ok_or_else(|| bad("iat"))?;
        let subject = member(payload, "subject").ok().flatten().ok_or_else(|| bad("subject"))?;
        let subject = Subject::read(subject)?;
        let endorser = match member(payload, "endorser").ok().flatten() {
            Some(endorser) => Some(read_endorser(endorser)?),
            None => None,
        };
        if endorser.is_some() != (kind != Kind::Genesis) {
            return Err(bad(if kind == Kind::Genesis {
                "subject alone: it names an endorser"
            } else {
                "endorser"
            }));
        }
        if endorser == Some(subject.digest) {
            return Err(Invalid::malformed("its endorser is its subject"));
        }
        let forced = match member(payload, "forced").ok().flatten().map(single) {
            Some(Ok(Item::Bool(forced))) => Some(forced),
            Some(_) => return Err(bad("forced")),
            None => None,
        };
        if kind == Kind::Closure && (subject.retired.is_none() || forced.is_none()) {
            return Err(bad("retiredAt and forced"));
        }
        let forced = forced.unwrap_or(false);
        Ok(Self { kind, subject, endorser, forced, stored, envelopes: Vec::new(), payload_digest: [0; 32] })
    }

    /// Compares the row's columns with the payload.
    fn check_columns(&self, row: &JsonRow) -> Result<(), Invalid> {
        let short = |digest: KeyDigest| hex::encode(&digest[..8]);
        if text(row, "subject_key_id") != Some(short(self.subject.digest)) {
            return Err(Invalid::columns("subject_key_id is not the key that its payload names"));
        }
        let endorser = match row.get("endorser_key_id") {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Invalid::columns("endorser_key_id is no text")),
        };
        if endorser != self.endorser.map(short) {
            return Err(Invalid::columns("endorser_key_id is not the key that its payload names"));
        }
        Ok(())
    }

    /// Checks the signatures.
    fn verify(self, row: usize, spkis: &HashMap<KeyDigest, Vec<u8>>) -> Result<Statement, Invalid> {
        let signers: Vec<KeyDigest> = match self.kind {
            Kind::Genesis => vec![self.subject.digest],
            Kind::Succession => self.endorser.into_iter().chain([self.subject.digest]).collect(),
            Kind::Closure => self.endorser.into_iter().collect(),
        };
        let mut buffer = Vec::new();
        for (signer, bytes) in signers.iter().zip(&self.envelopes) {
            let name = hex::encode(&signer[..8]);
            let spki = spkis.get(signer).ok_or_else(|| Invalid {
                kind: FindingKind::UnknownKey,
                why: format!("its endorser {name} is neither in the registry nor in a statement"),
            })?;
            let envelope = Envelope::decode(bytes)
                .map_err(|bad| Invalid::malformed(format!("its envelope is none: {bad}")))?;
            if <KeyDigest>::from(Sha256::digest(envelope.payload)) != self.payload_digest {
                return Err(Invalid::malformed("its envelopes do not have one payload"));
            }
            let claims = Claims::decode(envelope.protected)
                .map_err(|bad| Invalid::malformed(format!("its protected header: {bad}")))?;
            if claims.labels != 3 || claims.content_type != Some(CONTENT_TYPE) {
                return Err(Invalid::malformed(
                    "its protected header is not alg, content type and kid of a key statement",
                ));
            }
            if claims.kid.map(|kid| kid.to_vec()) != signer.get(..8).map(<[u8]>::to_vec) {
                return Err(Invalid::signature(format!("it is not signed by {name}")));
            }
            let alg = claims
                .alg
                .filter(|alg| matches!(*alg, EDDSA | ES256))
                .ok_or_else(|| Invalid::malformed("its algorithm is not Ed25519 or ES256"))?;
            envelope.signed_bytes(&mut buffer);
            PublicKey::of_spki(spki)
                .verify(alg, &buffer, envelope.signature)
                .map_err(|why| Invalid::signature(format!("the signature by {name} does not hold: {why}")))?;
        }
        Ok(Statement {
            row,
            kind: self.kind,
            subject: self.subject.digest,
            endorser: self.endorser,
            activated: self.subject.activated,
            retired: self.subject.retired,
            forced: self.forced,
            stored: self.stored,
        })
    }
}

impl Subject {
    fn read(map: &[u8]) -> Result<Self, Invalid> {
        let bad = |what: &str| Invalid::malformed(format!("its subject has no proper {what}"));
        only_members(map, &["kid", "spkiSha256", "alg", "spki", "activatedAt", "retiredAt"])?;
        let Some(Ok(Item::Bytes(spki))) = member(map, "spki").ok().flatten().map(single) else {
            return Err(bad("spki"));
        };
        let digest: KeyDigest = Sha256::digest(spki).into();
        if text_member(map, "spkiSha256") != Some(&hex::encode(digest)) {
            return Err(bad("spkiSha256"));
        }
        if text_member(map, "kid") != Some(&hex::encode(&digest[..8])) {
            return Err(bad("kid"));
        }
        let alg = match text_member(map, "alg") {
            Some("Ed25519") => EDDSA,
            Some("ES256") => ES256,
            _ => return Err(bad("alg")),
        };
        if PublicKey::of_spki(spki).alg() != Some(alg) {
            return Err(Invalid::malformed("the key of its subject is not for the algorithm that it names"));
        }
        let activated =
            text_member(map, "activatedAt").and_then(instant).ok_or_else(|| bad("activatedAt"))?;
        let retired = match member(map, "retiredAt").ok().flatten() {
            Some(_) => Some(text_member(map, "retiredAt").and_then(instant).ok_or_else(|| bad("retiredAt"))?),
            None => None,
        };
        Ok(Self { digest, spki: spki.to_vec(), activated, retired })
    }
}

fn read_endorser(map: &[u8]) -> Result<KeyDigest, Invalid> {
    let bad = || Invalid::malformed("its endorser has no proper kid and spkiSha256");
    only_members(map, &["kid", "spkiSha256"])?;
    let mut digest = [0; 32];
    let spelt = text_member(map, "spkiSha256").ok_or_else(bad)?;
    hex::decode_to_slice(spelt, &mut digest).map_err(|_| bad())?;
    // One spelling, and the kid must be its beginning.
    if hex::encode(digest) != spelt || text_member(map, "kid") != spelt.get(..16) {
        return Err(bad());
    }
    Ok(digest)
}

/// Refuses a map with members that are not known: what they mean for trust cannot be guessed.
fn only_members(map: &[u8], known: &[&str]) -> Result<(), Invalid> {
    let bad = |_| Invalid::malformed("its payload cannot be read");
    let mut cursor = Cursor::new(map);
    for _ in 0..cursor.map().map_err(bad)? {
        match cursor.next().map_err(bad)? {
            Item::Text(name) if known.contains(&name) => {}
            other => {
                return Err(Invalid::malformed(format!(
                    "its payload has a member that is not known: {other:?}"
                )));
            }
        }
        cursor.skip().map_err(bad)?;
    }
    Ok(())
}

/// One way that trust goes.
#[derive(Debug, Clone, Copy)]
struct Edge {
    from: KeyDigest,
    to: KeyDigest,
    /// The place in the order of the statements.
    order: usize,
    /// Whether it goes back from the subject to its endorser.
    back: bool,
}

/// The closures of one key that count.
#[derive(Debug, Clone, Copy)]
struct Closed {
    first: usize,
    forced: bool,
    retired: i64,
}

/// The two passes.
struct Walk<'s> {
    statements: &'s [Statement],
    anchors: Vec<KeyDigest>,
    distrust: HashMap<KeyDigest, Distrust>,
    trusted: HashSet<KeyDigest>,
    reached: HashSet<KeyDigest>,
    closed: HashMap<KeyDigest, Closed>,
}

impl<'s> Walk<'s> {
    fn new(statements: &'s [Statement], ring: &KeyRing) -> Self {
        let mut walk = Self {
            statements,
            anchors: ring.trust_anchors().to_vec(),
            distrust: HashMap::new(),
            trusted: HashSet::new(),
            reached: HashSet::new(),
            closed: HashMap::new(),
        };
        // What retires a distrusted key is seen without anything that a distrusted key said.
        for distrusted in ring.distrusted_keys() {
            walk.distrust.insert(distrusted.digest, Distrust::Ever);
        }
        walk.passes();
        for distrusted in ring.distrusted_keys() {
            let retired = walk.closed.get(&distrusted.digest).map(|closed| closed.retired.div_euclid(1_000));
            let from = distrusted.from_micros.map(|from| from.div_euclid(1_000));
            let left = match (from, retired) {
                (_, Some(retired)) => Distrust::Accounted(from.map_or(retired, |from| retired.min(from))),
                (Some(from), None) => Distrust::From(from),
                (None, None) => Distrust::Ever,
            };
            walk.distrust.insert(distrusted.digest, left);
        }
        walk.passes();
        walk
    }

    /// Reports whether a statement counts in spite of distrust: not when a distrusted key stored it too late.
    fn counts(&self, statement: &Statement) -> bool {
        let stored = statement.stored.div_euclid(1_000);
        match self.distrust.get(&statement.signer()) {
            None | Some(Distrust::None) => true,
            Some(Distrust::From(from) | Distrust::Accounted(from)) => stored < *from,
            Some(Distrust::Ever) => false,
        }
    }

    fn edges(&self) -> Vec<Edge> {
        let counted = self.statements.iter().enumerate().filter(|(_, statement)| self.counts(statement));
        counted
            .filter_map(|(order, statement)| {
                let from = statement.endorser.filter(|_| statement.kind == Kind::Succession)?;
                let to = statement.subject;
                Some([Edge { from, to, order, back: false }, Edge { from: to, to: from, order, back: true }])
            })
            .flatten()
            .collect()
    }

    fn passes(&mut self) {
        let edges = self.edges();
        self.reached = reach(&self.anchors, edges.iter());
        self.closed = HashMap::new();
        for (order, statement) in self.statements.iter().enumerate() {
            let counted = statement.kind == Kind::Closure
                && self.counts(statement)
                && self.reached.contains(&statement.signer());
            if let (true, Some(retired)) = (counted, statement.retired) {
                let new = Closed { first: order, forced: statement.forced, retired };
                self.closed
                    .entry(statement.subject)
                    .and_modify(|known| {
                        known.forced |= new.forced;
                        known.retired = known.retired.min(new.retired);
                    })
                    .or_insert(new);
            }
        }
        let admissions = |key: KeyDigest| {
            self.statements.iter().filter(|one| one.kind != Kind::Closure && one.subject == key).count()
        };
        let open = edges.iter().filter(|edge| {
            let void =
                self.closed.get(&edge.from).is_some_and(|closed| closed.forced || edge.order > closed.first);
            !void && (!edge.back || admissions(edge.from) == 1)
        });
        self.trusted = reach(&self.anchors, open);
    }

    /// Writes down what follows.
    fn conclude(self, rows: &[JsonRow], outcome: &mut Outcome) {
        for statement in self.statements {
            let signer = hex::encode(&statement.signer()[..8]);
            let subject = hex::encode(&statement.subject[..8]);
            match statement.kind {
                Kind::Closure if !self.reached.contains(&statement.signer()) || !self.counts(statement) => {
                    outcome.findings.push(finding(
                        rows,
                        statement.row,
                        Code::KeyClosureInvalid,
                        FindingKind::UnknownKey,
                        &format!(
                            "the closure of {subject} is signed by {signer}, which no trust anchor reaches"
                        ),
                    ));
                }
                Kind::Closure => {}
                Kind::Genesis | Kind::Succession => {
                    let window = outcome.windows.entry(statement.subject).or_default();
                    window.activated = Some(
                        window.activated.map_or(statement.activated, |known| known.max(statement.activated)),
                    );
                    // That a distrusted key is not reached is what the caller asked for.
                    if !self.trusted.contains(&statement.subject)
                        && !self.distrust.contains_key(&statement.subject)
                    {
                        outcome.findings.push(finding(
                            rows,
                            statement.row,
                            Code::KeyStatementInvalid,
                            FindingKind::UnknownKey,
                            &format!(
                                "the {} admits {subject}, which no trust anchor reaches",
                                statement.kind.name()
                            ),
                        ));
                    }
                }
            }
        }
        for (key, closed) in &self.closed {
            outcome.windows.entry(*key).or_default().retired = Some(closed.retired);
        }
        outcome.trusted = self.trusted;
        outcome.distrust = self.distrust;
    }
}

/// Returns all keys that can be reached from the anchors.
fn reach<'e>(anchors: &[KeyDigest], edges: impl Iterator<Item = &'e Edge>) -> HashSet<KeyDigest> {
    let mut out: HashMap<KeyDigest, Vec<KeyDigest>> = HashMap::new();
    for edge in edges {
        out.entry(edge.from).or_default().push(edge.to);
    }
    let mut reached: HashSet<KeyDigest> = anchors.iter().copied().collect();
    let mut open = anchors.to_vec();
    while let Some(key) = open.pop() {
        for next in out.get(&key).into_iter().flatten() {
            if reached.insert(*next) {
                open.push(*next);
            }
        }
    }
    reached
}
