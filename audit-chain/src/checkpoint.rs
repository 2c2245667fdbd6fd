//! Checkpoints of chains: how many records each chain of a table had, the Merkle root over its whole rows, its head.
//!
//! Made from a report, kept elsewhere (a manifest, a git repository, a ticket), and given to a later verification,
//! which says whether today's chains extend it. The text is a C2SP tlog-checkpoint, signed or not
//! (docs/format/checkpoint.md):
//!
//! ```text
//! attestore.dev/chain/<format>[/<label>]
//! <number of chains, decimal>
//! <base64 of the RFC 6962 root over the lines below, each a leaf, without its newline>
//! chain <records> <root base64> <head or -> <signed> <id as a JSON string>      one line per chain, sorted by id
//! links <base64>                        where the head alone does not stand for the records before it
//! part <name> <numbers> <root or ->     where retention takes whole parts away: 2026-08 1-6,21 …, the oldest first
//!
//! — <key name> <base64 of key id and Ed25519 signature>
//! ```
//!
//! The JSON form `{"format","chains":[{"id","records","root","head","signed"}]}` is read as well, unsigned; a chain report
//! is one. Each text has one spelling: whatever is read and written again is the same bytes.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::merkle::{Frontier, Hash, leaf_hash};
use crate::note::{Note, NoteSigner, NoteVerifier, TrustedKey};
use crate::report::ChainReport;
use crate::retention::ChainPart;
use crate::tlog::{LogCheckpoint, parse_decimal, parse_root};

/// What the origin of every chain checkpoint begins with.
pub const ORIGIN_PREFIX: &str = "attestore.dev/chain/";

/// Where one chain stood: how many records, the Merkle root over their whole rows, the head.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainPoint {
    /// The chain's id.
    pub id: String,
    /// How many records.
    pub records: u64,
    /// The RFC 6962 root over the canonical rows.
    #[serde(with = "root_base64")]
    pub root: [u8; 32],
    /// The last record's link value as the format spells it (hex); empty when there is none.
    pub head: String,
    /// How many of the records carried a signature or HMAC.
    #[serde(default)]
    pub signed: u64,
    /// A digest over all links, where the head alone does not stand for the records before it.
    #[serde(default, with = "optional_root", skip_serializing_if = "Option::is_none")]
    pub links: Option<Hash>,
    /// The parts that retention takes away whole, where the format has such, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<ChainPart>,
}

/// Where all chains of one table stood at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainCheckpoint {
    /// The format's name.
    pub format: String,
    /// The chains, sorted by id.
    pub chains: Vec<ChainPoint>,
}

/// A checkpoint as it was read. Nothing in it is verified before [`ParsedCheckpoint::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedCheckpoint {
    /// The checkpoint.
    pub checkpoint: ChainCheckpoint,
    /// What the origin says after the format: which of several tables of one format it is.
    pub label: Option<String>,
    /// The note with its signatures; `None` for JSON and for unsigned text.
    pub note: Option<Note>,
}

impl ParsedCheckpoint {
    /// Verifies the signatures; returns the keys that made them.
    ///
    /// # Errors
    /// [`Error::Unsigned`] when there are none; [`Error::Unverified`] when none of the keys signed it, or one did not sign this.
    pub fn verify(&self, trusted: &[TrustedKey]) -> Result<Vec<NoteVerifier>> {
        self.note
            .as_ref()
            .ok_or_else(|| Error::Unsigned { what: "the checkpoint".into() })?
            .verify_trusted(trusted)
    }
}

impl ChainCheckpoint {
    /// Takes the chains of a report.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the report lists only some of its chains, or holds what no verification writes
    /// (a root that is not base64, an id twice).
    pub fn from_report(report: &ChainReport) -> Result<Self> {
        if report.chains_total > report.chains.len() as u64 {
            return Err(Error::InvalidInput(format!(
                "the report lists {} of {} chains; a checkpoint needs all of them",
                report.chains.len(),
                report.chains_total
            )));
        }
        let mut chains = Vec::with_capacity(report.chains.len());
        for chain in &report.chains {
            chains.push(ChainPoint {
                id: chain.id.clone(),
                records: chain.records,
                root: parse_root(&chain.root)
                    .map_err(|why| Error::InvalidInput(format!("root of chain {:?}: {why}", chain.id)))?,
                head: chain.head.clone(),
                signed: chain.signed,
                links: chain
                    .links
                    .as_deref()
                    .map(parse_root)
                    .transpose()
                    .map_err(|why| Error::InvalidInput(format!("links of chain {:?}: {why}", chain.id)))?,
                parts: chain.parts.clone(),
            });
        }
        let checkpoint = Self { format: report.format.clone(), chains }.sorted();
        checkpoint.check().map_err(Error::InvalidInput)?;
        Ok(checkpoint)
    }

