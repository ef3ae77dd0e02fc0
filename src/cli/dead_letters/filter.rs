//! Which letters are meant.

use std::time::{Duration, SystemTime};

use crate::dead_letter::LetterState;
use crate::postgres::LetterFilter;

/// Filters that all have to fit.
#[derive(Debug, clap::Args)]
pub(super) struct Filter {
    /// The letter of this number; may be given several times
    #[arg(long = "letter", value_name = "NUMBER")]
    ids: Vec<i64>,
    /// Of this command topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Of this partition
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    /// Of this key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Of this code, such as handler-failed; may be given several times
    #[arg(long = "code", value_name = "CODE")]
    codes: Vec<String>,
    /// Of this command type
    #[arg(long = "type", value_name = "TYPE")]
    command_type: Option<String>,
    /// Settled within this time, such as 2h or 3d
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Settled before this time ago, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    until: Option<Duration>,
}

impl Filter {
    /// With these states.
    pub(super) fn of(&self, states: &[LetterState]) -> LetterFilter {
        LetterFilter {
            ids: self.ids.clone(),
            topic: self.topic.clone(),
            partition: self.partition,
            key: self.key.clone(),
            codes: self.codes.clone(),
            command_type: self.command_type.clone(),
            states: states.iter().map(ToString::to_string).collect(),
            since_ms: self.since.map(ago_ms),
            until_ms: self.until.map(ago_ms),
        }
    }

    /// Whether every letter is meant.
    pub(super) fn is_empty(&self) -> bool {
        let Self { ids, topic, partition, key, codes, command_type, since, until } = self;
        ids.is_empty()
            && codes.is_empty()
            && (topic.as_ref(), partition, key.as_ref(), command_type.as_ref()) == (None, &None, None, None)
            && (since, until) == (&None, &None)
    }
}

fn ago_ms(ago: Duration) -> i64 {
    let then = SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
    let since_1970 = then.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}
