//! Why commands cannot be run again.

use rdkafka::error::KafkaError;

use super::shadow::ShadowError;
use crate::config;
use crate::kafka::{InspectError, ReadError};
use crate::postgres::{self, CheckpointError, ConnectError, ReachError, Refusal};
use crate::record::TopicPartition;

/// A verification, or a dry run after a restore, cannot be made. What differs is no error but a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The configuration cannot be used.
    #[error("the configuration cannot be used")]
    Config(#[from] config::Error),
    /// A topic is not in the configuration.
    #[error("topic {0} is not in the configuration")]
    UnknownTopic(String),
    /// The shadow cannot run these commands.
    #[error("the commands cannot be run again")]
    Unready(#[from] ShadowError),
    /// The schema does not fit this program.
    #[error("{0}")]
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
    /// The shadow refuses, or cannot be reached.
    #[error("the shadow database refuses")]
    Shadow(#[source] postgres::Error),
    /// Somebody else writes the shadow.
    #[error("{0}: somebody else writes the shadow database ({1})")]
    Disturbed(TopicPartition, String),
    /// The server has crashed, and the shadow is empty.
    #[error("the database server has crashed meanwhile, and what the shadow held is gone; type the same command again")]
    Crashed,
    /// The checkpoint cannot be begun from.
    #[error("the checkpoint cannot be begun from")]
    Checkpoint(#[from] CheckpointError),
    /// The live state cannot be copied.
    #[error("the live state cannot be copied into the shadow database")]
    Fill(#[source] CheckpointError),
    /// Nobody answers there.
    #[error("no broker answers at {servers}: start it, or correct kafka.bootstrap_servers")]
    NoBroker {
        /// `kafka.bootstrap_servers`.
        servers: String,
        /// What the client says.
        #[source]
        error: InspectError,
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

    /// The steps halt, which they do for nothing that a rebuild does.
    #[error("the rebuild halts: {0}")]
    Halts(String),
    /// Keys of a topic have moved: their commands lie on two partitions, in an order that no offset tells.
    #[error(
        "topic {0} was repartitioned: the order of a key's commands over its two partitions is not in the log, so they cannot be run again"
    )]
    Repartitioned(String),
    /// The checkpoint belongs to another log.
    #[error(
        "{0}: the topic was made anew since the checkpoint was made: the log behind its cursor is not the one that the \
         tables come from"
    )]
    AnotherLog(TopicPartition),
    /// The cursor has gone back over the checkpoint's.
    #[error(
        "{0}: its cursor has gone back over the checkpoint's (resume --skip-to, or another log): offsets do not tell what was \
         settled before; begin from a newer checkpoint, or from the beginning of the log"
    )]
    WentBack(TopicPartition),
    /// The tables are older than the checkpoint.
    #[error("{0}: the tables are older than the checkpoint (was the database restored?): begin from an older one")]
    Older(TopicPartition),
    /// The log no longer begins where the rebuild does.
    #[error(
        "{source_log}: the log begins at offset {low}, the rebuild at {from}: what lies between is gone (retention or \
         DeleteRecords), so the tables cannot be rebuilt from there; a checkpoint at or behind offset {low} can be begun \
         from (--from NAME)"
    )]
    LogGone {
        /// The partition.
        source_log: TopicPartition,
        /// The first offset that is needed.
        from: i64,
        /// The first that the log has.
        low: i64,
    },
    /// What could be gone on in says what was a day ago, or longer.
    #[error(
        "shadow database {shadow} was begun with the tables as of {cut_at}, which is too long ago: begin anew (--anew)"
    )]
    TooOld {
        /// Its name.
        shadow: String,
        /// The time of its cut, RFC 3339.
        cut_at: String,
    },
    /// The program's file cannot be looked at, so nobody knows whether a shadow was made by the same.
    #[error("the program's own file cannot be read")]
    Program(#[source] std::io::Error),
    /// The cut that a shadow keeps is not readable.
    #[error("the cut in the shadow database cannot be read or kept ({0}); begin anew: --anew")]
    NotKept(String),

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
    #[error(
        "no partition of {0} is halted with database-behind; a worker finds out and halts them: start one, and see: solewriter status"
    )]
    NothingBehind(String),
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
    ForgottenGone {
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

    /// It was asked to stop.
    #[error("stopped before the end; {}", match .shadow {
        Some(shadow) => format!("the same command goes on in {shadow} (--anew begins anew)"),
        None => "nothing is changed, nothing is left behind, and the same command begins anew".to_owned(),
    })]
    Stopped {
        /// Where the same goes on.
        shadow: Option<String>,
    },
}

impl ReplayError {
    /// Whether the same may go on later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            // somebody else goes on in it
            Self::Disturbed(..) | Self::TooOld { .. } => true,
            Self::Stopped { .. } | Self::Read(_) | Self::Inspect(..) => true,
            Self::Live(error) | Self::Shadow(error) => {
                let refusal = error.refusal();
                error.is_passing() || matches!(refusal, Some(Refusal::TimedOut(_) | Refusal::Contended(_)))
            }
            _ => false,
        }
    }

    /// The same, with the shadow that is left.
    pub(super) fn in_shadow(self, name: String) -> Self {
        match self {
            Self::Stopped { .. } => Self::Stopped { shadow: Some(name) },
            error => {
                tracing::warn!(shadow = name, "the same command goes on there");
                error
            }
        }
    }
}
