//! Reads a profile from TOML, and refuses what cannot be right with its line.
//!
//! The document is walked with the places of its keys and values, so that every refusal names a line: an unknown key
//! (with the nearest known one), a value of the wrong type, a contradiction between two keys.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::form::{As, Field, Form, From, Kind, LENGTHS, RENDERINGS};
use super::keys::{ENCODINGS, Encoding, Keyed, Lookup, SECRET_ENCODINGS, SecretEncoding};
use super::rule::reads;
use super::{Algorithm, Hash, LinkColumn, Over, Profile, SealColumn, SealKind, VERSION, keep};
use crate::error::{Error, Result};
use crate::formats;
use crate::json_tree::{Members, NumberStyle, Style};

/// The shortest key id that is made from a secret, in hexadecimal digits.
const MIN_ID_DIGITS: i64 = 8;

/// What is known about a digest by the name of its algorithm: which, and whether it is keyed.
const ALGORITHMS: &[(&str, (Algorithm, bool))] = &[
    ("sha256", (Algorithm::Sha256, false)),
    ("sha384", (Algorithm::Sha384, false)),
    ("sha512", (Algorithm::Sha512, false)),
    ("hmac-sha256", (Algorithm::Sha256, true)),
    ("hmac-sha384", (Algorithm::Sha384, true)),
    ("hmac-sha512", (Algorithm::Sha512, true)),
];

const KEY_OPTIONS: [&str; 6] =
    ["secret", "secret_encoding", "key_id", "key_lookup", "key_label", "key_digits"];

/// Where something stands in the text.
type Place = Range<usize>;

/// The document, for errors.
#[derive(Clone, Copy)]
struct Document<'t> {
    input: &'t str,
    text: &'t str,
}

impl Document<'_> {
    fn error(self, place: &Place, what: impl Into<String>) -> Error {
        let before = self.text.get(..place.start).unwrap_or(self.text);
        let line = memchr::memchr_iter(b'\n', before.as_bytes()).count() + 1;
        Error::Malformed { input: self.input.to_owned(), place: format!("line {line}"), what: what.into() }
    }
}

/// One table of the document, its keys checked.
struct Section<'t> {
    document: Document<'t>,
    /// `[form]`, for messages; empty for the top.
    name: String,
    place: Place,
    entries: Vec<(&'t str, Place, &'t Spanned<DeValue<'t>>)>,
}

impl<'t> Section<'t> {
    /// Takes a table; refuses keys that are not known.
    fn new(
        document: Document<'t>,
        name: &str,
        table: &'t DeTable<'t>,
        place: Place,
        known: &[&str],
    ) -> Result<Self> {
        let inside = if name.is_empty() { String::new() } else { format!(" in {name}") };
        let mut entries = Vec::new();
        for (key, value) in table {
            let text: &str = key.get_ref();
            if !known.contains(&text) {
                let nearest =
                    known.iter().min_by_key(|candidate| strsim::damerau_levenshtein(candidate, text));
                let near = nearest.filter(|candidate| {
                    strsim::damerau_levenshtein(candidate, text) <= candidate.len().max(3) / 2
                });
                let hint = match near {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("known are {}", known.join(", ")),
                };
                return Err(document.error(&key.span(), format!("unknown key {text}{inside}: {hint}")));
            }
            entries.push((text, key.span(), value));
        }
        Ok(Self { document, name: name.to_owned(), place, entries })
    }

    fn find(&self, key: &str) -> Option<(&Place, &'t Spanned<DeValue<'t>>)> {
        self.entries.iter().find(|(known, _, _)| *known == key).map(|(_, place, value)| (place, *value))
    }

    fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Refuses at a key, or at the section when it is not there.
    fn error(&self, key: &str, what: impl Into<String>) -> Error {
        self.document.error(self.find(key).map_or(&self.place, |(place, _)| place), what)
    }

    fn full_name(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{key} in {}", self.name) }
    }

    fn wrong_type(&self, key: &str, expected: &str, value: &DeValue<'_>) -> Error {
        self.error(key, format!("{}: expected {expected}, found {}", self.full_name(key), value.type_str()))
    }

    fn text(&self, key: &str) -> Result<Option<String>> {
        let Some((_, value)) = self.find(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::String(text) => Ok(Some(text.clone().into_owned())),
            other => Err(self.wrong_type(key, "text", other)),
        }
    }