    /// Returns the chain of this id.
    #[must_use]
    pub fn chain(&self, id: &str) -> Option<&ChainPoint> {
        self.chains.iter().find(|chain| chain.id == id)
    }

    /// Writes the text of the note, unsigned; `label` tells tables of one format apart.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when a name, head or label cannot stand in it, or the chains are not sorted by id.
    pub fn to_note_text(&self, label: Option<&str>) -> Result<String> {
        self.check().map_err(Error::InvalidInput)?;
        let mut origin = format!("{ORIGIN_PREFIX}{}", self.format);
        if let Some(label) = label {
            check_word(label).map_err(|why| Error::InvalidInput(format!("label of a checkpoint: {why}")))?;
            let _ = write!(origin, "/{label}");
        }
        let mut lines = Vec::with_capacity(self.chains.len());
        for chain in &self.chains {
            lines.push(extension_line(chain)?);
            lines.extend(chain.links.map(|links| format!("links {}", STANDARD.encode(links))));
            lines.extend(chain.parts.iter().map(part_line));
        }
        let mut text = LogCheckpoint::new(origin, self.chains.len() as u64, root_of_lines(&lines))?;
        for line in lines {
            text.push_extension(line)?;
        }
        Ok(text.to_string())
    }

    /// Writes and signs the note.
    ///
    /// # Errors
    /// Those of [`ChainCheckpoint::to_note_text`].
    pub fn sign(&self, label: Option<&str>, signer: &NoteSigner) -> Result<String> {
        let mut note = Note::new(self.to_note_text(label)?)?;
        note.sign(signer);
        Ok(note.to_string())
    }

    /// Reads a checkpoint: a note, signed or not, or JSON. Size and root of a note must fit its lines.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the place; [`Error::Unverified`] when lines were added, removed or altered.
    pub fn parse(text: &str) -> Result<ParsedCheckpoint> {
        if text.trim_start().starts_with('{') {
            return Ok(ParsedCheckpoint { checkpoint: Self::parse_json(text)?, label: None, note: None });
        }
        let note = if text.contains("\n\n") { Some(Note::parse(text)?) } else { None };
        let (checkpoint, label) = Self::parse_note_text(note.as_ref().map_or(text, Note::text))?;
        Ok(ParsedCheckpoint { checkpoint, label, note })
    }

    /// Reads a checkpoint and verifies its signatures.
    ///
    /// # Errors
    /// Those of [`ChainCheckpoint::parse`] and [`ParsedCheckpoint::verify`].
    pub fn verify(text: &str, trusted: &[TrustedKey]) -> Result<ParsedCheckpoint> {
        let parsed = Self::parse(text)?;
        parsed.verify(trusted)?;
        Ok(parsed)
    }

    fn parse_json(text: &str) -> Result<Self> {
        let checkpoint: Self = serde_json::from_str(text).map_err(|error| {
            malformed(format!("line {}", error.line()), format!("not a checkpoint in JSON: {error}"))
        })?;
        let checkpoint = checkpoint.sorted();
        checkpoint.check().map_err(|why| malformed("JSON".into(), why))?;
        Ok(checkpoint)
    }

