//! From a payload to the arguments of a command's statements. This runs once per command, so the
//! payload is read once and its values are borrowed.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::field::FieldType;

/// A field of the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// What it may hold.
    pub field_type: FieldType,
    /// It may be missing or null, which makes it NULL.
    pub optional: bool,
}

/// The fields that a command uses, and what else its schema asks of a payload.
#[derive(Debug)]
pub struct Fields {
    fields: Vec<Field>,
    /// The fields' indices, sorted by their names.
    by_name: Vec<usize>,
    schema: Option<jsonschema::Validator>,
}

impl Fields {
    /// These fields, in this order.
    ///
    /// # Errors
    ///
    /// What is no JSON Schema about `schema`.
    pub fn new(fields: Vec<Field>, schema: Option<&serde_json::Value>) -> Result<Self, String> {
        let schema = schema.map(jsonschema::validator_for).transpose().map_err(|error| error.to_string())?;
        let mut by_name: Vec<usize> = (0..fields.len()).collect();
        by_name.sort_by(|a, b| fields[*a].name.cmp(&fields[*b].name));
        Ok(Self { fields, by_name, schema })
    }

    /// The fields, in the order of the arguments.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// A JSON array of a text or null for each field, in order.
    ///
    /// # Errors
    ///
    /// Why the payload is malformed, with the field's name: `field amount: missing`.
    pub fn arguments(&self, data: &[u8]) -> Result<String, String> {
        let found = self.found(data)?;
        let mut arguments = Vec::with_capacity(data.len() + 8 * self.fields.len() + 2);
        arguments.push(b'[');
        for (nth, (field, value)) in self.fields.iter().zip(found).enumerate() {
            if nth > 0 {
                arguments.push(b',');
            }
            write(&mut arguments, field, value).map_err(|why| format!("field {}: {why}", field.name))?;
        }
        arguments.push(b']');
        self.check_schema(data)?;
        String::from_utf8(arguments).map_err(|error| error.to_string())
    }

    /// The values of the fields, in order, as they are written.
    fn found<'d>(&self, data: &'d [u8]) -> Result<Vec<Option<&'d RawValue>>, String> {
        let malformed = |error: serde_json::Error| format!("the payload is no JSON object: {error}");
        let mut payload = Payload { fields: self, found: vec![None; self.fields.len()], twice: None };
        let mut deserializer = serde_json::Deserializer::from_slice(data);
        deserializer.deserialize_map(&mut payload).map_err(malformed)?;
        deserializer.end().map_err(malformed)?;
        match payload.twice {
            Some(twice) => Err(format!("field {}: given twice", self.fields[twice].name)),
            None => Ok(payload.found),
        }
    }

    fn check_schema(&self, data: &[u8]) -> Result<(), String> {
        let Some(schema) = &self.schema else { return Ok(()) };
        let payload = serde_json::from_slice(data)
            .map_err(|error| format!("the payload cannot be checked against its schema: {error}"))?;
        schema.validate(&payload).map_err(|error| {
            let path = error.instance_path().to_string();
            let at = if path.is_empty() { String::new() } else { format!(" at {path}") };
            format!("the payload does not fit its schema{at}: {}", shown_error(&error.to_string()))
        })
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        let at = self.by_name.binary_search_by(|index| self.fields[*index].name.as_str().cmp(name)).ok()?;
        Some(self.by_name[at])
    }
}

/// A schema's error quotes the whole value, which may be the whole payload.
fn shown_error(error: &str) -> String {
    const SHOWN_MAX: usize = 300;
    match error.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &error[..end]),
        None => error.to_owned(),
    }
}

fn write(arguments: &mut Vec<u8>, field: &Field, value: Option<&RawValue>) -> Result<(), String> {
    let text = match value.map(RawValue::get) {
        None | Some("null") if field.optional => {
            arguments.extend_from_slice(b"null");
            return Ok(());
        }
        None => return Err("missing".to_owned()),
        Some(json) => field.field_type.text(json)?,
    };
    serde_json::to_writer(arguments, &*text).map_err(|error| error.to_string())
}

/// Picks the fields' values out of an object.
struct Payload<'f, 'd> {
    fields: &'f Fields,
    found: Vec<Option<&'d RawValue>>,
    /// A field that is there twice.
    twice: Option<usize>,
}

impl<'d> Visitor<'d> for &mut Payload<'_, 'd> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(index) = map.next_key_seed(Name(self.fields))? {
            let Some(index) = index else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if self.found[index].is_some() {
                self.twice.get_or_insert(index);
            }
            self.found[index] = Some(map.next_value()?);
        }
        Ok(())
    }
}

/// Turns a key into the index of its field without copying it.
struct Name<'f>(&'f Fields);

impl<'d> DeserializeSeed<'d> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'d>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.index_of(name))
    }
}

#[cfg(test)]
mod tests;
