//! Is the database what its log says? The commands are run again, in a [shadow](crate::postgres::SHADOW_PREFIX),
//! and everything that they leave is set against the live tables.
//!
//! The log says what was asked, the tables what was done. Handlers are deterministic, so the one follows from
//! the other, but for what only the tables know: which delivery of a command was settled, what was dead or
//! expired, what an operator has had run again and when. With that the same steps run the same
//! handlers on the records below a consistent cut of the live tables, and every outcome, every event, every
//! version and state, and every row of the tables that commands write must come out alike.
//!
//! Commands in SQL run in the shadow as in a commit. Partitions whose commands write tables share rows, perhaps: they
//! are run again in the order in which their batches were committed.
//!
//! The live database is only read, in sessions that refuse to write; nothing is published.

mod change;
mod compare;
mod guide;
mod lane;
mod rebuild;
mod report;
mod run;

use std::num::NonZeroU32;

use rdkafka::error::KafkaError;

pub use self::change::{Change, Example};
pub use self::compare::Ended;
pub use self::report::{After, Difference, PartitionReport, Report, TableReport, What};
pub use self::run::verify;
use crate::config;
use crate::kafka::{InspectError, ReadError};
use crate::postgres::Refusal;
use crate::postgres::{self, CheckpointError, ConnectError, ReachError};
use crate::record::TopicPartition;
use crate::replay::checkpoint::CheckpointName;
use crate::replay::shadow::ShadowError;

/// How to verify.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Records a second at most, over all partitions, so that live writers keep their latency.
    pub rate: Option<NonZeroU32>,
    /// Of [`Report::changes`], those of records as new as this, milliseconds since 1970; all if it is not given.
    pub changes_since_ms: Option<i64>,
    /// Begin from what this checkpoint holds, instead of from nothing and the beginning of the log.
    pub from: Option<CheckpointName>,
    /// Leave the shadow database, to look into.
    pub keep: bool,
    /// Go on where an earlier verification of the same was stopped or killed, with its cut, and leave this one's shadow
    /// for that if it is stopped.
    pub go_on: bool,
    /// Drop what such an earlier one has left instead.
    pub anew: bool,
}

/// A verification cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The configuration cannot be used.
    #[error("the configuration cannot be used")]
    Config(#[from] config::Error),
    /// The shadow database cannot be made ready.
    #[error("the commands cannot be run again")]
    Unready(#[from] ShadowError),
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
    /// The shadow refuses, or cannot be reached.
    #[error("the shadow database refuses")]
    Shadow(#[source] postgres::Error),
    /// Somebody else writes the shadow.
    #[error("{0}: somebody else writes the shadow database ({1})")]
    Disturbed(TopicPartition, String),
    /// The steps halt, which they do for nothing that a rebuild does.
    #[error("the rebuild halts: {0}")]
    Halts(String),
    /// Keys of a topic have moved: their commands lie on two partitions, in an order that no offset tells.
    #[error(
        "topic {0} was repartitioned: the order of a key's commands over its two partitions is not in the log, so they cannot be run again"
    )]
    Repartitioned(String),
    /// The checkpoint cannot be begun from.
    #[error("the checkpoint cannot be begun from")]
    Checkpoint(#[from] CheckpointError),
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
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Read(#[from] ReadError),
    /// The broker does not tell.
    #[error("the broker does not answer")]
    Inspect(#[from] InspectError),
    /// The Kafka client cannot be made.
    #[error("the Kafka client cannot be made")]
    Client(#[from] KafkaError),
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
    /// The server has lost its last commits in the shadow.
    #[error(
        "the database server was started again meanwhile, and what the shadow had not on disk is lost; type the same command again"
    )]
    Restarted,
    /// The program's file cannot be looked at, so nobody knows whether a shadow was made by the same.
    #[error("the program's own file cannot be read")]
    Program(#[source] std::io::Error),
    /// The cut that a shadow keeps is not readable.
    #[error("the cut in the shadow database cannot be read or kept ({0}); begin anew: --anew")]
    NotKept(String),
    /// It was asked to stop.
    #[error("stopped before the end; {}", match .shadow {
        Some(shadow) => format!("the same command goes on in {shadow} (--anew begins anew)"),
        None => "nothing is left behind".to_owned(),
    })]
    Stopped {
        /// Where the same goes on.
        shadow: Option<String>,
    },
}

impl VerifyError {
    /// Whether the same may go on later.
    fn is_passing(&self) -> bool {
        match self {
            // somebody else goes on in it
            Self::Disturbed(..) | Self::Restarted | Self::TooOld { .. } => true,
            Self::Stopped { .. } | Self::Read(_) | Self::Inspect(_) => true,
            Self::Live(error) | Self::Shadow(error) => {
                let refusal = error.refusal();
                error.is_passing() || matches!(refusal, Some(Refusal::TimedOut(_) | Refusal::Contended(_)))
            }
            _ => false,
        }
    }

    /// The same, with the shadow that is left.
    fn in_shadow(self, name: String) -> Self {
        match self {
            Self::Stopped { .. } => Self::Stopped { shadow: Some(name) },
            error => {
                tracing::warn!(shadow = name, "the same command goes on there");
                error
            }
        }
    }
}
