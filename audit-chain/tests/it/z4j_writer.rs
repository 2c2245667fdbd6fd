//! A small writer of z4j's log for tests: the rules of formats/z4j.md with serde_json, nothing of the library.
//!
//! Numbers in its metadata are such that Python and serde_json spell them alike.

use audit_chain::format::Companions;
use audit_chain::keys::KeyRing;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) type Row = Map<String, Value>;

/// What rows look like in an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Sqlite,
    Postgres,
    Json,
}

pub(crate) const STYLES: [Style; 3] = [Style::Sqlite, Style::Postgres, Style::Json];

/// The columns that eras A and B have; era A lacks `api_key_id`.
pub(crate) const LEGACY: [&str; 15] = [
    "action",
    "api_key_id",
    "event_id",
    "id",
    "metadata",
    "occurred_at",
    "outcome",
    "prev_row_hmac",
    "project_id",
    "result",
    "source_ip",
    "target_id",
    "target_type",
    "user_agent",
    "user_id",
];

pub(crate) fn mac(secret: &str, parts: &[&[u8]]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    hex::encode(mac.finalize().into_bytes())
}

pub(crate) fn key_id(secret: &str) -> String {
    mac(secret, &[b"z4j/audit-chain/key-id/v1\0"])
}

/// Makes a UUID of a number.
pub(crate) fn uuid(number: u64) -> String {
    let digits = hex::encode(&Sha256::digest(number.to_be_bytes())[..16]);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// Spells microseconds since 2026-01-01 as they are hashed; 28 days at most.
pub(crate) fn stamp(micros: u64) -> String {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (minutes, hours) = (seconds / 60, seconds / 3_600);
    format!(
        "2026-01-{:02}T{:02}:{:02}:{:02}.{micros:06}+00:00",
        hours / 24 + 1,
        hours % 24,
        minutes % 60,
        seconds % 60
    )
}

/// One database: the rows as they are hashed, and the state.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) era: char,
    pub(crate) secrets: Vec<String>,
    pub(crate) rows: Vec<Row>,
    pub(crate) frozen: Vec<Row>,
    pub(crate) generation: String,
    pub(crate) head: Option<Row>,
    pub(crate) prune: Option<Row>,
    clock: u64,
    count: u64,
}

impl Log {
    pub(crate) fn new(era: char) -> Self {
        Self {
            era,
            secrets: vec![format!("test-secret-number-0-of-era-{era}-0123456789")],
            rows: Vec::new(),
            frozen: Vec::new(),
            generation: uuid(9_000_000),
            head: None,
            prune: None,
            clock: 1_000_000,
            count: 0,
        }
    }

    /// Makes a log of some rows.
    pub(crate) fn of(era: char, count: u64) -> Self {
        let mut log = Self::new(era);
        (0..count).for_each(|_| log.append(40_000));
        log
    }

    /// Appends a row `step` microseconds after the clock's last reading, or before it.
    pub(crate) fn append(&mut self, step: i64) {
        self.clock = self.clock.checked_add_signed(step).unwrap_or(0);
        let mut at = self.clock;
        let head_at = self.rows.last().or(self.head.as_ref()).map(|row| row["micros"].as_u64().unwrap());
        if self.era == 'C' {
            at = head_at.map_or(at, |head| at.max(head + 1));
        }
        self.count += 1;
        let number = self.count;
        let ips = [json!(null), json!("203.0.113.9"), json!("2001:db8::a1")];
        let Value::Object(mut row) = json!({
            "micros": at, "id": uuid(number), "occurred_at": stamp(at), "action": format!("auth.login {number} é\"\\"),
            "target_type": "user", "target_id": if number.is_multiple_of(4) { json!(null) } else { json!("nobody@example.com") },
            "result": "success", "outcome": "allow", "event_id": null, "user_id": uuid(number % 3),
            "api_key_id": if number.is_multiple_of(5) { json!(uuid(77)) } else { json!(null) }, "project_id": uuid(1),
            "source_ip": ips[(number % 3) as usize], "user_agent": "curl \u{2028}\n", "metadata": {
                "n": number, "é": [1, 2.5, {"b": null, "a": "x"}], "text": "\u{1}\u{7f}/ 😀", "yes": true,
            },
        }) else {
            unreachable!()
        };
        // In eras A and B the newest by time is the predecessor.
        let newest = self
            .rows
            .iter()
            .max_by_key(|row| (row["micros"].as_u64(), row["id"].as_str().map(str::to_owned)));
        let prev = newest.or(self.head.as_ref()).map_or(Value::Null, |row| row["row_hmac"].clone());
        row.insert("prev_row_hmac".into(), prev);
        self.sign(&mut row);
        self.head = Some(row.clone());
        self.rows.push(row);
    }

