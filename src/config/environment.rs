//! `SOLEWRITER__SECTION__KEY` and `SOLEWRITER__SECTION__KEY_FILE`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use toml::{Table, Value};

use super::error::Error;
use super::keys;
use super::keys::Kind;
use super::origin::Origin;

const PREFIX: &str = "SOLEWRITER__";
const SEPARATOR: &str = "__";
const FILE_SUFFIX: &str = "_FILE";

/// One value that the environment sets.
pub(super) struct Setting {
    /// Section and key.
    pub(super) path: Vec<String>,
    /// Typed as the key wants it, or text for the deserializer to complain about.
    pub(super) value: Value,
    /// The variable.
    pub(super) origin: Origin,
}

pub(super) fn settings(environment: &BTreeMap<String, String>) -> Result<Vec<Setting>, Error> {
    environment
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
        .map(|(name, value)| setting(environment, name, value))
        .collect()
}

fn setting(environment: &BTreeMap<String, String>, name: &str, value: &str) -> Result<Setting, Error> {
    let Some(variable) = name.strip_suffix(FILE_SUFFIX) else {
        return Ok(Setting::new(path_of(name), value, Origin::Environment(name.to_owned())));
    };
    if environment.contains_key(variable) {
        return Err(Error::SetTwice { variable: variable.to_owned() });
    }
    let path = PathBuf::from(value);
    let text = fs::read_to_string(&path).map_err(|source| Error::ValueFile {
        variable: name.to_owned(),
        path: path.clone(),
        source,
    })?;
    let origin = Origin::EnvironmentFile { variable: name.to_owned(), path };
    Ok(Setting::new(path_of(variable), without_newline(&text), origin))
}

impl Setting {
    fn new(path: Vec<String>, text: &str, origin: Origin) -> Self {
        Self { value: typed(keys::kind_at(&path), text), path, origin }
    }
}

/// Keys of `kafka.properties` stay as they are: librdkafka's have dots and its values' case counts.
fn path_of(name: &str) -> Vec<String> {
    let parts = name[PREFIX.len()..].split(SEPARATOR);
    let path: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
    match path.as_slice() {
        [kafka, properties, _, ..] if kafka == "kafka" && properties == "properties" => {
            let verbatim = PREFIX.len() + "kafka__properties__".len();
            vec![kafka.clone(), properties.clone(), name[verbatim..].to_owned()]
        }
        _ => path,
    }
}

/// What does not fit stays text: the deserializer then says what it expected, and where.
fn typed(kind: Kind, text: &str) -> Value {
    let typed = match kind {
        Kind::Integer => text.replace('_', "").parse().map(Value::Integer).ok(),
        Kind::Boolean => text.parse().map(Value::Boolean).ok(),
        Kind::List => parse_value(text),
        // A section as a whole would silently replace what the file says in it.
        Kind::Text | Kind::Section => None,
    };
    typed.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// A TOML value on its own, e.g. `[{ name = "orders", entity = "order" }]`.
fn parse_value(text: &str) -> Option<Value> {
    let mut table: Table = format!("value = {text}").parse().ok()?;
    table.remove("value")
}

/// Editors and `echo` end a file with a newline that is no part of a password.
fn without_newline(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_keys_are_lower_case_in_the_file_and_upper_case_in_the_environment() {
        assert_eq!(path_of("SOLEWRITER__WORKER__DRAIN_TIMEOUT"), ["worker", "drain_timeout"]);
    }

    #[test]
    fn a_librdkafka_key_is_kept_verbatim() {
        assert_eq!(
            path_of("SOLEWRITER__KAFKA__PROPERTIES__session.timeout.ms"),
            ["kafka", "properties", "session.timeout.ms"]
        );
    }

    #[test]
    fn only_one_trailing_newline_is_cut_from_a_file() {
        assert_eq!(without_newline("secret \r\n"), "secret ");
        assert_eq!(without_newline("secret\n\n"), "secret\n");
    }

    #[test]
    fn a_number_for_a_text_key_stays_text() {
        assert_eq!(typed(Kind::Text, "42"), Value::String("42".into()));
        assert_eq!(typed(Kind::Integer, "33_554_432"), Value::Integer(33_554_432));
    }
}
