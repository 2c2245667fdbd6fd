//! z4j's audit log: every case of its own verifier gets its verdict where that is right, and the better one where it is not.

use std::path::Path;

use audit_chain::error::Error;
use audit_chain::format::Companions;
use audit_chain::formats;
use audit_chain::json_rows::NdjsonSource;
use audit_chain::keys::KeyRing;
use audit_chain::report::{ChainReport, Verdict};
use audit_chain::verify::{VerifyOptions, verify};
use serde_json::{Map, Value};

pub(crate) type Row = Map<String, Value>;

/// The secrets of a run.
pub(crate) fn ring(env: &Value) -> KeyRing {
    let mut keys = KeyRing::new();
    for (name, value) in env.as_object().unwrap() {
        if name.contains("SECRET") && !name.contains("SESSION") {
            keys.add_secret(name, value.as_str().unwrap().as_bytes().to_vec());
        }
    }
    keys
}

pub(crate) fn check_text(text: &str, companions: &Companions, keys: &KeyRing) -> Result<ChainReport, Error> {
    let source =
        NdjsonSource::new("rows.jsonl", || Ok(Some(Box::new(std::io::Cursor::new(text.to_owned())))))?;
    let format = formats::by_name("z4j")?;
    let options = VerifyOptions { companions: Some(companions), threads: 2, ..Default::default() };
    verify(&source, format.as_ref(), keys, &options)
}

/// What was found, as `kind@position` or `kind@from-to`; `chain!kind` where it is about the frozen rows.
pub(crate) fn kinds(report: &ChainReport) -> Vec<String> {
    report
        .findings
        .iter()
        .map(|finding| {
            let chain = if finding.chain == "frozen" { "frozen!" } else { "" };
            match (finding.position, finding.last) {
                (Some(from), Some(to)) => format!("{chain}{}@{from}-{to}", finding.kind),
                (Some(from), None) => format!("{chain}{}@{from}", finding.kind),
                (None, _) => format!("{chain}{}", finding.kind),
            }
        })
        .collect()
}

/// Reads the COPY blocks of a plain dump: all values as the text that PostgreSQL writes.
fn copy_rows(sql: &str, table: &str) -> Vec<Row> {
    let Some(at) = sql.find(&format!("COPY public.{table} (")) else { return Vec::new() };
    let mut lines = sql[at..].lines();
    let header = lines.next().unwrap();
    let columns: Vec<&str> =
        header[header.find('(').unwrap() + 1..header.find(')').unwrap()].split(", ").collect();
    let unescape = |field: &str| {
        let mut text = String::new();
        let mut letters = field.chars();
        while let Some(letter) = letters.next() {
            let letter = if letter == '\\' {
                match letters.next().unwrap() {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    other => other,
                }
            } else {
                letter
            };
            text.push(letter);
        }
        text
    };
    lines
        .take_while(|line| *line != "\\.")
        .map(|line| {
            let values = line
                .split('\t')
                .map(|field| if field == "\\N" { Value::Null } else { unescape(field).into() });
            columns.iter().map(|name| (*name).to_owned()).zip(values).collect()
        })
        .collect()
}

/// Reads a case: its rows as NDJSON, and its small tables.
fn case(folder: &Path) -> (String, Companions) {
    if let Ok(sql) = std::fs::read_to_string(folder.join("audit_tables.sql")) {
        let rows = copy_rows(&sql, "audit_log");
        let text = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
        let mut companions = Companions::new();
        for table in ["audit_chain_state", "z4j_meta"] {
            if sql.contains(&format!("COPY public.{table} (")) {
                companions.insert(table.into(), copy_rows(&sql, table));
            }
        }
        return (text, companions);
    }
    let text = std::fs::read_to_string(folder.join("rows.jsonl")).unwrap();
    let state = std::fs::read_to_string(folder.join("state.json")).unwrap();
    (text, serde_json::from_str(&state).unwrap())
}

/// What is found with the secrets of a case's first run, where z4j finds something or we do.
const FOUND: &[(&str, &[&str])] = &[
    ("pg-v1-honest-false-positives", &[]),
    ("pg-v2-deleted-middle", &["missing@26"]),
    ("pg-v2-edited-row", &["edited@4"]),
    ("pg-v2-wrong-secret", &["unknown-key", "unknown-key@1-53"]),
    ("v1-deleted-middle", &["missing@26"]),
    ("v1-edited-metadata", &["edited@2"]),
    ("v1-truncated-front", &["missing-head@1"]),
    ("v1-wrong-secret", &["wrong-key@1-50"]),
    ("v2-all-rows-deleted", &["truncated"]),
    ("v2-deleted-middle", &["missing@26"]),
    ("v2-edited-action", &["edited@4"]),
    ("v2-edited-metadata", &["edited@4"]),
    ("v2-edited-result", &["edited@4"]),
    ("v2-edited-rowhmac", &["edited@5"]),
    ("v2-edited-tail-rowhmac", &["edited@58"]),
    ("v2-edited-user", &["edited@53"]),
    ("v2-hmac-version-3", &["edited@5"]),
    ("v2-metadata-array", &["malformed@4"]),
    ("v2-metadata-notjson", &["malformed@4"]),
    ("v2-metadata-surrogate", &["malformed@4"]),
    ("v2-pruned-boundary-row-restored", &["link-broken@1"]),
    ("v2-reordered", &["edited@31", "reordered@31", "edited@32", "reordered@33"]),
    ("v2-rowhmac-null", &["unsigned@5"]),
    ("v2-state-head-edited", &["state-mismatch"]),
    ("v2-state-missing", &["state-mismatch"]),
    ("v2-truncated-tail", &["truncated"]),
    ("v2-upgraded-frozen-deleted", &["frozen!missing@6"]),
    ("v2-upgraded-frozen-ip-text", &["frozen!edited@4"]),
    ("v2-upgraded-frozen-unfrozen", &["edited@1", "link-broken@2", "frozen!missing-head@1"]),
    ("v2-wrong-secret", &["unknown-key", "unknown-key@1-58"]),
    ("v3-deleted-middle", &["missing@26"]),
    ("v3-ip-text-edited", &["edited@4"]),
    ("v3-truncated-front", &["missing-head@1"]),
    ("v3-unsigned-row", &["unsigned@11"]),
    ("v3-wrong-secret", &["wrong-key@1-50"]),
];