    /// Reads a name: text that is not empty.
    fn name(&self, key: &str) -> Result<Option<String>> {
        let name = self.text(key)?;
        if name.as_deref() == Some("") {
            return Err(self.error(key, format!("{} is empty", self.full_name(key))));
        }
        Ok(name)
    }

    fn needed(&self, key: &str) -> Result<String> {
        self.name(key)?.ok_or_else(|| {
            let at = if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) };
            self.document.error(&self.place, format!("no {key}{at}"))
        })
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some((_, value)) = self.find(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Boolean(flag) => Ok(Some(*flag)),
            other => Err(self.wrong_type(key, "true or false", other)),
        }
    }

    fn int(&self, key: &str) -> Result<Option<i64>> {
        let Some((_, value)) = self.find(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
                .map(Some)
                .map_err(|_| self.error(key, format!("{}: {digits} is past 64 bits", self.full_name(key)))),
            other => Err(self.wrong_type(key, "an integer", other)),
        }
    }

    /// Reads a list of names.
    fn names(&self, key: &str) -> Result<Vec<String>> {
        let Some((_, value)) = self.find(key) else { return Ok(Vec::new()) };
        let DeValue::Array(items) = value.get_ref() else {
            return Err(self.wrong_type(key, "a list of columns", value.get_ref()));
        };
        let mut names: Vec<String> = Vec::new();
        for item in items.iter() {
            let DeValue::String(name) = item.get_ref() else {
                return Err(self.wrong_type(key, "a list of columns", item.get_ref()));
            };
            if name.is_empty() || names.iter().any(|known| known == name) {
                return Err(self
                    .document
                    .error(&item.span(), format!("{key}: {name:?} is empty, or stands twice")));
            }
            names.push(name.clone().into_owned());
        }
        Ok(names)
    }

    /// Reads one of several words.
    fn one_of<T: Clone>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(Some(value.clone())),
            None => {
                let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                Err(self
                    .error(key, format!("{}: {text:?} is none of {}", self.full_name(key), known.join(", "))))
            }
        }
    }

    /// Refuses the first of some keys that is there.
    fn refuse(&self, keys: &[&str], why: &str) -> Result<()> {
        match keys.iter().find(|key| self.has(key)) {
            Some(key) => Err(self.error(key, format!("{}: {why}", self.full_name(key)))),
            None => Ok(()),
        }
    }

    /// Opens a table inside.
    fn section(&self, key: &str, known: &[&str]) -> Result<Option<Self>> {
        let Some((place, value)) = self.find(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Table(table) => {
                Self::new(self.document, &format!("[{key}]"), table, place.clone(), known).map(Some)
            }
            other => Err(self.wrong_type(key, "a table", other)),
        }
    }
}

