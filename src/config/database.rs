//! `[database]`: the Postgres that proves what the queue promises.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::database_url::DatabaseUrl;
use super::duration;
use super::duration::{DURATION_MIN, TIMEOUT_MAX};
use super::error::{Error, Invalid};

/// Postgres cuts longer names off, and two schemas would become one.
const SCHEMA_LENGTH_MAX: usize = 63;

/// How to reach Postgres and how long to wait for it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// postgres://user:password@host:5432/database. Without sslmode a remote host is verified in
    /// full (sslmode=verify-full). No default; DATABASE_URL counts where this is silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<DatabaseUrl>,
    /// The schema that holds solewriter's tables: lower-case letters, digits and underscores, at
    /// most 63.
    pub schema: String,
    /// The schema of the tables that SQL commands write, where a statement does not name another;
    /// of the same form as schema.
    pub tables_schema: String,
    /// Connections that one worker process opens at most.
    pub connections_max: NonZeroU32,
    /// How long to wait for a connection, with its unit.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub connect_timeout: Duration,
    /// How long one statement may run before Postgres cancels it, with its unit.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub statement_timeout: Duration,
    /// How long a statement may wait for a lock before Postgres cancels it, with its unit.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub lock_timeout: Duration,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            schema: "solewriter".to_owned(),
            tables_schema: "public".to_owned(),
            connections_max: NonZeroU32::MIN.saturating_add(7),
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(2),
        }
    }
}

impl Database {
    /// The URL.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if nobody set it.
    pub fn require_url(&self) -> Result<&DatabaseUrl, Error> {
        self.url.as_ref().ok_or(Error::Missing {
            key: "database.url",
            cure: "set DATABASE_URL, SOLEWRITER__DATABASE__URL, or url under [database]",
        })
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        for (key, name) in [("database.schema", &self.schema), ("database.tables_schema", &self.tables_schema)] {
            if !is_schema_name(name) {
                let problem = format!(
                    "{name:?} is no schema name: lower-case letters, digits and underscores, not a digit first, at most {SCHEMA_LENGTH_MAX}"
                );
                return Err(Invalid::new(key, problem));
            }
        }
        if self.schema == self.tables_schema {
            let problem = "it is database.schema too: a table of the team's could be taken for one of solewriter's";
            return Err(Invalid::new("database.tables_schema", problem.to_owned()));
        }
        [
            ("database.connect_timeout", self.connect_timeout),
            ("database.statement_timeout", self.statement_timeout),
            ("database.lock_timeout", self.lock_timeout),
        ]
        .into_iter()
        .try_for_each(|(key, value)| duration::within(key, value, DURATION_MIN, TIMEOUT_MAX))
    }
}

/// The name is written into statements unquoted, so this is also what keeps them safe.
fn is_schema_name(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let continues = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    starts && name.chars().all(continues) && name.len() <= SCHEMA_LENGTH_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_name_needs_no_quotes() {
        assert!(is_schema_name("solewriter"));
        assert!(is_schema_name(&"s".repeat(63)));
        for refused in ["", "1st", "Sole", "a-b", "a;drop", &"s".repeat(64)] {
            assert!(!is_schema_name(refused), "{refused}");
        }
    }

    #[test]
    fn both_schemas_are_checked() {
        let wrong = || "a;drop".to_owned();
        let schema = Database { schema: wrong(), ..Database::default() };
        assert_eq!(schema.validate().expect_err("no name").key, "database.schema");
        let tables_schema = Database { tables_schema: wrong(), ..Database::default() };
        assert_eq!(tables_schema.validate().expect_err("no name").key, "database.tables_schema");
    }

    #[test]
    fn a_timeout_that_postgres_would_read_as_off_is_refused() {
        for lock_timeout in [Duration::ZERO, Duration::from_micros(400)] {
            let database = Database { lock_timeout, ..Database::default() };
            let invalid = database.validate().expect_err("too short");
            assert_eq!(invalid.key, "database.lock_timeout");
        }
    }
}