/// What is found with the secrets of later runs, and the verdict.
const FOUND_LATER: &[(&str, usize, &[&str])] = &[
    ("v1-rotated", 1, &["unknown-key@1-50"]),
    ("v1-rotated", 2, &["unknown-key@51-55"]),
    ("v3-rotated", 1, &["unknown-key@1-50"]),
    ("v3-rotated", 2, &["unknown-key@51-55"]),
    ("v2-rotated", 2, &["unknown-key@1-58"]),
    ("v2-rotated", 3, &["unknown-key", "unknown-key@59-64"]),
    ("v2-wrong-secret", 1, &["unknown-key", "unknown-key@1-58"]),
    ("v2-wrong-secret", 2, &["unknown-key", "unknown-key@1-58"]),
];

/// Runs in which z4j's verifier says something else than is so, and why.
fn is_wrong(case: &str, run: &Value) -> bool {
    let verifier = run["verifier"].as_str().unwrap();
    match case {
        // PostgreSQL respelt what was signed.
        "pg-v1-honest-false-positives" => true,
        // Each Python calls the other's IPv4-mapped addresses tampered.
        "v2-ipv4mapped-signed-on-py313" => true,
        "pg-v2-valid" | "v2-valid" => run["python"] == "3.13.0",
        // Era A's command line looks at no link.
        "v3-deleted-middle" | "v3-truncated-front" => true,
        // 1.6 knows no watermark.
        "v1-pruned-bare-watermark" => verifier == "z4j 1.6.9",
        _ => false,
    }
}

#[test]
fn every_case_of_z4js_own_verifier_gets_its_verdict_or_the_better_one() {
    let test = "every_case_of_z4js_own_verifier_gets_its_verdict_or_the_better_one";
    let Some(vectors) = crate::vectors::vectors(test, "z4j") else { return };
    let mut wrong = Vec::new();
    let mut cases = 0;
    for entry in std::fs::read_dir(&vectors).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(expected) = std::fs::read_to_string(folder.join("EXPECTED.json")) else { continue };
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let name = folder.file_name().unwrap().to_str().unwrap();
        cases += 1;
        let (text, companions) = case(&folder);
        for (at, run) in expected["runs"].as_array().unwrap().iter().enumerate() {
            let argv: Vec<&str> = run["argv"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            if argv.contains(&"--known-head") || run["exit_code"] == 2 {
                continue;
            }
            let report = check_text(&text, &companions, &ring(&run["env"])).unwrap();
            let found = kinds(&report);
            let wanted = FOUND.iter().find(|(case, _)| *case == name).map_or(&[][..], |(_, found)| found);
            let later = FOUND_LATER.iter().find(|(case, run, _)| (*case, *run) == (name, at));
            let wanted = later.map_or(wanted, |(_, _, found)| found);
            if (at == 0 || later.is_some()) && found != wanted {
                wrong.push(format!("{name}: found {found:?}, expected {wanted:?}: {:#?}", report.findings));
            }
            let records: Vec<_> =
                report.findings.iter().filter_map(|finding| finding.record.as_deref()).collect();
            let named = run["mismatches"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let missed = named
                .filter(|line| line.contains("row HMAC mismatch") || line.contains("link mismatch"))
                .filter(|line| !records.iter().any(|record| line.starts_with(record)))
                .count();
            // One replaced HMAC is one finding here, and two there: the row's and the next one's.
            let twice = usize::from(matches!(name, "v2-edited-rowhmac" | "v2-rowhmac-null"));
            if !is_wrong(name, run) && report.verdict == Verdict::Findings && missed != twice {
                wrong.push(format!(
                    "{name} run {at}: z4j says {}, found {:#?}",
                    run["stdout"], report.findings
                ));
            }
            let no_secret_fits = name.ends_with("wrong-secret") && run["exit_code"] == 1;
            if no_secret_fits != (report.verdict == Verdict::CannotVerify) {
                wrong.push(format!("{name} run {at}: {:?}", report.verdict));
            }
            if !is_wrong(name, run) && report.ok != (run["exit_code"] == 0) {
                wrong.push(format!(
                    "{name} run {at}: z4j says {}, found {found:?} {:#?}",
                    run["stdout"], report.findings
                ));
            }
        }
    }
    assert!(cases >= 55, "{cases}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
