//! Signed notes of other implementations: the examples of golang.org/x/mod and a whole C2SP log.

use audit_chain::merkle::{ProofBuilder, leaf_hash, root, verify_consistency, verify_inclusion};
use audit_chain::note::{Note, NoteSigner, NoteVerifier};
use audit_chain::tlog::LogCheckpoint;

use crate::vectors::vectors;

const FOO: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const FOO_NOTE: &str = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
const PETER_PRIVATE: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const LOG: &str = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";

#[test]
fn the_note_of_example_com_foo_verifies() {
    let foo = NoteVerifier::parse(FOO).unwrap();
    assert_eq!(foo.to_string(), FOO);
    let note = Note::parse(FOO_NOTE).unwrap();
    assert_eq!(note.text(), "This is an example message.\n");
    assert_eq!(note.verify(std::slice::from_ref(&foo)).unwrap(), [&foo]);
    assert_eq!(note.to_string(), FOO_NOTE);
    note.verify(&[NoteVerifier::parse(PETER).unwrap()]).unwrap_err();
    Note::parse(&FOO_NOTE.replace("example message", "exemple message")).unwrap().verify(&[foo]).unwrap_err();
}

/// The note, its text and PeterNeumann's signature are those of golang.org/x/mod/sumdb/note's own tests.
#[test]
fn a_private_key_in_note_form_signs_as_its_own_implementation_does() {
    let signer = NoteSigner::parse(PETER_PRIVATE).unwrap();
    assert_eq!(signer.verifier().to_string(), PETER);
    let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    let mut note = Note::new(text).unwrap();
    note.sign(&signer);
    assert_eq!(
        note.to_string(),
        format!(
            "{text}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
        )
    );
}

/// Every size of the log: the checkpoint verifies, its root is that of the entries, and it extends all before it.
#[test]
fn the_tlog_of_15_entries_is_reproduced_at_every_size() {
    let Some(folder) = vectors("tlog-15", "standards/tlog-15") else { return };
    let log = NoteVerifier::parse(LOG).unwrap();
    let entries = "one two three four five six seven eit nain ten ileven twelf threeten fourten fivten";
    let leaves: Vec<_> = entries.split(' ').map(|entry| leaf_hash(entry.as_bytes())).collect();
    let tile = std::fs::read(folder.join("tile/0/000.p/15")).unwrap();
    assert_eq!(tile, leaves.concat());

    let mut checkpoints = Vec::new();
    for size in 0..=15 {
        let text = std::fs::read_to_string(folder.join(format!("checkpoint.{size}"))).unwrap();
        let note = Note::parse(&text).unwrap();
        assert_eq!(note.to_string(), text);
        note.verify(std::slice::from_ref(&log)).unwrap();
        let checkpoint = LogCheckpoint::parse(note.text()).unwrap();
        assert_eq!(checkpoint.to_string(), note.text());
        assert_eq!((checkpoint.origin(), checkpoint.size()), ("example.com/log/testdata", size as u64));
        assert_eq!(*checkpoint.root(), root(&leaves[..size]), "size {size}");
        checkpoints.push(checkpoint);
    }
    for new in &checkpoints[1..] {
        let log = &leaves[..new.size() as usize];
        for old in &checkpoints[1..=log.len()] {
            let mut builder = ProofBuilder::consistency(old.size());
            log.iter().for_each(|leaf| builder.push(*leaf));
            let proof = builder.finish().unwrap();
            assert_eq!(proof.subject, *old.root());
            verify_consistency(old.size(), new.size(), old.root(), new.root(), &proof.path).unwrap();
        }
        for (index, leaf) in log.iter().enumerate() {
            let mut builder = ProofBuilder::inclusion(index as u64);
            log.iter().for_each(|leaf| builder.push(*leaf));
            verify_inclusion(leaf, index as u64, new.size(), &builder.finish().unwrap().path, new.root())
                .unwrap();
        }
    }
}
