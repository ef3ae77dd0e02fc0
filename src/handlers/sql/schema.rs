//! The JSON Schema of a command's payload, and how it fits what the command uses.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use toml::de::{DeTable, DeValue};

use super::diagnostic::Place;
use super::parameter::Parameter;
use super::reader::{Reader, Section, Value, by_place};
use super::scope::{ParameterUse, Scope};
use crate::config::nearest;

/// A schema, and where the file has it.
pub(super) struct Schema {
    pub(super) json: Arc<Json>,
    place: Place,
    /// Where its properties stand, if they stand in the file itself.
    properties: Vec<(String, Place)>,
}

/// The schema of a command, if it has one and that is a JSON Schema.
pub(super) fn read(reader: &mut Reader, command: Section<'_, '_>, directory: &Path) -> Option<Schema> {
    let value = command.table.get("schema")?;
    let at = value.span().start;
    let (json, place, properties) = match value.get_ref() {
        DeValue::String(_) => {
            let path = reader.text(value, "schema")?;
            (from_file(reader, &directory.join(&path.value), &path.place)?, path.place, Vec::new())
        }
        DeValue::Table(table) => (json(reader, value)?, reader.place(at), properties(reader, table)),
        _ => {
            reader.wrong_kind(value, "schema", "a file or a table", "write schema = \"withdraw.schema.json\"");
            return None;
        }
    };
    if let Err(error) = jsonschema::validator_for(&json) {
        reader.refuse_at(place, format!("no JSON Schema: {error}"), "correct the schema");
        return None;
    }
    Some(Schema { json: Arc::new(json), place, properties })
}

fn from_file(reader: &mut Reader, path: &Path, place: &Place) -> Option<Json> {
    let shown = path.display();
    match fs::read_to_string(path).map(|text| serde_json::from_str(&text)) {
        Ok(Ok(json)) => return Some(json),
        Ok(Err(error)) => reader.refuse_at(place.clone(), format!("{shown} is no JSON: {error}"), "correct the schema"),
        Err(error) => {
            let cure = "name a file that is there, relative to this one";
            reader.refuse_at(place.clone(), format!("{shown} cannot be read: {error}"), cure);
        }
    }
    None
}

fn properties(reader: &Reader, schema: &DeTable<'_>) -> Vec<(String, Place)> {
    let properties = schema.get("properties").and_then(|properties| properties.get_ref().as_table());
    let keys = properties.into_iter().flat_map(|properties| properties.keys());
    keys.map(|key| (key.get_ref().to_string(), reader.place(key.span().start))).collect()
}

/// A TOML value as JSON.
pub(super) fn json(reader: &mut Reader, value: &Value<'_>) -> Option<Json> {
    let json = match value.get_ref() {
        DeValue::Array(items) => {
            let items: Vec<Option<Json>> = items.iter().map(|item| json(reader, item)).collect();
            Json::Array(items.into_iter().collect::<Option<_>>()?)
        }
        DeValue::Table(table) => {
            let mut object = Map::new();
            for (key, value) in by_place(table) {
                object.insert(key.to_owned(), json(reader, value)?);
            }
            Json::Object(object)
        }
        DeValue::String(text) => Json::String(text.to_string()),
        _ => return scalar(reader, value),
    };
    Some(json)
}

/// A number, a yes or no, or a time, which JSON has as text.
pub(super) fn scalar(reader: &mut Reader, value: &Value<'_>) -> Option<Json> {
    let json = match value.get_ref() {
        DeValue::Boolean(flag) => Some(Json::Bool(*flag)),
        DeValue::Datetime(time) => Some(Json::String(time.to_string())),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(Json::from),
        DeValue::Float(number) => {
            let number = number.as_str().parse().ok();
            number.and_then(serde_json::Number::from_f64).map(Json::Number)
        }
        _ => None,
    };
    if json.is_none() {
        reader.refuse(value.span().start, "JSON has no such number", "write a finite number of at most 64 bits");
    }
    json
}

impl Schema {
    /// What the schema names and the command does not use, and the other way round.
    pub(super) fn check(&self, reader: &mut Reader, scope: &Scope) {
        let Some(properties) = self.json.get("properties").and_then(Json::as_object) else {
            return;
        };
        let fields = || scope.uses.iter().filter_map(|used| Some((field(used)?, &used.place)));
        let names: Vec<&str> = properties.keys().map(String::as_str).collect();
        let names_all = names_all(&self.json);
        let mut meant = Vec::new();
        for (field, place) in fields().filter(|(field, _)| names_all && !properties.contains_key(*field)) {
            let nearest = nearest(field, &names);
            meant.extend(nearest);
            let cure = match nearest {
                Some(nearest) => format!("did you mean :{nearest}?"),
                None => {
                    "add it to the schema's properties, or say additionalProperties = true in the schema".to_owned()
                }
            };
            reader.refuse_at(place.clone(), format!("unknown parameter :{field}: the schema does not name it"), cure);
        }
        if scope.incomplete {
            return;
        }
        for name in names.iter().filter(|name| !meant.contains(name) && !fields().any(|(field, _)| field == **name)) {
            let place = self.properties.iter().find(|(property, _)| property == name).map(|(_, place)| place);
            let problem = format!("unused parameter {name}: the schema has it, and the command does not use it");
            let cure = format!("use :{name}, or remove it from the schema's properties");
            reader.refuse_at(place.unwrap_or(&self.place).clone(), problem, cure);
        }
    }

    /// The schema has a property of this name.
    pub(super) fn has(&self, property: &str) -> bool {
        self.json.get("properties").is_some_and(|properties| properties.get(property).is_some())
    }
}

/// By these keywords a schema takes properties that its `properties` does not name.
const NAMES_ELSEWHERE: [&str; 12] = [
    "$dynamicRef",
    "$recursiveRef",
    "$ref",
    "allOf",
    "anyOf",
    "dependencies",
    "dependentSchemas",
    "else",
    "if",
    "oneOf",
    "patternProperties",
    "then",
];

/// Whoever writes `properties` names all of them, unless the schema says otherwise.
fn names_all(schema: &Json) -> bool {
    let has = |keyword: &str| schema.get(keyword).is_some();
    let opens = |keyword: &str| schema.get(keyword).is_some_and(|others| *others != Json::Bool(false));
    !NAMES_ELSEWHERE.into_iter().any(has) && !opens("additionalProperties") && !opens("unevaluatedProperties")
}

/// The payload's field that is used.
pub(super) fn field(used: &ParameterUse) -> Option<&str> {
    match &used.parameter {
        Parameter::Field(name) => Some(name),
        _ => None,
    }
}
