//! What `halt` and `resume` share: which partitions, why, and what changed.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::exit::Problem;
use super::output;

/// Bytes of a reason: it is kept for ever, and it is a sentence.
const REASON_LENGTH_MAX: usize = 1_024;

/// `TOPIC` (all its partitions) or `TOPIC:PARTITION`. A topic's name has no colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The command topic.
    pub(super) topic: String,
    /// One partition, or all of them.
    pub(super) partition: Option<i32>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (topic, partition) = match text.split_once(':') {
            None => (text, None),
            Some((topic, number)) => {
                let number: Option<i32> = number.parse().ok().filter(|number| *number >= 0);
                let number = number.ok_or("the partition has to be a number from 0")?;
                (topic, Some(number))
            }
        };
        if topic.is_empty() {
            return Err("the topic is missing".to_owned());
        }
        Ok(Self { topic: topic.to_owned(), partition })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partition {
            Some(partition) => write!(f, "{}:{partition}", self.topic),
            None => f.write_str(&self.topic),
        }
    }
}

/// Accepts a reason that says something.
pub(super) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.len() {
        0 => Err("say why: it is kept in the audit".to_owned()),
        length if length > REASON_LENGTH_MAX => Err(format!("at most {REASON_LENGTH_MAX} bytes")),
        _ => Ok(text.to_owned()),
    }
}

/// What became of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    /// The command topic.
    pub(super) topic: String,
    /// The partition.
    pub(super) partition: i32,
    /// False when it already was as asked.
    pub(super) changed: bool,
    /// What was done, or why nothing was.
    pub(super) detail: String,
}

/// The result of an operator's verb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Changes {
    pub(super) partitions: Vec<Change>,
}

impl Changes {
    pub(super) fn table(&self) -> String {
        let mut table = output::table(&["TOPIC", "PARTITION", "CHANGED", "DETAIL"]);
        for change in &self.partitions {
            let changed = if change.changed { "yes" } else { "no" };
            let partition = change.partition.to_string();
            table.add_row([&change.topic, &partition, changed, &change.detail]);
        }
        output::drawn(&table)
    }
}

/// Where to go on: `OFFSET`, `earliest` or `latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SkipTo {
    /// The next record to settle.
    Offset(i64),
    /// The oldest record that the log still holds.
    Earliest,
    /// The end of the log.
    Latest,
}

impl FromStr for SkipTo {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let offset = |text: &str| text.parse().ok().filter(|offset| *offset >= 0);
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => offset(text).map(Self::Offset).ok_or("an offset from 0, earliest or latest"),
        }
    }
}

/// So long ago: milliseconds since 1970, not before that.
pub(super) fn ago_ms(ago: Duration) -> i64 {
    let then = SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
    let since_1970 = then.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// Why something is done at once, or that it is not to be done.
#[derive(Debug, clap::Args)]
pub(super) struct Why {
    /// Why, for the audit
    #[arg(long, value_name = "TEXT", value_parser = reason, required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Say what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Why {
    /// The reason; `None`: nothing is to be done.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref().filter(|_| !self.dry_run)
    }
}

/// A change was asked for without a reason.
pub(super) fn no_reason() -> anyhow::Error {
    Problem::usage("say why, with --reason: it is kept in the audit").into()
}
