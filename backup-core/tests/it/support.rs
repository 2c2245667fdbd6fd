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

/// Reports whether the stock tools are installed; otherwise says that the test was left out.
pub(crate) fn tools(test: &str, names: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    match names.iter().find(|name| !found(name)) {
        Some(name) => {
            left_out(test, &format!("{name} is not installed"));
            false
        }
        None => true,
    }
}

/// Runs a stock tool and returns what it printed; it must succeed.
pub(crate) fn run(tool: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(tool).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
