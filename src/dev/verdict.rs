//! How a check of the books ends: what they add up to, or the first place where they do not.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use super::holdings::Unreadable;
use super::latency::Percentiles;
use super::tally::Tally;

/// How a run of `dev` ends.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Whether the books balance.
    pub books: Result<Balance, Difference>,
    /// How the commands of each type ended.
    pub tally: Tally,
}

/// What balanced books add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Commands sent, each counted once.
    pub commands: u64,
    /// Repeats of them.
    pub repeats: u64,
    /// Commands that had their one effect.
    pub applied: u64,
    /// Commands that the business rules refused.
    pub rejected: u64,
    /// Records read from the outcomes topics.
    pub outcomes: u64,
    /// Entities changed.
    pub entities: u64,
    /// What the entities of each type hold, which is what the applied commands added.
    pub held: BTreeMap<String, i64>,
    /// Commands of somebody else, whose entities are left out of `held`.
    pub foreign: u64,
    /// Times that a partition changed hands: its fencing tokens less the first of each.
    pub claims: i64,
    /// Workers that were stopped under load.
    pub take_overs: u32,
    /// Workers that were halted like a machine that stalls, and woken when others had taken over.
    pub zombies: u32,
    /// Writes that the fence refused.
    pub refused: u64,
    /// Commands that were run again from the log, in a shadow database, and came out alike; none if the role may
    /// not make one.
    pub replayed: Option<u64>,
    /// From sending a command to reading its outcome; none without an outcome.
    pub latency: Option<Percentiles>,
}

/// The first place where the books do not balance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Difference {
    /// A partition refuses to go on.
    #[error("{topic}:{partition} is halted with {code}: {detail}")]
    Halted {
        /// Its topic.
        topic: String,
        /// Its number.
        partition: i32,
        /// The halt's code.
        code: String,
        /// Its detail.
        detail: String,
    },
    /// A sample command became a dead letter.
    #[error("{command_type} to {entity_id} is a dead letter: {code}: {detail} (command {command_id})")]
    Dead {
        /// Its id.
        command_id: Uuid,
        /// Its type.
        command_type: String,
        /// Whom it was for.
        entity_id: String,
        /// The dead letter's code.
        code: String,
        /// The same at length.
        detail: String,
    },
    /// A command id has two final outcomes.
    #[error("command {0} has two final outcomes")]
    SettledTwice(Uuid),
    /// A command has no final outcome.
    #[error("command {0} was sent and has no final outcome")]
    NotSettled(Uuid),
    /// A delivery was not answered on the outcomes topic.
    #[error("command {command_id} was delivered {deliveries} times, its outcome is on the topic {outcomes} times")]
    Unanswered {
        /// Its id.
        command_id: Uuid,
        /// How often it was sent.
        deliveries: u32,
        /// How often its outcome was read.
        outcomes: u32,
    },
    /// Two outcomes of one command are not the same to the byte.
    #[error("command {0} was answered with two different outcomes")]
    Contradicted(Uuid),
    /// The outcome that was published is not the one that is stored.
    #[error("the published outcome of command {0} is not the stored one")]
    NotAsStored(Uuid),
    /// An entity's versions are not 1, 2, 3 and so on, one per applied command.
    #[error("{entity_type} {entity_id} is at version {version}, but {applied} commands were applied to it")]
    Version {
        /// The entity's type.
        entity_type: String,
        /// Its id.
        entity_id: String,
        /// The version in its row.
        version: i64,
        /// Its applied commands with different versions.
        applied: i64,
    },
    /// A state cannot be read.
    #[error("the state of {entity_type} {entity_id} cannot be read: {why}")]
    Unreadable {
        /// The entity's type.
        entity_type: String,
        /// Its id.
        entity_id: String,
        /// What serde says.
        why: String,
    },
    /// The sum is wrong.
    #[error("the {entity_type} entities hold {held}, but the applied commands added {added}")]
    Sum {
        /// Their type.
        entity_type: String,
        /// What their states hold.
        held: i64,
        /// What it should be.
        added: i64,
    },
    /// What the log says, run again, is not what the tables hold.
    #[error("the {0}")]
    Replayed(String),
}

impl Difference {
    /// Type and code of a dead letter.
    pub(super) fn dead_kind(&self) -> Option<(&str, &str)> {
        match self {
            Self::Dead { command_type, code, .. } => Some((command_type, code)),
            _ => None,
        }
    }
}

impl From<Unreadable> for Difference {
    fn from(Unreadable { entity_type, entity_id, why }: Unreadable) -> Self {
        Self::Unreadable { entity_type, entity_id, why }
    }
}
