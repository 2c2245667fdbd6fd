//! `docs/requirements.md`: every requirement has its line, and what a line points to is there.

use std::collections::BTreeMap;
use std::path::Path;

/// The numbers of the requirements.
fn numbers() -> Vec<String> {
    let sections = [("S1.", 7), ("S2.", 6), ("S3.", 4), ("S4.", 5), ("S5.", 6), ("B", 13)];
    sections
        .iter()
        .flat_map(|(name, last)| (1..=*last).map(move |number| format!("{name}{number}")))
        .collect()
}

/// What is wrong with a reference: `path`, or `path::test_name`.
fn fault(root: &Path, reference: &str) -> Option<String> {
    let (path, name) =
        reference.split_once("::").map_or((reference, None), |(path, name)| (path, Some(name)));
    let Ok(text) = std::fs::read_to_string(root.join(path)) else {
        return root
            .join(path)
            .is_dir()
            .then_some(())
            .map_or_else(|| Some(format!("there is no {path}")), |()| None);
    };
    let name = name?;
    (!text.contains(&format!("fn {name}("))).then(|| format!("{path} has no test {name}"))
}

/// Returns the references of a line: what stands in backticks and has a slash.
fn references(shown: &str) -> Vec<&str> {
    shown.split('`').skip(1).step_by(2).filter(|code| code.contains('/') && !code.contains(' ')).collect()
}

#[test]
fn every_requirement_points_to_something_that_is_there_or_says_not_yet() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/requirements.md")).unwrap();
    let mut rows: BTreeMap<&str, &str> = BTreeMap::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let number = cells[0];
        if cells.len() == 3 && numbers().iter().any(|known| known == number) {
            assert!(rows.insert(number, cells[2]).is_none(), "{number} stands twice");
        }
    }
    for number in numbers() {
        let shown = rows.get(number.as_str()).unwrap_or_else(|| panic!("{number} has no line"));
        let found = references(shown);
        assert!(
            !found.is_empty() || shown.contains("not yet"),
            "{number} points to nothing and does not say \"not yet\": {shown}"
        );
        for reference in found {
            assert_eq!(fault(&root, reference), None, "{number}");
        }
    }
}

#[test]
fn a_reference_to_nothing_is_a_fault() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    assert!(fault(&root, "docs/nowhere.md").is_some());
    assert!(fault(&root, "attestore/tests/it/requirements.rs::no_such_test").is_some());
    assert!(fault(&root, "attestore/tests/it/requirements.rs::a_reference_to_nothing_is_a_fault").is_none());
    assert_eq!(references("`docs/a.md`, `attestore verify`, `x/y.rs::z`"), ["docs/a.md", "x/y.rs::z"]);
}