    fn parse_note_text(text: &str) -> Result<(Self, Option<String>)> {
        let log = LogCheckpoint::parse(text)?;
        let name = log.origin().strip_prefix(ORIGIN_PREFIX).ok_or_else(|| {
            let what =
                format!("expected an origin that begins with {ORIGIN_PREFIX}, found {:?}", log.origin());
            malformed("line 1".into(), what)
        })?;
        let (format, label) = match name.split_once('/') {
            Some((format, label)) => (format, Some(label.to_owned())),
            None => (name, None),
        };
        if let Some(label) = &label {
            check_word(label).map_err(|why| malformed("line 1".into(), format!("label: {why}")))?;
        }
        let lines = log.extensions();
        let root = root_of_lines(lines);
        if root != *log.root() {
            return Err(unverified(format!(
                "the root over its lines is {}, it says {}: a line was altered",
                STANDARD.encode(root),
                STANDARD.encode(log.root())
            )));
        }
        let mut chains: Vec<ChainPoint> = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            add_line(&mut chains, line).map_err(|why| malformed(format!("line {}", at + 4), why))?;
        }
        if log.size() != chains.len() as u64 {
            return Err(unverified(format!(
                "it says that it has {} chains, found {}",
                log.size(),
                chains.len()
            )));
        }
        let checkpoint = Self { format: format.to_owned(), chains };
        checkpoint.check().map_err(|why| malformed("note".into(), why))?;
        Ok((checkpoint, label))
    }

    fn sorted(mut self) -> Self {
        self.chains.sort_by(|a, b| a.id.cmp(&b.id));
        self
    }

    /// Checks what every checkpoint holds: a name that fits an origin, sorted distinct ids, heads that are one word.
    fn check(&self) -> Result<(), String> {
        check_word(&self.format).map_err(|why| format!("name of the format: {why}"))?;
        if self.format.contains('/') {
            return Err(format!("name of the format: {:?} holds a slash", self.format));
        }
        for pair in self.chains.windows(2) {
            let [before, after] = pair else { continue };
            match before.id.cmp(&after.id) {
                std::cmp::Ordering::Less => (),
                std::cmp::Ordering::Equal => return Err(format!("chain {:?} stands twice", after.id)),
                std::cmp::Ordering::Greater => {
                    return Err(format!(
                        "chain {:?} stands after {:?}: expected ids in order",
                        after.id, before.id
                    ));
                }
            }
        }
        for chain in &self.chains {
            if chain.signed > chain.records {
                let (id, signed, records) = (&chain.id, chain.signed, chain.records);
                return Err(format!("chain {id:?}: {signed} signed of {records} records"));
            }
            if !chain.head.is_empty() {
                check_word(&chain.head).map_err(|why| format!("head of chain {:?}: {why}", chain.id))?;
            }
            for part in &chain.parts {
                check_word(&part.name).map_err(|why| format!("part of chain {:?}: {why}", chain.id))?;
            }
            if chain.parts.windows(2).any(|pair| pair[0].name >= pair[1].name) {
                return Err(format!("chain {:?}: its parts are not in order of their names", chain.id));
            }
        }
        Ok(())
    }
}

/// Writes the line of one chain.
fn extension_line(chain: &ChainPoint) -> Result<String> {
    let head = if chain.head.is_empty() { "-" } else { &chain.head };
    let root = STANDARD.encode(chain.root);
    Ok(format!("chain {} {root} {head} {} {}", chain.records, chain.signed, json_string(&chain.id)?))
}

/// Writes the line of one part.
fn part_line(part: &ChainPart) -> String {
    let root = part.root.map_or_else(|| "-".to_owned(), |root| STANDARD.encode(root));
    format!("part {} {} {root}", part.name, part.numbers)
}

/// Reads a line: a chain, or what belongs to the chain above it.
fn add_line(chains: &mut Vec<ChainPoint>, line: &str) -> Result<(), String> {
    if line.starts_with("chain ") {
        chains.push(parse_line(line)?);
        return Ok(());
    }
    let expected = "expected: chain, records, root, head, signed, id";
    let chain = chains.last_mut().ok_or(expected)?;
    match line.split(' ').collect::<Vec<_>>().as_slice() {
        ["links", digest] if chain.links.is_none() && chain.parts.is_empty() => {
            chain.links = Some(parse_root(digest).map_err(|why| format!("links: {why}"))?);
        }
        ["part", name, numbers, root] => chain.parts.push(ChainPart {
            name: (*name).to_owned(),
            numbers: numbers.parse()?,
            root: match *root {
                "-" => None,
                root => Some(parse_root(root).map_err(|why| format!("root: {why}"))?),
            },
        }),
        _ => return Err(format!("{expected}; or part, name, numbers, root")),
    }
    Ok(())
}