/// Reads a profile.
pub(super) fn profile(input: &str, text: &str) -> Result<Profile> {
    let document = Document { input, text };
    let parsed = DeTable::parse(text).map_err(|error| {
        document.error(&error.span().unwrap_or(0..0), format!("no TOML: {}", error.message()))
    })?;
    let known = [
        "profile",
        "name",
        "table",
        "chain",
        "order",
        "id",
        "number",
        "first_number",
        "time",
        "integers",
        "form",
        "hash",
        "link",
        "seal",
    ];
    let top = Section::new(document, "", parsed.get_ref(), 0..0, &known)?;
    match top.int("profile")? {
        Some(VERSION) => {}
        Some(other) => {
            return Err(
                top.error("profile", format!("profile {other}: this program reads version {VERSION}"))
            );
        }
        None => return Err(top.error("profile", format!("no profile: expected profile = {VERSION}"))),
    }
    let name = top.needed("name")?;
    if formats::NAMES.contains(&name.as_str()) {
        return Err(top.error("name", format!("{name} is the name of a built-in format")));
    }
    if name == "-" || name.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '+' | '/')) {
        return Err(top.error("name", "the name holds a space, a slash or a plus, or is a lone hyphen"));
    }
    let table = top.name("table")?.unwrap_or_else(|| name.clone());
    let chain = top.names("chain")?;
    let number = top.name("number")?;
    if number.is_none() {
        top.refuse(&["first_number"], "there is no number")?;
    }
    let first_number = top.int("first_number")?.unwrap_or(1);
    let mut order = top.names("order")?;
    if let Some(number) = number.as_ref().filter(|_| order.is_empty()) {
        order = chain.iter().chain([number]).cloned().collect();
    }

    let form_keys = [
        "kind",
        "fields",
        "separator",
        "trailing",
        "members",
        "spaces",
        "ascii",
        "length",
        "template",
        "null",
        "omit_null",
        "prefix",
        "suffix",
    ];
    let form =
        top.section("form", &form_keys)?.ok_or_else(|| top.error("form", "no [form]: what is hashed"))?;
    let hash_keys: Vec<&str> = ["column", "algorithm", "encoding", "text_prefix", "keyless"]
        .into_iter()
        .chain(KEY_OPTIONS)
        .collect();
    let hash = top
        .section("hash", &hash_keys)?
        .ok_or_else(|| top.error("hash", "no [hash]: the record's own hash"))?;
    let link = top.section("link", &["column", "genesis"])?.ok_or_else(|| {
        top.error("link", "no [link]: without the predecessor's hash in the row there is no chain to verify")
    })?;
    let seal_keys: Vec<&str> =
        ["kind", "column", "encoding", "over", "template", "required", "public_key", "public_key_encoding"]
            .into_iter()
            .chain(KEY_OPTIONS)
            .collect();
    let seal = top.section("seal", &seal_keys)?;

    let parsed_form = read_form(&form)?;
    let parsed_hash = read_hash(&hash)?;
    let parsed_link = LinkColumn { column: link.needed("column")?, genesis: link.name("genesis")? };
    if let Some(column) = parsed_hash.column.as_ref().filter(|column| reads(&parsed_form, column)) {
        return Err(form.error("fields", format!("{column} is the hash itself: no hash covers itself")));
    }
    if parsed_hash.column.as_ref() == Some(&parsed_link.column) {
        return Err(link.error("column", format!("{} is the record's own hash", parsed_link.column)));
    }
    let parsed_seal = seal.as_ref().map(|seal| read_seal(seal, &parsed_hash)).transpose()?;
    if let (Some(seal), Some(parsed)) = (&seal, &parsed_seal) {
        let over_seal = |form: &Form| reads(form, &parsed.column);
        if over_seal(&parsed_form) || matches!(&parsed.over, Over::Template(form) if over_seal(form)) {
            return Err(
                seal.error("column", format!("{} is sealed itself: no seal covers itself", parsed.column))
            );
        }
    }

    let mut columns: Vec<&'static str> = Vec::new();
    let mut add = |column: &str| {
        let column = keep(column);
        if !columns.contains(&column) {
            columns.push(column);
        }
    };
    let id = top.name("id")?;
    let time = top.name("time")?;
    chain
        .iter()
        .chain(&order)
        .chain([&id, &number, &time].into_iter().flatten())
        .for_each(|column| add(column));
    parsed_form.columns().for_each(&mut add);
    parsed_hash.column.iter().for_each(|column| add(column));
    parsed_hash.keyed.iter().filter_map(|keyed| keyed.key_id.as_ref()).for_each(|column| add(column));
    add(&parsed_link.column);
    if let Some(seal) = &parsed_seal {
        add(&seal.column);
        if let Over::Template(form) = &seal.over {
            form.columns().for_each(&mut add);
        }
        match &seal.kind {
            SealKind::Hmac(_, keyed) => keyed.key_id.iter().for_each(|column| add(column)),
            SealKind::Ed25519 { public_key, key_id } => {
                public_key.iter().for_each(|(column, _)| add(column));
                key_id.iter().for_each(|column| add(column));
            }
        }
    }
    let mut integers: Vec<&'static str> = top.names("integers")?.iter().map(|name| keep(name)).collect();
    if let Some(unknown) = integers.iter().find(|name| !columns.contains(*name)) {
        return Err(top.error("integers", format!("{unknown} is no column of this profile")));
    }
    if let Some(number) = number.as_deref().map(keep).filter(|number| !integers.contains(number)) {
        integers.push(number);
    }
    let head_commits = reads(&parsed_form, &parsed_link.column);
    Ok(Profile {
        text: text.into(),
        name: keep(&name),
        table: keep(&table),
        columns,
        order: order.iter().map(|name| keep(name)).collect(),
        integers,
        chain,
        id,
        number,
        first_number,
        time,
        form: parsed_form,
        hash: parsed_hash,
        link: parsed_link,
        seal: parsed_seal,
        head_commits,
    })
}

/// The kinds of forms by their names, with the keys that only they have.
const FORM_KINDS: &[(&str, &[&str])] = &[
    ("joined", &["separator", "trailing"]),
    ("json", &["members", "spaces", "ascii"]),
    ("length-prefixed", &["length"]),
    ("template", &["template"]),
];

