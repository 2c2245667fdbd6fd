//! Known answers: the exact bytes that z4j signed, row by row, for every form, the state rows and the snapshot.

use serde_json::Value as Json;

use crate::format::Companions;
use crate::json_rows::NdjsonSource;
use crate::keys::KeyRing;
use crate::source::RowSource as _;

use super::Places;
use super::fields::{Address, uuid_text};
use super::forms::{ERA_A, ERA_B, ERA_C, FROZEN, Form, ROW_DOMAIN};
use super::keys::{CHAIN, MASTER, Secrets};
use super::metadata::{Metadata, Reading};
use super::state::{Found, State, Watermark};
use super::values::Fields;

macro_rules! vector {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/z4j/", $name))
    };
}

fn answers() -> Json {
    serde_json::from_str(vector!("KAT.json")).unwrap()
}

fn secrets(answers: &Json, group: &str) -> Secrets {
    let mut ring = KeyRing::new();
    for (name, member) in [(CHAIN[0], "audit_chain_secret"), (MASTER[0], "master_secret")] {
        if let Some(secret) = answers[group][member].as_str() {
            ring.add_secret(name, secret.as_bytes().to_vec());
        }
    }
    Secrets::new(&ring)
}

/// Hands every row to `each`: its id, its fields, its metadata as it is signed.
fn rows(text: &str, each: &mut dyn FnMut(&str, &Fields<'_>, &[u8])) {
    let source = NdjsonSource::once("rows", text.as_bytes()).unwrap();
    let places = Places::new(source.columns());
    let mut metadata = Metadata::default();
    let mut reader = source.reader().unwrap();
    while reader
        .read_chunk(&mut |row| {
            let mut problems = Vec::new();
            let fields = Fields::read(&places, row, &mut problems);
            assert!(problems.is_empty(), "{problems:?}");
            metadata
                .write(row.at(places.metadata).as_text().unwrap(), Reading { nonfinite: true, respelt: 0 })
                .unwrap();
            let id = uuid_text(&fields.id.unwrap());
            each(std::str::from_utf8(&id).unwrap(), &fields, metadata.form());
            Ok(())
        })
        .unwrap()
        .is_some()
    {}
}

fn form_of(form: &Form, fields: &Fields<'_>, metadata: &[u8]) -> String {
    let address = fields.source_ip.map(Address::parse);
    let source_ip = match &address {
        Some(Address::Compressed(spelt) | Address::Mapped([spelt, _]))
            if form.version == 2 && form.fields.len() == 18 =>
        {
            Some(spelt.as_str())
        }
        _ => fields.source_ip,
    };
    let mut out = Vec::new();
    form.write(&mut out, fields, source_ip, metadata);
    String::from_utf8(out).unwrap()
}

fn answer<'a>(answers: &'a Json, group: &str, id: &str) -> &'a Json {
    answers[group]["rows"].as_array().unwrap().iter().find(|row| row["id"] == id).unwrap()
}

#[test]
fn the_forms_of_eras_b_and_c_and_of_frozen_rows_are_the_exact_bytes() {
    let answers = answers();
    let mut checked = 0;
    for (group, text) in [
        ("v2_sqlite_valid", vector!("v2-valid/rows.jsonl")),
        ("v2_upgraded", vector!("v2-upgraded-from-1.7/rows.jsonl")),
        ("v1_1_7_0", vector!("v1-valid/rows.jsonl")),
    ] {
        let secrets = secrets(&answers, group);
        rows(text, &mut |id, fields, metadata| {
            let answer = answer(&answers, group, id);
            if let Some(canonical) = answer["frozen_canonical"].as_str() {
                assert_eq!(form_of(&FROZEN, fields, metadata), canonical, "{id}");
            } else {
                let (form, domain, secret) = if group == "v1_1_7_0" {
                    (&ERA_B, &b""[..], &secrets.master[0])
                } else {
                    (&ERA_C, ROW_DOMAIN, secrets.find(fields.hmac_key_id.unwrap()).unwrap())
                };
                let bytes = form_of(form, fields, metadata);
                assert_eq!(bytes, answer["canonical"].as_str().unwrap(), "{id}");
                let mac = secret.mac(&[domain, bytes.as_bytes()]).unwrap();
                assert_eq!(hex::encode(mac), answer["row_hmac"].as_str().unwrap(), "{id}");
            }
            checked += 1;
        });
    }
    assert_eq!(checked, 58 + 57 + 50);
}

#[test]
fn the_three_forms_of_era_a_are_the_exact_bytes() {
    let answers = answers();
    let secrets = secrets(&answers, "v3_1_2_1");
    let mut checked = 0;
    rows(vector!("v3-valid/rows.jsonl"), &mut |id, fields, metadata| {
        let answer = answer(&answers, "v3_1_2_1", id);
        for form in &ERA_A {
            let bytes = form_of(form, fields, metadata);
            assert_eq!(bytes, answer["canonical"][form.version.to_string()].as_str().unwrap(), "{id}");
            if form.version == 3 {
                let mac = secrets.master[0].mac(&[bytes.as_bytes()]).unwrap();
                assert_eq!(hex::encode(mac), answer["row_hmac"].as_str().unwrap(), "{id}");
            }
        }
        checked += 1;
    });
    assert_eq!(checked, 50);
}

#[test]
fn key_ids_state_macs_and_watermarks_are_z4js() {
    let answers = answers();
    for (secret, id) in answers["key_ids"].as_object().unwrap() {
        let mut ring = KeyRing::new();
        ring.add_secret("any", secret.as_bytes().to_vec());
        assert_eq!(Secrets::new(&ring).by_id[0].id, id.as_str().unwrap());
    }
    let secrets_of = |group: &str| secrets(&answers, group);
    for (group, text) in [
        ("v2_sqlite_valid", vector!("v2-valid/state.json")),
        ("v2_upgraded", vector!("v2-upgraded-from-1.7/state.json")),
        ("v2_pruned_state", vector!("v2-pruned/state.json")),
    ] {
        let companions: Companions = serde_json::from_str(text).unwrap();
        let Found::Row(state) = State::read(&companions) else { panic!("{group}") };
        assert_eq!(state.signed(), answers[group]["state_canonical"].as_str().unwrap(), "{group}");
        let secrets = secrets_of("v2_sqlite_valid");
        let secret = secrets.find(answers[group]["state_key_id"].as_str().unwrap()).unwrap();
        assert!(state.is_signed_by(secret), "{group}");
    }
    let watermark = &answers["prune_watermark_1_8"];
    let row = serde_json::json!({"key": "audit_prune_watermark", "value": watermark["stored_value"]});
    let companions = Companions::from([("z4j_meta".into(), vec![row.as_object().unwrap().clone()])]);
    let read = Watermark::read(&companions).unwrap();
    assert_eq!(read.row_hmac, watermark["row_hmac"].as_str().unwrap());
    assert_eq!(read.is_authentic(&secrets_of("v1_1_7_0")), Some(true));
    assert_eq!(read.is_authentic(&secrets_of("v2_sqlite_valid")), Some(false));
}
