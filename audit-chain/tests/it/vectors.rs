//! Where the test vectors are: the directory that `ATTESTORE_VECTORS` names. Without it a test counts as left out.

use std::path::PathBuf;

/// Returns a file or folder of the vectors; `None`, said aloud, when there are none (a failure where `CI` is `true`).
pub(crate) fn vectors(test: &str, path: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("ATTESTORE_VECTORS") else {
        eprintln!("left out: {test} (ATTESTORE_VECTORS is not set)");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} may not be left out in CI");
        return None;
    };
    let path = PathBuf::from(folder).join(path);
    assert!(path.exists(), "{} does not exist", path.display());
    Some(path)
}
