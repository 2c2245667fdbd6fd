//! What several test modules share.

use std::path::PathBuf;

/// Says that a test was left out and why; on CI (`CI=true`) that is a failure.
pub(crate) fn left_out(test: &str, why: &str) {
    println!("left out: {test} ({why})");
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{test} was left out on CI: {why}");
}

/// Returns the folder of shared vectors, or says that the test was left out.
pub(crate) fn vectors(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("ATTESTORE_VECTORS").map(PathBuf::from);
    if folder.is_none() {
        left_out(test, "ATTESTORE_VECTORS is not set");
    }
    folder
}
