//! Secrets that fit: the preflight's sentence, and the credential-gap report of a drill, on real ciphertext.

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::Payload;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::plan::planned;
use crate::support::{ErrorKind, World, vectors};

/// Seals as Auxot draws it: `<nonce>.<ct>.<tag>`, each part in base64.
fn dotted(key: &[u8; 32], number: u8, value: &[u8]) -> String {
    let nonce = [number; 12];
    let sealed = Aes256Gcm::new(key.into()).encrypt(Nonce::from_slice(&nonce), value).unwrap();
    let (ct, tag) = sealed.split_at(sealed.len() - 16);
    format!("{}.{}.{}", STANDARD.encode(nonce), STANDARD.encode(ct), STANDARD.encode(tag))
}

/// Seals as CSS1: a data key under the key, the value under the data key.
fn css1(key: &[u8; 32], aad: &str, value: &[u8]) -> Vec<u8> {
    let data_key = [9_u8; 32];
    let seal = |key: &[u8; 32], nonce: [u8; 12], msg: &[u8], aad: &[u8]| {
        ChaCha20Poly1305::new(key.into()).encrypt((&nonce).into(), Payload { msg, aad }).unwrap()
    };
    let mut envelope = b"CSS1".to_vec();
    envelope.extend_from_slice(&Sha256::digest(key)[..8]);
    envelope.extend_from_slice(&[1; 12]);
    envelope.extend(seal(key, [1; 12], &data_key, b"caracal.css1.dek"));
    envelope.extend_from_slice(&[2; 12]);
    envelope.extend(seal(&data_key, [2; 12], value, aad.as_bytes()));
    envelope
}

fn secret(name: &str) -> String {
    format!(
        "[[secrets]]\nname = \"{name}\"\nref = \"file:{name}\"\nopens = \"x\"\nescrow = \"the safe\"\nif_lost = \"re-enter\"\n"
    )
}

fn sealed(table: &str, column: &str, secret: &str, more: &str) -> String {
    format!("[[sources.sealed]]\ntable = \"{table}\"\ncolumn = \"{column}\"\nsecret = \"{secret}\"\n{more}\n")
}

const RIGHT: [u8; 32] = [7; 32];
const OTHER: [u8; 32] = [8; 32];

fn drill(world: &World, status: i32) -> Value {
    world.json(status, ["drill", "--plan", "attestore.toml"])
}

/// A world whose database has credentials 0 to 4, of which 3 and 4 are sealed under another key.
fn credentials(if_lost: &str) -> World {
    let more = format!(
        "{}{}",
        sealed(
            "credentials",
            "value",
            "KEY",
            &format!("id = \"name\"\nlayout = \"<nonce>.<ct>.<tag>\"\nif_lost = \"{if_lost}\"")
        ),
        secret("KEY")
    );
    let world = planned(&more);
    world.sql("app.db", "CREATE TABLE credentials(name TEXT PRIMARY KEY, value TEXT)");
    let db = world.open("app.db");
    for number in 0..5_u8 {
        let key = if number < 3 { &RIGHT } else { &OTHER };
        let value = dotted(key, number, b"sk-proj-abc123");
        db.execute("INSERT INTO credentials VALUES (?1, ?2)", (format!("provider-{number}"), value)).unwrap();
    }
    db.execute("INSERT INTO credentials VALUES ('none', NULL), ('empty', '')", []).unwrap();
    world.write("KEY", hex::encode(RIGHT));
    world.json(0, ["backup", "--plan", "attestore.toml", "--name", "one"]);
    world
}

#[test]
fn credentials_that_do_not_open_are_counted_and_named_and_never_shown() {
    let world = credentials("re-enter");
    let report = drill(&world, 1);
    let gap = &report["gaps"][0];
    assert_eq!((&gap["values"], &gap["opens"], &gap["does_not_open"]), (&5.into(), &3.into(), &2.into()));
    assert_eq!(gap["records"], serde_json::json!(["provider-3", "provider-4"]));
    assert!(
        gap["diagnosis"].as_str().unwrap().contains("2 of 5 values do not open although others do"),
        "{gap}"
    );
    let text = world.run(["drill", "--plan", "attestore.toml"]).ends(1).out;
    assert!(
        text.contains(
            "| credentials.value | 5 | 3 | 2 | a person enters it again | provider-3, provider-4 |"
        ),
        "{text}"
    );
    assert!(!text.contains("sk-proj") && !text.contains(&hex::encode(RIGHT)));
    // What is simply minted anew is reported and fails nothing.
    let world = credentials("mint");
    assert_eq!(drill(&world, 0)["gaps"][0]["ok"], false);
}

