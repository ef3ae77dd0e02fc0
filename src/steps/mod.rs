//! The data path: eight steps, in this order.
//!
//! 1. [`receive`]: bytes and headers become a command, or a dead letter.
//! 2. [`route`]: the key must hash to the partition that it came from.
//! 3. [`fence`]: the writer holds the token that it claimed.
//! 4. [`deduplicate`]: an id already settled gets its stored outcome again.
//! 5. [`decide`]: handlers run in offset order over prefetched state.
//! 6. [`commit`]: one call writes everything or nothing.
//! 7. [`publish`]: outcomes and events, after the commit, in order.
//! 8. [`acknowledge`]: the offset goes to Kafka, after the commit.
//!
//! All of it is values in, values out: no async, no clock, no I/O. The driver
//! that performs it for one partition is [`crate::writer`]. Two types carry the
//! order: [`fence::Claimed`] is needed to build a commit, [`commit::Durable`] to
//! publish or acknowledge.

use std::sync::Arc;

use crate::config::{OnFailure, Partitioner};
use crate::handlers::EntityHandlers;
use crate::record::TopicPartition;

pub mod acknowledge;
pub mod commit;
pub mod decide;
pub mod deduplicate;
pub mod fence;
pub mod publish;
pub mod receive;
pub mod route;

/// What the steps need to know of the partition whose records they judge.
#[derive(Clone)]
pub struct Rules {
    /// The partition.
    pub source: TopicPartition,
    /// The entity type of its topic, with the handlers.
    pub handlers: Arc<EntityHandlers>,
    /// How many partitions the topic has.
    pub partition_count: i32,
    /// How producers choose among them.
    pub partitioner: Partitioner,
    /// A value longer than this is dead: bytes.
    pub payload_bytes_max: usize,
    /// An outcome or event longer than this cannot be published: bytes.
    pub outcome_bytes_max: usize,
    /// What follows when a command fails on its own account.
    pub parking: Parking,
}

/// What follows when a command fails on its own account, and how much may wait behind such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parking {
    /// The topic's policy.
    pub on_failure: OnFailure,
    /// Commands that wait behind one key at most.
    pub waiting_per_key_max: u64,
    /// Parked keys of the partition, and commands that wait behind them, at most.
    pub waiting_max: u64,
}

impl Default for Parking {
    fn default() -> Self {
        Self { on_failure: OnFailure::default(), waiting_per_key_max: u64::MAX, waiting_max: u64::MAX }
    }
}
