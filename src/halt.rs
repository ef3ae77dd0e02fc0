//! A halt: a partition that refuses to go on, with a named reason.

use std::fmt;

use crate::record::TopicPartition;

/// Why a partition halted. The names are part of the public interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HaltCode {
    /// Records below the cursor's continuation are gone, or the log before the
    /// cursor reads differently.
    LogTruncated,
    /// The topic was deleted and created again.
    LogRecreated,
    /// The cursor points beyond the end of the log.
    CursorBeyondEnd,
    /// The partition count changed, or an entity lives elsewhere.
    PartitionsChanged,
    /// The database knows less than a witness does: it went back in time.
    DatabaseBehind,
    /// The topic holds records older than the horizon that were never settled.
    BacklogOlderThanHorizon,
    /// The topic is compacted: commands are removed before they are settled.
    TopicCompacted,
    /// More dead letters in a row than a set ratio: rather a mistake than many.
    DeadLetterFlood,
    /// More commands wait behind parked keys than may.
    ParkedLimit,
    /// The worker can't settle for a reason that no retry mends.
    HandlerFailed,
    /// An operator said so.
    Operator,
}

impl HaltCode {
    const ALL: [(HaltCode, &'static str); 11] = [
        (HaltCode::LogTruncated, "log-truncated"),
        (HaltCode::LogRecreated, "log-recreated"),
        (HaltCode::CursorBeyondEnd, "cursor-beyond-end"),
        (HaltCode::PartitionsChanged, "partitions-changed"),
        (HaltCode::DatabaseBehind, "database-behind"),
        (HaltCode::BacklogOlderThanHorizon, "backlog-older-than-horizon"),
        (HaltCode::TopicCompacted, "topic-compacted"),
        (HaltCode::DeadLetterFlood, "dead-letter-flood"),
        (HaltCode::ParkedLimit, "parked-limit"),
        (HaltCode::HandlerFailed, "handler-failed"),
        (HaltCode::Operator, "operator"),
    ];

    /// The code as it stands in the tables.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(code, _)| *code == self).map_or("operator", |(_, name)| name)
    }

    /// The code of this name, if this version knows it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(code, _)| *code)
    }

    /// The command that resolves such a halt, with the explicit choice that it
    /// takes.
    pub fn resolve(self, at: &TopicPartition) -> String {
        let choice = match self {
            Self::LogTruncated | Self::CursorBeyondEnd => "--skip-to earliest",
            Self::LogRecreated => "--accept-new-log",
            // homes move from all partitions at once
            Self::PartitionsChanged => {
                return format!("solewriter repartition {} --drain --execute --reason …", at.topic);
            }
            Self::DatabaseBehind => "--accept-database",
            Self::BacklogOlderThanHorizon => "--accept-expired",
            Self::TopicCompacted => "--accept-compacted",
            Self::DeadLetterFlood | Self::ParkedLimit | Self::HandlerFailed | Self::Operator => {
                return format!("solewriter resume {at} --reason …");
            }
        };
        format!("solewriter resume {at} {choice} --reason …")
    }
}

/// What resolves a halt whose code stands in the tables: also one that a newer
/// version has recorded, as far as this one can say.
pub fn resolve(code: &str, at: &TopicPartition) -> String {
    HaltCode::parse(code).map_or_else(|| "upgrade solewriter".to_owned(), |code| code.resolve(at))
}

impl fmt::Display for HaltCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A halt that is about to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// The named reason.
    pub code: HaltCode,
    /// What happened and what it means, for a person.
    pub detail: String,
    /// For `database-behind`: the token and the offset that a witness has seen.
    pub witnessed: Option<(i64, i64)>,
}

impl Halt {
    /// A halt without a witness.
    pub fn new(code: HaltCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), witnessed: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_read_back_as_itself() {
        for (code, name) in HaltCode::ALL {
            assert_eq!(HaltCode::parse(code.as_str()), Some(code));
            assert_eq!(code.as_str(), name);
        }
    }
}