/// Reads `[form]`.
fn read_form(section: &Section<'_>) -> Result<Form> {
    let kind = section.needed("kind")?;
    if !FORM_KINDS.iter().any(|(known, _)| *known == kind) {
        let known: Vec<&str> = FORM_KINDS.iter().map(|(known, _)| *known).collect();
        return Err(
            section.error("kind", format!("kind in [form]: {kind:?} is none of {}", known.join(", ")))
        );
    }
    for (other, keys) in FORM_KINDS.iter().filter(|(known, _)| *known != kind) {
        section.refuse(keys, &format!("only a form of kind {other} has it, and this one is {kind}"))?;
    }
    let prefix = section.text("prefix")?.unwrap_or_default();
    let suffix = section.text("suffix")?.unwrap_or_default();
    let defaults =
        Defaults { null: section.text("null")?, omit_null: section.flag("omit_null")?.unwrap_or(false) };
    if defaults.omit_null {
        section.refuse(&["null"], "omit_null leaves NULL out, so it is never written")?;
    }
    if kind == "template" {
        section.refuse(&["fields", "omit_null"], "a template names its columns itself")?;
        let text = section.needed("template")?;
        let mut form = read_template(&text, &defaults).map_err(|what| section.error("template", what))?;
        form.prefix = prefix;
        form.suffix.push_str(&suffix);
        return Ok(form);
    }
    let mut fields = read_fields(section, &defaults)?;
    let kind = match kind.as_str() {
        "joined" => {
            let separator = section.text("separator")?;
            let separator = separator
                .ok_or_else(|| section.error("kind", "no separator: expected text, \"\" for none"))?;
            Kind::Joined { separator, trailing: section.flag("trailing")?.unwrap_or(false) }
        }
        "json" => {
            for (at, field) in fields.iter().enumerate() {
                if fields.iter().take(at).any(|other| other.name == field.name) {
                    return Err(section.error("fields", format!("member {:?} stands twice", field.name)));
                }
                if field.rendering.is_fixed() {
                    return Err(section
                        .error("fields", format!("{}: JSON has no integers of fixed width", field.name)));
                }
            }
            let members = section.one_of(
                "members",
                &[("sorted", Some(Members::CodePoints)), ("rfc8785", Some(Members::Utf16)), ("given", None)],
            )?;
            let members = members.unwrap_or(Some(Members::CodePoints));
            match members {
                Some(Members::Utf16) => {
                    section.refuse(&["spaces", "ascii"], "RFC 8785 has neither")?;
                    fields.sort_by(|left, right| left.name.encode_utf16().cmp(right.name.encode_utf16()));
                }
                Some(_) => fields.sort_by(|left, right| left.name.cmp(&right.name)),
                None => {}
            }
            let rfc8785 = members == Some(Members::Utf16);
            Kind::Json(Style {
                members: members.unwrap_or(Members::CodePoints),
                numbers: if rfc8785 { NumberStyle::EcmaScript } else { NumberStyle::AsFound },
                spaces: section.flag("spaces")?.unwrap_or(false),
                ascii: section.flag("ascii")?.unwrap_or(false),
            })
        }
        _ => {
            let length = section.one_of("length", LENGTHS)?;
            Kind::LengthPrefixed(
                length.ok_or_else(|| section.error("kind", "no length: how a length is written"))?,
            )
        }
    };
    Ok(Form { prefix, suffix, kind, fields })
}

/// What fields have that do not say otherwise.
struct Defaults {
    null: Option<String>,
    omit_null: bool,
}

