//! A dump that is written from row sources verifies, carries its counts, and is whole or not there.

use std::sync::atomic::AtomicBool;

use audit_chain::error::{Error, ErrorKind};
use audit_chain::format::Tables;
use audit_chain::formats::agledger::{AgledgerDump, SUMMARY, check_dump, write_dump};
use audit_chain::json_rows::NdjsonSource;
use audit_chain::keys::KeyRing;
use audit_chain::verify::VerifyOptions;

use super::small;
use super::writer::Key;

/// Opens the files of a dump as tables.
fn tables(folder: &std::path::Path) -> Tables<'static> {
    let mut tables = Tables::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        tables.insert(name, Box::new(NdjsonSource::open(&path).unwrap()));
    }
    tables
}

#[test]
fn a_written_dump_verifies_and_carries_its_counts() {
    for two in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        small(two, &Key::ed25519(1)).write(&from);
        let summary = write_dump(&to, &tables(&from), None).unwrap();
        assert_eq!((summary.counts["audit_vault"], summary.counts["org_admin_reads"]), (10, 3));
        assert_eq!(summary.files.len(), if two { 6 } else { 5 });
        assert_eq!(check_dump(&to).unwrap(), summary);
        let verify = |path| {
            AgledgerDump::open(path).unwrap().verify(&KeyRing::new(), &VerifyOptions::default()).unwrap()
        };
        let (before, after) = (verify(&from), verify(&to));
        assert!(after.ok, "{:#?}", after.findings);
        // The same roots over whole rows: nothing was respelt.
        assert_eq!(before.chains, after.chains);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside it");
        // Members stand in the producer's order.
        let text = std::fs::read_to_string(to.join("audit_vault.ndjson")).unwrap();
        assert!(text.starts_with(r#"{"id":"#) && text.lines().next().unwrap().contains(r#""record_id":"#));
    }
}

#[test]
fn a_file_that_was_cut_or_changed_afterwards_is_told_by_the_summary() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    small(true, &Key::ed25519(1)).write(&from);
    write_dump(&to, &tables(&from), None).unwrap();
    let path = to.join("vault_checkpoints.ndjson");
    let text = std::fs::read_to_string(&path).unwrap();
    let cut: String = text.lines().skip(1).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, cut).unwrap();
    assert!(matches!(check_dump(&to), Err(Error::Unverified { .. })));
    std::fs::write(&path, text).unwrap();
    check_dump(&to).unwrap();
    let hostile =
        std::fs::read_to_string(to.join(SUMMARY)).unwrap().replace("audit_vault.ndjson", "../secret");
    std::fs::write(to.join(SUMMARY), hostile).unwrap();
    assert!(matches!(check_dump(&to), Err(Error::Malformed { .. })));
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_when_it_fails() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    std::fs::create_dir(&from).unwrap();
    small(true, &Key::ed25519(1)).write(&from);
    let all = || std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(write_dump(&from, &tables(&from), None).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let to = folder.path().join("to");
    let stop = AtomicBool::new(true);
    assert_eq!(write_dump(&to, &tables(&from), Some(&stop)).unwrap_err().kind(), ErrorKind::Cancelled);
    let mut few = tables(&from);
    few.remove("org_admin_reads");
    assert!(write_dump(&to, &few, None).unwrap_err().to_string().contains("org_admin_reads"));
    std::fs::write(from.join("org_admin_reads_checkpoints.ndjson"), "{\"a\":1}\n[1]\n").unwrap();
    assert_eq!(write_dump(&to, &tables(&from), None).unwrap_err().kind(), ErrorKind::Malformed);
    assert_eq!(all(), 1, "only the source is there");
}
