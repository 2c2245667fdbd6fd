//! RFC 6962 proofs, good and bad, of transparency-dev/merkle.

use std::path::{Path, PathBuf};

use audit_chain::merkle::{Hash, verify_consistency, verify_inclusion};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::vectors::vectors;

#[test]
fn inclusion_proofs_of_the_vectors_get_their_verdict() {
    let Some(folder) = vectors("inclusion proofs", "standards/rfc6962-proofs/inclusion") else { return };
    check(&folder, 98, |case| {
        verify_inclusion(
            &hash(&case["leafHash"])?,
            number(&case["leafIdx"])?,
            number(&case["treeSize"])?,
            &hashes(&case["proof"])?,
            &hash(&case["root"])?,
        )
        .map_err(|error| error.to_string())
    });
}

#[test]
fn consistency_proofs_of_the_vectors_get_their_verdict() {
    let Some(folder) = vectors("consistency proofs", "standards/rfc6962-proofs/consistency") else { return };
    check(&folder, 98, |case| {
        let (old, new) = (number(&case["size1"])?, number(&case["size2"])?);
        verify_consistency(old, new, &root(&case["root1"])?, &root(&case["root2"])?, &hashes(&case["proof"])?)
            .map_err(|error| error.to_string())
    });
}

/// A subtree `[start, end)` that is complete is a log of its own: its inclusion proofs are ordinary ones.
#[test]
fn inclusion_proofs_of_complete_subtrees_get_their_verdict() {
    let Some(folder) = vectors("subtree inclusion", "standards/rfc6962-proofs/subtreeinclusion") else {
        return;
    };
    check(&folder, 204, |case| {
        let (start, end) = (number(&case["start"])?, number(&case["end"])?);
        let size = end.checked_sub(start).filter(|size| *size > 0).ok_or("an empty range is no subtree")?;
        if !size.checked_next_power_of_two().is_some_and(|span| start.is_multiple_of(span)) {
            return Err("the range is no subtree".into());
        }
        let index = number(&case["leafIdx"])?.checked_sub(start).ok_or("the leaf is before the subtree")?;
        verify_inclusion(
            &hash(&case["leafHash"])?,
            index,
            size,
            &hashes(&case["proof"])?,
            &hash(&case["root"])?,
        )
        .map_err(|error| error.to_string())
    });
}

/// Runs every file below the folder and lists those whose verdict is not the file's.
fn check(folder: &Path, expected_files: usize, verify: impl Fn(&Value) -> Result<(), String>) {
    let files = json_files(folder);
    assert_eq!(files.len(), expected_files, "files in {}", folder.display());
    let mut wrong = Vec::new();
    for file in &files {
        let case: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let refused = case["wantErr"].as_bool().unwrap();
        match verify(&case) {
            Ok(()) if refused => wrong.push(format!("{}: accepted", file.display())),
            Err(why) if !refused => wrong.push(format!("{}: refused: {why}", file.display())),
            _ => (),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), files.len(), wrong.join("\n"));
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(json_files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn number(value: &Value) -> Result<u64, String> {
    value.as_u64().ok_or_else(|| format!("{value} is no number"))
}

fn bytes(value: &Value) -> Result<Vec<u8>, String> {
    STANDARD.decode(value.as_str().unwrap_or_default()).map_err(|error| error.to_string())
}

fn hash(value: &Value) -> Result<Hash, String> {
    bytes(value)?.try_into().map_err(|_| format!("{value} is not 32 bytes"))
}

/// Pads a short stand-in for a root to a root, so that its case is decided by the verification and not by its length.
fn root(value: &Value) -> Result<Hash, String> {
    let mut bytes = bytes(value)?;
    if bytes.len() < 32 {
        bytes.resize(32, 0);
    }
    bytes.try_into().map_err(|_| format!("{value} is more than 32 bytes"))
}

fn hashes(value: &Value) -> Result<Vec<Hash>, String> {
    value.as_array().map_or(Ok(Vec::new()), |proof| proof.iter().map(hash).collect())
}
