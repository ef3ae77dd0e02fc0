//! Which keys exist, and of what kind: read from the JSON Schema, so that there is one list.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value as Json;
use toml::{Table, Value};

use super::Config;
use super::error::Error;
use super::origin::Origins;

/// Two keys closer than this are taken for a typo of each other (Jaro-Winkler, 0 to 1).
const SIMILARITY_MIN: f64 = 0.8;

/// The schema without references, to walk along a table.
static SCHEMA: LazyLock<Json> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().to_value()
});

/// What a key holds, as far as reading it from text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Boolean,
    List,
    Section,
}

/// The kind of the key at `path`; text for a key that does not exist.
pub(super) fn kind_at(path: &[String]) -> Kind {
    let schema = path.iter().try_fold(&*SCHEMA, |schema, key| child(schema, key));
    schema.map_or(Kind::Text, kind)
}

/// The description of the key at `path`: the doc comment of its field.
pub(super) fn description_at(path: &[&str]) -> Option<&'static str> {
    path.iter()
        .try_fold(&*SCHEMA, |schema, key| child(schema, key))
        .and_then(|schema| schema.get("description"))
        .and_then(Json::as_str)
}

/// Refuses keys that do not exist, and values where a section or a list belongs.
pub(super) fn check(table: &Table, origins: &Origins) -> Result<(), Error> {
    check_table(&SCHEMA, table, "", origins)
}

fn check_table(schema: &Json, table: &Table, prefix: &str, origins: &Origins) -> Result<(), Error> {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match child(schema, name) {
            Some(schema) => check_value(schema, value, &key, origins)?,
            None => return Err(unknown(schema, name, key, value, origins)),
        }
    }
    Ok(())
}

fn check_value(schema: &Json, value: &Value, key: &str, origins: &Origins) -> Result<(), Error> {
    // Said here and not by the deserializer, whose message quotes the value: it may be a password.
    let misplaced = |problem: String| {
        Err(Error::Invalid { origin: origins.of(&first_leaf(key, value)), key: key.to_owned(), problem })
    };
    match (kind(schema), value) {
        (Kind::Section, Value::Table(table)) => check_table(schema, table, &format!("{key}."), origins),
        (Kind::Section, _) => misplaced(format!("a section, not a value: write [{key}]")),
        (Kind::List, Value::Table(_)) => misplaced(format!("a list: write [[{key}]]")),
        (Kind::List, Value::Array(items)) => {
            let schema = &schema["items"];
            items
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| check_value(schema, item, &format!("{key}[{index}]"), origins))
        }
        _ => Ok(()),
    }
}

fn child<'a>(schema: &'a Json, key: &str) -> Option<&'a Json> {
    let schema = if kind(schema) == Kind::List { &schema["items"] } else { schema };
    let named = schema.get("properties").and_then(|keys| keys.get(key));
    named.or_else(|| {
        // A map with free keys, such as kafka.properties, describes all its values at once.
        schema.get("additionalProperties").filter(|values| values.is_object())
    })
}

fn kind(schema: &Json) -> Kind {
    // An optional value is `["string", "null"]`, or `anyOf` when it has a type of its own: text.
    let named = |name: &str| match &schema["type"] {
        Json::String(kind) => kind == name,
        Json::Array(kinds) => kinds.iter().any(|kind| kind == name),
        _ => false,
    };
    match () {
        () if named("object") => Kind::Section,
        () if named("array") => Kind::List,
        () if named("integer") => Kind::Integer,
        () if named("boolean") => Kind::Boolean,
        () => Kind::Text,
    }
}

fn unknown(schema: &Json, name: &str, key: String, value: &Value, origins: &Origins) -> Error {
    let hint = hint(schema, name);
    Error::UnknownKey { origin: origins.of(&first_leaf(&key, value)), key, hint }
}

/// Origins are recorded for values, so an unknown section is found by what is in it.
fn first_leaf(key: &str, value: &Value) -> String {
    match value {
        Value::Table(table) => match table.iter().next() {
            Some((name, value)) => first_leaf(&format!("{key}.{name}"), value),
            None => key.to_owned(),
        },
        _ => key.to_owned(),
    }
}

fn hint(schema: &Json, name: &str) -> String {
    let neighbours = names(schema);
    if let Some(nearest) = nearest(name, &neighbours) {
        return format!(": did you mean {nearest}?");
    }
    // TOML gives every bare key to the section above it, so this is where lost keys end up.
    if names(&SCHEMA).contains(&name) {
        return format!(": {name} belongs at the top of the file, before the first section");
    }
    let owner = names(&SCHEMA)
        .into_iter()
        .find(|section| child(&SCHEMA, section).is_some_and(|schema| names(schema).contains(&name)));
    match owner {
        Some(section) => format!(": did you mean {section}.{name}?"),
        None => format!(": the keys here are {}", neighbours.join(", ")),
    }
}

fn names(schema: &Json) -> Vec<&str> {
    let keys = schema.get("properties").and_then(Json::as_object);
    keys.map_or_else(Vec::new, |keys| keys.keys().map(String::as_str).collect())
}

/// The candidate of which `name` is probably a typo.
pub(crate) fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), *candidate))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(key: &str) -> Vec<String> {
        key.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn the_kind_of_a_key_is_known_from_its_type() {
        assert_eq!(kind_at(&path("worker.batch_commands_max")), Kind::Integer);
        assert_eq!(kind_at(&path("worker.drain_timeout")), Kind::Text);
        assert_eq!(kind_at(&path("database.url")), Kind::Text);
        assert_eq!(kind_at(&path("topics")), Kind::List);
        assert_eq!(kind_at(&path("kafka")), Kind::Section);
    }

    #[test]
    fn every_key_has_a_description() {
        for section in names(&SCHEMA) {
            let schema = child(&SCHEMA, section).expect("a section of the schema");
            let inner = if kind(schema) == Kind::List { &schema["items"] } else { schema };
            for key in names(inner) {
                assert!(description_at(&[section, key]).is_some(), "{section}.{key}");
            }
            assert!(description_at(&[section]).is_some(), "{section}");
        }
    }
}