    /// Signs a row with the current secret.
    pub(crate) fn sign(&self, row: &mut Row) {
        let secret = self.secrets.last().unwrap();
        let mut signed: Row = LEGACY.iter().map(|name| ((*name).to_owned(), row[*name].clone())).collect();
        let hmac = match self.era {
            'A' => {
                signed.remove("api_key_id");
                signed.insert("version".into(), 3.into());
                mac(secret, &[serde_json::to_string(&signed).unwrap().as_bytes()])
            }
            'B' => {
                signed.insert("version".into(), 1.into());
                mac(secret, &[serde_json::to_string(&signed).unwrap().as_bytes()])
            }
            _ => {
                row.insert("hmac_key_id".into(), key_id(secret).into());
                row.insert("chain_generation".into(), self.generation.clone().into());
                signed.insert("version".into(), 2.into());
                signed.insert("hmac_key_id".into(), row["hmac_key_id"].clone());
                signed.insert("chain_generation".into(), row["chain_generation"].clone());
                mac(
                    secret,
                    &[b"z4j/audit-chain/row/v2\0", serde_json::to_string(&signed).unwrap().as_bytes()],
                )
            }
        };
        row.insert("row_hmac".into(), hmac.into());
    }

    /// Changes the secret; the next row is signed with it, and the state.
    pub(crate) fn rotate(&mut self) {
        self.secrets.push(format!(
            "test-secret-number-{}-of-era-{}-0123456789",
            self.secrets.len(),
            self.era
        ));
        self.append(1_000);
    }

    /// Removes the oldest rows on record.
    pub(crate) fn prune(&mut self, count: usize) {
        if count > 0 {
            let gone: Vec<Row> = self.rows.drain(..count).collect();
            self.prune = gone.last().cloned();
        }
    }

    /// Upgrades a log of era B: its rows become frozen, a new generation begins.
    pub(crate) fn upgrade(mut self) -> (Self, String) {
        let master = self.secrets[0].clone();
        let mut log = Self::new('C');
        (log.clock, log.count) = (self.clock, self.count);
        for row in &mut self.rows {
            row.insert("hmac_key_id".into(), key_id(&master).into());
        }
        log.frozen = std::mem::take(&mut self.rows);
        log.append(1_000_000);
        log.append(1_000);
        (log, master)
    }

    /// Returns what era C's state row signs of a frozen row.
    fn frozen_form(row: &Row) -> String {
        let mut form: Row = LEGACY.iter().map(|name| ((*name).to_owned(), row[*name].clone())).collect();
        form.insert("row_hmac".into(), row["row_hmac"].clone());
        form.insert("hmac_key_id".into(), row["hmac_key_id"].clone());
        form.insert("hmac_version".into(), 1.into());
        form.insert("legacy_frozen".into(), true.into());
        form.insert("legacy_integrity_class".into(), "legacy-linked-verified".into());
        form.insert("legacy_origin".into(), "audit-log:preparation-v1".into());
        form.insert("chain_generation".into(), Value::Null);
        serde_json::to_string(&form).unwrap()
    }

    /// Returns the signed state row as it is hashed, with its MAC.
    pub(crate) fn state(&self) -> Row {
        let mut counts = Row::new();
        for row in &self.rows {
            let key = row["hmac_key_id"].as_str().unwrap().to_owned();
            let count = counts.get(&key).and_then(Value::as_u64).unwrap_or(0);
            counts.insert(key, (count + 1).into());
        }
        let mut digest = Sha256::new_with_prefix("z4j/audit-chain/frozen-snapshot/v1\0");
        for row in &self.frozen {
            let form = Self::frozen_form(row);
            digest.update((form.len() as u64).to_be_bytes());
            digest.update(form);
        }
        let frozen = (!self.frozen.is_empty()).then(|| hex::encode(digest.finalize()));
        let part = |row: &Option<Row>, name: &str| row.as_ref().map_or(Value::Null, |row| row[name].clone());
        let secret = self.secrets.last().unwrap();
        let Value::Object(mut state) = json!({
            "format_version": 1, "generation": self.generation, "installation_id": uuid(5), "state_key_id": key_id(secret),
            "head_row_hmac": part(&self.head, "row_hmac"), "head_hmac_key_id": part(&self.head, "hmac_key_id"),
            "head_occurred_at": part(&self.head, "occurred_at"), "head_id": part(&self.head, "id"),
            "prune_row_hmac": part(&self.prune, "row_hmac"), "prune_hmac_key_id": part(&self.prune, "hmac_key_id"),
            "prune_occurred_at": part(&self.prune, "occurred_at"), "prune_id": part(&self.prune, "id"),
            "active_row_count": self.rows.len(), "active_key_counts": counts, "frozen_row_count": self.frozen.len(),
            "frozen_snapshot_digest": frozen, "retired_recovery_binding": null,
        }) else {
            unreachable!()
        };
        let signed = serde_json::to_string(&state).unwrap();
        let mac = mac(secret, &[b"z4j/audit-chain/state/v1\0", signed.as_bytes()]);
        state.insert("state_mac".into(), mac.into());
        state.insert("singleton_id".into(), "audit-chain".into());
        state
    }

