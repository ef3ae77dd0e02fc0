//! `[[topics]]`: a command topic, the entity type that lives on it, and where its outcomes go.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::start::Start;

/// One command topic.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// The command topic's name. It is never created: its partition count is its producers' choice.
    pub name: String,
    /// The entity type that its keys name. It belongs to this topic alone.
    pub entity: String,
    /// Where outcomes go; the default is the name with .outcomes added. Created if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcomes_topic: Option<String>,
    /// Where emitted events go; the default is the name with .events added. Created if it is
    /// missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_topic: Option<String>,
    /// Where dead letters are mirrored to, each with its bytes and the reason in headers; by
    /// convention the name with .dlq added. Without it none are. Created if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_topic: Option<String>,
    /// How the producers choose a key's partition: "murmur2" (Java), "crc32" (librdkafka's
    /// consistent) or "fnv1a" (Sarama). A record on another partition is dead, misrouted.
    #[serde(default)]
    pub partitioner: Partitioner,
    /// Where a partition that was never claimed begins: "earliest", "latest" or a time such as
    /// "2026-01-31T00:00:00Z" (RFC 3339). Used once per partition.
    #[serde(default)]
    pub start: Start,
    /// What a command that fails on its own account does: "park-key" holds its key back,
    /// "skip" goes on and gives up the order of that key, "halt-partition" stops.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// How a key becomes a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Partitioner {
    /// The Java client's, and librdkafka's `murmur2` and `murmur2_random`.
    #[default]
    Murmur2,
    /// librdkafka's `consistent` and `consistent_random`.
    Crc32,
    /// librdkafka's `fnv1a`, and Sarama's default.
    Fnv1a,
}

/// What becomes of the partition when a command fails on its own account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Later commands of its key wait behind it; other keys go on.
    #[default]
    ParkKey,
    /// Later commands of its key go on: the order of that key is given up.
    Skip,
    /// Nothing of the partition goes on until an operator decides.
    HaltPartition,
}

impl Topic {
    /// A topic with every default.
    #[must_use]
    pub fn new(name: impl Into<String>, entity: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            entity: entity.into(),
            outcomes_topic: None,
            events_topic: None,
            dead_letter_topic: None,
            partitioner: Partitioner::default(),
            start: Start::default(),
            on_failure: OnFailure::default(),
        }
    }

    /// Where outcomes go.
    #[must_use]
    pub fn outcomes_topic(&self) -> Cow<'_, str> {
        or_suffixed(self.outcomes_topic.as_deref(), &self.name, "outcomes")
    }

    /// Where emitted events go.
    #[must_use]
    pub fn events_topic(&self) -> Cow<'_, str> {
        or_suffixed(self.events_topic.as_deref(), &self.name, "events")
    }

    /// Every topic that is published to, with the key that names it.
    pub(crate) fn published_to(&self) -> impl Iterator<Item = (&'static str, Cow<'_, str>)> {
        let answers = [("outcomes_topic", self.outcomes_topic()), ("events_topic", self.events_topic())];
        let dead_letters = self.dead_letter_topic.as_deref().map(|name| ("dead_letter_topic", name.into()));
        answers.into_iter().chain(dead_letters)
    }

    /// Writes the defaults out, so that what is shown is what is in effect.
    pub(super) fn resolve(&mut self) {
        self.outcomes_topic = Some(self.outcomes_topic().into_owned());
        self.events_topic = Some(self.events_topic().into_owned());
    }
}

fn or_suffixed<'a>(written: Option<&'a str>, name: &str, suffix: &str) -> Cow<'a, str> {
    match written {
        Some(written) => Cow::Borrowed(written),
        None => Cow::Owned(format!("{name}.{suffix}")),
    }
}

impl Partitioner {
    /// As the file writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Murmur2 => "murmur2",
            Self::Crc32 => "crc32",
            Self::Fnv1a => "fnv1a",
        }
    }
}