/// Reads the list of fields: columns, or tables with a column or a constant value.
fn read_fields(section: &Section<'_>, defaults: &Defaults) -> Result<Vec<Field>> {
    let Some((_, value)) = section.find("fields") else {
        return Err(section.error("kind", "no fields in [form]"));
    };
    let DeValue::Array(items) = value.get_ref() else {
        return Err(section.wrong_type("fields", "a list", value.get_ref()));
    };
    if items.is_empty() {
        return Err(section.error("fields", "fields is empty: nothing would be hashed"));
    }
    let field = |name: String, from| Field {
        name,
        before: String::new(),
        from,
        rendering: As::Plain,
        null: defaults.null.clone(),
        omit_null: defaults.omit_null,
    };
    let mut fields = Vec::new();
    for item in items.iter() {
        match item.get_ref() {
            DeValue::String(column) if !column.is_empty() => {
                fields.push(field(column.clone().into_owned(), From::Column(column.clone().into_owned())));
            }
            DeValue::Table(table) => {
                let known = ["column", "value", "name", "as", "null", "omit_null"];
                let inside = Section::new(section.document, "a field", table, item.span(), &known)?;
                let value = match inside.find("value").map(|(_, value)| value.get_ref()) {
                    Some(DeValue::Integer(_)) => Some(From::Int(inside.int("value")?.unwrap_or(0))),
                    Some(_) => Some(From::Text(inside.text("value")?.unwrap_or_default())),
                    None => None,
                };
                let (from, default_name) = match (inside.name("column")?, value) {
                    (Some(column), None) => (From::Column(column.clone()), Some(column)),
                    (None, Some(value)) => (value, None),
                    _ => return Err(inside.error("column", "a field has either a column or a value")),
                };
                let name = inside.name("name")?;
                if name.is_some() && section.text("kind")?.as_deref() != Some("json") {
                    return Err(inside.error("name", "only the members of JSON have names"));
                }
                let name = name.or(default_name);
                let name = match (name, section.text("kind")?.as_deref()) {
                    (Some(name), _) => name,
                    (None, Some("json")) => {
                        return Err(inside.error("value", "no name: a member of JSON needs one"));
                    }
                    (None, _) => "value".into(),
                };
                let base = field(name, from);
                let omit_null = inside.flag("omit_null")?;
                if omit_null == Some(true) {
                    inside.refuse(&["null"], "omit_null leaves NULL out, so it is never written")?;
                }
                let null = inside.text("null")?;
                fields.push(Field {
                    rendering: inside.one_of("as", RENDERINGS)?.unwrap_or(As::Plain),
                    omit_null: omit_null.unwrap_or(base.omit_null && null.is_none()),
                    null: null.or_else(|| base.null.clone()),
                    ..base
                });
            }
            other => {
                return Err(section.document.error(
                    &item.span(),
                    format!("a field is the name of a column or a table, found {}", other.type_str()),
                ));
            }
        }
    }
    Ok(fields)
}

/// Reads `{column}` and `{column:as}` in text; `{{` and `}}` are braces.
fn read_template(text: &str, defaults: &Defaults) -> Result<Form, String> {
    let mut fields = Vec::new();
    let mut before = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (plain, brace) = rest.split_at(at);
        before.push_str(plain);
        if let Some(after) = brace.strip_prefix("{{") {
            before.push('{');
            rest = after;
        } else if let Some(after) = brace.strip_prefix("}}") {
            before.push('}');
            rest = after;
        } else if let Some((inside, after)) =
            brace.strip_prefix('{').and_then(|inside| inside.split_once('}'))
        {
            let (column, rendering) = inside.split_once(':').unwrap_or((inside, "plain"));
            if column.is_empty() || column.contains('{') {
                return Err(format!("{{{inside}}} names no column"));
            }
            let known = RENDERINGS.iter().find(|(name, _)| *name == rendering);
            let (_, rendering) = known.ok_or_else(|| {
                let names: Vec<&str> = RENDERINGS.iter().map(|(name, _)| *name).collect();
                format!("{rendering:?} in {{{inside}}} is none of {}", names.join(", "))
            })?;
            fields.push(Field {
                name: column.to_owned(),
                before: std::mem::take(&mut before),
                from: From::Column(column.to_owned()),
                rendering: *rendering,
                null: defaults.null.clone(),
                omit_null: false,
            });
            rest = after;
        } else {
            return Err("a brace is not closed, or not opened; {{ and }} stand for braces".into());
        }
    }
    before.push_str(rest);
    if fields.is_empty() {
        return Err("the template names no column: every row would have the same hash".into());
    }
    Ok(Form { prefix: String::new(), suffix: before, kind: Kind::Template, fields })
}

/// Reads `[hash]`.
fn read_hash(section: &Section<'_>) -> Result<Hash> {
    let column = section.name("column")?;
    let algorithm = section.one_of("algorithm", ALGORITHMS)?;
    let (algorithm, keyed) = algorithm.ok_or_else(|| section.error("column", "no algorithm in [hash]"))?;
    let plan = if keyed {
        if column.is_none() {
            return Err(
                section.error("algorithm", "a keyed hash needs its column: without it no key can be tried")
            );
        }
        Some(read_keyed(section)?)
    } else {
        section.refuse(&KEY_OPTIONS, "the algorithm has no key")?;
        section.refuse(&["keyless"], "the algorithm has no key")?;
        None
    };
    let keyless = section.flag("keyless")?.unwrap_or(false);
    if keyless && plan.as_ref().is_some_and(|plan| plan.key_id.is_none()) {
        return Err(section.error("keyless", "without key_id nothing tells a plain hash from a keyed one"));
    }
    Ok(Hash {
        column,
        algorithm,
        encoding: section.one_of("encoding", ENCODINGS)?.unwrap_or(Encoding::Hex),
        text_prefix: section.text("text_prefix")?.unwrap_or_default(),
        keyed: plan,
        keyless,
    })
}

