//! Writes the JSON Schema of a plan and the reference in `docs/plan.md` from the types in `schema`, and fails when they differ.
//!
//! `ATTESTORE_WRITE=1 cargo test -p attestore --lib plan::reference` writes both.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::schema::PlanFile;

const MARK: &str = "<!-- Below: written by the test plan::reference from attestore/src/plan/schema.rs. -->\n";

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn schema() -> Value {
    let mut schema = serde_json::to_value(schemars::schema_for!(PlanFile)).unwrap();
    schema["title"] = "attestore.toml".into();
    schema
}

/// Returns the definition that a schema refers to, and its name.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> Option<(&'a str, &'a Value)> {
    let of = schema.get("$ref").or_else(|| {
        schema["anyOf"]
            .as_array()
            .into_iter()
            .chain(schema["allOf"].as_array())
            .flatten()
            .find_map(|one| one.get("$ref"))
    })?;
    let name = of.as_str()?.rsplit('/').next()?;
    Some((name, &root["$defs"][name]))
}

/// Spells the type of a value, and the definition of a table below it.
fn kind<'a>(root: &'a Value, schema: &'a Value) -> (String, Option<&'a Value>) {
    if let Some((_, found)) = resolve(root, schema) {
        if found.get("properties").is_some() {
            return ("table".into(), Some(found));
        }
        let values = |list: &Value| -> Vec<String> {
            list.as_array()
                .into_iter()
                .flatten()
                .filter_map(|value| value.as_str().map(|text| format!("`{text}`")))
                .collect()
        };
        let mut words = values(&found["enum"]);
        for one in found["oneOf"].as_array().into_iter().flatten() {
            words.extend(one["const"].as_str().map(|text| format!("`{text}`")));
            words.extend(values(&one["enum"]));
        }
        return (words.join(", "), None);
    }
    if schema["type"] == "array" {
        let (of, table) = kind(root, &schema["items"]);
        return (if table.is_some() { "tables".into() } else { format!("list of {of}") }, table);
    }
    let named = schema["format"].as_str().filter(|format| !format.starts_with("uint"));
    let plain = match &schema["type"] {
        Value::Array(types) => types.iter().find_map(|one| one.as_str().filter(|one| *one != "null")),
        one => one.as_str(),
    };
    (named.or(plain).unwrap_or("string").to_owned(), None)
}

fn describe(schema: &Value) -> String {
    schema["description"]
        .as_str()
        .unwrap_or_default()
        .replace('\n', " ")
        .replace('|', "\\|")
        .replace('<', "&lt;")
}

fn section(root: &Value, path: &str, array: bool, schema: &Value, text: &mut String) {
    let heading = if array { format!("[[{path}]]") } else { format!("[{path}]") };
    if !path.is_empty() {
        let _ = write!(text, "\n### `{heading}`\n\n{}\n", describe(schema));
    }
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut below = Vec::new();
    let mut rows = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let (kind, table) = kind(root, property);
        let must = required.contains(&name.as_str());
        let said = describe(property);
        let said = if said.is_empty() { table.map(describe).unwrap_or_default() } else { said };
        rows.push((
            !must,
            name,
            format!("| `{name}` | {kind} | {} | {said} |\n", if must { "yes" } else { "" }),
        ));
        if let Some(table) = table {
            let full = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            below.push((!must, full, property["type"] == "array", table));
        }
    }
    rows.sort();
    below.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    text.push_str("\n| key | type | required | |\n|---|---|---|---|\n");
    for (_, _, row) in rows {
        text.push_str(&row);
    }
    for (_, full, array, table) in below {
        section(root, &full, array, table, text);
    }
}

/// Compares a file with what it should hold, or writes it.
fn compare(path: &Path, want: &str) {
    if std::env::var_os("ATTESTORE_WRITE").is_some() {
        std::fs::write(path, want).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == want,
        "{} is not what the types say: ATTESTORE_WRITE=1 cargo test -p attestore --lib plan::reference",
        path.display()
    );
}

#[test]
fn the_json_schema_is_that_of_the_types() {
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    compare(&docs().join("attestore.schema.json"), &text);
}

#[test]
fn the_reference_of_a_plan_is_that_of_the_types() {
    let path = docs().join("plan.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let head = page.split_once(MARK).unwrap().0;
    let schema = schema();
    let mut text = format!("{head}{MARK}");
    section(&schema, "", false, &schema, &mut text);
    compare(&path, &text);
}
