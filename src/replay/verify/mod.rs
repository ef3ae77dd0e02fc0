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
mod conclude;
mod cut;
mod ended;
mod guide;
mod lane;
mod rebuild;
mod report;
mod run;
mod settled_offsets;

use std::num::NonZeroU32;

pub use self::change::{Change, Example};
pub use self::ended::Ended;
pub use self::report::{After, Difference, PartitionReport, Report, TableReport, What};
pub use self::run::verify;
use crate::postgres::CheckpointName;

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
