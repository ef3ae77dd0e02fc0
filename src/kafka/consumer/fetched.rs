//! One partition that librdkafka has been told to fetch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::kafka::Lane;
use crate::record::{Record, TopicPartition};
use crate::telemetry::{PartitionState, metrics};

/// How long the thread waits for room before it pauses who is stuck.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(1);

/// A partition that is being fetched.
pub(super) struct Fetched {
    pub(super) source: TopicPartition,
    pub(super) records: UnboundedSender<Record>,
    pub(super) lane: Arc<Lane>,
    pub(super) paused: bool,
    /// What its writer had settled when that was last seen to move, and when.
    moved: usize,
    pub(super) moved_at: Instant,
}

impl Fetched {
    pub(super) fn new(source: TopicPartition, records: UnboundedSender<Record>, lane: Arc<Lane>) -> Self {
        Self { source, records, lane, paused: false, moved: 0, moved_at: Instant::now() }
    }

    pub(super) fn show(&self, state: PartitionState) {
        metrics::Partition::new(&self.source.topic, self.source.partition).state(state);
    }

    /// Whether its writer has settled nothing for a second although it could.
    pub(super) fn is_stuck(&mut self) -> bool {
        let moved = self.lane.given_back_bytes();
        if moved != self.moved || self.lane.queued_bytes() == 0 {
            self.moved = moved;
            self.moved_at = Instant::now();
        }
        self.moved_at.elapsed() >= ROOM_WAIT_MAX
    }
}
