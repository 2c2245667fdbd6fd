//! `chain prove` and `chain check-proof`: a proof stands alone, and any change of it is noticed.

use serde_json::Value;

use crate::support::{ErrorKind, World, append_receipts};

/// A folder with a proof of `alpha-4`, led to a checkpoint that `backup.key` signed.
fn world() -> World {
    let world = World::ready();
    let made = world
        .run([
            "chain",
            "prove",
            "app.db",
            "--format",
            "aegisagent",
            "--record",
            "alpha-4",
            "--sign-with",
            "backup.key",
        ])
        .good();
    world.write("proof.json", made.out);
    world
}

const CHECK: [&str; 5] = ["chain", "check-proof", "proof.json", "--public-key", "backup.key.pub"];

#[test]
fn a_proof_is_checked_without_the_rows() {
    let world = world();
    std::fs::remove_file(world.path("app.db")).unwrap();
    let shown = world.json(0, CHECK);
    assert_eq!(
        (&shown["ok"], &shown["format"], &shown["chain"], &shown["position"], &shown["records"]),
        (&true.into(), &"aegisagent".into(), &"alpha".into(), &4.into(), &6.into())
    );
    assert_eq!(shown["row"]["id"], "alpha-4");
    assert_eq!(shown["signed_by"].as_array().unwrap().len(), 1);
    let text = world.run(CHECK).good().out;
    assert!(text.starts_with("PROVEN  the row below is record 4 of 6 records of chain alpha"), "{text}");
}

#[test]
fn a_proof_vouches_for_nothing_without_a_key_or_a_checkpoint() {
    let world = world();
    let said = world.fails(ErrorKind::InvalidInput, ["chain", "check-proof", "proof.json"]);
    assert!(said.contains("--public-key") && said.contains("--checkpoint"), "{said}");
    world.run(["keygen", "--out", "other.key"]).good();
    world.fails(ErrorKind::Tampered, ["chain", "check-proof", "proof.json", "--public-key", "other.key.pub"]);
    // A checkpoint that was kept will do; one of another time does not.
    let checkpoint = ["chain", "checkpoint", "app.db", "--format", "aegisagent"];
    world.write("kept", world.run(checkpoint).good().out);
    let kept = ["chain", "check-proof", "proof.json", "--checkpoint", "kept"];
    assert_eq!(world.json(0, kept)["signed_by"].as_array().unwrap().len(), 0);
    append_receipts(&world.open("app.db"), "alpha", 7, 7, None);
    world.write("kept", world.run(checkpoint).good().out);
    world.fails(ErrorKind::Tampered, kept);
    // The grown chain still proves against the earlier checkpoint that the proof carries.
    let proof: Value = serde_json::from_slice(&world.read("proof.json")).unwrap();
    world.write("then", proof["checkpoint"].as_str().unwrap());
    let again = world
        .run([
            "chain",
            "prove",
            "app.db",
            "--format",
            "aegisagent",
            "--position",
            "4",
            "--chain",
            "alpha",
            "--checkpoint",
            "then",
        ])
        .good()
        .out;
    assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), proof);
}

#[test]
fn any_change_of_a_proof_is_noticed() {
    let world = world();
    let proof: Value = serde_json::from_slice(&world.read("proof.json")).unwrap();
    for (member, value) in [
        ("row", Value::from(proof["row"].as_str().unwrap().replace("decision alpha", "decision beta"))),
        ("index", 2.into()),
        ("size", 7.into()),
        ("chain", "beta".into()),
        ("format", "native".into()),
        ("path", Value::Array(proof["path"].as_array().unwrap()[1..].to_vec())),
        ("checkpoint", Value::from(proof["checkpoint"].as_str().unwrap().replace("chain 6", "chain 5"))),
    ] {
        let mut altered = proof.clone();
        assert_ne!(altered[member], value, "{member}");
        altered[member] = value;
        world.write("proof.json", altered.to_string());
        world.fails(ErrorKind::Tampered, CHECK);
    }
    for text in ["", "{}", "hello", "[]", "{\"type\":\"attestore.dev/inclusion-proof/v9\"}"] {
        world.write("proof.json", text);
        world.fails(ErrorKind::Malformed, CHECK);
    }
    world.fails(ErrorKind::NotFound, ["chain", "check-proof", "nowhere", "--public-key", "backup.key.pub"]);
}

#[test]
fn a_record_that_cannot_be_proven_is_told() {
    let world = World::ready();
    let prove =
        |more: &[&'static str]| [&["chain", "prove", "app.db", "--format", "aegisagent"][..], more].concat();
    world.fails(ErrorKind::NotFound, prove(&["--record", "nobody"]));
    world.fails(ErrorKind::NotFound, prove(&["--position", "9"]));
    let said = world.fails(ErrorKind::InvalidInput, prove(&["--position", "2"]));
    assert!(said.contains("alpha") && said.contains("beta") && said.contains("--chain"), "{said}");
    world.run(prove(&["--position", "2", "--chain", "beta"])).good();
    world.fails(ErrorKind::InvalidInput, prove(&[]));
    world.fails(ErrorKind::InvalidInput, prove(&["--record", "alpha-1", "--position", "1"]));
    world.fails(ErrorKind::InvalidInput, prove(&["--position", "0"]));
    // Nothing is proven of rows that are not what they were.
    let checkpoint = ["chain", "checkpoint", "app.db", "--format", "aegisagent"];
    world.write("kept", world.run(checkpoint).good().out);
    world.sql("app.db", "UPDATE action_receipts SET decision = 'deny' WHERE id = 'alpha-2'");
    world.fails(ErrorKind::Tampered, prove(&["--record", "alpha-1"]));
    world.fails(ErrorKind::Tampered, prove(&["--record", "alpha-1", "--checkpoint", "kept"]));
    world.run(prove(&["--record", "beta-1", "--checkpoint", "kept"])).good();
}