/// Reads the line of one chain, in its one spelling.
fn parse_line(line: &str) -> Result<ChainPoint, String> {
    let fields: Vec<&str> = line.splitn(6, ' ').collect();
    let ["chain", records, root, head, signed, id] = fields.as_slice() else {
        return Err("expected: chain, records, root, head, signed, id".into());
    };
    let point = ChainPoint {
        id: serde_json::from_str(id).map_err(|_| "the id is not a JSON string")?,
        records: parse_decimal(records).map_err(|why| format!("records: {why}"))?,
        root: parse_root(root).map_err(|why| format!("root: {why}"))?,
        head: if *head == "-" { String::new() } else { (*head).to_owned() },
        signed: parse_decimal(signed).map_err(|why| format!("signed: {why}"))?,
        ..ChainPoint::default()
    };
    let spelt = extension_line(&point).map_err(|error| error.to_string())?;
    if spelt == line { Ok(point) } else { Err(format!("not in its canonical spelling: expected {spelt:?}")) }
}

fn json_string(text: &str) -> Result<String> {
    serde_json::to_string(text).map_err(|error| Error::InvalidInput(format!("chain id {text:?}: {error}")))
}

fn root_of_lines(lines: &[String]) -> Hash {
    lines.iter().map(|line| leaf_hash(line.as_bytes())).collect::<Frontier>().root()
}

/// Checks a part of a line: not empty, no space, no control character, no plus; `-` alone means "none".
fn check_word(word: &str) -> Result<(), String> {
    if word.is_empty() {
        return Err("it is empty".into());
    }
    if word == "-" {
        return Err("a lone hyphen means that there is none".into());
    }
    if word.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+') {
        return Err(format!("{word:?} holds a space, a control character or a plus"));
    }
    Ok(())
}

fn malformed(place: String, what: String) -> Error {
    Error::Malformed { input: "checkpoint".into(), place, what }
}

fn unverified(why: String) -> Error {
    Error::Unverified { what: "checkpoint".into(), why }
}

