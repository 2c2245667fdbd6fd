//! The document beside an export, `FILE.json`: what the export holds, where each chain of it begins and ends.
//!
//! Written after the file, from a verification of the very bytes that were written. A later verification of the file takes from
//! it how columns of CSV are typed, where the runs of a filtered export begin ([`Sidecar::starts`]) and the system's own small
//! tables, and holds the file to it ([`Sidecar::compare`]): an export that was cut, or in which a column outside the system's
//! own hash was changed, is found by it. It is not signed: who can write the file can write it too. Whoever wants more keeps a
//! signed checkpoint of the export (`chain checkpoint FILE`).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::slice::{SliceStart, Starts};
use super::text::RowShape;
use crate::error::{Error, Result};
use crate::format::Companions;
use crate::report::{ChainReport, Finding, FindingKind, Verdict};

/// What the document says it is.
pub const TYPE: &str = "attestore.dev/chain-export/v1";

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// [`TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The version of Attestore that wrote it.
    pub attestore: String,
    /// The chain format.
    pub format: String,
    /// How rows are written.
    #[serde(rename = "as")]
    pub shape: RowShape,
    /// The file's name, without folders.
    pub file: String,
    /// How many rows.
    pub rows: u64,
    /// The file's size, in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the file, lowercase hex.
    pub sha256: String,
    /// The columns of CSV that hold other values than text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub literals: Vec<String>,
    /// The columns of CSV that hold text; in neither list are those that hold nothing but NULL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<String>,
    /// Which rows were chosen; absent for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<FilterText>,
    /// Which part of an incremental export it is; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentPlace>,
    /// The chains, sorted by id.
    pub chains: Vec<SidecarChain>,
    /// What a verification of the file said when it was written.
    pub verdict: Verdict,
    /// The small tables that the system keeps besides its chain, as of the same instant.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub companions: Companions,
}

/// A filter as it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterText {
    /// The first instant, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The instant that is no more part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The chains; empty for all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub chains: BTreeSet<String>,
    /// How many rows were left out.
    #[serde(default)]
    pub left_out: u64,
}

/// Where a segment stands in an incremental export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentPlace {
    /// The series: equal for all segments that continue each other.
    pub series: String,
    /// Which segment, from 1.
    pub number: u64,
    /// Its first row's place among the rows of all segments, from 1.
    pub first_row: u64,
    /// SHA-256 of the segment before, lowercase hex; empty for the first.
    pub previous_sha256: String,
}

/// One chain of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarChain {
    /// The chain's id.
    pub id: String,
    /// How many rows of it.
    pub records: u64,
    /// The first row's number, or 1.
    pub first: u64,
    /// The last row's number.
    pub last: u64,
    /// What begins behind rows that are not in the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<SliceStart>,
    /// The last row's link value.
    pub head: String,
    /// Base64 of the RFC 6962 root over the rows of this chain in the file.
    pub root: String,
}

impl Sidecar {
    /// Reads a document; `None` when it is another kind of JSON.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it says that it is one and is not.
    pub fn parse(name: &str, text: &[u8]) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(rename = "type")]
            kind: String,
        }
        if !serde_json::from_slice::<Kind>(text).is_ok_and(|found| found.kind == TYPE) {
            return Ok(None);
        }
        serde_json::from_slice(text).map(Some).map_err(|error| Error::Malformed {
            input: name.to_owned(),
            place: format!("line {}", error.line()),
            what: error.to_string(),
        })
    }

    /// Takes the chains of a verification of the file.
    pub fn take_chains(&mut self, report: &ChainReport, starts: &Starts) {
        let chain = |chain: &crate::report::ChainSummary| SidecarChain {
            id: chain.id.clone(),
            records: chain.records,
            first: chain.first,
            last: chain.last,
            starts: starts.get(&chain.id).cloned().unwrap_or_default(),
            head: chain.head.clone(),
            root: chain.root.clone(),
        };
        self.chains = report.chains.iter().map(chain).collect();
        self.verdict = report.verdict;
    }

    /// Returns where the runs of the file begin.
    #[must_use]
    pub fn starts(&self) -> Starts {
        let begun = self.chains.iter().filter(|chain| !chain.starts.is_empty());
        begun.map(|chain| (chain.id.clone(), chain.starts.clone())).collect()
    }

    /// Holds what a verification saw of the file to what was written: adds what differs to the report.
    pub fn compare(&self, report: &mut ChainReport, sha256: Option<&str>) {
        let before = report.findings_total;
        let seen: BTreeMap<&str, _> = report.chains.iter().map(|chain| (chain.id.as_str(), chain)).collect();
        let all_listed = report.chains_total == report.chains.len() as u64;
        let mut found = Vec::new();
        for chain in &self.chains {
            let finding = |kind, found: String, explains: &str| Finding {
                kind,
                chain: chain.id.clone(),
                position: None,
                last: None,
                record: None,
                expected: Some(format!("{} rows, root {}, head {}", chain.records, chain.root, chain.head)),
                found: Some(found),
                explains: explains.to_owned(),
            };
            match seen.get(chain.id.as_str()) {
                None if all_listed && chain.records > 0 => found.push(finding(
                    FindingKind::MissingChain,
                    "no row of it".into(),
                    "the export held this chain when it was written",
                )),
                None => {}
                Some(now) if now.records < chain.records && now.head != chain.head => found.push(finding(
                    FindingKind::Truncated,
                    format!("{} rows, head {}", now.records, now.head),
                    "the export was longer when it was written",
                )),
                Some(now) if now.root != chain.root && before == 0 => found.push(finding(
                    FindingKind::CheckpointMismatch,
                    format!("{} rows, root {}", now.records, now.root),
                    "the rows are not those that were exported",
                )),
                Some(_) => {}
            }
        }
        if found.is_empty() && before == 0 && sha256.is_some_and(|sha256| sha256 != self.sha256) {
            found.push(Finding {
                kind: FindingKind::CheckpointMismatch,
                chain: String::new(),
                position: None,
                last: None,
                record: None,
                expected: Some(format!("SHA-256 {}", self.sha256)),
                found: sha256.map(|sha256| format!("SHA-256 {sha256}")),
                explains: "the file is not, byte for byte, the one that was exported".into(),
            });
        }
        report.add_findings(found);
    }
}
