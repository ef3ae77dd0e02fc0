//! After a restore of the database to an earlier time: the commands that it has forgotten are run again in a
//! [shadow](crate::postgres::SHADOW_PREFIX), and how they end is set against what the outcomes topic says.
//!
//! A partition that is halted `database-behind` stands still, so what a worker would make of it can be tried without
//! one: the shadow gets a copy of the live state, and the same steps run the same handlers on the log from the
//! database's cursor to the last offset that somebody has seen settled. Nothing live is written, and nothing is
//! published. Where everything ends as it was published, the halt can be lifted knowingly: [`resume`] does it, if the
//! partition is still as it was seen.

mod again;
mod dry;
mod heard;
mod report;
mod resume;

use std::num::NonZeroU32;

use rdkafka::error::KafkaError;

pub use self::dry::dry_run;
pub use self::report::{Difference, Forgotten, PartitionReport, Report, WouldHalt};
pub use self::resume::{Settled, resume, settled};
use super::shadow::ShadowError;
use crate::config;
use crate::kafka::{InspectError, ReadError};
use crate::postgres::{self, CheckpointError, ConnectError, HaltedRow, ReachError};
use crate::record::TopicPartition;

/// How a dry run is made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The topics and partitions that are meant; none: every partition that is halted `database-behind`.
    pub places: Vec<(String, Option<i32>)>,
    /// Records a second at most, over all partitions.
    pub rate: Option<NonZeroU32>,
}

/// What a dry run has found, and of which rows: what [`resume`] insists on.
#[derive(Clone, Debug)]
pub struct Found {
    /// For people and programs.
    pub report: Report,
    /// The partitions as they were, in the order of the report.
    pub seen: Vec<HaltedRow>,
}

/// It cannot be said how the commands would end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The configuration cannot be used.
    #[error("the configuration cannot be used")]
    Config(#[from] config::Error),
    /// A topic is not in the configuration.
    #[error("topic {0} is not in the configuration")]
    UnknownTopic(String),
    /// The partition goes on, or is halted for another reason.
    #[error(
        "{source_log} is {state}: replay run is for partitions that are halted with database-behind; see: solewriter status"
    )]
    NotBehind {
        /// The partition.
        source_log: TopicPartition,
        /// How it is instead.
        state: String,
    },
    /// No partition of those that are meant is halted so.
    #[error("no partition of {0} is halted with database-behind; see: solewriter status")]
    NothingBehind(String),
    /// The schema does not fit this program.
    #[error("schema {0:?} has no solewriter tables, or another version's; type: solewriter migrate")]
    Schema(String),
    /// The database's address cannot be used.
    #[error("the database cannot be used")]
    Connect(#[from] ConnectError),
    /// The database refuses the connection.
    #[error("the database cannot be used")]
    Reach(#[from] ReachError),
    /// The live tables cannot be read.
    #[error("the live tables cannot be read")]
    Live(#[from] postgres::Error),
    /// A shadow database cannot be made.
    #[error("the shadow database {name} cannot be made (the role needs CREATEDB: alter role … createdb)")]
    NoShadow {
        /// Its name.
        name: String,
        /// What the database says.
        #[source]
        error: postgres::Error,
    },
    /// The shadow cannot run these commands.
    #[error("the shadow database cannot be used")]
    Unready(#[from] ShadowError),
    /// The live state cannot be copied.
    #[error("the live state cannot be copied into the shadow database")]
    Fill(#[from] CheckpointError),
    /// The shadow refuses, or cannot be reached.
    #[error("the shadow database refuses")]
    Shadow(#[source] postgres::Error),
    /// Somebody else writes the shadow.
    #[error("{0}: somebody else writes the shadow database ({1})")]
    Disturbed(TopicPartition, String),
    /// The topic has another partition count than its records were placed for.
    #[error("{source_log}: the topic has {found} partitions, its records were placed for {placed_for}")]
    Layout {
        /// The partition.
        source_log: TopicPartition,
        /// The count of the database's row.
        placed_for: i32,
        /// What the broker says.
        found: i32,
    },
    /// The log no longer holds all that the database has forgotten.
    #[error(
        "{source_log}: offsets {from} to {} are no longer in the log (retention or DeleteRecords): what the database has \
         forgotten of them cannot be run again. Restore a newer copy of the database; or give them up with solewriter \
         resume {source_log} --skip-to {low} --reason …",
        low - 1
    )]
    LogGone {
        /// The partition.
        source_log: TopicPartition,
        /// The first offset that is needed.
        from: i64,
        /// The first that the log has.
        low: i64,
    },
    /// The log ends before what was seen settled does, or an open transaction hides it.
    #[error("{source_log}: offsets up to {} were settled, and only those below {readable} can be read now: an open transaction \
         hides them (wait until it ends; see solewriter replay plan), or the log has lost its end (then give them up with \
         solewriter resume {source_log} --accept-database --reason …)", end - 1)]
    LogShort {
        /// The partition.
        source_log: TopicPartition,
        /// The offset behind the last that was settled.
        end: i64,
        /// The offset behind the last that can be read.
        readable: i64,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Read(#[from] ReadError),
    /// The broker does not tell.
    #[error("{0}: the broker does not tell")]
    Inspect(String, #[source] InspectError),
    /// The Kafka client cannot be made.
    #[error("the Kafka client cannot be made")]
    Client(#[from] KafkaError),
    /// The server has lost its last commits in the shadow.
    #[error(
        "the database server was started again meanwhile, and what the shadow had not on disk is lost; type the same command again"
    )]
    Restarted,
    /// It was asked to stop.
    #[error("stopped before the end: nothing is changed, and nothing is left behind; the same command begins anew")]
    Stopped,
}
