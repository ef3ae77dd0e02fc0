//! After a restore of the database to an earlier time: the commands that it has forgotten are run again in a
//! [shadow](crate::postgres::SHADOW_PREFIX), and how they end is set against what the outcomes topic says.
//!
//! A partition that is halted `database-behind` stands still, so what a worker would make of it can be tried without
//! one: the shadow gets a copy of the live state, and the same steps run the same handlers on the log from the
//! database's cursor to the last offset that somebody has seen settled. Nothing live is written, and nothing is
//! published. Where everything ends as it was published, the halt can be lifted knowingly: [`resume`] does it, if the
//! partition is still as it was seen.

mod again;
mod compared;
mod dry;
mod heard;
mod report;
mod resume;

use std::num::NonZeroU32;

pub use self::dry::dry_run;
pub use self::report::{Difference, Forgotten, PartitionReport, Report, WouldHalt};
pub use self::resume::{Settled, resume, settled};
use crate::postgres::PartitionSeen;

/// How a dry run is made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The topics and partitions that are meant; none: every partition that is halted `database-behind`.
    pub places: Vec<(String, Option<i32>)>,
    /// Records a second at most, over all partitions.
    pub rate: Option<NonZeroU32>,
    /// Go on where an earlier dry run of the same was stopped or killed, with the copy that it made of the live tables,
    /// and leave this one's shadow for that if it is stopped. Not for a dry run that [`resume`] follows: somebody may
    /// have mended a row since.
    pub go_on: bool,
    /// Drop what such an earlier one has left instead.
    pub anew: bool,
}

/// What a dry run has found, and of which rows: what [`resume`] insists on.
#[derive(Clone, Debug)]
pub struct Found {
    /// For people and programs.
    pub report: Report,
    /// The partitions as they were, in the order of the report.
    pub seen: Vec<PartitionSeen>,
}
