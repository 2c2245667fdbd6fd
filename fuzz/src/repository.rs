//! What a repository holds and what a person names: manifests, log entries, keys, sealed objects, archives, words of arguments.

use std::io::Read as _;
use std::path::Path;

use attestore::input;
use attestore::{Context, chain};
use backup_core::durable::Durable;
use backup_core::encrypt::{Identities, Recipients};
use backup_core::extract::{ExtractOptions, extract};
use backup_core::manifest::Manifest;
use backup_core::names::{validate_name, validate_object_name};
use backup_core::repository::{Age, LogEntry, LogState};
use backup_core::seal::{OpenOptions, OpenReader};
use backup_core::secret::SecretRef;
use backup_core::signing::{PublicKey, SigningKey, verify_detached};

fn text(data: &[u8]) -> &str {
    std::str::from_utf8(data).unwrap_or_default()
}

/// A manifest: what is read is written in canonical form and read the same.
pub(crate) fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::from_json(data) else { return };
    let _ = (manifest.stored_bytes(), manifest.plain_bytes());
    if let Ok(json) = manifest.to_canonical_json() {
        let again = Manifest::from_json(&json).unwrap();
        assert_eq!(again.to_canonical_json().unwrap(), json);
    }
}

/// Entries of the repository's log, one a line, applied one after the other.
pub(crate) fn log_entry(data: &[u8]) {
    let mut state = LogState::default();
    for line in data.split(|byte| *byte == b'\n') {
        let Ok(entry) = serde_json::from_slice::<LogEntry>(line) else { continue };
        state.apply(&entry);
        let json = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<LogEntry>(&json).unwrap(), entry);
    }
    assert!(state.live_records().count() <= state.records().len());
}

/// Minisign keys and signatures.
pub(crate) fn minisign(data: &[u8]) {
    let text = text(data);
    let _ = (SigningKey::parse("t", text), PublicKey::parse(text));
    let key = SigningKey::from_seed(&[7; 32]);
    let found = verify_detached("t", b"what is signed", text, &[key.public_key()]);
    if found.is_ok() {
        assert!(text.contains("trusted comment"), "no signature without its comment");
    }
}

/// Recipients, identities, encrypted objects.
pub(crate) fn age(data: &[u8]) {
    let _ = (Recipients::parse([text(data)]), Identities::parse("t", text(data)));
    let options = OpenOptions { encrypted: true, identities: crate::seeds::identity(), expected: None };
    if let Ok(mut reader) = OpenReader::new("t", data, &options, &Context::default()) {
        let _ = reader.by_ref().take(1 << 20).read_to_end(&mut Vec::new());
    }
}

/// A compressed object.
pub(crate) fn sealed_object(data: &[u8]) {
    let options = OpenOptions::default();
    if let Ok(mut reader) = OpenReader::new("t", data, &options, &Context::default()) {
        let _ = reader.by_ref().take(1 << 20).read_to_end(&mut Vec::new());
    }
}

/// An archive of files: nothing leaves the folder, and nothing is left when it is refused.
pub(crate) fn archive(data: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    let target = inside.join("target");
    let options = ExtractOptions { max_bytes: Some(1 << 20), max_entries: Some(64), ..Default::default() };
    let done = extract("t", data, &target, &options, &Durable::default(), &Context::default());
    assert_eq!(target.exists(), done.is_ok());
    let beside = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
    assert_eq!(beside(folder.path()), 1, "something was written outside");
    assert_eq!(beside(&inside), usize::from(done.is_ok()), "something was left behind");
}

/// Names, references and arguments.
pub(crate) fn word(data: &[u8]) {
    let text = text(data);
    if validate_name(text).is_ok() {
        assert!(!text.contains(['/', '\\', '\0', '\n']) && text != "." && text != "..");
    }
    if validate_object_name(text).is_ok() {
        assert!(!text.starts_with('/') && !text.split('/').any(|part| part == ".." || part.is_empty()));
    }
    let _ = (SecretRef::parse(text), text.parse::<Age>(), input::source(text), input::database(text));
    let _ = chain::format_and_table(text);
}
