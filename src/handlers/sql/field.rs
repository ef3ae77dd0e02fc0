//! The type of a payload's field: which JSON values it takes, and the text that Postgres is given.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json_text::{check_json, check_jsonb, content};
use super::numeric;

/// What a message quotes of a value at most: characters.
const SHOWN_MAX: usize = 60;

/// What a field of the payload may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// `smallint`.
    Smallint,
    /// `integer`.
    Integer,
    /// `bigint`.
    Bigint,
    /// `numeric`, whatever its precision: that is the database's to judge.
    Numeric,
    /// `real`.
    Real,
    /// `double precision`.
    Double,
    /// `boolean`.
    Boolean,
    /// `json`, and a field that no statement uses: the JSON as it is written.
    Json,
    /// `jsonb`.
    Jsonb,
    /// `uuid`.
    Uuid,
    /// A date, a time or a range of them: a string that means the same whenever it is read.
    Time,
    /// Every other type: a string in the type's own syntax.
    Text,
    /// An array of any of them.
    Array(Box<FieldType>),
}

impl FieldType {
    /// The type that `format_type(oid, typmod)` calls so. Of a domain, give the type below it.
    #[must_use]
    pub fn of_postgres(name: &str) -> Self {
        if let Some(element) = name.strip_suffix("[]") {
            return Self::Array(Box::new(Self::of_postgres(element)));
        }
        match name {
            "smallint" => Self::Smallint,
            "integer" => Self::Integer,
            "bigint" => Self::Bigint,
            "real" => Self::Real,
            "double precision" => Self::Double,
            "boolean" => Self::Boolean,
            "json" => Self::Json,
            "jsonb" => Self::Jsonb,
            "uuid" => Self::Uuid,
            "numeric" => Self::Numeric,
            "date"
            | "timestamp without time zone"
            | "timestamp with time zone"
            | "time without time zone"
            | "time with time zone"
            | "daterange"
            | "tsrange"
            | "tstzrange"
            | "datemultirange"
            | "tsmultirange"
            | "tstzmultirange" => Self::Time,
            _ if name.starts_with("numeric(") => Self::Numeric,
            _ => Self::Text,
        }
    }

    /// The text that Postgres casts to the type, for a JSON value as it is written: no number goes
    /// through a binary one. `null` is no value here.
    ///
    /// # Errors
    ///
    /// Why the type does not take the value: `expected a whole number, found "x"`.
    pub fn text<'v>(&self, json: &'v str) -> Result<Cow<'v, str>, String> {
        match self {
            Self::Smallint => whole(json, i16::MIN.into(), i16::MAX.into()),
            Self::Integer => whole(json, i32::MIN.into(), i32::MAX.into()),
            Self::Bigint => whole(json, i64::MIN, i64::MAX),
            Self::Numeric if !is_number(json) => expected("a number", json),
            Self::Numeric if !numeric::fits(json) => expected("a number that numeric can hold", json),
            Self::Numeric => Ok(Cow::Borrowed(json)),
            Self::Real => float(json, |json| json.parse().is_ok_and(|real: f32| real.is_finite() && real != 0.0)),
            Self::Double => {
                float(json, |json| json.parse().is_ok_and(|double: f64| double.is_finite() && double != 0.0))
            }
            Self::Boolean if matches!(json, "true" | "false") => Ok(Cow::Borrowed(json)),
            Self::Boolean => expected("true or false", json),
            Self::Json => any(json, check_json),
            Self::Jsonb => any(json, check_jsonb),
            Self::Uuid => {
                let text = string(json)?;
                if is_uuid(&text) { Ok(text) } else { expected("a UUID", json) }
            }
            Self::Time => {
                let text = string(json)?;
                if is_relative(&text) { expected("a time that is the same tomorrow", json) } else { Ok(text) }
            }
            Self::Text => string(json),
            Self::Array(element) => array(element, json).map(Cow::Owned),
        }
    }
}

