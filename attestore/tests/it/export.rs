//! `chain export`: exports that verify by themselves, filters, watermarks, kills.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;

use crate::support::{ErrorKind, World, append_receipts, files, strings, vectors};

/// What a verification says of rows: verdict, findings, and per chain where it stands.
fn said(report: &Value) -> Value {
    let chains: Vec<Value> = report["chains"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chain| serde_json::json!([chain["id"], chain["records"], chain["root"], chain["head"]]))
        .collect();
    let findings: Vec<Value> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| serde_json::json!([finding["kind"], finding["chain"], finding["position"]]))
        .collect();
    serde_json::json!([report["verdict"], findings, chains])
}

fn verify(world: &World, status: i32, input: &str) -> Value {
    world.json(status, ["chain", "verify", input, "--format", "aegisagent"])
}

fn export(world: &World, arguments: &[&str]) -> Value {
    let mut all = vec!["chain", "export", "app.db", "--format", "aegisagent"];
    all.extend(arguments);
    world.json(0, all)
}

fn kinds(report: &Value, what: &str) -> Vec<String> {
    report[what].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_export_verifies_alone_with_the_verdict_and_the_roots_of_the_table() {
    let world = World::ready();
    let table = said(&verify(&world, 0, "app.db"));
    for name in ["out.ndjson", "out.csv", "out.json"] {
        let made = export(&world, &["--out", name]);
        assert_eq!((made["rows"].as_u64(), made["path"].as_str()), (Some(9), Some(name)));
        assert_eq!(made["size_bytes"].as_u64(), Some(world.read(name).len() as u64));
        assert_eq!(made["sha256"].as_str().unwrap().len(), 64);
        assert_eq!(made["chains"][0]["id"], "alpha");
        assert_eq!(said(&verify(&world, 0, name)), table, "{name}");
        let of_table = world.json(0, ["chain", "checkpoint", "app.db", "--format", "aegisagent"]);
        let of_file = world.json(0, ["chain", "checkpoint", name, "--format", "aegisagent"]);
        assert_eq!(of_table["note"], of_file["note"], "{name}");
        // From the file alone, without the document beside it.
        std::fs::remove_file(world.path(format!("{name}.json"))).unwrap();
        assert_eq!(said(&verify(&world, 0, name)), table, "{name} alone");
    }
}

#[test]
fn a_tampered_chain_is_exported_as_it_is_and_says_the_same() {
    let world = World::ready();
    world.sql("app.db", "UPDATE action_receipts SET decision = 'x' WHERE id = 'alpha-3'; DELETE FROM action_receipts WHERE id = 'beta-2'");
    let table = said(&verify(&world, 1, "app.db"));
    for name in ["out.ndjson", "out.csv"] {
        let made = export(&world, &["--out", name]);
        assert_eq!(made["verdict"], "findings");
        assert_eq!(said(&verify(&world, 1, name)), table, "{name}");
    }
}

#[test]
fn an_export_never_overwrites_and_leaves_nothing_when_it_fails() {
    let world = World::ready();
    world.write("out.ndjson", "mine");
    world.write("other.ndjson.json", "{}");
    let run = |out| {
        world.fails(
            ErrorKind::AlreadyExists,
            ["chain", "export", "app.db", "--format", "aegisagent", "--out", out],
        )
    };
    assert!(run("out.ndjson").contains("out.ndjson exists"));
    assert!(run("other.ndjson").contains("other.ndjson.json exists"));
    assert_eq!(world.read("out.ndjson"), b"mine");
    world.fails(
        ErrorKind::NotFound,
        ["chain", "export", "app.db", "--format", "aegisagent", "--out", "no/out.ndjson"],
    );
    world.fails(
        ErrorKind::InvalidInput,
        ["chain", "export", "app.db", "--format", "caracal", "--table", "notes", "--out", "x.ndjson"],
    );
    let left: Vec<_> =
        files(world.root()).into_iter().filter(|file| file.to_string_lossy().contains("part")).collect();
    assert!(left.is_empty() && !world.path("x.ndjson").exists(), "{left:?}");
    // What a killed run left of a document without its file is no obstacle.
    export(&world, &["--out", "again.ndjson"]);
    std::fs::remove_file(world.path("again.ndjson")).unwrap();
    export(&world, &["--out", "again.ndjson"]);
}

#[test]
fn a_span_of_time_is_half_open_and_still_verifies() {
    let world = World::ready();
    // Receipts 1 to 6 of alpha are of 2026-06-02 to 2026-06-07, 12:00.
    let ids = |name: &str| -> Vec<String> {
        let text = String::from_utf8(world.read(name)).unwrap();
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let made = export(
        &world,
        &["--out", "a.ndjson", "--from", "2026-06-03T12:00:00Z", "--to", "2026-06-05T12:00:00Z"],
    );
    assert_eq!((made["rows"].as_u64(), made["left_out"].as_u64()), (Some(4), Some(5)));
    assert_eq!(ids("a.ndjson"), ["alpha-2", "alpha-3", "beta-2", "beta-3"]);
    export(&world, &["--out", "b.ndjson", "--from", "2026-06-05", "--to", "2026-06-07", "--chain", "alpha"]);
    assert_eq!(ids("b.ndjson"), ["alpha-4", "alpha-5"]);
    export(&world, &["--out", "c.csv", "--to", "2026-06-04"]);
    for name in ["a.ndjson", "b.ndjson", "c.csv"] {
        let report = verify(&world, 0, name);
        let gap = kinds(&report, "notes").contains(&"retention-gap".to_owned());
        assert_eq!(gap, name != "c.csv", "{name}: {report}");
    }
    // The same rows without the document that says so are rows whose beginning is gone.
    std::fs::remove_file(world.path("b.ndjson.json")).unwrap();
    assert_eq!(kinds(&verify(&world, 1, "b.ndjson"), "findings"), ["missing-head"]);
    for (from, to) in
        [("2026-06-05", "2026-06-05"), ("yesterday", "2026-06-05"), ("2026-06-05T00:00:00", "2026-07-01")]
    {
        let run = [
            "chain",
            "export",
            "app.db",
            "--format",
            "aegisagent",
            "--out",
            "x.ndjson",
            "--from",
            from,
            "--to",
            to,
        ];
        world.fails(ErrorKind::InvalidInput, run);
    }
}

#[test]
fn a_hole_that_a_filter_makes_is_told_from_a_row_that_is_gone() {
    let world = World::ready();
    // A clock that was wrong: receipt 3 is of another year, in the middle of the chain.
    world.sql("app.db", "UPDATE action_receipts SET ts = '2020-01-01T00:00:00Z' WHERE id = 'alpha-3'");
    let table = kinds(&verify(&world, 1, "app.db"), "findings");
    assert_eq!(table, ["edited"]);
    let made = export(&world, &["--out", "a.ndjson", "--from", "2026-01-01", "--chain", "alpha"]);
    assert_eq!(made["rows"], 5);
    assert_eq!(made["chains"][0]["starts"].as_array().unwrap().len(), 2);
    verify(&world, 0, "a.ndjson");
    // Another hole, by hand, is found.
    let text = String::from_utf8(world.read("a.ndjson")).unwrap();
    let cut: String =
        text.lines().enumerate().filter(|(at, _)| *at != 3).map(|(_, line)| format!("{line}\n")).collect();
    world.write("a.ndjson", cut);
    assert!(kinds(&verify(&world, 1, "a.ndjson"), "findings").contains(&"missing".to_owned()));
}

#[test]
fn a_file_that_was_cut_or_changed_after_the_export_is_found_by_the_document_beside_it() {
    let world = World::ready();
    export(&world, &["--out", "a.ndjson"]);
    let text = String::from_utf8(world.read("a.ndjson")).unwrap();
    let without = |left: &str| -> String {
        text.lines().filter(|line| !line.contains(left)).map(|line| format!("{line}\n")).collect()
    };
    world.write("a.ndjson", without("\"id\":\"beta-3\""));
    assert_eq!(kinds(&verify(&world, 1, "a.ndjson"), "findings"), ["truncated"]);
    world.write("a.ndjson", without("\"tenant_id\":\"beta\""));
    assert_eq!(kinds(&verify(&world, 1, "a.ndjson"), "findings"), ["missing-chain"]);
    // A column that the system's own hash does not cover.
    world.write("a.ndjson", text.replacen("2026-06-01 12:00:02", "2026-06-01 12:00:09", 1));
    assert_eq!(kinds(&verify(&world, 1, "a.ndjson"), "findings"), ["checkpoint-mismatch"]);
    world.write("a.ndjson", format!("{text}\n"));
    assert_eq!(kinds(&verify(&world, 1, "a.ndjson"), "findings"), ["checkpoint-mismatch"]);
    world.write("a.ndjson", &text);
    verify(&world, 0, "a.ndjson");
}

fn step(world: &World, arguments: &[&str]) -> Value {
    let mut all = vec!["--out", "segments", "--watermark", "mark.json"];
    all.extend(arguments);
    export(world, &all)
}

/// Returns the rows of all segments, one behind the other; of CSV with one header.
fn joined(world: &World) -> String {
    let mut text = String::new();
    for file in files(&world.path("segments")) {
        let name = file.to_string_lossy().into_owned();
        assert!(!name.contains("part"), "{name}");
        let part = String::from_utf8(world.read(Path::new("segments").join(&file))).unwrap();
        match name.rsplit_once('.').unwrap().1 {
            "csv" if !text.is_empty() => text.push_str(part.split_once('\n').unwrap().1),
            "csv" | "ndjson" => text.push_str(&part),
            _ => {}
        }
    }
    text
}

#[test]
fn segments_one_behind_the_other_are_the_whole_export() {
    for shape in ["ndjson", "csv"] {
        let world = World::ready();
        let connection = world.open("app.db");
        let mut rows = 9;
        for (tenant, from, to) in [("alpha", 7, 9), ("beta", 4, 4), ("gamma", 1, 3), ("alpha", 10, 30)] {
            step(&world, &["--as", shape]);
            if tenant == "gamma" {
                world.sql("app.db", "INSERT INTO tenants VALUES('gamma')");
            }
            append_receipts(&connection, tenant, from, to, None);
            rows += to - from + 1;
        }
        let last = step(&world, &["--as", shape]);
        assert!(last["segment"].as_str().unwrap().ends_with(&format!("rows-000000000017.{shape}")), "{last}");
        let nothing = step(&world, &["--as", shape]);
        assert_eq!((nothing["rows"].as_u64(), &nothing["segment"]), (Some(0), &Value::Null));
        let whole = format!("whole.{shape}");
        export(&world, &["--out", &whole]);
        assert_eq!(joined(&world), String::from_utf8(world.read(&whole)).unwrap());
        let mark: Value = serde_json::from_slice(&world.read("mark.json")).unwrap();
        assert_eq!((mark["rows"].as_u64(), mark["segments"].as_u64()), (Some(rows), Some(5)));
        assert_eq!(said(&verify(&world, 0, "segments")), said(&verify(&world, 0, "app.db")));
        // One segment alone: what was before it is not in it.
        let alone = format!("segments/rows-000000000013.{shape}");
        assert!(kinds(&verify(&world, 0, &alone), "notes").contains(&"retention-gap".to_owned()));
    }
}

#[test]
fn a_segment_that_is_gone_or_was_changed_is_found() {
    let world = World::ready();
    let connection = world.open("app.db");
    for number in 7..12 {
        step(&world, &[]);
        append_receipts(&connection, "alpha", number, number, None);
    }
    verify(&world, 0, "segments");
    let second = "segments/rows-000000000010.ndjson";
    let bytes = world.read(second);
    std::fs::rename(world.path(second), world.path("aside")).unwrap();
    assert!(kinds(&verify(&world, 1, "segments"), "findings").contains(&"missing".to_owned()));
    let text = String::from_utf8(bytes).unwrap();
    world.write(second, text.replace("2026-06-01 12:00:07", "2026-06-01 12:00:17"));
    assert_eq!(kinds(&verify(&world, 1, "segments"), "findings"), ["checkpoint-mismatch"]);
    world.write(second, &text);
    std::fs::remove_file(world.path(format!("{second}.json"))).unwrap();
    assert_eq!(kinds(&verify(&world, 1, "segments"), "findings"), ["missing"]);
}

#[test]
fn rewritten_history_stops_a_series_and_nothing_is_exported() {
    for change in [
        "UPDATE action_receipts SET created_at = '2020-01-01 00:00:00' WHERE id = 'alpha-2'",
        "UPDATE action_receipts SET receipt_hash = 'x' || substr(receipt_hash, 2) WHERE id = 'alpha-6'",
        "DELETE FROM action_receipts WHERE id = 'alpha-6'",
        "DELETE FROM action_receipts WHERE id = 'alpha-3'",
    ] {
        let world = World::ready();
        step(&world, &[]);
        append_receipts(&world.open("app.db"), "alpha", 7, 8, None);
        world.sql("app.db", change);
        let before = (world.read("mark.json"), files(&world.path("segments")));
        let run = [
            "chain",
            "export",
            "app.db",
            "--format",
            "aegisagent",
            "--out",
            "segments",
            "--watermark",
            "mark.json",
        ];
        let refused = world.json(1, run);
        assert_eq!(kinds(&refused, "findings"), ["rewritten"], "{change}: {refused}");
        assert_eq!(refused["findings"][0]["chain"], "alpha", "{change}");
        assert_eq!((world.read("mark.json"), files(&world.path("segments"))), before, "{change}");
    }
}

#[test]
fn rows_that_retention_removed_since_do_not_stop_a_series() {
    let world = World::ready();
    step(&world, &[]);
    append_receipts(&world.open("app.db"), "alpha", 7, 8, None);
    world.sql(
        "app.db",
        "DELETE FROM action_receipts WHERE id IN ('alpha-1', 'alpha-2', 'beta-1', 'beta-2', 'beta-3')",
    );
    let made = step(&world, &[]);
    assert_eq!(made["rows"], 2);
    assert_eq!(strings(&made["notes"]).len(), 2, "{made}");
    append_receipts(&world.open("app.db"), "alpha", 9, 9, None);
    let made = step(&world, &[]);
    assert_eq!((made["rows"].as_u64(), strings(&made["notes"]).len()), (Some(1), 0), "{made}");
    assert_eq!(verify(&world, 0, "segments")["records"], 12);
}

#[test]
fn a_row_that_came_late_among_exported_ones_is_exported_once() {
    let world = World::ready();
    let connection = world.open("app.db");
    append_receipts(&connection, "alpha", 7, 7, None);
    // A row id that was taken early and committed late: it stands before rows that were exported.
    connection.execute_batch("UPDATE action_receipts SET rowid = 1000 WHERE id = 'alpha-6'; CREATE TABLE late AS SELECT * FROM action_receipts WHERE id = 'alpha-7'; DELETE FROM action_receipts WHERE id = 'alpha-7'").unwrap();
    step(&world, &[]);
    let columns = "id, tenant_id, decision_id, ts, agent_id, user_id, run_id, trace_id, tool, action, resource, source_trust, decision, approver, action_hash, prev_receipt_hash, receipt_hash, canon_version, signature, signer_public_key, created_at, signer_key_id";
    connection
        .execute_batch(&format!(
            "INSERT INTO action_receipts(rowid, {columns}) SELECT 999, {columns} FROM late"
        ))
        .unwrap();
    assert_eq!(step(&world, &[])["rows"], 1);
    assert_eq!(step(&world, &[])["rows"], 0);
    let ids = joined(&world).matches("\"id\":\"alpha-7\"").count();
    assert_eq!(ids, 1);
    // In the order of the segments the chain is whole.
    verify(&world, 0, "segments");
}

#[test]
fn a_watermark_of_another_export_or_of_before_is_refused() {
    let world = World::ready();
    step(&world, &[]);
    let first = world.read("mark.json");
    let base = ["chain", "export", "app.db", "--format", "aegisagent", "--out", "segments", "--watermark"];
    let run = |mark: &str, more: &[&str], kind| {
        let mut all = base.to_vec();
        all.push(mark);
        all.extend(more);
        world.fails(kind, all)
    };
    run("mark.json", &["--as", "csv"], ErrorKind::InvalidInput);
    run("mark.json", &["--as", "json"], ErrorKind::InvalidInput);
    run("mark.json", &["--from", "2026-01-01"], ErrorKind::InvalidInput);
    run("none.json", &[], ErrorKind::AlreadyExists);
    world.write("bad.json", "{\"type\":\"x\"}");
    run("bad.json", &[], ErrorKind::Malformed);
    for number in [7, 8] {
        append_receipts(&world.open("app.db"), "alpha", number, number, None);
        step(&world, &[]);
    }
    world.write("mark.json", first);
    assert!(run("mark.json", &[], ErrorKind::AlreadyExists).contains("older"));
}

#[test]
fn a_segment_that_was_not_committed_is_put_right_by_the_next_run() {
    let world = World::ready();
    step(&world, &[]);
    append_receipts(&world.open("app.db"), "alpha", 7, 7, None);
    world.write("segments/rows-000000000010.ndjson", "half a li");
    world.write("segments/.rows-000000000010.ndjson.0011223344556677.part", "half");
    assert_eq!(step(&world, &[])["rows"], 1);
    assert_eq!(verify(&world, 0, "segments")["records"], 10);
    assert_eq!(files(&world.path("segments")).len(), 4);
}

#[test]
fn a_series_that_is_killed_at_any_point_has_no_gap_and_no_overlap() {
    let world = World::ready();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let connection = world.open("app.db");
            connection.busy_timeout(Duration::from_secs(10)).unwrap();
            connection.pragma_update(None, "journal_mode", "WAL").unwrap();
            let mut next = 7;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                append_receipts(&connection, "alpha", next, next + 4, None);
                next += 5;
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let mut delay = 0x2545_f491_4f6c_dd1d_u64;
        let mut killed = 0;
        for _ in 0..50 {
            delay = delay.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut run = world.command([
                "chain",
                "export",
                "app.db",
                "--format",
                "aegisagent",
                "--out",
                "segments",
                "--watermark",
                "mark.json",
                "--quiet",
            ]);
            let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(delay >> 33 & 0xffff));
            run.kill().unwrap();
            killed += u32::from(run.wait().unwrap().code().is_none());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        writer.join().unwrap();
        assert!(killed > 5, "only {killed} of 50 runs were killed before their end");
    });
    step(&world, &[]);
    export(&world, &["--out", "whole.ndjson"]);
    let whole = String::from_utf8(world.read("whole.ndjson")).unwrap();
    assert!(joined(&world) == whole, "the segments are not the whole export");
    assert_eq!(said(&verify(&world, 0, "segments")), said(&verify(&world, 0, "app.db")));
}