/// Spells a root as base64 in JSON.
mod root_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(root: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(root))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        super::parse_root(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Spells a root that may be missing as base64 or `null` in JSON.
pub(crate) mod optional_root {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(
        root: &Option<[u8; 32]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match root {
            Some(root) => serializer.serialize_some(&STANDARD.encode(root)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[u8; 32]>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| crate::tlog::parse_root(&text)).transpose().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::empty_root;
    use crate::report::{ChainSummary, Verdict};

    fn point(id: &str, records: u64) -> ChainPoint {
        ChainPoint {
            id: id.into(),
            records,
            root: leaf_hash(id.as_bytes()),
            head: "ab".repeat(32),
            signed: 0,
            ..ChainPoint::default()
        }
    }

    fn checkpoint(ids: &[&str]) -> ChainCheckpoint {
        ChainCheckpoint { format: "aegisagent".into(), chains: ids.iter().map(|id| point(id, 7)).collect() }
    }

    fn signer() -> NoteSigner {
        NoteSigner::new("attestore.dev/test", &[3; 32]).unwrap()
    }

    #[test]
    fn a_checkpoint_without_chains_has_the_empty_root() {
        let text = checkpoint(&[]).to_note_text(None).unwrap();
        let log = LogCheckpoint::parse(&text).unwrap();
        assert_eq!((log.size(), *log.root()), (0, empty_root()));
        assert_eq!(ChainCheckpoint::parse(&text).unwrap().checkpoint, checkpoint(&[]));
    }

    #[test]
    fn the_label_comes_back() {
        let text = checkpoint(&["a"]).to_note_text(Some("eu/west-1")).unwrap();
        assert!(text.starts_with("attestore.dev/chain/aegisagent/eu/west-1\n1\n"), "{text}");
        assert_eq!(ChainCheckpoint::parse(&text).unwrap().label.as_deref(), Some("eu/west-1"));
        for label in ["", "a b", "a\n", "a+b", "-"] {
            assert!(checkpoint(&["a"]).to_note_text(Some(label)).is_err(), "{label:?}");
        }
    }

    #[test]
    fn links_and_parts_stand_below_their_chain_and_nowhere_else() {
        let part = |name: &str, numbers: &str, root: Option<Hash>| ChainPart {
            name: name.into(),
            numbers: numbers.parse().unwrap(),
            root,
        };
        let chain = ChainPoint {
            links: Some([1; 32]),
            parts: vec![part("2026-08", "1-6,21", None), part("2026-09", "7-20,22", Some([2; 32]))],
            ..point("a", 15)
        };
        let checkpoint = ChainCheckpoint { chains: vec![chain, point("b", 7)], ..checkpoint(&[]) };
        let text = checkpoint.to_note_text(None).unwrap();
        assert!(text.contains("\npart 2026-08 1-6,21 -\n"), "{text}");
        assert_eq!(ChainCheckpoint::parse(&text).unwrap().checkpoint, checkpoint);
        let json = serde_json::to_string(&checkpoint).unwrap();
        assert_eq!(ChainCheckpoint::parse(&json).unwrap().checkpoint, checkpoint);
        let mut chains = vec![point("a", 7)];
        for line in [
            "links AQ==",
            "part 2026-08 6-1 -",
            "part 2026-08 1-6",
            "part 2026-08 1-6 -  ",
            "part  1-6 - -",
            "other 1",
        ] {
            assert!(add_line(&mut chains, line).is_err(), "{line}");
            assert!(add_line(&mut Vec::new(), line).is_err(), "{line}");
        }
        let mut twice = checkpoint.clone();
        twice.chains[0].parts[1].name = "2026-08".into();
        assert!(twice.to_note_text(None).unwrap_err().to_string().contains("not in order"));
    }

    #[test]
    fn json_and_whole_reports_are_checkpoints_in_any_order_of_chains() {
        let expected = checkpoint(&["a", "b"]);
        let mut shuffled = expected.clone();
        shuffled.chains.reverse();
        let json = serde_json::to_string_pretty(&shuffled).unwrap();
        let parsed = ChainCheckpoint::parse(&json).unwrap();
        assert_eq!((&parsed.checkpoint, &parsed.note), (&expected, &None));
        assert!(matches!(parsed.verify(&[]), Err(Error::Unsigned { .. })));

        let report = ChainReport {
            ok: true,
            verdict: Verdict::Intact,
            format: "aegisagent".into(),
            records: 14,
            chains: shuffled
                .chains
                .iter()
                .map(|chain| ChainSummary {
                    id: chain.id.clone(),
                    records: chain.records,
                    first: 1,
                    last: 7,
                    head: chain.head.clone(),
                    root: STANDARD.encode(chain.root),
                    signed: chain.signed,
                    verified_by: Vec::new(),
                    links: None,
                    parts: Vec::new(),
                })
                .collect(),
            chains_total: 2,
            trust: None,
            findings: Vec::new(),
            findings_total: 0,
            notes: Vec::new(),
            diagnosis: String::new(),
        };
        let partial = ChainReport { chains_total: 3, ..report.clone() };
        assert!(ChainCheckpoint::from_report(&partial).unwrap_err().to_string().contains("2 of 3 chains"));
        assert_eq!(ChainCheckpoint::from_report(&report).unwrap(), expected);
        assert_eq!(
            ChainCheckpoint::parse(&serde_json::to_string(&report).unwrap()).unwrap().checkpoint,
            expected
        );
    }

    #[test]
    fn chains_that_do_not_fit_the_size_or_root_are_refused() {
        let text = checkpoint(&["a", "b"]).to_note_text(None).unwrap();
        let last = text.lines().last().unwrap();
        for (what, altered) in [
            ("chain removed", text.replace(&format!("{last}\n"), "")),
            ("chain added", format!("{text}{last}\n")),
            ("count altered", text.replacen("chain 7", "chain 8", 1)),
            ("size altered", text.replacen("\n2\n", "\n3\n", 1)),
        ] {
            assert!(matches!(ChainCheckpoint::parse(&altered), Err(Error::Unverified { .. })), "{what}");
        }
    }

    #[test]
    fn lines_in_another_spelling_are_refused_even_when_the_root_fits_them() {
        let good = extension_line(&point("a b", 7)).unwrap();
        parse_line(&good).unwrap();
        for line in [
            good.replace("chain 7", "chain 07"),
            good.replace("chain 7", "chain  7"),
            good.replace("chain", "Chain"),
            good.replace("\"a b\"", "\"\\u0061 b\""),
            good.replace("\"a b\"", "a b"),
            good.replace("\"a b\"", "\"a b\" "),
            good.replace(" 0 ", " "),
            good.replace('=', ""),
        ] {
            assert!(parse_line(&line).is_err(), "{line}");
        }
        let unsorted = ChainCheckpoint { chains: vec![point("b", 1), point("a", 1)], ..checkpoint(&[]) };
        let lines: Vec<String> = unsorted.chains.iter().map(|chain| extension_line(chain).unwrap()).collect();
        let mut log = LogCheckpoint::new("attestore.dev/chain/native", 2, root_of_lines(&lines)).unwrap();
        lines.into_iter().for_each(|line| log.push_extension(line).unwrap());
        assert!(ChainCheckpoint::parse(&log.to_string()).unwrap_err().to_string().contains("in order"));
    }

    #[test]
    fn what_no_checkpoint_says_is_neither_written_nor_read() {
        let twice = checkpoint(&["a", "a"]);
        let more_signed =
            ChainCheckpoint { chains: vec![ChainPoint { signed: 8, ..point("a", 7) }], ..checkpoint(&[]) };
        let head = ChainCheckpoint {
            chains: vec![ChainPoint { head: "a b".into(), ..point("a", 7) }],
            ..checkpoint(&[])
        };
        let format = ChainCheckpoint { format: "a/b".into(), ..checkpoint(&["a"]) };
        for bad in [twice, more_signed, head, format] {
            assert!(matches!(bad.to_note_text(None), Err(Error::InvalidInput(_))), "{bad:?}");
            assert!(
                matches!(
                    ChainCheckpoint::parse(&serde_json::to_string(&bad).unwrap()),
                    Err(Error::Malformed { .. })
                ),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn texts_of_another_kind_are_refused_with_a_reason() {
        for (text, reason) in [
            ("", "newline"),
            ("hello\n", "at least origin, size and root"),
            ("{\"format\":\"native\"}", "missing field `chains`"),
            ("example.com/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", "attestore.dev/chain/"),
        ] {
            let error = ChainCheckpoint::parse(text).unwrap_err();
            assert!(matches!(error, Error::Malformed { .. }), "{text:?}");
            assert!(error.to_string().contains(reason), "{text:?}: {error}");
        }
    }

    fn any_checkpoint() -> impl Strategy<Value = ChainCheckpoint> {
        let chain = (any::<u64>(), any::<Hash>(), "([0-9a-f]{64}|other:[0-9a-f]{64})?", any::<u64>());
        proptest::collection::btree_map("\\PC{0,12}|[\\x00-\\x7f]{0,6}", chain, 0..5).prop_map(|chains| {
            ChainCheckpoint {
                format: "native".into(),
                chains: chains
                    .into_iter()
                    .map(|(id, (records, root, head, signed))| ChainPoint {
                        id,
                        records,
                        root,
                        head,
                        signed: signed.min(records),
                        ..ChainPoint::default()
                    })
                    .collect(),
            }
        })
    }

    proptest! {
        #[test]
        fn checkpoints_come_back_signed_unsigned_and_as_json(checkpoint in any_checkpoint()) {
            let text = checkpoint.to_note_text(None).unwrap();
            let unsigned = ChainCheckpoint::parse(&text).unwrap();
            prop_assert_eq!((&unsigned.checkpoint, &unsigned.note), (&checkpoint, &None));
            let signed = checkpoint.sign(None, &signer()).unwrap();
            let trusted = [signer().verifier().clone().into()];
            prop_assert_eq!(&ChainCheckpoint::verify(&signed, &trusted).unwrap().checkpoint, &checkpoint);
            let json = serde_json::to_string(&checkpoint).unwrap();
            prop_assert_eq!(ChainCheckpoint::parse(&json).unwrap().checkpoint, checkpoint);
        }

        #[test]
        fn any_flipped_bit_of_a_signed_checkpoint_is_noticed(checkpoint in any_checkpoint(), at: prop::sample::Index) {
            let mut bytes = checkpoint.sign(Some("label"), &signer()).unwrap().into_bytes();
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(ChainCheckpoint::verify(&text, &[(*signer().verifier().key()).into()]).is_err());
            }
        }

        #[test]
        fn no_text_crashes_the_reader(text in "(attestore.dev/chain/native\n[0-9]{1,3}\n)?[\\PC\n]{0,200}") {
            let _ = ChainCheckpoint::parse(&text);
        }
    }
}
