//! What a checkpoint is called, and its schema with it.

use std::fmt;
use std::str::FromStr;

/// Bytes of a checkpoint's name.
const NAME_LENGTH_MAX: usize = 24;
/// Bytes of a schema's name: Postgres cuts longer ones off.
const SCHEMA_LENGTH_MAX: usize = 63;

/// The name of a checkpoint: lower-case letters, digits and underscores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckpointName(String);

/// No name of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a checkpoint is 1 to {NAME_LENGTH_MAX} lower-case letters, digits and underscores, not {0:?}")]
pub struct NotAName(String);

impl FromStr for CheckpointName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let fits = (1..=NAME_LENGTH_MAX).contains(&text.len());
        let is_plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if fits && is_plain { Ok(Self(text.to_owned())) } else { Err(NotAName(text.to_owned())) }
    }
}

impl fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl CheckpointName {
    /// The schema that a checkpoint of the tables in `schema` has. `None`: that would be too long for Postgres.
    pub fn schema(&self, schema: &str) -> Option<String> {
        let own = format!("{}{}", schema_prefix(schema), self.0);
        (own.len() <= SCHEMA_LENGTH_MAX).then_some(own)
    }
}

/// What the schemas of all checkpoints of the tables in `schema` begin with.
pub fn schema_prefix(schema: &str) -> String {
    format!("{schema}_checkpoint_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_short_and_needs_no_quotes() {
        let name: CheckpointName = "before_1_4_2".parse().expect("a name");
        assert_eq!(name.schema("solewriter").as_deref(), Some("solewriter_checkpoint_before_1_4_2"));
        for refused in ["", "Before", "a-b", "a b", "a\"b", "ä", "a".repeat(25).as_str()] {
            assert!(refused.parse::<CheckpointName>().is_err(), "{refused}");
        }
    }

    #[test]
    fn a_schema_that_postgres_would_cut_off_is_none() {
        let name: CheckpointName = "x".parse().expect("a name");
        assert!(name.schema(&"s".repeat(50)).is_some());
        assert_eq!(name.schema(&"s".repeat(51)), None);
    }
}
