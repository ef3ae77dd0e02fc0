//! Where a partition that was never claimed begins.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The first record that a new partition settles. A partition that has a cursor ignores it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// The oldest record that the log still holds.
    #[default]
    Earliest,
    /// The first record after the claim.
    Latest,
    /// The first record at or after this time.
    At(Timestamp),
}

/// A text that is none of the three.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither \"earliest\" nor \"latest\" nor a time with an offset such as \"2026-01-31T00:00:00Z\"")]
pub struct StartError(String);

impl FromStr for Start {
    type Err = StartError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            time => time.parse().map(Self::At).map_err(|_| StartError(time.to_owned())),
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::At(time) => time.fmt(f),
        }
    }
}

impl Serialize for Start {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// TOML has times of its own, so both `"2026-01-31T00:00:00Z"` and the same without quotes are meant.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected \"earliest\", \"latest\" or an RFC 3339 time")]
enum Written {
    Text(String),
    Time(toml::value::Datetime),
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = match Written::deserialize(from)? {
            Written::Text(text) => text,
            Written::Time(time) => time.to_string(),
        };
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Start {
    fn schema_name() -> Cow<'static, str> {
        "Start".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "anyOf": [{ "enum": ["earliest", "latest"] }, { "format": "date-time" }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_toml(value: &str) -> Result<Start, toml::de::Error> {
        #[derive(Deserialize)]
        struct Holder {
            start: Start,
        }
        toml::from_str::<Holder>(&format!("start = {value}")).map(|holder| holder.start)
    }

    #[test]
    fn a_time_may_be_written_with_or_without_quotes() {
        let time = Start::At("2026-01-31T00:00:00Z".parse().expect("a time"));
        assert_eq!(from_toml("2026-01-31T00:00:00Z").ok(), Some(time));
        assert_eq!(from_toml("\"2026-01-31T01:00:00+01:00\"").ok(), Some(time));
    }

    #[test]
    fn a_time_without_an_offset_is_refused() {
        let error = from_toml("2026-01-31T00:00:00").expect_err("no offset");
        assert!(error.message().contains("offset"), "{error}");
        assert!("newest".parse::<Start>().is_err());
    }
}