#[test]
fn exports_of_the_vectors_say_what_their_tables_say() {
    let Some(root) = vectors("exports_of_the_vectors_say_what_their_tables_say", "") else { return };
    let world = World::new();
    let mut seen = 0;
    let cases = [
        ("aegisagent", "aegisagent", "aegis.db"),
        ("aegisagent", "aegisagent-policy", "aegis.db"),
        ("z4j", "z4j", "z4j.db"),
        ("caracal", "caracal", "rows.ndjson"),
    ];
    for (system, format, file) in cases {
        for case in std::fs::read_dir(root.join(system)).unwrap() {
            let case = case.unwrap().path();
            let source = case.join(file);
            let admin = case.file_name().unwrap().to_string_lossy().starts_with("admin-");
            if !source.exists() || (admin && format == "caracal") {
                continue;
            }
            // The vectors cannot be written, and SQLite wants to open what it reads for writing.
            let copy = world.path(file);
            let _ = std::fs::remove_file(&copy);
            std::fs::write(&copy, std::fs::read(&source).unwrap()).unwrap();
            let secrets = secrets_of(&world, &case, system);
            let mut command = world.command(["chain", "verify", file, "--format", format, "--json"]);
            let table: crate::support::Run = command.args(&secrets).output().unwrap().into();
            let Ok(table_report) = serde_json::from_str::<Value>(&table.out) else { continue };
            for out in ["out.ndjson", "out.csv"] {
                for old in [out.to_owned(), format!("{out}.json")] {
                    let _ = std::fs::remove_file(world.path(old));
                }
                let mut command = world.command(["chain", "export", file, "--format", format, "--out", out]);
                crate::support::Run::from(command.args(&secrets).output().unwrap()).good();
                let mut command = world.command(["chain", "verify", out, "--format", format, "--json"]);
                let run: crate::support::Run = command.args(&secrets).output().unwrap().into();
                assert_eq!(run.status, table.status, "{} {out}", case.display());
                assert_eq!(said(&run.json()), said(&table_report), "{} {out}", case.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} cases");
}

/// Writes the test secrets of a case to files and returns the arguments that name them.
fn secrets_of(world: &World, case: &Path, system: &str) -> Vec<String> {
    let mut found = Vec::new();
    let text = std::fs::read(case.join("EXPECTED.json")).unwrap_or_default();
    let expected: Value = serde_json::from_slice(&text).unwrap_or_default();
    let mut add = |name: &str, value: &str| {
        let file = format!("secret-{}", found.len());
        world.write(&file, value);
        found.extend(["--secret".to_owned(), format!("{name}=file:{file}")]);
    };
    if system == "caracal" {
        add("AUDIT_HMAC_KEY", "a1a1a1a100112233445566778899aabbccddeeff0123456789abcdef01234567");
    }
    if let Some(runs) = expected["runs"].as_array() {
        let env = runs.last().and_then(|run| run["env"].as_object());
        for (name, value) in
            env.into_iter().flatten().filter(|(name, _)| name.contains("SECRET") && !name.contains("SESSION"))
        {
            for part in value.as_str().unwrap().split(',') {
                add(name, part);
            }
        }
    }
    found
}

#[test]
fn a_date_filtered_z4j_csv_verifies_alone_and_a_row_taken_out_of_it_is_found() {
    let Some(source) = vectors("a_date_filtered_z4j_csv_verifies_alone", "z4j/v2-valid/z4j.db") else {
        return;
    };
    let world = World::new();
    std::fs::write(world.path("z4j.db"), std::fs::read(&source).unwrap()).unwrap();
    let secrets = secrets_of(&world, source.parent().unwrap(), "z4j");
    let times: Vec<String> = {
        let connection = Connection::open(world.path("z4j.db")).unwrap();
        let mut statement =
            connection.prepare("SELECT occurred_at FROM audit_log ORDER BY occurred_at, id").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let (from, to) = (times[5].replace(' ', "T") + "Z", times[20].replace(' ', "T") + "Z");
    let mut command = world.command([
        "chain", "export", "z4j.db", "--format", "z4j", "--out", "a.csv", "--from", &from, "--to", &to,
        "--json",
    ]);
    let made = crate::support::Run::from(command.args(&secrets).output().unwrap()).good().json();
    assert_eq!(made["rows"], 15);
    let text = String::from_utf8(world.read("a.csv")).unwrap();
    let header = text.lines().next().unwrap();
    for column in ["row_hmac", "prev_row_hmac", "hmac_key_id", "chain_generation"] {
        assert!(header.split(',').any(|name| name == column), "{header}");
    }
    let verify = |name: &str, status| {
        let mut command = world.command(["chain", "verify", name, "--format", "z4j", "--json"]);
        crate::support::Run::from(command.args(&secrets).output().unwrap()).ends(status).json()
    };
    assert!(kinds(&verify("a.csv", 0), "notes").contains(&"retention-gap".to_owned()));
    world.write("alone.csv", &text);
    let alone = verify("alone.csv", 0);
    assert!(kinds(&alone, "notes").contains(&"retention-gap".to_owned()), "{alone}");
    assert_eq!(alone["chains"][0]["verified_by"][0]["from"], 1);
    // One record taken out of the middle: quoted fields hold no line ends here.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.remove(8);
    world.write("alone.csv", lines.join("\n") + "\n");
    assert_eq!(kinds(&verify("alone.csv", 1), "findings"), ["missing"]);
    world.write("alone.csv", text.replacen("success", "failed", 1));
    assert_eq!(kinds(&verify("alone.csv", 1), "findings"), ["edited"]);
}

#[test]
fn a_dump_of_agledger_is_exported_whole_with_its_counts() {
    let Some(folder) = vectors("a_dump_of_agledger_is_exported_whole", "agledger/valid-small/dump") else {
        return;
    };
    let world = World::new();
    let made =
        world.json(0, ["chain", "export", folder.to_str().unwrap(), "--format", "agledger", "--out", "dump"]);
    for table in [
        "audit_vault",
        "vault_checkpoints",
        "vault_signing_keys",
        "org_admin_reads",
        "org_admin_reads_checkpoints",
    ] {
        assert!(made["counts"][table].is_u64(), "{made}");
        assert!(world.path(format!("dump/{table}.ndjson")).exists());
    }
    let before = world.json(0, ["chain", "verify", folder.to_str().unwrap(), "--format", "agledger"]);
    let after = world.json(0, ["chain", "verify", "dump", "--format", "agledger"]);
    assert_eq!(said(&before), said(&after));
    world.fails(
        ErrorKind::AlreadyExists,
        ["chain", "export", folder.to_str().unwrap(), "--format", "agledger", "--out", "dump"],
    );
    world.fails(
        ErrorKind::Unsupported,
        ["chain", "export", folder.to_str().unwrap(), "--format", "agledger", "--out", "x", "--as", "csv"],
    );
}

#[test]
fn pages_in_a_folder_are_one_chain_in_the_order_of_their_numbers() {
    let world = World::ready();
    export(&world, &["--out", "all.ndjson", "--chain", "alpha"]);
    let text = String::from_utf8(world.read("all.ndjson")).unwrap();
    std::fs::create_dir(world.path("pages")).unwrap();
    for (at, line) in text.lines().enumerate() {
        let next = if at < 5 { format!("\"{}\"", at + 9) } else { "null".into() };
        world.write(
            format!("pages/page-{}.json", at + 8),
            format!("{{\"receipts\":[{line}],\"next_cursor\":{next}}}"),
        );
    }
    assert_eq!(verify(&world, 0, "pages")["records"], 6);
    world.json(0, ["chain", "export", "pages", "--format", "aegisagent", "--out", "from-pages.ndjson"]);
    assert_eq!(world.read("from-pages.ndjson"), text.as_bytes());
    std::fs::remove_file(world.path("pages/page-13.json")).unwrap();
    assert_eq!(kinds(&verify(&world, 1, "pages"), "findings"), ["truncated"]);
}