    /// Returns the small tables.
    pub(crate) fn companions(&self, style: Style) -> Companions {
        let mut tables = Companions::from([("z4j_meta".to_owned(), Vec::new())]);
        if self.era == 'C' {
            let mut state = self.state();
            for name in ["generation", "installation_id", "head_id", "prune_id"] {
                spell_uuid(&mut state, name, style);
            }
            for name in ["head_occurred_at", "prune_occurred_at"] {
                spell_time(&mut state, name, style);
            }
            if style != Style::Json {
                for name in ["active_key_counts", "retired_recovery_binding"] {
                    let text = serde_json::to_string_pretty(&state[name]).unwrap();
                    state.insert(name.into(), text.into());
                }
            }
            tables.insert("audit_chain_state".into(), vec![state]);
        }
        tables
    }

    /// Returns the rows as an input has them, in chain order.
    pub(crate) fn spelt(&self, style: Style) -> Vec<Row> {
        let mut rows: Vec<&Row> = self.frozen.iter().chain(&self.rows).collect();
        rows.sort_by_key(|row| (row["micros"].as_u64(), row["id"].as_str().map(str::to_owned)));
        let is_frozen = |row: &Row| self.frozen.iter().any(|frozen| frozen["id"] == row["id"]);
        rows.into_iter().map(|row| self.spell(row, is_frozen(row), style)).collect()
    }

    /// Spells one row.
    pub(crate) fn spell(&self, row: &Row, frozen: bool, style: Style) -> Row {
        let mut spelt = row.clone();
        spelt.remove("micros");
        for name in ["id", "event_id", "user_id", "api_key_id", "project_id", "chain_generation"] {
            spell_uuid(&mut spelt, name, style);
        }
        spell_time(&mut spelt, "occurred_at", style);
        if style != Style::Json {
            let metadata = serde_json::to_string_pretty(&row["metadata"]).unwrap();
            let ascii = if style == Style::Sqlite { escape(&metadata) } else { metadata };
            spelt.insert("metadata".into(), ascii.into());
        }
        match self.era {
            'A' => {
                spelt.remove("api_key_id");
            }
            'B' => {}
            _ => {
                let yes = |is: bool| match style {
                    Style::Sqlite => json!(i32::from(is)),
                    Style::Postgres => json!(if is { "t" } else { "f" }),
                    Style::Json => json!(is),
                };
                spelt.insert("legacy_frozen".into(), yes(frozen));
                spelt.insert("hmac_version".into(), (2 - i32::from(frozen)).into());
                let class = |text: &str| if frozen { json!(text) } else { Value::Null };
                spelt.insert("legacy_integrity_class".into(), class("legacy-linked-verified"));
                spelt.insert("legacy_origin".into(), class("audit-log:preparation-v1"));
                if frozen {
                    spelt.insert("chain_generation".into(), Value::Null);
                }
            }
        }
        spelt
    }

    /// Returns the names and values of the secrets: the last is current.
    pub(crate) fn ring(&self, master: Option<&str>) -> KeyRing {
        let (current, before) = if self.era == 'C' {
            ("Z4J_AUDIT_CHAIN_SECRET", "Z4J_AUDIT_CHAIN_PREVIOUS_SECRETS")
        } else {
            ("Z4J_SECRET", "Z4J_PREVIOUS_SECRETS")
        };
        let mut ring = KeyRing::new();
        let (last, others) = self.secrets.split_last().unwrap();
        ring.add_secret(current, last.clone().into_bytes());
        ring.add_secret(before, others.join(" , ,").into_bytes());
        if let Some(master) = master {
            ring.add_secret("Z4J_SECRET", master.as_bytes().to_vec());
        }
        ring
    }
}

fn spell_uuid(row: &mut Row, name: &str, style: Style) {
    if let (Style::Sqlite, Some(Value::String(text))) = (style, row.get(name)) {
        row.insert(name.into(), text.replace('-', "").into());
    }
}

fn spell_time(row: &mut Row, name: &str, style: Style) {
    let Some(Value::String(text)) = row.get(name) else { return };
    let bare = text.trim_end_matches("+00:00").replace('T', " ");
    let spelt = match style {
        Style::Sqlite => bare,
        Style::Postgres => format!("{}+00", bare.trim_end_matches('0').trim_end_matches('.')),
        Style::Json => text.clone(),
    };
    row.insert(name.into(), spelt.into());
}

/// Escapes everything past ASCII, as Python does by default.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if letter.is_ascii() {
            escaped.push(letter);
        } else {
            letter
                .encode_utf16(&mut [0; 2])
                .iter()
                .for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}")));
        }
    }
    escaped
}