#[test]
fn a_wrong_or_missing_secret_is_told_from_damage() {
    let world = credentials("re-enter");
    world.write("KEY", hex::encode([1_u8; 32]));
    let report = drill(&world, 1);
    assert_eq!(report["secrets"][0]["state"], "does-not-fit");
    assert!(
        report["gaps"][0]["diagnosis"].as_str().unwrap().contains("most likely not the key of this data"),
        "{report:#}"
    );
    std::fs::remove_file(world.path("KEY")).unwrap();
    let report = drill(&world, 1);
    assert_eq!(report["secrets"][0]["state"], "not-at-hand");
    assert!(report["gaps"][0]["diagnosis"].as_str().unwrap().contains("is not at hand"));
    world.write("KEY", "too short");
    let said = world.fails(ErrorKind::KeyRejected, ["drill", "--plan", "attestore.toml"]);
    assert!(said.contains("is not 32 bytes") && !said.contains("too short"), "{said}");
}

#[test]
fn after_a_restore_the_gaps_of_the_live_database_are_said() {
    let world = credentials("re-enter");
    world.run(["restore", "repo", "one", "--to", "elsewhere.db"]).good();
    for place in [&[][..], &["app=elsewhere.db"][..]] {
        let arguments: Vec<&str> =
            ["gaps", "--plan", "attestore.toml"].iter().chain(place).copied().collect();
        let found = world.json(1, &arguments);
        assert_eq!((&found["gaps"][0]["opens"], &found["gaps"][0]["values"]), (&3.into(), &5.into()));
        let text = world.run(&arguments).ends(1).out;
        assert!(text.contains("  provider-3\n  provider-4\n") && !text.contains("sk-proj"), "{text}");
    }
    world.sql("app.db", "DELETE FROM credentials WHERE name IN ('provider-3', 'provider-4')");
    world.run(["gaps", "--plan", "attestore.toml"]).good();
    world.fails(ErrorKind::InvalidInput, ["gaps", "--plan", "attestore.toml", "nope=x.db"]);
    world.fails(ErrorKind::NotFound, ["gaps", "--plan", "attestore.toml", "app=nowhere.db"]);
    world.write("attestore.toml", crate::plan::HEAD);
    let said = world.fails(ErrorKind::InvalidInput, ["gaps", "--plan", "attestore.toml"]);
    assert!(said.contains("no sealed column"), "{said}");
}

#[test]
fn the_preflight_names_the_fingerprint_and_the_day() {
    let world = credentials("re-enter");
    world.write("wrong", hex::encode(OTHER));
    for verb in [&["restore", "repo", "one", "--to", "x.db", "--plan"][..], &["drill", "repo", "one"][..]] {
        let arguments: Vec<&str> = verb.iter().copied().chain(["--secret", "KEY=file:wrong"]).collect();
        let said = world.fails(ErrorKind::KeyRejected, arguments);
        let day = jiff::Timestamp::now().strftime("made %Y-%m-").to_string();
        assert!(
            said.contains("the key at hand is not the one this backup was made with (needs fingerprint ")
                && said.contains(&day),
            "{said}"
        );
    }
    assert!(!world.path("x.db").exists());
}

