//! One program with every fuzz target: `ATTESTORE_FUZZ_TARGET` names the one to run, the arguments are libFuzzer's.
//!
//! With `ATTESTORE_FUZZ_SEEDS` the target's seeds, made from tests/vectors and by the writers, are first put into that folder.
//! scripts/fuzz.sh runs all targets. One program, because they share almost all of their code and are linked once.

#![no_main]

mod records;
mod repository;
mod seeds;
mod texts;

use std::path::Path;
use std::sync::OnceLock;

/// A target: takes any bytes, panics when what must hold does not.
type Target = fn(&[u8]);

/// Every target by its name.
const TARGETS: &[(&str, Target)] = &[
    ("ndjson", records::ndjson),
    ("csv", records::csv),
    ("json", records::json),
    ("rows", records::rows),
    ("cells", records::cells),
    ("cose", records::cose),
    ("key_statement", records::key_statement),
    ("registry_csv", records::registry_csv),
    ("profile", texts::profile),
    ("note", texts::note),
    ("tlog_checkpoint", texts::tlog_checkpoint),
    ("chain_checkpoint", texts::chain_checkpoint),
    ("proof", texts::proof),
    ("sidecar", texts::sidecar),
    ("native_record", texts::native_record),
    ("timestamp", texts::timestamp),
    ("key", texts::key),
    ("manifest", repository::manifest),
    ("log_entry", repository::log_entry),
    ("minisign", repository::minisign),
    ("age", repository::age),
    ("sealed_object", repository::sealed_object),
    ("archive", repository::archive),
    ("word", repository::word),
];

/// Finds the target that is asked for. Without one the names are printed.
fn target() -> Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let name = std::env::var("ATTESTORE_FUZZ_TARGET").unwrap_or_default();
        let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) else {
            TARGETS.iter().for_each(|(name, _)| println!("{name}"));
            std::process::exit(if name.is_empty() { 0 } else { 2 });
        };
        if let Some(folder) = std::env::var_os("ATTESTORE_FUZZ_SEEDS") {
            seeds::write(&name, Path::new(&folder));
        }
        *target
    })
}

libfuzzer_sys::fuzz_target!(init: { target(); }, |data: &[u8]| target()(data));