/// Reads which secret makes an HMAC.
fn read_keyed(section: &Section<'_>) -> Result<Keyed> {
    let secret = section.name("secret")?;
    let key_id = section.name("key_id")?;
    let kinds = [("try", 0), ("name", 1), ("hmac", 2), ("sha256", 3)];
    let kind = section.one_of("key_lookup", &kinds)?.unwrap_or(0);
    let digits = section.int("key_digits")?;
    if digits.is_some_and(|digits| !(MIN_ID_DIGITS..=64).contains(&digits)) {
        return Err(section.error("key_digits", format!("key_digits: expected {MIN_ID_DIGITS} to 64")));
    }
    let digits = usize::try_from(digits.unwrap_or(64)).unwrap_or(64);
    let lookup = match kind {
        0 => Lookup::Try,
        1 => Lookup::Name,
        2 => Lookup::Hmac { label: section.needed("key_label")?, digits },
        _ => Lookup::Sha256 { digits },
    };
    if kind != 2 {
        section.refuse(&["key_label"], "only key_lookup = \"hmac\" has a label")?;
    }
    if kind < 2 {
        section.refuse(&["key_digits"], "only a key id that is made from the secret has digits")?;
    }
    if lookup == Lookup::Try && secret.is_none() {
        return Err(section.error("algorithm", "no secret: the name under which the key is given"));
    }
    if lookup != Lookup::Try && key_id.is_none() {
        return Err(section.error("key_lookup", "no key_id: the column that says which key"));
    }
    let encoding = section.one_of("secret_encoding", SECRET_ENCODINGS)?.unwrap_or(SecretEncoding::Text);
    Ok(Keyed { secret, encoding, key_id, lookup })
}

/// Reads `[seal]`.
fn read_seal(section: &Section<'_>, hash: &Hash) -> Result<SealColumn> {
    if hash.keyed.is_some() {
        return Err(section.error("kind", "a seal beside a keyed hash is not read: describe one of them"));
    }
    let kinds = [
        ("hmac-sha256", Some(Algorithm::Sha256)),
        ("hmac-sha384", Some(Algorithm::Sha384)),
        ("hmac-sha512", Some(Algorithm::Sha512)),
        ("ed25519", None),
    ];
    let kind = section.one_of("kind", &kinds)?.ok_or_else(|| section.error("column", "no kind in [seal]"))?;
    let column = section.needed("column")?;
    let encoding = section.one_of("encoding", ENCODINGS)?.unwrap_or(Encoding::Hex);
    let template = section.name("template")?;
    let over = match (section.one_of("over", &[("hash", 0), ("hash-text", 1), ("form", 2)])?, template) {
        (Some(_), Some(_)) => return Err(section.error("template", "over and template: one of them")),
        (None, Some(text)) => {
            let defaults = Defaults { null: None, omit_null: false };
            Over::Template(read_template(&text, &defaults).map_err(|what| section.error("template", what))?)
        }
        (Some(0), None) => Over::Hash,
        (Some(1), None) => Over::HashText,
        (Some(_), None) => Over::Form,
        (None, None) => {
            return Err(section.error("kind", "no over in [seal]: hash, hash-text, form; or a template"));
        }
    };
    let kind = match kind {
        Some(algorithm) => {
            section.refuse(&["public_key", "public_key_encoding"], "an HMAC has no public key")?;
            SealKind::Hmac(algorithm, read_keyed(section)?)
        }
        None => {
            let refused = ["secret", "secret_encoding", "key_lookup", "key_label", "key_digits"];
            section.refuse(&refused, "a signature is verified with a public key, not with a secret")?;
            let public_key = section.name("public_key")?;
            if public_key.is_none() {
                section.refuse(&["public_key_encoding"], "there is no public_key")?;
            }
            let key_encoding = section.one_of("public_key_encoding", ENCODINGS)?.unwrap_or(Encoding::Hex);
            SealKind::Ed25519 {
                public_key: public_key.map(|column| (column, key_encoding)),
                key_id: section.name("key_id")?,
            }
        }
    };
    Ok(SealColumn { column, encoding, over, required: section.flag("required")?.unwrap_or(false), kind })
}