#[test]
fn caracal_envelopes_say_which_key_they_need() {
    let more = format!(
        "{}{}{}",
        sealed("secret_store", "envelope", "KEK", "id = \"ref\"\nkind = \"css1\"\naad = \"{ref}\""),
        sealed(
            "secrets",
            "ciphertext",
            "KEK",
            "kind = \"zone-kek\"\nnonce_column = \"nonce\"\nencoding = \"raw\""
        ),
        secret("KEK")
    );
    let world = planned(&more);
    world.sql("app.db", "CREATE TABLE secret_store(ref TEXT PRIMARY KEY, envelope BLOB); CREATE TABLE secrets(ciphertext BLOB, nonce BLOB)");
    let db = world.open("app.db");
    for (name, key) in [("zones/a/1", &RIGHT), ("zones/a/2", &RIGHT), ("zones/b/3", &OTHER)] {
        db.execute("INSERT INTO secret_store VALUES (?1, ?2)", (name, css1(key, name, b"{}"))).unwrap();
    }
    // Sealed for another place: the additional data does not fit.
    db.execute("INSERT INTO secret_store VALUES ('moved', ?1)", [css1(&RIGHT, "zones/a/9", b"{}")]).unwrap();
    let old = ChaCha20Poly1305::new((&RIGHT).into()).encrypt((&[3_u8; 12]).into(), &b"pem"[..]).unwrap();
    db.execute("INSERT INTO secrets VALUES (?1, ?2)", (old, [3_u8; 12])).unwrap();
    world.write("KEK", hex::encode(RIGHT));
    world.json(0, ["backup", "--plan", "attestore.toml"]);
    let report = drill(&world, 1);
    let gap = &report["gaps"][0];
    let id = |key: &[u8; 32]| hex::encode(&Sha256::digest(key)[..8]);
    assert_eq!(gap["key_ids"][id(&RIGHT)], 3);
    assert_eq!(gap["key_ids"][id(&OTHER)], 1);
    assert_eq!((&gap["opens"], &gap["records"]), (&2.into(), &serde_json::json!(["zones/b/3", "moved"])));
    let said = gap["diagnosis"].as_str().unwrap();
    assert!(said.contains(&format!("need key {}, at hand is {}", id(&OTHER), id(&RIGHT))), "{said}");
    assert_eq!(report["gaps"][1]["ok"], true, "{report:#}");
}

#[test]
fn vectors_of_caracal_and_auxot_open_as_they_say() {
    let Some(auxot) = vectors("vectors_of_caracal_and_auxot_open_as_they_say", "auxot/credentials-right-key")
    else {
        return;
    };
    let caracal = auxot.join("../../caracal");
    let read = |path: std::path::PathBuf| -> Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let values = read(auxot.join("credentials.json"));
    let layout = "layout = \"<nonce>.<ct>.<tag>\"";
    let more = format!(
        "{}{}{}{}{}{}",
        sealed("base", "value", "AUXOT", layout),
        sealed("url", "value", "AUXOT", layout),
        sealed("hex", "value", "AUXOT", &format!("{layout}\nencoding = \"hex\"")),
        sealed("css1", "value", "KEK", "kind = \"css1\"\naad = \"{aad}\"\nencoding = \"hex\""),
        secret("AUXOT"),
        secret("KEK")
    );
    let world = planned(&more);
    world.sql("app.db", "CREATE TABLE base(value); CREATE TABLE url(value); CREATE TABLE hex(value); CREATE TABLE css1(value, aad TEXT)");
    let db = world.open("app.db");
    for value in values.as_array().unwrap() {
        let table = match value["encoding"].as_str().unwrap() {
            "base64" => "base",
            "base64url" => "url",
            _ => "hex",
        };
        db.execute(&format!("INSERT INTO {table} VALUES (?1)"), [value["value"].as_str().unwrap()]).unwrap();
    }
    let expected = read(caracal.join("css1-envelopes/EXPECTED.json"));
    let golden = "8f3d9a712c45e6b0d18f2a4c6e9b3d57a1c4f8020e6a9c3d5b7f1a2c4e6d8b90";
    let (mut good, mut all) = (0, 0);
    for case in expected["cases"].as_array().unwrap().iter().filter(|case| case["kek_hex"] == golden) {
        let (Some(envelope), Some(aad)) = (case["envelope_hex"].as_str(), case["aad"].as_str()) else {
            continue;
        };
        db.execute("INSERT INTO css1 VALUES (?1, ?2)", (envelope, aad)).unwrap();
        good += u64::from(case["status"] == "ok");
        all += u64::from(!envelope.is_empty());
    }
    assert!(good >= 4, "the vectors have envelopes that open");
    world.write("AUXOT", read(auxot.join("EXPECTED.json"))["key_hex"].as_str().unwrap());
    world.write("KEK", golden);
    world.json(0, ["backup", "--plan", "attestore.toml"]);
    let report = world.command(["drill", "--plan", "attestore.toml", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    for number in 0..3 {
        assert_eq!(
            (&report["gaps"][number]["opens"], &report["gaps"][number]["ok"]),
            (&2.into(), &true.into()),
            "{report:#}"
        );
    }
    assert_eq!(
        (report["gaps"][3]["opens"].as_u64(), report["gaps"][3]["values"].as_u64()),
        (Some(good), Some(all)),
        "{report:#}"
    );
}
