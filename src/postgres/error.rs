//! What the database's errors mean, by SQLSTATE.

use serde::Deserialize;
use sqlx::postgres::PgDatabaseError;

use crate::dead_letter::DeadCode;

/// An error of the adapter. Each says what happens next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database refused, and nothing was written.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The database cannot be reached, or the connection ended: what was sent may
    /// or may not have happened. Retry; a settlement is sent again as it is.
    #[error("the database does not answer: {why}")]
    Unavailable {
        /// What happened.
        why: String,
        /// The driver's error, if it was one.
        source: Option<sqlx::Error>,
    },
}

/// Why the database refused. Everything that the statement did is undone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The claim is stale.
    #[error("the claim is stale")]
    Fenced,
    /// An entity has another version than the decision rests on: decide again.
    #[error("an entity has another version")]
    Conflict,
    /// An id is settled already: look the ids up and decide again.
    #[error("a command id is settled already")]
    Duplicate,
    /// An id is below the horizon, which has moved: decide again.
    #[error("a command id is below the horizon")]
    BelowHorizon,
    /// A command's key is parked: the writer does not know what the database does, it claims again.
    #[error("a command of a parked key does not run")]
    Parked,
    /// The maintenance duty belongs to the owner of another topic.
    #[error("{0}")]
    DutyElsewhere(String),
    /// The idempotency table has no partition for an id's day: make it.
    #[error("the idempotency table has no partition for the day of an id")]
    DayMissing,
    /// An entity lives on another partition: halt `partitions-changed`.
    #[error("{0}")]
    WrongHome(String),
    /// The partition belongs to another cluster or consumer group: the process ends.
    #[error("{0}")]
    AnotherGroup(String),
    /// Deadlock or serialization failure: retry with half the batch.
    #[error("{0}")]
    Contended(String),
    /// A lock or a statement took too long: retry some times.
    #[error("{0}")]
    TimedOut(String),
    /// These commands of the batch must be decided otherwise.
    #[error("{} commands are to be decided otherwise", .0.len())]
    Judged(Vec<Refused>),
    /// A value that the database does not take: it belongs to one command.
    #[error("{0}")]
    Data(String),
    /// Nothing that a retry mends (a missing table or permission): halt.
    #[error("{0}")]
    Broken(String),
}

/// A command of a batch, or a write, that the database refuses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Refused {
    /// Its place among what runs in the database, from 1.
    pub at: usize,
    /// Why its delivery is dead, if it is: the code.
    #[serde(default)]
    pub dead: Option<DeadCode>,
    /// The payload's field that is malformed, from 0, if that is why.
    #[serde(default)]
    pub field: Option<usize>,
    /// The code that it is rejected with, if it is.
    #[serde(default)]
    pub reject: Option<String>,
    /// For a person.
    #[serde(default)]
    pub why: Option<String>,
}

impl Refused {
    /// What `settle_batch` says in an error's detail.
    fn read(detail: Option<&str>) -> Refusal {
        match serde_json::from_str(detail.unwrap_or_default()) {
            Ok(refused) => Refusal::Judged(refused),
            Err(error) => {
                Refusal::Broken(format!("settle_batch says which commands it refuses in no known way: {error}"))
            }
        }
    }
}

impl Error {
    /// The client has given up waiting for an answer.
    pub fn unanswered(within: std::time::Duration) -> Self {
        Self::Unavailable { why: format!("no answer within {within:?}"), source: None }
    }

    /// Whether waiting may help: not if the server answers, but refuses the login,
    /// or there is no such database, or its certificate is not trusted.
    pub fn is_passing(&self) -> bool {
        let Self::Unavailable { source, .. } = self else { return false };
        match source {
            Some(sqlx::Error::Database(database)) => {
                database.code().is_none_or(|code| !code.starts_with("28") && code != "3D000")
            }
            Some(sqlx::Error::Tls(_) | sqlx::Error::Configuration(_)) => false,
            _ => true,
        }
    }

    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Unavailable { .. } => None,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                let database = database.downcast_ref::<PgDatabaseError>();
                if database.code() == "SW009" {
                    return Refused::read(database.detail()).into();
                }
                match classify(database.code(), database.table(), describe(database)) {
                    Some(refusal) => refusal.into(),
                    None => Self::Unavailable { why: describe(database), source: Some(error) },
                }
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_) | sqlx::Error::ColumnNotFound(_) => {
                Refusal::Broken(error.to_string()).into()
            }
            _ => Self::Unavailable { why: error.to_string(), source: Some(error) },
        }
    }
}

/// Message and SQLSTATE; not the detail, which quotes the values of keys.
fn describe(error: &PgDatabaseError) -> String {
    format!("{} (SQLSTATE {})", error.message(), error.code())
}

/// DESIGN: errors by SQLSTATE. Postgres' appendix A lists the classes.
/// `None`: the database is unavailable.
fn classify(code: &str, table: Option<&str>, message: String) -> Option<Refusal> {
    Some(match code {
        "SW001" => Refusal::Fenced,
        "SW002" => Refusal::Conflict,
        "SW004" => Refusal::WrongHome(message),
        "SW005" => Refusal::BelowHorizon,
        "SW006" => Refusal::AnotherGroup(message),
        "SW011" => Refusal::Parked,
        "SW020" => Refusal::DutyElsewhere(message),
        // a command that has to be undone by itself, and one whose outcome is too large
        "SW008" | "SW010" => Refusal::Data(message),
        "23505" if table.is_some_and(|t| t.starts_with("processed_")) => Refusal::Duplicate,
        "23514" if table == Some("processed_timed") => Refusal::DayMissing,
        "40001" | "40P01" => Refusal::Contended(message),
        "55P03" | "57014" => Refusal::TimedOut(message),
        // of a statement that was prepared before, only a value can be no syntax (a jsonpath)
        "42601" => Refusal::Data(message),
        // 25006: a standby, after a fail-over; another connection may find the primary
        "25006" => return None,
        // 28: the server is there but refuses the login; 3D: no such database
        _ => match &code[..2] {
            "08" | "40" | "53" | "57" | "58" | "28" | "3D" => return None,
            "20" | "21" | "22" | "23" | "27" | "44" | "54" | "P0" => Refusal::Data(message),
            _ => Refusal::Broken(message),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_says_what_happens_next() {
        let refused = |code: &str, table| classify(code, table, String::new());
        assert_eq!(refused("23505", Some("processed_20261122")), Some(Refusal::Duplicate));
        assert_eq!(refused("23505", Some("ledger")), Some(Refusal::Data(String::new())));
        assert_eq!(refused("23514", Some("processed_timed")), Some(Refusal::DayMissing));
        assert_eq!(refused("22P05", None), Some(Refusal::Data(String::new())));
        assert_eq!(refused("42P01", None), Some(Refusal::Broken(String::new())));
        assert_eq!(refused("57P01", None), None, "an administrator's command ends the connection: retry");
        assert_eq!(refused("57014", None), Some(Refusal::TimedOut(String::new())));
    }
}
