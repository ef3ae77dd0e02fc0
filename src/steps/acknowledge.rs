//! Step 8, acknowledge: the offset goes to Kafka, after the commit only.
//!
//! For lag tools, and as an independent witness: a committed offset above the
//! cursor means that the database went back in time. The cursor in Postgres is
//! the truth; nothing is ever started from Kafka's.

use super::commit::Durable;
use crate::record::TopicPartition;

/// An offset to commit to the consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The partition.
    pub source: TopicPartition,
    /// The first offset that is not settled.
    pub next_offset: i64,
}

/// The acknowledgement of a settled batch.
pub fn acknowledge(durable: &Durable) -> Acknowledgement {
    Acknowledgement { source: durable.claimed().source().clone(), next_offset: durable.cursor().next_offset }
}
