//! Which letters are meant.

use std::time::Duration;

use crate::cli::exit::Problem;
use crate::cli::inspect::SCAN_TIMEOUT;
use crate::cli::operator::{self, ago_ms};
use crate::dead_letter::LetterState;
use crate::postgres::{LetterFilter, Store, StoredLetter};

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

/// Which letters a change is meant for, and whether it is made.
#[derive(Debug, clap::Args)]
pub(super) struct Change {
    #[command(flatten)]
    pub(super) filter: Filter,
    /// Every dead letter there is
    #[arg(long)]
    all: bool,
    /// Why, for the audit; needed to execute
    #[arg(long, value_name = "TEXT", value_parser = operator::reason)]
    reason: Option<String>,
    /// Do it: without this only a preview is printed
    #[arg(long)]
    pub(super) execute: bool,
}

impl Change {
    /// The letters that are meant and have not ended.
    ///
    /// # Errors
    /// If the filter means every letter and nobody has said `--all`.
    pub(super) async fn letters(&self, store: &Store, letters_max: i64) -> anyhow::Result<Vec<StoredLetter>> {
        if self.filter.is_empty() && !self.all {
            let why = "say which letters are meant, with a filter such as --key or --code, or --all";
            return Err(Problem::usage(why).into());
        }
        let filter = self.filter.of(&[LetterState::Dead, LetterState::Parked, LetterState::Waiting]);
        Ok(store.letters(&filter, letters_max, SCAN_TIMEOUT).await?)
    }

    /// Why it is made.
    ///
    /// # Errors
    /// If nobody has said it.
    pub(super) fn reason(&self) -> anyhow::Result<&str> {
        self.reason.as_deref().ok_or_else(operator::no_reason)
    }
}
