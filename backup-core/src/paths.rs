//! Paths in JSON: what is not UTF-8 in a name is replaced, so that a result is printed whatever a file is called.

use std::path::{Path, PathBuf};

use serde::{Serialize as _, Serializer};

/// Serializes a path, as `#[serde(serialize_with)]` asks for it.
///
/// # Errors
/// The serializer's.
pub fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Serializes several paths, as `#[serde(serialize_with)]` asks for it.
///
/// # Errors
/// The serializer's.
pub fn all_lossy<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().serialize(serializer)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[derive(serde::Serialize)]
    struct Paths {
        #[serde(serialize_with = "lossy")]
        one: PathBuf,
        #[serde(serialize_with = "all_lossy")]
        all: Vec<PathBuf>,
    }

    #[test]
    fn a_name_that_is_not_utf8_is_printed_all_the_same() {
        let odd = PathBuf::from(OsString::from_vec(b"a\xff".to_vec()));
        let text = serde_json::to_string(&Paths { one: odd.clone(), all: vec![odd, "b".into()] }).unwrap();
        assert_eq!(text, "{\"one\":\"a\u{fffd}\",\"all\":[\"a\u{fffd}\",\"b\"]}");
    }
}