/// Whether Postgres reads the word as a time of its own clock.
pub(super) fn is_clock_word(word: &str) -> bool {
    ["now", "today", "tomorrow", "yesterday"].iter().any(|clock| word.eq_ignore_ascii_case(clock))
}

fn is_relative(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphabetic()).any(is_clock_word)
}

fn expected<T>(what: &str, json: &str) -> Result<T, String> {
    Err(format!("expected {what}, found {}", shown(json)))
}

/// The beginning of a value.
pub(super) fn shown(json: &str) -> Cow<'_, str> {
    match json.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", &json[..end])),
        None => Cow::Borrowed(json),
    }
}

fn is_number(json: &str) -> bool {
    json.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// What serde reads as an i64: no point, no exponent, and no `-0`, which is a float to it.
fn whole(json: &str, least: i64, most: i64) -> Result<Cow<'_, str>, String> {
    let digits = json.strip_prefix('-').unwrap_or(json);
    let is_whole = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) && json != "-0";
    if !is_whole {
        return expected("a whole number", json);
    }
    match json.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(Cow::Borrowed(json)),
        _ => expected(&format!("a whole number from {least} to {most}"), json),
    }
}

/// Postgres refuses what is too large, and what is not zero and would become it.
fn float(json: &str, in_range: impl Fn(&str) -> bool) -> Result<Cow<'_, str>, String> {
    if !is_number(json) {
        return expected("a number", json);
    }
    let digits = json.split(['e', 'E']).next().unwrap_or_default();
    let is_zero = !digits.bytes().any(|c| matches!(c, b'1'..=b'9'));
    if is_zero || in_range(json) { Ok(Cow::Borrowed(json)) } else { expected("a number in range", json) }
}

fn string(json: &str) -> Result<Cow<'_, str>, String> {
    if !json.starts_with('"') {
        return expected("a string", json);
    }
    content(json).map_err(|why| format!("found {why}"))
}

fn any(json: &str, check: impl Fn(&str) -> Result<(), String>) -> Result<Cow<'_, str>, String> {
    if json == "null" {
        return expected("a value", json);
    }
    check(json).map(|()| Cow::Borrowed(json)).map_err(|why| format!("found {why}"))
}

/// As Postgres reads it: hyphens after any four digits, perhaps in braces.
fn is_uuid(text: &str) -> bool {
    let text = text.strip_prefix('{').map_or(Some(text), |inner| inner.strip_suffix('}'));
    let Some(text) = text else { return false };
    let mut digits = 0;
    for c in text.bytes() {
        match c {
            b'-' if digits % 4 == 0 && digits > 0 && digits < 32 => {}
            _ if c.is_ascii_hexdigit() => digits += 1,
            _ => return false,
        }
    }
    digits == 32 && !text.contains("--")
}

/// The array as Postgres writes it: `{1,NULL,"a"}`.
fn array(element: &FieldType, json: &str) -> Result<String, String> {
    if !json.starts_with('[') {
        return expected("an array", json);
    }
    let elements: Vec<&RawValue> = Vec::deserialize(&mut serde_json::Deserializer::from_str(json))
        .map_err(|error| format!("expected an array: {error}"))?;
    let mut text = String::with_capacity(json.len() + 2);
    text.push('{');
    for (nth, value) in elements.iter().enumerate() {
        if nth > 0 {
            text.push(',');
        }
        if value.get() == "null" {
            text.push_str("NULL");
            continue;
        }
        let value = element.text(value.get()).map_err(|why| format!("element {}: {why}", nth + 1))?;
        quote(&mut text, &value);
    }
    text.push('}');
    Ok(text)
}

/// Always in quotes, so that the text `NULL` and the empty text are what they are.
fn quote(array: &mut String, element: &str) {
    array.push('"');
    for c in element.chars() {
        if matches!(c, '"' | '\\') {
            array.push('\\');
        }
        array.push(c);
    }
    array.push('"');
}

#[cfg(test)]
mod tests;
